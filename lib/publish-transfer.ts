/**
 * Reports the bytes of an image's blobs while a registry reads them.
 *
 * The client reads a blob as fast as the registry takes it, so the bytes that were read are those that have been sent, but
 * for one buffer.
 */
import type { Blob, BlobStream } from "./image.ts";
import type { Timing } from "./timing.ts";

export interface TransfersOptions {
  readonly timing: Timing;
  /** The registry's host. */
  readonly host: string;
  /** The name of the image. */
  readonly image: string;
}

/** The transfers of one image. */
export class Transfers {
  readonly #options: TransfersOptions;
  #count = 0;

  constructor(options: TransfersOptions) {
    this.#options = options;
  }

  /** Returns the blob, with a report of each reading. A blob that the registry has already is not read. */
  blob(blob: Blob): Blob {
    const id = this.#count++;
    const { descriptor, source } = blob;
    return {
      descriptor,
      ...(source === undefined ? {} : { source }),
      open: (signal) => this.#reported(id, { total: descriptor.size, content: blob.open(signal) }),
    };
  }

  /** Returns the stream, with a report of each reading. Its size is reported at the end. */
  stream(stream: BlobStream): BlobStream {
    const id = this.#count++;
    return {
      done: stream.done,
      read: (signal) => this.#reported(id, { total: undefined, content: stream.read(signal) }),
    };
  }

  async *#reported(
    id: number,
    { content, total }: { readonly content: AsyncIterable<Uint8Array>; readonly total: number | undefined },
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const { host, image, timing } = this.#options;
    const about = { type: "transfer", id, direction: "upload", host, image } as const;
    let bytes = 0;
    for await (const chunk of content) {
      yield chunk;
      bytes += chunk.byteLength;
      timing.report({ ...about, state: "moving", bytes, ...(total === undefined ? {} : { total }) });
    }
    timing.report({ ...about, state: "done", bytes, total: bytes });
  }
}
