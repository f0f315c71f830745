import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  CommandError,
  describeError,
  exitCodeOf,
  findNearest,
  isMissing,
  KoError,
  KoErrors,
  messageOf,
  printable,
  settledValues,
  showInvisible,
  RegistryError,
  UsageError,
} from "../lib/errors.ts";

function looped(): KoError {
  const inner = new Error("inner");
  const outer = new KoError("outer", { cause: inner });
  inner.cause = outer;
  return outer;
}

describe("describeError()", () => {
  test.each<[string, string, string]>([
    ["a path in quotes", 'Cannot read "/w/app/a.yaml": no', 'Error: Cannot read "a.yaml": no'],
    ["each path", 'Cannot write "/w/app/x/y": the folder /w/app/x is', 'Error: Cannot write "x/y": the folder x is'],
    ["a path at the begin of a line", "a\n/w/app/main.go:3:1: b", "Error: a\nmain.go:3:1: b"],
    ["no folder with the same begin", 'Cannot read "/w/apple/a"', 'Error: Cannot read "/w/apple/a"'],
    ["no path inside of another", 'Cannot read "/tmp/w/app/a"', 'Error: Cannot read "/tmp/w/app/a"'],
    ["not the folder itself", 'Cannot read "/w/app"', 'Error: Cannot read "/w/app"'],
    ["no URL", "Cannot get file:///w/app/a", "Error: Cannot get file:///w/app/a"],
    ["no value of a variable", 'Cannot use KO_X="/w/app/a"', 'Error: Cannot use KO_X="/w/app/a"'],
  ])("names paths from the working directory: %s", (_what, message, expected) => {
    expect(describeError(new KoError(message), { cwd: "/w/app" })).toBe(expected);
    expect(describeError(new KoErrors([new KoError(message)]), { cwd: "/w/app" })).toBe(expected);
  });

  test("keeps paths whole if ko runs in the root folder, or for no folder", () => {
    const error = new KoError('Cannot read "/w/a"');
    expect([describeError(error, { cwd: "/" }), describeError(error)]).toEqual(
      Array(2).fill(`Error: ${error.message}`),
    );
  });

  test("colours the first word and each line of a hint, and shows escape sequences of the text", () => {
    const style = { error: (text: string) => `<${text}>`, hint: (text: string) => `[${text}]` };
    expect(describeError(new KoError("a \u001b[1m", { hint: "b\nc" }), { style })).toBe(
      "<Error:> a \\x1b[1m\n[  b\n  c]",
    );
  });

  test.each<[string, unknown, string]>([
    ["a message", new KoError("Cannot do it"), "Error: Cannot do it"],
    ["a hint on its own line", new KoError("a", { hint: "b" }), "Error: a\n  b"],
    ["each line of a hint indented", new KoError("a", { hint: "b\nc" }), "Error: a\n  b\n  c"],
    ["a cause behind a colon", new KoError("a", { cause: new Error("b") }), "Error: a: b"],
    [
      "a chain of causes, then all their hints",
      new KoError("a", {
        hint: "A",
        cause: new KoError("b", { cause: new UsageError("c", { hint: "C" }) }),
      }),
      "Error: a: b: c\n  A\n  C",
    ],
    ["a cause that the message holds only once", new KoError("a: b", { cause: new Error("b") }), "Error: a: b"],
    [
      "one hint once",
      new KoError("a", { hint: "same", cause: new KoError("b", { hint: "same" }) }),
      "Error: a: b\n  same",
    ],
    ["a chain that bites its tail", looped(), "Error: outer: inner"],
    ["no hint of a cause that is no error of ours", new KoError("a", { cause: "text" }), "Error: a"],
    [
      "several errors, a line each, with their hints and causes",
      new KoErrors([
        new KoError("a", { hint: "A" }),
        new KoErrors([new KoError("b"), new KoError("c", { cause: new Error("d") })]),
      ]),
      "Error: a\n  A\nError: b\nError: c: d",
    ],
    [
      "control characters made visible, in message, cause and hint",
      new KoError("a\u001b[31m\0", { hint: "h\u0007", cause: new Error("\u009b2J") }),
      "Error: a\\x1b[31m\\x00: \\x9b2J\n  h\\x07",
    ],
    ["something that is no error", "text\u001b[0m", "Error: text\\x1b[0m"],
    ["nothing at all", undefined, "Error: undefined"],
  ])("shows %s", (_, error, expected) => {
    expect(describeError(error)).toBe(expected);
  });

  test("shows the stack of our own faults, and nothing that steers a terminal", () => {
    const text = describeError(new RangeError("broken\u001b[2J"));
    expect(text).toStartWith("Error: internal: RangeError: broken\\x1b[2J\n");
    expect(text).toContain("errors.test.ts");
  });

  test("never shows the stderr of a program", () => {
    const error = new CommandError("Cannot run git: exit code 1", { argv: ["git"], code: 1, stderr: "SECRET" });
    expect(describeError(error)).toBe("Error: Cannot run git: exit code 1");
  });

  test("cuts a message of many screens", () => {
    expect(describeError(new KoError("x".repeat(1_000_000)))).toHaveLength("Error: ".length + 64 * 1024 + 1);
  });
});

