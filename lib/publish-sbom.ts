/**
 * Publishes SBOMs: pushes them beside their image, and writes them into the folder of `--sbom-dir`.
 *
 * The documents are made in sbom.ts. Rules: docs/rules.md A9.
 */
import { access, constants, mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { KoError, UsageError } from "./errors.ts";
import { writeOutputFile } from "./file.ts";
import { appName, type Built } from "./image.ts";
import type { Log } from "./log.ts";
import type { Digest } from "./oci.ts";
import { type PushTarget, pushContent } from "./publish.ts";
import { formatRepository, parseRepository, type Repository } from "./reference.ts";
import { makeSbomImage, type Sbom, sbomTag } from "./sbom.ts";

export interface PushSbomOptions {
  readonly registry: PushTarget;
  /** Where the SBOMs go: the image's repository, or that of {@link findSbomRepository}. */
  readonly repository: Repository;
  /** The reference of the published image, for the error. */
  readonly reference: string;
  readonly log: Log;
  /** Makes the documents: `makeSboms()`. Not called if the registry has the SBOM `known`. */
  readonly make: () => Promise<readonly Sbom[]>;
  /** The digest that an earlier run of this ko returned for the same image. */
  readonly known?: Digest | undefined;
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
  const subjects = built.kind === "image" ? [built] : [...built.children, built];
  const references = subjects.map((subject) => {
    return `${formatRepository(repository)}:${sbomTag(subject.descriptor.digest)}`;
  });
  for (const pushed of references) log.info(`Published SBOM ${pushed}`);
  return { references, digest };
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

/** Returns the digest of the SBOM of `subject`. */
async function pushMissing(subject: Digest, options: PushSbomOptions): Promise<Digest> {
  const { known, make, registry, repository } = options;
  const existing = await registry.findManifest(repository, sbomTag(subject), { push: true });
  if (existing !== undefined && existing.digest === known) return existing.digest;
  const images = (await make()).map((sbom) => ({ tag: sbomTag(sbom.subject), image: makeSbomImage(sbom.document) }));
  const whole = images.pop();
  if (whole === undefined) throw new RangeError("an image without an SBOM");
  const { digest } = whole.image.descriptor;
  if (existing?.digest === digest) return digest;
  const push = async ({ image, tag }: typeof whole): Promise<void> => {
    await pushContent(registry, repository, image);
    await registry.pushManifest(repository, tag, image);
  };
  await Promise.all(images.map(push));
  await push(whole);
  return digest;
}
