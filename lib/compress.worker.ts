/**
 * Compresses blocks in a thread of its own; started by compress.ts only.
 *
 * It says `"ready"` once, then answers each {@link CompressionJob} with a {@link CompressionDone}, both ways without copying.
 */
import type { CompressionDone, CompressionJob } from "./compress.ts";
import { compressBlock } from "./compress.ts";

declare const self: Worker & { close(): void };

// Before anything that could wait: what arrives without a handler is dropped (spec/bun.md 3).
self.addEventListener("message", (event: MessageEvent<CompressionJob | "stop">) => {
  if (event.data === "stop") {
    self.close();
    return;
  }
  const { block, size, codec } = event.data;
  const packed = compressBlock(block.subarray(0, size), codec);
  const done: CompressionDone = { block, packed };
  self.postMessage(done, [block.buffer, packed.buffer]);
});
self.postMessage("ready", []);
