/**
 * Bearer tokens: which token server may be asked, with what credential, and how.
 *
 * Rules: rules.md A1.4, A2.2-A2.6, A2.12-A2.15. The bodies of both directions hold secrets and are never shown.
 *
 * https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/
 *
 * `WWW-Authenticate`: which schemes a server accepts, with their parameters.
 *
 * Pure text work (rules.md A2.1, A2.8); what is done with a challenge is in registry-transport.ts and registry-auth.ts.
 *
 * https://www.rfc-editor.org/rfc/rfc9110#field.www-authenticate
 */
import { RegistryError } from "./errors.ts";
import { type Http, type HttpResponse, isRedirect } from "./http.ts";
import { isObject } from "./json.ts";
import type { Credential } from "./registry-keychain.ts";
import { findLiteral, findRange, isLoopback, redactUrl, splitPort, whyForbidden } from "./url.ts";

export interface Token {
  readonly value: string;
  /** Milliseconds since the epoch from which a new one is better: 80 % of its life. */
  readonly refreshAt: number;
  /** Replaces the credential for later tokens; kept in memory only. */
  readonly refreshToken: string | undefined;
}

export interface FetchTokenOptions {
  readonly http: Http;
  /** Of the challenge; see {@link readRealm}. */
  readonly realm: URL;
  readonly service: string | undefined;
  /** The one that matters most first: some servers read only one. */
  readonly scopes: readonly string[];
  readonly credential: Credential | undefined;
  /** The registry: `https://ghcr.io/`. */
  readonly origin: URL;
  readonly action: string;
  /** Makes the error of a refusal. */
  readonly refuse: (response: HttpResponse) => Promise<RegistryError>;
}

const MAX_TOKEN_BYTES = 64 * 1024;
const MAX_REDIRECTS = 5;
const MIN_LIFE_S = 60;

/** Registries whose token server is under another domain, as [suffix of the registry's host, host of the server]. */
const KNOWN_PAIRS: readonly (readonly [string, string])[] = [
  ["nvcr.io", "authn.nvidia.com"],
  ["scw.cloud", "api.scaleway.com"],
];

/**
 * The realm of a challenge as a URL that may be asked.
 *
 * @throws {RegistryError} If it is none, is less safe than the registry, or leads to an address that only the
 *   registry itself may name.
 */
export async function readRealm(
  text: string | undefined,
  options: Pick<FetchTokenOptions, "http" | "origin" | "action">,
): Promise<URL> {
  const { action, http, origin } = options;
  const url = redactUrl(origin);
  const fail = (why: string): RegistryError =>
    new RegistryError(`Cannot ${action}: the token server that ${origin.host} names is refused: ${why}`, {
      method: "GET",
      url,
    });
  if (text === undefined || !URL.canParse(text)) throw fail("its realm is no URL");
  const realm = new URL(text);
  realm.username = "";
  realm.password = "";
  realm.hash = "";
  if (realm.protocol !== "https:" && !(realm.protocol === "http:" && origin.protocol === "http:")) {
    throw fail(`${redactUrl(realm)} is no https URL`);
  }
  if (realm.host === origin.host || http.isInsecure(realm)) return realm;
  const literal = findLiteral(realm.hostname);
  if (literal !== undefined && findRange(literal) !== undefined) {
    throw fail(`${realm.host} is a ${findRange(literal)} address other than the registry's own`);
  }
  const why = await whyForbidden(realm, origin, { names: http.proxyFor(realm) === false });
  if (why !== undefined) throw fail(why);
  return realm;
}

/**
 * Why the registry's credential must not be sent to this token server, or undefined.
 *
 * @param trusted pairs `registry=server` that the user named
 */
export function whyWithheld(realm: URL, origin: URL, options: { http: Http; trusted: string }): string | undefined {
  const { http, trusted } = options;
  if (realm.protocol === "http:") {
    if (http.proxyFor(realm) !== false) return `${realm.host} is reached in clear through a proxy`;
    if (!isLoopback(realm.host) && !http.isInsecure(realm)) return `${realm.host} is not reached over https`;
  }
  if (realm.hostname === origin.hostname || domainOf(realm.hostname) === domainOf(origin.hostname)) return undefined;
  const under = (suffix: string): boolean => origin.hostname === suffix || origin.hostname.endsWith(`.${suffix}`);
  if (KNOWN_PAIRS.some(([suffix, server]) => under(suffix) && realm.host === server)) return undefined;
  if (trusted.split(",").some((pair) => pair.trim() === `${origin.host}=${realm.host}`)) return undefined;
  return (
    `the token server ${realm.host} is another party than ${origin.host}, so it was not sent there ` +
    `(KO_TOKEN_HOSTS=${origin.host}=${realm.host} permits it)`
  );
}

/** The domain that somebody registered, guessed without the public suffix list; an address is its own. */
function domainOf(hostname: string): string {
  if (findLiteral(hostname) !== undefined) return hostname;
  const labels = splitPort(hostname).hostname.toLowerCase().split(".");
  const [second = "", last = ""] = labels.slice(-2);
  // co.uk, com.au, org.br: three labels.
  const size = last.length === 2 && /^(?:ac|co|com|edu|gob|gov|gv|ne|net|or|org)$/.test(second) ? 3 : 2;
  return labels.slice(-size).join(".");
}

