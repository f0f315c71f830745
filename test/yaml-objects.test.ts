import { describe, expect, test } from "bun:test";
import { parseAllDocuments } from "yaml";
import { filterDocuments, findObjects } from "../lib/yaml-objects.ts";
import { joinDocuments, splitDocuments } from "../lib/yaml.ts";
import { findReferences } from "../lib/yaml-references.ts";
import { findCounterparts } from "./helpers/counterparts.ts";

const POD = "apiVersion: v1\nkind: Pod\n";

interface Case {
  readonly name: string;
  readonly selector: string;
  readonly input: string;
  readonly output: string;
  /** Where ours does more than the original, or the original writes broken YAML. */
  readonly ours?: true;
}

async function filter(input: string, selector: string): Promise<string> {
  const documents = splitDocuments(new TextEncoder().encode(input), "in.yaml");
  return joinDocuments(await filterDocuments(documents, { selector }));
}

/** A line for each item: `- ` and an object in flow style with the name as its label `a`. */
function item(name: string, indent = 0): string {
  return `${" ".repeat(indent)}- {apiVersion: v1, kind: Pod, metadata: {labels: {a: ${name}}}}\n`;
}

function json(name: string): string {
  return `{"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "${name}"}}}`;
}

const LIST = "apiVersion: v1\nkind: List\n";
const LABELS = "metadata:\n  labels:\n    a: x # why\n    'b': \"1.10\"\n    c: 1.10\n    d: true\n";

