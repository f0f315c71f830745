/**
 * Errors that the user, the network or another program caused, and their text for a terminal.
 *
 * A bug of ko is a built-in error instead: its stack is printed.
 */

import { plainStyle, type Style } from "./log-style.ts";

/**
 * The kind of a failure, for scripts:
 *
 * - `usage`: the command line, a variable or the configuration is not valid
 * - `yaml`: YAML or a label selector in it cannot be read
 * - `reference`: an argument or a `ko://` reference names no program
 * - `compile`: an error of the compiler, with its place
 * - `cgo`: a program needs cgo, which is off
 * - `command`: another failure of a program that ko started
 * - `base`: a base image does not fit
 * - `auth`: a registry refused the credential, or wants one
 * - `not-found`: a registry does not have an image, a base or a repository
 * - `network`: a host did not answer, or its certificate is not trusted
 * - `registry`: a registry failed in another way
 * - `daemon`: Docker or podman
 * - `cluster`: kind, k3d, minikube, or kubectl
 * - `interrupted`: a signal ended ko
 * - `failure`: anything else that the user or the outside caused
 * - `internal`: a bug of ko
 */
export type ErrorKind =
  | "usage"
  | "yaml"
  | "reference"
  | "compile"
  | "cgo"
  | "command"
  | "base"
  | "auth"
  | "not-found"
  | "network"
  | "registry"
  | "daemon"
  | "cluster"
  | "interrupted"
  | "failure"
  | "internal";

export interface KoErrorOptions {
  /** @default that of the cause, if it is a KoError, else `failure` */
  readonly kind?: ErrorKind | undefined;
  /** The next thing to do or to type. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
  /** @default {1} 2 for wrong usage */
  readonly exitCode?: number | undefined;
  /** See {@link KoError.transient}. @default that of the cause */
  readonly transient?: boolean | undefined;
}

/** A failure that the user, the network or another program caused. It is printed without a stack. */
export class KoError extends Error {
  override readonly name: string = "KoError";
  readonly hint: string | undefined;
  readonly exitCode: number;
  readonly kind: ErrorKind;
  /**
   * Whether the same work may succeed later although no file of the user changes: true if a registry, a daemon, a cluster,
   * a web server or the disk failed. `--watch` retries only then.
   */
  readonly transient: boolean;

  constructor(message: string, options: KoErrorOptions = {}) {
    super(message, { cause: options.cause });
    this.hint = options.hint;
    this.exitCode = options.exitCode ?? 1;
    this.kind = options.kind ?? (options.cause instanceof KoError ? options.cause.kind : "failure");
    this.transient = options.transient ?? (options.cause instanceof KoError && options.cause.transient);
  }
}

/** A command line or a configuration that is not valid. The exit code is 2. */
export class UsageError extends KoError {
  override readonly name: string = "UsageError";

  constructor(message: string, options: Omit<KoErrorOptions, "exitCode"> = {}) {
    super(message, { ...options, kind: options.kind ?? "usage", exitCode: 2 });
  }
}

/** The failure of a base image: it lacks a platform, cannot be read, or its content is not valid. */
export class BaseError extends KoError {
  constructor(message: string, options: KoErrorOptions = {}) {
    super(message, { kind: "base", ...options });
  }
}

/** A failure of Docker or podman, or no way to reach one. */
export class DaemonError extends KoError {
  constructor(message: string, options: KoErrorOptions = {}) {
    super(message, { kind: "daemon", ...options });
  }
}

/** A failure of kind, k3d, minikube or kubectl. */
export class ClusterError extends KoError {
  constructor(message: string, options: KoErrorOptions = {}) {
    super(message, { kind: "cluster", ...options });
  }
}

/** YAML that cannot be read. */
export class YamlError extends KoError {
  constructor(message: string, options: KoErrorOptions = {}) {
    super(message, { kind: "yaml", ...options });
  }
}

/** An argument or a reference that names no program. */
export class ProgramError extends KoError {
  constructor(message: string, options: KoErrorOptions = {}) {
    super(message, { kind: "reference", ...options });
  }
}

/** Several failures of one step, such as two bad import paths. Each is printed on a line of its own. Transient if one is. */
export class KoErrors extends KoError {
  override readonly name: string = "KoErrors";
  readonly errors: readonly KoError[];

