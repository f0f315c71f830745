/**
 * Authorizes requests to one registry: answers its challenge with Basic, or with a token of the token server it names.
 *
 * Rules: docs/rules.md A1.4, A2.2-A2.16. Requests to and responses of token servers hold secrets and are never shown.
 *
 * https://distribution.github.io/distribution/spec/auth/token/
 * https://distribution.github.io/distribution/spec/auth/oauth/
 */
import { once } from "./async.ts";
import { RegistryError } from "./errors.ts";
import { type Http, type HttpResponse, isRedirect, MAX_REDIRECTS } from "./http.ts";
import { isObject, parseJson } from "./json.ts";
import { readRefusal, type RefusedRequest } from "./registry-errors.ts";
import type { Credential, FoundCredential, Keychain } from "./registry-keychain.ts";
import { type ApiProbe, type Challenge, type Endpoint, findUsable, parseChallenges } from "./registry-ping.ts";
import { findLiteral, findRange, redactUrl, whyForbidden, whyWithheld } from "./url.ts";

/** The rights that a request needs. */
export interface Scope extends RefusedRequest {
  /** Path of another repository of this registry that must be readable too: the source of a mount. */
  readonly from?: string;
}

/** The authorization of one request. */
export interface Authorization {
  readonly scope: Scope;
  /** Value of the `Authorization` header; undefined sends none. */
  readonly header: string | undefined;
  /** Where the credential is from, for errors. */
  readonly source: string | undefined;
  /** Why there is no credential, or why it was not sent. */
  readonly reasons: readonly string[];
}

export interface AuthorizerOptions {
  readonly http: Http;
  /** `host[:port]` */
  readonly host: string;
  readonly keychain: Keychain;
  /** `KO_TOKEN_HOSTS`: pairs `registry=server`, separated by commas. */
  readonly trusted: string;
  readonly probe: ApiProbe;
  readonly endpoint: Endpoint;
}

const MAX_TOKEN_BYTES = 64 * 1024;
const MIN_LIFE_S = 60;

