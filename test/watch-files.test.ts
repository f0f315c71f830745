/**
 * The real file system and chokidar. No test waits for time to pass: each step waits for the report of its change.
 */
import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Watcher, type WatchLimit } from "../lib/watch-files.ts";
import type { PathChange } from "../lib/watch-places.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { runToEnd } from "./helpers/world-programs.ts";

interface Watched extends AsyncDisposable {
  readonly watcher: Watcher;
  /** Waits for the reports of all these paths, and returns all reports, as `is path`. */
  reported(...paths: readonly string[]): Promise<readonly string[]>;
  /** The number of bursts. */
  times(): number;
}

function watch(
  tree: Tree,
  options: { accepts?: (path: string) => boolean; onLimit?: (limit: WatchLimit) => void } = {},
): Watched {
  let reported: PathChange[] = [];
  let times = 0;
  let wake = (): void => {};
  const watcher = new Watcher({
    accepts: options.accepts ?? ((path) => path.startsWith(tree.path)),
    onChange: (changes) => {
      reported.push(...changes);
      times++;
      wake();
    },
    onLimit: options.onLimit ?? (() => {}),
  });
  return {
    watcher,
    times: () => times,
    reported: async (...paths) => {
      const has = (path: string): boolean => reported.some((change) => change.path === tree.at(path));
      while (!paths.every(has)) await new Promise<void>((resolve) => (wake = resolve));
      const lines = reported.map(({ path, is }) => `${is} ${path.slice(tree.path.length + 1)}`);
      reported = [];
      return [...new Set(lines)].sort();
    },
    [Symbol.asyncDispose]: () => watcher[Symbol.asyncDispose](),
  };
}

/** Later than anything that was written before. */
const never = { since: Number.MAX_SAFE_INTEGER, acceptsMore: false };

