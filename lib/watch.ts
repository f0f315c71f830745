/**
 * The loop of `--watch`: a round at the start, one for each burst of changes and for each retry, until a signal ends ko.
 *
 * Rounds never overlap: a change during a build ends that round, while a delivery runs to its end. Failed work stays due
 * until it succeeds.
 */
import { join, resolve } from "node:path";
import { type Clock, inBackground, systemClock, until } from "./async.ts";
import { LazyCache } from "./cache.ts";
import { describeError, KoError } from "./errors.ts";
import type { RunRecord } from "./events-record.ts";
import { checkWritableFile, lookAtLink, readNames } from "./file.ts";
import { type Host, withSignal } from "./host.ts";
import type { Event } from "./events.ts";
import { formatCount, type Log, type LogLevel, type ProgressMode } from "./log.ts";
import type { WaitLines } from "./rollout.ts";
import {
  createTiming,
  type Recorder,
  reportingTiming,
  reportTiming,
  type Timing,
  type TimingOutput,
} from "./timing.ts";
import { WATCH_SETTINGS, Watcher, type WatcherOptions, type WatchLimit } from "./watch-files.ts";
import {
  type Affected,
  isAffected,
  joinAffected,
  NOTHING_TO_WATCH,
  type PathChange,
  type WatchPlan,
  WatchSet,
} from "./watch-places.ts";
import { formatCause, type ProgramChange, RoundReport, WatchScreen } from "./watch-screen.ts";

/** The work of each round, in three phases. `R` is the result of a build. */
export interface WatchJob<R> {
  /** Reads the input, builds and publishes. A change ends this phase: the signal of the host aborts. */
  build(due: Due, context: RoundContext): Promise<R>;
  /**
   * Hands the result over. Runs to its end even if something changes meanwhile.
   *
   * @returns a summary of a few words; empty if the round had nothing to do
   */
  deliver(result: R, context: RoundContext): Promise<string>;
  /**
   * Finds the places to watch from now on. Runs last, also after a failure.
   *
   * @param result undefined if `build()` failed
   * @returns the parts of the plan that may have changed; the other parts stay
   */
  places(result: R | undefined, context: RoundContext): Promise<Partial<WatchPlan>>;
}

/** The work of a round: all of it, or the affected parts. */
export interface Due extends Affected {
  readonly everything: boolean;
}

/** Everything that the phases of one round share. */
export interface RoundContext {
  /** Its signal aborts if a signal ends ko, and if a watched place changes during `build()`. */
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
  /** Closed after the round. */
  readonly cache: LazyCache;
  /** Disposed of after `places()`, before the cache is closed. */
  readonly resources: AsyncDisposableStack;
  /** The round repeats a failed one; nothing has changed. */
  readonly isRetry: boolean;
  /** Watches these places at once, so that a change of them ends the build. Parts of the plan left out stay. */
  readonly watch: (places: Partial<WatchPlan>) => Promise<void>;
  /** Shows the published programs. */
  readonly showPrograms: (changes: readonly ProgramChange[]) => void;
  /** Shows a line that the user should read. */
  readonly showNote: (line: string) => void;
  /** Shows the cause of the round, if nothing has yet: another program is going to write. */
  readonly showCause: () => void;
  /** Writes lines of programs, also after the round. Settles when they are taken. */
  readonly showLogs: (text: string) => Promise<void>;
  /** Live lines for what does not run yet, also after the round; undefined without a terminal. */
  readonly waits?: WaitLines | undefined;
}

export interface WatchOptions {
  readonly host: Host;
  readonly level: LogLevel;
  readonly progress: ProgressMode;
  /** `--timing`, for each round. */
  readonly timing: TimingOutput | undefined;
  /** The command line, without secrets, for the page of `--timing`. */
  readonly command: string;
  /** Of `--events` and `--metadata-file`: each round is a run. @default none */
  readonly record?: RunRecord | undefined;
  /** For the waits before retries. @default the system's */
  readonly clock?: Pick<Clock, "sleep">;
  /** @default {@link Watcher} */
  readonly openWatcher?: (options: WatcherOptions) => Pick<Watcher, "watch" | typeof Symbol.asyncDispose>;
}

