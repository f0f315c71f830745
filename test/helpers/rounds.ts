/**
 * `--watch` without files, programs and time: a host that records its output, a watcher that a test moves by hand, and the
 * context of a single round for the tests of jobs.
 */
import { LazyCache } from "../../lib/cache.ts";
import type { Host, RunOptions, RunResult } from "../../lib/host.ts";
import { silentLog } from "../../lib/log.ts";
import { noTiming } from "../../lib/timing.ts";
import type { WatcherOptions } from "../../lib/watch-files.ts";
import type { PathChange, WatchPlan } from "../../lib/watch-places.ts";
import type { ProgramChange } from "../../lib/watch-screen.ts";
import type { RoundContext } from "../../lib/watch.ts";

export interface FakeHost {
  readonly host: Host;
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** Aborts the host's signal. */
  readonly interrupt: (reason: Error) => void;
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
    stderrIsTerminal: false,
    stderrColumns: undefined,
    now: () => new Date(Date.UTC(2024, 0, 1) + time),
    monotonic: () => (time += 10),
    out: async (data) => void (stdout += typeof data === "string" ? data : new TextDecoder().decode(data)),
    err: (text) => void (stderr += text),
    readStdin: async () => missing("stdin"),
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

export interface FakeRound extends AsyncDisposable {
  readonly context: RoundContext;
  /** The places watched so far, in order. */
  readonly watched: readonly Partial<WatchPlan>[];
  /** The changes and notes shown so far. */
  readonly shown: readonly (string | readonly ProgramChange[])[];
  readonly warnings: readonly string[];
}

/** The context of one round, for a job that a test calls itself. Disposing of it ends the round. */
export function fakeRound(host: Host, { isRetry = false }: { readonly isRetry?: boolean } = {}): FakeRound {
  const watched: Partial<WatchPlan>[] = [];
  const shown: (string | readonly ProgramChange[])[] = [];
  const warnings: string[] = [];
  const resources = new AsyncDisposableStack();
  const cache = new LazyCache({ ...host, env: { ...host.env, KOCACHE: "off" } }, silentLog);
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
  };
  return {
    context,
    watched,
    shown,
    warnings,
    [Symbol.asyncDispose]: async () => {
      await resources.disposeAsync();
      await cache[Symbol.asyncDispose]();
    },
  };
}
