/**
 * Checks programs without building them: that they are main packages, that cgo has its compiler, that each has an image
 * name of its own, and that symlinks in kodata lead where they may.
 *
 * A program whose cached binary is proved to be up to date was compiled from these sources; go is asked for the others.
 */
import { join } from "node:path";
import { BuildCache } from "./build-cache.ts";
import type { Cache } from "./cache.ts";
import type { Findings, FindingPlace } from "./check-findings.ts";
import { KoError, KoErrors } from "./errors.ts";
import { look, readNames } from "./file.ts";
import { isTargetName } from "./fingerprint.ts";
import { readText } from "./go-entries.ts";
import { cgoHint, IMPORT_C } from "./go-problems.ts";
import { recallPrograms } from "./go-programs-cache.ts";
import { findPrograms, type FoundPrograms, type Listing, type Program } from "./go-programs.ts";
import type { BuildSetups } from "./go-setup.ts";
import { DEFAULT_PLATFORM, type GoOptions, type GoPackage, settingsOf, splitQuoted } from "./go.ts";
import type { Host } from "./host.ts";
import { type KodataProblem, kodataEntries } from "./kodata.ts";
import type { Log } from "./log.ts";
import { formatPlatform, type Platform } from "./oci.ts";
import { OFFLINE_GO } from "./offline.ts";
import { imageName, type Naming, nameAll } from "./reference.ts";

export interface FindCheckedOptions extends GoOptions {
  readonly setups: BuildSetups;
  /** The platform of build constraints. @default linux/amd64 */
  readonly platform: Platform | undefined;
  /** Only read. */
  readonly cache: Cache | undefined;
}

export interface CheckProgramsOptions extends FindCheckedOptions {
  readonly findings: Findings;
  /** The output of go for the programs that the cache does not prove. */
  readonly listings: readonly Listing[];
  /** The first place that names a program, by import path; programs of the command line have none. */
  readonly places: ReadonlyMap<string, FindingPlace>;
  readonly naming: Naming;
  /** `KO_DOCKER_REPO`; may be empty. */
  readonly repository: string;
}

/** Stands for a repository that is not known, which no check is about. */
const SOME_REPOSITORY = "registry.example.com/team";

/** C compilers that go may use if no setting names one. */
const COMPILERS = ["gcc", "clang", "cc"] as const;

/** Returns the host, whose programs download no Go modules and no toolchain. */
export function withoutDownloads(host: Host): Host {
  return {
    ...host,
    run: (argv, options = {}) => host.run(argv, { ...options, env: { ...(options.env ?? host.env), ...OFFLINE_GO } }),
  };
}

/**
 * Finds the programs that arguments name, as {@link findPrograms} does. Nothing is written and nothing downloaded.
 *
 * @throws {KoError} As {@link findPrograms}.
 */
export async function findCheckedPrograms(
  args: readonly string[],
  options: FindCheckedOptions,
): Promise<FoundPrograms> {
  const known = await recallProved(args, options);
  const unknown = args.filter((arg) => !known.has(arg));
  const found =
    unknown.length === 0
      ? { results: [], listings: [] }
      : await findPrograms(unknown, { ...options, host: withoutDownloads(options.host) });
  const listed = new Map(unknown.map((arg, i) => [arg, found.results[i]]));
  const results = args.map((arg) => explainOffline(known.get(arg) ?? listed.get(arg) ?? []));
  return { results, listings: found.listings };
}

/** Checks programs that were found. */
export async function checkPrograms(programs: readonly Program[], options: CheckProgramsOptions): Promise<void> {
  checkNames(programs, options);
  for (const program of programs) {
    await checkCgo(program, options);
    checkKodata(program, options);
  }
}

/** The programs of those arguments whose records are proved, and whose binaries are up to date. */
async function recallProved(
  args: readonly string[],
  options: FindCheckedOptions,
): Promise<ReadonlyMap<string, readonly Program[]>> {
  const { cache, go, log, platform, setups } = options;
  const proved = new Map<string, readonly Program[]>();
  if (cache === undefined) return proved;
  const host = withoutDownloads(options.host);
  const builds = new BuildCache({ cache, host, log, go });
  const isProved = async (program: Program): Promise<boolean> => {
    const setup = await setups.of(program, platform ?? DEFAULT_PLATFORM);
    return (await builds.lookup(program, setup)).kind === "hit";
  };
  for (const arg of args) {
    try {
      const [programs] = (await recallPrograms([arg], { cache, builds, host, platform, setups }))?.results ?? [];
      if (programs === undefined || programs instanceof KoError) continue;
      if ((await Promise.all(programs.map(isProved))).every(Boolean)) proved.set(arg, programs);
    } catch (error) {
      // A mistake in .ko.yaml: the search reports it.
      if (!(error instanceof KoError) || host.signal.aborted) throw error;
    }
  }
  return proved;
}

/** Says what helps against a module that is not downloaded. */
function explainOffline(result: FoundPrograms["results"][number]): FoundPrograms["results"][number] {
  if (!(result instanceof KoError)) return result;
  if (result instanceof KoErrors) {
    return new KoErrors(result.errors.map((each) => explainOffline(each)).filter((each) => each instanceof KoError));
  }
  if (!/disabled by GOPROXY=off|toolchain not available/.test(result.message)) return result;
  return new KoError(result.message, {
    cause: result.cause,
    hint: "Download modules first, as ko check does not: go mod download",
  });
}

