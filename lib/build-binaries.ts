/**
 * Programs to binaries: a cached binary is reused if its inputs are proved to be unchanged, all others are compiled by one
 * `go build` for each module, platform, environment and set of flags.
 *
 * While the compiler works, `go list` names the inputs, so that the next run can prove them (build-cache.ts).
 */
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Channel, createLimit, inBackground } from "./async.ts";
import type { BuildCache, Hit, Miss, Recording } from "./build-cache.ts";
import type { KnownBinary } from "./build-record.ts";
import type { ListDigest } from "./build-inputs.ts";
import type { JobPlan } from "./build-jobs.ts";
import type { Cache, RunContext } from "./cache.ts";
import { KoError, messageOf } from "./errors.ts";
import { goBuild, type GoBuildEvent, type GoBuildPlan, outputPaths, planGoBuild } from "./go-build.ts";
import { concernsCgo, explainCgo } from "./go-cgo.ts";
import type { DelveBuilds, MissingDelve } from "./go-delve.ts";
import type { Outdated } from "./go-programs-cache.ts";
import type { Program } from "./go-programs.ts";
import { type BuildSetup, compileKey, listKey, type Reason } from "./go-setup.ts";
import type { PackageList } from "./go.ts";
import type { KnownTar } from "./layer-cache.ts";
import { formatPlatform, type Platform } from "./oci.ts";

/** How programs are compiled. */
export interface CompileSettings {
  /** Name or path of the go command. */
  readonly go: string;
  /** Most builds at once; 0 chooses by the machine. */
  readonly jobs: number;
}

/** Lists the packages of programs, now or from an earlier call. */
export interface PackageLister {
  /**
   * @param build how the programs are compiled
   * @throws {KoError} If a program cannot be built.
   */
  list(build: Omit<ProgramBuild, "program">, programs: readonly Program[]): Promise<PackageList | Outdated>;
}

export interface BinariesOptions {
  readonly context: RunContext;
  readonly compile: CompileSettings;
  /** Undefined compiles everything, and records nothing. */
  readonly builds: BuildCache | undefined;
  readonly lister: PackageLister;
  /** The run's own folder, absolute. */
  readonly folder: string;
  /** Delve for the setups that want it. @default no setup wants it */
  readonly delve?: DelveBuilds | undefined;
}

/** A program that is compiled for a platform. */
export interface ProgramBuild {
  readonly program: Program;
  readonly platform: Platform;
  readonly setup: BuildSetup;
}

/** A program's binary for one platform. */
export interface Binary extends ProgramBuild {
  /** Absolute; the file stays until the run ends. */
  readonly path: string;
  /** Its layer's tar, if it is a binary of an earlier run. */
  readonly known: KnownBinary | undefined;
  /** Why it was compiled; undefined if it was reused. */
  readonly why: Reason | undefined;
  /** The older commit that the binary of an earlier run is stamped with; undefined if a build of now has the same. */
  readonly commit?: string | undefined;
  /** Of the program's packages; undefined if that is not known. Never rejects. */
  readonly listDigest: Promise<ListDigest | undefined>;
  /** Undefined if there is nothing to record. */
  readonly recording: Recording | undefined;
}

export type BinaryEvent =
  /** As of {@link GoBuildEvent}: the file may still change. */
  | (ProgramBuild & { readonly kind: "linked"; readonly path: string; readonly size: number })
  | { readonly kind: "ready"; readonly binary: Binary }
  /** The programs were recalled from the cache, and are others now: the run has to start again. */
  | Outdated;

/** Programs that one go compiles: they have the platform, the environment and the flags in common. */
interface Group {
  readonly platform: Platform;
  /** That of the first one: others differ in nothing that go gets. */
  readonly setup: BuildSetup;
  readonly misses: readonly Miss[];
  /** The programs of all groups that `go list` can list together with these. */
  readonly listed: readonly Program[];
}

/** Starts to look a program up, so that {@link makeBinaries} finds the answer, or the work begun. */
export function lookupEarly({ program, setup }: ProgramBuild, builds: BuildCache | undefined): void {
  if (builds !== undefined) void inBackground(builds.lookup(program, setup));
}

/**
 * Makes the binaries of all builds, and reports each when it is complete. Ends when no compiler runs any more.
 *
 * @throws {CommandError} If a compiler fails; the compilers of other groups have ended then.
 */
