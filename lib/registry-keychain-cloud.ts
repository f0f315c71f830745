/**
 * Asks the services of clouds for credentials, within a limit of time, and keeps the answers of a run.
 *
 * Requests and responses hold secrets: a message has the URL without its query, the status and the error's code, no
 * more. Rules: docs/rules.md B6, B7.
 */
import { isAbsolute } from "node:path";
import { systemClock } from "./async.ts";
import { CommandError, KoError, messageOf, RegistryError } from "./errors.ts";
import type { Host } from "./host.ts";
import { DEADLINES } from "./http-transfer.ts";
import { Http, type HttpOptions } from "./http.ts";
import { isObject, parseJson } from "./json.ts";
import type { Log } from "./log.ts";
import type { FoundCredential } from "./registry-credential.ts";
import { isKnownCode } from "./registry-errors.ts";
import { redactUrl, Secrets } from "./url.ts";

export interface CloudOptions {
  /** @default "ko" */
  readonly userAgent?: string;
  /** Milliseconds for all requests of one search. @default 3000 */
  readonly patience?: number;
  /** Makes the client of one search. @default a new {@link Http} */
  readonly open?: (options: HttpOptions) => Http;
}

export interface CloudContext {
  readonly host: Host;
  readonly log: Log;
  readonly options: CloudOptions;
}

/** A credential that ends. */
export interface CloudCredential extends FoundCredential {
  /** Milliseconds since the epoch; undefined if the cloud did not say. */
  readonly expires: number | undefined;
}

/** The sources of a cloud hold no credential. */
export interface NoCredential {
  /** The sources that were asked: `AWS_ACCESS_KEY_ID is not set`. */
  readonly none: readonly string[];
}

/** Finds the credential of one cloud for a registry. */
export interface CloudProvider {
  /** `AWS` */
  readonly name: string;
  /**
   * @throws {KoError} If a source has a credential, but the cloud refuses it or does not answer.
   */
  find(host: string, search: CloudSearch): Promise<CloudCredential | NoCredential>;
}

export interface CloudRequest {
  readonly method: "GET" | "POST" | "PUT";
  readonly url: URL;
  readonly headers?: Readonly<Record<string, string>>;
  /** An object is sent as a form. */
  readonly body?: string | Readonly<Record<string, string>>;
  /** Milliseconds until the response begins. @default the rest of the search's time */
  readonly limit?: number;
  /** The credential of the request, for errors: `with the keys of AWS_ACCESS_KEY_ID`. */
  readonly sent?: string;
  /** True for services of this machine: no proxy, one attempt. @default false */
  readonly isLocal?: boolean;
}

export interface CloudResponse {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

const PATIENCE_MS = 3000;
const PROGRAM_PATIENCE_MS = 30_000;
const MAX_BYTES = 64 * 1024;
/** A credential is replaced after this part of its life. */
const FRESH = 0.8;
/** The life of a credential whose end is unknown. */
const DEFAULT_LIFE_MS = 3600_000;

/** The answers of one cloud, by registry: each registry is asked for once, and again when its credential gets old. */
export class CloudSource {
  readonly #context: CloudContext;
  readonly #provider: CloudProvider;
  readonly #answers = new Map<string, Promise<Answer>>();

  constructor(context: CloudContext, provider: CloudProvider) {
    this.#context = context;
    this.#provider = provider;
  }

  /** The cloud's name: `AWS`. */
  get name(): string {
    return this.#provider.name;
  }

  /**
   * The credential for a registry.
   *
   * @throws {KoError} If there is a credential that the cloud refuses, or the cloud does not answer.
   */
  async find(host: string): Promise<FoundCredential | NoCredential> {
    const known = this.#answers.get(host);
    if (known !== undefined) {
      const { found, refreshAt } = await known;
      if (refreshAt > systemClock.now() || this.#answers.get(host) !== known) return found;
    }
    const answer = this.#ask(host);
    this.#answers.set(host, answer);
    return (await answer).found;
  }

  async #ask(host: string): Promise<Answer> {
    using search = new CloudSearch(this.#provider.name, this.#context);
    const now = systemClock.now();
    const found = await this.#provider.find(host, search);
    if ("none" in found) return { found, refreshAt: Infinity };
    const life = (found.expires ?? now + DEFAULT_LIFE_MS) - now;
    return { found, refreshAt: now + life * FRESH };
  }
}

/** Keeps a result until it expires. Callers at the same time share it, and share a failure. */
export class Renewed<T extends { readonly expires: number | undefined }> {
  #known: Promise<T | NoCredential> | undefined;

