/**
 * The OCI image formats as plain data: digests, descriptors, manifests, indexes, platforms. Configurations: oci-config.ts.
 *
 * Documents are read strictly, and written as Go's encoding/json writes the structs of go-containerregistry, so that
 * equal content has equal digests.
 *
 * https://github.com/opencontainers/image-spec (descriptor.md, manifest.md, image-index.md)
 */
import { KoError, UsageError } from "./errors.ts";
import {
  encodeGoJson,
  isObject,
  keep,
  object,
  parseObject,
  pickStringList,
  pickStringMap,
  pickStrings,
  quoteJson,
  readNumber,
  readStrings,
} from "./json.ts";

/** `sha256:` and 64 lower-case hex digits. Other algorithms are not supported. */
export type Digest = `sha256:${string}`;

export interface Platform {
  readonly architecture: string;
  readonly os: string;
  readonly "os.version"?: string;
  readonly "os.features"?: readonly string[];
  readonly variant?: string;
  readonly features?: readonly string[];
}

export interface Descriptor {
  readonly mediaType: string;
  /** Bytes. */
  readonly size: number;
  readonly digest: Digest;
  /** The content in base64. */
  readonly data?: string;
  readonly urls?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: Platform;
  readonly artifactType?: string;
}

export interface Manifest {
  readonly schemaVersion: number;
  readonly mediaType?: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly artifactType?: string;
}

export interface IndexManifest {
  readonly schemaVersion: number;
  readonly mediaType?: string;
  readonly manifests: readonly Descriptor[];
  readonly annotations?: Readonly<Record<string, string>>;
}

export const MEDIA_TYPES = {
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  ociLayer: "application/vnd.oci.image.layer.v1.tar+gzip",
  ociTarLayer: "application/vnd.oci.image.layer.v1.tar",
  ociZstdLayer: "application/vnd.oci.image.layer.v1.tar+zstd",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  dockerTarLayer: "application/vnd.docker.image.rootfs.diff.tar",
} as const;

/** The limit for manifests, indexes and configurations, which are read into memory: 8 MiB. */
export const MAX_DOCUMENT_BYTES: number = 8 * 1024 * 1024;
/** The value of `--platform` for all platforms of the base image. */
export const ALL_PLATFORMS = "all";

/** The platforms that the nodes of kubectl's cluster run. */
export const CLUSTER_PLATFORMS = "cluster";
export function isIndexType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.ociIndex || mediaType === MEDIA_TYPES.dockerList;
}

export function isManifestType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.ociManifest || mediaType === MEDIA_TYPES.dockerManifest;
}

/** Reports whether a document of this type can be the manifest of a name: that of an image, or an index. */
export function isDocumentType(mediaType: string): boolean {
  return isManifestType(mediaType) || isIndexType(mediaType);
}

/** Reports whether a layer must not be pushed, by its licence. The manifest keeps its descriptor, with `urls`. */
export function isForeignLayer(mediaType: string): boolean {
  return (
    mediaType === "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" ||
    mediaType.startsWith("application/vnd.oci.image.layer.nondistributable.")
  );
}

export function isDigest(text: string): text is Digest {
  return /^sha256:[0-9a-f]{64}$/.test(text);
}

/** Returns the 64 hex digits of a digest. */
export function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}

export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
}

/** Returns the descriptor of `bytes`. */
export function describe(mediaType: string, bytes: Uint8Array): Descriptor {
  return { mediaType, size: bytes.byteLength, digest: digestOf(bytes) };
}

/**
 * Reads a manifest, an index or a configuration into memory and verifies it.
 *
 * @throws {KoError} If it is larger than {@link MAX_DOCUMENT_BYTES}, or its size or digest differ.
 */
