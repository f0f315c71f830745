/**
 * From programs to images: chooses bases and platforms, compiles once per platform, makes layers, assembles.
 *
 * Knows neither network nor daemon: bases come from a function, images go to a sink.
 */
import { join } from "node:path";
import { type Base, type BasePlatform, selectPlatforms } from "./base.ts";
import { type BinariesOptions, type Binary, type BinaryGroup, makeBinaries, recallEarly } from "./build-binaries.ts";
import type { Reason } from "./build-cache.ts";
import type { Compression, CompressionPool } from "./compress.ts";
import type { Program } from "./go-programs.ts";
import {
  appName,
  assembleImage,
  assembleIndex,
  type Built,
  type Image,
  type ImageSink,
  type IndexChild,
  type Layer,
  layerTypeFor,
  type Published,
} from "./image.ts";
import { binaryEntries, kodataEntries } from "./kodata.ts";
import { LayerStore, type StoredLayer } from "./layer-cache.ts";
import { retypeLayer } from "./layer.ts";
import { ALL_PLATFORMS, createPlatformMatcher, type Digest, parsePlatform, type Platform } from "./oci.ts";
import type { TarEntry } from "./tar.ts";

export interface BuildSettings extends BinariesOptions {
  /** The base of an import path; the same base is read once. */
  readonly baseOf: (importPath: string) => Promise<Base>;
  /** `linux/amd64`, `linux/arm/v7`, `all`, …: at least one. */
  readonly platforms: readonly string[];
  readonly pool: CompressionPool;
  /** Of the two layers that are made here; local daemons want plain tars. */
  readonly compression: Compression;
  readonly labels: ReadonlyMap<string, string>;
  readonly annotations: ReadonlyMap<string, string>;
  readonly user: string | undefined;
  /** Seconds since 1970. */
  readonly created: number | undefined;
  /** Seconds since 1970. */
  readonly kodataCreated: number | undefined;
}

/** A program, and where its image goes. */
export interface BuildRequest {
  readonly program: Program;
  readonly sink: ImageSink;
}

/** A request with its base and platforms: everything that can be refused before compiling has been. */
export interface Plan extends BuildRequest {
  readonly base: Base;
  readonly targets: readonly BasePlatform[];
}

const BASE_DIGEST = "org.opencontainers.image.base.digest";
const BASE_NAME = "org.opencontainers.image.base.name";

/**
 * Finds each program's base and platforms.
 *
 * @throws {KoError} If a base cannot be read, lacks a platform, or cannot have layers that are compressed as wanted.
 */
export async function planBuilds(requests: readonly BuildRequest[], options: BuildSettings): Promise<readonly Plan[]> {
  const programs = requests.map(({ program }) => program);
  const bases = programs.map(({ importPath }) => options.baseOf(importPath));
  for (const base of bases) base.catch(() => {});
  // While the bases are on their way: most have the platforms that are asked for, by just these names.
  for (const spec of options.platforms) {
    if (spec !== ALL_PLATFORMS) recallEarly({ platform: parsePlatform(spec), programs }, options);
  }
  return Promise.all(
    requests.map(async ({ program, sink }, i) => {
      const base = await bases[i];
      if (base === undefined) throw new RangeError(`no base for ${program.importPath}`);
      options.log.info(`Using base ${base.text} for ${program.importPath}`);
      const targets = await selectPlatforms(base, options.platforms, createPlatformMatcher);
      const { compression } = options;
      // For its refusals: what comes of it is known when the base's image is.
      for (const { entry } of targets) {
        layerTypeFor(entry?.mediaType ?? base.mediaType, { compression, base: base.text });
      }
      return { program, sink, base, targets };
    }),
  );
}

/** A plan that was carried out. */
export interface BuildResult extends Plan {
  readonly published: Published;
  /** By target: why its program was compiled; undefined if it was not. */
  readonly reasons: readonly (Reason | undefined)[];
  /** By target: stands for what go listed of its program, now or in an earlier run; undefined if that is not known. */
  readonly lists: readonly (string | undefined)[];
}

/**
 * Builds all plans. Each image is published to its sink as soon as it is complete and everything has been compiled;
 * layers may go there while they are made.
 *
 * @returns one result for each plan, in their order
 * @throws {CommandError} If the compiler fails: no image has been published then.
 */
