/**
 * Small but complete images for tests: real layers that can be unpacked, real digests, any platform.
 *
 * The content depends on `seed` alone, so that a test that fails does so again.
 */
import type { ProgramRecord } from "../../lib/events-metadata.ts";
import type { Content, ResultEvent } from "../../lib/events.ts";
import type { Image, Index, Layer, PublishHint } from "../../lib/image.ts";
import { type ContainerConfig, encodeConfig, type ImageConfig } from "../../lib/oci-config.ts";
import {
  describe,
  type Descriptor,
  digestOf,
  encodeIndex,
  encodeManifest,
  type Manifest,
  MEDIA_TYPES,
  type Platform,
  verified,
} from "../../lib/oci.ts";
import { packTar, type TarEntry } from "../../lib/tar.ts";

/** The hints for an image that was built in this run, and for one that was not. */
export const NEW: PublishHint = { reused: false, importPath: "example.com/app", contents: [] };
export const REUSED: PublishHint = { ...NEW, reused: true };

export interface RandomImageOptions {
  /** Two images of one seed are the same image. @default "seed" */
  readonly seed?: string;
  /** @default linux/amd64 */
  readonly platform?: Platform;
  /** How many layers. @default 2 */
  readonly layers?: number;
  /** Bytes of the file in each layer, random and so not compressible. @default 3000 */
  readonly fileSize?: number;
  /** @default "oci" */
  readonly format?: "oci" | "docker";
  readonly config?: ContainerConfig;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface MakeImageOptions {
  readonly config: ImageConfig;
  readonly layers: readonly Layer[];
  readonly format: "oci" | "docker";
  readonly annotations: Readonly<Record<string, string>>;
}

export interface DaemonImageOptions {
  /** Images of one base share its layers. @default "base" */
  readonly base?: string;
  /** Of the program's layer: another seed is another program. */
  readonly seed: string;
  /** Bytes of the program. @default 3000 */
  readonly fileSize?: number;
}

/** An image whose layer `i` holds `/data/<seed>-<i>`. */
export async function randomImage(options: RandomImageOptions = {}): Promise<Image> {
  const { seed = "seed", platform = { os: "linux", architecture: "amd64" }, format = "oci" } = options;
  const layerType = format === "oci" ? MEDIA_TYPES.ociLayer : MEDIA_TYPES.dockerLayer;
  const layers: Layer[] = [];
  for (let i = 0; i < (options.layers ?? 2); i++) {
    const content = randomBytes(`${seed}-${i}`, options.fileSize ?? 3000);
    layers.push(
      await makeLayer(
        [
          { name: "data", type: "directory", mode: 0o755, mtime: 0, size: 0 },
          { name: `data/${seed}-${i}`, type: "file", mode: 0o644, mtime: 0, size: content.byteLength, content },
        ],
        layerType,
      ),
    );
  }
  const config: ImageConfig = {
    architecture: platform.architecture,
    created: "2020-01-02T03:04:05Z",
    history: layers.map((_, i) => ({ created: "2020-01-02T03:04:05Z", created_by: `layer ${i} of ${seed}` })),
    os: platform.os,
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
    config: options.config ?? { Env: ["PATH=/bin"], Entrypoint: [`/data/${seed}-0`] },
    ...(platform.variant === undefined ? {} : { variant: platform.variant }),
    ...(platform["os.version"] === undefined ? {} : { "os.version": platform["os.version"] }),
  };
  return makeImage({ config, layers, format, annotations: options.annotations ?? {} });
}

/** An index of one {@link randomImage} per platform. */
export async function randomIndex(
  options: RandomImageOptions & { readonly platforms?: readonly Platform[] } = {},
): Promise<Index> {
  const platforms = options.platforms ?? [
    { os: "linux", architecture: "amd64" },
    { os: "linux", architecture: "arm64", variant: "v8" },
  ];
  const seed = options.seed ?? "seed";
  const children = await Promise.all(
    platforms.map((platform) => {
      const name = [platform.os, platform.architecture, platform.variant ?? ""].join("");
      return randomImage({ ...options, seed: `${seed}-${name}`, platform });
    }),
  );
  const index = {
    schemaVersion: 2,
    mediaType: options.format === "docker" ? MEDIA_TYPES.dockerList : MEDIA_TYPES.ociIndex,
    manifests: children.map(({ descriptor }, i): Descriptor => {
      const platform = platforms[i];
      return { ...descriptor, ...(platform === undefined ? {} : { platform }) };
    }),
    annotations: options.annotations ?? {},
  };
  const bytes = encodeIndex(index);
  return { kind: "index", descriptor: describe(index.mediaType, bytes), bytes, index, children };
}

/** The image with this configuration and these layers. */
export function makeImage({ config, layers, format, annotations }: MakeImageOptions): Image {
  const configBytes = encodeConfig(config);
  const mediaType = format === "oci" ? MEDIA_TYPES.ociManifest : MEDIA_TYPES.dockerManifest;
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType,
    config: describe(format === "oci" ? MEDIA_TYPES.ociConfig : MEDIA_TYPES.dockerConfig, configBytes),
    layers: layers.map(({ descriptor }) => descriptor),
    annotations,
  };
  const bytes = encodeManifest(manifest);
  const descriptor = describe(mediaType, bytes);
  return { kind: "image", descriptor, bytes, manifest, configBytes, config, layers };
}

