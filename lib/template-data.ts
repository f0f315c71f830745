/**
 * The data of templates: their names, which of them a template can read, and which of them it has read.
 *
 * `Env` and `GoEnv` hold secrets, so no template may write one of them as a whole into a binary.
 */
import { findNearest } from "./errors.ts";
import { encodeText, type GoMap, TemplateProblem, type Value } from "./template-format.ts";

/** The state of a git work tree. Texts are empty outside of a repository and before the first commit. */
export interface GitInfo {
  /** `HEAD` if no branch is checked out. */
  readonly Branch: string;
  /** The nearest tag that HEAD descends from; `v0.0.0` if there is none. */
  readonly Tag: string;
  readonly ShortCommit: string;
  readonly FullCommit: string;
  /** RFC 3339, in UTC; year 1 without a commit. */
  readonly CommitDate: string;
  /** Seconds since 1970. */
  readonly CommitTimestamp: number;
  readonly IsDirty: boolean;
  readonly IsClean: boolean;
  readonly TreeState: "clean" | "dirty";
}

export interface TemplateData {
  /** The environment of `go build`. `LDFLAGS` counts as set. */
  readonly Env: Readonly<Record<string, string>>;
  /** The output of `go env`; `Env` overrides its values. */
  readonly GoEnv?: Readonly<Record<string, string>>;
  /** The fields that templates read. */
  readonly Git?: Partial<GitInfo>;
  /** RFC 3339, in UTC. */
  readonly Date?: string;
  /** Seconds since 1970. */
  readonly Timestamp?: number;
}

/** A top-level name of the data. */
export type TemplateRoot = (typeof ROOTS)[number];

/**
 * The data that a template can read: the names below `Env`, `GoEnv` and `Git`, or "all" if a name is computed. `Date`
 * and `Timestamp` have no names.
 */
export type TemplateReads = ReadonlyMap<TemplateRoot, ReadonlySet<string> | "all">;

/** The kind of a value as far as it is known before rendering: "." is all data, "any" may be a map or not. */
export type Shape = "." | "Env" | "GoEnv" | "Git" | "value" | "any";

/** A name, such as `Env.VERSION`, and its value; undefined for a variable that is not set. */
export type ReadValue = readonly [name: string, value: string | number | boolean | undefined];

const ROOTS = ["Env", "GoEnv", "Git", "Date", "Timestamp"] as const;

const GIT_FIELDS: readonly string[] = [
  "Branch",
  "Tag",
  "ShortCommit",
  "FullCommit",
  "CommitDate",
  "CommitTimestamp",
  "IsDirty",
  "IsClean",
  "TreeState",
] satisfies readonly (keyof GitInfo)[];

/** Names of GoReleaser's data, as ko spells them. */
const OTHER_NAMES: ReadonlyMap<string, string> = new Map([
  ["Version", ".Git.Tag"],
  ["RawVersion", ".Git.Tag"],
  ["Commit", ".Git.FullCommit"],
  ["IsGitDirty", ".Git.IsDirty"],
  ["IsGitClean", ".Git.IsClean"],
  ["GitTreeState", ".Git.TreeState"],
  ["Os", ".GoEnv.GOOS"],
  ["Arch", ".GoEnv.GOARCH"],
  ["Now", ".Date"],
]);

/** Follows the data through a template that is being parsed. */
export class DataUse {
  readonly reads: Map<TemplateRoot, Set<string> | "all"> = new Map();

  /** Returns the kind of a field. @throws {TemplateProblem} If the data has no such field. */
  field(of: Shape, name: string): Shape {
    if (of === "value" || of === "any") return of;
    if (of === ".") return this.#root(name);
    if (of === "Git" && !GIT_FIELDS.includes(name)) throw unknownName(".Git", { name, known: GIT_FIELDS });
    this.#read(of, name);
    return "value";
  }

  /** Returns the kind of `index of keys…`. An undefined key is one that is computed. */
  index(of: Shape, keys: readonly Value[]): Shape {
    let shape = of;
    for (const value of keys) {
      // Rendering refuses keys of other types.
      const key = typeof value === "string" ? nameOf(value) : undefined;
      if (shape === "any" || key === undefined) {
        this.readAll(shape);
        shape = shape === "." || shape === "any" ? "any" : "value";
      } else if (shape === ".") {
        const root = ROOTS.find((name) => name === key);
        shape = root === undefined ? "value" : this.#root(root);
      } else if (shape !== "value") {
        this.#read(shape, key);
        shape = "value";
      }
    }
    return shape;
  }

  /** Returns the kind of the elements of a `range`. */
  elements(of: Shape): Shape {
    this.readAll(of);
    return of === "." || of === "any" ? "any" : "value";
  }

  /** Records that a value is used as a whole. */
  readAll(of: Shape): void {
    if (of === "value") return;
    for (const root of of === "." || of === "any" ? ROOTS : [of]) this.reads.set(root, "all");
  }

  /** Returns the kind of a value that is one of two. */
  join(a: Shape, b: Shape): Shape {
    if (a === b) return a;
    this.readAll("any");
    return "any";
  }

  #root(name: string): Shape {
    const root = ROOTS.find((known) => known === name);
    if (root === undefined) throw unknownRoot(name);
    if (!this.reads.has(root)) this.reads.set(root, new Set());
    return root === "Date" || root === "Timestamp" ? "value" : root;
  }

  #read(root: TemplateRoot, name: string): void {
    const names = this.reads.get(root) ?? new Set();
    if (names !== "all") this.reads.set(root, names.add(name));
  }
}

