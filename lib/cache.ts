/**
 * What builds made, kept between runs: binaries, layers, manifests, and records that say what they were made of.
 *
 * Nothing in it is needed and nothing in it is believed: a record that does not match its own digest is none, content that
 * is not what its record says is none, and whatever is missing is made again. So it may be removed, truncated, damaged or
 * shared by parallel runs at any time. Entries appear under their final name when they are complete. Only the owner can
 * read it. Nothing is forced to the disk: what a power cut leaves is caught like any other damage.
 *
 * Content is named by the SHA-256 of what is in it, or a binary by that of its layer's tar. Where it is: cache-folder.ts.
 * What is removed when it is too much: cache-clean.ts.
 */
import {
  chmodSync,
  copyFileSync,
  linkSync,
  lstatSync,
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
  defaultCacheLimit,
  findCacheFolder,
  GENERATION,
  prepareGeneration,
  readCacheLimit,
  runPrefix,
} from "./cache-folder.ts";
import { KoError, messageOf } from "./errors.ts";
import { readChunks } from "./file.ts";
import type { Host, TempFolder } from "./host.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";
import { type Digest, hexOf } from "./oci.ts";

/** Content of the cache, as a record names it. */
export interface Kept {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** The part of a {@link Cache} that stores records. A test may pass a fake over a `Map`. */
export type Records = Pick<Cache, "read" | "write" | "remove">;

/**
 * Seconds since 1970 that all kept content has as its modification time: whoever writes to it changes that. Archives that
 * carry the folder from one machine to another preserve it, inodes they do not.
 */
const KEPT_TIME = 1_000_000_000;
/** Bytes that must be free for a run to work in the cache; it has room elsewhere, maybe. */
const MIN_FREE = 1000 ** 3;

/** A file in a run's own folder that is there as long as nobody has removed what is in it. */
const MARK = "mark";

/** Something kept is not what it was, and that was found out too late to go on: whoever meets it starts again without it. */
export class CacheDamage extends KoError {
  override readonly name: string = "CacheDamage";
}

/** What a run reads and adds. Except for {@link Cache.open} nothing throws: a cache that fails is an empty one. */
export class Cache implements AsyncDisposable {
  /** Absolute: the folder of this generation. */
  readonly folder: string;
  readonly #host: Host;
  readonly #log: Log;
  #limit: number | undefined;
  #work: Promise<TempFolder> | undefined;
  #isMarked = false;
  #added = false;

  private constructor(
    folder: string,
    options: { readonly host: Host; readonly log: Log; readonly limit: number | undefined },
  ) {
    this.folder = folder;
    this.#host = options.host;
    this.#log = options.log;
    this.#limit = options.limit;
  }

  /**
   * Opens the cache; undefined if it is off, or cannot be had (then a run is slower, and a warning says so).
   *
   * @throws {UsageError} If `KO_CACHE_MAX` is no size.
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

  /** A record, as it was written; undefined if there is none, or it is damaged. Its shape is for the caller to check. */
  read(kind: string, key: string): unknown {
    const path = this.#recordPath(kind, key);
    try {
      const text = readFileSync(path, "utf8");
      const end = text.indexOf("\n");
      const body = text.slice(end + 1);
      if (text.slice(0, end) !== checksum(body)) return undefined;
      const value: unknown = JSON.parse(body);
      this.#touch(path, this.#host.now());
      return value;
    } catch {
      return undefined;
    }
  }

  /** Keeps a record, in place of the one of this key. */
  write(kind: string, key: string, value: unknown): void {
    const body = JSON.stringify(value);
    const text = `${checksum(body)}\n${body}`;
    this.#put(this.#recordPath(kind, key), (file) => writeFileSync(file, text, { mode: 0o600 }));
  }

  remove(kind: string, key: string): void {
    this.#trying("remove from", () => rmSync(this.#recordPath(kind, key), { force: true }));
  }

