/**
 * Base images for the parity tests, made here and pushed to a real registry.
 *
 * They hold what real bases hold and what our reader could trip over: unknown fields, odd times, no PATH, attestation
 * entries, indexes of both families. The same bytes each time, so that results can be kept under their digests.
 * Nothing of lib/ takes part, so that a fault there cannot hide itself.
 */
import { type Family, type ImageSpec, type IndexSpec, pushImage, pushIndex } from "./registry-images.ts";

type ImageName =
  | "oci"
  | "docker"
  | "rich"
  | "rich-docker"
  | "no-path"
  | "bare"
  | "no-config"
  | "no-layers"
  | "unicode"
  | "annotated"
  | "artifact-type"
  | "plain-tar"
  | "no-media-type";
type IndexName = "index" | "list" | "single" | "amd64" | "windows";

/** The name of a base; {@link pushBases} pushes them all. */
export type BaseName = ImageName | IndexName;

/** A pushed base. */
export interface Base {
  /** `127.0.0.1:PORT/bases/NAME:v1` */
  readonly reference: string;
  /** Of the manifest or index. */
  readonly digest: string;
  /** How many layers each of its images has. */
  readonly layers: number;
}

/** All bases, by name. */
export type Bases = Readonly<Record<BaseName, Base>>;

const PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

function plain(platform: Readonly<Record<string, unknown>>, family: Family = "oci"): ImageSpec {
  return {
    family,
    config: {
      ...platform,
      created: "2024-02-03T04:05:06Z",
      config: { Env: [PATH], User: "65532" },
      history: [{ created: "2024-02-03T04:05:06Z", created_by: "base" }],
    },
  };
}

function entry(
  platform: Readonly<Record<string, unknown>>,
  annotations?: Readonly<Record<string, string>>,
): IndexSpec["entries"][number] {
  // Real bases repeat the platform in the configuration.
  return { platform, image: plain(platform), ...(annotations === undefined ? {} : { annotations }) };
}

const AMD64 = { architecture: "amd64", os: "linux" } as const;

/** Each field that a container's configuration can have, and some that only old builders write. */
const RICH_CONFIG: ImageSpec["config"] = {
  architecture: "amd64",
  author: "Somebody <somebody@example.com>",
  container: "0123456789abcdef",
  container_config: { Hostname: "gone", Cmd: ["/bin/sh"] },
  created: "2024-05-06T07:08:09.123456700+05:30",
  docker_version: "20.10.7",
  "moby.buildkit.cache.v0": "e30=",
  history: [
    { created: "2024-05-06T07:08:09.100000000+05:30", created_by: "ADD rootfs & <things> /", comment: "first" },
    { created: "2024-05-06T07:08:09-00:00", created_by: "ENV A=B", empty_layer: true, author: "Somebody" },
    { created: "2024-05-06T07:08:10.000000001Z", created_by: "RUN x", unknown: "field" },
    { created_by: "no time" },
  ],
  os: "linux",
  config: {
    Hostname: "host",
    Domainname: "example.com",
    User: "1000:1000",
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    Tty: true,
    OpenStdin: true,
    StdinOnce: true,
    ExposedPorts: { "8080/tcp": {}, "53/udp": {}, "443/tcp": {} },
    Env: ["A=B", "PATH", "Path=/lower", PATH, "PATH=/second", "EMPTY=", "TWO=a=b", "KO_DATA_PATH=/old"],
    Cmd: ["sh", "-c", "true"],
    Healthcheck: {
      Test: ["CMD-SHELL", "true && exit 0"],
      Interval: 30_000_000_000,
      Timeout: 5_000_000_000,
      StartPeriod: 1_000_000_000,
      StartInterval: 2_000_000_000,
      Retries: 3,
    },
    ArgsEscaped: true,
    Image: "sha256:0000000000000000000000000000000000000000000000000000000000000000",
    Volumes: { "/data": {}, "/cache": {} },
    WorkingDir: "/work",
    Entrypoint: ["/entry", "point"],
    NetworkDisabled: true,
    MacAddress: "02:42:ac:11:00:02",
    OnBuild: ["COPY . /app"],
    Labels: { z: "last", a: "first", "org.example/label": "<b>&amp;</b>" },
    StopSignal: "SIGQUIT",
    StopTimeout: 10,
    Shell: ["/bin/bash", "-c"],
  },
  "os.version": "1.2",
  variant: "v2",
  "os.features": ["one", "two"],
};

