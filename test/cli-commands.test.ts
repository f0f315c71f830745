import { describe, expect, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { allCommands, type Command, COMMANDS, OVERVIEW_EXAMPLES } from "../lib/cli-commands.ts";
import { ALL_VARIABLES } from "../lib/cli-environment.ts";
import { type FlagTable, formatDefault, formatFlagName } from "../lib/cli-flags.ts";
import { FLAG_GROUPS, flagsOfGroup, formatHelp, formatTopic } from "../lib/cli-help.ts";
import { type Invocation, logLevelOf, parseCommandLine } from "../lib/cli-parse.ts";
import { UsageError, describeError } from "../lib/errors.ts";
import { KUBECTL_FLAGS } from "../lib/kubectl.ts";
import { rejectionOf } from "./helpers/failures.ts";

const BUILD_DEFAULTS = {
  tags: ["latest"],
  "tag-only": false,
  config: "",
  profile: "",
  push: true,
  "also-push": [],
  reuse: "commit",
  "preserve-import-paths": false,
  "base-import-paths": false,
  bare: false,
  "image-refs": "",
  "oci-layout-path": "",
  tarball: "",
  "oci-archive": "",
  local: false,
  sbom: "spdx",
  "sbom-dir": "",
  "insecure-registry": false,
  offline: false,
  platform: [],
  jobs: 0,
  ldflags: [],
  "disable-optimizations": false,
  debug: false,
  "debug-continue": false,
  "debug-port": 40000,
  compression: "gzip",
  "image-label": [],
  "image-annotation": [],
  "image-user": "",
  "image-env": [],
  "image-workdir": "",
  "image-port": [],
  "image-volume": [],
  "image-cmd": [],
  "image-stop-signal": "",
  "image-entrypoint-arg": [],
  explain: false,
  "metadata-file": "",
  dotenv: "",
  "github-output": false,
  events: "",
  progress: "auto",
  timing: false,
  watch: false,
  verbose: false,
  quiet: false,
};

function helpOf(argv: readonly string[]): string {
  const invocation = parseCommandLine(argv);
  return invocation.command === "help" ? formatTopic(invocation.topic) : `no help, but ${invocation.command}`;
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
    [["--timing", "build", "--explain", "./x"], { timing: true, explain: true }, ["./x"]],
    [["build", "--timing", "./x"], { timing: true }, ["./x"]],
    [["build", "--timing=t.json", "./x"], { timing: "t.json" }, ["./x"]],
    [["build", "-W", "./x"], { watch: true }, ["./x"]],
    [["--watch", "build", "./x"], { watch: true }, ["./x"]],
  ])("reads %j as a build", (argv, flags, positionals) => {
    const invocation: Invocation = parseCommandLine(argv);
    expect(invocation).toEqual({
      command: "build",
      flags: { ...BUILD_DEFAULTS, all: false, "changed-since": "", ...flags },
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

  test("reads the flags of ko apply, and keeps the words for kubectl apart", () => {
    const argv = [
      "-n",
      "web",
      "apply",
      "-Rf",
      "a,b",
      "-f",
      "-",
      "--as-group=x,y",
      "--as-group",
      "z",
      "--",
      "--prune",
      "--",
    ];
    const invocation = parseCommandLine(argv);
    if (invocation.command !== "apply") throw new Error(`it is ${invocation.command}`);
    const { flags, given, positionals, afterDashes } = invocation;
    expect({ given: [...given].toSorted(), positionals, afterDashes }).toEqual({
      given: ["as-group", "filename", "namespace", "recursive"],
      positionals: [],
      afterDashes: ["--prune", "--"],
    });
    expect(flags).toMatchObject({
      ...BUILD_DEFAULTS,
      filename: ["a", "b", "-"],
      recursive: true,
      strict: true,
      kustomize: "",
      selector: "",
      namespace: "web",
      "as-group": ["x,y", "z"],
      "insecure-skip-tls-verify": false,
    });
  });

  test.each<[readonly string[], readonly string[]]>([
    [["delete"], []],
    [
      ["delete", "-f", "x", "--wait=false", "--nonsense"],
      ["-f", "x", "--wait=false", "--nonsense"],
    ],
    [
      ["delete", "pod", "--", "--help"],
      ["pod", "--", "--help"],
    ],
    [
      ["-v", "delete", "-v=6", "x"],
      ["-v=6", "x"],
    ],
  ])("reads none of the words of %j", (argv, words) => {
    const invocation = parseCommandLine(argv);
    expect(invocation).toMatchObject({ command: "delete", positionals: words, afterDashes: [] });
  });

  test.each([[[]], [["-h"]], [["--help"]], [["help"]], [["-q"]], [["--nonsense", "-h"]]])(
    "gives the overview for %j",
    (argv) => {
      expect(helpOf(argv)).toBe(formatTopic("overview"));
    },
  );

  test.each(allCommands())("gives the help of ko %s in every way to ask", (name, command) => {
    const wanted = formatHelp([name, command], 80);
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
    [["apply", "config/"], 'Cannot use "config/": "ko apply" takes no arguments; arguments for kubectl go after --'],
    [["resolve", "--", "-f"], 'Cannot use "-f": "ko resolve" takes no arguments'],
    [["resolve", "-n", "x"], 'Cannot use -n: "ko resolve" has no such flag'],
    [["run"], 'Cannot run "ko run" without IMPORTPATH: it takes exactly 1 argument'],
    [["run", "--", "./a"], 'Cannot run "ko run" without IMPORTPATH: it takes exactly 1 argument'],
    [["run", "./a", "./b"], 'Cannot use "./b": "ko run" takes at most 1 argument; arguments for kubectl go after --'],
    [["run", "./a", "-f", "x"], 'Cannot use -f: "ko run" has no such flag'],
    [["cache", "clean", "all"], 'Cannot use "all": "ko cache" takes at most 1 argument'],
    [["cache", "--tags", "x"], 'Cannot use --tags: "ko cache" has no such flag'],
    [["completion", "bash", "zsh"], 'Cannot use "zsh": "ko completion" takes at most 1 argument'],
    [["--bare", "delete", "x"], 'Cannot use --bare: "ko delete" has no such flag'],
    [["biuld"], 'Cannot run "ko biuld": ko has no such command, the nearest is "build"'],
    [["verison"], 'Cannot run "ko verison": ko has no such command, the nearest is "version"'],
    [["./cmd/app"], 'Cannot run "ko ./cmd/app": ko has no such command'],
    [["help", "bild"], 'Cannot show the help of "bild": ko has no such command, the nearest is "build"'],
    [["toString"], 'Cannot run "ko toString": ko has no such command'],
    [["--", "build"], 'Cannot run "ko --": ko has no such command'],
    [["version", "x"], 'Cannot use "x": "ko version" takes no arguments'],
    [["help", "build", "x"], 'Cannot use "x": "ko help" takes at most 1 argument'],
    [["version", "--bare"], 'Cannot use --bare: "ko version" has no such flag'],
    [["--bare", "version"], 'Cannot use --bare: "ko version" has no such flag'],
    [["--bare"], 'Cannot use --bare: "ko" has no such flag'],
    [["--platfrom=x", "build"], 'Cannot use --platfrom: "ko" has no such flag, the nearest is --platform'],
    [["build", "--plaform=x"], 'Cannot use --plaform: "ko build" has no such flag, the nearest is --platform'],
    [["build", "-j", "-1"], 'Cannot use --jobs="-1": wanted a number of at least 0'],
    [["login"], 'Cannot run "ko login" without SERVER: it takes exactly 1 argument'],
    [["logout", "a", "b"], 'Cannot use "b": "ko logout" takes at most 1 argument'],
    ...["auth", "deps"].map((word): [string[], string] => [[word], `Cannot run "ko ${word}": ko has no such command`]),
    [["build", "--debug-wait"], 'Cannot use --debug-wait: "ko build" has no such flag'],
  ])("refuses %j as wrong usage", (argv, message) => {
    const parse = (): unknown => parseCommandLine(argv);
    expect(parse).toThrow(UsageError);
    expect(parse).toThrow(message);
  });

  test.each(["apply", "create", "run"])("ko %s: says where a flag of kubectl stands", async (command) => {
    const shown = describeError(await rejectionOf(() => parseCommandLine([command, "--dry-run=server"])));
    expect(shown).toEndWith(`\n  Put kubectl's flags after --: ko ${command} … -- --dry-run`);
  });

  test("says what to type next", async () => {
    const shown = describeError(await rejectionOf(() => parseCommandLine(["build", "--tgas", "x"])));
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

  test("no flag of one group hides one of another", () => {
    const count = (command: "build" | "resolve" | "run" | "apply"): number =>
      Object.keys(COMMANDS[command].flags).length;
    // `ko build` has --watch, --all and --changed-since, `ko run` has not.
    expect(count("run") + 3 - count("build")).toBe(Object.keys(KUBECTL_FLAGS).length);
    // `ko apply` has --wait, --logs, --swap and --swap-context, `ko resolve` has not.
    expect(count("apply") - 4 - count("resolve")).toBe(Object.keys(KUBECTL_FLAGS).length);
    expect(count("resolve") + 2 - count("build")).toBe(5);
  });

  test("a flag has the same shape in every command: flags may stand before it", () => {
    const seen = new Map<string, string>();
    const different = allCommands().flatMap(([, { flags }]) => {
      return Object.entries(flags).filter(([name, { kind, short }]) => {
        const shape = `${kind} ${short}`;
        const before = seen.get(name) ?? shape;
        seen.set(name, before);
        return shape !== before;
      });
    });
    expect(different).toEqual([]);
    const shorts = new Map<string, string>();
    for (const [, { flags }] of allCommands()) {
      for (const [name, { short }] of Object.entries(flags)) {
        if (short === undefined) continue;
        expect([short, shorts.get(short) ?? name]).toEqual([short, name]);
        shorts.set(short, name);
      }
    }
  });

  test("every flag is in exactly one group of the help", () => {
    const groups = FLAG_GROUPS.map(([, flags]) => Object.keys(flags));
    for (const [name, command] of allCommands()) {
      const counts = Object.keys(command.flags).map((flag) => groups.filter((group) => group.includes(flag)).length);
      expect([name, counts]).toEqual([name, counts.map(() => 1)]);
    }
  });

  test("every example is a command line that ko accepts", () => {
    const typed = [...OVERVIEW_EXAMPLES, ...allCommands().flatMap(([, { examples }]) => examples)];
    const lines = typed.flatMap(([, text]) => text.split("\n")).filter((line) => /(^| )ko /.test(line));
    for (const line of lines) {
      const words = line.replace(/^.*?\bko (?=[a-z])/, "").replace(/ *[|>)].*$/, "");
      expect(() => parseCommandLine(words.split(" "))).not.toThrow();
    }
    expect(lines.length).toBeGreaterThan(20);
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

/** The whole of docs/reference.md, from the command tables. */
function renderReference(): string {
  return [
    "# Reference",
    "",
    "Every command, flag and environment variable. Generated from the tables in `lib/cli-commands.ts`,",
    "`lib/cli-flag-groups.ts` and `lib/cli-environment.ts`: edit those.",
    "",
    "```text",
    formatTopic("overview").trimEnd(),
    "```",
    ...allCommands().flatMap(renderCommand),
    "",
    "## Flags",
    "",
    "The value of a flag follows a blank or `=`. The value of `--flag[=VALUE]` is optional and follows `=`. A flag that can",
    "be repeated takes a comma-separated list, too. `--flag=false` turns a flag off. Flags may precede and follow the",
    "command and its arguments; `--` ends them.",
    ...FLAG_GROUPS.flatMap(([heading, flags]) => ["", `### ${heading}`, "", ...renderFlags(flags)]),
    "",
    "## Environment variables",
    ...ALL_VARIABLES.flatMap(([heading, variables]) => {
      const rows = Object.entries(variables).map(([name, meaning]) => [
        `\`${name.replaceAll(", ", "`, `")}\``,
        meaning,
      ]);
      return ["", `### ${heading}`, "", ...renderTable([["Variable", "Meaning"], ...rows])];
    }),
  ].join("\n");
}

function renderCommand([name, command]: readonly [string, Command]): readonly string[] {
  const groups = FLAG_GROUPS.filter(([, flags]) => Object.keys(flagsOfGroup(flags, command.flags)).length > 0);
  const links = groups.map(([heading]) => `[${heading}](#${heading.toLowerCase().replaceAll(" ", "-")})`);
  const help = formatHelp([name, { ...command, flags: {}, environment: {} }], 80);
  return [
    "",
    `## ko ${name}`,
    "",
    "```text",
    help.replace(/\n\nOutput:[^]*$/, "").trimEnd(),
    "```",
    "",
    `Flags: ${links.join(", ")}`,
  ];
}

function renderFlags(table: FlagTable): readonly string[] {
  const rows = Object.entries(table).map(([name, flag]) => {
    const value = formatDefault(flag);
    return [`\`${formatFlagName(name, flag).trim()}\``, value === undefined ? "" : `\`${value}\``, flag.help];
  });
  return renderTable([["Flag", "Default", "Meaning"], ...rows]);
}

function renderTable(rows: readonly (readonly string[])[]): readonly string[] {
  const all = rows.map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const [head = [], ...body] = all;
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string => {
    return `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  };
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)];
}
