/**
 * Makes small images and indexes and pushes them to a registry with plain requests: nothing of lib/ takes part.
 */

export type Family = "oci" | "docker";

/** An image to be made and pushed. */
export interface ImageSpec {
  readonly family?: Family;
  /** Fields of the configuration beside `rootfs`, in this order. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Fields of the manifest beside the usual ones. */
  readonly manifest?: Readonly<Record<string, unknown>>;
  /** Contents of the one file of each layer. @default one layer */
  readonly layers?: readonly string[];
  /** True leaves the layers uncompressed. */
  readonly plainTar?: boolean;
  readonly withoutMediaType?: boolean;
}

/** An index to be made and pushed. */
export interface IndexSpec {
  readonly family?: Family;
  readonly entries: readonly {
    readonly platform: Readonly<Record<string, unknown>>;
    readonly image: ImageSpec;
    readonly annotations?: Readonly<Record<string, string>>;
  }[];
  readonly annotations?: Readonly<Record<string, string>>;
}

const TYPES = {
  oci: {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    index: "application/vnd.oci.image.index.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
    tar: "application/vnd.oci.image.layer.v1.tar",
  },
  docker: {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    tar: "application/vnd.docker.image.rootfs.diff.tar",
  },
} as const;

/** A descriptor of what was pushed. */
export interface Pushed {
  readonly mediaType: string;
  readonly size: number;
  readonly digest: string;
}

/** Pushes to `bases/NAME`. @throws {Error} If the registry refuses it. */
export async function pushImage(
  host: string,
  { name, spec, tag }: { readonly name: string; readonly spec: ImageSpec; readonly tag?: string },
): Promise<Pushed> {
  const types = TYPES[spec.family ?? "oci"];
  const layers: Pushed[] = [];
  const diffIds: string[] = [];
  for (const text of spec.layers ?? ["base"]) {
    const tar = tarOf(text);
    diffIds.push(digestOf(tar));
    const blob = spec.plainTar === true ? tar : Bun.gzipSync(tar);
    layers.push({ ...(await pushBlob(host, name, blob)), mediaType: spec.plainTar === true ? types.tar : types.layer });
  }
  const config = encode({ ...spec.config, rootfs: { type: "layers", diff_ids: diffIds } });
  const body = encode({
    schemaVersion: 2,
    ...(spec.withoutMediaType === true ? {} : { mediaType: types.manifest }),
    config: { ...(await pushBlob(host, name, config)), mediaType: types.config },
    layers,
    ...spec.manifest,
  });
  return pushManifest(host, { name, body, mediaType: types.manifest, tag });
}

/** Pushes to `bases/NAME:v1`. @throws {Error} If the registry refuses it. */
export async function pushIndex(
  host: string,
  { name, spec }: { readonly name: string; readonly spec: IndexSpec },
): Promise<Pushed> {
  const types = TYPES[spec.family ?? "oci"];
  const manifests = [];
  for (const { platform, image, annotations } of spec.entries) {
    const descriptor = await pushImage(host, { name, spec: image });
    manifests.push({ ...descriptor, ...(annotations === undefined ? {} : { annotations }), platform });
  }
  const { annotations } = spec;
  const body = encode({ schemaVersion: 2, mediaType: types.index, manifests, ...(annotations ? { annotations } : {}) });
  return pushManifest(host, { name, body, mediaType: types.index, tag: "v1" });
}

async function pushBlob(host: string, name: string, blob: Uint8Array<ArrayBuffer>): Promise<Pushed> {
  const digest = digestOf(blob);
  const start = await fetch(`http://${host}/v2/bases/${name}/blobs/uploads/`, { method: "POST" });
  const location = start.headers.get("location");
  if (start.status !== 202 || location === null) throw new Error(`upload to ${name} answered ${start.status}`);
  const url = new URL(location, `http://${host}`);
  url.searchParams.set("digest", digest);
  await send(url.href, blob, "application/octet-stream");
  return { mediaType: "", size: blob.byteLength, digest };
}

async function pushManifest(
  host: string,
  options: {
    readonly name: string;
    readonly body: Uint8Array<ArrayBuffer>;
    readonly mediaType: string;
    readonly tag?: string | undefined;
  },
): Promise<Pushed> {
  const { name, body, mediaType, tag } = options;
  const digest = digestOf(body);
  await send(`http://${host}/v2/bases/${name}/manifests/${tag ?? digest}`, body, mediaType);
  return { mediaType, size: body.byteLength, digest };
}

async function send(url: string, body: Uint8Array<ArrayBuffer>, type: string): Promise<void> {
  const response = await fetch(url, { method: "PUT", body, headers: { "Content-Type": type } });
  if (response.status !== 201) throw new Error(`PUT ${url} answered ${response.status}: ${await response.text()}`);
}

/** A USTAR archive of one file, `base.txt`. */
function tarOf(text: string): Uint8Array<ArrayBuffer> {
  const content = new TextEncoder().encode(text);
  const tar = new Uint8Array(512 + Math.ceil(content.byteLength / 512) * 512 + 1024);
  const write = (at: number, value: string): void => void new TextEncoder().encodeInto(value, tar.subarray(at));
  write(0, "base.txt");
  write(100, "0000644\0" + "0000000\0".repeat(2));
  write(124, `${content.byteLength.toString(8).padStart(11, "0")}\0${"0".repeat(11)}\0        0`);
  write(257, "ustar\u000000");
  const sum = tar.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  write(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  tar.set(content, 512);
  return tar;
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
}

function encode(value: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(value));
}
