/**
 * `go build`: programs to binaries, as few processes as will do.
 *
 * One process takes all programs of a module, so that the package graph is loaded once and go itself schedules compilers
 * and linkers (spec/speed.md). Flags and environment are the original's: they are recorded in the binary, whose bytes
 * must not differ. spec/behaviour.md 1.9. What the flags are (`.ko.yaml`, command line) is not decided here.
 *
 * Binaries as they appear in the folder that `go build` writes to: those that are complete while others are still linked,
 * those that go left as they were.
 *
 * Notices that a linker has written its program, while go is still busy with it: go computes what the program's build id
 * is, writes that in, and moves the file. For a large program that takes a while, in which most of a machine is idle.
 *
 * It is a guess, for work that is checked later: where go keeps things in its work folder is its own affair.
 */
import { type FSWatcher, type Stats, statSync, watch } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join, posix, relative } from "node:path";
import { countOomKills } from "./build-jobs.ts";
import { CommandError, KoError, printable } from "./errors.ts";
import { look, readNames } from "./file.ts";
import { cgoHint, findCgoFiles } from "./go-problems.ts";
import type { Program } from "./go-programs.ts";
import {
  buildEnvironment,
  goMessages,
  type GoOptions,
  type GoPackage,
  looksKilled,
  readVariable,
  refuseToolexec,
  runGo,
  type RunGoOptions,
} from "./go.ts";
import { formatPlatform, type Platform } from "./oci.ts";

export interface BuildFlags {
  /** Flags of `go build`, one word each. */
  readonly flags: readonly string[];
  /** Words of `-ldflags`. */
  readonly ldflags: readonly string[];
  /** False keeps the paths of this machine in the binary. @default true */
  readonly trimpath?: boolean;
  /** `--disable-optimizations`: for debuggers. @default false */
  readonly disableOptimizations?: boolean;
}

export interface CompileOptions extends GoOptions, BuildFlags, ArrivalsOptions {
  readonly platform: Platform;
  /** Absolute; made if need be. Empty, and on the file system of TMPDIR, so that go moves a binary here in one step. */
  readonly outDir: string;
  /** Wins over the user's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** How many compilers and linkers may run at once. @default go's own: one for each CPU */
  readonly jobs?: number | undefined;
  /** What `go list` told, by the folder that it ran in: lets a failure say that files which need cgo were left out. */
  readonly packages?: () => Promise<ReadonlyMap<string, readonly GoPackage[]>>;
  /** How many may run at once in all calls together: what the hint at `--jobs` starts from. @default jobs, else one for each CPU */
  readonly totalJobs?: number | undefined;
  /** Called when go has been started. */
  readonly onStart?: () => void;
  /** How many processes the kernel has killed for want of memory. @default as it counts them for us */
  readonly countOomKills?: () => number | undefined;
}

/**
 * Compiles programs for one platform.
 *
 * @returns the binaries by import path, in the order of `programs`
 * @throws {CommandError} If go fails; the message holds all that the compiler said.
 * @throws {UsageError} If flags or GOFLAGS hold `-toolexec`.
 */
export async function compilePrograms(
  programs: readonly Program[],
  options: CompileOptions,
): Promise<ReadonlyMap<string, CompiledBinary>> {
  const env = buildEnvironment(options.platform, options.host.env, options.env);
  const flags = buildArguments(options);
  const jobs = options.jobs === undefined ? [] : ["-p", String(options.jobs)];
  const found = new Map<string, CompiledBinary>();
  const rounds = splitRounds(programs, env);
  for (const [index, names] of rounds.entries()) {
    const outDir = join(options.outDir, String(index + 1));
    await mkdir(outDir, { recursive: true });
    const group = [...names.values()];
    const cwd = group[0]?.workDir ?? options.host.cwd;
    const paths = group.map(namePackage);
    const args = ["build", ...flags, ...jobs, "-o", `${outDir}/`, ...paths];
    const arrivals = new Arrivals(outDir, names, { ...options, env });
    options.log.debug(`go build of ${paths.join(" ")} for ${formatPlatform(options.platform)} in ${cwd}`);
    const countKills = options.countOomKills ?? countOomKills;
    const killsBefore = countKills();
    try {
      const { stdout, stderr } = await runGo(args, { ...options, env, cwd });
      const said = goMessages(stderr) || goMessages(new TextDecoder().decode(stdout));
      if (said !== "") options.host.err(`${said}\n`);
      for (const [importPath, binary] of arrivals.finish()) found.set(importPath, binary);
    } catch (error) {
      arrivals.stop();
      (options.signal ?? options.host.signal).throwIfAborted();
      const isOutOfMemory = (countKills() ?? 0) > (killsBefore ?? Infinity);
      throw await explainFailure(error, group, { ...options, isOutOfMemory });
    }
  }
  return new Map(
    programs.flatMap(({ importPath }) => {
      const binary = found.get(importPath);
      return binary === undefined ? [] : [[importPath, binary] as const];
    }),
  );
}

