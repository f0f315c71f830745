/**
 * The layers of a run: each is made once, and cached for the next run.
 *
 * The cache key of a program's layer is the digest of its tar, that of a kodata layer the marks of all files in it. A
 * cached layer that is missing or damaged is made again when its bytes are read, and after one that was forged the run goes
 * on without the cache (docs/rules.md A8.13).
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createLimit, once, Pace } from "./async.ts";
import { type Kept, keyOf, type RunContext } from "./cache.ts";
import type { Compression, CompressionPool, EarlyCompression } from "./compress.ts";
import { checkUnpacked } from "./compress-check.ts";
import { KoError } from "./errors.ts";
import { hashFile, look, readChunks } from "./file.ts";
import { markOf, Window } from "./fingerprint.ts";
import type { ImageSink, Layer } from "./image.ts";
import { isObject } from "./json.ts";
import { beginLayer, measureLayer, writeLayer } from "./layer.ts";
import { type Digest, isDigest, MEDIA_TYPES, verified } from "./oci.ts";
import { packTar, type TarEntry } from "./tar.ts";

export interface LayerStoreOptions {
  /** Its signal ends the making of all layers. */
  readonly context: RunContext;
  readonly pool: CompressionPool;
  readonly compression: Compression;
  /** The run's own folder, absolute: layers are written below it. */
  readonly folder: string;
  /** How many layers may be made at once; 0 chooses by the machine. */
  readonly jobs: number;
}

/** Returns the entries of a layer: the same each time, as long as its files stay the same. */
export type Entries = () => Iterable<TarEntry> | AsyncIterable<TarEntry>;

/** Takes layers that are still being made. */
export type LayerSink = Pick<ImageSink, "addLayer">;

export interface ProgramLayerOptions {
  readonly entries: Entries;
  /** The layer's tar, if the binary was packed by an earlier run. */
  readonly known: KnownTar | undefined;
  /** Gets the layer if it has to be made. @default none */
  readonly sink?: LayerSink | undefined;
  /** An earlier run packed another binary of this program. @default false */
  readonly changed?: boolean;
}

/** The measured tar of a layer. */
export interface KnownTar {
  readonly diffId: Digest;
  /** Bytes. */
  readonly size: number;
}

export interface KodataLayerOptions {
  /** Gets the layer if it has to be made. @default none */
  readonly sink?: LayerSink | undefined;
  /** @default the files of now */
  readonly older?: OlderKodata | undefined;
}

/** How the kodata layer of an older commit is known. */
export interface OlderKodata {
  readonly isKept: Promise<boolean>;
  /** Whether an entry only names the commit: it may be another than that of now. */
  readonly isStamp: (entry: TarEntry) => boolean;
}

export interface FixedLayerOptions {
  /** The layer, compressed as the store does: a cached one that is another was forged. @default not known */
  readonly expected?: LayerConstant;
  /** Gets the layer if it has to be made. @default none */
  readonly sink?: LayerSink | undefined;
}

/** A layer that is a constant of the program. */
export interface LayerConstant {
  /** Of the compressed layer. */
  readonly digest: Digest;
  /** Bytes of the compressed layer. */
  readonly size: number;
  readonly diffId: Digest;
}

/** A layer with its tar, which the descriptor does not describe if the layer is compressed. */
export interface StoredLayer {
  readonly layer: Layer;
  readonly tar: KnownTar;
}

/** The cache record of a layer. */
interface LayerRecord {
  readonly tar: KnownTar;
  /** The compressed bytes. Undefined for a plain tar, which is packed when it is read. */
  readonly kept: Kept | undefined;
}

/** A part of every cache key. Increase it when the same input gives other bytes. */
const FORMAT = 1;

export class LayerStore {
  readonly #options: LayerStoreOptions;
  /** By the key of the run. */
  readonly #made = new Map<string, Promise<StoredLayer>>();
  readonly #early = new Map<string, EarlyCompression>();
  /** The keys of the records that were used. */
  readonly #recalled = new Set<string>();
  readonly #limit: <T>(work: () => Promise<T>) => Promise<T>;

