/**
 * Clusters whose nodes are containers on this machine, with containerd in them: kind and k3d.
 *
 * It finds the nodes and runs programs in them, through what runs the containers: docker, nerdctl or podman
 * (rules.md C3). Loading images is in cluster-load.ts, minikube in cluster-minikube.ts.
 */
import { CommandError, KoError, messageOf, printable } from "./errors.ts";
import type { Host, RunResult } from "./host.ts";
import { isObject, quoteJson } from "./json.ts";
import type { Log } from "./log.ts";
import type { Platform } from "./oci.ts";

export type NodesKind = "kind" | "k3d";

/** The nodes of a cluster, all of them running. */
export interface Nodes {
  readonly kind: NodesKind;
  readonly cluster: string;
  /** What runs them: `docker`, `podman`, … */
  readonly program: string;
  /** Names of the containers; at least one. */
  readonly names: readonly string[];
}

export interface NodesOptions {
  readonly host: Host;
  readonly log: Log;
  readonly signal: AbortSignal;
}

interface KindOfCluster {
  /** Label of a container: the name of its cluster. */
  readonly clusterLabel: string;
  readonly roleLabel: string;
  readonly isNode: (role: string) => boolean;
  /** The environment variable that names the cluster. */
  readonly variable: string;
  /** The cluster if nothing names one; undefined takes the only one. */
  readonly usual: string | undefined;
  readonly programs: readonly string[];
  /** Lists the clusters. */
  readonly list: string;
  /** Makes a cluster. */
  readonly create: string;
}

const KINDS: Readonly<Record<NodesKind, KindOfCluster>> = {
  kind: {
    clusterLabel: "io.x-k8s.kind.cluster",
    roleLabel: "io.x-k8s.kind.role",
    isNode: (role) => role !== "external-load-balancer",
    variable: "KIND_CLUSTER_NAME",
    usual: "kind",
    programs: ["docker", "nerdctl", "finch", "podman"],
    list: "kind get clusters",
    create: "kind create cluster",
  },
  k3d: {
    clusterLabel: "k3d.cluster",
    roleLabel: "k3d.role",
    isNode: (role) => role === "server" || role === "agent",
    variable: "K3D_CLUSTER",
    usual: undefined,
    programs: ["docker", "podman"],
    list: "k3d cluster list",
    create: "k3d cluster create",
  },
};

/** kind's own setting for the program that runs its nodes. */
const PROVIDER = "KIND_EXPERIMENTAL_PROVIDER";
const PROVIDERS: readonly string[] = ["docker", "nerdctl", "finch", "nerdctl.lima", "podman"];
/** For questions. What reads a stream has no limit: a node may be slow. */
const TIMEOUT_MS = 60_000;

/**
 * Finds the cluster that `KIND_CLUSTER_NAME` or `K3D_CLUSTER` names, else kind's default or k3d's only one.
 *
 * @throws {KoError} If there is none, or not all of its nodes run.
 */
export async function findNodes(kind: NodesKind, options: NodesOptions): Promise<Nodes> {
  const { host } = options;
  const { programs, clusterLabel } = KINDS[kind];
  const candidates = choosePrograms(kind, options).filter((program) => host.findProgram(program) !== undefined);
  if (candidates.length === 0) {
    throw new KoError(`Cannot look for the nodes of ${kind}: there is no ${programs.join(", ")} on PATH`, {
      hint: `Install ${programs[0] ?? "docker"}, or put its folder on PATH.`,
    });
  }
  const elsewhere: Container[] = [];
  const failures: unknown[] = [];
  for (const program of candidates) {
    let containers: readonly Container[];
    try {
      containers = await listContainers(program, clusterLabel, options);
    } catch (error) {
      if (!(error instanceof KoError) || options.signal.aborted) throw error;
      failures.push(error);
      continue;
    }
    const cluster = chooseCluster(kind, containers, host.env);
    const nodes = containers.filter(({ labels }) => isNodeOf(kind, cluster, labels));
    if (nodes.length > 0 && cluster !== undefined) return checkNodes({ kind, cluster, program, nodes });
    elsewhere.push(...containers);
  }
  // Where one program answers and has no such cluster, the silence of another explains nothing.
  if (failures.length === candidates.length) {
    const [cause] = failures;
    throw new KoError(`Cannot look for the nodes of ${kind}: ${lastWords(cause)}`, { cause });
  }
  throw noNodes(kind, elsewhere, host.env);
}