const cases: readonly Case[] = [
  { name: "keeps a document that matches", selector: "a=x", input: POD + LABELS, output: POD + LABELS },
  { name: "drops a document that does not match", selector: "a=y", input: POD + LABELS, output: "" },
  {
    name: "compares quoted values, numbers and booleans as they are written",
    selector: "b=1.10,c=1.10,d=true",
    input: POD + LABELS,
    output: POD + LABELS,
  },
  { name: "takes no labels for an empty set, which = does not match", selector: "a=x", input: POD, output: "" },
  { name: "takes no labels for an empty set, which ! matches", selector: "!a", input: POD, output: POD },
  {
    name: "takes empty metadata for no labels",
    selector: "a!=x",
    input: `${POD}metadata:\n`,
    output: `${POD}metadata:\n`,
  },
  {
    name: "takes labels that are no map for none",
    selector: "!a",
    input: `${POD}metadata: {labels: [a]}\n`,
    output: `${POD}metadata: {labels: [a]}\n`,
  },
  {
    name: "looks at metadata.labels only",
    selector: "a",
    input: `${POD}labels: {a: x}\nspec: {metadata: {labels: {a: x}}}\n`,
    output: "",
  },
  {
    name: "keeps the order and every byte",
    selector: "a",
    input: `# one\n---\n${POD}${LABELS}--- # two\n${POD}---\n${POD}${LABELS}...\n`,
    output: `# one\n---\n${POD}${LABELS}---\n${POD}${LABELS}...\n`,
  },
  {
    name: "drops null documents",
    selector: "!a",
    input: `null\n---\n~\n---\n${POD}---\n!!null\n`,
    output: `---\n${POD}`,
  },
  { name: "drops a file of comments", selector: "!a", input: "# nothing\n", output: "" },
  {
    name: "keeps CRLF",
    selector: "a=1",
    input: `${LIST}items:\n${item("1")}${item("2")}`.replaceAll("\n", "\r\n"),
    output: `${LIST}items:\n${item("1")}`.replaceAll("\n", "\r\n"),
  },
  {
    name: "keeps a list whose items all match",
    selector: "a",
    input: `${LIST}items:\n${item("1")}${item("2")}`,
    output: `${LIST}items:\n${item("1")}${item("2")}`,
  },
  {
    name: "drops a list without matching items",
    selector: "b",
    input: `${LIST}items:\n${item("1")}${item("2")}`,
    output: "",
  },
  { name: "drops an empty list", selector: "!a", input: `${LIST}items: []\n`, output: "" },
  {
    name: "cuts the first item",
    selector: "a!=1",
    input: `${LIST}items:\n${item("1")}${item("2")}tail: 1\n`,
    output: `${LIST}items:\n${item("2")}tail: 1\n`,
  },
  {
    name: "cuts an item in the middle",
    selector: "a!=2",
    input: `${LIST}items:\n${item("1", 2)}${item("2", 2)}${item("3", 2)}`,
    output: `${LIST}items:\n${item("1", 2)}${item("3", 2)}`,
  },
  {
    name: "cuts the last item",
    selector: "a!=3",
    input: `items:\n${item("1", 2)}${item("2", 2)}${item("3", 2)}${LIST}`,
    output: `items:\n${item("1", 2)}${item("2", 2)}${LIST}`,
  },
  {
    name: "cuts the last item of a file without a last line end",
    selector: "a=1",
    input: `${LIST}items:\n${item("1")}${item("2").trimEnd()}`,
    output: `${LIST}items:\n${item("1")}`,
  },
  {
    name: "cuts several items",
    selector: "a in (2,5)",
    input: `${LIST}items:\n${["1", "2", "3", "4", "5", "6"].map((name) => item(name)).join("")}`,
    output: `${LIST}items:\n${item("2")}${item("5")}`,
  },
  {
    name: "cuts block items with what belongs to them",
    selector: "a=keep",
    input: `${LIST}items: # all
# about the first
- apiVersion: v1
  kind: Pod # trailing
  metadata: {labels: {a: go}}
  # deeper than the dash: of the first

# about the second
# in two lines
- apiVersion: v1
  kind: Pod
  metadata:
    labels:
      a: keep
  # of the second

# about the third
- kind: ConfigMap
  apiVersion: v1
  metadata: {labels: {a: go}}
  data:
    script: |
      #!/bin/sh
      - not an item

      # not a comment
    # of the third
# behind the list
tail: 1
`,
    output: `${LIST}items: # all
# about the second
# in two lines
- apiVersion: v1
  kind: Pod
  metadata:
    labels:
      a: keep
  # of the second

# behind the list
tail: 1
`,
  },
  {
    name: "knows a block scalar that looks like a comment from the next item's comment",
    selector: "a=keep",
    input: `${LIST}items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {labels: {a: keep}}
  data: {}
  text: |
   # text, no comment
# about the last
-
  apiVersion: v1
  kind: Pod
  nothing:
`,
    output: `${LIST}items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {labels: {a: keep}}
  data: {}
  text: |
   # text, no comment
`,
  },
  {
    name: "cuts an item whose dash stands behind a colon",
    selector: "a=2",
    input: `${LIST}? items\n: ${item("1").trimEnd()}\n${item("2", 2)}`,
    output: `${LIST}? items\n: ${item("2").trimEnd()}\n`,
  },
  {
    name: "cuts null items",
    selector: "!b",
    input: `${LIST}items:\n- null\n-\n${item("1")}`,
    output: `${LIST}items:\n${item("1")}`,
    ours: true,
  },
  {
    name: "cuts the first flow item",
    selector: "a=2",
    input: `{apiVersion: v1, kind: List, items: [${json("1")}, ${json("2")}]}\n`,
    output: `{apiVersion: v1, kind: List, items: [ ${json("2")}]}\n`,
  },
  {
    name: "cuts the last flow item",
    selector: "a=1",
    input: `{apiVersion: v1, kind: List, items: [${json("1")}, ${json("2")} ]}\n`,
    output: `{apiVersion: v1, kind: List, items: [${json("1")} ]}\n`,
  },
  {
    name: "cuts flow items with their comments",
    selector: "a in (2,4)",
    input: `${LIST}items: [ # all\n  ${json("1")}, # one\n  # about two\n  ${json("2")}, # two\n  ${json("3")}, # three\n  ${json("4")} # four\n]\n`,
    output: `${LIST}items: [ # all\n  # about two\n  ${json("2")}, # two\n  ${json("4")} # four\n]\n`,
    ours: true,
  },
  {
    name: "keeps a comma at the end",
    selector: "a=1",
    input: `${LIST}items: [\n  ${json("1")}, # one\n  ${json("2")}, # two\n]\n`,
    output: `${LIST}items: [\n  ${json("1")}, # one\n]\n`,
  },
  {
    name: "cuts the last flow item and leaves the comment before it",
    selector: "a=1",
    input: `${LIST}items: [\n  ${json("1")}, # one\n  ${json("2")}\n]\n`,
    output: `${LIST}items: [\n  ${json("1")} # one\n]\n`,
  },
  {
    name: "keeps JSON JSON",
    selector: "a in (2,3)",
    input: `{\n\t"apiVersion": "v1",\n\t"kind": "List",\n\t"items": [\n\t\t${json("1")},\n\t\t${json("2")},\n\t\t${json("3")},\n\t\t${json("4")}\n\t]\n}`,
    output: `{\n\t"apiVersion": "v1",\n\t"kind": "List",\n\t"items": [\n\t\t${json("2")},\n\t\t${json("3")}\n\t]\n}`,
  },
  {
    name: "filters other kinds of lists",
    selector: "a=1",
    input: `apiVersion: v1\nkind: PodList\nitems:\n${item("1")}${item("2")}`,
    output: `apiVersion: v1\nkind: PodList\nitems:\n${item("1")}`,
    ours: true,
  },
  {
    name: "takes a kind in List without items for an object",
    selector: "a=1",
    input: `apiVersion: x/v1\nkind: AllowList\nmetadata: {labels: {a: 1}}\n`,
    output: `apiVersion: x/v1\nkind: AllowList\nmetadata: {labels: {a: 1}}\n`,
  },
  {
    name: "filters lists in lists",
    selector: "a=1",
    input: `${LIST}items:\n- apiVersion: v1\n  kind: List\n  items:\n${item("1", 2)}${item("2", 2)}- apiVersion: v1\n  kind: List\n  items:\n${item("3", 2)}`,
    output: `${LIST}items:\n- apiVersion: v1\n  kind: List\n  items:\n${item("1", 2)}`,
    ours: true,
  },
  { name: "takes items that are null for none", selector: "!a", input: `${LIST}items:\n`, output: "", ours: true },
  {
    name: "follows aliases",
    selector: "a=1",
    input: `${POD}spec: &labels {a: 1}\nmetadata: {labels: *labels}\n`,
    output: `${POD}spec: &labels {a: 1}\nmetadata: {labels: *labels}\n`,
    ours: true,
  },
  {
    name: "lets a label win over a merged one",
    selector: "a=1,b=2",
    input: `x: &x {apiVersion: v1, kind: Pod, metadata: {labels: {a: 0, b: 2}}}\n<<: *x\nmetadata: {labels: {<<: [{b: 2}, {b: 3}], a: 1}}\n`,
    output: `x: &x {apiVersion: v1, kind: Pod, metadata: {labels: {a: 0, b: 2}}}\n<<: *x\nmetadata: {labels: {<<: [{b: 2}, {b: 3}], a: 1}}\n`,
    ours: true,
  },
  {
    name: "keeps aliases whose anchors stay",
    selector: "a!=2",
    input: `${LIST}items:\n- &one {apiVersion: v1, kind: Pod, x: &y 1}\n${item("2").replace("- ", "- &two ")}- {apiVersion: v1, kind: Pod, y: *y}\n`,
    output: `${LIST}items:\n- &one {apiVersion: v1, kind: Pod, x: &y 1}\n- {apiVersion: v1, kind: Pod, y: *y}\n`,
  },
];

