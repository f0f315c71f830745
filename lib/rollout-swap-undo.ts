/** Brings back the Pods of a `ko apply -W --swap` that was killed. */
import { rmSync } from "node:fs";
import { KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";
import { clusterArguments } from "./kubectl.ts";
import { formatCount, type Log } from "./log.ts";
import { resourceOf } from "./rollout-objects.ts";
import { findKilledSwaps, readSwapRecord } from "./rollout-swap-record.ts";

export interface UndoOptions {
  readonly log: Log;
  /** Arguments of kubectl. */
  readonly words: readonly string[];
}

/**
 * Gives the Pods of killed swaps the images of their workloads, in the cluster that kubectl uses. A cluster that cannot be
 * asked is a warning. Mostly there is no such swap, and nothing more is loaded.
 */
export async function undoKilledSwaps(host: Host, options: UndoOptions): Promise<void> {
  try {
    for (const file of findKilledSwaps(host)) await undoRecord(file, host, options);
  } catch (error) {
    if (!(error instanceof KoError) || host.signal.aborted) throw error;
    options.log.warn(`Cannot look for Pods of a swap that was killed: ${messageOf(error)}`);
  }
}

async function undoRecord(file: string, host: Host, { log, words }: UndoOptions): Promise<void> {
  const [{ readContext }, { ClusterApi }, { undoSwap }] = await Promise.all([
    import("./kubectl-cluster.ts"),
    import("./rollout-api.ts"),
    import("./rollout-swap.ts"),
  ]);
  const flags = clusterArguments(words);
  const { server } = await readContext(host, flags);
  const swapped = await readSwapRecord(file, server);
  if (swapped === undefined) return;
  await using api = await ClusterApi.open({ host, log, flags });
  for (const { applied, namespace } of swapped) {
    const count = await undoSwap(applied, { api, namespace });
    if (count === 0) continue;
    log.info(`${resourceOf(applied)}: ${formatCount(count, "Pod")} had the program of a swap that was killed`);
  }
  rmSync(file, { force: true });
}
