/**
 * Images, indexes and layers as values, and how ko makes them: base image, kodata layer and program layer become an
 * image, images of several platforms become an index.
 *
 * The configuration is byte-equal to that of the original ko v0.19.1 under `TZ=UTC` (docs/rules.md D3, D4). Nothing here
 * does I/O: the bytes of a layer stay in a file or a registry until `open()` is called.
 */
import type { Compression } from "./compress.ts";
import { KoError } from "./errors.ts";
import { type ContainerSettings, type DebugSettings, makeConfig } from "./image-config.ts";
import { encodeConfig, type ImageConfig } from "./oci-config.ts";
import {
  describe,
  type Descriptor,
  type Digest,
  encodeIndex,
  encodeManifest,
  type IndexManifest,
  type Manifest,
  MEDIA_TYPES,
  type Platform,
} from "./oci.ts";

/** A repository that has a blob. Other repositories of the same registry can mount the blob from it. */
export interface BlobSource {
  /** `host[:port]` as in `Repository.host` of reference.ts. */
  readonly host: string;
  /** The repository's path, such as `library/alpine`. */
  readonly path: string;
}

/** A layer or a configuration, as content with a descriptor. */
export interface Blob {
  readonly descriptor: Descriptor;
  readonly source?: BlobSource;
  /** Returns the bytes. Each call starts at the first byte. */
  open(signal?: AbortSignal): AsyncIterable<Uint8Array>;
}

/** A blob that is an archive of files. Its bytes are verified while they are read. */
export interface Layer extends Blob {
  /** The digest of the uncompressed tar. */
  readonly diffId: Digest;
  /**
   * Proves that content of an earlier run is that of {@link Layer.diffId}, where it need not be read: the place has a blob
   * of that digest. Whatever reads the whole content proves it too. @default the content was made in this run
   *
   * @throws {KoError} If it is other content.
   */
  readonly prove?: (signal?: AbortSignal) => Promise<void>;
}

