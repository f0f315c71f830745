import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import type { Cache, Records } from "../lib/cache.ts";
import { messageOf } from "../lib/errors.ts";
import { joinDocuments, renderDocument, splitDocuments, type YamlDocument } from "../lib/yaml.ts";
import { findReferences, replaceReferences, type YamlReference } from "../lib/yaml-references.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { askGo, base64, listOf } from "./helpers/go-fixtures.ts";
import { makeCacheBox } from "./helpers/world-cache.ts";
import { generateYaml, resolved } from "./helpers/yaml.ts";

const CORPUS = join(import.meta.dir, "fixtures", "yaml");
const APP = "ko://example.com/app";
const IMAGE = "reg.test/app@sha256:0123456789abcdef";

const corpus = readdirSync(CORPUS)
  .filter((name) => name.endsWith(".in"))
  .sort()
  .map((name) => {
    const input = readFileSync(join(CORPUS, name));
    const output = readFileSync(join(CORPUS, name.replace(/in$/, "out")), "utf8");
    return { name: name.replace(/\.in$/, ""), input, output };
  });
const generated = Array.from({ length: 400 }, (_, seed) => ({ seed, ...generateYaml(seed, { forGo: seed < 150 }) }));

function resolveApp(value: string): string | undefined {
  return value === APP ? IMAGE : undefined;
}

async function resolve(bytes: Uint8Array, valueOf: (value: string) => string | undefined): Promise<string> {
  const documents: YamlDocument[] = [];
  for (const document of splitDocuments(bytes, "in.yaml")) {
    documents.push(replaceReferences(document, await findReferences(document), valueOf));
  }
  return joinDocuments(documents);
}

/** The only document of a text. */
function documentOf(text: string): YamlDocument {
  const [document, ...more] = splitDocuments(new TextEncoder().encode(text), "a.yaml");
  if (document === undefined || more.length > 0) throw new Error("not one document");
  return document;
}

/** The references of a text's only document, as `line:column value`. */
async function placesOf(text: string): Promise<readonly string[]> {
  const references = await findReferences(documentOf(text));
  return references.map(({ line, column, value }) => `${line}:${column} ${value}`);
}

/** A parsed value with its references replaced, however deep, keys too. */
function replaceIn(value: unknown, valueOf: (value: string) => string | undefined): unknown {
  if (typeof value === "string") return valueOf(value.replace(/[\s\u0085]+$/, "")) ?? value;
  if (Array.isArray(value)) return value.map((item) => replaceIn(item, valueOf));
  if (value instanceof Map) {
    return new Map([...value].map(([key, item]) => [replaceIn(key, valueOf), replaceIn(item, valueOf)]));
  }
  return value;
}

/** What the yaml package reads, maps as Map so that their order counts. */
function parse(text: string): readonly unknown[] {
  const documents = parseAllDocuments(text.replace(/^\uFEFF/, ""), { uniqueKeys: false });
  if (!Array.isArray(documents)) return [];
  return documents.map((document) => {
    if (document.errors.length > 0) throw new Error(`not YAML: ${String(document.errors[0])}\n${text}`);
    return document.toJS({ mapAsMap: true });
  });
}

describe("the corpus of nasty files", () => {
  test("has at least sixty", () => {
    expect(corpus.length).toBeGreaterThanOrEqual(60);
  });

  test.each(corpus)("$name comes out with the expected bytes", async ({ input, output }) => {
    expect(await resolve(input, resolveApp)).toBe(output);
  });
});

describe("generated YAML", () => {
  test("has references of all kinds", () => {
    const count = generated.reduce((sum, { references }) => sum + references, 0);
    expect(count).toBeGreaterThan(2000);
  });

  test("differs from the input in the references only", async () => {
    for (const { seed, input, output } of generated) {
      const got = await resolve(new TextEncoder().encode(input), resolved);
      expect(`seed ${seed}\n${got}`).toBe(`seed ${seed}\n${output}`);
    }
  });

  test("parses to the input with its references replaced", async () => {
    const isReference = (value: string): string | undefined =>
      /^ko:\/\/\S*$/.test(value) ? resolved(value) : undefined;
    const parsed: unknown = generated.map(({ output }) => parse(output));
    expect(parsed).toEqual(generated.map(({ input }) => replaceIn(parse(input), isReference)));
  });
});

