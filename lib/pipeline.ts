/**
 * One run of ko: from the import paths that a command found to published references.
 *
 * A run is one {@link Pipeline}. It makes up to three attempts, each of which trusts less of the cache than the one before.
 */
import { inBackground } from "./async.ts";
import { BuildCache } from "./build-cache.ts";
import { formatExplanations, type ListDigest } from "./build-inputs.ts";
import {
  buildImages,
  type BuildImagesOptions,
  type BuildResult,
  explainResults,
  type Plan,
  planBuilds,
} from "./build.ts";
import type { Cache, LazyCache, RunContext } from "./cache.ts";
import type { BuildOptions } from "./cli-options.ts";
import { baseFor, type Config } from "./config.ts";
import { KoError } from "./errors.ts";
import type { DelveBuilds } from "./go-delve.ts";
import { type Found, ProgramFinder } from "./go-programs-cache.ts";
import type { FoundPrograms, Program } from "./go-programs.ts";
import { BuildSetups } from "./go-setup.ts";
import type { GitReads } from "./go-templates.ts";
import type { GoPackage } from "./go.ts";
import type { Host } from "./host.ts";
import type { DebugSettings } from "./image-config.ts";
import type { ImageSink, Published } from "./image.ts";
import type { ClusterNodes } from "./kubectl-cluster.ts";
import type { PodsOf } from "./kubectl-nodes.ts";
import { type Log, RunWarnings } from "./log.ts";
import { formatPlatform, type Platform } from "./oci.ts";
import { adviseToPin, checkDebugged, checkTarball, describeChoices, fitPlans, reuseOf } from "./pipeline-plans.ts";
import { RunPlatforms } from "./pipeline-platforms.ts";
import { platformOf, Resources } from "./pipeline-resources.ts";
import {
  type Destination,
  holdsOnePlatform,
  isLocal,
  type LocalTarget,
  planDestination,
  wantsPlainLayers,
} from "./publish-destination.ts";
import { type Publisher, writeImageRefs } from "./publish.ts";
import { nameAll } from "./reference.ts";
import type { Timing } from "./timing.ts";
import type { PublishedImage } from "./yaml-fragments.ts";

export interface PipelineOptions {
  readonly host: Host;
  readonly log: Log;
  readonly config: Config;
  /** The flags, checked. */
  readonly build: BuildOptions;
  readonly timing: Timing;
  /** The caller closes it after the pipeline. */
  readonly cache: LazyCache;
  /** For warnings about `.ko.yaml`. @default logs all of them */
  readonly warnings?: RunWarnings;
  /** Of the cluster that the result goes to. @default it goes to none */
  readonly nodes?: ClusterNodes | undefined;
}

export interface PublishedProgram extends Published, PublishedImage {
  readonly program: Program;
  /** Of all its platforms; undefined if it is not known. */
  readonly listDigest: ListDigest | undefined;
  /** The state of git that its flags and the settings of its image hold. @default none */
  readonly git?: GitReads | undefined;
  /** How Delve starts the program, on one platform at least. @default the program starts itself */
  readonly debug?: DebugSettings | undefined;
}

/** The programs to publish, out of all that the arguments name. */
export interface Choice {
  readonly programs: readonly Program[];
  /** Logged once, at the end of the run: those of the last attempt, also if it failed. */
  readonly warnings?: readonly string[];
  /** Finds the Pods that run them. @default a Pod that demands nothing of its node */
  readonly findPods?: () => Promise<PodsOf>;
}

/** A choice, and the published image of each of its programs. */
export interface Publication<C extends Choice = Choice> {
  readonly choice: C;
  /** One per program, in their order. */
  readonly published: readonly PublishedProgram[];
}

/** How an attempt ended. */
type Outcome = { readonly kind: "published"; readonly published: readonly PublishedProgram[] } | Distrust;

/** The attempt used something of the cache that turned out to be wrong. */
interface Distrust {
  readonly kind: "distrust";
  readonly of: "programs" | "cache";
  readonly why: string;
}

/** Where the programs of arguments come from: the cache if it knows them, or `go list`. */
type ProgramSource = "recalled" | "listed";

/** A run whose settings are checked, and that has not built anything yet. */
export class Pipeline implements AsyncDisposable {
  readonly #options: PipelineOptions;
  readonly #shared: SharedParts;
  /** The "Using" lines that were logged: a further attempt does not repeat them. */
  readonly #said = new Set<string>();
  #attempt: Attempt;

  private constructor(
    options: PipelineOptions,
    { attempt, shared }: { readonly attempt: Attempt; readonly shared: SharedParts },
  ) {
    this.#options = options;
    this.#shared = shared;
    this.#attempt = attempt;
  }

