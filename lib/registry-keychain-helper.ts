/**
 * Runs Docker's credential helpers: programs that keep the logins of registries.
 *
 * The output of a credential helper is never shown: its stdout holds secrets, and its stderr may.
 * Rules: docs/rules.md B2. https://github.com/docker/docker-credential-helpers
 */
import { isAbsolute } from "node:path";
import { systemClock } from "./async.ts";
import { CommandError, KoError } from "./errors.ts";
import type { Host, RunResult } from "./host.ts";
import { isObject, parseJson } from "./json.ts";
import type { Log } from "./log.ts";

/** The account that a helper knows. The username `<token>` marks the secret as an OAuth2 refresh token. */
export interface HelperAnswer {
  readonly username: string;
  readonly secret: string;
}

export interface HelperOptions {
  /** The part of the program's name after `docker-credential-`. */
  readonly suffix: string;
  /** The key of the login: a host, or Docker Hub's old URL. */
  readonly server: string;
  /** The setting that names the helper, for messages. */
  readonly source: string;
  /** Milliseconds. @default 60,000 */
  readonly timeout?: number | undefined;
}

/** The outside of a helper. */
export interface HelperContext {
  readonly host: Host;
  readonly log: Log;
  /** The suffixes of helpers that have hung in this run: they are not run again. */
  readonly hung?: Set<string>;
}

/** For all calls of one helper in a run together. It may ask the user for a password. */
const TIMEOUT_MS = 60_000;
const HELPER_NAME = /^[A-Za-z0-9._-]+$/;
const NOT_FOUND = "credentials not found in native keychain";
const PROTOCOL_ERRORS: readonly string[] = ["no credentials server URL", "no credentials username"];
const MAX_ANSWER_BYTES = 64 * 1024;

/**
 * Runs `docker-credential-<suffix> get` once, with the server on stdin.
 *
 * @returns undefined if the helper has no credentials for the server
 * @throws {KoError} If the helper is missing, fails, hangs, or its output is malformed.
 */
export async function askHelper(context: HelperContext, options: HelperOptions): Promise<HelperAnswer | undefined> {
  const { server, source } = options;
  const text = await runHelper("get", {
    context,
    options,
    stdin: server,
    task: `get credentials for "${server}" from`,
  });
  return text === undefined
    ? undefined
    : readAnswer(text, () => {
        return new KoError(
          `Cannot get credentials for "${server}" from ${source}: its output is not the JSON of a credential helper`,
          { hint: hintFor(options), transient: true },
        );
      });
}

/**
 * Stores a login in a helper: `docker-credential-<suffix> store`, with the login on stdin.
 *
 * @throws {KoError} If the helper is missing, fails or hangs.
 */
export async function storeInHelper(context: HelperContext, options: HelperOptions & HelperAnswer): Promise<void> {
  const { secret, server, username } = options;
  const stdin = JSON.stringify({ ServerURL: server, Username: username, Secret: secret });
  await runHelper("store", { context, options, stdin, task: `store the credentials for "${server}" in` });
}

/**
 * Removes a login from a helper, if it has one: `docker-credential-<suffix> erase`, with the server on stdin.
 *
 * @throws {KoError} If the helper is missing, fails or hangs.
 */
export async function eraseFromHelper(context: HelperContext, options: HelperOptions): Promise<void> {
  const { server } = options;
  await runHelper("erase", { context, options, stdin: server, task: `remove the credentials for "${server}" from` });
}

/** Whether the program of a valid suffix is not on PATH. */
export function isHelperMissing(host: Host, suffix: string): boolean {
  return HELPER_NAME.test(suffix) && findHelper(host, suffix) === undefined;
}

interface RunHelperOptions {
  readonly context: HelperContext;
  readonly options: HelperOptions;
  readonly stdin: string;
  /** The caller's task, before the name of the source: `get credentials for "ghcr.io" from`. */
  readonly task: string;
}

/** Returns the trimmed stdout; undefined if the helper has no credentials for the server. */
async function runHelper(
  verb: "get" | "store" | "erase",
  { context: { host, hung, log }, options, stdin, task }: RunHelperOptions,
): Promise<string | undefined> {
  const { source, suffix, timeout = TIMEOUT_MS } = options;
  const program = `docker-credential-${suffix}`;
  const fail = (why: string, hint: string): KoError =>
    new KoError(`Cannot ${task} ${source}: ${why}`, { hint, transient: true });
  if (!HELPER_NAME.test(suffix)) {
    throw new KoError(`Cannot ${task.replace(/ \w+$/, "")}: the helper name in ${source} is not a plain file name`);
  }
  const path = findHelper(host, suffix);
  if (path === undefined) {
    throw fail("the program is not on PATH", `Install ${program}, or remove it from the configuration.`);
  }
  const tryIt = hintFor(options);
  if (hung?.has(suffix) === true) throw fail(`${program} did not answer before, within ${timeout / 1000} s`, tryIt);
  const started = systemClock.monotonic();
  let result: RunResult;
  try {
    result = await host.run([path, verb], {
      stdin: new TextEncoder().encode(stdin),
      maxBytes: MAX_ANSWER_BYTES,
      timeout,
      anyExitCode: true,
    });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (systemClock.monotonic() - started >= timeout) hung?.add(suffix);
    // No cause: it holds the helper's stderr.
    throw fail(error.message, tryIt);
  }
  log.debug(`${program} ${verb}: exit code ${result.code}, ${result.stdout.byteLength} bytes`);
  const text = new TextDecoder().decode(result.stdout).trim();
  if (result.code === 0) return text;
  if (text === NOT_FOUND) return undefined;
  const known = PROTOCOL_ERRORS.find((message) => message === text);
  throw fail(`exit code ${result.code}${known === undefined ? "" : ` (${known})`}`, tryIt);
}

function hintFor({ server, suffix }: HelperOptions): string {
  return `To see its output: echo ${server} | docker-credential-${suffix} get`;
}

/** Ignores relative entries of PATH: the working directory may be an untrusted repository. */
function findHelper(host: Host, suffix: string): string | undefined {
  const separator = host.platform === "win32" ? ";" : ":";
  const folders = (host.env["PATH"] ?? "").split(separator).filter((folder) => isAbsolute(folder));
  if (folders.length === 0) return undefined;
  return Bun.which(`docker-credential-${suffix}`, { PATH: folders.join(separator) }) ?? undefined;
}

/** Undefined if username and secret are empty. */
function readAnswer(text: string, fail: () => KoError): HelperAnswer | undefined {
  const value = parseJson(text);
  if (!isObject(value)) throw fail();
  const { Username: username, Secret: secret } = value;
  if (typeof username !== "string" || typeof secret !== "string") throw fail();
  if (username === "" && secret === "") return undefined;
  return { username, secret };
}
