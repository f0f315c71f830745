/** ko's command line in this process, with its own streams and environment: quicker than a process each time. */
import { main } from "../../ko.ts";
import { hostAt } from "./hostat.ts";
import type { Result } from "./programs.ts";

export interface RunKoHereOptions {
  readonly cwd: string;
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** Runs `ko ARGS` to its end. */
export async function runKoHere(args: readonly string[], { cwd, env }: RunKoHereOptions): Promise<Result> {
  let stderr = "";
  const stdout: Uint8Array[] = [];
  const host = hostAt(cwd, {
    env,
    out: async (data) => void stdout.push(typeof data === "string" ? new TextEncoder().encode(data) : data.slice()),
    err: (text) => void (stderr += text),
  });
  const code = await main(args, host);
  return { code, stdout: Buffer.concat(stdout).toString(), stderr };
}
