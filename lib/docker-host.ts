/**
 * Where the container daemon is: `DOCKER_HOST`, the docker context, else a well-known socket that answers.
 *
 * As the docker program finds it, and then further: Docker Desktop, Colima, OrbStack, Rancher Desktop, rootless Docker
 * and podman put their sockets elsewhere. Rules: rules.md C1. It speaks no HTTP: docker.ts does; ssh is in docker-ssh.ts.
 *
 * https://docs.docker.com/reference/cli/docker/#environment-variables
 *
 * The sockets of container daemons that nobody named: Docker, Docker Desktop, Colima, OrbStack, Rancher Desktop,
 * rootless Docker and podman each have a place of their own (rules.md C1.4).
 */
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { openSshBridge, sshCommand } from "./docker-ssh.ts";
import { KoError, messageOf, printable } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";
import { chooseProxy, isLoopback } from "./url.ts";

/** A daemon that is said to be somewhere; nobody has talked to it yet. */
export interface DaemonEndpoint {
  /** As `DOCKER_HOST` would say it. */
  readonly url: string;
  /** Which setting named it, for messages: `DOCKER_HOST`, `docker context "colima"`. */
  readonly source: string;
  /** `DOCKER_API_VERSION`: use this version, whatever the daemon says. */
  readonly apiVersion: string | undefined;
  /** What the user should know of the way to it. */
  readonly warnings: readonly string[];
  /** Prepares the way; for ssh a local socket. @throws {KoError} If it cannot be prepared. */
  connect(): Promise<DaemonAddress>;
}

/** What `fetch` needs to know; undone when it is disposed of. */
export interface DaemonAddress extends AsyncDisposable {
  /** `http://docker`, `https://10.0.0.2:2376`; no slash at the end. */
  readonly base: string;
  /** A Unix socket or a Windows named pipe. */
  readonly unix: string | undefined;
  readonly tls: DaemonTls | undefined;
  readonly proxy: string | false;
  /** What the program that carries the bytes said when it failed. */
  lastWords(): string | undefined;
}

/** PEM texts. The server is verified unless `rejectUnauthorized` is false; `ca` replaces the system's. */
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

/** Whose name stands for no context at all. */
const DEFAULT_CONTEXT = "default";
/** A name for a host that is reached through a socket. */
const SOCKET_BASE = "http://docker";

/**
 * The daemon that the docker program would use, else the first well-known socket that answers.
 *
 * @throws {KoError} If a setting cannot be understood, or there is no daemon: then it lists what was tried.
 */
export async function findDaemon(host: Host, options: FindDaemonOptions = {}): Promise<DaemonEndpoint> {
  const given = host.env["DOCKER_HOST"] ?? "";
  if (given !== "") return readEndpoint(host, { url: given, source: "DOCKER_HOST", tls: () => readEnvTls(host) });
  const context = await findContext(host);
  if (context !== undefined) return context;
  const { path, tried } = await searchSockets(host, options.systemSockets ?? systemSockets(host.platform));
  if (path !== undefined) {
    return { ...socketEndpoint(path, { source: "a well-known socket" }), apiVersion: readApiVersion(host) };
  }
  throw new KoError(
    `Cannot find a Docker daemon: DOCKER_HOST and docker context are not set, tried ${tried.join(", ")}`,
    {
      hint: "Start Docker, Colima, Rancher Desktop, OrbStack or podman, or type: export DOCKER_HOST=unix:///path/to/docker.sock",
    },
  );
}

/** The endpoint of a Unix socket or named pipe. */
export function socketEndpoint(path: string, options: { readonly source: string }): DaemonEndpoint {
  const isPipe = path.startsWith("\\\\");
  return {
    url: isPipe ? `npipe://${path.replaceAll("\\", "/")}` : `unix://${path}`,
    source: options.source,
    apiVersion: undefined,
    warnings: [],
    connect: async () => ({ ...DIRECT, base: SOCKET_BASE, unix: path }),
  };
}

const DIRECT: Omit<DaemonAddress, "base"> = {
  unix: undefined,
  tls: undefined,
  proxy: false,
  lastWords: () => undefined,
  [Symbol.asyncDispose]: async () => {},
};

interface EndpointOptions {
  readonly url: string;
  readonly source: string;
  /** Read only where the URL is one of TCP. */
  readonly tls: () => Promise<DaemonTls | undefined>;
}

