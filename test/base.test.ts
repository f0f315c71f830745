import { describe, expect, test } from "bun:test";
import { type Base, readBase, selectPlatforms, showBase } from "../lib/base.ts";
import type { BaseName } from "../lib/config.ts";
import { messageOf } from "../lib/errors.ts";
import type { BlobSource, Image, ImageSource, Index } from "../lib/image.ts";
import {
  createPlatformMatcher,
  describe as descriptorOf,
  type Descriptor,
  encodeIndex,
  encodeManifest,
  MEDIA_TYPES,
  type Platform,
} from "../lib/oci.ts";
import { parseReference } from "../lib/reference.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { randomImage, randomIndex } from "./helpers/images.ts";

const signal: AbortSignal = new AbortController().signal;
const REGISTRY: BaseName = { kind: "registry", reference: parseReference("registry.example/base:v1") };

interface Document {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

/** A source in memory that records the requests. */
class MemorySource implements ImageSource {
  readonly asked: string[] = [];
  readonly blobSource?: BlobSource;
  readonly #manifests = new Map<string, Document>();
  readonly #blobs = new Map<string, Uint8Array>();

  constructor(top: Document, images: readonly Image[], blobSource?: BlobSource) {
    if (blobSource !== undefined) this.blobSource = blobSource;
    for (const name of ["v1", "", top.descriptor.digest]) this.#manifests.set(name, top);
    for (const image of images) {
      this.#manifests.set(image.descriptor.digest, image);
      this.#blobs.set(image.manifest.config.digest, image.configBytes);
    }
  }

  async getManifest(reference: string, options: { readonly expected?: Descriptor } = {}): Promise<Document> {
    this.asked.push(options.expected === undefined ? `manifest ${reference}` : "entry");
    const found = this.#manifests.get(reference);
    if (found === undefined) throw new Error(`no manifest ${reference}`);
    return found;
  }

