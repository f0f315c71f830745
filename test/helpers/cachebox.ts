/** A cache in a throw-away folder, seen by as many runs as a test wants, with a clock of its own. */
import { mkdirSync, readdirSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Cache } from "../../lib/cache.ts";
import type { Host } from "../../lib/host.ts";
import type { Log } from "../../lib/log.ts";
import { type Digest, digestOf } from "../../lib/oci.ts";
import { hostAt } from "./hostat.ts";
import { writeTree } from "./tree.ts";

export interface CacheBox extends Disposable {
  /** Absolute path, as in `KOCACHE`. */
  readonly place: string;
  /** Logged warnings and details. */
  readonly told: string[];
  /** A host whose environment is the box's, and `env`. */
  host(env?: Readonly<Record<string, string>>): Host;
  /** Opens the cache, as a run does. @throws {Error} If it cannot be used. */
  open(env?: Readonly<Record<string, string>>): Cache;
  /** The same, where it may be refused. */
  tryOpen(changes?: Partial<Host>): Cache | undefined;
  /** Puts the clock forward. */
  wait(milliseconds: number): void;
  /** Paths below the place, folders with a slash at the end, sorted; links are not followed. */
  list(): readonly string[];
  /** A file of a run with this text, and the digest that names it. */
  file(cache: Cache, text: string): Promise<{ readonly path: string; readonly digest: Digest }>;
}

/** @param parent where to make it. @default the system's folder for temporary files */
export function makeCacheBox(parent?: string): CacheBox {
  const tree = writeTree({});
  const place = join(parent === undefined ? tree.path : realpathSync(parent), "cache");
  const told: string[] = [];
  const log: Log = {
    info: () => {},
    warn: (text) => void told.push(`Warning: ${text}`),
    debug: (text) => void told.push(text),
  };
  let ahead = 0;
  const host = (env: Readonly<Record<string, string>> = {}): Host =>
    hostAt(tree.path, {
      env: { PATH: process.env["PATH"] ?? "", KOCACHE: place, ...env },
      now: () => new Date(Date.now() + ahead),
    });
  const tryOpen: CacheBox["tryOpen"] = (changes = {}) => Cache.open({ ...host(), ...changes }, log);
  return {
    place,
    told,
    host,
    tryOpen,
    open: (env) => {
      const cache = Cache.open(host(env), log);
      if (cache === undefined) throw new Error(`no cache: ${told.join(", ")}`);
      return cache;
    },
    wait: (milliseconds) => void (ahead += milliseconds),
    list: () => listBelow(place).sort(),
    file: async (cache, text) => {
      const folder = await cache.work();
      mkdirSync(folder, { recursive: true });
      const path = join(folder, crypto.randomUUID());
      writeFileSync(path, text);
      return { path, digest: digestOf(Buffer.from(text)) };
    },
    [Symbol.dispose]: () => tree[Symbol.dispose](),
  };
}

function listBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (!entry.isDirectory()) return [entry.name];
    return [`${entry.name}/`, ...listBelow(join(folder, entry.name)).map((path) => `${entry.name}/${path}`)];
  });
}

/** Mounts a file system of its own on `folder`; undefined, with a notice, where that is not permitted. */
export function mountDisk(folder: string, options: string): Disposable | undefined {
  mkdirSync(folder, { recursive: true });
  if (Bun.spawnSync(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]).exitCode !== 0) {
    console.warn("skipped: the test may not mount a file system");
    return undefined;
  }
  return { [Symbol.dispose]: () => void Bun.spawnSync(["umount", folder]) };
}
