import { describe, expect, test } from "bun:test";
import { isScalar, LineCounter, parseDocument, type Scalar, visit } from "yaml";
import { markScalar } from "../lib/config-marks.ts";

/** Where each `@` and `{{` of the first value under `v` stands: by its marks, as `line:column`. */
function places(text: string): { readonly value: string; readonly found: readonly string[] } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  expect(document.errors).toEqual([]);
  let scalar: Scalar<string> | undefined;
  visit(document, {
    Scalar: (key, node) => {
      if (key === "key" || scalar !== undefined || !isScalar<string>(node)) return;
      scalar = node;
    },
  });
  if (scalar === undefined) throw new Error("there is no value");
  const { value } = scalar;
  const marks = markScalar(scalar, { text, lines });
  const found = Array.from(value.matchAll(/\{\{|@/g), ({ index }) => {
    const [from, line, column] = marks.findLast(([start]) => start <= index) ?? [0, 0, 0];
    return `${line}:${column + index - from}`;
  });
  return { value, found };
}

/** Where they stand in the text of the file. */
function expected(text: string): readonly string[] {
  return text.split("\n").flatMap((line, i) => {
    return Array.from(line.replaceAll("\\u0040", "@     ").matchAll(/\{\{|@/g), ({ index }) => `${i + 1}:${index + 1}`);
  });
}

describe("markScalar()", () => {
  test.each<[string, string]>([
    ["plain", "v: -s -w @ -X a={{.Env.A}}\n"],
    ["plain on several lines", "v: -s @\n  -w {{.A}}\n\n    @ x\n"],
    ["plain in a list", "v:\n  - -s\n  - x\n"],
    ["single quotes", "v: '-X ''a @''={{.Env.A}}'\n"],
    ["single quotes on several lines", "v: ' @ it''s {{\n   {{x}}\n\n   @'\n"],
    ["double quotes", 'v: "-X \\"a@\\"={{.A}}\\t\\\\ @"\n'],
    ["escapes", 'v: "\\x41\\u00e9\\U0001F600@\\n\\/{{.A}}\\e\\0\\N\\_\\L\\P @ \\u0040 @"\n'],
    ["surrogates in JSON", '{"v": "\\uD83D\\uDE00@ 😀{{.A}}"}\n'],
    ["double quotes on several lines", 'v: "a @ \\\n   \\ {{x}}\n\n   @\\n\n   {{"\n'],
    ["a literal block", "v: |\n  -s @\n    {{.A}} @\n\n  {{\n"],
    ["a literal block with more", "v: |2- # comment\n    @ {{\n  @\n"],
    ["a folded block", "v: >-\n  -s @\n  {{.A}} @\n\n  more {{\n    @ kept\n"],
    ["an anchor", "v: &x !!str '@ {{'\n"],
    ["an anchor before a block", "v: &x |\n  @ {{\n"],
    ["CRLF", "v: |\r\n  @\r\n  {{x @\r\n"],
    ["flow", 'v: ["{{.A}} @", b]\n'],
  ])("%s", (_name, text) => {
    expect(places(text).found).toEqual([...expected(text)]);
  });

  test("makes one mark for a text on one line, none for an empty one", () => {
    const lines = new LineCounter();
    const text = "a: -s -w\nb: ''\n";
    const document = parseDocument(text, { lineCounter: lines });
    const marks = ["a", "b"].map((key) => {
      const node = document.get(key, true);
      if (!isScalar<string>(node)) throw new Error("it is not a scalar");
      return markScalar(node, { text, lines });
    });
    expect(marks).toEqual([[[0, 1, 4]], []]);
  });
});
