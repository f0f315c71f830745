/**
 * Fetches tokens from the token server that a registry names.
 *
 * Requests and responses hold secrets and are never shown, nor are the paths of redirects. Rules: docs/rules.md A2.2-A2.5,
 * A2.12-A2.15, B6.4.
 *
 * https://distribution.github.io/distribution/spec/auth/token/
 * https://distribution.github.io/distribution/spec/auth/oauth/
 */
import { RegistryError } from "./errors.ts";
import { type Http, type HttpResponse, isRedirect, MAX_REDIRECTS } from "./http.ts";
import { isObject, parseJson } from "./json.ts";
import type { Credential } from "./registry-credential.ts";
import { findLiteral, findRange, redactUrl, whyForbidden } from "./url.ts";

export interface Token {
  readonly value: string;
  /** Milliseconds since the epoch at which a new one is fetched: after 80 % of its life. */
  readonly refreshAt: number;
  /** Seconds, as the token server sent it; 0 if it sent none. */
  readonly expiresIn: number;
  /** Replaces the credential for later tokens; never written to disk. */
  readonly refreshToken: string | undefined;
}

export interface TokenRequest {
  readonly http: Http;
  /** See {@link readRealm}. */
  readonly realm: URL;
  readonly service: string | undefined;
  /** The most important one first: some servers read only one. */
  readonly scopes: readonly string[];
  readonly credential: Credential | undefined;
  /** The host that sent the challenge: `https://ghcr.io/`. */
  readonly origin: URL;
  readonly action: string;
  /** Makes the error for a refusal. */
  readonly refuse: (response: HttpResponse) => Promise<RegistryError>;
}

const MAX_TOKEN_BYTES = 64 * 1024;
const MIN_LIFE_S = 60;
/** What token servers answer that know no POST: JFrog Artifactory says 401, ACR once said 400 (docs/rules.md A2.3). */
const NO_POST: readonly number[] = [400, 401, 404, 405, 501];

/**
 * The realm of a challenge as a URL that may be asked.
 *
 * @throws {RegistryError} If the realm is not a URL, is less safe than `origin`, or leads to an address that only
 *   `origin` itself may name.
 */
export async function readRealm(
  text: string | undefined,
  { action, http, origin }: Pick<TokenRequest, "http" | "origin" | "action">,
): Promise<URL> {
  const url = redactUrl(origin);
  const fail = (why: string): RegistryError =>
    new RegistryError(`Cannot ${action}: the token server that ${origin.host} names is refused: ${why}`, {
      method: "GET",
      url,
    });
  if (text === undefined || !URL.canParse(text)) throw fail("its realm is not a URL");
  const realm = new URL(text);
  realm.username = "";
  realm.password = "";
  realm.hash = "";
  if (realm.protocol !== "https:" && !(realm.protocol === "http:" && origin.protocol === "http:")) {
    throw fail(`${realm.protocol}//${realm.host} is not an https URL`);
  }
  if (realm.host === origin.host || http.allowsHttp(realm)) return realm;
  const literal = findLiteral(realm.hostname);
  if (literal !== undefined && findRange(literal) !== undefined) {
    throw fail(`${realm.host} is a ${findRange(literal)} address other than the registry's own`);
  }
  const why = await whyForbidden(realm, origin, { names: http.proxyFor(realm) === false });
  if (why !== undefined) throw fail(why);
  return realm;
}

/**
 * Fetches a token: with POST for an identity token, else with GET, anonymously if there is no credential.
 *
 * @throws {RegistryError} If the server refuses, or its response holds no token.
 */
export async function fetchToken(request: TokenRequest): Promise<Token> {
  const { credential } = request;
  let response: HttpResponse | undefined;
  if (credential?.kind === "identity") {
    response = await postToken(request, credential.token);
    if (NO_POST.includes(response.status)) {
      await response.discard();
      response = undefined;
    }
  }
  response ??= await getToken(request);
  if (response.status !== 200) throw await request.refuse(response);
  return readToken(response, request);
}

async function getToken(request: TokenRequest): Promise<HttpResponse> {
  const { action, credential, http, origin, realm, scopes, service } = request;
  const parameters = [...(service === undefined ? [] : [["service", service]]), ...scopes.map((s) => ["scope", s])];
  let url = withQuery(realm, parameters);
  let authorization = credential === undefined ? undefined : basicOf(credential);
  for (let hops = 0; ; hops++) {
    const headers = authorization === undefined ? {} : { authorization };
    const response = await http.send({ method: "GET", url, action, headers, isSecret: hops > 0 });
    const location = response.headers.get("location");
    if (!isRedirect(response.status) || location === null) return response;
    await response.discard();
    const fail = (): RegistryError =>
      new RegistryError(`Cannot ${action}: ${url.host} redirects in circles, or away from https`, {
        method: "GET",
        url: response.shownUrl,
      });
    if (hops === MAX_REDIRECTS) throw fail();
    const target = URL.canParse(location, url.href) ? new URL(location, url).href : undefined;
    const next = await readRealm(target, { http, origin, action });
    if (url.protocol === "https:" && next.protocol !== "https:") throw fail();
    if (next.host !== url.host) authorization = undefined;
    url = next;
  }
}

/** Follows no redirect: the body holds a secret. */
async function postToken(request: TokenRequest, refreshToken: string): Promise<HttpResponse> {
  const { action, http, realm, scopes, service } = request;
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

/** The `Authorization` header of a password, or of an identity token; undefined for a bearer token. */
export function basicOf(credential: Credential): string | undefined {
  if (credential.kind === "bearer") return undefined;
  const pair =
    credential.kind === "basic" ? `${credential.username}:${credential.password}` : `<token>:${credential.token}`;
  return `Basic ${Buffer.from(pair).toString("base64")}`;
}

/** Appends parameters; the realm's own query stays byte for byte. */
function withQuery(realm: URL, parameters: readonly (readonly string[])[]): URL {
  const url = new URL(realm);
  const own = url.search.slice(1);
  const added = parameters.map((pair) => pair.map(encodeURIComponent).join("="));
  url.search = [own, ...added].filter((part) => part !== "").join("&");
  return url;
}

async function readToken(response: HttpResponse, { action, http }: TokenRequest): Promise<Token> {
  const url = response.shownUrl;
  const fail = (why: string): RegistryError =>
    new RegistryError(`Cannot ${action}: the token server ${response.url.host} answered 200, but ${why}`, {
      method: response.method,
      url,
      status: 200,
      retry: "once",
    });
  const bytes = await response.bytes(MAX_TOKEN_BYTES);
  if (bytes === undefined) throw fail(`with more than ${MAX_TOKEN_BYTES / 1024} KiB`);
  const value = parseJson(new TextDecoder().decode(bytes));
  if (value === undefined) throw fail("not in JSON");
  if (!isObject(value)) throw fail("not with a JSON object");
  const token = value["access_token"] || value["token"];
  if (typeof token !== "string") throw fail("without a token");
  const refreshToken = value["refresh_token"];
  http.secrets.add(token, ...(typeof refreshToken === "string" ? [refreshToken] : []));
  if (!/^[\x21-\x7e]+$/.test(token)) throw fail("with a token that is not valid in a header");
  const expiresIn = Number(value["expires_in"] ?? 0) || 0;
  const life = Math.max(MIN_LIFE_S, expiresIn);
  return {
    value: token,
    expiresIn,
    refreshAt: http.clock.now() + life * 800,
    refreshToken: typeof refreshToken === "string" && refreshToken !== "" ? refreshToken : undefined,
  };
}
