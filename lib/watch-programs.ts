/**
 * The programs of `--watch`, over all rounds, and the job of `ko build --watch`.
 *
 * A round builds and publishes the affected programs only; the references of all others stay.
 */
import { inBackground } from "./async.ts";
import { formatCount } from "./log.ts";
import type { BuildOptions } from "./cli-options.ts";
import { loadConfig } from "./config.ts";
import { messageOf, UsageError } from "./errors.ts";
import { choosePrograms, type Program } from "./go-programs.ts";
import type { Host } from "./host.ts";
import type { ClusterNodes } from "./kubectl-cluster.ts";
import { type Log, RunWarnings } from "./log.ts";
import { Pipeline, type PipelineOptions, type PublishedProgram } from "./pipeline.ts";
import { listsWholeRun, planDestination } from "./publish-destination.ts";
import { joinPlaces, type Places, type WatchPlan } from "./watch-places.ts";
import { planArguments, planConfig, planGit, planKodata, planPatterns, planProgram } from "./watch-plan.ts";
import type { ProgramChange } from "./watch-screen.ts";
import { type Due, FatalError, type RoundContext, type WatchJob } from "./watch.ts";

export interface JobOptions {
  /** The flags, checked. */
  readonly build: BuildOptions;
  /** As in {@link PipelineOptions}. @default none */
  readonly nodes?: ClusterNodes;
  /** @default Pipeline.open */
  readonly openPipeline?: (options: PipelineOptions) => Promise<WatchedPipeline>;
}

/** The parts of a pipeline that a watch uses. */
export type WatchedPipeline = Pick<Pipeline, "sideLoads" | "dependencies" | "listDependencies" | "publish"> &
  AsyncDisposable;

export interface BuildJobOptions extends JobOptions {
  /** Package patterns, at least one. */
  readonly args: readonly string[];
}

/** `ko build --watch`: prints the references that changed. */
export class BuildJob implements WatchJob<readonly PublishedProgram[]> {
  readonly #options: BuildJobOptions;
  readonly #programs: WatchedPrograms;
  /** The references as last printed, by import path. */
  readonly #printed = new Map<string, string>();

  constructor(options: BuildJobOptions) {
    this.#options = options;
    this.#programs = new WatchedPrograms(options);
  }

  async build(due: Due, context: RoundContext): Promise<readonly PublishedProgram[]> {
    const { args } = this.#options;
    const { host } = context;
    const programs = this.#programs;
    await context.watch({
      config: planConfig(host),
      ...(due.everything ? { args: planArguments(args, [], host) } : {}),
    });
    const isDue = ({ importPath }: Program): boolean =>
      due.everything || programs.isWhole || due.programs.has(importPath) || !programs.has(importPath);
    const pipeline = await programs.open(context, { args, isWhole: due.everything || due.args, isDue });
    const { published } = await pipeline.publish(args, (found) => ({ programs: choosePrograms(found) }));
    return published;
  }

