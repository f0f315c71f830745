/**
 * Where a run publishes to: read from flags and `KO_DOCKER_REPO`, checked before anything is built.
 */
import { access, constants, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { BuildOptions } from "./cli-options.ts";
import type { Compression } from "./compress.ts";
import { UsageError } from "./errors.ts";
import { checkWritableFile } from "./file.ts";
import { DOCKER_HUB, splitHost, whyBadHost, whyBadPath, type Naming } from "./reference.ts";

/** Where images go to be run from. */
export type Target = "registry" | LocalTarget;

/** A place on this machine that keeps images under tags, one platform each, and takes layers as plain tars. */
export type LocalTarget = "daemon" | "kind" | "k3d" | "minikube";

export interface Destination {
  /** Where images go besides files; undefined where they go nowhere. */
  readonly target: Target | undefined;
  /** What names begin with: `KO_DOCKER_REPO` or `ko.local`; empty where there is nothing to begin with. */
  readonly repository: string;
  readonly naming: Naming;
  /** Each once, in the order given; at least one if there is a target. */
  readonly tags: readonly string[];
  readonly tagOnly: boolean;
  /** As the user wrote it. */
  readonly layoutPath: string | undefined;
  /** Absolute, or `-` for stdout. */
  readonly tarball: string | undefined;
  /** Absolute, or `-` for stdout. */
  readonly ociArchive: string | undefined;
  /** Absolute. */
  readonly imageRefs: string | undefined;
  /** Hosts to which plain HTTP and unverified TLS are allowed. */
  readonly insecureHosts: readonly string[];
  /** Of the layers that go there: as asked for, but none for a local target, unless files get the same image. */
  readonly compression: Compression;
  /** What the user should know of the choice of places, to be logged. */
  readonly warnings: readonly string[];
}

export interface PlanDestinationOptions {
  readonly dockerRepo: string | undefined;
  readonly cwd: string;
}

/** Hosts that are no registries; each is told by the whole host name. */
const LOCAL_HOSTS: Readonly<Record<string, LocalTarget>> = {
  "ko.local": "daemon",
  "kind.local": "kind",
  "k3d.local": "k3d",
  "minikube.local": "minikube",
};

/**
 * @throws {UsageError} If there is nowhere to publish to, a name is none, or a file could not be written later.
 */
export async function planDestination(flags: BuildOptions, options: PlanDestinationOptions): Promise<Destination> {
  const { layoutPath } = flags;
  const repository = flags.local ? "ko.local" : (options.dockerRepo ?? "").replace(/\/+$/, "");
  const toFile = layoutPath !== undefined || flags.tarball !== undefined || flags.ociArchive !== undefined;
  const local = LOCAL_HOSTS[splitHost(`${repository}/x`).host ?? ""];
  // As in the original, --push=false is about registries: what is asked for by -L or ko.local is loaded all the same.
  const publishes = local !== undefined || (flags.push && (repository !== "" || !toFile || flags.pushGiven));
  if (publishes && repository === "") {
    throw new UsageError("Cannot publish: KO_DOCKER_REPO is not set, so there is no registry to push to", {
      hint:
        "export KO_DOCKER_REPO=registry.example.com/me   to push to a registry\n" +
        "ko … -L                                         to load into the local Docker or podman daemon\n" +
        "ko … --oci-layout-path DIR                      to write an OCI layout, without a registry",
    });
  }
  if (repository !== "") checkRepository(repository);
  const file = async (path: string | undefined, flag: string): Promise<string | undefined> => {
    if (path === undefined || path === "-") return path;
    const absolute = resolve(options.cwd, path);
    await checkWritableFile(absolute, flag);
    return absolute;
  };
  if (flags.tarball === "-" && flags.ociArchive === "-") {
    throw new UsageError("Cannot write --tarball and --oci-archive both to stdout: one of them is wanted");
  }
  const imageRefs = flags.imageRefs === undefined ? undefined : resolve(options.cwd, flags.imageRefs);
  if (imageRefs !== undefined) await checkWritableFile(imageRefs, "--image-refs");
  if (layoutPath !== undefined) await checkWritableFolder(resolve(options.cwd, layoutPath), "--oci-layout-path");
  const host = repository === "" ? undefined : (splitHost(`${repository}/x`).host ?? DOCKER_HUB);
  return {
    target: publishes ? (local ?? "registry") : undefined,
    repository,
    // What is loaded locally is named as people speak of it; the hash is there to keep registries' repositories apart.
    naming: local === "daemon" && flags.naming === "md5" ? "preserve" : flags.naming,
    tags: flags.tags,
    tagOnly: flags.tagOnly,
    layoutPath,
    tarball: await file(flags.tarball, "--tarball"),
    ociArchive: await file(flags.ociArchive, "--oci-archive"),
    imageRefs,
    insecureHosts: flags.insecureRegistry && host !== undefined && local === undefined ? [host] : [],
    ...chooseCompression(flags, { local, toFile }),
  };
}

function chooseCompression(
  flags: BuildOptions,
  { local, toFile }: { readonly local: LocalTarget | undefined; readonly toFile: boolean },
): Pick<Destination, "compression" | "warnings"> {
  const asked = flags.compression;
  const compression: Compression = local !== undefined && !toFile ? { kind: "none" } : asked;
  const warnings: string[] = [];
  if (flags.compressionGiven && compression.kind !== asked.kind) {
    warnings.push("--compression has no effect: local daemons and clusters take plain layers");
  }
  if (compression.kind === "zstd" && (local === "daemon" || flags.tarball !== undefined)) {
    warnings.push("Docker before 23 cannot load layers compressed with zstd; any can with --compression=gzip");
  }
  return { compression, warnings };
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
