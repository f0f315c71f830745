/**
 * Checks the flags of building commands against each other, and gives them the names that code uses.
 *
 * Needs neither network nor configuration: oci.ts chooses the platforms.
 */
import type { BuildFlags } from "./cli-parse.ts";
import { type Compression, FAST_GZIP, type GzipLevel } from "./compress.ts";
import { findNearest, UsageError } from "./errors.ts";
import { checkPlatforms } from "./oci.ts";
import type { FilePlace, PublishFlags } from "./publish-destination.ts";
import { type Naming, whyBadTag } from "./reference.ts";
import type { TimingOutput } from "./timing.ts";

export interface BuildOptions {
  readonly publish: PublishFlags;
  /** The values of `--platform`; empty without the flag. */
  readonly platforms: readonly string[];
  /** Maximum number of compilers, linkers and layers at work at once; 0 chooses by the machine. */
  readonly jobs: number;
  readonly disableOptimizations: boolean;
  readonly labels: ReadonlyMap<string, string>;
  readonly annotations: ReadonlyMap<string, string>;
  readonly user: string | undefined;
  /** Report for each image whether it was reused, and if not, why. */
  readonly explain: boolean;
  /** Where to report the time that each step took; undefined: nowhere. */
  readonly timing: TimingOutput | undefined;
  /** Notes about the choice of flags, to be logged. */
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
    publish: {
      naming,
      tags: { names: tags, only: flags["tag-only"] },
      files: listFiles(flags),
      imageRefs: flags["image-refs"] || undefined,
      push: given.has("push") ? flags.push : undefined,
      local: flags.local,
      insecureRegistry: flags["insecure-registry"],
      compression: given.has("compression") ? readCompression(flags.compression) : undefined,
    },
    platforms: flags.platform,
    jobs: flags.jobs,
    disableOptimizations: flags["disable-optimizations"],
    labels: readPairs(flags["image-label"], "--image-label"),
    annotations: readPairs(flags["image-annotation"], "--image-annotation"),
    user: flags["image-user"] || undefined,
    explain: flags.explain,
    timing: readTimingOutput(flags),
    warnings,
  };
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
