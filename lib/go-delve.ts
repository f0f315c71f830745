/**
 * Delve, the debugger of `--debug`: which version suits a program, how it is compiled, and the cache of its binaries.
 *
 * The versions are pinned here, by the hash of their files. `go install` compiles them, from the module proxy of the
 * user. https://github.com/go-delve/delve
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { once } from "./async.ts";
import { type Kept, keyOf, type RunContext } from "./cache.ts";
import { CommandError, KoError } from "./errors.ts";
import { hashFile, look } from "./file.ts";
import { readBuildInfo } from "./go-buildinfo.ts";
import type { Program } from "./go-programs.ts";
import type { BuildSetup } from "./go-setup.ts";
import { buildEnvironment, goMessages, readGoEnv, runGo, splitQuoted } from "./go.ts";
import { isObject } from "./json.ts";
import { type Digest, formatPlatform, isDigest, type Platform } from "./oci.ts";

/** The program that Delve is for. */
export interface DebuggedProgram {
  readonly program: Pick<Program, "importPath" | "workDir">;
  readonly platform: Platform;
  readonly setup: BuildSetup;
}

/** Delve for one version of Go and one platform. */
export interface Delve {
  /** Absolute; the file stays until the run ends. */
  readonly path: string;
  /** Of the bytes of the file. */
  readonly digest: Digest;
}

/** A Delve that has to be compiled. */
export interface MissingDelve {
  /** @throws {KoError} If go fails, or the module is not the pinned one. */
  compile(options: CompileDelveOptions): Promise<Delve>;
}

export interface CompileDelveOptions {
  /** Runs the compilation when there is room for it. @default at once */
  readonly limit?: (work: () => Promise<Delve>) => Promise<Delve>;
  /** How many compilers may run at once. @default as go chooses */
  readonly jobs?: number | undefined;
  /** Ends the compilation. */
  readonly signal: AbortSignal;
}

export interface DelveBuildsOptions {
  readonly context: RunContext;
  /** Name or path of the go command. */
  readonly go: string;
  /** The run's own folder, absolute. */
  readonly folder: string;
}

interface DelveVersion {
  readonly version: string;
  /** The minor versions of Go whose programs it accepts. */
  readonly oldestGo: number;
  readonly newestGo: number;
  /** The hash of its files, as in go.sum. */
  readonly sum: string;
}

/** Everything that decides the bytes of a binary of Delve. */
interface Wanted {
  readonly delve: DelveVersion;
  /** `go1.26.8`, or any other text that a build of Go reports. */
  readonly goVersion: string;
  readonly platform: Platform;
}

const MODULE = "github.com/go-delve/delve";

/** The newest first: the first one that accepts a version of Go is taken. */
const VERSIONS: readonly DelveVersion[] = [
  { version: "v1.27.2", oldestGo: 25, newestGo: 27, sum: "h1:dhcjFjiVoQI53uwsG7EqYiMhdvFuywsBZx4KDOK+sYE=" },
  { version: "v1.26.2", oldestGo: 24, newestGo: 26, sum: "h1:YmqVunuA/MLzv6IcW/UnS5aBkAdfB/DBuH9LQpb51JE=" },
  { version: "v1.25.2", oldestGo: 22, newestGo: 25, sum: "h1:EI6EIWGKUEC7OVE5nfG2eQSv5xEgCRxO1+REB7FKCtE=" },
  { version: "v1.24.2", oldestGo: 21, newestGo: 24, sum: "h1:BPuAHfgM8fAzomRuo02S2YRA6OEvY7gB0aK8DcHzbZY=" },
];

/**
 * The platforms that Delve supports. Those that it has only under a build tag, as an experiment, are left out, and so are
 * those that it needs cgo for.
 */
const PLATFORMS = ["linux/386", "linux/amd64", "linux/arm64", "linux/ppc64le", "windows/amd64"];

/** Before these versions, by the minor one of Go, a platform was an experiment. */
const EXPERIMENTAL_UNTIL: Readonly<Record<string, number>> = { "linux/ppc64le": 24 };

/** The version of the shape of records. */
const FORMAT = 1;

/** Settings of go that say where modules come from and where files are kept. */
const KEPT_SETTINGS =
  "GOPROXY GOSUMDB GOPRIVATE GONOPROXY GONOSUMDB GOINSECURE GOAUTH GOVCS GOCACHE GOMODCACHE GOCACHEPROG GOTMPDIR".split(
    " ",
  );

/** Variables of go that decide no bytes, beside those of {@link KEPT_SETTINGS}. */
const KEPT_VARIABLES: ReadonlySet<string> = new Set("GOROOT GODEBUG GOMAXPROCS GOGC GOMEMLIMIT GOTRACEBACK".split(" "));

/** Reports whether Delve runs on a platform. */
export function isDebuggable({ architecture, os }: Platform): boolean {
  return PLATFORMS.includes(`${os}/${architecture}`);
}

/** The platforms that Delve runs on, for an error. */
export function listDebuggable(): string {
  return PLATFORMS.join(", ");
}