// go.yaml.in/yaml/v4 is the parser of the original. It refuses some YAML 1.2; what it refuses going in is listed here.
const REFUSED_BY_GO = new Set<string>([
  "documents-bare-after-end.yaml",
  "documents-crlf.yaml",
  "documents-directive-second.yaml",
  "object.json",
  "quoted-escapes.yaml",
  "unknown-directive.yaml",
  "yaml-directive-comment.yaml",
  "yaml-directive.yaml",
]);
const forGo = [
  ...corpus.map((file) => ({ ...file, valueOf: resolveApp })),
  ...generated.slice(0, 150).map(({ seed, input, output }) => ({
    name: `seed ${seed}`,
    input: Buffer.from(input),
    output,
    valueOf: (value: string): string | undefined => (/^ko:\/\/\S*$/.test(value) ? resolved(value) : undefined),
  })),
];
const answer = await askGo("gokube", {
  streams: forGo.flatMap(({ input, output }) => [base64(input), base64(output)]),
});

describe("the original's YAML parser", () => {
  test.skipIf(answer === undefined)("reads what comes out as what went in with references replaced", () => {
    const documents = listOf(answer, "documents");
    const refused: string[] = [];
    for (const [i, { name, valueOf }] of forGo.entries()) {
      const [input, output] = [documents[2 * i], documents[2 * i + 1]];
      if (Array.isArray(input)) {
        // Empty documents vanish.
        const left = input.filter((document) => !Bun.deepEquals(document, ["1", ""]));
        expect({ name, output }).toEqual({ name, output: replaceIn(left, valueOf) });
      } else refused.push(name);
    }
    expect(refused).toEqual([...REFUSED_BY_GO]);
  });
});

