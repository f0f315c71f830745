/**
 * Reads the inputs that `-f`, `-R` and `-k` name, in the given order: files, folders, URLs, stdin and kustomizations.
 *
 * Each input is read once, even if it is named several times, and not parsed. Rules: docs/rules.md E9.
 */
import type { Stats } from "node:fs";
import { constants, open, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { createLimit, readStream } from "./async.ts";
import { codeOf, findNearest, KoError, KoErrors, messageOf, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import { wantsPassword } from "./http-errors.ts";
import type { Route } from "./http-route.ts";
import type { StallGuard } from "./http-transfer.ts";
import { findKubectl } from "./kubectl.ts";
import type { Log } from "./log.ts";
import { refuseOffline } from "./offline.ts";
import { redactIfUrl, redactUrl, whyNotFetched } from "./url.ts";

export interface InputRequest {
  /** The values of `-f`. */
  readonly files: readonly string[];
  /** `-R` */
  readonly recursive: boolean;
  /** `-k` */
  readonly kustomize: string | undefined;
}

export interface ReadInputsOptions {
  readonly host: Host;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** The maximum size of a file and of stdin. @default 256 MiB */
  readonly maxBytes?: number;
  /**
   * Stores inputs that can be read only once or are not watched (stdin, pipes, URLs) for later calls.
   *
   * @default none are stored
   */
  readonly kept?: Map<string, Uint8Array>;
}

export interface FetchInputOptions {
  readonly host: Host;
  readonly signal: AbortSignal;
  /** The maximum size after decompression. @default 64 MiB */
  readonly maxBytes?: number;
  /** The timeout for the next byte, in milliseconds. @default 30,000 */
  readonly idleTimeout?: number;
}

export interface Input {
  /** The name in messages: the path as given, `-`, a URL without secrets, or `kubectl kustomize DIR`. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** An input that has not been read. */
interface Source {
  readonly name: string;
  /** Equal for two names of the same input. */
  readonly identity: string;
  read(): Promise<Uint8Array>;
}

const MAX_BYTES = 256 * 1024 * 1024;

/** The maximum number of files that are open at once. */
const MAX_OPEN = 16;
/** Of a fetched input, after decompression. */
const MAX_URL_BYTES = 64 * 1024 * 1024;
const IDLE_TIMEOUT_MS = 30_000;
const MAX_REDIRECTS = 10;

/**
 * Reads all inputs of a command.
 *
 * Of a folder, these are its `.yaml`, `.yml` and `.json` files by name, without dotfiles and editors' `*~` backups.
 *
 * @throws {UsageError} If the request is empty.
 * @throws {KoError} If inputs cannot be read, or the folders hold none; reports all errors together.
 */
export async function readInputs(request: InputRequest, options: ReadInputsOptions): Promise<readonly Input[]> {
  checkRequest(request);
  const { files, kustomize } = request;
  const limit = createLimit(MAX_OPEN);
  const found = await allOf(files.map((file) => limit(() => findSources(file, { ...options, ...request }))));
  const sources = new Map<string, Source>();
  for (const source of [...found.flat(), ...(kustomize === undefined ? [] : [kustomizeSource(kustomize, options)])]) {
    if (!sources.has(source.identity)) sources.set(source.identity, source);
  }
  if (sources.size === 0) {
    throw new KoError(
      `Cannot find YAML in ${files.map((file) => `"${file}"`).join(", ")}: there is no .yaml, .yml or .json file`,
      {
        hint: request.recursive ? undefined : "Add -R to read subdirectories too.",
      },
    );
  }
  const inputs = [...sources.values()].map((source) => {
    return limit(async () => ({ name: source.name, bytes: await source.read() }));
  });
  return allOf(inputs);
}

/** @throws {UsageError} If the request is empty. */
export function checkRequest({ files, kustomize }: InputRequest): void {
  if (files.length === 0 && kustomize === undefined) {
    throw new UsageError("Cannot read YAML: neither -f nor -k is given", {
      hint: "Name files, directories or URLs, as in -f config/",
    });
  }
}

/** Reports whether a value of `-f` is a URL. */
export function isUrl(text: string): boolean {
  return /^https?:\/\//i.test(text);
}

/** Reports whether a file of a folder is an input, by its name. */
export function isYamlName(name: string): boolean {
  return isVisible(name) && /\.(yaml|yml|json)$/.test(name);
}

/** Waits for all promises, so that no work outlives the call. @throws {KoError} All failures, in order. */
async function allOf<T>(works: readonly Promise<T>[]): Promise<readonly T[]> {
  const results = await Promise.allSettled(works);
  const failures: unknown[] = results.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
  const [first] = failures;
  const errors = failures.filter((failure) => failure instanceof KoError);
  // An interruption fails all of them with the same error.
  if (failures.length > 1 && errors.length === failures.length && new Set(errors).size > 1) throw new KoErrors(errors);
  if (failures.length > 0) throw first;
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}

type FindOptions = ReadInputsOptions & Pick<InputRequest, "recursive">;

/** Finds the inputs of one value of `-f`. */
async function findSources(file: string, options: FindOptions): Promise<readonly Source[]> {
  const { host, log, signal, maxBytes = MAX_BYTES } = options;
  signal.throwIfAborted();
  if (file === "-" || file === "/dev/stdin") {
    return [{ name: "-", identity: "-", read: () => readOnce("-", options, () => host.readStdin(maxBytes)) }];
  }
  if (isUrl(file)) {
    const read = async (): Promise<Uint8Array> => {
      return fetchInput(file, { host, signal });
    };
    return [{ name: redactUrl(file), identity: file, read: () => readOnce(file, options, read) }];
  }
  const path = resolve(host.cwd, file);
  // The pipe of the shell's <(command). Other pipes are refused: reading one without a writer would hang.
  if (/^\/(dev|proc\/self)\/fd\/\d+$/.test(path)) {
    const read = (): Promise<Uint8Array> => readPipe(path, { name: file, signal, maxBytes });
    return [{ name: file, identity: path, read: () => readOnce(path, options, read) }];
  }
  const info = await look(path, file);
  if (!info.isDirectory()) return [await fileSource(path, { ...options, name: file, info })];
  const sources = await walk(path, { ...options, name: file, seen: new Set() });
  if (sources.length === 0) {
    const subfolders = options.recursive ? "" : "; -R reads its subdirectories too";
    log.warn(`directory "${file}" holds no .yaml, .yml or .json file${subfolders}`);
  }
  return sources;
}

async function readOnce(
  identity: string,
  { kept }: ReadInputsOptions,
  read: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  const bytes = kept?.get(identity) ?? (await read());
  kept?.set(identity, bytes);
  return bytes;
}

interface WalkOptions extends FindOptions {
  readonly name: string;
  /** The real paths of the folders that were read: symlinks can form a cycle. */
  readonly seen: Set<string>;
}

/** Finds the inputs of a folder, sorted by name; a subfolder's inputs take its place in the order. */
async function walk(path: string, options: WalkOptions): Promise<readonly Source[]> {
  const { name, seen, recursive, signal } = options;
  signal.throwIfAborted();
  const real = await realpath(path).catch((error: unknown) => refuse(name, error));
  if (seen.has(real)) return [];
  seen.add(real);
  const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => refuse(name, error));
  const sorted = entries
    .filter((entry) => isVisible(entry.name))
    .sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
  const sources: Source[] = [];
  for (const entry of sorted) {
    const wanted = isYamlName(entry.name);
    if (KUSTOMIZATIONS.has(entry.name)) {
      options.log.warn(
        `${join(name, entry.name)} is for kustomize, and no object of a cluster: for its result use -k ${name}`,
      );
    }
    if (!wanted && !recursive) continue;
    const at = { ...options, name: join(name, entry.name) };
    const place = join(path, entry.name);
    if (entry.isFile()) {
      if (wanted) sources.push(plainSource(place, { ...at, identity: join(real, entry.name) }));
      continue;
    }
    const info = await look(place, at.name, { mayBeMissing: !wanted });
    if (info?.isDirectory() === true) {
      if (recursive) sources.push(...(await walk(place, at)));
    } else if (info !== undefined && wanted) sources.push(await fileSource(place, { ...at, info }));
  }
  return sources;
}

/** https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/ */
const KUSTOMIZATIONS: ReadonlySet<string> = new Set(["kustomization.yaml", "kustomization.yml", "Kustomization"]);

/** Reports whether a file is neither hidden nor an editor's backup. */
function isVisible(name: string): boolean {
  return !name.startsWith(".") && !name.endsWith("~");
}

interface FileSourceOptions extends ReadInputsOptions {
  readonly name: string;
  readonly info: Stats;
}

async function fileSource(path: string, options: FileSourceOptions): Promise<Source> {
  const { name, info } = options;
  if (!info.isFile()) throw new KoError(`Cannot read "${name}": it is ${kindOf(info)}, wanted a file or a directory`);
  const identity = await realpath(path).catch((error: unknown) => refuse(name, error));
  return plainSource(path, { ...options, identity });
}

function plainSource(path: string, options: ReadInputsOptions & Omit<Source, "read">): Source {
  const { name, identity, signal, maxBytes = MAX_BYTES } = options;
  return { name, identity, read: () => readWhole(path, { name, signal, maxBytes }) };
}

interface ReadOptions {
  readonly name: string;
  readonly signal: AbortSignal;
  readonly maxBytes: number;
}

async function readWhole(path: string, { name, signal, maxBytes }: ReadOptions): Promise<Uint8Array> {
  signal.throwIfAborted();
  const tooLarge = (): KoError => new KoError(`Cannot read "${name}": it is more than ${maxBytes} bytes`);
  try {
    // O_NONBLOCK: the file may have been replaced by a pipe, on which open() would hang.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const info = await file.stat();
    if (!info.isFile()) throw new KoError(`Cannot read "${name}": it is ${kindOf(info)} now, wanted a file`);
    if (info.size > maxBytes) throw tooLarge();
    const bytes = await file.readFile({ signal });
    // The file may have grown while it was read.
    if (bytes.byteLength > maxBytes) throw tooLarge();
    return bytes;
  } catch (error) {
    signal.throwIfAborted();
    return error instanceof KoError ? Promise.reject(error) : refuse(name, error);
  }
}

async function readPipe(path: string, { name, signal, maxBytes }: ReadOptions): Promise<Uint8Array> {
  let bytes: Uint8Array | undefined;
  try {
    bytes = await readStream(Bun.file(path).stream(), { maxBytes, signal });
  } catch (error) {
    signal.throwIfAborted();
    return refuse(name, error);
  }
  if (bytes === undefined) throw new KoError(`Cannot read "${name}": it is more than ${maxBytes} bytes`);
  return bytes;
}

/** The input of `-k`: the output of `kubectl kustomize`. */
function kustomizeSource(folder: string, { host, log, signal }: ReadInputsOptions): Source {
  const name = `kubectl kustomize ${redactIfUrl(folder)}`;
  const read = async (): Promise<Uint8Array> => {
    log.debug(name);
    try {
      const argv = [findKubectl(host), "kustomize", "--", folder] as const;
      const { stdout } = await host.run(argv, { signal, stderr: "inherit" });
      return stdout;
    } catch (cause) {
      signal.throwIfAborted();
      throw new KoError(`Cannot read "${name}"`, { cause, transient: true });
    }
  };
  return { name, identity: `kustomize ${folder}`, read };
}

async function look(path: string, name: string): Promise<Stats>;
async function look(path: string, name: string, options: { mayBeMissing: boolean }): Promise<Stats | undefined>;
async function look(path: string, name: string, options = { mayBeMissing: false }): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (options.mayBeMissing) return undefined;
    const near = codeOf(error) === "ENOENT" ? await findNearestName(path) : undefined;
    return refuse(name, error, near === undefined ? undefined : `Did you mean -f "${join(dirname(name), near)}"?`);
  }
}

