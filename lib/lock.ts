/**
 * One at a time: a lock between processes that work on the same folder.
 *
 * The kernel holds the lock (through SQLite, which knows how on every system) and lets go of it when the process ends,
 * however it ends: there is no stale lock to guess about. The lock file itself is empty and is removed afterwards.
 */
import { stat, unlink } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { KoError } from "./errors.ts";

export interface WithLockOptions {
  readonly signal: AbortSignal;
  /** Milliseconds to wait for others. @default 60000 */
  readonly patience?: number;
}

const POLL_MS = 20;

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
