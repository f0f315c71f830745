import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Cache, type Kept, keyOf } from "../lib/cache.ts";
import { UsageError } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { digestOf } from "../lib/oci.ts";
import { type CacheBox, makeCacheBox, mountDisk } from "./helpers/world-cache.ts";

const HOUR_MS = 3600 * 1000;
const DAY_MS = 24 * HOUR_MS;
const KEY = keyOf(["a key"]);

describe("Cache.open()", () => {
  test("makes folders that only their owner can read", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    cache.write("test", KEY, 1);
    const records = ["v1/records/", `v1/records/test-${KEY}.json`];
    expect(box.list()).toEqual(["v1/", "v1/.gitignore", "v1/content/", ...records, "v1/work/"]);
    // A cache in a work tree must not make it a changed one.
    expect(readFileSync(join(cache.folder, ".gitignore"), "utf8")).toBe("*\n");
    const modes = [box.place, cache.folder].map((path) => statSync(path).mode & 0o777);
    expect(modes).toEqual([0o700, 0o700]);
    expect(box.told).toEqual([]);
  });

  test("closes a folder that others can read", async () => {
    using box = makeCacheBox();
    mkdirSync(join(box.place, "v1"), { recursive: true });
    chmodSync(box.place, 0o755);
    chmodSync(join(box.place, "v1"), 0o755);
    await using cache = box.open();
    expect(statSync(cache.folder).mode & 0o777).toBe(0o700);
    // The folder around it may hold other files: its mode is not ours to change.
    expect(statSync(box.place).mode & 0o777).toBe(0o755);
  });

  test("gives none, and touches nothing, if it is off", () => {
    using box = makeCacheBox();
    expect(Cache.open(box.host({ KOCACHE: "off" }), silentLog)).toBeUndefined();
    expect(existsSync(box.place)).toBe(false);
  });

  test("to be read only, changes nothing, and is none where there is no cache to trust", async () => {
    using box = makeCacheBox();
    const host = box.host({});
    expect(Cache.openToRead(host, silentLog)).toBeUndefined();
    expect(Cache.openToRead(box.host({ KOCACHE: "off" }), silentLog)).toBeUndefined();
    expect(existsSync(box.place)).toBe(false);
    const bytes = new TextEncoder().encode("blob");
    const kept = { digest: digestOf(bytes), size: bytes.byteLength };
    {
      await using cache = box.open();
      cache.write("test", KEY, 1);
      cache.keepBytes(bytes, kept.digest);
    }
    const path = join(box.place, "v1/records", `test-${KEY}.json`);
    const old = new Date("2020-01-01T00:00:00Z");
    utimesSync(path, old, old);
    const before = box.list();
    {
      await using cache = Cache.openToRead(host, silentLog);
      expect([cache?.read("test", KEY), cache?.has(kept)]).toEqual([1, true]);
      cache?.write("test", keyOf(["another"]), 2);
      cache?.remove("test", KEY);
      cache?.drop(kept.digest);
      cache?.keepBytes(new Uint8Array(1), digestOf(new Uint8Array(1)));
      expect(cache?.read("test", KEY)).toBe(1);
    }
    expect(box.list()).toEqual(before);
    expect(statSync(path).mtimeMs).toBe(old.getTime());
    chmodSync(join(box.place, "v1/records"), 0o777);
    if (host.userId !== undefined) expect(Cache.openToRead(host, silentLog)).toBeUndefined();
  });

  test.each<[string, (box: CacheBox) => Cache | undefined, string]>([
    [
      "a file",
      (box) => {
        writeFileSync(box.place, "");
        return box.tryOpen();
      },
      "ENOTDIR",
    ],
    [
      "a folder below a file",
      (box) => {
        writeFileSync(box.place, "");
        return box.tryOpen({ env: { KOCACHE: join(box.place, "below") } });
      },
      "ENOTDIR",
    ],
    [
      "a link in place of ours",
      (box) => {
        mkdirSync(box.place);
        symlinkSync("/", join(box.place, "v1"));
        return box.tryOpen();
      },
      "is a symlink",
    ],
    ["another user's folder", (box) => box.tryOpen({ userId: 4711 }), "belongs to another user"],
    ...["records", "content", "work"].map((name): [string, (box: CacheBox) => Cache | undefined, string] => [
      `a link in place of ${name}`,
      (box) => {
        mkdirSync(join(box.place, "v1"), { recursive: true });
        symlinkSync("/", join(box.place, "v1", name));
        return box.tryOpen();
      },
      "is a symlink",
    ]),
  ])("gives none, and says why, of %s", (_, open, why) => {
    using box = makeCacheBox();
    expect(open(box)).toBeUndefined();
    const warning = new RegExp(`^Warning: The cache in ".*" cannot be used: .*${why}.*KOCACHE`);
    expect(box.told).toEqual([expect.stringMatching(warning)]);
    expect(existsSync("/records")).toBe(false);
  });

  const asRoot = test.skipIf(process.getuid?.() !== 0);
  asRoot.each(["", "v1", "v1/records", "v1/content", "v1/work"])("gives none if another user owns /%s", (path) => {
    using box = makeCacheBox();
    expect(box.tryOpen()).toBeDefined();
    chownSync(join(box.place, path), 12345, 0);
    expect(box.tryOpen()).toBeUndefined();
    expect(box.told).toEqual([expect.stringContaining(`"${join(box.place, path)}" belongs to another user`)]);
  });

  asRoot("takes a place of root's, and a symlink of the user's or root's own to it, but no other's", () => {
    using box = makeCacheBox();
    mkdirSync(`${box.place}/v1`, { recursive: true });
    chownSync(`${box.place}/v1`, 12345, 0);
    for (const name of ["records", "content", "work"]) {
      mkdirSync(join(box.place, "v1", name));
      chownSync(join(box.place, "v1", name), 12345, 0);
    }
    expect(box.tryOpen({ userId: 12345 })).toBeDefined();
    const alias = `${box.place}-alias`;
    symlinkSync(box.place, alias);
    const env = { ...box.host().env, KOCACHE: alias };
    expect(box.tryOpen({ userId: 12345, env })).toBeDefined();
    lchownSync(alias, 54321, 0);
    expect(box.tryOpen({ userId: 12345, env })).toBeUndefined();
    expect(box.told).toEqual([expect.stringContaining(`"${alias}" belongs to another user`)]);
  });

  test.each([
    ["", 0o777],
    ["", 0o775],
    ["v1", 0o770],
    ["v1/records", 0o702],
    ["v1/content", 0o1777],
    ["v1/work", 0o720],
  ])("gives none if others may write to /%s, and says what to type", (path, mode) => {
    using box = makeCacheBox();
    expect(box.tryOpen()).toBeDefined();
    const folder = join(box.place, path);
    chmodSync(folder, mode);
    expect(box.tryOpen()).toBeUndefined();
    expect(box.told).toEqual([
      `Warning: The cache in "${box.place}" cannot be used: other users may write to it. ` +
        `If they have not done so, type: chmod go-w '${folder}' (or remove it: ko cache clean). ` +
        "Set KOCACHE to another folder, or to off.",
    ]);
    expect(Bun.spawnSync(["sh", "-c", /chmod go-w '[^']*'/.exec(box.told[0] ?? "")?.[0] ?? "false"]).exitCode).toBe(0);
    expect(box.tryOpen()).toBeDefined();
  });

  test("is used in a place that is sticky, as /tmp is, and where nothing checks users", () => {
    using box = makeCacheBox();
    mkdirSync(box.place);
    chmodSync(box.place, 0o1777);
    expect(box.tryOpen()).toBeDefined();
    chmodSync(box.place, 0o777);
    expect(box.tryOpen({ userId: undefined })).toBeDefined();
  });

  test("gives none, and says why, on a disk that cannot be written to", () => {
    using box = makeCacheBox();
    using disk = mountDisk(box.place, "size=1m");
    if (disk === undefined) return;
    expect(box.tryOpen()).toBeDefined();
    Bun.spawnSync(["mount", "-o", "remount,ro", box.place]);
    expect(box.tryOpen()).toBeUndefined();
    expect(box.told).toEqual([expect.stringContaining("EROFS")]);
  });

  test("refuses a malformed limit, also when it is off", () => {
    using box = makeCacheBox();
    expect(() => box.open({ KO_CACHE_MAX: "much", KOCACHE: "off" })).toThrow(UsageError);
  });
});

describe("records", () => {
  test("are read as they were written, by later runs too, and can be replaced and removed", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    cache.write("test", KEY, { a: ["ä\n", 1.5, null] });
    await using other = box.open();
    expect(other.read("test", KEY)).toEqual({ a: ["ä\n", 1.5, null] });
    other.write("test", KEY, "new");
    expect([cache.read("test", KEY), cache.read("test", keyOf([])), cache.read("other", KEY)]).toEqual([
      "new",
      undefined,
      undefined,
    ]);
    for (const each of [cache, other]) each.remove("test", KEY);
    expect(cache.read("test", KEY)).toBeUndefined();
  });

  test.each<[string, (path: string) => void]>([
    ["empty", (path) => truncateSync(path, 0)],
    ["cut", (path) => truncateSync(path, statSync(path).size - 1)],
    ["changed", (path) => writeFileSync(path, readFileSync(path, "utf8").replace("value", "wrong"))],
    ["longer", (path) => writeFileSync(path, " ", { flag: "a" })],
    ["without a digest", (path) => writeFileSync(path, '{"a":1}')],
    ["a folder", (path) => (rmSync(path), mkdirSync(path))],
    ["a link to nothing", (path) => (rmSync(path), symlinkSync("nowhere", path))],
  ])("count as none if they are %s", async (_, harm) => {
    using box = makeCacheBox();
    await using cache = box.open();
    cache.write("test", KEY, "value");
    harm(join(cache.folder, "records", `test-${KEY}.json`));
    expect(cache.read("test", KEY)).toBeUndefined();
  });

  test("are written although the folder was removed meanwhile", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    rmSync(box.place, { recursive: true });
    cache.write("test", KEY, "value");
    const { path, digest } = await box.file(cache, "text");
    expect([cache.read("test", KEY), cache.keep(path, digest)]).toEqual(["value", { digest, size: 4 }]);
    expect(statSync(box.place).mode & 0o777).toBe(0o700);
  });
});