/** A gzip layer in memory. */
export async function makeLayer(
  entries: readonly TarEntry[],
  mediaType: string = MEDIA_TYPES.ociLayer,
): Promise<Layer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of packTar(entries, { signal: new AbortController().signal })) chunks.push(chunk);
  const tar = new Uint8Array(Buffer.concat(chunks));
  const bytes = Bun.gzipSync(tar, { level: 1, library: "libdeflate" });
  const descriptor = describe(mediaType, bytes);
  return {
    descriptor,
    diffId: digestOf(tar),
    open: () => verified(inChunks(bytes), descriptor, `layer ${descriptor.digest}`),
  };
}

/** `size` bytes that depend on `seed` alone. */
export function randomBytes(seed: string, size: number): Uint8Array {
  const result = new Uint8Array(size);
  for (let at = 0, i = 0; at < size; at += 32, i++) {
    const block = new Bun.CryptoHasher("sha256").update(`${seed} ${i}`).digest();
    result.set(block.subarray(0, Math.min(32, size - at)), at);
  }
  return result;
}

/** An image as a build makes it for a daemon: two layers of a base, and one of its own whose digest is its diffID. */
export async function daemonImage({ base = "base", seed, fileSize = 3000 }: DaemonImageOptions): Promise<Image> {
  const under = await randomImage({ seed: base });
  const own = await randomImage({ seed, layers: 1, fileSize });
  const layers = [...under.layers, ...(await Promise.all(own.layers.map(uncompressed)))];
  const config = {
    ...under.config,
    history: layers.map(() => ({ created: "2020-01-02T03:04:05Z" })),
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  };
  return makeImage({ config, layers, format: "oci", annotations: {} });
}

/** Several chunks, as a file or a network gives them. */
async function* inChunks(bytes: Uint8Array, size = 1000): AsyncGenerator<Uint8Array, void, void> {
  for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size);
}

async function uncompressed(layer: Layer): Promise<Layer> {
  const tar = new Uint8Array(Bun.gunzipSync(Buffer.concat(await Array.fromAsync(layer.open()))));
  const descriptor = describe("application/vnd.oci.image.layer.v1.tar", tar);
  return {
    descriptor,
    diffId: digestOf(tar),
    open: () => verified(inChunks(tar, 65_536), descriptor, `layer ${descriptor.digest}`),
  };
}

/** The result of a program: one image of 3 MB, whose digests are made of the import path. */
export function resultOf(importPath: string): ResultEvent {
  const content = (part: string, size: number): Content => ({
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    digest: digestOf(new TextEncoder().encode(`${part} of ${importPath}`)),
    size,
  });
  const manifest = content("manifest", 500);
  const layers = [1e6, 2e6].map((size) => ({ ...content(`layer ${size}`, size), diffId: manifest.digest }));
  const why = { reason: "changed", file: "main.go" };
  return {
    type: "result",
    importPath,
    reference: `r.example/${importPath.slice(importPath.lastIndexOf("/") + 1)}@${manifest.digest}`,
    descriptor: manifest,
    images: [{ platform: "linux/amd64", manifest, config: content("config", 1).digest, layers, why }],
    wasThere: false,
  };
}

/** All that a run has reported of a program. */
export function programOf(
  importPath: string,
  { isPublished }: { readonly isPublished: boolean } = { isPublished: true },
): ProgramRecord {
  const image = `r.example/${importPath.slice(importPath.lastIndexOf("/") + 1)}`;
  return {
    program: { type: "program", importPath, image, tags: ["latest"], platforms: ["linux/amd64"], base: "scratch" },
    result: isPublished ? resultOf(importPath) : undefined,
    sboms: [],
    stages: new Map(),
    took: 1500,
  };
}
