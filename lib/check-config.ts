/**
 * Checks the configuration of a run: `.ko.yaml`, the `KO_*` variables, the templates in them, and entries that are for no
 * program.
 */
import { join } from "node:path";
import type { Findings, FindingPlace } from "./check-findings.ts";
import { withoutDownloads } from "./check-programs.ts";
import { choosePlatforms, CLUSTER_IGNORED } from "./cli-options.ts";
import { readConfigFile } from "./config-file.ts";
import { type Config, loadConfig } from "./config.ts";
import { findNearest, KoError, KoErrors } from "./errors.ts";
import { isInside, look } from "./file.ts";
import { type PlacedEntry, readText, whyNoProgram } from "./go-entries.ts";
import {
  findModulesBelow,
  findOwner,
  findSurroundings,
  type ModuleFolder,
  readModulePath,
  type Surroundings,
} from "./go-modules.ts";
import type { Program } from "./go-programs.ts";
import { BuildSetups } from "./go-setup.ts";
import { findMains, type GoOptions, settingsOf } from "./go.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import { ALL_PLATFORMS, parsePlatform, type Platform } from "./oci.ts";
import { isLocal, planDestination } from "./publish-destination.ts";
import type { Naming } from "./reference.ts";

export interface ReadSettingsOptions {
  readonly host: Host;
  readonly log: Log;
  readonly findings: Findings;
  readonly naming: Naming | undefined;
  /** `-L` */
  readonly local: boolean;
  /** The values of `--platform`. */
  readonly platforms: readonly string[];
}

/** The settings of a run, all valid by themselves. */
export interface CheckedSettings {
  readonly config: Config;
  readonly setups: BuildSetups;
  /** `KO_DOCKER_REPO` or `ko.local`; may be empty. */
  readonly repository: string;
  readonly naming: Naming;
  /** Whether images go into a daemon or a cluster. */
  readonly isLocal: boolean;
  /** The platform of build constraints. @default linux/amd64 */
  readonly platform: Platform | undefined;
}

/** Reads all settings; undefined if one of them is wrong, so that nothing can be said about programs. */
export async function readSettings(options: ReadSettingsOptions): Promise<CheckedSettings | undefined> {
  const { findings, host, local, log, naming } = options;
  const config = await findings.collect("config", () => loadConfig(host));
  const dockerRepo = config === undefined ? host.env["KO_DOCKER_REPO"] || undefined : config.dockerRepo;
  const flags = { naming, local, push: false, files: [], also: [], imageRefs: undefined, insecureRegistry: false };
  const destination = await findings.collect("destination", () =>
    planDestination(
      { ...flags, tags: { names: [], only: false }, compression: undefined, sbom: undefined },
      { ...config, dockerRepo, cwd: host.cwd, env: host.env },
    ),
  );
  if (config === undefined) return undefined;
  // A profile that is not chosen now will be.
  for (const profile of config.profiles) {
    const chosen = { ...host, env: { ...host.env, KO_PROFILE: profile } };
    if (host.env["KO_PROFILE"] !== profile) await findings.collect("config", () => loadConfig(chosen));
  }
  for (const warning of config.warnings) findings.add(warning, { rule: "config", severity: "warning" });
  const platforms = await findings.collect("config", () =>
    choosePlatforms(options.platforms, { defaults: config.defaultPlatforms, env: host.env }),
  );
  if (platforms?.withoutCluster === true) log.debug(CLUSTER_IGNORED);
  const setups = await findings.collect(
    "config",
    () => new BuildSetups({ host: withoutDownloads(host), log, go: config.goPath, config }),
  );
  if (setups === undefined || platforms === undefined) return undefined;
  const [first] = platforms.platforms;
  return {
    config,
    setups,
    repository: destination?.repository ?? "",
    naming: destination?.naming ?? naming ?? "md5",
    isLocal: destination?.places.some(isLocal) ?? false,
    platform: first === undefined || first === ALL_PLATFORMS ? undefined : parsePlatform(first),
  };
}

