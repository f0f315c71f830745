/**
 * The software bill of materials of an image or an index: an SPDX 2.3 document in JSON, and the image that carries it
 * in a registry.
 *
 * The bytes are those of the original ko, apart from the differences in docs/rules.md D6. Pushed and written by
 * publish-sbom.ts. https://spdx.github.io/spdx-spec/v2.3/
 */
import type { GoBuildInfo, GoModule } from "./go-buildinfo.ts";
import type { Built, Image, Index } from "./image.ts";
import { encodeIndentedGoJson, goTime } from "./json.ts";
import { encodeConfig, type ImageConfig } from "./oci-config.ts";
import {
  describe,
  type Digest,
  encodeManifest,
  formatPlatform,
  hexOf,
  isDigest,
  type Manifest,
  MEDIA_TYPES,
  type Platform,
} from "./oci.ts";
import { formatRepository, parseReference, type Reference } from "./reference.ts";

/** The document of one image or index. */
export interface Sbom {
  /** The digest of the image or index that it describes. */
  readonly subject: Digest;
  /** Tells the documents of one program apart in file names: `linux-arm-v7`, `index`. */
  readonly name: string;
  readonly document: Uint8Array;
}

/** The platform and the programs of one image. */
export interface SbomContent {
  /** The platform that the image was built for. */
  readonly platform: Platform;
  /** The Go programs in the image, the user's first. */
  readonly programs: readonly GoBuildInfo[];
}

export interface MakeSbomsOptions {
  /** In the order of the index's children. */
  readonly contents: readonly SbomContent[];
  /** `koVersion()` of version.ts, for the document's creator. */
  readonly koVersion: string;
}

export const SPDX_MEDIA_TYPE = "text/spdx+json";

const NO_ASSERTION = "NOASSERTION";
const DOCUMENT_ID = "SPDXRef-DOCUMENT";
const BASE_DIGEST = "org.opencontainers.image.base.digest";
const BASE_NAME = "org.opencontainers.image.base.name";

/** Makes the document of an image, or the documents of the images of an index and then of the index. */
export function makeSboms(built: Built, { contents, koVersion }: MakeSbomsOptions): readonly Sbom[] {
  const images = built.kind === "image" ? [built] : built.children;
  if (images.length !== contents.length) throw new RangeError("each image needs the content that it was made of");
  const sboms = contents.flatMap(({ platform, programs }, i): readonly Sbom[] => {
    const image = images[i];
    if (image === undefined) return [];
    const name = formatPlatform(platform).replaceAll(/[/:]/g, "-");
    return [{ subject: image.descriptor.digest, name, document: makeImageDocument(image, { programs, koVersion }) }];
  });
  if (built.kind === "image") return sboms;
  const document = makeIndexDocument(built, koVersion);
  return [...sboms, { subject: built.descriptor.digest, name: "index", document }];
}

/** Makes the document of an image: the image, its base, and the modules of each program. */
export function makeImageDocument(
  image: Pick<Image, "config" | "descriptor" | "manifest">,
  { koVersion, programs }: Pick<SbomContent, "programs"> & Pick<MakeSbomsOptions, "koVersion">,
): Uint8Array {
  const { digest } = image.descriptor;
  const id = packageId(digest);
  const moduleId = createIds();
  return encodeDocument({
    digest,
    koVersion,
    created: image.config.created,
    entries: [
      {
        from: DOCUMENT_ID,
        relation: "DESCRIBES",
        package: {
          id,
          name: digest,
          purpose: "CONTAINER",
          purl: ociPurl("image", digest, [["mediaType", image.manifest.mediaType ?? ""]]),
        },
      },
      ...baseEntries(id, image.manifest.annotations ?? {}),
      ...programs.flatMap((program) => programEntries(id, program, moduleId)),
    ],
  });
}

/** Makes the document of an index: the index, its base, and its images. */
export function makeIndexDocument(
  { children, descriptor: { digest }, index }: Pick<Index, "descriptor" | "index"> & { readonly children: Dated },
  koVersion: string,
): Uint8Array {
  const id = packageId(digest);
  return encodeDocument({
    digest,
    koVersion,
    created: children[0]?.config.created,
    entries: [
      {
        // The original has no relationship to the document here, and `documentDescribes` says the same.
        package: {
          id,
          name: digest,
          purpose: "CONTAINER",
          sha256: hexOf(digest),
          purl: ociPurl("index", digest, [["mediaType", index.mediaType ?? ""]]),
        },
      },
      ...baseEntries(id, index.annotations ?? {}),
      ...index.manifests.map(({ digest: child, mediaType, platform }): Entry => {
        return {
          from: id,
          relation: "VARIANT_OF",
          package: {
            id: packageId(child),
            name: child,
            version: platform === undefined ? "" : formatPlatform(platform),
            purpose: "CONTAINER",
            sha256: hexOf(child),
            purl: ociPurl("image", child, [["mediaType", mediaType], ...platformQualifiers(platform)]),
          },
        };
      }),
    ],
  });
}

