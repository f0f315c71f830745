/**
 * Resolves arguments (`./cmd/app`, `ko://example.com/app`, `./...`) to main packages that can be compiled.
 *
 * One `go list` answers for all arguments. A second one runs in the folder of another module, because `go` looks for
 * `go.mod` and `go.work` upwards only, while users also name programs of modules below.
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, posix, relative, resolve, sep } from "node:path";
import { findNearest, KoError, KoErrors, UsageError } from "./errors.ts";
import { isBelow, look } from "./file.ts";
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

/** A main package without known faults. */
export interface Program {
  readonly importPath: string;
  /** Absolute: the package's folder; `kodata` is in it. */
  readonly dir: string;
  /** Absent outside modules (`GO111MODULE=off`) and for programs of Go itself. */
  readonly module: GoModule | undefined;
  /** Absolute: the working directory in which `go` finds `importPath`. */
  readonly workDir: string;
  /** The first argument that named it, as given. */
  readonly text: string;
}

export interface FindProgramsOptions extends GoOptions {
  /** The platform of build constraints. @default linux/amd64 */
  readonly platform: Platform | undefined;
  /** Variables that override the user's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Build flags that decide which files take part (`-tags`, `-mod`). */
  readonly flags?: readonly string[];
}

/** An argument such as `./cmd/app`, `ko://example.com/app` or `./...`, taken apart. */
export interface ParsedArgument {
  /** "pattern": it may name any number of packages. */
  readonly kind: "path" | "import" | "pattern";
  /** Absolute: the folder that a path names, or that a pattern of paths begins with. Undefined for import paths. */
  readonly dir: string | undefined;
  /** The import path, or the part of a pattern that follows `dir`, such as `/...`. */
  readonly rest: string;
}

/** The result of {@link findPrograms}. */
export interface FoundPrograms {
  /** One result per argument, in order: its programs, or an error. */
  readonly results: readonly (readonly Program[] | KoError)[];
  /** All listed packages, those of Go itself included, by the working directory of `go list`. */
  readonly packages: ReadonlyMap<string, readonly GoPackage[]>;
}

export interface ModuleFolder {
  /** Absolute. */
  readonly dir: string;
  readonly path: string;
}

/** The module context of a folder. */
export interface Surroundings {
  /** Absolute: the nearest folder with a `go.mod`, at or above. */
  readonly moduleDir: string | undefined;
  readonly workspace: boolean;
  /** False with `GO111MODULE=off`. */
  readonly modules: boolean;
}

/** Package patterns that are reserved words (`go help packages`). */
const PATTERN_WORDS: ReadonlySet<string> = new Set(["all", "std", "cmd", "tool", "work"]);

/** The most folders that are read in search of modules. */
const MOST_FOLDERS = 20_000;

const SKIPPED = new Set(["node_modules", "vendor", "testdata"]);

/**
 * Returns the programs in argument order, each once.
 *
 * @throws {KoErrors} If several arguments have an error.
 * @throws {KoError} If one argument has an error.
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
 * Finds the programs that each argument names. A pattern names the main packages it matches, in the order of `go list`.
 *
 * @param args import paths, paths, Go files or patterns, each with or without `ko://`
 * @throws {KoError} If the platform or GOFLAGS is refused by {@link buildEnvironment}. Errors of `go list` are results.
 */