/**
 * The flags of `go build` in the original's order: the user's, `-trimpath`, those that turn optimizations off, `-ldflags`.
 *
 * @throws {UsageError} If `-toolexec` is among them.
 */
export function buildArguments(options: BuildFlags): readonly string[] {
  const { flags, ldflags, trimpath = true, disableOptimizations = false } = options;
  const args = [
    ...flags,
    ...(trimpath ? ["-trimpath"] : []),
    ...(disableOptimizations ? ["-gcflags", "all=-N -l"] : []),
    ...(ldflags.length > 0 ? [`-ldflags=${ldflags.join(" ")}`] : []),
  ];
  refuseToolexec(args);
  return args;
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
  return path.startsWith("..") ? path : `./${path}`;
}

interface ExplainOptions extends CompileOptions {
  /** True if the kernel counted a kill while go ran. */
  readonly isOutOfMemory: boolean;
}

async function explainFailure(error: unknown, programs: readonly Program[], options: ExplainOptions): Promise<unknown> {
  if (!(error instanceof CommandError) || (error.code === undefined && error.signal === undefined)) return error;
  const said = goMessages(error.stderr);
  const [first] = programs;
  const what = programs.length === 1 && first ? `"${first.importPath}"` : `${programs.length} programs`;
  const ended = error.signal === undefined ? `exit code ${error.code}` : error.signal;
  const killed = looksKilled(error);
  const why = killed ? explainKill(said, options) : "go build failed";
  return new CommandError(
    `Cannot build ${what} for ${formatPlatform(options.platform)}: ${why} (${ended})${said && `\n${said}`}`,
    {
      argv: error.argv,
      code: error.code,
      signal: error.signal,
      stderr: error.stderr,
      hint: killed ? hintAtJobs(options) : await hintAtCgo(said, first?.workDir ?? "", options),
    },
  );
}

/** Go says so of what it started; of itself it says nothing. */
function explainKill(said: string, { isOutOfMemory }: ExplainOptions): string {
  const tool = /(\w+)(?:\.exe)?: signal: killed/.exec(said)?.[1];
  const victim = tool === undefined ? "go" : tool === "link" ? "the linker" : "a compiler";
  return isOutOfMemory ? `out of memory: the kernel killed ${victim}` : `probably out of memory: ${victim} was killed`;
}

function hintAtJobs({ host, jobs, totalJobs = jobs ?? host.cpus }: CompileOptions): string {
  if (totalJobs > 1)
    return `Try --jobs=${Math.floor(totalJobs / 2)}: up to ${totalJobs} compilers and linkers ran at once.`;
  return "Give it more memory: no two compilers ran at once, and the linker of a large program takes 1.6 GB.";
}

/** Files left out for want of cgo are a likely reason for "undefined: …". */
async function hintAtCgo(said: string, workDir: string, options: CompileOptions): Promise<string | undefined> {
  if (!said.includes("undefined: ")) return undefined;
  const packages = await options.packages?.().catch(() => undefined);
  for (const each of packages?.get(workDir) ?? []) {
    const named = said.includes(`# ${each.importPath}\n`) || said.includes(`undefined: ${each.name}.`);
    if (!named || each.standard || each.ignoredGoFiles.length === 0) continue;
    const [file] = await findCgoFiles(each);
    if (file === undefined) continue;
    const platform = formatPlatform(options.platform);
    return `${printable(join(each.dir, file))} was left out: it needs cgo (import "C"). ${cgoHint(platform)}`;
  }
  return undefined;
}

/** What go made of a program. */
export interface CompiledBinary {
  /** Absolute. */
  readonly path: string;
  /** False if go found the one that was there up to date. */
  readonly isNew: boolean;
}

