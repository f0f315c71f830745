/**
 * Finds the places to watch: packages from `go list -deps`, kodata trees through their symlinks, the inputs of `-f`, `-R`
 * and `-k`, and the configuration file.
 *
 * The standard library and the module cache are left out: they do not change. An unreadable path is no error here: the
 * build reports it, and the user is about to repair it.
 */
import { readFileSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { AUTO, CONFIG_FILE_NAMES, searchedFolders } from "./config-file.ts";
import { ancestors, isInside, look, readEntries, realPath } from "./file.ts";
import { findWorkTree, listRefs } from "./git.ts";
import { readSettings } from "./go-env.ts";
import { parseArgument } from "./go-arguments.ts";
import type { Program } from "./go-programs.ts";
import { planModuleFiles } from "./go-sources-modules.ts";
import { embedFolders, isImmutable } from "./go-sources.ts";
import type { GoPackage } from "./go.ts";
import { findLinkRules, findLinkTarget, isHiddenFolder, type LinkRules } from "./kodata-links.ts";
import { joinPlaces, NOWHERE, type Places, type WatchedKind } from "./watch-places.ts";
import { type InputRequest, isUrl } from "./yaml-inputs.ts";

export interface PlanOptions {
  /** Absolute. */
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** As Node.js names it: it decides where go's settings file is. */
  readonly platform: string;
}

type Folder = Places["folders"][number];

/** The most folders that one kustomization may include. */
const MAX_BASES = 100;

/**
 * Returns the sources, embedded files and module files of a program.
 *
 * @param packages a list for each call of `go list`
 */
export function planProgram(
  program: Program,
  packages: readonly (readonly GoPackage[])[],
  options: PlanOptions,
): Places {
  const places = packages.map((list) => {
    const used = reach(program.importPath, list);
    return joinPlaces([planPackages(used, list), planModules(program, used, options)]);
  });
  return joinPlaces(places);
}

/**
 * Returns the places that decide which programs the arguments name, for the time while they name none: all listed packages,
 * the folders where missing packages would be, and the module files around them.
 */
export function planArguments(
  args: readonly string[],
  packages: readonly (readonly GoPackage[])[],
  options: PlanOptions,
): Places {
  const { cwd } = options;
  const paths = args.flatMap((text) => {
    const { dir } = parseArgument(text, cwd);
    return dir === undefined ? [] : [dir];
  });
  const around = [cwd, ...paths].map((dir) => planModules({ dir, workDir: cwd }, packages.flat(), options));
  const named = paths.map((path): Places => {
    const dir = path.endsWith(".go") ? dirname(path) : path;
    return { ...NOWHERE, folders: [{ dir, kind: "sources" }] };
  });
  return joinPlaces([...around, ...named, ...packages.map((list) => planPackages(list, list))]);
}

/** Returns all folders that patterns such as `./...` match, with their subfolders: a package may appear in each. */
export function planPatterns(args: readonly string[], { cwd }: Pick<PlanOptions, "cwd">): Places {
  const isWalked = (dir: string, name: string): boolean =>
    !/^[._]|^(?:testdata|vendor|node_modules)$/.test(name) && look(join(dir, "go.mod")) === undefined;
  const roots = args.flatMap((text) => {
    const { kind, dir } = parseArgument(text, cwd);
    return kind === "pattern" && dir !== undefined ? [dir] : [];
  });
  const dirs = new Set(roots.flatMap((root) => walk(root, isWalked)));
  return { ...NOWHERE, folders: Array.from(dirs, (dir): Folder => ({ dir, kind: "source tree" })) };
}

/** Returns the kodata tree of a program, with the targets of its symlinks. */
export function planKodata(dir: string, { env }: Pick<PlanOptions, "env">): Places {
  const kodata = join(dir, "kodata");
  const real = realPath(kodata);
  if (real === undefined) return { ...NOWHERE, files: [kodata] };
  const rules = findLinkRules(real, env["KO_DATA_PATH_ALLOWED_ROOT"] || undefined);
  const folders = new Map<string, Folder>();
  const files: string[] = [kodata];
  const visit = (folder: string): void => {
    // Symlinks may lead in a circle.
    if (folders.has(folder)) return;
    folders.set(folder, { dir: folder, kind: "all" });
    for (const entry of readEntries(folder)) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        if (!isHiddenFolder(path, { isLinked: false })) visit(path);
      } else if (entry.isSymbolicLink()) {
        const target = followLink(path, rules);
        if (target === undefined) continue;
        if (target.info.isDirectory()) visit(target.path);
        else files.push(target.path);
      }
    }
  };
  visit(real);
  return { ...NOWHERE, files, folders: [...folders.values()] };
}

