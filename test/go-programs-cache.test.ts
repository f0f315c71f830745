import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { BuildCache } from "../lib/build-cache.ts";
import { Cache } from "../lib/cache.ts";
import type { BuildSetup } from "../lib/go-setup.ts";
import { buildEnvironment, DEFAULT_PLATFORM, type PackageList } from "../lib/go.ts";
import type { Platform } from "../lib/oci.ts";
import { choosePrograms } from "../lib/go-programs.ts";
import { ProgramFinder } from "../lib/go-programs-cache.ts";
import { createTiming } from "../lib/timing.ts";
import { goWorld } from "./helpers/go.ts";
import { MODULES, SETTLED_MS } from "./helpers/world-bench.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree;
let lists = 0;

beforeEach(async () => {
  tree = writeTree(MODULES);
  lists = 0;
  await Bun.sleep(SETTLED_MS);
});

afterEach(() => tree[Symbol.dispose]());

/** As each run has its own. */
function open(kocache = tree.at("cache")): ProgramFinder {
  const world = goWorld(tree.at("app"), { KOCACHE: kocache });
  const { log, setups } = world;
  const host = {
    ...world.host,
    run: (...[argv, options]: Parameters<typeof world.host.run>) => {
      if (argv.includes("-deps")) lists++;
      return world.host.run(argv, options);
    },
  };
  const cache = Cache.open(host, log);
  const builds = cache === undefined ? undefined : new BuildCache({ cache, host, log, go: "go" });
  return new ProgramFinder({
    host,
    log,
    go: "go",
    timing: createTiming(() => 0),
    platform: undefined,
    setups,
    cache,
    builds,
  });
}

const ARGS = ["./cmd/app"];
const ARM64 = { os: "linux", architecture: "arm64" };

/** How programs are compiled in a world as {@link open} makes it. */
function build(platform = DEFAULT_PLATFORM): { readonly platform: Platform; readonly setup: BuildSetup } {
  const { env } = goWorld(tree.at("app"), { KOCACHE: tree.at("cache") }).host;
  return { platform, setup: { env: buildEnvironment(platform, env), args: ["-trimpath"] } };
}

function packagesOf(list: Awaited<ReturnType<ProgramFinder["list"]>> | undefined): PackageList["packages"] {
  return list === undefined || "kind" in list ? new Map() : list.packages;
}

describe("ProgramFinder", () => {
  test("asks go once, and then not again", async () => {
    const first = await open().find(ARGS);
    const second = await open().find(ARGS);
    expect(lists).toBe(1);
    expect(choosePrograms(second)).toEqual([...choosePrograms(first)]);
    expect([typeof first.startedAt, second.startedAt]).toEqual(["number", undefined]);
  });

  test("asks go always without a cache", async () => {
    await open("off").find(ARGS);
    await open("off").find(ARGS);
    expect(lists).toBe(2);
  });

  test("asks go after all, once, when something has to be compiled", async () => {
    await open().find(ARGS);
    const finder = open();
    const found = await finder.find(ARGS);
    const programs = choosePrograms(found);
    const [a, b] = await Promise.all([1, 2].map(() => finder.list(found, build(), programs)));
    expect(lists).toBe(2);
    expect(a).toBe(b);
    expect(
      packagesOf(a)
        .get(tree.at("app"))
        ?.some(({ importPath }) => importPath === "example.com/dep"),
    ).toBe(true);
  });

  test("finds out that a program is none any more, and forgets it", async () => {
    await open().find(ARGS);
    tree.write({ "app/cmd/app/main.go": "package app\n" });
    const finder = open();
    const found = await finder.find(ARGS);
    expect(await finder.list(found, build(), choosePrograms(found))).toEqual({
      kind: "outdated",
      why: "./cmd/app no longer names the programs that it named before",
    });
    const before = lists;
    await open().find(ARGS);
    expect(lists).toBe(before + 1);
  });

  test("lists anew for another platform, and tells nothing if that fails", async () => {
    const finder = open();
    const found = await finder.find(ARGS);
    const programs = choosePrograms(found);
    const list = await finder.list(found, build(ARM64), programs);
    expect([lists, packagesOf(list).size]).toEqual([2, 1]);
    const lost = programs.map((program) => ({ ...program, workDir: tree.at("nowhere") }));
    const none = await open().list(found, build(ARM64), lost);
    expect(packagesOf(none).size).toBe(0);
  });

  test("asks what programs depend on, as far as it was not told", async () => {
    await open().find(ARGS);
    const finder = open();
    const programs = choosePrograms(await finder.find(ARGS));
    expect([lists, finder.listed]).toEqual([1, []]);
    const platforms = [DEFAULT_PLATFORM, { os: "linux", architecture: "arm64" }];
    const wanted = programs.map((program) => ({ program, platforms }));
    const asked = await finder.listDependencies(wanted);
    expect([...asked]).toEqual([["example.com/app/cmd/app", expect.stringMatching(/^([0-9a-f]{40}) \1$/)]]);
    expect(await finder.listDependencies(wanted)).toEqual(asked);
    await finder.listDependencies(programs.map((program) => ({ program, platforms: undefined })));
    expect([lists, finder.listed.length]).toEqual([3, 2]);
    expect(finder.listed.map((list) => list.some(({ importPath }) => importPath === "example.com/dep"))).toEqual([
      true,
      true,
    ]);
  });

  test("asks what arguments name if they name no program", async () => {
    tree.write({ "app/cmd/app/main.go": 'package main\n\nimport _ "example.com/app/none"\n\nfunc main() {}\n' });
    const finder = open();
    await finder.find(ARGS);
    await finder.listDependencies([]);
    expect(lists).toBe(1);
    expect(finder.listed.flat().some(({ importPath }) => importPath === "example.com/app/none")).toBe(true);
  });
});
