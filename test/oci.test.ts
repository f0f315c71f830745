import { describe, expect, test } from "bun:test";
import { KoError, messageOf } from "../lib/errors.ts";
import {
  describe as descriptorOf,
  type Descriptor,
  digestOf,
  encodeIndex,
  encodeManifest,
  formatPlatform,
  hexOf,
  isDigest,
  isForeignLayer,
  isIndexType,
  isManifestType,
  MAX_DOCUMENT_BYTES,
  MEDIA_TYPES,
  readDescriptor,
  readDocument,
  readIndex,
  readManifest,
  verified,
} from "../lib/oci.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { askGo, base64, listOf, textOf } from "./helpers/go-fixtures.ts";

const DIGEST = `sha256:${"0123456789abcdef".repeat(4)}` as const;
const OTHER = `sha256:${"f".repeat(64)}` as const;
const LAYER: Descriptor = { mediaType: MEDIA_TYPES.ociLayer, size: 5, digest: DIGEST };
const CONFIG: Descriptor = { mediaType: MEDIA_TYPES.ociConfig, size: 2, digest: OTHER };

const FULL_DESCRIPTOR = {
  digest: DIGEST,
  size: 9_007_199_254_740_991,
  mediaType: "application/x",
  data: "e30=",
  urls: ["https://a/<b>?c&d"],
  annotations: { b: "2", a: "1" },
  platform: {
    variant: "v7",
    os: "linux",
    architecture: "arm",
    "os.version": "1",
    "os.features": ["f"],
    features: ["sse4"],
    more: 1,
  },
  artifactType: "application/y",
  unknown: {},
};

const MANIFESTS: readonly (readonly [string, string])[] = [
  [
    "all fields",
    JSON.stringify({
      layers: [FULL_DESCRIPTOR, LAYER],
      config: FULL_DESCRIPTOR,
      mediaType: MEDIA_TYPES.ociManifest,
      schemaVersion: 2,
      artifactType: "application/z",
      annotations: { "org.example/b": "<&>", a: "1" },
    }),
  ],
  ["no layers and no media type", JSON.stringify({ schemaVersion: 2, config: CONFIG, layers: [] })],
  [
    "null in descriptors",
    JSON.stringify({
      schemaVersion: 2,
      config: { ...CONFIG, urls: null, annotations: null, platform: null, data: null },
      layers: [{ ...LAYER, platform: {} }],
      annotations: null,
    }),
  ],
];

const INDEXES: readonly (readonly [string, string])[] = [
  [
    "all fields",
    JSON.stringify({
      manifests: [FULL_DESCRIPTOR, { ...CONFIG, size: 0 }],
      mediaType: MEDIA_TYPES.dockerList,
      schemaVersion: 2,
      annotations: { b: "2", a: "1" },
    }),
  ],
  ["no entries", JSON.stringify({ schemaVersion: 2, manifests: [] })],
];

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const textOfBytes = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

const answers = await askGo("ggcr", {
  Manifests: MANIFESTS.map(([, text]) => base64(text)),
  Indexes: INDEXES.map(([, text]) => base64(text)),
});
const needsGo = test.skipIf(answers === undefined);

function numbered(table: readonly (readonly [string, string, ...string[]])[]): (readonly [string, string, number])[] {
  return table.map(([name, text], i) => [name, text, i] as const);
}

describe("readManifest() and encodeManifest()", () => {
  needsGo.each(numbered(MANIFESTS))("write the bytes of go-containerregistry: %s", (_, text, i) => {
    const expected = textOf(listOf(answers, "Manifests")[i]);
    expect(textOfBytes(encodeManifest(readManifest(bytesOf(text), "m")))).toBe(expected ?? "it refuses");
  });

  test("drop unknown fields", () => {
    const document = { schemaVersion: 2, config: CONFIG, layers: [LAYER], subject: LAYER, extra: 1 };
    expect(readManifest(bytesOf(JSON.stringify(document)), "m")).toEqual({
      schemaVersion: 2,
      config: CONFIG,
      layers: [LAYER],
    });
  });
});

