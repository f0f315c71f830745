/**
 * From what a user types (`./cmd/app`, `ko://example.com/app`, `./...`) to programs that can be compiled.
 *
 * One `go list` answers for all arguments; only for a module that lies elsewhere is go asked again, there. Every argument
 * that is bad is told of before anything is built. spec/behaviour.md 1.3, spec/demand.md rows 19, 20 and 22.
 *
 * Where modules lie on disk: which folder `go` must run in for a path or an import path.
 *
 * `go` looks for `go.mod` and `go.work` upwards only. People also name programs of modules below the folder they are in
 * (spec/demand.md row 19). Of a `go.mod` nothing but its `module` line is read.
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, posix, relative, resolve } from "node:path";
import { findNearest, KoError, KoErrors, UsageError } from "./errors.ts";
import { isBelow } from "./file.ts";
import { explainPackage } from "./go-problems.ts";
import {
  buildEnvironment,
  DEFAULT_PLATFORM,
  findMains,
  type GoModule,
  type GoOptions,
  type GoPackage,
  listPackages,
} from "./go.ts";
import type { Host } from "./host.ts";
import type { Platform } from "./oci.ts";

/** A main package that can be compiled, as far as can be told without compiling. */
export interface Program {
  readonly importPath: string;
  /** Absolute: the package's folder; `kodata` is in it. */
  readonly dir: string;
  /** Absent outside modules (`GO111MODULE=off`) and for programs of Go itself. */
  readonly module: GoModule | undefined;
  /** Absolute: where go must run to know `importPath`. */
  readonly workDir: string;
  /** The first argument that named it, as given. */
  readonly text: string;
}

export interface ListProgramsOptions extends GoOptions {
  /** For build constraints. @default linux/amd64 */
  readonly platform: Platform | undefined;
  /** Wins over the user's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Build flags that decide which files take part (`-tags`, `-mod`). */
  readonly flags?: readonly string[];
}

interface Argument {
  readonly text: string;
  /** A pattern: it may name any number of packages. */
  readonly wild: boolean;
  /** Absolute: the folder of an argument that is a path, before the first element with `...`. */
  readonly dir: string | undefined;
  /** The import path, or what follows `dir`. */
  readonly rest: string;
  /** The file's name, if it named one. */
  readonly file: string | undefined;
}

/** One run of `go list`. */
interface Listing {
  readonly workDir: string;
  readonly packages: readonly GoPackage[];
  readonly byPath: ReadonlyMap<string, GoPackage>;
}

type Answer = { readonly listing: Listing; readonly named: readonly GoPackage[] } | { readonly failure: KoError };

/** Patterns of go that are words. */
export const PATTERN_WORDS: ReadonlySet<string> = new Set(["all", "std", "cmd", "tool", "work"]);

/** What an argument turned out to be. */
export interface FoundPrograms {
  /** One result per argument, in their order: the programs it stands for, or what is wrong with it. */
  readonly results: readonly (readonly Program[] | KoError)[];
  /** All packages that take part, those of Go itself included; by the folder that go ran in. */
  readonly packages: ReadonlyMap<string, readonly GoPackage[]>;
}

/**
 * The programs that were found, in argument order, each once.
 *
 * @throws {KoErrors} With every bad argument, if there are several.
 * @throws {KoError} If one argument is bad.
 */
export function choosePrograms({ results }: Pick<FoundPrograms, "results">): readonly Program[] {
  const errors = new Set<KoError>();
  const programs = new Map<string, Program>();
  for (const result of results) {
    if (result instanceof KoErrors) for (const each of result.errors) errors.add(each);
    else if (result instanceof KoError) errors.add(result);
    else for (const each of result) if (!programs.has(each.importPath)) programs.set(each.importPath, each);
  }
  const [only, another] = errors;
  if (another !== undefined) throw new KoErrors([...errors]);
  if (only !== undefined) throw only;
  return [...programs.values()];
}

/**
 * What each argument names. A pattern stands for the main packages among those it matches, in go's order.
 *
 * @param args import paths, paths, Go files, patterns; `ko://` before any of them
 * @throws {KoError} If go cannot be run.
 */
