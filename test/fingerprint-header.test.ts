import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { digestOfHeader, findHeaderEnd, isIdleTest } from "../lib/fingerprint-header.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

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

describe("isIdleTest()", () => {
  // Each was tried with go 1.26: it builds a package beside an idle one, and refuses most of the others.
  test.each<[string, string | Uint8Array, boolean]>([
    ["of the package", 'package lib\n\nimport (\n\t"testing"\n\t. "example.com/x/v2"\n)\n\nfunc x() {}\n', true],
    ["of the package beside it", "package lib_test\n", true],
    ["that is broken after its header", "package lib\n\nfunc {\n", true],
    ["with comments in UTF-8", "// Größe\npackage lib\n", true],
    ["of another package", "package other\n", false],
    ["of a test of another package", "package other_test\n", false],
    ["of no package", "pakcage lib\n", false],
    ["that is empty", "", false],
    ["whose header is broken", "package lib\n\ngarbage here\n", false],
    ["whose comment does not end", "package lib\n\n/* never\n", false],
    ["with cgo", 'package lib\n\nimport "C"\n', false],
    ["with an import path that Go refuses", 'package lib\n\nimport "a b"\n', false],
    ["with an empty import path", 'package lib\n\nimport ""\n', false],
    ["with constraints, which may be broken", "//go:build (((\n\npackage lib\n", false],
    ["with constraints of the old form", "// +build linux\n\npackage lib\n", false],
    ["with a line directive", "//line x:0\npackage lib\n", false],
    ["with a NUL", "// \0\npackage lib\n", false],
    [
      "with bytes that are not UTF-8",
      new Uint8Array([47, 47, 255, 10, ...new TextEncoder().encode("package lib\n")]),
      false,
    ],
  ])("a test %s: %p", (_what, content, is) => {
    using tree = writeTree({ "a_test.go": "" });
    writeFileSync(tree.at("a_test.go"), content);
    expect(isIdleTest(tree.at("a_test.go"), "lib")).toBe(is);
  });

  test("is false for a folder, a missing file and a broken symlink", () => {
    using tree = writeTree({ "a_test.go": null, "b_test.go": { link: "nowhere" } });
    expect(["a_test.go", "b_test.go", "c_test.go"].map((name) => isIdleTest(tree.at(name), "lib"))).toEqual([
      false,
      false,
      false,
    ]);
  });

  test("does not wait for a FIFO", () => {
    using tree = writeTree({});
    Bun.spawnSync(["mkfifo", tree.at("a_test.go")]);
    expect(isIdleTest(tree.at("a_test.go"), "lib")).toBe(false);
  });
});
