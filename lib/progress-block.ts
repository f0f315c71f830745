/**
 * The live block of a terminal as lines of text: one for each program, and one for the whole run.
 *
 * progress-terminal.ts puts it on the screen.
 */
import { formatSize } from "./log.ts";
import type { ActiveStage, Progress, ProgressRow } from "./progress.ts";
import type { Stage } from "./events.ts";
import { plainStyle, type Style } from "./log-style.ts";

export interface BlockOptions {
  /** Of the terminal. A line has at most one column less, so that no terminal wraps it. */
  readonly columns: number;
  /** Of the terminal. The block has at most one line less. */
  readonly rows: number;
  /** Milliseconds, as the events were given. */
  readonly now: number;
  /** Milliseconds: when the run began. */
  readonly startedAt: number;
  /** Begins the line of the whole run. @default none */
  readonly title?: string | undefined;
}

/** What a person calls a stage, in the words of a sentence without subject. */
const WORDS: Readonly<Record<Stage, string>> = {
  start: "starting",
  read: "reading YAML",
  list: "listing packages",
  base: "reading base",
  check: "checking",
  compile: "compiling",
  layer: "packing",
  upload: "uploading",
  manifest: "tagging",
  load: "loading",
  write: "writing",
  sbom: "writing SBOM",
  kubectl: "kubectl",
  rollout: "waiting",
};

/** Of several stages at once, the first one here is shown. */
const BY_WEIGHT: readonly Stage[] = [
  "compile",
  "load",
  "upload",
  "layer",
  "write",
  "sbom",
  "manifest",
  "base",
  "list",
  "kubectl",
  "rollout",
  "read",
  "check",
  "start",
];

/** Returns the lines of the block, without line ends. */
export function renderBlock(progress: Progress, options: BlockOptions): readonly string[] {
  const width = Math.max(10, options.columns - 1);
  const height = Math.max(1, options.rows - 1);
  const rows = progress.rows;
  const names = shortNames(rows.map(({ importPath }) => importPath));
  const shown = chooseRows(rows, height - 1);
  const nameWidth = Math.min(
    Math.max(0, ...shown.map((row) => (names.get(row.importPath) ?? "").length)),
    Math.max(8, Math.floor(width * 0.4)),
  );
  const lines = shown.map((row) => {
    const name = fit(names.get(row.importPath) ?? row.importPath, nameWidth).padEnd(nameWidth);
    return fit(`${name}  ${describeRow(row, options.now)}`, width);
  });
  return [...lines, fit(describeRun(progress, { ...options, hidden: rows.length - shown.length }), width)];
}

/**
 * Returns the shortest ends of import paths that tell them apart: `web`, or `a/web` and `b/web`.
 *
 * @returns by import path
 */
export function shortNames(importPaths: readonly string[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const importPath of importPaths) {
    const parts = importPath.split("/");
    let name = importPath;
    for (let n = 1; n < parts.length; n++) {
      name = parts.slice(-n).join("/");
      const end = `/${name}`;
      if (!importPaths.some((other) => other !== importPath && (other === name || other.endsWith(end)))) break;
      name = importPath;
    }
    names.set(importPath, name);
  }
  return names;
}

/** Returns `0.4 s`, `12 s`, `3 min 20 s`. */
export function formatDuration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Programs that {@link describeWait} names. */
const MOST_NAMES = 3;

/** Returns what a run waits for: `compiling web, worker; uploading 3.1 MB of 7.4 MB to localhost:5000`. Empty if nothing. */
export function describeWait({ rows, stages }: Progress): string {
  const names = shortNames(rows.map(({ importPath }) => importPath));
  const busy = rows.filter(({ result }) => result === undefined);
  const parts = new Map<string, string[]>();
  for (const row of busy) {
    const stage = heaviest(row.stages);
    if (stage === undefined) continue;
    const what = describeStage(stage, row);
    parts.set(what, [...(parts.get(what) ?? []), names.get(row.importPath) ?? row.importPath]);
  }
  for (const { stage, text } of stages) parts.set(WORDS[stage], [...(parts.get(WORDS[stage]) ?? []), text]);
  const list = (all: readonly string[]): string => {
    const more = all.length > MOST_NAMES ? ` and ${all.length - MOST_NAMES} more` : "";
    return `${all.slice(0, MOST_NAMES).join(", ")}${more}`;
  };
  return Array.from(parts, ([what, all]) => `${what} ${list(all)}`.trim()).join("; ");
}

