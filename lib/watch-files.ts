/**
 * Watches folders, and tells what has changed when it is quiet again (sole user of chokidar).
 *
 * Folders are watched one by one, without those below: exactly those that a build reads from. One that is not there is
 * waited for in the nearest folder above it. Where the system lets us watch no more, folders are polled. What a path
 * means is watch-places.ts's job.
 */
import { type Stats, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { FSWatcher } from "chokidar";
import { codeOf } from "./errors.ts";
import { look, readNames } from "./file.ts";
import { TICK_MS } from "./fingerprint.ts";
import type { PathChange } from "./watch-places.ts";

export interface WatcherOptions {
  /** Whether a change of this path is of interest; asked of every event. */
  readonly accepts: (path: string) => boolean;
  /** Gets what changed since the last call, each path once, when nothing has happened for a moment. */
  readonly onChange: (changes: readonly PathChange[]) => void;
  /** Told once: the system lets us watch no more, so some folders are polled. */
  readonly onLimit: (limit: WatchLimit) => void;
  /** Milliseconds without events that end a burst. @default 50 */
  readonly quietMs?: number;
  /** Milliseconds after which a burst is told of, even if it goes on. @default 500 */
  readonly longestMs?: number;
  /** Milliseconds between two looks where folders are polled. @default 1000 */
  readonly pollMs?: number;
}

export interface WatchLimit {
  readonly code: "ENOSPC" | "EMFILE";
  /** Folders that are polled. */
  readonly polled: number;
  /** Folders that are watched in all. */
  readonly folders: number;
}

interface Opened {
  readonly watcher: FSWatcher;
  /** Tells a folder from another that took its place. */
  readonly identity: string;
}

export class Watcher implements AsyncDisposable {
  readonly #options: WatcherOptions;
  readonly #quietMs: number;
  readonly #longestMs: number;
  readonly #opened = new Map<string, Opened>();
  readonly #polled = new Set<string>();
  /** Folders that may have been removed, and made again with the same inode: their watch is dead then. */
  readonly #suspects = new Set<string>();
  #wanted: ReadonlySet<string> = new Set();
  /** Paths with what chokidar said, if it did: "removed" of what it knew. */
  readonly #events = new Map<string, "seen" | "removed" | "names">();
  #quiet: ReturnType<typeof setTimeout> | undefined;
  #longest: ReturnType<typeof setTimeout> | undefined;
  #arming: Promise<unknown> = Promise.resolve();
  #limit: WatchLimit["code"] | undefined;
  #isLimitTold = false;
  #isClosed = false;

  constructor(options: WatcherOptions) {
    this.#options = options;
    this.#quietMs = options.quietMs ?? 50;
    this.#longestMs = options.longestMs ?? 500;
  }

  /**
   * Watches these folders, and no others any more. Resolves when all are watched.
   *
   * @param since milliseconds since 1970: what changed since then in folders that were not watched before is told of too,
   * before this resolves
   */
  async watch(folders: ReadonlySet<string>, since: number): Promise<void> {
    this.#wanted = folders;
    const added = await this.#arm();
    const before = this.#events.size;
    for (const folder of added) this.#findNewer(folder, since - TICK_MS);
    // Whoever goes on now must not take a state for the last one that is not.
    if (this.#events.size > before) await this.#tell();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#quiet);
    clearTimeout(this.#longest);
    await this.#arming.catch(() => {});
    await Promise.all(this.#opened.values().map(({ watcher }) => watcher.close()));
    this.#opened.clear();
  }

  /** Opens and closes until what is watched is what is wanted. @returns the folders that were opened */
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
    if (this.#limit !== undefined && !this.#isLimitTold && this.#polled.size > 0) {
      this.#isLimitTold = true;
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
      // We wait for quiet ourselves.
      atomic: false,
      // Of files the folder tells: only links need a watch of their own, at their ends. Polling looks at each file.
      ...(isPolled
        ? { backend: "polling", interval: this.#options.pollMs ?? 1000 }
        : { ignored: (_path, stats) => stats?.isFile() === true }),
    });
    let refused: WatchLimit["code"] | undefined;
    const ready = new Promise<void>((done) => watcher.once("ready", done));
    watcher.on("all", (event, at) => this.#note(at, event === "unlink" || event === "unlinkDir" ? "removed" : "seen"));
    // Sooner, and also of a folder that took another's place between two looks.
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
    // An event of the folder itself has its own name, or none; one of its child may have that name too.
    if (typeof name !== "string" || name === basename(folder)) {
      if (this.#opened.has(folder)) this.#suspects.add(folder);
      this.#note(folder, "seen");
    }
    const watched =
      typeof details === "object" && details !== null && "watchedPath" in details ? details.watchedPath : "";
    // That of a link's end has the end's name: chokidar tells of the link.
    if (typeof name === "string" && watched === folder) this.#note(resolve(folder, name), "seen");
  }

  #note(path: string, what: "seen" | "removed" | "names"): void {
    if (this.#isClosed) return;
    const at = resolve(path);
    if (!this.#options.accepts(at)) return;
    if (this.#events.get(at) !== "removed") this.#events.set(at, what);
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => void this.#tell(), this.#quietMs);
    this.#longest ??= setTimeout(() => void this.#tell(), this.#longestMs);
  }

  async #tell(): Promise<void> {
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
        // Otherwise it has told of what is in it.
        else if (what === "names" || this.#suspects.has(path)) changes.push({ path, is: "names" });
      } else if (what === "removed" || this.#opened.has(path)) changes.push({ path, is: "gone" });
      // Of a file nobody knows whether it was there before.
      else changes.push({ path, is: "gone", isPassing: true });
    }
    if (changes.length === 0) return;
    const folders =
      this.#suspects.size > 0 ||
      changes.some(({ path, is }) => is === "folder" || (is === "gone" && this.#opened.has(path)));
    if (folders) await this.#arm().catch(() => {});
    if (!this.#isClosed) this.#options.onChange(changes);
  }

  /** Notes what changed in a folder before it was watched. */
  #findNewer(folder: string, since: number): void {
    const isNewer = (info: Stats | undefined): boolean => info !== undefined && info.ctimeMs >= since;
    if (isNewer(look(folder))) this.#note(folder, "names");
    for (const name of readNames(folder)) {
      const path = join(folder, name);
      if (this.#options.accepts(path) && isNewer(look(path))) this.#note(path, "seen");
    }
  }
}

/** The folder, or the nearest one above it that is there. */
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
