/**
 * Reads the output of programs with a bound, and lines that a person types.
 */

export interface ReadOptions {
  readonly maxBytes: number;
  /** Ends the reading before the stream's end. */
  readonly abandon: AbortSignal;
}

export interface ReadHeadOptions {
  readonly onTooMuch: () => void;
  readonly listen: ((chunk: Uint8Array) => unknown) | undefined;
}

/** The most bytes of a line. */
const MAX_LINE = 64 * 1024;

/** Reads the first `maxBytes`, and drops the rest so that the program can end. `listen` gets everything instead. */
export async function readHead(
  stream: Bun.Subprocess["stdout"],
  { maxBytes, abandon, onTooMuch, listen }: ReadOptions & ReadHeadOptions,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunksOf(stream, abandon)) {
    if (listen !== undefined) {
      await listen(chunk);
      continue;
    }
    size += chunk.byteLength;
    if (size > maxBytes) onTooMuch();
    else chunks.push(chunk);
  }
  return joined(chunks);
}

/** Reads the last `maxBytes`. `listen` gets everything too, and is awaited. */
export async function readTail(
  stream: Bun.Subprocess["stderr"],
  { maxBytes, abandon, listen }: ReadOptions & { readonly listen: ((chunk: Uint8Array) => unknown) | undefined },
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunksOf(stream, abandon)) {
    if (listen !== undefined) await listen(chunk);
    chunks.push(chunk);
    size += chunk.byteLength;
    for (let [first] = chunks; first && size - first.byteLength >= maxBytes; [first] = chunks) {
      size -= first.byteLength;
      chunks.shift();
    }
  }
  return joined(chunks).subarray(-maxBytes);
}

/** Reads up to the first line end; undefined if the stream ends before. Later bytes are lost. */
export async function readLine(stream: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<string | undefined> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunksOf(stream, signal)) {
    const end = chunk.indexOf(0x0a);
    chunks.push(end < 0 ? chunk : chunk.subarray(0, end));
    size += chunk.byteLength;
    if (end < 0 && size < MAX_LINE) continue;
    return new TextDecoder().decode(joined(chunks)).replace(/\r$/, "");
  }
  signal.throwIfAborted();
  return undefined;
}

/** Reads without delay, so that the pipe's flow control works (docs/rules.md, Bun 5). */
async function* chunksOf(
  stream: Bun.Subprocess["stdout"] | ReadableStream<Uint8Array>,
  abandon: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  if (!(stream instanceof ReadableStream)) return;
  const reader = stream.getReader();
  const cancel = (): void => void reader.cancel().catch(() => {});
  abandon.addEventListener("abort", cancel, { once: true });
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
  } finally {
    abandon.removeEventListener("abort", cancel);
    cancel();
  }
}

function joined(chunks: readonly Uint8Array[]): Uint8Array {
  return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
}
