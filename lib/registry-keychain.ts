/**
 * Which credential belongs to a repository: Docker's and podman's files, `DOCKER_AUTH_CONFIG`, credential helpers.
 *
 * Rules: rules.md B1 and E7. Clouds' own credentials come later, as further members of {@link chainKeychains}.
 *
 * Docker credential helpers: `docker-credential-<suffix> get`, the server's name on stdin, JSON on stdout.
 *
 * Rules: rules.md B2. What a helper writes is never shown: its stdout holds secrets, and its stderr may.
 *
 * https://github.com/docker/docker-credential-helpers
 */
import { isAbsolute, join } from "node:path";
import { CommandError, KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";
import { DOCKER_HUB, formatRepository, type Repository } from "./reference.ts";

/** `identity` is an OAuth2 refresh token; `bearer` is sent to the registry as it is. */
export type Credential =
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  | { readonly kind: "identity"; readonly token: string }
  | { readonly kind: "bearer"; readonly token: string };

export interface FoundCredential {
  readonly credential: Credential;
  /** Where it is from, for messages: `auths entry "ghcr.io" in /root/.docker/config.json`. Never a secret. */
  readonly source: string;
}

/** One source of credentials, or a chain of them. */
export interface Keychain {
  /**
   * The credential for a repository; undefined means anonymous.
   *
   * @throws {KoError} If a source that is configured for it cannot be read.
   */
  find(repository: Repository): Promise<FoundCredential | undefined>;
  /** Why a source that might have had one gave none, for the error when a registry refuses. */
  explain?(repository: Repository): readonly string[];
}

export interface KeychainOptions {
  /** Milliseconds that a credential helper may take. @default 60,000 */
  readonly helperTimeout?: number;
}

/** What a Docker configuration file says about credentials. */
interface ConfigFile {
  /** For messages: a path or `DOCKER_AUTH_CONFIG`. */
  readonly name: string;
  readonly auths: ReadonlyMap<string, unknown>;
  readonly helpers: ReadonlyMap<string, string>;
  /** The suffix of the program for all hosts. */
  readonly store: string | undefined;
}

/** All names under which Docker Hub's credentials are kept; the first is what helpers are asked for. */
const HUB_KEYS: readonly string[] = ["https://index.docker.io/v1/", DOCKER_HUB, "docker.io", "registry-1.docker.io"];

/** The credentials that `docker login` and `podman login` keep. Nothing is read before the first `find`. */
export function createKeychain(host: Host, log: Log, options: KeychainOptions = {}): Keychain {
  const found = new Map<string, Promise<FoundCredential | undefined>>();
  const helpers = new Map<string, Promise<HelperAnswer | undefined>>();
  const reasons = new Map<string, string>();
  let files: Promise<readonly ConfigFile[]> | undefined;

  /** One call per program and server in a run: some helpers fail when many ask at once. */
  const ask = (suffix: string, server: string, source: string): Promise<HelperAnswer | undefined> => {
    const key = `${suffix} ${server}`;
    let answer = helpers.get(key);
    if (answer === undefined) {
      answer = askHelper(host, log, { suffix, server, source, timeout: options.helperTimeout ?? 60_000 });
      helpers.set(key, answer);
    }
    return answer;
  };

  const findIn = async (file: ConfigFile, repository: Repository): Promise<FoundCredential | undefined> => {
    const keys = keysOf(repository);
    const helperKey = keys.find((key) => file.helpers.has(key));
    const suffix = helperKey === undefined ? file.store : file.helpers.get(helperKey);
    if (suffix === undefined) return findEntry(file, repository);
    const isHub = repository.host === DOCKER_HUB && !(helperKey ?? "").includes("/");
    const server = isHub ? (HUB_KEYS[0] ?? "") : (helperKey ?? repository.host);
    const setting = helperKey === undefined ? "credsStore" : `credHelpers["${helperKey}"]`;
    const source = `docker-credential-${suffix} (${setting} in ${file.name})`;
    if (helperKey === undefined && isHelperMissing(host, suffix) && entriesFor(file, repository).length === 0) {
      // Docker notes every login in auths as well: without an entry nobody has logged in to this host with it.
      reasons.set(repository.host, `${source} is not on PATH`);
      log.debug(`No credentials for ${repository.host}: ${source} is not on PATH`);
      return undefined;
    }
    const answer = await ask(suffix, server, source);
    if (answer === undefined) return undefined;
    const { username, secret } = answer;
    const isToken = username === "<token>";
    return {
      credential: isToken ? { kind: "identity", token: secret } : { kind: "basic", username, password: secret },
      source,
    };
  };

  const search = async (repository: Repository): Promise<FoundCredential | undefined> => {
    files ??= readConfigFiles(host);
    for (const file of await files) {
      const result = await findIn(file, repository);
      if (result !== undefined) {
        log.debug(`Credentials for ${formatRepository(repository)}: ${result.source}`);
        return result;
      }
    }
    return undefined;
  };

  return {
    find: (repository) => {
      const key = formatRepository(repository);
      let result = found.get(key);
      if (result === undefined) {
        result = search(repository);
        found.set(key, result);
      }
      return result;
    },
    explain: (repository) => {
      const reason = reasons.get(repository.host);
      return reason === undefined ? [] : [reason];
    },
  };
}

/** Asks one keychain after the other; the first credential wins, and an error ends the search. */
export function chainKeychains(keychains: readonly Keychain[]): Keychain {
  return {
    find: async (repository) => {
      for (const keychain of keychains) {
        const found = await keychain.find(repository);
        if (found !== undefined) return found;
      }
      return undefined;
    },
    explain: (repository) => keychains.flatMap((keychain) => keychain.explain?.(repository) ?? []),
  };
}

/** `DOCKER_AUTH_CONFIG` first, then the one file that counts. */
async function readConfigFiles(host: Host): Promise<readonly ConfigFile[]> {
  const files: ConfigFile[] = [];
  const inline = host.env["DOCKER_AUTH_CONFIG"] ?? "";
  if (inline.trim() !== "") files.push(parseInline(inline));
  const path = await findConfigFile(host);
  if (path !== undefined) files.push(await readConfigFile(path));
  return files;
}

/** The same file that ko reads: Docker's if there is one, else podman's. */
async function findConfigFile(host: Host): Promise<string | undefined> {
  const { env } = host;
  const home = (host.platform === "win32" ? env["USERPROFILE"] : env["HOME"]) || undefined;
  const homeDocker = home === undefined ? undefined : join(home, ".docker", "config.json");
  const docker = env["DOCKER_CONFIG"] ? join(env["DOCKER_CONFIG"], "config.json") : homeDocker;
  const hasDocker = await exists(docker);
  // With DOCKER_CONFIG set, ~/.docker/config.json still says that this is a Docker user: podman's files do not count.
  if (hasDocker || (await exists(homeDocker))) return hasDocker ? docker : undefined;
  const config = env["XDG_CONFIG_HOME"] || (home === undefined ? undefined : join(home, ".config"));
  const podman = [
    env["REGISTRY_AUTH_FILE"] || undefined,
    env["XDG_RUNTIME_DIR"] ? join(env["XDG_RUNTIME_DIR"], "containers", "auth.json") : undefined,
    config === undefined ? undefined : join(config, "containers", "auth.json"),
  ];
  for (const path of podman) if (await exists(path)) return path;
  return undefined;
}

async function exists(path: string | undefined): Promise<boolean> {
  return path !== undefined && (await Bun.file(path).exists());
}

async function readConfigFile(path: string): Promise<ConfigFile> {
  let text: string;
  try {
    text = await Bun.file(path).text();
  } catch (cause) {
    throw new KoError(`Cannot read the credentials in ${path}: ${messageOf(cause)}`);
  }
  // No cause: a JSON error may quote the text.
  const value = parseJson(text);
  if (value === undefined) {
    throw new KoError(`Cannot read the credentials in ${path}: it is no JSON object`, {
      hint: `Correct ${path}, or set DOCKER_CONFIG to a folder with another config.json.`,
    });
  }
  const fail = (field: string): KoError =>
    new KoError(`Cannot read the credentials in ${path}: ${field} has the wrong type`);
  const { auths, credHelpers, credsStore } = value;
  if (auths !== undefined && auths !== null && !isObject(auths)) throw fail("auths");
  if (credHelpers !== undefined && credHelpers !== null && !isObject(credHelpers)) throw fail("credHelpers");
  if (credsStore !== undefined && credsStore !== null && typeof credsStore !== "string") throw fail("credsStore");
  const helpers = new Map<string, string>();
  for (const [key, suffix] of Object.entries(credHelpers ?? {})) {
    if (typeof suffix !== "string") throw fail(`credHelpers["${key}"]`);
    if (suffix !== "") helpers.set(normalKey(key), suffix);
  }
  return { name: path, auths: new Map(Object.entries(auths ?? {})), helpers, store: credsStore || undefined };
}

/** `{"auths":{"host":{"auth":"…"}}}` and nothing else, as Docker's CLI takes it. */
function parseInline(text: string): ConfigFile {
  const name = "DOCKER_AUTH_CONFIG";
  const value = parseJson(text);
  const auths = value?.["auths"] ?? {};
  const known =
    value !== undefined &&
    Object.keys(value).every((key) => key === "auths") &&
    isObject(auths) &&
    Object.values(auths).every((entry) => isObject(entry) && Object.keys(entry).every((key) => key === "auth"));
  if (!known) throw new KoError(`Cannot read ${name}: wanted {"auths":{"HOST":{"auth":"BASE64"}}} and no other fields`);
  return { name, auths: new Map(Object.entries(auths)), helpers: new Map(), store: undefined };
}

function parseJson(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text.replace(/^\ufeff/, ""));
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** `host/a/b`, `host/a`, `host` and, for Docker Hub, its other names: the longest match counts. */
function keysOf(repository: Repository): readonly string[] {
  const hosts = repository.host === DOCKER_HUB ? HUB_KEYS.map(normalKey) : [normalKey(repository.host)];
  const parts = repository.path.split("/");
  const paths = parts.map((_, i) => parts.slice(0, parts.length - i).join("/"));
  return [...paths.flatMap((path) => hosts.map((host) => `${host}/${path}`)), ...hosts];
}

/** `https://ghcr.io/v1/` and `ghcr.io` are one key; `quay.io/org` stays as it is. */
function normalKey(key: string): string {
  const bare = key.replace(/^https?:\/\//i, "");
  const slash = bare.indexOf("/");
  if (slash < 0) return bare.toLowerCase();
  const [host, path] = [bare.slice(0, slash).toLowerCase(), bare.slice(slash + 1).replace(/\/+$/, "")];
  return bare !== key || path === "" || path === "v1" || path === "v2" ? host : `${host}/${path}`;
}

/** The entries for a repository as [key in the file, entry], best first; an exact host before one in URL form. */
function entriesFor(file: ConfigFile, repository: Repository): readonly (readonly [string, unknown])[] {
  return keysOf(repository).flatMap((wanted) => {
    const matches = [...file.auths].filter(([key]) => normalKey(key) === wanted);
    return matches.sort(([a], [b]) => Number(b === wanted) - Number(a === wanted));
  });
}

function findEntry(file: ConfigFile, repository: Repository): FoundCredential | undefined {
  for (const [key, entry] of entriesFor(file, repository)) {
    const source = `auths entry "${key}" in ${file.name}`;
    const credential = readEntry(entry, source);
    if (credential !== undefined) return { credential, source };
  }
  return undefined;
}

function readEntry(entry: unknown, source: string): Credential | undefined {
  const fail = (why: string): KoError =>
    new KoError(`Cannot read the ${source}: ${why}`, { hint: "Log in to that registry again." });
  if (!isObject(entry)) throw fail("it is no object");
  const text = (key: string): string => {
    const value = entry[key] ?? "";
    if (typeof value !== "string") throw fail(`${key} is no string`);
    return value;
  };
  const registryToken = text("registrytoken");
  if (registryToken !== "") return { kind: "bearer", token: registryToken };
  const identityToken = text("identitytoken");
  if (identityToken !== "") return { kind: "identity", token: identityToken };
  const auth = text("auth");
  if (auth === "") {
    const [username, password] = [text("username"), text("password")];
    return username === "" && password === "" ? undefined : { kind: "basic", username, password };
  }
  if (!/^[A-Za-z0-9+/_-]+={0,2}\s*$/.test(auth)) throw fail("auth is no base64");
  const pair = Buffer.from(auth, "base64").toString("utf8");
  const colon = pair.indexOf(":");
  if (colon <= 0) throw fail("auth is no base64 of USER:PASSWORD");
  return { kind: "basic", username: pair.slice(0, colon), password: pair.slice(colon + 1).replace(/\0+$/, "") };
}

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