async function readEndpoint(host: Host, options: EndpointOptions): Promise<DaemonEndpoint> {
  const { url: text, source } = options;
  const apiVersion = readApiVersion(host);
  const scheme = /^([a-z]+):\/\//.exec(text)?.[1] ?? "";
  const rest = text.slice(scheme.length + "://".length);
  // Not quoted as it is: what stands before an "@" may be a password.
  const shown = printable(text.replace(/\/\/[^/]*@/, "//…@"), 200);
  const fail = (why: string): KoError => new KoError(`Cannot use "${shown}" from ${source} as a Docker daemon: ${why}`);
  switch (scheme) {
    case "unix":
      if (!rest.startsWith("/")) throw fail("wanted an absolute path, as in unix:///var/run/docker.sock");
      return { ...socketEndpoint(rest, { source }), apiVersion };
    case "npipe":
      if (host.platform !== "win32") throw fail("named pipes are a thing of Windows");
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
      return { url: printable(text, 200), source, apiVersion, warnings: [], connect };
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
  // As the docker program's default ports.
  if (!/:\d+(?:\/|$)/.test(rest)) url.port = tls === undefined ? "2375" : "2376";
  const base = url.href.replace(/\/+$/, "");
  const port = url.port || (tls === undefined ? "80" : "443");
  const shown = `tcp://${url.hostname}:${port}${url.pathname === "/" ? "" : url.pathname}`;
  const warnings: string[] = [];
  if (tls === undefined && !isLoopback(url.host)) {
    warnings.push(`The Docker daemon at "${shown}" (${source}) is reached without TLS: anybody on the way may use it`);
  }
  if (tls?.rejectUnauthorized === false) {
    warnings.push(`The certificate of the Docker daemon at "${shown}" (${source}) is not verified, as you asked`);
  }
  const proxy = chooseProxy(url, host.env);
  return { url: shown, source, warnings, connect: async () => ({ ...DIRECT, base, tls, proxy }) };
}

function readApiVersion({ env }: Host): string | undefined {
  const text = (env["DOCKER_API_VERSION"] ?? "").replace(/^v/, "");
  if (text === "" || /^\d+\.\d+$/.test(text)) return text || undefined;
  throw new KoError(`Cannot use DOCKER_API_VERSION "${printable(text, 40)}": wanted a version such as 1.41`);
}

/** `DOCKER_CERT_PATH` alone means TLS too, and the server is verified then as well (moby does not). */
async function readEnvTls(host: Host): Promise<DaemonTls | undefined> {
  const verify = host.env["DOCKER_TLS_VERIFY"] ?? "";
  const given = host.env["DOCKER_CERT_PATH"] ?? "";
  const off = /^(?:0|false)$/i.test(verify);
  if (given === "" && (verify === "" || off)) return undefined;
  const folder = given === "" ? configFolder(host) : given;
  const source = given === "" ? "DOCKER_TLS_VERIFY" : "DOCKER_CERT_PATH";
  if (folder === undefined) throw new KoError("Cannot use DOCKER_TLS_VERIFY: set DOCKER_CERT_PATH as well");
  const tls = await readTls(folder, source);
  if (given !== "" && tls.ca === undefined && tls.cert === undefined) {
    throw new KoError(`Cannot use DOCKER_CERT_PATH "${given}": there is no ca.pem, cert.pem or key.pem in it`, {
      hint: "For minikube: eval $(minikube docker-env)",
    });
  }
  return off ? { ...tls, rejectUnauthorized: false } : tls;
}

async function readTls(folder: string, source: string): Promise<DaemonTls> {
  const [ca, cert, key] = await Promise.all(["ca.pem", "cert.pem", "key.pem"].map((name) => readPem(folder, name)));
  if ((cert === undefined) !== (key === undefined)) {
    const [has, lacks] = cert === undefined ? ["key.pem", "cert.pem"] : ["cert.pem", "key.pem"];
    throw new KoError(`Cannot use ${source}: "${folder}" has ${has} but no ${lacks}`);
  }
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    rejectUnauthorized: true,
  };
}

