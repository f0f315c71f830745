import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { keyOf } from "../lib/cache.ts";
import { defaultCacheLimit } from "../lib/cache-folder.ts";
import { digestOf } from "../lib/oci.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type CacheBox, makeCacheBox, mountDisk } from "./helpers/world-cache.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { runKoHere } from "./helpers/world-host.ts";
import { cleanEnvironment, ourCommand, type Result, runToEnd } from "./helpers/world-programs.ts";

const KEY = keyOf("a key");

describe("ko cache", () => {
  test("says where it is, its size, its limit and how many entries there are", async () => {
    using box = makeCacheBox();
    await fill(box);
    expect(await ko(box, ["cache"], { KO_CACHE_MAX: "1.5MiB" })).toEqual({
      code: 0,
      stdout: `place: ${box.place}\nsize: 1234567 # 1.2 MB\nlimit: 1572864 # 1.6 MB\nentries: 2\n`,
      stderr: "",
    });
    const { stdout } = await ko(box, ["cache"]);
    expect(stdout.split("\n")[2]).toStartWith(`limit: ${defaultCacheLimit(box.place)} # `);
  });

  test("counts the files of active runs, a file with two names once", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const { path, digest } = await box.file(cache, "x".repeat(1000));
    cache.keep(path, digest);
    await box.file(cache, "y".repeat(50));
    const { stdout } = await ko(box, ["cache"]);
    expect(stdout).toContain("\nsize: 1050 # 1.1 kB\n");
    expect(stdout).toContain("\nentries: 1\n");
  });

  test.each<[string, Readonly<Record<string, string>>, string]>([
    ["is off", { KOCACHE: "off" }, "place: off # KOCACHE=off\n"],
    ["has no place", { KOCACHE: "" }, "place: off # KOCACHE is not set, and there is no folder for caches\n"],
  ])("says so when it %s", async (_, env, stdout) => {
    using box = makeCacheBox();
    expect(await ko(box, ["cache"], env)).toEqual({ code: 0, stdout, stderr: "" });
  });

  test("says that nothing is there yet, and makes nothing", async () => {
    using box = makeCacheBox();
    const { stdout } = await ko(box, ["cache"], { KO_CACHE_MAX: "0" });
    expect(stdout).toBe(`place: ${box.place} # not created yet\nsize: 0 # 0 B\nlimit: 0 # 0 B\nentries: 0\n`);
    await ko(box, ["cache", "clean"]);
    await ko(box, ["version"]);
    expect(existsSync(box.place)).toBe(false);
  });

  test.each<[readonly string[], Readonly<Record<string, string>>, number, string]>([
    [["claen"], {}, 2, 'Cannot run "ko cache claen": "ko cache" has no such command, the nearest is "clean"'],
    [["purge"], {}, 2, 'Cannot run "ko cache purge": "ko cache" has no such command\n'],
    [["clean", "all"], {}, 2, 'Cannot use "all": "ko cache" takes at most 1 argument'],
    [[], { KO_CACHE_MAX: "lots" }, 2, 'Cannot use KO_CACHE_MAX="lots": a size such as'],
    [[], { KOCACHE: import.meta.path }, 1, `Cannot use "${import.meta.path}" as the cache: it is not a folder`],
    [["clean"], { KOCACHE: import.meta.path }, 1, `Cannot use "${import.meta.path}" as the cache: it is not a folder`],
    [[], { KOCACHE: join(import.meta.path, "x") }, 1, "as the cache: ENOTDIR"],
  ])("refuses %j with %j", async (words, env, code, message) => {
    using box = makeCacheBox();
    const result = await ko(box, ["cache", ...words], env);
    expect([result.code, result.stdout]).toEqual([code, ""]);
    expect(result.stderr).toContain(message);
  });
});

