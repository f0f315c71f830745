/**
 * Publishing to a registry. A tag is moved only after everything that it names is in place.
 */
import type { Destination } from "./destination.ts";
import type { Built, Image } from "./image.ts";
import type { Log } from "./log.ts";
import { type Descriptor, type Digest, isForeignLayer } from "./oci.ts";
import { listAll, type Publisher } from "./publisher.ts";
import { formatRepository, parseRepository, type Repository } from "./reference.ts";
import type { Registry } from "./registry.ts";
import type { Timing } from "./timing.ts";

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
    stage: (growing, name, { isChange }) => {
      const push = async (): Promise<void> => {
        const [registry, found] = await Promise.all([openRegistry(), expected.get(name)]);
        const repository = parseRepository(name);
        // Where an image is, and nothing is known of the last one, this layer may well be there: then it waits for its digest.
        if (isChange || found === undefined) await registry.streamBlob(repository, growing);
        else await registry.pushBlob(repository, await growing.done);
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
  const blobs = new Map<Digest, Parameters<Registry["pushBlob"]>[1]>();
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

function configBlob(image: Image): Parameters<Registry["pushBlob"]>[1] {
  return {
    descriptor: image.manifest.config,
    open: async function* () {
      yield image.configBytes;
    },
  };
}
