/**
 * The nodes of a cluster: their platforms, and on which of them a Pod can be scheduled.
 *
 * Of what a Pod demands, its labels for system and architecture, its node's name and its tolerations count: nodes with
 * other labels may still come. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
 */
import { isObject, parseJson } from "./json.ts";
import { formatPlatform, parsePlatform, type Platform } from "./oci.ts";
import type { PodTemplate } from "./yaml-workloads.ts";

export interface ClusterNode {
  readonly name: string;
  readonly platform: Platform;
  readonly labels: Readonly<Record<string, unknown>>;
  /** The keys and values of those that keep Pods away. */
  readonly taints: readonly Taint[];
}

/** What keeps a Pod from a node, or lets it there. */
export type Placement = Pick<PodTemplate, "isDaemon" | "spec">;

/** By import path: the Pods that run a program. A program without any runs in a Pod that demands nothing. */
export type PodsOf = ReadonlyMap<string, readonly Placement[]>;

interface Taint {
  readonly key: string;
  readonly value: string;
  readonly effect: string;
}

/** For `kubectl get nodes --output`: a line for each node, of which {@link readNodes} needs a hundredth of the whole. */
export const NODE_COLUMNS =
  'jsonpath={range .items[*]}{.metadata.name}{"\\t"}{.metadata.labels}{"\\t"}{.spec}{"\\t"}{.status.nodeInfo}{"\\n"}{end}';

/** A Pod that demands nothing. */
export const ANYWHERE: Placement = { spec: {}, isDaemon: false };

/** Labels of a node that name a part of its platform. */
const PLATFORM_LABELS: ReadonlyMap<string, "os" | "architecture"> = new Map([
  ["kubernetes.io/os", "os"],
  ["kubernetes.io/arch", "architecture"],
  ["beta.kubernetes.io/os", "os"],
  ["beta.kubernetes.io/arch", "architecture"],
]);

const CORDON = "node.kubernetes.io/unschedulable";
/** Taints that go by themselves: of nodes that start, or are short of something. */
const PASSING = /(?:not-ready|unreachable|-pressure|network-unavailable|uninitialized|unregistered)$/;
/** Taints of nodes that take Pods which were made for them, and no program that ko builds by chance. */
const RESERVED = /^(?:node-role\.kubernetes\.io\/(?:control-plane|master)|virtual-kubelet\.io\/provider)$/;
const NAME = /^[a-z0-9]+$/;

/** Reads what kubectl prints as {@link NODE_COLUMNS}. Nodes whose platform is not one of Go's kind are left out. */
export function readNodes(text: string): readonly ClusterNode[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", ...columns] = line.split("\t");
    const [labels = {}, spec = {}, info = {}] = columns.map((column) => objectOr(parseJson(column)));
    const os = textOf(info["operatingSystem"]) || textOf(labels["kubernetes.io/os"]);
    const architecture = textOf(info["architecture"]) || textOf(labels["kubernetes.io/arch"]);
    const platform = readPlatform(os, architecture);
    if (platform === undefined) return [];
    const taints = readTaints(spec);
    if (spec["unschedulable"] === true) taints.push({ key: CORDON, value: "", effect: "NoSchedule" });
    // They have a taint, too, unless it was taken off: they run no containers of their own.
    if (labels["type"] === "virtual-kubelet") {
      taints.push({ key: "virtual-kubelet.io/provider", value: "", effect: "NoSchedule" });
    }
    return [{ name, labels, taints, platform }];
  });
}

/**
 * Returns the platforms of the nodes that a Pod can be scheduled on, sorted. If there is none yet, those that the Pod names
 * itself: an autoscaler may bring them.
 *
 * @returns empty if neither nodes nor the Pod say anything
 */
export function platformsFor(nodes: readonly ClusterNode[], pod: Placement): readonly string[] {
  const fitting = nodes.filter((node) => isSelected(node, pod));
  const open = fitting.filter((node) => isTolerated(node, pod));
  // An admission webhook or a cloud may add what is missing.
  const found = open.length > 0 ? open : fitting;
  return found.length > 0 ? listPlatforms(found) : namedPlatforms(pod);
}

/** The platforms of nodes, each once, sorted. */
export function listPlatforms(nodes: readonly Pick<ClusterNode, "platform">[]): readonly string[] {
  return [...new Set(nodes.map(({ platform }) => formatPlatform(platform)))].sort();
}

/** Reports whether a node runs images of a platform. Nodes do not tell variants. */
export function runsPlatform(node: Platform, { architecture, os }: Platform): boolean {
  if (node.os !== os) return false;
  // 32-bit programs, which container runtimes pull for such nodes too.
  const also = node.architecture === "amd64" ? "386" : node.architecture === "arm64" ? "arm" : undefined;
  return architecture === "" || architecture === node.architecture || architecture === also;
}

function readPlatform(os: string, architecture: string): Platform | undefined {
  if (!NAME.test(os) || !NAME.test(architecture)) return undefined;
  try {
    return parsePlatform(`${os}/${architecture}`);
  } catch {
    // A kernel's name of it, which no kubelet reports.
    return undefined;
  }
}