describe("readManifest()", () => {
  const good = { schemaVersion: 2, config: CONFIG, layers: [LAYER] };
  test.each<[string, unknown, string]>([
    ["a list", [], "Cannot read m: it is not a JSON object"],
    ["null", null, "Cannot read m: it is not a JSON object"],
    ["nothing", {}, "Cannot read m: it has no config and layers, so it is not an image manifest"],
    [
      "schema 1",
      { schemaVersion: 1, name: "a", fsLayers: [], history: [], signatures: [] },
      "Cannot read m: it is a schema 1 manifest, wanted schema 2 or OCI",
    ],
    ["an index", { schemaVersion: 2, manifests: [] }, "Cannot read m: it has no config and layers"],
    [
      "an image and an index at once",
      { ...good, manifests: [] },
      "Cannot read m: it is an image and an index at once, wanted one of them",
    ],
    ["an object for layers", { ...good, layers: {} }, "Cannot read m: it has no config and layers"],
    ["a list for config", { ...good, config: [] }, "Cannot read m: it has no config and layers"],
    [
      "text for schemaVersion",
      { ...good, schemaVersion: "2" },
      'Cannot read schemaVersion of m: "2" is not a whole number',
    ],
    ["a fraction for schemaVersion", { ...good, schemaVersion: 2.5 }, "Cannot read schemaVersion of m: 2.5"],
    ["a number for mediaType", { ...good, mediaType: 1 }, "Cannot read mediaType of m: 1 is not a string"],
    ["text as a layer", { ...good, layers: [LAYER, DIGEST] }, "Cannot read layer 1 of m: it is not an object"],
    ["null as a layer", { ...good, layers: [null] }, "Cannot read layer 0 of m: it is not an object"],
    [
      "a list for annotations",
      { ...good, annotations: [] },
      "Cannot read annotations of m: it is not a map of strings",
    ],
    [
      "null in annotations",
      { ...good, annotations: { a: null } },
      "Cannot read annotations of m: it is not a map of strings",
    ],
    ["an empty config", { ...good, config: {} }, "Cannot read config of m: its digest is missing"],
  ])("refuses %s", (_, document, why) => {
    expect(() => readManifest(bytesOf(JSON.stringify(document)), "m")).toThrow(why);
  });

  test.each([
    ["no JSON", "<html>"],
    ["nothing at all", ""],
    ["two documents", "{}{}"],
  ])("refuses %s", (_, text) => {
    expect(() => readManifest(bytesOf(text), "m")).toThrow(new KoError("Cannot read m: it is not JSON"));
  });
});

describe("readIndex() and encodeIndex()", () => {
  needsGo.each(numbered(INDEXES))("write the bytes of go-containerregistry: %s", (_, text, i) => {
    const expected = textOf(listOf(answers, "Indexes")[i]);
    expect(textOfBytes(encodeIndex(readIndex(bytesOf(text), "i")))).toBe(expected ?? "it refuses");
  });
});

describe("readIndex()", () => {
  const good = { schemaVersion: 2, manifests: [CONFIG] };
  test.each<[string, unknown, string]>([
    ["an image", { schemaVersion: 2, config: CONFIG, layers: [] }, "Cannot read i: it has no list of manifests"],
    ["an object for manifests", { manifests: {} }, "Cannot read i: it has no list of manifests"],
    ["layers besides", { ...good, layers: [] }, "Cannot read i: it is an image and an index at once"],
    ["a config besides", { ...good, config: CONFIG }, "Cannot read i: it is an image and an index at once"],
    ["text as an entry", { manifests: ["x"] }, "Cannot read entry 0 of i: it is not an object"],
    [
      "text as a platform",
      { manifests: [{ ...CONFIG, platform: "linux/amd64" }] },
      "Cannot read entry 0 of i: its platform is not an object",
    ],
    [
      "a number in a platform",
      { manifests: [{ ...CONFIG, platform: { os: 1 } }] },
      "Cannot read os of entry 0 of i: 1 is not a string",
    ],
    [
      "text for os.features",
      { manifests: [{ ...CONFIG, platform: { os: "a", "os.features": "x" } }] },
      "Cannot read os.features of entry 0 of i: it is not a list of strings",
    ],
  ])("refuses %s", (_, document, why) => {
    expect(() => readIndex(bytesOf(JSON.stringify(document)), "i")).toThrow(why);
  });

  test("reads null as a missing field", () => {
    expect(readIndex(bytesOf(JSON.stringify({ ...good, layers: null, config: null })), "i")).toEqual(good);
  });
});

