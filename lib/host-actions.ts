/**
 * The stderr of ko in GitHub Actions, whose runner executes lines such as `::add-mask::x`: text that ko passes on from Go,
 * registries and kubectl must not be one.
 *
 * https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
 */
import type { Host } from "./host.ts";

/** The first two characters of a command, and of one in the old form. Characters that are not shown may be between. */
const COMMAND = /^:\p{Cf}*:/u;
const OLD_COMMAND = /#(?=\p{Cf}*#\p{Cf}*\[)/gu;

/** A longer line is written before its end. Characters. */
const LONGEST_LINE = 1024 * 1024;
const KEPT_CHARS = 16;

/** Reports whether ko runs in a step of GitHub Actions. */
export function isInActions(env: Readonly<Record<string, string>>): boolean {
  return env["GITHUB_ACTIONS"] === "true";
}

/**
 * Returns a host whose `err()` writes no workflow command, and whose `annotate()` writes nothing else. Programs that
 * share ko's stderr write there, too.
 *
 * Lines are written when they are complete. Call `end()` after the last one.
 */
export function guardedHost(host: Host): { readonly host: Host; readonly end: () => void } {
  let rest = "";
  const err = (text: string): void => {
    rest += text;
    const lines = Math.max(rest.lastIndexOf("\n"), rest.lastIndexOf("\r")) + 1;
    // The end is kept: the rest of a command may follow.
    const end = lines > 0 ? lines : rest.length - KEPT_CHARS;
    if (lines === 0 && rest.length < LONGEST_LINE) return;
    host.err(neutralize(rest.slice(0, end)));
    rest = rest.slice(end);
  };
  const end = (): void => {
    if (rest !== "") host.err(neutralize(rest));
    rest = "";
  };
  return {
    host: {
      ...host,
      err,
      annotate: (line) => {
        if (rest !== "") err("\n");
        host.err(`${line.replace(OLD_COMMAND, "\\x23")}\n`);
      },
      run: (argv, options) =>
        host.run(argv, options?.stderr === "inherit" ? { ...options, stderr: err } : { ...options }),
    },
    end,
  };
}

/**
 * Changes the first character of each workflow command of a text: `\x3a:add-mask::x`, `\x23#[add-mask]x`.
 *
 * The runner skips blanks before `::`, and finds `##[` anywhere in a line.
 */
export function neutralize(text: string): string {
  const lines = text.includes(":") ? text.split(/(?<=[\r\n])/).map(neutralizeLine) : [text];
  return lines.join("").replace(OLD_COMMAND, "\\x23");
}

function neutralizeLine(line: string): string {
  const start = line.search(/[^\s\u0085\p{Cf}]/u);
  return COMMAND.test(line.slice(start)) ? `${line.slice(0, start)}\\x3a${line.slice(start + 1)}` : line;
}
