/** `ko apply --wait` and `ko create --wait`: kubectl, then the wait for what it applied. */
import type { Host } from "./host.ts";
import { clusterArguments, isDryRun, runKubectl } from "./kubectl.ts";
import { readContext } from "./kubectl-cluster.ts";
import type { Log } from "./log.ts";
import { ClusterApi } from "./rollout-api.ts";
import { findApplied, nameAfter } from "./rollout-objects.ts";
import type { RolloutScreen } from "./rollout-screen.ts";
import { undoKilledSwaps } from "./rollout-swap-undo.ts";
import { waitForRollout } from "./rollout.ts";
import type { Timing } from "./timing.ts";

export interface ApplyOptions {
  readonly log: Log;
  readonly timing: Timing;
  /** Arguments of kubectl: the command, `-f -`, its flags. */
  readonly args: readonly [string, ...string[]];
  /** The YAML for stdin. */
  readonly text: string;
  /** Milliseconds. */
  readonly limit: number;
  /** Whether a person watches a terminal that can rewrite lines. */
  readonly isLive: boolean;
}

/** Characters of kubectl's output that are searched for names: lines of some ten thousand objects. */
const MAX_CHARS = 4 * 1024 * 1024;

/**
 * Runs kubectl with YAML on stdin, and waits until the objects run.
 *
 * @returns the exit code of kubectl
 * @throws {ClusterError} If kubectl succeeds, and an object does not run.
 */
export async function applyAndWait(host: Host, options: ApplyOptions): Promise<number> {
  const { args, isLive, limit, log, text, timing } = options;
  const [command] = args;
  const applied = await findApplied(text);
  const isTrial = isDryRun(args);
  let said = "";
  const onOutput = (chunk: Uint8Array): Promise<void> => {
    if (said.length < MAX_CHARS) said += new TextDecoder().decode(chunk);
    return host.out(chunk);
  };
  const stdin = new TextEncoder().encode(text);
  const apply = (): Promise<number> =>
    timing.time("kubectl", command, () => runKubectl(host, args, { log, stdin, onOutput }));
  if (applied.length === 0 || isTrial) {
    const code = await apply();
    if (code === 0)
      log.info(
        isTrial ? "Nothing to wait for: --dry-run changes nothing" : "Nothing to wait for: no object is a workload",
      );
    return code;
  }
  const flags = clusterArguments(args);
  // kubectl proxy starts while the other kubectl applies.
  const opening = ClusterApi.open({ host, log, flags });
  const context = readContext(host, flags);
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => {
    const [api] = await Promise.allSettled([opening, context]);
    if (api.status === "fulfilled") await api.value[Symbol.asyncDispose]();
  });
  const code = await apply();
  if (code !== 0) return code;
  const { namespace = "default" } = await context;
  await undoKilledSwaps(host, { log, words: args });
  const named = applied.map((each) => nameAfter(each, said));
  const api = await opening;
  using screen = isLive ? await openScreen(host, log) : undefined;
  const told = screen?.log ?? log;
  const wait = { host, log: told, screen, api, flags, namespace, limit };
  await timing.time("rollout", command, () => waitForRollout(named, wait));
  return code;
}

async function openScreen(host: Host, log: Log): Promise<RolloutScreen> {
  const { RolloutScreen: Opened } = await import("./rollout-screen.ts");
  return new Opened({ host, log });
}
