/**
 * Authorizes requests to one registry: answers its challenge with Basic, or with a token of the token server it names.
 *
 * The tokens are fetched in registry-token.ts. Rules: docs/rules.md A1.4, A2.6-A2.10, A2.16, B7.1.
 */
import { once } from "./async.ts";
import { KoError, RegistryError } from "./errors.ts";
import type { Http, HttpResponse } from "./http.ts";
import { readRefusal, type RefusedRequest } from "./registry-errors.ts";
import type { Credential, FindOptions, FoundCredential, Keychain } from "./registry-credential.ts";
import { type ApiProbe, type Challenge, type Endpoint, findUsable, parseChallenges } from "./registry-ping.ts";
import { basicOf, fetchToken, readRealm, type Token, type TokenRequest } from "./registry-token.ts";
import { whyWithheld } from "./url.ts";

/** The rights that a request needs. */
export interface Scope extends RefusedRequest {
  /** Paths of other repositories of this registry that must be readable too: the sources of mounts. */
  readonly from?: readonly string[];
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
  /** The sources that were asked for a credential. */
  readonly effort: FindOptions["effort"];
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

/** The challenge, the tokens and the refresh tokens of one endpoint. */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  #challenge: Challenge | undefined;
  /** By repository, credential and scopes: requests that need the same token wait for the same response. */
  readonly #tokens = new Map<string, Promise<Token>>();
  /** The final refusals of the token server, by the same and by the scopes that the registry named: it is asked once. */
  readonly #refusals = new Map<string, TokenRefusal>();
  /** By path of the repository. */
  readonly #refreshTokens = new Map<string, string>();
  /** Paths of repositories that refused an anonymous pull, or one with a login from a file. */
  readonly #private = new Set<string>();

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
    if (challenge === undefined) return anonymous(scope);
    return this.#answer(scope, { challenge, refused: undefined, effort: this.#effortFor(scope, challenge) });
  }

  /**
   * A new token for other programs, with all sources of credentials.
   *
   * @throws {KoError} If the registry wants no token, or the token server refuses, or must not be asked.
   */
  async token(scope: Scope): Promise<Token> {
    const challenge = this.#challenge;
    if (challenge?.scheme !== "bearer") {
      const wants = challenge === undefined ? "nothing" : `${challenge.scheme} authentication`;
      throw new KoError(`Cannot ${scope.action}: ${this.#options.host} wants ${wants}, not a token`);
    }
    const request: ProofRequest = { challenge, refused: undefined, effort: "all" };
    const search = await this.#find(scope, "all");
    if (search.found?.credential.kind === "bearer") {
      return { value: search.found.credential.token, refreshToken: undefined, refreshAt: Infinity, expiresIn: 0 };
    }
    return (await this.#findToken(scope, { ...request, ...search })).token;
  }

  /**
   * The authorization to try again with after a refusal; undefined if there is no other one.
   *
   * After a 401 it answers the challenge. A pull that was refused without asking all sources gets their credential. If
   * they have none, the authorization is the used one, with the reasons.
   *
   * @param used the authorization of the refused request
   * @throws {RegistryError} If the token server refuses, or must not be asked.
   */
  async next(response: HttpResponse, used: Authorization): Promise<Authorization | undefined> {
    const { scope } = used;
    if (response.status !== 401) return used.effort === "all" ? undefined : this.#askAll(used);
    const { endpoint, probe } = this.#options;
    const challenge = challengeOf(response);
    if (challenge === undefined) return undefined;
    this.#challenge = challenge;
    probe.correct(endpoint, challenge);
    if (used.header !== undefined) this.#private.add(scope.repository.path);
    const effort = this.#effortFor(scope, challenge);
    const next = await this.#answer(scope, { challenge, refused: used, effort });
    return next.header === undefined ? { ...used, reasons: next.reasons, effort } : next;
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
      refuse: (answer) => {
        return readRefusal(answer, { request: scope, host, http, source: undefined, reasons: [], isSecret: true });
      },
    });
    return `Bearer ${token.value}`;
  }

  /**
   * A pull asks only files at first: credential helpers and clouds take time, and most base images are public. A Basic
   * challenge to `GET /v2/` is a refusal already.
   */
  #effortFor({ push, repository }: Scope, challenge: Challenge): FindOptions["effort"] {
    return push || challenge.scheme === "basic" || this.#private.has(repository.path) ? "all" : "files";
  }

  /** Asks the sources that a pull did not ask, after it was refused. */
  async #askAll(used: Authorization): Promise<Authorization | undefined> {
    const { scope } = used;
    const challenge = this.#challenge;
    if (challenge === undefined) return undefined;
    const { reasons, source } = await this.#find(scope, "all");
    if (source === used.source)
      return { ...used, effort: "all", reasons: source === undefined ? reasons : used.reasons };
    return this.#answer(scope, { challenge, refused: used, effort: "all" });
  }

  async #answer(scope: Scope, request: ProofRequest): Promise<Authorization> {
    const search = await this.#find(scope, request.effort);
    if (request.effort === "all") return this.#prove(scope, { ...request, ...search });
    try {
      return await this.#prove(scope, { ...request, ...search });
    } catch (error) {
      // The token server refuses an anonymous pull, or a login from a file.
      if (!(error instanceof RegistryError) || error.status === undefined || error.status >= 500) throw error;
      if ((await this.#find(scope, "all")).source === search.source) throw error;
      return this.#answer(scope, { ...request, effort: "all" });
    }
  }

  /** Searches for the credential to send. */
  async #find(scope: Scope, effort: FindOptions["effort"]): Promise<Search> {
    const { endpoint, http, keychain } = this.#options;
    const { push, repository } = scope;
    if (effort === "all" && !push) this.#private.add(repository.path);
    const found = await keychain.find(repository, { effort, push });
    if (found === undefined) {
      return { found, source: undefined, reasons: keychain.explain?.(repository) ?? [] };
    }
    hideCredential(found.credential, http);
    const { source } = found;
    if (endpoint.base.protocol !== "http:" || http.proxyFor(endpoint.base) === false) {
      return { found, source, reasons: [] };
    }
    const why = `the one from ${source} was not sent unencrypted through a proxy`;
    return { found: undefined, source: undefined, reasons: [why] };
  }

  async #prove(scope: Scope, proof: Proof): Promise<Authorization> {
    const { challenge, effort, found, reasons } = proof;
    const credential = found?.credential;
    if (challenge.scheme === "bearer") {
      if (credential?.kind !== "bearer") return this.#proveByToken(scope, proof);
      return { scope, header: `Bearer ${credential.token}`, source: found?.source, reasons, effort };
    }
    if (credential?.kind === "basic") {
      return { scope, header: basicOf(credential), source: found?.source, reasons, effort };
    }
    if (found === undefined) return { ...anonymous(scope), reasons, effort };
    const why = `the one from ${found.source} is a token, but the registry wants a username and a password`;
    return { ...anonymous(scope), reasons: [why], effort };
  }

  async #proveByToken(scope: Scope, proof: Proof): Promise<Authorization> {
    const { reasons, source, token } = await this.#findToken(scope, proof);
    return { scope, header: `Bearer ${token.value}`, source, reasons, effort: proof.effort };
  }

  /** Returns a token, cached or new, and where its credential is from, or why none was sent. */
  async #findToken(
    scope: Scope,
    { challenge, effort, found, reasons, refused }: Proof,
  ): Promise<{ readonly token: Token } & Pick<Authorization, "source" | "reasons">> {
    const { endpoint, host, http, trusted } = this.#options;
    const { action, repository } = scope;
    const origin = endpoint.base;
    const realm = await readRealm(challenge.parameters["realm"], { http, origin, action });
    const isProxied = http.proxyFor(realm) !== false;
    const policy = { isProxied, allowsHttp: http.allowsHttp(realm), trusted };
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
      refuse: async (response) => {
        const request = { ...scope, action: `${action}: get a token for ${host}` };
        // All sources are asked now, so that the error has their reasons.
        const all = found === undefined && effort !== "all" ? (await this.#find(scope, "all")).reasons : why;
        return readRefusal(response, { request, host, http, source, reasons: all, isSecret: true });
      },
    };
    const key = [repository.path, source ?? "anonymous", ...own].join(" ");
    const token = await this.#token(key, {
      get: () => this.#fetchToken(tokenRequest, { path: repository.path, key: `${key} ${wished.join(" ")}` }),
      refused: refused?.header,
    });
    // Not that of an anonymous token: it would take the place of a credential.
    if (token.refreshToken !== undefined && source !== undefined) {
      this.#refreshTokens.set(repository.path, token.refreshToken);
    }
    return { token, source, reasons: why };
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

  /** Fetches a token, unless the server has refused it in this run. */
  async #fetchToken(
    request: TokenRequest,
    { key, path }: { readonly key: string; readonly path: string },
  ): Promise<Token> {
    const { action } = request;
    const known = this.#refusals.get(key);
    if (known !== undefined) throw known.error.withAction(known.action, action);
    try {
      return await this.#refresh(request, path);
    } catch (error) {
      const isFinal = error instanceof RegistryError && error.status !== undefined && error.retry === "never";
      if (isFinal) this.#refusals.set(key, { action, error });
      throw error;
    }
  }

  /** Fetches a token with the refresh token, or with the credential if there is none or it is refused. */
  async #refresh(request: TokenRequest, path: string): Promise<Token> {
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

