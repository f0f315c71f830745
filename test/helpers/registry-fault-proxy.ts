/**
 * An HTTP server before a real registry that records every request, and breaks those that a rule names.
 *
 * It can also demand authentication that the registry behind it does not know of: Basic, or Bearer with a token
 * endpoint `/token` of its own. node:http, because Bun.serve cannot reset a connection.
 */
import { afterAll, beforeAll, beforeEach } from "bun:test";
import { createServer, type IncomingMessage, request as startRequest, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Repository } from "../../lib/reference.ts";
import { startRegistry, type TestRegistry, whyNoRegistry } from "./registry.ts";

/** What happens to a request instead of being passed on untouched. */
export type Fault =
  /** The answer, without the registry; `late`: after the whole body. `$HOST` in headers is this server's own host. */
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly headers?: Record<string, string>;
      readonly body?: string | Uint8Array;
      readonly late?: boolean;
    }
  /** The connection is closed without an answer: at once, after bytes of the body, or when the registry has done its work. */
  | { readonly kind: "reset"; readonly after?: "registry" | number }
  /** No answer, ever. */
  | { readonly kind: "hang" }
  /** The registry's answer, closed after `bytes` of its body; with `hang`, not closed but silent. */
  | { readonly kind: "cut"; readonly bytes: number; readonly hang?: boolean }
  /** The registry's answer with other headers (undefined takes one out) or another body. */
  | {
      readonly kind: "alter";
      readonly status?: number;
      readonly headers?: Record<string, string | undefined>;
      readonly body?: (bytes: Uint8Array) => Uint8Array;
    };

export interface Rule {
  readonly method?: string;
  /** Matched against path and query. */
  readonly path?: RegExp;
  /** Which of the matching requests, from 1. @default all */
  readonly only?: readonly number[];
  readonly fault: Fault;
}

export interface Seen {
  readonly method: string;
  /** With query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes of its body. */
  size: number;
  /** The body, of requests to `/token`. */
  text: string;
  /** Undefined when there was none. */
  status: number | undefined;
}

export interface BasicDemand {
  readonly kind: "basic";
  readonly username: string;
  readonly password: string;
}

export interface BearerDemand {
  readonly kind: "bearer";
  /** Without it, everybody gets a token. */
  readonly credential?: { readonly username: string; readonly password: string } | { readonly refreshToken: string };
  /** Whether `/v2/` itself is open. @default false */
  readonly openPing?: boolean;
  /** Other challenges, before ours. */
  readonly before?: string;
  /** @default this server's /token */
  readonly realm?: string;
  /** Reads only the last scope parameter, as GitLab does. @default false */
  readonly lastScopeOnly?: boolean;
  /** Refuses a token with a second scope. @default false */
  readonly oneScopeOnly?: boolean;
  /** What a POST to /token gets instead of a token. */
  readonly postStatus?: number;
  readonly expiresIn?: number;
  /** How often a token works. @default always */
  readonly uses?: number;
  /** Begins every token. @default "token" */
  readonly prefix?: string;
  readonly refreshToken?: string;
}

export type Demand = BasicDemand | BearerDemand;

export interface RegistrySuite {
  /** True if there is no docker-registry here: tests that need one are skipped then. */
  readonly missing: boolean;
  readonly server: Pick<TestRegistry, "data" | "host">;
  /** In front of the server. At the start of each test it has no rules and no demand, and has seen no request. */
  readonly proxy: FaultProxy;
  /** A second one in front of the same server, for URLs that lead elsewhere. */
  readonly other: FaultProxy;
  /** Of the proxy, empty: another one for each test. */
  readonly repository: Repository;
  /** The number of the test, from 1, for content that no other test has. */
  readonly testNumber: () => number;
}

/** Starts a docker-registry and its proxies for the tests of a file or of a `describe`; nothing is there before they run. */
export function registrySuite(): RegistrySuite {
  const missing = whyNoRegistry() !== undefined;
  const [proxy, other] = [new FaultProxy(), new FaultProxy()];
  let registry: TestRegistry | undefined;
  let count = 0;
  const started = (): TestRegistry => {
    if (registry === undefined) throw new Error("the registry runs only while tests do");
    return registry;
  };
  beforeAll(async () => {
    if (missing) return;
    registry = await startRegistry();
    await Promise.all([proxy.listen(registry.host), other.listen(registry.host)]);
  });
  afterAll(async () => {
    for (const resource of [proxy, other, registry]) await resource?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    count++;
    for (const each of [proxy, other]) {
      each.reset();
      each.demand = undefined;
    }
  });
  return {
    missing,
    server: {
      get data() {
        return started().data;
      },
      get host() {
        return started().host;
      },
    },
    proxy,
    other,
    repository: {
      get host() {
        return proxy.host;
      },
      get path() {
        return `test/app${count}`;
      },
    },
    testNumber: () => count,
  };
}

