import { describe, expect, test } from "bun:test";
import { findModuleDir, findModulesBelow, findOwner, findSurroundings, readModulePath } from "../lib/go-modules.ts";
import { goMod } from "./helpers/go.ts";
import { writeTree } from "./helpers/world-folders.ts";

describe("findSurroundings()", () => {
  test.each([
    ["a module", "m/sub", {}, { moduleDir: "m", workspace: undefined, modules: true }],
    ["a workspace around a module", "w/m", {}, { moduleDir: "w/m", workspace: "w", modules: true }],
    ["GOWORK=off", "w/m", { GOWORK: "off" }, { moduleDir: "w/m", workspace: undefined, modules: true }],
    ["GOWORK with a path", "m", { GOWORK: "/x/go.work" }, { moduleDir: "m", workspace: "/x/go.work", modules: true }],
    ["GO111MODULE=off", "m", { GO111MODULE: "off" }, { moduleDir: "m", workspace: undefined, modules: false }],
    ["nothing", "none", {}, { moduleDir: undefined, workspace: undefined, modules: true }],
  ])("sees %s", async (_name, cwd, env, want) => {
    using tree = writeTree({
      "m/go.mod": goMod("m"),
      "m/sub": null,
      "w/go.work": "go 1.24\n",
      "w/m/go.mod": goMod("wm"),
      none: null,
    });
    const absolute = (path: string | undefined): string | undefined => path && tree.at(path);
    const moduleDir = absolute(want.moduleDir);
    const workspace = want.workspace === "/x/go.work" ? want.workspace : absolute(want.workspace);
    expect(findSurroundings(tree.at(cwd), { get: (key) => new Map(Object.entries(env)).get(key) ?? "" })).toEqual({
      ...want,
      moduleDir,
      workspace,
    });
  });
});

describe("findModuleDir()", () => {
  test("starts at a folder that is not there, and takes no folder for a go.mod", async () => {
    using tree = writeTree({ "go.mod": goMod("m"), "a/go.mod": null });
    expect(findModuleDir(tree.at("a/b/c"))).toBe(tree.path);
  });
});

describe("findModulesBelow()", () => {
  test("finds the modules of the whole work tree, but for those that go would not look at", async () => {
    using tree = writeTree({
      ".git/HEAD": "",
      "go.mod": goMod("example.com/root"),
      "a/go.mod": '// module wrong\nmodule "example.com/a" // right\n',
      "a/b/go.mod": goMod("example.com/a/b"),
      "broken/go.mod": "go 1.24\n",
      "node_modules/x/go.mod": goMod("no"),
      "vendor/x/go.mod": goMod("no"),
      "testdata/go.mod": goMod("no"),
      "_x/go.mod": goMod("no"),
      ".x/go.mod": goMod("no"),
      loop: { link: "." },
    });
    expect(await findModulesBelow(tree.at("a/b"), tree.at("a/b"))).toEqual([
      { dir: tree.path, path: "example.com/root" },
      { dir: tree.at("a"), path: "example.com/a" },
      { dir: tree.at("a/b"), path: "example.com/a/b" },
    ]);
  });

  test("stays in the folder when there is no git work tree", async () => {
    using tree = writeTree({ "a/go.mod": goMod("a"), "b/go.mod": goMod("b") });
    expect(await findModulesBelow(tree.at("a"), tree.at("a"))).toEqual([{ dir: tree.at("a"), path: "a" }]);
  });
});

describe("findOwner()", () => {
  const modules = ["example.com/a", "example.com/a/b", "example.com/ab"].map((path) => ({ dir: `/${path}`, path }));

  test.each([
    ["example.com/a", "example.com/a"],
    ["example.com/a/x", "example.com/a"],
    ["example.com/a/b/x", "example.com/a/b"],
    ["example.com/ab/b", "example.com/ab"],
    ["example.com/abc", undefined],
    ["example.com", undefined],
  ])("of %s is %s", (importPath, want) => {
    expect(findOwner(importPath, modules)?.path).toBe(want);
  });
});

describe("readModulePath()", () => {
  test.each([
    ["module example.com/a\n", "example.com/a"],
    ["\tmodule\texample.com/a//x\r\n", "example.com/a//x"],
    ['// Module.\nmodule "example.com/a"\n', "example.com/a"],
    ["modulex\n", undefined],
    ["", undefined],
  ])("case %#", async (text, want) => {
    using tree = writeTree({ "go.mod": text });
    expect(readModulePath(tree.path)).toBe(want);
  });

  test("knows nothing of a folder without go.mod", async () => {
    using tree = writeTree({});
    expect(readModulePath(tree.path)).toBeUndefined();
  });
});
