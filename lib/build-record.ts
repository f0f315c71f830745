/**
 * A record of the cache of compiled binaries: the binary, and the inputs that decided its bytes.
 */
import { dirname } from "node:path";
import type { GitSeen, ListDigest, ListedInputs } from "./build-inputs.ts";
import type { SharedPart } from "./build-shared.ts";
import type { Kept } from "./cache.ts";
import type { Inputs } from "./fingerprint-prover.ts";
import type { PackageList } from "./go.ts";
import { isObject } from "./json.ts";

/** A binary that was compiled before. */
export interface KnownBinary {
  /** Named by the digest of the layer's tar, which the binary decides. */
  readonly binary: Kept;
  /** Bytes of that tar. */
  readonly tarSize: number;
}

/** A record of the cache. */
export interface BuildRecord extends KnownBinary {
  readonly list: ListDigest;
  /** The folders of Go's own packages and of the module cache. */
  readonly common: readonly string[];
  /** Without the folders in `shared`. */
  readonly inputs: Inputs;
  /** The inputs in the folders of `common`. */
  readonly shared: SharedPart;
  readonly git: GitSeen | undefined;
  /** Only where the go command chooses which go runs. */
  readonly answer: string | undefined;
}

export type UnsharedRecord = Omit<BuildRecord, "shared">;

/** Milliseconds since 1970, before the list was found to hold. */
export type WithStart = Pick<PackageList, "startedAt">;

/** Records carry a checksum: their shape only has to tell which version of ko wrote them. */
export function isBuildRecord(value: unknown): value is BuildRecord {
  return isObject(value) && isObject(value["binary"]) && isObject(value["inputs"]) && "shared" in value;
}

/**
 * The plan that gave the inputs of a record, to look at them again.
 *
 * @param options.written the folder that go itself writes to: it counts when go has ended
 */
export function planAgain(
  { answer, common, git, inputs, list }: BuildRecord,
  { startedAt, written = "" }: { readonly startedAt: number; readonly written: string | undefined },
): ListedInputs & WithStart {
  const isWritten = (path: string): boolean => path === written || dirname(path) === written;
  const kept = inputs.folders.filter(({ dir }) => dir !== written);
  const folders = kept.map((folder) => {
    const { kind, marks, names } = folder;
    const seen = kind === "sources" || kind === "indexed" ? names : undefined;
    return { ...folder, seen, unread: new Set(names.filter((_, i) => marks[i] === 0)) };
  });
  const plan = { folders, files: inputs.files.flatMap(([path]) => (isWritten(path) ? [] : [path])) };
  return { digest: list, plan, startedAt, gitRoot: git?.root, answer, common };
}
