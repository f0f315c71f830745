/**
 * The image fields of a YAML document, each with the pull policy and the command beside it, and the mistakes that can be
 * seen in them.
 *
 * Every map with a key `image` counts, in objects of all kinds: containers, services of Knative, steps of Tekton.
 */
import type { Alias, Node, YAMLMap } from "yaml";
import { editDistance, KoError } from "./errors.ts";
import { isObject } from "./json.ts";
import { parseReference, whyBadPath } from "./reference.ts";
import { runExact } from "./yaml-exact.ts";
import {
  collectionsOf,
  composeTokens,
  createLocator,
  readTokens,
  resolveAliases,
  loadYaml,
  type Yaml,
  type YamlDocument,
  type YamlPlace,
} from "./yaml.ts";

/** A text of a document, and its place. */
export interface PlacedText extends YamlPlace {
  readonly value: string;
}

export interface ImageField extends PlacedText {
  /** `imagePullPolicy` */
  readonly pullPolicy?: PlacedText | undefined;
  /** The first word of `command`, which the container starts in place of the image's own. */
  readonly command?: PlacedText | undefined;
  /** Whether volumes are mounted, which may bring files that the image does not have. */
  readonly hasMounts: boolean;
}

/** A value that is no reference, and that looks like one. */
export interface Slip extends PlacedText {
  /** The probable reference. */
  readonly meant: string;
}

/**
 * Text that may have a slip: then the yaml package, which is slow, reads the document. A reference that is right, in
 * quotes or not, does not match.
 */
const MAY_SLIP =
  /image["']?\s*:\s*(?:[|>][-+\d]*\s+|[&!]\S+\s+)*(?:["']\s+[A-Za-z0-9]{1,3}:\/\/|["']?(?!ko:\/\/)(?:[A-Za-z0-9]{1,3}:\/\/|[Kk][Oo](?:\/\/|[:;.]\S*\/)))/;

/** A scheme, a separator and the rest of a reference that a user tried to write. */
const SLIP = /^([a-z0-9]{1,3})(:\/\/|[:;.]\/|[:;.]|\/\/)\/*([^/\s]\S*)$/i;

/**
 * Finds the image fields of a document.
 *
 * @throws {KoError} If the document is not valid YAML, or too large.
 */
export async function findImages(document: YamlDocument, signal?: AbortSignal): Promise<readonly ImageField[]> {
  if (!document.text.includes("image")) return [];
  const work = async (): Promise<readonly ImageField[]> => readImages(document, await loadYaml());
  return runExact({ task: "images", document }, { work, isValue: isImageFields, signal });
}

/**
 * Finds `imagePullPolicy: Always` beside a `ko://` image. A container with it does not start from an image that was loaded
 * into a daemon or a node: the kubelet asks a registry, which does not have the image.
 *
 * @throws {KoError} As {@link findImages}.
 */
export async function findAlwaysPulled(document: YamlDocument, signal?: AbortSignal): Promise<readonly YamlPlace[]> {
  if (!document.text.includes("imagePullPolicy")) return [];
  const images = await findImages(document, signal);
  return images.flatMap(({ pullPolicy, value }) => {
    if (!value.startsWith("ko://") || pullPolicy?.value !== "Always") return [];
    return [{ line: pullPolicy.line, column: pullPolicy.column }];
  });
}

/**
 * Finds images that look like a mistyped `ko://` reference and that no registry can have, such as `KO://…` and `ko:/…`.
 *
 * @throws {KoError} As {@link findImages}.
 */
export async function findSlips(document: YamlDocument, signal?: AbortSignal): Promise<readonly Slip[]> {
  if (!MAY_SLIP.test(document.text)) return [];
  const images = await findImages(document, signal);
  return images.flatMap(({ column, line, value }) => {
    const meant = readSlip(value);
    return meant === undefined ? [] : [{ line, column, value, meant }];
  });
}

/** Returns the reference that an image probably stands for; undefined if it is a reference, or may be an image. */
export function readSlip(value: string): string | undefined {
  if (value.startsWith("ko://") || /\{\{|\$[({]/.test(value)) return undefined;
  const text = value.trim();
  const [, scheme = "", separator = "", rest = ""] = SLIP.exec(text) ?? [];
  if (scheme === "") return undefined;
  const most = separator === "://" ? 1 : 0;
  if (editDistance(scheme.toLowerCase(), "ko", most + 1) > most || isImageName(text)) return undefined;
  return `ko://${rest}`;
}

/** Finds the image fields of {@link findImages}. */
export function readImages(document: YamlDocument, yaml: Yaml): readonly ImageField[] {
  const tree = composeTokens(yaml, readTokens(yaml, document), document);
  if (tree === undefined) return [];
  const fields: ImageField[] = [];
  const locate = createLocator(document);
  const targets = document.text.includes("*") ? resolveAliases(yaml, tree) : new Map<Alias, Node>();
  const resolve = (node: unknown): unknown => (yaml.isAlias(node) ? targets.get(node) : node);
  const textOf = (node: unknown): (Omit<PlacedText, keyof YamlPlace> & { readonly at: number }) | undefined => {
    const target = resolve(node);
    if (!yaml.isScalar(target) || typeof target.value !== "string") return undefined;
    return { value: target.value, at: (yaml.isNode(node) ? node.range?.[0] : undefined) ?? 0 };
  };
  const place = (found: ReturnType<typeof textOf>): PlacedText | undefined =>
    found && { value: found.value, ...locate(found.at) };
  for (const container of collectionsOf(yaml, tree)) {
    if (!yaml.isMap(container)) continue;
    const get = (key: string): unknown => valueOf(container, { key, yaml });
    const image = textOf(get("image"));
    // Documents keep the text of objects that the selector leaves out.
    if (image === undefined || document.edits.some(({ start, end }) => start <= image.at && image.at < end)) continue;
    const command = resolve(get("command"));
    const mounts = resolve(get("volumeMounts"));
    fields.push({
      value: image.value,
      ...locate(image.at),
      pullPolicy: place(textOf(get("imagePullPolicy"))),
      command: yaml.isSeq(command) ? place(textOf(command.items[0])) : undefined,
      hasMounts: mounts !== undefined,
    });
  }
  return fields;
}

function valueOf(map: YAMLMap, { key, yaml }: { readonly key: string; readonly yaml: Yaml }): unknown {
  return map.items.find((pair) => yaml.isScalar(pair.key) && pair.key.value === key)?.value ?? undefined;
}

/** Reports whether a registry can have an image of this name. */
function isImageName(text: string): boolean {
  try {
    return whyBadPath(parseReference(text).path) === undefined;
  } catch (error) {
    if (error instanceof KoError) return false;
    throw error;
  }
}

function isImageFields(value: unknown): value is readonly ImageField[] {
  return Array.isArray(value) && value.every((each) => isObject(each) && typeof each["hasMounts"] === "boolean");
}
