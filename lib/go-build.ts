/**
 * `go build`: compiles programs with as few processes as possible, and reports binaries as events.
 *
 * One process takes all programs of a module, so that the package graph is loaded once and go itself schedules compilers
 * and linkers. Flags and environment are the original's, because they are recorded in the binary; build-inputs.ts
 * chooses them.
 */
import { type FSWatcher, type Stats, statSync, watch } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join, posix, relative } from "node:path";
import { Channel } from "./async.ts";
import { countOomKills } from "./build-jobs.ts";
import { CommandError, KoError } from "./errors.ts";
import { isInside, look, readNames } from "./file.ts";
import { explainNoStamp, findWorkTree } from "./git.ts";
import { hintFor } from "./go-hints.ts";
import type { Program } from "./go-programs.ts";
import { goMessages, type GoOptions, looksKilled, settingsOf, startGo } from "./go.ts";
import type { Host } from "./host.ts";
import { formatPlatform, type Platform } from "./oci.ts";

/** Programs of one platform, divided into sets that one `go build` can write into one folder. */
export interface GoBuildPlan {
  readonly platform: Platform;
  /** The whole environment of go. */
  readonly env: Readonly<Record<string, string>>;
  readonly rounds: readonly GoBuildRound[];
}

export interface GoBuildRound {
  /** Absolute. On the file system of TMPDIR, so that go moves a binary here in one step. */
  readonly outDir: string;
  /** By file name in `outDir`. */
  readonly programs: ReadonlyMap<string, Program>;
}

/** What happens while go builds. */
export type GoBuildEvent =
  /** Go has been started; it may be started again for the next round. */
  | { readonly kind: "started" }
  /** The linker has written the only program, in bytes; go still computes its build id, so the file may change. */
  | { readonly kind: "linked"; readonly program: Program; readonly path: string; readonly size: number }
  /** A binary is complete, often before go ends. `isNew` is false if go kept the file that was in its place. */
  | { readonly kind: "built"; readonly program: Program; readonly path: string; readonly isNew: boolean };

export interface GoBuildOptions extends GoOptions {
  /** Words of `go build`, of `buildArguments()`. */
  readonly args: readonly string[];
  /** How many compilers and linkers may run at once. @default one for each CPU, as go chooses */
  readonly jobs?: number | undefined;
  /** The same for all calls together: the hint at `--jobs` starts from it. @default jobs, else one for each CPU */
  readonly totalJobs?: number | undefined;
  /** TMPDIR of go, to report the linker's output; undefined reports no "linked". */
  readonly tmpDir?: string | undefined;
  /** The number of processes that the kernel has killed for want of memory. @default as the kernel counts them for us */
  readonly countOomKills?: () => number | undefined;
}

/** Milliseconds between two looks at the linker's output. */
const LOOK_MS = 20;
/** Milliseconds without a change after which the linker's output seems to be complete. */
const CALM_MS = 40;

/** @param options.outDir absolute: each round gets a folder in it */
export function planGoBuild(
  programs: readonly Program[],
  options: Pick<GoBuildPlan, "platform" | "env"> & { readonly outDir: string },
): GoBuildPlan {
  const { env, outDir, platform } = options;
  const rounds = splitRounds(programs, env).map((round, i) => ({
    outDir: join(outDir, String(i + 1)),
    programs: round,
  }));
  return { platform, env, rounds };
}

/** Where go will put each binary. A binary that lies there before go is started is kept by go if it is up to date. */
export function outputPaths({ rounds }: GoBuildPlan): ReadonlyMap<Program, string> {
  return new Map(
    rounds.flatMap(({ outDir, programs }) =>
      Array.from(programs, ([name, program]) => [program, join(outDir, name)] as const),
    ),
  );
}

/**
 * Compiles programs for one platform. Ends when go has written all of them.
 *
 * Go looks only at the build id of a file in its place, so that file must not have been changed otherwise.
 *
 * @throws {CommandError} If go fails; the message holds all that the compiler printed.
 * @throws {KoError} If go ends well without a binary.
 */
export async function* goBuild(
  plan: GoBuildPlan,
  options: GoBuildOptions,
): AsyncGenerator<GoBuildEvent, void, undefined> {
  for (const round of plan.rounds) yield* buildRound(round, { ...options, plan });
}