describe("readDescriptor()", () => {
  const digestHint = "wanted sha256: and 64 hex digits";
  test.each<[string, unknown, string]>([
    ["a list", [], "Cannot read d: it is not an object"],
    ["null", null, "Cannot read d: it is not an object"],
    ["no digest", { ...LAYER, digest: undefined }, `Cannot read d: its digest is missing, ${digestHint}`],
    ["a number as digest", { ...LAYER, digest: 1 }, `Cannot read d: its digest is 1, ${digestHint}`],
    ["another algorithm", { ...LAYER, digest: `sha512:${"0".repeat(128)}` }, "Cannot read d: its digest is"],
    ["upper-case digits", { ...LAYER, digest: DIGEST.toUpperCase() }, "Cannot read d: its digest is"],
    ["a digest that climbs", { ...LAYER, digest: `sha256:../../${"0".repeat(58)}` }, "Cannot read d: its digest is"],
    ["a digest with a line end", { ...LAYER, digest: `${DIGEST}\n` }, "Cannot read d: its digest is"],
    ["no media type", { ...LAYER, mediaType: undefined }, "Cannot read d: its mediaType is missing"],
    ["an object as media type", { ...LAYER, mediaType: {} }, "Cannot read d: its mediaType is {}"],
    ["no size", { ...LAYER, size: undefined }, "Cannot read d: its size is missing, wanted a number of bytes"],
    ["null as size", { ...LAYER, size: null }, "Cannot read d: its size is null"],
    ["text as size", { ...LAYER, size: "5" }, `Cannot read d: its size is "5"`],
    ["a negative size", { ...LAYER, size: -1 }, "Cannot read d: its size is -1"],
    ["a fraction as size", { ...LAYER, size: 1.5 }, "Cannot read d: its size is 1.5"],
    ["a size beyond 2^53", { ...LAYER, size: 2 ** 53 }, "Cannot read d: its size is 9007199254740992"],
    ["a size beyond all", JSON.parse(`{"mediaType":"a","digest":"${DIGEST}","size":1e400}`), "its size is null"],
    ["a number as data", { ...LAYER, data: 1 }, "Cannot read data of d: 1 is not a string"],
    ["text as urls", { ...LAYER, urls: "https://a" }, "Cannot read urls of d: it is not a list of strings"],
    ["null in urls", { ...LAYER, urls: [null] }, "Cannot read urls of d: it is not a list of strings"],
    ["text as annotations", { ...LAYER, annotations: "a" }, "Cannot read annotations of d: it is not a map of strings"],
  ])("refuses %s", (_, value, why) => {
    expect(() => readDescriptor(value, "d")).toThrow(why);
  });

  test("reads all fields", () => {
    const { unknown: _, ...known } = FULL_DESCRIPTOR;
    const { more: __, ...platform } = known.platform;
    expect(readDescriptor(FULL_DESCRIPTOR, "d")).toEqual({ ...known, platform });
  });

  test("reads a size of 0", () => {
    expect(readDescriptor({ ...LAYER, size: 0 }, "d").size).toBe(0);
  });

  test("ignores a prototype that the document names", () => {
    const value: unknown = JSON.parse(
      `{"__proto__":{"data":"x","platform":{}},"mediaType":"a","size":1,"digest":"${DIGEST}","annotations":{"__proto__":"p"}}`,
    );
    const read = readDescriptor(value, "d");
    expect([Object.keys(read), Object.keys(read.annotations ?? {})]).toEqual([
      ["mediaType", "size", "digest", "annotations"],
      ["__proto__"],
    ]);
  });
});

async function* chunks(...parts: readonly string[]): AsyncGenerator<Uint8Array, void, void> {
  for (const part of parts) yield bytesOf(part);
}

async function drain(source: AsyncIterable<Uint8Array>): Promise<string> {
  let text = "";
  for await (const chunk of source) text += textOfBytes(chunk);
  return text;
}

const HELLO = descriptorOf("text/plain", bytesOf("hello"));

describe("verified()", () => {
  test.each([[["hello"]], [["he", "", "llo"]], [["h", "e", "l", "l", "o", ""]]])(
    "yields the chunks of the right content: %j",
    async (parts) => {
      expect(await drain(verified(chunks(...parts), HELLO, "x"))).toBe("hello");
    },
  );

  test("accepts no chunks for a size of 0", async () => {
    expect(await drain(verified(chunks(), descriptorOf("a", new Uint8Array(0)), "x"))).toBe("");
  });

  test.each([
    ["too little", ["hell"], "Cannot trust x: got 4 bytes, its descriptor says 5"],
    ["nothing", [], "Cannot trust x: got 0 bytes, its descriptor says 5"],
    ["too much at once", ["hello!"], "Cannot trust x: it is longer than the 5 bytes its descriptor says"],
    ["too much at the end", ["hello", "!"], "Cannot trust x: it is longer than the 5 bytes its descriptor says"],
    [
      "other bytes",
      ["hallo"],
      `Cannot trust x: its 5 bytes have digest ${digestOf(bytesOf("hallo"))}, wanted ${HELLO.digest}`,
    ],
  ])("refuses %s", async (_, parts, message) => {
    expect(await rejectionOf(drain(verified(chunks(...parts), HELLO, "x")))).toEqual(new KoError(message));
  });

  test("never yields more than the size, and closes the source", async () => {
    let closed = false;
    let asked = 0;
    async function* endless(): AsyncGenerator<Uint8Array, void, void> {
      try {
        for (;;) {
          asked++;
          yield bytesOf("abcd");
        }
      } finally {
        closed = true;
      }
    }
    let passed = 0;
    const reading = (async () => {
      for await (const chunk of verified(endless(), HELLO, "x")) passed += chunk.byteLength;
    })();
    expect(messageOf(await rejectionOf(reading))).toContain("longer than the 5 bytes");
    expect({ passed, asked, closed }).toEqual({ passed: 4, asked: 2, closed: true });
  });

  test("closes the source of a reader that stops early", async () => {
    let closed = false;
    async function* source(): AsyncGenerator<Uint8Array, void, void> {
      try {
        yield bytesOf("he");
        yield bytesOf("llo");
      } finally {
        closed = true;
      }
    }
    for await (const _ of verified(source(), HELLO, "x")) break;
    expect(closed).toBe(true);
  });

  test("throws the error of the source", async () => {
    async function* broken(): AsyncGenerator<Uint8Array, void, void> {
      yield bytesOf("he");
      throw new KoError("the line was cut");
    }
    expect(await rejectionOf(drain(verified(broken(), HELLO, "x")))).toEqual(new KoError("the line was cut"));
  });
});

