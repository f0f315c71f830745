/**
 * Takes apart the tar that `docker save` gives: every regular file becomes a blob under its own digest.
 *
 * Names are looked up, never used as paths; links are not followed: what they lead to is there under its digest.
 */
import { open, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Extract } from "tar-stream";
import { KoError, messageOf, printable } from "./errors.ts";
import { blobPath } from "./layout.ts";
import type { Digest } from "./oci.ts";

export interface UnpackedFile {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

export interface UnpackedFiles {
  /** By the name in the archive. */
  readonly byName: ReadonlyMap<string, UnpackedFile>;
  /** Bytes, by digest. */
  readonly sizes: ReadonlyMap<Digest, number>;
}

export interface UnpackOptions {
  /** Of an OCI layout; `blobs/sha256` exists. */
  readonly folder: string;
  /** For errors. */
  readonly what: string;
  readonly signal: AbortSignal;
}

/** An image has at most 127 layers, with three files each in the oldest form. */
const MAX_ENTRIES = 10_000;
/** 256 GiB: somebody's mistake, or an attack on our disk. */
const MAX_TOTAL_BYTES: number = 256 * 1024 ** 3;

/** @throws {KoError} If it is no tar, ends too early, or is too large; or a file cannot be written. */
export async function unpackBlobs(archive: AsyncIterable<Uint8Array>, options: UnpackOptions): Promise<UnpackedFiles> {
  const { folder, signal, what } = options;
  const fail = (why: string, cause?: unknown): KoError =>
    new KoError(`Cannot read ${what} from the daemon: ${why}`, { cause });
  const { extract } = await import("tar-stream");
  const byName = new Map<string, UnpackedFile>();
  const sizes = new Map<Digest, number>();
  const entries = extract();
  let sourceFailure: unknown;
  const feeding = feed(archive, entries).catch((error: unknown) => {
    sourceFailure = error;
    entries.destroy(error instanceof Error ? error : new Error(messageOf(error)));
  });
  let count = 0;
  let total = 0;
  try {
    for await (const entry of entries) {
      signal.throwIfAborted();
      const { name, type, size } = entry.header;
      total += size;
      if (++count > MAX_ENTRIES) throw fail(`it has more than ${MAX_ENTRIES} files`);
      if (total > MAX_TOTAL_BYTES)
        throw fail(`"${printable(name, 100)}" makes it larger than ${MAX_TOTAL_BYTES} bytes`);
      if (type !== "file") {
        entry.resume();
        continue;
      }
      const file = await writeBlob(entry, { folder, name: `${count}.tmp` });
      sizes.set(file.digest, file.size);
      // The first of a name counts: a second could only be meant to deceive.
      if (!byName.has(name)) byName.set(name, file);
    }
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof KoError) throw error;
    if (sourceFailure instanceof KoError) throw sourceFailure;
    throw fail(messageOf(error), error);
  } finally {
    entries.destroy();
    await feeding;
  }
  return { byName, sizes };
}

/** Ends early, without an error, when nobody wants more. */
async function feed(archive: AsyncIterable<Uint8Array>, entries: Extract): Promise<void> {
  const closed = new Promise<void>((resolve) => void entries.once("close", resolve));
  for await (const chunk of archive) {
    if (entries.destroyed) return;
    if (entries.write(chunk)) continue;
    await Promise.race([new Promise<void>((resolve) => void entries.once("drain", resolve)), closed]);
  }
  if (!entries.destroyed) entries.end(null);
}

async function writeBlob(
  source: AsyncIterable<unknown>,
  { folder, name }: { readonly folder: string; readonly name: string },
): Promise<UnpackedFile> {
  const temporary = join(folder, name);
  const hash = new Bun.CryptoHasher("sha256");
  let size = 0;
  const handle = await open(temporary, "wx");
  try {
    for await (const chunk of source) {
      if (!(chunk instanceof Uint8Array)) throw new TypeError("a tar gives bytes");
      hash.update(chunk);
      size += chunk.byteLength;
      await handle.writeFile(chunk);
    }
  } finally {
    await handle.close();
  }
  const digest: Digest = `sha256:${hash.digest("hex")}`;
  await rename(temporary, blobPath(folder, digest));
  return { digest, size };
}
