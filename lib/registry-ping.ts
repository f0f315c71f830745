/**
 * Finds how a registry is reached: over https or, where that is allowed, http, and with which authentication challenge.
 *
 * The answer to `GET /v2/` is cached between runs; {@link ApiProbe} asks again as soon as a cached answer may be wrong.
 * Rules: docs/rules.md A1.1-A1.6, A2.1, A2.8.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#determining-support
 * https://www.rfc-editor.org/rfc/rfc9110#field.www-authenticate
 */
import { keyOf, type Records } from "./cache.ts";
import { KoError, messageOf, RegistryError } from "./errors.ts";
import { type Http, isRedirect, MAX_REDIRECTS } from "./http.ts";
import { isObject } from "./json.ts";
import { readRefusal } from "./registry-errors.ts";
import { isLoopback, redactUrl, splitPort } from "./url.ts";

/** An authentication challenge of a `WWW-Authenticate` header. */
export interface Challenge {
  /** Lower case: `basic`, `bearer`, `negotiate`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: Readonly<Record<string, string>>;
}

/** How a registry is reached. */
export interface Endpoint {
  /** `https://host/` */
  readonly base: URL;
  /** Undefined if the registry is open, or sends a challenge only where it needs one. */
  readonly challenge: Challenge | undefined;
}

export interface ApiProbeOptions {
  readonly http: Http;
  /** `host[:port]` */
  readonly host: string;
  readonly signal: AbortSignal;
  /** Where endpoints are cached between runs; undefined asks the registry in each run. */
  readonly records?: Records | undefined;
}

/** Milliseconds that https has for itself before http is tried as well. */
const HTTPS_HEAD_START_MS = 300;
/** Milliseconds after which a cached endpoint is stale. */
const MAX_AGE_MS = 7 * 24 * 3600 * 1000;
/** The kind of the cache records. */
const KIND = "host";
/** The longest text that a record may hold; those of real registries are shorter. */
const MAX_CHARS = 2048;
/** The parameters of a challenge that hold for every request; the others belong to the one that drew the challenge. */
const LASTING_PARAMETERS = ["realm", "service"] as const;

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"?/y;
const BARE = /[^\s,]*/y;

/**
 * The endpoint of one registry, from the cache or from `GET /v2/`, which is sent once for all callers.
 *
 * A cached endpoint counts as unconfirmed until a request succeeds with it. A request that fails with an unconfirmed
 * endpoint calls {@link ApiProbe.replace} and tries again, so a wrong record costs time but never causes a failure.
 */
export class ApiProbe {
  readonly #options: ApiProbeOptions;
  #endpoint: Promise<Endpoint> | undefined;
  /** The final refusal of a ping, and the task that it refused: the registry is asked once. */
  #refusal: { readonly action: string; readonly error: RegistryError } | undefined;
  /** The endpoint from the cache, which is read at most once. */
  #cached: Endpoint | undefined;
  #state: "unconfirmed" | "confirmed" | "replaced" = "unconfirmed";

  constructor(options: ApiProbeOptions) {
    this.#options = options;
  }

  /**
   * @param action the caller's task, for errors
   * @throws {RegistryError} If no registry answers. The next call asks again, unless the answer was a final refusal.
   */
  find(action: string): Promise<Endpoint> {
    this.#endpoint ??= this.#load(action);
    return this.#endpoint;
  }

  /** Whether `endpoint` is from the cache and no request has succeeded with it. */
  isUnconfirmed(endpoint: Endpoint): boolean {
    return endpoint === this.#cached && this.#state !== "confirmed";
  }

