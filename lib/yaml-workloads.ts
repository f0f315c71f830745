/** The Kubernetes objects in a YAML document that run programs of `ko://` values. */
import { KoError } from "./errors.ts";
import { isObject } from "./json.ts";
import { composeTokens, loadYaml, readTokens, renderDocument, toPlainValue, type YamlDocument } from "./yaml.ts";

/** An object, and the programs that it names. */
export interface Workload {
  /** As kubectl takes it, such as `deployment/web`; undefined for an object that kubectl cannot find the pods of. */
  readonly resource: string | undefined;
  readonly namespace: string | undefined;
  /** The `ko://` values in it. */
  readonly values: ReadonlySet<string>;
}

/** The kinds whose pods kubectl finds. */
const KINDS = new Set(["Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"]);
/** The maximum depth of lists and of fields. */
const MAX_DEPTH = 100;

/** Finds the objects of a document with `ko://` values, those of a list one by one. */
export async function findWorkloads(document: YamlDocument): Promise<readonly Workload[]> {
  const yaml = await loadYaml();
  const rendered = { ...document, text: renderDocument(document), edits: [] };
  try {
    const tree = composeTokens(yaml, readTokens(yaml, rendered), rendered);
    return readObjects(toPlainValue(yaml, tree), 0);
  } catch (error) {
    // Invalid YAML, or more aliases than allowed. Resolving the document reports it.
    if (error instanceof KoError || error instanceof ReferenceError) return [];
    throw error;
  }
}

function readObjects(value: unknown, depth: number): readonly Workload[] {
  if (!isObject(value) || depth > MAX_DEPTH) return [];
  const { items, kind, metadata } = value;
  if (Array.isArray(items)) return items.flatMap((item: unknown) => readObjects(item, depth + 1));
  const values = new Set<string>();
  collectValues(value, { values, depth });
  if (values.size === 0) return [];
  const { name, namespace } = isObject(metadata) ? metadata : {};
  const isFound = typeof kind === "string" && KINDS.has(kind) && typeof name === "string" && name !== "";
  return [
    {
      resource: isFound ? `${kind.toLowerCase()}/${name}` : undefined,
      namespace: typeof namespace === "string" && namespace !== "" ? namespace : undefined,
      values,
    },
  ];
}

function collectValues(value: unknown, into: { readonly values: Set<string>; readonly depth: number }): void {
  if (into.depth > MAX_DEPTH) return;
  if (typeof value === "string") {
    if (value.trimStart().startsWith("ko://")) into.values.add(value.trim());
    return;
  }
  if (!isObject(value) && !Array.isArray(value)) return;
  for (const each of Object.entries(value).flat()) collectValues(each, { ...into, depth: into.depth + 1 });
}
