import { describe, expect, test } from "bun:test";
import {
  appName,
  assembleImage,
  type AssembleImageOptions,
  assembleIndex,
  type Image,
  type Layer,
  layerTypeFor,
  platformOf,
} from "../lib/image.ts";
import { type DebugSettings, NO_CONTAINER_SETTINGS } from "../lib/image-config.ts";
import { type Compression, FAST_GZIP } from "../lib/compress.ts";
import { describeError } from "../lib/errors.ts";
import { type ContainerConfig, encodeConfig, type ImageConfig } from "../lib/oci-config.ts";
import {
  describe as descriptorOf,
  type Descriptor,
  digestOf,
  encodeManifest,
  type Manifest,
  MEDIA_TYPES,
} from "../lib/oci.ts";
import { rejectionOf } from "./helpers/failures.ts";

/** A layer that is not opened here. */
function layer(name: string, mediaType: string = MEDIA_TYPES.ociLayer): Layer {
  return {
    descriptor: { mediaType, size: name.length, digest: digestOf(new TextEncoder().encode(`gzip ${name}`)) },
    diffId: digestOf(new TextEncoder().encode(`tar ${name}`)),
    open: () => {
      throw new RangeError("opened");
    },
  };
}

const BASE_LAYER = layer("base");
const KODATA = layer("kodata");
const PROGRAM = layer("program");

interface BaseOptions {
  readonly config?: Partial<ImageConfig>;
  readonly manifest?: Partial<Manifest>;
  /** As the base's descriptor says; the manifest may say nothing. */
  readonly mediaType?: string;
}

function makeBase(options: BaseOptions = {}): Image {
  const mediaType = options.mediaType ?? MEDIA_TYPES.ociManifest;
  const config: ImageConfig = {
    architecture: "amd64",
    os: "linux",
    created: "2024-02-03T04:05:06.700Z",
    rootfs: { type: "layers", diff_ids: [BASE_LAYER.diffId] },
    config: { Env: ["PATH=/bin"], User: "65532", Cmd: ["sh"] },
    ...options.config,
  };
  const configBytes = encodeConfig(config);
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType,
    config: descriptorOf(MEDIA_TYPES.ociConfig, configBytes),
    layers: [BASE_LAYER.descriptor],
    ...options.manifest,
  };
  const bytes = encodeManifest(manifest);
  const descriptor = descriptorOf(mediaType, bytes);
  return { kind: "image", descriptor, bytes, manifest, configBytes, config, layers: [BASE_LAYER] };
}

const OPTIONS: AssembleImageOptions = {
  importPath: "example.com/cmd/app",
  os: "linux",
  kodata: KODATA,
  program: PROGRAM,
  programPath: "/ko-app/app",
  container: NO_CONTAINER_SETTINGS,
  annotations: {},
  created: undefined,
  kodataCreated: undefined,
};

/** The configuration, parsed from its bytes. */
function configOf(base: BaseOptions, options: Partial<AssembleImageOptions> = {}): Record<string, unknown> {
  const image = assembleImage(makeBase(base), { ...OPTIONS, ...options });
  return JSON.parse(new TextDecoder().decode(image.configBytes));
}

function containerOf(config: ContainerConfig, options: Partial<AssembleImageOptions> = {}): unknown {
  return configOf({ config: { config } }, options)["config"];
}

describe("a debugger", () => {
  const DELVE = layer("delve");

  test.each<[Partial<DebugSettings>, string, object]>([
    [
      {},
      "linux",
      {
        Entrypoint: [
          "/ko-app/dlv",
          "exec",
          "--listen=:40000",
          "--headless",
          "--log",
          "--accept-multiclient",
          "--api-version=2",
          "--",
          "/ko-app/app",
        ],
        ExposedPorts: { "80/tcp": {} },
      },
    ],
    [
      { port: 81, isContinuing: true },
      "windows",
      {
        Entrypoint: [
          "C:\\ko-app\\dlv.exe",
          "exec",
          "--continue",
          "--listen=:81",
          "--headless",
          "--log",
          "--accept-multiclient",
          "--api-version=2",
          "--",
          "C:\\ko-app\\app",
        ],
        ExposedPorts: { "80/tcp": {}, "81/tcp": {} },
      },
    ],
  ])("with %j on %s is the entrypoint, and the last layer", (settings, os, want) => {
    const base = { config: { config: { Cmd: ["x"], ExposedPorts: { "80/tcp": {} } } } };
    const delve = { layer: DELVE, isContinuing: false, port: undefined, ...settings };
    const image = assembleImage(makeBase(base), { ...OPTIONS, os, created: 1, debugger: delve });
    expect(image.config.config).toMatchObject(want);
    expect(image.config.config).not.toHaveProperty("Cmd");
    expect(image.layers.map(({ diffId }) => diffId)).toEqual(
      [BASE_LAYER, KODATA, PROGRAM, DELVE].map((each) => each.diffId),
    );
    expect(image.config.rootfs.diff_ids).toEqual(image.layers.map(({ diffId }) => diffId));
    expect(image.manifest.layers).toEqual(image.layers.map(({ descriptor }) => descriptor));
    expect(image.config.history?.at(-1)).toEqual({
      author: "ko",
      created: "1970-01-01T00:00:01Z",
      created_by: "ko build ko://example.com/cmd/app",
      comment: os === "windows" ? "Delve debugger, at /ko-app/dlv.exe" : "Delve debugger, at /ko-app/dlv",
    });
  });
});

