/**
 * The entries of `builds:` in the file system: the folder or import path of each, and the program that it is for.
 *
 * Folders are compared, and go is not asked: the original starts `go list` for each entry. How an entry changes a build
 * is decided in go-setup.ts.
 */
import { readFileSync } from "node:fs";
import { dirname, join, posix, relative, resolve } from "node:path";
import type { BuildEntry } from "./config-builds.ts";
import { nameWord, type Word } from "./config-file.ts";
import { IMAGE_KEYS } from "./config-image.ts";
import { findNearest, throwAll, UsageError } from "./errors.ts";
import { isInside, look, readEntries, readNames } from "./file.ts";
import { matchesImportPath, matchesFolder, type ParsedArgument, showPath } from "./go-arguments.ts";
import type { GoSettings } from "./go-env.ts";
import { findModuleDir, findSurroundings, readModulePath, type Surroundings } from "./go-modules.ts";

/** An entry with its folder and its program. */
export interface PlacedEntry {
  readonly entry: BuildEntry;
  /** Absolute: the folder in which go and git run, as the user sees it. */
  readonly dir: string;
  /** Absolute: the folder of the program. Undefined for an import path of another module. */
  readonly folder: string | undefined;
  /** Undefined if the folder is in no module. */
  readonly importPath: string | undefined;
}

/** A program, as far as an entry can be found by it. */
export interface ProgramPlace {
  readonly importPath: string;
  /** Absolute. */
  readonly dir: string;
}

/** The most bytes of a file in which its package clause is looked for. */
const MAX_HEADER = 256 * 1024;

export class BuildEntries {
  /** In the order of the file. */
  readonly all: readonly PlacedEntry[];
  readonly #cwd: string;
  readonly #byFolder: ReadonlyMap<string, PlacedEntry>;
  readonly #byImportPath: ReadonlyMap<string, PlacedEntry>;
  readonly #twins: readonly string[];

  private constructor(all: readonly PlacedEntry[], cwd: string) {
    this.#cwd = cwd;
    this.all = all;
    const twins: string[] = [];
    this.#byFolder = index(all, { keyOf: ({ folder }) => folder, cwd, twins });
    this.#byImportPath = index(all, { keyOf: ({ importPath }) => importPath, cwd, twins });
    this.#twins = [...new Set(twins)];
  }

  /**
   * Finds the folders of all entries, also of those that the run does not use.
   *
   * @param cwd absolute
   * @throws {UsageError | KoErrors} If folders do not exist, or two different entries are for one program.
   */
  static place(entries: readonly BuildEntry[], cwd: string): BuildEntries {
    const modules = new Map<string, string | undefined>();
    const errors: UsageError[] = [];
    const placed = entries.flatMap((entry) => {
      try {
        return [placeEntry(entry, { cwd, modules })];
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
        errors.push(error);
        return [];
      }
    });
    throwAll(errors);
    return new BuildEntries(placed, cwd);
  }

  /** The entry for a program. The folder counts before the import path. */
  find({ dir, importPath }: ProgramPlace): PlacedEntry | undefined {
    return this.#byFolder.get(dir) ?? this.#byImportPath.get(importPath);
  }

  /** The entry for an argument that is not a pattern. */
  findFor({ dir, kind, rest }: ParsedArgument): PlacedEntry | undefined {
    if (kind === "pattern") return undefined;
    return dir === undefined ? this.#byImportPath.get(rest) : this.#byFolder.get(dir);
  }

  /** The entries whose programs a pattern may match. */
  findBelow(pattern: ParsedArgument): readonly PlacedEntry[] {
    if (pattern.kind !== "pattern") return [];
    return this.all.filter(({ folder, importPath }) => {
      if (pattern.dir !== undefined) return folder !== undefined && matchesFolder(pattern, folder);
      return importPath !== undefined && matchesImportPath(pattern.rest, importPath);
    });
  }

