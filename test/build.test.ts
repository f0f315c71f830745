import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { openScratch } from "../lib/base-builtin.ts";
import { type Base, readBase } from "../lib/base.ts";
import { buildImages, type BuildImagesOptions, type BuildRequest, planBuilds } from "../lib/build.ts";
import { CompressionPool, FAST_GZIP } from "../lib/compress.ts";
import { parseBase } from "../lib/config.ts";
import { choosePrograms } from "../lib/go-programs.ts";
import { ProgramFinder } from "../lib/go-programs-cache.ts";
import type { ImageSink } from "../lib/image.ts";
import { RunWarnings } from "../lib/log.ts";
import { noTiming } from "../lib/timing.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { goWorld, mainGo } from "./helpers/go.ts";
import { MODULES } from "./helpers/world-bench.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree;
let pool: CompressionPool;
/** What happened at the sinks, in its order. */
let events: string[];

beforeEach(() => {
  tree = writeTree({ ...MODULES, "app/cmd/more/main.go": mainGo(), run: null });
  pool = new CompressionPool({ workers: 0 });
  events = [];
});

afterEach(async () => {
  await pool[Symbol.asyncDispose]();
  tree[Symbol.dispose]();
});

function sinkOf(name: string): ImageSink {
  return {
    addLayer: (layer, { changed }) => {
      events.push(`${name}: a layer begins${changed ? ", changed" : ""}`);
      layer.done.catch(() => {});
    },
    publish: async (image, { reused }) => {
      events.push(`${name}: ${image.kind}${reused ? ", reused" : ""}`);
      return { reference: name, all: [name] };
    },
  };
}

function scratch(): Promise<Base> {
  const spec = parseBase("scratch", tree.path);
  return readBase(openScratch(), { spec, shown: "scratch", signal: new AbortController().signal });
}

/** Builds programs as a run without a cache does. */
async function build(
  args: readonly string[],
  { base = scratch(), platforms = ["linux/amd64"] }: { base?: Promise<Base>; platforms?: readonly string[] } = {},
): Promise<ReturnType<typeof buildImages>> {
  const { host, log, setups } = goWorld(tree.at("app"));
  const finder = new ProgramFinder({
    host,
    log,
    timing: noTiming,
    go: "go",
    platform: undefined,
    setups,
    cache: undefined,
    builds: undefined,
  });
  const found = await finder.find(args);
  const folder = tree.at("run");
  mkdirSync(folder, { recursive: true });
  const options: BuildImagesOptions = {
    context: { host, log, timing: noTiming, signal: host.signal, cache: undefined },
    reuse: "commit",
    compile: { go: "go", jobs: 0 },
    setups,
    warnings: new RunWarnings(log),
    builds: undefined,
    lister: { list: (compiled, programs) => finder.list(found, compiled, programs) },
    folder,
    image: {
      compression: FAST_GZIP,
      labels: new Map(),
      annotations: new Map(),
      user: undefined,
      created: undefined,
      kodataCreated: undefined,
    },
    pool,
  };
  const requests = choosePrograms(found).map((program): BuildRequest => {
    const name = program.importPath.slice("example.com/app/cmd/".length);
    return { program, base, sink: sinkOf(name) };
  });
  return buildImages(await planBuilds(requests, platforms, options), options);
}

const BOTH = ["./cmd/app", "./cmd/more"];

describe("buildImages()", () => {
  test("publishes when everything is compiled; layers begin before that", async () => {
    const results = await build(BOTH);
    expect(Array.isArray(results) && results.map(({ published, reasons }) => [published.reference, reasons])).toEqual([
      ["app", [{ reason: "it is not in the cache" }]],
      ["more", [{ reason: "it is not in the cache" }]],
    ]);
    const last = Math.max(...events.map((event, i) => (event.includes("begins") ? i : -1)));
    expect(events.slice(last + 1).toSorted()).toEqual(["app: image", "more: image"]);
    // Kodata and program of each.
    expect(events.slice(0, last + 1).toSorted()).toEqual([
      "app: a layer begins",
      "app: a layer begins",
      "more: a layer begins",
      "more: a layer begins",
    ]);
  });

  test("makes an index of several platforms", async () => {
    await build(["./cmd/app"], { platforms: ["linux/amd64", "linux/arm64"] });
    expect(events.filter((event) => !event.includes("begins"))).toEqual(["app: index"]);
  });

  test("publishes nothing if one of two programs does not compile", async () => {
    tree.write({ "app/cmd/more/main.go": "package main\n\nfunc main() { nothing() }\n" });
    expect(String(await rejectionOf(build(BOTH)))).toContain("undefined: nothing");
    expect(events.filter((event) => !event.includes("begins"))).toEqual([]);
  });

  test("ends with the failure of a base, and publishes nothing", async () => {
    const lazy = await scratch();
    const image = (): Promise<never> => Promise.reject(new Error("the base is gone"));
    const base: Base = { ...lazy, image };
    expect(String(await rejectionOf(build(BOTH, { base: Promise.resolve(base) })))).toContain("gone");
    expect(events.filter((event) => !event.includes("begins"))).toEqual([]);
  });
});
