import { describe, expect, test } from "bun:test";
import { readChunks } from "../lib/file.ts";
import { messageOf } from "../lib/errors.ts";
import { rejectionOf } from "./helpers/rejection.ts";
import { writeTree } from "./helpers/tree.ts";

describe("readChunks()", () => {
  test.each([0, 1, 256 * 1024, 700_000])(
    "gives all of a file of %d bytes, in pieces that can be kept",
    async (size) => {
      const bytes = new Uint8Array(size).map((_, i) => i % 251);
      using tree = writeTree({ file: bytes });
      const pieces = await Array.fromAsync(readChunks(tree.at("file")));
      expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
      expect(pieces.length).toBe(Math.ceil(size / (256 * 1024)));
    },
  );

  test("says what it is that cannot be read", async () => {
    using tree = writeTree({});
    const path = tree.at("gone");
    const read = (what?: string): Promise<unknown> =>
      rejectionOf(Array.fromAsync(readChunks(path, what === undefined ? {} : { what })));
    expect(messageOf(await read())).toStartWith(`Cannot read "${path}": ENOENT`);
    expect(messageOf(await read("the layer"))).toStartWith("Cannot read the layer: ENOENT");
  });

  test("stops when it is told to", async () => {
    using tree = writeTree({ file: "text" });
    const reason = new Error("enough");
    expect(await rejectionOf(Array.fromAsync(readChunks(tree.at("file"), { signal: AbortSignal.abort(reason) })))).toBe(
      reason,
    );
  });
});
