/**
 * What a run opens once and closes at its end: registry client, daemon, base images, compressors, temporary folder.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Base, readBase, showBase } from "./base.ts";
import type { Cache } from "./cache.ts";
import { CompressionPool, FAST_GZIP } from "./compress.ts";
import { type BaseName, DEFAULT_BASE_IMAGE, parseBase } from "./config.ts";
import type { DockerEngine } from "./docker.ts";
import { KoError, RegistryError } from "./errors.ts";
import type { Host } from "./host.ts";
import type { ImageSource } from "./image.ts";
import type { Log } from "./log.ts";
import type { Destination, LocalTarget, Place, TagRule } from "./publish-destination.ts";
import { dryPublisher, type Publisher, registryPublisher, teePublisher } from "./publish.ts";
import type { LocalPlace, LocalPlaceOptions } from "./publish-local.ts";
import { formatReference } from "./reference.ts";
import type { Registry } from "./registry.ts";
import type { Timing } from "./timing.ts";
import { koVersion } from "./version.ts";

export interface ResourcesOptions {
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
  /** Hosts to which plain HTTP and unverified TLS are allowed. */
  readonly insecureHosts: readonly string[];
  /** False leaves the layers of a base from a daemon as they are: plain tars, mostly. */
  readonly compress: boolean;
  /** What is kept between runs; undefined if it is off. */
  readonly cache: Cache | undefined;
}

/** Each is opened when it is first asked for. */
export class Resources implements AsyncDisposable {
  readonly pool: CompressionPool;
  readonly #options: ResourcesOptions;
  readonly #closing = new AsyncDisposableStack();
  readonly #bases = new Map<string, Promise<Base>>();
  #registry: Promise<Registry> | undefined;
  #engine: Promise<DockerEngine> | undefined;
  #place: Promise<LocalPlace> | undefined;
  #folder: Promise<string> | undefined;

  constructor(options: ResourcesOptions) {
    this.#options = options;
    this.pool = this.#closing.use(new CompressionPool({ workers: Math.min(options.host.cpus, 4) }));
  }