  /**
   * Settles platforms and destination, and starts to read the default base.
   *
   * @throws {UsageError} If a platform or the destination is not valid, or an entry of `builds` is for no folder.
   */
  static async open(options: PipelineOptions): Promise<Pipeline> {
    const { build, config, host, log } = options;
    const destination = await planDestination(build.publish, { ...config, cwd: host.cwd, env: host.env });
    for (const warning of destination.warnings) log.warn(warning);
    const { debug, disableOptimizations, image, ldflags } = build;
    const isDebugged = debug === undefined ? undefined : (await import("./go-delve.ts")).isDebuggable;
    const flags = { image, ldflags, disableOptimizations, ...(isDebugged === undefined ? {} : { isDebugged }) };
    const setups = new BuildSetups({ host, log, go: config.goPath, config, ...flags });
    const shared = { destination, setups, warnings: options.warnings ?? new RunWarnings(log) };
    const attempt = await Attempt.start(attemptOptions(options, { ...shared, cache: options.cache.get() }));
    return new Pipeline(options, { attempt, shared });
  }

  /** Whether images are loaded into a daemon or a cluster's nodes. Then they are in no registry. */
  get sideLoads(): boolean {
    return localTargetOf(this.#shared.destination) !== undefined;
  }

  /** All packages that `go list` printed in this run, dependencies included: a list for each call of go. */
  dependencies(): readonly (readonly GoPackage[])[] {
    return this.#attempt.finder.listed;
  }

  /**
   * Lists the packages that programs depend on, for each platform they are built for, as far as they were not listed yet.
   * Without programs it lists the last arguments. Works after a failure, too.
   *
   * @returns by import path, as {@link PublishedProgram.listDigest}
   */
  listDependencies(programs: readonly Program[]): Promise<ReadonlyMap<string, ListDigest>> {
    return this.#attempt.listDependencies(programs);
  }

  /**
   * Finds the programs that arguments name, builds and publishes them.
   *
   * @param choose takes the programs from one result for each argument, or throws if the arguments are bad. It is called
   *   again, with new results, if the run makes another attempt: then only its last choice counts
   * @throws {KoError} If anything fails. Refusals come before anything is built, and nothing is published unless
   *   everything was compiled.
   */
  async publish<C extends Choice>(
    args: readonly string[],
    choose: (found: FoundPrograms) => C | Promise<C>,
  ): Promise<Publication<C>> {
    const { config, log } = this.#options;
    const { setups, warnings } = this.#shared;
    let choice: C | undefined;
    try {
      // Each turn that fails gives up one use of the cache: recalled programs, then all of it. So there are at most three.
      for (let source: ProgramSource = "recalled"; ;) {
        const found = await this.#attempt.find(args, source);
        warnings.warn([...config.warnings, ...setups.warnings(programsOf(found))]);
        choice = await choose(found);
        const outcome = await this.#attempt.run(choice, { found, said: this.#said });
        if (outcome.kind === "published") return { choice, published: outcome.published };
        source = await this.#lowerTrust(outcome, source);
      }
    } finally {
      for (const warning of choice?.warnings ?? []) log.warn(warning);
    }
  }

  /** Prepares the next attempt. @returns the source of its programs */
  async #lowerTrust({ of, why }: Distrust, source: ProgramSource): Promise<ProgramSource> {
    const { log } = this.#options;
    if (of === "programs") {
      log.debug(`${why}; starting again with go list`);
      return "listed";
    }
    log.warn(`${why}; starting again without the cache`);
    await this.#attempt[Symbol.asyncDispose]();
    this.#attempt = await Attempt.start(attemptOptions(this.#options, { ...this.#shared, cache: undefined }));
    return source;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#attempt[Symbol.asyncDispose]();
  }
}

function programsOf({ results }: FoundPrograms): readonly Program[] {
  return results.flatMap((result) => (result instanceof KoError ? [] : result));
}

function localTargetOf({ places }: Destination): LocalTarget | undefined {
  return places.find(isLocal)?.kind;
}

/** The parts of a run that all of its attempts share. */
interface SharedParts {
  readonly destination: Destination;
  readonly setups: BuildSetups;
  readonly warnings: RunWarnings;
}

interface AttemptOptions extends Pick<PipelineOptions, "build" | "config" | "nodes">, SharedParts {
  readonly context: RunContext;
}

/** If `cache` is undefined, the attempt reads and stores nothing of other runs. */
function attemptOptions(
  { build, config, host, log, nodes, timing }: PipelineOptions,
  { cache, ...shared }: SharedParts & { readonly cache: Cache | undefined },
): AttemptOptions {
  return { build, config, nodes, ...shared, context: { host, log, timing, cache, signal: host.signal } };
}

