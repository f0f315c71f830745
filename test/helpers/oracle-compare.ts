/**
 * Says where what ours made differs from what the original made, field by field.
 *
 * Pure: takes what `registry-images.ts` read. Layer digests and sizes may differ, for ours compresses differently; the
 * uncompressed layers, the configuration and every other byte of the manifests may not.
 */
import { isObject, type Pulled, type PulledImage, readList, readObject } from "./registry-images.ts";

export interface CompareOptions {
  /** The digest of the base as the registry has it: what an OCI index must name (the original names one that is nowhere). */
  readonly baseDigest: string;
  /** How many layers the base has: those descriptors are compared as they are. */
  readonly baseLayers: number;
}

const BASE_DIGEST = "org.opencontainers.image.base.digest";
const OCI_INDEX = "application/vnd.oci.image.index.v1+json";

/** One line per difference, such as `config.config.Env[1]: ours "A", original "B"`; none when all is equal. */
export function compareImages(ours: Pulled, original: Pulled, options: CompareOptions): string[] {
  if (ours.kind === "image" && original.kind === "image") return compareImage(ours, original, options);
  if (ours.kind === "image" || original.kind === "image") {
    return [`ours is an ${ours.kind}, the original's an ${original.kind}`];
  }
  const lines = compareValues("media type", ours.mediaType, original.mediaType);
  const oursText = withoutChildDigests(ours.text);
  let originalText = withoutChildDigests(original.text);
  if (original.mediaType === OCI_INDEX) originalText = withBaseDigest(originalText, options.baseDigest);
  lines.push(...compareTexts("index", oursText, originalText));
  for (const [i, child] of ours.children.entries()) {
    const other = original.children[i];
    if (other !== undefined) lines.push(...compareImage(child, other, { ...options, prefix: `manifests[${i}] ` }));
  }
  return lines;
}

/** One line per leaf that differs between two JSON values; `path` is what the lines begin with. */
export function compareValues(path: string, ours: unknown, original: unknown): string[] {
  if (Array.isArray(ours) && Array.isArray(original)) {
    const indexes = Array.from({ length: Math.max(ours.length, original.length) }, (_, i) => i);
    return indexes.flatMap((i) => compareValues(`${path}[${i}]`, ours[i], original[i]));
  }
  if (isObject(ours) && isObject(original)) {
    const keys = [...new Set([...Object.keys(ours), ...Object.keys(original)])];
    return keys.flatMap((key) => compareValues(`${path}.${key}`, ours[key], original[key]));
  }
  if (Object.is(ours, original)) return [];
  return [`${path}: ours ${show(ours)}, original ${show(original)}`];
}

/** Where two tar archives part: an entry's header field, its content, or the end. */
export function compareTars(path: string, ours: Uint8Array, original: Uint8Array): string[] {
  const mine = readTar(ours);
  const theirs = readTar(original);
  for (let i = 0; i < Math.max(mine.length, theirs.length); i++) {
    const name = mine[i]?.["name"] ?? theirs[i]?.["name"];
    const lines = compareValues(`${path} entry ${i} ${show(name)}`, mine[i], theirs[i]);
    if (lines.length > 0) return lines;
  }
  return Buffer.compare(ours, original) === 0 ? [] : [`${path}: the entries are equal, the padding or the end is not`];
}

function compareImage(
  ours: PulledImage,
  original: PulledImage,
  options: CompareOptions & { readonly prefix?: string },
): string[] {
  const { prefix = "", baseLayers } = options;
  const mediaTypes = compareValues(`${prefix}media type`, ours.mediaType, original.mediaType);
  const configs = compareTexts(`${prefix}config`, ours.configText, original.configText);
  // A config that differs has another digest: the manifest shows what else does.
  const manifests = compareTexts(
    `${prefix}manifest`,
    withDiffIds(withoutConfig(ours, configs.length > 0), ours.layers.slice(baseLayers)),
    withDiffIds(withoutConfig(original, configs.length > 0), original.layers.slice(baseLayers)),
  );
  return [...mediaTypes, ...configs, ...manifests];
}

/** Compares documents: by field if a field differs, else byte by byte (key order, escapes, blanks). */
function compareTexts(path: string, ours: string, original: string): string[] {
  if (ours === original) return [];
  const lines = compareValues(path, JSON.parse(ours), JSON.parse(original));
  if (lines.length > 0) return lines;
  let at = 0;
  while (ours[at] === original[at]) at++;
  const near = (text: string): string => show(text.slice(Math.max(0, at - 40), at + 40));
  return [`${path}: equal values, other bytes from ${at} on: ours …${near(ours)}…, original …${near(original)}…`];
}

/** The manifest with these layers named by content (the diffID) instead of by their compressed form. */
function withDiffIds(text: string, layers: PulledImage["layers"]): string {
  let result = text;
  for (const { digest, size, diffId } of layers) {
    result = result.replace(`"size":${size},"digest":"${digest}"`, `"size":0,"digest":"layer ${diffId}"`);
  }
  return result;
}

function withoutConfig(image: PulledImage, differs: boolean): string {
  if (!differs) return image.text;
  const { digest, size } = readObject(readObject(JSON.parse(image.text))["config"]);
  return image.text.replace(`"size":${String(size)},"digest":"${String(digest)}"`, '"size":0,"digest":"config"');
}

function withoutChildDigests(text: string): string {
  let result = text;
  for (const [i, { digest, size }] of readList(readObject(JSON.parse(text))["manifests"]).entries()) {
    result = result.replace(`"size":${String(size)},"digest":"${String(digest)}"`, `"size":0,"digest":"child ${i}"`);
  }
  return result;
}

function withBaseDigest(text: string, digest: string): string {
  const written = readObject(readObject(JSON.parse(text))["annotations"])[BASE_DIGEST];
  return text.replace(`"${BASE_DIGEST}":"${String(written)}"`, `"${BASE_DIGEST}":"${digest}"`);
}

/** The raw header fields of each entry, and what its content is. */
function readTar(tar: Uint8Array): Readonly<Record<string, string>>[] {
  const entries: Readonly<Record<string, string>>[] = [];
  const field = (at: number, length: number): string =>
    Buffer.from(tar.subarray(at, at + length))
      .toString("latin1")
      .replace(/\0+$/, "");
  for (let at = 0; at + 512 <= tar.byteLength && tar[at] !== 0;) {
    const size = Number.parseInt(field(at + 124, 12), 8) || 0;
    const content = tar.subarray(at + 512, at + 512 + size);
    const type = field(at + 156, 1);
    entries.push({
      name: field(at, 100),
      mode: field(at + 100, 8),
      owner: field(at + 108, 16),
      size: field(at + 124, 12),
      mtime: field(at + 136, 12),
      type,
      link: field(at + 157, 100),
      magic: field(at + 257, 8),
      names: field(at + 265, 64),
      device: field(at + 329, 16),
      prefix: field(at + 345, 155),
      content:
        type === "x"
          ? Buffer.from(content).toString("utf8")
          : `${size} bytes, sha256 ${new Bun.CryptoHasher("sha256").update(content).digest("hex")}`,
    });
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return entries;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