  /** Notes that a request succeeded. */
  confirm(endpoint: Endpoint): void {
    if (endpoint === this.#cached && this.#state === "unconfirmed") this.#state = "confirmed";
  }

  /** Caches a challenge that differs from the endpoint's. An endpoint without one stays: its ping drew none. */
  correct({ base, challenge }: Endpoint, now: Challenge): void {
    if (challenge !== undefined && !isSameChallenge(challenge, now)) this.#write({ base, challenge: now });
  }

  /** Asks the registry, once, after a request failed with an unconfirmed `endpoint`. */
  replace(endpoint: Endpoint, action: string): Promise<Endpoint> {
    if (endpoint === this.#cached && this.#state === "unconfirmed") {
      this.#state = "replaced";
      this.#options.records?.remove(KIND, keyOf(this.#options.host));
      this.#endpoint = this.#ping(action);
    }
    return this.find(action);
  }

  async #load(action: string): Promise<Endpoint> {
    const { host, records } = this.#options;
    if (this.#cached === undefined && records !== undefined) {
      this.#cached = readRecord(records.read(KIND, keyOf(host)), this.#options);
      if (this.#cached !== undefined) return this.#cached;
    }
    return this.#ping(action);
  }

  async #ping(action: string): Promise<Endpoint> {
    if (this.#refusal !== undefined) throw this.#refusal.error.withAction(this.#refusal.action, action);
    try {
      const endpoint = await ping({ ...this.#options, action });
      this.#write(endpoint);
      return endpoint;
    } catch (error) {
      this.#endpoint = undefined;
      const isFinal = error instanceof RegistryError && error.status !== undefined && error.retry === "never";
      if (isFinal) this.#refusal = { action, error };
      throw error;
    }
  }

  #write(endpoint: Endpoint): void {
    const { host, http, records } = this.#options;
    const record = makeRecord(endpoint, { host, now: http.clock.now() });
    if (record !== undefined) records?.write(KIND, keyOf(host), record);
  }
}

/** Whether two endpoints have the same base and challenge. */
export function isSameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.base.href === b.base.href && isSameChallenge(a.challenge, b.challenge);
}

/** All challenges of one header value. Several headers are first joined by commas, as `Headers.get` does. */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const match = pattern.exec(header);
    if (match !== null) at += match[0].length;
    return match;
  };
  while (at < header.length) {
    if (take(/[\s,]+/y) !== null) continue;
    const word = take(TOKEN)?.[0];
    if (word === undefined) {
      at++; // Not a word: skip one character rather than the challenges after it.
      continue;
    }
    const current = challenges.at(-1);
    if (take(/[ \t]*=[ \t]*/y) !== null && current !== undefined) {
      const quoted = take(QUOTED)?.[1];
      const value = quoted === undefined ? (take(BARE)?.[0] ?? "") : quoted.replace(/\\(.)/g, "$1");
      current.parameters[word.toLowerCase()] ??= value;
      continue;
    }
    challenges.push({ scheme: word.toLowerCase(), parameters: Object.create(null) });
    // `Negotiate abc==`: one opaque value instead of parameters.
    if (take(/[ \t]+/y) !== null) take(TOKEN68);
  }
  return challenges.map(({ scheme, parameters }) => ({ scheme, parameters: { ...parameters } }));
}

/** The first challenge whose scheme is supported: Basic or Bearer. */
export function findUsable(challenges: readonly Challenge[]): Challenge | undefined {
  return challenges.find(({ scheme }) => scheme === "basic" || scheme === "bearer");
}

interface PingOptions extends ApiProbeOptions {
  readonly action: string;
}

/**
 * Asks `GET /v2/`, over plain http too where {@link allowsHttp} says so.
 *
 * @throws {RegistryError} If no registry answers.
 */
async function ping(options: PingOptions): Promise<Endpoint> {
  const { host, http, signal } = options;
  const secure = new URL(`https://${host}/`);
  if (http.ruleFor(secure)?.http === true) return pingAt(new URL(`http://${host}/`), options);
  if (!allowsHttp(host, http)) return pingAt(secure, options);
  const over = new AbortController();
  const either = { ...options, signal: AbortSignal.any([signal, over.signal]) };
  try {
    const first = pingAt(secure, either);
    const early = await Promise.race([
      first.catch((error: unknown) => error),
      http.clock.sleep(HTTPS_HEAD_START_MS, either.signal).catch(() => undefined),
    ]);
    // A host that refuses over https does speak https: an answer over http would say less. Nor does http help against a
    // certificate file that cannot be read.
    if (isAboutFiles(early) || (early instanceof RegistryError && early.status !== undefined)) throw early;
    if (early !== undefined && !(early instanceof Error)) return await first;
    const second = pingAt(new URL(`http://${host}/`), either);
    const answer = await Promise.any([first, second]).catch((error: unknown) =>
      error instanceof AggregateError ? error : new AggregateError([error]),
    );
    if (!(answer instanceof AggregateError)) return answer;
    const [https, plain]: readonly unknown[] = answer.errors;
    // A bad certificate says more than the answer of a TLS port to plain http.
    throw /certificate/.test(messageOf(https)) || isAboutFiles(https) ? https : plain;
  } finally {
    over.abort(new Error("the other scheme answered"));
  }
}

/** Whether a request failed before it was sent: certificates for it could not be read. */
function isAboutFiles(error: unknown): boolean {
  return error instanceof KoError && !(error instanceof RegistryError);
}

/** Whether plain http is allowed: on this machine, and for hosts that the user named as insecure. */
function allowsHttp(host: string, http: Http): boolean {
  return (
    isLoopback(host) || http.allowsHttp(new URL(`https://${host}/`)) || http.allowsHttp(new URL(`http://${host}/`))
  );
}

