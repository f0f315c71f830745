/**
 * Reads the files of a layer one after another, whatever it is compressed with. Nothing but the content of one chunk is in
 * memory.
 */
import type { Gunzip } from "node:zlib";
import { inBackground } from "./async.ts";
import { KoError } from "./errors.ts";
import type { Layer } from "./image.ts";

/** A file of a layer. */
export interface LayerEntry {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** `file`, `directory`, `symlink` … */
  readonly type: string;
}

export interface VisitOptions {
  readonly signal: AbortSignal;
  /** The most bytes of the uncompressed tar. */
  readonly most: number;
  /** Reads all of the content, or nothing of it. */
  readonly visit: (entry: LayerEntry, content: AsyncIterable<Uint8Array>) => Promise<void> | void;
}

/**
 * Visits all files of a layer.
 *
 * @returns the bytes of the uncompressed tar
 * @throws {Error} If the layer cannot be read or is too large, or a visit fails.
 */
export async function visitLayer(layer: Layer, { most, signal, visit }: VisitOptions): Promise<number> {
  const [{ extract }, { pipeline }] = await Promise.all([import("tar-stream"), import("node:stream/promises")]);
  const entries = extract();
  entries.on("entry", ({ name, size, type }, content, next) => {
    let isRead = false;
    const read = async function* (): AsyncGenerator<Uint8Array, void, void> {
      for await (const chunk of content) if (chunk instanceof Uint8Array) yield chunk;
      isRead = true;
    };
    const visited = (async () => {
      await visit({ name, size, type: type ?? "file" }, read());
    })();
    visited.then(
      () => {
        if (isRead) return next();
        content.on("end", next);
        content.resume();
      },
      (error) => entries.destroy(error instanceof Error ? error : new Error(String(error))),
    );
  });
  const done = new Promise<void>((resolve, reject) => {
    entries.on("finish", () => resolve());
    entries.on("error", reject);
  });
  let total = 0;
  const feed = async (unpacked: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const chunk of unpacked) {
      if ((total += chunk.byteLength) > most) throw new KoError(`Cannot list more than ${most} bytes`);
      if (entries.write(chunk)) continue;
      await Promise.race([new Promise<void>((resolve) => void entries.once("drain", resolve)), done]);
    }
    entries.end(null);
    await done;
  };
  void inBackground(done);
  try {
    const { first, rest } = await peek(layer.open(signal));
    const unpacker = await unpackerFor(first);
    if (unpacker === undefined) await feed(rest);
    else await pipeline(rest, unpacker, feed, { signal });
    return total;
  } finally {
    entries.destroy();
  }
}

/** The first chunk that has bytes, and all of them. */
async function peek(
  source: AsyncIterable<Uint8Array>,
): Promise<{ readonly first: Uint8Array; readonly rest: AsyncIterable<Uint8Array> }> {
  const chunks = source[Symbol.asyncIterator]();
  let head = await chunks.next();
  while (head.done !== true && head.value.byteLength === 0) head = await chunks.next();
  const first = head.done === true ? new Uint8Array() : head.value;
  async function* all(): AsyncGenerator<Uint8Array, void, void> {
    yield first;
    yield* { [Symbol.asyncIterator]: () => chunks };
  }
  return { first, rest: all() };
}

/** By the first bytes, as container runtimes choose: media types of layers are often wrong. */
async function unpackerFor(first: Uint8Array): Promise<Gunzip | undefined> {
  const { createGunzip, createZstdDecompress } = await import("node:zlib");
  const [a, b] = first;
  if (a === 0x1f && b === 0x8b) return createGunzip();
  return a === 0x28 && b === 0xb5 ? createZstdDecompress() : undefined;
}
