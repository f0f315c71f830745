/**
 * Platforms as a user names them (`linux/arm/v7`): reading, choosing the ones to build for, matching a base's.
 *
 * What a base image holds is not read here: build code asks the matcher for each entry of the base's index.
 */
import { KoError, UsageError } from "./errors.ts";
import type { Platform } from "./oci.ts";

export interface ChoosePlatformsOptions {
  /** `defaultPlatforms` of the configuration. */
  readonly defaults: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Asked only if nothing else says a platform. @default linux/amd64 */
  readonly fallback?: () => Promise<string>;
}

/** Every platform that the base image has. */
export const ALL_PLATFORMS = "all";

const FALLBACK = "linux/amd64";

/**
 * Reads `os[/architecture[/variant]][:os.version]`, such as `linux`, `linux/arm/v7`, `windows/amd64:10.0.20348`.
 *
 * A part that is not given is empty (`architecture`) or absent.
 *
 * @throws {KoError} If it has other parts, an empty one, or characters that no platform has.
 */
export function parsePlatform(text: string): Platform {
  const fail = (why: string): KoError =>
    new KoError(`Cannot read "${text}" as a platform: ${why}, wanted OS[/ARCHITECTURE[/VARIANT]]`, {
      hint: `"go tool dist list" shows what Go can build for.`,
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
  return {
    architecture,
    os,
    ...(version === undefined ? {} : { "os.version": version }),
    ...(variant === undefined ? {} : { variant }),
  };
}

/**
 * Which platforms to build for: what `--platform` asks, else the configuration's, else `GOOS/GOARCH` if both are set
 * (with `GOARM` as the variant of `arm`), else the fallback: a local daemon's own platform, or `linux/amd64`.
 *
 * @param requested the values of `--platform`
 * @returns platforms that {@link parsePlatform} takes, or `all` alone
 * @throws {UsageError} If one cannot be read, `all` stands beside others, or a choice contradicts GOOS, GOARCH or GOARM.
 */
export async function choosePlatforms(
  requested: readonly string[],
  options: ChoosePlatformsOptions,
): Promise<readonly string[]> {
  const { defaults, env } = options;
  const platforms = requested.length > 0 ? requested : defaults;
  const source = requested.length > 0 ? "--platform" : "defaultPlatforms";
  const [goos, goarch, goarm] = [env["GOOS"] || undefined, env["GOARCH"] || undefined, env["GOARM"] || undefined];
  if (platforms.length > 0) {
    checkPlatforms(platforms, source);
    for (const [name, value] of Object.entries({ GOOS: goos, GOARCH: goarch, GOARM: goarm })) {
      if (value === undefined) continue;
      throw new UsageError(
        `Cannot use ${source} "${platforms.join(",")}": the environment says ${name}="${value}" too, one of them is wanted`,
        { hint: `Type "unset GOOS GOARCH GOARM", or leave ${source} out.` },
      );
    }
    return platforms;
  }
  if (goos === undefined || goarch === undefined) return [(await options.fallback?.()) ?? FALLBACK];
  // GOARM may carry the float mode behind a comma; GOARM of another architecture says nothing.
  const variant = goarch === "arm" && goarm !== undefined ? `/v${goarm.replace(/,.*$/s, "")}` : "";
  const chosen = `${goos}/${goarch}${variant}`;
  checkPlatforms([chosen], "GOOS, GOARCH and GOARM");
  return [chosen];
}

/**
 * @param source who asks, for the message: `--platform`
 * @throws {UsageError} If one cannot be read, or `all` stands beside others.
 */
export function checkPlatforms(platforms: readonly string[], source: string): void {
  if (platforms.includes(ALL_PLATFORMS) && platforms.some((platform) => platform !== ALL_PLATFORMS)) {
    throw new UsageError(`Cannot use ${source} "${platforms.join(",")}": "all" stands beside others, wanted alone`, {
      hint: `Write "all", or name each platform.`,
    });
  }
  for (const platform of platforms) {
    if (platform === ALL_PLATFORMS) continue;
    try {
      parsePlatform(platform);
    } catch (cause) {
      throw new UsageError(`Cannot use ${source}`, { cause });
    }
  }
}

/**
 * Tells of each entry of a base's index whether it is asked for.
 *
 * Each part that is given must be equal; a Windows version `X.Y.Z` takes `X.Y.Z.BUILD` too. An entry whose operating
 * system or architecture is `unknown` holds attestations and is never taken; one without a platform only for `all`.
 *
 * @param platforms `all` alone, or platforms
 * @throws {KoError} If one cannot be read.
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