/** Returns the line of a finished program: `332a585b7d0e  built, 0.9 s`. */
export function describeResult(
  { result, tags, transfer, wasCompiled }: ProgressRow,
  style: Pick<Style, "success"> = plainStyle,
): string {
  if (result === undefined) return "";
  const digest = result.digest.replace(/^sha256:([0-9a-f]{12}).*$/, "$1");
  const sent = transfer.bytes > 0 ? `, sent ${formatSize(transfer.bytes)}` : "";
  const how = result.wasThere ? "unchanged" : wasCompiled ? "built" : "published";
  const named = tags.length === 0 || tags.join() === "latest" ? "" : ` (${tags.join(", ")})`;
  return `${digest}  ${style.success(how)}${named}${sent}, ${formatDuration(result.took)}`;
}

/** Rows that fit: those at work first, then those that wait, then those that are done; in their own order. */
function chooseRows(rows: readonly ProgressRow[], height: number): readonly ProgressRow[] {
  if (rows.length <= height) return rows;
  const rank = (row: ProgressRow): number => (row.result !== undefined ? 2 : row.stages.length > 0 ? 0 : 1);
  const chosen = new Set(rows.toSorted((a, b) => rank(a) - rank(b)).slice(0, Math.max(0, height)));
  return rows.filter((row) => chosen.has(row));
}

function describeRow(row: ProgressRow, now: number): string {
  if (row.result !== undefined) return describeResult(row);
  const stage = heaviest(row.stages);
  if (stage === undefined) return "waiting";
  const took = formatDuration(now - (row.since ?? now));
  return `${describeStage(stage, row)}, ${took}`;
}

function describeStage({ stage }: ActiveStage, row: ProgressRow): string {
  const word = WORDS[stage];
  if (stage === "compile" && row.platforms > 1) return `${word} ${row.compiled + 1} of ${row.platforms}`;
  if (stage !== "upload" && stage !== "load") return word;
  const { bytes, host, rate, total } = row.transfer;
  if (host === undefined) return word;
  const amount = total === undefined ? formatSize(bytes) : `${formatSize(bytes)} of ${formatSize(total)}`;
  if (rate === undefined) return `${word} ${amount} to ${host}`;
  const left = total === undefined ? "" : `, ${formatDuration(((total - bytes) * 1000) / rate)} left`;
  return `${word} ${amount}, ${formatSize(rate)}/s${left}`;
}

function heaviest(stages: readonly ActiveStage[]): ActiveStage | undefined {
  return stages.toSorted((a, b) => BY_WEIGHT.indexOf(a.stage) - BY_WEIGHT.indexOf(b.stage))[0];
}

function describeRun(progress: Progress, options: BlockOptions & { readonly hidden: number }): string {
  const { hidden, now, startedAt, title } = options;
  const { note, rows, stages } = progress;
  const took = formatDuration(now - startedAt);
  const done = rows.filter(({ result }) => result !== undefined).length;
  const count = rows.length === 0 ? [] : [`${done} of ${rows.length} done`];
  const more = hidden > 0 ? [`${hidden} not shown`] : [];
  const stage = heaviest(stages);
  const waits = stage === undefined ? [] : [`${WORDS[stage.stage]} ${stage.text}`.trim()];
  const last = note === "" ? [] : [note.replaceAll(/\s+/g, " ")];
  const state = [took, ...count, ...more, ...(last.length > 0 ? last : waits)].join(", ");
  return title === undefined ? state : `${title}: ${state}`;
}

/** Cuts text to a width, with an ellipsis. */
export function fit(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}
