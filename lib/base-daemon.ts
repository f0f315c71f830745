/**
 * Reads a base image that only the daemon has: `ko.local/…`, from `ko build -L` or `docker build`.
 *
 * The tar of `docker save` is unpacked into an OCI layout in a temporary folder. Each file is stored under its digest
 * and its name is only looked up, so that no name leads out of the folder. Rules: docs/rules.md C2.17.
 */
import { mkdir, open, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Extract } from "tar-stream";
import { type CompressionPool, FAST_GZIP } from "./compress.ts";
import type { DockerEngine } from "./docker.ts";
import { BaseError, KoError, messageOf, printable } from "./errors.ts";
import { readChunks } from "./file.ts";
import type { ImageSource } from "./image.ts";
import { isObject, parseJson } from "./json.ts";
import { measure } from "./layer.ts";
import { blobPath, LAYOUT_VERSION, openLayout } from "./layout.ts";
import { readConfig } from "./oci-config.ts";
import {
  describe,
  type Descriptor,
  type Digest,
  encodeIndex,
  encodeManifest,
  isDigest,
  isIndexType,
  type Manifest,
  MAX_DOCUMENT_BYTES,
  MEDIA_TYPES,
  readIndex,
  readManifest,
} from "./oci.ts";

export interface OpenDaemonBaseOptions {
  /** An empty folder, which must exist as long as the base is used. */
  readonly folder: string;
  readonly pool: CompressionPool;
  /** True compresses layers that are plain tars, as the readers of a registry expect; false keeps all layers. */
  readonly compress: boolean;
  readonly signal: AbortSignal;
}

const DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar";
const OCI_TAR = "application/vnd.oci.image.layer.v1.tar";
/** The media types of compressed layers, by those of plain tars. */
const GZIP_TYPES: Readonly<Record<string, string>> = {
  [DOCKER_TAR]: MEDIA_TYPES.dockerLayer,
  [OCI_TAR]: MEDIA_TYPES.ociLayer,
};

/** An image has at most 127 layers, with three files each in the oldest form. */
const MAX_ENTRIES = 10_000;
/** 256 GiB: more would be a mistake, or an attack on the disk. */
const MAX_TOTAL_BYTES: number = 256 * 1024 ** 3;

/**
 * Reads an image from the daemon. The source returns its manifest or index for every tag.
 *
 * @param reference full, with a tag: `ko.local/app:latest`
 * @throws {KoError} If the daemon has no such image, or sends another one.
 */
export async function openDaemonBase(
  engine: DockerEngine,
  reference: string,
  options: OpenDaemonBaseOptions,
): Promise<ImageSource> {
  const { folder, signal } = options;
  const found = await engine.inspectImage(reference);
  if (found === undefined) {
    throw new BaseError(`Cannot use base "${reference}": ${engine.name} has no image of that name`, {
      transient: true,
      hint: "Build it first, with the same names: ko build -L IMPORTPATH; then see: docker images",
    });
  }
  await mkdir(join(folder, "blobs", "sha256"), { recursive: true });
  const files = await unpackBlobs(engine.saveImage(reference), { folder, subject: `base "${reference}"`, signal });
  const saved = new SavedImage(files, { ...options, reference });
  const root = (await saved.findOciRoot()) ?? (await saved.makeManifest());
  if (!root.ids.has(found.id)) {
    throw new BaseError(`Cannot use base "${reference}": ${engine.name} sent another image, wanted ${found.id}`, {
      transient: true,
      hint: "If it was rebuilt in the meantime, run ko again.",
    });
  }
  const index = encodeIndex({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: [root.descriptor] });
  await Bun.write(join(folder, "oci-layout"), JSON.stringify({ imageLayoutVersion: LAYOUT_VERSION }));
  await Bun.write(join(folder, "index.json"), index);
  const layout = openLayout(folder);
  return {
    getManifest: (wanted, more) => layout.getManifest(isDigest(wanted) ? wanted : "", more),
    openBlob: (descriptor, blobSignal) => layout.openBlob(descriptor, blobSignal ?? signal),
  };
}

interface Root {
  readonly descriptor: Descriptor;
  /** The IDs that the daemon may use for the image: digests of the index, manifests and configurations. */
  readonly ids: ReadonlySet<Digest>;
}

interface SavedImageOptions extends OpenDaemonBaseOptions {
  readonly reference: string;
}

/** The unpacked files of `docker save`, and the documents made from them. */
class SavedImage {
  readonly #files: UnpackedFiles;
  readonly #options: SavedImageOptions;
  readonly #compressed = new Map<Digest, Promise<Descriptor>>();

  constructor(files: UnpackedFiles, options: SavedImageOptions) {
    this.#files = files;
    this.#options = options;
  }

