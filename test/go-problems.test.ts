import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { splitRemedy } from "../lib/go-problems.ts";
import { failuresOf } from "./helpers/failures.ts";
import { goMod, type GoWorld, goWorld, listPrograms, mainGo } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

const LINUX = { os: "linux", architecture: "amd64" };

/** A main package that imports one thing. */
function importing(path: string): string {
  return `package main\n\nimport _ "${path}"\n\nfunc main() {}\n`;
}

const FILES = {
  "go.mod": goMod("example.com/app"),
  "cmd/app/main.go": mainGo(),
  "cmd/app/gen.go": "//go:build ignore\n\npackage main\n",
  "cmd/other/main.go": mainGo(),
  "lib/lib.go": "package lib\n",
  "tools/tools.go": "package tools\n",
  "tools/gen/main.go": mainGo(),
  "docs/x.md": "",
  "win/main_windows.go": mainGo(),
  "tagged/main.go": `//go:build special\n\n${mainGo()}`,
  "cgo/main.go": `package main\n\n// #include <stdio.h>\nimport "C"\n\nfunc main() { C.f() }\n`,
  "group/main.go": `package main\n\nimport (\n\t"fmt"\n\t"C" // for f\n)\n\nfunc main() { C.f() }\n`,
  "cgolib/c.go": `package cgolib\n\nimport "C"\n`,
  "usescgo/main.go": importing("example.com/app/cgolib"),
  "winlib/l_windows.go": "package winlib\n",
  "useswin/main.go": importing("example.com/app/winlib"),
  "header/main.go": 'package main\n\nimport "fmt\n\nfunc main() {}\n',
  "noclause/main.go": "pakage main\n",
  "two/a.go": mainGo(),
  "two/b.go": "package other\n",
  "onlytest/main_test.go": "package main\n",
  "embed/main.go": `package main\n\nimport _ "embed"\n\n//go:embed none.txt\nvar s string\n\nfunc main() {}\n`,
  "missing/main.go": importing("example.com/elsewhere/x"),
  "gone/main.go": importing("example.com/app/gonelib"),
  "both/main.go": 'package main\n\nimport (\n\t_ "example.com/b/x"\n\t_ "example.com/a/x"\n)\n\nfunc main() {}\n',
  "cycle/main.go": importing("example.com/app/c1"),
  "c1/c.go": 'package c1\n\nimport _ "example.com/app/c2"\n',
  "c2/c.go": 'package c2\n\nimport _ "example.com/app/c1"\n',
  "usesmain/main.go": importing("example.com/app/cmd/app"),
};

