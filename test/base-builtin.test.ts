import { describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  BUILTIN_PLATFORMS,
  openBuiltin,
  openScratch,
  readStoredZip,
  STATIC_LAYER,
  staticEntries,
} from "../lib/base-builtin.ts";
import { CompressionPool, FAST_GZIP } from "../lib/compress.ts";
import { writeLayer } from "../lib/layer.ts";
import type { Image, ImageSource, Index } from "../lib/image.ts";
import { writeToLayout } from "../lib/layout.ts";
import { type ImageConfig, readConfig } from "../lib/oci-config.ts";
import { type Descriptor, digestOf, MEDIA_TYPES, readDocument, readIndex, readManifest } from "../lib/oci.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { makeFolder } from "./helpers/world-folders.ts";

const { signal } = new AbortController();

/** The index and all its images. */
async function readAll(source: ImageSource): Promise<Index> {
  const { descriptor, bytes } = await source.getManifest("");
  const index = readIndex(bytes, "index");
  const children = await Promise.all(index.manifests.map((entry) => readImage(source, entry)));
  return { kind: "index", descriptor, bytes, index, children };
}

async function readImage(source: ImageSource, entry: Descriptor): Promise<Image> {
  const { descriptor, bytes } = await source.getManifest(entry.digest, { expected: entry });
  const manifest = readManifest(bytes, "manifest");
  const configBytes = await readDocument(source.openBlob(manifest.config), manifest.config, "config");
  const config = readConfig(configBytes, "config");
  const layers = manifest.layers.map((layer, i) => {
    const diffId = config.rootfs.diff_ids[i];
    if (diffId === undefined) throw new Error("no diffID");
    return { descriptor: layer, diffId, open: () => source.openBlob(layer) };
  });
  return { kind: "image", descriptor, bytes, manifest, configBytes, config, layers };
}

async function openStatic(folder: string, workers = 0): Promise<ImageSource> {
  await using pool = new CompressionPool({ workers });
  const file = join(folder, "static.tar.gz");
  const how = { file, mediaType: MEDIA_TYPES.ociLayer, codec: FAST_GZIP, pool, signal };
  return openBuiltin(await writeLayer(staticEntries(), how).done);
}

/** Every linux platform that the Go tool here can compile for, as `GOARCH`. */
function goArchitectures(): readonly string[] {
  const { stdout } = Bun.spawnSync(["go", "tool", "dist", "list"]);
  const lines = stdout.toString().split("\n");
  return lines.filter((line) => line.startsWith("linux/")).map((line) => line.slice("linux/".length));
}

describe("openBuiltin()", () => {
  test("is the same image on every run, in every folder, with every number of threads", async () => {
    await using one = await makeFolder();
    await using two = await makeFolder();
    const sources = [await openStatic(one.path), await openStatic(two.path, 2)];
    const indexes = await Promise.all(sources.map((source) => source.getManifest("latest")));
    expect(indexes[0]).toEqual(indexes[1]);
    // Changes only with the certificates (a new Bun) or the time zones: then it is a new version of the base, on purpose.
    const { descriptor, diffId } = (await readAll(await openStatic(one.path))).children[0]?.layers[0] ?? {};
    const { digest, size } = descriptor ?? {};
    expect({ digest, size, diffId }).toEqual(STATIC_LAYER);
    expect(diffId).toBe("sha256:382d7423e94e89fac869e1a683094bff5d2a28efa39780b97f537fe1aa7ce3a9");
  });

  test("has every linux platform that Go has, all on one layer", async () => {
    await using folder = await makeFolder();
    const { index, children, descriptor } = await readAll(await openStatic(folder.path));
    expect(descriptor.mediaType).toBe(MEDIA_TYPES.ociIndex);
    expect(index.manifests.map(({ platform }) => platform)).toEqual([...BUILTIN_PLATFORMS]);
    expect([...new Set(BUILTIN_PLATFORMS.map(({ architecture }) => architecture))].sort()).toEqual(
      [...goArchitectures()].sort(),
    );
    const layers = new Set(children.flatMap((image) => image.layers.map((layer) => layer.descriptor.digest)));
    expect(layers.size).toBe(1);
  });

  test("is set up as distroless static:nonroot", async () => {
    await using folder = await makeFolder();
    const { children } = await readAll(await openStatic(folder.path));
    const [diffId] = children[0]?.config.rootfs.diff_ids ?? [];
    if (diffId === undefined) throw new Error("no layer");
    expect(children.map(({ config }) => config)).toEqual(
      BUILTIN_PLATFORMS.map(({ os, architecture, variant }): ImageConfig => ({
        os,
        architecture,
        ...(variant === undefined ? {} : { variant }),
        created: "1970-01-01T00:00:00Z",
        history: [{ author: "ko", created: "1970-01-01T00:00:00Z", created_by: "ko.builtin/static" }],
        rootfs: { type: "layers", diff_ids: [diffId] },
        config: {
          Env: [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
          ],
          User: "65532",
          WorkingDir: "/home/nonroot",
        },
      })),
    );
  });

  test("knows its images by digest and its index as latest, and nothing else", async () => {
    await using folder = await makeFolder();
    const source = await openStatic(folder.path);
    const { descriptor } = await source.getManifest("");
    expect((await source.getManifest(descriptor.digest)).descriptor).toEqual(descriptor);
    const unknown = [source.getManifest("v1"), source.getManifest(digestOf(new Uint8Array(1)))];
    expect(await Promise.all(unknown.map((promise) => promise.catch(String)))).toEqual([
      'KoError: Cannot find "v1" in ko.builtin/static: its only tag is "latest"',
      `KoError: Cannot find "${digestOf(new Uint8Array(1))}" in ko.builtin/static: its only tag is "latest"`,
    ]);
  });
});

