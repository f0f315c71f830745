/**
 * The inputs of a build: recorded right after `go list`, confirmed after `go build`, and compared in later runs.
 *
 * Files are compared by mark (fingerprint.ts), racy ones by content too, and Go files by header where only `go list`
 * counts. A folder's names are read only if its own mark has changed.
 */
import { readFileSync, type Stats } from "node:fs";
import { dirname, join } from "node:path";
import { look } from "./file.ts";
import type { Change, FolderState, Inputs, Prover } from "./fingerprint-prover.ts";
import {
  ABSENT,
  digestOfFile,
  fileMarkOf,
  type FolderKind,
  isSourceName,
  isNamed,
  Looks,
  markOf,
  namesIn,
  RACY,
  UNLISTED,
  Window,
} from "./fingerprint.ts";
import { isObject } from "./json.ts";

/** The files and folders to record. */
export interface InputPlan {
  readonly folders: readonly FolderPlan[];
  /** Absolute. A missing file is an input too: it must stay missing. */
  readonly files: readonly string[];
}

export interface FolderPlan {
  /** Absolute. */
  readonly dir: string;
  readonly kind: FolderKind;
  /** The sources that `go list` found in it, without tests, in any order; undefined if it did not list the folder. */
  readonly seen?: readonly string[] | undefined;
  /** "read" reads the headers of Go files. A list has those of `names`, and is used if the folder has these names. */
  readonly headers?: "read" | readonly string[] | undefined;
  /** The names of "embedded" and "files", sorted. For other kinds those that `headers` belong to. */
  readonly names?: readonly string[] | undefined;
  /** The name in the package clause: tests of this package are no inputs. Undefined takes all tests for inputs. */
  readonly package?: string | undefined;
  /** Files that are never read: only their names count. */
  readonly unread?: ReadonlySet<string> | undefined;
  /** The folder of a module in the module cache that the folder belongs to, absolute. */
  readonly module?: string | undefined;
}

/** The inputs that {@link takeInputs} recorded, to be confirmed when the Go tool is done. */
export interface Draft {
  readonly inputs: Inputs;
  /** The marks of folders that changed shortly before. They must not change again until the end. */
  readonly moving: ReadonlyMap<string, number>;
  /** Paths in modules that go has just extracted itself, and the folder above each module. */
  readonly fresh: ReadonlyMap<string, string>;
  /** Start of the Go tool, in milliseconds since 1970. */
  readonly startedAt: number;
}

/**
 * Records the inputs of a plan, right after `go list`, before or while `go build` runs.
 *
 * @param options.startedAt milliseconds since 1970, before the Go tool was started
 * @param options.now milliseconds since 1970
 * @param options.looks shared by plans of the same moment, which have most files in common
 * @param options.before knows names from before the start of the Go tool, which allow for a folder that changed since
 * @returns the inputs, or the one that may have changed while the Go tool read it
 */
export function takeInputs(plan: InputPlan, options: TakeOptions): Draft | Change {
  return new Taking(options).take(plan);
}

interface TakeOptions {
  readonly startedAt: number;
  readonly now: number;
  readonly before?: Prover | undefined;
  readonly looks?: Looks;
}

class Taking {
  readonly #before: Prover | undefined;
  readonly #looks: Looks;
  readonly #startedAt: number;
  readonly #window: Window;
  readonly #racy: [string, string][] = [];
  readonly #moving = new Map<string, number>();
  readonly #fresh = new Map<string, string>();

  constructor({ before, looks = new Looks(), now, startedAt }: TakeOptions) {
    this.#before = before;
    this.#looks = looks;
    this.#startedAt = startedAt;
    this.#window = new Window(startedAt, now);
  }

