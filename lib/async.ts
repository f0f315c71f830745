/**
 * Concurrency helpers: retry with back-off, a limit on parallel work, one promise per key, reads that can be aborted.
 *
 * `retry()` is the only place where the registry client retries, so that attempts never multiply. Each error decides
 * whether it is worth a retry (`RegistryError.retry`). Rules: docs/rules.md A7, E2.
 */
import { RegistryError } from "./errors.ts";
import type { Log } from "./log.ts";

/** Time and randomness, which tests replace. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** @throws The signal's reason, if it aborts first. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** From 0 up to but not including 1. */
  random(): number;
}

export interface RetryOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** The real clock, for the clients of registries and daemons, which have no `Host`. */
export const systemClock: Clock & {
  /** Milliseconds, for durations: changes of the system's time do not affect it. */
  monotonic(): number;
} = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const stop = (): void => {
        clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        signal.removeEventListener("abort", stop);
        resolve();
      }, ms);
      signal.addEventListener("abort", stop, { once: true });
    }),
  random: () => Math.random(),
};

const ATTEMPTS = 5;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
const LONGEST_RETRY_AFTER_MS = 60_000;
/** The longest time that a loop runs without a turn of the event loop. */
const TURN_MS = 50;
/** The sum of the waits of one call. */
const ALL_WAITS_MS = 180_000;
/** A server that is just starting is asked each second. */
const START_WAIT_MS = 1000;
const STARTS = 10;

/**
 * Runs work up to five times, until it succeeds or fails with an error that another attempt cannot change.
 *
 * It waits as long as the server asks (at most 60 s), else a random time below 1, 2, 4 and 8 s. A server that may be
 * starting gets 10 s.
 *
 * @param work gets the number of the attempt, from 1
 * @throws The error of the last attempt; a {@link RegistryError} then names the number of attempts.
 */
export async function retry<T>(work: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  let waited = 0;
  let triedOnce = false;
  let starts = 0;
  for (let attempt = 1; ; attempt++) {
    options.signal.throwIfAborted();
    try {
      return await work(attempt);
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof RegistryError) || error.retry === "never") throw error;
      if (error.retry === "soon" && starts < STARTS) {
        if (++starts === 1)
          tellOnce(`Waiting up to ${(STARTS * START_WAIT_MS) / 1000} s for ${hostOf(error)}`, options.log);
        await options.clock.sleep(START_WAIT_MS, options.signal);
        continue;
      }
      const wait = chooseWait(error, attempt - starts, options.clock);
      const spent = error.retry === "soon" || (error.retry === "once" && triedOnce);
      if (spent || attempt - starts >= ATTEMPTS || waited + wait > ALL_WAITS_MS) {
        throw attempt === 1 ? error : withAttempts(error, attempt);
      }
      if (error.retry === "once") triedOnce = true;
      waited += wait;
      options.log.info(`Trying again in ${(wait / 1000).toFixed(1)} s (attempt ${attempt + 1}): ${error.message}`);
      await options.clock.sleep(wait, options.signal);
    }
  }
}

/** The waits that a log has told: several requests wait for the same server. */
const told = new WeakMap<Log, Set<string>>();

function hostOf({ message, url }: RegistryError): string {
  return URL.canParse(url) ? `${new URL(url).host}: nothing listens there` : message;
}

function tellOnce(message: string, log: Log): void {
  const known = told.get(log) ?? new Set();
  told.set(log, known);
  if (known.has(message)) return;
  known.add(message);
  log.info(message);
}

/** Parses `Retry-After`, in seconds or as an HTTP date, to milliseconds from `now`; undefined if it is not valid. */
export function parseRetryAfter(header: string | null, now: number): number | undefined {
  const text = header?.trim() ?? "";
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const date = /^[A-Z][a-z]{2},? /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** Makes a function that runs at most `size` works at once. The others wait in the order of the calls. */
export function createLimit(size: number): <T>(work: () => Promise<T>) => Promise<T> {
  let free = size;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (free > 0) free--;
    else await new Promise<void>((wake) => waiting.push(wake));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    }
  };
}

/** Calls `work` again and again, until the returned function is called. It does not keep ko alive. */
export function repeat(milliseconds: number, work: () => void): () => void {
  const timer = setInterval(work, milliseconds);
  timer.unref();
  return () => clearInterval(timer);
}

