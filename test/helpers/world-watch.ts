/**
 * A `ko … --watch` that runs: waits for its rounds, ends it. No wait depends on how long something takes: each is for what ko
 * says.
 *
 * Also `--watch` without files, programs and time: a host that records its output, a watcher that a test moves by hand, and the
 * context of a single round for the tests of jobs.
 */
import { LazyCache } from "../../lib/cache.ts";
import { KoError } from "../../lib/errors.ts";
import type { Program } from "../../lib/go-programs.ts";
import type { GoPackage } from "../../lib/go.ts";
import type { Host, RunOptions, RunResult } from "../../lib/host.ts";
import type { DebugSettings } from "../../lib/image-config.ts";
import { silentLog } from "../../lib/log.ts";
import { noTiming } from "../../lib/timing.ts";
import type { WatcherOptions } from "../../lib/watch-files.ts";
import type { PathChange, WatchPlan } from "../../lib/watch-places.ts";
import type { WatchedPipeline } from "../../lib/watch-programs.ts";
import type { ProgramChange } from "../../lib/watch-screen.ts";
import type { Due, RoundContext, WatchJob } from "../../lib/watch.ts";
import type { Bench, KoOptions } from "./world-bench.ts";
import { type Result, type Running, waitUntil } from "./world-programs.ts";

export interface Watching extends AsyncDisposable {
  readonly running: Running;
  /** Waits for the end of the next round, and returns all that was said on stderr since the last call. */
  round(): Promise<string>;
  /** Waits until stderr since the last call matches, and returns it up to there. */
  said(what: RegExp): Promise<string>;
  /** What was written to stdout since the last call. */
  printed(): string;
  /** Sends a signal to ko, or to its whole group as a terminal does, and waits for the end. */
  end(signal?: NodeJS.Signals, options?: { readonly group: boolean }): Promise<Result>;
}

export interface FakeHost {
  readonly host: Host;
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** Aborts the host's signal. */
  readonly interrupt: (reason: Error) => void;
}

/** One round of a job, as far as it came. */
export interface RoundOutcome {
  readonly summary: string | undefined;
  readonly error: unknown;
  /** The places after the round. */
  readonly places: Partial<WatchPlan>;
  /** The places watched during the build, in order. */
  readonly watched: readonly Partial<WatchPlan>[];
  /** The programs and notes shown, in order. */
  readonly shown: readonly (string | readonly ProgramChange[])[];
  readonly warnings: readonly string[];
}

/** The last line of a round's block. */
const ROUND = /^ {2}(?:printed|applied|created|nothing new|failed).*\d\.\d\d s.*\n/m;

export const EVERYTHING: Due = { everything: true, programs: new Set(), args: false, yaml: false, config: false };

/** Starts ko in a bench. The first round is not waited for. */
export function startWatching(bench: Bench, args: readonly string[], options: KoOptions = {}): Watching {
  const running = bench.start(args, options);
  let [errAt, outAt] = [0, 0];
  /** The length of stdout after the last round. */
  let before = 0;
  let isEnded = false;
  const said = async (what: RegExp): Promise<string> => {
    const rest = (): string => running.stderr().slice(errAt);
    await waitUntil(() => what.test(rest()), running);
    const match = what.exec(rest());
    const end = (match?.index ?? 0) + (match?.[0].length ?? 0);
    const text = rest().slice(0, end);
    errAt += end;
    return text;
  };
  const round = async (): Promise<string> => {
    const block = await said(ROUND);
    // What a round prints comes on another pipe than what it says.
    if (outcomeOf(block).startsWith("printed")) await waitUntil(() => running.stdout().length > before, running);
    before = running.stdout().length;
    return block;
  };
  const end: Watching["end"] = async (signal = "SIGINT", { group } = { group: false }) => {
    isEnded = true;
    // What ko started is in groups of its own, and ko cannot end it then.
    const orphans = signal === "SIGKILL" ? childrenOf(running.pid) : [];
    process.kill(group ? -running.pid : running.pid, signal);
    const result = await running.result;
    for (const pid of orphans) endQuietly(pid);
    return result;
  };
  return {
    running,
    said,
    round,
    printed: () => {
      const text = running.stdout().slice(outAt);
      outAt += text.length;
      return text;
    },
    end,
    [Symbol.asyncDispose]: async () => {
      // kubectl proxy is in a group of its own: ko ends it.
      if (!isEnded) await end("SIGINT");
    },
  };
}

