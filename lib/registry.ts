/**
 * The registry client: reads and writes manifests and blobs of any number of registries, for one run.
 *
 * Requests are retried here and in registry-push.ts, uploads in registry-upload.ts, downloads in registry-pull.ts: always
 * with `retry()` of async.ts, and never inside another retry. Rules: docs/rules.md A3, A8, E2, E3.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md
 */
import { createLimit, type Clock, retry, systemClock } from "./async.ts";
import type { Records } from "./cache.ts";
import { RegistryError } from "./errors.ts";
import { DEADLINES, type Deadlines } from "./http-transfer.ts";
import type { HostRules } from "./http-hosts.ts";
import { Http, type HttpResponse } from "./http.ts";
import type { Blob, BlobStream } from "./image.ts";
import type { Log } from "./log.ts";
import { type Descriptor, isDigest, isDocumentType, MEDIA_TYPES } from "./oci.ts";
import { formatRepository, type Repository } from "./reference.ts";
import type { Keychain } from "./registry-credential.ts";
import { lacksScope } from "./registry-errors.ts";
import { claimError, downloadBlob, findInlined, type ManifestContent, readManifestAnswer } from "./registry-pull.ts";
import { manifestName, Pusher, type PushResult } from "./registry-push.ts";
import type { Token } from "./registry-token.ts";
import { Connection } from "./registry-transport.ts";
import { Uploader } from "./registry-upload.ts";
import { Secrets } from "./url.ts";

export interface RegistryOptions {
  readonly keychain: Keychain;
  readonly log: Log;
  /** Ends all requests. */
  readonly signal: AbortSignal;
  readonly userAgent: string;
  /** Exact `host[:port]`: plain http is allowed there and certificates are not verified. */
  readonly insecureHosts: readonly string[];
  /** The user's rules for hosts. @default none */
  readonly rules?: HostRules | undefined;
  /** `host[:port]` that are asked once: if one fails, another registry has the same. @default none */
  readonly mirrors?: readonly string[] | undefined;
  /** For `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` and `KO_TOKEN_HOSTS`. */
  readonly env: Readonly<Record<string, string>>;
  /** The number of uploads that run at once, per registry. @default 4 */
  readonly uploads?: number;
  readonly clock?: Clock;
  readonly deadlines?: Deadlines;
  /** Where endpoints are cached between runs: saves each run a `GET /v2/`. */
  readonly records?: Records | undefined;
}

export interface GetManifestOptions {
  /** The index's descriptor of this manifest: digest, size and media type must be the same. */
  readonly expected?: Descriptor;
  readonly signal?: AbortSignal;
}

export interface FindManifestOptions {
  /** Asks with a token that can push: saves a second token if a push follows. @default false */
  readonly push?: boolean;
  /** Whether the manifest was pushed before: that it may not be read is an error then. @default false */
  readonly isPushed?: boolean;
}

export interface TokenOptions {
  readonly push: boolean;
  /** Paths of repositories of the same registry that must be readable too. */
  readonly from: readonly string[];
}

export type { PushResult } from "./registry-push.ts";

const ACCEPT = [MEDIA_TYPES.dockerManifest, MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerList, MEDIA_TYPES.ociIndex].join(
  ", ",
);

