/**
 * One HTTP exchange with a registry or token server: deadlines, stall guard, TLS and proxy rules, redacted log lines.
 *
 * Redirects are followed in registry-transport.ts, credentials are held in registry-auth.ts, retries are in async.ts.
 * The reason for each option of `fetch`: docs/rules.md, Bun 4, A11 and E1.
 */
import type { Clock } from "./async.ts";
import { messageOf } from "./errors.ts";
import { explainFailure, isClosed } from "./http-errors.ts";
import { findRule, hasHost, type HostRule, type HostRules } from "./http-hosts.ts";
import { Route } from "./http-route.ts";
import { type Deadlines, type RequestBody, SilenceBudget, StallGuard, Upload } from "./http-transfer.ts";
import type { Log } from "./log.ts";
import { refuseOffline } from "./offline.ts";
import { redactUrl, type Secrets } from "./url.ts";

export interface HttpOptions {
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly userAgent: string;
  /** Holds the proxy variables and those of certificates: see {@link Route}. */
  readonly env: Readonly<Record<string, string>>;
  /** `host[:port]` whose certificates are not verified. */
  readonly insecureHosts: readonly string[];
  /** The user's rules for hosts. @default none */
  readonly rules?: HostRules | undefined;
  readonly secrets: Secrets;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
}

export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  /** The caller's task, for errors: `push layer sha256:… to "host/app"`. */
  readonly action: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: RequestBody | Uint8Array;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until the response begins or the body moves. @default the `firstByte` deadline */
  readonly deadline?: number;
  /** True lets the request outlive the run's signal: for clean-up. @default false */
  readonly detached?: boolean;
  /** True shows the host of the URL alone: a credential endpoint has named it, and its path may be a secret. @default false */
  readonly isSecret?: boolean;
}

/** The most redirects that one request follows. */
export const MAX_REDIRECTS = 5;

/** A client whose exchanges share one pool of connections. */
export class Http implements Disposable {
  readonly #options: HttpOptions;
  // Bun notices a half-open pooled connection only by this timer (docs/rules.md, Bun 4).
  readonly #session = new Bun.FetchSession({ keepAlive: { idleTimeout: 30 } });
  readonly #route: Route;
  /** By `host:port`. */
  readonly #silences = new Map<string, SilenceBudget>();
  /** The origins that have answered: a connection to them may be in the pool. */
  readonly #answered = new Set<string>();
  /** The origins that close connections in the pool without a word. */
  readonly #closing = new Set<string>();

  constructor(options: HttpOptions) {
    this.#options = options;
    this.#route = new Route(options.env, options.rules);
  }

  get secrets(): Secrets {
    return this.#options.secrets;
  }

  get deadlines(): Deadlines {
    return this.#options.deadlines;
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  /** The user's rule for the host of `url`. */
  ruleFor(url: URL): HostRule | undefined {
    const { insecureHosts, rules } = this.#options;
    const rule = rules && findRule(rules, url);
    if (rule?.insecure === true || !hasHost(insecureHosts, url)) return rule;
    return { http: rule?.http ?? false, insecure: true, ca: rule?.ca };
  }

  /** Whether the user allows plain http for this host. */
  allowsHttp(url: URL): boolean {
    const rule = this.ruleFor(url);
    return rule !== undefined && (rule.http || rule.insecure);
  }

  /** The proxy for `url`, or false for none. */
  proxyFor(url: URL): string | false {
    return this.#route.proxyFor(url);
  }

  /**
   * Sends a request once and returns the head of the response, with any status.
   *
   * @throws {RegistryError} If there is no response.
   * @throws {KoError} If the source of the body fails, or the run is offline; retrying would not help.
   */
  async send(request: HttpRequest): Promise<HttpResponse> {
    const { clock, deadlines, env, log, secrets } = this.#options;
    const url = new URL(request.url);
    refuseOffline(url, { action: request.action, env });
    // fetch would turn these into Basic.
    url.username = "";
    url.password = "";
    const started = clock.now();
    const guard = new StallGuard(
      [request.detached === true ? undefined : this.#options.signal, request.signal],
      this.#silenceOf(url),
    );
    const upload = request.body === undefined ? undefined : new Upload(request.body, { guard, deadlines });
    guard.arm(request.deadline ?? deadlines.firstByte, "no answer");
    try {
      const response = await this.#exchange({ request, url, guard, upload });
      guard.disarm();
      this.#answered.add(url.origin);
      log.debug(`${request.method} ${showUrl(request, url)}: ${response.status} after ${clock.now() - started} ms`);
      return new HttpResponse(response, { request, url, guard, http: this });
    } catch (error) {
      guard.end();
      const sourceFailure = guard.aborted ? undefined : upload?.failure;
      const failure = sourceFailure ?? this.explain(error, { request, url, guard });
      log.debug(secrets.hide(messageOf(failure)));
      throw failure;
    } finally {
      // A response before the end of the body would leave the source open.
      upload?.close();
    }
  }

  /**
   * Sends a request, and at once a second time if it went on a pooled connection that the server had closed.
   *
   * `fetch` itself does that for GET, HEAD, PUT and DELETE without a stream as body.
   */
  async #exchange(sent: Sent): Promise<Response> {
    const { guard, request, upload, url } = sent;
    const isFresh = this.#closing.has(url.origin) && upload?.isShort === false;
    try {
      return await this.#fetch(sent, { keepAlive: !isFresh });
    } catch (error) {
      const mayBePooled = !isFresh && this.#answered.has(url.origin) && isClosed(error);
      if (!mayBePooled || guard.stalled !== undefined || guard.aborted) throw error;
      this.#closing.add(url.origin);
      const isResent = request.method !== "POST" && request.method !== "PATCH";
      if (upload?.isShort === false || isResent) throw error;
      return this.#fetch(sent, { keepAlive: false });
    }
  }

  #fetch({ guard, request, upload, url }: Sent, { keepAlive }: { readonly keepAlive: boolean }): Promise<Response> {
    return this.#route.send(url, ({ proxy, tls }) =>
      this.#session.fetch(url, {
        method: request.method,
        headers: {
          "user-agent": this.#options.userAgent,
          "accept-encoding": "identity",
          ...request.headers,
          ...(upload?.size === undefined ? {} : { "content-length": String(upload.size) }),
        },
        ...(upload === undefined ? {} : { body: upload.body() }),
        signal: guard.signal,
        redirect: "manual",
        decompress: false,
        keepalive: keepAlive,
        timeout: false,
        verbose: false,
        proxy,
        tls: { rejectUnauthorized: this.ruleFor(url)?.insecure !== true, ...tls },
      }),
    );
  }

  /** The error to throw for a failed exchange. The error of `fetch` is not its cause: it may quote the URL. */
  explain(error: unknown, { request, url, guard }: Omit<Exchange, "http">): unknown {
    if (guard.aborted) return guard.signal.reason;
    return explainFailure(error, {
      request,
      url,
      shown: showUrl(request, url),
      secrets: this.secrets,
      stalled: guard.stalled,
      isSilent: this.#silenceOf(url).left === 0,
      proxy: this.proxyFor(url),
      proxyFailure: this.#route.failure(url),
    });
  }

  /** Closes idle connections, which would keep the process alive. */
  [Symbol.dispose](): void {
    this.#session.close();
    this.#route[Symbol.dispose]();
  }

  #silenceOf({ host }: URL): SilenceBudget {
    let silence = this.#silences.get(host);
    if (silence === undefined) this.#silences.set(host, (silence = new SilenceBudget(this.deadlines.silence)));
    return silence;
  }
}

