/**
 * Gzip on several threads, with the same bytes whatever their number.
 *
 * The stream is cut at multiples of 1 MiB and each block is a gzip member of its own (RFC 1952, 2.2: members simply
 * follow each other), made by libdeflate, whose output is a function of block and level alone; zlib-ng's is not, and
 * Go's cannot be had without its code (spec/bun.md 2, spec/wire.md D1.2). A stream of up to 1 MiB is one member.
 *
 * It does not decompress; mind that `Bun.gunzipSync` reads the first member only, `node:zlib` reads all.
 */

/** As libdeflate counts: 1 is fast, 12 is small. */
export type GzipLevel = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12;

/** What a worker gets: the first `size` bytes of `block` become a member. */
export interface GzipJob {
  readonly block: Uint8Array<ArrayBuffer>;
  readonly size: number;
  readonly level: GzipLevel;
}

/** What a worker gives: the member, and the block's memory for the next job. */
export interface GzipDone {
  readonly block: Uint8Array<ArrayBuffer>;
  readonly member: Uint8Array<ArrayBuffer>;
}

export interface GzipPoolOptions {
  /** How many threads at most; 0 compresses in the calling thread. More than four gain little (spec/bun.md 2). */
  readonly workers: number;
  /** What the workers run. @default gzip.worker.ts */
  readonly module?: URL;
}

export interface CompressOptions {
  readonly signal: AbortSignal;
  /** @default 1 */
  readonly level?: GzipLevel;
}

/** Uncompressed bytes of a member. */
const BLOCK_BYTES = 1024 * 1024;
/** Up to so many blocks it is not worth while to start workers: 4 MiB take 20 ms. */
const FEW_BLOCKS = 4;
/** Enough that a worker never waits, few enough that memory stays small. */
const JOBS_PER_WORKER = 2;
/** Milliseconds; a start takes about five. */
const START_LIMIT = 5000;

/**
 * Threads that compress, shared by all layers of a run.
 *
 * They are started when the first large stream comes, stay for the next, and do not keep the process alive.
 */
export class GzipPool implements AsyncDisposable {
  readonly #count: number;
  readonly #module: URL;
  /** Memory of blocks that are done. */
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
  #starting: Promise<readonly GzipWorker[]> | undefined;

  constructor(options: GzipPoolOptions) {
    this.#count = options.workers;
    this.#module = options.module ?? workerModule();
  }

  /**
   * Compresses `source`; chunks may have any length and are copied, so their memory stays the caller's.
   *
   * If no worker can be started, the calling thread does the work: slower, the same bytes.
   */
  async *compress(source: AsyncIterable<Uint8Array>, options: CompressOptions): AsyncGenerator<Uint8Array, void, void> {
    const { signal, level = 1 } = options;
    // The first blocks wait here until it is known whether many follow.
    let first: GzipJob[] | undefined = [];
    let workers: readonly GzipWorker[] = [];
    const running: Promise<Uint8Array>[] = [];
    const start = (job: GzipJob): void => {
      const member = this.#run(job, workers);
      // Awaited in its turn; until then a failure must not count as unhandled.
      member.catch(() => {});
      running.push(member);
    };
    try {
      for await (const job of this.#cut(source, level)) {
        signal.throwIfAborted();
        if (first !== undefined && first.length < FEW_BLOCKS) {
          first.push(job);
          continue;
        }
        if (first !== undefined) {
          workers = await this.#workers();
          first.forEach(start);
          first = undefined;
        }
        start(job);
        while (running.length > Math.max(1, workers.length * JOBS_PER_WORKER)) {
          const member = await running.shift();
          if (member !== undefined) yield member;
        }
      }
      first?.forEach(start);
      for (let member = await running.shift(); member !== undefined; member = await running.shift()) {
        signal.throwIfAborted();
        yield member;
      }
    } finally {
      await Promise.allSettled(running);
    }
  }

