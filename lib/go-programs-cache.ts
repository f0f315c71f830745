/**
 * The programs that arguments name, for one run: recalled from the cache if the record is proved, else from `go list`.
 *
 * A recalled program is trusted as long as nothing has to be compiled. Then `go list` checks it while the compiler works.
 */
import { inBackground } from "./async.ts";
import type { BuildCache } from "./build-cache.ts";
import type { ListDigest } from "./build-inputs.ts";
import { type Cache, keyOf } from "./cache.ts";
import { KoError, messageOf } from "./errors.ts";
import { type Inputs, refreshInputs, takeInputs } from "./fingerprint-inputs.ts";
import { Looks } from "./fingerprint.ts";
import { parseArgument } from "./go-arguments.ts";
import { findPrograms, type FoundPrograms, type Program } from "./go-programs.ts";
import { planPattern, planPlaces } from "./go-sources.ts";
import {
  buildEnvironment,
  DEFAULT_PLATFORM,
  type GoOptions,
  type GoPackage,
  listPackages,
  type PackageList,
} from "./go.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";
import { formatPlatform, type Platform } from "./oci.ts";
import type { Timing } from "./timing.ts";

export interface ProgramFinderOptions extends GoOptions {
  readonly timing: Timing;
  /** The platform whose build constraints decide. @default linux/amd64 */
  readonly platform: Platform | undefined;
  /** Undefined always asks go. */
  readonly cache: Cache | undefined;
  readonly builds: BuildCache | undefined;
}

/** The programs of some arguments. */
export interface Found extends FoundPrograms {
  readonly args: readonly string[];
  /** Milliseconds since 1970, before go was started; undefined if the programs were recalled. */
  readonly startedAt: number | undefined;
}

/** An argument that names other programs than the cache says, or none any more. */
export interface Outdated {
  readonly kind: "outdated";
  readonly why: string;
}

/** One output of `go list -deps` in this run. */
interface Listed {
  readonly platform: string;
  readonly packages: readonly GoPackage[];
}

/** Programs, and the platforms that they are built for. @default the finder's platform */
export interface ProgramPlatforms {
  readonly program: Program;
  readonly platforms: readonly Platform[] | undefined;
}

export class ProgramFinder {
  readonly #options: ProgramFinderOptions;
  readonly #platform: Platform;
  readonly #records: ProgramRecords | undefined;
  readonly #listed: Listed[] = [];
  readonly #checks = new Map<Found, Promise<PackageList | Outdated>>();
  #args: readonly string[] = [];