export async function buildImages(plans: readonly Plan[], options: BuildSettings): Promise<readonly BuildResult[]> {
  const { host } = options;
  const failed = new AbortController();
  const signal = AbortSignal.any([host.signal, failed.signal]);
  const layers = new LayerStore({ ...options, signal });
  const groups = groupByPlatform(plans);
  const keeping: Promise<void>[] = [];
  const bases = plans.map(({ targets }) => targets.map((target) => target.image()));
  const kodata = plans.map((plan) => plan.targets.map((target) => makeKodata(plan, target, { ...options, layers })));
  // Awaited below, together with what takes longest; a failure here is no unhandled one meanwhile.
  for (const early of [bases, kodata].flat(2)) early.catch(() => {});
  try {
    const compiled = await makeBinaries([...groups.values()], {
      ...options,
      signal,
      onLinked: ({ path, program: { importPath }, size }, platform) =>
        layers.begin(
          layerKey(importPath, platform),
          binaryEntries({ path, name: appName(importPath), os: platform.os, size }),
        ),
    });
    const byKey = new Map([...groups.keys()].map((key, i) => [key, compiled[i]]));
    const allDone = Promise.all(compiled.map(({ done }) => done));
    // The first failure ends the other compilers, and the layers.
    allDone.catch((error: unknown) => failed.abort(error));
    const results = plans.map(async (plan, i): Promise<BuildResult> => {
      const { importPath } = plan.program;
      const made = await Promise.all(
        plan.targets.map(async (target, j) => {
          const key = platformKey(target.platform);
          const binary = await byKey.get(key)?.binaries.get(importPath);
          if (binary === undefined) throw new RangeError(`no binary of ${importPath} for ${key}`);
          const stored = await makeProgram({ plan, binary, target, layers });
          keeping.push(binary.keep(stored.tar));
          const [base, data] = await Promise.all([bases[i]?.[j], kodata[i]?.[j]]);
          if (base === undefined || data === undefined) throw new RangeError(`no base for ${importPath}`);
          const image = onBase(base, { plan, target, kodata: data, program: stored.layer, options });
          return { image, why: binary.why, list: await binary.list };
        }),
      );
      await allDone;
      const images = made.map(({ image }) => image);
      const reasons = made.map(({ why }) => why);
      const reused = reasons.every((reason) => reason === undefined);
      const published = await plan.sink.publish(combine(plan, images, options.annotations), { reused });
      return { ...plan, published, reasons, lists: made.map(({ list }) => list) };
    });
    const all = await Promise.all(results);
    await Promise.all(keeping);
    return all;
  } catch (error) {
    // No layer may be at work any more when the caller removes the folder it reads and writes in.
    failed.abort(error);
    await layers.settle();
    await Promise.all(keeping);
    throw error;
  }
}

function groupByPlatform(plans: readonly Plan[]): ReadonlyMap<string, BinaryGroup> {
  const groups = new Map<string, { platform: Platform; programs: Program[] }>();
  for (const { program, targets } of plans) {
    for (const { platform } of targets) {
      const key = platformKey(platform);
      const group = groups.get(key) ?? { platform, programs: [] };
      if (!group.programs.includes(program)) group.programs.push(program);
      groups.set(key, group);
    }
  }
  return groups;
}

/** The kodata layer: one for Windows, one for the rest. */
async function makeKodata(
  { program, sink }: Plan,
  { platform }: BasePlatform,
  options: BuildSettings & { readonly layers: LayerStore },
): Promise<Layer> {
  const { host, kodataCreated, layers, log } = options;
  const kind = platform.os === "windows" ? "windows kodata" : "kodata";
  const { dir, importPath } = program;
  const list = (): Iterable<TarEntry> =>
    kodataEntries({
      directory: join(dir, "kodata"),
      os: platform.os,
      mtime: kodataCreated ?? 0,
      allowedRoot: host.env["KO_DATA_PATH_ALLOWED_ROOT"] || undefined,
      log,
    });
  const { layer } = await layers.kodata(`${importPath} ${kind}`, list, sink);
  return layer;
}

interface MakeProgramOptions {
  readonly plan: Plan;
  readonly binary: Binary;
  readonly target: BasePlatform;
  readonly layers: LayerStore;
}

function makeProgram({ plan, binary, target, layers }: MakeProgramOptions): Promise<StoredLayer> {
  const { importPath } = plan.program;
  const { known, path, why } = binary;
  const { os } = target.platform;
  return layers.program(layerKey(importPath, target.platform), {
    entries: () => binaryEntries({ path, name: appName(importPath), os, size: Bun.file(path).size }),
    known: known === undefined ? undefined : { diffId: known.binary.digest, size: known.tarSize },
    sink: plan.sink,
    changed: why?.file !== undefined,
  });
}

function layerKey(importPath: string, platform: Platform): string {
  return `${importPath} ${platformKey(platform)}`;
}

interface OnBaseOptions {
  readonly plan: Plan;
  readonly target: BasePlatform;
  readonly kodata: Layer;
  readonly program: Layer;
  readonly options: BuildSettings;
}

function onBase(base: Image, { plan, target, kodata, program, options }: OnBaseOptions): Image {
  const { importPath } = plan.program;
  const { compression } = options;
  const mediaType = layerTypeFor(base.descriptor.mediaType, { compression, base: plan.base.text });
  return assembleImage(base, {
    importPath,
    app: appName(importPath),
    os: target.platform.os,
    kodata: retypeLayer(kodata, mediaType),
    program: retypeLayer(program, mediaType),
    labels: Object.fromEntries(options.labels),
    annotations: {
      ...Object.fromEntries(options.annotations),
      ...baseAnnotations(plan.base, target.entry?.digest ?? plan.base.digest),
    },
    user: options.user,
    created: options.created,
    kodataCreated: options.kodataCreated,
  });
}

/** One image stays an image; several become an index of the base's kind. */
function combine(plan: Plan, images: readonly Image[], annotations: ReadonlyMap<string, string>): Built {
  const [only] = images;
  if (images.length === 1 && only !== undefined) return only;
  const children = plan.targets.flatMap(({ entry }, i): readonly IndexChild[] => {
    const image = images[i];
    return entry === undefined || image === undefined ? [] : [{ entry, image }];
  });
  return assembleIndex(children, {
    mediaType: plan.base.mediaType,
    annotations: { ...Object.fromEntries(annotations), ...baseAnnotations(plan.base, plan.base.digest) },
  });
}

function baseAnnotations(base: Base, digest: Digest | undefined): Readonly<Record<string, string>> {
  return {
    ...(digest === undefined || base.digest === undefined ? {} : { [BASE_DIGEST]: digest }),
    ...(base.name === undefined ? {} : { [BASE_NAME]: base.name }),
  };
}

/** Platforms that the compiler cannot tell apart have one key: Windows versions share a binary. */
function platformKey(platform: Platform): string {
  return [platform.os, platform.architecture, platform.variant ?? ""].join("/");
}
