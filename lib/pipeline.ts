/**
 * One run of ko: from the import paths that a command found to published references.
 *
 * What is opened on the way is pipeline-resources.ts's.
 *
 * What `--explain` tells: a line for each image, whether it was reused or rebuilt, and the first input that changed.
 *
 * Knows nothing of how that is found out.
 */
import { relative } from "node:path";
import { BuildMemory } from "./build-cache.ts";
import { buildImages, type BuildResult, type Plan, planBuilds } from "./build.ts";
import { type Cache, CacheDamage, type LazyCache } from "./cache.ts";
import type { BuildOptions } from "./cli-options.ts";
import { baseFor, type Config } from "./config.ts";
import { printable, UsageError } from "./errors.ts";
import { type Found, Outdated, ProgramFinder } from "./go-programs-cache.ts";
import type { FoundPrograms, Program } from "./go-programs.ts";
import type { GoPackage } from "./go.ts";
import type { Host } from "./host.ts";
import type { Published } from "./image.ts";
import type { Log } from "./log.ts";
import {
  ALL_PLATFORMS,
  choosePlatforms,
  createPlatformMatcher,
  formatPlatform,
  parsePlatform,
  type Platform,
} from "./oci.ts";
import { Resources } from "./pipeline-resources.ts";
import { type Destination, type LocalTarget, planDestination } from "./publish-destination.ts";
import { writeImageRefs } from "./publish.ts";
import { nameAll } from "./reference.ts";
import type { Timing } from "./timing.ts";

export interface SessionOptions {
  readonly host: Host;
  readonly log: Log;
  readonly config: Config;
  /** What the flags ask for, checked. */
  readonly build: BuildOptions;
  readonly timing: Timing;
  /** Whoever made it closes it, after the session. */
  readonly cache: LazyCache;
}

export interface PublishedProgram extends Published {
  readonly program: Program;
  /** Stands for all that go listed of it, now or in earlier runs; undefined if that is not known. */
  readonly list: string | undefined;
}

/** A run that has its settings, checked, and has not built anything yet. */
export interface Session extends AsyncDisposable {
  /** Images are loaded into a daemon or a cluster's nodes, and are in no registry. */
  readonly sideLoads: boolean;
  /** All packages that go told of in this run, dependencies included, a list for each time it was asked. */
  dependencies(): readonly (readonly GoPackage[])[];
  /**
   * Asks go what programs depend on, for each platform they are built for, as far as it has not told yet; if there are
   * none, what the arguments name. Also after a failure.
   *
   * @returns what stands for the lists, as {@link PublishedProgram.list} does, by import path; of some it is not known
   */
  askDependencies(programs: readonly Program[]): Promise<ReadonlyMap<string, string>>;
  /**
   * Finds the programs that arguments name, builds and publishes them.
   *
   * @param choose takes the programs from one answer for each argument, or throws if the arguments are bad. It is called
   * again, with new answers, if the run starts again: then only its last result counts
   * @throws {KoError} If anything fails. What can be refused is refused before anything is built, and nothing is
   * published unless everything was compiled.
   */
  publish<C extends Choice>(args: readonly string[], choose: (found: FoundPrograms) => C): Promise<Publication<C>>;
}

/** The programs to publish, out of all that the arguments name. */
export interface Choice {
  readonly programs: readonly Program[];
  /** Logged once, after the attempt whose choice counts. */
  readonly warnings?: readonly string[];
}

/** A choice, and the published image of each of its programs. */
export interface Publication<C extends Choice = Choice> {
  readonly choice: C;
  /** One per program, in their order. */
  readonly published: readonly PublishedProgram[];
}

/**
 * Starts a run: settles platforms and destination, and asks for the default base while the caller goes on.
 *
 * @throws {UsageError} If a platform or the destination is not right.
 */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { host, log, config, build } = options;
  const destination = await planDestination(build, { dockerRepo: config.dockerRepo, cwd: host.cwd });
  for (const warning of destination.warnings) log.warn(warning);
  const cache = options.cache.get();
  let run = await startRun({ ...options, destination, cache });
  return {
    sideLoads: localTargetOf(destination) !== undefined,
    dependencies: () => run.dependencies(),
    askDependencies: (programs) => run.askDependencies(programs),
    publish: async (args, choose) => {
      let warnings: readonly string[] = [];
      const choosing: typeof choose = (found) => {
        const choice = choose(found);
        warnings = choice.warnings ?? [];
        return choice;
      };
      try {
        return await run.publish(args, choosing);
      } catch (error) {
        const isLost = error instanceof CacheDamage || ((await cache?.isLost()) ?? false);
        if (!isLost || host.signal.aborted) throw error;
        const why = error instanceof CacheDamage ? error.message : "The cache was removed while ko ran";
        log.warn(`${why}; starting again without the cache`);
        await run[Symbol.asyncDispose]();
        run = await startRun({ ...options, destination, cache: undefined });
        return await run.publish(args, choosing);
      } finally {
        for (const warning of warnings) log.warn(warning);
      }
    },
    [Symbol.asyncDispose]: () => run[Symbol.asyncDispose](),
  };
}

