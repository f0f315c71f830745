/**
 * The registry client: manifests and blobs, read and written, in any number of registries.
 *
 * One object lives as long as a run. All doing again is here and in registry-upload.ts (through async.ts), so attempts do not
 * multiply. Rules: rules.md A3, A5, A6, A8, E2, E3.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md
 */
import { createLimit, type Clock, inBackground, retry, systemClock } from "./async.ts";
import type { Records } from "./cache.ts";
import { KoError, RegistryError } from "./errors.ts";
import { DEADLINES, type Deadlines } from "./http-transfer.ts";
import { Http, type HttpResponse } from "./http.ts";
import type { Blob, BlobStream } from "./image.ts";
import type { Log } from "./log.ts";
import { type Descriptor, digestOf, isDigest, MEDIA_TYPES } from "./oci.ts";
import { formatRepository, type Repository } from "./reference.ts";
import type { Keychain } from "./registry-keychain.ts";
import { claimError, downloadBlob, findInlined, type ManifestContent, readManifestAnswer } from "./registry-pull.ts";
import { BlobPusher, checkPath, type PushResult } from "./registry-push.ts";
import { Connection } from "./registry-transport.ts";
import { Uploader } from "./registry-upload.ts";
import { Secrets } from "./url.ts";

export interface RegistryOptions {
  readonly keychain: Keychain;
  readonly log: Log;
  /** Ends everything. */
  readonly signal: AbortSignal;
  readonly userAgent: string;
  /** Exact `host[:port]`: plain http is allowed there and certificates are not verified. */
  readonly insecureHosts: readonly string[];
  /** For `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` and `KO_TOKEN_HOSTS`. */
  readonly env: Readonly<Record<string, string>>;
  /** Uploads at once, per registry. @default 4 */
  readonly uploads?: number;
  readonly clock?: Clock;
  readonly deadlines?: Deadlines;
  /** Where endpoints are cached between runs: saves each run a `GET /v2/`. */
  readonly records?: Records | undefined;
}

export interface GetManifestOptions {
  /** From the index that names this manifest: digest, size and media type must be the same. */
  readonly expected?: Descriptor;
  readonly signal?: AbortSignal;
}

export interface FindManifestOptions {
  /** Asks with the right to push, where a push follows: saves a token. @default false */
  readonly push?: boolean;
}

export type { PushResult } from "./registry-push.ts";

const ACCEPT = [MEDIA_TYPES.dockerManifest, MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerList, MEDIA_TYPES.ociIndex].join(
  ", ",
);
/** distribution refuses more, with a 400 that does not say so. */
const MAX_PUSHED_MANIFEST_BYTES = 4 * 1024 * 1024;
const CONFIRM_TRIES = 3;

