/**
 * Local clusters that take images without a registry: kind, k3d and minikube.
 *
 * It finds a cluster, reads the platform of its nodes and runs programs in them; cluster-load.ts loads images.
 * Rules: docs/rules.md C1.7, C3.
 */
import { join } from "node:path";
import { ClusterError, CommandError, KoError, messageOf, printable } from "./errors.ts";
import { type Host, installHint, type RunResult } from "./host.ts";
import { isObject, quoteJson } from "./json.ts";
import type { Log } from "./log.ts";
import type { Platform } from "./oci.ts";

/** The programs that create clusters. */
export type ClusterKind = ContainerKind | "minikube";

export type Cluster = ContainerCluster | MinikubeProfile;

/** A cluster of kind or k3d. Its nodes are containers on this machine, with containerd in them; all of them run. */
export interface ContainerCluster {
  readonly kind: ContainerKind;
  readonly name: string;
  /** The program that runs the containers: `docker`, `podman`, … */
  readonly program: string;
  /** Container names, sorted; at least one. */
  readonly nodes: readonly string[];
}

export interface MinikubeProfile {
  readonly kind: "minikube";
  readonly name: string;
  /**
   * The host's environment, but with `DOCKER_HOST` and its kin set for the profile's Docker daemon. Undefined if there
   * is no daemon to use: `minikube image load` loads the images then.
   */
  readonly dockerEnv: Readonly<Record<string, string>> | undefined;
}

