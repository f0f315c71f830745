import { afterAll, describe, expect, test } from "bun:test";
import { once } from "node:events";
import { gunzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { readBase } from "../lib/base.ts";
import { DockerEngine } from "../lib/docker.ts";
import { openDaemonBase } from "../lib/base-daemon.ts";
import { socketEndpoint } from "../lib/docker-host.ts";
import { loadImage } from "../lib/publish-local.ts";
import { packArchive } from "../lib/archive.ts";
import { describeError } from "../lib/errors.ts";
import { CompressionPool } from "../lib/compress.ts";
import type { Image, Layer } from "../lib/image.ts";
import { silentLog } from "../lib/log.ts";
import { type Digest, digestOf, hexOf, MEDIA_TYPES } from "../lib/oci.ts";
import { packTar, type TarEntry } from "../lib/tar.ts";
import { type DaemonKind, type TestDaemon, tryStartDaemon } from "./helpers/daemon.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { makeImage, randomImage } from "./helpers/images.ts";
import { makeFolder } from "./helpers/world-folders.ts";

const stack = new AsyncDisposableStack();
afterAll(() => stack.disposeAsync());
const daemons = new Map<DaemonKind, TestDaemon>();
for (const kind of ["classic", "graph", "containerd", "podman"] as const) {
  const daemon = await tryStartDaemon(kind);
  if (daemon !== undefined) daemons.set(kind, stack.use(daemon));
}
const pool = stack.use(new CompressionPool({ workers: 1 }));
const signal = new AbortController().signal;
const TAR = "application/vnd.oci.image.layer.v1.tar";

async function bytesOf(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

/** The image with the first `count` layers as plain tars, as a build for a daemon makes its own. */
async function withPlainLayers(image: Image, count: number): Promise<Image> {
  const layers = await Promise.all(
    image.layers.map(async (layer, i): Promise<Layer> => {
      if (i >= count) return layer;
      const tar = new Uint8Array(gunzipSync(await bytesOf(layer.open())));
      const descriptor = { mediaType: TAR, size: tar.byteLength, digest: layer.diffId };
      const open = async function* (): AsyncGenerator<Uint8Array, void, void> {
        yield tar;
      };
      return { descriptor, diffId: layer.diffId, open };
    }),
  );
  return makeImage({ config: image.config, layers, format: "oci", annotations: {} });
}

interface ReadOptions {
  readonly folder: string;
  readonly compress: boolean;
}

/** As a build reads it. */
async function readImage(engine: DockerEngine, name: string, options: ReadOptions): Promise<Image> {
  const source = await openDaemonBase(engine, name, { ...options, pool, signal });
  const base = await readBase(source, { spec: { kind: "layout", path: "/", tag: undefined }, shown: name, signal });
  return base.image();
}

/** The digests of the layers' tars. */
async function unpackedDigests(image: Image): Promise<readonly Digest[]> {
  return Promise.all(
    image.layers.map(async (layer) => {
      const bytes = await bytesOf(layer.open());
      return digestOf(bytes[0] === 0x1f ? new Uint8Array(gunzipSync(bytes)) : bytes);
    }),
  );
}

describe.each(["classic", "graph", "containerd", "podman"] as const)(
  "openDaemonBase() of a real daemon: %s",
  (kind) => {
    const daemon = daemons.get(kind);
    const endpoint = socketEndpoint(daemon?.socket ?? "", { source: "the test" });

    test.skipIf(daemon === undefined).each([
      ["compressed", true],
      ["as it is", false],
    ])("gives the image that was loaded, %s", async (_name, compress) => {
      await using folder = await makeFolder();
      await using engine = await DockerEngine.open(endpoint, { log: silentLog, signal });
      const image = await withPlainLayers(await randomImage({ seed: `base-${compress}`, layers: 3 }), 2);
      const name = `ko.local/base:${hexOf(image.descriptor.digest)}`;
      await loadImage(engine, image, [name], { log: silentLog, signal });
      const read = await readImage(engine, name, { folder: folder.path, compress });
      expect(read.configBytes).toEqual(image.configBytes);
      expect(await unpackedDigests(read)).toEqual(image.layers.map(({ diffId }) => diffId));
      // A classic store keeps no compressed layers, and old engines and podman write no OCI manifest.
      const isOci = kind === "containerd" || kind === "graph";
      const gzip = isOci ? MEDIA_TYPES.ociLayer : MEDIA_TYPES.dockerLayer;
      const plain = compress ? gzip : isOci ? TAR : "application/vnd.docker.image.rootfs.diff.tar";
      expect(read.layers.map(({ descriptor }) => descriptor.mediaType)).toEqual([
        plain,
        plain,
        kind === "containerd" ? gzip : plain,
      ]);
      if (kind === "containerd" && !compress) expect(read.descriptor).toEqual(image.descriptor);
    });

    test.skipIf(daemon === undefined)("gives an image with the same layer twice", async () => {
      await using folder = await makeFolder();
      await using engine = await DockerEngine.open(endpoint, { log: silentLog, signal });
      const { layers, config } = await randomImage({ seed: "twice", layers: 1 });
      const [layer] = layers;
      if (layer === undefined) throw new Error("an image without layers");
      const twice = {
        ...config,
        history: [],
        rootfs: { ...config.rootfs, diff_ids: [layer.diffId, layer.diffId] },
      };
      const image = makeImage({ config: twice, layers: [layer, layer], format: "oci", annotations: {} });
      const name = `ko.local/twice:${hexOf(image.descriptor.digest)}`;
      await loadImage(engine, image, [name], { log: silentLog, signal });
      const read = await readImage(engine, name, { folder: folder.path, compress: false });
      expect(await unpackedDigests(read)).toEqual([layer.diffId, layer.diffId]);
    });

    test.skipIf(daemon === undefined)("says how to get an image that is not there", async () => {
      await using folder = await makeFolder();
      await using engine = await DockerEngine.open(endpoint, { log: silentLog, signal });
      const error = await rejectionOf(
        readImage(engine, "ko.local/none:latest", { folder: folder.path, compress: false }),
      );
      expect(describeError(error)).toContain(
        `Cannot use base "ko.local/none:latest": ${engine.name} has no image of that name\n  Build it first`,
      );
    });
  },
);

/** The image that is read from a daemon whose `docker save` sends `entries`. */
async function readSaved(id: Digest, entries: readonly TarEntry[] | AsyncIterable<Uint8Array>): Promise<Image> {
  await using folder = await makeFolder();
  await using place = await makeFolder();
  const tar = await bytesOf(Symbol.asyncIterator in entries ? entries : packTar(entries, { signal }));
  const socket = `${place.path}/fake.sock`;
  const server = Bun.serve({
    unix: socket,
    fetch: (request) => {
      const { pathname } = new URL(request.url);
      if (pathname === "/_ping") return new Response("OK", { headers: { "api-version": "1.41" } });
      if (pathname.endsWith("/json")) return Response.json({ Id: id });
      return new Response(tar);
    },
  });
  try {
    await using engine = await DockerEngine.open(socketEndpoint(socket, { source: "the test" }), {
      log: silentLog,
      signal,
    });
    const image = await readImage(engine, "ko.local/app:1", { folder: folder.path, compress: false });
    await unpackedDigests(image);
    return image;
  } finally {
    await server.stop(true);
  }
}

function entry(name: string, content: Uint8Array | string): TarEntry {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  return { name, type: "file", mode: 0o644, mtime: 0, size: bytes.byteLength, content: bytes };
}

describe("openDaemonBase() of a strange archive", () => {
  const other: Digest = `sha256:${"a".repeat(64)}`;

  test("a manifest or configuration of another image is refused", async () => {
    const image = await randomImage();
    const archive = packArchive([{ image, names: ["ko.local/app:1"] }], { signal });
    const error = await rejectionOf(readSaved(other, archive));
    expect(describeError(error)).toContain(`sent another image, wanted ${other}\n  If it was rebuilt in the meantime`);
  });

  test("names that lead out of the folder lead nowhere", async () => {
    const image = await withPlainLayers(await randomImage({ layers: 1 }), 1);
    const [layer] = image.layers;
    if (layer === undefined) throw new Error("an image without layers");
    const evil = "../../../../../../tmp/ko-test-evil";
    const list = [{ Config: evil, RepoTags: ["ko.local/app:1"], Layers: ["/etc/passwd"] }];
    const read = await readSaved(image.manifest.config.digest, [
      entry(evil, image.configBytes),
      entry("/etc/shadow-of-ko", await bytesOf(layer.open())),
      entry("manifest.json", JSON.stringify(list)),
    ]);
    expect(read.configBytes).toEqual(image.configBytes);
    expect(await Bun.file("/tmp/ko-test-evil").exists()).toBe(false);
    expect(await Bun.file("/etc/shadow-of-ko").exists()).toBe(false);
  });

  test.each([
    ["nothing", [], "neither an OCI layout nor the manifest.json of docker save"],
    ["a manifest.json that is no JSON", [entry("manifest.json", "{")], "its manifest.json is not JSON"],
    ["no configuration", [entry("manifest.json", '[{"Config":"x.json"}]')], 'its configuration "x.json" is missing'],
    [
      "a missing layer",
      [
        entry("manifest.json", '[{"Config":"x.json"}]'),
        entry("x.json", JSON.stringify({ rootfs: { type: "layers", diff_ids: [other] } })),
      ],
      `its layer ${other} is missing`,
    ],
  ])("%s is refused", async (_name, entries, message) => {
    expect(describeError(await rejectionOf(readSaved(other, entries)))).toContain(message);
  });

  test("of two files with one name the first counts, and links are not followed", async () => {
    const image = await withPlainLayers(await randomImage({ layers: 1 }), 1);
    const [layer] = image.layers;
    if (layer === undefined) throw new Error("an image without layers");
    const list = (config: string): string => JSON.stringify([{ Config: config, RepoTags: [], Layers: ["layer.tar"] }]);
    const link = {
      name: "layer.tar",
      type: "symlink",
      mode: 0o777,
      mtime: 0,
      size: 0,
      linkName: "/etc/passwd",
    } as const;
    const read = await readSaved(image.manifest.config.digest, [
      link,
      entry("real.tar", await bytesOf(layer.open())),
      entry("config.json", image.configBytes),
      entry("manifest.json", list("config.json")),
      entry("manifest.json", list("other.json")),
      entry("config.json", "{}"),
    ]);
    expect(read.configBytes).toEqual(image.configBytes);
  });

  test("an archive with too many files is refused", async () => {
    const folders = Array.from({ length: 10_001 }, (_, i): TarEntry => {
      return { name: `${i}`, type: "directory", mode: 0o755, mtime: 0, size: 0 };
    });
    const error = await rejectionOf(readSaved(other, folders));
    expect(describeError(error)).toContain("it has more than 10000 files");
  });

  test("an archive with too many bytes is refused before they are read", async () => {
    const header = async function* (): AsyncGenerator<Uint8Array, void, void> {
      const tar = pack();
      tar.entry({ name: "huge", size: 300 * 1024 ** 3 });
      const [bytes]: unknown[] = await once(tar, "data");
      tar.destroy();
      if (bytes instanceof Uint8Array) yield bytes;
    };
    const error = await rejectionOf(readSaved(other, header()));
    expect(describeError(error)).toContain('"huge" makes it larger than 274877906944 bytes');
  });

  test("a truncated archive is refused", async () => {
    const image = await randomImage();
    const archive = packArchive([{ image, names: ["ko.local/app:1"] }], { signal });
    const half = async function* (): AsyncGenerator<Uint8Array, void, void> {
      yield (await bytesOf(archive)).subarray(0, 7000);
    };
    const error = await rejectionOf(readSaved(image.descriptor.digest, half()));
    expect(describeError(error)).toContain('Cannot read base "ko.local/app:1" from the daemon: ');
  });
});
