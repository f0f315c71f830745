/** Text that people and other programs write: YAML, settings, names, templates. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parseAllDocuments } from "yaml";
import { loadConfig, parseBase } from "../../lib/config.ts";
import { encodeGoJson, parseJson } from "../../lib/json.ts";
import { formatReference, parseReference } from "../../lib/reference.ts";
import { render } from "../../lib/template.ts";
import { parseTemplate } from "../../lib/template-parse.ts";
import { findImages, readSlip } from "../../lib/yaml-images.ts";
import { filterDocuments, findObjects } from "../../lib/yaml-objects.ts";
import { findReferences, replaceReferences, type YamlReference } from "../../lib/yaml-references.ts";
import { parseSelector } from "../../lib/yaml-selector.ts";
import { findWorkloads } from "../../lib/yaml-workloads.ts";
import { joinDocuments, renderDocument, splitDocuments, type YamlDocument } from "../../lib/yaml.ts";
import { generateTemplate } from "../helpers/template-generator.ts";
import { type Check, expectSame, type Target, textOf, tryParse } from "./fuzz-target.ts";

const YAML_WORDS = [
  ..."ko://example.com/app ko:// image: - : ? | > |- >+ |2 & * &a *a !!str !t <<: {} [] { } [ ] , ' \" # --- ... % @ `".split(
    " ",
  ),
  ...["\n", "\n  ", "\n---\n", "\n...\n", "%YAML 1.2\n---\n", ' "ko://a/b"', " 'ko://a/b'", "\\", "\\\n", "\t", "\r\n"],
  ...[
    "\uFEFF",
    '"ko:\\/\\/a"',
    '"\\x6bo://a"',
    "kind: List\nitems:\n- ",
    "metadata: {labels: {app: web}}\n",
    "<<: *a\n",
  ],
];

const YAML_SEEDS = [
  "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {app: web}}\nspec:\n  template:\n    spec:\n      containers:\n      - name: web\n        image: ko://example.com/app/cmd/web # the server\n        imagePullPolicy: Always\n",
  "# head\n---\na: &x ko://example.com/a\nb: *x\n--- # second\nc: |\n  ko://example.com/b\nd: >-\n  ko://example.com/c\n...\n",
  '{"kind":"List","apiVersion":"v1","items":[{"kind":"Pod","apiVersion":"v1","metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"ko:\\/\\/example.com\\/a"}]}}]}',
  "%YAML 1.2\n---\n? ko://example.com/key\n: [ko://example.com/a, 'ko://example.com/b', \"ko://example.com/c\"]\n",
  "base: &base\n  image: ko://example.com/a\nx:\n  <<: *base\n  y: 1\nz:\n- <<: [*base, {q: 2}]\n",
  '\uFEFFa: ko://example.com/a\r\nb:\r\n- "ko://example.com/\\\r\n  b"\r\n',
];

/** Replaces the value of a reference: another one for each value. */
function imageFor(value: string): string {
  return `registry.example.com/${Bun.hash(value).toString(36)}@sha256:${"0".repeat(64)}`;
}

/** Removes blanks around a text, as Go does. */
function trim(text: string): string {
  return text.replace(/^[\s\u0085]+|[\s\u0085]+$/g, "");
}

/**
 * Whether `after` is `before` with its references replaced and nothing else changed. Blanks around strings do not count:
 * a splice drops those behind a reference.
 */
function isSpliced(before: unknown, after: unknown, references: ReadonlySet<string>): boolean {
  if (typeof before === "string") {
    if (typeof after !== "string") return false;
    const [text, other] = [trim(before), trim(after)];
    const isReference = before.startsWith("ko://") && references.has(text);
    return isReference ? other === imageFor(text) : other === text;
  }
  const [parts, others] = [partsOfValue(before), partsOfValue(after)];
  if (parts === undefined || others === undefined) return isDeepStrictEqual(before, after);
  return parts.length === others.length && parts.every((part, i) => isSpliced(part, others[i], references));
}

/** The keys and values of a map, the items of a list; undefined for a scalar. */
function partsOfValue(value: unknown): readonly unknown[] | undefined {
  if (value instanceof Map) return [...value].flat(1);
  if (value instanceof Set) return [...value];
  return Array.isArray(value) ? value : undefined;
}