export interface ClusterOptions {
  readonly host: Host;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface RunInNodeOptions extends ClusterOptions {
  /** The program's stdin; the program has no time limit then, because a node may be slow. @default nothing */
  readonly stdin?: ReadableStream<Uint8Array>;
}

type ContainerKind = "kind" | "k3d";

/** How to find the clusters of a kind. */
interface ContainerClusterKind {
  /** The container label that holds the name of the cluster. */
  readonly clusterLabel: string;
  readonly roleLabel: string;
  readonly isNode: (role: string) => boolean;
  /** The environment variable that names the cluster. */
  readonly variable: string;
  /** The cluster's name if the variable is not set; undefined takes the only cluster. */
  readonly defaultName: string | undefined;
  readonly programs: readonly string[];
  /** The command that lists the clusters. */
  readonly list: string;
  /** The command that creates a cluster. */
  readonly create: string;
}

const KINDS: Readonly<Record<ContainerKind, ContainerClusterKind>> = {
  kind: {
    clusterLabel: "io.x-k8s.kind.cluster",
    roleLabel: "io.x-k8s.kind.role",
    isNode: (role) => role !== "external-load-balancer",
    variable: "KIND_CLUSTER_NAME",
    defaultName: "kind",
    programs: ["docker", "nerdctl", "finch", "podman"],
    list: "kind get clusters",
    create: "kind create cluster",
  },
  k3d: {
    clusterLabel: "k3d.cluster",
    roleLabel: "k3d.role",
    isNode: (role) => role === "server" || role === "agent",
    variable: "K3D_CLUSTER",
    defaultName: undefined,
    programs: ["docker", "podman"],
    list: "k3d cluster list",
    create: "k3d cluster create",
  },
};

/** kind's own setting for the program that runs its nodes. */
const PROVIDER = "KIND_EXPERIMENTAL_PROVIDER";
const PROVIDERS: readonly string[] = ["docker", "nerdctl", "finch", "nerdctl.lima", "podman"];
/** Names of clusters, profiles and containers: words of command lines, and of commands that errors say to type. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,253}$/;
/** For programs that read no stdin. */
const TIMEOUT_MS = 60_000;

/** The variables that `minikube docker-env` sets, and those that would lead to another daemon. */
const DOCKER_VARIABLES: readonly string[] = [
  "DOCKER_HOST",
  "DOCKER_TLS",
  "DOCKER_TLS_VERIFY",
  "DOCKER_CERT_PATH",
  "DOCKER_CONTEXT",
];
/** Refusals of `docker-env` for a running profile: its runtime is not docker, it has several nodes or no machine. */
const NO_DAEMON = /MK_USAGE|ENV_MULTINODE_CONFLICT|ENV_DRIVER_CONFLICT|only compatible|incompatible|does not support/;

/** Go's name for the machine that Linux's `uname -m` prints: architecture and variant. */
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

/**
 * Finds the cluster that `KIND_CLUSTER_NAME`, `K3D_CLUSTER` or `MINIKUBE_PROFILE` names.
 *
 * Without a name: kind's default, k3d's only cluster, the profile of minikube's configuration or `minikube`.
 *
 * @throws {KoError} If there is no such cluster, not all of its nodes run, or the program that answers for it fails.
 */
export function findCluster(kind: ClusterKind, options: ClusterOptions): Promise<Cluster> {
  return kind === "minikube" ? findProfile(options) : findContainers(kind, options);
}

/**
 * The platform of the cluster's first node.
 *
 * @throws {KoError} If the node cannot be asked, or Go has no name for its machine.
 */
export async function clusterPlatform(cluster: Cluster, options: ClusterOptions): Promise<Platform> {
  const { stdout } = await uname(cluster, options);
  const machine = new TextDecoder().decode(stdout).trim();
  const [architecture, variant] = MACHINES.get(machine) ?? [];
  if (architecture === undefined)
    throw new ClusterError(`Cannot tell the platform of a node: its machine is "${machine}"`);
  return { os: "linux", architecture, ...(variant === undefined ? {} : { variant }) };
}

/**
 * Runs a program in a node.
 *
 * @throws {CommandError} If it fails.
 */
export async function runInNode(
  { program }: ContainerCluster,
  node: string,
  argv: readonly string[],
  options: RunInNodeOptions,
): Promise<RunResult> {
  const { host, signal, stdin } = options;
  // Privileged, with the container's name before the command: as kind itself does.
  const flags = ["--privileged", ...(stdin === undefined ? [] : ["-i"])];
  return host.run([program, "exec", ...flags, node, ...argv], {
    signal,
    ...(stdin === undefined ? { timeout: TIMEOUT_MS } : { stdin }),
  });
}

/**
 * Runs minikube for a profile.
 *
 * @throws {CommandError} If it fails.
 */
export function runMinikube(profile: string, args: readonly string[], options: ClusterOptions): Promise<RunResult> {
  const { host, signal } = options;
  return host.run(["minikube", "-p", profile, ...args], { signal });
}

/** A failed run of minikube as an error with minikube's reason; returns any other error as it is. */
export function explainMinikube(profile: string, error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  // minikube's last line tells where to report a bug; the reason stands in an earlier one.
  const lines = error.stderr.split("\n").filter((line) => line.trim() !== "");
  const exiting = lines.find((line) => line.includes("Exiting due to")) ?? lines[0];
  const why = exiting === undefined ? lastWords(error) : exiting.replace(/^[^A-Za-z]*/, "").trim();
  return new ClusterError(`Cannot use the minikube profile "${profile}": ${why}`, {
    cause: error,
    transient: true,
    hint: error.code === undefined || error.stderr === "" ? undefined : `minikube -p ${profile} status`,
  });
}

/** The last line that a program wrote to stderr, else the error's own message. */
export function lastWords(error: unknown): string {
  const stderr = error instanceof CommandError ? error.stderr : "";
  const last = stderr.split("\n").findLast((line) => line.trim() !== "");
  return printable(last?.trim() ?? messageOf(error));
}

async function findContainers(kind: ContainerKind, options: ClusterOptions): Promise<ContainerCluster> {
  const { host } = options;
  const { programs, clusterLabel } = KINDS[kind];
  const candidates = choosePrograms(kind, options).filter((program) => host.findProgram(program) !== undefined);
  if (candidates.length === 0) {
    throw new ClusterError(`Cannot look for the nodes of ${kind}: there is no ${programs.join(", ")} on PATH`, {
      hint: installHint(programs[0] ?? "docker"),
    });
  }
  const others: Container[] = [];
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
    const name = chooseCluster(kind, containers, host.env);
    const nodes = containers.filter(({ labels }) => isNodeOf(kind, name, labels));
    if (nodes.length > 0 && name !== undefined) return checkNodes({ kind, name, program, nodes });
    others.push(...containers);
  }
  // If one program answers and has no such cluster, the failure of another is not the reason.
  if (failures.length === candidates.length) {
    const [cause] = failures;
    throw new ClusterError(`Cannot look for the nodes of ${kind}: ${lastWords(cause)}`, { cause, transient: true });
  }
  throw noCluster(kind, others, host.env);
}

