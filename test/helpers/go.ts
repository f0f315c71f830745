/** Go modules and programs for tests, and the Go tool of this machine without the network. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { Cache } from "../../lib/cache.ts";
import { NO_WORDS } from "../../lib/config-builds.ts";
import { DelveBuilds } from "../../lib/go-delve.ts";
import { choosePrograms, findPrograms, type FindProgramsOptions, type Program } from "../../lib/go-programs.ts";
import { BuildSetups, type BuildSetupsOptions } from "../../lib/go-setup.ts";
import { buildEnvironment, type GoOptions, type GoPackage } from "../../lib/go.ts";
import type { Host } from "../../lib/host.ts";
import { type Log, silentLog } from "../../lib/log.ts";
import { noTiming } from "../../lib/timing.ts";
import { cacheFolder } from "./counterparts.ts";
import type { Files, Tree } from "./world-folders.ts";
import { hostAt, realHost } from "./world-host.ts";
import { output } from "./world-programs.ts";

export interface GoModOptions {
  /** The Go version that it asks for. @default "1.21" */
  readonly go?: string;
  /** Further lines. */
  readonly more?: string;
}

/** A `go.mod`. */
export function goMod(path: string, { go = "1.21", more = "" }: GoModOptions = {}): string {
  return `module ${path}\n\ngo ${go}\n${more}`;
}

/**
 * A Go program that prints `text` and the `Text` of the packages that it imports. Without imports it needs nothing but
 * the runtime, and compiles in a moment for any platform.
 */
export function mainGo(text = "hello", imports: readonly string[] = []): string {
  const lines = imports.map((path) => `import "${path}"\n`).join("");
  const texts = imports.map((path) => `, ${path.replace(/^.*\//, "")}.Text`).join("");
  return `package main\n\n${lines === "" ? "" : `${lines}\n`}func main() { println(${JSON.stringify(text)}${texts}) }\n`;
}

/** A Go package whose `Text` is `text`. */
export function libraryGo(name: string, text = `${name} 1`): string {
  return `package ${name}\n\nvar Text = ${JSON.stringify(text)}\n`;
}

/** One program in the root of its module. */
export const HELLO: Files = { "go.mod": goMod("example.com/hello"), "main.go": mainGo() };

const fixtures = new Map<string, string>();

/**
 * The path of `test/fixtures/gospy`, a program that stands for go and notes its calls.
 *
 * Small programs are built without debug information, which takes a third of the time of a build, and none of the tools
 * lives long enough to need its garbage collected. A later `-ldflags` of the call itself wins.
 */
export function buildSpy(): string {
  return buildFixture("gospy");
}

/** The path of a program of `test/fixtures` that stands for go. It is kept between runs of the tests. */
export function buildFixture(name: "gospy" | "gochooser"): string {
  const known = fixtures.get(name);
  if (known !== undefined) return known;
  const cwd = join(import.meta.dir, "../fixtures", name);
  const key = Bun.hash(readFileSync(join(cwd, "main.go"))).toString(36);
  const path = join(cacheFolder(), "bin", `${name}-${key}`, "go");
  if (!existsSync(path)) {
    const making = `${path}.${process.pid}`;
    mkdirSync(dirname(path), { recursive: true });
    const env = { ...process.env, CGO_ENABLED: "0", GOFLAGS: "", GOWORK: "off", GOTOOLCHAIN: "local" };
    const { exitCode, stderr } = Bun.spawnSync(["go", "build", "-o", making, "."], { cwd, env });
    if (exitCode !== 0) throw new Error(`cannot compile ${name}: ${stderr.toString()}`);
    renameSync(making, path);
  }
  fixtures.set(name, path);
  return path;
}

export interface GoWorld {
  readonly host: Host;
  readonly log: Log;
  readonly go: string;
  /** Of a run without `.ko.yaml`. */
  readonly setups: BuildSetups;
  /** What was written to stderr past the log. */
  readonly written: string[];
  /** Lines of the log at level info. */
  readonly told: string[];
}

/**
 * The `go` of this machine, run in `cwd`. Nothing comes from the network; Go's build cache is the user's.
 *
 * @param env on top of a bare environment
 */
export function goWorld(cwd: string, env: Readonly<Record<string, string>> = {}): GoWorld {
  const written: string[] = [];
  const told: string[] = [];
  const kept = ["PATH", "HOME", "TMPDIR", "GOCACHE", "GOMODCACHE", "GOPATH"].flatMap((key) => {
    const value = process.env[key];
    return value === undefined ? [] : [[key, value] as const];
  });
  const defaults = { GOPROXY: "off", GOTOOLCHAIN: "local", GOENV: "off", GOFLAGS: "-buildvcs=false" };
  const options: GoOptions = {
    host: hostAt(cwd, {
      env: { ...Object.fromEntries(kept), ...defaults, ...env },
      err: (text) => void written.push(text),
    }),
    log: { info: (message) => void told.push(message), warn: () => {}, debug: () => {} },
    go: "go",
  };
  return { ...options, setups: openSetups(options), written, told };
}

