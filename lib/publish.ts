/**
 * Where what was built goes: to files, a registry, a local daemon or cluster, several of them, or nowhere.
 */
import type { Destination } from "./destination.ts";
import type { Host } from "./host.ts";
import type { LocalPlace } from "./localtarget.ts";
import type { Log } from "./log.ts";
import { listAll, type Published, type Publisher } from "./publisher.ts";
import type { Registry } from "./registry.ts";
import { registryPublisher } from "./registrypublish.ts";
import type { Timing } from "./timing.ts";

export interface PublisherOptions {
  readonly destination: Destination;
  readonly openRegistry: () => Promise<Registry>;
  /** The local target, if there is one. */
  readonly openPlace: () => Promise<LocalPlace>;
  readonly host: Host;
  readonly log: Log;
  readonly timing: Timing;
}

/** The publisher for `destination`; of several places the last one's reference counts: files, then the target. */
export async function createPublisher(options: PublisherOptions): Promise<Publisher> {
  const { destination, host, log } = options;
  const { target, layoutPath, tarball, ociArchive } = destination;
  const publishers: Publisher[] = [];
  if (layoutPath !== undefined || tarball !== undefined || ociArchive !== undefined) {
    const { archivePublisher, layoutPublisher } = await import("./filepublish.ts");
    const files = { destination, host, log };
    if (layoutPath !== undefined) publishers.push(layoutPublisher(layoutPath, files));
    if (tarball !== undefined) publishers.push(archivePublisher("tarball", tarball, files));
    if (ociArchive !== undefined) publishers.push(archivePublisher("oci-archive", ociArchive, files));
  }
  if (target === "registry") publishers.push(registryPublisher(options));
  else if (target !== undefined) {
    const { localPublisher } = await import("./localpublish.ts");
    publishers.push(localPublisher(options));
  }
  if (publishers.length === 0) publishers.push(dryPublisher(options));
  return {
    publish: async (built, name, how) => {
      let published: Published | undefined;
      for (const publisher of publishers) published = await publisher.publish(built, name, how);
      if (published === undefined) throw new RangeError("no publisher");
      return published;
    },
    expect: (name) => {
      for (const publisher of publishers) publisher.expect?.(name);
    },
    stage: (growing, name, how) => {
      for (const publisher of publishers) publisher.stage?.(growing, name, how);
    },
    finish: async () => {
      for (const publisher of publishers) await publisher.finish?.();
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
