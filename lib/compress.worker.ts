/**
 * The worker of compress.ts: it answers each {@link CompressionJob} with a `CompressionDone`.
 *
 * Its first message is `"ready"`.
 */
import { type CompressionJob, runJob } from "./compress.ts";

declare const self: Worker & { close(): void };

// Before anything asynchronous: Bun drops messages that come before there is a handler (docs/rules.md, Bun 3).
self.addEventListener("message", (event: MessageEvent<CompressionJob | "stop">) => {
  if (event.data === "stop") {
    self.close();
    return;
  }
  const done = runJob(event.data);
  self.postMessage(done, done.packed === undefined ? [done.block.buffer] : [done.block.buffer, done.packed.buffer]);
});
self.postMessage("ready", []);
