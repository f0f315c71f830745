/**
 * `ko build -L` where something is wrong with the daemon: one line says what, one what to do, the exit code is 1, and no
 * name stands for half an image. Real daemons, really killed and really full.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { chmod } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeToLayout } from "../lib/layout.ts";
import { startDockerProxy } from "./helpers/daemon-bench.ts";
import { makeCertificates, type TestCertificates, type TestDaemon, tryStartDaemon } from "./helpers/daemon.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { makeImage, makeLayer, randomBytes } from "./helpers/images.ts";
import { findFreePort } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { makeFolder, writeTree } from "./helpers/world-folders.ts";
import { ourCommand, type Result, runToEnd } from "./helpers/world-programs.ts";

const FILES = { "go.mod": goMod("example.com/app"), "main.go": mainGo() };

const stack = new AsyncDisposableStack();
afterAll(() => stack.disposeAsync());
const certificates: TestCertificates = await makeCertificates(stack.use(await makeFolder()).path);
const daemon: TestDaemon | undefined = await tryStartDaemon("classic", { tls: certificates });
if (daemon !== undefined) stack.use(daemon);

let bench: Bench;
beforeAll(() => {
  bench = stack.use(makeBench(FILES, { host: "127.0.0.1:1" }));
});

type Environment = Readonly<Record<string, string>>;

interface Failed extends Result {
  /** What of the go program was called. */
  readonly go: readonly string[];
}

/** Runs `ko build -q -L`, with a tag. */
async function build(env: Environment, args: readonly string[] = ["."]): Promise<Failed> {
  const before = bench.goCalls().length;
  const result = await bench.ours(["build", "-q", "-L", "-t", "v1", ...args], { env: { KO_DOCKER_REPO: "", ...env } });
  return { ...result, go: bench.goCalls().slice(before) };
}

/** All names that a daemon has. */
async function namesOf(socket: string): Promise<readonly string[]> {
  const list: unknown = await fetch("http://docker/images/json?all=1", { unix: socket }).then((answer) =>
    answer.json(),
  );
  return Array.isArray(list)
    ? list.flatMap((entry: { readonly RepoTags: readonly string[] | null }) => entry.RepoTags ?? [])
    : [];
}

const START = "Start it (systemctl start docker, colima start, …), or correct DOCKER_HOST.";
const CERTIFICATES =
  "Set DOCKER_CERT_PATH to the folder with its ca.pem, cert.pem and key.pem; for minikube: eval $(minikube docker-env)";

describe("ko build -L without a daemon", () => {
  test("that is not there says so before anything is built", async () => {
    const socket = bench.work.at("no.sock");
    expect(await build({ DOCKER_HOST: `unix://${socket}` })).toEqual({
      code: 1,
      stdout: "",
      stderr:
        `Error: Cannot talk to the Docker daemon at "unix://${socket}" (DOCKER_HOST): there is no such socket\n` +
        `  ${START}\n`,
      go: [],
    });
  });

  test("on a port where nothing listens says so before anything is built", async () => {
    const url = `tcp://127.0.0.1:${await findFreePort()}`;
    expect(await build({ DOCKER_HOST: url })).toEqual({
      code: 1,
      stdout: "",
      stderr: `Error: Cannot talk to the Docker daemon at "${url}" (DOCKER_HOST): nothing listens there\n  ${START}\n`,
      go: [],
    });
  });

  test("of a cluster says so before anything is built", async () => {
    bench.work.write({ "no-nodes/docker": { executable: "#!/bin/sh\nexit 0\n" } });
    const env = { PATH: `${bench.work.at("no-nodes")}:${process.env["PATH"] ?? ""}` };
    const before = bench.goCalls().length;
    const result = await bench.ours(["build", "-q", "."], { env: { ...env, KO_DOCKER_REPO: "kind.local" } });
    expect(result).toEqual({
      code: 1,
      stdout: "",
      stderr: "Error: Cannot find a kind cluster: there is none\n  kind create cluster\n",
    });
    expect(bench.goCalls().slice(before)).toEqual([]);
  });
});

