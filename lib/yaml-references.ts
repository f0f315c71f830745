/**
 * Finds `ko://` references in a YAML or JSON document and replaces them.
 *
 * A reference is any scalar, also a key, whose value begins with `ko://` after leading blanks, in every style and with
 * every tag. Only the bytes of these scalars change; whether a reference is valid, the caller checks.
 */
import type { CST } from "yaml";
import { keyOf, type Records } from "./cache.ts";
import { isObject, parseJson } from "./json.ts";
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
  /** The unescaped value without blanks around it. A value with blanks inside is not valid. */
  readonly value: string;
  /** The range to replace: UTF-16 offsets in the document's text. */
  readonly start: number;
  readonly end: number;
  /** The style of the replacement. */
  readonly style: "plain" | "single" | "double" | "block";
  /** Text of the range to keep before and behind the value; empty except for block scalars. */
  readonly before: string;
  readonly after: string;
}

/** A reference by offset, without line and column; stored in the cache as JSON. */
type FoundReference = Omit<YamlReference, keyof YamlPlace> & { readonly at: number };

/** The version of the cached records: raise it when references are found in another way. */
const RECORD_VERSION = 1;

/**
 * Matches `ko://` in a double-quoted scalar: each character can be escaped, and line continuations can stand between
 * them. https://yaml.org/spec/1.2.2/#57-escaped-characters
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

/** Matches `ko://` where a scalar can begin, but not behind a `#`. */
const LOOKS_LIKE_REFERENCE = /^[^#\n]*(?:^|[\s"'[{,])ko:\/\//m;

/** White space and line ends of YAML. */
const BLANKS = " \t\r\n";

/** Matches text that is one plain string in every context, also in flow collections and as a key. */
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9._@+:/-]*[A-Za-z0-9_/]$/;

/**
 * Finds the references of a document, in order, except those within edits.
 *
 * Only documents that can hold a reference are parsed.
 *
 * @param records a cache of the references of parsed documents, by their text
 * @throws {KoError} If the document holds references and is not valid YAML; the message names file, line and column.
 */
export async function findReferences(document: YamlDocument, records?: Records): Promise<readonly YamlReference[]> {
  if (!mayHoldReference(document.text)) return [];
  const found = findInJson(document) ?? (await findInCachedYaml(document, records));
  const locate = createLocator(document);
  return found
    .filter(({ start, end }) => !document.edits.some((edit) => edit.start <= start && end <= edit.end))
    .map(({ at, ...reference }) => ({ ...reference, ...locate(at) }));
}

/**
 * Replaces references of a document, each with the blanks around it.
 *
 * @param valueOf returns the replacement of a reference's value; undefined keeps the reference
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

/** Reports whether a scalar of the text can begin with `ko://`. False saves the parser for most documents. */
function mayHoldReference(text: string): boolean {
  return text.includes("ko://") || (text.includes("\\") && MAY_HOLD.test(text));
}

function writeScalar(value: string, style: YamlReference["style"]): string {
  if (value === "" || /[^\x21-\x7e]/.test(value)) throw new RangeError(`"${value}" is not an image reference`);
  switch (style) {
    case "block":
      return value;
    case "single":
      return `'${value.replaceAll("'", "''")}'`;
    case "plain":
      // Without a slash, the text can be a number, a time or a boolean.
      return PLAIN.test(value) && value.includes("/") ? value : JSON.stringify(value);
    default:
      return JSON.stringify(value);
  }
}

/**
 * Finds the references of a JSON document; returns undefined if the document is not JSON.
 *
 * The YAML parser reads JSON too, but needs a second for a megabyte on one line.
 */
function findInJson({ text, marker }: YamlDocument): readonly FoundReference[] | undefined {
  const head = marker === undefined ? (text.startsWith("\uFEFF") ? 1 : 0) : marker + 3;
  const body = text.slice(head);
  if (!/^[ \t\r\n]*[[{"]/.test(body)) return undefined;
  if (parseJson(body) === undefined) return undefined;
  // JSON has quotes only around strings, so each unescaped quote begins or ends one.
  const found: FoundReference[] = [];
  for (let start = text.indexOf('"', head); start !== -1;) {
    let end = start + 1;
    for (; text.charCodeAt(end) !== 0x22; end++) if (text.charCodeAt(end) === 0x5c) end++;
    end++;
    const source = text.slice(start, end);
    if (mayHoldReference(source)) {
      const value = parseJson(source);
      if (typeof value === "string") pushFound(found, value, { source, start, end, style: "double" });
    }
    start = text.indexOf('"', end);
  }
  return found;
}

async function findInCachedYaml(
  document: YamlDocument,
  records: Records | undefined,
): Promise<readonly FoundReference[]> {
  if (records === undefined) return findInYaml(document, await loadYaml());
  const key = keyOf([RECORD_VERSION, document.text]);
  const known = records.read("references", key);
  if (isFound(known)) return known;
  const found = findInYaml(document, await loadYaml());
  records.write("references", key, found);
  return found;
}

/** Reports whether a record has the expected shape. The cache has verified its content. */
function isFound(value: unknown): value is readonly FoundReference[] {
  return Array.isArray(value) && value.every((each) => isObject(each) && typeof each["value"] === "string");
}

function findInYaml(document: YamlDocument, yaml: Yaml): readonly FoundReference[] {
  const tokens = readTokens(yaml, document);
  const found: FoundReference[] = [];
  for (const scalar of findScalars(tokens)) {
    if (scalar.type === "block-scalar") findInBlock(scalar, { yaml, found });
    else findInFlow(scalar, { yaml, found });
  }
  // An invalid document without references is passed on: kubectl reports its errors. But the error may have hidden a
  // reference from the parser.
  if (found.length > 0 || LOOKS_LIKE_REFERENCE.test(document.text)) composeTokens(yaml, tokens, document);
  return found;
}

/** Yields all scalars in the order of the text, without recursion: nesting can be deep. */
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

/** Removes blanks around a text. `trim()` removes more characters; a pattern takes quadratic time for many blanks. */
function trimBlanks(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && BLANKS.includes(text.charAt(start))) start++;
  while (end > start && BLANKS.includes(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

/**
 * Finds a reference in a `|` or `>` scalar.
 *
 * The replacement must not end in a line end, so the range begins at the header, which gets a `-`. Blanks and blank lines
 * around the reference are removed.
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
    // Folded from several lines, so the value has blanks inside and is not valid. A replacement is written as one string.
    found.push({ ...range, style: "double", before: "", after: between });
    return;
  }
  const lineStart = source.lastIndexOf("\n", refStart) + 1;
  // Blanks behind the block's indentation are part of the value.
  const blanks = (/[^\n]*$/.exec(raw.slice(0, raw.indexOf("ko://")))?.[0] ?? "").length;
  const indentation = source.slice(lineStart, refStart - blanks);
  const tail = source.slice(refStart + value.length);
  const after = tail.replace(/^[ \t]+/, "").replace(/[ \t]+(?=\r?\n|$)/g, (blank) => {
    return blank.length <= indentation.length ? blank : "";
  });
  found.push({ ...range, style: "block", before: `${stripping(header.source)}${between}${indentation}`, after });
}

/** Returns the header of a block scalar with the chomping indicator that strips line ends: `|2` becomes `|2-`. */
function stripping(header: string): string {
  if (header.includes("-")) return header;
  return header.includes("+") ? header.replace("+", "-") : `${header}-`;
}
