/**
 * Reads base images from mirrors of their registry first. If a mirror fails, the next one is asked, and the registry itself
 * last. What a digest names is verified wherever it is from; what a tag names is up to the mirror.
 */
import type { RegistryReader } from "./base-registry.ts";
import { RegistryError } from "./errors.ts";
import type { Log } from "./log.ts";
import { formatRepository, type Repository } from "./reference.ts";

export interface OpenMirrorsOptions {
  /** The repository in the mirrors, in the order in which they are asked. */
  readonly mirrors: readonly Repository[];
  readonly log: Log;
}

/** The readers of one repository, which differ in where they read. */
export function openMirrors(registry: RegistryReader, { log, mirrors }: OpenMirrorsOptions): RegistryReader {
  /** The number of mirrors that have failed: none of them is asked again in this run. */
  let failed = 0;
  /** Moves on after a failure. */
  const skip = (at: number, why: string): void => {
    const mirror = mirrors[at];
    if (mirror === undefined || failed !== at) return;
    failed = at + 1;
    log.info(`Mirror ${formatRepository(mirror)} is skipped: ${why}`);
  };
  const first = async <T>(repository: Repository, work: (place: Repository) => Promise<T>): Promise<T> => {
    for (;;) {
      const at = failed;
      const mirror = mirrors[at];
      if (mirror === undefined) return work(repository);
      try {
        const found = await work(mirror);
        if (found !== undefined) return found;
        skip(at, "it has no such image");
      } catch (error) {
        if (!(error instanceof RegistryError)) throw error;
        skip(at, error.message);
      }
    }
  };
  return {
    placeOf: (repository) => mirrors[failed] ?? repository,
    findManifest: (repository, reference, options) =>
      first(repository, (place) => registry.findManifest(place, reference, options)),
    getManifest: (repository, reference, options) =>
      first(repository, (place) => registry.getManifest(place, reference, options)),
    openBlob: async function* (repository, descriptor, signal) {
      const opened = await first(repository, async (place) => {
        const chunks = registry.openBlob(place, descriptor, signal)[Symbol.asyncIterator]();
        // A mirror without the blob fails here. Later failures are resumed by the registry client.
        return { chunks, start: await chunks.next() };
      });
      for (let next = opened.start; next.done !== true; next = await opened.chunks.next()) yield next.value;
    },
  };
}
