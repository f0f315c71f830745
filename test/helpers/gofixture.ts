/**
 * Asks a small Go program of `test/fixtures/` how Go does something: JSON in, JSON out.
 */
import { join } from "node:path";

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

function leaveOut(why: string): undefined {
  if (process.env["CI"]) throw new Error(`the tests need Go: ${why}`);
  console.warn(`skipped: ${why}`);
  return undefined;
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
