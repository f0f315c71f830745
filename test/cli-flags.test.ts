import { describe, expect, test } from "bun:test";
import { UsageError, describeError } from "../lib/errors.ts";
import { type FlagTable, formatFlags, parseFlags, readCsv } from "../lib/cli-flags.ts";

const TABLE = {
  tags: { kind: "list", short: "t", default: ["latest"], placeholder: "TAG", help: "Tags to give." },
  push: { kind: "bool", default: true, help: "Push it." },
  bare: { kind: "bool", short: "B", default: false, help: "Bare." },
  recursive: { kind: "bool", short: "R", default: false, help: "Go down." },
  file: { kind: "text", short: "f", default: "", help: "A file." },
  jobs: { kind: "int", short: "j", default: 0, min: 0, help: "At once." },
  trace: { kind: "optional", short: "T", default: false, placeholder: "FILE", help: "Tell of it." },
} as const satisfies FlagTable;

const DEFAULTS = { tags: ["latest"], push: true, bare: false, recursive: false, file: "", jobs: 0, trace: false };

function parse(argv: readonly string[]): ReturnType<typeof parseFlags<typeof TABLE>> {
  return parseFlags(TABLE, argv, { command: "ko build" });
}

describe("parseFlags()", () => {
  // pflag 1.0.10 read 120,000 random command lines as this parser does, `-f=` apart (see the module's doc).
  test.each<[string, readonly string[], object, readonly string[]]>([
    ["nothing", [], {}, []],
    ["a bool flag alone", ["--bare"], { bare: true }, []],
    ["a bool flag that is turned off", ["--push=false"], { push: false }, []],
    ["the short forms of truth", ["--push=0", "-B=t", "-R=T"], { push: false, bare: true, recursive: true }, []],
    ["false after a blank is a word", ["--push", "false"], { push: true }, ["false"]],
    ["the last use of a bool flag counts", ["--push=false", "--push"], { push: true }, []],
    ["a value after =", ["--file=a=b"], { file: "a=b" }, []],
    ["a value after a blank", ["--file", "a"], { file: "a" }, []],
    ["a value that looks like a flag", ["--file", "--push=false"], { file: "--push=false" }, []],
    ["a value that is --", ["--file", "--", "x"], { file: "--" }, ["x"]],
    ["an empty value", ["--file="], { file: "" }, []],
    ["an empty value of a short flag", ["-f="], { file: "" }, []],
    ["a short flag and its value", ["-f", "a"], { file: "a" }, []],
    ["a short flag with its value attached", ["-fa"], { file: "a" }, []],
    ["a short flag with =", ["-f=a"], { file: "a" }, []],
    ["bundled shorts", ["-BR"], { bare: true, recursive: true }, []],
    ["bundled shorts, the last with a value", ["-Rf", "x", "y"], { recursive: true, file: "x" }, ["y"]],
    ["bundled shorts, the last with its value attached", ["-RfB"], { recursive: true, file: "B" }, []],
    ["a bundled bool with a value", ["-BR=false"], { bare: true, recursive: false }, []],
    ["flags after words", ["./a", "--bare", "./b"], { bare: true }, ["./a", "./b"]],
    ["a lone dash", ["-", "--bare"], { bare: true }, ["-"]],
    ["an empty word", ["", "--bare", "", "a", ""], { bare: true }, ["a"]],
    ["empty items of a list", ["--tags", "a,,b,", "--tags=,", '--tags="",c'], { tags: ["a", "b", "c"] }, []],
    ["an empty list beside another", ["--tags=", "--tags=a"], { tags: ["a"] }, []],
    ["a comma list", ["-t", "a,b"], { tags: ["a", "b"] }, []],
    ["a repeated list", ["-t", "a,b", "--tags=c", "-td"], { tags: ["a", "b", "c", "d"] }, []],
    ["a quoted item of a list", ["-t", '"a,b",c'], { tags: ["a,b", "c"] }, []],
    ["an empty list", ["--tags="], { tags: [] }, []],
    ["a number", ["-j4"], { jobs: 4 }, []],
    ["an optional value that is left out", ["--trace", "x"], { trace: true }, ["x"]],
    ["an optional value after =", ["--trace=x", "y"], { trace: "x" }, ["y"]],
    ["an optional value with a =", ["--trace=a=b"], { trace: "a=b" }, []],
    ["an optional value that is empty", ["--trace", "--trace="], { trace: false }, []],
    ["an optional value as that of a bool flag", ["--trace=x", "--trace=true"], { trace: true }, []],
    ["an optional value that turns the flag off", ["--trace", "--trace=false"], { trace: false }, []],
    ["an optional value of a short flag", ["-T=x"], { trace: "x" }, []],
    ["shorts bundled after one with an optional value", ["-TB", "x"], { trace: true, bare: true }, ["x"]],
    ["a number with a sign", ["--jobs=+4"], { jobs: 4 }, []],
  ])("reads %s", (_, argv, values, positionals) => {
    const parsed = parse(argv);
    expect([parsed.values, parsed.positionals, parsed.afterDashes]).toEqual([
      { ...DEFAULTS, ...values },
      positionals,
      [],
    ]);
  });

  test.each<[readonly string[], string]>([
    [["--jobs=-3"], 'Cannot use --jobs="-3": wanted a number of at least 0'],
    [["-j", "-3"], 'Cannot use --jobs="-3": wanted a number of at least 0'],
    [["-j", "x"], 'Cannot use --jobs="x": wanted a whole number'],
    [["-j", "1.5"], 'Cannot use --jobs="1.5": wanted a whole number'],
    [["-j="], 'Cannot use --jobs="": wanted a whole number'],
    [["-j", "99999999999999999999"], 'Cannot use --jobs="99999999999999999999": wanted a whole number'],
    [["--push=no"], 'Cannot use --push="no": wanted true or false'],
    [["-B="], 'Cannot use --bare="": wanted true or false'],
    [["--file"], "Cannot use --file: it has no value, wanted --file TEXT"],
    [["-Rt"], "Cannot use -t: it has no value, wanted -t TAG"],
    [["--tgas=x"], 'Cannot use --tgas: "ko build" has no such flag, the nearest is --tags'],
    [["--kubeconfig=secret"], 'Cannot use --kubeconfig: "ko build" has no such flag'],
    [["--constructor"], 'Cannot use --constructor: "ko build" has no such flag'],
    [["-b"], 'Cannot use -b: "ko build" has no such flag, the nearest is -B'],
    [["-x"], 'Cannot use -x: "ko build" has no such flag'],
    [["-push=false"], 'Cannot use -p: "ko build" has no such flag, the nearest is --push'],
    [["--=x"], 'Cannot read "--": it is not a flag, wanted --NAME'],
    [["---bare"], 'Cannot read "---bare": it is not a flag, wanted --NAME'],
    [["-t", 'a"b'], 'Cannot use --tags="a"b": a quote (") inside a value needs quotes around the value: "say ""so"""'],
  ])("refuses %j", (argv, message) => {
    expect(() => parse(argv)).toThrow(new UsageError(message));
  });

  test("leaves the commas of a list that has none alone", () => {
    const table = { group: { kind: "list", default: [], commas: false, help: "Groups." } } as const;
    const { values } = parseFlags(table, ["--group", "a,b", '--group="c'], { command: "ko apply" });
    expect(values).toEqual({ group: ["a,b", '"c'] });
  });

  test("keeps what follows -- apart", () => {
    const { positionals, afterDashes } = parse(["./a", "--", "./b", "--bare", "--", "-"]);
    expect({ positionals, afterDashes }).toEqual({ positionals: ["./a"], afterDashes: ["./b", "--bare", "--", "-"] });
  });

  test("tells which flags were written, whatever their values", () => {
    expect([...parse(["--push", "-t", "latest", "-t", "x"]).given].toSorted()).toEqual(["push", "tags"]);
  });

  test.each<[readonly string[], boolean]>([
    [["-h"], true],
    [["./a", "--help"], true],
    [["-Bh"], true],
    [["--nonsense", "--help"], true],
    [["--jobs=x", "-h"], true],
    [["--file", "--help"], false],
    [["--", "--help"], false],
    [["--help=false"], false],
  ])("finds the wish for help in %j: %p", (argv, help) => {
    const parsed = parse(argv);
    expect([parsed.help, "help" in parsed.values, parsed.given.has("help")]).toEqual([help, false, false]);
  });

  test("ends the flags at the first word if asked", () => {
    const parsed = parseFlags(TABLE, ["-t", "a", "build", "--bare", "--", "x"], { command: "ko", interspersed: false });
    expect([parsed.values, parsed.positionals, parsed.afterDashes]).toEqual([
      { ...DEFAULTS, tags: ["a"] },
      ["build", "--bare", "--", "x"],
      [],
    ]);
  });

  test("does not repeat what may be a secret", () => {
    const argvs = [["--pasword=canary"], ["-pcanary"], ["-p=canary"], ["--=canary"], ["---p=canary"]];
    const messages = argvs.map((argv) => {
      try {
        return parse(argv).positionals.join();
      } catch (error) {
        return describeError(error);
      }
    });
    expect(messages.filter((message) => !message.startsWith("Error: Cannot") || message.includes("canary"))).toEqual(
      [],
    );
  });
});

