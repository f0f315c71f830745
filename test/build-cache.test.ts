import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { BuildCache, type Lookup, type Miss } from "../lib/build-cache.ts";
import { Cache } from "../lib/cache.ts";
import { buildEnvironment, DEFAULT_PLATFORM, type GoPackage } from "../lib/go.ts";
import type { Program } from "../lib/go-programs.ts";
import type { BuildSetup } from "../lib/go-setup.ts";
import type { Host } from "../lib/host.ts";
import type { Log } from "../lib/log.ts";
import { goMod, goWorld, listPrograms } from "./helpers/go.ts";
import { MODULES, SETTLED_MS } from "./helpers/world-bench.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree;
let told: string[];
let program: Program;
let packages: readonly GoPackage[];

const DIGEST = `sha256:${"0".repeat(64)}` as const;

beforeEach(async () => {
  told = [];
  tree = writeTree(MODULES);
  await Bun.sleep(SETTLED_MS);
  const found = await listPrograms(["./cmd/app"], { ...goWorld(tree.at("app")), platform: undefined });
  packages = [...found.packages.values()].flat();
  const [first] = found.programs;
  if (first === undefined) throw new Error("no program");
  program = first;
});

afterEach(() => tree[Symbol.dispose]());

const log: Log = { info: () => {}, warn: () => {}, debug: (message) => void told.push(message) };

interface Run {
  readonly builds: BuildCache;
  readonly cache: Cache;
  readonly host: Host;
  readonly setup: BuildSetup;
}

/** As each run of ko has its own. */
function open(
  env: Readonly<Record<string, string>> = {},
  changes: Partial<Host> = {},
  args: readonly string[] = [],
): Run {
  const world = goWorld(tree.at("app"), { KOCACHE: tree.at("cache"), ...env });
  const host = { ...world.host, ...changes };
  const cache = Cache.open(host, log);
  if (cache === undefined) throw new Error("no cache");
  const setup = { env: buildEnvironment(DEFAULT_PLATFORM, host.env), args };
  return { builds: new BuildCache({ cache, host, log, go: "go" }), cache, host, setup };
}

/** Records a binary that is said to be compiled; `meanwhile` happens while it is. */
async function remember({ builds, cache, host, setup }: Run, meanwhile: () => unknown = () => {}): Promise<void> {
  const startedAt = host.now().getTime();
  const miss: Miss = { kind: "miss", program, setup, why: { reason: "" }, previous: undefined, last: undefined };
  const recording = await builds.record([miss]);
  const list = new Map([[program.workDir, packages]]);
  await recording.take(() => Promise.resolve({ startedAt, packages: list }));
  await meanwhile();
  writeFileSync(tree.at("binary"), "binary");
  const binary = cache.keep(tree.at("binary"), DIGEST);
  if (binary === undefined) throw new Error("it is not kept");
  recording.confirm();
  await recording.commit(program, { binary, tarSize: 7 });
}

const recall = (run: Run): Promise<Lookup> => run.builds.lookup(program, run.setup);

