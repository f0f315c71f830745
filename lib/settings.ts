/**
 * The settings that hold for programs, each with its origin: the result of `ko config`.
 *
 * The values are those of a build, from the same functions. Nothing is built, and no registry or daemon is asked: a base
 * is shown as it is named.
 */
import type { CONFIG_FLAGS } from "./cli-flag-groups.ts";
import type { FlagValues } from "./cli-flags.ts";
import {
  type BuildOptions,
  choosePlatforms,
  type ChosenPlatforms,
  CLUSTER_IGNORED,
  firstPlatform,
  readBuildOptions,
} from "./cli-options.ts";
import { type Compression, FAST_GZIP } from "./compress.ts";
import type { ImageValue } from "./build-container.ts";
import { formatCapabilities } from "./config-capabilities.ts";
import type { ImageKey } from "./config-image.ts";
import { formatRegistry } from "./config-registries.ts";
import { baseFor, type Config, loadConfig, originOfBase } from "./config.ts";
import { KoError } from "./errors.ts";
import type { PlacedEntry } from "./go-entries.ts";
import { choosePrograms, findPrograms, type Program } from "./go-programs.ts";
import { BuildSetups, describeSetup, type RenderedWord } from "./go-setup.ts";
import { showPath } from "./go-arguments.ts";
import { buildEnvironment, type GoOptions } from "./go.ts";
import type { Host } from "./host.ts";
import { DEBUG_PORT, type DebugSettings } from "./image-config.ts";
import type { Log } from "./log.ts";
import { ALL_PLATFORMS, formatPlatform, parsePlatform, type Platform } from "./oci.ts";
import { reuseOf } from "./pipeline-plans.ts";
import { type Destination, isLocal, type Place, planDestination } from "./publish-destination.ts";
import { nameAll } from "./reference.ts";
import { describePlace, type ShownVariable, type ShownWord, showVariable, showWord } from "./settings-shown.ts";

/** A value, and the flag, the variable or the place in `.ko.yaml` that it is from. */
export interface From<T> {
  readonly value: T;
  readonly from: string;
}

/** How a program is compiled for a platform. */
export interface PlatformSettings {
  readonly platform: string;
  /** True if the base image or the daemon decides for which platforms a build is: this one is an example. */
  readonly isExample: boolean;
  readonly env: readonly ShownVariable[];
  readonly flags: readonly ShownWord[];
  readonly ldflags: readonly ShownWord[];
  readonly capabilities: From<string> | null;
  /** The path of the program in the image; null is in /ko-app. */
  readonly binary: From<string> | null;
  /** The settings of the image, but for labels, annotations and user of flags. */
  readonly image: readonly ImageSetting[];
  /** The words of `go build`, without `-p`, `-o` and packages. Null if one of them is hidden. */
  readonly args: readonly string[] | null;
}

/** A value of a setting of images: `KEY=VALUE` for a pair. */
export interface ImageSetting extends ShownWord {
  readonly key: ImageKey;
}

/** The settings of programs without an entry in `builds`. */
export interface DefaultSettings {
  readonly base: From<string>;
  /** Empty if the local daemon or cluster decides. */
  readonly platforms: From<readonly string[]>;
  readonly builds: readonly PlatformSettings[];
}

export interface ProgramSettings extends DefaultSettings {
  readonly importPath: string;
  /** Absolute. */
  readonly dir: string;
  /** The entry of `builds`. */
  readonly entry: From<string> | null;
  /** The name of the image, without tag and digest. */
  readonly image: From<string>;
}

/** The document that `ko config --json` prints: docs/schemas/config.v1.json. */
export interface Settings {
  readonly version: 1;
  /** The absolute path of the configuration file. */
  readonly file: From<string | null>;
  readonly go: From<string>;
  readonly destinations: readonly From<string>[];
  readonly tags: From<readonly string[]>;
  readonly sbom: From<string>;
  readonly compression: From<string>;
  readonly reuse: From<string>;
  readonly user: From<string> | null;
  readonly labels: From<readonly string[]>;
  readonly annotations: From<readonly string[]>;
  /** Seconds since 1970. */
  readonly created: From<number> | null;
  readonly debugger: From<string> | null;
  readonly defaults: DefaultSettings;
  readonly baseImageOverrides: readonly (From<string> & { readonly importPath: string })[];
  /** `registries:` */
  readonly registries: readonly (From<string> & { readonly host: string })[];
  /** The entries of `builds`: the program of each, as a path or an import path. */
  readonly entries: readonly (From<string> & { readonly program: string })[];
  /** One for each program that the arguments name. */
  readonly programs: readonly ProgramSettings[];
}

export interface SettingsRequest {
  readonly flags: FlagValues<typeof CONFIG_FLAGS>;
  /** Names of the flags that the user wrote. */
  readonly given: ReadonlySet<string>;
  readonly args: readonly string[];
}