/** A blob that is still being made: its size and digest are known at its end. */
export interface BlobStream<T extends Blob = Blob> {
  /**
   * Returns the bytes as they are made. Each call starts at the first byte.
   *
   * If making the blob fails, the bytes end early and `done` rejects. A reader may stop early: `signal` ends the wait
   * for more. A slow reader may slow down the blob, but must not stop it. The memory of a chunk is never reused.
   */
  read(signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** The complete blob. Rejects if making it fails. */
  readonly done: Promise<T>;
}

export interface Image {
  readonly kind: "image";
  /** The descriptor of the manifest. */
  readonly descriptor: Descriptor;
  /** The manifest as it is pushed. */
  readonly bytes: Uint8Array;
  readonly manifest: Manifest;
  /** The configuration as it is pushed; its descriptor is `manifest.config`. */
  readonly configBytes: Uint8Array;
  readonly config: ImageConfig;
  /** In the order of `manifest.layers`: those of the base first. */
  readonly layers: readonly Layer[];
}

export interface Index {
  readonly kind: "index";
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
  readonly index: IndexManifest;
  /** In the order of `index.manifests`. */
  readonly children: readonly Image[];
}

/** The result of building one import path. */
export type Built = Image | Index;

/** A source of base images: a repository, an OCI layout, a daemon, or ko itself. */
export interface ImageSource {
  /**
   * Returns the bytes of a manifest or an index, verified, and their descriptor.
   *
   * @param reference a tag or a digest; "" for the only image of a source that has one
   * @throws {KoError} If the source has no such manifest.
   */
  getManifest(
    reference: string,
    options?: { readonly expected?: Descriptor; readonly signal?: AbortSignal },
  ): Promise<{ readonly descriptor: Descriptor; readonly bytes: Uint8Array }>;
  /** Returns the bytes of a blob. They are verified while they are read. */
  openBlob(descriptor: Descriptor, signal?: AbortSignal): AsyncIterable<Uint8Array>;
  /** The repository to mount the blobs from, if the source is a registry. */
  readonly blobSource?: BlobSource | undefined;
}

/** Receives one image for one place, such as a repository of a registry. Made before the image is built. */
export interface ImageSink {
  /**
   * Takes a layer that is still being made, and may send its bytes at once. Nothing refers to them before `publish()`.
   *
   * Never throws: if the layer cannot be sent, `publish()` tries again and reports the failure.
   *
   * @param hint.changed an earlier run made this layer with other content, so the place cannot have it yet
   */
  addLayer(layer: BlobStream, hint: { readonly changed: boolean }): void;
  /**
   * Stores the complete image under its digest, without a tag, if the place can: its `publish()` then only moves tags.
   *
   * @throws {KoError} If a part cannot be stored.
   */
  store?(image: Built): Promise<void>;
  /**
   * Stores the complete image and then moves its tags.
   *
   * @throws {KoError} If a part cannot be stored. No tag is moved then.
   */
  publish(image: Built, hint: PublishHint): Promise<Published>;
}

/** How an image was made. */
export interface PublishHint {
  /** No part of the image was built in this run, so the place probably has it. */
  readonly reused: boolean;
  /** The import path of the program. */
  readonly importPath: string;
  /** One for the image, or for each image of the index, in its order. */
  readonly contents: readonly ImageContent[];
}

/** The platform and the programs of one image. */
export interface ImageContent {
  /** The platform that the image was built for. */
  readonly platform: Platform;
  /** Absolute paths of the programs in the image, the user's first. The files stay until the run ends. */
  readonly files: readonly string[];
}

/** The names of a published image. */
export interface Published {
  /** The place had the image already. @default false */
  readonly wasThere?: boolean;
  /** The reference to print, or to put into YAML. */
  readonly reference: string;
  /** The lines for `--image-refs`: the image, or the index and each of its images. */
  readonly all: readonly string[];
  /** The references in the places of `--also-push`. @default none */
  readonly also?: readonly string[];
}

export interface AssembleImageOptions {
  readonly importPath: string;
  /** `windows` has other paths than all other systems. */
  readonly os: string;
  /** The absolute path of the program in the image, with `/` on all systems. */
  readonly programPath: string;
  /** The files of `$KO_DATA_PATH`. */
  readonly kodata: Layer;
  /** The program. */
  readonly program: Layer;
  /** Delve, which starts the program. @default the program starts itself */
  readonly debugger?: ImageDebugger | undefined;
  readonly container: ContainerSettings;
  /** Annotations of the manifest. They replace those of the base with the same key. */
  readonly annotations: Readonly<Record<string, string>>;
  /** Seconds since 1970, for the image and the history entry of the program; undefined keeps the base's date. */
  readonly created: number | undefined;
  /** Seconds since 1970, for the history entry of the kodata layer. */
  readonly kodataCreated: number | undefined;
}

/** Delve in an image. */
export interface ImageDebugger extends DebugSettings {
  /** The file `debuggerPath()` of image-config.ts. */
  readonly layer: Layer;
}

export interface IndexChild {
  /** The entry of the base index that `image` was built on. */
  readonly entry: Descriptor;
  readonly image: Image;
}

/** Media types of layers, by the base's media type and the kind of compression. */
const LAYER_TYPES: Readonly<Record<string, Readonly<Partial<Record<Compression["kind"], string>>>>> = {
  [MEDIA_TYPES.ociManifest]: {
    gzip: MEDIA_TYPES.ociLayer,
    zstd: MEDIA_TYPES.ociZstdLayer,
    none: MEDIA_TYPES.ociTarLayer,
  },
  [MEDIA_TYPES.dockerManifest]: { gzip: MEDIA_TYPES.dockerLayer, none: MEDIA_TYPES.dockerTarLayer },
};

/** Adds the layers to a base image, and makes the configuration that starts the program. */
export function assembleImage(base: Image, options: AssembleImageOptions): Image {
  const { debugger: delve, kodata, program } = options;
  const layers = [kodata, program, ...(delve === undefined ? [] : [delve.layer])];
  const diffIds = layers.map(({ diffId }) => diffId);
  const config = makeConfig(base.config, { ...options, diffIds });
  const configBytes = encodeConfig(config);
  const { config: baseConfig } = base.manifest;
  const manifest: Manifest = {
    ...base.manifest,
    config: {
      ...baseConfig,
      ...describe(baseConfig.mediaType, configBytes),
      ...(baseConfig.data === undefined ? {} : { data: Buffer.from(configBytes).toString("base64") }),
    },
    layers: [...base.manifest.layers, ...layers.map(({ descriptor }) => descriptor)],
    annotations: { ...base.manifest.annotations, ...options.annotations },
  };
  const bytes = encodeManifest(manifest);
  return {
    kind: "image",
    descriptor: describe(base.descriptor.mediaType, bytes),
    bytes,
    manifest,
    configBytes,
    config,
    layers: [...base.layers, ...layers],
  };
}

/**
 * Makes an index of platform images.
 *
 * @param children in the order of the base index
 * @param options.mediaType that of the base index: OCI index or Docker list
 */
export function assembleIndex(
  children: readonly IndexChild[],
  options: { readonly mediaType: string; readonly annotations: Readonly<Record<string, string>> },
): Index {
  const index: IndexManifest = {
    schemaVersion: 2,
    mediaType: options.mediaType,
    manifests: children.map(({ entry, image }) => ({
      mediaType: entry.mediaType,
      size: image.descriptor.size,
      digest: image.descriptor.digest,
      ...(entry.urls === undefined ? {} : { urls: entry.urls }),
      ...(entry.annotations === undefined ? {} : { annotations: entry.annotations }),
      ...(entry.platform === undefined ? {} : { platform: entry.platform }),
      artifactType: image.manifest.artifactType ?? image.manifest.config.mediaType,
    })),
    annotations: options.annotations,
  };
  const bytes = encodeIndex(index);
  return {
    kind: "index",
    descriptor: describe(options.mediaType, bytes),
    bytes,
    index,
    children: children.map(({ image }) => image),
  };
}

/** Returns the file name of a program in its image: the last element of the import path, if that is a name. */
export function appName(importPath: string): string {
  const last = importPath.replace(/\/+$/, "").split("/").at(-1) ?? "";
  return last === "" || last === "." ? "ko-app" : last;
}

/** Returns the path of a program in its image, with `/` on all systems. @param binary of its entry in `builds` */
export function programPathOf(importPath: string, binary?: string): string {
  return binary ?? `/ko-app/${appName(importPath)}`;
}

/**
 * Returns the media type of layers to add to a base. Registries refuse images that mix OCI and Docker types.
 *
 * @param mediaType the media type of the base's manifest
 * @param options.base the base in errors, as the user named it
 * @throws {KoError} If the base is neither an OCI nor a Docker image, or Docker has no type for the compression.
 */
export function layerTypeFor(
  mediaType: string,
  { compression, base }: { readonly compression: Compression; readonly base: string },
): string {
  const family = LAYER_TYPES[mediaType];
  if (family === undefined) {
    throw new KoError(
      `Cannot build on base "${base}": its media type is "${mediaType}", an OCI or Docker image is wanted`,
    );
  }
  const type = family[compression.kind];
  if (type !== undefined) return type;
  throw new KoError(
    `Cannot use --compression=${compression.kind} on base "${base}": it has Docker media types, OCI ones are wanted`,
    {
      hint: "Use --compression=gzip, or another base: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.",
    },
  );
}

/** Returns the platform of an image's configuration. `linux` and `amd64` stand for a missing part. */
export function platformOf(image: Image): {
  os: string;
  architecture: string;
  variant?: string;
  "os.version"?: string;
} {
  const { os, architecture, variant } = image.config;
  const version = image.config["os.version"];
  return {
    os: os || "linux",
    architecture: architecture || "amd64",
    ...(variant ? { variant } : {}),
    ...(version ? { "os.version": version } : {}),
  };
}
