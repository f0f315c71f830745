/**
 * How ko starts the Go tool: which program, in which environment, in which folder, and what becomes of its talk.
 *
 * What is asked of it is elsewhere: `go.ts` asks for packages, `go-build.ts` for binaries. Go's own files (`go.mod`,
 * `go.work`, sources) are never parsed here: the user's `go` knows them best. spec/behaviour.md 1.9, spec/demand.md row 32.
 *
 * `go list`: what the Go tool knows of packages, as plain data.
 *
 * One process tells of all named packages and all they depend on, with the fields that decide what is built, from which
 * files. Judging them is `programs.ts`'s job. Fields: `go help list`.
 */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { CommandError, KoError, printable, UsageError } from "./errors.ts";
import type { Host, RunResult } from "./host.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";
import { formatPlatform, type Platform } from "./oci.ts";

export interface GoOptions {
  readonly host: Host;
  readonly log: Log;
  /** The program's name or path: `KO_GO_PATH`, else `go`. A relative path starts at the host's working directory. */
  readonly go: string;
  /** Ends go and all it started. @default the host's signal */
  readonly signal?: AbortSignal;
}

export interface RunGoOptions extends GoOptions {
  /** Absolute. */
  readonly cwd: string;
  /** The whole environment, of {@link buildEnvironment}. */
  readonly env: Readonly<Record<string, string>>;
  /** Called when the process has been started. */
  readonly onStart?: (() => void) | undefined;
}

/** The platform that packages are looked at for when no other is known (design.md 1, "platform"). */
export const DEFAULT_PLATFORM: Platform = { os: "linux", architecture: "amd64" };

/**
 * The environment that `go` gets for a platform.
 *
 * ko's own settings (`CGO_ENABLED=0`, `GOARM` or `GOAMD64`) come first, the user's environment wins over them, and `extra`
 * (`env` of `.ko.yaml`) wins over both, as in the original. `GOOS` and `GOARCH` are the platform's whatever the user's say:
 * with the original a lone `GOOS=darwin` puts a macOS binary into a Linux image. An empty variable of the user counts as
 * unset, as it does for `go`: else it would mean this machine's platform.
 *
 * @throws {KoError} If an arm variant is no `v` and a number, or `GOFLAGS` sets `-toolexec`.
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
  refuseToolexec(splitQuoted(env["GOFLAGS"] ?? ""), "the environment variable GOFLAGS");
  return env;
}

/**
 * Stops a build that would run another program in place of the compiler: `-toolexec` in any spelling.
 *
 * @param flags one flag, or a flag's value, each
 * @throws {UsageError} If one of them is it.
 */
export function refuseToolexec(flags: readonly string[], source = "the flags of go build"): void {
  const found = flags.find((flag) => /^--?toolexec(=|$)/.test(flag));
  if (found === undefined) return;
  throw new UsageError(`Cannot use -toolexec in ${source}: it runs any program in place of the Go compiler`, {
    hint: "Take -toolexec out.",
  });
}

/**
 * Runs `go` in a folder, with `PWD` to match. Of its talk on stderr, `go: downloading …` is shown as it comes; the rest is
 * the caller's to show: {@link goMessages}.
 *
 * @throws {CommandError} As {@link Host.run} does; with a hint when there is no `go`.
 */
export async function runGo(args: readonly string[], options: RunGoOptions): Promise<RunResult> {
  const { host, log } = options;
  await refuseToolexecInSettings(options.env, host.platform);
  const program = /[/\\]/.test(options.go) ? resolve(host.cwd, options.go) : options.go;
  let pending = "";
  const show = (text: string): void => {
    const lines = (pending + text).split("\n");
    pending = lines.pop() ?? "";
    for (const line of lines) if (isProgress(line)) log.info(line);
  };
  try {
    const env = { ...options.env, PWD: options.cwd };
    const signal = options.signal ?? host.signal;
    const running = host.run([program, ...args], { cwd: options.cwd, env, stderr: show, signal });
    options.onStart?.();
    return await running;
  } catch (error) {
    if (!(error instanceof CommandError) || error.code !== undefined || error.signal !== undefined) throw error;
    throw new CommandError(error.message, {
      argv: error.argv,
      code: undefined,
      stderr: error.stderr,
      hint: "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
    });
  }
}

/** What `go` wrote to stderr, as it wrote it, but for what {@link runGo} has shown already. Without a last line end. */
export function goMessages(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => !isProgress(line));
  return printable(lines.join("\n").trimEnd(), 60 * 1024);
}

