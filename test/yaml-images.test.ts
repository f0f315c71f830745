import { describe, expect, test } from "bun:test";
import { findAlwaysPulled, findImages, findSlips, readSlip } from "../lib/yaml-images.ts";
import { splitDocuments } from "../lib/yaml.ts";

describe("findAlwaysPulled()", () => {
  /** `line:column` of each policy in all documents of a text. */
  async function find(text: string): Promise<readonly string[]> {
    const documents = splitDocuments(new TextEncoder().encode(text), "a.yaml");
    const places = await Promise.all(documents.map((document) => findAlwaysPulled(document)));
    return places.flat().map(({ line, column }) => `${line}:${column}`);
  }

  test.each<[string, string, readonly string[]]>([
    ["before the image", "imagePullPolicy: Always\nimage: ko://a\n", ["1:18"]],
    ["after the image", "image: ko://a\nimagePullPolicy: Always\n", ["2:18"]],
    ["in quotes", `image: "ko://a"\nimagePullPolicy: 'Always'\n`, ["2:18"]],
    ["in a list of containers", "- image: x\n- {image: ko://a, imagePullPolicy: Always}\n", ["2:36"]],
    ["in several containers", "- &a\n  image: ko://a\n  imagePullPolicy: Always\n- *a\n", ["3:20"]],
    [
      "in containers and init containers of several documents",
      "kind: A\n---\nspec:\n  initContainers:\n  - image: ko://a\n    imagePullPolicy: Always\n  containers:\n  - image: ko://b\n" +
        "    imagePullPolicy: Always\n---\nimage: ko://c\nimagePullPolicy: Always\n",
      ["6:22", "9:22", "12:18"],
    ],
    ["behind thousands of dashes", `${"- ".repeat(2000)}{image: ko://a, imagePullPolicy: Always}\n`, ["1:4034"]],
    ["in JSON", '{\n "image": "ko://a",\n "imagePullPolicy": "Always"}\n', ["3:21"]],
    ["with Windows' line ends", "image: ko://a\r\nimagePullPolicy: Always\r\n", ["2:18"]],
    [
      "through anchors",
      "- {image: &i ko://a, imagePullPolicy: &p Always}\n- {image: *i, imagePullPolicy: *p}\n",
      ["1:42", "2:32"],
    ],
    ["not: another policy", "image: ko://a\nimagePullPolicy: IfNotPresent\n", []],
    ["not: no policy", "image: ko://a\n", []],
    ["not: an image that ko does not build", "image: example.com/a:v1\nimagePullPolicy: Always\n", []],
    ["not: a reference elsewhere", "args: [ko://a]\nimage: example.com/a\nimagePullPolicy: Always\n", []],
    ["not: in a comment", "image: ko://a\n# imagePullPolicy: Always\n", []],
    ["not: in a text", "text: |\n  image: ko://a\n  imagePullPolicy: Always\n", []],
    ["not: a policy that is no text", "image: ko://a\nimagePullPolicy: [Always]\n", []],
  ])("%s", async (_what, text, places) => {
    expect(await find(text)).toEqual([...places]);
  });
});

function documentsOf(text: string): ReturnType<typeof splitDocuments> {
  return splitDocuments(new TextEncoder().encode(text), "a.yaml");
}

describe("findImages()", () => {
  test("reads policy, first word of the command, and whether there are mounts", async () => {
    const text = `spec:
  containers:
  - image: ko://a
    imagePullPolicy: IfNotPresent
    command: [ "/bin/sh", -c ]
    volumeMounts: [{name: x, mountPath: /x}]
  - {command: text, image: b}
image: [x]
`;
    const [document] = documentsOf(text);
    expect(document && (await findImages(document))).toEqual([
      {
        value: "ko://a",
        line: 3,
        column: 12,
        pullPolicy: { value: "IfNotPresent", line: 4, column: 22 },
        command: { value: "/bin/sh", line: 5, column: 16 },
        hasMounts: true,
      },
      { value: "b", line: 7, column: 28, pullPolicy: undefined, command: undefined, hasMounts: false },
    ]);
  });

  test("leaves out ranges that are cut", async () => {
    const [document] = documentsOf("- image: a\n- image: b\n");
    const cut = document && { ...document, edits: [{ start: 0, end: 11, text: "" }] };
    expect(cut && (await findImages(cut)).map(({ value }) => value)).toEqual(["b"]);
  });

  test("reads a large document in a worker", async () => {
    const [document] = documentsOf(`image: ko:/a/b\npad: ${"x ".repeat(20_000)}\n`);
    expect(document && (await findSlips(document))).toEqual([
      { line: 1, column: 8, value: "ko:/a/b", meant: "ko://a/b" },
    ]);
  });
});

describe("findSlips()", () => {
  test.each<[string, readonly string[]]>([
    ["image: ko:/example.com/web\n", ["1:8 ko://example.com/web"]],
    ["image: KO://example.com/web\n", ["1:8 ko://example.com/web"]],
    ["image: ' ko://example.com/web'\n", ["1:8 ko://example.com/web"]],
    ['{"image":"Ko:example.com/web"}', ["1:10 ko://example.com/web"]],
    ["- image: |-\n    go://example.com/web\n", ["1:10 ko://example.com/web"]],
    ["image: !!str ko//web\n", ["1:14 ko://web"]],
    // Right ones, and images.
    ["image: ko://example.com/web\n", []],
    ['image: "ko://example.com/web"\n', []],
    ["image:   'ko://example.com/web'\n", []],
    ["image: ko/example.com/web\n", []],
    ["image: ko:v1\n", []],
    ["image: ko:8080/web\n", []],
    ["image: oci://example.com/web\n", []],
    ["# image: ko:/a\nother: ko:/a/b\n", []],
    ["text: |\n  image: ko:/a/b\n", []],
  ])("of %j", async (text, expected) => {
    const found = await Promise.all(documentsOf(text).map((document) => findSlips(document)));
    expect(found.flat().map(({ column, line, meant }) => `${line}:${column} ${meant}`)).toEqual([...expected]);
  });

  test("takes linear time", async () => {
    const [document] = documentsOf(
      `a: "${"image: ".repeat(30_000)}${"image:! ".repeat(30_000)}${" ".repeat(100_000)}"`,
    );
    const started = performance.now();
    expect(document && (await findSlips(document))).toEqual([]);
    expect(performance.now() - started).toBeLessThan(2000);
  });
});

describe("readSlip()", () => {
  test.each<[string, string | undefined]>([
    ["k0://a/b", "ko://a/b"],
    ["ko:///a/b", undefined],
    ["KO:///a/b", "ko://a/b"],
    ["k://a/b", "ko://a/b"],
    ["ok://a/b", "ko://a/b"],
    ["s3://a/b", undefined],
    ["ko:{{ .Values.image }}", undefined],
    ["ko:$(IMAGE)/x", undefined],
    ["ko://", undefined],
    ["KO://", undefined],
    ["ko:./cmd/web", "ko://./cmd/web"],
    ["nginx", undefined],
    ["", undefined],
  ])("of %j is %j", (value, meant) => {
    expect(readSlip(value)).toBe(meant);
  });
});
