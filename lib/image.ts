/**
 * Images, indexes and layers as values: what a base is read as, what a build makes, what a publisher takes.
 *
 * Nothing here does I/O. A layer's bytes stay where they are (a file, a registry) until somebody opens it.
 */
import type { ImageConfig } from "./imageconfig.ts";
import type { Descriptor, Digest, IndexManifest, Manifest } from "./oci.ts";

/** Where a blob already is in a registry, so that another repository of the same registry can mount it. */
export interface BlobSource {
  /** `host[:port]` as in `Repository.host` of reference.ts. */
  readonly host: string;
  /** Repository path, such as `library/alpine`. */
  readonly path: string;
}

export interface Layer {
  readonly descriptor: Descriptor;
  /** Digest of the uncompressed tar. */
  readonly diffId: Digest;
  readonly source?: BlobSource;
  /**
   * The bytes that the descriptor describes, verified while they are read. Each call starts anew.
   */
  open(signal?: AbortSignal): AsyncIterable<Uint8Array>;
}

export interface Image {
  readonly kind: "image";
  /** Of the manifest: media type, size, digest. */
  readonly descriptor: Descriptor;
  /** The manifest's own bytes; its digest is `descriptor.digest`. */
  readonly bytes: Uint8Array;
  readonly manifest: Manifest;
  /** The configuration's own bytes; described by `manifest.config`. */
  readonly configBytes: Uint8Array;
  readonly config: ImageConfig;
  /** Same order as `manifest.layers`: the base's first. */
  readonly layers: readonly Layer[];
}

export interface Index {
  readonly kind: "index";
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
  readonly index: IndexManifest;
  /** Same order as `index.manifests`. */
  readonly children: readonly Image[];
}

/** What a build makes of one import path. */
export type Built = Image | Index;

/** Where a base is read from: a registry's repository, an OCI layout, or what ko makes itself. */
export interface ImageSource {
  /**
   * The bytes of an image manifest or an image index, verified, with media type, size and digest.
   *
   * @param reference a tag or a digest; empty means the only image of a source that has just one
   * @throws {KoError} If there is none of that name.
   */
  getManifest(
    reference: string,
    options?: { readonly expected?: Descriptor; readonly signal?: AbortSignal },
  ): Promise<{ readonly descriptor: Descriptor; readonly bytes: Uint8Array }>;
  /** The bytes that the descriptor describes, verified while they are read. */
  openBlob(descriptor: Descriptor, signal?: AbortSignal): AsyncIterable<Uint8Array>;
  /** Where the blobs are, if a registry can mount them from there. */
  readonly blobSource?: BlobSource;
}