export class FaultProxy implements AsyncDisposable {
  readonly seen: Seen[] = [];
  rules: readonly Rule[] = [];
  demand: Demand | undefined;
  #upstream = "";
  readonly #server = createServer((request, response) => void this.#handle(request, response));
  readonly #matches = new Map<Rule, number>();
  readonly #tokens = new Map<string, { readonly scopes: readonly string[]; left: number }>();

  /** @param upstream `host:port` of a registry that speaks http */
  static async start(upstream: string): Promise<FaultProxy> {
    const proxy = new FaultProxy();
    await proxy.listen(upstream);
    return proxy;
  }

  /** Starts it. @param upstream `host:port` of a registry that speaks http */
  async listen(upstream: string): Promise<void> {
    this.#upstream = upstream;
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  /** `127.0.0.1:PORT` */
  get host(): string {
    const address: AddressInfo | string | null = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the fault proxy does not listen");
    return `127.0.0.1:${address.port}`;
  }

  /** What was asked, as `METHOD path-without-query status`, digests shortened to four digits. */
  get log(): readonly string[] {
    return this.seen.map(({ method, path, status }) => {
      const shown = path
        .replace(/\?.*$/, "")
        .replace(/sha256:([0-9a-f]{4})[0-9a-f]{60}/g, "$1")
        .replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "UUID");
      return `${method} ${shown} ${status ?? "-"}`;
    });
  }

