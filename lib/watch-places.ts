/**
 * The places that `--watch` watches, as plain data, and the meaning of a changed path: the programs that it affects, the
 * YAML, the configuration, or the arguments.
 *
 * Tests, `.git` and the backup files of editors mean nothing. watch-plan.ts finds the places; this module reads no file.
 */
import { basename, dirname, sep } from "node:path";
import { ancestors } from "./file.ts";
import { isSourceName } from "./fingerprint.ts";
import { globMatcher } from "./go-sources.ts";
import { isYamlName } from "./yaml-inputs.ts";

/** The names of a folder that count. */
export type WatchedKind =
  /** Files of a Go package. */
  | "sources"
  /** The same, and subfolders. */
  | "source tree"
  /** Files that `-f` reads in a folder. */
  | "yaml"
  /** The same, and subfolders. */
  | "yaml tree"
  /** All but the backup files of editors. */
  | "all"
  /** None: patterns of `//go:embed` decide. */
  | "embed";

/** Paths that can change. All are absolute. */
export interface Places {
  /** Exact paths; they need not exist. */
  readonly files: readonly string[];
  /** They need not exist: a folder that appears counts too. */
  readonly folders: readonly { readonly dir: string; readonly kind: WatchedKind }[];
  /** The folder of a package and one of its `//go:embed` patterns, as `go list` prints it. */
  readonly embeds: readonly { readonly dir: string; readonly pattern: string }[];
}

/** All places of a watch, by the work that a change of them makes due. */
export interface WatchPlan {
  /** By import path. */
  readonly programs: ReadonlyMap<string, Places>;
  /** Decide which programs the arguments name. */
  readonly args: Places;
  readonly yaml: Places;
  readonly config: Places;
}

/** A changed path. */
export interface PathChange {
  /** Absolute. */
  readonly path: string;
  /** The state after the change. "names": a folder in which unknown names appeared or disappeared. */
  readonly is: "file" | "folder" | "gone" | "names";
  /** The path may have existed for a moment only, as a temporary file of an editor. @default false */
  readonly isPassing?: boolean;
}

/** The work that a change makes due. */
export interface Affected {
  /** Import paths. */
  readonly programs: ReadonlySet<string>;
  readonly args: boolean;
  readonly yaml: boolean;
  readonly config: boolean;
}

export const NOWHERE: Places = { files: [], folders: [], embeds: [] };

export const NOTHING_TO_WATCH: WatchPlan = { programs: new Map(), args: NOWHERE, yaml: NOWHERE, config: NOWHERE };

/** Swap and backup files of vim, Emacs, JetBrains and gedit; `4913`, by which vim tests whether it can write to a folder. */
const EDITORS = /~$|^#.*#$|^\.#|^\..*\.sw[a-px]$|^4913$|___jb_(?:tmp|old)___$|^\.goutputstream-/;

/** Returns the union of places. */
export function joinPlaces(places: readonly Places[]): Places {
  return {
    files: [...new Set(places.flatMap(({ files }) => files))],
    folders: places.flatMap(({ folders }) => folders),
    embeds: places.flatMap(({ embeds }) => embeds),
  };
}

/** Reports whether a change makes any work due. */
export function isAffected({ programs, args, yaml, config }: Affected): boolean {
  return programs.size > 0 || args || yaml || config;
}

/** Returns the union of due work. */
export function joinAffected(all: readonly Affected[]): Affected {
  return {
    programs: new Set(all.flatMap(({ programs }) => [...programs])),
    args: all.some(({ args }) => args),
    yaml: all.some(({ yaml }) => yaml),
    config: all.some(({ config }) => config),
  };
}

/** The part of a {@link WatchPlan} that a place belongs to; `importPath` is empty except for programs. */
interface Owner {
  readonly of: "program" | "args" | "yaml" | "config";
  readonly importPath: string;
}

/** A {@link WatchPlan} indexed by path. */
export class WatchSet {
  readonly #files = new Map<string, Set<Owner>>();
  readonly #folders = new Map<string, Map<WatchedKind, Set<Owner>>>();
  readonly #embeds = new Map<string, { readonly pattern: EmbedPattern; readonly owner: Owner }[]>();
  /** All folders above places. */
  readonly #above = new Set<string>();

