/**
 * `ko login` and `ko logout`: writes a login where the registry client reads it, and removes it.
 *
 * The registry is not asked. The password goes into the file or to a credential helper, and nowhere else.
 * Rules: docs/rules.md B1.11, B2. https://docs.docker.com/reference/cli/docker/login/
 */
import { type FileHandle, chmod, chown, mkdir, open, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { isMissing, KoError, messageOf, UsageError } from "./errors.ts";
import { withLock } from "./file.ts";
import { isObject, parseJson } from "./json.ts";
import { DOCKER_HUB } from "./reference.ts";
import { eraseFromHelper, type HelperContext, storeInHelper } from "./registry-keychain-helper.ts";
import {
  chooseConfigFile,
  type ConfigFile,
  findHelper,
  hostKeysOf,
  HUB_KEYS,
  normalKey,
  parseConfigFile,
} from "./registry-keychain-file.ts";

export interface LoginFlags {
  readonly username: string;
  readonly password: string;
  readonly "password-stdin": boolean;
}

/** Names of Docker Hub that a user may type. */
const HUB_NAMES: readonly string[] = ["docker.io", DOCKER_HUB, "registry-1.docker.io"];
const SERVER = /^(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i;
const MAX_PASSWORD_BYTES = 64 * 1024;
const INDENT = "\t";

/**
 * Stores a login.
 *
 * @param server `host[:port]`
 * @throws {UsageError} If the server or the user is not valid, or the password is missing.
 * @throws {KoError} If the file is malformed or cannot be written, or the credential helper fails.
 */
export async function login(
  server: string,
  { context, flags }: { readonly context: HelperContext; readonly flags: LoginFlags },
): Promise<void> {
  const { host, log } = context;
  const registry = readServer(server, "login");
  const { username } = flags;
  if (username === "")
    throw new UsageError(`Cannot log in to "${server}": there is no user`, { hint: exampleFor(server) });
  if (/[:\u0000-\u001f\u007f]/.test(username)) {
    throw new UsageError(`Cannot log in to "${server}": the user has a ":" or a control character`);
  }
  const password = await readPassword(server, { context, flags });
  const path = await chooseConfigFile(host);
  const isStored = await edit(path, context, async ({ fields, file }) => {
    const helper = findHelper(file, { host: registry.host, keys: hostKeysOf(registry.host) });
    if (helper !== undefined) await storeInHelper(context, { ...helper, username, secret: password });
    const auth = Buffer.from(`${username}:${password}`).toString("base64");
    const entry = { ...keptFields(fields, registry), ...(helper === undefined ? { auth } : {}) };
    const auths = { ...withoutEntries(fields, registry), [registry.key]: entry };
    return { fields: withAuths(fields, auths), result: helper?.source };
  });
  if (isStored === undefined) {
    log.warn(`The password is stored unencrypted in ${path}; a credential helper (credsStore) would encrypt it.`);
  }
  if (isInline(host.env["DOCKER_AUTH_CONFIG"] ?? "", registry)) {
    log.warn(`DOCKER_AUTH_CONFIG has another login to ${server}, which is used before that of the file.`);
  }
  log.info(`Logged in to ${server} as ${username}, by ${isStored ?? path}`);
}

/**
 * Removes a login. It is no error if there is none.
 *
 * @param server `host[:port]`
 * @throws {UsageError} If the server is not valid.
 * @throws {KoError} If the file is malformed or cannot be written, or the credential helper fails.
 */
export async function logout(server: string, context: HelperContext): Promise<void> {
  const { host, log } = context;
  const registry = readServer(server, "logout");
  const path = await chooseConfigFile(host);
  if (!(await Bun.file(path).exists())) {
    log.info(`There is no login to ${server}: ${path} does not exist`);
    return;
  }
  const hadOne = await edit(path, context, async ({ fields, file }) => {
    const helper = findHelper(file, { host: registry.host, keys: hostKeysOf(registry.host) });
    if (helper !== undefined) await eraseFromHelper(context, helper);
    const auths = withoutEntries(fields, registry);
    const result = Object.keys(auths).length < file.auths.size || helper !== undefined;
    return { fields: result ? withAuths(fields, auths) : fields, result };
  });
  log.info(hadOne ? `Logged out from ${server}, in ${path}` : `There is no login to ${server} in ${path}`);
}

interface Registry {
  /** As in references: `index.docker.io`, `ghcr.io`. */
  readonly host: string;
  /** The key of its entry in `auths`. */
  readonly key: string;
}

/** Whether `DOCKER_AUTH_CONFIG` has a login to the registry. */
function isInline(text: string, { host }: Registry): boolean {
  const value = parseJson(text);
  const keys = hostKeysOf(host);
  return isObject(value) && Object.keys(authsOf(value)).some((key) => keys.includes(normalKey(key)));
}

/** The server may be a URL with a password: it is quoted only if it is valid. */
function readServer(server: string, verb: "login" | "logout"): Registry {
  if (!SERVER.test(server)) {
    const url = URL.canParse(server) ? new URL(server) : undefined;
    const bare = url !== undefined && SERVER.test(url.host) ? url.host : (/^[^/@]+/.exec(server)?.[0] ?? "");
    const shown = SERVER.test(bare) && !server.includes("@") ? bare : "registry.example.com";
    throw new UsageError(`Cannot use the SERVER of "ko ${verb}": wanted HOST[:PORT], without scheme, user and path`, {
      hint: `For example: ko ${verb} ${shown}`,
    });
  }
  if (HUB_NAMES.includes(server.toLowerCase())) return { host: DOCKER_HUB, key: HUB_KEYS[0] ?? DOCKER_HUB };
  return { host: server, key: server };
}

async function readPassword(
  server: string,
  { context, flags }: { readonly context: HelperContext; readonly flags: LoginFlags },
): Promise<string> {
  const { host, log } = context;
  const fail = (why: string): UsageError =>
    new UsageError(`Cannot log in to "${server}": ${why}`, { hint: exampleFor(server) });
  if (flags.password !== "") {
    log.warn("--password shows the password in the process list and in the shell's history: use --password-stdin");
  }
  if (!flags["password-stdin"]) {
    if (flags.password === "") throw fail("there is no password");
    return flags.password;
  }
  const bytes = await host.readStdin(MAX_PASSWORD_BYTES);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw fail("the password on stdin is not UTF-8");
  }
  const password = text.replace(/\n$/, "").replace(/\r$/, "");
  if (password === "") throw fail("the password on stdin is empty");
  return password;
}

function exampleFor(server: string): string {
  return `For example: echo "$TOKEN" | ko login ${server} -u USER --password-stdin`;
}

/** `auths`, if the file has it. */
function authsOf(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { auths } = fields;
  return isObject(auths) ? auths : {};
}

/** `auths` without the entries of a registry: a key may be a URL, or have capitals. */
function withoutEntries(fields: Readonly<Record<string, unknown>>, { host }: Registry): Record<string, unknown> {
  const keys = hostKeysOf(host);
  return Object.fromEntries(Object.entries(authsOf(fields)).filter(([key]) => !keys.includes(normalKey(key))));
}

/** The fields of a registry's entry that are not a credential. */
function keptFields(fields: Readonly<Record<string, unknown>>, { key }: Registry): Readonly<Record<string, unknown>> {
  const entry = authsOf(fields)[key];
  if (!isObject(entry)) return {};
  const { auth: _a, identitytoken: _i, password: _p, registrytoken: _r, username: _u, ...rest } = entry;
  return rest;
}

/** A new file has `auths` first; else it keeps its place. */
function withAuths(
  fields: Readonly<Record<string, unknown>>,
  auths: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  return "auths" in fields ? { ...fields, auths } : { auths, ...fields };
}

interface Edited<T> {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly result: T;
}

interface Editable {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly file: ConfigFile;
}

/** Changes a configuration file in one step, while no other ko changes it. It is made if it does not exist. */
async function edit<T>(
  path: string,
  { host }: HelperContext,
  change: (file: Editable) => Promise<Edited<T>>,
): Promise<T> {
  const fail = (cause: unknown): KoError => {
    return new KoError(`Cannot write the credentials to ${path}: ${messageOf(cause)}`, { cause });
  };
  let target: string;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    // A symlink stays a symlink.
    target = await realpath(path).catch((error: unknown) => {
      if (isMissing(error)) return path;
      throw error;
    });
  } catch (cause) {
    throw fail(cause);
  }
  return withLock(
    `${target}.ko-lock`,
    async () => {
      const before = await readFile(target, "utf8").catch((cause: unknown) => {
        if (isMissing(cause)) return "";
        throw fail(cause);
      });
      const parsed = parseConfigFile(before, path);
      const { fields, result } = await change(parsed);
      if (fields === parsed.fields) return result;
      await replaceFile(target, formatLike(before, fields)).catch((cause: unknown) => {
        throw fail(cause);
      });
      return result;
    },
    { signal: host.signal },
  );
}

/** Formats JSON as the text before it: its indentation and its last line end. Docker's own form is one tab. */
function formatLike(before: string, fields: Readonly<Record<string, unknown>>): string {
  const isCompact = before.trim() !== "" && !before.trim().includes("\n");
  const indent = /^([ \t]+)"/m.exec(before)?.[1] ?? INDENT;
  const text = isCompact ? JSON.stringify(fields) : JSON.stringify(fields, null, indent);
  return before.endsWith("\n") ? `${text}\n` : text;
}

/** Writes beside the file and renames: a reader never sees a part. The mode and the owner of the file stay. */
async function replaceFile(target: string, text: string): Promise<void> {
  const found = await stat(target).catch(() => undefined);
  const temporary = `${target}.${crypto.randomUUID()}.tmp`;
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, "wx", 0o600);
    await handle.writeFile(text);
    await handle.sync();
    await handle.close();
    handle = undefined;
    if (found !== undefined) {
      await chmod(temporary, found.mode & 0o777);
      // Fails for everybody but root, who may write the file of another user.
      await chown(temporary, found.uid, found.gid).catch(() => {});
    }
    await rename(temporary, target);
  } finally {
    await handle?.close();
    await rm(temporary, { force: true });
  }
}
