import { describe, expect, test } from "bun:test";
import { KoError, messageOf } from "../lib/errors.ts";
import { encodeConfig, readConfig } from "../lib/oci-config.ts";
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

const FULL_CONFIG = {
  architecture: "arm",
  author: "A <a@example.com>",
  container: "0123",
  container_config: { Cmd: ["dropped"] },
  created: "2024-05-06T07:08:09.120+05:30",
  docker_version: "20.10.7",
  history: [
    { created: "2024-05-06T07:08:09.100Z", created_by: "ADD <rootfs> & more", comment: "c", author: "a" },
    { created_by: "no time", empty_layer: true, unknown: 1 },
    { empty_layer: false },
    {},
  ],
  os: "linux",
  rootfs: { type: "layers", diff_ids: [DIGEST, OTHER], more: 1 },
  config: {
    AttachStderr: true,
    AttachStdin: true,
    AttachStdout: true,
    Cmd: ["sh", "-c", "", "a\u2028b"],
    Healthcheck: {
      Retries: 3,
      StartInterval: 5,
      StartPeriod: 4,
      Timeout: 2,
      Interval: 30_000_000_000,
      Test: ["CMD", "true"],
    },
    Domainname: "example.com",
    Entrypoint: ["/e"],
    Env: ["PATH=/bin", "A=", "B"],
    Hostname: "h",
    Image: "i",
    Labels: { b: "2", a: "1", "😀": "4", "\uffff": "3", "": "" },
    OnBuild: ["RUN x"],
    OpenStdin: true,
    StdinOnce: true,
    StopTimeout: 10,
    Tty: true,
    User: "1:1",
    Volumes: { "/b": {}, "/a": null, "/c": { x: 1 } },
    WorkingDir: "/w",
    ExposedPorts: { "80/tcp": {}, "53/udp": {} },
    ArgsEscaped: true,
    NetworkDisabled: true,
    MacAddress: "02:42:ac:11:00:02",
    StopSignal: "SIGQUIT",
    Shell: ["/bin/bash"],
  },
  "os.version": "1.2",
  variant: "v7",
  "os.features": ["f", "g"],
  "moby.buildkit.cache.v0": "e30=",
};

const ROOTFS = { type: "layers", diff_ids: [DIGEST] };
/** Configurations as JSON, which ko and go-containerregistry must read and write in the same way. */
const CONFIGS: readonly (readonly [string, string])[] = [
  ["all fields", JSON.stringify(FULL_CONFIG)],
  ["the least", JSON.stringify({ architecture: "amd64", os: "linux", rootfs: ROOTFS })],
  ["no platform", JSON.stringify({ rootfs: ROOTFS, config: {} })],
  [
    "null everywhere",
    JSON.stringify({
      architecture: null,
      os: null,
      created: null,
      history: null,
      config: null,
      variant: null,
      "os.features": null,
      rootfs: { type: null, diff_ids: [] },
    }),
  ],
  [
    "null in the container's part",
    JSON.stringify({
      rootfs: ROOTFS,
      config: { Cmd: null, Env: null, Labels: null, Volumes: null, Healthcheck: null, Tty: null, User: null },
    }),
  ],
  [
    "empty values",
    JSON.stringify({
      rootfs: ROOTFS,
      author: "",
      history: [],
      "os.features": [],
      config: { Cmd: [], Env: [], Labels: {}, Volumes: {}, ExposedPorts: {}, Tty: false, User: "", Healthcheck: {} },
    }),
  ],
  ["an empty healthcheck", JSON.stringify({ rootfs: ROOTFS, config: { Healthcheck: { Test: [], Interval: 0 } } })],
  [
    "keys that objects inherit",
    `{"rootfs":{"diff_ids":[],"__proto__":1},"__proto__":{"os":"plan9"},"config":{"__proto__":{"User":"0"},"Labels":{"__proto__":"x","constructor":"y"}}}`,
  ],
  ["a key twice", `{"os":"a","os":"b","rootfs":{"type":"layers","diff_ids":[]}}`],
  ["half a character, and bytes that are no UTF-8", `{"os":"\\ud800","author":"\xff","rootfs":{"diff_ids":[]}}`],
  ["blanks and line ends", `\r\n { "os" : "linux" ,\t"rootfs" : { "diff_ids" : [ ] } } \n`],
];

