import { describe, expect, test } from "bun:test";
import { cp, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { KoError } from "../lib/errors.ts";
import type { Built, Image, Layer } from "../lib/image.ts";
import { blobPath, openLayout, writeToLayout } from "../lib/layout.ts";
import { type Digest, digestOf, hexOf, MAX_DOCUMENT_BYTES, MEDIA_TYPES } from "../lib/oci.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { errorOf, failureOf } from "./helpers/failures.ts";
import { makeImage, randomBytes, randomImage, randomIndex } from "./helpers/images.ts";
import { makeFolder } from "./helpers/world-folders.ts";

const { signal } = new AbortController();
const never: Digest = digestOf(randomBytes("never", 1));

async function write(path: string, ...items: readonly (readonly [string, Built])[]): Promise<void> {
  await writeToLayout(
    path,
    items.map(([name, built]) => ({ name, built })),
    { signal },
  );
}

async function readIndexJson(path: string): Promise<unknown> {
  return JSON.parse(await readFile(join(path, "index.json"), "utf8"));
}

/** The names in index.json, in order. */
async function listNames(path: string): Promise<readonly unknown[]> {
  const document = await readIndexJson(path);
  const manifests = isRecord(document) && Array.isArray(document["manifests"]) ? document["manifests"] : [];
  return manifests.map((entry: unknown) => {
    const annotations = isRecord(entry) ? entry["annotations"] : undefined;
    return isRecord(annotations) ? annotations["org.opencontainers.image.ref.name"] : undefined;
  });
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

/** Every file of a folder with its content's digest. */
async function snapshot(path: string): Promise<Readonly<Record<string, string>>> {
  const result: Record<string, string> = {};
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    result[file.slice(path.length + 1)] = digestOf(await readFile(file));
  }
  return result;
}

function blobsOf(image: Image): readonly string[] {
  const descriptors = [image.descriptor, image.manifest.config, ...image.layers.map((layer) => layer.descriptor)];
  return descriptors.map(({ digest }) => hexOf(digest));
}

async function drain(source: AsyncIterable<Uint8Array>): Promise<Digest> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return digestOf(Buffer.concat(chunks));
}

