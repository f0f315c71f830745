/**
 * How a run reports what it does: a live block on a terminal, lines elsewhere.
 *
 * Everything that writes to stderr during the run uses the host, the log and the timing of the report.
 */
import { printable } from "./errors.ts";
import type { Host, RunOptions } from "./host.ts";
import { createLog, type Log, type LogLevel, type ProgressMode } from "./log.ts";
import type { TerminalProgress } from "./progress-terminal.ts";
import { reportingTiming, type Timing } from "./timing.ts";

export interface Report extends Disposable {
  readonly host: Host;
  readonly log: Log;
  /** Returns a timing that reports to the live block as well. */
  timing(inner: Timing): Timing;
}

export interface ReportOptions {
  readonly level: LogLevel;
  readonly progress: ProgressMode;
}

/** Opens the report of a run. Dispose of it before anything else writes to stderr, such as the error of the run. */
export async function openReport(host: Host, { level, progress }: ReportOptions): Promise<Report> {
  if (chooseMode(progress, { host, level }) === "tty") {
    const { TerminalProgress: Opened } = await import("./progress-terminal.ts");
    return terminalReport(host, new Opened({ host }));
  }
  const log = createLog(progress === "none" && level === "normal" ? "quiet" : level, (text) => host.err(text));
  return { host, log, timing: (inner) => inner, [Symbol.dispose]: () => {} };
}

/** Chooses lines unless stderr is a terminal that can rewrite them, and a person probably watches. */
function chooseMode(
  progress: ProgressMode,
  { host, level }: { readonly host: Host; readonly level: LogLevel },
): Exclude<ProgressMode, "auto"> {
  if (level !== "normal") return "plain";
  if (progress !== "auto") return progress;
  const { env, stderrIsTerminal } = host;
  return stderrIsTerminal && env["TERM"] !== "dumb" && !isSet(env["CI"]) ? "tty" : "plain";
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value !== "" && value !== "false" && value !== "0";
}

function terminalReport(host: Host, screen: TerminalProgress): Report {
  const put = (message: string): void => screen.write(`${printable(message, 64 * 1024)}\n`);
  return {
    host: {
      ...host,
      err: (text) => screen.write(text),
      out: async (data) => {
        screen.finish();
        using _pause = pausing(screen);
        await host.out(data);
      },
      run: async (argv, options) => {
        if (!inherits(options)) return host.run(argv, options);
        screen.finish();
        using _pause = pausing(screen);
        return await host.run(argv, options);
      },
    },
    log: {
      // The block shows the last line only. When it is over, lines stay.
      info: (message) =>
        screen.isOver ? put(message) : screen.add({ type: "info", message: printable(message, 1000) }),
      warn: (message) => put(`Warning: ${message}`),
      debug: () => {},
    },
    timing: (inner) => reportingTiming(inner, (event) => screen.add(event)),
    [Symbol.dispose]: () => screen.end(),
  };
}

function pausing(screen: TerminalProgress): Disposable {
  const resume = screen.pause();
  return { [Symbol.dispose]: resume };
}

/** Whether a program shares the terminal with ko. */
function inherits({ stderr, stdin, stdout }: RunOptions = {}): boolean {
  return stderr === "inherit" || stdin === "inherit" || stdout === "inherit";
}
