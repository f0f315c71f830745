/** The answers of registries and Docker daemons, and the files of image layouts. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pack } from "tar-stream";
import { openDaemonBase } from "../../lib/base-daemon.ts";
import { CompressionPool } from "../../lib/compress.ts";
import { DockerEngine } from "../../lib/docker.ts";
import { findDaemon, socketEndpoint } from "../../lib/docker-host.ts";
import { blobPath, openLayout } from "../../lib/layout.ts";
import { silentLog } from "../../lib/log.ts";
import { encodeConfig, readConfig } from "../../lib/oci-config.ts";
import {
  createPlatformMatcher,
  digestOf,
  encodeIndex,
  encodeManifest,
  hexOf,
  isIndexType,
  MEDIA_TYPES,
  parsePlatform,
  readIndex,
  readManifest,
} from "../../lib/oci.ts";
import { parseRepository } from "../../lib/reference.ts";
import { parseConfigFile } from "../../lib/registry-keychain-file.ts";
import { findUsable, parseChallenges } from "../../lib/registry-ping.ts";
import { makeClient, user } from "../helpers/registry-client.ts";
import { hostAt } from "../helpers/world-host.ts";
import { type Check, expectSame, joinParts, partsOf, type Target, textOf, tryParse } from "./fuzz-target.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;
const JSON_WORDS = [
  ...'{ } [ ] , : null true 0 -1 1e400 1.5 "a" "" __proto__ \\u001b \\ud800'.split(" "),
  ...["9007199254740993", `"${DIGEST}"`, '"sha512:aa"', '"sha256:"', '{"a":'],
];

const CONFIG = JSON.stringify({
  architecture: "amd64",
  os: "linux",
  created: "2024-01-01T00:00:00Z",
  config: { Env: ["A=b"], Entrypoint: ["/app"], Labels: { a: "b" }, ExposedPorts: { "80/tcp": {} } },
  rootfs: { type: "layers", diff_ids: [DIGEST] },
  history: [{ created: "2024-01-01T00:00:00Z", created_by: "x", empty_layer: true }],
});
const MANIFEST = JSON.stringify({
  schemaVersion: 2,
  mediaType: MEDIA_TYPES.ociManifest,
  config: { mediaType: MEDIA_TYPES.ociConfig, size: CONFIG.length, digest: digestOf(new TextEncoder().encode(CONFIG)) },
  layers: [{ mediaType: MEDIA_TYPES.ociLayer, size: 3, digest: DIGEST, annotations: { a: "b" }, urls: ["https://x/"] }],
  annotations: { a: "b" },
});
const INDEX = JSON.stringify({
  schemaVersion: 2,
  mediaType: MEDIA_TYPES.ociIndex,
  manifests: [
    {
      mediaType: MEDIA_TYPES.ociManifest,
      size: MANIFEST.length,
      digest: digestOf(new TextEncoder().encode(MANIFEST)),
      platform: { os: "linux", architecture: "arm", variant: "v7", "os.version": "1", "os.features": ["x"] },
      annotations: { "org.opencontainers.image.ref.name": "latest" },
    },
  ],
});
const CHALLENGE = 'Bearer realm="ORIGIN/token",service="r",scope="repository:a:pull"';
const DOCUMENT_WORDS = [
  ...JSON_WORDS,
  ...Object.values(MEDIA_TYPES).map((type) => `"${type}"`),
  ...'"mediaType": "size": "digest": "platform": "layers": "manifests": "config": "rootfs": "data": "urls":'.split(" "),
];

async function makeFolder(stack: AsyncDisposableStack): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "ko-fuzz-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** A header value as a server can send it. */
function headerOf(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString("latin1")
    .replace(/[\0\r\n]/g, " ")
    .trim();
}

async function checkDocuments(input: Uint8Array): Promise<void> {
  const manifest = await tryParse(() => readManifest(input, "the manifest"));
  if (manifest !== undefined) {
    const bytes = encodeManifest(manifest);
    expectSame(encodeManifest(readManifest(bytes, "the manifest")), bytes, "the manifest, encoded again");
  }
  const index = await tryParse(() => readIndex(input, "the index"));
  if (index !== undefined) {
    const bytes = encodeIndex(index);
    expectSame(encodeIndex(readIndex(bytes, "the index")), bytes, "the index, encoded again");
    const matches = createPlatformMatcher(["linux/arm"]);
    for (const { platform } of index.manifests) matches(platform);
  }
  const config = await tryParse(() => readConfig(input, "the configuration"));
  if (config === undefined) return;
  const bytes = encodeConfig(config);
  expectSame(encodeConfig(readConfig(bytes, "the configuration")), bytes, "the configuration, encoded again");
}