const IMAGES: Readonly<Record<ImageName, ImageSpec>> = {
  oci: plain(AMD64),
  docker: plain(AMD64, "docker"),
  rich: { config: RICH_CONFIG, layers: ["one", "two", "three"] },
  "rich-docker": { family: "docker", config: RICH_CONFIG, layers: ["one", "two", "three"] },
  "no-path": { config: { ...AMD64, created: "2024-02-03T04:05:06Z", config: { Env: ["A=B"] }, history: [] } },
  bare: { config: { ...AMD64, config: {} } },
  "no-config": { config: { ...AMD64, created: "1970-01-01T00:00:00Z" } },
  "no-layers": { config: { ...AMD64, config: { Env: [PATH] } }, layers: [] },
  unicode: {
    config: {
      ...AMD64,
      created: "0001-01-01T00:00:00Z",
      config: {
        Env: [PATH, 'GRÜSSE=größe \u2028\u2029 😀 \u007f \u0001 \t\n\r\b\f"\\/'],
        Labels: { größe: "ü", "<a>&": "</a>", "\u{1F600}": "smile", "\uFFFD": "replacement", B: "1", a: "2", Z: "3" },
      },
    },
  },
  annotated: {
    config: plain(AMD64).config,
    manifest: {
      annotations: {
        "org.opencontainers.image.source": "https://example.com/base",
        "org.opencontainers.image.base.name": "example.com/base-of-base:latest",
        "org.example.kept": "<&>",
      },
    },
  },
  "artifact-type": { config: plain(AMD64).config, manifest: { artifactType: "application/vnd.example.thing" } },
  "plain-tar": { config: plain(AMD64).config, plainTar: true },
  "no-media-type": { config: plain(AMD64).config, withoutMediaType: true },
};

const ARCHES = [
  AMD64,
  { architecture: "arm64", os: "linux", variant: "v8" },
  { architecture: "arm", os: "linux", variant: "v6" },
  { architecture: "arm", os: "linux", variant: "v7" },
  { architecture: "s390x", os: "linux" },
] as const;

const INDEXES: Readonly<Record<IndexName, IndexSpec>> = {
  index: {
    entries: [
      entry(ARCHES[1], { "org.example.entry": "arm & <co>" }),
      ...[AMD64, ARCHES[2], ARCHES[3], ARCHES[4]].map((platform) => entry(platform)),
      {
        ...entry({ architecture: "unknown", os: "unknown" }),
        annotations: { "vnd.docker.reference.type": "attestation-manifest" },
      },
    ],
    annotations: { "org.example.index": "of the base", "org.opencontainers.image.version": "1" },
  },
  list: { family: "docker", entries: ARCHES.map((platform) => ({ platform, image: plain(platform, "docker") })) },
  single: { entries: [entry(AMD64)] },
  amd64: {
    entries: [
      entry(AMD64),
      entry({ ...AMD64, variant: "v2" }),
      entry({ ...AMD64, variant: "v3" }),
      entry({ ...AMD64, "os.features": ["sse4"] }),
    ],
  },
  windows: {
    entries: [
      entry({ architecture: "amd64", os: "windows", "os.version": "10.0.17763.6893" }),
      entry({ architecture: "amd64", os: "windows", "os.version": "10.0.20348.3207" }),
      entry(AMD64),
    ],
  },
};

/** Pushes every base to the registry at `host` (`127.0.0.1:PORT`, plain HTTP). */
export async function pushBases(host: string): Promise<Bases> {
  const result: Partial<Record<BaseName, Base>> = {};
  for (const [name, spec] of entriesOf<ImageName, ImageSpec>(IMAGES)) {
    const { digest } = await pushImage(host, { name, spec, tag: "v1" });
    result[name] = { reference: `${host}/bases/${name}:v1`, digest, layers: spec.layers?.length ?? 1 };
  }
  for (const [name, spec] of entriesOf<IndexName, IndexSpec>(INDEXES)) {
    const { digest } = await pushIndex(host, { name, spec });
    result[name] = { reference: `${host}/bases/${name}:v1`, digest, layers: 1 };
  }
  if (!isComplete(result)) throw new Error("a base is missing");
  return result;
}

function entriesOf<K extends string, V>(specs: Readonly<Record<K, V>>): [K, V][] {
  const result: [K, V][] = [];
  for (const key in specs) result.push([key, specs[key]]);
  return result;
}

function isComplete(bases: Partial<Record<BaseName, Base>>): bases is Record<BaseName, Base> {
  return [...Object.keys(IMAGES), ...Object.keys(INDEXES)].every((name) => Object.hasOwn(bases, name));
}
