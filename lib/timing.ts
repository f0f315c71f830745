/**
 * Records how long each stage of a run takes, for a table on stderr or a trace in a file.
 *
 * The trace is in Chrome's Trace Event Format, which ui.perfetto.dev and chrome://tracing show:
 * https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 */
import { resolve } from "node:path";
import { printable } from "./errors.ts";
import type { Event, ReportedEvent, Stage, StageSubject } from "./events.ts";
import { checkWritableFile, writeOutputFile } from "./file.ts";
import type { Host } from "./host.ts";

/** Records what a run does: spans of time, and progress within them. */
export interface Timing {
  /**
   * Runs work and records how long it took, also if it fails.
   *
   * @param what names the span. It is shown, so it must not hold secrets.
   */
  time<T>(stage: Stage, what: string | StageSubject, work: () => Promise<T>): Promise<T>;
  /** Starts a span, and returns the function that ends it. A span that is never ended ends with the run. */
  start(stage: Stage, what: string | StageSubject): () => void;
  /** Reports progress to the live block and to the file of `--events`. */
  report(event: ReportedEvent): void;
}

/** A {@link Timing} that reports its spans. A span that has not ended counts until now. */
export interface Recorder extends Timing {
  /** How long each stage was busy, in milliseconds, in the order of their beginnings, without the stage `start`. */
  stageTimes(): readonly (readonly [stage: Stage, busy: number])[];
  /**
   * A row for each stage, in the order of their beginnings: how long it was busy (two uploads at once count once), how
   * long no other stage was, the sum of its spans, their number, and the longest. The last line is the whole run.
   */
  formatTable(): string;
  /** The spans in Chrome's Trace Event Format, as JSON: a lane for each stage, more where its spans overlap. */
  formatTrace(): string;
}

/** The report: a table on stderr, or a trace in a file. */
export type TimingOutput = "table" | { readonly file: string };

/** Records nothing. */
export const noTiming: Timing = {
  time: (_stage, _what, work) => work(),
  start: () => () => {},
  report: () => {},
};

/** Labels of the stages that are not shown by their names. */
const SHOWN: Partial<Readonly<Record<Stage, string>>> = { compile: "compile and link" };

export interface WithTimingOptions {
  /** Undefined: no report. */
  readonly to: TimingOutput | undefined;
  readonly host: Host;
}

/**
 * Runs work and reports its times at the end, also if it fails.
 *
 * @throws {UsageError} If the report's file cannot be written. It is checked before the work begins.
 * @throws {KoError} If writing the file fails after the work.
 * @throws Errors of `work`.
 */
export async function withTiming<T>(work: (timing: Timing) => Promise<T>, options: WithTimingOptions): Promise<T> {
  const { to, host } = options;
  if (to === undefined) return work(noTiming);
  const file = to === "table" ? undefined : resolve(host.cwd, to.file);
  if (file !== undefined) await checkWritableFile(file, "--timing");
  const recorder = createTiming(() => host.monotonic());
  const report = async (): Promise<void> => {
    if (file === undefined) host.err(recorder.formatTable());
    else await writeOutputFile(file, recorder.formatTrace(), "--timing");
  };
  let result: T;
  try {
    result = await work(recorder);
  } catch (error) {
    // An error of the report would hide that of the work.
    await report().catch(() => {});
    throw error;
  }
  await report();
  return result;
}

/**
 * Makes a recorder. The time from 0 until now is the stage `start`.
 *
 * @param now milliseconds since the run began, monotonic
 */
export function createTiming(now: () => number): Recorder {
  const spans: Span[] = [{ stage: "start", what: "", start: 0, end: now() }];
  const start = (stage: Stage, what: string | StageSubject): (() => void) => {
    const span: Span = { stage, what: oneLine(subjectOf(what).text), start: now(), end: undefined };
    spans.push(span);
    return () => {
      span.end ??= now();
    };
  };
  return {
    start,
    time: (stage, what, work) => within(start(stage, what), work),
    report: () => {},
    stageTimes: () => {
      const { stages } = measure(spans.slice(1), now());
      return Array.from(stages, ([stage, { busy }]) => [stage, busy] as const);
    },
    formatTable: () => formatTable(spans, now()),
    formatTrace: () => formatTrace(spans, now()),
  };
}

/**
 * Returns a timing that reports its spans as events as well.
 *
 * @param report gets those events, and all that are reported to the timing
 */
export function reportingTiming(timing: Timing, report: (event: Event) => void): Timing {
  let ids = 0;
  const start = (stage: Stage, what: string | StageSubject): (() => void) => {
    const id = ids++;
    const subject = subjectOf(what);
    const end = timing.start(stage, subject);
    report({ type: "stage", state: "begin", stage, id, subject });
    let isOpen = true;
    return () => {
      end();
      if (isOpen) report({ type: "stage", state: "end", stage, id, subject });
      isOpen = false;
    };
  };
  return {
    start,
    time: (stage, what, work) => within(start(stage, what), work),
    report: (event) => {
      timing.report(event);
      report(event);
    },
  };
}

function subjectOf(what: string | StageSubject): StageSubject {
  return typeof what === "string" ? { text: what } : what;
}

async function within<T>(end: () => void, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } finally {
    end();
  }
}

/** Times are milliseconds. */
interface Span {
  readonly stage: Stage;
  readonly what: string;
  readonly start: number;
  /** Undefined until it ends. */
  end: number | undefined;
}

