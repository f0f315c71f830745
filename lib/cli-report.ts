/**
 * Runs a building command with its report: what stderr shows, the file of `--events`, the file of `--metadata-file`.
 */
import type { BuildingInvocation } from "./cli-command-line.ts";
import type { ReportFlags } from "./cli-options.ts";
import type { Host } from "./host.ts";
import type { LogLevel } from "./log.ts";
import { openReport, type Report } from "./progress-report.ts";
import type { TimingOutput } from "./timing.ts";

export interface WithReportOptions {
  readonly host: Host;
  readonly command: string;
  readonly level: LogLevel;
  readonly flags: ReportFlags;
}

/** Whether a run needs a record: a flag names a file, or GitHub Actions shows annotations. */
export function isRecorded({ dotenv, events, isGithubOutput, metadata }: ReportFlags, host: Host): boolean {
  return isGithubOutput || [dotenv, events, metadata].some((file) => file !== undefined) || host.annotate !== undefined;
}

/** Returns the command line for the page of `--timing`, without secrets; empty if there will be no page. */
export async function nameCommand(invocation: BuildingInvocation, to: TimingOutput | undefined): Promise<string> {
  if (typeof to !== "object" || to.format !== "page") return "";
  return (await import("./cli-command-line.ts")).formatCommandLine(invocation);
}

/**
 * Runs work with a report, and ends the report: the metadata is written after a failure too.
 *
 * @returns the exit code of the work; with `--events=-` also that of its failure, which is an event then
 * @throws {UsageError} If a file cannot be written. It is checked before the work begins.
 * @throws {KoError} If the metadata cannot be written after the work.
 * @throws Errors of `work`.
 */
export async function withReport(
  work: (report: Report) => Promise<number>,
  options: WithReportOptions,
): Promise<number> {
  const { command, flags, host, level } = options;
  const { events, progress } = flags;
  if (!isRecorded(flags, host)) {
    using report = await openReport(host, { level, progress });
    return await work(report);
  }
  const { RunRecord } = await import("./events-record.ts");
  using record = await RunRecord.open({ host, command, files: flags });
  const isSilent = events === "-";
  record.begin();
  let exitCode: number;
  try {
    using report = await openReport(host, { level, progress, record: record.add, isSilent });
    exitCode = await work(report);
  } catch (error) {
    // After Ctrl-C everything fails somehow: the signal is the reason.
    const code = await record.fail(host.signal.aborted ? host.signal.reason : error);
    if (isSilent) return code;
    throw error;
  }
  await record.end(exitCode);
  return exitCode;
}