  take(plan: InputPlan): Draft | Change {
    const folders: FolderState[] = [];
    for (const folder of plan.folders) {
      const state = this.#takeFolder(folder);
      if ("what" in state) return state;
      folders.push(state);
    }
    const files: [string, number][] = [];
    for (const path of new Set(plan.files)) {
      const mark = this.#takeFile(path, { isFollowed: true });
      if (mark === undefined || this.#looks.isRedirected(path, this.#window)) return { path, what: "changed" };
      files.push([path, mark]);
    }
    const inputs = { folders, files, racy: this.#racy };
    return { inputs, moving: this.#moving, fresh: this.#fresh, startedAt: this.#startedAt };
  }

  #takeFolder(folder: FolderPlan): FolderState | Change {
    const { dir, kind, module, package: packageName, seen } = folder;
    const { found } = this.#looks.at(dir);
    if (found === undefined) return { path: dir, what: "removed" };
    const above = module !== undefined && this.#isFresh(module) ? dirname(module) : undefined;
    if (above !== undefined) this.#fresh.set(dir, above);
    if (this.#looks.isRedirected(above ?? dir, this.#window)) return { path: dir, what: "changed" };
    const names = isNamed(kind) ? (folder.names ?? []) : this.#looks.names(dir, kind);
    const expected = seen?.filter((name) => isSourceName(name) && !UNLISTED.has(name)).sort();
    const own = names.filter((name) => isSourceName(name) && !UNLISTED.has(name));
    if (expected !== undefined && expected.join("/") !== own.join("/")) return { path: dir, what: "changed" };
    const settled = this.#window.judge(found);
    // A name that was removed while the Go tool was reading shows only in the folder's time.
    const known = isNamed(kind) || this.#before?.namesOf(dir, kind)?.join("/") === names.join("/");
    const isOwn = above !== undefined && isLocked(found);
    if (settled === "unsettled" && !known && !isOwn) return { path: dir, what: "changed" };
    const { unread } = folder;
    const marks = this.#takeMarks({ dir, kind, names, unread }, { above, ownUntil: isOwn ? found.ctimeMs : undefined });
    if ("what" in marks) return marks;
    const state = { dir, kind, names, marks, ...(packageName === undefined ? {} : { package: packageName }) };
    if (isNamed(kind)) return { ...state, mark: 0 };
    if (settled !== "settled") this.#moving.set(dir, markOf(found));
    const headers = takeHeaders(folder, { names, looks: this.#looks });
    const mark = settled === "settled" ? markOf(found) : RACY;
    return { ...state, mark, ...(headers === undefined ? {} : { headers }) };
  }

  #takeMarks(
    { dir, kind, names, unread }: Pick<FolderState, "dir" | "kind" | "names"> & Pick<FolderPlan, "unread">,
    { above, ownUntil }: { readonly above: string | undefined; readonly ownUntil: number | undefined },
  ): readonly number[] | Change {
    const marks: number[] = [];
    if (kind === "entries") return marks;
    for (const name of names) {
      if (name.endsWith("/") || unread?.has(name) === true) {
        marks.push(0);
        continue;
      }
      const path = join(dir, name);
      if (above !== undefined) this.#fresh.set(path, above);
      // Go writes some files of its download cache after it has extracted a module, and one whenever that is missing.
      const isWritten = kind === "files" && (above !== undefined || isPlainInfo(dir, name));
      const own = isWritten ? Infinity : ownUntil;
      if (isWritten) this.#fresh.set(path, above ?? dir);
      const mark = this.#takeFile(path, { isFollowed: kind !== "embedded", ownUntil: own });
      if (mark === undefined) return { path, what: "changed" };
      // A broken symlink, or a name that is not UTF-8: its later changes would not be seen.
      if (mark === ABSENT && !isNamed(kind)) return { path, what: "removed" };
      marks.push(mark);
    }
    return marks;
  }

  /**
   * The mark of a file; undefined if the Go tool may have read another.
   *
   * @param options.isFollowed of symlinks
   * @param options.ownUntil a change up to this time was made by the Go tool itself
   */
  #takeFile(
    path: string,
    { isFollowed, ownUntil = 0 }: { readonly isFollowed: boolean; readonly ownUntil?: number | undefined },
  ): number | undefined {
    const { found, itself, link } = this.#looks.at(path);
    if (link !== undefined && this.#looks.isRedirected(path, this.#window)) return undefined;
    const counts = isFollowed ? found : itself;
    const mark = fileMarkOf(counts);
    if (counts === undefined || counts.isDirectory()) return mark;
    const settled = this.#window.judge(counts);
    if (settled === "unsettled" && (link !== undefined || counts.ctimeMs > ownUntil)) return undefined;
    if (settled !== "settled") this.#racy.push([path, digestOfFile(path)]);
    return mark;
  }

  /** Whether go has just extracted a module into the module cache, and closed it for changes then. */
  #isFresh(module: string): boolean {
    const { found, link } = this.#looks.at(module);
    return found !== undefined && link === undefined && isLocked(found) && this.#window.judge(found) === "unsettled";
  }
}

/** Whether the last change of a folder took the permission to write away, as go does when a module is extracted. */
function isLocked({ ctimeMs, mode, mtimeMs }: Stats): boolean {
  return (mode & 0o222) === 0 && ctimeMs > mtimeMs;
}

/** Whether a file of the download cache says of a module's version what its name says: of it go uses nothing else. */
function isPlainInfo(dir: string, name: string): boolean {
  if (!name.endsWith(".info")) return false;
  try {
    const value: unknown = JSON.parse(readFileSync(join(dir, name), "utf8"));
    const version = isObject(value) && typeof value["Version"] === "string" ? value["Version"] : "";
    return `${version.replace(/[A-Z]/g, (letter) => `!${letter.toLowerCase()}`)}.info` === name;
  } catch {
    return false;
  }
}

function takeHeaders(
  { dir, headers, names: known }: FolderPlan,
  { looks, names }: { readonly looks: Looks; readonly names: readonly string[] },
): readonly string[] | undefined {
  if (headers === "read") return names.map((name) => looks.header(join(dir, name)));
  return known?.join("/") === names.join("/") ? headers : undefined;
}

/**
 * Compares the inputs again when the Go tool is done: only if they are unchanged has it read them as recorded.
 *
 * @param options.prover a new one; it may know the marks of folders from a moment ago
 * @param options.looks shared, like the prover, by all programs that were compiled together
 * @returns the inputs, or the first change
 */
export function confirmInputs(
  draft: Draft,
  { looks, now, prover }: { readonly looks: Looks; readonly now: number; readonly prover: Prover },
): Inputs | Change {
  const { fresh, inputs, moving, startedAt } = draft;
  const change = prover.findChange(inputs);
  if (change !== undefined) return change;
  // A source that was added and removed between two looks shows only in its folder.
  for (const { dir, kind, mark } of inputs.folders) {
    if (isNamed(kind)) continue;
    const expected = mark === RACY ? moving.get(dir) : mark;
    if (expected !== undefined && prover.folderMark(dir) !== expected) return { path: dir, what: "changed" };
  }
  const window = new Window(startedAt, now);
  // A file that had another's name meanwhile shows in its own times.
  for (const path of [...inputs.folders.map(({ dir }) => dir), ...inputs.files.map(([file]) => file)]) {
    if (looks.isRedirected(fresh.get(path) ?? path, window)) return { path, what: "changed" };
  }
  for (const [path] of inputs.racy) {
    if (fresh.has(path)) continue;
    const found = look(path);
    if (found === undefined || window.judge(found) === "unsettled") return { path, what: "changed" };
  }
  return inputs;
}

/** Files that the Go tool has written itself. */
export interface WrittenFiles {
  /** Absolute; it need not exist. All its names count. */
  readonly dir: string;
  /** The end of the names of those files that count. */
  readonly end: string;
}

/** Adds files that the Go tool has written to the inputs, after it has ended. */
export function addWritten(inputs: Inputs, { dir, end }: WrittenFiles): Inputs {
  if (look(dir) === undefined) return { ...inputs, files: [...inputs.files, [dir, ABSENT]] };
  const names = namesIn(dir, "entries");
  const paths = names.flatMap((name) => (name.endsWith(end) ? [join(dir, name)] : []));
  return {
    folders: [...inputs.folders, { dir, kind: "entries", mark: RACY, names, marks: [] }],
    files: [...inputs.files, ...paths.map((path) => [path, fileMarkOf(look(path))] as const)],
    racy: [...inputs.racy, ...paths.map((path) => [path, digestOfFile(path)] as const)],
  };
}

/**
 * Records inputs again that were just found unchanged, since some that were racy may have settled.
 *
 * @returns undefined if none was racy, or one has changed meanwhile
 */
export function refreshInputs(inputs: Inputs, now: number): Inputs | undefined {
  if (inputs.racy.length === 0 && inputs.folders.every(({ mark }) => mark !== RACY)) return undefined;
  const plan: InputPlan = {
    folders: inputs.folders.map((folder) => {
      return { ...folder, unread: new Set(folder.names.filter((_, i) => folder.marks[i] === 0)) };
    }),
    files: inputs.files.map(([path]) => path),
  };
  const draft = takeInputs(plan, { startedAt: now, now });
  if (!("inputs" in draft)) return undefined;
  const withoutMarks = ({ folders, files }: Inputs): string =>
    JSON.stringify([folders.map((folder) => ({ ...folder, mark: RACY })), files]);
  return withoutMarks(draft.inputs) === withoutMarks(inputs) ? draft.inputs : undefined;
}