  constructor(options: ProgramFinderOptions) {
    this.#options = options;
    const { builds, cache, host } = options;
    this.#platform = options.platform ?? DEFAULT_PLATFORM;
    const env = buildEnvironment(this.#platform, host.env);
    this.#records = cache === undefined || builds === undefined ? undefined : { cache, builds, host, env };
  }

  /** The programs of each argument, from the cache if it knows all of them. */
  async find(args: readonly string[]): Promise<Found> {
    this.#args = args;
    const known = this.#records === undefined ? undefined : recallPrograms(args, this.#records);
    return known === undefined ? this.findAnew(args) : { ...known, args, startedAt: undefined };
  }

  /** The programs of each argument, from `go list`. */
  async findAnew(args: readonly string[]): Promise<Found & { readonly startedAt: number }> {
    const { host, timing } = this.#options;
    const startedAt = host.now().getTime();
    const records = this.#records;
    // The first build of a program needs the git state before go is started again.
    if (records !== undefined)
      void inBackground(records.builds.inputs.readGit(host.cwd, { env: records.env, args: [] }));
    const found = await timing.time("list", args.join(" "), () => findPrograms(args, this.#options));
    if (records !== undefined) rememberPrograms(args, found, { ...records, startedAt });
    this.#note(this.#platform, found.packages.values());
    return { ...found, args, startedAt };
  }

  /** All packages that `go list` printed in this run, dependencies included: a list for each call of go. */
  get listed(): readonly (readonly GoPackage[])[] {
    return this.#listed.map(({ packages }) => packages);
  }

  /**
   * Lists the packages that programs depend on, as far as they were not listed in this run. Without programs it lists the
   * last arguments.
   *
   * @returns by import path: the digests of the lists for all platforms, joined with a blank; a program whose build could
   *   not be recorded is missing
   */
  async listDependencies(wanted: readonly ProgramPlatforms[]): Promise<ReadonlyMap<string, ListDigest>> {
    if (wanted.length === 0 && this.#listed.length === 0 && this.#args.length > 0) await this.findAnew(this.#args);
    const all = wanted.map(({ platforms = [this.#platform], program }) => ({ program, platforms }));
    const missing = all
      .flatMap(({ platforms, program }) => platforms.map((platform) => ({ program, platform })))
      .filter(({ platform, program }) => this.#findListed(program, platform) === undefined);
    for (const group of Map.groupBy(missing, ({ platform }) => formatPlatform(platform)).values()) {
      const [first] = group;
      if (first === undefined) continue;
      const programs = group.map(({ program }) => program);
      await this.#listFor(first.platform, programs);
    }
    const digests = new Map<string, ListDigest>();
    for (const { platforms, program } of all) {
      const lists = platforms.map((platform) => this.#digestOf(program, platform));
      if (!lists.includes(undefined)) digests.set(program.importPath, lists.join(" "));
    }
    return digests;
  }

  /**
   * The packages of programs for a platform, with all that they depend on.
   *
   * @returns or that the programs were recalled, and are outdated: a new run has to use {@link ProgramFinder.findAnew}
   */
  async list(found: Found, platform: Platform, programs: readonly Program[]): Promise<PackageList | Outdated> {
    const { packages, startedAt } = found;
    if (formatPlatform(platform) !== formatPlatform(this.#platform)) {
      // Without a cache the list has no use.
      if (this.#records === undefined) return { startedAt: 0, packages: new Map() };
      return this.#listFor(platform, programs);
    }
    if (startedAt !== undefined) return { startedAt, packages };
    let checked = this.#checks.get(found);
    if (checked === undefined) this.#checks.set(found, (checked = this.#check(found, programs)));
    return checked;
  }

  /** Lists the arguments that name some of the programs again; the others are proved. */
  async #check(found: Found, programs: readonly Program[]): Promise<PackageList | Outdated> {
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
      if (this.#records !== undefined) forgetPrograms([text], this.#records);
      return { kind: "outdated", why: `${text} no longer names the programs that it named before` };
    }
    return again;
  }

  #digestOf(program: Program, platform: Platform): ListDigest | undefined {
    const packages = this.#findListed(program, platform)?.packages;
    const env = buildEnvironment(platform, this.#options.host.env);
    return packages && this.#options.builds?.listDigest(program, { packages, setup: { env, args: [] } });
  }

  #note(platform: Platform, lists: Iterable<readonly GoPackage[]>): void {
    for (const packages of lists) this.#listed.push({ platform: formatPlatform(platform), packages });
  }

  /** The last list for a platform that holds a program. */
  #findListed({ importPath }: Program, platform: Platform): Listed | undefined {
    const name = formatPlatform(platform);
    return this.#listed.findLast(
      (list) => list.platform === name && list.packages.some((each) => each.importPath === importPath),
    );
  }

  /** The lists by import path, for any platform; of a failure there is only a debug line, and nothing is recorded. */
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
        log.debug(`The dependencies of ${paths.join(" ")} are not known: ${messageOf(error)}`);
      }
    }
    return { startedAt, packages };
  }
}

/** Where the programs of arguments are recorded. */
export interface ProgramRecords {
  readonly cache: Cache;
  readonly builds: BuildCache;
  readonly host: Host;
  /** The environment of go for the platform whose build constraints decide. */
  readonly env: Readonly<Record<string, string>>;
}

interface ProgramRecord {
  readonly programs: readonly Program[];
  readonly inputs: Inputs;
}

/**
 * The programs of all arguments from the cache; undefined unless each has a record that holds.
 *
 * For an import path or a folder the record proves where modules lie and that the folder exists, not that its sources
 * still make a program. For a pattern such as `./...` it proves all folders that the pattern can match.
 */
export function recallPrograms(args: readonly string[], records: ProgramRecords): FoundPrograms | undefined {
  const { builds, cache, host } = records;
  const results: (readonly Program[])[] = [];
  for (const text of args) {
    const key = keyFor(text, records);
    const record = cache.read("programs", key);
    if (!isProgramRecord(record) || builds.prover.findChange(record.inputs) !== undefined) return undefined;
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
  records: ProgramRecords & { readonly startedAt: number },
): void {
  const { builds, cache, env, host, startedAt } = records;
  const sources = builds.inputs.sourcesOptions(env);
  if (sources === undefined || builds.isClockPutBack()) return;
  const now = host.now().getTime();
  const packages = [...found.packages.values()].flat();
  const named = packages.filter(({ depOnly, standard }) => !depOnly && !standard);
  const looks = new Looks();
  for (const [i, text] of args.entries()) {
    const programs = found.results[i];
    // The content of a `.go` file decides what it names.
    if (programs === undefined || programs instanceof KoError || text.endsWith(".go")) continue;
    const { kind, dir: root } = parseArgument(text, host.cwd);
    // Patterns of import paths, and words such as `all`, are for go to expand.
    if (kind === "pattern" && root === undefined) continue;
    const plan =
      kind === "pattern" && root !== undefined
        ? planPattern(programs, named, { ...sources, root, packages })
        : planPlaces(programs, packages, sources);
    const draft = takeInputs(plan, { startedAt, now, before: builds.prover, looks });
    if ("path" in draft) continue;
    const record: ProgramRecord = { programs, inputs: draft.inputs };
    cache.write("programs", keyFor(text, records), record);
  }
}

/** Removes the records of arguments that turned out to be outdated. */
export function forgetPrograms(args: readonly string[], records: ProgramRecords): void {
  for (const text of args) records.cache.remove("programs", keyFor(text, records));
}

function keyFor(text: string, { builds, env, host }: ProgramRecords): string {
  return keyOf([1, host.cwd, text, builds.inputs.describe(env)]);
}

function isProgramRecord(value: unknown): value is ProgramRecord {
  return isObject(value) && Array.isArray(value["programs"]) && isObject(value["inputs"]);
}