describe.skipIf(daemon === undefined)("ko build -L that the daemon does not let in", () => {
  const tcp = daemon?.tcp ?? "";

  test.each<[string, () => Environment, string, string]>([
    [
      "with another authority's certificates",
      () => ({ DOCKER_HOST: tcp, DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: certificates.stranger }),
      "its certificate is not trusted \\(\\w+\\)",
      CERTIFICATES,
    ],
    [
      "with a certificate that the daemon does not trust, and without checking the daemon's",
      () => ({ DOCKER_HOST: tcp, DOCKER_TLS_VERIFY: "0", DOCKER_CERT_PATH: certificates.stranger }),
      "the TLS handshake failed: it refuses our certificate, or has no TLS on this port",
      CERTIFICATES,
    ],
    [
      "without TLS",
      () => ({ DOCKER_HOST: tcp }),
      "status 400: Client sent an HTTP request to an HTTPS server\\.",
      "It wants TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder with its certificates.",
    ],
  ])("%s", async (_what, environment, why, hint) => {
    const failed = await build(environment());
    expect(failed).toMatchObject({ code: 1, stdout: "", go: [] });
    const lines = failed.stderr.split("\n").filter((line) => !line.includes("is not verified, as you asked"));
    expect(lines).toEqual([
      expect.stringMatching(
        new RegExp(`^Error: Cannot talk to the Docker daemon at "${tcp}" \\(DOCKER_HOST\\): ${why}$`),
      ),
      `  ${hint}`,
      "",
    ]);
  });

  test("as another user, whom the socket is closed to", async () => {
    using tree = writeTree({ ...FILES, "config/.ko.yaml": "defaultBaseImage: ko.builtin/static\n", tmp: null });
    // Only the socket is to refuse: its folder lets everybody through, to a socket of root and its group.
    const folder = dirname(daemon?.socket ?? "");
    await chmod(folder, 0o711);
    await chmod(tree.path, 0o755);
    await chmod(tree.at("tmp"), 0o777);
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    const env = {
      PATH: process.env["PATH"] ?? "",
      HOME: "/nonexistent",
      TMPDIR: tree.at("tmp"),
      DOCKER_HOST: `unix://${daemon?.socket ?? ""}`,
      KO_CONFIG_PATH: tree.at("config"),
      // This user has no folder of its own to keep anything in.
      KOCACHE: "off",
    };
    const result = await runToEnd([...nobody, ...ourCommand(), "build", "-L", "."], { cwd: tree.path, env });
    expect(result).toEqual({
      code: 1,
      stdout: "",
      stderr:
        `Error: Cannot talk to the Docker daemon at "${env.DOCKER_HOST}" (DOCKER_HOST): permission denied\n` +
        `  Get access: sudo usermod -aG docker "$USER", then log in again.\n`,
    });
  });
});

