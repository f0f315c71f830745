import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { failuresOf } from "./helpers/failures.ts";
import { countingGo, goMod, type GoWorld, goWorld, listPrograms, mainGo } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

const LINUX = { os: "linux", architecture: "amd64" };

/** Import paths, each with its folder and where go must run, both relative to the tree. */
async function list(args: readonly string[], world: GoWorld, tree: Tree): Promise<readonly string[]> {
  const { programs } = await listPrograms(args, { ...world, platform: LINUX });
  const short = (path: string): string => relative(tree.path, path) || ".";
  return programs.map(({ importPath, dir, workDir }) => `${importPath} ${short(dir)} @ ${short(workDir)}`);
}

const APP = {
  "go.mod": goMod("example.com/app", {
    more: "\nrequire example.com/dep v1.0.0\n\nreplace example.com/dep => ../dep\n",
  }),
  "main.go": mainGo(),
  "cmd/a/main.go": mainGo(),
  "cmd/b/main.go": mainGo(),
  "cmd/win/main_windows.go": mainGo(),
  "cmd/tests/main_test.go": "package main\n",
  "lib/lib.go": "package lib\n",
};

/** A module with a replacement beside it and a module of its own inside. */
function writeApp(): Tree {
  return writeTree({
    ...Object.fromEntries(Object.entries(APP).map(([path, text]) => [`app/${path}`, text])),
    "dep/go.mod": goMod("example.com/dep"),
    "dep/cmd/d/main.go": mainGo(),
    "app/nested/go.mod": goMod("example.com/app/nested"),
    "app/nested/cmd/n/main.go": mainGo(),
    "app/.git/HEAD": "",
  });
}

