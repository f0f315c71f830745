/**
 * The resources of a run: registry client, daemon, base images, compressors, work folder. Each is opened when it is first
 * used, once, and closed at the end of the run.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { once } from "./async.ts";
import { adviseOnBase, type Base, readBase, showBase } from "./base.ts";
import { registrySource } from "./base-registry.ts";
import type { RunContext } from "./cache.ts";
import { CompressionPool, FAST_GZIP } from "./compress.ts";
import { type BaseName, parseBase } from "./config.ts";
import { mirrorsOf, type Registries } from "./config-registries.ts";
import type { DockerEngine } from "./docker.ts";
import type { ImageSource } from "./image.ts";
import type { Destination, LocalTarget, Place, TagRule } from "./publish-destination.ts";
import {
  archivePublisher,
  dryPublisher,
  layoutPublisher,
  type Publisher,
  registryPublisher,
  teePublisher,
} from "./publish.ts";
import type { LocalPlace, LocalPlaceOptions } from "./publish-local.ts";
import { isOffline } from "./offline.ts";
import { formatReference, type Reference } from "./reference.ts";
import type { Registry } from "./registry.ts";
import { isLoopback } from "./url.ts";
import { koVersion } from "./version.ts";

export interface ResourcesOptions {
  readonly context: RunContext;
  /** Hosts to which plain HTTP and unverified TLS are allowed. */
  readonly insecureHosts: readonly string[];
  /** How single registries are reached, and their mirrors. */
  readonly registries: Registries;
  /** False leaves the layers of a base from a daemon uncompressed, as most of them are. */
  readonly compress: boolean;
}

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
    this.pool = this.#closing.use(new CompressionPool({ workers: Math.min(options.context.host.cpus, 4) }));
  }

  /** The registry client. */
  registry(): Promise<Registry> {
    this.#registry ??= (async () => {
      const { cache, host, log } = this.#options.context;
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
        rules: this.#options.registries,
        mirrors: listMirrors(this.#options.registries),
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

  /** A publisher to all places. @throws {UsageError} If the place for SBOMs is not valid. */
  async publisher(
    destination: Pick<Destination, "also" | "places" | "repository" | "sbom" | "tags">,
  ): Promise<Publisher> {
    const { also, repository, sbom } = destination;
    const main = await this.#publisherOf(destination);
    if (also.length === 0) return main;
    const { alsoPublisher } = await import("./publish-also.ts");
    const pushed = { places: [{ kind: "registry" }], tags: destination.tags } as const;
    // The files of --sbom-dir and of a layout are written once.
    const plan = sbom?.registry === true ? { registry: true, dir: undefined, layout: undefined } : undefined;
    const others = also.map(async (other) => ({
      publisher: await this.#publisherOf({ ...pushed, sbom: plan }),
      nameOf: (name: string) => `${other}${name.slice(repository.length)}`,
    }));
    return alsoPublisher({ main, others: await Promise.all(others) });
  }

  async #publisherOf({ places, sbom, tags }: Pick<Destination, "places" | "sbom" | "tags">): Promise<Publisher> {
    const publisher =
      places.length === 0
        ? dryPublisher(tags)
        : teePublisher(await Promise.all(places.map((place) => this.#publisherTo(place, tags))));
    if (sbom === undefined) return publisher;
    const { context } = this.#options;
    const { sbomPublisher } = await import("./publish-sbom.ts");
    const registry = sbom.registry ? this.registry() : undefined;
    return sbomPublisher(publisher, { context, registry, plan: sbom, koVersion: await koVersion(context.host) });
  }

  async #publisherTo(place: Place, tags: TagRule): Promise<Publisher> {
    const { host, log, timing } = this.#options.context;
    switch (place.kind) {
      case "registry":
        return registryPublisher({ tags, registry: this.registry(), log, timing });
      case "layout":
        return layoutPublisher(place.path, { tags, host, log, timing });
      case "tarball":
      case "oci-archive":
        return archivePublisher(place, { tags, host, log, timing });
      default: {
        const { localPublisher } = await import("./publish-local.ts");
        return localPublisher({ tags, place: this.place(place.kind), log, timing });
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
    const { host, log } = this.#options.context;
    return { host, log, signal: host.signal };
  }

  /** The work folder of the run: in the cache, so that files can stay there without being copied. */
  folder(): Promise<string> {
    const { cache, host } = this.#options.context;
    if (cache !== undefined) return cache.work();
    this.#folder ??= host.tempFolder("ko").then((folder) => this.#closing.use(folder).path);
    return this.#folder;
  }

  /** A base image, by its name in the configuration. */
  base(text: string): Promise<Base> {
    return once(this.#bases, text, () => this.#options.context.timing.time("base", text, () => this.#readBase(text)));
  }

  async #readBase(text: string): Promise<Base> {
    const { host } = this.#options.context;
    const spec = parseBase(text, host.cwd);
    try {
      return await readBase(await this.#source(spec), { spec, shown: showBase(spec), signal: host.signal });
    } catch (error) {
      throw adviseOnBase(error, text);
    }
  }

  async #source(spec: BaseName): Promise<ImageSource> {
    switch (spec.kind) {
      case "registry":
        if (spec.reference.host === "ko.local") return this.#daemonSource(spec.reference);
        return this.#registrySource(spec.reference);
      case "builtin":
        return this.#builtinSource();
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

  async #registrySource(reference: Reference): Promise<ImageSource> {
    const { context, registries } = this.#options;
    const { cache, host, log } = context;
    const registry = await this.registry();
    const mirrors = mirrorsOf(registries, reference);
    const offline = isOffline(host.env) && !isLoopback(reference.host);
    const options = { reference, cache, isOffline: offline, log, now: () => host.now() };
    if (mirrors.length === 0) return registrySource(registry, options);
    const { openMirrors } = await import("./base-mirrors.ts");
    return registrySource(openMirrors(registry, { mirrors, log }), options);
  }

  async #daemonSource(reference: Reference): Promise<ImageSource> {
    const { compress, context } = this.#options;
    const { openDaemonBase } = await import("./base-daemon.ts");
    const folder = join(await this.folder(), `base-${this.#bases.size}`);
    await mkdir(folder, { recursive: true });
    const options = { folder, pool: this.pool, compress, signal: context.signal };
    return openDaemonBase(await this.#daemon(), formatReference(reference), options);
  }

  async #builtinSource(): Promise<ImageSource> {
    const { context } = this.#options;
    const [{ openBuiltin, STATIC_LAYER, staticEntries }, { LayerStore }] = await Promise.all([
      import("./base-builtin.ts"),
      import("./layer-cache.ts"),
    ]);
    const folder = await this.folder();
    const store = new LayerStore({ context, pool: this.pool, compression: FAST_GZIP, folder, jobs: 0 });
    return openBuiltin(await store.fixed("ko.builtin/static", staticEntries, { expected: STATIC_LAYER }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Wait for work that was started and not used, so that it does not outlive the run.
    await Promise.allSettled([...this.#bases.values(), this.#registry, this.#place, this.#engine, this.#folder]);
    await this.#closing.disposeAsync();
  }
}

/** The hosts of all mirrors. */
function listMirrors(registries: Registries): readonly string[] {
  return Array.from(registries.values(), ({ mirrors }) => mirrors.map(({ host }) => host)).flat();
}

/** The platform of a local target, such as `linux/arm64`. */
export async function platformOf(place: Promise<LocalPlace>): Promise<string> {
  const { architecture, os } = await (await place).platform();
  return `${os}/${architecture}`;
}
