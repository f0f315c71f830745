/**
 * The last lines of a program that ended, and the places of a Go panic in them.
 *
 * Programs are compiled with `-trimpath`, so a frame names the import path and the file: `example.com/app/web/page.go:41`.
 * https://pkg.go.dev/cmd/go#hdr-Compile_packages_and_dependencies
 */
import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { printable } from "./errors.ts";
import { isInside } from "./file.ts";
import { findModuleDir, readModulePath } from "./go-modules.ts";

/** The module of the working directory. */
export interface MainModule {
  /** `example.com/app` */
  readonly path: string;
  /** Absolute. */
  readonly dir: string;
}

/** A line of a Go file of the checkout. */
export interface SourceLine {
  /** Relative to the working directory. */
  readonly file: string;
  readonly line: number;
}

const SHOWN_LINES = 20;
const MAX_COLUMNS = 500;
/** The first line of a panic, or of an error of the Go runtime. */
const PANIC = /^(?:panic: |fatal error: ).*$/m;
/** A line of a stack: a tab, the file, the line, and mostly the offset in the function. */
const FRAME = /^\t(\S.*\.go):(\d+)(?: \+0x[\da-f]+)?$/gm;

/** The last lines of a log, each safe to print. */
export function lastLines(log: string): readonly string[] {
  const lines = log.replace(/\n$/, "").split("\n").slice(-SHOWN_LINES);
  return lines.map((line) => printable(line.replaceAll("\t", "    "), MAX_COLUMNS)).filter((line) => line !== "");
}

/** The module whose go.mod is nearest above a folder; undefined if there is none. */
export function findMainModule(cwd: string): MainModule | undefined {
  const dir = findModuleDir(cwd);
  const path = dir === undefined ? undefined : readModulePath(dir);
  return dir === undefined || path === undefined ? undefined : { path, dir };
}

/** A panic in the end of a program's output. */
export interface Panic {
  /** The first line: `panic: runtime error: index out of range [1] with length 0` */
  readonly text: string;
  /** The places of it in the checkout, innermost first. */
  readonly places: readonly SourceLine[];
}

/** Finds a panic, or an error of the Go runtime, in the end of a program's output. */
export function findPanic(
  log: string,
  { cwd, module }: { readonly cwd: string; readonly module: MainModule | undefined },
): Panic | undefined {
  const first = PANIC.exec(log);
  if (first === null) return undefined;
  const found = new Map<string, SourceLine>();
  for (const [, path = "", line = "0"] of log.slice(first.index).matchAll(FRAME)) {
    if (module === undefined || !path.startsWith(`${module.path}/`)) continue;
    const file = join(module.dir, path.slice(module.path.length + 1));
    // A path such as `example.com/app/../../x.go` is of no compiler.
    if (!isInside(file, module.dir) || !existsSync(file)) continue;
    found.set(`${file}:${line}`, { file: relative(cwd, file), line: Number(line) });
  }
  return { text: printable(first[0], MAX_COLUMNS), places: [...found.values()] };
}
