/**
 * `ko base`: looks whether the tags of base images have newer digests, writes digests into `.ko.yaml`, keeps bases for later.
 *
 * The bases are those of the configuration that are in a registry; others have no newer version.
 */
import { join } from "node:path";
import { type Base, platformsIn } from "./base.ts";
import { type Cache, LazyCache } from "./cache.ts";
import { choosePlatforms } from "./cli-options.ts";
import { type Config, loadConfig, parseBase } from "./config.ts";
import { type Pin, writePins } from "./config-pins.ts";
import { BaseError, findNearest, KoError, settledValues, throwAll, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import { ALL_PLATFORMS, createPlatformMatcher, type Digest, isManifestType } from "./oci.ts";
import { Resources } from "./pipeline-resources.ts";
import { readTarget } from "./publish-destination.ts";
import { noTiming } from "./timing.ts";

export interface BasesRequest {
  /** The arguments. */
  readonly words: readonly string[];
  readonly json: boolean;
  /** The values of `--platform`. */
  readonly platforms: readonly string[];
  readonly insecureRegistry: boolean;
}

export interface BasesOutcome {
  /** For stdout. */
  readonly text: string;
  readonly exitCode: number;
}

/** A base image of the configuration. */
interface ConfiguredBase {
  /** As it is written. */
  readonly text: string;
  /** The name with a tag and without a digest; undefined if it is written with a digest alone. */
  readonly tagged: string | undefined;
  /** The digest that is written. */
  readonly pinned: Digest | undefined;
  /** Where it is set, `.ko.yaml:3:19` or a variable; empty if it is ko's default. */
  readonly from: readonly string[];
}

/** A base beside the image that its tag names now. */
export interface BaseState extends ConfiguredBase {
  /** "unpinned": each build takes the newest. "untagged": no tag says which is the newest. */
  readonly status: "current" | "old" | "unpinned" | "untagged";
  readonly newest: Digest | undefined;
  /** RFC 3339; undefined if it is not known. */
  readonly created: string | undefined;
  /** Platforms that only the pinned image has. */
  readonly lost: readonly string[];
  /** Platforms that a build would be for, and that the newest image lacks. */
  readonly missing: readonly string[];
}

interface LookOptions {
  readonly resources: Resources;
  readonly wanted: readonly string[];
}

/** A tag has moved: for scripts. */
const OLD = 3;
const VERSION = 1;
const WORDS = ["check", "pull", "update"];
/** Images that are made to have the same bytes each time have a time near 1970, or of the year 1. */
const REAL_TIME = "1980";
const CONFIG_FILE = ".ko.yaml";

/**
 * Runs `ko base check`, `ko base update` or `ko base pull`.
 *
 * @throws {UsageError} If the words or the configuration are wrong.
 * @throws {KoError} If a base cannot be read, or cannot be written.
 */
export async function runBases(
  request: BasesRequest,
  { host, log }: { readonly host: Host; readonly log: Log },
): Promise<BasesOutcome> {
  const [word = ""] = request.words;
  checkRequest(word, request);
  const config = await loadConfig(host);
  for (const warning of config.warnings) log.warn(warning);
  const bases = listBases(config, host.cwd);
  const { platforms } = await choosePlatforms(request.platforms, { defaults: config.defaultPlatforms, env: host.env });
  await using cache = new LazyCache(host, log);
  const context = { host, log, timing: noTiming, signal: host.signal, cache: cache.get() };
  const target = readTarget(config.dockerRepo);
  const isInsecure = request.insecureRegistry && target !== undefined && target.local === undefined;
  await using resources = new Resources({
    context,
    insecureHosts: isInsecure ? [target.host] : [],
    registries: config.registries,
    compress: true,
  });
  // "all" stands for all that the base has.
  const wanted = platforms.filter((platform) => platform !== ALL_PLATFORMS);
  if (word === "pull") return { text: await pull(bases, { cache: cache.get(), resources, wanted, host }), exitCode: 0 };
  const looks = await Promise.allSettled(bases.map((base) => lookAt(base, { resources, wanted })));
  host.signal.throwIfAborted();
  const states = settledValues(looks);
  if (bases.length === 0) log.info("No base image of the configuration is in a registry");
  if (word === "update") return { text: await update(states, { config, host, log }), exitCode: 0 };
  const text = request.json
    ? `${JSON.stringify({ version: VERSION, bases: states.map(describe) }, undefined, 2)}\n`
    : states.map(formatState).join("");
  return { text, exitCode: states.some(({ status }) => status === "old") ? OLD : 0 };
}

function checkRequest(word: string, { json }: BasesRequest): void {
  if (!WORDS.includes(word)) {
    const nearest = findNearest(word, WORDS);
    const near = nearest === undefined ? "" : `, the nearest is "${nearest}"`;
    throw new UsageError(`Cannot run "ko base ${word}": "ko base" has no such command${near}`, {
      hint: 'Type "ko base check" to look for newer bases, "ko base update" to write their digests, "ko base pull" to keep them.',
    });
  }
  if (json && word !== "check") {
    throw new UsageError(`Cannot use --json with "ko base ${word}": it is for "ko base check"`, {
      hint: "Leave --json out.",
    });
  }
}

/** The bases that are in a registry, each once. */
function listBases(config: Config, cwd: string): readonly ConfiguredBase[] {
  const { baseImageOverrides, defaultBaseImage, origins } = config;
  const found = new Map<string, string[]>([
    [defaultBaseImage, origins.defaultBaseImage === undefined ? [] : [origins.defaultBaseImage]],
  ]);
  for (const [importPath, text] of baseImageOverrides) {
    const where = origins.baseImageOverrides.get(importPath);
    found.set(text, [...(found.get(text) ?? []), ...(where === undefined ? [] : [where])]);
  }
  return Array.from(found).flatMap(([text, from]) => {
    const spec = parseBase(text, cwd);
    if (spec.kind !== "registry" || spec.reference.host === "ko.local") return [];
    const { digest, tag } = spec.reference;
    const name = text.replace(/@.*$/, "");
    const isBare = !/:[^/]*$/.test(name);
    const tagged = tag === undefined ? undefined : isBare ? `${name}:${tag}` : name;
    return [{ text, tagged, pinned: digest, from: [...new Set(from)] }];
  });
}

async function lookAt(base: ConfiguredBase, { resources, wanted }: LookOptions): Promise<BaseState> {
  const { pinned, tagged, text } = base;
  const nothing = { newest: undefined, created: undefined, lost: [], missing: [] };
  if (tagged === undefined) return { ...base, ...nothing, status: "untagged" };
  const found = await resources.base(tagged);
  const { digest: newest } = found;
  const { found: has, has: platforms } = await platformsIn(found, wanted, createPlatformMatcher);
  const missing = wanted.filter((platform) => !has.includes(platform));
  const created = await readTime(found);
  const status = pinned === undefined ? "unpinned" : pinned === newest ? "current" : "old";
  const before = status === "old" ? await platformsOfPinned(resources.base(text)) : [];
  const lost = before.filter((platform) => !platforms.includes(platform));
  return { ...base, status, newest, created, lost, missing };
}

/** None if the registry has removed the image: then nothing can be compared. */
async function platformsOfPinned(reading: Promise<Base>): Promise<readonly string[]> {
  try {
    return (await platformsIn(await reading, [], createPlatformMatcher)).has;
  } catch (error) {
    if (error instanceof KoError) return [];
    throw error;
  }
}

/** When the first image of a base was made. */
async function readTime(base: Base): Promise<string | undefined> {
  const first = base.entries?.find(
    ({ mediaType, platform }) => isManifestType(mediaType) && platform?.os !== "unknown",
  );
  if (base.entries !== undefined && first === undefined) return undefined;
  const { config } = await base.image(first);
  return config.created !== undefined && config.created > REAL_TIME ? config.created : undefined;
}

/** Keeps all bases. The errors of all that fail are reported together. */
async function pull(
  bases: readonly ConfiguredBase[],
  { host, resources, ...options }: LookOptions & { readonly cache: Cache | undefined; readonly host: Host },
): Promise<string> {
  const { pullBase } = await import("./bases-pull.ts");
  const pulls = await Promise.allSettled(
    bases.map(async ({ text }) => pullBase(await resources.base(text), { ...options, signal: host.signal })),
  );
  host.signal.throwIfAborted();
  return settledValues(pulls).join("");
}

function formatState({ created, from, lost, missing, newest, pinned, status, tagged, text }: BaseState): string {
  const time = created === undefined ? "" : `, made ${created.slice(0, 10)}`;
  const places = from.length === 0 ? "the default" : from.join(", ");
  const line = {
    old: `old       ${tagged} (${places}): ${pinned} is now ${newest}${time}`,
    current: `current   ${tagged} (${places}): ${newest}${time}`,
    unpinned: `unpinned  ${tagged} (${places}): ${newest}${time}`,
    untagged: `untagged  ${text} (${places}): no tag says which is the newest`,
  }[status];
  return [
    line,
    ...(lost.length === 0 ? [] : [`          lost: ${lost.join(", ")}`]),
    ...(missing.length === 0 ? [] : [`          lacks: ${missing.join(", ")}`]),
    "",
  ].join("\n");
}

function describe(state: BaseState): Readonly<Record<string, unknown>> {
  const { created = null, from, lost, missing, newest = null, pinned = null, status, text } = state;
  return { base: text, from, status, pinned, newest, created, lost, missing };
}

/** Writes the newest digests. All or none: a base that lacks a platform is written nowhere. */
async function update(
  states: readonly BaseState[],
  { config, host, log }: { readonly config: Config; readonly host: Host; readonly log: Log },
): Promise<string> {
  throwAll(
    states.flatMap(({ missing, newest, tagged }) => {
      if (missing.length === 0) return [];
      return new BaseError(`Cannot update base "${tagged}": its newest image ${newest} lacks ${missing.join(", ")}`, {
        hint: "Keep the old digest, or choose platforms: --platform, or defaultPlatforms in .ko.yaml.",
      });
    }),
  );
  const pins: Pin[] = [];
  const lines: string[] = [];
  for (const { from, lost, newest, status, tagged, text } of states) {
    if (status === "untagged") log.warn(`Base "${text}" is not updated: no tag says which is the newest`);
    if (tagged === undefined || newest === undefined || status === "current") continue;
    const to = `${tagged}@${newest}`;
    const variable = from.find((place) => place.startsWith("KO_"));
    if (variable !== undefined) {
      log.warn(`${variable} is not updated, because it is no file: write ${to} there instead of ${text}`);
      continue;
    }
    if (lost.length > 0) log.warn(`Base "${tagged}" has lost ${lost.join(", ")}`);
    const isAdded = from.length === 0;
    pins.push(...(isAdded ? [{ where: undefined, from: text, to }] : from.map((where) => ({ where, from: text, to }))));
    lines.push(`${isAdded ? CONFIG_FILE : from.join(", ")}: ${to}\n`);
  }
  if (pins.length > 0) await writePins(config.source ?? join(host.cwd, CONFIG_FILE), pins);
  else log.info("Nothing was written");
  return lines.join("");
}
