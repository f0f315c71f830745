/**
 * What a swap may do: replaces images of running Pods where nothing but images of containers has changed in the YAML, in a
 * cluster that is on this machine.
 */
import { isDeepStrictEqual } from "node:util";
import { UsageError } from "./errors.ts";
import { fieldAt, isObject, listAt, textAt } from "./json.ts";
import type { Context } from "./kubectl-cluster.ts";
import { type Applied, appliedOf, readObjects } from "./rollout-objects.ts";
import { isLoopback } from "./url.ts";

/** A workload whose containers get other images. */
export interface Swap {
  readonly applied: Applied;
  /** References by the name of the container. */
  readonly images: ReadonlyMap<string, string>;
}

/** Contexts that tools for clusters on one machine make. */
const LOCAL_CONTEXT =
  /^(?:kind-.+|k3d-.+|minikube|docker-desktop|docker-for-desktop|colima(?:-.+)?|orbstack|rancher-desktop)$/;
/** Workloads whose Pods go on with another image. A Job's program would run from its start again. */
const SWAPPED_KINDS: ReadonlySet<string> = new Set(["apps/v1 Deployment", "apps/v1 StatefulSet", "apps/v1 DaemonSet"]);

/**
 * Compares a document with the one that was applied before.
 *
 * @param before YAML
 * @param after YAML
 * @returns the workloads with other images; undefined if something else differs too
 */
export async function findSwaps(before: string, after: string): Promise<readonly Swap[] | undefined> {
  const [old, present] = await Promise.all([readItems(before), readItems(after)]);
  if (old.length !== present.length || old.length === 0) return undefined;
  const swaps: Swap[] = [];
  for (const [i, value] of present.entries()) {
    const earlier = old[i];
    if (isDeepStrictEqual(value, earlier)) continue;
    const applied = appliedOf(value);
    const isSwapped = SWAPPED_KINDS.has(`${applied.apiVersion} ${applied.kind}`) && applied.name !== "";
    if (!isSwapped || !isDeepStrictEqual(withoutImages(value), withoutImages(earlier))) return undefined;
    const images = imagesOf(value);
    const changed = [...images].filter(([name, image]) => imagesOf(earlier).get(name) !== image);
    swaps.push({ applied, images: new Map(changed) });
  }
  return swaps;
}

/** The objects of YAML; those of a list instead of the list. */
async function readItems(text: string): Promise<readonly unknown[]> {
  return (await readObjects(text)).filter((object) => fieldAt(object, "items") === undefined);
}

/** The images of an object's containers, by name. @param value a workload, or a Pod */
export function imagesOf(value: unknown): ReadonlyMap<string, string> {
  const containers = [
    ...listAt(value, "spec", "template", "spec", "containers"),
    ...listAt(value, "spec", "containers"),
  ];
  return new Map(containers.map((each) => [textAt(each, "name"), textAt(each, "image")]));
}

/** Copies a workload without the images of its containers. Those of init containers stay: a swap does not run them. */
function withoutImages(value: unknown): unknown {
  const containers = listAt(value, "spec", "template", "spec", "containers").map((each) =>
    isObject(each) ? { ...each, image: "" } : each,
  );
  return replaceAt(value, ["spec", "template", "spec", "containers"], containers);
}

/** Copies an object with another value at a path, if the path is there. */
function replaceAt(value: unknown, [key, ...rest]: readonly string[], by: unknown): unknown {
  if (key === undefined) return by;
  return isObject(value) && key in value ? { ...value, [key]: replaceAt(value[key], rest, by) } : value;
}

/**
 * Checks that the cluster is on this machine, or named.
 *
 * @param named of `--swap-context`; empty if it is not given
 * @throws {UsageError} If it is neither.
 */
export function checkSwapContext({ name, server }: Context, named: string): void {
  if (named !== "" && named === name) return;
  const isHere = LOCAL_CONTEXT.test(name) || (URL.canParse(server) && isLoopback(new URL(server).host));
  if (named === "" && isHere) return;
  const context = name === "" ? "the current context" : `context ${name}`;
  throw new UsageError(
    named === ""
      ? `Cannot use --swap with ${context}: its cluster is not on this machine`
      : `Cannot use --swap-context=${named}: kubectl uses ${context}`,
    {
      hint:
        name === "" ? "Choose a context: --context NAME" : `If that is the cluster you mean: --swap-context=${name}`,
    },
  );
}
