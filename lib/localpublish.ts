/**
 * Publishing to places on this machine: the Docker or podman daemon, the nodes of kind, k3d and minikube.
 *
 * They keep images under tags, one platform each. The reference is a tag that names the content: the manifest's digest.
 */
import type { Destination, LocalTarget } from "./destination.ts";
import type { DockerEngine } from "./docker.ts";
import { loadImage } from "./dockerload.ts";
import { KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import type { Built, Image } from "./image.ts";
import type { Log } from "./log.ts";
import { loadIntoNodes } from "./nodes.ts";
import { formatPlatform, hexOf, type Platform } from "./oci.ts";
import type { Publisher } from "./publisher.ts";

export interface LocalPublisherOptions {
  readonly target: LocalTarget;
  readonly destination: Destination;
  readonly openEngine: () => Promise<DockerEngine>;
  /** The target's own, for an index. */
  readonly platform: () => Promise<string>;
  readonly host: Host;
  readonly log: Log;
}

export function localPublisher(options: LocalPublisherOptions): Publisher {
  const { target, destination, host, log } = options;
  const { signal } = host;
  return {
    publish: async (built, name) => {
      const image = built.kind === "image" ? built : pickImage(built, await options.platform());
      if (built.kind === "index")
        log.warn(`${name}: of ${built.children.length} platforms only ${showPlatform(image)} is loaded`);
      const content = `${name}:${hexOf(image.descriptor.digest)}`;
      const names = [content, ...destination.tags.map((tag) => `${name}:${tag}`)];
      const reference = destination.tagOnly ? `${name}:${destination.tags[0] ?? "latest"}` : content;
      if (target === "kind" || target === "k3d") {
        await loadIntoNodes(target, [{ image, names }], { host, log, signal });
        log.info(`Loaded ${reference}`);
      } else {
        const done = await loadImage(await options.openEngine(), image, names, { log, signal });
        log.info(done === "present" ? `Already there: ${reference}` : `Loaded ${reference}`);
      }
      return { reference, all: [reference] };
    },
  };
}

/** The image of an index that the target can run. */
function pickImage(built: Extract<Built, { kind: "index" }>, wanted: string): Image {
  const [os, architecture] = wanted.split("/");
  const at = built.index.manifests.findIndex(
    ({ platform }) => platform?.os === os && platform?.architecture === architecture,
  );
  const image = built.children[at];
  if (image !== undefined) return image;
  const has = built.index.manifests.map(({ platform }) => (platform === undefined ? "?" : formatPlatform(platform)));
  throw new KoError(`Cannot load for ${wanted}: the image is for ${has.join(", ")}`, {
    hint: `Add ${wanted} to --platform.`,
  });
}

function showPlatform(image: Image): string {
  const { os, architecture, variant } = image.config;
  const platform: Platform = { os, architecture, ...(variant === undefined ? {} : { variant }) };
  return formatPlatform(platform);
}