  async get(search: CloudSearch, work: () => Promise<T | NoCredential>): Promise<T | NoCredential> {
    const before = this.#known;
    if (before !== undefined) {
      const found = await before;
      if ("none" in found || (found.expires ?? Infinity) > search.now()) return found;
      if (this.#known !== before) return this.get(search, work);
    }
    this.#known = work();
    return this.#known;
  }
}

interface Answer {
  readonly found: FoundCredential | NoCredential;
  /** Milliseconds since the epoch. */
  readonly refreshAt: number;
}

/** One search for a credential: its requests share a limit of time. */
export class CloudSearch implements Disposable {
  readonly host: Host;
  /** Sent and received secrets, which no message may hold. */
  readonly secrets: Secrets = new Secrets();
  readonly #name: string;
  readonly #context: CloudContext;
  #left: number;
  #proxied: Http | undefined;
  #direct: Http | undefined;

  constructor(name: string, context: CloudContext) {
    this.host = context.host;
    this.#name = name;
    this.#context = context;
    this.#left = context.options.patience ?? PATIENCE_MS;
  }

  /** The time, in milliseconds since the epoch. */
  now(): number {
    return systemClock.now();
  }

  /** The error for a credential that cannot be had. */
  fail(why: string, hint?: string): KoError {
    return new KoError(`${this.#name} gave none: ${why}`, { hint, transient: true });
  }

  debug(message: string): void {
    this.#context.log.debug(`${this.#name}: ${this.secrets.hide(message)}`);
  }

  /**
   * Sends a request, and once more after a failure of the network or of the server.
   *
   * @throws {KoError} If there is no response in time.
   */
  async send(request: CloudRequest): Promise<CloudResponse> {
    const isFinal = request.isLocal === true;
    try {
      const response = await this.#exchange(request);
      if (isFinal || (response.status < 500 && response.status !== 429)) return response;
    } catch (error) {
      if (isFinal || !(error instanceof RegistryError) || error.retry === "never") throw this.#explain(error);
    }
    try {
      return await this.#exchange(request);
    } catch (error) {
      throw this.#explain(error);
    }
  }

  /**
   * Sends a request whose response is a JSON object.
   *
   * @throws {KoError} If it is refused, or has another response.
   */
  async json(request: CloudRequest): Promise<Readonly<Record<string, unknown>>> {
    const response = await this.send(request);
    if (response.status !== 200) throw this.refusal(request, response);
    const value = parseJson(response.text);
    if (!isObject(value)) throw this.fail(`${request.method} ${redactUrl(request.url)} did not answer with JSON`);
    return value;
  }

  /** The error for a refused request: its status and the code of its error. The body of the response is not shown. */
  refusal({ method, sent, url }: CloudRequest, { status, text }: CloudResponse): KoError {
    const code = findCode(text) ?? "";
    const answer = `${method} ${redactUrl(url)} answered ${status}${code === "" ? "" : ` (${code})`}`;
    return this.fail(sent === undefined ? answer : `${answer}, ${sent}`);
  }

  /**
   * Runs a program that prints a secret.
   *
   * @param shown the program's name in errors
   * @throws {KoError} If it fails or takes more than 30 s. Its output is not shown.
   */
  async run(
    argv: readonly [string, ...string[]],
    { env, shown }: { readonly env?: Readonly<Record<string, string>>; readonly shown: string },
  ): Promise<string> {
    try {
      const { stdout } = await this.host.run(argv, {
        maxBytes: MAX_BYTES,
        timeout: PROGRAM_PATIENCE_MS,
        ...(env === undefined ? {} : { env: { ...this.host.env, ...env } }),
      });
      return new TextDecoder().decode(stdout);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      const why = error.code === undefined ? "cannot be run, or takes too long" : `has exit code ${error.code}`;
      throw this.fail(`${shown} ${why}`);
    }
  }