function choosePrograms(kind: ContainerKind, { host, log }: ClusterOptions): readonly string[] {
  const chosen = kind === "kind" ? host.env[PROVIDER] : undefined;
  if (chosen === undefined || chosen === "") return KINDS[kind].programs;
  if (PROVIDERS.includes(chosen)) return [chosen];
  log.warn(`${PROVIDER}="${chosen}" is ignored, as kind does: wanted one of ${PROVIDERS.join(", ")}`);
  return KINDS[kind].programs;
}

interface Container {
  readonly name: string;
  /** `Up 3 minutes`, `Exited (137) 2 hours ago`, … */
  readonly status: string;
  readonly labels: ReadonlyMap<string, string>;
}

/** All containers with the label, running or not. */
async function listContainers(
  program: string,
  label: string,
  { host, signal }: ClusterOptions,
): Promise<readonly Container[]> {
  const argv = [program, "ps", "-a", "--filter", `label=${label}`, "--format", "{{json .}}"] as const;
  const { stdout } = await host.run(argv, { signal, timeout: TIMEOUT_MS });
  const text = new TextDecoder().decode(stdout).trim();
  // docker and nerdctl write an object per line, podman a list.
  const lines = text.startsWith("[") ? [text] : text.split("\n").filter((line) => line !== "");
  try {
    return lines.flatMap((line): unknown => JSON.parse(line)).map(readContainer);
  } catch (cause) {
    throw new ClusterError(`Cannot read the output of "${program} ps": ${messageOf(cause)}`, { cause });
  }
}

function readContainer(value: unknown): Container {
  const { Names, Status, Labels }: Readonly<Record<string, unknown>> = isObject(value) ? value : {};
  const name: unknown = Array.isArray(Names) ? Names[0] : Names;
  if (typeof name !== "string" || !NAME.test(name)) {
    throw new ClusterError(`${quoteJson(value)} is not a container with a name`);
  }
  return { name, status: typeof Status === "string" ? Status : "", labels: readLabels(Labels) };
}

/** podman writes an object, docker and nerdctl a text `key=value,key=value`. */
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

function chooseCluster(kind: ContainerKind, containers: readonly Container[], env: Host["env"]): string | undefined {
  const { variable, defaultName } = KINDS[kind];
  const chosen = env[variable] || defaultName;
  if (chosen !== undefined) return checkName(chosen, variable);
  const [only, ...others] = listClusters(kind, containers);
  return others.length === 0 && only !== undefined
    ? checkName(only, `the label ${KINDS[kind].clusterLabel}`)
    : undefined;
}

/** @param source the setting that holds the name, for the error */
function checkName(name: string, source: string): string {
  if (NAME.test(name)) return name;
  const wanted = "wanted letters, digits and ._-, a letter or a digit first";
  throw new ClusterError(`Cannot use "${printable(name, 100)}" of ${source} as the name of a cluster: ${wanted}`);
}

function listClusters(kind: ContainerKind, containers: readonly Container[]): readonly string[] {
  const { clusterLabel } = KINDS[kind];
  return [...new Set(containers.map(({ labels }) => labels.get(clusterLabel) ?? ""))].sort();
}

function isNodeOf(kind: ContainerKind, cluster: string | undefined, labels: ReadonlyMap<string, string>): boolean {
  const { clusterLabel, roleLabel, isNode } = KINDS[kind];
  return labels.get(clusterLabel) === cluster && isNode(labels.get(roleLabel) ?? "");
}

/** Refuses a cluster with a stopped node: it would start later without the image. */
function checkNodes({
  nodes,
  ...rest
}: Omit<ContainerCluster, "nodes"> & { readonly nodes: readonly Container[] }): ContainerCluster {
  const stopped = nodes.find(({ status }) => !status.startsWith("Up") || status.includes("(Paused)"));
  if (stopped === undefined) return { ...rest, nodes: nodes.map(({ name }) => name).sort() };
  const { name, status } = stopped;
  const verb = status.startsWith("Up") ? "unpause" : "start";
  throw new ClusterError(
    `Cannot load into the ${rest.kind} cluster "${rest.name}": its node "${name}" is not running (${status})`,
    { hint: `${rest.program} ${verb} ${name}`, transient: true },
  );
}

