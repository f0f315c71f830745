import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { isExcludedName, isSourceName, Window } from "../lib/fingerprint.ts";
import { writeTree } from "./helpers/world-folders.ts";

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

describe("isExcludedName()", () => {
  test.each([
    ["a.go", false],
    ["a_linux.go", false],
    ["a_windows.go", true],
    ["a_amd64.s", false],
    ["a_arm64.s", true],
    ["a_linux_arm64.go", true],
    ["a_windows_amd64.go", true],
    ["a_linux_amd64.go", false],
    ["a_windows_test.go", true],
    ["a_windows_x.go", false],
    ["a_unix.go", false],
    ["windows.go", false],
    ["_windows.go", true],
    ["a.b_windows.go", false],
    ["a_windows.b.go", true],
    ["a_b_js_wasm.syso", true],
  ])("%s for linux/amd64: %p", (name, is) => expect(isExcludedName(name, { os: "linux", arch: "amd64" })).toBe(is));
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
