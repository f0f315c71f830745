/**
 * ko's commands as data, and which of them a command line asks for.
 *
 * The tables feed the parser, `--help`, docs/reference.md and shell completion: a flag or a command is one entry here.
 * Runs nothing; what a flag's value means beyond its kind is checked in options.ts.
 */
import { UsageError, findNearest } from "./errors.ts";
import {
  type FlagTable,
  type FlagValue,
  type FlagValues,
  type ParsedFlags,
  fitsTable,
  formatColumns,
  formatFlags,
  helpFlag,
  parseFlags,
  wrapParagraphs,
} from "./flags.ts";
import type { LogLevel } from "./log.ts";

export interface Command {
  /** One line, for the overview. */
  readonly summary: string;
  readonly aliases: readonly string[];
  /** The words after the command, as `--help` shows them; empty if it takes none. */
  readonly words: string;
  /** The most words it takes. @default any number */
  readonly maxWords?: number;
  /**
   * Whose the words after `--` are: the command's own, like all others, or another program's.
   *
   * @default "own"
   */
  readonly afterDashes?: "own" | "other";
  /** Paragraphs with an empty line between; a line that begins with two blanks is shown as it is. */
  readonly about: string;
  /** What one wants to do, and what one types for it. */
  readonly examples: readonly (readonly [aim: string, typed: string])[];
  readonly flags: FlagTable;
}

/** Flags that stand before or after the command. */
export const GLOBAL_FLAGS = {
  verbose: { kind: "bool", short: "v", default: false, help: "Tell more on stderr: requests, programs that are run." },
  quiet: { kind: "bool", short: "q", default: false, help: "Tell nothing but warnings and errors on stderr." },
} as const;

