/**
 * Messages to the user while ko works: lines on stderr.
 *
 * stdout is left alone: it carries results only.
 */
import { printable } from "./errors.ts";
import { plainStyle, type Style } from "./log-style.ts";

export interface Log {
  /** Progress: "Building …", "Published …". Hidden with `-q`. */
  info(message: string): void;
  /** A probable mistake. Shown even with `-q`. */
  warn(message: string): void;
  /** Details: requests (without secrets), commands. Shown with `-v`. */
  debug(message: string): void;
  /** Whether details are shown, for those that take time to find out. @default false */
  readonly isVerbose?: boolean;
}

export type LogLevel = "quiet" | "normal" | "verbose";

/** The values of `--progress`. */
export const PROGRESS_MODES = ["auto", "tty", "plain", "none"] as const;

export type ProgressMode = (typeof PROGRESS_MODES)[number];

export interface LogOptions {
  /** @default no colours */
  readonly style?: Pick<Style, "warning">;
}

/**
 * Makes a log.
 *
 * @param write gets whole lines with their line ends
 */
export function createLog(
  level: LogLevel,
  write: (text: string) => void,
  { style = plainStyle }: LogOptions = {},
): Log {
  const put = (message: string): void => write(`${printable(message, 64 * 1024)}\n`);
  return {
    info: level === "quiet" ? () => {} : put,
    warn: (message) => write(formatWarning(message, style)),
    debug: level === "verbose" ? put : () => {},
    isVerbose: level === "verbose",
  };
}

/** Returns the line of a warning, with its line end. */
export function formatWarning(message: string, style: Pick<Style, "warning">): string {
  return `${style.warning("Warning:")} ${printable(message, 64 * 1024)}\n`;
}

/** A log without output. */
export const silentLog: Log = { info: () => {}, warn: () => {}, debug: () => {} };

/** The warnings of a run, each logged once. Those of the run before are not repeated. */
export class RunWarnings {
  readonly #log: Log;
  readonly #before: ReadonlySet<string>;
  readonly #lines = new Set<string>();

  /** @param before the warnings of the run before */
  constructor(log: Log, before: readonly string[] = []) {
    this.#log = log;
    this.#before = new Set(before);
  }

  get lines(): readonly string[] {
    return [...this.#lines];
  }

  warn(lines: readonly string[]): void {
    for (const line of lines) {
      if (!this.#lines.has(line) && !this.#before.has(line)) this.#log.warn(line);
      this.#lines.add(line);
    }
  }
}

/** `1 document`, `2 documents`. */
export function formatCount(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}

/** Returns `850 B`, `3.1 MB`, `1.2 GB`: powers of 1000, as registries and disks count. */
export function formatSize(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value < 9.95 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}