  constructor(errors: readonly KoError[]) {
    super(errors.map((error) => error.message).join("\n"), {
      exitCode: Math.max(1, ...errors.map((error) => error.exitCode)),
      transient: errors.some((error) => error.transient),
    });
    this.errors = errors;
  }
}

export interface CommandErrorOptions extends KoErrorOptions {
  readonly argv: readonly string[];
  /** The exit code; undefined if a signal ended the process. */
  readonly code: number | undefined;
  readonly signal?: string | undefined;
  /** The end of the program's stderr. */
  readonly stderr: string;
}

/** The failure of a program that ko started: `go`, `kubectl`, `git`, a credential helper. */
export class CommandError extends KoError {
  override readonly name: string = "CommandError";
  readonly argv: readonly string[];
  readonly code: number | undefined;
  readonly signal: string | undefined;
  readonly stderr: string;

  constructor(message: string, options: CommandErrorOptions) {
    super(message, { ...options, kind: options.kind ?? "command" });
    this.argv = options.argv;
    this.code = options.code;
    this.signal = options.signal;
    this.stderr = options.stderr;
  }
}

export interface RegistryErrorOptions extends KoErrorOptions {
  readonly method: string;
  /** Without secrets: redacted by url.ts. */
  readonly url: string;
  /** The HTTP status; undefined without a response. */
  readonly status?: number | undefined;
  /** The registry's own error codes, such as `MANIFEST_UNKNOWN`. */
  readonly codes?: readonly string[] | undefined;
  /** How often a retry within the same run may help; "soon": for some seconds. @default "never" */
  readonly retry?: "never" | "once" | "often" | "soon" | undefined;
  /** Milliseconds to wait before the retry, as the server asks. */
  readonly retryAfter?: number | undefined;
}

/** The failure of a request to a registry, or of the connection to it. Transient: `ko login` may end a refusal. */
export class RegistryError extends KoError {
  override readonly name: string = "RegistryError";
  readonly method: string;
  readonly url: string;
  readonly status: number | undefined;
  readonly codes: readonly string[];
  readonly retry: "never" | "once" | "often" | "soon";
  readonly retryAfter: number | undefined;

  constructor(message: string, options: RegistryErrorOptions) {
    super(message, {
      ...options,
      kind: options.kind ?? kindOfStatus(options.status),
      transient: options.transient ?? true,
    });
    this.method = options.method;
    this.url = options.url;
    this.status = options.status;
    this.codes = options.codes ?? [];
    this.retry = options.retry ?? "never";
    this.retryAfter = options.retryAfter;
  }

  /** The same failure, of another task than the one that its message names. */
  withAction(action: string, other: string): RegistryError {
    const { cause, codes, exitCode, hint, kind, message, method, retry, retryAfter, status, url } = this;
    const words = message.replace(action, () => other);
    return new RegistryError(words, { cause, codes, exitCode, hint, kind, method, retry, retryAfter, status, url });
  }
}

function kindOfStatus(status: number | undefined): ErrorKind {
  switch (status) {
    case undefined:
      return "network";
    case 401:
    case 403:
      return "auth";
    case 404:
      return "not-found";
    default:
      return "registry";
  }
}

/** Characters that are not shown, or change the order of others. Joiners are not here: emoji and scripts need them. */
const HIDING = /[\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
/** The same, and blanks that look like a space or like nothing. */
const INVISIBLE = /[\u00a0\u00ad\u0085\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ufeff]/g;

/**
 * Makes text from outside, such as a response or the output of a tool, safe for a terminal.
 *
 * Control characters become `\xNN`, except tabs and line ends; characters that hide or turn text become `U+NNNN`. Text
 * over `maxChars` is cut.
 */
export function printable(text: string, maxChars = 4096): string {
  const cut = text.length > maxChars ? `${text.slice(0, maxChars)}…` : text;
  return cut
    .replaceAll("\r\n", "\n")
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (c) => {
      return `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`;
    })
    .replace(HIDING, nameCharacter);
}

