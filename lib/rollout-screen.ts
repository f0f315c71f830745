/** The live lines of `--wait` on a terminal: one for each object that does not run yet, rewritten in place. */
import { repeat } from "./async.ts";
import type { Host } from "./host.ts";
import { printable } from "./errors.ts";
import type { Log } from "./log.ts";
import { TerminalArea } from "./progress-area.ts";
import { formatDuration } from "./progress-block.ts";
import type { WaitLines } from "./rollout.ts";

export interface RolloutScreenOptions {
  readonly host: Pick<Host, "err" | "monotonic" | "stderrColumns" | "stderrRows">;
  readonly log: Log;
  /** Calls a function again and again, until the returned one is called. @default a timer that does not keep ko alive */
  readonly every?: (milliseconds: number, draw: () => void) => () => void;
}

const REDRAW_MS = 100;
/** Lines of the terminal that stay free. */
const FREE_ROWS = 2;

/** Dispose of it before anything else writes to the terminal. */
export class RolloutScreen implements WaitLines, Disposable {
  /** Writes above the live lines. */
  readonly log: Log;
  readonly #host: RolloutScreenOptions["host"];
  readonly #area: TerminalArea;
  readonly #startedAt: number;
  readonly #texts = new Map<string, string>();
  readonly #stop: () => void;

  constructor({ every = repeat, host, log }: RolloutScreenOptions) {
    this.#host = host;
    this.#area = new TerminalArea(host);
    this.#startedAt = host.monotonic();
    const write = (level: "info" | "warn" | "debug", message: string): void => {
      this.#area.clear();
      log[level](message);
    };
    this.log = {
      ...log,
      info: (message) => write("info", message),
      warn: (message) => write("warn", message),
      debug: (message) => write("debug", message),
    };
    this.#stop = every(REDRAW_MS, () => this.#draw());
  }

  show(name: string, text: string): void {
    this.#texts.set(name, text);
  }

  remove(name: string): void {
    this.#texts.delete(name);
    this.#area.clear();
  }

  [Symbol.dispose](): void {
    this.#stop();
    this.#area.clear();
  }

  #draw(): void {
    const { monotonic, stderrColumns: columns = 80, stderrRows: rows = 24 } = this.#host;
    const took = formatDuration(monotonic() - this.#startedAt);
    const lines = Array.from(this.#texts, ([name, text]) => cut(`${name} ${text}`, { columns, end: `, ${took}` }));
    const most = Math.max(1, rows - FREE_ROWS);
    const more = lines.length - most;
    this.#area.draw(more > 0 ? [...lines.slice(0, most - 1), `and ${more + 1} more, ${took}`] : lines);
  }
}

/** A text of one line that is narrower than the terminal, with its end. */
function cut(text: string, { columns, end }: { readonly columns: number; readonly end: string }): string {
  const plain = printable(text.replaceAll(/\s+/g, " "), 1000);
  const room = Math.max(1, columns - 1 - end.length);
  return `${Bun.stringWidth(plain) <= room ? plain : `${plain.slice(0, Math.max(0, room - 1))}…`}${end}`;
}
