/**
 * Arguments that name programs: import paths, folders, Go files and patterns, each with or without `ko://`.
 */
import { basename, dirname, isAbsolute, posix, relative, resolve, sep } from "node:path";
import { type KoError, UsageError } from "./errors.ts";
import { isInside, look } from "./file.ts";

/** An argument such as `./cmd/app`, `ko://example.com/app` or `./...`, taken apart. */
export interface ParsedArgument {
  /** "pattern": it may name any number of packages. */
  readonly kind: "path" | "import" | "pattern";
  /** Absolute: the folder that a path names, or that a pattern of paths begins with. Undefined for import paths. */
  readonly dir: string | undefined;
  /** The import path, or the part of a pattern that follows `dir`, such as `/...`. */
  readonly rest: string;
}

/** An argument, looked up in the file system. */
export interface Argument extends ParsedArgument {
  /** As given. */
  readonly text: string;
  /** The name of the Go file, if the argument is one. */
  readonly file: string | undefined;
}

/** Package patterns that are reserved words (`go help packages`). */
export const PATTERN_WORDS: ReadonlySet<string> = new Set(["all", "std", "cmd", "tool", "work"]);

/** Parses an argument, without a look at the file system. */
export function parseArgument(text: string, cwd: string): ParsedArgument {
  const name = withoutScheme(text);
  if (!/^\.{0,2}(\/|$)/.test(name) && !isAbsolute(name)) {
    const rest = posix.normalize(name).replace(/\/$/, "");
    const isPattern = rest.includes("...") || PATTERN_WORDS.has(rest);
    return { kind: isPattern ? "pattern" : "import", dir: undefined, rest };
  }
  const parts = name.split("/");
  const at = parts.findIndex((part) => part.includes("..."));
  if (at < 0) return { kind: "path", dir: resolve(cwd, name), rest: "" };
  const dir = resolve(cwd, parts.slice(0, at).join("/") || "/");
  return { kind: "pattern", dir, rest: `/${parts.slice(at).filter(Boolean).join("/")}` };
}

/** Parses an argument; a Go file that exists stands for its package. */
export function readArgument(text: string, cwd: string): Argument | KoError {
  const name = withoutScheme(text);
  if (name === "") return new UsageError(`Cannot build "${text}": it is empty, wanted an import path or a folder`);
  if (name.startsWith("-")) return new UsageError(`Cannot build "${text}": no import path begins with a dash`);
  const path = resolve(cwd, name);
  if (name.endsWith(".go") && look(path)?.isFile() === true) {
    return { text, kind: "path", dir: dirname(path), rest: "", file: basename(path) };
  }
  return { text, ...parseArgument(text, cwd), file: undefined };
}

function withoutScheme(text: string): string {
  const name = text.replace(/^ko:\/\//, "");
  return sep === "/" ? name : name.replaceAll("\\", "/");
}

/** The argument as a package pattern for `go` in `workDir`. */
export function patternFor({ dir, rest }: Pick<ParsedArgument, "dir" | "rest">, workDir: string): string {
  return dir === undefined ? rest : showPath(dir, workDir) + rest;
}

/** Reports whether a pattern that begins with a folder matches a folder, as far as names tell. */
export function matchesFolder({ dir, rest }: ParsedArgument, folder: string): boolean {
  if (dir === undefined || !isInside(folder, dir)) return false;
  const below = relative(dir, folder).replaceAll("\\", "/");
  // Wildcards skip these folders (`go help packages`).
  if (below.split("/").some((name) => /^(?:[._].*|testdata|vendor)$/.test(name))) return false;
  return matchesImportPath(rest, below === "" ? "" : `/${below}`);
}

/** Reports whether a pattern such as `example.com/...` matches an import path. */
export function matchesImportPath(pattern: string, importPath: string): boolean {
  if (PATTERN_WORDS.has(pattern)) return pattern === "all" || pattern === "work";
  const source = pattern.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll("\\.\\.\\.", ".*");
  // As for go, `net/...` matches `net` too.
  return new RegExp(`^${source.replace(/\/\.\*$/, "(?:/.*)?")}$`, "s").test(importPath);
}

/** The path to a folder as one types it: `.`, `./cmd/app`, `../lib`. */
export function showPath(dir: string, from: string): string {
  const path = relative(from, dir).replaceAll("\\", "/");
  if (path === "" || isAbsolute(path)) return path || ".";
  return /^\.\.(\/|$)/.test(path) ? path : `./${path}`;
}