describe("writeToLayout()", () => {
  test("makes the folder, its parents and all that a layout has, and nothing else", async () => {
    await using folder = await makeFolder();
    const path = join(folder.path, "a", "b");
    const image = await randomImage({ platform: { os: "linux", architecture: "arm", variant: "v7" } });
    await write(path, ["app:v1", image]);
    expect(await readFile(join(path, "oci-layout"), "utf8")).toBe('{\n   "imageLayoutVersion": "1.0.0"\n}');
    expect(await readIndexJson(path)).toEqual({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociIndex,
      manifests: [
        {
          ...image.descriptor,
          annotations: { "org.opencontainers.image.ref.name": "app:v1" },
          platform: { architecture: "arm", os: "linux", variant: "v7" },
        },
      ],
    });
    const digests: Record<string, string> = {};
    for (const hex of blobsOf(image)) digests[`blobs/sha256/${hex}`] = `sha256:${hex}`;
    expect(await snapshot(path)).toEqual({ ...(await snapshot(path)), ...digests });
    expect((await readdir(path)).sort()).toEqual(["blobs", "index.json", "oci-layout"]);
    expect((await readdir(join(path, "blobs", "sha256"))).sort()).toEqual([...blobsOf(image)].sort());
    expect((await stat(blobPath(path, image.descriptor.digest))).mode & 0o777).toBe(0o644);
  });

  test("writes an index with the images of all its platforms", async () => {
    await using folder = await makeFolder();
    const index = await randomIndex();
    await write(folder.path, ["app", index]);
    expect((await readdir(join(folder.path, "blobs", "sha256"))).sort()).toEqual(
      [hexOf(index.descriptor.digest), ...index.children.flatMap(blobsOf)].sort(),
    );
    expect(await listNames(folder.path)).toEqual(["app"]);
  });

  test("writes the same bytes for the same images", async () => {
    await using one = await makeFolder();
    await using two = await makeFolder();
    await write(one.path, ["a", await randomImage()], ["b", await randomIndex()]);
    await write(two.path, ["a", await randomImage()]);
    await write(two.path, ["b", await randomIndex()]);
    expect(await snapshot(one.path)).toEqual(await snapshot(two.path));
  });

  test("keeps the work of others: entries, their order, unknown fields", async () => {
    await using folder = await makeFolder();
    const other = {
      mediaType: "application/x-other",
      size: 1,
      digest: never,
      "x-unknown": [1, { a: null }],
      annotations: { "org.opencontainers.image.ref.name": "other", "org.example": "<&>" },
    };
    const nameless = { mediaType: "application/x-nameless", size: 2, digest: digestOf(randomBytes("x", 2)) };
    const document = { schemaVersion: 2, "x-vendor": { keep: "me" }, manifests: [other, nameless], annotations: {} };
    await writeFile(join(folder.path, "oci-layout"), '{"imageLayoutVersion":"1.0.0","x":1}');
    await writeFile(join(folder.path, "index.json"), JSON.stringify(document));
    await writeFile(join(folder.path, "mine.txt"), "mine");
    await write(folder.path, ["app", await randomImage()]);
    const written = await readIndexJson(folder.path);
    expect(written).toEqual({ ...document, manifests: [other, nameless, expect.anything()] });
    expect(await readFile(join(folder.path, "oci-layout"), "utf8")).toBe('{"imageLayoutVersion":"1.0.0","x":1}');
    expect(await readFile(join(folder.path, "mine.txt"), "utf8")).toBe("mine");
  });

  test("puts an image where the one of the same name was, and keeps other names of the same image", async () => {
    await using folder = await makeFolder();
    const [first, second] = [await randomImage({ seed: "first" }), await randomImage({ seed: "second" })];
    await write(folder.path, ["a", first], ["b", first], ["c", first]);
    await write(folder.path, ["b", second]);
    await write(folder.path, ["b", second]);
    expect(await listNames(folder.path)).toEqual(["a", "b", "c"]);
    const source = openLayout(folder.path);
    expect((await source.getManifest("b")).descriptor).toEqual(second.descriptor);
    expect((await source.getManifest("c")).descriptor).toEqual(first.descriptor);
  });

  test("gives a name to an entry of the same image that had none, as the original ko leaves them", async () => {
    await using folder = await makeFolder();
    const image = await randomImage();
    await write(folder.path, ["a", image]);
    const bare = { schemaVersion: 2, manifests: [image.descriptor, { ...image.descriptor, digest: never }] };
    await writeFile(join(folder.path, "index.json"), JSON.stringify(bare));
    await write(folder.path, ["app", image]);
    expect(await listNames(folder.path)).toEqual(["app", undefined]);
  });

  test("does not write a blob that is there, and mends one that is damaged", async () => {
    await using folder = await makeFolder();
    const image = await randomImage({ layers: 3 });
    await write(folder.path, ["a", image]);
    const [intact = "", flipped = "", cut = ""] = image.layers.map((l) => blobPath(folder.path, l.descriptor.digest));
    const before = await stat(intact);
    const bytes = await readFile(flipped);
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    await writeFile(flipped, bytes);
    await writeFile(cut, (await readFile(cut)).subarray(0, 50));
    await write(folder.path, ["a", image]);
    expect((await stat(intact)).ino).toBe(before.ino);
    const digests = await Promise.all([intact, flipped, cut].map(async (file) => digestOf(await readFile(file))));
    expect(digests).toEqual(image.layers.map(({ descriptor }) => descriptor.digest));
  });

  test("leaves out layers that may not be distributed", async () => {
    await using folder = await makeFolder();
    const image = await randomImage();
    const foreign: Layer = {
      descriptor: {
        mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        size: 5,
        digest: never,
        urls: ["https://example.com/layer"],
      },
      diffId: never,
      open: () => {
        throw new Error("a foreign layer was opened");
      },
    };
    const layers = [foreign, ...image.layers];
    const config = { ...image.config, rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) } };
    const made = makeImage({ config, layers, format: "docker", annotations: {} });
    await write(folder.path, ["app", made]);
    expect((await readdir(join(folder.path, "blobs", "sha256"))).sort()).toEqual(
      blobsOf(made)
        .filter((hex) => hex !== hexOf(never))
        .sort(),
    );
  });

  test("goes on where a first run was ended before it could write the index", async () => {
    await using folder = await makeFolder();
    await mkdir(join(folder.path, "blobs", "sha256"), { recursive: true });
    await writeFile(join(folder.path, ".ko-0000"), "half a blob");
    await write(folder.path, ["app", await randomImage()]);
    expect(await listNames(folder.path)).toEqual(["app"]);
    await rm(join(folder.path, "index.json"));
    await write(folder.path, ["app", await randomImage()]);
    expect(await listNames(folder.path)).toEqual(["app"]);
  });

  test.each<readonly [string, Readonly<Record<string, string>>, string]>([
    ["a folder of something else", { "notes.txt": "x" }, "is not empty and has no file oci-layout"],
    ["another's index.json", { "index.json": "{}" }, "is not empty and has no file oci-layout"],
    ["a layout of version 2", { "oci-layout": '{"imageLayoutVersion":"2.0.0"}', "index.json": "{}" }, '"2.0.0"'],
    ["an index.json that is cut", { "oci-layout": '{"imageLayoutVersion":"1.0.0"}', "index.json": "{" }, "is not JSON"],
    ["an index.json of a list", { "oci-layout": '{"imageLayoutVersion":"1.0.0"}', "index.json": "[]" }, "JSON object"],
    [
      "manifests of another type",
      { "oci-layout": '{"imageLayoutVersion":"1.0.0"}', "index.json": '{"manifests":{}}' },
      "are not a list",
    ],
  ])("refuses %s and touches nothing", async (_, files, message) => {
    await using folder = await makeFolder();
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder.path, name), text);
    const before = await snapshot(folder.path);
    const error = await failureOf(write(folder.path, ["app", await randomImage()]));
    expect(error.message).toContain(message);
    expect(await snapshot(folder.path)).toEqual(before);
    expect((await readdir(folder.path)).sort()).toEqual(Object.keys(files).sort());
  });

  test("refuses a path that is a file", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "file");
    await writeFile(file, "x");
    const error = await failureOf(write(file, ["app", await randomImage()]));
    expect(error.message).toBe(`Cannot write OCI layout "${file}": it is not a folder`);
  });

  test("leaves the index and no half-written file when a layer fails or the run is interrupted", async () => {
    await using folder = await makeFolder();
    await write(folder.path, ["app", await randomImage({ seed: "old" })]);
    const before = await snapshot(folder.path);
    const image = await randomImage({ layers: 1 });
    const controller = new AbortController();
    const broken = (open: () => AsyncIterable<Uint8Array>): Image => ({
      ...image,
      layers: image.layers.map((layer) => ({ ...layer, open })),
    });
    const failing = broken(async function* () {
      yield new Uint8Array(10);
      throw new KoError("the network is gone");
    });
    const interrupted = broken(async function* () {
      yield new Uint8Array(10);
      controller.abort(new KoError("interrupted"));
      yield new Uint8Array(10);
    });
    const run = (built: Built): Promise<void> =>
      writeToLayout(folder.path, [{ built, name: "app" }], { signal: controller.signal });
    expect((await failureOf(run(failing))).message).toBe("the network is gone");
    expect((await failureOf(run(interrupted))).message).toBe("interrupted");
    expect(await snapshot(folder.path)).toEqual(before);
  });

  test("says which layout cannot be written, and why", async () => {
    await using folder = await makeFolder();
    await writeFile(join(folder.path, "file"), "x");
    const path = join(folder.path, "file", "layout");
    expect(await errorOf(write(path, ["app", await randomImage()]), KoError)).toMatchObject({
      message: `Cannot write OCI layout "${path}"`,
      cause: { code: "ENOTDIR" },
    });
  });

  test("keeps the images of all ko runs that add to one layout at once", async () => {
    await using folder = await makeFolder();
    const script = join(folder.path, "add.ts");
    const layout = join(folder.path, "layout");
    const lib = join(import.meta.dir, "..", "lib", "layout.ts");
    const images = join(import.meta.dir, "helpers", "images.ts");
    await writeFile(
      script,
      `import { writeToLayout } from ${JSON.stringify(lib)};
       import { randomImage } from ${JSON.stringify(images)};
       const { signal } = new AbortController();
       for (let i = 0; i < 10; i++) {
         const name = process.argv[2] + i;
         const built = await randomImage({ seed: name, layers: 1 });
         await writeToLayout(${JSON.stringify(layout)}, [{ name, built }], { signal });
       }`,
    );
    const runs = ["a", "b", "c", "d"].map((name) =>
      Bun.spawn([process.execPath, script, name], { stdio: ["ignore", "inherit", "inherit"] }),
    );
    expect(await Promise.all(runs.map((run) => run.exited))).toEqual([0, 0, 0, 0]);
    const names = ["a", "b", "c", "d"].flatMap((name) => Array.from({ length: 10 }, (_, i) => `${name}${i}`));
    expect((await listNames(layout)).map(String).sort()).toEqual(names.sort());
    expect((await readdir(layout)).sort()).toEqual(["blobs", "index.json", "oci-layout"]);
  });
});

