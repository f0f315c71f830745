/**
 * Checks the flags of building commands against each other, and gives them the names that code uses. Chooses the platforms
 * from flags, configuration and environment.
 */
import type { BuildFlags } from "./cli-parse.ts";
import { type Compression, FAST_GZIP, type GzipLevel } from "./compress.ts";
import { endOfAction } from "./config-builds.ts";
import type { Word } from "./config-file.ts";
import { readReuse, type Reuse } from "./config-cache.ts";
import { type ImageWords, readImageFlag } from "./config-image.ts";
import { findNearest, UsageError } from "./errors.ts";
import type { RecordFiles } from "./events-record.ts";
import type { DebugSettings } from "./image-config.ts";
import { PROGRESS_MODES, type ProgressMode } from "./log.ts";
import { ALL_PLATFORMS, checkPlatforms, CLUSTER_PLATFORMS, parsePlatform, type Platform } from "./oci.ts";
import type { FilePlace, PublishFlags, SbomFlags } from "./publish-destination.ts";
import { type Naming, whyBadTag } from "./reference.ts";
import type { TimingOutput } from "./timing.ts";

export interface BuildOptions {
  readonly publish: PublishFlags;
  /** The values of `--platform`; empty without the flag. */
  readonly platforms: readonly string[];
  /** Maximum number of compilers, linkers and layers at work at once; 0 chooses by the machine. */
  readonly jobs: number;
  /** `--reuse`; undefined if not given. */
  readonly reuse: Reuse | undefined;
  readonly disableOptimizations: boolean;
  /** `--debug`; undefined if not given. */
  readonly debug: DebugSettings | undefined;
  /** `--ldflags`, which replaces that of `.ko.yaml`; undefined if not given. */
  readonly ldflags: readonly Word[] | undefined;
  readonly labels: ReadonlyMap<string, string>;
  readonly annotations: ReadonlyMap<string, string>;
  readonly user: string | undefined;
  /** The other settings of images. Unlike labels, annotations and user, they may be templates. */
  readonly image: ImageWords;
  /** Report for each image whether it was reused, and if not, why. */
  readonly explain: boolean;
  /** Where to report the time that each step took; undefined: nowhere. */
  readonly timing: TimingOutput | undefined;
  /** Notes about the choice of flags, to be logged. */
  readonly warnings: readonly string[];
}

/** The flags of progress, events, metadata and CI outputs. */
export interface ReportFlags extends RecordFiles {
  readonly progress: ProgressMode;
}

/** Platforms, and the setting that names them: a flag, a key or variables; undefined if none does. */
export interface ChosenPlatforms {
  readonly platforms: readonly string[];
  readonly source: "--platform" | "defaultPlatforms" | "GOOS and GOARCH" | undefined;
  /** The configuration says `cluster`, which does not count for this command. */
  readonly withoutCluster: boolean;
}

export interface ChoosePlatformsOptions {
  /** `defaultPlatforms` of the configuration. */
  readonly defaults: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Called if no setting names a platform. @default linux/amd64 */
  readonly fallback?: () => Promise<string>;
  /** Whether `cluster` is a choice: the command ends in kubectl. @default false */
  readonly mayBeCluster?: boolean;
}

const FALLBACK = "linux/amd64";
const MAX_PORT = 65_535;
const GZIP_LEVELS: readonly GzipLevel[] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

/**
 * Checks the flags of a build against each other.
 *
 * @param given the flags that the user wrote
 * @throws {UsageError} If a tag, a platform, a label, an annotation, the compression, the port or the kind of SBOM is
 * malformed, or flags contradict each other.
 */
export function readBuildOptions(flags: BuildFlags, given: ReadonlySet<string>): BuildOptions {
  const tags = [...new Set(flags.tags)];
  checkTags(tags, flags);
  checkPlatforms(flags.platform, "--platform");
  const { naming, warnings } = chooseNaming(flags);
  const sbom = readSbomFlags(flags, given);
  return {
    publish: {
      naming,
      tags: { names: tags, only: flags["tag-only"] },
      files: listFiles(flags),
      imageRefs: flags["image-refs"] || undefined,
      also: flags["also-push"],
      push: given.has("push") ? flags.push : undefined,
      local: flags.local,
      insecureRegistry: flags["insecure-registry"],
      compression:
        flags.compression !== "" && given.has("compression") ? readCompression(flags.compression) : undefined,
      sbom,
    },
    platforms: flags.platform,
    jobs: flags.jobs,
    reuse: given.has("reuse") ? readReuse(flags.reuse, "--reuse") : undefined,
    disableOptimizations: flags["disable-optimizations"],
    debug: readDebugFlags(flags, given),
    ldflags: given.has("ldflags") ? readLdflags(flags.ldflags) : undefined,
    labels: readPairs(flags["image-label"], "--image-label"),
    annotations: readPairs(flags["image-annotation"], "--image-annotation"),
    user: flags["image-user"] || undefined,
    image: readImageFlags(flags, given),
    explain: flags.explain,
    timing: readTimingOutput(flags),
    warnings:
      sbom === undefined && flags["sbom-dir"] !== ""
        ? [...warnings, "--sbom-dir has no effect: --sbom=none takes precedence"]
        : warnings,
  };
}

