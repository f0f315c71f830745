/**
 * HTTP requests to a Docker daemon, with deadlines and with failures explained to the user.
 *
 * It knows only the path of the ping; docker.ts knows the others. Rules: docs/rules.md C1.6, C1.8, C2.18, E1.
 */
import { systemClock } from "./async.ts";
import type { DaemonAddress, DaemonEndpoint } from "./docker-host.ts";
import { codeOf, DaemonError, KoError, messageOf, printable } from "./errors.ts";
import type { RouteOptions } from "./http-route.ts";
import { IdleTimeout, StallGuard } from "./http-transfer.ts";
import { isObject, parseJson } from "./json.ts";
import type { Log } from "./log.ts";

/** Deadlines in milliseconds. A transfer that moves has none. */
export interface DaemonDeadlines {
  /** From a ping to its response, connecting included: ssh takes up to 30 s to connect. */
  readonly ping: number;
  /** From any other short request to its response. */
  readonly response: number;
  /** Silence in a transfer after which the daemon gets a ping: it is silent while it unpacks a large image. */
  readonly silence: number;
  /** Silence in a transfer after which the transfer fails although the daemon answers the pings. */
  readonly maxSilence: number;
  /** From a best-effort request to its response. */
  readonly bestEffort: number;
}

export const DAEMON_DEADLINES: DaemonDeadlines = {
  ping: 40_000,
  response: 60_000,
  silence: 45_000,
  maxSilence: 1_800_000,
  bestEffort: 5000,
};

export interface DaemonRequest {
  readonly method: "DELETE" | "GET" | "HEAD" | "POST";
  /** With the version and the query: `/v1.41/images/json`. */
  readonly path: string;
  /** For errors, a verb that ends before the daemon's name: `load "ko.local/app:1" into`. */
  readonly action: string;
  /** The accepted statuses. */
  readonly accept: readonly number[];
  /** A tar, sent in chunks. */
  readonly body?: AsyncIterable<Uint8Array>;
  /** True for a long body in either direction: silence is bounded, the whole is not. @default false */
  readonly transfer?: boolean;
  /** True for a ping. @default false */
  readonly ping?: boolean;
  /** True for a clean-up: the run's signal does not end it, and its deadline is short. @default false */
  readonly bestEffort?: boolean;
  readonly signal?: AbortSignal;
}

export interface DaemonResponse {
  readonly status: number;
  readonly headers: Headers;
  /** Read at most once. Leaving the loop early ends the connection. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface DaemonTransportOptions {
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly deadlines: DaemonDeadlines;
  readonly address: DaemonAddress;
}

export interface DaemonRefusalOptions {
  readonly status: number | undefined;
  readonly reason: string;
  readonly hint?: string | undefined;
}

/** Bytes of an error's body that are read. */
const MAX_ERROR_BYTES = 64 * 1024;
const MAX_REDIRECTS = 3;
const START_HINT = "Start it (systemctl start docker, colima start, …), or correct DOCKER_HOST.";
const CERTIFICATES_HINT =
  "Set DOCKER_CERT_PATH to the folder with its ca.pem, cert.pem and key.pem; for minikube: eval $(minikube docker-env)";

/** Reports that the daemon understood a request and refused it. */
export class DaemonRefusal extends DaemonError {
  override readonly name: string = "DaemonRefusal";
  /** The HTTP status; undefined if the refusal is in the body of a response with status 200. */
  readonly status: number | undefined;
  /** The daemon's message, printable. */
  readonly reason: string;

  constructor(message: string, options: DaemonRefusalOptions) {
    super(message, { hint: options.hint, transient: true });
    this.status = options.status;
    this.reason = options.reason;
  }
}

/** Sends requests to one daemon; short ones share connections. */
export class DaemonTransport implements AsyncDisposable {
  readonly #endpoint: DaemonEndpoint;
  readonly #options: DaemonTransportOptions;
  readonly #session = new Bun.FetchSession({ keepAlive: { idleTimeout: 30 } });

  constructor(endpoint: DaemonEndpoint, options: DaemonTransportOptions) {
    this.#endpoint = endpoint;
    this.#options = options;
  }

  /** For messages: `the Docker daemon at "unix:///var/run/docker.sock" (DOCKER_HOST)`. */
  get name(): string {
    return `the Docker daemon at "${this.#endpoint.url}" (${this.#endpoint.source})`;
  }

