/**
 * Runs the Go tool, and reads the packages that `go list` describes.
 *
 * Settings are read as `go` reads them (go-env.ts); `go.mod`, `go.work` and sources are left to it. Compiling: go-build.ts.
 * The fields of a package are those of `go help list`.
 */
import { resolve } from "node:path";
import { inBackground } from "./async.ts";
import { CommandError, KoError, printable, UsageError } from "./errors.ts";
import { type GoSettings, readSettings } from "./go-env.ts";
import { hintFor } from "./go-hints.ts";
import type { Host, RunResult } from "./host.ts";
import { isObject, parseJson, parseObject, pickStringMap } from "./json.ts";
import type { Log } from "./log.ts";
import { formatPlatform, type Platform } from "./oci.ts";
import { hideLogins } from "./url.ts";

export interface GoModule {
  readonly path: string;
  /** Absent for a module of the work tree. */
  readonly version: string | undefined;
  /** Absolute; absent if the module is not on disk, as with vendoring. */
  readonly dir: string | undefined;
  /** True for the module of the working directory, and for those of its workspace. */
  readonly main: boolean;
  /** Path of its `go.mod`. */
  readonly goMod: string | undefined;
  /** True if a `replace` line leads to a folder, whose files may change. */
  readonly local: boolean;
}

/** An error of `go list` about a package. */
export interface GoProblem {
  /** Import paths, from the named package to the one with the error. */
  readonly importStack: readonly string[];
  /** `file:line:column`, the file relative to the working directory of `go`; or empty. */
  readonly position: string;
  readonly message: string;
}

/** The output of `go list -deps`, by the folder that go ran in. */
export interface PackageList {
  /** Milliseconds since 1970, before go was started. */
  readonly startedAt: number;
  readonly packages: ReadonlyMap<string, readonly GoPackage[]>;
}

export interface GoPackage {
  /** Absolute; empty if the package was not found. */
  readonly dir: string;
  readonly importPath: string;
  /** The name in the package clause; empty if unknown. */
  readonly name: string;
  /** True for packages of the standard library. */
  readonly standard: boolean;
  readonly module: GoModule | undefined;
  /** True for a dependency that no argument names. */
  readonly depOnly: boolean;
  /** The patterns that match it. */
  readonly match: readonly string[];
  readonly problem: GoProblem | undefined;
  readonly dependencyProblems: readonly GoProblem[];
  /** File names in `dir`. */
  readonly goFiles: readonly string[];
  /** Go files with `import "C"` that are compiled. */
  readonly cgoFiles: readonly string[];
  /** Go files that build constraints or `CGO_ENABLED=0` leave out. */
  readonly ignoredGoFiles: readonly string[];
  /** Other files that build constraints leave out. */
  readonly ignoredOtherFiles: readonly string[];
  /** C, assembler, header and object files that are compiled. */
  readonly otherFiles: readonly string[];
  /** Paths below `dir`. */
  readonly embedFiles: readonly string[];
  readonly embedPatterns: readonly string[];
  /** The import paths in its files. */
  readonly imports: readonly string[];
}

export interface GoOptions {
  readonly host: Host;
  readonly log: Log;
  /**
   * The name or path of the Go tool: `KO_GO_PATH`, else `go`. A relative path starts at the host's working directory.
   */
  readonly go: string;
  /** Ends `go` and the processes that it started. @default the host's signal */
  readonly signal?: AbortSignal;
}

export interface RunGoOptions extends GoOptions {
  /** Absolute. */
  readonly cwd: string;
  /** The whole environment, of {@link buildEnvironment}. */
  readonly env: Readonly<Record<string, string>>;
}

/** The platform of `go list` if no other is known. */
export const DEFAULT_PLATFORM: Platform = { os: "linux", architecture: "amd64" };

const OTHER_FILES = "CFiles CXXFiles MFiles HFiles FFiles SFiles SwigFiles SwigCXXFiles SysoFiles".split(" ");

const FIELDS = [
  "Dir ImportPath Name Standard Module DepOnly Match Error DepsErrors Incomplete".split(" "),
  "GoFiles CgoFiles IgnoredGoFiles IgnoredOtherFiles EmbedFiles EmbedPatterns Imports".split(" "),
  OTHER_FILES,
]
  .flat()
  .join(",");

/** Made at its first use: that takes 3 ms. */
let places: Intl.Collator | undefined;

