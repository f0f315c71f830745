/**
 * `ko apply -W --swap`: a save replaces the image in the Pods that run, without a rollout.
 *
 * kubelet ends the one container and starts the new image in its place: same Pod, address and volumes. The workload itself
 * keeps the image that was applied last. An ordinary apply at the end gives it the new one.
 * https://kubernetes.io/docs/concepts/workloads/pods/#pod-update-and-replacement
 */
import { setTimeout } from "node:timers/promises";
import { ClusterError } from "./errors.ts";
import type { Host } from "./host.ts";
import { fieldAt, listAt, textAt } from "./json.ts";
import { formatCount } from "./log.ts";
import type { ClusterApi } from "./rollout-api.ts";
import { explainVerdict } from "./rollout-explain.ts";
import { type Applied, resourceOf } from "./rollout-objects.ts";
import { causesOf } from "./rollout-pods.ts";
import { findRevision } from "./rollout-revision.ts";
import { imagesOf, type Swap } from "./rollout-swap-plan.ts";

export interface SwapOptions {
  readonly api: ClusterApi;
  /** Of objects that name none. */
  readonly namespace: string;
}

/** A container whose image was replaced. */
export interface SwappedContainer {
  readonly pod: string;
  readonly name: string;
  /** The process that is ended. */
  readonly containerId: string;
}

/** Milliseconds between two looks at Pods that get a new image. */
const POLL_MS = 150;
/** Milliseconds until kubelet has seen the new image: a status of before may name causes of the old program. */
const STALE_MS = 3000;

/**
 * Replaces the images in the Pods of a workload's newest revision. Pods that have them are left alone.
 *
 * @returns the containers that get a new image; undefined if the workload has no Pods, or the user may not change them
 * @throws {KoError} If the API server does not answer.
 */
export async function swapImages(
  { applied, images }: Swap,
  options: SwapOptions,
): Promise<readonly SwappedContainer[] | undefined> {
  const pods = await findPods(applied, options);
  if (pods.length === 0) return undefined;
  const swapped = await Promise.all(pods.map((pod) => swapPod(pod, images, options)));
  return swapped.every((each) => each !== undefined) ? swapped.flat() : undefined;
}

/**
 * Waits until the new programs run and are ready.
 *
 * @throws {ClusterError} If one will not, or does not in time.
 */
export async function waitForSwap(
  applied: Applied,
  {
    host,
    limit,
    swapped,
    ...options
  }: SwapOptions & {
    readonly host: Host;
    readonly swapped: readonly SwappedContainer[];
    /** Milliseconds. */
    readonly limit: number;
  },
): Promise<void> {
  const { api } = options;
  const namespace = namespaceOf(applied, options);
  const started = host.monotonic();
  for (;;) {
    const pods = await findPods(applied, options);
    const waiting = swapped.filter((each) => !runsNewProgram(pods, each));
    if (waiting.length === 0) return;
    const isStale = host.monotonic() - started < STALE_MS;
    for (const { containerId, name, pod: podName } of waiting) {
      const pod = pods.find((each) => textAt(each, "metadata", "name") === podName);
      if (isStale && containerIdOf(pod, name) === containerId) continue;
      const cause = causesOf(pod, await api.eventsOf(textAt(pod, "metadata", "uid"), namespace)).find(
        ({ hopeless }) => hopeless,
      );
      if (cause !== undefined) {
        throw await explainVerdict({ text: "does not run", cause }, { api, applied, host, namespace });
      }
    }
    if (host.monotonic() - started > limit) {
      throw new ClusterError(`${resourceOf(applied)} does not run its new program`, {
        hint: `kubectl describe pod/${waiting[0]?.pod}`,
      });
    }
    await setTimeout(POLL_MS, undefined, { signal: host.signal });
  }
}

/**
 * Gives Pods of the newest revision the images of their workload again, which a swap left behind that was killed.
 *
 * @returns the number of Pods that had another image
 */
export async function undoSwap(applied: Applied, options: SwapOptions): Promise<number> {
  const object = await readObject(applied, options);
  if (object === undefined) return 0;
  const swapped = await swapImages({ applied, images: imagesOf(object) }, options);
  return countPods(swapped ?? []);
}

/** The number of Pods that these containers are in. */
export function countPods(swapped: readonly SwappedContainer[]): number {
  return new Set(swapped.map(({ pod }) => pod)).size;
}

/** The line that says what a swap did. */
export function describeSwap(applied: Applied, swapped: readonly SwappedContainer[]): string {
  return `${resourceOf(applied)}: new program in ${formatCount(countPods(swapped), "Pod")}`;
}

function namespaceOf(applied: Applied, { namespace }: SwapOptions): string {
  return applied.namespace ?? namespace;
}

async function readObject(applied: Applied, options: SwapOptions): Promise<unknown> {
  const path = await options.api.pathOf(applied, namespaceOf(applied, options));
  const answer = path === undefined ? undefined : await options.api.get(path);
  return answer?.kind === "object" ? answer.value : undefined;
}

async function findPods(applied: Applied, options: SwapOptions): Promise<readonly unknown[]> {
  const object = await readObject(applied, options);
  if (object === undefined) return [];
  const namespace = namespaceOf(applied, options);
  return (await findRevision(options.api, applied, { namespace, object })).pods;
}

/** @returns undefined if the user may not change the Pod */
async function swapPod(
  pod: unknown,
  images: ReadonlyMap<string, string>,
  { api, namespace: fallback }: SwapOptions,
): Promise<readonly SwappedContainer[] | undefined> {
  const present = imagesOf(pod);
  const containers = [...images]
    .filter(([name, image]) => present.has(name) && present.get(name) !== image)
    .map(([name, image]) => ({ name, image }));
  if (containers.length === 0) return [];
  const name = textAt(pod, "metadata", "name");
  const namespace = textAt(pod, "metadata", "namespace") || fallback;
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`;
  const answer = await api.patch(path, { spec: { containers } });
  // A Pod that has ended meanwhile has a successor, which the next look finds.
  if (answer.kind === "missing") return [];
  if (answer.kind === "forbidden") return undefined;
  return containers.map((each) => ({ pod: name, name: each.name, containerId: containerIdOf(pod, each.name) }));
}

/** Whether a container has been started anew, and is ready. A Pod that is gone has a successor. */
function runsNewProgram(pods: readonly unknown[], { containerId, name, pod }: SwappedContainer): boolean {
  const found = pods.find((each) => textAt(each, "metadata", "name") === pod);
  if (found === undefined) return true;
  const status = statusOf(found, name);
  const isNew = textAt(status, "containerID") !== containerId && fieldAt(status, "state", "running") !== undefined;
  return isNew && fieldAt(status, "ready") === true;
}

function containerIdOf(pod: unknown, name: string): string {
  return textAt(statusOf(pod, name), "containerID");
}

function statusOf(pod: unknown, name: string): unknown {
  return listAt(pod, "status", "containerStatuses").find((each) => textAt(each, "name") === name);
}
