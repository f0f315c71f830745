/**
 * Compresses blocks in a thread of its own; started by compress.ts only.
 *
 * It says `"ready"` once, then answers each {@link CompressionJob} with a `CompressionDone`, both ways without copying.
 */
import { type CompressionJob, runJob } from "./compress.ts";

declare const self: Worker & { close(): void };

// Before anything that could wait: what arrives without a handler is dropped (spec/bun.md 3).
self.addEventListener("message", (event: MessageEvent<CompressionJob | "stop">) => {
  if (event.data === "stop") {
    self.close();
    return;
  }
  const done = runJob(event.data);
  self.postMessage(done, done.packed === undefined ? [done.block.buffer] : [done.block.buffer, done.packed.buffer]);
});
self.postMessage("ready", []);
