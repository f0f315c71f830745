/**
 * Docker credential helpers: `docker-credential-<suffix> get`, the server's name on stdin, JSON on stdout.
 *
 * Rules: wire.md B2. What a helper writes is never shown: its stdout holds secrets, and its stderr may.
 *
 * https://github.com/docker/docker-credential-helpers
 */
import { isAbsolute } from "node:path";
import { CommandError, KoError } from "./errors.ts";
import { isObject } from "./gojson.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";

/** An account. The username `<token>` says that the secret is an OAuth2 refresh token. */
export interface HelperAnswer {
  readonly username: string;
  readonly secret: string;
}

export interface AskHelperOptions {
  /** What follows `docker-credential-`. */
  readonly suffix: string;
  /** What the helper is asked for: a host, or Docker Hub's old URL. */
  readonly server: string;
  /** Which setting asks for this helper, for messages. */
  readonly source: string;
  /** Milliseconds. */
  readonly timeout: number;
}

const NOT_FOUND = "credentials not found in native keychain";
const PROTOCOL_ERRORS: readonly string[] = ["no credentials server URL", "no credentials username"];
const MAX_ANSWER_BYTES = 64 * 1024;

/**
 * Runs a helper once.
 *
 * @returns undefined when it has no credentials for the server
 * @throws {KoError} If it is missing, fails, hangs, or answers something else.
 */
export async function askHelper(host: Host, log: Log, options: AskHelperOptions): Promise<HelperAnswer | undefined> {
  const { server, source, suffix, timeout } = options;
  const program = `docker-credential-${suffix}`;
  const fail = (why: string, hint: string): KoError =>
    new KoError(`Cannot get credentials for "${server}" from ${source}: ${why}`, { hint });
  if (!/^[A-Za-z0-9._-]+$/.test(suffix)) {
    throw new KoError(`Cannot get credentials for "${server}": the helper name in ${source} is no plain file name`);
  }
  const path = findHelper(host, suffix);
  if (path === undefined) {
    throw fail("the program is not on PATH", `Install ${program}, or take it out of the configuration.`);
  }
  const tryIt = `To see what it says: echo ${server} | ${program} get`;
  let result;
  try {
    result = await host.run([path, "get"], {
      stdin: new TextEncoder().encode(server),
      maxBytes: MAX_ANSWER_BYTES,
      timeout,
      anyExitCode: true,
    });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    // Without the cause: it carries what the helper wrote.
    throw fail(error.message, tryIt);
  }
  log.debug(`${program} get: exit code ${result.code}, ${result.stdout.byteLength} bytes`);
  const text = new TextDecoder().decode(result.stdout).trim();
  if (result.code !== 0) {
    if (text === NOT_FOUND) return undefined;
    const known = PROTOCOL_ERRORS.find((message) => message === text);
    throw fail(`exit code ${result.code}${known === undefined ? "" : ` (${known})`}`, tryIt);
  }
  return readAnswer(text, () => fail("its answer is not the JSON of a credential helper", tryIt));
}

/** Whether a configured helper is nowhere on PATH. */
export function isHelperMissing(host: Host, suffix: string): boolean {
  return /^[A-Za-z0-9._-]+$/.test(suffix) && findHelper(host, suffix) === undefined;
}

/** Relative entries of PATH lead into the current folder, which may be somebody else's repository. */
function findHelper(host: Host, suffix: string): string | undefined {
  const separator = host.platform === "win32" ? ";" : ":";
  const folders = (host.env["PATH"] ?? "").split(separator).filter((folder) => isAbsolute(folder));
  if (folders.length === 0) return undefined;
  return Bun.which(`docker-credential-${suffix}`, { PATH: folders.join(separator) }) ?? undefined;
}

function readAnswer(text: string, fail: () => KoError): HelperAnswer | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw fail();
  }
  if (!isObject(value)) throw fail();
  const { Username: username, Secret: secret } = value;
  if (typeof username !== "string" || typeof secret !== "string") throw fail();
  if (username === "" && secret === "") return undefined;
  return { username, secret };
}
