/**
 * From programs to images: chooses bases and platforms, compiles once per platform, makes layers, assembles.
 *
 * Knows neither network nor daemon: bases come from a function, what is built goes to a function.
 */
import { join } from "node:path";
import { appName, assembleImage, assembleIndex, type IndexChild, layerTypeFor } from "./assemble.ts";
import { type Base, type BasePlatform, selectPlatforms } from "./base.ts";
import type { Compression, CompressionPool } from "./compress.ts";
import { compilePrograms } from "./gobuild.ts";
import type { Program, ProgramList } from "./goprograms.ts";
import { createLimit, type Host } from "./host.ts";
import type { Built, Image, Layer } from "./image.ts";
import { binaryEntries, kodataEntries } from "./kodata.ts";
import { measureLayer, retypeLayer, writeLayer } from "./layer.ts";
import type { Log } from "./log.ts";
import { type Digest, formatPlatform, MEDIA_TYPES, type Platform } from "./oci.ts";
import { createPlatformMatcher } from "./platform.ts";

export interface BuildSettings {
  readonly host: Host;
  readonly log: Log;
  /** Name or path of the go command. */
  readonly go: string;
  /** What `listPrograms()` told of, for hints when the compiler fails. */
  readonly packages: ProgramList["packages"];
  /** The base of an import path; the same base is read once. */
  readonly baseOf: (importPath: string) => Promise<Base>;
  /** `linux/amd64`, `linux/arm/v7`, `all`, …: at least one. */
  readonly platforms: readonly string[];
  readonly pool: CompressionPool;
  /** Of the two layers that are made here; local daemons want plain tars. */
  readonly compression: Compression;
  /** Temporary folder for binaries and layers; must outlive the images. */
  readonly folder: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly annotations: ReadonlyMap<string, string>;
  readonly user: string | undefined;
  readonly disableOptimizations: boolean;
  /** Most builds at once; 0 chooses by the machine. */
  readonly jobs: number;
  /** Seconds since 1970. */
  readonly created: number | undefined;
  /** Seconds since 1970. */
  readonly kodataCreated: number | undefined;
}