/** Configurations that both refuse. */
const BAD_CONFIGS: readonly (readonly [string, string, string])[] = [
  ["", "", "it is not JSON"],
  ["half a document", "{", "it is not JSON"],
  ["a list", "[]", "it is not a JSON object"],
  ["text", `"{}"`, "it is not a JSON object"],
  ["a number for os", `{"os":1}`, "Cannot read os of c: 1 is not a string"],
  ["an object for os", `{"os":{}}`, "Cannot read os of c: {} is not a string"],
  ["a list for rootfs", `{"rootfs":[]}`, "Cannot read c: rootfs is not an object"],
  ["text for rootfs", `{"rootfs":"layers"}`, "Cannot read c: rootfs is not an object"],
  ["a number for the type of rootfs", `{"rootfs":{"type":1}}`, "Cannot read type of rootfs of c: 1 is not a string"],
  ["an object for diff_ids", `{"rootfs":{"diff_ids":{}}}`, "Cannot read diff_ids of c: it is not a list of strings"],
  ["a number as a diffID", `{"rootfs":{"diff_ids":[1]}}`, "Cannot read diff_ids of c: it is not a list of strings"],
  [
    "a short diffID",
    `{"rootfs":{"diff_ids":["sha256:00"]}}`,
    'Cannot read c: the diffID "sha256:00" is not a sha256 digest',
  ],
  ["an object for history", `{"history":{}}`, "Cannot read c: history is not a list"],
  ["text in history", `{"history":["x"]}`, "Cannot read c: a history entry is not an object"],
  [
    "text for empty_layer",
    `{"history":[{"empty_layer":"yes"}]}`,
    'Cannot read empty_layer of a history entry of c: "yes" is not a boolean',
  ],
  ["a number for a date", `{"created":5}`, "Cannot read created of c: 5 is not a string"],
  ["no date for a date", `{"created":"yesterday"}`, "Cannot read created of c"],
  [
    "no date in history",
    `{"history":[{"created":"2024-13-01T00:00:00Z"}]}`,
    "Cannot read created of a history entry of c",
  ],
  ["a list for config", `{"config":[]}`, "Cannot read c: config is not an object"],
  ["text for Cmd", `{"config":{"Cmd":"sh"}}`, "Cannot read Cmd of c: it is not a list of strings"],
  ["a number in Env", `{"config":{"Env":["A=1",2]}}`, "Cannot read Env of c: it is not a list of strings"],
  ["a list for Labels", `{"config":{"Labels":["a=b"]}}`, "Cannot read Labels of c: it is not a map of strings"],
  ["a number in Labels", `{"config":{"Labels":{"a":1}}}`, "Cannot read Labels of c: it is not a map of strings"],
  ["text for Tty", `{"config":{"Tty":"true"}}`, 'Cannot read Tty of c: "true" has the wrong type'],
  ["a number for User", `{"config":{"User":0}}`, "Cannot read User of c: 0 has the wrong type"],
  ["a list for Volumes", `{"config":{"Volumes":["/a"]}}`, 'Cannot read Volumes of c: ["/a"] has the wrong type'],
  [
    "a number in ExposedPorts",
    `{"config":{"ExposedPorts":{"80":1}}}`,
    'Cannot read ExposedPorts of c: {"80":1} has the wrong type',
  ],
  ["text for Healthcheck", `{"config":{"Healthcheck":"x"}}`, 'Cannot read Healthcheck of c: "x" has the wrong type'],
  [
    "text for its Test",
    `{"config":{"Healthcheck":{"Test":"x"}}}`,
    "Cannot read Test of Healthcheck of c: it is not a list of strings",
  ],
  [
    "text for its Interval",
    `{"config":{"Healthcheck":{"Interval":"30s"}}}`,
    'Cannot read Interval of Healthcheck of c: "30s" is not a whole number',
  ],
  [
    "half a nanosecond",
    `{"config":{"Healthcheck":{"Timeout":0.5}}}`,
    "Cannot read Timeout of Healthcheck of c: 0.5 is not a whole number",
  ],
  ["text for os.features", `{"os.features":"x"}`, "Cannot read os.features of c: it is not a list of strings"],
];

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

/** One character is one byte: the table above may hold bytes that are not UTF-8. */
const bytesOf = (text: string): Uint8Array => Buffer.from(text, /[^\0-\xff]/.test(text) ? "utf8" : "latin1");
const textOfBytes = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

const answers = await askGo("ggcr", {
  Configs: [...CONFIGS, ...BAD_CONFIGS].map(([, text]) => base64(bytesOf(text))),
  Manifests: MANIFESTS.map(([, text]) => base64(text)),
  Indexes: INDEXES.map(([, text]) => base64(text)),
});
const needsGo = test.skipIf(answers === undefined);

function numbered(table: readonly (readonly [string, string, ...string[]])[]): (readonly [string, string, number])[] {
  return table.map(([name, text], i) => [name, text, i] as const);
}

describe("readConfig() and encodeConfig()", () => {
  needsGo.each(numbered(CONFIGS))("write the bytes of go-containerregistry: %s", (_, text, i) => {
    const expected = textOf(listOf(answers, "Configs")[i]);
    expect(textOfBytes(encodeConfig(readConfig(bytesOf(text), "c")))).toBe(expected ?? "it refuses");
  });

  test("drop fields that go-containerregistry does not know", () => {
    const written = textOfBytes(encodeConfig(readConfig(bytesOf(JSON.stringify(FULL_CONFIG)), "c")));
    for (const name of ["container_config", "moby", "StopTimeout", "StartInterval", "unknown"]) {
      expect(written).not.toContain(name);
    }
  });

  test("ignore a prototype that the document names", () => {
    const { os, config } = readConfig(bytesOf(CONFIGS[7]?.[1] ?? ""), "c");
    expect({ os, user: config.User, labels: Object.keys(config.Labels ?? {}) }).toEqual({
      os: "",
      user: undefined,
      labels: ["__proto__", "constructor"],
    });
  });
});

describe("readConfig()", () => {
  needsGo.each(numbered(BAD_CONFIGS))("refuses the same as go-containerregistry: %s", (_, text, i) => {
    const theirs = listOf(answers, "Configs")[CONFIGS.length + i];
    expect(theirs).toBeNull();
    expect(() => readConfig(bytesOf(text), "c")).toThrow(KoError);
  });

  test.each(BAD_CONFIGS)("names the mistake: %s", (_, text, why) => {
    expect(() => readConfig(bytesOf(text), "c")).toThrow(why);
  });

  test("refuses a number that we could not write as it was", () => {
    const text = `{"config":{"Healthcheck":{"Interval":9007199254740993}}}`;
    expect(() => readConfig(bytesOf(text), "c")).toThrow("is not a whole number");
  });
});

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
