/**
 * Prints lines of programs: many at once, and no faster than the terminal takes them.
 *
 * Readers wait while there is no room, so a log stays on its node until it can be shown, and ko's memory is bounded.
 */
import { systemClock, until } from "./async.ts";
import { printable } from "./errors.ts";
import { withoutEscapes } from "./follow-lines.ts";

export interface LogPrinterOptions {
  /** Writes whole lines. Settles when they are taken. */
  readonly show: (text: string) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Characters that wait at most, beside one batch of each reader. */
const ROOM = 64 * 1024;
/** Milliseconds between two outputs: each redraws the block of a terminal. */
const PAUSE_MS = 20;
/** A line is cut before: this bounds escaped ones. */
const MAX_CHARS = 64 * 1024;

export class LogPrinter {
  readonly #options: LogPrinterOptions;
  #pending = "";
  #taken = Promise.withResolvers<void>();
  #isPrinting = false;

  constructor(options: LogPrinterOptions) {
    this.#options = options;
  }

  /** Prints lines after the prefix. Settles when there is room for more. */
  async write(prefix: string, lines: readonly string[]): Promise<void> {
    for (const line of lines) this.#pending += `${prefix}${printable(withoutEscapes(line), MAX_CHARS)}\n`;
    const taken = this.#taken.promise;
    if (!this.#isPrinting) void this.#print();
    if (this.#pending.length > ROOM) await until(taken, this.#options.signal);
  }

  async #print(): Promise<void> {
    const { show, signal } = this.#options;
    this.#isPrinting = true;
    while (this.#pending !== "") {
      const [text, { resolve }] = [this.#pending, this.#taken];
      this.#pending = "";
      this.#taken = Promise.withResolvers();
      await show(text);
      resolve();
      if (!signal.aborted) await systemClock.sleep(PAUSE_MS, signal).catch(() => {});
    }
    this.#isPrinting = false;
  }
}
