/**
 * Makes layers in one pass: entries to a tar, its digest, gzip or zstd, its digest, a file that appears complete.
 *
 * Memory use does not grow with the layer. kodata.ts decides about the entries, layer-cache.ts about caching.
 *
 * https://github.com/opencontainers/image-spec/blob/main/layer.md
 */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { inBackground } from "./async.ts";
import type { Codec, CompressionPool, EarlyCompression } from "./compress.ts";
import { KoError, messageOf } from "./errors.ts";
import { CHUNK_BYTES, readChunks } from "./file.ts";
import type { BlobStream, Layer } from "./image.ts";
import { type Descriptor, type Digest, verified } from "./oci.ts";
import { packTar, type TarEntry } from "./tar.ts";

/** A layer whose compressed bytes are in a file. */
export interface FileLayer extends Layer {
  /** Absolute. */
  readonly path: string;
}

/** A layer that was just made. */
export interface WrittenLayer extends FileLayer {
  /** Bytes of the uncompressed tar. */
  readonly tarSize: number;
}

export interface WriteLayerOptions {
  /** Absolute path of the file to write, in an existing folder. An existing file is replaced in one step at the end. */
  readonly file: string;
  /** For the descriptor. */
  readonly mediaType: string;
  readonly codec: Codec;
  readonly pool: CompressionPool;
  readonly signal: AbortSignal;
  /** Output of {@link beginLayer} for the same layer. */
  readonly early?: EarlyCompression | undefined;
}

export interface FileLayerOptions {
  /** Absolute. */
  readonly path: string;
  readonly descriptor: Descriptor;
  readonly diffId: Digest;
}

/** A stream that counts and hashes the bytes that pass through. */
export interface Measured extends AsyncIterable<Uint8Array> {
  /** Returns the size and digest of all bytes. Call it once, after the end of the stream. */
  total(): { readonly size: number; readonly digest: Digest };
}

/**
 * Starts to pack, compress and write a layer. Equal entries give equal bytes for any number of threads.
 *
 * If this fails or `signal` is aborted, no new file is left behind and an existing file stays as it was.
 *
 * @returns the layer as a stream, at once. `done` rejects with a {@link KoError} if an entry's file cannot be read or
 * changes meanwhile, or the layer cannot be written.
 */
export function writeLayer(
  entries: Iterable<TarEntry> | AsyncIterable<TarEntry>,
  options: WriteLayerOptions,
): BlobStream<WrittenLayer> {
  const output = new LayerFile(options.file);
  const done = write(entries, options, output).finally(() => output.end());
  return { read: (signal) => output.read(signal), done: inBackground(done) };
}

/** Starts to compress a layer whose files may still change. */
export function beginLayer(
  entries: Iterable<TarEntry>,
  { codec, pool, signal }: Pick<WriteLayerOptions, "codec" | "pool" | "signal">,
): EarlyCompression {
  return pool.begin(packTar(entries, { signal, reuse: true }), { codec, signal });
}

/**
 * Measures a layer that stays a plain tar: for local daemons, and for registries with `--compression=none`. Nothing is
 * written: each `open()` packs the entries again.
 *
 * @param entries returns the same entries each time
 * @param options.mediaType of an uncompressed tar
 * @throws {KoError} If an entry's file cannot be read; from `open()`, if a file has changed since.
 */
export async function measureLayer(
  entries: () => Iterable<TarEntry> | AsyncIterable<TarEntry>,
  options: { readonly mediaType: string; readonly signal: AbortSignal },
): Promise<Layer> {
  const { mediaType, signal } = options;
  const tar = measure(packTar(entries(), { signal, reuse: true }));
  for await (const chunk of tar) void chunk;
  const { digest, size } = tar.total();
  const descriptor = { mediaType, size, digest };
  return {
    descriptor,
    diffId: digest,
    open: (openSignal) =>
      verified(packTar(entries(), { signal: openSignal ?? signal }), descriptor, "a layer that was just measured"),
  };
}

