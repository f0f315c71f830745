/**
 * Renders docs/reference.md from the command tables. `UPDATE=1 bun test test/cli-commands.test.ts` writes the page;
 * without it, the test compares.
 */
import { allCommands, type Command, COMMANDS } from "../../lib/cli-commands.ts";
import { FLAG_GROUPS } from "../../lib/cli-flag-groups.ts";
import { type FlagTable, formatDefault, formatFlagName, helpFlag } from "../../lib/cli-flags.ts";
import { formatHelp, formatOverview } from "../../lib/cli-parse.ts";

/** The whole page. */
export function renderReference(): string {
  return [
    "# Reference",
    "",
    "Every command, flag and environment variable. Generated from the tables in `lib/cli-commands.ts` and",
    "`lib/cli-flag-groups.ts`: edit those.",
    "",
    "```text",
    formatOverview().trimEnd(),
    "```",
    ...allCommands().flatMap(renderCommand),
    "",
    "## Flags",
    "",
    "The value of a flag follows a blank or `=`. The value of `--flag[=VALUE]` is optional and follows `=`. A flag that can",
    "be repeated takes a comma-separated list, too. `--flag=false` turns a flag off. Flags may precede and follow the",
    "command and its arguments; `--` ends them.",
    ...FLAG_GROUPS.flatMap(([heading, flags]) => {
      const all = heading === "Global flags" ? { ...helpFlag(), ...flags } : flags;
      return ["", `### ${heading}`, "", ...renderFlags(all)];
    }),
    "",
    "## Environment variables",
    "",
    ...renderTable([["Variable", "Meaning"], ...variables()]),
    "",
    "`GOFLAGS`, `GOTOOLCHAIN` and the other variables of Go are passed on to `go`.",
  ].join("\n");
}

function renderCommand([name, command]: readonly [string, Command]): readonly string[] {
  const groups = FLAG_GROUPS.filter(([, flags]) =>
    Object.keys(flags).some((flag) => Object.hasOwn(command.flags, flag)),
  );
  const links = groups.map(([heading]) => `[${heading}](#${heading.toLowerCase().replaceAll(" ", "-")})`);
  const help = formatHelp([name, { ...command, flags: {}, environment: {} }]);
  return [
    "",
    `## ko ${name}`,
    "",
    "```text",
    help.replace(/\n\nGlobal flags:[^]*$/, "").trimEnd(),
    "```",
    "",
    `Flags: ${links.join(", ")}`,
  ];
}

function variables(): readonly (readonly [string, string])[] {
  return Object.entries(COMMANDS.build.environment).map(([name, meaning]) => [`\`${name}\``, meaning]);
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
