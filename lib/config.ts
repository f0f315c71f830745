/**
 * The configuration of a run, from environment variables and `.ko.yaml` (config-file.ts).
 *
 * As in the original, the environment takes precedence over the file. Unlike there, unknown keys and malformed JSON are
 * errors.
 */
import { resolve } from "node:path";
import { type FileSettings, findConfigFile, readConfigFile, type Setting, splitList } from "./config-file.ts";
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
  /** `SOURCE_DATE_EPOCH`: the creation time of images, in seconds since 1970. */
  readonly sourceDateEpoch: number | undefined;
  /** `KO_DATA_DATE_EPOCH`: the modification time of kodata files, in seconds since 1970. */
  readonly koDataDateEpoch: number | undefined;
  /** `KO_DOCKER_REPO`, unchecked; undefined if empty. */
  readonly dockerRepo: string | undefined;
  /** `KO_GO_PATH`: a program on PATH, or a path. */
  readonly goPath: string;
  /** The absolute path of the configuration file. */
  readonly source: string | undefined;
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
const BUILTIN_BASE_IMAGE = "ko.builtin/static";

/** The last second of the year 9999, the latest time in JSON (RFC 3339). */
const MAX_EPOCH = 253402300799;

/** Variables of the original that ko does not support yet. */
const LATER_VARIABLES = ["KO_DEFAULTENV", "KO_DEFAULTFLAGS", "KO_DEFAULTLDFLAGS"] as const;

/**
 * Reads the configuration of a run.
 *
 * @throws {UsageError} If a setting is invalid; the message names file, line and column, or the variable.
 */
export async function loadConfig({ env, cwd }: Pick<Host, "env" | "cwd">): Promise<Config> {
  const path = await findConfigFile({ env, cwd });
  const file: Partial<FileSettings> = path === undefined ? {} : await readConfigFile(path, cwd);
  for (const name of LATER_VARIABLES) {
    if (env[name]) throw new UsageError(`Cannot use ${name}: it is not supported yet`, { hint: `Type: unset ${name}` });
  }
  const base = fromEnv(env, "KO_DEFAULTBASEIMAGE") ?? file.defaultBaseImage;
  const platforms = fromEnv(env, "KO_DEFAULTPLATFORMS");
  const defaultPlatforms =
    platforms === undefined ? file.defaultPlatforms : { value: splitList(platforms.value), where: platforms.where };
  if (base !== undefined) checkBase(base, { cwd, setting: "defaultBaseImage" });
  if (defaultPlatforms !== undefined) {
    checkPlatforms(defaultPlatforms.value, `${defaultPlatforms.where}: defaultPlatforms`);
  }
  return Object.freeze({
    defaultBaseImage: base?.value ?? DEFAULT_BASE_IMAGE,
    baseImageOverrides: collectOverrides(readOverridesVariable(env) ?? file.baseImageOverrides ?? [], cwd),
    defaultPlatforms: defaultPlatforms?.value ?? [],
    sourceDateEpoch: readEpoch(env, "SOURCE_DATE_EPOCH"),
    koDataDateEpoch: readEpoch(env, "KO_DATA_DATE_EPOCH"),
    dockerRepo: env["KO_DOCKER_REPO"] || undefined,
    goPath: env["KO_GO_PATH"] || "go",
    source: path,
  });
}

/**
 * Returns the name of the base image for an import path: its override, else the default.
 *
 * @param importPath with or without `ko://`; case-insensitive
 */
export function baseFor(config: Config, importPath: string): string {
  return config.baseImageOverrides.get(overrideKey(importPath)) ?? config.defaultBaseImage;
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
): ReadonlyMap<string, string> {
  const collected = new Map<string, string>();
  for (const { value, where } of overrides) {
    const [importPath, image] = value;
    checkBase({ value: image, where }, { cwd, setting: `baseImageOverrides["${importPath}"]` });
    const key = overrideKey(importPath);
    const before = collected.get(key);
    if (before !== undefined && before !== image) {
      throw new UsageError(
        `Cannot use ${where}: baseImageOverrides already has "${before}" for "${importPath}" (case is ignored)`,
      );
    }
    collected.set(key, image);
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