  /**
   * Takes a file of the run's own folder into the cache, where it has a second name; it must not be written to any more,
   * and its times and its mode change.
   *
   * @param digest names it: of its bytes, or of what is made of them and nothing else
   * @returns undefined if it cannot be kept
   */
  keep(file: string, digest: Digest): Kept | undefined {
    const size = look(file)?.size;
    if (size === undefined || size > this.#maximum) return undefined;
    const kept = { digest, size };
    // Of another run, or for another input: it stays, and with it what others know of it.
    if (this.has(kept)) return kept;
    const isPut = this.#put(this.path(digest), (temporary) => {
      try {
        linkSync(file, temporary);
      } catch (error) {
        if (isMissing(error)) throw error;
        // A file system without hard links, or another one.
        copyFileSync(file, temporary);
      }
      chmodSync(temporary, 0o600);
      utimesSync(temporary, this.#host.now(), KEPT_TIME);
    });
    return isPut ? kept : undefined;
  }

  /** Keeps bytes under their digest. */
  keepBytes(bytes: Uint8Array, digest: Digest): void {
    this.#put(this.path(digest), (temporary) => {
      writeFileSync(temporary, bytes, { mode: 0o600 });
      utimesSync(temporary, this.#host.now(), KEPT_TIME);
    });
  }

  /** Small content that was kept by {@link keepBytes}; undefined if it is not there or is something else. */
  readBytes(digest: Digest): Uint8Array | undefined {
    const path = this.path(digest);
    try {
      if (look(path)?.isFile() !== true) return undefined;
      const bytes = readFileSync(path);
      if (new Bun.CryptoHasher("sha256").update(bytes).digest("hex") !== hexOf(digest)) return undefined;
      this.#touch(path, KEPT_TIME);
      return bytes;
    } catch {
      return undefined;
    }
  }

  /** Whether content is there, untouched since it was kept; notes that it was used. */
  has({ digest, size }: Kept): boolean {
    const path = this.path(digest);
    if (!isUntouched(look(path), size)) return false;
    this.#touch(path, KEPT_TIME);
    return true;
  }

  /** Takes content away that has turned out to be something else. */
  drop(digest: Digest): void {
    this.#trying("remove from", () => rmSync(this.path(digest), { force: true }));
  }

  /**
   * Gives kept content a second name in the run's own folder, so that it stays even if the cache is removed.
   *
   * @param file absolute; nothing is there yet
   * @returns false if it is not there, or was touched since it was kept; then there is no `file`
   */
  lend({ digest, size }: Kept, file: string): boolean {
    const path = this.path(digest);
    try {
      try {
        linkSync(path, file);
        if (isUntouched(look(file), size)) return true;
      } catch (error) {
        if (isMissing(error)) return false;
        if (isUntouched(look(path), size)) {
          copyFileSync(path, file);
          if (look(file)?.size === size) return true;
        }
      }
    } catch (error) {
      this.#debug("copy from", error);
    }
    this.#trying("remove from", () => rmSync(file, { force: true }));
    return false;
  }

  /**
   * Kept content that is named by the digest of its own bytes, in the run's own folder and read through: that file stays
   * what it is, whatever becomes of the cache.
   *
   * @returns its path; undefined if it is not there, or is something else (then it is taken away)
   * @throws If `signal` is aborted.
   */
  async take(kept: Kept, signal?: AbortSignal): Promise<string | undefined> {
    const file = join(await this.work(), `taken-${crypto.randomUUID()}`);
    if (!this.lend(kept, file)) return undefined;
    const hash = new Bun.CryptoHasher("sha256");
    try {
      for await (const chunk of readChunks(file, { signal })) hash.update(chunk);
      if (hash.digest("hex") === hexOf(kept.digest)) return file;
    } catch (error) {
      signal?.throwIfAborted();
      this.#debug("read", error);
    }
    this.drop(kept.digest);
    return undefined;
  }

  /** Gives content back its mark after somebody else, who did not write to it, has touched it. */
  restore({ digest, size }: Kept): void {
    const path = this.path(digest);
    const found = look(path);
    if (found?.isFile() === true && found.size === size) this.#touch(path, KEPT_TIME);
  }

  /** Where content of this digest is kept. */
  path(digest: Digest): string {
    return join(this.folder, "content", hexOf(digest));
  }

