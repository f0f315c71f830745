/**
 * Publishes images: to a registry, to files, to several places, or nowhere. publish-local.ts has daemons and clusters.
 */
import { resolve } from "node:path";
import { inBackground } from "./async.ts";
import { KoError } from "./errors.ts";
import { look, writeArchiveFile, writeOutputFile } from "./file.ts";
import type { Host } from "./host.ts";
import type { Blob, BlobStream, Built, Image, ImageSink, Published, PublishHint } from "./image.ts";
import type { Log } from "./log.ts";
import { type Descriptor, type Digest, isForeignLayer } from "./oci.ts";
import type { FilePlace, TagRule } from "./publish-destination.ts";
import { formatRepository, parseRepository, type Repository } from "./reference.ts";
import type { Registry } from "./registry.ts";
import { Transfers } from "./publish-transfer.ts";
import type { Timing } from "./timing.ts";

/** Takes the images of a run to one place. */
export interface Publisher {
  /**
   * Opens the sink of one image.
   *
   * @param name the image's name without tag and digest, see `imageName()` of reference.ts
   */
  open(name: string): ImageSink;
  /** Completes the place. Called once, after all images of the run were published. */
  finish(): Promise<void>;
}

/** The part of a registry client that publishes. */
export type PushTarget = Pick<Registry, "findManifest" | "pushBlob" | "pushManifest" | "streamBlob">;

export interface RegistryPublisherOptions {
  readonly tags: TagRule;
  readonly registry: Promise<PushTarget>;
  readonly log: Log;
  readonly timing: Timing;
}

export interface FilePublisherOptions {
  readonly tags: TagRule;
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
}

export interface PublishedReferenceOptions {
  readonly digest: Digest;
  /** @default no tag */
  readonly tags?: TagRule;
  /**
   * "always" shows the first tag. "unless latest" shows a tag only if it is the single one and not `latest`.
   *
   * @default "always"
   */
  readonly show?: "always" | "unless latest";
}

/** Publishes to a registry. A tag is moved after everything that its manifest names is stored. */
export function registryPublisher(options: RegistryPublisherOptions): Publisher {
  return { open: (name) => new RegistrySink(name, options), finish: async () => {} };
}

/** Publishes to several places, one after another. The reference is the last place's. */
export function teePublisher(publishers: readonly Publisher[]): Publisher {
  return {
    open: (name) => {
      const sinks = publishers.map((publisher) => publisher.open(name));
      return {
        addLayer: (layer, hint) => {
          for (const sink of sinks) sink.addLayer(layer, hint);
        },
        store: async (image) => {
          await Promise.all(sinks.map(async (sink) => sink.store?.(image)));
        },
        publish: async (image, hint) => {
          let published: Published | undefined;
          for (const sink of sinks) published = await sink.publish(image, hint);
          if (published === undefined) throw new RangeError("no place to publish to");
          return published;
        },
      };
    },
    finish: async () => {
      for (const publisher of publishers) await publisher.finish();
    },
  };
}

/** Returns references without storing anything, for `--push=false`. */
export function dryPublisher(tags: TagRule): Publisher {
  return {
    open: (name) =>
      wholeImageSink(async (image) => {
        const reference = publishedReference(name, { digest: image.descriptor.digest, tags });
        return { reference, all: listAll(image, reference, name) };
      }),
    finish: async () => {},
  };
}

/** Returns a sink for a place that takes complete images only: it ignores layers. */
export function wholeImageSink(publish: ImageSink["publish"]): ImageSink {
  return { addLayer: () => {}, publish };
}

/** Returns `name[:tag][@digest]`, the reference of a published image. */
export function publishedReference(name: string, options: PublishedReferenceOptions): string {
  const { digest, show = "always", tags } = options;
  const [first, another] = tags?.names ?? [];
  const isHidden = show === "unless latest" && (first === "latest" || another !== undefined);
  const tagged = first === undefined || isHidden ? name : `${name}:${first}`;
  return tags?.only === true ? tagged : `${tagged}@${digest}`;
}

/** Returns ` (v1, latest)`: the tags of an image, unless its reference shows them; empty for `latest` alone. */
export function formatTags(reference: string, names: readonly string[]): string {
  const [first = "latest", another] = names;
  const isShown = first === "latest" || new RegExp(`:${RegExp.escape(first)}(?:@|$)`).test(reference);
  return another === undefined && isShown ? "" : ` (${names.join(", ")})`;
}

/**
 * Returns the lines of one image for `--image-refs`: its reference, or digests of an index and its images.
 *
 * @param repository the name before each digest
 */
export function listAll(built: Built, reference: string, repository: string): readonly string[] {
  if (built.kind === "image") return [reference];
  return [built, ...built.children].map(({ descriptor: { digest } }) => publishedReference(repository, { digest }));
}