describe("content", () => {
  test("is there for later runs, and lent to them", async () => {
    using box = makeCacheBox();
    const kept = await keepText(box, "a binary");
    await using cache = box.open();
    expect(cache.has(kept)).toBe(true);
    const file = join(await cache.work(), "lent");
    expect(cache.lend(kept, file)).toBe(true);
    rmSync(cache.path(kept.digest));
    expect(readFileSync(file, "utf8")).toBe("a binary");
    expect([cache.has(kept), cache.lend(kept, `${file}2`), await cache.take(kept)]).toEqual([false, false, undefined]);
    expect(readdirSync(await cache.work()).sort()).toEqual(["lent", "mark"]);
  });

  test.each<[string, (path: string) => void]>([
    ["removed", (path) => rmSync(path)],
    ["empty", (path) => truncateSync(path, 0)],
    ["cut, with its time put back", (path) => (truncateSync(path, 3), putBack(path))],
    ["changed", (path) => writeFileSync(path, "b binary", { flag: "r+" })],
    ["written again, the same", (path) => writeFileSync(path, "a binary")],
    ["touched", (path) => utimesSync(path, new Date(), new Date())],
    ["a folder", (path) => (rmSync(path), mkdirSync(path))],
    ["a link to such a file", (path) => (rmSync(path), linkToSame(path))],
  ])("counts as none if it is %s", async (_, harm) => {
    using box = makeCacheBox();
    const kept = await keepText(box, "a binary");
    await using cache = box.open();
    harm(cache.path(kept.digest));
    const file = join(await cache.work(), "lent");
    expect([cache.has(kept), cache.lend(kept, file), await cache.take(kept)]).toEqual([false, false, undefined]);
    expect(lstatSync(file, { throwIfNoEntry: false })).toBeUndefined();
  });

  test("that is damaged so that nothing shows is found out when it is taken, and goes", async () => {
    using box = makeCacheBox();
    const kept = await keepText(box, "a binary");
    await using cache = box.open();
    const taken = await cache.take(kept);
    expect(taken === undefined ? "" : readFileSync(taken, "utf8")).toBe("a binary");
    writeFileSync(cache.path(kept.digest), "b binary", { flag: "r+" });
    putBack(cache.path(kept.digest));
    expect([cache.has(kept), await cache.take(kept), cache.has(kept)]).toEqual([true, undefined, false]);
    const again = await box.file(cache, "a binary");
    expect([cache.keep(again.path, again.digest), cache.has(kept)]).toEqual([kept, true]);
  });

  test("is as good in a copy of the folder that an archive carried", async () => {
    using box = makeCacheBox();
    const kept = await keepText(box, "a binary");
    using other = makeCacheBox();
    mkdirSync(other.place);
    Bun.spawnSync(["sh", "-c", `tar -C '${box.place}' -cf - . | tar -C '${other.place}' -xf -`]);
    await using cache = other.open();
    expect([cache.has(kept), await cache.take(kept)]).toEqual([true, expect.any(String)]);
  });

  test("that two runs store keeps the inode of the first", async () => {
    using box = makeCacheBox();
    await using first = box.open();
    await using second = box.open();
    const [a, b] = [await box.file(first, "same"), await box.file(second, "same")];
    const kept = first.keep(a.path, a.digest);
    const { ino } = statSync(first.path(a.digest));
    expect(second.keep(b.path, b.digest)).toEqual(kept);
    expect(statSync(first.path(a.digest)).ino).toBe(ino);
    expect(kept === undefined ? [] : [first.has(kept), second.has(kept)]).toEqual([true, true]);
  });

  test("has no record under the name of another", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    cache.write("build", "a", { of: "a" });
    cache.write("build", "b", { of: "b" });
    cache.write("setup", "a", { of: "a" });
    const at = (name: string): string => join(cache.folder, "records", `${name}.json`);
    renameSync(at("build-a"), at("x"));
    renameSync(at("build-b"), at("build-a"));
    renameSync(at("x"), at("build-b"));
    expect([cache.read("build", "a"), cache.read("build", "b")]).toEqual([undefined, undefined]);
    renameSync(at("setup-a"), at("build-a"));
    expect(cache.read("build", "a")).toBeUndefined();
  });

  test("replaces damaged content", async () => {
    using box = makeCacheBox();
    const kept = await keepText(box, "a binary");
    await using cache = box.open();
    writeFileSync(cache.path(kept.digest), "damaged!");
    const { path, digest } = await box.file(cache, "a binary");
    expect([cache.keep(path, digest), cache.has(kept)]).toEqual([kept, true]);
    expect(readFileSync(cache.path(digest), "utf8")).toBe("a binary");
  });

  test("gets its time back after it was touched, but not if its size differs", async () => {
    using box = makeCacheBox();
    const kept = await keepText(box, "a binary");
    await using cache = box.open();
    utimesSync(cache.path(kept.digest), new Date(), new Date());
    cache.restore(kept);
    expect(cache.has(kept)).toBe(true);
    writeFileSync(cache.path(kept.digest), "longer than that");
    cache.restore(kept);
    expect(cache.has(kept)).toBe(false);
  });

  test("is copied where a file cannot have two names: from and to another disk", async () => {
    using box = makeCacheBox();
    using elsewhere = makeCacheBox();
    using disk = mountDisk(elsewhere.place, "size=1m");
    if (disk === undefined) return;
    await using cache = box.open();
    const file = join(elsewhere.place, "file");
    writeFileSync(file, "text");
    const digest = digestOf(Buffer.from("text"));
    const kept = cache.keep(file, digest);
    expect(kept).toEqual({ digest, size: 4 });
    if (kept === undefined) return;
    expect([cache.has(kept), cache.lend(kept, join(elsewhere.place, "lent"))]).toEqual([true, true]);
    expect(readFileSync(join(elsewhere.place, "lent"), "utf8")).toBe("text");
    await using full = box.open();
    const large = await keepText(box, "x".repeat(2_000_000));
    expect(full.lend(large, join(elsewhere.place, "large"))).toBe(false);
    expect(readdirSync(elsewhere.place).sort()).toEqual(["file", "lent"]);
  });

  test("of bytes is compared with its digest whenever it is read", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const bytes = Buffer.from("{}");
    const digest = digestOf(bytes);
    expect(cache.readBytes(digest)).toBeUndefined();
    cache.keepBytes(bytes, digest);
    expect(Buffer.from(cache.readBytes(digest) ?? "none").toString()).toBe("{}");
    writeFileSync(cache.path(digest), "[]", { flag: "r+" });
    putBack(cache.path(digest));
    expect(cache.readBytes(digest)).toBeUndefined();
  });

  test("that cannot be written is no failure, and leaves no incomplete file", async () => {
    using box = makeCacheBox();
    using disk = mountDisk(box.place, "size=256k");
    if (disk === undefined) return;
    await using cache = box.open({ KO_CACHE_MAX: "1GB" });
    // There is no room for a work folder: it is elsewhere, and files are copied into the cache.
    expect(await cache.work()).not.toStartWith(box.place);
    const { path, digest } = await box.file(cache, "x".repeat(1_000_000));
    const bytes = Buffer.alloc(1_000_000);
    cache.keepBytes(bytes, digestOf(bytes));
    cache.write("test", KEY, "y".repeat(1_000_000));
    expect([cache.keep(path, digest), cache.readBytes(digestOf(bytes)), cache.read("test", KEY)]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(box.list().filter((name) => !name.endsWith("/"))).toEqual(["v1/.gitignore"]);
    cache.write("test", KEY, "small");
    expect(cache.read("test", KEY)).toBe("small");
  });
});