  /**
   * Tells which entries are for no program, and which are there twice.
   *
   * @param programs those of the run, whose entries need no look
   * @param settings finds those of go in a folder, with the variables of an entry
   */
  warnings(
    programs: readonly ProgramPlace[],
    settings: (dir: string, variables: Readonly<Record<string, string>>) => Pick<GoSettings, "get">,
  ): readonly string[] {
    const used = new Set(programs.map((program) => this.find(program)));
    const idle = this.all.flatMap((placed) => {
      const { dir, entry, folder, importPath = "" } = placed;
      if (used.has(placed)) return [];
      const own = settings(
        folder ?? dir,
        Object.fromEntries((entry.env ?? []).map(({ value }) => value.split(/=(.*)/s, 2))),
      );
      const why =
        folder === undefined ? this.#whyForeign(importPath, findSurroundings(dir, own)) : whyNoProgram(folder, own);
      if (why === undefined) return [];
      const shown = folder === undefined ? importPath : showPath(folder, this.#cwd);
      return [`${entry.where}: ${entry.name} is for no program: ${shown} ${why}`];
    });
    return [...this.#twins, ...idle];
  }

  /** Why an import path is of no module that go knows, as far as `go.mod` tells; undefined if it may be of one. */
  #whyForeign(importPath: string, { moduleDir, modules, workspace }: Surroundings): string | undefined {
    if (!modules || workspace !== undefined || moduleDir === undefined) return undefined;
    const file = join(moduleDir, "go.mod");
    const words = readText(file).split(/[\s"`]+/);
    // Whatever stands in the file: a comment may hide a warning, but never cause one.
    if (words.some((word) => word !== "" && `${importPath}/`.startsWith(`${word}/`))) return undefined;
    return `is of no module that ${showPath(file, this.#cwd)} requires`;
  }
}

interface IndexOptions {
  readonly keyOf: (placed: PlacedEntry) => string | undefined;
  readonly cwd: string;
  /** Gets a warning for each entry that repeats another. */
  readonly twins: string[];
}

/** The entries by folder or by import path; of equal ones the first. */
function index(all: readonly PlacedEntry[], { cwd, keyOf, twins }: IndexOptions): ReadonlyMap<string, PlacedEntry> {
  const found = new Map<string, PlacedEntry>();
  const ambiguous = new Set<string>();
  for (const placed of all) {
    const key = keyOf(placed);
    const before = key === undefined ? undefined : found.get(key);
    if (key !== undefined && before === undefined) found.set(key, placed);
    if (key === undefined || before === undefined) continue;
    if (placed.folder !== undefined && before.folder !== undefined && placed.folder !== before.folder) {
      // Two copies of a module: only the folder tells their programs apart.
      ambiguous.add(key);
      continue;
    }
    const program = placed.folder === undefined ? placed.importPath : showPath(placed.folder, cwd);
    const what = `${placed.entry.name} is for ${program}, as is ${before.entry.name} at ${before.entry.where}`;
    if (!isSame(placed, before)) {
      throw new UsageError(`Cannot use ${placed.entry.where}: ${what}`, { hint: "Keep one of them." });
    }
    twins.push(`${placed.entry.where}: ${what}; they say the same`);
  }
  for (const key of ambiguous) found.delete(key);
  return found;
}

function isSame(a: PlacedEntry, b: PlacedEntry): boolean {
  const show = ({ dir, entry }: PlacedEntry): string => {
    const { binary, capabilities, env, flags, image = {}, ldflags } = entry;
    const texts = [env, flags, ldflags].map((words) => words?.map(({ value }) => value) ?? null);
    const settings = IMAGE_KEYS.map((key) => image[key]?.map((word) => [word.key, word.value]) ?? null);
    return JSON.stringify([dir, binary?.value, texts, Array.from(capabilities?.attribute ?? []), settings]);
  };
  return show(a) === show(b);
}

interface PlaceOptions {
  readonly cwd: string;
  /** Module paths by folder of the module. */
  readonly modules: Map<string, string | undefined>;
}

function placeEntry(entry: BuildEntry, { cwd, modules }: PlaceOptions): PlacedEntry {
  const dir = resolve(cwd, relativePath(entry.dir));
  if (entry.dir !== undefined && look(dir)?.isDirectory() !== true) {
    throw missing(entry, { word: entry.dir, path: dir, cwd });
  }
  const modulePath = (folder: string): string | undefined => {
    if (!modules.has(folder)) modules.set(folder, readModulePath(folder));
    return modules.get(folder);
  };
  const path = resolve(dir, relativePath(entry.main));
  const found = look(path);
  if (found === undefined && entry.main !== undefined) {
    const imported = placeImportPath(entry.main.value, { dir, modulePath });
    if (imported !== undefined) return { entry, dir, ...imported };
  }
  if (found === undefined || !(found.isDirectory() || found.isFile())) {
    throw missing(entry, { word: entry.main, path, cwd });
  }
  const folder = found.isFile() ? dirname(path) : path;
  const moduleDir = findModuleDir(folder);
  const module = moduleDir === undefined ? undefined : modulePath(moduleDir);
  const below = moduleDir === undefined ? "" : relative(moduleDir, folder).replaceAll("\\", "/");
  return { entry, dir, folder, importPath: module === undefined ? undefined : posix.join(module, below) };
}

/** Places an entry whose `main` is an import path: of the module of `dir`, or one that begins with a host name. */
function placeImportPath(
  main: string,
  { dir, modulePath }: { readonly dir: string; readonly modulePath: (folder: string) => string | undefined },
): Pick<PlacedEntry, "folder" | "importPath"> | undefined {
  if (/^[./]|\.\.\./.test(main)) return undefined;
  const importPath = posix.normalize(main).replace(/\/$/, "");
  const moduleDir = findModuleDir(dir);
  const module = moduleDir === undefined ? undefined : modulePath(moduleDir);
  if (moduleDir !== undefined && module !== undefined && isInside(`/${importPath}`, `/${module}`)) {
    const folder = join(moduleDir, importPath.slice(module.length));
    return look(folder)?.isDirectory() === true ? { folder, importPath } : undefined;
  }
  return /^[^/]*\.[^/]*\//.test(importPath) ? { folder: undefined, importPath } : undefined;
}

/** As in the original, a slash at the start means nothing. */
function relativePath(word: Word | undefined): string {
  return (word?.value ?? "").replace(/^\/+/, "") || ".";
}

function missing(
  entry: BuildEntry,
  { cwd, path, word }: { readonly word: Word | undefined; readonly path: string; readonly cwd: string },
): UsageError {
  const shown = showPath(path, cwd);
  const names = readEntries(dirname(path)).filter((each) => each.isDirectory());
  const nearest = findNearest(
    relative(dirname(path), path),
    Array.from(names, ({ name }) => name),
  );
  const near = nearest === undefined ? "" : `, the nearest is ${showPath(join(dirname(path), nearest), cwd)}`;
  const where = word === undefined ? entry.where : nameWord(word);
  return new UsageError(`Cannot use ${where}: ${entry.name} is for ${shown}, which does not exist${near}`, {
    hint: "Correct the entry: ko checks all entries of builds, also those that this run does not use.",
  });
}

/** Why a folder holds no program; undefined if it may hold one. */
export function whyNoProgram(folder: string, settings: Pick<GoSettings, "get">): string | undefined {
  const { moduleDir, modules } = findSurroundings(folder, settings);
  if (modules && moduleDir === undefined) return "is in no Go module";
  const names = readNames(folder).filter((name) => name.endsWith(".go") && !name.endsWith("_test.go"));
  if (names.length === 0) return "has no Go files";
  let other = "";
  for (const name of names) {
    const found = readPackageName(join(folder, name));
    // A file that cannot be read is a matter for go.
    if (found === undefined || found === "main") return undefined;
    other = found;
  }
  return `is package ${other}, wanted package main`;
}

/** The text of a file; empty if it cannot be read. */
export function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** The name in the package clause of a Go file. */
function readPackageName(path: string): string | undefined {
  try {
    const text = readFileSync(path, "utf8").slice(0, MAX_HEADER);
    return /^\ufeff?(?:\s|\/\/[^\n]*\n|\/\*[^]*?\*\/)*package\s+(\w+)/.exec(text)?.[1];
  } catch {
    return undefined;
  }
}