export interface ArrivalsOptions {
  /**
   * Called for each program before go is started, with the path where its binary will be: puts the last one there, for go
   * to keep if it is up to date. Go looks at its build id only, so it must be what it was. Gives its inode, if there is one.
   */
  readonly prepare?: ((program: Program, path: string) => number | undefined) | undefined;
  /** Called as soon as a binary is complete, often before go ends: the others may still be linked. */
  readonly onBinary?: ((program: Program, binary: CompiledBinary) => void) | undefined;
}

/**
 * Sees binaries appear in the folder that go builds into. Go links elsewhere and moves what is complete; where it has to
 * copy (Windows, another file system, a folder with the setgid bit), only its end tells.
 */
export class Arrivals {
  readonly #outDir: string;
  readonly #names: ReadonlyMap<string, Program>;
  readonly #onBinary: ArrivalsOptions["onBinary"];
  /** Inodes of what was there before, by name. */
  readonly #before = new Map<string, number | undefined>();
  readonly #seen = new Map<string, Stats>();
  readonly #watcher: FSWatcher | undefined;

  constructor(
    outDir: string,
    names: ReadonlyMap<string, Program>,
    options: ArrivalsOptions & Pick<RunGoOptions, "host" | "env">,
  ) {
    this.#outDir = outDir;
    this.#names = names;
    this.#onBinary = options.onBinary;
    for (const [name, program] of names) this.#before.set(name, options.prepare?.(program, join(outDir, name)));
    const { env, host } = options;
    const moves = host.platform !== "win32" && !readVariable("GOTMPDIR", env, host.platform) && !hasSetgid(outDir);
    if (!moves || options.onBinary === undefined) return;
    try {
      this.#watcher = watch(outDir, () => this.#look());
      this.#watcher.on("error", () => this.stop());
    } catch {
      // No more watches to be had: then the end of go tells.
    }
  }

  #look(): void {
    for (const [name, program] of this.#names) {
      if (this.#seen.has(name)) continue;
      const found = statSync(join(this.#outDir, name), { throwIfNoEntry: false });
      if (found === undefined || found.ino === this.#before.get(name)) continue;
      this.#seen.set(name, found);
      this.#onBinary?.(program, { path: join(this.#outDir, name), isNew: true });
    }
  }

  /**
   * When go has ended well: tells of the binaries that were not seen to appear.
   *
   * @throws {KoError} If one is missing, or is not the one that was seen.
   */
  finish(): ReadonlyMap<string, CompiledBinary> {
    this.stop();
    const binaries = new Map<string, CompiledBinary>();
    for (const [name, program] of this.#names) {
      const { importPath } = program;
      const path = join(this.#outDir, name);
      const is = statSync(path, { throwIfNoEntry: false });
      const fail = (why: string): KoError =>
        new KoError(`Cannot build "${importPath}": go build ended well, but ${why} ${path}`);
      if (is === undefined || !is.isFile()) throw fail("there is no file");
      const seen = this.#seen.get(name);
      // Not its times: it may be in the cache by now, which sets them.
      if (seen !== undefined && (seen.ino !== is.ino || seen.size !== is.size)) {
        throw fail("something else wrote to");
      }
      const binary = { path, isNew: is.ino !== this.#before.get(name) };
      binaries.set(importPath, binary);
      if (seen === undefined) this.#onBinary?.(program, binary);
    }
    return binaries;
  }

  stop(): void {
    this.#watcher?.close();
  }
}

function hasSetgid(dir: string): boolean {
  return ((statSync(dir, { throwIfNoEntry: false })?.mode ?? 0) & 0o2000) !== 0;
}

/** Milliseconds between two looks. */
const LOOK_MS = 20;
/** Milliseconds in which a file did not change that seems to be complete. */
const CALM_MS = 40;

export class LinkWatch implements Disposable {
  readonly #folder: string;
  readonly #now: () => number;
  readonly #onLinked: (path: string, size: number) => void;
  readonly #timer: ReturnType<typeof setInterval>;

  /**
   * @param folder the TMPDIR of a go that links one program
   * @param options.now milliseconds since 1970
   * @param options.onLinked is called once, with the absolute path of the linker's output and its bytes
   */
  constructor(
    folder: string,
    options: { readonly now: () => number; readonly onLinked: (path: string, size: number) => void },
  ) {
    this.#folder = folder;
    this.#now = options.now;
    this.#onLinked = options.onLinked;
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
    this.#onLinked(path, found.size);
  }
}
