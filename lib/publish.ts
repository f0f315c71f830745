/**
 * What all places that take images have in common: the interface, what they answer, the `--image-refs` file.
 *
 * Where what was built goes: to files, a registry, a local daemon or cluster, several of them, or nowhere.
 *
 * Publishing to a registry. A tag is moved only after everything that it names is in place.
 */
import { writeOutputFile } from "./file.ts";
import type { Blob, BlobStream, Built, Image } from "./image.ts";
import type { Log } from "./log.ts";
import { type Descriptor, type Digest, isForeignLayer } from "./oci.ts";
import type { Destination } from "./publish-destination.ts";
import { formatRepository, parseRepository, type Repository } from "./reference.ts";
import type { Registry } from "./registry.ts";
import type { Timing } from "./timing.ts";

/** Takes one image to one place. */
export interface Publisher {
  /**
   * @param name the image's name without tag and digest, see `imageName()` of reference.ts
   * @param options.isReused nothing of it was built in this run: then it is probably there already
   * @throws {KoError} If anything of it could not be stored; no tag is moved then.
   */
  publish(built: Built, name: string, options: PublishOptions): Promise<Published>;
  /** An image of this name will follow: what can be asked before it is built is asked now. */
  expect?(name: string): void;
  /**
   * A layer of an image of this name is being made: its bytes can be on their way already. Nothing names them until the
   * image is published.
   *
   * @param options.isChange the place has an earlier one, if it has any
   */
  stage?(stream: BlobStream, name: string, options: { readonly isChange: boolean }): void;
  /** Called once, when all images of the run have been published. */
  finish?(): Promise<void>;
}

export interface PublishOptions {
  readonly isReused: boolean;
}

export interface Published {
  /** What is printed, or put into YAML. */
  readonly reference: string;
  /** What `--image-refs` lists: the image, or the index and each of its images. */
  readonly all: readonly string[];
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

/** `--push=false` with no other place: says what would have been published. */
export function dryPublisher({ destination }: Pick<RegistryPublisherOptions, "destination">): Publisher {
  return {
    publish: async (built, name) => {
      const [first] = destination.tags;
      const tagged = first === undefined ? name : `${name}:${first}`;
      const reference = destination.tagOnly ? tagged : `${tagged}@${built.descriptor.digest}`;
      return { reference, all: listAll(built, reference, name) };
    },
  };
}

export interface RegistryPublisherOptions {
  readonly destination: Destination;
  readonly openRegistry: () => Promise<Registry>;
  readonly log: Log;
  readonly timing: Timing;
}

export function registryPublisher(options: RegistryPublisherOptions): Publisher {
  const { destination, openRegistry, log, timing } = options;
  const [first = "latest", ...others] = destination.tags;
  const expected = new Map<string, Promise<Descriptor | undefined>>();
  const find = async (name: string): Promise<Descriptor | undefined> =>
    (await openRegistry()).findManifest(parseRepository(name), first, { push: true });
  return {
    expect: (name) => {
      const asked = find(name);
      // Whoever publishes hears of it.
      asked.catch(() => {});
      expected.set(name, asked);
    },
    stage: (stream, name, { isChange }) => {
      const push = async (): Promise<void> => {
        const [registry, found] = await Promise.all([openRegistry(), expected.get(name)]);
        const repository = parseRepository(name);
        // Where an image is, and nothing is known of the last one, this layer may well be there: then it waits for its digest.
        if (isChange || found === undefined) await registry.streamBlob(repository, stream);
        else await registry.pushBlob(repository, await stream.done);
      };
      // If it fails, it is tried again with its image, and told of then.
      timing.time("upload", `a layer of ${name}`, push).catch(() => {});
    },
    publish: async (built, name, { isReused }) => {
      const registry = await openRegistry();
      const repository = parseRepository(name);
      // An answer from before the compiler ran may be out of date.
      const found = await timing.time(
        "manifest",
        name,
        () => (isReused ? expected.get(name) : undefined) ?? find(name),
      );
      if (found?.digest !== built.descriptor.digest) {
        await timing.time("upload", name, () => pushContent(registry, repository, built));
        await timing.time("manifest", `${name}:${first}`, () => registry.pushManifest(repository, first, built));
      }
      for (const tag of others) {
        await timing.time("manifest", `${name}:${tag}`, () => registry.pushManifest(repository, tag, built));
      }
      const digest = built.descriptor.digest;
      const tag = destination.tags.length === 1 && first !== "latest" ? first : undefined;
      const reference = destination.tagOnly
        ? `${name}:${first}`
        : `${name}${tag === undefined ? "" : `:${tag}`}@${digest}`;
      log.info(`Published ${reference}`);
      return { reference, all: listAll(built, reference, formatRepository(repository)) };
    },
  };
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