describe("KoError.transient", () => {
  const registry = (retry: "never" | "often"): KoError =>
    new RegistryError("x", { method: "GET", url: "https://r.example/v2/", retry });

  test.each<[string, KoError, boolean]>([
    ["an error", new KoError("x"), false],
    ["an error that says so", new KoError("x", { transient: true }), true],
    ["wrong usage", new UsageError("x"), false],
    ["a failed program", new CommandError("x", { argv: ["go"], code: 1, stderr: "" }), false],
    ["a registry that is away", registry("often"), true],
    ["a registry that refuses: docker login may come", registry("never"), true],
    ["an error with a transient cause", new KoError("x", { cause: registry("never") }), true],
    [
      "an error that knows better than its cause",
      new KoError("x", { cause: registry("never"), transient: false }),
      false,
    ],
    ["an error with another cause", new KoError("x", { cause: new Error("y") }), false],
    ["several errors, one of them transient", new KoErrors([new KoError("x"), registry("often")]), true],
    ["several errors, none of them transient", new KoErrors([new KoError("x"), new KoError("y")]), false],
  ])("%s: %s", (_, error, expected) => {
    expect(error.transient).toBe(expected);
  });
});

describe("exitCodeOf()", () => {
  test.each<[string, unknown, number]>([
    ["a failure", new KoError("a"), 1],
    ["wrong usage", new UsageError("a"), 2],
    ["an error that names its own", new KoError("a", { exitCode: 130 }), 130],
    ["several errors: the highest", new KoErrors([new UsageError("a"), new KoError("b")]), 2],
    ["a list of none", new KoErrors([]), 1],
    ["a program that failed, whatever its own code", new CommandError("a", { argv: [], code: 7, stderr: "" }), 1],
    ["a registry's failure", new RegistryError("a", { method: "GET", url: "" }), 1],
    ["a fault of our own", new TypeError("a"), 1],
    ["nothing at all", undefined, 1],
  ])("of %s", (_, error, code) => {
    expect(exitCodeOf(error)).toBe(code);
  });
});

describe("KoErrors", () => {
  test("has all messages in its own", () => {
    expect(new KoErrors([new KoError("a"), new KoError("b")]).message).toBe("a\nb");
  });
});

describe("RegistryError", () => {
  test("is not worth another try unless it says so", () => {
    const { name, codes, retry, status } = new RegistryError("a", { method: "PUT", url: "https://r/" });
    expect({ name, codes, retry, status }).toEqual({
      name: "RegistryError",
      codes: [],
      retry: "never",
      status: undefined,
    });
  });
});