function choosePrograms(kind: NodesKind, { host, log }: NodesOptions): readonly string[] {
  const chosen = kind === "kind" ? host.env[PROVIDER] : undefined;
  if (chosen === undefined || chosen === "") return KINDS[kind].programs;
  if (PROVIDERS.includes(chosen)) return [chosen];
  log.warn(`${PROVIDER}="${chosen}" is ignored, as kind does: it is none of ${PROVIDERS.join(", ")}`);
  return KINDS[kind].programs;
}

interface Container {
  readonly name: string;
  /** `Up 3 minutes`, `Exited (137) 2 hours ago`, … */
  readonly status: string;
  readonly labels: ReadonlyMap<string, string>;
}

/** All that have the label, also those that do not run. */
async function listContainers(
  program: string,
  label: string,
  { host, signal }: NodesOptions,
): Promise<readonly Container[]> {
  const argv = [program, "ps", "-a", "--filter", `label=${label}`, "--format", "{{json .}}"] as const;
  const { stdout } = await host.run(argv, { signal, timeout: TIMEOUT_MS });
  const text = new TextDecoder().decode(stdout).trim();
  // docker and nerdctl write an object a line, podman a list.
  const lines = text.startsWith("[") ? [text] : text.split("\n").filter((line) => line !== "");
  try {
    return lines.flatMap((line): unknown => JSON.parse(line)).map(readContainer);
  } catch (cause) {
    throw new KoError(`Cannot read what "${program} ps" lists: ${messageOf(cause)}`, { cause });
  }
}

function readContainer(value: unknown): Container {
  const { Names, Status, Labels }: Readonly<Record<string, unknown>> = isObject(value) ? value : {};
  const name: unknown = Array.isArray(Names) ? Names[0] : Names;
  if (typeof name !== "string" || name === "") throw new KoError(`${quoteJson(value)} is no container with a name`);
  return { name, status: typeof Status === "string" ? Status : "", labels: readLabels(Labels) };
}

/** podman gives an object, docker and nerdctl a text of `key=value` with commas between. */
function readLabels(value: unknown): ReadonlyMap<string, string> {
  if (isObject(value)) return new Map(Object.entries(value).map(([key, text]) => [key, String(text)]));
  if (typeof value !== "string") return new Map();
  return new Map(
    value.split(",").map((pair) => {
      const [key = "", ...rest] = pair.split("=");
      return [key, rest.join("=")];
    }),
  );
}

function chooseCluster(kind: NodesKind, containers: readonly Container[], env: Host["env"]): string | undefined {
  const { variable, usual } = KINDS[kind];
  const chosen = env[variable] || usual;
  if (chosen !== undefined) return chosen;
  const [only, ...others] = listClusters(kind, containers);
  return others.length === 0 ? only : undefined;
}

function listClusters(kind: NodesKind, containers: readonly Container[]): readonly string[] {
  const { clusterLabel } = KINDS[kind];
  return [...new Set(containers.map(({ labels }) => labels.get(clusterLabel) ?? ""))].sort();
}

function isNodeOf(kind: NodesKind, cluster: string | undefined, labels: ReadonlyMap<string, string>): boolean {
  const { clusterLabel, roleLabel, isNode } = KINDS[kind];
  return labels.get(clusterLabel) === cluster && isNode(labels.get(roleLabel) ?? "");
}

interface FoundNodes extends Omit<Nodes, "names"> {
  readonly nodes: readonly Container[];
}