describe("findReferences()", () => {
  test.each<[string, string, readonly string[]]>([
    ["places in a map", `a: ${APP}\n  \n${APP}:  '${APP}'\n`, [`1:4 ${APP}`, `3:1 ${APP}`, `3:25 ${APP}`]],
    ["columns behind wide characters", `"🚀é": [😀, ${APP}]\n`, [`1:11 ${APP}`]],
    ["a column behind a byte order mark", `\uFEFF${APP}: 1\n`, [`1:1 ${APP}`]],
    ["a column behind a marker", `--- ${APP}\n`, [`1:5 ${APP}`]],
    ["the line of a block scalar's text", `a: |\n    ${APP}\n\n`, [`2:5 ${APP}`]],
    ["nothing behind blanks", `a: " ${APP}"\nb: |\n\n  ${APP}\nc: |2\n   ${APP}\nd: '\n  ${APP}'\n`, []],
    [
      "blanks of all kinds behind it",
      `a: "${APP}\u00a0\\t"\nb: ${APP}\u3000\u0085\nc: |\n  ${APP}\u2003\n`,
      [`1:5 ${APP}`, `2:4 ${APP}`, `4:3 ${APP}`],
    ],
    ["what is invisible, but no blank", `a: ${APP}\u200b\n`, [`1:4 ${APP}\u200b`]],
    ["lines of quotes and braces that Go reads", `a: {b: '${APP}',\nc: "x\ny"\n}\n`, [`1:9 ${APP}`]],
    ["aliases of an anchor", `a: &x {b: 1}\nc: *x\nd: {<<: *x, image: ${APP}}\n`, [`3:20 ${APP}`]],
    ["the quote of an escaped reference", 'a: "ko:\\x2f/b"\n', ["1:4 ko://b"]],
    ["JSON", `{\r\n "a": "${APP}", "${APP}": "\\u006bo://b"\r\n}`, [`2:8 ${APP}`, `2:32 ${APP}`, "2:55 ko://b"]],
    ["a slash at the end", "a: ko://b/\n", ["1:4 ko://b/"]],
    ["nothing but the scheme", "a: ko://\n", ["1:4 ko://"]],
    ["blanks inside", "a: ko://b c\nd: 'ko://b\n  c'\n", ["1:4 ko://b c", "2:5 ko://b c"]],
    ["a plain scalar of two lines", "a: ko://b\n  c\n", ["1:4 ko://b c"]],
    ["a folded scalar of two lines", "a: >\n  ko://b\n  c\n", ["2:3 ko://b c"]],
    ["a literal scalar of two lines", "a: |\n  ko://b\n  c\n", ["2:3 ko://b\nc"]],
    ["a reference per document", `a: 1\n`, []],
    ["text that only holds one", `a: x ${APP}\n# ${APP}\nb: --i=${APP}\n`, []],
  ])("finds %s", async (_name, text, places) => {
    expect(await placesOf(text)).toEqual([...places]);
  });

  test.each<[string, string, string]>([
    ["an unclosed quote", `a: ${APP}\nb: "x\nc: 1\n`, '"a.yaml:4:1" as YAML: Missing closing "quote'],
    ["a reference that the fault swallowed", `a: "x\nb: ${APP}\n`, '"a.yaml:3:1" as YAML: Missing closing "quote'],
    ["a reserved character", `a: ${APP}\nb: @x\n`, '"a.yaml:2:4" as YAML: Plain value cannot start'],
    ["broken YAML without references", "a: 1\nb: [c\n", '"a.yaml:3:1" as YAML: Flow sequence'],
    ["a broken line with a comment", `a: b: c # ${APP}\n`, '"a.yaml:1:4" as YAML: Nested mappings'],
    [
      "wrong indentation",
      "a:\n  b: 1\n c: 2\n",
      '"a.yaml:3:1" as YAML: All mapping items must start at the same column',
    ],
    ["an unclosed quote alone", 'a: "open\n', '"a.yaml:2:1" as YAML: Missing closing "quote'],
    ["half a template", "kind: {{ .Values.kind }\n", '"a.yaml:2:1" as YAML: Flow map'],
    ["two roots", "- a\nb: 1\n", '"a.yaml:2:1" as YAML: '],
    ["two roots of quotes", '"a"\n"b"\n', '"a.yaml:2:1" as YAML: '],
    ["an alias without anchor", "a: *nowhere\n", '"a.yaml:1:4" as YAML: the alias *nowhere has no anchor &nowhere'],
    [
      "an alias before its anchor",
      "a: [*x]\nb: &x 1\n",
      '"a.yaml:1:5" as YAML: the alias *x has no anchor &x that ends before it',
    ],
    [
      "an alias within its anchor",
      "a: &x\n  b: [*x]\n",
      '"a.yaml:2:7" as YAML: the alias *x has no anchor &x that ends before it',
    ],
    ["an alias with a tag beside it", "a: !t &x 1\nb: *y\n", '"a.yaml:2:4" as YAML: the alias *y'],
    ["a truncated escape", 'a: "\\u00g1"\n', '"a.yaml:1:5" as YAML: Invalid escape'],
    ["nested pairs", `a: b: ${APP}\n`, '"a.yaml:1:4" as YAML: Nested mappings'],
    ["tabs as indentation", `a:\n\tb: ${APP}\n`, '"a.yaml:2:1" as YAML: Tabs are not allowed'],
    ["a block in a flow", `[ |\n  ${APP}\n]\n`, '"a.yaml:1:3" as YAML: '],
    ["an escape that is none", `a: "${APP}\\q"\n`, '"a.yaml:1:25" as YAML: Invalid escape'],
    ["a tag without its directive", `a: !e!x ${APP}\n`, '"a.yaml:1:4" as YAML: Could not resolve tag'],
    ["eleven thousand flow levels", `${"[".repeat(11_000)}${APP}${"]".repeat(11_000)}`, "it is nested too deeply"],
    ["eleven thousand block levels", `${"- ".repeat(11_000)}${APP}`, "as YAML: it is nested too deeply"],
    ["a hundred thousand open brackets", "[".repeat(100_000), "as YAML: it is nested too deeply"],
    [
      "two hundred thousand braces in pairs",
      `${"{a: ".repeat(200_000)}${"}".repeat(200_000)}`,
      "it is nested too deeply",
    ],
  ])("refuses %s", async (_name, text, message) => {
    expect(messageOf(await rejectionOf(findReferences(documentOf(text))))).toContain(message);
  });

  test("reads JSON that is nested ten thousand levels deep", async () => {
    expect(await placesOf(`${"[".repeat(10_000)}"${APP}"${"]".repeat(10_000)}`)).toEqual([`1:10002 ${APP}`]);
  });

  test("reads a megabyte of JSON on one line", async () => {
    const items = Array.from({ length: 12_000 }, (_, i) => ({
      name: `n${i}`,
      text: "a\\b",
      image: `ko://example.com/${i}`,
    }));
    const text = JSON.stringify({ items });
    expect(text.length).toBeGreaterThan(700_000);
    const references = await findReferences(documentOf(text));
    expect(references.map(({ value }) => value)).toEqual(items.map(({ image }) => image));
    expect(references.every(({ line, column }) => line === 1 && text.startsWith("ko://", column - 1))).toBe(true);
  });

  test("leaves out what is cut", async () => {
    const document = documentOf(`a: ${APP}\nb: ${APP}\n`);
    const cut = { ...document, edits: [{ start: 0, end: document.text.indexOf("b"), text: "" }] };
    expect(await findReferences(cut)).toMatchObject([{ line: 2, column: 4 }]);
  });
});

