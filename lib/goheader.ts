/**
 * The header of a Go source file: all that `go list` reads of it, which is what stands before its first declaration:
 * build constraints, the package clause, imports.
 *
 * A file whose header is what it was lists as it did, whatever else changed in it. Of files that import "embed" or "C" the
 * Go tool reads more, and what does not look as it should is not judged: these have no header here.
 *
 * https://go.dev/ref/spec#Source_file_organization; readGoInfo of https://go.dev/src/go/build/read.go
 */
import { closeSync, openSync, readSync } from "node:fs";

/** Bytes; a header that is longer is not looked at. */
const MOST_BYTES = 64 * 1024;

/** For one file after the other. */
let buffer: Buffer | undefined;

/** A short digest of a file's header, or undefined if it has none that tells all. */
export function digestOfHeader(path: string): string | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    buffer ??= Buffer.alloc(MOST_BYTES);
    const size = readSync(file, buffer, 0, MOST_BYTES, 0);
    // One character for each byte: nothing in a header needs more to be told from the rest.
    const text = buffer.toString("latin1", 0, size);
    const end = findHeaderEnd(size < MOST_BYTES ? text : `${text}\0`);
    if (end === undefined) return undefined;
    return new Bun.CryptoHasher("sha256").update(buffer.subarray(0, end)).digest("hex").slice(0, 16);
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/**
 * Where the header of a source ends: behind the last import, and all space and comments that follow it.
 *
 * @param text one character for each byte
 * @returns undefined if there is no such place, or more than the header counts
 */
export function findHeaderEnd(text: string): number | undefined {
  const words = new Words(text);
  if (words.next() !== "package" || !isName(words.next()) || words.next() !== ";") return undefined;
  for (;;) {
    const start = words.at;
    const word = words.next();
    if (word !== "import") {
      // Anything but a declaration would be an error, which go list tells of.
      return word === "" || DECLARATIONS.has(word ?? "") ? start : undefined;
    }
    if (!readImport(words)) return undefined;
  }
}

const DECLARATIONS: ReadonlySet<string> = new Set(["const", "func", "type", "var"]);

/** The rest of an import declaration. @returns false if it is none, or imports what the Go tool looks into */
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
  return name !== undefined && name !== "C" && name !== "embed";
}

function isName(word: string | undefined): boolean {
  return word !== undefined && /^[\w\u0080-\u00ff]+$/.test(word);
}

/** Goes through the words of a header; a line end counts as `;` where Go would insert one. */
class Words {
  readonly #text: string;
  /** Behind the last word, and all space and comments that follow it. */
  at = 0;
  /** The last word ends a statement if its line ends. */
  #mayEnd = false;
  /** A line end was skipped behind it. */
  #isLineEnd = false;

  constructor(text: string) {
    this.#text = text;
    this.#skip();
  }

  /** The next word, empty at the end of the text; undefined if it is no word of a header. */
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

const WORD = /[\w\u0080-\u00ff]+|"[^"\\\n]*"|`[^`]*`|[().;]/y;
/** A comment that does not end stays, and is no word. */
const SPACE = /(?:[ \t\r\n]+|\/\/[^\n]*(?:\n|$)|\/\*[^]*?\*\/)*/y;
