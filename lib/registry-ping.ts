/**
 * Finding out how a registry is reached: https, or http where that is permitted, and what it wants to know of us.
 *
 * What an earlier run found out is tried first, and asked for anew as soon as it may be wrong.
 * Rules: rules.md A1.1-A1.6, A2.1.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#determining-support
 *
 * What earlier runs learned of registries, so that a run need not ask each of them `GET /v2/` again.
 *
 * Here is what is kept and how it is read back; where it is kept is the caller's matter, what it is used for is
 * registry-ping.ts's. It holds no credential and no token, and nothing in it is believed: what it says is tried, not trusted.
 *
 * Where is kept what runs learn of registries: a record of the cache for each, which counts for some days.
 */
import { type Cache, keyOf } from "./cache.ts";
import { messageOf, RegistryError } from "./errors.ts";
import type { Host } from "./host.ts";
import { type Http, isRedirect } from "./http.ts";
import { isObject } from "./json.ts";
import { type Challenge, findUsable, parseChallenges } from "./registry-auth.ts";
import { readRefusal } from "./registry-errors.ts";
import { isLoopback, redactUrl, splitPort } from "./url.ts";

export interface PingOptions {
  readonly http: Http;
  /** `host[:port]` */
  readonly host: string;
  readonly signal: AbortSignal;
  /** What is being done, for errors. */
  readonly action: string;
}

export interface PingAnswer {
  /** `https://host/` */
  readonly base: URL;
  /** What the registry asks for; undefined when it is open, or tells only where it matters. */
  readonly challenge: Challenge | undefined;
}

export interface ApproachOptions extends Omit<PingOptions, "action"> {
  readonly memory?: HostMemory | undefined;
}

const MAX_REDIRECTS = 5;
/** Milliseconds that https has for itself before http is tried as well. */
const HTTPS_HEAD_START_MS = 300;

/**
 * Knows how one registry is reached, from an earlier run or by asking it, once however many want to know.
 *
 * What an earlier run learned is in doubt until an answer confirms it. It costs at most time: whoever fails with it
 * calls {@link Approach.replace} and tries again with what the registry says now.
 */
export class Approach {
  readonly #options: ApproachOptions;
  #answer: Promise<PingAnswer> | undefined;
  /** What the memory gave; stays when something else has replaced it. */
  #recalled: PingAnswer | undefined;
  #state: "in doubt" | "confirmed" | "replaced" = "in doubt";

  constructor(options: ApproachOptions) {
    this.#options = options;
  }

  /**
   * @param action what is being done, for errors
   * @throws {RegistryError} If nothing there answers as a registry; the next call asks again.
   */
  find(action: string): Promise<PingAnswer> {
    this.#answer ??= this.#recall().then((recalled) => recalled ?? this.#ping(action));
    return this.#answer;
  }

  /** Whether an answer is from the memory, and nothing has confirmed it. */
  isInDoubt(answer: PingAnswer): boolean {
    return answer === this.#recalled && this.#state !== "confirmed";
  }

