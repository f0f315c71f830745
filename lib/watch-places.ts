/**
 * What `--watch` keeps an eye on, as plain data, and what a changed path means: which programs, the YAML, the
 * configuration, or what the arguments name.
 *
 * Tests, `.git` and what editors leave beside a file mean nothing. Where the places come from is watch-plan.ts's job; it
 * looks at no file.
 */
import { basename, dirname, sep } from "node:path";
import { isSourceName } from "./fingerprint.ts";
import { ancestors, globMatcher } from "./go-sources.ts";
import { isYamlName } from "./yaml-inputs.ts";

/** Which names of a folder count. */
export type WatchedKind =
  /** Those that decide what a Go package consists of. */
  | "sources"
  /** The same, and subfolders. */
  | "source tree"
  /** Files that `-f` takes from a folder. */
  | "yaml"
  /** The same, and subfolders. */
  | "yaml tree"
  /** All but what editors leave. */
  | "all"
  /** None by itself: patterns of `//go:embed` say which. */
  | "embed";

/** Where something can change. All paths are absolute. */
export interface Places {
  /** Exact paths, whether something is there or not. */
  readonly files: readonly string[];
  /** A folder need not be there: what appears in its place counts too. */
  readonly folders: readonly { readonly dir: string; readonly kind: WatchedKind }[];
  /** A package's folder and one of its patterns, as go has it. */
  readonly embeds: readonly { readonly dir: string; readonly pattern: string }[];
}

/** What there is to watch. */
export interface WatchPlan {
  /** By import path. */
  readonly programs: ReadonlyMap<string, Places>;
  /** Which programs the arguments name, or whether they name one, may change with these. */
  readonly args: Places;
  readonly yaml: Places;
  readonly config: Places;
}

/** What became of a path. */
export interface PathChange {
  /** Absolute. */
  readonly path: string;
  /** What is there now. "names": a folder of which names have come or gone, nobody knows which. */
  readonly is: "file" | "folder" | "gone" | "names";
  /** It may have been there for a moment only, as an editor's temporary file. @default false */
  readonly isPassing?: boolean;
}

/** What a change means. */
export interface Affected {
  /** Import paths. */
  readonly programs: ReadonlySet<string>;
  readonly args: boolean;
  readonly yaml: boolean;
  readonly config: boolean;
}

export const NOWHERE: Places = { files: [], folders: [], embeds: [] };

export const NOTHING_TO_WATCH: WatchPlan = { programs: new Map(), args: NOWHERE, yaml: NOWHERE, config: NOWHERE };

/** Swap and backup files of vim, Emacs, JetBrains, gedit; vim's test for whether it may write to a folder. */
const EDITORS = /~$|^#.*#$|^\.#|^\..*\.sw[a-px]$|^4913$|___jb_(?:tmp|old)___$|^\.goutputstream-/;

/** All places of several. */
export function joinPlaces(places: readonly Places[]): Places {
  return {
    files: [...new Set(places.flatMap(({ files }) => files))],
    folders: places.flatMap(({ folders }) => folders),
    embeds: places.flatMap(({ embeds }) => embeds),
  };
}

/** Whether anything is affected at all. */
export function isAffected({ programs, args, yaml, config }: Affected): boolean {
  return programs.size > 0 || args || yaml || config;
}

export function joinAffected(all: readonly Affected[]): Affected {
  return {
    programs: new Set(all.flatMap(({ programs }) => [...programs])),
    args: all.some(({ args }) => args),
    yaml: all.some(({ yaml }) => yaml),
    config: all.some(({ config }) => config),
  };
}

/** Whose a place is: a program, by import path, or one of the others. */
interface Owner {
  readonly of: "program" | "args" | "yaml" | "config";
  readonly importPath: string;
}

/** A plan that can be asked. */
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

  /** The folders to watch, each without those below it; they need not be there. */
  get folders(): ReadonlySet<string> {
    return new Set([...this.#folders.keys(), ...Array.from(this.#files.keys(), (path) => dirname(path))]);
  }

  /** Folders with Go sources. */
  get packages(): number {
    return this.#folders.values().reduce((count, kinds) => count + (kinds.has("sources") ? 1 : 0), 0);
  }

  /** Whether a change of this path may mean anything, whatever is there now. Quick: it is asked of every event. */
  mayAffect(path: string): boolean {
    if (this.#above.has(path) || this.#folders.has(path)) return true;
    return isAffected(this.affectedBy({ path, is: "folder" })) || isAffected(this.affectedBy({ path, is: "file" }));
  }

  /** What a change means. */
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
    // What has places below it came or went.
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

/** A pattern of `//go:embed`, asked about paths below the package's folder. https://pkg.go.dev/embed */
class EmbedPattern {
  readonly #parts: readonly ((name: string) => boolean)[];
  readonly #all: boolean;

  constructor(pattern: string) {
    this.#all = pattern.startsWith("all:");
    const parts = pattern.replace(/^all:/, "").split("/");
    this.#parts = parts.filter((part) => part !== "" && part !== ".").map(globMatcher);
  }

  /** Whether the path is embedded, or, of a folder, may lead to what is. */
  matches(path: string, isFolder: boolean): boolean {
    const names = path.split(sep);
    if (names.length < this.#parts.length && !isFolder) return false;
    return names.every((name, i) => {
      const part = this.#parts[i];
      // Below a folder that is matched: all but what is hidden.
      return part === undefined ? this.#all || !/^[._]/.test(name) : part(name);
    });
  }
}
