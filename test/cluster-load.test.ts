import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import type { ArchiveItem } from "../lib/archive.ts";
import { loadIntoCluster } from "../lib/cluster-load.ts";
import type { ClusterOptions, ContainerCluster } from "../lib/cluster.ts";
import { describeError, KoError } from "../lib/errors.ts";
import { Interrupted } from "../lib/host.ts";
import type { Image } from "../lib/image.ts";
import { silentLog } from "../lib/log.ts";
import { describe as describeBytes, encodeManifest, hexOf } from "../lib/oci.ts";
import { SNAPSHOTTER, startContainerd, type TestContainerd, whyNoContainerd, writeDocker } from "./helpers/daemon.ts";
import { errorOf } from "./helpers/failures.ts";
import { daemonImage } from "./helpers/images.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { runToEnd } from "./helpers/world-programs.ts";

const NAMES = ["kind-control-plane", "kind-worker"] as const;
const CLUSTER: ContainerCluster = { kind: "kind", name: "kind", program: "docker", nodes: NAMES };

/** The item of an image, as a publisher makes it: the digest's name first. */
function item(image: Image, name: string, ...tags: readonly string[]): ArchiveItem {
  const own = `kind.local/${name}:${hexOf(image.descriptor.digest)}`;
  return { image, names: [own, ...tags.map((tag) => `kind.local/${name}:${tag}`)] };
}

function layersOf(image: Image): readonly string[] {
  return image.layers.map(({ descriptor }) => hexOf(descriptor.digest));
}

