/**
 * The cache between runs: blobs (binaries, layers, manifests), and records that say how they were made.
 *
 * It is best-effort: records and blobs are verified on read, a mismatch counts as a miss, and a failed write only costs
 * time, so it may be removed, damaged or shared by parallel runs at any time.
 *
 * A blob is named by the SHA-256 of its content, or a binary by that of its layer's tar. Where the cache is:
 * cache-folder.ts. Eviction: cache-clean.ts.
 */
import {
  chmodSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  type Stats,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { sweepRuns, trimCache } from "./cache-clean.ts";
import {
  checkFolders,
  defaultCacheLimit,
  findCacheFolder,
  GENERATION,
  prepareGeneration,
  readCacheLimit,
  runPrefix,
} from "./cache-folder.ts";
import { codeOf, messageOf } from "./errors.ts";
import { hashFile, lookAtLink } from "./file.ts";
import type { Host, TempFolder } from "./host.ts";
import type { Log } from "./log.ts";
import { type Digest, hexOf, isDigest } from "./oci.ts";
import type { Timing } from "./timing.ts";

/** A blob of the cache, as records name it. */
export interface Kept {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** The part of a {@link Cache} that stores records. A test may pass a fake over a `Map`. */
export type Records = Pick<Cache, "read" | "write" | "remove">;

/**
 * The modification time of all blobs, in seconds since 1970: a write to a blob changes it. Archives that carry the
 * cache to another machine preserve times, but not inodes.
 */
const KEPT_TIME = 1_000_000_000;
/** Bytes that must be free on the cache's disk for the work folder of a run; else it is in the system's. */
const MIN_FREE = 1000 ** 3;

/** A file in the work folder of a run: if it is missing, the folder was removed, and perhaps made anew. */
const MARK = "mark";

/** The cache of one run. Only {@link Cache.open} and {@link Cache.work} throw: other failures count as misses. */
export class Cache implements AsyncDisposable {
  /** Absolute path of this generation's folder. */
  readonly folder: string;
  readonly #host: Host;
  readonly #log: Log;
  readonly #isReadOnly: boolean;
  #limit: number | undefined;
  #work: Promise<TempFolder> | undefined;
  #isMarked = false;
  #added = false;
  #damage: string | undefined;

  private constructor(
    folder: string,
    options: {
      readonly host: Host;
      readonly log: Log;
      readonly limit?: number | undefined;
      readonly isReadOnly?: boolean;
    },
  ) {
    this.folder = folder;
    this.#host = options.host;
    this.#log = options.log;
    this.#limit = options.limit;
    this.#isReadOnly = options.isReadOnly ?? false;
  }

  /**
   * Opens the cache; undefined if it is off, or cannot be used, which a warning says.
   *
   * @throws {UsageError} If `KO_CACHE_MAX` is not a size.
   */
  static open(host: Host, log: Log): Cache | undefined {
    const limit = readCacheLimit(host.env);
    const place = findCacheFolder(host);
    if (place === undefined) return undefined;
    const folder = join(place, GENERATION);
    try {
      prepareGeneration(folder, host);
      return new Cache(folder, { host, log, limit });
    } catch (error) {
      log.warn(
        `The cache in "${place}" cannot be used: ${messageOf(error)}. Set KOCACHE to another folder, or to off.`,
      );
      return undefined;
    }
  }

  /** Opens the cache so that nothing in it changes, no time of a last use either; undefined if there is none to trust. */
  static openToRead(host: Host, log: Log): Cache | undefined {
    const place = findCacheFolder(host);
    const folder = place && join(place, GENERATION);
    if (folder === undefined || lookAtLink(folder)?.isDirectory() !== true) return undefined;
    try {
      checkFolders(folder, host);
      return new Cache(folder, { host, log, isReadOnly: true });
    } catch (error) {
      log.debug(`The cache in "${place}" is not read: ${messageOf(error)}`);
      return undefined;
    }
  }

  /** Reads a record; undefined if it is missing or damaged. Its shape is the caller's to check. */
  read(kind: string, key: string): unknown {
    const path = this.#recordPath(kind, key);
    try {
      const bytes = readFileSync(path);
      const end = bytes.indexOf("\n");
      const body = bytes.subarray(end + 1);
      if (bytes.toString("latin1", 0, end) !== checksum({ kind, key }, body)) return undefined;
      const value: unknown = JSON.parse(body.toString());
      this.#touch(path, this.#host.now());
      return value;
    } catch {
      return undefined;
    }
  }

  /** Writes a record, and replaces the previous one of this kind and key. */
  write(kind: string, key: string, value: unknown): void {
    const body = JSON.stringify(value);
    const text = `${checksum({ kind, key }, body)}\n${body}`;
    this.#put(this.#recordPath(kind, key), (file) => writeFileSync(file, text, { mode: 0o600 }));
  }

  remove(kind: string, key: string): void {
    this.#trying("remove from", () => rmSync(this.#recordPath(kind, key), { force: true }));
  }

  /**
   * Stores a file of the work folder as a blob, by a hard link. The file must not be written to afterwards; its times
   * and mode change.
   *
   * @param digest names the blob: the digest of its bytes, or of content that is a function of them alone
   * @returns undefined if the blob cannot be stored
   */
  keep(file: string, digest: Digest): Kept | undefined {
    const size = lookAtLink(file)?.size;
    if (size === undefined || size > this.#maximum) return undefined;
    const kept = { digest, size };
    // From another run or for another input: other runs may know its inode.
    if (this.has(kept)) return kept;
    const isPut = this.#put(this.path(digest), (temporary) => {
      try {
        linkSync(file, temporary);
      } catch (error) {
        if (codeOf(error) === "ENOENT") throw error;
        // The file system has no hard links, or the file is on another one.
        copyFileSync(file, temporary);
      }
      chmodSync(temporary, 0o600);
      utimesSync(temporary, this.#host.now(), KEPT_TIME);
    });
    return isPut ? kept : undefined;
  }

  /** Stores bytes as a blob under their digest. */
  keepBytes(bytes: Uint8Array, digest: Digest): void {
    this.#put(this.path(digest), (temporary) => {
      writeFileSync(temporary, bytes, { mode: 0o600 });
      utimesSync(temporary, this.#host.now(), KEPT_TIME);
    });
  }

  /** Reads a small blob that {@link keepBytes} stored; undefined if it is missing or damaged. */
  readBytes(digest: Digest): Uint8Array | undefined {
    const path = this.path(digest);
    try {
      if (lookAtLink(path)?.isFile() !== true) return undefined;
      const bytes = readFileSync(path);
      if (new Bun.CryptoHasher("sha256").update(bytes).digest("hex") !== hexOf(digest)) return undefined;
      this.#touch(path, KEPT_TIME);
      return bytes;
    } catch {
      return undefined;
    }
  }

  /** Whether a blob is there and unchanged, by its size and modification time. Updates its last use. */
  has({ digest, size }: Kept): boolean {
    const path = this.path(digest);
    if (!isUntouched(lookAtLink(path), size)) return false;
    this.#touch(path, KEPT_TIME);
    return true;
  }

  /** Evicts a blob whose content does not match its digest. */
  drop(digest: Digest): void {
    this.#trying("remove from", () => rmSync(this.path(digest), { force: true }));
  }

  /**
   * Links a blob into the work folder, where it survives the removal of the cache. The content is not hashed.
   *
   * @param file absolute path of the link, which must not exist
   * @returns false if the blob is missing or was modified; then `file` does not exist either
   */
  lend({ digest, size }: Kept, file: string): boolean {
    const path = this.path(digest);
    try {
      try {
        linkSync(path, file);
        if (isUntouched(lookAtLink(file), size)) return true;
      } catch (error) {
        if (codeOf(error) === "ENOENT") return false;
        if (isUntouched(lookAtLink(path), size)) {
          copyFileSync(path, file);
          if (lookAtLink(file)?.size === size) return true;
        }
      }
    } catch (error) {
      this.#debug("copy from", error);
    }
    this.#trying("remove from", () => rmSync(file, { force: true }));
    return false;
  }

  /**
   * Links a blob that is named by the digest of its own bytes into the work folder, and hashes it there.
   *
   * @returns the path of the link; undefined if the blob is missing, or is damaged and thus evicted
   * @throws the signal's reason, if it is aborted
   */
  async take(kept: Kept, signal?: AbortSignal): Promise<string | undefined> {
    const file = join(await this.work(), `taken-${crypto.randomUUID()}`);
    if (!this.lend(kept, file)) return undefined;
    try {
      if ((await hashFile(file, signal)) === hexOf(kept.digest)) return file;
    } catch (error) {
      signal?.throwIfAborted();
      this.#debug("read", error);
    }
    this.drop(kept.digest);
    return undefined;
  }

  /** Resets the modification time of a blob after a program touched its link without writing to it. */
  restore({ digest, size }: Kept): void {
    const path = this.path(digest);
    const found = lookAtLink(path);
    if (found?.isFile() === true && found.size === size) this.#touch(path, KEPT_TIME);
  }

  /** The path of the blob with this digest. */
  path(digest: Digest): string {
    // A forged record may hold any text, and so a path out of the folder.
    return join(this.folder, "content", isDigest(digest) ? hexOf(digest) : "none");
  }

  /**
   * The work folder of the run, on the cache's file system if there is room. It is removed when the cache is closed.
   *
   * @throws {KoError} If no folder can be made, in the system's folder for temporary files either.
   */
  async work(): Promise<string> {
    this.#work ??= this.#openWork().then((folder) => {
      this.#trying("work in", () => {
        writeFileSync(join(folder.path, MARK), "");
        this.#isMarked = true;
      });
      return folder;
    });
    return (await this.#work).path;
  }

  async #openWork(): Promise<TempFolder> {
    const parent = join(this.folder, "work");
    try {
      // Another process may have removed the cache since it was opened.
      mkdirSync(parent, { recursive: true, mode: 0o700 });
      const { bavail, bsize } = statfsSync(parent);
      if (bavail * bsize >= MIN_FREE) return await this.#host.tempFolder(runPrefix(), parent);
    } catch (error) {
      this.#debug("work in", error);
    }
    return this.#host.tempFolder("ko");
  }

  /** Why this run must not go on with the cache; undefined as long as no damaged content was found in use. */
  get damage(): string | undefined {
    return this.#damage;
  }

  /** Notes that content in use turned out to be damaged. The run fails, and has to start again without the cache. */
  reportDamage(why: string): void {
    this.#damage ??= why;
  }

  /** Whether another process has removed the work folder, with the whole cache perhaps. */
  async isLost(): Promise<boolean> {
    const work = await this.#work?.catch(() => undefined);
    // The folder itself proves nothing: making a folder in it with its parents makes it anew.
    return work !== undefined && this.#isMarked && lookAtLink(join(work.path, MARK)) === undefined;
  }

  /** Removes the work folder, those of killed runs, and the blobs that exceed the limit. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await (await this.#work)?.[Symbol.asyncDispose]();
    } catch (error) {
      this.#debug("clean", error);
    }
    if (this.#isReadOnly) return;
    const place = dirname(this.folder);
    const now = this.#host.now().getTime();
    sweepRuns(place, { now });
    if (this.#added) trimCache(place, { now, limit: this.#maximum });
  }

  get #maximum(): number {
    return (this.#limit ??= defaultCacheLimit(this.folder));
  }

  #recordPath(kind: string, key: string): string {
    return join(this.folder, "records", `${kind}-${/^[0-9a-f]+$/.test(key) ? key : "none"}.json`);
  }

  /** Makes a file under a temporary name and renames it. Calls `make` again if the folder has vanished. */
  #put(path: string, make: (temporary: string) => void): boolean {
    if (this.#isReadOnly) return false;
    const temporary = `${path}.${crypto.randomUUID()}.tmp`;
    try {
      try {
        make(temporary);
      } catch (error) {
        if (codeOf(error) !== "ENOENT") throw error;
        mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
        make(temporary);
      }
      try {
        renameSync(temporary, path);
      } catch {
        // A folder is in its place, for one.
        rmSync(path, { recursive: true, force: true });
        renameSync(temporary, path);
      }
      this.#added = true;
      return true;
    } catch (error) {
      this.#debug("write to", error);
      return false;
    } finally {
      // rename(2) between two links of the same file does nothing, so the temporary one may still exist.
      this.#trying("write to", () => rmSync(temporary, { force: true }));
    }
  }

  /** Sets the time of the last use. */
  #touch(path: string, modified: Date | number): void {
    this.#trying("write to", () => utimesSync(path, this.#host.now(), modified));
  }

  #trying(action: string, work: () => void): void {
    if (this.#isReadOnly) return;
    try {
      work();
    } catch (error) {
      this.#debug(action, error);
    }
  }

  #debug(action: string, error: unknown): void {
    this.#log.debug(`Cannot ${action} the cache "${this.folder}": ${messageOf(error)}`);
  }
}

