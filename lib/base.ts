/**
 * Base images: read from a source, cached between runs, and their platforms chosen.
 *
 * Manifests and configurations are read when they are needed, layers only by a publisher that has to copy them. The
 * sources are a registry (base-registry.ts), the daemon (base-daemon.ts), ko itself (base-builtin.ts) and an OCI layout (layout.ts).
 */
import { type BaseName, DEFAULT_BASE_IMAGE } from "./config.ts";
import { BaseError, KoError, RegistryError } from "./errors.ts";
import { type Image, type ImageSource, type Layer, platformOf } from "./image.ts";
import { readConfig } from "./oci-config.ts";
import {
  type Descriptor,
  type Digest,
  formatPlatform,
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
  /** The name and the digest, for messages. */
  readonly text: string;
  /** For `org.opencontainers.image.base.name`; undefined if the name means nothing on another machine. */
  readonly name: string | undefined;
  /** The digest of the manifest or index; undefined for `scratch`. */
  readonly digest: Digest | undefined;
  readonly mediaType: string;
  /** The entries of the index, in its order; undefined if the base is a single image. */
  readonly entries: readonly Descriptor[] | undefined;
  /** Reads the image of an entry, or that of a single-image base. Each image is read once. */
  image(entry?: Descriptor): Promise<Image>;
}

/** A platform to build for, and its image in the base. */
export interface BasePlatform {
  readonly platform: Platform;
  /** The entry of the base's index; undefined for a single-image base. */
  readonly entry: Descriptor | undefined;
  image(): Promise<Image>;
}

/**
 * Reads the manifest or index of a base. The images of an index are read when {@link Base.image} is called.
 *
 * @param options.shown the base's name in messages
 * @throws {KoError} If the source has no such image, or its media type is neither that of an image nor of an index.
 */
export async function readBase(
  source: ImageSource,
  options: { readonly spec: BaseName; readonly shown: string; readonly signal: AbortSignal },
): Promise<Base> {
  const { spec, shown, signal } = options;
  const { descriptor, bytes } = await source.getManifest(referenceOf(spec), { signal });
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
    throw new BaseError(`Cannot use base "${shown}": its media type is "${mediaType}", an image or an index is wanted`);
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

/**
 * Returns the platforms of a base that match the user's, in the base's order.
 *
 * @param wanted as in `--platform`: `linux/arm64`, `all`
 * @param matcherOf `createPlatformMatcher()` of oci.ts
 * @throws {KoError} If the base lacks one of them: the error lists the platforms of the base.
 */
export async function selectPlatforms(
  base: Base,
  wanted: readonly string[],
  matcherOf: (specs: readonly string[]) => (platform: Platform | undefined) => boolean,
): Promise<readonly BasePlatform[]> {
  const matches = matcherOf(wanted);
  const all = wanted.length === 1 && wanted[0] === "all";
  const missing = (has: readonly string[], specs: readonly string[]): KoError =>
    new BaseError(
      `Cannot build for ${specs.join(", ")} on base "${base.text}": it has ${has.join(", ") || "no platform"}`,
      {
        transient: true,
        hint: "Use --platform with one that it has, or another base: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.",
      },
    );
  if (base.entries === undefined) {
    const image = await base.image();
    // As in the original ko, the variant of a single image (GOAMD64, GOARM) is ignored, unless the user names one.
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
        throw new BaseError(
          `Cannot use base "${base.text}": its entry for ${platformText(entry)} is of type "${entry.mediaType}", an image is wanted`,
        );
      }
      // The image is read before the compilation only if its entry has no platform.
      const platform = entry.platform ?? platformOf(await base.image(entry));
      return { platform, entry, image: () => base.image(entry) };
    }),
  );
}

/** Returns those of some platforms that a base has. @param matcherOf as in {@link selectPlatforms} */
export async function platformsIn(
  base: Base,
  wanted: readonly string[],
  matcherOf: (specs: readonly string[]) => (platform: Platform | undefined) => boolean,
): Promise<{ readonly found: readonly string[]; readonly has: readonly string[] }> {
  const all =
    base.entries === undefined
      ? [platformOf(await base.image())]
      : base.entries.flatMap(({ platform }) => (platform === undefined ? [] : [platform]));
  const own = all.filter(matcherOf(["all"]));
  return { found: wanted.filter((spec) => own.some(matcherOf([spec]))), has: own.map(formatPlatform) };
}

/**
 * A failure to read a base, with a hint if the user did not choose it and it cannot be reached: one that needs no network.
 *
 * @param text the base's name in the configuration
 */
export function adviseOnBase(error: unknown, text: string): unknown {
  const isUnreachable = error instanceof RegistryError && error.status === undefined;
  if (text !== DEFAULT_BASE_IMAGE || !isUnreachable) return error;
  return new KoError(error.message, {
    transient: true,
    hint: "Choose a base image that can be reached, or the one ko makes itself: export KO_DEFAULTBASEIMAGE=ko.builtin/static",
  });
}

/** The name of a base in messages. */
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

/** The tag or digest of a base in its source; empty for the only image of a source. */
function referenceOf(spec: BaseName): string {
  switch (spec.kind) {
    case "registry":
      return spec.reference.digest ?? spec.reference.tag ?? "";
    case "layout":
      return spec.tag ?? "";
    case "builtin":
    case "scratch":
      return "";
  }
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
    throw new BaseError(
      `Cannot use base "${shown}": its configuration is of type "${mediaType}", so it is not a container image`,
    );
  }
  const what = `configuration of base "${shown}"`;
  const configBytes = await readDocument(source.openBlob(manifest.config, signal), manifest.config, what);
  const config = readConfig(configBytes, what);
  const diffIds = config.rootfs.diff_ids;
  if (diffIds.length !== manifest.layers.length) {
    throw new BaseError(
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

function platformText(entry: Descriptor): string {
  return entry.platform === undefined ? entry.digest : formatPlatform(entry.platform);
}