/**
 * Makes the image that carries a document in a registry, as cosign attaches one: the only layer is the document.
 *
 * https://github.com/sigstore/cosign/blob/main/specs/SBOM_SPEC.md
 */
export function makeSbomImage(document: Uint8Array): Image {
  const layer = describe(SPDX_MEDIA_TYPE, document);
  const diffId = layer.digest;
  const config: ImageConfig = {
    architecture: "",
    os: "",
    history: [{}],
    rootfs: { type: "layers", diff_ids: [diffId] },
    config: {},
  };
  const configBytes = encodeConfig(config);
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: describe(MEDIA_TYPES.ociConfig, configBytes),
    layers: [layer],
  };
  const bytes = encodeManifest(manifest);
  const open = async function* (): AsyncIterable<Uint8Array> {
    yield document;
  };
  return {
    kind: "image",
    descriptor: describe(MEDIA_TYPES.ociManifest, bytes),
    bytes,
    manifest,
    configBytes,
    config,
    layers: [{ descriptor: layer, diffId, open }],
  };
}

type Dated = readonly { readonly config: Pick<ImageConfig, "created"> }[];

/** A package, and how an earlier one is related to it. */
interface Entry {
  readonly from?: string;
  readonly relation?: "CONTAINS" | "DEPENDS_ON" | "DESCENDANT_OF" | "DESCRIBES" | "VARIANT_OF";
  readonly package: Package;
}

interface Package {
  readonly id: string;
  readonly name: string;
  readonly version?: string;
  /** Where the package can be downloaded. */
  readonly location?: string | undefined;
  readonly purpose?: "CONTAINER";
  /** 64 hex digits. */
  readonly sha256?: string | undefined;
  /** https://github.com/package-url/purl-spec */
  readonly purl?: string;
}

interface Document {
  readonly digest: Digest;
  readonly koVersion: string;
  /** RFC 3339. */
  readonly created: string | undefined;
  /** The package that the document describes comes first. A package that comes again is left out. */
  readonly entries: readonly Entry[];
}

function encodeDocument({ created, digest, entries, koVersion }: Document): Uint8Array {
  const packages = new Map<string, unknown>();
  const relationships = new Map<string, unknown>();
  for (const { from, package: found, relation } of entries) {
    const { id } = found;
    if (!packages.has(id)) packages.set(id, formatPackage(found));
    if (from === undefined) continue;
    const relationship = { spdxElementId: from, relationshipType: relation, relatedSpdxElement: id };
    relationships.set(`${from} ${relation} ${id}`, relationship);
  }
  return encodeIndentedGoJson({
    SPDXID: DOCUMENT_ID,
    name: `sbom-${digest}`,
    spdxVersion: "SPDX-2.3",
    creationInfo: { created: formatTime(created), creators: [`Tool: ko ${koVersion}`] },
    dataLicense: "CC0-1.0",
    documentNamespace: `http://spdx.org/spdxdocs/ko/${digest}`,
    documentDescribes: [packageId(digest)],
    packages: [...packages.values()],
    relationships: [...relationships.values()],
  });
}

/** https://spdx.github.io/spdx-spec/v2.3/package-information/ */
function formatPackage({ id, location, name, purl, purpose, sha256, version }: Package): unknown {
  return {
    SPDXID: id,
    name,
    versionInfo: version || undefined,
    filesAnalyzed: false,
    licenseDeclared: NO_ASSERTION,
    licenseConcluded: NO_ASSERTION,
    downloadLocation: location ?? NO_ASSERTION,
    copyrightText: NO_ASSERTION,
    primaryPackagePurpose: purpose,
    checksums: sha256 === undefined ? undefined : [{ algorithm: "SHA256", checksumValue: sha256 }],
    externalRefs:
      purl === undefined
        ? undefined
        : [{ referenceCategory: "PACKAGE-MANAGER", referenceLocator: purl, referenceType: "purl" }],
  };
}

/** Formats a time of a configuration in UTC, without a fraction, as SPDX wants it. */
function formatTime(created: string | undefined): string {
  const time = goTime(created).replace(/\.\d+/, "");
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z");
}

/** The base image, if the annotations of the image name it. */
function baseEntries(id: string, annotations: Readonly<Record<string, string>>): readonly Entry[] {
  const { [BASE_NAME]: name, [BASE_DIGEST]: digest } = annotations;
  if (name === undefined || digest === undefined || !isDigest(digest)) return [];
  const reference = findReference(name);
  const repository = reference === undefined ? name : formatRepository(reference);
  const tag = reference?.digest === undefined ? reference?.tag : undefined;
  const base: Package = {
    id: packageId(digest),
    name: `${repository}@${digest}`,
    version: name,
    sha256: hexOf(digest),
    purl: ociPurl("image", digest, [
      ...(reference === undefined ? [] : [["repository_url", repository] as const]),
      ...(tag === undefined ? [] : [["tag", tag] as const]),
    ]),
  };
  return [{ from: id, relation: "DESCENDANT_OF", package: base }];
}

