import { describe, expect, test } from "bun:test";
import type { Host, RunOptions } from "../lib/host.ts";
import { guardedHost, isInActions, neutralize } from "../lib/host-actions.ts";
import { fakeHost, fakeRun } from "./helpers/world-watch.ts";

/** The commands that the runner finds in a text, by its own rules: `::` after blanks, or `##[` anywhere. */
function commandsIn(text: string): readonly string[] {
  return text.split(/[\r\n]/).filter((line) => /^[\s\u0085]*::.*::/.test(line) || /##\[.*\]/.test(line));
}

describe("isInActions()", () => {
  test.each([
    [{ GITHUB_ACTIONS: "true" }, true],
    [{ GITHUB_ACTIONS: "false" }, false],
    [{ GITHUB_ACTIONS: "" }, false],
    [{}, false],
  ])("%j", (env, expected) => {
    expect(isInActions(env)).toBe(expected);
  });
});

describe("neutralize()", () => {
  test.each([
    ["::add-mask::x", "\\x3a:add-mask::x"],
    ["a\n \t::set-output name=a::b\n", "a\n \t\\x3a:set-output name=a::b\n"],
    ["a\r::stop-commands::x", "a\r\\x3a:stop-commands::x"],
    ["a\r\n::group::x\r\n", "a\r\n\\x3a:group::x\r\n"],
    ["\u00a0\u2028\u0085::error::x", "\u00a0\u2028\u0085\\x3a:error::x"],
    ["\u200b:\u200b:error::x", "\u200b\\x3a\u200b:error::x"],
    ["a ##[add-mask]x ##[b]", "a \\x23#[add-mask]x \\x23#[b]"],
    ["###[a]", "#\\x23#[a]"],
  ])("%j", (text, expected) => {
    expect(neutralize(text)).toBe(expected);
    expect(commandsIn(expected)).toEqual([]);
  });

  test.each(["", "\n", ":", "a::b::c", "main.go:3:15: undefined: x", "# example.com/app", ": :a", "std::vector\n"])(
    "leaves %j",
    (text) => {
      expect(neutralize(text)).toBe(text);
    },
  );

  test("takes time in proportion to the text", () => {
    const from = performance.now();
    for (const text of [" ".repeat(200_000), "#".repeat(200_000), "\u200b".repeat(200_000), "\ufeff ".repeat(100_000)])
      neutralize(`${text}:`);
    expect(performance.now() - from).toBeLessThan(5000);
  });
});

describe("guardedHost()", () => {
  test("finds commands across writes, and in the last line", () => {
    const { host, stderr } = fakeHost();
    const guarded = guardedHost(host);
    for (const text of ["a", "\n:", ":add-mask", "::x\n#", "#[group]y\n", " ::error", "::z"]) guarded.host.err(text);
    guarded.end();
    guarded.end();
    expect(stderr()).toBe("a\n\\x3a:add-mask::x\n\\x23#[group]y\n \\x3a:error::z");
  });

  test("writes an annotation on a line of its own", () => {
    const { host, stderr } = fakeHost();
    const guarded = guardedHost(host);
    guarded.host.err("half a line");
    guarded.host.annotate?.("::error file=a,line=1::b");
    guarded.host.err("the next\n");
    expect(stderr()).toBe("half a line\n::error file=a,line=1::b\nthe next\n");
  });

  test("guards programs that share stderr, and leaves others alone", async () => {
    const { run } = fakeRun(() => ({ code: 0, stderr: "::add-mask::x\n" }));
    const seen: (RunOptions | undefined)[] = [];
    const { host, stderr } = fakeHost({
      run: async (argv, options) => {
        seen.push(options);
        return run(argv, options);
      },
    });
    const guarded: Host = guardedHost(host).host;
    await guarded.run(["kubectl"], { stderr: "inherit", stdout: "inherit" });
    await guarded.run(["go"], { stderr: "capture" });
    expect(stderr()).toBe("\\x3a:add-mask::x\n");
    expect(seen[0]?.stdout).toBe("inherit");
    expect(seen[1]?.stderr).toBe("capture");
  });

  test("a line without end is written in parts", () => {
    const { host, stderr } = fakeHost();
    const guarded = guardedHost(host);
    for (let i = 0; i < 40; i++) guarded.host.err("x".repeat(50_000));
    expect(stderr().length).toBeGreaterThan(1_000_000);
    guarded.end();
    expect(stderr()).toBe("x".repeat(2_000_000));
  });
});