async function* buildRound(
  round: GoBuildRound,
  options: GoBuildOptions & { readonly plan: GoBuildPlan },
): AsyncGenerator<GoBuildEvent, void, undefined> {
  const { host, log, plan, tmpDir } = options;
  const { env, platform } = plan;
  const programs = [...round.programs.values()];
  const cwd = programs[0]?.workDir ?? host.cwd;
  const paths = programs.map(namePackage);
  const isLimited = options.args.some((word) => /^--?p(?:=|$)/.test(word));
  const jobs = options.jobs === undefined || isLimited ? [] : ["-p", String(options.jobs)];
  await mkdir(round.outDir, { recursive: true });
  log.debug(`go build of ${paths.join(" ")} for ${formatPlatform(platform)} in ${cwd}`);
  const countKills = options.countOomKills ?? countOomKills;
  const killsBefore = countKills();
  const events = new Channel<GoBuildEvent>();
  const push = (event: GoBuildEvent): void => events.push(event);
  const isMoved = settingsOf({ ...options, cwd, env }).get("GOTMPDIR") === "";
  using outputs = new OutputWatch(round, { host, isMoved, push });
  const [only, another] = programs;
  using _linker =
    tmpDir === undefined || only === undefined || another !== undefined
      ? undefined
      : new LinkWatch(tmpDir, { now: () => host.now().getTime(), program: only, push });
  try {
    const args = ["build", ...options.args, ...jobs, "-o", `${round.outDir}/`, ...paths];
    const { result } = await startGo(args, { ...options, env, cwd });
    push({ kind: "started" });
    events.endAfter(
      result.then(({ stdout, stderr }) => {
        const said = goMessages(stderr) || goMessages(new TextDecoder().decode(stdout));
        if (said !== "") host.err(`${said}\n`);
        outputs.finish();
      }),
    );
    yield* events;
  } catch (error) {
    (options.signal ?? host.signal).throwIfAborted();
    const isOutOfMemory = (countKills() ?? 0) > (killsBefore ?? Infinity);
    throw await explainStamping(explainBuildFailure(error, programs, { ...options, isOutOfMemory }), programs, options);
  }
}

/**
 * The file name that `go build -o DIR/` gives a program: the last element of the import path; with modules, not the major
 * version (`example.com/app/v2` is `app`).
 */
export function executableName(importPath: string, env: Readonly<Record<string, string>>): string {
  let name = posix.basename(importPath);
  const isVersion = /^v[1-9]\d*$/.test(name) && name !== "v1";
  if (isVersion && name !== importPath && env["GO111MODULE"] !== "off") {
    name = posix.basename(posix.dirname(importPath));
  }
  return env["GOOS"] === "windows" ? `${name}.exe` : name;
}

/** Sets of programs that one go can build into one folder, by file name: one module, no name twice. */
function splitRounds(
  programs: readonly Program[],
  env: Readonly<Record<string, string>>,
): readonly ReadonlyMap<string, Program>[] {
  const rounds: { readonly workDir: string; readonly keys: Set<string>; readonly names: Map<string, Program> }[] = [];
  for (const program of programs) {
    const name = executableName(program.importPath, env);
    const key = name.toLowerCase(); // `App` and `app` are one file on many a disk.
    let round = rounds.find((each) => each.workDir === program.workDir && !each.keys.has(key));
    if (round === undefined) {
      round = { workDir: program.workDir, keys: new Set(), names: new Map() };
      rounds.push(round);
    }
    round.keys.add(key);
    round.names.set(name, program);
  }
  return rounds.map(({ names }) => names);
}

/** Outside modules and GOPATH go shows, but does not take, import paths that begin with an underscore. */
function namePackage({ importPath, dir, workDir }: Program): string {
  if (!importPath.startsWith("_/")) return importPath;
  const path = relative(workDir, dir);
  return isInside(dir, workDir) ? `./${path}` : path;
}

interface ExplainOptions extends GoBuildOptions {
  readonly plan: GoBuildPlan;
  /** True if the kernel counted a kill while go ran. */
  readonly isOutOfMemory: boolean;
}

