/**
 * Finds credentials in `DOCKER_AUTH_CONFIG` and in the files of Docker and podman, and asks their credential helpers.
 *
 * Rules: docs/rules.md B1, E7. The files are changed in registry-login.ts.
 */
import { join } from "node:path";
import { once } from "./async.ts";
import { KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject, parseJson } from "./json.ts";
import { DOCKER_HUB, formatRepository, type Repository } from "./reference.ts";
import {
  type Credential,
  type FindOptions,
  FOR_PUSH,
  type FoundCredential,
  type Keychain,
} from "./registry-credential.ts";
import { askHelper, type HelperAnswer, type HelperContext, isHelperMissing } from "./registry-keychain-helper.ts";

/** The keys of Docker Hub's credentials; credential helpers are asked for the first. */
export const HUB_KEYS: readonly string[] = [
  "https://index.docker.io/v1/",
  DOCKER_HUB,
  "docker.io",
  "registry-1.docker.io",
];

/** The credential settings of one file or variable. */
export interface ConfigFile {
  /** For messages: a path or `DOCKER_AUTH_CONFIG`. */
  readonly name: string;
  readonly auths: ReadonlyMap<string, unknown>;
  /** `credHelpers`: suffixes of programs by key. */
  readonly helpers: ReadonlyMap<string, string>;
  /** `credsStore`: the suffix of the program for all other hosts. */
  readonly store: string | undefined;
}

export interface FileKeychainOptions {
  /** Milliseconds that a credential helper may take. */
  readonly helperTimeout?: number | undefined;
}

/** The logins of `ko login`, `docker login` and `podman login`. It reads no file before the first `find`. */
export class FileKeychain implements Keychain {
  readonly #context: HelperContext;
  readonly #timeout: number | undefined;
  readonly #found = new Map<string, Promise<FoundCredential | undefined>>();
  /** One call per helper and server in a run: some helpers fail if several run at once. */
  readonly #answers = new Map<string, Promise<HelperAnswer | undefined>>();
  /** Why there is no credential, by host. */
  readonly #reasons = new Map<string, string>();
  #files: Promise<readonly ConfigFile[]> | undefined;

  constructor(context: HelperContext, { helperTimeout }: FileKeychainOptions = {}) {
    this.#context = { ...context, hung: new Set() };
    this.#timeout = helperTimeout;
  }

  find(repository: Repository, options: FindOptions = FOR_PUSH): Promise<FoundCredential | undefined> {
    const { effort } = options;
    return once(this.#found, `${effort} ${formatRepository(repository)}`, () => this.#search(repository, effort));
  }

  explain(repository: Repository): readonly string[] {
    const reason = this.#reasons.get(repository.host);
    return reason === undefined ? [] : [reason];
  }

  async #search(repository: Repository, effort: FindOptions["effort"]): Promise<FoundCredential | undefined> {
    const { host, log } = this.#context;
    this.#files ??= readConfigFiles(host);
    const files = await this.#files;
    for (const file of files) {
      const found = await this.#findIn(file, { repository, effort });
      if (found === undefined) continue;
      log.debug(`Credentials for ${formatRepository(repository)}: ${found.source}`);
      return found;
    }
    if (effort === "all" && !this.#reasons.has(repository.host)) {
      const places = files.map(({ name }) => name).join(" and ");
      const where = places === "" ? ", and there is no configuration file of Docker or podman" : ` in ${places}`;
      this.#reasons.set(repository.host, `there is none for ${repository.host}${where}`);
    }
    return undefined;
  }

  async #findIn(
    file: ConfigFile,
    { effort, repository }: { readonly repository: Repository; readonly effort: FindOptions["effort"] },
  ): Promise<FoundCredential | undefined> {
    const { host, log } = this.#context;
    const helper = findHelper(file, { host: repository.host, keys: keysOf(repository) });
    if (helper === undefined) return findEntry(file, repository);
    if (effort === "files") return undefined;
    const { server, source, suffix } = helper;
    if (helper.isStore && isHelperMissing(host, suffix) && entriesFor(file, repository).length === 0) {
      // `docker login` adds an entry to auths too: without one, the missing helper holds nothing for this host.
      const reason = `${source} is not on PATH`;
      this.#reasons.set(repository.host, reason);
      log.debug(`No credentials for ${repository.host}: ${reason}`);
      return undefined;
    }
    const answer = await once(this.#answers, `${suffix} ${server}`, () =>
      askHelper(this.#context, { suffix, server, source, timeout: this.#timeout }),
    );
    if (answer === undefined) {
      this.#reasons.set(repository.host, `${source} has none for ${server}`);
      return undefined;
    }
    const { username, secret } = answer;
    const isToken = username === "<token>";
    return {
      credential: isToken ? { kind: "identity", token: secret } : { kind: "basic", username, password: secret },
      source,
    };
  }
}

/** The credential helper that keeps the login of a host. */
export interface ConfiguredHelper {
  readonly suffix: string;
  /** The key that the helper is asked for. */
  readonly server: string;
  /** For messages: `docker-credential-desktop (credsStore in /root/.docker/config.json)`. */
  readonly source: string;
  /** Whether it is that of `credsStore`, not of `credHelpers`. */
  readonly isStore: boolean;
}

