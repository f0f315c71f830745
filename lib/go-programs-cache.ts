/**
 * The programs that arguments name, for one run: from what earlier runs found, where that is proved, else by `go list`.
 *
 * What is remembered is taken on trust as long as nothing has to be compiled; then go is asked after all, while the
 * compiler works already.
 *
 * What earlier runs found arguments to name: then `go list` is not needed to know which programs are meant.
 *
 * For an import path or a folder it is proved where modules lie and that the folder is there; whether its sources still
 * make a program is found out by whoever needs to compile it. A pattern such as `./...` is proved with all it can match.
 */
import type { BuildMemory } from "./build-cache.ts";
import { type Cache, keyOf } from "./cache.ts";
import { KoError, messageOf } from "./errors.ts";
import { type Inputs, refreshInputs, takeInputs } from "./fingerprint-inputs.ts";
import { Looks } from "./fingerprint.ts";
import { findPrograms, type FoundPrograms, parseArgument, type Program } from "./go-programs.ts";
import { planPattern, planPlaces } from "./go-sources.ts";
import { buildEnvironment, DEFAULT_PLATFORM, type GoOptions, type GoPackage, listPackages } from "./go.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";
import { formatPlatform, type Platform } from "./oci.ts";
import type { Timing } from "./timing.ts";

export interface ProgramFinderOptions extends GoOptions {
  readonly timing: Timing;
  /** What packages are looked at for. @default linux/amd64 */
  readonly platform: Platform | undefined;
  /** Undefined asks go always. */
  readonly cache: Cache | undefined;
  readonly memory: BuildMemory | undefined;
}

/** What arguments name. */
export interface Found extends FoundPrograms {
  readonly args: readonly string[];
  /** Milliseconds since 1970, before go was asked; undefined if it was not. */
  readonly startedAt: number | undefined;
}

/** What go told of packages. */
export interface PackageList {
  /** Milliseconds since 1970, before go was asked. */
  readonly startedAt: number;
  /** By the folder that go ran in. */
  readonly packages: ReadonlyMap<string, readonly GoPackage[]>;
}

interface Told {
  readonly platform: string;
  readonly packages: readonly GoPackage[];
}

/** An argument does not name what an earlier run found it to name, or no longer something that can be built. */
export class Outdated extends Error {}

export class ProgramFinder {
  readonly #options: ProgramFinderOptions;
  readonly #platform: Platform;
  readonly #memory: ProgramMemoryOptions | undefined;
  /** All that go told in this run, with the platform it was asked for. */
  readonly #told: Told[] = [];
  #args: readonly string[] = [];
  /** By what was assumed: what go says to it. */
  readonly #checked = new Map<Found, Promise<PackageList>>();