export async function* makeBinaries(
  all: readonly ProgramBuild[],
  options: BinariesOptions,
): AsyncGenerator<BinaryEvent, void, undefined> {
  const answers = await Promise.all(all.map((build) => lookup(build, options)));
  const misses: (ProgramBuild & { readonly miss: Miss })[] = [];
  for (const answer of answers) {
    if ("miss" in answer) misses.push(answer);
    else yield { kind: "ready", binary: answer };
  }
  if (misses.length === 0) return;
  const groups = groupMisses(misses);
  const delves = (await options.delve?.missing(misses.filter(({ setup }) => setup.isDebugged))) ?? [];
  const jobs = await chooseJobs(groups, { ...options, delves });
  const failed = new AbortController();
  const signal = AbortSignal.any([options.context.signal, failed.signal]);
  const context = { ...options.context, signal };
  const events = new Channel<BinaryEvent>();
  const limit = createLimit(jobs.atOnce);
  const compiled: Promise<unknown>[] = groups.map((group, index) =>
    limit(async () => {
      for await (const event of compileGroup(group, { ...options, context, jobs, index })) events.push(event);
    }),
  );
  compiled.push(...delves.map((delve) => delve.compile({ limit, jobs: jobs.compilers, signal })));
  // The first failure ends the other compilers.
  for (const done of compiled) done.catch((error: unknown) => failed.abort(error));
  events.endAfter(Promise.allSettled(compiled).then(() => failed.signal.throwIfAborted()));
  yield* events;
}

/** Keeps a compiled binary in the cache, and records it. Never throws. @param tar of its layer */
export async function keepBinary(
  { known, path, program, recording }: Binary,
  { cache, tar }: { readonly cache: Cache | undefined; readonly tar: KnownTar },
): Promise<void> {
  if (recording === undefined) return;
  const binary = known?.binary ?? cache?.keep(path, tar.diffId);
  if (binary !== undefined) await recording.commit(program, { binary, tarSize: tar.size });
}

async function chooseJobs(
  groups: readonly Group[],
  { compile, context, delves }: BinariesOptions & { readonly delves: readonly MissingDelve[] },
): Promise<JobPlan> {
  const { planJobs, readMachine } = await import("./build-jobs.ts");
  const programs = Math.max(...groups.map(({ misses }) => misses.length));
  const builds = groups.length + delves.length;
  return planJobs({ requested: compile.jobs, machine: readMachine(context.host), builds, programs });
}

/** The binary of a build from the cache, or why there is none. */
async function lookup(
  build: ProgramBuild,
  options: BinariesOptions,
): Promise<Binary | (ProgramBuild & { readonly miss: Miss })> {
  const { platform, program, setup } = build;
  const { importPath } = program;
  const what = { text: `${importPath} ${formatPlatform(platform)}`, importPaths: [importPath] };
  const found = await options.context.timing.time("check", what, async () => options.builds?.lookup(program, setup));
  const binary = found?.kind === "hit" ? lend(build, { found, options }) : undefined;
  return binary ?? { ...build, miss: found?.kind === "miss" ? found : unknown(build) };
}

function unknown({ program, setup }: ProgramBuild): Miss {
  const why = { reason: "it is not in the cache" };
  return { kind: "miss", program, setup, why, previous: undefined, last: undefined };
}

function groupMisses(misses: readonly (ProgramBuild & { readonly miss: Miss })[]): readonly Group[] {
  const placeOf = ({ platform }: ProgramBuild): string => formatPlatform({ ...platform, "os.version": "" });
  const listings = Map.groupBy(misses, (each) => `${placeOf(each)} ${listKey(each.setup)}`);
  const groups: Group[] = [];
  for (const together of listings.values()) {
    const listed = [...new Set(together.map(({ program }) => program))];
    for (const group of Map.groupBy(together, ({ setup }) => compileKey(setup)).values()) {
      const [first] = group;
      if (first === undefined) continue;
      groups.push({ platform: first.platform, setup: first.setup, misses: group.map(({ miss }) => miss), listed });
    }
  }
  return groups;
}

/** A cached binary, with a name in the run's folder; undefined if it is no longer in the cache. */
function lend(
  build: ProgramBuild,
  { found, options }: { readonly found: Hit; readonly options: BinariesOptions },
): Binary | undefined {
  const { context, folder } = options;
  const path = join(folder, `kept-${crypto.randomUUID()}`);
  if (context.cache?.lend(found.binary, path) !== true) return undefined;
  const { binary, commit, listDigest, tarSize } = found;
  return {
    ...build,
    commit,
    path,
    known: { binary, tarSize },
    why: undefined,
    listDigest: Promise.resolve(listDigest),
    recording: undefined,
  };
}

interface CompileOptions extends BinariesOptions {
  readonly jobs: JobPlan;
  /** Tells groups apart. */
  readonly index: number;
}