/** An annotation of the user may hold any text. */
function findReference(name: string): Reference | undefined {
  try {
    return parseReference(name);
  } catch {
    return undefined;
  }
}

/** The module of a program, and the modules that it depends on. */
function programEntries(
  imageId: string,
  { deps, main, path }: GoBuildInfo,
  idOf: (module: GoModule) => string,
): readonly Entry[] {
  const program = main ?? { path, version: "" };
  if (program.path === "") return [];
  const id = idOf(program);
  const location = main === undefined ? undefined : `https://${main.path}`;
  return [
    {
      from: imageId,
      relation: "CONTAINS",
      package: { id, name: program.path, location, ...(main === undefined ? {} : { purl: goPurl(main) }) },
    },
    ...deps.map((dep): Entry => {
      const module = findCompiled(dep);
      const found: Package = {
        id: idOf(module),
        name: module.path,
        version: module.version,
        location: proxyUrl(module),
        sha256: fileHash(module),
        purl: goPurl(module),
      };
      return { from: id, relation: "DEPENDS_ON", package: found };
    }),
  ];
}

/** The module whose files were compiled. A folder keeps the path of the module that it replaces, as import paths do. */
function findCompiled({ replace, ...module }: GoModule): GoModule {
  if (replace === undefined) return module;
  const isFolder = /^(?:\.{1,2}(?:[/\\]|$)|\/|[A-Za-z]:)/.test(replace.path);
  return isFolder ? { path: module.path, version: replace.version || "(devel)" } : replace;
}

/**
 * Returns a function that names modules. An SPDX identifier may have letters, digits, "." and "-" only, so two modules
 * may come to one name: a number tells them apart. A module that comes again gets its name again.
 */
function createIds(): (module: GoModule) => string {
  const ids = new Map<string, string>();
  const taken = new Set<string>();
  return ({ path, version }) => {
    const key = `${path}@${version}`;
    const known = ids.get(key);
    if (known !== undefined) return known;
    const words = [path.replaceAll("/", "."), version].map((word) => word.replaceAll(/[^A-Za-z0-9.-]+/g, "-"));
    const plain = ["SPDXRef-Package", ...words.map((word) => word.replaceAll(/^-|-$/g, "")).filter(Boolean)].join("-");
    let id = plain;
    for (let i = 2; taken.has(id); i++) id = `${plain}-${i}`;
    ids.set(key, id);
    taken.add(id);
    return id;
  };
}

function packageId(digest: Digest): string {
  return `SPDXRef-Package-sha256-${hexOf(digest)}`;
}

/** https://go.dev/ref/mod#goproxy-protocol: an upper-case letter is written as "!" and the lower-case letter. */
function proxyUrl({ path, version }: GoModule): string | undefined {
  if (!version.startsWith("v")) return undefined;
  const [escapedPath, escapedVersion] = [path, version].map((text) => {
    return text.replaceAll(/[A-Z]/g, (letter) => `!${letter.toLowerCase()}`);
  });
  return `https://proxy.golang.org/${escapedPath}/@v/${escapedVersion}.zip`;
}

/** The hash of go.sum in hex. It is a hash of the module's list of files, not of the zip. */
function fileHash({ sum = "" }: GoModule): string | undefined {
  const bytes = sum.startsWith("h1:") ? Buffer.from(sum.slice("h1:".length), "base64") : undefined;
  return bytes?.byteLength === 32 ? bytes.toString("hex") : undefined;
}

/** The original lower-cases the first two elements of a path that has three or more. */
function goPurl({ path, version }: GoModule): string {
  const [host = "", owner = "", ...rest] = path.split("/");
  const name = rest.length === 0 ? path : [host.toLowerCase(), owner.toLowerCase(), ...rest].join("/");
  return `pkg:golang/${name}@${version}?type=module`;
}

type Qualifier = readonly [key: string, value: string];

function platformQualifiers(platform: Platform | undefined): readonly Qualifier[] {
  if (platform === undefined) return [];
  const { architecture, os, "os.features": features = [], "os.version": version, variant } = platform;
  return [
    ["arch", architecture],
    ["os", os],
    ...(variant ? [["variant", variant] as const] : []),
    ...(version ? [["os-version", version] as const] : []),
    ...features.map((feature) => ["os-feature", feature] as const),
  ];
}

/** The qualifiers are encoded as Go's `url.Values` are: sorted by key, in the form of HTML forms. */
function ociPurl(name: "image" | "index", digest: Digest, qualifiers: readonly Qualifier[]): string {
  const sorted = qualifiers.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const encoded = sorted.map((pair) => pair.map(queryEscape).join("=")).join("&");
  return `pkg:oci/${name}@${digest}${encoded === "" ? "" : `?${encoded}`}`;
}

/** Escapes as Go's `url.QueryEscape`: all but letters, digits, "-", "_", "." and "~", and a blank as "+". */
function queryEscape(text: string): string {
  const escaped = encodeURIComponent(text.toWellFormed()).replaceAll("%20", "+");
  return escaped.replaceAll(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}
