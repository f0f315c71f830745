/**
 * `ko base pull`: reads whole base images into the cache, so that `--offline` finds them there.
 */
import { createLimit } from "./async.ts";
import { type Base, selectPlatforms } from "./base.ts";
import { keepLayer } from "./base-registry.ts";
import type { Cache } from "./cache.ts";
import { KoError } from "./errors.ts";
import { formatSize } from "./log.ts";
import { ALL_PLATFORMS, createPlatformMatcher, formatPlatform, isForeignLayer } from "./oci.ts";

export interface PullBaseOptions {
  /** Undefined if the cache is off, or cannot be used. */
  readonly cache: Cache | undefined;
  readonly signal: AbortSignal;
  /** As in `--platform`; none stands for all of the base. */
  readonly wanted: readonly string[];
}

/** The layers that are read at once. */
const PULLS = 4;

/**
 * Keeps the images of a base for some platforms.
 *
 * @returns a line for stdout
 * @throws {KoError} If the base lacks a platform, cannot be read or kept, or there is no cache.
 */
export async function pullBase(base: Base, { cache, signal, wanted }: PullBaseOptions): Promise<string> {
  if (cache === undefined) {
    throw new KoError(`Cannot keep base "${base.text}": KOCACHE is off, or the cache cannot be used`, {
      hint: "Type: unset KOCACHE",
    });
  }
  const platforms = await selectPlatforms(base, wanted.length === 0 ? [ALL_PLATFORMS] : wanted, createPlatformMatcher);
  const limit = createLimit(PULLS);
  const images = await Promise.all(platforms.map((platform) => platform.image()));
  const own = images.flatMap(({ layers }) => layers).filter(({ descriptor }) => !isForeignLayer(descriptor.mediaType));
  // Platforms may share a layer.
  const layers = new Map(own.map((layer) => [layer.descriptor.digest, layer]));
  const sizes = await Promise.all(
    Array.from(layers.values(), (layer) => limit(() => keepLayer(layer, { cache, signal }))),
  );
  const read = sizes.reduce((sum, size) => sum + size, 0);
  const shown = platforms.map(({ platform }) => formatPlatform(platform)).join(", ");
  const state = read === 0 ? "there  " : "pulled ";
  return `${state} ${base.text} (${shown})${read === 0 ? "" : `: ${formatSize(read)}`}\n`;
}
