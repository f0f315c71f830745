import { describe, expect, test } from "bun:test";
import {
  composeTokens,
  createLocator,
  joinDocuments,
  loadYaml,
  readTokens,
  renderDocument,
  showPlace,
  splitDocuments,
} from "../lib/yaml.ts";

const encoder = new TextEncoder();

function split(text: string, file = "a.yaml"): ReturnType<typeof splitDocuments> {
  return splitDocuments(encoder.encode(text), file);
}

describe("splitDocuments()", () => {
  test("tells file, text, line and marker of each document", () => {
    expect(split("# head\n---\na: 1\n--- # two\nb: 2\n...\nc: 3", "-")).toEqual([
      { file: "<stdin>", text: "# head\n---\na: 1\n", line: 1, marker: 7, directives: false, edits: [] },
      { file: "<stdin>", text: "--- # two\nb: 2\n...\n", line: 4, marker: 0, directives: false, edits: [] },
      { file: "<stdin>", text: "c: 3", line: 7, marker: undefined, directives: false, edits: [] },
    ]);
  });

  test.each<[string, string, readonly string[]]>([
    ["nothing", "", []],
    ["blank lines", "\n  \n\t\n", []],
    ["comments only", "# a\n  # b\n", []],
    ["markers only", "---\n---\n--- # c\n...\n---", []],
    ["a byte order mark only", "\uFEFF", []],
    ["a directive without a document", "%YAML 1.2\n---\n", []],
    ["comments between markers", "a\n---\n# b\n---\nc\n", ["a\n", "---\nc\n"]],
    ["comments before the first marker", "# a\n---\nb\n", ["# a\n---\nb\n"]],
    ["comments behind the last end", "a\n...\n# b\n\n", ["a\n...\n# b\n\n"]],
    ["an end before the first document", "# a\n...\n---\nb\n", ["---\nb\n"]],
    ["comments of a file whose first document is empty", "# a\n---\n# b\n---\nc\n", ["# a\n---\nc\n"]],
    ["a directive of an empty document", "%FOO\n---\n---\na\n", ["---\na\n"]],
    ["a percent sign in a document", "a\n%FOO\n---\nb\n", ["a\n%FOO\n", "---\nb\n"]],
    ["a directive behind an end", "a\n...\n# x\n%FOO\n---\nb\n", ["a\n...\n", "# x\n%FOO\n---\nb\n"]],
    ["a node on the marker's line", "--- a\n---\tb\n", ["--- a\n", "---\tb\n"]],
    ["a tag without a value", "--- !!null\n", ["--- !!null\n"]],
    ["words that begin as markers do", "---a\n....\n ---\n--\n", ["---a\n....\n ---\n--\n"]],
    ["a marker at the end of the file", "a\n---", ["a\n"]],
    ["CRLF", "a\r\n---\r\nb\r\n...\r\nc", ["a\r\n", "---\r\nb\r\n...\r\n", "c"]],
    ["byte order marks of files that were put together", "\uFEFFa\n\uFEFF---\nb\n", ["\uFEFFa\n", "\uFEFF---\nb\n"]],
  ])("reads %s", (_name, stream, texts) => {
    expect(split(stream).map(({ text }) => text)).toEqual([...texts]);
  });

  test("knows directives only where a document has not begun", () => {
    const directives = split("%A\n---\na\n---\n%B\n...\n%C\n---\nc\n").map((document) => document.directives);
    expect(directives).toEqual([true, false, true]);
  });

  test("counts lines right behind comments that moved over an empty document", () => {
    const [document] = split("# a\n---\n# b\n\n---\nc: 1\n");
    expect(document).toMatchObject({ text: "# a\n---\nc: 1\n", line: 4, marker: 4 });
    expect(document && showPlace(document, document.text.indexOf("c"))).toBe("a.yaml:6:1");
  });

  test.each([
    ["utf-16le", [0xff, 0xfe, 0x61, 0, 0x3a, 0, 0x20, 0, 0x3d, 0xd8, 0x80, 0xde]],
    ["utf-16be", [0xfe, 0xff, 0, 0x61, 0, 0x3a, 0, 0x20, 0xd8, 0x3d, 0xde, 0x80]],
  ])("decodes %s", (_name, bytes) => {
    expect(splitDocuments(Uint8Array.from(bytes), "a").map(({ text }) => text)).toEqual(["a: 🚀"]);
  });

  test.each<[string, readonly number[], string]>([
    [
      "bytes that are not UTF-8",
      [0x61, 0x0a, 0xc3, 0xa4, 0xe9, 0x0a],
      'Cannot read "a.yaml:2" as YAML: the line is not valid UTF-8',
    ],
    [
      "an escape character",
      [0x61, 0x0a, 0x1b],
      'Cannot read "a.yaml:2" as YAML: the line has the control character U+001B',
    ],
    ["a form feed", [0x61, 0x0c], 'Cannot read "a.yaml:1" as YAML: the line has the control character U+000C'],
    ["a NUL", [0x61, 0x0a, 0x0a, 0x62, 0], 'Cannot read "a.yaml:3" as YAML: the line has a NUL byte'],
    ["invalid UTF-16", [0xff, 0xfe, 0x3d, 0xd8], 'Cannot read "a.yaml" as YAML: it is invalid UTF-16LE'],
    ["UTF-32", [0xff, 0xfe, 0, 0, 0x61, 0, 0, 0], 'Cannot read "a.yaml" as YAML: it is UTF-32'],
  ])("refuses %s", (_name, bytes, message) => {
    expect(() => splitDocuments(Uint8Array.from(bytes), "a.yaml")).toThrow(message);
  });
});

