import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cachedHosts, type RememberedHost } from "../lib/registry-ping.ts";
import { makeCacheBox } from "./helpers/cachebox.ts";

const DAY_MS = 24 * 3600 * 1000;
const OPEN: RememberedHost = { base: "http://localhost:5000/" };
const GUARDED: RememberedHost = {
  base: "https://registry.example/",
  challenge: { scheme: "bearer", parameters: { realm: "https://auth.example/token", service: "registry" } },
};

describe("cachedHosts()", () => {
  test("gives a later run what an earlier one learned, each host its own", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const hosts = cachedHosts(cache, box.host());
    hosts.remember("localhost:5000", OPEN);
    hosts.remember("registry.example", GUARDED);
    await using later = box.open();
    const recalled = cachedHosts(later, box.host());
    const names = ["localhost:5000", "registry.example", "localhost"];
    expect(await Promise.all(names.map((name) => recalled.recall(name)))).toEqual([OPEN, GUARDED, undefined]);
  });

  test("replaces and forgets", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const hosts = cachedHosts(cache, box.host());
    hosts.remember("a", OPEN);
    hosts.remember("a", GUARDED);
    expect(await hosts.recall("a")).toEqual(GUARDED);
    hosts.forget("a");
    hosts.forget("a");
    expect(await hosts.recall("a")).toBeUndefined();
  });

  test("forgets by itself after seven days, however often it was recalled, and believes nothing of the future", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const hosts = cachedHosts(cache, box.host());
    hosts.remember("a", OPEN);
    box.wait(6 * DAY_MS);
    expect(await hosts.recall("a")).toEqual(OPEN);
    box.wait(2 * DAY_MS);
    expect(await hosts.recall("a")).toBeUndefined();
    hosts.remember("a", OPEN);
    box.wait(-DAY_MS);
    expect(await hosts.recall("a")).toBeUndefined();
  });

  test.each<[string, (file: string) => void]>([
    ["damaged", (file) => writeFileSync(file, readFileSync(file, "utf8").replace("localhost", "evil.host"))],
    ["empty", (file) => writeFileSync(file, "")],
    ["removed", (file) => rmSync(file)],
  ])("knows nothing when the record is %s", async (_, harm) => {
    using box = makeCacheBox();
    await using cache = box.open();
    const hosts = cachedHosts(cache, box.host());
    hosts.remember("a", OPEN);
    const folder = join(cache.folder, "records");
    for (const name of readdirSync(folder)) harm(join(folder, name));
    expect(await hosts.recall("a")).toBeUndefined();
  });

  test("takes no record of another shape", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const hosts = cachedHosts(cache, box.host());
    hosts.remember("a", OPEN);
    const [name = ""] = readdirSync(join(cache.folder, "records"));
    const key = name.slice("host-".length, -".json".length);
    const learned = Date.now();
    for (const record of [null, [], {}, OPEN, { learned, what: { base: "ftp://a/" } }, { learned: "1", what: OPEN }]) {
      cache.write("host", key, record);
      expect(await hosts.recall("a")).toBeUndefined();
    }
  });

  test("fails nobody when the cache cannot be written to", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    rmSync(box.place, { recursive: true });
    writeFileSync(box.place, "");
    const hosts = cachedHosts(cache, box.host());
    hosts.remember("a", OPEN);
    hosts.forget("a");
    expect(await hosts.recall("a")).toBeUndefined();
  });
});