describe("findPrograms() and choosePrograms()", () => {
  const A = "example.com/app/cmd/a app/cmd/a @ app";
  const B = "example.com/app/cmd/b app/cmd/b @ app";
  const MAIN = "example.com/app app @ app";
  const DEP = "example.com/dep/cmd/d dep/cmd/d @ app";
  const NESTED = "example.com/app/nested/cmd/n app/nested/cmd/n @ app/nested";

  test.each([
    ["an import path", ["example.com/app/cmd/a"], [A]],
    ["a relative path", ["./cmd/a"], [A]],
    ["the folder itself", ["."], [MAIN]],
    ["a reference", ["ko://example.com/app/cmd/a"], [A]],
    ["a reference with a relative path", ["ko://./cmd/a"], [A]],
    ["a slash at the end", ["./cmd/a/", "example.com/app/cmd/b/", "ko://example.com/app/cmd/b/"], [A, B]],
    ["a Go file", ["./cmd/a/main.go"], [A]],
    ["a Go file without the dot", ["cmd/a/main.go"], [A]],
    ["a path with detours", ["./cmd/../cmd//a"], [A]],
    ["several names of one program once", ["./cmd/a", "example.com/app/cmd/a", "./cmd/a/main.go"], [A]],
    ["arguments in their order", ["./cmd/b", "./cmd/a"], [B, A]],
    ["a pattern: main packages only", ["./..."], [MAIN, A, B]],
    ["a pattern after an argument that it holds", ["./cmd/b", "./..."], [B, MAIN, A]],
    ["a pattern in the middle", ["./c.../a"], [A]],
    ["a pattern of import paths", ["example.com/app/cmd/..."], [A, B]],
    ["a pattern that reaches into a dependency", ["example.com/dep/..."], [DEP]],
    ["a program of a replaced module", ["example.com/dep/cmd/d"], [DEP]],
    ["a path into a replaced module", ["../dep/cmd/d"], [DEP]],
    ["a path into a module inside", ["./nested/cmd/n"], [NESTED]],
    ["an import path of a module inside", ["example.com/app/nested/cmd/n"], [NESTED]],
    ["a pattern of a module inside", ["./nested/...", "example.com/app/nested/..."], [NESTED]],
    ["both modules", ["./nested/cmd/n", "./cmd/a"], [NESTED, A]],
    ["nothing", [], []],
  ])("takes %s", async (_name, args, want) => {
    using tree = writeApp();
    expect(await list(args, goWorld(tree.at("app")), tree)).toEqual(want);
  });

  test("takes an absolute path", async () => {
    using tree = writeApp();
    expect(await list([tree.at("app/cmd/a"), tree.at("app/cmd/...")], goWorld(tree.at("app")), tree)).toEqual([A, B]);
  });

  test.each([
    ["a path out of it", ["../../cmd/a", "../cmd/n"], ["example.com/app/cmd/a app/cmd/a @ app", NESTED]],
    ["an import path of the module around", ["example.com/app/cmd/a"], [A]],
  ])("takes, in a nested module, %s", async (_name, args, want) => {
    using tree = writeApp();
    expect(await list(args, goWorld(tree.at("app/nested/cmd")), tree)).toEqual(
      want.map((each) => each.replace("nested/cmd/n @ app/nested", "nested/cmd/n @ app/nested/cmd")),
    );
  });

  test("takes modules below a folder without module", async () => {
    using tree = writeApp();
    const world = goWorld(tree.path);
    const want = [A, "example.com/dep/cmd/d dep/cmd/d @ dep", NESTED];
    expect(await list(["./app/cmd/a", "./dep/cmd/d", "./app/nested/..."], world, tree)).toEqual(want);
    expect(await list(["example.com/app/cmd/a", "example.com/dep/cmd/d"], world, tree)).toEqual(want.slice(0, 2));
  });

  test("takes programs of a workspace, and heeds GOWORK=off", async () => {
    using tree = writeApp();
    tree.write({ "app/go.work": "go 1.24\n\nuse (\n\t.\n\t./nested\n)\n" });
    const both = ["./nested/cmd/n", "example.com/app/nested/cmd/n", "./cmd/a"];
    expect(await list(both, goWorld(tree.at("app")), tree)).toEqual([
      "example.com/app/nested/cmd/n app/nested/cmd/n @ app",
      A,
    ]);
    expect(await list(both, goWorld(tree.at("app"), { GOWORK: "off" }), tree)).toEqual([NESTED, A]);
  });

  test("says how to add a module that a workspace leaves out", async () => {
    using tree = writeApp();
    tree.write({ "app/go.work": "go 1.24\n\nuse .\n" });
    const work = listPrograms(["./nested/cmd/n"], { ...goWorld(tree.at("app")), platform: LINUX });
    const [failure] = await failuresOf(work, tree.path);
    expect(failure?.message).toStartWith(
      'Cannot build "./nested/cmd/n": main module (example.com/app) does not contain ',
    );
    expect(failure?.hint).toBe("Run: go work use ./nested");
  });

  test("takes a program of a dependency that is vendored", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app", { more: "\nrequire example.com/dep v1.0.0\n" }),
      "tools.go": '//go:build tools\n\npackage tools\n\nimport _ "example.com/dep/cmd/d"\n',
      "vendor/modules.txt": "# example.com/dep v1.0.0\n## explicit; go 1.24\nexample.com/dep/cmd/d\n",
      "vendor/example.com/dep/cmd/d/main.go": mainGo(),
    });
    const want = ["example.com/dep/cmd/d vendor/example.com/dep/cmd/d @ ."];
    expect(await list(["example.com/dep/cmd/d"], goWorld(tree.path), tree)).toEqual(want);
    const world = goWorld(tree.path, { GOFLAGS: "-mod=vendor -buildvcs=false" });
    expect(await list(["ko://example.com/dep/cmd/d"], world, tree)).toEqual(want);
  });

  test("takes programs without modules, and those of Go itself", async () => {
    using tree = writeTree({ "src/example.com/x/cmd/a/main.go": mainGo(), "go.mod": goMod("m") });
    const old = goWorld(tree.at("src/example.com/x"), { GO111MODULE: "off", GOPATH: tree.path });
    const want = "example.com/x/cmd/a src/example.com/x/cmd/a @ src/example.com/x";
    expect(await list(["example.com/x/cmd/a", "./cmd/a", "./..."], old, tree)).toEqual([want]);
    const { programs } = await listPrograms(["cmd/gofmt"], { ...goWorld(tree.path), platform: undefined });
    expect(programs.map(({ importPath, module }) => [importPath, module])).toEqual([["cmd/gofmt", undefined]]);
  });

  test("keeps the whole answer: text as given, module, packages by folder", async () => {
    using tree = writeApp();
    const options = { ...goWorld(tree.at("app")), platform: LINUX };
    const { programs, packages } = await listPrograms(["ko://./cmd/a", "./nested/cmd/n"], options);
    const module = { version: undefined, main: true, local: false };
    expect(programs).toEqual([
      {
        importPath: "example.com/app/cmd/a",
        dir: tree.at("app/cmd/a"),
        module: { ...module, path: "example.com/app", dir: tree.at("app"), goMod: tree.at("app/go.mod") },
        workDir: tree.at("app"),
        text: "ko://./cmd/a",
      },
      {
        importPath: "example.com/app/nested/cmd/n",
        dir: tree.at("app/nested/cmd/n"),
        module: {
          ...module,
          path: "example.com/app/nested",
          dir: tree.at("app/nested"),
          goMod: tree.at("app/nested/go.mod"),
        },
        workDir: tree.at("app/nested"),
        text: "./nested/cmd/n",
      },
    ]);
    expect([...packages.keys()]).toEqual([tree.at("app"), tree.at("app/nested")]);
    expect(packages.get(tree.at("app"))?.some((each) => each.importPath === "runtime")).toBe(true);
  });

  test("starts go once for good arguments of one module", async () => {
    using tree = writeApp();
    tree.write({ "bin/go": countingGo(tree.at("log")) });
    const world = { ...goWorld(tree.at("app")), go: "../bin/go" };
    await list(["./cmd/a", "example.com/app/cmd/b", "./...", "example.com/dep/cmd/d"], world, tree);
    expect(readFileSync(tree.at("log"), "utf8")).toBe("list\n");
  });

  test.each([
    ["nothing matches", "./docs/...", "no package matches"],
    ["no import path matches", "example.com/zzz/...", "no package matches"],
    ["one library matches", "./lib/...", "the one package it matches is not package main"],
    ["libraries match", "./l...", "none of the 2 packages it matches is package main"],
    ["nothing but a test matches", "./cmd/tests/...", "the one package it matches is not package main"],
    ["it begins nowhere", "./none/...", "there is no folder ./none"],
    ["it is empty", "", "it is empty, wanted an import path or a folder"],
    ["it is a reference to nothing", "ko://", "it is empty, wanted an import path or a folder"],
    ["it looks like a flag", "-o=/etc/passwd", "no import path begins with a dash"],
  ])("refuses an argument when %s", async (_name, text, why) => {
    using tree = writeTree({
      ...APP,
      "go.mod": goMod("example.com/app"),
      "lab/lab.go": "package lab\n",
      "docs/x.md": "",
    });
    const failures = await failuresOf(listPrograms([text], { ...goWorld(tree.path), platform: LINUX }), tree.path);
    expect(failures).toEqual([{ message: `Cannot build "${text}": ${why}`, hint: undefined }]);
  });

  test("tells of every broken program that a pattern matches, by its import path", async () => {
    using tree = writeTree({
      ...APP,
      "cmd/two/a.go": mainGo(),
      "cmd/two/b.go": "package other\n",
      "cmd/unknown/a.go": "pakage main\n",
      "broken/a.go": 'package broken\n\nimport "x\n',
    });
    const failures = await failuresOf(listPrograms(["./..."], { ...goWorld(tree.path), platform: LINUX }), tree.path);
    expect(failures.map((each) => each.message)).toEqual([
      'Cannot build "example.com/app/cmd/two": found packages main (a.go) and other (b.go) in $DIR/cmd/two',
      `Cannot build "example.com/app/cmd/unknown": cmd/unknown/a.go:1:1: expected 'package', found pakage`,
    ]);
  });

  test("names the modules below when there is none here", async () => {
    using tree = writeApp();
    const work = listPrograms(["./..."], { ...goWorld(tree.path), platform: LINUX });
    expect(await failuresOf(work, tree.path)).toEqual([
      {
        message:
          'Cannot build "./...": pattern ./...: directory prefix . does not contain main module or its selected dependencies',
        hint: 'Did you mean "./app/..."?',
      },
    ]);
  });

  test("tells once of what keeps go from working at all", async () => {
    using tree = writeTree({ "go.mod": goMod("a", { go: "1.999" }), "cmd/a/main.go": mainGo() });
    const work = listPrograms(["./cmd/a", "./cmd/b", "-x"], { ...goWorld(tree.path), platform: LINUX });
    expect((await failuresOf(work, tree.path)).map((each) => each.message.replace(/\(.*\)/, "(…)"))).toEqual([
      'Cannot read the Go packages of "$DIR": go.mod requires go >= 1.999 (…)',
      'Cannot build "-x": no import path begins with a dash',
    ]);
  });
});