/** A program with what it will be built on: everything that can be refused before compiling has been. */
export interface Plan {
  readonly program: Program;
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
export async function planBuilds(programs: readonly Program[], options: BuildSettings): Promise<readonly Plan[]> {
  return Promise.all(
    programs.map(async (program) => {
      const base = await options.baseOf(program.importPath);
      options.log.info(`Using base ${base.text} for ${program.importPath}`);
      const targets = await selectPlatforms(base, options.platforms, createPlatformMatcher);
      const { compression } = options;
      // For its refusals: what comes of it is known when the base's image is.
      for (const { entry } of targets)
        layerTypeFor(entry?.mediaType ?? base.mediaType, { compression, base: base.text });
      return { program, base, targets };
    }),
  );
}

/**
 * Builds all plans and hands each result to `use` as soon as it is complete.
 *
 * @returns what `use` returned, in the order of `plans`
 * @throws {CommandError} If the compiler fails: nothing has been handed to `use` then that depends on it.
 */
export async function buildImages<T>(
  plans: readonly Plan[],
  options: BuildSettings & { readonly use: (plan: Plan, built: Built) => Promise<T> },
): Promise<readonly T[]> {
  const failed = new AbortController();
  const layers = new LayerMaker(options, AbortSignal.any([options.host.signal, failed.signal]));
  const binaries = compileAll(plans, options);
  const results = plans.map(async (plan): Promise<T> => {
    const { importPath } = plan.program;
    const images = await Promise.all(
      plan.targets.map(async (target) => {
        const os = target.platform.os;
        const base = target.image();
        const kodata = layers.kodata(plan.program, os);
        // Awaited below, together with what takes longest; a failure here is no unhandled one meanwhile.
        for (const early of [base, kodata]) early.catch(() => {});
        const binary = (await binaries).get(platformKey(target.platform))?.get(importPath);
        if (binary === undefined)
          throw new RangeError(`no binary of ${importPath} for ${formatPlatform(target.platform)}`);
        const packed = layers.program({ importPath, binary, os, key: platformKey(target.platform) });
        const [image, data, program] = await Promise.all([base, kodata, packed]);
        return onBase(image, { plan, target, kodata: data, program, options });
      }),
    );
    return options.use(plan, combine(plan, images, options.annotations));
  });
  try {
    return await Promise.all(results);
  } catch (error) {
    // No layer may be at work any more when the caller removes the folder it reads and writes in.
    failed.abort(error);
    await layers.settle();
    throw error;
  }
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

/** Platform key -> import path -> path of the binary. */
async function compileAll(
  plans: readonly Plan[],
  options: BuildSettings,
): Promise<ReadonlyMap<string, ReadonlyMap<string, string>>> {
  const groups = new Map<string, { platform: Platform; programs: Program[] }>();
  for (const { program, targets } of plans) {
    for (const { platform } of targets) {
      const key = platformKey(platform);
      const group = groups.get(key) ?? { platform, programs: [] };
      if (!group.programs.includes(program)) group.programs.push(program);
      groups.set(key, group);
    }
  }
  const jobs = options.jobs || options.host.cpus;
  const atOnce = Math.max(1, Math.min(groups.size, jobs));
  const limit = createLimit(atOnce);
  // The first failure ends the other compilers.
  const failed = new AbortController();
  const signal = AbortSignal.any([options.host.signal, failed.signal]);
  const entries = await Promise.all(
    Array.from(groups, ([key, { platform, programs }], i) =>
      limit(async () => {
        signal.throwIfAborted();
        for (const { importPath } of programs)
          options.log.info(`Building ${importPath} for ${formatPlatform(platform)}`);
        try {
          const binaries = await compilePrograms(programs, {
            host: options.host,
            log: options.log,
            go: options.go,
            platform,
            outDir: join(options.folder, `bin-${i}`),
            flags: [],
            ldflags: [],
            disableOptimizations: options.disableOptimizations,
            packages: options.packages,
            signal,
            // Go leaves its work folder behind when it is told to end; here it goes with ours. GOTMPDIR stays the user's.
            env: { TMPDIR: options.folder },
            // jobs × compilers of each stays within what was asked for, or within the machine.
            ...(options.jobs > 0 || atOnce > 1 ? { jobs: Math.max(1, Math.floor(jobs / atOnce)) } : {}),
          });
          return [key, binaries] as const;
        } catch (error) {
          failed.abort(error);
          throw error;
        }
      }),
    ),
  );
  return new Map(entries);
}

/** Makes each layer once, whoever asks first. */
class LayerMaker {
  readonly #options: BuildSettings;
  readonly #signal: AbortSignal;
  readonly #made = new Map<string, Promise<Layer>>();
  readonly #limit: <T>(work: () => Promise<T>) => Promise<T>;

  /** @param signal ends the making of all of them */
  constructor(options: BuildSettings, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    this.#limit = createLimit(Math.max(2, Math.min(4, options.host.cpus)));
  }

  /** The kodata layer: one for Windows, one for the rest. */
  kodata(program: Program, os: string): Promise<Layer> {
    const { host, log, kodataCreated } = this.#options;
    return this.#once(`kodata ${os === "windows"} ${program.importPath}`, () =>
      kodataEntries({
        directory: join(program.dir, "kodata"),
        os,
        mtime: kodataCreated ?? 0,
        allowedRoot: host.env["KO_DATA_PATH_ALLOWED_ROOT"] || undefined,
        log,
      }),
    );
  }

  program(options: {
    readonly importPath: string;
    readonly binary: string;
    readonly os: string;
    readonly key: string;
  }): Promise<Layer> {
    return this.#once(`program ${options.key} ${options.importPath}`, () =>
      binaryEntries({
        path: options.binary,
        name: appName(options.importPath),
        os: options.os,
        size: Bun.file(options.binary).size,
      }),
    );
  }

  /** Waits until none is being made. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#made.values());
  }

  #once(key: string, entries: () => Parameters<typeof writeLayer>[0]): Promise<Layer> {
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const { folder, pool, compression } = this.#options;
    const file = join(folder, `layer-${this.#made.size}`);
    const signal = this.#signal;
    const layer = this.#limit(async () => {
      signal.throwIfAborted();
      if (compression.kind !== "none") {
        const mediaType = compression.kind === "zstd" ? MEDIA_TYPES.ociZstdLayer : MEDIA_TYPES.ociLayer;
        return writeLayer(entries(), { file, mediaType, codec: compression, pool, signal });
      }
      // Listed once: what the walk has to say is said once, and every opening packs the same entries.
      const list = await Array.fromAsync(entries());
      return measureLayer(() => list, { mediaType: MEDIA_TYPES.ociTarLayer, signal });
    });
    this.#made.set(key, layer);
    return layer;
  }
}