/** A failure that no change of a file can repair: it ends the watch, and its cause is thrown. */
export class FatalError extends Error {
  constructor(cause: unknown) {
    super("the watch cannot go on", { cause });
  }
}

/** The reason of a signal that a change has aborted. */
class Superseded extends Error {}

/** Milliseconds before each retry of a transient failure; the last one also for all later retries. */
const RETRY_MS = [1000, 2000, 5000, 10_000, 30_000] as const;

const NOTHING_AFFECTED: Affected = { programs: new Set(), args: false, yaml: false, config: false };

/**
 * Runs the rounds of a job. Never returns.
 *
 * @throws {Interrupted} When a signal ends ko.
 * @throws {UsageError} If the flags or the environment can never work.
 */
export async function watchAndRun<R>(job: WatchJob<R>, options: WatchOptions): Promise<never> {
  const { host, timing } = options;
  if (typeof timing === "object") await checkWritableFile(resolve(host.cwd, timing.file), "--timing");
  const { level, progress, record } = options;
  const screen = new WatchScreen({ host, level, progress, record: record?.add });
  await using loop = new WatchLoop(job, { ...options, screen });
  try {
    for (;;) await loop.next();
  } catch (error) {
    screen.hide();
    throw error instanceof FatalError ? error.cause : error;
  }
}

type Outcome = "done" | "failed" | "retry" | "superseded";

/** One round: its beginning, its end by a change, and its lines on the screen. */
interface Round {
  /** Aborted by a change. */
  readonly changed: AbortSignal;
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly isRetry: boolean;
  /** Gets every event. */
  readonly note: (event: Event) => void;
  readonly recorder: Recorder;
  readonly report: RoundReport;
}

class WatchLoop<R> implements AsyncDisposable {
  readonly #job: WatchJob<R>;
  readonly #options: WatchOptions;
  readonly #screen: WatchScreen;
  readonly #watcher: Pick<Watcher, "watch" | typeof Symbol.asyncDispose>;
  #plan: WatchPlan = NOTHING_TO_WATCH;
  #set = new WatchSet(NOTHING_TO_WATCH);
  #due: Due = { everything: true, ...NOTHING_AFFECTED };
  /** Changes since the last round began. */
  #changes: readonly PathChange[] = [];
  /** The changes that made work due. */
  #causes: readonly PathChange[] = [];
  /** Ends the round while it builds. */
  #building: AbortController | undefined;
  #wake: (() => void) | undefined;
  /** Failures in a row. */
  #failures = 0;
  #lastFailure: string | undefined;
  #lastCause = "";
  #shownCounts = "";
  /** The last round in a few words, for the status line. */
  #last = "";

  constructor(job: WatchJob<R>, options: WatchOptions & { readonly screen: WatchScreen }) {
    const { openWatcher = (watcherOptions: WatcherOptions) => new Watcher(watcherOptions) } = options;
    this.#job = job;
    this.#options = options;
    this.#screen = options.screen;
    this.#watcher = openWatcher({
      accepts: (path) => this.#set.mayAffect(path),
      onChange: (changes) => this.#notice(changes),
      onLimit: (limit) => this.#screen.log.warn(describeLimit(limit)),
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#watcher[Symbol.asyncDispose]();
  }

  /** Runs one round, then waits until another is due. */
  async next(): Promise<void> {
    const { host } = this.#options;
    const isRetry = this.#changes.length === 0 && this.#failures > 0;
    this.#takeChanges();
    const outcome = await this.#round(isRetry);
    this.#building = undefined;
    host.signal.throwIfAborted();
    if (outcome === "superseded") return;
    this.#causes = [];
    if (outcome === "done") {
      this.#due = { everything: false, ...NOTHING_AFFECTED };
      this.#failures = 0;
      this.#lastFailure = undefined;
    } else this.#failures = isRetry ? this.#failures + 1 : 1;
    await this.#wait(outcome === "retry" ? RETRY_MS[Math.min(this.#failures, RETRY_MS.length) - 1] : undefined);
  }

