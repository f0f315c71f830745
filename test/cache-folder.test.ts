import { describe, expect, test } from "bun:test";
import { statfsSync } from "node:fs";
import {
  classifyName,
  defaultCacheLimit,
  findCacheFolder,
  isGeneration,
  isLeftBehind,
  isRunFolder,
  readCacheLimit,
  runPrefix,
} from "../lib/cache-folder.ts";
import { UsageError } from "../lib/errors.ts";

describe("findCacheFolder()", () => {
  test.each<[string, Readonly<Record<string, string>>, string | undefined]>([
    ["linux", { KOCACHE: "/c", XDG_CACHE_HOME: "/x", HOME: "/h" }, "/c"],
    ["linux", { KOCACHE: "c", HOME: "/h" }, "/work/c"],
    ["linux", { KOCACHE: "off", HOME: "/h" }, undefined],
    ["linux", { KOCACHE: "", XDG_CACHE_HOME: "/x", HOME: "/h" }, "/x/ko"],
    ["linux", { XDG_CACHE_HOME: "relative", HOME: "/h" }, "/h/.cache/ko"],
    ["linux", { HOME: "/h" }, "/h/.cache/ko"],
    ["linux", { HOME: "h" }, undefined],
    ["linux", {}, undefined],
    ["freebsd", { HOME: "/h" }, "/h/.cache/ko"],
    ["darwin", { XDG_CACHE_HOME: "/x", HOME: "/h" }, "/h/Library/Caches/ko"],
    ["darwin", {}, undefined],
    ["win32", { LOCALAPPDATA: "/l", HOME: "/h" }, "/l/ko"],
    ["win32", { HOME: "/h" }, undefined],
  ])("on %s with %j is %p", (platform, env, wanted) => {
    expect(findCacheFolder({ platform, env, cwd: "/work" })).toBe(wanted);
  });
});

describe("readCacheLimit()", () => {
  test.each<[string | undefined, number | undefined]>([
    [undefined, undefined],
    ["", undefined],
    [" ", undefined],
    ["0", 0],
    ["1000000", 1_000_000],
    ["10GB", 10_000_000_000],
    ["10 gb", 10_000_000_000],
    ["10G", 10_000_000_000],
    ["500 MiB", 524_288_000],
    ["1.5 GiB", 1_610_612_736],
    ["1.5k", 1500],
    ["0.5", 0],
    ["12B", 12],
    ["1TiB", 1_099_511_627_776],
  ])("reads %j as %p", (text, wanted) => {
    expect(readCacheLimit(text === undefined ? {} : { KO_CACHE_MAX: text })).toBe(wanted);
  });

  test.each(["much", "10 G B", "-1", "1,5GB", "10i", "10iB", "10%", "GB", "1e9", "0x10", "9".repeat(40), "1.GB", "٣"])(
    "refuses %j",
    (text) => {
      const read = (): unknown => readCacheLimit({ KO_CACHE_MAX: text });
      expect(read).toThrow(UsageError);
      expect(read).toThrow(`Cannot use KO_CACHE_MAX="${text}": a size such as 10GB, 500MiB or 0 is wanted`);
    },
  );
});

test("defaultCacheLimit() is a tenth of the disk that the folder will be on, 10 GB at most", () => {
  const { blocks, bsize } = statfsSync("/");
  const wanted = Math.min(10_000_000_000, Math.floor((blocks * bsize) / 10));
  expect([defaultCacheLimit("/"), defaultCacheLimit("/no/such/folder")]).toEqual([wanted, wanted]);
});

test("names that are ours", () => {
  const [hex, uuid] = ["0123456789abcdef".repeat(4), crypto.randomUUID()];
  const record = `build-${hex.slice(0, 40)}.json`;
  expect([record, hex, `manifest-${hex}.json`, `${record}.${uuid}.tmp`, ".json", "README"].map(inRecords)).toEqual([
    "entry",
    undefined,
    "entry",
    "temporary",
    undefined,
    undefined,
  ]);
  expect([hex, record, `${hex}.${uuid}.tmp`, `${hex}.tmp`, `${hex}~`, "0".repeat(40)].map(inContent)).toEqual([
    "entry",
    undefined,
    "temporary",
    undefined,
    undefined,
    undefined,
  ]);
  expect(["v1", "v0", "v12", "v", "v1x", "V1", "version"].map(isGeneration)).toEqual([
    ...[true, true, true],
    ...[false, false, false, false],
  ]);
});

test("isRunFolder() takes the names of runs only", () => {
  const names = [`${runPrefix()}-a1B2`, "run-x", `run-${"0".repeat(16)}-1-2-x`, "run-", "run", "run-x.tmp", "Run-x"];
  expect(names.map(isRunFolder)).toEqual([true, true, true, false, false, false, false]);
});

describe("isLeftBehind()", () => {
  const DAY_MS = 24 * 3600 * 1000;
  const now = 10 * DAY_MS;

  test.skipIf(process.platform !== "linux")("looks for the process of a name, at any age", () => {
    const prefix = runPrefix();
    const [, scope, pid, start] = /^run-([0-9a-f]{16})-(\d+)-(\d+)$/.exec(prefix) ?? [];
    expect(pid).toBe(String(process.pid));
    const names = [`${prefix}-x`, `run-${scope}-${pid}-${Number(start) - 1}-x`, `run-${scope}-99999999-${start}-x`];
    for (const changed of [0, now]) {
      expect(names.map((name) => isLeftBehind(name, { changed, now }))).toEqual([false, true, true]);
    }
  });

  test.each([
    ["of another machine or container", `run-${"0".repeat(16)}-1-2-x`],
    ["without a process", "run-x"],
  ])("goes by age for a name %s", (_, name) => {
    const ages = [0, DAY_MS, DAY_MS + 1];
    expect(ages.map((age) => isLeftBehind(name, { changed: now - age, now }))).toEqual([false, false, true]);
  });
});

function inRecords(name: string): string | undefined {
  return classifyName("records", name);
}

function inContent(name: string): string | undefined {
  return classifyName("content", name);
}