export async function readDocument(
  source: AsyncIterable<Uint8Array>,
  expected: Pick<Descriptor, "size" | "digest">,
  what: string,
): Promise<Uint8Array> {
  if (expected.size > MAX_DOCUMENT_BYTES) {
    throw new KoError(`Cannot read ${what}: ${expected.size} bytes, the limit is ${MAX_DOCUMENT_BYTES}`);
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of verified(source, expected, what)) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

/**
 * Yields the chunks of `source`, and verifies their size and digest. Never yields more bytes than the descriptor says.
 *
 * @param what names the content in errors: "layer sha256:… of gcr.io/app"
 * @throws {KoError} If size or digest differ. The digest is known only after the last chunk.
 */
export async function* verified(
  source: AsyncIterable<Uint8Array>,
  expected: Pick<Descriptor, "size" | "digest">,
  what: string,
): AsyncGenerator<Uint8Array, void, void> {
  const hash = new Bun.CryptoHasher("sha256");
  let size = 0;
  for await (const chunk of source) {
    size += chunk.byteLength;
    if (size > expected.size) {
      throw new KoError(`Cannot trust ${what}: it is longer than the ${expected.size} bytes its descriptor says`);
    }
    hash.update(chunk);
    yield chunk;
  }
  if (size !== expected.size) {
    throw new KoError(`Cannot trust ${what}: got ${size} bytes, its descriptor says ${expected.size}`);
  }
  const got = `sha256:${hash.digest("hex")}`;
  if (got !== expected.digest) {
    throw new KoError(`Cannot trust ${what}: its ${size} bytes have digest ${got}, wanted ${expected.digest}`);
  }
}

/** @throws {KoError} If `bytes` are not an image manifest. */
export function readManifest(bytes: Uint8Array, what: string): Manifest {
  const value = parseObject(bytes, what);
  if (!Array.isArray(value["layers"]) || !isObject(value["config"])) {
    const old = value["schemaVersion"] === 1 ? "it is a schema 1 manifest, wanted schema 2 or OCI" : undefined;
    throw new KoError(`Cannot read ${what}: ${old ?? "it has no config and layers, so it is not an image manifest"}`);
  }
  refuseBoth(value, what);
  return {
    schemaVersion: readNumber(value["schemaVersion"] ?? 2, `schemaVersion of ${what}`),
    ...pickStrings(value, ["mediaType", "artifactType"], what),
    config: readDescriptor(value["config"], `config of ${what}`),
    layers: value["layers"].map((layer, i) => readDescriptor(layer, `layer ${i} of ${what}`)),
    ...pickStringMap(value, "annotations", what),
  };
}

/** @throws {KoError} If `bytes` are not an image index. */
export function readIndex(bytes: Uint8Array, what: string): IndexManifest {
  const value = parseObject(bytes, what);
  if (!Array.isArray(value["manifests"])) {
    throw new KoError(`Cannot read ${what}: it has no list of manifests, so it is not an image index`);
  }
  refuseBoth(value, what);
  return {
    schemaVersion: readNumber(value["schemaVersion"] ?? 2, `schemaVersion of ${what}`),
    ...pickStrings(value, ["mediaType"], what),
    manifests: value["manifests"].map((entry, i) => readDescriptor(entry, `entry ${i} of ${what}`)),
    ...pickStringMap(value, "annotations", what),
  };
}

/** @throws {KoError} If `value` is not a descriptor. */
export function readDescriptor(value: unknown, what: string): Descriptor {
  if (!isObject(value)) throw new KoError(`Cannot read ${what}: it is not an object`);
  const { digest, size, mediaType, platform, urls } = value;
  if (typeof digest !== "string" || !isDigest(digest)) {
    throw new KoError(`Cannot read ${what}: its digest is ${quoteJson(digest)}, wanted sha256: and 64 hex digits`);
  }
  if (typeof mediaType !== "string") throw new KoError(`Cannot read ${what}: its mediaType is ${quoteJson(mediaType)}`);
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw new KoError(`Cannot read ${what}: its size is ${quoteJson(size)}, wanted a number of bytes`);
  }
  return {
    mediaType,
    size,
    digest,
    ...pickStrings(value, ["data", "artifactType"], what),
    ...(urls === undefined || urls === null ? {} : { urls: readStrings(urls, `urls of ${what}`) }),
    ...pickStringMap(value, "annotations", what),
    ...(platform === undefined || platform === null ? {} : { platform: readPlatform(platform, what) }),
  };
}

export function encodeManifest(manifest: Manifest): Uint8Array {
  return encodeGoJson(
    object([
      ["schemaVersion", keep(manifest.schemaVersion)],
      ["mediaType", manifest.mediaType],
      ["config", keep(orderDescriptor(manifest.config))],
      ["layers", keep(manifest.layers.map(orderDescriptor))],
      ["annotations", manifest.annotations],
      ["artifactType", manifest.artifactType],
    ]),
  );
}

export function encodeIndex(index: IndexManifest): Uint8Array {
  return encodeGoJson(
    object([
      ["schemaVersion", keep(index.schemaVersion)],
      ["mediaType", index.mediaType],
      ["manifests", keep(index.manifests.map(orderDescriptor))],
      ["annotations", index.annotations],
    ]),
  );
}