export class Registry implements AsyncDisposable {
  readonly #options: RegistryOptions;
  readonly #http: Http;
  readonly #clock: Clock;
  readonly #closing = new AbortController();
  readonly #signal: AbortSignal;
  readonly #hosts = new Map<string, HostEntry>();
  readonly #heads = createLimit(16);

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#signal = AbortSignal.any([options.signal, this.#closing.signal]);
    this.#http = new Http({
      log: options.log,
      signal: this.#signal,
      userAgent: options.userAgent,
      env: options.env,
      insecureHosts: options.insecureHosts,
      rules: options.rules,
      secrets: new Secrets(),
      clock: this.#clock,
      deadlines: options.deadlines ?? DEADLINES,
    });
  }

  /**
   * Reads a manifest or index. Its bytes are verified against `reference` if that is a digest, against `expected`, and
   * against the headers of the response.
   *
   * @param reference a tag or a digest
   * @throws {RegistryError} If there is no such manifest, or its bytes do not match.
   */
  async getManifest(
    repository: Repository,
    reference: string,
    options: GetManifestOptions = {},
  ): Promise<ManifestContent> {
    const { expected, signal } = options;
    const inlined = expected === undefined ? undefined : findInlined(expected);
    if (expected !== undefined && inlined !== undefined) {
      const { digest, mediaType, size } = expected;
      return { descriptor: { mediaType, size, digest }, bytes: inlined };
    }
    const action = `read manifest ${manifestName(repository, reference)}`;
    return this.#retry(
      async () => {
        const response = await this.#send("GET", repository, { reference, action, push: false, accept: [200], signal });
        return readManifestAnswer(response, { reference, expected, action });
      },
      { host: repository.host, signal },
    );
  }

  /**
   * Asks with HEAD for the descriptor of a manifest; undefined if there is none. Some registries answer 403 then.
   *
   * The descriptor is the registry's claim, good for comparing digests.
   *
   * @throws {RegistryError} If the registry does not answer, or answers with an error.
   */
  findManifest(
    repository: Repository,
    reference: string,
    options: FindManifestOptions = {},
  ): Promise<Descriptor | undefined> {
    const action = `check whether the registry has ${manifestName(repository, reference)}`;
    const { isPushed = false, push = false } = options;
    const ask = async (method: "HEAD" | "GET"): Promise<Descriptor | undefined> => {
      const accept = isPushed ? [200, 404] : [200, 403, 404];
      const response = await this.#send(method, repository, { reference, action, push, accept, signal: undefined });
      if (response.status !== 200) {
        await response.discard();
        return undefined;
      }
      if (method === "GET") {
        return (await readManifestAnswer(response, { reference, expected: undefined, action })).descriptor;
      }
      await response.discard();
      const digest = response.headers.get("docker-content-digest") ?? (isDigest(reference) ? reference : "");
      // Without a digest, a size or a manifest's type in the headers, only the manifest itself has them.
      if (!isDigest(digest) || response.length === undefined || !isDocumentType(response.mediaType)) return ask("GET");
      if (isDigest(reference) && digest !== reference) {
        throw claimError(response, action, `the answer is about ${digest}`);
      }
      return { mediaType: response.mediaType, size: response.length, digest };
    };
    return this.#heads(() =>
      this.#retry(() => ask("HEAD"), { host: repository.host })
        .catch((error) => this.#explain(error, () => ask("GET")))
        .catch((error) => {
          // The upload that follows says whether the token may push.
          if (push && !isPushed && lacksScope(error)) return undefined;
          throw error;
        }),
    );
  }

  /**
   * Returns the bytes of a blob, verified while they are read. A download that breaks off is resumed at the same byte.
   *
   * @throws {RegistryError} (from the stream) If there is no such blob.
   * @throws {KoError} (from the stream) If size or digest are not the descriptor's.
   */
  openBlob(repository: Repository, descriptor: Descriptor, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    return downloadBlob(repository, descriptor, {
      connection: this.#host(repository.host).connection,
      http: this.#http,
      retry: { clock: this.#clock, log: this.#options.log, signal: this.#signal },
      signal,
    });
  }

  /**
   * Asks with HEAD whether the repository has a blob of this digest and size.
   *
   * @throws {RegistryError} If the registry does not answer, or answers with an error.
   */
  hasBlob(repository: Repository, descriptor: Descriptor): Promise<boolean> {
    const { connection, uploader } = this.#host(repository.host);
    return this.#heads(() =>
      this.#retry(() => uploader.hasBlob(repository, descriptor), { host: repository.host }).catch((error) =>
        this.#explain(error, async () => {
          const action = `look for blob ${descriptor.digest} in "${formatRepository(repository)}"`;
          const response = await connection.send({
            method: "GET",
            target: `/v2/${repository.path}/blobs/${descriptor.digest}`,
            repository,
            action,
            push: false,
            accept: [200, 206],
            headers: { range: "bytes=0-0" },
          });
          await response.discard();
          return true;
        }),
      ),
    );
  }

  /**
   * Stores a blob in the repository, unless it is there: mounts or uploads it. Each blob is pushed once per run.
   *
   * @throws {RegistryError} If the registry refuses the blob.
   * @throws {KoError} If the blob cannot be read or has other bytes, or the repository's name cannot be pushed to.
   */
  pushBlob(repository: Repository, blob: Blob): Promise<PushResult> {
    return this.#host(repository.host).pusher.pushBlob(repository, blob);
  }

  /**
   * As {@link Registry.pushBlob}, but sends the blob while it is still being made. If that does not work, the complete
   * blob is pushed.
   *
   * A `pushBlob` of the same blob joins this upload, if the code that calls it awaited `stream.done` later than this.
   *
   * @throws the reason of `stream.done`; else as `pushBlob`
   */
  streamBlob(repository: Repository, stream: BlobStream): Promise<PushResult> {
    return this.#host(repository.host).pusher.streamBlob(repository, stream);
  }

  /**
   * Stores a manifest or index under a tag or its digest, unless it is there, and confirms that it can be read.
   *
   * Its blobs, and the manifests of an index, must be there before.
   *
   * @throws {RegistryError} If the registry refuses the manifest, or stored something else.
   */
  pushManifest(repository: Repository, reference: string, manifest: ManifestContent): Promise<void> {
    return this.#host(repository.host).pusher.pushManifest(repository, reference, manifest);
  }

  /**
   * Fetches a token for other programs that ask this registry.
   *
   * @throws {KoError} If the registry wants no token, does not answer, or refuses.
   */
  token(repository: Repository, options: TokenOptions): Promise<Token> {
    const action = `get a token for "${formatRepository(repository)}"`;
    const { host } = repository;
    return this.#retry(() => this.#host(host).connection.token({ repository, action, ...options }), { host });
  }

  /** Ends all requests and closes idle connections, so that the process need not wait for them. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error("the registry client is closed"));
    await Promise.all(Array.from(this.#hosts.values(), ({ pusher }) => pusher.settle()));
    this.#http[Symbol.dispose]();
  }

  #host(host: string): HostEntry {
    let entry = this.#hosts.get(host);
    if (entry === undefined) {
      const { env, keychain, log, records } = this.#options;
      const connection = new Connection({
        http: this.#http,
        host,
        keychain,
        trusted: env["KO_TOKEN_HOSTS"] ?? "",
        signal: this.#signal,
        records,
      });
      const uploader = new Uploader({
        connection,
        http: this.#http,
        log,
        signal: this.#signal,
        limit: createLimit(this.#options.uploads ?? 4),
      });
      const pusher = new Pusher({
        connection,
        http: this.#http,
        uploader,
        log,
        signal: this.#signal,
        heads: this.#heads,
        retry: (work) => this.#retry(work, { host }),
        findManifest: (repository, reference, { isPushed }) => {
          return this.findManifest(repository, reference, { push: true, isPushed });
        },
      });
      entry = { connection, pusher, uploader };
      this.#hosts.set(host, entry);
    }
    return entry;
  }

  #send(
    method: "GET" | "HEAD",
    repository: Repository,
    options: {
      readonly reference: string;
      readonly action: string;
      readonly push: boolean;
      readonly accept: readonly number[];
      readonly signal: AbortSignal | undefined;
    },
  ): Promise<HttpResponse> {
    const { reference, ...rest } = options;
    return this.#host(repository.host).connection.send({
      ...rest,
      method,
      target: `/v2/${repository.path}/manifests/${reference}`,
      repository,
      headers: { accept: ACCEPT },
    });
  }

  #retry<T>(
    work: () => Promise<T>,
    { host, signal }: { readonly host: string; readonly signal?: AbortSignal | undefined },
  ): Promise<T> {
    const { log, mirrors } = this.#options;
    if (mirrors?.includes(host) === true) return work();
    const both = signal === undefined ? this.#signal : AbortSignal.any([this.#signal, signal]);
    return retry(work, { clock: this.#clock, log, signal: both });
  }

  /** The response to a refused HEAD has no body, so a GET asks for the reason (docs/rules.md A3.3). */
  async #explain<T>(error: unknown, ask: () => Promise<T>): Promise<T> {
    if (!(error instanceof RegistryError) || error.method !== "HEAD" || error.status === undefined) throw error;
    return ask();
  }
}

interface HostEntry {
  readonly connection: Connection;
  readonly pusher: Pusher;
  readonly uploader: Uploader;
}
