import { describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { keepLayer, registrySource } from "../lib/base-registry.ts";
import type { Cache } from "../lib/cache.ts";
import { RegistryError } from "../lib/errors.ts";
import type { Image, ImageSource, Index } from "../lib/image.ts";
import { type Descriptor, type Digest, digestOf, MEDIA_TYPES, verified } from "../lib/oci.ts";
import { silentLog } from "../lib/log.ts";
import { parseReference } from "../lib/reference.ts";
import { failureOf, rejectionOf } from "./helpers/failures.ts";
import { randomImage, randomIndex } from "./helpers/images.ts";
import { type CacheBox, makeCacheBox } from "./helpers/world-cache.ts";

const TAG = "latest";
const NOW = new Date("2026-11-30T12:00:00Z");
const image = await randomImage();
const index = await randomIndex();

const REFERENCE = parseReference("registry.example/base");

/** A registry with one base under {@link TAG}, and the requests it got. */
interface TestRegistry {
  readonly asked: string[];
  base: Image | Index;
  /** The failure of the next requests for the descriptor of the tag. */
  refusal: Error | undefined;
}

/** The base in a new run. */
function openBase(registry: TestRegistry, cache: Cache | undefined, isOffline = false): ImageSource {
  return registrySource(
    {
      getManifest: async (repository, reference) => {
        registry.asked.push(`GET ${short(reference)}`);
        expect(repository).toBe(REFERENCE);
        const found = [registry.base, ...childrenOf(registry.base)].find(({ descriptor }) => {
          return reference === TAG || descriptor.digest === reference;
        });
        if (found === undefined) throw new Error(`no ${reference}`);
        return { descriptor: found.descriptor, bytes: found.bytes };
      },
      openBlob: async function* (_repository, descriptor) {
        registry.asked.push(`BLOB ${short(descriptor.digest)}`);
        const found = childrenOf(registry.base).find(({ manifest }) => manifest.config.digest === descriptor.digest);
        yield* verified(oneChunk(found?.configBytes ?? new Uint8Array()), descriptor, "a blob");
      },
      findManifest: async (_repository, tag) => {
        registry.asked.push(`HEAD ${tag}`);
        if (registry.refusal !== undefined) throw registry.refusal;
        return registry.base.descriptor;
      },
    },
    { reference: REFERENCE, cache, log: silentLog, now: () => NOW, isOffline },
  );
}

describe("registrySource()", () => {
  test("reads everything from the registry without a cache", async () => {
    const registry = serve(image);
    const source = openBase(registry, undefined);
    for (let run = 0; run < 2; run++) {
      expect((await readAll(source, TAG)).bytes).toEqual(Buffer.from(image.bytes));
      expect(take(registry)).toEqual(["GET latest", `BLOB ${short(image.manifest.config.digest)}`]);
    }
    expect(source.blobSource).toEqual({ host: "registry.example", path: "base" });
  });

  test("asks for the digest of a known tag and for nothing else; of a digest it asks nothing", async () => {
    using box = makeCacheBox();
    const registry = serve(image);
    await using cache = box.open();
    const first = await readAll(openBase(registry, cache), TAG);
    expect(take(registry)).toEqual(["HEAD latest", "GET latest", `BLOB ${short(image.manifest.config.digest)}`]);
    await using later = box.open();
    const source = openBase(registry, later);
    expect(await readAll(source, TAG)).toEqual(first);
    expect(take(registry)).toEqual(["HEAD latest"]);
    expect(await readAll(source, image.descriptor.digest)).toEqual(first);
    expect(take(registry)).toEqual([]);
    expect(first.bytes).toEqual(Buffer.from(image.bytes));
    expect(source.blobSource).toEqual({ host: "registry.example", path: "base" });
  });

  test("keeps an index and the images that were wanted of it", async () => {
    using box = makeCacheBox();
    const registry = serve(index);
    const [child] = index.children;
    if (child === undefined) throw new Error("no child");
    for (const asked of [["HEAD latest", "GET latest", `GET ${short(child.descriptor.digest)}`], ["HEAD latest"]]) {
      await using cache = box.open();
      const source = openBase(registry, cache);
      await source.getManifest(TAG);
      const read = await source.getManifest(child.descriptor.digest, { expected: child.descriptor });
      expect(Buffer.from(read.bytes)).toEqual(Buffer.from(child.bytes));
      expect(take(registry)).toEqual(asked);
    }
  });

  test("reads anew when the tag moves, and knows the old one if it moves back", async () => {
    using box = makeCacheBox();
    const registry = serve(image);
    await using cache = box.open();
    const source = openBase(registry, cache);
    await source.getManifest(TAG);
    registry.base = await randomImage({ seed: "new" });
    expect((await source.getManifest(TAG)).descriptor).toEqual(registry.base.descriptor);
    registry.base = image;
    expect((await source.getManifest(TAG)).descriptor).toEqual(image.descriptor);
    expect(take(registry)).toEqual(["HEAD latest", "GET latest", "HEAD latest", "GET latest", "HEAD latest"]);
  });

  test.each<[string, (cache: Cache, digest: Digest) => void]>([
    ["changed", (cache, digest) => writeFileSync(cache.path(digest), "!", { flag: "r+" })],
    ["empty", (cache, digest) => writeFileSync(cache.path(digest), "")],
    ["removed", (cache, digest) => rmSync(cache.path(digest))],
    ["without a record", (cache, digest) => cache.remove("manifest", digest.slice(7))],
    ["recorded with another size", (cache, digest) => writeRecord(cache, digest, { size: 1 })],
    ["recorded as nonsense", (cache, digest) => cache.write("manifest", digest.slice(7), "nonsense")],
  ])("a kept manifest that is %s costs one read", async (_, harm) => {
    using box = makeCacheBox();
    const registry = serve(image);
    const { digest } = image.descriptor;
    await keepAll(box, registry);
    await using cache = box.open();
    harm(cache, digest);
    for (const asked of [[`GET ${short(digest)}`], []]) {
      expect((await readAll(openBase(registry, cache), digest)).bytes).toEqual(Buffer.from(image.bytes));
      expect(take(registry)).toEqual(asked);
    }
  });

  test("a kept configuration that is damaged costs one read", async () => {
    using box = makeCacheBox();
    const registry = serve(image);
    await keepAll(box, registry);
    await using cache = box.open();
    const { digest } = image.manifest.config;
    writeFileSync(cache.path(digest), "damaged");
    for (const asked of [[`BLOB ${short(digest)}`], []]) {
      const { config } = await readAll(openBase(registry, cache), image.descriptor.digest);
      expect(config).toEqual(Buffer.from(image.configBytes));
      expect(take(registry)).toEqual(asked);
    }
  });

  test("keeps nothing of a configuration that is not read to its end", async () => {
    using box = makeCacheBox();
    const registry = serve(image);
    await using cache = box.open();
    const source = openBase(registry, cache);
    for await (const _ of source.openBlob(image.manifest.config)) break;
    expect(cache.readBytes(image.manifest.config.digest)).toBeUndefined();
  });

  test("leaves layers where they are", async () => {
    using box = makeCacheBox();
    const registry = serve(image);
    await using cache = box.open();
    const [layer] = image.layers;
    if (layer === undefined) throw new Error("no layer");
    const failed = Array.fromAsync(openBase(registry, cache).openBlob(layer.descriptor));
    await rejectionOf(failed);
    expect(take(registry)).toEqual([`BLOB ${short(layer.descriptor.digest)}`]);
    expect(cache.readBytes(layer.descriptor.digest)).toBeUndefined();
  });

  test("does not take a kept manifest for another descriptor of the same digest", async () => {
    using box = makeCacheBox();
    const registry = serve(image);
    await keepAll(box, registry);
    await using cache = box.open();
    const expected = { ...image.descriptor, mediaType: MEDIA_TYPES.dockerManifest };
    await openBase(registry, cache).getManifest(image.descriptor.digest, { expected });
    expect(take(registry)).toEqual([`GET ${short(image.descriptor.digest)}`]);
  });

  describe("offline", () => {
    test("a tag is the image that it was last, and nothing is asked", async () => {
      using box = makeCacheBox();
      const registry = serve(image);
      const first = await keepAll(box, registry);
      await using cache = box.open();
      expect(await readAll(openBase(registry, cache, true), TAG)).toEqual(first);
      expect(take(registry)).toEqual([]);
    });

    test("follows the tag of the last run that asked", async () => {
      using box = makeCacheBox();
      const registry = serve(await randomImage({ seed: "old" }));
      await using earlier = box.open();
      await openBase(registry, earlier).getManifest(TAG);
      registry.base = image;
      const first = await keepAll(box, registry);
      await using cache = box.open();
      expect(await readAll(openBase(registry, cache, true), TAG)).toEqual(first);
    });

    test("has the layers that were kept, and says what is missing", async () => {
      using box = makeCacheBox();
      const registry = serve(image);
      await keepAll(box, registry);
      await using cache = box.open();
      const [layer] = image.layers;
      if (layer === undefined) throw new Error("no layer");
      const offline = openBase(registry, cache, true);
      const missing = await failureOf(Array.fromAsync(offline.openBlob(layer.descriptor)));
      expect(missing).toMatchObject({
        message: `Cannot read "registry.example/base@${layer.descriptor.digest}" with --offline: the cache does not have it`,
        hint: 'Type "ko base pull" while there is a network: it keeps the base images of the configuration.',
      });
      const signal = new AbortController().signal;
      expect(await keepLayer(layer, { cache, signal })).toBe(layer.descriptor.size);
      expect(await keepLayer(layer, { cache, signal })).toBe(0);
      const bytes = Buffer.concat(await Array.fromAsync(offline.openBlob(layer.descriptor)));
      expect(digestOf(bytes)).toBe(layer.descriptor.digest);
      writeFileSync(cache.path(layer.descriptor.digest), "damaged");
      await failureOf(Array.fromAsync(offline.openBlob(layer.descriptor)));
      expect(take(registry)).toEqual([]);
    });

    test("wants a cache, and a tag that was read", async () => {
      using box = makeCacheBox();
      const registry = serve(image);
      await using cache = box.open();
      expect((await failureOf(openBase(registry, cache, true).getManifest(TAG))).message).toBe(
        'Cannot read "registry.example/base:latest" with --offline: the cache does not have it',
      );
      expect(() => openBase(registry, undefined, true)).toThrow("Cannot use --offline without the cache");
    });
  });

  test("lets the whole request say why a tag cannot be had", async () => {
    using box = makeCacheBox();
    const registry = serve(image);
    await using cache = box.open();
    registry.refusal = new RegistryError("403", { method: "HEAD", url: "https://registry.example/", status: 403 });
    expect((await openBase(registry, cache).getManifest(TAG)).descriptor).toEqual(image.descriptor);
    expect(take(registry)).toEqual(["HEAD latest", "GET latest"]);
    registry.refusal = new RangeError("a fault of ours");
    expect(await rejectionOf(openBase(registry, cache).getManifest(TAG))).toBe(registry.refusal);
  });
});

function serve(base: Image | Index): TestRegistry {
  return { asked: [], base, refusal: undefined };
}

function childrenOf(base: Image | Index): readonly Image[] {
  return base.kind === "index" ? base.children : [base];
}

function short(reference: string): string {
  return reference.slice(0, 14);
}

async function* oneChunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** The requests since the last call. */
function take(registry: TestRegistry): readonly string[] {
  return registry.asked.splice(0);
}

interface Read {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
  readonly config: Buffer;
}

async function readAll(source: ImageSource, reference: string): Promise<Read> {
  const { descriptor, bytes } = await source.getManifest(reference);
  const config = Buffer.concat(await Array.fromAsync(source.openBlob(image.manifest.config)));
  return { descriptor, bytes: Buffer.from(bytes), config };
}

async function keepAll(box: CacheBox, registry: TestRegistry): ReturnType<typeof readAll> {
  await using cache = box.open();
  const read = await readAll(openBase(registry, cache), TAG);
  take(registry);
  return read;
}

function writeRecord(cache: Cache, digest: Digest, changes: Partial<Descriptor>): void {
  expect(digestOf(image.bytes)).toBe(digest);
  cache.write("manifest", digest.slice(7), { ...image.descriptor, ...changes });
}
