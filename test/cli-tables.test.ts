import { describe, expect, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Invocation, allCommands, formatHelp, formatOverview, logLevelOf, parseCommandLine } from "../lib/cli.ts";
import { UsageError, describeError } from "../lib/errors.ts";
import { renderReference } from "./helpers/reference-page.ts";

const BUILD_DEFAULTS = {
  tags: ["latest"],
  "tag-only": false,
  push: true,
  "preserve-import-paths": false,
  "base-import-paths": false,
  bare: false,
  "image-refs": "",
  "oci-layout-path": "",
  "insecure-registry": false,
  platform: [],
  jobs: 0,
  "disable-optimizations": false,
  "image-label": [],
  "image-annotation": [],
  "image-user": "",
  verbose: false,
  quiet: false,
};

function helpOf(argv: readonly string[]): string {
  const invocation = parseCommandLine(argv);
  return invocation.command === "help" ? invocation.text : `no help, but ${invocation.command}`;
}

describe("parseCommandLine()", () => {
  test.each<[readonly string[], object, readonly string[]]>([
    [["build"], {}, []],
    [["publish", "./cmd/app"], {}, ["./cmd/app"]],
    [["build", "-P", "-t", "a,b", "./x", "--push=false"], P({ tags: ["a", "b"], push: false }), ["./x"]],
    [["-v", "build", "./x"], { verbose: true }, ["./x"]],
    [["build", "./x", "-q"], { quiet: true }, ["./x"]],
    [["-t", "build", "build", "./x"], { tags: ["build"] }, ["./x"]],
    [["--bare", "--platform=linux/arm64", "build", "build"], { bare: true, platform: ["linux/arm64"] }, ["build"]],
    [["build", "--", "--bare", "-"], {}, ["--bare", "-"]],
    [["build", "./x", "--", "./y"], {}, ["./x", "./y"]],
  ])("reads %j as a build", (argv, flags, positionals) => {
    const invocation: Invocation = parseCommandLine(argv);
    expect(invocation).toEqual({
      command: "build",
      flags: { ...BUILD_DEFAULTS, ...flags },
      given: expect.any(Set),
      positionals,
      afterDashes: [],
    });
  });

  test("reads ko version, with the global flags", () => {
    expect(parseCommandLine(["version", "-v"])).toEqual({
      command: "version",
      flags: { verbose: true, quiet: false },
      given: new Set(["verbose"]),
      positionals: [],
      afterDashes: [],
    });
  });

  test.each([[[]], [["-h"]], [["--help"]], [["help"]], [["-q"]], [["--nonsense", "-h"]]])(
    "gives the overview for %j",
    (argv) => {
      expect(helpOf(argv)).toBe(formatOverview());
    },
  );

  test.each(allCommands())("gives the help of ko %s in every way to ask", (name, command) => {
    const wanted = formatHelp([name, command]);
    const asked = [
      [name, "--help"],
      ["-h", name],
      ["help", name],
      [name, "x", "y", "-h"],
    ];
    expect(asked.map(helpOf)).toEqual(asked.map(() => wanted));
    expect(command.aliases.map((alias) => helpOf(["help", alias]))).toEqual(command.aliases.map(() => wanted));
  });

  test.each<[readonly string[], string]>([
    [["biuld"], 'Cannot run "ko biuld": ko has no such command, the nearest is "build"'],
    [["verison"], 'Cannot run "ko verison": ko has no such command, the nearest is "version"'],
    [["./cmd/app"], 'Cannot run "ko ./cmd/app": ko has no such command'],
    [["help", "bild"], 'Cannot run "ko bild": ko has no such command, the nearest is "build"'],
    [["toString"], 'Cannot run "ko toString": ko has no such command'],
    [["--", "build"], 'Cannot run "ko --": ko has no such command'],
    [["version", "x"], 'Cannot use "x": "ko version" takes no words'],
    [["help", "build", "x"], 'Cannot use "x": "ko help" takes at most 1 word'],
    [["version", "--bare"], 'Cannot use --bare: "ko version" has no such flag'],
    [["--bare", "version"], 'Cannot use --bare: "ko version" has no such flag'],
    [["--bare"], 'Cannot use --bare: "ko" has no such flag'],
    [["--platfrom=x", "build"], 'Cannot use --platfrom: "ko" has no such flag, the nearest is --platform'],
    [["build", "--plaform=x"], 'Cannot use --plaform: "ko build" has no such flag, the nearest is --platform'],
    [["build", "-j", "-1"], 'Cannot use --jobs="-1": a number from 0 on is wanted'],
    // What the original has and ko has not yet is no special case.
    ...["resolve", "apply", "create", "delete", "run", "login", "completion"].map((word): [string[], string] => [
      [word],
      `Cannot run "ko ${word}": ko has no such command`,
    ]),
    ...["local", "tarball", "sbom", "sbom-dir", "debug", "ldflags"].map((flag): [string[], string] => [
      ["build", `--${flag}`],
      `Cannot use --${flag}: "ko build" has no such flag`,
    ]),
  ])("refuses %j as wrong usage", (argv, message) => {
    const parse = (): unknown => parseCommandLine(argv);
    expect(parse).toThrow(UsageError);
    expect(parse).toThrow(message);
  });

  test("says what to type next", () => {
    let shown = "";
    try {
      parseCommandLine(["build", "--tgas", "x"]);
    } catch (error) {
      shown = describeError(error);
    }
    expect(shown).toBe(
      'Error: Cannot use --tgas: "ko build" has no such flag, the nearest is --tags\n  Type "ko build --help" to see the flags.',
    );
  });
});

describe("logLevelOf()", () => {
  test("reads -v and -q, and refuses both", () => {
    expect([
      logLevelOf({ verbose: false, quiet: false }),
      logLevelOf({ verbose: true, quiet: false }),
      logLevelOf({ verbose: false, quiet: true }),
    ]).toEqual(["normal", "verbose", "quiet"]);
    expect(() => logLevelOf({ verbose: true, quiet: true })).toThrow(UsageError);
  });
});

describe("the command tables", () => {
  test.each(allCommands())("ko %s: no short is used twice, and help ends with a full stop", (_, command) => {
    const flags = Object.values(command.flags);
    const shorts = ["h", ...flags.flatMap(({ short }) => short ?? [])];
    expect(shorts.filter((short, i) => short.length !== 1 || shorts.indexOf(short) !== i)).toEqual([]);
    expect(flags.filter(({ help }) => !help.endsWith(".")).map(({ help }) => help)).toEqual([]);
  });

  test("help fits into 92 columns, examples into 100", () => {
    const texts = [formatOverview(), ...allCommands().map(formatHelp)];
    const limit = (line: string): number => (line.startsWith("  ") ? 100 : 92);
    expect(texts.flatMap((text) => text.split("\n")).filter((line) => line.length > limit(line))).toEqual([]);
  });

  test("docs/reference.md is up to date (UPDATE=1 writes it)", async () => {
    const path = join(import.meta.dir, "../docs/reference.md");
    const page = `${renderReference().trimEnd()}\n`;
    if (process.env["UPDATE"] === "1") await writeFile(path, page);
    expect(await readFile(path, "utf8")).toBe(page);
  });
});

function P(flags: object): object {
  return { "preserve-import-paths": true, ...flags };
}