function childrenOf(pid: number): readonly number[] {
  const { stdout } = Bun.spawnSync(["pgrep", "-P", String(pid)], { stdio: ["ignore", "pipe", "ignore"] });
  return stdout.toString().split("\n").filter(Boolean).map(Number);
}

function endQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}

/** The first line of a round's block, without the time of day: what it was about. */
export function causeOf(block: string): string {
  return /^\d\d:\d\d:\d\d (.*)$/m.exec(block)?.[1] ?? "";
}

/** The last line of a round's block, without times: what came of it. */
export function outcomeOf(block: string): string {
  return /^ {2}([^,\n]*), \d+\.\d\d s/m.exec(block)?.[1] ?? "";
}

/** A host in the folder `/w` that can run and read nothing; `changes` replaces parts of it. */
export function fakeHost(changes: Partial<Host> = {}): FakeHost {
  const controller = new AbortController();
  let [stdout, stderr, time] = ["", "", 0];
  const missing = (name: string): never => {
    throw new Error(`this host has no ${name}`);
  };
  const host: Host = {
    env: {},
    cwd: "/w",
    platform: "linux",
    arch: "x64",
    cpus: 1,
    userId: 1000,
    signal: controller.signal,
    stdinIsTerminal: false,
    stderrIsTerminal: false,
    stdoutColumns: undefined,
    stderrColumns: undefined,
    stderrRows: undefined,
    now: () => new Date(Date.UTC(2024, 0, 1) + time),
    monotonic: () => (time += 10),
    out: async (data) => void (stdout += typeof data === "string" ? data : new TextDecoder().decode(data)),
    err: (text) => void (stderr += text),
    drained: async () => {},
    readStdin: async () => missing("stdin"),
    readLine: async () => missing("line"),
    run: async ([program]) => missing(program),
    findProgram: () => undefined,
    tempFolder: async () => missing("temporary folder"),
    ...changes,
  };
  return { host, stdout: () => stdout, stderr: () => stderr, interrupt: (reason) => controller.abort(reason) };
}

/** A program that {@link fakeHost} runs: its output and exit code for each input. */
export function fakeRun(
  answer: (stdin: string) => { readonly code: number; readonly stdout?: string; readonly stderr?: string },
): { readonly run: Host["run"]; readonly runs: string[][] } {
  const runs: string[][] = [];
  const run = async (argv: readonly string[], options: RunOptions = {}): Promise<RunResult> => {
    const { stdin } = options;
    const input = stdin instanceof Uint8Array ? new TextDecoder().decode(stdin) : "";
    runs.push([...argv, input]);
    const { code, stdout = "", stderr = "" } = answer(input);
    if (typeof options.stdout === "function") await options.stdout(new TextEncoder().encode(stdout));
    if (typeof options.stderr === "function") options.stderr(stderr);
    return { code, stdout: new Uint8Array(), stderr };
  };
  return { run, runs };
}

/** A watcher that notices only the changes that a test makes. */
export class FakeWatcher implements AsyncDisposable {
  readonly #options: WatcherOptions;
  folders: readonly string[] = [];
  isClosed = false;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  async watch(folders: ReadonlySet<string>): Promise<void> {
    this.folders = [...folders];
  }

  change(path: string, is: PathChange["is"] = "file"): void {
    this.#options.onChange([{ path, is }]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.isClosed = true;
  }
}

/** Runs one round of a job, in the order of its phases. */
export async function runRound<R>(
  job: WatchJob<R>,
  options: { readonly host: Host; readonly due: Due; readonly isRetry?: boolean },
): Promise<RoundOutcome> {
  const { due, host, isRetry = false } = options;
  const watched: Partial<WatchPlan>[] = [];
  const shown: (string | readonly ProgramChange[])[] = [];
  const warnings: string[] = [];
  await using cache = new LazyCache({ ...host, env: { ...host.env, KOCACHE: "off" } }, silentLog);
  await using resources = new AsyncDisposableStack();
  const context: RoundContext = {
    host,
    log: { ...silentLog, warn: (message) => void warnings.push(message) },
    timing: noTiming,
    cache,
    resources,
    isRetry,
    watch: async (places) => void watched.push(places),
    showPrograms: (changes) => void (changes.length > 0 && shown.push(changes)),
    showNote: (line) => void shown.push(line),
    showCause: () => {},
    showLogs: async () => {},
  };
  let [result, summary, error]: [R | undefined, string | undefined, unknown] = [undefined, undefined, undefined];
  try {
    result = await job.build(due, context);
    summary = await job.deliver(result, context);
  } catch (failure) {
    error = failure;
  }
  return { summary, error, places: await job.places(result, context), watched, shown, warnings };
}

