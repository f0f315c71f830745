import { describe, expect, test } from "bun:test";
import { findTargets, isOf } from "../lib/follow-targets.ts";

const template = "template: {spec: {containers: [{name: c}]}}";

async function queries(text: string, said = ""): Promise<readonly unknown[]> {
  return (await findTargets(text, said)).map(({ namespace, query, resource }) => [resource, namespace, query]);
}

describe("findTargets()", () => {
  test.each<[string, string, readonly unknown[]]>([
    [
      "a Deployment",
      `{apiVersion: apps/v1, kind: Deployment, metadata: {name: w, namespace: n}, spec: {selector: {matchLabels: {a: b}, matchExpressions: [{key: k, operator: In, values: [x, y]}]}, ${template}}}`,
      [["deployment/w", "n", { labelSelector: "a=b,k in (x,y)" }]],
    ],
    [
      "a Job",
      "{apiVersion: batch/v1, kind: Job, metadata: {name: j}}",
      [["job/j", undefined, { labelSelector: "job-name=j" }]],
    ],
    [
      "a CronJob",
      "{apiVersion: batch/v1, kind: CronJob, metadata: {name: j}}",
      [["cronjob/j", undefined, { labelSelector: "job-name" }]],
    ],
    [
      "a Pod in a List",
      "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: p}}]}",
      [["pod/p", undefined, { fieldSelector: "metadata.name=p" }]],
    ],
    [
      "a Knative Service",
      "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: s}}",
      [["service.serving.knative.dev/s", undefined, { labelSelector: "serving.knative.dev/service=s" }]],
    ],
    [
      "a ReplicationController",
      "{apiVersion: v1, kind: ReplicationController, metadata: {name: r}, spec: {selector: {a: b, c: d}}}",
      [["replicationcontroller/r", undefined, { labelSelector: "a=b,c=d" }]],
    ],
    [
      "another kind with a template",
      `{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: r}, spec: {selector: {matchLabels: {a: b}}, ${template}}}`,
      [["rollout.argoproj.io/r", undefined, { labelSelector: "a=b" }]],
    ],
    [
      "none of objects that only select Pods",
      "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: p}, spec: {selector: {matchLabels: {a: b}}}}",
      [],
    ],
    ["none of a broken document", "{", []],
  ])("%s", async (_, text, wanted) => {
    expect(await queries(text)).toEqual([...wanted]);
  });

  test("a Job whose name the server made", async () => {
    const text = "{apiVersion: batch/v1, kind: Job, metadata: {generateName: clean-}}";
    expect(await queries(text, "configmap/x created\njob.batch/clean-x7k2p created\n")).toEqual([
      ["job/clean-x7k2p", undefined, { labelSelector: "job-name=clean-x7k2p" }],
    ]);
    expect(await queries(text)).toEqual([]);
  });

  test("of a CronJob, the Pods of its Jobs", async () => {
    const [target] = await findTargets("{apiVersion: batch/v1, kind: CronJob, metadata: {name: a.b}}", "");
    if (target === undefined) throw new TypeError("no target");
    const job = (name: string): boolean => isOf(target, { metadata: { labels: { "job-name": name } } });
    expect(["a.b-29384756", "axb-29384756", "a.b-x", "other-29384756"].map(job)).toEqual([true, false, false, false]);
  });
});