function readTaints(spec: Readonly<Record<string, unknown>>): Taint[] {
  return listOf(spec["taints"])
    .map((taint) => ({ key: textOf(taint["key"]), value: textOf(taint["value"]), effect: textOf(taint["effect"]) }))
    .filter(({ effect, key }) => effect !== "PreferNoSchedule" && !PASSING.test(key));
}

/** Whether the node is the one that the Pod names, and has the platform that it selects. */
function isSelected(node: ClusterNode, { spec = {} }: Placement): boolean {
  const { nodeName } = spec;
  if (typeof nodeName === "string" && nodeName !== "" && nodeName !== node.name) return false;
  const selector = Object.entries(objectOr(spec["nodeSelector"]));
  const isWanted = selector.every(([key, value]) => {
    const own = labelOf(node, key);
    return own === undefined || own === value;
  });
  const terms = requiredTerms(spec);
  return isWanted && (terms.length === 0 || terms.some((term) => matchesTerm(node, term)));
}

type Expression = Readonly<Record<string, unknown>>;

/** The terms of required node affinity, of which one has to match: the expressions of each. */
function requiredTerms(spec: Readonly<Record<string, unknown>>): readonly (readonly Expression[])[] {
  const affinity = objectOr(objectOr(spec["affinity"])["nodeAffinity"]);
  const required = objectOr(affinity["requiredDuringSchedulingIgnoredDuringExecution"]);
  return listOf(required["nodeSelectorTerms"]).map((term) => [
    ...listOf(term["matchExpressions"]),
    ...listOf(term["matchFields"]),
  ]);
}

function matchesTerm(node: ClusterNode, expressions: readonly Expression[]): boolean {
  return expressions.every(({ key, operator, values }) => {
    const own = key === "metadata.name" ? node.name : labelOf(node, textOf(key));
    if (own === undefined) return true;
    const isListed = Array.isArray(values) && values.includes(own);
    return operator === "In" ? isListed : operator === "NotIn" ? !isListed : operator !== "DoesNotExist";
  });
}

/** The value of a label of the platform; undefined for all others, which may be those of a node that comes later. */
function labelOf({ labels, platform }: ClusterNode, key: string): string | undefined {
  const part = PLATFORM_LABELS.get(key);
  return part === undefined ? undefined : textOf(labels[key]) || platform[part];
}

function isTolerated({ taints }: ClusterNode, pod: Placement): boolean {
  const { isDaemon, spec } = pod;
  // The tolerations of a custom resource are not known.
  if (spec === undefined) return taints.every(({ key }) => !RESERVED.test(key));
  const tolerations = listOf(spec["tolerations"]);
  const resources = listOf(spec["containers"]).map(({ resources: own }) => objectOr(objectOr(own)["limits"]));
  const selected = new Set(selectedKeys(spec));
  return taints.every((taint) => {
    const { key } = taint;
    if (isDaemon && key === CORDON) return true;
    // Clouds let Pods there that select such nodes, or ask for their devices.
    if (selected.has(key) || resources.some((limits) => limits[key] !== undefined)) return true;
    return tolerations.some((toleration) => tolerates(toleration, taint));
  });
}

/** https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/ */
function tolerates(toleration: Readonly<Record<string, unknown>>, taint: Taint): boolean {
  const [effect, key] = [textOf(toleration["effect"]), textOf(toleration["key"])];
  if (effect !== "" && effect !== taint.effect) return false;
  const exists = toleration["operator"] === "Exists";
  if (key === "") return exists;
  return key === taint.key && (exists || textOf(toleration["value"]) === taint.value);
}

/** The labels that a Pod selects nodes by. */
function selectedKeys(spec: Readonly<Record<string, unknown>>): readonly string[] {
  const expressions = requiredTerms(spec).flat();
  return [...Object.keys(objectOr(spec["nodeSelector"])), ...expressions.map(({ key }) => textOf(key))];
}

/** The platforms that a Pod's selectors name: Linux if they name no system, amd64 for Windows without an architecture. */
function namedPlatforms(pod: Placement): readonly string[] {
  const { spec = {} } = pod;
  const named = { os: new Set<string>(), architecture: new Set<string>() };
  const note = (key: string, value: unknown): void => {
    const part = PLATFORM_LABELS.get(key);
    if (part !== undefined && typeof value === "string" && NAME.test(value)) named[part].add(value);
  };
  for (const [key, value] of Object.entries(objectOr(spec["nodeSelector"]))) note(key, value);
  for (const { key, operator, values } of requiredTerms(spec).flat()) {
    if (operator === "In" && Array.isArray(values)) for (const value of values) note(textOf(key), value);
  }
  if (named.architecture.size === 0 && named.os.has("windows")) named.architecture.add("amd64");
  if (named.os.size === 0) named.os.add("linux");
  const { nodeName: _, ...anyNode } = spec;
  const candidates = [...named.os].flatMap((os) =>
    [...named.architecture].flatMap((architecture): ClusterNode[] => {
      const platform = readPlatform(os, architecture);
      return platform === undefined ? [] : [{ name: "", platform, labels: {}, taints: [] }];
    }),
  );
  return listPlatforms(candidates.filter((node) => isSelected(node, { ...pod, spec: anyNode })));
}

function objectOr(value: unknown): Readonly<Record<string, unknown>> {
  return isObject(value) ? value : {};
}

function listOf(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
