/** The registry client as tests use it: no waiting, everything it says is kept. */
import type { Credential, Keychain } from "../../lib/registry-credential.ts";
import type { Blob } from "../../lib/image.ts";
import { type Descriptor, describe, MEDIA_TYPES } from "../../lib/oci.ts";
import { Registry, type RegistryOptions } from "../../lib/registry.ts";
import type { Clock } from "../../lib/async.ts";
import type { Deadlines } from "../../lib/http-transfer.ts";

export interface TestClient extends AsyncDisposable {
  readonly registry: Registry;
  /** All lines of the log, at every level. */
  readonly said: string[];
  /** Milliseconds of each wait before another attempt. */
  readonly waits: readonly number[];
}

/** Short, for things that hang on purpose; not shorter, for machines with other work. */
export const SHORT: Deadlines = { ping: 1000, firstByte: 1000, commit: 1000, stall: 1000, silence: 3000 };

/** A client whose waits take no time. */
export function makeClient(options: Partial<RegistryOptions> = {}): TestClient {
  const said: string[] = [];
  const waits: number[] = [];
  const say = (message: string): void => void said.push(message);
  const clock: Clock = {
    now: () => Date.now(),
    sleep: async (ms, signal) => {
      signal.throwIfAborted();
      waits.push(ms);
    },
    random: () => 0.5,
  };
  const registry = new Registry({
    keychain: noCredentials,
    log: { info: say, warn: say, debug: say },
    signal: new AbortController().signal,
    userAgent: "ko/test",
    insecureHosts: [],
    env: {},
    clock,
    ...options,
  });
  // 300 is https's head start over http.
  return {
    registry,
    said,
    get waits() {
      return waits.filter((ms) => ms !== 300);
    },
    [Symbol.asyncDispose]: () => registry[Symbol.asyncDispose](),
  };
}

export const noCredentials: Keychain = { find: async () => undefined };

/** Gives the same credential for everything. */
export function fixedKeychain(credential: Credential): Keychain {
  return { find: async () => ({ credential, source: "the test" }) };
}

export const user: Keychain = fixedKeychain({ kind: "basic", username: "joe", password: "s3cret-pass" });

/** A blob of `text`. */
export function textBlob(text: string, source?: Blob["source"]): Blob & { readonly bytes: Uint8Array } {
  const bytes = new TextEncoder().encode(text);
  return {
    bytes,
    descriptor: describe(MEDIA_TYPES.ociLayer, bytes),
    ...(source === undefined ? {} : { source }),
    open: async function* () {
      yield bytes;
    },
  };
}

/** A blob of `size` bytes in chunks of 64 KiB, different for each `seed`. */
export function bigBlob(size: number, seed = 1): Blob & { readonly bytes: Uint8Array } {
  const bytes = new Uint8Array(size);
  let state = seed;
  for (let i = 0; i < size; i++) {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    bytes[i] = state >> 16;
  }
  return {
    bytes,
    descriptor: describe(MEDIA_TYPES.ociLayer, bytes),
    open: async function* () {
      for (let at = 0; at < size; at += 65536) yield bytes.slice(at, at + 65536);
    },
  };
}

export interface TestManifest {
  readonly config: Blob;
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

/** An image manifest over `layers`. */
export function makeManifest(layers: readonly Blob[], mediaType: string = MEDIA_TYPES.ociManifest): TestManifest {
  const configBlob = textBlob('{"architecture":"amd64","os":"linux"}');
  const config = { ...configBlob, descriptor: { ...configBlob.descriptor, mediaType: MEDIA_TYPES.ociConfig } };
  const value = {
    schemaVersion: 2,
    mediaType,
    config: config.descriptor,
    layers: layers.map(({ descriptor }) => descriptor),
  };
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  return { config, descriptor: describe(mediaType, bytes), bytes };
}

/** All bytes of a stream. */
export async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}
