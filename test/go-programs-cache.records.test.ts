import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { renameSync } from "node:fs";
import { BuildCache } from "../lib/build-cache.ts";
import { Cache } from "../lib/cache.ts";
import { findPrograms } from "../lib/go-programs.ts";
import { forgetPrograms, type ProgramRecords, recallPrograms, rememberPrograms } from "../lib/go-programs-cache.ts";
import { goMod, type GoWorld, goWorld, mainGo } from "./helpers/go.ts";
import { MODULES, SETTLED_MS } from "./helpers/world-bench.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree;
let world: GoWorld;

beforeEach(async () => {
  tree = writeTree({ ...MODULES, "app/empty": null });
  world = goWorld(tree.at("app"), { KOCACHE: tree.at("cache") });
  await Bun.sleep(SETTLED_MS);
});

afterEach(() => tree[Symbol.dispose]());

function open(): ProgramRecords {
  const { host, log, setups } = world;
  const cache = Cache.open(host, log);
  if (cache === undefined) throw new Error("no cache");
  return { cache, host, setups, platform: undefined, builds: new BuildCache({ cache, host, log, go: "go" }) };
}

async function remember(...args: readonly string[]): Promise<void> {
  const startedAt = Date.now();
  const found = await findPrograms(args, { ...world, platform: undefined });
  await rememberPrograms(args, found, { ...open(), startedAt });
}

/** Import paths for each argument. */
async function recall(...args: readonly string[]): Promise<unknown> {
  return (await recallPrograms(args, open()))?.results.map((each) =>
    Array.isArray(each) ? each.map(({ importPath }) => importPath) : each,
  );
}

const APP = "example.com/app/cmd/app";

describe("recallPrograms()", () => {
  test("knows all arguments or nothing", async () => {
    expect(await recall("./cmd/app")).toBeUndefined();
    await remember("./cmd/app", APP, "./...");
    expect(await recall("./cmd/app", APP)).toEqual([[APP], [APP]]);
    expect(await recall("./...")).toEqual([[APP]]);
    expect(await recall("./cmd/app", "./other")).toBeUndefined();
  });

  test.each<[string, string, () => unknown, boolean]>([
    [
      "./cmd/app",
      "an edited source, which is for others to look at",
      () => tree.write({ "app/cmd/app/main.go": mainGo() }),
      true,
    ],
    ["./...", "an edited source", () => tree.write({ "app/other/other.go": mainGo() }), false],
    ["./...", "a new program", () => tree.write({ "app/cmd/more/main.go": mainGo() }), false],
    ["./...", "a source in a folder that had none", () => tree.write({ "app/empty/main.go": mainGo() }), false],
    ["./...", "a file of another kind", () => tree.write({ "app/README.md": "", "app/empty/x.txt": "" }), true],
    ["./...", "a file in a folder that no pattern goes into", () => tree.write({ "app/cmd/app/_x.go": "" }), true],
    ["./cmd/app", "a new go.mod", () => tree.write({ "app/cmd/go.mod": goMod("x") }), false],
    ["./cmd/app", "a workspace", () => tree.write({ "go.work": "go 1.21\n" }), false],
    ["./cmd/app", "a folder that has gone", () => renameSync(tree.at("app/cmd/app"), tree.at("app/cmd/b")), false],
    [APP, "an edited go.mod", () => tree.write({ "app/go.mod": goMod("example.com/app") }), false],
  ])("%s: %s", async (arg, _what, change, isKnown) => {
    await remember(arg);
    expect(await recall(arg)).toEqual([[APP]]);
    change();
    expect((await recall(arg)) !== undefined).toBe(isKnown);
  });

  test("knows nothing of what is looked at for its content, or is no program", async () => {
    await remember("./cmd/app/main.go", "./other", "all");
    for (const arg of ["./cmd/app/main.go", "./other", "all"]) expect(await recall(arg)).toBeUndefined();
  });

  test("can be made to forget", async () => {
    await remember("./cmd/app");
    await forgetPrograms(["./cmd/app"], open());
    expect(await recall("./cmd/app")).toBeUndefined();
  });
});
