/**
 * The bodies of HTTP exchanges: a guard against stalls, request bodies that are known or still being made, an idle timeout
 * for servers that may be silent while they work.
 *
 * Rules: docs/rules.md A7.8, A7.9, E1.
 */
import { systemClock } from "./async.ts";
import { KoError, messageOf, RegistryError } from "./errors.ts";
import type { Descriptor } from "./oci.ts";

/** The longest waits without progress, in milliseconds. A transfer that makes progress has no limit. */
export interface Deadlines {
  /** For the response to `GET /v2/`, connecting included: a TLS hello to another protocol may hang. */
  readonly ping: number;
  /** For the first byte of any other response, connecting included. */
  readonly firstByte: number;
  /** From the last byte of an upload to the response: the registry hashes and stores the blob. */
  readonly commit: number;
  /** Between two chunks of a body, in either direction. */
  readonly stall: number;
  /** For the silence of one host in all attempts together. */
  readonly silence: number;
}

/** A body that can be sent more than once. */
export interface RequestBody {
  /** Bytes. Undefined if the size is known only at the end. */
  readonly size: number | undefined;
  /** Returns the bytes. Each call starts at the first byte. */
  open(signal: AbortSignal): AsyncIterable<Uint8Array>;
}

export interface IdleTimeoutOptions {
  /** Milliseconds of silence before each ping. */
  readonly silence: number;
  /** Milliseconds of silence after which the server is given up although it answers the pings. */
  readonly limit: number;
  /** Sends a ping, with a deadline of its own. Rejects if there is no answer. */
  ping(): Promise<unknown>;
  /** Called at most once. @param why such as "it has been silent for 60 s and answers no ping" */
  giveUp(why: string): void;
}

export const DEADLINES: Deadlines = {
  ping: 10_000,
  firstByte: 60_000,
  commit: 90_000,
  stall: 60_000,
  silence: 90_000,
};

/** Milliseconds without a stall after which earlier ones no longer count. */
const FORGIVEN_MS = 600_000;

/**
 * The time that one host may be silent, in all attempts together: else each retry would double the wait for an error.
 *
 * Exchanges that are silent at the same time count once.
 */
export class SilenceBudget {
  readonly #allowed: number;
  #spent = 0;
  /** Until when silence has been counted. */
  #counted = -Infinity;
  #moved = -Infinity;

  /** @param allowed milliseconds */
  constructor(allowed: number) {
    this.#allowed = allowed;
  }

  /** Milliseconds that are left, at least 0. */
  get left(): number {
    if (systemClock.monotonic() - this.#counted > FORGIVEN_MS) this.#spent = 0;
    const left = this.#allowed - this.#spent;
    // Timers are not exact.
    return left < this.#allowed / 100 ? 0 : left;
  }

  /** Milliseconds of silence so far. */
  get spent(): number {
    return this.#spent;
  }

  /** Notes that the host sent or took a byte. */
  move(): void {
    this.#moved = systemClock.monotonic();
  }

  /** Counts the silence from `since` until now, and the pause before it if the host was silent before that as well. */
  spend(since: number): void {
    const now = systemClock.monotonic();
    const isNew = this.#moved > this.#counted || now - this.#counted > FORGIVEN_MS;
    this.#spent += now - (isNew ? Math.max(since, this.#counted) : this.#counted);
    this.#counted = now;
  }
}

/** Ends an exchange when one of its signals aborts, or when a deadline passes without progress. */
export class StallGuard {
  readonly #controller = new AbortController();
  readonly #signals: readonly AbortSignal[];
  readonly #silence: SilenceBudget | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stalled: string | undefined;
  #aborted = false;
  #ended = false;

