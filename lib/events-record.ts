/**
 * Records runs for other programs: the files of `--events`, `--metadata-file` and `--dotenv`, and in GitHub Actions
 * annotations, outputs and the summary of the step.
 */
import { relative, resolve } from "node:path";
import { exitCodeOf, UsageError } from "./errors.ts";
import { formatDotenv, whyTooLarge } from "./events-dotenv.ts";
import { errorEvents } from "./events-errors.ts";
import { type EventLog, openEventLog } from "./events-file.ts";
import { appendOutputs, appendSummary, formatAnnotation } from "./events-github.ts";
import { Metadata } from "./events-metadata.ts";
import type { Event, ResultEvent } from "./events.ts";
import { checkWritableFile, isInside, writeOutputFile } from "./file.ts";
import type { Host } from "./host.ts";
import { formatWarning } from "./log.ts";
import { styleOf } from "./log-style.ts";
import { koVersion } from "./version.ts";

/** The files that a run is recorded in. */
export interface RecordFiles {
  /** Of `--events`: a path, or `-` for stderr. */
  readonly events: string | undefined;
  /** Of `--metadata-file`. */
  readonly metadata: string | undefined;
  /** Of `--dotenv`. */
  readonly dotenv: string | undefined;
  /** `--github-output`. */
  readonly isGithubOutput: boolean;
}

export interface RecordOptions {
  readonly host: Host;
  /** The command of ko. */
  readonly command: string;
  readonly files: RecordFiles;
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

  /** @throws {UsageError} If a file cannot be written, or is not named. */
  static async open(options: RecordOptions): Promise<RunRecord> {
    const { files, host } = options;
    const { dotenv, events, isGithubOutput, metadata } = files;
    if (metadata !== undefined) await checkWritableFile(resolve(host.cwd, metadata), "--metadata-file");
    if (dotenv !== undefined) await checkWritableFile(resolve(host.cwd, dotenv), "--dotenv");
    if (isGithubOutput) await checkGithubOutput(host);
    const log = events === undefined ? undefined : await openEventLog(events, host);
    return new RunRecord(options, { koVersion: await koVersion(host), log });
  }

  readonly add = (reported: Event): void => {
    const { files, host } = this.#options;
    const event = reported.type === "result" ? nameFiles(reported, host.cwd) : reported;
    this.#log?.add(event);
    this.#metadata.add(event, host.monotonic());
    if (host.annotate === undefined || files.events === "-") return;
    const annotation = formatAnnotation(event, host);
    if (annotation !== undefined) host.annotate(annotation);
  };

  /** Begins a run. */
  begin(): void {
    this.#metadata = new Metadata();
    this.add({ type: "run", state: "begin", command: this.#options.command, koVersion: this.#koVersion });
  }

  /**
   * Ends a run, and writes the files that are about all of it.
   *
   * @param exitCode of a run that did not fail
   * @throws {KoError} If a file cannot be written.
   */
  async end(exitCode: number): Promise<void> {
    await this.#end({ exitCode, hasFailed: false });
  }

  /** Records a failure, also between two runs. */
  addError(error: unknown): void {
    for (const event of errorEvents(error, this.#options.host.cwd)) this.add(event);
  }

  /** Ends a run that failed. @returns the exit code @throws {KoError} If a file cannot be written. */
  async fail(error: unknown): Promise<number> {
    const exitCode = exitCodeOf(error);
    this.addError(error);
    await this.#end({ exitCode, hasFailed: true });
    return exitCode;
  }

  [Symbol.dispose](): void {
    this.#log?.[Symbol.dispose]();
  }

  async #end({ exitCode, hasFailed }: { readonly exitCode: number; readonly hasFailed: boolean }): Promise<void> {
    const { command, files, host } = this.#options;
    const version = this.#koVersion;
    const metadata = this.#metadata;
    if (files.metadata !== undefined) {
      const text = metadata.format({ exitCode, koVersion: version });
      await writeOutputFile(resolve(host.cwd, files.metadata), text, "--metadata-file");
    }
    if (files.dotenv !== undefined) {
      // Nothing of a run that failed: a later job must not take a part for all.
      const text = hasFailed ? "" : formatDotenv(metadata.programs);
      await writeOutputFile(resolve(host.cwd, files.dotenv), text, "--dotenv");
      const why = whyTooLarge(text);
      if (why !== undefined) this.#warn(`${files.dotenv}: ${why}`);
    }
    if (files.isGithubOutput) {
      if (!hasFailed) await appendOutputs(metadata.programs, host);
      await appendSummary(metadata, { command, host });
    }
    // The last event: a program that waits for it finds the files written.
    this.add({ type: "run", state: "end", command, koVersion: version, exitCode });
  }

  #warn(message: string): void {
    const { files, host } = this.#options;
    this.add({ type: "warning", message });
    if (files.events !== "-") host.err(formatWarning(message, styleOf(host)));
  }
}

/** Names the files below the working directory from there, as places of errors are. */
function nameFiles(event: ResultEvent, cwd: string): ResultEvent {
  const images = event.images.map((image) => {
    const { why } = image;
    if (why?.file === undefined || !isInside(why.file, cwd)) return image;
    return { ...image, why: { ...why, file: relative(cwd, why.file) } };
  });
  return { ...event, images };
}

/** @throws {UsageError} If there is no file for the outputs of a step. */
async function checkGithubOutput({ cwd, env }: Host): Promise<void> {
  const { GITHUB_OUTPUT: output, GITHUB_STEP_SUMMARY: summary } = env;
  if (!output) {
    throw new UsageError("Cannot use --github-output: GITHUB_OUTPUT is not set, wanted the file of a step's outputs", {
      hint: "Use --metadata-file FILE outside of GitHub Actions, or --dotenv FILE in GitLab.",
    });
  }
  await checkWritableFile(resolve(cwd, output), "GITHUB_OUTPUT");
  if (summary) await checkWritableFile(resolve(cwd, summary), "GITHUB_STEP_SUMMARY");
}
