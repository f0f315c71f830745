/** The services of clouds that give credentials, and the network that leads to them, on this machine. */
import { join } from "node:path";
import type { Socket } from "bun";
import { createHost, type Host } from "../../lib/host.ts";
import { Http, type HttpOptions, type HttpRequest, type HttpResponse } from "../../lib/http.ts";
import type { Log } from "../../lib/log.ts";
import { parseRepository } from "../../lib/reference.ts";
import type { FindOptions, FoundCredential } from "../../lib/registry-credential.ts";
import { createKeychain } from "../../lib/registry-keychain.ts";
import { type Folder, makeFolder, type Tree, type TreeEntry, writeTree } from "./world-folders.ts";
import { hostAt } from "./world-host.ts";

/** A request as the service sees it. */
export interface CloudCall {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
  readonly body: string;
  /** The body as a form. */
  readonly form: Readonly<Record<string, string>>;
  /** Whether it would have gone through a proxy, if there is one. */
  readonly isDirect: boolean;
}

/** A service's answer to a call; undefined never comes. */
export type Service = (call: CloudCall) => Response | undefined;

/** Services by method and URL without query: `GET http://169.254.169.254/latest/…`. Others refuse the connection. */
export type Services = Readonly<Record<string, Service>>;

export interface CloudWorld extends Disposable {
  readonly tree: Tree;
  readonly calls: CloudCall[];
  /** `METHOD URL` of each call, without the query. */
  readonly asked: () => readonly string[];
  /** All lines of the log, at every level. */
  readonly said: string[];
  /** Other variables and services from now on. */
  services: Services;
  /** `user:password (source)`, or the reasons for none. */
  ask(name: string, options?: FindOptions): Promise<string>;
  find(name: string, options?: FindOptions): Promise<FoundCredential | undefined>;
  explain(name: string): string;
}

export interface CloudWorldOptions {
  /** `$ROOT` in values is the home directory. */
  readonly env?: Readonly<Record<string, string>>;
  /** Files below the home directory; `$ROOT` in programs and texts is its path. */
  readonly files?: Readonly<Record<string, TreeEntry>>;
  readonly services?: Services;
  /** Milliseconds. @default 5000: the answers come at once, on the busiest machine */
  readonly patience?: number;
}

const HEADER = "x-original-url";

/** Made once: it listens to signals. */
const machine: Host = createHost();

/** A home directory on a machine with the services that are given, and nothing else. */
export function makeCloudWorld({
  env = {},
  files = {},
  services = {},
  patience = 5000,
}: CloudWorldOptions): CloudWorld {
  const tree = writeTree({});
  const fill = (text: string): string => text.replaceAll("$ROOT", tree.path);
  for (const [path, entry] of Object.entries(files)) {
    const isProgram = typeof entry === "object" && entry !== null && "executable" in entry;
    const filled = typeof entry === "string" ? fill(entry) : isProgram ? { executable: fill(entry.executable) } : entry;
    tree.write({ [path]: filled });
  }
  const calls: CloudCall[] = [];
  const said: string[] = [];
  const say = (message: string): void => void said.push(message);
  const log: Log = { info: say, warn: (message) => say(`Warning: ${message}`), debug: say };
  const variables = Object.fromEntries(Object.entries(env).map(([name, value]) => [name, fill(value)]));
  const host = hostAt(tree.path, {
    env: { HOME: tree.path, PATH: `${tree.path}/bin`, ...variables },
    signal: machine.signal,
  });
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    fetch: async (request) => {
      const url = new URL(request.headers.get(HEADER) ?? "");
      const body = await request.text();
      const call: CloudCall = {
        method: request.method,
        url,
        headers: request.headers,
        body,
        form: Object.fromEntries(new URLSearchParams(body)),
        isDirect: request.headers.get("x-direct") === "true",
      };
      calls.push(call);
      const answer = world.services[nameOf(call)]?.(call);
      return answer ?? new Promise<Response>(() => {});
    },
  });
  const open = (options: HttpOptions): Http => {
    return new RoutedHttp(options, (request) =>
      nameOf(request) in world.services ? server.url : new URL("http://127.0.0.1:1"),
    );
  };
  const keychain = createKeychain(host, log, { cloud: { patience, open } });
  const world: CloudWorld = {
    tree,
    calls,
    said,
    services,
    asked: () => calls.map(nameOf),
    find: (name, options) => keychain.find(parseRepository(name), options),
    explain: (name) => (keychain.explain?.(parseRepository(name)) ?? []).join("; ").replaceAll(tree.path, "$ROOT"),
    ask: async (name, options) => {
      const found = await world.find(name, options);
      if (found === undefined) return world.explain(name);
      return `${show(found)} (${found.source})`.replaceAll(tree.path, "$ROOT");
    },
    [Symbol.dispose]: () => {
      void server.stop(true);
      tree[Symbol.dispose]();
    },
  };
  return world;
}

/** `user:password` or `identity:token`. */
export function show({ credential }: FoundCredential): string {
  return credential.kind === "basic"
    ? `${credential.username}:${credential.password}`
    : `${credential.kind}:${credential.token}`;
}

/** An answer in JSON. */
export function json(value: unknown, status = 200): Response {
  return Response.json(value, { status });
}

function nameOf({ method, url }: { readonly method: string; readonly url: URL }): string {
  return `${method} ${url.origin}${url.pathname}`;
}

