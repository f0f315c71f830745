/**
 * A request body that is still being made while it is sent: read once, hashed on its way, ended whenever it must.
 *
 * It never fails: what does not come, or is not wanted any more, is missing at its end, and
 * {@link GrowingBody.isWhole} tells. So the exchange ends as it should, and the server can be told to drop what it got.
 */
import type { Descriptor } from "./oci.ts";
import type { RequestBody } from "./transfer.ts";

export class GrowingBody implements RequestBody {
  readonly size = undefined;
  readonly #make: (signal: AbortSignal) => AsyncIterable<Uint8Array>;
  readonly #gone = new AbortController();
  /** Ends the waiting for a chunk. Not one promise for all of them: it would hold every chunk that it raced with. */
  #wake: () => void = () => {};
  readonly #hash = new Bun.CryptoHasher("sha256");
  /** Read by {@link GrowingBody.begin}, not sent yet. */
  readonly #first: Uint8Array[] = [];
  #source: AsyncIterator<Uint8Array> | undefined;
  #sentBytes = 0;
  #opened = 0;
  #isComplete = false;

  /**
   * @param make is called once, when the first bytes are wanted; the signal ends it. What it throws is its maker's to
   *   tell, and chunks stay as they are once they are given.
   */
  constructor(make: (signal: AbortSignal) => AsyncIterable<Uint8Array>) {
    this.#make = make;
  }

  /** Waits for the first bytes. @returns false if there are fewer than `sizeBytes` */
  async begin(sizeBytes: number): Promise<boolean> {
    for (let size = 0; size < sizeBytes;) {
      const chunk = await this.#next();
      if (chunk === undefined) return false;
      this.#first.push(chunk);
      size += chunk.byteLength;
    }
    return true;
  }

  async *open(signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
    // Somebody wants it from its start again, and that is gone: an empty body is no whole one.
    if (++this.#opened > 1) return;
    const stop = (): void => this.stop();
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    try {
      for (;;) {
        const chunk = this.#first.shift() ?? (await this.#next());
        if (chunk === undefined) return;
        this.#hash.update(chunk);
        this.#sentBytes += chunk.byteLength;
        yield chunk;
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** Ends it where it is, and lets its maker know. */
  stop(): void {
    this.#gone.abort(new Error("not wanted any more"));
    this.#wake();
    // Not waited for: it may hang, and what it says changes nothing.
    void this.#source?.return?.().catch(() => undefined);
  }

  /** Whether all of it was sent, once, and it is what the descriptor says. Ask once, at the end. */
  isWhole({ digest, size }: Pick<Descriptor, "digest" | "size">): boolean {
    if (!this.#isComplete || this.#opened !== 1 || this.#sentBytes !== size) return false;
    return `sha256:${this.#hash.digest("hex")}` === digest;
  }

  async #next(): Promise<Uint8Array | undefined> {
    if (this.#isComplete || this.#gone.signal.aborted) return undefined;
    try {
      const source = (this.#source ??= this.#make(this.#gone.signal)[Symbol.asyncIterator]());
      const next = await new Promise<IteratorResult<Uint8Array> | undefined>((resolve, reject) => {
        this.#wake = () => resolve(undefined);
        source.next().then(resolve, reject);
      });
      if (next?.done === true) this.#isComplete = true;
      return next === undefined || next.done === true ? undefined : next.value;
    } catch {
      return undefined;
    }
  }
}
