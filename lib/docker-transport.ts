/**
 * HTTP to one container daemon: deadlines, silence, what a failure means to the user.
 *
 * It knows no path of the API: docker.ts does. A transfer that moves may take for ever; one that is silent may too, as
 * a daemon says nothing while it unpacks a large image, but then the daemon is asked now and then whether it lives.
 * Rules: rules.md C1.6, C1.8, C2.18, E1.
 *
 * What it means to the user that a container daemon refuses, or cannot be talked to, and what to do about it.
 */
import type { DaemonAddress, DaemonEndpoint } from "./docker-host.ts";
import { KoError, messageOf, printable } from "./errors.ts";
import { Patience, Watch } from "./http-transfer.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";

/** How long nothing may happen, in milliseconds. */
export interface DaemonDeadlines {
  /** For the answer to a ping, connecting included (ssh takes up to 30 s for that). */
  readonly ping: number;
  /** For the answer to any other short request. */
  readonly answer: number;
  /** Silence in a transfer after which the daemon is asked whether it lives. */
  readonly silence: number;
  /** Silence in a transfer after which it is given up although the daemon lives. */
  readonly patience: number;
  /** For what is cleaned up after an interruption. */
  readonly farewell: number;
}

export const DAEMON_DEADLINES: DaemonDeadlines = {
  ping: 40_000,
  answer: 60_000,
  silence: 60_000,
  patience: 1_800_000,
  farewell: 5000,
};

export interface DaemonRequest {
  readonly method: "DELETE" | "GET" | "HEAD" | "POST";
  /** With the version and the query: `/v1.41/images/json`. */
  readonly path: string;
  /** What is being done, for errors: `load "ko.local/app:1" into`. */
  readonly action: string;
  /** Statuses that are an answer; others are thrown. */
  readonly accept: readonly number[];
  /** A tar, sent in chunks. */
  readonly body?: AsyncIterable<Uint8Array>;
  /** True where bytes may take their time, in either direction. @default false */
  readonly transfer?: boolean;
  /** True for a check of life and the ping. @default false */
  readonly ping?: boolean;
  /** True for what is said on the way out: the run's signal does not end it. @default false */
  readonly farewell?: boolean;
  readonly signal?: AbortSignal;
}

export interface DaemonAnswer {
  readonly status: number;
  readonly headers: Headers;
  /** The body as it comes in. Leaving the loop early ends the connection. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface DaemonWireOptions {
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly deadlines: DaemonDeadlines;
}

/** An error answer is read so far: 64 KiB. */
const MAX_ERROR_BYTES = 64 * 1024;
const MAX_REDIRECTS = 3;

/** Requests to one daemon over few connections. */
export class DaemonWire implements AsyncDisposable {
  readonly #endpoint: DaemonEndpoint;
  readonly #address: DaemonAddress;
  readonly #options: DaemonWireOptions;
  readonly #session = new Bun.FetchSession({ keepAlive: { idleTimeout: 30 } });

  constructor(endpoint: DaemonEndpoint, options: DaemonWireOptions & { readonly address: DaemonAddress }) {
    this.#endpoint = endpoint;
    this.#address = options.address;
    this.#options = options;
  }

  /** For messages: `the Docker daemon at "unix:///var/run/docker.sock" (DOCKER_HOST)`. */
  get name(): string {
    return `the Docker daemon at "${this.#endpoint.url}" (${this.#endpoint.source})`;
  }

