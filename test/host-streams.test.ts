import { describe, expect, test } from "bun:test";
import { readLine } from "../lib/host-streams.ts";

function streamOf(...chunks: readonly string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
      controller.close();
    },
  });
}

const { signal } = new AbortController();

describe("readLine()", () => {
  test.each<[readonly string[], string | undefined]>([
    [["yes\n"], "yes"],
    [["y", "es\nmore\n"], "yes"],
    [["\n"], ""],
    [["yes\r\n"], "yes"],
    [["no line end"], undefined],
    [[], undefined],
  ])("of %j is %j", async (chunks, line) => {
    expect(await readLine(streamOf(...chunks), signal)).toBe(line);
  });

  test("ends with the signal, though nothing is typed", async () => {
    const controller = new AbortController();
    const reading = readLine(new ReadableStream(), controller.signal).catch((error: unknown) => error);
    const reason = new Error("stopped");
    controller.abort(reason);
    expect(await reading).toBe(reason);
  });
});
