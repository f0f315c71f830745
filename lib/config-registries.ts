/**
 * Reads `registries:` of `.ko.yaml`, and the same map in the user's own file: how single registries are reached, and the
 * mirrors that base images are read from.
 */
import { dirname, join, resolve } from "node:path";
import { type ConfigEntry, type ConfigValue, readConfigFile } from "./config-file.ts";
import { checkKeys, KeyNotes } from "./config-keys.ts";
import { UsageError } from "./errors.ts";
import { look } from "./file.ts";
import type { HostRule } from "./http-hosts.ts";
import { findConfigFolder, type Host } from "./host.ts";
import { DOCKER_HUB, type Repository, whyBadHost, whyBadPath } from "./reference.ts";

/** The settings of a registry. */
export interface RegistrySettings extends HostRule {
  /** Base images of the registry are read from these first, in this order. */
  readonly mirrors: readonly Mirror[];
  /** The place of the entry. */
  readonly where: string;
}

/** The place of a registry's repositories in another registry. */
export interface Mirror {
  readonly host: string;
  /** Before the path of each repository; may be empty. */
  readonly prefix: string;
}

/** By `host[:port]`. */
export type Registries = ReadonlyMap<string, RegistrySettings>;

/** The keys of a registry. */
export const REGISTRY_KEYS = ["http", "insecure", "ca", "mirrors"] as const;

/** The file with the registries of a user, in the folder `ko` of the user's folder for configuration. */
const USER_FILE = "registries.yaml";
const DOCKER_HUB_NAMES: readonly string[] = ["docker.io", "registry-1.docker.io", DOCKER_HUB];

export interface ReadRegistriesOptions {
  /** The absolute path of the folder that `ca` is relative to. */
  readonly folder: string;
  /** In messages: `registries`. */
  readonly name: string;
  readonly notes: KeyNotes;
}

/** Reads the value of `registries`: a map of hosts. */
export function readRegistries(value: ConfigValue, options: ReadRegistriesOptions): Registries {
  const { name, notes } = options;
  const found = new Map<string, RegistrySettings>();
  for (const entry of value.entries(name)) {
    notes.collect(() => {
      const host = readHost(entry.key, entry.where);
      const before = found.get(host)?.where;
      if (before !== undefined) {
        throw new UsageError(`Cannot read ${entry.where}: "${entry.key}" is already set at ${before}`);
      }
      found.set(host, readRegistry(entry, { ...options, name: `${name}["${entry.key}"]` }));
    });
  }
  return found;
}

/**
 * Reads the registries of the user, `~/.config/ko/registries.yaml`, over those of a project: the user's entry for a host
 * counts alone.
 *
 * @throws {UsageError | KoErrors} If the file is not valid.
 */
export async function addUserRegistries(
  project: Registries,
  { env, cwd }: Pick<Host, "env" | "cwd">,
): Promise<{ readonly registries: Registries; readonly warnings: readonly string[] }> {
  const path = userFileOf(env);
  if (path === undefined || look(path) === undefined) return { registries: project, warnings: [] };
  const { root } = await readConfigFile(path, cwd);
  const notes = new KeyNotes();
  const own = notes.collect(() => readRegistries(root, { folder: dirname(path), name: "the file", notes }));
  notes.throwMistakes();
  return { registries: new Map([...project, ...(own ?? [])]), warnings: notes.warnings };
}

/** Describes the settings of a registry: `over http only; mirrors mirror.gcr.io, registry.lan/hub`. */
export function formatRegistry({ ca, http, insecure, mirrors }: RegistrySettings): string {
  const parts = [
    http ? "over http only" : [],
    insecure ? "without TLS checks" : [],
    ca === undefined ? [] : `ca ${ca.value}`,
    mirrors.length === 0 ? [] : `mirrors ${mirrors.map(formatMirror).join(", ")}`,
  ].flat();
  return parts.join("; ") || "nothing set";
}

function formatMirror({ host, prefix }: Mirror): string {
  return prefix === "" ? host : `${host}/${prefix}`;
}

/** Returns the repositories that mirror one, in the order of the settings. */
export function mirrorsOf(registries: Registries, repository: Repository): readonly Repository[] {
  const mirrors = registries.get(repository.host)?.mirrors ?? [];
  return mirrors.map(({ host, prefix }) => ({
    host,
    path: prefix === "" ? repository.path : `${prefix}/${repository.path}`,
  }));
}

function userFileOf(env: Host["env"]): string | undefined {
  const config = findConfigFolder(env);
  return config === undefined ? undefined : join(config, "ko", USER_FILE);
}

/** As references have it: all names of Docker Hub are one. */
function readHost(key: string, where: string): string {
  const why = whyBadHost(key);
  if (why === undefined) return DOCKER_HUB_NAMES.includes(key.toLowerCase()) ? DOCKER_HUB : key;
  throw new UsageError(`Cannot use ${where}: ${why}`, {
    hint: "Write it as in image names: registry.example.com:5000",
  });
}

function readRegistry({ value, where }: ConfigEntry, { folder, name, notes }: ReadRegistriesOptions): RegistrySettings {
  if (!value.isNull && !value.isMap) throw value.wrongType(name, `a map of ${REGISTRY_KEYS.join(", ")}`);
  const entries = checkKeys(value.entries(name), { known: REGISTRY_KEYS, section: "registries", notes });
  const read = <T>(
    key: (typeof REGISTRY_KEYS)[number],
    work: (value: ConfigValue, setting: string) => T,
  ): T | undefined => {
    const entry = entries.get(key);
    if (entry === undefined || entry.value.isNull) return undefined;
    return notes.collect(() => work(entry.value, `${key} of ${name}`));
  };
  const flag = (each: ConfigValue, setting: string): boolean => each.flag(setting);
  const found: RegistrySettings = {
    http: read("http", flag) ?? false,
    insecure: read("insecure", flag) ?? false,
    ca: read("ca", (each, setting) => {
      const path = each.text(setting);
      if (path.value === "") throw each.wrongType(setting, "the path of a PEM file");
      return { value: resolve(folder, path.value), where: path.where };
    }),
    mirrors: read("mirrors", readMirrors) ?? [],
    where,
  };
  if (found.http && found.ca !== undefined) {
    throw new UsageError(`Cannot use ${found.ca.where}: ca has no use with http: true, which uses no certificate`);
  }
  return found;
}

function readMirrors(value: ConfigValue, name: string): readonly Mirror[] {
  const items = value.items() ?? (value.isText ? [value] : undefined);
  if (items === undefined) throw value.wrongType(name, "a list of registries");
  return items.map((item) => {
    const { value: text, where } = item.text(`an item of ${name}`);
    const plain = text.replace(/\/+$/, "");
    if (/^[a-z]+:\/\//i.test(plain)) {
      const shorter = plain.replace(/^[a-z]+:\/\//i, "");
      throw new UsageError(`Cannot use ${where}: "${text}" is a URL, wanted HOST or HOST/PATH, such as ${shorter}`);
    }
    const slash = plain.indexOf("/");
    const host = slash < 0 ? plain : plain.slice(0, slash);
    const why = whyBadHost(host);
    if (why !== undefined) throw new UsageError(`Cannot use ${where}: ${why}`);
    const prefix = slash < 0 ? "" : plain.slice(slash + 1);
    const badPath = slash < 0 ? undefined : whyBadPath(prefix);
    if (badPath !== undefined) throw new UsageError(`Cannot use ${where}: ${badPath}`);
    return { host: DOCKER_HUB_NAMES.includes(host) ? DOCKER_HUB : host, prefix };
  });
}
