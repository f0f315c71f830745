/**
 * Getting blobs into one registry: look, mount, POST and PUT; PATCH where a registry wants that, or where the blob is
 * not complete yet.
 *
 * Rules: rules.md A3.1, A4, A5, A7.5.
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
import type { Connection } from "./registry-transport.ts";
import { redactUrl } from "./url.ts";

export interface UploaderOptions {
  readonly connection: Connection;
  readonly http: Http;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Bounds the uploads that run at once. */
  readonly limit: <T>(work: () => Promise<T>) => Promise<T>;
}

export interface UploadStreamOptions {
  /** The bytes; see {@link StreamBody}. */
  readonly make: (signal: AbortSignal) => AsyncIterable<Uint8Array>;
  /** Tells what they became, or with undefined that they are not wanted. It must come at last, and never rejects. */
  readonly fate: Promise<Descriptor | undefined>;
}

/** "untried": nothing was sent. "failed": nothing stays of what was sent. */
export type UploadStreamResult = "uploaded" | "untried" | "failed";

/** A place to upload to: the Location of a POST or PATCH. */
interface UploadSession {
  readonly location: URL;
}

/** Milliseconds that giving up an upload may take. */
const CANCEL_MS = 1000;
/** What is shorter is complete before the registry has answered the first request. */
const MIN_STREAM_BYTES = 256 * 1024;

export class Uploader {
  readonly #options: UploaderOptions;
  /** Set when the registry refused a whole body in a PUT: from then on it gets a PATCH. */
  #usePatch = false;
  /** Set when the registry refused a body of unknown length, or mangled it. */
  #noStream = false;
  readonly #streaming = new Set<Promise<unknown>>();
  readonly #cancelling = new Set<Promise<void>>();

  constructor(options: UploaderOptions) {
    this.#options = options;
  }