/** Due work for programs. */
export function dueFor(...importPaths: readonly string[]): Due {
  return { ...EVERYTHING, everything: false, programs: new Set(importPaths) };
}

/** A program in a folder of its own below `/w`. */
export function fakeProgram(name: string): Program {
  const importPath = `example.com/${name}`;
  return { importPath, dir: `/w/${name}`, module: undefined, workDir: "/w", text: `./${name}` };
}

/** The packages that `go list` prints for a program: its own one, and one that it imports. */
export function fakePackages({ importPath, dir }: Program): readonly GoPackage[] {
  const base: Omit<GoPackage, "importPath" | "dir" | "imports"> = {
    ...{ name: "main", standard: false, module: undefined, depOnly: false, match: [], problem: undefined },
    ...{ dependencyProblems: [], goFiles: [], cgoFiles: [], ignoredGoFiles: [], ignoredOtherFiles: [] },
    ...{ otherFiles: [], embedFiles: [], embedPatterns: [] },
  };
  return [
    { ...base, importPath, dir, imports: [`${importPath}/lib`] },
    { ...base, importPath: `${importPath}/lib`, dir: `${dir}/lib`, imports: [] },
  ];
}

/** The programs of a module, as pipelines find them: what a test changes between two rounds. */
export class FakeModule {
  /** The version of each program's sources, by import path. */
  readonly versions: Map<string, number> = new Map();
  /** By argument. */
  readonly results: Map<string, readonly Program[] | KoError> = new Map();
  /** Whether a build runs `go list`; else the cache knows the programs. */
  isListed = true;
  /** Ends each build. */
  failure: Error | undefined;
  /** The calls of all pipelines so far, in order. */
  readonly calls: string[] = [];
  sideLoads = false;
  /** Of all programs. */
  debug: DebugSettings | undefined;

  constructor(...names: readonly string[]) {
    for (const name of names) this.add(name);
  }

  /** Adds a program, or changes its sources. */
  add(name: string): void {
    const program = fakeProgram(name);
    this.versions.set(program.importPath, (this.versions.get(program.importPath) ?? 0) + 1);
    this.results.set(`./${name}`, [program]);
    this.results.set(`ko://${program.importPath}`, [program]);
  }

  /** The reference of a program's image. */
  reference({ importPath }: Program): string {
    return `r.example/${importPath}:v${this.versions.get(importPath) ?? 0}`;
  }

  /** The digest of the output of `go list` for a program. */
  listDigest({ importPath }: Program): string {
    return `list ${this.versions.get(importPath) ?? 0} of ${importPath}`;
  }

  open(): WatchedPipeline {
    const lists: (readonly GoPackage[])[] = [];
    return {
      sideLoads: this.sideLoads,
      dependencies: () => lists,
      listDependencies: async (programs) => {
        const listed = new Set(lists.flat().map(({ importPath }) => importPath));
        const missing = programs.filter(({ importPath }) => !listed.has(importPath));
        if (missing.length > 0 || lists.length === 0) {
          this.calls.push(`list ${missing.map(({ importPath }) => importPath).join(" ")}`.trimEnd());
          lists.push(missing.flatMap(fakePackages));
        }
        return new Map(programs.map((program) => [program.importPath, this.listDigest(program)]));
      },
      publish: async (args, choose) => {
        const results = args.map((text) => this.results.get(text) ?? new KoError(`Cannot build "${text}": missing`));
        if (this.isListed)
          lists.push(results.flatMap((result) => (Array.isArray(result) ? result.flatMap(fakePackages) : [])));
        const choice = await choose({ results, listings: [] });
        this.calls.push(`build ${choice.programs.map(({ importPath }) => importPath).join(" ")}`.trimEnd());
        if (this.failure !== undefined) throw this.failure;
        return {
          choice,
          published: choice.programs.map((program) => {
            const reference = this.reference(program);
            const listDigest = this.isListed ? this.listDigest(program) : undefined;
            const image = { reference, digest: "sha256:0", tags: [] };
            return { program, ...image, listDigest, debug: this.debug, all: [reference] };
          }),
        };
      },
      [Symbol.asyncDispose]: async () => void this.calls.push("close"),
    };
  }
}