const NONE: readonly string[] = [];

/**
 * Returns the environment of `go` for a platform.
 *
 * The user's environment overrides the defaults (`CGO_ENABLED=0`, `GOARM` or `GOAMD64`), and `extra` (`env` of
 * `.ko.yaml`) overrides both, as in the original. `GOOS` and `GOARCH` are always the platform's: in the original
 * `GOOS=darwin` puts a macOS binary into a Linux image. An empty variable counts as unset, as it does for `go`.
 *
 * @throws {KoError} If an arm variant is not `v` and a number, or `GOFLAGS` sets `-toolexec`.
 */
export function buildEnvironment(
  platform: Platform,
  hostEnv: Readonly<Record<string, string>>,
  extra: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const own: Record<string, string> = { CGO_ENABLED: "0", GOOS: platform.os, GOARCH: platform.architecture };
  if (platform.variant && platform.architecture === "arm") {
    const goarm = armVersion(platform.variant, platform);
    if (goarm !== undefined) own["GOARM"] = goarm;
  } else if (platform.variant && platform.architecture === "amd64") {
    own["GOAMD64"] = platform.variant;
  }
  const env: Record<string, string> = { ...own };
  for (const [key, value] of Object.entries(hostEnv)) {
    if (key !== "GOOS" && key !== "GOARCH" && (value !== "" || !(key in own))) env[key] = value;
  }
  for (const [key, value] of Object.entries(extra)) {
    if (value !== "" || !(key in own)) env[key] = value;
  }
  // Also those that `extra` replaces, as in the original.
  for (const { GOFLAGS = "" } of [hostEnv, extra]) {
    refuseToolexec(splitQuoted(GOFLAGS), "the environment variable GOFLAGS");
  }
  return env;
}

/**
 * Refuses `-toolexec`, which runs any program in place of the compiler.
 *
 * @param flags single flags or words of a flag's value
 * @throws {UsageError} If one of them is `-toolexec`, in any spelling.
 */
export function refuseToolexec(flags: readonly string[], source = "the flags of go build"): void {
  const found = flags.find((flag) => /^--?toolexec(=|$)/.test(flag));
  if (found === undefined) return;
  throw new UsageError(`Cannot use -toolexec in ${source}: it runs any program in place of the Go compiler`, {
    hint: "Take -toolexec out.",
  });
}

/**
 * Runs `go` in a folder, with `PWD` set to it. Lines such as `go: downloading …` on its stderr are logged at once; the
 * caller shows the others, with {@link goMessages}.
 *
 * @throws {CommandError} As {@link Host.run} does, with a hint if there is no `go`.
 */
export async function runGo(args: readonly string[], options: RunGoOptions): Promise<RunResult> {
  const { result } = await startGo(args, options);
  return result;
}

/** Does the same as {@link runGo}, but returns as soon as the process has been started. */
export async function startGo(
  args: readonly string[],
  options: RunGoOptions,
): Promise<{ readonly result: Promise<RunResult> }> {
  const { host, log } = options;
  refuseToolexecInSettings(options);
  const program = findGo(options);
  let pending = "";
  const show = (text: string): void => {
    const lines = (pending + text).split("\n");
    pending = lines.pop() ?? "";
    for (const line of lines) if (isProgress(line)) log.info(line);
  };
  const env = { ...options.env, PWD: options.cwd };
  const signal = options.signal ?? host.signal;
  const running = host.run([program, ...args], { cwd: options.cwd, env, stderr: show, signal });
  return { result: inBackground(running.catch(explainMissingGo)) };
}

/** Returns the stderr of `go` without logins, the lines that {@link runGo} has shown already, and a last line end. */
export function goMessages(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => !isProgress(line));
  return printable(hideLogins(lines.join("\n").trimEnd()), 60 * 1024);
}

/** Reports whether the kernel probably killed the process for lack of memory. */
export function looksKilled(error: CommandError): boolean {
  return error.signal === "SIGKILL" || error.code === 137 || /\bsignal: killed\b/.test(error.stderr);
}

/** The absolute path of the go command; undefined if there is none. */
export function goPath({ go, host }: Pick<GoOptions, "go" | "host">): string | undefined {
  return /[/\\]/.test(go) ? resolve(host.cwd, go) : host.findProgram(go);
}

