import { describe, expect, test } from "bun:test";
import { chmod, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DockerEngine } from "../lib/docker.ts";
import { type FindDaemonOptions, findDaemon } from "../lib/docker-host.ts";
import { describeError } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { makeCertificates, tryStartDaemon } from "./helpers/daemon.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { makeFolder } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

interface FindOptions extends FindDaemonOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly platform?: string;
}

/** With an empty HOME and no sockets of the machine, unless they are given. */
async function find(home: string, options: FindOptions = {}): ReturnType<typeof findDaemon> {
  const { env = {}, platform = "linux", systemSockets = [] } = options;
  return findDaemon(hostAt(home, { env: { HOME: home, ...env }, platform }), { systemSockets });
}

async function summary(home: string, options: FindOptions = {}): Promise<unknown> {
  const endpoint = await find(home, options);
  const { url, source, apiVersion, warnings } = endpoint;
  await using address = await endpoint.connect();
  const { base, route, tls, unix } = address;
  return {
    url,
    source,
    apiVersion,
    warnings,
    base,
    unix,
    tls: tls === undefined ? undefined : Object.keys(tls),
    proxy: route?.proxyFor(new URL(base)) ?? false,
  };
}

async function failure(home: string, options: FindOptions = {}): Promise<string> {
  return describeError(await rejectionOf(find(home, options)));
}

/** A socket that accepts connections. */
async function listen(path: string): Promise<AsyncDisposable & { readonly url: string }> {
  await mkdir(dirname(path), { recursive: true });
  const server = Bun.listen({ unix: path, socket: { data() {} } });
  return { url: `unix://${path}`, [Symbol.asyncDispose]: async () => server.stop(true) };
}

/** As `docker context create` writes it. */
async function writeContext(config: string, name: string, docker: unknown): Promise<void> {
  const id = new Bun.CryptoHasher("sha256").update(name).digest("hex");
  await Bun.write(
    join(config, "contexts", "meta", id, "meta.json"),
    JSON.stringify({ Name: name, Metadata: {}, Endpoints: { docker } }),
  );
}

const PLAIN = { apiVersion: undefined, warnings: [], tls: undefined, proxy: false } as const;

