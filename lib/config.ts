/**
 * The configuration of a run, from environment variables and `.ko.yaml` (config-file.ts).
 *
 * As in the original, the environment takes precedence over the file. Unlike there, misspelled keys and malformed JSON
 * are errors.
 */
import { dirname, relative, resolve } from "node:path";
import {
  type BuildEntry,
  type BuildWords,
  NO_WORDS,
  readBuilds,
  readDefault,
  readDefaultVariable,
} from "./config-builds.ts";
import { type CacheSettings, readCache } from "./config-cache.ts";
import {
  AUTO,
  type ConfigValue,
  findAbove,
  findConfigFile,
  readConfigFile,
  type Setting,
  splitList,
} from "./config-file.ts";
import { type ImageWords, readImage } from "./config-image.ts";
import { moveBase, moveEntry, moveOverrides } from "./config-move.ts";
import { type PlaceSettings, readNaming, readRepo, readSbom } from "./config-places.ts";
import { listProfiles, readProfile } from "./config-profiles.ts";
import { addUserRegistries, readRegistries, type Registries } from "./config-registries.ts";
import { checkKeys, KeyNotes } from "./config-keys.ts";
import { findNearest, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject, parseJson } from "./json.ts";
import { checkPlatforms } from "./oci.ts";
import { parseReference, type Reference } from "./reference.ts";

export interface Config {
  /** A valid argument of {@link parseBase}. */
  readonly defaultBaseImage: string;
  /** Valid arguments of {@link parseBase}, by lower-cased import path. */
  readonly baseImageOverrides: ReadonlyMap<string, string>;
  /** Empty if not set. */
  readonly defaultPlatforms: readonly string[];
  /** `builds:` */
  readonly builds: readonly BuildEntry[];
  /** `defaultEnv`, `defaultFlags` and `defaultLdflags`, for programs and settings without a value in `builds`. */
  readonly defaults: BuildWords;
  /** `image:`, the settings of the images of all programs. */
  readonly image: ImageWords;
  /** `cache:` */
  readonly cache: CacheSettings;
  /** `registries:`, and the user's own. */
  readonly registries: Registries;
  /** The names of `profiles:`. */
  readonly profiles: readonly string[];
  /** `SOURCE_DATE_EPOCH`: the creation time of images, in seconds since 1970. */
  readonly sourceDateEpoch: number | undefined;
  /** `KO_DATA_DATE_EPOCH`: the modification time of kodata files, in seconds since 1970. */
  readonly koDataDateEpoch: number | undefined;
  /** `KO_DOCKER_REPO`, unchecked, else `repo` of the file; undefined if both are empty. */
  readonly dockerRepo: string | undefined;
  /** `repo`, `naming` and `sbom` of the file. */
  readonly places: PlaceSettings;
  /** `KO_GO_PATH`: a program on PATH, or a path. */
  readonly goPath: string;
  /** The absolute path of the configuration file. */
  readonly source: string | undefined;
  readonly origins: ConfigOrigins;
  /** A line for each key of the file that ko does not know. */
  readonly warnings: readonly string[];
}

/** Where settings are from: `.ko.yaml:3:19`, or a variable. Undefined for a default. Words have their own origins. */
export interface ConfigOrigins {
  readonly defaultBaseImage: string | undefined;
  /** By lower-cased import path. */
  readonly baseImageOverrides: ReadonlyMap<string, string>;
  readonly defaultPlatforms: string | undefined;
}

/** A parsed name of a base image. */
export type BaseName =
  | { readonly kind: "registry"; readonly reference: Reference }
  /** `ko.builtin/static`, which ko makes itself. */
  | { readonly kind: "builtin" }
  | { readonly kind: "scratch" }
  /** An image in an OCI layout: the absolute path of the layout, and the tag or name of the image. */
  | { readonly kind: "layout"; readonly path: string; readonly tag: string | undefined };

export const DEFAULT_BASE_IMAGE = "gcr.io/distroless/static:nonroot";
/** The base image that needs no network. */
export const BUILTIN_BASE_IMAGE = "ko.builtin/static";

/** The last second of the year 9999, the latest time in JSON (RFC 3339). */
const MAX_EPOCH = 253402300799;

/** The keys of the file. */
export const KEYS = [
  "defaultBaseImage",
  "baseImageOverrides",
  "defaultPlatforms",
  "builds",
  "defaultEnv",
  "defaultFlags",
  "defaultLdflags",
  "image",
  "registries",
  "cache",
  "repo",
  "naming",
  "sbom",
  "profiles",
] as const;

const PROFILE_KEYS = KEYS.filter((key) => key !== "profiles");

/**
 * Reads the configuration of a run.
 *
 * @throws {UsageError} If a setting is invalid; the message names file, line and column, or the variable.
 * @throws {KoErrors} If several settings of the file are invalid.
 */