/** The head of a response. Its user must call exactly one of `body`, `bytes` and `discard`. */
export class HttpResponse {
  readonly status: number;
  readonly headers: Headers;
  readonly #response: Response;
  readonly #exchange: Exchange;

  constructor(response: Response, exchange: Exchange) {
    this.status = response.status;
    this.headers = response.headers;
    this.#response = response;
    this.#exchange = exchange;
  }

  get method(): string {
    return this.#exchange.request.method;
  }

  /** The URL of the request, without userinfo. It may hold secrets: see {@link HttpResponse.shownUrl}. */
  get url(): URL {
    return this.#exchange.url;
  }

  /** The URL for messages, without secrets. */
  get shownUrl(): string {
    return showUrl(this.#exchange.request, this.url);
  }

  /** `Content-Length` in bytes; undefined if it is missing or malformed. */
  get length(): number | undefined {
    const text = this.headers.get("content-length") ?? "";
    return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
  }

  /** `Content-Type` without parameters, in lower case; "" if there is none. */
  get mediaType(): string {
    return (this.headers.get("content-type") ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
  }

  /**
   * Streams the body. Leaving the loop early closes the connection.
   *
   * @throws {RegistryError} If the body is cut short or stalls.
   */
  async *body(): AsyncGenerator<Uint8Array, void, void> {
    const { guard, http, request } = this.#exchange;
    let complete = false;
    try {
      const stream = this.#response.body;
      if (stream !== null) {
        const reader = stream.getReader();
        for (;;) {
          guard.arm(http.deadlines.stall, "no byte came");
          const { done, value } = await reader.read();
          guard.disarm();
          if (done) break;
          yield value;
        }
      }
      complete = true;
    } catch (error) {
      throw http.explain(error, { request, url: this.url, guard });
    } finally {
      if (!complete) guard.cancel();
      guard.end();
    }
  }

  /**
   * Reads the whole body; undefined if it is longer than `maxBytes`.
   *
   * @throws {RegistryError} If the body is cut short or stalls.
   */
  async bytes(maxBytes: number): Promise<Uint8Array | undefined> {
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of this.body()) {
      size += chunk.byteLength;
      if (size > maxBytes) return undefined;
      chunks.push(chunk);
    }
    return new Uint8Array(Buffer.concat(chunks));
  }

  /** Discards the body. A short one is read to its end, so that the connection can be reused. */
  async discard(): Promise<void> {
    if (this.method === "HEAD" || this.#response.body === null) {
      this.#exchange.guard.end();
    } else if ((this.length ?? Infinity) > 64 * 1024) {
      this.#exchange.guard.cancel();
      this.#exchange.guard.end();
    } else {
      // The caller does not need the body, so its failure does not matter.
      await this.bytes(64 * 1024).catch(() => undefined);
    }
  }
}

function showUrl({ isSecret }: HttpRequest, url: URL): string {
  return isSecret === true ? `${url.protocol}//${url.host}/…` : redactUrl(url);
}

/** Whether a status is a redirect. */
export function isRedirect(status: number): boolean {
  return [301, 302, 303, 307, 308].includes(status);
}

/** A request that is being sent. */
interface Sent {
  readonly request: HttpRequest;
  readonly url: URL;
  readonly guard: StallGuard;
  readonly upload: Upload | undefined;
}

interface Exchange {
  readonly request: HttpRequest;
  readonly url: URL;
  readonly guard: StallGuard;
  readonly http: Http;
}
