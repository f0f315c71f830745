/**
 * The Docker Engine API, as far as ko needs it: what the daemon is, which images it has, tag, load, save.
 *
 * Docker with the classic store, Docker with the containerd store, and podman's imitation differ in what an image's ID
 * is, in how they fail, and in what they need to be sent; {@link DockerEngine.storeKind} says which one it is. What is
 * loaded when is decided in publish-local.ts. Rules: rules.md C1.9, C1.10, C2.
 *
 * https://docs.docker.com/reference/api/engine/
 *
 * What a daemon says of a load: a stream of JSON lines in which a failure looks like a success until one reads them
 * (rules.md C2.2-C2.4).
 */
import type { DaemonEndpoint } from "./docker-host.ts";
import { DAEMON_DEADLINES, type DaemonDeadlines, DaemonRefusal, DaemonWire, hintFor } from "./docker-transport.ts";
import { KoError, printable } from "./errors.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";
import { type Digest, isDigest } from "./oci.ts";
import { DOCKER_HUB, formatReference, parseReference } from "./reference.ts";

/** Where the daemon keeps images: it decides what an ID is and what has to be sent. */
export type StoreKind = "classic" | "containerd" | "podman";

export interface EngineImage {
  /** Digest of the configuration; of the manifest or index in a containerd store. */
  readonly id: Digest;
  /** Digests of the uncompressed layers, the base's first. */
  readonly diffIds: readonly Digest[];
  /** False if the daemon says that parts of it are missing. */
  readonly isComplete: boolean;
}

/** An entry of the daemon's list of images. */
export interface ListedImage {
  readonly id: Digest;
  /** `name:tag`, in the daemon's spelling. */
  readonly tags: readonly string[];
  /** Seconds since 1970. */
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

/** The newest version whose answers were read when this was written. */
const OUR_VERSION = "1.48";
/** The version of engines that do not tell theirs. */
const OLDEST_VERSION = "1.24";
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** A daemon that has answered. */
export class DockerEngine implements AsyncDisposable {
  readonly #wire: DaemonWire;
  readonly #log: Log;
  readonly #version: string;
  readonly #isPodman: boolean;
  #kind: Promise<StoreKind> | undefined;

  private constructor(wire: DaemonWire, options: { readonly log: Log; readonly version: string; isPodman: boolean }) {
    this.#wire = wire;
    this.#log = options.log;
    this.#version = options.version;
    this.#isPodman = options.isPodman;
  }

  /**
   * Connects and agrees on a version of the API.
   *
   * @throws {KoError} If nothing answers there, or what answers is no Docker daemon.
   */
  static async open(endpoint: DaemonEndpoint, options: OpenEngineOptions): Promise<DockerEngine> {
    const { log, signal, deadlines = DAEMON_DEADLINES } = options;
    for (const warning of endpoint.warnings) log.warn(warning);
    signal.throwIfAborted();
    await using stack = new AsyncDisposableStack();
    const address = stack.use(await endpoint.connect());
    const wire = stack.use(new DaemonWire(endpoint, { log, signal, deadlines, address }));
    const headers = await ping(wire);
    const theirs = headers.get("api-version") ?? OLDEST_VERSION;
    if (!/^\d+\.\d+$/.test(theirs)) {
      throw new KoError(`Cannot use ${wire.name}: its API version is "${printable(theirs, 40)}"`);
    }
    const version = endpoint.apiVersion ?? olderOf(theirs, OUR_VERSION);
    log.debug(`Using ${wire.name}: API version ${version} of ${theirs}, ${headers.get("server") ?? "unnamed"}`);
    const engine = new DockerEngine(wire, { log, version, isPodman: headers.has("libpod-api-version") });
    stack.move();
    return engine;
  }

  /** For messages: `the Docker daemon at "unix:///var/run/docker.sock" (DOCKER_HOST)`. */
  get name(): string {
    return this.#wire.name;
  }