/** Reads the settings that go has in a folder with an environment, as far as files tell them. */
export function settingsOf(options: Pick<RunGoOptions, "cwd" | "env" | "go" | "host">): GoSettings {
  const { cwd, env, host } = options;
  return readSettings({ cwd, env, go: goPath(options), platform: host.platform });
}

/**
 * Reads all settings of the Go tool: `go env -json`.
 *
 * @param options.env the environment of ko itself for the values that the original's templates have
 * @throws {KoError} If `go env` fails.
 */
export async function readGoEnv(options: RunGoOptions): Promise<Readonly<Record<string, string>>> {
  const { stdout } = await runGo(["env", "-json"], options);
  return pickStringMap({ env: parseObject(stdout, "the output of go env") }, "env", "the output of go env").env ?? {};
}

/** Splits GOFLAGS as `go` does: quotes count only at the start of a field, and nothing is escaped. */
export function splitQuoted(text: string): readonly string[] {
  return Array.from(text.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g), (match) => match[1] ?? match[2] ?? match[3] ?? "");
}

/**
 * Lists the packages that patterns match, after their dependencies. Packages with an error are listed too.
 *
 * @param patterns import paths, paths that begin with a dot or a slash, or patterns with `...`
 * @throws {KoError} If `go list` fails as a whole: a broken `go.mod`, no module, a toolchain that is too old.
 */
export async function listPackages(
  patterns: readonly string[],
  options: RunGoOptions & { readonly flags?: readonly string[]; readonly isShallow?: boolean },
): Promise<readonly GoPackage[]> {
  const depth = options.isShallow === true ? "-find" : "-deps";
  const args = ["list", "-e", depth, `-json=${FIELDS}`, ...(options.flags ?? []), "--", ...patterns];
  options.log.debug(`go list of ${patterns.join(" ")} in ${options.cwd}`);
  try {
    const { stdout } = await runGo(args, options);
    return parsePackages(stdout);
  } catch (error) {
    throw explainListError(error, options);
  }
}

/** Finds the main packages that a pattern matches. Those with an error are left out. */
export async function findMains(
  pattern: string,
  options: RunGoOptions,
): Promise<readonly { readonly importPath: string; readonly dir: string }[]> {
  const format = '{{if eq .Name "main"}}{{.ImportPath}}\t{{.Dir}}{{end}}';
  const { stdout } = await runGo(["list", "-e", "-find", "-f", format, "--", pattern], options);
  return new TextDecoder()
    .decode(stdout)
    .split("\n")
    .flatMap((line) => {
      const [importPath, dir] = line.split("\t");
      return importPath && dir ? [{ importPath, dir }] : [];
    });
}

/**
 * Parses the output of `go list -json`, a stream of JSON objects.
 *
 * @throws {KoError} If it is something else: GOFLAGS changes the output, or the program is not `go`.
 */
export function parsePackages(bytes: Uint8Array): readonly GoPackage[] {
  const text = new TextDecoder().decode(bytes);
  const packages: GoPackage[] = [];
  // `go` indents, and strings hold no line ends: only the end of an object is a brace at the start of a line.
  for (let start = 0; start < text.length;) {
    const end = text.indexOf("\n}\n", start);
    const stop = end < 0 ? text.length : end + 3;
    packages.push(readPackage(text.slice(start, stop)));
    start = stop;
  }
  return packages;
}

/** @throws {CommandError} With a hint if there is no `go`; otherwise the error itself. */
function explainMissingGo(error: unknown): never {
  if (!(error instanceof CommandError) || error.code !== undefined || error.signal !== undefined) throw error;
  throw new CommandError(error.message, {
    argv: error.argv,
    code: undefined,
    stderr: error.stderr,
    hint: "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
  });
}

function isProgress(line: string): boolean {
  return line.startsWith("go: downloading ");
}

/** The GOARM of a variant: `v5`, `v6`, and 7 for all above; undefined leaves it to `go`. */
function armVersion(variant: string, platform: Platform): string | undefined {
  const digits = /^v(\d+)$/.exec(variant)?.[1];
  if (digits === undefined) {
    throw new KoError(
      `Cannot build for "${formatPlatform(platform)}": the variant is "${variant}", wanted v5, v6 or v7`,
    );
  }
  const version = Number(digits);
  return version < 5 ? undefined : String(Math.min(version, 7));
}

