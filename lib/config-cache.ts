/** Reads `cache:` of `.ko.yaml`: which results of earlier runs count. */
import type { ConfigValue, Setting } from "./config-file.ts";
import { checkKeys, type KeyNotes } from "./config-keys.ts";
import { findNearest, UsageError } from "./errors.ts";

/** "commit": an image equals one that is built now. "code": it may name an older commit. */
export type Reuse = "commit" | "code";

export interface CacheSettings {
  readonly reuse: Setting<Reuse> | undefined;
}

/** The keys of `cache`. */
export const CACHE_KEYS = ["reuse"] as const;
const REUSES: readonly Reuse[] = ["commit", "code"];

/** Reads the value of `cache`. */
export function readCache(value: ConfigValue, notes: KeyNotes): CacheSettings {
  if (!value.isNull && !value.isMap) throw value.wrongType("cache", `a map of ${CACHE_KEYS.join(", ")}`);
  const entries = checkKeys(value.entries("cache"), { known: CACHE_KEYS, section: "cache", notes });
  const reuse = entries.get("reuse")?.value;
  if (reuse === undefined || reuse.isNull) return { reuse: undefined };
  return {
    reuse: notes.collect(() => {
      const { value: text, where } = reuse.text("reuse of cache");
      return { value: readReuse(text, `${where}: reuse of cache`), where };
    }),
  };
}

/** @param setting in messages @throws {UsageError} If it is none of the two words. */
export function readReuse(text: string, setting: string): Reuse {
  const found = REUSES.find((each) => each === text);
  if (found !== undefined) return found;
  const nearest = findNearest(text, REUSES);
  const near = nearest === undefined ? `wanted ${REUSES.join(" or ")}` : `the nearest is "${nearest}"`;
  throw new UsageError(`Cannot use ${setting}: "${text}" is not a way to reuse images, ${near}`);
}
