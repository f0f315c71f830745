/**
 * The loop of `--watch`: a round, then another for each burst of changes, until ko is told to end.
 *
 * Rounds never overlap. A change while programs are being built ends that round, and the next one begins with what both
 * are about; once a round hands its result on, it is let finish. What failed stays due until it has succeeded. What a round
 * does is its job's matter (watch-programs.ts).
 */
import { join, resolve } from "node:path";
import { LazyCache } from "./cache.ts";
import { describeError } from "./errors.ts";
import { checkWritableFile, writeOutputFile } from "./file.ts";
import { readNames } from "./file.ts";
import { type Host, withSignal } from "./host.ts";
import type { Log, LogLevel } from "./log.ts";
import { createTiming, type Recorder, type Timing, type TimingOutput } from "./timing.ts";
import { Watcher, type WatchLimit } from "./watch-files.ts";
import {
  type Affected,
  isAffected,
  joinAffected,
  NOTHING_TO_WATCH,
  type PathChange,
  type WatchPlan,
  WatchSet,
} from "./watch-places.ts";
import {
  formatCause,
  formatCount,
  formatPrograms,
  formatTime,
  formatTimes,
  type ProgramChange,
  WatchScreen,
} from "./watch-screen.ts";

/** What is done in each round. */
export interface WatchJob {
  run(round: Round): Promise<void>;
}

/** What a round has to do: all of it, or what is affected. */
export interface Due extends Affected {
  readonly everything: boolean;
}

/** One round, as its job sees it. */
export interface Round {
  readonly due: Due;
  /** Everything that it starts ends when something changes, until {@link commit}. */
  readonly host: Host;
  /** For what is let finish. */
  readonly patientHost: Host;
  readonly log: Log;
  readonly timing: Timing;
  /** Of this round: closed after it. */
  readonly cache: LazyCache;
  /** It is done again without a change, after a failure that may pass. */
  readonly isRetry: boolean;
  /** Watches these too; those of the same name make way. */
  readonly watch: (places: Partial<WatchPlan>) => Promise<void>;
  /** From now on the round is let finish. @throws If something has changed already. */
  readonly commit: () => void;
  /** Whether a failure from now on may pass by itself (a registry, a cluster): then it is tried again. */
  readonly mayPass: (may: boolean) => void;
  /** Shows what was published. */
  readonly tellPrograms: (changes: readonly ProgramChange[]) => void;
  /** Shows something that a person should know. */
  readonly tell: (line: string) => void;
  /**
   * Shows what came of it, in a few words, and how long it took; what follows is housekeeping. Nothing is shown of a round
   * that had nothing to do: then there are no words.
   */
  readonly end: (summary: string) => void;
}

export interface WatchOptions {
  readonly host: Host;
  readonly level: LogLevel;
  /** What `--timing` asks for, of each round. */
  readonly timing: TimingOutput | undefined;
}

/** A failure that no change of a file can mend: the watch ends. */
export class Hopeless extends Error {
  constructor(cause: unknown) {
    super("there is no use in going on", { cause });
  }
}

/** Why a round ended early. */
class Superseded extends Error {}

/** Milliseconds after which a failure that may pass is tried again; the last one for all later times. */
const RETRY_MS = [1000, 2000, 5000, 10_000, 30_000] as const;

/**
 * Does a job over and over. It does not return.
 *
 * @throws {Interrupted} When ko is told to end.
 * @throws {UsageError} If the job is hopeless.
 */
export async function watchAndRun(job: WatchJob, options: WatchOptions): Promise<never> {
  const { host, timing } = options;
  if (typeof timing === "object") await checkWritableFile(resolve(host.cwd, timing.file), "--timing");
  const screen = new WatchScreen(host, options.level);
  await using watch = new Watch(job, { ...options, screen });
  try {
    for (;;) await watch.next();
  } catch (error) {
    screen.hide();
    throw error instanceof Hopeless ? error.cause : error;
  }
}

