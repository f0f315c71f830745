import { afterEach, describe, expect, test } from "bun:test";
import { relative } from "node:path";
import { downloadCache, downloadedFiles, planDownloads, planModules, planRivals } from "../lib/go-sources-modules.ts";
import { PlanMaker } from "../lib/go-sources-plan.ts";
import { type GoModule, type GoPackage, parsePackages } from "../lib/go.ts";
import { goMod } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree = writeTree({});

afterEach(() => tree[Symbol.dispose]());

function pack(importPath: string, { dir = "", standard = false, module }: Partial<GoPackage> = {}): GoPackage {
  const [found] = parsePackages(new TextEncoder().encode("{\n}\n"));
  if (found === undefined) throw new RangeError("no package");
  return { ...found, importPath, dir, standard, module };
}

const cached = (path: string, version: string): GoModule => ({
  path,
  version,
  dir: tree.at(`mod/${path}@${version}`),
  main: false,
  local: false,
  goMod: tree.at(`mod/cache/download/${path}/@v/${version}.mod`),
});

const below = (paths: readonly string[]): readonly string[] => paths.map((path) => relative(tree.path, path)).sort();

describe("planModules()", () => {
  test("returns the local modules, by the paths that they replace too", () => {
    tree = writeTree({
      "app/go.mod": goMod("example.com/app", {
        more: '\nreplace (\n\texample.com/a => ../a\n\t"example.com/b" v1.0.0 => ../b // ../c\n)\nreplace example.com/d v1 => ../d\n',
      }),
      "a/go.mod": goMod("example.com/other"),
      "b/go.mod": goMod("example.com/b"),
      "c/go.mod": goMod("example.com/c"),
    });
    const program = { dir: tree.at("app"), workDir: tree.at("app") };
    const found = planModules(new PlanMaker(), [], { program, settings: [], gowork: undefined });
    const named = found.local.map(({ dir, path }) => `${relative(tree.path, dir)} ${path}`);
    expect([...new Set(named)].sort()).toEqual([
      "a example.com/a",
      "a example.com/other",
      "app example.com/app",
      "b example.com/b",
      "c example.com/b",
      "c example.com/c",
    ]);
    expect(below(found.sums)).toEqual(["a/go.sum", "app/go.sum", "b/go.sum", "c/go.sum"]);
    expect(found.isWhole).toBe(false);
  });

  test.each([
    ["a go.mod of a Go that reads the whole graph", { "app/go.mod": goMod("example.com/app", { go: "1.16" }) }, true],
    ["a go.mod without a go line", { "app/go.mod": "module example.com/app\n" }, true],
    ["a workspace", { "app/go.mod": goMod("example.com/app"), "go.work": "go 1.21\n\nuse ./app\n" }, true],
    ["a newer go.mod", { "app/go.mod": goMod("example.com/app", { go: "1.24.0" }) }, false],
  ])("tells whether go reads the whole module graph: %s", (_what, files, isWhole) => {
    tree = writeTree(files);
    const program = { dir: tree.at("app"), workDir: tree.at("app") };
    expect(planModules(new PlanMaker(), [], { program, settings: [], gowork: undefined }).isWhole).toBe(isWhole);
  });
});

describe("planRivals()", () => {
  test("looks where another module would provide a package", () => {
    tree = writeTree({ "app/api/README.md": "", "app/go.mod": "", "goroot/src/cmp/x": "" });
    const plan = new PlanMaker();
    const packages = [
      pack("example.com/app/cmd", { dir: tree.at("app/cmd") }),
      pack("example.com/app/api", { dir: tree.at("api") }),
      pack("example.com/app/api/deep", { dir: tree.at("api/deep") }),
      pack("example.com/application", { dir: tree.at("application") }),
      pack("cmp/own", { dir: tree.at("own") }),
      pack("fmt", { dir: tree.at("goroot/src/fmt"), standard: true }),
    ];
    const local = [
      { dir: tree.at("app"), path: "example.com/app" },
      { dir: tree.at("shadow"), path: "fmt" },
    ];
    planRivals(plan, packages, { goroot: tree.at("goroot"), local });
    const { files, folders } = plan.done();
    expect(folders.map(({ dir, kind }) => `${kind} ${relative(tree.path, dir)}`)).toEqual(["entries app/api"]);
    expect(below(files)).toEqual([
      "app/api/deep",
      "app/api/deep/go.mod",
      "app/api/go.mod",
      "app/go.mod",
      "goroot/src/cmp/own",
      "shadow",
      "shadow/go.mod",
    ]);
  });
});

describe("planDownloads()", () => {
  const SUM = [
    "example.com/far v1.0.0 h1:x",
    "example.com/far v1.0.0/go.mod h1:x",
    "example.com v2.0.0 h1:x",
    "example.com v2.0.0/go.mod h1:x",
    "example.com/Other v1.0.0/go.mod h1:x",
    "example.com/gone v1.0.0/go.mod h1:x",
    "",
  ].join("\n");

  test.each([
    [
      "of modules whose path leads to a package",
      false,
      ["example.com/@v v2.0.0.info v2.0.0.mod v2.0.0.partial v2.0.0.ziphash"],
    ],
    [
      "of all modules in the graph",
      true,
      [
        "example.com/!other/@v v1.0.0.mod",
        "example.com/@v v2.0.0.info v2.0.0.mod v2.0.0.partial v2.0.0.ziphash",
        "example.com/far/@v v1.0.0.mod",
      ],
    ],
  ])("adds files %s", (_what, isWhole, expected) => {
    tree = writeTree({
      "go.sum": SUM,
      "mod/cache/download/example.com/far/@v": null,
      "mod/cache/download/example.com/!other/@v": null,
      "mod/cache/download/example.com/@v": null,
    });
    const plan = new PlanMaker();
    const packages = [pack("example.com/far/x", { module: cached("example.com/far", "v1.0.0") })];
    planDownloads(plan, packages, { isWhole, sums: [tree.at("go.sum"), tree.at("none")] });
    const { files, folders } = plan.done();
    const shown = folders.map(
      ({ dir, names }) => `${relative(tree.at("mod/cache/download"), dir)} ${names?.join(" ")}`,
    );
    expect(shown.sort()).toEqual(expected);
    expect(below(files)).toEqual(["mod/example.com@v2.0.0"]);
  });
});

test.each([
  ["/mod/cache/download/a.b/c/@v/v1.0.0.mod", ["info", "mod", "partial", "ziphash"], "/mod"],
  ["/work/app/go.mod", [], undefined],
  [undefined, [], undefined],
])("downloadedFiles() and downloadCache() of %s", (path, ends, cache) => {
  expect(downloadedFiles(path)).toEqual(ends.map((end) => `/mod/cache/download/a.b/c/@v/v1.0.0.${end}`));
  const module = { path: "a.b/c", version: "v1.0.0", dir: undefined, main: false, local: false, goMod: path };
  expect(downloadCache(module)).toBe(cache);
});
