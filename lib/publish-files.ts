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
import type { FilePlace, TagRule } from "./publish-destination.ts";
import { listAll, publishedReference, type Publisher, wholeImageSink } from "./publish.ts";

export interface FilePublisherOptions {
  readonly tags: TagRule;
  readonly host: Host;
  readonly log: Log;
}

/** Adds each image to the layout in `path`, under its names. */
export function layoutPublisher(path: string, { tags, host, log }: FilePublisherOptions): Publisher {
  return {
    open: (name) =>
      wholeImageSink(async (built) => {
        const items = tagNames(name, tags).map((tagged) => ({ built, name: tagged }));
        await writeToLayout(resolve(host.cwd, path), items, { signal: host.signal });
        const folder = path.replace(/(?<=.)\/+$/, "");
        const reference = publishedReference(folder, { digest: built.descriptor.digest });
        log.info(`Saved ${name} in ${path}`);
        return { reference, all: listAll(built, reference, folder) };
      }),
    finish: async () => {},
  };
}

/** Collects the images of the run and writes them into one archive at its end. */
export function archivePublisher(archive: Archive, { tags, host, log }: FilePublisherOptions): Publisher {
  const items: ArchiveItem[] = [];
  return {
    open: (name) =>
      wholeImageSink(async (built) => {
        items.push({ built, names: tagNames(name, tags) });
        const { digest } = built.descriptor;
        const reference = publishedReference(name, { digest, tags, show: "unless latest" });
        return { reference, all: listAll(built, reference, name) };
      }),
    finish: async () => {
      const { signal } = host;
      const { file } = archive;
      const sorted = items.toSorted((a, b) => ((a.names[0] ?? "") < (b.names[0] ?? "") ? -1 : 1));
      await writeArchiveFile(file, pack(archive, sorted, signal), { host, signal });
      const count = items.length === 1 ? "the image" : `${items.length} images`;
      log.info(`Saved ${count} in ${file === "-" ? "standard output" : file}`);
    },
  };
}

type Archive = Extract<FilePlace, { readonly kind: "tarball" | "oci-archive" }>;

interface ArchiveItem {
  readonly built: Built;
  /** With tags. */
  readonly names: readonly string[];
}

function pack({ kind }: Archive, items: readonly ArchiveItem[], signal: AbortSignal): AsyncIterable<Uint8Array> {
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
