/**
 * OCI image layouts, written: images are added to a folder that other tools, and other ko runs, may use as well.
 *
 * Blobs come first and `index.json` last, each under a temporary name until it is complete, so that whoever reads the
 * folder at any time finds a valid layout (spec/wire.md D7).
 *
 * https://github.com/opencontainers/image-spec/blob/main/image-layout.md
 */
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { readChunks } from "./chunks.ts";
import { KoError } from "./errors.ts";
import { isObject } from "./gojson.ts";
import type { Built, Image } from "./image.ts";
import {
  blobPath,
  isMissing,
  LAYOUT_VERSION,
  type LayoutIndex,
  readLayoutIndex,
  REF_NAME,
  sizeOfFile,
} from "./layout.ts";
import { withLock } from "./lock.ts";
import { type Descriptor, type Digest, isForeignLayer, MEDIA_TYPES, verified } from "./oci.ts";

export interface LayoutItem {
  readonly built: Built;
  /** The tag in the layout: goes into the annotation `org.opencontainers.image.ref.name`. */
  readonly name: string;
}

/** What a folder may hold that a first run left unfinished. Everything of ours begins with `.ko-`. */
const OURS = /^(?:blobs|\.ko-.*)$/;
const LOCK = ".ko-lock";

/**
 * Adds images to the OCI layout in the folder `path`, which is made if it is not there.
 *
 * Entries of others stay as they are and where they are. An entry of the same name is replaced, and so is one of the
 * same image without a name. Layers that may not be distributed stay out, with their URLs in the manifest.
 *
 * @param path absolute
 * @throws {KoError} If the folder holds something else, or cannot be written; then `index.json` is as it was.
 */
export async function writeToLayout(
  path: string,
  items: readonly LayoutItem[],
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const { signal } = options;
  try {
    await checkFolder(path);
    await mkdir(join(path, "blobs", "sha256"), { recursive: true });
    const done = new Set<Digest>();
    for (const { built } of items) await writeBuilt(path, built, { signal, done });
    await withLock(join(path, LOCK), () => writeIndex(path, items, signal), { signal });
  } catch (cause) {
    if (cause instanceof KoError || signal.aborted || !(cause instanceof Error && "code" in cause)) throw cause;
    throw new KoError(`Cannot write OCI layout "${path}"`, { cause });
  }
}

