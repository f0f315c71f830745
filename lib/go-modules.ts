/**
 * Finds Go modules and workspaces around a folder, by their files.
 *
 * `go` looks for `go.mod` and `go.work` upwards only, while users also name programs of modules below. Of a `go.mod` only
 * the module path is read.
 */
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { isInside, look } from "./file.ts";
import type { GoSettings } from "./go-env.ts";

export interface ModuleFolder {
  /** Absolute. */
  readonly dir: string;
  readonly path: string;
}

/** The module context of a folder. */
export interface Surroundings {
  /** Absolute: the nearest folder with a `go.mod`, at or above. */
  readonly moduleDir: string | undefined;
  /** The folder of the nearest `go.work`, or the value of GOWORK. */
  readonly workspace: string | undefined;
  /** False with `GO111MODULE=off`. */
  readonly modules: boolean;
}

/** The most folders that are read in search of modules. */
const MOST_FOLDERS = 20_000;

const SKIPPED = new Set(["node_modules", "vendor", "testdata"]);

/** Finds the module context that `go` has in a folder with these settings. */
export function findSurroundings(cwd: string, settings: Pick<GoSettings, "get">): Surroundings {
  const gowork = settings.get("GOWORK");
  return {
    moduleDir: findModuleDir(cwd),
    workspace: gowork === "" ? findUpwards(cwd, "go.work") : gowork === "off" ? undefined : gowork,
    modules: settings.get("GO111MODULE") !== "off",
  };
}

/** The folder of the nearest `go.mod` at or above `dir`, which need not exist itself. */
export function findModuleDir(dir: string): string | undefined {
  return findUpwards(dir, "go.mod");
}

/** Finds all modules in the git work tree around `cwd`; without git, below `moduleDir` or `cwd`. Sorted by folder. */
export async function findModulesBelow(cwd: string, moduleDir: string | undefined): Promise<readonly ModuleFolder[]> {
  const found: ModuleFolder[] = [];
  const folders = [findUpwards(cwd, ".git") ?? moduleDir ?? cwd];
  for (let at = 0; at < folders.length && at < MOST_FOLDERS; at++) {
    const dir = folders[at] ?? "";
    const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
    for (const { name } of entries.filter((entry) => entry.isDirectory())) {
      if (!/^[._]/.test(name) && !SKIPPED.has(name)) folders.push(join(dir, name));
    }
    if (!entries.some((entry) => entry.name === "go.mod")) continue;
    const path = readModulePath(dir);
    if (path !== undefined) found.push({ dir, path });
  }
  return found.sort((a, b) => (a.dir < b.dir ? -1 : 1));
}

/** The module of an import path: the one whose path is its longest prefix. */
export function findOwner(importPath: string, modules: readonly ModuleFolder[]): ModuleFolder | undefined {
  let owner: ModuleFolder | undefined;
  for (const module of modules) {
    if (leads(module, importPath) && module.path.length > (owner?.path.length ?? 0)) owner = module;
  }
  return owner;
}

/**
 * The modules that own an import path: those with the longest path that leads it, among those with its folder if there are
 * any.
 *
 * @param cwd modules at or below it win over others
 * @returns more than one if several folders have a module of that path
 */
export function findOwners(
  importPath: string,
  { cwd, modules }: { readonly cwd: string; readonly modules: readonly ModuleFolder[] },
): readonly ModuleFolder[] {
  const leading = modules.filter((module) => leads(module, importPath));
  const having = leading.filter((module) => look(folderIn(module, importPath))?.isDirectory() === true);
  const candidates = having.length > 0 ? having : leading;
  const longest = Math.max(...candidates.map(({ path }) => path.length));
  const owners = candidates.filter(({ path }) => path.length === longest);
  const near = owners.filter(({ dir }) => isInside(dir, cwd));
  return near.length > 0 ? near : owners;
}

/** The folder of an import path in its module. */
export function folderIn({ dir, path }: ModuleFolder, importPath: string): string {
  return join(dir, importPath.slice(path.length));
}

/** Reads the module path from the `go.mod` in a folder; undefined if there is none. */
export function readModulePath(dir: string): string | undefined {
  try {
    return /^[ \t]*module[ \t]+["`]?([^\s"`]+)/m.exec(readFileSync(join(dir, "go.mod"), "utf8"))?.[1];
  } catch {
    return undefined;
  }
}

function leads({ path }: ModuleFolder, importPath: string): boolean {
  return importPath === path || importPath.startsWith(`${path}/`);
}

/** The nearest folder at or above `dir` with a file of this name; `.git` may be a folder too. */
function findUpwards(dir: string, name: string): string | undefined {
  for (let at = resolve(dir); ; at = dirname(at)) {
    const found = look(join(at, name));
    if (found?.isFile() === true || (found !== undefined && name === ".git")) return at;
    if (dirname(at) === at) return undefined;
  }
}
