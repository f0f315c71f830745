/** The loader of a program: read from what go made. build-loader.test.ts refuses bases that lack it. */
import { describe, expect, test } from "bun:test";
import { hasNoLoader, mayNeedLoader, readLoader } from "../lib/go-loader.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { cleanEnvironment, output } from "./helpers/world-programs.ts";

/** An ELF file of 32 bits, big-endian, with one program header of the type given. */
function smallElf(type: number): Uint8Array {
  const bytes = new Uint8Array(200);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x7f454c46);
  bytes.set([1, 2, 1], 4);
  view.setUint32(28, 52);
  view.setUint16(42, 32);
  view.setUint16(44, 1);
  view.setUint32(52, type);
  view.setUint32(56, 100);
  view.setUint32(68, 13);
  bytes.set(new TextEncoder().encode("/lib/ld.so.1\0garbage"), 100);
  return bytes;
}

describe("readLoader()", () => {
  test("reads it from what go makes", async () => {
    using tree = writeTree({ "go.mod": goMod("example.com/app"), "main.go": mainGo() });
    const env = { ...cleanEnvironment(tree.path), CGO_ENABLED: "0" };
    await output(["go", "build", "-o", "static", "."], { cwd: tree.path, env });
    await output(["go", "build", "-buildmode=pie", "-o", "pie", "."], { cwd: tree.path, env });
    expect(await readLoader(tree.at("static"))).toBeUndefined();
    expect(await readLoader(tree.at("pie"))).toMatch(/^\/lib.*\/ld-linux[\w-]*\.so\.\d$/);
  });

  test.each<[string, Uint8Array, string | undefined]>([
    ["32 bits, big-endian", smallElf(3), "/lib/ld.so.1"],
    ["another program header", smallElf(1), undefined],
    ["cut in the header", smallElf(3).subarray(0, 50), undefined],
    ["cut in the table", smallElf(3).subarray(0, 60), undefined],
    ["cut before the path", smallElf(3).subarray(0, 100), ""],
    ["an empty file", new Uint8Array(0), undefined],
    ["a script", new TextEncoder().encode("#!/bin/sh\n".repeat(20)), undefined],
  ])("%s", async (_, bytes, wanted) => {
    using tree = writeTree({ program: bytes });
    expect(await readLoader(tree.at("program"))).toBe(wanted);
  });
});

test.each<[string, boolean]>([
  ["ko.builtin/static", true],
  ["ko.builtin/static@sha256:1", true],
  ["scratch", true],
  ["gcr.io/distroless/static:nonroot", true],
  ["gcr.io/distroless/static-debian12@sha256:1", true],
  ["cgr.dev/chainguard/static", true],
  ["gcr.io/distroless/base", false],
  ["example.com/scratch", false],
  ["example.com/static/base", false],
  ["example.com/my-static", false],
])("hasNoLoader(%p) is %p", (base, wanted) => {
  expect(hasNoLoader(base)).toBe(wanted);
});

test.each<[readonly string[], Readonly<Record<string, string>>, boolean]>([
  [[], { GOOS: "linux", CGO_ENABLED: "0" }, false],
  [["-trimpath"], { GOOS: "linux", CGO_ENABLED: "1" }, true],
  [["-buildmode=pie"], { GOOS: "linux", CGO_ENABLED: "0" }, true],
  [[], { GOOS: "linux", CGO_ENABLED: "0", GOFLAGS: "-ldflags=-linkmode=external" }, true],
  [[], { GOOS: "windows", CGO_ENABLED: "1" }, false],
])("mayNeedLoader(%p, %p) is %p", (args, env, wanted) => {
  expect(mayNeedLoader({ args, env })).toBe(wanted);
});
