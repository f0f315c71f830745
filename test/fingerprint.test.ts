import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { digestOfHeader, findHeaderEnd, isSourceName, Window } from "../lib/fingerprint.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

describe("isSourceName()", () => {
  test.each([
    ["a.go", true],
    ["a_test.go", false],
    ["_a.go", false],
    [".a.go", false],
    ["a.s", true],
    ["a.h", true],
    ["a.syso", true],
    ["a.txt", false],
    ["go.mod", true],
    ["go.sum", false],
    ["default.pgo", true],
    ["other.pgo", false],
  ])("%s: %p", (name, is) => expect(isSourceName(name)).toBe(is));
});

describe("Window#judge()", () => {
  const START = 1_000_000_007;
  test.each([
    ["long before", -5000, 0, "settled"],
    ["shortly before", -500, 0, "racy"],
    ["in the same tick", -5, 0, "unsettled"],
    ["afterwards", 5, 1000, "unsettled"],
    ["in the far future", 3_600_000, 1000, "racy"],
  ] as const)("%s", (_name, changed, now, judgement) => {
    using tree = writeTree({ a: "" });
    const found = Object.assign(statSync(tree.at("a")), { ctimeMs: START + changed });
    expect(new Window(START, START + now).judge(found)).toBe(judgement);
  });

  test("takes a time in whole seconds for that of a coarse clock", () => {
    using tree = writeTree({ a: "" });
    const found = Object.assign(statSync(tree.at("a")), { ctimeMs: 1_000_000_000 });
    expect(new Window(1_000_001_500, 1_000_001_500).judge(found)).toBe("unsettled");
  });
});

/** The header of a source, or undefined. */
function headerOf(text: string): string | undefined {
  const end = findHeaderEnd(text);
  return end === undefined ? undefined : text.slice(0, end);
}

const REST = "func main() {}\n";

describe("findHeaderEnd()", () => {
  test.each([
    ["a package clause", "package main\n\n"],
    ["one import", 'package main\n\nimport "fmt"\n'],
    ["several, with names", 'package main\n\nimport (\n\t"fmt"\n\t. "os"\n\t_ "io"\n\tx `net`\n)\n\nimport y "a/b"\n'],
    ["on one line", 'package main; import "fmt"; import ("os"; "io")\n'],
    ["no imports in brackets", "package main\nimport ()\n"],
    [
      "constraints and comments anywhere",
      '// c\n//go:build linux && !cgo\n\n/* a\n * b */ package /* x */ main // end\n// import "C"\nimport /* a */ ( // b\n "fmt" // "embed"\n/* "C" */ )\n\n// Package docs.\n',
    ],
    ["carriage returns", 'package main\r\n\r\nimport "fmt"\r\n\r\n'],
    ["names in UTF-8, as bytes", "package m\u00c3\u00a4in\n"],
  ])("ends before the first declaration: %s", (_what, header) => {
    for (const rest of [REST, "type x int\n", 'var a = `import "C"`\n', "const a = 1\n"]) {
      expect([rest, headerOf(header + rest)]).toEqual([rest, header]);
    }
    expect(headerOf(header)).toBe(header);
  });

  test("a comment before the first declaration belongs to it", () => {
    expect(headerOf(`package main\n\n// one\n${REST}`)).not.toBe(headerOf(`package main\n\n// two\n${REST}`));
  });

  test.each([
    ["cgo", 'package main\n\n// #include <stdio.h>\nimport "C"\n'],
    ["cgo among others", 'package main\nimport (\n"fmt"\n"C"\n)\n'],
    ["embedding", 'package main\nimport _ "embed"\n'],
    ["embedding in other quotes", "package main\nimport _ `embed`\n"],
    ["an escape, which could be any import", 'package main\nimport "\\x43"\n'],
    ["nothing", ""],
    ["only a comment", "// hello\n"],
    ["a comment that does not end", "package main\n/* hello\n"],
    ["a syntax error", "pakcage main\n"],
    ["an import that lacks its end", 'package main\nimport "fmt\n'],
    ["two imports on a line", 'package main\nimport "fmt" "os"\n'],
    ["a list that lacks its end", 'package main\nimport (\n"fmt"\n'],
    ["something else where declarations stand", "package main\nif x {}\n"],
    ["no line end where one belongs", "package main import"],
    ["a byte order mark", "\u00ef\u00bb\u00bfpackage main\n"],
    ["a byte that Go refuses", "package main\n\0"],
  ])("has none of %s", (_what, text) => {
    expect(headerOf(text)).toBeUndefined();
    if (text !== "") expect(headerOf(text + REST)).toBeUndefined();
  });
});

describe("digestOfHeader()", () => {
  let tree: Tree;
  beforeAll(() => {
    tree = writeTree({
      "a.go": `package main\n\nimport "fmt"\n\n${REST}`,
      "b.go": `package main\n\nimport "fmt"\n\nfunc main() { other() }\n`,
      "c.go": `package main\n\nimport "os"\n\n${REST}`,
      "long.go": `// ${"x".repeat(64 * 1024)}\npackage main\n\n${REST}`,
      "large.go": `package main\n\nimport "fmt"\n\nfunc main() {}\n// ${"x".repeat(1024 * 1024)}\n`,
    });
  });
  afterAll(() => tree[Symbol.dispose]());

  test("depends on the header, and on nothing else", () => {
    const [a, b, c, long, large] = ["a", "b", "c", "long", "large"].map((name) =>
      digestOfHeader(tree.at(`${name}.go`)),
    );
    expect(a).toMatch(/^[0-9a-f]{16}$/);
    expect([b, large]).toEqual([a, a]);
    expect(c).not.toBe(a);
    expect(c).toBeDefined();
    expect(long).toBeUndefined();
    expect(digestOfHeader(tree.at("none.go"))).toBeUndefined();
  });
});
