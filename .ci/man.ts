/**
 * Writes the manual pages of a release, from the tables of the commands.
 *
 * The language is mdoc, https://mandoc.bsd.lv/man/mdoc.7.html, which groff and mandoc render.
 */
import { allCommands, type Command, type CommandName, type Example, OVERVIEW_EXAMPLES } from "../lib/cli-commands.ts";
import { ALL_VARIABLES, MAIN_VARIABLES, type Variables } from "../lib/cli-environment.ts";
import { GLOBAL_FLAGS } from "../lib/cli-flag-groups.ts";
import {
  type Flag,
  type FlagTable,
  formatDefault,
  formatFlagName,
  helpFlag,
  wrapParagraphs,
} from "../lib/cli-flags.ts";
import { FLAG_GROUPS, flagsOfGroup, formatUsage } from "../lib/cli-help.ts";

/** A page: the name of its file, and its text. */
export type ManPage = readonly [file: string, text: string];

interface PageOptions {
  /** The date of the sources. */
  readonly date: Date;
}

/** Escapes make lines longer. */
const MOST_COLUMNS = 70;
const MONTHS = "January February March April May June July August September October November December".split(" ");

/** Returns `ko.1`, a page for each command, and `ko-environment.1`. */
export function writeManPages(options: PageOptions): readonly ManPage[] {
  return [
    ["ko.1", writeOverview(options)],
    ...allCommands().map((found): ManPage => [`ko-${found[0]}.1`, writeCommand(found, options)]),
    ["ko-environment.1", writeEnvironment(options)],
  ];
}

function writeOverview(options: PageOptions): string {
  const names = allCommands().map(([name]) => name);
  return join([
    ...head("ko", "turn Go programs into container images", options),
    ".Sh SYNOPSIS",
    ".Nm ko",
    ".Ar COMMAND",
    ".Op Ar ARGUMENT ...",
    ".Op Ar FLAG ...",
    ".Sh DESCRIPTION",
    ...paragraph("ko builds Go programs, adds them to a base image, and publishes the images, without a Dockerfile."),
    ".Pp",
    "The commands are:",
    ".Bl -tag -width Ds",
    ...allCommands().flatMap(([name, { summary }]) => [`.It Ic ${name}`, ...paragraph(summary)]),
    ".El",
    ".Pp",
    "The flags of all commands are:",
    ...flagList({ ...GLOBAL_FLAGS, ...helpFlag() }),
    ".Sh ENVIRONMENT",
    ...variableList(MAIN_VARIABLES),
    ".Pp",
    ".Xr ko-environment 1",
    "lists all.",
    ...EXIT_STATUS,
    ...exampleSection(OVERVIEW_EXAMPLES),
    ".Sh SEE ALSO",
    ...[...names.map((name) => `ko-${name}`), "ko-environment"].sort().map((name, i, all) => {
      return `.Xr ${name} 1${i < all.length - 1 ? " ," : ""}`;
    }),
  ]);
}

function writeCommand([name, command]: readonly [CommandName, Command], options: PageOptions): string {
  const { about, aliases, environment, examples, flags, summary } = command;
  const groups = FLAG_GROUPS.map(([heading, all]) => [heading, flagsOfGroup(all, flags)] as const);
  const alias = aliases.map((each) => `"ko ${each}" is another name of it.`).join(" ");
  return join([
    ...head(`ko-${name}`, summary, options),
    ".Sh SYNOPSIS",
    ...formatUsage(name, command).trim().split("\n").map(escape),
    ".Sh DESCRIPTION",
    ...paragraphs(alias === "" ? about : `${about} ${alias}`),
    ...groups.flatMap(([heading, table]) => {
      return Object.keys(table).length === 0 ? [] : [`.Ss ${escape(heading)}`, ...flagList(table)];
    }),
    ...(Object.keys(environment).length === 0 ? [] : [".Sh ENVIRONMENT", ...variableList(environment)]),
    ...EXIT_STATUS,
    ...exampleSection(examples),
    ".Sh SEE ALSO",
    ".Xr ko 1 ,",
    ".Xr ko-environment 1",
  ]);
}

