/**
 * The bytes of a file as a stream of pieces: one way to read layers and blobs, whoever keeps them.
 */
import { open } from "node:fs/promises";
import { KoError, messageOf } from "./errors.ts";

/** Bytes of a piece: 256 KiB. */
export const CHUNK_BYTES: number = 256 * 1024;

export interface ReadChunksOptions {
  readonly signal?: AbortSignal | undefined;
  /** What an error calls it. @default the path, in quotes */
  readonly what?: string;
}

/**
 * Reads a file from its start; each piece has memory of its own, which the reader may keep.
 *
 * @throws {KoError} If it cannot be opened or read.
 */
export async function* readChunks(
  path: string,
  { signal, what = `"${path}"` }: ReadChunksOptions = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  const reading = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (cause) {
      throw new KoError(`Cannot read ${what}: ${messageOf(cause)}`, { cause });
    }
  };
  const handle = await reading(() => open(path));
  try {
    for (;;) {
      signal?.throwIfAborted();
      const chunk = new Uint8Array(CHUNK_BYTES);
      const { bytesRead } = await reading(() => handle.read(chunk, 0, chunk.byteLength, null));
      if (bytesRead === 0) return;
      yield chunk.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}
