import { describe, expect, test } from "bun:test";
import { type Applied, findApplied, resourceOf } from "../lib/rollout-objects.ts";
import { progressOf } from "../lib/rollout-state.ts";

function applied(type: string): Applied {
  const [apiVersion = "", kind = ""] = type.split(" ");
  return { apiVersion, kind, namespace: undefined, name: "web", generateName: "" };
}

const condition = (type: string, status: string, message = ""): object => ({ conditions: [{ type, status, message }] });
const seen = (fields: object): object => ({ observedGeneration: 1, ...fields });

const DEPLOYMENT = "apps/v1 Deployment";
const STATEFUL_SET = "apps/v1 StatefulSet";
const DAEMON_SET = "apps/v1 DaemonSet";
const JOB = "batch/v1 Job";
const POD = "v1 Pod";
const KNATIVE = "serving.knative.dev/v1 Service";
const CUSTOM = "example.com/v1 Widget";
const TWO = { replicas: 2 };

describe("progressOf()", () => {
  test.each<[string, object, object, string]>([
    [DEPLOYMENT, TWO, {}, "waiting has not been looked at by its controller"],
    [DEPLOYMENT, TWO, { observedGeneration: 0 }, "waiting has not been looked at by its controller"],
    [DEPLOYMENT, TWO, seen({ replicas: 2, updatedReplicas: 1 }), "waiting has 1 of 2 replicas replaced"],
    [DEPLOYMENT, TWO, seen({ replicas: 3, updatedReplicas: 2 }), "waiting has 1 old replicas that have not ended"],
    [
      DEPLOYMENT,
      TWO,
      seen({ replicas: 2, updatedReplicas: 2, availableReplicas: 1 }),
      "waiting has 1 of 2 replicas ready",
    ],
    [DEPLOYMENT, TWO, seen({ replicas: 2, updatedReplicas: 2, availableReplicas: 2 }), "ready is ready"],
    [DEPLOYMENT, { replicas: 0 }, seen({}), "ready is ready"],
    [DEPLOYMENT, { paused: true }, seen({}), "over is paused: kubectl rollout resume"],
    [
      DEPLOYMENT,
      {},
      seen(condition("ReplicaFailure", "True", "exceeded quota")),
      "failed gets no Pods: exceeded quota",
    ],
    [DEPLOYMENT, {}, seen(condition("Progressing", "False", "timed out")), "failed is late: timed out"],
    [STATEFUL_SET, TWO, seen({ readyReplicas: 1 }), "waiting has 1 of 2 replicas ready"],
    [
      STATEFUL_SET,
      TWO,
      seen({ readyReplicas: 2, updatedReplicas: 1, updateRevision: "b", currentRevision: "a" }),
      "waiting has 1 of 2 replicas replaced",
    ],
    [STATEFUL_SET, TWO, seen({ readyReplicas: 2, updateRevision: "b", currentRevision: "b" }), "ready is ready"],
    [
      STATEFUL_SET,
      { ...TWO, updateStrategy: { type: "RollingUpdate", rollingUpdate: { partition: 1 } } },
      seen({ readyReplicas: 2, updatedReplicas: 1, updateRevision: "b", currentRevision: "a" }),
      "ready is ready",
    ],
    [
      STATEFUL_SET,
      { updateStrategy: { type: "OnDelete" } },
      {},
      "over replaces a Pod only when it is deleted (updateStrategy: OnDelete)",
    ],
    [
      DAEMON_SET,
      {},
      seen({ desiredNumberScheduled: 3, updatedNumberScheduled: 2 }),
      "waiting has 2 of 3 replicas replaced",
    ],
    [
      DAEMON_SET,
      {},
      seen({ desiredNumberScheduled: 3, updatedNumberScheduled: 3, numberAvailable: 1 }),
      "waiting has 1 of 3 replicas ready",
    ],
    [DAEMON_SET, {}, seen({ desiredNumberScheduled: 0 }), "ready is ready"],
    [JOB, {}, { active: 1, failed: 2 }, "waiting has 1 Pods running, and 2 that failed"],
    [JOB, {}, condition("Complete", "True"), "ready is complete"],
    [JOB, {}, condition("Failed", "True", "too often"), "failed failed: too often"],
    [JOB, { suspend: true }, {}, "over is suspended"],
    [POD, {}, { phase: "Pending" }, "waiting has not started"],
    [POD, {}, { phase: "Running", ...condition("Ready", "False") }, "waiting runs, and is not ready"],
    [POD, {}, { phase: "Running", ...condition("Ready", "True") }, "ready is ready"],
    [POD, {}, { phase: "Succeeded" }, "ready is complete"],
    [POD, {}, { phase: "Failed", reason: "Evicted" }, "failed failed: Evicted"],
    [KNATIVE, {}, {}, "waiting has not been looked at by its controller"],
    [KNATIVE, {}, seen(condition("Ready", "Unknown", "deploying")), "waiting is not ready: deploying"],
    [KNATIVE, {}, seen(condition("Ready", "False", "no image")), "failed failed: no image"],
    [KNATIVE, {}, seen(condition("Ready", "True")), "ready is ready"],
    [CUSTOM, {}, {}, "over has no condition to wait for"],
    [CUSTOM, {}, seen(condition("Ready", "False", "soon")), "waiting is not ready: soon"],
    [CUSTOM, {}, seen(condition("Succeeded", "False", "no")), "failed failed: no"],
  ])("of a %s with spec %j and status %j", (type, spec, status, wanted) => {
    const { state, text } = progressOf(applied(type), { metadata: { generation: 1 }, spec, status });
    expect(`${state} ${text}`).toBe(wanted);
  });

  test("an answer of another shape is no progress, and no exception", () => {
    for (const object of [undefined, "text", [], { status: "x" }, { status: { conditions: "x", replicas: "1" } }]) {
      for (const type of [DEPLOYMENT, STATEFUL_SET, DAEMON_SET, JOB, POD, KNATIVE, CUSTOM]) {
        expect(progressOf(applied(type), object).state).not.toBe("failed");
      }
    }
  });

  test("an object that is being deleted will not run", () => {
    const object = { metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } };
    expect(progressOf(applied(POD), object)).toEqual({ state: "failed", text: "is being deleted" });
  });
});

test("findApplied() finds workloads and custom resources, also in lists", async () => {
  const yaml = `apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: n}}
- {apiVersion: v1, kind: Service, metadata: {name: s}}
---
{apiVersion: batch/v1, kind: Job, metadata: {generateName: clean-}}
---
{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: web}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: c}}
---
# nothing
---
{apiVersion: v1, kind: Pod}
`;
  const found = await findApplied(yaml);
  expect(found.map((each) => [resourceOf(each), each.namespace])).toEqual([
    ["deployment/a", "n"],
    ["job/clean-…", undefined],
    ["service.serving.knative.dev/web", undefined],
  ]);
});
