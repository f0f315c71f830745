/**
 * Bytes on their way: the guard that ends what no longer moves, and request bodies with their source's failures.
 *
 * Nothing here knows HTTP. Rules: wire.md A7.8, E1.
 */
import { KoError, messageOf, RegistryError } from "./errors.ts";

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
  if (error instanceof RegistryError) return new KoError(error.message, { hint: error.hint, cause: error.cause });
  if (error instanceof KoError) return error;
  return new KoError(`Cannot read what is to be sent: ${messageOf(error)}`, { cause: error });
}