describe("BuildCache#lookup()", () => {
  test("proves what was remembered", async () => {
    const why = { reason: "first build here" };
    expect(await recall(open())).toEqual({
      kind: "miss",
      program,
      setup: open().setup,
      why,
      previous: undefined,
      last: undefined,
    });
    await remember(open());
    expect(await recall(open())).toEqual({
      kind: "hit",
      binary: { digest: DIGEST, size: 6 },
      tarSize: 7,
      listDigest: expect.stringMatching(/^[0-9a-f]{40}$/),
    });
  });

  test("says which input changed, and gives the last binary", async () => {
    await remember(open());
    tree.write({ "dep/dep.go": "package dep\n" });
    const why = { file: tree.at("dep/dep.go"), reason: "changed" };
    const previous = { binary: { digest: DIGEST, size: 6 }, tarSize: 7 };
    expect(await recall(open())).toMatchObject({ kind: "miss", why, previous });
  });

  test("knows whether go would list the same", async () => {
    const listed = async (): Promise<unknown> => {
      const run = open();
      const found = await recall(run);
      return found.kind === "miss" ? (await run.builds.relist(found)) !== undefined : found.kind;
    };
    await remember(open());
    const text = readFileSync(tree.at("app/lib/lib.go"), "utf8");
    for (const [path, content, same] of [
      ["app/lib/lib.go", `${text}\nfunc init() {}\n`, true],
      ["app/lib/lib.go", text.replace("package lib", 'package lib\n\nimport _ "os"'), false],
      ["app/lib/lib.go", `//go:build linux\n\n${text}`, false],
      ["app/lib/lib.go", text.replace("package", "pakcage"), false],
      ["app/lib/never.go", "//go:build never\n\npackage lib\n\nfunc other() {}\n", true],
      ["app/lib/never.go", "package lib\n", false],
      ["app/lib/more.go", "package lib\n", false],
      ["app/lib/more_test.go", "package lib\n", true],
      ["app/go.mod", goMod("example.com/app"), false],
    ] as const) {
      const before = existsSync(tree.at(path)) ? readFileSync(tree.at(path), "utf8") : undefined;
      tree.write({ [path]: content, "dep/dep.go": `${readFileSync(tree.at("dep/dep.go"), "utf8")}\n` });
      expect([path, content, await listed()]).toEqual([path, content, same]);
      rmSync(tree.at(path));
      if (before !== undefined) tree.write({ [path]: before });
    }
  });

  test("remembers anew what go need not list again", async () => {
    await remember(open());
    tree.write({ "dep/dep.go": `${readFileSync(tree.at("dep/dep.go"), "utf8")}\nfunc init() {}\n` });
    await Bun.sleep(SETTLED_MS);
    const again = async (meanwhile: () => unknown = () => {}): Promise<Lookup> => {
      const run = open();
      const found = await recall(run);
      if (found.kind === "hit" || found.previous === undefined) throw new Error("it cannot be recorded");
      const recording = await run.builds.record([found]);
      await recording.take(() => Promise.reject(new Error("go has to list")));
      await meanwhile();
      recording.confirm();
      await recording.commit(program, found.previous);
      return recall(open());
    };
    expect(await again(() => tree.write({ "app/lib/lib.go": "package lib\n\nvar Text = 1\n" }))).toMatchObject({
      kind: "miss",
    });
    await Bun.sleep(SETTLED_MS);
    const first = await again();
    expect(first).toMatchObject({ kind: "hit" });
    // The list that it comes from is the same one.
    tree.write({ "dep/dep.go": "package dep\n\nvar Text = 2\n" });
    await Bun.sleep(SETTLED_MS);
    expect(await again()).toEqual(first);
  });

  test("says which setting changed", async () => {
    await remember(open());
    const why = async (run: Run): Promise<unknown> => {
      const found = await recall(run);
      return found.kind === "miss" ? found.why.reason : found.kind;
    };
    expect(await why(open({ GOFLAGS: "-tags=x" }))).toBe("GOFLAGS changed");
    expect(await why(open({ GODEBUG: "x=1" }))).toBe("GODEBUG is set now");
    expect(await why(open({}, {}, ["-trimpath"]))).toBe("the flags of go build changed");
    expect(await why(open({ GOCACHE: tree.at("other"), GOMAXPROCS: "1", LANG: "C" }))).toBe("hit");
  });

  test("does not prove what has no binary any more", async () => {
    await remember(open());
    rmSync(tree.at("cache/v1/content"), { recursive: true });
    expect(await recall(open())).toEqual({
      kind: "miss",
      program,
      setup: open().setup,
      why: { reason: "the cached binary was removed or changed" },
      previous: undefined,
      last: expect.anything(),
    });
  });

  test("writes no value of a variable down", async () => {
    await remember(open({ GOPRIVATE: "hush-hush.example.com" }));
    const texts = await Array.fromAsync(new Bun.Glob("v1/records/*").scan(tree.at("cache")), (name) =>
      Bun.file(tree.at(`cache/${name}`)).text(),
    );
    expect(texts.length).toBe(3);
    expect(texts.join("")).not.toContain("hush-hush");
  });
});

describe("Recording records nothing", () => {
  test.each<[string, () => Run, (() => unknown) | undefined, string]>([
    [
      "that changed while it was compiled",
      () => open(),
      () => tree.write({ "app/lib/lib.go": "package lib\n" }),
      "lib.go changed while it was compiled",
    ],
    [
      "with a flag that brings files of its own",
      () => open({ GOFLAGS: "-overlay=x.json" }),
      undefined,
      "-overlay=x.json is set",
    ],
    [
      "with such a flag of go env -w",
      () => {
        tree.write({ goenv: "GOFLAGS=-modfile=other.mod\n" });
        return open({ GOENV: tree.at("goenv"), GOFLAGS: "" });
      },
      undefined,
      "-modfile=other.mod is set",
    ],
    [
      "without a go command",
      () => open({ PATH: tree.path }, { findProgram: () => undefined }),
      undefined,
      "there is no go command",
    ],
    [
      "in a work tree of another kind",
      () => {
        tree.write({ ".svn": null });
        return open({ GOFLAGS: "" });
      },
      undefined,
      "ko does not know what .svn is stamped with",
    ],
    [
      "if the clock was put back",
      () => {
        let steady = 0;
        return open({}, { monotonic: () => (steady += 5000) });
      },
      undefined,
      "the clock was put back",
    ],
  ])("%s", async (_name, run, meanwhile, why) => {
    await remember(run(), meanwhile);
    expect(told.join("\n")).toContain(why);
    expect((await recall(open())).kind).toBe("miss");
  });
});