/** The challenge, the tokens and the refresh tokens of one endpoint. */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  #challenge: Challenge | undefined;
  /** By repository and scopes: requests that need the same token wait for the same response. */
  readonly #tokens = new Map<string, Promise<Token>>();
  /** By path of the repository. */
  readonly #refreshTokens = new Map<string, string>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
    this.#challenge = options.endpoint.challenge;
  }

  get endpoint(): Endpoint {
    return this.#options.endpoint;
  }

  /**
   * The authorization of a request by the latest challenge; none as long as the registry has sent no challenge.
   *
   * @throws {RegistryError} If the token server refuses, or must not be asked.
   */
  async header(scope: Scope): Promise<Authorization> {
    const challenge = this.#challenge;
    return challenge === undefined ? anonymous(scope) : this.#answer(scope, { challenge, refused: undefined });
  }

  /**
   * The authorization to try again with after a 401; undefined if there is no other one.
   *
   * @param used the authorization of the refused request
   * @throws {RegistryError} If the token server refuses, or must not be asked.
   */
  async challenged(response: HttpResponse, used: Authorization): Promise<Authorization | undefined> {
    const { endpoint, probe } = this.#options;
    const challenge = challengeOf(response);
    if (challenge === undefined) return undefined;
    this.#challenge = challenge;
    probe.correct(endpoint, challenge);
    const next = await this.#answer(used.scope, { challenge, refused: used });
    return next.header === undefined || next.header === used.header ? undefined : next;
  }

  /**
   * The header for another host that a redirect led to and that wants a token: an anonymous one, never a credential.
   *
   * @returns undefined if the host does not want a token
   * @throws {RegistryError} If the token server refuses, or must not be asked.
   */
  async anonymousHeader(response: HttpResponse, scope: Scope): Promise<string | undefined> {
    const { host, http } = this.#options;
    const challenge = challengeOf(response);
    if (challenge?.scheme !== "bearer") return undefined;
    const origin = new URL("/", response.url);
    const { action } = scope;
    const token = await fetchToken({
      http,
      realm: await readRealm(challenge.parameters["realm"], { http, origin, action }),
      service: challenge.parameters["service"],
      scopes: scopesOf(challenge),
      credential: undefined,
      origin,
      action,
      refuse: (answer) => readRefusal(answer, { request: scope, host, http, source: undefined, reasons: [] }),
    });
    return `Bearer ${token.value}`;
  }

  async #answer(scope: Scope, { challenge, refused }: Pick<Proof, "challenge" | "refused">): Promise<Authorization> {
    const { endpoint, http, keychain } = this.#options;
    const found = await keychain.find(scope.repository);
    if (found !== undefined) hideCredential(found.credential, http);
    const isExposed = endpoint.base.protocol === "http:" && http.proxyFor(endpoint.base) !== false;
    if (found !== undefined && isExposed) {
      const why = `the one from ${found.source} was not sent unencrypted through a proxy`;
      return this.#prove(scope, { challenge, refused, found: undefined, reasons: [why] });
    }
    const reasons = found === undefined ? (keychain.explain?.(scope.repository) ?? []) : [];
    return this.#prove(scope, { challenge, refused, found, reasons });
  }

  async #prove(scope: Scope, proof: Proof): Promise<Authorization> {
    const { challenge, found, reasons } = proof;
    const credential = found?.credential;
    if (challenge.scheme === "bearer") {
      if (credential?.kind !== "bearer") return this.#proveByToken(scope, proof);
      return { scope, header: `Bearer ${credential.token}`, source: found?.source, reasons };
    }
    if (credential?.kind === "basic") return { scope, header: basicOf(credential), source: found?.source, reasons };
    if (found === undefined) return { ...anonymous(scope), reasons };
    const why = `the one from ${found.source} is a token, but the registry wants a username and a password`;
    return { ...anonymous(scope), reasons: [why] };
  }

  async #proveByToken(scope: Scope, { challenge, found, reasons, refused }: Proof): Promise<Authorization> {
    const { endpoint, host, http, trusted } = this.#options;
    const { action, repository } = scope;
    const origin = endpoint.base;
    const realm = await readRealm(challenge.parameters["realm"], { http, origin, action });
    const isProxied = http.proxyFor(realm) !== false;
    const policy = { isProxied, isInsecure: http.isInsecure(realm), trusted };
    const withheld = found === undefined ? undefined : whyWithheld(realm, origin, policy);
    const source = withheld === undefined ? found?.source : undefined;
    const why = withheld === undefined ? reasons : [`there is one from ${found?.source}, but ${withheld}`];
    const own = neededScopes(scope);
    // A mount asks for no more than it needs: some servers refuse a token with one scope too many (docs/rules.md A2.7).
    const wished = refused === undefined || scope.from !== undefined ? [] : scopesOf(challenge);
    const tokenRequest: TokenRequest = {
      http,
      realm,
      service: challenge.parameters["service"],
      scopes: [...own, ...wished.filter((each) => !isCovered(each, own))],
      credential: withheld === undefined ? found?.credential : undefined,
      origin,
      action,
      refuse: (response) => {
        const request = { ...scope, action: `${action}: get a token for ${host}` };
        return readRefusal(response, { request, host, http, source, reasons: why });
      },
    };
    const key = [repository.path, ...own].join(" ");
    const token = await this.#token(key, {
      get: () => this.#fetchToken(tokenRequest, repository.path),
      refused: refused?.header,
    });
    if (token.refreshToken !== undefined && withheld === undefined) {
      this.#refreshTokens.set(repository.path, token.refreshToken);
    }
    return { scope, header: `Bearer ${token.value}`, source, reasons: why };
  }

  /** A cached token that is fresh and is not the one that was refused, else a new one. */
  async #token(
    key: string,
    { get, refused }: { readonly get: () => Promise<Token>; readonly refused: string | undefined },
  ): Promise<Token> {
    const cached = this.#tokens.get(key);
    if (cached !== undefined) {
      const token = await cached.catch(() => undefined);
      const isFresh = token !== undefined && token.refreshAt > this.#options.http.clock.now();
      if (isFresh && `Bearer ${token.value}` !== refused) return token;
      this.#forget(key, cached);
    }
    return once(this.#tokens, key, () => {
      const token = get();
      token.catch(() => this.#forget(key, token));
      return token;
    });
  }

  /** Removes a token unless another request has replaced it. */
  #forget(key: string, token: Promise<Token>): void {
    if (this.#tokens.get(key) === token) this.#tokens.delete(key);
  }

  /** Fetches a token with the refresh token, or with the credential if there is none or it is refused. */
  async #fetchToken(request: TokenRequest, path: string): Promise<Token> {
    const refreshToken = this.#refreshTokens.get(path);
    if (refreshToken === undefined) return fetchToken(request);
    try {
      return await fetchToken({ ...request, credential: { kind: "identity", token: refreshToken } });
    } catch (error) {
      if (!(error instanceof RegistryError) || error.retry !== "never") throw error;
      this.#refreshTokens.delete(path);
      return fetchToken(request);
    }
  }
}

