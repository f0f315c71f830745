/**
 * An image into a daemon: sent only where the daemon lacks it, verified, then named.
 *
 * The image arrives under its content tag alone; the other names follow when it is known to be there, so that no name
 * ever stands for half an image. Rules: wire.md C2.5, C2.6, C2.11-C2.14.
 */
import { packArchive } from "./archive.ts";
import type { DockerEngine, EngineImage, StoreKind } from "./docker.ts";
import { DaemonRefusal } from "./dockerfailure.ts";
import { KoError, messageOf } from "./errors.ts";
import { createLimit } from "./host.ts";
import type { Image } from "./image.ts";
import type { Log } from "./log.ts";
import type { Digest } from "./oci.ts";
import { formatRepository, parseReference } from "./reference.ts";

export interface LoadImageOptions {
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Images of the daemon that are looked into for layers, at most. */
const MAX_INSPECTED = 400;
const INSPECT_JOBS = 8;

/**
 * Makes `image` known to the daemon under all `names`.
 *
 * @param names full references with a tag; the first is the content tag (`ko.local/app:<hex of the manifest's digest>`)
 * @returns "present" if nothing had to be sent
 * @throws {KoError} If the daemon does not take it. A name that was not there before is not there then either.
 */
export async function loadImage(
  engine: DockerEngine,
  image: Image,
  names: readonly string[],
  options: LoadImageOptions,
): Promise<"present" | "loaded"> {
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
  return isPresent ? "present" : "loaded";
}

/** The ID is the configuration's digest, in a containerd store the manifest's. */
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
  /** True if nothing had that name before. */
  readonly isNew: boolean;
}

async function send(engine: DockerEngine, options: SendOptions): Promise<void> {
  const { image, content, kind, log, signal } = options;
  try {
    const omit = kind === "classic" ? await knownLayers(engine, options) : new Set<Digest>();
    try {
      await sendWithout(engine, omit, options);
    } catch (error) {
      // Somebody removed the image that had the layers.
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
    throw new KoError(`Cannot trust ${engine.name}: it said that it loaded "${content}", but ${is}`);
  } catch (error) {
    // A containerd store names the image before it has unpacked it.
    if (options.isNew) {
      await engine.removeTag(content, { farewell: true }).catch((failure: unknown) => log.debug(messageOf(failure)));
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
 * The layers whose bytes a classic store does not look at: those it has on top of the same layers as in our image.
 * Another image's layer with the same digest on something else does not count (wire.md C2.11).
 */
async function knownLayers(
  engine: DockerEngine,
  { image, content, log }: Pick<SendOptions, "image" | "content" | "log">,
): Promise<ReadonlySet<Digest>> {
  const wanted = image.layers.map(({ diffId }) => diffId);
  const { tag: _, digest: __, ...repository } = parseReference(content);
  const near = `${formatRepository(repository)}:`;
  const isNear = (tags: readonly string[]): boolean => tags.some((tag) => tag.startsWith(near));
  // The last builds of the same program share most: they come first, and make most lookups needless.
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

/** How many first items are the same. */
function sharedLength(a: readonly Digest[], b: readonly Digest[]): number {
  const end = b.findIndex((item, i) => a[i] !== item);
  return end < 0 ? b.length : end;
}
