/**
 * Formats `--help` from the tables of cli-commands.ts, cli-flag-groups.ts and cli-environment.ts.
 */
import {
  allCommands,
  type Command,
  COMMANDS,
  type CommandName,
  type Example,
  OVERVIEW_EXAMPLES,
} from "./cli-commands.ts";
import { ALL_VARIABLES, MAIN_VARIABLES, type Variables } from "./cli-environment.ts";
import { GLOBAL_FLAGS } from "./cli-flag-groups.ts";
import { type FlagTable, formatColumns, formatFlags, helpFlag, wrapParagraphs } from "./cli-flags.ts";
import { KUBECTL_FLAGS } from "./kubectl.ts";

/** The subject of a help text: a command, all environment variables, or by default the overview. */
export type HelpTopic = CommandName | "environment" | "overview";

/** Columns where the terminal does not tell, as in a pipe. */
export const DEFAULT_COLUMNS = 80;
const [LEAST_COLUMNS, MOST_COLUMNS] = [40, 100];

/** The groups of flags, in the order of `--help`. Those of kubectl and of a login have groups of their own. */
export const FLAG_GROUPS: readonly (readonly [heading: string, flags: FlagTable])[] = [
  group(
    "What to build",
    "all changed-since config profile filename recursive kustomize selector strict platform ldflags disable-optimizations debug debug-continue " +
      "debug-port watch wait logs swap swap-context",
  ),
  group(
    "Where it goes",
    "push also-push local oci-layout-path oci-archive tarball image-refs sbom-dir insecure-registry offline username password " +
      "password-stdin",
  ),
  group(
    "Image",
    "base tags tag-only preserve-import-paths base-import-paths bare image-label image-annotation image-user image-env " +
      "image-workdir image-port image-volume image-cmd image-stop-signal image-entrypoint-arg compression sbom",
  ),
  group("Speed", "jobs reuse"),
  group("Output", "progress explain timing metadata-file dotenv github-output events json yes verbose quiet help"),
  ["kubectl", KUBECTL_FLAGS],
];

/**
 * Formats a help text.
 *
 * @param columns those of the terminal; undefined if there is none
 */
export function formatTopic(topic: HelpTopic, columns?: number): string {
  const width = Math.min(Math.max(columns ?? DEFAULT_COLUMNS, LEAST_COLUMNS), MOST_COLUMNS);
  if (topic === "overview") return formatOverview(width);
  return topic === "environment" ? formatEnvironment(width) : formatHelp([topic, COMMANDS[topic]], width);
}

/** Formats the overview: the output of `ko` and `ko --help`. */
function formatOverview(width: number): string {
  const commands = allCommands().map(([name, { aliases, summary }]) => {
    return [[name, ...aliases].join(", "), summary] as const;
  });
  return [
    wrapParagraphs("ko turns Go programs into container images: no Dockerfile, no Docker.", width),
    ...formatSection("Usage", "  ko COMMAND [ARGUMENT...] [FLAG...]"),
    ...formatSection("Examples", formatExamples(OVERVIEW_EXAMPLES)),
    ...formatSection("Commands", formatColumns(commands, { indent: 2, gap: 3, maxLeft: 24, width })),
    ...formatFlagGroups(GLOBAL_FLAGS, width),
    ...formatSection("Environment variables", formatVariables(MAIN_VARIABLES, width)),
    "",
    wrapParagraphs(
      'KO_DOCKER_REPO is the one variable to set: without it, ko needs -L or a file to write to. "ko COMMAND --help" ' +
        'shows the examples and flags of a command, "ko help environment" all variables.',
      width,
    ),
    "",
  ].join("\n");
}

/** Formats the help of a command: the output of `ko COMMAND --help`. */
export function formatHelp([name, command]: readonly [string, Command], width: number): string {
  const { about, aliases, environment, examples, flags, summary } = command;
  const variables = formatVariables(environment, width);
  return [
    wrapParagraphs(summary, width),
    ...formatSection("Usage", formatUsage(name, command)),
    ...formatSection("Aliases", aliases.map((alias) => `  ko ${alias}`).join("\n")),
    ...formatSection("Examples", formatExamples(examples)),
    "",
    wrapParagraphs(about, width),
    ...formatFlagGroups(flags, width),
    ...formatSection("Environment variables", variables),
    ...(environment === MAIN_VARIABLES ? ["", '"ko help environment" lists all.'] : []),
    "",
  ].join("\n");
}

/** Formats the output of `ko help environment`. */
function formatEnvironment(width: number): string {
  const intro = "The environment variables that ko reads. An empty one counts as not set.";
  const sections = ALL_VARIABLES.flatMap(([heading, variables]) => {
    return formatSection(heading, formatVariables(variables, width));
  });
  return [wrapParagraphs(intro, width), ...sections, ""].join("\n");
}

/** The usage line of a command. */
export function formatUsage(name: string, { words, raw, afterDashes }: Command): string {
  const flags = raw === true ? "" : "[FLAG...]";
  const tail = afterDashes === "other" ? "[-- KUBECTL_ARGUMENT...]" : "";
  return `  ${["ko", name, words, flags, tail].filter(Boolean).join(" ")}`;
}

/** The flags of a group that a command has. */
export function flagsOfGroup(flags: FlagTable, table: FlagTable): FlagTable {
  return Object.fromEntries(
    Object.entries(flags).flatMap(([name, flag]) => {
      // A flag of one name can have another help in another command.
      const own = name === "help" ? flag : table[name];
      return own === undefined ? [] : [[name, own] as const];
    }),
  );
}

/** The flags with these names, of whichever command. */
function group(heading: string, names: string): readonly [string, FlagTable] {
  const all: FlagTable = Object.assign(helpFlag(), ...allCommands().map(([, { flags }]) => flags));
  const flags = names.split(" ").flatMap((name) => {
    const flag = all[name];
    return flag === undefined ? [] : [[name, flag] as const];
  });
  return [heading, Object.fromEntries(flags)];
}

/** The lines of a section; none if its body is empty. */
function formatSection(title: string, body: string): readonly string[] {
  return body === "" ? [] : ["", `${title}:`, body];
}

function formatExamples(examples: readonly Example[]): string {
  return examples.map(([purpose, typed]) => `  # ${purpose}\n  ${typed.replaceAll("\n", "\n  ")}`).join("\n\n");
}

function formatFlagGroups(table: FlagTable, width: number): readonly string[] {
  return FLAG_GROUPS.flatMap(([heading, flags]) => {
    const own = flagsOfGroup(flags, table);
    if (flags !== KUBECTL_FLAGS) return formatSection(heading, formatFlags(own, width));
    // In short: people know them from kubectl.
    const names = Object.entries(own).map(
      ([name, { short }]) => `${short === undefined ? "" : `-${short}, `}--${name}`,
    );
    if (names.length === 0) return [];
    const lines = wrapParagraphs(names.join(", "), width - 2).replace(/^/gm, "  ");
    return formatSection('kubectl (see "kubectl options")', lines);
  });
}

function formatVariables(variables: Variables, width: number): string {
  return formatColumns(Object.entries(variables), { indent: 2, gap: 2, maxLeft: 28, width });
}