async function findNearestName(path: string): Promise<string | undefined> {
  const names = await readdir(dirname(path)).catch(() => []);
  // A dangling symlink has the name itself.
  const others = names.filter((name) => name !== basename(path));
  const longer = others.filter((name) => name.startsWith(basename(path)));
  return longer.length === 1 ? longer[0] : findNearest(basename(path), others);
}

function refuse(name: string, error: unknown, hint?: string): never {
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: "there is no such file",
    ENOTDIR: "a part of the path is not a directory",
    EACCES: "permission denied",
    EPERM: "permission denied",
    ELOOP: "its symbolic links form a cycle",
    ENXIO: "it is a pipe without a writer",
  };
  const why = reasons[codeOf(error) ?? ""];
  if (why !== undefined) throw new KoError(`Cannot read "${name}": ${why}`, { hint });
  throw new KoError(`Cannot read "${name}": ${messageOf(error)}`, { cause: error });
}

function kindOf(info: Stats): string {
  if (info.isFIFO()) return "a named pipe";
  if (info.isSocket()) return "a socket";
  return info.isCharacterDevice() || info.isBlockDevice() ? "a device" : "not a file";
}

/**
 * Fetches the bytes at a URL, with one attempt. `https` is allowed for every host, `http` only for loopback, and redirects
 * obey the same rules. Messages show neither user info nor query values, which can be secret (docs/rules.md B6).
 *
 * @throws {KoError} If the URL is not allowed, or the response is not 200, too large, a web page, or times out.
 */