  constructor(options: LayerStoreOptions) {
    this.#options = options;
    const { context, jobs } = options;
    this.#limit = createLimit(Math.min(4, jobs > 0 ? jobs : Math.max(2, context.host.cpus)));
  }

  /**
   * Returns the layer of a program.
   *
   * @param key identifies the layer in this run
   */
  program(key: string, options: ProgramLayerOptions): Promise<StoredLayer> {
    const { entries, known } = options;
    return once(this.#made, key, async () => {
      const recorded = known === undefined ? undefined : this.#recall(this.#tarKey(known.diffId), entries);
      if (recorded !== undefined) return recorded;
      if (known !== undefined && this.#options.compression.kind === "none") return this.#plain(known, entries);
      const made = await this.#make(key, entries, options);
      if (known !== undefined && made.layer.diffId !== known.diffId) throw this.#distrust(known.diffId);
      this.#record(this.#tarKey(made.layer.diffId), made);
      return made;
    });
  }

  /**
   * Starts to compress the layer of a program that may still change. {@link LayerStore.program} reuses the blocks that did
   * not.
   *
   * @param entries the final entries, with the present path of the file
   */
  begin(key: string, entries: Iterable<TarEntry>): void {
    const { compression, context, pool } = this.#options;
    if (compression.kind === "none" || this.#early.has(key)) return;
    this.#early.set(key, beginLayer(entries, { codec: compression, pool, signal: context.signal }));
  }

  /**
   * Returns the layer of a kodata folder.
   *
   * @param key identifies the layer in this run
   * @param list returns the entries; called once per key
   * @param options.older takes the layer of an older commit, if the image of that commit is kept
   */
  kodata(
    key: string,
    list: () => Promise<readonly TarEntry[]>,
    { older, sink }: KodataLayerOptions = {},
  ): Promise<StoredLayer> {
    return once(this.#made, key, async () => {
      const { cache, host } = this.#options.context;
      const entries = await list();
      if (cache === undefined) return this.#make(key, () => entries, { sink });
      const window = new Window(host.now().getTime(), host.now().getTime());
      if (older !== undefined && entries.some(older.isStamp)) return this.#olderKodata(key, entries, { older, sink });
      const before = await this.#treeKey(entries, window);
      const recorded = this.#recall(before.key, () => entries);
      if (recorded !== undefined) return recorded;
      const made = await this.#make(key, () => entries, { sink });
      // A file may have been changed while it was packed.
      const after = before.isSettled ? await this.#treeKey(entries, window) : undefined;
      if (after?.key === before.key) this.#record(before.key, made);
      return made;
    });
  }