  /** What the daemon's containers run on. */
  async platform(): Promise<EnginePlatform> {
    const version = await this.#object("/version", "ask for the version of");
    const { Os: os, Arch: architecture } = version;
    if (typeof os !== "string" || typeof architecture !== "string" || os === "" || architecture === "") {
      throw new KoError(`Cannot read the platform of ${this.name}: its version tells no Os and Arch`);
    }
    if (architecture !== "arm") return { os, architecture };
    // The version says "arm" of each; the kernel's name tells more.
    const machine = (await this.#object("/info", "ask for the kind of"))["Architecture"];
    const variant = typeof machine === "string" ? /^armv(\d)/.exec(machine)?.[1] : undefined;
    return { os, architecture, ...(variant === undefined ? {} : { variant: `v${variant}` }) };
  }

  /** Asked once. */
  storeKind(): Promise<StoreKind> {
    this.#kind ??= this.#isPodman ? Promise.resolve("podman") : this.#askKind();
    return this.#kind;
  }

  /**
   * @param reference a name with a tag, or an ID
   * @returns undefined if there is none
   */
  async inspectImage(reference: string): Promise<EngineImage | undefined> {
    // Since then it tells whether all parts are there.
    const query = olderOf(this.#version, "1.48") === "1.48" ? "?manifests=1" : "";
    const action = `look for the image "${reference}" in`;
    const path = `${imagePath(reference)}/json${query}`;
    const answer = await this.#send({ method: "GET", path, action, accept: [200, 404] });
    const value = await this.#wire.json(answer, { what: `image "${reference}"`, maxBytes: MAX_ANSWER_BYTES });
    if (answer.status === 404) return undefined;
    const id = isObject(value) ? readId(value["Id"]) : undefined;
    if (!isObject(value) || id === undefined) {
      throw new KoError(`Cannot read image "${reference}" from ${this.name}: it has no Id that is a digest`);
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

  /** The images that the daemon lists: those with a name and those that lost it. */
  async listImages(): Promise<readonly ListedImage[]> {
    const answer = await this.#send({
      method: "GET",
      path: "/images/json",
      action: "list the images of",
      accept: [200],
    });
    const value = await this.#wire.json(answer, { what: "the list of images", maxBytes: MAX_ANSWER_BYTES });
    if (!Array.isArray(value)) throw new KoError(`Cannot read the list of images from ${this.name}: it is no list`);
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
    await this.#wire.discard(await this.#send({ method: "POST", path, action, accept: [200, 201] }));
  }

  /**
   * Takes a name off; an image without names and containers goes with its last. What is not there is fine.
   *
   * @param options.farewell true works after the run's signal too, but not for long
   */
  async removeTag(reference: string, options: { readonly farewell?: boolean } = {}): Promise<void> {
    const answer = await this.#send({
      method: "DELETE",
      path: imagePath(reference),
      action: `take the name "${reference}" off in`,
      accept: [200, 404],
      farewell: options.farewell ?? false,
    });
    await this.#wire.discard(answer);
  }

  /**
   * Loads an archive, and reads what the daemon says of it to the end: a failure arrives as status 200.
   *
   * @param archive as archive.ts packs it; read once
   * @param options.expect the full name that must be loaded
   * @throws {DaemonRefusal} If the daemon does not take it: `reason` has its words.
   * @throws {KoError} If it ends in the middle, or the archive cannot be read.
   */
  async loadArchive(
    archive: AsyncIterable<Uint8Array>,
    options: { readonly expect: string; readonly signal?: AbortSignal },
  ): Promise<void> {
    const { expect, signal } = options;
    const answer = await this.#send({
      method: "POST",
      path: "/images/load?quiet=1",
      action: `load "${expect}" into`,
      accept: [200],
      body: archive,
      transfer: true,
      ...(signal === undefined ? {} : { signal }),
    });
    const refused = (words: string): DaemonRefusal => {
      const reason = printable(words.trim(), 1000) || "an error without words";
      return new DaemonRefusal(`Cannot load "${expect}" into ${this.name}: ${reason}`, {
        status: undefined,
        reason,
        hint: hintFor(reason),
      });
    };
    const said: string[] = [];
    let failure: string | undefined;
    let isLoaded = false;
    for await (const line of linesOf(answer.body)) {
      const { text, error } = readLoadLine(line);
      failure ??= error;
      if (text === undefined) continue;
      this.#log.debug(`${this.name}: ${text}`);
      isLoaded ||= isLoadedLine(text, expect);
      if (said.length < 5) said.push(text);
    }
    if (failure !== undefined) throw refused(failure);
    if (isLoaded) return;
    throw refused(
      said.length === 0 ? "it answered nothing, so it loaded nothing" : `it did not name the image: ${said.join("; ")}`,
    );
  }

  /** The image as `docker save` gives it: a tar. Leaving the loop early ends the connection. */
  async *saveImage(reference: string): AsyncGenerator<Uint8Array, void, void> {
    const action = `read the image "${reference}" from`;
    const path = `${imagePath(reference)}/get`;
    const answer = await this.#send({ method: "GET", path, action, accept: [200], transfer: true });
    yield* answer.body;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#wire[Symbol.asyncDispose]();
  }

  #send(request: Parameters<DaemonWire["send"]>[0]): ReturnType<DaemonWire["send"]> {
    return this.#wire.send({ ...request, path: `/v${this.#version}${request.path}` });
  }

  async #object(path: string, action: string): Promise<Readonly<Record<string, unknown>>> {
    const answer = await this.#send({ method: "GET", path, action, accept: [200] });
    const value = await this.#wire.json(answer, { what: path.slice(1), maxBytes: MAX_ANSWER_BYTES });
    if (isObject(value)) return value;
    throw new KoError(`Cannot read ${path.slice(1)} from ${this.name}: it is no JSON object`);
  }

  async #askKind(): Promise<StoreKind> {
    const status = (await this.#object("/info", "ask for the kind of"))["DriverStatus"];
    const pairs: readonly unknown[] = Array.isArray(status) ? status : [];
    const isContainerd = pairs.some(
      (pair) => Array.isArray(pair) && pair[0] === "driver-type" && pair[1] === "io.containerd.snapshotter.v1",
    );
    return isContainerd ? "containerd" : "classic";
  }
}

