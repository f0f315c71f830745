/**
 * Loads images into the nodes of a kind, k3d or minikube cluster.
 *
 * In the containers of kind and k3d `ctr images import` reads an archive from stdin, without the blobs that the node
 * has; minikube reads an archive file. Afterwards each image must be listed under all its names.
 * Rules: docs/rules.md C3.
 */
import { join } from "node:path";
import { type ArchiveItem, containerdName, packArchive } from "./archive.ts";
import {
  type Cluster,
  type ClusterOptions,
  type ContainerCluster,
  explainMinikube,
  lastWords,
  type MinikubeProfile,
  runInNode,
  type RunInNodeOptions,
  runMinikube,
} from "./cluster.ts";
import { ClusterError, CommandError, KoError, KoErrors } from "./errors.ts";
import { writeArchiveFile } from "./file.ts";
import type { RunResult } from "./host.ts";
import { type Digest, isDigest } from "./oci.ts";

/** `ctr`, in the containerd namespace that Kubernetes uses. */
const CTR: readonly string[] = ["ctr", "--namespace=k8s.io"];

/** The sections of containerd's configuration that name the snapshotter of Kubernetes: versions 2 and 3. */
const SNAPSHOTTER_SECTIONS: ReadonlySet<string> = new Set([
  'plugins."io.containerd.grpc.v1.cri".containerd',
  'plugins."io.containerd.cri.v1.images"',
]);

/**
 * Loads images into every node of a cluster and checks that they are listed under all names.
 *
 * The first name of an item holds its digest (`kind.local/web:<digest>`). The others are moved to it after the import,
 * so that a failed import changes none of them. An image that is listed is not loaded again.
 *
 * @throws {KoError} If an image cannot be loaded, with the reason of `ctr` or minikube. First names that this import
 * added are removed then.
 */
export async function loadIntoCluster(
  cluster: Cluster,
  items: readonly ArchiveItem[],
  options: ClusterOptions,
): Promise<void> {
  if (cluster.kind === "minikube") await loadIntoProfile(cluster, items, options);
  else await loadIntoNodes(cluster, items, options);
}

/** Loads into all nodes at once; each node gets the blobs that it lacks. */
async function loadIntoNodes(
  cluster: ContainerCluster,
  items: readonly ArchiveItem[],
  options: ClusterOptions,
): Promise<void> {
  const loads = cluster.nodes.map((name) => loadIntoNode({ cluster, name, options }, items));
  const failures = (await Promise.allSettled(loads)).flatMap((end): readonly unknown[] =>
    end.status === "rejected" ? [end.reason] : [],
  );
  options.signal.throwIfAborted();
  if (failures.length > 1 && failures.every((error) => error instanceof KoError)) throw new KoErrors(failures);
  if (failures.length > 0) throw failures[0];
}

interface Node {
  readonly cluster: ContainerCluster;
  /** The container's name. */
  readonly name: string;
  readonly options: ClusterOptions;
}

async function loadIntoNode(node: Node, items: readonly ArchiveItem[]): Promise<void> {
  try {
    const names = items.flatMap((item) => item.names.map(containerdName));
    const [present, before, snapshotter] = await Promise.all([
      listContent(node),
      listNodeImages(node, names),
      findSnapshotter(node),
    ]);
    const state = { present, before, snapshotter };
    const missing = items.filter((item) => !isComplete(item, state));
    if (missing.length > 0) await importImages(node, missing, state);
    for (const { image, names: own } of items) {
      const [first, ...others] = own.map(containerdName);
      const moved = others.filter((name) => before.get(name) !== image.descriptor.digest);
      if (first !== undefined && moved.length > 0) await ctr(node, ["images", "tag", "--force", first, ...moved]);
    }
    checkImages(node, items, await listNodeImages(node, names));
  } catch (error) {
    if (error instanceof CommandError) throw cannotLoad(node, lastWords(error), error);
    throw error;
  }
}

/** Checks the result of an import: `ctr` exits with 0 even if it has imported nothing. */
function checkImages(node: Node, items: readonly ArchiveItem[], found: ReadonlyMap<string, string>): void {
  for (const { image, names } of items) {
    for (const name of names.map(containerdName)) {
      const digest = found.get(name);
      if (digest === image.descriptor.digest) continue;
      throw cannotLoad(node, `"${name}" is ${digest ?? "missing"} after loading, wanted ${image.descriptor.digest}`);
    }
  }
}

