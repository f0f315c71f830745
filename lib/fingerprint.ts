/**
 * Marks of files and folders: what `stat` tells, as git's index and Go's cache use it to prove that nothing changed.
 *
 * A file that changed within the resolution of the file system's clock is racy (https://git-scm.com/docs/racy-git): its
 * mark alone proves nothing. The header of a Go source file is everything that `go list` reads of it.
 */
import { closeSync, lstatSync, openSync, readFileSync, readlinkSync, readSync, type Stats } from "node:fs";
import { dirname, resolve } from "node:path";
import { look, readEntries, readNames } from "./file.ts";

/** Which names of a folder count. */
export type FolderKind =
  /** Those that decide what a Go package consists of: sources, `go.mod`, `default.pgo`. Each file is marked. */
  | "sources"
  /** Those that decide what a pattern such as `./...` matches: the same and all folders; files are not marked. */
  | "tree"
  /** All of them; files are not marked. */
  | "entries";

/** The mark of what is not there. */
export const ABSENT = -1;
/** The mark of a folder where a file was looked for, such as `.git`. */
const FOLDER = -2;
/** The mark of a folder that proves nothing. */
export const RACY = -3;
/** Milliseconds: the coarsest clock of a file system that people use (FAT). */
const COARSE_MS = 2000;
/** Milliseconds: the tick in which Linux counts the times of files. */
export const TICK_MS = 12;

const SOURCE = /\.(?:go|c|cc|cpp|cxx|m|h|hh|hpp|hxx|f|F|for|f90|s|S|sx|swig|swigcxx|syso)$/;
export const OTHERS: ReadonlySet<string> = new Set(["go.mod", "default.pgo"]);

/** Whether a name in a package's folder may decide what is built. */
export function isSourceName(name: string): boolean {
  if (OTHERS.has(name)) return true;
  return SOURCE.test(name) && !name.startsWith("_") && !name.startsWith(".") && !name.endsWith("_test.go");
}

/** Whether a pattern such as `./...` goes into a folder of this name. */
export function isWalkedName(name: string): boolean {
  return !/^[._]/.test(name) && name !== "testdata" && name !== "vendor";
}

/** What was looked at in one moment, each file and folder once. */
export class Looks {
  readonly #found = new Map<string, Found>();
  readonly #names = new Map<string, readonly string[]>();
  readonly #led = new Map<string, boolean>();
  readonly #headers = new Map<string, string>();

  at(path: string): Found {
    let found = this.#found.get(path);
    if (found === undefined) this.#found.set(path, (found = lookClosely(path)));
    return found;
  }

  /**
   * Whether something else may have been found at `path` while the Go tool was reading: a link on the way was led
   * elsewhere, a folder was renamed. What has taken the place may look as if it had been there for long.
   */
  isLed(path: string, window: Window): boolean {
    const known = this.#led.get(path);
    if (known !== undefined) return known;
    // Of links that lead in a circle nothing is found.
    this.#led.set(path, false);
    const above = dirname(path);
    const { itself, link } = this.at(path);
    const isLed =
      (above !== path && this.isLed(above, window)) ||
      (link !== undefined && this.isLed(resolve(above, link), window)) ||
      (itself !== undefined && isRenamed(itself) && window.judge(itself) === "unsettled");
    this.#led.set(path, isLed);
    return isLed;
  }

  names(dir: string, kind: FolderKind): readonly string[] {
    const key = `${kind} ${dir}`;
    let names = this.#names.get(key);
    if (names === undefined) this.#names.set(key, (names = namesIn(dir, kind)));
    return names;
  }

  /** The digest of a Go file's header; empty for what has none. */
  header(path: string): string {
    let header = this.#headers.get(path);
    if (header === undefined) {
      header = path.endsWith(".go") ? (digestOfHeader(path) ?? "") : "";
      this.#headers.set(path, header);
    }
    return header;
  }
}

/** The mark of a file or folder: equal marks, equal content, unless it was changed a moment before it was taken. */
export function markOf(found: Stats | undefined): number {
  if (found === undefined) return ABSENT;
  NUMBERS[0] = found.size;
  NUMBERS[1] = found.mtimeMs;
  NUMBERS[2] = found.ctimeMs;
  NUMBERS[3] = found.ino;
  NUMBERS[4] = found.mode;
  // Two hashes in the manner of MurmurHash3, 52 bits in all: thousands of files are looked at in each run.
  let [a, b] = [0x811c9dc5, 0x1b873593];
  for (const word of WORDS) {
    a = Math.imul(a ^ word, 0xcc9e2d51);
    a ^= a >>> 15;
    b = Math.imul(b ^ word, 0x85ebca6b);
    b = (b ^ (b >>> 13)) + a;
  }
  return (a >>> 0) * 2 ** 20 + (b & 0xfffff);
}

const NUMBERS = new Float64Array(5);
const WORDS = new Uint32Array(NUMBERS.buffer);

/** The same for what is wanted as a file: of a folder in its place it counts only that it is there. */
export function fileMarkOf(found: Stats | undefined): number {
  return found?.isDirectory() === true ? FOLDER : markOf(found);
}

/** What is at a path. */
export interface Found {
  /** At the end of all links. */
  readonly found: Stats | undefined;
  /** What has that name: a link, if it is one. */
  readonly itself: Stats | undefined;
  /** Where it leads, if it is a link. */
  readonly link: string | undefined;
}

function lookClosely(path: string): Found {
  try {
    const itself = lstatSync(path, { throwIfNoEntry: false });
    if (itself?.isSymbolicLink() !== true) return { found: itself, itself, link: undefined };
    return { found: look(path), itself, link: readlinkSync(path) };
  } catch {
    return { found: undefined, itself: undefined, link: undefined };
  }
}

/**
 * Whether a link or a folder may have got its name later than anything in it was changed. Names that come and go in a
 * folder set both of its times, a new name of its own only one.
 */
function isRenamed(found: Stats): boolean {
  return found.isSymbolicLink() || (found.isDirectory() && found.ctimeMs !== found.mtimeMs);
}

/** Judges times of change by the moment at which the Go tool was started. */
export class Window {
  readonly #startedAt: number;
  readonly #now: number;

  constructor(startedAt: number, now: number) {
    this.#startedAt = startedAt;
    this.#now = now;
  }

  /**
   * "settled": a later change shows in the mark. "racy": it may not, but this one was over when the Go tool began.
   * "unsettled": it may have come while the Go tool was reading.
   */
  judge({ ctimeMs }: Stats): "settled" | "racy" | "unsettled" {
    if (ctimeMs < this.#startedAt - COARSE_MS) return "settled";
    // From a clock that was ahead: our own time will not reach it soon.
    if (ctimeMs > this.#now + COARSE_MS) return "racy";
    const tick = ctimeMs % 1000 === 0 ? COARSE_MS : TICK_MS;
    return ctimeMs < this.#startedAt - tick ? "racy" : "unsettled";
  }
}

export function namesIn(dir: string, kind: FolderKind): readonly string[] {
  if (kind === "entries") return readNames(dir);
  return readEntries(dir)
    .filter((entry) => (entry.isDirectory() ? kind === "tree" && isWalkedName(entry.name) : isSourceName(entry.name)))
    .map(({ name }) => name)
    .sort();
}

export function digestOfFile(path: string): string {
  try {
    return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
  } catch {
    return "";
  }
}

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