describe("explainPackage()", () => {
  let tree: Tree;
  let world: GoWorld;
  beforeAll(() => {
    tree = writeTree(FILES);
    world = goWorld(tree.path);
  });
  afterAll(() => tree[Symbol.dispose]());

  test.each([
    ["another package", "./lib", "it is a library (package lib), wanted package main", undefined],
    [
      "a package with programs below",
      "./tools",
      "it is a library (package tools), wanted package main",
      "Programs below it: ./tools/gen",
    ],
    ["a folder without Go files", "./docs", "the folder $DIR/docs has no Go files, wanted package main", undefined],
    [
      "a folder of programs",
      "./cmd",
      "the folder $DIR/cmd has no Go files, wanted package main",
      "Programs below it: ./cmd/app ./cmd/other",
    ],
    ["a slip in a folder's name", "./cmd/ap", "there is no folder $DIR/cmd/ap", 'Did you mean "./cmd/app"?'],
    ["a folder in another place", "./app", "there is no folder $DIR/app", 'Did you mean "./cmd/app"?'],
    ["a folder like no other", "./zzzzzz", "there is no folder $DIR/zzzzzz", undefined],
    [
      "a slip in an import path",
      "example.com/app/cmd/appp",
      "no required module provides package example.com/app/cmd/appp",
      'Did you mean "example.com/app/cmd/app"?',
    ],
    [
      "an import path of an unknown module",
      "ko://example.com/zz/zzzz",
      "no required module provides package example.com/zz/zzzz",
      "Run: go get example.com/zz/zzzz",
    ],
    [
      "a folder without the dot",
      "cmd/app",
      "package cmd/app is not in std ($GOROOT/src/cmd/app)",
      'Did you mean "./cmd/app"?',
    ],
    [
      "a version",
      "example.com/app/cmd/app@v1",
      "can only use path@version syntax with 'go get' and 'go install' in module-aware mode",
      'Did you mean "example.com/app/cmd/app"?',
    ],
    [
      "a file that takes no part",
      "./cmd/app/gen.go",
      "gen.go takes no part in package main of $DIR/cmd/app",
      "Name a file that go compiles into the program: build constraints leave this one out, or it is a test.",
    ],
    ["only tests", "./onlytest", "the folder $DIR/onlytest has only test files, wanted package main", undefined],
    ["two packages in a folder", "./two", "found packages main (a.go) and other (b.go) in $DIR/two", undefined],
    ["a syntax error among the imports", "./header", "header/main.go:3:8: string literal not terminated", undefined],
    [
      "a syntax error before the imports",
      "./noclause",
      "noclause/main.go:1:1: expected 'package', found pakage",
      undefined,
    ],
    [
      "an embedded file that is not there",
      "./embed",
      "embed/main.go:5:12: pattern none.txt: no matching files found",
      undefined,
    ],
    [
      "a program that is imported",
      "./usesmain",
      'usesmain/main.go:3:8: import "example.com/app/cmd/app" is a program, not an importable package',
      undefined,
    ],
    [
      "a dependency without module",
      "./missing",
      "missing/main.go:3:8: no required module provides package example.com/elsewhere/x",
      "Run: go get example.com/elsewhere/x",
    ],
    [
      "two dependencies without module",
      "./both",
      "\n  both/main.go:4:2: no required module provides package example.com/b/x\n  both/main.go:5:2: no required module provides package example.com/a/x",
      "Run: go mod tidy",
    ],
    [
      "a dependency in its own module that is not there",
      "./gone",
      "gone/main.go:3:8: module example.com/app has no package example.com/app/gonelib",
      undefined,
    ],
    [
      "an import cycle",
      "./cycle",
      "import cycle not allowed: example.com/app/cycle imports example.com/app/c1 imports example.com/app/c2 imports example.com/app/c1",
      undefined,
    ],
  ])("tells of %s", async (_name, text, why, hint) => {
    const goroot = Bun.spawnSync(["go", "env", "GOROOT"]).stdout.toString().trim();
    const failures = await failuresOf(listPrograms([text], { ...world, platform: LINUX }), tree.path);
    expect(failures.map((each) => ({ ...each, message: each.message.replace(goroot, "$GOROOT") }))).toEqual([
      { message: `Cannot build "${text}": ${why}`, hint },
    ]);
  });

  const CGO = "Set CGO_ENABLED=1 and CC to a C compiler for linux/amd64, and use a base image with its C library.";
  const TAGS = "Choose another --platform, or set build tags: flags: [-tags=NAME] in .ko.yaml";

  test.each([
    ["./win", "build constraints exclude all its Go files (main_windows.go)", TAGS],
    ["./tagged", "build constraints exclude all its Go files (main.go)", TAGS],
    [
      "./useswin",
      "example.com/app/winlib, which it imports: build constraints exclude all its Go files (l_windows.go)",
      TAGS,
    ],
    ["./cgo", 'main.go needs cgo (import "C"), and CGO_ENABLED=0', CGO],
    ["./group", 'main.go needs cgo (import "C"), and CGO_ENABLED=0', CGO],
    ["./usescgo", 'example.com/app/cgolib, which it imports: c.go needs cgo (import "C"), and CGO_ENABLED=0', CGO],
  ])("names the platform for %s", async (text, why, hint) => {
    expect(await failuresOf(listPrograms([text], { ...world, platform: LINUX }), tree.path)).toEqual([
      { message: `Cannot build "${text}" for linux/amd64: ${why}`, hint },
    ]);
  });

  test("asks for other tags, cgo and platforms as the user has them", async () => {
    const list = async (text: string, env: Record<string, string>, os = "linux"): Promise<readonly string[]> => {
      const platform = { os, architecture: "amd64" };
      const options = { ...goWorld(tree.path, env), platform };
      return (await listPrograms([text], options)).programs.map((each) => each.importPath);
    };
    expect(await list("./tagged", { GOFLAGS: "-tags=special" })).toEqual(["example.com/app/tagged"]);
    expect(await list("./cgo", { CGO_ENABLED: "1" })).toEqual(["example.com/app/cgo"]);
    expect(await list("./win", {}, "windows")).toEqual(["example.com/app/win"]);
  });

  test("tells of all bad arguments at once, and asks go for advice once", async () => {
    const bad = ["./cmd/ap", "./lib", "./cmd/app", "./win", "./cmd/othr"];
    const failures = await failuresOf(listPrograms(bad, { ...world, platform: LINUX }), tree.path);
    expect(failures.map((each) => each.message)).toEqual([
      'Cannot build "./cmd/ap": there is no folder $DIR/cmd/ap',
      'Cannot build "./lib": it is a library (package lib), wanted package main',
      'Cannot build "./win" for linux/amd64: build constraints exclude all its Go files (main_windows.go)',
      'Cannot build "./cmd/othr": there is no folder $DIR/cmd/othr',
    ]);
  });
});

describe("splitRemedy()", () => {
  test.each([
    ["x; to add it:\n\tgo get a", "x", "go get a"],
    ["missing go.sum entry for y; to add:\n\tgo mod download y", "missing go.sum entry for y", "go mod download y"],
    ["nothing to do", "nothing to do", undefined],
    [
      "module lookup disabled by GOPROXY=off",
      "module lookup disabled by GOPROXY=off",
      "go mod download, while there is a network",
    ],
  ])("case %#", (message, why, remedy) => {
    expect(splitRemedy(message)).toEqual({ why, remedy });
  });
});