/** True if a process was ended by the kernel for want of memory, as far as that can be told from outside. */
export function looksKilled(error: CommandError): boolean {
  return error.signal === "SIGKILL" || error.code === 137 || /\bsignal: killed\b/.test(error.stderr);
}

function isProgress(line: string): boolean {
  return line.startsWith("go: downloading ");
}

/** `v5`, `v6`, `v7` and above to GOARM; older ones leave it to `go`. */
function armVersion(variant: string, platform: Platform): string | undefined {
  const digits = /^v(\d+)$/.exec(variant)?.[1];
  if (digits === undefined) {
    throw new KoError(`Cannot build for "${formatPlatform(platform)}": the variant is "${variant}", want v5, v6 or v7`);
  }
  const version = Number(digits);
  return version < 5 ? undefined : String(Math.min(version, 7));
}

/** `GOFLAGS` can also be set for good, by `go env -w`: then `go` reads it from a file when the environment has none. */
async function refuseToolexecInSettings(env: Readonly<Record<string, string>>, platform: string): Promise<void> {
  if (env["GOFLAGS"]) return;
  const path = settingsFile(env, platform);
  if (path === undefined) return;
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch {
    return; // Nothing is set for good; a file that we cannot read, `go` cannot read either.
  }
  for (const line of text.split("\n")) {
    if (line.startsWith("GOFLAGS=")) refuseToolexec(splitQuoted(line.slice("GOFLAGS=".length)), `GOFLAGS of ${path}`);
  }
}

/** As Go's `os.UserConfigDir` has it. */
export function settingsFile(env: Readonly<Record<string, string>>, platform: string): string | undefined {
  if (env["GOENV"]) return env["GOENV"] === "off" ? undefined : env["GOENV"];
  const home = env["HOME"];
  let folder: string | undefined;
  if (platform === "win32") folder = env["APPDATA"] ?? env["AppData"];
  else if (platform === "darwin") folder = home && join(home, "Library", "Application Support");
  else folder = env["XDG_CONFIG_HOME"] || (home && join(home, ".config"));
  return folder ? join(folder, "go", "env") : undefined;
}

/** A variable as go has it, from the environment or from what `go env -w` has set for good; empty if neither has it. */
export function readVariable(name: string, env: Readonly<Record<string, string>>, platform: string): string {
  if (env[name]) return env[name];
  const path = settingsFile(env, platform);
  if (path === undefined) return "";
  try {
    const lines = readFileSync(path, "utf8").split(/\r?\n/);
    return lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1) ?? "";
  } catch {
    return "";
  }
}

/** Splits at blanks as `go` splits GOFLAGS: quotes count at the start of a field only, and nothing is escaped. */
export function splitQuoted(text: string): readonly string[] {
  return Array.from(text.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g), (match) => match[1] ?? match[2] ?? match[3] ?? "");
}

export interface GoModule {
  readonly path: string;
  /** Absent for a module of the work tree. */
  readonly version: string | undefined;
  /** Absolute; absent when it is not on disk, as with vendoring. */
  readonly dir: string | undefined;
  /** True for the module go runs in, and for those of its workspace. */
  readonly main: boolean;
  /** Path of its `go.mod`. */
  readonly goMod: string | undefined;
  /** True if a `replace` line sends it to a folder, whose files may change. */
  readonly local: boolean;
}

/** What go says is wrong with a package. */
export interface GoProblem {
  /** Import paths, from the package named to the one at fault. */
  readonly importStack: readonly string[];
  /** `file:line:column`, the file relative to the folder go ran in, or empty. */
  readonly position: string;
  readonly message: string;
}

export interface GoPackage {
  /** Absolute; empty if there is no such folder. */
  readonly dir: string;
  readonly importPath: string;
  /** The name after `package`; empty if it is not known. */
  readonly name: string;
  /** Part of Go itself. */
  readonly standard: boolean;
  readonly module: GoModule | undefined;
  /** True if no argument named it: a dependency. */
  readonly depOnly: boolean;
  /** The arguments that named it. */
  readonly match: readonly string[];
  readonly problem: GoProblem | undefined;
  readonly dependencyProblems: readonly GoProblem[];
  /** File names in `dir`. */
  readonly goFiles: readonly string[];
  /** Go files with `import "C"` that take part. */
  readonly cgoFiles: readonly string[];
  /** Go files that build constraints, or `CGO_ENABLED=0`, leave out. */
  readonly ignoredGoFiles: readonly string[];
  /** Others that build constraints leave out. */
  readonly ignoredOtherFiles: readonly string[];
  /** C, assembler, header and object files that take part. */
  readonly otherFiles: readonly string[];
  /** Paths below `dir`. */
  readonly embedFiles: readonly string[];
  readonly embedPatterns: readonly string[];
  /** Import paths of what it imports itself. */
  readonly imports: readonly string[];
}

