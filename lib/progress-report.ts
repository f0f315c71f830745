/**
 * Shows a run while it works: a live block on a terminal, lines elsewhere.
 *
 * Everything that writes to stderr during the run uses the host, the log and the timing of the report.
 */
import { printable } from "./errors.ts";
import type { Event } from "./events.ts";
import type { Host, RunOptions } from "./host.ts";
import { styleOf } from "./log-style.ts";
import { createLog, formatWarning, type Log, type LogLevel, type ProgressMode, silentLog } from "./log.ts";
import type { SilenceNotes } from "./progress-notes.ts";
import type { TerminalProgress } from "./progress-terminal.ts";
import { reportingTiming, type Timing } from "./timing.ts";

export interface Report extends Disposable {
  readonly host: Host;
  readonly log: Log;
  /** Whether a person watches a terminal that can rewrite lines. */
  readonly isLive: boolean;
  /** Returns a timing that reports to the live block as well. */
  timing(inner: Timing): Timing;
}

export interface ReportOptions {
  readonly level: LogLevel;
  readonly progress: ProgressMode;
  /** Gets every event. @default no record */
  readonly record?: (event: Event) => void;
  /** Nothing is written to stderr: events take its place. @default false */
  readonly isSilent?: boolean;
}

/** Opens the report of a run. Dispose of it before anything else writes to stderr, such as the error of the run. */
export async function openReport(host: Host, options: ReportOptions): Promise<Report> {
  const { record } = options;
  const report = await openScreen(host, options);
  if (record === undefined) return report;
  const { recordingHost, recordingLog } = await import("./events-lines.ts");
  return {
    host: recordingHost(report.host, record),
    log: recordingLog(report.log, { add: record, cwd: host.cwd }),
    isLive: report.isLive,
    timing: (inner) => reportingTiming(report.timing(inner), record),
    [Symbol.dispose]: () => report[Symbol.dispose](),
  };
}

async function openScreen(host: Host, options: ReportOptions): Promise<Report> {
  const { isSilent = false, level, progress, record } = options;
  if (isSilent) {
    const log = { ...silentLog, isVerbose: level === "verbose" };
    return {
      host: { ...host, err: () => {} },
      log,
      isLive: false,
      timing: (inner) => inner,
      [Symbol.dispose]: () => {},
    };
  }
  const mode = chooseMode(progress, { host, level });
  if (mode === "block") {
    const { TerminalProgress: Opened } = await import("./progress-terminal.ts");
    return terminalReport(host, new Opened({ host }));
  }
  if (mode === "lines with notes") {
    const { SilenceNotes: Opened } = await import("./progress-notes.ts");
    return notedReport(host, { level, notes: new Opened({ host, ...(record === undefined ? {} : { record }) }) });
  }
  const log = createLog(levelWith(progress, level), (text) => host.err(text), { style: styleOf(host) });
  return { host, log, isLive: false, timing: (inner) => inner, [Symbol.dispose]: () => {} };
}

/** The level of the log: `--progress=none` hides lines of progress, too. */
export function levelWith(progress: ProgressMode, level: LogLevel): LogLevel {
  return progress === "none" && level === "normal" ? "quiet" : level;
}

export type Mode = "block" | "lines with notes" | "lines";

/** Chooses the block if a person watches a terminal that can rewrite lines, and notes if a person may watch lines. */
export function chooseMode(
  progress: ProgressMode,
  { host, level }: { readonly host: Host; readonly level: LogLevel },
): Mode {
  const { env, stderrIsTerminal } = host;
  if (level === "quiet" || progress === "none") return "lines";
  if (level === "verbose" || progress === "plain") return "lines with notes";
  if (progress === "tty") return "block";
  const isCi = isSet(env["CI"]);
  if (stderrIsTerminal && env["TERM"] !== "dumb" && !isCi) return "block";
  return stderrIsTerminal || isCi ? "lines with notes" : "lines";
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value !== "" && value !== "false" && value !== "0";
}

function notedReport(host: Host, { level, notes }: { readonly level: LogLevel; readonly notes: SilenceNotes }): Report {
  const err = (text: string): void => {
    notes.restart();
    host.err(text);
  };
  return {
    host: { ...host, err },
    log: createLog(level, err, { style: styleOf(host) }),
    isLive: false,
    timing: (inner) => reportingTiming(inner, (event) => notes.add(event)),
    [Symbol.dispose]: () => notes[Symbol.dispose](),
  };
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
      warn: (message) => screen.write(formatWarning(message, styleOf(host))),
      debug: () => {},
    },
    isLive: true,
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