  /** The registry took what was asked this way. */
  confirm(answer: PingAnswer): void {
    if (answer === this.#recalled && this.#state === "in doubt") this.#state = "confirmed";
  }

  /** The registry asks for something else than it did; what it did not ask for in a ping is not kept. */
  correct({ base, challenge }: PingAnswer, now: Challenge): void {
    if (challenge !== undefined && !isSameChallenge(challenge, now)) this.#keep({ base, challenge: now });
  }

  /** Asks the registry, once, because a request failed with `answer`, which is in doubt. */
  replace(answer: PingAnswer, action: string): Promise<PingAnswer> {
    if (answer === this.#recalled && this.#state === "in doubt") {
      this.#state = "replaced";
      this.#options.memory?.forget(this.#options.host);
      this.#answer = this.#ping(action);
    }
    return this.find(action);
  }

  async #recall(): Promise<PingAnswer | undefined> {
    const { host, http, memory } = this.#options;
    if (memory === undefined || this.#recalled !== undefined) return undefined;
    let remembered: RememberedHost | undefined;
    try {
      remembered = await memory.recall(host);
    } catch {
      // A memory that fails is an empty one.
    }
    const base = remembered === undefined ? undefined : findBase(remembered, host, http);
    if (base === undefined) return undefined;
    this.#recalled = { base, challenge: remembered?.challenge };
    return this.#recalled;
  }

  async #ping(action: string): Promise<PingAnswer> {
    try {
      const answer = await pingRegistry({ ...this.#options, action });
      this.#keep(answer);
      return answer;
    } catch (error) {
      this.#answer = undefined;
      throw error;
    }
  }

  #keep({ base, challenge }: PingAnswer): void {
    const { host, memory } = this.#options;
    const kept = challenge === undefined ? undefined : keepChallenge(challenge);
    if (memory === undefined || !isWorthKeeping(base, host) || (challenge !== undefined && kept === undefined)) return;
    memory.remember(host, { base: base.href, ...(kept === undefined ? {} : { challenge: kept }) });
  }
}

/** Whether two answers say the same. */
export function isSameAnswer(a: PingAnswer, b: PingAnswer): boolean {
  return a.base.href === b.base.href && isSameChallenge(a.challenge, b.challenge);
}

/** The base that an earlier run found, if it is one for this host, and permitted now. */
function findBase(remembered: RememberedHost, host: string, http: Http): URL | undefined {
  const base = [new URL(`https://${host}/`), new URL(`http://${host}/`)].find(({ href }) => href === remembered.base);
  if (base === undefined || !isWorthKeeping(base, host)) return undefined;
  return base.protocol === "https:" || mayBeClear(host, http) ? base : undefined;
}

/** Without a port in its name a host has two, 80 and 443: the better one is looked for each time. */
function isWorthKeeping(base: URL, host: string): boolean {
  return base.protocol === "https:" || splitPort(host).port !== undefined;
}

/** Whether plain http may be spoken: on this machine, and where the user named the host as insecure. */
function mayBeClear(host: string, http: Http): boolean {
  return (
    isLoopback(host) || http.isInsecure(new URL(`https://${host}/`)) || http.isInsecure(new URL(`http://${host}/`))
  );
}

/**
 * Asks `GET /v2/`. Plain http is tried only on this machine and where the user named the host as insecure.
 *
 * @throws {RegistryError} If nothing there answers as a registry.
 */
export async function pingRegistry(options: PingOptions): Promise<PingAnswer> {
  const { host, http, signal } = options;
  const secure = new URL(`https://${host}/`);
  const clear = new URL(`http://${host}/`);
  if (!mayBeClear(host, http)) return pingAt(secure, options);
  const over = new AbortController();
  const either = { ...options, signal: AbortSignal.any([signal, over.signal]) };
  try {
    const first = pingAt(secure, either);
    const early = await Promise.race([
      first.catch((error: unknown) => error),
      http.clock.sleep(HTTPS_HEAD_START_MS, either.signal).catch(() => undefined),
    ]);
    // Something that answers https with a refusal speaks https: asking it in clear would tell less.
    if (early instanceof RegistryError && early.status !== undefined) throw early;
    if (early !== undefined && !(early instanceof Error)) return await first;
    const second = pingAt(clear, either);
    const failures = await Promise.any([first, second]).then(
      (answer) => answer,
      (error: unknown) => (error instanceof AggregateError ? error : new AggregateError([error])),
    );
    if (!(failures instanceof AggregateError)) return failures;
    const [https, plain]: readonly unknown[] = failures.errors;
    // A bad certificate says more than what http gets from a port that speaks TLS.
    throw /certificate/.test(messageOf(https)) ? https : plain;
  } finally {
    over.abort(new Error("the other scheme answered"));
  }
}

async function pingAt(base: URL, options: PingOptions): Promise<PingAnswer> {
  const { action, host, http, signal } = options;
  let url = new URL("/v2/", base);
  for (let hops = 0; ; hops++) {
    const response = await http.send({ method: "GET", url, action, signal, deadline: http.deadlines.ping });
    const location = response.headers.get("location") ?? "";
    if (isRedirect(response.status) && hops < MAX_REDIRECTS && URL.canParse(location, url.href)) {
      await response.discard();
      const next = new URL(location, url);
      // A redirect may make the way to this host safer; what other hosts say counts where they are asked something.
      const leaves = next.host !== url.host || (url.protocol === "https:" && next.protocol !== "https:");
      if (leaves) return { base, challenge: undefined };
      url = next;
      continue;
    }
    const found = new URL(`${url.protocol}//${host}/`);
    if (response.status === 200) {
      await response.discard();
      return { base: found, challenge: undefined };
    }
    if (response.status !== 401) {
      throw await readRefusal(response, {
        action: `${action}: ask ${host} for its registry API`,
        repository: { host, path: "" },
        push: false,
        host,
        source: undefined,
        reasons: ["none was asked for"],
        secrets: http.secrets,
        now: http.clock.now(),
      });
    }
    await response.discard();
    const challenges = parseChallenges(response.headers.get("www-authenticate") ?? "");
    const challenge = findUsable(challenges);
    if (challenge === undefined && challenges.length > 0) {
      const schemes = http.secrets.excerpt(challenges.map(({ scheme }) => scheme).join(", "));
      throw new RegistryError(
        `Cannot ${action}: ${host} wants authentication by ${schemes}, ko knows Basic and Bearer`,
        {
          method: "GET",
          url: redactUrl(url),
          status: 401,
        },
      );
    }
    return { base: found, challenge };
  }
}

/** Plain data, to be kept as JSON. */
export interface RememberedHost {
  /** `https://host/` or `http://host/`. */
  readonly base: string;
  /** What the registry asked for; without it, it asked for nothing. */
  readonly challenge?: Challenge;
}

/** A store that may lose everything at any time; entries that are some days old are best left out. */
export interface HostMemory {
  /**
   * @param host `host[:port]`
   * @returns what {@link readRememberedHost} makes of what was stored
   */
  recall(host: string): Promise<RememberedHost | undefined>;
  /** Replaces what is known of `host`. Must not throw, nor make anybody wait. */
  remember(host: string, what: RememberedHost): void;
  /** It was wrong. Must not throw, nor make anybody wait. */
  forget(host: string): void;
}

/** Longer than any that registries send. */
const MAX_CHARS = 2048;
/** The only parameters that count beyond the request that drew the challenge. */
const KEPT_PARAMETERS = ["realm", "service"] as const;

/** Reads JSON that anybody may have written, or undefined when it is not what was stored. */
export function readRememberedHost(value: unknown): RememberedHost | undefined {
  if (!isObject(value)) return undefined;
  const { base, challenge } = value;
  if (!isText(base) || !/^https?:\/\/[^/?#@\\]+\/$/.test(base) || !URL.canParse(base)) return undefined;
  if (challenge === undefined) return { base };
  if (!isObject(challenge) || !isObject(challenge["parameters"])) return undefined;
  const { parameters, scheme } = challenge;
  if (scheme !== "basic" && scheme !== "bearer") return undefined;
  if (!Object.values(parameters).every(isText)) return undefined;
  const kept = keepChallenge({ scheme, parameters: Object.fromEntries(pickKept(parameters)) });
  return kept === undefined ? undefined : { base, challenge: kept };
}

/** What of a challenge may be kept, or undefined when it cannot be used without what may not. */
export function keepChallenge({ scheme, parameters }: Challenge): Challenge | undefined {
  if (scheme === "basic") return { scheme, parameters: {} };
  const { realm = "" } = parameters;
  if (!isText(realm) || !URL.canParse(realm)) return undefined;
  const url = new URL(realm);
  if (url.username !== "" || url.password !== "") return undefined;
  const kept = pickKept(parameters);
  return kept.every(([, value]) => isText(value)) ? { scheme, parameters: Object.fromEntries(kept) } : undefined;
}

/** Whether two challenges ask for the same, whatever they were drawn by. */
export function isSameChallenge(a: Challenge | undefined, b: Challenge | undefined): boolean {
  if (a === undefined || b === undefined || a.scheme !== b.scheme) return a === b;
  return a.scheme === "basic" || KEPT_PARAMETERS.every((name) => a.parameters[name] === b.parameters[name]);
}

function pickKept(parameters: Readonly<Record<string, unknown>>): [string, string][] {
  return KEPT_PARAMETERS.flatMap((name): [string, string][] => {
    const value = parameters[name];
    return typeof value === "string" ? [[name, value]] : [];
  });
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_CHARS && !/[\u0000-\u001f\u007f]/.test(value);
}

/** Milliseconds after which a registry is asked again. */
const MAX_AGE_MS = 7 * 24 * 3600 * 1000;

/** A memory of registries in `cache`. */
export function cachedHosts(cache: Cache, host: Pick<Host, "now">): HostMemory {
  return {
    recall: async (registry) => {
      const record = cache.read("host", keyOf(registry));
      if (!isObject(record) || typeof record["learned"] !== "number") return undefined;
      const age = host.now().getTime() - record["learned"];
      // From the future: the clock was wrong then, or is now.
      return age >= 0 && age <= MAX_AGE_MS ? readRememberedHost(record["what"]) : undefined;
    },
    remember: (registry, what) => cache.write("host", keyOf(registry), { learned: host.now().getTime(), what }),
    forget: (registry) => cache.remove("host", keyOf(registry)),
  };
}