  /** @param silence that of the host, which shortens the deadlines */
  constructor(signals: readonly (AbortSignal | undefined)[], silence?: SilenceBudget) {
    this.#signals = signals.filter((signal) => signal !== undefined);
    this.#silence = silence;
    for (const signal of this.#signals) {
      if (signal.aborted) this.#abort(signal.reason);
      else signal.addEventListener("abort", this.#onAbort, { once: true });
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether one of the signals ended the exchange. */
  get aborted(): boolean {
    return this.#aborted;
  }

  /** The missing progress that ended the exchange, such as "no answer for 60 s". */
  get stalled(): string | undefined {
    return this.#stalled;
  }

  readonly #onAbort = (event: Event): void => {
    this.#abort(event.target instanceof AbortSignal ? event.target.reason : undefined);
  };

  #abort(reason: unknown): void {
    this.#aborted = true;
    this.#controller.abort(reason);
  }

  /**
   * Starts a deadline, in place of the last one. Does nothing after {@link StallGuard.end}: a body may be read a moment
   * longer, and its deadline would keep the process alive.
   *
   * @param missing the progress that the exchange waits for, such as "no answer"
   */
  arm(ms: number, missing: string): void {
    clearTimeout(this.#timer);
    if (this.#ended) return;
    const silence = this.#silence;
    const since = systemClock.monotonic();
    const allowed = Math.min(ms, silence?.left ?? Infinity);
    this.#timer = setTimeout(() => {
      silence?.spend(since);
      const total = formatSeconds(silence?.spent ?? 0);
      if (allowed === 0) this.#stalled = `it has been silent for ${total} in all`;
      else this.#stalled = `${missing} for ${formatSeconds(allowed)}`;
      if (allowed > 0 && allowed < ms) this.#stalled += `, ${total} in all`;
      this.#controller.abort(new Error(this.#stalled));
    }, allowed);
  }

  /** Stops the deadline: there was progress. */
  disarm(): void {
    clearTimeout(this.#timer);
    this.#silence?.move();
  }

  /** Ends the connection. */
  cancel(): void {
    this.#controller.abort(new Error("cancelled"));
  }

  /** Frees the timer and the listeners. Must be called. */
  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    for (const signal of this.#signals) signal.removeEventListener("abort", this.#onAbort);
  }
}

/** A request body that is being sent. Keeps a failure of its source apart from failures of the network. */
export class Upload {
  readonly size: number | undefined;
  /** The failure of the source. */
  failure: KoError | undefined;
  readonly #body: RequestBody | Uint8Array;
  readonly #guard: StallGuard;
  readonly #deadlines: Deadlines;
  readonly #gone = new AbortController();
  #source: AsyncIterator<Uint8Array> | undefined;

  constructor(body: RequestBody | Uint8Array, options: { readonly guard: StallGuard; readonly deadlines: Deadlines }) {
    this.size = body instanceof Uint8Array ? body.byteLength : body.size;
    this.#body = body;
    this.#guard = options.guard;
    this.#deadlines = options.deadlines;
  }

  /** Whether the body is in memory: `fetch` itself sends such a one again if a pooled connection is dead. */
  get isShort(): boolean {
    return this.#body instanceof Uint8Array || this.size === 0;
  }

  /** Starts the body, anew if it was started before. */
  body(): Uint8Array<ArrayBuffer> | AsyncIterable<Uint8Array> {
    void this.#source?.return?.().catch(() => undefined);
    if (this.#body instanceof Uint8Array) return new Uint8Array(this.#body);
    // fetch would send an empty stream with chunked encoding.
    return this.size === 0 ? new Uint8Array(0) : this.#stream(this.#body);
  }

  async *#stream(body: RequestBody): AsyncGenerator<Uint8Array, void, void> {
    const source = body.open(this.#gone.signal)[Symbol.asyncIterator]();
    this.#source = source;
    for (;;) {
      // The source (a file, another registry) has its own deadlines; this one is for the server.
      this.#guard.disarm();
      let next: IteratorResult<Uint8Array>;
      try {
        next = await source.next();
      } catch (error) {
        this.failure = asSourceFailure(error);
        throw this.failure;
      }
      if (next.done === true) break;
      this.#guard.arm(this.#deadlines.stall, "no byte was taken");
      yield next.value;
    }
    this.#guard.arm(this.#deadlines.commit, "no answer to the complete body");
  }

  /** Ends the source without waiting for it: it may hang. */
  close(): void {
    this.#gone.abort(new Error("cancelled"));
    void this.#source?.return?.().catch(() => undefined);
  }
}

/**
 * A request body that is still being made: hashed while it is sent, and sent once.
 *
 * Reading it never throws. If the source fails or {@link StreamBody.stop} is called, the body ends early and
 * {@link StreamBody.isWhole} is false. So the request ends in an orderly way, and the server can be asked to drop the bytes.
 */
export class StreamBody implements RequestBody {
  readonly size = undefined;
  readonly #read: (signal: AbortSignal) => AsyncIterable<Uint8Array>;
  readonly #gone = new AbortController();
  /** Ends the wait for a chunk. One promise for all waits would keep every chunk that it raced with in memory. */
  #wake: () => void = () => {};
  readonly #hash = new Bun.CryptoHasher("sha256");
  /** Chunks that {@link StreamBody.begin} has read. */
  readonly #first: Uint8Array[] = [];
  #source: AsyncIterator<Uint8Array> | undefined;
  #sentBytes = 0;
  #opened = 0;
  #isComplete = false;

  /**
   * @param read returns the bytes. It is called once, for the first chunk. The signal tells it that nothing more is read.
   *   Its failure is for its maker to report. The memory of a chunk must not change
   */
  constructor(read: (signal: AbortSignal) => AsyncIterable<Uint8Array>) {
    this.#read = read;
  }

  /** Waits for the first bytes. @returns whether there are at least `sizeBytes` */
  async begin(sizeBytes: number): Promise<boolean> {
    for (let size = 0; size < sizeBytes;) {
      const chunk = await this.#next();
      if (chunk === undefined) return false;
      this.#first.push(chunk);
      size += chunk.byteLength;
    }
    return true;
  }

  async *open(signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
    // The first bytes are gone: an empty body then counts as incomplete.
    if (++this.#opened > 1) return;
    const stop = (): void => this.stop();
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    try {
      for (;;) {
        const chunk = this.#first.shift() ?? (await this.#next());
        if (chunk === undefined) return;
        this.#hash.update(chunk);
        this.#sentBytes += chunk.byteLength;
        yield chunk;
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** Ends the body at the current byte, and ends its source. */
  stop(): void {
    this.#gone.abort(new Error("cancelled"));
    this.#wake();
    // Not awaited: the source may hang.
    void this.#source?.return?.().catch(() => undefined);
  }

  /** Whether the sent bytes are those of the descriptor. Call it once, at the end. */
  isWhole({ digest, size }: Pick<Descriptor, "digest" | "size">): boolean {
    if (!this.#isComplete || this.#opened !== 1 || this.#sentBytes !== size) return false;
    return `sha256:${this.#hash.digest("hex")}` === digest;
  }

  async #next(): Promise<Uint8Array | undefined> {
    if (this.#isComplete || this.#gone.signal.aborted) return undefined;
    try {
      const source = (this.#source ??= this.#read(this.#gone.signal)[Symbol.asyncIterator]());
      const next = await new Promise<IteratorResult<Uint8Array> | undefined>((resolve, reject) => {
        this.#wake = () => resolve(undefined);
        source.next().then(resolve, reject);
      });
      if (next?.done === true) this.#isComplete = true;
      return next === undefined || next.done === true ? undefined : next.value;
    } catch {
      return undefined;
    }
  }
}

/**
 * Waits for a server that may be silent while it works, as a daemon is that unpacks a large image. The server is given up
 * if it is silent and answers no ping either.
 *
 * The wait begins at once; {@link IdleTimeout.end} must be called.
 */
export class IdleTimeout {
  readonly #options: IdleTimeoutOptions;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #last: number = systemClock.monotonic();
  #isOver = false;

  constructor(options: IdleTimeoutOptions) {
    this.#options = options;
    this.#arm();
  }

  /** Starts the wait again: the server has sent or taken a byte. */
  reset(): void {
    this.#last = systemClock.monotonic();
  }

  end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  get #silent(): number {
    return systemClock.monotonic() - this.#last;
  }

  #arm(): void {
    const { silence } = this.#options;
    // Still silent after an answered ping: the next one is not sent at once.
    const rest = this.#silent >= silence ? silence : silence - this.#silent;
    this.#timer = setTimeout(() => void this.#check(), rest);
  }

  async #check(): Promise<void> {
    const { silence, limit } = this.#options;
    const isOver = (): boolean => this.#isOver;
    const seconds = Math.round(this.#silent / 1000);
    if (this.#silent >= limit) {
      this.#giveUp(`it has been silent for ${seconds} s`);
    } else if (this.#silent >= silence) {
      const answers = await this.#options.ping().then(
        () => true,
        () => false,
      );
      // The server may have made progress meanwhile.
      if (!answers && this.#silent >= silence) this.#giveUp(`it has been silent for ${seconds} s and answers no ping`);
    }
    if (!isOver()) this.#arm();
  }

  #giveUp(why: string): void {
    if (this.#isOver) return;
    this.end();
    this.#options.giveUp(why);
  }
}

function formatSeconds(ms: number): string {
  return `${Math.round(ms / 10) / 100} s`;
}

/** A failed source is not retried: if it is a registry, it was retried there. */
function asSourceFailure(error: unknown): KoError {
  if (error instanceof RegistryError) {
    return new KoError(error.message, { hint: error.hint, cause: error.cause, transient: error.transient });
  }
  if (error instanceof KoError) return error;
  return new KoError(`Cannot read the content to send: ${messageOf(error)}`, { cause: error });
}
