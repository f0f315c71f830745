import { describe, expect, test } from "bun:test";
import {
  matchesFolder,
  matchesImportPath,
  parseArgument,
  patternFor,
  readArgument,
  showPath,
} from "../lib/go-arguments.ts";
import { KoError } from "../lib/errors.ts";
import { mainGo } from "./helpers/go.ts";
import { writeTree } from "./helpers/world-folders.ts";

describe("parseArgument()", () => {
  test.each([
    ["example.com/app", "import", undefined, "example.com/app"],
    ["ko://example.com/app/", "import", undefined, "example.com/app"],
    ["cmd/./app", "import", undefined, "cmd/app"],
    ["example.com/...", "pattern", undefined, "example.com/..."],
    ["all", "pattern", undefined, "all"],
    ["...", "pattern", undefined, "..."],
    [".", "path", "/work", ""],
    ["ko://./cmd/app/", "path", "/work/cmd/app", ""],
    ["..", "path", "/", ""],
    ["/abs/app", "path", "/abs/app", ""],
    [".hidden/app", "import", undefined, ".hidden/app"],
    ["./...", "pattern", "/work", "/..."],
    ["ko://./cmd/.../app/", "pattern", "/work/cmd", "/.../app"],
    ["./cmd/a...", "pattern", "/work/cmd", "/a..."],
    ["/...", "pattern", "/", "/..."],
  ] as const)("%s is a %s", (text, kind, dir, rest) => {
    expect(parseArgument(text, "/work")).toEqual({ kind, dir, rest });
  });
});

describe("readArgument()", () => {
  test("takes a Go file that exists for its package, and everything else as it is written", () => {
    using tree = writeTree({ "cmd/app/main.go": mainGo(), "cmd/dir.go/main.go": mainGo() });
    const read = (text: string): unknown => {
      const found = readArgument(text, tree.path);
      return found instanceof KoError ? found.message : [found.kind, found.dir ?? found.rest, found.file];
    };
    const at = (path: string): string => tree.at(path);
    expect([
      read("./cmd/app/main.go"),
      read("cmd/app/main.go"),
      read("ko://./cmd/app"),
      read("./cmd/dir.go"),
      read("cmd/app/other.go"),
      read(""),
      read("ko://"),
      read("-x"),
    ]).toEqual([
      ["path", at("cmd/app"), "main.go"],
      ["path", at("cmd/app"), "main.go"],
      ["path", at("cmd/app"), undefined],
      ["path", at("cmd/dir.go"), undefined],
      ["import", "cmd/app/other.go", undefined],
      'Cannot build "": it is empty, wanted an import path or a folder',
      'Cannot build "ko://": it is empty, wanted an import path or a folder',
      'Cannot build "-x": no import path begins with a dash',
    ]);
  });
});

describe("patternFor()", () => {
  test.each([
    ["./cmd/app", "/work", "./cmd/app"],
    ["./cmd/app", "/work/cmd/app", "."],
    ["../lib/...", "/work", "../lib/..."],
    [".", "/work/cmd", ".."],
    ["./...", "/work/cmd", "../..."],
    ["example.com/app/...", "/else", "example.com/app/..."],
  ])("of %s in %s is %s", (text, workDir, want) => {
    expect(patternFor(parseArgument(text, "/work"), workDir)).toBe(want);
  });
});

describe("matchesFolder()", () => {
  test.each<[string, string, boolean]>([
    ["./...", "/work", true],
    ["./...", "/work/cmd/app", true],
    ["./...", "/other", false],
    ["./cmd/...", "/work/cmd", true],
    ["./cmd/...", "/work/cmdx", false],
    ["./cmd/w...", "/work/cmd/web", true],
    ["./cmd/w...", "/work/cmd/api", false],
    ["./.../api", "/work/cmd/api", true],
    ["./...", "/work/vendor/example.com/x", false],
    ["./...", "/work/cmd/testdata/x", false],
    ["./...", "/work/_old/x", false],
    ["./...", "/work/.git", false],
    ["./vendor/...", "/work/vendor/x", true],
    ["example.com/...", "/work", false],
  ])("%s and %s: %p", (text, folder, want) => {
    expect(matchesFolder(parseArgument(text, "/work"), folder)).toBe(want);
  });
});

describe("matchesImportPath()", () => {
  test.each<[string, string, boolean]>([
    ["example.com/...", "example.com", true],
    ["example.com/...", "example.com/a/b", true],
    ["example.com/...", "example.community/a", false],
    ["example.com...", "example.community/a", true],
    ["example.com/.../cmd", "example.com/a/cmd", true],
    ["exampleXcom/...", "example.com/a", false],
    ["all", "example.com/a", true],
    ["work", "example.com/a", true],
    ["std", "example.com/a", false],
  ])("%s and %s: %p", (pattern, importPath, want) => {
    expect(matchesImportPath(pattern, importPath)).toBe(want);
  });
});

describe("showPath()", () => {
  test.each([
    ["/work", "/work", "."],
    ["/work/a/b", "/work", "./a/b"],
    ["/lib", "/work", "../lib"],
    ["/", "/work", ".."],
    ["/work/..a", "/work", "./..a"],
  ])("%s from %s is %s", (dir, from, want) => {
    expect(showPath(dir, from)).toBe(want);
  });
});
