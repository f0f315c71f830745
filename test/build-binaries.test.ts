import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Binary, keepBinary, makeBinaries, type PackageLister } from "../lib/build-binaries.ts";
import { BuildCache } from "../lib/build-cache.ts";
import { Cache } from "../lib/cache.ts";
import { DEFAULT_PLATFORM } from "../lib/go.ts";
import { choosePrograms } from "../lib/go-programs.ts";
import { ProgramFinder } from "../lib/go-programs-cache.ts";
import { createTiming } from "../lib/timing.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { goWorld, libraryGo, mainGo } from "./helpers/go.ts";
import { MODULES, SETTLED_MS } from "./helpers/world-bench.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree;

beforeEach(async () => {
  caches = [];
  tree = writeTree({ ...MODULES, "app/cmd/more/main.go": mainGo() });
  await Bun.sleep(SETTLED_MS);
});

afterEach(() => tree[Symbol.dispose]());

interface Made {
  readonly binary: Binary;
  readonly bytes: string;
}

let runs = 0;
/** Of the runs of a test, in their order. */
let caches: Cache[] = [];

interface MakeOptions {
  readonly lister?: PackageLister;
  /** @default true */
  readonly cached?: boolean;
}

/** As one run of ko does it, but for the layers: each binary is kept under a digest of its own bytes. */
async function make(args: readonly string[], options: MakeOptions = {}): Promise<ReadonlyMap<string, Made>> {
  const { host, log, setups } = goWorld(tree.at("app"), { KOCACHE: tree.at("cache") });
  const opened = Cache.open(host, log);
  if (opened === undefined) throw new Error("no cache");
  caches.push(opened);
  const cache = options.cached === false ? undefined : opened;
  const builds = cache === undefined ? undefined : new BuildCache({ cache, host, log, go: "go" });
  const timing = createTiming(() => 0);
  const finder = new ProgramFinder({ host, log, go: "go", timing, platform: undefined, setups, cache, builds });
  const found = await finder.find(args);
  const programs = choosePrograms(found);
  const folder = tree.at(`run-${++runs}`);
  mkdirSync(folder);
  const setup = await setups.for(undefined, DEFAULT_PLATFORM);
  const wanted = programs.map((program) => ({ program, platform: DEFAULT_PLATFORM, setup }));
  const events = makeBinaries(wanted, {
    context: { host, log, timing, cache, signal: host.signal },
    compile: { go: "go", jobs: 0 },
    builds,
    folder,
    lister: options.lister ?? { list: (build, some) => finder.list(found, build, some) },
  });
  const made = new Map<string, Made>();
  const keeping: Promise<void>[] = [];
  for await (const event of events) {
    if (event.kind !== "ready") continue;
    const { binary } = event;
    const bytes = new Bun.CryptoHasher("sha256").update(readFileSync(binary.path)).digest("hex");
    keeping.push(keepBinary(binary, { cache, tar: { diffId: `sha256:${bytes}`, size: 1 } }));
    made.set(binary.program.importPath.slice("example.com/app/cmd/".length), { binary, bytes });
  }
  await Promise.all(keeping);
  return made;
}

const states = (made: ReadonlyMap<string, Made>): unknown =>
  Object.fromEntries(Array.from(made, ([name, { binary }]) => [name, binary.why?.reason ?? "reused"]));

const BOTH = ["./cmd/app", "./cmd/more"];