  /**
   * Sends a request and waits for the head of the response.
   *
   * @throws {DaemonRefusal} If the status is not accepted: with the daemon's message, if it sends one.
   * @throws {KoError} If there is no response.
   */
  async send(request: DaemonRequest): Promise<DaemonResponse> {
    const { log } = this.#options;
    const exchange = this.#begin(request);
    const started = systemClock.monotonic();
    let answer: DaemonResponse;
    try {
      const response = await this.#fetch(exchange);
      exchange.idleTimeout?.reset();
      const took = Math.round(systemClock.monotonic() - started);
      log.debug(`${request.method} ${request.path.replace(/\?.*$/, "")}: ${response.status} after ${took} ms`);
      answer = { status: response.status, headers: response.headers, body: this.#read(response, exchange) };
    } catch (error) {
      throw this.#explain(error, exchange);
    }
    if (request.accept.includes(answer.status)) return answer;
    throw await this.#refusal(answer, request);
  }

  /**
   * Reads the body of a short response as JSON.
   *
   * @param options.subject the name of the document in errors
   * @throws {KoError} If it is not JSON, or is longer than `maxBytes`.
   */
  async json(
    response: DaemonResponse,
    options: { readonly subject: string; readonly maxBytes: number },
  ): Promise<unknown> {
    const bytes = await readUpTo(response.body, options.maxBytes + 1);
    const fail = (why: string): KoError => new DaemonError(`Cannot read ${options.subject} from ${this.name}: ${why}`);
    if (bytes.byteLength > options.maxBytes) throw fail(`it is more than ${options.maxBytes} bytes`);
    const value = parseJson(new TextDecoder().decode(bytes));
    if (value === undefined) throw fail("it is not JSON; is this a Docker daemon?");
    return value;
  }

  /** Reads and drops the body of a short response, so that its connection can be reused. */
  async discard(response: DaemonResponse): Promise<void> {
    await readUpTo(response.body, MAX_ERROR_BYTES);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#session.close();
    await this.#options.address[Symbol.asyncDispose]();
  }

  /** Starts the clock of a request. */
  #begin(request: DaemonRequest): Exchange {
    const { deadlines, signal } = this.#options;
    const guard = new StallGuard([request.bestEffort === true ? undefined : signal, request.signal]);
    const exchange: Exchange = {
      request,
      guard,
      idleTimeout: undefined,
      silenceFailure: undefined,
      sourceFailure: undefined,
    };
    if (request.transfer === true) {
      exchange.idleTimeout = new IdleTimeout({
        silence: deadlines.silence,
        limit: deadlines.maxSilence,
        ping: () => this.#ping(guard.signal),
        giveUp: (why) => {
          exchange.silenceFailure = why;
          guard.cancel();
        },
      });
    }
    if (request.bestEffort === true) guard.arm(deadlines.bestEffort, "no answer");
    else if (request.ping === true) guard.arm(deadlines.ping, "no answer");
    else if (request.transfer !== true) guard.arm(deadlines.response, "no answer");
    return exchange;
  }

  async #ping(signal: AbortSignal): Promise<void> {
    const request = { method: "GET", path: "/_ping", action: "talk to", accept: [200], ping: true, signal } as const;
    await this.discard(await this.send(request));
  }

  async #fetch(exchange: Exchange): Promise<Response> {
    const { request, guard } = exchange;
    const { base, route, tls, unix } = this.#options.address;
    const isRead = request.method === "GET" || request.method === "HEAD";
    let url = new URL(`${base}${request.path}`);
    for (let hops = 0; ; hops++) {
      const send = (options: RouteOptions): Promise<Response> =>
        this.#session.fetch(url, {
          method: request.method,
          headers: {
            "user-agent": "ko",
            ...(request.body === undefined ? {} : { "content-type": "application/x-tar" }),
          },
          ...(request.body === undefined ? {} : { body: guarded(request.body, exchange) }),
          // A connection that has died while it was idle fails the request, and a body cannot be sent twice.
          keepalive: request.transfer !== true && request.bestEffort !== true,
          redirect: "manual",
          decompress: false,
          timeout: false,
          verbose: false,
          signal: guard.signal,
          proxy: options.proxy,
          ...(unix === undefined ? {} : { unix }),
          ...(tls === undefined ? {} : { tls: tls.ca === undefined ? { ...options.tls, ...tls } : { ...tls } }),
        });
      const response = await (route === undefined ? send({ proxy: false, tls: {} }) : route.send(url, send));
      const location = response.headers.get("location");
      if (!isRead || location === null || ![301, 302, 303, 307, 308].includes(response.status)) return response;
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
      // Another host must not get the client certificate.
      if (next === undefined || next.origin !== url.origin || hops === MAX_REDIRECTS) return response;
      url = next;
    }
  }

  async *#read(response: Response, exchange: Exchange): AsyncGenerator<Uint8Array, void, void> {
    const { guard, idleTimeout } = exchange;
    let complete = false;
    try {
      const reader = response.body?.getReader();
      for (let read = await reader?.read(); read !== undefined && !read.done; read = await reader?.read()) {
        idleTimeout?.reset();
        yield read.value;
        idleTimeout?.reset();
      }
      complete = true;
    } catch (error) {
      throw this.#explain(error, exchange);
    } finally {
      if (!complete) guard.cancel();
      idleTimeout?.end();
      guard.end();
    }
  }

  async #refusal({ status, body }: DaemonResponse, request: DaemonRequest): Promise<DaemonRefusal> {
    const text = new TextDecoder().decode(await readUpTo(body, MAX_ERROR_BYTES));
    const value = parseJson(text);
    // A proxy answers with other text.
    const message = isObject(value) && typeof value["message"] === "string" ? value["message"] : text;
    const reason = printable(message.trim(), 1000) || "no message";
    return new DaemonRefusal(`Cannot ${request.action} ${this.name}: status ${status}: ${reason}`, {
      status,
      reason,
      hint: refusalHint(reason),
    });
  }

  /** The error to throw for a failed exchange: the abort reason, the source's failure, or an explanation. */
  #explain(error: unknown, { request, guard, idleTimeout, sourceFailure, silenceFailure }: Exchange): unknown {
    idleTimeout?.end();
    guard.end();
    if (guard.aborted) return guard.signal.reason;
    if (sourceFailure !== undefined) return sourceFailure;
    if (error instanceof KoError) return error;
    const fail = (why: string, hint?: string): KoError =>
      new DaemonError(`Cannot ${request.action} ${this.name}: ${why}`, { hint, transient: true });
    const words = this.#options.address.lastWords();
    if (words !== undefined) return fail(`ssh failed: ${printable(words, 400)}`);
    if (silenceFailure !== undefined) return fail(silenceFailure, "Look at the daemon's log, or restart it.");
    const refused = this.#options.address.route?.failure(new URL(this.#options.address.base));
    if (refused !== undefined)
      return fail(`the SOCKS5 proxy cannot connect: ${refused}`, "Check HTTP_PROXY, HTTPS_PROXY.");
    if (guard.stalled !== undefined) return fail(guard.stalled, "Is it busy, or in another network? Try: docker info");
    return fail(...explainFetchError(error, { isPing: request.ping === true }));
  }
}