describe("the bound", () => {
  const MB = 1_000_000;

  test("is kept after every run that added something: the least recently used entry is evicted", async () => {
    using box = makeCacheBox();
    const kept: Kept[] = [];
    for (const name of ["a", "b", "c"]) {
      kept.push(await keepText(box, name.repeat(MB), "4MB"));
      box.wait(HOUR_MS);
    }
    await using cache = box.open();
    expect(kept.map((each) => cache.has(each))).toEqual([true, true, true]);
    box.wait(HOUR_MS);
    // Reading counts, writing does not count more.
    expect(kept.slice(0, 1).map((each) => cache.has(each))).toEqual([true]);
    box.wait(HOUR_MS);
    const last = await keepText(box, "d".repeat(1.5 * MB), "4MB");
    expect([...kept, last].map((each) => cache.has(each))).toEqual([true, false, true, true]);
    await keepText(box, "e".repeat(1.5 * MB), "4MB");
    expect(sizeOf(box)).toBeLessThanOrEqual(4 * MB);
  });

  test("counts records that are used as used", async () => {
    using box = makeCacheBox();
    const value = "v".repeat(MB);
    const keys = ["a", "b", "c"].map((name) => keyOf(name));
    await using cache = box.open({ KO_CACHE_MAX: "2.5MB" });
    const anHourAgo = new Date(Date.now() - HOUR_MS);
    for (const key of keys.slice(0, 2)) {
      cache.write("test", key, value);
      utimesSync(join(cache.folder, "records", `test-${key}.json`), anHourAgo, anHourAgo);
    }
    cache.read("test", keys[0] ?? "");
    cache.write("test", keys[2] ?? "", value);
    await cache[Symbol.asyncDispose]();
    expect(keys.map((key) => cache.read("test", key) === value)).toEqual([true, false, true]);
  });

  test.each(["0", "1kB"])("leaves nothing of a build that is larger: %s", async (limit) => {
    using box = makeCacheBox();
    await keepText(box, "a".repeat(2000), limit);
    await using cache = box.open({ KO_CACHE_MAX: limit });
    cache.write("test", KEY, "b".repeat(2000));
    await cache[Symbol.asyncDispose]();
    expect(box.list()).toEqual(["v1/", "v1/.gitignore", "v1/content/", "v1/records/", "v1/work/"]);
  });

  test("lets nothing that is too large push out the rest", async () => {
    using box = makeCacheBox();
    const small = await keepText(box, "small", "1MB");
    box.wait(HOUR_MS);
    await using cache = box.open({ KO_CACHE_MAX: "1MB" });
    const { path, digest } = await box.file(cache, "x".repeat(2 * MB));
    expect(cache.keep(path, digest)).toBeUndefined();
    cache.write("test", KEY, "x".repeat(2 * MB));
    await cache[Symbol.asyncDispose]();
    expect([cache.has(small), cache.read("test", KEY)]).toEqual([true, undefined]);
  });

  test("counts incomplete files, and removes those that no run writes any more", async () => {
    using box = makeCacheBox();
    await using cache = box.open({ KO_CACHE_MAX: "1MB" });
    const old = await keepText(box, "old", "1MB");
    box.wait(HOUR_MS / 2);
    const temporary = `${cache.path(old.digest)}.${crypto.randomUUID()}.tmp`;
    writeFileSync(temporary, "x".repeat(MB));
    const { mtimeMs } = statSync(temporary);
    utimesSync(temporary, (mtimeMs + HOUR_MS / 2) / 1000, (mtimeMs + HOUR_MS / 2) / 1000);
    cache.write("test", KEY, 1);
    await cache[Symbol.asyncDispose]();
    // Somebody may be at it: all else makes room.
    expect([existsSync(temporary), cache.has(old), cache.read("test", KEY)]).toEqual([true, false, undefined]);
    box.wait(2 * HOUR_MS);
    cache.write("test", KEY, 1);
    await cache[Symbol.asyncDispose]();
    expect([existsSync(temporary), cache.read("test", KEY)]).toEqual([false, 1]);
  });

  test("counts other generations, and touches nothing that is not ours", async () => {
    using box = makeCacheBox();
    const name = "0".repeat(64);
    const ours = [`v0/content/${name}`, `v2/records/test-${KEY}.json`];
    const foreign = [`v0/content/photo.jpg`, `v1/content/README`, `v1/records/notes.json`, `w1/content/${name}`, name];
    for (const path of [...ours, ...foreign]) {
      mkdirSync(join(box.place, path, ".."), { recursive: true });
      writeFileSync(join(box.place, path), "x".repeat(MB));
    }
    box.wait(HOUR_MS);
    await keepText(box, "new", "1MB");
    expect(box.list().filter((path) => !path.endsWith("/"))).toEqual(
      [...foreign, `v1/content/${digestOf(Buffer.from("new")).slice(7)}`].sort(),
    );
  });

  test("goes over no link", async () => {
    using box = makeCacheBox();
    using outside = makeCacheBox();
    const kept = await keepText(outside, "not ours");
    mkdirSync(join(box.place, "v0"), { recursive: true });
    symlinkSync(join(outside.place, "v1/content"), join(box.place, "v0/content"));
    symlinkSync(join(outside.place, "v1"), join(box.place, "v2"));
    await keepText(box, "new", "0");
    await using cache = outside.open();
    expect(cache.has(kept)).toBe(true);
  });
});

