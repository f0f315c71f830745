/**
 * Which Kubernetes objects a document holds, as a person names them.
 */
import { renderDocument, type YamlDocument } from "./yamldocs.ts";
import { composeTokens, loadYaml, readTokens } from "./yamlparse.ts";
import { KoError } from "./errors.ts";
import { isObject } from "./gojson.ts";

/** Lists within lists that are followed. */
const MAX_DEPTH = 20;

/**
 * `Deployment "web"` or `ConfigMap "a" in namespace "b"`, for each object, those of a list one by one; nothing for what is
 * no object or no YAML.
 */
export async function findObjects(document: YamlDocument): Promise<readonly string[]> {
  const yaml = await loadYaml();
  const rendered = { ...document, text: renderDocument(document), edits: [] };
  try {
    const tree = composeTokens(yaml, readTokens(yaml, rendered), rendered);
    const value: unknown = tree?.toJS({ maxAliasCount: 100 });
    return nameObjects(value, 0);
  } catch (error) {
    // An alias too many, or no YAML: whoever needs it says so.
    if (error instanceof KoError || error instanceof ReferenceError) return [];
    throw error;
  }
}

function nameObjects(value: unknown, depth: number): readonly string[] {
  if (!isObject(value) || depth > MAX_DEPTH) return [];
  const { items, kind, metadata } = value;
  if (Array.isArray(items)) return items.flatMap((item: unknown) => nameObjects(item, depth + 1));
  if (typeof kind !== "string" || !isObject(metadata) || typeof metadata["name"] !== "string") return [];
  const namespace = typeof metadata["namespace"] === "string" ? ` in namespace "${metadata["namespace"]}"` : "";
  return [`${kind} "${metadata["name"]}"${namespace}`];
}
