import { afterEach, describe, expect, test } from "bun:test";
import { relative } from "node:path";
import { ancestors } from "../lib/file.ts";
import { embedFolders, globMatcher, isImmutable, planPattern, planSources } from "../lib/go-sources.ts";
import { type GoModule, type GoPackage, parsePackages } from "../lib/go.ts";
import { goMod, goWorld, listPrograms } from "./helpers/go.ts";
import { MODULES } from "./helpers/world-bench.ts";
import { type Files, type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree;

afterEach(() => tree[Symbol.dispose]());

describe("embedFolders()", () => {
  const FILES: Files = {
    "static/a.txt": "",
    "static/sub/b.txt": "",
    "static/empty": null,
    "other/c.txt": "",
    "top.txt": "",
    "static/.git/x": "",
  };
  test.each<[string, readonly string[]]>([
    ["top.txt", []],
    ["*.txt", [""]],
    ["static", ["static", "static/empty", "static/sub"]],
    ["all:static", ["static", "static/empty", "static/sub"]],
    ["static/a.txt", []],
    ["static/*", ["static", "static/empty", "static/sub"]],
    ["static/*.txt", ["static"]],
    ["stat*/a.txt", ["", "static"]],
    ["*/sub", ["", "other", "static", "static/sub"]],
    ["[os]t[a-z]tic", ["", "static", "static/empty", "static/sub"]],
    ["nothing", []],
    ["stat\\ic", ["", "static", "static/empty", "static/sub"]],
  ])("%s", (pattern, folders) => {
    tree = writeTree(FILES);
    const found = embedFolders(tree.path, [pattern]).map((dir) => relative(tree.path, dir));
    expect(found.sort()).toEqual([...folders]);
  });
});

describe("globMatcher()", () => {
  test.each([
    ["*.txt", "a.txt", true],
    ["*.txt", "a.txtx", false],
    ["a?c", "abc", true],
    ["a?c", "abbc", false],
    ["[a-c]x", "bx", true],
    ["a\\*b", "a*b", true],
    ["a+(b)", "a+(b)", true],
  ])("%s and %s: %p", (part, name, is) => expect(globMatcher(part)(name)).toBe(is));
});

test("ancestors() begins with the folder itself", () => {
  expect(ancestors("/a/b")).toEqual(["/a/b", "/a", "/"]);
});

describe("isImmutable()", () => {
  const module: GoModule = { path: "m", version: "v1.0.0", dir: "/mod/m", main: false, goMod: undefined, local: false };
  const found = parsePackages(new TextEncoder().encode(`{\n"Dir": "/mod/m/p"\n}\n`));
  test.each<[string, Partial<GoModule> | undefined, boolean]>([
    ["a version in the module cache", {}, true],
    ["the main module", { main: true, version: undefined }, false],
    ["a local replacement", { local: true }, false],
    ["a vendored module", { dir: undefined }, false],
    ["a package elsewhere", { dir: "/mod/mm" }, false],
    ["no module", undefined, false],
  ])("%s", (_name, change, is) => {
    const packages = found.map((each) => ({
      ...each,
      module: change === undefined ? undefined : { ...module, ...change },
    }));
    expect(packages.map(isImmutable)).toEqual([is]);
  });
});

async function plan(args: readonly string[], files: Files = {}, cwd = "app"): Promise<ReturnType<typeof planSources>> {
  tree = writeTree({ ...MODULES, ...files });
  const world = goWorld(tree.at(cwd));
  const { packages, programs } = await listPrograms(args, { ...world, platform: undefined });
  const [first] = programs;
  if (first === undefined) throw new Error("no program");
  const options = { go: Bun.which("go") ?? "", settings: [], gowork: undefined };
  return planSources(first, [...packages.values()].flat(), options);
}

describe("planSources()", () => {
  test("names what decides, and nothing of what does not", async () => {
    const found = await plan(["./cmd/app"], { "app/go.sum": "" });
    if ("why" in found) throw new Error(found.why);
    const below = (paths: readonly string[]): readonly string[] =>
      paths
        .filter((path) => path.startsWith(tree.path))
        .map((path) => relative(tree.path, path))
        .sort();
    expect(below(found.folders.map(({ dir }) => dir))).toEqual(["app/cmd/app", "app/lib", "dep"]);
    const files = below(found.files).filter((path) => !/\.(?:git|hg|svn|bzr|fslckout)$|_FOSSIL_$/.test(path));
    expect(files).toEqual([
      "app/cmd/app/go.mod",
      "app/cmd/app/go.work",
      "app/cmd/go.mod",
      "app/cmd/go.work",
      "app/go.mod",
      "app/go.sum",
      "app/go.work",
      "app/lib/go.mod",
      "app/vendor",
      "app/vendor/modules.txt",
      "dep/go.mod",
      "dep/go.sum",
      "dep/vendor",
      "dep/vendor/modules.txt",
      "go.mod",
      "go.work",
    ]);
    expect(found.files.some((path) => path.endsWith("/compile"))).toBe(true);
    expect(found.folders.some(({ dir }) => dir.endsWith("/src/runtime"))).toBe(true);
  });

  test("follows a workspace to all that it uses and replaces", async () => {
    const found = await plan(["./cmd/app"], {
      "go.work": 'go 1.21\n\nuse (\n\t./app\n\t"./my third"\n)\n',
      "my third/go.mod": goMod("example.com/third", {
        more: '\nrequire example.com/x v0.0.0\n\nreplace example.com/x => "../x y"\n',
      }),
      "x y/go.mod": goMod("example.com/x"),
    });
    if ("why" in found) throw new Error(found.why);
    expect(found.files).toContain(tree.at("my third/go.mod"));
    expect(found.files).toContain(tree.at("x y/go.mod"));
    expect(found.files).toContain(tree.at("go.work.sum"));
  });

  test("says why it cannot", async () => {
    tree = writeTree(MODULES);
    const { packages, programs } = await listPrograms(["./cmd/app"], {
      ...goWorld(tree.at("app")),
      platform: undefined,
    });
    const all = [...packages.values()].flat();
    const [app] = programs;
    const why = (change: (each: GoPackage) => GoPackage | undefined): unknown =>
      app &&
      planSources(
        app,
        all.flatMap((each) => change(each) ?? []),
        { go: "", settings: [], gowork: undefined },
      );
    const only =
      (path: string, change: Partial<GoPackage>) =>
      (each: GoPackage): GoPackage =>
        each.importPath === path ? { ...each, ...change } : each;
    expect(why(() => undefined)).toEqual({ why: "go list does not list example.com/app/cmd/app" });
    expect(why((each) => (each.importPath === "example.com/dep" ? undefined : each))).toEqual({
      why: "go list does not list example.com/dep",
    });
    expect(why(only("runtime", { cgoFiles: ["x.go"] }))).toEqual({
      why: "runtime needs a C compiler, whose files ko does not know",
    });
    expect(why(only("example.com/dep", { module: undefined }))).toEqual({ why: "example.com/dep is in no module" });
    expect(why(only("example.com/dep", { goFiles: ["\ufffd.go"] }))).toEqual({
      why: "example.com/dep has a file whose name is not valid UTF-8",
    });
    expect(why(only("example.com/dep", { dir: "" }))).toEqual({ why: "there is a problem with example.com/dep" });
  });
});

test("planPattern() looks where go would", async () => {
  tree = writeTree({
    ...MODULES,
    "app/_skip/x.go": "",
    "app/testdata/x.go": "",
    "app/nested/go.mod": "module x\n",
    "app/nested/deep/x": "",
    "app/empty": null,
  });
  const { packages, programs } = await listPrograms(["./..."], { ...goWorld(tree.at("app")), platform: undefined });
  const all = [...packages.values()].flat();
  const named = all.filter(({ depOnly, standard }) => !depOnly && !standard);
  const options = { go: "", settings: [], gowork: undefined, root: tree.at("app"), packages: all };
  const { files, folders } = planPattern(programs, named, options);
  expect(folders.map(({ dir, kind, seen }) => `${kind} ${relative(tree.path, dir)} ${seen?.join()}`).sort()).toEqual([
    "tree app undefined",
    "tree app/cmd undefined",
    "tree app/cmd/app main.go",
    "tree app/cmd/app/kodata undefined",
    "tree app/empty undefined",
    "tree app/lib lib.go,never.go",
    "tree app/other other.go",
  ]);
  expect(files).toContain(tree.at("app/nested/go.mod"));
});