const DEFAULT = "default";

/** The flags of a build that decide no setting, as they are by default. */
const NO_REPORT = {
  jobs: 0,
  "metadata-file": "",
  dotenv: "",
  "github-output": false,
  events: "",
  progress: "auto",
  explain: false,
  timing: false,
  watch: false,
} as const;

/**
 * Finds the settings of programs.
 *
 * @throws {KoError} As a build that refuses its flags, its settings or its arguments; but KO_DOCKER_REPO may be missing.
 */
export async function readSettings(
  { args, flags, given }: SettingsRequest,
  { host, log }: { readonly host: Host; readonly log: Log },
): Promise<Settings> {
  const build = readBuildOptions({ ...NO_REPORT, ...flags }, given);
  const config = await loadConfig(host);
  const hasPlace = config.dockerRepo !== undefined || build.publish.local || build.publish.files.length > 0;
  const publish = hasPlace ? build.publish : { ...build.publish, push: false };
  const destination = await planDestination(publish, { ...config, cwd: host.cwd, env: host.env });
  const isDebugged = build.debug === undefined ? undefined : (await import("./go-delve.ts")).isDebuggable;
  const { disableOptimizations, image, ldflags } = build;
  const go: GoOptions = { host, log, go: config.goPath };
  const setups = new BuildSetups({
    ...go,
    config,
    image,
    ldflags,
    disableOptimizations,
    ...(isDebugged === undefined ? {} : { isDebugged }),
  });
  const chosen = await choosePlatforms(build.platforms, { defaults: config.defaultPlatforms, env: host.env });
  const reader = new SettingsReader({ build, chosen, config, destination, given, host, setups });
  const programs = args.length === 0 ? [] : await findOffline(args, { ...go, setups, platform: chosen.platforms });
  const settings = await reader.read(programs);
  if (chosen.withoutCluster) log.debug(CLUSTER_IGNORED);
  const warnings = [...build.warnings, ...destination.warnings, ...config.warnings, ...setups.warnings(programs)];
  for (const warning of warnings) log.warn(warning);
  return settings;
}

/** Finds programs as a build does, but looks at no dependency, and downloads nothing. */
async function findOffline(
  args: readonly string[],
  { platform, ...options }: GoOptions & { readonly setups: BuildSetups; readonly platform: readonly string[] },
): Promise<readonly Program[]> {
  try {
    return choosePrograms(await findPrograms(args, { ...options, platform: firstPlatform(platform), isShallow: true }));
  } catch (error) {
    if (!(error instanceof KoError) || !error.message.includes("GOPROXY=off")) throw error;
    throw new KoError(error.message, {
      cause: error.cause,
      hint: "Download modules first, as ko config does not: go mod download",
    });
  }
}

interface SettingsReaderOptions {
  readonly build: BuildOptions;
  readonly chosen: ChosenPlatforms;
  readonly config: Config;
  readonly destination: Destination;
  readonly given: ReadonlySet<string>;
  readonly host: Host;
  readonly setups: BuildSetups;
}

class SettingsReader {
  readonly #options: SettingsReaderOptions;

  constructor(options: SettingsReaderOptions) {
    this.#options = options;
  }

  async read(programs: readonly Program[]): Promise<Settings> {
    const { build, config, destination, host } = this.#options;
    const { env } = host;
    const overrides = Array.from(config.baseImageOverrides, ([importPath, value]) => {
      return { importPath, value, from: config.origins.baseImageOverrides.get(importPath) ?? DEFAULT };
    });
    return {
      version: 1,
      file: { value: config.source ?? null, from: this.#fromFile() },
      go: { value: config.goPath, from: env["KO_GO_PATH"] ? "KO_GO_PATH" : DEFAULT },
      destinations: this.#destinations(),
      tags: { value: destination.tags.names, from: this.#fromFlag("tags") },
      sbom: this.#sbom(),
      compression: this.#compression(),
      reuse: this.#reuse(),
      user: build.user === undefined ? null : { value: build.user, from: "--image-user" },
      labels: this.#pairs(build.labels, "image-label"),
      annotations: this.#pairs(build.annotations, "image-annotation"),
      created:
        config.sourceDateEpoch === undefined ? null : { value: config.sourceDateEpoch, from: "SOURCE_DATE_EPOCH" },
      debugger: build.debug === undefined ? null : { value: formatDebugger(build.debug), from: "--debug" },
      defaults: await this.#defaults(undefined, { value: config.defaultBaseImage, from: this.#fromBase("") }),
      baseImageOverrides: overrides,
      registries: Array.from(config.registries, ([name, registry]) => {
        return { host: name, value: formatRegistry(registry), from: registry.where };
      }),
      entries: this.#entries(),
      programs: await this.#programs(programs),
    };
  }

  #fromFile(): string {
    const { given, host } = this.#options;
    return given.has("config") ? "--config" : host.env["KO_CONFIG_PATH"] ? "KO_CONFIG_PATH" : DEFAULT;
  }

  #fromFlag(name: string): string {
    return this.#options.given.has(name) ? `--${name}` : DEFAULT;
  }