describe("appName()", () => {
  test.each([
    ["example.com/cmd/app", "app"],
    ["app", "app"],
    ["example.com/App.v2", "App.v2"],
    ["example.com/app/", "app"],
    [".", "ko-app"],
    ["/", "ko-app"],
    ["", "ko-app"],
  ])("of %j is %j", (importPath, name) => {
    expect(appName(importPath)).toBe(name);
  });
});

describe("layerTypeFor()", () => {
  test.each<[string, Compression, string]>([
    [MEDIA_TYPES.ociManifest, { kind: "gzip", level: 9 }, "application/vnd.oci.image.layer.v1.tar+gzip"],
    [MEDIA_TYPES.ociManifest, { kind: "zstd" }, "application/vnd.oci.image.layer.v1.tar+zstd"],
    [MEDIA_TYPES.ociManifest, { kind: "none" }, "application/vnd.oci.image.layer.v1.tar"],
    [MEDIA_TYPES.dockerManifest, FAST_GZIP, "application/vnd.docker.image.rootfs.diff.tar.gzip"],
    [MEDIA_TYPES.dockerManifest, { kind: "none" }, "application/vnd.docker.image.rootfs.diff.tar"],
  ])("of %s and %j stays in the family", (mediaType, compression, expected) => {
    expect(layerTypeFor(mediaType, { compression, base: "b" })).toBe(expected);
  });

  test("refuses zstd with Docker types, and names the base", async () => {
    const shown = describeError(
      await rejectionOf(() =>
        layerTypeFor(MEDIA_TYPES.dockerManifest, { compression: { kind: "zstd" }, base: "r.example/base@sha256:1" }),
      ),
    );
    expect(shown).toBe(
      'Error: Cannot use --compression=zstd on base "r.example/base@sha256:1": it has Docker media types, OCI ones are wanted\n' +
        "  Use --compression=gzip, or another base: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.",
    );
  });

  test("refuses another family", () => {
    expect(() => layerTypeFor("application/x", { compression: FAST_GZIP, base: "r.example/base" })).toThrow(
      'Cannot build on base "r.example/base": its media type is "application/x", an OCI or Docker image is wanted',
    );
  });
});

