/**
 * Talking to one registry host: http or https, who we are, redirects, refusals.
 *
 * It sends one request (and once more after a 401); what to ask for is registry.ts's and registry-upload.ts's matter, doing
 * things again is async.ts's. Rules: rules.md A1, A2, A8.7, E3, E4.
 */
import { RegistryError } from "./errors.ts";
import type { RequestBody } from "./http-transfer.ts";
import { type Http, type HttpResponse, isRedirect } from "./http.ts";
import type { Repository } from "./reference.ts";
import {
  type Challenge,
  fetchToken,
  findUsable,
  parseChallenges,
  readRealm,
  type Token,
  whyWithheld,
} from "./registry-auth.ts";
import { readRefusal } from "./registry-errors.ts";
import type { FoundCredential, Keychain } from "./registry-keychain.ts";
import { Approach, type HostMemory, isSameAnswer, type PingAnswer } from "./registry-ping.ts";
import { redactUrl, whyForbidden } from "./url.ts";

export interface ConnectionOptions {
  readonly http: Http;
  /** `host[:port]` */
  readonly host: string;
  readonly keychain: Keychain;
  /** `KO_TOKEN_HOSTS`: pairs `registry=server`. */
  readonly trusted: string;
  readonly signal: AbortSignal;
  /** Without it, each run asks the registry how it is reached. */
  readonly memory?: HostMemory | undefined;
}

