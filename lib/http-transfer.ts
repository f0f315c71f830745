/**
 * Bytes on their way: the guard that ends what no longer moves, and request bodies with their source's failures.
 *
 * Nothing here knows HTTP. Rules: rules.md A7.8, E1.
 *
 * A request body that is still being made while it is sent: read once, hashed on its way, ended whenever it must.
 *
 * It never fails: what does not come, or is not wanted any more, is missing at its end, and
 * {@link StreamBody.isWhole} tells. So the exchange ends as it should, and the server can be told to drop what it got.
 *
 * Waiting for somebody who may be silent for long and yet be at work: a daemon says nothing while it unpacks a large
 * image. So silence alone ends nothing; silence of somebody who does not answer a question either does.
 */
import { systemClock } from "./async.ts";
import { KoError, messageOf, RegistryError } from "./errors.ts";
import type { Descriptor } from "./oci.ts";

/** How long nothing may happen, in milliseconds. There is no limit on a transfer that moves. */
export interface Deadlines {
  /** For the answer to `GET /v2/`, connecting included: a TLS hello to another protocol may hang. */
  readonly ping: number;
  /** For the first byte of any other answer, connecting included. */
  readonly firstByte: number;
  /** For the answer after the last byte of an upload: the registry hashes and stores it. */
  readonly commit: number;
  /** Between two chunks of a body, in either direction. */
  readonly stall: number;
}

export const DEADLINES: Deadlines = { ping: 10_000, firstByte: 60_000, commit: 300_000, stall: 60_000 };

