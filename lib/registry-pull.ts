/**
 * Pulls manifests and blobs: every byte is checked against its descriptor, and a broken download is resumed.
 *
 * Rules: docs/rules.md A8.1-A8.8, A8.11, E2, E3, E5.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull
 */
import { retry, type RetryOptions } from "./async.ts";
import { RegistryError } from "./errors.ts";
import { type Http, type HttpResponse, MAX_REDIRECTS } from "./http.ts";
import { isObject, parseJson } from "./json.ts";
import {
  type Descriptor,
  digestOf,
  isDigest,
  isDocumentType,
  MAX_DOCUMENT_BYTES,
  MEDIA_TYPES,
  verified,
} from "./oci.ts";
import { formatRepository, type Repository } from "./reference.ts";
import type { Connection } from "./registry-transport.ts";
import { redactUrl } from "./url.ts";

/** The bytes of a manifest or index, and their descriptor. */
export interface ManifestContent {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

export interface DownloadOptions {
  readonly connection: Connection;
  readonly http: Http;
  readonly retry: RetryOptions;
  readonly signal: AbortSignal | undefined;
}

export interface ManifestAnswerOptions {
  /** The tag or digest that was asked for. */
  readonly reference: string;
  /** The descriptor in the index that lists the manifest, if one does. */
  readonly expected: Descriptor | undefined;
  /** The caller's task, for errors. */
  readonly action: string;
}

/** The most connections for one blob: a server that closes each after some bytes must not keep us forever. */
const MAX_CONNECTIONS = 50;

/** The content that the descriptor embeds as `data`; undefined if it has none, or its size or digest do not match. */
export function findInlined(descriptor: Descriptor): Uint8Array | undefined {
  if (descriptor.data === undefined) return undefined;
  const bytes = new Uint8Array(Buffer.from(descriptor.data, "base64"));
  return bytes.byteLength === descriptor.size && digestOf(bytes) === descriptor.digest ? bytes : undefined;
}

/** Streams a blob, verified, from its repository or from the `urls` of a foreign layer. */
export async function* downloadBlob(
  repository: Repository,
  descriptor: Descriptor,
  options: DownloadOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const name = `blob ${descriptor.digest} of "${formatRepository(repository)}"`;
  const inlined = findInlined(descriptor);
  if (inlined !== undefined) {
    yield inlined;
    return;
  }
  yield* verified(readResuming(repository, descriptor, { ...options, action: `read ${name}` }), descriptor, name);
}

/**
 * Reads the body of a response as a manifest, and checks it against the request, the headers and the index entry.
 *
 * @throws {RegistryError} If one of them does not match, or the body is not a manifest.
 */
export async function readManifestAnswer(
  response: HttpResponse,
  options: ManifestAnswerOptions,
): Promise<ManifestContent> {
  const { action, expected, reference } = options;
  const bytes = await response.bytes(MAX_DOCUMENT_BYTES);
  if (bytes === undefined) throw claimError(response, action, `it is longer than ${MAX_DOCUMENT_BYTES} bytes`);
  const digest = digestOf(bytes);
  const wanted = expected?.digest ?? (isDigest(reference) ? reference : undefined);
  if (wanted !== undefined && digest !== wanted) {
    throw claimError(response, action, `its ${bytes.byteLength} bytes have digest ${digest}, wanted ${wanted}`);
  }
  const said = response.headers.get("docker-content-digest");
  // Only sha256 is compared: a registry may use another algorithm for its own name of the content.
  if (said !== null && said.startsWith("sha256:") && said !== digest) {
    throw claimError(response, action, `the registry says that its digest is not ${digest}`);
  }
  if (expected !== undefined && expected.size !== bytes.byteLength) {
    throw claimError(response, action, `it has ${bytes.byteLength} bytes, its index says ${expected.size}`);
  }
  const mediaType = readMediaType(bytes, response, action);
  if (expected !== undefined && expected.mediaType !== mediaType) {
    throw claimError(response, action, `it is a ${mediaType}, its index says ${expected.mediaType}`);
  }
  return { descriptor: { mediaType, size: bytes.byteLength, digest }, bytes };
}

/** The error for a response whose content is wrong. One retry is worth it: a proxy may have cut the content. */
export function claimError(response: HttpResponse, action: string, why: string): RegistryError {
  const url = redactUrl(response.url);
  return new RegistryError(`Cannot ${action}: ${response.method} ${url} answered ${response.status}, but ${why}`, {
    method: response.method,
    url,
    status: response.status,
    retry: "once",
  });
}

/** The chunks of a blob. A connection that breaks is replaced by one that continues at the same byte. */
async function* readResuming(
  repository: Repository,
  descriptor: Descriptor,
  options: DownloadOptions & { readonly action: string },
): AsyncGenerator<Uint8Array, void, void> {
  const { signal } = options;
  const retryOptions: RetryOptions = {
    ...options.retry,
    signal: signal === undefined ? options.retry.signal : AbortSignal.any([options.retry.signal, signal]),
  };
  let taken = 0;
  let opened = 0;
  let useRange = true;
  let chunks: AsyncGenerator<Uint8Array, void, void> | undefined;
  const fail = (why: string, often: "never" | "once"): RegistryError =>
    new RegistryError(`Cannot ${options.action}: ${why} after ${taken} of ${descriptor.size} bytes`, {
      method: "GET",
      url: `${repository.host}/v2/${repository.path}/blobs/${descriptor.digest}`,
      retry: often,
    });
  // The retried step is "get the next chunk", so no chunk is yielded twice.
  const take = async (): Promise<IteratorResult<Uint8Array, void>> => {
    try {
      if (chunks === undefined && ++opened > MAX_CONNECTIONS) throw fail("the connection broke too often", "never");
      chunks ??= await openAt(repository, descriptor, { ...options, from: taken, useRange });
      const next = await chunks.next();
      if (next.done === true && taken < descriptor.size) throw fail("it ended", "once");
      return next;
    } catch (error) {
      chunks = undefined;
      if (error instanceof RegistryError && error.status === 416) useRange = false;
      throw error;
    }
  };
  try {
    for (;;) {
      const next = await retry(take, retryOptions);
      if (next.done === true) return;
      taken += next.value.byteLength;
      yield next.value;
    }
  } finally {
    await close(chunks);
  }
}

/** A function, since the compiler does not see that `take` assigns `chunks`. */
async function close(chunks: AsyncGenerator<Uint8Array, void, void> | undefined): Promise<void> {
  await chunks?.return();
}

interface OpenOptions extends DownloadOptions {
  readonly action: string;
  /** The offset of the first byte that is wanted. */
  readonly from: number;
  /** False reads the blob from its start and skips bytes: some servers refuse `Range`. */
  readonly useRange: boolean;
}

/** The chunks of a blob from the byte `from` on. */
async function openAt(
  repository: Repository,
  descriptor: Descriptor,
  options: OpenOptions,
): Promise<AsyncGenerator<Uint8Array, void, void>> {
  const { action, connection, from, signal, useRange } = options;
  const isRanged = from > 0 && useRange;
  const headers = isRanged ? { range: `bytes=${from}-` } : {};
  let response: HttpResponse;
  try {
    response = await connection.send({
      method: "GET",
      target: `/v2/${repository.path}/blobs/${descriptor.digest}`,
      repository,
      action,
      push: false,
      accept: isRanged ? [200, 206, 416] : [200],
      headers,
      signal,
    });
  } catch (error) {
    const foreign =
      error instanceof RegistryError && error.status === 404 ? await openForeign(descriptor, options) : undefined;
    if (foreign === undefined) throw error;
    response = foreign;
  }
  const url = redactUrl(response.url);
  const fail = (why: string, status: number): RegistryError =>
    new RegistryError(`Cannot ${action}: GET ${url} answered ${status}${why}`, {
      method: "GET",
      url,
      status,
      retry: "once",
    });
  if (response.status === 416) {
    await response.discard();
    throw fail(" to the rest of it", 416);
  }
  const start = response.status === 206 ? from : 0;
  if (response.status === 206 && !(response.headers.get("content-range") ?? "").startsWith(`bytes ${from}-`)) {
    await response.discard();
    throw fail(" with another range than the requested one", 416);
  }
  if (response.length !== undefined && response.length !== descriptor.size - start) {
    await response.discard();
    throw fail(` with ${response.length} bytes, wanted ${descriptor.size - start}`, response.status);
  }
  return skip(response.body(), from - start);
}

/** Opens a foreign layer. Its URLs are the manifest's, not the registry's: no credential is sent. */
async function openForeign(descriptor: Descriptor, options: OpenOptions): Promise<HttpResponse | undefined> {
  const { action, connection, http, signal } = options;
  const base = await connection.base(action);
  for (const text of descriptor.urls ?? []) {
    let url: URL;
    try {
      url = await connection.resolve(text, base, action);
    } catch {
      continue; // Not allowed; the next URL may be.
    }
    for (let hops = 0; hops < MAX_REDIRECTS; hops++) {
      const response = await http.send({ method: "GET", url, action, signal });
      if (response.status === 200) return response;
      const location = response.headers.get("location");
      await response.discard();
      if (location === null) break;
      url = await connection.resolve(location, url, action);
    }
  }
  return undefined;
}

/** The chunks without their first `bytes` bytes. */
async function* skip(
  source: AsyncGenerator<Uint8Array, void, void>,
  bytes: number,
): AsyncGenerator<Uint8Array, void, void> {
  let left = bytes;
  for await (const chunk of source) {
    if (left < chunk.byteLength) yield left === 0 ? chunk : chunk.subarray(left);
    left = Math.max(0, left - chunk.byteLength);
  }
}

/**
 * The media type of a manifest: its own, else that of the response, else the one that its fields tell.
 *
 * File servers and some registries call every manifest `text/plain`, `application/json` or `application/octet-stream`: a
 * `Content-Type` counts only if it is that of a manifest (docs/rules.md A8.2).
 */
function readMediaType(bytes: Uint8Array, response: HttpResponse, action: string): string {
  const value = parseJson(new TextDecoder().decode(bytes));
  // A proxy may answer 200 with an error page.
  if (value === undefined) throw claimError(response, action, "it is not JSON");
  const own = isObject(value) && typeof value["mediaType"] === "string" ? value["mediaType"] : undefined;
  const said = isDocumentType(response.mediaType) ? response.mediaType : undefined;
  if (own !== undefined && said !== undefined && own.toLowerCase() !== said) {
    throw claimError(response, action, "its mediaType is not the Content-Type of the response");
  }
  const mediaType = own ?? said ?? guessMediaType(value);
  if (mediaType !== undefined && isDocumentType(mediaType)) return mediaType;
  if (isObject(value) && value["schemaVersion"] === 1) {
    throw claimError(response, action, "it is a schema 1 manifest, an obsolete format");
  }
  throw claimError(response, action, "it is neither an image manifest nor an image index");
}

/** The type of a document without one: those of OCI may leave it out, those of Docker have Docker's types inside. */
function guessMediaType(value: unknown): string | undefined {
  if (!isObject(value) || value["schemaVersion"] !== 2) return undefined;
  const { config, layers, manifests } = value;
  const isDocker = (type: unknown): boolean => typeof type === "string" && type.startsWith("application/vnd.docker.");
  if (Array.isArray(manifests) && config === undefined && layers === undefined) {
    const entries: readonly unknown[] = manifests;
    const isList = entries.length > 0 && entries.every((entry) => isObject(entry) && isDocker(entry["mediaType"]));
    return isList ? MEDIA_TYPES.dockerList : MEDIA_TYPES.ociIndex;
  }
  if (!isObject(config) || !Array.isArray(layers) || manifests !== undefined) return undefined;
  return isDocker(config["mediaType"]) ? MEDIA_TYPES.dockerManifest : MEDIA_TYPES.ociManifest;
}
