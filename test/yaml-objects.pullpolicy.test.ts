import { describe, expect, test } from "bun:test";
import { findAlwaysPulled } from "../lib/yaml-objects.ts";
import { splitDocuments } from "../lib/yaml.ts";

/** `line:column` of what is found in all documents of a text. */
async function find(text: string): Promise<readonly string[]> {
  const places: string[] = [];
  for (const document of splitDocuments(new TextEncoder().encode(text), "a.yaml")) {
    for (const { line, column } of await findAlwaysPulled(document)) places.push(`${line}:${column}`);
  }
  return places;
}

describe("findAlwaysPulled()", () => {
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
