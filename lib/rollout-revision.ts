/** The Pods of the newest revision of a workload. */
import { fieldAt, isObject, listAt, textAt } from "./json.ts";
import type { ClusterApi } from "./rollout-api.ts";
import type { Applied } from "./rollout-objects.ts";

/** The Pods of a workload's newest revision. */
export interface Revision {
  /** The object that makes them; undefined if nothing is known of it. */
  readonly owner: unknown;
  /** As the API gives them, without those that are ending. */
  readonly pods: readonly unknown[];
}

/**
 * Finds the Pods of the newest revision, and the object that makes them.
 *
 * @param object as the API gives it
 * @throws {KoError} If the API server does not answer.
 */
export async function findRevision(
  api: ClusterApi,
  { apiVersion, kind, name }: Applied,
  { namespace, object }: { readonly namespace: string; readonly object: unknown },
): Promise<Revision> {
  if (kind === "Pod") return { owner: undefined, pods: [object] };
  const isKnative = apiVersion.startsWith("serving.knative.dev/");
  const selector = isKnative ? `serving.knative.dev/service=${name}` : selectorOf(object);
  if (selector === undefined) return { owner: undefined, pods: [] };
  const list = (group: string, plural: string): Promise<readonly unknown[]> => {
    const query = new URLSearchParams({ labelSelector: selector, limit: "200" });
    return api.list(`${group}/namespaces/${encodeURIComponent(namespace)}/${plural}?${query.toString()}`);
  };
  const pods = await list("/api/v1", "pods");
  if (isKnative) return { owner: undefined, pods };
  let owner = object;
  if (kind === "Deployment") {
    const sets = await list("/apis/apps/v1", "replicasets");
    const revision = revisionOf(object);
    owner = sets.find((set) => isOwnedBy(set, object) && revisionOf(set) === revision);
  }
  const revision = textAt(object, "status", "updateRevision");
  const newest = pods.filter((pod) => {
    const isCurrent =
      kind !== "StatefulSet" || textAt(pod, "metadata", "labels", "controller-revision-hash") === revision;
    return isCurrent && isOwnedBy(pod, owner) && fieldAt(pod, "metadata", "deletionTimestamp") === undefined;
  });
  return { owner, pods: newest };
}

/** The selector of a workload, as the API takes it. */
export function selectorOf(object: unknown): string | undefined {
  const parts = [...selectLabels(fieldAt(object, "spec", "selector", "matchLabels"))];
  for (const each of listAt(object, "spec", "selector", "matchExpressions")) {
    const key = textAt(each, "key");
    const values = listAt(each, "values").join(",");
    switch (textAt(each, "operator")) {
      case "In":
        parts.push(`${key} in (${values})`);
        break;
      case "NotIn":
        parts.push(`${key} notin (${values})`);
        break;
      case "Exists":
        parts.push(key);
        break;
      case "DoesNotExist":
        parts.push(`!${key}`);
    }
  }
  return parts.length === 0 ? undefined : parts.join(",");
}

/** Labels as requirements of a selector: `app=web`. */
export function selectLabels(labels: unknown): readonly string[] {
  return Object.entries(isObject(labels) ? labels : {}).map(([key, value]) => `${key}=${String(value)}`);
}

function revisionOf(object: unknown): string {
  return textAt(object, "metadata", "annotations", "deployment.kubernetes.io/revision");
}

function isOwnedBy(object: unknown, owner: unknown): boolean {
  const uid = textAt(owner, "metadata", "uid");
  return uid !== "" && listAt(object, "metadata", "ownerReferences").some((each) => textAt(each, "uid") === uid);
}