describe("readDocument()", () => {
  test("reads a document whole", async () => {
    expect(textOfBytes(await readDocument(chunks("he", "llo"), HELLO, "x"))).toBe("hello");
  });

  test("does not start to read one over 8 MiB", async () => {
    let touched = false;
    async function* source(): AsyncGenerator<Uint8Array, void, void> {
      touched = true;
      yield bytesOf("x");
    }
    const reading = readDocument(source(), { ...HELLO, size: MAX_DOCUMENT_BYTES + 1 }, "x");
    expect(await rejectionOf(reading)).toEqual(new KoError("Cannot read x: 8388609 bytes, the limit is 8388608"));
    expect(touched).toBe(false);
  });

  test("refuses other bytes", async () => {
    expect(messageOf(await rejectionOf(readDocument(chunks("hallo"), HELLO, "x")))).toContain("Cannot trust x");
  });
});

describe("digests", () => {
  test("isDigest() takes sha256 in lower case only", () => {
    const bad = ["", "sha256:", `sha256:${"0".repeat(63)}`, DIGEST.toUpperCase(), `${DIGEST}\n`, ` ${DIGEST}`, "x"];
    expect([DIGEST, ...bad].map(isDigest)).toEqual([true, ...bad.map(() => false)]);
  });

  test("digestOf() and describe() are those of the bytes", () => {
    const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    expect(digestOf(new Uint8Array(0))).toBe(empty);
    expect(descriptorOf("a/b", new Uint8Array(0))).toEqual({ mediaType: "a/b", size: 0, digest: empty });
    expect(hexOf(empty)).toBe(empty.slice(7));
  });
});

describe("media types", () => {
  test.each([
    [MEDIA_TYPES.ociIndex, "index"],
    [MEDIA_TYPES.dockerList, "index"],
    [MEDIA_TYPES.ociManifest, "manifest"],
    [MEDIA_TYPES.dockerManifest, "manifest"],
    ["application/vnd.docker.distribution.manifest.v1+prettyjws", "neither"],
    ["", "neither"],
  ])("%s is of kind %s", (mediaType, kind) => {
    expect([isIndexType(mediaType), isManifestType(mediaType)]).toEqual([kind === "index", kind === "manifest"]);
  });

  test.each([
    ["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true],
    ["application/vnd.oci.image.layer.nondistributable.v1.tar", true],
    ["application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true],
    ["application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", true],
    [MEDIA_TYPES.ociLayer, false],
    [MEDIA_TYPES.dockerLayer, false],
  ])("isForeignLayer(%s) is %p", (mediaType, foreign) => {
    expect(isForeignLayer(mediaType)).toBe(foreign);
  });
});

describe("formatPlatform()", () => {
  test.each([
    [{ os: "linux", architecture: "amd64" }, "linux/amd64"],
    [{ os: "linux", architecture: "arm", variant: "v7" }, "linux/arm/v7"],
    [{ os: "windows", architecture: "amd64", "os.version": "10.0.20348.1" }, "windows/amd64:10.0.20348.1"],
    [{ os: "linux", architecture: "" }, "linux"],
    [{ os: "linux", architecture: "amd64", variant: "", "os.version": "" }, "linux/amd64"],
  ])("of %j is %s", (platform, text) => {
    expect(formatPlatform(platform)).toBe(text);
  });
});
