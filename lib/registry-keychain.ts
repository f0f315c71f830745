/**
 * Finds the credential for a repository: `DOCKER_AUTH_CONFIG`, the files of Docker and podman, credential helpers.
 *
 * The output of a credential helper is never shown: its stdout holds secrets, and its stderr may. Credentials of clouds
 * are not supported: they would be further members of {@link chainKeychains}.
 *
 * Rules: docs/rules.md B1, B2, E7. https://github.com/docker/docker-credential-helpers
 */
import { isAbsolute, join } from "node:path";
import { once } from "./async.ts";
import { CommandError, KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject, parseJson } from "./json.ts";
import type { Log } from "./log.ts";
import { DOCKER_HUB, formatRepository, type Repository } from "./reference.ts";

/** `identity` is an OAuth2 refresh token; `bearer` is sent to the registry as it is. */
export type Credential =
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  | { readonly kind: "identity"; readonly token: string }
  | { readonly kind: "bearer"; readonly token: string };

export interface FoundCredential {
  readonly credential: Credential;
  /** Where the credential is from, for messages: `auths entry "ghcr.io" in /root/.docker/config.json`. No secret. */
  readonly source: string;
}

/** One source of credentials, or a chain of them. */
export interface Keychain {
  /**
   * The credential for a repository; undefined means anonymous.
   *
   * @throws {KoError} If a source that is configured for the repository cannot be read.
   */
  find(repository: Repository): Promise<FoundCredential | undefined>;
  /** Why a source that may hold a credential gave none, for the error when the registry refuses. */
  explain?(repository: Repository): readonly string[];
}

export interface KeychainOptions {
  /** Milliseconds that a credential helper may take. @default 60,000 */
  readonly helperTimeout?: number;
}

/** The keys of Docker Hub's credentials; credential helpers are asked for the first. */
const HUB_KEYS: readonly string[] = ["https://index.docker.io/v1/", DOCKER_HUB, "docker.io", "registry-1.docker.io"];
const HELPER_TIMEOUT_MS = 60_000;
const HELPER_NAME = /^[A-Za-z0-9._-]+$/;
const NOT_FOUND = "credentials not found in native keychain";
const PROTOCOL_ERRORS: readonly string[] = ["no credentials server URL", "no credentials username"];
const MAX_ANSWER_BYTES = 64 * 1024;

/** A keychain over the logins of `docker login` and `podman login`. It reads no file before the first `find`. */
export function createKeychain(host: Host, log: Log, options: KeychainOptions = {}): Keychain {
  return new ConfigKeychain(host, log, options);
}

/** A keychain that asks others in turn: the first credential wins, and an error ends the search. */
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

/** The credential settings of one file or variable. */
interface ConfigFile {
  /** For messages: a path or `DOCKER_AUTH_CONFIG`. */
  readonly name: string;
  readonly auths: ReadonlyMap<string, unknown>;
  /** `credHelpers`: suffixes of programs by key. */
  readonly helpers: ReadonlyMap<string, string>;
  /** `credsStore`: the suffix of the program for all other hosts. */
  readonly store: string | undefined;
}

class ConfigKeychain implements Keychain {
  readonly #host: Host;
  readonly #log: Log;
  readonly #timeout: number;
  readonly #found = new Map<string, Promise<FoundCredential | undefined>>();
  /** One call per helper and server in a run: some helpers fail if several run at once. */
  readonly #answers = new Map<string, Promise<HelperAnswer | undefined>>();
  /** Why there is no credential, by host. */
  readonly #reasons = new Map<string, string>();
  #files: Promise<readonly ConfigFile[]> | undefined;

  constructor(host: Host, log: Log, { helperTimeout = HELPER_TIMEOUT_MS }: KeychainOptions) {
    this.#host = host;
    this.#log = log;
    this.#timeout = helperTimeout;
  }

  find(repository: Repository): Promise<FoundCredential | undefined> {
    return once(this.#found, formatRepository(repository), () => this.#search(repository));
  }

  explain(repository: Repository): readonly string[] {
    const reason = this.#reasons.get(repository.host);
    return reason === undefined ? [] : [reason];
  }

  async #search(repository: Repository): Promise<FoundCredential | undefined> {
    this.#files ??= readConfigFiles(this.#host);
    for (const file of await this.#files) {
      const found = await this.#findIn(file, repository);
      if (found === undefined) continue;
      this.#log.debug(`Credentials for ${formatRepository(repository)}: ${found.source}`);
      return found;
    }
    return undefined;
  }