describe("ko cache clean", () => {
  test("removes all of it, folders too, and says how much that was", async () => {
    using box = makeCacheBox();
    await fill(box);
    expect(await ko(box, ["cache", "clean"])).toEqual({
      code: 0,
      stdout: "",
      stderr: `Removed 1.2 MB in 2 entries from "${box.place}"\n`,
    });
    expect(box.list()).toEqual([]);
    expect(await ko(box, ["cache", "clean"])).toEqual({
      code: 0,
      stdout: "",
      stderr: `Nothing to remove: "${box.place}" holds no files of ko\n`,
    });
    await fill(box);
    expect((await ko(box, ["cache", "clean", "-q"])).stderr).toBe("");
    expect((await ko(box, ["cache", "clean"], { KOCACHE: "off" })).stderr).toBe(
      "Nothing to remove: the cache is off, KOCACHE=off\n",
    );
  });

  test("removes the files of killed runs and of other versions", async () => {
    using box = makeCacheBox();
    await fill(box);
    const left = [
      `v0/content/${"0".repeat(64)}`,
      `v1/content/${"0".repeat(64)}.${crypto.randomUUID()}.tmp`,
      `v1/records/test-${KEY}.json.${crypto.randomUUID()}.tmp`,
    ];
    for (const path of left) writeBelow(box, path);
    if (process.platform === "linux") writeBelow(box, `v1/work/${await nameOfKilledRun(box)}/bin/app`);
    expect((await ko(box, ["cache", "clean"])).code).toBe(0);
    expect(box.list()).toEqual([]);
  });

  test("leaves all that is not ours, and follows no link", async () => {
    using box = makeCacheBox();
    using outside = makeCacheBox();
    await fill(box);
    await fill(outside);
    const foreign = ["notes.txt", "v1/content/README", "v1/work/notes/a", "v1/mine", "v2/records/a.json", "src/v1/x"];
    for (const path of foreign) writeBelow(box, path);
    const links = { v3: "v1", "v2/content": "v1/content", [`v1/content/${"1".repeat(64)}`]: `v1/records` };
    for (const [path, target] of Object.entries(links)) symlinkSync(join(outside.place, target), join(box.place, path));
    const before = outside.list();
    expect((await ko(box, ["cache", "clean"])).code).toBe(0);
    // A folder that stays keeps its .gitignore.
    const kept = [...foreign, ...Object.keys(links), "v1/.gitignore"].toSorted();
    expect(box.list().filter((path) => !path.endsWith("/"))).toEqual(kept);
    expect(outside.list()).toEqual(before);
  });

  test("leaves the folders of active runs, and says so", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const { path } = await box.file(cache, "text");
    const { code, stderr } = await ko(box, ["cache", "clean"]);
    expect([code, readFileSync(path, "utf8")]).toEqual([0, "text"]);
    expect(stderr).toContain("Folders of active runs stay until the runs end: 1\n");
  });

  test("names the files that cannot be removed, removes the rest, and fails", async () => {
    using box = makeCacheBox();
    await fill(box);
    using disk = mountDisk(join(box.place, "v0/content"), "size=1m");
    if (disk === undefined) return;
    const names = ["0", "1", "2", "3", "4", "5", "6"].map((digit) => digit.repeat(64));
    for (const name of names) writeBelow(box, `v0/content/${name}`);
    Bun.spawnSync(["mount", "-o", "remount,ro", join(box.place, "v0/content")]);
    const { code, stderr } = await ko(box, ["cache", "clean"]);
    expect(code).toBe(1);
    expect(stderr).toContain("Removed 1.2 MB in 2 entries");
    expect(stderr.match(/Error: Cannot remove ".*v0\/content\/\d{64}": EROFS/g)).toHaveLength(5);
    expect(stderr).toContain("Error: Cannot remove 2 more files\n");
    expect(box.list().filter((path) => path.startsWith("v1"))).toEqual([]);
  });

  test("does no harm to builds meanwhile", async () => {
    using box = makeCacheBox();
    using tree = writeTree({
      "go.mod": goMod("example.com/m"),
      "cmd/a/main.go": mainGo("a"),
      "cmd/b/main.go": mainGo("b"),
      "cmd/b/kodata/file": "text\n",
      "config/.ko.yaml": "defaultBaseImage: ko.builtin/static\n",
    });
    const env = { ...cleanEnvironment(tree.path), KOCACHE: box.place, KO_DOCKER_REPO: "example.com/team" };
    const build = async (): Promise<Result> => {
      const out = tree.at(crypto.randomUUID());
      return runToEnd([...ourCommand(), "build", "--push=false", "--oci-layout-path", out, "./cmd/..."], {
        cwd: tree.path,
        env,
      });
    };
    const first = await build();
    expect(first).toEqual({ code: 0, stdout: expect.stringMatching(/^(?:\S+\n){2}$/), stderr: expect.any(String) });
    let building = true;
    const cleaning = (async () => {
      const codes = new Set<number>();
      while (building) {
        codes.add((await ko(box, ["cache", "clean"])).code);
        await Bun.sleep(1);
      }
      return codes;
    })();
    for (let i = 0; i < 2; i++) {
      const results = await Promise.all([build(), build()]);
      for (const { code, stderr, stdout } of results) {
        expect([code, digestsIn(stdout), stderr.includes("Warning")]).toEqual([0, digestsIn(first.stdout), false]);
      }
    }
    building = false;
    expect([...(await cleaning)]).toEqual([0]);
    await ko(box, ["cache", "clean"]);
    expect(existsSync(join(box.place, "v1"))).toBe(false);
  });
});

function ko(box: CacheBox, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Result> {
  return runKoHere(args, { cwd: join(box.place, ".."), env: { KOCACHE: box.place, ...env } });
}

function digestsIn(text: string): readonly string[] {
  return text.match(/sha256:[0-9a-f]{64}/g) ?? [];
}

/** Two entries, 1234567 bytes. */
async function fill(box: CacheBox): Promise<void> {
  await using cache = box.open();
  const text = "x".repeat(1_234_500);
  const { path, digest } = await box.file(cache, text);
  cache.keep(path, digest);
  // The record's own digest and the quotes are 67 bytes.
  cache.write("test", KEY, "");
  expect(digest).toBe(digestOf(Buffer.from(text)));
}

function writeBelow(box: CacheBox, path: string): void {
  mkdirSync(join(box.place, path, ".."), { recursive: true });
  writeFileSync(join(box.place, path), "x");
}

/** As it was when a process of this machine that has ended made it. */
async function nameOfKilledRun(box: CacheBox): Promise<string> {
  await using cache = box.open();
  const own = (await cache.work()).split("/").at(-1) ?? "";
  rmSync(join(box.place, "v1/work", own), { recursive: true });
  return own.replace(/^(run-[0-9a-f]+-\d+)-\d+-/, "$1-1-");
}
