/**
 * Finds the Docker daemon: `DOCKER_HOST`, the docker context, else the first well-known socket that answers.
 *
 * It reads addresses and certificates and sends no request: docker.ts does. Rules: docs/rules.md C1.
 *
 * https://docs.docker.com/reference/cli/docker/#environment-variables
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { openSshBridge, sshCommand } from "./docker-ssh.ts";
import { codeOf, DaemonError, isMissing, KoError, messageOf, printable } from "./errors.ts";
import { readNames } from "./file.ts";
import type { Host } from "./host.ts";
import { Route } from "./http-route.ts";
import { isObject, parseJson } from "./json.ts";
import { isLoopback } from "./url.ts";

/** Where a daemon should be; no connection has been made yet. */
export interface DaemonEndpoint {
  /** In the form of `DOCKER_HOST`. */
  readonly url: string;
  /** The setting that names it, for messages: `DOCKER_HOST`, `docker context "colima"`. */
  readonly source: string;
  /** `DOCKER_API_VERSION`, which replaces the negotiated version. */
  readonly apiVersion: string | undefined;
  /** Warnings about the security of the connection. */
  readonly warnings: readonly string[];
  /** The well-known sockets that were tried before this one, each with the reason why it is not used. */
  readonly tried: readonly string[];
  /** The address for `fetch`; for ssh that of a local socket, opened now. @throws {KoError} If that fails. */
  connect(): Promise<DaemonAddress>;
}

/** The options of `fetch` for a daemon. Disposing of it closes the local socket of ssh. */
export interface DaemonAddress extends AsyncDisposable {
  /** `http://docker`, `https://10.0.0.2:2376`; no slash at the end. */
  readonly base: string;
  /** A Unix socket or a Windows named pipe. */
  readonly unix: string | undefined;
  readonly tls: DaemonTls | undefined;
  /** The way to a TCP address. A `ca` in `tls` is the only authority there. */
  readonly route: Route | undefined;
  /** The last error message of ssh; undefined if ssh has not failed or is not used. */
  lastWords(): string | undefined;
}

/** PEM texts. The server is verified unless `rejectUnauthorized` is false; `ca` replaces the system's authorities. */
export interface DaemonTls {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly rejectUnauthorized: boolean;
}

export interface FindDaemonOptions {
  /** Sockets that do not depend on the user. @default those of Docker and podman on this platform */
  readonly systemSockets?: readonly string[];
}

/** No setting names a daemon, and no well-known socket answers. */
export class NoDaemonError extends DaemonError {
  override readonly name: string = "NoDaemonError";
}

/** The `source` of a daemon that no setting names. */
export const WELL_KNOWN = "a well-known socket";
/** The context name that stands for no context. */
const DEFAULT_CONTEXT = "default";
/** `fetch` wants a host also for a socket. */
const SOCKET_BASE = "http://docker";
const DIRECT: Omit<DaemonAddress, "base"> = {
  unix: undefined,
  tls: undefined,
  route: undefined,
  lastWords: () => undefined,
  [Symbol.asyncDispose]: async () => {},
};
/** Milliseconds in which a socket must accept a connection. */
const PROBE_MS = 2000;

/**
 * Finds the daemon that the docker program would use, else the first well-known socket that answers.
 *
 * @throws {KoError} If a setting is not valid, or there is no daemon: the error lists the sockets that were tried.
 */
export async function findDaemon(host: Host, options: FindDaemonOptions = {}): Promise<DaemonEndpoint> {
  const given = host.env["DOCKER_HOST"] ?? "";
  if (given !== "") return readEndpoint(host, { url: given, source: "DOCKER_HOST", tls: () => readEnvTls(host) });
  const context = await findContext(host);
  if (context !== undefined) return context;
  const { path, tried } = await searchSockets(host, options.systemSockets ?? systemSockets(host.platform));
  if (path !== undefined) {
    return { ...socketEndpoint(path, { source: WELL_KNOWN }), apiVersion: readApiVersion(host), tried };
  }
  throw new NoDaemonError(
    `Cannot find a Docker daemon: DOCKER_HOST and docker context are not set, tried ${tried.join(", ")}`,
    {
      hint: "Start Docker, Colima, Rancher Desktop, OrbStack or podman, or type: export DOCKER_HOST=unix:///path/to/docker.sock",
    },
  );
}

