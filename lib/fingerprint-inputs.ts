/**
 * The inputs of a build: taken before the Go tool runs, confirmed after it, and proved unchanged in later runs.
 *
 * Every input is compared by its mark (fingerprint.ts), and by its content too where the mark is racy. Of a folder the
 * names that count are compared, and only where its own mark has changed.
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
  OTHERS,
  RACY,
  Window,
} from "./fingerprint.ts";

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
