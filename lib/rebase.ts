/**
 * `ko rebase`: puts published images on the newest image of their base, without Go and without sources.
 *
 * The settings of an image are derived from it and its old base (image-derive.ts), and assembled again on the new one.
 */
import { createLimit } from "./async.ts";
import { type Base, platformsIn } from "./base.ts";
import { BASE_DIGEST, BASE_NAME, baseAnnotations } from "./build-image.ts";
import { LazyCache, type RunContext } from "./cache.ts";
import type { Compression } from "./compress.ts";
import { BUILTIN_BASE_IMAGE, loadConfig, parseBase, parsePublished } from "./config.ts";
import { KoError, printable, settledValues, UsageError } from "./errors.ts";
import { readLoader } from "./go-loader.ts";
import type { Host, TempFolder } from "./host.ts";
import { type Derived, deriveSettings } from "./image-derive.ts";
import {
  assembleImage,
  assembleIndex,
  type Built,
  type Image,
  type ImageContent,
  layerTypeFor,
  platformOf,
} from "./image.ts";
import { retypeLayer } from "./layer.ts";
import type { Log } from "./log.ts";
import {
  createPlatformMatcher,
  type Descriptor,
  type Digest,
  formatPlatform,
  type Platform,
  readIndex,
} from "./oci.ts";
import { Resources } from "./pipeline-resources.ts";
import type { TagRule } from "./publish-destination.ts";
import { publishedReference } from "./publish.ts";
import { formatRepository, parseReference, type Reference, whyBadTag } from "./reference.ts";
import { extractPrograms } from "./rebase-programs.ts";
import { noTiming } from "./timing.ts";

export interface RebaseRequest {
  /** The images. */
  readonly words: readonly string[];
  /** `--base`; empty for the base that the image names. */
  readonly base: string;
  readonly tags: readonly string[];
  readonly insecureRegistry: boolean;
  /** `--sbom`, as the user wrote it. */
  readonly sbom: string;
  /** Whether `--sbom` was given. */
  readonly isSbomGiven: boolean;
}

/** A published image, and the image to publish in its place. */
interface Plan {
  readonly reference: Reference;
  readonly before: Digest;
  readonly built: Built;
  readonly importPath: string;
  readonly contents: readonly ImageContent[];
  /** The new base. */
  readonly base: Base;
}

interface Run {
  readonly context: RunContext;
  readonly resources: Resources;
  readonly request: RebaseRequest;
  readonly folder: TempFolder;
}

/** A platform of an image. */
interface Part {
  readonly image: Image;
  readonly platform: Platform;
  readonly settings: Derived;
  /** The image of the new base, and its entry in the index. */
  readonly next: Image;
  readonly entry: Descriptor | undefined;
}

/** How many images are read at a time. */
const AT_ONCE = 4;

/**
 * Rebases images. All are checked before the first is published.
 *
 * @returns the references, a line each
 * @throws {KoError} If an image cannot be put on the new base with the bytes of a build.
 */
export async function runRebase(
  request: RebaseRequest,
  { host, log }: { readonly host: Host; readonly log: Log },
): Promise<string> {
  const references = checkRequest(request, host.cwd);
  const config = await loadConfig(host);
  await using cache = new LazyCache(host, log);
  const context = { host, log, timing: noTiming, signal: host.signal, cache: cache.get() };
  await using resources = new Resources({
    context,
    insecureHosts: request.insecureRegistry ? references.map((each) => each.host) : [],
    registries: config.registries,
    compress: true,
  });
  await using folder = await host.tempFolder("ko-rebase");
  const run = { context, resources, request, folder };
  const limit = createLimit(AT_ONCE);
  const plans = await Promise.allSettled(
    references.map((reference, i) => limit(() => plan(reference, { ...run, text: request.words[i] ?? "" }))),
  );
  host.signal.throwIfAborted();
  const lines: string[] = [];
  for (const each of settledValues(plans)) lines.push(`${await publish(each, run)}\n`);
  return lines.join("");
}

function checkRequest({ base, sbom, tags, words }: RebaseRequest, cwd: string): readonly Reference[] {
  if (!["", "spdx", "none"].includes(sbom)) {
    throw new UsageError(`Cannot use --sbom="${sbom}": wanted spdx or none`);
  }
  for (const tag of tags) {
    const why = whyBadTag(tag);
    if (why !== undefined) throw new UsageError(`Cannot use --tags="${tags.join(",")}": ${why}`);
  }
  if (base !== "") parseBase(base, cwd);
  return words.map((text) => parsePublished(text, { cwd, action: "rebase" }));
}

async function plan(reference: Reference, options: Run & { readonly text: string }): Promise<Plan> {
  const { resources, text } = options;
  try {
    const whole = await resources.base(text);
    if (whole.digest === undefined) throw new RangeError("an image in a registry without a digest");
    return { ...(await makePlan(whole, { ...options, reference })), reference, before: whole.digest };
  } catch (cause) {
    if (!(cause instanceof KoError)) throw cause;
    throw new KoError(`Cannot rebase "${text}"`, { cause });
  }
}

