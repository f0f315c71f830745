/**
 * Where is kept what earlier runs found in YAML documents: a record of the cache for each document with references.
 */
import { type Cache, keyOf } from "./cache.ts";
import { isObject } from "./gojson.ts";
import type { FoundReference, ReferenceMemory } from "./yamlrefs.ts";

/** Another number for another way to find them. */
const FORMAT = 1;

/** A memory of references in `cache`. */
export function cachedReferences(cache: Cache): ReferenceMemory {
  const keyFor = (text: string): string => keyOf([FORMAT, text]);
  return {
    recall: (text) => {
      const found = cache.read("references", keyFor(text));
      return isFound(found) ? found : undefined;
    },
    remember: (text, found) => cache.write("references", keyFor(text), found),
  };
}

/** Records are ours and carry their own digest: what is looked at is only whether this version wrote them. */
function isFound(value: unknown): value is readonly FoundReference[] {
  return Array.isArray(value) && value.every((each) => isObject(each) && typeof each["value"] === "string");
}
