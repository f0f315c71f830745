/**
 * Resolves arguments (`./cmd/app`, `ko://example.com/app`, `./...`) to main packages that can be compiled.
 *
 * One `go list` answers for all arguments. A second one runs in the folder of another module, because `go` looks for
 * `go.mod` and `go.work` upwards only, while users also name programs of modules below.
 */
import { KoError, KoErrors } from "./errors.ts";
import { isBelow } from "./file.ts";
import { type Argument, PATTERN_WORDS, patternFor, readArgument } from "./go-arguments.ts";
import { findModuleDir, findModulesBelow, findOwner, findSurroundings, type Surroundings } from "./go-modules.ts";
import { type Advice, createAdvice, explainPackage } from "./go-problems.ts";
import {
  buildEnvironment,
  DEFAULT_PLATFORM,
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

/** The result of {@link findPrograms}. */
export interface FoundPrograms {
  /** One result per argument, in order: its programs, or an error. */
  readonly results: readonly (readonly Program[] | KoError)[];
  /** All listed packages, those of Go itself included, by the working directory of `go list`. */
  readonly packages: ReadonlyMap<string, readonly GoPackage[]>;
}

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

/** One run of `go list`. */
interface Listing {
  readonly workDir: string;
  readonly packages: readonly GoPackage[];
  readonly byPath: ReadonlyMap<string, GoPackage>;
}

type Answer = { readonly listing: Listing; readonly named: readonly GoPackage[] } | { readonly failure: KoError };

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