/** Gives signals and other work a turn within a long loop: without one, Ctrl-C has no effect until the loop ends. */
export class Pace {
  readonly #signal: AbortSignal | undefined;
  #last = systemClock.monotonic();

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** Whether the loop has run long enough since the last turn. */
  get isDue(): boolean {
    return systemClock.monotonic() - this.#last > TURN_MS;
  }

  /** Waits for a turn of the event loop. @throws The signal's reason, if it has aborted. */
  async turn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.#signal?.throwIfAborted();
    this.#last = systemClock.monotonic();
  }
}

/** Returns the promise stored under `key`; calls `work` and stores its promise if there is none yet. */
export function once<T>(known: Map<string, Promise<T>>, key: string, work: () => Promise<T>): Promise<T> {
  let value = known.get(key);
  if (value === undefined) known.set(key, (value = work()));
  return value;
}

/**
 * Waits for `work`, or until the signal aborts.
 *
 * @throws The signal's reason, if it aborts first.
 */
export function until<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const ended = Promise.withResolvers<never>();
  const end = (): void => ended.reject(signal.reason);
  if (signal.aborted) end();
  signal.addEventListener("abort", end, { once: true });
  return Promise.race([work, ended.promise]).finally(() => signal.removeEventListener("abort", end));
}

/**
 * Reads a stream into memory, such as standard input, which may never end.
 *
 * @returns undefined if the stream has more than `maxBytes`
 * @throws The signal's reason, if it aborts first.
 */
export async function readStream(
  stream: ReadableStream<Uint8Array>,
  { maxBytes, signal }: { readonly maxBytes: number; readonly signal: AbortSignal },
): Promise<Uint8Array | undefined> {
  signal.throwIfAborted();
  const reader = stream.getReader();
  const stop = (): void => void inBackground(reader.cancel());
  signal.addEventListener("abort", stop, { once: true });
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      size += read.value.byteLength;
      if (size > maxBytes) break;
      chunks.push(read.value);
    }
  } catch (cause) {
    signal.throwIfAborted();
    throw cause;
  } finally {
    signal.removeEventListener("abort", stop);
    stop();
  }
  signal.throwIfAborted();
  return size > maxBytes ? undefined : new Uint8Array(Buffer.concat(chunks));
}

/**
 * Marks work that runs in the background: its failure does not count as an unhandled rejection. Awaiting the returned
 * promise still throws.
 */
export function inBackground<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {});
  return work;
}

/** A queue between one producer and one consumer: values come out in the order in which they were pushed. */
export class Channel<T> implements AsyncIterable<T> {
  readonly #values: T[] = [];
  #ended: Promise<void> | undefined;
  #wake: () => void = () => {};

  push(value: T): void {
    this.#values.push(value);
    this.#wake();
  }

  /** Ends the queue when `work` ends; a failure of `work` is thrown to the consumer after the values before it. */
  endAfter(work: Promise<unknown>): void {
    void inBackground(work).then(
      () => this.#end(Promise.resolve()),
      () => this.#end(work.then(() => {})),
    );
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (;;) {
      for (let value = this.#values.shift(); value !== undefined; value = this.#values.shift()) yield value;
      if (this.#ended !== undefined) return this.#ended;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #end(ended: Promise<void>): void {
    this.#ended = inBackground(ended);
    this.#wake();
  }
}

function chooseWait(error: RegistryError, failures: number, clock: Clock): number {
  if (error.retryAfter !== undefined) return Math.min(Math.max(0, error.retryAfter), LONGEST_RETRY_AFTER_MS);
  const random = clock.random();
  // The four waits for a server that is starting take 10 s at least.
  const part = error.status === 503 ? (2 + random) / 3 : random;
  return Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), LONGEST_WAIT_MS) * part;
}

function withAttempts(error: RegistryError, attempts: number): RegistryError {
  return new RegistryError(`${error.message} (after ${attempts} attempts)`, {
    method: error.method,
    url: error.url,
    status: error.status,
    codes: error.codes,
    hint: error.hint,
    cause: error.cause,
    exitCode: error.exitCode,
  });
}
