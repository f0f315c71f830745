/**
 * Watches folders, by chokidar, and reports each burst of changes when it is over.
 *
 * Each folder is watched on its own, not recursively; instead of a missing folder its nearest existing parent is watched.
 * Folders beyond the system's limit are polled.
 */
import { type Stats, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { FSWatcher } from "chokidar";
import { codeOf } from "./errors.ts";
import { look, readNames } from "./file.ts";
import { TICK_MS } from "./fingerprint.ts";
import type { PathChange } from "./watch-places.ts";

export interface WatcherOptions {
  /** Reports whether a path is of interest. Called for every event. */
  readonly accepts: (path: string) => boolean;
  /** Gets the changes since the last call, each path once, after a moment without events. */
  readonly onChange: (changes: readonly PathChange[]) => void;
  /** Called once, when the limit of the system is reached and some folders are polled. */
  readonly onLimit: (limit: WatchLimit) => void;
  /** Milliseconds without events that end a burst. @default 50 */
  readonly quietMs?: number;
  /** Milliseconds after which a burst is reported even if it goes on. @default 500 */
  readonly longestMs?: number;
  /** Milliseconds between two polls. @default 1000 */
  readonly pollMs?: number;
}

export interface WatchLimit {
  readonly code: "ENOSPC" | "EMFILE";
  /** The number of polled folders. */
  readonly polled: number;
  /** The number of all watched folders. */
  readonly folders: number;
}

/** The arguments of `sysctl` that raise the limits of inotify, by the code of the failure. */
export const WATCH_SETTINGS: Readonly<Record<WatchLimit["code"], string>> = {
  ENOSPC: "fs.inotify.max_user_watches=524288",
  EMFILE: "fs.inotify.max_user_instances=1024",
};

interface Opened {
  readonly watcher: FSWatcher;
  /** Differs if another folder has taken the place of this one. */
  readonly identity: string;
}

export class Watcher implements AsyncDisposable {
  readonly #options: WatcherOptions;
  readonly #quietMs: number;
  readonly #longestMs: number;
  readonly #opened = new Map<string, Opened>();
  readonly #polled = new Set<string>();
  /** Folders that may have been removed and made again with the same inode: then their watch is dead. */
  readonly #suspects = new Set<string>();
  #wanted: ReadonlySet<string> = new Set();
  /** The events of this burst, by path. "removed": chokidar knew the path. */
  readonly #events = new Map<string, "seen" | "removed" | "names">();
  #quiet: ReturnType<typeof setTimeout> | undefined;
  #longest: ReturnType<typeof setTimeout> | undefined;
  #arming: Promise<unknown> = Promise.resolve();
  #limit: WatchLimit["code"] | undefined;
  #isLimitReported = false;
  #isClosed = false;

  constructor(options: WatcherOptions) {
    this.#options = options;
    this.#quietMs = options.quietMs ?? 50;
    this.#longestMs = options.longestMs ?? 500;
  }

  /**
   * Watches these folders and no others. Resolves when all are watched.
   *
   * @param options.since milliseconds since 1970: later changes in newly watched folders are reported too, before this
   * resolves
   * @param options.acceptsMore other paths than before are accepted: changes in all folders are looked for
   */
  async watch(
    folders: ReadonlySet<string>,
    { acceptsMore, since }: { readonly since: number; readonly acceptsMore: boolean },
  ): Promise<void> {
    this.#wanted = folders;
    const added = await this.#arm();
    const before = this.#events.size;
    for (const folder of acceptsMore ? this.#opened.keys() : added) this.#findNewer(folder, since - TICK_MS);
    // The caller must not take an old state for the current one.
    if (this.#events.size > before) await this.#report();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#quiet);
    clearTimeout(this.#longest);
    await this.#arming;
    await Promise.all(this.#opened.values().map(({ watcher }) => watcher.close()));
    this.#opened.clear();
  }

  /** Opens and closes watches until exactly the wanted folders are watched. @returns the newly watched folders */
  #arm(): Promise<readonly string[]> {
    const armed = this.#arming.then(() => this.#armNow());
    this.#arming = armed.catch(() => {});
    return armed;
  }

  async #armNow(): Promise<readonly string[]> {
    const suspects = new Set(this.#suspects);
    this.#suspects.clear();
    const needed = new Map<string, string>();
    for (const folder of this.#wanted) {
      const found = findFolder(folder);
      needed.set(found.path, identify(found.info));
    }
    for (const [path, { identity, watcher }] of this.#opened) {
      if (needed.get(path) === identity && !suspects.has(path)) continue;
      this.#opened.delete(path);
      this.#polled.delete(path);
      await watcher.close();
    }
    const added = [...needed].filter(([path]) => !this.#opened.has(path));
    if (added.length === 0 || this.#isClosed) return [];
    const chokidar = await import("chokidar");
    await Promise.all(added.map(([path, identity]) => this.#open(path, { identity, chokidar })));
    if (this.#limit !== undefined && !this.#isLimitReported && this.#polled.size > 0) {
      this.#isLimitReported = true;
      this.#options.onLimit({ code: this.#limit, polled: this.#polled.size, folders: this.#opened.size });
    }
    return added.map(([path]) => path);
  }

  async #open(
    path: string,
    options: { readonly identity: string; readonly chokidar: typeof import("chokidar") },
  ): Promise<void> {
    const { chokidar, identity } = options;
    const isPolled = this.#limit !== undefined;
    const watcher = new chokidar.FSWatcher({
      depth: 0,
      ignoreInitial: true,
      // A burst ends after `quietMs` anyway.
      atomic: false,
      // The watch of a folder covers its files. Only symlinks need watches of their own, at their targets. Polling needs all.
      ...(isPolled
        ? { backend: "polling", interval: this.#options.pollMs ?? 1000 }
        : { ignored: (_path, stats) => stats?.isFile() === true }),
    });
    let refused: WatchLimit["code"] | undefined;
    const ready = new Promise<void>((done) => watcher.once("ready", done));
    watcher.on("all", (event, at) => this.#note(at, event === "unlink" || event === "unlinkDir" ? "removed" : "seen"));
    // Raw events come earlier, and also for a folder that has taken the place of another.
    watcher.on("raw", (_event, name, details) => this.#noteRaw(path, name, details));
    watcher.on("error", (error) => {
      const code = codeOf(error);
      if (code === "ENOSPC" || code === "EMFILE") refused = code;
    });
    watcher.add(path);
    await ready;
    if (refused === undefined || isPolled) {
      this.#opened.set(path, { watcher, identity });
      if (isPolled) this.#polled.add(path);
      return;
    }
    this.#limit = refused;
    await watcher.close();
    await this.#open(path, options);
  }

  #noteRaw(folder: string, name: unknown, details: unknown): void {
    // An event of the folder itself has the name of the folder or none; a child may have the same name.
    if (typeof name !== "string" || name === basename(folder)) {
      if (this.#opened.has(folder)) this.#suspects.add(folder);
      this.#note(folder, "seen");
    }
    const watched =
      typeof details === "object" && details !== null && "watchedPath" in details ? details.watchedPath : "";
    // An event of a symlink's target has the name of the target; chokidar reports the symlink.
    if (typeof name === "string" && watched === folder) this.#note(resolve(folder, name), "seen");
  }

  #note(path: string, what: "seen" | "removed" | "names"): void {
    if (this.#isClosed) return;
    const at = resolve(path);
    if (!this.#options.accepts(at)) return;
    if (this.#events.get(at) !== "removed") this.#events.set(at, what);
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => void this.#report(), this.#quietMs);
    this.#longest ??= setTimeout(() => void this.#report(), this.#longestMs);
  }

  async #report(): Promise<void> {
    clearTimeout(this.#quiet);
    clearTimeout(this.#longest);
    this.#longest = undefined;
    const events = [...this.#events];
    this.#events.clear();
    const changes: PathChange[] = [];
    for (const [path, what] of events) {
      const found = look(path);
      if (found !== undefined) {
        const isSame = found.isDirectory() && this.#opened.get(path)?.identity === identify(found);
        if (!isSame) changes.push({ path, is: found.isDirectory() ? "folder" : "file" });
        // Otherwise the events of its entries are reported.
        else if (what === "names" || this.#suspects.has(path)) changes.push({ path, is: "names" });
      } else if (what === "removed" || this.#opened.has(path)) changes.push({ path, is: "gone" });
      // The file may never have existed before.
      else changes.push({ path, is: "gone", isPassing: true });
    }
    if (changes.length === 0) return;
    const folders =
      this.#suspects.size > 0 ||
      changes.some(({ path, is }) => is === "folder" || (is === "gone" && this.#opened.has(path)));
    if (folders) await this.#arm().catch(() => {});
    if (!this.#isClosed) this.#options.onChange(changes);
  }

  /** Notes changes in a folder before it was watched, by change times. */
  #findNewer(folder: string, since: number): void {
    const isNewer = (info: Stats | undefined): boolean => info !== undefined && info.ctimeMs >= since;
    if (isNewer(look(folder))) this.#note(folder, "names");
    for (const name of readNames(folder)) {
      const path = join(folder, name);
      if (this.#options.accepts(path) && isNewer(look(path))) this.#note(path, "seen");
    }
  }
}

/** Returns the folder, or its nearest existing parent. */
function findFolder(path: string): { readonly path: string; readonly info: Stats } {
  for (let at = path; ; at = dirname(at)) {
    const info = look(at);
    if (info?.isDirectory() === true) return { path: at, info };
    if (dirname(at) === at) return { path: at, info: statSync(at) };
  }
}

function identify({ dev, ino }: Stats): string {
  return `${dev}:${ino}`;
}
