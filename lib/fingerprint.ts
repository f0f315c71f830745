/**
 * Marks of files and folders: digests of their `stat`, which prove as in git's index that content has not changed.
 *
 * A file that changed within the resolution of the file system's clock is racy (https://git-scm.com/docs/racy-git): its
 * mark alone proves nothing. The header of a Go source is the part that `go list` reads
 * (https://go.dev/src/go/build/read.go).
 */
import { closeSync, lstatSync, openSync, readFileSync, readlinkSync, readSync, type Stats } from "node:fs";
import { dirname, resolve } from "node:path";
import { look, readEntries, readNames } from "./file.ts";

/** Which names in a folder count. */
export type FolderKind =
  /** The files of a Go package: sources, `go.mod`, `default.pgo`. Each file has a mark. */
  | "sources"
  /** The names that decide the matches of patterns such as `./...`: the same files, and folders. No marks. */
  | "tree"
  /** All names. No marks. */
  | "entries";

/** The stat of a path. */
interface PathStats {
  /** Symlinks followed. */
  readonly found: Stats | undefined;
  /** Of the path itself, which may be a symlink. */
  readonly itself: Stats | undefined;
  /** The target, if it is a symlink. */
  readonly link: string | undefined;
}

/** The mark of a missing file. */
export const ABSENT = -1;
/** The mark of a folder where a file was expected, such as `.git`. */
const FOLDER = -2;
/** The mark of a racy folder, which proves nothing. */
export const RACY = -3;
/** Milliseconds: the resolution of the coarsest file system clock, that of FAT. */
const COARSE_MS = 2000;
/** Milliseconds: the resolution of file times on Linux, with reserve. */
export const TICK_MS = 12;

const SOURCE = /\.(?:go|c|cc|cpp|cxx|m|h|hh|hpp|hxx|f|F|for|f90|s|S|sx|swig|swigcxx|syso)$/;
/** Inputs of a package that `go list` does not list among its files. */
export const UNLISTED: ReadonlySet<string> = new Set(["go.mod", "default.pgo"]);

/** Bytes of the longest header that is read. */
const MOST_BYTES = 64 * 1024;

/** Reused for all files. */
let buffer: Buffer | undefined;

const DECLARATIONS: ReadonlySet<string> = new Set(["const", "func", "type", "var"]);

const WORD = /[\w\u0080-\u00ff]+|"[^"\\\n]*"|`[^`]*`|[().;]/y;
/** An unterminated comment does not match, and then is not a word either. */
const SPACE = /(?:[ \t\r\n]+|\/\/[^\n]*(?:\n|$)|\/\*[^]*?\*\/)*/y;

/** The input of {@link markOf}, as numbers and as 32-bit words. */
const NUMBERS = new Float64Array(5);
const NUMBER_WORDS = new Uint32Array(NUMBERS.buffer);

/** Reports whether a name in a package's folder may be an input of its build. */
export function isSourceName(name: string): boolean {
  if (UNLISTED.has(name)) return true;
  return SOURCE.test(name) && !name.startsWith("_") && !name.startsWith(".") && !name.endsWith("_test.go");
}

/** Reports whether a pattern such as `./...` matches folders of this name. */
export function isWalkedName(name: string): boolean {
  return !/^[._]/.test(name) && name !== "testdata" && name !== "vendor";
}

/** A cache of looks at one moment: each file and folder is looked at once. */
export class Looks {
  readonly #found = new Map<string, PathStats>();
  readonly #names = new Map<string, readonly string[]>();
  readonly #redirected = new Map<string, boolean>();
  readonly #headers = new Map<string, string>();

  /** The stat of a path. */
  at(path: string): PathStats {
    let found = this.#found.get(path);
    if (found === undefined) this.#found.set(path, (found = lookClosely(path)));
    return found;
  }

  /**
   * Reports whether the path may have led to another file while the Go tool was reading: a symlink on it was changed,
   * or a folder renamed. The file that is there now may have an old time, so its own mark does not show this.
   */
  isRedirected(path: string, window: Window): boolean {
    const known = this.#redirected.get(path);
    if (known !== undefined) return known;
    // Ends the recursion if symlinks form a circle.
    this.#redirected.set(path, false);
    const above = dirname(path);
    const { itself, link } = this.at(path);
    const isRedirected =
      (above !== path && this.isRedirected(above, window)) ||
      (link !== undefined && this.isRedirected(resolve(above, link), window)) ||
      (itself !== undefined && isRenamed(itself) && window.judge(itself) === "unsettled");
    this.#redirected.set(path, isRedirected);
    return isRedirected;
  }

  /** The names that count in a folder, sorted. */
  names(dir: string, kind: FolderKind): readonly string[] {
    const key = `${kind} ${dir}`;
    let names = this.#names.get(key);
    if (names === undefined) this.#names.set(key, (names = namesIn(dir, kind)));
    return names;
  }

