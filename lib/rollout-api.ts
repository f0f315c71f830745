/**
 * The Kubernetes API, asked through `kubectl proxy`: kubectl knows the user's credentials, plugins and proxies.
 *
 * The proxy listens on a Unix socket in a folder that only this user can enter, and is ended with the run.
 */
import { join } from "node:path";
import { KoError, messageOf, printable } from "./errors.ts";
import type { Host, TempFolder } from "./host.ts";
import { isObject, listAt, parseJson, textAt } from "./json.ts";
import { findKubectl, showArguments } from "./kubectl.ts";
import type { Log } from "./log.ts";
import { type Applied, groupPath, pluralOf } from "./rollout-objects.ts";

/** An answer of the API. */
export type Answer =
  | { readonly kind: "object"; readonly value: unknown }
  | { readonly kind: "missing" }
  /** The user may not read this. */
  | { readonly kind: "forbidden"; readonly message: string };

/** An answer that comes bit by bit. */
export interface StreamAnswer {
  readonly status: number;
  readonly headers: Headers;
  /** Read at most once. Leaving the loop early ends the connection. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** Milliseconds that one request may take. */
const REQUEST_MS = 10_000;
/** The most bytes of an answer that are read: lists of pods and events of one workload. */
const MAX_BYTES = 16 * 1024 * 1024;

export interface ClusterApiOptions {
  readonly host: Host;
  readonly log: Log;
  /** The flags of kubectl that say where the cluster is and who asks. */
  readonly flags: readonly string[];
}

/** A running `kubectl proxy`. */
export class ClusterApi implements AsyncDisposable {
  readonly #socket: string;
  readonly #signal: AbortSignal;
  readonly #stop: () => Promise<void>;
  #isEnded = false;
  /** The plural of custom resources, by version and kind. */
  readonly #plurals = new Map<string, string | undefined>();

  private constructor(options: {
    readonly socket: string;
    readonly signal: AbortSignal;
    readonly stop: () => Promise<void>;
  }) {
    this.#socket = options.socket;
    this.#signal = options.signal;
    this.#stop = options.stop;
  }