function explainBuildFailure(error: unknown, programs: readonly Program[], options: ExplainOptions): unknown {
  if (!(error instanceof CommandError) || (error.code === undefined && error.signal === undefined)) return error;
  // Go quotes all of -ldflags, in which secrets may be.
  const said = goMessages(error.stderr).replace(
    /invalid value ".*" for flag -ldflags/s,
    "invalid value for flag -ldflags",
  );
  const [first] = programs;
  const what = programs.length === 1 && first ? `"${first.importPath}"` : `${programs.length} programs`;
  const ended = error.signal === undefined ? `exit code ${error.code}` : error.signal;
  const isKilled = looksKilled(error);
  const why = isKilled ? explainKill(said, options) : "go build failed";
  const text = `Cannot build ${what} for ${formatPlatform(options.plan.platform)}: ${why} (${ended})`;
  return new CommandError(`${text}${said && `\n${said}`}`, {
    argv: error.argv,
    code: error.code,
    signal: error.signal,
    stderr: error.stderr,
    hint: isKilled
      ? jobsHint(options)
      : (flagsHint(said, options.args) ?? hintFor(said, { goprivate: goprivateOf(options) })),
  });
}

function goprivateOf(options: ExplainOptions): string {
  const { host, plan } = options;
  return settingsOf({ ...options, cwd: host.cwd, env: plan.env }).get("GOPRIVATE");
}

/** The hint for flags that go or the linker does not understand. */
function flagsHint(said: string, args: readonly string[]): string | undefined {
  const unknown = /^flag provided but not defined: (-\S* .*)$/m.exec(said)?.[1];
  if (unknown !== undefined && args.some((word) => word.replace(/^-/, "") === unknown.replace(/^-/, ""))) {
    // A second dash is that of a list, written twice.
    const words = unknown.split(" ").filter((word) => word !== "" && word !== "-");
    return `Each item of flags is one word: write [${words.join(", ")}] instead of ["${unknown}"].`;
  }
  if (!/usage: link |-X flag requires argument|for flag -ldflags/.test(said)) return undefined;
  return "Check ldflags: quotes count only at the start of a word, so a value with a blank is -X 'main.version=1 2'.";
}

/** Adds the reason of git, and how to build all the same, if Go could not stamp the commit: Go shows git's exit code only. */
async function explainStamping(
  error: unknown,
  programs: readonly Program[],
  { host, plan: { env } }: Pick<ExplainOptions, "host" | "plan">,
): Promise<unknown> {
  if (!(error instanceof CommandError) || !error.message.includes("error obtaining VCS status: ")) return error;
  const { argv, code, message, signal, stderr } = error;
  const isSet = env["GOFLAGS"] !== undefined && env["GOFLAGS"] !== "";
  const skip = `export GOFLAGS=${isSet ? '"$GOFLAGS -buildvcs=false"' : "-buildvcs=false"}`;
  // Go's own advice is about a flag that ko does not have.
  const shown = message.replace(/\n\tUse -buildvcs=false to disable VCS stamping\.$/m, "");
  for (const dir of new Set(programs.map((program) => program.dir))) {
    const tree = findWorkTree(dir);
    const found = tree.kind === "git" ? await explainNoStamp(tree.root, { host, env }) : undefined;
    if (found === undefined) continue;
    const hint =
      found.trust === undefined
        ? `Build without the commit: ${skip}`
        : `${found.trust}\nOr build without the commit: ${skip}`;
    return new CommandError(`${shown}\ngit: ${found.why}`, { argv, code, signal, stderr, hint });
  }
  return new CommandError(shown, { argv, code, signal, stderr, hint: `Build without the commit: ${skip}` });
}

/** Go reports a kill of the processes that it started; of its own it prints nothing. */
function explainKill(said: string, { isOutOfMemory }: ExplainOptions): string {
  const tool = /(\w+)(?:\.exe)?: signal: killed/.exec(said)?.[1];
  const victim = tool === undefined ? "go" : tool === "link" ? "the linker" : "a compiler";
  return isOutOfMemory ? `out of memory: the kernel killed ${victim}` : `probably out of memory: ${victim} was killed`;
}

function jobsHint({ host, jobs, totalJobs = jobs ?? host.cpus }: GoBuildOptions): string {
  if (totalJobs > 1)
    return `Try --jobs=${Math.floor(totalJobs / 2)}: up to ${totalJobs} compilers and linkers ran at once.`;
  return "Give it more memory: no two compilers ran at once, and the linker of a large program takes 1.6 GB.";
}