/** Joins the data that several templates can read. */
export function joinReads(templates: Iterable<TemplateReads>): TemplateReads {
  const joined = new Map<TemplateRoot, ReadonlySet<string> | "all">();
  for (const reads of templates) {
    for (const [root, names] of reads) {
      const before = joined.get(root) ?? [];
      joined.set(root, before === "all" || names === "all" ? "all" : new Set([...before, ...names]));
    }
  }
  return joined;
}

/** @throws {TemplateProblem} If a value is all data, or one of its maps. */
export function refuseMap(shape: Shape): void {
  if (shape === "value" || shape === "any") return;
  const name = shape === "." ? "" : shape;
  throw wholeMap(name);
}

/** Makes the error of a map that is written as a whole. */
export function wholeMap(name: string): TemplateProblem {
  const secrets = name === "Git" ? "" : ", secrets included";
  const field = { Env: "Env.NAME", GoEnv: "GoEnv.GOOS", Git: "Git.Tag" }[name] ?? "Env.NAME";
  return new TemplateProblem(
    `this writes all of ${name === "" ? "the data" : `.${name}`} into the binary${secrets}, wanted one value`,
    `Type: {{.${field}}}`,
  );
}

/** The data of one rendering. It records each value that is read. */
export class RecordedData {
  /** The value of `.` and `$`. */
  readonly root: GoMap;
  readonly #reads = new Map<string, ReadValue[1]>();

  /** @param data everything in the template's {@link TemplateReads} */
  constructor(data: TemplateData) {
    const reads = this.#reads;
    const env: TemplateData["Env"] = { LDFLAGS: "", ...data.Env };
    const maps: Record<string, GoMap | string | number | undefined> = {
      Env: new RecordedMap(env, { name: "Env", names: Object.keys(env), reads }),
      Date: data.Date,
      Timestamp: data.Timestamp,
    };
    if (data.GoEnv !== undefined) {
      const overridden = Object.entries(data.GoEnv).map(([key, value]) => {
        return [key, Object.hasOwn(env, key) ? (env[key] ?? value) : value] as const;
      });
      const names = overridden.map(([key]) => key);
      maps["GoEnv"] = new RecordedMap(Object.fromEntries(overridden), { name: "GoEnv", names, reads });
    }
    if (data.Git !== undefined)
      maps["Git"] = new RecordedMap({ ...data.Git }, { name: "Git", names: GIT_FIELDS, reads });
    this.root = new RecordedMap(maps, { name: "", names: ROOTS, reads });
  }

  /** Returns the values that were read, sorted by name. */
  reads(): readonly ReadValue[] {
    return Array.from(this.#reads).sort(([a], [b]) => (a < b ? -1 : 1));
  }
}

interface RecordedMapOptions {
  /** As {@link GoMap.name}. */
  readonly name: string;
  /** The keys; one without a value in the source was left out by the caller. */
  readonly names: readonly string[];
  readonly reads: Map<string, ReadValue[1]>;
}

class RecordedMap implements GoMap {
  readonly type: string;
  readonly name: string;
  readonly #source: Readonly<Record<string, string | number | boolean | GoMap | undefined>>;
  readonly #names: ReadonlySet<string>;
  readonly #reads: Map<string, ReadValue[1]>;

  constructor(
    source: Readonly<Record<string, string | number | boolean | GoMap | undefined>>,
    { name, names, reads }: RecordedMapOptions,
  ) {
    this.name = name;
    this.type = name === "Env" || name === "GoEnv" ? "map[string]string" : "map[string]interface {}";
    this.#source = source;
    this.#names = new Set(names);
    this.#reads = reads;
  }

  get size(): number {
    return this.#names.size;
  }

  has(key: string): boolean {
    return this.#names.has(nameOf(key));
  }

  get(key: string): Value {
    const name = nameOf(key);
    const value = this.#names.has(name) ? this.#source[name] : undefined;
    const path = this.name === "" ? name : `${this.name}.${name}`;
    if (typeof value === "object") return value;
    // That the caller left a value out is a bug, not a nil of the template.
    if (value === undefined && this.#names.has(name)) throw new Error(`the data of .${path} was not supplied`);
    if (this.name !== "" || value !== undefined) this.#reads.set(path, value);
    if (value === undefined) return this.type === "map[string]string" ? "" : undefined;
    if (typeof value === "number") return { type: "int64", value: BigInt(value) };
    return typeof value === "string" ? encodeText(value) : value;
  }

  entries(): readonly (readonly [string, Value])[] {
    const keys = Array.from(this.#names, encodeText).sort((a, b) => (a < b ? -1 : 1));
    return keys.map((key) => [key, this.get(key)]);
  }

  nearest(key: string): string | undefined {
    return findNearest(nameOf(key), this.#names);
  }
}

function unknownRoot(name: string): TemplateProblem {
  const isVariable = /^[A-Z\d_]+$/.test(name) && findNearest(name, ROOTS) === undefined;
  const known = OTHER_NAMES.get(name) ?? (GIT_FIELDS.includes(name) ? `.Git.${name}` : undefined);
  const spelling = known ?? (isVariable ? `.Env.${name}` : undefined);
  if (spelling !== undefined) return new TemplateProblem(`there is no .${name}`, `Type: {{${spelling}}}`);
  return unknownName("", { name, known: ROOTS });
}

function unknownName(
  of: string,
  { name, known }: { readonly name: string; readonly known: readonly string[] },
): TemplateProblem {
  const nearest = findNearest(name, known);
  const wanted = nearest === undefined ? `wanted one of ${known.join(", ")}` : `the nearest is ${of}.${nearest}`;
  return new TemplateProblem(`there is no ${of}.${name}, ${wanted}`);
}

/** Decodes a key; bytes that are not UTF-8 are no name of any value. */
function nameOf(key: string): string {
  return Buffer.from(key, "latin1").toString("utf8");
}
