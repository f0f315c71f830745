/**
 * OCI image layouts: folders with `oci-layout`, `index.json` and `blobs/`, which other programs may use meanwhile.
 *
 * Blobs are written first and `index.json` last, each under a temporary name until it is complete, so that the folder
 * is a valid layout at any time (docs/rules.md D7.1).
 *
 * https://github.com/opencontainers/image-spec/blob/main/image-layout.md
 */
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, findNearest, isMissing, KoError } from "./errors.ts";
import { readChunks, withLock } from "./file.ts";
import type { Built, Image, ImageSource } from "./image.ts";
import { isObject, parseJson, quoteJson } from "./json.ts";
import {
  type Descriptor,
  type Digest,
  hexOf,
  isDigest,
  isForeignLayer,
  MAX_DOCUMENT_BYTES,
  MEDIA_TYPES,
  readDescriptor,
  readDocument,
  verified,
} from "./oci.ts";

export interface LayoutItem {
  readonly built: Built;
  /** The tag in the layout: the annotation `org.opencontainers.image.ref.name`. */
  readonly name: string;
}

/** The version in the file `oci-layout`. */
export const LAYOUT_VERSION = "1.0.0";
/** The annotation of an entry of `index.json` with its tag. */
export const REF_NAME = "org.opencontainers.image.ref.name";
/** The annotation of an entry of `index.json` with its full name, which containerd and Docker read. */
export const CONTAINERD_NAME = "io.containerd.image.name";
/** The names in a folder that an interrupted first run has left: blobs and ko's temporary files. */
const OURS = /^(?:blobs|\.ko-.*)$/;
const LOCK = ".ko-lock";

/**
 * The images of an OCI layout, as bases. The folder is read at each call of the source's methods.
 *
 * A tag is the annotation `org.opencontainers.image.ref.name` or `io.containerd.image.name` of an entry.
 *
 * @param path absolute
 */
export function openLayout(path: string): ImageSource {
  return {
    getManifest: async (reference, options = {}) => {
      const descriptor = await findDescriptor(path, reference, options.expected);
      const what = `manifest ${descriptor.digest} of OCI layout "${path}"`;
      const bytes = await readDocument(readBlob(path, descriptor, options.signal), descriptor, what);
      return { descriptor, bytes };
    },
    openBlob: (descriptor, signal) => {
      const what = `blob ${descriptor.digest} of OCI layout "${path}"`;
      return verified(readBlob(path, descriptor, signal), descriptor, what);
    },
  };
}

/**
 * Adds images to an OCI layout, which is created if it does not exist.
 *
 * An entry with the same name is replaced, and so is an entry of the same image without a name; the other entries and
 * their order stay. Foreign layers are not written: the manifest has their URLs.
 *
 * @param path absolute
 * @throws {KoError} If the folder is not empty and not a layout, or cannot be written. `index.json` is unchanged then.
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
    if (cause instanceof KoError || signal.aborted || codeOf(cause) === undefined) throw cause;
    throw new KoError(`Cannot write OCI layout "${path}"`, { cause, transient: true });
  }
}

/** The path of a blob in a layout. */
export function blobPath(path: string, digest: Digest): string {
  // Checked although the type says so: a malformed digest would be a path out of the folder.
  if (!isDigest(digest)) throw new TypeError(`not a digest: ${String(digest)}`);
  return join(path, "blobs", "sha256", hexOf(digest));
}

/** The entry of `index.json` for an image or index. */
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

async function findDescriptor(path: string, reference: string, expected: Descriptor | undefined): Promise<Descriptor> {
  if (expected !== undefined) return plain(expected);
  const { entries } = await readLayoutIndex(path);
  const all = entries.map((entry, i) => readDescriptor(entry, `entry ${i} of index.json of OCI layout "${path}"`));
  if (isDigest(reference)) {
    const entry = all.find(({ digest }) => digest === reference);
    return entry === undefined ? describeBlob(path, reference) : plain(entry);
  }
  const fail = (why: string): KoError => {
    // The part of a full name after its last colon: that can be typed after "oci:DIR:".
    const tags = all.flatMap(namesOf).map((name) => name.slice(name.lastIndexOf(":") + 1));
    const tag = findNearest(reference, tags) ?? tags.find((one) => tags.indexOf(one) === tags.lastIndexOf(one));
    const list = `Name one of ${all.map(showEntry).join(", ")}`;
    return new KoError(
      `Cannot find ${reference === "" ? "an image" : `"${reference}"`} in OCI layout "${path}": ${why}`,
      {
        transient: true,
        hint: all.length === 0 ? undefined : tag === undefined ? `${list}.` : `${list}, as in oci:${path}:${tag}`,
      },
    );
  };
  if (reference === "") return plain(onlyOne(all, fail, `it has ${all.length} images, a name is wanted`));
  const exact = all.filter((entry) => namesOf(entry).includes(reference));
  if (exact.length > 0) return plain(onlyOne(exact, fail, `${exact.length} different images have that name`));
  const tagged = all.filter((entry) => namesOf(entry).some((name) => name.endsWith(`:${reference}`)));
  return plain(onlyOne(tagged, fail, `${tagged.length} different images have that tag`));
}

