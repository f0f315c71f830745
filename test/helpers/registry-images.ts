/**
 * Pushes images and indexes to a registry and reads them back with plain requests, as a stranger would: nothing of lib/
 * takes part. Reading checks each digest, and layers go through the programs gzip and zstd.
 */

/** A manifest, its configuration, and what its layers hold. */
export interface PulledImage {
  readonly kind: "image";
  readonly mediaType: string;
  readonly digest: string;
  /** The manifest as the registry has it. */
  readonly text: string;
  readonly configText: string;
  readonly layers: readonly { readonly digest: string; readonly size: number; readonly diffId: string }[];
}

export interface PulledIndex {
  readonly kind: "index";
  readonly mediaType: string;
  readonly digest: string;
  readonly text: string;
  readonly children: readonly PulledImage[];
}

export type Pulled = PulledImage | PulledIndex;

export interface RepositoryName {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly path: string;
}

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

/** A descriptor of what was pushed. */
export interface Pushed {
  readonly mediaType: string;
  readonly size: number;
  readonly digest: string;
}

const ACCEPT = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
].join(", ");

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

/** Splits `127.0.0.1:5000/a/b[:tag][@sha256:…]`; what is wanted is the digest, or else the tag. */
export function splitReference(reference: string): RepositoryName & { readonly name: string; readonly wanted: string } {
  const match = /^([^/]+)\/([^:@]+)(:[^@]+)?(?:@(.+))?$/.exec(reference);
  const [, host, path, tag, digest] = match ?? [];
  if (host === undefined || path === undefined) throw new Error(`"${reference}" is no reference`);
  return { host, path, name: `${path}${tag ?? ""}`, wanted: digest ?? tag?.slice(1) ?? "latest" };
}

/** The image or index that `reference` names. @throws {Error} If a part is missing or has another digest. */
export async function pull(reference: string): Promise<Pulled> {
  const { wanted, ...repository } = splitReference(reference);
  const top = await getManifest(repository, wanted);
  if (!("manifests" in top.json)) return { kind: "image", ...(await completeImage(repository, top)) };
  const children: PulledImage[] = [];
  for (const child of readList(top.json["manifests"])) {
    children.push({
      kind: "image",
      ...(await completeImage(repository, await getManifest(repository, str(child["digest"])))),
    });
  }
  const { mediaType, digest, text } = top;
  return { kind: "index", mediaType, digest, text, children };
}

/** The tags of a repository and the digests that they name. */
export async function pullTags(repository: RepositoryName): Promise<Readonly<Record<string, string>>> {
  const { host, path } = repository;
  const { tags } = readObject(await (await get(`http://${host}/v2/${path}/tags/list`)).json());
  const result: Record<string, string> = {};
  for (const tag of (Array.isArray(tags) ? tags.map(str) : []).sort()) {
    result[tag] = (await getManifest(repository, tag)).digest;
  }
  return result;
}

/** A layer, uncompressed by the programs gzip and zstd, which read all members and frames. */
export async function pullLayer(repository: RepositoryName, digest: string): Promise<Uint8Array> {
  const blob = await getBlob(repository, digest);
  const magic = Buffer.from(blob.subarray(0, 4)).toString("hex");
  const name = magic.startsWith("1f8b") ? "gzip" : magic === "28b52ffd" ? "zstd" : undefined;
  if (name === undefined) return blob;
  const program = Bun.spawn([name, "-dc"], { stdin: blob, stdout: "pipe", stderr: "inherit" });
  const bytes = await new Response(program.stdout).bytes();
  const code = await program.exited;
  if (code !== 0) throw new Error(`${name} cannot read layer ${digest}: exit code ${code}`);
  return bytes;
}

/** `sha256:` and the hash in hex. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
}

/** A value of a parsed document that must be an object. */
export function readObject(value: unknown): Readonly<Record<string, unknown>> {
  if (!isObject(value)) throw new Error(`${JSON.stringify(value)} is no object`);
  return value;
}

/** A value of a parsed document that must be a list of objects, or is missing. */
export function readList(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? value.map(readObject) : [];
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
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

interface PulledManifest {
  readonly mediaType: string;
  readonly digest: string;
  readonly text: string;
  readonly json: Readonly<Record<string, unknown>>;
}

async function getManifest(repository: RepositoryName, wanted: string): Promise<PulledManifest> {
  const response = await get(`http://${repository.host}/v2/${repository.path}/manifests/${wanted}`);
  const bytes = await response.bytes();
  const digest = digestOf(bytes);
  if (wanted.startsWith("sha256:") && wanted !== digest) throw new Error(`manifest ${wanted} has digest ${digest}`);
  const text = new TextDecoder().decode(bytes);
  return {
    mediaType: response.headers.get("content-type") ?? "",
    digest,
    text,
    json: readObject(JSON.parse(text)),
  };
}

async function completeImage(repository: RepositoryName, manifest: PulledManifest): Promise<Omit<PulledImage, "kind">> {
  const { json, mediaType, digest, text } = manifest;
  const configText = new TextDecoder().decode(await getBlob(repository, str(readObject(json["config"])["digest"])));
  const diffIds = readObject(readObject(JSON.parse(configText))["rootfs"])["diff_ids"];
  const layers = [];
  for (const [i, layer] of readList(json["layers"]).entries()) {
    const diffId = Array.isArray(diffIds) ? str(diffIds[i]) : "";
    layers.push({ digest: str(layer["digest"]), size: Number(layer["size"]), diffId });
  }
  return { mediaType, digest, text, configText, layers };
}

async function getBlob(repository: RepositoryName, digest: string): Promise<Uint8Array> {
  const bytes = await (await get(`http://${repository.host}/v2/${repository.path}/blobs/${digest}`)).bytes();
  if (digestOf(bytes) !== digest) throw new Error(`blob ${digest} has digest ${digestOf(bytes)}`);
  return bytes;
}

async function get(url: string): Promise<Response> {
  const response = await fetch(url, { headers: { Accept: ACCEPT } });
  if (!response.ok) throw new Error(`GET ${url} answered ${response.status}`);
  return response;
}

function str(value: unknown): string {
  if (typeof value !== "string") throw new Error(`${JSON.stringify(value)} is no string`);
  return value;
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

function encode(value: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(value));
}