/** The binaries of Delve of one run: each is compiled once, and cached for the next run. */
export class DelveBuilds {
  readonly #options: DelveBuildsOptions;
  /** By {@link recordKey}. */
  readonly #made = new Map<string, Promise<Delve>>();
  /** Output of `go env`, by the folder and the environment that go runs in. */
  readonly #settings = new Map<string, ReturnType<typeof readGoEnv>>();

  constructor(options: DelveBuildsOptions) {
    this.#options = options;
  }

  /**
   * Finds out which binaries have to be compiled for programs that will be compiled now.
   *
   * @throws {KoError} If `go env` fails, or no version of Delve accepts the version of Go.
   */
  async missing(all: readonly DebuggedProgram[]): Promise<readonly MissingDelve[]> {
    const missing = new Map<string, MissingDelve>();
    for (const debugged of all) {
      const { GOVERSION = "" } = await this.#readSettings(debugged);
      const wanted = choose(debugged, GOVERSION);
      const key = recordKey(wanted);
      if (this.#made.has(key) || missing.has(key)) continue;
      const known = await this.#recall(key);
      if (known !== undefined) this.#made.set(key, Promise.resolve(known));
      else {
        const compile = (options: CompileDelveOptions): Promise<Delve> => this.#compile(wanted, debugged, options);
        missing.set(key, { compile: (options) => once(this.#made, key, () => compile(options)) });
      }
    }
    return [...missing.values()];
  }

  /**
   * Returns the Delve for a compiled program.
   *
   * @param options.goVersion of the program
   * @throws {KoError} As {@link DelveBuilds.missing} and {@link MissingDelve.compile}.
   */
  async of(
    debugged: DebuggedProgram,
    { goVersion, signal }: { readonly goVersion: string; readonly signal: AbortSignal },
  ): Promise<Delve> {
    const wanted = choose(debugged, goVersion);
    const key = recordKey(wanted);
    return once(this.#made, key, async () => {
      return (await this.#recall(key)) ?? (await this.#compile(wanted, debugged, { signal }));
    });
  }

  /** The binary of an earlier run, hashed again. */
  async #recall(key: string): Promise<Delve | undefined> {
    const { cache, signal } = this.#options.context;
    const record = cache?.read("delve", key);
    if (cache === undefined || !isRecord(record)) return undefined;
    const path = await cache.take(record, signal);
    return path === undefined ? undefined : { path, digest: record.digest };
  }

  async #compile(wanted: Wanted, debugged: DebuggedProgram, options: CompileDelveOptions): Promise<Delve> {
    const { context } = this.#options;
    const { limit = (work) => work() } = options;
    return limit(async () => {
      options.signal.throwIfAborted();
      const what = `Delve ${wanted.delve.version} for ${formatPlatform(wanted.platform)}`;
      context.log.info(`Building ${what}`);
      const path = await context.timing.time("compile", what, () => this.#install(wanted, debugged, options));
      await checkModule(path, wanted);
      const digest: Digest = `sha256:${await hashFile(path, options.signal)}`;
      const kept = context.cache?.keep(path, digest);
      if (kept !== undefined) context.cache?.write("delve", recordKey(wanted), kept);
      return { path, digest };
    });
  }

  /** Runs `go install`, with a GOPATH of its own. @returns the path of the binary */
  async #install(
    { delve, goVersion, platform }: Wanted,
    debugged: DebuggedProgram,
    { jobs, signal }: CompileDelveOptions,
  ): Promise<string> {
    const { context, folder, go } = this.#options;
    const { host, log } = context;
    const gopath = join(folder, `delve-${crypto.randomUUID()}`);
    const tmpDir = join(gopath, "tmp");
    await mkdir(tmpDir, { recursive: true });
    const settings = await this.#readSettings(debugged);
    const env = {
      ...delveEnvironment(settings, { env: debugged.setup.env, platform }),
      GOTOOLCHAIN: /^go1(?:\.\d+)+(?:(?:rc|beta)\d+)?$/.test(goVersion) ? goVersion : "local",
      GOPATH: gopath,
      TMPDIR: tmpDir,
    };
    const target = `${MODULE}/cmd/dlv@${delve.version}`;
    const args = [
      "install",
      ...(jobs === undefined ? [] : ["-p", String(jobs)]),
      "-trimpath",
      "-ldflags=-s -w",
      target,
    ];
    try {
      // A version manager chooses Go by the folder.
      await runGo(args, { host, log, go, signal, env, cwd: debugged.program.workDir });
    } catch (error) {
      signal.throwIfAborted();
      throw explainFailure(error, { delve, goVersion, platform });
    }
    // For the platform of go itself there is no folder in between.
    const name = platform.os === "windows" ? "dlv.exe" : "dlv";
    const places = ["", `${platform.os}_${platform.architecture}`].map((place) => join(gopath, "bin", place, name));
    const path = places.find((each) => look(each)?.isFile() === true);
    if (path === undefined) throw new KoError(`Cannot build Delve ${delve.version}: go install made no ${name}`);
    return path;
  }

  #readSettings({ program, setup }: DebuggedProgram): ReturnType<typeof readGoEnv> {
    const { context, go } = this.#options;
    const { host, log, signal } = context;
    const key = keyOf([program.workDir, setup.env]);
    return once(this.#settings, key, () => readGoEnv({ host, log, go, signal, env: setup.env, cwd: program.workDir }));
  }
}

/**
 * Returns the environment of go for Delve. Only the version of Go, the platform and the module decide its bytes, so that
 * one binary is for all programs: flags, workspaces and experiments of the user's are left out.
 *
 * An empty variable would let `go env -w` decide. GOFLAGS is not empty for that reason, and GOBIN would have to be: go
 * refuses it for another platform.
 */
function delveEnvironment(
  settings: Readonly<Record<string, string>>,
  { env, platform }: { readonly env: Readonly<Record<string, string>>; readonly platform: Platform },
): Readonly<Record<string, string>> {
  const isKept = ([name]: readonly [string, string]): boolean =>
    !/^(?:GO[A-Z0-9]*|CGO_[A-Z_]+)$/.test(name) || KEPT_VARIABLES.has(name);
  const where = KEPT_SETTINGS.flatMap((name) => (settings[name] ? [[name, settings[name]] as const] : []));
  // Files of a read-only module cache cannot be removed with rm.
  const isWritable = splitQuoted(settings["GOFLAGS"] ?? "").includes("-modcacherw");
  return {
    ...Object.fromEntries(Object.entries(env).filter(isKept)),
    ...Object.fromEntries(where),
    ...buildEnvironment(platform, {}),
    GOENV: "off",
    GOWORK: "off",
    GOFLAGS: isWritable ? "-trimpath -modcacherw" : "-trimpath",
  };
}

/** @throws {KoError} If no version of Delve accepts the version of Go, or the platform with it. */
function choose({ platform, program }: DebuggedProgram, reported: string): Wanted {
  // The experiments of the program's build are not Delve's.
  const goVersion = reported.replace(/ X:.*$/, "");
  const minor = Number(/^(?:devel )?go1\.(\d+)/.exec(goVersion)?.[1] ?? Number.NaN);
  const delve = VERSIONS.find(({ newestGo, oldestGo }) => oldestGo <= minor && minor <= newestGo);
  const fail = (why: string): KoError =>
    new KoError(`Cannot use --debug for ${program.importPath}: ${why}`, {
      hint: "Use --disable-optimizations, and a debugger of your own.",
    });
  if (delve === undefined) {
    const [oldest, newest] = [VERSIONS.at(-1)?.oldestGo, VERSIONS[0]?.newestGo];
    throw fail(`Go is ${goVersion}, and Delve is for Go 1.${oldest} to 1.${newest}`);
  }
  const name = `${platform.os}/${platform.architecture}`;
  const since = EXPERIMENTAL_UNTIL[name];
  if (since !== undefined && minor < since) throw fail(`Go is ${goVersion}, and Delve on ${name} needs 1.${since}`);
  return { delve, goVersion, platform };
}

function recordKey({ delve, goVersion, platform }: Wanted): string {
  const { architecture, os, variant = "" } = platform;
  return keyOf([FORMAT, delve.version, goVersion, os, architecture, variant]);
}

/** @throws {KoError} If a proxy gave other files than those that are pinned. */
async function checkModule(path: string, { delve }: Wanted): Promise<void> {
  const { main } = await readBuildInfo(path);
  if (main?.path === MODULE && main.version === delve.version && main.sum === delve.sum) return;
  throw new KoError(
    `Cannot use Delve ${delve.version}: its files have the hash ${main?.sum ?? "none"}, wanted ${delve.sum}`,
    { hint: "Fetch it from another module proxy: export GOPROXY=https://proxy.golang.org" },
  );
}

function explainFailure(error: unknown, { delve, goVersion, platform }: Wanted): unknown {
  if (!(error instanceof CommandError) || (error.code === undefined && error.signal === undefined)) return error;
  const ended = error.signal === undefined ? `exit code ${error.code}` : error.signal;
  // A proxy may be named with a password.
  const said = goMessages(error.stderr).replaceAll(/:\/\/[^\s/@]*@/g, "://REDACTED@");
  const target = `${MODULE}/cmd/dlv@${delve.version}`;
  const text = `Cannot build Delve for ${formatPlatform(platform)} with ${goVersion}: go install ${target} failed (${ended})`;
  return new CommandError(`${text}${said && `\n${said}`}`, {
    argv: error.argv,
    code: error.code,
    signal: error.signal,
    stderr: error.stderr,
    // The proxy may answer later.
    transient: true,
    hint: `Fetch it once where a module proxy can be reached: GOPROXY=https://proxy.golang.org go install ${target}`,
  });
}

function isRecord(value: unknown): value is Kept {
  if (!isObject(value)) return false;
  const { digest, size } = value;
  return typeof digest === "string" && isDigest(digest) && typeof size === "number";
}