  /** The digest of a Go file's header; empty if it has none. */
  header(path: string): string {
    let header = this.#headers.get(path);
    if (header === undefined) {
      header = path.endsWith(".go") ? (digestOfHeader(path) ?? "") : "";
      this.#headers.set(path, header);
    }
    return header;
  }
}

/** The mark of a file or folder. Equal marks mean equal content, unless the change was racy. */
export function markOf(found: Stats | undefined): number {
  if (found === undefined) return ABSENT;
  NUMBERS[0] = found.size;
  NUMBERS[1] = found.mtimeMs;
  NUMBERS[2] = found.ctimeMs;
  NUMBERS[3] = found.ino;
  NUMBERS[4] = found.mode;
  // Two hashes in the manner of MurmurHash3, 52 bits in all. SHA-256 would be too slow for thousands of files per run.
  let [a, b] = [0x811c9dc5, 0x1b873593];
  for (const word of NUMBER_WORDS) {
    a = Math.imul(a ^ word, 0xcc9e2d51);
    a ^= a >>> 15;
    b = Math.imul(b ^ word, 0x85ebca6b);
    b = (b ^ (b >>> 13)) + a;
  }
  return (a >>> 0) * 2 ** 20 + (b & 0xfffff);
}

/** The mark of a path where a file is expected. A folder in its place counts as existing only. */
export function fileMarkOf(found: Stats | undefined): number {
  return found?.isDirectory() === true ? FOLDER : markOf(found);
}

/** Compares times of change with the start of the Go tool. */
export class Window {
  readonly #startedAt: number;
  readonly #now: number;

  constructor(startedAt: number, now: number) {
    this.#startedAt = startedAt;
    this.#now = now;
  }

  /**
   * "settled": a later change shows in the mark. "racy": a later change may not show, but this one was over when the Go
   * tool began. "unsettled": the change may have happened while the Go tool was reading.
   */
  judge({ ctimeMs }: Stats): "settled" | "racy" | "unsettled" {
    if (ctimeMs < this.#startedAt - COARSE_MS) return "settled";
    // The file has a time in the future, from a clock that was ahead.
    if (ctimeMs > this.#now + COARSE_MS) return "racy";
    const tick = ctimeMs % 1000 === 0 ? COARSE_MS : TICK_MS;
    return ctimeMs < this.#startedAt - tick ? "racy" : "unsettled";
  }
}

/** Returns the names that count in a folder, sorted. */
export function namesIn(dir: string, kind: FolderKind): readonly string[] {
  if (kind === "entries") return readNames(dir);
  return readEntries(dir)
    .filter((entry) => (entry.isDirectory() ? kind === "tree" && isWalkedName(entry.name) : isSourceName(entry.name)))
    .map(({ name }) => name)
    .sort();
}

/** Returns the SHA-256 of a file, in hex; empty if it cannot be read. */
export function digestOfFile(path: string): string {
  try {
    return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
  } catch {
    return "";
  }
}

/** A short digest of a Go file's header; undefined if it has none ({@link findHeaderEnd}), or cannot be read. */
export function digestOfHeader(path: string): string | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    buffer ??= Buffer.alloc(MOST_BYTES);
    const size = readSync(file, buffer, 0, MOST_BYTES, 0);
    // One character per byte. The grammar of a header is ASCII, so UTF-8 need not be decoded.
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
 * Finds the end of a Go source's header: after the last import, with the space and comments that follow.
 *
 * The header has all that `go list` reads of a file: build constraints, package clause and imports
 * (https://go.dev/ref/spec#Source_file_organization).
 *
 * @param text one character per byte
 * @returns undefined if the file has a syntax error, or imports "C" or "embed", for which `go list` reads more
 */
export function findHeaderEnd(text: string): number | undefined {
  const words = new Words(text);
  if (words.next() !== "package" || !isName(words.next()) || words.next() !== ";") return undefined;
  for (;;) {
    const start = words.at;
    const word = words.next();
    if (word !== "import") {
      // Anything but a declaration is a syntax error, which `go list` reports.
      return word === "" || DECLARATIONS.has(word ?? "") ? start : undefined;
    }
    if (!readImport(words)) return undefined;
  }
}

function lookClosely(path: string): PathStats {
  try {
    const itself = lstatSync(path, { throwIfNoEntry: false });
    if (itself?.isSymbolicLink() !== true) return { found: itself, itself, link: undefined };
    return { found: look(path), itself, link: readlinkSync(path) };
  } catch {
    return { found: undefined, itself: undefined, link: undefined };
  }
}

/**
 * Reports whether a symlink or folder may have got its name after its last change. A change of a folder's entries sets
 * both of its times, a rename of the folder only ctime.
 */
function isRenamed(found: Stats): boolean {
  return found.isSymbolicLink() || (found.isDirectory() && found.ctimeMs !== found.mtimeMs);
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
  return name !== undefined && name !== "C" && name !== "embed";
}

function isName(word: string | undefined): boolean {
  return word !== undefined && /^[\w\u0080-\u00ff]+$/.test(word);
}

/** Splits a header into words. A line end counts as `;` where Go inserts one. */
class Words {
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
