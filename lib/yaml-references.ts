/**
 * Finds `ko://` references in a YAML or JSON document and replaces them.
 *
 * A reference is any scalar, also a key, whose value begins with `ko://`, in every style and with every tag. Only the bytes
 * of these scalars change; whether a reference is valid, the caller checks.
 */
import type { CST } from "yaml";
import { Pace } from "./async.ts";
import { keyOf, type Records } from "./cache.ts";
import { isObject } from "./json.ts";
import { runExact } from "./yaml-exact.ts";
import { mayBeReference, type ScannedBlock } from "./yaml-scan-text.ts";
import { type ScannedScalar, YamlScanner } from "./yaml-scan.ts";
import {
  composeTokens,
  nestedTooDeeply,
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
  /** The unescaped value without the blanks behind it. A value with blanks inside is not valid. */
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
const RECORD_VERSION = 2;

/** White space of Go's `unicode.IsSpace`, which the original trims. */
const BLANK = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** The same without line ends, at the start of a text. */
const LEADING_BLANKS = /^[\t\v\f \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;

/** Characters that are scanned between two looks at the clock. */
const SLICE = 256 * 1024;
/** Characters of a scalar whose value is read. */
const MAX_SCALAR = 16 * 1024;

/** Matches text that is one plain string in every context, also in flow collections and as a key. */
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9._@+:/-]*[A-Za-z0-9_/]$/;

export interface FindReferencesOptions {
  /** A cache of the references of documents that the yaml package has read, by their text. */
  readonly records?: Records | undefined;
  readonly signal?: AbortSignal | undefined;
  /** The pace of the loop over documents. */
  readonly pace?: Pace;
}

/**
 * Finds the references of a document, in order, except those within edits.
 *
 * @throws {KoError} If the document is not valid YAML; the message names file, line and column.
 */
export async function findReferences(
  document: YamlDocument,
  options: FindReferencesOptions = {},
): Promise<readonly YamlReference[]> {
  const { signal, pace = new Pace(signal) } = options;
  const scanner = new YamlScanner(document);
  let result = scanner.run(SLICE);
  for (; result === "more"; result = scanner.run(SLICE)) if (pace.isDue) await pace.turn();
  const { offset, scalars } = scanner;
  if (scanner.isTooDeep) throw nestedTooDeeply(document, offset);
  const found =
    result === "valid" ? await readScalars(document, scalars) : await findExactly(document, { ...options, offset });
  const locate = createLocator(document);
  return found
    .filter(({ start, end }) => !document.edits.some((edit) => edit.start <= start && end <= edit.end))
    .map(({ at, ...reference }) => ({ ...reference, ...locate(at) }));
}

/**
 * Replaces references of a document, each with the blanks behind it.
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

async function readScalars(
  document: YamlDocument,
  scalars: readonly ScannedScalar[],
): Promise<readonly FoundReference[]> {
  const { text } = document;
  const found: FoundReference[] = [];
  // Most values are what is written, and the yaml package takes 20 ms to load.
  const isOdd = scalars.some(({ style, start, end }) => style === "block" || /[\\\n]/.test(text.slice(start, end)));
  const yaml = isOdd ? await loadYaml() : undefined;
  for (const scalar of scalars) {
    if (scalar.style !== "block") findInFlow(text, { ...scalar, yaml, found });
    else if (yaml !== undefined) findInBlock(text, { ...scalar, value: valueOfBlock(text, { yaml, scalar }), found });
  }
  return found;
}

async function findExactly(
  document: YamlDocument,
  { offset, records, signal }: FindReferencesOptions & { readonly offset: number },
): Promise<readonly FoundReference[]> {
  const key = keyOf([RECORD_VERSION, document.text]);
  const known = records?.read("references", key);
  if (isFound(known)) return known;
  const work = async (): Promise<readonly FoundReference[]> => findInYaml(document, await loadYaml());
  const found = await runExact({ task: "references", document }, { work, isValue: isFound, signal, offset });
  records?.write("references", key, found);
  return found;
}

/** Reports whether a record has the expected shape. The cache has verified its content. */
function isFound(value: unknown): value is readonly FoundReference[] {
  return Array.isArray(value) && value.every((each) => isObject(each) && typeof each["value"] === "string");
}

/** Finds references with the yaml package. @throws {KoError} If the document is not valid YAML. */
export function findInYaml(document: YamlDocument, yaml: Yaml): readonly FoundReference[] {
  const { text } = document;
  const tokens = readTokens(yaml, document);
  composeTokens(yaml, tokens, document);
  const found: FoundReference[] = [];
  for (const scalar of findScalars(tokens)) {
    if (scalar.type === "block-scalar") findInBlockToken(text, { yaml, found, scalar });
    else {
      const style = scalar.type === "scalar" ? "plain" : scalar.type === "single-quoted-scalar" ? "single" : "double";
      findInFlow(text, { yaml, found, style, start: scalar.offset, end: scalar.offset + scalar.source.length });
    }
  }
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

interface FlowScalar {
  /** Undefined if the scalar has no escapes and stands on one line. */
  readonly yaml: Yaml | undefined;
  readonly found: FoundReference[];
  readonly style: "plain" | "single" | "double";
  readonly start: number;
  readonly end: number;
}

/** Notes a plain or quoted scalar, if it is a reference. */
function findInFlow(text: string, { yaml, found, style, start, end }: FlowScalar): void {
  if (!mayBeReference(text, start)) return;
  const source = text.slice(start, Math.min(end, start + MAX_SCALAR));
  const at = start + Math.max(0, source.indexOf("ko://"));
  const value = end - start > MAX_SCALAR ? `${source.slice(0, 100)}…` : resolveSource(source, { yaml, style });
  if (value.startsWith("ko://")) found.push({ start, end, style, value: trimEnd(value), before: "", after: "", at });
}

function resolveSource(source: string, { yaml, style }: Pick<FlowScalar, "yaml" | "style">): string {
  if (yaml === undefined) {
    if (style === "plain") return source;
    return style === "single" ? source.slice(1, -1).replaceAll("''", "'") : source.slice(1, -1);
  }
  const type = style === "plain" ? "scalar" : style === "single" ? "single-quoted-scalar" : "double-quoted-scalar";
  const token: CST.FlowScalar = { type, offset: 0, indent: 0, source };
  return yaml.CST.resolveAsScalar(token, false, () => {})?.value ?? "";
}

/** Removes blanks behind a text. A pattern takes quadratic time for many blanks. */
function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && BLANK.test(text.charAt(end - 1))) end--;
  return text.slice(0, end);
}