export async function findPrograms(args: readonly string[], options: ListProgramsOptions): Promise<FoundPrograms> {
  const { host } = options;
  const env = buildEnvironment(options.platform ?? DEFAULT_PLATFORM, host.env, options.env);
  const here = await findSurroundings(host.cwd, env);
  const read = await Promise.all(args.map((text) => readArgument(text, host)));
  const listings = new Map<string, readonly GoPackage[]>();
  const answers = new Map<Argument, Answer>();
  const ask = async (places: ReadonlyMap<Argument, string>): Promise<void> => {
    const byPlace = Map.groupBy(places.keys(), (argument) => places.get(argument) ?? host.cwd);
    for (const [workDir, group] of byPlace) {
      const patterns = new Map(group.map((argument) => [argument, patternFor(argument, workDir)]));
      try {
        const packages = await listPackages([...new Set(patterns.values())], { ...options, env, cwd: workDir });
        listings.set(workDir, packages);
        const listing = { workDir, packages, byPath: new Map(packages.map((each) => [each.importPath, each])) };
        for (const [argument, pattern] of patterns) {
          answers.set(argument, { listing, named: packages.filter((each) => each.match.includes(pattern)) });
        }
      } catch (failure) {
        if (!(failure instanceof KoError) || (options.signal ?? host.signal).aborted) throw failure;
        for (const argument of group) answers.set(argument, { failure });
      }
    }
  };
  const first = new Map<Argument, string>();
  for (const argument of read)
    if (!(argument instanceof KoError)) first.set(argument, await placeFor(argument, here, host));
  await ask(first);
  const elsewhere = await findElsewhere(answers, here, host);
  await ask(elsewhere);

  const advice = createAdvice(here, { ...options, env, elsewhere });
  const results: (readonly Program[] | KoError)[] = [];
  for (const argument of read) {
    results.push(argument instanceof KoError ? argument : await judge(argument, answers.get(argument), advice));
  }
  return { results, packages: listings };
}

async function readArgument(text: string, host: Host): Promise<Argument | KoError> {
  let name = text.startsWith("ko://") ? text.slice("ko://".length) : text;
  if (host.platform === "win32") name = name.replaceAll("\\", "/");
  if (name === "") return new UsageError(`Cannot build "${text}": it is empty, want an import path or a folder`);
  if (name.startsWith("-")) return new UsageError(`Cannot build "${text}": no import path begins with a dash`);
  const file = name.endsWith(".go") && (await isFile(resolve(host.cwd, name))) ? basename(name) : undefined;
  if (!/^\.{1,2}(\/|$)/.test(name) && !isAbsolute(name) && file === undefined) {
    const rest = posix.normalize(name).replace(/\/$/, "");
    return { text, wild: rest.includes("...") || PATTERN_WORDS.has(rest), dir: undefined, rest, file };
  }
  const parts = name.split("/");
  const at = parts.findIndex((part) => part.includes("..."));
  const folder = (at < 0 ? parts : parts.slice(0, at)).join("/") || "/";
  const dir = resolve(host.cwd, file === undefined ? folder : dirname(name));
  const rest = at < 0 ? "" : `/${parts.slice(at).filter(Boolean).join("/")}`;
  return { text, wild: at >= 0, dir, rest, file };
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}

/** As go wants it when it runs in `workDir`. */
function patternFor(argument: Argument, workDir: string): string {
  return argument.dir === undefined ? argument.rest : showPath(argument.dir, workDir) + argument.rest;
}

/** A folder as one types it: `.`, `./cmd/app`, `../lib`. */
function showPath(dir: string, from: string): string {
  const path = relative(from, dir).replaceAll("\\", "/");
  if (path === "" || isAbsolute(path)) return path || ".";
  return /^\.\.(\/|$)/.test(path) ? path : `./${path}`;
}

/** Where go is asked first: here, but for a module that go, run here, cannot see. */
async function placeFor(argument: Argument, here: Surroundings, host: Host): Promise<string> {
  if (argument.dir === undefined || here.workspace || !here.modules) return host.cwd;
  const owner = await findModuleDir(argument.dir);
  if (owner === undefined || owner === here.moduleDir) return host.cwd;
  // A module beside ours may be a replacement in our go.mod: go, run here, knows. One inside ours never is visible.
  return here.moduleDir === undefined || isBelow(owner, here.moduleDir) ? owner : host.cwd;
}