/**
 * Writes the `--image-refs` file, as `writeOutputFile()` of file.ts writes.
 *
 * @throws {KoError} If it cannot be written.
 */
export async function writeImageRefs(path: string, published: readonly Published[]): Promise<void> {
  const text = published.flatMap(({ all }) => all.map((reference) => `${reference}\n`)).join("");
  await writeOutputFile(path, text, "--image-refs");
}

class RegistrySink implements ImageSink {
  readonly #name: string;
  readonly #options: RegistryPublisherOptions;
  /** The manifest that the first tag names now, asked for before the image is built; undefined without a tag. */
  readonly #existing: Promise<Descriptor | undefined>;
  readonly #transfers: Transfers;

  constructor(name: string, options: RegistryPublisherOptions) {
    this.#name = name;
    this.#options = options;
    this.#transfers = new Transfers({ timing: options.timing, host: parseRepository(name).host, image: name });
    const [first] = options.tags.names;
    this.#existing = first === undefined ? Promise.resolve(undefined) : inBackground(this.#find(first));
  }

  addLayer(layer: BlobStream, { changed }: { readonly changed: boolean }): void {
    const { timing } = this.#options;
    void inBackground(
      timing.time("upload", { text: `a layer of ${this.#name}`, image: this.#name }, () =>
        this.#sendLayer(layer, changed),
      ),
    );
  }

  async store(image: Built): Promise<void> {
    const registry = await this.#options.registry;
    const repository = parseRepository(this.#name);
    const { digest } = image.descriptor;
    if ((await this.#find(digest))?.digest === digest) return;
    await this.#options.timing.time("upload", { text: this.#name, image: this.#name }, async () => {
      await pushContent(registry, { repository, built: image, transfers: this.#transfers });
      await registry.pushManifest(repository, digest, image);
    });
  }

  async publish(image: Built, { reused }: PublishHint): Promise<Published> {
    const { log, tags, timing } = this.#options;
    const name = this.#name;
    const registry = await this.#options.registry;
    const repository = parseRepository(name);
    const { digest } = image.descriptor;
    const [first = digest, ...others] = tags.names;
    // An answer from before the build may be outdated, and without a tag there is none.
    const isKnown = reused && first !== digest;
    const existing = await timing.time("manifest", { text: name, image: name }, () =>
      isKnown ? this.#existing : this.#find(first),
    );
    if (existing?.digest !== digest) {
      await timing.time("upload", { text: name, image: name }, () =>
        pushContent(registry, { repository, built: image, transfers: this.#transfers }),
      );
      const text = first === digest ? `${name}@${digest}` : `${name}:${first}`;
      await timing.time("manifest", { text, image: name }, () => registry.pushManifest(repository, first, image));
    }
    for (const tag of others) {
      await timing.time("manifest", { text: `${name}:${tag}`, image: name }, () =>
        registry.pushManifest(repository, tag, image),
      );
    }
    const reference = publishedReference(name, { digest, tags, show: "unless latest" });
    const wasThere = existing?.digest === digest;
    log.info(`${wasThere ? "Already there:" : "Published"} ${reference}${formatTags(reference, tags.names)}`);
    return { reference, wasThere, all: listAll(image, reference, formatRepository(repository)) };
  }

  /** @param reference a tag or a digest */
  async #find(reference: string): Promise<Descriptor | undefined> {
    const registry = await this.#options.registry;
    return registry.findManifest(parseRepository(this.#name), reference, { push: true });
  }

  async #sendLayer(layer: BlobStream, changed: boolean): Promise<void> {
    const [registry, existing] = await Promise.all([this.#options.registry, this.#existing]);
    const repository = parseRepository(this.#name);
    // The registry may have an unchanged layer: only its digest, known at its end, can tell.
    const isNew = existing === undefined && this.#options.tags.names.length > 0;
    if (changed || isNew) await registry.streamBlob(repository, this.#transfers.stream(layer));
    else await registry.pushBlob(repository, this.#transfers.blob(await layer.done));
  }
}

export interface PushContentOptions {
  readonly repository: Repository;
  readonly built: Built;
  /** Reports the layers. @default no report */
  readonly transfers?: Transfers;
}

/** Pushes everything that the top manifest names: blobs first, then the manifests of an index's images. */
export async function pushContent(registry: PushTarget, options: PushContentOptions): Promise<void> {
  const { built, repository, transfers } = options;
  const images = built.kind === "image" ? [built] : built.children;
  const blobs = new Map<Digest, Blob>();
  for (const image of images) {
    for (const layer of image.layers) {
      if (isForeignLayer(layer.descriptor.mediaType)) continue;
      blobs.set(layer.descriptor.digest, transfers?.blob(layer) ?? layer);
    }
    blobs.set(image.manifest.config.digest, configBlob(image));
  }
  const pushed = new Map(Array.from(blobs, ([digest, blob]) => [digest, registry.pushBlob(repository, blob)]));
  await Promise.all([
    ...pushed.values(),
    ...images.map((image) => proveLayers(image, { registry, repository, pushed })),
  ]);
  if (built.kind === "index") {
    await Promise.all(images.map((image) => registry.pushManifest(repository, image.descriptor.digest, image)));
  }
}

interface ProveOptions {
  readonly registry: PushTarget;
  readonly repository: Repository;
  /** The pushes of the blobs, by digest. */
  readonly pushed: ReadonlyMap<Digest, ReturnType<PushTarget["pushBlob"]>>;
}

/**
 * Proves the cached layers that the registry has already, before a manifest names them. A manifest that the registry has
 * too tells nothing new.
 */
async function proveLayers(image: Image, { pushed, registry, repository }: ProveOptions): Promise<void> {
  let known: Promise<boolean> | undefined;
  const isKnown = async (): Promise<boolean> => {
    const { digest } = image.descriptor;
    return (await registry.findManifest(repository, digest, { push: true }))?.digest === digest;
  };
  await Promise.all(
    image.layers.map(async (layer) => {
      if (layer.prove === undefined || (await pushed.get(layer.descriptor.digest)) === "uploaded") return;
      if (!(await (known ??= isKnown()))) await layer.prove();
    }),
  );
}

function configBlob(image: Image): Blob {
  return {
    descriptor: image.manifest.config,
    open: async function* () {
      yield image.configBytes;
    },
  };
}

/** Adds each image to the layout in `path`, under its names. */
export function layoutPublisher(path: string, { tags, host, log, timing }: FilePublisherOptions): Publisher {
  return {
    open: (name) =>
      wholeImageSink(async (built) => {
        const items = tagNames(name, tags).map((tagged) => ({ built, name: tagged }));
        const { writeToLayout } = await import("./layout.ts");
        await timing.time("write", { text: path, image: name }, () =>
          writeToLayout(resolve(host.cwd, path), items, { signal: host.signal }),
        );
        const folder = path.replace(/(?<=.)\/+$/, "");
        const reference = publishedReference(folder, { digest: built.descriptor.digest });
        log.info(`Saved ${name} in ${path}`);
        return { reference, all: listAll(built, reference, folder) };
      }),
    finish: async () => {},
  };
}

/** Collects the images of the run and writes them into one archive at its end. */
export function archivePublisher(archive: Archive, { tags, host, log, timing }: FilePublisherOptions): Publisher {
  const items: ArchiveItem[] = [];
  return {
    open: (name) =>
      wholeImageSink(async (built) => {
        // Nothing can take back what a pipe has got.
        if (archive.file === "-" || look(archive.file)?.isFile() === false) await proveAll(built, host.signal);
        items.push({ built, names: tagNames(name, tags) });
        const { digest } = built.descriptor;
        const reference = publishedReference(name, { digest, tags, show: "unless latest" });
        return { reference, all: listAll(built, reference, name) };
      }),
    finish: async () => {
      const { signal } = host;
      const { file } = archive;
      const sorted = items.toSorted((a, b) => ((a.names[0] ?? "") < (b.names[0] ?? "") ? -1 : 1));
      await timing.time("write", file, async () =>
        writeArchiveFile(file, await pack(archive, sorted, signal), { host, signal }),
      );
      const count = items.length === 1 ? "the image" : `${items.length} images`;
      log.info(`Saved ${count} in ${file === "-" ? "standard output" : file}`);
    },
  };
}

async function proveAll(built: Built, signal: AbortSignal): Promise<void> {
  const images = built.kind === "image" ? [built] : built.children;
  for (const { layers } of images) for (const layer of layers) await layer.prove?.(signal);
}

type Archive = Extract<FilePlace, { readonly kind: "tarball" | "oci-archive" }>;

interface ArchiveItem {
  readonly built: Built;
  /** With tags. */
  readonly names: readonly string[];
}

async function pack(
  { kind }: Archive,
  items: readonly ArchiveItem[],
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  const { packArchive, packOciArchive } = await import("./archive.ts");
  if (kind === "oci-archive") return packOciArchive(items, { signal });
  const images = items.map(({ built, names }) => {
    if (built.kind === "image") return { image: built, names };
    throw new KoError(`Cannot write --tarball: ${names[0]} has several platforms`);
  });
  return packArchive(images, { signal });
}

/** Names under which an image is stored: with each tag, or `latest` without any. */
function tagNames(name: string, { names }: TagRule): readonly string[] {
  return (names.length > 0 ? names : ["latest"]).map((tag) => `${name}:${tag}`);
}