  constructor(plan: WatchPlan) {
    for (const [importPath, places] of plan.programs) this.#add(places, { of: "program", importPath });
    for (const of of ["args", "yaml", "config"] as const) this.#add(plan[of], { of, importPath: "" });
    for (const path of [...this.#files.keys(), ...this.#folders.keys()]) {
      for (const above of ancestors(dirname(path))) {
        if (this.#above.has(above)) break;
        this.#above.add(above);
      }
    }
  }

  /** The folders to watch, not recursively; they need not exist. */
  get folders(): ReadonlySet<string> {
    return new Set([...this.#folders.keys(), ...Array.from(this.#files.keys(), (path) => dirname(path))]);
  }

  /** Folders with Go sources. */
  get packages(): number {
    return this.#folders.values().reduce((count, kinds) => count + (kinds.has("sources") ? 1 : 0), 0);
  }

  /** Reports whether a change of this path may affect anything. Fast, because it runs for every event. */
  mayAffect(path: string): boolean {
    if (this.#above.has(path) || this.#folders.has(path)) return true;
    return isAffected(this.affectedBy({ path, is: "folder" })) || isAffected(this.affectedBy({ path, is: "file" }));
  }

  /** Returns the work that a change makes due. */
  affectedBy(change: PathChange): Affected {
    const owners = new Set<Owner>();
    const take = (more: Iterable<Owner> | undefined): void => {
      for (const owner of more ?? []) owners.add(owner);
    };
    const { path, is } = change;
    if (is === "names") {
      for (const found of this.#folders.get(path)?.values() ?? []) take(found);
      return sortOut(owners);
    }
    take(this.#files.get(path));
    for (const found of this.#folders.get(path)?.values() ?? []) take(found);
    // A folder above watched places appeared or disappeared.
    if (this.#above.has(path)) this.#takeBelow(path, take);
    const name = basename(path);
    for (const [kind, found] of this.#folders.get(dirname(path)) ?? []) if (counts(kind, name, is)) take(found);
    if (this.#embeds.size > 0 && !EDITORS.test(name)) {
      for (const dir of ancestors(dirname(path))) {
        for (const { pattern, owner } of this.#embeds.get(dir) ?? []) {
          if (!owners.has(owner) && pattern.matches(path.slice(dir.length + 1), is === "folder")) owners.add(owner);
        }
      }
    }
    return sortOut(owners);
  }

  #add({ files, folders, embeds }: Places, owner: Owner): void {
    for (const path of files) addTo(this.#files, path, owner);
    for (const { dir, kind } of folders) {
      let kinds = this.#folders.get(dir);
      if (kinds === undefined) this.#folders.set(dir, (kinds = new Map()));
      addTo(kinds, kind, owner);
    }
    for (const { dir, pattern } of embeds) {
      const known = this.#embeds.get(dir) ?? [];
      known.push({ pattern: new EmbedPattern(pattern), owner });
      this.#embeds.set(dir, known);
    }
  }

  #takeBelow(path: string, take: (owners: Iterable<Owner>) => void): void {
    const prefix = path.endsWith(sep) ? path : `${path}${sep}`;
    for (const [file, owners] of this.#files) if (file.startsWith(prefix)) take(owners);
    for (const [dir, kinds] of this.#folders) {
      if (dir.startsWith(prefix)) for (const owners of kinds.values()) take(owners);
    }
  }
}

function addTo<K>(map: Map<K, Set<Owner>>, key: K, owner: Owner): void {
  const known = map.get(key);
  if (known === undefined) map.set(key, new Set([owner]));
  else known.add(owner);
}

function sortOut(owners: ReadonlySet<Owner>): Affected {
  const has = (of: Owner["of"]): boolean => owners.values().some((owner) => owner.of === of);
  const programs = [...owners].filter(({ of }) => of === "program").map(({ importPath }) => importPath);
  return { programs: new Set(programs), args: has("args"), yaml: has("yaml"), config: has("config") };
}

function counts(kind: WatchedKind, name: string, is: PathChange["is"]): boolean {
  switch (kind) {
    case "sources":
      return isSourceName(name) && !EDITORS.test(name);
    case "source tree":
      return counts("sources", name, is) || (is === "folder" && !/^[._]/.test(name));
    case "yaml":
      return isYamlName(name);
    case "yaml tree":
      return isYamlName(name) || (is === "folder" && !name.startsWith("."));
    case "all":
      return !EDITORS.test(name);
    case "embed":
      return false;
  }
}

/** A pattern of `//go:embed`, relative to the folder of the package. https://pkg.go.dev/embed */
class EmbedPattern {
  readonly #parts: readonly ((name: string) => boolean)[];
  readonly #all: boolean;

  constructor(pattern: string) {
    this.#all = pattern.startsWith("all:");
    const parts = pattern.replace(/^all:/, "").split("/");
    this.#parts = parts.filter((part) => part !== "" && part !== ".").map(globMatcher);
  }

  /** Reports whether a file is embedded, or whether a folder is or may hold embedded files. */
  matches(path: string, isFolder: boolean): boolean {
    const names = path.split(sep);
    if (names.length < this.#parts.length && !isFolder) return false;
    return names.every((name, i) => {
      const part = this.#parts[i];
      // A matched folder is embedded with all files but hidden ones.
      return part === undefined ? this.#all || !/^[._]/.test(name) : part(name);
    });
  }
}
