/**
 * A failure as events: one for each error of the compiler and for each `Error:` line, with its place in a file.
 */
import { isAbsolute, relative, resolve } from "node:path";
import { CommandError, describeError, KoError, KoErrors, RegistryError, UsageError } from "./errors.ts";
import type { ErrorCode, ErrorEvent } from "./events.ts";
import { isInside } from "./file.ts";
import { Interrupted } from "./host.ts";

/** A place in a file, as compilers and ko write it: `cmd/web/main.go:3:15`. */
export interface Place {
  /** Relative to the working directory if it is below it. */
  readonly file: string;
  readonly line: number;
  readonly column?: number;
}

/** The beginning of a line, such as `./main.go:3:15: undefined: x` of the compiler. */
const COMPILER_LINE = /^\s*(?:vet: )?((?:[A-Za-z]:[\\/])?[^\s:][^:]*\.\w+):(\d+)(?::(\d+))?: (.+)$/;
/** Anywhere in a message of ko: `config/web.yaml:12:16`. Other endings may be those of hosts, with a port. */
const PLACE = /(?:^|[\s"(])((?:[A-Za-z]:[\\/])?[^\s:"()]+\.(?:ya?ml|json|go|mod|work)):(\d+)(?::(\d+))?(?=$|[\s:,)"])/;

/**
 * Returns the events of a failure: those of the compiler first, which are the cause.
 *
 * @param cwd absolute: places below it are relative to it
 */
export function errorEvents(error: unknown, cwd: string): readonly ErrorEvent[] {
  if (error instanceof KoErrors) return error.errors.flatMap((each) => errorEvents(each, cwd));
  const [first = "", ...rest] = describeError(error).split("\n");
  const message = first.replace(/^Error: /, "");
  const code = codeOf(error);
  const compiled = code === "command" ? rest.flatMap((line) => readCompilerLine(line, cwd)) : [];
  const hints = rest.filter((line) => line.startsWith("  ")).map((line) => line.trim());
  // The lines of a bug are its stack, those of a compiler belong to the places.
  const hint = code === "internal" || compiled.length > 0 ? "" : hints.join("\n");
  return [...compiled, { type: "error", code, message, ...(hint === "" ? {} : { hint }), ...findPlace(message, cwd) }];
}

function codeOf(error: unknown): ErrorCode {
  if (error instanceof Interrupted) return "interrupted";
  if (error instanceof UsageError) return "usage";
  if (error instanceof CommandError) return "command";
  if (error instanceof RegistryError) return "registry";
  // A build that failed is reported with the failure of go as its cause.
  if (error instanceof KoError) return error.cause instanceof CommandError ? "command" : "failure";
  return "internal";
}

function readCompilerLine(line: string, cwd: string): readonly ErrorEvent[] {
  const [, file, number, column, message] = COMPILER_LINE.exec(line) ?? [];
  if (file === undefined || number === undefined || message === undefined) return [];
  return [{ type: "error", code: "compile", message, ...toPlace({ file, number, column, cwd }) }];
}

/** Finds the first place in a file that a message names. */
export function findPlace(message: string, cwd: string): Partial<Place> {
  const [, file, number, column] = PLACE.exec(message) ?? [];
  return file === undefined || number === undefined ? {} : toPlace({ file, number, column, cwd });
}

interface PlaceText {
  readonly file: string;
  readonly number: string;
  readonly column: string | undefined;
  readonly cwd: string;
}

function toPlace({ column, cwd, file, number }: PlaceText): Place {
  const path = resolve(cwd, file);
  const near = isAbsolute(file) && !isInside(path, cwd) ? file : relative(cwd, path);
  return { file: near, line: Number(number), ...(column === undefined ? {} : { column: Number(column) }) };
}