export async function fetchInput(text: string, options: FetchInputOptions): Promise<Uint8Array> {
  const { maxBytes = MAX_URL_BYTES, idleTimeout = IDLE_TIMEOUT_MS } = options;
  const shown = redactUrl(text);
  if (!URL.canParse(text)) throw new KoError(`Cannot read "${shown}": it is not a URL`);
  const fail = (why: string, hint?: string): KoError =>
    new KoError(`Cannot read "${shown}": ${why}`, { hint, transient: true });
  const [{ StallGuard }, { Route }] = await Promise.all([import("./http-transfer.ts"), import("./http-route.ts")]);
  const guard = new StallGuard([options.signal]);
  using route = new Route(options.host.env);
  try {
    let url = new URL(text);
    for (let redirects = 0; ; redirects++) {
      const why = whyNotFetched(url, new URL(text));
      if (why !== undefined) throw fail(redirects === 0 ? why : `it redirects to "${redactUrl(url)}", and ${why}`);
      if (redirects > MAX_REDIRECTS) throw fail(`it redirects more than ${MAX_REDIRECTS} times`);
      refuseOffline(url, { action: `read "${redactUrl(url)}"`, env: options.host.env });
      guard.arm(idleTimeout, "no answer");
      const response = await fetchUrl(url, { route, first: new URL(text), signal: guard.signal });
      const location = response.headers.get("location");
      if ([301, 302, 303, 307, 308].includes(response.status) && location !== null) {
        await response.body?.cancel();
        if (!URL.canParse(location, url.href)) throw fail("it redirects to a malformed URL");
        url = new URL(location, url);
        continue;
      }
      if (response.status !== 200) {
        await response.body?.cancel();
        throw fail(
          `the server answered ${response.status}${response.statusText && ` ${response.statusText}`}, wanted 200`,
        );
      }
      const bytes = await readBody(response, { guard, idleTimeout, maxBytes });
      if (bytes === undefined) throw fail(`it is more than ${maxBytes} bytes`);
      if (isWebPage(response, bytes)) {
        throw fail("it is a web page, wanted YAML", "Name the URL of the raw file.");
      }
      return bytes;
    }
  } catch (error) {
    if (error instanceof KoError) throw error;
    if (guard.aborted) throw guard.signal.reason;
    if (guard.stalled !== undefined) throw fail(guard.stalled);
    // The message of fetch is dropped, because it can quote the URL.
    const code = wantsPassword(error) ? "the proxy wants a user and a password" : codeOf(error);
    throw fail(`the request failed${code === undefined ? "" : ` (${code})`}`);
  } finally {
    guard.end();
    guard.cancel();
  }
}