/** The cache of a command, opened at the first call of `get`. */
export class LazyCache implements AsyncDisposable {
  readonly #host: Host;
  readonly #log: Log;
  #opened: { readonly cache: Cache | undefined } | undefined;

  constructor(host: Host, log: Log) {
    this.#host = host;
    this.#log = log;
  }

  /** See {@link Cache.open}. @throws {UsageError} If `KO_CACHE_MAX` is not a size. */
  get(): Cache | undefined {
    this.#opened ??= { cache: Cache.open(this.#host, this.#log) };
    return this.#opened.cache;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.cache?.[Symbol.asyncDispose]();
  }
}

/** The key of a record, made of any value that JSON can hold. */
export function keyOf(parts: unknown): string {
  return sha256(JSON.stringify(parts)).slice(0, 40);
}

/** Not by inode: another run may have stored the same blob, or an archive may have carried it here. */
function isUntouched(found: Stats | undefined, size: number): boolean {
  return found !== undefined && found.isFile() && found.size === size && found.mtimeMs === KEPT_TIME * 1000;
}

/** The checksum of a record. It covers the name: a record under another's name is damaged. */
function checksum({ key, kind }: { readonly kind: string; readonly key: string }, body: string | Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(`${kind}\n${key}\n`).update(body).digest("hex");
}

function sha256(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}

/** The parts of the program that everything in one attempt of a run shares. */
export interface RunContext {
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
  /** Ends the attempt. */
  readonly signal: AbortSignal;
  /** Undefined reads and stores nothing of other runs. */
  readonly cache: Cache | undefined;
}