export async function loadConfig({ env, cwd }: Pick<Host, "env" | "cwd">): Promise<Config> {
  const path = await findConfigFile({ env, cwd });
  const profile = env["KO_PROFILE"] || undefined;
  if (profile !== undefined && path === undefined) {
    throw new UsageError(`Cannot use profile "${profile}": there is no .ko.yaml that could have it`);
  }
  const file =
    path === undefined
      ? NO_SETTINGS
      : readSettings((await readConfigFile(path, cwd)).root, { folder: dirname(path), profile });
  const isFound = env["KO_CONFIG_PATH"] === AUTO && path !== undefined;
  // Paths in a file that was searched for are relative to its folder.
  const move = isFound && dirname(path) !== cwd ? { from: relative(cwd, dirname(path)) } : undefined;
  const { registries, warnings } = await addUserRegistries(file.registries, { env, cwd });
  if (env["KO_BUILDS"]) {
    throw new UsageError("Cannot use KO_BUILDS: builds can be set in .ko.yaml only", { hint: "Type: unset KO_BUILDS" });
  }
  const base = fromEnv(env, "KO_DEFAULTBASEIMAGE") ?? moveBase(file.defaultBaseImage, move);
  const platforms = fromEnv(env, "KO_DEFAULTPLATFORMS");
  const defaultPlatforms =
    platforms === undefined ? file.defaultPlatforms : { value: splitList(platforms.value), where: platforms.where };
  if (base !== undefined) checkBase(base, { cwd, setting: "defaultBaseImage" });
  if (defaultPlatforms !== undefined) {
    checkPlatforms(defaultPlatforms.value, `${defaultPlatforms.where}: defaultPlatforms`);
  }
  const overrides = collectOverrides(readOverridesVariable(env) ?? moveOverrides(file.baseImageOverrides, move), cwd);
  return Object.freeze({
    defaultBaseImage: base?.value ?? DEFAULT_BASE_IMAGE,
    baseImageOverrides: new Map(Array.from(overrides, ([key, { value }]) => [key, value])),
    defaultPlatforms: defaultPlatforms?.value ?? [],
    builds: move === undefined ? file.builds : file.builds.map((entry) => moveEntry(entry, move)),
    defaults: {
      env: readWords(env, "KO_DEFAULTENV", "env") ?? file.defaults.env,
      flags: readWords(env, "KO_DEFAULTFLAGS", "flags") ?? file.defaults.flags,
      ldflags: readWords(env, "KO_DEFAULTLDFLAGS", "ldflags") ?? file.defaults.ldflags,
    },
    image: file.image,
    registries,
    cache: file.cache,
    profiles: file.profiles,
    sourceDateEpoch: readEpoch(env, "SOURCE_DATE_EPOCH"),
    koDataDateEpoch: readEpoch(env, "KO_DATA_DATE_EPOCH"),
    dockerRepo: env["KO_DOCKER_REPO"] || file.places.repo?.value,
    places: file.places,
    goPath: readGoPath(env),
    source: path,
    origins: {
      defaultBaseImage: base?.where,
      baseImageOverrides: new Map(Array.from(overrides, ([key, { where }]) => [key, where])),
      defaultPlatforms: defaultPlatforms?.where,
    },
    warnings: [
      ...file.warnings,
      ...warnings,
      ...(path === undefined && !env["KO_CONFIG_PATH"] ? tellOfAbove(cwd) : []),
    ],
  });
}

/** `KO_GO_PATH`, else `go`. */
export function readGoPath(env: Host["env"]): string {
  return env["KO_GO_PATH"] || "go";
}

/**
 * Returns the name of the base image for an import path: its override, else the default.
 *
 * @param importPath with or without `ko://`; case-insensitive
 */
export function baseFor(config: Config, importPath: string): string {
  return config.baseImageOverrides.get(overrideKey(importPath)) ?? config.defaultBaseImage;
}

/** Returns the origin of {@link baseFor}; undefined for the default. */
export function originOfBase({ origins }: Pick<Config, "origins">, importPath: string): string | undefined {
  return origins.baseImageOverrides.get(overrideKey(importPath)) ?? origins.defaultBaseImage;
}

/**
 * Parses the name of a base image: `gcr.io/distroless/static:nonroot`, `ko.builtin/static`, `scratch`, or
 * `oci:DIR[:TAG]`, where TAG is a tag or the full name of an image in the layout.
 *
 * @param cwd the absolute path that DIR is relative to
 * @throws {KoError} If the name has none of these forms.
 */
