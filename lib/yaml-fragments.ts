/**
 * Parts of references: `ko://example.com/app#digest` stands for the digest of the image, for YAML that holds the parts of an
 * image name in several values, as that of Helm does.
 */
import { findNearest, KoError } from "./errors.ts";
import { splitHost } from "./reference.ts";

/** The parts that a value can ask for. */
export const FRAGMENTS = ["repository", "tag", "digest", "registry", "path", "image"] as const;

export type Fragment = (typeof FRAGMENTS)[number];

/** A published image. */
export interface PublishedImage {
  /** `registry.example.com/app/web@sha256:…`, `ko.local/web:abc`: with a tag, a digest or both. */
  readonly reference: string;
  /** Of the manifest or index. */
  readonly digest: string;
  /** Empty for an image that is named by its digest alone. */
  readonly tags: readonly string[];
}

/** Returns a `ko://` value without its fragment: the name of a program. */
export function nameOf(value: string): string {
  const at = value.indexOf("#");
  return at < 0 ? value : value.slice(0, at);
}

/** The text behind the `#` of a value; undefined without one. */
export function fragmentOf(value: string): string | undefined {
  const at = value.indexOf("#");
  return at < 0 ? undefined : value.slice(at + 1);
}

/** Why the fragment of a value names no part; undefined if it does, or there is none. */
export function whyBadFragment(value: string): string | undefined {
  const fragment = fragmentOf(value);
  if (fragment === undefined || isFragment(fragment)) return undefined;
  const nearest = findNearest(fragment, FRAGMENTS);
  const parts = `the parts of a reference are ${FRAGMENTS.map((each) => `#${each}`).join(", ")}`;
  return `"#${fragment}" is no part${nearest === undefined ? "" : `, the nearest is "#${nearest}"`}; ${parts}`;
}

/**
 * Returns the text that stands for a value: the reference, or a part of it.
 *
 * @param value valid: see {@link whyBadFragment}
 * @throws {KoError} If the image has no such part.
 */
export function textFor(value: string, { digest, reference, tags }: PublishedImage): string {
  const fragment = fragmentOf(value);
  if (fragment === undefined || !isFragment(fragment)) return reference;
  const [tagged = ""] = reference.split("@");
  const colon = tagged.lastIndexOf(":");
  const hasTag = colon > tagged.lastIndexOf("/");
  const name = hasTag ? tagged.slice(0, colon) : tagged;
  const tag = hasTag ? tagged.slice(colon + 1) : tags[0];
  const { host = "index.docker.io", path } = splitHost(name);
  switch (fragment) {
    case "repository":
      return name;
    case "registry":
      return host;
    case "path":
      return path;
    case "digest":
      return digest;
    case "tag":
    case "image":
      if (tag === undefined) throw new KoError(`Cannot use "${value}": the image has no tag`, { hint: "Use -t TAG." });
      return fragment === "tag" ? tag : `${name}:${tag}`;
  }
}

/** The values whose tag may move to another image, as no value has the digest of the same program. */
export function findMovable(values: Iterable<string>): readonly string[] {
  const all = [...values];
  const pinned = new Set(all.filter((value) => ["digest", undefined].includes(fragmentOf(value))).map(nameOf));
  return all.filter((value) => ["tag", "image"].includes(fragmentOf(value) ?? "") && !pinned.has(nameOf(value)));
}

function isFragment(text: string): text is Fragment {
  return FRAGMENTS.some((each) => each === text);
}