  /** The only image or index of the OCI layout in the tar; undefined if it is not a layout or has no whole image. */
  async findOciRoot(): Promise<Root | undefined> {
    const index = await this.#readByName("index.json");
    if (index === undefined) return undefined;
    const entries = readIndex(index, this.#subject("index.json")).manifests;
    const ids = new Set<Digest>();
    const roots: Descriptor[] = [];
    for (const entry of entries) {
      const root = await this.#copy(entry, ids);
      if (root !== undefined && !roots.some(({ digest }) => digest === root.digest)) roots.push(root);
    }
    const [root] = roots;
    if (root === undefined) return undefined;
    if (roots.length > 1) throw this.#fail(`the daemon sent ${roots.length} images for that name`);
    const { mediaType, size, digest } = root;
    return { descriptor: { mediaType, size, digest }, ids };
  }

  /** Makes a Docker manifest for the image in `manifest.json`: classic engines and podman write none. */
  async makeManifest(): Promise<Root> {
    const list = await this.#readByName("manifest.json");
    const entries = list === undefined ? undefined : this.#parse(list, "manifest.json");
    const [entry] = Array.isArray(entries) ? entries : [];
    if (!isObject(entry) || typeof entry["Config"] !== "string") {
      throw this.#fail("the daemon sent neither an OCI layout nor the manifest.json of docker save");
    }
    const file = this.#files.byName.get(entry["Config"]);
    if (file === undefined) throw this.#fail(`its configuration "${entry["Config"]}" is missing`);
    const bytes = await this.#read(file.digest);
    const config: Descriptor = { mediaType: MEDIA_TYPES.dockerConfig, size: file.size, digest: file.digest };
    const layers: Descriptor[] = [];
    for (const diffId of readConfig(bytes, this.#subject("the configuration")).rootfs.diff_ids) {
      const size = this.#files.sizes.get(diffId);
      if (size === undefined) throw this.#fail(`its layer ${diffId} is missing`);
      layers.push(await this.#compress({ mediaType: DOCKER_TAR, size, digest: diffId }));
    }
    const mediaType = MEDIA_TYPES.dockerManifest;
    const descriptor = await this.#write(mediaType, encodeManifest({ schemaVersion: 2, mediaType, config, layers }));
    return { descriptor, ids: new Set([file.digest]) };
  }

  /** The image or index of `entry`, with its layers compressed if wanted; undefined if parts of it are missing. */
  async #copy(entry: Descriptor, ids: Set<Digest>): Promise<Descriptor | undefined> {
    if (this.#files.sizes.get(entry.digest) === undefined) return undefined;
    const bytes = await this.#read(entry.digest);
    if (isIndexType(entry.mediaType)) return this.#copyIndex(entry, { bytes, ids });
    const what = this.#subject(`manifest ${entry.digest}`);
    const manifest = readManifest(bytes, what);
    const isWhole = [manifest.config, ...manifest.layers].every(({ digest }) => this.#files.sizes.has(digest));
    // An attestation is not an image.
    if (!isWhole || entry.platform?.os === "unknown") return undefined;
    ids.add(entry.digest);
    ids.add(manifest.config.digest);
    const layers: Descriptor[] = [];
    for (const layer of manifest.layers) layers.push(await this.#compress(layer));
    if (layers.every(({ digest }, i) => digest === manifest.layers[i]?.digest)) return entry;
    const copy: Manifest = { ...manifest, layers };
    return { ...entry, ...(await this.#write(entry.mediaType, encodeManifest(copy))) };
  }

  /** The index of the images that the daemon has; if that is one image, the image. */
  async #copyIndex(
    entry: Descriptor,
    { bytes, ids }: { readonly bytes: Uint8Array; readonly ids: Set<Digest> },
  ): Promise<Descriptor | undefined> {
    const index = readIndex(bytes, this.#subject(`index ${entry.digest}`));
    const images: Descriptor[] = [];
    for (const child of index.manifests) {
      const image = isIndexType(child.mediaType) ? undefined : await this.#copy(child, ids);
      if (image !== undefined) images.push(image);
    }
    const [only] = images;
    if (only === undefined) return undefined;
    ids.add(entry.digest);
    if (images.length === 1) return only;
    const isSame = images.length === index.manifests.length && images.every((one, i) => one === index.manifests[i]);
    if (isSame) return entry;
    return { ...entry, ...(await this.#write(entry.mediaType, encodeIndex({ ...index, manifests: images }))) };
  }

  /** The layer compressed, if it is a plain tar and compression is wanted. */
  #compress(layer: Descriptor): Promise<Descriptor> {
    const mediaType = GZIP_TYPES[layer.mediaType];
    if (!this.#options.compress || mediaType === undefined) return Promise.resolve(layer);
    const known = this.#compressed.get(layer.digest) ?? this.#gzip(layer.digest, mediaType);
    this.#compressed.set(layer.digest, known);
    return known;
  }

  async #gzip(digest: Digest, mediaType: string): Promise<Descriptor> {
    const { folder, pool, signal } = this.#options;
    const temporary = join(folder, `${digest.slice(-16)}.tmp`);
    const tar = readChunks(blobPath(folder, digest), { signal });
    const gzip = measure(pool.compress(tar, { codec: FAST_GZIP, signal }));
    const file = await open(temporary, "wx");
    try {
      for await (const chunk of gzip) await file.writeFile(chunk);
    } finally {
      await file.close();
    }
    const total = gzip.total();
    await rename(temporary, blobPath(folder, total.digest));
    return { mediaType, ...total };
  }

  async #write(mediaType: string, bytes: Uint8Array): Promise<Descriptor> {
    const descriptor = describe(mediaType, bytes);
    await Bun.write(blobPath(this.#options.folder, descriptor.digest), bytes);
    return descriptor;
  }

  async #readByName(name: string): Promise<Uint8Array | undefined> {
    const file = this.#files.byName.get(name);
    return file === undefined ? undefined : this.#read(file.digest);
  }

  async #read(digest: Digest): Promise<Uint8Array> {
    const size = this.#files.sizes.get(digest) ?? 0;
    if (size > MAX_DOCUMENT_BYTES) throw this.#fail(`${digest} has ${size} bytes, the limit is ${MAX_DOCUMENT_BYTES}`);
    return Bun.file(blobPath(this.#options.folder, digest)).bytes();
  }

  #parse(bytes: Uint8Array, part: string): unknown {
    const value = parseJson(new TextDecoder().decode(bytes));
    if (value === undefined) throw this.#fail(`its ${part} is not JSON`);
    return value;
  }

  #subject(part: string): string {
    return `${part} of base "${this.#options.reference}"`;
  }

  #fail(why: string): KoError {
    return new BaseError(`Cannot use base "${this.#options.reference}" from the daemon: ${why}`);
  }
}

interface UnpackedFile {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

interface UnpackedFiles {
  /** By the name in the tar. */
  readonly byName: ReadonlyMap<string, UnpackedFile>;
  /** Bytes, by digest. */
  readonly sizes: ReadonlyMap<Digest, number>;
}

interface UnpackOptions {
  /** The folder of an OCI layout, with `blobs/sha256`. */
  readonly folder: string;
  /** The image's name in errors. */
  readonly subject: string;
  readonly signal: AbortSignal;
}

/**
 * Unpacks the regular files of a tar, each as a blob. Links are not followed: their targets are unpacked anyway.
 *
 * @throws {KoError} If the bytes are not a tar, end early or are too many, or a file cannot be written.
 */
async function unpackBlobs(archive: AsyncIterable<Uint8Array>, options: UnpackOptions): Promise<UnpackedFiles> {
  const { folder, signal, subject } = options;
  const fail = (why: string, cause?: unknown): KoError =>
    new BaseError(`Cannot read ${subject} from the daemon: ${why}`, { cause });
  const { extract } = await import("tar-stream");
  const byName = new Map<string, UnpackedFile>();
  const sizes = new Map<Digest, number>();
  const entries = extract();
  let sourceFailure: unknown;
  const feeding = feed(archive, entries).catch((error: unknown) => {
    sourceFailure = error;
    entries.destroy(error instanceof Error ? error : new Error(messageOf(error)));
  });
  let count = 0;
  let total = 0;
  try {
    for await (const entry of entries) {
      signal.throwIfAborted();
      const { name, type, size } = entry.header;
      total += size;
      if (++count > MAX_ENTRIES) throw fail(`it has more than ${MAX_ENTRIES} files`);
      if (total > MAX_TOTAL_BYTES)
        throw fail(`"${printable(name, 100)}" makes it larger than ${MAX_TOTAL_BYTES} bytes`);
      if (type !== "file") {
        entry.resume();
        continue;
      }
      const file = await writeBlob(entry, { folder, name: `${count}.tmp` });
      sizes.set(file.digest, file.size);
      // The first file of a name counts: docker save never writes two.
      if (!byName.has(name)) byName.set(name, file);
    }
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof KoError) throw error;
    if (sourceFailure instanceof KoError) throw sourceFailure;
    throw fail(messageOf(error), error);
  } finally {
    entries.destroy();
    await feeding;
  }
  return { byName, sizes };
}

/** Writes a tar to the unpacker. Returns early, without an error, if the unpacker is destroyed. */
async function feed(archive: AsyncIterable<Uint8Array>, entries: Extract): Promise<void> {
  const closed = new Promise<void>((resolve) => void entries.once("close", resolve));
  for await (const chunk of archive) {
    if (entries.destroyed) return;
    if (entries.write(chunk)) continue;
    await Promise.race([new Promise<void>((resolve) => void entries.once("drain", resolve)), closed]);
  }
  if (!entries.destroyed) entries.end(null);
}

async function writeBlob(
  source: AsyncIterable<unknown>,
  { folder, name }: { readonly folder: string; readonly name: string },
): Promise<UnpackedFile> {
  const temporary = join(folder, name);
  const hash = new Bun.CryptoHasher("sha256");
  let size = 0;
  const handle = await open(temporary, "wx");
  try {
    for await (const chunk of source) {
      if (!(chunk instanceof Uint8Array)) throw new TypeError("a tar gives bytes");
      hash.update(chunk);
      size += chunk.byteLength;
      await handle.writeFile(chunk);
    }
  } finally {
    await handle.close();
  }
  const digest: Digest = `sha256:${hash.digest("hex")}`;
  await rename(temporary, blobPath(folder, digest));
  return { digest, size };
}
