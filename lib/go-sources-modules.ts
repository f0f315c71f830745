/**
 * Plans the files that choose modules and their versions, and the places where another module would provide a package
 * too: there `go build` refuses.
 *
 * Of go.mod and go.work only the local folders that they may name are read (https://go.dev/ref/mod#resolve-pkg-mod).
 */
import { readFileSync } from "node:fs";
import { dirname, isAbsolute, join, resolve, sep } from "node:path";
import { ancestors, isBelow, isInside, look } from "./file.ts";
import { readModulePath } from "./go-modules.ts";
import type { Program } from "./go-programs.ts";
import { PlanMaker } from "./go-sources-plan.ts";
import type { GoModule, GoPackage } from "./go.ts";

export interface ModulesOptions {
  readonly program: Pick<Program, "dir" | "workDir">;
  /** The files of go's settings, existing or not. */
  readonly settings: readonly string[];
  /** The value of GOWORK, if it is set. */
  readonly gowork: string | undefined;
}

/** A module whose files may change. */
export interface LocalModule {
  /** Absolute. */
  readonly dir: string;
  readonly path: string;
}

/** The modules of a program. */
export interface ModuleChoice {
  /** The same module may be there under several paths. */
  readonly local: readonly LocalModule[];
  /** Absolute paths of the go.sum and go.work.sum files. */
  readonly sums: readonly string[];
  /** Whether go reads the go.mod of each module in the graph, not only of those with packages of the program. */
  readonly isWhole: boolean;
}

/** The files that choose modules and their versions for a program, existing or not. */
export function planModuleFiles(
  program: Pick<Program, "dir" | "workDir">,
  packages: readonly GoPackage[],
  options: Omit<ModulesOptions, "program">,
): readonly string[] {
  const plan = new PlanMaker();
  planModules(plan, packages, { ...options, program });
  return plan.done().files;
}

/** Adds the files that choose modules and their versions. */
export function planModules(
  plan: PlanMaker,
  packages: readonly GoPackage[],
  { gowork, program, settings }: ModulesOptions,
): ModuleChoice {
  for (const file of settings) plan.file(file);
  for (const dir of new Set([...ancestors(program.workDir), ...ancestors(program.dir)])) {
    for (const name of ["go.mod", "go.work"]) plan.file(join(dir, name));
  }
  const choosing = new Set<string>(gowork === undefined || gowork === "off" ? [] : [gowork]);
  for (const dir of ancestors(program.workDir)) {
    for (const name of ["go.mod", "go.work"]) if (look(join(dir, name)) !== undefined) choosing.add(join(dir, name));
  }
  for (const { module } of packages) if (isChanging(module)) choosing.add(module.goMod);
  const local: LocalModule[] = [];
  // The loop also visits the files that it adds: a module of a workspace may replace others.
  for (const path of choosing) {
    for (const file of moduleFiles(path)) plan.file(file);
    const own = path.endsWith(".mod") ? readModulePath(dirname(path)) : undefined;
    if (own !== undefined) local.push({ dir: dirname(path), path: own });
    for (const { dir, path: replaced } of localFolders(path)) {
      choosing.add(join(dir, "go.mod"));
      if (replaced !== undefined) local.push({ dir, path: replaced });
    }
  }
  const paths = [...choosing];
  const isWhole = paths.some((path) => path.endsWith(".work") || !isPruned(path));
  return { local, sums: paths.map(sumFile), isWhole };
}

/**
 * Adds the files of the download cache that go looks at, of modules that have no package of the program: their path may
 * lead to one, or they are a part of the module graph.
 */
export function planDownloads(
  plan: PlanMaker,
  packages: readonly GoPackage[],
  { isWhole, sums }: Pick<ModuleChoice, "isWhole" | "sums">,
): void {
  const used = new Set(packages.map(({ module }) => module?.path));
  const cache = packages.map(({ module }) => downloadCache(module)).find((each) => each !== undefined);
  if (cache === undefined) return;
  for (const line of sums.flatMap((path) => readText(path).split("\n"))) {
    const [path = "", version = ""] = line.split(" ");
    const mayLead = (): boolean => packages.some(({ importPath }) => importPath.startsWith(`${path}/`));
    const isFile = version.endsWith("/go.mod");
    if (isFile ? !isWhole : used.has(path) || !mayLead()) continue;
    const folder = downloadFolder(cache, path);
    if (look(folder) === undefined) continue;
    const mod = join(folder, `${escape(version.replace("/go.mod", ""))}.mod`);
    for (const each of isFile ? [mod] : downloadedFiles(mod)) plan.name(each, { kind: "files" });
    if (!isFile) plan.file(join(cache, `${escape(path)}@${escape(version)}`));
  }
}

