/**
 * The Docker Engine API, as far as ko needs it: the daemon's version, platform and store; images to inspect, list, tag,
 * load and save.
 *
 * The classic store, the containerd store and podman differ in an image's ID, in the layers that they need and in how
 * they fail; {@link DockerEngine.storeKind} tells them apart. Rules: docs/rules.md C1.9, C1.10, C2.
 *
 * https://docs.docker.com/reference/api/engine/
 */
import type { DaemonEndpoint } from "./docker-host.ts";
import {
  DAEMON_DEADLINES,
  type DaemonDeadlines,
  DaemonRefusal,
  type DaemonRequest,
  type DaemonResponse,
  DaemonTransport,
  refusalHint,
} from "./docker-transport.ts";
import { DaemonError, printable } from "./errors.ts";
import { isObject, parseJson } from "./json.ts";
import type { Log } from "./log.ts";
import { type Digest, isDigest } from "./oci.ts";
import { formatDaemonReference, parseReference } from "./reference.ts";

/** How the daemon stores images. It decides the meaning of an ID and which layers a load must send. */
export type StoreKind = "classic" | "containerd" | "podman";

export interface EngineImage {
  /** The digest of the configuration; in a containerd store that of the manifest or index. */
  readonly id: Digest;
  /** Digests of the uncompressed layers, the base's first. */
  readonly diffIds: readonly Digest[];
  /** False if the daemon reports that parts of the image are missing. */
  readonly isComplete: boolean;
}

/** An entry of the daemon's list of images. */
export interface ListedImage {
  readonly id: Digest;
  /** `name:tag`, in the daemon's spelling. */
  readonly tags: readonly string[];
  /** Seconds since the epoch. */
  readonly created: number;
}

export interface EnginePlatform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

export interface OpenEngineOptions {
  readonly log: Log;
  /** Ends every request. */
  readonly signal: AbortSignal;
  /** @default {@link DAEMON_DEADLINES} */
  readonly deadlines?: DaemonDeadlines;
}

/** The newest API version that ko was tested with. */
const OUR_VERSION = "1.48";
/** The version of engines that send no `api-version`. */
const OLDEST_VERSION = "1.24";
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;
/** A line of a load's response is cut after so many characters. */
const MAX_LINE_CHARS = 1024 * 1024;

/** A connection to a daemon that has answered a ping. */
export class DockerEngine implements AsyncDisposable {
  readonly #transport: DaemonTransport;
  readonly #log: Log;
  readonly #version: string;
  readonly #isPodman: boolean;
  #kind: Promise<StoreKind> | undefined;

  private constructor(
    transport: DaemonTransport,
    options: { readonly log: Log; readonly version: string; readonly isPodman: boolean },
  ) {
    this.#transport = transport;
    this.#log = options.log;
    this.#version = options.version;
    this.#isPodman = options.isPodman;
  }

  /**
   * Connects and negotiates the version of the API.
   *
   * @throws {KoError} If nothing answers at the endpoint, or the server is not a Docker daemon.
   */
  static async open(endpoint: DaemonEndpoint, options: OpenEngineOptions): Promise<DockerEngine> {
    const { log, signal, deadlines = DAEMON_DEADLINES } = options;
    for (const warning of endpoint.warnings) log.warn(warning);
    signal.throwIfAborted();
    await using stack = new AsyncDisposableStack();
    const address = stack.use(await endpoint.connect());
    const transport = stack.use(new DaemonTransport(endpoint, { log, signal, deadlines, address }));
    const headers = await ping(transport);
    const theirs = headers.get("api-version") ?? OLDEST_VERSION;
    if (!/^\d+\.\d+$/.test(theirs)) {
      throw new DaemonError(
        `Cannot use ${transport.name}: its API version is "${printable(theirs, 40)}", wanted one such as 1.41`,
      );
    }
    const version = endpoint.apiVersion ?? olderOf(theirs, OUR_VERSION);
    log.debug(`Using ${transport.name}: API version ${version} of ${theirs}, ${headers.get("server") ?? "unnamed"}`);
    const engine = new DockerEngine(transport, { log, version, isPodman: headers.has("libpod-api-version") });
    stack.move();
    return engine;
  }