  /** Forgets what was seen; rules and their counts begin anew. */
  reset(rules: readonly Rule[] = []): void {
    this.seen.length = 0;
    this.rules = rules;
    this.#matches.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "", url = "" } = request;
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(request.headers)) headers[name] = String(value);
    const seen: Seen = { method, path: url, headers, size: 0, text: "", status: undefined };
    this.seen.push(seen);
    response.on("error", () => {});
    request.on("error", () => {});
    request.on("data", (chunk: Uint8Array) => (seen.size += chunk.byteLength));
    request.pause();
    const answer = (status: number, more: Record<string, string>, body: string | Uint8Array): void => {
      seen.status = status;
      const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
      const shown = Object.entries(more).map(([name, value]) => [name, value.replaceAll("$HOST", this.host)]);
      // A refusal may come before the whole body: the connection is of no use then.
      response.writeHead(status, {
        "content-length": bytes.byteLength,
        ...(request.complete ? {} : { connection: "close" }),
        ...Object.fromEntries(shown),
      });
      response.end(method === "HEAD" ? undefined : bytes);
      request.resume();
    };
    try {
      if (url.startsWith("/token")) {
        await this.#token(request, seen, answer);
        return;
      }
      const fault = this.#match(seen);
      if (fault?.kind === "answer") {
        if (fault.late === true) for await (const _ of request);
        answer(fault.status, fault.headers ?? {}, fault.body ?? "");
        return;
      }
      if (fault?.kind === "hang") return;
      if (fault?.kind === "reset" && fault.after === undefined) {
        request.socket.destroy();
        return;
      }
      const challenge = this.#challenge(seen);
      if (challenge !== undefined) {
        const body = JSON.stringify({ errors: [{ code: "UNAUTHORIZED", message: "authentication required" }] });
        answer(401, { "www-authenticate": challenge, "content-type": "application/json" }, body);
        return;
      }
      await this.#pass(request, response, { seen, fault });
    } catch {
      request.socket.destroy();
    }
  }

  #match(seen: Seen): Fault | undefined {
    for (const rule of this.rules) {
      if (rule.method !== undefined && rule.method !== seen.method) continue;
      if (rule.path !== undefined && !rule.path.test(seen.path)) continue;
      const count = (this.#matches.get(rule) ?? 0) + 1;
      this.#matches.set(rule, count);
      if (rule.only === undefined || rule.only.includes(count)) return rule.fault;
    }
    return undefined;
  }

  async #pass(
    request: IncomingMessage,
    response: ServerResponse,
    { fault, seen }: { readonly fault: Fault | undefined; readonly seen: Seen },
  ): Promise<void> {
    const [hostname, port] = this.#upstream.split(":");
    const headers = { ...request.headers };
    // The registry makes its Locations of Host, which stays ours.
    delete headers.authorization;
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const upstream = startRequest(
        { hostname, port, method: seen.method, path: seen.path, headers, agent: false },
        resolve,
      );
      upstream.on("error", reject);
      request.on("aborted", () => upstream.destroy());
      request.on("data", () => {
        if (fault?.kind === "reset" && typeof fault.after === "number" && seen.size >= fault.after) {
          request.socket.destroy();
        }
      });
      request.pipe(upstream);
    });
    if (fault?.kind === "reset" && fault.after === "registry") {
      answer.resume();
      request.socket.destroy();
      return;
    }
    let status = answer.statusCode ?? 500;
    const out: Record<string, string> = {};
    for (const [name, value] of Object.entries(answer.headers)) out[name] = String(value);
    if (fault?.kind === "alter") {
      status = fault.status ?? status;
      const chunks: Uint8Array[] = [];
      for await (const chunk of answer) if (chunk instanceof Uint8Array) chunks.push(chunk);
      const whole = new Uint8Array(Buffer.concat(chunks));
      const body = fault.body?.(whole) ?? whole;
      if (seen.method !== "HEAD") out["content-length"] = String(body.byteLength);
      for (const [name, value] of Object.entries(fault.headers ?? {})) {
        if (value === undefined) delete out[name];
        else out[name] = value.replaceAll("$HOST", this.host);
      }
      seen.status = status;
      response.writeHead(status, out);
      response.end(seen.method === "HEAD" ? undefined : body);
      return;
    }
    seen.status = status;
    response.writeHead(status, out);
    let left = fault?.kind === "cut" ? fault.bytes : Infinity;
    for await (const chunk of answer) {
      if (!(chunk instanceof Uint8Array)) continue;
      const part = chunk.subarray(0, Math.min(left, chunk.byteLength));
      left -= part.byteLength;
      if (part.byteLength > 0 && !response.write(part)) await new Promise((resolve) => response.once("drain", resolve));
      if (left <= 0) {
        // What was written shall arrive before the connection goes.
        await Bun.sleep(20);
        if (fault?.kind === "cut" && fault.hang === true) return;
        request.socket.destroy();
        return;
      }
    }
    response.end();
  }

  /** The challenge for a request that may not pass, or undefined. */
  #challenge(seen: Seen): string | undefined {
    const { demand } = this;
    if (demand === undefined) return undefined;
    const sent = seen.headers["authorization"];
    if (demand.kind === "basic") {
      const wanted = `Basic ${Buffer.from(`${demand.username}:${demand.password}`).toString("base64")}`;
      return sent === wanted ? undefined : 'Basic realm="test registry"';
    }
    if (seen.path === "/v2/" && demand.openPing === true) return undefined;
    const token = this.#tokens.get((sent ?? "").replace(/^Bearer /, ""));
    const repository = /^\/v2\/(.+)\/(?:blobs|manifests|tags)\//.exec(seen.path)?.[1];
    const action = seen.method === "GET" || seen.method === "HEAD" ? "pull" : "push";
    const covered =
      repository === undefined ||
      (token?.scopes ?? []).some((scope) => {
        const match = /^repository:(.+):([a-z,]+)$/.exec(scope);
        return match?.[1] === repository && match[2]?.split(",").includes(action) === true;
      });
    if (token !== undefined && covered && token.left > 0) {
      token.left--;
      return undefined;
    }
    const scope =
      repository === undefined ? "" : `,scope="repository:${repository}:${action === "push" ? "pull,push" : "pull"}"`;
    const realm = demand.realm ?? `http://${this.host}/token`;
    return `${demand.before ?? ""}Bearer realm="${realm}",service="test, \\"registry\\""${scope}`;
  }

  async #token(
    request: IncomingMessage,
    seen: Seen,
    answer: (status: number, headers: Record<string, string>, body: string) => void,
  ): Promise<void> {
    const { demand } = this;
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) if (chunk instanceof Uint8Array) chunks.push(chunk);
    seen.text = Buffer.concat(chunks).toString();
    if (demand?.kind !== "bearer") {
      answer(404, {}, "");
      return;
    }
    const isPost = seen.method === "POST";
    if (isPost && demand.postStatus !== undefined) {
      answer(demand.postStatus, {}, "");
      return;
    }
    const form = new URLSearchParams(isPost ? seen.text : seen.path.replace(/^[^?]*\??/, ""));
    let scopes = form.getAll("scope").flatMap((scope) => scope.split(" "));
    if (demand.oneScopeOnly === true && scopes.length > 1) {
      answer(403, {}, JSON.stringify({ errors: [{ code: "DENIED", message: "too many scopes" }] }));
      return;
    }
    if (demand.lastScopeOnly === true) scopes = scopes.slice(-1);
    const { credential } = demand;
    if (credential !== undefined) {
      const basic = Buffer.from((seen.headers["authorization"] ?? "").replace(/^Basic /, ""), "base64").toString();
      const known =
        "refreshToken" in credential
          ? form.get("refresh_token") === credential.refreshToken || basic === `<token>:${credential.refreshToken}`
          : basic === `${credential.username}:${credential.password}`;
      if (!known) {
        // A careless server that says what it got.
        const echo = `no such account: ${seen.headers["authorization"] ?? ""} ${basic} ${seen.text}`;
        answer(401, {}, JSON.stringify({ errors: [{ code: "UNAUTHORIZED", message: echo }] }));
        return;
      }
    }
    const token = `${demand.prefix ?? "token"}-${this.#tokens.size + 1}`;
    this.#tokens.set(token, { scopes, left: demand.uses ?? Infinity });
    const body = {
      token,
      ...(demand.expiresIn === undefined ? {} : { expires_in: demand.expiresIn }),
      ...(demand.refreshToken === undefined ? {} : { refresh_token: demand.refreshToken }),
    };
    answer(200, { "content-type": "application/json" }, JSON.stringify(body));
  }
}
