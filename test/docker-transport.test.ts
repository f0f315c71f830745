import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { DockerEngine } from "../lib/docker.ts";
import { type DaemonEndpoint, findDaemon, socketEndpoint } from "../lib/docker-host.ts";
import { refusalHint } from "../lib/docker-transport.ts";
import { loadImage } from "../lib/publish-local.ts";
import { describeError } from "../lib/errors.ts";
import { createLog, silentLog } from "../lib/log.ts";
import { hexOf } from "../lib/oci.ts";
import { makeCertificates, tryStartDaemon } from "./helpers/daemon.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { randomImage } from "./helpers/images.ts";
import { makeFolder } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

const stack = new AsyncDisposableStack();
afterAll(() => stack.disposeAsync());
const folder = stack.use(await makeFolder());
const certificates = await makeCertificates(folder.path);
const started = await tryStartDaemon("classic", { tls: certificates });
const daemon = started === undefined ? undefined : stack.use(started);

const signal = new AbortController().signal;

function openEngine(endpoint: DaemonEndpoint): Promise<DockerEngine> {
  return DockerEngine.open(endpoint, { log: silentLog, signal });
}

describe.skipIf(daemon === undefined)("a real daemon behind TLS", () => {
  const tcp = daemon?.tcp ?? "";
  const open = async (env: Record<string, string>): Promise<DockerEngine> =>
    openEngine(await findDaemon(hostAt(folder.path, { env: { HOME: folder.path, DOCKER_HOST: tcp, ...env } })));

  test.each([
    ["as minikube docker-env sets it", { DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: certificates.client }],
    ["with the path of the certificates alone", { DOCKER_CERT_PATH: certificates.client }],
  ])("takes an image %s", async (_name, env) => {
    await using engine = await open(env);
    const image = await randomImage({ seed: _name });
    const name = `ko.local/tls:${hexOf(image.descriptor.digest)}`;
    expect(await loadImage(engine, image, [name], { log: silentLog, signal })).toBe("loaded");
    expect((await engine.inspectImage(name))?.id).toBe(image.manifest.config.digest);
  });

  test("is verified also when only the path of the certificates is given", async () => {
    const text = describeError(await rejectionOf(open({ DOCKER_CERT_PATH: certificates.stranger })));
    expect(text).toContain("its certificate is not trusted (");
    expect(text).toContain("\n  Set DOCKER_CERT_PATH");
  });

  test("says that it wants TLS", async () => {
    const text = describeError(await rejectionOf(open({})));
    expect(text).toContain("Client sent an HTTP request to an HTTPS server.\n  It wants TLS: set DOCKER_TLS_VERIFY=1");
  });

  test("refuses a client without certificate, which is said", async () => {
    await using place = await makeFolder();
    await Bun.write(join(place.path, "ca.pem"), Bun.file(join(certificates.client, "ca.pem")));
    const text = describeError(await rejectionOf(open({ DOCKER_CERT_PATH: place.path })));
    expect(text).toContain("the TLS handshake failed: it refuses our certificate, or has no TLS on this port\n  Set");
  });

  test("warns when the user has turned verification off", async () => {
    const lines: string[] = [];
    const env = { HOME: folder.path, DOCKER_HOST: tcp, DOCKER_TLS_VERIFY: "0", DOCKER_CERT_PATH: certificates.client };
    const endpoint = await findDaemon(hostAt(folder.path, { env }));
    const log = createLog("normal", (text) => lines.push(text));
    await using engine = await DockerEngine.open(endpoint, { log, signal });
    expect(await engine.platform()).toMatchObject({ os: "linux" });
    expect(lines).toEqual([
      `Warning: The certificate of the Docker daemon at "${tcp}" (DOCKER_HOST) is not verified, as you asked\n`,
    ]);
  });

  test("is found by a docker context with its certificates", async () => {
    await using place = await makeFolder();
    const config = join(place.path, "config");
    const docker = Bun.spawnSync(
      [
        "docker",
        "context",
        "create",
        "far",
        "--docker",
        `host=${tcp},ca=${certificates.client}/ca.pem,cert=${certificates.client}/cert.pem,key=${certificates.client}/key.pem`,
      ],
      { env: { PATH: process.env["PATH"] ?? "", HOME: place.path, DOCKER_CONFIG: config } },
    );
    expect(docker.exitCode).toBe(0);
    const env = { HOME: place.path, DOCKER_CONFIG: config, DOCKER_CONTEXT: "far" };
    await using engine = await openEngine(await findDaemon(hostAt(place.path, { env })));
    expect(engine.name).toBe(`the Docker daemon at "${tcp}" (docker context "far")`);
    expect(await engine.storeKind()).toBe("classic");
  });
});

test("a daemon that dies in the middle of a load is one error with a hint", async () => {
  const dying = await tryStartDaemon("classic");
  if (dying === undefined) return;
  await using victim = dying;
  const endpoint = socketEndpoint(victim.socket, { source: "the test" });
  await using engine = await openEngine(endpoint);
  const image = await randomImage({ layers: 1 });
  const [layer] = image.layers;
  if (layer === undefined) throw new Error("an image without layers");
  const name = `ko.local/dies:${hexOf(image.descriptor.digest)}`;
  // The first bytes are on their way when it ends.
  const open = async function* (): AsyncGenerator<Uint8Array, void, void> {
    process.kill(victim.pid, "SIGKILL");
    yield* layer.open();
  };
  const error = await rejectionOf(
    loadImage(engine, { ...image, layers: [{ ...layer, open }] }, [name], { log: silentLog, signal }),
  );
  expect(describeError(error)).toMatch(
    /^Error: Cannot (?:load|look for the image) "[^"]*" (?:into|in) the Docker daemon at [^:]*[^\n]*\n {2}S[^\n]*$/,
  );
});

test.each([
  ["a ping", 0, "it closed the connection without an answer", "Set DOCKER_CERT_PATH to the folder"],
  [
    "another request",
    1,
    "it closed the connection before the end (ECONNRESET)",
    "See whether it still runs: docker info",
  ],
])("a daemon that closes the connection of %s is explained", async (_name, answers, why, hint) => {
  let left = answers;
  const unix = join(folder.path, `closing-${answers}.sock`);
  const server = Bun.listen({
    unix,
    socket: {
      data: (socket) => {
        if (left-- > 0) socket.write("HTTP/1.1 200 OK\r\napi-version: 1.41\r\ncontent-length: 0\r\n\r\n");
        else socket.end();
      },
    },
  });
  try {
    const work = async (): Promise<unknown> => {
      await using engine = await openEngine(socketEndpoint(unix, { source: "the test" }));
      return engine.storeKind();
    };
    const text = describeError(await rejectionOf(work()));
    expect(text).toContain(`${why}\n  ${hint}`);
  } finally {
    server.stop(true);
  }
});

describe("refusalHint()", () => {
  const make = "Make room for the daemon: docker system prune";
  test.each([
    ["write /x: no space left on device", make],
    ["write /x: disk quota exceeded", make],
    ["Client sent an HTTP request to an HTTPS server.", expect.stringContaining("set DOCKER_TLS_VERIFY=1")],
    ["client version 1.24 is too old. Minimum supported API version is 1.44", "Set DOCKER_API_VERSION=1.44"],
    ["client is newer than server. Maximum supported API version is 1.41", "Set DOCKER_API_VERSION=1.41"],
    ["invalid tar header", undefined],
  ])("of %j", (message, hint) => {
    expect(refusalHint(message)).toEqual(hint);
  });
});
