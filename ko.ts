#!/usr/bin/env bun
/**
 * ko: Go import paths -> container images and Kubernetes YAML. The one entry of the program.
 */
import { runCommandLine } from "./lib/cli.ts";
import { describeError, exitCodeOf } from "./lib/errors.ts";
import { guardedHost, isInActions } from "./lib/host-actions.ts";
import { createHost, type Host } from "./lib/host.ts";
import { styleOf } from "./lib/log-style.ts";

/** Runs one command line; never throws. Returns the exit code. */
export async function main(argv: readonly string[], host: Host): Promise<number> {
  if (!isInActions(host.env)) return run(argv, host);
  const guarded = guardedHost(host);
  try {
    return await run(argv, guarded.host);
  } finally {
    guarded.end();
  }
}

async function run(argv: readonly string[], host: Host): Promise<number> {
  try {
    return await runCommandLine(argv, host);
  } catch (error) {
    // After Ctrl-C everything fails somehow: the signal is the reason, whatever was thrown first.
    const reason: unknown = host.signal.aborted ? host.signal.reason : error;
    host.err(`${describeError(reason, { cwd: host.cwd, style: styleOf(host) })}\n`);
    return exitCodeOf(reason);
  }
}

if (import.meta.main) {
  const host = createHost();
  process.exitCode = await main(process.argv.slice(2), host);
}
