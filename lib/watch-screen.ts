/**
 * The terminal of `--watch`: lines for each round that stay, and below them, rewritten in place, the live block of the
 * round that runs, or a status line between rounds.
 *
 * All of it goes to stderr. What ko rewrites exists on a terminal only, and is hidden while other output is written.
 */
import { relative } from "node:path";
import { repeat } from "./async.ts";
import { describeError, type DescribeOptions, printable } from "./errors.ts";
import { recordingHost, recordingLog } from "./events-lines.ts";
import type { Event, Stage } from "./events.ts";
import { isInside } from "./file.ts";
import type { Host } from "./host.ts";
import { formatWarning, type Log, type LogLevel, type ProgressMode } from "./log.ts";
import { styleOf } from "./log-style.ts";
import { TerminalArea } from "./progress-area.ts";
import { fit, renderBlock } from "./progress-block.ts";
import { SilenceNotes } from "./progress-notes.ts";
import { chooseMode, levelWith } from "./progress-report.ts";
import { Progress } from "./progress.ts";
import type { WaitLines } from "./rollout.ts";
import type { Recorder } from "./timing.ts";

/** A program that a round published. */
export interface ProgramChange {
  readonly importPath: string;
  /** The reference as printed or put into YAML; undefined the first time. */
  readonly before: string | undefined;
  readonly after: string;
}

export interface RoundTimes {
  /** Milliseconds. */
  readonly took: number;
  /** Milliseconds in each stage. */
  readonly stages: readonly (readonly [stage: Stage, busy: number])[];
}

/** Changed paths shown by name. */
const MOST_CAUSES = 3;
/** A round shorter than this shows no block. Milliseconds. */
const FIRST_DRAW_MS = 150;
const REDRAW_MS = 100;
/** Lines of the terminal that the lines of objects leave free. */
const FREE_ROWS = 4;

/**
 * Returns the changed paths, relative to `cwd` if they are below it: `pkg/web/handler.go and 2 more`, `a.txt removed`.
 *
 * @param isThere tells removed paths
 */
export function formatCause(
  paths: readonly string[],
  { cwd, isThere: exists }: { readonly cwd: string; readonly isThere: (path: string) => boolean },
): string {
  const shown = paths.slice(0, MOST_CAUSES).map((path) => {
    const way = relative(cwd, path);
    const name = printable(way === "" ? "." : isInside(path, cwd) ? way : path, 200);
    return exists(path) ? name : `${name} removed`;
  });
  const more = paths.length - shown.length;
  return more > 0 ? `${shown[0] ?? ""} and ${paths.length - 1} more` : shown.join(", ");
}

/** Returns a line for each program: `example.com/app/cmd/web  8f1c2a90 -> 1b77e04c`. */
export function formatPrograms(changes: readonly ProgramChange[]): string {
  const width = Math.max(0, ...changes.map(({ importPath }) => importPath.length));
  return changes
    .map(({ importPath, before, after }) => {
      const name = `  ${importPath.padEnd(width)}  `;
      if (before === after) return `${name}${shortDigest(after)}, the same as before\n`;
      return `${name}${before === undefined ? "" : `${shortDigest(before)} -> `}${shortDigest(after)}\n`;
    })
    .join("");
}

/** Returns the time of a round and of its longest stages: `0.62 s: compile 0.31 s, upload 0.08 s`. */
export function formatTimes({ took, stages }: RoundTimes): string {
  const parts = stages
    .filter(([, busy]) => busy >= Math.max(5, took / 50))
    .map(([stage, busy]) => `${stage} ${seconds(busy)}`);
  return parts.length === 0 ? seconds(took) : `${seconds(took)}: ${parts.join(", ")}`;
}

/** Returns the text of a failure. A compiler's errors stay whole, without the `# PACKAGE` lines above them. */
export function formatFailure(error: unknown, options: DescribeOptions = {}): string {
  const lines = describeError(error, options).split("\n");
  return lines.flatMap((line) => (line.startsWith("# ") ? [] : [`${line}\n`])).join("");
}

/** Returns 12 hex digits of a reference's digest, or its tag if it has no digest. */
export function shortDigest(reference: string): string {
  const digest = /@sha256:([0-9a-f]{12})/.exec(reference)?.[1];
  return digest ?? reference.replace(/^.*:([^:/]+)$/, "$1").replace(/^([0-9a-f]{12})[0-9a-f]{52}$/, "$1");
}

