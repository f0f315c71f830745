/**
 * OCI image layouts, read: a folder with `oci-layout`, `index.json` and `blobs/`.
 *
 * https://github.com/opencontainers/image-spec/blob/main/image-layout.md
 *
 * Writing is in layoutwriter.ts.
 */
import { join } from "node:path";
import { readChunks } from "./chunks.ts";
import { findNearest, KoError } from "./errors.ts";
import { isObject, quoteJson } from "./gojson.ts";
import type { ImageSource } from "./image.ts";
import {
  type Descriptor,
  type Digest,
  hexOf,
  isDigest,
  MAX_DOCUMENT_BYTES,
  MEDIA_TYPES,
  readDescriptor,
  readDocument,
  verified,
} from "./oci.ts";

/** The content of the file `oci-layout`. */
export const LAYOUT_VERSION = "1.0.0";
/** The annotation of an entry of `index.json` that holds its tag. */
export const REF_NAME = "org.opencontainers.image.ref.name";
/** The annotation of an entry of `index.json` that holds its full name: containerd and Docker read it. */
export const CONTAINERD_NAME = "io.containerd.image.name";

/** `index.json` with all that is in it, the unknown too. */
export interface LayoutIndex {
  readonly document: Readonly<Record<string, unknown>>;
  /** As they are in `document.manifests`. */
  readonly entries: readonly Readonly<Record<string, unknown>>[];
}

/**
 * A base in an OCI layout. The layout is read when something is asked of it.
 *
 * A tag is what an entry's annotation `org.opencontainers.image.ref.name` or `io.containerd.image.name` says.
 *
 * @param path of the folder, absolute
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

/** Where a layout keeps the content of this digest. */
export function blobPath(path: string, digest: Digest): string {
  // The type says so already; a digest that became a path by mistake would be a way out of the folder.
  if (!isDigest(digest)) throw new TypeError(`no digest: ${String(digest)}`);
  return join(path, "blobs", "sha256", hexOf(digest));
}

/**
 * Reads `oci-layout` and `index.json`.
 *
 * @throws {KoError} If `path` is no OCI layout of version 1.
 */
export async function readLayoutIndex(path: string): Promise<LayoutIndex> {
  const fail = (why: string, cause?: unknown): KoError =>
    new KoError(`Cannot read OCI layout "${path}": ${why}`, { cause });
  const marker = await readJson(join(path, "oci-layout"), fail);
  if (marker === undefined) throw fail("there is no file oci-layout in it, so it is no OCI layout");
  const version = marker["imageLayoutVersion"];
  if (typeof version !== "string" || !version.startsWith("1.")) {
    throw fail(`its imageLayoutVersion is ${quoteJson(version)}, wanted "${LAYOUT_VERSION}"`);
  }
  const document = await readJson(join(path, "index.json"), fail);
  if (document === undefined) throw fail("there is no file index.json in it");
  const manifests = document["manifests"] ?? [];
  if (!Array.isArray(manifests)) throw fail("the manifests of its index.json are no list");
  const entries = manifests.map((entry: unknown) => {
    if (isObject(entry)) return entry;
    throw fail(`its index.json lists ${quoteJson(entry)}, which is no object`);
  });
  return { document, entries };
}

/** A JSON object in a file of the layout, undefined if there is no such file. */
async function readJson(
  file: string,
  fail: (why: string, cause?: unknown) => KoError,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  let text: string;
  try {
    // A limit before the read, so that a wrong path costs no memory; a fifo has size 0 and must not be waited for.
    const size = await sizeOfFile(file);
    if (size === undefined) return undefined;
    if (size > MAX_DOCUMENT_BYTES) throw fail(`"${file}" has ${size} bytes, the limit is ${MAX_DOCUMENT_BYTES}`);
    text = await Bun.file(file).text();
  } catch (cause) {
    if (cause instanceof KoError) throw cause;
    throw fail(`"${file}" cannot be read`, cause);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch (cause) {
    throw fail(`"${file}" is no JSON`, cause);
  }
  throw fail(`"${file}" is no JSON object`);
}

/**
 * Bytes of a regular file, undefined if there is none.
 *
 * @throws {KoError} If it is a folder, a fifo or the like.
 */
export async function sizeOfFile(file: string): Promise<number | undefined> {
  try {
    const stats = await Bun.file(file).stat();
    if (stats.isFile()) return stats.size;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  throw new KoError(`Cannot read "${file}": it is no regular file`);
}

/** True for the error of a file system call on what is not there. */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR");
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
    // What can be typed after oci:DIR: is a tag: it stands for the full name that ends in it.
    const tags = all.flatMap(namesOf).map((name) => name.slice(name.lastIndexOf(":") + 1));
    const tag = findNearest(reference, tags) ?? tags.find((one) => tags.indexOf(one) === tags.lastIndexOf(one));
    const list = `It has ${all.map(showEntry).join(", ")}`;
    return new KoError(
      `Cannot find ${reference === "" ? "an image" : `"${reference}"`} in OCI layout "${path}": ${why}`,
      { hint: all.length === 0 ? undefined : tag === undefined ? list : `${list}. Name one: oci:${path}:${tag}` },
    );
  };
  if (reference === "") return plain(onlyOne(all, fail, `it has ${all.length} images, a name is wanted`));
  const exact = all.filter((entry) => namesOf(entry).includes(reference));
  if (exact.length > 0) return plain(onlyOne(exact, fail, `${exact.length} different images have that name`));
  const tagged = all.filter((entry) => namesOf(entry).some((name) => name.endsWith(`:${reference}`)));
  return plain(onlyOne(tagged, fail, `${tagged.length} different images have that tag`));
}

/** The same image may be listed more than once. */
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

/** What a registry would say of it: an entry's name and platform belong to the entry. */
function plain({ mediaType, size, digest }: Descriptor): Descriptor {
  return { mediaType, size, digest };
}

/** The descriptor of a manifest that no entry lists (a platform's image of an index, say). */
async function describeBlob(path: string, digest: Digest): Promise<Descriptor> {
  const file = blobPath(path, digest);
  const size = await sizeOfFile(file);
  if (size === undefined) {
    throw new KoError(`Cannot find ${digest} in OCI layout "${path}": neither index.json nor blobs/sha256 has it`);
  }
  const what = `manifest ${digest} of OCI layout "${path}"`;
  const descriptor: Descriptor = { mediaType: "", size, digest };
  const bytes = await readDocument(readBlob(path, descriptor), descriptor, what);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    throw new KoError(`Cannot read ${what}: it is no JSON`, { cause });
  }
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
    throw new KoError(`Cannot read OCI layout "${path}": the blob ${descriptor.digest} is missing`);
  }
  if (size !== descriptor.size) {
    throw new KoError(
      `Cannot trust blob ${descriptor.digest} of OCI layout "${path}": it has ${size} bytes, wanted ${descriptor.size}`,
    );
  }
  yield* readChunks(file, { signal });
}
