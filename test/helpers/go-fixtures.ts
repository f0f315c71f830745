/**
 * The Go programs of `test/fixtures/`: JSON questions about how Go does something, and Go's own tar and gzip, which the bytes
 * of ours are compared with.
 */
import { join } from "node:path";
import type { TarEntry } from "../../lib/tar.ts";

/** Runs the program with these arguments and input, and gives what it writes. */
export type Gotar = (args: readonly string[], input?: string) => Uint8Array;

/**
 * What `go run test/fixtures/<name>` answers to `question`, or undefined (said on stderr) where there is no Go, or its
 * modules cannot be had.
 *
 * Bytes travel as base64 strings, as encoding/json writes them.
 *
 * @throws {Error} If the program does not compile or fails; with `CI` set also where it would be left out.
 */
export async function askGo(name: string, question: unknown): Promise<unknown> {
  const cwd = join(import.meta.dir, "..", "fixtures", name);
  const env = { ...process.env, GOFLAGS: "-mod=readonly -buildvcs=false", GOWORK: "off", TZ: "UTC" };
  if (Bun.which("go") === null) return leaveOut("go is not on PATH");
  const download = Bun.spawnSync(["go", "mod", "download"], { cwd, env, stdio: ["ignore", "ignore", "pipe"] });
  if (download.exitCode !== 0) return leaveOut(`go mod download in ${cwd}: ${download.stderr.toString()}`);
  const child = Bun.spawn(["go", "run", "."], {
    cwd,
    env,
    stdin: new TextEncoder().encode(JSON.stringify(question)),
    stderr: "pipe",
  });
  const [answer, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`go run in ${cwd}: exit code ${code}: ${errors}`);
  return JSON.parse(answer);
}

/** What stands under `key` of an answer of {@link askGo}, a list. */
export function listOf(answer: unknown, key: string): readonly unknown[] {
  if (answer === undefined) return [];
  const list = typeof answer === "object" && answer !== null && key in answer ? Object.entries(answer) : [];
  const value = list.find(([name]) => name === key)?.[1];
  if (!Array.isArray(value)) throw new Error(`the answer has no list ${key}`);
  return value;
}

/** The text of base64 bytes; undefined for null. */
export function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? Buffer.from(value, "base64").toString() : undefined;
}

/** Bytes for a question. */
export function base64(bytes: string | Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

/** Go is what ko cannot work without, so a machine without it fails these tests rather than skip them. */
export function buildGotar(folder: string): Gotar {
  const program = join(folder, "gotar");
  run(["go", "build", "-o", program, "."], {
    cwd: join(import.meta.dir, "../fixtures/gotar"),
    env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "", GOWORK: "off", GOTOOLCHAIN: "local" },
  });
  return (args, input = "") => run([program, ...args], { stdin: Buffer.from(input) });
}

/** `entries` as the program reads them; contents must be in memory. */
export function toGotarInput(entries: readonly TarEntry[]): string {
  return JSON.stringify(
    entries.map(({ pax, content, ...entry }) => ({
      ...entry,
      ...(pax === undefined
        ? {}
        : { pax: Object.fromEntries(Object.entries(pax).map(([key, value]) => [key, base64(value)])) }),
      ...(content instanceof Uint8Array ? { content: base64(content) } : {}),
    })),
  );
}

function leaveOut(why: string): undefined {
  if (process.env["CI"]) throw new Error(`the tests need Go: ${why}`);
  console.warn(`skipped: ${why}`);
  return undefined;
}

interface RunOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string | undefined>;
  readonly stdin?: Uint8Array;
}

function run(argv: readonly string[], options: RunOptions): Uint8Array {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...argv], options);
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: exit code ${exitCode}: ${stderr.toString()}`);
  return stdout;
}
