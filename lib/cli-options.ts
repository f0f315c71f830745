/**
 * What the flags of `ko build` mean together: checked before any work, with names that code uses.
 *
 * Needs neither the network nor the configuration; platforms from those are chosen in oci.ts.
 */
import type { BuildFlags } from "./cli-parse.ts";
import { type Compression, FAST_GZIP, type GzipLevel } from "./compress.ts";
import { findNearest, UsageError } from "./errors.ts";
import { checkPlatforms } from "./oci.ts";
import { type Naming, whyBadTag } from "./reference.ts";
import type { TimingOutput } from "./timing.ts";

export interface BuildOptions {
  readonly naming: Naming;
  /** In the order given, each once. Empty only if nothing is pushed. */
  readonly tags: readonly string[];
  /** The reference shows no digest; `tags` then has exactly one that is not `latest`, if there is a push. */
  readonly tagOnly: boolean;
  readonly push: boolean;
  /** `--push` was written: a missing KO_DOCKER_REPO is then an error whatever else is asked for. */
  readonly pushGiven: boolean;
  /** As {@link checkPlatforms} takes them; empty if not given. */
  readonly platforms: readonly string[];
  readonly imageRefs: string | undefined;
  readonly layoutPath: string | undefined;
  readonly tarball: string | undefined;
  readonly ociArchive: string | undefined;
  /** `-L`: into the local daemon, whatever KO_DOCKER_REPO says. */
  readonly local: boolean;
  readonly insecureRegistry: boolean;
  /** 0 means: as many as there are processors. */
  readonly jobs: number;
  readonly disableOptimizations: boolean;
  readonly compression: Compression;
  /** `--compression` was written: the user should hear of it if it has no effect. */
  readonly compressionGiven: boolean;
  readonly labels: ReadonlyMap<string, string>;
  readonly annotations: ReadonlyMap<string, string>;
  readonly user: string | undefined;
  /** Tell for each image whether it was reused, and if not, why. */
  readonly explain: boolean;
  /** Where to tell where the time went; undefined: nowhere. */
  readonly timing: TimingOutput | undefined;
  /** What the user should know of the choice of flags, to be logged. */
  readonly warnings: readonly string[];
}

const GZIP_LEVELS: readonly GzipLevel[] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

/**
 * Checks the flags of a build against each other.
 *
 * @param given the flags that the user wrote
 * @throws {UsageError} If a tag, a platform, a label, an annotation or the compression is malformed, or flags contradict
 * each other.
 */
export function readBuildOptions(flags: BuildFlags, given: ReadonlySet<string>): BuildOptions {
  const tags = [...new Set(flags.tags)];
  checkTags(tags, flags);
  checkPlatforms(flags.platform, "--platform");
  const { naming, warnings } = chooseNaming(flags);
  return {
    naming,
    tags,
    tagOnly: flags["tag-only"],
    push: flags.push,
    pushGiven: given.has("push"),
    platforms: flags.platform,
    imageRefs: flags["image-refs"] || undefined,
    layoutPath: flags["oci-layout-path"] || undefined,
    tarball: flags.tarball || undefined,
    ociArchive: flags["oci-archive"] || undefined,
    local: flags.local,
    insecureRegistry: flags["insecure-registry"],
    jobs: flags.jobs,
    disableOptimizations: flags["disable-optimizations"],
    compression: readCompression(flags.compression),
    compressionGiven: given.has("compression"),
    labels: readPairs(flags["image-label"], "--image-label"),
    annotations: readPairs(flags["image-annotation"], "--image-annotation"),
    user: flags["image-user"] || undefined,
    explain: flags.explain,
    timing: readTimingOutput(flags),
    warnings,
  };
}

/**
 * What `--timing` asks for, for those who need it before all else is read.
 *
 * @throws {UsageError} If it is to go to stdout, where the results are.
 */
export function readTimingOutput({ timing }: Pick<BuildFlags, "timing">): TimingOutput | undefined {
  if (timing === "-") {
    throw new UsageError('Cannot use --timing="-": stdout is for the results, a file is wanted', {
      hint: "--timing alone shows a table on stderr.",
    });
  }
  if (typeof timing === "string") return { file: timing };
  return timing ? "table" : undefined;
}

function checkTags(tags: readonly string[], flags: BuildFlags): void {
  const shown = `--tags="${flags.tags.join(",")}"`;
  for (const tag of tags) {
    const why = whyBadTag(tag);
    if (why !== undefined) throw new UsageError(`Cannot use ${shown}: ${why}`);
  }
  if (flags.push && tags.length === 0) {
    // The original pushes nothing at all then, and reports success.
    throw new UsageError(`Cannot use ${shown}: there is no tag, wanted at least one for a push`, {
      hint: "Leave --tags out to push the tag latest.",
    });
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

function chooseNaming(flags: BuildFlags): { readonly naming: Naming; readonly warnings: readonly string[] } {
  const choices = [
    ["preserve", "preserve-import-paths"],
    ["base", "base-import-paths"],
    ["bare", "bare"],
  ] as const;
  const [chosen, ...ignored] = choices.filter(([, flag]) => flags[flag]);
  if (chosen === undefined) return { naming: "md5", warnings: [] };
  const [naming, flag] = chosen;
  return { naming, warnings: ignored.map(([, other]) => `--${other} has no effect: --${flag} is set and beats it`) };
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

function readPairs(pairs: readonly string[], flag: string): ReadonlyMap<string, string> {
  return new Map(
    pairs.map((pair) => {
      const equals = pair.indexOf("=");
      if (equals > 0) return [pair.slice(0, equals), pair.slice(equals + 1)];
      const why = equals < 0 ? `there is no "="` : "the key is empty";
      throw new UsageError(`Cannot use ${flag}="${pair}": ${why}, wanted KEY=VALUE`, {
        hint: `A comma begins the next pair; one inside a value wants quotes: ${flag} '"key=a,b"'`,
      });
    }),
  );
}
