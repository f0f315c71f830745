/**
 * The page of `--timing=FILE.html`: a run as a timeline, a row for each program, that any browser shows from the file.
 *
 * It holds no scripts and loads nothing, and its policy forbids both: names and errors in it come from outside.
 */
import { printable } from "./errors.ts";
import type { Stage } from "./events.ts";
import { formatCount } from "./log.ts";
import { shortNames } from "./progress-block.ts";
import { STYLE } from "./timing-page-style.ts";
import {
  chooseLanes,
  createProgramFinder,
  findCriticalPath,
  measure,
  nameStage,
  type PathPiece,
  seconds,
  type Span,
  type TimedProgram,
  type TimingRecord,
} from "./timing-spans.ts";

export interface PageFacts {
  /** The command line, without secrets. */
  readonly command: string;
  /** Of ko. */
  readonly version: string;
  /** `linux/x64, 4 CPUs` */
  readonly machine: string;
  /** Absolute: files below it are shown relative to it. */
  readonly cwd: string;
  readonly endedAt: Date;
  /** The failure of the run, as stderr shows it; undefined if there was none. */
  readonly error: string | undefined;
}

/** A row of the timeline. */
interface Row {
  readonly name: string;
  /** The whole name. */
  readonly title: string;
  /** Below the name of a program: how it ended. Undefined for a stage of the run. */
  readonly note: string | undefined;
  readonly spans: readonly Span[];
}

/** All that the parts of a page share. */
interface Page {
  readonly record: TimingRecord;
  readonly facts: PageFacts;
  readonly path: readonly PathPiece[];
  /** The number of a span: that of its row in the table. */
  readonly numbers: ReadonlyMap<Span, number>;
  readonly importPathsOf: (span: Span) => readonly string[];
}

const MAX_ERROR = 64 * 1024;
/** A bar that is narrower, in percent of the whole, has no text in it. */
const MIN_TEXT_WIDTH = 6;
/** Ticks that the axis has at most. */
const MAX_TICKS = 8;

/** Returns the page as HTML: the same for the same record and facts. */
export function formatPage(record: TimingRecord, facts: PageFacts): string {
  const page: Page = {
    record,
    facts,
    path: findCriticalPath(record),
    numbers: new Map(record.spans.map((span, i) => [span, i + 1])),
    importPathsOf: createProgramFinder(record.programs),
  };
  const policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(`${facts.command}: ${formatTime(record.total)}`)}</title>
