import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { KoError } from "../lib/errors.ts";
import { CompressionPool, FAST_GZIP } from "../lib/compress.ts";
import type { BlobStream, Layer } from "../lib/image.ts";
import { binaryEntries, kodataEntries } from "../lib/kodata.ts";
import { type WriteLayerOptions, fileLayer, measure, retypeLayer, writeLayer } from "../lib/layer.ts";
import { silentLog } from "../lib/log.ts";
import { type Digest, MEDIA_TYPES, digestOf } from "../lib/oci.ts";
import { type TarEntry, packTar } from "../lib/tar.ts";

const { signal } = new AbortController();
let folder: string;
let pool: CompressionPool;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ko-layer-test-"));
  pool = new CompressionPool({ workers: 2 });
});
afterAll(async () => {
  await pool[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

describe("writeLayer()", () => {
  describe("makes the diffIDs of the original (spec/wire.md D2.4, D2.5, D4.6)", () => {
    const kodata = (how: { directory?: string; os?: string; mtime?: number }): Iterable<TarEntry> => {
      const { directory = "none", os = "linux", mtime = 0 } = how;
      return kodataEntries({ directory: join(folder, directory), os, mtime, allowedRoot: undefined, log: silentLog });
    };
    const cases: readonly (readonly [string, () => Iterable<TarEntry>, Digest])[] = [
      ["no kodata", () => kodata({}), "sha256:ffe56a1c5f3878e9b5f803842adb9e2ce81584b6bd027e8599582aefe14a975b"],
      [
        "no kodata, with a time",
        () => kodata({ mtime: 1_700_000_000 }),
        "sha256:b51381ac64a4033cff00bdced914587d3def0bbd97dd95c182d3a16dc2e86d80",
      ],
      [
        "no kodata, for Windows",
        () => kodata({ os: "windows" }),
        "sha256:a079a67b68784b98eda91f6c118de885c2a7a95104ab20d3ddae85b0a6236a1e",
      ],
      [
        "a kodata file",
        () => {
          mkdirSync(join(folder, "one"), { recursive: true });
          writeFileSync(join(folder, "one/f"), "data\n");
          return kodata({ directory: "one" });
        },
        "sha256:3008091911a657a1525043890ec169cace6c0ff04f6efab5d2b2900a2ae11946",
      ],
      [
        "a program",
        () => {
          const path = join(folder, "hello");
          writeFileSync(path, Buffer.from("232162696e6172790068656c6c6f", "hex"));
          return binaryEntries({ path, name: "/ko-app/hello", os: "linux", size: 14 });
        },
        "sha256:d0894de24a34d6cc1f215029698bda5fa3965f72a04c9ae8e756da1285f207e4",
      ],
    ];
    test.each(cases)("%s", async (what, entries, diffId) => {
      const layer = await writeLayer(entries(), options({ file: what })).done;
      expect(layer.diffId).toBe(diffId);
    });
  });

  test("describes the bytes of its file, which unpack to the tar", async () => {
    const entries = someEntries();
    const layer = await writeLayer(entries, options({ file: "described" })).done;
    const bytes = readFileSync(layer.path);
    expect(layer.path).toBe(join(folder, "described"));
    expect(layer.descriptor).toEqual({
      mediaType: MEDIA_TYPES.ociLayer,
      size: bytes.byteLength,
      digest: digestOf(bytes),
    });
    const tar = Buffer.concat(await Array.fromAsync(packTar(entries, { signal })));
    expect(Buffer.compare(gunzipSync(bytes), tar)).toBe(0);
    expect(layer.diffId).toBe(digestOf(tar));
  });

  test("can be read while it is written, by two readers", async () => {
    const layer = writeLayer(someEntries(), options({ file: "followed" }));
    const [early, late] = await Promise.all([
      readStream(layer),
      // The file has its final name by then.
      layer.done.then(() => readStream(layer)),
    ]);
    const { digest } = (await layer.done).descriptor;
    expect([digestOf(early), digestOf(late)]).toEqual([digest, digest]);
  });

  test("ends what is read early when an entry cannot be read", async () => {
    const missing: TarEntry = { ...FILE, name: "b", size: 1, content: { path: join(folder, "no such file") } };
    const layer = writeLayer([...someEntries(), missing], options({ file: "cut short" }));
    const whole = await writeLayer(someEntries(), options({ file: "whole" })).done;
    expect((await readStream(layer)).byteLength).toBeLessThan(whole.descriptor.size);
    expect(await layer.done.catch(String)).toContain("no such file");
  });

  test("makes a layer of zstd with the same diffID", async () => {
    const entries = someEntries();
    const gzip = await writeLayer(entries, options({ file: "gzip" })).done;
    const mediaType = MEDIA_TYPES.ociZstdLayer;
    const zstd = await writeLayer(entries, { ...options({ file: "zstd" }), codec: { kind: "zstd" }, mediaType }).done;
    const bytes = readFileSync(zstd.path);
    expect(zstd.descriptor).toEqual({ mediaType, size: bytes.byteLength, digest: digestOf(bytes) });
    expect(zstd.diffId).toBe(gzip.diffId);
    expect(digestOf(zstdDecompressSync(bytes))).toBe(zstd.diffId);
    expect(digestOf(await read(zstd))).toBe(zstd.descriptor.digest);
  });

  test("makes the same layer again, in another place, with another number of workers", async () => {
    await using other = new CompressionPool({ workers: 0 });
    const [first, second] = [
      await writeLayer(someEntries(), options({ file: "first" })).done,
      await writeLayer(someEntries(), { ...options({ file: "second" }), pool: other }).done,
    ];
    expect({ ...second, path: "", open: undefined }).toEqual({ ...first, path: "", open: undefined });
  });

  test("leaves nothing behind, and what was there as it was, when an entry cannot be read", async () => {
    const place = join(folder, "failing");
    mkdirSync(place);
    writeFileSync(join(place, "layer"), "old");
    const missing: TarEntry = { ...FILE, name: "b", size: 1, content: { path: join(folder, "no such file") } };
    const error = await writeLayer([...someEntries(), missing], options({ file: "failing/layer" })).done.catch(String);
    expect(error).toContain("no such file");
    expect(readdirSync(place)).toEqual(["layer"]);
    expect(readFileSync(join(place, "layer"), "utf8")).toBe("old");
  });

  test("leaves nothing behind when it is stopped", async () => {
    const place = join(folder, "stopped");
    mkdirSync(place);
    const controller = new AbortController();
    function* entries(): Generator<TarEntry> {
      yield* someEntries();
      expect(readdirSync(place)).toHaveLength(1);
      controller.abort(new Error("enough"));
      yield* someEntries();
    }
    const stopped = options({ file: "stopped/layer" });
    expect(await writeLayer(entries(), { ...stopped, signal: controller.signal }).done.catch(String)).toBe(
      "Error: enough",
    );
    expect(readdirSync(place)).toEqual([]);
  });

  test("names the file that it cannot write", async () => {
    const error = await writeLayer(someEntries(), options({ file: "no/such/folder/layer" })).done.catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(KoError);
    expect(String(error)).toContain(`Cannot write the layer "${join(folder, "no/such/folder/layer")}": ENOENT`);
  });

  test("says so when the disk is full", async () => {
    const place = join(folder, "full");
    mkdirSync(place);
    if (Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]).exitCode !== 0) {
      return console.warn("skipped: the test may not mount a file system");
    }
    try {
      const error = await writeLayer(someEntries(), options({ file: "full/layer" })).done.catch(String);
      expect(error).toContain(`Cannot write the layer "${place}/layer": ENOSPC`);
      expect(readdirSync(place)).toEqual([]);
    } finally {
      Bun.spawnSync(["umount", place]);
    }
  });
});

describe("fileLayer()", () => {
  test("opens again and again", async () => {
    const layer = await writeLayer(someEntries(), options({ file: "again" })).done;
    const known = fileLayer({ path: layer.path, descriptor: layer.descriptor, diffId: layer.diffId });
    for (let i = 0; i < 2; i++) expect(digestOf(await read(known))).toBe(layer.descriptor.digest);
  });

  test.each([
    ["cut", (path: string) => writeFileSync(path, readFileSync(path).subarray(0, -1)), "Cannot trust the layer in"],
    ["changed", (path: string) => flipByte(path), "Cannot trust the layer in"],
    ["gone", (path: string) => rmSync(path), "Cannot read the layer"],
  ])("does not pass on a file that was %s", async (what, harm, message) => {
    const layer = await writeLayer(someEntries(), options({ file: what })).done;
    harm(layer.path);
    const error = await read(layer).catch(String);
    expect(error).toContain(message);
    expect(error).toContain(layer.path);
  });

  test("stops reading when it is told to", async () => {
    const layer = await writeLayer(someEntries(), options({ file: "told" })).done;
    expect(await read(layer, AbortSignal.abort(new Error("enough"))).catch(String)).toBe("Error: enough");
  });
});

describe("retypeLayer()", () => {
  test("changes the media type only", async () => {
    const layer: Layer = {
      ...(await writeLayer(someEntries(), options({ file: "retyped" })).done),
      source: { host: "localhost", path: "a" },
    };
    const retyped = retypeLayer(layer, MEDIA_TYPES.dockerLayer);
    expect({ ...retyped, open: undefined }).toEqual({
      descriptor: { ...layer.descriptor, mediaType: MEDIA_TYPES.dockerLayer },
      diffId: layer.diffId,
      source: { host: "localhost", path: "a" },
      open: undefined,
    });
    expect(digestOf(await read(retyped))).toBe(layer.descriptor.digest);
  });
});

describe("measure()", () => {
  test("counts and hashes what it passes on", async () => {
    async function* source(): AsyncGenerator<Uint8Array> {
      yield Buffer.from("ab");
      yield Buffer.from("");
      yield Buffer.from("c");
    }
    const measured = measure(source());
    expect(Buffer.concat(await Array.fromAsync(measured)).toString()).toBe("abc");
    expect(measured.total()).toEqual({ size: 3, digest: digestOf(Buffer.from("abc")) });
  });
});

const FILE = { type: "file", mode: 0o555, mtime: 0, size: 0 } as const;

/** Over 4 MiB, so that workers take part; a pattern that does not compress to nothing. */
function someEntries(): readonly TarEntry[] {
  const content = Buffer.alloc(6_000_000);
  for (let i = 0; i < content.byteLength; i++) content[i] = (Math.imul(i, 2654435761) >>> 20) ^ (i >>> 12);
  return [
    { ...FILE, name: "ko-app", type: "directory" },
    { ...FILE, name: "/ko-app/a", size: content.byteLength, content },
  ];
}

function options({ file }: { readonly file: string }): WriteLayerOptions {
  return { file: join(folder, file), mediaType: MEDIA_TYPES.ociLayer, codec: FAST_GZIP, pool, signal };
}

async function read(layer: Layer, stop?: AbortSignal): Promise<Uint8Array> {
  return Buffer.concat(await Array.fromAsync(layer.open(stop)));
}

async function readStream(layer: BlobStream): Promise<Uint8Array> {
  return Buffer.concat(await Array.fromAsync(layer.read(signal)));
}

function flipByte(path: string): void {
  const bytes = readFileSync(path);
  const middle = bytes.byteLength >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}