const GO_SYSTEMS: readonly string[] = ["linux", "windows", "darwin", "freebsd"];
const GO_ARCHITECTURES: readonly string[] = [
  ...["386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le"],
  ...["riscv64", "s390x"],
];
const SYSTEMS: ReadonlyMap<string, string> = new Map([
  ["macos", "darwin"],
  ["osx", "darwin"],
  ["win", "windows"],
]);
/** Go's names, some with a variant, of architectures that kernels, Debian, Windows or people call otherwise. */
const ARCHITECTURES: ReadonlyMap<string, string> = new Map([
  ...["x86_64", "x86-64", "x64"].map((name) => [name, "amd64"] as const),
  ...["aarch64", "armv8", "armv8l"].map((name) => [name, "arm64"] as const),
  ...["i386", "i486", "i586", "i686", "x86"].map((name) => [name, "386"] as const),
  ...["armhf", "armv7", "armv7l", "armv7hl"].map((name) => [name, "arm/v7"] as const),
  ...["armel", "armv6", "armv6l"].map((name) => [name, "arm/v6"] as const),
  ...["ppc64el", "powerpc64le"].map((name) => [name, "ppc64le"] as const),
  ["mipsel", "mipsle"],
  ["mips64el", "mips64le"],
  ["loongarch64", "loong64"],
  ["riscv", "riscv64"],
]);

/**
 * Checks platforms as a user wrote them.
 *
 * @param source names their flag or setting in errors: `--platform`
 * @throws {UsageError} If {@link parsePlatform} refuses one, or `all` or `cluster` is not alone.
 */
export function checkPlatforms(platforms: readonly string[], source: string): void {
  for (const word of [ALL_PLATFORMS, CLUSTER_PLATFORMS]) {
    if (!platforms.includes(word) || platforms.every((platform) => platform === word)) continue;
    throw new UsageError(
      `Cannot use ${source} "${platforms.join(",")}": "${word}" stands beside others, wanted alone`,
      {
        hint: `Write "${word}", or name each platform.`,
      },
    );
  }
  for (const platform of platforms) {
    if (platform === ALL_PLATFORMS || platform === CLUSTER_PLATFORMS) continue;
    try {
      parsePlatform(platform);
    } catch (cause) {
      throw new UsageError(`Cannot use ${source}`, { cause });
    }
  }
}

/**
 * Parses `os[/architecture[/variant]][:os.version]`, such as `linux`, `linux/arm/v7`, `windows/amd64:10.0.20348`.
 *
 * A missing architecture is "", other missing parts are absent.
 *
 * @throws {KoError} If there are more parts, or a part is empty or has characters that no platform has.
 */
export function parsePlatform(text: string): Platform {
  const fail = (why: string): KoError =>
    new KoError(`Cannot read "${text}" as a platform: ${why}, wanted OS[/ARCHITECTURE[/VARIANT]]`, {
      hint: `Type "go tool dist list" to see what Go can build for.`,
    });
  const [path = "", version, ...more] = text.trim().split(":");
  if (more.length > 0) throw fail("it has more than one colon");
  const parts = path.split("/");
  if (parts.length > 3) throw fail("it has more than two slashes");
  for (const part of version === undefined ? parts : [...parts, version]) {
    if (part === "") throw fail(text.trim() === "" ? "it is empty" : "a part of it is empty");
    const strange = /[^A-Za-z0-9_.+-]/.exec(part);
    if (strange !== null) throw fail(`"${strange[0]}" is in no platform's name`);
  }
  const [os = "", architecture = "", variant] = parts;
  const meant = findGoPlatform(parts);
  if (meant !== undefined) {
    throw new KoError(`Cannot read "${text}" as a platform: that is not Go's name of it`, {
      hint: `Did you mean "${meant}${version === undefined ? "" : `:${version}`}"?`,
    });
  }
  return {
    architecture,
    os,
    ...(version === undefined ? {} : { "os.version": version }),
    ...(variant === undefined ? {} : { variant }),
  };
}