/**
 * Gets a token: with POST for an identity token, else with GET, anonymously when there is no credential.
 *
 * @throws {RegistryError} If the server refuses, or answers something without a token.
 */
export async function fetchToken(options: FetchTokenOptions): Promise<Token> {
  const { credential, http } = options;
  let response: HttpResponse | undefined;
  if (credential?.kind === "identity") {
    response = await postToken(options, credential.token);
    if (response.status === 404 || response.status === 405) {
      await response.discard();
      response = undefined;
    }
  }
  response ??= await getToken(options);
  if (response.status !== 200) throw await options.refuse(response);
  return readToken(await response.bytes(MAX_TOKEN_BYTES), response, http.clock.now(), options);
}

async function getToken(options: FetchTokenOptions): Promise<HttpResponse> {
  const { action, credential, http, origin, realm, scopes, service } = options;
  const parameters = [...(service === undefined ? [] : [["service", service]]), ...scopes.map((s) => ["scope", s])];
  let url = withQuery(realm, parameters);
  let authorization = basicOf(credential);
  for (let hops = 0; ; hops++) {
    const response = await http.send({
      method: "GET",
      url,
      action,
      ...(authorization === undefined ? {} : { headers: { authorization } }),
    });
    const location = response.headers.get("location");
    if (!isRedirect(response.status) || location === null) return response;
    await response.discard();
    if (hops === MAX_REDIRECTS) throw tooMany(options, url);
    const next = await readRealm(URL.canParse(location, url.href) ? new URL(location, url).href : undefined, {
      http,
      origin,
      action,
    });
    if (url.protocol === "https:" && next.protocol !== "https:") throw tooMany(options, url);
    if (next.host !== url.host) authorization = undefined;
    url = next;
  }
}

async function postToken(options: FetchTokenOptions, refreshToken: string): Promise<HttpResponse> {
  const { action, http, realm, scopes, service } = options;
  const form = new URLSearchParams({
    grant_type: "refresh_token",
    refresh_token: refreshToken,
    client_id: "ko",
    ...(service === undefined ? {} : { service }),
    scope: scopes.join(" "),
  });
  return http.send({
    method: "POST",
    url: realm,
    action,
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: new TextEncoder().encode(form.toString()),
  });
}

/** A POST that is redirected comes back as such: its body holds the secret, so it goes nowhere else. */
function tooMany({ action }: FetchTokenOptions, url: URL): RegistryError {
  return new RegistryError(`Cannot ${action}: ${url.host} redirects in circles, or away from https`, {
    method: "GET",
    url: redactUrl(url),
  });
}

function basicOf(credential: Credential | undefined): string | undefined {
  if (credential === undefined || credential.kind === "bearer") return undefined;
  const pair =
    credential.kind === "basic" ? `${credential.username}:${credential.password}` : `<token>:${credential.token}`;
  return `Basic ${Buffer.from(pair).toString("base64")}`;
}

/** The realm's own query is kept as it is. */
function withQuery(realm: URL, parameters: readonly (readonly string[])[]): URL {
  const url = new URL(realm);
  const own = url.search.slice(1);
  const added = parameters.map((pair) => pair.map(encodeURIComponent).join("="));
  url.search = [own, ...added].filter((part) => part !== "").join("&");
  return url;
}

function readToken(
  bytes: Uint8Array | undefined,
  response: HttpResponse,
  now: number,
  { action, http }: FetchTokenOptions,
): Token {
  const url = redactUrl(response.url);
  const fail = (why: string): RegistryError =>
    new RegistryError(`Cannot ${action}: the token server ${response.url.host} answered 200, but ${why}`, {
      method: response.method,
      url,
      status: 200,
      retry: "once",
    });
  if (bytes === undefined) throw fail(`with more than ${MAX_TOKEN_BYTES / 1024} KiB`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw fail("not in JSON");
  }
  if (!isObject(value)) throw fail("not with a JSON object");
  const token = value["access_token"] || value["token"];
  if (typeof token !== "string") throw fail("without a token");
  const refreshToken = value["refresh_token"];
  http.secrets.add(token, ...(typeof refreshToken === "string" ? [refreshToken] : []));
  if (!/^[\x21-\x7e]+$/.test(token)) throw fail("with a token that no header can carry");
  const life = Math.max(MIN_LIFE_S, Number(value["expires_in"] ?? MIN_LIFE_S) || MIN_LIFE_S);
  return {
    value: token,
    refreshAt: now + life * 800,
    refreshToken: typeof refreshToken === "string" && refreshToken !== "" ? refreshToken : undefined,
  };
}

export interface Challenge {
  /** Lower case: `basic`, `bearer`, `negotiate`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: Readonly<Record<string, string>>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"?/y;
const BARE = /[^\s,]*/y;

/** Every challenge of one header value; several headers are joined by commas first, as `Headers.get` does. */
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

/** The first challenge that we can answer. */
export function findUsable(challenges: readonly Challenge[]): Challenge | undefined {
  return challenges.find(({ scheme }) => scheme === "basic" || scheme === "bearer");
}
