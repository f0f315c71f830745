/**
 * Tells keys of `.ko.yaml` that ko knows from slips, which are errors, and from others, which are warnings: the original
 * ignores both without a word.
 */
import type { ConfigEntry } from "./config-file.ts";
import { editDistance, findNearest, throwAll, UsageError } from "./errors.ts";

export interface CheckKeysOptions<K extends string> {
  readonly known: readonly K[];
  /** "builds" for a key of its entries. */
  readonly section: "ko" | "builds";
  readonly notes: KeyNotes;
}

/** Keys of GoReleaser's builds that the original ignores: none is a slip, though `gcflags` is near `ldflags`. */
const FOREIGN_KEYS: ReadonlySet<string> = new Set(
  [
    "asmflags binary builder buildmode command gcflags go386 goamd64 goarch goarm goarm64 gobinary gomips goos goppc64",
    "goriscv64 hooks ignore mod_timestamp no_main_check no_unique_dist_dir overrides prebuilt skip tags targets tool",
  ].flatMap((line) => line.split(" ")),
);

/** The right settings for keys that people have tried. */
const INSTEAD: Readonly<Record<"ko" | "builds", Readonly<Record<string, string>>>> = {
  ko: {
    baseimage: "defaultBaseImage",
    buildplatforms: "defaultPlatforms",
    defaultlabels: "--image-label",
    defaultregistry: "the variable KO_DOCKER_REPO",
    env: "defaultEnv, or env of an entry of builds",
    flags: "defaultFlags, or flags of an entry of builds",
    labels: "--image-label",
    ldflags: "defaultLdflags, or ldflags of an entry of builds",
    platforms: "defaultPlatforms",
  },
  builds: { baseimage: "baseImageOverrides", gcflags: "a word -gcflags=… of flags", tags: "a word -tags=… of flags" },
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
  const what = section === "ko" ? "a setting of ko" : "a key of builds";
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