/** Finds names that no registry takes, and names that two programs would share. */
function checkNames(
  programs: readonly Program[],
  { findings, naming, places, repository }: CheckProgramsOptions,
): void {
  const base = repository || SOME_REPOSITORY;
  const paths = programs.map(({ importPath }) => importPath);
  const owners = new Map<string, string>();
  for (const path of paths) {
    const name = imageName(base, path, naming);
    const owner = owners.get(name);
    try {
      nameAll(base, owner === undefined ? [path] : [owner, path], naming);
    } catch (error) {
      findings.addError(error, { rule: "image-name", place: places.get(path) });
    }
    owners.set(name, owner ?? path);
  }
}

async function checkCgo(program: Program, options: CheckProgramsOptions): Promise<void> {
  const { findings, platform = DEFAULT_PLATFORM, places, setups } = options;
  let env: Readonly<Record<string, string>>;
  try {
    ({ env } = await setups.of(program, platform));
  } catch (error) {
    // A mistake in .ko.yaml, which is reported for itself.
    if (error instanceof KoError) return;
    throw error;
  }
  if (env["CGO_ENABLED"] !== "1") {
    for (const { file, line } of findLeftOut(program.dir)) {
      findings.add(`${file} needs cgo (import "C"): CGO_ENABLED=0 leaves it out of ${program.importPath}`, {
        rule: "cgo",
        severity: "warning",
        place: { file: findings.show(join(program.dir, file)), line, column: 1 },
        hint: cgoHint(formatPlatform(platform)),
      });
    }
    return;
  }
  const culprit = findCgo(program, options.listings);
  const compiler = culprit && findMissingCompiler(program, { ...options, env });
  if (culprit === undefined || compiler === undefined) return;
  const what = culprit === program.importPath ? "it" : `${culprit}, which it needs,`;
  findings.add(`Cannot build ${program.importPath}: ${what} uses cgo, and ${compiler}`, {
    rule: "cgo",
    place: places.get(program.importPath),
    hint: cgoHint(formatPlatform(platform)),
  });
}

/** The first package with cgo that go compiles for a program; undefined if there is none, or go was not asked. */
function findCgo(program: Program, listings: readonly Listing[]): string | undefined {
  for (const { packages, workDir } of listings) {
    if (workDir !== program.workDir) continue;
    const byPath = new Map(packages.map((each) => [each.importPath, each]));
    const seen = new Set<GoPackage>();
    const todo = [program.importPath];
    while (todo.length > 0) {
      const found = byPath.get(todo.pop() ?? "");
      if (found === undefined || seen.has(found)) continue;
      seen.add(found);
      if (found.cgoFiles.length > 0) return found.importPath;
      todo.push(...found.imports);
    }
  }
  return undefined;
}

interface CompilerOptions extends GoOptions {
  readonly env: Readonly<Record<string, string>>;
}

/** Says which C compiler is missing; undefined if one is there. */
function findMissingCompiler({ workDir }: Program, options: CompilerOptions): string | undefined {
  const { env, host } = options;
  const [own = ""] = splitQuoted(settingsOf({ ...options, cwd: workDir, env }).get("CC"));
  const isThere = (name: string): boolean =>
    /[/\\]/.test(name)
      ? look(name) !== undefined
      : Bun.which(name, { PATH: env["PATH"] ?? "", cwd: host.cwd }) !== null;
  if (own !== "") return isThere(own) ? undefined : `the C compiler "${own}" is not there`;
  return COMPILERS.some(isThere) ? undefined : "there is no C compiler on PATH";
}

/** Go files of a folder that are left out only because cgo is off, while no other file takes their place. */
function findLeftOut(dir: string): readonly { readonly file: string; readonly line: number }[] {
  const found: { readonly file: string; readonly line: number }[] = [];
  for (const file of readNames(dir)) {
    // A name such as x_windows.go is a build constraint.
    if (!file.endsWith(".go") || file.endsWith("_test.go") || /^[._]/.test(file)) continue;
    const text = readText(join(dir, file));
    if (/^\/\/(?:go:build|\s*\+build)\b.*!\s*cgo\b/m.test(text)) return [];
    const match = IMPORT_C.exec(text);
    const isConstrained = isTargetName(file.replace(/^.*_|\.go$/g, "")) || /^\/\/(?:go:build|\s*\+build)\b/m.test(text);
    if (match === null || isConstrained) continue;
    found.push({ file, line: text.slice(0, match.index + match[0].indexOf('"C"')).split("\n").length });
  }
  return found;
}

function checkKodata(program: Program, { findings, host, platform = DEFAULT_PLATFORM }: CheckProgramsOptions): void {
  const directory = join(program.dir, "kodata");
  const problems: KodataProblem[] = [];
  const warnings: string[] = [];
  const log: Log = { info: () => {}, debug: () => {}, warn: (message) => void warnings.push(message) };
  const allowedRoot = host.env["KO_DATA_PATH_ALLOWED_ROOT"] || undefined;
  try {
    const options = { directory, os: platform.os, mtime: 0, allowedRoot, log, problems };
    for (const _ of kodataEntries(options)) host.signal.throwIfAborted();
  } catch (error) {
    host.signal.throwIfAborted();
    findings.addError(error, { rule: "kodata", place: { file: findings.show(directory) } });
  }
  for (const { path, error } of problems) {
    const why = error.message.replace(/^Cannot [a-z ]+ "[^"]+": /, "");
    findings.add(why, { rule: "kodata", place: { file: findings.show(path) }, hint: error.hint });
  }
  for (const warning of warnings) {
    const path = /"([^"]+)"/.exec(warning)?.[1] ?? directory;
    const text = warning
      .replace(/^The (?:symlink|folder) "[^"]+" is/, "it is")
      .replace(/^Nothing of "[^"]+" is packed: /, "nothing of it is packed: ");
    findings.add(text, { rule: "kodata", severity: "warning", place: { file: findings.show(path) } });
  }
}
