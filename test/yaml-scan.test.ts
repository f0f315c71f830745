/**
 * The scan against the yaml package, and against Go's parser, which kubectl has: it must not call valid what both refuse,
 * and must find the same references as the package.
 */
import { describe, expect, test } from "bun:test";
import { messageOf } from "../lib/errors.ts";
import { findInYaml, findReferences } from "../lib/yaml-references.ts";
import { YamlScanner } from "../lib/yaml-scan.ts";
import { loadYaml, splitDocuments, type YamlDocument } from "../lib/yaml.ts";
import { askGo, base64, listOf } from "./helpers/go-fixtures.ts";
import { generateYaml } from "./helpers/yaml.ts";

const ROUNDS = process.env["CI"] ? 4000 : 1200;

const yaml = await loadYaml();

function documentsOf(text: string): readonly YamlDocument[] {
  return splitDocuments(new TextEncoder().encode(text), "a.yaml");
}

function isValid(document: YamlDocument): boolean {
  return new YamlScanner(document).run(Infinity) === "valid";
}

/** The error of the yaml package, if it has one. */
function errorOf(document: YamlDocument): string | undefined {
  try {
    findInYaml(document, yaml);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

describe("YamlScanner", () => {
  test.each([
    ["a map", "a: 1\nb:\n  c: x # y\n\n  d:\n  - e\n  -\n    f: g\nh:\n"],
    ["sequences in sequences", "- - a\n  - b: c\n    d: e\n-\n  - f\n- - - g\n"],
    ["plain text of several lines", "a: b c\n  d: e\n".replace("d: e", "'d, [e'") + "\n  f\nb: c:d e#f\n"],
    ["quotes", '\'a\': "b \\" \\u00e4 \\x41 \\\\"\n"c" : \'it\'\'s\' # d\ne: "f\n\n  g\\\n  h"\n'],
    ["block scalars", "a: |\n  x\n\n   y\n  # no comment\nb: >2+ # c\n   z\n\nc: |-\nd: >\n\n  e\n"],
    ["flow collections", 'a: {b: [c, \'d\', "e"], f: {}, "g":1, h}\ni: [\n  j, # k\n  ]\nl: []\n'],
    ["JSON", '{\n\t"a": [1, true, null, {"b": "\\ud83d\\ude00"}],\n\t"c": "\\/"\n}\n'],
    ["JSON with a long key", `{"${"k".repeat(3000)}": 1}`],
    ["anchors and aliases", "a: &x 1\nb: &y\n  c: *x\nd: *y\ne: {f: &z [], g: *z}\n<<: *y\n"],
    ["markers", "# a\n--- # b\nc: 1\n...\n# d\n"],
    ["a scalar on the line of the marker", "--- |\n a\n"],
    ["CRLF", "a:\r\n- b\r\n- |\r\n  c\r\nd: 'e\r\n  f'\r\n"],
    ["a byte order mark", "\uFEFFa: 1\n"],
    ["less indentation within quotes and braces, as Go", 'a: {b: 1,\nc: 2\n}\nd: "e\nf"\n'],
    ["a comment right behind a quote or bracket, as Go", "a: 'b'#c\nd: [e]#f\n"],
    ["ten thousand levels", `${"- ".repeat(9999)}a\n`],
  ])("knows %s", (_name, text) => {
    expect(documentsOf(text).map(isValid)).toEqual([true]);
  });

  test.each([
    ["a: b: c\n"],
    ["a: 'b' c\n"],
    ["a:\n  b: 1\n c: 2\n"],
    ["a: 1\n  b: 2\n"],
    ["- a\nb\n"],
    ["a: [b\n"],
    ["a: [b]]\n"],
    ["a: [b}\n"],
    ["a: [b,, c]\n"],
    ["a: [b c: d]\n"],
    ["a: {b: c: d}\n"],
    ["a: 'b\n"],
    ['a: "\\q"\n'],
    ['a: "b\n---\nc"\n'],
    ["a: *x\n"],
    ["a: &x [*x]\n"],
    ["a: &x\n  b: *x\n"],
    ["a: &x &y 1\n"],
    ["a:\n\tb: 1\n"],
    ["a: @b\n"],
    ["a: |x\n  b\n"],
    ["a: |\n    b\n   c\n"],
    ["a: b\n--- |\n c\n...\nd\n"],
    [`${"k".repeat(1100)}: 1\n`],
  ])("leaves %j to the yaml package", (text) => {
    expect(documentsOf(text).every(isValid)).toBe(false);
  });

  test("reads in pieces what it reads at once", () => {
    for (let seed = 0; seed < 40; seed++) {
      for (const document of documentsOf(generateYaml(seed).input)) {
        const [whole, pieces] = [new YamlScanner(document), new YamlScanner(document)];
        while (pieces.run(1) === "more") continue;
        whole.run(Infinity);
        expect([pieces.offset, pieces.scalars]).toEqual([whole.offset, whole.scalars]);
      }
    }
  });
});

const PIECES = [
  "a|b: |- |: |:|, |,|'x'|\"y\"|'|\"|[|]|{|}|&a |*a|ko://x|? |---|...|%|@|!t |<<: *a|0|''| |  |\t|# c| # c|\\n|",
].flatMap((line) => line.split("|"));
const LINES = [
  "\n",
  "\n  ",
  "\n    ",
  "\n ",
  "|\n",
  ">-\n",
  "|2\n",
  "|+\n",
  "x: 1\n",
  "y:\n",
  "- z\n",
  "\r\n",
  "k: |\n  t\n",
];

/** Random fragments of YAML, and generated YAML with some random changes. */
function damage(seed: number): string {
  let state = (seed * 2654435761) >>> 0;
  const below = (n: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const fragments = [...PIECES, ...LINES];
  const fragment = (): string => fragments[below(fragments.length)] ?? "";
  if (seed % 2 === 0) return Array.from({ length: 1 + below(14) }, fragment).join("");
  let text = generateYaml(below(100_000)).input.slice(0, 2000);
  for (let i = below(4); i >= 0; i--) {
    const at = below(text.length + 1);
    text = text.slice(0, at) + (below(3) > 0 ? fragment() : "") + text.slice(at + below(3));
  }
  return text;
}

describe("random YAML", () => {
  test("is valid for the yaml package or for Go where the scan says so, with the same references", async () => {
    const doubtful: string[] = [];
    let valid = 0;
    for (let seed = 0; seed < ROUNDS; seed++) {
      for (const document of documentsOf(damage(seed).replace(/[\0-\x08\x0b\x0c\x0e-\x1f]/g, ""))) {
        if (!isValid(document)) continue;
        valid++;
        if (errorOf(document) !== undefined) {
          doubtful.push(document.text);
          continue;
        }
        const exact = findInYaml(document, yaml);
        const scanned = await findReferences(document);
        expect({ text: document.text, found: scanned.map(({ line: _l, column: _c, ...rest }) => rest) }).toEqual({
          text: document.text,
          found: exact.map(({ at: _at, ...rest }) => rest),
        });
      }
    }
    expect(valid).toBeGreaterThan(ROUNDS / 3);
    const answer = await askGo("gokube", { streams: doubtful.map((text) => base64(text)) });
    if (answer === undefined) return;
    const refused = listOf(answer, "documents").flatMap((found, i) => (found === null ? [doubtful[i]] : []));
    // Go does not know `\/`.
    expect(refused.filter((text) => !text?.includes("\\/"))).toEqual([]);
  });
});