/** The endpoint of a Unix socket or a Windows named pipe. */
export function socketEndpoint(path: string, options: { readonly source: string }): DaemonEndpoint {
  const isPipe = path.startsWith("\\\\");
  return {
    url: isPipe ? `npipe://${path.replaceAll("\\", "/")}` : `unix://${path}`,
    source: options.source,
    apiVersion: undefined,
    warnings: [],
    tried: [],
    connect: async () => ({ ...DIRECT, base: SOCKET_BASE, unix: path }),
  };
}

interface EndpointOptions {
  readonly url: string;
  readonly source: string;
  /** Called for a TCP address only. */
  readonly tls: () => Promise<DaemonTls | undefined>;
}

async function readEndpoint(host: Host, options: EndpointOptions): Promise<DaemonEndpoint> {
  const { url: text, source } = options;
  const apiVersion = readApiVersion(host);
  const scheme = /^([a-z]+):\/\//.exec(text)?.[1] ?? "";
  const rest = text.slice(scheme.length + "://".length);
  // The part before an "@" may hold a password.
  const shown = printable(text.replace(/\/\/[^/]*@/, "//…@"), 200);
  const fail = (why: string): KoError =>
    new DaemonError(`Cannot use "${shown}" from ${source} as a Docker daemon: ${why}`);
  switch (scheme) {
    case "unix":
      if (!rest.startsWith("/")) throw fail("wanted an absolute path, as in unix:///var/run/docker.sock");
      return { ...socketEndpoint(rest, { source }), apiVersion };
    case "npipe":
      if (host.platform !== "win32") throw fail("named pipes exist on Windows only");
      return { ...socketEndpoint(rest.replaceAll("/", "\\"), { source }), apiVersion };
    case "tcp":
    case "http":
    case "https":
      return { ...(await readTcp(host, { ...options, scheme, rest, fail })), apiVersion };
    case "ssh": {
      const argv = sshCommand(text, fail);
      const connect = async (): Promise<DaemonAddress> => {
        const bridge = await openSshBridge(host, argv);
        return { ...DIRECT, ...bridge, base: SOCKET_BASE };
      };
      return { url: printable(text, 200), source, apiVersion, warnings: [], tried: [], connect };
    }
    default:
      throw fail("wanted unix:///path, tcp://host:port or ssh://user@host");
  }
}

interface TcpOptions extends EndpointOptions {
  readonly scheme: "tcp" | "http" | "https";
  readonly rest: string;
  readonly fail: (why: string) => KoError;
}

async function readTcp(host: Host, options: TcpOptions): Promise<Omit<DaemonEndpoint, "apiVersion">> {
  const { rest, source, scheme, fail } = options;
  const tls = (await options.tls()) ?? (scheme === "https" ? { rejectUnauthorized: true } : undefined);
  const protocol = tls === undefined ? "http" : "https";
  if (!URL.canParse(`${protocol}://${rest}`)) throw fail("wanted tcp://host:port");
  const url = new URL(`${protocol}://${rest}`);
  if (url.username !== "" || url.password !== "") throw fail("it holds a user name or a password");
  if (url.search !== "" || url.hash !== "") throw fail('it holds a "?" or a "#"');
  // The default ports of the docker program.
  if (!/:\d+(?:\/|$)/.test(rest)) url.port = tls === undefined ? "2375" : "2376";
  const base = url.href.replace(/\/+$/, "");
  const port = url.port || (tls === undefined ? "80" : "443");
  const shown = `tcp://${url.hostname}:${port}${url.pathname === "/" ? "" : url.pathname}`;
  const warnings: string[] = [];
  if (tls === undefined && !isLoopback(url.host)) {
    warnings.push(`The Docker daemon at "${shown}" (${source}) is reached without TLS: anyone in between can use it`);
  }
  if (tls?.rejectUnauthorized === false) {
    warnings.push(`The certificate of the Docker daemon at "${shown}" (${source}) is not verified, as you asked`);
  }
  const connect = async (): Promise<DaemonAddress> => {
    const route = new Route(host.env);
    return { ...DIRECT, base, tls, route, [Symbol.asyncDispose]: async () => route[Symbol.dispose]() };
  };
  return { url: shown, source, warnings, tried: [], connect };
}

function readApiVersion({ env }: Host): string | undefined {
  const text = (env["DOCKER_API_VERSION"] ?? "").replace(/^v/, "");
  if (text === "" || /^\d+\.\d+$/.test(text)) return text || undefined;
  throw new DaemonError(`Cannot use DOCKER_API_VERSION "${printable(text, 40)}": wanted a version such as 1.41`);
}

