/**
 * The bytes of a file as a stream of pieces: one way to read layers and blobs, whoever keeps them.
 *
 * A text file that a flag names for ko to write: checked before the work, written in one step after it.
 *
 * Archives are streamed: file.ts.
 *
 * Writes an archive to where `--tarball FILE` or `--oci-archive FILE` says: a file, a device, a pipe, or stdout.
 *
 * A file appears when it is complete; one that was there stays as it was until then. What is in the archive is decided
 * in archive.ts.
 *
 * One at a time: a lock between processes that work on the same folder.
 *
 * The kernel holds the lock (through SQLite, which knows how on every system) and lets go of it when the process ends,
 * however it ends: there is no stale lock to guess about. The lock file itself is empty and is removed afterwards.
 */
import {
  access,
  constants,
  type FileHandle,
  open,
  realpath,
  rename,
  rm,
  stat,
  unlink,
  writeFile,
} from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import { KoError, messageOf, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";

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

/**
 * Checks that a file can be written later, without a trace.
 *
 * @param path absolute
 * @param flag who names it: `--image-refs`
 * @throws {UsageError} If it is a folder, or its folder does not exist or cannot be written to.
 */
export async function checkWritableFile(path: string, flag: string): Promise<void> {
  const fail = (why: string): UsageError => new UsageError(`Cannot write ${flag} "${path}": ${why}`);
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) throw fail("it is a folder");
  // A device or a pipe is written to, not replaced.
  if (found !== undefined && !found.isFile()) return;
  const folder = dirname(await realpath(path).catch(() => path));
  const parent = await stat(folder).catch(() => undefined);
  if (!parent?.isDirectory()) throw fail(`the folder ${folder} does not exist`);
  await access(folder, constants.W_OK).catch(() => {
    throw fail(`the folder ${folder} cannot be written to`);
  });
}

/**
 * Writes a file in one step: what was there stays until all of `text` is. A symbolic link stays one; a device or a pipe
 * is written to.
 *
 * @param path absolute
 * @param flag who names it: `--image-refs`
 * @throws {KoError} If it cannot be written; nothing is left behind then.
 */
export async function writeOutputFile(path: string, text: string, flag: string): Promise<void> {
  try {
    const target = await realpath(path).catch(() => path);
    const found = await stat(target).catch(() => undefined);
    // To rename a file over /dev/null or /dev/stdout would take the device away.
    if (found !== undefined && !found.isFile()) return await writeFile(target, text);
    const temporary = `${target}.${crypto.randomUUID()}.tmp`;
    try {
      await writeFile(temporary, text, { mode: 0o644 });
      await rename(temporary, target);
    } finally {
      await rm(temporary, { force: true });
    }
  } catch (cause) {
    throw new KoError(`Cannot write ${flag} "${path}"`, { cause });
  }
}

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

export interface WithLockOptions {
  readonly signal: AbortSignal;
  /** Milliseconds to wait for others. @default 60000 */
  readonly patience?: number;
}

/**
 * Runs `work` while no other process, and no other call in this one, holds the lock `file`.
 *
 * @param file absolute path; its folder must exist
 * @throws {KoError} If the lock cannot be had: others hold it for too long, or the file system has no locks.
 */
export async function withLock<T>(
  file: string,
  work: () => Promise<T>,
  { signal, patience = 60_000 }: WithLockOptions,
): Promise<T> {
  for (let waited = 0; ; waited += POLL_MS) {
    signal.throwIfAborted();
    const held = await tryLock(file);
    if (held !== undefined) {
      try {
        return await work();
      } finally {
        // Removed while it is still held: whoever waits on this file notices that it is gone, and takes a new one.
        await unlink(file).catch(() => {});
        held.release();
      }
    }
    if (waited >= patience) {
      throw new KoError(`Cannot lock "${file}": another process holds it for ${Math.round(patience / 1000)} seconds`, {
        hint: "Wait for the other ko to end, then try again",
      });
    }
    await setTimeout(POLL_MS, undefined, { signal });
  }
}

async function tryLock(file: string): Promise<{ release(): void } | undefined> {
  const { Database, SQLiteError } = await import("bun:sqlite");
  let database: InstanceType<typeof Database> | undefined;
  try {
    // Nothing is ever written to the file. It is looked at before it is opened and after it is locked: the same file
    // both times is the one that was opened. Otherwise the one before us removed it, and what we hold is no lock.
    let before = await identify(file);
    if (before === undefined) {
      new Database(file).close();
      before = await identify(file);
    }
    database = new Database(file);
    database.run("PRAGMA journal_mode = MEMORY");
    database.run("PRAGMA busy_timeout = 0");
    database.run("BEGIN EXCLUSIVE");
    const held = database;
    if (before !== undefined && before === (await identify(file))) return { release: () => held.close() };
    database.close();
    return undefined;
  } catch (cause) {
    database?.close();
    if (cause instanceof SQLiteError && cause.code === "SQLITE_BUSY") return undefined;
    throw new KoError(`Cannot lock "${file}"`, { cause });
  }
}

/** Inode and birth: a number alone may be used again at once. */
async function identify(file: string): Promise<string | undefined> {
  try {
    const { ino, birthtimeNs } = await stat(file, { bigint: true });
    return `${ino} ${birthtimeNs}`;
  } catch {
    return undefined;
  }
}