describe("makeBinaries()", () => {
  test("compiles what is not known, and only that", async () => {
    expect(states(await make(BOTH))).toEqual({ app: "first build here", more: "first build here" });
    expect(states(await make(BOTH))).toEqual({ app: "reused", more: "reused" });
    tree.write({ "app/cmd/more/main.go": mainGo("bye") });
    await Bun.sleep(SETTLED_MS);
    expect(states(await make(BOTH))).toEqual({ app: "reused", more: "changed" });
    expect(states(await make(BOTH))).toEqual({ app: "reused", more: "reused" });
  });

  test("asks go what it lists only if that may be something else", async () => {
    await make(BOTH);
    let asked = 0;
    const lister: PackageLister = {
      list: () => {
        asked++;
        return Promise.reject(new Error("go was asked"));
      },
    };
    const text = readFileSync(tree.at("app/lib/lib.go"), "utf8");
    const edit = async (content: string): Promise<void> => {
      tree.write({ "app/lib/lib.go": content });
      await Bun.sleep(SETTLED_MS);
    };
    await edit(`${text}\nfunc init() { Text = "new" }\n`);
    const made = await make(BOTH, { lister });
    expect(states(made)).toEqual({ app: "changed", more: "reused" });
    expect(await made.get("app")?.binary.listDigest).toMatch(/^[0-9a-f]{40}$/);
    expect(states(await make(BOTH, { lister }))).toEqual({ app: "reused", more: "reused" });
    // What does not compile is told as the compiler tells it.
    await edit(`${text}\nfunc init() { nothing() }\n`);
    const told = await rejectionOf(make(BOTH, { lister }));
    expect(String(told)).toContain("undefined: nothing");
    // To look for files that were left out for want of cgo.
    expect(asked).toBe(1);
    await edit(text.replace("package lib", 'package lib\n\nimport _ "os"'));
    expect(await rejectionOf(make(BOTH, { lister }))).toMatchObject({ message: "go was asked" });
    expect(states(await make(BOTH))).toEqual({ app: "changed", more: "reused" });
  });

  test("keeps what go leaves as it was, and knows it", async () => {
    const before = await make(["./cmd/app"]);
    utimesSync(tree.at("app/lib/lib.go"), new Date(), new Date());
    await Bun.sleep(SETTLED_MS);
    const after = await make(["./cmd/app"]);
    expect(states(after)).toEqual({ app: "changed" });
    expect(after.get("app")?.binary.known).toEqual({
      binary: {
        digest: `sha256:${before.get("app")?.bytes ?? ""}`,
        size: statSync(after.get("app")?.binary.path ?? "").size,
      },
      tarSize: 1,
    });
    expect(states(await make(["./cmd/app"]))).toEqual({ app: "reused" });
  });

  test("lends binaries that stay although the cache goes", async () => {
    await make(["./cmd/app"]);
    const [path] = Array.from((await make(["./cmd/app"])).values(), ({ binary }) => binary.path);
    await Bun.$`rm -r ${tree.at("cache")}`;
    expect(existsSync(path ?? "")).toBe(true);
  });

  test("takes a kept binary away that go does not take for a program", async () => {
    await make(["./cmd/app"]);
    const content = tree.at("cache/v1/content");
    for (const name of readdirSync(content)) {
      const { atime, mtime, size } = statSync(join(content, name));
      writeFileSync(join(content, name), "x".repeat(size));
      utimesSync(join(content, name), atime, mtime);
    }
    tree.write({ "app/lib/lib.go": libraryGo("lib", "2") });
    expect(String(await rejectionOf(make(["./cmd/app"])))).toContain("its content was changed");
    expect(caches.map(({ damage }) => damage)).toEqual([
      undefined,
      "Cannot use a cached program: its content was changed",
    ]);
    expect(readdirSync(content)).toEqual([]);
    expect(states(await make(["./cmd/app"]))).toMatchObject({ app: "changed" });
  });

  test("fails with what go list says, where the compiler says less", async () => {
    await make(["./cmd/app"]);
    tree.write({ "app/lib/lib.go": "package lib\n\nvar Text = x\n" });
    await Bun.sleep(SETTLED_MS);
    expect(String(await rejectionOf(make(["./cmd/app"])))).toContain("undefined: x");
  });

  test("compiles everything, and keeps nothing, without a cache", async () => {
    const made = await make(BOTH, { cached: false });
    expect(states(made)).toEqual({ app: "it is not in the cache", more: "it is not in the cache" });
    expect(readdirSync(tree.at("cache/v1/content"))).toEqual([]);
  });
});