export function parseBase(text: string, cwd: string): BaseName {
  if (text === "scratch") return { kind: "scratch" };
  if (text === BUILTIN_BASE_IMAGE) return { kind: "builtin" };
  if (text.startsWith("oci:")) {
    const rest = text.slice("oci:".length);
    // As in skopeo, the first colon ends the folder, because TAG can hold colons. That of a Windows drive does not count.
    const colon = rest.indexOf(":", /^[A-Za-z]:[\\/]/.test(rest) ? 2 : 0);
    const tag = colon < 0 ? undefined : rest.slice(colon + 1);
    const folder = colon < 0 ? rest : rest.slice(0, colon);
    if (folder === "" || tag === "")
      throw new UsageError(`Cannot read "${text}" as a base image: wanted oci:DIR or oci:DIR:TAG`);
    return { kind: "layout", path: resolve(cwd, folder), tag };
  }
  if (/^ko\.builtin(?:[/:@]|$)/.test(text)) {
    throw new UsageError(
      `Cannot read "${text}" as a base image: the only image of ko.builtin is "${BUILTIN_BASE_IMAGE}"`,
    );
  }
  if (/\s/.test(text) || text === "")
    throw new UsageError(`Cannot read "${text}" as a base image: wanted an image name`);
  return { kind: "registry", reference: parseReference(text) };
}

/**
 * Reads the name of an image in a registry.
 *
 * @param options.action for the error, such as "rebase"
 * @throws {UsageError} If it is malformed, or names an image elsewhere.
 */
export function parsePublished(
  text: string,
  { action, cwd }: { readonly action: string; readonly cwd: string },
): Reference {
  const spec = parseBase(text, cwd);
  if (spec.kind === "registry" && spec.reference.host !== "ko.local") return spec.reference;
  throw new UsageError(`Cannot ${action} "${text}": it is not in a registry`, {
    hint: "Name a published image, such as registry.example.com/team/web:v1.",
  });
}

function tellOfAbove(cwd: string): readonly string[] {
  const above = findAbove(cwd);
  if (above === undefined) return [];
  return [`${relative(cwd, above)} is not read, as it is above the working directory: --config=auto reads it`];
}

/** The settings of a file, checked by type only. */
interface FileSettings extends Pick<
  Config,
  "builds" | "cache" | "defaults" | "image" | "places" | "profiles" | "registries" | "warnings"
> {
  readonly defaultBaseImage: Setting<string> | undefined;
  /** Pairs of an import path, as written, and a base image. */
  readonly baseImageOverrides: readonly Setting<readonly [string, string]>[];
  readonly defaultPlatforms: Setting<readonly string[]> | undefined;
}

const NO_SETTINGS: FileSettings = {
  defaultBaseImage: undefined,
  baseImageOverrides: [],
  defaultPlatforms: undefined,
  builds: [],
  defaults: NO_WORDS,
  image: {},
  registries: new Map(),
  cache: { reuse: undefined },
  places: {},
  profiles: [],
  warnings: [],
};

interface ReadSettingsOptions {
  /** The absolute path of the file's folder. */
  readonly folder: string;
  /** The chosen profile. */
  readonly profile: string | undefined;
}

/**
 * @throws {UsageError | KoErrors} With all mistakes.
 */
function readSettings(root: ConfigValue, { folder, profile }: ReadSettingsOptions): FileSettings {
  const notes = new KeyNotes();
  const all = checkKeys(root.entries("the file"), { known: KEYS, section: "ko", notes });
  const entries = new Map([...all, ...readProfile(all.get("profiles"), { known: PROFILE_KEYS, notes, profile })]);
  const read = <T>(key: (typeof KEYS)[number], work: (value: ConfigValue, where: string) => T): T | undefined => {
    const entry = entries.get(key);
    if (entry === undefined || entry.value.isNull) return undefined;
    return notes.collect(() => work(entry.value, entry.where));
  };
  const settings = {
    defaultBaseImage: read("defaultBaseImage", (value): Setting<string> => value.text("defaultBaseImage")),
    baseImageOverrides: read("baseImageOverrides", readOverrides) ?? [],
    defaultPlatforms: read("defaultPlatforms", (value, where) => ({ value: readPlatforms(value), where })),
    builds: read("builds", (value) => readBuilds(value, notes)) ?? [],
    defaults: {
      env: read("defaultEnv", (value) => readDefault(value, "env", "defaultEnv")),
      flags: read("defaultFlags", (value) => readDefault(value, "flags", "defaultFlags")),
      ldflags: read("defaultLdflags", (value) => readDefault(value, "ldflags", "defaultLdflags")),
    },
    image: read("image", (value) => readImage(value, { name: "image", notes })) ?? {},
    profiles: listProfiles(all.get("profiles")),
    places: {
      repo: read("repo", readRepo),
      naming: read("naming", readNaming),
      sbom: read("sbom", readSbom),
    },
    cache: read("cache", (value) => readCache(value, notes)) ?? NO_SETTINGS.cache,
    registries:
      read("registries", (value) => readRegistries(value, { folder, name: "registries", notes })) ?? new Map(),
    warnings: notes.warnings,
  };
  notes.throwMistakes();
  return settings;
}