async function* compileGroup(group: Group, options: CompileOptions): AsyncGenerator<BinaryEvent, void, undefined> {
  const { builds, context, folder, index, lister } = options;
  const { listed: together, misses, platform, setup } = group;
  context.signal.throwIfAborted();
  const programs = misses.map(({ program }) => program);
  const recording = await builds?.record(misses);
  for (const { importPath } of programs) context.log.info(`Building ${importPath} for ${formatPlatform(platform)}`);
  // Go leaves its work folder behind when it is ended by a signal; here it is removed with ours. GOTMPDIR stays the user's.
  const tmpDir = join(folder, `go-${index}`);
  await mkdir(tmpDir, { recursive: true });
  const env = { ...setup.env, TMPDIR: tmpDir };
  const build = planGoBuild(programs, { platform, env, outDir: join(folder, `bin-${index}`) });
  const lent = await lendPrevious(outputPaths(build), { misses, cache: context.cache });
  let listed: Promise<PackageList | Outdated> | undefined;
  const list = (): Promise<PackageList | Outdated> => (listed ??= lister.list({ platform, setup }, together));
  let taken: Promise<Outdated | undefined> | undefined;
  try {
    for await (const event of runGoBuild(build, { ...options, args: setup.args, tmpDir })) {
      if (event.kind === "started") taken ??= inBackground(takeInputs(recording, list));
      else if (event.kind === "linked") yield { ...event, platform, setup: setupOf(event.program, group) };
      else yield { kind: "ready", binary: toBinary(event, { cache: context.cache, lent, group, recording }) };
    }
    recording?.confirm();
  } catch (error) {
    recording?.cancel();
    // A failure of `go list` explains more than that of the compiler.
    if ((await taken) === undefined) throw await explainFailure(error, { cache: context.cache, lent, list, platform });
  }
  const outdated = await taken;
  if (outdated !== undefined) yield outdated;
}

/** The events of `go build`, with a stage "compile" for each program in the timing: until its binary is complete. */
async function* runGoBuild(
  build: GoBuildPlan,
  options: CompileOptions & { readonly args: readonly string[]; readonly tmpDir: string },
): AsyncGenerator<GoBuildEvent, void, undefined> {
  const { args, compile, context, jobs, tmpDir } = options;
  const { host, log, signal, timing } = context;
  const ends = new Map(
    outputPaths(build)
      .keys()
      .map((program) => {
        const { importPath } = program;
        return [program, timing.start("compile", { text: importPath, importPaths: [importPath] })] as const;
      }),
  );
  try {
    for await (const event of goBuild(build, {
      host,
      log,
      signal,
      go: compile.go,
      args,
      jobs: jobs.compilers,
      totalJobs: jobs.total,
      // Windows cannot move a file that is being read.
      tmpDir: host.platform === "win32" ? undefined : tmpDir,
    })) {
      if (event.kind === "built") ends.get(event.program)?.();
      yield event;
    }
  } finally {
    for (const end of ends.values()) end();
  }
}

/** Gives go the last binaries, each in the place of the new one. */
async function lendPrevious(
  paths: ReadonlyMap<Program, string>,
  { cache, misses }: { readonly cache: Cache | undefined; readonly misses: readonly Miss[] },
): Promise<ReadonlyMap<Program, KnownBinary>> {
  const lent = new Map<Program, KnownBinary>();
  for (const { previous, program } of misses) {
    const path = paths.get(program);
    if (previous === undefined || path === undefined) continue;
    await mkdir(dirname(path), { recursive: true });
    if (cache?.lend(previous.binary, path) === true) lent.set(program, previous);
  }
  return lent;
}

/** Looks at the inputs of the programs, while the compiler works. @returns if the programs are outdated */
async function takeInputs(
  recording: Recording | undefined,
  list: () => Promise<PackageList | Outdated>,
): Promise<Outdated | undefined> {
  if (recording !== undefined) return recording.take(list);
  const answer = await list();
  return "kind" in answer ? answer : undefined;
}

interface ToBinaryOptions {
  readonly cache: Cache | undefined;
  readonly lent: ReadonlyMap<Program, KnownBinary>;
  readonly group: Group;
  readonly recording: Recording | undefined;
}

function toBinary(
  { isNew, path, program }: Extract<GoBuildEvent, { readonly kind: "built" }>,
  { cache, group, lent, recording }: ToBinaryOptions,
): Binary {
  const known = isNew ? undefined : lent.get(program);
  // Go has set the time of the file that it kept.
  if (known !== undefined) cache?.restore(known.binary);
  return {
    program,
    platform: group.platform,
    setup: setupOf(program, group),
    path,
    known,
    why: group.misses.find((miss) => miss.program === program)?.why,
    listDigest: recording?.listDigest(program) ?? Promise.resolve(undefined),
    recording,
  };
}

function setupOf(program: Program, { misses, setup }: Group): BuildSetup {
  return misses.find((miss) => miss.program === program)?.setup ?? setup;
}

interface FailureOptions extends Pick<ToBinaryOptions, "cache" | "lent"> {
  readonly list: () => Promise<PackageList | Outdated>;
  readonly platform: Platform;
}

async function explainFailure(error: unknown, { cache, lent, list, platform }: FailureOptions): Promise<unknown> {
  // Go refuses to replace a file that is not a program: a lent binary was damaged, although its size and time are right.
  if (lent.size > 0 && messageOf(error).includes("already exists and is not an object file")) {
    for (const { binary } of lent.values()) cache?.drop(binary.digest);
    const damage = "Cannot use a cached program: its content was changed";
    cache?.reportDamage(damage);
    return new KoError(damage, { cause: error });
  }
  if (!concernsCgo(error)) return error;
  const answer = await list().catch(() => undefined);
  const packages = answer === undefined || "kind" in answer ? [] : [...answer.packages.values()].flat();
  return explainCgo(error, { packages, platform });
}
