/**
 * Blobs on their way into one registry: each once per run, looked for before it is sent, or sent while it is made.
 *
 * How a blob is sent is registry-upload.ts's matter. Rules: rules.md A3.1, A4.14.
 */
import { until } from "./async.ts";
import { KoError, RegistryError } from "./errors.ts";
import type { Blob, BlobStream } from "./image.ts";
import { type Descriptor, isForeignLayer } from "./oci.ts";
import { formatRepository, type Repository, whyBadPath } from "./reference.ts";
import type { Uploader, UploadStreamResult } from "./registry-upload.ts";

/** How a blob got to where it is. */
export type PushResult = "present" | "mounted" | "uploaded";

export interface BlobPusherOptions {
  readonly uploader: Uploader;
  readonly signal: AbortSignal;
  /** Bounds the questions that are asked at once. */
  readonly heads: <T>(work: () => Promise<T>) => Promise<T>;
  readonly retry: <T>(work: () => Promise<T>) => Promise<T>;
}

export class BlobPusher {
  readonly #options: BlobPusherOptions;
  readonly #pushed = new Map<string, Promise<PushResult>>();
  readonly #streaming = new Set<Promise<PushResult>>();

  constructor(options: BlobPusherOptions) {
    this.#options = options;
  }

  /** See `Registry.pushBlob`. */
  push(repository: Repository, blob: Blob): Promise<PushResult> {
    const known = this.#pushed.get(keyOf(repository, blob));
    if (known !== undefined) return known;
    // A foreign layer's licence forbids it; the manifest names where it is.
    if (isForeignLayer(blob.descriptor.mediaType)) return Promise.resolve("present");
    return this.#share(repository, blob, () => this.#push(repository, blob));
  }

  /** See `Registry.streamBlob`. */
  stream(repository: Repository, stream: BlobStream): Promise<PushResult> {
    const { signal, uploader } = this.#options;
    const fate = Promise.withResolvers<Descriptor | undefined>();
    const sent = uploader.stream(repository, { make: (gone) => stream.read(gone), fate: fate.promise });
    // Whoever needs it waits for it; the end of the run is told below.
    sent.catch(() => undefined);
    // Before anybody else can hear of the end, so that who pushes the blob then finds that it is being sent.
    const finished = stream.done.then((blob) => this.#finish(repository, blob, { sent, decide: fate.resolve }));
    const streaming = until(finished, signal).finally(() => {
      fate.resolve(undefined);
      this.#streaming.delete(streaming);
    });
    this.#streaming.add(streaming);
    return streaming;
  }

  /** Waits for all that was begun, however it ends. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#pushed.values(), ...this.#streaming]);
    await this.#options.uploader.settle();
  }

  #share(repository: Repository, blob: Blob, work: () => Promise<PushResult>): Promise<PushResult> {
    const key = keyOf(repository, blob);
    const pushing = work();
    this.#pushed.set(key, pushing);
    // The next who needs it may try again.
    pushing.catch(() => this.#pushed.delete(key));
    return pushing;
  }

  async #push(repository: Repository, blob: Blob): Promise<PushResult> {
    checkPath(repository);
    const { heads, retry, uploader } = this.#options;
    const look = heads(() => retry(() => uploader.isPresent(repository, blob.descriptor, true)));
    // A refused HEAD does not say why; the POST after it will.
    const present = await look.catch((error: unknown) => {
      if (error instanceof RegistryError && (error.status === 401 || error.status === 403)) return false;
      throw error;
    });
    if (present) return "present";
    return uploader.push(repository, blob);
  }

  #finish(repository: Repository, blob: Blob, stream: Stream): Promise<PushResult> {
    const known = this.#pushed.get(keyOf(repository, blob));
    if (known === undefined && !isForeignLayer(blob.descriptor.mediaType)) {
      return this.#share(repository, blob, () => this.#finishStream(repository, blob, stream));
    }
    stream.decide(undefined);
    return known ?? Promise.resolve("present");
  }

  async #finishStream(repository: Repository, blob: Blob, { decide, sent }: Stream): Promise<PushResult> {
    const { heads, signal, uploader } = this.#options;
    // One question, while the last bytes are on their way; without an answer the stream goes on.
    const present = await heads(() => uploader.isPresent(repository, blob.descriptor, true)).catch(() => undefined);
    signal.throwIfAborted();
    decide(present === true ? undefined : blob.descriptor);
    if (present === true) return "present";
    const result = await sent;
    if (result === "uploaded") return result;
    return result === "untried" && present === false ? uploader.push(repository, blob) : this.#push(repository, blob);
  }
}

interface Stream {
  readonly sent: Promise<UploadStreamResult>;
  /** Says what the content is and that it is wanted, or that it is not. */
  readonly decide: (descriptor: Descriptor | undefined) => void;
}

/**
 * Registries differ in what they read, but agree in what they take (A1.9).
 *
 * @throws {KoError} If nothing can be pushed to a repository of this name.
 */
export function checkPath(repository: Repository): void {
  const why = whyBadPath(repository.path);
  if (why !== undefined) throw new KoError(`Cannot push to "${formatRepository(repository)}": ${why}`);
}

function keyOf({ path }: Repository, { descriptor }: Blob): string {
  return `${path}@${descriptor.digest}`;
}