function noCluster(kind: ContainerKind, containers: readonly Container[], env: Host["env"]): KoError {
  const { variable, defaultName, list, create } = KINDS[kind];
  const clusters = listClusters(kind, containers);
  const [first] = clusters;
  if (first === undefined)
    return new ClusterError(`Cannot find a ${kind} cluster: there is none`, { hint: create, transient: true });
  const wanted = env[variable] || defaultName;
  const all = clusters.map((cluster) => `"${cluster}"`).join(", ");
  return wanted === undefined
    ? new ClusterError(`Cannot choose a ${kind} cluster: there are ${all}`, {
        hint: NAME.test(first) ? `export ${variable}=${first}` : list,
      })
    : new ClusterError(`Cannot find a node of the ${kind} cluster "${wanted}": there is ${all}`, {
        transient: true,
        hint: clusters.length === 1 && first !== wanted && NAME.test(first) ? `export ${variable}=${first}` : list,
      });
}

async function findProfile(options: ClusterOptions): Promise<MinikubeProfile> {
  const { env } = options.host;
  const home = minikubeHome(env);
  const config = join(home, "config", "config.json");
  const chosen = env["MINIKUBE_PROFILE"] || undefined;
  const source = chosen === undefined ? `"${config}"` : "MINIKUBE_PROFILE";
  const name = checkName(chosen ?? ((await readChosenProfile(config)) || "minikube"), source);
  const withoutDaemon: MinikubeProfile = { kind: "minikube", name, dockerEnv: undefined };
  // Not run for containerd: newer versions of docker-env then start services in the node and add keys to the SSH agent.
  if (!(await mayHaveDaemon(join(home, "profiles", name, "config.json")))) return withoutDaemon;
  let answer: RunResult;
  try {
    answer = await runMinikube(name, ["docker-env", "--shell", "bash"], options);
  } catch (error) {
    if (error instanceof CommandError && NO_DAEMON.test(error.stderr)) return withoutDaemon;
    throw explainMinikube(name, error);
  }
  const exports = readExports(new TextDecoder().decode(answer.stdout));
  const daemon = exports.get("DOCKER_HOST");
  if (daemon === undefined) {
    throw new ClusterError(`Cannot use the minikube profile "${name}": "minikube docker-env" does not set DOCKER_HOST`);
  }
  if (daemon.startsWith("ssh://")) return withoutDaemon;
  const kept = Object.entries(env).filter(([variable]) => !DOCKER_VARIABLES.includes(variable));
  return { kind: "minikube", name, dockerEnv: Object.fromEntries([...kept, ...exports]) };
}

function minikubeHome(env: Host["env"]): string {
  const home = env["MINIKUBE_HOME"];
  if (home === undefined || home === "") return join(env["HOME"] || env["USERPROFILE"] || "/", ".minikube");
  return /(?:^|[\\/])\.minikube[\\/]?$/.test(home) ? home : join(home, ".minikube");
}

/** The profile that `minikube profile NAME` has chosen. */
async function readChosenProfile(config: string): Promise<string | undefined> {
  const { profile } = await readJson(config);
  return typeof profile === "string" ? profile : undefined;
}

/** False if the profile's `config.json` says that it has several nodes or another runtime than Docker. */
async function mayHaveDaemon(file: string): Promise<boolean> {
  const { KubernetesConfig, Nodes } = await readJson(file);
  const runtime = isObject(KubernetesConfig) ? KubernetesConfig["ContainerRuntime"] : undefined;
  if (Array.isArray(Nodes) && Nodes.length > 1) return false;
  return runtime === undefined || runtime === "" || runtime === "docker";
}

/** An object in a file of minikube's; empty if it cannot be read, because minikube itself reports that. */
async function readJson(file: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    const value: unknown = await Bun.file(file).json();
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

/** The {@link DOCKER_VARIABLES} that a script sets by `export NAME="value"`. */
function readExports(script: string): ReadonlyMap<string, string> {
  const found = script.matchAll(/^export ([A-Z_]+)="([^"]*)"\r?$/gm);
  return new Map(
    Array.from(found, ([, name = "", value = ""]) => [name, value] as const).filter(([name]) => {
      return DOCKER_VARIABLES.includes(name);
    }),
  );
}

async function uname(cluster: Cluster, options: ClusterOptions): Promise<RunResult> {
  const argv = ["uname", "-m"];
  if (cluster.kind !== "minikube") return runInNode(cluster, cluster.nodes[0] ?? "", argv, options);
  try {
    return await runMinikube(cluster.name, ["ssh", "--", ...argv], options);
  } catch (error) {
    throw explainMinikube(cluster.name, error);
  }
}
