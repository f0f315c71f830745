/**
 * Decides where a run publishes to, from flags and `KO_DOCKER_REPO`: checked before anything is built.
 */
import { access, constants, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { type Compression, FAST_GZIP } from "./compress.ts";
import { UsageError } from "./errors.ts";
import { checkWritableFile } from "./file.ts";
import type { Host } from "./host.ts";
import { isOffline } from "./offline.ts";
import { DOCKER_HUB, splitHost, whyBadHost, whyBadPath, type Naming } from "./reference.ts";
import { isLoopback } from "./url.ts";

/** A local daemon, or the nodes of a local cluster: keeps images under tags and takes layers as plain tars. */
export type LocalTarget = "daemon" | "kind" | "k3d" | "minikube";

export type FilePlace =
  /** An OCI layout. `path` is as the user wrote it. */
  | { readonly kind: "layout"; readonly path: string }
  /** `file` is a path, or `-` for stdout. */
  | { readonly kind: "tarball" | "oci-archive"; readonly file: string };

/** One of the places that images of a run go to. */
export type Place = { readonly kind: "registry" } | { readonly kind: LocalTarget } | FilePlace;

/** The tags that images get. */
export interface TagRule {
  /** Each once, in the order given. Empty: a push is by digest alone, and local targets get the content tag only. */
  readonly names: readonly string[];
  /** `--tag-only`: published references show no digest. For a push there is exactly one tag then, and not `latest`. */
  readonly only: boolean;
}

/** The flags that say where images go, each checked for itself. */
export interface PublishFlags {
  /** Undefined without a flag. @default md5 */
  readonly naming: Naming | undefined;
  readonly tags: TagRule;
  /** `--oci-layout-path`, `--tarball`, `--oci-archive`, in this order. Paths are as the user wrote them. */
  readonly files: readonly FilePlace[];
  readonly imageRefs: string | undefined;
  /** `--also-push`, as the user wrote it. */
  readonly also: readonly string[];
  /** Undefined without the flag: then a missing KO_DOCKER_REPO is an error only if there are no files. */
  readonly push: boolean | undefined;
  /** `-L`: into the local daemon, regardless of KO_DOCKER_REPO. */
  readonly local: boolean;
  readonly insecureRegistry: boolean;
  /** Undefined without the flag. @default {@link FAST_GZIP} */
  readonly compression: Compression | undefined;
  /** `--sbom` and `--sbom-dir`; undefined if no SBOM is wanted. */
  readonly sbom: SbomFlags | undefined;
}

export interface SbomFlags {
  /** As the user wrote it. */
  readonly dir: string | undefined;
  /** Whether the user wrote `--sbom=spdx`. */
  readonly isExplicit: boolean;
}

/** Where SBOMs go: one place at least. */
export interface SbomPlan {
  /** Into the registry of the images. */
  readonly registry: boolean;
  /** The folder of `--sbom-dir`, as the user wrote it. */
  readonly dir: string | undefined;
  /** The OCI layout of the images, as the user wrote it. */
  readonly layout: string | undefined;
}

export interface Destination {
  /** The first part of image names: `KO_DOCKER_REPO` or `ko.local`. May be empty if nothing is pushed. */
  readonly repository: string;
  readonly naming: Naming;
  readonly tags: TagRule;
  /** Files first; the reference of the last place is the one that is printed. Empty if images go nowhere. */
  readonly places: readonly Place[];
  /** Repositories that images are pushed to beside that of `repository`, as its names. */
  readonly also: readonly string[];
  /** Absolute. */
  readonly imageRefs: string | undefined;
  /** Hosts to which plain HTTP and unverified TLS are allowed. */
  readonly insecureHosts: readonly string[];
  /** Of the layers that ko makes: as the flag says, but none if all places take plain layers. */
  readonly compression: Compression;
  /** Undefined if no place takes an SBOM. */
  readonly sbom: SbomPlan | undefined;
  /** Notes about the choice of places, to be logged. */
  readonly warnings: readonly string[];
}

/** Where `KO_DOCKER_REPO` leads. */
export interface Target {
  /** Without slashes at the end. */
  readonly repository: string;
  /** `host[:port]` */
  readonly host: string;
  /** Undefined for a registry. */
  readonly local: LocalTarget | undefined;
}

export interface PlanDestinationOptions {
  readonly dockerRepo: string | undefined;
  /** What the configuration says of names and SBOMs. @default nothing */
  readonly places?: {
    readonly naming?: { readonly value: Naming } | undefined;
    readonly sbom?: { readonly value: "spdx" | "none" } | undefined;
  };
  readonly cwd: string;
  readonly env: Host["env"];
}

/** Host names that stand for local targets. */
const LOCAL_HOSTS: Readonly<Record<string, LocalTarget>> = {
  "ko.local": "daemon",
  "kind.local": "kind",
  "k3d.local": "k3d",
  "minikube.local": "minikube",
};

/**
 * Combines the flags with `KO_DOCKER_REPO`.
 *
 * @throws {UsageError} If there is no place to publish to, a name is malformed, or a file could not be written later.
 */
export async function planDestination(flags: PublishFlags, options: PlanDestinationOptions): Promise<Destination> {
  const { cwd, env, places: settings = {} } = options;
  const naming = flags.naming ?? settings.naming?.value ?? "md5";
  const sbom = flags.sbom?.isExplicit === false && settings.sbom?.value === "none" ? undefined : flags.sbom;
  const target = readTarget(flags.local ? "ko.local" : options.dockerRepo);
  const { repository = "", host, local } = target ?? {};
  // As in the original, --push=false is about registries: -L and ko.local load all the same.
  const publishes = local !== undefined || (flags.push ?? (repository !== "" || flags.files.length === 0));
  if (publishes && repository === "") {
    throw new UsageError("Cannot publish: KO_DOCKER_REPO is not set, so there is no registry to push to", {
      hint:
        "export KO_DOCKER_REPO=registry.example.com/me   to push to a registry\n" +
        "ko … -L                                         to load into the local Docker or podman daemon\n" +
        "ko … --oci-layout-path DIR                      to write an OCI layout, without a registry",
    });
  }
  if (flags.files.filter((place) => place.kind !== "layout" && place.file === "-").length > 1) {
    throw new UsageError("Cannot write --tarball and --oci-archive both to stdout: one of them is wanted");
  }
  const imageRefs = flags.imageRefs === undefined ? undefined : resolve(cwd, flags.imageRefs);
  if (imageRefs !== undefined) await checkWritableFile(imageRefs, "--image-refs");
  const places: Place[] = [];
  for (const place of flags.files) places.push(await checkFilePlace(place, cwd));
  if (publishes) places.push({ kind: local ?? "registry" });
  const also = readAlso(flags.also, { target: publishes ? target : undefined });
  if (isOffline(env) && publishes && target !== undefined && local === undefined) refuseRemote([target, ...also]);
  return {
    repository,
    // Images of the local daemon have readable names; the hash only keeps repositories of registries apart.
    naming: local === "daemon" && naming === "md5" ? "preserve" : naming,
    tags: flags.tags,
    places,
    also: also.map((other) => other.repository),
    imageRefs,
    insecureHosts:
      flags.insecureRegistry && host !== undefined && local === undefined
        ? [host, ...also.map((other) => other.host)]
        : [],
    sbom: planSbom(sbom, places),
    ...chooseCompression(flags.compression, places),
  };
}

/** @throws {UsageError} If the repository of `--also-push` is none, or nothing is pushed beside which it could be. */
function readAlso(texts: readonly string[], { target }: { readonly target: Target | undefined }): readonly Target[] {
  const seen = new Map([[target?.repository, "KO_DOCKER_REPO"]]);
  return texts.map((text) => {
    const other = readTarget(text, "--also-push");
    if (other === undefined) throw new UsageError("Cannot use --also-push: it is empty, wanted a repository");
    if (target === undefined || target.local !== undefined) {
      throw new UsageError(`Cannot use --also-push "${text}": nothing is pushed to a registry beside it`, {
        hint: "Set KO_DOCKER_REPO to the repository whose references are printed, and leave out -L and --push=false.",
      });
    }
    if (other.local !== undefined) {
      throw new UsageError(`Cannot use --also-push "${text}": ${other.host} is no registry`, {
        hint: "Use -L for the local daemon, in a run of its own.",
      });
    }
    const before = seen.get(other.repository);
    if (before !== undefined) throw new UsageError(`Cannot use --also-push "${text}": ${before} is the same`);
    seen.set(other.repository, "another --also-push");
    return other;
  });
}

/** @throws {UsageError} If one of the registries is on another machine. */
function refuseRemote(targets: readonly Target[]): void {
  const remote = targets.find(({ host }) => !isLoopback(host));
  if (remote === undefined) return;
  throw new UsageError(`Cannot push to "${remote.repository}" with --offline: ${remote.host} is another machine`, {
    hint: "Add -L to load images into the local daemon, or --push=false to build only.",
  });
}

/**
 * Reads `KO_DOCKER_REPO`: a host (`localhost:5000`), a repository (`gcr.io/me`, or `me` on Docker Hub), or the host of a
 * local target.
 *
 * @param setting in messages
 * @returns undefined if it is not set
 * @throws {UsageError} If it is malformed.
 */
export function readTarget(dockerRepo: string | undefined, setting = "KO_DOCKER_REPO"): Target | undefined {
  const repository = (dockerRepo ?? "").replace(/\/+$/, "");
  if (repository === "") return undefined;
  checkRepository(repository, setting);
  const host = splitHost(`${repository}/x`).host ?? DOCKER_HUB;
  return { repository, host, local: LOCAL_HOSTS[host] };
}

export function isLocal(place: Place): place is Extract<Place, { readonly kind: LocalTarget }> {
  return place.kind !== "registry" && place.kind !== "layout" && !listsWholeRun(place);
}

/** Whether the place keeps one platform of an image only. */
export function holdsOnePlatform(place: Place): boolean {
  return place.kind === "tarball" || isLocal(place);
}

/** Whether the place is an archive, which each run writes anew with all of its images. */
export function listsWholeRun(place: Place): place is Exclude<FilePlace, { readonly kind: "layout" }> {
  return place.kind === "tarball" || place.kind === "oci-archive";
}

/** Whether there are only local targets, which have no use for compressed layers. */
export function wantsPlainLayers(places: readonly Place[]): boolean {
  return places.length > 0 && places.every(isLocal);
}

/** A layout gets SBOMs on request only (docs/rules.md D7.4). */
function planSbom(flags: SbomFlags | undefined, places: readonly Place[]): SbomPlan | undefined {
  if (flags === undefined) return undefined;
  const registry = places.some(({ kind }) => kind === "registry");
  const layout = flags.isExplicit ? places.find((place) => place.kind === "layout")?.path : undefined;
  const { dir } = flags;
  return registry || dir !== undefined || layout !== undefined ? { registry, dir, layout } : undefined;
}

function chooseCompression(
  asked: Compression | undefined,
  places: readonly Place[],
): Pick<Destination, "compression" | "warnings"> {
  const compression: Compression = wantsPlainLayers(places) ? { kind: "none" } : (asked ?? FAST_GZIP);
  const warnings: string[] = [];
  if (asked !== undefined && compression.kind !== asked.kind) {
    warnings.push("--compression has no effect: local daemons and clusters take plain layers");
  }
  if (compression.kind === "zstd" && places.some(({ kind }) => kind === "daemon" || kind === "tarball")) {
    warnings.push("Docker before 23 cannot load layers compressed with zstd; any can with --compression=gzip");
  }
  return { compression, warnings };
}

/** Checks that the place can be written to. The file of an archive becomes absolute. */
async function checkFilePlace(place: FilePlace, cwd: string): Promise<FilePlace> {
  if (place.kind === "layout") {
    await checkWritableFolder(resolve(cwd, place.path), "--oci-layout-path");
    return place;
  }
  if (place.file === "-") return place;
  const file = resolve(cwd, place.file);
  await checkWritableFile(file, `--${place.kind}`);
  return { ...place, file };
}

function checkRepository(repository: string, setting: string): void {
  if (repository.includes("@")) {
    // Not quoted: the part before the "@" may be a password.
    throw new UsageError(`Cannot use ${setting}: it holds an "@", a name without user, password or digest is wanted`, {
      hint: "Put credentials into the Docker config file: ko login HOST -u USER --password-stdin",
    });
  }
  const fail = (why: string, hint?: string): UsageError =>
    new UsageError(`Cannot use ${setting}="${repository}": ${why}`, { hint });
  if (/^[a-z]+:\/\//i.test(repository)) {
    const name = repository.replace(/^[a-z]+:\/\//i, "");
    const scheme = repository.slice(0, repository.length - name.length);
    throw fail(
      `it is a URL, leave out "${scheme}"`,
      setting === "KO_DOCKER_REPO" ? `export KO_DOCKER_REPO=${name}` : `Type: ${setting}=${name}`,
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
