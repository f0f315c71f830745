/**
 * Base images: read from a registry, an OCI layout or ko itself, each at most once per run, never more than is needed.
 *
 * A base's layers stay where they are until a publisher has to copy them.
 *
 * Manifests and configurations of base images, kept between runs under their digests: of a tag no more is asked than which
 * digest it has, of a digest nothing.
 */
import type { Cache } from "./cache.ts";
import type { BaseName } from "./config.ts";
import { KoError, RegistryError } from "./errors.ts";
import { type Image, type ImageSource, type Layer, platformOf } from "./image.ts";
import { isObject } from "./json.ts";
import { readConfig } from "./oci-config.ts";
import {
  type Descriptor,
  type Digest,
  formatPlatform,
  hexOf,
  isDigest,
  isIndexType,
  isManifestType,
  MEDIA_TYPES,
  type Platform,
  readDocument,
  readIndex,
  readManifest,
} from "./oci.ts";
import { formatName, formatReference } from "./reference.ts";

export interface Base {
  /** For people: the name with the digest that was found. */
  readonly text: string;
  /** For `org.opencontainers.image.base.name`; undefined where there is no name that others could use. */
  readonly name: string | undefined;
  /** Of the manifest or index that the name points to; undefined for `scratch`. */
  readonly digest: Digest | undefined;
  readonly mediaType: string;
  /** Entries of the index, in its order; undefined where the base is a single image. */
  readonly entries: readonly Descriptor[] | undefined;
  /** The image of an entry, or of a single-image base. Read once. */
  image(entry?: Descriptor): Promise<Image>;
}

/** One platform that is to be built on a base. */
export interface BasePlatform {
  readonly platform: Platform;
  /** The entry of the base's index; undefined for a single-image base. */
  readonly entry: Descriptor | undefined;
  image(): Promise<Image>;
}

/**
 * Reads what `reference` names in `source`: one manifest or index. Platform images are read when asked for.
 *
 * @param spec decides names; `shown` is what people call it
 * @throws {KoError} If it is no image that can be built on.
 */
export async function readBase(
  source: ImageSource,
  options: { readonly spec: BaseName; readonly shown: string; readonly signal: AbortSignal },
): Promise<Base> {
  const { spec, shown, signal } = options;
  const reference =
    spec.kind === "registry" ? (spec.reference.digest ?? spec.reference.tag) : spec.kind === "layout" ? spec.tag : "";
  const { descriptor, bytes } = await source.getManifest(reference ?? "", { signal });
  const { mediaType, digest } = descriptor;
  const images = new Map<Digest, Promise<Image>>();
  const image = (entry: Descriptor | undefined): Promise<Image> => {
    const key = entry?.digest ?? digest;
    const known = images.get(key);
    if (known !== undefined) return known;
    const read =
      entry === undefined
        ? readImage(source, { descriptor, bytes }, { shown, signal })
        : source
            .getManifest(entry.digest, { expected: entry, signal })
            .then((manifest) => readImage(source, manifest, { shown: `${shown} for ${platformText(entry)}`, signal }));
    images.set(key, read);
    return read;
  };
  if (!isIndexType(mediaType) && !isManifestType(mediaType)) {
    throw new KoError(`Cannot use base "${shown}": its media type is "${mediaType}", an image or an index is wanted`);
  }
  return {
    text: spec.kind === "scratch" || spec.kind === "layout" || shown.includes("@") ? shown : `${shown}@${digest}`,
    name:
      spec.kind === "registry" ? formatName(spec.reference) : spec.kind === "builtin" ? `${shown}:latest` : undefined,
    digest: spec.kind === "scratch" ? undefined : digest,
    mediaType,
    entries: isIndexType(mediaType) ? readIndex(bytes, `base "${shown}"`).manifests : undefined,
    image,
  };
}

interface ReadImageOptions {
  readonly shown: string;
  readonly signal: AbortSignal;
}

