/**
 * The terminal of `--watch`: a block of lines for each round, and a status line below them that ko rewrites in place.
 *
 * All of it goes to stderr. The status line exists on a terminal only, and is hidden while other output is written.
 */
import { relative } from "node:path";
import { describeError, printable } from "./errors.ts";
import { isInside } from "./file.ts";
import type { Host } from "./host.ts";
import type { Log, LogLevel } from "./log.ts";
import type { Stage } from "./events.ts";
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
/** Compiler errors shown above the message of a failure. */
const MOST_PLACES = 5;

const CLEAR = "\r\u001b[K";

/** Returns the changed paths, relative to `cwd` if they are below it: `pkg/web/handler.go and 2 more`. */
export function formatCause(paths: readonly string[], cwd: string): string {
  const shown = paths.slice(0, MOST_CAUSES).map((path) => {
    const way = relative(cwd, path);
    return printable(way === "" ? "." : isInside(path, cwd) ? way : path, 200);
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

/** Returns the text of a failure with lines such as `pkg/web/handler.go:12:3: undefined: x` first. */
export function formatFailure(error: unknown): string {
  const lines = describeError(error).split("\n");
  const isPlace = (line: string): boolean => /^\s*(?:\.\/)?[^\s:][^:]*\.\w+:\d+(?::\d+)?: /.test(line);
  const [first = "", ...rest] = lines;
  if (isPlace(first.replace(/^Error: /, ""))) return `${lines.join("\n")}\n`;
  const places = rest.filter(isPlace);
  const onTop = places.slice(0, MOST_PLACES).map((line) => line.trim());
  // `# PACKAGE` lines of the Go tool repeat the paths of the lines below them.
  const left = rest.filter((line) => !places.slice(0, MOST_PLACES).includes(line) && !line.startsWith("# "));
  return [...onTop, first, ...left].map((line) => `${line}\n`).join("");
}

/** Returns 12 hex digits of a reference's digest, or its tag if it has no digest. */
export function shortDigest(reference: string): string {
  const digest = /@sha256:([0-9a-f]{12})/.exec(reference)?.[1];
  return digest ?? reference.replace(/^.*:([^:/]+)$/, "$1").replace(/^([0-9a-f]{12})[0-9a-f]{52}$/, "$1");
}

/** `1 document`, `2 documents`. */
export function formatCount(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}

/** Returns the local time as `14:03:22`. */
export function formatTime(date: Date): string {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

export class WatchScreen {
  readonly #host: Host;
  readonly #level: LogLevel;
  /** The text of the status line, shown or hidden. */
  #status = "";
  #isShown = false;
  readonly #warned = new Set<string>();

  constructor(host: Host, level: LogLevel) {
    this.#host = host;
    this.#level = level;
  }

  /** A host whose output hides the status line first. All code that writes during a round must use it. */
  get host(): Host {
    const host = this.#host;
    return {
      ...host,
      err: (text) => this.#write(text),
      out: async (data) => {
        this.hide();
        await host.out(data);
        // Not shown again here: the result may end without a line end.
      },
    };
  }

  /** A log that shows `info` on the status line, each warning once, and the rest with `-v` only. */
  get log(): Log {
    const put = (message: string): void => this.#write(`${printable(message, 64 * 1024)}\n`);
    return {
      info: (message) => (this.#level === "verbose" ? put(message) : this.status(message)),
      warn: (message) => {
        if (!this.#warned.has(message)) put(`Warning: ${message}`);
        this.#warned.add(message);
      },
      debug: (message) => (this.#level === "verbose" ? put(message) : undefined),
      isVerbose: this.#level === "verbose",
    };
  }

  /** Writes lines of a round; nothing with `-q`. */
  say(text: string): void {
    if (this.#level !== "quiet") this.#write(text);
  }

  /** Writes a failure, also with `-q`. */
  fail(error: unknown): void {
    this.#write(formatFailure(error));
  }

  /** Sets the status line; does nothing without a terminal. */
  status(text: string): void {
    if (!this.#host.stderrIsTerminal || this.#level === "quiet") return;
    this.#status = printable(text.replaceAll(/\s+/g, " "), 1000);
    this.#show();
  }

  /** Clears the status line before other output is written to the terminal. */
  hide(): void {
    if (this.#isShown) this.#host.err(CLEAR);
    this.#isShown = false;
  }

  #show(): void {
    if (this.#status === "") return;
    const width = Math.max(10, (this.#host.stderrColumns ?? 80) - 1);
    const text = this.#status.length > width ? `${this.#status.slice(0, width - 1)}…` : this.#status;
    this.#host.err(`${CLEAR}${text}`);
    this.#isShown = true;
  }

  #write(text: string): void {
    this.hide();
    this.#host.err(text);
    if (text.endsWith("\n")) this.#show();
  }
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