  #fromBase(importPath: string): string {
    return originOfBase(this.#options.config, importPath) ?? DEFAULT;
  }

  #pairs(pairs: ReadonlyMap<string, string>, flag: string): From<readonly string[]> {
    return { value: Array.from(pairs, ([key, value]) => `${key}=${value}`), from: this.#fromFlag(flag) };
  }

  async #programs(programs: readonly Program[]): Promise<readonly ProgramSettings[]> {
    const { config, destination, setups } = this.#options;
    const importPaths = programs.map(({ importPath }) => importPath);
    const names = nameAll(destination.repository, importPaths, destination.naming);
    const found: ProgramSettings[] = [];
    for (const program of programs) {
      const { dir, importPath } = program;
      const placed = setups.entries.find(program);
      found.push({
        importPath,
        dir,
        entry: placed === undefined ? null : { value: placed.entry.name, from: placed.entry.where },
        image: { value: names.get(importPath) ?? "", from: this.#fromNaming() },
        ...(await this.#defaults(placed, { value: baseFor(config, importPath), from: this.#fromBase(importPath) })),
      });
    }
    return found;
  }

  #fromNaming(): string {
    const { build, config, given } = this.#options;
    const flags = { preserve: "preserve-import-paths", base: "base-import-paths", bare: "bare", md5: "" };
    const flag = build.publish.naming === undefined ? "" : flags[build.publish.naming];
    const how = given.has(flag) ? `--${flag}` : config.places.naming?.where;
    return [this.#fromRepository(), how].filter((part) => part !== undefined).join(", ");
  }

  #fromRepository(): string {
    const { build, config, host } = this.#options;
    if (build.publish.local) return "--local";
    if (host.env["KO_DOCKER_REPO"]) return "KO_DOCKER_REPO";
    return config.places.repo?.where ?? "KO_DOCKER_REPO is not set";
  }