/** The errors of templates and variables. */
export interface SetupErrors {
  /** By entry; that of programs without an entry under undefined. */
  readonly errors: ReadonlyMap<PlacedEntry | undefined, KoError>;
  /** Their messages: the search for programs repeats them. */
  readonly messages: ReadonlySet<string>;
  /** The setups, without the flags of the linker if an error is in any: go needs none to find programs. */
  readonly setups: BuildSetups;
}

/** Renders the templates of all entries, and of the defaults. */
export async function tryTemplates({ config, platform, setups }: CheckedSettings, go: GoOptions): Promise<SetupErrors> {
  const errors = new Map<PlacedEntry | undefined, KoError>();
  for (const placed of [undefined, ...setups.entries.all]) {
    const found: KoError[] = [];
    for (const make of [() => setups.for(placed, platform), () => setups.imageFor(placed, platform)]) {
      try {
        await make();
      } catch (error) {
        if (!(error instanceof KoError) || go.host.signal.aborted) throw error;
        found.push(...(error instanceof KoErrors ? error.errors : [error]));
      }
    }
    const [only, ...more] = found;
    if (only !== undefined) errors.set(placed, more.length === 0 ? only : new KoErrors(found));
  }
  const each = [...errors.values()].flatMap((error) => (error instanceof KoErrors ? error.errors : [error]));
  const messages = new Set(each.map(({ message }) => message));
  if (errors.size === 0) return { errors, messages, setups };
  const builds = config.builds.map((entry) => ({ ...entry, ldflags: undefined }));
  const bare = { ...config, builds, defaults: { ...config.defaults, ldflags: undefined } };
  return { errors, messages, setups: new BuildSetups({ ...go, host: withoutDownloads(go.host), config: bare }) };
}

/** Reports the errors of all entries, and of the defaults if a program has no entry. */
export function reportTemplates(
  { errors }: SetupErrors,
  {
    findings,
    programs,
    settings,
  }: { readonly programs: readonly Program[] } & Pick<CheckEntriesOptions, "findings" | "settings">,
): void {
  const { entries } = settings.setups;
  const isPlain = programs.length === 0 || programs.some((program) => entries.find(program) === undefined);
  for (const [placed, error] of errors) {
    if (placed !== undefined || isPlain) findings.addError(error, { rule: "config" });
  }
}

export interface CheckEntriesOptions extends GoOptions {
  readonly findings: Findings;
  readonly settings: CheckedSettings;
}

/** Warns of entries of `builds` and `baseImageOverrides` that are for no program. */
export async function checkEntries(programs: readonly Program[], options: CheckEntriesOptions): Promise<void> {
  const { findings, settings } = options;
  for (const warning of settings.setups.warnings(programs)) {
    findings.add(warning, { rule: "unused-setting", severity: "warning" });
  }
  const known = new Set(programs.map(({ importPath }) => importPath.toLowerCase()));
  const overrides = (await readOverrides(options)).filter(({ importPath }) => !known.has(importPath.toLowerCase()));
  if (overrides.length === 0) return;
  const search = new OverrideSearch(options);
  for (const { importPath, name, place } of overrides) {
    const why = await search.whyIdle(importPath);
    if (why === undefined) continue;
    const text = `${name} is for no program: ${why}`;
    findings.add(text, { rule: "unused-setting", severity: "warning", place });
  }
}

interface Override {
  readonly importPath: string;
  /** For messages. */
  readonly name: string;
  readonly place: FindingPlace | undefined;
}

