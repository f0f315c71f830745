/**
 * Splits YAML streams into documents, joins edited documents, and parses a document with the `yaml` package.
 *
 * A line that begins with `---` or `...` is a marker wherever it stands
 * (https://yaml.org/spec/1.2.2/#9-document-stream-productions), so a stream is split without parsing it. Text that is not
 * edited comes out as it was read.
 */
import type { Alias, CST, Document, Node, YAMLMap, YAMLSeq } from "yaml";
import type { Pace } from "./async.ts";
import { KoError, KoErrors, YamlError } from "./errors.ts";

/** Replaces a range of {@link YamlDocument.text} with other text. */
export interface YamlEdit {
  /** UTF-16 offsets in the document's text; the end is exclusive. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** One document of a stream, with the comments, directives and marker lines that belong to it. */
export interface YamlDocument {
  /** The file in messages; `<stdin>` for `-`. */
  readonly file: string;
  /** The text as it was read, with `---` and `...` lines. */
  readonly text: string;
  /** The line of the file where `text` begins, from 1. */
  readonly line: number;
  /** The offset of `---` in `text`; undefined if there is none. */
  readonly marker: number | undefined;
  /** True if `%` lines precede the marker. */
  readonly directives: boolean;
  /** Edits behind the marker, in any order. An edit within the range of another one has no effect. */
  readonly edits: readonly YamlEdit[];
}

/** The position of a character in a file, both from 1; columns count characters, not bytes. */
export interface YamlPlace {
  readonly line: number;
  readonly column: number;
}

/** The module of the `yaml` package. */
export type Yaml = typeof import("yaml");

/** The `maxAliasCount` of the yaml package, which bounds the expansion of aliases. */
const MAX_ALIASES = 100;

const BOM = "\uFEFF";

/** Characters that neither YAML nor JSON allows, not even in quotes. */
const CONTROL = /[\0-\x08\x0b\x0c\x0e-\x1f]/;

/** The first characters of a `---` or `...` line, with the line end and byte order mark before them. */
const MARKER = /(?:^|\n)\uFEFF?(?:---|\.\.\.)(?=[ \t\r\n]|$)/g;

/** The beginning of a line that is neither blank nor a comment. */
const NODE = /(?:^|\n)[ \t\r\uFEFF]*[^ \t\r\n\uFEFF#]/;

/** The same before a marker, where a line can also be a directive. */
const NODE_IN_PREFIX = /(?:^|\n)(?!\uFEFF?%)[ \t\r\uFEFF]*[^ \t\r\n\uFEFF#]/;

const DIRECTIVE = /(?:^|\n)\uFEFF?%/;

/**
 * Splits a stream into its documents.
 *
 * Documents without a node (only blank lines and comments) are dropped. Comments before the first `---` of a file belong
 * to the first document, those behind the last `...` to the last one. UTF-16 with a byte order mark is decoded.
 *
 * @param file a path, a URL or `-`
 * @throws {KoError} If the bytes are not text.
 */
export function splitDocuments(bytes: Uint8Array, file: string): readonly YamlDocument[] {
  const documents: YamlDocument[] = [];
  for (const _ of splitInto(documents, { bytes, file })) continue;
  return documents;
}

/** Does the same for a long stream. @throws The pace's reason. */
export async function splitStream(
  { bytes, file }: { readonly bytes: Uint8Array; readonly file: string },
  pace: Pace,
): Promise<readonly YamlDocument[]> {
  const documents: YamlDocument[] = [];
  for (const _ of splitInto(documents, { bytes, file })) if (pace.isDue) await pace.turn();
  return documents;
}

/** Yields at each marker. */
function* splitInto(
  documents: YamlDocument[],
  { bytes, file }: { readonly bytes: Uint8Array; readonly file: string },
): Generator<void, void, void> {
  const shown = file === "-" ? "<stdin>" : file;
  const stream = decodeText(bytes, shown);
  const lines = createLineCounter(stream);
  // Comments of dropped documents, which move to the next document.
  let waiting = "";
  let start = 0;
  let marker: number | undefined;
  // False where directives are allowed: at the start of the file and after `...`.
  let inside = false;
  let hasNode = false;
  const finish = (end: number): void => {
    const prefix = marker === undefined ? "" : stream.slice(start, marker);
    const directives = DIRECTIVE.test(prefix);
    if (hasNode) {
      const line = lines(marker ?? start) - countLineEnds(prefix) - countLineEnds(waiting);
      const text = waiting + stream.slice(start, end);
      const at = marker === undefined ? undefined : waiting.length + marker - start;
      documents.push({ file: shown, text, line, marker: at, directives, edits: [] });
      waiting = "";
    } else if (!directives) waiting += prefix.trim() === "" ? "" : prefix;
    hasNode = false;
    marker = undefined;
  };

  let from = 0;
  for (const match of stream.matchAll(MARKER)) {
    yield;
    const boundary = match.index + (match[0].startsWith("\n") ? 1 : 0);
    const at = match.index + match[0].length - 3;
    const segment = stream.slice(from, boundary);
    if (!inside) inside = NODE_IN_PREFIX.test(segment);
    hasNode ||= inside && NODE.test(segment);
    if (stream[at] === "-") {
      if (inside) {
        finish(boundary);
        start = boundary;
      }
      marker = at;
      inside = true;
      from = at + 3;
    } else {
      const newline = stream.indexOf("\n", at);
      from = newline === -1 ? stream.length : newline + 1;
      if (inside) finish(from);
      start = from;
      inside = false;
    }
  }
  const rest = stream.slice(from);
  hasNode ||= inside ? NODE.test(rest) : NODE_IN_PREFIX.test(rest);
  const last = documents.at(-1);
  if (hasNode) finish(stream.length);
  else if (!inside && last !== undefined && last.text.length > 0 && !DIRECTIVE.test(rest)) {
    documents[documents.length - 1] = { ...last, text: last.text + rest };
  }
}

/**
 * Joins documents, with their edits applied, to one stream: one `---` line between two documents, none behind the last.
 *
 * A document after the first keeps its own `---` line, or gets one with the line end of its neighbour. Comments before
 * its `---` move behind it, so that they do not become the neighbour's. Its byte order mark is dropped, because a stream
 * can have one only at its start.
 */
export function joinDocuments(documents: readonly YamlDocument[]): string {
  const parts: string[] = [];
  let before: string | undefined;
  for (const document of documents) {
    const text = renderDocument(document);
    if (before === undefined) parts.push(text);
    else {
      const eol = lineEndOf(before) ?? lineEndOf(text) ?? "\n";
      if (!before.endsWith("\n")) parts.push(eol);
      if (document.directives && !endsWithDocumentEnd(before)) parts.push(`...${eol}`);
      parts.push(withMarkerFirst(text, { document, eol }));
    }
    before = text;
  }
  return parts.join("");
}

/** Returns the document's text with its edits applied. */
export function renderDocument(document: YamlDocument): string {
  const { text, edits } = document;
  if (edits.length === 0) return text;
  const parts: string[] = [];
  let at = 0;
  for (const edit of edits.toSorted((a, b) => a.start - b.start || b.end - a.end)) {
    if (edit.start < at) continue;
    parts.push(text.slice(at, edit.start), edit.text);
    at = edit.end;
  }
  parts.push(text.slice(at));
  return parts.join("");
}

/** Returns a function that finds the line and column of an offset in the document's text; fast for rising offsets. */
export function createLocator(document: YamlDocument): (offset: number) => YamlPlace {
  const { text } = document;
  let at = 0;
  let line = document.line;
  let column = 1;
  return (offset) => {
    if (offset < at) [at, line, column] = [0, document.line, 1];
    for (const end = Math.min(offset, text.length); at < end; at++) {
      const code = text.charCodeAt(at);
      if (code === 0x0a) [line, column] = [line + 1, 1];
      // The second half of a surrogate pair and a byte order mark do not count as columns.
      else if ((code < 0xdc00 || code > 0xdfff) && code !== 0xfeff) column++;
    }
    return { line, column };
  };
}

/** Formats the position of an offset in the document's text: `file:line:column`. */
export function showPlace(document: YamlDocument, offset: number): string {
  const { line, column } = createLocator(document)(offset);
  return `${document.file}:${line}:${column}`;
}

/** Loads the `yaml` package. This takes 20 ms, which a run without YAML, or with JSON only, saves. */
export function loadYaml(): Promise<Yaml> {
  return import("yaml");
}

/** Splits a document into tokens, which hold every byte. Errors are tokens, too: {@link composeTokens} reports them. */
export function readTokens(yaml: Yaml, document: YamlDocument): readonly CST.Token[] {
  // The package counts a byte order mark before a dash as indentation. A line end has the same length and no effect. It
  // does not know the line ends of old Macs.
  return [...new yaml.Parser().parse(document.text.replace(/^\uFEFF/, "\n").replace(/\r(?!\n)/g, "\n"))];
}

/**
 * Composes tokens to a document. Accepts duplicate keys and unknown tags; merge keys are plain keys. Refuses an alias without
 * its anchor, or within its anchor's node.
 *
 * @returns undefined if there are no tokens
 * @throws {KoError} If the tokens are not valid YAML; the message names file, line and column.
 */
export function composeTokens(
  yaml: Yaml,
  tokens: readonly CST.Token[],
  document: YamlDocument,
): Document.Parsed | undefined {
  const composer = new yaml.Composer({ keepSourceTokens: true, prettyErrors: false, uniqueKeys: false });
  const composed = [...composer.compose(tokens)];
  const [error] = composed.flatMap(({ errors }) => errors);
  const [first] = composed;
  if (error !== undefined) {
    // The recursive composer reports that it ran out of stack.
    if (error.code === "RESOURCE_EXHAUSTION") throw nestedTooDeeply(document, error.pos[0]);
    throw new YamlError(`Cannot read "${showPlace(document, error.pos[0])}" as YAML: ${error.message}`);
  }
  if (first !== undefined && document.text.includes("*")) {
    for (const [alias, target] of resolveAliases(yaml, first)) {
      if (target !== undefined) continue;
      const place = showPlace(document, alias.range?.[0] ?? 0);
      throw new YamlError(
        `Cannot read "${place}" as YAML: the alias *${alias.source} has no anchor &${alias.source} that ends before it`,
      );
    }
  }
  return first;
}

/**
 * Returns the value of a composed document. Pairs whose key is a map or a list are left out: no Kubernetes object has them,
 * and the yaml package writes each such key as text, which takes cubic time if they are nested, and warns on stderr.
 *
 * @throws {ReferenceError} If aliases are expanded more often than allowed.
 */
export function toPlainValue(yaml: Yaml, tree: Document.Parsed | undefined): unknown {
  if (tree === undefined) return undefined;
  for (const node of collectionsOf(yaml, tree)) {
    if (yaml.isMap(node)) node.items = node.items.filter(({ key }) => !yaml.isCollection(key));
  }
  return tree.toJS({ maxAliasCount: MAX_ALIASES });
}

/** Finds the maps and lists of a document, in order. The `visit()` of the yaml package takes quadratic time for nested ones. */
export function* collectionsOf(yaml: Yaml, tree: Document.Parsed): Generator<YAMLMap | YAMLSeq, void, void> {
  const todo: unknown[] = [tree.contents];
  while (todo.length > 0) {
    const node = todo.pop();
    if (!yaml.isCollection(node)) continue;
    yield node;
    const parts: readonly unknown[] = yaml.isMap(node)
      ? node.items.flatMap(({ key, value }) => [key, value])
      : node.items;
    for (const part of parts.toReversed()) todo.push(part);
  }
}

/**
 * Finds the nodes that the aliases of a document stand for, in one pass; undefined if there is none, or if it contains the
 * alias. `resolve()` of the package walks through the document for each alias.
 */
export function resolveAliases(yaml: Yaml, document: Document): ReadonlyMap<Alias, Node | undefined> {
  const targets = new Map<Alias, Node | undefined>();
  const anchors = new Map<string, Node>();
  const open = new Set<unknown>();
  const stack: unknown[] = [document.contents];
  while (stack.length > 0) {
    const node = stack.pop();
    if (node instanceof Closing) open.delete(node.node);
    else if (yaml.isAlias(node)) {
      const target = anchors.get(node.source);
      targets.set(node, open.has(target) ? undefined : target);
    } else if (yaml.isPair(node)) stack.push(node.value, node.key);
    else if (yaml.isCollection(node) || yaml.isScalar(node)) {
      if (node.anchor !== undefined) anchors.set(node.anchor, node);
      if (!yaml.isCollection(node)) continue;
      if (node.anchor !== undefined) {
        open.add(node);
        stack.push(new Closing(node));
      }
      for (let i = node.items.length - 1; i >= 0; i--) stack.push(node.items[i]);
    }
  }
  return targets;
}

/** Stands on the stack of {@link resolveAliases} behind the items of a node. */
class Closing {
  readonly node: unknown;
  constructor(node: unknown) {
    this.node = node;
  }
}

/** The most broken documents that are reported: a file of another format can have a million. */
const MAX_BROKEN = 100;

/** Adds an error, if there are not too many. @throws {KoErrors} With all of them, if there are. */
export function addBroken(errors: KoError[], error: KoError): void {
  errors.push(error);
  if (errors.length < MAX_BROKEN) return;
  throw new KoErrors([...errors, new YamlError(`Cannot read more YAML: ${MAX_BROKEN} documents are broken`)]);
}

/** The error of collections within collections without end. */
export function nestedTooDeeply(document: YamlDocument, offset: number): KoError {
  return new YamlError(`Cannot read "${showPlace(document, offset)}" as YAML: it is nested too deeply`);
}

function decodeText(bytes: Uint8Array, file: string): string {
  const [a, b, c, d] = bytes;
  const utf32 = (a === 0xff && b === 0xfe && c === 0 && d === 0) || (a === 0 && b === 0 && c === 0xfe && d === 0xff);
  const utf16 = a === 0xff && b === 0xfe ? "utf-16le" : a === 0xfe && b === 0xff ? "utf-16be" : undefined;
  if (utf32) throw unreadable(file, "it is UTF-32, wanted UTF-8");
  let text: string;
  try {
    // The byte order mark of UTF-8 is kept like any other byte. That of UTF-16 is dropped: the output is UTF-8.
    text = new TextDecoder(utf16 ?? "utf-8", { fatal: true, ignoreBOM: utf16 === undefined }).decode(bytes);
  } catch {
    if (utf16 !== undefined) throw unreadable(file, `it is invalid ${utf16.toUpperCase()}, wanted UTF-8`);
    throw unreadable(`${file}:${lineOfBadByte(bytes)}`, "the line is not valid UTF-8, wanted text in UTF-8");
  }
  const control = text.search(CONTROL);
  if (control === -1) return text;
  const line = 1 + countLineEnds(text.slice(0, control));
  const code = text.charCodeAt(control);
  const name =
    code === 0 ? "a NUL byte" : `the control character U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  throw unreadable(`${file}:${line}`, `the line has ${name}, wanted text in UTF-8`);
}

function unreadable(place: string, why: string): KoError {
  return new YamlError(`Cannot read "${place}" as YAML: ${why}`, {
    hint: "Name only YAML and JSON files: -f reads a named file whatever its extension.",
  });
}

function lineOfBadByte(bytes: Uint8Array): number {
  let line = 1;
  let start = 0;
  for (;;) {
    const newline = bytes.indexOf(0x0a, start);
    const end = newline === -1 ? bytes.byteLength : newline;
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(start, end));
    } catch {
      return line;
    }
    if (newline === -1) return line;
    start = newline + 1;
    line++;
  }
}

/** Returns a function that finds the line, from 1, of an offset; offsets must rise. */
function createLineCounter(text: string): (offset: number) => number {
  let line = 1;
  let next = text.indexOf("\n");
  return (offset) => {
    for (; next !== -1 && next < offset; next = text.indexOf("\n", next + 1)) line++;
    return line;
  };
}

function countLineEnds(text: string): number {
  let count = 0;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) count++;
  return count;
}

/** Returns the last line end of a text. */
function lineEndOf(text: string): string | undefined {
  const at = text.lastIndexOf("\n");
  if (at === -1) return undefined;
  return text[at - 1] === "\r" ? "\r\n" : "\n";
}

/** Reports whether the last line that is neither blank nor a comment is `...`. */
function endsWithDocumentEnd(text: string): boolean {
  const at = Math.max(text.startsWith("...") ? 0 : -1, text.lastIndexOf("\n...") + 1);
  return /^\.\.\.(?=[ \t\r\n]|$)/.test(text.slice(at, at + 4)) && !NODE.test(text.slice(at + 3));
}

function withMarkerFirst(rendered: string, options: { readonly document: YamlDocument; readonly eol: string }): string {
  const { document, eol } = options;
  const bom = rendered.startsWith(BOM) ? 1 : 0;
  const text = rendered.slice(bom);
  if (document.marker === undefined) return `---${eol}${text}`;
  if (document.directives) return text;
  const marker = document.marker - bom;
  const prefix = text.slice(0, marker).replaceAll(BOM, "");
  if (prefix.trim() === "") return text.slice(marker);
  // The rest of the marker's line moves to a line of its own, behind the comments.
  const behind = text.slice(marker + 3).replace(/^[ \t]*(?:\r?\n)?/, "");
  return `---${eol}${prefix}${behind}`;
}