type PlanOptions = Run & { readonly reference: Reference };

async function makePlan(whole: Base, options: PlanOptions): Promise<Omit<Plan, "reference" | "before">> {
  const images = await Promise.all(
    whole.entries === undefined ? [whole.image()] : whole.entries.map((entry) => whole.image(entry)),
  );
  const [first] = images;
  if (first === undefined) throw new KoError("it is an index without images");
  const annotations =
    whole.entries === undefined ? (first.manifest.annotations ?? {}) : await readAnnotations(whole, options);
  const { old, next } = await openBases(annotations, options);
  const parts = await Promise.all(images.map((image) => planPart(image, { old, next, isIndex: images.length > 1 })));
  if (whole.entries === undefined) {
    const [part] = parts;
    if (part === undefined) throw new RangeError("an image without parts");
    const built = rebuild(part, next);
    return { built, base: next, importPath: part.settings.importPath, contents: await check([part], next, options) };
  }
  const shared = Object.fromEntries(Object.entries(annotations).filter(([key]) => !isOfBase(key)));
  const oldEntries = images.map((image) => findDigest(old, image.manifest.annotations?.[BASE_DIGEST]));
  const again = assembleIndex(
    images.flatMap((image, i) => {
      const entry = oldEntries[i];
      return entry === undefined ? [] : [{ entry, image }];
    }),
    { mediaType: old.mediaType, annotations },
  );
  if (again.descriptor.digest !== whole.digest) {
    throw new KoError("its index is not the one that ko makes of its images");
  }
  const order = next.entries?.map(({ digest }) => digest) ?? [];
  const sorted = parts.toSorted((a, b) => place(a, order) - place(b, order));
  const children = sorted.flatMap((part) =>
    part.entry === undefined ? [] : [{ entry: part.entry, image: rebuild(part, next) }],
  );
  const built = assembleIndex(children, {
    mediaType: next.mediaType,
    annotations: { ...shared, ...baseAnnotations(next, next.digest) },
  });
  const contents = await check(sorted, next, options);
  return { built, base: next, importPath: parts[0]?.settings.importPath ?? "", contents };
}

function place({ entry }: Part, order: readonly Digest[]): number {
  return entry === undefined ? -1 : order.indexOf(entry.digest);
}

async function readAnnotations(
  { digest }: Base,
  { reference, resources }: PlanOptions,
): Promise<Readonly<Record<string, string>>> {
  const registry = await resources.registry();
  const { bytes } = await registry.getManifest(reference, digest ?? "");
  return readIndex(bytes, "the index").annotations ?? {};
}

/** The base that an image names with its digest, and the one to put it on. */
async function openBases(
  { [BASE_DIGEST]: digest, [BASE_NAME]: name }: Readonly<Record<string, string>>,
  { request, resources }: Run,
): Promise<{ readonly old: Base; readonly next: Base }> {
  if (name === undefined || digest === undefined) {
    throw new KoError("it does not name its base, with the annotations org.opencontainers.image.base.name and .digest");
  }
  const isBuiltin = name === `${BUILTIN_BASE_IMAGE}:latest`;
  const reference = isBuiltin ? undefined : parseReference(name);
  if (request.base === "" && reference?.digest !== undefined) {
    throw new KoError(`its base ${name} is named by its digest, so no tag says which is the newest`, {
      hint: `Name the new base: --base ${formatRepository(reference)}:TAG`,
    });
  }
  const before = reference === undefined ? BUILTIN_BASE_IMAGE : `${formatRepository(reference)}@${digest}`;
  const after = request.base || (isBuiltin ? BUILTIN_BASE_IMAGE : name);
  const [old, next] = await Promise.all([readOld(before, resources), resources.base(after)]);
  if (old.digest !== digest && findDigest(old, digest) === undefined) {
    throw new KoError(`its base ${name} is that of another version of ko`, {
      hint: "Build the image again: ko build",
    });
  }
  return { old, next };
}

async function readOld(text: string, resources: Resources): Promise<Base> {
  try {
    return await resources.base(text);
  } catch (cause) {
    if (!(cause instanceof KoError)) throw cause;
    throw new KoError("its old base cannot be read, and only that tells which settings are the image's own", {
      cause,
      hint: "Build the image again: ko build",
    });
  }
}

interface PartOptions {
  readonly old: Base;
  readonly next: Base;
  readonly isIndex: boolean;
}

