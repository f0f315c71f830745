/**
 * Image names, `host[:port]/repository[:tag][@digest]`, and how an import path becomes one under `KO_DOCKER_REPO`.
 *
 * Names are parsed as go-containerregistry's pkg/name parses them. Rules: docs/rules.md D5, and
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
 */
import { posix } from "node:path";
import { KoError, KoErrors, UsageError } from "./errors.ts";
import { type Digest, isDigest } from "./oci.ts";

/**
 * How an image is named under the repository. The import path is lower-cased first, as registries require.
 *
 * - `md5`: `<repository>/<last element>-<md5 of the import path>`, the default
 * - `preserve` (`-P`): `<repository>/<import path>`
 * - `base` (`-B`): `<repository>/<last element>`
 * - `bare` (`--bare`): `<repository>`
 */
export type Naming = "preserve" | "base" | "bare" | "md5";

export interface Repository {
  /** `host[:port]`; Docker Hub is `index.docker.io`. */
  readonly host: string;
  /** `library/alpine`; never empty. */
  readonly path: string;
}

export interface Reference extends Repository {
  /** Undefined only if there is a digest and no tag. */
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

export const DOCKER_HUB = "index.docker.io";
/** The host of Docker Hub in the names of daemons and Kubernetes. */
const DOCKER_HUB_ALIAS = "docker.io";
const DEFAULT_TAG = "latest";

/**
 * Parses an image name such as `gcr.io/app/web:v1` or `ubuntu@sha256:…`.
 *
 * A name without a host is Docker Hub's. One without tag and digest gets the tag `latest`.
 *
 * @throws {KoError} If a part breaks the grammar that registries accept.
 */
export function parseReference(text: string): Reference {
  const fail = (why: string): KoError => new KoError(`Cannot read "${text}" as an image name: ${why}`);
  let rest = text;
  let digest: Digest | undefined;
  const at = rest.indexOf("@");
  if (at >= 0) {
    const given = rest.slice(at + 1);
    if (!isDigest(given)) {
      if (!given.includes("/")) throw fail(`"${given}" is not a digest, wanted sha256: and 64 lower-case hex digits`);
      // The error leaves out the text before the "@", which may be a password.
      const end = text.slice(text.lastIndexOf("@"));
      throw new KoError(`Cannot read "…${end}" as an image name: it holds an "@", wanted only before a digest`);
    }
    digest = given;
    rest = rest.slice(0, at);
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(":");
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    const why = whyBadTag(tag);
    if (why !== undefined) throw fail(why);
  }
  if (tag === undefined && digest === undefined) tag = DEFAULT_TAG;
  return { ...parseRepository(rest, text), tag, digest };
}

/**
 * Parses a repository name such as `gcr.io/app/web`.
 *
 * @param shown the whole text that the error quotes, if `text` is a part of it
 * @throws {KoError} If a part breaks the grammar.
 */
export function parseRepository(text: string, shown: string = text): Repository {
  const fail = (why: string): KoError => new KoError(`Cannot read "${shown}" as an image name: ${why}`);
  if (text === "") throw fail("the repository name is empty");
  const { host, path } = splitHost(text);
  if (host !== undefined) {
    const why = whyBadHost(host);
    if (why !== undefined) throw fail(why);
  }
  const real = host === undefined || host === DOCKER_HUB_ALIAS ? DOCKER_HUB : host;
  const whole = real === DOCKER_HUB && !path.includes("/") ? `library/${path}` : path;
  // As lenient as go-containerregistry. whyBadPath() is stricter: it has the grammar for a push.
  if (!/^[a-z0-9_./-]+$/.test(path) || whole.length > 255) {
    throw fail(whyBadPath(path) ?? whyBadPath(whole) ?? "it is too long");
  }
  return { host: real, path: whole };
}

/** Splits off the host: the first part is a host if it has a `.` or a `:`, or is `localhost`. */
export function splitHost(text: string): { host: string | undefined; path: string } {
  const slash = text.indexOf("/");
  const first = slash < 0 ? text : text.slice(0, slash);
  const isHost = first.includes(".") || first.includes(":") || first === "localhost";
  if (isHost && (slash >= 0 || first.includes(":") || first === "localhost")) {
    return { host: first, path: slash < 0 ? "" : text.slice(slash + 1) };
  }
  return { host: undefined, path: text };
}

/** Explains why a tag is not valid; undefined if it is. */
export function whyBadTag(tag: string): string | undefined {
  if (/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/.test(tag)) return undefined;
  if (tag === "") return "the tag is empty";
  if (tag.length > 128) return `the tag has ${tag.length} characters, the limit is 128`;
  return `the tag "${tag}" is invalid: a tag consists of letters, digits, "_", "." and "-", and begins with a letter, a digit or "_"`;
}

/** Explains why a text is not `host[:port]`; undefined if it is. */
export function whyBadHost(host: string): string | undefined {
  const looksRight = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?)(?::\d{1,5})?$/.test(host);
  // URL refuses ports above 65535 and addresses such as 10.0.0.999.
  if (looksRight && URL.canParse(`https://${host}/`)) return undefined;
  return `"${host}" is not a host name with an optional port`;
}

