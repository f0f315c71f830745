/**
 * From programs to images: chooses platforms, compiles once per platform, makes layers, assembles and publishes images.
 *
 * Knows neither network nor daemon: a base is given with each program, and images go to a sink.
 */
import { inBackground, until } from "./async.ts";
import { type Base, type BasePlatform, selectPlatforms } from "./base.ts";
import {
  type BinariesOptions,
  type Binary,
  keepBinary,
  lookupEarly,
  makeBinaries,
  type ProgramBuild,
} from "./build-binaries.ts";
import { type DebuggerFile, makeDebugger } from "./build-debug.ts";
import { explainContainer, NO_PROGRAM_IMAGE, type ProgramImage } from "./build-container.ts";
import {
  combine,
  contentOf,
  describeImage,
  describeSettings,
  type ImageSettings,
  onBase,
  userOf,
  warnOfCapabilities,
} from "./build-image.ts";
import type { Explanation, ListDigest } from "./build-inputs.ts";
import { makeKodata } from "./build-kodata.ts";
import type { CompressionPool } from "./compress.ts";
import { keyOf } from "./cache.ts";
import type { Reuse } from "./config-cache.ts";
import { KoError, KoErrors, throwAll } from "./errors.ts";
import { mayNeedLoader } from "./go-loader.ts";
import type { Outdated } from "./go-programs-cache.ts";
import type { Program } from "./go-programs.ts";
import type { BuildSetup, BuildSetups, Reason } from "./go-setup.ts";
import {
  type Image,
  type ImageContent,
  type ImageSink,
  type Layer,
  layerTypeFor,
  programPathOf,
  type Published,
} from "./image.ts";
import { isObject } from "./json.ts";
import { binaryEntries } from "./kodata.ts";
import { LayerStore } from "./layer-cache.ts";
import {
  ALL_PLATFORMS,
  createPlatformMatcher,
  type Digest,
  formatPlatform,
  parsePlatform,
  type Platform,
} from "./oci.ts";
import type { RunWarnings } from "./log.ts";
import type { TarEntry } from "./tar.ts";

/** The version of the records of image settings. */
const SETTINGS_FORMAT = 1;

export interface BuildImagesOptions extends BinariesOptions {
  readonly setups: BuildSetups;
  readonly reuse: Reuse;
  /** Gets warnings about `.ko.yaml`. */
  readonly warnings: RunWarnings;
  readonly image: ImageSettings;
  readonly pool: CompressionPool;
}

/** A program, its base, and where its image goes. */
export interface BuildRequest {
  readonly program: Program;
  readonly base: Promise<Base>;
  readonly sink: ImageSink;
  /** Of this program. @default those of all programs */
  readonly platforms?: readonly string[];
}

/** A request with its base and platforms: everything that can be refused before compiling has been. */
export interface Plan extends Omit<BuildRequest, "base" | "platforms"> {
  readonly base: Base;
  readonly targets: readonly BasePlatform[];
  /** How the program is compiled, by {@link platformKey}. */
  readonly setups: ReadonlyMap<string, BuildSetup>;
  /** The settings of its image, by {@link platformKey}. @default none */
  readonly images?: ReadonlyMap<string, ProgramImage>;
}

/** A plan that was carried out. */
export interface BuildResult extends Plan {
  readonly published: Published;
  /** Of the manifest or index. */
  readonly digest: Digest;
  /** By target: why its program was compiled; undefined if it was not. */
  readonly reasons: readonly (Reason | undefined)[];
  /** By target: the older commit whose binary was kept; undefined if it is none. */
  readonly commits: readonly (string | undefined)[];
  /** By target; undefined if it is not known. */
  readonly lists: readonly (ListDigest | undefined)[];
}

/**
 * Finds each program's base, platforms and setups.
 *
 * @param platforms `linux/amd64`, `linux/arm/v7`, `all`, …: at least one, unless each request has its own
 * @throws {KoError} If a base cannot be read, lacks a platform, or cannot have layers that are compressed as wanted.
 * @throws {KoErrors} If several settings of `.ko.yaml` are wrong: with all of them.
 */