export class Registry implements AsyncDisposable {
  readonly #options: RegistryOptions;
  readonly #http: Http;
  readonly #clock: Clock;
  readonly #closing = new AbortController();
  readonly #signal: AbortSignal;
  readonly #hosts = new Map<string, HostEntry>();
  /** Manifests that a HEAD by digest has shown, as `host/path@digest`. */
  readonly #confirmed = new Set<string>();
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
      secrets: new Secrets(),
      clock: this.#clock,
      deadlines: options.deadlines ?? DEADLINES,
    });
  }

  /**
   * A manifest or index with its own bytes, verified: against the digest asked for, `expected`, and what the
   * registry says of it.
   *
   * @param reference a tag or a digest
   * @throws {RegistryError} If it is not there, or is not what it is said to be.
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
    const action = `read manifest ${nameOf(repository, reference)}`;
    return this.#retry(async () => {
      const response = await this.#send("GET", repository, { reference, action, push: false, accept: [200], signal });
      return readManifestAnswer(response, { reference, expected, action });
    }, signal);
  }

  /**
   * What a HEAD tells of a manifest, or undefined when the registry has none (or does not show it: some answer 403).
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
    const action = `look for manifest ${nameOf(repository, reference)}`;
    const push = options.push ?? false;
    const ask = async (method: "HEAD" | "GET"): Promise<Descriptor | undefined> => {
      const accept = [200, 403, 404];
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
      // Without a digest or a size there is only one way to know: read it.
      if (!isDigest(digest) || response.length === undefined || response.mediaType === "") return ask("GET");
      if (isDigest(reference) && digest !== reference) {
        throw claimError(response, action, `the answer is about ${digest}`);
      }
      return { mediaType: response.mediaType, size: response.length, digest };
    };
    return this.#heads(() => this.#retry(() => ask("HEAD")).catch((error) => this.#explain(error, () => ask("GET"))));
  }

  /**
   * The bytes of a blob, verified while they are read; a connection that breaks is taken up again where it broke.
   *
   * @throws {RegistryError} (from the stream) If it is not there.
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
   * Whether the repository has a blob of this digest and size.
   *
   * @throws {RegistryError} If the registry does not answer, or answers with an error.
   */
  hasBlob(repository: Repository, descriptor: Descriptor): Promise<boolean> {
    const { connection, uploader } = this.#host(repository.host);
    return this.#heads(() =>
      this.#retry(() => uploader.isPresent(repository, descriptor, false)).catch((error) =>
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
   * Sees to it that the repository has the blob: looks, mounts, or uploads. The same one is pushed once per run.
   *
   * @throws {RegistryError} If the registry does not take it.
   * @throws {KoError} If its source fails or gives other bytes, or the repository's name cannot be pushed to.
   */
  pushBlob(repository: Repository, blob: Blob): Promise<PushResult> {
    return this.#host(repository.host).blobs.push(repository, blob);
  }

  /**
   * As {@link Registry.pushBlob}, but sends the content while it is still being made, where that works. Where it does
   * not, the blob is pushed when it is complete: streaming is never the reason of a failure.
   *
   * A `pushBlob` of the same blob joins this upload, if it is called by code that awaited `stream.done` later.
   *
   * @throws what `stream.done` rejects with; else as `pushBlob`
   */
  async streamBlob(repository: Repository, stream: BlobStream): Promise<PushResult> {
    void inBackground(stream.done);
    checkPath(repository);
    return this.#host(repository.host).blobs.stream(repository, stream);
  }

  /**
   * Puts a manifest or index under a tag or its digest, unless it is there already, and sees that it stays.
   *
   * Its blobs, and for an index its manifests, must be there before.
   *
   * @throws {RegistryError} If the registry does not take it, or says that it stored something else.
   */
  async pushManifest(repository: Repository, reference: string, manifest: ManifestContent): Promise<void> {
    checkPath(repository);
    const { bytes, descriptor } = manifest;
    const { digest } = descriptor;
    const name = nameOf(repository, reference);
    if (bytes.byteLength > MAX_PUSHED_MANIFEST_BYTES) {
      const limit = `${bytes.byteLength} bytes, registries take at most ${MAX_PUSHED_MANIFEST_BYTES}`;
      throw new KoError(`Cannot push manifest ${name}: it has ${limit}`);
    }
    if (digestOf(bytes) !== digest) throw new Error(`the manifest for ${name} does not have the digest ${digest}`);
    const found = await this.findManifest(repository, reference, { push: true });
    const id = `${formatRepository(repository)}@${digest}`;
    if (found?.digest === digest) {
      if (isDigest(reference)) this.#confirmed.add(id);
      return;
    }
    const action = `push manifest ${name}`;
    await this.#retry(async () => {
      const response = await this.#host(repository.host).connection.send({
        method: "PUT",
        target: `/v2/${repository.path}/manifests/${reference}`,
        repository,
        action,
        push: true,
        accept: [200, 201, 202],
        headers: { "content-type": descriptor.mediaType },
        body: bytes,
      });
      await response.discard();
      const stored = response.headers.get("docker-content-digest") ?? digest;
      if (stored !== digest) throw claimError(response, action, `it stored ${this.#http.secrets.excerpt(stored)}`);
    });
    if (!this.#confirmed.has(id)) await this.#confirm(repository, descriptor);
    this.#confirmed.add(id);
  }

  /** A registry that stores in several places may need a moment until it has what it took. */
  async #confirm(repository: Repository, { digest }: Descriptor): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const found = await this.findManifest(repository, digest, { push: true });
      if (found !== undefined) return;
      if (attempt === CONFIRM_TRIES) {
        const method = "HEAD";
        const url = `${repository.host}/v2/${repository.path}/manifests/${digest}`;
        throw new RegistryError(
          `Cannot trust ${repository.host}: it took manifest ${digest} of "${repository.path}", but does not have it`,
          { method, url, status: 404 },
        );
      }
      await this.#clock.sleep(500 * 2 ** attempt, this.#signal);
    }
  }

  /** Ends what runs, and the idle connections: the process need not wait for them. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error("the registry client is closed"));
    await Promise.all(Array.from(this.#hosts.values(), ({ blobs }) => blobs.settle()));
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
      const blobs = new BlobPusher({
        uploader,
        signal: this.#signal,
        heads: this.#heads,
        retry: (work) => this.#retry(work),
      });
      entry = { blobs, connection, uploader };
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

  #retry<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const { log } = this.#options;
    const both = signal === undefined ? this.#signal : AbortSignal.any([this.#signal, signal]);
    return retry(work, { clock: this.#clock, log, signal: both });
  }

  /** A refused HEAD does not say why, so the last word is a GET's (A3.3). */
  async #explain<T>(error: unknown, ask: () => Promise<T>): Promise<T> {
    if (!(error instanceof RegistryError) || error.method !== "HEAD" || error.status === undefined) throw error;
    return ask();
  }
}

interface HostEntry {
  readonly blobs: BlobPusher;
  readonly connection: Connection;
  readonly uploader: Uploader;
}

function nameOf(repository: Repository, reference: string): string {
  return `"${formatRepository(repository)}${isDigest(reference) ? "@" : ":"}${reference}"`;
}
