/**
 * Bases in registries: what earlier runs have read is not read again. Manifests, configurations and the digests of tags are
 * kept by every run, layers by `ko base pull`.
 */
import { join } from "node:path";
import { type Cache, keyOf } from "./cache.ts";
import { KoError, RegistryError } from "./errors.ts";
import { readChunks, writeWhole } from "./file.ts";
import type { ImageSource } from "./image.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";
import { type Descriptor, type Digest, hexOf, isDigest, MEDIA_TYPES } from "./oci.ts";
import { formatRepository, type Repository } from "./reference.ts";
import type { Registry } from "./registry.ts";

/** The requests for a base in a registry. */
export interface RegistryReader extends Pick<Registry, "findManifest" | "getManifest" | "openBlob"> {
  /** Where a repository is read: in a mirror, perhaps. @default the repository itself */
  readonly placeOf?: (repository: Repository) => Repository;
}

export interface RegistrySourceOptions {
  readonly reference: Repository;
  /** Keeps manifests, configurations and layers between runs. @default the registry is asked for all of them */
  readonly cache: Cache | undefined;
  /** Whether the registry may not be asked: then everything is from the cache. @default false */
  readonly isOffline?: boolean;
  readonly log: Log;
  readonly now: () => Date;
}

/** The digest that a tag had. */
interface TagRecord {
  readonly digest: Digest;
  /** Milliseconds since 1970. */
  readonly read: number;
}

/** The kinds of the cache's records. */
const [MANIFEST, TAG] = ["manifest", "base-tag"];
/** A record of a tag is written anew after this time, so that its age can be told. */
const TAG_AGE_MS = 24 * 3600 * 1000;

/** The images of a repository, as bases. */
export function registrySource(registry: RegistryReader, options: RegistrySourceOptions): ImageSource {
  const { cache, isOffline = false, reference } = options;
  const source: ImageSource = {
    getManifest: (name, more) => registry.getManifest(reference, name, more),
    openBlob: (descriptor, signal) => registry.openBlob(reference, descriptor, signal),
    get blobSource() {
      const { host, path } = registry.placeOf?.(reference) ?? reference;
      return { host, path };
    },
  };
  if (cache === undefined) {
    if (isOffline) throw new KoError("Cannot use --offline without the cache: KOCACHE is off, or cannot be used");
    return source;
  }
  return new CachedSource(source, { ...options, cache, isOffline, registry });
}

interface CachedSourceOptions extends RegistrySourceOptions {
  readonly cache: Cache;
  readonly isOffline: boolean;
  readonly registry: RegistryReader;
}

/**
 * Reads less of a source: for a tag it is asked only for the digest, for a digest not at all. Offline it is never asked: a tag
 * has the digest that it had last.
 */
class CachedSource implements ImageSource {
  readonly #source: ImageSource;
  readonly #options: CachedSourceOptions;

  constructor(source: ImageSource, options: CachedSourceOptions) {
    this.#source = source;
    this.#options = options;
  }

  get blobSource(): ImageSource["blobSource"] {
    return this.#source.blobSource;
  }

  async getManifest(
    reference: string,
    more: Parameters<ImageSource["getManifest"]>[1] = {},
  ): ReturnType<ImageSource["getManifest"]> {
    const { cache, isOffline } = this.#options;
    const digest = isDigest(reference) ? reference : await this.#findDigest(reference);
    const found = digest === undefined ? undefined : this.#known(digest);
    const { expected } = more;
    if (found !== undefined && (expected === undefined || isSame(found.descriptor, expected))) return found;
    if (isOffline) throw this.#missing(isDigest(reference) ? `@${reference}` : `:${reference}`);
    const read = await this.#source.getManifest(reference, more);
    const { mediaType, size } = read.descriptor;
    cache.keepBytes(read.bytes, read.descriptor.digest);
    cache.write(MANIFEST, hexOf(read.descriptor.digest), { mediaType, size, digest: read.descriptor.digest });
    // The tag may have moved since its digest was read.
    if (!isDigest(reference) && read.descriptor.digest !== digest) this.#keepTag(reference, read.descriptor.digest);
    return read;
  }

