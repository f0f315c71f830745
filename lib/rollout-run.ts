/** `ko run`: why its Pod does not start, which `kubectl run` tells after a minute, or never. */
import { setTimeout } from "node:timers/promises";
import { KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import { readContext, withLookout } from "./kubectl-cluster.ts";
import type { Log } from "./log.ts";
import { ClusterApi } from "./rollout-api.ts";
import { waitForRollout } from "./rollout.ts";

export interface PodWatchOptions {
  readonly log: Log;
  /** The Pod's name. */
  readonly name: string;
  /** The flags of kubectl that say where the cluster is and who asks. */
  readonly flags: readonly string[];
}

/** Milliseconds until the API is asked: most Pods have started by then. */
const PATIENCE_MS = 2000;
const LIMIT_MS = 24 * 60 * 60 * 1000;

/**
 * Runs a Pod with kubectl, and ends that if the Pod will not start.
 *
 * @param work gets a host whose signal ends kubectl
 * @throws {ClusterError} With the reason why the Pod does not start.
 */
export function whileStarting<T>(host: Host, options: PodWatchOptions, work: (host: Host) => Promise<T>): Promise<T> {
  return withLookout(host, (aside) => watchStart(aside, options), work);
}

/** @returns why the Pod does not start */
async function watchStart(host: Host, { flags, log, name }: PodWatchOptions): Promise<KoError | undefined> {
  await setTimeout(PATIENCE_MS, undefined, { signal: host.signal });
  const { namespace = "default" } = await readContext(host, flags);
  await using api = await ClusterApi.open({ host, log, flags });
  const pod = { apiVersion: "v1", kind: "Pod", namespace, name, generateName: "" };
  try {
    await waitForRollout([pod], { host, log, api, flags, namespace, limit: LIMIT_MS, until: "started" });
    return undefined;
  } catch (error) {
    if (error instanceof KoError && !host.signal.aborted) return error;
    throw error;
  }
}
