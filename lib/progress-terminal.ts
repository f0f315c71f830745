/**
 * Draws the live block below everything else that a run writes to a terminal, and rewrites it in place.
 *
 * Lines that stay go above the block. It is redrawn ten times a second, and at once when a line is written.
 */
import { repeat } from "./async.ts";
import type { Event } from "./events.ts";
import type { Host } from "./host.ts";
import { type Style, styleOf } from "./log-style.ts";
import { TerminalArea } from "./progress-area.ts";
import { Progress } from "./progress.ts";
import { formatSize } from "./log.ts";
import { describeResult, formatDuration, renderBlock, shortNames } from "./progress-block.ts";

export interface TerminalOptions {
  readonly host: Pick<Host, "env" | "err" | "monotonic" | "stderrColumns" | "stderrIsTerminal" | "stderrRows">;
  /** Calls a function again and again, until the returned one is called. @default a timer that does not keep ko alive */
  readonly every?: (milliseconds: number, draw: () => void) => () => void;
}

/** A run that is over within this time shows no block. Milliseconds. */
const FIRST_DRAW_MS = 150;
const REDRAW_MS = 100;

/** The block of one run. Call {@link TerminalProgress.end} in every case: it removes the block. */
export class TerminalProgress {
  readonly #host: TerminalOptions["host"];
  readonly #progress = new Progress();
  readonly #startedAt: number;
  readonly #stop: () => void;
  readonly #area: TerminalArea;
  /** Programs that write to the terminal themselves, and are running. */
  #pauses = 0;
  #isOver = false;

  constructor({ every = repeat, host }: TerminalOptions) {
    this.#host = host;
    this.#area = new TerminalArea(host);
    this.#startedAt = host.monotonic();
    this.#stop = every(REDRAW_MS, () => this.#draw());
  }

  /** Whether {@link TerminalProgress.finish} has written the lines that stay. */
  get isOver(): boolean {
    return this.#isOver;
  }

  add(event: Event): void {
    this.#progress.add(event, this.#host.monotonic());
  }

  /** Writes whole lines above the block. */
  write(text: string): void {
    const wasShown = this.#area.isShown;
    this.#area.clear();
    this.#host.err(text);
    if (wasShown) this.#draw();
  }

  /** Removes the block while another program writes to the terminal. @returns ends the pause */
  pause(): () => void {
    this.#area.clear();
    this.#pauses += 1;
    return () => {
      this.#pauses -= 1;
    };
  }

  /** If all programs are published, replaces the block by the lines that stay: one for each program, and a summary. */
  finish(): void {
    const { rows } = this.#progress;
    if (rows.every(({ result }) => result !== undefined)) this.end();
  }

  /** Replaces the block by the lines of the programs that are published, if any. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stop();
    this.#area.clear();
    this.#host.err(
      summarize(this.#progress, { style: styleOf(this.#host), took: this.#host.monotonic() - this.#startedAt }),
    );
  }

  #draw(): void {
    const host = this.#host;
    const now = host.monotonic();
    if (this.#isOver || this.#pauses > 0 || now - this.#startedAt < FIRST_DRAW_MS) return;
    const { stderrColumns: columns = 80, stderrRows: rows = 24 } = host;
    this.#area.draw(renderBlock(this.#progress, { columns, rows, now, startedAt: this.#startedAt }));
  }
}

interface SummaryOptions {
  readonly style: Style;
  /** Milliseconds. */
  readonly took: number;
}

function summarize({ rows }: Progress, { style, took }: SummaryOptions): string {
  const done = rows.filter(({ result }) => result !== undefined);
  if (done.length === 0) return "";
  const names = shortNames(rows.map(({ importPath }) => importPath));
  const width = Math.max(...done.map(({ importPath }) => (names.get(importPath) ?? "").length));
  const lines = done.map(
    (row) => `${(names.get(row.importPath) ?? "").padEnd(width)}  ${describeResult(row, style)}\n`,
  );
  if (done.length === 1) return lines.join("");
  const unchanged = done.filter(({ result }) => result?.wasThere === true).length;
  const sent = done.reduce((bytes, { transfer }) => bytes + transfer.bytes, 0);
  const parts = [
    `${done.length} programs`,
    ...(unchanged > 0 ? [`${unchanged} unchanged`] : []),
    ...(sent > 0 ? [`sent ${formatSize(sent)}`] : []),
    formatDuration(took),
  ];
  return `${lines.join("")}${parts.join(", ")}\n`;
}