/** Go's name of a platform that has the names of a kernel, of a distribution or of people; undefined if it has Go's. */
function findGoPlatform(parts: readonly string[]): string | undefined {
  const [first = "", ...rest] = parts.map((part) => part.toLowerCase());
  const isArchitecture = rest.length === 0 && (ARCHITECTURES.has(first) || GO_ARCHITECTURES.includes(first));
  const [os, architecture, variant] = isArchitecture ? ["linux", first] : [first, ...rest];
  const known = ARCHITECTURES.get(architecture ?? "") ?? architecture;
  const path = [
    SYSTEMS.get(os) ?? os,
    ...(known === undefined ? [] : known.split("/").slice(0, variant ? 1 : 2)),
    variant,
  ];
  const meant = path.filter(Boolean).join("/");
  // Only the names that Go uses are known to be in lower case.
  const [, second = ""] = path;
  const isGo = GO_SYSTEMS.includes(String(path[0])) && (second === "" || GO_ARCHITECTURES.includes(second));
  return isGo && meant !== parts.join("/") ? meant : undefined;
}

/** Formats a platform as go-containerregistry does: `linux/arm/v7`, `windows/amd64:10.0.20348.1`. */
export function formatPlatform(platform: Platform): string {
  const path = [platform.os, platform.architecture, platform.variant].filter(Boolean).join("/");
  return platform["os.version"] ? `${path}:${platform["os.version"]}` : path;
}

/**
 * Returns a predicate that selects entries of a base image's index by their platform.
 *
 * Each given part must be equal, but a Windows version `X.Y.Z` also matches `X.Y.Z.BUILD`. Entries without a platform
 * match `all` only. Entries whose operating system or architecture is `unknown` hold attestations and never match.
 *
 * @param platforms `all` alone, or platforms
 * @throws {KoError} If {@link parsePlatform} refuses one.
 */
export function createPlatformMatcher(platforms: readonly string[]): (platform: Platform | undefined) => boolean {
  const all = platforms.includes(ALL_PLATFORMS);
  const wanted = all ? [] : platforms.map(parsePlatform);
  return (platform) => {
    if (platform?.os === "unknown" || platform?.architecture === "unknown") return false;
    if (all) return true;
    return platform !== undefined && wanted.some((one) => matches(one, platform));
  };
}

/** Refuses bytes that are a manifest or an index depending on the media type that they are read as (CVE-2021-41190). */
function refuseBoth(value: Readonly<Record<string, unknown>>, what: string): void {
  if ((value["manifests"] ?? undefined) === undefined) return;
  if ((value["config"] ?? value["layers"] ?? undefined) === undefined) return;
  throw new KoError(`Cannot read ${what}: it is an image and an index at once, wanted one of them`);
}

function readPlatform(value: unknown, what: string): Platform {
  if (!isObject(value)) throw new KoError(`Cannot read ${what}: its platform is not an object`);
  return {
    architecture: "",
    os: "",
    ...pickStrings(value, ["architecture", "os", "os.version", "variant"], what),
    ...pickStringList(value, "os.features", what),
    ...pickStringList(value, "features", what),
  };
}

/** Returns a descriptor for {@link encodeGoJson}, its keys in go-containerregistry's order. */
function orderDescriptor(descriptor: Descriptor): Map<string, unknown> {
  const { platform } = descriptor;
  return object([
    ["mediaType", keep(descriptor.mediaType)],
    ["size", keep(descriptor.size)],
    ["digest", keep(descriptor.digest)],
    ["data", descriptor.data],
    ["urls", descriptor.urls],
    ["annotations", descriptor.annotations],
    [
      "platform",
      platform === undefined
        ? undefined
        : keep(
            object([
              ["architecture", keep(platform.architecture)],
              ["os", keep(platform.os)],
              ["os.version", platform["os.version"]],
              ["os.features", platform["os.features"]],
              ["variant", platform.variant],
              ["features", platform.features],
            ]),
          ),
    ],
    ["artifactType", descriptor.artifactType],
  ]);
}

function matches(wanted: Platform, platform: Platform): boolean {
  return (
    wanted.os === platform.os &&
    (wanted.architecture === "" || wanted.architecture === platform.architecture) &&
    (wanted.variant === undefined || wanted.variant === platform.variant) &&
    matchesVersion(wanted, platform["os.version"] ?? "")
  );
}

/** https://learn.microsoft.com/en-us/virtualization/windowscontainers/deploy-containers/version-compatibility */
function matchesVersion(wanted: Platform, version: string): boolean {
  const asked = wanted["os.version"];
  if (asked === undefined || asked === version) return true;
  if (wanted.os !== "windows" || asked.split(".").length !== 3) return false;
  const parts = version.split(".");
  return parts.length === 4 && parts.slice(0, 3).join(".") === asked;
}