interface FetchOptions {
  readonly route: Route;
  readonly first: URL;
  readonly signal: AbortSignal;
}

async function fetchUrl(url: URL, { first, route, signal }: FetchOptions): Promise<Response> {
  const headers: Record<string, string> = { "user-agent": "ko", accept: "*/*" };
  // User name and password in the URL are for its origin only.
  if (url.origin === first.origin && (first.username !== "" || first.password !== "")) {
    const userinfo = `${decodeURIComponent(first.username)}:${decodeURIComponent(first.password)}`;
    headers["authorization"] = `Basic ${Buffer.from(userinfo).toString("base64")}`;
  }
  const bare = new URL(url);
  bare.username = "";
  bare.password = "";
  return route.send(url, ({ proxy, tls }) =>
    fetch(bare, {
      headers,
      signal,
      redirect: "manual",
      keepalive: false,
      timeout: false,
      proxy,
      tls: { rejectUnauthorized: true, ...tls },
    }),
  );
}

interface ReadBodyOptions {
  readonly guard: StallGuard;
  readonly idleTimeout: number;
  readonly maxBytes: number;
}

/** Reads the whole body; returns undefined if it is too large. */
async function readBody(response: Response, options: ReadBodyOptions): Promise<Uint8Array | undefined> {
  const { guard, idleTimeout, maxBytes } = options;
  const chunks: Uint8Array[] = [];
  let size = 0;
  guard.arm(idleTimeout, "no byte came");
  for await (const chunk of response.body ?? []) {
    guard.arm(idleTimeout, "no byte came");
    size += chunk.byteLength;
    if (size > maxBytes) return undefined;
    chunks.push(chunk);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

/** Reports whether a response is an HTML page, such as a login form, which kubectl would read as YAML. */
function isWebPage(response: Response, bytes: Uint8Array): boolean {
  const type = response.headers.get("content-type") ?? "";
  return /^text\/html\b/i.test(type) && /^\s*</.test(new TextDecoder().decode(bytes.subarray(0, 1024)));
}