  /**
   * Sends a request and waits for the head of an answer with an accepted status.
   *
   * @throws {KoError} If there is no such answer: with the daemon's own words, where it has some.
   */
  async send(request: DaemonRequest): Promise<DaemonAnswer> {
    const { deadlines, log, signal } = this.#options;
    const watch = new Watch([request.farewell === true ? undefined : signal, request.signal]);
    const exchange: Exchange = { request, watch, patience: undefined, sourceFailure: undefined, verdict: undefined };
    if (request.transfer === true) {
      exchange.patience = new Patience({
        silence: deadlines.silence,
        limit: deadlines.patience,
        ask: () => this.#isAlive(watch.signal),
        giveUp: (why) => {
          exchange.verdict = why;
          watch.cancel();
        },
      });
    }
    if (request.farewell === true) watch.arm(deadlines.farewell, "no answer");
    else if (request.ping === true) watch.arm(deadlines.ping, "no answer");
    else if (request.transfer !== true) watch.arm(deadlines.answer, "no answer");
    const started = performance.now();
    let answer: DaemonAnswer;
    try {
      const response = await this.#fetch(exchange);
      exchange.patience?.moved();
      const took = Math.round(performance.now() - started);
      log.debug(`${request.method} ${request.path.replace(/\?.*$/, "")}: ${response.status} after ${took} ms`);
      answer = { status: response.status, headers: response.headers, body: this.#read(response, exchange) };
    } catch (error) {
      throw this.#fail(error, exchange);
    }
    if (request.accept.includes(answer.status)) return answer;
    throw await this.#refusal(answer, request);
  }

  /** The whole body of a short answer, as JSON. @throws {KoError} If it is none, or over `maxBytes`. */
  async json(answer: DaemonAnswer, options: { readonly what: string; readonly maxBytes: number }): Promise<unknown> {
    const bytes = await readUpTo(answer.body, options.maxBytes + 1);
    const fail = (why: string): KoError => new KoError(`Cannot read ${options.what} from ${this.name}: ${why}`);
    if (bytes.byteLength > options.maxBytes) throw fail(`it is more than ${options.maxBytes} bytes`);
    try {
      return JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw fail("it is no JSON; is this a Docker daemon?");
    }
  }

  /** Reads and drops the body of a short answer, so that the connection can be used again. */
  async discard(answer: DaemonAnswer): Promise<void> {
    await readUpTo(answer.body, MAX_ERROR_BYTES);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#session.close();
    await this.#address[Symbol.asyncDispose]();
  }

  async #isAlive(signal: AbortSignal): Promise<void> {
    const request = { method: "GET", path: "/_ping", action: "talk to", accept: [200], ping: true, signal } as const;
    await this.discard(await this.send(request));
  }

  async #fetch(exchange: Exchange): Promise<Response> {
    const { request, watch } = exchange;
    const { base, unix, tls, proxy } = this.#address;
    const isRead = request.method === "GET" || request.method === "HEAD";
    let url = new URL(`${base}${request.path}`);
    for (let hops = 0; ; hops++) {
      const response = await this.#session.fetch(url, {
        method: request.method,
        headers: {
          "user-agent": "ko",
          ...(request.body === undefined ? {} : { "content-type": "application/x-tar" }),
        },
        ...(request.body === undefined ? {} : { body: guarded(request.body, exchange) }),
        // A connection that died while it was idle would cost a body that can be sent only once.
        keepalive: request.transfer !== true && request.farewell !== true,
        redirect: "manual",
        decompress: false,
        timeout: false,
        verbose: false,
        signal: watch.signal,
        proxy,
        ...(unix === undefined ? {} : { unix }),
        ...(tls === undefined ? {} : { tls: { ...tls } }),
      });
      const location = response.headers.get("location");
      if (!isRead || location === null || ![301, 302, 303, 307, 308].includes(response.status)) return response;
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
      // Elsewhere our client certificate is nobody's business.
      if (next === undefined || next.origin !== url.origin || hops === MAX_REDIRECTS) return response;
      url = next;
    }
  }

  async *#read(response: Response, exchange: Exchange): AsyncGenerator<Uint8Array, void, void> {
    const { watch, patience } = exchange;
    let complete = false;
    try {
      const reader = response.body?.getReader();
      for (let read = await reader?.read(); read !== undefined && !read.done; read = await reader?.read()) {
        patience?.moved();
        yield read.value;
        patience?.moved();
      }
      complete = true;
    } catch (error) {
      throw this.#fail(error, exchange);
    } finally {
      if (!complete) watch.cancel();
      patience?.end();
      watch.end();
    }
  }

  async #refusal({ status, body }: DaemonAnswer, request: DaemonRequest): Promise<KoError> {
    const text = new TextDecoder().decode(await readUpTo(body, MAX_ERROR_BYTES));
    let words = text;
    try {
      const value: unknown = JSON.parse(text);
      if (isObject(value) && typeof value["message"] === "string") words = value["message"];
    } catch {
      // Not the engine's own answer (a proxy's, say): its text will do.
    }
    const said = printable(words.trim(), 1000) || "nothing more";
    return new DaemonRefusal(`Cannot ${request.action} ${this.name}: status ${status}: ${said}`, {
      status,
      reason: said,
      hint: hintFor(said),
    });
  }

  /** What a failed exchange is to the user. */
  #fail(error: unknown, { request, watch, patience, sourceFailure, verdict }: Exchange): unknown {
    patience?.end();
    watch.end();
    if (watch.aborted) return watch.signal.reason;
    if (sourceFailure !== undefined) return sourceFailure;
    if (error instanceof KoError) return error;
    const fail = (why: string, hint?: string): KoError =>
      new KoError(`Cannot ${request.action} ${this.name}: ${why}`, { hint });
    const words = this.#address.lastWords();
    if (words !== undefined) return fail(`ssh failed: ${printable(words, 400)}`);
    if (verdict !== undefined) return fail(verdict, "Look at the daemon's log, or start it anew.");
    if (watch.stalled !== undefined) return fail(watch.stalled, "Is it busy, or in another network? Try: docker info");
    return fail(...explainFailure(error, { isPing: request.ping === true }));
  }
}