describe.skipIf(daemon === undefined)("ko build -L that fails in the middle", () => {
  const socket = daemon?.socket ?? "";

  test("because the connection breaks: no name is there", async () => {
    await using proxy = await startDockerProxy(socket);
    proxy.onBody = (request) => request.socket.destroy();
    const failed = await build({ DOCKER_HOST: `unix://${proxy.socket}` });
    expect(failed).toMatchObject({ code: 1, stdout: "" });
    expect(failed.stderr).toMatch(
      /^Error: Cannot load "ko\.local\/example\.com\/app:\w{64}" into the Docker daemon at "unix:.*" \(DOCKER_HOST\): it closed the connection before the end \(\w+\)\n {2}See whether it still runs: docker info\n$/,
    );
    expect(await namesOf(socket)).toEqual([]);
  });

  test("because the daemon is killed: what it kept has no name", async () => {
    await using other = await tryStartDaemon("classic");
    if (other === undefined) throw new Error("one daemon starts, another does not");
    await using proxy = await startDockerProxy(other.socket);
    proxy.onBody = () => process.kill(other.pid, "SIGKILL");
    const failed = await build({ DOCKER_HOST: `unix://${proxy.socket}` });
    expect(failed).toMatchObject({ code: 1, stdout: "" });
    expect(failed.stderr).toMatch(
      /^Error: Cannot load ".*" into the Docker daemon at .*: it closed the connection before the end \(\w+\)\n {2}See whether it still runs: docker info\n$/,
    );
    const image = join(dirname(other.socket), "data", "image");
    const [driver = ""] = readdirSync(image);
    expect(readFileSync(join(image, driver, "repositories.json"), "utf8")).toBe('{"Repositories":{}}');
  });

  test("because it finds an error in the image: its words, and no name", async () => {
    // The layers are not in the order that the configuration says.
    await using folder = await makeFolder();
    const layers = await Promise.all(
      ["a", "b"].map((name) =>
        makeLayer([{ name, type: "file", mode: 0o644, mtime: 0, size: 3000, content: randomBytes(name, 3000) }]),
      ),
    );
    const config = {
      architecture: process.arch === "x64" ? "amd64" : process.arch,
      os: "linux",
      config: {},
      rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
    };
    const built = makeImage({ config, layers: layers.toReversed(), format: "oci", annotations: {} });
    await writeToLayout(folder.path, [{ built, name: "v1" }], { signal: new AbortController().signal });
    const failed = await build({ DOCKER_HOST: `unix://${socket}`, KO_DEFAULTBASEIMAGE: `oci:${folder.path}` });
    expect(failed).toMatchObject({ code: 1, stdout: "" });
    expect(failed.stderr).toMatch(
      /^Error: Cannot load "ko\.local\/example\.com\/app:\w{64}" into the Docker daemon at .*: invalid diffID for layer 0: expected "sha256:\w+", got "sha256:\w+"\n$/,
    );
    expect(await namesOf(socket)).toEqual([]);
  });

  test("of two programs, the one that was loaded before keeps its names, the other gets none", async () => {
    using two = makeBench(
      { "go.mod": goMod("example.com/two"), "cmd/a/main.go": mainGo(), "cmd/b/main.go": mainGo() },
      { host: "127.0.0.1:1" },
    );
    await using proxy = await startDockerProxy(socket);
    let loads = 0;
    proxy.onBody = (request) => {
      if (++loads === 2) request.socket.destroy();
    };
    const args = ["build", "-q", "-L", "./cmd/a", "./cmd/b"];
    const { code, stdout } = await two.ours(args, { env: { DOCKER_HOST: `unix://${proxy.socket}` } });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    const names = await namesOf(socket);
    expect(new Set(names.map((name) => name.replace(/:.*/, ""))).size).toBe(1);
    expect(names).toHaveLength(2);
    for (const name of names) await fetch(`http://docker/images/${name}`, { unix: socket, method: "DELETE" });
  });

  test("because its disk is full: its words, what to do, and no name; the next one that fits is loaded", async () => {
    await using full = await tryStartDaemon("classic", { diskMegabytes: 24 });
    if (full === undefined) throw new Error("one daemon starts, another does not");
    bench.tree.write({ "kodata/big": randomBytes("big", 30_000_000) });
    const env = { DOCKER_HOST: `unix://${full.socket}` };
    const failed = await build(env);
    expect(failed).toMatchObject({ code: 1, stdout: "" });
    expect(failed.stderr).toMatch(
      /^Error: Cannot load "ko\.local\/example\.com\/app:\w{64}" into the Docker daemon at .*: .*no space left on device\n {2}Make room for the daemon: docker system prune\n$/,
    );
    expect(await namesOf(full.socket)).toEqual([]);
    bench.tree.write({ "kodata/big": "small now" });
    expect(await build(env)).toMatchObject({ code: 0 });
    expect(await namesOf(full.socket)).toHaveLength(2);
  });
});