export async function planBuilds(
  requests: readonly BuildRequest[],
  platforms: readonly string[],
  options: BuildImagesOptions,
): Promise<readonly Plan[]> {
  for (const { base } of requests) void inBackground(base);
  // While the bases are read: most have the platforms that are asked for, by just these names.
  for (const { platforms: specs = platforms, program } of requests) {
    for (const spec of specs) {
      if (spec !== ALL_PLATFORMS) void inBackground(lookup(program, parsePlatform(spec), options));
    }
  }
  const planned = await Promise.all(
    requests.map(async ({ program, sink, ...request }) => {
      const base = await request.base;
      const targets = await selectPlatforms(base, request.platforms ?? platforms, createPlatformMatcher);
      const { compression } = options.image;
      // For its refusals: the type itself is known with the base's image.
      for (const { entry } of targets) {
        layerTypeFor(entry?.mediaType ?? base.mediaType, { compression, base: base.text });
      }
      return { program, sink, base, targets };
    }),
  );
  return addSetups(planned, options.setups);
}

/** Starts to look a program up. */
async function lookup(program: Program, platform: Platform, { builds, setups }: BuildImagesOptions): Promise<void> {
  lookupEarly({ program, platform, setup: await setups.of(program, platform) }, builds);
}

async function addSetups(
  plans: readonly Omit<Plan, "setups" | "images">[],
  setups: BuildSetups,
): Promise<readonly Plan[]> {
  const errors = new Set<KoError>();
  const found: Plan[] = [];
  for (const plan of plans) {
    const made = new Map<string, BuildSetup>();
    const images = new Map<string, ProgramImage>();
    for (const { platform } of plan.targets) {
      const key = platformKey(platform);
      try {
        made.set(key, await setups.of(plan.program, platform));
        images.set(key, await setups.imageFor(setups.entries.find(plan.program), platform));
      } catch (error) {
        if (!(error instanceof KoError)) throw error;
        for (const each of error instanceof KoErrors ? error.errors : [error]) errors.add(each);
      }
    }
    found.push({ ...plan, setups: made, images });
  }
  throwAll([...errors]);
  return found;
}

/**
 * Builds all plans. Each image is published to its sink as soon as it is complete and everything has been compiled;
 * layers may go there while they are made.
 *
 * @returns one result for each plan, in their order; or that the programs are outdated: no image was published then
 * @throws {CommandError} If the compiler fails: no image was published then.
 */
export async function buildImages(
  plans: readonly Plan[],
  options: BuildImagesOptions,
): Promise<readonly BuildResult[] | Outdated> {
  const failed = new AbortController();
  const context = { ...options.context, signal: AbortSignal.any([options.context.signal, failed.signal]) };
  const { compile, folder, image, pool } = options;
  const layers = new LayerStore({ context, pool, folder, compression: image.compression, jobs: compile.jobs });
  const builds = plans.map((plan) => new ImageBuild(plan, { ...options, context, failed, layers }));
  try {
    for await (const event of makeBinaries(listBuilds(plans), { ...options, context })) {
      if (event.kind === "ready") for (const build of builds) build.add(event.binary);
      else if (event.kind === "linked") layers.begin(layerKey(event), programEntries(event, event.size));
      else {
        failed.abort(new Error(event.why));
        return event;
      }
    }
    await Promise.all(builds.map((build) => build.check()));
    return await Promise.all(builds.map((build) => build.publish()));
  } catch (error) {
    failed.abort(error);
    throw error;
  } finally {
    // No layer may be in the making any more when the caller removes the folder of the run.
    if (failed.signal.aborted) await Promise.all([layers.settle(), ...builds.map((build) => build.settle())]);
  }
}

/** Why each image was rebuilt, or that it was not. */
export function explainResults(results: readonly BuildResult[]): readonly Explanation[] {
  return results.flatMap(({ commits, program, reasons, targets }) =>
    targets.map(({ platform }, i): Explanation => {
      const what = { importPath: program.importPath, platform: formatPlatform(platform) };
      const why = reasons[i];
      return why === undefined
        ? { ...what, state: "reused", commit: commits[i] }
        : { ...what, state: "rebuilt", ...why };
    }),
  );
}

interface ImageBuildOptions extends BuildImagesOptions {
  readonly layers: LayerStore;
  /** Ends all builds of the run with the first failure. */
  readonly failed: AbortController;
}

/** The image for one platform. */
interface TargetImage {
  readonly image: Image;
  readonly content: ImageContent;
  readonly why: Reason | undefined;
  /** The older commit whose binary was kept. */
  readonly commit: string | undefined;
  readonly list: ListDigest | undefined;
}

