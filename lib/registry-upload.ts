/**
 * Uploads blobs to one registry: a mount, or POST and PUT, with a PATCH between them for registries that refuse a body in
 * the PUT, and for blobs that are still being made.
 *
 * Rules: docs/rules.md A3.1, A4, A5, A7.5.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
 */
import { retry } from "./async.ts";
import { KoError, RegistryError } from "./errors.ts";
import { StreamBody, type RequestBody } from "./http-transfer.ts";
import type { Http, HttpResponse } from "./http.ts";
import type { Blob } from "./image.ts";
import type { Log } from "./log.ts";
import { type Descriptor, type Digest, verified } from "./oci.ts";
import { formatRepository, type Repository } from "./reference.ts";
import { isFalseClaim, mayNotRead } from "./registry-errors.ts";
import type { Connection } from "./registry-transport.ts";
import { redactUrl } from "./url.ts";

export interface UploaderOptions {
  readonly connection: Connection;
  readonly http: Pick<Http, "clock">;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Bounds the uploads that run at the same time. */
  readonly limit: <T>(work: () => Promise<T>) => Promise<T>;
}

export interface UploadStreamOptions {
  /** Returns the bytes of the blob; see {@link StreamBody}. */
  readonly read: (signal: AbortSignal) => AsyncIterable<Uint8Array>;
  /** Resolves to the descriptor of the complete blob, or to undefined to cancel the upload. Never rejects. */
  readonly fate: Promise<Descriptor | undefined>;
}

/** "untried": nothing was sent. "failed": the upload was cancelled. */
export type UploadStreamResult = "uploaded" | "untried" | "failed";

/** An upload that the registry has opened: the Location of the answer to a POST or PATCH. */
interface UploadSession {
  readonly location: URL;
}

/** Milliseconds that cancelling an upload may take. */
const CANCEL_MS = 1000;
/** A shorter blob is complete before the registry has answered the first request. */
const MIN_STREAM_BYTES = 256 * 1024;

export class Uploader {
  readonly #options: UploaderOptions;
  /** Set when the registry refused a body in a PUT: all further bodies go into a PATCH. */
  #usePatch = false;
  /** Set when the registry refused a body of unknown length, or stored other bytes. */
  #noStream = false;
  readonly #streams = new Set<Promise<unknown>>();
  readonly #cancels = new Set<Promise<void>>();

  constructor(options: UploaderOptions) {
    this.#options = options;
  }