  #destinations(): readonly From<string>[] {
    const { build, config, destination, given } = this.#options;
    const { insecureRegistry } = build.publish;
    const from = (place: Place): string => {
      if (place.kind === "layout") return "--oci-layout-path";
      if (place.kind === "tarball" || place.kind === "oci-archive") return `--${place.kind}`;
      return this.#fromRepository();
    };
    const places = destination.places.map((place) => {
      const value = describePlace(place, destination.repository);
      const isInsecure = insecureRegistry && place.kind === "registry";
      return { value: isInsecure ? `${value}, without TLS checks` : value, from: from(place) };
    });
    const also = destination.also.map((other) => ({ value: `repository ${other}`, from: "--also-push" }));
    const { imageRefs } = destination;
    const refs = imageRefs === undefined ? [] : [{ value: `references in ${imageRefs}`, from: "--image-refs" }];
    if (places.length > 0) return [...places, ...also, ...refs];
    const why = config.dockerRepo === undefined && !given.has("push") ? "KO_DOCKER_REPO is not set" : "--push=false";
    return [{ value: "none", from: why }, ...refs];
  }

  #sbom(): From<string> {
    const { build, destination, given } = this.#options;
    if (build.publish.sbom === undefined) return { value: "none", from: "--sbom" };
    const { sbom } = destination;
    const setting = this.#options.config.places.sbom;
    if (setting?.value === "none" && !build.publish.sbom.isExplicit) return { value: "none", from: setting.where };
    if (sbom === undefined) return { value: "none", from: "no destination takes one" };
    const places = [
      sbom.registry ? "beside the image" : [],
      sbom.layout === undefined ? [] : `in the layout ${sbom.layout}`,
      sbom.dir === undefined ? [] : `in ${sbom.dir}`,
    ].flat();
    const flags = ["sbom", "sbom-dir"].filter((flag) => given.has(flag)).map((flag) => `--${flag}`);
    return { value: `spdx, ${places.join(" and ")}`, from: flags.join(", ") || DEFAULT };
  }

  #compression(): From<string> {
    const { build, destination } = this.#options;
    const { compression } = destination;
    const isAsked = build.publish.compression?.kind === compression.kind;
    const isForced = !isAsked && compression.kind !== FAST_GZIP.kind;
    const from = isAsked ? "--compression" : isForced ? "local targets take plain layers" : DEFAULT;
    return { value: formatCompression(compression), from };
  }

  #reuse(): From<string> {
    const { build, config } = this.#options;
    const from = build.reuse === undefined ? config.cache.reuse?.where : "--reuse";
    return { value: reuseOf({ build, config }), from: from ?? DEFAULT };
  }

  #entries(): Settings["entries"] {
    const { host, setups } = this.#options;
    return setups.entries.all.map(({ entry, folder, importPath = "" }) => ({
      value: entry.name,
      program: folder === undefined ? importPath : showPath(folder, host.cwd),
      from: entry.where,
    }));
  }

  /** The settings of an entry, or of programs without one. */
  async #defaults(placed: PlacedEntry | undefined, base: From<string>): Promise<DefaultSettings> {
    const { chosen, config, destination } = this.#options;
    const local = destination.places.find(isLocal)?.kind;
    const isAsked = chosen.source === undefined && local !== undefined;
    const from = chosen.source === "defaultPlatforms" ? config.origins.defaultPlatforms : chosen.source;
    const builds: PlatformSettings[] = [];
    for (const spec of chosen.platforms) {
      const platform = isAsked || spec === ALL_PLATFORMS ? undefined : parsePlatform(spec);
      builds.push(await this.#build(placed, platform?.architecture === "" ? undefined : platform));
    }
    return {
      base,
      platforms: isAsked
        ? { value: [], from: `the ${local === "daemon" ? "local daemon" : local}` }
        : {
            value: chosen.platforms,
            from: chosen.withoutCluster ? `${from ?? DEFAULT}; ${CLUSTER_IGNORED}` : (from ?? DEFAULT),
          },
      builds,
    };
  }

  /** Whether one of the original's flags, which are no templates, replaces a value. */
  #isReplaced({ key, word: { key: name = "" } }: ImageValue): boolean {
    const { annotations, labels, user } = this.#options.build;
    if (key === "user") return user !== undefined;
    return key === "labels" ? labels.has(name) : key === "annotations" && annotations.has(name);
  }

  async #build(placed: PlacedEntry | undefined, platform: Platform | undefined): Promise<PlatformSettings> {
    const { host, setups } = this.#options;
    const [setup, words] = [await setups.for(placed, platform), await setups.wordsFor(placed, platform)];
    const image = await setups.imageFor(placed, platform);
    const ownPath = placed?.entry.binary;
    const { GOARCH = "", GOOS = "" } = setup.env;
    const known = platform ?? parsePlatform(`${GOOS}/${GOARCH}`);
    const flags = words.flags.map((word) => showWord(word, words.env));
    const ldflags = words.ldflags.map((word) => showWord(word, words.env));
    const own = buildEnvironment(known, {});
    // Of equal names the last one counts; an empty value does not replace one of ko's.
    const set = new Map(
      words.env.flatMap((word) => {
        const shown = showVariable(word);
        return shown.name in own && word.value.endsWith("=") ? [] : [[shown.name, shown] as const];
      }),
    );
    const ofKo = Object.keys(own).filter((name) => !set.has(name));
    const inherited = Object.keys(describeSetup(setup)).filter((name) => {
      return IS_GO_VARIABLE.test(name) && host.env[name] && !set.has(name) && !(name in own);
    });
    const capabilities = setup.capabilities === undefined ? undefined : formatCapabilities(setup.capabilities);
    return {
      platform: formatPlatform(known),
      isExample: platform === undefined,
      env: [
        ...ofKo.map((name) => {
          const isInherited = setup.env[name] !== own[name];
          return { name, value: isInherited ? null : (own[name] ?? null), from: isInherited ? "environment" : "ko" };
        }),
        ...set.values(),
        ...inherited.map((name) => ({ name, value: null, from: "environment" })),
      ],
      flags,
      ldflags,
      capabilities:
        capabilities === undefined ? null : { value: capabilities, from: placed?.entry.capabilitiesAt ?? DEFAULT },
      binary: ownPath === undefined ? null : { value: ownPath.value, from: ownPath.where },
      image: image.values
        .filter((value) => !this.#isReplaced(value))
        .map((value) => ({ key: value.key, ...showWord(asWord(value), words.env) })),
      args: [...flags, ...ldflags].some(({ hidden }) => hidden) ? null : setup.args,
    };
  }
}

/** A value as a word: `KEY=VALUE` for a pair. */
function asWord({ reads, text, word }: ImageValue): RenderedWord {
  const start = word.key === undefined ? "" : `${word.key}=`;
  return { reads, text: start + text, word: { ...word, value: start + word.value } };
}

/** Variables of go and of its compilers that decide the bytes of programs. */
const IS_GO_VARIABLE = /^(?:GO|CGO_|CC$|CXX$|FC$|AR$|PKG_CONFIG)/;

function formatCompression(compression: Compression): string {
  return compression.kind === "gzip" ? `gzip:${compression.level}` : compression.kind;
}

function formatDebugger({ isContinuing, port }: DebugSettings): string {
  return `Delve on port ${port ?? DEBUG_PORT}${isContinuing ? ", and the program runs at once" : ""}`;
}
