import { describe, expect, test } from "bun:test";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { DockerEngine } from "../lib/docker.ts";
import { type DaemonEndpoint, socketEndpoint } from "../lib/docker-host.ts";
import { DAEMON_DEADLINES, type DaemonDeadlines } from "../lib/docker-transport.ts";
import { describeError } from "../lib/errors.ts";
import { loadImage } from "../lib/publish-local.ts";
import { type Log, silentLog } from "../lib/log.ts";
import { hexOf } from "../lib/oci.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { randomImage } from "./helpers/images.ts";
import { makeFolder } from "./helpers/world-folders.ts";

const signal = new AbortController().signal;
const NAME = "ko.local/app:1";
const ID = `sha256:${"a".repeat(64)}` as const;
const LAYER = `sha256:${"b".repeat(64)}` as const;

interface OpenOptions {
  readonly deadlines?: Partial<DaemonDeadlines>;
  readonly signal?: AbortSignal;
}

function openEngine(endpoint: DaemonEndpoint, options: OpenOptions = {}): Promise<DockerEngine> {
  const deadlines = { ...DAEMON_DEADLINES, ...options.deadlines };
  return DockerEngine.open(endpoint, { log: silentLog, signal: options.signal ?? signal, deadlines });
}

type Handler = (request: Request, path: string) => Response | Promise<Response> | undefined;

interface FakeDaemon extends AsyncDisposable {
  readonly endpoint: DaemonEndpoint;
  /** The requests in order: `METHOD path`. */
  readonly seen: string[];
}

/** A daemon for the cases that a real one does not show on demand. */
async function fakeDaemon(handler: Handler, headers: Record<string, string> = {}): Promise<FakeDaemon> {
  const place = await makeFolder();
  const socket = join(place.path, "fake.sock");
  const seen: string[] = [];
  const server = Bun.serve({
    unix: socket,
    fetch: async (request) => {
      const url = new URL(request.url);
      seen.push(`${request.method} ${url.pathname}${url.search}`);
      const path = url.pathname.replace(/^\/v[\d.]+/, "");
      const answer = handler(request, path);
      if (answer !== undefined) return answer;
      if (path === "/_ping") return new Response("OK", { headers: { "api-version": "1.41", ...headers } });
      if (path === "/info") return Response.json({ DriverStatus: [] });
      return Response.json({ message: "page not found" }, { status: 404 });
    },
  });
  return {
    endpoint: socketEndpoint(socket, { source: "the test" }),
    seen,
    [Symbol.asyncDispose]: async () => {
      await server.stop(true);
      await place[Symbol.asyncDispose]();
    },
  };
}

async function* chunks(...parts: readonly string[]): AsyncGenerator<Uint8Array, void, void> {
  for (const part of parts) yield new TextEncoder().encode(part);
}

async function loadError(answer: string, options: { readonly status?: number } = {}): Promise<string> {
  await using fake = await fakeDaemon((request, path) =>
    path === "/images/load"
      ? request.bytes().then(() => new Response(answer, { status: options.status ?? 200 }))
      : undefined,
  );
  await using engine = await openEngine(fake.endpoint);
  const text = describeError(await rejectionOf(engine.loadArchive(chunks("tar"), { expect: NAME })));
  return text.replace(/"unix:[^"]*"/g, '"SOCKET"');
}

const REFUSED = `Error: Cannot load "${NAME}" into the Docker daemon at "SOCKET" (the test): `;