/** `fetch` says nothing useful about PEM files that it cannot read, so they are read here first. */
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
    // The reader's own error may quote the file.
    throw new KoError(`Cannot use "${file}" for the Docker daemon: it is not ${wanted} in PEM`, {
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

/** The daemon of the context in use, or undefined for the default one. */
async function findContext(host: Host): Promise<DaemonEndpoint | undefined> {
  const folder = configFolder(host);
  const config = folder === undefined ? undefined : join(folder, "config.json");
  let name = host.env["DOCKER_CONTEXT"] ?? "";
  let source = "DOCKER_CONTEXT";
  if (name === "" && config !== undefined) {
    const current = (await readObject(config))?.["currentContext"] ?? "";
    if (typeof current !== "string") throw new KoError(`Cannot read "${config}": currentContext is no string`);
    [name, source] = [current, `currentContext of "${config}"`];
  }
  if (name === "" || name === DEFAULT_CONTEXT || folder === undefined) return undefined;
  const id = new Bun.CryptoHasher("sha256").update(name).digest("hex");
  const shown = printable(name, 100);
  const file = join(folder, "contexts", "meta", id, "meta.json");
  const meta = await readObject(file);
  if (meta === undefined) {
    throw new KoError(`Cannot find the docker context "${shown}" of ${source}: there is no "${file}"`, {
      hint: "docker context ls",
    });
  }
  const endpoints = meta["Endpoints"];
  const docker = isObject(endpoints) ? endpoints["docker"] : undefined;
  const url = isObject(docker) ? (docker["Host"] ?? "") : "";
  if (!isObject(docker) || typeof url !== "string") {
    throw new KoError(`Cannot use the docker context "${shown}": "${file}" names no Docker endpoint`);
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
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Its message would quote the file, which may hold passwords.
  }
  if (isObject(value)) return value;
  throw new KoError(`Cannot read "${file}": it is no JSON object`);
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : "";
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new KoError(`Cannot read "${file}": ${messageOf(cause)}`, { cause });
  }
}

export interface SocketSearch {
  /** The first that takes a connection; if none does, the first that is there but forbidden to us. */
  readonly path: string | undefined;
  /** What was looked at before that, each with what became of it. */
  readonly tried: readonly string[];
}

/** Milliseconds for a local socket to take a connection. */
const PROBE_MS = 2000;

/** Where a daemon of the whole machine listens. */
export function systemSockets(platform: string): readonly string[] {
  if (platform === "win32") return ["\\\\.\\pipe\\docker_engine", "\\\\.\\pipe\\podman-machine-default"];
  return ["/var/run/docker.sock", "/run/podman/podman.sock"];
}

/**
 * Tries the first of `system`, the user's own, then the rest of `system`.
 *
 * @param system see {@link systemSockets}
 */
export async function searchSockets(
  host: Pick<Host, "env" | "platform">,
  system: readonly string[],
): Promise<SocketSearch> {
  const paths = [...system.slice(0, 1), ...(await userSockets(host)), ...system.slice(1)];
  const tried: string[] = [];
  let forbidden: string | undefined;
  for (const path of new Set(paths)) {
    const state = await probe(path, host.platform);
    if (state === "listens") return { path, tried };
    if (state === "permission denied") forbidden ??= path;
    tried.push(`"${path}" (${state})`);
  }
  return { path: forbidden, tried };
}

async function userSockets({ env, platform }: Pick<Host, "env" | "platform">): Promise<readonly string[]> {
  const home = env["HOME"] ?? "";
  if (home === "" || platform === "win32") return [];
  const runtime = env["XDG_RUNTIME_DIR"] ?? "";
  const config = env["XDG_CONFIG_HOME"] || join(home, ".config");
  const colima = [env["COLIMA_HOME"] ?? "", join(home, ".colima"), join(config, "colima")];
  const profiles = await Promise.all(colima.filter((folder) => folder !== "").map(colimaSockets));
  const own = [
    join(home, ".docker", "run", "docker.sock"),
    join(home, ".docker", "desktop", "docker.sock"),
    ...profiles.flat(),
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

/** The default profile's first, then the others'. */
async function colimaSockets(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder).catch(() => []);
  const others = names.filter((name) => !/^[._]|^default$/.test(name)).sort();
  const sockets = others.map((name) => join(folder, name, "docker.sock")).filter((path) => existsSync(path));
  return [join(folder, "default", "docker.sock"), ...sockets];
}

/** A socket file may be there although nobody listens any more. */
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
      const code = error instanceof Error && "code" in error ? error.code : "";
      return code === "EACCES" || code === "EPERM" ? "permission denied" : "nothing listens";
    },
  );
  try {
    return await Promise.race([connecting, deadline.promise]);
  } finally {
    clearTimeout(timer);
  }
}
