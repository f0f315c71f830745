/**
 * Publishes images: to a registry, to several places, or nowhere. publish-files.ts and publish-local.ts have the other
 * places.
 */
import { inBackground } from "./async.ts";
import { writeOutputFile } from "./file.ts";
import type { Blob, BlobStream, Built, Image, ImageSink, Published } from "./image.ts";
import type { Log } from "./log.ts";
import { type Descriptor, type Digest, isForeignLayer } from "./oci.ts";
import type { Destination } from "./publish-destination.ts";
import { formatRepository, parseRepository, type Repository } from "./reference.ts";
import type { Registry } from "./registry.ts";
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

export interface RegistryPublisherOptions {
  readonly destination: Destination;
  readonly registry: Promise<Registry>;
  readonly log: Log;
  readonly timing: Timing;
}

/** What `--image-refs` lists of one result. */
export function listAll(built: Built, reference: string, repository: string): readonly string[] {
  if (built.kind === "image") return [reference];
  return [built, ...built.children].map((item) => `${repository}@${item.descriptor.digest}`);
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

/** Publishes to several places, one after another. The reference is the last place's. */
export function teePublisher(publishers: readonly Publisher[]): Publisher {
  return {
    open: (name) => {
      const sinks = publishers.map((publisher) => publisher.open(name));
      return {
        addLayer: (layer, hint) => {
          for (const sink of sinks) sink.addLayer(layer, hint);
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

/** Publishes nothing, for `--push=false`: returns the references that a push would have. */
export function dryPublisher({ destination }: Pick<RegistryPublisherOptions, "destination">): Publisher {
  return {
    open: (name) =>
      wholeImageSink(async (image) => {
        const [first] = destination.tags;
        const tagged = first === undefined ? name : `${name}:${first}`;
        const reference = destination.tagOnly ? tagged : `${tagged}@${image.descriptor.digest}`;
        return { reference, all: listAll(image, reference, name) };
      }),
    finish: async () => {},
  };
}

/** Returns a sink for a place that takes complete images only. */
export function wholeImageSink(publish: ImageSink["publish"]): ImageSink {
  return { addLayer: () => {}, publish };
}

/** Publishes to a registry. A tag is moved after everything that its manifest names is stored. */
export function registryPublisher(options: RegistryPublisherOptions): Publisher {
  return { open: (name) => new RegistrySink(name, options), finish: async () => {} };
}

class RegistrySink implements ImageSink {
  readonly #name: string;
  readonly #options: RegistryPublisherOptions;
  /** The manifest that the first tag names now, asked for before the image is built. */
  readonly #existing: Promise<Descriptor | undefined>;

  constructor(name: string, options: RegistryPublisherOptions) {
    this.#name = name;
    this.#options = options;
    this.#existing = inBackground(this.#findExisting());
  }

  addLayer(layer: BlobStream, { changed }: { readonly changed: boolean }): void {
    const { timing } = this.#options;
    void inBackground(timing.time("upload", `a layer of ${this.#name}`, () => this.#sendLayer(layer, changed)));
  }

  async publish(image: Built, { reused }: { readonly reused: boolean }): Promise<Published> {
    const { destination, log, timing } = this.#options;
    const name = this.#name;
    const registry = await this.#options.registry;
    const repository = parseRepository(name);
    const { digest } = image.descriptor;
    const [first, ...others] = this.#tags;
    // An answer from before the build may be outdated.
    const existing = await timing.time("manifest", name, () => (reused ? this.#existing : this.#findExisting()));
    if (existing?.digest !== digest) {
      await timing.time("upload", name, () => pushContent(registry, repository, image));
      await timing.time("manifest", `${name}:${first}`, () => registry.pushManifest(repository, first, image));
    }
    for (const tag of others) {
      await timing.time("manifest", `${name}:${tag}`, () => registry.pushManifest(repository, tag, image));
    }
    const tag = destination.tags.length === 1 && first !== "latest" ? first : undefined;
    const reference = destination.tagOnly
      ? `${name}:${first}`
      : `${name}${tag === undefined ? "" : `:${tag}`}@${digest}`;
    log.info(`Published ${reference}`);
    return { reference, all: listAll(image, reference, formatRepository(repository)) };
  }

  get #tags(): readonly [string, ...string[]] {
    const [first = "latest", ...others] = this.#options.destination.tags;
    return [first, ...others];
  }

  async #findExisting(): Promise<Descriptor | undefined> {
    const registry = await this.#options.registry;
    return registry.findManifest(parseRepository(this.#name), this.#tags[0], { push: true });
  }

  async #sendLayer(layer: BlobStream, changed: boolean): Promise<void> {
    const [registry, existing] = await Promise.all([this.#options.registry, this.#existing]);
    const repository = parseRepository(this.#name);
    // The existing image may well hold an unchanged layer: its digest tells, at the layer's end.
    if (changed || existing === undefined) await registry.streamBlob(repository, layer);
    else await registry.pushBlob(repository, await layer.done);
  }
}

/** Everything that the top manifest names: blobs first, then the manifests of an index's images. */
async function pushContent(registry: Registry, repository: Repository, built: Built): Promise<void> {
  const images = built.kind === "image" ? [built] : built.children;
  const blobs = new Map<Digest, Blob>();
  for (const image of images) {
    for (const layer of image.layers) {
      if (!isForeignLayer(layer.descriptor.mediaType)) blobs.set(layer.descriptor.digest, layer);
    }
    blobs.set(image.manifest.config.digest, configBlob(image));
  }
  await Promise.all(Array.from(blobs.values(), (blob) => registry.pushBlob(repository, blob)));
  if (built.kind === "index") {
    await Promise.all(images.map((image) => registry.pushManifest(repository, image.descriptor.digest, image)));
  }
}

function configBlob(image: Image): Blob {
  return {
    descriptor: image.manifest.config,
    open: async function* () {
      yield image.configBytes;
    },
  };
}
