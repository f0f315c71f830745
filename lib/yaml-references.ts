/**
 * `ko://` references in a YAML or JSON document: finding them, and writing others in their place.
 *
 * A reference is a scalar, wherever it stands (keys too), whose value without blanks around it begins with `ko://`
 * (spec/behaviour.md 1.3; tags, styles and escapes do not matter). Only that scalar's bytes change, and its style stays.
 * What is a valid reference, the caller decides; streams are `yaml.ts`'s job.
 *
 * Where is kept what earlier runs found in YAML documents: a record of the cache for each document with references.
 */
import type { CST } from "yaml";
import { type Cache, keyOf } from "./cache.ts";
import { isObject } from "./json.ts";
import {
  composeTokens,
  createLocator,
  loadYaml,
  readTokens,
  type Yaml,
  type YamlDocument,
  type YamlEdit,
  type YamlPlace,
} from "./yaml.ts";

/** A scalar that begins with `ko://`. */
export interface YamlReference extends YamlPlace {
  /** Unescaped, without blanks around it; may hold blanks, and is then no good. */
  readonly value: string;
  /** The bytes that make way for another value: UTF-16 offsets in the document's text. */
  readonly start: number;
  readonly end: number;
  /** How another value is written. */
  readonly style: "plain" | "single" | "double" | "block";
  /** What stays before and behind the value within the range; empty but for block scalars. */
  readonly before: string;
  readonly after: string;
}

/** A reference whose place is not counted out yet: `at` is the offset that is shown. Plain data. */
export type FoundReference = Omit<YamlReference, keyof YamlPlace> & { readonly at: number };

/** What earlier runs found in documents, by their text: spares the parser. */
export interface ReferenceMemory {
  recall(text: string): readonly FoundReference[] | undefined;
  remember(text: string, found: readonly FoundReference[]): void;
}

/**
 * Text without which no scalar can hold `ko://`: the five characters, each perhaps as an escape, line continuations
 * perhaps between them. https://yaml.org/spec/1.2.2/#57-escaped-characters
 */
const MAY_HOLD = new RegExp(
  ["k", "o", ":", "/", "/"]
    .map((character) => {
      const hex = character
        .charCodeAt(0)
        .toString(16)
        .replace(/[a-f]/, (digit) => `[${digit}${digit.toUpperCase()}]`);
      return `(?:\\\\?${character}|\\\\(?:x|u00|U000000)${hex})`;
    })
    .join("(?:\\\\\\r?\\n[ \\t]*)*"),
);

/** `ko://` where a scalar may begin, and not behind a `#`. */
const LOOKS_LIKE_REFERENCE = /^[^#\n]*(?:^|[\s"'[{,])ko:\/\//m;

/** White space and line ends, as YAML knows them. */
const BLANKS = " \t\r\n";

/** What stays one plain string in every context, flow collections and keys too. */
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9._@+:/-]*[A-Za-z0-9_/]$/;

/**
 * The references of a document, in order, those in cut ranges left out. Only a document that can hold one is parsed.
 *
 * @throws {KoError} If the document holds references and is no valid YAML: file, line, column and what is wrong.
 */
export async function findReferences(
  document: YamlDocument,
  memory?: ReferenceMemory,
): Promise<readonly YamlReference[]> {
  const { text } = document;
  if (!mayHoldReference(text)) return [];
  let found = findInJson(document) ?? memory?.recall(text);
  if (found === undefined) {
    found = findInYaml(document, await loadYaml());
    memory?.remember(text, found);
  }
  const locate = createLocator(document);
  return found
    .filter(({ start, end }) => !document.edits.some((edit) => edit.start <= start && end <= edit.end))
    .map(({ at, ...reference }) => ({ ...reference, ...locate(at) }));
}

/**
 * The document with other values in the references' places. Blanks around a reference vanish with it.
 *
 * @param valueOf what replaces a reference's value; undefined leaves it as it is
 */