/** The TLS settings of the environment. `DOCKER_CERT_PATH` alone turns on TLS with verification; in Docker without. */
async function readEnvTls(host: Host): Promise<DaemonTls | undefined> {
  const verify = host.env["DOCKER_TLS_VERIFY"] ?? "";
  const given = host.env["DOCKER_CERT_PATH"] ?? "";
  const off = /^(?:0|false)$/i.test(verify);
  if (given === "" && (verify === "" || off)) return undefined;
  const folder = given === "" ? configFolder(host) : given;
  const source = given === "" ? "DOCKER_TLS_VERIFY" : "DOCKER_CERT_PATH";
  if (folder === undefined) throw new DaemonError("Cannot use DOCKER_TLS_VERIFY: set DOCKER_CERT_PATH as well");
  const tls = await readTls(folder, source);
  if (given !== "" && tls.ca === undefined && tls.cert === undefined) {
    throw new DaemonError(`Cannot use DOCKER_CERT_PATH "${given}": there is no ca.pem, cert.pem or key.pem in it`, {
      hint: "For minikube: eval $(minikube docker-env)",
    });
  }
  return off ? { ...tls, rejectUnauthorized: false } : tls;
}

async function readTls(folder: string, source: string): Promise<DaemonTls> {
  const [ca, cert, key] = await Promise.all(["ca.pem", "cert.pem", "key.pem"].map((name) => readPem(folder, name)));
  if ((cert === undefined) !== (key === undefined)) {
    const [has, lacks] = cert === undefined ? ["key.pem", "cert.pem"] : ["cert.pem", "key.pem"];
    throw new DaemonError(`Cannot use ${source}: "${folder}" has ${has} but no ${lacks}`);
  }
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    rejectUnauthorized: true,
  };
}

/** Reads and checks a PEM file: the errors of `fetch` do not name the file or the reason. */
async function readPem(folder: string, name: string): Promise<string | undefined> {
  const file = join(folder, name);
  const text = await readText(file);
  if (text === undefined) return undefined;
  const { createPrivateKey, X509Certificate } = await import("node:crypto");
  try {
    if (name === "key.pem") createPrivateKey(text);
    else void new X509Certificate(text);
  } catch (cause) {
    const wanted = name === "key.pem" ? "a private key without passphrase" : "a certificate";
    // The cause of a refused key may quote the key.
    throw new DaemonError(`Cannot use "${file}" for the Docker daemon: it is not ${wanted} in PEM`, {
      cause: name === "key.pem" ? undefined : cause,
    });
  }
  return text;
}

/** The folder of docker's `config.json`, contexts and certificates. */
function configFolder({ env, platform }: Host): string | undefined {
  const home = platform === "win32" ? env["USERPROFILE"] : env["HOME"];
  return env["DOCKER_CONFIG"] || (!home ? undefined : join(home, ".docker"));
}

/** The daemon of the current context; undefined for the default context. */
async function findContext(host: Host): Promise<DaemonEndpoint | undefined> {
  const folder = configFolder(host);
  const config = folder === undefined ? undefined : join(folder, "config.json");
  let name = host.env["DOCKER_CONTEXT"] ?? "";
  let source = "DOCKER_CONTEXT";
  if (name === "" && config !== undefined) {
    const current = (await readObject(config))?.["currentContext"] ?? "";
    if (typeof current !== "string") throw new DaemonError(`Cannot read "${config}": currentContext is not a string`);
    [name, source] = [current, `currentContext of "${config}"`];
  }
  if (name === "" || name === DEFAULT_CONTEXT || folder === undefined) return undefined;
  const id = new Bun.CryptoHasher("sha256").update(name).digest("hex");
  const shown = printable(name, 100);
  const file = join(folder, "contexts", "meta", id, "meta.json");
  const meta = await readObject(file);
  if (meta === undefined) {
    throw new DaemonError(`Cannot find the docker context "${shown}" of ${source}: there is no "${file}"`, {
      hint: "docker context ls",
    });
  }
  const endpoints = meta["Endpoints"];
  const docker = isObject(endpoints) ? endpoints["docker"] : undefined;
  const url = isObject(docker) ? (docker["Host"] ?? "") : "";
  if (!isObject(docker) || typeof url !== "string") {
    throw new DaemonError(`Cannot use the docker context "${shown}": "${file}" has no Docker endpoint`);
  }
  if (url === "") return undefined;
  const tls = async (): Promise<DaemonTls | undefined> => {
    const found = await readTls(join(folder, "contexts", "tls", id, "docker"), `the docker context "${shown}"`);
    const skip = docker["SkipTLSVerify"] === true;
    if (!skip && found.ca === undefined && found.cert === undefined) return undefined;
    return skip ? { ...found, rejectUnauthorized: false } : found;
  };
  return readEndpoint(host, { url, source: `docker context "${shown}"`, tls });
}