class Watch implements AsyncDisposable {
  readonly #job: WatchJob;
  readonly #options: WatchOptions;
  readonly #screen: WatchScreen;
  readonly #watcher: Watcher;
  #plan: WatchPlan = NOTHING_TO_WATCH;
  #set = new WatchSet(NOTHING_TO_WATCH);
  #due: Due = { everything: true, ...NOBODY };
  /** What has changed, and is not in a round yet. */
  #changes: readonly PathChange[] = [];
  /** Causes of what is due. */
  #causes: readonly PathChange[] = [];
  /** Ends the round that runs, if it may be ended. */
  #running: AbortController | undefined;
  #wake: (() => void) | undefined;
  #failures = 0;
  #lastFailure: string | undefined;
  #lastCause = "";
  #shownCounts = "";
  /** The last round of which there was something to say. */
  #last = "";

  constructor(job: WatchJob, options: WatchOptions & { readonly screen: WatchScreen }) {
    this.#job = job;
    this.#options = options;
    this.#screen = options.screen;
    options.host.signal.addEventListener("abort", () => this.#wake?.(), { once: true });
    this.#watcher = new Watcher({
      accepts: (path) => this.#set.mayAffect(path),
      onChange: (changes) => this.#notice(changes),
      onLimit: (limit) => this.#screen.log.warn(describeLimit(limit)),
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#watcher[Symbol.asyncDispose]();
  }

  /** One round, and the wait for the next one. */
  async next(): Promise<void> {
    const { host } = this.#options;
    const isRetry = this.#changes.length === 0 && this.#failures > 0;
    this.#take();
    const controller = new AbortController();
    this.#running = controller;
    const result = await this.#round(controller, isRetry);
    this.#running = undefined;
    host.signal.throwIfAborted();
    if (result === "superseded") return;
    this.#causes = [];
    if (result === "done") {
      this.#due = { everything: false, ...NOBODY };
      this.#failures = 0;
      this.#lastFailure = undefined;
    } else this.#failures = isRetry ? this.#failures + 1 : 1;
    await this.#wait(result === "may pass" ? RETRY_MS[Math.min(this.#failures, RETRY_MS.length) - 1] : undefined);
  }

  /** Makes what has changed due. */
  #take(): void {
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
    this.#running?.abort(new Superseded());
    this.#wake?.();
  }

  /** Waits until something changes, or some time has passed, or ko is told to end. */
  async #wait(ms: number | undefined): Promise<void> {
    const { host } = this.#options;
    if (this.#changes.length > 0) return;
    const { promise, resolve: wake } = Promise.withResolvers<void>();
    this.#wake = wake;
    const timer = ms === undefined ? undefined : setTimeout(wake, ms);
    host.signal.throwIfAborted();
    await promise;
    clearTimeout(timer);
    this.#wake = undefined;
    host.signal.throwIfAborted();
  }