describe("showInvisible()", () => {
  test.each([
    ["ko://a b", "ko://a b"],
    ["ko://a\u00a0b", "ko://aU+00A0b"],
    ["ko://a\u2003\u3000\u200b", "ko://aU+2003U+3000U+200B"],
    ["ko://\u202ea\ufeff", "ko://U+202EaU+FEFF"],
  ])("shows %j as %j", (text, expected) => {
    expect(showInvisible(text)).toBe(expected);
  });
});

describe("printable()", () => {
  test.each([
    ["a\tb\nc", "a\tb\nc"],
    ["a\r\nb", "a\nb"],
    ["a\rb", "a\\x0db"],
    ["\u001b]0;title\u0007", "\\x1b]0;title\\x07"],
    ["\0\u007f\u0085\u009f", "\\x00\\x7f\\x85\\x9f"],
    ["grün 😀", "grün 😀"],
    ["a\u202eb\u200bc\ufeff", "aU+202EbU+200BcU+FEFF"],
    ["commande :\u00a0👩‍🚀", "commande :\u00a0👩‍🚀"],
  ])("shows %j as %j", (text, expected) => {
    expect(printable(text)).toBe(expected);
  });

  test("cuts after the given number of characters", () => {
    expect([printable("abcd", 4), printable("abcde", 4), printable("x".repeat(5000)).length]).toEqual([
      "abcd",
      "abcd…",
      4097,
    ]);
  });
});

describe("messageOf()", () => {
  test("is an error's message, and anything else as text", () => {
    expect([new Error("a"), "b", undefined].map(messageOf)).toEqual(["a", "b", "undefined"]);
  });
});

describe("findNearest()", () => {
  const flags = ["platform", "push", "preserve-import-paths", "bare", "tags"];
  test.each([
    ["platfrom", "platform"],
    ["platforms", "platform"],
    ["PUSH", "push"],
    ["psuh", "push"],
    ["bar", "bare"],
    ["tag", "tags"],
    ["preserve-import-path", "preserve-import-paths"],
    ["xyzzy", undefined],
    ["", undefined],
    ["pull", undefined],
  ])("of %j is %p", (word, expected) => {
    expect(findNearest(word, flags)).toBe(expected);
  });

  test("takes the nearest, and of two equally near the first", () => {
    expect([findNearest("abcd", ["abxx", "abcx", "abcy"]), findNearest("a", [])]).toEqual(["abcx", undefined]);
  });
});

describe("isMissing()", () => {
  test.each([
    ["a missing file", join(import.meta.dir, "missing"), true],
    ["a path below a file", join(import.meta.path, "file"), true],
    ["a directory that is read as a file", import.meta.dir, false],
  ])("of %s", (_what, path, expected) => {
    let failure: unknown;
    try {
      readFileSync(path);
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(Error);
    expect(isMissing(failure)).toBe(expected);
  });

  test("of an error without a code", () => {
    expect(isMissing(new Error("ENOENT"))).toBe(false);
  });
});

describe("settledValues()", () => {
  const ends = (...works: readonly Promise<string>[]): Promise<readonly PromiseSettledResult<string>[]> =>
    Promise.allSettled(works);

  test("returns the values, or throws all failures together", async () => {
    const [one, two] = [new KoError("one"), new KoError("two")];
    expect(settledValues(await ends(Promise.resolve("a"), Promise.resolve("b")))).toEqual(["a", "b"]);
    const single = await ends(Promise.reject(one), Promise.resolve("b"));
    expect(() => settledValues(single)).toThrow(one);
    const both = await ends(Promise.reject(one), Promise.reject(two));
    expect(() => settledValues(both)).toThrow(KoErrors);
    const fault = new RangeError("a fault of ours");
    const broken = await ends(Promise.reject(one), Promise.reject(fault));
    expect(() => settledValues(broken)).toThrow(fault);
  });
});