/** The overrides, where they are those of this folder: a file elsewhere may be for several modules. */
async function readOverrides({ host, settings }: CheckEntriesOptions): Promise<readonly Override[]> {
  const { config } = settings;
  const name = (key: string): string => `baseImageOverrides["${key}"]`;
  if (host.env["KO_BASEIMAGEOVERRIDES"]) {
    return Array.from(config.baseImageOverrides.keys(), (importPath) => {
      return { importPath, name: `${name(importPath)} of KO_BASEIMAGEOVERRIDES`, place: undefined };
    });
  }
  if (config.source === undefined || !isInside(config.source, host.cwd)) return [];
  const { root } = await readConfigFile(config.source, host.cwd);
  const own = root.entries("the file").find(({ key }) => key.toLowerCase() === "baseimageoverrides");
  return (own?.value.entries("baseImageOverrides") ?? []).map(({ key, where }) => {
    const [, file = "", line, column] = /^(.*):(\d+):(\d+)$/.exec(where) ?? [];
    const place = { file, line: Number(line), column: Number(column) };
    return { importPath: key.replace(/^ko:\/\//, ""), name: name(key), place };
  });
}

/** Looks for the programs of import paths whose case does not count, as that of overrides. */
class OverrideSearch {
  readonly #options: CheckEntriesOptions;
  readonly #env: Readonly<Record<string, string>>;
  readonly #around: Surroundings;
  #modules: Promise<readonly ModuleFolder[]> | undefined;
  /** Import paths of main packages, by the folder of their module. */
  readonly #mains = new Map<string, readonly string[] | undefined>();

  constructor(options: CheckEntriesOptions) {
    const { host, settings } = options;
    this.#options = options;
    this.#env = settings.setups.bare(settings.platform).env;
    this.#around = findSurroundings(host.cwd, settingsOf({ ...options, cwd: host.cwd, env: this.#env }));
  }

  /** Says why an import path names no program; undefined if it names one, or may name one of another module. */
  async whyIdle(importPath: string): Promise<string | undefined> {
    const { host } = this.#options;
    const { moduleDir, modules, workspace } = this.#around;
    if (!modules || workspace !== undefined || moduleDir === undefined) return undefined;
    const ownPath = readModulePath(moduleDir) ?? "";
    const own = { dir: moduleDir, path: ownPath.toLowerCase() };
    const isOwn = findOwner(importPath.toLowerCase(), [own]) !== undefined;
    if (isOwn ? this.#mayBeMain(own, importPath) : isRequired(importPath, moduleDir)) return undefined;
    // Other modules of the repository are looked for last: that takes a walk through all of it.
    const all = await (this.#modules ??= findModulesBelow(host.cwd, moduleDir));
    const lower = all.map(({ dir, path }) => ({ dir, path: path.toLowerCase() }));
    const owner = findOwner(importPath.toLowerCase(), lower);
    if (owner === undefined) return "it is of no module that go.mod requires";
    if (this.#mayBeMain(owner, importPath)) return undefined;
    const mains = await this.#mainsOf(owner.dir);
    if (mains === undefined || mains.some((main) => main.toLowerCase() === importPath.toLowerCase())) return undefined;
    const near = findNearest(importPath, mains);
    return `there is no main package of that name${near === undefined ? "" : `, the nearest is "${near}"`}`;
  }

  /** Whether the folder of an import path may hold a program, by its files. */
  #mayBeMain({ dir, path }: ModuleFolder, importPath: string): boolean {
    const folder = join(dir, importPath.slice(path.length));
    const settings = settingsOf({ ...this.#options, cwd: dir, env: this.#env });
    return look(folder)?.isDirectory() === true && whyNoProgram(folder, settings) === undefined;
  }

  /** @returns undefined if go cannot tell */
  async #mainsOf(dir: string): Promise<readonly string[] | undefined> {
    if (this.#mains.has(dir)) return this.#mains.get(dir);
    const host = withoutDownloads(this.#options.host);
    let mains: readonly string[] | undefined;
    try {
      const found = await findMains("./...", { ...this.#options, host, cwd: dir, env: this.#env });
      mains = found.map(({ importPath }) => importPath);
    } catch (error) {
      if (!(error instanceof KoError) || host.signal.aborted) throw error;
    }
    this.#mains.set(dir, mains);
    return mains;
  }
}

/** Whether a word of go.mod may be the module of an import path: a comment may hide a warning, but never cause one. */
function isRequired(importPath: string, moduleDir: string): boolean {
  const words = readText(join(moduleDir, "go.mod"))
    .toLowerCase()
    .split(/[\s"`]+/);
  return words.some((word) => word !== "" && `${importPath}/`.toLowerCase().startsWith(`${word}/`));
}
