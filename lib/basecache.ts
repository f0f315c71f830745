/**
 * Manifests and configurations of base images, kept between runs under their digests: of a tag no more is asked than which
 * digest it has, of a digest nothing.
 */
import type { Cache } from "./cache.ts";
import { RegistryError } from "./errors.ts";
import { isObject } from "./gojson.ts";
import type { ImageSource } from "./image.ts";
import { type Descriptor, type Digest, hexOf, isDigest, MEDIA_TYPES } from "./oci.ts";

export interface BaseCacheOptions {
  readonly cache: Cache;
  /** What the source says of a tag without reading it; undefined if it says nothing. */
  readonly findTag: (tag: string) => Promise<Descriptor | undefined>;
}

/** The same source, asked for less. */
export function cacheBase(source: ImageSource, options: BaseCacheOptions): ImageSource {
  const { cache, findTag } = options;
  const known = (digest: Digest): Awaited<ReturnType<ImageSource["getManifest"]>> | undefined => {
    const descriptor = cache.read("manifest", hexOf(digest));
    const bytes = isDescriptor(descriptor) ? cache.readBytes(digest) : undefined;
    return bytes !== undefined && isDescriptor(descriptor) && descriptor.size === bytes.byteLength
      ? { descriptor, bytes }
      : undefined;
  };
  return {
    ...source,
    getManifest: async (reference, more = {}) => {
      const digest = isDigest(reference) ? reference : await askFor(reference, findTag);
      const found = digest === undefined ? undefined : known(digest);
      const { expected } = more;
      if (found !== undefined && (expected === undefined || isSame(found.descriptor, expected))) return found;
      const read = await source.getManifest(reference, more);
      const { mediaType, size } = read.descriptor;
      cache.keepBytes(read.bytes, read.descriptor.digest);
      cache.write("manifest", hexOf(read.descriptor.digest), { mediaType, size, digest: read.descriptor.digest });
      return read;
    },
    openBlob: (descriptor, signal) => {
      const { digest, mediaType } = descriptor;
      const isConfig = mediaType === MEDIA_TYPES.ociConfig || mediaType === MEDIA_TYPES.dockerConfig;
      return isConfig
        ? openConfig(digest, source.openBlob(descriptor, signal), cache)
        : source.openBlob(descriptor, signal);
    },
  };
}

/** A source that refuses says why when it is asked for the whole. */
async function askFor(tag: string, findTag: BaseCacheOptions["findTag"]): Promise<Digest | undefined> {
  try {
    return (await findTag(tag))?.digest;
  } catch (error) {
    if (error instanceof RegistryError) return undefined;
    throw error;
  }
}

async function* openConfig(
  digest: Digest,
  source: AsyncIterable<Uint8Array>,
  cache: Cache,
): AsyncGenerator<Uint8Array, void, void> {
  const kept = cache.readBytes(digest);
  if (kept !== undefined) {
    yield kept;
    return;
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) {
    chunks.push(new Uint8Array(chunk));
    yield chunk;
  }
  cache.keepBytes(Buffer.concat(chunks), digest);
}

function isSame(a: Descriptor, b: Descriptor): boolean {
  return a.digest === b.digest && a.size === b.size && a.mediaType === b.mediaType;
}

function isDescriptor(value: unknown): value is Descriptor {
  return isObject(value) && typeof value["mediaType"] === "string" && typeof value["size"] === "number";
}