/** Folders of other modules for the arguments that go did not find here. */
async function findElsewhere(
  answers: ReadonlyMap<Argument, Answer>,
  here: Surroundings,
  host: Host,
): Promise<ReadonlyMap<Argument, string>> {
  const result = new Map<Argument, string>();
  if (!here.modules) return result;
  let modules: Awaited<ReturnType<typeof findModulesBelow>> | undefined;
  for (const [argument, answer] of answers) {
    if ("failure" in answer || answer.named.some((each) => each.dir !== "")) continue;
    let owner: string | undefined;
    if (argument.dir !== undefined) {
      owner = await findModuleDir(argument.dir);
    } else if (!PATTERN_WORDS.has(argument.rest)) {
      modules ??= await findModulesBelow(host.cwd, here.moduleDir);
      owner = findOwner(argument.rest.replace(/\/?[^/]*\.\.\..*$/, ""), modules)?.dir;
    }
    if (owner !== undefined && owner !== here.moduleDir && owner !== answer.listing.workDir)
      result.set(argument, owner);
  }
  return result;
}

/** What helps a user who named the wrong thing; go is asked for it once, and only then. */
interface Advice {
  readonly platform: string;
  readonly remedy: (argument: Argument) => string | undefined;
  readonly suggest: (argument: Argument) => Promise<string | undefined>;
  readonly below: (importPath: string, argument: Argument) => Promise<readonly string[]>;
}

interface CreateAdviceOptions extends ListProgramsOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Folders of the modules that own arguments which go did not find here. */
  readonly elsewhere: ReadonlyMap<Argument, string>;
}

function createAdvice(here: Surroundings, options: CreateAdviceOptions): Advice {
  const { host } = options;
  const root = here.moduleDir ?? host.cwd;
  let asked: ReturnType<typeof findMains> | undefined;
  // Advice that cannot be had is no second failure.
  const mains = (): ReturnType<typeof findMains> =>
    (asked ??= findMains("./...", { ...options, cwd: root }).catch(() => []));
  const show = (main: { importPath: string; dir: string }, argument: Argument): string =>
    argument.dir === undefined ? main.importPath : showPath(main.dir, host.cwd);
  return {
    platform: `${options.env["GOOS"]}/${options.env["GOARCH"]}`,
    remedy: (argument) => {
      const owner = options.elsewhere.get(argument);
      return here.workspace && owner !== undefined ? `go work use ${showPath(owner, host.cwd)}` : undefined;
    },
    suggest: async (argument) => {
      if (argument.wild) {
        if (here.moduleDir !== undefined || argument.dir === undefined) return undefined;
        const [module] = await findModulesBelow(argument.dir, undefined);
        return module && `${showPath(module.dir, host.cwd)}/...`;
      }
      if (argument.dir === undefined) {
        // `cmd/app` for `./cmd/app`.
        const folder = join(host.cwd, argument.rest);
        if ((await stat(folder).catch(() => undefined))?.isDirectory()) return showPath(folder, host.cwd);
      }
      const module = (await readModulePath(root)) ?? "";
      // Only what is below the module is compared: a long common beginning would make everything near.
      const shorten = (name: string): string => (name.startsWith(`${module}/`) ? name.slice(module.length + 1) : name);
      const word = argument.dir === undefined ? shorten(argument.rest) : relative(root, argument.dir);
      const near = new Map<string, string>();
      for (const main of await mains()) {
        near.set(
          argument.dir === undefined ? shorten(main.importPath) : relative(root, main.dir),
          show(main, argument),
        );
      }
      const same = [...near.keys()].filter((name) => basename(name) === basename(word));
      return near.get(findNearest(word, near.keys()) ?? (same.length === 1 ? same[0] : undefined) ?? "");
    },
    below: async (importPath, argument) => {
      const path = argument.dir;
      const inside = (main: { importPath: string; dir: string }): boolean =>
        path === undefined ? main.importPath.startsWith(`${importPath}/`) : isBelow(main.dir, path);
      return (await mains())
        .filter(inside)
        .slice(0, 5)
        .map((main) => show(main, argument));
    },
  };
}

/** The programs that an argument stands for, or what is wrong with it. */
async function judge(
  argument: Argument,
  answer: Answer | undefined,
  advice: Advice,
): Promise<readonly Program[] | KoError> {
  const { text } = argument;
  if (answer === undefined) throw new Error(`no answer for ${text}`);
  if ("failure" in answer) return answer.failure;
  const { listing, named } = answer;
  const errors: KoError[] = [];
  const programs: Program[] = [];
  for (const found of named) {
    if (argument.wild && !mayBeProgram(found, patternFor(argument, listing.workDir))) continue;
    const error = await explainPackage(found, {
      text: argument.wild && found.dir !== "" ? found.importPath : text,
      platform: advice.platform,
      file: argument.file,
      packages: listing.byPath,
      remedy: advice.remedy(argument),
      suggest: () => advice.suggest(argument),
      below: (importPath) => advice.below(importPath, argument),
    });
    if (error !== undefined) errors.push(error);
    else programs.push({ ...pick(found), workDir: listing.workDir, text });
  }
  const [only, another] = errors;
  if (only !== undefined) return another === undefined ? only : new KoErrors(errors);
  if (programs.length > 0) return programs;
  const count = named.length === 1 ? "the one package" : `none of the ${named.length} packages`;
  const why =
    named.length === 0
      ? "no package matches"
      : `${count} it matches is${named.length === 1 ? " not" : ""} package main`;
  return new KoError(`Cannot build "${text}": ${why}`);
}