/** Bytes that can be sent more than once: every attempt opens them anew. */
export interface RequestBody {
  /** Undefined when it is known only at the end. */
  readonly size: number | undefined;
  open(signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** Ends an exchange when its signals say so or when nothing moves. */
export class Watch {
  readonly #controller = new AbortController();
  readonly #signals: readonly AbortSignal[];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stalled: string | undefined;
  #aborted = false;

  constructor(signals: readonly (AbortSignal | undefined)[]) {
    this.#signals = signals.filter((signal) => signal !== undefined);
    for (const signal of this.#signals) {
      if (signal.aborted) this.#abort(signal.reason);
      else signal.addEventListener("abort", this.#onAbort, { once: true });
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** True when the caller wanted the end. */
  get aborted(): boolean {
    return this.#aborted;
  }

  /** What did not happen in time, if that ended the exchange. */
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

  arm(ms: number, what: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#stalled = `${what} for ${ms / 1000} s`;
      this.#controller.abort(new Error(this.#stalled));
    }, ms);
  }

  disarm(): void {
    clearTimeout(this.#timer);
  }

  /** Ends the connection; nobody waits for it any more. */
  cancel(): void {
    this.#controller.abort(new Error("not wanted any more"));
  }

  end(): void {
    this.disarm();
    for (const signal of this.#signals) signal.removeEventListener("abort", this.#onAbort);
  }
}

/** A request body on its way, with its source's failure kept apart from the network's. */
export class Upload {
  readonly size: number | undefined;
  failure: KoError | undefined;
  readonly #body: RequestBody | Uint8Array;
  readonly #watch: Watch;
  readonly #deadlines: Deadlines;
  readonly #gone = new AbortController();
  #source: AsyncIterator<Uint8Array> | undefined;

  constructor(body: RequestBody | Uint8Array, options: { readonly watch: Watch; readonly deadlines: Deadlines }) {
    this.size = body instanceof Uint8Array ? body.byteLength : body.size;
    this.#body = body;
    this.#watch = options.watch;
    this.#deadlines = options.deadlines;
  }

  body(): Uint8Array<ArrayBuffer> | AsyncIterable<Uint8Array> {
    if (this.#body instanceof Uint8Array) return new Uint8Array(this.#body);
    // A stream of nothing would go out chunked.
    return this.size === 0 ? new Uint8Array(0) : this.#stream(this.#body);
  }

  async *#stream(body: RequestBody): AsyncGenerator<Uint8Array, void, void> {
    const source = body.open(this.#gone.signal)[Symbol.asyncIterator]();
    this.#source = source;
    for (;;) {
      // The source (a file, another registry) has its own guard; this one is for the way to the server.
      this.#watch.disarm();
      let next: IteratorResult<Uint8Array>;
      try {
        next = await source.next();
      } catch (error) {
        this.failure = asSourceFailure(error);
        throw this.failure;
      }
      if (next.done === true) break;
      this.#watch.arm(this.#deadlines.stall, "no byte was taken");
      yield next.value;
    }
    this.#watch.arm(this.#deadlines.commit, "no answer to the complete body");
  }

  /** Ends the source; not waited for, because it may hang itself, and what it says about that changes nothing. */
  close(): void {
    this.#gone.abort(new Error("not wanted any more"));
    void this.#source?.return?.().catch(() => undefined);
  }
}

/** A failed source is final: it did its own attempts (a base layer that is read from a registry, say). */
function asSourceFailure(error: unknown): KoError {
  if (error instanceof RegistryError) {
    return new KoError(error.message, { hint: error.hint, cause: error.cause, transient: error.transient });
  }
  if (error instanceof KoError) return error;
  return new KoError(`Cannot read what is to be sent: ${messageOf(error)}`, { cause: error });
}

export class StreamBody implements RequestBody {
  readonly size = undefined;
  readonly #make: (signal: AbortSignal) => AsyncIterable<Uint8Array>;
  readonly #gone = new AbortController();
  /** Ends the waiting for a chunk. Not one promise for all of them: it would hold every chunk that it raced with. */
  #wake: () => void = () => {};
  readonly #hash = new Bun.CryptoHasher("sha256");
  /** Read by {@link StreamBody.begin}, not sent yet. */
  readonly #first: Uint8Array[] = [];
  #source: AsyncIterator<Uint8Array> | undefined;
  #sentBytes = 0;
  #opened = 0;
  #isComplete = false;

  /**
   * @param make is called once, when the first bytes are wanted; the signal ends it. What it throws is its maker's to
   *   tell, and chunks stay as they are once they are given.
   */
  constructor(make: (signal: AbortSignal) => AsyncIterable<Uint8Array>) {
    this.#make = make;
  }

  /** Waits for the first bytes. @returns false if there are fewer than `sizeBytes` */
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
    // Somebody wants it from its start again, and that is gone: an empty body is no whole one.
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

  /** Ends it where it is, and lets its maker know. */
  stop(): void {
    this.#gone.abort(new Error("not wanted any more"));
    this.#wake();
    // Not waited for: it may hang, and what it says changes nothing.
    void this.#source?.return?.().catch(() => undefined);
  }

  /** Whether all of it was sent, once, and it is what the descriptor says. Ask once, at the end. */
  isWhole({ digest, size }: Pick<Descriptor, "digest" | "size">): boolean {
    if (!this.#isComplete || this.#opened !== 1 || this.#sentBytes !== size) return false;
    return `sha256:${this.#hash.digest("hex")}` === digest;
  }

  async #next(): Promise<Uint8Array | undefined> {
    if (this.#isComplete || this.#gone.signal.aborted) return undefined;
    try {
      const source = (this.#source ??= this.#make(this.#gone.signal)[Symbol.asyncIterator]());
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

export interface PatienceOptions {
  /** Milliseconds of silence after which the question is asked, and asked again. */
  readonly silence: number;
  /** Milliseconds of silence after which it is over, whatever the answers were. */
  readonly limit: number;
  /** The question; rejected when there was no answer. It has its own deadline. */
  ask(): Promise<unknown>;
  /** Called at most once. @param why in words, such as "it has been silent for 60 s and answers no ping" */
  giveUp(why: string): void;
}

/** Begins to wait at once; {@link Patience.end} must be called. */
export class Patience {
  readonly #options: PatienceOptions;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #last: number = systemClock.monotonic();
  #isOver = false;

  constructor(options: PatienceOptions) {
    this.#options = options;
    this.#arm();
  }

  /** Something happened: the silence is over. */
  moved(): void {
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
    // Still silent after an answer: not asked again at once.
    const rest = this.#silent >= silence ? silence : silence - this.#silent;
    this.#timer = setTimeout(() => void this.#look(), rest);
  }

  async #look(): Promise<void> {
    const { silence, limit } = this.#options;
    const isOver = (): boolean => this.#isOver;
    const seconds = Math.round(this.#silent / 1000);
    if (this.#silent >= limit) {
      this.#giveUp(`it has been silent for ${seconds} s`);
    } else if (this.#silent >= silence) {
      const answers = await this.#options.ask().then(
        () => true,
        () => false,
      );
      // It may have moved meanwhile.
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
