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

/** The Pods that run programs: a template of a workload, or a Pod itself. */
export interface PodTemplate {
  /** The `ko://` values in it. */
  readonly values: ReadonlySet<string>;
  /** Undefined if the values stand outside of a Pod's specification, as in a custom resource. */
  readonly spec: Readonly<Record<string, unknown>> | undefined;
  /** Its Pods run on cordoned nodes too. */
  readonly isDaemon: boolean;
}

/** The kinds whose pods kubectl finds. */
const KINDS = new Set(["Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"]);
/** The maximum depth of lists and of fields. */
const MAX_DEPTH = 100;

/** Finds the objects of a document with `ko://` values, those of a list one by one. */
export async function findWorkloads(document: YamlDocument): Promise<readonly Workload[]> {
  return readObjects(await readPlain(document), 0);
}

/** Finds the Pod templates with `ko://` values, in objects of any kind: a list of `containers` makes one. */
export async function findPods(document: YamlDocument): Promise<readonly PodTemplate[]> {
  const found: PodTemplate[] = [];
  const outside = new Set<string>();
  collectPods(await readPlain(document), { found, outside, isDaemon: false, depth: 0 });
  return outside.size === 0 ? found : [...found, { values: outside, spec: undefined, isDaemon: false }];
}

/** The document as a plain value; undefined if it is not valid. */
async function readPlain(document: YamlDocument): Promise<unknown> {
  const yaml = await loadYaml();
  const rendered = { ...document, text: renderDocument(document), edits: [] };
  try {
    const tree = composeTokens(yaml, readTokens(yaml, rendered), rendered);
    return toPlainValue(yaml, tree);
  } catch (error) {
    // Invalid YAML, or more aliases than allowed. Resolving the document reports it.
    if (error instanceof KoError || error instanceof ReferenceError) return undefined;
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

interface PodSearch {
  readonly found: PodTemplate[];
  /** Receives the values outside of templates. */
  readonly outside: Set<string>;
  readonly isDaemon: boolean;
  readonly depth: number;
}

function collectPods(value: unknown, search: PodSearch): void {
  if (search.depth > MAX_DEPTH) return;
  if (!isObject(value)) {
    if (!Array.isArray(value)) collectValues(value, { values: search.outside, depth: search.depth });
    else for (const each of value) collectPods(each, { ...search, depth: search.depth + 1 });
    return;
  }
  const { containers, kind } = value;
  if (Array.isArray(containers)) {
    const values = new Set<string>();
    collectValues(value, { values, depth: search.depth });
    if (values.size > 0) search.found.push({ values, spec: value, isDaemon: search.isDaemon });
    return;
  }
  const isDaemon = search.isDaemon || kind === "DaemonSet";
  for (const each of Object.entries(value).flat()) {
    collectPods(each, { ...search, isDaemon, depth: search.depth + 1 });
  }
}
