/**
 * Images in a tar: what `docker load`, podman, `ctr images import` and skopeo read.
 *
 * One archive is two things at once, over the same `blobs/sha256/…`: an OCI layout (`oci-layout`, `index.json`), which
 * keeps our digests, and what `docker save` writes (`manifest.json`), which old engines need (rules.md C2.7).
 *
 * https://github.com/opencontainers/image-spec/blob/main/image-layout.md
 *
 * It writes no files: see file.ts.
 */
import { KoError } from "./errors.ts";
import type { Built, Image } from "./image.ts";
import { compareBytes } from "./json.ts";
import { CONTAINERD_NAME, LAYOUT_VERSION, makeEntry, REF_NAME } from "./layout.ts";
import { type Descriptor, type Digest, hexOf, isForeignLayer, MEDIA_TYPES } from "./oci.ts";
import { DOCKER_HUB, formatReference, parseReference } from "./reference.ts";
import { packTar, type TarEntry } from "./tar.ts";

export interface ArchiveItem {
  readonly image: Image;
  /** Full references with a tag: `ko.local/web:latest`. */
  readonly names: readonly string[];
}

export interface PackArchiveOptions {
  /** Layers that the reader has: they are named, their bytes stay out. */
  readonly omit?: ReadonlySet<Digest>;
  readonly signal: AbortSignal;
}

export interface OciArchiveItem {
  readonly built: Built;
  /** Full references with a tag. */
  readonly names: readonly string[];
}

export interface PackOciArchiveOptions {
  readonly signal: AbortSignal;
}

/**
 * An archive that every runtime loads: each image under all its names, each blob once.
 *
 * The bytes depend on nothing but the images and their names: neither on the order of `items` nor on the clock.
 * Layers are opened when their turn comes; memory does not grow with them.
 *
 * @throws {KoError} If two images have one name, a name has no tag, or a layer cannot be read.
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
 * An OCI layout in a tar, with all platforms of each index. An archive of images alone is also one that `docker load`
 * takes, as {@link packArchive} makes it.
 *
 * Layers that may not be distributed stay out of an archive with an index, with their URLs in the manifest.
 *
 * @throws {KoError} If two images have one name, a name has no tag, or a layer cannot be read.
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

/** Each image once, with its names in order; images in the order of their first names. */
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

/** What names the images comes last: a stream that ends too early is no archive, and nobody tags what is in it. */
function* entriesOf(
  items: readonly OciArchiveItem[],
  isWanted: (layer: Descriptor) => boolean,
): Generator<TarEntry, void, void> {
  yield* blobEntries(items, isWanted);
  yield bytesEntry("oci-layout", encode({ imageLayoutVersion: LAYOUT_VERSION }));
  yield bytesEntry("index.json", encode(indexOf(items)));
  const images = items.flatMap(({ built, names }) => (built.kind === "image" ? [{ image: built, names }] : []));
  // Half of the images would be worse than none.
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

/**
 * The name under which containerd and Kubernetes know an image. They take names as they are, so that Docker Hub's must
 * be spelled out, and not as go-containerregistry does.
 *
 * @param name a reference with a tag
 * @throws {KoError} If it is none.
 */
export function containerdName(name: string): string {
  const reference = parseReference(name);
  // Docker cannot load what has no explicit tag (rules.md C2.10).
  if (reference.tag === undefined || !name.endsWith(`:${reference.tag}`)) {
    throw new KoError(`Cannot name an image "${name}" in an archive: a name with a tag is wanted`);
  }
  return formatReference(reference.host === DOCKER_HUB ? { ...reference, host: "docker.io" } : reference);
}

/** An entry of `manifest.json`, as `docker save` writes it. */
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

const FILE = { type: "file", mode: 0o644, mtime: 0 } as const;

function bytesEntry(name: string, content: Uint8Array): TarEntry {
  return { ...FILE, name, size: content.byteLength, content };
}

function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