describe("openScratch()", () => {
  test("has the same platforms, no layer and no settings", async () => {
    const { index, children } = await readAll(openScratch());
    expect(index.manifests.map(({ platform }) => platform)).toEqual([...BUILTIN_PLATFORMS]);
    expect(children.map(({ layers, config }) => ({ layers, config: config.config, rootfs: config.rootfs }))).toEqual(
      BUILTIN_PLATFORMS.map(() => ({ layers: [], config: {}, rootfs: { type: "layers", diff_ids: [] } })),
    );
  });
});

describe("staticEntries()", () => {
  test("has each folder before its content, sorted, and no name twice", async () => {
    const entries = await Array.fromAsync(staticEntries());
    const names = entries.map(({ name }) => name);
    expect(names).toEqual([...new Set(names)].sort());
    const folders = new Set(entries.filter(({ type }) => type === "directory").map(({ name }) => name));
    expect(names.filter((name) => name.includes("/") && !folders.has(name.slice(0, name.lastIndexOf("/"))))).toEqual(
      [],
    );
  });

  test("has the folders with the rights that programs rely on", async () => {
    const rights = (await Array.fromAsync(staticEntries()))
      .filter(({ name }) => ["tmp", "root", "home/nonroot", "etc", "etc/passwd"].includes(name))
      .map(({ name, mode, uid = 0, gid = 0 }) => `${name} ${mode.toString(8)} ${uid}:${gid}`);
    expect(rights).toEqual([
      "etc 755 0:0",
      "etc/passwd 644 0:0",
      "home/nonroot 700 65532:65532",
      "root 700 0:0",
      "tmp 1777 0:0",
    ]);
  });
});

describe("readStoredZip()", () => {
  const zip = join(import.meta.dir, "..", "lib", "zoneinfo.zip");
  /** Where the central directory begins: the record at the end says so, and this file has no comment after it. */
  const centralOf = (bytes: Uint8Array): number => new DataView(bytes.buffer).getUint32(bytes.byteLength - 6, true);

  test("reads all time zones", async () => {
    const members = readStoredZip(await Bun.file(zip).bytes());
    const zones = new Map(members.map(({ name, content }) => [name, new TextDecoder("latin1").decode(content)]));
    expect(zones.size).toBe(598);
    expect([...zones.values()].filter((text) => !text.startsWith("TZif"))).toEqual([]);
    expect(zones.get("Europe/Berlin")).toEndWith("\nCET-1CEST,M3.5.0,M10.5.0/3\n");
  });

  test.each<readonly [string, (bytes: Uint8Array) => Uint8Array, string]>([
    ["nothing", () => new Uint8Array(0), "no ZIP record 6054b50"],
    ["other bytes", () => new Uint8Array(100), "no ZIP record 6054b50"],
    ["a file that is cut", (bytes) => bytes.subarray(0, 1000), "no ZIP record 6054b50"],
    ["a member that is changed", (bytes) => bytes.with(200, 0xff), 'ZIP member "Africa/Accra" is damaged'],
    [
      "a member that is compressed",
      (bytes) => bytes.with(centralOf(bytes) + 10, 8),
      'ZIP member "Africa/Abidjan" is compressed',
    ],
  ])("refuses %s", async (_, spoil, message) => {
    const bytes = spoil(await Bun.file(zip).bytes());
    expect(() => readStoredZip(bytes)).toThrow(message);
  });
});

const programs = findCounterparts(["umoci"]);

describe.skipIf(programs === undefined)("ko.builtin/static in other hands", () => {
  test("umoci unpacks it, and the Go program in it finds users, time zones and certificates", async () => {
    await using folder = await makeFolder();
    const index = await readAll(await openStatic(folder.path));
    const [image] = index.children;
    if (image === undefined) throw new Error("no image");
    const layout = join(folder.path, "layout");
    await writeToLayout(layout, [{ built: image, name: "static" }], { signal });
    const bundle = join(folder.path, "bundle");
    const argv = [programs?.umoci ?? "", "unpack", "--rootless", "--image", `${layout}:static`, bundle];
    const { exitCode, stderr } = Bun.spawnSync(argv);
    expect(exitCode === 0 ? "" : stderr.toString()).toBe("");
    const root = join(bundle, "rootfs");
    expect((await readdir(root)).sort()).toEqual(["etc", "home", "root", "tmp", "usr"]);
    const read = (name: string): Promise<string> => readFile(join(root, name), "utf8");
    expect(await read("etc/passwd")).toContain("nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n");
    const date = Bun.spawnSync(["date", "-d", "@0", "+%H:%M %Z"], {
      env: { TZ: "Asia/Tokyo", TZDIR: join(root, "usr/share/zoneinfo"), PATH: process.env["PATH"] ?? "" },
    });
    expect(date.stdout.toString()).toBe("09:00 JST\n");
    const certificates = (await read("etc/ssl/certs/ca-certificates.crt")).match(/-{5}BEGIN [^]+?-{5}END .*\n/g) ?? [];
    expect(certificates.filter((text) => !new X509Certificate(text).ca)).toEqual([]);
    expect(certificates.length).toBeGreaterThan(100);
  });
});