describe("folders of runs", () => {
  test("go when the run ends", async () => {
    using box = makeCacheBox();
    const cache = box.open();
    const folder = await cache.work();
    expect(folder).toStartWith(join(cache.folder, "work", "run-"));
    await cache[Symbol.asyncDispose]();
    expect(existsSync(folder)).toBe(false);
  });

  test("go with the next run if the run was killed, and stay while it runs", async () => {
    using box = makeCacheBox();
    const running = await startRun(box);
    const next = async (): Promise<boolean> => {
      await box.open()[Symbol.asyncDispose]();
      return existsSync(running.folder);
    };
    expect(await next()).toBe(true);
    running.child.kill("SIGKILL");
    await running.child.exited;
    expect(await next()).toBe(process.platform !== "linux");
  });

  test("go after a day if their process is unknown", async () => {
    using box = makeCacheBox();
    const names = [`run-${"0".repeat(16)}-1-1-AbC123`, "run-AbC123", "strange"];
    for (const name of names) mkdirSync(join(box.place, "v1/work", name), { recursive: true });
    const left = async (): Promise<readonly string[]> => {
      await box.open()[Symbol.asyncDispose]();
      return readdirSync(join(box.place, "v1/work")).sort();
    };
    expect(await left()).toEqual(names);
    box.wait(DAY_MS + 60_000);
    expect(await left()).toEqual(["strange"]);
  });
});