interface NodeState {
  /** Digests of the blobs that the node has. */
  readonly present: ReadonlySet<Digest>;
  /** Digests of the images that the node has before the import, by name. */
  readonly before: ReadonlyMap<string, string>;
  /** Undefined leaves the choice to `ctr`. */
  readonly snapshotter: string | undefined;
}

/** True if the node has the image and its blobs: the failed import of another program may leave a name without them. */
function isComplete({ image, names }: ArchiveItem, { present, before }: NodeState): boolean {
  const blobs = [image.descriptor, image.manifest.config, ...image.manifest.layers];
  const first = names[0] === undefined ? undefined : containerdName(names[0]);
  return (
    first !== undefined &&
    before.get(first) === image.descriptor.digest &&
    blobs.every(({ digest }) => present.has(digest))
  );
}

async function importImages(node: Node, items: readonly ArchiveItem[], state: NodeState): Promise<void> {
  const { present, snapshotter } = state;
  const own = firstNames(items);
  try {
    await importArchive(node, { items: own, omit: present, snapshotter }).catch((error: unknown) => {
      // The node's garbage collection may have removed a blob since it was listed.
      if (!(error instanceof CommandError) || !/not found/i.test(error.stderr)) throw error;
      node.options.log.debug(`Loading into ${node.name} again, with all blobs: ${lastWords(error)}`);
      return importArchive(node, { items: own, omit: new Set(), snapshotter });
    });
  } catch (error) {
    // The names that a failed import leaves stand for incomplete images.
    const added = own.flatMap(({ names }) => names.map(containerdName)).filter((name) => !state.before.has(name));
    if (added.length > 0) {
      await ctr(node, ["images", "rm", ...added], { signal: unaborted() }).catch((cause: unknown) => {
        node.options.log.debug(`Cannot remove ${added.join(", ")} from ${node.name}: ${lastWords(cause)}`);
      });
    }
    throw error;
  }
}

interface ImportArchiveOptions {
  readonly items: readonly ArchiveItem[];
  readonly omit: ReadonlySet<Digest>;
  readonly snapshotter: string | undefined;
}

async function importArchive(node: Node, { items, omit, snapshotter }: ImportArchiveOptions): Promise<void> {
  // All of an image with one platform: none can be missing (docs/rules.md C3.3), and ctr takes one that is not its own.
  const flags = ["--all-platforms", ...(snapshotter === undefined ? [] : [`--snapshotter=${snapshotter}`])];
  const stop = new AbortController();
  const signal = AbortSignal.any([node.options.signal, stop.signal]);
  const { stdin, close } = toStdin(packArchive(items, { omit, signal }), (error) => stop.abort(error));
  try {
    await ctr(node, ["images", "import", ...flags, "-"], { stdin, signal });
  } finally {
    await close();
  }
}

interface Stdin {
  readonly stdin: ReadableStream<Uint8Array>;
  /** Ends `chunks`, also if the program has not read all of them. */
  readonly close: () => Promise<void>;
}

/** The stdin of a program. If `chunks` fail, it calls `onError` and ends, instead of failing itself. */
function toStdin(
  chunks: AsyncGenerator<Uint8Array<ArrayBuffer>, void, void>,
  onError: (error: unknown) => void,
): Stdin {
  const stdin = new ReadableStream<Uint8Array>({
    pull: async (controller) => {
      try {
        const { done, value } = await chunks.next();
        if (value === undefined || done === true) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        onError(error);
        controller.close();
      }
    },
    cancel: async () => void (await chunks.return()),
  });
  // The program's failure is the one to report: this one is only its consequence.
  const close = async (): Promise<void> => void (await chunks.return().catch(() => {}));
  return { stdin, close };
}

/** Runs `ctr` in the node. */
function ctr(node: Node, args: readonly string[], options: Partial<RunInNodeOptions> = {}): Promise<RunResult> {
  return runInNode(node.cluster, node.name, [...CTR, ...args], { ...node.options, ...options });
}

async function listContent(node: Node): Promise<ReadonlySet<Digest>> {
  const { stdout } = await ctr(node, ["content", "ls", "-q"]);
  return new Set(linesOf(stdout).filter(isDigest));
}

