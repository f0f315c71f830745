/**
 * Fakes of the services of clouds: one server on loopback that gets the requests for all their hosts.
 *
 * A request keeps its URL in a header, because the client's http is led to this server whatever the host.
 */
import { createHost, type Host } from "../../lib/host.ts";
import { Http, type HttpOptions, type HttpRequest, type HttpResponse } from "../../lib/http.ts";
import type { Log } from "../../lib/log.ts";
import { parseRepository } from "../../lib/reference.ts";
import type { FindOptions, FoundCredential } from "../../lib/registry-credential.ts";
import { createKeychain } from "../../lib/registry-keychain.ts";
import { hostAt } from "./hostat.ts";
import { type Tree, type TreeEntry, writeTree } from "./tree.ts";

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
const real: Host = createHost();

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
    signal: real.signal,
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