/** Explains why a repository path cannot be pushed to; undefined if it can (distribution spec, "Pulling manifests"). */
export function whyBadPath(path: string): string | undefined {
  if (path === "") return "there is no repository name after the host";
  if (path.length > 255) return `the repository name has ${path.length} characters, the limit is 255`;
  if (/[A-Z]/.test(path)) return `"${path}" has an upper-case letter, repository names are lower case`;
  if (path.split("/").every((part) => /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/.test(part))) return undefined;
  if (/^[a-z0-9_./-]+$/.test(path) && !path.startsWith("/") && !path.endsWith("/") && !path.includes("//")) {
    return `"${path}": each part begins and ends with a letter or digit, with single ".", "_", "__" or dashes between`;
  }
  return `"${path}" may hold lower-case letters, digits, ".", "_", "-" and "/"`;
}

/** Formats a repository as `host/path`. */
export function formatRepository(repository: Repository): string {
  return `${repository.host}/${repository.path}`;
}

/** Formats a reference as `host/path[:tag][@digest]`. The host of Docker Hub is `index.docker.io`. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${formatRepository(reference)}${tag}${digest}`;
}

/** Formats a reference as daemons and Kubernetes do: the host of Docker Hub is `docker.io`. */
export function formatDaemonReference(reference: Reference): string {
  return formatReference(reference.host === DOCKER_HUB ? { ...reference, host: DOCKER_HUB_ALIAS } : reference);
}

/**
 * Formats a reference as go-containerregistry's `Name()` does, for `org.opencontainers.image.base.name`:
 * `host/path@digest` without the tag, or `host/path:tag` if there is no digest.
 */
export function formatName(reference: Reference): string {
  const { tag, digest } = reference;
  return digest === undefined
    ? `${formatRepository(reference)}:${tag ?? DEFAULT_TAG}`
    : `${formatRepository(reference)}@${digest}`;
}

/**
 * Returns the image name of an import path, without tag and digest.
 *
 * @param repository `KO_DOCKER_REPO`; may be empty if nothing is pushed
 */
export function imageName(repository: string, importPath: string, naming: Naming): string {
  const path = importPath.toLowerCase();
  const base = repository.replace(/\/+$/, "");
  const last = posix.basename(path);
  switch (naming) {
    case "bare":
      return base;
    case "preserve":
      return posix.join(base, path);
    case "base":
      return posix.join(base, last);
    default:
      return posix.join(base, `${last}-${new Bun.CryptoHasher("md5").update(path).digest("hex")}`);
  }
}

/**
 * Returns the image names of all import paths, checked before anything is built.
 *
 * @throws {UsageError} If two import paths get the same name, or no registry accepts a name.
 */
export function nameAll(
  repository: string,
  importPaths: readonly string[],
  naming: Naming,
): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  const owners = new Map<string, string>();
  const errors: UsageError[] = [];
  for (const importPath of importPaths) {
    const name = imageName(repository, importPath, naming);
    const owner = owners.get(name);
    const why = name === "" ? "it is empty" : whyBadPath(splitHost(name).path);
    if (owner !== undefined && owner !== importPath) {
      errors.push(
        new UsageError(`Cannot publish ${owner} and ${importPath}: both would be named "${name}"`, {
          hint: clashHintOf(naming),
        }),
      );
    } else if (why !== undefined) {
      errors.push(new UsageError(`Cannot name the image of ${importPath} "${name}": ${why}`, { hint: hintOf(naming) }));
    }
    owners.set(name, importPath);
    names.set(importPath, name);
  }
  if (errors.length === 1 && errors[0]) throw errors[0];
  if (errors.length > 1) throw new KoErrors(errors);
  return names;
}

function clashHintOf(naming: Naming): string {
  return naming === "bare" || naming === "base"
    ? `Leave out ${naming === "bare" ? "--bare" : "-B"} (names get a hash of the import path), or use -P (names keep the import path).`
    : "They differ only in upper and lower case, which image names do not have. Build them one at a time, with --bare.";
}

function hintOf(naming: Naming): string {
  return naming === "bare"
    ? "Set KO_DOCKER_REPO to the full name of the image."
    : "Use --bare to name the image yourself.";
}