/** A node that does not run would start later without the image. */
function checkNodes({ nodes, ...rest }: FoundNodes): Nodes {
  const names = nodes.map(({ name }) => name).sort();
  const stopped = nodes.find(({ status }) => !status.startsWith("Up") || status.includes("(Paused)"));
  if (stopped === undefined) return { ...rest, names };
  const { name, status } = stopped;
  const verb = status.startsWith("Up") ? "unpause" : "start";
  throw new KoError(
    `Cannot load into the ${rest.kind} cluster "${rest.cluster}": its node "${name}" does not run (${status})`,
    { hint: `${rest.program} ${verb} ${name}` },
  );
}

function noNodes(kind: NodesKind, containers: readonly Container[], env: Host["env"]): KoError {
  const { variable, usual, list, create } = KINDS[kind];
  const clusters = listClusters(kind, containers);
  const [first] = clusters;
  if (first === undefined) return new KoError(`Cannot find a ${kind} cluster: there is none`, { hint: create });
  const wanted = env[variable] || usual;
  const all = clusters.map((cluster) => `"${cluster}"`).join(", ");
  return wanted === undefined
    ? new KoError(`Cannot choose a ${kind} cluster: there are ${all}`, { hint: `export ${variable}=${first}` })
    : new KoError(`Cannot find a node of the ${kind} cluster "${wanted}": there is ${all}`, {
        hint: clusters.length === 1 && first !== wanted ? `export ${variable}=${first}` : list,
      });
}

/** The platform of the nodes, as `uname -m` in the first of them says. */
export async function nodesPlatform(nodes: Nodes, options: NodesOptions): Promise<Platform> {
  const [name = ""] = nodes.names;
  const { stdout } = await runInNode(nodes, name, ["uname", "-m"], options);
  return machinePlatform(new TextDecoder().decode(stdout).trim());
}

/** The platform that Linux's `uname -m` names. @throws {KoError} If it is a machine that Go has no word for. */
export function machinePlatform(machine: string): Platform {
  const [architecture, variant] = MACHINES.get(machine) ?? [];
  if (architecture === undefined) throw new KoError(`Cannot tell the platform of a node: its machine is "${machine}"`);
  return { os: "linux", architecture, ...(variant === undefined ? {} : { variant }) };
}

const MACHINES: ReadonlyMap<string, readonly [string, string?]> = new Map([
  ["x86_64", ["amd64"]],
  ["aarch64", ["arm64"]],
  ["arm64", ["arm64"]],
  ["armv7l", ["arm", "v7"]],
  ["armv6l", ["arm", "v6"]],
  ["i686", ["386"]],
  ["ppc64le", ["ppc64le"]],
  ["riscv64", ["riscv64"]],
  ["s390x", ["s390x"]],
]);

export interface RunInNodeOptions extends NodesOptions {
  /** What the program reads; it may then take as long as it needs. @default nothing */
  readonly stdin?: ReadableStream<Uint8Array>;
}

/**
 * Runs a program in the node `name`.
 *
 * @throws {CommandError} If it fails.
 */
export async function runInNode(
  { program }: Nodes,
  name: string,
  argv: readonly string[],
  options: RunInNodeOptions,
): Promise<RunResult> {
  const { host, signal, stdin } = options;
  // Privileged and with the name of the container before the command: as kind itself does.
  const flags = ["--privileged", ...(stdin === undefined ? [] : ["-i"])];
  return host.run([program, "exec", ...flags, name, ...argv], {
    signal,
    ...(stdin === undefined ? { timeout: TIMEOUT_MS } : { stdin }),
  });
}

/** The last line that a program wrote to stderr, else the error's own message. */
export function lastWords(error: unknown): string {
  const stderr = error instanceof CommandError ? error.stderr : "";
  const last = stderr.split("\n").findLast((line) => line.trim() !== "");
  return printable(last?.trim() ?? messageOf(error));
}