/** Shows the characters of a value that cannot be seen, such as a no-break space, as `U+00A0`. */
export function showInvisible(text: string): string {
  return text.replace(INVISIBLE, nameCharacter);
}

function nameCharacter(character: string): string {
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Returns the message of a thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Returns the code of a failed system call, such as `ENOENT`; undefined if the error has none. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/** Reports whether a system call failed because its path does not exist. */
export function isMissing(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

export interface DescribeOptions {
  /** Absolute: paths below it are shown relative to it. @default paths are shown as they are */
  readonly cwd?: string;
  /** @default no colours */
  readonly style?: Pick<Style, "error" | "hint">;
}

/** Of a message; the limit for all hints together is the same. */
const MAX_CHARS = 64 * 1024;

/**
 * Formats a failure for the terminal: `Error: `, the messages of the error and its causes, then a line for each hint.
 *
 * A message that an outer message contains is left out, and so is a repeated hint.
 */
export function describeError(error: unknown, options: DescribeOptions = {}): string {
  if (error instanceof KoErrors) return error.errors.map((each) => describeError(each, options)).join("\n");
  const { cwd, style = plainStyle } = options;
  const { hints, message } = explainError(error, cwd);
  const shown = `${style.error("Error:")} ${printable(message, MAX_CHARS)}`;
  const advice = printable(hints.map((hint) => `  ${hint.replaceAll("\n", "\n  ")}`).join("\n"), MAX_CHARS);
  return advice === "" ? shown : `${shown}\n${style.hint(advice)}`;
}

/**
 * Joins the messages of an error and its causes, each once, and collects their hints. They are not printable yet.
 *
 * @param cwd absolute: paths below it are shown relative to it
 */
export function explainError(
  error: unknown,
  cwd?: string,
): { readonly message: string; readonly hints: readonly string[] } {
  if (!(error instanceof KoError)) {
    return { message: error instanceof Error ? `internal: ${error.stack ?? error.message}` : String(error), hints: [] };
  }
  const messages: string[] = [];
  const hints: string[] = [];
  const seen = new Set<unknown>();
  for (let at: unknown = error; at instanceof Error && !seen.has(at); at = at.cause) {
    seen.add(at);
    const { message } = at;
    if (!messages.some((outer) => outer.includes(message))) messages.push(message);
    if (at instanceof KoError && at.hint !== undefined && !hints.includes(at.hint)) hints.push(at.hint);
  }
  const message = messages.join(": ");
  return { message: cwd === undefined ? message : nameFrom(cwd, message), hints };
}

/** Shortens the paths of a text that lie below a folder. Values of variables stay: `KO_CONFIG_PATH="/work/app/x"`. */
function nameFrom(folder: string, text: string): string {
  if (!/[^/]$/.test(folder)) return text;
  return text.replaceAll(new RegExp(`(?<=^|[\\s(]|(?<!=)")${RegExp.escape(folder)}/(?=[^\\s"])`, "gm"), "");
}

/** Throws all errors, if there are any: as one error if there are several. */
export function throwAll(errors: readonly KoError[]): void {
  const [only, another] = errors;
  if (another !== undefined) throw new KoErrors(errors);
  if (only !== undefined) throw only;
}

/**
 * Returns the values of works that have ended.
 *
 * @throws {KoError | KoErrors} With the failures of all works; a broken invariant among them is thrown alone.
 */
export function settledValues<T>(ends: readonly PromiseSettledResult<T>[]): readonly T[] {
  const failures: KoError[] = [];
  const values: T[] = [];
  for (const end of ends) {
    if (end.status === "fulfilled") values.push(end.value);
    else if (end.reason instanceof KoError) failures.push(end.reason);
    else throw end.reason;
  }
  throwAll(failures);
  return values;
}

/** Returns the exit code for a failure. */
export function exitCodeOf(error: unknown): number {
  return error instanceof KoError ? error.exitCode : 1;
}

/** Finds the candidate nearest to `word` by edit distance, ignoring case; undefined if none is near enough for a typo. */
export function findNearest(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase(), bestDistance);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** The optimal string alignment distance of two texts, or `limit` if that is smaller. */
export function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (before[j - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    [before, previous] = [previous, current];
  }
  return Math.min(limit, previous[b.length] ?? limit);
}
