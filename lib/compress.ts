/**
 * Compression on several threads, gzip or zstd, with the same bytes whatever the number of threads.
 *
 * The stream is cut at multiples of 1 MiB and each block is compressed alone, to a gzip member or a zstd frame: both
 * simply follow each other (RFC 1952, 2.2; RFC 8878, 3). A stream of up to 1 MiB is one of them. Gzip is libdeflate's,
 * whose output is a function of block and level alone; zlib-ng's is not, and Go's cannot be had without its code
 * (spec/bun.md 2, rules.md D1.2).
 *
 * It does not decompress; mind that `Bun.gunzipSync` reads the first member only, `node:zlib` reads all.
 */

/** 1 is fast, 9 is small. */
export type GzipLevel = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;

/** A form that a pool can compress to. */
export type Codec = { readonly kind: "gzip"; readonly level: GzipLevel } | { readonly kind: "zstd" };

/** How the layers of an image are compressed, or that they are not. */
export type Compression = Codec | { readonly kind: "none" };

/** Faster than Go's gzip at its fastest, which the original takes, and smaller (spec/bun.md 2). */
export const FAST_GZIP: Codec = { kind: "gzip", level: 1 };

/** What a worker gets: the first `size` bytes of `block` are compressed. */
export interface CompressionJob {
  readonly block: Uint8Array<ArrayBuffer>;
  readonly size: number;
  readonly codec: Codec;
  /** The digest of the block is wanted too; if it is this one, its compressed form is there already. */
  readonly known?: string | undefined;
}

/** What a worker gives: a member or frame, and the block's memory for the next job. */
export interface CompressionDone {
  readonly block: Uint8Array<ArrayBuffer>;
  /** Undefined if the block is the known one. */
  readonly packed: Uint8Array<ArrayBuffer> | undefined;
  /** SHA-256 of the uncompressed block, if it was wanted. */
  readonly digest: string | undefined;
}

/** A block that was compressed in advance. */
interface EarlyBlock {
  readonly digest: string;
  readonly packed: Uint8Array;
}

/** A stream that is compressed in advance, though it may still change. */
export interface EarlyCompression {
  /** Ends it where it is. @returns what there is, by place in the stream */
  stop(): Promise<(EarlyBlock | undefined)[]>;
}

export interface CompressionPoolOptions {
  /** How many threads at most; 0 compresses in the calling thread. More than four gain little (spec/bun.md 2). */
  readonly workers: number;
  /** What the workers run. @default compress.worker.ts */
  readonly module?: URL;
}

export interface CompressOptions {
  readonly codec: Codec;
  readonly signal: AbortSignal;
  /** Of the same stream; what has changed since is compressed anew. */
  readonly early?: EarlyCompression | undefined;
}

/** Uncompressed bytes of a member or frame. */
const BLOCK_BYTES = 1024 * 1024;
/** Up to so many blocks it is not worth while to start workers: 4 MiB of gzip:1 take 20 ms. */
const FEW_BLOCKS = 4;
/** Of 1 to 22: about as fast as gzip level 1, and smaller (spec/bun.md 2). */
const ZSTD_LEVEL = 3;
/** Enough that a worker never waits, few enough that memory stays small. */
const JOBS_PER_WORKER = 2;
/** Milliseconds; a start takes about five. */
const START_LIMIT = 5000;
/** Compressed bytes that are kept in advance: they lie in memory. */
const MOST_EARLY_BYTES = 24 * 1024 * 1024;
/** No digest: that of a block is wanted, and not known. */
const UNKNOWN = "";

/**
 * Threads that compress, shared by all layers of a run.
 *
 * They are started when the first large stream comes, stay for the next, and do not keep the process alive.
 */
export class CompressionPool implements AsyncDisposable {
  readonly #count: number;
  readonly #module: URL;
  /** Memory of blocks that are done. */
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
  #starting: Promise<readonly CompressionWorker[]> | undefined;

  constructor(options: CompressionPoolOptions) {
    this.#count = options.workers;
    this.#module = options.module ?? workerModule();
  }