  /** @throws {KoError} If kubectl cannot serve the API. */
  static async open({ flags, host, log }: ClusterApiOptions): Promise<ClusterApi> {
    const folder = await host.tempFolder("ko-api-");
    const socket = join(folder.path, "s");
    const args = ["proxy", `--unix-socket=${socket}`, ...flags];
    const ending = new AbortController();
    const ready = Promise.withResolvers<void>();
    log.debug(`kubectl ${showArguments(args)}`);
    const ended = host
      .run([findKubectl(host), ...args], {
        signal: AbortSignal.any([host.signal, ending.signal]),
        stdout: () => ready.resolve(),
      })
      .then(
        () => ready.reject(new KoError('Cannot ask the API server: "kubectl proxy" ended')),
        (cause: unknown) => ready.reject(new KoError('Cannot ask the API server through "kubectl proxy"', { cause })),
      );
    const stop = (): Promise<void> => endProxy({ ending, ended, folder });
    try {
      await ready.promise;
    } catch (error) {
      await stop();
      throw error;
    }
    const api = new ClusterApi({ socket, signal: host.signal, stop });
    void ended.then(() => (api.#isEnded = true));
    return api;
  }

  /** Whether kubectl proxy has ended. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /**
   * Reads an object or a list.
   *
   * @param path with its query
   * @throws {KoError} If the API server does not answer, or says something else: mostly that passes.
   */
  async get(path: string): Promise<Answer> {
    return readAnswer(await this.#fetch(path));
  }

  /**
   * Changes fields of an object by a strategic merge patch.
   *
   * @throws as `get()`
   */
  async patch(path: string, fields: object): Promise<Answer> {
    const headers = { "content-type": "application/strategic-merge-patch+json" };
    return readAnswer(await this.#fetch(path, { method: "PATCH", headers, body: JSON.stringify(fields) }));
  }

  /** The items of a list; empty if the user may not read it. */
  async list(path: string): Promise<readonly unknown[]> {
    const answer = await this.get(path);
    return answer.kind === "object" ? listAt(answer.value, "items") : [];
  }

  /** The events of an object, by its uid; empty if the user may not read them. */
  eventsOf(uid: string, namespace: string): Promise<readonly unknown[]> {
    const query = new URLSearchParams({ fieldSelector: `involvedObject.uid=${uid}`, limit: "200" });
    return this.list(`/api/v1/namespaces/${encodeURIComponent(namespace)}/events?${query.toString()}`);
  }

  /** The end of a container's log; undefined if it cannot be read. */
  async readLog(
    pod: { readonly namespace: string; readonly name: string },
    log: { readonly container: string; readonly previous: boolean },
  ): Promise<string | undefined> {
    const query = new URLSearchParams({ container: log.container, previous: String(log.previous), tailLines: "60" });
    const [namespace, name] = [pod.namespace, pod.name].map(encodeURIComponent);
    const path = `/api/v1/namespaces/${namespace}/pods/${name}/log?${query.toString()}`;
    const { status, text } = await this.#fetch(path);
    return status === 200 ? text : undefined;
  }

  /**
   * Opens an answer without an end, such as a watch. A log that is followed has no head until its first line.
   *
   * @throws {KoError} If the API server does not answer, or does not to its end: then the body throws.
   */
  async stream(path: string, signal: AbortSignal): Promise<StreamAnswer> {
    if (this.#isEnded) throw new KoError('Cannot ask the API server: "kubectl proxy" ended', { transient: true });
    try {
      const { body, headers, status } = await fetch(`http://localhost${path}`, {
        ...{ unix: this.#socket, signal: AbortSignal.any([this.#signal, signal]) },
        ...{ keepalive: false, timeout: false, decompress: false },
      });
      return { status, headers, body: body === null ? noBody() : chunksOf(body) };
    } catch (cause) {
      throw noAnswer(cause);
    }
  }

  /** The path of an object; undefined if the server does not know its kind. */
  async pathOf(applied: Applied, namespace: string): Promise<string | undefined> {
    const plural = pluralOf(applied) ?? (await this.#findPlural(applied));
    if (plural === undefined) return undefined;
    const [scope, resource] = plural.startsWith("/")
      ? ["", plural.slice(1)]
      : [`/namespaces/${encodeURIComponent(namespace)}`, plural];
    return `${groupPath(applied.apiVersion)}${scope}/${resource}/${encodeURIComponent(applied.name)}`;
  }

  /** The plural of a custom resource; a slash before it says that it has no namespace. */
  async #findPlural({ apiVersion, kind }: Applied): Promise<string | undefined> {
    const key = `${apiVersion} ${kind}`;
    if (!this.#plurals.has(key)) {
      const answer = await this.get(groupPath(apiVersion));
      const all = answer.kind === "object" ? listAt(answer.value, "resources") : [];
      const found = all.find((each) => textAt(each, "kind") === kind && !textAt(each, "name").includes("/"));
      const isNamespaced = isObject(found) && found["namespaced"] === true;
      this.#plurals.set(key, found === undefined ? undefined : `${isNamespaced ? "" : "/"}${textAt(found, "name")}`);
    }
    return this.#plurals.get(key);
  }

  async #fetch(path: string, request: RequestInit = {}): Promise<Fetched> {
    this.#signal.throwIfAborted();
    if (this.#isEnded) throw new KoError('Cannot ask the API server: "kubectl proxy" ended', { transient: true });
    try {
      const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(REQUEST_MS)]);
      const response = await fetch(`http://localhost${path}`, { ...request, unix: this.#socket, signal });
      const length = Number(response.headers.get("content-length") ?? 0);
      if (length > MAX_BYTES) throw new KoError(`The answer to ${path} has ${length} bytes`);
      return { status: response.status, text: await response.text() };
    } catch (cause) {
      this.#signal.throwIfAborted();
      throw noAnswer(cause);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
  }
}

function noAnswer(cause: unknown): KoError {
  return new KoError(`The API server does not answer: ${messageOf(cause)}`, { cause, transient: true });
}

/** The body of an answer that has none. */
async function* noBody(): AsyncGenerator<Uint8Array, void, void> {}

/** Reads without delay, and ends the connection if its reader leaves. */
async function* chunksOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array, void, void> {
  const reader = body.getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
  } catch (cause) {
    throw noAnswer(cause);
  } finally {
    await reader.cancel().catch(() => {});
  }
}

async function endProxy(proxy: {
  readonly ending: AbortController;
  readonly ended: Promise<void>;
  readonly folder: TempFolder;
}): Promise<void> {
  proxy.ending.abort();
  await proxy.ended;
  await proxy.folder[Symbol.asyncDispose]();
}

/** An answer of the API server. */
interface Fetched {
  readonly status: number;
  readonly text: string;
}

function readAnswer({ status, text }: Fetched): Answer {
  if (status === 404) return { kind: "missing" };
  const value = parseJson(text);
  if (status === 403 || status === 401) return { kind: "forbidden", message: printable(textAt(value, "message"), 300) };
  if (status !== 200 || !isObject(value)) throw new KoError(`The API server answered ${status}`, { transient: true });
  return { kind: "object", value };
}
