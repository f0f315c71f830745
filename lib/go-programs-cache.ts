/**
 * The programs that arguments name, for one run: recalled from the cache if the record is proved, else from `go list`.
 *
 * A recalled program is trusted as long as nothing has to be compiled. Then `go list` checks it while the compiler works.
 */
import { inBackground, once } from "./async.ts";
import type { BuildCache } from "./build-cache.ts";
import type { ListDigest } from "./build-inputs.ts";
import { type Cache, keyOf } from "./cache.ts";
import { KoError, messageOf } from "./errors.ts";
import { refreshInputs, takeInputs } from "./fingerprint-inputs.ts";
import type { Inputs } from "./fingerprint-prover.ts";
import { Looks } from "./fingerprint.ts";
import { parseArgument } from "./go-arguments.ts";
import { findPrograms, type FoundPrograms, type Listing, type Program } from "./go-programs.ts";
import { type BuildSetup, type BuildSetups, describeSetup, listArguments, listKey } from "./go-setup.ts";
import { planPattern, planPlaces } from "./go-sources.ts";
import { DEFAULT_PLATFORM, type GoOptions, type GoPackage, listPackages, type PackageList } from "./go.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";
import { formatPlatform, type Platform } from "./oci.ts";
import type { Timing } from "./timing.ts";

export interface ProgramFinderOptions extends GoOptions {
  readonly timing: Timing;
  /** The platform whose build constraints decide. @default linux/amd64 */
  readonly platform: Platform | undefined;
  readonly setups: BuildSetups;
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
  readonly key: string;
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
  /** By the setup. */
  readonly #checks = new Map<Found, Map<string, Promise<PackageList | Outdated>>>();
  /** Lists for other platforms, by platform and setup. */
  readonly #others = new Map<string, Promise<PackageList>>();
  #args: readonly string[] = [];

  constructor(options: ProgramFinderOptions) {
    this.#options = options;
    const { builds, cache, host, platform, setups } = options;
    this.#platform = platform ?? DEFAULT_PLATFORM;
    this.#records = cache === undefined || builds === undefined ? undefined : { cache, builds, host, setups, platform };
  }

  /** The programs of each argument, from the cache if it knows all of them. */
  async find(args: readonly string[]): Promise<Found> {
    this.#args = args;
    const known = this.#records === undefined ? undefined : await recallPrograms(args, this.#records);
    return known === undefined ? this.findAnew(args) : { ...known, args, startedAt: undefined };
  }