describe("DockerEngine#loadArchive()", () => {
  test.each([
    [
      "errorDetail",
      '{"errorDetail":{"message":"archive/tar: invalid"},"error":"archive/tar: invalid"}\r\n',
      "archive/tar: invalid",
    ],
    ["an error key alone", '{"error":"boom"}', "boom"],
    ["an error with nothing in it", '{"errorDetail":{}}', "an error without a message"],
    ["an error after success", `{"stream":"Loaded image: ${NAME}\\n"}\r\n{"error":"late"}\r\n`, "late"],
    ["an empty body", "", "its response is empty, so nothing was loaded"],
    [
      "an unpack line after success",
      `{"stream":"Loaded image: ${NAME}\\n"}\r\n{"stream":"Error unpacking image ${NAME}: not found\\n"}\r\n`,
      `Error unpacking image ${NAME}: not found`,
    ],
    [
      "another name",
      '{"stream":"Loaded image: ko.local/app:10\\n"}',
      "it did not name the image: Loaded image: ko.local/app:10",
    ],
    ["an ID only", `{"stream":"Loaded image ID: ${ID}\\n"}`, `it did not name the image: Loaded image ID: ${ID}`],
    ["no JSON", "Bad Gateway", "it did not name the image: Bad Gateway"],
    ["escape sequences", '{"error":"\\u001b[31mred"}', "\\x1b[31mred"],
    [
      "a full disk",
      '{"errorDetail":{"message":"write /x: no space left on device"}}',
      "write /x: no space left on device\n  Make room for the daemon: docker system prune",
    ],
  ])("a status 200 with %s is a failure", async (_name, answer, reason) => {
    expect(await loadError(answer)).toBe(REFUSED + reason);
  });

  test("podman's status 500 is a failure in its words", async () => {
    const answer = '{"cause":"x","message":"payload does not match any of the supported image formats","response":500}';
    expect(await loadError(answer, { status: 500 })).toBe(
      `${REFUSED}status 500: payload does not match any of the supported image formats`,
    );
  });

  test.each([
    [NAME, `{"stream":"Loaded image: ${NAME}\\n"}\r\n`],
    [NAME, `{"stream":"Loading layer","progressDetail":{}}\n{"stream":"Loaded image: ${NAME}\\n"}`],
    [NAME, `{"stream":"Loaded image: docker.io/library/x:1,${NAME}"}`],
    ["index.docker.io/library/x:1", '{"stream":"Loaded image: x:1\\n"}'],
    ["docker.io/user/x:1", '{"stream":"Loaded image: user/x:1\\n"}'],
  ])("%s is loaded by %s", async (expected, answer) => {
    await using fake = await fakeDaemon((request, path) =>
      path === "/images/load" ? request.bytes().then(() => new Response(answer)) : undefined,
    );
    await using engine = await openEngine(fake.endpoint);
    await engine.loadArchive(chunks("a", "tar"), { expect: expected });
    expect(fake.seen).toEqual(["HEAD /_ping", "POST /v1.41/images/load?quiet=1"]);
  });

  test("a response is read line by line, however it is cut into pieces", async () => {
    const text = `{"stream":"Größe"}\n\n{"stream":"Loaded image: ${NAME}"}\n{"error":"kein Gerät"}`;
    const pieces = async function* (): AsyncGenerator<Uint8Array, void, void> {
      for (const byte of new TextEncoder().encode(text)) {
        await Bun.sleep(0);
        yield Uint8Array.of(byte);
      }
    };
    await using fake = await fakeDaemon((request, path) =>
      path === "/images/load" ? request.bytes().then(() => new Response(pieces())) : undefined,
    );
    const lines: string[] = [];
    const log: Log = { ...silentLog, debug: (line) => void lines.push(line) };
    await using engine = await DockerEngine.open(fake.endpoint, { log, signal });
    const error = await rejectionOf(engine.loadArchive(chunks("tar"), { expect: NAME }));
    expect(describeError(error)).toEndWith(": kein Gerät");
    expect(lines.slice(-2)).toEqual(["Größe", `Loaded image: ${NAME}`].map((line) => `${engine.name}: ${line}`));
  });

  test("a daemon that is silent for long, but lives, is waited for", async () => {
    let pings = 0;
    const done = Promise.withResolvers<Response>();
    await using fake = await fakeDaemon((request, path) => {
      if (path === "/images/load") return request.bytes().then(() => done.promise);
      if (path === "/_ping" && ++pings === 4) done.resolve(new Response(`{"stream":"Loaded image: ${NAME}"}`));
      return undefined;
    });
    await using engine = await openEngine(fake.endpoint, { deadlines: { silence: 20 } });
    await engine.loadArchive(chunks("tar"), { expect: NAME });
    expect(pings).toBe(4);
  });

  test("a daemon that is silent and answers no ping is given up", async () => {
    let pings = 0;
    const never = new Promise<Response>(() => {});
    await using fake = await fakeDaemon((_request, path) =>
      path === "/images/load" || (path === "/_ping" && ++pings > 1) ? never : undefined,
    );
    await using engine = await openEngine(fake.endpoint, { deadlines: { silence: 20, ping: 20 } });
    const error = await rejectionOf(engine.loadArchive(chunks("tar"), { expect: NAME }));
    expect(describeError(error)).toMatch(
      /it has been silent for \d+ s and answers no ping\n {2}Look at the daemon's log/,
    );
  });

  test("is ended by its signal", async () => {
    const never = new Promise<Response>(() => {});
    const run = new AbortController();
    const reason = new Error("interrupted");
    await using fake = await fakeDaemon((_request, path) => {
      if (path !== "/images/load") return undefined;
      run.abort(reason);
      return never;
    });
    await using engine = await openEngine(fake.endpoint);
    const loading = engine.loadArchive(chunks("tar"), { expect: NAME, signal: run.signal });
    expect(await rejectionOf(loading)).toBe(reason);
  });

  test("a failure of the archive is reported as such", async () => {
    const broken = async function* (): AsyncGenerator<Uint8Array, void, void> {
      yield new Uint8Array(10);
      throw new Error("the disk is gone");
    };
    await using fake = await fakeDaemon((request, path) =>
      path === "/images/load" ? request.bytes().then(() => new Response("")) : undefined,
    );
    await using engine = await openEngine(fake.endpoint);
    const error = await rejectionOf(engine.loadArchive(broken(), { expect: NAME }));
    expect(describeError(error)).toBe("Error: Cannot read the data to send: the disk is gone");
  });

  test("a redirect is not followed with an archive", async () => {
    await using fake = await fakeDaemon((request, path) =>
      path === "/images/load"
        ? request
            .bytes()
            .then(() => new Response("", { status: 307, headers: { location: "http://docker/elsewhere" } }))
        : undefined,
    );
    await using engine = await openEngine(fake.endpoint);
    const error = await rejectionOf(engine.loadArchive(chunks("tar"), { expect: NAME }));
    expect(describeError(error)).toContain("status 307: no message");
    expect(fake.seen).toEqual(["HEAD /_ping", "POST /v1.41/images/load?quiet=1"]);
  });
});