  /**
   * The run's own folder, on the cache's file system if there is room; it goes when the cache is closed.
   *
   * @throws {KoError} If there is none to be had anywhere. This alone of all is needed.
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
      // Somebody may have removed it meanwhile.
      mkdirSync(parent, { recursive: true, mode: 0o700 });
      const { bavail, bsize } = statfsSync(parent);
      if (bavail * bsize >= MIN_FREE) return await this.#host.tempFolder(runPrefix(), parent);
    } catch (error) {
      this.#debug("work in", error);
    }
    return this.#host.tempFolder("ko");
  }

  /** Whether the run's own folder has gone under its hands, as when somebody removes the whole cache. */
  async isLost(): Promise<boolean> {
    const work = await this.#work?.catch(() => undefined);
    // Not by the folder itself: whoever makes a folder in it makes it anew.
    return work !== undefined && this.#isMarked && look(join(work.path, MARK)) === undefined;
  }

  /** Ends the run: its folder goes, and what is too much. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await (await this.#work)?.[Symbol.asyncDispose]();
    } catch (error) {
      this.#debug("clean", error);
    }
    const place = dirname(this.folder);
    const now = this.#host.now().getTime();
    sweepRuns(place, { now });
    if (this.#added) trimCache(place, { now, limit: this.#maximum });
  }

  get #maximum(): number {
    return (this.#limit ??= defaultCacheLimit(this.folder));
  }

  #recordPath(kind: string, key: string): string {
    return join(this.folder, "records", `${kind}-${key}.json`);
  }

  /** Makes a file under another name first. `make` is called again if its folder has gone meanwhile. */
  #put(path: string, make: (temporary: string) => void): boolean {
    const temporary = `${path}.${crypto.randomUUID()}.tmp`;
    try {
      try {
        make(temporary);
      } catch (error) {
        if (!isMissing(error)) throw error;
        mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
        make(temporary);
      }
      try {
        renameSync(temporary, path);
      } catch {
        // A folder is in its place, or what cannot be replaced.
        rmSync(path, { recursive: true, force: true });
        renameSync(temporary, path);
      }
      this.#added = true;
      return true;
    } catch (error) {
      this.#debug("write to", error);
      return false;
    } finally {
      // Renaming one name of a file over another name of the same file does nothing at all.
      this.#trying("write to", () => rmSync(temporary, { force: true }));
    }
  }

  /** Notes that a file was used. That it cannot be noted does not make it worse. */
  #touch(path: string, modified: Date | number): void {
    this.#trying("write to", () => utimesSync(path, this.#host.now(), modified));
  }

  #trying(what: string, work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#debug(what, error);
    }
  }

  #debug(what: string, error: unknown): void {
    this.#log.debug(`Cannot ${what} the cache "${this.folder}": ${messageOf(error)}`);
  }
}

/** The cache of a command: opened when it is first asked for, once, whoever asks. */
export class LazyCache implements AsyncDisposable {
  readonly #host: Host;
  readonly #log: Log;
  #opened: { readonly cache: Cache | undefined } | undefined;

  constructor(host: Host, log: Log) {
    this.#host = host;
    this.#log = log;
  }

  /** As {@link Cache.open}. @throws {UsageError} If `KO_CACHE_MAX` is no size. */
  get(): Cache | undefined {
    this.#opened ??= { cache: Cache.open(this.#host, this.#log) };
    return this.#opened.cache;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.cache?.[Symbol.asyncDispose]();
  }
}

/** A key of a record: of anything that JSON can hold. */
export function keyOf(parts: unknown): string {
  return checksum(JSON.stringify(parts)).slice(0, 40);
}

/** Not by inode: another run may have kept the same, and an archive may have carried it here. */
function isUntouched(found: Stats | undefined, size: number): boolean {
  return found !== undefined && found.isFile() && found.size === size && found.mtimeMs === KEPT_TIME * 1000;
}

function look(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function isMissing(error: unknown): boolean {
  return isObject(error) && error["code"] === "ENOENT";
}

function checksum(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}