describe("readCsv()", () => {
  test.each<[string, readonly string[]]>([
    ["", []],
    ["a", ["a"]],
    ["a,b", ["a", "b"]],
    ["a,,b", ["a", "", "b"]],
    ["a,", ["a", ""]],
    [",", ["", ""]],
    [" a , b ", [" a ", " b "]],
    ['""', [""]],
    ['"a,b",c', ["a,b", "c"]],
    ['c,"a,b"', ["c", "a,b"]],
    ['"say ""so"""', ['say "so"']],
    ['"two\nlines",x', ["two\nlines", "x"]],
  ])("reads %j", (text, fields) => {
    expect(readCsv(text)).toEqual(fields);
  });

  test.each(['a"b', '"a', '"a"b', '"a" ,b', "a\nb"])("refuses %j", (text) => {
    expect(readCsv(text)).toEqual({ why: expect.any(String) });
  });
});

describe("formatFlags()", () => {
  test("writes two columns, with defaults, wrapped", () => {
    const table: FlagTable = {
      tags: {
        ...TABLE.tags,
        help: "Tags to give the image, and here follows a text that is longer than a line can be.",
      },
      push: TABLE.push,
      "a-name-that-is-longer-than-the-column": { kind: "text", default: "", help: "Long." },
      jobs: TABLE.jobs,
      trace: TABLE.trace,
    };
    expect(formatFlags(table, 80)).toBe(
      [
        "  -t, --tags TAG      Tags to give the image, and here follows a text that is",
        "                      longer than a line can be. (default: latest)",
        "      --push          Push it. (default: true)",
        "      --a-name-that-is-longer-than-the-column TEXT",
        "                      Long.",
        "  -j, --jobs N        At once.",
        "  -T, --trace[=FILE]  Tell of it.",
      ].join("\n"),
    );
  });
});
