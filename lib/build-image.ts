/**
 * Assembles the image of a program: base, kodata layer, program layer, and the index of several platforms.
 */
import type { Base, BasePlatform } from "./base.ts";
import type { Binary } from "./build-binaries.ts";
import { describeContainer, type ProgramImage } from "./build-container.ts";
import type { Compression } from "./compress.ts";
import type { Content, ResultImage } from "./events.ts";
import type { Reason } from "./go-setup.ts";
import type { ContainerSettings, DebugSettings } from "./image-config.ts";
import {
  assembleImage,
  assembleIndex,
  type Built,
  type Image,
  type ImageDebugger,
  type IndexChild,
  type Layer,
  layerTypeFor,
} from "./image.ts";
import { retypeLayer } from "./layer.ts";
import { type Descriptor, type Digest, formatPlatform, type Platform } from "./oci.ts";

/** What goes into images besides programs and bases. Labels, annotations and user are those of flags. */
export interface ImageSettings {
  /** Of the two layers that are made here; local daemons want plain tars. */
  readonly compression: Compression;
  readonly labels: ReadonlyMap<string, string>;
  readonly annotations: ReadonlyMap<string, string>;
  readonly user: string | undefined;
  /** Seconds since 1970. */
  readonly created: number | undefined;
  /** Seconds since 1970. */
  readonly kodataCreated: number | undefined;
  /** How Delve starts the programs whose setups want it. @default none wants it */
  readonly debug?: DebugSettings | undefined;
}

export interface BuiltImage {
  readonly platform: Platform;
  readonly image: Image;
  /** Why its program was compiled; undefined if it was reused. */
  readonly why: Reason | undefined;
}

/** The annotations of images that name their base. */
export const BASE_DIGEST = "org.opencontainers.image.base.digest";
export const BASE_NAME = "org.opencontainers.image.base.name";

export interface OnBaseOptions {
  readonly importPath: string;
  /** As of `programPathOf()`. */
  readonly programPath: string;
  /** The settings of the program's own image. */
  readonly own: ProgramImage;
  readonly on: Base;
  readonly target: BasePlatform;
  readonly kodata: Layer;
  readonly program: Layer;
  readonly debugger: ImageDebugger | undefined;
  readonly image: ImageSettings;
}

/** Puts the layers of a program on the image of a base. */
export function onBase(base: Image, options: OnBaseOptions): Image {
  const { debugger: delve, image, importPath, kodata, on, own, program, programPath, target } = options;
  const { compression } = image;
  const mediaType = layerTypeFor(base.descriptor.mediaType, { compression, base: on.text });
  return assembleImage(base, {
    importPath,
    os: target.platform.os,
    programPath,
    kodata: retypeLayer(kodata, mediaType),
    program: retypeLayer(program, mediaType),
    debugger: delve && { ...delve, layer: retypeLayer(delve.layer, mediaType) },
    container: joinContainer(own, image),
    annotations: {
      ...Object.fromEntries(joinAnnotations(own, image)),
      ...baseAnnotations(on, target.entry?.digest ?? on.digest),
    },
    created: image.created,
    kodataCreated: image.kodataCreated,
  });
}

/** The settings of a program, each under its name, with those of flags; values are hashed. */
export function describeSettings(own: ProgramImage, image: ImageSettings): Readonly<Record<string, string>> {
  return describeContainer(joinContainer(own, image), joinAnnotations(own, image));
}

/** The user that containers run as; undefined is that of the base. */
export function userOf(own: ProgramImage, image: ImageSettings): string | undefined {
  return image.user ?? own.container.user;
}

function joinContainer(own: ProgramImage, image: ImageSettings): ContainerSettings {
  const { container } = own;
  return { ...container, labels: new Map([...container.labels, ...image.labels]), user: userOf(own, image) };
}

function joinAnnotations(own: ProgramImage, image: ImageSettings): ReadonlyMap<string, string> {
  return new Map([...own.annotations, ...image.annotations]);
}

export interface CombineOptions {
  readonly base: Base;
  /** One for each image. */
  readonly targets: readonly BasePlatform[];
  /** The settings of each image. */
  readonly own: readonly ProgramImage[];
  readonly image: ImageSettings;
}

/** One image stays an image; several become an index of the base's kind, with the annotations that all of them have. */
export function combine(images: readonly Image[], { base, image: settings, own, targets }: CombineOptions): Built {
  const [only] = images;
  if (images.length === 1 && only !== undefined) return only;
  const children = targets.flatMap(({ entry }, i): readonly IndexChild[] => {
    const image = images[i];
    return entry === undefined || image === undefined ? [] : [{ entry, image }];
  });
  const [first = new Map<string, string>(), ...others] = own.map((each) => joinAnnotations(each, settings));
  const shared = [...first].filter(([key, value]) => others.every((each) => each.get(key) === value));
  return assembleIndex(children, {
    mediaType: base.mediaType,
    annotations: { ...Object.fromEntries(shared), ...baseAnnotations(base, base.digest) },
  });
}

/** The annotations that name a base. @param digest of the image or index of the base that was built on */
export function baseAnnotations(base: Base, digest: Digest | undefined): Readonly<Record<string, string>> {
  return {
    ...(digest === undefined || base.digest === undefined ? {} : { [BASE_DIGEST]: digest }),
    ...(base.name === undefined ? {} : { [BASE_NAME]: base.name }),
  };
}

/** The image of one platform, for the events of the run. */
export function describeImage({ image, platform, why }: BuiltImage): ResultImage {
  const { descriptor, layers, manifest } = image;
  return {
    platform: formatPlatform(platform),
    manifest: contentOf(descriptor),
    config: manifest.config.digest,
    layers: layers.map(({ descriptor: layer, diffId }) => ({ ...contentOf(layer), diffId })),
    ...(why === undefined
      ? {}
      : { why: { reason: why.reason, ...(why.file === undefined ? {} : { file: why.file }) } }),
  };
}

/** A descriptor without the URLs, annotations and platform that it may have. */
export function contentOf({ digest, mediaType, size }: Descriptor): Content {
  return { mediaType, digest, size };
}

/**
 * The warning that the kernel does not start a program, because its user may not have its effective capabilities. Root may
 * have all.
 *
 * @returns none if it starts
 */
export function warnOfCapabilities(
  { program, setup }: Pick<Binary, "program" | "setup">,
  user: string = "",
): readonly string[] {
  const [name] = user.split(":");
  if (setup.capabilities?.isEffective !== true || name === "" || name === "0" || name === "root") return [];
  const start = "it starts only in containers that are given them (securityContext.capabilities)";
  return [`${program.importPath} runs as user ${user} with effective linux_capabilities: ${start}`];
}
