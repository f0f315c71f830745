import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { extract } from "tar-stream";
import { type ArchiveItem, containerdName, packArchive, packOciArchive } from "../lib/archive.ts";
import { writeArchiveFile } from "../lib/file.ts";
import { KoError } from "../lib/errors.ts";
import type { Built, Image } from "../lib/image.ts";
import { readConfig } from "../lib/oci-config.ts";
import { openLayout } from "../lib/layout.ts";
import { type Digest, digestOf, hexOf, MEDIA_TYPES, readManifest } from "../lib/oci.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { type DaemonKind, type TestDaemon, tryStartDaemon } from "./helpers/daemon.ts";
import { HELLO } from "./helpers/go.ts";
import { daemonImage, makeImage, randomImage, randomIndex } from "./helpers/images.ts";
import { pushImage } from "./helpers/registry-images.ts";
import { startRegistry, whyNoRegistry } from "./helpers/registry.ts";
import { type Folder, makeFolder, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { cleanEnvironment, ourCommand, output } from "./helpers/world-programs.ts";

const { signal } = new AbortController();

interface Entry {
  readonly name: string;
  readonly header: Readonly<Record<string, unknown>>;
  readonly content: Uint8Array;
}

/** Reads a tar with another's code. */
async function unpack(archive: AsyncIterable<Uint8Array>): Promise<readonly Entry[]> {
  const entries: Entry[] = [];
  const reader = extract();
  reader.end(Buffer.concat(await Array.fromAsync(archive)));
  for await (const entry of reader) {
    const { name, mode, mtime, uid, gid, type } = entry.header;
    const chunks: Uint8Array[] = [];
    for await (const chunk of entry) if (chunk instanceof Uint8Array) chunks.push(chunk);
    const content = Buffer.concat(chunks);
    entries.push({ name, header: { mode, mtime: mtime?.getTime(), uid, gid, type }, content });
  }
  return entries;
}

function textOf(entries: readonly Entry[], name: string): string | undefined {
  const entry = entries.find((one) => one.name === name);
  return entry === undefined ? undefined : new TextDecoder().decode(entry.content);
}

function jsonOf(entries: readonly Entry[], name: string): unknown {
  return JSON.parse(textOf(entries, name) ?? "");
}

function blob(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function blobsOf(image: Image): readonly string[] {
  const { descriptor, manifest } = image;
  return [descriptor, manifest.config, ...manifest.layers].map(({ digest }) => blob(digest));
}

async function digestOfStream(chunks: AsyncIterable<Uint8Array>): Promise<Digest> {
  return digestOf(Buffer.concat(await Array.fromAsync(chunks)));
}

describe("packArchive()", () => {
  test("makes a layout that is a docker archive too, and names the images last", async () => {
    const image = await daemonImage({ seed: "form" });
    const entries = await unpack(packArchive([{ image, names: ["ko.local/b:2", "ko.local/a:1"] }], { signal }));
    expect(entries.map(({ name }) => name)).toEqual([...blobsOf(image), "oci-layout", "index.json", "manifest.json"]);
    expect(new Set(entries.map(({ header }) => JSON.stringify(header)))).toEqual(
      new Set([JSON.stringify({ mode: 0o644, mtime: 0, uid: 0, gid: 0, type: "file" })]),
    );
    for (const { name, content } of entries.filter((entry) => entry.name.startsWith("blobs/"))) {
      expect(name).toBe(blob(digestOf(content)));
    }
    expect(textOf(entries, "oci-layout")).toBe('{"imageLayoutVersion":"1.0.0"}');
    const { mediaType, size, digest } = image.descriptor;
    const platform = { architecture: "amd64", os: "linux" };
    expect(jsonOf(entries, "index.json")).toEqual({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociIndex,
      manifests: ["ko.local/a:1", "ko.local/b:2"].map((name) => {
        const annotations = { "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name };
        return { mediaType, size, digest, annotations, platform };
      }),
    });
    expect(jsonOf(entries, "manifest.json")).toEqual([
      {
        Config: blob(image.manifest.config.digest),
        RepoTags: ["ko.local/a:1", "ko.local/b:2"],
        Layers: image.manifest.layers.map((layer) => blob(layer.digest)),
      },
    ]);
  });

  test("has each blob once, and one entry for an image that comes twice", async () => {
    const [one, two] = [await daemonImage({ seed: "one" }), await daemonImage({ seed: "two" })];
    const items = [
      { image: two, names: ["x/two:1"] },
      { image: one, names: ["x/one:1", "x/one:1"] },
      { image: two, names: ["x/also-two:1", "x/two:1"] },
    ];
    const entries = await unpack(packArchive(items, { signal }));
    const names = entries.map(({ name }) => name);
    expect(names).toHaveLength(new Set(names).size);
    expect(new Set(names)).toEqual(
      new Set([...blobsOf(one), ...blobsOf(two), "oci-layout", "index.json", "manifest.json"]),
    );
    expect(jsonOf(entries, "manifest.json")).toEqual([
      expect.objectContaining({ RepoTags: ["x/also-two:1", "x/two:1"] }),
      expect.objectContaining({ RepoTags: ["x/one:1"] }),
    ]);
  });

  test("has the same bytes for any order of the images and names", async () => {
    const items: readonly ArchiveItem[] = [
      { image: await daemonImage({ seed: "one" }), names: ["x/one:1", "x/one:latest"] },
      { image: await daemonImage({ seed: "two" }), names: ["x/two:1"] },
      { image: await daemonImage({ seed: "three" }), names: [] },
    ];
    const other = items.map(({ image, names }) => ({ image, names: names.toReversed() })).toReversed();
    expect(await digestOfStream(packArchive(other, { signal }))).toBe(
      await digestOfStream(packArchive(items, { signal })),
    );
  });

  test("leaves out the layers that the reader has, but names them", async () => {
    const image = await daemonImage({ seed: "omit" });
    const [first, second, own] = image.manifest.layers.map(({ digest }) => digest);
    if (first === undefined || second === undefined || own === undefined) throw new Error("no layers");
    const items = [{ image, names: ["x/omit:1"] }];
    const entries = await unpack(packArchive(items, { omit: new Set([first, second]), signal }));
    const whole = await unpack(packArchive(items, { signal }));
    expect(entries.map(({ name }) => name)).toEqual(
      whole.map(({ name }) => name).filter((name) => name !== blob(first) && name !== blob(second)),
    );
    for (const name of ["index.json", "manifest.json"]) expect(textOf(entries, name)).toBe(textOf(whole, name));
  });

  test("keeps an image without a name", async () => {
    const image = await randomImage();
    const entries = await unpack(packArchive([{ image, names: [] }], { signal }));
    const { mediaType, size, digest } = image.descriptor;
    expect(jsonOf(entries, "index.json")).toMatchObject({
      manifests: [{ mediaType, size, digest, platform: { architecture: "amd64", os: "linux" } }],
    });
    expect(textOf(entries, "index.json")).not.toContain("annotations");
    expect(jsonOf(entries, "manifest.json")).toMatchObject([{ RepoTags: [] }]);
  });

  test("says where a foreign layer comes from, and has its bytes: a daemon wants both", async () => {
    const image = await randomImage({ layers: 1 });
    const mediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    const layers = image.layers.map((layer) => ({
      ...layer,
      descriptor: { ...layer.descriptor, mediaType, urls: ["https://example.com/layer"] },
    }));
    const foreign = makeImage({ config: image.config, layers, format: "docker", annotations: {} });
    const entries = await unpack(packArchive([{ image: foreign, names: ["x/w:1"] }], { signal }));
    const [layer] = layers;
    expect(jsonOf(entries, "manifest.json")).toMatchObject([
      { LayerSources: { [layer?.diffId ?? ""]: { mediaType, urls: ["https://example.com/layer"] } } },
    ]);
    expect(entries.map(({ name }) => name)).toContain(blob(layer?.descriptor.digest ?? digestOf(new Uint8Array())));
    const index = await unpack(packOciArchive([{ built: await indexOf(foreign), names: ["x/w:1"] }], { signal }));
    expect(index.map(({ name }) => name)).not.toContain(blob(layer?.descriptor.digest ?? digestOf(new Uint8Array())));
  });

  /** An index of this one image. */
  async function indexOf(image: Image): Promise<Built> {
    return { ...(await randomIndex()), children: [image] };
  }

  test.each([
    ["one name for two images", ["x/a:1"], ["x/a:1"], 'Cannot put two images into one archive as "x/a:1"'],
    [
      "a name without a tag",
      ["x/a:1"],
      ["x/a"],
      'Cannot name an image "x/a" in an archive: a name with a tag is wanted',
    ],
    ["a digest for a tag", [`x/a@sha256:${"0".repeat(64)}`], [], "a name with a tag is wanted"],
    ["a name that is none", ["x/A:1"], [], 'Cannot read "x/A:1" as an image name'],
  ])("refuses %s", async (_what, first, second, message) => {
    const items = [
      { image: await daemonImage({ seed: "one" }), names: first },
      { image: await daemonImage({ seed: "two" }), names: second },
    ];
    const work = async (): Promise<unknown> => Array.fromAsync(packArchive(items, { signal }));
    expect(work()).rejects.toThrow(message);
    expect(work()).rejects.toBeInstanceOf(KoError);
  });

  test("throws the error of a layer, and opens no other", async () => {
    const image = await daemonImage({ seed: "broken" });
    let opened = 0;
    const layers = image.layers.map((layer) => ({
      ...layer,
      open: async function* () {
        opened++;
        yield* layer.open();
        throw new KoError("Cannot read the layer");
      },
    }));
    expect(Array.fromAsync(packArchive([{ image: { ...image, layers }, names: [] }], { signal }))).rejects.toThrow(
      "Cannot read the layer",
    );
    await Bun.sleep(0);
    expect(opened).toBe(1);
  });

  test("ends when its signal aborts", async () => {
    const stop = new AbortController();
    const image = await daemonImage({ seed: "stop", fileSize: 3_000_000 });
    const chunks = packArchive([{ image, names: [] }], { signal: stop.signal });
    await chunks.next();
    stop.abort(new KoError("interrupted"));
    expect(Array.fromAsync(chunks)).rejects.toThrow("interrupted");
  });
});

describe("packOciArchive()", () => {
  test("has the bytes of packArchive() for images alone", async () => {
    const image = await daemonImage({ seed: "same" });
    expect(await digestOfStream(packOciArchive([{ built: image, names: ["x/a:1"] }], { signal }))).toBe(
      await digestOfStream(packArchive([{ image, names: ["x/a:1"] }], { signal })),
    );
  });

  test("has all images of an index, and no manifest.json, which would hide it", async () => {
    const [built, image] = [await randomIndex(), await randomImage({ seed: "other" })];
    const items = [
      { built, names: ["x/index:1"] },
      { built: image, names: ["x/image:1"] },
    ];
    const entries = await unpack(packOciArchive(items, { signal }));
    expect(new Set(entries.map(({ name }) => name))).toEqual(
      new Set([
        ...built.children.flatMap(blobsOf),
        ...blobsOf(image),
        blob(built.descriptor.digest),
        "oci-layout",
        "index.json",
      ]),
    );
    expect(jsonOf(entries, "index.json")).toMatchObject({
      manifests: [{ digest: image.descriptor.digest }, { digest: built.descriptor.digest }],
    });
  });
});

describe("containerdName()", () => {
  test.each([
    ["ko.local/github.com/me/app:v1", "ko.local/github.com/me/app:v1"],
    ["localhost:5000/app:v1", "localhost:5000/app:v1"],
    ["me/app:v1", "docker.io/me/app:v1"],
    ["app:v1", "docker.io/library/app:v1"],
    ["index.docker.io/me/app:v1", "docker.io/me/app:v1"],
  ])("of %s is %s", (name, full) => {
    expect(containerdName(name)).toBe(full);
  });
});

async function writeTo(folder: Folder, name: string, chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const path = join(folder.path, name);
  await writeArchiveFile(path, chunks, { host: hostAt(folder.path), signal });
  return path;
}

function run(...argv: readonly string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...argv], { stdin: "ignore" });
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${stderr.toString()}`);
  return stdout.toString();
}

const programs = findCounterparts(["skopeo", "umoci"]);

describe.skipIf(programs === undefined)("an archive in other hands", () => {
  const { skopeo, umoci } = programs ?? { skopeo: "", umoci: "" };

  test("skopeo reads both of its forms, and umoci unpacks it, with equal image IDs", async () => {
    await using folder = await makeFolder();
    const [one, two] = [await daemonImage({ seed: "one" }), await daemonImage({ seed: "two" })];
    const items = [
      { image: one, names: ["ko.local/one:1", "ko.local/one:latest"] },
      { image: two, names: ["ko.local/two:latest"] },
    ];
    const path = await writeTo(folder, "a.tar", packArchive(items, { signal }));
    for (const { image, names } of items) {
      for (const name of names) {
        const config = image.manifest.config.digest;
        expect(
          digestOf(Buffer.from(run(skopeo, "inspect", "--config", "--raw", `docker-archive:${path}:${name}`))),
        ).toBe(config);
        expect(digestOf(Buffer.from(run(skopeo, "inspect", "--raw", `oci-archive:${path}:${name}`)))).toBe(
          image.descriptor.digest,
        );
        const layout = join(folder.path, "layout");
        run(skopeo, "copy", "--quiet", "--preserve-digests", `oci-archive:${path}:${name}`, `oci:${layout}:x`);
        const bundle = join(folder.path, `bundle-${name.replaceAll("/", "-")}`);
        run(umoci, "unpack", "--rootless", "--image", `${layout}:x`, bundle);
        const seed = image === one ? "one" : "two";
        expect(await Bun.file(join(bundle, "rootfs", "data", `${seed}-0`)).bytes()).toHaveLength(3000);
      }
    }
  });

  test("unpacked by tar it is a layout for umoci", async () => {
    await using folder = await makeFolder();
    const items = [
      { built: await randomIndex(), names: ["app:v1"] },
      { built: await randomImage(), names: ["app:v2"] },
    ];
    const path = await writeTo(folder, "a.tar", packOciArchive(items, { signal }));
    run("tar", "xf", path, "-C", folder.path);
    expect(run(umoci, "ls", "--layout", folder.path).trim().split("\n").sort()).toEqual(["app:v1", "app:v2"]);
    run(umoci, "unpack", "--rootless", "--image", `${folder.path}:app:v2`, join(folder.path, "bundle"));
  });

  test("skopeo copies an index with all its platforms", async () => {
    await using folder = await makeFolder();
    const built = await randomIndex();
    const path = await writeTo(folder, "a.tar", packOciArchive([{ built, names: ["x/app:v1"] }], { signal }));
    const copy = join(folder.path, "copy");
    run(skopeo, "copy", "--quiet", "--all", "--preserve-digests", `oci-archive:${path}:x/app:v1`, `oci:${copy}:v1`);
    expect((await openLayout(copy).getManifest("v1")).descriptor.digest).toBe(built.descriptor.digest);
  });
});

describe.each<readonly [DaemonKind, (image: Image) => Digest]>([
  ["classic", ({ manifest }) => manifest.config.digest],
  ["containerd", ({ descriptor }) => descriptor.digest],
  ["podman", ({ manifest }) => manifest.config.digest],
])("an archive loaded by a %s daemon", (kind, idOf) => {
  let daemon: TestDaemon | undefined;
  beforeAll(async () => {
    daemon = Bun.which("docker") === null ? undefined : await tryStartDaemon(kind);
  }, 90_000);
  afterAll(async () => daemon?.[Symbol.asyncDispose]());

  test("has our image IDs under all names", async () => {
    if (daemon === undefined) return;
    await using folder = await makeFolder();
    const items = [
      { image: await daemonImage({ seed: "one" }), names: ["ko.local/one:1", "ko.local/one:latest"] },
      { image: await randomImage({ seed: "two", format: "docker" }), names: ["example.com/two:v2"] },
    ];
    const path = await writeTo(folder, "a.tar", packArchive(items, { signal }));
    const docker = ["docker", "-H", `unix://${daemon.socket}`];
    run(...docker, "load", "--quiet", "--input", path);
    for (const { image, names } of items) {
      for (const name of names) {
        const id = run(...docker, "image", "inspect", "--format", "{{.Id}}", name).trim();
        expect(id.replace("sha256:", "")).toBe(hexOf(idOf(image)));
      }
    }
  }, 60_000);
});