  /** The path of a program. Relative entries of PATH are ignored: the working directory may be untrusted. */
  findProgram(name: string): string | undefined {
    const separator = this.host.platform === "win32" ? ";" : ":";
    const folders = (this.host.env["PATH"] ?? "").split(separator).filter((folder) => isAbsolute(folder));
    return folders.length === 0 ? undefined : (Bun.which(name, { PATH: folders.join(separator) }) ?? undefined);
  }

  /**
   * Reads a small file that another file or a variable names.
   *
   * @param shown the setting, for errors: `AWS_WEB_IDENTITY_TOKEN_FILE`
   * @throws {KoError} If it cannot be read.
   */
  async read(path: string, shown: string): Promise<string> {
    try {
      const file = Bun.file(path);
      if (file.size > MAX_BYTES) throw new Error(`it has more than ${MAX_BYTES / 1024} KiB`);
      return await file.text();
    } catch (error) {
      throw this.fail(`${shown} "${path}" cannot be read: ${messageOf(error)}`);
    }
  }

  [Symbol.dispose](): void {
    this.#proxied?.[Symbol.dispose]();
    this.#direct?.[Symbol.dispose]();
  }

  async #exchange(request: CloudRequest): Promise<CloudResponse> {
    const { body, headers, isLocal = false, limit, method, url } = request;
    const over = this.fail(`no answer within ${(this.#context.options.patience ?? PATIENCE_MS) / 1000} s`);
    if (this.#left <= 0) throw over;
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(over), this.#left);
    const started = systemClock.monotonic();
    const form = typeof body === "object" ? { "content-type": "application/x-www-form-urlencoded" } : {};
    const text = typeof body === "object" ? new URLSearchParams(body).toString() : body;
    try {
      const response = await this.#client(isLocal).send({
        method,
        url,
        action: "get credentials",
        headers: { ...form, ...headers },
        ...(text === undefined ? {} : { body: new TextEncoder().encode(text) }),
        signal: stop.signal,
        deadline: Math.min(limit ?? Infinity, this.#left),
      });
      const bytes = await response.bytes(MAX_BYTES);
      if (bytes === undefined)
        throw this.fail(`${method} ${redactUrl(url)} answered more than ${MAX_BYTES / 1024} KiB`);
      return { status: response.status, headers: response.headers, text: new TextDecoder().decode(bytes) };
    } finally {
      clearTimeout(timer);
      this.#left -= systemClock.monotonic() - started;
    }
  }

  #client(isLocal: boolean): Http {
    const { host, log, options } = this.#context;
    const open = options.open ?? ((httpOptions) => new Http(httpOptions));
    const common = {
      log,
      signal: host.signal,
      userAgent: options.userAgent ?? "ko",
      insecureHosts: [],
      secrets: this.secrets,
      clock: systemClock,
      deadlines: DEADLINES,
    };
    if (!isLocal) return (this.#proxied ??= open({ ...common, env: host.env }));
    return (this.#direct ??= open({ ...common, env: {} }));
  }

  #explain(error: unknown): unknown {
    if (!(error instanceof RegistryError)) return error;
    return this.fail(error.message.replace(/^Cannot get credentials: /, ""));
  }
}

/** The error's code in the JSON or XML of a cloud: `AccessDenied`, `invalid_grant`, `AADSTS7000215`. */
function findCode(text: string): string | undefined {
  const value = parseJson(text);
  const codes: unknown[] = [/<Code>([^<]*)<\/Code>/.exec(text)?.[1]];
  if (isObject(value)) {
    const { error, __type: type, code, Code: upper, error_description: description } = value;
    const nested = isObject(error) ? error["status"] : undefined;
    const aad = typeof description === "string" ? /\bAADSTS\d+\b/.exec(description)?.[0] : undefined;
    const errors: unknown = value["errors"];
    const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
    codes.push(aad, nested, error, typeof type === "string" ? type.replace(/^.*#/, "") : undefined, code, upper);
    if (isObject(first)) codes.push(first["code"]);
  }
  return codes.find((each): each is string => typeof each === "string" && isKnownCode(each));
}
