/**
 * Which workloads have Pods with a swapped image, kept beside the cache: a `ko apply -W --swap` that was killed could not
 * bring them back, and the next `ko apply` does.
 */
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findCacheFolder, isLeftBehind, runPrefix } from "./cache-folder.ts";
import { readNames } from "./file.ts";
import type { Host } from "./host.ts";
import { listAt, parseJson, textAt } from "./json.ts";
import { type Applied, resourceOf } from "./rollout-objects.ts";

/** A workload, and the namespace that its Pods are in. */
export interface Swapped {
  readonly applied: Applied;
  readonly namespace: string;
}

const FOLDER = "swaps";
const MAX_BYTES = 1024 * 1024;

/** The record of this run. Without a cache folder there is none. */
export class SwapRecord implements Disposable {
  readonly #file: string | undefined;
  readonly #server: string;
  readonly #all = new Map<string, Swapped>();

  /** @param server URL of the API server */
  constructor(host: Host, server: string) {
    const folder = findCacheFolder(host);
    this.#file = folder === undefined ? undefined : join(folder, FOLDER, `${runPrefix()}-swap`);
    this.#server = server;
  }

  /** Notes a workload before its Pods are changed. */
  add(swapped: Swapped): void {
    const key = `${swapped.namespace} ${resourceOf(swapped.applied)}`;
    if (this.#file === undefined || this.#all.has(key)) return;
    this.#all.set(key, swapped);
    mkdirSync(join(this.#file, ".."), { recursive: true, mode: 0o700 });
    const workloads = [...this.#all.values()].map(({ applied, namespace }) => ({ ...applied, namespace }));
    writeFileSync(this.#file, JSON.stringify({ server: this.#server, workloads }), { mode: 0o600 });
  }

  /** Forgets all: an ordinary apply has replaced the Pods. */
  [Symbol.dispose](): void {
    if (this.#file !== undefined) rmSync(this.#file, { force: true });
    this.#all.clear();
  }
}

/** The files of runs that were killed; mostly none. */
export function findKilledSwaps(host: Host): readonly string[] {
  const cache = findCacheFolder(host);
  if (cache === undefined) return [];
  const folder = join(cache, FOLDER);
  return readNames(folder).flatMap((name) => {
    const path = join(folder, name);
    const { mtimeMs } = statSync(path, { throwIfNoEntry: false }) ?? { mtimeMs: 0 };
    return isLeftBehind(name, { changed: mtimeMs, now: host.now().getTime() }) ? [path] : [];
  });
}

/** Reads a record; undefined if it is of another cluster, or of another version of ko. */
export async function readSwapRecord(path: string, server: string): Promise<readonly Swapped[] | undefined> {
  const file = Bun.file(path);
  if (file.size > MAX_BYTES) return undefined;
  const record = parseJson(await file.text().catch(() => ""));
  if (textAt(record, "server") !== server || server === "") return undefined;
  return listAt(record, "workloads").map((each) => ({
    namespace: textAt(each, "namespace"),
    applied: {
      apiVersion: textAt(each, "apiVersion"),
      kind: textAt(each, "kind"),
      namespace: textAt(each, "namespace"),
      name: textAt(each, "name"),
      generateName: "",
    },
  }));
}