interface Exchange {
  readonly request: DaemonRequest;
  readonly watch: Watch;
  patience: Patience | undefined;
  /** Why silence ended it. */
  verdict: string | undefined;
  /** What went wrong with the body's source: that is not the daemon's failure. */
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
        const failure =
          cause instanceof KoError
            ? cause
            : new KoError(`Cannot read what is to be sent: ${messageOf(cause)}`, { cause });
        exchange.sourceFailure = failure;
        throw failure;
      }
      if (next.done === true) return;
      exchange.patience?.moved();
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

export interface DaemonRefusalOptions {
  readonly status: number | undefined;
  readonly reason: string;
  readonly hint?: string | undefined;
}

/** The daemon understood and said no. */
export class DaemonRefusal extends KoError {
  override readonly name: string = "DaemonRefusal";
  /** Of HTTP; undefined for what arrived in the stream of a status 200. */
  readonly status: number | undefined;
  /** The daemon's words, printable. */
  readonly reason: string;

  constructor(message: string, options: DaemonRefusalOptions) {
    super(message, { hint: options.hint });
    this.status = options.status;
    this.reason = options.reason;
  }
}

/** What to do about what a daemon says. */
export function hintFor(words: string): string | undefined {
  if (/no space left on device|disk quota exceeded/i.test(words))
    return "Make room for the daemon: docker system prune";
  if (/HTTP request to an HTTPS server/i.test(words)) {
    return "It wants TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder with its certificates.";
  }
  const version = /Minimum supported API version is (\d+\.\d+)|Maximum supported API version is (\d+\.\d+)/i.exec(
    words,
  );
  if (version !== null) return `Set DOCKER_API_VERSION=${version[1] ?? version[2]}`;
  return undefined;
}

const START = "Start it (systemctl start docker, colima start, …), or correct DOCKER_HOST.";
const CERTIFICATES =
  "Set DOCKER_CERT_PATH to the folder with its ca.pem, cert.pem and key.pem; for minikube: eval $(minikube docker-env)";

/**
 * Why an exchange failed, and a hint.
 *
 * @param error of `fetch`
 * @param options.isPing true for the first words: nothing has been understood yet
 */
export function explainFailure(
  error: unknown,
  { isPing }: { readonly isPing: boolean },
): readonly [why: string, hint?: string] {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME|HOSTNAME_MISMATCH/.test(code)) {
    return [`its certificate is not trusted (${code})`, CERTIFICATES];
  }
  switch (code) {
    case "ENOENT":
      return ["there is no such socket", START];
    case "ECONNREFUSED":
      return ["nothing listens there", START];
    case "EACCES":
    case "EPERM":
      return ["permission denied", 'Be let in: sudo usermod -aG docker "$USER", then log in again.'];
    case "ENOTFOUND":
      return ["its host name is not known", "Correct DOCKER_HOST."];
    case "EPROTO":
      // Bun tells no more (1.4.5): a plain port and a refused client certificate look the same.
      return ["the TLS handshake failed: it refuses our certificate, or speaks no TLS on this port", CERTIFICATES];
    case "ECONNRESET":
    case "EPIPE":
      return isPing
        ? ["it closed the connection without an answer", CERTIFICATES]
        : [`it closed the connection before the end (${code})`, "See whether it still runs: docker info"];
    default: {
      const text = messageOf(error).replace(/ ?For more information, pass `verbose: true`.*$/s, "");
      return [printable(text, 400)];
    }
  }
}
