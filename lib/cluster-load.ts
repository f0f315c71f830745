/**
 * Loads images into all nodes of a kind or k3d cluster: `ctr images import` in every node, fed with an archive.
 *
 * What a node has is not sent again, nothing that failed keeps its name, and each node is asked afterwards whether it
 * has the image (rules.md C3). Finding the nodes is in cluster.ts.
 */
import { type ArchiveItem, containerdName, packArchive } from "./archive.ts";
import { lastWords, type Nodes, type NodesOptions, runInNode, type RunInNodeOptions } from "./cluster.ts";
import { CommandError, KoError, KoErrors } from "./errors.ts";
import type { RunResult } from "./host.ts";
import { type Digest, isDigest } from "./oci.ts";

/** Kubernetes looks for its images in this namespace of containerd. */
const CTR: readonly string[] = ["ctr", "--namespace=k8s.io"];

/**
 * Loads images into every node, all nodes at once, and checks that each node has them.
 *
 * The first name of an item is its own (`kind.local/web:<digest>`); the others are moved to it when it is in place.
 *
 * @throws {KoError} If a node cannot load, or has not got what was loaded: with what its `ctr` says. A first name that
 * was new is gone from the node then, the other names are where they were.
 */
export async function loadIntoNodes(nodes: Nodes, items: readonly ArchiveItem[], options: NodesOptions): Promise<void> {
  const works = nodes.names.map((name) => loadIntoNode({ nodes, name, options }, items));
  const failures = (await Promise.allSettled(works)).flatMap((end): readonly unknown[] =>
    end.status === "rejected" ? [end.reason] : [],
  );
  options.signal.throwIfAborted();
  if (failures.length > 1 && failures.every((error) => error instanceof KoError)) throw new KoErrors(failures);
  if (failures.length > 0) throw failures[0];
}

interface Node {
  readonly nodes: Nodes;
  /** Of the container. */
  readonly name: string;
  readonly options: NodesOptions;
}