describe("findDaemon() with DOCKER_HOST", () => {
  test.each([
    ["unix:///run/x.sock", {}, { url: "unix:///run/x.sock", base: "http://docker", unix: "/run/x.sock" }],
    ["tcp://127.0.0.1:2375", {}, { url: "tcp://127.0.0.1:2375", base: "http://127.0.0.1:2375" }],
    ["tcp://localhost", {}, { url: "tcp://localhost:2375", base: "http://localhost:2375" }],
    ["tcp://[::1]:99/base/", {}, { url: "tcp://[::1]:99/base/", base: "http://[::1]:99/base" }],
    ["http://127.0.0.1:80", {}, { url: "tcp://127.0.0.1:80", base: "http://127.0.0.1" }],
    [
      "https://127.0.0.1:443",
      {},
      { url: "tcp://127.0.0.1:443", base: "https://127.0.0.1", tls: ["rejectUnauthorized"] },
    ],
    [
      "unix:///x",
      { DOCKER_API_VERSION: "v1.30" },
      { url: "unix:///x", base: "http://docker", unix: "/x", apiVersion: "1.30" },
    ],
    ["unix:///x", { DOCKER_CONTEXT: "not there" }, { url: "unix:///x", base: "http://docker", unix: "/x" }],
    [
      "tcp://10.1.2.3:2375",
      { HTTP_PROXY: "proxy:3128", NO_PROXY: "10.1.2.4" },
      {
        url: "tcp://10.1.2.3:2375",
        base: "http://10.1.2.3:2375",
        proxy: "http://proxy:3128",
        warnings: [
          'The Docker daemon at "tcp://10.1.2.3:2375" (DOCKER_HOST) is reached without TLS: anyone in between can use it',
        ],
      },
    ],
  ])("%s with %j", async (url, env, expected) => {
    await using home = await makeFolder();
    const found = await summary(home.path, { env: { DOCKER_HOST: url, ...env } });
    expect(found).toEqual({ ...PLAIN, source: "DOCKER_HOST", unix: undefined, ...expected });
  });

  test("a Windows pipe", async () => {
    await using home = await makeFolder();
    const env = { DOCKER_HOST: "npipe:////./pipe/docker_engine", USERPROFILE: home.path };
    expect(await summary(home.path, { env, platform: "win32" })).toEqual({
      ...PLAIN,
      url: "npipe:////./pipe/docker_engine",
      source: "DOCKER_HOST",
      base: "http://docker",
      unix: "\\\\.\\pipe\\docker_engine",
    });
  });

  test.each([
    [
      "/var/run/docker.sock",
      {},
      'Cannot use "/var/run/docker.sock" from DOCKER_HOST as a Docker daemon: wanted unix:///path, tcp://host:port or ssh://user@host',
    ],
    ["unix://docker.sock", {}, "wanted an absolute path, as in unix:///var/run/docker.sock"],
    ["npipe:////./pipe/x", {}, "named pipes exist on Windows only"],
    ["tcp://", {}, "wanted tcp://host:port"],
    [
      "tcp://user:secret@host:1",
      {},
      'Cannot use "tcp://…@host:1" from DOCKER_HOST as a Docker daemon: it holds a user name or a password',
    ],
    [
      "ssh://user:secret@host",
      {},
      'Cannot use "ssh://…@host" from DOCKER_HOST as a Docker daemon: it holds a password; ssh takes keys',
    ],
    ["ssh://-oProxyCommand=x", {}, "its host is not a host name"],
    ["ssh://-oProxyCommand=x@host", {}, "its user is not a user name"],
    ["ssh://host/a;b", {}, "the path of the socket may hold letters"],
    ["ssh://", {}, "its host is not a host name"],
    ["unix:///x", { DOCKER_API_VERSION: "new" }, 'Cannot use DOCKER_API_VERSION "new": wanted a version such as 1.41'],
    [
      "tcp://h:1",
      { DOCKER_CERT_PATH: "/no/such/folder" },
      'Cannot use DOCKER_CERT_PATH "/no/such/folder": there is no ca.pem, cert.pem or key.pem in it',
    ],
  ])("%s with %j is refused", async (url, env, message) => {
    await using home = await makeFolder();
    const text = await failure(home.path, { env: { DOCKER_HOST: url, ...env } });
    expect(text).toContain(message);
    expect(text).not.toContain("secret");
  });

  test("reads certificates, and reports the reason if one is not valid", async () => {
    await using home = await makeFolder();
    const { client } = await makeCertificates(home.path);
    const env = { DOCKER_HOST: "tcp://127.0.0.1", DOCKER_CERT_PATH: client };
    expect(await summary(home.path, { env })).toEqual({
      ...PLAIN,
      url: "tcp://127.0.0.1:2376",
      source: "DOCKER_HOST",
      base: "https://127.0.0.1:2376",
      unix: undefined,
      tls: ["ca", "cert", "key", "rejectUnauthorized"],
    });
    // As the docker program, without DOCKER_CERT_PATH: those beside its configuration.
    await mkdir(join(home.path, ".docker"));
    await Bun.write(join(home.path, ".docker", "ca.pem"), Bun.file(join(client, "ca.pem")));
    const verify = { DOCKER_HOST: "tcp://127.0.0.1", DOCKER_TLS_VERIFY: "1" };
    expect(await summary(home.path, { env: verify })).toMatchObject({ tls: ["ca", "rejectUnauthorized"] });
    await Bun.write(join(client, "key.pem"), "garbage with a secret");
    const text = await failure(home.path, { env });
    expect(text).toBe(
      `Error: Cannot use "${client}/key.pem" for the Docker daemon: it is not a private key without passphrase in PEM`,
    );
    await Bun.file(join(client, "key.pem")).delete();
    expect(await failure(home.path, { env })).toBe(
      `Error: Cannot use DOCKER_CERT_PATH: "${client}" has cert.pem but no key.pem`,
    );
    await Bun.write(join(client, "ca.pem"), "garbage");
    expect(await failure(home.path, { env })).toContain(`Cannot use "${client}/ca.pem" for the Docker daemon`);
  });
});

