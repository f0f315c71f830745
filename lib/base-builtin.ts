/**
 * The bases that ko makes itself, without a network: `ko.builtin/static` and `scratch`.
 *
 * `ko.builtin/static` has users, folders, CA certificates (Mozilla's, compiled into Bun) and time zones (`zoneinfo.zip`
 * of Go 1.26.8: IANA tz 2025c, public domain). Its bytes depend only on the version of ko: no installed Go is read.
 */
import { KoError } from "./errors.ts";
import type { Blob, ImageSource, Layer } from "./image.ts";
import { type ContainerConfig, encodeConfig, type History } from "./oci-config.ts";
import {
  describe,
  type Descriptor,
  type Digest,
  encodeIndex,
  encodeManifest,
  isDigest,
  MEDIA_TYPES,
  type Platform,
  verified,
} from "./oci.ts";
import type { TarEntry } from "./tar.ts";
import zoneinfoPath from "./zoneinfo.zip" with { type: "file" };

export interface ZipMember {
  /** The path, with `/` between its parts. */
  readonly name: string;
  readonly content: Uint8Array;
}

/**
 * The layer of {@link staticEntries}, compressed by `FAST_GZIP`: what a cache says must be equal to it. It changes with
 * Bun's certificates, the time zones and the texts below.
 */
export const STATIC_LAYER = {
  digest: "sha256:92e1852601a3e158660bfc804ab6ab89ae154decb4e66b651aaba92d4bb8a76f",
  size: 222_160,
  diffId: "sha256:382d7423e94e89fac869e1a683094bff5d2a28efa39780b97f537fe1aa7ce3a9",
} as const;

/** Every Linux platform of Go 1.26 (`go tool dist list`), the most used first. */
export const BUILTIN_PLATFORMS: readonly Platform[] = [
  { os: "linux", architecture: "amd64" },
  { os: "linux", architecture: "arm64", variant: "v8" },
  { os: "linux", architecture: "386" },
  { os: "linux", architecture: "arm", variant: "v5" },
  { os: "linux", architecture: "arm", variant: "v6" },
  { os: "linux", architecture: "arm", variant: "v7" },
  { os: "linux", architecture: "loong64" },
  { os: "linux", architecture: "mips" },
  { os: "linux", architecture: "mips64" },
  { os: "linux", architecture: "mips64le" },
  { os: "linux", architecture: "mipsle" },
  { os: "linux", architecture: "ppc64" },
  { os: "linux", architecture: "ppc64le" },
  { os: "linux", architecture: "riscv64" },
  { os: "linux", architecture: "s390x" },
];

const BUILTIN_NAME = "ko.builtin/static";
const CREATED = "1970-01-01T00:00:00Z";
const CERTIFICATES = "etc/ssl/certs/ca-certificates.crt";
const ZONEINFO = "usr/share/zoneinfo";
const NONROOT = 65532;

/** User, home and PATH as in gcr.io/distroless/static:nonroot, which it can replace. */
const STATIC_CONFIG: ContainerConfig = {
  Env: [`PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`, `SSL_CERT_FILE=/${CERTIFICATES}`],
  User: String(NONROOT),
  WorkingDir: "/home/nonroot",
};

const TEXTS: Readonly<Record<string, string>> = {
  "etc/group": "root:x:0:\nnobody:x:65534:\ntty:x:5:\nstaff:x:50:\nnonroot:x:65532:\n",
  "etc/nsswitch.conf": "hosts: files dns\n",
  "etc/os-release": `NAME="ko static base"\nID=ko-static\nPRETTY_NAME="${BUILTIN_NAME}, made by ko"\n`,
  "etc/passwd":
    "root:x:0:0:root:/root:/sbin/nologin\n" +
    "nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n" +
    "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
};

/** The signatures of a ZIP file's records. */
const END_RECORD = 0x06054b50;
const CENTRAL_RECORD = 0x02014b50;
const LOCAL_RECORD = 0x04034b50;

/**
 * Makes `ko.builtin/static`: an OCI index of all {@link BUILTIN_PLATFORMS}, which share one layer.
 *
 * @param layer with the {@link staticEntries}
 */
export function openBuiltin(layer: Layer): ImageSource {
  return makeSource(BUILTIN_NAME, { layers: [layer], config: STATIC_CONFIG });
}

/** Makes `scratch`: an OCI index of all {@link BUILTIN_PLATFORMS} without layers and settings. */
export function openScratch(): ImageSource {
  return makeSource("scratch", { layers: [], config: {} });
}