/** Returns the local time as `14:03:22`. */
export function formatTime(date: Date): string {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

export interface WatchScreenOptions {
  readonly host: Host;
  readonly level: LogLevel;
  readonly progress: ProgressMode;
  /** Gets an event for each line that stays. @default none */
  readonly record?: ((event: Event) => void) | undefined;
  /** Calls a function again and again, until the returned one is called. @default a timer that does not keep ko alive */
  readonly every?: (milliseconds: number, draw: () => void) => () => void;
}

/** The round that runs, on the screen. */
export interface LiveRound extends Disposable {
  add(event: Event): void;
}

export class WatchScreen {
  readonly #host: Host;
  readonly #level: LogLevel;
  readonly #options: WatchScreenOptions;
  readonly #area: TerminalArea;
  readonly #hasBlock: boolean;
  readonly #hasStatus: boolean;
  readonly #hasNotes: boolean;
  /** The text of the status line, shown or hidden. */
  #status = "";
  /** Why objects do not run yet, by name. */
  readonly #waits = new Map<string, string>();
  /** Of the round that runs; undefined between rounds. */
  #progress: Progress | undefined;
  /** Returns the lines of the block; undefined while there is none. */
  #block: (() => readonly string[]) | undefined;
  #notes: SilenceNotes | undefined;
  /** The last output has no line end: a block would be written behind it. */
  #isMidLine = false;
  readonly #warned = new Set<string>();

  constructor(options: WatchScreenOptions) {
    const { host, level, progress } = options;
    const mode = chooseMode(progress, { host, level });
    this.#host = host;
    this.#level = levelWith(progress, level);
    this.#options = options;
    this.#area = new TerminalArea(host);
    this.#hasBlock = mode === "block";
    const mayRewrite = host.stderrIsTerminal && host.env["TERM"] !== "dumb";
    this.#hasStatus = this.#hasBlock || (level === "verbose" && mayRewrite && progress === "auto");
    this.#hasNotes = mode === "lines with notes";
  }

  /** A host that clears the block or the status line before it writes. All code that writes during a round must use it. */
  get host(): Host {
    const host = this.#host;
    const shown: Host = {
      ...host,
      err: (text) => this.#write(text),
      out: async (data) => {
        this.hide();
        this.#isMidLine = !endsLine(data);
        await host.out(data);
      },
    };
    return this.#options.record === undefined ? shown : recordingHost(shown, this.#options.record);
  }

  /** A log that shows `info` in the block or on the status line, each warning once, and the rest with `-v` only. */
  get log(): Log {
    const put = (message: string): void => this.#write(`${printable(message, 64 * 1024)}\n`);
    const log: Log = {
      info: (message) => (this.#level === "verbose" ? put(message) : this.#inform(message)),
      warn: (message) => {
        if (!this.#warned.has(message)) this.#write(formatWarning(message, styleOf(this.#host)));
        this.#warned.add(message);
      },
      debug: (message) => (this.#level === "verbose" ? put(message) : undefined),
      isVerbose: this.#level === "verbose",
    };
    return this.#options.record === undefined
      ? log
      : recordingLog(log, { add: this.#options.record, cwd: this.#host.cwd });
  }

  /** A line for each object that does not run yet, above the status line; undefined without a terminal. */
  get waits(): WaitLines | undefined {
    if (!this.#hasStatus) return undefined;
    return {
      show: (name, text) => {
        this.#waits.set(name, printable(text.replaceAll(/\s+/g, " "), 1000));
        this.#show();
      },
      remove: (name) => {
        // At the end of ko, nothing is drawn any more.
        if (this.#waits.delete(name) && !this.#host.signal.aborted) this.#show();
      },
    };
  }

  /**
   * Shows a round while it runs: a line for each program, and one for the round. Without a terminal, a line says what a
   * long round waits for.
   */
  openRound(cause: string): LiveRound {
    const host = this.#host;
    const startedAt = host.monotonic();
    const progress = new Progress();
    const notes = this.#hasNotes
      ? new SilenceNotes({
          host: { err: (text) => this.#write(text), monotonic: () => host.monotonic() },
          ...(this.#options.record === undefined ? {} : { record: this.#options.record }),
        })
      : undefined;
    [this.#notes, this.#progress] = [notes, progress];
    const lines = (): readonly string[] => {
      const { stderrColumns: columns = 80, stderrRows: rows = 24 } = host;
      return renderBlock(progress, { columns, rows, now: host.monotonic(), startedAt, title: cause });
    };
    const draw = (): void => {
      if (host.monotonic() - startedAt < FIRST_DRAW_MS) return;
      this.#block = lines;
      this.#show();
    };
    const { every = repeat } = this.#options;
    const stop = this.#hasBlock ? every(REDRAW_MS, draw) : undefined;
    return {
      add: (event) => {
        progress.add(event, host.monotonic());
        notes?.add(event);
      },
      [Symbol.dispose]: () => {
        stop?.();
        notes?.[Symbol.dispose]();
        const wasShown = this.#block !== undefined;
        this.#notes = this.#progress = this.#block = undefined;
        if (!wasShown) return;
        this.hide();
        this.#show();
      },
    };
  }

  /** Writes lines of a round; nothing with `-q`. */
  say(text: string): void {
    if (this.#level === "quiet") return;
    for (const message of text.trimEnd().split("\n")) this.#options.record?.({ type: "info", message });
    this.#write(text);
  }

  /** Writes lines of programs, also with `-q`. They are no events. Settles when they are taken. */
  async logs(text: string): Promise<void> {
    this.hide();
    this.#host.err(this.#isMidLine ? `\n${text}` : text);
    this.#isMidLine = false;
    this.#show();
    await this.#host.drained();
  }

  /** Writes a failure, also with `-q`. Its events are those of the error. */
  fail(error: unknown): void {
    this.#write(formatFailure(error, { cwd: this.#host.cwd, style: styleOf(this.#host) }));
  }

  /** Sets the status line; does nothing without a terminal. */
  status(text: string): void {
    if (!this.#hasStatus) return;
    this.#status = printable(text.replaceAll(/\s+/g, " "), 1000);
    this.#show();
  }

  /** Clears what is rewritten before other output is written to the terminal. */
  hide(): void {
    this.#area.clear();
  }

  #inform(message: string): void {
    if (this.#hasBlock && this.#progress !== undefined) {
      this.#progress.add({ type: "info", message: printable(message, 1000) }, this.#host.monotonic());
    } else this.status(message);
  }

  #show(): void {
    if (this.#isMidLine) return;
    if (this.#block !== undefined) this.#area.draw(this.#block());
    else if (this.#status !== "") {
      const { stderrColumns: columns = 80 } = this.#host;
      this.#area.draw([...this.#waitLines(), this.#status].map((line) => fit(line, Math.max(10, columns - 1))));
    }
  }

  #waitLines(): readonly string[] {
    const lines = Array.from(this.#waits, ([name, text]) => `${name} ${text}`);
    const most = Math.max(1, (this.#host.stderrRows ?? 24) - FREE_ROWS);
    if (lines.length <= most) return lines;
    return [...lines.slice(0, most - 1), `and ${lines.length - most + 1} more do not run yet`];
  }

  #write(text: string): void {
    this.hide();
    this.#notes?.restart();
    this.#isMidLine = !endsLine(text);
    this.#host.err(text);
    this.#show();
  }
}

function endsLine(text: string | Uint8Array): boolean {
  return typeof text === "string" ? text.endsWith("\n") : text.at(-1) === 10;
}

export interface RoundReportOptions {
  readonly screen: WatchScreen;
  readonly host: Pick<Host, "now" | "monotonic">;
  /** The changed paths, or "start". */
  readonly cause: string;
  readonly recorder: Pick<Recorder, "stageTimes">;
  /** Milliseconds, as `host.monotonic()` counts them. */
  readonly startedAt: number;
  /** Hides the round unless it changes something: it is a retry, or only names in folders changed. */
  readonly isQuiet: boolean;
}

/** The block of lines of one round. Its head, the time and the cause, is written with the first line. */
export class RoundReport {
  readonly #options: RoundReportOptions;
  readonly #time: string;
  #isHeaded = false;
  #isQuiet: boolean;

  constructor(options: RoundReportOptions) {
    this.#options = options;
    this.#time = formatTime(options.host.now());
    this.#isQuiet = options.isQuiet;
  }

  /** Writes a line for each published program. */
  programs(changes: readonly ProgramChange[]): void {
    const isUnchanged = changes.every(({ before, after }) => before === after);
    if (changes.length === 0 || (isUnchanged && this.#isQuiet)) return;
    this.#isQuiet = false;
    this.#say(formatPrograms(changes));
  }

  /** Writes the head: what follows is written by others, such as kubectl. */
  head(): void {
    this.#isQuiet = false;
    this.#head();
  }

  note(line: string): void {
    this.#isQuiet = false;
    this.#say(`  ${line}\n`);
  }

  /**
   * Writes the last line of a round that succeeded.
   *
   * @param summary a few words; empty if the round had nothing to do
   * @param options.isNews writes the line also if the round had nothing to do
   * @returns a short form for the status line; undefined if nothing was written
   */
  done(summary: string, { isNews }: { readonly isNews: boolean }): string | undefined {
    if (!isNews && (this.#isQuiet || summary === "")) return undefined;
    const text = summary || "nothing new";
    this.#say(`  ${text}, ${this.#times()}\n`);
    const took = formatTimes({ took: this.#took(), stages: [] });
    return `last ${this.#time} ${this.#options.cause}: ${text}, ${took}`;
  }

  /**
   * Writes a failure and the last line of the round.
   *
   * @param options.isNew false writes nothing: the round before failed in the same way
   * @param options.isRetried ko retries without a change
   * @returns a short form for the status line
   */
  failed(error: unknown, { isNew, isRetried }: { readonly isNew: boolean; readonly isRetried: boolean }): string {
    if (isNew) {
      this.#head();
      this.#options.screen.fail(error);
      this.#say(`  failed, ${this.#times()}${isRetried ? "; ko tries again" : ""}\n`);
    }
    return `last ${this.#time} ${this.#options.cause}: failed${isRetried ? ", ko tries again" : ""}`;
  }

  #say(text: string): void {
    this.#head();
    this.#options.screen.say(text);
  }

  #head(): void {
    if (!this.#isHeaded) this.#options.screen.say(`${this.#time} ${this.#options.cause}\n`);
    this.#isHeaded = true;
  }

  #took(): number {
    return this.#options.host.monotonic() - this.#options.startedAt;
  }

  #times(): string {
    return formatTimes({ took: this.#took(), stages: this.#options.recorder.stageTimes() });
  }
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(2)} s`;
}