export function replaceReferences(
  document: YamlDocument,
  references: readonly YamlReference[],
  valueOf: (value: string) => string | undefined,
): YamlDocument {
  const edits: YamlEdit[] = [];
  for (const reference of references) {
    const value = valueOf(reference.value);
    if (value === undefined) continue;
    const { start, end, before, after } = reference;
    edits.push({ start, end, text: `${before}${writeScalar(value, reference.style)}${after}` });
  }
  return edits.length === 0 ? document : { ...document, edits: [...document.edits, ...edits] };
}

/** False only if no scalar can begin with `ko://`: the test that spares most documents the parser. */
function mayHoldReference(text: string): boolean {
  return text.includes("ko://") || (text.includes("\\") && MAY_HOLD.test(text));
}

function writeScalar(value: string, style: YamlReference["style"]): string {
  if (value === "" || /[^\x21-\x7e]/.test(value)) throw new RangeError(`"${value}" is no image reference`);
  switch (style) {
    case "block":
      return value;
    case "single":
      return `'${value.replaceAll("'", "''")}'`;
    case "plain":
      // Without a slash it could be a number, a time or a boolean.
      return PLAIN.test(value) && value.includes("/") ? value : JSON.stringify(value);
    default:
      return JSON.stringify(value);
  }
}

/**
 * The references of a document that is JSON, or undefined if it is none. JSON is YAML, but has its own quick and strict
 * reader: a megabyte on one line takes the YAML parser a second.
 */
