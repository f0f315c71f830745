/**
 * Finding out how a registry is reached: https, or http where that is permitted, and what it wants to know of us.
 *
 * Rules: wire.md A1.1-A1.6, A2.1.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#determining-support
 */
import { isLoopback } from "./address.ts";
import { type Challenge, findUsable, parseChallenges } from "./challenge.ts";
import { messageOf, RegistryError } from "./errors.ts";
import { type Http, isRedirect } from "./http.ts";
import { redactUrl } from "./redact.ts";
import { readRefusal } from "./refusal.ts";

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

const MAX_REDIRECTS = 5;
/** Milliseconds that https has for itself before http is tried as well. */
const HTTPS_HEAD_START_MS = 300;

/**
 * Asks `GET /v2/`. Plain http is tried only on this machine and where the user named the host as insecure.
 *
 * @throws {RegistryError} If nothing there answers as a registry.
 */
export async function pingRegistry(options: PingOptions): Promise<PingAnswer> {
  const { host, http, signal } = options;
  const secure = new URL(`https://${host}/`);
  const clear = new URL(`http://${host}/`);
  if (!isLoopback(host) && !http.isInsecure(secure) && !http.isInsecure(clear)) return pingAt(secure, options);
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
