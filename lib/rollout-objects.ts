/**
 * The objects whose rollout can be waited for: which of the applied YAML they are, and where the API has them.
 *
 * Fields of objects are read here, too: an API server may send anything.
 */
import { KoError } from "./errors.ts";
import { isObject, listAt, textAt } from "./json.ts";
import { composeTokens, loadYaml, readTokens, splitDocuments, toPlainValue } from "./yaml.ts";

/** An object of the applied YAML. */
export interface Applied {
  /** `apps/v1` */
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string | undefined;
  /** Empty if the server makes the name. */
  readonly name: string;
  readonly generateName: string;
}

/** The workloads of Kubernetes itself, with the plural in their path. */
const PLURALS: Readonly<Record<string, string>> = {
  "apps/v1 Deployment": "deployments",
  "apps/v1 StatefulSet": "statefulsets",
  "apps/v1 DaemonSet": "daemonsets",
  "batch/v1 Job": "jobs",
  "v1 Pod": "pods",
};
/** The maximum depth of lists. */
const MAX_DEPTH = 10;

/** The objects of YAML that a rollout has: workloads, and custom resources. */
export async function findApplied(text: string): Promise<readonly Applied[]> {
  return (await readObjects(text)).map(appliedOf).filter((applied) => {
    const isNamed = applied.name !== "" || applied.generateName !== "";
    return isNamed && (pluralOf(applied) !== undefined || isCustom(applied));
  });
}

/** The objects of YAML, with those of lists. */
export async function readObjects(text: string): Promise<readonly unknown[]> {
  const yaml = await loadYaml();
  const found: unknown[] = [];
  for (const document of splitDocuments(new TextEncoder().encode(text), "<applied>")) {
    try {
      collect(toPlainValue(yaml, composeTokens(yaml, readTokens(yaml, document), document)), { found, depth: 0 });
    } catch (error) {
      // kubectl has taken what the yaml package does not.
      if (!(error instanceof KoError || error instanceof ReferenceError)) throw error;
    }
  }
  return found;
}

function collect(value: unknown, into: { readonly found: unknown[]; readonly depth: number }): void {
  if (!isObject(value) || into.depth > MAX_DEPTH) return;
  for (const item of listAt(value, "items")) collect(item, { ...into, depth: into.depth + 1 });
  into.found.push(value);
}

export function appliedOf(object: unknown): Applied {
  return {
    apiVersion: textAt(object, "apiVersion"),
    kind: textAt(object, "kind"),
    namespace: textAt(object, "metadata", "namespace") || undefined,
    name: textAt(object, "metadata", "name"),
    generateName: textAt(object, "metadata", "generateName"),
  };
}

/** Gives an object whose name the server made the name that kubectl printed: `job.batch/clean-x7k2p created`. */
export function nameAfter(applied: Applied, said: string): Applied {
  if (applied.name !== "") return applied;
  const kind = applied.kind.toLowerCase();
  for (const [, type = "", name = ""] of said.matchAll(/^([a-z][\w.-]*)\/(\S+) /gm)) {
    const isSame = type === kind || type.startsWith(`${kind}.`);
    if (isSame && name.startsWith(applied.generateName)) return { ...applied, name };
  }
  return applied;
}

/** The plural of a workload of Kubernetes itself; undefined for other kinds. */
export function pluralOf({ apiVersion, kind }: Applied): string | undefined {
  return PLURALS[`${apiVersion} ${kind}`];
}

/** Whether an object is of a CustomResourceDefinition: its group has a dot and is none of Kubernetes. */
function isCustom({ apiVersion }: Applied): boolean {
  const [group = "", version] = apiVersion.split("/");
  return version !== undefined && group.includes(".") && !/(?:^|\.)k8s\.io$/.test(group);
}

/** The path of a group and version in the API: `/apis/apps/v1`. */
export function groupPath(apiVersion: string): string {
  return `${apiVersion.includes("/") ? "/apis" : "/api"}/${apiVersion.split("/").map(encodeURIComponent).join("/")}`;
}

/** How kubectl names an object: `deployment/web`, `service.serving.knative.dev/web`. */
export function resourceOf(applied: Applied): string {
  const { apiVersion, generateName, kind, name } = applied;
  const group = isCustom(applied) ? `.${apiVersion.split("/")[0]}` : "";
  return `${kind.toLowerCase()}${group}/${name || `${generateName}…`}`;
}

/** A condition of a status by its type. */
export function conditionOf(object: unknown, type: string): Condition | undefined {
  const found = listAt(object, "status", "conditions").find((each) => textAt(each, "type") === type);
  if (found === undefined) return undefined;
  return { status: textAt(found, "status"), reason: textAt(found, "reason"), message: textAt(found, "message") };
}

/** https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md */
export interface Condition {
  /** `True`, `False` or `Unknown` */
  readonly status: string;
  readonly reason: string;
  readonly message: string;
}
