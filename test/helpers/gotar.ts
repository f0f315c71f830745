/**
 * Go's own tar and gzip, as a program (`test/fixtures/gotar`): what the bytes of ours are compared with.
 */
import { join } from "node:path";
import type { TarEntry } from "../../lib/tar.ts";

/** Runs the program with these arguments and input, and gives what it writes. */
export type Gotar = (args: readonly string[], input?: string) => Uint8Array;

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
  const base64 = (value: string | Uint8Array): string => Buffer.from(value).toString("base64");
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