<style>
${STYLE}</style>
</head>
<body>
${formatHeader(page)}
<main>
${formatTimeline(page)}
${formatStages(page)}
${formatSpans(page)}
</main>
</body>
</html>
`;
}

function formatHeader({ facts, path, record }: Page): string {
  const { command, endedAt, error, machine, version } = facts;
  const about = [
    formatCount(record.programs.length, "program"),
    // A commit is told apart by its beginning.
    `ko ${version.replace(/^([0-9a-f]{12})[0-9a-f]{28}/, "$1")}`,
    machine,
    endedAt.toISOString().replace(/T(.*)\.\d+Z$/, " $1 UTC"),
  ];
  const words = command
    .split(" ")
    .map((word) => `<span>${escapeHtml(word)}</span>`)
    .join(" ");
  const failure = error === undefined ? [] : [`<pre class="failure">${escapeHtml(error, MAX_ERROR)}</pre>`];
  return [
    `<header>`,
    `<h1><code>${words}</code></h1>`,
    `<p><strong>${formatTime(record.total)}</strong> · ${about.map((each) => escapeHtml(each)).join(" · ")}</p>`,
    ...failure,
    `<p class="waits">The run waited for ${formatWaits(path, record.total)}.</p>`,
    `</header>`,
  ].join("\n");
}

/** `compile and link 6.20 s (76 %), upload 0.90 s (11 %)`, the longest first. */
function formatWaits(path: readonly PathPiece[], total: number): string {
  const sums = new Map<string, { readonly stage: Stage | undefined; sum: number }>();
  for (const { end, span, start } of path) {
    const key = span?.stage ?? "";
    const entry = sums.get(key) ?? { stage: span?.stage, sum: 0 };
    entry.sum += end - start;
    sums.set(key, entry);
  }
  const parts = [...sums.values()]
    .filter(({ sum }) => sum >= total / 200)
    .toSorted((a, b) => b.sum - a.sum)
    .map(({ stage, sum }) => {
      const name = stage === undefined ? "between stages" : nameStage(stage);
      return `<span class="wait">${swatch(stage)}${name} <b>${formatTime(sum)}</b> (${Math.round((100 * sum) / total)} %)</span>`;
    });
  return parts.join(", ") || "nothing";
}

function formatTimeline(page: Page): string {
  const { path, record } = page;
  const onPath = new Set(path.flatMap(({ span }) => span ?? []));
  const { step, ticks } = chooseTicks(record.total);
  const rows = (all: readonly Row[]): readonly string[] => all.map((row) => formatRow(row, { ...page, onPath }));
  const axis = ticks
    .filter((at) => at <= record.total * 0.95)
    .map((at) => `<span style="left:${percent(at, record.total)}%">${formatTick(at, step)}</span>`);
  const programs = rows(programRows(page));
  return [
    `<section aria-labelledby="timeline">`,
    `<h2 id="timeline">Timeline</h2>`,
    formatLegend(record.spans),
    `<div class="chart" style="--step:${percent(step, record.total)}%">`,
    `<div class="row axis" aria-hidden="true"><div class="name"></div><div class="track">${axis.join("")}</div></div>`,
    `<h3>Run</h3>`,
    formatPathRow(page),
    ...rows(runRows(page)),
    ...(programs.length === 0 ? [] : [`<h3>Programs</h3>`, ...programs]),
    `</div>`,
    `</section>`,
  ].join("\n");
}

function formatLegend(spans: readonly Span[]): string {
  const stages = [...new Set(spans.map(({ stage }) => stage))];
  const isOpen = spans.some(({ end }) => end === undefined);
  return [
    `<ul class="legend">`,
    ...stages.map((stage) => `<li>${swatch(stage)}${nameStage(stage)}</li>`),
    `<li><i class="swatch path"></i>the run waited for it</li>`,
    `<li><i class="swatch life"></i>the program waits</li>`,
    ...(isOpen ? [`<li><i class="swatch open"></i>had not ended</li>`] : []),
    `</ul>`,
    `<p class="help">Point at a bar, or go to it with Tab, to see its name; Enter leads to its line in the table.</p>`,
  ].join("\n");
}

/** The row of the critical path. */
function formatPathRow({ numbers, path, record }: Page): string {
  const bars = path.flatMap(({ end, span, start }) =>
    span === undefined ? [] : [formatBar(span, { numbers, record, start, end, lane: 0, marks: [] })],
  );
  const title = "From the end backwards: before each stands the one that ended last before it began, or that it needs.";
  return [
    `<div class="row critical">`,
    `<div class="name" title="${title}">the run waited for</div>`,
    `<div class="track">${bars.join("")}</div>`,
    `</div>`,
  ].join("\n");
}

/** A row for each stage that belongs to no program, in the order of their beginnings. */
function runRows({ importPathsOf, record }: Page): readonly Row[] {
  const own = record.spans.filter((span) => importPathsOf(span).length === 0);
  return Array.from(
    Map.groupBy(own, ({ stage }) => stage),
    ([stage, spans]) => ({ name: nameStage(stage), title: nameStage(stage), note: undefined, spans }),
  );
}

/** A row for each program of the run, and for those that the run did not come to publish. */
function programRows({ facts, importPathsOf, record }: Page): readonly Row[] {
  const spans = new Map<string, Span[]>(record.programs.map(({ importPath }) => [importPath, []]));
  for (const span of record.spans) {
    for (const importPath of importPathsOf(span)) {
      const all = spans.get(importPath) ?? [];
      spans.set(importPath, all);
      all.push(span);
    }
  }
  const names = shortNames([...spans.keys()]);
  const programs = new Map(record.programs.map((program) => [program.importPath, program]));
  return Array.from(spans, ([importPath, all]) => ({
    name: names.get(importPath) ?? importPath,
    title: importPath,
    note: describeOutcome(programs.get(importPath), facts.cwd),
    spans: all,
  }));
}

function describeOutcome(program: TimedProgram | undefined, cwd: string): string {
  if (program?.result === undefined) return "not published";
  const { images, wasThere } = program.result;
  const why = images.flatMap((image) => image.why ?? [])[0];
  if (why === undefined) return wasThere ? "unchanged" : "reused";
  const file = why.file?.startsWith(`${cwd}/`) === true ? why.file.slice(cwd.length + 1) : why.file;
  return `rebuilt, ${file === undefined ? "" : `${file} `}${why.reason}`;
}

function formatRow(row: Row, page: Page & { readonly onPath: ReadonlySet<Span> }): string {
  const { numbers, onPath, record } = page;
  const { name, note, spans, title } = row;
  const { total } = record;
  const lanes = chooseLanes(spans, total);
  const bars = spans.map((span) => {
    const { end = total, start } = span;
    const marks = [...(onPath.has(span) ? ["path"] : []), ...(span.end === undefined ? ["open"] : [])];
    return formatBar(span, { numbers, record, start, end, lane: lanes.get(span) ?? 0, marks });
  });
  const [first] = spans;
  const last = Math.max(...spans.map(({ end = total }) => end));
  const life =
    first === undefined || note === undefined ? "" : `<i class="life" style="${place(first.start, last, total)}"></i>`;
  const small = note === undefined ? "" : `<small title="${escapeHtml(note)}">${escapeHtml(note)}</small>`;
  const height = 1 + Math.max(0, ...lanes.values());
  return [
    `<div class="row">`,
    `<div class="name" title="${escapeHtml(title)}"><span>${escapeHtml(name)}</span>${small}</div>`,
    `<div class="track" style="--lanes:${height}">${life}${bars.join("")}</div>`,
    `</div>`,
  ].join("\n");
}

interface BarOptions extends Pick<Page, "numbers" | "record"> {
  readonly start: number;
  readonly end: number;
  readonly lane: number;
  readonly marks: readonly string[];
}

function formatBar(span: Span, { end, lane, marks, numbers, record: { total }, start }: BarOptions): string {
  const name = nameStage(span.stage);
  const tip = `${name}: ${formatTime(end - start)} from ${formatTime(start)}${span.what === "" ? "" : `, ${span.what}`}`;
  // A tip near the right edge opens to the left.
  const classes = ["bar", span.stage, ...marks, ...(start > total / 2 ? ["right"] : [])].join(" ");
  const text = (100 * (end - start)) / total < MIN_TEXT_WIDTH ? "" : `<span>${name}</span>`;
  const style = `${place(start, end, total)}${lane === 0 ? "" : `;--lane:${lane}`}`;
  const label = escapeHtml(tip);
  return `<a class="${classes}" href="#s${numbers.get(span) ?? 0}" style="${style}" aria-label="${label}">${text}</a>`;
}

/** The table of stages, as `--timing` prints it. */
function formatStages({ record }: Page): string {
  const { idle, several, stages } = measure(record.spans, record.total);
  const rows = Array.from(stages, ([stage, { alone, busy, count, slowest, sum }]) =>
    [
      `<tr><th scope="row">${swatch(stage)}${nameStage(stage)}</th>`,
      ...[seconds(busy), seconds(alone), seconds(sum), String(count), seconds(slowest.took)].map(
        (cell) => `<td class="number">${cell}</td>`,
      ),
      `<td>${escapeHtml(slowest.what)}</td></tr>`,
    ].join(""),
  );
  const rest = `${seconds(idle)} between stages, ${seconds(several)} in several at once`;
  return [
    `<section aria-labelledby="stages">`,
    `<h2 id="stages">Stages</h2>`,
    `<div class="scroll" tabindex="0" role="region" aria-labelledby="stages">`,
    `<table>`,
    `<thead><tr><th>stage</th><th>busy</th><th>alone</th><th>sum</th><th>count</th><th colspan="2">slowest</th></tr></thead>`,
    `<tbody>`,
    ...rows,
    `</tbody>`,
    `<tfoot><tr><th scope="row">total</th><td class="number">${seconds(record.total)}</td><td colspan="5">${rest}</td></tr></tfoot>`,
    `</table>`,
    `</div>`,
    `</section>`,
  ].join("\n");
}

/** The table that holds every bar of the timeline. */
function formatSpans({ importPathsOf, numbers, record }: Page): string {
  const rows = record.spans.map((span) => {
    const { end = record.total, stage, start, what } = span;
    const own = importPathsOf(span);
    const open = span.end === undefined ? ", had not ended" : "";
    return [
      `<tr id="s${numbers.get(span) ?? 0}"><td class="number">${seconds(start)}</td>`,
      `<td class="number">${seconds(end - start)}${open}</td>`,
      `<td>${swatch(stage)}${nameStage(stage)}</td>`,
      `<td>${escapeHtml(own.join(" ")) || "run"}</td><td>${escapeHtml(what)}</td></tr>`,
    ].join("");
  });
  return [
    `<section aria-labelledby="spans">`,
    `<h2 id="spans">All spans</h2>`,
    `<div class="scroll" tabindex="0" role="region" aria-labelledby="spans">`,
    `<table>`,
    `<thead><tr><th>begins</th><th>takes</th><th>stage</th><th>program</th><th>about</th></tr></thead>`,
    `<tbody>`,
    ...rows,
    `</tbody>`,
    `</table>`,
    `</div>`,
    `</section>`,
  ].join("\n");
}

function swatch(stage: Stage | undefined): string {
  return stage === undefined ? "" : `<i class="swatch ${stage}"></i>`;
}

/** The place of a bar as CSS. It stays inside of the row, and can be seen if it is very short. */
function place(start: number, end: number, total: number): string {
  return `left:min(${percent(start, total)}%,100% - 2px);width:${percent(end - start, total)}%`;
}

function percent(part: number, total: number): string {
  return total > 0 ? ((100 * part) / total).toFixed(3) : "0";
}

/** Round times for the axis: steps of 1, 2 or 5 times a power of ten. Milliseconds. */
function chooseTicks(total: number): { readonly step: number; readonly ticks: readonly number[] } {
  const least = Math.max(total, 1) / MAX_TICKS;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= least) ?? 10);
  return { step, ticks: Array.from({ length: Math.floor(total / step) + 1 }, (_, i) => i * step) };
}

function formatTick(at: number, step: number): string {
  const digits = Math.max(0, 3 - Math.floor(Math.log10(step)));
  return `${(at / 1000).toFixed(Math.min(digits, 3))} s`;
}

/** Returns `7 ms`, `1.23 s`, `12.3 s`, `3 min 20 s`. */
function formatTime(milliseconds: number): string {
  if (milliseconds < 99.5) return `${milliseconds < 9.95 ? milliseconds.toFixed(1) : milliseconds.toFixed(0)} ms`;
  if (milliseconds < 9995) return `${(milliseconds / 1000).toFixed(2)} s`;
  const whole = Math.round(milliseconds / 1000);
  return whole < 60 ? `${(milliseconds / 1000).toFixed(1)} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text and values of attributes. */
function escapeHtml(text: string, maxChars?: number): string {
  return printable(text, maxChars).replace(/[&<>"']/g, (character) => ENTITIES[character] ?? "");
}