/** Returns the layer of a file that {@link writeLayer} wrote. The file is not read before `open()`. */
export function fileLayer(options: FileLayerOptions): FileLayer {
  const { path, descriptor, diffId } = options;
  return {
    path,
    descriptor,
    diffId,
    open: (signal) =>
      verified(readChunks(path, { signal, what: `the layer "${path}"` }), descriptor, `the layer in "${path}"`),
  };
}

/** Returns the same layer with another media type: Docker's for a Docker manifest, OCI's for an OCI manifest. */
export function retypeLayer(layer: Layer, mediaType: string): Layer {
  const { prove } = layer;
  return {
    descriptor: { ...layer.descriptor, mediaType },
    diffId: layer.diffId,
    ...(layer.source === undefined ? {} : { source: layer.source }),
    ...(prove === undefined ? {} : { prove }),
    open: (signal) => layer.open(signal),
  };
}

/** Passes `source` on unchanged. The result can be read once. */
export function measure(source: AsyncIterable<Uint8Array>): Measured {
  const hash = new Bun.CryptoHasher("sha256");
  let size = 0;
  return {
    async *[Symbol.asyncIterator]() {
      for await (const chunk of source) {
        size += chunk.byteLength;
        hash.update(chunk);
        yield chunk;
      }
    },
    total: () => ({ size, digest: `sha256:${hash.digest("hex")}` }),
  };
}

async function write(
  entries: Iterable<TarEntry> | AsyncIterable<TarEntry>,
  options: WriteLayerOptions,
  output: LayerFile,
): Promise<WrittenLayer> {
  const { early, file, mediaType, codec, pool, signal } = options;
  const tar = measure(packTar(entries, { signal, reuse: true }));
  const packed = measure(pool.compress(tar, { codec, signal, early }));
  await output.write(packed);
  const { digest, size } = packed.total();
  const { digest: diffId, size: tarSize } = tar.total();
  return { ...fileLayer({ path: file, diffId, descriptor: { mediaType, size, digest } }), tarSize };
}

/**
 * A layer's file: written once, and read by any number of readers meanwhile.
 *
 * The file has a temporary name until it is complete. Each reader has a file descriptor of its own, so the rename does
 * not disturb it.
 */
class LayerFile {
  readonly #file: string;
  /** Where the bytes are now. */
  #path: string;
  #size = 0;
  #ended = false;
  #changed = Promise.withResolvers<void>();

  constructor(file: string) {
    this.#file = file;
    this.#path = `${file}.${crypto.randomUUID()}.tmp`;
  }

  /** Without fsync: after a power cut, verification on reading finds a damaged file. */
  async write(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const temporary = this.#path;
    const handle = await this.#attempt(() => open(temporary, "wx"));
    try {
      try {
        for await (const chunk of chunks) {
          await this.#attempt(() => writeAll(handle, chunk));
          this.#size += chunk.byteLength;
          this.#wake();
        }
      } finally {
        await this.#attempt(() => handle.close());
      }
      await this.#attempt(() => rename(temporary, this.#file));
      this.#path = this.#file;
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  }

  /** Ends the readers' wait for more bytes. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async *read(signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
    while (this.#size === 0 && !this.#ended) await this.#changed.promise;
    if (signal.aborted || this.#size === 0) return;
    const handle = await open(this.#path);
    try {
      for (let at = 0; !signal.aborted;) {
        if (at === this.#size) {
          if (this.#ended) return;
          await this.#changed.promise;
          continue;
        }
        const chunk = new Uint8Array(Math.min(CHUNK_BYTES, this.#size - at));
        const { bytesRead } = await handle.read(chunk, 0, chunk.byteLength, at);
        at += bytesRead;
        yield chunk.subarray(0, bytesRead);
      }
    } finally {
      await handle.close();
    }
  }

  async #attempt<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      throw new KoError(`Cannot write the layer "${this.#file}": ${messageOf(cause)}`, { cause, transient: true });
    }
  }

  #wake(): void {
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers();
    resolve();
  }
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.byteLength;) {
    const { bytesWritten } = await handle.write(chunk, at, chunk.byteLength - at);
    at += bytesWritten;
  }
}
