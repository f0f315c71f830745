/**
 * Marks of files and folders: digests of their `stat`, which prove as in git's index that content has not changed.
 *
 * A file that changed within the resolution of the file system's clock is racy (https://git-scm.com/docs/racy-git): its
 * mark alone proves nothing.
 */
import type { Dirent } from "node:fs";
import { lstatSync, readFileSync, readlinkSync, type Stats } from "node:fs";
import { dirname, resolve } from "node:path";
import { look, readEntries } from "./file.ts";
import { digestOfHeader } from "./fingerprint-header.ts";

/** Which names in a folder count. */
export type FolderKind =
  /** The files of a Go package: sources, tests, `go.mod`, `default.pgo`. Each file has a mark. */
  | "sources"
  /** The same without tests: of a package in the module cache, or of Go itself. */
  | "indexed"
  /** The same as "sources" and the folders that patterns such as `./...` visit, whose names end in a slash. Each file has a mark. */
  | "tree"
  /** All names: those of folders end in a slash, those of symlinks in `@`. No marks. */
  | "entries"
  /** Certain names, existing or not. Each file has a mark, which of a symlink is its own. */
  | "embedded"
  /** Certain names, existing or not. Each file has a mark. */
  | "files";

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

/** Reports whether a name is that of a test, of which `go build` reads the header. */
export function isTestName(name: string): boolean {
  return name.endsWith("_test.go") && !name.startsWith("_") && !name.startsWith(".");
}

/** The systems and architectures that exclude a file by its name, in all versions of Go. */
const SYSTEMS = /^(?:aix|android|darwin|dragonfly|freebsd|js|linux|nacl|netbsd|openbsd|plan9|solaris|windows|zos)$/;
const ARCHITECTURES = /^(?:386|amd64|arm|arm64|mips|mipsle|mips64|mips64le|ppc64|ppc64le|riscv64|s390x|sparc64|wasm)$/;

/**
 * Reports whether a name such as `file_windows.go` excludes a file from builds for a platform, whatever it contains.
 *
 * https://pkg.go.dev/cmd/go#hdr-Build_constraints
 */
export function isExcludedName(name: string, { arch, os }: Target): boolean {
  const parts = /^[^._]*_([^.]*)/.exec(name)?.[1]?.split("_") ?? [];
  if (parts.at(-1) === "test") parts.pop();
  const [last = "", before = ""] = parts.reverse();
  if (ARCHITECTURES.test(last)) return last !== arch || (SYSTEMS.test(before) && before !== os);
  return SYSTEMS.test(last) && last !== os;
}

/** Reports whether a word is a build constraint that some names have. */
export function isTargetName(word: string): boolean {
  return SYSTEMS.test(word) || ARCHITECTURES.test(word);
}

/** A platform in the words of Go. */
export interface Target {
  readonly os: string;
  readonly arch: string;
}

/** Reports whether certain names count in a folder, existing or not. */
export function isNamed(kind: FolderKind): boolean {
  return kind === "embedded" || kind === "files";
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
  let a = 0x811c9dc5;
  let b = 0x1b873593;
  // An iterator takes three times as long, in a function that runs for thousands of files.
  for (let i = 0; i < NUMBER_WORDS.length; i++) {
    const word = NUMBER_WORDS[i] ?? 0;
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
  return readEntries(dir)
    .flatMap((entry) => nameOf(entry, kind) ?? [])
    .sort();
}

function nameOf(entry: Dirent, kind: FolderKind): string | undefined {
  const { name } = entry;
  if (kind === "entries") return entry.isDirectory() ? `${name}/` : entry.isSymbolicLink() ? `${name}@` : name;
  if (entry.isDirectory()) return kind === "tree" && isWalkedName(name) ? `${name}/` : undefined;
  return isSourceName(name) || (kind !== "indexed" && isTestName(name)) ? name : undefined;
}

/** Returns the SHA-256 of a file, in hex; empty if it cannot be read. */
export function digestOfFile(path: string): string {
  try {
    return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
  } catch {
    return "";
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
