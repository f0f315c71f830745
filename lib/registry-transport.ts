/**
 * Sends requests to one registry host, follows redirects, and turns refusals into errors.
 *
 * It sends a request once, and again with another authorization or with a corrected endpoint; retries are the callers' task
 * (async.ts). Rules: docs/rules.md A1, A2, A8.7, E3, E4.
 */
import { RegistryError } from "./errors.ts";
import type { RequestBody } from "./http-transfer.ts";
import { type HttpResponse, isRedirect, MAX_REDIRECTS } from "./http.ts";
import { anonymous, type Authorization, Authorizer, type Scope } from "./registry-auth.ts";
import { readRefusal } from "./registry-errors.ts";
import type { Keychain } from "./registry-credential.ts";
import { ApiProbe, type ApiProbeOptions, type Endpoint, isSameEndpoint } from "./registry-ping.ts";
import type { Token } from "./registry-token.ts";
import { redactUrl, whyForbidden } from "./url.ts";

export interface ConnectionOptions extends ApiProbeOptions {
  readonly keychain: Keychain;
  /** `KO_TOKEN_HOSTS`: pairs `registry=server`, separated by commas. */
  readonly trusted: string;
}

export interface ConnectionRequest extends Scope {
  readonly method: string;
  /** A path such as `/v2/app/blobs/…`, or the URL that the registry gave for an upload. */
  readonly target: string | URL;
  /** The statuses that are not errors. */
  readonly accept: readonly number[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: RequestBody | Uint8Array;
  readonly signal?: AbortSignal | undefined;
  /** True lets the request outlive the run's signal: for clean-up. @default false */
  readonly detached?: boolean;
}

/** The statuses with which registries refuse a credential; some hide a private repository behind a 404. */
const REFUSALS: readonly number[] = [401, 403, 404, 429];

/** The transport to one registry host, with its endpoint and its authorization. */
export class Connection {
  readonly #options: ConnectionOptions;
  readonly #probe: ApiProbe;
  #authorizer: Authorizer | undefined;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#probe = new ApiProbe(options);
  }

  /** `https://host/`: where the registry answers, or answered in an earlier run. */
  async base(action: string): Promise<URL> {
    return (await this.#probe.find(action)).base;
  }

  /**
   * Fetches a token for other programs.
   *
   * @throws {KoError} If the registry wants no token, does not answer, or refuses.
   */
  async token(scope: Scope): Promise<Token> {
    return this.#authorizerFor(await this.#probe.find(scope.action)).token(scope);
  }

  /**
   * Sends one request with its authorization, and follows redirects by the rules.
   *
   * @throws {RegistryError} If the status of the response is not one of `request.accept`, or there is no response.
   */
  async send(request: ConnectionRequest): Promise<HttpResponse> {
    const endpoint = await this.#probe.find(request.action);
    try {
      return await this.#attempt(request, endpoint);
    } catch (error) {
      const mayBeStale = error instanceof RegistryError && request.signal?.aborted !== true;
      if (!mayBeStale || !this.#probe.isUnconfirmed(endpoint)) throw error;
      const now = await this.#probe.replace(endpoint, request.action);
      // The cached endpoint was right, so the refusal is about the request.
      if (error.status !== undefined && isSameEndpoint(endpoint, now)) throw error;
      return this.#attempt(request, now);
    }
  }

  /**
   * Resolves a `Location` header against the URL of its response, by the rules for redirects and upload locations.
   *
   * @throws {RegistryError} If the location may not be asked.
   */
  async resolve(location: string, from: URL, action: string): Promise<URL> {
    const { http } = this.#options;
    const base = await this.base(action);
    const fail = (why: string): RegistryError =>
      new RegistryError(`Cannot ${action}: the location that ${from.host} names is refused: ${why}`, {
        method: "GET",
        url: redactUrl(from),
      });
    if (!URL.canParse(location, from.href)) throw fail("it is not a URL");
    const next = new URL(location, from);
    [next.username, next.password, next.hash] = ["", "", ""];
    if (next.protocol === "http:" && from.protocol === "https:") {
      // A registry behind a TLS proxy may not know about https: stay with https on the same host.
      if (next.host !== from.host && !(next.hostname === from.hostname && next.port === "")) {
        throw fail(`${next.host} is not reached over https`);
      }
      next.protocol = "https:";
      next.port = from.port;
    }
    if (next.protocol !== "https:" && next.protocol !== "http:") throw fail(`${next.protocol} is not supported`);
    if (next.protocol === "http:" && base.protocol === "https:") throw fail(`${next.host} is not reached over https`);
    const why = await whyForbidden(next, base, { names: http.proxyFor(next) === false });
    if (why !== undefined) throw fail(why);
    return next;
  }

  /** Sends the request, and again if a refusal yields another authorization. */
  async #attempt(request: ConnectionRequest, endpoint: Endpoint): Promise<HttpResponse> {
    const { base } = endpoint;
    const authorizer = this.#authorizerFor(endpoint);
    const url = new URL(request.target, base.href);
    const isOwn = url.origin === base.origin;
    let authorization = isOwn ? await authorizer.header(request) : anonymous(request);
    let response = await this.#follow(request, { url, authorizer, authorization });
    for (let isFinal = !isOwn; !isFinal;) {
      // A refusal of everything that can be sent is final.
      isFinal = authorization.effort === "all";
      if (response.url.origin !== base.origin || !REFUSALS.includes(response.status)) break;
      const next = await authorizer.next(response, authorization);
      const isSame = next === undefined || next.header === authorization.header;
      authorization = next ?? authorization;
      if (isSame) break;
      await response.discard();
      response = await this.#follow(request, { url, authorizer, authorization });
    }
    if (response.url.origin === base.origin && response.status >= 200 && response.status < 300) {
      this.#probe.confirm(endpoint);
    }
    if (request.accept.includes(response.status)) return response;
    const { host, http } = this.#options;
    const { reasons, source } = authorization;
    throw await readRefusal(response, { request, host, http, source, reasons });
  }

  /** A new Authorizer for a new endpoint: tokens of a server that a stale record named are never sent. */
  #authorizerFor(endpoint: Endpoint): Authorizer {
    if (this.#authorizer?.endpoint !== endpoint) {
      const { host, http, keychain, trusted } = this.#options;
      this.#authorizer = new Authorizer({ endpoint, host, http, keychain, probe: this.#probe, trusted });
    }
    return this.#authorizer;
  }

