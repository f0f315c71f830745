/**
 * Where is kept what runs learn of registries: a record of the cache for each, which counts for some days.
 */
import { type Cache, keyOf } from "./cache.ts";
import { isObject } from "./gojson.ts";
import type { Host } from "./host.ts";
import { type HostMemory, readRememberedHost } from "./hostmemory.ts";

/** Milliseconds after which a registry is asked again. */
const MAX_AGE_MS = 7 * 24 * 3600 * 1000;

/** A memory of registries in `cache`. */
export function cachedHosts(cache: Cache, host: Pick<Host, "now">): HostMemory {
  return {
    recall: async (registry) => {
      const record = cache.read("host", keyOf(registry));
      if (!isObject(record) || typeof record["learned"] !== "number") return undefined;
      const age = host.now().getTime() - record["learned"];
      // From the future: the clock was wrong then, or is now.
      return age >= 0 && age <= MAX_AGE_MS ? readRememberedHost(record["what"]) : undefined;
    },
    remember: (registry, what) => cache.write("host", keyOf(registry), { learned: host.now().getTime(), what }),
    forget: (registry) => cache.remove("host", keyOf(registry)),
  };
}
