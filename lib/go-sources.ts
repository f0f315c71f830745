/**
 * Plans which files and folders decide the bytes of a Go program, from the output of `go list -deps`.
 *
 * It has sources, embedded files, places where new ones would count, and the files that choose modules, versions and
 * toolchain. Packages of the module cache count as far as go looks at them.
 */
import { basename, dirname, join } from "node:path";
import { ancestors, isInside, look, readEntries, readNames } from "./file.ts";
import type { FolderPlan, InputPlan } from "./fingerprint-inputs.ts";
import { isExcludedName, isWalkedName, type Target } from "./fingerprint.ts";
import { VCS_MARKS } from "./git.ts";
import type { Program } from "./go-programs.ts";
import { downloadedFiles, planDownloads, planModules, planRivals, waysUp } from "./go-sources-modules.ts";
import { PlanMaker } from "./go-sources-plan.ts";
import type { GoPackage } from "./go.ts";

export interface SourcesOptions {
  /** Absolute path of the go command. */
  readonly go: string;
  /** The files of go's settings, existing or not. */
  readonly settings: readonly string[];
  /** The value of GOWORK, if it is set. */
  readonly gowork: string | undefined;
  /** The platform; undefined if names such as `file_windows.go` do not tell which files are excluded. */
  readonly target?: Target | undefined;
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
    if (isImmutable(each)) {
      planCached(plan, each, options);
      continue;
    }
    planPackage(plan, each, options);
    const root = each.module.dir;
    // A new go.mod between the package and its module would split them.
    if (root !== undefined) for (const dir of waysUp(each.dir, root)) plan.file(join(dir, "go.mod"));
    planEmbeds(plan, each);
  }
  const goroot = findGoroot(packages);
  if (goroot === undefined) return { why: "go list does not list the package runtime" };
  const { go, target } = options;
  planToolchain(plan, { goroot, go, target, standard: packages.filter(({ standard }) => standard) });
  const modules = planModules(plan, used.packages, { ...options, program });
  planRivals(plan, used.packages, { goroot, local: modules.local });
  planDownloads(plan, used.packages, modules);
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
  const seen = new Map(named.map((each) => [each.dir, each]));
  walkFolders(options.root, (dir, name) => {
    if (dir !== options.root && !isWalkedName(name)) return false;
    if (dir !== options.root && look(join(dir, "go.mod"))?.isDirectory() === false) {
      // A pattern does not match packages of other modules.
      plan.file(join(dir, "go.mod"));
      return false;
    }
    const found = seen.get(dir);
    plan.folder({ dir, kind: "tree", ...(found && { seen: seenSources(found), package: found.name }) });
    return true;
  });
  const added = plan.done();
  return { folders: [...places.folders, ...added.folders], files: [...places.files, ...added.files] };
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
    let isChosen = false;
    for (const part of pattern.replace(/^all:/, "").split("/")) {
      if (part === "." || part === "") continue;
      if (!/[*?[\\]/.test(part)) {
        // A plain name has one match, whose files are marked. Below several folders it may be missing in some.
        if (isChosen) for (const folder of level) found.add(folder);
        level = level.map((folder) => join(folder, part)).filter((path) => look(path)?.isDirectory());
        continue;
      }
      const matches = globMatcher(part);
      isChosen = true;
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

/** Adds the sources of a package that may be edited. */
function planPackage(plan: PlanMaker, each: GoPackage, { target }: Pick<SourcesOptions, "target">): void {
  // Vendored packages are not edited: their headers need no look.
  const headers = each.dir.includes("/vendor/") ? undefined : "read";
  const unread = unreadFiles(each, target);
  plan.folder({ dir: each.dir, kind: "sources", seen: seenSources(each), unread, headers, package: each.name });
}

/** The files that a package's platform excludes by their names (docs/rules.md F1.5). */
function unreadFiles(each: GoPackage, target: Target | undefined): ReadonlySet<string> | undefined {
  const ignored = [...each.ignoredGoFiles, ...each.ignoredOtherFiles];
  return target && new Set(ignored.filter((name) => isExcludedName(name, target)));
}

/** Adds a package of the module cache, and the files of its module that go looks at. */
function planCached(plan: PlanMaker, each: GoPackage, { target }: Pick<SourcesOptions, "target">): void {
  const module = each.module?.dir;
  plan.folder({ dir: each.dir, kind: "indexed", seen: seenSources(each), unread: unreadFiles(each, target), module });
  planEmbeds(plan, each, { module });
  if (module === undefined) return;
  plan.name(join(module, "go.mod"), { kind: "files", module });
  for (const path of downloadedFiles(each.module?.goMod)) plan.name(path, { kind: "files", module });
}

/** Adds embedded files, the folders above them, and the places where more would count (docs/rules.md F1.8). */
function planEmbeds(
  plan: PlanMaker,
  { dir, embedFiles, embedPatterns }: GoPackage,
  { module }: Pick<FolderPlan, "module"> = {},
): void {
  for (const name of embedFiles) {
    for (let path = name; path !== "."; path = dirname(path)) {
      plan.name(join(dir, path), { kind: "embedded", module });
      // A go.mod makes the folder a part of another module.
      if (path !== name) plan.name(join(dir, path, "go.mod"), { kind: "embedded", module });
    }
  }
  for (const each of embedFolders(dir, embedPatterns)) plan.entries(each, { module });
}

function planToolchain(
  plan: PlanMaker,
  options: Pick<SourcesOptions, "go" | "target"> & {
    readonly goroot: string;
    readonly standard: readonly GoPackage[];
  },
): void {
  const { goroot, go, standard, target } = options;
  for (const path of [go, ...["VERSION", "go.env", "bin/go"].map((name) => join(goroot, name))]) plan.file(path);
  const tools = join(goroot, "pkg", "tool");
  for (const host of readNames(tools)) {
    for (const tool of ["compile", "link", "asm", "preprofile"]) plan.file(join(tools, host, tool));
  }
  for (const each of standard) {
    if (each.dir === "") continue;
    plan.folder({ dir: each.dir, kind: "indexed", seen: seenSources(each), unread: unreadFiles(each, target) });
    planEmbeds(plan, each);
  }
  plan.folder({ dir: join(goroot, "pkg", "include"), kind: "sources" });
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