/** The only image of a list, which may have it more than once. */
function onlyOne(found: readonly Descriptor[], fail: (why: string) => KoError, tooMany: string): Descriptor {
  const [first] = found;
  if (first === undefined) throw fail("there is none");
  if (found.some(({ digest }) => digest !== first.digest)) throw fail(tooMany);
  return first;
}

function namesOf({ annotations = {} }: Descriptor): readonly string[] {
  return [annotations[REF_NAME] ?? "", annotations[CONTAINERD_NAME] ?? ""].filter((name) => name !== "");
}

function showEntry(entry: Descriptor): string {
  const names = namesOf(entry);
  return names.length === 0 ? entry.digest : names.map((name) => `"${name}"`).join(" or ");
}

/** The descriptor as a registry returns it: without the name and the platform of the entry. */
function plain({ mediaType, size, digest }: Descriptor): Descriptor {
  return { mediaType, size, digest };
}

/** The descriptor of a manifest that no entry lists: one platform's image of an index, say. */
async function describeBlob(path: string, digest: Digest): Promise<Descriptor> {
  const file = blobPath(path, digest);
  const size = await sizeOfFile(file);
  if (size === undefined) {
    throw new KoError(`Cannot find ${digest} in OCI layout "${path}": neither index.json nor blobs/sha256 has it`, {
      transient: true,
    });
  }
  const what = `manifest ${digest} of OCI layout "${path}"`;
  const descriptor: Descriptor = { mediaType: "", size, digest };
  const bytes = await readDocument(readBlob(path, descriptor), descriptor, what);
  const value = parseJson(new TextDecoder().decode(bytes));
  if (value === undefined) throw new KoError(`Cannot read ${what}: it is not JSON`);
  const given = isObject(value) ? value["mediaType"] : undefined;
  const guessed = isObject(value) && "manifests" in value ? MEDIA_TYPES.ociIndex : MEDIA_TYPES.ociManifest;
  return { ...descriptor, mediaType: typeof given === "string" ? given : guessed };
}

async function* readBlob(
  path: string,
  descriptor: Descriptor,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  const file = blobPath(path, descriptor.digest);
  const size = await sizeOfFile(file);
  if (size === undefined) {
    throw new KoError(`Cannot read OCI layout "${path}": the blob ${descriptor.digest} is missing`, {
      transient: true,
    });
  }
  if (size !== descriptor.size) {
    throw new KoError(
      `Cannot trust blob ${descriptor.digest} of OCI layout "${path}": it has ${size} bytes, wanted ${descriptor.size}`,
    );
  }
  yield* readChunks(file, { signal });
}

/** A whole `index.json`, with the fields that ko does not know. */
interface LayoutIndex {
  readonly document: Readonly<Record<string, unknown>>;
  /** The items of `document.manifests`. */
  readonly entries: readonly Readonly<Record<string, unknown>>[];
}

/**
 * Reads `oci-layout` and `index.json`.
 *
 * @throws {KoError} If `path` is not an OCI layout of version 1.
 */
async function readLayoutIndex(path: string): Promise<LayoutIndex> {
  const fail = (why: string, cause?: unknown): KoError =>
    new KoError(`Cannot read OCI layout "${path}": ${why}`, { cause, transient: true });
  const marker = await readJson(join(path, "oci-layout"), fail);
  if (marker === undefined) throw fail("there is no file oci-layout in it, so it is not an OCI layout");
  const version = marker["imageLayoutVersion"];
  if (typeof version !== "string" || !version.startsWith("1.")) {
    throw fail(`its imageLayoutVersion is ${quoteJson(version)}, wanted "${LAYOUT_VERSION}"`);
  }
  const document = await readJson(join(path, "index.json"), fail);
  if (document === undefined) throw fail("there is no file index.json in it");
  const manifests = document["manifests"] ?? [];
  if (!Array.isArray(manifests)) throw fail("the manifests of its index.json are not a list");
  const entries = manifests.map((entry: unknown) => {
    if (isObject(entry)) return entry;
    throw fail(`its index.json lists ${quoteJson(entry)}, which is not an object`);
  });
  return { document, entries };
}

