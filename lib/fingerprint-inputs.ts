/**
 * The inputs of a build: recorded right after `go list`, confirmed after `go build`, and compared in later runs.
 *
 * Files are compared by mark (fingerprint.ts), racy ones by content too, and Go files by header where only `go list`
 * counts. A folder's names are read only if its own mark has changed.
 */
import { join } from "node:path";
import { look } from "./file.ts";
import {
  ABSENT,
  digestOfFile,
  digestOfHeader,
  fileMarkOf,
  type FolderKind,
  isSourceName,
  Looks,
  markOf,
  namesIn,
  UNLISTED,
  RACY,
  Window,
} from "./fingerprint.ts";

/** The files and folders to record. */
export interface InputPlan {
  readonly folders: readonly {
    /** Absolute. */
    readonly dir: string;
    readonly kind: FolderKind;
    /** The sources that `go list` found in it, without tests, in any order; undefined if it did not list the folder. */
    readonly seen?: readonly string[] | undefined;
    /** "read" reads the headers of Go files. A list has those of `names`, and is used if the folder has these names. */
    readonly headers?: "read" | readonly string[] | undefined;
    readonly names?: readonly string[] | undefined;
  }[];
  /** Absolute. A missing file is an input too: it must stay missing. */
  readonly files: readonly string[];
}

/** Recorded inputs, as plain data for the cache. */
export interface Inputs {
  readonly folders: readonly FolderState[];
  /** Path and mark. */
  readonly files: readonly (readonly [path: string, mark: number])[];
  /** Racy files, with the digest of their content. */
  readonly racy: readonly (readonly [path: string, digest: string])[];
}

interface FolderState {
  readonly dir: string;
  readonly kind: FolderKind;
  /** The folder's own mark. With {@link RACY} the names are always compared. */
  readonly mark: number;
  /** Sorted. */
  readonly names: readonly string[];
  /** The marks of the files in `names`, in their order; for "sources" only. */
  readonly marks: readonly number[];
  /** The digests of the headers of `names`, in their order; empty for a file without. Undefined if not read. */
  readonly headers?: readonly string[] | undefined;
}

/** An input that has changed. */
export interface Change {
  /** Absolute. */
  readonly path: string;
  readonly what: "changed" | "added" | "removed";
}

/** The inputs that {@link takeInputs} recorded, to be confirmed when the Go tool is done. */
export interface Draft {
  readonly inputs: Inputs;
  /** The marks of folders that changed shortly before. They must not change again until the end. */
  readonly moving: ReadonlyMap<string, number>;
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
    if (link !== undefined && looks.isRedirected(path, window)) return undefined;
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
    if (looks.isRedirected(dir, window)) return { path: dir, what: "changed" };
    const names = looks.names(dir, kind);
    const expected = seen?.filter((name) => isSourceName(name) && !UNLISTED.has(name)).sort();
    const own = kind === "sources" ? names.filter((name) => !UNLISTED.has(name)) : names;
    if (expected !== undefined && expected.join("/") !== own.join("/")) return { path: dir, what: "changed" };
    const settled = window.judge(found);
    // A name that was removed while the Go tool was reading shows only in the folder's time.
    const known = before?.namesOf(dir, kind)?.join("/") === names.join("/");
    if (settled === "unsettled" && !known) return { path: dir, what: "changed" };
    const marks: number[] = [];
    for (const name of kind === "sources" ? names : []) {
      const mark = lookAt(join(dir, name));
      if (mark === undefined) return { path: join(dir, name), what: "changed" };
      // A broken symlink, or a name that is not UTF-8: its later changes would not be seen.
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
    if (mark === undefined || looks.isRedirected(path, window)) return { path, what: "changed" };
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
  const { inputs, moving, startedAt } = draft;
  const change = prover.findChange(inputs);
  if (change !== undefined) return change;
  // A source that was added and removed between two looks shows only in its folder.
  for (const { dir, mark } of inputs.folders) {
    const expected = mark === RACY ? moving.get(dir) : mark;
    if (expected !== undefined && prover.folderMark(dir) !== expected) return { path: dir, what: "changed" };
  }
  const window = new Window(startedAt, now);
  // A file that had another's name meanwhile shows in its own times.
  for (const path of [...inputs.folders.map(({ dir }) => dir), ...inputs.files.map(([file]) => file)]) {
    if (looks.isRedirected(path, window)) return { path, what: "changed" };
  }
  for (const [path] of inputs.racy) {
    const found = look(path);
    if (found === undefined || window.judge(found) === "unsettled") return { path, what: "changed" };
  }
  return inputs;
}

/** Compares recorded inputs with the file system. Each prover looks at a file or folder once. */
export class Prover {
  readonly #marks = new Map<string, number>();
  readonly #names = new Map<string, readonly string[]>();
  readonly #digests = new Map<string, string>();
  readonly #folders = new Map<string, number>();
  /** Folder states that hold. The inputs of several programs share most folders. */
  readonly #proved = new Map<string, FolderState>();

  /**
   * Finds the first change.
   *
   * @param alike gets the Go files that changed without a change of their header, which then do not count as changes
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

  /** Notes the names in folders, for {@link takeInputs} after the Go tool has run. */
  noteNames({ folders }: Inputs): void {
    for (const { dir, kind, mark, names } of folders) {
      if (this.namesOf(dir, kind) !== undefined) continue;
      if (markOf(look(dir)) === mark) this.#names.set(`${kind} ${dir}`, names);
      else this.#namesIn(dir, kind);
    }
  }

  /** Notes the marks of folders now, before ko writes files of its own into them. */
  noteFolders({ folders }: Inputs): void {
    for (const { dir } of folders) this.folderMark(dir);
  }

  /** The mark of a folder at the first call for it. */
  folderMark(dir: string): number {
    let mark = this.#folders.get(dir);
    if (mark === undefined) this.#folders.set(dir, (mark = markOf(look(dir))));
    return mark;
  }

  /** The noted names of a folder. */
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
 * Records inputs again that were just found unchanged, since some that were racy may have settled.
 *
 * @returns undefined if none was racy, or one has changed meanwhile
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