  /**
   * Compresses `source`; chunks may have any length and are copied, so their memory stays the caller's.
   *
   * If no worker can be started, the calling thread does the work: slower, the same bytes.
   */
  async *compress(source: AsyncIterable<Uint8Array>, options: CompressOptions): AsyncGenerator<Uint8Array, void, void> {
    const { codec, signal } = options;
    const early = (await options.early?.stop()) ?? [];
    let count = 0;
    // The first blocks wait here until it is known whether many follow.
    let first: CompressionJob[] | undefined = [];
    let workers: readonly CompressionWorker[] = [];
    const running: Promise<Uint8Array>[] = [];
    const start = (job: CompressionJob): void => {
      const at = count++;
      const before = early[at];
      // Its memory is free when it has had its turn.
      early[at] = undefined;
      const packed = this.#run(before === undefined ? job : { ...job, known: before.digest }, workers).then(
        (done) => done.packed ?? before?.packed ?? new Uint8Array(),
      );
      // Awaited in its turn; until then a failure must not count as unhandled.
      packed.catch(() => {});
      running.push(packed);
    };
    try {
      for await (const job of this.#cut(source, codec)) {
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
          const packed = await running.shift();
          if (packed !== undefined) yield packed;
        }
      }
      first?.forEach(start);
      for (let packed = await running.shift(); packed !== undefined; packed = await running.shift()) {
        signal.throwIfAborted();
        yield packed;
      }
    } finally {
      await Promise.allSettled(running);
    }
  }

  /**
   * Begins to compress a stream that may still change, as far as it gets until it is stopped. What fails is not told: it
   * is compressed again then.
   */
  begin(source: AsyncIterable<Uint8Array>, { codec, signal }: Omit<CompressOptions, "early">): EarlyCompression {
    const blocks: (EarlyBlock | undefined)[] = [];
    let isStopped = false;
    const work = async (): Promise<void> => {
      const workers = await this.#workers();
      const running = new Set<Promise<void>>();
      // Whatever makes the stream goes on with it meanwhile: one processor is left to that.
      const atOnce = Math.max(1, workers.length - 1);
      let bytes = 0;
      let count = 0;
      try {
        for await (const job of this.#cut(source, codec)) {
          if (isStopped || signal.aborted || bytes > MOST_EARLY_BYTES || workers.length === 0) break;
          const at = count++;
          const keep = async (): Promise<void> => {
            const { digest, packed } = await this.#run({ ...job, known: UNKNOWN }, workers);
            if (packed === undefined || digest === undefined) return;
            blocks[at] = { digest, packed };
            bytes += packed.byteLength;
          };
          const one: Promise<void> = keep().finally(() => running.delete(one));
          one.catch(() => {});
          running.add(one);
          while (running.size >= atOnce) await Promise.race(running);
        }
      } finally {
        await Promise.allSettled(running);
      }
    };
    const working = work().catch(() => {});
    return {
      stop: async () => {
        isStopped = true;
        await working;
        return blocks;
      },
    };
  }

  /** Ends the workers, once they have done what they were given. */
  async [Symbol.asyncDispose](): Promise<void> {
    const workers = (await this.#starting) ?? [];
    this.#starting = Promise.resolve([]);
    await Promise.all(workers.map((worker) => worker.stop()));
    this.#spare.length = 0;
  }

  /** An empty source gives one empty block: no bytes at all would be neither gzip nor zstd. */
  async *#cut(source: AsyncIterable<Uint8Array>, codec: Codec): AsyncGenerator<CompressionJob, void, void> {
    let block = this.#block();
    let size = 0;
    let empty = true;
    for await (const chunk of source) {
      for (let at = 0; at < chunk.byteLength;) {
        if (size === BLOCK_BYTES) {
          yield { block, size, codec };
          [block, size, empty] = [this.#block(), 0, false];
        }
        const part = chunk.subarray(at, at + BLOCK_BYTES - size);
        block.set(part, size);
        size += part.byteLength;
        at += part.byteLength;
      }
    }
    if (size > 0 || empty) yield { block, size, codec };
  }

  #block(): Uint8Array<ArrayBuffer> {
    return this.#spare.pop() ?? new Uint8Array(BLOCK_BYTES);
  }

  async #run(job: CompressionJob, workers: readonly CompressionWorker[]): Promise<CompressionDone> {
    let worker = workers[0];
    for (const other of workers) if (worker === undefined || other.waiting < worker.waiting) worker = other;
    let done: CompressionDone;
    if (worker !== undefined) done = await worker.run(job);
    else {
      // Lets signals and uploads in between the blocks.
      await new Promise((resolve) => setImmediate(resolve));
      done = runJob(job);
    }
    if (this.#spare.length < FEW_BLOCKS + this.#count * JOBS_PER_WORKER) this.#spare.push(done.block);
    return done;
  }

  #workers(): Promise<readonly CompressionWorker[]> {
    this.#starting ??= Promise.all(Array.from({ length: this.#count }, () => startWorker(this.#module))).then(
      (workers) => workers.filter((worker) => worker !== undefined),
    );
    return this.#starting;
  }
}

/** What a worker does with a job. */
export function runJob({ block, codec, known, size }: CompressionJob): CompressionDone {
  const content = block.subarray(0, size);
  const digest = known === undefined ? undefined : new Bun.CryptoHasher("sha256").update(content).digest("hex");
  const isKnown = digest !== undefined && digest === known;
  return { block, packed: isKnown ? undefined : compressBlock(content, codec), digest };
}

/** One gzip member, whose header has no name and no time, or one zstd frame. */
export function compressBlock(block: Uint8Array<ArrayBuffer>, codec: Codec): Uint8Array<ArrayBuffer> {
  switch (codec.kind) {
    case "gzip":
      return Bun.gzipSync(block, { level: codec.level, library: "libdeflate" });
    case "zstd":
      // The copy has memory of its own, which can change hands.
      return new Uint8Array(Bun.zstdCompressSync(block, { level: ZSTD_LEVEL }));
  }
}

/**
 * In a compiled executable all modules lie at the root of its own file system, but entry points keep their folder
 * (spec/bun.md 3): compress.worker.ts has to be an entry point of the compilation, as `lib/compress.worker.ts`.
 */
function workerModule(): URL {
  const here = import.meta.url;
  const compiled = here.includes("/$bunfs/") || here.includes("/~BUN/") || here.includes("/%7EBUN/");
  return new URL(compiled ? "./lib/compress.worker.ts" : "./compress.worker.ts", here);
}

interface CompressionWorker {
  /** Jobs that are not answered yet. */
  readonly waiting: number;
  run(job: CompressionJob): Promise<CompressionDone>;
  stop(): Promise<void>;
}

/** Undefined if the module is not there or says nothing. */
async function startWorker(module: URL): Promise<CompressionWorker | undefined> {
  const waiting: PromiseWithResolvers<CompressionDone>[] = [];
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
  worker.addEventListener("message", (event: MessageEvent<CompressionDone | "ready">) => {
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
      const answer = Promise.withResolvers<CompressionDone>();
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
