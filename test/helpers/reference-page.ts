/**
 * docs/reference.md from the command tables: the test compares the file with this, `UPDATE=1 bun test
 * test/cli-tables.test.ts` writes it.
 */
import { formatHelp, formatOverview } from "../../lib/cli-parse.ts";
import { type Command, GLOBAL_FLAGS, allCommands } from "../../lib/cli-commands.ts";
import { type FlagTable, formatDefault, formatFlagName } from "../../lib/cli-flags.ts";

/** The whole page. */
export function renderReference(): string {
  return [
    "# Reference",
    "",
    "Every command and every flag. Made from the tables in `lib/cli-commands.ts`: change them there.",
    "",
    "A flag with a value takes it after a blank or after `=`; a list takes several with commas between, and may be",
    "repeated; `--flag[=VALUE]` takes it after `=` only. `--flag=false` turns a flag off. Flags may stand before, between",
    "and after the words; `--` ends them.",
    "",
    "```text",
    formatOverview().trimEnd(),
    "```",
    "",
    "Flags of every command:",
    "",
    ...flagTable(GLOBAL_FLAGS),
    ...allCommands().flatMap(renderCommand),
  ].join("\n");
}

function renderCommand(found: readonly [string, Command]): readonly string[] {
  const [name, command] = found;
  const own = Object.entries(command.flags).filter(([flag]) => !Object.hasOwn(GLOBAL_FLAGS, flag));
  return [
    "",
    `## ko ${name}`,
    "",
    "```text",
    // The flags follow as a table.
    formatHelp([name, { ...command, flags: GLOBAL_FLAGS }])
      .replace(/\n\nFlags of every command:[^]*$/, "")
      .trimEnd(),
    "```",
    ...(own.length === 0 ? [] : ["", ...flagTable(Object.fromEntries(own))]),
  ];
}

function flagTable(table: FlagTable): readonly string[] {
  const rows = Object.entries(table).map(([name, flag]) => {
    const value = formatDefault(flag);
    return [`\`${formatFlagName(name, flag).trim()}\``, value === undefined ? "" : `\`${value}\``, flag.help];
  });
  const all = [["Flag", "Default", "Meaning"], ...rows].map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const widths = [0, 1, 2].map((column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string => {
    return `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  };
  const [head = [], ...body] = all;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)];
}