describe("Watcher", () => {
  test("tells of files in exactly the folders that are watched, however they are saved", async () => {
    using tree = writeTree({ "a/x.go": "1", "a/sub/y.go": "1", "b/z.go": "1" });
    await using watched = watch(tree);
    await watched.watcher.watch(new Set([tree.at("a")]), never);
    tree.write({ "b/z.go": "2", "a/sub/y.go": "2", "a/x.go": "2" });
    expect(await watched.reported("a/x.go")).toEqual(["file a/x.go"]);
    // By rename.
    tree.write({ tmp: "3" });
    renameSync(tree.at("tmp"), tree.at("a/x.go"));
    expect(await watched.reported("a/x.go")).toEqual(["file a/x.go"]);
    // As vim does.
    renameSync(tree.at("a/x.go"), tree.at("a/x.go~"));
    writeFileSync(tree.at("a/x.go"), "4");
    rmSync(tree.at("a/x.go~"));
    expect(await watched.reported("a/x.go")).toContain("file a/x.go");
    // New, and gone.
    tree.write({ "a/new.go": "1" });
    expect(await watched.reported("a/new.go")).toEqual(["file a/new.go"]);
    rmSync(tree.at("a/new.go"));
    expect(await watched.reported("a/new.go")).toEqual(["gone a/new.go"]);
  });

  test("a burst is reported once", async () => {
    using tree = writeTree({ "a/x.go": "1", "b/y.go": "1" });
    await using watched = watch(tree);
    await watched.watcher.watch(new Set([tree.at("a"), tree.at("b")]), never);
    for (let i = 0; i < 20; i++) tree.write({ "a/x.go": String(i), [`b/${i}.go`]: "1" });
    await watched.reported("a/x.go", "b/19.go");
    expect(watched.times()).toBe(1);
  });

  test("folders join and leave", async () => {
    using tree = writeTree({ "a/x.go": "1", "a/sub/y.go": "1", "b/z.go": "1" });
    await using watched = watch(tree);
    await watched.watcher.watch(new Set([tree.at("a"), tree.at("a/sub")]), never);
    await watched.watcher.watch(new Set([tree.at("a/sub"), tree.at("b")]), never);
    tree.write({ "a/x.go": "2", "a/sub/y.go": "2", "b/z.go": "2" });
    expect(await watched.reported("a/sub/y.go", "b/z.go")).toEqual(["file a/sub/y.go", "file b/z.go"]);
    await watched.watcher.watch(new Set([tree.at("a"), tree.at("a/sub"), tree.at("b")]), never);
    tree.write({ "a/x.go": "3", "a/sub/y.go": "3" });
    expect(await watched.reported("a/x.go", "a/sub/y.go")).toEqual(["file a/sub/y.go", "file a/x.go"]);
  });

  test("a folder that is not there yet is waited for, step by step", async () => {
    using tree = writeTree({ "a/x.go": "1" });
    await using watched = watch(tree);
    await watched.watcher.watch(new Set([tree.at("new/deep/deeper")]), never);
    for (const path of ["new", "new/deep", "new/deep/deeper"]) {
      mkdirSync(tree.at(path));
      expect(await watched.reported(path)).toContain(`folder ${path}`);
    }
    tree.write({ "new/deep/deeper/x.go": "1" });
    expect(await watched.reported("new/deep/deeper/x.go")).toContain("file new/deep/deeper/x.go");
    // All at once.
    rmSync(tree.at("new"), { recursive: true });
    await watched.reported("new/deep/deeper");
    tree.write({ "new/deep/deeper/x.go": "2" });
    await watched.reported("new");
    tree.write({ "new/deep/deeper/x.go": "3" });
    expect(await watched.reported("new/deep/deeper/x.go")).toContain("file new/deep/deeper/x.go");
  });

  test("a folder that another one takes the place of", async () => {
    using tree = writeTree({ "p/a/x.go": "1", "p/b/x.go": "1" });
    await using watched = watch(tree);
    await watched.watcher.watch(new Set([tree.at("p"), tree.at("p/a")]), never);
    // At once, by writing it anew.
    rmSync(tree.at("p/a"), { recursive: true });
    tree.write({ "p/a/x.go": "2" });
    await watched.reported("p/a");
    tree.write({ "p/a/x.go": "3" });
    expect(await watched.reported("p/a/x.go")).toContain("file p/a/x.go");
    // By renames.
    renameSync(tree.at("p/a"), tree.at("p/old"));
    renameSync(tree.at("p/b"), tree.at("p/a"));
    await watched.reported("p/a");
    tree.write({ "p/old/x.go": "4", "p/a/x.go": "4" });
    const reported = await watched.reported("p/a/x.go");
    expect(reported).toContain("file p/a/x.go");
    expect(reported).not.toContain("file p/old/x.go");
  });

  test("links: to folders, and of files to others", async () => {
    using tree = writeTree({
      "real/x.go": "1",
      link: { link: "real" },
      "a/y.go": { link: "../other/y.go" },
      "other/y.go": "1",
    });
    await using watched = watch(tree);
    await watched.watcher.watch(new Set([tree.at("link"), tree.at("a")]), never);
    tree.write({ "real/x.go": "2" });
    expect(await watched.reported("link/x.go")).toEqual(["file link/x.go"]);
    tree.write({ "other/y.go": "2" });
    expect(await watched.reported("a/y.go")).toEqual(["file a/y.go"]);
  });

  test("reports changes from before it watched", async () => {
    using tree = writeTree({ "a/x.go": "1", "b/y.go": "1" });
    await using watched = watch(tree);
    const since = Date.now();
    await watched.watcher.watch(new Set([tree.at("a")]), never);
    tree.write({ "b/y.go": "2" });
    await watched.watcher.watch(new Set([tree.at("a"), tree.at("b")]), { since: since - 10, acceptsMore: false });
    const reported = await watched.reported("b/y.go");
    expect(reported).toContain("file b/y.go");
    expect(reported.filter((line) => line.includes(" a"))).toEqual([]);
  });

  test("reports changes from before it accepted a path, in a folder that it watched", async () => {
    using tree = writeTree({ "a/x.go": "1", "a/in.yaml": "1" });
    let accepted = /\.yaml$/;
    await using watched = watch(tree, { accepts: (path) => accepted.test(path) });
    const since = Date.now();
    const folders = new Set([tree.at("a")]);
    await watched.watcher.watch(folders, never);
    tree.write({ "a/x.go": "2" });
    // Its event comes before that of the next change, and is dropped.
    tree.write({ "a/in.yaml": "2" });
    expect(await watched.reported("a/in.yaml")).toEqual(["file a/in.yaml"]);
    accepted = /\.(?:yaml|go)$/;
    await watched.watcher.watch(folders, { since: since - 10, acceptsMore: true });
    expect(await watched.reported("a/x.go")).toContain("file a/x.go");
  });

  test("a path that is not accepted is not reported, and delays no other", async () => {
    using tree = writeTree({ "a/x.go": "1" });
    await using watched = watch(tree, { accepts: (path) => path.endsWith("x.go") });
    await watched.watcher.watch(new Set([tree.at("a")]), never);
    let n = 0;
    const noise = setInterval(() => tree.write({ "a/log.txt": String(n++) }), 5);
    tree.write({ "a/x.go": "2" });
    expect(await watched.reported("a/x.go")).toEqual(["file a/x.go"]);
    clearInterval(noise);
    expect(watched.times()).toBe(1);
  });

  test("a folder that may not be read", async () => {
    using tree = writeTree({ "a/x.go": "1", "b/y.go": "1" });
    chmodSync(tree.at("a"), 0o000);
    await using watched = watch(tree);
    await watched.watcher.watch(new Set([tree.at("a"), tree.at("b")]), never);
    tree.write({ "b/y.go": "2" });
    expect(await watched.reported("b/y.go")).toEqual(["file b/y.go"]);
    chmodSync(tree.at("a"), 0o755);
  });

  // In a user namespace of its own, the limits can be set without being root.
  const canLimit = Bun.spawnSync(["unshare", "-Ur", "sh", "-c", "echo 9 > /proc/sys/user/max_inotify_watches"]).success;

  test.skipIf(!canLimit).each([
    ["max_inotify_watches", 2, "ENOSPC", 3],
    ["max_inotify_instances", 0, "EMFILE", 5],
  ])("where user.%s is %d, it says so once (%s), and polls the rest", async (setting, most, code, polled) => {
    using tree = writeTree(Object.fromEntries(Array.from({ length: 5 }, (_, i) => [`p${i}/x.go`, "1"])));
    const program = `
      import { writeFileSync } from "node:fs";
      import { Watcher } from ${JSON.stringify(join(import.meta.dir, "..", "lib", "watch-files.ts"))};
      const root = process.argv.at(-1);
      const reported = new Set();
      const limits = [];
      const watcher = new Watcher({
        accepts: () => true,
        pollMs: 20,
        onLimit: (limit) => limits.push(limit),
        onChange: (changes) => {
          for (const { path } of changes) reported.add(path.slice(root.length + 1));
          if (reported.size < 5) return;
          console.log(JSON.stringify({ limits, reported: [...reported].sort() }));
          void watcher[Symbol.asyncDispose]();
        },
      });
      const folders = new Set(Array.from({ length: 5 }, (_, i) => root + "/p" + i));
      await watcher.watch(folders, ${JSON.stringify(never)});
      await watcher.watch(folders, ${JSON.stringify(never)});
      for (const folder of folders) writeFileSync(folder + "/x.go", "two");
    `;
    const script = `echo ${most} > /proc/sys/user/${setting} && exec "$@"`;
    const argv = ["unshare", "-Ur", "sh", "-c", script, "sh", process.execPath, "-e", program, tree.path];
    const { code: exit, stdout, stderr } = await runToEnd(argv, { cwd: tree.path, env: process.env });
    expect({ exit, stderr }).toEqual({ exit: 0, stderr: "" });
    expect(JSON.parse(stdout)).toEqual({
      limits: [{ code, polled, folders: 5 }],
      reported: Array.from({ length: 5 }, (_, i) => `p${i}/x.go`),
    });
  });
});