describe("DockerEngine.open()", () => {
  test.each([
    ["an older daemon's version", { "api-version": "1.24" }, undefined, "/v1.24/"],
    ["ours, if the daemon's is newer", { "api-version": "1.99" }, undefined, "/v1.48/"],
    ["the pinned one", { "api-version": "1.41" }, "1.30", "/v1.30/"],
    ["1.9 as older than 1.41", { "api-version": "1.9" }, undefined, "/v1.9/"],
  ])("agrees on %s", async (_name, headers, pinned, path) => {
    await using fake = await fakeDaemon(() => undefined, headers);
    await using engine = await openEngine({ ...fake.endpoint, apiVersion: pinned });
    await engine.storeKind();
    expect(fake.seen).toEqual(["HEAD /_ping", `GET ${path}info`]);
  });

  test("asks with GET where HEAD is unknown, and takes a missing version for an old one", async () => {
    await using fake = await fakeDaemon((request, path) => {
      if (path === "/_ping") return new Response("OK", { status: request.method === "HEAD" ? 405 : 200 });
      return undefined;
    });
    await using engine = await openEngine(fake.endpoint);
    await engine.storeKind();
    expect(fake.seen).toEqual(["HEAD /_ping", "GET /_ping", "GET /v1.24/info"]);
  });

  test("follows a redirect of the ping to the same daemon only", async () => {
    await using fake = await fakeDaemon((request, path) => {
      if (path !== "/_ping") return undefined;
      const moved = new URL(request.url).search === "?here";
      if (moved) return new Response("", { status: 302, headers: { location: "http://elsewhere.invalid/_ping" } });
      return new Response("", { status: 302, headers: { location: "/_ping?here" } });
    });
    const error = await rejectionOf(openEngine(fake.endpoint));
    expect(describeError(error)).toContain("status 302");
    expect(fake.seen).toEqual(["HEAD /_ping", "HEAD /_ping?here", "GET /_ping", "GET /_ping?here"]);
  });

  test("gives up on a daemon that takes the connection and says nothing", async () => {
    await using fake = await fakeDaemon(() => new Promise<Response>(() => {}));
    const error = await rejectionOf(openEngine(fake.endpoint, { deadlines: { ping: 30 } }));
    expect(describeError(error)).toContain("no answer for 0.03 s\n  Is it busy");
  });

  test("gives a hint if there is no socket, or nothing listens at it", async () => {
    await using place = await makeFolder();
    const at = (name: string): DaemonEndpoint => socketEndpoint(join(place.path, name), { source: "DOCKER_HOST" });
    await Bun.write(join(place.path, "file"), "");
    expect(describeError(await rejectionOf(openEngine(at("none"))))).toBe(
      `Error: Cannot talk to the Docker daemon at "unix://${place.path}/none" (DOCKER_HOST): there is no such socket\n  Start it (systemctl start docker, colima start, …), or correct DOCKER_HOST.`,
    );
    expect(describeError(await rejectionOf(openEngine(at("file"))))).toContain(": nothing listens there\n  Start it (");
  });

  test.skipIf(process.getuid?.() !== 0)("gives a hint if permission is denied", async () => {
    await using place = await makeFolder();
    const socket = join(place.path, "docker.sock");
    const server = Bun.serve({ unix: socket, fetch: () => new Response("OK") });
    try {
      await chmod(place.path, 0o755);
      await chmod(socket, 0o600);
      const script = `
        import { DockerEngine } from "${import.meta.dir}/../lib/docker.ts";
        import { socketEndpoint } from "${import.meta.dir}/../lib/docker-host.ts";
        import { describeError } from "${import.meta.dir}/../lib/errors.ts";
        import { silentLog } from "${import.meta.dir}/../lib/log.ts";
        process.setuid(65534);
        const endpoint = socketEndpoint(process.argv[2], { source: "its place" });
        const options = { log: silentLog, signal: new AbortController().signal };
        DockerEngine.open(endpoint, options).catch((error) => console.log(describeError(error)));
      `;
      const file = join(place.path, "open.ts");
      await Bun.write(file, script);
      const child = Bun.spawn([process.execPath, file, socket], { stdout: "pipe", stderr: "inherit" });
      expect(await child.stdout.text()).toBe(
        `Error: Cannot talk to the Docker daemon at "unix://${socket}" (its place): permission denied\n  Get access: sudo usermod -aG docker "$USER", then log in again.\n`,
      );
      await child.exited;
    } finally {
      await server.stop(true);
    }
  });

  test("a daemon that refuses our version gives the version to set", async () => {
    const message = "client version 1.41 is too old. Minimum supported API version is 1.60, please upgrade";
    await using fake = await fakeDaemon((_request, path) =>
      path === "/info" ? Response.json({ message }, { status: 400 }) : undefined,
    );
    await using engine = await openEngine(fake.endpoint);
    const text = describeError(await rejectionOf(engine.storeKind()));
    expect(text).toContain(`status 400: ${message}\n  Set DOCKER_API_VERSION=1.60`);
  });
});

