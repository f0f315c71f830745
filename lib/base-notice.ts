/** The notice, at most once a day, that a release is built on a base image that is not pinned. */
import { type Cache, keyOf } from "./cache.ts";
import { parseBase } from "./config.ts";
import { isObject } from "./json.ts";

export interface UnpinnedOptions {
  /** The names of the bases of the programs, as they are written. */
  readonly bases: readonly string[];
  /** The tags of the images. */
  readonly tags: readonly string[];
  /** Remembers that the notice was given. Undefined gives it in each run. */
  readonly cache: Cache | undefined;
  readonly now: Date;
  /** The absolute path that OCI layouts are relative to. */
  readonly cwd: string;
}

const KIND = "notice";
/** A version: `v1.2`, `1.2.3-rc.1`, `2026.11`. */
const IS_RELEASE = /^v?\d+\.\d+/;

/** Returns the notice; undefined if this is no release, all bases are pinned, or it was given today. */
export function noticeUnpinned({ bases, cache, cwd, now, tags }: UnpinnedOptions): string | undefined {
  if (!tags.some((tag) => IS_RELEASE.test(tag))) return undefined;
  const base = bases.find((text) => {
    const name = parseBase(text, cwd);
    return name.kind === "registry" && name.reference.digest === undefined;
  });
  if (base === undefined) return undefined;
  const key = keyOf(["unpinned", base]);
  const day = now.toISOString().slice(0, 10);
  const before = cache?.read(KIND, key);
  if (isObject(before) && before["day"] === day) return undefined;
  cache?.write(KIND, key, { day });
  return `Base ${base} is not pinned: the same sources give another image when the tag moves. To pin it: ko base update`;
}
