import { describe, expect, test } from "bun:test";
import type { TransferEvent } from "../lib/events.ts";
import type { Blob, BlobStream } from "../lib/image.ts";
import { digestOf } from "../lib/oci.ts";
import { Transfers } from "../lib/publish-transfer.ts";
import { noTiming, type Timing } from "../lib/timing.ts";

const BYTES = [3, 4, 5].map((length) => new Uint8Array(length).fill(length));
const ABOUT = { type: "transfer", direction: "upload", host: "localhost:5000", image: "localhost:5000/web" } as const;

async function* content(): AsyncGenerator<Uint8Array, void, undefined> {
  yield* BYTES;
}

function blob(): Blob {
  const descriptor = { mediaType: "application/octet-stream", digest: digestOf(Buffer.concat(BYTES)), size: 12 };
  return { descriptor, source: { host: "h", path: "p" }, open: content };
}

function begin(): { readonly transfers: Transfers; readonly events: TransferEvent[] } {
  const events: TransferEvent[] = [];
  const report: Timing["report"] = (event) => void (event.type === "transfer" && events.push(event));
  const timing = { ...noTiming, report };
  return { transfers: new Transfers({ timing, host: ABOUT.host, image: ABOUT.image }), events };
}

describe("Transfers", () => {
  test("reports a blob after each chunk that was taken, and its end", async () => {
    const { events, transfers } = begin();
    const reported = transfers.blob(blob());
    expect([reported.descriptor, reported.source]).toEqual([blob().descriptor, blob().source]);
    expect(events).toEqual([]);
    expect(await Array.fromAsync(reported.open())).toEqual(BYTES);
    expect(events).toEqual([
      { ...ABOUT, id: 0, state: "moving", bytes: 3, total: 12 },
      { ...ABOUT, id: 0, state: "moving", bytes: 7, total: 12 },
      { ...ABOUT, id: 0, state: "moving", bytes: 12, total: 12 },
      { ...ABOUT, id: 0, state: "done", bytes: 12, total: 12 },
    ]);
  });

  test("a second reading counts from the first byte", async () => {
    const { events, transfers } = begin();
    const reported = transfers.blob(blob());
    for await (const _ of reported.open()) break;
    await Array.fromAsync(reported.open());
    expect(events.map(({ bytes, id }) => [id, bytes])).toEqual([
      [0, 3],
      [0, 7],
      [0, 12],
      [0, 12],
    ]);
  });

  test("the size of a stream is reported at its end", async () => {
    const { events, transfers } = begin();
    const stream: BlobStream = { done: Promise.resolve(blob()), read: content };
    const reported = transfers.stream(stream);
    await Array.fromAsync(reported.read(new AbortController().signal));
    expect(reported.done).toBe(stream.done);
    expect(events.map(({ bytes, state, total }) => [bytes, state, total])).toEqual([
      [3, "moving", undefined],
      [7, "moving", undefined],
      [12, "moving", undefined],
      [12, "done", 12],
    ]);
  });
});