describe("assembleImage()", () => {
  test("writes the whole configuration, in the original's order", () => {
    const image = assembleImage(makeBase(), OPTIONS);
    expect(new TextDecoder().decode(image.configBytes)).toBe(
      `{"architecture":"amd64","author":"github.com/ko-build/ko","created":"2024-02-03T04:05:06.7Z",` +
        `"history":[` +
        `{"author":"ko","created":"0001-01-01T00:00:00Z","created_by":"ko build ko://example.com/cmd/app","comment":"kodata contents, at $KO_DATA_PATH"},` +
        `{"author":"ko","created":"0001-01-01T00:00:00Z","created_by":"ko build ko://example.com/cmd/app","comment":"go build output, at /ko-app/app"}],` +
        `"os":"linux","rootfs":{"type":"layers","diff_ids":["${BASE_LAYER.diffId}","${KODATA.diffId}","${PROGRAM.diffId}"]},` +
        `"config":{"Entrypoint":["/ko-app/app"],"Env":["PATH=/bin:/ko-app","KO_DATA_PATH=/var/run/ko"],"User":"65532"}}`,
    );
  });

  test("describes its own bytes", () => {
    const image = assembleImage(makeBase(), OPTIONS);
    expect(image.descriptor).toEqual(descriptorOf(MEDIA_TYPES.ociManifest, image.bytes));
    expect(image.manifest.config).toEqual(descriptorOf(MEDIA_TYPES.ociConfig, image.configBytes));
    expect(JSON.parse(new TextDecoder().decode(image.bytes))).toEqual({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: image.manifest.config,
      layers: [BASE_LAYER, KODATA, PROGRAM].map(({ descriptor }) => descriptor),
    });
    expect(image.layers).toEqual([BASE_LAYER, KODATA, PROGRAM]);
  });

  test("makes the same bytes twice, and does not change the base", () => {
    const base = makeBase({ config: { config: { Env: ["PATH=/bin"], Labels: { a: "b" } } } });
    const before = structuredClone([base.config, base.manifest]);
    const [first, second] = [assembleImage(base, OPTIONS), assembleImage(base, { ...OPTIONS, annotations: {} })];
    expect(first.descriptor).toEqual(second.descriptor);
    expect([base.config, base.manifest]).toEqual(before);
  });

  test.each<[string, readonly string[] | undefined, string, readonly string[]]>([
    ["no environment", undefined, "linux", ["PATH=/ko-app"]],
    ["no PATH", ["A=b"], "linux", ["A=b", "PATH=/ko-app"]],
    ["PATH in its place", ["A=b", "PATH=/bin", "C=d"], "linux", ["A=b", "PATH=/bin:/ko-app", "C=d"]],
    ["an empty PATH", ["PATH="], "linux", ["PATH=:/ko-app"]],
    ["PATH without a value", ["PATH"], "linux", ["PATH", "PATH=/ko-app"]],
    ["several PATHs", ["PATH=/a", "PATH=/b"], "linux", ["PATH=/a:/ko-app", "PATH=/b"]],
    ["Path in other letters", ["Path=/a", "MYPATH=/b"], "linux", ["Path=/a", "MYPATH=/b", "PATH=/ko-app"]],
    ["PATH with an equals sign", ["PATH=/a=b"], "linux", ["PATH=/a=b:/ko-app"]],
    ["Windows, with a colon as the original", ["PATH=C:\\Windows"], "windows", ["PATH=C:\\Windows:C:\\ko-app"]],
    ["Windows without PATH", ["Path=C:\\x"], "windows", ["Path=C:\\x", "PATH=C:\\ko-app"]],
  ])("extends the environment: %s", (_, env, os, expected) => {
    const data = os === "windows" ? "KO_DATA_PATH=C:\\var\\run\\ko" : "KO_DATA_PATH=/var/run/ko";
    const config: ContainerConfig = env === undefined ? {} : { Env: env };
    expect(containerOf(config, { os })).toMatchObject({ Env: [...expected, data] });
  });

  test.each([
    ["linux", "/ko-app/app"],
    ["freebsd", "/ko-app/app"],
    ["windows", "C:\\ko-app\\app"],
  ])("starts the program on %s", (os, entrypoint) => {
    expect(containerOf({ Entrypoint: ["/old", "x"], Cmd: ["y"] }, { os })).toMatchObject({ Entrypoint: [entrypoint] });
  });

  test("drops Cmd, which would become an argument of the program", () => {
    expect(containerOf({ Cmd: ["sh"] })).not.toHaveProperty("Cmd");
  });

  test("keeps everything else of the base's container", () => {
    const kept: ContainerConfig = {
      Hostname: "h",
      WorkingDir: "/w",
      StopSignal: "SIGQUIT",
      ExposedPorts: { "80/tcp": {} },
      Volumes: { "/v": {} },
      Healthcheck: { Test: ["NONE"] },
      OnBuild: ["RUN x"],
      Shell: ["/bin/sh"],
    };
    expect(containerOf(kept)).toEqual({
      ...kept,
      Entrypoint: ["/ko-app/app"],
      Env: ["PATH=/ko-app", "KO_DATA_PATH=/var/run/ko"],
    });
  });

  test("keeps a KO_DATA_PATH of the base, before its own", () => {
    expect(containerOf({ Env: ["KO_DATA_PATH=/old"] })).toMatchObject({
      Env: ["KO_DATA_PATH=/old", "PATH=/ko-app", "KO_DATA_PATH=/var/run/ko"],
    });
  });

  test.each<[string, Readonly<Record<string, string>> | undefined, Readonly<Record<string, string>>, unknown]>([
    ["none", undefined, {}, undefined],
    ["the base's", { a: "1" }, {}, { a: "1" }],
    ["ours win", { a: "1", b: "2" }, { b: "3", c: "" }, { a: "1", b: "3", c: "" }],
  ])("merges labels: %s", (_, theirs, ours, expected) => {
    const config = theirs === undefined ? {} : { Labels: theirs };
    const { Labels } = {
      Labels: undefined,
      ...JSON.parse(
        JSON.stringify(
          containerOf(config, { container: { ...NO_CONTAINER_SETTINGS, labels: new Map(Object.entries(ours)) } }),
        ),
      ),
    };
    expect(Labels).toEqual(expected);
  });

  test("merges annotations of the manifest, ours win", () => {
    const base = makeBase({ manifest: { annotations: { a: "1", b: "2" } } });
    const image = assembleImage(base, { ...OPTIONS, annotations: { b: "3" } });
    expect(image.manifest.annotations).toEqual({ a: "1", b: "3" });
  });

  test.each([
    [undefined, "65532"],
    ["", "65532"],
    ["0:0", "0:0"],
  ])("runs as the user %p gives", (user, expected) => {
    expect(containerOf({ User: "65532" }, { container: { ...NO_CONTAINER_SETTINGS, user } })).toMatchObject({
      User: expected,
    });
  });

  test.each<[string, number | undefined, number | undefined, string, readonly string[]]>([
    ["none", undefined, undefined, "2024-02-03T04:05:06.7Z", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"]],
    [
      "SOURCE_DATE_EPOCH",
      1700000000,
      undefined,
      "2023-11-14T22:13:20Z",
      ["0001-01-01T00:00:00Z", "2023-11-14T22:13:20Z"],
    ],
    [
      "KO_DATA_DATE_EPOCH",
      undefined,
      1700000000,
      "2024-02-03T04:05:06.7Z",
      ["2023-11-14T22:13:20Z", "0001-01-01T00:00:00Z"],
    ],
    ["both", 0, 1, "1970-01-01T00:00:00Z", ["1970-01-01T00:00:01Z", "1970-01-01T00:00:00Z"]],
    ["before 1970", -1, -86400, "1969-12-31T23:59:59Z", ["1969-12-31T00:00:00Z", "1969-12-31T23:59:59Z"]],
  ])("takes the dates of %s", (_, created, kodataCreated, image, entries) => {
    const config = configOf({}, { created, kodataCreated });
    expect(config["created"]).toBe(image);
    expect(config["history"]).toMatchObject(entries.map((entry) => ({ created: entry })));
  });

  test("writes the year 1 if the base has no date", () => {
    const { created: _, ...undated } = makeBase().config;
    const base: Image = { ...makeBase(), config: undated };
    expect(assembleImage(base, OPTIONS).config.created).toBeUndefined();
    expect(new TextDecoder().decode(assembleImage(base, OPTIONS).configBytes)).toContain(
      `"created":"0001-01-01T00:00:00Z","history"`,
    );
  });

  test("puts its history behind the base's", () => {
    const history = [{ created_by: "base", empty_layer: true }];
    expect(configOf({ config: { history } })["history"]).toMatchObject([
      { created: "0001-01-01T00:00:00Z", created_by: "base", empty_layer: true },
      { comment: "kodata contents, at $KO_DATA_PATH" },
      { comment: "go build output, at /ko-app/app" },
    ]);
  });

  test("keeps the base's platform and replaces its author", () => {
    const config = configOf({
      config: { architecture: "arm", variant: "v7", "os.version": "1.2", "os.features": ["f"], author: "somebody" },
    });
    expect(config).toMatchObject({
      architecture: "arm",
      variant: "v7",
      "os.version": "1.2",
      "os.features": ["f"],
      author: "github.com/ko-build/ko",
    });
  });

  test("stays without a media type where the base's manifest has none", () => {
    const { mediaType: _, ...manifest } = makeBase().manifest;
    const image = assembleImage({ ...makeBase(), manifest }, OPTIONS);
    expect(new TextDecoder().decode(image.bytes)).toStartWith(`{"schemaVersion":2,"config":{`);
    expect(image.descriptor.mediaType).toBe(MEDIA_TYPES.ociManifest);
  });

  test("stays in Docker's family", () => {
    const config: Descriptor = { ...makeBase().manifest.config, mediaType: MEDIA_TYPES.dockerConfig };
    const base = makeBase({ mediaType: MEDIA_TYPES.dockerManifest, manifest: { config } });
    const image = assembleImage(base, {
      ...OPTIONS,
      kodata: layer("kodata", MEDIA_TYPES.dockerLayer),
      program: layer("program", MEDIA_TYPES.dockerLayer),
    });
    expect([image.descriptor.mediaType, image.manifest.mediaType, image.manifest.config.mediaType]).toEqual([
      MEDIA_TYPES.dockerManifest,
      MEDIA_TYPES.dockerManifest,
      MEDIA_TYPES.dockerConfig,
    ]);
  });

  test("replaces a configuration that is embedded in its descriptor, and keeps other fields of the descriptor", () => {
    const old = { ...makeBase().manifest.config, data: "b2xk", annotations: { a: "1" } };
    const image = assembleImage(makeBase({ manifest: { config: old, artifactType: "application/x" } }), OPTIONS);
    expect(image.manifest.config).toEqual({
      ...descriptorOf(MEDIA_TYPES.ociConfig, image.configBytes),
      data: Buffer.from(image.configBytes).toString("base64"),
      annotations: { a: "1" },
    });
    expect(image.manifest.artifactType).toBe("application/x");
  });
});

describe("assembleIndex()", () => {
  const amd64 = assembleImage(makeBase(), OPTIONS);
  const arm64 = assembleImage(makeBase({ config: { architecture: "arm64" } }), OPTIONS);
  const entry = makeBase().descriptor;
  const children = [
    { entry: { ...entry, platform: { os: "linux", architecture: "arm64", variant: "v8" } }, image: arm64 },
    {
      entry: { ...entry, urls: ["https://x"], annotations: { a: "1" }, data: "b2xk", artifactType: "old" },
      image: amd64,
    },
  ];

  test("lists the images in the order given, with the fields of the base's entries", () => {
    const index = assembleIndex(children, { mediaType: MEDIA_TYPES.ociIndex, annotations: { b: "2" } });
    expect(new TextDecoder().decode(index.bytes)).toBe(
      `{"schemaVersion":2,"mediaType":"${MEDIA_TYPES.ociIndex}","manifests":[` +
        `{"mediaType":"${MEDIA_TYPES.ociManifest}","size":${arm64.bytes.byteLength},"digest":"${arm64.descriptor.digest}",` +
        `"platform":{"architecture":"arm64","os":"linux","variant":"v8"},"artifactType":"${MEDIA_TYPES.ociConfig}"},` +
        `{"mediaType":"${MEDIA_TYPES.ociManifest}","size":${amd64.bytes.byteLength},"digest":"${amd64.descriptor.digest}",` +
        `"urls":["https://x"],"annotations":{"a":"1"},"artifactType":"${MEDIA_TYPES.ociConfig}"}` +
        `],"annotations":{"b":"2"}}`,
    );
    expect(index.descriptor).toEqual(descriptorOf(MEDIA_TYPES.ociIndex, index.bytes));
    expect(index.children).toEqual([arm64, amd64]);
  });

  test("stays a Docker list, and leaves out empty annotations", () => {
    const index = assembleIndex(children.slice(0, 1), { mediaType: MEDIA_TYPES.dockerList, annotations: {} });
    expect(index.descriptor.mediaType).toBe(MEDIA_TYPES.dockerList);
    expect(Object.keys(JSON.parse(new TextDecoder().decode(index.bytes)))).toEqual([
      "schemaVersion",
      "mediaType",
      "manifests",
    ]);
  });

  test("names the image's own artifact type, if it has one", () => {
    const image = assembleImage(makeBase({ manifest: { artifactType: "application/x" } }), OPTIONS);
    const index = assembleIndex([{ entry, image }], { mediaType: MEDIA_TYPES.ociIndex, annotations: {} });
    expect(index.index.manifests[0]?.artifactType).toBe("application/x");
  });
});

describe("platformOf()", () => {
  test.each<[Partial<ImageConfig>, ReturnType<typeof platformOf>]>([
    [
      { os: "", architecture: "" },
      { os: "linux", architecture: "amd64" },
    ],
    [
      { os: "linux", architecture: "arm", variant: "v7" },
      { os: "linux", architecture: "arm", variant: "v7" },
    ],
    [
      { os: "windows", architecture: "amd64", "os.version": "10.0.1" },
      { os: "windows", architecture: "amd64", "os.version": "10.0.1" },
    ],
    [
      { os: "linux", architecture: "amd64", variant: "", "os.version": "" },
      { os: "linux", architecture: "amd64" },
    ],
  ])("of %j is %j", (config, expected) => {
    expect(platformOf(makeBase({ config }))).toEqual(expected);
  });
});
