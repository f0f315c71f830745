/**
 * A cache in a throw-away folder, seen by as many runs as a test wants, with a clock of its own.
 *
 * Run as `bun world-cache.ts use|clean|damage|wait` it is a process that uses the cache of its environment, for tests with
 * several. It prints `ok` if nothing went wrong; `wait` prints its folder and waits to be ended.
 */
import { mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCacheCommand, surveyCache } from "../../lib/cache-clean.ts";
import { Cache } from "../../lib/cache.ts";
import type { Host } from "../../lib/host.ts";
import { type Log, silentLog } from "../../lib/log.ts";
import { type Digest, digestOf } from "../../lib/oci.ts";
import { writeTree } from "./world-folders.ts";
import { hostAt, realHost } from "./world-host.ts";

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

/** How often a task of the program does its work. */
const ROUNDS = 60;

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

/** Mounts a file system of its own on `folder`; undefined, with a notice, where that is not permitted. */
export function mountDisk(folder: string, options: string): Disposable | undefined {
  mkdirSync(folder, { recursive: true });
  if (Bun.spawnSync(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]).exitCode !== 0) {
    console.warn("skipped: the test may not mount a file system");
    return undefined;
  }
  return { [Symbol.dispose]: () => void Bun.spawnSync(["umount", folder]) };
}

function listBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (!entry.isDirectory()) return [entry.name];
    return [`${entry.name}/`, ...listBelow(join(folder, entry.name)).map((path) => `${entry.name}/${path}`)];
  });
}

function openCache(): Cache {
  const cache = Cache.open(realHost, silentLog);
  if (cache === undefined) throw new Error("no cache");
  return cache;
}

/** Stores, looks up, reads and links blobs that the other processes store too. */
async function use(): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    await using cache = openCache();
    for (let i = 0; i < 5; i++) {
      const text = `${i}`.repeat(20_000 + i);
      const digest = digestOf(Buffer.from(text));
      const key = digest.slice(7);
      const record = cache.read("test", key);
      if (record !== undefined && record !== text) throw new Error(`record ${i} is wrong`);
      const kept = { digest, size: text.length };
      const taken = await cache.take(kept);
      if (taken !== undefined && readFileSync(taken, "utf8") !== text) throw new Error(`content ${i} is wrong`);
      const small = cache.readBytes(digest);
      if (small !== undefined && Buffer.from(small).toString() !== text) throw new Error(`bytes ${i} are wrong`);
      if (taken !== undefined) continue;
      const file = join(await cache.work(), crypto.randomUUID());
      writeFileSync(file, text);
      cache.keep(file, digest);
      cache.write("test", key, text);
      if (readFileSync(file, "utf8") !== text) throw new Error(`the run's own file ${i} is wrong`);
    }
  }
}

async function clean(): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    runCacheCommand(["clean"], { host: realHost, log: silentLog });
    await Bun.sleep(2);
  }
}

/** Replaces entries by something else of the same size, as a broken tool would. */
async function damage(): Promise<void> {
  const place = realHost.env["KOCACHE"] ?? "";
  for (let round = 0; round < ROUNDS; round++) {
    const { entries } = surveyCache(place, { now: Date.now() });
    const entry = entries[round % Math.max(1, entries.length)];
    const temporary = join(place, "damaged");
    if (entry !== undefined) {
      writeFileSync(temporary, "!".repeat(entry.size));
      try {
        renameSync(temporary, entry.path);
      } catch {
        // Another process has removed its folder.
      }
    }
    await Bun.sleep(2);
  }
}

async function wait(): Promise<void> {
  await using cache = openCache();
  const folder = await cache.work();
  writeFileSync(join(folder, "file"), "text");
  await realHost.out(`${folder}\n`);
  await new Promise((resolve) => setInterval(resolve, 2 ** 30));
}

if (import.meta.main) {
  const tasks: Readonly<Record<string, () => Promise<void>>> = { use, clean, damage, wait };
  await tasks[process.argv[2] ?? ""]?.();
  await realHost.out("ok\n");
}