describe("replaceReferences()", () => {
  async function replace(text: string, value: string | undefined): Promise<string> {
    const document = documentOf(text);
    return renderDocument(replaceReferences(document, await findReferences(document), () => value));
  }

  test("leaves a document alone if there is nothing to put in", async () => {
    const document = documentOf(`a: ${APP}\n`);
    expect(replaceReferences(document, await findReferences(document), () => undefined)).toBe(document);
  });

  test.each([
    ["reg.test:5000/a/b@sha256:0123", "reg.test:5000/a/b@sha256:0123"],
    ["ko.local/example.com/app:tag", "ko.local/example.com/app:tag"],
    ["@x/y", '"@x/y"'],
    ["a/b:", '"a/b:"'],
    ["a/b,c", '"a/b,c"'],
    ["123", '"123"'],
    ["true", '"true"'],
    ["a/#b", '"a/#b"'],
  ])("writes %s so that it stays one plain string", async (value, written) => {
    expect(await replace(`{a: ${APP}}`, value)).toBe(`{a: ${written}}`);
  });

  test("keeps quotes", async () => {
    expect(await replace(`['${APP}', "${APP}"]`, `a/b'"\\`)).toBe(`['a/b''"\\', "a/b'\\"\\\\"]`);
  });

  test("puts one string in the place of a folded one", async () => {
    expect(await replace("a: >+ # c\n  ko://b\n  c\n\nd: 1\n", "x/y")).toBe('a: "x/y" # c\nd: 1\n');
  });

  test.each(["", "a b", "a\nb", "ä"])("refuses %j, which is no image reference", (value) => {
    expect(replace(`a: ${APP}`, value)).rejects.toThrow(RangeError);
  });
});

describe("findReferences() with records", () => {
  // The tag is for the yaml package.
  const TEXT = "a: !!str ko://example.com/a # é\nb:\n  - 'ko://example.com/b'\n  - >-\n    ko://example.com/c\n";

  async function find(text: string, records?: Records): Promise<readonly YamlReference[]> {
    const documents = splitDocuments(new TextEncoder().encode(text), "in.yaml");
    return (await Promise.all(documents.map((document) => findReferences(document, { records })))).flat();
  }

  /** The records of a cache, with a note of each hit and miss. */
  function noting(cache: Cache): Records & { readonly hits: boolean[] } {
    const hits: boolean[] = [];
    return {
      hits,
      read: (kind, key) => {
        const found = cache.read(kind, key);
        hits.push(found !== undefined);
        return found;
      },
      write: (kind, key, value) => cache.write(kind, key, value),
      remove: (kind, key) => cache.remove(kind, key),
    };
  }

  test("finds in a later run what the parser found, also further down in another stream", async () => {
    using box = makeCacheBox();
    const want = await find(TEXT);
    expect(want.map(({ value, line, column }) => [value, line, column])).toEqual([
      ["ko://example.com/a", 1, 10],
      ["ko://example.com/b", 3, 6],
      ["ko://example.com/c", 5, 5],
    ]);
    await using cache = box.open();
    expect(await find(TEXT, cache)).toEqual(want);
    await using later = box.open();
    const records = noting(later);
    expect(await find(TEXT, records)).toEqual(want);
    expect(await find(`x: 1\n---\n${TEXT}`, records)).toEqual(await find(`x: 1\n---\n${TEXT}`));
    expect(records.hits[0]).toBe(true);
  });

  test("misses for another text, and for a damaged record", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    await find(TEXT, cache);
    const records = noting(cache);
    expect((await find(TEXT.replace("/a #", "/z #"), records))[0]?.value).toBe("ko://example.com/z");
    const folder = join(cache.folder, "records");
    for (const name of readdirSync(folder)) writeFileSync(join(folder, name), "damaged");
    expect(await find(TEXT, records)).toEqual(await find(TEXT));
    expect(records.hits).toEqual([false, false]);
  });

  test("writes no record for a document that is not YAML", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const records = noting(cache);
    for (let i = 0; i < 2; i++) {
      expect(messageOf(await rejectionOf(find("a: [ko://example.com/a\n", records)))).toContain(`"in.yaml:2:1"`);
    }
    expect(records.hits).toEqual([false, false]);
  });
});