  /** For messages: `the Docker daemon at "unix:///var/run/docker.sock" (DOCKER_HOST)`. */
  get name(): string {
    return this.#transport.name;
  }

  /** The version of the API that is used. */
  get apiVersion(): string {
    return this.#version;
  }

  /** The platform of the daemon's containers. */
  async platform(): Promise<EnginePlatform> {
    const { Os: os, Arch: architecture } = await this.#readObject("/version");
    if (typeof os !== "string" || typeof architecture !== "string" || os === "" || architecture === "") {
      throw new DaemonError(`Cannot read the platform of ${this.name}: its /version has no Os and Arch`);
    }
    if (architecture !== "arm") return { os, architecture };
    // /version says "arm" for every variant; the kernel's name of the machine has it.
    const machine = (await this.#readObject("/info"))["Architecture"];
    const variant = typeof machine === "string" ? /^armv(\d)/.exec(machine)?.[1] : undefined;
    return { os, architecture, ...(variant === undefined ? {} : { variant: `v${variant}` }) };
  }

  /** How the daemon stores images; asked at most once. */
  storeKind(): Promise<StoreKind> {
    this.#kind ??= this.#isPodman ? Promise.resolve("podman") : this.#readStoreKind();
    return this.#kind;
  }

  /**
   * Looks for an image.
   *
   * @param reference a name with a tag, or an ID
   * @returns undefined if the daemon has no such image
   */
  async inspectImage(reference: string): Promise<EngineImage | undefined> {
    // Older versions do not report whether all parts of an image are present.
    const query = olderOf(this.#version, "1.48") === "1.48" ? "?manifests=1" : "";
    const action = `look for the image "${reference}" in`;
    const path = `${imagePath(reference)}/json${query}`;
    const response = await this.#send({ method: "GET", path, action, accept: [200, 404] });
    const value = await this.#transport.json(response, {
      subject: `image "${reference}"`,
      maxBytes: MAX_RESPONSE_BYTES,
    });
    if (response.status === 404) return undefined;
    const id = isObject(value) ? readId(value["Id"]) : undefined;
    if (!isObject(value) || id === undefined) {
      throw new DaemonError(`Cannot read image "${reference}" from ${this.name}: its Id is not a digest`);
    }
    const rootfs = value["RootFS"];
    const layers = isObject(rootfs) && Array.isArray(rootfs["Layers"]) ? rootfs["Layers"] : [];
    const manifests = Array.isArray(value["Manifests"]) ? value["Manifests"] : [];
    const images = manifests.filter((manifest) => isObject(manifest) && manifest["Kind"] === "image");
    return {
      id,
      diffIds: layers.filter((layer: unknown) => typeof layer === "string").filter(isDigest),
      isComplete: images.length === 0 || images.some((one) => isObject(one) && one["Available"] === true),
    };
  }

