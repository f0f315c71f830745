/**
 * Follows the log of one container of a Pod, over cut connections and restarts: each line once, in order.
 *
 * The API follows the log of the instance that runs now, and never says which one that is. So the log of the instance
 * before is read first, and again before the first new line; lines that were shown are left out.
 */
import { inBackground, repeat, systemClock, until } from "./async.ts";
import { KoError, printable } from "./errors.ts";
import { LineSplitter, type LogLine, readLogLine, type Replay, SeenLines } from "./follow-lines.ts";
import { fieldAt, listAt, numberAt, parseJson, textAt } from "./json.ts";
import type { ClusterApi, StreamAnswer } from "./rollout-api.ts";

/** A container of a Pod, by names: a Pod that takes the place of another, as in a StatefulSet, goes on with its log. */
export interface ContainerPlace {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
}

/** How a container is, by the last that is known of its Pod. */
export interface ContainerState {
  /** An instance of it has started: there is a log. */
  readonly hasLog: boolean;
  readonly isRunning: boolean;
  /** Changes when an instance starts or ends. */
  readonly version: string;
  /** Nothing starts in the Pod again: that of a Job, or an evicted one. */
  readonly isOver: boolean;
  /** The Pod is no longer in the cluster. */
  readonly isGone: boolean;
}

export interface ContainerLogOptions {
  readonly openApi: () => Promise<Pick<ClusterApi, "stream">>;
  readonly place: ContainerPlace;
  /** Older lines are left out: `2024-01-01T00:00:00Z`. @default none */
  readonly since: string | undefined;
  readonly sink: LogSink;
  readonly signal: AbortSignal;
}

/** Receives the lines of a container. */
export interface LogSink {
  /** Settles when there is room for more. */
  write(lines: readonly string[]): Promise<void>;
  /** Why lines are missing. */
  complain(why: string): void;
  /** The user may not read logs. */
  forbid(why: string): void;
}

export const GONE: ContainerState = { hasLog: false, isRunning: false, version: "", isOver: true, isGone: true };

/** Milliseconds before another attempt; the last one also for all later ones. */
const WAITS_MS = [50, 200, 500, 1000, 2000, 5000] as const;
/** Milliseconds of silence after which a connection is opened anew: it may be dead. */
const SILENCE_MS = 120_000;
/** The same for a Pod that is gone: its node may be. */
const GONE_SILENCE_MS = 5000;
const LOOK_MS = 1000;
/** Bytes of an error's body. */
const MAX_ERROR = 64 * 1024;
/** How the node begins to say that it has no log. */
const COMPLAINT = /^(?:unable to |failed to |rpc error|error|internal )/i;

/** Reads the state of a container, also of one that runs before the others. */
export function stateOf(pod: unknown, container: string): ContainerState {
  const all = [...listAt(pod, "status", "containerStatuses"), ...listAt(pod, "status", "initContainerStatuses")];
  const status = all.find((each) => textAt(each, "name") === container);
  const isRunning = fieldAt(status, "state", "running") !== undefined;
  const ended = [fieldAt(status, "state", "terminated"), fieldAt(status, "lastState", "terminated")];
  const version = [
    textAt(pod, "metadata", "uid"),
    numberAt(status, "restartCount"),
    textAt(status, "containerID"),
    isRunning,
  ];
  const isOver = ["Succeeded", "Failed"].includes(textAt(pod, "status", "phase"));
  return { hasLog: isRunning || ended.some(Boolean), isRunning, version: version.join(" "), isOver, isGone: false };
}

/** The end of one reading. "over": the node has no more of this log. "forbidden": the user may not read it. */
type Outcome = "over" | "cut" | "forbidden";

export class ContainerLog {
  readonly #options: ContainerLogOptions;
  readonly #seen = new SeenLines();
  readonly #complaints = new Set<string>();
  #state: ContainerState;
  #changed = Promise.withResolvers<void>();
  /** The last characters of the log, if no line end follows them: the connection was cut, or the program ended. */
  #rest: LogLine | undefined;

