/**
 * Compresses blocks in a thread of its own; started by gzip.ts only.
 *
 * It says `"ready"` once, then answers each {@link GzipJob} with a {@link GzipDone}, both ways without copying.
 */
import type { GzipDone, GzipJob } from "./gzip.ts";
import { gzipBlock } from "./gzip.ts";

declare const self: Worker & { close(): void };

// Before anything that could wait: what arrives without a handler is dropped (spec/bun.md 3).
self.addEventListener("message", (event: MessageEvent<GzipJob | "stop">) => {
  if (event.data === "stop") {
    self.close();
    return;
  }
  const { block, size, level } = event.data;
  const member = gzipBlock(block.subarray(0, size), level);
  const done: GzipDone = { block, member };
  self.postMessage(done, [block.buffer, member.buffer]);
});
self.postMessage("ready", []);
