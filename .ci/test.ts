/**
 * The whole check, as `npm test` runs it: types, format, lint, the executable, all tests. The first stage that fails
 * ends it. The last line on stdout is `N passed, N failed, N skipped`, counted from the tests; no test is a failure.
 *
 * usage: bun .ci/test.ts [word in the path of a test file]...
 *        bun .ci/test.ts [arguments of bun test, one of them an option]...
 */
import { accessSync, constants, statfsSync } from "node:fs";
import { chmod, mkdir, rename } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { cacheFolder } from "../test/helpers/counterparts.ts";
import { unmountBelow } from "../test/helpers/daemon.ts";
import { type Folder, makeFolder } from "../test/helpers/world-folders.ts";
import {
  addCounts,
  chooseFiles,
  type Counts,
  countTests,
  defaultJobs,
  describeResult,
  endWith,
  type FileResult,
  runFiles,
  shortenOutput,
  type Times,
} from "./test-files.ts";

const ROOT = join(import.meta.dir, "..");
const OXLINT = join(ROOT, "node_modules", ".bin", "oxlint");

/** The seconds that each test file took in its last run. */
const TIMES_FILE = join(cacheFolder(), "times.json");

/** Bytes that must be free in memory for the state of daemons. */
const STATE_BYTES = 4e9;

/** The stages before the tests, in order. */
const STAGES: readonly { readonly name: string; readonly argv: readonly string[] }[] = [
  { name: "types", argv: [process.execPath, "check"] },
  { name: "format", argv: [process.execPath, "fmt", "--check"] },
  { name: "lint", argv: [OXLINT, "--type-aware", "--deny-warnings"] },
  { name: "compile", argv: [process.execPath, "--no-env-file", ".ci/build.ts"] },
];

async function runStages(testArguments: readonly string[], signal: AbortSignal): Promise<Counts> {
  for (const { name, argv } of STAGES) {
    const { seconds, code, text } = await runQuietly(argv);
    console.error(`${name}: ${code === 0 ? "ok" : "FAILED"} (${seconds} s)`);
    if (code === 0) continue;
    console.error(text);
    return { passed: 0, failed: 1, skipped: 0 };
  }
  await using temporary = await openFolder(tmpdir());
  const folder = temporary.path;
  const hasOptions = testArguments.some((word) => word.startsWith("-"));
  if (hasOptions) return await runOnce(testArguments, { folder, signal });
  return await runParallel(testArguments, { folder, signal });
}

/** A temporary folder. Its end unmounts and removes everything that the tests left there. */
async function openFolder(parent: string): Promise<Folder> {
  const folder = await makeFolder(parent);
  // Some tests run programs as another user, who needs to pass through.
  await chmod(folder.path, 0o711);
  return {
    path: folder.path,
    [Symbol.asyncDispose]: () => {
      unmountBelow(folder.path);
      return folder[Symbol.asyncDispose]();
    },
  };
}

interface RunOptions {
  /** For temporary files. */
  readonly folder: string;
  readonly signal: AbortSignal;
}

/** Runs one `bun test` with these arguments. */
async function runOnce(testArguments: readonly string[], { folder, signal }: RunOptions): Promise<Counts> {
  const report = join(folder, "junit.xml");
  const argv = [process.execPath, "--no-env-file", "test", "--timeout=120000"];
  const child = Bun.spawn([...argv, "--reporter=junit", `--reporter-outfile=${report}`, ...testArguments], {
    cwd: ROOT,
    stdio: ["ignore", 2, 2],
  });
  const code = await endWith(child, signal);
  return countTests((await Bun.file(report).exists()) ? await Bun.file(report).text() : "", code);
}

/** Runs the test files with one of the words in their path, each in its own process. */
async function runParallel(words: readonly string[], { folder, signal }: RunOptions): Promise<Counts> {
  await using state = await openFolder(findMemory() ?? tmpdir());
  const started = performance.now();
  const all = await Array.fromAsync(new Bun.Glob("test/*.test.ts").scan({ cwd: ROOT }));
  const files = chooseFiles(all, words);
  const times = await readTimes();
  const jobs = defaultJobs(process.env);
  const env = { TMPDIR: folder, KO_TEST_STATE: state.path };
  const results = await runFiles(files, { root: ROOT, folder, jobs, times, env, signal, onEnd: tellEnd });
  await writeTimes({ ...times, ...Object.fromEntries(results.map(({ file, seconds }) => [file, round(seconds)])) });
  for (const { file, output } of results.filter(({ failed }) => failed > 0)) {
    console.error(`\nFAILED ${file}\n${shortenOutput(output)}`);
  }
  const cpu = results.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
  console.error(
    `tests: ${results.length} files, ${jobs} at once, ${cpu.toFixed(0)} s of CPU (${secondsSince(started)} s)`,
  );
  return addCounts(results);
}

function tellEnd(result: FileResult): void {
  const text = shortenOutput(result.output);
  console.error(text === "" ? describeResult(result) : `${describeResult(result)}\n${text.replaceAll(/^/gm, "  ")}`);
}

/** Reads the times of earlier runs. Wrong times cost time, nothing else. */
async function readTimes(): Promise<Times> {
  const value: unknown = await Bun.file(TIMES_FILE)
    .json()
    .catch(() => undefined);
  if (typeof value !== "object" || value === null) return {};
  return Object.fromEntries(Object.entries(value).filter(([, seconds]) => typeof seconds === "number"));
}

async function writeTimes(times: Times): Promise<void> {
  await mkdir(dirname(TIMES_FILE), { recursive: true });
  const making = `${TIMES_FILE}.${process.pid}`;
  await Bun.write(making, `${JSON.stringify(times, undefined, 2)}\n`);
  await rename(making, TIMES_FILE);
}

/** Runs a stage and keeps its output, which is shown if it fails. */
async function runQuietly(argv: readonly string[]): Promise<{ seconds: string; code: number; text: string }> {
  const started = performance.now();
  const child = Bun.spawn([...argv], { cwd: ROOT, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { seconds: secondsSince(started), code, text: `${stdout}${stderr}`.trimEnd() };
}

/**
 * The folder for files in memory, if it has room. A registry and a daemon sync each file several times: on a disk the
 * tests wait longer for that than for anything else.
 */
function findMemory(): string | undefined {
  const path = "/dev/shm";
  try {
    accessSync(path, constants.W_OK);
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize > STATE_BYTES ? path : undefined;
  } catch {
    return undefined;
  }
}

function secondsSince(started: number): string {
  return ((performance.now() - started) / 1000).toFixed(1);
}

function round(seconds: number): number {
  return Math.round(seconds * 10) / 10;
}

if (import.meta.main) {
  const ending = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => ending.abort(signal));
  const counts = await runStages(process.argv.slice(2), ending.signal);
  const isCut = ending.signal.aborted;
  if (isCut) console.error(`ended by ${ending.signal.reason}`);
  const { passed, skipped } = counts;
  const failed = isCut ? Math.max(1, counts.failed) : counts.failed;
  process.exitCode = isCut ? 130 : failed === 0 ? 0 : 1;
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
}