  /** The images of the daemon, those that have lost their names included. */
  async listImages(): Promise<readonly ListedImage[]> {
    const response = await this.#send({
      method: "GET",
      path: "/images/json",
      action: "list the images of",
      accept: [200],
    });
    const value = await this.#transport.json(response, {
      subject: "the list of images",
      maxBytes: MAX_RESPONSE_BYTES,
    });
    if (!Array.isArray(value))
      throw new DaemonError(`Cannot read the list of images from ${this.name}: it is not a list`);
    return value.flatMap((entry: unknown): readonly ListedImage[] => {
      const id = isObject(entry) ? readId(entry["Id"]) : undefined;
      if (!isObject(entry) || id === undefined) return [];
      const tags = Array.isArray(entry["RepoTags"]) ? entry["RepoTags"] : [];
      return [
        {
          id,
          tags: tags.filter((tag: unknown) => typeof tag === "string"),
          created: typeof entry["Created"] === "number" ? entry["Created"] : 0,
        },
      ];
    });
  }

  /** Gives the image `source` (a name or an ID) another name. */
  async tagImage(source: string, target: { readonly repository: string; readonly tag: string }): Promise<void> {
    const query = new URLSearchParams({ repo: target.repository, tag: target.tag });
    const action = `tag an image as "${target.repository}:${target.tag}" in`;
    const path = `${imagePath(source)}/tag?${query.toString()}`;
    await this.#transport.discard(await this.#send({ method: "POST", path, action, accept: [200, 201] }));
  }

  /**
   * Removes a name, if it exists. With its last name the daemon removes the image, unless a container uses it.
   *
   * @param options.bestEffort see {@link DaemonRequest.bestEffort}
   */
  async removeTag(reference: string, options: { readonly bestEffort?: boolean } = {}): Promise<void> {
    const response = await this.#send({
      method: "DELETE",
      path: imagePath(reference),
      action: `remove the name "${reference}" from`,
      accept: [200, 404],
      bestEffort: options.bestEffort ?? false,
    });
    await this.#transport.discard(response);
  }

  /**
   * Loads an archive and reads the response to its end: a load that fails has status 200 as well (docs/rules.md C2.2).
   *
   * @param archive as archive.ts packs it; read once
   * @param options.expect the full name that must be loaded
   * @throws {DaemonRefusal} If the daemon refuses the archive: `reason` has the daemon's message.
   * @throws {KoError} If the connection breaks, or the archive cannot be read.
   */
  async loadArchive(
    archive: AsyncIterable<Uint8Array>,
    options: { readonly expect: string; readonly signal?: AbortSignal },
  ): Promise<void> {
    const { expect, signal } = options;
    const { body } = await this.#send({
      method: "POST",
      path: "/images/load?quiet=1",
      action: `load "${expect}" into`,
      accept: [200],
      body: archive,
      transfer: true,
      ...(signal === undefined ? {} : { signal }),
    });
    const failure = await this.#readLoadResponse(body, expect);
    if (failure === undefined) return;
    const reason = printable(failure.trim(), 1000) || "an error without a message";
    throw new DaemonRefusal(`Cannot load "${expect}" into ${this.name}: ${reason}`, {
      status: undefined,
      reason,
      hint: refusalHint(reason),
    });
  }

  /** The tar that `docker save` writes for an image. Leaving the loop early ends the connection. */
  async *saveImage(reference: string): AsyncGenerator<Uint8Array, void, void> {
    const action = `read the image "${reference}" from`;
    const path = `${imagePath(reference)}/get`;
    const response = await this.#send({ method: "GET", path, action, accept: [200], transfer: true });
    yield* response.body;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#transport[Symbol.asyncDispose]();
  }

  #send(request: DaemonRequest): Promise<DaemonResponse> {
    return this.#transport.send({ ...request, path: `/v${this.#version}${request.path}` });
  }

  async #readObject(path: string): Promise<Readonly<Record<string, unknown>>> {
    const response = await this.#send({ method: "GET", path, action: `read ${path} of`, accept: [200] });
    const value = await this.#transport.json(response, { subject: path, maxBytes: MAX_RESPONSE_BYTES });
    if (isObject(value)) return value;
    throw new DaemonError(`Cannot read ${path} from ${this.name}: it is not a JSON object`);
  }

  async #readStoreKind(): Promise<StoreKind> {
    const status = (await this.#readObject("/info"))["DriverStatus"];
    const pairs: readonly unknown[] = Array.isArray(status) ? status : [];
    const isContainerd = pairs.some(
      (pair) => Array.isArray(pair) && pair[0] === "driver-type" && pair[1] === "io.containerd.snapshotter.v1",
    );
    return isContainerd ? "containerd" : "classic";
  }

  /** The reason why a load has failed; undefined if `expect` is loaded. */
  async #readLoadResponse(body: AsyncIterable<Uint8Array>, expect: string): Promise<string | undefined> {
    const texts: string[] = [];
    let failure: string | undefined;
    let isLoaded = false;
    for await (const line of linesOf(body)) {
      const { text, error } = readLoadLine(line);
      failure ??= error;
      if (text === undefined) continue;
      this.#log.debug(`${this.name}: ${text}`);
      isLoaded ||= isLoadedLine(text, expect);
      if (texts.length < 5) texts.push(text);
    }
    if (failure !== undefined || isLoaded) return failure;
    return texts.length === 0
      ? "its response is empty, so nothing was loaded"
      : `it did not name the image: ${texts.join("; ")}`;
  }
}