function checkChallenge(input: Uint8Array): void {
  const challenges = parseChallenges(textOf(input));
  findUsable(challenges);
  const shown = challenges
    .map(({ scheme, parameters }) => {
      const words = Object.entries(parameters).map(([name, value]) => `${name}="${value.replace(/["\\]/g, "\\$&")}"`);
      return `${scheme} ${words.join(",")}`;
    })
    .join(", ");
  // A value with a line end cannot be written in a header.
  if (!/[\r\n\u2028\u2029]/.test(shown)) expectSame(parseChallenges(shown), challenges, `the challenges ${shown}`);
}

/** A registry whose challenge, token answer, manifest and refusal come from the input, and the client that pulls from it. */
function openRegistry(stack: AsyncDisposableStack): Check {
  let parts: readonly Uint8Array[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) => {
      const { origin, pathname } = new URL(request.url);
      const [challenge = new Uint8Array(), token, manifest, type = new Uint8Array(), refusal] = parts;
      if (pathname === "/token") return new Response(token);
      if (request.headers.get("authorization") === null) {
        const value = headerOf(challenge).replaceAll("ORIGIN", origin);
        return new Response(refusal, { status: 401, headers: { "www-authenticate": value } });
      }
      if (pathname.endsWith("/refused")) return new Response(refusal, { status: 403 });
      return new Response(manifest, { headers: { "content-type": headerOf(type) } });
    },
  });
  stack.defer(() => server.stop(true));
  const repository = parseRepository(`127.0.0.1:${server.port}/a`);
  return async (input) => {
    parts = partsOf(input, 5);
    await using client = makeClient({ keychain: user });
    for (const tag of ["latest", "refused"]) {
      const found = await tryParse(() => client.registry.getManifest(repository, tag));
      if (found !== undefined) expectSame(digestOf(found.bytes), found.descriptor.digest, "the digest of the manifest");
    }
    const secrets = [...client.said].filter((line) => line.includes("s3cret-pass"));
    expectSame(secrets, [], "the lines of the log with a secret");
  };
}

/** A Docker daemon whose ping, load stream, inspection and saved tar come from the input. */
async function openDaemon(stack: AsyncDisposableStack): Promise<Check> {
  const folder = await makeFolder(stack);
  let parts: readonly Uint8Array[] = [];
  const socket = join(folder, "docker.sock");
  const server = Bun.serve({
    unix: socket,
    fetch: async (request) => {
      const path = new URL(request.url).pathname.replace(/^\/v[\d.]+/, "");
      const [version = new Uint8Array(), load, info, inspect, saved] = parts;
      if (path === "/_ping") return new Response("OK", { headers: { "api-version": headerOf(version) } });
      if (path === "/info") return new Response(info);
      if (path === "/images/load") return request.bytes().then(() => new Response(load));
      if (path.endsWith("/json")) return new Response(inspect);
      return new Response(saved);
    },
  });
  stack.defer(() => server.stop(true));
  const pool = stack.use(new CompressionPool({ workers: 1 }));
  const { signal } = new AbortController();
  const options = { log: silentLog, signal };
  return async (input) => {
    parts = partsOf(input, 5);
    await using engine = await tryParse(() =>
      DockerEngine.open(socketEndpoint(socket, { source: "the test" }), options),
    );
    if (engine === undefined) return;
    await tryParse(() => engine.storeKind());
    const tar = async function* (): AsyncGenerator<Uint8Array, void, void> {
      yield new TextEncoder().encode("tar");
    };
    await tryParse(() => engine.loadArchive(tar(), { expect: "ko.local/app:1" }));
    const place = await mkdtemp(join(folder, "base-"));
    const base = await tryParse(() =>
      openDaemonBase(engine, "ko.local/app:1", { folder: place, pool, signal, compress: false }),
    );
    if (base !== undefined) await tryParse(() => base.getManifest(""));
    await rm(place, { recursive: true, force: true });
  };
}

async function openLayouts(stack: AsyncDisposableStack): Promise<Check> {
  const folder = await makeFolder(stack);
  return async (input) => {
    const [layout = input, index = input, ...blobs] = partsOf(input, 4);
    const path = await mkdtemp(join(folder, "layout-"));
    await mkdir(join(path, "blobs", "sha256"), { recursive: true });
    await writeFile(join(path, "oci-layout"), layout);
    await writeFile(join(path, "index.json"), index);
    for (const blob of blobs) await writeFile(blobPath(path, digestOf(blob)), blob);
    const source = openLayout(path);
    for (const tag of ["", "latest", DIGEST]) {
      const found = await tryParse(() => source.getManifest(tag));
      if (found === undefined) continue;
      expectSame(digestOf(found.bytes), found.descriptor.digest, "the digest of the manifest");
      if (isIndexType(found.descriptor.mediaType)) await tryParse(() => readIndex(found.bytes, "the index"));
    }
    await rm(path, { recursive: true, force: true });
  };
}