  constructor(state: ContainerState, options: ContainerLogOptions) {
    this.#state = state;
    this.#options = options;
  }

  /** Whether the Pod is still there, and nothing of it is left to read. */
  get isComplete(): boolean {
    return !this.#state.isGone;
  }

  /** The Pod has changed. */
  update(state: ContainerState): void {
    this.#state = state;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** Follows the log until the Pod is over or gone, or may not be read. @throws The signal's reason. */
  async run(): Promise<void> {
    const { signal } = this.#options;
    let read = "";
    let failures = 0;
    for (;;) {
      while (!this.#state.isGone && (!this.#state.hasLog || this.#state.version === read)) {
        if (this.#state.isOver) return;
        await until(this.#changed.promise, signal);
      }
      // By now the name may be that of another Pod, which has a follower of its own.
      if (this.#state.isGone) return this.#finish();
      const { isRunning, version } = this.#state;
      const { lines, outcome } = await this.#read(!isRunning);
      if (outcome === "forbidden") return;
      // The log of an instance that has ended is complete.
      if (outcome === "over" && !isRunning) read = version;
      failures = lines > 0 ? 0 : failures + 1;
      await this.#pause(WAITS_MS[Math.min(failures, WAITS_MS.length - 1)] ?? 0);
    }
  }

  /** Shows the last words that have no line end: nothing follows them. */
  async #finish(): Promise<void> {
    const rest = this.#rest;
    if (rest !== undefined && !this.#seen.replay().has(rest)) await this.#options.sink.write([rest.text]);
  }

  /** Waits; a change ends the wait, unless it has just begun. */
  async #pause(ms: number): Promise<void> {
    const { signal } = this.#options;
    await systemClock.sleep(WAITS_MS[0], signal);
    const over = new AbortController();
    try {
      const rest = systemClock.sleep(Math.max(0, ms - WAITS_MS[0]), AbortSignal.any([signal, over.signal]));
      await Promise.race([this.#changed.promise, rest]);
      signal.throwIfAborted();
    } finally {
      over.abort();
    }
  }

  /** Reads the log of the instance before, and follows that of the current one until it ends or is cut. */
  async #read(isComplete: boolean): Promise<{ readonly outcome: Outcome; readonly lines: number }> {
    const { signal } = this.#options;
    const cut = new AbortController();
    const reading = new Reading(this.#options, { seen: this.#seen, signal: AbortSignal.any([signal, cut.signal]) });
    // A connection may die without a word.
    const stop = repeat(LOOK_MS, () => {
      const limit = this.#state.isGone ? GONE_SILENCE_MS : SILENCE_MS;
      if (systemClock.monotonic() - reading.movedAt > limit) cut.abort();
    });
    try {
      const outcome = await reading.run(isComplete);
      // A Pod that ends loses its containers before it is gone: all of them may have been shown.
      const isMissing = !isComplete || this.#seen.since === undefined;
      for (const why of isMissing ? reading.complaints : []) {
        if (!this.#complaints.has(why)) this.#options.sink.complain(why);
        this.#complaints.add(why);
      }
      if (reading.hasLog) this.#rest = reading.rest;
      return { outcome, lines: reading.lines };
    } finally {
      stop();
      cut.abort();
    }
  }
}

/** One reading of a log. */
class Reading {
  readonly #options: ContainerLogOptions;
  readonly #seen: SeenLines;
  readonly #signal: AbortSignal;
  readonly complaints = new Set<string>();
  /** New lines. */
  lines = 0;
  /** There was a line, or a part of one, also if it was shown before. */
  hasLog = false;
  /** The characters behind the last line end; undefined if there are none, or ko has shown them. */
  rest: LogLine | undefined;
  /** When the last bytes came. */
  movedAt = systemClock.monotonic();

  constructor(
    options: ContainerLogOptions,
    { seen, signal }: { readonly seen: SeenLines; readonly signal: AbortSignal },
  ) {
    this.#options = options;
    this.#seen = seen;
    this.#signal = signal;
  }

  /** @param isComplete the instance has ended: a last line without an end is complete */
  async run(isComplete: boolean): Promise<Outcome> {
    try {
      // It is asked for before the other: an instance that ends in between is in one of both.
      const following = inBackground(this.#open({ follow: "true" }));
      await this.#readPrevious();
      const answer = await following;
      if (answer.status !== 200) return await this.#refused(answer);
      await this.#show(answer, { isComplete, isCurrent: true });
      return "over";
    } catch (error) {
      this.#options.signal.throwIfAborted();
      if (!(error instanceof KoError)) throw error;
      return "cut";
    }
  }

  /** Shows the lines of the instance before that were not shown. */
  async #readPrevious(): Promise<boolean> {
    const before = this.lines;
    const answer = await this.#open({ previous: "true" });
    if (answer.status === 200) await this.#show(answer, { isComplete: true, isCurrent: false });
    else await readSome(answer);
    return this.lines > before;
  }

  async #show(
    { body }: StreamAnswer,
    { isComplete, isCurrent }: { readonly isComplete: boolean; readonly isCurrent: boolean },
  ): Promise<void> {
    const splitter = new LineSplitter();
    let replay: Replay = this.#seen.replay();
    /** Whether the stream may be of another instance than the last line. */
    let isUnknown = isCurrent;
    const take = async (lines: ReturnType<LineSplitter["push"]>): Promise<void> => {
      const fresh: string[] = [];
      for (const raw of lines) {
        const line = readLogLine(raw);
        this.hasLog ||= isCurrent && line !== undefined;
        if (line === undefined) this.#complain(raw.bytes, isCurrent);
        else if (replay.has(line)) isUnknown = false;
        else {
          if (isUnknown && (await this.#readPrevious())) replay = this.#seen.replay();
          const isNew = !isUnknown || !replay.has(line);
          isUnknown = false;
          if (isNew) fresh.push(this.#note(line));
        }
      }
      if (fresh.length > 0) await this.#options.sink.write(fresh);
    };
    try {
      for await (const chunk of body) {
        await take(splitter.push(chunk));
        this.movedAt = systemClock.monotonic();
      }
      const end = isComplete ? splitter.rest() : undefined;
      if (end !== undefined) await take([end]);
    } finally {
      const rest = splitter.rest();
      if (isCurrent && rest !== undefined) {
        this.rest = readLogLine(rest);
        this.hasLog ||= this.rest !== undefined;
        if (this.rest === undefined) this.#complain(rest.bytes, isCurrent);
      }
    }
  }

  #note(line: LogLine): string {
    this.#seen.add(line);
    this.lines += 1;
    return line.text;
  }

  /**
   * A line without a time is of the node. The end of a long line has none either: it comes first, when read again. That
   * the instance before has no log is no matter: all of it may have been shown.
   */
  #complain(bytes: Uint8Array, isCurrent: boolean): void {
    if (!isCurrent) return;
    const text = printable(new TextDecoder().decode(bytes).trim(), 300);
    if (COMPLAINT.test(text)) this.complaints.add(text);
  }

  async #refused(answer: StreamAnswer): Promise<Outcome> {
    const text = await readSome(answer);
    const message = printable(textAt(parseJson(text), "message") || text.trim(), 300);
    if (answer.status !== 403 && answer.status !== 401) return "cut";
    this.#options.sink.forbid(message);
    return "forbidden";
  }

  async #open(query: Readonly<Record<string, string>>): Promise<StreamAnswer> {
    const { openApi, place, since } = this.#options;
    const [namespace, pod] = [place.namespace, place.pod].map(encodeURIComponent);
    const from = this.#seen.since ?? since;
    const all = new URLSearchParams({
      ...{ container: place.container, timestamps: "true", ...query },
      ...(from === undefined ? {} : { sinceTime: from }),
    });
    const api = await openApi();
    return api.stream(`/api/v1/namespaces/${namespace}/pods/${pod}/log?${all.toString()}`, this.#signal);
  }
}

/** Reads the body of an error, so far as it is short. */
async function readSome({ body }: StreamAnswer): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > MAX_ERROR) break;
  }
  return Buffer.concat(chunks).toString("utf8", 0, MAX_ERROR);
}