function localTargetOf({ target }: Destination): LocalTarget | undefined {
  return target === "registry" ? undefined : target;
}

interface RunOptions extends Omit<SessionOptions, "cache"> {
  readonly destination: Destination;
  /** Undefined reads and keeps nothing of other runs. */
  readonly cache: Cache | undefined;
}

/** One attempt, with all that it opens. */
type Run = Omit<Session, "sideLoads">;

async function startRun(options: RunOptions): Promise<Run> {
  const { host, log, config, build, destination, timing, cache } = options;
  const local = localTargetOf(destination);
  const files = [destination.layoutPath, destination.tarball, destination.ociArchive].some(
    (file) => file !== undefined,
  );
  const compress = local === undefined || files;
  const open = new Resources({ host, log, timing, insecureHosts: destination.insecureHosts, compress, cache });
  const ownPlatform = async (): Promise<string> => {
    if (local === undefined) throw new RangeError("no local target");
    const { os, architecture } = await (await open.place(local)).platform();
    return `${os}/${architecture}`;
  };
  let platforms: readonly string[];
  try {
    if (local !== undefined) await open.place(local);
    platforms = await choosePlatforms(build.platforms, {
      defaults: config.defaultPlatforms,
      env: host.env,
      ...(local === undefined ? {} : { fallback: ownPlatform }),
    });
  } catch (error) {
    await open[Symbol.asyncDispose]();
    throw error;
  }
  // The default base is what nearly every run needs: ask for it while `go list` works.
  void open.base(config.defaultBaseImage).catch(() => {});
  // And the registry client is loaded meanwhile.
  if (destination.target === "registry") void open.registry().catch(() => {});
  const [first] = platforms;
  const platform = first === undefined || first === ALL_PLATFORMS ? undefined : parsePlatform(first);
  const memory = cache === undefined ? undefined : new BuildMemory({ cache, host, log, go: config.goPath });
  const finder = new ProgramFinder({ host, log, timing, go: config.goPath, platform, cache, memory });

  const platformsOf = new Map<string, readonly Platform[]>();

  const publish = async (programs: readonly Program[], found: Found): Promise<readonly PublishedProgram[]> => {
    const importPaths = programs.map(({ importPath }) => importPath);
    const names = nameAll(destination.repository, importPaths, destination.naming);
    const publisher = await open.publisher(destination);
    const settings = {
      host,
      log,
      timing,
      go: config.goPath,
      memory,
      cache,
      listing: (wanted: Platform, some: readonly Program[]) => finder.list(found, wanted, some),
      baseOf: (importPath: string) => open.base(baseFor(config, importPath)),
      platforms,
      pool: open.pool,
      compression: destination.compression,
      folder: await open.folder(),
      labels: build.labels,
      annotations: build.annotations,
      user: build.user,
      disableOptimizations: build.disableOptimizations,
      jobs: build.jobs,
      created: config.sourceDateEpoch,
      kodataCreated: config.koDataDateEpoch,
    };
    const requests = programs.map((program) => {
      const name = names.get(program.importPath);
      if (name === undefined) throw new RangeError(`no name for ${program.importPath}`);
      return { program, sink: publisher.open(name) };
    });
    const planned = await planBuilds(requests, settings);
    checkTarball(planned, destination);
    const plans = local === undefined ? planned : await fitPlans(planned, { log, files, platform: ownPlatform });
    for (const { program, targets } of plans) {
      platformsOf.set(
        program.importPath,
        targets.map((target) => target.platform),
      );
    }
    const results = await buildImages(plans, settings);
    await publisher.finish();
    const published = results.map(({ lists, program, published: { reference, all } }): PublishedProgram => {
      const list = lists.includes(undefined) ? undefined : lists.join(" ");
      return { program, list, reference, all };
    });
    if (destination.imageRefs !== undefined) {
      const sorted = published.toSorted((a, b) => (a.program.importPath < b.program.importPath ? -1 : 1));
      await writeImageRefs(destination.imageRefs, sorted);
    }
    if (build.explain) explain(results, host);
    return published;
  };

  return {
    dependencies: () => finder.told,
    askDependencies: (programs) =>
      finder.ask(programs.map((program) => ({ program, platforms: platformsOf.get(program.importPath) }))),
    publish: async (args, choose) => {
      const attempt = async (found: Found): Promise<Publication<ReturnType<typeof choose>>> => {
        const choice = choose(found);
        return { choice, published: choice.programs.length === 0 ? [] : await publish(choice.programs, found) };
      };
      try {
        return await attempt(await finder.find(args));
      } catch (error) {
        if (!(error instanceof Outdated)) throw error;
        return attempt(await finder.findAnew(args));
      }
    },
    [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
  };
}

/** `docker load` reads one platform: an index is refused before anything is built. */
function checkTarball(plans: readonly Plan[], { tarball }: Destination): void {
  const several = plans.find(({ targets }) => targets.length > 1);
  if (tarball === undefined || several === undefined) return;
  throw new UsageError(
    `Cannot write --tarball: ${several.program.importPath} has ${several.targets.length} platforms, a tarball holds one`,
    { hint: "Use --oci-archive FILE, or --platform with one platform." },
  );
}

/**
 * A local target runs one platform: of several, only its own is built, unless files get them all.
 *
 * @throws {UsageError} If its own is not among several: that is refused before anything is built.
 */
async function fitPlans(
  plans: readonly Plan[],
  options: { readonly log: Log; readonly files: boolean; readonly platform: () => Promise<string> },
): Promise<readonly Plan[]> {
  if (plans.every(({ targets }) => targets.length === 1)) return plans;
  const own = await options.platform();
  const matches = createPlatformMatcher([own]);
  return plans.map((plan) => {
    if (plan.targets.length === 1) return plan;
    const { importPath } = plan.program;
    const [fitting] = plan.targets.filter((target) => matches(target.platform));
    if (fitting === undefined) {
      const has = plan.targets.map(({ platform }) => formatPlatform(platform)).join(", ");
      throw new UsageError(`Cannot load ${importPath}: it is for ${has}, the local target runs ${own}`, {
        hint: `Add ${own} to --platform, or name one platform.`,
      });
    }
    if (options.files) return plan;
    options.log.warn(`${importPath}: of ${plan.targets.length} platforms only ${own}, the daemon's own, is built`);
    return { ...plan, targets: [fitting] };
  });
}

/** What `--explain` asks for, on stderr whatever the level of the log. */
function explain(results: readonly BuildResult[], host: Host): void {
  const explanations = results.flatMap(({ program, reasons, targets }) =>
    targets.map(({ platform }, i): Explanation => {
      const what = { importPath: program.importPath, platform: formatPlatform(platform) };
      const why = reasons[i];
      return why === undefined ? { ...what, state: "reused" } : { ...what, state: "rebuilt", ...why };
    }),
  );
  for (const line of formatExplanations(explanations, host.cwd)) host.err(`${line}\n`);
}

/** One image of one platform. */
export type Explanation = {
  readonly importPath: string;
  /** `linux/arm/v7` */
  readonly platform: string;
} & (
  | { readonly state: "reused" }
  | {
      readonly state: "rebuilt";
      /** The first input that changed, if it is a file: absolute. */
      readonly file?: string | undefined;
      /** What is with that file, or why else it was rebuilt: `changed`, `first build here`. */
      readonly reason: string;
    }
);

/**
 * Lines without line ends, in the order of the images.
 *
 * @param cwd absolute; a file is shown relative to it where that is shorter
 */
export function formatExplanations(explanations: readonly Explanation[], cwd: string): readonly string[] {
  return explanations.map((explanation) => {
    const { importPath, platform } = explanation;
    const line = `${importPath} (${platform}): ${describe(explanation, cwd)}`;
    // A file name may hold anything.
    return printable(line.replaceAll(/[\t\r\n]/g, " "));
  });
}

function describe(explanation: Explanation, cwd: string): string {
  if (explanation.state === "reused") return "reused, nothing changed";
  const { file, reason } = explanation;
  return `rebuilt, ${file === undefined ? "" : `${shorten(file, cwd)} `}${reason}`;
}

function shorten(file: string, cwd: string): string {
  const near = relative(cwd, file);
  return near !== "" && near.length < file.length ? near : file;
}