/** A Docker context: its name in config.json, its endpoint in a file named after the digest of its name. */
async function openContext(stack: AsyncDisposableStack): Promise<Check> {
  const folder = await makeFolder(stack);
  const meta = join(folder, "contexts", "meta", hexOf(digestOf(new TextEncoder().encode("it"))));
  await mkdir(meta, { recursive: true });
  const host = hostAt(folder, { env: { DOCKER_CONFIG: folder, HOME: folder } });
  return async (input) => {
    const [config = input, context = input] = partsOf(input, 2);
    await writeFile(join(folder, "config.json"), config);
    await writeFile(join(meta, "meta.json"), context);
    await tryParse(() => findDaemon(host, { systemSockets: [] }));
    await tryParse(() => parseConfigFile(textOf(config), "config.json"));
  };
}

/** The tar of `docker save`, in latin1. */
async function savedTar(): Promise<string> {
  const tar = pack();
  const name = `${hexOf(digestOf(new TextEncoder().encode(CONFIG)))}.json`;
  tar.entry({ name }, CONFIG);
  tar.entry({ name: "layer.tar" }, "abc");
  tar.entry({ name: "link", type: "symlink", linkname: "layer.tar" });
  tar.entry({ name: "manifest.json" }, JSON.stringify([{ Config: name, Layers: ["layer.tar"], RepoTags: ["a:b"] }]));
  tar.entry({ name: "index.json" }, INDEX);
  tar.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of tar) if (chunk instanceof Uint8Array) chunks.push(chunk);
  return Buffer.concat(chunks).toString("latin1");
}

const DAEMON_SEED = new Uint8Array(
  Buffer.from(
    joinParts(
      "1.41",
      '{"stream":"Loading layer"}\r\n{"stream":"Loaded image: ko.local/app:1\\n"}\r\n',
      '{"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}',
      `{"Id":"${digestOf(new TextEncoder().encode(CONFIG))}","RootFS":{"Layers":["${DIGEST}"]}}`,
      await savedTar(),
    ),
    "latin1",
  ),
);

export const WIRE_TARGETS: readonly Target[] = [
  { name: "documents", seeds: [MANIFEST, INDEX, CONFIG], words: DOCUMENT_WORDS, open: () => checkDocuments },
  {
    name: "platform",
    seeds: ["linux/arm/v7:10.0", "windows/amd64:10.0.17763.1234", "all"],
    words: [..."/ : , linux windows amd64 arm64 v8 all".split(" ")],
    open: () => async (input) => void (await tryParse(() => parsePlatform(textOf(input)))),
  },
  {
    name: "challenge",
    seeds: [CHALLENGE, 'Negotiate abc==, Basic realm="a \\"b\\"", Bearer realm=https://x/,service=s'],
    words: [...'Bearer Basic realm= service= scope= " \\ , = ; error="x"'.split(" "), " "],
    open: () => checkChallenge,
  },
  {
    name: "registry",
    seeds: [
      joinParts(CHALLENGE, '{"token":"t","expires_in":300,"refresh_token":"r"}', MANIFEST, MEDIA_TYPES.ociManifest, ""),
      joinParts(
        'Basic realm="x"',
        "{}",
        INDEX,
        MEDIA_TYPES.ociIndex,
        '{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}',
      ),
      joinParts(CHALLENGE, '{"access_token":"t"}', MANIFEST, "text/plain", "<html><title>no</title>"),
    ],
    words: [
      ...DOCUMENT_WORDS,
      "\n=====\n",
      '"token":',
      '"errors":',
      '"expires_in":',
      "realm=",
      "ORIGIN/token",
      "http://",
    ],
    open: openRegistry,
  },
  {
    name: "docker",
    seeds: [DAEMON_SEED],
    words: [
      ...DOCUMENT_WORDS,
      "\n=====\n",
      '{"errorDetail":{"message":"x"}}\n',
      "ustar\0",
      "Loaded image: ",
      "\0\0\0\0",
    ],
    open: openDaemon,
  },
  {
    name: "layout",
    seeds: [joinParts('{"imageLayoutVersion":"1.0.0"}', INDEX, MANIFEST, CONFIG)],
    words: [...DOCUMENT_WORDS, "\n=====\n", '"imageLayoutVersion":'],
    open: openLayouts,
  },
  {
    name: "docker-config",
    seeds: [
      joinParts(
        '{"currentContext":"it","auths":{"https://index.docker.io/v1/":{"auth":"YTpi"}},"credHelpers":{"gcr.io":"gcloud"},"credsStore":"desktop"}',
        '{"Name":"it","Endpoints":{"docker":{"Host":"tcp://127.0.0.1:1","SkipTLSVerify":false}}}',
      ),
      joinParts('{"currentContext":"it"}', '{"Name":"it","Endpoints":{"docker":{"Host":"ssh://u@h:22/x"}}}'),
    ],
    words: [
      ...JSON_WORDS,
      "\n=====\n",
      '"auths":',
      '"Host":',
      "unix://",
      "ssh://",
      "npipe://",
      "tcp://",
      '"Endpoints":',
    ],
    open: openContext,
  },
];
