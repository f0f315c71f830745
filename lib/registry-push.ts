/**
 * Pushes to one registry: finds out which blobs and manifests are missing there, and sends those.
 *
 * Each blob is looked for and sent once per run; registry-upload.ts has the upload itself. Rules: docs/rules.md A1.9,
 * A3.1, A3.2, A4.14, A6.
 */
import { inBackground, until } from "./async.ts";
import { KoError, RegistryError } from "./errors.ts";
import type { Http } from "./http.ts";
import type { Blob, BlobStream } from "./image.ts";
import type { Log } from "./log.ts";
import { type Descriptor, digestOf, isDigest, isForeignLayer } from "./oci.ts";
import { formatRepository, type Repository, whyBadPath } from "./reference.ts";
import { claimError, type ManifestContent } from "./registry-pull.ts";
import { isFalseClaim } from "./registry-errors.ts";
import type { Connection } from "./registry-transport.ts";
import type { Uploader, UploadStreamResult } from "./registry-upload.ts";

/** "present": the repository had the blob. "mounted": the registry linked it from another repository. */
export type PushResult = "present" | "mounted" | "uploaded";

export interface PusherOptions {
  readonly connection: Connection;
  readonly http: Pick<Http, "clock" | "secrets">;
  readonly uploader: Uploader;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Bounds the HEAD requests that run at once. */
  readonly heads: <T>(work: () => Promise<T>) => Promise<T>;
  readonly retry: <T>(work: () => Promise<T>) => Promise<T>;
  /**
   * Asks for the manifest behind a tag or digest; undefined if there is none. Where a registry may answer 403 for none,
   * that is an error if it `isPushed`.
   */
  readonly findManifest: (
    repository: Repository,
    reference: string,
    options: { readonly isPushed: boolean },
  ) => Promise<Descriptor | undefined>;
}

/** distribution refuses larger manifests with a 400 that does not say why. */
const MAX_PUSHED_MANIFEST_BYTES = 4 * 1024 * 1024;
const CONFIRM_TRIES = 3;

export class Pusher {
  readonly #options: PusherOptions;
  /** By repository and digest. */
  readonly #blobs = new Map<string, Promise<PushResult>>();
  readonly #streams = new Set<Promise<PushResult>>();
  /** Repository and digest of manifests that a HEAD by digest has found. */
  readonly #confirmed = new Set<string>();

  constructor(options: PusherOptions) {
    this.#options = options;
  }

  /** See `Registry.pushBlob`. */
  pushBlob(repository: Repository, blob: Blob): Promise<PushResult> {
    const known = this.#blobs.get(keyOf(repository, blob));
    if (known !== undefined) return known;
    // The licence of a foreign layer forbids it; the manifest has the layer's URLs.
    if (isForeignLayer(blob.descriptor.mediaType)) return Promise.resolve("present");
    return this.#share(repository, blob, () => this.#pushBlob(repository, blob));
  }

