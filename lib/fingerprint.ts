/**
 * Proof that files and folders are what they were, as git's index and Go's cache prove it: by what `stat` tells.
 *
 * A mark stands for size, modification and change time, inode and mode. What changed so shortly before it was looked at
 * that the clock of the file system may not tell the next change apart (racy, in git's words) is compared by content as
 * well, or not recorded at all when it may have changed while the Go tool read it. Of a folder the names that count are
 * compared, and only where its own mark has changed. Of Go files it is known too what `go list` reads of them (fingerprint.ts).
 *
 * https://git-scm.com/docs/racy-git
 *
 * The header of a Go source file: all that `go list` reads of it, which is what stands before its first declaration:
 * build constraints, the package clause, imports.
 *
 * A file whose header is what it was lists as it did, whatever else changed in it. Of files that import "embed" or "C" the
 * Go tool reads more, and what does not look as it should is not judged: these have no header here.
 *
 * https://go.dev/ref/spec#Source_file_organization; readGoInfo of https://go.dev/src/go/build/read.go
 */
import {
  closeSync,
  type Dirent,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";

/** Which names of a folder count. */
export type FolderKind =
  /** Those that decide what a Go package consists of: sources, `go.mod`, `default.pgo`. Each file is marked. */
  | "sources"
  /** Those that decide what a pattern such as `./...` matches: the same and all folders; files are not marked. */
  | "tree"
  /** All of them; files are not marked. */
  | "entries";

/** What to look at. */
export interface InputPlan {
  readonly folders: readonly {
    /** Absolute. */
    readonly dir: string;
    readonly kind: FolderKind;
    /** The sources that the Go tool saw in it, tests left out, in any order; undefined if it was not asked. */
    readonly seen?: readonly string[] | undefined;
    /** "read": the headers of Go files are looked at; else those of `names`, if that is what is in it. */
    readonly headers?: "read" | readonly string[] | undefined;
    readonly names?: readonly string[] | undefined;
  }[];
  /** Absolute; a file that is not there counts too: it must stay away. */
  readonly files: readonly string[];
}

/** What was found, as plain data for a record. */
export interface Inputs {
  readonly folders: readonly FolderState[];
  /** Path and mark. */
  readonly files: readonly (readonly [path: string, mark: number])[];
  /** Files whose mark alone proves nothing, with the digest of their content. */
  readonly racy: readonly (readonly [path: string, digest: string])[];
}

export interface FolderState {
  readonly dir: string;
  readonly kind: FolderKind;
  /** Of the folder itself; {@link RACY} compares the names always. */
  readonly mark: number;
  /** Sorted. */
  readonly names: readonly string[];
  /** Of the files in `names`, in their order; of "sources" only. */
  readonly marks: readonly number[];
  /** Digests of the headers of the files in `names`, in their order; empty for what has none. Undefined: not looked at. */
  readonly headers?: readonly string[] | undefined;
}

/** The first input that is not what it was. */
export interface Change {
  /** Absolute. */
  readonly path: string;
  readonly what: "changed" | "added" | "removed";
}

/** What {@link takeInputs} found, to be confirmed when the Go tool is done. */
export interface Draft {
  readonly inputs: Inputs;
  /** Marks of folders that changed shortly before: they must not change again until the end. */
  readonly moving: ReadonlyMap<string, number>;
  /** Milliseconds since 1970: when the Go tool was started. */
  readonly startedAt: number;
}

/** The mark of what is not there. */
const ABSENT = -1;
/** The mark of a folder where a file was looked for, such as `.git`. */
const FOLDER = -2;
/** The mark of a folder that proves nothing. */
const RACY = -3;
/** Milliseconds: the coarsest clock of a file system that people use (FAT). */
const COARSE_MS = 2000;
/** Milliseconds: the tick in which Linux counts the times of files. */
export const TICK_MS = 12;

const SOURCE = /\.(?:go|c|cc|cpp|cxx|m|h|hh|hpp|hxx|f|F|for|f90|s|S|sx|swig|swigcxx|syso)$/;
const OTHERS: ReadonlySet<string> = new Set(["go.mod", "default.pgo"]);

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

/**
 * Looks at everything in `plan`: right after the Go tool has told what it read, before or while it builds.
 *
 * @param options.startedAt milliseconds since 1970, before the Go tool was started
 * @param options.now milliseconds since 1970
 * @param options.looks what was looked at in the same moment already: plans of several programs share most
 * @param options.before what was looked at before the Go tool was started: names known from there may have been confirmed
 * @returns or why nothing can be recorded: something may have changed while the Go tool read it
 */
export function takeInputs(
  plan: InputPlan,
  options: {
    readonly startedAt: number;
    readonly now: number;
    readonly before?: Prover | undefined;
    readonly looks?: Looks;
  },
): Draft | Change {
  const { startedAt, now, before, looks = new Looks() } = options;
  const racy: [string, string][] = [];
  const window = new Window(startedAt, now);
  const lookAt = (path: string): number | undefined => {
    const { found, link } = looks.at(path);
    if (link !== undefined && looks.isLed(path, window)) return undefined;
    const mark = fileMarkOf(found);
    if (found === undefined || found.isDirectory()) return mark;
    const settled = window.judge(found);
    if (settled === "unsettled") return undefined;
    if (settled === "racy") racy.push([path, digestOfFile(path)]);
    return mark;
  };
  const folders: FolderState[] = [];
  const moving = new Map<string, number>();
  for (const folder of plan.folders) {
    const { dir, kind, seen } = folder;
    const { found } = looks.at(dir);
    if (found === undefined) return { path: dir, what: "removed" };
    if (looks.isLed(dir, window)) return { path: dir, what: "changed" };
    const names = looks.names(dir, kind);
    const expected = seen?.filter((name) => isSourceName(name) && !OTHERS.has(name)).sort();
    const own = kind === "sources" ? names.filter((name) => !OTHERS.has(name)) : names;
    if (expected !== undefined && expected.join("/") !== own.join("/")) return { path: dir, what: "changed" };
    const settled = window.judge(found);
    // A name that is gone leaves no trace but this: it may have been there when the Go tool was reading.
    const known = before?.namesOf(dir, kind)?.join("/") === names.join("/");
    if (settled === "unsettled" && !known) return { path: dir, what: "changed" };
    const marks: number[] = [];
    for (const name of kind === "sources" ? names : []) {
      const mark = lookAt(join(dir, name));
      if (mark === undefined) return { path: join(dir, name), what: "changed" };
      // A link that leads nowhere, a name that is no UTF-8: what becomes of it would not be seen.
      if (mark === ABSENT) return { path: join(dir, name), what: "removed" };
      marks.push(mark);
    }
    if (settled !== "settled") moving.set(dir, markOf(found));
    const headers = takeHeaders(folder, { names, looks });
    const mark = settled === "settled" ? markOf(found) : RACY;
    folders.push({ dir, kind, mark, names, marks, ...(headers === undefined ? {} : { headers }) });
  }
  const files: [string, number][] = [];
  for (const path of new Set(plan.files)) {
    const mark = lookAt(path);
    if (mark === undefined || looks.isLed(path, window)) return { path, what: "changed" };
    files.push([path, mark]);
  }
  return { inputs: { folders, files, racy }, moving, startedAt };
}

function takeHeaders(
  { dir, headers, names: known }: InputPlan["folders"][number],
  { looks, names }: { readonly looks: Looks; readonly names: readonly string[] },
): readonly string[] | undefined {
  if (headers === "read") return names.map((name) => looks.header(join(dir, name)));
  return known?.join("/") === names.join("/") ? headers : undefined;
}

/**
 * Looks again, when the Go tool is done: only what is still the same is what it read.
 *
 * @param options.prover one that has looked at nothing before that; it may know the marks of folders from a moment ago
 * @param options.looks shared by all programs that were compiled together, as the prover is
 * @returns what to record, or the first change
 */
export function confirmInputs(
  draft: Draft,
  { looks, now, prover }: { readonly looks: Looks; readonly now: number; readonly prover: Prover },
): Inputs | Change {
  const { inputs, moving, startedAt } = draft;
  const change = prover.findChange(inputs);
  if (change !== undefined) return change;
  // A source that came and went between two looks shows in its folder only.
  for (const { dir, mark } of inputs.folders) {
    const expected = mark === RACY ? moving.get(dir) : mark;
    if (expected !== undefined && prover.folderMark(dir) !== expected) return { path: dir, what: "changed" };
  }
  const window = new Window(startedAt, now);
  // And what had another's name meanwhile shows in its own.
  for (const path of [...inputs.folders.map(({ dir }) => dir), ...inputs.files.map(([file]) => file)]) {
    if (looks.isLed(path, window)) return { path, what: "changed" };
  }
  for (const [path] of inputs.racy) {
    const found = look(path);
    if (found === undefined || window.judge(found) === "unsettled") return { path, what: "changed" };
  }
  return inputs;
}

/** Compares records with what is there now. Within one prover each file and folder is looked at once. */
export class Prover {
  readonly #marks = new Map<string, number>();
  readonly #names = new Map<string, readonly string[]>();
  readonly #digests = new Map<string, string>();
  readonly #folders = new Map<string, number>();
  /** Folder states that were found true: records of several programs share most of them. */
  readonly #proved = new Map<string, FolderState>();

  /**
   * The first difference, or undefined if all is as it was.
   *
   * @param alike gets the Go files that have changed, but not in what `go list` reads of them: they are no differences then
   */
  findChange(inputs: Inputs, alike?: Set<string>): Change | undefined {
    for (const [path, mark] of inputs.files) {
      const is = this.#fileMarkOf(path);
      if (is === mark) continue;
      return { path, what: mark === ABSENT ? "added" : is === ABSENT ? "removed" : "changed" };
    }
    for (const folder of inputs.folders) {
      const change = this.#findFolderChange(folder, alike);
      if (change !== undefined) return change;
    }
    for (const [path, digest] of inputs.racy) {
      if (alike?.has(path) !== true && this.#digestOf(path) !== digest) return { path, what: "changed" };
    }
    return undefined;
  }

  /** Gets to know the names of folders, to be compared when the Go tool is done. */
  noteNames({ folders }: Inputs): void {
    for (const { dir, kind, mark, names } of folders) {
      if (this.namesOf(dir, kind) !== undefined) continue;
      if (markOf(look(dir)) === mark) this.#names.set(`${kind} ${dir}`, names);
      else this.#namesIn(dir, kind);
    }
  }

  /** Looks at folders themselves, now: later there may be something else in them that we have made. */
  noteFolders({ folders }: Inputs): void {
    for (const { dir } of folders) this.folderMark(dir);
  }

  /** The mark of a folder itself, from when it was first asked for. */
  folderMark(dir: string): number {
    let mark = this.#folders.get(dir);
    if (mark === undefined) this.#folders.set(dir, (mark = markOf(look(dir))));
    return mark;
  }

  /** The names of a folder, if they are known. */
  namesOf(dir: string, kind: FolderKind): readonly string[] | undefined {
    return this.#names.get(`${kind} ${dir}`);
  }

  #findFolderChange(folder: FolderState, alike: Set<string> | undefined): Change | undefined {
    const { dir, kind, mark, names, marks, headers } = folder;
    const proved = this.#proved.get(`${kind} ${dir}`);
    if (proved !== undefined && isSameState(proved, folder)) return undefined;
    const is = markOf(look(dir));
    if (is === ABSENT) return { path: dir, what: "removed" };
    if (is !== mark) {
      const now = this.#namesIn(dir, kind);
      const added = now.find((name) => !names.includes(name));
      if (added !== undefined) return { path: join(dir, added), what: "added" };
      const removed = names.find((name) => !now.includes(name));
      if (removed !== undefined) return { path: join(dir, removed), what: "removed" };
    } else this.#names.set(`${kind} ${dir}`, names);
    let isSame = true;
    for (const [i, expected] of marks.entries()) {
      const path = `${dir}/${names[i]}`;
      const found = this.#fileMarkOf(path);
      if (found === expected) continue;
      const header = headers?.[i] ?? "";
      if (alike === undefined || header === "" || digestOfHeader(path) !== header) {
        return { path, what: found === ABSENT ? "removed" : "changed" };
      }
      alike.add(path);
      isSame = false;
    }
    if (isSame) this.#proved.set(`${kind} ${dir}`, folder);
    return undefined;
  }

  #fileMarkOf(path: string): number {
    let mark = this.#marks.get(path);
    if (mark === undefined) this.#marks.set(path, (mark = fileMarkOf(look(path))));
    return mark;
  }

  #namesIn(dir: string, kind: FolderKind): readonly string[] {
    const key = `${kind} ${dir}`;
    let names = this.#names.get(key);
    if (names === undefined) this.#names.set(key, (names = namesIn(dir, kind)));
    return names;
  }

  #digestOf(path: string): string {
    let digest = this.#digests.get(path);
    if (digest === undefined) this.#digests.set(path, (digest = digestOfFile(path)));
    return digest;
  }
}