  async deliver(published: readonly PublishedProgram[], context: RoundContext): Promise<string> {
    context.showPrograms(this.#programs.note(published));
    const changed = published.filter(({ program, reference }) => this.#printed.get(program.importPath) !== reference);
    if (changed.length === 0) return published.length > 0 ? "nothing new" : "";
    await context.host.out(changed.map(({ reference }) => `${reference}\n`).join(""));
    if (this.#options.build.debug !== undefined) {
      const { logPrograms } = await import("./resolve-debug.ts");
      const first = changed.filter(({ program }) => !this.#printed.has(program.importPath));
      logPrograms(first, notesOf(context));
    }
    for (const { program, reference } of changed) this.#printed.set(program.importPath, reference);
    return `printed ${formatCount(changed.length, "reference")}`;
  }

  places(published: readonly PublishedProgram[] | undefined, context: RoundContext): Promise<Partial<WatchPlan>> {
    return this.#programs.places(published, context);
  }
}

/** A log that shows its lines as notes of the round. */
export function notesOf({ showNote }: Pick<RoundContext, "showNote">): Pick<Log, "info"> {
  return { info: (text) => text.split("\n").forEach(showNote) };
}

export interface OpenOptions {
  /** All arguments; together they name all programs. */
  readonly args: readonly string[];
  /** The round looks at all arguments, not only at those of affected programs. */
  readonly isWhole: boolean;
  /** An argument that names no program is no failure. @default false */
  readonly mayLeave?: boolean;
  /**
   * Selects the programs to publish among those that the arguments name; all others are forgotten.
   *
   * @default publishes all, forgets none
   */
  readonly isDue?: (program: Program) => boolean;
}

/** A round with an open pipeline. */
interface OpenRound extends OpenOptions {
  readonly pipeline: WatchedPipeline;
  /** The programs found so far. */
  all: readonly Program[];
}

/** By import path: the value that stands for the output of `go list` that a program was built from, where known. */
type Lists = ReadonlyMap<string, string | undefined>;

/** The places of a program: sources and modules, the list that they come from, and kodata. */
interface ProgramPlaces {
  readonly sources: Places;
  readonly list: string | undefined;
  readonly kodata: Places;
}

/** The programs of a watch: their last references and the places that they are built from. */
export class WatchedPrograms {
  readonly #options: JobOptions;
  readonly #published = new Map<string, PublishedProgram>();
  readonly #places = new Map<string, ProgramPlaces>();
  /** The warnings about `.ko.yaml` of the last round that found programs. */
  #warned: readonly string[] = [];
  /** The last round found no program: the arguments may yet come to name one. */
  #isSearching = false;
  #round: OpenRound | undefined;

  constructor(options: JobOptions) {
    this.#options = options;
  }

  /** True if each round publishes all programs: a file lists all images of a run. */
  get isWhole(): boolean {
    const { files, imageRefs } = this.#options.build.publish;
    return imageRefs !== undefined || files.some(listsWholeRun);
  }

  has(importPath: string): boolean {
    return this.#published.has(importPath);
  }

  /**
   * Opens the pipeline of a round; {@link RoundContext.resources} closes it. As soon as it has found the programs, their
   * places are watched.
   *
   * @throws {FatalError} If the flags or the environment name no place to publish to.
   * @throws {KoError} If the configuration is bad, or a daemon or a cluster is away.
   */
  async open(context: RoundContext, options: OpenOptions): Promise<Pick<Pipeline, "publish" | "sideLoads">> {
    const { isDue } = options;
    const warnings = new RunWarnings(context.log, this.#warned);
    const pipeline = context.resources.use(await this.#openPipeline(context, warnings));
    const round: OpenRound = { ...options, pipeline, all: [] };
    this.#round = round;
    context.resources.defer(() => {
      this.#round = undefined;
    });
    return {
      sideLoads: pipeline.sideLoads,
      publish: (args, choose) =>
        pipeline.publish(args, async (found) => {
          this.#warned = warnings.lines;
          const choice = await choose(found);
          round.all = choice.programs;
          if (pipeline.dependencies().length > 0) void inBackground(context.watch(this.#plan(round, context.host)));
          if (isDue === undefined) return choice;
          this.keepOnly(choice.programs.map(({ importPath }) => importPath));
          return { ...choice, programs: choice.programs.filter(isDue) };
        }),
    };
  }

  /** Takes the published programs as the current ones. @returns their old and new references */
  note(published: readonly PublishedProgram[]): readonly ProgramChange[] {
    const changes = published.map(({ program: { importPath }, reference }) => {
      return { importPath, before: this.#published.get(importPath)?.reference, after: reference };
    });
    for (const each of published) this.#published.set(each.program.importPath, each);
    return changes;
  }

  /** Forgets all programs but these. */
  keepOnly(importPaths: Iterable<string>): void {
    const kept = new Set(importPaths);
    for (const map of [this.#published, this.#places]) {
      for (const importPath of map.keys()) if (!kept.has(importPath)) map.delete(importPath);
    }
  }

  /** Returns the places of all programs; asks `go list` about programs that were built without it. */
  async places(published: readonly PublishedProgram[] | undefined, context: RoundContext): Promise<Partial<WatchPlan>> {
    const round = this.#round;
    if (round === undefined) return {};
    const lists: Lists = new Map(published?.map(({ program, listDigest }) => [program.importPath, listDigest]));
    return this.#plan(round, context.host, await this.#askLists(round, context, lists));
  }

  async #openPipeline({ cache, host, log, timing }: RoundContext, warnings: RunWarnings): Promise<WatchedPipeline> {
    const { build, nodes, openPipeline = (options) => Pipeline.open(options) } = this.#options;
    const config = await loadConfig(host);
    try {
      cache.get();
      await planDestination(build.publish, { ...config, cwd: host.cwd, env: host.env });
    } catch (error) {
      throw error instanceof UsageError ? new FatalError(error) : error;
    }
    return openPipeline({ cache, host, log, timing, warnings, config, build, nodes });
  }

  /**
   * Asks `go list` about programs without a list, or another one than the watched places come from.
   *
   * @returns the lists without those that the answer contradicts: the sources changed after the build
   */
  async #askLists(round: OpenRound, { host, log }: RoundContext, lists: Lists): Promise<Lists> {
    const { all, isWhole, mayLeave = false, pipeline } = round;
    const unknown = all.filter(({ importPath }) => {
      const known = this.#places.get(importPath);
      // The build failed: the pipeline has asked already if the answer could be new.
      if (known === undefined || !lists.has(importPath)) return known === undefined;
      return lists.get(importPath) === undefined || lists.get(importPath) !== known.list;
    });
    const before = pipeline.dependencies().length;
    // A package that is no program yet could become one.
    const isOpen = all.length === 0 || (isWhole && mayLeave && before === 0);
    if (unknown.length === 0 && !isOpen) return lists;
    let asked: ReadonlyMap<string, string> = new Map();
    try {
      asked = await pipeline.listDependencies(isOpen ? [] : unknown);
    } catch (error) {
      host.signal.throwIfAborted();
      log.debug(`What to watch is not known: ${messageOf(error)}`);
    }
    const late = pipeline.dependencies().slice(before).flat();
    const latePaths = new Set(late.map(({ importPath }) => importPath));
    return new Map([...lists].filter(([path, list]) => !latePaths.has(path) || asked.get(path) === list));
  }

  /** Updates the places of the programs of a round by all that `go list` said in it. */
  #plan(round: OpenRound, host: Host, lists: Lists = new Map()): Partial<WatchPlan> {
    const { all, args, isWhole, mayLeave = false, pipeline } = round;
    const packages = pipeline.dependencies();
    const listed = new Set(packages.flatMap((list) => list.map(({ importPath }) => importPath)));
    for (const program of all) {
      const { dir, importPath } = program;
      const known = listed.has(importPath)
        ? { sources: planProgram(program, packages, host), list: lists.get(importPath) }
        : this.#places.get(importPath);
      if (known !== undefined) this.#places.set(importPath, { ...known, kodata: planKodata(dir, host) });
    }
    const own = new Map(
      Array.from(this.#places, ([importPath, { kodata, sources }]) => [importPath, joinPlaces([sources, kodata])]),
    );
    const programs = new Map(
      Array.from(own, ([importPath, places]) => {
        const git = this.#published.get(importPath)?.git;
        if (git === undefined) return [importPath, places];
        // Any save may be the one after which the work tree is not clean any more.
        return [importPath, joinPlaces([planGit(git.dir), ...(git.hasChanges ? own.values() : [places])])];
      }),
    );
    if (all.length === 0) {
      this.#isSearching = true;
      return { programs, args: planArguments(args, packages, host) };
    }
    if (!isWhole && (!this.#isSearching || mayLeave)) return { programs };
    this.#isSearching = false;
    return { programs, args: mayLeave ? planArguments(args, packages, host) : planPatterns(args, host) };
  }
}