/** A refusal of the token server. */
interface TokenRefusal {
  /** The task that it refused. */
  readonly action: string;
  readonly error: RegistryError;
}

/** The authorization of a request that is sent without a credential. */
export function anonymous(scope: Scope): Authorization {
  return { scope, header: undefined, source: undefined, reasons: [], effort: scope.push ? "all" : "files" };
}

interface ProofRequest {
  readonly challenge: Challenge;
  /** The authorization that the registry has just refused; undefined before its first response. */
  readonly refused: Authorization | undefined;
  readonly effort: FindOptions["effort"];
}

/** The result of a search for a credential. */
interface Search {
  readonly found: FoundCredential | undefined;
  /** That of `found`. */
  readonly source: string | undefined;
  readonly reasons: readonly string[];
}

type Proof = ProofRequest & Search;

function challengeOf(response: HttpResponse): Challenge | undefined {
  return findUsable(parseChallenges(response.headers.get("www-authenticate") ?? ""));
}

function scopesOf({ parameters }: Challenge): readonly string[] {
  return (parameters["scope"] ?? "").split(" ").filter((scope) => scope !== "");
}

function neededScopes({ from, push, repository }: Scope): readonly string[] {
  const own = `repository:${repository.path}:${push ? "push,pull" : "pull"}`;
  return [own, ...(from ?? []).map((path) => `repository:${path}:pull`)];
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
