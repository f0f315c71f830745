/**
 * How ko starts the Go tool: which program, in which environment, in which folder, and what becomes of its talk.
 *
 * What is asked of it is elsewhere: `golist.ts` asks for packages, `gobuild.ts` for binaries. Go's own files (`go.mod`,
 * `go.work`, sources) are never parsed here: the user's `go` knows them best. spec/behaviour.md 1.9, spec/demand.md row 32.
 */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { CommandError, KoError, UsageError, printable } from "./errors.ts";
import type { Host, RunResult } from "./host.ts";
import type { Log } from "./log.ts";
import type { Platform } from "./oci.ts";
import { formatPlatform } from "./oci.ts";

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