/** Whether a map has two keys that differ in blanks only: the splice makes one of two such references. */
function hasTwins(value: unknown): boolean {
  if (value instanceof Map) {
    const keys = [...value.keys()].filter((key) => typeof key === "string").map(trim);
    if (new Set(keys).size < keys.length) return true;
  }
  return partsOfValue(value)?.some(hasTwins) ?? false;
}

/** Parses one document as a user of the result does; undefined if the parser refuses it. */
function parseWhole(text: string): { readonly value: unknown } | undefined {
  // A lone CR is a line break in YAML 1.2 and for Go, but a character for the yaml package:
  // https://yaml.org/spec/1.2.2/#54-line-break-characters
  const documents = parseAllDocuments(text.replaceAll(/\r\n?/g, "\n"), { uniqueKeys: true, logLevel: "silent" });
  const [document] = documents;
  if (!Array.isArray(documents) || documents.length !== 1 || document === undefined) return undefined;
  if (document.errors.length > 0) return undefined;
  try {
    return { value: document.toJS({ maxAliasCount: 100, mapAsMap: true }) };
  } catch {
    return undefined;
  }
}

/** The splice of one document changes the references and nothing else. */
function checkSplice(document: YamlDocument, references: readonly YamlReference[]): void {
  const spliced = renderDocument(replaceReferences(document, references, (value) => imageFor(trim(value))));
  const original = renderDocument(document);
  expectSame(renderDocument(replaceReferences(document, references, () => undefined)), original, "a splice of nothing");
  const before = parseWhole(original);
  if (before === undefined || hasTwins(before.value)) return;
  const after = parseWhole(spliced);
  if (after === undefined) throw new Error(`the splice is not valid YAML: ${JSON.stringify(spliced)}`);
  const values = new Set(references.map(({ value }) => trim(value)));
  if (isSpliced(before.value, after.value, values)) return;
  throw new Error(`the splice is another document: ${JSON.stringify(original)}, ${JSON.stringify(spliced)}`);
}

async function checkYaml(input: Uint8Array): Promise<void> {
  const documents = await tryParse(() => splitDocuments(input, "f.yaml"));
  if (documents === undefined) return;
  const joined = joinDocuments(documents);
  const again = splitDocuments(new TextEncoder().encode(joined), "f.yaml");
  expectSame(joinDocuments(again), joined, "the documents, joined again");
  expectSame(again.length, documents.length, "the number of documents");
  for (const document of documents) {
    const references = await tryParse(() => findReferences(document));
    // White space in a reference, and a very long one, of which the value is a part, are errors.
    const mayStand = references?.every(({ value }) => !/[\s\u0085]|…$/.test(value)) ?? false;
    if (references !== undefined && mayStand) checkSplice(document, references);
    await tryParse(() => findObjects(document));
    const images = await tryParse(() => findImages(document));
    for (const { value } of images ?? []) readSlip(value);
    await tryParse(() => findWorkloads(document));
  }
  const selector = { selector: "app=web" };
  const selected = await tryParse(() => filterDocuments(documents, selector));
  if (selected === undefined) return;
  // What was selected is selected again, to the same bytes.
  const text = joinDocuments(selected);
  const twice = await filterDocuments(splitDocuments(new TextEncoder().encode(text), "f.yaml"), selector);
  expectSame(joinDocuments(twice), text, "the selected documents, selected again");
}