/**
 * Reports binaries in the folder that go builds into. Go links elsewhere and moves a complete binary here; where it has to
 * copy (Windows, another file system, a folder with the setgid bit), binaries are reported when go has ended.
 */
export class OutputWatch implements Disposable {
  readonly #round: GoBuildRound;
  readonly #push: (event: GoBuildEvent) => void;
  /** Inodes of the files that were there before, by name. */
  readonly #before = new Map<string, number | undefined>();
  readonly #seen = new Map<string, Stats>();
  readonly #watcher: FSWatcher | undefined;

  constructor(
    round: GoBuildRound,
    options: {
      readonly host: Host;
      /** False if go links on another file system. */
      readonly isMoved: boolean;
      readonly push: (event: GoBuildEvent) => void;
    },
  ) {
    const { host, push } = options;
    this.#round = round;
    this.#push = push;
    const { outDir, programs } = round;
    for (const name of programs.keys()) this.#before.set(name, look(join(outDir, name))?.ino);
    const isMoved = host.platform !== "win32" && options.isMoved && !hasSetgid(outDir);
    if (!isMoved) return;
    try {
      this.#watcher = watch(outDir, () => this.#look());
      this.#watcher.on("error", () => this[Symbol.dispose]());
    } catch {
      // The system's limit of watches is reached: finish() reports the binaries.
    }
  }

  /**
   * Reports the binaries that were not seen yet. Call it when go has ended well.
   *
   * @throws {KoError} If a binary is missing, or is another file than the one that was reported.
   */
  finish(): void {
    this[Symbol.dispose]();
    const { outDir, programs } = this.#round;
    for (const [name, program] of programs) {
      const path = join(outDir, name);
      const is = look(path);
      const fail = (why: string): KoError =>
        new KoError(`Cannot build "${program.importPath}": go build ended well, but ${why} ${path}`);
      if (is === undefined || !is.isFile()) throw fail("there is no file");
      const seen = this.#seen.get(name);
      // Not its times: the cache sets them when it keeps the file.
      if (seen !== undefined && (seen.ino !== is.ino || seen.size !== is.size)) {
        throw fail("something else wrote to");
      }
      if (seen === undefined) this.#push({ kind: "built", program, path, isNew: is.ino !== this.#before.get(name) });
    }
  }

  [Symbol.dispose](): void {
    this.#watcher?.close();
  }

  #look(): void {
    const { outDir, programs } = this.#round;
    for (const [name, program] of programs) {
      if (this.#seen.has(name)) continue;
      const path = join(outDir, name);
      const found = look(path);
      if (found === undefined || found.ino === this.#before.get(name)) continue;
      this.#seen.set(name, found);
      this.#push({ kind: "built", program, path, isNew: true });
    }
  }
}

function hasSetgid(dir: string): boolean {
  return ((statSync(dir, { throwIfNoEntry: false })?.mode ?? 0) & 0o2000) !== 0;
}

/**
 * Reports the linker's output while go is still busy with it: go computes the build id, writes it in, and moves the file.
 * For a large program that takes a while, in which most of a machine is idle.
 *
 * The place of that file in go's work folder is an implementation detail of go: the report is only a hint.
 */
export class LinkWatch implements Disposable {
  readonly #folder: string;
  readonly #now: () => number;
  readonly #program: Program;
  readonly #push: (event: GoBuildEvent) => void;
  readonly #timer: ReturnType<typeof setInterval>;

  /**
   * @param folder the TMPDIR of a go that links one program
   * @param options.now milliseconds since 1970
   * @param options.push is called once
   */
  constructor(
    folder: string,
    options: {
      readonly now: () => number;
      readonly program: Program;
      readonly push: (event: GoBuildEvent) => void;
    },
  ) {
    this.#folder = folder;
    this.#now = options.now;
    this.#program = options.program;
    this.#push = options.push;
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const work = readNames(this.#folder).find((name) => name.startsWith("go-build"));
    if (work === undefined) return;
    const path = join(this.#folder, work, "b001", "exe", "a.out");
    const found = look(path);
    if (found === undefined || !found.isFile() || found.size === 0 || this.#now() - found.mtimeMs < CALM_MS) return;
    this[Symbol.dispose]();
    this.#push({ kind: "linked", program: this.#program, path, size: found.size });
  }
}