/**
 * Reads the flags of the report. They come first: the report has the errors of all other flags.
 *
 * @throws {UsageError} If a result would go to stdout, or the mode is not known.
 */
export function readReportFlags(flags: BuildFlags): ReportFlags {
  return {
    progress: readProgress(flags.progress),
    metadata: readFile(flags["metadata-file"], "--metadata-file"),
    dotenv: readFile(flags.dotenv, "--dotenv"),
    events: flags.events || undefined,
    isGithubOutput: flags["github-output"],
  };
}

/**
 * Chooses the platforms to build for: those of `--platform`, else those of the configuration, else `GOOS/GOARCH` if both
 * are set (with `GOARM` as the variant of `arm`), else the fallback, such as the platform of a local daemon.
 *
 * @param requested the values of `--platform`
 * @returns platforms that `parsePlatform()` accepts, or `all` or `cluster` alone
 * @throws {UsageError} As {@link checkPlatforms} and {@link refuseCluster}, or if GOOS, GOARCH or GOARM are set beside
 *   another choice.
 */
export async function choosePlatforms(
  requested: readonly string[],
  options: ChoosePlatformsOptions,
): Promise<ChosenPlatforms> {
  const { env, mayBeCluster = false } = options;
  checkPlatforms(requested, "--platform");
  checkPlatforms(options.defaults, "defaultPlatforms");
  if (!mayBeCluster) refuseCluster(requested);
  const withoutCluster = !mayBeCluster && requested.length === 0 && options.defaults.includes(CLUSTER_PLATFORMS);
  const defaults = withoutCluster ? [] : options.defaults;
  const platforms = requested.length > 0 ? requested : defaults;
  const source = requested.length > 0 ? "--platform" : "defaultPlatforms";
  const [goos, goarch, goarm] = [env["GOOS"] || undefined, env["GOARCH"] || undefined, env["GOARM"] || undefined];
  if (platforms.length > 0) {
    for (const [name, value] of Object.entries({ GOOS: goos, GOARCH: goarch, GOARM: goarm })) {
      if (value === undefined) continue;
      throw new UsageError(
        `Cannot use ${source} "${platforms.join(",")}": the environment says ${name}="${value}" too, one of them is wanted`,
        { hint: `Type "unset GOOS GOARCH GOARM", or leave ${source} out.` },
      );
    }
    return { platforms, source, withoutCluster };
  }
  if (goos === undefined || goarch === undefined) {
    return { platforms: [(await options.fallback?.()) ?? FALLBACK], source: undefined, withoutCluster };
  }
  // GOARM may have a float mode after a comma. It has no meaning for other architectures.
  const variant = goarch === "arm" && goarm !== undefined ? `/v${goarm.replace(/,.*$/s, "")}` : "";
  const chosen = `${goos}/${goarch}${variant}`;
  checkPlatforms([chosen], "GOOS, GOARCH and GOARM");
  return { platforms: [chosen], source: "GOOS and GOARCH", withoutCluster };
}

/** @throws {UsageError} If the values of `--platform` make the output depend on a cluster. */
export function refuseCluster(requested: readonly string[]): void {
  if (!requested.includes(CLUSTER_PLATFORMS)) return;
  throw new UsageError(
    `Cannot use --platform "${CLUSTER_PLATFORMS}" here: it is for ko apply, create and run, other output must not depend on a context of kubectl`,
    { hint: "Name the platforms, as in --platform=linux/amd64,linux/arm64" },
  );
}

/** Whether the flags ask for the nodes of the cluster. A local target knows its platform itself. */
export function asksNodes({ platforms, publish }: BuildOptions, env: Readonly<Record<string, string>>): boolean {
  const isLocal = publish.local || /^\w+\.local(?:\/|$)/.test(env["KO_DOCKER_REPO"] ?? "");
  return platforms.includes(CLUSTER_PLATFORMS) && !isLocal;
}

/** For the log with `-v`. */
export const CLUSTER_IGNORED: string = `defaultPlatforms: ${CLUSTER_PLATFORMS} counts for ko apply, create and run only`;