describe("openLayout()", () => {
  async function sample(path: string): Promise<{ readonly one: Image; readonly two: Image }> {
    const [one, two] = [await randomImage({ seed: "one" }), await randomImage({ seed: "two" })];
    await write(path, ["v1", one], ["app:v2", two]);
    return { one, two };
  }

  test("finds an image by its tag, its full name, the tag of its full name and its digest", async () => {
    await using folder = await makeFolder();
    const { one, two } = await sample(folder.path);
    const source = openLayout(folder.path);
    const found = await Promise.all(
      ["v1", "app:v2", "v2", one.descriptor.digest].map((name) => source.getManifest(name, { signal })),
    );
    expect(found).toEqual([one, two, two, one].map(({ descriptor, bytes }) => ({ descriptor, bytes })));
  });

  test("finds a name that containerd and Docker gave", async () => {
    await using folder = await makeFolder();
    const { one } = await sample(folder.path);
    const annotations = {
      "io.containerd.image.name": "docker.io/library/app:v9",
      "org.opencontainers.image.ref.name": "v9",
    };
    const document = { schemaVersion: 2, manifests: [{ ...one.descriptor, annotations }] };
    await writeFile(join(folder.path, "index.json"), JSON.stringify(document));
    const source = openLayout(folder.path);
    const found = await Promise.all(["docker.io/library/app:v9", "v9", ""].map((name) => source.getManifest(name)));
    expect(found.map(({ descriptor }) => descriptor)).toEqual([one.descriptor, one.descriptor, one.descriptor]);
  });

  test("finds the image of a platform by its digest, with and without its descriptor", async () => {
    await using folder = await makeFolder();
    const index = await randomIndex();
    await write(folder.path, ["app", index]);
    const source = openLayout(folder.path);
    expect((await source.getManifest("")).bytes).toEqual(index.bytes);
    for (const [i, child] of index.children.entries()) {
      const expected = index.index.manifests[i];
      if (expected === undefined) throw new Error("no entry");
      const answer = { descriptor: child.descriptor, bytes: child.bytes };
      expect(await source.getManifest(child.descriptor.digest, { expected })).toEqual(answer);
      expect(await source.getManifest(child.descriptor.digest)).toEqual(answer);
    }
  });

  test("gives the bytes of configurations and layers", async () => {
    await using folder = await makeFolder();
    const { one } = await sample(folder.path);
    const source = openLayout(folder.path);
    const descriptors = [one.manifest.config, ...one.manifest.layers];
    expect(await Promise.all(descriptors.map((d) => drain(source.openBlob(d, signal))))).toEqual(
      descriptors.map(({ digest }) => digest),
    );
  });

  test("lists the names if a name is missing or unknown", async () => {
    await using folder = await makeFolder();
    await sample(folder.path);
    const path = folder.path;
    const errors = await Promise.all(["", "v3"].map((name) => failureOf(openLayout(path).getManifest(name))));
    expect(errors.map(({ message, hint }) => ({ message, hint }))).toEqual([
      {
        message: `Cannot find an image in OCI layout "${path}": it has 2 images, a name is wanted`,
        hint: `Name one of "v1", "app:v2", as in oci:${path}:v1`,
      },
      {
        message: `Cannot find "v3" in OCI layout "${path}": there is none`,
        hint: `Name one of "v1", "app:v2", as in oci:${path}:v1`,
      },
    ]);
  });

  test("refuses a tag that two different images have", async () => {
    await using folder = await makeFolder();
    await write(folder.path, ["a:v1", await randomImage()], ["b:v1", await randomImage({ seed: "b" })]);
    const error = await failureOf(openLayout(folder.path).getManifest("v1"));
    expect(error.message).toContain("2 different images have that tag");
  });

  test.each<readonly [string, (path: string, image: Image) => Promise<unknown>, string]>([
    [
      "no folder",
      (path) => rm(path, { recursive: true }),
      "there is no file oci-layout in it, so it is not an OCI layout",
    ],
    ["no oci-layout", (path) => rm(join(path, "oci-layout")), "there is no file oci-layout in it"],
    ["no index.json", (path) => rm(join(path, "index.json")), "there is no file index.json in it"],
    ["an entry without a digest", (path) => writeFile(join(path, "index.json"), '{"manifests":[{}]}'), "its digest is"],
    [
      "a digest that is a path",
      (path) =>
        writeFile(
          join(path, "index.json"),
          JSON.stringify({ manifests: [{ mediaType: "x", size: 1, digest: "sha256:../../../etc/passwd" }] }),
        ),
      'its digest is "sha256:../../../etc/passwd"',
    ],
    ["a missing blob", (path, { descriptor }) => rm(blobPath(path, descriptor.digest)), "is missing"],
    ["a longer blob", (path, { descriptor }) => writeFile(blobPath(path, descriptor.digest), "x".repeat(9999)), "9999"],
    [
      "a changed blob",
      (path, { descriptor }) => writeFile(blobPath(path, descriptor.digest), "x".repeat(descriptor.size)),
      "have digest",
    ],
    [
      "a fifo for a blob",
      async (path, { descriptor }) => {
        await rm(blobPath(path, descriptor.digest));
        expect(Bun.spawnSync(["mkfifo", blobPath(path, descriptor.digest)]).exitCode).toBe(0);
      },
      "is not a regular file",
    ],
  ])("refuses a layout with %s", async (_, spoil, message) => {
    await using folder = await makeFolder();
    const path = join(folder.path, "layout");
    const image = await randomImage();
    await write(path, ["app", image]);
    await spoil(path, image);
    const error = await failureOf(openLayout(path).getManifest(""));
    expect(error.message).toContain(message);
    expect(error.message).toContain(path);
  });

  test("refuses an index.json that is too large or endless, before it reads it", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "index.json");
    await writeFile(join(folder.path, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    await writeFile(file, " ".repeat(MAX_DOCUMENT_BYTES + 1));
    const large = await failureOf(openLayout(folder.path).getManifest(""));
    expect(large.message).toContain(`"${file}" has 8388609 bytes, the limit is 8388608`);
    await rm(file);
    await symlink("/dev/zero", file);
    const endless = await failureOf(openLayout(folder.path).getManifest(""));
    expect(endless.message).toBe(`Cannot read "${file}": it is not a regular file`);
  });

  test("checks a layer while it is read", async () => {
    await using folder = await makeFolder();
    const { one } = await sample(folder.path);
    const [layer] = one.manifest.layers;
    if (layer === undefined) throw new Error("no layer");
    await writeFile(blobPath(folder.path, layer.digest), randomBytes("other", layer.size));
    const error = await failureOf(drain(openLayout(folder.path).openBlob(layer)));
    expect(error.message).toContain(`wanted ${layer.digest}`);
  });
});