  /**
   * Whether the repository has the blob, with the size it must have. Asks once.
   *
   * @param push asks with the right to push
   */
  async isPresent(repository: Repository, { digest, size }: Descriptor, push: boolean): Promise<boolean> {
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

  /** Mounts or uploads a blob that is not there. */
  push(repository: Repository, blob: Blob): Promise<"mounted" | "uploaded"> {
    const { http, limit, log, signal } = this.#options;
    return limit(async () => {
      const mount = await this.#mount(repository, blob);
      if (mount === "mounted") return mount;
      let session = mount;
      await retry(
        async (attempt) => {
          // The answer that was lost may have been "done" (A4.8).
          if (attempt > 1 && (await this.isPresent(repository, blob.descriptor, true))) return;
          const first = session;
          session = undefined;
          const what = `blob ${blob.descriptor.digest}`;
          await this.#upload(repository, blob, first ?? (await this.#start(repository, what)));
        },
        { clock: http.clock, log, signal },
      );
      return "uploaded";
    });
  }

  /**
   * Sends a blob while it is made, into an upload that is completed when it is known to be right, else taken back.
   *
   * A short cut: it goes no way twice, and if it fails, {@link Uploader.push} has to do what it could not.
   *
   * @throws only what ended the run
   */
  stream(repository: Repository, { fate, make }: UploadStreamOptions): Promise<UploadStreamResult> {
    let decided = false;
    const known = fate.finally(() => (decided = true));
    // What is complete before its turn has come, or is not wanted any more, is no stream.
    const streaming = this.#options
      .limit(async () => (decided || this.#noStream ? "untried" : this.#stream(repository, { fate: known, make })))
      .finally(() => this.#streaming.delete(streaming));
    this.#streaming.add(streaming);
    return streaming;
  }

  async #stream(repository: Repository, { fate, make }: UploadStreamOptions): Promise<UploadStreamResult> {
    const { log, signal } = this.#options;
    const body = new StreamBody(make);
    const over = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    // Ending the body lets the registry end its part before it is told to drop it: else the two may cross.
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
      const what = "a blob that is being made";
      session = await this.#start(repository, what);
      session = await this.#patch(repository, { what, body, session, signal: over.signal, detached: true });
      const descriptor = await fate;
      if (descriptor !== undefined && body.isWhole(descriptor)) {
        await this.#put(repository, { digest: descriptor.digest, body: new Uint8Array(0), session });
        session = undefined;
        return "uploaded";
      }
      if (descriptor !== undefined && !signal.aborted) {
        this.#noStream = true;
        log.debug(`Upload of ${descriptor.digest}: what was sent is not all of it`);
      }
    } catch (error) {
      if (!signal.aborted && !(error instanceof KoError)) throw error;
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

  /** Waits until uploads that were given up are taken back, or cannot be. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#streaming);
    await Promise.all(this.#cancelling);
  }

  /** @returns "mounted", a session that the registry opened instead, or undefined when neither worked */
  async #mount(repository: Repository, blob: Blob): Promise<"mounted" | UploadSession | undefined> {
    const { connection, log, signal } = this.#options;
    const { descriptor, source } = blob;
    // Another registry must not learn which base we use, and `mount` without `from` fails on Quay.
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
        from: source.path,
        accept: [201, 202],
      });
      await response.discard();
      if (response.status === 202) return await this.#session(response, action);
      if (await this.isPresent(repository, descriptor, true)) return "mounted";
      log.debug(`Cannot ${action}: the registry said yes, but does not have it`);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof RegistryError)) throw error;
      // Whatever the reason: the upload will tell whether it matters (A5.3).
      log.debug(error.message);
    }
    return undefined;
  }

  async #start(repository: Repository, what: string): Promise<UploadSession> {
    const action = `start the upload of ${what} to "${formatRepository(repository)}"`;
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
    const body: RequestBody = { size, open: (signal) => checked(blob, signal) };
    let at = session;
    try {
      if (this.#usePatch) {
        at = await this.#patch(repository, { what: `blob ${digest}`, body, session });
        await this.#commit(repository, { digest, body: new Uint8Array(0), session: at });
      } else {
        await this.#commit(repository, { digest, body, session });
      }
    } catch (error) {
      // A registry that is overloaded, or that has lost the session, need not be told.
      const answered = error instanceof RegistryError && error.status !== undefined;
      if (!answered || error.retry === "never") this.#cancel(repository, at);
      throw error;
    }
  }

  /** The whole body without Content-Range: registries disagree about ranges (A4.2). */
  async #patch(repository: Repository, part: Part): Promise<UploadSession> {
    const { body, detached, session, signal, what } = part;
    const action = `upload ${what} to "${formatRepository(repository)}"`;
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

  async #commit(repository: Repository, end: End): Promise<void> {
    try {
      await this.#put(repository, end);
    } catch (error) {
      throw this.#judge(error);
    }
  }

  async #put(repository: Repository, { body, digest, session }: End): Promise<void> {
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
        retry: "once",
      });
    }
  }

  /** What a refused commit is worth: perhaps another form of upload, perhaps a new session. */
  #judge(error: unknown): unknown {
    if (!(error instanceof RegistryError)) return error;
    const { codes, status } = error;
    const lost = codes.some((code) => code === "BLOB_UPLOAD_UNKNOWN" || code === "BLOB_UPLOAD_INVALID");
    const noPut = status === 413 || status === 405 || status === 501 || (status === 404 && codes.length === 0);
    if (noPut && !this.#usePatch) {
      this.#usePatch = true;
      return again(error);
    }
    const fresh =
      (status === 404 && (lost || codes.length === 0)) ||
      (status === 400 && (lost || codes.includes("DIGEST_INVALID"))) ||
      status === 416;
    return fresh ? again(error) : error;
  }

  /** Takes an upload back, as far as the registry lets us. Nobody waits for it but {@link settle}. */
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
      .finally(() => this.#cancelling.delete(cancelled));
    this.#cancelling.add(cancelled);
  }
}

interface Part {
  /** For errors: `blob sha256:…`. */
  readonly what: string;
  readonly body: RequestBody;
  readonly session: UploadSession;
  readonly signal?: AbortSignal;
  readonly detached?: boolean;
}

interface End {
  readonly digest: Digest;
  readonly body: RequestBody | Uint8Array;
  readonly session: UploadSession;
}

function again(error: RegistryError): RegistryError {
  const { cause, codes, hint, message, method, status, url } = error;
  return new RegistryError(message, { cause, codes, hint, method, status, url, retry: "once" });
}

/** The Location's own query is kept byte for byte (A4.5). */
function withDigest(location: URL, digest: string): URL {
  const url = new URL(location);
  url.search = `${url.search === "" ? "?" : `${url.search}&`}digest=${encodeURIComponent(digest)}`;
  return url;
}

/**
 * A blob's bytes, checked, with the last chunk held back until the digest is known to be right: wrong bytes never
 * become a complete upload (A4.13).
 */
async function* checked(blob: Blob, signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
  let held: Uint8Array | undefined;
  try {
    for await (const chunk of verified(blob.open(signal), blob.descriptor, `blob ${blob.descriptor.digest}`)) {
      if (held !== undefined) yield held;
      held = chunk;
    }
  } catch (error) {
    if (error instanceof KoError) throw error;
    throw new KoError(`Cannot read blob ${blob.descriptor.digest}`, { cause: error });
  }
  if (held !== undefined) yield held;
}
