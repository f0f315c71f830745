/**
 * A failure as events: one for each error of the compiler and for each `Error:` line, with its place in a file.
 */
import { isAbsolute, relative, resolve } from "node:path";
import { CommandError, type ErrorKind, explainError, KoError, KoErrors, printable } from "./errors.ts";
import type { ErrorEvent, EventPlace } from "./events.ts";
import { isInside } from "./file.ts";

/** The beginning of a line, such as `./main.go:3:15: undefined: x` of the compiler. */
const COMPILER_LINE = /^\s*(?:vet: )?((?:[A-Za-z]:[\\/])?[^\s:][^:]*\.\w+):(\d+)(?::(\d+))?: (.+)$/;
/** Anywhere in a message of ko: `config/web.yaml:12:16`. Other endings may be those of hosts, with a port. */
const PLACE = /(?:^|[\s"(])((?:[A-Za-z]:[\\/])?[^\s:"()]+\.(?:ya?ml|json|go|mod|work)):(\d+)(?::(\d+))?(?=$|[\s:,)"])/;
const MAX_CHARS = 64 * 1024;

/**
 * Returns the events of a failure: those of the compiler first, which are the cause.
 *
 * @param cwd absolute: places below it are relative to it
 */
export function errorEvents(error: unknown, cwd: string): readonly ErrorEvent[] {
  if (error instanceof KoErrors) return error.errors.flatMap((each) => errorEvents(each, cwd));
  const { hints, message: text } = explainError(error, cwd);
  const [message = "", ...rest] = printable(text, MAX_CHARS).split("\n");
  const code: ErrorKind = error instanceof KoError ? error.kind : "internal";
  const isOfGo = code === "compile" || hasCommandError(error);
  const compiled = isOfGo ? rest.flatMap((line) => readCompilerLine(line, cwd)) : [];
  const hint = printable(hints.join("\n"), MAX_CHARS);
  const details = rest.join("\n");
  const last: ErrorEvent = {
    type: "error",
    code,
    message,
    ...(details === "" ? {} : { details }),
    ...(hint === "" ? {} : { hint }),
    ...findPlace(message, cwd),
  };
  return [...compiled, last];
}

/** Returns the first place that a message names; nothing if it names none. */
export function findPlace(message: string, cwd: string): EventPlace {
  const [, file, number, column] = PLACE.exec(message) ?? [];
  return file === undefined || number === undefined ? {} : toPlace({ file, number, column, cwd });
}

/** Whether the output of a program is in the message: a build that failed has the failure of go as its cause. */
function hasCommandError(error: unknown): boolean {
  if (error instanceof CommandError) return true;
  return error instanceof KoError && hasCommandError(error.cause);
}

function readCompilerLine(line: string, cwd: string): readonly ErrorEvent[] {
  const [, file, number, column, message] = COMPILER_LINE.exec(line) ?? [];
  if (file === undefined || number === undefined || message === undefined) return [];
  return [{ type: "error", code: "compile", message, ...toPlace({ file, number, column, cwd }) }];
}

interface PlaceText {
  readonly file: string;
  readonly number: string;
  readonly column: string | undefined;
  readonly cwd: string;
}

function toPlace({ column, cwd, file, number }: PlaceText): EventPlace {
  const path = resolve(cwd, file);
  const near = isAbsolute(file) && !isInside(path, cwd) ? file : relative(cwd, path);
  return { file: near, line: Number(number), ...(column === undefined ? {} : { column: Number(column) }) };
}
