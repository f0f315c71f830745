/**
 * How go is run for a program and a platform: environment, words and working directory, from the user's environment, the
 * flags of ko and `.ko.yaml`.
 *
 * The order of words and variables is the original's, since it decides the bytes of binaries.
 */
import { once } from "./async.ts";
import { joinImageWords, type ProgramImage, renderImage } from "./build-container.ts";
import { keyOf } from "./cache.ts";
import { NO_WORDS } from "./config-builds.ts";
import type { Capabilities } from "./config-capabilities.ts";
import { nameWord, type Word } from "./config-file.ts";
import type { ImageWords } from "./config-image.ts";
import type { Config } from "./config.ts";
import { UsageError } from "./errors.ts";
import { findWorkTree } from "./git.ts";
import { BuildEntries, type PlacedEntry, type ProgramPlace } from "./go-entries.ts";
import type { GoSettings } from "./go-env.ts";
import { hasLinkerPaths, keepSymbols, type LinkerWords } from "./go-ldflags.ts";
import { findSurroundings } from "./go-modules.ts";
import { type GitReads, TemplateRenderer } from "./go-templates.ts";
import { buildEnvironment, DEFAULT_PLATFORM, type GoOptions, refuseToolexec, settingsOf, splitQuoted } from "./go.ts";
import { formatPlatform, type Platform } from "./oci.ts";

/** How a program is compiled. */
export interface BuildSetup {
  /** The whole environment of go. */
  readonly env: Readonly<Record<string, string>>;
  /** Words of `go build`, without packages, output and `-p`. */
  readonly args: readonly string[];
  /** The variables of `.ko.yaml`. @default none */
  readonly variables?: Readonly<Record<string, string>>;
  /** Those of the program's file. @default none */
  readonly capabilities?: Capabilities | undefined;
  /** The absolute path of the program in its image. @default in /ko-app */
  readonly binary?: string | undefined;
  /** Absolute: the working directory of go. @default where the program's module is found */
  readonly workDir?: string | undefined;
  /** The state of git that `args` hold. @default none */
  readonly git?: GitReads | undefined;
  /** Why another run makes other bytes though nothing has changed. @default it makes the same */
  readonly unrepeatable?: string | undefined;
  /** `--debug`: the program is for Delve, which goes into the image with it. @default false */
  readonly isDebugged?: boolean;
}

export interface BuildFlags {
  /** Flags of `go build`, one word each. */
  readonly flags: readonly string[];
  /** Words of `-ldflags`. */
  readonly ldflags: readonly string[];
  /** False keeps the paths of this machine in the binary. @default true */
  readonly trimpath?: boolean;
  /** `--disable-optimizations`: for debuggers. @default false */
  readonly disableOptimizations?: boolean;
}

export interface BuildSetupsOptions extends GoOptions {
  readonly config: Pick<Config, "builds" | "defaults" | "sourceDateEpoch"> & Partial<Pick<Config, "image">>;
  /** `--ldflags`; undefined if not given. */
  readonly ldflags?: readonly Word[] | undefined;
  readonly disableOptimizations?: boolean;
  /** `--image-env` and its like. @default none */
  readonly image?: ImageWords;
  /** Reports for which platforms programs are compiled for Delve. @default for none */
  readonly isDebugged?: (platform: Platform) => boolean;
}

/** Why a program is compiled again: the first input that changed. */
export interface Reason {
  /** Absolute; undefined if the input is not a file. */
  readonly file?: string | undefined;
  /** The change of that file (`changed`), or the whole reason. */
  readonly reason: string;
}

/** A word of `go build`: as it is written, and rendered. */
export interface RenderedWord {
  readonly word: Word;
  readonly text: string;
  /** The names of the data that decided the text, such as `Env.HOME`. */
  readonly reads: readonly string[];
}

/** The words that a setup was made of. */
export interface SetupWords {
  /** `NAME=VALUE` */
  readonly env: readonly Word[];
  readonly flags: readonly RenderedWord[];
  readonly ldflags: readonly RenderedWord[];
}