interface ScannedBlockOptions {
  readonly yaml: Yaml;
  readonly scalar: Extract<ScannedScalar, { readonly style: "block" }>;
}

/** The value of a block scalar without digits in its header, whose content does not depend on the block around it. */
function valueOfBlock(text: string, { yaml, scalar }: ScannedBlockOptions): string {
  const { start, headerEnd, bodyStart, end } = scalar;
  if (end - bodyStart > MAX_SCALAR) return `${text.slice(bodyStart, bodyStart + 100).trim()}…`;
  const header = {
    type: "block-scalar-header",
    offset: start,
    indent: 0,
    source: text.slice(start, headerEnd),
  } as const;
  const source = text.slice(bodyStart, end);
  const token: CST.BlockScalar = { type: "block-scalar", offset: start, indent: 0, props: [header], source };
  return yaml.CST.resolveAsScalar(token, false, () => {})?.value ?? "";
}

interface BlockTokenOptions {
  readonly yaml: Yaml;
  readonly found: FoundReference[];
  readonly scalar: CST.BlockScalar;
}

function findInBlockToken(text: string, { yaml, found, scalar }: BlockTokenOptions): void {
  const header = scalar.props.find(({ type }) => type === "block-scalar-header");
  const last = scalar.props.at(-1);
  if (header === undefined || last === undefined || !("source" in header) || !("source" in last)) return;
  if (!/^ *ko:\/\//.test(scalar.source)) return;
  const bodyStart = last.offset + last.source.length;
  findInBlock(text, {
    start: header.offset,
    headerEnd: header.offset + header.source.length,
    bodyStart,
    end: bodyStart + scalar.source.length,
    value: yaml.CST.resolveAsScalar(scalar, false, () => {})?.value ?? "",
    found,
  });
}

interface BlockScalar extends Omit<ScannedBlock, "style"> {
  readonly found: FoundReference[];
  readonly value: string;
}

/**
 * Notes a `|` or `>` scalar, if it is a reference.
 *
 * The replacement must not end in a line end, so the range begins at the header, which gets a `-`. Blanks and blank lines
 * behind the reference are removed.
 */
function findInBlock(text: string, { start, headerEnd, bodyStart, end, value: raw, found }: BlockScalar): void {
  if (!raw.startsWith("ko://")) return;
  const value = trimEnd(raw);
  const between = text.slice(headerEnd, bodyStart);
  const at = text.indexOf("ko://", bodyStart);
  const range = { value, start, end, at };
  if (/[\r\n]/.test(text.slice(at, at + value.length))) {
    // Folded from several lines, so the value has blanks inside and is not valid. A replacement is written as one string.
    found.push({ ...range, style: "double", before: "", after: between });
    return;
  }
  const indentation = text.slice(bodyStart, at);
  const tail = text.slice(at + value.length, end);
  // A blank line that is deeper than the text would be text.
  const after = tail.replace(LEADING_BLANKS, "").replace(/[ \t]+(?=\r?\n|$)/g, (blank) => {
    return blank.length <= indentation.length ? blank : "";
  });
  found.push({
    ...range,
    style: "block",
    before: `${stripping(text.slice(start, headerEnd))}${between}${indentation}`,
    after,
  });
}

/** Returns the header of a block scalar with the chomping indicator that strips line ends: `|2` becomes `|2-`. */
function stripping(header: string): string {
  if (header.includes("-")) return header;
  return header.includes("+") ? header.replace("+", "-") : `${header}-`;
}