async function checkFolder(path: string): Promise<void> {
  let names: readonly string[];
  try {
    if (!(await stat(path)).isDirectory()) throw new KoError(`Cannot write OCI layout "${path}": it is no folder`);
    names = await readdir(path);
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  if (names.includes("oci-layout")) await findLayoutIndex(path);
  else if (!names.every((name) => OURS.test(name))) {
    throw new KoError(`Cannot write OCI layout "${path}": the folder is not empty and has no file oci-layout`, {
      hint: "Name a folder that is new, empty, or an OCI layout",
    });
  }
}

/** The index of a layout, undefined while a first run has not written it. */
async function findLayoutIndex(path: string): Promise<LayoutIndex | undefined> {
  if ((await sizeOfFile(join(path, "oci-layout"))) === undefined) return undefined;
  if ((await sizeOfFile(join(path, "index.json"))) === undefined) return undefined;
  return readLayoutIndex(path);
}

interface WriteBlobsOptions {
  readonly signal: AbortSignal;
  /** Digests that this run has dealt with. */
  readonly done: Set<Digest>;
}

async function writeBuilt(path: string, built: Built, options: WriteBlobsOptions): Promise<void> {
  if (built.kind === "index") for (const child of built.children) await writeImage(path, child, options);
  else await writeImage(path, built, options);
  await writeBlob(path, { descriptor: built.descriptor, open: () => [built.bytes] }, options);
}

async function writeImage(path: string, image: Image, options: WriteBlobsOptions): Promise<void> {
  for (const layer of image.layers) {
    if (isForeignLayer(layer.descriptor.mediaType)) continue;
    await writeBlob(path, layer, options);
  }
  await writeBlob(path, { descriptor: image.manifest.config, open: () => [image.configBytes] }, options);
  await writeBlob(path, { descriptor: image.descriptor, open: () => [image.bytes] }, options);
}

interface Blob {
  readonly descriptor: Descriptor;
  open(signal: AbortSignal): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

async function writeBlob(path: string, blob: Blob, { signal, done }: WriteBlobsOptions): Promise<void> {
  const { descriptor } = blob;
  if (done.has(descriptor.digest)) return;
  done.add(descriptor.digest);
  if (!(await isIntact(path, descriptor, signal))) {
    await writeFile(path, blobPath(path, descriptor.digest), blob.open(signal), signal);
  }
}

/** True if the blob is there and is what its name says. A damaged one is written again. */
async function isIntact(path: string, descriptor: Descriptor, signal: AbortSignal): Promise<boolean> {
  const file = blobPath(path, descriptor.digest);
  if ((await sizeOfFile(file)) !== descriptor.size) return false;
  try {
    for await (const _ of verified(readChunks(file, { signal }), descriptor, `"${file}"`));
    return true;
  } catch (error) {
    if (error instanceof KoError && !signal.aborted) return false;
    throw error;
  }
}

/** Writes a file under a temporary name and renames it when its bytes are on the disk. */
async function writeFile(
  path: string,
  file: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  // At the top of the layout: tools that look through blobs/ take every name there for a digest.
  const temporary = join(path, `.ko-${crypto.randomUUID()}`);
  try {
    const handle = await open(temporary, "wx", 0o644);
    try {
      for await (const chunk of content) {
        signal.throwIfAborted();
        for (let at = 0; at < chunk.byteLength;) at += (await handle.write(chunk, at)).bytesWritten;
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function writeIndex(path: string, items: readonly LayoutItem[], signal: AbortSignal): Promise<void> {
  const index = await findLayoutIndex(path);
  if (index === undefined) await writeJson(path, "oci-layout", { imageLayoutVersion: LAYOUT_VERSION }, signal);
  const manifests = [...(index?.entries ?? [])];
  for (const item of items) put(manifests, item);
  const document = index?.document ?? { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex };
  await writeJson(path, "index.json", { ...document, manifests }, signal);
}

function writeJson(path: string, name: string, value: unknown, signal: AbortSignal): Promise<void> {
  // The original indents by three spaces.
  return writeFile(path, join(path, name), [new TextEncoder().encode(JSON.stringify(value, null, 3))], signal);
}

/** Puts an entry where the first one is that it replaces, or at the end. */
function put(entries: Readonly<Record<string, unknown>>[], item: LayoutItem): void {
  const entry = makeEntry(item.built, { [REF_NAME]: item.name });
  const replaced = (other: Readonly<Record<string, unknown>>): boolean => {
    const name = nameOf(other);
    return name === item.name || (name === undefined && other["digest"] === entry["digest"]);
  };
  const at = entries.findIndex(replaced);
  const kept = entries.filter((other) => !replaced(other));
  kept.splice(at < 0 ? kept.length : at, 0, entry);
  entries.splice(0, entries.length, ...kept);
}

function nameOf(entry: Readonly<Record<string, unknown>>): unknown {
  return isObject(entry["annotations"]) ? entry["annotations"][REF_NAME] : undefined;
}

/** What `index.json` says of an image. */
export function makeEntry(
  built: Built,
  annotations: Readonly<Record<string, string>>,
): Readonly<Record<string, unknown>> {
  const { mediaType, size, digest } = built.descriptor;
  return {
    mediaType,
    size,
    digest,
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    ...(built.kind === "image" ? platformPart(built) : {}),
  };
}

function platformPart({ config }: Image): Readonly<Record<string, unknown>> {
  const { architecture, os, variant } = config;
  if (architecture === "" || os === "") return {};
  const version = config["os.version"];
  return {
    platform: { architecture, os, ...(version ? { "os.version": version } : {}), ...(variant ? { variant } : {}) },
  };
}
