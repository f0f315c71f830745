/**
 * Tells keys of `.ko.yaml` that ko knows from slips, which are errors, and from others, which are warnings: the original
 * ignores both without a word.
 */
import type { ConfigEntry } from "./config-file.ts";
import { editDistance, findNearest, throwAll, UsageError } from "./errors.ts";

export type Section = "ko" | "builds" | "cache" | "image" | "registries";

export interface CheckKeysOptions<K extends string> {
  readonly known: readonly K[];
  /** "builds" for a key of its entries, "image" for one of the settings of images, "registries" for one of a registry. */
  readonly section: Section;
  readonly notes: KeyNotes;
}

/** Keys of GoReleaser's builds that the original ignores: none is a slip, though `gcflags` is near `ldflags`. */
const FOREIGN_KEYS: ReadonlySet<string> = new Set(
  [
    "asmflags builder buildmode command gcflags go386 goamd64 goarch goarm goarm64 gobinary gomips goos goppc64",
    "goriscv64 hooks ignore mod_timestamp no_main_check no_unique_dist_dir overrides prebuilt skip tags targets tool",
  ].flatMap((line) => line.split(" ")),
);

/** The right settings for keys that people have tried. */
const INSTEAD: Readonly<Record<Section, Readonly<Record<string, string>>>> = {
  ko: {
    annotations: "annotations of image",
    baseimage: "defaultBaseImage",
    binary: "binary of an entry of builds",
    buildplatforms: "defaultPlatforms",
    cmd: "cmd of image",
    defaultlabels: "labels of image",
    defaultregistry: "the variable KO_DOCKER_REPO",
    entrypointargs: "entrypointArgs of image",
    env: "defaultEnv, or env of an entry of builds; env of image is for containers",
    flags: "defaultFlags, or flags of an entry of builds",
    labels: "labels of image",
    ldflags: "defaultLdflags, or ldflags of an entry of builds",
    platforms: "defaultPlatforms",
    ports: "ports of image",
    stopsignal: "stopSignal of image",
    user: "user of image",
    volumes: "volumes of image",
    workdir: "workdir of image",
  },
  builds: {
    annotations: "annotations of its image",
    args: "entrypointArgs or cmd of its image",
    baseimage: "baseImageOverrides",
    cmd: "cmd of its image",
    entrypointargs: "entrypointArgs of its image",
    gcflags: "a word -gcflags=… of flags",
    labels: "labels of its image",
    ports: "ports of its image",
    stopsignal: "stopSignal of its image",
    tags: "a word -tags=… of flags",
    user: "user of its image",
    volumes: "volumes of its image",
    workdir: "workdir of its image",
  },
  image: {
    args: "cmd, which Kubernetes' args replace, or entrypointArgs, which nothing replaces",
    base: "baseImageOverrides",
    command: "cmd or entrypointArgs; ko sets the program as entrypoint",
    entrypoint: "entrypointArgs; ko sets the program as entrypoint",
    expose: "ports",
    exposedports: "ports",
    workingdir: "workdir",
  },
  cache: {
    dir: "the variable KOCACHE",
    max: "the variable KO_CACHE_MAX",
  },
  registries: {
    certificate: "ca",
    plainhttp: "http",
    skipverify: "insecure",
    tls: "http: true for no TLS, insecure: true for no check of certificates",
    username: "ko login, which keeps passwords out of this file",
    password: "ko login, which keeps passwords out of this file",
  },
};

/** A key of at least this length may be two letters off. */
const LONG = 6;

/** Collects mistakes and warnings, so that one run reports all of them. */
export class KeyNotes {
  readonly warnings: string[] = [];
  readonly #errors: UsageError[] = [];

  /** Runs work; a mistake in it is collected, and the result is undefined. */
  collect<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      this.#errors.push(error);
      return undefined;
    }
  }

  /** @throws {UsageError | KoErrors} If there was a mistake. */
  throwMistakes(): void {
    throwAll(this.#errors);
  }
}

/** Returns the entries with known keys, by the key as the documentation spells it. Case does not count. */
export function checkKeys<K extends string>(
  entries: readonly ConfigEntry[],
  { known, notes, section }: CheckKeysOptions<K>,
): ReadonlyMap<K, ConfigEntry> {
  const found = new Map<K, ConfigEntry>();
  for (const entry of entries) {
    const { key, where } = entry;
    const lower = key.toLowerCase();
    const name = known.find((each) => each.toLowerCase() === lower);
    if (name === undefined) {
      if (!lower.startsWith("x-")) notes.collect(() => noteUnknown(entry, { known, notes, section }));
      continue;
    }
    const before = found.get(name);
    if (before !== undefined) {
      notes.collect(() => {
        throw new UsageError(`Cannot read ${where}: "${name}" is already set at ${before.where}`);
      });
    }
    found.set(name, entry);
  }
  return found;
}

function noteUnknown({ key, where }: ConfigEntry, { known, notes, section }: CheckKeysOptions<string>): void {
  const slip = FOREIGN_KEYS.has(key.toLowerCase()) ? undefined : known.find((name) => isSlip(key, name));
  const what = {
    ko: "a setting of ko",
    builds: "a key of builds",
    cache: "a key of cache",
    image: "a key of image",
    registries: "a key of a registry",
  }[section];
  if (slip !== undefined) {
    throw new UsageError(`Cannot use ${where}: "${key}" is not ${what}, the nearest is "${slip}"`);
  }
  const instead = INSTEAD[section][key.toLowerCase()];
  const nearest = findNearest(key, known);
  const advice = instead === undefined ? nearest && `the nearest is "${nearest}"` : `use ${instead}`;
  notes.warnings.push(`${where}: "${key}" has no effect, it is not ${what}${advice ? `; ${advice}` : ""}`);
}

function isSlip(key: string, name: string): boolean {
  const [a, b] = [key, name].map((text) => text.toLowerCase().replace(/[-_]/g, "").replace(/s$/, ""));
  if (a === undefined || b === undefined) return false;
  const most = name.length < LONG ? 1 : 2;
  return a === b || editDistance(key.toLowerCase(), name.toLowerCase(), most + 1) <= most;
}
