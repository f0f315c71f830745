/**
 * Records how long each stage of a run takes, for a table on stderr, or a trace or a page in a file.
 *
 * The trace is in Chrome's Trace Event Format, which ui.perfetto.dev and chrome://tracing show:
 * https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 */
import { resolve } from "node:path";
import { describeError, printable } from "./errors.ts";
import type { Event, ReportedEvent, Stage, StageSubject } from "./events.ts";
import { checkWritableFile, writeOutputFile } from "./file.ts";
import type { Host } from "./host.ts";
import { formatCount } from "./log.ts";
import {
  chooseLanes,
  measure,
  microseconds,
  nameStage,
  seconds,
  type Span,
  type TimedProgram,
  type TimingRecord,
} from "./timing-spans.ts";

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
  /** All spans and programs until now. */
  record(): TimingRecord;
}

/** The report: a table on stderr, or a file with a trace or, by its name, a page for a browser. */
export type TimingOutput = "table" | { readonly file: string; readonly format: "trace" | "page" };

/** Records nothing. */
export const noTiming: Timing = {
  time: (_stage, _what, work) => work(),
  start: () => () => {},
  report: () => {},
};

export interface ReportTimingOptions {
  readonly to: TimingOutput;
  readonly host: Host;
  /** The command line for the page, without secrets. */
  readonly command: string;
  /** The failure of the run. @default none */
  readonly error?: unknown;
}

export interface WithTimingOptions extends Omit<ReportTimingOptions, "to" | "error"> {
  /** Undefined: no report. */
  readonly to: TimingOutput | undefined;
}

/**
 * Runs work and reports its times at the end, also if it fails.
 *
 * @throws {UsageError} If the report's file cannot be written. It is checked before the work begins.
 * @throws {KoError} If writing the file fails after the work.
 * @throws Errors of `work`.
 */
export async function withTiming<T>(work: (timing: Timing) => Promise<T>, options: WithTimingOptions): Promise<T> {
  const { command, host, to } = options;
  if (to === undefined) return work(noTiming);
  if (to !== "table") await checkWritableFile(resolve(host.cwd, to.file), "--timing");
  const recorder = createTiming(() => host.monotonic());
  let result: T;
  try {
    result = await work(recorder);
  } catch (error) {
    // An error of the report would hide that of the work.
    await reportTiming(recorder, { command, host, to, error }).catch(() => {});
    throw error;
  }
  await reportTiming(recorder, { command, host, to });
  return result;
}

/** Reports the times until now. @throws {KoError} If the file cannot be written. */
export async function reportTiming(recorder: Recorder, options: ReportTimingOptions): Promise<void> {
  const { host, to } = options;
  if (to === "table") host.err(recorder.formatTable());
  else {
    const text = to.format === "page" ? await makePage(recorder.record(), options) : recorder.formatTrace();
    await writeOutputFile(resolve(host.cwd, to.file), text, "--timing");
  }
}

async function makePage(record: TimingRecord, options: Omit<ReportTimingOptions, "to">): Promise<string> {
  const { command, error, host } = options;
  const [{ formatPage }, { koVersion }] = await Promise.all([import("./timing-page.ts"), import("./version.ts")]);
  return formatPage(record, {
    command,
    // From sources, git says the version: not after Ctrl-C.
    version: await koVersion(host).catch(() => "unknown"),
    machine: `${host.platform}/${host.arch}, ${formatCount(host.cpus, "CPU")}`,
    cwd: host.cwd,
    endedAt: host.now(),
    error: error === undefined ? undefined : describeError(host.signal.aborted ? host.signal.reason : error),
  });
}

/**
 * Makes a recorder. The time from 0 until now is the stage `start`.
 *
 * @param now milliseconds since the run began, monotonic
 */
export function createTiming(now: () => number): Recorder {
  const spans: OpenSpan[] = [{ stage: "start", what: "", start: 0, end: now() }];
  const programs = new Map<string, TimedProgram>();
  const start = (stage: Stage, what: string | StageSubject): (() => void) => {
    const { image, importPaths, text } = subjectOf(what);
    const span: OpenSpan = { stage, what: oneLine(text), importPaths, image, start: now(), end: undefined };
    spans.push(span);
    return () => {
      span.end ??= now();
    };
  };
  return {
    start,
    time: (stage, what, work) => within(start(stage, what), work),
    report: (event) => {
      if (event.type === "program") {
        programs.set(event.importPath, { importPath: event.importPath, image: event.image, result: undefined });
      } else if (event.type === "result") {
        const program = programs.get(event.importPath);
        if (program !== undefined) programs.set(event.importPath, { ...program, result: event });
      }
    },
    stageTimes: () => {
      const { stages } = measure(spans.slice(1), now());
      return Array.from(stages, ([stage, { busy }]) => [stage, busy] as const);
    },
    formatTable: () => formatTable(spans, now()),
    formatTrace: () => formatTrace(spans, now()),
    record: () => ({ spans: [...spans], programs: [...programs.values()], total: now() }),
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

type OpenSpan = Omit<Span, "end"> & { end: number | undefined };

function formatTable(spans: readonly Span[], now: number): string {
  const { stages, idle, several } = measure(spans, now);
  const rows = Array.from(stages, ([stage, { busy, alone, sum, count, slowest }]) => {
    const what = printable(slowest.what, 60);
    const longest = count === 1 ? what : `${seconds(slowest.took)}  ${what}`;
    return [nameStage(stage), seconds(busy), seconds(alone), seconds(sum), String(count), longest];
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

function formatTrace(spans: readonly Span[], now: number): string {
  const stages = Map.groupBy(spans, ({ stage }) => stage);
  const lanes = new Map(Array.from(stages, ([stage, all]) => [stage, chooseLanes(all, now)] as const));
  const names = Array.from(lanes, ([stage, chosen]) => {
    const count = 1 + Math.max(...chosen.values());
    return Array.from({ length: count }, (_, lane) => ({ stage, lane }));
  }).flat();
  const tids = new Map(names.map(({ stage, lane }, i) => [`${stage} ${lane}`, i + 1]));
  const pid = 1;
  const traceEvents = [
    { name: "process_name", ph: "M", pid, tid: 0, args: { name: "ko" } },
    ...names.flatMap(({ stage, lane }, i) => {
      const name = `${nameStage(stage)}${lane === 0 ? "" : ` ${lane + 1}`}`;
      return [
        { name: "thread_name", ph: "M", pid, tid: i + 1, args: { name } },
        { name: "thread_sort_index", ph: "M", pid, tid: i + 1, args: { sort_index: i + 1 } },
      ];
    }),
    ...spans.map((span) => ({
      name: span.what || nameStage(span.stage),
      cat: span.stage,
      ph: "X",
      ts: microseconds(span.start),
      dur: microseconds(span.end ?? now) - microseconds(span.start),
      pid,
      tid: tids.get(`${span.stage} ${lanes.get(span.stage)?.get(span) ?? 0}`),
      args: span.end === undefined ? { unfinished: true } : {},
    })),
  ];
  return `${JSON.stringify({ traceEvents, displayTimeUnit: "ms" })}\n`;
}

function oneLine(text: string): string {
  return printable(text.replaceAll(/\s/g, " "), 200);
}
