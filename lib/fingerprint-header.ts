/**
 * The header of a Go source, up to its first declaration: all that `go list` reads of a file, and `go build` of a test.
 *
 * https://go.dev/src/go/build/read.go and https://go.dev/ref/spec#Source_file_organization
 */
import { isUtf8 } from "node:buffer";
import { closeSync, openSync, readSync } from "node:fs";
import { look } from "./file.ts";

/** Bytes of the longest header that is read. */
const MOST_BYTES = 64 * 1024;

/** Reused for all files. */
let buffer: Buffer | undefined;

const DECLARATIONS: ReadonlySet<string> = new Set(["const", "func", "type", "var"]);

const WORD = /[\w\u0080-\u00ff]+|"[^"\\\n]*"|`[^`]*`|[().;]/y;
/** An unterminated comment does not match, and then is not a word either. */
const SPACE = /(?:[ \t\r\n]+|\/\/[^\n]*(?:\n|$)|\/\*[^]*?\*\/)*/y;

/** A short digest of a Go file's header; undefined if it has none ({@link findHeaderEnd}), or cannot be read. */
export function digestOfHeader(path: string): string | undefined {
  const header = readHeader(path);
  return header && new Bun.CryptoHasher("sha256").update(header).digest("hex").slice(0, 16);
}

/**
 * Reports whether a test file surely makes no difference to `go build`, which reads the header of each to learn whether
 * it belongs to the package (docs/rules.md F1.4). False if the header is unusual, or has directives.
 *
 * @param packageName the name in the package clause of the sources beside it
 */
export function isIdleTest(path: string, packageName: string): boolean {
  const header = readHeader(path);
  if (header === undefined || !isUtf8(header)) return false;
  const text = header.toString("latin1");
  if (/[^\t\r\n -\xff]|\xef\xbb\xbf|\/\/(?:go:|line )|\/\*line |\/\/[ \t]*\+build/.test(text)) return false;
  const { imports, name } = scanHeader(text) ?? { imports: [], name: "" };
  // Go refuses paths with certain characters.
  if (!imports.every((each) => /^[\w.~/+-]+$/.test(each))) return false;
  return name === packageName || name === `${packageName}_test`;
}

/**
 * Finds the end of a Go source's header: after the last import, with the space and comments that follow.
 *
 * @param text one character per byte
 * @returns undefined if the file has a syntax error, or imports "C" or "embed", for which `go list` reads more
 */
export function findHeaderEnd(text: string): number | undefined {
  return scanHeader(text)?.end;
}

interface Header {
  readonly end: number;
  /** In the package clause. */
  readonly name: string;
  readonly imports: readonly string[];
}

function scanHeader(text: string): Header | undefined {
  const words = new Words(text);
  if (words.next() !== "package") return undefined;
  const name = words.next();
  if (name === undefined || !isName(name) || words.next() !== ";") return undefined;
  for (;;) {
    const end = words.at;
    const word = words.next();
    if (word !== "import") {
      // Anything but a declaration is a syntax error, which `go list` reports.
      return word === "" || DECLARATIONS.has(word ?? "") ? { end, name, imports: words.imports } : undefined;
    }
    if (!readImport(words)) return undefined;
  }
}

/** Reads the bytes of a header into shared memory, which the next call overwrites. */
function readHeader(path: string): Buffer | undefined {
  // A FIFO would block.
  if (look(path)?.isFile() !== true) return undefined;
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    buffer ??= Buffer.alloc(MOST_BYTES);
    const size = readSync(file, buffer, 0, MOST_BYTES, 0);
    // One character per byte. The grammar of a header is ASCII, so UTF-8 need not be decoded.
    const text = buffer.toString("latin1", 0, size);
    const end = findHeaderEnd(size < MOST_BYTES ? text : `${text}\0`);
    return end === undefined ? undefined : buffer.subarray(0, end);
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Reads the rest of an import declaration. @returns false if it has a syntax error, or imports "C" or "embed" */
function readImport(words: Words): boolean {
  let word = words.next();
  if (word !== "(") return readSpec(words, word) && words.next() === ";";
  for (word = words.next(); word !== ")"; word = words.next()) {
    if (!readSpec(words, word)) return false;
    const after = words.next();
    if (after === ")") break;
    if (after !== ";") return false;
  }
  return words.next() === ";";
}

function readSpec(words: Words, first: string | undefined): boolean {
  const path = first === "." || isName(first) ? words.next() : first;
  const name = /^(["`])([^"`\\\n]+)\1$/.exec(path ?? "")?.[2];
  if (name !== undefined) words.imports.push(name);
  return name !== undefined && name !== "C" && name !== "embed";
}

function isName(word: string | undefined): boolean {
  return word !== undefined && /^[\w\u0080-\u00ff]+$/.test(word);
}

/** Splits a header into words. A line end counts as `;` where Go inserts one. */
class Words {
  /** The import paths so far. */
  readonly imports: string[] = [];
  readonly #text: string;
  /** The position after the last word, and the space and comments that follow it. */
  at = 0;
  /** The last word ends a statement if its line ends. */
  #mayEnd = false;
  /** There is a line end after the last word. */
  #isLineEnd = false;

  constructor(text: string) {
    this.#text = text;
    this.#skip();
  }

  /** The next word; empty at the end of the text, undefined at a character that no header has. */
  next(): string | undefined {
    if (this.#mayEnd && (this.#isLineEnd || this.at === this.#text.length)) {
      this.#mayEnd = false;
      return ";";
    }
    WORD.lastIndex = this.at;
    const word = WORD.exec(this.#text)?.[0];
    if (word === undefined) return this.at === this.#text.length ? "" : undefined;
    this.at += word.length;
    this.#mayEnd = word !== ";" && word !== "(" && word !== "." && word !== "import" && word !== "package";
    this.#isLineEnd = false;
    this.#skip();
    return word;
  }

  #skip(): void {
    SPACE.lastIndex = this.at;
    const space = SPACE.exec(this.#text)?.[0] ?? "";
    this.at += space.length;
    if (space.includes("\n")) this.#isLineEnd = true;
  }
}
