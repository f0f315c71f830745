/**
 * Files: what a path leads to, bytes in chunks, output files that appear complete, and a lock between processes.
 *
 * An output file is written beside its place and renamed; devices and pipes are written to. The content of archives is
 * decided in archive.ts.
 */
import { type Dirent, lstatSync, readdirSync, realpathSync, type Stats, statSync } from "node:fs";
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
import { dirname, win32 } from "node:path";
import { setTimeout } from "node:timers/promises";
import { codeOf, KoError, messageOf, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";

export interface ReadChunksOptions {
  readonly signal?: AbortSignal | undefined;
  /** The file's name in an error. @default the path, in quotes */
  readonly what?: string;
}

export interface WriteArchiveFileOptions {
  readonly host: Host;
  readonly signal: AbortSignal;
}

export interface WithLockOptions {
  readonly signal: AbortSignal;
  /** Milliseconds to wait for other processes. @default 60000 */
  readonly patience?: number;
}

/** Bytes of a chunk: 256 KiB. */
export const CHUNK_BYTES: number = 256 * 1024;

const WINDOWS_PATH = /^(?:[A-Za-z]:|\\\\)/;
const POLL_MS = 20;

/** The stat of a path, symlinks followed; undefined if it does not exist or cannot be reached. */
export function look(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** The stat of a path itself, which may be a symlink; undefined if it does not exist or cannot be reached. */
export function lookAtLink(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** A folder and all above it, the nearest first. */
export function ancestors(dir: string): readonly string[] {
  const found = [dir];
  for (let at = dir; dirname(at) !== at; at = dirname(at)) found.push(dirname(at));
  return found;
}

/** The path without symlinks; undefined if it does not exist or cannot be reached. */
export function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** The names in a folder, sorted; none if it cannot be read. */
export function readNames(dir: string): readonly string[] {
  try {
    return readdirSync(dir).sort();
  } catch {
    return [];
  }
}

/** The entries of a folder; none if it cannot be read. */
export function readEntries(dir: string): readonly Dirent[] {
  try {
    return readdirSync(dir, { withFileTypes: true });
  } catch {
    return [];
  }
}

/** Reports whether a path is a folder or lies in it. Both are absolute and normalized; Windows paths ignore case. */
export function isInside(path: string, folder: string): boolean {
  if (WINDOWS_PATH.test(folder)) {
    const way = win32.relative(folder, path);
    return way !== ".." && !way.startsWith("..\\") && !win32.isAbsolute(way);
  }
  return path === folder || path.startsWith(folder.endsWith("/") ? folder : `${folder}/`);
}

/** Reports whether a path lies in a folder and is not the folder itself. The paths are those of {@link isInside}. */
export function isBelow(path: string, folder: string): boolean {
  return isInside(path, folder) && !isInside(folder, path);
}

/**
 * Reads a file from its start. Each chunk has its own memory, so the reader may keep it.
 *
 * @throws {KoError} If the file cannot be opened or read.
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
 * Checks that a file can be written later, and leaves no trace.
 *
 * @param path absolute
 * @param flag the flag that names the file, such as `--image-refs`
 * @throws {UsageError} If the path is a folder, or its parent folder does not exist or is not writable.
 */
export async function checkWritableFile(path: string, flag: string): Promise<void> {
  const fail = (why: string): UsageError => new UsageError(`Cannot write ${flag} "${path}": ${why}`);
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) throw fail("it is a folder");
  // Devices and pipes are written to, not replaced: their folder need not be writable.
  if (found !== undefined && !found.isFile()) return;
  const folder = dirname(await realpath(path).catch(() => path));
  const parent = await stat(folder).catch(() => undefined);
  if (!parent?.isDirectory()) throw fail(`the folder ${folder} does not exist`);
  await access(folder, constants.W_OK).catch(() => {
    throw fail(`the folder ${folder} cannot be written to`);
  });
}

/**
 * Writes a file in one step: an existing file stays as it is until the new one is complete. A symlink stays a symlink.
 *
 * @param path absolute
 * @param flag the flag that names the file, such as `--image-refs`
 * @throws {KoError} If the file cannot be written. No temporary file is left then.
 */
export async function writeOutputFile(path: string, text: string, flag: string): Promise<void> {
  try {
    const target = await realpath(path).catch(() => path);
    const found = await stat(target).catch(() => undefined);
    // Renaming a file over /dev/null or /dev/stdout would replace the device.
    if (found !== undefined && !found.isFile()) return await writeFile(target, text);
    const temporary = `${target}.${crypto.randomUUID()}.tmp`;
    try {
      await writeFile(temporary, text, { mode: 0o644 });
      await rename(temporary, target);
    } finally {
      await rm(temporary, { force: true });
    }
  } catch (cause) {
    throw new KoError(`Cannot write ${flag} "${path}"`, { cause, transient: true });
  }
}

/**
 * Writes an archive to the file, device, pipe or stdout that `--tarball` or `--oci-archive` names.
 *
 * @param path absolute, or `-` for standard output
 * @throws {KoError} If the archive cannot be written. No file is left behind or changed then.
 * @throws Errors of `chunks`.
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
  // A symlink stays a symlink. /dev/stdout that is a pipe has no real path.
  const target = await realpath(path).catch(() => path);
  const found = await stat(target).catch(() => undefined);
  if (found === undefined || found.isFile()) return writeWhole(target, chunks, signal);
  if (found.isDirectory()) throw new KoError(`Cannot write the archive "${path}": it is a folder, a file is wanted`);
  // Renaming a file over /dev/stdout would replace the device.
  const probe = found.isFIFO() ? await waitForReader(target, signal) : undefined;
  try {
    const handle = await writing(target, () => open(target, "w"));
    await writeChunks(target, { handle, chunks, signal });
  } finally {
    await probe?.close();
  }
}

/**
 * Runs `work` while no other process, and no other call in this process, holds the lock.
 *
 * The kernel holds the lock, through SQLite, and releases it when the process ends, however it ends: no lock is stale.
 *
 * @param file the lock file: absolute, in an existing folder. It stays empty and is removed afterwards.
 * @throws {KoError} If another process holds the lock for longer than `patience`, or the file system has no locks.
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
        // Removed while it is still held: processes that wait for this file notice that it is gone, and make a new one.
        await unlink(file).catch(() => {});
        held.release();
      }
    }
    if (waited >= patience) {
      throw new KoError(
        `Cannot lock "${file}": another process has held it for ${Math.round(patience / 1000)} seconds`,
        {
          hint: "Wait for the other ko to end, then try again.",
          transient: true,
        },
      );
    }
    await setTimeout(POLL_MS, undefined, { signal });
  }
}

/** Returns the SHA-256 of a file, in hex. @throws {KoError} If it cannot be opened or read. */
export async function hashFile(path: string, signal: AbortSignal | undefined): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256");
  for await (const chunk of readChunks(path, { signal })) hash.update(chunk);
  return hash.digest("hex");
}

/**
 * Writes a file that others see only when it is complete.
 *
 * @param target is replaced
 * @throws {KoError} If it cannot be written.
 * @throws Errors of `chunks`.
 */
export async function writeWhole(
  target: string,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
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
  /** Closed at the end. */
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

/** Waits for a reader of the named pipe. A blocking open would wait too, but Ctrl-C could not interrupt it. */
async function waitForReader(pipe: string, signal: AbortSignal): Promise<FileHandle> {
  for (;;) {
    try {
      return await open(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (cause) {
      if (codeOf(cause) !== "ENXIO") throw cannotWrite(pipe, cause);
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
  return new KoError(`Cannot write the archive "${target}": ${messageOf(cause)}`, { cause, transient: true });
}

async function tryLock(file: string): Promise<{ release(): void } | undefined> {
  const { Database, SQLiteError } = await import("bun:sqlite");
  let database: InstanceType<typeof Database> | undefined;
  try {
    // If the file has another identity after it is locked than before it was opened, the previous holder has removed it
    // in between: then we hold a lock on a deleted file, which keeps no other process out.
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
    throw new KoError(`Cannot lock "${file}"`, { cause, transient: true });
  }
}

/** Inode and birth time: a file system may reuse the inode number of a removed file at once. */
async function identify(file: string): Promise<string | undefined> {
  try {
    const { ino, birthtimeNs } = await stat(file, { bigint: true });
    return `${ino} ${birthtimeNs}`;
  } catch {
    return undefined;
  }
}