interface MadeSetup {
  readonly setup: BuildSetup;
  readonly words: SetupWords;
}

interface EntryWords {
  readonly env: readonly Word[];
  readonly flags: readonly Word[];
  readonly ldflags: readonly Word[];
  /** Words of `.ko.yaml` that `--ldflags` replaces. */
  readonly replaced: readonly Word[];
}

/** Variables that say where files are kept, shown or fetched from. They decide no bytes, and some hold secrets. */
const IDLE: ReadonlySet<string> = new Set(
  "GOCACHE GOCACHEPROG GOTMPDIR GOMAXPROCS GOGC GOMEMLIMIT GOTRACEBACK GOPROXY GONOPROXY GOAUTH GONETRC GOVCS".split(
    " ",
  ),
);
const DECIDING =
  /^(?:GO|CGO_|GIT_|CC$|CXX$|FC$|AR$|PKG_CONFIG|HOME$|XDG_CONFIG_HOME$|APPDATA$|USERPROFILE$|(?:ASDF|MISE|GOENV|RTX)_)/i;

/** Flags that decide which files belong to a package, and which modules there are. Those of the first line take a value. */
const LIST_FLAGS = /^--?(?:tags|mod|modfile|overlay)$/;
const WHOLE_LIST_FLAGS = /^--?(?:(?:tags|mod|modfile|overlay)=|(?:race|msan|asan)(?:=|$))/;
/** Flags whose value may be a path that begins at the working directory. */
const PATH_FLAGS = /^--?(?:modfile|overlay|pgo|C|pkgdir|o|compiler|exec|coverpkg)(?:=|$)/;

/** The setups of a run: one for each entry of `builds` and platform, and one for the programs without an entry. */
export class BuildSetups {
  readonly entries: BuildEntries;
  readonly #options: BuildSetupsOptions;
  readonly #renderer: TemplateRenderer;
  readonly #made = new Map<string, Promise<MadeSetup>>();
  readonly #images = new Map<string, Promise<ProgramImage>>();
  /** Warnings that are no renderer's. */
  readonly #warnings = new Set<string>();