const BUILD_FLAGS = {
  platform: {
    kind: "list",
    default: [],
    placeholder: "PLATFORM",
    values: ["all", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x", "linux/ppc64le", "windows/amd64"],
    help: `What to build for: "all" (whatever the base image has), or a list of OS[/ARCH[/VARIANT]]. Without it: defaultPlatforms of .ko.yaml, else $GOOS/$GOARCH if both are set, else linux/amd64.`,
  },
  jobs: {
    kind: "int",
    short: "j",
    default: 0,
    min: 0,
    help: "How many builds may run at once; 0 means as many as there are processors.",
  },
  "disable-optimizations": {
    kind: "bool",
    default: false,
    help: "Compile for a debugger: no optimizations, no inlining.",
  },
  "image-label": {
    kind: "list",
    default: [],
    placeholder: "KEY=VALUE",
    help: "Labels to set in the image's configuration.",
  },
  "image-annotation": {
    kind: "list",
    default: [],
    placeholder: "KEY=VALUE",
    help: "Annotations to set on the manifests (OCI images only).",
  },
  "image-user": {
    kind: "text",
    default: "",
    placeholder: "USER[:GROUP]",
    help: "The user the program runs as. Without it: the base image's.",
  },
} as const;

const PUBLISH_FLAGS = {
  tags: {
    kind: "list",
    short: "t",
    default: ["latest"],
    placeholder: "TAG",
    help: "Tags to give the image. One tag other than latest becomes part of the reference that is printed.",
  },
  "tag-only": {
    kind: "bool",
    default: false,
    help: "Print NAME:TAG without the digest. Needs exactly one tag other than latest.",
  },
  push: {
    kind: "bool",
    default: true,
    help: "Push to KO_DOCKER_REPO. --push=false builds, and prints the reference that a push would give.",
  },
  "preserve-import-paths": {
    kind: "bool",
    short: "P",
    default: false,
    help: "Name images KO_DOCKER_REPO/IMPORTPATH.",
  },
  "base-import-paths": {
    kind: "bool",
    short: "B",
    default: false,
    help: "Name images KO_DOCKER_REPO/LAST, the last element of the import path, without the MD5.",
  },
  bare: {
    kind: "bool",
    default: false,
    help: "Name images KO_DOCKER_REPO alone.",
  },
  "image-refs": {
    kind: "text",
    default: "",
    placeholder: "FILE",
    completes: "file",
    help: "Write the references to this file too, one per line, when everything has succeeded.",
  },
  "oci-layout-path": {
    kind: "text",
    default: "",
    placeholder: "DIR",
    completes: "directory",
    help: "Add the images to the OCI image layout in this folder.",
  },
  "insecure-registry": {
    kind: "bool",
    default: false,
    help: "Take plain HTTP and certificates that nobody vouches for, for the registries of this run.",
  },
} as const;

/** The flags of each command. */
interface FlagsOf {
  readonly build: typeof PUBLISH_FLAGS & typeof BUILD_FLAGS & typeof GLOBAL_FLAGS;
  readonly version: typeof GLOBAL_FLAGS;
  readonly help: typeof GLOBAL_FLAGS;
}

export type CommandName = keyof FlagsOf;

/** All commands by name, in the order of the overview. */
export const COMMANDS: { readonly [N in CommandName]: Command & { readonly flags: FlagsOf[N] } } = {
  build: {
    summary: "Build Go programs into container images and publish them.",
    aliases: ["publish"],
    words: "[IMPORTPATH...]",
    about: `Builds each program, puts it on the base image, and pushes the image to the registry in KO_DOCKER_REPO. The references of the images are printed on stdout, one per line, in the order of the arguments.

A program is named by its import path, by a relative path such as ./cmd/app, or by a pattern such as ./..., which stands for every main package it matches; without an argument it is the package in this folder. The prefix ko:// may be there or not.

An image is named KO_DOCKER_REPO/LAST-MD5: the last element of the import path, and the MD5 of the whole. -P, -B and --bare name it otherwise; -P beats -B, and -B beats --bare.`,
    examples: [
      ["Build the program in this folder and push it", "KO_DOCKER_REPO=registry.example.com/team ko build"],
      ["Two programs, two platforms", "ko build --platform linux/amd64,linux/arm64 ./cmd/api ./cmd/worker"],
      ["Every program below this folder, tagged as a release", "ko build -B -t v1.2.3,latest ./..."],
      [
        "No registry: into a folder that skopeo and others read",
        "ko build --push=false --oci-layout-path dist ./cmd/api",
      ],
      ["Hand the image to another program", "kubectl create deployment api --image=$(ko build ./cmd/api)"],
    ],
    flags: { ...PUBLISH_FLAGS, ...BUILD_FLAGS, ...GLOBAL_FLAGS },
  },
  version: {
    summary: "Print the version of ko.",
    aliases: [],
    words: "",
    maxWords: 0,
    about: "Prints the version of a release, or the commit that ko was built from.",
    examples: [],
    flags: GLOBAL_FLAGS,
  },
  help: {
    summary: "Show the help of a command.",
    aliases: [],
    words: "[COMMAND]",
    maxWords: 1,
    about: `The same as "ko COMMAND --help".`,
    examples: [["All flags of ko build", "ko help build"]],
    flags: GLOBAL_FLAGS,
  },
};

/** One command, told apart by `command`, with its own flags and the global ones. */
type Invoked<N extends CommandName> = {
  readonly command: N;
  readonly flags: FlagValues<FlagsOf[N]>;
} & Omit<ParsedFlags<FlagTable>, "values" | "help">;

/** Help was asked for: `text` goes to stdout, and the exit code is 0. */
export interface HelpInvocation {
  readonly command: "help";
  readonly text: string;
}

/** What a command line asks for. */
export type Invocation =
  { readonly [N in Exclude<CommandName, "help">]: Invoked<N> }[Exclude<CommandName, "help">] | HelpInvocation;

/** An invocation whose flags are not yet known to be those of its command. */
interface Unchecked extends Omit<Invoked<CommandName>, "command" | "flags"> {
  readonly command: Exclude<CommandName, "help">;
  readonly flags: Readonly<Record<string, FlagValue>>;
}

export type BuildFlags = Invoked<"build">["flags"];

/**
 * Reads a whole command line, without the program's own name.
 *
 * Flags may stand before the command as well. Nothing at all asks for the overview.
 *
 * @throws {UsageError} If the command or a flag is unknown, a value is wrong, or there are too many words.
 */
export function parseCommandLine(argv: readonly string[]): Invocation {
  const everyFlag: FlagTable = Object.assign({}, ...allCommands().map(([, { flags }]) => flags));
  // The first word that no flag takes as its value is the command.
  const head = parseFlags(everyFlag, argv, { command: "ko", interspersed: false });
  const [word, ...tail] = head.afterDashes.length > 0 ? ["--", ...head.afterDashes] : head.positionals;
  if (word === undefined) {
    if (!head.help) parseFlags(GLOBAL_FLAGS, argv, { command: "ko" });
    return { command: "help", text: formatOverview() };
  }
  const found = getCommand(word);
  const [name, command] = found;
  const before = argv.slice(0, argv.length - tail.length - 1);
  const parsed = parseFlags(command.flags, [...before, ...tail], { command: `ko ${name}` });
  if (parsed.help) return { command: "help", text: formatHelp(found) };
  const { values, given } = parsed;
  const own = (command.afterDashes ?? "own") === "own";
  const positionals = own ? [...parsed.positionals, ...parsed.afterDashes] : parsed.positionals;
  const { maxWords = Infinity } = command;
  const surplus = positionals[maxWords];
  if (surplus !== undefined) {
    const taken = maxWords === 0 ? "no words" : `at most ${maxWords} word${maxWords === 1 ? "" : "s"}`;
    throw new UsageError(`Cannot use "${surplus}": "ko ${name}" takes ${taken}`, {
      hint: `Type "ko ${name} --help".`,
    });
  }
  if (name === "help") {
    const [topic] = positionals;
    return { command: "help", text: topic === undefined ? formatOverview() : formatHelp(getCommand(topic)) };
  }
  const afterDashes = own ? [] : parsed.afterDashes;
  const invocation = { command: name, flags: values, given, positionals, afterDashes };
  if (!isInvocation(invocation)) throw new TypeError(`the flags of "ko ${name}" do not fit its table`);
  return invocation;
}

/** How much to tell on stderr. @throws {UsageError} If `-v` and `-q` are both there. */
export function logLevelOf(flags: FlagValues<typeof GLOBAL_FLAGS>): LogLevel {
  if (flags.verbose && flags.quiet) throw new UsageError("Cannot use --verbose with --quiet: one of them is wanted");
  return flags.verbose ? "verbose" : flags.quiet ? "quiet" : "normal";
}

/** Every command with its name, with the type that all share. */
export function allCommands(): readonly (readonly [CommandName, Command])[] {
  const commands: Readonly<Record<CommandName, Command>> = COMMANDS;
  return Object.keys(commands)
    .filter(isCommandName)
    .map((name) => [name, commands[name]]);
}

function isInvocation(value: Unchecked): value is Extract<Invocation, Unchecked> {
  return fitsTable(COMMANDS[value.command].flags, value.flags);
}

function isCommandName(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}

function getCommand(word: string): readonly [CommandName, Command] {
  const found = allCommands().find(([name, { aliases }]) => name === word || aliases.includes(word));
  if (found !== undefined) return found;
  const words = allCommands().flatMap(([name, { aliases }]) => [name, ...aliases]);
  const nearest = findNearest(word, words);
  const near = nearest === undefined ? "" : `, the nearest is "${nearest}"`;
  throw new UsageError(`Cannot run "ko ${word}": ko has no such command${near}`, {
    hint: `Type "ko --help" to see the commands.`,
  });
}

/** What `ko` and `ko --help` print. */
export function formatOverview(): string {
  const commands = allCommands().map(([name, { aliases, summary }]) => {
    return [[name, ...aliases].join(", "), summary] as const;
  });
  return [
    "ko turns Go programs into container images: no Dockerfile, no Docker.",
    "",
    "Usage:",
    "  ko COMMAND [ARGUMENT...] [FLAG...]",
    "",
    "Commands:",
    formatColumns(commands, { indent: 2, gap: 3, maxLeft: 24 }),
    "",
    "Flags:",
    formatFlags({ ...helpFlag(), ...GLOBAL_FLAGS }),
    "",
    `"ko COMMAND --help" shows the flags of a command.`,
    "",
  ].join("\n");
}

/** What `ko COMMAND --help` prints. */
export function formatHelp([name, command]: readonly [string, Command]): string {
  const section = (title: string, body: string): readonly string[] => (body === "" ? [] : ["", `${title}:`, body]);
  const usage = ["  ko", name, command.words, "[FLAG...]"].filter(Boolean).join(" ");
  const own = Object.fromEntries(Object.entries(command.flags).filter(([flag]) => !Object.hasOwn(GLOBAL_FLAGS, flag)));
  const examples = command.examples.map(([aim, typed]) => `  # ${aim}\n  ${typed}`).join("\n\n");
  return [
    command.summary,
    ...section("Usage", usage),
    ...section("Aliases", command.aliases.map((alias) => `  ko ${alias}`).join("\n")),
    "",
    wrapParagraphs(command.about),
    ...section("Examples", examples),
    ...section("Flags", formatFlags(own)),
    ...section("Flags of every command", formatFlags({ ...helpFlag(), ...GLOBAL_FLAGS })),
    "",
  ].join("\n");
}