const original = findCounterparts(["ko", "skopeo"]);

describe.skipIf(original === undefined || whyNoRegistry() !== undefined)("the original's --tarball", () => {
  const { ko, skopeo } = original ?? { ko: "", skopeo: "" };

  test("of the same program has the same image ID", async () => {
    await using registry = await startRegistry();
    await pushImage(registry.host, {
      name: "base",
      spec: { config: { architecture: "amd64", os: "linux", config: { Env: ["PATH=/bin"] } }, layers: ["one", "two"] },
      tag: "v1",
    });
    using tree = writeTree(HELLO);
    using work = writeTree({ "config/.ko.yaml": `defaultBaseImage: ${registry.host}/bases/base:v1\n`, docker: null });
    const env = { ...cleanEnvironment(work.path), KO_DOCKER_REPO: "example.com/team", KOCACHE: work.at("cache") };
    const ask = (...argv: readonly string[]): Promise<string> => output(argv, { cwd: tree.path, env });
    const theirs = work.at("theirs.tar");
    await Promise.all([
      ask(ko, "build", "--sbom=none", "--push=false", "-B", "--tarball", theirs, "."),
      ask(...ourCommand(), "build", "--push=false", "-B", "--oci-layout-path", work.at("layout"), "."),
    ]);
    await using folder = await makeFolder();
    const image = await readImage(work.at("layout"));
    const ours = await writeTo(
      folder,
      "ours.tar",
      packArchive([{ image, names: ["example.com/team/hello:latest"] }], { signal }),
    );
    const config = (path: string): string =>
      run(skopeo, "inspect", "--config", "--raw", `docker-archive:${path}:example.com/team/hello:latest`);
    expect(config(ours)).toBe(config(theirs));
  }, 120_000);

  async function readImage(path: string): Promise<Image> {
    const layout = openLayout(path);
    const { descriptor, bytes } = await layout.getManifest("");
    const manifest = readManifest(bytes, "the manifest");
    const configBytes = new Uint8Array(Buffer.concat(await Array.fromAsync(layout.openBlob(manifest.config))));
    const config = readConfig(configBytes, "the configuration");
    const layers = manifest.layers.map((layer, i) => {
      const diffId = config.rootfs.diff_ids[i];
      if (diffId === undefined) throw new Error("too few diffIDs");
      return { descriptor: layer, diffId, open: () => layout.openBlob(layer) };
    });
    return { kind: "image", descriptor, bytes, manifest, configBytes, config, layers };
  }
});