/** The helper for the first of `keys` that has one, else the store for all hosts; undefined if the file has neither. */
export function findHelper(
  file: ConfigFile,
  { host, keys }: { readonly host: string; readonly keys: readonly string[] },
): ConfiguredHelper | undefined {
  const key = keys.find((each) => file.helpers.has(each));
  const suffix = key === undefined ? file.store : file.helpers.get(key);
  if (suffix === undefined) return undefined;
  const isHub = host === DOCKER_HUB && !(key ?? "").includes("/");
  const setting = key === undefined ? "credsStore" : `credHelpers["${key}"]`;
  return {
    suffix,
    server: isHub ? (HUB_KEYS[0] ?? "") : (key ?? host),
    source: `docker-credential-${suffix} (${setting} in ${file.name})`,
    isStore: key === undefined,
  };
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
  const { docker, homeDocker, podman } = listConfigFiles(host);
  const hasDocker = await exists(docker);
  // A ~/.docker/config.json shows a user of Docker, even if DOCKER_CONFIG names another file: podman's do not count.
  if (hasDocker || (await exists(homeDocker))) return hasDocker ? docker : undefined;
  for (const path of podman) if (await exists(path)) return path;
  return undefined;
}

/** The file that a login is written to: the one that is read, or a new one that will be read. */
export async function chooseConfigFile(host: Host): Promise<string> {
  const found = await findConfigFile(host);
  if (found !== undefined) return found;
  const { docker, homeDocker } = listConfigFiles(host);
  const { DOCKER_CONFIG: folder, REGISTRY_AUTH_FILE: podman } = host.env;
  const path = !folder && podman && !(await exists(homeDocker)) ? podman : docker;
  if (path !== undefined) return path;
  throw new KoError("Cannot find the file for credentials: HOME is not set", {
    hint: "Name the directory for config.json: export DOCKER_CONFIG=DIR",
  });
}

interface ConfigFiles {
  /** That of `DOCKER_CONFIG`, else that of the home directory. */
  readonly docker: string | undefined;
  readonly homeDocker: string | undefined;
  readonly podman: readonly (string | undefined)[];
}

function listConfigFiles({ env, platform }: Host): ConfigFiles {
  const home = (platform === "win32" ? env["USERPROFILE"] : env["HOME"]) || undefined;
  const homeDocker = home === undefined ? undefined : join(home, ".docker", "config.json");
  const config = env["XDG_CONFIG_HOME"] || (home === undefined ? undefined : join(home, ".config"));
  return {
    docker: env["DOCKER_CONFIG"] ? join(env["DOCKER_CONFIG"], "config.json") : homeDocker,
    homeDocker,
    podman: [
      env["REGISTRY_AUTH_FILE"] || undefined,
      env["XDG_RUNTIME_DIR"] ? join(env["XDG_RUNTIME_DIR"], "containers", "auth.json") : undefined,
      config === undefined ? undefined : join(config, "containers", "auth.json"),
    ],
  };
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
  return parseConfigFile(text, path).file;
}

export interface ParsedConfigFile {
  readonly file: ConfigFile;
  /** All fields, also those that ko does not know. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * Parses a `config.json` or `auth.json`. An empty file has no fields.
 *
 * @throws {KoError} If the text is not a JSON object, or a field that ko reads has the wrong type.
 */
export function parseConfigFile(text: string, path: string): ParsedConfigFile {
  const fields = text.trim() === "" ? {} : findObject(text);
  if (fields === undefined) {
    throw new KoError(`Cannot read the credentials in ${path}: it is not a JSON object`, {
      transient: true,
      hint: `Correct ${path}, or set DOCKER_CONFIG to a directory with another config.json.`,
    });
  }
  const fail = (field: string): KoError =>
    new KoError(`Cannot read the credentials in ${path}: ${field} has the wrong type`, { transient: true });
  const { auths, credHelpers, credsStore } = fields;
  if (auths !== undefined && auths !== null && !isObject(auths)) throw fail("auths");
  if (credHelpers !== undefined && credHelpers !== null && !isObject(credHelpers)) throw fail("credHelpers");
  if (credsStore !== undefined && credsStore !== null && typeof credsStore !== "string") throw fail("credsStore");
  const helpers = new Map<string, string>();
  for (const [key, suffix] of Object.entries(credHelpers ?? {})) {
    if (typeof suffix !== "string") throw fail(`credHelpers["${key}"]`);
    if (suffix !== "") helpers.set(normalKey(key), suffix);
  }
  const file = { name: path, auths: new Map(Object.entries(auths ?? {})), helpers, store: credsStore || undefined };
  return { file, fields };
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
  const hosts = hostKeysOf(repository.host);
  const parts = repository.path.split("/");
  const paths = parts.map((_, i) => parts.slice(0, parts.length - i).join("/"));
  return [...paths.flatMap((path) => hosts.map((host) => `${host}/${path}`)), ...hosts];
}

/** The keys of a host, in the form of {@link normalKey}. Docker Hub has several. */
export function hostKeysOf(host: string): readonly string[] {
  return host === DOCKER_HUB ? [...new Set(HUB_KEYS.map(normalKey))] : [normalKey(host)];
}

/** `https://ghcr.io/v1/` becomes `ghcr.io`; `quay.io/org` stays as it is. */
export function normalKey(key: string): string {
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
