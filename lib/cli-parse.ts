/**
 * What a command line asks for, and the help, both from the tables of cli-commands.ts.
 *
 * Runs nothing; what a flag's value means beyond its kind is checked in cli-options.ts.
 */
import { allCommands, type Command, type CommandName, COMMANDS, type FlagsOf, GLOBAL_FLAGS } from "./cli-commands.ts";
import {
  fitsTable,
  type FlagTable,
  type FlagValue,
  type FlagValues,
  formatColumns,
  formatFlags,
  helpFlag,
  type ParsedFlags,
  parseFlags,
  wrapParagraphs,
} from "./cli-flags.ts";
import { findNearest, UsageError } from "./errors.ts";
import type { LogLevel } from "./log.ts";

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

/** The flags that all building commands share. */
export type BuildFlags = Omit<Invoked<"build">["flags"], "watch">;

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
  if (command.raw === true && name !== "help") return readRaw([name, command], { before, tail });
  const parsed = parseFlags(command.flags, [...before, ...tail], { command: `ko ${name}` });
  if (parsed.help) return { command: "help", text: formatHelp(found) };
  const { values, given } = parsed;
  const own = (command.afterDashes ?? "own") === "own";
  const positionals = own ? [...parsed.positionals, ...parsed.afterDashes] : parsed.positionals;
  checkWords(found, positionals);
  if (name === "help") {
    const [topic] = positionals;
    return { command: "help", text: topic === undefined ? formatOverview() : formatHelp(getCommand(topic)) };
  }
  const afterDashes = own ? [] : parsed.afterDashes;
  return checkFlags({ command: name, flags: values, given, positionals, afterDashes });
}

/** How much to tell on stderr. @throws {UsageError} If `-v` and `-q` are both there. */
export function logLevelOf(flags: FlagValues<typeof GLOBAL_FLAGS>): LogLevel {
  if (flags.verbose && flags.quiet) throw new UsageError("Cannot use --verbose with --quiet: one of them is wanted");
  return flags.verbose ? "verbose" : flags.quiet ? "quiet" : "normal";
}

/** A command that hands its words to another program: only a wish for help is ko's. */
function readRaw(
  found: readonly [Exclude<CommandName, "help">, Command],
  words: { readonly before: readonly string[]; readonly tail: readonly string[] },
): Invocation {
  const [name, { flags }] = found;
  const { help, values, given } = parseFlags(flags, words.before, { command: `ko ${name}` });
  const dashes = words.tail.indexOf("--");
  const own = dashes < 0 ? words.tail : words.tail.slice(0, dashes);
  if (help || own.some((word) => word === "--help" || word === "-h")) {
    return { command: "help", text: formatHelp(found) };
  }
  return checkFlags({ command: name, flags: values, given, positionals: words.tail, afterDashes: [] });
}

function checkWords([name, command]: readonly [CommandName, Command], words: readonly string[]): void {
  const { minWords = 0, maxWords = Infinity } = command;
  const count = (n: number): string => `${n} word${n === 1 ? "" : "s"}`;
  if (words.length < minWords) {
    const exactly = minWords === maxWords ? "exactly" : "at least";
    throw new UsageError(`Cannot run "ko ${name}" without ${command.words}: it takes ${exactly} ${count(minWords)}`, {
      hint: `Type "ko ${name} --help".`,
    });
  }
  const surplus = words[maxWords];
  if (surplus === undefined) return;
  const taken = maxWords === 0 ? "no words" : `at most ${count(maxWords)}`;
  const other = command.afterDashes === "other" ? "; words for kubectl stand after --" : "";
  throw new UsageError(`Cannot use "${surplus}": "ko ${name}" takes ${taken}${other}`, {
    hint: Object.hasOwn(command.flags, "filename")
      ? `Type "ko ${name} -f ${surplus}" if it names YAML.`
      : `Type "ko ${name} --help".`,
  });
}

function checkFlags(invocation: Unchecked): Invocation {
  if (isInvocation(invocation)) return invocation;
  throw new TypeError(`the flags of "ko ${invocation.command}" do not fit its table`);
}

function isInvocation(value: Unchecked): value is Extract<Invocation, Unchecked> {
  return fitsTable(COMMANDS[value.command].flags, value.flags);
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