class RoutedHttp extends Http {
  readonly #route: (request: HttpRequest) => URL;
  readonly #isDirect: boolean;

  constructor(options: HttpOptions, route: (request: HttpRequest) => URL) {
    super({ ...options, env: {} });
    this.#route = route;
    this.#isDirect = Object.keys(options.env).length === 0;
  }

  override send(request: HttpRequest): Promise<HttpResponse> {
    const headers = { ...request.headers, [HEADER]: request.url.href, "x-direct": String(this.#isDirect) };
    return super.send({ ...request, url: new URL("/", this.#route(request)), headers });
  }
}

export interface Visit {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
  readonly body: string;
}

export type Site = (visit: Visit, request: Request) => Response | Promise<Response>;

export interface Internet extends AsyncDisposable {
  /** For `HTTPS_PROXY`. */
  readonly proxy: string;
  /** Path of the authority's certificate, for `SSL_CERT_FILE`. */
  readonly authority: string;
  /** `METHOD https://host/path` of each request. */
  readonly visits: Visit[];
}

/** Makes the hosts of `sites` reachable. */
export async function makeInternet(sites: Readonly<Record<string, Site>>): Promise<Internet> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await makeFolder());
  await makeAuthority(folder, Object.keys(sites));
  const visits: Visit[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    tls: { cert: Bun.file(join(folder.path, "site.pem")), key: Bun.file(join(folder.path, "site.key")) },
    maxRequestBodySize: 1e9,
    fetch: async (request) => {
      const url = new URL(request.url);
      const real = new URL(`https://${request.headers.get("host")}${url.pathname}${url.search}`);
      const isText = !/octet-stream|tar|json$/.test(request.headers.get("content-type") ?? "");
      const body = isText || real.hostname.startsWith("api.") ? await request.clone().text() : "";
      const visit = { method: request.method, url: real, headers: request.headers, body };
      visits.push(visit);
      const site = sites[real.hostname];
      return site === undefined ? new Response("", { status: 502 }) : site(visit, request);
    },
  });
  stack.defer(() => server.stop(true));
  const port = server.port ?? 0;
  const proxy = startProxy(port);
  stack.defer(() => proxy.stop(true));
  const closing = stack.move();
  return {
    proxy: `http://127.0.0.1:${proxy.port}`,
    authority: join(folder.path, "authority.pem"),
    visits,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  };
}

/** Passes a request on to a registry that speaks http. */
export async function passTo(host: string, { method, url, headers }: Visit, request: Request): Promise<Response> {
  const sent = new Headers(headers);
  for (const name of ["authorization", "host", "connection", "content-length"]) sent.delete(name);
  const bytes = method === "GET" || method === "HEAD" ? undefined : await request.arrayBuffer();
  const response = await fetch(`http://${host}${url.pathname}${url.search}`, {
    method,
    headers: sent,
    redirect: "manual",
    ...(bytes === undefined ? {} : { body: bytes }),
  });
  const out = new Headers(response.headers);
  const location = out.get("location");
  if (location !== null) out.set("location", location.replace(/^http:\/\/[^/]+/, `https://${url.host}`));
  return new Response(method === "HEAD" ? null : await response.arrayBuffer(), {
    status: response.status,
    headers: out,
  });
}

interface Tunnel {
  target: Socket | undefined;
  readonly waiting: Uint8Array[];
}

/** A proxy that leads every CONNECT to one port. */
function startProxy(port: number): Bun.TCPSocketListener<Tunnel> {
  return Bun.listen<Tunnel>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: (socket) => {
        socket.data = { target: undefined, waiting: [] };
      },
      data: async (socket, chunk) => {
        const { data } = socket;
        if (data.target !== undefined) {
          data.target.write(chunk);
          return;
        }
        if (data.waiting.length > 0) {
          data.waiting.push(chunk);
          return;
        }
        data.waiting.push(new Uint8Array(0));
        data.target = await Bun.connect({
          hostname: "127.0.0.1",
          port,
          socket: {
            data: (_, answer) => void socket.write(answer),
            close: () => void socket.end(),
            error: () => void socket.end(),
          },
        });
        socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
        for (const early of data.waiting) data.target.write(early);
      },
      close: (socket) => void socket.data.target?.end(),
      error: (socket) => void socket.data.target?.end(),
    },
  });
}

async function makeAuthority({ path }: Folder, hosts: readonly string[]): Promise<void> {
  const at = (name: string): string => join(path, name);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await openssl([
    "req",
    "-x509",
    ...key,
    "-days",
    "2",
    "-subj",
    "/CN=ko test authority",
    "-keyout",
    at("authority.key"),
    "-out",
    at("authority.pem"),
  ]);
  await openssl(["req", ...key, "-subj", "/CN=ko test", "-keyout", at("site.key"), "-out", at("site.csr")]);
  await Bun.write(at("names"), `subjectAltName=${hosts.map((host) => `DNS:${host}`).join(",")}\n`);
  await openssl([
    "x509",
    "-req",
    "-in",
    at("site.csr"),
    "-CA",
    at("authority.pem"),
    "-CAkey",
    at("authority.key"),
    "-CAcreateserial",
    "-days",
    "2",
    "-extfile",
    at("names"),
    "-out",
    at("site.pem"),
  ]);
}

async function openssl(args: readonly string[]): Promise<void> {
  const child = Bun.spawn(["openssl", ...args], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const text = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`openssl failed: ${text}`);
}