describe("filterDocuments()", () => {
  test.each(cases)("$name", async ({ input, selector, output }) => {
    expect(await filter(input, selector)).toBe(output);
  });

  test.each<[string, string, string]>([
    ["no object", "a: 1\n", 'Cannot apply the selector to "in.yaml:1:1": it has no apiVersion and kind'],
    [
      "a sequence",
      `--- # c\n- ${json("1")}\n`,
      'Cannot apply the selector to "in.yaml:2:1": it has no apiVersion and kind',
    ],
    ["a kind alone", "kind: Pod\n", "it has no apiVersion and kind"],
    ["an apiVersion that is a number", "apiVersion: 1\nkind: Pod\n", "it has no apiVersion and kind"],
    [
      "an item that is no object",
      `${LIST}items:\n${item("1")}- x\n`,
      'Cannot apply the selector to "in.yaml:5:3": it has no',
    ],
    ["a List without items", LIST, 'Cannot apply the selector to "in.yaml:1:1": it is a List without items'],
    [
      "a List whose items are a map",
      `${LIST}items: {a: 1}\n`,
      'Cannot apply the selector to "in.yaml:3:8": it is a List without',
    ],
    [
      "items that are an alias and match in part",
      `x: &x [${json("1")}, ${json("2")}]\n${LIST}items: *x\n`,
      "the items of a List are an alias, wanted a sequence",
    ],
    [
      "an anchor that is used behind the cut",
      `${LIST}items:\n- {apiVersion: v1, kind: Pod, x: &y 1}\n${item("1")}  y: *y\n`
        .replace("}}\n  y", "}, y")
        .replace("*y", "*y}"),
      "has the anchor &y, which is used",
    ],
    ["broken YAML", `${POD}a: "x\n`, 'Cannot read "in.yaml:4:1" as YAML: Missing closing'],
    ["what is nested too deeply", `${POD}a: ${"[".repeat(10_000)}`, "as YAML: it is nested too deeply"],
  ])("refuses %s", (_name, input, message) => {
    expect(filter(input, "a=1")).rejects.toThrow(message);
  });

  test("tells of all documents that are none", () => {
    expect(filter(`a: 1\n---\n${POD}---\nb: 1\n`, "a")).rejects.toThrow(/in\.yaml:1:1.*\n.*in\.yaml:6:1/);
  });

  test("keeps the places of references, and hides those that are cut", async () => {
    const input = `${LIST}items:\n${item("1")}- apiVersion: v1\n  kind: Pod\n  image: ko://b\n${item("ko://c")}`;
    const documents = splitDocuments(new TextEncoder().encode(input), "in.yaml");
    const [document] = await filterDocuments(documents, { selector: "!a" });
    if (document === undefined) throw new Error("nothing is left");
    expect(await findReferences(document)).toMatchObject([{ value: "ko://b", line: 7, column: 10 }]);
  });
});

