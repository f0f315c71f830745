/**
 * What ko tells a person while it works: lines on stderr, one event each.
 *
 * stdout is never touched here: it carries results only.
 */
import { printable } from "./errors.ts";

export interface Log {
  /** What a person wants to know of every run: "Building …", "Published …". */
  info(message: string): void;
  /** Something is probably not as the user means it. Shown even with `-q`. */
  warn(message: string): void;
  /** Details for `-v`: requests (without secrets), commands. */
  debug(message: string): void;
}

export type LogLevel = "quiet" | "normal" | "verbose";

/**
 * @param write gets whole lines, line end included
 */
export function createLog(level: LogLevel, write: (text: string) => void): Log {
  const put = (message: string): void => write(`${printable(message, 64 * 1024)}\n`);
  return {
    info: level === "quiet" ? () => {} : put,
    warn: (message) => put(`Warning: ${message}`),
    debug: level === "verbose" ? put : () => {},
  };
}

/** Says nothing: for tests and for what is asked silently. */
export const silentLog: Log = { info: () => {}, warn: () => {}, debug: () => {} };
