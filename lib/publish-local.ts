/**
 * Publishes to the Docker or podman daemon and to the nodes of kind, k3d and minikube.
 *
 * They keep images under tags, one platform each: the reference is a tag made of the manifest's digest, the content tag. A
 * daemon gets only the layers that it lacks, and the other tags follow when the image is verified, so that no name ever
 * stands for half an image. Rules: docs/rules.md C2.5, C2.6, C2.11-C2.14.
 */
import { createLimit } from "./async.ts";
import { packArchive } from "./archive.ts";
import { DaemonRefusal } from "./docker-transport.ts";
import type { DockerEngine, EngineImage, StoreKind } from "./docker.ts";
import { KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";
import type { Built, Image, Published } from "./image.ts";
import type { Log } from "./log.ts";
import { type Digest, formatPlatform, hexOf, type Platform } from "./oci.ts";
import type { LocalTarget, TagRule } from "./publish-destination.ts";
import { publishedReference, type Publisher, wholeImageSink } from "./publish.ts";
import { formatRepository, parseReference } from "./reference.ts";
import type { Timing } from "./timing.ts";

/** "present": nothing was sent. "tagged": nor then, but its first name is new. */
export type LoadResult = "present" | "tagged" | "loaded";

/** A local target that was found: a daemon or a cluster. */
export interface LocalPlace extends AsyncDisposable {
  /** The platform of the images that it runs. */
  platform(): Promise<Platform>;
  /**
   * Loads an image under full names with tags; the first one is the content tag.
   *
   * @throws {KoError} If the image is not there under all names afterwards.
   */
  load(image: Image, names: readonly string[]): Promise<LoadResult>;
}

export interface LocalPublisherOptions {
  readonly tags: TagRule;
  readonly place: Promise<LocalPlace>;
  readonly log: Log;
  readonly timing: Timing;
}

export interface LocalPlaceOptions {
  readonly host: Host;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface LoadImageOptions {
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Maximum number of the daemon's images that are inspected for layers. */
const MAX_INSPECTED = 400;
const INSPECT_JOBS = 8;

/** Loads each image into a local target. Of an index, only the image for its platform is loaded. */
export function localPublisher(options: LocalPublisherOptions): Publisher {
  return {
    open: (name) => wholeImageSink((built) => loadBuilt(built, name, options)),
    finish: async () => {},
  };
}

/**
 * Finds a local target, before anything is built.
 *
 * @throws {KoError} If there is no such daemon or cluster, or it does not answer.
 */
export async function findLocalPlace(target: LocalTarget, options: LocalPlaceOptions): Promise<LocalPlace> {
  switch (target) {
    case "daemon":
      return daemonPlace(await openDaemon(options), options);
    case "kind":
    case "k3d":
    case "minikube": {
      const [{ clusterPlatform, findCluster }, { loadIntoCluster }] = await Promise.all([
        import("./cluster.ts"),
        import("./cluster-load.ts"),
      ]);
      const cluster = await findCluster(target, options);
      if (cluster.kind === "minikube" && cluster.dockerEnv !== undefined) {
        const host = { ...options.host, env: cluster.dockerEnv };
        return daemonPlace(await openDaemon({ ...options, host }), options);
      }
      return {
        platform: () => clusterPlatform(cluster, options),
        load: async (image, names) => {
          await loadIntoCluster(cluster, [{ image, names }], options);
          return "loaded";
        },
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    }
  }
}

/** Connects to the daemon of the environment, of the Docker context, or of a well-known socket. */
export async function openDaemon({ host, log, signal }: LocalPlaceOptions): Promise<DockerEngine> {
  const [{ findDaemon }, { DockerEngine }] = await Promise.all([import("./docker-host.ts"), import("./docker.ts")]);
  return DockerEngine.open(await findDaemon(host), { log, signal });
}

/**
 * Loads an image into the daemon under all `names`.
 *
 * @param names full references with a tag; the first is the content tag (`ko.local/app:<hex of the manifest's digest>`)
 * @throws {KoError} If the daemon refuses the image. A new name is removed again then.
 */
export async function loadImage(
  engine: DockerEngine,
  image: Image,
  names: readonly string[],
  options: LoadImageOptions,
): Promise<LoadResult> {
  const { signal } = options;
  const [content] = names;
  if (content === undefined) throw new RangeError("an image is loaded under at least one name");
  const kind = await engine.storeKind();
  const named = await engine.inspectImage(content);
  const isNamed = named !== undefined && isOurs(named, image);
  const isPresent = isNamed || (kind !== "containerd" && (await hasConfiguration(engine, image)));
  if (!isPresent) await send(engine, { ...options, image, content, kind, isNew: named === undefined });
  const source = isNamed || !isPresent ? content : image.manifest.config.digest;
  for (const name of names) {
    signal.throwIfAborted();
    if (name === source) continue;
    const { tag, ...repository } = parseReference(name);
    if (tag === undefined) throw new RangeError(`no tag in ${name}`);
    await engine.tagImage(source, { repository: formatRepository(repository), tag });
  }
  if (isNamed) return "present";
  return isPresent ? "tagged" : "loaded";
}

async function loadBuilt(built: Built, name: string, options: LocalPublisherOptions): Promise<Published> {
  const { log, tags, timing } = options;
  const place = await options.place;
  const image = built.kind === "image" ? built : pickImage(built, await place.platform());
  if (built.kind === "index") {
    const { os, architecture } = image.config;
    log.warn(`${name}: of ${built.children.length} platforms only ${os}/${architecture} is loaded`);
  }
  const { digest } = image.descriptor;
  const content = `${name}:${hexOf(digest)}`;
  const reference = tags.only ? publishedReference(name, { digest, tags }) : content;
  const names = [content, ...tags.names.map((tag) => `${name}:${tag}`)];
  const done = await timing.time("load", { text: name, image: name }, () => place.load(image, names));
  const verb = { present: "Already there:", tagged: "Tagged", loaded: "Loaded" }[done];
  log.info(`${verb} ${reference}`);
  // The default tag is no news.
  const others = names.slice(1).filter((other) => other !== reference && tags.names.join() !== "latest");
  for (const other of others) log.info(`Tagged ${other}`);
  return { reference, all: [reference], ...(done === "loaded" ? {} : { wasThere: true }) };
}

/** Returns the image of an index for the target's platform. */
function pickImage(built: Extract<Built, { kind: "index" }>, own: Platform): Image {
  const at = built.index.manifests.findIndex(
    ({ platform }) => platform?.os === own.os && platform.architecture === own.architecture,
  );
  const image = built.children[at];
  if (image !== undefined) return image;
  const wanted = `${own.os}/${own.architecture}`;
  const has = built.index.manifests.map(({ platform }) => (platform === undefined ? "?" : formatPlatform(platform)));
  throw new KoError(`Cannot load for ${wanted}: the image is for ${has.join(", ")}`, {
    hint: `Add ${wanted} to --platform.`,
  });
}

function daemonPlace(engine: DockerEngine, { log, signal }: LocalPlaceOptions): LocalPlace {
  return {
    platform: () => engine.platform(),
    load: (image, names) => loadImage(engine, image, names, { log, signal }),
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

/** Compares IDs: the configuration's digest, or the manifest's digest in a containerd store. */
function isOurs(found: EngineImage, image: Image): boolean {
  const isId = found.id === image.manifest.config.digest || found.id === image.descriptor.digest;
  const isSame = found.diffIds.join() === image.layers.map(({ diffId }) => diffId).join();
  return isId && isSame && found.isComplete;
}

async function hasConfiguration(engine: DockerEngine, image: Image): Promise<boolean> {
  const found = await engine.inspectImage(image.manifest.config.digest);
  return found !== undefined && isOurs(found, image);
}

interface SendOptions extends LoadImageOptions {
  readonly image: Image;
  readonly content: string;
  readonly kind: StoreKind;
  /** Whether the content tag is new. */
  readonly isNew: boolean;
}

async function send(engine: DockerEngine, options: SendOptions): Promise<void> {
  const { image, content, kind, log, signal } = options;
  try {
    const omit = kind === "classic" ? await knownLayers(engine, options) : new Set<Digest>();
    try {
      await sendWithout(engine, omit, options);
    } catch (error) {
      // Another process removed the image that had the layers.
      if (omit.size === 0 || !(error instanceof DaemonRefusal) || !/no such file/i.test(error.reason)) throw error;
      log.debug(`${messageOf(error)}; sending all layers`);
      await sendWithout(engine, new Set(), options);
    }
    signal.throwIfAborted();
    const found = await engine.inspectImage(content);
    if (found !== undefined && isOurs(found, image)) return;
    const is =
      found === undefined
        ? "the name is not there"
        : found.isComplete
          ? `the name stands for ${found.id} with the layers ${found.diffIds.join(", ")}`
          : `parts of ${found.id} are missing`;
    throw new KoError(`Cannot trust ${engine.name}: it said that it loaded "${content}", but ${is}`, {
      transient: true,
    });
  } catch (error) {
    // A containerd store names the image before it has unpacked it.
    if (options.isNew) {
      await engine.removeTag(content, { bestEffort: true }).catch((failure: unknown) => log.debug(messageOf(failure)));
    }
    throw error;
  }
}

async function sendWithout(engine: DockerEngine, omit: ReadonlySet<Digest>, options: SendOptions): Promise<void> {
  const { image, content, signal } = options;
  const archive = packArchive([{ image, names: [content] }], { omit, signal });
  await engine.loadArchive(archive, { expect: content, signal });
}

/**
 * Finds the layers that a classic store reads from its own images: those on top of the same layers as in our image. A layer
 * with the same digest on other layers does not count (docs/rules.md C2.11).
 */
async function knownLayers(
  engine: DockerEngine,
  { image, content, log }: Pick<SendOptions, "image" | "content" | "log">,
): Promise<ReadonlySet<Digest>> {
  const wanted = image.layers.map(({ diffId }) => diffId);
  const { tag: _, digest: __, ...repository } = parseReference(content);
  const near = `${formatRepository(repository)}:`;
  const isNear = (tags: readonly string[]): boolean => tags.some((tag) => tag.startsWith(near));
  // The last builds of the same program share most layers, so they come first and make most inspections needless.
  const all = [...(await engine.listImages())].sort(
    (a, b) => Number(isNear(b.tags)) - Number(isNear(a.tags)) || b.created - a.created,
  );
  const limit = createLimit(INSPECT_JOBS);
  let known = 0;
  await Promise.all(
    all.slice(0, MAX_INSPECTED).map(({ id }) =>
      limit(async () => {
        if (known >= wanted.length - 1) return;
        const found = await engine.inspectImage(id);
        if (found !== undefined) known = Math.max(known, sharedLength(found.diffIds, wanted));
      }),
    ),
  );
  log.debug(`${engine.name} has ${known} of the ${wanted.length} layers of "${content}"`);
  const needed = new Set(image.layers.slice(known).map(({ descriptor }) => descriptor.digest));
  const digests = image.layers.slice(0, known).map(({ descriptor }) => descriptor.digest);
  return new Set(digests.filter((digest) => !needed.has(digest)));
}

/** The number of first items that are equal. */
function sharedLength(a: readonly Digest[], b: readonly Digest[]): number {
  const end = b.findIndex((item, i) => a[i] !== item);
  return end < 0 ? b.length : end;
}