async function pingAt(base: URL, options: PingOptions): Promise<Endpoint> {
  const { action, host, http, signal } = options;
  let url = new URL("/v2/", base);
  for (let hops = 0; ; hops++) {
    const response = await http.send({ method: "GET", url, action, signal, deadline: http.deadlines.ping });
    const location = response.headers.get("location") ?? "";
    if (isRedirect(response.status) && hops < MAX_REDIRECTS && URL.canParse(location, url.href)) {
      await response.discard();
      const next = new URL(location, url);
      // A redirect may upgrade this host to https. One to another host only shows that this host answers.
      const leaves = next.host !== url.host || (url.protocol === "https:" && next.protocol !== "https:");
      if (leaves) return { base, challenge: undefined };
      url = next;
      continue;
    }
    if (response.status !== 200 && response.status !== 401) {
      throw await readRefusal(response, {
        request: {
          action: `${action}: ask ${host} for its registry API`,
          repository: { host, path: "" },
          push: false,
        },
        host,
        http,
        source: undefined,
        reasons: ["none was asked for"],
      });
    }
    await response.discard();
    const challenges = response.status === 200 ? [] : parseChallenges(response.headers.get("www-authenticate") ?? "");
    const challenge = findUsable(challenges);
    if (challenge === undefined && challenges.length > 0) {
      const schemes = http.secrets.excerpt(challenges.map(({ scheme }) => scheme).join(", "));
      throw new RegistryError(
        `Cannot ${action}: ${host} wants authentication by ${schemes}, ko supports Basic and Bearer`,
        { method: "GET", url: redactUrl(url), status: 401 },
      );
    }
    return { base: new URL(`${url.protocol}//${host}/`), challenge };
  }
}

function isSameChallenge(a: Challenge | undefined, b: Challenge | undefined): boolean {
  if (a === undefined || b === undefined || a.scheme !== b.scheme) return a === b;
  return a.scheme === "basic" || LASTING_PARAMETERS.every((name) => a.parameters[name] === b.parameters[name]);
}

/** The record that {@link readRecord} reads; undefined if the endpoint cannot be cached. It holds no secret. */
function makeRecord(
  { base, challenge }: Endpoint,
  { host, now }: { readonly host: string; readonly now: number },
): object | undefined {
  if (!isCacheable(base, host)) return undefined;
  if (challenge === undefined) return { learned: now, base: base.href };
  const lasting = lastingPart(challenge);
  return lasting && { learned: now, base: base.href, challenge: lasting };
}

/** Undefined if the record is missing, stale, malformed or of another host, or if its http is not allowed. */
function readRecord(record: unknown, { host, http }: Pick<ApiProbeOptions, "host" | "http">): Endpoint | undefined {
  if (!isObject(record) || typeof record["learned"] !== "number") return undefined;
  const age = http.clock.now() - record["learned"];
  // A negative age: the clock is wrong now, or was then.
  if (!(age >= 0 && age <= MAX_AGE_MS)) return undefined;
  const base = [new URL(`https://${host}/`), new URL(`http://${host}/`)].find(({ href }) => href === record["base"]);
  if (base === undefined || !isCacheable(base, host)) return undefined;
  if (base.protocol === "http:" && !allowsHttp(host, http)) return undefined;
  if (base.protocol === "https:" && http.ruleFor(base)?.http === true) return undefined;
  if (record["challenge"] === undefined) return { base, challenge: undefined };
  const challenge = readChallenge(record["challenge"]);
  return challenge && { base, challenge };
}

/** A host named without a port has two, 80 and 443: each run looks whether it has https by now. */
function isCacheable(base: URL, host: string): boolean {
  return base.protocol === "https:" || splitPort(host).port !== undefined;
}

function readChallenge(value: unknown): Challenge | undefined {
  if (!isObject(value) || !isObject(value["parameters"])) return undefined;
  const { parameters, scheme } = value;
  if (scheme !== "basic" && scheme !== "bearer") return undefined;
  if (!Object.values(parameters).every(isShortText)) return undefined;
  return lastingPart({ scheme, parameters: Object.fromEntries(pickLasting(parameters)) });
}

/** The challenge without the parameters of one request; undefined if its realm is unusable or holds a password. */
function lastingPart({ scheme, parameters }: Challenge): Challenge | undefined {
  if (scheme === "basic") return { scheme, parameters: {} };
  const { realm = "" } = parameters;
  if (!URL.canParse(realm)) return undefined;
  const url = new URL(realm);
  if (url.username !== "" || url.password !== "") return undefined;
  const lasting = pickLasting(parameters);
  return lasting.every(([, value]) => isShortText(value))
    ? { scheme, parameters: Object.fromEntries(lasting) }
    : undefined;
}

function pickLasting(parameters: Readonly<Record<string, unknown>>): [string, string][] {
  return LASTING_PARAMETERS.flatMap((name): [string, string][] => {
    const value = parameters[name];
    return typeof value === "string" ? [[name, value]] : [];
  });
}

function isShortText(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_CHARS && !/[\u0000-\u001f\u007f]/.test(value);
}
