/**
 * Writes an archive to where `--tarball FILE` or `--oci-archive FILE` says: a file, a device, a pipe, or stdout.
 *
 * A file appears when it is complete; one that was there stays as it was until then. What is in the archive is decided
 * in archive.ts.
 */
import { constants, type FileHandle, open, realpath, rename, rm, stat } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";

export interface WriteArchiveFileOptions {
  readonly host: Host;
  readonly signal: AbortSignal;
}

/**
 * @param path absolute, or `-` for standard output
 * @throws {KoError} If it cannot be written; or what `chunks` throws. No file is left behind or changed then.
 */
export async function writeArchiveFile(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  options: WriteArchiveFileOptions,
): Promise<void> {
  const { host, signal } = options;
  if (path === "-") {
    for await (const chunk of chunks) {
      signal.throwIfAborted();
      await host.out(chunk);
    }
    return;
  }
  // A symbolic link stays one. What is no path (/dev/stdout that is a pipe) stays as it is.
  const target = await realpath(path).catch(() => path);
  const found = await stat(target).catch(() => undefined);
  if (found === undefined || found.isFile()) return writeWhole(target, chunks, signal);
  if (found.isDirectory()) throw new KoError(`Cannot write the archive "${path}": it is a folder, a file is wanted`);
  // To rename a file over /dev/stdout would take the device away.
  const probe = found.isFIFO() ? await waitForReader(target, signal) : undefined;
  try {
    const handle = await writing(target, () => open(target, "w"));
    await writeChunks(target, { handle, chunks, signal });
  } finally {
    await probe?.close();
  }
}

async function writeWhole(target: string, chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
  const temporary = `${target}.${crypto.randomUUID()}.tmp`;
  try {
    const handle = await writing(target, () => open(temporary, "wx", 0o644));
    await writeChunks(target, { handle, chunks, signal });
    await writing(target, () => rename(temporary, target));
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

interface WriteChunksOptions {
  /** Is closed at the end. */
  readonly handle: FileHandle;
  readonly chunks: AsyncIterable<Uint8Array>;
  readonly signal: AbortSignal;
}

async function writeChunks(target: string, { handle, chunks, signal }: WriteChunksOptions): Promise<void> {
  try {
    for await (const chunk of chunks) {
      signal.throwIfAborted();
      for (let at = 0; at < chunk.byteLength;) {
        at += (await writing(target, () => handle.write(chunk, at, chunk.byteLength - at))).bytesWritten;
      }
    }
  } finally {
    await writing(target, () => handle.close());
  }
}

const POLL_MS = 20;

/** Waits for somebody to read the named pipe. Opening it would wait too, but in a way that Ctrl-C could not end. */
async function waitForReader(pipe: string, signal: AbortSignal): Promise<FileHandle> {
  for (;;) {
    try {
      return await open(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (cause) {
      if (!(cause instanceof Error && "code" in cause && cause.code === "ENXIO")) throw cannotWrite(pipe, cause);
      await setTimeout(POLL_MS, undefined, { signal });
    }
  }
}

async function writing<T>(target: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw cannotWrite(target, cause);
  }
}

function cannotWrite(target: string, cause: unknown): KoError {
  return new KoError(`Cannot write the archive "${target}": ${messageOf(cause)}`, { cause });
}