/** One plan on its way: bases and kodata layers from the start, program layers as binaries are compiled. */
class ImageBuild {
  readonly #plan: Plan;
  readonly #options: ImageBuildOptions;
  /** By target. */
  readonly #bases: readonly Promise<Image>[];
  /** By target. */
  readonly #kodata: readonly Promise<Layer>[];
  /** By target, as far as it is compiled. */
  readonly #images = new Map<BasePlatform, Promise<TargetImage>>();
  readonly #keeping: Promise<void>[] = [];
  /** That the base can start the program, by target. */
  readonly #checks: Promise<void>[] = [];
  /** Whether no binary of the program was compiled. */
  readonly #isKept = Promise.withResolvers<boolean>();
  #isCompiled = false;

  constructor(plan: Plan, options: ImageBuildOptions) {
    this.#plan = plan;
    this.#options = options;
    this.#bases = plan.targets.map((target) => this.#orFail(target.image()));
    this.#kodata = plan.targets.map((target) => this.#orFail(this.#makeKodata(target)));
  }

  /** Starts the layers of a binary, if it is one of this plan. */
  add(binary: Binary): void {
    if (binary.program !== this.#plan.program) return;
    for (const [i, target] of this.#plan.targets.entries()) {
      if (platformKey(target.platform) !== platformKey(binary.platform)) continue;
      this.#images.set(target, this.#orFail(this.#makeImage(binary, i, target)));
    }
    this.#isCompiled ||= binary.why !== undefined;
    if (this.#images.size === this.#plan.targets.length) this.#isKept.resolve(!this.#isCompiled);
  }

  /** Waits until everything that can still be refused has been checked: before that, no image of the run is published. */
  async check(): Promise<void> {
    await Promise.all(this.#checks);
  }

  /** Publishes the image, or the index of all images. Call it after everything was compiled. */
  async publish(): Promise<BuildResult> {
    const plan = this.#plan;
    const made = await Promise.all(plan.targets.map((target) => this.#imageOf(target)));
    const reused = made.every(({ why }) => why === undefined);
    const settings = plan.targets.map((target) => this.#whyOtherSettings(target));
    const reasons = made.map(({ why }, i) => why ?? settings[i]);
    const images = made.map(({ image }) => image);
    const own = plan.targets.map((target) => this.#settingsOf(target));
    const built = combine(images, { ...plan, own, image: this.#options.image });
    const contents = made.map(({ content }) => content);
    const { importPath } = plan.program;
    const published = await plan.sink.publish(built, { reused, importPath, contents });
    const { also = [], reference, wasThere = false } = published;
    const descriptor = contentOf(built.descriptor);
    const results = made.map(({ content: { platform }, image }, i) =>
      describeImage({ image, platform, why: reasons[i] }),
    );
    this.#options.context.timing.report({
      type: "result",
      importPath,
      reference,
      descriptor,
      images: results,
      wasThere,
      ...(also.length === 0 ? {} : { also }),
    });
    for (const [i, target] of plan.targets.entries()) if (settings[i] !== undefined) this.#keepSettings(target);
    await Promise.all(this.#keeping);
    const commits = made.map(({ commit }) => commit);
    const { digest } = built.descriptor;
    return { ...plan, published, digest, reasons, commits, lists: made.map(({ list }) => list) };
  }

  /** Waits until nothing is in the making. Never throws. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#bases, ...this.#kodata, ...this.#images.values(), ...this.#keeping]);
  }

  #imageOf(target: BasePlatform): Promise<TargetImage> {
    const image = this.#images.get(target);
    if (image !== undefined) return image;
    const { importPath } = this.#plan.program;
    throw new RangeError(`no binary of ${importPath} for ${platformKey(target.platform)}`);
  }

  #settingsOf({ platform }: BasePlatform): ProgramImage {
    return this.#plan.images?.get(platformKey(platform)) ?? NO_PROGRAM_IMAGE;
  }

  /** The setting that the last image of the program did not have; undefined if that is not known. */
  #whyOtherSettings(target: BasePlatform): Reason | undefined {
    const { cache } = this.#options.context;
    if (cache === undefined) return undefined;
    const before = cache.read("image", this.#settingsKey(target));
    const now = describeSettings(this.#settingsOf(target), this.#options.image);
    const reason = explainContainer(isObject(before) ? before : {}, now);
    return reason === undefined ? undefined : { reason };
  }

  #keepSettings(target: BasePlatform): void {
    const now = describeSettings(this.#settingsOf(target), this.#options.image);
    this.#options.context.cache?.write("image", this.#settingsKey(target), now);
  }

  #settingsKey({ platform }: BasePlatform): string {
    const { dir, importPath } = this.#plan.program;
    return keyOf([SETTINGS_FORMAT, importPath, dir, platformKey(platform)]);
  }

  /** Ends all builds if work in the background fails. */
  #orFail<T>(work: Promise<T>): Promise<T> {
    work.catch((error: unknown) => this.#options.failed.abort(error));
    return work;
  }

  async #makeImage(binary: Binary, i: number, target: BasePlatform): Promise<TargetImage> {
    const { context, layers } = this.#options;
    const checked = this.#orFail(this.#checkLoader(binary, this.#bases[i]));
    this.#checks.push(checked);
    const { program, sink } = this.#plan;
    const { commit, known, why } = binary;
    await checked;
    const debugging = inBackground(this.#makeDebugger(binary));
    this.#keeping.push(debugging.then(() => undefined));
    const stored = await layers.program(layerKey(binary), {
      entries: () => programEntries(binary, Bun.file(binary.path).size),
      known: known === undefined ? undefined : { diffId: known.binary.digest, size: known.tarSize },
      sink,
      changed: why?.file !== undefined,
    });
    this.#keeping.push(keepBinary(binary, { cache: context.cache, tar: stored.tar }));
    const debug = await debugging;
    const [base, kodata] = await Promise.all([this.#bases[i], this.#kodata[i]]);
    if (base === undefined || kodata === undefined) throw new RangeError(`no base for ${program.importPath}`);
    const user = userOf(this.#settingsOf(target), this.#options.image) ?? base.config.config.User;
    this.#options.warnings.warn(warnOfCapabilities(binary, user));
    const image = onBase(base, {
      importPath: program.importPath,
      programPath: programPathOf(program.importPath, binary.setup.binary),
      own: this.#settingsOf(target),
      on: this.#plan.base,
      target,
      kodata,
      program: stored.layer,
      debugger: debug?.image,
      image: this.#options.image,
    });
    const files = [binary.path, ...(debug === undefined ? [] : [debug.path])];
    const content = { platform: target.platform, files };
    return { image, content, why, commit, list: await binary.listDigest };
  }

  async #makeDebugger(binary: Binary): Promise<DebuggerFile | undefined> {
    const { context, delve, image, layers } = this.#options;
    if (delve === undefined || image.debug === undefined || binary.setup.isDebugged !== true) return undefined;
    return makeDebugger(binary, { context, delve, debug: image.debug, layers, sink: this.#plan.sink });
  }

  /** @throws {BaseError} If the base cannot start the program. */
  async #checkLoader(binary: Binary, image: Promise<Image> | undefined): Promise<void> {
    if (image === undefined || !mayNeedLoader(binary.setup)) return;
    const { checkLoader } = await import("./build-loader.ts");
    await checkLoader(binary, { ...this.#options, base: this.#plan.base, image: await image });
  }

  #makeKodata({ platform }: BasePlatform): Promise<Layer> {
    const { context, image, layers, reuse } = this.#options;
    const { program, sink } = this.#plan;
    const isKept = reuse === "code" ? inBackground(until(this.#isKept.promise, context.signal)) : undefined;
    return makeKodata(program, { context, layers, sink, os: platform.os, created: image.kodataCreated, isKept });
  }
}

/** Each program once for each platform that the compiler can tell apart, by platform. */
function listBuilds(plans: readonly Plan[]): readonly ProgramBuild[] {
  const platforms = new Map<string, Map<Program, ProgramBuild>>();
  for (const { program, setups, targets } of plans) {
    for (const { platform } of targets) {
      const key = platformKey(platform);
      const builds = platforms.get(key) ?? new Map<Program, ProgramBuild>();
      const setup = setups.get(key);
      if (setup === undefined) throw new RangeError(`no setup of ${program.importPath} for ${key}`);
      if (!builds.has(program)) builds.set(program, { program, platform, setup });
      platforms.set(key, builds);
    }
  }
  return [...platforms.values()].flatMap((builds) => [...builds.values()]);
}

/** The entries of a program's layer, from its file. @param size of that file, in bytes */
function programEntries(
  { path, platform, program, setup }: ProgramBuild & Pick<Binary, "path">,
  size: number,
): Iterable<TarEntry> {
  const { capabilities } = setup;
  return binaryEntries({
    path,
    name: programPathOf(program.importPath, setup.binary),
    os: platform.os,
    size,
    capabilities: capabilities?.attribute,
  });
}

function layerKey({ platform, program }: Pick<Binary, "platform" | "program">): string {
  return `${program.importPath} ${platformKey(platform)}`;
}

/** Platforms that the compiler cannot tell apart have one key: Windows versions share a binary. */
function platformKey(platform: Platform): string {
  return [platform.os, platform.architecture, platform.variant ?? ""].join("/");
}
