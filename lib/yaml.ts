/**
 * YAML streams as documents and back: bytes in, documents with their places, text out.
 *
 * Grammar: https://yaml.org/spec/1.2.2/#9-document-stream-productions. A line that begins with `---` or `...` is a marker
 * wherever it stands, so a stream is split without parsing it; only what precedes a document (comments, `%` directives,
 * a byte order mark) takes care. Nothing is parsed, decoded or re-encoded here: a document that nobody edits leaves as
 * it came. References are `yaml-references.ts`'s job, selecting is `yaml-objects.ts`'s.
 *
 * The `yaml` package: loaded when the first document needs it, and its errors as ours.
 *
 * Tokens keep every byte and say nothing of errors; a composed document says what is wrong. Both come from one reading.
 */
import type { CST, Document } from "yaml";
import { KoError } from "./errors.ts";

/** Replaces a range of {@link YamlDocument.text} with other text. */
export interface YamlEdit {
  /** UTF-16 offsets in the document's text; the end is not part of it. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** One document of a stream, with the comments, directives and marker lines that belong to it. */
export interface YamlDocument {
  /** The file as a person knows it; `<stdin>` for `-`. */
  readonly file: string;
  /** As it was read, `---` and `...` lines included. */
  readonly text: string;
  /** Number of the line in the file where `text` begins, from 1. */
  readonly line: number;
  /** Where in `text` the document's `---` is, or undefined if it has none. */
  readonly marker: number | undefined;
  /** True if `%` lines precede the marker. */
  readonly directives: boolean;
  /** What is to change, in any order; ranges that lie within another one are dropped with it. All behind the marker. */
  readonly edits: readonly YamlEdit[];
}

/** Where a character of a file is, both from 1; a column is a character, whatever bytes it takes. */
export interface YamlPlace {
  readonly line: number;
  readonly column: number;
}

const BOM = "\uFEFF";

/** A `---` or `...` line's first characters, with the line end before them; a byte order mark may precede. */
const MARKER = /(?:^|\n)\uFEFF?(?:---|\.\.\.)(?=[ \t\r\n]|$)/g;

/** A line that is neither blank nor a comment. */
const NODE = /(?:^|\n)[ \t\r\uFEFF]*[^ \t\r\n\uFEFF#]/;

/** The same where a line may also be a directive. */
const NODE_IN_PREFIX = /(?:^|\n)(?!\uFEFF?%)[ \t\r\uFEFF]*[^ \t\r\n\uFEFF#]/;

const DIRECTIVE = /(?:^|\n)\uFEFF?%/;

/**
 * The documents of a stream, in order.
 *
 * A document without a node (blank lines and comments at most) is none and vanishes. Comments before the first `---` of
 * a file are no document but the first one's, and stay with it; so do those behind the last `...`. UTF-16 with a byte
 * order mark is decoded.
 *
 * @param file path, URL or `-`
 * @throws {KoError} If the bytes are no text.
 */
export function splitDocuments(bytes: Uint8Array, file: string): readonly YamlDocument[] {
  const shown = file === "-" ? "<stdin>" : file;
  const stream = decodeText(bytes, shown);
  const documents: YamlDocument[] = [];
  const lines = createLineCounter(stream);
  // Comments that wait for a document: those of a file whose first document is empty.
  let waiting = "";
  let start = 0;
  let marker: number | undefined;
  // Inside a document, or in what may precede one (at the start of the file, after `...`).
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
  return documents;
}

/**
 * One stream of all documents, their edits made: exactly one `---` line between two, nothing behind the last.
 *
 * The first document is left as it is. A later one keeps its own `---` line, or gets one with the line end that its
 * neighbour uses; comments that preceded its `---` move behind it, so that they do not become the neighbour's, and its
 * byte order mark, which a stream may have at its start only, is left out.
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

/** The document's text with its edits made. */
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

/** Finds places of offsets in a document's text; quick when asked in rising order. */
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
      // The second half of a surrogate pair, and a byte order mark, are no columns.
      else if ((code < 0xdc00 || code > 0xdfff) && code !== 0xfeff) column++;
    }
    return { line, column };
  };
}

/** `file:line:column` of an offset in a document's text. */
export function showPlace(document: YamlDocument, offset: number): string {
  const { line, column } = createLocator(document)(offset);
  return `${document.file}:${line}:${column}`;
}

function decodeText(bytes: Uint8Array, file: string): string {
  const [a, b, c, d] = bytes;
  const utf32 = (a === 0xff && b === 0xfe && c === 0 && d === 0) || (a === 0 && b === 0 && c === 0xfe && d === 0xff);
  const utf16 = a === 0xff && b === 0xfe ? "utf-16le" : a === 0xfe && b === 0xff ? "utf-16be" : undefined;
  if (utf32) throw unreadable(file, "it is text in UTF-32, wanted UTF-8");
  let text: string;
  try {
    // A byte order mark of UTF-8 stays, as any other byte; that of UTF-16 has no meaning in what is written.
    text = new TextDecoder(utf16 ?? "utf-8", { fatal: true, ignoreBOM: utf16 === undefined }).decode(bytes);
  } catch {
    if (utf16 !== undefined) throw unreadable(file, `it is broken ${utf16.toUpperCase()}, wanted UTF-8`);
    throw unreadable(`${file}:${lineOfBadByte(bytes)}`, "the line has bytes that are no UTF-8, wanted text in UTF-8");
  }
  const nul = text.indexOf("\0");
  if (nul === -1) return text;
  const line = 1 + countLineEnds(text.slice(0, nul));
  throw unreadable(`${file}:${line}`, "the line has a NUL byte, wanted text in UTF-8");
}

function unreadable(what: string, why: string): KoError {
  return new KoError(`Cannot read "${what}" as YAML: ${why}`, {
    hint: "Name files of YAML or JSON only; -f takes any file that is given by its name.",
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

/** Numbers of lines, from 1, for offsets asked in rising order. */
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

/** The last line end that a text has. */
function lineEndOf(text: string): string | undefined {
  const at = text.lastIndexOf("\n");
  if (at === -1) return undefined;
  return text[at - 1] === "\r" ? "\r\n" : "\n";
}

/** Whether the last line that is neither blank nor a comment is `...`. */
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
  // What stands on the marker's line goes on a line of its own, behind the comments.
  const behind = text.slice(marker + 3).replace(/^[ \t]*(?:\r?\n)?/, "");
  return `---${eol}${prefix}${behind}`;
}

/** The package's module. */
export type Yaml = typeof import("yaml");

/** Loads the package: 20 milliseconds that a run without YAML, or with JSON only, does not spend. */
export function loadYaml(): Promise<Yaml> {
  return import("yaml");
}

/** The concrete syntax of a document, errors and all. */
export function readTokens(yaml: Yaml, document: YamlDocument): readonly CST.Token[] {
  // The package takes a byte order mark before a sequence's dash for indentation; a line end is as long, and means as
  // little there.
  return [...new yaml.Parser().parse(document.text.replace(/^\uFEFF/, "\n"))];
}

/**
 * What the tokens mean. Duplicate keys are left in peace, merge keys are plain keys, unknown tags are no errors.
 *
 * @throws {KoError} If they are no YAML: file, line, column and what is wrong.
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
    // How the composer, which is recursive, says that it ran out of stack.
    const what = error.code === "RESOURCE_EXHAUSTION" ? "it is nested too deeply" : error.message;
    throw new KoError(`Cannot read "${showPlace(document, error.pos[0])}" as YAML: ${what}`);
  }
  return first;
}