  /** The kodata layer of the image that is kept, or one of now, for later runs to keep. */
  async #olderKodata(
    key: string,
    entries: readonly TarEntry[],
    { older, sink }: { readonly older: OlderKodata; readonly sink: LayerSink | undefined },
  ): Promise<StoredLayer> {
    const { compression, context } = this.#options;
    const options = { compression, isStamp: older.isStamp, signal: context.host.signal };
    const before = await contentKey(entries, options);
    const kept = (await older.isKept) ? this.#recall(before, () => entries) : undefined;
    if (kept !== undefined) return kept;
    const made = await this.#make(key, () => entries, { sink });
    // A file may have been changed while it was packed.
    if ((await contentKey(entries, options)) === before) this.#record(before, made);
    return made;
  }

  /**
   * Returns a layer whose content depends on its name only.
   *
   * @param name with the version of the code that makes the content
   */
  async fixed(name: string, entries: Entries, { expected, sink }: FixedLayerOptions = {}): Promise<Layer> {
    const { layer } = await once(this.#made, name, async () => {
      const key = keyOf([FORMAT, Bun.version, this.#options.compression, name]);
      const recorded = this.#recall(key, entries);
      if (recorded !== undefined && isExpected(recorded.layer, expected)) return recorded;
      const made = await this.#make(name, entries, { sink });
      this.#record(key, made);
      return made;
    });
    return layer;
  }

  /** Waits until no layer is being made. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#made.values(), ...Array.from(this.#early.values(), (early) => early.stop())]);
  }

  #make(
    key: string,
    entries: Entries,
    { sink, changed = false }: Pick<ProgramLayerOptions, "sink" | "changed"> = {},
  ): Promise<StoredLayer> {
    const { compression, context, pool } = this.#options;
    const { signal, timing } = context;
    return this.#limit(async () => {
      signal.throwIfAborted();
      // A key begins with the import path.
      const subject = { text: key, importPaths: [key.replace(/ .*/, "")] };
      return timing.time("layer", subject, async () => {
        if (compression.kind === "none") {
          const layer = await measureLayer(entries, { mediaType: MEDIA_TYPES.ociTarLayer, signal });
          return { layer, tar: { diffId: layer.diffId, size: layer.descriptor.size } };
        }
        const stream = writeLayer(entries(), {
          file: await this.#newFile(),
          mediaType: this.#mediaType,
          codec: compression,
          pool,
          signal,
          early: this.#early.get(key),
        });
        sink?.addLayer(stream, { changed });
        const layer = await stream.done;
        return { layer, tar: { diffId: layer.diffId, size: layer.tarSize } };
      });
    });
  }

  /** OCI types; on a Docker base the layer gets Docker's type. */
  get #mediaType(): string {
    return this.#options.compression.kind === "zstd" ? MEDIA_TYPES.ociZstdLayer : MEDIA_TYPES.ociLayer;
  }

  async #newFile(): Promise<string> {
    const folder = join(this.#options.folder, "layers");
    await mkdir(folder, { recursive: true });
    return join(folder, crypto.randomUUID());
  }

  /** A layer that stays a plain tar: packed anew for each reader, and verified. */
  #plain({ diffId, size }: KnownTar, entries: Entries): StoredLayer {
    const { signal } = this.#options.context;
    const descriptor = { mediaType: MEDIA_TYPES.ociTarLayer, size, digest: diffId };
    const open = async function* (this: LayerStore, openSignal?: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
      const tar = packTar(entries(), { signal: openSignal ?? signal });
      try {
        yield* verified(tar, descriptor, "a layer that was measured before");
      } catch (error) {
        (openSignal ?? signal).throwIfAborted();
        throw this.#distrust(diffId, { cause: error });
      }
    }.bind(this);
    return { layer: { descriptor, diffId, open }, tar: { diffId, size } };
  }

  /**
   * Evicts content that no longer is what its digest says: this run cannot go on with the cache.
   *
   * @param options.evicted the blob @default the program of the layer
   */
  #distrust(
    diffId: Digest,
    { cause, evicted = diffId }: { readonly cause?: unknown; readonly evicted?: Digest } = {},
  ): KoError {
    const { cache } = this.#options.context;
    const why = `Cannot use the cached layer ${diffId}: its content was changed`;
    cache?.drop(evicted);
    cache?.reportDamage(why);
    return new KoError(why, { cause });
  }

  /** The layer of an earlier run, if it is recorded. */
  #recall(key: string, entries: Entries): StoredLayer | undefined {
    const { compression, context } = this.#options;
    const { cache } = context;
    const record = cache?.read("layer", key);
    if (cache === undefined || !isLayerRecord(record)) return undefined;
    const { kept, tar } = record;
    if (compression.kind === "none") return this.#plain(tar, entries);
    if (kept === undefined) return undefined;
    const { kind } = compression;
    const { digest, size } = kept;
    const descriptor = { mediaType: this.#mediaType, size, digest };
    const what = `the layer "${cache.path(digest)}"`;
    this.#recalled.add(key);
    let again: Promise<StoredLayer> | undefined;
    let isProven = false;
    const open = async function* (this: LayerStore, openSignal?: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
      const path = await cache.take(kept, openSignal);
      if (path === undefined) {
        // The cached file is missing or damaged.
        again ??= this.#make(key, entries);
        const { layer } = await again;
        // The cached binary is damaged, a kodata file has changed just now, or the record was forged.
        if (layer.descriptor.digest !== digest || layer.descriptor.size !== size) throw this.#distrust(tar.diffId);
        yield* layer.open(openSignal);
      } else {
        try {
          const packed = verified(readChunks(path, { signal: openSignal, what }), descriptor, what);
          yield* checkUnpacked(packed, { kind, digest: tar.diffId, size: tar.size, what });
        } catch (error) {
          (openSignal ?? context.signal).throwIfAborted();
          // One forged record seldom comes alone: all that this run took are made again.
          for (const recalled of this.#recalled) cache.remove("layer", recalled);
          throw this.#distrust(tar.diffId, { cause: error, evicted: digest });
        }
      }
      isProven = true;
    }.bind(this);
    const prove = async (signal?: AbortSignal): Promise<void> => {
      if (!isProven) for await (const chunk of open(signal)) void chunk;
    };
    return { layer: { descriptor, diffId: tar.diffId, open, prove }, tar };
  }

  /** Stores a new layer in the cache, if there is one. */
  #record(key: string, { layer, tar }: StoredLayer): void {
    const { compression, context } = this.#options;
    const { cache } = context;
    if (cache === undefined) return;
    if (compression.kind === "none") return cache.write("layer", key, { tar });
    const { digest } = layer.descriptor;
    const kept = "path" in layer && typeof layer.path === "string" ? cache.keep(layer.path, digest) : undefined;
    if (kept !== undefined) cache.write("layer", key, { tar, kept });
  }

  #tarKey(diffId: Digest): string {
    return keyOf([FORMAT, Bun.version, this.#options.compression, diffId]);
  }

  /** The key of everything that decides the bytes of a kodata layer; its files count by their marks. */
  async #treeKey(
    entries: readonly TarEntry[],
    window: Window,
  ): Promise<{ readonly key: string; readonly isSettled: boolean }> {
    const pace = new Pace(this.#options.context.host.signal);
    let isSettled = true;
    const parts: unknown[] = [FORMAT, Bun.version, this.#options.compression];
    for (const { content, ...entry } of entries) {
      if (pace.isDue) await pace.turn();
      parts.push(entry);
      if (content === undefined || !("path" in content)) continue;
      const found = look(content.path);
      parts.push(content.path, markOf(found));
      isSettled &&= found !== undefined && window.judge(found) === "settled";
    }
    return { key: keyOf(parts), isSettled };
  }
}

/** The key of a kodata layer whose files count by their content, but for those that only name the commit. */
async function contentKey(
  entries: readonly TarEntry[],
  {
    compression,
    isStamp,
    signal,
  }: Pick<LayerStoreOptions, "compression"> & Pick<OlderKodata, "isStamp"> & { readonly signal: AbortSignal },
): Promise<string> {
  const pace = new Pace(signal);
  const parts: unknown[] = [FORMAT, Bun.version, compression, "content"];
  for (const whole of entries) {
    if (pace.isDue) await pace.turn();
    const { content, ...entry } = whole;
    if (isStamp(whole)) parts.push(["stamp", entry.name]);
    else parts.push(entry, content !== undefined && "path" in content ? await hashFile(content.path, signal) : "");
  }
  return keyOf(parts);
}

function isExpected({ descriptor, diffId }: Layer, expected: LayerConstant | undefined): boolean {
  if (expected === undefined) return true;
  return descriptor.digest === expected.digest && descriptor.size === expected.size && diffId === expected.diffId;
}

/** A record may have been forged: its digests name files. */
function isLayerRecord(value: unknown): value is LayerRecord {
  if (!isObject(value) || !isObject(value["tar"])) return false;
  const { kept, tar } = value;
  return isContent(tar["diffId"], tar["size"]) && (!isObject(kept) || isContent(kept["digest"], kept["size"]));
}

function isContent(digest: unknown, size: unknown): boolean {
  return typeof digest === "string" && isDigest(digest) && Number.isSafeInteger(size);
}
