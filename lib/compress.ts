/**
 * Gzip and zstd on several threads, with the same bytes for any number of threads.
 *
 * A stream is cut into blocks of 1 MiB, and each block becomes a gzip member or a zstd frame: decompressors accept a
 * sequence of them (RFC 1952, 2.2; RFC 8878, 3), but `Bun.gunzipSync` reads the first member only. Gzip is libdeflate's,
 * whose output depends on the block and the level alone (docs/rules.md D1.2 and Bun 2).
 */
import { inBackground } from "./async.ts";

/** 1 is fast, 9 is small. */
export type GzipLevel = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;

/** A compressed format. */
export type Codec = { readonly kind: "gzip"; readonly level: GzipLevel } | { readonly kind: "zstd" };

/** The value of `--compression`. */
export type Compression = Codec | { readonly kind: "none" };

/** A message to a worker. The block's memory is transferred. */
export interface CompressionJob {
  readonly block: Uint8Array<ArrayBuffer>;
  /** The used bytes of `block`, from its start. */
  readonly size: number;
  readonly codec: Codec;
  /** If given, the block is hashed. A block with this digest is not compressed: the caller has it compressed. */
  readonly known?: string | undefined;
}

/** The answer of a worker. All memory is transferred back. */
export interface CompressionDone {
  readonly block: Uint8Array<ArrayBuffer>;
  /** A gzip member or a zstd frame; undefined if the block has the known digest. */
  readonly packed: Uint8Array<ArrayBuffer> | undefined;
  /** SHA-256 of the uncompressed block, in hex; undefined if the job has no `known`. */
  readonly digest: string | undefined;
}

/** A block that was compressed in advance. */
interface EarlyBlock {
  readonly digest: string;
  readonly packed: Uint8Array;
}

/** The compression, in advance, of a stream that may still change. */
export interface EarlyCompression {
  /** Stops it. @returns the compressed blocks, by their index in the stream */
  stop(): Promise<(EarlyBlock | undefined)[]>;
}

export interface CompressionPoolOptions {
  /** The maximum number of threads; 0 compresses in the calling thread. More than four gain little. */
  readonly workers: number;
  /** The module of the workers. @default compress.worker.ts */
  readonly module?: URL;
}

export interface CompressOptions {
  readonly codec: Codec;
  readonly signal: AbortSignal;
  /** The compression of the same stream in advance. Blocks that have changed since are compressed again. */
  readonly early?: EarlyCompression | undefined;
}

/** The default: faster than Go's gzip at level 1, which the original ko uses, and smaller (docs/rules.md, Bun 2). */
export const FAST_GZIP: Codec = { kind: "gzip", level: 1 };

const BLOCK_BYTES = 1024 * 1024;
/** The calling thread compresses streams of at most this many blocks: at gzip level 1, 4 MiB take 20 ms. */
const FEW_BLOCKS = 4;
/** Of 1 to 22. This one is about as fast as gzip level 1, and smaller. */
const ZSTD_LEVEL = 3;
/** Enough that no worker waits, few enough that memory stays small. */
const JOBS_PER_WORKER = 2;
/** Milliseconds. A worker takes about five to start. */
const START_LIMIT = 5000;
/** Compressed bytes. Blocks that are compressed in advance are kept in memory. */
const MAX_EARLY_BYTES = 24 * 1024 * 1024;
/** A `known` digest that no block has. */
const UNKNOWN = "";

/**
 * The compression threads of a run, shared by all its layers.
 *
 * They start with the first large stream, and do not keep the process alive.
 */
export class CompressionPool implements AsyncDisposable {
  readonly #count: number;
  readonly #module: URL;
  /** Unused blocks. */
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
  #starting: Promise<readonly CompressionWorker[]> | undefined;

  constructor(options: CompressionPoolOptions) {
    this.#count = options.workers;
    this.#module = options.module ?? workerModule();
  }