/** The files and folders of `ko.builtin/static`, sorted by name, dated 1970. */
export async function* staticEntries(): AsyncGenerator<TarEntry, void, void> {
  // Loading node:tls takes milliseconds: not for other bases.
  const { rootCertificates } = await import("node:tls");
  const encoder = new TextEncoder();
  const folders = new Map<string, Pick<TarEntry, "mode" | "uid" | "gid">>([
    ["home/nonroot", { mode: 0o700, uid: NONROOT, gid: NONROOT }],
    ["root", { mode: 0o700 }],
    ["tmp", { mode: 0o1777 }],
  ]);
  const files = new Map<string, Uint8Array>(Object.entries(TEXTS).map(([name, text]) => [name, encoder.encode(text)]));
  files.set(CERTIFICATES, encoder.encode(rootCertificates.map((certificate) => `${certificate.trim()}\n`).join("")));
  for (const { name, content } of readStoredZip(await Bun.file(zoneinfoPath).bytes())) {
    files.set(`${ZONEINFO}/${name}`, content);
  }
  for (const name of [...folders.keys(), ...files.keys()]) {
    for (let at = name.indexOf("/"); at > 0; at = name.indexOf("/", at + 1)) {
      const folder = name.slice(0, at);
      if (!folders.has(folder)) folders.set(folder, { mode: 0o755 });
    }
  }
  const entries = [
    ...Array.from(folders, ([name, how]): TarEntry => ({ name, type: "directory", mtime: 0, size: 0, ...how })),
    ...Array.from(files, ([name, content]): TarEntry => {
      return { name, type: "file", mode: 0o644, mtime: 0, size: content.byteLength, content };
    }),
  ];
  // Not localeCompare(): the order must not depend on the locale.
  yield* entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * Reads a ZIP file of uncompressed members, such as Go's `zoneinfo.zip`: no encryption, no ZIP64, names in UTF-8.
 *
 * https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (4.3)
 *
 * @returns the members in the order of the central directory; their contents are views of `bytes`
 * @throws {RangeError} If the file is damaged or a member is compressed.
 */
export function readStoredZip(bytes: Uint8Array): readonly ZipMember[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const expect = (at: number, signature: number): void => {
    const inside = at >= 0 && at <= bytes.byteLength - 4;
    if (inside && view.getUint32(at, true) === signature) return;
    throw new RangeError(`no ZIP record ${signature.toString(16)} at ${at}`);
  };
  let end = bytes.byteLength - 22;
  // A comment may follow the last record.
  while (end > 0 && view.getUint32(end, true) !== END_RECORD) end--;
  expect(end, END_RECORD);
  const members: ZipMember[] = [];
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    expect(at, CENTRAL_RECORD);
    const nameLength = view.getUint16(at + 28, true);
    const name = decoder.decode(bytes.subarray(at + 46, at + 46 + nameLength));
    if (view.getUint16(at + 10, true) !== 0) throw new RangeError(`ZIP member "${name}" is compressed`);
    const size = view.getUint32(at + 24, true);
    const local = view.getUint32(at + 42, true);
    expect(local, LOCAL_RECORD);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const content = bytes.subarray(start, start + size);
    if (content.byteLength !== size || Bun.hash.crc32(content) !== view.getUint32(at + 16, true)) {
      throw new RangeError(`ZIP member "${name}" is damaged`);
    }
    members.push({ name, content });
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return members;
}

function makeSource(
  shown: string,
  { layers, config }: { readonly layers: readonly Layer[]; readonly config: ContainerConfig },
): ImageSource {
  const contents = new Map<Digest, Blob>(layers.map((layer) => [layer.descriptor.digest, layer]));
  const documents = new Map<Digest, { readonly descriptor: Descriptor; readonly bytes: Uint8Array }>();
  const keep = (mediaType: string, bytes: Uint8Array): Descriptor => {
    const descriptor = describe(mediaType, bytes);
    documents.set(descriptor.digest, { descriptor, bytes });
    contents.set(descriptor.digest, { descriptor, open: () => streamOf(bytes) });
    return descriptor;
  };
  const history: readonly History[] = layers.map(() => ({ created: CREATED, created_by: shown, author: "ko" }));
  const manifests = BUILTIN_PLATFORMS.map((platform) => {
    const { os, architecture, variant } = platform;
    const configBytes = encodeConfig({
      architecture,
      created: CREATED,
      history,
      os,
      rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
      config,
      ...(variant === undefined ? {} : { variant }),
    });
    const manifest = encodeManifest({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: keep(MEDIA_TYPES.ociConfig, configBytes),
      layers: layers.map(({ descriptor }) => descriptor),
    });
    return { ...keep(MEDIA_TYPES.ociManifest, manifest), platform };
  });
  const index = keep(
    MEDIA_TYPES.ociIndex,
    encodeIndex({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }),
  );
  return {
    getManifest: async (reference) => {
      const digest = reference === "" || reference === "latest" ? index.digest : reference;
      const found = isDigest(digest) ? documents.get(digest) : undefined;
      if (found !== undefined) return found;
      throw new KoError(`Cannot find "${reference}" in ${shown}: its only tag is "latest"`);
    },
    openBlob: (descriptor, signal) => {
      const content = contents.get(descriptor.digest);
      if (content === undefined) throw new KoError(`Cannot find blob ${descriptor.digest} in ${shown}`);
      return verified(content.open(signal), descriptor, `blob ${descriptor.digest} of ${shown}`);
    },
  };
}

async function* streamOf(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  yield bytes;
}
