/**
 * Parses a command line into an {@link Invocation}, from the tables of cli-commands.ts.
 *
 * Runs nothing. Flag values are checked by kind only: cli-options.ts does the rest.
 */
import { allCommands, type Command, type CommandName, COMMANDS, type FlagsOf } from "./cli-commands.ts";
import type { CHOICE_FLAGS } from "./cli-flag-choice.ts";
import { GLOBAL_FLAGS } from "./cli-flag-groups.ts";
import {
  fitsTable,
  type FlagTable,
  type FlagValue,
  type FlagValues,
  type ParsedFlags,
  parseFlags,
} from "./cli-flags.ts";
import type { HelpTopic } from "./cli-help.ts";
import { findNearest, UsageError } from "./errors.ts";
import type { LogLevel } from "./log.ts";

/** One command with its own flags and the global ones. */
type Invoked<N extends CommandName> = {
  readonly command: N;
  readonly flags: FlagValues<FlagsOf[N]>;
} & Omit<ParsedFlags<FlagTable>, "values" | "help">;

/** A request for help, which goes to stdout; the exit code is 0. */
export interface HelpInvocation {
  readonly command: "help";
  readonly topic: HelpTopic;
}

/** A parsed command line; `command` discriminates. */
export type Invocation =
  { readonly [N in Exclude<CommandName, "help">]: Invoked<N> }[Exclude<CommandName, "help">] | HelpInvocation;

/** An invocation whose flags have not been checked against the table of its command. */
interface Unchecked extends Omit<Invoked<CommandName>, "command" | "flags"> {
  readonly command: Exclude<CommandName, "help">;
  readonly flags: Readonly<Record<string, FlagValue>>;
}

/** The flags that all building commands share. */
export type BuildFlags = Omit<Invoked<"build">["flags"], keyof typeof CHOICE_FLAGS | "watch">;

/**
 * Parses a whole command line, without the name of the program.
 *
 * Flags may precede the command. An empty command line asks for the overview.
 *
 * @throws {UsageError} If the command or a flag is unknown, a value is invalid, or the number of arguments is wrong.
 */
export function parseCommandLine(argv: readonly string[]): Invocation {
  const everyFlag: FlagTable = Object.assign({}, ...allCommands().map(([, { flags }]) => flags));
  // The command is the first word that is neither a flag nor the value of one.
  const head = parseFlags(everyFlag, argv, { command: "ko", interspersed: false });
  const [word, ...tail] = head.afterDashes.length > 0 ? ["--", ...head.afterDashes] : head.positionals;
  if (word === undefined) {
    if (!head.help) parseFlags(GLOBAL_FLAGS, argv, { command: "ko" });
    return { command: "help", topic: "overview" };
  }
  const found = getCommand(word);
  const [name, command] = found;
  const before = argv.slice(0, argv.length - tail.length - 1);
  if (command.raw === true && name !== "help") return readRaw([name, command], { before, tail });
  const parsed = parseFlags(command.flags, [...before, ...tail], { command: `ko ${name}` });
  if (parsed.help) return { command: "help", topic: name };
  const { values, given } = parsed;
  const own = (command.afterDashes ?? "own") === "own";
  const positionals = own
    ? [...parsed.positionals, ...parsed.afterDashes.filter((each) => each !== "")]
    : parsed.positionals;
  checkWords(found, positionals);
  if (name === "help") {
    const [topic = "overview"] = positionals;
    if (topic === "overview" || topic === "environment") return { command: "help", topic };
    return { command: "help", topic: getTopic(topic) };
  }
  const afterDashes = own ? [] : parsed.afterDashes;
  return checkFlags({ command: name, flags: values, given, positionals, afterDashes });
}

/**
 * Returns the log level that `-v` and `-q` select.
 *
 * @throws {UsageError} If both are given.
 */
export function logLevelOf(flags: FlagValues<typeof GLOBAL_FLAGS>): LogLevel {
  if (flags.verbose && flags.quiet) throw new UsageError("Cannot use --verbose with --quiet: wanted one of them");
  return flags.verbose ? "verbose" : flags.quiet ? "quiet" : "normal";
}

/** Reads a command that passes its words to another program; ko answers `--help` itself. */
function readRaw(
  found: readonly [Exclude<CommandName, "help">, Command],
  words: { readonly before: readonly string[]; readonly tail: readonly string[] },
): Invocation {
  const [name, { flags }] = found;
  const { help, values, given } = parseFlags(flags, words.before, { command: `ko ${name}` });
  const dashes = words.tail.indexOf("--");
  const own = dashes < 0 ? words.tail : words.tail.slice(0, dashes);
  if (help || own.some((word) => word === "--help" || word === "-h")) {
    return { command: "help", topic: name };
  }
  return checkFlags({ command: name, flags: values, given, positionals: words.tail, afterDashes: [] });
}

function checkWords([name, command]: readonly [CommandName, Command], words: readonly string[]): void {
  const { minWords = 0, maxWords = Infinity } = command;
  const count = (n: number): string => `${n} argument${n === 1 ? "" : "s"}`;
  if (words.length < minWords) {
    const exactly = minWords === maxWords ? "exactly" : "at least";
    throw new UsageError(`Cannot run "ko ${name}" without ${command.words}: it takes ${exactly} ${count(minWords)}`, {
      hint: command.examples[0] === undefined ? undefined : `For example: ${command.examples[0][1]}`,
    });
  }
  const surplus = words[maxWords];
  if (surplus === undefined) return;
  const asked = { hint: `Type "ko ${name} --help".` };
  if (command.hidesWords === true) {
    throw new UsageError(`Cannot run "ko ${name}" with ${count(words.length)}: it takes ${count(maxWords)}`, asked);
  }
  const taken = maxWords === 0 ? "no arguments" : `at most ${count(maxWords)}`;
  const other = command.afterDashes === "other" ? "; arguments for kubectl go after --" : "";
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

function findCommand(word: string): readonly [CommandName, Command] | undefined {
  return allCommands().find(([name, { aliases }]) => name === word || aliases.includes(word));
}

function getCommand(word: string): readonly [CommandName, Command] {
  const found = findCommand(word);
  if (found !== undefined) return found;
  throw unknownCommand(`Cannot run "ko ${word}"`, word);
}

function getTopic(word: string): CommandName {
  const found = findCommand(word);
  if (found !== undefined) return found[0];
  throw unknownCommand(`Cannot show the help of "${word}"`, word);
}

function unknownCommand(what: string, word: string): UsageError {
  const words = allCommands().flatMap(([name, { aliases }]) => [name, ...aliases]);
  const nearest = findNearest(word, words);
  const near = nearest === undefined ? "" : `, the nearest is "${nearest}"`;
  return new UsageError(`${what}: ko has no such command${near}`, { hint: `Type "ko --help" to see the commands.` });
}
