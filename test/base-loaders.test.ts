import { describe, expect, test } from "bun:test";
import { lacksLoader } from "../lib/base-loaders.ts";
import type { Image, Layer } from "../lib/image.ts";
import { digestOf, MEDIA_TYPES } from "../lib/oci.ts";
import type { TarEntry } from "../lib/tar.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { makeImage, makeLayer, randomImage } from "./helpers/images.ts";
import { makeCacheBox } from "./helpers/world-cache.ts";

const GLIBC = "/lib64/ld-linux-x86-64.so.2";
const signal = new AbortController().signal;
const log = { info: () => {}, warn: () => {}, debug: () => {} };

const file = (name: string): TarEntry => ({
  name,
  type: "file",
  mode: 0o755,
  mtime: 0,
  size: 1,
  content: new Uint8Array(1),
});
const link = (name: string, target: string): TarEntry => ({
  name,
  type: "symlink",
  mode: 0o777,
  mtime: 0,
  size: 0,
  linkName: target,
});

async function imageOf(...layers: readonly (readonly TarEntry[] | Layer)[]): Promise<Image> {
  const { config } = await randomImage();
  const made = await Promise.all(
    layers.map(async (each) => ("descriptor" in each ? each : makeLayer([...each], MEDIA_TYPES.ociLayer))),
  );
  return makeImage({ config, layers: made, format: "oci", annotations: {} });
}

/** A layer of other bytes than its media type says. */
async function recompressed(entries: readonly TarEntry[], compress: (tar: Uint8Array) => Uint8Array): Promise<Layer> {
  const layer = await makeLayer([...entries], MEDIA_TYPES.ociLayer);
  const packed = await Array.fromAsync(layer.open());
  const bytes = compress(Bun.gunzipSync(new Uint8Array(Buffer.concat(packed))));
  const descriptor = { ...layer.descriptor, digest: digestOf(bytes), size: bytes.byteLength };
  return { ...layer, descriptor, open: () => chunks(bytes) };
}

async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  yield new Uint8Array();
  for (let at = 0; at < bytes.byteLength; at += 100) yield bytes.subarray(at, at + 100);
}

describe("lacksLoader()", () => {
  test.each<[string, () => Promise<Image>, boolean]>([
    ["no layer", () => imageOf(), true],
    [
      "layers without one",
      () => imageOf([file("etc/passwd")], [file("bin/sh"), file("lib/ld-musl-x86_64.so.1")]),
      true,
    ],
    ["in a lower layer", () => imageOf([file("lib64/ld-linux-x86-64.so.2")], [file("bin/sh")]), false],
    [
      "behind a link to the folder",
      () => imageOf([link("lib64", "usr/lib64"), link("usr/lib64/ld-linux-x86-64.so.2", "../lib/ld.so")]),
      false,
    ],
    ["in another folder: links may lead there", () => imageOf([file("./usr/lib/ld-linux-x86-64.so.2")]), false],
    ["only its whiteout", () => imageOf([file("lib64/.wh.ld-linux-x86-64.so.2")]), true],
    ["a long name before it", () => imageOf([file(`${"a/".repeat(200)}b`), file("lib64/ld-linux-x86-64.so.2")]), false],
    [
      "zstd",
      async () => imageOf(await recompressed([file("lib64/ld-linux-x86-64.so.2")], Bun.zstdCompressSync)),
      false,
    ],
    ["zstd without one", async () => imageOf(await recompressed([file("bin/sh")], Bun.zstdCompressSync)), true],
    ["a plain tar", async () => imageOf(await recompressed([file("lib64/ld-linux-x86-64.so.2")], (tar) => tar)), false],
    ["a plain tar without one", async () => imageOf(await recompressed([file("bin/sh")], (tar) => tar)), true],
    [
      "not a tar",
      async () => imageOf(await recompressed([], () => new TextEncoder().encode("text".repeat(999)))),
      false,
    ],
    [
      "a cut archive",
      async () => imageOf(await recompressed([file("a")], (tar) => Bun.gzipSync(tar.slice()).slice(0, 50))),
      false,
    ],
  ])("%s: %p", async (_name, makeBase, wanted) => {
    expect(await lacksLoader(await makeBase(), GLIBC, { cache: undefined, log, signal })).toBe(wanted);
  });

  test("a loader with an unusual name is not looked for", async () => {
    expect(await lacksLoader(await imageOf(), "/opt/start", { cache: undefined, log, signal })).toBe(false);
  });

  test("reads no layer of a base that is too large, or that is elsewhere", async () => {
    const small = await makeLayer([file("bin/sh")], MEDIA_TYPES.ociLayer);
    const open = (): never => {
      throw new Error("it must not be read");
    };
    const large: Layer = { ...small, descriptor: { ...small.descriptor, size: 40 * 1024 * 1024 }, open };
    const foreign: Layer = {
      ...small,
      descriptor: { ...small.descriptor, mediaType: MEDIA_TYPES.ociLayer.replace("layer.", "layer.nondistributable.") },
      open,
    };
    for (const layer of [large, foreign]) {
      expect(await lacksLoader(await imageOf(layer), GLIBC, { cache: undefined, log, signal })).toBe(false);
    }
  });

  test("reads a layer once", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    let opened = 0;
    const layer = await makeLayer([file("bin/sh")], MEDIA_TYPES.ociLayer);
    const counted: Layer = { ...layer, open: (...args) => (opened++, layer.open(...args)) };
    for (let i = 0; i < 3; i++) {
      expect(await lacksLoader(await imageOf(counted), GLIBC, { cache, log, signal })).toBe(true);
    }
    expect(opened).toBe(1);
  });

  test("ends with the run", async () => {
    const ended = AbortSignal.abort(new Error("the run ends"));
    const layer = await makeLayer([file("bin/sh")], MEDIA_TYPES.ociLayer);
    const open = async function* (): AsyncGenerator<Uint8Array, void, void> {
      yield new Uint8Array(1);
      ended.throwIfAborted();
    };
    const base = await imageOf({ ...layer, open });
    expect(String(await rejectionOf(lacksLoader(base, GLIBC, { cache: undefined, log, signal: ended })))).toContain(
      "the run ends",
    );
  });
});