/** The platform that arguments are listed for: its build constraints decide which packages are programs. */
export function firstPlatform([first]: readonly string[]): Platform | undefined {
  return first === undefined || first === ALL_PLATFORMS ? undefined : parsePlatform(first);
}

function listFiles(flags: BuildFlags): readonly FilePlace[] {
  const { tarball, "oci-archive": ociArchive, "oci-layout-path": layout } = flags;
  const files: FilePlace[] = [];
  if (layout !== "") files.push({ kind: "layout", path: layout });
  if (tarball !== "") files.push({ kind: "tarball", file: tarball });
  if (ociArchive !== "") files.push({ kind: "oci-archive", file: ociArchive });
  return files;
}

/**
 * Reads `--timing`.
 *
 * @throws {UsageError} If the timing would go to stdout, where the results are.
 */
function readTimingOutput({ timing }: Pick<BuildFlags, "timing">): TimingOutput | undefined {
  if (timing === "-") {
    throw new UsageError('Cannot use --timing="-": stdout is for the results, a file is wanted', {
      hint: "Use --timing alone for a table on stderr.",
    });
  }
  if (typeof timing === "string") return { file: timing, format: /\.html$/i.test(timing) ? "page" : "trace" };
  return timing ? "table" : undefined;
}

function readFile(file: string, flag: string): string | undefined {
  if (file !== "-") return file || undefined;
  throw new UsageError(`Cannot use ${flag}="-": stdout is for the results, a file is wanted`, {
    hint: "Name a file. On Linux and macOS, /dev/stderr is one.",
  });
}

function readProgress(text: string): ProgressMode {
  const mode = PROGRESS_MODES.find((each) => each === text);
  if (mode !== undefined) return mode;
  throw new UsageError(`Cannot use --progress="${text}": wanted ${PROGRESS_MODES.join(", ")}`);
}

function checkTags(tags: readonly string[], flags: BuildFlags): void {
  const shown = `--tags="${flags.tags.join(",")}"`;
  for (const tag of tags) {
    const why = whyBadTag(tag);
    if (why !== undefined) throw new UsageError(`Cannot use ${shown}: ${why}`);
  }
  if (!flags["tag-only"]) return;
  const hint = "Name the tag, as in --tag-only --tags v1.2.3";
  if (tags.length !== 1 && (flags.push || tags.length === 0)) {
    throw new UsageError(`Cannot use --tag-only: there are ${tags.length} tags, wanted exactly one`, { hint });
  }
  if (flags.push && tags.includes("latest")) {
    throw new UsageError(`Cannot use --tag-only: the tag is "latest", wanted one that stays with its image`, { hint });
  }
}

/** Chooses how images are named; warns of flags that another one beats. */
export function chooseNaming(flags: Pick<BuildFlags, "preserve-import-paths" | "base-import-paths" | "bare">): {
  readonly naming: Naming | undefined;
  readonly warnings: readonly string[];
} {
  const choices = [
    ["preserve", "preserve-import-paths"],
    ["base", "base-import-paths"],
    ["bare", "bare"],
  ] as const;
  const [chosen, ...ignored] = choices.filter(([, flag]) => flags[flag]);
  if (chosen === undefined) return { naming: undefined, warnings: [] };
  const [naming, flag] = chosen;
  return { naming, warnings: ignored.map(([, other]) => `--${other} has no effect: --${flag} takes precedence`) };
}

function readCompression(text: string): Compression {
  const fail = (why: string): UsageError => new UsageError(`Cannot use --compression="${text}": ${why}`);
  const [kind = "", ...rest] = text.split(":");
  const level = rest.length === 0 ? undefined : rest.join(":");
  switch (kind) {
    case "gzip": {
      if (level === undefined) return FAST_GZIP;
      const found = GZIP_LEVELS.find((number) => String(number) === level);
      if (found === undefined) throw fail(`the level is "${level}", wanted 1 (fast) to 9 (small)`);
      return { kind, level: found };
    }
    case "none":
    case "zstd":
      if (level !== undefined) throw fail(`${kind} has no level, only gzip has`);
      return { kind };
    default: {
      const nearest = findNearest(kind, ["gzip", "none", "zstd"]);
      throw fail(
        `wanted gzip, gzip:1 to gzip:9, zstd or none${nearest === undefined ? "" : `, the nearest is "${nearest}"`}`,
      );
    }
  }
}