interface StageTotals {
  busy: number;
  /** While no other stage was busy. */
  alone: number;
  sum: number;
  count: number;
  slowest: { readonly what: string; readonly took: number };
}

function formatTable(spans: readonly Span[], now: number): string {
  const { stages, idle, several } = measure(spans, now);
  const rows = Array.from(stages, ([stage, { busy, alone, sum, count, slowest }]) => {
    const what = printable(slowest.what, 60);
    const longest = count === 1 ? what : `${seconds(slowest.took)}  ${what}`;
    return [SHOWN[stage] ?? stage, seconds(busy), seconds(alone), seconds(sum), String(count), longest];
  });
  const head = ["stage", "busy", "alone", "sum", "count", "slowest"];
  const rest = `${seconds(idle)} unaccounted, ${seconds(several)} in several at once`;
  const whole = ["total", seconds(now), rest];
  // The text of the last line spans several columns, so it does not widen them.
  const widths = head.map((_, column) => {
    const cells = [head, ...rows, ...(column < 2 ? [whole] : [])].map((row) => row[column] ?? "");
    return Math.max(...cells.map((cell) => cell.length));
  });
  const line = (row: readonly string[], last: number): string => {
    const cells = row.map((cell, column) => {
      const width = widths[column] ?? 0;
      return column === 0 ? cell.padEnd(width) : column === last ? cell : cell.padStart(width);
    });
    return `${cells.join("  ").trimEnd()}\n`;
  };
  return [head, ...rows].map((row) => line(row, 5)).join("") + line(whole, 2);
}

interface Totals {
  /** In the order of their first beginnings. */
  readonly stages: ReadonlyMap<Stage, StageTotals>;
  /** While no stage was busy. */
  readonly idle: number;
  /** While two stages or more were busy. */
  readonly several: number;
}

function measure(spans: readonly Span[], now: number): Totals {
  const stages = new Map<Stage, StageTotals>();
  for (const { stage, what, start, end = now } of spans) {
    const took = end - start;
    const totals = stages.get(stage) ?? { busy: 0, alone: 0, sum: 0, count: 0, slowest: { what, took } };
    totals.sum += took;
    totals.count += 1;
    if (took > totals.slowest.took) totals.slowest = { what, took };
    stages.set(stage, totals);
  }
  const turns = spans.flatMap(({ stage, start, end = now }) => [
    { at: start, stage, change: 1 },
    { at: end, stage, change: -1 },
  ]);
  const running = new Map<Stage, number>();
  let [idle, several, last] = [0, 0, 0];
  const pass = (at: number): void => {
    const passed = at - last;
    last = at;
    if (running.size === 0) idle += passed;
    if (running.size > 1) several += passed;
    for (const stage of running.keys()) {
      const totals = stages.get(stage);
      if (totals === undefined) continue;
      totals.busy += passed;
      if (running.size === 1) totals.alone += passed;
    }
  };
  for (const { at, stage, change } of turns.sort((a, b) => a.at - b.at)) {
    pass(at);
    const count = (running.get(stage) ?? 0) + change;
    if (count === 0) running.delete(stage);
    else running.set(stage, count);
  }
  pass(now);
  return { stages, idle, several };
}

function formatTrace(spans: readonly Span[], now: number): string {
  // For each stage: when each of its lanes is free again, in microseconds.
  const lanes = new Map<Stage, number[]>();
  const placed = spans.map(({ stage, what, start, end }) => {
    const [from, to] = [microseconds(start), microseconds(end ?? now)];
    const ends = lanes.get(stage) ?? [];
    lanes.set(stage, ends);
    const free = ends.findIndex((each) => each <= from);
    const lane = free < 0 ? ends.length : free;
    ends[lane] = to;
    return { stage, what, from, to, lane, unfinished: end === undefined };
  });
  const names = Array.from(lanes, ([stage, ends]) => ends.map((_, lane) => ({ stage, lane }))).flat();
  const tids = new Map(names.map(({ stage, lane }, i) => [`${stage} ${lane}`, i + 1]));
  const pid = 1;
  const traceEvents = [
    { name: "process_name", ph: "M", pid, tid: 0, args: { name: "ko" } },
    ...names.flatMap(({ stage, lane }, i) => {
      const name = `${SHOWN[stage] ?? stage}${lane === 0 ? "" : ` ${lane + 1}`}`;
      return [
        { name: "thread_name", ph: "M", pid, tid: i + 1, args: { name } },
        { name: "thread_sort_index", ph: "M", pid, tid: i + 1, args: { sort_index: i + 1 } },
      ];
    }),
    ...placed.map(({ stage, what, from, to, lane, unfinished }) => ({
      name: what || (SHOWN[stage] ?? stage),
      cat: stage,
      ph: "X",
      ts: from,
      dur: to - from,
      pid,
      tid: tids.get(`${stage} ${lane}`),
      args: unfinished ? { unfinished } : {},
    })),
  ];
  return `${JSON.stringify({ traceEvents, displayTimeUnit: "ms" })}\n`;
}

function microseconds(milliseconds: number): number {
  return Math.round(milliseconds * 1000);
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(3)} s`;
}

function oneLine(text: string): string {
  return printable(text.replaceAll(/\s/g, " "), 200);
}