export async function findPrograms(args: readonly string[], options: FindProgramsOptions): Promise<FoundPrograms> {
  const { host } = options;
  const env = buildEnvironment(options.platform ?? DEFAULT_PLATFORM, host.env, options.env);
  const here = await findSurroundings(host.cwd, env);
  const read = args.map((text) => readArgument(text, host.cwd));
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

/** Parses an argument, without a look at the file system. */
export function parseArgument(text: string, cwd: string): ParsedArgument {
  const name = withoutScheme(text);
  if (!/^\.{0,2}(\/|$)/.test(name) && !isAbsolute(name)) {
    const rest = posix.normalize(name).replace(/\/$/, "");
    const isPattern = rest.includes("...") || PATTERN_WORDS.has(rest);
    return { kind: isPattern ? "pattern" : "import", dir: undefined, rest };
  }
  const parts = name.split("/");
  const at = parts.findIndex((part) => part.includes("..."));
  if (at < 0) return { kind: "path", dir: resolve(cwd, name), rest: "" };
  const dir = resolve(cwd, parts.slice(0, at).join("/") || "/");
  return { kind: "pattern", dir, rest: `/${parts.slice(at).filter(Boolean).join("/")}` };
}

/** Finds the module context that `go` has in a folder with this environment. */
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

/** Finds all modules in the git work tree around `cwd`; without git, below `moduleDir` or `cwd`. Sorted by folder. */
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

/** The module of an import path: the one whose path is its longest prefix. */
export function findOwner(importPath: string, modules: readonly ModuleFolder[]): ModuleFolder | undefined {
  let owner: ModuleFolder | undefined;
  for (const module of modules) {
    const leads = importPath === module.path || importPath.startsWith(`${module.path}/`);
    if (leads && module.path.length > (owner?.path.length ?? 0)) owner = module;
  }
  return owner;
}

/** Reads the module path from the `go.mod` in a folder; undefined if there is none. */
export async function readModulePath(dir: string): Promise<string | undefined> {
  const text = await readFile(join(dir, "go.mod"), "utf8").catch(() => "");
  return /^[ \t]*module[ \t]+["`]?([^\s"`]+)/m.exec(text)?.[1];
}

interface Argument extends ParsedArgument {
  /** As given. */
  readonly text: string;
  /** The name of the Go file, if the argument is one. */
  readonly file: string | undefined;
}

/** One run of `go list`. */
interface Listing {
  readonly workDir: string;
  readonly packages: readonly GoPackage[];
  readonly byPath: ReadonlyMap<string, GoPackage>;
}

type Answer = { readonly listing: Listing; readonly named: readonly GoPackage[] } | { readonly failure: KoError };

function readArgument(text: string, cwd: string): Argument | KoError {
  const name = withoutScheme(text);
  if (name === "") return new UsageError(`Cannot build "${text}": it is empty, want an import path or a folder`);
  if (name.startsWith("-")) return new UsageError(`Cannot build "${text}": no import path begins with a dash`);
  const path = resolve(cwd, name);
  if (name.endsWith(".go") && look(path)?.isFile() === true) {
    return { text, kind: "path", dir: dirname(path), rest: "", file: basename(path) };
  }
  return { text, ...parseArgument(text, cwd), file: undefined };
}

function withoutScheme(text: string): string {
  const name = text.replace(/^ko:\/\//, "");
  return sep === "/" ? name : name.replaceAll("\\", "/");
}

/** The argument as a package pattern for `go` in `workDir`. */
function patternFor(argument: Argument, workDir: string): string {
  return argument.dir === undefined ? argument.rest : showPath(argument.dir, workDir) + argument.rest;
}

/** The path to a folder as one types it: `.`, `./cmd/app`, `../lib`. */
function showPath(dir: string, from: string): string {
  const path = relative(from, dir).replaceAll("\\", "/");
  if (path === "" || isAbsolute(path)) return path || ".";
  return /^\.\.(\/|$)/.test(path) ? path : `./${path}`;
}

/** The working directory of the first `go list`: the host's, unless the argument's module is invisible from there. */
async function placeFor(argument: Argument, here: Surroundings, host: Host): Promise<string> {
  if (argument.dir === undefined || here.workspace || !here.modules) return host.cwd;
  const owner = await findModuleDir(argument.dir);
  if (owner === undefined || owner === here.moduleDir) return host.cwd;
  // A module outside ours may be a replacement in our go.mod, so `go list` here decides. One inside is never visible.
  return here.moduleDir === undefined || isBelow(owner, here.moduleDir) ? owner : host.cwd;
}

/** The folders of other modules in which to look for arguments that `go list` did not find. */
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

/** Hints for an argument that names no program. They start `go list` once at most, and only if an argument is wrong. */
interface Advice {
  readonly platform: string;
  readonly remedy: (argument: Argument) => string | undefined;
  readonly suggest: (argument: Argument) => Promise<string | undefined>;
  readonly below: (importPath: string, argument: Argument) => Promise<readonly string[]>;
}

interface CreateAdviceOptions extends FindProgramsOptions {
  readonly env: Readonly<Record<string, string>>;
  /** The folders of {@link findElsewhere}. */
  readonly elsewhere: ReadonlyMap<Argument, string>;
}

function createAdvice(here: Surroundings, options: CreateAdviceOptions): Advice {
  const { host } = options;
  const root = here.moduleDir ?? host.cwd;
  let asked: ReturnType<typeof findMains> | undefined;
  // A hint is optional: without the list the error is shown without one.
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
      if (argument.kind === "pattern") {
        if (here.moduleDir !== undefined || argument.dir === undefined) return undefined;
        const [module] = await findModulesBelow(argument.dir, undefined);
        return module && `${showPath(module.dir, host.cwd)}/...`;
      }
      if (argument.dir === undefined) {
        // The user typed `cmd/app` and meant `./cmd/app`.
        const folder = join(host.cwd, argument.rest);
        if ((await stat(folder).catch(() => undefined))?.isDirectory()) return showPath(folder, host.cwd);
      }
      const module = (await readModulePath(root)) ?? "";
      // Without the module's path, whose length would bring all names within the edit distance.
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

/** Returns the programs of an argument, or the error that explains why it has none. */
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
    if (argument.kind === "pattern" && !mayBeProgram(found, patternFor(argument, listing.workDir))) continue;
    const error = await explainPackage(found, {
      text: argument.kind === "pattern" && found.dir !== "" ? found.importPath : text,
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

/** True for a program, for a broken package that may be one, and for an error about the pattern itself. */
function mayBeProgram(found: GoPackage, pattern: string): boolean {
  if (found.name === "main") return found.problem !== undefined || found.goFiles.length + found.cgoFiles.length > 0;
  return found.problem !== undefined && found.name === "" && (found.dir !== "" || found.importPath === pattern);
}

function pick(found: GoPackage): Pick<Program, "importPath" | "dir" | "module"> {
  return { importPath: found.importPath, dir: found.dir, module: found.module };
}

/** The nearest folder at or above `dir` with a file of this name; `.git` may be a folder too. */
async function findUpwards(dir: string, name: string): Promise<string | undefined> {
  for (let at = resolve(dir); ; at = dirname(at)) {
    const found = await stat(join(at, name)).catch(() => undefined);
    if (found?.isFile() || (found !== undefined && name === ".git")) return at;
    if (dirname(at) === at) return undefined;
  }
}