/** HEAD first, as the docker program: old engines and some proxies know GET only. */
async function ping(wire: DaemonWire): Promise<Headers> {
  const request = { path: "/_ping", action: "talk to", ping: true } as const;
  const all = Array.from({ length: 500 }, (_, i) => i + 100);
  const head = await wire.send({ ...request, method: "HEAD", accept: all });
  await wire.discard(head);
  if (head.status === 200) return head.headers;
  const get = await wire.send({ ...request, method: "GET", accept: [200] });
  await wire.discard(get);
  return get.headers;
}

/** `1.9` is older than `1.41`. */
function olderOf(a: string, b: string): string {
  const [[majorA = 0, minorA = 0], [majorB = 0, minorB = 0]] = [a.split(".").map(Number), b.split(".").map(Number)];
  return majorA < majorB || (majorA === majorB && minorA <= minorB) ? a : b;
}

/** The characters of a reference are its own; a digest's colon stays too. */
function imagePath(reference: string): string {
  return `/images/${reference.split("/").map(encodeURIComponent).join("/").replaceAll("%3A", ":").replaceAll("%40", "@")}`;
}

/** podman leaves out what kind of digest it is. */
function readId(value: unknown): Digest | undefined {
  if (typeof value !== "string") return undefined;
  const id = value.includes(":") ? value : `sha256:${value}`;
  return isDigest(id) ? id : undefined;
}

/** A line, longer ones are cut. */
const MAX_LINE_CHARS = 1024 * 1024;

/** Lines of JSON; the last may have no end. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = (lines.pop() ?? "").slice(0, MAX_LINE_CHARS);
    yield* lines;
  }
  yield rest + decoder.decode();
}

/** What a line of a load's answer says: a text for people, an error, or nothing of interest (progress). */
export function readLoadLine(line: string): { readonly text?: string; readonly error?: string } {
  const trimmed = line.trim();
  if (trimmed === "") return {};
  let value: unknown;
  try {
    value = JSON.parse(trimmed);
  } catch {
    return { text: printable(trimmed, 400) };
  }
  if (!isObject(value)) return { text: printable(trimmed, 400) };
  const { error, errorDetail: detail, stream } = value;
  const message = isObject(detail) ? detail["message"] : undefined;
  if (error !== undefined || detail !== undefined) {
    const words = [message, error].find((word) => typeof word === "string" && word !== "");
    return { error: typeof words === "string" ? words : "an error without words" };
  }
  if (typeof stream !== "string") return {};
  const text = printable(stream.trim(), 1000);
  // Engines with the containerd store report a failed unpacking only so, after "Loaded image".
  return text.startsWith("Error unpacking image") ? { text, error: text } : { text };
}

/** Whether `text` is `Loaded image: NAME` for our name; Docker Hub's names are shortened, podman lists several. */
export function isLoadedLine(text: string, expect: string): boolean {
  const names = /^Loaded image(?:\(s\))?: (.*)$/s.exec(text)?.[1]?.split(",") ?? [];
  return names.some((name) => normalName(name.trim()) === normalName(expect));
}

function normalName(name: string): string | undefined {
  try {
    const reference = parseReference(name);
    return formatReference(reference.host === DOCKER_HUB ? { ...reference, host: "docker.io" } : reference);
  } catch {
    return undefined;
  }
}