function writeEnvironment(options: PageOptions): string {
  return join([
    ...head("ko-environment", "environment variables of ko", options),
    ".Sh DESCRIPTION",
    "An empty variable counts as not set.",
    ".Sh ENVIRONMENT",
    ...ALL_VARIABLES.flatMap(([heading, variables]) => [`.Ss ${escape(heading)}`, ...variableList(variables)]),
    ".Sh SEE ALSO",
    ".Xr ko 1",
  ]);
}

const EXIT_STATUS: readonly string[] = [
  ".Sh EXIT STATUS",
  "0 after success, 1 after a failure, 2 after wrong usage.",
  "Commands that run kubectl exit with its exit code.",
];

/** @param summary one sentence; the page shows it without a full stop */
function head(name: string, summary: string, { date }: PageOptions): readonly string[] {
  const day = `${MONTHS[date.getUTCMonth()]} ${date.getUTCDate()}, ${date.getUTCFullYear()}`;
  const short = escape(summary.replace(/\.$/, ""));
  return [`.Dd ${day}`, `.Dt ${name.toUpperCase()} 1`, ".Os", ".Sh NAME", `.Nm ${name}`, `.Nd ${short}`];
}

function paragraphs(text: string): readonly string[] {
  return text.split("\n\n").flatMap((each, i) => (i === 0 ? paragraph(each) : [".Pp", ...paragraph(each)]));
}

/** Sentences, each on lines of its own: mandoc wants it so. */
function paragraph(text: string): readonly string[] {
  const sentences = text.replaceAll("\n", " ").split(/(?<=[.!?][")]?) (?=[A-Z"(])/);
  return sentences.flatMap((sentence) => wrapParagraphs(sentence, MOST_COLUMNS).split("\n").map(escape));
}

function flagList(table: FlagTable): readonly string[] {
  const items = Object.entries(table).flatMap(([name, flag]) => [
    `.It ${flagItem(name, flag)}`,
    ...paragraph(flagText(flag)),
  ]);
  return [".Bl -tag -width Ds", ...items, ".El"];
}

/** `Fl t , Fl -tags Ar TAG` for `-t, --tags TAG`. */
function flagItem(name: string, flag: Flag): string {
  const [, value = ""] = /[ [](.*)$/.exec(formatFlagName(name, flag).replace(/^.*--\S+?(?=[ [])|^.*--\S+$/, "")) ?? [];
  const shown =
    value === "" ? "" : ` ${value.startsWith("=") ? `Ns Op = Ns Ar ${value.slice(1, -1)}` : `Ar ${escape(value)}`}`;
  return `${flag.short === undefined ? "" : `Fl ${flag.short} , `}Fl -${escape(name)}${shown}`;
}

function flagText(flag: Flag): string {
  const value = formatDefault(flag);
  return value === undefined ? flag.help : `${flag.help} The default is ${value}.`;
}

function variableList(variables: Variables): readonly string[] {
  const items = Object.entries(variables).flatMap(([names, text]) => {
    return [`.It Ev ${names.replaceAll(", ", " , ")}`, ...paragraph(text)];
  });
  return [".Bl -tag -width Ds", ...items, ".El"];
}

function exampleSection(examples: readonly Example[]): readonly string[] {
  if (examples.length === 0) return [];
  const items = examples.flatMap(([purpose, typed], i) => [
    ...(i === 0 ? [] : [".Pp"]),
    ...paragraph(`${purpose}:`),
    ".Bd -literal -offset indent",
    ...typed.split("\n").map(escape),
    ".Ed",
  ]);
  return [".Sh EXAMPLES", ...items];
}

/** The text as mdoc shows it: dashes as they are typed, no line as a macro. */
function escape(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^(?=[.'])/, "\\&");
}

function join(lines: readonly string[]): string {
  return `${lines.join("\n")}\n`;
}