/** Of what a pattern matches: a program, something broken that may be one, or the pattern itself when it is no good. */
function mayBeProgram(found: GoPackage, pattern: string): boolean {
  if (found.name === "main") return found.problem !== undefined || found.goFiles.length + found.cgoFiles.length > 0;
  return found.problem !== undefined && found.name === "" && (found.dir !== "" || found.importPath === pattern);
}

function pick(found: GoPackage): Pick<Program, "importPath" | "dir" | "module"> {
  return { importPath: found.importPath, dir: found.dir, module: found.module };
}

export interface ModuleFolder {
  /** Absolute. */
  readonly dir: string;
  readonly path: string;
}

/** What `go` finds when it is run in a folder. */
export interface Surroundings {
  /** Absolute: the nearest folder with a `go.mod`, upwards. */
  readonly moduleDir: string | undefined;
  readonly workspace: boolean;
  /** False with `GO111MODULE=off`. */
  readonly modules: boolean;
}

/** How many folders are looked at in search of modules below the work tree. */
const MOST_FOLDERS = 20_000;

const SKIPPED = new Set(["node_modules", "vendor", "testdata"]);

/** What rules a run of `go` in `cwd` with this environment. */
export async function findSurroundings(cwd: string, env: Readonly<Record<string, string>>): Promise<Surroundings> {
  const gowork = env["GOWORK"] ?? "";
  const workspace = gowork === "" ? await findUpwards(cwd, "go.work") : gowork === "off" ? undefined : gowork;
  return {
    moduleDir: await findModuleDir(cwd),
    workspace: workspace !== undefined,
    modules: env["GO111MODULE"] !== "off",
  };
}

/** The folder of the nearest `go.mod` at or above `dir`, which need not exist itself. */
export function findModuleDir(dir: string): Promise<string | undefined> {
  return findUpwards(dir, "go.mod");
}

/**
 * All modules in the git work tree around `cwd`, else below the module or folder it is in, sorted by folder.
 */
export async function findModulesBelow(cwd: string, moduleDir: string | undefined): Promise<readonly ModuleFolder[]> {
  const found: ModuleFolder[] = [];
  const folders = [(await findUpwards(cwd, ".git")) ?? moduleDir ?? cwd];
  for (let at = 0; at < folders.length && at < MOST_FOLDERS; at++) {
    const dir = folders[at] ?? "";
    const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
    for (const { name } of entries.filter((entry) => entry.isDirectory())) {
      if (!/^[._]/.test(name) && !SKIPPED.has(name)) folders.push(join(dir, name));
    }
    if (!entries.some((entry) => entry.name === "go.mod")) continue;
    const path = await readModulePath(dir);
    if (path !== undefined) found.push({ dir, path });
  }
  return found.sort((a, b) => (a.dir < b.dir ? -1 : 1));
}

/** The module that owns an import path: the one with the longest path that leads it. */
export function findOwner(importPath: string, modules: readonly ModuleFolder[]): ModuleFolder | undefined {
  let owner: ModuleFolder | undefined;
  for (const module of modules) {
    const leads = importPath === module.path || importPath.startsWith(`${module.path}/`);
    if (leads && module.path.length > (owner?.path.length ?? 0)) owner = module;
  }
  return owner;
}

/** The `module` line of the `go.mod` in a folder. */
export async function readModulePath(dir: string): Promise<string | undefined> {
  const text = await readFile(join(dir, "go.mod"), "utf8").catch(() => "");
  return /^[ \t]*module[ \t]+["`]?([^\s"`]+)/m.exec(text)?.[1];
}

/** The nearest folder at or above `dir` that holds a file (for `.git`: or a folder) of this name. */
async function findUpwards(dir: string, name: string): Promise<string | undefined> {
  for (let at = resolve(dir); ; at = dirname(at)) {
    const found = await stat(join(at, name)).catch(() => undefined);
    if (found?.isFile() || (found !== undefined && name === ".git")) return at;
    if (dirname(at) === at) return undefined;
  }
}
