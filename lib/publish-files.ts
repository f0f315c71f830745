/**
 * Publishing to files: an OCI layout folder, a `docker load` tarball, an OCI layout in a tar.
 */
import { resolve } from "node:path";
import { packArchive, packOciArchive } from "./archive.ts";
import { KoError } from "./errors.ts";
import { writeArchiveFile } from "./file.ts";
import type { Host } from "./host.ts";
import type { Built } from "./image.ts";
import { writeToLayout } from "./layout.ts";
import type { Log } from "./log.ts";
import type { Destination } from "./publish-destination.ts";
import { listAll, type Publisher, wholeImageSink } from "./publish.ts";

export interface FilePublisherOptions {
  readonly destination: Destination;
  readonly host: Host;
  readonly log: Log;
}

/** Adds each image to the layout in `path`, under its names. */
export function layoutPublisher(path: string, { destination, host, log }: FilePublisherOptions): Publisher {
  return {
    open: (name) =>
      wholeImageSink(async (built) => {
        const items = namesOf(name, destination).map((full) => ({ built, name: full }));
        await writeToLayout(resolve(host.cwd, path), items, { signal: host.signal });
        const folder = path.replace(/(?<=.)\/+$/, "");
        const reference = `${folder}@${built.descriptor.digest}`;
        log.info(`Saved ${name} in ${path}`);
        return { reference, all: listAll(built, reference, folder) };
      }),
    finish: async () => {},
  };
}

/** Collects all images of the run, and writes them at its end. `--tarball` holds single images only. */
export function archivePublisher(
  kind: "tarball" | "oci-archive",
  file: string,
  { destination, host, log }: FilePublisherOptions,
): Publisher {
  const items: { readonly built: Built; readonly names: readonly string[] }[] = [];
  const { signal } = host;
  return {
    open: (name) =>
      wholeImageSink(async (built) => {
        items.push({ built, names: namesOf(name, destination) });
        const [first] = destination.tags;
        const tag = destination.tags.length === 1 && first !== undefined && first !== "latest" ? `:${first}` : "";
        const reference = destination.tagOnly ? `${name}${tag}` : `${name}${tag}@${built.descriptor.digest}`;
        return { reference, all: listAll(built, reference, name) };
      }),
    finish: async () => {
      const sorted = items.toSorted((a, b) => ((a.names[0] ?? "") < (b.names[0] ?? "") ? -1 : 1));
      const chunks =
        kind === "oci-archive"
          ? packOciArchive(sorted, { signal })
          : packArchive(
              sorted.map(({ built, names }) => {
                if (built.kind === "image") return { image: built, names };
                throw new KoError(`Cannot write --tarball: ${names[0]} has several platforms`);
              }),
              { signal },
            );
      await writeArchiveFile(file, chunks, { host, signal });
      log.info(
        `Saved ${items.length === 1 ? "the image" : `${items.length} images`} in ${file === "-" ? "standard output" : file}`,
      );
    },
  };
}

function namesOf(name: string, { tags }: Destination): readonly string[] {
  return (tags.length > 0 ? tags : ["latest"]).map((tag) => `${name}:${tag}`);
}