describe("random lists", () => {
  /** An item's lines, without indentation; its label is `keep` or `go`. */
  const bodies = (label: string): readonly string[] => [
    `{apiVersion: v1, kind: Pod, metadata: {labels: {a: ${label}}}}`,
    `apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    a: ${label}`,
    `\n  apiVersion: v1\n  kind: Pod\n  metadata: {labels: {a: ${label}}}\n  empty:`,
    `kind: Pod # ${label}\nmetadata:\n  labels:\n    # ${label}\n    a: "${label}" # ${label}\napiVersion: v1`,
    `metadata: {labels: {a: ${label}}}\nkind: ConfigMap\napiVersion: v1\ndata:\n  a: |+\n    - # x\n\n    # y\n\n`,
    `metadata: {labels: {a: ${label}}}\nkind: ConfigMap\napiVersion: v1\ndata:\n  a: >-\n    text\n  b:\n  - 1\n  -`,
    `!x &${label}\n  metadata: {labels: {a: ${label}}}\n  kind: Pod\n  apiVersion: v1\n  s: 'a\n\n    # b'`,
  ];

  test.each(Array.from({ length: 60 }, (_, seed) => seed))("parse to the items that match (%d)", async (seed) => {
    let state = seed + 1;
    const below = (n: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 10) % n;
    };
    const pick = (choices: readonly string[]): string => choices[below(choices.length)] ?? "";
    const indent = pick(["", "  "]);
    let input = `${LIST}items:${pick(["", " # all"])}\n`;
    for (let left = 1 + below(6); left > 0; left--) {
      const label = pick(["keep", "go"]);
      input += pick(["", "", "\n", `${indent}# of ${label}\n`, `\n${indent}# of ${label}\n${indent}# still\n`]);
      const lines = pick(bodies(label)).split("\n");
      input += lines
        .map((line, i) => (line === "" && i > 0 ? "" : `${indent}${i === 0 ? "- " : "  "}${line}`))
        .join("\n");
      input += `\n${pick(["", "", `${indent}    # deeper, of ${label}\n`])}`;
    }
    input += pick(["", "# end\n", "tail: 1 # of all\n"]);
    const [list] = parse(input);
    const kept = keptOf(list);
    const output = await filter(input, "a=keep");
    expect(parse(output)).toEqual(kept === undefined ? [] : [kept]);
    expect(output).not.toContain("go");
    // What is left is lines of the input, in its order.
    const rest = input.split("\n")[Symbol.iterator]();
    expect(output.split("\n").every((line) => rest.some((other) => other === line))).toBe(true);
  });

  /** The list with the items that are labelled `keep`; undefined if there is none. */
  function keptOf(list: unknown): unknown {
    if (typeof list !== "object" || list === null || !("items" in list) || !Array.isArray(list.items)) return undefined;
    const items = list.items.filter(
      (each: { metadata: { labels: { a: string } } }) => each.metadata.labels.a === "keep",
    );
    return items.length === 0 ? undefined : { ...list, items };
  }
});

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
    ["? {a: b}\n: c\n? [d]\n: e\nkind: A\nmetadata: {name: n}\n", ['A "n"']],
    [`${"? ".repeat(2000)}a`, []],
  ])("of %j are %j", async (text, objects) => {
    const [document] = splitDocuments(new TextEncoder().encode(text), "a.yaml");
    expect(document === undefined ? [] : await findObjects(document)).toEqual([...objects]);
  });
});

const original = findCounterparts(["ko"]);

describe("the original", () => {
  test.skipIf(original === undefined).each(cases.filter(({ ours }) => ours !== true))(
    "keeps the same: $name",
    async ({ input, selector, output }) => {
      const child = Bun.spawn([original?.ko ?? "", "resolve", "-L", "-l", selector, "-f", "-"], {
        stdin: new TextEncoder().encode(input),
        stderr: "pipe",
      });
      const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
      expect({ code, stderr: code === 0 ? "" : stderr, documents: parse(stdout) }).toEqual({
        code: 0,
        stderr: "",
        documents: parse(output),
      });
    },
  );
});

/** All documents that are not null, as JavaScript values. */
function parse(text: string): readonly unknown[] {
  const documents = parseAllDocuments(text);
  const values = Array.isArray(documents) ? documents.map((document): unknown => document.toJS()) : [];
  return values.filter((value) => value !== null);
}
