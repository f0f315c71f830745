/**
 * Records runs for other programs: the file of `--events`, and that of `--metadata-file`.
 */
import { resolve } from "node:path";
import { exitCodeOf } from "./errors.ts";
import { errorEvents } from "./events-errors.ts";
import { type EventLog, openEventLog } from "./events-file.ts";
import { Metadata } from "./events-metadata.ts";
import type { Event } from "./events.ts";
import { checkWritableFile, writeOutputFile } from "./file.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import { koVersion } from "./version.ts";

export interface RecordOptions {
  readonly host: Host;
  /** The command of ko. */
  readonly command: string;
  /** Of `--events`: a path, or `-` for stderr. */
  readonly events: string | undefined;
  /** Of `--metadata-file`. */
  readonly metadata: string | undefined;
}

/** The record of a run, or of the rounds of a watch, one after another. */
export class RunRecord implements Disposable {
  readonly #options: RecordOptions;
  readonly #log: EventLog | undefined;
  readonly #koVersion: string;
  #metadata = new Metadata();

  private constructor(
    options: RecordOptions,
    { koVersion: version, log }: { readonly koVersion: string; readonly log: EventLog | undefined },
  ) {
    this.#options = options;
    this.#log = log;
    this.#koVersion = version;
  }

  /** @throws {UsageError} If a file cannot be written. */
  static async open(options: RecordOptions): Promise<RunRecord> {
    const { events, host, metadata } = options;
    if (metadata !== undefined) await checkWritableFile(resolve(host.cwd, metadata), "--metadata-file");
    const log = events === undefined ? undefined : await openEventLog(events, host);
    return new RunRecord(options, { koVersion: await koVersion(host), log });
  }

  readonly add = (event: Event): void => {
    this.#log?.add(event);
    this.#metadata.add(event, this.#options.host.monotonic());
  };

  /** Begins a run. */
  begin(): void {
    this.#metadata = new Metadata();
    this.add({ type: "run", state: "begin", command: this.#options.command, koVersion: this.#koVersion });
  }

  /**
   * Ends a run, and writes the metadata.
   *
   * @param exitCode of a run that did not fail
   * @throws {KoError} If the metadata cannot be written.
   */
  async end(exitCode: number): Promise<void> {
    const { command, host, metadata } = this.#options;
    const version = this.#koVersion;
    if (metadata !== undefined) {
      const text = this.#metadata.format({ exitCode, koVersion: version });
      await writeOutputFile(resolve(host.cwd, metadata), text, "--metadata-file");
    }
    // The last event: a program that waits for it finds the metadata written.
    this.add({ type: "run", state: "end", command, koVersion: version, exitCode });
  }

  /** Ends a run that failed. @returns the exit code @throws {KoError} If the metadata cannot be written. */
  async fail(error: unknown): Promise<number> {
    const exitCode = exitCodeOf(error);
    for (const event of errorEvents(error, this.#options.host.cwd)) this.add(event);
    await this.end(exitCode);
    return exitCode;
  }

  [Symbol.dispose](): void {
    this.#log?.[Symbol.dispose]();
  }
}

/** Returns a log whose lines are events too. */
export function recordingLog(log: Log, add: (event: Event) => void): Log {
  return {
    ...log,
    info: (message) => {
      add({ type: "info", message });
      log.info(message);
    },
    warn: (message) => {
      add({ type: "warning", message });
      log.warn(message);
    },
    debug: (message) => {
      if (log.isVerbose === true) add({ type: "debug", message });
      log.debug(message);
    },
  };
}
