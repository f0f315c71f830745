/**
 * Packs images into a tar for `docker load`, podman, `ctr images import` and skopeo.
 *
 * The tar is an OCI layout, which keeps the digests, and has a `manifest.json` as `docker save` writes it over the same
 * `blobs/sha256/`, which old engines need (docs/rules.md C2.7). file.ts writes it to a file.
 *
 * https://github.com/opencontainers/image-spec/blob/main/image-layout.md
 */
import { KoError } from "./errors.ts";
import type { Built, Image } from "./image.ts";
import { compareBytes } from "./json.ts";
import { CONTAINERD_NAME, LAYOUT_VERSION, makeEntry, REF_NAME } from "./layout.ts";
import { type Descriptor, type Digest, hexOf, isForeignLayer, MEDIA_TYPES } from "./oci.ts";
import { formatDaemonReference, parseReference } from "./reference.ts";
import { packTar, type TarEntry } from "./tar.ts";

export interface ArchiveItem {
  readonly image: Image;
  /** Full references with tags: `ko.local/web:latest`. */
  readonly names: readonly string[];
}

export interface PackArchiveOptions {
  /** Layers that the reader has already: the archive lists them without their bytes. */
  readonly omit?: ReadonlySet<Digest>;
  readonly signal: AbortSignal;
}

export interface OciArchiveItem {
  readonly built: Built;
  /** Full references with tags. */
  readonly names: readonly string[];
}

export interface PackOciArchiveOptions {
  readonly signal: AbortSignal;
}

const FILE = { type: "file", mode: 0o644, mtime: 0 } as const;

/**
 * Packs images into an archive that every runtime loads: each image under all its names, each blob once.
 *
 * The bytes depend only on the images and their names, not on the order of `items` (docs/rules.md D7.3). One layer is
 * open at a time, and it is streamed.
 *
 * @throws {KoError} If two images have the same name, a name has no tag, or a layer cannot be read.
 */
export function packArchive(
  items: readonly ArchiveItem[],
  options: PackArchiveOptions,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  const { omit = new Set(), signal } = options;
  const images = collect(items.map(({ image, names }) => ({ built: image, names })));
  return packTar(
    entriesOf(images, (layer) => !omit.has(layer.digest)),
    { signal },
  );
}

/**
 * Packs images and indexes, with all platforms, into an OCI layout in a tar. Without an index the bytes are those of
 * {@link packArchive}; with one there is no `manifest.json`.
 *
 * An archive with an index has no foreign layers: the manifest has their URLs.
 *
 * @throws {KoError} If two images have the same name, a name has no tag, or a layer cannot be read.
 */
export function packOciArchive(
  items: readonly OciArchiveItem[],
  options: PackOciArchiveOptions,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  const all = collect(items);
  const isWanted = all.every(({ built }) => built.kind === "image")
    ? () => true
    : (layer: Descriptor) => !isForeignLayer(layer.mediaType);
  return packTar(entriesOf(all, isWanted), options);
}

/**
 * The name of an image in containerd and Kubernetes, in which Docker Hub is spelled out: `docker.io/library/app:v1`.
 *
 * @param name a reference with a tag
 * @throws {KoError} If the name is not valid or has no tag.
 */
export function containerdName(name: string): string {
  const reference = parseReference(name);
  // Docker cannot load a name without an explicit tag (docs/rules.md C2.10).
  if (reference.tag === undefined || !name.endsWith(`:${reference.tag}`)) {
    throw new KoError(`Cannot name an image "${name}" in an archive: a name with a tag is wanted`);
  }
  return formatDaemonReference(reference);
}

/** Each image once, in the order of their first names, with sorted names. */
function collect(items: readonly OciArchiveItem[]): readonly OciArchiveItem[] {
  const byName = new Map<string, Built>();
  const byDigest = new Map<Digest, { readonly built: Built; readonly names: Set<string> }>();
  for (const { built, names } of items) {
    const entry = byDigest.get(built.descriptor.digest) ?? { built, names: new Set() };
    byDigest.set(built.descriptor.digest, entry);
    for (const name of names) {
      const other = byName.get(name);
      if (other !== undefined && other.descriptor.digest !== built.descriptor.digest) {
        throw new KoError(`Cannot put two images into one archive as "${name}": a name can stand for one image only`);
      }
      byName.set(name, built);
      entry.names.add(name);
    }
  }
  return Array.from(byDigest.values(), ({ built, names }) => ({ built, names: [...names].sort(compareBytes) })).sort(
    (a, b) => compareBytes(orderKey(a), orderKey(b)),
  );
}

function orderKey({ built, names }: OciArchiveItem): string {
  return `${names[0] ?? ""} ${built.descriptor.digest}`;
}

/** The entries of the tar. The files with the names come last: no reader tags the images of an incomplete archive. */
function* entriesOf(
  items: readonly OciArchiveItem[],
  isWanted: (layer: Descriptor) => boolean,
): Generator<TarEntry, void, void> {
  yield* blobEntries(items, isWanted);
  yield bytesEntry("oci-layout", encode({ imageLayoutVersion: LAYOUT_VERSION }));
  yield bytesEntry("index.json", encode(indexOf(items)));
  const images = items.flatMap(({ built, names }) => (built.kind === "image" ? [{ image: built, names }] : []));
  // It cannot list an index, and a list without it would hide the index from docker load.
  if (images.length === items.length) yield bytesEntry("manifest.json", encode(images.map(savedEntry)));
}

function indexOf(items: readonly OciArchiveItem[]): unknown {
  const manifests = items.flatMap(({ built, names }) =>
    names.length === 0
      ? [makeEntry(built, {})]
      : names.map((name) => makeEntry(built, { [CONTAINERD_NAME]: containerdName(name), [REF_NAME]: name })),
  );
  return { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests };
}

/** The entry of an image in `manifest.json`, as `docker save` writes it. */
function savedEntry({ image, names }: ArchiveItem): unknown {
  const foreign = image.layers.filter(({ descriptor }) => isForeignLayer(descriptor.mediaType));
  return {
    Config: blobName(image.manifest.config.digest),
    RepoTags: names,
    Layers: image.layers.map(({ descriptor }) => blobName(descriptor.digest)),
    ...(foreign.length === 0
      ? {}
      : { LayerSources: Object.fromEntries(foreign.map(({ diffId, descriptor }) => [diffId, descriptor])) }),
  };
}

function* blobEntries(
  items: readonly OciArchiveItem[],
  isWanted: (layer: Descriptor) => boolean,
): Generator<TarEntry, void, void> {
  const done = new Set<Digest>();
  const isNew = ({ digest }: Descriptor): boolean => {
    if (done.has(digest)) return false;
    done.add(digest);
    return true;
  };
  for (const { built } of items) {
    if (isNew(built.descriptor)) yield bytesEntry(blobName(built.descriptor.digest), built.bytes);
    for (const image of built.kind === "image" ? [built] : built.children) {
      if (isNew(image.descriptor)) yield bytesEntry(blobName(image.descriptor.digest), image.bytes);
      const { config } = image.manifest;
      if (isNew(config)) yield bytesEntry(blobName(config.digest), image.configBytes);
      for (const layer of image.layers) {
        const { descriptor } = layer;
        if (!isWanted(descriptor) || !isNew(descriptor)) continue;
        yield { ...FILE, name: blobName(descriptor.digest), size: descriptor.size, content: layer };
      }
    }
  }
}

function bytesEntry(name: string, content: Uint8Array): TarEntry {
  return { ...FILE, name, size: content.byteLength, content };
}

function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
