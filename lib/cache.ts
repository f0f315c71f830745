/**
 * The folder that keeps what builds made, between runs: binaries, layers, manifests, and records that say what they were
 * made of.
 *
 * Nothing in it is needed and nothing in it is believed: a record that does not match its own digest is none, content that
 * is not what its record says is none, and whatever is missing is made again. So it may be removed, truncated, damaged or
 * shared by parallel runs at any time. Entries appear under their final name when they are complete. Only the owner can
 * read it.
 *
 * Layout, below `$KOCACHE` or the user's cache folder: `v1/records/KIND-KEY.json`, `v1/content/HEX` (named by the SHA-256
 * of what is in it, or for a binary of its layer's tar), `v1/work/…` (a run's own folder, gone when it ends).
 */
import {
  chmodSync,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { isAbsolute, join } from "node:path";
import { messageOf, UsageError } from "./errors.ts";
import { isObject } from "./gojson.ts";
import type { Host, TempFolder } from "./host.ts";
import type { Log } from "./log.ts";
import { type Digest, hexOf } from "./oci.ts";

/** Content of the cache as a record names it: by what `stat` told when its digest was known. */
export interface Kept {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly inode: number;
}

export interface CacheUsage {
  /** Absolute. */
  readonly folder: string;
  /** Bytes. */
  readonly size: number;
  /** The most that is kept, in bytes. */
  readonly limit: number;
  readonly entries: number;
}

const VERSION = "v1";
/** Seconds since 1970 that all kept content has as its modification time: whoever writes to it changes that. */
const KEPT_TIME = 1_000_000_000;
const DEFAULT_LIMIT = 10 * 1000 ** 3;
/** Milliseconds after which a run's folder belongs to nobody any more. */
const WORK_AGE_MS = 24 * 3600 * 1000;
/** What is removed goes down to this part of the limit, so that not every run has to remove something. */
const LOW_WATER = 0.9;

/** Where the cache is: absolute, or undefined if there is none. `KOCACHE`, else the user's cache folder with `/ko`. */
export function cacheFolder({ env, platform, cwd }: Pick<Host, "env" | "platform" | "cwd">): string | undefined {
  const given = env["KOCACHE"] ?? "";
  if (given === "off") return undefined;
  if (given !== "") return isAbsolute(given) ? given : join(cwd, given);
  const home = env["HOME"] ?? "";
  if (platform === "win32") return env["LOCALAPPDATA"] ? join(env["LOCALAPPDATA"], "ko") : undefined;
  if (platform === "darwin") return home === "" ? undefined : join(home, "Library", "Caches", "ko");
  const xdg = env["XDG_CACHE_HOME"] ?? "";
  if (isAbsolute(xdg)) return join(xdg, "ko");
  return home === "" ? undefined : join(home, ".cache", "ko");
}

export class Cache {
  /** Absolute. */
  readonly folder: string;
  readonly #host: Host;
  readonly #log: Log;
  readonly #limit: number;
  #work: Promise<TempFolder> | undefined;
  #added = false;

  private constructor(folder: string, options: { readonly host: Host; readonly log: Log; readonly limit: number }) {
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
    const limit = readLimit(host.env["KO_CACHE_MAX"]);
    const place = cacheFolder(host);
    if (place === undefined) return undefined;
    const folder = join(place, VERSION);
    try {
      for (const name of ["records", "content", "work"]) mkdirSync(join(folder, name), { recursive: true, mode: 0o700 });
      const found = lstatSync(folder);
      if (!found.isDirectory()) throw new Error("it is no folder");
      if (host.userId !== undefined) {
        if (found.uid !== host.userId) throw new Error("it belongs to another user");
        if ((found.mode & 0o077) !== 0) chmodSync(folder, 0o700);
      }
      return new Cache(folder, { host, log, limit: limit ?? defaultLimit(folder) });
    } catch (error) {
      log.warn(`The cache in "${place}" cannot be used: ${messageOf(error)}. Set KOCACHE to another folder, or to off.`);
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
      const now = this.#host.now();
      utimesSync(path, now, now);
      return JSON.parse(body);
    } catch {
      return undefined;
    }
  }

  /** Keeps a record, in place of the one of this key. A cache that cannot be written to is no failure. */
  write(kind: string, key: string, value: unknown): void {
    const path = this.#recordPath(kind, key);
    const body = JSON.stringify(value);
    this.#trying("write to", () => writeWhole(path, `${checksum(body)}\n${body}`));
    this.#added = true;
  }

  remove(kind: string, key: string): void {
    rmSync(this.#recordPath(kind, key), { force: true });
  }

  /**
   * Takes a file of the run's own folder into the cache, where it has a second name; it must not be written to any more.
   *
   * @param digest names it: of its bytes, or of what is made of them and nothing else
   * @returns undefined if it cannot be kept
   */
  keep(file: string, digest: Digest): Kept | undefined {
    const path = this.path(digest);
    return this.#trying("write to", () => {
      const now = this.#host.now();
      const temporary = `${path}.${crypto.randomUUID()}.tmp`;
      try {
        linkSync(file, temporary);
      } catch {
        // A file system without hard links, or another one.
        copyFileSync(file, temporary);
      }
      try {
        utimesSync(temporary, now, KEPT_TIME);
        renameSync(temporary, path);
        const { ino, size } = statSync(path);
        this.#added = true;
        return { digest, size, inode: ino };
      } finally {
        // Renaming one name of a file over another name of the same file does nothing at all.
        rmSync(temporary, { force: true });
      }
    });
  }

  /** Keeps bytes under their digest. */
  keepBytes(bytes: Uint8Array, digest: Digest): void {
    this.#trying("write to", () => writeWhole(this.path(digest), bytes));
    this.#added = true;
  }

  /** Small content that was kept by {@link keepBytes}; undefined if it is not there or is something else. */
  readBytes(digest: Digest): Uint8Array | undefined {
    try {
      const bytes = readFileSync(this.path(digest));
      return new Bun.CryptoHasher("sha256").update(bytes).digest("hex") === hexOf(digest) ? bytes : undefined;
    } catch {
      return undefined;
    }
  }

  /** Whether content is there, untouched since it was kept; notes that it was used. */
  has({ digest, inode, size }: Kept): boolean {
    const path = this.path(digest);
    try {
      const found = statSync(path, { throwIfNoEntry: false });
      if (found === undefined || !found.isFile()) return false;
      if (found.ino !== inode || found.size !== size || found.mtimeMs !== KEPT_TIME * 1000) return false;
      utimesSync(path, this.#host.now(), KEPT_TIME);
      return true;
    } catch {
      return false;
    }
  }

  /** Takes content away that has turned out to be something else. */
  drop(digest: Digest): void {
    rmSync(this.path(digest), { force: true });
  }

  /**
   * Gives kept content a second name in the run's own folder, so that it stays even if the cache is removed.
   *
   * @returns false if it is not there
   */
  lend({ digest }: Kept, file: string): boolean {
    try {
      linkSync(this.path(digest), file);
      return true;
    } catch (error) {
      if (isObject(error) && error["code"] === "ENOENT") return false;
    }
    try {
      copyFileSync(this.path(digest), file);
      return true;
    } catch {
      return false;
    }
  }

  /** Gives content back its mark after somebody else, who did not write to it, has touched it. */
  restore({ digest }: Pick<Kept, "digest">): void {
    this.#trying("write to", () => utimesSync(this.path(digest), this.#host.now(), KEPT_TIME));
  }

  /** Where content of this digest is kept. */
  path(digest: Digest): string {
    return join(this.folder, "content", hexOf(digest));
  }

  /** The run's own folder, on the same file system; it goes when the cache is closed. */
  async work(): Promise<string> {
    this.#work ??= this.#host.tempFolder("run", join(this.folder, "work"));
    return (await this.#work).path;
  }

  /** Ends the run: its folder goes, and what is too much. */
  async [Symbol.asyncDispose](): Promise<void> {
    await (await this.#work)?.[Symbol.asyncDispose]();
    if (this.#added) this.#trying("clean", () => this.#trim());
  }

  #recordPath(kind: string, key: string): string {
    return join(this.folder, "records", `${kind}-${key}.json`);
  }

  #trying<T>(what: string, work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.#log.debug(`Cannot ${what} the cache "${this.folder}": ${messageOf(error)}`);
      return undefined;
    }
  }

  /** Removes what was not used for longest, until the rest is small enough. */
  #trim(): void {
    const entries = listEntries(this.folder);
    let size = entries.reduce((sum, entry) => sum + entry.size, 0);
    const now = this.#host.now().getTime();
    for (const name of readNames(join(this.folder, "work"))) {
      const path = join(this.folder, "work", name);
      const found = statSync(path, { throwIfNoEntry: false });
      if (found !== undefined && now - found.mtimeMs > WORK_AGE_MS) rmSync(path, { recursive: true, force: true });
    }
    if (size <= this.#limit) return;
    for (const entry of entries.toSorted((a, b) => a.used - b.used)) {
      if (size <= this.#limit * LOW_WATER) break;
      rmSync(entry.path, { force: true });
      size -= entry.size;
    }
  }

  /** How much there is. */
  usage(): CacheUsage {
    const entries = listEntries(this.folder);
    const size = entries.reduce((sum, entry) => sum + entry.size, 0);
    return { folder: this.folder, size, limit: this.#limit, entries: entries.length };
  }

  /**
   * Removes everything, but for the folders of runs that are at work.
   *
   * @throws if something cannot be removed
   */
  clean(): void {
    for (const { path } of listEntries(this.folder)) unlinkSync(path);
    for (const name of readNames(join(this.folder, "work"))) {
      const path = join(this.folder, "work", name);
      const age = this.#host.now().getTime() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
      if (age > WORK_AGE_MS) rmSync(path, { recursive: true, force: true });
    }
  }
}

/** A key of a record: of anything that JSON can hold. */
export function keyOf(parts: unknown): string {
  return checksum(JSON.stringify(parts)).slice(0, 40);
}

/**
 * Reads a size such as `10GB`, `500 MiB` or `1000000`.
 *
 * @throws {UsageError} If it is none.
 */
function readLimit(text: string | undefined): number | undefined {
  if (text === undefined || text === "") return undefined;
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?$/i.exec(text.trim());
  if (match === null) {
    throw new UsageError(`Cannot use KO_CACHE_MAX="${text}": a size is wanted`, { hint: "export KO_CACHE_MAX=10GB" });
  }
  const [, number = "", unit = "", binary = ""] = match;
  return Math.floor(Number(number) * (binary === "" ? 1000 : 1024) ** (" kmgt".indexOf(unit.toLowerCase() || " ")));
}

function defaultLimit(folder: string): number {
  try {
    const { blocks, bsize } = statfsSync(folder);
    return Math.min(DEFAULT_LIMIT, Math.floor((blocks * bsize) / 10));
  } catch {
    return DEFAULT_LIMIT;
  }
}

interface Entry {
  readonly path: string;
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly used: number;
}

function listEntries(folder: string): readonly Entry[] {
  return ["records", "content"].flatMap((kind) =>
    readNames(join(folder, kind)).flatMap((name) => {
      const path = join(folder, kind, name);
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found === undefined || !found.isFile()) return [];
      return [{ path, size: found.size, used: Math.max(found.atimeMs, kind === "records" ? found.mtimeMs : 0) }];
    }),
  );
}

function readNames(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function writeWhole(path: string, data: string | Uint8Array): void {
  const temporary = `${path}.${crypto.randomUUID()}.tmp`;
  try {
    writeFileSync(temporary, data, { mode: 0o600 });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function checksum(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}
