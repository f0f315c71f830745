/**
 * What a person sees while ko watches: a block of lines for each round, and on a terminal one status line below them that is
 * written over and over.
 *
 * Everything goes to stderr; results on stdout are let through between two states of the status line.
 */
import { relative } from "node:path";
import { describeError, printable } from "./errors.ts";
import { isInside } from "./file.ts";
import type { Host } from "./host.ts";
import type { Log, LogLevel } from "./log.ts";
import type { Stage } from "./timing.ts";

/** A program that was published in a round. */
export interface ProgramChange {
  readonly importPath: string;
  /** References, as they are printed or put into YAML; `before` is undefined the first time. */
  readonly before: string | undefined;
  readonly after: string;
}

/** How a round ended. */
export interface RoundEnd {
  /** Milliseconds. */
  readonly took: number;
  readonly stages: readonly (readonly [stage: Stage, busy: number])[];
  /** What went wrong. */
  readonly error?: unknown;
}

/** Causes that are shown by name. */
const MOST_CAUSES = 3;
/** Places of a failure that are shown on top. */
const MOST_PLACES = 5;

const CLEAR = "\r\u001b[K";

/** The changed paths as a person names them: `pkg/web/handler.go and 2 more`. */
export function formatCause(paths: readonly string[], cwd: string): string {
  const shown = paths.slice(0, MOST_CAUSES).map((path) => {
    const way = relative(cwd, path);
    return printable(way === "" ? "." : isInside(path, cwd) ? way : path, 200);
  });
  const more = paths.length - shown.length;
  return more > 0 ? `${shown[0] ?? ""} and ${paths.length - 1} more` : shown.join(", ");
}

/** `example.com/app/cmd/web  8f1c2a90 -> 1b77e04c`, one line for each program. */
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

/** `0.62 s: compile 0.31 s, upload 0.08 s`: the whole, and where it went. */
export function formatTimes({ took, stages }: RoundEnd): string {
  const parts = stages
    .filter(([, busy]) => busy >= Math.max(5, took / 50))
    .map(([stage, busy]) => `${stage} ${seconds(busy)}`);
  return parts.length === 0 ? seconds(took) : `${seconds(took)}: ${parts.join(", ")}`;
}

/**
 * A failure with the places in files on top, each with what is wrong there: `pkg/web/handler.go:12:3: undefined: x`.
 */
export function formatFailure(error: unknown): string {
  const lines = describeError(error).split("\n");
  const isPlace = (line: string): boolean => /^\s*(?:\.\/)?[^\s:][^:]*\.\w+:\d+(?::\d+)?: /.test(line);
  const [first = "", ...rest] = lines;
  if (isPlace(first.replace(/^Error: /, ""))) return `${lines.join("\n")}\n`;
  const places = rest.filter(isPlace);
  const onTop = places.slice(0, MOST_PLACES).map((line) => line.trim());
  // The Go tool's lines between packages say nothing that the places do not say.
  const left = rest.filter((line) => !places.slice(0, MOST_PLACES).includes(line) && !line.startsWith("# "));
  return [...onTop, first, ...left].map((line) => `${line}\n`).join("");
}

/** The digest of a reference, or its tag, short enough to compare at a glance. */
export function shortDigest(reference: string): string {
  const digest = /@sha256:([0-9a-f]{12})/.exec(reference)?.[1];
  return digest ?? reference.replace(/^.*:([^:/]+)$/, "$1").replace(/^([0-9a-f]{12})[0-9a-f]{52}$/, "$1");
}

/** `1 document`, `2 documents`. */
export function formatCount(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

/** `14:03:22`, as the clock on the wall has it. */
export function formatTime(date: Date): string {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

export class WatchScreen {
  readonly #host: Host;
  readonly #level: LogLevel;
  /** The status line as it stands on the terminal, or would if it were the last line. */
  #status = "";
  #isShown = false;
  readonly #warned = new Set<string>();

  constructor(host: Host, level: LogLevel) {
    this.#host = host;
    this.#level = level;
  }

  /** The host for everything that may write meanwhile: the status line makes way. */
  get host(): Host {
    const host = this.#host;
    return {
      ...host,
      err: (text) => this.#write(text),
      out: async (data) => {
        this.hide();
        await host.out(data);
        // Shown again with the next line: a result may lack its line end.
      },
    };
  }

  /** Tells what ko is about on the status line, warns once of each thing, and tells the rest with `-v` only. */
  get log(): Log {
    const put = (message: string): void => this.#write(`${printable(message, 64 * 1024)}\n`);
    return {
      info: (message) => (this.#level === "verbose" ? put(message) : this.status(message)),
      warn: (message) => {
        if (!this.#warned.has(message)) put(`Warning: ${message}`);
        this.#warned.add(message);
      },
      debug: (message) => (this.#level === "verbose" ? put(message) : undefined),
    };
  }

  /** Lines of a round; not with `-q`. */
  say(text: string): void {
    if (this.#level !== "quiet") this.#write(text);
  }

  /** Something that must be seen. */
  fail(error: unknown): void {
    this.#write(formatFailure(error));
  }

  /** What stands on the status line; nothing without a terminal. */
  status(text: string): void {
    if (!this.#host.stderrIsTerminal || this.#level === "quiet") return;
    this.#status = printable(text.replaceAll(/\s+/g, " "), 1000);
    this.#show();
  }

  /** Takes the status line away, before something else writes to the terminal. */
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

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(2)} s`;
}