/** The Go tool. A PATH of `.ko.yaml` is for the programs that go starts: it does not choose go itself. */
function findGo({ env, go, host }: RunGoOptions): string {
  if (/[/\\]/.test(go)) return resolve(host.cwd, go);
  return env["PATH"] === host.env["PATH"] ? go : (host.findProgram(go) ?? go);
}

/** Refuses `-toolexec` in the settings that `go` uses if the environment has no GOFLAGS. */
function refuseToolexecInSettings(options: RunGoOptions): void {
  const settings = settingsOf(options);
  const file = settings.fileOf("GOFLAGS");
  if (file !== undefined) refuseToolexec(splitQuoted(settings.get("GOFLAGS")), `GOFLAGS of ${file}`);
}

function readPackage(text: string): GoPackage {
  const value = parseJson(text);
  if (value === undefined) throw new KoError("Cannot read the output of go list: it is not JSON");
  if (!isObject(value)) throw new KoError("Cannot read the output of go list: it is not a JSON object");
  const problems = value["DepsErrors"];
  return {
    dir: readString(value, "Dir"),
    importPath: readString(value, "ImportPath"),
    name: readString(value, "Name"),
    standard: value["Standard"] === true,
    module: readModule(value["Module"]),
    depOnly: value["DepOnly"] === true,
    match: readStrings(value, "Match"),
    problem: readProblem(value["Error"]),
    dependencyProblems: (Array.isArray(problems) ? problems : [])
      .flatMap((item) => readProblem(item) ?? [])
      .sort(byPlace),
    goFiles: readStrings(value, "GoFiles"),
    cgoFiles: readStrings(value, "CgoFiles"),
    ignoredGoFiles: readStrings(value, "IgnoredGoFiles"),
    ignoredOtherFiles: readStrings(value, "IgnoredOtherFiles"),
    otherFiles: OTHER_FILES.flatMap((key) => readStrings(value, key)),
    embedFiles: readStrings(value, "EmbedFiles"),
    embedPatterns: readStrings(value, "EmbedPatterns"),
    imports: readStrings(value, "Imports"),
  };
}

/** Compares by position: cmd/go leaves the order of a package's errors to chance (`collectDepsErrors`). */
function byPlace(a: GoProblem, b: GoProblem): number {
  places ??= new Intl.Collator("en", { numeric: true });
  return places.compare(a.position, b.position) || places.compare(a.message, b.message);
}

function readModule(value: unknown): GoModule | undefined {
  if (!isObject(value)) return undefined;
  return {
    path: readString(value, "Path"),
    version: readString(value, "Version") || undefined,
    dir: readString(value, "Dir") || undefined,
    main: value["Main"] === true,
    goMod: readString(value, "GoMod") || undefined,
    local: isObject(value["Replace"]) && !readString(value["Replace"], "Version"),
  };
}

function readProblem(value: unknown): GoProblem | undefined {
  if (!isObject(value)) return undefined;
  return {
    importStack: readStrings(value, "ImportStack"),
    position: readString(value, "Pos"),
    message: hideLogins(readString(value, "Err")),
  };
}

function readString(value: Readonly<Record<string, unknown>>, key: string): string {
  const item = value[key];
  if (item === undefined || item === null) return "";
  if (typeof item === "string") return item;
  throw new KoError(`Cannot read ${key} in the output of go list: it is not a string`);
}

function readStrings(value: Readonly<Record<string, unknown>>, key: string): readonly string[] {
  const item = value[key];
  if (item === undefined || item === null) return NONE;
  if (Array.isArray(item) && item.every((part) => typeof part === "string")) return item;
  throw new KoError(`Cannot read ${key} in the output of go list: it is not a list of strings`);
}

/** Keeps the words of `go`, which name the file and often the remedy. */
function explainListError(error: unknown, options: RunGoOptions): unknown {
  if (!(error instanceof CommandError) || error.code === undefined) return error;
  const said = goMessages(error.stderr);
  const why = said === "" ? `go list ended with exit code ${error.code}` : said.replace(/^go: /, "");
  return new CommandError(`Cannot read the Go packages of "${options.cwd}": ${why}`, {
    argv: error.argv,
    code: error.code,
    stderr: error.stderr,
    hint: hintFor(said, { goprivate: settingsOf(options).get("GOPRIVATE") }),
  });
}