  /** @throws {UsageError} If an entry names a folder that does not exist, or two entries are for one program. */
  constructor(options: BuildSetupsOptions) {
    const { config, host } = options;
    this.#options = options;
    this.entries = BuildEntries.place(config.builds, host.cwd);
    const all = [undefined, ...this.entries.all].map((placed) => {
      const { flags, ldflags } = this.#wordsOf(placed);
      const image = Object.values(this.#imageWordsOf(placed)).flat();
      return { dir: placed?.dir ?? host.cwd, words: [...flags, ...ldflags, ...image] };
    });
    this.#renderer = new TemplateRenderer({ ...options, epoch: config.sourceDateEpoch, all });
  }

  /**
   * Returns the setup of a program.
   *
   * @throws {KoError} If a variable contradicts the platform, `-toolexec` is set, or a template cannot be rendered.
   */
  of(program: ProgramPlace, platform: Platform | undefined): Promise<BuildSetup> {
    return this.for(this.entries.find(program), platform);
  }

  /**
   * Returns the setup of an entry, or of all programs without one.
   *
   * @param platform undefined if it is not known yet: then the variables of the entry choose it
   * @throws as {@link BuildSetups.of}
   */
  async for(placed: PlacedEntry | undefined, platform: Platform | undefined): Promise<BuildSetup> {
    return (await this.#once(placed, platform)).setup;
  }

  /** Returns the words that the setup of {@link BuildSetups.for} was made of. @throws as {@link BuildSetups.of} */
  async wordsFor(placed: PlacedEntry | undefined, platform: Platform | undefined): Promise<SetupWords> {
    return (await this.#once(placed, platform)).words;
  }

  /**
   * Returns the settings of the image of an entry, or of all programs without one.
   *
   * @param platform as that of {@link BuildSetups.for}
   * @throws {KoError} If a template cannot be rendered, or a setting cannot have its value.
   */
  imageFor(placed: PlacedEntry | undefined, platform: Platform | undefined): Promise<ProgramImage> {
    return once(this.#images, setupKey(placed, platform), () => {
      const { config, host } = this.#options;
      const words = this.#imageWordsOf(placed);
      const variables = readVariables(placed?.entry.env ?? config.defaults.env ?? []);
      const env = buildEnvironment(platform ?? choosePlatform(variables), host.env, variables);
      return renderImage(words, (all) => this.#renderer.render(all, { dir: placed?.dir ?? host.cwd, env }));
    });
  }

  #imageWordsOf(placed: PlacedEntry | undefined): ImageWords {
    const { config, image = {} } = this.#options;
    return joinImageWords([image, placed?.entry.image ?? {}, config.image ?? {}]);
  }

  #once(placed: PlacedEntry | undefined, platform: Platform | undefined): Promise<MadeSetup> {
    return once(this.#made, setupKey(placed, platform), () => this.#make(placed, platform));
  }

  /** Returns the environment of programs without an entry, without any flags: their templates may fail. */
  bare(platform: Platform | undefined): BuildSetup {
    const variables = readVariables(this.#options.config.defaults.env ?? []);
    return {
      env: buildEnvironment(platform ?? choosePlatform(variables), this.#options.host.env, variables),
      args: [],
    };
  }

  /** Warnings about `.ko.yaml` that are known so far. @param programs those that the arguments of the run name */
  warnings(programs: readonly ProgramPlace[]): readonly string[] {
    const { config, host } = this.#options;
    const env = { ...host.env, ...readVariables(config.defaults.env ?? []) };
    const settings = (dir: string, own: Readonly<Record<string, string>>): GoSettings =>
      settingsOf({ ...this.#options, cwd: dir, env: { ...env, ...own } });
    return [...this.entries.warnings(programs, settings), ...this.flagWarnings];
  }

  /** Those about the flags of the setups that were made so far. */
  get flagWarnings(): readonly string[] {
    return [...this.#renderer.warnings, ...this.#warnings];
  }

  async #make(placed: PlacedEntry | undefined, wanted: Platform | undefined): Promise<MadeSetup> {
    const { disableOptimizations = false, host, isDebugged: isDebuggable } = this.#options;
    const words = this.#wordsOf(placed);
    const variables = readVariables(words.env);
    const platform = wanted ?? choosePlatform(variables);
    const env = buildEnvironment(platform, host.env, variables);
    checkPlatform(words.env, { platform, env: buildEnvironment(platform, {}) });
    const dir = placed?.dir ?? host.cwd;
    await this.#renderer.warnOfMistakes(words.replaced);
    const all = [...words.flags, ...words.ldflags];
    const { git, hasTime, reads, texts } = await this.#renderer.render(all, { dir, env });
    for (const [i, word] of all.entries()) refuseToolexec(splitQuoted(texts[i] ?? ""), nameWord(word));
    const isDebugged = isDebuggable?.(platform) ?? false;
    const written = {
      flags: texts.slice(0, words.flags.length).filter((text) => text !== ""),
      ldflags: texts.slice(words.flags.length),
    };
    const linked = isDebugged ? this.#keepSymbols(written, env) : written;
    const args = buildArguments({ ...linked, disableOptimizations: disableOptimizations || isDebugged });
    const setup = {
      env,
      args,
      variables,
      capabilities: platform.os === "linux" ? placed?.entry.capabilities : undefined,
      binary: placed?.entry.binary?.value,
      workDir: placed === undefined ? undefined : this.#workDir(placed, { env, args }),
      git,
      unrepeatable: hasTime ? "its flags hold the time of the build; SOURCE_DATE_EPOCH would set it" : undefined,
      isDebugged,
    };
    const rendered = all.map((word, i) => ({ word, text: texts[i] ?? "", reads: reads[i] ?? [] }));
    const count = words.flags.length;
    return { setup, words: { env: words.env, flags: rendered.slice(0, count), ldflags: rendered.slice(count) } };
  }

  #keepSymbols(words: LinkerWords, env: Readonly<Record<string, string>>): LinkerWords {
    const settings = settingsOf({ ...this.#options, cwd: this.#options.host.cwd, env });
    const kept = keepSymbols(words, splitQuoted(settings.get("GOFLAGS")));
    if (kept === undefined) return words;
    this.#warnings.add("--debug leaves -s and -w out of ldflags: without symbols no breakpoint works");
    return kept;
  }

  /** The words of an entry, or the default ones where it has none. */
  #wordsOf(placed: PlacedEntry | undefined): EntryWords {
    const { config, ldflags } = this.#options;
    const entry = placed?.entry ?? NO_WORDS;
    const written = entry.ldflags ?? config.defaults.ldflags ?? [];
    return {
      env: entry.env ?? config.defaults.env ?? [],
      flags: entry.flags ?? config.defaults.flags ?? [],
      ldflags: ldflags ?? written,
      replaced: ldflags === undefined ? [] : written,
    };
  }

  /**
   * Chooses the working directory for an entry. Go gives the same result in all folders of a module, unless a flag has a
   * path; so all programs of a module are compiled in one folder, and by one go.
   */
  #workDir({ dir, folder }: PlacedEntry, setup: BuildSetup): string | undefined {
    const { host } = this.#options;
    const settings = settingsOf({ ...this.#options, cwd: dir, env: setup.env });
    const { modules, moduleDir, workspace } = findSurroundings(dir, settings);
    // The entry's folder cannot see the program: it is built in its own module.
    const isForeign = folder !== undefined && findSurroundings(folder, settings).moduleDir !== moduleDir;
    if (modules && workspace === undefined && isForeign) return undefined;
    if (dir === host.cwd || hasPaths(setup, settings)) return dir;
    const context = (at: string): string => {
      const around = findSurroundings(at, settings);
      return JSON.stringify([around.workspace ?? around.moduleDir, findWorkTree(at)]);
    };
    return [host.cwd, moduleDir].find((at) => at !== undefined && context(at) === context(dir)) ?? dir;
  }
}

/**
 * The flags of `go build` in the original's order: the user's, `-trimpath`, those that turn optimizations off, `-ldflags`.
 *
 * @throws {UsageError} If `-toolexec` is among them.
 */
export function buildArguments(options: BuildFlags): readonly string[] {
  const { flags, ldflags, trimpath = true, disableOptimizations = false } = options;
  const args = [
    ...flags,
    ...(trimpath ? ["-trimpath"] : []),
    ...(disableOptimizations ? ["-gcflags", "all=-N -l"] : []),
    ...(ldflags.length > 0 ? [`-ldflags=${ldflags.join(" ")}`] : []),
  ];
  refuseToolexec([...args, ...ldflags.flatMap(splitQuoted)]);
  return args;
}

/** The words of `go list` for a setup: those flags that decide which files and packages there are. */
export function listArguments({ args }: Pick<BuildSetup, "args">): readonly string[] {
  return args.flatMap((word, i) => {
    if (LIST_FLAGS.test(word)) return [word, args[i + 1] ?? ""];
    return WHOLE_LIST_FLAGS.test(word) ? [word] : [];
  });
}

/** A text that is equal for setups with which `go list` prints the same in one folder. */
export function listKey(setup: BuildSetup): string {
  return keyOf([listArguments(setup), environmentKey(setup)]);
}

/** A text that is equal for setups that one `go build` can have for several programs. */
export function compileKey(setup: BuildSetup): string {
  return keyOf([setup.args, environmentKey(setup)]);
}

/** The deciding variables and flags, each under its name. Values are hashed, because they may be secret. */
export function describeSetup({
  args,
  binary,
  capabilities,
  env,
  variables = {},
}: BuildSetup): Readonly<Record<string, string>> {
  const found: Record<string, string> = { "the flags of go build": keyOf(args) };
  for (const name of Object.keys(env).sort()) {
    if (DECIDING.test(name) && !IDLE.has(name)) found[name] = keyOf(env[name]);
  }
  if (capabilities !== undefined) found["linux_capabilities"] = keyOf(Array.from(capabilities.attribute));
  // It decides the layer, whose tar names the binary in the cache.
  if (binary !== undefined) found["binary in .ko.yaml"] = keyOf(binary);
  const others = sortByName(variables).filter(([name]) => !(name in found) && !IDLE.has(name));
  if (others.length > 0) found["env in .ko.yaml"] = keyOf(others);
  return found;
}

/** The first setting that differs from an earlier {@link describeSetup}; undefined if none does. */
export function explainSetup(before: Readonly<Record<string, unknown>>, setup: BuildSetup): Reason | undefined {
  const now = describeSetup(setup);
  for (const name of new Set([...Object.keys(now), ...Object.keys(before)])) {
    if (before[name] === now[name]) continue;
    return { reason: before[name] === undefined ? `${name} is set now` : `${name} changed` };
  }
  return undefined;
}

/** The names and values of variables, in an order that does not depend on that of the environment. */
export function sortByName(env: Readonly<Record<string, string>>): readonly (readonly [string, string])[] {
  return Object.entries(env).sort(([a], [b]) => (a < b ? -1 : 1));
}

function setupKey(placed: PlacedEntry | undefined, platform: Platform | undefined): string {
  return `${placed?.entry.name} ${platform === undefined ? "" : formatPlatform({ ...platform, "os.version": "" })}`;
}

const environmentKeys = new WeakMap<BuildSetup, string>();

function environmentKey(setup: BuildSetup): string {
  let key = environmentKeys.get(setup);
  if (key === undefined) environmentKeys.set(setup, (key = keyOf(sortByName(setup.env))));
  return key;
}

/** The variables of `NAME=VALUE` words; of equal names the last one counts. */
function readVariables(words: readonly Word[]): Readonly<Record<string, string>> {
  const variables: Record<string, string> = {};
  for (const word of words) {
    const equals = word.value.indexOf("=");
    const [name, value] = [word.value.slice(0, equals), word.value.slice(equals + 1)];
    if (name === "GOFLAGS") refuseToolexec(splitQuoted(value), nameWord(word));
    variables[name] = value;
  }
  return variables;
}

function choosePlatform({ GOARCH, GOOS }: Readonly<Record<string, string>>): Platform {
  return { os: GOOS || DEFAULT_PLATFORM.os, architecture: GOARCH || DEFAULT_PLATFORM.architecture };
}

/** @param options.env ko's own variables for the platform */
function checkPlatform(
  words: readonly Word[],
  { env, platform }: { readonly env: Readonly<Record<string, string>>; readonly platform: Platform },
): void {
  for (const word of words) {
    const [name = "", value = ""] = word.value.split(/=(.*)/s);
    const wanted = env[name];
    if (!["GOOS", "GOARCH", "GOARM"].includes(name) || value === "" || wanted === undefined) continue;
    if (value === wanted || (name === "GOARM" && value.split(",")[0] === wanted)) continue;
    const shown = formatPlatform(platform);
    throw new UsageError(`Cannot use ${nameWord(word)}: it sets ${name}=${value}, but the image is for ${shown}`, {
      hint: `Remove it: ko sets ${name} for each platform.`,
    });
  }
}

/** Reports whether a flag or variable may have a path that begins at the working directory. */
function hasPaths({ args }: BuildSetup, settings: GoSettings): boolean {
  const words = [...splitQuoted(settings.get("GOFLAGS")), ...args];
  const isRelative = (name: string): boolean => /^[^/\\].*[/\\]|^\.{1,2}$/.test(settings.get(name));
  if (["GOENV", "CC", "CXX"].some(isRelative)) return true;
  return words.some((word, i) => {
    if (PATH_FLAGS.test(word)) return true;
    const [, name, value = words[i + 1] ?? ""] =
      /^--?(ldflags|gcflags|asmflags|gccgoflags)(?:=(.*))?$/s.exec(word) ?? [];
    return name !== undefined && (name === "ldflags" ? hasLinkerPaths(value) : /[/\\]/.test(value));
  });
}
