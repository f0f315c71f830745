import { describe, expect, test } from "bun:test";
import { chooseStyle, plainStyle, styleOf, styleOfStdout } from "../lib/log-style.ts";

const ESCAPE = "\u001b";

describe("chooseStyle()", () => {
  test.each<[string, Readonly<Record<string, string>>, boolean, boolean]>([
    ["colours on a terminal", { TERM: "xterm-256color" }, true, true],
    ["colours where TERM is not set", {}, true, true],
    ["colours with an empty NO_COLOR", { NO_COLOR: "" }, true, true],
    ["none in a pipe", { TERM: "xterm-256color" }, false, false],
    ["none in CI, whose log is no terminal", { CI: "true", TERM: "xterm" }, false, false],
    ["none on a dumb terminal", { TERM: "dumb" }, true, false],
    ["none with NO_COLOR", { NO_COLOR: "1", TERM: "xterm" }, true, false],
    ["none with NO_COLOR=0, which is set", { NO_COLOR: "0", TERM: "xterm" }, true, false],
  ])("%s", (_what, env, isTerminal, isColoured) => {
    expect(chooseStyle({ env, isTerminal }).error("x").includes(ESCAPE)).toBe(isColoured);
  });

  test("is red, yellow, cyan and green, a line at a time", () => {
    const { error, hint, success, warning } = chooseStyle({ env: {}, isTerminal: true });
    expect([error("e"), warning("w"), hint("a\n\nb"), success("")]).toEqual([
      "\u001b[31me\u001b[39m",
      "\u001b[33mw\u001b[39m",
      "\u001b[36ma\u001b[39m\n\n\u001b[36mb\u001b[39m",
      "",
    ]);
  });
});

test("stderr and stdout each have their own style", () => {
  expect(styleOf({ env: {}, stderrIsTerminal: false })).toBe(plainStyle);
  expect(styleOf({ env: {}, stderrIsTerminal: true })).not.toBe(plainStyle);
  expect(styleOfStdout({ env: {}, stdoutColumns: undefined })).toBe(plainStyle);
  expect(styleOfStdout({ env: {}, stdoutColumns: 80 })).not.toBe(plainStyle);
});