/** @param config of `.ko.yaml`. @default none */
export function openSetups(options: GoOptions, config: Partial<BuildSetupsOptions["config"]> = {}): BuildSetups {
  return new BuildSetups({
    ...options,
    config: { builds: [], defaults: NO_WORDS, sourceDateEpoch: undefined, ...config },
  });
}

/** A stand-in for `go` that logs the first argument of each call, and then runs the real one. */
export function countingGo(logFile: string): { readonly executable: string } {
  return { executable: `#!/bin/sh\necho "$1" >> '${logFile}'\nexec go "$@"\n` };
}

/**
 * Writes a stand-in for `go` that writes down each `go build`, and then runs the real one.
 *
 * @param folder below `work`
 * @returns its path
 */
export function recordingGo(work: Tree, folder: string): string {
  const go = Bun.which("go");
  if (go === null) throw new Error("there is no go on PATH");
  const log = work.at(`${folder}/go-builds`);
  const script = `#!/bin/sh
if [ "$1" = build ]; then
  printf '%s\\0' "$@" > '${log}'/$$.args
  env -0 > '${log}'/$$.env
fi
exec '${go}' "$@"
`;
  work.write({ [`${folder}/go-builds`]: null, [`${folder}/bin/go`]: { executable: script } });
  return work.at(`${folder}/bin/go`);
}

/** Variables that differ between ko and the original, and say nothing of the build. */
const OWN_VARIABLES = /^(?:TMPDIR|PWD|OLDPWD|SHLVL|_|KOCACHE|KO_GO_PATH|KO_DOCKER_REPO|KO_CONFIG_PATH|DOCKER_CONFIG)=/;

/** Each program of each `go build` that {@link recordingGo} wrote down, sorted: program, words, environment. */
export function readGoBuilds(work: Tree, folder: string): readonly string[] {
  const log = work.at(`${folder}/go-builds`);
  if (!existsSync(log)) return [];
  const read = (name: string): string[] => readFileSync(join(log, name), "utf8").split("\0").slice(0, -1);
  const names = readdirSync(log).filter((name) => name.endsWith(".args"));
  const lines = names.flatMap((name) => {
    const args = read(name);
    const env = read(name.replace(/args$/, "env")).filter((line) => !OWN_VARIABLES.test(line));
    const outputAt = args.lastIndexOf("-o");
    // Ours limits the compilers of each go.
    const end = args[outputAt - 2] === "-p" && (args[outputAt + 1] ?? "").endsWith("/") ? outputAt - 2 : outputAt;
    return args.slice(outputAt + 2).map((program) => JSON.stringify([program, args.slice(0, end), env.sort()]));
  });
  // The original compiles a program once for each version of Windows.
  return [...new Set(lines)].sort();
}

/** The programs that arguments name, and all packages that take part; fails as a command does. */
export async function listPrograms(
  args: readonly string[],
  options: FindProgramsOptions,
): Promise<{ readonly programs: readonly Program[]; readonly packages: ReadonlyMap<string, readonly GoPackage[]> }> {
  const found = await findPrograms(args, options);
  return {
    programs: choosePrograms(found),
    packages: new Map(found.listings.map((each) => [each.workDir, each.packages])),
  };
}

/**
 * A binary of Delve for linux/amd64 and the Go of this machine. It is compiled once, and kept between runs of the tests.
 *
 * @returns undefined, said on stderr, where its modules cannot be had; in CI that is a failure
 */
export async function findDelve(): Promise<string | undefined> {
  const folder = join(cacheFolder(), "delve");
  mkdirSync(folder, { recursive: true });
  const host = hostAt(folder, { env: { ...realHost.env, KOCACHE: join(folder, "cache") } });
  try {
    await using cache = Cache.open(host, silentLog);
    if (cache === undefined) throw new Error("there is no cache");
    const context = { host, log: silentLog, timing: noTiming, signal: host.signal, cache };
    const builds = new DelveBuilds({ context, go: "go", folder: await cache.work() });
    const platform = { os: "linux", architecture: "amd64" };
    const debugged = {
      program: { importPath: "example.com/tests", workDir: folder },
      platform,
      setup: { env: buildEnvironment(platform, host.env), args: [] },
    };
    const goVersion = (await output(["go", "env", "GOVERSION"], { cwd: folder, env: process.env })).trim();
    const { digest, path } = await builds.of(debugged, { goVersion, signal: host.signal });
    const kept = join(folder, `dlv-${digest.slice(7)}`);
    if (!existsSync(kept)) {
      copyFileSync(path, `${kept}.new`);
      renameSync(`${kept}.new`, kept);
    }
    return kept;
  } catch (error) {
    if (process.env["CI"]) throw error;
    console.warn(`skipped: there is no Delve: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}