describe("findDaemon() with a docker context", () => {
  test("DOCKER_CONTEXT beats currentContext, which beats the sockets", async () => {
    await using home = await makeFolder();
    const config = join(home.path, ".docker");
    await using socket = await listen(join(home.path, "docker.sock"));
    const systemSockets = [join(home.path, "docker.sock")];
    const source = async (env: Record<string, string> = {}): Promise<string> =>
      (await find(home.path, { env, systemSockets })).source;
    expect([await source(), (await find(home.path, { systemSockets })).url]).toEqual([
      "a well-known socket",
      socket.url,
    ]);
    await writeContext(config, "one", { Host: "unix:///one.sock" });
    await writeContext(config, "größe", { Host: "unix:///two.sock" });
    await Bun.write(join(config, "config.json"), JSON.stringify({ currentContext: "one" }));
    expect(await source()).toBe('docker context "one"');
    expect(await source({ DOCKER_CONTEXT: "größe" })).toBe('docker context "größe"');
    expect(await source({ DOCKER_CONTEXT: "default" })).toBe("a well-known socket");
    expect(await source({ DOCKER_HOST: "unix:///x" })).toBe("DOCKER_HOST");
    expect(await source({ DOCKER_CONFIG: join(home.path, "elsewhere") })).toBe("a well-known socket");
  });

  test.each([
    ["without TLS", { Host: "tcp://127.0.0.1:1" }, undefined, []],
    [
      "that turns verification off",
      { Host: "tcp://127.0.0.1:1", SkipTLSVerify: true },
      ["rejectUnauthorized"],
      [
        'The certificate of the Docker daemon at "tcp://127.0.0.1:1" (docker context "one") is not verified, as you asked',
      ],
    ],
  ])("a TCP context %s", async (_name, docker, tls, warnings) => {
    await using home = await makeFolder();
    await writeContext(join(home.path, ".docker"), "one", docker);
    const env = { DOCKER_CONTEXT: "one", DOCKER_CERT_PATH: "/not/for/contexts" };
    expect(await summary(home.path, { env })).toMatchObject({ url: "tcp://127.0.0.1:1", tls, warnings });
  });

  test("a context that cannot be used is refused with the reason", async () => {
    await using home = await makeFolder();
    const config = join(home.path, ".docker");
    const of = (name: string): Promise<string> => failure(home.path, { env: { DOCKER_CONTEXT: name } });
    expect(await of("gone")).toMatch(
      /^Error: Cannot find the docker context "gone" of DOCKER_CONTEXT: .*\n {2}docker context ls$/,
    );
    await writeContext(config, "empty", undefined);
    expect(await of("empty")).toContain('Cannot use the docker context "empty": ');
    await writeContext(config, "odd", { Host: "ftp://x" });
    expect(await of("odd")).toContain(
      'Cannot use "ftp://x" from docker context "odd" as a Docker daemon: wanted unix:',
    );
    await Bun.write(join(config, "config.json"), "{ secret");
    expect(await failure(home.path)).toBe(`Error: Cannot read "${config}/config.json": it is not a JSON object`);
    await Bun.write(join(config, "config.json"), '{"currentContext": 1}');
    expect(await failure(home.path)).toContain("currentContext is not a string");
  });
});

describe("findDaemon() by well-known sockets", () => {
  test.each([
    ["rootless Docker", "run/docker.sock"],
    ["Docker Desktop", "home/.docker/run/docker.sock"],
    ["Docker Desktop on Linux", "home/.docker/desktop/docker.sock"],
    ["Colima", "home/.colima/default/docker.sock"],
    ["another profile of Colima", "home/.config/colima/work/docker.sock"],
    ["OrbStack", "home/.orbstack/run/docker.sock"],
    ["Rancher Desktop", "home/.rd/docker.sock"],
    ["podman", "run/podman/podman.sock"],
    ["the machine", "var/docker.sock"],
    ["the machine's podman", "var/podman.sock"],
  ])("finds that of %s", async (_name, path) => {
    await using folder = await makeFolder();
    const at = (name: string): string => join(folder.path, name);
    await using socket = await listen(at(path));
    const env = { HOME: at("home"), XDG_RUNTIME_DIR: at("run") };
    const systemSockets = [at("var/docker.sock"), at("var/podman.sock")];
    expect((await find(folder.path, { env, systemSockets })).url).toBe(socket.url);
  });

  test.each([
    ["of a machine that runs", "tmp/podman/podman-machine-default-api.sock"],
    ["in its own folder", "home/.local/share/containers/podman/machine/podman.sock"],
  ])("finds podman's socket on macOS, %s", async (_name, path) => {
    await using folder = await makeFolder();
    const at = (name: string): string => join(folder.path, name);
    await using socket = await listen(at(path));
    const env = { HOME: at("home"), TMPDIR: at("tmp") };
    expect((await find(folder.path, { env, platform: "darwin" })).url).toBe(socket.url);
  });

  test("passes by sockets at which nothing listens, and takes the first of the rest", async () => {
    await using folder = await makeFolder();
    const at = (name: string): string => join(folder.path, name);
    await Bun.write(at("docker.sock"), "");
    await using one = await listen(at(".rd/docker.sock"));
    await using two = await listen(at(".colima/work/docker.sock"));
    const systemSockets = [at("docker.sock"), at(".rd/docker.sock")];
    expect((await find(folder.path, { systemSockets })).url).toBe(two.url);
    expect((await find(folder.path, { systemSockets: systemSockets.reverse() })).url).toBe(one.url);
  });

  test("lists the sockets that were tried if there is none, and a command to type", async () => {
    await using folder = await makeFolder();
    const at = (name: string): string => join(folder.path, name);
    await Bun.write(at("stale.sock"), "");
    const text = await failure(folder.path, { systemSockets: [at("stale.sock")] });
    expect(text).toStartWith("Error: Cannot find a Docker daemon: DOCKER_HOST and docker context are not set, tried ");
    for (const tried of [`"${at("stale.sock")}" (nothing listens)`, `"${at(".rd/docker.sock")}" (not there)`]) {
      expect(text).toContain(tried);
    }
    expect(text).toContain("type: export DOCKER_HOST=unix:///path/to/docker.sock");
    expect(text.split("\n").length).toBe(2);
  });
});

