import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LazyCache } from "../lib/cache.ts";
import { readBuildOptions } from "../lib/cli-options.ts";
import { parseCommandLine } from "../lib/cli-parse.ts";
import { loadConfig } from "../lib/config.ts";
import { choosePrograms, type Program } from "../lib/go-programs.ts";
import type { Log } from "../lib/log.ts";
import { type Choice, Pipeline, type PublishedProgram } from "../lib/pipeline.ts";
import { describeChoices } from "../lib/pipeline-plans.ts";
import { noTiming } from "../lib/timing.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { goWorld, mainGo } from "./helpers/go.ts";
import { MODULES, SETTLED_MS } from "./helpers/world-bench.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree;
let logged: string[];

beforeEach(async () => {
  tree = writeTree(MODULES);
  await Bun.sleep(SETTLED_MS);
});

afterEach(() => tree[Symbol.dispose]());

const log: Log = {
  info: (text) => void logged.push(text),
  warn: (text) => void logged.push(`Warning: ${text}`),
  debug: (text) => void (text.includes("starting again") && logged.push(text)),
};

interface Ran {
  readonly published: readonly PublishedProgram[];
  /** The programs of each call of `choose`. */
  readonly chosen: readonly (readonly Program[])[];
}

/** One run of `ko build -B` into an OCI layout, on an empty base. */
async function run(
  options: { readonly meanwhile?: () => unknown; readonly warnings?: readonly string[] } = {},
): Promise<Ran> {
  const { meanwhile, warnings = [] } = options;
  const env = { KOCACHE: tree.at("cache"), KO_DEFAULTBASEIMAGE: "scratch" };
  const { host } = goWorld(tree.at("app"), env);
  const argv = ["build", "-B", "--push=false", "--oci-layout-path", tree.at("layout")];
  const invocation = parseCommandLine(argv);
  if (invocation.command !== "build") throw new Error("not a build");
  logged = [];
  await using cache = new LazyCache(host, log);
  await using pipeline = await Pipeline.open({
    host,
    log,
    timing: noTiming,
    cache,
    config: await loadConfig(host),
    build: readBuildOptions(invocation.flags, invocation.given),
  });
  const chosen: (readonly Program[])[] = [];
  const { published } = await pipeline.publish(["./cmd/app"], (found): Choice => {
    const programs = choosePrograms(found);
    chosen.push(programs);
    if (chosen.length === 1) meanwhile?.();
    return { programs, warnings };
  });
  return { published, chosen };
}

/** Changes the content of all cached files, but not their marks. */
function damageCache(): void {
  const content = tree.at("cache/v1/content");
  for (const name of readdirSync(content)) {
    const { atime, mtime, size } = statSync(join(content, name));
    writeFileSync(join(content, name), "x".repeat(size));
    utimesSync(join(content, name), atime, mtime);
  }
}

describe("describeChoices()", () => {
  test.each<[string, Readonly<Record<string, string>>, readonly string[], readonly string[]]>([
    ["one program", { "a/web": "scratch" }, [], ["Using base scratch for a/web"]],
    ["programs on one base", { "a/web": "scratch", "a/job": "scratch" }, [], ["Using base scratch for 2 programs"]],
    [
      "programs on two bases",
      { "a/web": "scratch", "a/job": "b", "a/x": "scratch" },
      [],
      ["Using base scratch for a/web, a/x", "Using base b for a/job"],
    ],
    [
      "an entry of builds",
      { "a/web": "b", "a/job": "b" },
      ["a/job"],
      ["Using base b for 2 programs", "Using builds[0] at .ko.yaml:2:3 for a/job"],
    ],
    ["no program", {}, [], []],
  ])("says what holds for %s", (_what, bases, withEntry, lines) => {
    const plans = Object.entries(bases).map(([importPath, base]) => {
      return { importPath, base, entry: withEntry.includes(importPath) ? "builds[0] at .ko.yaml:2:3" : undefined };
    });
    expect(describeChoices(plans).toSorted()).toEqual([...lines].toSorted());
  });
});

describe("Pipeline#publish()", () => {
  test("makes one attempt as long as the cache is right", async () => {
    const first = await run({ warnings: ["odd"] });
    const lines = [
      "Using base scratch for example.com/app/cmd/app",
      "Building example.com/app/cmd/app for linux/amd64",
      `Saved app in ${tree.at("layout")}`,
    ];
    expect(logged).toEqual([...lines, "Warning: odd"]);
    const second = await run();
    expect(logged).toEqual(lines.filter((line) => !line.startsWith("Building")));
    expect(second.published).toEqual([...first.published]);
    expect([first.chosen.length, second.chosen.length]).toEqual([1, 1]);
    expect(first.published[0]?.listDigest).toMatch(/^[0-9a-f]{40}$/);
  });

  test("lists programs anew, once, if recalled ones are outdated", async () => {
    await run();
    tree.write({ "app/cmd/app/main.go": "package app\n" });
    expect(String(await rejectionOf(run({ warnings: ["odd"] })))).toContain(
      "it is a library (package app), wanted package main",
    );
    expect(logged).toEqual([
      "Using base scratch for example.com/app/cmd/app",
      "Building example.com/app/cmd/app for linux/amd64",
      "./cmd/app no longer names the programs that it named before; starting again with go list",
      "Warning: odd",
    ]);
  });

  test("starts again without the cache if its content is damaged, and says each line once", async () => {
    const { published } = await run();
    damageCache();
    tree.write({ "app/cmd/app/main.go": `${mainGo()}\n` });
    const again = await run({ warnings: ["odd"] });
    expect(logged).toEqual([
      "Using base scratch for example.com/app/cmd/app",
      "Building example.com/app/cmd/app for linux/amd64",
      "Warning: Cannot use a cached program: its content was changed; starting again without the cache",
      "Building example.com/app/cmd/app for linux/amd64",
      `Saved app in ${tree.at("layout")}`,
      "Warning: odd",
    ]);
    expect(again.chosen.length).toBe(2);
    expect(again.published[0]?.reference).not.toBe(published[0]?.reference);
  });

  test("makes one attempt if the cache is removed before it is needed", async () => {
    await run();
    tree.write({ "app/cmd/app/main.go": `${mainGo()}\n` });
    const { chosen } = await run({ meanwhile: () => Bun.spawnSync(["rm", "-rf", tree.at("cache")]) });
    expect(chosen.length).toBe(1);
    expect(logged.at(-1)).toBe(`Saved app in ${tree.at("layout")}`);
  });

  test("fails once with a failure of the compiler", async () => {
    tree.write({ "app/cmd/app/main.go": "package main\n\nfunc main() { nothing() }\n" });
    expect(String(await rejectionOf(run()))).toContain("undefined: nothing");
    expect(logged.filter((line) => line.startsWith("Building")).length).toBe(1);
  });
});