/**
 * Inputs that were just found true, with better marks: what was racy when it was recorded need not be so any more.
 *
 * @returns undefined if there is nothing to gain, or something has changed meanwhile
 */
export function refreshInputs(inputs: Inputs, now: number): Inputs | undefined {
  if (inputs.racy.length === 0 && inputs.folders.every(({ mark }) => mark !== RACY)) return undefined;
  const plan: InputPlan = { folders: inputs.folders, files: inputs.files.map(([path]) => path) };
  const draft = takeInputs(plan, { startedAt: now, now });
  if (!("inputs" in draft)) return undefined;
  const withoutMarks = ({ folders, files }: Inputs): string =>
    JSON.stringify([folders.map((folder) => ({ ...folder, mark: RACY })), files]);
  return withoutMarks(draft.inputs) === withoutMarks(inputs) ? draft.inputs : undefined;
}

function isSameState(a: FolderState, b: FolderState): boolean {
  if (a === b) return true;
  if (a.mark !== b.mark || a.names.length !== b.names.length || a.marks.length !== b.marks.length) return false;
  return a.names.every((name, i) => name === b.names[i]) && a.marks.every((mark, i) => mark === b.marks[i]);
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
function fileMarkOf(found: Stats | undefined): number {
  return found?.isDirectory() === true ? FOLDER : markOf(found);
}

/** What is at a path. */
interface Found {
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

/** What `stat` tells, or undefined if it is not there or cannot be reached. */
export function look(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** The names in a folder, sorted; none if it is not there or cannot be read. */
export function readNames(dir: string): readonly string[] {
  try {
    return readdirSync(dir).sort();
  } catch {
    return [];
  }
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

function namesIn(dir: string, kind: FolderKind): readonly string[] {
  try {
    if (kind === "entries") return readdirSync(dir).sort();
    const entries = readdirSync(dir, { withFileTypes: true });
    const isWanted = (entry: Dirent): boolean =>
      entry.isDirectory() ? kind === "tree" && isWalkedName(entry.name) : isSourceName(entry.name);
    return entries
      .filter(isWanted)
      .map(({ name }) => name)
      .sort();
  } catch {
    return [];
  }
}

function digestOfFile(path: string): string {
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
