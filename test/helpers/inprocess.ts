/** ko's command line in this process, with its own streams and environment: quicker than a process each time. */
import { main } from "../../ko.ts";
import type { Host } from "../../lib/host.ts";
import { hostAt } from "./hostat.ts";
import type { Result } from "./programs.ts";

export interface RunKoHereOptions {
  readonly cwd: string;
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Replaces other parts of the outside. */
  readonly host?: Partial<Host>;
}

/** Runs `ko ARGS` to its end. */
export async function runKoHere(args: readonly string[], { cwd, env, host: more }: RunKoHereOptions): Promise<Result> {
  let stderr = "";
  const stdout: Uint8Array[] = [];
  const host = hostAt(cwd, {
    env,
    out: async (data) => void stdout.push(typeof data === "string" ? new TextEncoder().encode(data) : data.slice()),
    err: (text) => void (stderr += text),
    ...more,
  });
  const code = await main(args, host);
  return { code, stdout: Buffer.concat(stdout).toString(), stderr };
}
