/**
 * The file of `--events`: a line of JSON for each event, written at once, so that another program can follow the run.
 *
 * The schema is docs/schemas/events.v1.json.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { resolve } from "node:path";
import { KoError } from "./errors.ts";
import type { Event, TransferEvent } from "./events.ts";
import { checkWritableFile } from "./file.ts";
import type { Host } from "./host.ts";
import { formatWarning } from "./log.ts";
import { styleOf } from "./log-style.ts";

/** The version of the schema: its first number changes if a program that reads it may fail. */
export const EVENTS_VERSION = 1;

/** Between two lines about one transfer. Milliseconds. */
const TRANSFER_INTERVAL_MS = 1000;

/** Takes the events of a run. */
export interface EventLog extends Disposable {
  add(event: Event): void;
}

/**
 * Opens the file of `--events`.
 *
 * @param target a path, or `-` for stderr
 * @throws {UsageError} If the file cannot be written.
 */
export async function openEventLog(target: string, host: Host): Promise<EventLog> {
  if (target === "-") return new LineLog(host, { write: (line) => host.err(hideCommands(line)), close: () => {} });
  const path = resolve(host.cwd, target);
  await checkWritableFile(path, "--events");
  let file: number;
  try {
    file = openSync(path, "w", 0o644);
  } catch (cause) {
    throw new KoError(`Cannot write --events "${target}"`, { cause });
  }
  return new LineLog(host, {
    write: (line) => void writeSync(file, line),
    close: () => closeSync(file),
  });
}

/** The runner of GitHub Actions finds commands such as `##[add-mask]` inside a line, too. The value stays the same. */
function hideCommands(json: string): string {
  return json.replace(/#(?=\p{Cf}*#)/gu, "\\u0023");
}

interface Output {
  write(line: string): void;
  close(): void;
}

class LineLog implements EventLog {
  readonly #host: Host;
  readonly #output: Output;
  /** By transfer: when its last line was written. */
  readonly #written = new Map<string, number>();
  #isBroken = false;

  constructor(host: Host, output: Output) {
    this.#host = host;
    this.#output = output;
  }

  add(event: Event): void {
    if (this.#isBroken || (event.type === "transfer" && !this.#isDue(event))) return;
    const line = JSON.stringify({ version: EVENTS_VERSION, time: this.#host.now().toISOString(), ...event });
    try {
      this.#output.write(`${line}\n`);
    } catch (error) {
      // A full disk must not end a build.
      this.#isBroken = true;
      this.#host.err(formatWarning(`Cannot write --events: ${String(error)}`, styleOf(this.#host)));
    }
  }

  [Symbol.dispose](): void {
    this.#output.close();
  }

  #isDue({ id, image, state }: TransferEvent): boolean {
    const key = `${image} ${id}`;
    const now = this.#host.monotonic();
    const last = this.#written.get(key) ?? -Infinity;
    if (state === "moving" && now - last < TRANSFER_INTERVAL_MS) return false;
    this.#written.set(key, now);
    return true;
  }
}
