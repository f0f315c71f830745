/** Reads `profiles:` of `.ko.yaml`: settings that one run takes over those at the top of the file. */
import type { ConfigEntry } from "./config-file.ts";
import { checkKeys, type KeyNotes } from "./config-keys.ts";
import { UsageError } from "./errors.ts";

export interface ReadProfileOptions<K extends string> {
  /** The keys that a profile may have. */
  readonly known: readonly K[];
  readonly notes: KeyNotes;
  /** The chosen profile. */
  readonly profile: string | undefined;
}

/**
 * Reads `profiles`. The keys of all are checked, so that a slip shows before the profile is needed.
 *
 * @returns the entries of the chosen one, which take the place of those at the top
 */
export function readProfile<K extends string>(
  profiles: ConfigEntry | undefined,
  { known, notes, profile }: ReadProfileOptions<K>,
): ReadonlyMap<K, ConfigEntry> {
  const found = new Map<string, ReadonlyMap<K, ConfigEntry>>();
  const entries = notes.collect(() => profiles?.value.entries("profiles")) ?? [];
  for (const { key, value } of entries) {
    const own = notes.collect(() => checkKeys(value.entries(`profiles["${key}"]`), { known, section: "ko", notes }));
    if (own !== undefined) found.set(key, own);
  }
  if (profile === undefined) return new Map();
  const chosen = found.get(profile);
  if (chosen !== undefined) return chosen;
  const names = [...found.keys()];
  notes.collect(() => {
    const has = names.length === 0 ? "the file has no profiles" : `the file has ${names.join(", ")}`;
    throw new UsageError(`Cannot use profile "${profile}": ${has}`, { hint: "Choose it by --profile or KO_PROFILE." });
  });
  return new Map();
}

/** The names of `profiles`. */
export function listProfiles(profiles: ConfigEntry | undefined): readonly string[] {
  // A mistake has been noted before.
  return profiles?.value.isMap === true ? profiles.value.entries("profiles").map(({ key }) => key) : [];
}