async function planPart(image: Image, { isIndex, next, old }: PartOptions): Promise<Part> {
  const oldEntry = findDigest(old, image.manifest.annotations?.[BASE_DIGEST]);
  if (old.entries !== undefined && oldEntry === undefined) {
    throw new KoError("one of its images names a base that is not in the base of the index");
  }
  const settings = deriveSettings(image, await old.image(oldEntry));
  const platform = oldEntry?.platform ?? platformOf(image);
  const entry = next.entries === undefined ? undefined : findPlatform(next.entries, platform);
  const isThere =
    next.entries === undefined ? !isIndex && isSame(platformOf(await next.image()), platform) : entry !== undefined;
  if (!isThere) {
    const { has } = await platformsIn(next, [], createPlatformMatcher);
    throw new KoError(
      `the new base ${next.text} lacks ${formatPlatform(platform)}: it has ${has.join(", ") || "no platform"}`,
    );
  }
  return { image, platform, settings, next: await next.image(entry), entry };
}

function findDigest(base: Base, digest: string | undefined): Descriptor | undefined {
  return base.entries?.find((entry) => entry.digest === digest);
}

/** The entry of a platform. A variant or version counts only where it tells several entries apart. */
function findPlatform(entries: readonly Descriptor[], wanted: Platform): Descriptor | undefined {
  const some = entries.filter(({ platform }) => platform !== undefined && isSame(platform, wanted));
  if (some.length === 1) return some[0];
  const version = (platform: Platform | undefined): string =>
    (platform?.["os.version"] ?? "").split(".").slice(0, 3).join(".");
  return some.find(({ platform }) => platform?.variant === wanted.variant && version(platform) === version(wanted));
}

function isSame(a: Platform, b: Platform): boolean {
  const variants = a.variant === undefined || b.variant === undefined || a.variant === b.variant;
  return a.os === b.os && a.architecture === b.architecture && variants;
}

function isOfBase(key: string): boolean {
  return key === BASE_DIGEST || key === BASE_NAME;
}

/** The image of one platform on its new base. */
function rebuild({ entry, next, settings }: Part, base: Base): Image {
  const { debugger: delve, kodata, program } = settings;
  const compression = compressionOf(program.descriptor.mediaType);
  const mediaType = layerTypeFor(next.descriptor.mediaType, { compression, base: base.text });
  const own = Object.entries(settings.annotations).filter(([key]) => !isOfBase(key));
  return assembleImage(next, {
    ...settings,
    kodata: retypeLayer(kodata, mediaType),
    program: retypeLayer(program, mediaType),
    debugger: delve && { ...delve, layer: retypeLayer(delve.layer, mediaType) },
    annotations: { ...Object.fromEntries(own), ...baseAnnotations(base, entry?.digest ?? base.digest) },
  });
}

function compressionOf(mediaType: string): Compression {
  if (mediaType.endsWith("zstd")) return { kind: "zstd" };
  return mediaType.endsWith("gzip") ? { kind: "gzip", level: 1 } : { kind: "none" };
}

/** Reads the programs of the image, and refuses those that the new base cannot start. */
async function check(parts: readonly Part[], base: Base, { context, folder }: Run): Promise<readonly ImageContent[]> {
  return Promise.all(
    parts.map(async ({ next, platform, settings }) => {
      const programs = await extractPrograms(settings, { folder: folder.path, signal: context.signal });
      const files = programs.map(({ file }) => file);
      const [file = ""] = files;
      const loader = await readLoader(file);
      const { lacksLoader } = await import("./base-loaders.ts");
      if (loader !== undefined && (await lacksLoader(next, loader, context))) {
        throw new KoError(
          `its program for ${formatPlatform(platform)} needs the loader ${printable(loader)}, which base ${base.text} does not have`,
        );
      }
      return { platform, files };
    }),
  );
}

/** @returns the reference to print */
async function publish({ base, before, built, contents, importPath, reference }: Plan, run: Run): Promise<string> {
  const { context, request, resources } = run;
  const name = formatRepository(reference);
  const { digest } = built.descriptor;
  const tags: TagRule = { names: request.tags, only: false };
  const isThere = digest === before;
  if (isThere) context.log.info(`${name}@${digest} is on ${base.text} already`);
  if (isThere && tags.names.length === 0) return publishedReference(name, { digest });
  const sbom = !isThere && (await wantsSbom(reference, { before, run }));
  const publisher = await resources.publisher({
    also: [],
    places: [{ kind: "registry" }],
    repository: name,
    sbom: sbom ? { registry: true, dir: undefined, layout: undefined } : undefined,
    tags,
  });
  context.log.info(`Using base ${base.text} for ${printable(importPath)}`);
  const published = await publisher.open(name).publish(built, { reused: false, importPath, contents });
  await publisher.finish();
  return published.reference;
}

/** Whether the image had an SBOM; `--sbom` decides if it is given. */
async function wantsSbom(
  reference: Reference,
  { before, run }: { readonly before: Digest; readonly run: Run },
): Promise<boolean> {
  const { context, request, resources } = run;
  if (request.sbom === "none") return false;
  if (request.isSbomGiven) return true;
  const { findSbomRepository, sbomTag } = await import("./publish-sbom.ts");
  const repository = findSbomRepository(context.host.env) ?? reference;
  const registry = await resources.registry();
  return (await registry.findManifest(repository, sbomTag(before), { push: true })) !== undefined;
}