/** Returns the places that change with each commit and tag, for a program whose flags hold the state of git. */
export function planGit(dir: string): Places {
  const tree = findWorkTree(dir);
  if (tree.kind !== "git") return NOWHERE;
  const { files, folders } = listRefs(tree.root);
  return { ...NOWHERE, files, folders: folders.map((folder): Folder => ({ dir: folder, kind: "all" })) };
}

/** Returns the files and folders of `-f`, `-R` and `-k`. New files in the folders count. */
export function planInputs({ files, recursive, kustomize }: InputRequest, { cwd }: Pick<PlanOptions, "cwd">): Places {
  const places = files.map((file): Places => {
    if (file === "-" || isUrl(file)) return NOWHERE;
    const path = resolve(cwd, file);
    if (/^\/(dev|proc)\//.test(path)) return NOWHERE;
    if (look(path)?.isDirectory() !== true) return { ...NOWHERE, files: [path, ...realPaths([path])] };
    const visible = (_dir: string, name: string): boolean => !name.startsWith(".") && !name.endsWith("~");
    const kind: WatchedKind = recursive ? "yaml tree" : "yaml";
    const dirs = recursive ? walk(path, visible) : [path];
    return { ...NOWHERE, files: [path, ...realPaths([path])], folders: dirs.map((dir) => ({ dir, kind })) };
  });
  if (kustomize !== undefined && !isUrl(kustomize)) places.push(planKustomization(resolve(cwd, kustomize)));
  return joinPlaces(places);
}

/** Returns the path of `.ko.yaml`, or the paths where it could appear. */
export function planConfig({ cwd, env }: Pick<PlanOptions, "cwd" | "env">): Places {
  const override = env["KO_CONFIG_PATH"] ?? "";
  if (override === AUTO) {
    const files = searchedFolders(cwd).flatMap((folder) => CONFIG_FILE_NAMES.map((name) => join(folder, name)));
    return { ...NOWHERE, files: [...files, ...realPaths(files)] };
  }
  const path = resolve(cwd, override);
  if (override !== "" && look(path)?.isDirectory() !== true) return { ...NOWHERE, files: [path, ...realPaths([path])] };
  const files = CONFIG_FILE_NAMES.map((name) => join(path, name));
  return { ...NOWHERE, files: [...files, ...realPaths(files)] };
}

/** Returns a package and all packages that it imports, directly or not, out of those listed. */
export function reach(importPath: string, packages: readonly GoPackage[]): readonly GoPackage[] {
  const byPath = new Map(packages.map((each) => [each.importPath, each]));
  const found = new Map<string, GoPackage>();
  const waiting = [importPath];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const each = byPath.get(path);
    if (each === undefined || found.has(path)) continue;
    found.set(path, each);
    waiting.push(...each.imports);
  }
  return [...found.values()];
}