  async #round(controller: AbortController, isRetry: boolean): Promise<"done" | "failed" | "may pass" | "superseded"> {
    const { host } = this.#options;
    const screen = this.#screen;
    const since = host.now().getTime();
    const start = host.monotonic();
    const time = formatTime(host.now());
    const recorder = createTiming(() => host.monotonic() - start);
    const signal = AbortSignal.any([host.signal, controller.signal]);
    const cause = this.#describeCause();
    if (!isRetry) this.#lastCause = cause;
    let isHeaded = false;
    const say = (text: string): void => {
      if (!isHeaded) screen.say(`${time} ${cause}\n`);
      isHeaded = true;
      screen.say(text);
    };
    let mayPass = false;
    let isQuiet = isRetry || this.#causes.every(({ is }) => is === "names");
    if (!isRetry) screen.status(`${cause}: …`);
    const seconds = (): string => formatTimes({ took: host.monotonic() - start, stages: [] });
    const took = (): string => formatTimes({ took: host.monotonic() - start, stages: recorder.stageTimes() });
    await using cache = new LazyCache(screen.host, screen.log);
    try {
      const patientHost: Host = {
        ...screen.host,
        // Whoever read our results is gone.
        out: (data) => screen.host.out(data).catch((error: unknown) => Promise.reject(new Hopeless(error))),
      };
      await this.#job.run({
        due: this.#due,
        host: withSignal(patientHost, signal),
        patientHost,
        log: screen.log,
        timing: recorder,
        cache,
        isRetry,
        watch: (places) => this.#watch(places, since),
        commit: () => {
          signal.throwIfAborted();
          this.#running = undefined;
        },
        mayPass: (may) => {
          mayPass = may;
        },
        tellPrograms: (changes) => {
          if (changes.every(({ before, after }) => before === after) && isQuiet) return;
          isQuiet = false;
          say(formatPrograms(changes));
        },
        tell: (line) => {
          isQuiet = false;
          say(`  ${line}\n`);
        },
        end: (summary) => {
          const isNews = this.#due.everything || this.#lastFailure !== undefined || (!isQuiet && summary !== "");
          if (!isNews) return;
          const text = summary || "nothing new";
          say(`  ${text}, ${took()}\n`);
          this.#last = `; last ${time} ${cause}: ${text}, ${seconds()}`;
        },
      });
      await this.#tellTiming(recorder);
      this.#rest();
      return "done";
    } catch (error) {
      host.signal.throwIfAborted();
      if (error instanceof Hopeless) throw error;
      if (controller.signal.aborted) return "superseded";
      const text = describeError(error);
      // Tried again without a change, it is no news.
      if (!isRetry || text !== this.#lastFailure) {
        say("");
        screen.fail(error);
        say(`  failed, ${took()}${mayPass ? "; ko tries again" : ""}\n`);
      }
      this.#lastFailure = text;
      this.#last = `; last ${time} ${cause}: failed${mayPass ? ", ko tries again" : ""}`;
      this.#rest();
      return mayPass ? "may pass" : "failed";
    }
  }

  async #watch(places: Partial<WatchPlan>, since: number): Promise<void> {
    const plan = { ...this.#plan, ...places };
    if (describePlan(plan) === describePlan(this.#plan)) {
      // Folders may have been replaced all the same.
      return this.#watcher.watch(this.#set.folders, since);
    }
    this.#plan = plan;
    this.#set = new WatchSet(plan);
    await this.#watcher.watch(this.#set.folders, since);
  }

  #describeCause(): string {
    const { host } = this.#options;
    const lasting = this.#causes.filter(({ isPassing }) => isPassing !== true);
    const causes = lasting.length > 0 ? lasting : this.#causes;
    if (causes.length > 0) {
      const paths = causes.map(({ path }) => path);
      return formatCause(paths, host.cwd);
    }
    return this.#failures > 0 ? `${this.#lastCause}, once more` : "start";
  }

  /** Between rounds: what is watched, and what the last round was. */
  #rest(): void {
    const counts = this.#count();
    // Nothing goes on now: a good moment to be small.
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

  /** `--timing`, of one round. */
  async #tellTiming(recorder: Recorder): Promise<void> {
    const { host, timing } = this.#options;
    if (timing === "table") this.#screen.host.err(recorder.formatTable());
    else if (timing !== undefined) {
      await writeOutputFile(resolve(host.cwd, timing.file), recorder.formatTrace(), "--timing");
    }
  }
}

const NOBODY: Affected = { programs: new Set(), args: false, yaml: false, config: false };

function describePlan({ programs, ...rest }: WatchPlan): string {
  return JSON.stringify([[...programs], rest]);
}

function describeLimit({ code, folders, polled }: WatchLimit): string {
  const setting = code === "ENOSPC" ? "fs.inotify.max_user_watches=524288" : "fs.inotify.max_user_instances=1024";
  return (
    `the system lets ko watch no more folders: ${polled} of ${folders} are looked at once a second instead.\n` +
    `  Raise the limit, and start ko again: sudo sysctl ${setting}`
  );
}