describe("joinDocuments()", () => {
  test.each<[string, readonly string[], string]>([
    ["no documents", [], ""],
    ["one document as it is", ["\uFEFF\n# a\n--- # b\nc\n...\n"], "\uFEFF\n# a\n--- # b\nc\n...\n"],
    ["a separator between files", ["a\n", "b\n"], "a\n---\nb\n"],
    ["no second separator", ["a\n", "---\nb\n"], "a\n---\nb\n"],
    ["a missing line end", ["a", "b"], "a\n---\nb"],
    ["a missing line end before CRLF", ["a", "b\r\n"], "a\r\n---\r\nb\r\n"],
    ["CRLF of the document before", ["a\r\n", "b\n"], "a\r\n---\r\nb\n"],
    ["empty files", ["a\n", "", "# c\n", "---\n", "b\n"], "a\n---\nb\n"],
    ["comments before a marker", ["a\n", "# c\n\n---\nb\n"], "a\n---\n# c\n\nb\n"],
    ["comments before a marker with a comment", ["a\n", "# c\n--- # d\nb\n"], "a\n---\n# c\n# d\nb\n"],
    ["comments before a marker with content", ["a\n", "# c\n--- !!str |\n b\n"], "a\n---\n# c\n!!str |\n b\n"],
    ["comments before a marker and CRLF", ["a\r\n", "# c\r\n--- \r\nb\r\n"], "a\r\n---\r\n# c\r\nb\r\n"],
    ["blank lines before a marker", ["a\n", "\n\n---\nb\n"], "a\n---\nb\n"],
    [
      "a byte order mark",
      ["a\n", "\uFEFFb\n", "\uFEFF# c\n---\nd\n", "\uFEFF---\ne\n"],
      "a\n---\nb\n---\n# c\nd\n---\ne\n",
    ],
    ["directives", ["a\n", "%FOO\n---\nb\n", "c\n"], "a\n...\n%FOO\n---\nb\n---\nc\n"],
    ["directives behind an end", ["a\n... # x\n\n", "%FOO\n---\nb\n"], "a\n... # x\n\n%FOO\n---\nb\n"],
    [
      "directives behind what looks like an end",
      ["a: |\n  x\n....\n", "%FOO\n---\nb\n"],
      "a: |\n  x\n....\n...\n%FOO\n---\nb\n",
    ],
    ["JSON", ['{"a":1}', '{"b":2}\n'], '{"a":1}\n---\n{"b":2}\n'],
  ])("joins %s", (_name, files, joined) => {
    expect(joinDocuments(files.flatMap((text) => split(text)))).toBe(joined);
  });
});

describe("renderDocument()", () => {
  test("makes edits in the order of their places, and none within a cut", () => {
    const [document] = split("0123456789");
    const edits = [
      { start: 8, end: 9, text: "eight" },
      { start: 3, end: 4, text: "gone" },
      { start: 2, end: 6, text: "" },
      { start: 2, end: 3, text: "gone" },
    ];
    expect(document && renderDocument({ ...document, edits })).toBe("0167eight9");
  });
});

describe("createLocator()", () => {
  test("counts characters, not bytes, and goes back if asked", () => {
    const [document] = split("\uFEFFä🚀b\r\nc\n\nd");
    if (document === undefined) throw new Error("no document");
    const locate = createLocator(document);
    const places = ["b", "c", "d", "b"].map((character) => locate(document.text.indexOf(character)));
    expect(places).toEqual([
      { line: 1, column: 3 },
      { line: 2, column: 1 },
      { line: 4, column: 1 },
      { line: 1, column: 3 },
    ]);
  });
});

describe("readTokens() and composeTokens()", () => {
  async function compose(text: string): Promise<unknown> {
    const yaml = await loadYaml();
    const [document] = split(text);
    if (document === undefined) throw new Error("no document");
    return composeTokens(yaml, readTokens(yaml, document), document)?.toJS();
  }

  test.each<[string, string, unknown]>([
    ["a duplicate key, the last one", "a: 1\na: 2\n", { a: 2 }],
    ["a merge key as a plain key", "<<: {a: 1}\n", { "<<": { a: 1 } }],
    ["an unknown tag", "a: !x 1\n", { a: "1" }],
    ["a sequence behind a byte order mark", "\uFEFF- a\n- b\n", ["a", "b"]],
  ])("accept %s", async (_name, text, value) => {
    expect(await compose(text)).toEqual(value);
  });

  test("keep every byte of the text, with errors", async () => {
    const yaml = await loadYaml();
    const text = 'a: [1,\n  # b\n "x" ]\n c';
    const [document] = split(text);
    const tokens = document === undefined ? [] : readTokens(yaml, document);
    expect(tokens.map((token) => yaml.CST.stringify(token)).join("")).toBe(text);
  });

  test.each([
    ["a: [1\n", 'Cannot read "a.yaml:2:1" as YAML: '],
    [`a: ${"[".repeat(10_000)}`, "as YAML: it is nested too deeply"],
  ])("refuse broken text", async (text, message) => {
    expect(compose(text)).rejects.toThrow(message);
  });
});
