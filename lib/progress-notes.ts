/**
 * Lines that say what a run waits for, if it has written nothing for a while.
 *
 * They are for logs that a person follows, such as those of CI. The first note comes after two seconds, further ones at
 * growing intervals.
 */
import { repeat } from "./async.ts";
import type { Event } from "./events.ts";
import type { Host } from "./host.ts";
import { Progress } from "./progress.ts";
import { describeWait, formatDuration } from "./progress-block.ts";

export interface SilenceNotesOptions {
  readonly host: Pick<Host, "err" | "monotonic">;
  /** Gets an event for each line. @default none */
  readonly record?: (event: Event) => void;
  /** Calls a function again and again, until the returned one is called. @default a timer that does not keep ko alive */
  readonly every?: (milliseconds: number, look: () => void) => () => void;
}

/** Silence before each note; the last one repeats. Milliseconds. */
const INTERVALS_MS = [2000, 10_000, 30_000, 60_000];
const LOOK_MS = 500;

export class SilenceNotes implements Disposable {
  readonly #host: SilenceNotesOptions["host"];
  readonly #record: SilenceNotesOptions["record"];
  readonly #progress = new Progress();
  readonly #stop: () => void;
  readonly #startedAt: number;
  #lastLineAt: number;
  #notes = 0;

  constructor({ every = repeat, host, record }: SilenceNotesOptions) {
    this.#host = host;
    this.#record = record;
    this.#startedAt = this.#lastLineAt = host.monotonic();
    this.#stop = every(LOOK_MS, () => this.#look());
  }

  add(event: Event): void {
    this.#progress.add(event, this.#host.monotonic());
  }

  /** Another line was written: the silence begins again. */
  restart(): void {
    this.#lastLineAt = this.#host.monotonic();
    this.#notes = 0;
  }

  [Symbol.dispose](): void {
    this.#stop();
  }

  #look(): void {
    const now = this.#host.monotonic();
    const limit = INTERVALS_MS[Math.min(this.#notes, INTERVALS_MS.length - 1)] ?? 0;
    const wait = describeWait(this.#progress);
    if (now - this.#lastLineAt < limit || wait === "") return;
    this.#lastLineAt = now;
    this.#notes += 1;
    const message = `Still ${wait}, ${formatDuration(now - this.#startedAt)}`;
    this.#record?.({ type: "info", message });
    this.#host.err(`${message}\n`);
  }
}