/** The folder of a module's versions in the download cache. */
export function downloadFolder(cache: string, path: string): string {
  return join(cache, "cache", "download", escape(path), "@v");
}

/** The module cache, by a module that lies in it; undefined for other modules. */
export function downloadCache(module: GoModule | undefined): string | undefined {
  const goMod = module?.goMod ?? "";
  const at = goMod.indexOf(join(sep, "cache", "download", sep));
  return at < 0 || !goMod.includes(`${sep}@v${sep}`) ? undefined : goMod.slice(0, at);
}

/** Adds the places where local modules would provide packages of others (docs/rules.md F1.6). */
export function planRivals(
  plan: PlanMaker,
  packages: readonly GoPackage[],
  { goroot, local }: { readonly goroot: string; readonly local: readonly LocalModule[] },
): void {
  for (const { dir, importPath, standard } of packages) {
    for (const module of local) {
      if (importPath !== module.path && !importPath.startsWith(`${module.path}/`)) continue;
      const rival = join(module.dir, importPath.slice(module.path.length));
      if (rival === dir) continue;
      plan.place(rival);
      // A go.mod between the place and its module makes it a part of another one.
      for (const each of waysUp(rival, module.dir)) plan.file(join(each, "go.mod"));
    }
    // A path without a dot in its first element may be one of Go's own packages.
    if (!standard && !/^[^/]*\./.test(importPath)) plan.place(join(goroot, "src", importPath));
  }
}

/** The files of a version in the download cache that `go build` reads (docs/rules.md F1.7), from the path of its go.mod there. */
export function downloadedFiles(goMod: string | undefined): readonly string[] {
  if (goMod?.endsWith(".mod") !== true || !goMod.includes(`${sep}@v${sep}`)) return [];
  const start = goMod.slice(0, -".mod".length);
  return [".info", ".mod", ".partial", ".ziphash"].map((end) => start + end);
}

/** The folders from a package's up to its module's, both included. */
export function waysUp(dir: string, root: string): readonly string[] {
  if (!isInside(dir, root)) return [];
  return ancestors(dir).filter((each) => each === root || isBelow(each, root));
}

function isChanging(module: GoModule | undefined): module is GoModule & { readonly goMod: string } {
  return module?.goMod !== undefined && (module.main || module.local);
}

/** A go.mod or go.work, with its sum file and its vendor folder. */
function moduleFiles(path: string): readonly string[] {
  const dir = dirname(path);
  return [path, sumFile(path), join(dir, "vendor"), join(dir, "vendor", "modules.txt")];
}

function sumFile(path: string): string {
  return path.endsWith(".work") ? `${path}.sum` : join(dirname(path), "go.sum");
}

/** Whether a go.mod lists all modules with packages of its programs, so that go need not read those of others. */
function isPruned(path: string): boolean {
  const [, minor] = /^go[ \t]+1\.(\d+)/m.exec(readText(path)) ?? [];
  return minor !== undefined && Number(minor) >= 17;
}

/** A path or version as in the module cache, where a capital letter is a small one after `!`. */
function escape(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => `!${letter.toLowerCase()}`);
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/**
 * The local folders that a go.mod or go.work may name in `replace` or `use`: each word that is a module's folder.
 *
 * @returns with the path of the module that the folder replaces, if it stands on the line
 */
export function localFolders(path: string): readonly { readonly dir: string; readonly path: string | undefined }[] {
  const found: { dir: string; path: string | undefined }[] = [];
  for (const line of readText(path).split("\n")) {
    const words = Array.from(line.matchAll(/"[^"]*"|`[^`]*`|[^\s"`()]+/g), ([word]) =>
      word.replace(/^["`]|["`]$/g, ""),
    );
    for (const word of words) {
      if (!word.startsWith(".") && !isAbsolute(word) && !path.endsWith(".work")) continue;
      const dir = resolve(dirname(path), word);
      if (look(join(dir, "go.mod")) === undefined) continue;
      found.push({ dir, path: words.includes("=>") ? words.find((each) => each !== "replace") : undefined });
    }
  }
  return found;
}