async function readImage(
  source: ImageSource,
  { descriptor, bytes }: { readonly descriptor: Descriptor; readonly bytes: Uint8Array },
  { shown, signal }: ReadImageOptions,
): Promise<Image> {
  const manifest = readManifest(bytes, `manifest of base "${shown}"`);
  const { mediaType } = manifest.config;
  if (mediaType !== MEDIA_TYPES.ociConfig && mediaType !== MEDIA_TYPES.dockerConfig) {
    throw new KoError(
      `Cannot use base "${shown}": its configuration is of type "${mediaType}", so it is no container image`,
    );
  }
  const what = `configuration of base "${shown}"`;
  const configBytes = await readDocument(source.openBlob(manifest.config, signal), manifest.config, what);
  const config = readConfig(configBytes, what);
  const diffIds = config.rootfs.diff_ids;
  if (diffIds.length !== manifest.layers.length) {
    throw new KoError(
      `Cannot use base "${shown}": its manifest lists ${manifest.layers.length} layers, its configuration ${diffIds.length}`,
    );
  }
  const layers = manifest.layers.map((layer, i): Layer => {
    const diffId = diffIds[i];
    if (diffId === undefined) throw new RangeError(`no diffID for layer ${i}`);
    return {
      descriptor: layer,
      diffId,
      ...(source.blobSource === undefined ? {} : { source: source.blobSource }),
      open: (openSignal) => source.openBlob(layer, openSignal ?? signal),
    };
  });
  return { kind: "image", descriptor, bytes, manifest, configBytes, config, layers };
}

/**
 * The platforms of `base` that the user asked for, in the base's order.
 *
 * @param wanted the specs as given (`linux/arm64`, `all`)
 * @param matcherOf see `createPlatformMatcher()` of oci.ts
 * @throws {KoError} If the base lacks one of them: the error lists what it has.
 */
export async function selectPlatforms(
  base: Base,
  wanted: readonly string[],
  matcherOf: (specs: readonly string[]) => (platform: Platform | undefined) => boolean,
): Promise<readonly BasePlatform[]> {
  const matches = matcherOf(wanted);
  const all = wanted.length === 1 && wanted[0] === "all";
  const missing = (has: readonly string[], specs: readonly string[]): KoError =>
    new KoError(
      `Cannot build for ${specs.join(", ")} on base "${base.text}": it has ${has.join(", ") || "no platform"}`,
      {
        hint: "Use --platform with one that it has, or another base: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.",
      },
    );
  if (base.entries === undefined) {
    const image = await base.image();
    // As the original, a single image's variant decides nothing (GOAMD64, GOARM), unless the user names one.
    const { variant: _, ...plain } = platformOf(image);
    const platform = all || wanted.every((spec) => matcherOf([spec])(plain)) ? plain : platformOf(image);
    const lacking = all ? [] : wanted.filter((spec) => !matcherOf([spec])(platform));
    if (lacking.length > 0) throw missing([formatPlatform(platform)], lacking);
    return [{ platform, entry: undefined, image: async () => image }];
  }
  const entries = base.entries.filter(
    ({ platform }) => platform?.os !== "unknown" && platform?.architecture !== "unknown",
  );
  const lacking = all ? [] : wanted.filter((spec) => !entries.some((entry) => matcherOf([spec])(entry.platform)));
  const chosen = entries.filter((entry) => matches(entry.platform));
  if (lacking.length > 0 || chosen.length === 0) {
    throw missing(entries.map(platformText), lacking.length > 0 ? lacking : wanted);
  }
  return Promise.all(
    chosen.map(async (entry) => {
      if (!isManifestType(entry.mediaType)) {
        throw new KoError(
          `Cannot use base "${base.text}": its entry for ${platformText(entry)} is of type "${entry.mediaType}", an image is wanted`,
        );
      }
      // Only an entry without a platform makes us look into the image before compiling.
      const platform = entry.platform ?? platformOf(await base.image(entry));
      return { platform, entry, image: () => base.image(entry) };
    }),
  );
}

function platformText(entry: Descriptor): string {
  return entry.platform === undefined ? entry.digest : formatPlatform(entry.platform);
}

/** How people call a base of this kind. */
export function showBase(spec: BaseName): string {
  switch (spec.kind) {
    case "registry":
      return formatReference(spec.reference);
    case "builtin":
      return "ko.builtin/static";
    case "scratch":
      return "scratch";
    case "layout":
      return `oci:${spec.path}${spec.tag === undefined ? "" : `:${spec.tag}`}`;
  }
}

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