/** A hint for a daemon's message, if there is one. */
export function refusalHint(message: string): string | undefined {
  if (/no space left on device|disk quota exceeded/i.test(message)) {
    return "Make room for the daemon: docker system prune";
  }
  if (/HTTP request to an HTTPS server/i.test(message)) {
    return "It wants TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder with its certificates.";
  }
  const version = /(?:Minimum|Maximum) supported API version is (\d+\.\d+)/i.exec(message)?.[1];
  return version === undefined ? undefined : `Set DOCKER_API_VERSION=${version}`;
}

/** A request and its response, with the failures that end it besides those of `fetch`. */
interface Exchange {
  readonly request: DaemonRequest;
  readonly guard: StallGuard;
  idleTimeout: IdleTimeout | undefined;
  /** The reason, once silence has ended the transfer. */
  silenceFailure: string | undefined;
  /** The failure of the body's source, which is not the daemon's. */
  sourceFailure: KoError | undefined;
}

async function* guarded(body: AsyncIterable<Uint8Array>, exchange: Exchange): AsyncGenerator<Uint8Array, void, void> {
  const source = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      let next: IteratorResult<Uint8Array>;
      try {
        next = await source.next();
      } catch (cause) {
        exchange.sourceFailure =
          cause instanceof KoError
            ? cause
            : new DaemonError(`Cannot read the data to send: ${messageOf(cause)}`, { cause });
        throw exchange.sourceFailure;
      }
      if (next.done === true) return;
      exchange.idleTimeout?.reset();
      yield next.value;
    }
  } finally {
    await source.return?.();
  }
}

async function readUpTo(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    size += chunk.byteLength;
    if (size >= maxBytes) break;
  }
  return Buffer.concat(chunks).subarray(0, maxBytes);
}

/**
 * Explains an error of `fetch`, with a hint.
 *
 * @param options.isPing true for the first request, before which no answer was understood
 */
function explainFetchError(
  error: unknown,
  { isPing }: { readonly isPing: boolean },
): readonly [why: string, hint?: string] {
  const code = codeOf(error) ?? "";
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME|HOSTNAME_MISMATCH/.test(code)) {
    return [`its certificate is not trusted (${code})`, CERTIFICATES_HINT];
  }
  switch (code) {
    case "ENOENT":
      return ["there is no such socket", START_HINT];
    case "ECONNREFUSED":
      return ["nothing listens there", START_HINT];
    case "EACCES":
    case "EPERM":
      return ["permission denied", 'Get access: sudo usermod -aG docker "$USER", then log in again.'];
    case "ENOTFOUND":
      return ["its host name is not known", "Correct DOCKER_HOST."];
    case "EPROTO":
      // Bun 1.4.5 has one error for a port without TLS and for a refused client certificate.
      return ["the TLS handshake failed: it refuses our certificate, or has no TLS on this port", CERTIFICATES_HINT];
    case "ECONNRESET":
    case "EPIPE":
      return isPing
        ? ["it closed the connection without an answer", CERTIFICATES_HINT]
        : [`it closed the connection before the end (${code})`, "See whether it still runs: docker info"];
    default: {
      const text = messageOf(error).replace(/ ?For more information, pass `verbose: true`.*$/s, "");
      return [printable(text, 400)];
    }
  }
}
