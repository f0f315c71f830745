/** Brings back the Pods of a `ko apply -W --swap` that was killed. */
import { rmSync } from "node:fs";
import { KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";
import { clusterArguments } from "./kubectl.ts";
import { readContext } from "./kubectl-cluster.ts";
import { formatCount, type Log } from "./log.ts";
import { ClusterApi } from "./rollout-api.ts";
import { resourceOf } from "./rollout-objects.ts";
import { undoSwap } from "./rollout-swap.ts";
import { readSwapRecord } from "./rollout-swap-record.ts";

/**
 * Gives the Pods of killed swaps the images of their workloads, in the cluster that kubectl uses. A cluster that cannot be
 * asked is a warning.
 *
 * @param files their records
 * @param options.words arguments of kubectl
 */
export async function undoKilledSwaps(
  host: Host,
  { files, log, words }: { readonly files: readonly string[]; readonly log: Log; readonly words: readonly string[] },
): Promise<void> {
  try {
    for (const file of files) await undoRecord(host, { file, log, words });
  } catch (error) {
    if (!(error instanceof KoError) || host.signal.aborted) throw error;
    log.warn(`Cannot look for Pods of a swap that was killed: ${messageOf(error)}`);
  }
}

async function undoRecord(
  host: Host,
  { file, log, words }: { readonly file: string; readonly log: Log; readonly words: readonly string[] },
): Promise<void> {
  const flags = clusterArguments(words);
  const { server } = await readContext(host, flags);
  const swapped = await readSwapRecord(file, server);
  if (swapped === undefined) return;
  await using api = await ClusterApi.open({ host, log, flags });
  for (const { applied, namespace } of swapped) {
    const count = await undoSwap(applied, { host, api, namespace });
    if (count === 0) continue;
    log.info(`${resourceOf(applied)}: ${formatCount(count, "Pod")} had the program of a swap that was killed`);
  }
  rmSync(file, { force: true });
}
