import { describe, expect, test } from "bun:test";
import { splitDocuments } from "../lib/yaml.ts";
import { findObjects } from "../lib/yaml-objects.ts";

describe("findObjects()", () => {
  test.each<[string, readonly string[]]>([
    ["kind: Deployment\nmetadata: {name: web}\n", ['Deployment "web"']],
    ["kind: ConfigMap\nmetadata:\n  name: a\n  namespace: b\n", ['ConfigMap "a" in namespace "b"']],
    [
      "kind: List\nitems:\n- {kind: A, metadata: {name: x}}\n- kind: BList\n  items: [{kind: B, metadata: {name: y}}]\n",
      ['A "x"', 'B "y"'],
    ],
    ["kind: Job\nmetadata: {generateName: x-}\n", []],
    ["just: yaml\n", []],
    ["- a\n", []],
    ["kind: A\nmetadata: {name: [x]}\n", []],
    ["a: [\n", []],
    ["a: *nowhere\n", []],
  ])("of %j are %j", async (text, objects) => {
    const [document] = splitDocuments(new TextEncoder().encode(text), "a.yaml");
    expect(document === undefined ? [] : await findObjects(document)).toEqual([...objects]);
  });
});