interface RunAttemptOptions {
  readonly found: Found;
  /** Lines that an earlier attempt logged; lines of this one are added. */
  readonly said: Set<string>;
}

/** One attempt, with everything that it has opened. */
class Attempt implements AsyncDisposable {
  readonly finder: ProgramFinder;
  readonly #options: AttemptOptions;
  readonly #resources: Resources;
  readonly #builds: BuildCache | undefined;
  readonly #platforms: RunPlatforms;
  /** By image name: a second turn with other programs does not ask for existing manifests again. */
  readonly #sinks = new Map<string, ImageSink>();
  #publisher: Promise<Publisher> | undefined;
  #delve: DelveBuilds | undefined;
  /** Platforms of the programs that were planned, by import path. */
  readonly #platformsOf = new Map<string, readonly Platform[]>();

  private constructor(
    options: AttemptOptions,
    { platforms, resources }: { readonly platforms: RunPlatforms; readonly resources: Resources },
  ) {
    const { config, context, setups } = options;
    const { cache, host, log, timing } = context;
    this.#options = options;
    this.#resources = resources;
    this.#platforms = platforms;
    this.#builds =
      cache === undefined
        ? undefined
        : new BuildCache({ cache, host, log, go: config.goPath, reuse: reuseOf(options) });
    // Arguments are listed for one platform: its build constraints decide which packages are programs.
    const { first: platform } = platforms;
    const { goPath: go } = config;
    this.finder = new ProgramFinder({ host, log, timing, go, platform, setups, cache, builds: this.#builds });
  }

  static async start(options: AttemptOptions): Promise<Attempt> {
    const { build, config, context, destination, nodes, warnings } = options;
    const local = localTargetOf(destination);
    const { insecureHosts, places } = destination;
    const { registries } = config;
    const resources = new Resources({ context, insecureHosts, registries, compress: !wantsPlainLayers(places) });
    try {
      const place = local === undefined ? undefined : resources.place(local);
      // A daemon or cluster that is missing is reported before any other work.
      await place;
      const defaults = config.defaultPlatforms;
      const localPlatform = place === undefined ? undefined : () => platformOf(place);
      const platforms = await RunPlatforms.choose({ build, context, defaults, local: localPlatform, nodes, warnings });
      // Nearly every run needs the default base: it is read while `go list` works.
      void inBackground(resources.base(config.defaultBaseImage));
      // The registry client is loaded meanwhile.
      if (places.some(({ kind }) => kind === "registry")) void inBackground(resources.registry());
      return new Attempt(options, { platforms, resources });
    } catch (error) {
      await resources[Symbol.asyncDispose]();
      throw error;
    }
  }

  listDependencies(programs: readonly Program[]): Promise<ReadonlyMap<string, ListDigest>> {
    return this.finder.listDependencies(
      programs.map((program) => ({ program, platforms: this.#platformsOf.get(program.importPath) })),
    );
  }

  /** The programs of each argument. */
  find(args: readonly string[], source: ProgramSource): Promise<Found> {
    return source === "recalled" ? this.finder.find(args) : this.finder.findAnew(args);
  }

  /** Plans, builds and publishes programs. @throws {KoError} If anything fails, and the cache is not the reason. */
  async run(choice: Choice, options: RunAttemptOptions): Promise<Outcome> {
    const { cache, host } = this.#options.context;
    try {
      return choice.programs.length === 0 ? { kind: "published", published: [] } : await this.#run(choice, options);
    } catch (error) {
      if (cache === undefined || host.signal.aborted) throw error;
      const why = cache.damage ?? ((await cache.isLost()) ? "The cache was removed while ko ran" : undefined);
      if (why === undefined) throw error;
      return { kind: "distrust", of: "cache", why };
    }
  }

  async #run(choice: Choice, { found, said }: RunAttemptOptions): Promise<Outcome> {
    const { context, destination, setups } = this.#options;
    const publisher = await (this.#publisher ??= this.#resources.publisher(destination));
    const options = await this.#buildOptions(found);
    const plans = await this.#plan(choice, { options, publisher });
    const chosen = plans.map(({ base, program }) => {
      const entry = setups.entries.find(program)?.entry;
      const used = entry === undefined ? undefined : `${entry.name} at ${entry.where}`;
      return { importPath: program.importPath, base: base.text, entry: used };
    });
    for (const line of describeChoices(chosen)) {
      if (!said.has(line)) context.log.info(line);
      said.add(line);
    }
    await adviseToPin(plans, this.#options);
    const results = await buildImages(plans, options);
    if ("kind" in results) return { kind: "distrust", of: "programs", why: results.why };
    await publisher.finish();
    return { kind: "published", published: await this.#report(results) };
  }

  async #buildOptions(found: Found): Promise<BuildImagesOptions> {
    const { build, config, context, destination, setups, warnings } = this.#options;
    return {
      context,
      compile: { go: config.goPath, jobs: build.jobs },
      reuse: reuseOf(this.#options),
      setups,
      warnings,
      builds: this.#builds,
      lister: { list: (compiled, programs) => this.finder.list(found, compiled, programs) },
      folder: await this.#resources.folder(),
      delve: build.debug === undefined ? undefined : await this.#openDelve(),
      image: {
        compression: destination.compression,
        labels: build.labels,
        annotations: build.annotations,
        user: build.user,
        created: config.sourceDateEpoch,
        kodataCreated: config.koDataDateEpoch,
        debug: build.debug,
      },
      pool: this.#resources.pool,
    };
  }

  async #openDelve(): Promise<DelveBuilds> {
    const [{ DelveBuilds: Opened }, folder] = await Promise.all([import("./go-delve.ts"), this.#resources.folder()]);
    const { config, context } = this.#options;
    return (this.#delve ??= new Opened({ context, folder, go: config.goPath }));
  }

  /** Names, bases, platforms: everything that can be refused before the compiler starts. */
  async #plan(
    { findPods, programs }: Choice,
    { options, publisher }: { options: BuildImagesOptions; publisher: Publisher },
  ): Promise<readonly Plan[]> {
    const { build, config, context, destination, setups, warnings } = this.#options;
    const importPaths = programs.map(({ importPath }) => importPath);
    const names = nameAll(destination.repository, importPaths, destination.naming);
    if (destination.sbom?.dir !== undefined) {
      const { prepareSbomDir } = await import("./publish-sbom.ts");
      await prepareSbomDir(destination.sbom.dir, { cwd: context.host.cwd, importPaths });
    }
    const requests = programs.map((program) => {
      const name = names.get(program.importPath);
      if (name === undefined) throw new RangeError(`no name for ${program.importPath}`);
      const base = this.#resources.base(baseFor(config, program.importPath));
      return { program, base, sink: this.#sinkOf(name, publisher) };
    });
    const fitted = await this.#platforms.fit(requests, findPods);
    const planned = await planBuilds(fitted, this.#platforms.specs, options);
    checkTarball(planned, destination);
    const local = localTargetOf(destination);
    const all = destination.places.some((place) => !holdsOnePlatform(place));
    const plans =
      local === undefined
        ? planned
        : await fitPlans(planned, { log: context.log, all, place: this.#resources.place(local) });
    this.#platforms.announce(plans);
    if (build.debug !== undefined) warnings.warn(await checkDebugged(plans));
    // Those of setups that were not made yet when the programs were found.
    warnings.warn(setups.flagWarnings);
    for (const { base, program, targets } of plans) {
      const { importPath } = program;
      const platforms = targets.map(({ platform }) => platform);
      this.#platformsOf.set(importPath, platforms);
      const image = names.get(importPath) ?? "";
      const shown = platforms.map(formatPlatform);
      const ofBase = { base: base.text, ...(base.digest === undefined ? {} : { baseDigest: base.digest }) };
      const { names: tags } = destination.tags;
      context.timing.report({ type: "program", importPath, image, tags, platforms: shown, ...ofBase });
    }
    return plans;
  }

  #sinkOf(name: string, publisher: Publisher): ImageSink {
    const sink = this.#sinks.get(name) ?? publisher.open(name);
    this.#sinks.set(name, sink);
    return sink;
  }

  /** The results as callers get them; writes the `--image-refs` file and the lines of `--explain`. */
  async #report(results: readonly BuildResult[]): Promise<readonly PublishedProgram[]> {
    const { build, context, destination } = this.#options;
    const published = results.map(({ digest, images, lists, program, published: names, setups }): PublishedProgram => {
      const listDigest = lists.includes(undefined) ? undefined : lists.join(" ");
      const all = [...setups.values()];
      const reads = [...all, ...(images?.values() ?? [])].flatMap((each) => each.git ?? []);
      const debug = all.some((setup) => setup.isDebugged === true) ? build.debug : undefined;
      const git = reads.find(({ hasChanges }) => hasChanges) ?? reads[0];
      return { program, digest, tags: destination.tags.names, listDigest, git, debug, ...names };
    });
    if (destination.imageRefs !== undefined) {
      const sorted = published.toSorted((a, b) => (a.program.importPath < b.program.importPath ? -1 : 1));
      await writeImageRefs(destination.imageRefs, sorted);
    }
    if (build.explain) context.host.err(formatExplanations(explainResults(results), context.host.cwd));
    return published;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources[Symbol.asyncDispose]();
  }
}
