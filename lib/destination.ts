/**
 * Where a run publishes to: read from flags and `KO_DOCKER_REPO`, checked before anything is built.
 */
import { access, constants, realpath, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { UsageError } from "./errors.ts";
import type { BuildOptions, Naming } from "./options.ts";
import { DOCKER_HUB, splitHost, whyBadHost, whyBadPath } from "./reference.ts";

export interface Destination {
  /** `KO_DOCKER_REPO`, or empty where nothing is pushed. */
  readonly repository: string;
  readonly naming: Naming;
  /** Each once, in the order given; at least one if `push`. */
  readonly tags: readonly string[];
  readonly tagOnly: boolean;
  readonly push: boolean;
  /** As the user wrote it. */
  readonly layoutPath: string | undefined;
  /** Absolute. */
  readonly imageRefs: string | undefined;
  /** Hosts to which plain HTTP and unverified TLS are allowed. */
  readonly insecureHosts: readonly string[];
}

export interface PlanDestinationOptions {
  readonly dockerRepo: string | undefined;
  readonly cwd: string;
}

/**
 * @throws {UsageError} If there is nowhere to publish to, a name is none, or a file could not be written later.
 */
export async function planDestination(flags: BuildOptions, options: PlanDestinationOptions): Promise<Destination> {
  const { layoutPath } = flags;
  const repository = (options.dockerRepo ?? "").replace(/\/+$/, "");
  const push = flags.push && (repository !== "" || layoutPath === undefined || flags.pushGiven);
  if (push && repository === "") {
    throw new UsageError("Cannot publish: KO_DOCKER_REPO is not set, so there is no registry to push to", {
      hint:
        "export KO_DOCKER_REPO=registry.example.com/me   to push to a registry\n" +
        "ko build --oci-layout-path DIR …                to write an OCI layout, without a registry\n" +
        "ko build --push=false …                         to build only",
    });
  }
  if (repository !== "") checkRepository(repository);
  const imageRefs = flags.imageRefs === undefined ? undefined : resolve(options.cwd, flags.imageRefs);
  if (imageRefs !== undefined) await checkWritableFile(imageRefs, "--image-refs");
  if (layoutPath !== undefined) await checkWritableFolder(resolve(options.cwd, layoutPath), "--oci-layout-path");
  const host = repository === "" ? undefined : (splitHost(`${repository}/x`).host ?? DOCKER_HUB);
  return {
    repository,
    naming: flags.naming,
    tags: flags.tags,
    tagOnly: flags.tagOnly,
    push,
    layoutPath,
    imageRefs,
    insecureHosts: flags.insecureRegistry && host !== undefined ? [host] : [],
  };
}

/** `KO_DOCKER_REPO` is a host (`localhost:5000`) or a repository (`gcr.io/me`, or `me` on Docker Hub). */
function checkRepository(repository: string): void {
  if (repository.includes("@")) {
    // Not quoted: what stands before the "@" may be a password.
    throw new UsageError(
      'Cannot use KO_DOCKER_REPO: it holds an "@", a name without user, password or digest is wanted',
      {
        hint: "Credentials belong into the Docker config file: docker login HOST",
      },
    );
  }
  const fail = (why: string, hint?: string): UsageError =>
    new UsageError(`Cannot use KO_DOCKER_REPO="${repository}": ${why}`, { hint });
  if (/^[a-z]+:\/\//i.test(repository)) {
    throw fail(
      "it is a URL, a name without scheme is wanted",
      `export KO_DOCKER_REPO=${repository.replace(/^[a-z]+:\/\//i, "")}`,
    );
  }
  const { host, path } = splitHost(`${repository}/x`);
  const own = path === "x" ? "" : path.slice(0, -2);
  const why = (host === undefined ? undefined : whyBadHost(host)) ?? (own === "" ? undefined : whyBadPath(own));
  if (why !== undefined) throw fail(why);
  if (host === "ko.local" || host === "kind.local" || repository === "ko.local" || repository === "kind.local") {
    throw fail(
      "this version of ko does not load images into a daemon or a cluster",
      "ko build --oci-layout-path DIR …",
    );
  }
}

async function checkWritableFile(path: string, flag: string): Promise<void> {
  const fail = (why: string): UsageError => new UsageError(`Cannot write ${flag} "${path}": ${why}`);
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) throw fail("it is a folder");
  // A device or a pipe is written to, not replaced.
  if (found !== undefined && !found.isFile()) return;
  const folder = dirname(await realpath(path).catch(() => path));
  const parent = await stat(folder).catch(() => undefined);
  if (!parent?.isDirectory()) throw fail(`the folder ${folder} does not exist`);
  await access(folder, constants.W_OK).catch(() => {
    throw fail(`the folder ${folder} cannot be written to`);
  });
}

async function checkWritableFolder(path: string, flag: string): Promise<void> {
  const fail = (why: string): UsageError => new UsageError(`Cannot write ${flag} "${path}": ${why}`);
  for (let folder = path; ; folder = dirname(folder)) {
    const found = await stat(folder).catch(() => undefined);
    if (found === undefined && folder !== dirname(folder)) continue;
    if (!found?.isDirectory()) throw fail(`${folder} is no folder`);
    await access(folder, constants.W_OK).catch(() => {
      throw fail(`the folder ${folder} cannot be written to`);
    });
    return;
  }
}
