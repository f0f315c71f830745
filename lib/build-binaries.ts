/**
 * Programs to binaries: what is known to be what a build would make is reused, all else is compiled, one process for each
 * module and platform.
 *
 * While the compiler works, `go list` tells what it reads, so that the next run can prove that nothing has changed. It is
 * not asked where it could only say what it said before.
 */
import { statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import {
  type BuildDraft,
  type BuildMemory,
  type BuildSetup,
  Confirmation,
  type KnownBinary,
  type Listed,
  type Reason,
} from "./build-cache.ts";
import { createLimit } from "./async.ts";
import type { JobPlan } from "./build-jobs.ts";
import { type Cache, CacheDamage } from "./cache.ts";
import { messageOf } from "./errors.ts";
import { Looks } from "./fingerprint.ts";
import { buildArguments, type CompiledBinary, compilePrograms, LinkWatch } from "./go-build.ts";
import type { PackageList } from "./go-programs-cache.ts";
import type { Program } from "./go-programs.ts";
import { buildEnvironment } from "./go.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import { formatPlatform, type Platform } from "./oci.ts";
import type { Timing } from "./timing.ts";

export interface BinariesOptions {
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
  /** Name or path of the go command. */
  readonly go: string;
  /** Undefined compiles everything, and keeps nothing. */
  readonly memory: BuildMemory | undefined;
  readonly cache: Cache | undefined;
  /** The run's own folder. */
  readonly folder: string;
  readonly disableOptimizations: boolean;
  /** Most builds at once; 0 chooses by the machine. */
  readonly jobs: number;
  /** Called when one program is linked, but go is still busy with it; what is there may still change. @default nobody */
  readonly onLinked?: (
    linked: { readonly program: Program; readonly path: string; readonly size: number },
    platform: Platform,
  ) => void;
  /** What go lists for a platform, from before or now. It fails if a program is none, or no longer what it was taken for. */
  readonly listing: (platform: Platform, programs: readonly Program[]) => Promise<PackageList>;
}

/** A program's binary for one platform. */
export interface Binary {
  /** Absolute; there until the run ends. */
  readonly path: string;
  /** The tar that it makes, if it is a binary of an earlier run. */
  readonly known: KnownBinary | undefined;
  /** Why it was compiled; undefined if it was not. */
  readonly why: Reason | undefined;
  /** Stands for what go listed of the program, now or in an earlier run; undefined if that is not known. */
  readonly list: Promise<string | undefined>;
  /** Keeps it for the next run, when its tar is known. Never fails. */
  keep(tar: { readonly diffId: `sha256:${string}`; readonly size: number }): Promise<void>;
}

/** What is to be made for one platform. */
export interface BinaryGroup {
  readonly platform: Platform;
  readonly programs: readonly Program[];
}

/** Import path -> binary, for one group: each is there as soon as it is complete. */
export interface GroupBinaries {
  readonly binaries: ReadonlyMap<string, Promise<Binary>>;
  /** Ends when nothing is compiled any more. @throws {CommandError} If the compiler fails. */
  readonly done: Promise<void>;
}

/**
 * Finds out what has to be compiled, and starts that.
 *
 * @param signal ends the compilers
 * @returns one result for each group, when it is known what is reused
 */
export async function makeBinaries(
  groups: readonly BinaryGroup[],
  options: BinariesOptions & { readonly signal: AbortSignal },
): Promise<readonly GroupBinaries[]> {
  const plans = await Promise.all(groups.map((group) => planGroup(group, options)));
  const busy = plans.filter(({ missing }) => missing.length > 0);
  const jobs = busy.length === 0 ? undefined : await chooseJobs(busy, options);
  const limit = createLimit(jobs?.atOnce ?? 1);
  return plans.map((plan, i) => {
    const done =
      jobs === undefined || plan.missing.length === 0
        ? NOTHING
        : limit(() => compile(plan, { ...options, jobs, index: i }));
    // Whoever waits for a binary hears of it as well.
    done.catch((error: unknown) => {
      for (const { arrival } of plan.missing) arrival.reject(error);
    });
    return { binaries: plan.binaries, done };
  });
}

const NOTHING = Promise.resolve();
const NO_DRAFTS = Promise.resolve(new Map<Program, BuildDraft>());

async function chooseJobs(busy: readonly GroupPlan[], { host, jobs }: BinariesOptions): Promise<JobPlan> {
  const { planJobs, readMachine } = await import("./build-jobs.ts");
  const programs = Math.max(...busy.map(({ missing }) => missing.length));
  return planJobs({ requested: jobs, machine: readMachine(host), builds: busy.length, programs });
}

interface Missing {
  readonly program: Program;
  readonly why: Reason;
  readonly last: KnownBinary | undefined;
  readonly listed: (() => Promise<Listed | undefined>) | undefined;
  readonly arrival: PromiseWithResolvers<Binary>;
}

interface GroupPlan {
  readonly platform: Platform;
  readonly setup: BuildSetup;
  readonly binaries: Map<string, Promise<Binary>>;
  readonly missing: readonly Missing[];
}

/** Begins to find out what is known of programs: what {@link makeBinaries} will ask for is then known, or soon. */
export function recallEarly(
  group: BinaryGroup,
  options: Pick<BinariesOptions, "host" | "memory" | "disableOptimizations">,
): void {
  const setup = setupFor(group.platform, options);
  // A failure is told when somebody asks.
  for (const program of group.programs) options.memory?.recall(program, setup).catch(() => {});
}

function setupFor(
  platform: Platform,
  { disableOptimizations, host }: Pick<BinariesOptions, "host" | "disableOptimizations">,
): BuildSetup {
  return {
    // Of the temporary folder nothing gets into a binary.
    env: buildEnvironment(platform, host.env),
    args: buildArguments({ flags: [], ldflags: [], disableOptimizations }),
  };
}

async function planGroup({ platform, programs }: BinaryGroup, options: BinariesOptions): Promise<GroupPlan> {
  const { cache, folder, memory, timing } = options;
  const setup = setupFor(platform, options);
  const binaries = new Map<string, Promise<Binary>>();
  const missing: Missing[] = [];
  const platformText = formatPlatform(platform);
  await Promise.all(
    programs.map(async (program) => {
      const { importPath } = program;
      const recalled = await timing.time(
        "check",
        `${importPath} ${platformText}`,
        async () => (await memory?.recall(program, setup)) ?? UNKNOWN,
      );
      if (recalled.state === "proved" && cache !== undefined) {
        const path = join(folder, `kept-${crypto.randomUUID()}`);
        if (cache.lend(recalled.binary, path)) {
          const { binary, list, tarSize } = recalled;
          const known = { binary, tarSize };
          binaries.set(
            importPath,
            Promise.resolve({
              path,
              known,
              why: undefined,
              list: Promise.resolve(list),
              keep: () => Promise.resolve(),
            }),
          );
          return;
        }
      }
      const arrival = Promise.withResolvers<Binary>();
      // Its failure is that of the whole group.
      arrival.promise.catch(() => {});
      binaries.set(importPath, arrival.promise);
      const { last, listed, why } = recalled.state === "unknown" ? recalled : UNKNOWN;
      missing.push({ program, why, last, listed, arrival });
    }),
  );
  // In the order of the programs, whatever was known first.
  const order = new Map(programs.map((program, i) => [program, i]));
  missing.sort((a, b) => (order.get(a.program) ?? 0) - (order.get(b.program) ?? 0));
  return { platform, setup, binaries, missing };
}

const UNKNOWN = {
  state: "unknown",
  why: { reason: "nothing is kept of it" },
  last: undefined,
  listed: undefined,
} as const;

async function compile(
  { platform, setup, missing }: GroupPlan,
  options: Omit<BinariesOptions, "jobs"> & {
    readonly signal: AbortSignal;
    readonly jobs: JobPlan;
    readonly index: number;
  },
): Promise<void> {
  const { cache, folder, host, index, jobs, log, memory, signal, timing } = options;
  signal.throwIfAborted();
  const programs = missing.map(({ program }) => program);
  const byProgram = new Map(missing.map((each) => [each.program, each]));
  if (memory !== undefined) await Promise.all(programs.map(({ dir }) => memory.askGit(dir, setup)));
  for (const { importPath } of programs) log.info(`Building ${importPath} for ${formatPlatform(platform)}`);
  const compiled = Promise.withResolvers<Confirmation>();
  compiled.promise.catch(() => {});
  const started = Promise.withResolvers<void>();
  let asked: Promise<PackageList> | undefined;
  const listing = (): Promise<PackageList> => (asked ??= options.listing(platform, programs));
  // Without records there is no question; else it takes a while to answer, and the compiler can begin.
  const known = missing.every(({ listed }) => listed !== undefined)
    ? started.promise.then(() => findLists(missing))
    : Promise.resolve(undefined);
  const checked = known.then(async (lists) => {
    if (lists === undefined) await listing();
  });
  const drafts =
    memory === undefined
      ? undefined
      : known.then((lists) =>
          lists === undefined
            ? listing().then((list) => draftAll(programs, { list, memory, setup }))
            : draftAgain(lists, { memory, setup }),
        );
  for (const early of [checked, drafts]) early?.catch(() => {});
  const outDir = join(folder, `bin-${index}`);
  // Go leaves its work folder behind when it is told to end; here it goes with ours. GOTMPDIR stays the user's.
  const tmp = join(folder, `go-${index}`);
  await mkdir(tmp, { recursive: true });
  const arrive = (program: Program, { isNew, path }: CompiledBinary): void => {
    const each = byProgram.get(program);
    if (each === undefined) return;
    const last = isNew ? undefined : each.last;
    if (last !== undefined) cache?.restore(last.binary);
    each.arrival.resolve({
      path,
      known: last,
      why: each.why,
      list: (drafts ?? NO_DRAFTS).then((found) => found.get(program)?.list).catch(() => undefined),
      keep: async ({ diffId, size }) => {
        const binary = last?.binary ?? cache?.keep(path, diffId);
        if (binary === undefined || memory === undefined) return;
        try {
          const confirmation = await compiled.promise;
          const draft = (await drafts)?.get(program);
          if (draft === undefined) return;
          await memory.remember(program, { binary, tarSize: size, setup, draft, confirmation });
        } catch {
          // Told by those who wait for the binary.
        }
      },
    });
  };
  // Windows moves no file that somebody reads.
  const onLinked = host.platform === "win32" ? undefined : options.onLinked;
  const [only, ...others] = programs;
  using _linking =
    onLinked === undefined || only === undefined || others.length > 0
      ? undefined
      : new LinkWatch(tmp, {
          now: () => host.now().getTime(),
          onLinked: (path, size) => onLinked({ program: only, path, size }, platform),
        });
  try {
    await timing.time("compile", programs.map(({ importPath }) => importPath).join(" "), () =>
      compilePrograms(programs, {
        host,
        log,
        go: options.go,
        platform,
        outDir,
        flags: [],
        ldflags: [],
        disableOptimizations: options.disableOptimizations,
        packages: async () => (await listing()).packages,
        signal,
        onStart: () => started.resolve(),
        env: { TMPDIR: tmp },
        jobs: jobs.compilers,
        totalJobs: jobs.total,
        prepare: (program, path) => {
          const last = byProgram.get(program)?.last;
          return last !== undefined && cache?.lend(last.binary, path) === true ? statSync(path).ino : undefined;
        },
        onBinary: arrive,
      }),
    );
    const confirmation = new Confirmation(host);
    // What cannot wait until layers are made; git takes its time in a large work tree.
    drafts?.then((found) => confirmation.begin(found.values(), setup.env)).catch(() => {});
    compiled.resolve(confirmation);
    await checked;
  } catch (error) {
    compiled.reject(error);
    started.resolve();
    // What is wrong with a program, go list says better than the compiler.
    await checked;
    throw distrustLent(error, missing, cache) ?? error;
  }
}

/** Go refuses to replace what is no program: a binary that was lent to it, and has been damaged so that nothing showed. */
function distrustLent(error: unknown, missing: readonly Missing[], cache: Cache | undefined): CacheDamage | undefined {
  const lent = missing.flatMap(({ last }) => last?.binary ?? []);
  if (lent.length === 0 || !messageOf(error).includes("already exists and is not an object file")) return undefined;
  for (const { digest } of lent) cache?.drop(digest);
  return new CacheDamage("Cannot use a program that was kept: it is not what it was", { cause: error });
}

/** What go listed of each program before, if it would list the same of all. */
async function findLists(missing: readonly Missing[]): Promise<ReadonlyMap<Program, Listed> | undefined> {
  const lists = new Map<Program, Listed>();
  for (const { listed, program } of missing) {
    const found = await listed?.();
    if (found === undefined) return undefined;
    lists.set(program, found);
  }
  return lists;
}

async function draftAgain(
  lists: ReadonlyMap<Program, Listed>,
  { memory, setup }: { readonly memory: BuildMemory; readonly setup: BuildSetup },
): Promise<ReadonlyMap<Program, BuildDraft>> {
  const drafts = new Map<Program, BuildDraft>();
  const looks = new Looks();
  for (const [program, listed] of lists) {
    const draft = await memory.draftAgain(program, { listed, setup, looks });
    if (draft !== undefined) drafts.set(program, draft);
  }
  return drafts;
}

async function draftAll(
  programs: readonly Program[],
  options: { readonly list: PackageList; readonly memory: BuildMemory; readonly setup: BuildSetup },
): Promise<ReadonlyMap<Program, BuildDraft>> {
  const { list, memory, setup } = options;
  const drafts = new Map<Program, BuildDraft>();
  const looks = new Looks();
  for (const program of programs) {
    const packages = list.packages.get(program.workDir) ?? [];
    const draft = await memory.draft(program, { packages, setup, startedAt: list.startedAt, looks });
    if (draft !== undefined) drafts.set(program, draft);
  }
  // What go wrote is many times as large as what is kept of it, and the compiler takes its time.
  Bun.gc(true);
  return drafts;
}
