/**
 * Plans which files and folders decide the bytes of a Go program, from the output of `go list -deps`.
 *
 * A plan leaves out only modules of the module cache, which go.sum guards: it has sources, embedded files, places where
 * new ones would count, and the files that choose modules, versions and toolchain. fingerprint-inputs.ts compares them;
 * of go.mod and go.work only the local folders that they may name are read.
 */
import { accessSync, constants, readFileSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { ancestors, isInside, look, readEntries, readNames } from "./file.ts";
import type { InputPlan } from "./fingerprint-inputs.ts";
import { type FolderKind, isWalkedName } from "./fingerprint.ts";
import { VCS_MARKS } from "./git.ts";
import type { Program } from "./go-programs.ts";
import type { GoModule, GoPackage } from "./go.ts";

export interface SourcesOptions {
  /** Absolute path of the go command. */
  readonly go: string;
  /** The files of go's settings, existing or not. */
  readonly settings: readonly string[];
  /** The value of GOWORK, if it is set. */
  readonly gowork: string | undefined;
}

/** Files alone cannot prove that a program is unchanged. */
export interface Unprovable {
  readonly why: string;
}

/**
 * Plans the files and folders that decide the bytes of a program, beside environment and flags.
 *
 * @param packages the output of `go list -deps`
 */
export function planSources(
  program: Program,
  packages: readonly GoPackage[],
  options: SourcesOptions,
): InputPlan | Unprovable {
  const used = closure(program.importPath, packages);
  if ("why" in used) return used;
  const plan = new PlanMaker();
  for (const each of used.packages) {
    if (each.cgoFiles.length > 0) return { why: `${each.importPath} needs a C compiler, whose files ko does not know` };
    if (each.standard) continue;
    if (seenSources(each).some((name) => name.includes("\ufffd"))) {
      return { why: `${each.importPath} has a file whose name is not valid UTF-8` };
    }
    if (each.module === undefined) return { why: `${each.importPath} is in no module` };
    if (isImmutable(each)) continue;
    // Vendored packages are not edited: their headers need no look.
    plan.sources(each.dir, seenSources(each), { headers: !each.dir.includes("/vendor/") });
    const root = each.module.dir;
    // A new go.mod between the package and its module would split them.
    if (root !== undefined) for (const dir of waysUp(each.dir, root)) plan.file(join(dir, "go.mod"));
    for (const name of each.embedFiles) plan.file(join(each.dir, name));
    for (const dir of embedFolders(each.dir, each.embedPatterns)) plan.names(dir, "entries");
  }
  const goroot = findGoroot(packages);
  if (goroot === undefined) return { why: "go list does not list the package runtime" };
  planToolchain(plan, { goroot, go: options.go, standard: packages.filter(({ standard }) => standard) });
  planModules(plan, used.packages, { ...options, program });
  for (const dir of new Set([...ancestors(program.dir), ...ancestors(program.workDir)])) {
    for (const mark of VCS_MARKS) plan.file(join(dir, mark));
  }
  return plan.done();
}

/** Plans the files that decide which programs an argument names: those that choose modules, and programs' folders. */
export function planPlaces(
  programs: readonly Program[],
  packages: readonly GoPackage[],
  options: SourcesOptions,
): InputPlan {
  const plan = new PlanMaker();
  const paths = new Set(programs.map(({ importPath }) => importPath));
  const own = packages.filter(({ importPath }) => paths.has(importPath));
  for (const program of programs) {
    planModules(plan, own, { ...options, program });
    plan.file(program.dir);
  }
  plan.file(options.go);
  return plan.done();
}

/**
 * Plans the files and folders that decide which programs a pattern such as `./...` names, with all folders below `root`.
 *
 * @param named the packages that the pattern matches
 */
export function planPattern(
  programs: readonly Program[],
  named: readonly GoPackage[],
  options: SourcesOptions & { readonly root: string; readonly packages: readonly GoPackage[] },
): InputPlan {
  const places = planPlaces(programs, options.packages, options);
  const plan = new PlanMaker();
  for (const each of named) if (each.dir !== "") plan.sources(each.dir, seenSources(each));
  walkFolders(options.root, (dir, name) => {
    if (dir !== options.root && !isWalkedName(name)) return false;
    plan.names(dir, "tree");
    // A pattern does not match packages of other modules.
    return dir === options.root || look(join(dir, "go.mod")) === undefined;
  });
  const added = plan.done();
  return { folders: [...places.folders, ...added.folders], files: [...places.files, ...added.files] };
}

/** The files that choose modules and their versions for a program, existing or not. */
export function planModuleFiles(
  program: Pick<Program, "dir" | "workDir">,
  packages: readonly GoPackage[],
  options: Omit<SourcesOptions, "go">,
): readonly string[] {
  const plan = new PlanMaker();
  planModules(plan, packages, { ...options, program });
  return plan.done().files;
}

/** Reports whether a package lies in the module cache. A vendored module has no folder there. */
export function isImmutable({ dir, module }: GoPackage): boolean {
  if (module === undefined || module.main || module.local) return false;
  return module.version !== undefined && module.dir !== undefined && isInside(dir, module.dir);
}

/** The GOROOT of the toolchain that ran: not that of the `go` command if a go.mod asks for another version. */
export function findGoroot(packages: readonly GoPackage[]): string | undefined {
  const runtime = packages.find(({ importPath, standard }) => standard && importPath === "runtime");
  return runtime === undefined ? undefined : dirname(dirname(runtime.dir));
}

/**
 * The folders whose entries decide the matches of embed patterns. Each element of a pattern is a glob of path.Match; a
 * folder that matches is embedded with everything below it.
 *
 * https://pkg.go.dev/embed
 */
export function embedFolders(dir: string, patterns: readonly string[]): readonly string[] {
  const found = new Set<string>();
  for (const pattern of patterns) {
    let level: readonly string[] = [dir];
    for (const part of pattern.replace(/^all:/, "").split("/")) {
      if (part === "." || part === "") continue;
      if (!/[*?[\\]/.test(part)) {
        // A plain name has one match, and its files are marked.
        level = level.map((folder) => join(folder, part)).filter((path) => look(path)?.isDirectory());
        continue;
      }
      const matches = globMatcher(part);
      const next: string[] = [];
      for (const folder of level) {
        found.add(folder);
        for (const name of readNames(folder)) if (matches(name) && !isVcsFolder(name)) next.push(join(folder, name));
      }
      level = next.filter((path) => look(path)?.isDirectory());
    }
    for (const folder of level) {
      walkFolders(folder, (each) => {
        found.add(each);
        return true;
      });
    }
  }
  return [...found];
}

/** Matches one element of a pattern: a superset of the matches of path.Match. */
export function globMatcher(part: string): (name: string) => boolean {
  // A class matches one character at most, so "?" covers it.
  const source = part
    .replace(/\[(?:\\.|[^\]\\])*\]/g, "?")
    .replace(/\\(.)/g, "$1")
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  const regex = new RegExp(`^${source}$`, "su");
  return (name) => regex.test(name);
}

class PlanMaker {
  readonly #folders = new Map<string, InputPlan["folders"][number]>();
  readonly #files = new Set<string>();

  /** @param options.headers true records the header of each Go file too */
  sources(dir: string, seen: readonly string[] | undefined, { headers } = { headers: false }): void {
    const key = `sources ${dir}`;
    if (this.#folders.get(key)?.seen !== undefined) return;
    this.#folders.set(key, { dir, kind: "sources", seen, ...(headers ? { headers: "read" as const } : {}) });
  }

  /** Adds a folder whose names count, not its files. */
  names(dir: string, kind: Exclude<FolderKind, "sources">): void {
    this.#folders.set(`${kind} ${dir}`, { dir, kind });
  }

  /** Adds a file, existing or not. A folder in its place counts as existing only. */
  file(path: string): void {
    this.#files.add(path);
  }

  done(): InputPlan {
    return { folders: [...this.#folders.values()], files: [...this.#files] };
  }
}

/** A package and its dependencies. All listed packages of Go itself are among them. */
function closure(
  importPath: string,
  packages: readonly GoPackage[],
): { readonly packages: readonly GoPackage[] } | Unprovable {
  const byPath = new Map(packages.map((each) => [each.importPath, each]));
  const found = new Map<string, GoPackage>();
  for (const each of packages) if (each.standard) found.set(each.importPath, each);
  const waiting = [importPath];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (found.has(path) || path === "C") continue;
    const each = byPath.get(path);
    if (each === undefined) return { why: `go list does not list ${path}` };
    if (each.problem !== undefined || each.dir === "") return { why: `there is a problem with ${path}` };
    found.set(path, each);
    waiting.push(...each.imports);
  }
  return { packages: [...found.values()] };
}

/** The sources that `go list` found in a package's folder: also those that build constraints leave out, no tests. */
function seenSources(each: GoPackage): readonly string[] {
  return [...each.goFiles, ...each.cgoFiles, ...each.ignoredGoFiles, ...each.otherFiles, ...each.ignoredOtherFiles];
}

/** The folders from a package's up to its module's, both included. */
function waysUp(dir: string, root: string): readonly string[] {
  if (!isInside(dir, root)) return [];
  return ancestors(dir).filter((each) => isInside(each, root));
}

function planToolchain(
  plan: PlanMaker,
  options: { readonly goroot: string; readonly go: string; readonly standard: readonly GoPackage[] },
): void {
  const { goroot, go, standard } = options;
  for (const path of [go, ...["VERSION", "go.env", "bin/go"].map((name) => join(goroot, name))]) plan.file(path);
  const tools = join(goroot, "pkg", "tool");
  for (const host of readNames(tools)) {
    for (const tool of ["compile", "link", "asm"]) plan.file(join(tools, host, tool));
  }
  // A GOROOT that the user can write to may be edited: then its sources are inputs too.
  const open = isWritable(join(goroot, "src", "runtime"));
  for (const each of standard) {
    if (each.dir === "") continue;
    if (!open) plan.names(each.dir, "entries");
    else {
      plan.sources(each.dir, seenSources(each));
      for (const name of each.embedFiles) plan.file(join(each.dir, name));
    }
  }
  if (open) plan.sources(join(goroot, "pkg", "include"), undefined);
}

/** Adds the files that choose modules and their versions. */
function planModules(
  plan: PlanMaker,
  packages: readonly GoPackage[],
  { program, gowork, settings }: Omit<SourcesOptions, "go"> & { readonly program: Pick<Program, "dir" | "workDir"> },
): void {
  for (const file of settings) plan.file(file);
  for (const dir of new Set([...ancestors(program.workDir), ...ancestors(program.dir)])) {
    for (const name of ["go.mod", "go.work"]) plan.file(join(dir, name));
  }
  const choosing = new Set<string>(gowork === undefined || gowork === "off" ? [] : [gowork]);
  for (const dir of ancestors(program.workDir)) {
    for (const name of ["go.mod", "go.work"]) if (look(join(dir, name)) !== undefined) choosing.add(join(dir, name));
  }
  for (const { module } of packages) if (isChanging(module)) choosing.add(module.goMod);
  // The loop also visits the files that it adds: a module of a workspace may replace others.
  for (const path of choosing) {
    for (const file of moduleFiles(path)) plan.file(file);
    for (const dir of localFolders(path)) choosing.add(join(dir, "go.mod"));
  }
}

function isChanging(module: GoModule | undefined): module is GoModule & { readonly goMod: string } {
  return module?.goMod !== undefined && (module.main || module.local);
}

/** A go.mod or go.work, with its sum file and its vendor folder. */
function moduleFiles(path: string): readonly string[] {
  const dir = dirname(path);
  const sum = path.endsWith(".work") ? `${path}.sum` : join(dir, "go.sum");
  return [path, sum, join(dir, "vendor"), join(dir, "vendor", "modules.txt")];
}

/** The local folders that a go.mod or go.work may name in `replace` or `use`: each word that is a module's folder. */
function localFolders(path: string): readonly string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return [];
  }
  const found = new Set<string>();
  for (const [quoted] of text.matchAll(/"[^"\n]*"|`[^`\n]*`|[^\s"`()]+/g)) {
    const word = quoted.replace(/^["`]|["`]$/g, "");
    if (!word.startsWith(".") && !isAbsolute(word) && !path.endsWith(".work")) continue;
    const dir = resolve(dirname(path), word);
    if (look(join(dir, "go.mod")) !== undefined) found.add(dir);
  }
  return [...found];
}

/**
 * Visits a folder and those below it; symlinks are not followed.
 *
 * @param visit returns false to skip the folder's entries
 */
function walkFolders(folder: string, visit: (dir: string, name: string) => boolean): void {
  if (!visit(folder, basename(folder))) return;
  for (const entry of readEntries(folder)) {
    if (entry.isDirectory() && !isVcsFolder(entry.name)) walkFolders(join(folder, entry.name), visit);
  }
}

/** Go embeds nothing of these folders, and its patterns skip them. */
function isVcsFolder(name: string): boolean {
  return [".git", ".hg", ".svn", ".bzr"].includes(name);
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