  async *openBlob(descriptor: Descriptor, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
    const { cache, isOffline } = this.#options;
    const { digest, mediaType, size } = descriptor;
    const isConfig = mediaType === MEDIA_TYPES.ociConfig || mediaType === MEDIA_TYPES.dockerConfig;
    if (isConfig) {
      const kept = cache.readBytes(digest);
      if (kept !== undefined) {
        yield kept;
        return;
      }
    } else if (cache.has({ digest, size })) {
      const file = await cache.take({ digest, size }, signal);
      if (file !== undefined) {
        yield* readChunks(file, { signal });
        return;
      }
    }
    if (isOffline) throw this.#missing(`@${digest}`);
    if (!isConfig) {
      yield* this.#source.openBlob(descriptor, signal);
      return;
    }
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.#source.openBlob(descriptor, signal)) {
      chunks.push(new Uint8Array(chunk));
      yield chunk;
    }
    cache.keepBytes(Buffer.concat(chunks), digest);
  }

  /** The digest of a tag. Undefined if the source refuses: the request for the manifest then reports why. */
  async #findDigest(tag: string): Promise<Digest | undefined> {
    const { isOffline, reference, registry } = this.#options;
    if (isOffline) return this.#recallTag(tag);
    try {
      const digest = (await registry.findManifest(reference, tag))?.digest;
      if (digest !== undefined) this.#keepTag(tag, digest);
      return digest;
    } catch (error) {
      if (error instanceof RegistryError) return undefined;
      throw error;
    }
  }

  #recallTag(tag: string): Digest | undefined {
    const { cache, log, reference } = this.#options;
    const record = cache.read(TAG, this.#tagKey(tag));
    if (!isTagRecord(record)) return undefined;
    const day = new Date(record.read).toISOString().slice(0, 10);
    log.info(`Offline: ${formatRepository(reference)}:${tag} is the image that it was on ${day}, ${record.digest}`);
    return record.digest;
  }

  #keepTag(tag: string, digest: Digest): void {
    const { cache, now } = this.#options;
    const before = cache.read(TAG, this.#tagKey(tag));
    const read = now().getTime();
    if (isTagRecord(before) && before.digest === digest && read - before.read < TAG_AGE_MS) return;
    cache.write(TAG, this.#tagKey(tag), { digest, read } satisfies TagRecord);
  }

  #tagKey(tag: string): string {
    const { host, path } = this.#options.reference;
    return keyOf([host, path, tag]);
  }

  #known(digest: Digest): Awaited<ReturnType<ImageSource["getManifest"]>> | undefined {
    const { cache } = this.#options;
    const record = cache.read(MANIFEST, hexOf(digest));
    const bytes = isDescriptor(record) ? cache.readBytes(digest) : undefined;
    if (bytes === undefined || !isDescriptor(record) || record.size !== bytes.byteLength) return undefined;
    // The bytes have that digest, whatever the record says.
    return { descriptor: { mediaType: record.mediaType, size: bytes.byteLength, digest }, bytes };
  }

  /** @param part the tag or the digest, with its sign */
  #missing(part: string): KoError {
    const name = formatRepository(this.#options.reference);
    return new KoError(`Cannot read "${name}${part}" with --offline: the cache does not have it`, {
      hint: 'Type "ko base pull" while there is a network: it keeps the base images of the configuration.',
    });
  }
}

/**
 * Keeps the layers of a base, so that a later run needs no network for it.
 *
 * @param layer its bytes are verified while they are read
 * @returns the number of bytes that were read; 0 if the cache has the layer
 * @throws {KoError} If the layer cannot be read or kept.
 */
export async function keepLayer(
  layer: { readonly descriptor: Descriptor; open(signal?: AbortSignal): AsyncIterable<Uint8Array> },
  { cache, signal }: { readonly cache: Cache; readonly signal: AbortSignal },
): Promise<number> {
  const { digest, size } = layer.descriptor;
  if (cache.has({ digest, size })) return 0;
  const file = join(await cache.work(), `pulled-${hexOf(digest)}`);
  await writeWhole(file, layer.open(signal), signal);
  if (cache.keep(file, digest) === undefined) {
    throw new KoError(`Cannot keep layer ${digest} in the cache: it is larger than the cache, or the disk is full`, {
      hint: "Set KO_CACHE_MAX to a larger size, such as 20GB.",
    });
  }
  return size;
}

function isSame(a: Descriptor, b: Descriptor): boolean {
  return a.digest === b.digest && a.size === b.size && a.mediaType === b.mediaType;
}

function isDescriptor(value: unknown): value is Descriptor {
  return isObject(value) && typeof value["mediaType"] === "string" && typeof value["size"] === "number";
}

function isTagRecord(value: unknown): value is TagRecord {
  if (!isObject(value)) return false;
  const { digest, read } = value;
  return typeof digest === "string" && isDigest(digest) && typeof read === "number";
}
