import { describe, expect, test } from "bun:test";
import { checkUnpacked } from "../lib/compress-check.ts";
import { digestOf } from "../lib/oci.ts";
import { failureOf } from "./helpers/failures.ts";
import { randomBytes } from "./helpers/images.ts";

const TAR = randomBytes("tar", 700_000);
const GZIP = Buffer.concat(
  [0, 300_000, 600_000].map((at) => Bun.gzipSync(new Uint8Array(TAR.slice(at, at + 300_000)))),
);
const ZSTD = Buffer.concat([0, 300_000, 600_000].map((at) => Bun.zstdCompressSync(TAR.slice(at, at + 300_000))));
const WANTED = { digest: digestOf(TAR), size: TAR.byteLength, what: "the layer" } as const;

async function* cut(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array, void, void> {
  for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size);
}

describe("checkUnpacked()", () => {
  test.each([
    ["gzip", GZIP, 1 << 20],
    ["gzip", GZIP, 65_536],
    ["gzip", GZIP, 4_001],
    ["zstd", ZSTD, 1 << 20],
    ["zstd", ZSTD, 4_001],
  ] as const)("passes %s on as it is, in pieces of any size", async (kind, bytes, size) => {
    const checked = checkUnpacked(cut(bytes, size), { kind, ...WANTED });
    expect(Buffer.concat(await Array.fromAsync(checked)).equals(bytes)).toBe(true);
  });

  test.each([
    ["another size", { size: WANTED.size - 1 }, /unpacks to more than 699999 bytes/],
    ["a larger size", { size: WANTED.size + 1 }, /unpacks to 700000 bytes with digest .*, wanted 700001 bytes/],
    ["another digest", { digest: digestOf(GZIP) }, /unpacks to 700000 bytes with digest/],
    ["another format", { kind: "zstd" }, /^Cannot trust the layer: /],
  ] as const)("holds the last piece back if the content is of %s", async (_what, change, why) => {
    let size = 0;
    const work = async (): Promise<void> => {
      const checked = checkUnpacked(cut(GZIP, 50_000), { kind: "gzip", ...WANTED, ...change });
      for await (const chunk of checked) size += chunk.byteLength;
    };
    expect((await failureOf(work())).message).toMatch(why);
    expect(size).toBeLessThan(GZIP.byteLength);
  });

  test("fails as its source does, and can be left early", async () => {
    const broken = async function* (): AsyncGenerator<Uint8Array, void, void> {
      yield GZIP.subarray(0, 1000);
      throw new Error("the disk failed");
    };
    const failing = Array.fromAsync(checkUnpacked(broken(), { kind: "gzip", ...WANTED }));
    expect(await failing.catch((error: unknown) => error)).toEqual(new Error("the disk failed"));
    let ended = false;
    const endless = async function* (): AsyncGenerator<Uint8Array, void, void> {
      try {
        for (;;) yield* cut(GZIP.subarray(0, 200_000), 1000);
      } finally {
        ended = true;
      }
    };
    for await (const _ of checkUnpacked(endless(), { kind: "gzip", ...WANTED })) break;
    expect(ended).toBe(true);
  });
});