async function openConfig(stack: AsyncDisposableStack): Promise<Check> {
  const folder = await mkdtemp(join(tmpdir(), "ko-fuzz-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  return async (input) => {
    await writeFile(join(folder, ".ko.yaml"), input);
    await tryParse(() => loadConfig({ env: {}, cwd: folder }));
  };
}

const DATA = {
  Env: { A: "a", VERSION: "v1.2.3", EMPTY: "", DIGITS: "42" },
  GoEnv: { GOARCH: "amd64", GOOS: "linux" },
  Git: {
    Branch: "main",
    Tag: "v1.2.3",
    ShortCommit: "0123456",
    FullCommit: "0123456789",
    CommitDate: "2024-01-01T00:00:00Z",
    CommitTimestamp: 1704067200,
    IsDirty: false,
    IsClean: true,
    TreeState: "clean",
  },
  Date: "2024-01-01T00:00:00Z",
  Timestamp: 1704067200,
} as const;

export const TEXT_TARGETS: readonly Target[] = [
  { name: "yaml", seeds: YAML_SEEDS, words: YAML_WORDS, open: () => checkYaml },
  {
    name: "yaml-selector",
    seeds: ["app=web,tier in (a, b),!x,y,z notin (q),n>5,m<7", "example.com/app==web , a!=b"],
    words: [..."= == != in notin ( ) , ! > < a example.com/a -1 9223372036854775808".split(" "), " "],
    open: () => async (input) => {
      const selector = await tryParse(() => parseSelector(textOf(input)));
      selector?.(
        new Map([
          ["app", "web"],
          ["n", "6"],
          ["x", ""],
        ]),
      );
    },
  },
  {
    name: "config",
    seeds: [
      "defaultBaseImage: ko.builtin/static\nbaseImageOverrides:\n  example.com/a: scratch\ndefaultPlatforms: [linux/amd64, linux/arm64]\nbuilds:\n- id: web\n  dir: .\n  main: ./cmd/web\n  env: [A=b]\n  flags: [-tags, netgo]\n  ldflags: ['-s -w -X main.v={{ .Env.V }}']\n  linux_capabilities: [cap_net_bind_service]\n",
      "x: &a {env: [A=b]}\nbuilds:\n- <<: *a\n  main: ./a\ndefaultEnv: [A=b]\ndefaultFlags: -v\ndefaultLdflags: -s\n---\n",
      '{"defaultBaseImage":"oci:dir:tag","builds":[]}',
    ],
    words: [
      ...YAML_WORDS,
      ..."builds: id: dir: main: env: flags: ldflags: linux_capabilities: defaultPlatforms: baseImageOverrides:".split(
        " ",
      ),
    ],
    open: openConfig,
  },
  {
    name: "base",
    seeds: ["gcr.io/distroless/static:nonroot", "oci:dir:tag", "ko.local/a:b", "ko.builtin/static", "scratch"],
    words: [..."oci: ko.local/ ko.builtin/ scratch : / @ @sha256: . .. localhost:5000/ [::1]:5000/ \\ C:".split(" ")],
    open: () => async (input) => void (await tryParse(() => parseBase(textOf(input), "/work"))),
  },
  {
    name: "reference",
    seeds: ["registry.example.com:5000/a/b-c_d:v1.2", `a/b@sha256:${"a".repeat(64)}`, "[::1]:5000/x", "alpine"],
    words: [..."/ : @ sha256: localhost docker.io library/ [::1] . - _ __ A é".split(" "), `sha256:${"0".repeat(64)}`],
    open: () => async (input) => {
      const reference = await tryParse(() => parseReference(textOf(input)));
      if (reference === undefined) return;
      const text = formatReference(reference);
      expectSame(parseReference(text), reference, `the reference ${JSON.stringify(text)}`);
    },
  },
  {
    name: "template",
    seeds: Array.from({ length: 60 }, (_, i) => generateTemplate(i + 1)),
    words: [
      ...'{{ }} {{- -}} if else end range with define .Env.A $x := = | ( ) " ` printf index eq and or not len'.split(
        " ",
      ),
      " ",
    ],
    open: () => async (input) => {
      const template = await tryParse(() => parseTemplate(textOf(input), { setting: "ldflags" }));
      if (template !== undefined) await tryParse(() => render(template, DATA));
    },
  },
  {
    name: "json",
    seeds: ['{"b":[1,2.5,-0,1e21,"é\\u2028<&>"],"a":{"c":null,"d":true}}', "[[[[[]]]]]", '"\\ud83d\\ude00"'],
    words: [...'{ } [ ] , : " null true 1e400 -0 0.1 \\u0000 \\ud800 __proto__ "a":'.split(" ")],
    open: () => (input) => {
      const value = parseJson(textOf(input));
      if (value === undefined) return;
      const bytes = encodeGoJson(value);
      expectSame(encodeGoJson(parseJson(textOf(bytes))), bytes, "the JSON, encoded again");
    },
  },
];
