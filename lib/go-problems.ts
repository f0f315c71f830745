/**
 * Explains why a package cannot become an image, with a command that helps.
 *
 * The facts are those of `go list -e`. Sources are read for one question only: whether files that build constraints
 * leave out import "C".
 */
import { readFile, stat } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { findNearest, KoError, ProgramError } from "./errors.ts";
import { isBelow } from "./file.ts";
import { type Argument, showPath } from "./go-arguments.ts";
import { privateHint } from "./go-hints.ts";
import { findModulesBelow, readModulePath, type Surroundings } from "./go-modules.ts";
import { findMains, type GoOptions, type GoPackage, type GoProblem, settingsOf } from "./go.ts";

export interface ExplainOptions {
  /** The argument as given. */
  readonly text: string;
  /** GOOS and GOARCH, such as `linux/amd64`. */
  readonly platform: string;
  /** The Go file in the package's folder that the argument names. */
  readonly file?: string | undefined;
  /** All packages of the same `go list`, by import path. */
  readonly packages: ReadonlyMap<string, GoPackage>;
  /** The value of GOPRIVATE. */
  readonly goprivate: string;
  /** The command that adds the argument's module to the workspace, if that is missing. */
  readonly remedy?: string | undefined;
  /** Finds the nearest program. */
  readonly suggest: () => Promise<string | undefined>;
  /** Finds the programs below the package's folder, as one types them. */
  readonly below: (importPath: string) => Promise<readonly string[]>;
}

/** Hints for an argument that names no program. They start `go list` once at most, and only if an argument is wrong. */
export interface Advice {
  readonly platform: string;
  readonly goprivate: string;
  readonly remedy: (argument: Argument) => string | undefined;
  readonly suggest: (argument: Argument) => Promise<string | undefined>;
  readonly below: (importPath: string, argument: Argument) => Promise<readonly string[]>;
}

export interface CreateAdviceOptions extends GoOptions {
  readonly env: Readonly<Record<string, string>>;
  /** The folders of other modules in which arguments were looked for. */
  readonly elsewhere: ReadonlyMap<Argument, string>;
}