  /**
   * Asks with one HEAD whether the repository has the blob, with its size.
   *
   * @param options.push asks with a token that can push @default false
   */
  async hasBlob(
    repository: Repository,
    { digest, size }: Descriptor,
    { push = false }: { readonly push?: boolean } = {},
  ): Promise<boolean> {
    const response = await this.#options.connection.send({
      method: "HEAD",
      target: `/v2/${repository.path}/blobs/${digest}`,
      repository,
      action: `look for blob ${digest} in "${formatRepository(repository)}"`,
      push,
      accept: [200, 404],
    });
    await response.discard();
    return response.status === 200 && (response.length === undefined || response.length === size);
  }

  /** Mounts or uploads a blob that the repository does not have. */
  push(repository: Repository, blob: Blob): Promise<"mounted" | "uploaded"> {
    const { http, limit, log, signal } = this.#options;
    return limit(async () => {
      const mount = await this.#mount(repository, blob);
      if (mount === "mounted") return mount;
      let session = mount;
      await retry(
        async (attempt) => {
          // The upload may have succeeded, and its answer was lost (docs/rules.md A4.8).
          if (attempt > 1 && (await this.#arrived(repository, blob.descriptor))) return;
          const first = session;
          session = undefined;
          await this.#upload(repository, blob, first ?? (await this.#start(repository, nameOf(blob.descriptor))));
        },
        { clock: http.clock, log, signal },
      );
      return "uploaded";
    });
  }

  /**
   * Sends a blob while it is made. The upload is committed if the sent bytes match the descriptor, else cancelled.
   *
   * Does not retry: after "untried" and "failed", the caller uses {@link Uploader.push}.
   *
   * @throws {RegistryError} If the registry stored something else; else only the reason of the run's signal.
   */
  stream(repository: Repository, { fate, read }: UploadStreamOptions): Promise<UploadStreamResult> {
    let decided = false;
    const known = fate.finally(() => (decided = true));
    // A blob that is complete or cancelled before its turn has come is not worth a stream.
    const streaming = this.#options
      .limit(async () => (decided || this.#noStream ? "untried" : this.#stream(repository, { fate: known, read })))
      .finally(() => this.#streams.delete(streaming));
    this.#streams.add(streaming);
    return streaming;
  }

  async #stream(repository: Repository, { fate, read }: UploadStreamOptions): Promise<UploadStreamResult> {
    const { log, signal } = this.#options;
    const body = new StreamBody(read);
    const over = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    // The body ends first, so that the registry can answer the PATCH before the DELETE: else the two may cross.
    const giveUp = (): void => {
      if (over.signal.aborted) return;
      body.stop();
      timer ??= setTimeout(() => over.abort(new KoError("Cannot end an upload: no answer")), CANCEL_MS);
    };
    void fate.then((descriptor) => descriptor ?? giveUp());
    signal.addEventListener("abort", giveUp, { once: true });
    let session: UploadSession | undefined;
    try {
      if (!(await body.begin(MIN_STREAM_BYTES))) return "untried";
      const name = "a blob that is being made";
      session = await this.#start(repository, name);
      session = await this.#patch(repository, { name, body, session, signal: over.signal, detached: true });
      const descriptor = await fate;
      if (descriptor !== undefined && body.isWhole(descriptor)) {
        await this.#put(repository, { digest: descriptor.digest, body: new Uint8Array(0), session });
        session = undefined;
        return "uploaded";
      }
      if (descriptor !== undefined && !signal.aborted) {
        this.#noStream = true;
        log.debug(`Upload of ${descriptor.digest}: the sent bytes are not the whole blob`);
      }
    } catch (error) {
      if (!signal.aborted && !(error instanceof KoError)) throw error;
      // The complete blob was sent, and something else was stored: not a matter of streams.
      if (error instanceof RegistryError && error.method === "PUT" && isFalseClaim(error)) throw error;
      if (error instanceof RegistryError && error.status !== undefined && error.retry === "never")
        this.#noStream = true;
    } finally {
      signal.removeEventListener("abort", giveUp);
      body.stop();
      over.abort();
      clearTimeout(timer);
      if (session !== undefined) this.#cancel(repository, session);
    }
    signal.throwIfAborted();
    return "failed";
  }

  /** Waits until streams have ended, and until uploads that were given up are cancelled or cannot be. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#streams);
    await Promise.all(this.#cancels);
  }

  /** Whether a blob is there after a failed upload: false if the token may not read. */
  async #arrived(repository: Repository, descriptor: Descriptor): Promise<boolean> {
    return this.hasBlob(repository, descriptor, { push: true }).catch((error: unknown) => {
      if (mayNotRead(error)) return false;
      throw error;
    });
  }

  /** @returns "mounted", a session that the registry opened instead, or undefined if it did neither */
  async #mount(repository: Repository, blob: Blob): Promise<"mounted" | UploadSession | undefined> {
    const { connection, log, signal } = this.#options;
    const { descriptor, source } = blob;
    // Another registry must not learn the base image's name, and `mount` without `from` fails on Quay.
    if (source === undefined || source.host !== repository.host || source.path === repository.path) return undefined;
    const action = `mount blob ${descriptor.digest} from "${source.path}" in "${formatRepository(repository)}"`;
    const query = `mount=${encodeURIComponent(descriptor.digest)}&from=${encodeURIComponent(source.path)}`;
    try {
      const response = await connection.send({
        method: "POST",
        target: `/v2/${repository.path}/blobs/uploads/?${query}`,
        repository,
        action,
        push: true,
        from: [source.path],
        accept: [201, 202],
      });
      await response.discard();
      if (response.status === 202) return await this.#session(response, action);
      if (await this.hasBlob(repository, descriptor, { push: true })) return "mounted";
      log.debug(`Cannot ${action}: the registry said yes, but does not have it`);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof RegistryError)) throw error;
      // For any reason, an ordinary upload follows (docs/rules.md A5.3).
      log.debug(error.message);
    }
    return undefined;
  }

  async #start(repository: Repository, name: string): Promise<UploadSession> {
    const action = `start the upload of ${name} to "${formatRepository(repository)}"`;
    const response = await this.#options.connection.send({
      method: "POST",
      target: `/v2/${repository.path}/blobs/uploads/`,
      repository,
      action,
      push: true,
      accept: [202],
    });
    await response.discard();
    return this.#session(response, action);
  }

  async #session(response: HttpResponse, action: string): Promise<UploadSession> {
    const location = response.headers.get("location");
    if (location === null || location === "") {
      const { method } = response;
      const url = redactUrl(response.url);
      throw new RegistryError(`Cannot ${action}: ${method} ${url} answered ${response.status} without a Location`, {
        method,
        url,
        status: response.status,
      });
    }
    return { location: await this.#options.connection.resolve(location, response.url, action) };
  }

  async #upload(repository: Repository, blob: Blob, session: UploadSession): Promise<void> {
    const { digest, size } = blob.descriptor;
    const body: RequestBody = { size, open: (signal) => holdBackLast(blob, signal) };
    let at = session;
    try {
      if (this.#usePatch) {
        at = await this.#patch(repository, { name: nameOf(blob.descriptor), body, session });
        await this.#commit(repository, { digest, body: new Uint8Array(0), session: at });
      } else {
        await this.#commit(repository, { digest, body, session });
      }
    } catch (error) {
      // A registry that is overloaded or has lost the session gets no DELETE.
      const answered = error instanceof RegistryError && error.status !== undefined;
      if (!answered || error.retry === "never") this.#cancel(repository, at);
      throw error;
    }
  }

  /** Sends the whole body without Content-Range: registries disagree about ranges (docs/rules.md A4.2). */
  async #patch(repository: Repository, options: PatchOptions): Promise<UploadSession> {
    const { body, detached, name, session, signal } = options;
    const action = `upload ${name} to "${formatRepository(repository)}"`;
    const response = await this.#options.connection.send({
      method: "PATCH",
      target: session.location,
      repository,
      action,
      push: true,
      accept: [201, 202, 204],
      headers: { "content-type": "application/octet-stream" },
      body,
      signal,
      detached: detached ?? false,
    });
    await response.discard();
    return response.headers.has("location") ? this.#session(response, action) : session;
  }

  async #commit(repository: Repository, options: PutOptions): Promise<void> {
    try {
      await this.#put(repository, options);
    } catch (error) {
      throw this.#judge(error);
    }
  }

  async #put(repository: Repository, { body, digest, session }: PutOptions): Promise<void> {
    const action = `upload blob ${digest} to "${formatRepository(repository)}"`;
    const response = await this.#options.connection.send({
      method: "PUT",
      target: withDigest(session.location, digest),
      repository,
      action,
      push: true,
      accept: [201, 204],
      headers: { "content-type": "application/octet-stream" },
      body,
    });
    await response.discard();
    const stored = response.headers.get("docker-content-digest") ?? digest;
    if (stored.startsWith("sha256:") && stored !== digest) {
      const url = redactUrl(response.url);
      throw new RegistryError(`Cannot ${action}: PUT ${url} answered ${response.status}, but for another digest`, {
        method: "PUT",
        url,
        status: response.status,
      });
    }
  }

  /** Decides whether a refused commit is worth a retry: with a PATCH, or with a new session. */
  #judge(error: unknown): unknown {
    if (!(error instanceof RegistryError)) return error;
    const { codes, status } = error;
    const lost = codes.some((code) => code === "BLOB_UPLOAD_UNKNOWN" || code === "BLOB_UPLOAD_INVALID");
    const noPut = status === 413 || status === 405 || status === 501 || (status === 404 && codes.length === 0);
    if (noPut && !this.#usePatch) {
      this.#usePatch = true;
      return allowRetry(error);
    }
    const isLost =
      (status === 404 && (lost || codes.length === 0)) ||
      (status === 400 && (lost || codes.includes("DIGEST_INVALID"))) ||
      status === 416;
    return isLost ? allowRetry(error) : error;
  }

  /** Cancels an upload, whether the registry accepts that or not. Only {@link settle} waits for it. */
  #cancel(repository: Repository, { location }: UploadSession): void {
    const cancelled = this.#options.connection
      .send({
        method: "DELETE",
        target: location,
        repository,
        action: "give up an upload",
        push: true,
        accept: [200, 202, 204],
        signal: AbortSignal.timeout(CANCEL_MS),
        detached: true,
      })
      .then(
        (response) => response.discard(),
        () => undefined,
      )
      .finally(() => this.#cancels.delete(cancelled));
    this.#cancels.add(cancelled);
  }
}