function findInJson({ text, marker }: YamlDocument): readonly FoundReference[] | undefined {
  const head = marker === undefined ? (text.startsWith("\uFEFF") ? 1 : 0) : marker + 3;
  const body = text.slice(head);
  if (!/^[ \t\r\n]*[[{"]/.test(body)) return undefined;
  try {
    JSON.parse(body);
  } catch {
    return undefined;
  }
  // Outside strings JSON has no quotes, so each quote that is not escaped begins or ends one.
  const found: FoundReference[] = [];
  for (let start = text.indexOf('"', head); start !== -1;) {
    let end = start + 1;
    for (; text.charCodeAt(end) !== 0x22; end++) if (text.charCodeAt(end) === 0x5c) end++;
    end++;
    const source = text.slice(start, end);
    if (mayHoldReference(source)) {
      const value: unknown = JSON.parse(source);
      if (typeof value === "string") pushFound(found, value, { source, start, end, style: "double" });
    }
    start = text.indexOf('"', end);
  }
  return found;
}

function findInYaml(document: YamlDocument, yaml: Yaml): readonly FoundReference[] {
  const tokens = readTokens(yaml, document);
  const found: FoundReference[] = [];
  for (const scalar of findScalars(tokens)) {
    if (scalar.type === "block-scalar") findInBlock(scalar, { yaml, found });
    else findInFlow(scalar, { yaml, found });
  }
  // A broken document that holds none is left alone: kubectl will say what it thinks of it. What looks like one may have
  // been swallowed by the fault.
  if (found.length > 0 || LOOKS_LIKE_REFERENCE.test(document.text)) composeTokens(yaml, tokens, document);
  return found;
}

/** All scalars in the order of the text; without recursion, so that no nesting is too deep. */
function* findScalars(tokens: readonly CST.Token[]): Generator<CST.FlowScalar | CST.BlockScalar> {
  const stack: (CST.Token | null | undefined)[] = [...tokens].reverse();
  while (stack.length > 0) {
    const token = stack.pop();
    switch (token?.type) {
      case "scalar":
      case "single-quoted-scalar":
      case "double-quoted-scalar":
      case "block-scalar":
        yield token;
        break;
      case "document":
        stack.push(token.value);
        break;
      case "block-map":
      case "block-seq":
      case "flow-collection":
        for (let i = token.items.length - 1; i >= 0; i--) stack.push(token.items[i]?.value, token.items[i]?.key);
        break;
      default:
    }
  }
}

interface FindOptions {
  readonly yaml: Yaml;
  readonly found: FoundReference[];
}

function findInFlow(scalar: CST.FlowScalar, { yaml, found }: FindOptions): void {
  const { source, offset: start } = scalar;
  const style = scalar.type === "scalar" ? "plain" : scalar.type === "single-quoted-scalar" ? "single" : "double";
  if (!mayHoldReference(source)) return;
  const value = yaml.CST.resolveAsScalar(scalar, false, () => {})?.value;
  if (value !== undefined) pushFound(found, value, { source, start, end: start + source.length, style });
}

interface ScalarSource {
  readonly source: string;
  readonly start: number;
  readonly end: number;
  readonly style: YamlReference["style"];
}

function pushFound(found: FoundReference[], raw: string, { source, ...range }: ScalarSource): void {
  const value = trimBlanks(raw);
  if (!value.startsWith("ko://")) return;
  const at = range.start + Math.max(0, source.indexOf("ko://"));
  found.push({ ...range, value, before: "", after: "", at });
}

/** Not `trim()`, which takes more characters; not a pattern, whose time is the square of a long run of blanks. */
function trimBlanks(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && BLANKS.includes(text.charAt(start))) start++;
  while (end > start && BLANKS.includes(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

/**
 * A `|` or `>` scalar that is a reference. Its last line end must go with it (an image name cannot end with one), so the
 * range begins at the header, which gets a `-`; blank lines and other blanks around the reference go too.
 */
function findInBlock(scalar: CST.BlockScalar, { yaml, found }: FindOptions): void {
  const { source } = scalar;
  const header = scalar.props.find(({ type }) => type === "block-scalar-header");
  const last = scalar.props.at(-1);
  if (!/^[ \t\r\n]*ko:\/\//.test(source) || header === undefined || last === undefined) return;
  if (!("source" in header) || !("source" in last)) return;
  const raw = yaml.CST.resolveAsScalar(scalar, false, () => {})?.value ?? "";
  const value = trimBlanks(raw);
  const bodyStart = last.offset + last.source.length;
  const headerEnd = header.offset + header.source.length;
  const props = scalar.props.filter(({ offset }) => offset >= headerEnd);
  const between = props.map((prop) => ("source" in prop ? prop.source : "")).join("");
  const refStart = source.indexOf("ko://");
  const range = { value, start: header.offset, end: bodyStart + source.length, at: bodyStart + refStart };
  if (/[\r\n]/.test(source.slice(refStart, refStart + value.length))) {
    // Folded from several lines, which leaves blanks in it: should it be replaced all the same, then as one string.
    found.push({ ...range, style: "double", before: "", after: between });
    return;
  }
  const lineStart = source.lastIndexOf("\n", refStart) + 1;
  // Blanks beyond the block's indentation are part of the value.
  const blanks = (/[^\n]*$/.exec(raw.slice(0, raw.indexOf("ko://")))?.[0] ?? "").length;
  const indentation = source.slice(lineStart, refStart - blanks);
  const tail = source.slice(refStart + value.length);
  const after = tail.replace(/^[ \t]+/, "").replace(/[ \t]+(?=\r?\n|$)/g, (blank) => {
    return blank.length <= indentation.length ? blank : "";
  });
  found.push({ ...range, style: "block", before: `${stripping(header.source)}${between}${indentation}`, after });
}

/** A block scalar's header with the chomping that keeps no line end: `|2` becomes `|2-`. */
function stripping(header: string): string {
  if (header.includes("-")) return header;
  return header.includes("+") ? header.replace("+", "-") : `${header}-`;
}

/** Another number for another way to find them. */
const FORMAT = 1;

/** A memory of references in `cache`. */
export function cachedReferences(cache: Cache): ReferenceMemory {
  const keyFor = (text: string): string => keyOf([FORMAT, text]);
  return {
    recall: (text) => {
      const found = cache.read("references", keyFor(text));
      return isFound(found) ? found : undefined;
    },
    remember: (text, found) => cache.write("references", keyFor(text), found),
  };
}

/** Records are ours and carry their own digest: what is looked at is only whether this version wrote them. */
function isFound(value: unknown): value is readonly FoundReference[] {
  return Array.isArray(value) && value.every((each) => isObject(each) && typeof each["value"] === "string");
}
