/**
 * Resolves arguments (`./cmd/app`, `ko://example.com/app`, `./...`) to main packages that can be compiled.
 *
 * One `go list` answers for all arguments that share a module and a setup (go-setup.ts). A second one runs in the folder
 * of another module, because `go` looks for `go.mod` and `go.work` upwards only, while users also name programs of
 * modules below.
 */
import { createLimit } from "./async.ts";
import { KoError, KoErrors, ProgramError, throwAll } from "./errors.ts";
import { isBelow, realPath } from "./file.ts";
import {
  type Argument,
  type ParsedArgument,
  PATTERN_WORDS,
  patternFor,
  readArgument,
  showPath,
} from "./go-arguments.ts";
import type { PlacedEntry } from "./go-entries.ts";
import {
  findModuleDir,
  findModulesBelow,
  findOwners,
  findSurroundings,
  folderIn,
  type Surroundings,
} from "./go-modules.ts";
import { type Advice, createAdvice, explainPackage } from "./go-problems.ts";
import { type BuildSetup, type BuildSetups, listArguments, listKey } from "./go-setup.ts";
import { type GoModule, type GoOptions, type GoPackage, listPackages, settingsOf } from "./go.ts";
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
  readonly setups: BuildSetups;
  /** True looks at no dependency of a package, and downloads nothing. @default false */
  readonly isShallow?: boolean;
}

/** A pattern that matches no program. */
export class NoProgramError extends ProgramError {}

/** One output of `go list -deps`. */
export interface Listing {
  /** Absolute: the working directory of go. */
  readonly workDir: string;
  readonly setup: BuildSetup;
  /** All listed packages, those of Go itself included. */
  readonly packages: readonly GoPackage[];
}

/** The result of {@link findPrograms}. */
export interface FoundPrograms {
  /** One result per argument, in order: its programs, or an error. */
  readonly results: readonly (readonly Program[] | KoError)[];
  readonly listings: readonly Listing[];
}

/** The most `go list` at once. */
const MOST_LISTS = 4;

/**
 * Returns the programs in argument order, each once.
 *
 * @throws {KoErrors} If several arguments have an error.
 * @throws {KoError} If one argument has an error, or two folders have a program of one import path.
 */
export function choosePrograms({ results }: Pick<FoundPrograms, "results">): readonly Program[] {
  const errors = new Set<KoError>();
  const programs = new Map<string, Program>();
  for (const result of results) {
    if (result instanceof KoErrors) for (const each of result.errors) errors.add(each);
    else if (result instanceof KoError) errors.add(result);
    else {
      for (const each of result) {
        const before = programs.get(each.importPath);
        if (before === undefined) programs.set(each.importPath, each);
        else if (realPath(before.dir) !== realPath(each.dir)) errors.add(twoFolders(before, each));
      }
    }
  }
  throwAll([...errors]);
  return [...programs.values()];
}

function twoFolders({ dir, importPath }: Program, other: Program): KoError {
  return new ProgramError(`Cannot build ${importPath} from "${dir}" and "${other.dir}": two modules have one path`, {
    hint: "Name one of them.",
  });
}

/**
 * Finds the programs that each argument names. A pattern names the main packages it matches, in the order of `go list`.
 *
 * @param args import paths, paths, Go files or patterns, each with or without `ko://`
 * @throws {KoError} If the platform or GOFLAGS is refused. Errors of `.ko.yaml` and of `go list` are results.
 */
export async function findPrograms(args: readonly string[], options: FindProgramsOptions): Promise<FoundPrograms> {
  return new Search(options).run(args);
}

/** A question to go: the packages that `target` names. */
interface Question {
  /** The argument that gets the answer. */
  readonly argument: Argument;
  readonly target: Pick<ParsedArgument, "dir" | "rest">;
  readonly workDir: string;
  readonly setup: BuildSetup;
  /** The answer replaces programs that the argument names with another setup, and adds to them. @default false */
  readonly isOwn?: boolean;
}

