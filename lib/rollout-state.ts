/**
 * How far the rollout of an object is, by its own status.
 *
 * https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
 */
import { fieldAt, numberAt, textAt } from "./json.ts";
import { type Applied, type Condition, conditionOf } from "./rollout-objects.ts";

/** How far a rollout is. */
export interface Progress {
  /** "over": nothing is rolled out, and nothing will be until a person acts. "failed": waiting does not help. */
  readonly state: "ready" | "over" | "waiting" | "failed";
  /** A clause whose subject is the object: `has 1 of 3 replicas ready`. */
  readonly text: string;
}

const READY: Progress = { state: "ready", text: "is ready" };

/** Reads the progress of an object of the API. */
export function progressOf({ apiVersion, kind }: Applied, object: unknown): Progress {
  if (fieldAt(object, "metadata", "deletionTimestamp") !== undefined)
    return { state: "failed", text: "is being deleted" };
  const seen = numberAt(object, "status", "observedGeneration");
  if (seen !== undefined && seen < (numberAt(object, "metadata", "generation") ?? 0)) {
    return { state: "waiting", text: "has not been looked at by its controller" };
  }
  switch (`${apiVersion} ${kind}`) {
    case "apps/v1 Deployment":
      return deploymentProgress(object, seen);
    case "apps/v1 StatefulSet":
      return statefulSetProgress(object, seen);
    case "apps/v1 DaemonSet":
      return daemonSetProgress(object, seen);
    case "batch/v1 Job":
      return jobProgress(object);
    case "v1 Pod":
      return podProgress(object);
    default:
      return customProgress(object, apiVersion);
  }
}

function deploymentProgress(object: unknown, seen: number | undefined): Progress {
  if (fieldAt(object, "spec", "paused") === true) return { state: "over", text: "is paused: kubectl rollout resume" };
  const refused = conditionOf(object, "ReplicaFailure");
  if (refused?.status === "True") return { state: "failed", text: `gets no Pods: ${refused.message}` };
  const progressing = conditionOf(object, "Progressing");
  if (progressing?.status === "False") return { state: "failed", text: `is late: ${progressing.message}` };
  if (seen === undefined) return notSeen();
  const wanted = numberAt(object, "spec", "replicas") ?? 1;
  const count = (name: string): number => numberAt(object, "status", name) ?? 0;
  const [updated, available, all] = [count("updatedReplicas"), count("availableReplicas"), count("replicas")];
  if (updated < wanted) return share(updated, { of: wanted, what: "new" });
  // Those of the old ReplicaSet serve as long as they are there.
  if (all > updated) return { state: "waiting", text: `has ${all - updated} old replicas that have not ended` };
  return available < updated ? share(available, { of: wanted, what: "ready" }) : READY;
}

function statefulSetProgress(object: unknown, seen: number | undefined): Progress {
  if (textAt(object, "spec", "updateStrategy", "type") === "OnDelete") return onDelete();
  if (seen === undefined) return notSeen();
  const wanted = numberAt(object, "spec", "replicas") ?? 1;
  const partition = numberAt(object, "spec", "updateStrategy", "rollingUpdate", "partition") ?? 0;
  const ready = numberAt(object, "status", "readyReplicas") ?? 0;
  if (ready < wanted) return share(ready, { of: wanted, what: "ready" });
  const isUpdated = textAt(object, "status", "updateRevision") === textAt(object, "status", "currentRevision");
  const updated = numberAt(object, "status", "updatedReplicas") ?? 0;
  const expected = Math.max(0, wanted - partition);
  return isUpdated || updated >= expected ? READY : share(updated, { of: expected, what: "new" });
}

function daemonSetProgress(object: unknown, seen: number | undefined): Progress {
  if (textAt(object, "spec", "updateStrategy", "type") === "OnDelete") return onDelete();
  if (seen === undefined) return notSeen();
  const wanted = numberAt(object, "status", "desiredNumberScheduled") ?? 0;
  const updated = numberAt(object, "status", "updatedNumberScheduled") ?? 0;
  if (updated < wanted) return share(updated, { of: wanted, what: "new" });
  const available = numberAt(object, "status", "numberAvailable") ?? 0;
  return available < wanted ? share(available, { of: wanted, what: "ready" }) : READY;
}

function jobProgress(object: unknown): Progress {
  if (fieldAt(object, "spec", "suspend") === true) return { state: "over", text: "is suspended" };
  if (conditionOf(object, "Complete")?.status === "True") return { state: "ready", text: "is complete" };
  const failed = conditionOf(object, "Failed");
  if (failed?.status === "True") return { state: "failed", text: `failed: ${failed.message || failed.reason}` };
  const active = numberAt(object, "status", "active") ?? 0;
  const failures = numberAt(object, "status", "failed") ?? 0;
  return { state: "waiting", text: `has ${active} Pods running, and ${failures} that failed` };
}

function podProgress(object: unknown): Progress {
  const phase = textAt(object, "status", "phase");
  if (phase === "Succeeded") return { state: "ready", text: "is complete" };
  if (phase === "Failed") {
    const why = textAt(object, "status", "message") || textAt(object, "status", "reason");
    return { state: "failed", text: why === "" ? "failed" : `failed: ${why}` };
  }
  if (conditionOf(object, "Ready")?.status === "True") return READY;
  return { state: "waiting", text: phase === "Running" ? "runs, and is not ready" : "has not started" };
}

/** A custom resource says with a condition whether it is ready; without one there is nothing to wait for. */
function customProgress(object: unknown, apiVersion: string): Progress {
  const [done, ready] = [conditionOf(object, "Succeeded"), conditionOf(object, "Ready")];
  const condition = done ?? ready;
  const isKnative = apiVersion.startsWith("serving.knative.dev/");
  if (condition === undefined) {
    return isKnative ? notSeen() : { state: "over", text: "has no condition to wait for" };
  }
  if (condition.status === "True") return READY;
  const why = explainCondition(condition);
  // Of other kinds, False may only mean: not yet.
  const isFinal = condition.status === "False" && (isKnative || done !== undefined);
  return isFinal ? { state: "failed", text: `failed${why}` } : { state: "waiting", text: `is not ready${why}` };
}

function explainCondition({ message, reason }: Condition): string {
  const why = message || reason;
  return why === "" ? "" : `: ${why}`;
}

function notSeen(): Progress {
  return { state: "waiting", text: "has not been looked at by its controller" };
}

function onDelete(): Progress {
  return { state: "over", text: "replaces a Pod only when it is deleted (updateStrategy: OnDelete)" };
}

function share(count: number, { of, what }: { readonly of: number; readonly what: "new" | "ready" }): Progress {
  return { state: "waiting", text: `has ${count} of ${of} replicas ${what === "new" ? "replaced" : "ready"}` };
}