describe.skipIf(whyNoContainerd() !== undefined)("loadIntoCluster()", () => {
  const stack = new AsyncDisposableStack();
  let real: Record<(typeof NAMES)[number], TestContainerd>;
  let tree: Tree;

  beforeAll(async () => {
    const [first, second] = await Promise.all([startContainerd(), startContainerd()]);
    real = { "kind-control-plane": stack.use(first), "kind-worker": stack.use(second) };
    tree = stack.use(writeTree({}));
    await writeDocker(tree, real);
  });
  afterAll(() => stack.disposeAsync());

  function options(changes: Partial<ClusterOptions> = {}): ClusterOptions {
    const host = hostAt(tree.path, { env: { ...process.env, PATH: `${tree.at("bin")}:${process.env["PATH"] ?? ""}` } });
    return { host, log: silentLog, signal: new AbortController().signal, ...changes };
  }

  /** Loads, and returns the calls of docker, sorted. */
  async function load(
    items: readonly ArchiveItem[],
    changes: Partial<ClusterOptions> & { readonly cluster?: ContainerCluster } = {},
  ): Promise<readonly string[]> {
    tree.write({ calls: "" });
    for (const name of NAMES) rmSync(tree.at(`${name}.tar`), { force: true });
    const { cluster = CLUSTER, ...rest } = changes;
    await loadIntoCluster(cluster, items, options(rest));
    return readFileSync(tree.at("calls"), "utf8").trim().split("\n").sort();
  }

  /** The blobs that a node got through stdin. */
  async function sentTo(name: string): Promise<readonly string[]> {
    if (!existsSync(tree.at(`${name}.tar`))) return [];
    const { stdout } = await runToEnd(["tar", "tf", tree.at(`${name}.tar`)], { cwd: tree.path, env: process.env });
    return [...stdout.matchAll(/^blobs\/sha256\/(\w+)$/gm)].map(([, hex = ""]) => hex).sort();
  }

  /** Name and digest of the images `kind.local/<name>` in a node. */
  async function imagesOf(node: (typeof NAMES)[number], name: string): Promise<readonly string[]> {
    const list = await real[node].ctr("images", "ls", `name~=^kind.local/${name}:`);
    return list
      .trim()
      .split("\n")
      .slice(1)
      .map((row) => row.split(/\s+/))
      .map(([reference = "", , digest = ""]) => `${reference} ${digest}`)
      .sort();
  }

  test("makes complete, unpacked images under all names, with our digest, in every node", async () => {
    const one = await daemonImage({ seed: "all-one", fileSize: 3_000_000 });
    const two = await daemonImage({ seed: "all-two" });
    await load([item(one, "all/one", "latest", "v1"), item(two, "all/two")]);
    for (const name of NAMES) {
      expect(await imagesOf(name, "all/one")).toEqual(
        [hexOf(one.descriptor.digest), "latest", "v1"].map(
          (tag) => `kind.local/all/one:${tag} ${one.descriptor.digest}`,
        ),
      );
      expect(await imagesOf(name, "all/two")).toEqual([
        `kind.local/all/two:${hexOf(two.descriptor.digest)} ${two.descriptor.digest}`,
      ]);
      const check = await real[name].ctr("images", "check", "--snapshotter", SNAPSHOTTER, "name~=^kind.local/all/");
      const rows = check.trim().split("\n").slice(1);
      expect(rows.map((row) => /\b(\w+ \(\d+\/\d+\)).*\b(true|false)\s*$/.exec(row)?.slice(1))).toEqual(
        rows.map(() => ["complete (4/4)", "true"]),
      );
      expect(rows).toHaveLength(4);
    }
  });

  test("sends nothing that a node has, and after an edit the one new layer", async () => {
    const before = await daemonImage({ seed: "edit-1" });
    const after = await daemonImage({ seed: "edit-2" });
    await load([item(before, "edit", "latest")]);
    expect(await load([item(before, "edit", "latest")])).toEqual(
      NAMES.flatMap((name) => [
        `exec --privileged ${name} containerd config dump`,
        `exec --privileged ${name} ctr --namespace=k8s.io content ls -q`,
        ...[1, 2].map(
          () =>
            `exec --privileged ${name} ctr --namespace=k8s.io images ls ` +
            `name==${item(before, "edit").names[0] ?? ""} name==kind.local/edit:latest`,
        ),
      ]),
    );
    await load([item(after, "edit", "latest")]);
    for (const name of NAMES) {
      const own = [after.descriptor.digest, after.manifest.config.digest].map(hexOf);
      expect(await sentTo(name)).toEqual([...own, ...layersOf(after).slice(-1)].sort());
      expect(await imagesOf(name, "edit")).toEqual(
        [
          `kind.local/edit:${hexOf(before.descriptor.digest)} ${before.descriptor.digest}`,
          `kind.local/edit:${hexOf(after.descriptor.digest)} ${after.descriptor.digest}`,
          `kind.local/edit:latest ${after.descriptor.digest}`,
        ].sort(),
      );
    }
  });

  test("sends each node the blobs that it lacks itself", async () => {
    const image = await daemonImage({ base: "own-base", seed: "own" });
    await load([item(image, "own")], { cluster: { ...CLUSTER, nodes: ["kind-worker"] } });
    await load([item(image, "own")]);
    expect(await sentTo("kind-worker")).toEqual([]);
    expect(await sentTo("kind-control-plane")).toEqual(
      [...layersOf(image), ...[image.descriptor.digest, image.manifest.config.digest].map(hexOf)].sort(),
    );
  });

  test("sends everything if a node has lost the blobs that it listed", async () => {
    const image = await daemonImage({ base: "lost-base", seed: "lost" });
    tree.write({ "kind-worker.lie": image.layers.map(({ descriptor }) => `${descriptor.digest}\n`).join("") });
    try {
      const calls = await load([item(image, "lost")]);
      expect(calls.filter((call) => call.includes("kind-worker") && call.includes("import"))).toHaveLength(2);
    } finally {
      rmSync(tree.at("kind-worker.lie"));
    }
    expect(await imagesOf("kind-worker", "lost")).toEqual(await imagesOf("kind-control-plane", "lost"));
    expect(await imagesOf("kind-worker", "lost")).toHaveLength(1);
  });

  test("reports the error of ctr and the node, and moves no name there", async () => {
    const before = await daemonImage({ seed: "fail-1" });
    const after = await daemonImage({ seed: "fail-2" });
    await load([item(before, "fail", "latest")]);
    tree.write({ "kind-worker.fail": "unpacking…\nctr: write /x: no space left on device\n" });
    try {
      expect(describeError(await errorOf(load([item(after, "fail", "latest")]), KoError))).toBe(
        'Error: Cannot load images into the node "kind-worker" of the kind cluster "kind": ' +
          "ctr: write /x: no space left on device: Cannot run docker: exit code 1",
      );
    } finally {
      rmSync(tree.at("kind-worker.fail"));
    }
    const old = `kind.local/fail:${hexOf(before.descriptor.digest)} ${before.descriptor.digest}`;
    expect(await imagesOf("kind-worker", "fail")).toEqual([old, `kind.local/fail:latest ${before.descriptor.digest}`]);
    expect(await imagesOf("kind-control-plane", "fail")).toContain(`kind.local/fail:latest ${after.descriptor.digest}`);
  });

  test("leaves no name of an image that cannot be unpacked", async () => {
    const good = await daemonImage({ seed: "bad-1" });
    const bad: Image = await daemonImage({ seed: "bad-2" });
    // The bytes of a layer do not match the configuration, which containerd checks while it unpacks.
    const [first, ...rest] = bad.layers;
    const layers = first === undefined ? [] : [...rest, first];
    const manifest = { ...bad.manifest, layers: layers.map(({ descriptor }) => descriptor) };
    const bytes = encodeManifest(manifest);
    const broken = { ...bad, layers, manifest, bytes, descriptor: describeBytes(bad.descriptor.mediaType, bytes) };
    await load([item(good, "bad", "latest")]);
    expect(describeError(await errorOf(load([item(broken, "bad", "latest")]), KoError))).toMatch(
      /^Error: Cannot load images into the node "kind-control-plane" .*: ctr: wrong diff id .*\nError: .* "kind-worker" /,
    );
    for (const name of NAMES) {
      expect(await imagesOf(name, "bad")).toEqual([
        `kind.local/bad:${hexOf(good.descriptor.digest)} ${good.descriptor.digest}`,
        `kind.local/bad:latest ${good.descriptor.digest}`,
      ]);
    }
  });

  test.each([
    ["cannot be read", () => new KoError("Cannot read the layer"), "Error: Cannot read the layer"],
    ["is read when the run is interrupted", () => new Interrupted("SIGINT"), "Error: interrupted by SIGINT"],
  ])("fails with the reason, and names nothing, when a layer %s", async (_what, makeReason, message) => {
    const image = await daemonImage({ base: "unread-base", seed: "unread", fileSize: 5_000_000 });
    const stop = new AbortController();
    const reason = makeReason();
    const layers = image.layers.map((layer, i) => ({
      ...layer,
      open: async function* () {
        let size = 0;
        for await (const chunk of layer.open()) {
          size += chunk.byteLength;
          if (i === 2 && size > 3_000_000) {
            if (reason instanceof Interrupted) stop.abort(reason);
            else throw reason;
          }
          yield chunk;
        }
      },
    }));
    const work = load([item({ ...image, layers }, "unread", "latest")], { signal: stop.signal });
    expect(describeError(await errorOf(work, KoError)).split("\n")[0]).toBe(message);
    for (const name of NAMES) expect(await imagesOf(name, "unread")).toEqual([]);
  });

  test("names a node that is not there any more", async () => {
    const image = await daemonImage({ seed: "gone" });
    expect(
      describeError(
        await errorOf(load([item(image, "gone")], { cluster: { ...CLUSTER, nodes: ["kind-gone"] } }), KoError),
      ),
    ).toBe(
      'Error: Cannot load images into the node "kind-gone" of the kind cluster "kind": ' +
        "Error response from daemon: No such container: kind-gone: Cannot run docker: exit code 1",
    );
  });

  test("fails if a node does not list the image after loading", async () => {
    const image = await daemonImage({ seed: "other" });
    // Nothing is imported where nothing is named, and ctr exits with 0.
    tree.write({
      "bin/silent": {
        executable: `#!/bin/sh\ncase "$*" in *import*) exec cat > /dev/null;; *) exec docker "$@";; esac\n`,
      },
    });
    const [name = ""] = item(image, "other").names;
    expect(
      describeError(
        await errorOf(load([item(image, "other")], { cluster: { ...CLUSTER, program: "silent" } }), KoError),
      ),
    ).toContain(`"${name}" is missing after loading, wanted ${image.descriptor.digest}`);
  });

  test("needs little memory for large images", async () => {
    // Large enough that memory which waits for the collector does not count.
    const size = 600_000_000;
    const chunk = new Uint8Array(1_000_000);
    const small = await daemonImage({ seed: "large" });
    const own = small.layers.at(-1);
    if (own === undefined) throw new Error("no layer");
    let made = 0;
    let resident = 0;
    Bun.gc(true);
    const start = process.memoryUsage.rss();
    const layer = {
      ...own,
      descriptor: { ...own.descriptor, size },
      open: async function* () {
        for (; made < size; made += chunk.byteLength) {
          resident = Math.max(resident, process.memoryUsage.rss());
          yield chunk;
        }
      },
    };
    tree.write({
      "bin/slow": {
        executable: `#!/bin/sh\ncase "$*" in *import*) exec cat > /dev/null;; *) exec docker "$@";; esac\n`,
      },
    });
    const work = load([item({ ...small, layers: [layer] }, "large")], {
      cluster: { ...CLUSTER, program: "slow", nodes: ["kind-worker"] },
    });
    await errorOf(work, KoError);
    expect(made).toBe(size);
    expect(resident - start).toBeLessThan(size / 5);
  });
});
