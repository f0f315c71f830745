/**
 * Checks compressed content against the tar that it should unpack to, while it is read (docs/rules.md A8.13).
 *
 * It is unpacked by threads of Bun and hashed here, beside the transfer of the compressed bytes; memory stays bounded.
 */
import { inBackground } from "./async.ts";
import type { Codec } from "./compress.ts";
import { KoError, messageOf } from "./errors.ts";
import { CHUNK_BYTES } from "./file.ts";
import type { Digest } from "./oci.ts";

export interface CheckUnpackedOptions {
  readonly kind: Codec["kind"];
  /** Of the tar. */
  readonly digest: Digest;
  /** Bytes of the tar. */
  readonly size: number;
  /** Names the content in errors. */
  readonly what: string;
}

/**
 * Yields the chunks of `source`. The last one is held back until all of them unpack to the tar, so that a reader that
 * needs the whole content never gets other content.
 *
 * @param source chunks with memory of their own
 * @throws {KoError} If the content cannot be unpacked, is followed by other bytes, or unpacks to something else.
 */
export async function* checkUnpacked(
  source: AsyncIterable<Uint8Array>,
  options: CheckUnpackedOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const unpacking = await Unpacking.start(options);
  let last: Uint8Array | undefined;
  try {
    for await (const chunk of source) {
      const unpacked = inBackground(unpacking.add(chunk));
      // The reader sends the chunk before, meanwhile.
      if (last !== undefined) yield last;
      last = chunk;
      await unpacked;
    }
    await unpacking.finish();
    if (last !== undefined) yield last;
  } finally {
    unpacking.stop();
  }
}

type Unpacker = Awaited<ReturnType<typeof openUnpacker>>;

class Unpacking {
  readonly #unpacker: Unpacker;
  readonly #options: CheckUnpackedOptions;
  readonly #hash = new Bun.CryptoHasher("sha256");
  readonly #ended = Promise.withResolvers<void>();
  #size = 0;
  #packed = 0;

  private constructor(unpacker: Unpacker, options: CheckUnpackedOptions) {
    this.#unpacker = unpacker;
    this.#options = options;
    void inBackground(this.#ended.promise);
    unpacker.on("data", (chunk: Uint8Array) => {
      this.#size += chunk.byteLength;
      this.#hash.update(chunk);
      // A few bytes can unpack to any number.
      if (this.#size > options.size) this.#ended.reject(this.#fail(`it unpacks to more than ${options.size} bytes`));
    });
    unpacker.on("end", () => this.#ended.resolve());
    unpacker.on("error", (error) => this.#ended.reject(this.#fail(messageOf(error))));
  }

  static async start(options: CheckUnpackedOptions): Promise<Unpacking> {
    return new Unpacking(await openUnpacker(options.kind), options);
  }

  /** Unpacks a chunk. @throws {KoError} If that fails. */
  add(chunk: Uint8Array): Promise<void> {
    this.#packed += chunk.byteLength;
    const taken = new Promise<void>((resolve) => this.#unpacker.write(chunk, () => resolve()));
    return Promise.race([taken, this.#ended.promise]);
  }

  /** @throws {KoError} If all chunks are not the content that was wanted. */
  async finish(): Promise<void> {
    const { digest, size } = this.#options;
    this.#unpacker.end();
    await this.#ended.promise;
    const got = `sha256:${this.#hash.digest("hex")}`;
    if (this.#size !== size || got !== digest) {
      throw this.#fail(`it unpacks to ${this.#size} bytes with digest ${got}, wanted ${size} bytes with ${digest}`);
    }
    // Some readers would unpack these, too.
    if (this.#unpacker.bytesWritten !== this.#packed) throw this.#fail("other bytes follow its content");
  }

  stop(): void {
    this.#unpacker.destroy();
  }

  #fail(why: string): KoError {
    return new KoError(`Cannot trust ${this.#options.what}: ${why}`);
  }
}

/** Loading node:zlib takes milliseconds: only where something is unpacked. */
async function openUnpacker(kind: Codec["kind"]) {
  const { createGunzip, createZstdDecompress } = await import("node:zlib");
  return kind === "gzip" ? createGunzip({ chunkSize: CHUNK_BYTES }) : createZstdDecompress({ chunkSize: CHUNK_BYTES });
}
