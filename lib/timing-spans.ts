/**
 * The spans of a run as they were recorded, and what can be computed from them: the totals of stages, and lanes without
 * overlaps.
 */
import type { ResultEvent, Stage } from "./events.ts";

/** A stretch of time in which a stage worked. Times are milliseconds since the run began. */
export interface Span {
  readonly stage: Stage;
  /** One printable line; empty for the stage `start`. */
  readonly what: string;
  /** The programs that it worked on. @default those of `image` */
  readonly importPaths?: readonly string[] | undefined;
  /** The name of the image that it worked on. */
  readonly image?: string | undefined;
  readonly start: number;
  /** Undefined if it has not ended. */
  readonly end: number | undefined;
}

/** A program of the run, as far as it came. */
export interface TimedProgram {
  readonly importPath: string;
  /** Its name, without tag. */
  readonly image: string;
  /** Undefined if it was not published. */
  readonly result: Pick<ResultEvent, "images" | "wasThere"> | undefined;
}

/** All that is known of a run. */
export interface TimingRecord {
  /** In the order of their beginnings. */
  readonly spans: readonly Span[];
  /** In the order of the input. */
  readonly programs: readonly TimedProgram[];
  /** Milliseconds. */
  readonly total: number;
}

/** The name of a stage for people. */
export function nameStage(stage: Stage): string {
  return stage === "compile" ? "compile and link" : stage;
}

export interface StageTotals {
  busy: number;
  /** While no other stage was busy. */
  alone: number;
  sum: number;
  count: number;
  slowest: { readonly what: string; readonly took: number };
}

export interface Totals {
  /** In the order of their first beginnings. */
  readonly stages: ReadonlyMap<Stage, StageTotals>;
  /** While no stage was busy. */
  readonly idle: number;
  /** While two stages or more were busy. */
  readonly several: number;
}

/** Measures how long each stage was busy, alone, and with others. A span that has not ended counts until `now`. */
export function measure(spans: readonly Span[], now: number): Totals {
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

/** A piece of the critical path. Times are milliseconds since the run began. */
export interface PathPiece {
  /** Undefined while nothing was recorded. */
  readonly span: Span | undefined;
  readonly start: number;
  readonly end: number;
}

/** Milliseconds: spans that end no further apart ended together. */
const TOGETHER_MS = 1;

/**
 * Finds the spans that a run waited for, from its end backwards: before each comes the one that ended last before it
 * began, or one of the same program or of the whole run that was still at work then.
 *
 * @returns pieces from 0 to the total, without gaps
 */
export function findCriticalPath(record: TimingRecord): readonly PathPiece[] {
  const pieces: PathPiece[] = [];
  const importPathsOf = createProgramFinder(record.programs);
  let at = record.total;
  let next: Span | undefined;
  while (at > 0) {
    const found = findBefore(record, { at, next, importPathsOf });
    const end = found?.end ?? 0;
    if (end < at) pieces.push({ span: undefined, start: end, end: at });
    if (found === undefined) break;
    const { span } = found;
    if (span.start < end) pieces.push({ span, start: span.start, end });
    at = span.start;
    next = span;
  }
  return pieces.reverse();
}

interface FindBeforeOptions {
  /** Milliseconds: when the next span begins. */
  readonly at: number;
  /** Undefined at the end of the run. */
  readonly next: Span | undefined;
  readonly importPathsOf: (span: Span) => readonly string[];
}

function findBefore(
  { spans, total }: TimingRecord,
  { at, importPathsOf, next }: FindBeforeOptions,
): { readonly span: Span; readonly end: number } | undefined {
  const others = next === undefined ? [] : importPathsOf(next);
  let best: { readonly span: Span; readonly end: number; readonly isRelated: boolean } | undefined;
  for (const span of spans) {
    const end = span.end ?? total;
    const own = importPathsOf(span);
    const isRelated = own.length === 0 || others.length === 0 || own.some((each) => others.includes(each));
    // One that goes on is no reason why another program begins, and neither is one that began at the same time.
    if (span.start >= at || (end > at && (!isRelated || span.start > at - TOGETHER_MS))) continue;
    const candidate = { span, end: Math.min(end, at), isRelated };
    if (best === undefined || isBetter(candidate, best)) best = candidate;
  }
  return best;
}

type Candidate = NonNullable<ReturnType<typeof findBefore>> & { readonly isRelated: boolean };

function isBetter(a: Candidate, b: Candidate): boolean {
  if (Math.abs(a.end - b.end) > TOGETHER_MS) return a.end > b.end;
  return a.isRelated === b.isRelated ? a.span.start >= b.span.start : a.isRelated;
}

/** Returns a function that names the programs on which a span worked; none if it belongs to the whole run. */
export function createProgramFinder(programs: readonly TimedProgram[]): (span: Span) => readonly string[] {
  const byImage = new Map(programs.map(({ image, importPath }) => [image, importPath]));
  const known = new Set(byImage.values());
  return ({ image, importPaths = [] }) => {
    // The built-in base has layers too.
    const own = importPaths.filter((importPath) => known.has(importPath));
    const ofImage = image === undefined ? undefined : byImage.get(image);
    return own.length > 0 || ofImage === undefined ? own : [ofImage];
  };
}

/** Gives each span the first lane that is free at its beginning. @returns the number of the lane by span, from 0 */
export function chooseLanes(spans: readonly Span[], now: number): ReadonlyMap<Span, number> {
  // By lane: when it is free again, in microseconds, so that spans that meet can share it.
  const ends: number[] = [];
  const lanes = new Map<Span, number>();
  for (const span of spans) {
    const free = ends.findIndex((end) => end <= microseconds(span.start));
    const lane = free < 0 ? ends.length : free;
    ends[lane] = microseconds(span.end ?? now);
    lanes.set(span, lane);
  }
  return lanes;
}

export function microseconds(milliseconds: number): number {
  return Math.round(milliseconds * 1000);
}

/** Returns `0.300 s`. */
export function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(3)} s`;
}