  /**
   * Compresses a stream. Its chunks may have any length and are copied.
   *
   * If no worker starts, the calling thread compresses: slower, with the same bytes.
   */
  async *compress(source: AsyncIterable<Uint8Array>, options: CompressOptions): AsyncGenerator<Uint8Array, void, void> {
    const { codec, signal } = options;
    const early = (await options.early?.stop()) ?? [];
    let count = 0;
    // The first blocks, held back until the stream is known to be long; undefined from then on.
    let first: CompressionJob[] | undefined = [];
    let workers: readonly CompressionWorker[] = [];
    const running: Promise<Uint8Array>[] = [];
    const start = (job: CompressionJob): void => {
      const at = count++;
      const before = early[at];
      // Frees the memory once this block is done.
      early[at] = undefined;
      const packed = this.#run(before === undefined ? job : { ...job, known: before.digest }, workers).then(
        (done) => done.packed ?? before?.packed ?? new Uint8Array(),
      );
      running.push(inBackground(packed));
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

  /** Starts to compress a stream that may still change. Failures are ignored: compress() does the work then. */
  begin(source: AsyncIterable<Uint8Array>, options: Omit<CompressOptions, "early">): EarlyCompression {
    const blocks: (EarlyBlock | undefined)[] = [];
    const stopped = new AbortController();
    const signal = AbortSignal.any([options.signal, stopped.signal]);
    const work = this.#compressEarly(source, { ...options, signal, blocks }).catch(() => {});
    return {
      stop: async () => {
        stopped.abort();
        await work;
        return blocks;
      },
    };
  }

  /** Ends the workers when their jobs are done. */
  async [Symbol.asyncDispose](): Promise<void> {
    const workers = (await this.#starting) ?? [];
    this.#starting = Promise.resolve([]);
    await Promise.all(workers.map((worker) => worker.stop()));
    this.#spare.length = 0;
  }

  async #compressEarly(
    source: AsyncIterable<Uint8Array>,
    options: CompressOptions & { readonly blocks: (EarlyBlock | undefined)[] },
  ): Promise<void> {
    const { blocks, codec, signal } = options;
    const workers = await this.#workers();
    const running = new Set<Promise<void>>();
    // One processor is left to the linker, which is writing the stream.
    const atOnce = Math.max(1, workers.length - 1);
    let bytes = 0;
    let count = 0;
    const compress = async (job: CompressionJob, at: number): Promise<void> => {
      const { digest, packed } = await this.#run({ ...job, known: UNKNOWN }, workers);
      if (packed === undefined || digest === undefined) return;
      blocks[at] = { digest, packed };
      bytes += packed.byteLength;
    };
    try {
      for await (const job of this.#cut(source, codec)) {
        if (signal.aborted || bytes > MAX_EARLY_BYTES || workers.length === 0) break;
        const block: Promise<void> = compress(job, count++).finally(() => running.delete(block));
        running.add(inBackground(block));
        while (running.size >= atOnce) await Promise.race(running);
      }
    } finally {
      await Promise.allSettled(running);
    }
  }

  /** Cuts a stream into jobs. An empty stream is one empty block: no bytes at all are neither gzip nor zstd. */
  async *#cut(source: AsyncIterable<Uint8Array>, codec: Codec): AsyncGenerator<CompressionJob, void, void> {
    let block = this.#block();
    let size = 0;
    let isEmpty = true;
    for await (const chunk of source) {
      for (let at = 0; at < chunk.byteLength;) {
        if (size === BLOCK_BYTES) {
          yield { block, size, codec };
          [block, size, isEmpty] = [this.#block(), 0, false];
        }
        const part = chunk.subarray(at, at + BLOCK_BYTES - size);
        block.set(part, size);
        size += part.byteLength;
        at += part.byteLength;
      }
    }
    if (size > 0 || isEmpty) yield { block, size, codec };
  }

  #block(): Uint8Array<ArrayBuffer> {
    return this.#spare.pop() ?? new Uint8Array(BLOCK_BYTES);
  }