describe("DockerEngine", () => {
  test.each([
    ["classic", {}, { DriverStatus: [["Backing Filesystem", "extfs"]] }],
    ["classic", {}, { DriverStatus: null }],
    ["containerd", {}, { DriverStatus: [["driver-type", "io.containerd.snapshotter.v1"]] }],
    ["podman", { "libpod-api-version": "5.4.0" }, {}],
  ] as const)("knows a store of kind %s", async (kind, headers, info) => {
    await using fake = await fakeDaemon(
      (_request, path) => (path === "/info" ? Response.json(info) : undefined),
      headers,
    );
    await using engine = await openEngine(fake.endpoint);
    expect([await engine.storeKind(), await engine.storeKind()]).toEqual([kind, kind]);
    expect(fake.seen.length).toBe(kind === "podman" ? 1 : 2);
  });

  test.each([
    [{ Os: "linux", Arch: "amd64" }, "x86_64", { os: "linux", architecture: "amd64" }],
    [{ Os: "linux", Arch: "arm" }, "armv6l", { os: "linux", architecture: "arm", variant: "v6" }],
    [{ Os: "windows", Arch: "amd64" }, "", { os: "windows", architecture: "amd64" }],
  ])("reads the platform %j on %s", async (version, machine, expected) => {
    await using fake = await fakeDaemon((_request, path) => {
      if (path === "/version") return Response.json(version);
      return path === "/info" ? Response.json({ Architecture: machine }) : undefined;
    });
    await using engine = await openEngine(fake.endpoint);
    expect(await engine.platform()).toEqual(expected);
  });

  test.each([
    ["a classic image", { Id: ID, RootFS: { Layers: [LAYER] } }, { id: ID, diffIds: [LAYER], isComplete: true }],
    ["podman's ID", { Id: "a".repeat(64), RootFS: {} }, { id: ID, diffIds: [], isComplete: true }],
    [
      "an image of which parts are missing",
      { Id: ID, RootFS: { Layers: [LAYER] }, Manifests: [{ Kind: "image", Available: false }] },
      { id: ID, diffIds: [LAYER], isComplete: false },
    ],
    [
      "an image with an attestation",
      {
        Id: ID,
        Manifests: [
          { Kind: "attestation", Available: false },
          { Kind: "image", Available: true },
        ],
      },
      { id: ID, diffIds: [], isComplete: true },
    ],
  ])("inspects %s", async (_name, answer, expected) => {
    await using fake = await fakeDaemon(
      (_request, path) => (path === `/images/${NAME}/json` ? Response.json(answer) : undefined),
      { "api-version": "1.50" },
    );
    await using engine = await openEngine(fake.endpoint);
    expect(await engine.inspectImage(NAME)).toEqual(expected);
    expect(await engine.inspectImage("ko.local/other:1")).toBeUndefined();
    expect(fake.seen.slice(1)).toEqual([
      `GET /v1.48/images/${NAME}/json?manifests=1`,
      "GET /v1.48/images/ko.local/other:1/json?manifests=1",
    ]);
  });

  test("removes a name on best effort, although the run has ended, and not for long", async () => {
    const run = new AbortController();
    const never = new Promise<Response>(() => {});
    await using fake = await fakeDaemon((request, path) => {
      if (request.method !== "DELETE") return undefined;
      return path === `/images/${NAME}` ? Response.json([{ Untagged: NAME }]) : never;
    });
    await using engine = await openEngine(fake.endpoint, { signal: run.signal, deadlines: { bestEffort: 30 } });
    run.abort(new Error("interrupted"));
    expect(String(await rejectionOf(engine.removeTag(NAME)))).toBe("Error: interrupted");
    await engine.removeTag(NAME, { bestEffort: true });
    const error = await rejectionOf(engine.removeTag("ko.local/slow:1", { bestEffort: true }));
    expect(describeError(error)).toMatch(
      /^Error: Cannot remove the name "ko.local\/slow:1" from the Docker daemon at .*: no answer for 0.03 s\n/,
    );
  });

  test("a server that is not a daemon is an error", async () => {
    await using fake = await fakeDaemon((_request, path) => (path === "/_ping" ? undefined : new Response("<html>")));
    await using engine = await openEngine(fake.endpoint);
    expect(describeError(await rejectionOf(engine.inspectImage(NAME)))).toContain(
      "it is not JSON; is this a Docker daemon?",
    );
  });
});