  /** Ends the workers, once they have done what they were given. */
  async [Symbol.asyncDispose](): Promise<void> {
    const workers = (await this.#starting) ?? [];
    this.#starting = Promise.resolve([]);
    await Promise.all(workers.map((worker) => worker.stop()));
    this.#spare.length = 0;
  }

  /** An empty source gives one empty block: no bytes at all would be no gzip. */
  async *#cut(source: AsyncIterable<Uint8Array>, level: GzipLevel): AsyncGenerator<GzipJob, void, void> {
    let block = this.#block();
    let size = 0;
    let empty = true;
    for await (const chunk of source) {
      for (let at = 0; at < chunk.byteLength;) {
        if (size === BLOCK_BYTES) {
          yield { block, size, level };
          [block, size, empty] = [this.#block(), 0, false];
        }
        const part = chunk.subarray(at, at + BLOCK_BYTES - size);
        block.set(part, size);
        size += part.byteLength;
        at += part.byteLength;
      }
    }
    if (size > 0 || empty) yield { block, size, level };
  }

  #block(): Uint8Array<ArrayBuffer> {
    return this.#spare.pop() ?? new Uint8Array(BLOCK_BYTES);
  }

  async #run(job: GzipJob, workers: readonly GzipWorker[]): Promise<Uint8Array> {
    let worker = workers[0];
    for (const other of workers) if (worker === undefined || other.waiting < worker.waiting) worker = other;
    let done: GzipDone;
    if (worker !== undefined) done = await worker.run(job);
    else {
      // Lets signals and uploads in between the blocks.
      await new Promise((resolve) => setImmediate(resolve));
      done = { block: job.block, member: gzipBlock(job.block.subarray(0, job.size), job.level) };
    }
    if (this.#spare.length < FEW_BLOCKS + this.#count * JOBS_PER_WORKER) this.#spare.push(done.block);
    return done.member;
  }

  #workers(): Promise<readonly GzipWorker[]> {
    this.#starting ??= Promise.all(Array.from({ length: this.#count }, () => startWorker(this.#module))).then(
      (workers) => workers.filter((worker) => worker !== undefined),
    );
    return this.#starting;
  }
}

/** One gzip member; the header has no name and no time. */
export function gzipBlock(block: Uint8Array<ArrayBuffer>, level: GzipLevel): Uint8Array<ArrayBuffer> {
  return Bun.gzipSync(block, { level, library: "libdeflate" });
}

/**
 * In a compiled executable all modules lie at the root of its own file system, but entry points keep their folder
 * (spec/bun.md 3): gzip.worker.ts has to be an entry point of the compilation, as `lib/gzip.worker.ts`.
 */
function workerModule(): URL {
  const here = import.meta.url;
  const compiled = here.includes("/$bunfs/") || here.includes("/~BUN/") || here.includes("/%7EBUN/");
  return new URL(compiled ? "./lib/gzip.worker.ts" : "./gzip.worker.ts", here);
}

interface GzipWorker {
  /** Jobs that are not answered yet. */
  readonly waiting: number;
  run(job: GzipJob): Promise<GzipDone>;
  stop(): Promise<void>;
}

/** Undefined if the module is not there or says nothing. */
async function startWorker(module: URL): Promise<GzipWorker | undefined> {
  const waiting: PromiseWithResolvers<GzipDone>[] = [];
  const ready = Promise.withResolvers<boolean>();
  const closed = Promise.withResolvers<void>();
  let failure: Error | undefined;
  const fail = (why: string): void => {
    failure ??= new Error(`a compression worker failed: ${why}`);
    ready.resolve(false);
    closed.resolve();
    for (const job of waiting.splice(0)) job.reject(failure);
  };
  let worker: Worker;
  try {
    worker = new Worker(module, { ref: false });
  } catch {
    return undefined;
  }
  worker.addEventListener("message", (event: MessageEvent<GzipDone | "ready">) => {
    if (event.data === "ready") {
      ready.resolve(true);
      return;
    }
    const job = waiting.shift();
    if (waiting.length === 0) worker.unref();
    job?.resolve(event.data);
  });
  worker.addEventListener("error", (event) => {
    // Else it is printed as well.
    event.preventDefault();
    fail(event.message);
  });
  worker.addEventListener("close", () => fail("it ended"));
  // The timer keeps the process alive meanwhile, which the worker does not.
  const timer = setTimeout(() => ready.resolve(false), START_LIMIT);
  const started = await ready.promise;
  clearTimeout(timer);
  if (!started) return undefined;
  return {
    get waiting() {
      return waiting.length;
    },
    run: (job) => {
      if (failure !== undefined) return Promise.reject(failure);
      if (waiting.length === 0) worker.ref();
      const answer = Promise.withResolvers<GzipDone>();
      waiting.push(answer);
      // Both buffers change hands: nothing is copied.
      worker.postMessage(job, [job.block.buffer]);
      return answer.promise;
    },
    stop: () => {
      if (failure === undefined) worker.ref();
      worker.postMessage("stop", []);
      return closed.promise;
    },
  };
}