/** @param all all listed packages: their modules say where a missing package would be */
function planPackages(packages: readonly GoPackage[], all: readonly GoPackage[]): Places {
  const folders: Folder[] = [];
  const files: string[] = [];
  const embeds: Places["embeds"][number][] = [];
  for (const each of packages) {
    if (each.standard || isImmutable(each)) continue;
    const { dir, embedFiles, embedPatterns, module } = each;
    if (dir === "") {
      folders.push(...findMissing(each.importPath, all).map((path): Folder => ({ dir: path, kind: "sources" })));
      continue;
    }
    folders.push({ dir, kind: "sources" });
    // A new go.mod between the module and the package takes the package out of the module.
    for (const above of ancestors(dir)) {
      if (module?.dir === undefined || !isInside(above, module.dir)) break;
      files.push(join(above, "go.mod"));
    }
    if (embedPatterns.length === 0) continue;
    embeds.push(...embedPatterns.map((pattern) => ({ dir, pattern })));
    const inside = [...embedFolders(dir, embedPatterns), ...embedFiles.map((name) => dirname(join(dir, name)))];
    for (const folder of new Set(inside)) folders.push({ dir: folder, kind: "embed" });
    // A name without wildcards may not exist yet.
    for (const pattern of embedPatterns)
      if (!/[*?[\\]/.test(pattern)) files.push(join(dir, pattern.replace(/^all:/, "")));
  }
  return { files, folders, embeds };
}

/** Returns the folders where a missing package would be, in the modules that can change. */
function findMissing(importPath: string, packages: readonly GoPackage[]): readonly string[] {
  const found = new Set<string>();
  for (const { module } of packages) {
    if (module?.dir === undefined || !(module.main || module.local)) continue;
    if (importPath === module.path) found.add(module.dir);
    else if (importPath.startsWith(`${module.path}/`)) {
      found.add(join(module.dir, importPath.slice(module.path.length + 1)));
    }
  }
  return [...found];
}

/** Returns the files that choose modules (go.mod, go.work); missing ones only within the work tree and beside a module. */
function planModules(
  place: Pick<Program, "dir" | "workDir">,
  packages: readonly GoPackage[],
  { env, platform }: PlanOptions,
): Places {
  const settings = readSettings({ cwd: place.workDir, env, go: undefined, platform });
  const gowork = settings.get("GOWORK") || undefined;
  const files = planModuleFiles(place, packages, { settings: settings.files, gowork });
  const tree = findWorkTree(place.dir);
  const module = ancestors(place.dir).find((dir) => look(join(dir, "go.mod")) !== undefined);
  const top = tree.kind === "git" ? tree.root : (module ?? place.dir);
  const isOfModule = (dir: string): boolean => look(join(dir, "go.mod")) !== undefined;
  const counts = (path: string): boolean =>
    isInside(path, top) || look(path) !== undefined || isOfModule(dirname(path)) || isOfModule(dirname(dirname(path)));
  return { ...NOWHERE, files: files.filter(counts) };
}

function followLink(path: string, rules: LinkRules): ReturnType<typeof findLinkTarget> {
  try {
    return findLinkTarget(path, rules);
  } catch {
    return undefined;
  }
}

/** Returns the folder of a kustomization, and the files and folders that any word in it names. */
function planKustomization(root: string): Places {
  const folders = new Map<string, Folder>();
  const files = new Set<string>();
  const waiting = [root];
  for (let dir = waiting.pop(); dir !== undefined && folders.size < MAX_BASES; dir = waiting.pop()) {
    if (folders.has(dir)) continue;
    folders.set(dir, { dir, kind: "all" });
    for (const name of ["kustomization.yaml", "kustomization.yml", "Kustomization"]) {
      for (const [word] of readText(join(dir, name)).matchAll(/[^\s"',[\]{}=]+/g)) {
        const path = resolve(dir, word);
        const found = word === "." || /^[-#:]/.test(word) ? undefined : look(path);
        if (found?.isDirectory() === true) waiting.push(path);
        else if (found !== undefined && dirname(path) !== dir) files.add(path);
      }
    }
  }
  return { ...NOWHERE, files: [...files], folders: [...folders.values()] };
}

/** Returns a folder and its subfolders, each once, symlinks followed. */
function walk(root: string, isWalked: (dir: string, name: string) => boolean): readonly string[] {
  const seen = new Set<string>();
  const found: string[] = [];
  const visit = (dir: string): void => {
    const real = realPath(dir);
    if (real === undefined || seen.has(real)) return;
    seen.add(real);
    found.push(dir);
    for (const entry of readEntries(dir)) {
      const path = join(dir, entry.name);
      const isFolder = entry.isDirectory() || (entry.isSymbolicLink() && look(path)?.isDirectory() === true);
      if (isFolder && isWalked(path, basename(path))) visit(path);
    }
  };
  visit(root);
  return found;
}

/** Returns the real paths of those paths that lead through a symlink. */
function realPaths(paths: readonly string[]): readonly string[] {
  return paths.flatMap((path) => {
    const real = realPath(path);
    return real === undefined || real === path ? [] : [real];
  });
}

function readText(path: string): string {
  try {
    return statSync(path).size < 1024 * 1024 ? readFileSync(path, "utf8") : "";
  } catch {
    return "";
  }
}