const programs = findCounterparts(["skopeo", "umoci", "crane"]);

describe.skipIf(programs === undefined)("a layout in other hands", () => {
  function run(...argv: readonly string[]): string {
    const { exitCode, stdout, stderr } = Bun.spawnSync([...argv], { stdin: "ignore" });
    if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${stderr.toString()}`);
    return stdout.toString();
  }
  const { skopeo, umoci, crane } = programs ?? { skopeo: "", umoci: "", crane: "" };

  test("skopeo picks an image by name, copies it whole, and finds the same digests", async () => {
    await using folder = await makeFolder();
    const path = join(folder.path, "layout");
    const image = await randomImage();
    await write(path, ["registry.example.com/app:v1", image], ["other", await randomImage({ seed: "other" })]);
    const answer: unknown = JSON.parse(run(skopeo, "inspect", `oci:${path}:registry.example.com/app:v1`));
    expect(answer).toMatchObject({
      Digest: image.descriptor.digest,
      Architecture: "amd64",
      Layers: image.layers.map(({ descriptor }) => descriptor.digest),
    });
    const copy = join(folder.path, "copy");
    run(skopeo, "copy", "--quiet", `oci:${path}:registry.example.com/app:v1`, `oci:${copy}:copied`);
    expect((await openLayout(copy).getManifest("copied")).bytes).toEqual(image.bytes);
  });

  test("skopeo copies a multi-platform image, and we read and extend the copy", async () => {
    await using folder = await makeFolder();
    const [path, copy] = [join(folder.path, "layout"), join(folder.path, "copy")];
    const index = await randomIndex();
    await write(path, ["app", index]);
    run(skopeo, "copy", "--quiet", "--all", `oci:${path}:app`, `oci:${copy}:copied`);
    await write(copy, ["new", await randomImage()]);
    expect(await listNames(copy)).toEqual(["copied", "new"]);
    expect((await openLayout(copy).getManifest("copied")).bytes).toEqual(index.bytes);
    expect(run(skopeo, "inspect", "--raw", `oci:${copy}:new`)).toContain(MEDIA_TYPES.ociLayer);
  });

  test("crane finds the image valid once skopeo has put it into a tarball", async () => {
    await using folder = await makeFolder();
    const path = join(folder.path, "layout");
    const tarball = join(folder.path, "image.tar");
    await write(path, ["app:v1", await randomImage()]);
    run(skopeo, "copy", "--quiet", `oci:${path}:app:v1`, `docker-archive:${tarball}:app:v1`);
    expect(run(crane, "validate", "--tarball", tarball)).toBe(`PASS: ${tarball}\n`);
  });

  test("umoci unpacks an image", async () => {
    await using folder = await makeFolder();
    const path = join(folder.path, "layout");
    await write(path, ["app:v1", await randomImage({ seed: "seed" })], ["two", await randomImage({ seed: "two" })]);
    const bundle = join(folder.path, "bundle");
    run(umoci, "unpack", "--rootless", "--image", `${path}:app:v1`, bundle);
    expect((await readdir(join(bundle, "rootfs", "data"))).sort()).toEqual(["seed-0", "seed-1"]);
    expect(await readFile(join(bundle, "rootfs", "data", "seed-1"))).toEqual(Buffer.from(randomBytes("seed-1", 3000)));
  });

  test("umoci finds nothing to complain about, and its clean-up keeps all that is named", async () => {
    await using folder = await makeFolder();
    const path = join(folder.path, "layout");
    const two = await randomImage({ seed: "two" });
    await write(path, ["one", await randomImage({ seed: "one" })], ["two", two]);
    const before = await snapshot(path);
    run(umoci, "gc", "--layout", path);
    expect(run(umoci, "ls", "--layout", path).trim().split("\n").sort()).toEqual(["one", "two"]);
    expect(await snapshot(path)).toEqual(before);
    const moved = join(folder.path, "moved");
    await cp(path, moved, { recursive: true });
    expect((await openLayout(moved).getManifest("two")).descriptor).toEqual(two.descriptor);
  });
});