interface PatchOptions {
  /** For messages: `blob sha256:…`. */
  readonly name: string;
  readonly body: RequestBody;
  readonly session: UploadSession;
  readonly signal?: AbortSignal;
  readonly detached?: boolean;
}

interface PutOptions {
  readonly digest: Digest;
  readonly body: RequestBody | Uint8Array;
  readonly session: UploadSession;
}

/** The name of a blob in messages. */
function nameOf({ digest }: Descriptor): string {
  return `blob ${digest}`;
}

/** Returns the same error, worth one retry. */
function allowRetry(error: RegistryError): RegistryError {
  const { cause, codes, hint, message, method, status, url } = error;
  return new RegistryError(message, { cause, codes, hint, method, status, url, retry: "once" });
}

/** Adds the digest to the query of a Location, which otherwise stays byte for byte (docs/rules.md A4.5). */
function withDigest(location: URL, digest: string): URL {
  const url = new URL(location);
  url.search = `${url.search === "" ? "?" : `${url.search}&`}digest=${encodeURIComponent(digest)}`;
  return url;
}

/**
 * Verifies the bytes of a blob, and holds the last chunk back until their digest is right: so wrong bytes never become a
 * complete upload (docs/rules.md A4.13).
 */
async function* holdBackLast(blob: Blob, signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
  let held: Uint8Array | undefined;
  try {
    for await (const chunk of verified(blob.open(signal), blob.descriptor, nameOf(blob.descriptor))) {
      if (held !== undefined) yield held;
      held = chunk;
    }
  } catch (error) {
    if (error instanceof KoError) throw error;
    throw new KoError(`Cannot read ${nameOf(blob.descriptor)}`, { cause: error });
  }
  if (held !== undefined) yield held;
}
