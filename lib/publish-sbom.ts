/**
 * Publishes SBOMs: pushes them beside their image, and writes them into the folder of `--sbom-dir`.
 *
 * The documents are made in sbom.ts. Rules: docs/rules.md A9.
 */
import { access, constants, mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { KoError, UsageError } from "./errors.ts";
import { writeOutputFile } from "./file.ts";
import { appName, type Image } from "./image.ts";
import type { Log } from "./log.ts";
import type { Digest } from "./oci.ts";
import { type PushTarget, pushContent } from "./publish.ts";
import { formatRepository, parseRepository, type Repository } from "./reference.ts";
import { makeSbomImage, type Sbom, sbomTag } from "./sbom.ts";

export interface PushSbomOptions {
  readonly registry: PushTarget;
  /** The reference of the published image, for the error. */
  readonly image: string;
  /** Where the SBOMs go: the image's repository, or that of {@link findSbomRepository}. */
  readonly repository: Repository;
  readonly log: Log;
}

export interface WriteSbomOptions {
  readonly importPath: string;
  readonly cwd: string;
  readonly log: Log;
}

/**
 * Pushes the SBOMs of one program after its image was published, unless the registry has them.
 *
 * The last SBOM is that of the whole, and is pushed last: if the registry has it, one HEAD request is all.
 *
 * @param sboms those of `makeSboms()`
 * @returns a reference for each
 * @throws {KoError} If the registry refuses one. The image stays published.
 */
export async function pushSbom(sboms: readonly Sbom[], options: PushSbomOptions): Promise<readonly string[]> {
  const { image, log, registry, repository } = options;
  const [last, ...others] = sboms.toReversed();
  if (last === undefined) return [];
  const push = async (subject: Digest, sbom: Image): Promise<void> => {
    await pushContent(registry, repository, sbom);
    await registry.pushManifest(repository, sbomTag(subject), sbom);
  };
  try {
    const whole = makeSbomImage(last.document);
    const existing = await registry.findManifest(repository, sbomTag(last.subject), { push: true });
    if (existing?.digest !== whole.descriptor.digest) {
      await Promise.all(others.map(({ document, subject }) => push(subject, makeSbomImage(document))));
      await push(last.subject, whole);
    }
  } catch (cause) {
    if (!(cause instanceof KoError)) throw cause;
    throw new KoError(`Cannot publish the SBOM of ${image}: the image is published, its SBOM is not`, {
      cause,
      hint: "Use --sbom=none to publish images without an SBOM.",
    });
  }
  const references = sboms.map(({ subject }) => `${formatRepository(repository)}:${sbomTag(subject)}`);
  for (const reference of references) log.info(`Published SBOM ${reference}`);
  return references;
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