/** Reads a list of strings, or one string with commas or blanks between the items (viper splits at blanks). */
function readPlatforms(value: ConfigValue): readonly string[] {
  const items = value.items()?.map((item) => item.text("an item of defaultPlatforms").value);
  if (items === undefined && !value.isText) throw value.wrongType("defaultPlatforms", "a list of strings");
  return items ?? splitList(value.text("defaultPlatforms").value);
}

function readOverrides(value: ConfigValue): readonly Setting<readonly [string, string]>[] {
  return value.entries("baseImageOverrides").map((entry) => {
    const what = `baseImageOverrides["${entry.key}"]`;
    if (entry.value.isNull) {
      throw new UsageError(`Cannot use ${entry.where}: ${what} has no value, wanted a base image`);
    }
    const image = entry.value.text(what);
    return { value: [entry.key, image.value], where: image.where };
  });
}

function readWords(
  env: Readonly<Record<string, string>>,
  name: string,
  setting: keyof BuildWords,
): BuildWords[keyof BuildWords] {
  const text = env[name];
  return text === undefined || text === "" ? undefined : readDefaultVariable(text, setting, name);
}

function fromEnv(env: Readonly<Record<string, string>>, name: string): Setting<string> | undefined {
  const value = env[name];
  return value === undefined || value === "" ? undefined : { value, where: name };
}

interface CheckBaseOptions {
  readonly cwd: string;
  /** The setting in messages. */
  readonly setting: string;
}

function checkBase({ value, where }: Setting<string>, options: CheckBaseOptions): void {
  try {
    parseBase(value, options.cwd);
  } catch (cause) {
    const nearest = findNearest(value, ["scratch", BUILTIN_BASE_IMAGE]);
    const hint = nearest === undefined ? undefined : `Did you mean "${nearest}"?`;
    throw new UsageError(`Cannot use ${where}: ${options.setting} is not an image name`, { cause, hint });
  }
}

function readOverridesVariable(
  env: Readonly<Record<string, string>>,
): readonly Setting<readonly [string, string]>[] | undefined {
  const setting = fromEnv(env, "KO_BASEIMAGEOVERRIDES");
  if (setting === undefined) return undefined;
  const { where } = setting;
  const fail = (why: string): UsageError =>
    new UsageError(`Cannot use ${where}: ${why}, wanted a JSON object of strings`, {
      hint: `export ${where}='{"example.com/app/cmd/web": "gcr.io/distroless/base"}'`,
    });
  const value = parseJson(setting.value);
  if (value === undefined) throw fail("it is not JSON");
  if (!isObject(value)) throw fail("it is not a JSON object");
  return Object.entries(value).map(([key, image]) => {
    if (typeof image !== "string") throw fail(`the value of "${key}" is not a string`);
    return { value: [key, image], where };
  });
}

/** @throws {UsageError} If a base image is invalid, or an import path has two. */
function collectOverrides(
  overrides: readonly Setting<readonly [string, string]>[],
  cwd: string,
): ReadonlyMap<string, Setting<string>> {
  const collected = new Map<string, Setting<string>>();
  for (const { value, where } of overrides) {
    const [importPath, image] = value;
    if (/^(?:ko:\/\/)?(?:\.{0,2}\/|\.{1,2}$)/.test(importPath)) {
      throw new UsageError(
        `Cannot use ${where}: "${importPath}" in baseImageOverrides is a path, wanted an import path`,
      );
    }
    checkBase({ value: image, where }, { cwd, setting: `baseImageOverrides["${importPath}"]` });
    const key = overrideKey(importPath);
    const before = collected.get(key);
    if (before !== undefined && before.value !== image) {
      throw new UsageError(
        `Cannot use ${where}: baseImageOverrides already has "${before.value}" for "${importPath}" (case is ignored)`,
      );
    }
    collected.set(key, { value: image, where });
  }
  return collected;
}

function overrideKey(importPath: string): string {
  return importPath.replace(/^ko:\/\//, "").toLowerCase();
}

function readEpoch(env: Readonly<Record<string, string>>, name: string): number | undefined {
  const text = env[name];
  if (text === undefined || text === "") return undefined;
  const seconds = Number(text);
  if (/^\+?\d+$/.test(text) && seconds <= MAX_EPOCH) return seconds;
  throw new UsageError(`Cannot use ${name}="${text}": wanted whole seconds since 1970-01-01 00:00 UTC`, {
    hint: `export ${name}=$(git log -1 --format=%ct)`,
  });
}
