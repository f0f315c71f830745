/**
 * A process that uses the cache of its environment, for tests with several: `bun cacheprogram.ts use|clean|damage|wait`.
 * It prints `ok` if nothing went wrong; `wait` prints its folder and waits to be ended.
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Cache } from "../../lib/cache.ts";
import { runCacheCommand, surveyCache } from "../../lib/cache-clean.ts";
import { createHost } from "../../lib/host.ts";
import { silentLog } from "../../lib/log.ts";
import { digestOf } from "../../lib/oci.ts";

const ROUNDS = 60;

const host = createHost();

function open(): Cache {
  const cache = Cache.open(host, silentLog);
  if (cache === undefined) throw new Error("no cache");
  return cache;
}

/** Stores, looks up, reads and links blobs that the other processes store too. */
async function use(): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    await using cache = open();
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
    runCacheCommand(["clean"], { host, log: silentLog });
    await Bun.sleep(2);
  }
}

/** Replaces entries by something else of the same size, as a broken tool would. */
async function damage(): Promise<void> {
  const place = host.env["KOCACHE"] ?? "";
  for (let round = 0; round < ROUNDS; round++) {
    const { entries } = surveyCache(place, { now: Date.now() });
    const entry = entries[round % Math.max(1, entries.length)];
    const temporary = join(place, "damaged");
    if (entry !== undefined) {
      writeFileSync(temporary, "!".repeat(entry.size));
      try {
        renameSync(temporary, entry.path);
      } catch {
        // Somebody has removed its folder.
      }
    }
    await Bun.sleep(2);
  }
}

async function wait(): Promise<void> {
  await using cache = open();
  const folder = await cache.work();
  writeFileSync(join(folder, "file"), "text");
  await host.out(`${folder}\n`);
  await new Promise((resolve) => setInterval(resolve, 2 ** 30));
}

if (import.meta.main) {
  const tasks: Readonly<Record<string, () => Promise<void>>> = { use, clean, damage, wait };
  await tasks[process.argv[2] ?? ""]?.();
  await host.out("ok\n");
}
