/**
 * Publishes SBOMs: pushes them beside their image, writes them into the folder of `--sbom-dir`, or into the OCI layout of
 * the images.
 *
 * The documents are made in sbom.ts, which a run that makes none does not load. Rules: docs/rules.md A9.
 */
import { access, constants, mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { inBackground } from "./async.ts";
import { keyOf, type RunContext } from "./cache.ts";
import { KoError, KoErrors, UsageError } from "./errors.ts";
import { writeOutputFile } from "./file.ts";
import { appName, type Built, type PublishHint } from "./image.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";
import { type Digest, hexOf, isDigest } from "./oci.ts";
import type { SbomPlan } from "./publish-destination.ts";
import { type Publisher, type PushTarget, pushContent } from "./publish.ts";
import { formatRepository, parseRepository, type Repository } from "./reference.ts";
import type { Sbom } from "./sbom.ts";

export interface SbomPublisherOptions {
  readonly context: RunContext;
  readonly plan: SbomPlan;
  /** Undefined if SBOMs are not pushed. */
  readonly registry: Promise<PushTarget> | undefined;
  /** `koVersion()` of version.ts. */
  readonly koVersion: string;
}

export interface PushSbomOptions {
  readonly registry: PushTarget;
  /** Where the SBOMs go: the image's repository, or that of {@link findSbomRepository}. */
  readonly repository: Repository;
  /** The reference of the published image, for the error. */
  readonly reference: string;
  readonly log: Log;
  /** Makes the documents: `makeSboms()`. Not called if the registry has the SBOM of an earlier run. */
  readonly make: () => Promise<readonly Sbom[]>;
  readonly earlier?: EarlierSbom | undefined;
}

/** The SBOM that an earlier run of this ko pushed for the same image. */
export interface EarlierSbom {
  readonly digest: Digest;
  /** The digest that its tag has now; undefined if the registry has no such tag. */
  readonly current: Promise<Digest | undefined>;
}

export interface PushedSbom {
  /** The SBOM of each image, and last of the index. */
  readonly references: readonly string[];
  /** The digest of the manifest of the last one. */
  readonly digest: Digest;
}

export interface WriteSbomOptions {
  readonly importPath: string;
  readonly cwd: string;
  readonly log: Log;
}

/**
 * Adds SBOMs to the images that a publisher publishes.
 *
 * Files of `--sbom-dir` are written before the image is published, all others after it. Pushes go on beside those of other
 * images: `finish()` waits for them and reports refusals, so that a refused SBOM ends no push of an image.
 *
 * @throws {UsageError} If SBOMs are pushed, and `COSIGN_REPOSITORY` is not the name of a repository.
 */
export function sbomPublisher(publisher: Publisher, options: SbomPublisherOptions): Publisher {
  const { context, plan, registry } = options;
  const { host, log, timing } = context;
  const shared = registry === undefined ? undefined : findSbomRepository(host.env);
  const pushes: Promise<void>[] = [];
  return {
    open: (name) => {
      const sink = publisher.open(name);
      return {
        addLayer: (layer, hint) => sink.addLayer(layer, hint),
        store: async (built) => sink.store?.(built),
        publish: async (built, hint) => {
          const { importPath } = hint;
          const { dir, layout } = plan;
          const timed = (work: () => Promise<void>): Promise<void> =>
            timing.time("sbom", { text: importPath, importPaths: [importPath] }, work);
          let made: Promise<readonly Sbom[]> | undefined;
          const make = (): Promise<readonly Sbom[]> => (made ??= makeDocuments(built, hint, options));
          if (dir !== undefined) {
            await timed(async () => writeSbom(dir, await make(), { importPath, cwd: host.cwd, log }));
          }
          const repository = shared ?? parseRepository(name);
          // The registry is asked for both tags at the same time, the image's and the SBOM's.
          const memory = registry && recallSbom(built, { ...options, registry, repository });
          // No earlier run has the SBOM of a new image: it is made while the image is pushed.
          if (registry !== undefined && !hint.reused) void inBackground(make());
          const published = await sink.publish(built, hint);
          if (layout !== undefined) {
            await timed(async () => addToLayout(layout, await make(), { context, name }));
          }
          if (registry !== undefined && memory !== undefined) {
            const { reference } = published;
            const push = async (): Promise<void> => {
              const to = { registry: await registry, repository, reference };
              const { references, digest } = await pushSbom(built, { ...to, log, make, earlier: memory.earlier });
              if (digest !== memory.earlier?.digest) context.cache?.write("sbom", memory.key, { digest });
              timing.report({ type: "sbom", importPath, references });
            };
            pushes.push(inBackground(timed(push)));
          }
          return published;
        },
      };
    },
    finish: async () => {
      await publisher.finish();
      await waitForAll(pushes);
    },
  };
}

/**
 * Pushes the SBOMs of an image after the image was published, unless the registry has them.
 *
 * The SBOM of an index is pushed after those of its images: if the registry has it, one HEAD request is all.
 *
 * @throws {KoError} If an SBOM cannot be made, or the registry refuses it. The image stays published.
 */
export async function pushSbom(built: Built, options: PushSbomOptions): Promise<PushedSbom> {
  const { log, reference, repository } = options;
  let digest: Digest;
  try {
    digest = await pushMissing(built.descriptor.digest, options);
  } catch (cause) {
    if (!(cause instanceof KoError)) throw cause;
    throw new KoError(`Cannot publish the SBOM of ${reference}: the image is published, its SBOM is not`, {
      cause,
      hint: "Use --sbom=none to publish images without an SBOM.",
    });
  }
  const references = sbomReferences(built, repository);
  for (const pushed of references) log.info(`Published SBOM ${pushed}`);
  return { references, digest };
}

/** Returns the tag under which the SBOM of an image or index is found. */
export function sbomTag(subject: Digest): string {
  return `sha256-${hexOf(subject)}.sbom`;
}

/** The references of the SBOMs of an image, or of an index's images and then its own. */
function sbomReferences(built: Built, repository: Repository): readonly string[] {
  const subjects = built.kind === "image" ? [built] : [...built.children, built];
  return subjects.map(({ descriptor: { digest } }) => `${formatRepository(repository)}:${sbomTag(digest)}`);
}

/**
 * Returns the repository of `COSIGN_REPOSITORY`, in which cosign looks for SBOMs; undefined if it is not set.
 *
 * @throws {UsageError} If it is not the name of a repository.
 */
export function findSbomRepository(env: Readonly<Record<string, string>>): Repository | undefined {
  const text = env["COSIGN_REPOSITORY"] ?? "";
  if (text === "") return undefined;
  try {
    return parseRepository(text);
  } catch (cause) {
    throw new UsageError(`Cannot use COSIGN_REPOSITORY "${text}"`, { cause });
  }
}

/**
 * Checks `--sbom-dir` before anything is built, and makes the folder.
 *
 * @param dir as the user wrote it
 * @param options.importPaths those of all programs of the run
 * @throws {UsageError} If the folder cannot be made or written to, or the files of two programs have one name.
 */
export async function prepareSbomDir(
  dir: string,
  { cwd, importPaths }: { readonly cwd: string; readonly importPaths: readonly string[] },
): Promise<void> {
  const owners = new Map<string, string>();
  for (const importPath of importPaths) {
    const app = appName(importPath);
    const owner = owners.get(app) ?? importPath;
    owners.set(app, owner);
    if (owner === importPath) continue;
    throw new UsageError(
      `Cannot write the SBOMs of ${owner} and ${importPath} to --sbom-dir "${dir}": both files begin with "${app}"`,
      { hint: "Build them one at a time, each with a --sbom-dir of its own." },
    );
  }
  try {
    await mkdir(resolve(cwd, dir), { recursive: true });
    await access(resolve(cwd, dir), constants.W_OK);
  } catch (cause) {
    throw new UsageError(`Cannot write to --sbom-dir "${dir}"`, { cause });
  }
}

/**
 * Writes the SBOMs of one program into a folder, each file in one step: `web-linux-arm64.spdx.json`,
 * `web-index.spdx.json`.
 *
 * @param dir the folder, as the user wrote it. It is made if it is missing, with its parents.
 * @throws {KoError} If a file cannot be written.
 */
export async function writeSbom(dir: string, sboms: readonly Sbom[], options: WriteSbomOptions): Promise<void> {
  const { cwd, importPath, log } = options;
  const folder = resolve(cwd, dir);
  try {
    await mkdir(folder, { recursive: true });
  } catch (cause) {
    throw new KoError(`Cannot write to --sbom-dir "${dir}"`, { cause });
  }
  for (const { document, name } of sboms) {
    const file = `${appName(importPath)}-${name}.spdx.json`;
    log.info(`Writing SBOM to ${join(dir, file)}`);
    await writeOutputFile(join(folder, file), new TextDecoder().decode(document), "--sbom-dir");
  }
}

/** Reads the build information of the programs. @throws {KoError} If a file is not a Go program. */
async function makeDocuments(
  built: Built,
  { contents, reused }: PublishHint,
  { context, koVersion }: Pick<SbomPublisherOptions, "context" | "koVersion">,
): Promise<readonly Sbom[]> {
  const [{ readBuildInfo }, { makeSboms }] = await Promise.all([import("./go-buildinfo.ts"), import("./sbom.ts")]);
  try {
    const read = contents.map(async ({ files, platform }) => {
      return { platform, programs: await Promise.all(files.map(readBuildInfo)) };
    });
    return makeSboms(built, { contents: await Promise.all(read), koVersion });
  } catch (error) {
    // The program was in order when it was stored: another process has changed it in place.
    if (reused && error instanceof KoError) context.cache?.reportDamage(error.message);
    throw error;
  }
}

/** @throws {KoErrors} If several fail. */
async function waitForAll(pushes: readonly Promise<void>[]): Promise<void> {
  const failures = (await Promise.allSettled(pushes)).flatMap((result): readonly unknown[] => {
    return result.status === "rejected" ? [result.reason] : [];
  });
  if (failures.length === 0) return;
  const errors = failures.filter((failure) => failure instanceof KoError);
  // A bug or an interruption is no refusal.
  if (errors.length < failures.length) throw failures.find((failure) => !(failure instanceof KoError));
  throw errors.length === 1 ? errors[0] : new KoErrors(errors);
}

interface RecallOptions extends Pick<SbomPublisherOptions, "context" | "koVersion"> {
  readonly registry: Promise<PushTarget>;
  readonly repository: Repository;
}

/**
 * Finds the record of the SBOM that an earlier run pushed, and begins to ask the registry for it.
 *
 * @returns `key` is that of the record, which may be missing
 */
function recallSbom(
  built: Built,
  { context: { cache }, koVersion, registry, repository }: RecallOptions,
): { readonly key: string; readonly earlier: EarlierSbom | undefined } {
  const subject = built.descriptor.digest;
  const key = keyOf([subject, koVersion, formatRepository(repository)]);
  const record = cache?.read("sbom", key);
  const digest = isObject(record) ? record["digest"] : undefined;
  if (typeof digest !== "string" || !isDigest(digest)) return { key, earlier: undefined };
  const ask = async (): Promise<Digest | undefined> => findSbom(subject, { registry: await registry, repository });
  return { key, earlier: { digest, current: inBackground(ask()) } };
}

/** Stores the SBOMs under the names that they would have in a registry. */
async function addToLayout(
  path: string,
  sboms: readonly Sbom[],
  { context, name }: { readonly context: RunContext; readonly name: string },
): Promise<void> {
  const { host, log } = context;
  const [{ writeToLayout }, { makeSbomImage }] = await Promise.all([import("./layout.ts"), import("./sbom.ts")]);
  const items = sboms.map(({ document, subject }) => {
    return { built: makeSbomImage(document), name: `${name}:${sbomTag(subject)}` };
  });
  await writeToLayout(resolve(host.cwd, path), items, { signal: host.signal });
  for (const item of items) log.info(`Saved SBOM ${item.name} in ${path}`);
}

/** The digest of the SBOM that a registry has of an image or index; undefined if it has none. */
async function findSbom(
  subject: Digest,
  { registry, repository }: Pick<PushSbomOptions, "registry" | "repository">,
): Promise<Digest | undefined> {
  return (await registry.findManifest(repository, sbomTag(subject), { push: true }))?.digest;
}

/** Returns the digest of the SBOM of `subject`. */
async function pushMissing(subject: Digest, options: PushSbomOptions): Promise<Digest> {
  const { earlier, make, registry, repository } = options;
  const current = await (earlier?.current ?? findSbom(subject, { registry, repository }));
  if (current !== undefined && current === earlier?.digest) return current;
  const { makeSbomImage } = await import("./sbom.ts");
  const images = (await make()).map((sbom) => ({ tag: sbomTag(sbom.subject), image: makeSbomImage(sbom.document) }));
  const whole = images.pop();
  if (whole === undefined) throw new RangeError("an image without an SBOM");
  const { digest } = whole.image.descriptor;
  if (current === digest) return digest;
  const push = async ({ image, tag }: typeof whole): Promise<void> => {
    await pushContent(registry, { repository, built: image });
    await registry.pushManifest(repository, tag, image);
  };
  await Promise.all(images.map(push));
  await push(whole);
  return digest;
}
