/**
 * Compares recorded inputs with the file system.
 *
 * A folder's names are read only if its own mark has changed.
 */
import { join } from "node:path";
import { look, lookAtLink } from "./file.ts";
import { digestOfHeader, isIdleTest } from "./fingerprint-header.ts";
import {
  ABSENT,
  digestOfFile,
  fileMarkOf,
  type FolderKind,
  isNamed,
  isTestName,
  markOf,
  namesIn,
} from "./fingerprint.ts";

/** Recorded inputs, as plain data for the cache. */
export interface Inputs {
  readonly folders: readonly FolderState[];
  /** Path and mark. */
  readonly files: readonly (readonly [path: string, mark: number])[];
  /** Racy files, with the digest of their content. */
  readonly racy: readonly (readonly [path: string, digest: string])[];
}

export interface FolderState {
  readonly dir: string;
  readonly kind: FolderKind;
  /** The folder's own mark, unless certain names count. With {@link RACY} the names are always compared. */
  readonly mark: number;
  /** Sorted. */
  readonly names: readonly string[];
  /** The marks of the files in `names`, in their order; 0 for a name without. None for "entries". */
  readonly marks: readonly number[];
  /** The digests of the headers of `names`, in their order; empty for a file without. Undefined if not read. */
  readonly headers?: readonly string[] | undefined;
  readonly package?: string | undefined;
}

/** An input that has changed. */
export interface Change {
  /** Absolute. */
  readonly path: string;
  readonly what: "changed" | "added" | "removed";
}

/** Compares recorded inputs with the file system. Each prover looks at a file or folder once. */
export class Prover {
  readonly #marks = new Map<string, number>();
  readonly #names = new Map<string, readonly string[]>();
  readonly #digests = new Map<string, string>();
  readonly #folders = new Map<string, number>();
  /** Tests that changed, and are no inputs. */
  readonly #idle = new Set<string>();
  /** Folder states that hold. The inputs of several programs share most folders. */
  readonly #proved = new Map<string, FolderState>();
  readonly #states = new Set<FolderState>();

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
      if (alike?.has(path) === true || this.#idle.has(path)) continue;
      if (this.#digestOf(path) !== digest) return { path, what: "changed" };
    }
    return undefined;
  }

  /** Notes the names in folders, for {@link takeInputs} after the Go tool has run. */
  noteNames({ folders }: Inputs): void {
    for (const { dir, kind, mark, names } of folders) {
      if (isNamed(kind) || this.namesOf(dir, kind) !== undefined) continue;
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
    const { dir, kind, names, marks, headers } = folder;
    if (this.#states.has(folder)) return undefined;
    const key = `${kind} ${dir}`;
    const proved = this.#proved.get(key);
    if (proved !== undefined && isSameState(proved, folder)) return undefined;
    if (isUntouched(folder)) {
      this.#proved.set(key, folder);
      this.#states.add(folder);
      return undefined;
    }
    const change = this.#findNameChange(folder);
    if (change !== undefined) return change;
    let isSame = true;
    for (const [i, expected] of marks.entries()) {
      if (expected === 0) continue;
      const name = names[i] ?? "";
      const path = `${dir}/${name}`;
      const found = kind === "embedded" ? fileMarkOf(lookAtLink(path)) : this.#fileMarkOf(path);
      if (found === expected) continue;
      const header = headers?.[i] ?? "";
      const isAlike = header !== "" && (alike !== undefined || isTestName(name)) && digestOfHeader(path) === header;
      if (isAlike && !isTestName(name)) {
        alike?.add(path);
        isSame = false;
      } else if (!isAlike && !this.#isIdle(name, folder)) {
        return { path, what: expected === ABSENT ? "added" : found === ABSENT ? "removed" : "changed" };
      } else this.#idle.add(path);
    }
    if (isSame) this.#proved.set(key, folder);
    return undefined;
  }

  #findNameChange(folder: FolderState): Change | undefined {
    const { dir, kind, mark, names } = folder;
    if (isNamed(kind)) return undefined;
    const is = markOf(look(dir));
    if (is === ABSENT) return { path: dir, what: "removed" };
    if (is === mark) {
      this.#names.set(`${kind} ${dir}`, names);
      return undefined;
    }
    const now = this.#namesIn(dir, kind);
    const added = now.find((name) => !names.includes(name) && !this.#isIdle(name, folder));
    if (added !== undefined) return { path: join(dir, withoutType(added)), what: "added" };
    const removed = names.find((name) => !now.includes(name) && !this.#isIdle(name, folder));
    return removed === undefined ? undefined : { path: join(dir, withoutType(removed)), what: "removed" };
  }

  /** Whether a file makes no difference to a build: a test without surprises, or one that was removed. */
  #isIdle(name: string, { dir, kind, package: packageName }: FolderState): boolean {
    if (isNamed(kind) || kind === "entries" || packageName === undefined || !isTestName(name)) return false;
    const path = `${dir}/${name}`;
    return lookAtLink(path) === undefined || isIdleTest(path, packageName);
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

/** The name of an entry without the sign of its type. */
function withoutType(name: string): string {
  return name.replace(/[/@]$/, "");
}

/** Reports whether two states of one folder are equal. */
export function isSameState(a: FolderState, b: FolderState): boolean {
  if (a === b) return true;
  if (a.dir !== b.dir || a.kind !== b.kind) return false;
  if (a.mark !== b.mark || a.names.length !== b.names.length || a.marks.length !== b.marks.length) return false;
  return a.names.every((name, i) => name === b.names[i]) && a.marks.every((mark, i) => mark === b.marks[i]);
}

/** Whether nothing in a folder has changed. A function of its own, because it looks at thousands of files per run. */
function isUntouched({ dir, kind, mark, marks, names }: FolderState): boolean {
  if (!isNamed(kind) && markOf(look(dir)) !== mark) return false;
  for (let i = 0; i < marks.length; i++) {
    if (marks[i] === 0) continue;
    const path = `${dir}/${names[i]}`;
    if (fileMarkOf(kind === "embedded" ? lookAtLink(path) : look(path)) !== marks[i]) return false;
  }
  return true;
}
