/**
 * The inputs that programs have in common, kept once: the folders of Go's own packages and of the module cache.
 *
 * They are most of all inputs. A table holds those of all programs that were compiled together; a program's record names
 * its part of a table.
 */
import { sep } from "node:path";
import { type Cache, keyOf } from "./cache.ts";
import { refreshInputs } from "./fingerprint-inputs.ts";
import { type FolderState, type Inputs, isSameState } from "./fingerprint-prover.ts";
import { isObject } from "./json.ts";

/** A program's part of a table. */
export interface SharedPart {
  /** Of the table's record, which never changes. */
  readonly table: string;
  /** Positions in the table. */
  readonly folders: readonly number[];
}

/** Inputs that several programs have. */
export type SharedTable = Pick<Inputs, "folders" | "racy">;

/** A program's inputs, and the folders whose inputs it shares with others. */
interface Sharing {
  readonly inputs: Inputs;
  /** Absolute. */
  readonly common: readonly string[];
}

/** The version of the shape of tables. */
const FORMAT = 1;

/** Reads and writes tables, for one run. */
export class SharedInputs {
  readonly #cache: Cache;
  readonly #tables = new Map<string, SharedTable | undefined>();
  /** Tables with better marks, by the key of the older one. */
  readonly #better = new Map<string, string | undefined>();

  constructor(cache: Cache) {
    this.#cache = cache;
  }

  /** The inputs of a part; undefined if its table is missing or damaged. */
  read({ folders, table: key }: SharedPart): Inputs | undefined {
    const table = this.#read(key);
    if (table === undefined) return undefined;
    const own = folders.flatMap((at) => table.folders[at] ?? []);
    return own.length === folders.length ? { folders: own, files: [], racy: table.racy } : undefined;
  }

  /** Looks again at racy inputs that were just found unchanged. @returns undefined if nothing got better */
  refresh(part: SharedPart, now: number): SharedPart | undefined {
    const table = this.#read(part.table);
    if (table === undefined) return undefined;
    if (!this.#better.has(part.table)) {
      const better = refreshInputs({ ...table, files: [] }, now);
      this.#better.set(part.table, better && this.#write(better));
    }
    const better = this.#better.get(part.table);
    return better === undefined ? undefined : { ...part, table: better };
  }

  /**
   * Writes a program's part.
   *
   * @param together makes a table of all programs that were compiled together, if none of this run has the same folders
   * @returns the part, and the inputs of the program alone
   */
  write(program: Sharing, together: () => SharedTable): { readonly inputs: Inputs; readonly shared: SharedPart } {
    const [inputs, { folders }] = splitInputs(program);
    for (const [key, table] of this.#tables) {
      // Racy inputs are compared for all programs of a table.
      const found = table?.racy.length === 0 ? findPart(folders, table) : undefined;
      if (found !== undefined) return { inputs, shared: { table: key, folders: found } };
    }
    const table = together();
    return { inputs, shared: { table: this.#write(table), folders: findPart(folders, table) ?? [-1] } };
  }

  #read(key: string): SharedTable | undefined {
    if (!this.#tables.has(key)) {
      const value = this.#cache.read("shared", key);
      this.#tables.set(key, isTable(value) ? value : undefined);
    }
    return this.#tables.get(key);
  }

  #write({ folders, racy }: SharedTable): string {
    const table = { folders, racy };
    const key = keyOf([FORMAT, table]);
    if (this.#tables.get(key) === undefined) this.#cache.write("shared", key, table);
    this.#tables.set(key, table);
    return key;
  }
}

/** The inputs of a program alone, and those that it shares. */
function splitInputs({ common, inputs }: Sharing): readonly [own: Inputs, common: SharedTable] {
  const isCommon = (path: string): boolean => common.some((dir) => path.startsWith(`${dir}${sep}`));
  // Names of all kinds of files are inputs of few programs.
  const isShared = ({ dir, kind }: FolderState): boolean => kind !== "entries" && isCommon(dir);
  const [own, folders] = [false, true].map((is) => inputs.folders.filter((folder) => isShared(folder) === is));
  const marked = new Set(inputs.files.map(([path]) => path));
  const isOwn = ([path]: readonly [string, string]): boolean => !isCommon(path) || marked.has(path);
  const racy = inputs.racy.filter(([path]) => isCommon(path));
  return [
    { ...inputs, folders: own ?? [], racy: inputs.racy.filter(isOwn) },
    { folders: folders ?? [], racy },
  ];
}

/** The inputs of a program with those of its part of a table. */
export function joinInputs(own: Inputs, shared: SharedTable): Inputs {
  return { ...own, folders: [...own.folders, ...shared.folders], racy: [...own.racy, ...shared.racy] };
}

/** The positions of folders in a table; undefined if it lacks one. */
function findPart(own: Inputs["folders"], table: SharedTable): readonly number[] | undefined {
  const places = Map.groupBy(table.folders.keys(), (at) => table.folders[at]?.dir);
  const found: number[] = [];
  for (const folder of own) {
    const at = places.get(folder.dir)?.find((each) => isSame(folder, table.folders[each]));
    if (at === undefined) return undefined;
    found.push(at);
  }
  return found;
}

function isSame(a: FolderState, b: FolderState | undefined): boolean {
  return b !== undefined && isSameState(a, b) && a.package === b.package;
}

/** A table of the inputs that several programs share, each once. */
export function tableOf(programs: readonly Sharing[]): SharedTable {
  const all = programs.map((program) => splitInputs(program)[1]);
  const folders = new Map<string, FolderState[]>();
  for (const folder of all.flatMap((table) => table.folders)) {
    const known = folders.get(folder.dir);
    if (known === undefined) folders.set(folder.dir, [folder]);
    else if (!known.some((each) => isSame(folder, each))) known.push(folder);
  }
  return { folders: [...folders.values()].flat(), racy: [...new Map(all.flatMap(({ racy }) => racy))] };
}

/** Records carry a checksum: their shape only has to tell which version of ko wrote them. */
function isTable(value: unknown): value is SharedTable {
  return isObject(value) && Array.isArray(value["folders"]) && Array.isArray(value["racy"]);
}