  /** Sends and follows redirects. The authorization is dropped as soon as a redirect leaves the origin. */
  async #follow(request: ConnectionRequest, start: Start): Promise<HttpResponse> {
    const { http } = this.#options;
    const { action, body, method, signal } = request;
    const { authorizer } = start;
    const { base } = authorizer.endpoint;
    const isRead = method === "GET" || method === "HEAD";
    let { url } = start;
    let authorization = start.authorization.header;
    let isChallenged = false;
    for (let hops = 0; ;) {
      const response = await http.send({
        method,
        url,
        action,
        headers: { ...request.headers, ...(authorization === undefined ? {} : { authorization }) },
        ...(body === undefined ? {} : { body }),
        signal,
        detached: request.detached ?? false,
        // A TLS handshake with a port that speaks another protocol may hang.
        ...(this.#probe.isUnconfirmed(authorizer.endpoint) ? { deadline: http.deadlines.ping } : {}),
      });
      if (response.status === 401 && hops > 0 && url.origin !== base.origin && isRead && !isChallenged) {
        // Another host gets an anonymous token at most (docs/rules.md A2.16).
        isChallenged = true;
        authorization = await authorizer.anonymousHeader(response, request);
        if (authorization === undefined) return response;
        await response.discard();
        continue;
      }
      const location = response.headers.get("location");
      if (!isRedirect(response.status) || location === null) return response;
      if (request.accept.includes(response.status)) return response;
      await response.discard();
      const next = await this.resolve(location, url, action);
      const fail = (why: string): RegistryError =>
        new RegistryError(`Cannot ${action}: ${method} ${redactUrl(url)} answered ${response.status}: ${why}`, {
          method,
          url: redactUrl(url),
          status: response.status,
        });
      if (++hops > MAX_REDIRECTS) throw fail(`more than ${MAX_REDIRECTS} redirects`);
      if (!isRead && response.status !== 307 && response.status !== 308) {
        throw fail("this redirect would drop the request body");
      }
      if (next.origin !== url.origin) authorization = undefined;
      url = next;
    }
  }
}

interface Start {
  readonly url: URL;
  readonly authorizer: Authorizer;
  readonly authorization: Authorization;
}