  /** See `Registry.streamBlob`. */
  async streamBlob(repository: Repository, stream: BlobStream): Promise<PushResult> {
    void inBackground(stream.done);
    checkPath(repository);
    const { signal, uploader } = this.#options;
    const fate = Promise.withResolvers<Descriptor | undefined>();
    const sent = inBackground(uploader.stream(repository, { read: (left) => stream.read(left), fate: fate.promise }));
    // Registered before other code can await `done`, so that its pushBlob() finds this upload.
    const finished = stream.done.then((blob) => this.#finish(repository, blob, { sent, decide: fate.resolve }));
    const streaming = until(finished, signal).finally(() => {
      fate.resolve(undefined);
      this.#streams.delete(streaming);
    });
    this.#streams.add(streaming);
    return streaming;
  }

  /** See `Registry.pushManifest`. */
  async pushManifest(repository: Repository, reference: string, manifest: ManifestContent): Promise<void> {
    const { bytes, descriptor } = manifest;
    const { digest } = descriptor;
    const name = manifestName(repository, reference);
    checkPath(repository);
    if (bytes.byteLength > MAX_PUSHED_MANIFEST_BYTES) {
      const limit = `${bytes.byteLength} bytes, registries take at most ${MAX_PUSHED_MANIFEST_BYTES}`;
      throw new KoError(`Cannot push manifest ${name}: it has ${limit}`);
    }
    if (digestOf(bytes) !== digest) throw new Error(`the manifest for ${name} does not have the digest ${digest}`);
    const { findManifest, retry } = this.#options;
    const key = keyOf(repository, manifest);
    const found = await findManifest(repository, reference, { isPushed: false });
    if (found?.digest === digest) {
      if (isDigest(reference)) this.#confirmed.add(key);
      return;
    }
    await retry(() => this.#putManifest(repository, reference, { manifest, action: `push manifest ${name}` }));
    if (!this.#confirmed.has(key)) await this.#confirm(repository, descriptor);
    this.#confirmed.add(key);
  }

  /** Waits until everything has ended, successful or not. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#blobs.values(), ...this.#streams]);
    await this.#options.uploader.settle();
  }

  #share(repository: Repository, blob: Blob, work: () => Promise<PushResult>): Promise<PushResult> {
    const key = keyOf(repository, blob);
    const pushing = work();
    this.#blobs.set(key, pushing);
    // The next caller may try again.
    pushing.catch(() => this.#blobs.delete(key));
    return pushing;
  }

  async #pushBlob(repository: Repository, blob: Blob): Promise<PushResult> {
    checkPath(repository);
    const { heads, retry, uploader } = this.#options;
    const look = heads(() => retry(() => uploader.hasBlob(repository, blob.descriptor, { push: true })));
    // The refusal of a HEAD has no reason; that of the POST after it has one.
    const present = await look.catch((error: unknown) => {
      if (error instanceof RegistryError && (error.status === 401 || error.status === 403)) return false;
      throw error;
    });
    if (present) return "present";
    return uploader.push(repository, blob);
  }

  #finish(repository: Repository, blob: Blob, stream: SentStream): Promise<PushResult> {
    const known = this.#blobs.get(keyOf(repository, blob));
    if (known === undefined && !isForeignLayer(blob.descriptor.mediaType)) {
      return this.#share(repository, blob, () => this.#finishStream(repository, blob, stream));
    }
    stream.decide(undefined);
    return known ?? Promise.resolve("present");
  }

  async #finishStream(repository: Repository, blob: Blob, { decide, sent }: SentStream): Promise<PushResult> {
    const { heads, signal, uploader } = this.#options;
    // One HEAD, without retry, while the last bytes are sent. If it fails, the upload goes on.
    const present = await heads(() => uploader.hasBlob(repository, blob.descriptor, { push: true })).catch(
      () => undefined,
    );
    signal.throwIfAborted();
    decide(present === true ? undefined : blob.descriptor);
    if (present === true) return "present";
    const result = await sent;
    if (result === "uploaded") return result;
    return result === "untried" && present === false
      ? uploader.push(repository, blob)
      : this.#pushBlob(repository, blob);
  }

  async #putManifest(
    repository: Repository,
    reference: string,
    { manifest, action }: { readonly manifest: ManifestContent; readonly action: string },
  ): Promise<void> {
    const { connection, http } = this.#options;
    const { digest, mediaType } = manifest.descriptor;
    const response = await connection.send({
      method: "PUT",
      target: `/v2/${repository.path}/manifests/${reference}`,
      repository,
      action,
      push: true,
      accept: [200, 201, 202],
      headers: { "content-type": mediaType },
      body: manifest.bytes,
    });
    await response.discard();
    const stored = response.headers.get("docker-content-digest") ?? digest;
    if (stored !== digest) throw claimError(response, action, `it stored ${http.secrets.excerpt(stored)}`);
  }

  /**
   * Polls until a HEAD finds the manifest: a replicated registry may need a moment (docs/rules.md A6.6). The push has
   * not failed if the registry does not answer, or does not let this token read.
   */
  async #confirm(repository: Repository, { digest }: Descriptor): Promise<void> {
    const { findManifest, http, log, signal } = this.#options;
    for (let attempt = 1; ; attempt++) {
      try {
        if ((await findManifest(repository, digest, { isPushed: true })) !== undefined) return;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof RegistryError) || isFalseClaim(error)) throw error;
        log.debug(`Cannot confirm manifest ${digest} of "${repository.path}": ${error.message}`);
        return;
      }
      if (attempt === CONFIRM_TRIES) {
        const method = "HEAD";
        const url = `${repository.host}/v2/${repository.path}/manifests/${digest}`;
        throw new RegistryError(
          `Cannot trust ${repository.host}: it took manifest ${digest} of "${repository.path}", but does not have it`,
          { method, url, status: 404 },
        );
      }
      await http.clock.sleep(500 * 2 ** attempt, signal);
    }
  }
}

/** A stream that the uploader is sending. */
interface SentStream {
  readonly sent: Promise<UploadStreamResult>;
  /** Commits the upload with the descriptor of the complete blob, or cancels it with undefined. */
  readonly decide: (descriptor: Descriptor | undefined) => void;
}

/** Returns `"host/path:tag"` or `"host/path@digest"`, with the quotes, for messages. */
export function manifestName(repository: Repository, reference: string): string {
  return `"${formatRepository(repository)}${isDigest(reference) ? "@" : ":"}${reference}"`;
}

/** Registries differ in the names they read, but agree in the names they take (docs/rules.md A1.9). */
function checkPath(repository: Repository): void {
  const why = whyBadPath(repository.path);
  if (why !== undefined) throw new KoError(`Cannot push to "${formatRepository(repository)}": ${why}`);
}

function keyOf({ path }: Repository, { descriptor }: Pick<Blob, "descriptor">): string {
  return `${path}@${descriptor.digest}`;
}