  async #findIn(file: ConfigFile, repository: Repository): Promise<FoundCredential | undefined> {
    const { host } = repository;
    const helperKey = keysOf(repository).find((key) => file.helpers.has(key));
    const suffix = helperKey === undefined ? file.store : file.helpers.get(helperKey);
    if (suffix === undefined) return findEntry(file, repository);
    const isHub = host === DOCKER_HUB && !(helperKey ?? "").includes("/");
    const server = isHub ? (HUB_KEYS[0] ?? "") : (helperKey ?? host);
    const setting = helperKey === undefined ? "credsStore" : `credHelpers["${helperKey}"]`;
    const source = `docker-credential-${suffix} (${setting} in ${file.name})`;
    if (helperKey === undefined && isHelperMissing(this.#host, suffix) && entriesFor(file, repository).length === 0) {
      // `docker login` adds an entry to auths too: without one, the missing helper holds nothing for this host.
      const reason = `${source} is not on PATH`;
      this.#reasons.set(host, reason);
      this.#log.debug(`No credentials for ${host}: ${reason}`);
      return undefined;
    }
    const answer = await once(this.#answers, `${suffix} ${server}`, () =>
      askHelper(this.#host, this.#log, { suffix, server, source, timeout: this.#timeout }),
    );
    if (answer === undefined) return undefined;
    const { username, secret } = answer;
    const isToken = username === "<token>";
    return {
      credential: isToken ? { kind: "identity", token: secret } : { kind: "basic", username, password: secret },
      source,
    };
  }
}

/** `DOCKER_AUTH_CONFIG` first, then the configuration file. */
async function readConfigFiles(host: Host): Promise<readonly ConfigFile[]> {
  const files: ConfigFile[] = [];
  const inline = host.env["DOCKER_AUTH_CONFIG"] ?? "";
  if (inline.trim() !== "") files.push(parseInline(inline));
  const path = await findConfigFile(host);
  if (path !== undefined) files.push(await readConfigFile(path));
  return files;
}

/** Docker's file if there is one, else podman's, as in the original ko. */
async function findConfigFile(host: Host): Promise<string | undefined> {
  const { env } = host;
  const home = (host.platform === "win32" ? env["USERPROFILE"] : env["HOME"]) || undefined;
  const homeDocker = home === undefined ? undefined : join(home, ".docker", "config.json");
  const docker = env["DOCKER_CONFIG"] ? join(env["DOCKER_CONFIG"], "config.json") : homeDocker;
  const hasDocker = await exists(docker);
  // A ~/.docker/config.json shows a user of Docker, even if DOCKER_CONFIG names another file: podman's do not count.
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
    throw new KoError(`Cannot read the credentials in ${path}: ${messageOf(cause)}`, { transient: true });
  }
  const value = findObject(text);
  if (value === undefined) {
    throw new KoError(`Cannot read the credentials in ${path}: it is not a JSON object`, {
      transient: true,
      hint: `Correct ${path}, or set DOCKER_CONFIG to a directory with another config.json.`,
    });
  }
  const fail = (field: string): KoError =>
    new KoError(`Cannot read the credentials in ${path}: ${field} has the wrong type`, { transient: true });
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

/** Only `{"auths":{"HOST":{"auth":"…"}}}`, as in Docker's CLI. */
function parseInline(text: string): ConfigFile {
  const name = "DOCKER_AUTH_CONFIG";
  const value = findObject(text);
  const auths = value?.["auths"] ?? {};
  const known =
    value !== undefined &&
    Object.keys(value).every((key) => key === "auths") &&
    isObject(auths) &&
    Object.values(auths).every((entry) => isObject(entry) && Object.keys(entry).every((key) => key === "auth"));
  if (!known) throw new KoError(`Cannot read ${name}: wanted {"auths":{"HOST":{"auth":"BASE64"}}} and no other fields`);
  return { name, auths: new Map(Object.entries(auths)), helpers: new Map(), store: undefined };
}

/** Undefined if the text is not a JSON object. */
function findObject(text: string): Readonly<Record<string, unknown>> | undefined {
  const value = parseJson(text.replace(/^\ufeff/, ""));
  return isObject(value) ? value : undefined;
}

/** The keys of a repository, best first: `host/a/b`, `host/a`, `host`, and for Docker Hub its other names. */
function keysOf(repository: Repository): readonly string[] {
  const hosts = repository.host === DOCKER_HUB ? HUB_KEYS.map(normalKey) : [normalKey(repository.host)];
  const parts = repository.path.split("/");
  const paths = parts.map((_, i) => parts.slice(0, parts.length - i).join("/"));
  return [...paths.flatMap((path) => hosts.map((host) => `${host}/${path}`)), ...hosts];
}

/** `https://ghcr.io/v1/` becomes `ghcr.io`; `quay.io/org` stays as it is. */
function normalKey(key: string): string {
  const bare = key.replace(/^https?:\/\//i, "");
  const slash = bare.indexOf("/");
  if (slash < 0) return bare.toLowerCase();
  const [host, path] = [bare.slice(0, slash).toLowerCase(), bare.slice(slash + 1).replace(/\/+$/, "")];
  return bare !== key || path === "" || path === "v1" || path === "v2" ? host : `${host}/${path}`;
}

/** The auths entries for a repository as [key in the file, entry], best first; a bare host precedes its URL. */
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

/** Undefined if the entry is empty. */
function readEntry(entry: unknown, source: string): Credential | undefined {
  const fail = (why: string): KoError =>
    new KoError(`Cannot read the ${source}: ${why}`, { hint: "Log in to that registry again.", transient: true });
  if (!isObject(entry)) throw fail("it is not an object");
  const text = (key: string): string => {
    const value = entry[key] ?? "";
    if (typeof value !== "string") throw fail(`${key} is not a string`);
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
  if (!/^[A-Za-z0-9+/_-]+={0,2}\s*$/.test(auth)) throw fail("auth is not base64");
  const pair = Buffer.from(auth, "base64").toString("utf8");
  const colon = pair.indexOf(":");
  if (colon <= 0) throw fail("auth is not base64 of USER:PASSWORD");
  return { kind: "basic", username: pair.slice(0, colon), password: pair.slice(colon + 1).replace(/\0+$/, "") };
}

/** The account that a helper knows. The username `<token>` marks the secret as an OAuth2 refresh token. */
interface HelperAnswer {
  readonly username: string;
  readonly secret: string;
}

interface AskHelperOptions {
  /** The part of the program's name after `docker-credential-`. */
  readonly suffix: string;
  /** The key to ask for: a host, or Docker Hub's old URL. */
  readonly server: string;
  /** The setting that names the helper, for messages. */
  readonly source: string;
  /** Milliseconds. */
  readonly timeout: number;
}

/**
 * Runs `docker-credential-<suffix> get` once, with the server on stdin.
 *
 * @returns undefined if the helper has no credentials for the server
 * @throws {KoError} If the helper is missing, fails, hangs, or its output is malformed.
 */
async function askHelper(host: Host, log: Log, options: AskHelperOptions): Promise<HelperAnswer | undefined> {
  const { server, source, suffix, timeout } = options;
  const program = `docker-credential-${suffix}`;
  const fail = (why: string, hint: string): KoError =>
    new KoError(`Cannot get credentials for "${server}" from ${source}: ${why}`, { hint, transient: true });
  if (!HELPER_NAME.test(suffix)) {
    throw new KoError(`Cannot get credentials for "${server}": the helper name in ${source} is not a plain file name`);
  }
  const path = findHelper(host, suffix);
  if (path === undefined) {
    throw fail("the program is not on PATH", `Install ${program}, or remove it from the configuration.`);
  }
  const tryIt = `To see its output: echo ${server} | ${program} get`;
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
    // No cause: it holds the helper's stderr.
    throw fail(error.message, tryIt);
  }
  log.debug(`${program} get: exit code ${result.code}, ${result.stdout.byteLength} bytes`);
  const text = new TextDecoder().decode(result.stdout).trim();
  if (result.code !== 0) {
    if (text === NOT_FOUND) return undefined;
    const known = PROTOCOL_ERRORS.find((message) => message === text);
    throw fail(`exit code ${result.code}${known === undefined ? "" : ` (${known})`}`, tryIt);
  }
  return readAnswer(text, () => fail("its output is not the JSON of a credential helper", tryIt));
}

/** Whether the program of a valid suffix is not on PATH. */
function isHelperMissing(host: Host, suffix: string): boolean {
  return HELPER_NAME.test(suffix) && findHelper(host, suffix) === undefined;
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