/** Reads a JSON object; undefined if there is no such file. */
async function readJson(
  file: string,
  fail: (why: string, cause?: unknown) => KoError,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  let text: string;
  try {
    // Before the read: a wrong path must cost no memory, and the read of a fifo would block.
    const size = await sizeOfFile(file);
    if (size === undefined) return undefined;
    if (size > MAX_DOCUMENT_BYTES) throw fail(`"${file}" has ${size} bytes, the limit is ${MAX_DOCUMENT_BYTES}`);
    text = await Bun.file(file).text();
  } catch (cause) {
    if (cause instanceof KoError) throw cause;
    throw fail(`"${file}" cannot be read`, cause);
  }
  const value = parseJson(text);
  if (isObject(value)) return value;
  throw fail(`"${file}" is not ${value === undefined ? "JSON" : "a JSON object"}`);
}

/**
 * The size of a regular file in bytes; undefined if it does not exist.
 *
 * @throws {KoError} If it is a folder, a fifo or the like.
 */
async function sizeOfFile(file: string): Promise<number | undefined> {
  try {
    const stats = await Bun.file(file).stat();
    if (stats.isFile()) return stats.size;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  throw new KoError(`Cannot read "${file}": it is not a regular file`);
}

async function checkFolder(path: string): Promise<void> {
  let names: readonly string[];
  try {
    if (!(await stat(path)).isDirectory()) throw new KoError(`Cannot write OCI layout "${path}": it is not a folder`);
    names = await readdir(path);
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  if (names.includes("oci-layout")) await findLayoutIndex(path);
  else if (!names.every((name) => OURS.test(name))) {
    throw new KoError(`Cannot write OCI layout "${path}": the folder is not empty and has no file oci-layout`, {
      hint: "Name a folder that is new, empty, or an OCI layout.",
    });
  }
}

/** The index of a layout; undefined if no run has written it yet. */
async function findLayoutIndex(path: string): Promise<LayoutIndex | undefined> {
  if ((await sizeOfFile(join(path, "oci-layout"))) === undefined) return undefined;
  if ((await sizeOfFile(join(path, "index.json"))) === undefined) return undefined;
  return readLayoutIndex(path);
}

interface WriteBlobsOptions {
  readonly signal: AbortSignal;
  /** The digests that this call has written or found intact. */
  readonly done: Set<Digest>;
}

async function writeBuilt(path: string, built: Built, options: WriteBlobsOptions): Promise<void> {
  if (built.kind === "index") for (const child of built.children) await writeImage(path, child, options);
  else await writeImage(path, built, options);
  await writeBlob(path, { descriptor: built.descriptor, open: () => [built.bytes] }, options);
}

async function writeImage(path: string, image: Image, options: WriteBlobsOptions): Promise<void> {
  // A manifest that the layout has already tells nothing new.
  const isKnown = await isIntact(path, image.descriptor, options.signal);
  for (const layer of image.layers) {
    if (isForeignLayer(layer.descriptor.mediaType)) continue;
    await writeBlob(path, layer, options);
    if (!isKnown) await layer.prove?.(options.signal);
  }
  await writeBlob(path, { descriptor: image.manifest.config, open: () => [image.configBytes] }, options);
  await writeBlob(path, { descriptor: image.descriptor, open: () => [image.bytes] }, options);
}

interface Content {
  readonly descriptor: Descriptor;
  open(signal: AbortSignal): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

async function writeBlob(path: string, blob: Content, { signal, done }: WriteBlobsOptions): Promise<void> {
  const { descriptor } = blob;
  if (done.has(descriptor.digest)) return;
  done.add(descriptor.digest);
  if (!(await isIntact(path, descriptor, signal))) {
    await writeFile(path, blobPath(path, descriptor.digest), blob.open(signal), signal);
  }
}

/** Whether the blob exists and matches its digest. A damaged blob is written again. */
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

/** Writes a file under a temporary name and renames it when its bytes are on disk. */
async function writeFile(
  path: string,
  file: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  // Not in blobs/: other tools take every name there for a digest.
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
  // The original ko indents by three spaces.
  return writeFile(path, join(path, name), [new TextEncoder().encode(JSON.stringify(value, null, 3))], signal);
}

/** Puts an entry in the place of the first one that it replaces, or at the end. */
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

function platformPart({ config }: Image): Readonly<Record<string, unknown>> {
  const { architecture, os, variant } = config;
  if (architecture === "" || os === "") return {};
  const version = config["os.version"];
  return {
    platform: { architecture, os, ...(version ? { "os.version": version } : {}), ...(variant ? { variant } : {}) },
  };
}