test("parallel runs, one that removes all, and one that damages it: none fails, none reads wrong content", async () => {
  using box = makeCacheBox();
  mkdirSync(box.place);
  const run = (task: string): Promise<string> => {
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "helpers/world-cache.ts"), task], {
      env: { ...process.env, KOCACHE: box.place, KO_CACHE_MAX: "300kB" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    return Promise.all([child.stdout.text(), child.stderr.text()]).then((texts) => texts.join(""));
  };
  const told = await Promise.all([run("use"), run("use"), run("use"), run("clean"), run("damage")]);
  expect(told).toEqual(["ok\n", "ok\n", "ok\n", "ok\n", "ok\n"]);
  await keepText(box, "last", "300kB");
  expect(sizeOf(box)).toBeLessThanOrEqual(300_000);
  expect(box.list().filter((path) => path.endsWith(".tmp") || path.includes("run-"))).toEqual([]);
});

test("opening, looking up and reading take no time to speak of", async () => {
  using box = makeCacheBox();
  const kept = await keepText(box, "a binary");
  await using cache = box.open();
  cache.write("test", KEY, { text: "x".repeat(10_000) });
  const host = box.host();
  const medians = [
    () => void Cache.open(host, silentLog),
    () => void cache.read("test", KEY),
    () => void cache.has(kept),
  ].map((work) => {
    const times = Array.from({ length: 50 }, () => {
      const started = performance.now();
      work();
      return performance.now() - started;
    });
    return times.toSorted((a, b) => a - b)[25] ?? Infinity;
  });
  expect(medians.filter((milliseconds) => milliseconds > 1)).toEqual([]);
});