  /** The registry client, loaded when the first registry is talked to. */
  registry(): Promise<Registry> {
    this.#registry ??= (async () => {
      const { cache, host, log } = this.#options;
      const [{ Registry }, { createKeychain }, version] = await Promise.all([
        import("./registry.ts"),
        import("./registry-keychain.ts"),
        koVersion(host),
      ]);
      const registry = new Registry({
        keychain: createKeychain(host, log),
        log,
        signal: host.signal,
        userAgent: `ko/${version}`,
        insecureHosts: this.#options.insecureHosts,
        env: host.env,
        records: cache,
      });
      return this.#closing.use(registry);
    })();
    return this.#registry;
  }

  /** The local target. */
  place(target: LocalTarget): Promise<LocalPlace> {
    this.#place ??= (async () => {
      const { findLocalPlace } = await import("./publish-local.ts");
      return this.#closing.use(await findLocalPlace(target, this.#local));
    })();
    return this.#place;
  }

  /** Returns a publisher to all places of `destination`. */
  async publisher({ places, tags }: Pick<Destination, "places" | "tags">): Promise<Publisher> {
    if (places.length === 0) return dryPublisher(tags);
    return teePublisher(await Promise.all(places.map((place) => this.#publisherTo(place, tags))));
  }

  async #publisherTo(place: Place, tags: TagRule): Promise<Publisher> {
    const { host, log, timing } = this.#options;
    switch (place.kind) {
      case "registry":
        return registryPublisher({ tags, registry: this.registry(), log, timing });
      case "layout": {
        const { layoutPublisher } = await import("./publish-files.ts");
        return layoutPublisher(place.path, { tags, host, log });
      }
      case "tarball":
      case "oci-archive": {
        const { archivePublisher } = await import("./publish-files.ts");
        return archivePublisher(place, { tags, host, log });
      }
      default: {
        const { localPublisher } = await import("./publish-local.ts");
        return localPublisher({ tags, place: this.place(place.kind), log });
      }
    }
  }

  /** The local daemon, for a `ko.local/…` base. */
  #daemon(): Promise<DockerEngine> {
    this.#engine ??= (async () => {
      const { openDaemon } = await import("./publish-local.ts");
      return this.#closing.use(await openDaemon(this.#local));
    })();
    return this.#engine;
  }

  get #local(): LocalPlaceOptions {
    const { host, log } = this.#options;
    return { host, log, signal: host.signal };
  }

  /** The run's own folder: in the cache, so that what is worth it can stay there without being copied. */
  folder(): Promise<string> {
    const { cache } = this.#options;
    if (cache !== undefined) return cache.work();
    this.#folder ??= this.#options.host.tempFolder("ko").then((folder) => this.#closing.use(folder).path);
    return this.#folder;
  }

  /** A base by its text in the configuration; each is read once. */
  base(text: string): Promise<Base> {
    const known = this.#bases.get(text);
    if (known !== undefined) return known;
    const { host } = this.#options;
    const base = this.#options.timing.time("base", text, async () => {
      const spec = parseBase(text, host.cwd);
      try {
        return await readBase(await this.#source(spec), { spec, shown: showBase(spec), signal: host.signal });
      } catch (error) {
        const unreachable = error instanceof RegistryError && error.status === undefined;
        if (text !== DEFAULT_BASE_IMAGE || !unreachable) throw error;
        // Nobody chose this base: whoever cannot reach it wants to hear of the one that needs no network.
        throw new KoError(error.message, {
          transient: true,
          hint: "Choose a base image that can be reached, or the one ko makes itself: export KO_DEFAULTBASEIMAGE=ko.builtin/static",
        });
      }
    });
    this.#bases.set(text, base);
    return base;
  }

  async #source(spec: BaseName): Promise<ImageSource> {
    const { host } = this.#options;
    switch (spec.kind) {
      case "registry": {
        if (spec.reference.host === "ko.local") {
          const { openDaemonBase } = await import("./base-daemon.ts");
          const { pool } = this;
          const { compress } = this.#options;
          const folder = join(await this.folder(), `base-${this.#bases.size}`);
          await mkdir(folder, { recursive: true });
          const name = formatReference(spec.reference);
          return openDaemonBase(await this.#daemon(), name, { folder, pool, compress, signal: host.signal });
        }
        const registry = await this.registry();
        const { reference } = spec;
        const source: ImageSource = {
          getManifest: (name, options) => registry.getManifest(reference, name, options),
          openBlob: (descriptor, signal) => registry.openBlob(reference, descriptor, signal),
          blobSource: { host: reference.host, path: reference.path },
        };
        const { cache } = this.#options;
        if (cache === undefined) return source;
        const { cacheBase } = await import("./base.ts");
        return cacheBase(source, { cache, findTag: (tag) => registry.findManifest(reference, tag) });
      }
      case "builtin": {
        const [{ openBuiltin, staticEntries }, { LayerStore }, version] = await Promise.all([
          import("./base-builtin.ts"),
          import("./layer-cache.ts"),
          koVersion(host),
        ]);
        const { pool } = this;
        const folder = await this.folder();
        const { cache, log, timing } = this.#options;
        const { signal } = host;
        const context = { host, log, timing, signal, cache };
        const store = new LayerStore({ context, pool, compression: FAST_GZIP, folder, jobs: 0 });
        return openBuiltin(await store.fixed(`ko.builtin/static of ko ${version}`, staticEntries));
      }
      case "scratch": {
        const { openScratch } = await import("./base-builtin.ts");
        return openScratch();
      }
      case "layout": {
        const { openLayout } = await import("./layout.ts");
        return openLayout(spec.path);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What nobody waited for may still be on its way: let it settle, so that nothing outlives the run.
    await Promise.allSettled([...this.#bases.values(), this.#registry, this.#place, this.#engine, this.#folder]);
    await this.#closing.disposeAsync();
  }
}