  /** Adds the work that the changes affect to the work that is due. */
  #takeChanges(): void {
    const changes = this.#changes;
    this.#changes = [];
    const affected = joinAffected([this.#due, ...changes.map((change) => this.#set.affectedBy(change))]);
    this.#due = { ...affected, everything: this.#due.everything || affected.config };
    this.#causes = [...new Map([...this.#causes, ...changes].map((change) => [change.path, change])).values()];
  }

  #notice(changes: readonly PathChange[]): void {
    const relevant = changes.filter((change) => isAffected(this.#set.affectedBy(change)));
    if (relevant.length === 0) return;
    this.#changes = [...this.#changes, ...relevant];
    this.#building?.abort(new Superseded());
    this.#wake?.();
  }

  /** Waits for a change, or for `ms` milliseconds. @throws {Interrupted} When a signal ends ko. */
  async #wait(ms: number | undefined): Promise<void> {
    if (this.#changes.length > 0) return;
    const { host, clock = systemClock, record } = this.#options;
    const over = new AbortController();
    const change = Promise.withResolvers<void>();
    this.#wake = change.resolve;
    const pause = ms === undefined ? change.promise : inBackground(clock.sleep(ms, over.signal));
    try {
      await until(Promise.race([change.promise, pause]), host.signal);
    } catch (error) {
      record?.addError(error);
      throw error;
    } finally {
      over.abort();
      this.#wake = undefined;
    }
  }

  async #round(isRetry: boolean): Promise<Outcome> {
    const { host } = this.#options;
    const screen = this.#screen;
    const startedAt = host.monotonic();
    const recorder = createTiming(() => host.monotonic() - startedAt);
    const cause = this.#describeCause();
    if (!isRetry) this.#lastCause = cause;
    const isQuiet = isRetry || this.#causes.every(({ is }) => is === "names");
    const report = new RoundReport({ screen, host, cause, recorder, startedAt, isQuiet });
    if (!isRetry) screen.status(`${cause}: …`);
    this.#building = new AbortController();
    const changed = this.#building.signal;
    const { record } = this.#options;
    record?.begin();
    using live = screen.openRound(cause);
    const note = (event: Event): void => {
      live.add(event);
      record?.add(event);
    };
    try {
      await this.#work({ changed, since: host.now().getTime(), isRetry, note, recorder, report });
      await this.#reportTiming(recorder);
      this.#rest();
      await record?.end(0);
      return "done";
    } catch (error) {
      if (host.signal.aborted) await record?.fail(host.signal.reason);
      host.signal.throwIfAborted();
      // A round that a change has ended has no end in the record.
      if (changed.aborted && !(error instanceof FatalError)) return "superseded";
      if (error instanceof FatalError) {
        await record?.fail(error.cause);
        throw error;
      }
      const text = describeError(error);
      const isRetried = error instanceof KoError && error.transient;
      this.#last = `; ${report.failed(error, { isNew: !isRetry || text !== this.#lastFailure, isRetried })}`;
      this.#lastFailure = text;
      // A table would push the error off the screen. A failure to write must not hide that of the round.
      if (this.#options.timing !== "table") await this.#reportTiming(recorder, error).catch(() => {});
      this.#rest();
      // After all lines of the round: its end is the last event.
      await record?.fail(error);
      return isRetried ? "retry" : "failed";
    }
  }

  /** The three phases of a round. */
  async #work({ changed, since, isRetry, note, recorder, report }: Round): Promise<void> {
    const screen = this.#screen;
    const host = withSignal(endingHost(screen.host), AbortSignal.any([screen.host.signal, changed]));
    await using cache = new LazyCache(screen.host, screen.log);
    await using resources = new AsyncDisposableStack();
    let armed = Promise.resolve();
    const watch = (places: Partial<WatchPlan>): Promise<void> => {
      if (!host.signal.aborted) armed = inBackground(this.#watch(places, since));
      return armed;
    };
    const context: RoundContext = {
      host,
      log: screen.log,
      timing: reportingTiming(recorder, note),
      cache,
      resources,
      isRetry,
      watch,
      showPrograms: (changes) => report.programs(changes),
      showNote: (line) => report.note(line),
      showCause: () => report.head(),
      showLogs: (text) => screen.logs(text),
      waits: screen.waits,
    };
    let result: R | undefined;
    try {
      result = await this.#job.build(this.#due, context);
      host.signal.throwIfAborted();
      // From here on no change ends the round.
      this.#building = undefined;
      const summary = await this.#job.deliver(result, context);
      const last = report.done(summary, { isNews: this.#due.everything || this.#lastFailure !== undefined });
      if (last !== undefined) this.#last = `; ${last}`;
    } finally {
      await armed;
      if (!host.signal.aborted) await watch(await this.#job.places(result, context));
    }
  }

  async #watch(places: Partial<WatchPlan>, since: number): Promise<void> {
    const plan = { ...this.#plan, ...places };
    const acceptsMore = describePlan(plan) !== describePlan(this.#plan);
    if (acceptsMore) {
      this.#plan = plan;
      this.#set = new WatchSet(plan);
    }
    // Also with the same plan: folders may have been replaced.
    await this.#watcher.watch(this.#set.folders, { since, acceptsMore });
  }

  #describeCause(): string {
    const { host } = this.#options;
    const lasting = this.#causes.filter(({ isPassing }) => isPassing !== true);
    const causes = lasting.length > 0 ? lasting : this.#causes;
    if (causes.length > 0) {
      const paths = causes.map(({ path }) => path);
      return formatCause(paths, { cwd: host.cwd, isThere: (path) => lookAtLink(path) !== undefined });
    }
    return this.#failures > 0 ? `${this.#lastCause}, retry ${this.#failures}` : "start";
  }

  /** Shows the state between rounds: the number of watched files, and the last round. */
  #rest(): void {
    const counts = this.#count();
    // ko now waits for the user: the time to give memory back.
    Bun.gc(true);
    this.#screen.status(`${counts}${this.#last}`);
    if (this.#shownCounts === counts || this.#options.host.stderrIsTerminal) return;
    this.#shownCounts = counts;
    this.#screen.say(`${counts}\n`);
  }

  #count(): string {
    const files = this.#set.folders
      .values()
      .reduce((count, dir) => count + readNames(dir).filter((name) => this.#isWatched(join(dir, name))).length, 0);
    return `watching ${formatCount(this.#set.packages, "package")}, ${formatCount(files, "file")}`;
  }

  #isWatched(path: string): boolean {
    return isAffected(this.#set.affectedBy({ path, is: "file" }));
  }

  async #reportTiming(recorder: Recorder, error?: unknown): Promise<void> {
    const { command, host, timing } = this.#options;
    if (timing === undefined) return;
    const shown = { ...host, err: (text: string) => this.#screen.host.err(text) };
    await reportTiming(recorder, { command, error, host: shown, to: timing });
  }
}

/** The same host, but a failure to write to stdout ends the watch: the reader of the results is gone. */
function endingHost(host: Host): Host {
  return { ...host, out: (data) => host.out(data).catch((error: unknown) => Promise.reject(new FatalError(error))) };
}

function describePlan({ programs, ...rest }: WatchPlan): string {
  return JSON.stringify([[...programs], rest]);
}

function describeLimit({ code, folders, polled }: WatchLimit): string {
  const setting = WATCH_SETTINGS[code];
  return (
    `the system allows no more watches: ${polled} of ${folders} folders are polled once a second instead.\n` +
    `  Raise the limit, and start ko again: sudo sysctl ${setting}`
  );
}
