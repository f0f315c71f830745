/**
 * The last lines of a terminal, which ko rewrites in place. Everything that stays is written above them.
 */
import type { Host } from "./host.ts";

export class TerminalArea {
  readonly #host: Pick<Host, "err" | "stderrColumns">;
  /** The lines on the screen; empty if there are none. */
  #lines: readonly string[] = [];

  /** @param host is asked for its width at each call: a terminal may be resized */
  constructor(host: Pick<Host, "err" | "stderrColumns">) {
    this.#host = host;
  }

  get isShown(): boolean {
    return this.#lines.length > 0;
  }

  /** @param lines without line ends, each narrower than the terminal; empty removes the area */
  draw(lines: readonly string[]): void {
    // No line end after the last line: an area of the terminal's whole height does not scroll it.
    const text = `${this.#eraser()}${lines.join("\r\n")}`;
    if (text !== "") this.#host.err(text);
    this.#lines = lines;
  }

  clear(): void {
    this.draw([]);
  }

  /** The control sequences that remove the lines, and leave the cursor where they began. */
  #eraser(): string {
    if (this.#lines.length === 0) return "";
    // A terminal that has become narrower has wrapped the lines.
    const columns = Math.max(1, this.#host.stderrColumns ?? 80);
    const height = this.#lines.reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / columns)), 0);
    const up = height > 1 ? `\u001b[${height - 1}A` : "";
    return `\r${up}\u001b[J`;
  }
}
