import { describe, expect, test } from "bun:test";
import { findWorkloads } from "../lib/yaml-workloads.ts";
import { splitDocuments } from "../lib/yaml.ts";

const POD = "spec: {containers: [{image: ko://example.com/web}]}";

describe("findWorkloads()", () => {
  test.each<[string, readonly object[]]>([
    [
      `kind: Deployment\nmetadata: {name: web, namespace: team}\n${POD}`,
      [{ resource: "deployment/web", namespace: "team", values: ["ko://example.com/web"] }],
    ],
    [
      `kind: StatefulSet\nmetadata: {name: web}\nspec: {a: " ko://b ", "ko://c": {d: [ko://b]}}`,
      [{ resource: "statefulset/web", namespace: undefined, values: ["ko://b", "ko://c"] }],
    ],
    [
      `kind: List\nitems:\n- {kind: Job, metadata: {name: a}, image: ko://a}\n- {kind: Job, metadata: {name: b}, image: b}\n` +
        `- {kind: Pod, metadata: {generateName: c}, image: ko://c}`,
      [
        { resource: "job/a", namespace: undefined, values: ["ko://a"] },
        { resource: undefined, namespace: undefined, values: ["ko://c"] },
      ],
    ],
    // kubectl does not find their pods.
    [
      `kind: CronJob\nmetadata: {name: web, namespace: n}\n${POD}`,
      [{ resource: undefined, namespace: "n", values: ["ko://example.com/web"] }],
    ],
    ["image: ko://a", [{ resource: undefined, namespace: undefined, values: ["ko://a"] }]],
    ["kind: Pod\nmetadata: {name: web}", []],
    ["- ko://a", []],
    ["a: [", []],
    ["", []],
  ])("of %j", async (text, want) => {
    const found = (await Promise.all(splitDocuments(Buffer.from(text), "a.yaml").map(findWorkloads))).flat();
    const plain: readonly object[] = found.map(({ values, ...each }) => ({ ...each, values: [...values] }));
    expect(plain).toEqual([...want]);
  });
});
