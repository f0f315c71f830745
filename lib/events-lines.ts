/**
 * Makes an event of each line that a run writes to stderr, its own ones and those of programs that write there.
 */
import { printable } from "./errors.ts";
import { findPlace } from "./events-errors.ts";
import type { Event } from "./events.ts";
import type { Host, RunOptions } from "./host.ts";
import type { Log } from "./log.ts";

/** Returns a log whose lines are events too. */
export function recordingLog(log: Log, { add, cwd }: { readonly add: (event: Event) => void; cwd: string }): Log {
  return {
    ...log,
    info: (message) => {
      add({ type: "info", message });
      log.info(message);
    },
    warn: (message) => {
      add({ type: "warning", message, ...findPlace(message, cwd) });
      log.warn(message);
    },
    debug: (message) => {
      if (log.isVerbose === true) add({ type: "debug", message });
      log.debug(message);
    },
  };
}

/**
 * Returns a host whose lines on stderr are events too, also those of programs that write there. A program that asks the
 * user keeps the terminal.
 */
export function recordingHost(host: Host, add: (event: Event) => void): Host {
  let rest = "";
  const err = (text: string): void => {
    host.err(text);
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const message = printable(line.replace(/\r$/, ""), 64 * 1024);
      if (message.trim() !== "") add({ type: "info", message });
    }
  };
  const isShared = ({ stderr, stdin }: RunOptions): boolean => stderr === "inherit" && stdin !== "inherit";
  return {
    ...host,
    err,
    run: (argv, options = {}) => host.run(argv, isShared(options) ? { ...options, stderr: err } : options),
  };
}
