/**
 * `go list`: what the Go tool knows of packages, as plain data.
 *
 * One process tells of all named packages and all they depend on, with the fields that decide what is built, from which
 * files. Judging them is `programs.ts`'s job. Fields: `go help list`.
 */
import { CommandError, KoError } from "./errors.ts";
import type { RunGoOptions } from "./go.ts";
import { goMessages, runGo } from "./go.ts";
import { isObject } from "./gojson.ts";

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
