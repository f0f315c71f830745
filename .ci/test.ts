/**
 * The whole check, as `npm test` runs it: types, format, lint, the executable, all tests. The first stage that fails
 * ends it. The last line on stdout is `N passed, N failed, N skipped`, counted from the tests; no test is a failure.
 *
 * usage: bun .ci/test.ts [arguments of bun test]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

const ROOT = join(import.meta.dir, "..");
const OXLINT = join(ROOT, "node_modules", ".bin", "oxlint");

/** Before the tests, in order; `bun check` and the like stand for this Bun. */
const STAGES: readonly { readonly name: string; readonly argv: readonly string[] }[] = [
  { name: "types", argv: [process.execPath, "check"] },
  { name: "format", argv: [process.execPath, "fmt", "--check"] },
  { name: "lint", argv: [OXLINT, "--type-aware", "--deny-warnings"] },
  { name: "compile", argv: [process.execPath, "--no-env-file", ".ci/build.ts"] },
];

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

async function runStages(testArguments: readonly string[]): Promise<Counts> {
  for (const { name, argv } of STAGES) {
    const { seconds, code, text } = await runQuietly(argv);
    console.error(`${name}: ${code === 0 ? "ok" : "FAILED"} (${seconds} s)`);
    if (code === 0) continue;
    console.error(text);
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const folder = await mkdtemp(join(tmpdir(), "ko-test-"));
  try {
    const report = join(folder, "junit.xml");
    const started = performance.now();
    // Each test that needs more than two minutes says so itself.
    const argv = [process.execPath, "--no-env-file", "test", "--timeout=120000"];
    const child = Bun.spawn([...argv, "--reporter=junit", `--reporter-outfile=${report}`, ...testArguments], {
      cwd: ROOT,
      stdio: ["ignore", 2, 2],
    });
    const code = await child.exited;
    console.error(`tests: ${code === 0 ? "ok" : "FAILED"} (${secondsSince(started)} s)`);
    const file = Bun.file(report);
    return countTests((await file.exists()) ? await file.text() : "", code);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs a stage whose output is worth reading only when it fails. */
async function runQuietly(argv: readonly string[]): Promise<{ seconds: string; code: number; text: string }> {
  const started = performance.now();
  const child = Bun.spawn([...argv], { cwd: ROOT, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { seconds: secondsSince(started), code, text: `${stdout}${stderr}`.trimEnd() };
}

function secondsSince(started: number): string {
  return ((performance.now() - started) / 1000).toFixed(1);
}

if (import.meta.main) {
  const { passed, failed, skipped } = await runStages(process.argv.slice(2));
  process.exitCode = failed === 0 ? 0 : 1;
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
}
