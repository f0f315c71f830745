/**
 * Publishing what was built: to a registry, an OCI layout, several of them, or nowhere.
 *
 * A tag is moved only after everything that it names is in place. References are printed as the original prints them.
 */
import { realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Destination } from "./destination.ts";
import { KoError } from "./errors.ts";
import type { Built, Image } from "./image.ts";
import { writeToLayout } from "./layoutwriter.ts";
import type { Log } from "./log.ts";
import { type Digest, isForeignLayer } from "./oci.ts";
import { formatRepository, parseRepository, type Repository } from "./reference.ts";
import type { Registry } from "./registry.ts";

/** Takes one image to one place. */
export interface Publisher {
  /**
   * @param name the image's name without tag and digest, see `imageName()` of names.ts
   * @throws {KoError} If anything of it could not be stored; no tag is moved then.
   */
  publish(built: Built, name: string): Promise<Published>;
}

export interface Published {
  /** What is printed, or put into YAML. */
  readonly reference: string;
  /** What `--image-refs` lists: the image, or the index and each of its images. */
  readonly all: readonly string[];
}

export interface PublisherOptions {
  readonly destination: Destination;
  readonly openRegistry: () => Promise<Registry>;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly cwd: string;
}

/** The publisher for `destination`; of several places the last one's reference counts: layout, then registry. */
export function createPublisher(options: PublisherOptions): Publisher {
  const { destination } = options;
  const publishers: Publisher[] = [];
  if (destination.layoutPath !== undefined) publishers.push(layoutPublisher(destination.layoutPath, options));
  if (destination.push) publishers.push(registryPublisher(options));
  if (publishers.length === 0) publishers.push(dryPublisher(options));
  return {
    publish: async (built, name) => {
      let published: Published | undefined;
      for (const publisher of publishers) published = await publisher.publish(built, name);
      if (published === undefined) throw new RangeError("no publisher");
      return published;
    },
  };
}

function registryPublisher({ destination, openRegistry, log }: PublisherOptions): Publisher {
  return {
    publish: async (built, name) => {
      const registry = await openRegistry();
      const repository = parseRepository(name);
      const [first = "latest", ...others] = destination.tags;
      const found = await registry.findManifest(repository, first, { push: true });
      if (found?.digest !== built.descriptor.digest) {
        await pushContent(registry, repository, built);
        await registry.pushManifest(repository, first, built);
      }
      for (const tag of others) await registry.pushManifest(repository, tag, built);
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

function layoutPublisher(path: string, { destination, log, signal, cwd }: PublisherOptions): Publisher {
  return {
    publish: async (built, name) => {
      const tags = destination.tags.length > 0 ? destination.tags : ["latest"];
      const items = tags.map((tag) => ({ built, name: `${name}:${tag}` }));
      await writeToLayout(resolve(cwd, path), items, { signal });
      const folder = path.replace(/(?<=.)\/+$/, "");
      const reference = `${folder}@${built.descriptor.digest}`;
      log.info(`Saved ${name} in ${path}`);
      return { reference, all: listAll(built, reference, folder) };
    },
  };
}

/** `--push=false` with no other place: says what would have been published. */
function dryPublisher({ destination }: PublisherOptions): Publisher {
  return {
    publish: async (built, name) => {
      const [first] = destination.tags;
      const tagged = first === undefined ? name : `${name}:${first}`;
      const reference = destination.tagOnly ? tagged : `${tagged}@${built.descriptor.digest}`;
      return { reference, all: listAll(built, reference, name) };
    },
  };
}

function listAll(built: Built, reference: string, repository: string): readonly string[] {
  if (built.kind === "image") return [reference];
  return [built, ...built.children].map((item) => `${repository}@${item.descriptor.digest}`);
}

/**
 * Writes the `--image-refs` file, in one step. A symbolic link stays one; a device or a pipe is written to.
 *
 * @throws {KoError} If it cannot be written.
 */
export async function writeImageRefs(path: string, published: readonly Published[]): Promise<void> {
  const text = published.flatMap(({ all }) => all.map((reference) => `${reference}\n`)).join("");
  try {
    const target = await realpath(path).catch(() => path);
    const found = await stat(target).catch(() => undefined);
    // To rename a file over /dev/null or /dev/stdout would take the device away.
    if (found !== undefined && !found.isFile()) return await writeFile(target, text);
    const temporary = `${target}.${crypto.randomUUID()}.tmp`;
    try {
      await writeFile(temporary, text, { mode: 0o644 });
      await rename(temporary, target);
    } finally {
      await rm(temporary, { force: true });
    }
  } catch (cause) {
    throw new KoError(`Cannot write --image-refs "${path}"`, { cause });
  }
}