describe("loadImage() into a containerd store that fails", () => {
  test("takes the name off that the daemon gave before it failed", async () => {
    const image = await randomImage();
    const name = `ko.local/app:${hexOf(image.descriptor.digest)}`;
    let isNamed = false;
    await using fake = await fakeDaemon((request, path) => {
      if (path === "/info") return Response.json({ DriverStatus: [["driver-type", "io.containerd.snapshotter.v1"]] });
      if (path === "/images/load") {
        isNamed = true;
        const lines = [`Loaded image: ${name}`, `Error unpacking image ${name}: no space left on device`];
        const text = lines.map((stream) => JSON.stringify({ stream })).join("\r\n");
        return request.bytes().then(() => new Response(text));
      }
      if (path === `/images/${name}` && request.method === "DELETE") {
        isNamed = false;
        return Response.json([{ Untagged: name }]);
      }
      return undefined;
    });
    await using engine = await openEngine(fake.endpoint);
    const names = [name, "ko.local/app:latest"];
    const error = await rejectionOf(loadImage(engine, image, names, { log: silentLog, signal }));
    expect(describeError(error)).toContain("no space left on device\n  Make room for the daemon: docker system prune");
    expect(isNamed).toBe(false);
    expect(fake.seen.filter((line) => line.includes("/tag"))).toEqual([]);
  });

  test("does not trust a name that stands for another image", async () => {
    const image = await randomImage();
    const name = `ko.local/app:${hexOf(image.descriptor.digest)}`;
    let isLoaded = false;
    await using fake = await fakeDaemon((request, path) => {
      if (path === "/images/load") {
        isLoaded = true;
        return request.bytes().then(() => new Response(JSON.stringify({ stream: `Loaded image: ${name}` })));
      }
      if (path === "/images/json") return Response.json([]);
      if (path === `/images/${name}/json` && isLoaded) return Response.json({ Id: ID, RootFS: { Layers: [LAYER] } });
      return undefined;
    });
    await using engine = await openEngine(fake.endpoint);
    const error = await rejectionOf(loadImage(engine, image, [name], { log: silentLog, signal }));
    expect(describeError(error)).toContain(`but the name stands for ${ID} with the layers ${LAYER}`);
    expect(fake.seen.at(-1)).toBe(`DELETE /v1.41/images/${name}`);
  });
});