/** The import by which a Go file uses cgo. */
export const IMPORT_C: RegExp = /^\s*(?:import\s+)?"C"\s*(?:;|\/[/*].*)?$/m;

/** The most problems of one program in a message. */
const MOST_PROBLEMS = 10;

/** Returns the error of a package that cannot be built, or undefined if it can. */
export async function explainPackage(found: GoPackage, options: ExplainOptions): Promise<KoError | undefined> {
  const { text } = options;
  if (found.problem !== undefined) {
    if (found.dir === "") return explainAbsent(found, options);
    if (found.problem.message.startsWith("no Go files in ")) {
      return noProgram(`the folder ${found.dir} has no Go files`, found, options);
    }
    if (found.problem.message.startsWith("build constraints exclude")) {
      return explainExcluded(found, { ...options, prefix: "" });
    }
  }
  if (found.name !== "" && found.name !== "main")
    return noProgram(`it is a library (package ${found.name})`, found, options);
  if (found.problem === undefined && found.goFiles.length + found.cgoFiles.length === 0) {
    return new ProgramError(`Cannot build "${text}": the folder ${found.dir} has only test files, wanted package main`);
  }
  if (found.problem !== undefined || found.dependencyProblems.length > 0) return explainFaults(found, options);
  const { file } = options;
  if (file !== undefined && !found.goFiles.includes(file) && !found.cgoFiles.includes(file)) {
    return new ProgramError(`Cannot build "${text}": ${file} takes no part in package main of ${found.dir}`, {
      hint: "Name a file that go compiles into the program: build constraints leave this one out, or it is a test.",
    });
  }
  return undefined;
}

/** The Go files with `import "C"` among those that build constraints leave out. */
export async function findCgoFiles(found: GoPackage): Promise<readonly string[]> {
  const result: string[] = [];
  for (const name of found.ignoredGoFiles) {
    const text = await readFile(join(found.dir, name), "utf8").catch(() => "");
    if (IMPORT_C.test(text)) result.push(name);
  }
  return result;
}

/** The hint about cgo, for errors of `go list` and of the compiler. */
export function cgoHint(platform: string): string {
  return `Set CGO_ENABLED=1 and CC to a C compiler for ${platform}, and use a base image with its C library.`;
}

/** Splits a message of `go` into the reason and the command that it offers. */
export function splitRemedy(message: string): { readonly why: string; readonly remedy: string | undefined } {
  // --offline sets it, or the user: the module is needed once.
  if (message.endsWith("disabled by GOPROXY=off")) {
    return { why: message, remedy: "go mod download, while there is a network" };
  }
  const parts = /^([^]*?);? to add(?: it| missing requirements)?:\n\t([^\n]+)$/.exec(message);
  return parts?.[1] === undefined ? { why: message, remedy: undefined } : { why: parts[1], remedy: parts[2] };
}

/** @param here the surroundings of the host's working directory */
export function createAdvice(here: Surroundings, options: CreateAdviceOptions): Advice {
  const { host } = options;
  const root = here.moduleDir ?? host.cwd;
  let asked: ReturnType<typeof findMains> | undefined;
  // A hint is optional: without the list the error is shown without one.
  const mains = (): ReturnType<typeof findMains> =>
    (asked ??= findMains("./...", { ...options, cwd: root }).catch(() => []));
  const show = (main: { importPath: string; dir: string }, argument: Argument): string =>
    argument.dir === undefined ? main.importPath : showPath(main.dir, host.cwd);
  return {
    platform: `${options.env["GOOS"]}/${options.env["GOARCH"]}`,
    get goprivate() {
      return settingsOf({ ...options, cwd: host.cwd }).get("GOPRIVATE");
    },
    remedy: (argument) => {
      const owner = options.elsewhere.get(argument);
      return here.workspace !== undefined && owner !== undefined
        ? `go work use ${showPath(owner, host.cwd)}`
        : undefined;
    },
    suggest: async (argument) => {
      if (argument.kind === "pattern") {
        if (here.moduleDir !== undefined || argument.dir === undefined) return undefined;
        const [module] = await findModulesBelow(argument.dir, undefined);
        return module && `${showPath(module.dir, host.cwd)}/...`;
      }
      if (argument.dir === undefined) {
        // The user typed `cmd/app` and meant `./cmd/app`.
        const folder = join(host.cwd, argument.rest);
        if ((await stat(folder).catch(() => undefined))?.isDirectory()) return showPath(folder, host.cwd);
      }
      const module = readModulePath(root) ?? "";
      // Without the module's path, whose length would bring all names within the edit distance.
      const shorten = (name: string): string => (name.startsWith(`${module}/`) ? name.slice(module.length + 1) : name);
      const word = argument.dir === undefined ? shorten(argument.rest) : relative(root, argument.dir);
      const near = new Map<string, string>();
      for (const main of await mains()) {
        near.set(
          argument.dir === undefined ? shorten(main.importPath) : relative(root, main.dir),
          show(main, argument),
        );
      }
      const same = [...near.keys()].filter((name) => basename(name) === basename(word));
      return near.get(findNearest(word, near.keys()) ?? (same.length === 1 ? same[0] : undefined) ?? "");
    },
    below: async (importPath, argument) => {
      const path = argument.dir;
      const inside = (main: { importPath: string; dir: string }): boolean =>
        path === undefined ? main.importPath.startsWith(`${importPath}/`) : isBelow(main.dir, path);
      return (await mains())
        .filter(inside)
        .slice(0, 5)
        .map((main) => show(main, argument));
    },
  };
}

async function noProgram(what: string, found: GoPackage, options: ExplainOptions): Promise<KoError> {
  const below = await options.below(found.importPath);
  const meant = below.length > 0 ? undefined : await options.suggest();
  const hint = below.length > 0 ? `Programs below it: ${below.join(" ")}` : meant && `Did you mean "${meant}"?`;
  return new ProgramError(`Cannot build "${options.text}": ${what}, wanted package main`, { hint });
}

/** The error of a package that `go list` did not find. */
async function explainAbsent(found: GoPackage, options: ExplainOptions): Promise<KoError> {
  const message = found.problem?.message ?? "";
  const missing = /^(?:pattern \S+: )?l?stat (.*): (?:directory not found|no such file or directory)$/.exec(message);
  const { why, remedy } = splitRemedy(message);
  if (options.remedy !== undefined && / does not contain package |workspace modules/.test(message)) {
    return new ProgramError(`Cannot build "${options.text}": ${why}`, { hint: `Run: ${options.remedy}` });
  }
  const hidden = privateHint(message, { ...options, importPath: found.importPath });
  if (hidden !== undefined) {
    return new ProgramError(`Cannot build "${options.text}": ${why}`, { hint: hidden, kind: "command" });
  }
  const meant = await options.suggest();
  const what = missing?.[1] === undefined ? why : `there is no folder ${missing[1].replace(/[/\\]$/, "")}`;
  return new ProgramError(`Cannot build "${options.text}": ${what}`, {
    hint: meant === undefined ? remedy && `Run: ${remedy}` : `Did you mean "${meant}"?`,
  });
}

async function explainExcluded(
  found: GoPackage,
  { text, platform, prefix }: ExplainOptions & { readonly prefix: string },
): Promise<KoError> {
  const cgo = await findCgoFiles(found);
  if (cgo.length > 0) {
    const needs = `${prefix}${cgo.join(", ")} needs cgo (import "C"), and CGO_ENABLED=0`;
    return new ProgramError(`Cannot build "${text}" for ${platform}: ${needs}`, {
      hint: cgoHint(platform),
      kind: "cgo",
    });
  }
  const files = found.ignoredGoFiles.join(", ");
  return new ProgramError(
    `Cannot build "${text}" for ${platform}: ${prefix}build constraints exclude all its Go files (${files})`,
    { hint: "Choose another --platform, or set build tags: flags: [-tags=NAME] in .ko.yaml" },
  );
}

/** The error of a package with faults in its own files or in those it imports, in the words of `go`. */
async function explainFaults(found: GoPackage, options: ExplainOptions): Promise<KoError> {
  const problems = [...(found.problem === undefined ? [] : [found.problem]), ...found.dependencyProblems];
  for (const { message, importStack } of problems) {
    const culprit = options.packages.get(importStack.at(-1) ?? "");
    if (!message.startsWith("build constraints exclude") || culprit === undefined) continue;
    return explainExcluded(culprit, { ...options, prefix: `${culprit.importPath}, which it imports: ` });
  }
  for (const problem of problems) {
    const { message } = problem;
    const importPath = options.packages.values().find((each) => each.problem?.message === message)?.importPath;
    const hint = privateHint(message, { ...options, importPath });
    if (hint === undefined) continue;
    const { why } = describeFault(problem, found);
    return new ProgramError(`Cannot build "${options.text}": ${why}`, { hint, kind: "command" });
  }
  const remedies = new Set<string>();
  const lines = new Set<string>();
  for (const problem of problems) {
    const { why, remedy } = describeFault(problem, found);
    lines.add(why);
    if (remedy !== undefined) remedies.add(remedy);
  }
  const shown = [...lines].slice(0, MOST_PROBLEMS);
  if (lines.size > shown.length) shown.push(`and ${lines.size - shown.length} more`);
  const [only, more] = remedies;
  return new ProgramError(
    `Cannot build "${options.text}": ${shown.length === 1 ? shown.join("") : `\n  ${shown.join("\n  ")}`}`,
    { kind: "compile", hint: only === undefined ? undefined : `Run: ${more === undefined ? only : "go mod tidy"}` },
  );
}

function describeFault(
  { message, position, importStack }: GoProblem,
  found: GoPackage,
): { readonly why: string; readonly remedy: string | undefined } {
  const place = position === "" ? "" : `${position}: `;
  if (message.startsWith("import cycle")) {
    return { why: `${place}${message}: ${importStack.join(" imports ")}`, remedy: undefined };
  }
  const { why, remedy } = splitRemedy(message);
  const absent = /^no required module provides package (\S+?)[;:]?$/.exec(why)?.[1];
  const module = found.module?.path;
  if (absent !== undefined && module !== undefined && absent.startsWith(`${module}/`)) {
    // The offered `go get` cannot help with a package of the main module.
    return { why: `${place}module ${module} has no package ${absent}`, remedy: undefined };
  }
  if (why.includes("-mod=vendor")) return { why: `${place}${why}`, remedy: "go mod vendor" };
  return { why: `${place}${why}`, remedy };
}