/** A package that an argument names. */
interface Named {
  readonly found: GoPackage;
  readonly listing: IndexedListing;
}

interface IndexedListing extends Listing {
  readonly byPath: ReadonlyMap<string, GoPackage>;
}

class Search {
  readonly #options: FindProgramsOptions;
  /** The setup of programs without an entry, as far as it needs no template. */
  readonly #bare: BuildSetup;
  readonly #here: Surroundings;
  readonly #listings: IndexedListing[] = [];
  /** The packages that an argument itself names. */
  readonly #named = new Map<Argument, readonly Named[]>();
  /** Those of them that were listed with their own setups. */
  readonly #own = new Map<Argument, readonly Named[]>();
  readonly #failures = new Map<Argument, KoError[]>();

  constructor(options: FindProgramsOptions) {
    this.#options = options;
    this.#bare = options.setups.bare(options.platform);
    const { cwd } = options.host;
    this.#here = findSurroundings(cwd, settingsOf({ ...options, cwd, env: this.#bare.env }));
  }

  async run(args: readonly string[]): Promise<FoundPrograms> {
    const { host } = this.#options;
    const read = args.map((text) => readArgument(text, host.cwd));
    const good = read.flatMap((argument) => (argument instanceof KoError ? [] : [argument]));
    const asked = await Promise.all(good.map((argument) => this.#questions(argument)));
    await this.#ask(asked.flat());
    const elsewhere = await this.#findElsewhere();
    const setup = await this.#plain();
    await this.#ask(Array.from(elsewhere, ([argument, workDir]) => ({ argument, target: argument, workDir, setup })));
    await this.#correct();
    const advice = createAdvice(this.#here, { ...this.#options, env: this.#bare.env, elsewhere });
    const results: (readonly Program[] | KoError)[] = [];
    for (const argument of read) {
      results.push(argument instanceof KoError ? argument : await this.#judge(argument, advice));
    }
    return { results, listings: this.#listings };
  }

  /** The questions of an argument: more than one for a pattern whose programs have setups of their own. */
  async #questions(argument: Argument): Promise<readonly Question[]> {
    const { entries } = this.#options.setups;
    if (argument.kind !== "pattern") return this.#questionOf(entries.findFor(argument), { argument, target: argument });
    const setup = await this.#plain();
    const below = entries.findBelow(argument).filter(({ folder }) => this.#mayMatch(argument, folder));
    const hidden = await Promise.all(
      below.map((placed) => {
        const target = { dir: placed.folder, rest: placed.folder === undefined ? (placed.importPath ?? "") : "" };
        return this.#questionOf(placed, { argument, target, isOwn: true });
      }),
    );
    const workDir = this.#placeOf(argument.dir);
    const others = hidden.flat().filter((question) => listKey(question.setup) !== listKey(setup));
    return [{ argument, target: argument, workDir, setup }, ...others];
  }

  /** Wildcards match no packages of a module inside of another; those of import paths match all of a workspace. */
  #mayMatch({ dir }: Argument, folder: string | undefined): boolean {
    const { modules, workspace } = this.#here;
    if (!modules || folder === undefined || (dir === undefined && workspace !== undefined)) return true;
    return findModuleDir(folder) === findModuleDir(dir ?? this.#options.host.cwd);
  }

  /** The setup of programs without an entry. If it cannot be made, only such programs fail. */
  async #plain(): Promise<BuildSetup> {
    try {
      return await this.#options.setups.for(undefined, this.#options.platform);
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      return this.#bare;
    }
  }

  /** @returns none if the setup of the entry cannot be made: that is a failure of the argument */
  async #questionOf(
    placed: PlacedEntry | undefined,
    question: Omit<Question, "setup" | "workDir">,
  ): Promise<readonly Question[]> {
    try {
      const setup = await this.#options.setups.for(placed, this.#options.platform);
      const dir = placed === undefined ? question.target.dir : placed.folder;
      return [{ ...question, setup, workDir: setup.workDir ?? this.#placeOf(dir) }];
    } catch (error) {
      this.#fail([question.argument], error);
      return [];
    }
  }

  /** Asks go once for all questions with one folder and one setup. */
  async #ask(questions: readonly Question[]): Promise<void> {
    const groups = Map.groupBy(questions, ({ setup, workDir }) => `${listKey(setup)} ${workDir}`);
    const limit = createLimit(MOST_LISTS);
    const listings = await Promise.all(Array.from(groups.values(), (group) => limit(() => this.#list(group))));
    this.#listings.push(...listings.flatMap((listing) => listing ?? []));
  }

  /** @returns undefined if go failed */
  async #list(questions: readonly Question[]): Promise<IndexedListing | undefined> {
    const [first] = questions;
    if (first === undefined) return undefined;
    const { setup, workDir } = first;
    const patterns = new Map(questions.map((question) => [question, patternFor(question.target, workDir)]));
    try {
      const { isShallow = false } = this.#options;
      const env = isShallow ? { ...setup.env, GOPROXY: "off" } : setup.env;
      const options = { ...this.#options, env, cwd: workDir, flags: listArguments(setup), isShallow };
      const packages = await listPackages([...new Set(patterns.values())], options);
      const listing = { workDir, setup, packages, byPath: new Map(packages.map((each) => [each.importPath, each])) };
      for (const [question, pattern] of patterns) {
        const matched = packages.filter(({ match }) => match.includes(pattern));
        const answer = matched.map((found) => ({ found, listing }));
        this.#answer(question, answer);
      }
      return listing;
    } catch (failure) {
      const args = questions.map(({ argument }) => argument);
      this.#fail(args, failure);
      return undefined;
    }
  }

  #answer({ argument, isOwn = false }: Question, answer: readonly Named[]): void {
    if (!isOwn) this.#named.set(argument, answer);
    else this.#own.set(argument, [...(this.#own.get(argument) ?? []), ...answer]);
  }

  /** The packages of an argument, each with its own setup where it has one. */
  #packagesOf(argument: Argument): readonly Named[] {
    const named = this.#named.get(argument) ?? [];
    const own = new Map(this.#own.get(argument)?.map((each) => [each.found.importPath, each]));
    const all = named.map((each) => {
      const better = own.get(each.found.importPath) ?? each;
      own.delete(each.found.importPath);
      return better;
    });
    // A pattern does not show programs that are excluded without their tags.
    const hidden = [...own.values()].filter(({ found }) => found.name === "main");
    if (hidden.length === 0) return all;
    return [...all, ...hidden].sort((a, b) => (a.found.importPath < b.found.importPath ? -1 : 1));
  }

  /** Lists programs again whose entry turns out to have another setup than the argument was listed with. */
  async #correct(): Promise<void> {
    const questions: Question[] = [];
    for (const argument of this.#named.keys()) {
      for (const { found, listing } of this.#packagesOf(argument)) {
        if (found.dir === "" || found.name !== "main") continue;
        const placed = this.#options.setups.entries.find(found);
        const target = { dir: undefined, rest: found.importPath };
        for (const question of await this.#questionOf(placed, { argument, target, isOwn: true })) {
          const workDir = question.setup.workDir ?? listing.workDir;
          const isRight = listKey(question.setup) === listKey(listing.setup) && workDir === listing.workDir;
          if (!isRight) questions.push({ ...question, workDir });
        }
      }
    }
    await this.#ask(questions);
  }

  #fail(args: readonly Argument[], failure: unknown): void {
    const { host, signal = host.signal } = this.#options;
    if (!(failure instanceof KoError) || signal.aborted) throw failure;
    for (const argument of args) this.#failures.set(argument, [...(this.#failures.get(argument) ?? []), failure]);
  }

  /** The working directory for a folder: the host's, unless the folder's module is invisible from there. */
  #placeOf(dir: string | undefined): string {
    const { host } = this.#options;
    const here = this.#here;
    if (dir === undefined || here.workspace !== undefined || !here.modules) return host.cwd;
    const owner = findModuleDir(dir);
    if (owner === undefined || owner === here.moduleDir) return host.cwd;
    // A module outside ours may be a replacement in our go.mod, so `go list` here decides. One inside is never visible.
    return here.moduleDir === undefined || isBelow(owner, here.moduleDir) ? owner : host.cwd;
  }

  /** The folders of other modules in which to look for arguments that `go list` did not find. */
  async #findElsewhere(): Promise<ReadonlyMap<Argument, string>> {
    const result = new Map<Argument, string>();
    const { host } = this.#options;
    const here = this.#here;
    if (!here.modules) return result;
    let modules: Awaited<ReturnType<typeof findModulesBelow>> | undefined;
    for (const [argument, named] of this.#named) {
      const [first] = named;
      if (first === undefined && this.#own.has(argument)) continue;
      if (this.#failures.has(argument) || named.some(({ found }) => found.dir !== "")) continue;
      let owner: string | undefined;
      if (argument.dir !== undefined) {
        owner = findModuleDir(argument.dir);
      } else if (!PATTERN_WORDS.has(argument.rest)) {
        modules ??= await findModulesBelow(host.cwd, here.moduleDir);
        const importPath = argument.rest.replace(/\/?[^/]*\.\.\..*$/, "");
        const owners = findOwners(importPath, { cwd: host.cwd, modules });
        if (owners.length > 1) {
          this.#fail(
            [argument],
            twoOwners(
              argument,
              owners.map((each) => folderIn(each, importPath)),
              host.cwd,
            ),
          );
          continue;
        }
        owner = owners[0]?.dir;
      }
      if (owner !== undefined && owner !== here.moduleDir && owner !== first?.listing.workDir) {
        result.set(argument, owner);
      }
    }
    return result;
  }

  /** Returns the programs of an argument, or the error that explains why it has none. */
  async #judge(argument: Argument, advice: Advice): Promise<readonly Program[] | KoError> {
    const { text } = argument;
    const errors: KoError[] = [...(this.#failures.get(argument) ?? [])];
    const programs: Program[] = [];
    const named = errors.length > 0 ? [] : this.#packagesOf(argument);
    for (const { found, listing } of named) {
      if (argument.kind === "pattern" && !mayBeProgram(found, patternFor(argument, listing.workDir))) continue;
      const error = await explainPackage(found, {
        text: argument.kind === "pattern" && found.dir !== "" ? found.importPath : text,
        platform: advice.platform,
        goprivate: advice.goprivate,
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
    return programs.length > 0 ? programs : noProgram(text, named);
  }
}

function twoOwners({ rest, text }: Argument, folders: readonly string[], cwd: string): KoError {
  const shown = folders.map((folder) => showPath(folder, cwd));
  const ending = /\/?[^/]*\.\.\..*$/.exec(rest)?.[0] ?? "";
  return new ProgramError(`Cannot build "${text}": several modules have it, in ${shown.join(" and ")}`, {
    hint: `Name one by its folder: ${shown[0]}${ending}`,
  });
}

function noProgram(text: string, { length }: readonly Named[]): KoError {
  const count = length === 1 ? "the one package" : `none of the ${length} packages`;
  const why = length === 0 ? "no package matches" : `${count} it matches is${length === 1 ? " not" : ""} package main`;
  return new NoProgramError(`Cannot build "${text}": ${why}`);
}

/** True for a program, for a broken package that may be one, and for an error about the pattern itself. */
function mayBeProgram(found: GoPackage, pattern: string): boolean {
  if (found.name === "main") return found.problem !== undefined || found.goFiles.length + found.cgoFiles.length > 0;
  return found.problem !== undefined && found.name === "" && (found.dir !== "" || found.importPath === pattern);
}

function pick(found: GoPackage): Pick<Program, "importPath" | "dir" | "module"> {
  return { importPath: found.importPath, dir: found.dir, module: found.module };
}