describe("findDaemon() with ssh", () => {
  /** An ssh whose script plays the remote side. */
  async function fakeSsh(folder: string, script: string): Promise<Record<string, string>> {
    await Bun.write(join(folder, "bin", "ssh"), `#!/bin/sh\necho "$*" >> "${folder}/argv"\n${script}\n`);
    await chmod(join(folder, "bin", "ssh"), 0o755);
    return { PATH: `${join(folder, "bin")}:${process.env["PATH"]}` };
  }

  test("carries the requests through docker system dial-stdio", async () => {
    const started = await tryStartDaemon("classic");
    if (started === undefined) return;
    await using daemon = started;
    await using folder = await makeFolder();
    const dial = `exec docker -H unix://${daemon.socket} system dial-stdio`;
    const env = { ...(await fakeSsh(folder.path, dial)), DOCKER_HOST: "ssh://me@far.example:2222/run/docker.sock" };
    const endpoint = await find(folder.path, { env });
    {
      await using engine = await DockerEngine.open(endpoint, { log: silentLog, signal: new AbortController().signal });
      expect(await engine.platform()).toMatchObject({ os: "linux" });
      expect(await engine.inspectImage("ko.local/none:1")).toBeUndefined();
      // More than pipes and sockets hold; not an image, but read to its end.
      const zeros = async function* (): AsyncGenerator<Uint8Array, void, void> {
        for (let i = 0; i < 64; i++) yield new Uint8Array(256 * 1024);
      };
      const error = await rejectionOf(engine.loadArchive(zeros(), { expect: "ko.local/none:1" }));
      expect(describeError(error)).toContain(
        'Cannot load "ko.local/none:1" into the Docker daemon at "ssh://me@far.example:2222',
      );
    }
    const lines = (await Bun.file(join(folder.path, "argv")).text()).trim().split("\n");
    expect(new Set(lines)).toEqual(
      new Set([
        "-o ConnectTimeout=30 -T -l me -p 2222 -- far.example docker --host=unix:///run/docker.sock system dial-stdio",
      ]),
    );
  });

  test("shows the message of ssh if it fails", async () => {
    await using folder = await makeFolder();
    const env = {
      ...(await fakeSsh(folder.path, 'echo "ssh: Could not resolve hostname far.example" >&2; exit 255')),
      DOCKER_HOST: "ssh://far.example",
    };
    const endpoint = await find(folder.path, { env });
    const options = { log: silentLog, signal: new AbortController().signal };
    const text = describeError(await rejectionOf(DockerEngine.open(endpoint, options)));
    expect(text).toBe(
      'Error: Cannot talk to the Docker daemon at "ssh://far.example" (DOCKER_HOST): ssh failed: ssh: Could not resolve hostname far.example',
    );
  });

  test("fails if ssh is not installed", async () => {
    await using folder = await makeFolder();
    const endpoint = await find(folder.path, { env: { PATH: folder.path, DOCKER_HOST: "ssh://far.example" } });
    const error = await rejectionOf(endpoint.connect());
    expect(describeError(error)).toBe("Error: Cannot reach the Docker daemon: ssh is not on PATH\n  Install ssh.");
  });
});
