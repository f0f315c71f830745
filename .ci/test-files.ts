/**
 * Runs test files, several at once, each in a `bun test` of its own with a JUnit report of its own.
 *
 * The longest come first, by the times of the last run. What shares the machine badly runs alone, in the end.
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
  /** Of the processor, of all its processes. */
  readonly cpuSeconds: number;
  /** What it wrote to stdout and stderr. */
  readonly output: string;
}

/** Seconds that each test file took. */
export type Times = Readonly<Record<string, number>>;

export interface RunFilesOptions {
  /** The repository. */
  readonly root: string;
  /** Temporary files of this run, absolute. The tests' own are there as well. */
  readonly folder: string;
  /** How many files run at once. */
  readonly jobs: number;
  readonly times: Times;
  /** Beside those of this process. */
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Called at the end of each file. */
  readonly onEnd: (result: FileResult) => void;
}

/** Test files that run alone, and why. */
export const SERIAL: Readonly<Record<string, string>> = {
  "test/cache.test.ts": "it measures that a look into the cache takes less than a millisecond",
};

/** Seconds that a file is expected to take of which nothing is known: new ones come early. */
const UNKNOWN_SECONDS = 10;

/**
 * How many files run at once unless `KO_TEST_JOBS` says otherwise: one more than there are processors, because many wait
 * for daemons, timeouts and files.
 */
export function defaultJobs(env: Readonly<Record<string, string | undefined>>): number {
  const wanted = Number(env["KO_TEST_JOBS"] ?? "");
  return Number.isInteger(wanted) && wanted > 0 ? wanted : Math.min(availableParallelism() + 1, 8);
}

/** The files that a filter of `bun test` means: those that have one of the words in their path; all without words. */
export function chooseFiles(files: readonly string[], words: readonly string[]): readonly string[] {
  const parts = words.map((word) => word.replace(/^\.\//, ""));
  return files.filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)));
}

/** Files in the order in which they start: first those that run beside others, the longest before the rest; then the serial ones. */
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

/** The sum of counts. No file at all is a failure. */
export function addCounts(all: readonly Counts[]): Counts {
  const sum = (of: (counts: Counts) => number): number => all.reduce((total, counts) => total + of(counts), 0);
  if (all.length === 0) return { passed: 0, failed: 1, skipped: 0 };
  return { passed: sum((one) => one.passed), failed: sum((one) => one.failed), skipped: sum((one) => one.skipped) };
}

/**
 * What `bun test` wrote without what says that all is well: the banner, the file's name, passed and skipped tests, the
 * counts. Of a failed test its error stays, and of every file what its tests print.
 */
export function shortenOutput(output: string): string {
  // At the end Bun repeats the names of tests that failed or were skipped, and counts.
  const [tests = ""] = output.split(/^ *\d+ (?:pass|tests? (?:failed|skipped|todo):)$/m);
  const dull = /^(?:bun test v\S+ \(\w+\)|\S+\.test\.ts:|\((?:pass|skip|todo)\) [^\n]*)$/;
  // Of a name of several lines.
  const restOfName = /^(?!\(fail\)).* \[[\d.]+m?s\]$/;
  return tests
    .split("\n")
    .filter((line) => !dull.test(line) && !restOfName.test(line))
    .join("\n")
    .replaceAll(/\n{3,}/g, "\n\n")
    .trim();
}

/** One line: file, counts, times. */
export function describeResult({ file, passed, failed, skipped, seconds, cpuSeconds }: FileResult): string {
  const parts = [`${passed} passed`, ...(failed > 0 ? [`${failed} FAILED`] : [])];
  if (skipped > 0) parts.push(`${skipped} skipped`);
  return `${file}: ${parts.join(", ")} (${seconds.toFixed(1)} s, CPU ${cpuSeconds.toFixed(1)} s)`;
}

/**
 * Runs the files. Ends early, with all that it started, when the signal says so.
 *
 * @returns the results of those that ended by themselves
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
  // One descriptor for both, so that what is written stays in order.
  const descriptor = openSync(log, "w");
  // Each test that needs more than two minutes says so itself.
  const argv = [process.execPath, "--no-env-file", "test", "--timeout=120000", "--reporter=junit"];
  const child = Bun.spawn([...argv, `--reporter-outfile=${report}`, `./${file}`], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ["ignore", descriptor, descriptor],
    // Ctrl-C at the terminal is for this process alone, which then ends all of them.
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

/** Waits for the end of a process, which the signal brings about, with all that it started. @returns its exit code */
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