/** The digests of the images that have one of these names, by name. */
async function listNodeImages(node: Node, names: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const { stdout } = await ctr(node, ["images", "ls", ...names.map((name) => `name==${name}`)]);
  const [, ...rows] = linesOf(stdout);
  return new Map(
    rows.map((row) => {
      const [name = "", , digest = ""] = row.split(/\s+/);
      return [name, digest];
    }),
  );
}

/** The snapshotter that Kubernetes uses in a kind node. The default of `ctr` is another one, which can fail (ZFS). */
async function findSnapshotter(node: Node): Promise<string | undefined> {
  if (node.cluster.kind !== "kind") return undefined;
  try {
    const { stdout } = await runInNode(node.cluster, node.name, ["containerd", "config", "dump"], node.options);
    return readSnapshotter(new TextDecoder().decode(stdout));
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return undefined;
  }
}

/** The snapshotter that containerd's configuration, of version 2 or later, names. */
function readSnapshotter(toml: string): string | undefined {
  let section = "";
  for (const line of toml.split("\n")) {
    section = /^\s*\[([^\]]+)\]/.exec(line)?.[1]?.replaceAll("'", '"') ?? section;
    const found = /^\s*snapshotter\s*=\s*["']([^"']+)["']/.exec(line)?.[1];
    if (found !== undefined && SNAPSHOTTER_SECTIONS.has(section)) return found;
  }
  return undefined;
}

function cannotLoad({ cluster, name }: Node, why: string, cause?: unknown): KoError {
  const where = `the node "${name}" of the ${cluster.kind} cluster "${cluster.name}"`;
  return new ClusterError(`Cannot load images into ${where}: ${why}`, { cause, transient: true });
}

async function loadIntoProfile(
  profile: MinikubeProfile,
  items: readonly ArchiveItem[],
  options: ClusterOptions,
): Promise<void> {
  const { name: profileName } = profile;
  try {
    const before = await listProfileImages(profileName, options);
    const missing = firstNames(items).filter(
      ({ names }) => !names.map(containerdName).some((name) => before.has(name)),
    );
    if (missing.length > 0) await loadFile(profileName, missing, options);
    for (const { names } of items) {
      const [first = "", ...others] = names.map(containerdName);
      for (const name of others) await runMinikube(profileName, ["image", "tag", first, name], options);
    }
    const after = await listProfileImages(profileName, options);
    const lost = items.flatMap(({ names }) => names.map(containerdName)).find((name) => !after.has(name));
    if (lost === undefined) return;
    throw new ClusterError(
      `Cannot load images into the minikube profile "${profileName}": "${lost}" is missing after loading`,
      { hint: `minikube -p ${profileName} logs`, transient: true },
    );
  } catch (error) {
    throw explainMinikube(profileName, error);
  }
}

async function listProfileImages(profile: string, options: ClusterOptions): Promise<ReadonlySet<string>> {
  const { stdout } = await runMinikube(profile, ["image", "ls"], options);
  return new Set(linesOf(stdout));
}

/** Loads an archive file: minikube reads no stdin. It copies the file into all nodes. */
async function loadFile(profile: string, items: readonly ArchiveItem[], options: ClusterOptions): Promise<void> {
  const { host, signal, log } = options;
  await using folder = await host.tempFolder("ko-minikube");
  const file = join(folder.path, "images.tar");
  await writeArchiveFile(file, packArchive(items, { signal }), { host, signal });
  try {
    await runMinikube(profile, ["image", "load", "--daemon=false", file], options);
  } catch (error) {
    const names = items.flatMap((item) => item.names.map(containerdName));
    await runMinikube(profile, ["image", "rm", ...names], { ...options, signal: unaborted() }).catch(
      (cause: unknown) => {
        log.debug(`Cannot remove ${names.join(", ")} from minikube: ${lastWords(cause)}`);
      },
    );
    throw error;
  }
}

/** The items with their first names only: another name must not move to an image that fails to unpack. */
function firstNames(items: readonly ArchiveItem[]): readonly ArchiveItem[] {
  return items.map(({ image, names }) => ({ image, names: names.slice(0, 1) }));
}

/** A signal for the clean-up, which must also run after the run's signal. */
function unaborted(): AbortSignal {
  return new AbortController().signal;
}

function linesOf(stdout: Uint8Array): readonly string[] {
  return new TextDecoder()
    .decode(stdout)
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}