  async *openBlob(descriptor: Descriptor): AsyncGenerator<Uint8Array, void, void> {
    this.asked.push(descriptor.mediaType === MEDIA_TYPES.ociConfig ? "config" : "layer");
    const bytes = this.#blobs.get(descriptor.digest);
    if (bytes === undefined) throw new Error("no blob");
    yield bytes;
  }
}

function sourceOf(top: Image | Index): MemorySource {
  return new MemorySource(top, top.kind === "image" ? [top] : top.children);
}

function read(source: ImageSource, spec: BaseName = REGISTRY): Promise<Base> {
  return readBase(source, { spec, shown: showBase(spec), signal });
}

/** An image whose manifest is changed in a way that no builder of ours would. */
function withManifest(image: Image, change: Readonly<Record<string, unknown>>): Image {
  const bytes = encodeManifest({ ...image.manifest, ...change });
  return { ...image, bytes, descriptor: descriptorOf(image.descriptor.mediaType, bytes) };
}

/** An index of these entries. */
function indexOf(entries: readonly Descriptor[], children: readonly Image[]): MemorySource {
  const bytes = encodeIndex({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: entries });
  return new MemorySource({ bytes, descriptor: descriptorOf(MEDIA_TYPES.ociIndex, bytes) }, children);
}

describe("readBase()", () => {
  test("reads an image, with its layers where they are", async () => {
    const image = await randomImage();
    const { annotations: _, ...plain } = image.manifest;
    const blobSource = { host: "registry.example", path: "base" };
    const source = new MemorySource(image, [image], blobSource);
    const base = await read(source);
    const { descriptor, bytes, manifest, configBytes, config, layers } = await base.image();
    expect({ text: base.text, name: base.name, digest: base.digest, entries: base.entries }).toEqual({
      text: `registry.example/base:v1@${image.descriptor.digest}`,
      name: "registry.example/base:v1",
      digest: image.descriptor.digest,
      entries: undefined,
    });
    expect({ descriptor, bytes, manifest, configBytes, config }).toEqual({
      descriptor: image.descriptor,
      bytes: image.bytes,
      manifest: plain,
      configBytes: image.configBytes,
      config: image.config,
    });
    expect(layers.map(({ descriptor: of, diffId, source: from }) => ({ of, diffId, from }))).toEqual(
      image.layers.map((layer) => ({ of: layer.descriptor, diffId: layer.diffId, from: blobSource })),
    );
    expect(source.asked).toEqual(["manifest v1", "config"]);
  });

  test("reads each image of an index once, and only when it is asked for", async () => {
    const index = await randomIndex();
    const source = sourceOf(index);
    const base = await read(source);
    expect(base.entries).toEqual(index.index.manifests);
    expect(source.asked).toEqual(["manifest v1"]);
    const [first] = base.entries ?? [];
    const images = await Promise.all([base.image(first), base.image(first)]);
    expect(images[0] === images[1]).toBe(true);
    const descriptors: unknown = [images[0]?.descriptor];
    expect(descriptors).toEqual([index.children[0]?.descriptor]);
    expect(source.asked).toEqual(["manifest v1", "entry", "config"]);
  });

  test.each<[BaseName, (digest: string) => Readonly<Record<string, string | undefined>>]>([
    [
      REGISTRY,
      (digest) => ({
        asks: "v1",
        text: `registry.example/base:v1@${digest}`,
        name: "registry.example/base:v1",
        digest,
      }),
    ],
    [
      { kind: "builtin" },
      (digest) => ({ asks: "", text: `ko.builtin/static@${digest}`, name: "ko.builtin/static:latest", digest }),
    ],
    [{ kind: "scratch" }, () => ({ asks: "", text: "scratch", name: undefined, digest: undefined })],
    [
      { kind: "layout", path: "/l", tag: undefined },
      (digest) => ({ asks: "", text: "oci:/l", name: undefined, digest }),
    ],
    [
      { kind: "layout", path: "/l", tag: "v1" },
      (digest) => ({ asks: "v1", text: "oci:/l:v1", name: undefined, digest }),
    ],
  ])("asks for and names a base of kind %j", async (spec, expected) => {
    const image = await randomImage();
    const source = sourceOf(image);
    const { text, name, digest } = await read(source, spec);
    const got: unknown = { asks: source.asked[0]?.slice("manifest ".length), text, name, digest };
    expect(got).toEqual(expected(image.descriptor.digest));
  });

  test("asks for the digest where one is given, and names it alone", async () => {
    const image = await randomImage();
    const source = sourceOf(image);
    const { digest } = image.descriptor;
    const base = await read(source, {
      kind: "registry",
      reference: parseReference(`registry.example/base:other@${digest}`),
    });
    expect([source.asked, base.text, base.name]).toEqual([
      [`manifest ${digest}`],
      `registry.example/base:other@${digest}`,
      `registry.example/base@${digest}`,
    ]);
  });

  const shown = "registry.example/base:v1";
  test("refuses a media type that is neither image nor index", async () => {
    const image = await randomImage();
    const source = new MemorySource(
      { bytes: image.bytes, descriptor: { ...image.descriptor, mediaType: "application/x" } },
      [image],
    );
    expect(messageOf(await rejectionOf(read(source)))).toBe(
      `Cannot use base "${shown}": its media type is "application/x", an image or an index is wanted`,
    );
  });

  test.each<[string, (image: Image) => Image, string]>([
    [
      "an artifact that is not a container image",
      (image) => withManifest(image, { config: { ...image.manifest.config, mediaType: "application/vnd.helm+json" } }),
      `Cannot use base "${shown}": its configuration is of type "application/vnd.helm+json", so it is not a container image`,
    ],
    [
      "more layers than diffIDs",
      (image) => withManifest(image, { layers: [...image.manifest.layers, ...image.manifest.layers] }),
      `Cannot use base "${shown}": its manifest lists 4 layers, its configuration 2`,
    ],
    [
      "fewer layers than diffIDs",
      (image) => withManifest(image, { layers: [] }),
      `Cannot use base "${shown}": its manifest lists 0 layers, its configuration 2`,
    ],
    [
      "a configuration of another size",
      (image) => withManifest(image, { config: { ...image.manifest.config, size: image.manifest.config.size + 1 } }),
      `Cannot trust configuration of base "${shown}": got`,
    ],
    [
      "a configuration of other bytes",
      (image) => ({ ...image, configBytes: new TextEncoder().encode("x".repeat(image.configBytes.byteLength)) }),
      `Cannot trust configuration of base "${shown}": its`,
    ],
    [
      "a configuration over 8 MiB",
      (image) => withManifest(image, { config: { ...image.manifest.config, size: 2 ** 30 } }),
      `Cannot read configuration of base "${shown}": 1073741824 bytes, the limit is 8388608`,
    ],
  ])("refuses %s", async (_, change, why) => {
    const base = await read(sourceOf(change(await randomImage())));
    expect(messageOf(await rejectionOf(base.image()))).toStartWith(why);
  });

  test("says of which platform a broken image is", async () => {
    const index = await randomIndex();
    const broken = index.children.map((image) => ({ ...image, configBytes: new Uint8Array(1) }));
    const base = await read(new MemorySource(index, broken));
    expect(messageOf(await rejectionOf(base.image(base.entries?.[1])))).toStartWith(
      `Cannot trust configuration of base "${shown} for linux/arm64/v8"`,
    );
  });

  test("refuses an index that is an image besides", async () => {
    const { bytes } = await randomIndex();
    const both = new TextEncoder().encode(
      JSON.stringify({ ...JSON.parse(new TextDecoder().decode(bytes)), layers: [] }),
    );
    const source = new MemorySource({ bytes: both, descriptor: descriptorOf(MEDIA_TYPES.ociIndex, both) }, []);
    expect(messageOf(await rejectionOf(read(source)))).toBe(
      `Cannot read base "${shown}": it is an image and an index at once, wanted one of them`,
    );
  });
});

const PLATFORMS: readonly (Platform | undefined)[] = [
  { os: "linux", architecture: "amd64" },
  { os: "linux", architecture: "arm", variant: "v6" },
  { os: "linux", architecture: "arm", variant: "v7" },
  { os: "linux", architecture: "arm64", variant: "v8" },
  { os: "unknown", architecture: "unknown" },
  { os: "windows", architecture: "amd64", "os.version": "10.0.17763.1" },
  { os: "windows", architecture: "amd64", "os.version": "10.0.20348.2" },
];

/** The chosen platforms, as `os/architecture[/variant][:version]`. */
async function choose(wanted: readonly string[], platforms = PLATFORMS): Promise<readonly (string | undefined)[]> {
  const children = await Promise.all(
    platforms.map((platform, i) => randomImage({ seed: `s${i}`, layers: 0, ...(platform && { platform }) })),
  );
  const entries = children.map(({ descriptor }, i): Descriptor => {
    const platform = platforms[i];
    return { ...descriptor, ...(platform === undefined ? {} : { platform }) };
  });
  const base = await read(indexOf(entries, children));
  const chosen = await selectPlatforms(base, wanted, createPlatformMatcher);
  const images = await Promise.all(chosen.map((each) => each.image()));
  const digests: unknown = images.map(({ descriptor }) => descriptor.digest);
  expect(digests).toEqual(chosen.map(({ entry }) => entry?.digest));
  return chosen.map(({ platform: { os, architecture, variant, "os.version": version } }) => {
    return [os, architecture, variant, version].filter(Boolean).join("/");
  });
}

describe("selectPlatforms()", () => {
  test.each<[readonly string[], readonly string[]]>([
    [["linux/amd64"], ["linux/amd64"]],
    [["linux/arm/v7"], ["linux/arm/v7"]],
    [["linux/arm"], ["linux/arm/v6", "linux/arm/v7"]],
    [["linux/arm64"], ["linux/arm64/v8"]],
    [["windows/amd64:10.0.17763"], ["windows/amd64/10.0.17763.1"]],
    [["windows"], ["windows/amd64/10.0.17763.1", "windows/amd64/10.0.20348.2"]],
    // The base's order, not the user's; each once.
    [
      ["linux/arm64", "linux/amd64", "linux/amd64"],
      ["linux/amd64", "linux/arm64/v8"],
    ],
    [
      ["linux/arm", "linux/arm/v6"],
      ["linux/arm/v6", "linux/arm/v7"],
    ],
    [
      ["all"],
      [
        "linux/amd64",
        "linux/arm/v6",
        "linux/arm/v7",
        "linux/arm64/v8",
        "windows/amd64/10.0.17763.1",
        "windows/amd64/10.0.20348.2",
      ],
    ],
  ])("chooses for %j", async (wanted, expected) => {
    expect(await choose(wanted)).toEqual([...expected]);
  });

  const has =
    "it has linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8, windows/amd64:10.0.17763.1, windows/amd64:10.0.20348.2";
  test.each<[readonly string[], string]>([
    [["linux/s390x"], "linux/s390x"],
    [["linux/amd64", "linux/s390x", "plan9/386"], "linux/s390x, plan9/386"],
    [["linux/arm/v5"], "linux/arm/v5"],
    [["linux/amd64/v2"], "linux/amd64/v2"],
    [["windows/amd64:10.0.17763.2"], "windows/amd64:10.0.17763.2"],
    [["unknown/unknown"], "unknown/unknown"],
  ])("lists the platforms of %j that the base lacks, and those that it has", async (wanted, lacking) => {
    const message = messageOf(await rejectionOf(choose(wanted)));
    expect(message.replace(/@sha256:[0-9a-f]{64}/, "")).toBe(
      `Cannot build for ${lacking} on base "registry.example/base:v1": ${has}`,
    );
  });

  test("finds nothing in an index of attestations alone", async () => {
    const message = messageOf(await rejectionOf(choose(["all"], PLATFORMS.slice(4, 5))));
    expect(message).toStartWith("Cannot build for all on base");
    expect(message).toEndWith("it has no platform");
  });

  test("finds nothing in an empty index", async () => {
    expect(messageOf(await rejectionOf(choose(["linux/amd64"], [])))).toEndWith("it has no platform");
  });

  test("takes an entry without a platform for all only, and looks into its image", async () => {
    expect(await choose(["all"], [undefined])).toEqual(["linux/amd64"]);
    expect(messageOf(await rejectionOf(choose(["linux/amd64"], [undefined])))).toMatch(/it has sha256:[0-9a-f]{64}$/);
  });

  test("does not look into images whose platform the index tells", async () => {
    const source = sourceOf(await randomIndex());
    await selectPlatforms(await read(source), ["all"], createPlatformMatcher);
    expect(source.asked).toEqual(["manifest v1"]);
  });

  test("refuses an index in the index", async () => {
    const inner = await randomIndex();
    const platform = { os: "linux", architecture: "amd64" };
    const base = await read(indexOf([{ ...inner.descriptor, platform }], []));
    expect(messageOf(await rejectionOf(selectPlatforms(base, ["linux/amd64"], createPlatformMatcher)))).toBe(
      `Cannot use base "${base.text}": its entry for linux/amd64 is of type "${MEDIA_TYPES.ociIndex}", an image is wanted`,
    );
  });

  test.each<[Platform, readonly string[]]>([
    [{ os: "linux", architecture: "arm", variant: "v7" }, ["linux/arm"]],
    [{ os: "linux", architecture: "arm", variant: "v7" }, ["linux/arm/v7", "linux/arm"]],
    [{ os: "linux", architecture: "s390x" }, ["all"]],
    // An image without a platform counts as linux/amd64.
    [{ os: "", architecture: "" }, ["linux/amd64"]],
  ])("takes the single image of %j for %j", async (platform, wanted) => {
    const image = await randomImage({ platform });
    const chosen = await selectPlatforms(await read(sourceOf(image)), wanted, createPlatformMatcher);
    expect(chosen.map((each) => each.entry)).toEqual([undefined]);
    expect((await chosen[0]?.image())?.descriptor).toEqual(image.descriptor);
  });

  test("refuses a single image of another platform", async () => {
    const image = await randomImage({ platform: { os: "linux", architecture: "arm", variant: "v7" } });
    const base = await read(sourceOf(image));
    const work = selectPlatforms(base, ["linux/amd64", "linux/arm"], createPlatformMatcher);
    expect(messageOf(await rejectionOf(work))).toBe(
      `Cannot build for linux/amd64 on base "${base.text}": it has linux/arm/v7`,
    );
  });
});

describe("showBase()", () => {
  test.each<[BaseName, string]>([
    [REGISTRY, "registry.example/base:v1"],
    [{ kind: "registry", reference: parseReference("alpine") }, "index.docker.io/library/alpine:latest"],
    [{ kind: "builtin" }, "ko.builtin/static"],
    [{ kind: "scratch" }, "scratch"],
    [{ kind: "layout", path: "/l", tag: undefined }, "oci:/l"],
    [{ kind: "layout", path: "/l", tag: "v1" }, "oci:/l:v1"],
  ])("of %j is %s", (spec, expected) => {
    expect(showBase(spec)).toBe(expected);
  });
});
