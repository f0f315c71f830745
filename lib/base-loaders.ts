/**
 * The dynamic loaders in the layers of a base image, by file name: proof that a base cannot start a program.
 *
 * Layers are read only for a program that needs a loader. The answer is kept by the layer's digest.
 */
import type { Cache } from "./cache.ts";
import { KoError, messageOf } from "./errors.ts";
import type { Image, Layer } from "./image.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";
import { hexOf, isForeignLayer } from "./oci.ts";

export interface FindLoadersOptions {
  readonly cache: Cache | undefined;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** The kind of the cache's records. */
const LOADERS = "loaders";
/** Compressed bytes of a base that are read at most: Alpine has 3 MB, distroless/base 10, Debian 30. */
const MOST_PACKED = 32 * 1024 * 1024;
/** Bytes of one layer's tar that are read at most. */
const MOST_UNPACKED = 512 * 1024 * 1024;
/** Entries of one layer's tar that are read at most. */
const MOST_ENTRIES = 100_000;

/** The names of the loaders of glibc, musl, uClibc and Android: `ld-linux-x86-64.so.2`, `ld64.so.2`, `linker64`. */
const LOADER_NAME = /^(?:ld|linker)[\w.-]*$/;

/**
 * Reports whether a base certainly has no loader.
 *
 * It looks for the name only, in any folder: links between folders, and files that a later layer removes, can then make
 * the answer no worse than `false`.
 *
 * @param loader its absolute path
 * @returns false if the base may have it: a file of its name, layers that are too large, or that cannot be read
 */
export async function lacksLoader(base: Image, loader: string, options: FindLoadersOptions): Promise<boolean> {
  const name = loader.slice(loader.lastIndexOf("/") + 1);
  if (!LOADER_NAME.test(name)) return false;
  const { cache, log, signal } = options;
  let left = MOST_PACKED;
  for (const layer of base.layers) {
    let names = recall(layer, cache);
    if (names === undefined) {
      if (isForeignLayer(layer.descriptor.mediaType) || (left -= layer.descriptor.size) < 0) return false;
      try {
        names = await listLoaders(layer, signal);
      } catch (error) {
        signal.throwIfAborted();
        log.debug(`Cannot look for ${name} in layer ${layer.descriptor.digest} of the base: ${messageOf(error)}`);
        return false;
      }
      cache?.write(LOADERS, hexOf(layer.descriptor.digest), { names });
    }
    if (names.includes(name)) return false;
  }
  return true;
}

function recall({ descriptor }: Layer, cache: Cache | undefined): readonly string[] | undefined {
  const record = cache?.read(LOADERS, hexOf(descriptor.digest));
  const names = isObject(record) ? record["names"] : undefined;
  return Array.isArray(names) && names.every((name) => typeof name === "string") ? names : undefined;
}

/**
 * The names in a layer that a loader can have.
 *
 * @throws {Error} If the layer cannot be read, or is too large.
 */
async function listLoaders(layer: Layer, signal: AbortSignal): Promise<readonly string[]> {
  const { visitLayer } = await import("./layer-read.ts");
  const names = new Set<string>();
  let count = 0;
  await visitLayer(layer, {
    signal,
    most: MOST_UNPACKED,
    visit: ({ name }) => {
      const last = name.replace(/\/+$/, "").replace(/^.*\//s, "");
      if (LOADER_NAME.test(last)) names.add(last);
      if (++count > MOST_ENTRIES) throw new KoError(`Cannot list "${name}": more than ${MOST_ENTRIES} files`);
    },
  });
  return [...names].sort();
}