export interface ConnectionRequest {
  readonly method: string;
  /** A path such as `/v2/app/blobs/…`, or the URL that the registry gave for an upload. */
  readonly target: string | URL;
  readonly repository: Repository;
  /** What is being done, for errors: `push layer sha256:… to "host/app"`. */
  readonly action: string;
  /** Whether the right to push is needed. */
  readonly push: boolean;
  /** Repository of this registry that must be readable as well (the source of a mount). */
  readonly from?: string;
  /** Statuses that are no error. */
  readonly accept: readonly number[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: RequestBody | Uint8Array;
  readonly signal?: AbortSignal | undefined;
  /** True for what is said on the way out: the run's signal does not end it. @default false */
  readonly detached?: boolean;
}

/** How one request proves who it is. */
interface Authorization {
  /** Value of the header, or undefined for none. */
  readonly header: string | undefined;
  readonly source: string | undefined;
  readonly reasons: readonly string[];
}

const ANONYMOUS: Authorization = { header: undefined, source: undefined, reasons: [] };
const MAX_REDIRECTS = 5;

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #approach: Approach;
  /** What of {@link Approach} the challenge and the tokens belong to. */
  #answered: PingAnswer | undefined;
  #challenge: Challenge | undefined;
  readonly #tokens = new Map<string, Promise<Token>>();
  readonly #refreshTokens = new Map<string, string>();

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#approach = new Approach(options);
  }

  /** `https://host/`, once the registry has answered under it, now or in an earlier run. */
  async base(action: string): Promise<URL> {
    return (await this.#approach.find(action)).base;
  }

  /**
   * Sends one request, with what the registry wants to know about us, and follows redirects by the rules.
   *
   * @throws {RegistryError} If the answer's status is not one of `request.accept`, or none comes.
   */
  async send(request: ConnectionRequest): Promise<HttpResponse> {
    const known = await this.#approach.find(request.action);
    try {
      return await this.#attempt(request, known);
    } catch (error) {
      const mayBeNews = error instanceof RegistryError && request.signal?.aborted !== true;
      if (!mayBeNews || !this.#approach.isInDoubt(known)) throw error;
      const now = await this.#approach.replace(known, request.action);
      // All is as it was, so a refusal is about the request.
      if (error.status !== undefined && isSameAnswer(known, now)) throw error;
      return this.#attempt(request, now);
    }
  }

  async #attempt(request: ConnectionRequest, known: PingAnswer): Promise<HttpResponse> {
    this.#adopt(known);
    const { base } = known;
    const url = new URL(request.target, base.href);
    const own = url.origin === base.origin;
    let authorization = own ? await this.#authorize(request) : ANONYMOUS;
    let response = await this.#follow(request, { url, known, authorization });
    if (response.status === 401 && own && response.url.origin === base.origin) {
      const again = await this.#answer(request, { response, used: authorization });
      if (again !== undefined) {
        await response.discard();
        authorization = again;
        response = await this.#follow(request, { url, known, authorization });
      }
    }
    if (response.url.origin === base.origin && response.status >= 200 && response.status < 300) {
      this.#approach.confirm(known);
    }
    if (request.accept.includes(response.status)) return response;
    throw await this.#refuse(request, response, authorization);
  }

  /** Where `location` leads, seen from `from`; the rules for redirects and for upload Locations alike. */
  async resolve(location: string, from: URL, action: string): Promise<URL> {
    const { http } = this.#options;
    const base = await this.base(action);
    const fail = (why: string): RegistryError =>
      new RegistryError(`Cannot ${action}: ${from.host} leads elsewhere, and there it is refused: ${why}`, {
        method: "GET",
        url: redactUrl(from),
      });
    if (!URL.canParse(location, from.href)) throw fail("its Location is no URL");
    const next = new URL(location, from);
    [next.username, next.password, next.hash] = ["", "", ""];
    if (next.protocol === "http:" && from.protocol === "https:") {
      // A TLS proxy that does not tell the registry so: same host, so stay with https.
      if (next.host !== from.host && !(next.hostname === from.hostname && next.port === "")) {
        throw fail(`${next.host} is not reached over https`);
      }
      next.protocol = "https:";
      next.port = from.port;
    }
    if (next.protocol !== "https:" && next.protocol !== "http:") throw fail(`${next.protocol} is no way to go`);
    if (next.protocol === "http:" && base.protocol === "https:") throw fail(`${next.host} is not reached over https`);
    const why = await whyForbidden(next, base, { names: http.proxyFor(next) === false });
    if (why !== undefined) throw fail(why);
    return next;
  }

  /** Tokens of a server that an outdated memory named are of no use, and no business of another one. */
  #adopt(known: PingAnswer): void {
    if (known === this.#answered) return;
    this.#answered = known;
    this.#challenge = known.challenge;
    this.#tokens.clear();
    this.#refreshTokens.clear();
  }

  /** What to send with a request, by what is known of the registry so far. */
  async #authorize(request: ConnectionRequest): Promise<Authorization> {
    const challenge = this.#challenge;
    return challenge === undefined ? ANONYMOUS : this.#prove(request, { challenge, after: undefined });
  }

  /** What to send after a 401, or undefined when there is nothing new to say. */
  async #answer(
    request: ConnectionRequest,
    { response, used }: { readonly response: HttpResponse; readonly used: Authorization },
  ): Promise<Authorization | undefined> {
    const challenge = findUsable(parseChallenges(response.headers.get("www-authenticate") ?? ""));
    if (challenge === undefined) return undefined;
    this.#challenge = challenge;
    if (this.#answered !== undefined) this.#approach.correct(this.#answered, challenge);
    const again = await this.#prove(request, { challenge, after: used });
    return again.header === undefined || again.header === used.header ? undefined : again;
  }

  async #prove(
    request: ConnectionRequest,
    { challenge, after }: Pick<Proof, "challenge" | "after">,
  ): Promise<Authorization> {
    const { http, keychain } = this.#options;
    const { repository } = request;
    const found = await keychain.find(repository);
    const base = await this.base(request.action);
    if (found !== undefined) this.#remember(found);
    const reasons = found === undefined ? (keychain.explain?.(repository) ?? []) : [];
    if (found !== undefined && base.protocol === "http:" && http.proxyFor(base) !== false) {
      const why = `the one from ${found.source} was not sent in clear through a proxy`;
      return this.#proveWith(request, { challenge, after, found: undefined, reasons: [why] });
    }
    return this.#proveWith(request, { challenge, after, found, reasons });
  }

  async #proveWith(request: ConnectionRequest, how: Proof): Promise<Authorization> {
    const { found, reasons } = how;
    const credential = found?.credential;
    if (how.challenge.scheme === "bearer") {
      if (credential?.kind !== "bearer") return this.#proveByToken(request, how);
      return { header: `Bearer ${credential.token}`, source: found?.source, reasons };
    }
    if (credential?.kind === "basic") {
      const pair = Buffer.from(`${credential.username}:${credential.password}`).toString("base64");
      return { header: `Basic ${pair}`, source: found?.source, reasons };
    }
    if (found === undefined) return { header: undefined, source: undefined, reasons };
    const why = `the one from ${found.source} is a token, and the registry wants a user and a password`;
    return { header: undefined, source: undefined, reasons: [why] };
  }

  async #proveByToken(request: ConnectionRequest, { after, challenge, found, reasons }: Proof): Promise<Authorization> {
    const { host, http, trusted } = this.#options;
    const { action, from, push, repository } = request;
    const base = await this.base(action);
    const realm = await readRealm(challenge.parameters["realm"], { http, origin: base, action });
    const withheld = found === undefined ? undefined : whyWithheld(realm, base, { http, trusted });
    const source = withheld === undefined ? found?.source : undefined;
    const why = withheld === undefined ? reasons : [`there is one from ${found?.source}, but ${withheld}`];
    const own = [
      `repository:${repository.path}:${push ? "push,pull" : "pull"}`,
      ...(from === undefined ? [] : [`repository:${from}:pull`]),
    ];
    // A mount asks for no more than it must: some servers fail the whole token for one scope too many (A2.7).
    const wished = after === undefined || from !== undefined ? "" : (challenge.parameters["scope"] ?? "");
    const scopes = [...own, ...wished.split(" ").filter((scope) => scope !== "" && !isCovered(scope, own))];
    const key = [repository.path, ...own].join(" ");
    const refreshToken = this.#refreshTokens.get(repository.path);
    const credential = withheld === undefined ? found?.credential : undefined;
    const get = (): Promise<Token> => {
      const options = {
        http,
        realm,
        service: challenge.parameters["service"],
        scopes,
        origin: base,
        action,
        refuse: (response: HttpResponse): Promise<RegistryError> =>
          this.#refuse({ ...request, action: `${action}: get a token for ${host}` }, response, {
            header: undefined,
            source,
            reasons: why,
          }),
      };
      if (refreshToken === undefined) return fetchToken({ ...options, credential });
      return fetchToken({ ...options, credential: { kind: "identity", token: refreshToken } }).catch(
        (error: unknown) => {
          if (!(error instanceof RegistryError) || error.retry !== "never") throw error;
          this.#refreshTokens.delete(repository.path);
          return fetchToken({ ...options, credential });
        },
      );
    };
    const token = await this.#token(key, { get, refused: after?.header });
    if (token.refreshToken !== undefined && withheld === undefined) {
      this.#refreshTokens.set(repository.path, token.refreshToken);
    }
    return { header: `Bearer ${token.value}`, source, reasons: why };
  }

  /** One token per set of scopes; requests that need the same wait for the same answer. */
  async #token(
    key: string,
    { get, refused }: { readonly get: () => Promise<Token>; readonly refused: string | undefined },
  ): Promise<Token> {
    const known = this.#tokens.get(key);
    if (known !== undefined) {
      const token = await known.catch(() => undefined);
      const good = token !== undefined && token.refreshAt > this.#options.http.clock.now();
      if (good && `Bearer ${token.value}` !== refused) return token;
      if (this.#tokens.get(key) === known) this.#tokens.delete(key);
    }
    let promise = this.#tokens.get(key);
    if (promise === undefined) {
      promise = get();
      this.#tokens.set(key, promise);
      const mine = promise;
      promise.catch(() => {
        if (this.#tokens.get(key) === mine) this.#tokens.delete(key);
      });
    }
    return promise;
  }

  #remember({ credential }: FoundCredential): void {
    const { secrets } = this.#options.http;
    if (credential.kind !== "basic") secrets.add(credential.token);
    else secrets.add(credential.password, `${credential.username}:${credential.password}`);
  }

  /** Sends, and goes where redirects lead; the credential stays behind as soon as one leaves the registry. */
  async #follow(
    request: ConnectionRequest,
    start: { readonly url: URL; readonly known: PingAnswer; readonly authorization: Authorization },
  ): Promise<HttpResponse> {
    const { http } = this.#options;
    const { action, body, method, signal } = request;
    const { base } = start.known;
    let { url } = start;
    let authorization = start.authorization.header;
    let challenged = false;
    for (let hops = 0; ;) {
      const response = await http.send({
        method,
        url,
        action,
        headers: { ...request.headers, ...(authorization === undefined ? {} : { authorization }) },
        ...(body === undefined ? {} : { body }),
        signal,
        detached: request.detached ?? false,
        // A TLS hello to another protocol may hang.
        ...(this.#approach.isInDoubt(start.known) ? { deadline: http.deadlines.ping } : {}),
      });
      const reads = method === "GET" || method === "HEAD";
      if (response.status === 401 && hops > 0 && url.origin !== base.origin && reads && !challenged) {
        // Another host asks who we are: for it we are nobody (A2.16).
        challenged = true;
        authorization = await this.#anonymousToken(request, response);
        if (authorization === undefined) return response;
        await response.discard();
        continue;
      }
      const location = response.headers.get("location");
      if (!isRedirect(response.status) || location === null) return response;
      if (request.accept.includes(response.status)) return response;
      await response.discard();
      const next = await this.resolve(location, url, action);
      const fail = (why: string): RegistryError =>
        new RegistryError(`Cannot ${action}: ${method} ${redactUrl(url)} answered ${response.status}: ${why}`, {
          method,
          url: redactUrl(url),
          status: response.status,
        });
      if (++hops > MAX_REDIRECTS) throw fail(`more than ${MAX_REDIRECTS} redirects`);
      if (!reads && response.status !== 307 && response.status !== 308)
        throw fail("such a redirect would lose the content");
      if (next.origin !== url.origin) authorization = undefined;
      url = next;
    }
  }

  async #anonymousToken(request: ConnectionRequest, response: HttpResponse): Promise<string | undefined> {
    const { http } = this.#options;
    const { action } = request;
    const challenge = findUsable(parseChallenges(response.headers.get("www-authenticate") ?? ""));
    if (challenge?.scheme !== "bearer") return undefined;
    const origin = new URL("/", response.url);
    const token = await fetchToken({
      http,
      realm: await readRealm(challenge.parameters["realm"], { http, origin, action }),
      service: challenge.parameters["service"],
      scopes: (challenge.parameters["scope"] ?? "").split(" ").filter((scope) => scope !== ""),
      credential: undefined,
      origin,
      action,
      refuse: (answer) => this.#refuse(request, answer, ANONYMOUS),
    });
    return `Bearer ${token.value}`;
  }

  #refuse(request: ConnectionRequest, response: HttpResponse, authorization: Authorization): Promise<RegistryError> {
    const { host, http } = this.#options;
    return readRefusal(response, {
      action: request.action,
      repository: request.repository,
      push: request.push,
      host,
      source: authorization.source,
      reasons: authorization.reasons,
      secrets: http.secrets,
      now: http.clock.now(),
    });
  }
}

interface Proof {
  readonly challenge: Challenge;
  /** What the registry has just not accepted; undefined before it said anything. */
  readonly after: Authorization | undefined;
  readonly found: FoundCredential | undefined;
  readonly reasons: readonly string[];
}

/** Whether one of `scopes` is for the same thing and allows all that `scope` does. */
function isCovered(scope: string, scopes: readonly string[]): boolean {
  const [thing, actions] = splitScope(scope);
  return scopes.map(splitScope).some(([other, allowed]) => {
    return other === thing && actions.every((action) => allowed.includes(action));
  });
}

function splitScope(scope: string): readonly [string, readonly string[]] {
  const at = scope.lastIndexOf(":");
  return [scope.slice(0, at), scope.slice(at + 1).split(",")];
}