async function loadIntoNode(node: Node, items: readonly ArchiveItem[]): Promise<void> {
  try {
    const names = items.flatMap((item) => item.names.map(containerdName));
    const [present, before, snapshotter] = await Promise.all([
      listContent(node),
      listImages(node, names),
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
    checkImages(node, items, await listImages(node, names));
  } catch (error) {
    if (error instanceof CommandError) throw cannotLoad(node, lastWords(error), error);
    throw error;
  }
}

/** `ctr` exits with 0 where it has found nothing to import. */
function checkImages(node: Node, items: readonly ArchiveItem[], found: ReadonlyMap<string, string>): void {
  for (const { image, names } of items) {
    for (const name of names.map(containerdName)) {
      const got = found.get(name);
      if (got === image.descriptor.digest) continue;
      throw cannotLoad(node, `"${name}" is ${got ?? "missing"} after loading, wanted ${image.descriptor.digest}`);
    }
  }
}

interface NodeState {
  /** Blobs that the node has. */
  readonly present: ReadonlySet<Digest>;
  /** The images that it has before loading, by name. */
  readonly before: ReadonlyMap<string, string>;
  /** Undefined leaves the choice to `ctr`. */
  readonly snapshotter: string | undefined;
}

/** A failed import of another program may leave a name without the content. */
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
  // Only the first names: another name must not leave a good image for one that fails to unpack.
  const own = items.map(({ image, names }) => ({ image, names: names.slice(0, 1) }));
  try {
    await importArchive(node, { items: own, omit: present, snapshotter }).catch((error: unknown) => {
      // What was listed may be gone: the node collects garbage.
      if (!(error instanceof CommandError) || !/not found/i.test(error.stderr)) throw error;
      node.options.log.debug(`Loading into ${node.name} again, with everything: ${lastWords(error)}`);
      return importArchive(node, { items: own, omit: new Set(), snapshotter });
    });
  } catch (error) {
    await removeNames(node, own, state);
    throw error;
  }
}

/** What the failed import has named is no image. */
async function removeNames(node: Node, items: readonly ArchiveItem[], { before }: NodeState): Promise<void> {
  const added = items.flatMap(({ names }) => names.map(containerdName)).filter((name) => !before.has(name));
  if (added.length === 0) return;
  // Also when we are told to end: hence a signal of its own.
  const { signal } = new AbortController();
  await ctr(node, ["images", "rm", ...added], { signal }).catch((error: unknown) => {
    node.options.log.debug(`Cannot remove ${added.join(", ")} from ${node.name}: ${lastWords(error)}`);
  });
}

interface ImportArchiveOptions {
  readonly items: readonly ArchiveItem[];
  readonly omit: ReadonlySet<Digest>;
  readonly snapshotter: string | undefined;
}

async function importArchive(node: Node, { items, omit, snapshotter }: ImportArchiveOptions): Promise<void> {
  // One platform an image, so that "all" cannot miss any (rules.md C3.3), and a strange one is refused by nobody.
  const flags = ["--all-platforms", ...(snapshotter === undefined ? [] : [`--snapshotter=${snapshotter}`])];
  const stop = new AbortController();
  const signal = AbortSignal.any([node.options.signal, stop.signal]);
  const { stream, close } = feed(packArchive(items, { omit, signal }), (error) => stop.abort(error));
  try {
    await ctr(node, ["images", "import", ...flags, "-"], { stdin: stream, signal });
  } finally {
    await close();
  }
}

/** Runs `ctr` in the node. */
function ctr(node: Node, args: readonly string[], options: Partial<RunInNodeOptions> = {}): Promise<RunResult> {
  return runInNode(node.nodes, node.name, [...CTR, ...args], { ...node.options, ...options });
}

async function listContent(node: Node): Promise<ReadonlySet<Digest>> {
  const { stdout } = await ctr(node, ["content", "ls", "-q"]);
  return new Set(linesOf(stdout).filter(isDigest));
}

/** The digests of the images that have one of these names. */
async function listImages(node: Node, names: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const { stdout } = await ctr(node, ["images", "ls", ...names.map((name) => `name==${name}`)]);
  const [, ...rows] = linesOf(stdout);
  return new Map(
    rows.map((row) => {
      const [name = "", , digest = ""] = row.split(/\s+/);
      return [name, digest];
    }),
  );
}

/**
 * The snapshotter that Kubernetes uses in a kind node: `ctr` has its own idea, which cannot work on ZFS, say.
 */
async function findSnapshotter(node: Node): Promise<string | undefined> {
  if (node.nodes.kind !== "kind") return undefined;
  try {
    const { stdout } = await runInNode(node.nodes, node.name, ["containerd", "config", "dump"], node.options);
    return readSnapshotter(new TextDecoder().decode(stdout));
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return undefined;
  }
}

/** From containerd's configuration, of version 2 or later. */
function readSnapshotter(toml: string): string | undefined {
  let section = "";
  for (const line of toml.split("\n")) {
    section = /^\s*\[([^\]]+)\]/.exec(line)?.[1]?.replaceAll("'", '"') ?? section;
    const found = /^\s*snapshotter\s*=\s*["']([^"']+)["']/.exec(line)?.[1];
    if (found !== undefined && SNAPSHOTTER_SECTIONS.has(section)) return found;
  }
  return undefined;
}

const SNAPSHOTTER_SECTIONS: ReadonlySet<string> = new Set([
  'plugins."io.containerd.grpc.v1.cri".containerd',
  'plugins."io.containerd.cri.v1.images"',
]);

function linesOf(stdout: Uint8Array): readonly string[] {
  return new TextDecoder()
    .decode(stdout)
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

function cannotLoad({ nodes, name }: Node, why: string, cause?: unknown): KoError {
  const where = `the node "${name}" of the ${nodes.kind} cluster "${nodes.cluster}"`;
  return new KoError(`Cannot load images into ${where}: ${why}`, { cause });
}

interface Feed {
  readonly stream: ReadableStream<Uint8Array>;
  /** Lets go of the chunks, also when they have not been read to their end. */
  readonly close: () => Promise<void>;
}

/** What a program reads: ends, instead of breaking, when `chunks` fail, and tells `onError` so. */
function feed(chunks: AsyncGenerator<Uint8Array<ArrayBuffer>, void, void>, onError: (error: unknown) => void): Feed {
  const stream = new ReadableStream<Uint8Array>({
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
  // What it throws now, the program's failure has caused.
  const close = async (): Promise<void> => void (await chunks.return().catch(() => {}));
  return { stream, close };
}