/** The authorization of a request that is sent without a credential. */
export function anonymous(scope: Scope): Authorization {
  return { scope, header: undefined, source: undefined, reasons: [] };
}

interface Proof {
  readonly challenge: Challenge;
  /** The authorization that the registry has just refused; undefined before its first response. */
  readonly refused: Authorization | undefined;
  readonly found: FoundCredential | undefined;
  readonly reasons: readonly string[];
}

interface Token {
  readonly value: string;
  /** Milliseconds since the epoch at which a new one is fetched: after 80 % of its life. */
  readonly refreshAt: number;
  /** Replaces the credential for later tokens; never written to disk. */
  readonly refreshToken: string | undefined;
}

interface TokenRequest {
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

function challengeOf(response: HttpResponse): Challenge | undefined {
  return findUsable(parseChallenges(response.headers.get("www-authenticate") ?? ""));
}

function scopesOf({ parameters }: Challenge): readonly string[] {
  return (parameters["scope"] ?? "").split(" ").filter((scope) => scope !== "");
}

function neededScopes({ from, push, repository }: Scope): readonly string[] {
  const own = `repository:${repository.path}:${push ? "push,pull" : "pull"}`;
  return from === undefined ? [own] : [own, `repository:${from}:pull`];
}

/** Whether one of `scopes` names the same resource and allows all that `scope` does. */
function isCovered(scope: string, scopes: readonly string[]): boolean {
  const [resource, actions] = splitScope(scope);
  return scopes.map(splitScope).some(([other, allowed]) => {
    return other === resource && actions.every((action) => allowed.includes(action));
  });
}

function splitScope(scope: string): readonly [string, readonly string[]] {
  const at = scope.lastIndexOf(":");
  return [scope.slice(0, at), scope.slice(at + 1).split(",")];
}

function hideCredential(credential: Credential, { secrets }: Http): void {
  if (credential.kind !== "basic") secrets.add(credential.token);
  else secrets.add(credential.password, `${credential.username}:${credential.password}`);
}

/**
 * The realm of a challenge as a URL that may be asked.
 *
 * @throws {RegistryError} If the realm is not a URL, is less safe than `origin`, or leads to an address that only
 *   `origin` itself may name.
 */
async function readRealm(
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
    throw fail(`${redactUrl(realm)} is not an https URL`);
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
 * Fetches a token: with POST for an identity token, else with GET, anonymously if there is no credential.
 *
 * @throws {RegistryError} If the server refuses, or its response holds no token.
 */
async function fetchToken(request: TokenRequest): Promise<Token> {
  const { credential } = request;
  let response: HttpResponse | undefined;
  if (credential?.kind === "identity") {
    response = await postToken(request, credential.token);
    if (response.status === 404 || response.status === 405) {
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
    const response = await http.send({ method: "GET", url, action, headers });
    const location = response.headers.get("location");
    if (!isRedirect(response.status) || location === null) return response;
    await response.discard();
    const fail = (): RegistryError =>
      new RegistryError(`Cannot ${action}: ${url.host} redirects in circles, or away from https`, {
        method: "GET",
        url: redactUrl(url),
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

function basicOf(credential: Credential): string | undefined {
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
  const url = redactUrl(response.url);
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
  const life = Math.max(MIN_LIFE_S, Number(value["expires_in"] ?? MIN_LIFE_S) || MIN_LIFE_S);
  return {
    value: token,
    refreshAt: http.clock.now() + life * 800,
    refreshToken: typeof refreshToken === "string" && refreshToken !== "" ? refreshToken : undefined,
  };
}
