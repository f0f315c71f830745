/**
 * Reading: manifests that are what they are said to be, and blobs as one verified stream, whatever happens to the
 * connections under it.
 *
 * Rules: rules.md A8.1-A8.8, A8.11, E2, E3, E5.
 *
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull
 */
import { retry, type RetryOptions } from "./async.ts";
import { RegistryError } from "./errors.ts";
import type { Http, HttpResponse } from "./http.ts";
import { isObject } from "./json.ts";
import {
  type Descriptor,
  digestOf,
  isDigest,
  isIndexType,
  isManifestType,
  MAX_DOCUMENT_BYTES,
  verified,
} from "./oci.ts";
import { formatRepository, type Repository } from "./reference.ts";
import type { Connection } from "./registry-transport.ts";
import { redactUrl } from "./url.ts";

/** Bytes of a manifest or index, with their description. */
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
  readonly reference: string;
  readonly expected: Descriptor | undefined;
  readonly action: string;
}

/** For one blob, however far each of them got. */
const MAX_CONNECTIONS = 50;

/** The content that a descriptor carries itself, if it does and it is the described one. */
export function findInlined(descriptor: Descriptor): Uint8Array | undefined {
  if (descriptor.data === undefined) return undefined;
  const bytes = new Uint8Array(Buffer.from(descriptor.data, "base64"));
  return bytes.byteLength === descriptor.size && digestOf(bytes) === descriptor.digest ? bytes : undefined;
}

/** Reads a blob from its repository, or from where a foreign layer's `urls` say. */
export async function* downloadBlob(
  repository: Repository,
  descriptor: Descriptor,
  options: DownloadOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const what = `blob ${descriptor.digest} of "${formatRepository(repository)}"`;
  const inlined = findInlined(descriptor);
  if (inlined !== undefined) {
    yield inlined;
    return;
  }
  yield* verified(resumed(repository, descriptor, { ...options, action: `read ${what}` }), descriptor, what);
}

async function* resumed(
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
  // What is done again is "get the next chunk", so that nothing is handed out twice.
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
    await closeAll(chunks);
  }
}

async function closeAll(chunks: AsyncGenerator<Uint8Array, void, void> | undefined): Promise<void> {
  await chunks?.return();
}

interface OpenOptions extends DownloadOptions {
  readonly action: string;
  readonly from: number;
  readonly useRange: boolean;
}

/** The blob's bytes from `from` on. */
async function openAt(
  repository: Repository,
  descriptor: Descriptor,
  options: OpenOptions,
): Promise<AsyncGenerator<Uint8Array, void, void>> {
  const { action, connection, from, signal, useRange } = options;
  const ranged = from > 0 && useRange;
  const headers = ranged ? { range: `bytes=${from}-` } : {};
  let response: HttpResponse;
  try {
    response = await connection.send({
      method: "GET",
      target: `/v2/${repository.path}/blobs/${descriptor.digest}`,
      repository,
      action,
      push: false,
      accept: ranged ? [200, 206, 416] : [200],
      headers,
      signal,
    });
  } catch (error) {
    const elsewhere =
      error instanceof RegistryError && error.status === 404 ? await openElsewhere(descriptor, options) : undefined;
    if (elsewhere === undefined) throw error;
    response = elsewhere;
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
    throw fail(" with another part than the one asked for", 416);
  }
  if (response.length !== undefined && response.length !== descriptor.size - start) {
    await response.discard();
    throw fail(` with ${response.length} bytes, wanted ${descriptor.size - start}`, response.status);
  }
  return skip(response.body(), from - start);
}

/** Foreign layers: the URLs are the manifest's, so nobody's credentials go there. */
async function openElsewhere(descriptor: Descriptor, options: OpenOptions): Promise<HttpResponse | undefined> {
  const { action, connection, http, signal } = options;
  const base = await connection.base(action);
  for (const text of descriptor.urls ?? []) {
    let url: URL;
    try {
      url = await connection.resolve(text, base, action);
    } catch {
      continue; // Refused by the rules: perhaps the next one is not.
    }
    for (let hops = 0; hops < 5; hops++) {
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
 * Reads an answer's body as a manifest, checked against all that was said of it.
 *
 * @throws {RegistryError} If it is not what it should be.
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
  // Only sha256 is compared: a registry may name its content by another algorithm.
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

function readMediaType(bytes: Uint8Array, response: HttpResponse, action: string): string {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    // An error page with status 200, from a proxy on the way.
    throw claimError(response, action, "it is no JSON");
  }
  const own = isObject(value) && typeof value["mediaType"] === "string" ? value["mediaType"] : undefined;
  const said = response.mediaType;
  if (own !== undefined && said !== "" && own.toLowerCase() !== said) {
    throw claimError(response, action, "its mediaType and the answer's Content-Type are not the same");
  }
  const mediaType = own ?? said;
  if (isManifestType(mediaType) || isIndexType(mediaType)) return mediaType;
  if (isObject(value) && value["schemaVersion"] === 1) {
    throw claimError(response, action, "it is a schema 1 manifest, which nothing current can use");
  }
  throw claimError(response, action, "it is no image manifest and no image index");
}

/** What came is not what was promised. Worth one more attempt: something on the way may have cut it. */
export function claimError(response: HttpResponse, action: string, why: string): RegistryError {
  const url = redactUrl(response.url);
  return new RegistryError(`Cannot ${action}: ${response.method} ${url} answered ${response.status}, but ${why}`, {
    method: response.method,
    url,
    status: response.status,
    retry: "once",
  });
}
