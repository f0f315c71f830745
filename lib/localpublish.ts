/**
 * Publishing to places on this machine: the Docker or podman daemon, the nodes of kind, k3d and minikube.
 *
 * They keep images under tags, one platform each. The reference is a tag that names the content: the manifest's digest.
 */
import type { Destination } from "./destination.ts";
import { KoError } from "./errors.ts";
import type { Built, Image } from "./image.ts";
import type { LocalPlace } from "./localtarget.ts";
import type { Log } from "./log.ts";
import { formatPlatform, hexOf, type Platform } from "./oci.ts";
import type { Publisher } from "./publisher.ts";

export interface LocalPublisherOptions {
  readonly destination: Destination;
  readonly openPlace: () => Promise<LocalPlace>;
  readonly log: Log;
}

export function localPublisher({ destination, openPlace, log }: LocalPublisherOptions): Publisher {
  return {
    publish: async (built, name) => {
      const place = await openPlace();
      const image = built.kind === "image" ? built : pickImage(built, await place.platform());
      if (built.kind === "index") {
        const { os, architecture } = image.config;
        log.warn(`${name}: of ${built.children.length} platforms only ${os}/${architecture} is loaded`);
      }
      const content = `${name}:${hexOf(image.descriptor.digest)}`;
      const names = [content, ...destination.tags.map((tag) => `${name}:${tag}`)];
      const reference = destination.tagOnly ? `${name}:${destination.tags[0] ?? "latest"}` : content;
      const done = await place.load(image, names);
      log.info(done === "present" ? `Already there: ${reference}` : `Loaded ${reference}`);
      return { reference, all: [reference] };
    },
  };
}

/** The image of an index that the target can run. */
function pickImage(built: Extract<Built, { kind: "index" }>, own: Platform): Image {
  const at = built.index.manifests.findIndex(
    ({ platform }) => platform?.os === own.os && platform.architecture === own.architecture,
  );
  const image = built.children[at];
  if (image !== undefined) return image;
  const wanted = `${own.os}/${own.architecture}`;
  const has = built.index.manifests.map(({ platform }) => (platform === undefined ? "?" : formatPlatform(platform)));
  throw new KoError(`Cannot load for ${wanted}: the image is for ${has.join(", ")}`, {
    hint: `Add ${wanted} to --platform.`,
  });
}