/** What one run keeps that does nothing else. */
async function keepText(box: CacheBox, text: string, limit = "1GB"): Promise<Kept> {
  await using cache = box.open({ KO_CACHE_MAX: limit });
  const { path, digest } = await box.file(cache, text);
  return cache.keep(path, digest) ?? { digest, size: text.length };
}

/** Gives a file the time that kept content has. */
function putBack(path: string): void {
  utimesSync(path, new Date(), 1_000_000_000);
}

function linkToSame(path: string): void {
  const target = `${path}-elsewhere`;
  writeFileSync(target, "a binary");
  putBack(target);
  symlinkSync(target, path);
}

function sizeOf(box: CacheBox): number {
  return box
    .list()
    .filter((path) => !path.endsWith("/"))
    .reduce((sum, path) => sum + statSync(join(box.place, path)).size, 0);
}

interface StartedRun {
  readonly child: Bun.Subprocess;
  readonly folder: string;
}

/** A process with a folder of its own in the cache, which waits to be ended. */
async function startRun(box: CacheBox): Promise<StartedRun> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "helpers/world-cache.ts"), "wait"], {
    env: { ...process.env, KOCACHE: box.place },
    stdio: ["ignore", "pipe", "inherit"],
  });
  for await (const chunk of child.stdout) return { child, folder: new TextDecoder().decode(chunk).trim() };
  throw new Error("it ended too early");
}