async function readObject(file: string): Promise<Readonly<Record<string, unknown>> | undefined> {
  const text = await readText(file);
  if (text === undefined || text.trim() === "") return undefined;
  const value = parseJson(text);
  if (isObject(value)) return value;
  throw new DaemonError(`Cannot read "${file}": it is not a JSON object`);
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    throw new DaemonError(`Cannot read "${file}": ${messageOf(cause)}`, { cause });
  }
}

/** The system-wide sockets of Docker and podman. */
function systemSockets(platform: string): readonly string[] {
  if (platform === "win32") return ["\\\\.\\pipe\\docker_engine", "\\\\.\\pipe\\podman-machine-default"];
  return ["/var/run/docker.sock", "/run/podman/podman.sock"];
}

interface SocketSearch {
  /** The first socket that accepts a connection, else the first that denies permission. */
  readonly path: string | undefined;
  /** The sockets that accept no connection, each with the reason; not `path`. */
  readonly tried: readonly string[];
}

/** Tries the first of `system`, the sockets of the user's own daemons, then the rest of `system`. */
async function searchSockets(host: Pick<Host, "env" | "platform">, system: readonly string[]): Promise<SocketSearch> {
  const paths = [...system.slice(0, 1), ...userSockets(host), ...system.slice(1)];
  const tried: string[] = [];
  let forbidden: string | undefined;
  for (const path of new Set(paths)) {
    const state = await probe(path, host.platform);
    if (state === "listens") return { path, tried };
    if (state === "permission denied") forbidden ??= path;
    tried.push(`"${path}" (${state})`);
  }
  return { path: forbidden, tried: tried.filter((line) => !line.startsWith(`"${forbidden}" `)) };
}

function userSockets({ env, platform }: Pick<Host, "env" | "platform">): readonly string[] {
  const home = env["HOME"] ?? "";
  if (home === "" || platform === "win32") return [];
  const runtime = env["XDG_RUNTIME_DIR"] ?? "";
  const config = env["XDG_CONFIG_HOME"] || join(home, ".config");
  const colima = [env["COLIMA_HOME"] ?? "", join(home, ".colima"), join(config, "colima")];
  const own = [
    join(home, ".docker", "run", "docker.sock"),
    join(home, ".docker", "desktop", "docker.sock"),
    ...colima.filter((folder) => folder !== "").flatMap(colimaSockets),
    join(home, ".orbstack", "run", "docker.sock"),
    join(home, ".rd", "docker.sock"),
  ];
  const rootless = runtime === "" ? [] : [join(runtime, "docker.sock")];
  const podman = runtime === "" ? [] : [join(runtime, "podman", "podman.sock")];
  if (platform === "darwin") {
    const temporary = env["TMPDIR"] ?? "";
    if (temporary !== "") podman.push(join(temporary, "podman", "podman-machine-default-api.sock"));
    podman.push(join(home, ".local", "share", "containers", "podman", "machine", "podman.sock"));
  }
  return [...rootless, ...own, ...podman];
}

/** The sockets of Colima's profiles, that of the default profile first. */
function colimaSockets(folder: string): readonly string[] {
  const others = readNames(folder).filter((name) => !/^[._]|^default$/.test(name));
  const sockets = others.map((name) => join(folder, name, "docker.sock")).filter((path) => existsSync(path));
  return [join(folder, "default", "docker.sock"), ...sockets];
}

/** Connects to a socket: its file may outlive the daemon. Returns `listens` or the reason of the failure. */
async function probe(path: string, platform: string): Promise<string> {
  if (!existsSync(path)) return "not there";
  if (platform === "win32") return "listens";
  const deadline = Promise.withResolvers<string>();
  const timer = setTimeout(() => deadline.resolve("no answer"), PROBE_MS);
  const connecting = Bun.connect({ unix: path, socket: { data() {} } }).then(
    (socket) => {
      socket.end();
      return "listens";
    },
    (error: unknown) => {
      const code = codeOf(error);
      return code === "EACCES" || code === "EPERM" ? "permission denied" : "nothing listens";
    },
  );
  try {
    return await Promise.race([connecting, deadline.promise]);
  } finally {
    clearTimeout(timer);
  }
}