  constructor(options: ProgramFinderOptions) {
    this.#options = options;
    const { cache, host, memory } = options;
    this.#platform = options.platform ?? DEFAULT_PLATFORM;
    const env = buildEnvironment(this.#platform, host.env);
    this.#memory = cache === undefined || memory === undefined ? undefined : { cache, memory, host, env };
  }

  /** One answer for each argument. */
  async find(args: readonly string[]): Promise<Found> {
    this.#args = args;
    const known = this.#memory === undefined ? undefined : recallPrograms(args, this.#memory);
    return known === undefined ? this.findAnew(args) : { ...known, args, startedAt: undefined };
  }

  /** The same from go itself. */
  async findAnew(args: readonly string[]): Promise<Found & { readonly startedAt: number }> {
    const { host, timing } = this.#options;
    const startedAt = host.now().getTime();
    const memory = this.#memory;
    // The first build of a program wants to know, before go is started again.
    memory?.memory.askGit(host.cwd, { env: memory.env, args: [] }).catch(() => {});
    const found = await timing.time("list", args.join(" "), () => findPrograms(args, this.#options));
    if (memory !== undefined) rememberPrograms(args, found, { ...memory, startedAt });
    this.#note(this.#platform, found.packages.values());
    return { ...found, args, startedAt };
  }

  /** All packages that go told of in this run, dependencies included, a list for each time it was asked. */
  get told(): readonly (readonly GoPackage[])[] {
    return this.#told.map(({ packages }) => packages);
  }

  /**
   * Asks go what programs depend on, as far as it has not told yet; if there are none, what the last arguments name.
   *
   * @param wanted platforms are those that packages are looked at for, unless said otherwise
   * @returns by import path: what stands for the lists of all its platforms ({@link BuildMemory.listOf}), where that is known
   */
  async ask(
    wanted: readonly { readonly program: Program; readonly platforms: readonly Platform[] | undefined }[],
  ): Promise<ReadonlyMap<string, string>> {
    if (wanted.length === 0 && this.#told.length === 0 && this.#args.length > 0) await this.findAnew(this.#args);
    const missing = wanted.flatMap(({ program, platforms }) =>
      (platforms ?? [this.#platform]).map((platform) => ({ program, platform })),
    );
    const groups = Map.groupBy(
      missing.filter(({ program, platform }) => this.#findTold(program, platform) === undefined),
      ({ platform }) => formatPlatform(platform),
    );
    for (const group of groups.values()) {
      const [first] = group;
      if (first === undefined) continue;
      await this.#listFor(
        first.platform,
        group.map(({ program }) => program),
      );
    }
    const lists = wanted.map(({ program, platforms }) => {
      return [
        program.importPath,
        (platforms ?? [this.#platform]).map((platform) => this.#listOf(program, platform)),
      ] as const;
    });
    return new Map(lists.flatMap(([path, all]) => (all.includes(undefined) ? [] : [[path, all.join(" ")] as const])));
  }

  #listOf(program: Program, platform: Platform): string | undefined {
    const packages = this.#findTold(program, platform)?.packages;
    const env = buildEnvironment(platform, this.#options.host.env);
    return packages && this.#options.memory?.listOf(program, { packages, setup: { env, args: [] } });
  }

  /**
   * What go tells of programs for a platform, with all that they depend on.
   *
   * @throws {Outdated} If the programs were taken from memory, and are no longer what they were.
   */
  async list(found: Found, platform: Platform, programs: readonly Program[]): Promise<PackageList> {
    const { packages, startedAt } = found;
    if (formatPlatform(platform) !== formatPlatform(this.#platform)) {
      // Without a memory nobody needs the answer.
      if (this.#memory === undefined) return { startedAt: 0, packages: new Map() };
      return this.#listFor(platform, programs);
    }
    if (startedAt !== undefined) return { startedAt, packages };
    let checked = this.#checked.get(found);
    if (checked === undefined) this.#checked.set(found, (checked = this.#check(found, programs)));
    return checked;
  }

  /** Asks go for the arguments that name some of the programs: the others are proved. */
  async #check(found: Found, programs: readonly Program[]): Promise<PackageList> {
    const wanted = new Set(programs.map(({ importPath }) => importPath));
    const isWanted = (result: Found["results"][number] | undefined): boolean =>
      Array.isArray(result) && result.some(({ importPath }: Program) => wanted.has(importPath));
    const args = found.args.filter((_, i) => isWanted(found.results[i]));
    const results = found.results.filter(isWanted);
    const again = await this.findAnew(args);
    const show = (each: readonly Program[] | KoError | undefined): string =>
      each === undefined || each instanceof KoError
        ? ""
        : each.map(({ importPath, dir, workDir }) => `${importPath}\n${dir}\n${workDir}`).join("\n");
    for (const [i, text] of args.entries()) {
      const is = show(again.results[i]);
      if (is !== "" && is === show(results[i])) continue;
      if (this.#memory !== undefined) forgetPrograms([text], this.#memory);
      throw new Outdated(`${text} is not what it was`);
    }
    return again;
  }

  #note(platform: Platform, lists: Iterable<readonly GoPackage[]>): void {
    for (const packages of lists) this.#told.push({ platform: formatPlatform(platform), packages });
  }

  /** The last list for a platform that a program is in. */
  #findTold({ importPath }: Program, platform: Platform): Told | undefined {
    const name = formatPlatform(platform);
    return this.#told.findLast(
      (told) => told.platform === name && told.packages.some((each) => each.importPath === importPath),
    );
  }

  /** By import path, for any platform; without an answer nothing is remembered. */
  async #listFor(platform: Platform, programs: readonly Program[]): Promise<PackageList> {
    const { host, log, timing } = this.#options;
    const startedAt = host.now().getTime();
    const packages = new Map<string, readonly GoPackage[]>();
    const env = buildEnvironment(platform, host.env);
    for (const [workDir, group] of Map.groupBy(programs, (program) => program.workDir)) {
      const paths = group.map(({ importPath }) => importPath);
      try {
        const options = { ...this.#options, env, cwd: workDir };
        const list = await timing.time("list", formatPlatform(platform), () => listPackages(paths, options));
        packages.set(workDir, list);
        this.#note(platform, [list]);
      } catch (error) {
        host.signal.throwIfAborted();
        log.debug(`What ${paths.join(" ")} depend on is not known: ${messageOf(error)}`);
      }
    }
    return { startedAt, packages };
  }
}

export interface ProgramMemoryOptions {
  readonly cache: Cache;
  readonly memory: BuildMemory;
  readonly host: Host;
  /** The environment that go gets for the platform that packages are looked at for. */
  readonly env: Readonly<Record<string, string>>;
}

interface ProgramRecord {
  readonly programs: readonly Program[];
  readonly inputs: Inputs;
}

/** The programs that all of the arguments name, or undefined if that is not known of each of them. */
export function recallPrograms(args: readonly string[], options: ProgramMemoryOptions): FoundPrograms | undefined {
  const { cache, host, memory } = options;
  const results: (readonly Program[])[] = [];
  for (const text of args) {
    const key = keyFor(text, options);
    const record = cache.read("programs", key);
    if (!isProgramRecord(record) || memory.prover.findChange(record.inputs) !== undefined) return undefined;
    const better = refreshInputs(record.inputs, host.now().getTime());
    if (better !== undefined) cache.write("programs", key, { ...record, inputs: better });
    results.push(record.programs);
  }
  return { results, packages: new Map() };
}

/** @param startedAt milliseconds since 1970, before go was started */
export function rememberPrograms(
  args: readonly string[],
  found: FoundPrograms,
  options: ProgramMemoryOptions & { readonly startedAt: number },
): void {
  const { cache, env, host, memory, startedAt } = options;
  const sources = memory.sourcesOptions(env);
  if (sources === undefined || memory.isClockPutBack()) return;
  const now = host.now().getTime();
  const packages = [...found.packages.values()].flat();
  const named = packages.filter(({ depOnly, standard }) => !depOnly && !standard);
  const looks = new Looks();
  for (const [i, text] of args.entries()) {
    const programs = found.results[i];
    // A file is looked at for what is in it.
    if (programs === undefined || programs instanceof KoError || text.endsWith(".go")) continue;
    const { kind, dir: root } = parseArgument(text, host.cwd);
    // Patterns of import paths, and words such as `all`, mean what go likes.
    if (kind === "pattern" && root === undefined) continue;
    const plan =
      kind === "pattern" && root !== undefined
        ? planPattern(programs, named, { ...sources, root, packages })
        : planPlaces(programs, packages, sources);
    const draft = takeInputs(plan, { startedAt, now, before: memory.prover, looks });
    if ("path" in draft) continue;
    const record: ProgramRecord = { programs, inputs: draft.inputs };
    cache.write("programs", keyFor(text, options), record);
  }
}

/** Forgets what was assumed of arguments and turned out to be otherwise. */
export function forgetPrograms(args: readonly string[], options: ProgramMemoryOptions): void {
  for (const text of args) options.cache.remove("programs", keyFor(text, options));
}

function keyFor(text: string, { env, host, memory }: ProgramMemoryOptions): string {
  return keyOf([1, host.cwd, text, memory.describe(env)]);
}

function isProgramRecord(value: unknown): value is ProgramRecord {
  return isObject(value) && Array.isArray(value["programs"]) && isObject(value["inputs"]);
}
