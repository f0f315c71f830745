/**
 * Reads an image or an index back from a registry with plain requests, checking each digest on the way.
 *
 * Nothing of lib/ takes part: what ours pushed is read as a stranger would read it, layers through gzip and zstd.
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

const ACCEPT = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
].join(", ");

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

function str(value: unknown): string {
  if (typeof value !== "string") throw new Error(`${JSON.stringify(value)} is no string`);
  return value;
}
