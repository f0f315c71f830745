/**
 * The programs whose inputs differ from a git revision, for `--changed-since`. The inputs are the places that a watch watches,
 * without the commit that Go stamps and bases in registries. If an input cannot be compared, its program counts as changed.
 */
import { readFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { findForeignFlag } from "./build-inputs.ts";
import { baseFor, type Config, parseBase } from "./config.ts";
import { ancestors, isInside, look, lookAtLink, readNames, realPath } from "./file.ts";
import type { TreeChanges } from "./git-changes.ts";
import { findSurroundings } from "./go-modules.ts";
import type { Program } from "./go-programs.ts";
import { isImmutable } from "./go-sources.ts";
import { type GoPackage, settingsOf, splitQuoted } from "./go.ts";
import type { Host } from "./host.ts";
import { planConfig, planKodata, planProgram, reach } from "./watch-plan.ts";
import { joinPlaces, NOWHERE, type Places, WatchSet } from "./watch-places.ts";

export interface FindChangedOptions {
  readonly changes: TreeChanges;
  readonly config: Config;
  readonly host: Host;
  /** A list for each call of `go list`. */
  readonly packages: readonly (readonly GoPackage[])[];
}

/** Files by which version managers choose a Go. */
const GO_CHOOSERS = [".go-version", ".tool-versions", "mise.toml", ".mise.toml", ".envrc"];
const C_SOURCE = /\.(?:c|cc|cpp|cxx|m|h|hh|hpp|hxx|inc|s|S|sx|f|F|for|f90|swig|swigcxx|syso|a|so)$/;

/** @returns by import path: why a program counts as changed; others are missing */
export function findChanged(programs: readonly Program[], options: FindChangedOptions): ReadonlyMap<string, string> {
  const { changes, config, host } = options;
  const reasons = new Map<string, string>();
  const flag = foreignFlag(config, host);
  const plan = new Map<string, Places>();
  const trees = new Map<string, readonly string[]>();
  for (const program of programs) {
    const why = flag === undefined ? whyUnknown(program, options) : `${flag} reads files that ko does not know`;
    if (why !== undefined) reasons.set(program.importPath, why);
    else {
      plan.set(program.importPath, withRealPaths(placesOf(program, options)));
      trees.set(program.importPath, treesOf(program, options));
    }
  }
  const set = new WatchSet({ programs: plan, args: NOWHERE, yaml: NOWHERE, config: withRealPaths(planConfig(host)) });
  for (const { is, path } of changes.paths) {
    const found = [set.affectedBy({ path, is })];
    // A watch passes over the backup files of editors, but kodata and patterns of go:embed do not.
    if (/[~#]|^\.|^4913$|___$/.test(basename(path))) found.push(set.affectedBy({ path: dirname(path), is: "names" }));
    const shown = relative(host.cwd, path);
    for (const { config: isConfig, programs: names } of found) {
      for (const name of isConfig ? plan.keys() : names) if (!reasons.has(name)) reasons.set(name, shown);
    }
    for (const [name, dirs] of trees) {
      if (!reasons.has(name) && dirs.some((dir) => isInside(path, dir))) reasons.set(name, shown);
    }
  }
  return reasons;
}

/** The files and folders that decide the image of a program. */
function placesOf(program: Program, options: FindChangedOptions): Places {
  const { host, packages } = options;
  const used = packages.flatMap((list) => reach(program.importPath, list)).filter(isLocal);
  const files = [
    join(program.dir, "default.pgo"),
    ...ancestors(program.workDir).flatMap((dir) => GO_CHOOSERS.map((name) => join(dir, name))),
    // Go follows symlinks to files.
    ...used.flatMap(({ dir }) => linkedFiles(dir)),
  ];
  const folders = hiddenImports(used, packages.flat()).map((dir) => ({ dir, kind: "all" as const }));
  const sources = planProgram(program, packages, host);
  const isCounted = isolate(program, options);
  const own = { ...NOWHERE, files, folders };
  return joinPlaces([{ ...sources, files: sources.files.filter(isCounted) }, planKodata(program.dir, host), own]);
}

/** The folders of which each file counts: kodata and the targets of its symlinks, and the layout of the base. */
function treesOf(program: Program, { config, host }: FindChangedOptions): readonly string[] {
  const base = parseBase(baseFor(config, program.importPath), host.cwd);
  const kodata = planKodata(program.dir, host).folders.map(({ dir }) => dir);
  const dirs = [join(program.dir, "kodata"), ...kodata, ...(base.kind === "layout" ? [base.path] : [])];
  return [
    ...new Set(dirs.flatMap((dir) => [dir, realPath(dir) ?? dir, join(realPath(dirname(dir)) ?? "/", basename(dir))])),
  ];
}

/**
 * Tells which module files count: only those of the program's module, unless there is a workspace or the module may get
 * another from outside of its folder.
 */
function isolate({ module, workDir }: Program, { config, host }: FindChangedOptions): (path: string) => boolean {
  if (module?.dir === undefined || !module.main) return () => true;
  const { dir } = module;
  const settings = settingsOf({ cwd: workDir, env: host.env, go: config.goPath, host });
  const { modules, workspace } = findSurroundings(workDir, settings);
  const leadsUp = /=>\s*["`]?(?:\.\.|\/)/.test(readText(join(dir, "go.mod")));
  if (workspace !== undefined || !modules || leadsUp) return () => true;
  return (path) => isInside(path, dir) || !/^(?:go\.mod|go\.sum|vendor|modules\.txt)$/.test(basename(path));
}

/** Why it cannot be told from paths whether a program has changed; undefined if it can. */
function whyUnknown(program: Program, { changes, host, packages }: FindChangedOptions): string | undefined {
  const used = packages.flatMap((list) => reach(program.importPath, list));
  if (used.length === 0) return "its packages are not known";
  const outside = [
    ...used.filter(isLocal).map(({ dir }) => dir),
    ...planKodata(program.dir, host).folders.map(({ dir }) => dir),
  ]
    .map((dir) => realPath(dir) ?? dir)
    .find((dir) => !isInside(dir, changes.root));
  if (outside !== undefined) return `${outside} is not in the work tree`;
  const { files, folders } = planKodata(program.dir, host);
  const isOfGit = (path: string): boolean => path.split(/[/\\]/).includes(".git");
  if ([...files, ...folders.map(({ dir }) => dir)].some(isOfGit)) return "its kodata has files of .git";
  // A C file may include any other.
  if (!used.some((each) => isLocal(each) && each.cgoFiles.length > 0)) return undefined;
  const source = changes.paths.find(({ is, path }) => C_SOURCE.test(path) || is === "folder");
  return source && `${relative(host.cwd, source.path)}, which cgo may read`;
}

/** A flag of go build that reads further files. */
function foreignFlag({ builds, defaults, goPath }: Config, host: Host): string | undefined {
  const words = [defaults, ...builds].flatMap(({ env, flags }) => [...(env ?? []), ...(flags ?? [])]);
  const settings = settingsOf({ cwd: host.cwd, env: host.env, go: goPath, host });
  const all = [settings.get("GOFLAGS"), ...words.map(({ value }) => value.replace(/^GOFLAGS=/, ""))];
  return findForeignFlag(all.flatMap(splitQuoted));
}

/** Whether a package is one whose files may change. */
function isLocal(each: GoPackage): boolean {
  return !each.standard && each.dir !== "" && !isImmutable(each);
}

function linkedFiles(dir: string): readonly string[] {
  return readNames(dir).flatMap((name) => {
    const path = join(dir, name);
    if (lookAtLink(path)?.isSymbolicLink() !== true) return [];
    const target = realPath(path);
    return target === undefined ? [] : [target];
  });
}

/**
 * The folders of local packages that are imported only by files that build constraints leave out: another platform of the
 * program may need them. Any text in quotes counts as an import.
 */
function hiddenImports(used: readonly GoPackage[], all: readonly GoPackage[]): readonly string[] {
  const modules = new Map<string, string>();
  for (const { module } of all) {
    if (module?.dir !== undefined && (module.main || module.local)) modules.set(module.path, module.dir);
  }
  const known = new Set(used.map(({ dir }) => dir));
  const found = new Set<string>();
  const waiting = used.flatMap(({ dir, ignoredGoFiles }) => ignoredGoFiles.map((name) => join(dir, name)));
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (file.endsWith("_test.go")) continue;
    for (const [, importPath = ""] of readText(file).matchAll(/["`]([^"`\s]+)["`]/g)) {
      for (const [path, moduleDir] of modules) {
        if (importPath !== path && !importPath.startsWith(`${path}/`)) continue;
        const dir = join(moduleDir, importPath.slice(path.length));
        if (known.has(dir) || found.has(dir) || look(dir)?.isDirectory() !== true) continue;
        found.add(dir);
        waiting.push(
          ...readNames(dir)
            .filter((name) => name.endsWith(".go"))
            .map((name) => join(dir, name)),
        );
      }
    }
  }
  return [...found];
}

/** Adds the real paths of those places that lead through symlinks: git names these. */
function withRealPaths({ embeds, files, folders }: Places): Places {
  const real = (path: string): string =>
    realPath(path) ?? join(realPath(dirname(path)) ?? dirname(path), basename(path));
  return {
    files: [...new Set(files.flatMap((path) => [path, real(path)]))],
    folders: folders.flatMap((each) =>
      real(each.dir) === each.dir ? [each] : [each, { ...each, dir: real(each.dir) }],
    ),
    embeds: embeds.flatMap((each) => (real(each.dir) === each.dir ? [each] : [each, { ...each, dir: real(each.dir) }])),
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