/** HEAD first, as the docker program: old engines and some proxies know GET only. */
async function ping(transport: DaemonTransport): Promise<Headers> {
  const request = { path: "/_ping", action: "talk to", ping: true } as const;
  const anyStatus = Array.from({ length: 500 }, (_, i) => i + 100);
  const head = await transport.send({ ...request, method: "HEAD", accept: anyStatus });
  await transport.discard(head);
  if (head.status === 200) return head.headers;
  const get = await transport.send({ ...request, method: "GET", accept: [200] });
  await transport.discard(get);
  return get.headers;
}

/** The older of two versions: of `1.9` and `1.41` it is `1.9`. */
function olderOf(a: string, b: string): string {
  const [[majorA = 0, minorA = 0], [majorB = 0, minorB = 0]] = [a.split(".").map(Number), b.split(".").map(Number)];
  return majorA < majorB || (majorA === majorB && minorA <= minorB) ? a : b;
}

/** The path of an image. The slashes and colons of a reference, and the `@` before its digest, are not encoded. */
function imagePath(reference: string): string {
  return `/images/${reference.split("/").map(encodeURIComponent).join("/").replaceAll("%3A", ":").replaceAll("%40", "@")}`;
}

/** An image ID; podman leaves out the `sha256:`. */
function readId(value: unknown): Digest | undefined {
  if (typeof value !== "string") return undefined;
  const id = value.includes(":") ? value : `sha256:${value}`;
  return isDigest(id) ? id : undefined;
}

/** The lines of a text; the last one may lack its end. */
async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = (lines.pop() ?? "").slice(0, MAX_LINE_CHARS);
    yield* lines;
  }
  yield rest + decoder.decode();
}

/** Reads a line of a load's response: a message, an error, or neither (progress). Rules: docs/rules.md C2.2-C2.4. */
function readLoadLine(line: string): { readonly text?: string; readonly error?: string } {
  const trimmed = line.trim();
  if (trimmed === "") return {};
  const value = parseJson(trimmed);
  if (!isObject(value)) return { text: printable(trimmed, 400) };
  const { error, errorDetail: detail, stream } = value;
  const message = isObject(detail) ? detail["message"] : undefined;
  if (error !== undefined || detail !== undefined) {
    const words = [message, error].find((word) => typeof word === "string" && word !== "");
    return { error: typeof words === "string" ? words : "an error without a message" };
  }
  if (typeof stream !== "string") return {};
  const text = printable(stream.trim(), 1000);
  // Engines with the containerd store report a failed unpacking only so, after "Loaded image".
  return text.startsWith("Error unpacking image") ? { text, error: text } : { text };
}

/** Whether `text` is `Loaded image: NAME` for `expect`. Docker shortens names of Docker Hub, podman lists several. */
function isLoadedLine(text: string, expect: string): boolean {
  const names = /^Loaded image(?:\(s\))?: (.*)$/s.exec(text)?.[1]?.split(",") ?? [];
  return names.some((name) => normalName(name.trim()) === normalName(expect));
}

function normalName(name: string): string | undefined {
  try {
    return formatDaemonReference(parseReference(name));
  } catch {
    return undefined;
  }
}
