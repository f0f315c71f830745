/**
 * `go build`: programs to binaries, as few processes as will do.
 *
 * One process takes all programs of a module, so that the package graph is loaded once and go itself schedules compilers
 * and linkers (spec/speed.md). Flags and environment are the original's: they are recorded in the binary, whose bytes
 * must not differ. spec/behaviour.md 1.9. What the flags are (`.ko.yaml`, command line) is not decided here.
 */
import { mkdir } from "node:fs/promises";
import { join, posix, relative } from "node:path";
import { Arrivals, type ArrivalsOptions, type CompiledBinary } from "./arrivals.ts";
import { CommandError, printable } from "./errors.ts";
import type { GoOptions } from "./go.ts";
import { buildEnvironment, goMessages, looksKilled, refuseToolexec, runGo } from "./go.ts";
import type { GoPackage } from "./golist.ts";
import { cgoHint, findCgoFiles } from "./goproblems.ts";
import type { Program } from "./goprograms.ts";
import { countOomKills } from "./machine.ts";
import type { Platform } from "./oci.ts";
import { formatPlatform } from "./oci.ts";

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
