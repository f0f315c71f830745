/**
 * Runs test files in parallel, each in its own `bun test` with its own JUnit report. The longest start first, by the times
 * of the last run; files that cannot share the machine run alone at the end.
 */
import { closeSync, openSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { endTree } from "./processes.ts";

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** How a test file ended. */
export interface FileResult extends Counts {
  /** Its path in the repository. */
  readonly file: string;
  readonly seconds: number;
  /** CPU time of the file's processes. */
  readonly cpuSeconds: number;
  /** Its stdout and stderr. */
  readonly output: string;
}

/** Seconds by test file. */
export type Times = Readonly<Record<string, number>>;

export interface RunFilesOptions {
  /** The repository. */
  readonly root: string;
  /** For logs and reports, absolute. */
  readonly folder: string;
  /** The number of files that run in parallel. */
  readonly jobs: number;
  readonly times: Times;
  /** Variables on top of this process's. */
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Called at the end of each file. */
  readonly onEnd: (result: FileResult) => void;
}

/** The test files that run alone, and the reason. */
export const SERIAL: Readonly<Record<string, string>> = {
  "test/cache.test.ts": "it checks that a cache lookup takes less than a millisecond",
};

/** The expected seconds of a file without a time, so that new files start early. */
const UNKNOWN_SECONDS = 10;

/**
 * The number of files that run in parallel: `KO_TEST_JOBS`, or one more than there are processors, because many tests
 * wait for daemons and timeouts.
 */
export function defaultJobs(env: Readonly<Record<string, string | undefined>>): number {
  const wanted = Number(env["KO_TEST_JOBS"] ?? "");
  return Number.isInteger(wanted) && wanted > 0 ? wanted : Math.min(availableParallelism() + 1, 8);
}

/** The files with one of the words in their path, as `bun test` filters; all of them without words. */
export function chooseFiles(files: readonly string[], words: readonly string[]): readonly string[] {
  const parts = words.map((word) => word.replace(/^\.\//, ""));
  return files.filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)));
}

/** Splits files into those that run in parallel and those that run alone, each in the order in which they start. */
export function planFiles(
  files: readonly string[],
  times: Times,
  serial: Readonly<Record<string, string>> = SERIAL,
): { readonly parallel: readonly string[]; readonly alone: readonly string[] } {
  const secondsOf = (file: string): number => times[file] ?? UNKNOWN_SECONDS;
  const sorted = files.toSorted((a, b) => secondsOf(b) - secondsOf(a) || (a < b ? -1 : 1));
  return {
    parallel: sorted.filter((file) => serial[file] === undefined),
    alone: sorted.filter((file) => serial[file] !== undefined),
  };
}

/**
 * The counts in a JUnit report of `bun test`.
 *
 * @param exitCode of `bun test`: a file that does not load fails the run, but is no test case
 */
export function countTests(report: string, exitCode: number): Counts {
  const all = /<testsuites\b[^>]*>/.exec(report)?.[0] ?? "";
  const number = (name: string): number => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(all)?.[1] ?? 0);
  const [tests, skipped] = [number("tests"), number("skipped")];
  const counted = number("failures") + number("errors");
  const nothing = tests - skipped === 0;
  const failed = counted === 0 && (exitCode !== 0 || nothing) ? 1 : counted;
  return { passed: Math.max(0, tests - skipped - counted), failed, skipped };
}

/** Adds counts. No file at all is a failure. */
export function addCounts(all: readonly Counts[]): Counts {
  const sum = (of: (counts: Counts) => number): number => all.reduce((total, counts) => total + of(counts), 0);
  if (all.length === 0) return { passed: 0, failed: 1, skipped: 0 };
  return { passed: sum((one) => one.passed), failed: sum((one) => one.failed), skipped: sum((one) => one.skipped) };
}

/**
 * The output of `bun test` without the banner, the name of the file, passed and skipped tests and the counts. The errors
 * of failed tests remain, and everything that tests print.
 */
export function shortenOutput(output: string): string {
  // At the end, Bun repeats the names of failed and skipped tests.
  const [tests = ""] = output.split(/^ *\d+ (?:pass|tests? (?:failed|skipped|todo):)$/m);
  const dull = /^(?:bun test v\S+ \(\w+\)|\S+\.test\.ts:|\((?:pass|skip|todo)\) [^\n]*)$/;
  // The second line of a name with a line break.
  const restOfName = /^(?!\(fail\)).* \[[\d.]+m?s\]$/;
  return tests
    .split("\n")
    .filter((line) => !dull.test(line) && !restOfName.test(line))
    .join("\n")
    .replaceAll(/\n{3,}/g, "\n\n")
    .trim();
}

/** A line with the file, its counts and times. */
export function describeResult({ file, passed, failed, skipped, seconds, cpuSeconds }: FileResult): string {
  const parts = [`${passed} passed`, ...(failed > 0 ? [`${failed} FAILED`] : [])];
  if (skipped > 0) parts.push(`${skipped} skipped`);
  return `${file}: ${parts.join(", ")} (${seconds.toFixed(1)} s, CPU ${cpuSeconds.toFixed(1)} s)`;
}

/**
 * Runs the files. The signal ends all processes.
 *
 * @returns the results of the files that ended by themselves
 */
export async function runFiles(files: readonly string[], options: RunFilesOptions): Promise<readonly FileResult[]> {
  const { parallel, alone } = planFiles(files, options.times);
  const results: FileResult[] = [];
  const runAll = async (queue: string[]): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const result = await runFile(file, options);
      if (options.signal.aborted) return;
      results.push(result);
      options.onEnd(result);
    }
  };
  const queue = [...parallel];
  await Promise.all(Array.from({ length: options.jobs }, () => runAll(queue)));
  if (!options.signal.aborted) await runAll([...alone]);
  return results;
}

async function runFile(file: string, { root, folder, env, signal }: RunFilesOptions): Promise<FileResult> {
  const started = performance.now();
  const report = join(folder, `${basename(file)}.xml`);
  const log = join(folder, `${basename(file)}.log`);
  // One descriptor for stdout and stderr keeps their lines in order.
  const descriptor = openSync(log, "w");
  // Each test that needs more than two minutes says so itself.
  const argv = [process.execPath, "--no-env-file", "test", "--timeout=120000", "--reporter=junit"];
  const child = Bun.spawn([...argv, `--reporter-outfile=${report}`, `./${file}`], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ["ignore", descriptor, descriptor],
    // Ctrl-C at the terminal reaches this process alone, which then ends all others.
    detached: true,
  });
  closeSync(descriptor);
  const exitCode = await endWith(child, signal);
  const text = (await Bun.file(report).exists()) ? await Bun.file(report).text() : "";
  return {
    file,
    ...countTests(text, exitCode),
    seconds: (performance.now() - started) / 1000,
    cpuSeconds: Number(child.resourceUsage()?.cpuTime.total ?? 0) / 1e6,
    output: await Bun.file(log).text(),
  };
}

/** Waits for the end of a process and returns its exit code. The signal ends it with all processes below it. */
export async function endWith(child: Bun.Subprocess, signal: AbortSignal): Promise<number> {
  let ended: Promise<void> | undefined;
  const end = (): void => void (ended = endTree(child.pid));
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  const exitCode = await child.exited;
  signal.removeEventListener("abort", end);
  await ended;
  return exitCode;
}
