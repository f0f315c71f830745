/**
 * The colours of a terminal, for the words that a person looks for. Pipes and files get plain text.
 *
 * https://no-color.org/
 */

export interface Style {
  readonly error: (text: string) => string;
  readonly warning: (text: string) => string;
  readonly hint: (text: string) => string;
  readonly success: (text: string) => string;
  /** Names that stand before lines of several programs: those with different numbers look different. */
  readonly name: (text: string, n: number) => string;
}

const same = (text: string): string => text;

export const plainStyle: Style = { error: same, warning: same, hint: same, success: same, name: same };

/** Cyan, magenta, blue, green, yellow: not the red of errors. */
const NAME_COLOURS = [36, 35, 34, 32, 33] as const;

const colours: Style = {
  error: colour(31),
  warning: colour(33),
  hint: colour(36),
  success: colour(32),
  name: (text, n) => colour(NAME_COLOURS[n % NAME_COLOURS.length] ?? 36)(text),
};

export interface StyleOptions {
  readonly env: Readonly<Record<string, string>>;
  readonly isTerminal: boolean;
}

/** Returns the style for an output: plain if it is not a terminal, if the terminal is dumb, or with NO_COLOR. */
export function chooseStyle({ env, isTerminal }: StyleOptions): Style {
  return isTerminal && env["TERM"] !== "dumb" && (env["NO_COLOR"] ?? "") === "" ? colours : plainStyle;
}

/** Returns the style for stderr. */
export function styleOf(host: { readonly env: StyleOptions["env"]; readonly stderrIsTerminal: boolean }): Style {
  return chooseStyle({ env: host.env, isTerminal: host.stderrIsTerminal });
}

/** Returns the style for stdout. */
export function styleOfStdout(host: {
  readonly env: StyleOptions["env"];
  readonly stdoutColumns: number | undefined;
}): Style {
  return chooseStyle({ env: host.env, isTerminal: host.stdoutColumns !== undefined });
}

/** @param code of the foreground. Each line gets its own sequences, so that lines can be put elsewhere one by one. */
function colour(code: number): (text: string) => string {
  return (text) => text.replaceAll(/[^\n]+/g, (line) => `\u001b[${code}m${line}\u001b[39m`);
}