  /** Gives a job to the worker with the fewest, or to the calling thread if there is no worker. */
  async #run(job: CompressionJob, workers: readonly CompressionWorker[]): Promise<CompressionDone> {
    let worker = workers[0];
    for (const other of workers) if (worker === undefined || other.waiting < worker.waiting) worker = other;
    let done: CompressionDone;
    if (worker !== undefined) done = await worker.run(job);
    else {
      // Lets signals and uploads run between the blocks.
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

/** Does a job, in a worker or in the calling thread. */
export function runJob({ block, codec, known, size }: CompressionJob): CompressionDone {
  const content = block.subarray(0, size);
  const digest = known === undefined ? undefined : new Bun.CryptoHasher("sha256").update(content).digest("hex");
  const isKnown = digest !== undefined && digest === known;
  return { block, packed: isKnown ? undefined : compressBlock(content, codec), digest };
}

/** Returns a gzip member, whose header has no name and no time, or a zstd frame. */
function compressBlock(block: Uint8Array<ArrayBuffer>, codec: Codec): Uint8Array<ArrayBuffer> {
  switch (codec.kind) {
    case "gzip":
      return Bun.gzipSync(block, { level: codec.level, library: "libdeflate" });
    case "zstd":
      // The copy has an ArrayBuffer of its own, which can be transferred.
      return new Uint8Array(Bun.zstdCompressSync(block, { level: ZSTD_LEVEL }));
  }
}

/** In a compiled executable the worker is an entry point, which keeps its folder (docs/rules.md, Bun 3). */
function workerModule(): URL {
  const here = import.meta.url;
  const isCompiled = here.includes("/$bunfs/") || here.includes("/~BUN/") || here.includes("/%7EBUN/");
  return new URL(isCompiled ? "./lib/compress.worker.ts" : "./compress.worker.ts", here);
}

/** @returns undefined if the worker does not start */
async function startWorker(module: URL): Promise<CompressionWorker | undefined> {
  let worker: CompressionWorker;
  try {
    worker = new CompressionWorker(module);
  } catch {
    return undefined;
  }
  return (await worker.isReady()) ? worker : undefined;
}

/** A worker thread. It keeps the process alive only while it has jobs. */
class CompressionWorker {
  readonly #worker: Worker;
  /** The jobs without an answer, in their order. */
  readonly #jobs: PromiseWithResolvers<CompressionDone>[] = [];
  readonly #ready = Promise.withResolvers<boolean>();
  readonly #closed = Promise.withResolvers<void>();
  #failure: Error | undefined;

  constructor(module: URL) {
    this.#worker = new Worker(module, { ref: false });
    this.#worker.addEventListener("message", (event: MessageEvent<CompressionDone | "ready">) => {
      if (event.data === "ready") this.#ready.resolve(true);
      else this.#answer(event.data);
    });
    this.#worker.addEventListener("error", (event) => {
      // Keeps Bun from printing the error.
      event.preventDefault();
      this.#fail(event.message);
    });
    this.#worker.addEventListener("close", () => this.#fail("it ended"));
  }

  /** Waits for the first message; false if the worker fails or does not send it in time. */
  async isReady(): Promise<boolean> {
    // Unlike the worker, the timer keeps the process alive.
    const timer = setTimeout(() => this.#ready.resolve(false), START_LIMIT);
    const isReady = await this.#ready.promise;
    clearTimeout(timer);
    return isReady;
  }

  /** The number of jobs without an answer. */
  get waiting(): number {
    return this.#jobs.length;
  }

  run(job: CompressionJob): Promise<CompressionDone> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#jobs.length === 0) this.#worker.ref();
    const answer = Promise.withResolvers<CompressionDone>();
    this.#jobs.push(answer);
    this.#worker.postMessage(job, [job.block.buffer]);
    return answer.promise;
  }

  stop(): Promise<void> {
    if (this.#failure === undefined) this.#worker.ref();
    this.#worker.postMessage("stop", []);
    return this.#closed.promise;
  }

  #answer(done: CompressionDone): void {
    const job = this.#jobs.shift();
    if (this.#jobs.length === 0) this.#worker.unref();
    job?.resolve(done);
  }

  #fail(why: string): void {
    this.#failure ??= new Error(`a compression worker failed: ${why}`);
    this.#ready.resolve(false);
    this.#closed.resolve();
    for (const job of this.#jobs.splice(0)) job.reject(this.#failure);
  }
}