  /** The programs of each argument, from `go list`. */
  async findAnew(args: readonly string[]): Promise<Found & { readonly startedAt: number }> {
    const { host, platform, setups, timing } = this.#options;
    const startedAt = host.now().getTime();
    const records = this.#records;
    // The first build of a program needs the git state before go is started again.
    if (records !== undefined) {
      const { inputs } = records.builds;
      void inBackground(inputs.readGit(host.cwd, setups.bare(platform)));
      void inBackground(inputs.readAnswer(host.cwd, setups.bare(platform)));
    }
    const found = await timing.time("list", args.join(" "), () => findPrograms(args, this.#options));
    if (records !== undefined) await rememberPrograms(args, found, { ...records, startedAt });
    this.#note(this.#platform, found.listings);
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
    const all = await Promise.all(
      wanted.map(async ({ platforms = [this.#platform], program }) => ({
        program,
        builds: await Promise.all(platforms.map((platform) => this.#buildOf(program, platform))),
      })),
    );
    const missing = all.flatMap(({ builds, program }) =>
      builds.flatMap((build) =>
        build !== undefined && this.#findListed(program, build) === undefined ? [{ program, ...build }] : [],
      ),
    );
    for (const group of Map.groupBy(missing, ({ platform }) => formatPlatform(platform)).values()) {
      const [first] = group;
      const programs = group.map(({ program }) => program);
      if (first !== undefined) await this.#listFor(first.platform, programs);
    }
    const digests = new Map<string, ListDigest>();
    for (const { builds, program } of all) {
      const lists = await Promise.all(builds.map(async (build) => build && this.#digestOf(program, build)));
      if (!lists.includes(undefined)) digests.set(program.importPath, lists.join(" "));
    }
    return digests;
  }

  /**
   * The packages of programs that are compiled alike, with all that they depend on.
   *
   * @returns or that the programs were recalled, and are outdated: a new run has to use {@link ProgramFinder.findAnew}
   */
  async list(found: Found, build: Build, programs: readonly Program[]): Promise<PackageList | Outdated> {
    const { platform, setup } = build;
    const key = listKey(setup);
    if (formatPlatform(platform) !== formatPlatform(this.#platform)) {
      // Without a cache the list has no use.
      if (this.#records === undefined) return { startedAt: 0, packages: new Map() };
      return once(this.#others, `${formatPlatform(platform)} ${key}`, () => this.#listFor(platform, programs));
    }
    if (found.startedAt !== undefined) return packageList(found.listings, { key, startedAt: found.startedAt });
    let checks = this.#checks.get(found);
    if (checks === undefined) this.#checks.set(found, (checks = new Map()));
    return once(checks, key, () => this.#check(found, { key, programs }));
  }

  /** Lists the arguments that name some of the programs again; the others are proved. */
  async #check(
    found: Found,
    { key, programs }: { readonly key: string; readonly programs: readonly Program[] },
  ): Promise<PackageList | Outdated> {
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
      if (this.#records !== undefined) await forgetPrograms([text], this.#records);
      return { kind: "outdated", why: `${text} no longer names the programs that it named before` };
    }
    return packageList(again.listings, { key, startedAt: again.startedAt });
  }

  /** How a program is compiled for a platform; undefined if `.ko.yaml` contradicts itself, which the build reports. */
  async #buildOf(program: Program, platform: Platform): Promise<Build | undefined> {
    try {
      return { platform, setup: await this.#options.setups.of(program, platform) };
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      return undefined;
    }
  }

  async #digestOf(program: Program, build: Build): Promise<ListDigest | undefined> {
    const packages = this.#findListed(program, build)?.packages;
    return packages && this.#options.builds?.listDigest(program, { packages, setup: build.setup });
  }

  #note(platform: Platform, listings: readonly Listing[]): void {
    for (const { packages, setup } of listings) {
      this.#listed.push({ platform: formatPlatform(platform), key: listKey(setup), packages });
    }
  }

  /** The last list for a platform and a setup that holds a program. */
  #findListed({ importPath }: Program, { platform, setup }: Build): Listed | undefined {
    const [name, key] = [formatPlatform(platform), listKey(setup)];
    return this.#listed.findLast(
      (list) =>
        list.platform === name && list.key === key && list.packages.some((each) => each.importPath === importPath),
    );
  }

  /** The lists by import path, for any platform; of a failure there is only a debug line, and nothing is recorded. */
  async #listFor(platform: Platform, programs: readonly Program[]): Promise<PackageList> {
    const { host, log, setups, timing } = this.#options;
    const startedAt = host.now().getTime();
    const packages = new Map<string, readonly GoPackage[]>();
    const all = await Promise.all(
      programs.map(async (program) => ({ program, setup: await setups.of(program, platform) })),
    );
    const groups = Map.groupBy(all, ({ program, setup }) => `${listKey(setup)} ${program.workDir}`);
    for (const group of groups.values()) {
      const [first] = group;
      if (first === undefined) continue;
      const { program, setup } = first;
      const { workDir } = program;
      const paths = group.map((each) => each.program.importPath);
      try {
        const options = { ...this.#options, env: setup.env, cwd: workDir, flags: listArguments(setup) };
        const list = await timing.time("list", formatPlatform(platform), () => listPackages(paths, options));
        packages.set(workDir, [...(packages.get(workDir) ?? []), ...list]);
        this.#note(platform, [{ workDir, setup, packages: list }]);
      } catch (error) {
        host.signal.throwIfAborted();
        log.debug(`The dependencies of ${paths.join(" ")} are not known: ${messageOf(error)}`);
      }
    }
    return { startedAt, packages };
  }
}

/** How programs are compiled. */
interface Build {
  readonly platform: Platform;
  readonly setup: BuildSetup;
}

/** The packages of all lists that were made with one setup. */
function packageList(
  listings: readonly Listing[],
  { key, startedAt }: { readonly key: string; readonly startedAt: number },
): PackageList {
  const packages = new Map<string, readonly GoPackage[]>();
  for (const listing of listings) {
    if (listKey(listing.setup) !== key) continue;
    packages.set(listing.workDir, [...(packages.get(listing.workDir) ?? []), ...listing.packages]);
  }
  return { startedAt, packages };
}

/** Where the programs of arguments are recorded. */
export interface ProgramRecords {
  readonly cache: Cache;
  readonly builds: BuildCache;
  readonly host: Host;
  readonly setups: BuildSetups;
  /** The platform whose build constraints decide. */
  readonly platform: Platform | undefined;
}

interface ProgramRecord {
  readonly programs: readonly Program[];
  /** How each program was listed. */
  readonly setups: readonly string[];
  /** As in the record of a build. */
  readonly answer: string | undefined;
  readonly inputs: Inputs;
}

/**
 * The programs of all arguments from the cache; undefined unless each has a record that holds.
 *
 * For an import path or a folder the record proves where modules lie and that the folder exists, not that its sources
 * still make a program. For a pattern such as `./...` it proves all folders that the pattern can match.
 */
export async function recallPrograms(
  args: readonly string[],
  records: ProgramRecords,
): Promise<FoundPrograms | undefined> {
  const { builds, cache, host, platform, setups } = records;
  const results: (readonly Program[])[] = [];
  for (const text of args) {
    const key = await keyFor(text, records);
    const record = key === undefined ? undefined : cache.read("programs", key);
    if (key === undefined || !isProgramRecord(record)) return undefined;
    if (!(await isListedAlike(record, records)) || builds.prover.findChange(record.inputs) !== undefined) {
      return undefined;
    }
    const { answer } = record;
    if (answer !== undefined && (await builds.inputs.answer(host.cwd, setups.bare(platform).env))?.digest !== answer) {
      return undefined;
    }
    const better = refreshInputs(record.inputs, host.now().getTime());
    if (better !== undefined) cache.write("programs", key, { ...record, inputs: better });
    results.push(record.programs);
  }
  return { results, listings: [] };
}

/** @param startedAt milliseconds since 1970, before go was started */
export async function rememberPrograms(
  args: readonly string[],
  found: FoundPrograms,
  records: ProgramRecords & { readonly startedAt: number },
): Promise<void> {
  const { builds, cache, host, platform, setups, startedAt } = records;
  const { inputs } = builds;
  const bare = setups.bare(platform);
  const answer = await inputs.readAnswer(host.cwd, bare);
  const sources = inputs.sourcesOptions(bare.env, answer);
  if (sources === undefined || inputs.whyUnknown(bare) !== undefined || builds.isClockPutBack()) return;
  const now = host.now().getTime();
  const packages = found.listings.flatMap((listing) => listing.packages);
  const isOwn = found.listings.every((listing) => inputs.isOwnGo(listing.packages, bare));
  if (!isOwn && answer === undefined) return;
  const named = packages.filter(({ depOnly, standard }) => !depOnly && !standard);
  const looks = new Looks();
  for (const [i, text] of args.entries()) {
    const programs = found.results[i];
    // The content of a `.go` file decides what it names.
    if (programs === undefined || programs instanceof KoError || text.endsWith(".go")) continue;
    const { kind, dir: root, rest } = parseArgument(text, host.cwd);
    // Patterns of import paths, words such as `all`, and wildcards before `vendor` are for go to expand.
    if (kind === "pattern" && (root === undefined || rest.includes("vendor"))) continue;
    const own = await Promise.all(programs.map((program) => setups.of(program, platform)));
    const isOther = ({ env }: BuildSetup): boolean => !isEqual(inputs.sourcesOptions(env, answer), sources);
    const key = await keyFor(text, records);
    if (key === undefined || own.some(isOther)) continue;
    const plan =
      kind === "pattern" && root !== undefined
        ? planPattern(programs, named, { ...sources, root, packages })
        : planPlaces(programs, packages, sources);
    const draft = takeInputs(plan, { startedAt, now, before: builds.prover, looks });
    if ("path" in draft) continue;
    const record: ProgramRecord = {
      programs,
      setups: own.map(showSetup),
      answer: isOwn ? undefined : answer?.digest,
      inputs: draft.inputs,
    };
    cache.write("programs", key, record);
  }
}

/** Removes the records of arguments that turned out to be outdated. */
export async function forgetPrograms(args: readonly string[], records: ProgramRecords): Promise<void> {
  for (const text of args) {
    const key = await keyFor(text, records);
    if (key !== undefined) records.cache.remove("programs", key);
  }
}

/** @returns undefined if `.ko.yaml` contradicts itself: then there is no record */
async function keyFor(text: string, { builds, host, platform, setups }: ProgramRecords): Promise<string | undefined> {
  const { env } = setups.bare(platform);
  const below = setups.entries.findBelow(parseArgument(text, host.cwd));
  try {
    const own = await Promise.all(below.map((placed) => setups.for(placed, platform)));
    const places = below.map(({ folder, importPath }) => [folder, importPath]);
    return keyOf([3, host.cwd, text, builds.inputs.describe(env), places, own.map(showSetup)]);
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    return undefined;
  }
}

async function isListedAlike(record: ProgramRecord, { platform, setups }: ProgramRecords): Promise<boolean> {
  try {
    const own = await Promise.all(record.programs.map((program) => setups.of(program, platform)));
    return isEqual(own.map(showSetup), record.setups);
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    return false;
  }
}

/** A text that is equal for setups with which a program is found in the same place. */
function showSetup(setup: BuildSetup): string {
  const { env, workDir = null } = setup;
  return keyOf([describeSetup({ env, args: listArguments(setup) }), workDir]);
}

function isEqual(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function isProgramRecord(value: unknown): value is ProgramRecord {
  return isObject(value) && Array.isArray(value["programs"]) && isObject(value["inputs"]) && "setups" in value;
}