function readSbomFlags(flags: BuildFlags, given: ReadonlySet<string>): SbomFlags | undefined {
  switch (flags.sbom) {
    case "none":
      return undefined;
    case "":
    case "spdx":
      return { dir: flags["sbom-dir"] || undefined, isExplicit: given.has("sbom") && flags.sbom !== "" };
    default: {
      const nearest = findNearest(flags.sbom, ["spdx", "none"]);
      const near = nearest === undefined ? "" : `, the nearest is "${nearest}"`;
      throw new UsageError(`Cannot use --sbom="${flags.sbom}": wanted spdx or none${near}`);
    }
  }
}

function readDebugFlags(flags: BuildFlags, given: ReadonlySet<string>): DebugSettings | undefined {
  const { debug, "debug-continue": isContinuing, "debug-port": port } = flags;
  if (!debug) {
    const [alone] = [isContinuing ? ["debug-continue"] : [], given.has("debug-port") ? ["debug-port"] : []].flat();
    if (alone === undefined) return undefined;
    throw new UsageError(`Cannot use --${alone}: it is for a debugger, and --debug is not set`, {
      hint: "Add --debug.",
    });
  }
  if (port > MAX_PORT) throw new UsageError(`Cannot use --debug-port="${port}": wanted 1 to ${MAX_PORT}`);
  return { isContinuing, port: given.has("debug-port") ? port : undefined };
}

/**
 * Splits the texts of `--ldflags`. The original takes each for a line of CSV, which tears values with commas; here only a
 * comma before a dash separates, and quotes round a whole field count as in CSV.
 */
function readLdflags(texts: readonly string[]): readonly Word[] {
  const fields = texts.flatMap((text) => {
    const found: string[] = [];
    for (let at = 0; at <= text.length;) {
      const quoted = /"((?:[^"]|"")*)"(?=,|$)/y;
      quoted.lastIndex = at;
      const [whole, inner = ""] = quoted.exec(text) ?? [];
      const end = whole === undefined ? endOfField(text, at) : at + whole.length;
      found.push(whole === undefined ? text.slice(at, end) : inner.replaceAll('""', '"'));
      at = end + 1;
    }
    return found;
  });
  return fields.map((value) => ({ value, where: "--ldflags", setting: "--ldflags" }));
}

/** The next comma that a dash follows, outside of templates. */
function endOfField(text: string, start: number): number {
  for (let at = start; at < text.length; at++) {
    if (text.startsWith("{{", at)) at = endOfAction(text, at) - 1;
    else if (text.startsWith(",-", at)) return at;
  }
  return text.length;
}

/** The flags of settings of images, but for the original's three. */
const IMAGE_FLAGS = [
  ["env", "image-env"],
  ["workdir", "image-workdir"],
  ["ports", "image-port"],
  ["volumes", "image-volume"],
  ["cmd", "image-cmd"],
  ["stopSignal", "image-stop-signal"],
  ["entrypointArgs", "image-entrypoint-arg"],
] as const;

function readImageFlags(flags: BuildFlags, given: ReadonlySet<string>): ImageWords {
  return Object.fromEntries(
    IMAGE_FLAGS.flatMap(([key, name]) => {
      const value = flags[name];
      if (!given.has(name) || value === "") return [];
      return [[key, readImageFlag(key, `--${name}`, typeof value === "string" ? [value] : value)] as const];
    }),
  );
}

function readPairs(pairs: readonly string[], flag: string): ReadonlyMap<string, string> {
  return new Map(
    pairs.map((pair) => {
      const equals = pair.indexOf("=");
      if (equals > 0) return [pair.slice(0, equals), pair.slice(equals + 1)];
      const why = equals < 0 ? `there is no "="` : "the key is empty";
      throw new UsageError(`Cannot use ${flag}="${pair}": ${why}, wanted KEY=VALUE`, {
        hint: `Put a value that has a comma in quotes: ${flag} '"key=a,b"'`,
      });
    }),
  );
}

/** Of `--wait` without a time. */
const DEFAULT_WAIT_MS = 120_000;
const MS_OF_UNIT: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * Reads `--wait[=TIME]`.
 *
 * @returns milliseconds; undefined if ko does not wait
 * @throws {UsageError} If TIME is none, such as `2m`, `90s` or `1m30s`.
 */
export function readWait(value: boolean | string): number | undefined {
  if (typeof value === "boolean") return value ? DEFAULT_WAIT_MS : undefined;
  if (value === "true") return DEFAULT_WAIT_MS;
  if (value === "false") return undefined;
  const parts = [...value.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  const ms = parts.reduce((sum, [, number, unit = ""]) => sum + Number(number) * (MS_OF_UNIT[unit] ?? 0), 0);
  if (parts.map(([text]) => text).join("") === value && ms > 0) return ms;
  throw new UsageError(`Cannot use --wait="${value}": it is not a time`, {
    hint: "Write it as in --wait=90s or --wait=2m.",
  });
}