const OTHER_FILES = "CFiles CXXFiles MFiles HFiles FFiles SFiles SwigFiles SwigCXXFiles SysoFiles".split(" ");

const FIELDS = [
  "Dir ImportPath Name Standard Module DepOnly Match Error DepsErrors Incomplete".split(" "),
  "GoFiles CgoFiles IgnoredGoFiles IgnoredOtherFiles EmbedFiles EmbedPatterns Imports".split(" "),
  OTHER_FILES,
]
  .flat()
  .join(",");

/**
 * The packages that patterns name, and all they depend on, dependencies first. A package with a fault is among them.
 *
 * @param patterns import paths, paths that begin with a dot or a slash, or patterns with `...`
 * @throws {KoError} If go cannot tell of any package: a broken `go.mod`, no module at all, a toolchain too old.
 */
export async function listPackages(
  patterns: readonly string[],
  options: RunGoOptions & { readonly flags?: readonly string[] },
): Promise<readonly GoPackage[]> {
  const args = ["list", "-e", "-deps", `-json=${FIELDS}`, ...(options.flags ?? []), "--", ...patterns];
  options.log.debug(`go list of ${patterns.join(" ")} in ${options.cwd}`);
  try {
    const { stdout } = await runGo(args, options);
    return parsePackages(stdout);
  } catch (error) {
    throw explainFailure(error, options.cwd);
  }
}

/** Import paths and folders of the programs (`package main`) that a pattern names. What has a fault is left out. */
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
 * Reads the stream of JSON objects that `go list -json` writes.
 *
 * @throws {KoError} If it is none: a `GOFLAGS` that changes the output, a program that is not `go`.
 */
export function parsePackages(bytes: Uint8Array): readonly GoPackage[] {
  const text = new TextDecoder().decode(bytes);
  const packages: GoPackage[] = [];
  // go indents, and writes line ends in strings as \n: a brace at the start of a line ends an object, nothing else does.
  for (let start = 0; start < text.length;) {
    const end = text.indexOf("\n}\n", start);
    const stop = end < 0 ? text.length : end + 3;
    packages.push(readPackage(text.slice(start, stop)));
    start = stop;
  }
  return packages;
}

function readPackage(text: string): GoPackage {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KoError("Cannot read what go list wrote: it is no JSON", { cause });
  }
  if (!isObject(value)) throw new KoError("Cannot read what go list wrote: it is no JSON object");
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

const places = new Intl.Collator("en", { numeric: true });

/** As a reader meets them: go leaves the order of what one package lacks to chance (`collectDepsErrors` of cmd/go). */
function byPlace(a: GoProblem, b: GoProblem): number {
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
    message: readString(value, "Err"),
  };
}

function readString(value: Readonly<Record<string, unknown>>, key: string): string {
  const item = value[key];
  if (item === undefined || item === null) return "";
  if (typeof item === "string") return item;
  throw new KoError(`Cannot read ${key} of what go list wrote: it is no string`);
}

const NONE: readonly string[] = [];

function readStrings(value: Readonly<Record<string, unknown>>, key: string): readonly string[] {
  const item = value[key];
  if (item === undefined || item === null) return NONE;
  if (Array.isArray(item) && item.every((part) => typeof part === "string")) return item;
  throw new KoError(`Cannot read ${key} of what go list wrote: it is no list of strings`);
}

/** go's own words are kept: they name the file and often the remedy. */
function explainFailure(error: unknown, cwd: string): unknown {
  if (!(error instanceof CommandError) || error.code === undefined) return error;
  const said = goMessages(error.stderr);
  const why = said === "" ? `go list ended with exit code ${error.code}` : said.replace(/^go: /, "");
  return new CommandError(`Cannot read the Go packages of "${cwd}": ${why}`, {
    argv: error.argv,
    code: error.code,
    stderr: error.stderr,
    hint: hintFor(said),
  });
}

function hintFor(said: string): string | undefined {
  if (said.includes("go.mod file not found")) return "Run ko where the go.mod file is, or make one: go mod init";
  if (said.includes("GOTOOLCHAIN=local")) return "Let go fetch that version: GOTOOLCHAIN=auto";
  if (said.includes("go mod tidy") || said.includes("go.sum")) return "Run: go mod tidy";
  return undefined;
}
