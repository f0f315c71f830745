/**
 * `ko build -L`, `ko resolve -L` and `ko apply -L` as a user types them, with real daemons: what is loaded runs, and only
 * what is new is sent.
 *
 * Names are in `feature-local-names.test.ts`, platforms and bases in `feature-local-base.test.ts`, failures in `feature-local-failure.test.ts`.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import {
  type DockerBench,
  type Environment,
  makeDockerBench,
  startDockerProxy,
  viaSocket,
} from "./helpers/daemon-bench.ts";
import {
  type DaemonKind,
  makeCertificates,
  type TestCertificates,
  type TestDaemon,
  tryStartDaemon,
} from "./helpers/daemon.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { startRegistry, whyNoRegistry } from "./helpers/registry.ts";
import { makeBench } from "./helpers/world-bench.ts";
import { makeFolder } from "./helpers/world-folders.ts";
import { ourCommand, type Result } from "./helpers/world-programs.ts";

const ROOT = join(import.meta.dir, "..");
const EXAMPLE = join(ROOT, "examples", "hello");

const HEX = "[0-9a-f]{64}";

const stack = new AsyncDisposableStack();
afterAll(() => stack.disposeAsync());
const daemons = new Map<DaemonKind, TestDaemon>();
let certificates: TestCertificates | undefined;
if (Bun.which("docker") === null) {
  if (process.env["CI"]) throw new Error("docker is not installed");
  console.warn("skipped: docker is not installed");
} else {
  certificates = await makeCertificates(stack.use(await makeFolder()).path);
  for (const kind of ["classic", "containerd", "podman"] as const) {
    const daemon = await tryStartDaemon(kind, kind === "classic" ? { tls: certificates } : {});
    if (daemon !== undefined) daemons.set(kind, stack.use(daemon));
  }
}
const classic = daemons.get("classic");

const socket = classic?.socket ?? "";
const here: Environment = viaSocket(socket);

let bench: DockerBench;
beforeAll(() => {
  bench = stack.use(makeDockerBench());
});

describe.skipIf(classic === undefined)("what ko build -L prints", () => {
  const withTls = (): Environment => ({
    DOCKER_HOST: classic?.tcp ?? "",
    DOCKER_TLS_VERIFY: "1",
    DOCKER_CERT_PATH: certificates?.client ?? "",
    KO_DOCKER_REPO: "",
  });

  /** A context as the docker program makes it; it is the current one. */
  async function inContext(name: string, endpoint: string): Promise<Environment> {
    bench.work.write({ [name]: null });
    const env = { DOCKER_CONFIG: bench.work.at(name), KO_DOCKER_REPO: "" };
    await bench.docker(["context", "create", "mine", "--docker", endpoint], env);
    await bench.docker(["context", "use", "mine"], env);
    return env;
  }

  function tlsEndpoint(): string {
    const at = (file: string): string => join(certificates?.client ?? "", file);
    return `host=${classic?.tcp ?? ""},ca=${at("ca.pem")},cert=${at("cert.pem")},key=${at("key.pem")}`;
  }

  test.each<[string, () => Environment | Promise<Environment>]>([
    ["a Unix socket", () => here],
    ["TCP with TLS, as minikube docker-env sets it", withTls],
    ["a docker context with a Unix socket", () => inContext("unix-context", `host=unix://${socket}`)],
    ["a docker context with TLS", () => inContext("tls-context", tlsEndpoint())],
  ])("runs, with its kodata, through %s", async (_what, environment) => {
    const env = await environment();
    const { stdout } = await bench.ko(["build", "-L", "./cmd/reader"], env);
    expect(stdout).toMatch(new RegExp(`^ko\\.local/example\\.com/app/cmd/reader:${HEX}\\n$`));
    expect(await bench.docker(["run", "--rm", "--network=none", stdout.trim()], env)).toBe("it says hello\n");
  });

  test("serves the example's page", async () => {
    const env = here;
    const { stdout } = await bench.ko(["build", "-L", "./examples/hello"], env, ROOT);
    expect(stdout).toMatch(new RegExp(`^ko\\.local/example\\.com/hello:${HEX}\\n$`));
    const name = "serves";
    await bench.docker(["run", "--detach", "--name", name, "--network=none", stdout.trim()], env);
    try {
      const argv = ["docker", "logs", "--follow", name];
      const logs = Bun.spawn(argv, { env: { ...bench.env, ...env }, stdout: "ignore", stderr: "pipe" });
      const first = await logs.stderr.getReader().read();
      logs.kill();
      await logs.exited;
      expect(new TextDecoder().decode(first.value)).toBe("Serving /var/run/ko on [::]:8080\n");
      const page = bench.work.at("page");
      await bench.docker(["cp", `${name}:/var/run/ko/index.html`, page], env);
      expect(await Bun.file(page).text()).toBe(await Bun.file(join(EXAMPLE, "kodata/index.html")).text());
    } finally {
      await bench.docker(["rm", "--force", name], env);
    }
  });

  // Their runtimes want what not every kernel and docker program has: the files of a container are enough.
  test.each<DaemonKind>(["containerd", "podman"])("holds program and kodata in %s too", async (kind) => {
    const daemon = daemons.get(kind);
    if (daemon === undefined) return;
    const env = viaSocket(daemon.socket);
    const { stdout } = await bench.ko(["build", "-L", "./cmd/reader"], env);
    expect(await bench.runOutside(stdout.trim(), "/ko-app/reader", env)).toBe("it says hello\n");
  });
});

describe.skipIf(classic === undefined)("a second ko build -L", () => {
  test("sends no layer of an image that is there, and one layer after an edit", async () => {
    using app = makeBench({ "go.mod": goMod("example.com/edited"), "main.go": mainGo() }, { host: "127.0.0.1:1" });
    await using proxy = await startDockerProxy(socket);
    const sent: unknown[] = [];
    const build = async (): Promise<string> => {
      proxy.seen.length = 0;
      const { code, stdout, stderr } = await app.ours(["build", "-L", "-t", "dev", "."], {
        env: viaSocket(proxy.socket),
      });
      if (code !== 0) throw new Error(stderr);
      const loads = proxy.seen.filter(({ bytes }) => bytes > 0);
      // Beside layers there are a manifest and a configuration of some hundred bytes in an archive.
      sent.push(
        loads.map(({ path, files }) => [
          path,
          Object.entries(files).filter(([name, size]) => name.startsWith("blobs/") && size > 2000).length,
        ]),
      );
      return stdout;
    };
    const first = await build();
    expect(await build()).toBe(first);
    app.tree.write({ "main.go": mainGo("hello again") });
    const edited = await build();
    expect(edited).not.toBe(first);
    expect(await build()).toBe(edited);
    app.tree.write({ "main.go": mainGo() });
    expect(await build()).toBe(first);
    // The base is one layer, kodata (none here: an empty one), the program.
    expect(sent).toEqual([[["/images/load", 2]], [], [["/images/load", 1]], [], []]);
    const id = (name: string): Promise<string> => bench.docker(["image", "inspect", "--format={{.Id}}", name], here);
    expect(await id("ko.local/example.com/edited:dev")).toBe(await id(first.trim()));
  });
});

describe.skipIf(classic === undefined)("--tarball -", () => {
  test("goes through a pipe into docker load; the reference is said on stderr", async () => {
    const pipeline = `"$@" | docker load`;
    const argv = ["bash", "-o", "pipefail", "-c", pipeline, "sh"];
    const run = Bun.spawn([...argv, ...ourCommand(), "build", "--tarball=-", "-t", "v7", "./cmd/reader"], {
      cwd: bench.tree.path,
      env: { ...bench.env, ...here, KO_DOCKER_REPO: "" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, code] = await Promise.all([run.stdout.text(), run.stderr.text(), run.exited]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringMatching(/^Loaded image: reader-\w{32}:v7\n$/) });
    expect(stderr).toMatch(new RegExp(`\\breader-\\w{32}:v7@sha256:${HEX}\\n`));
    const name = stdout.replace("Loaded image: ", "").trim();
    expect(await bench.docker(["run", "--rm", "--network=none", name], here)).toBe("it says hello\n");
  });

  test.each([
    ["resolve", "--tarball=-"],
    ["apply", "--oci-archive=-"],
  ])("is wrong usage with ko %s %s", async (command, flag) => {
    bench.tree.write({ "pipe.yaml": "image: ko://example.com/app/cmd/plain\n" });
    expect(await bench.ours([command, "-f", "pipe.yaml", flag], { env: here })).toEqual({
      code: 2,
      stdout: "",
      stderr:
        `Error: Cannot write an archive to stdout: "ko ${command}" writes there itself\n` +
        "  Name a file: --tarball FILE, --oci-archive FILE\n",
    });
  });
});

const DEPLOYMENT = `apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
        - name: one
          image: ko://example.com/app/cmd/plain
          imagePullPolicy: Always
        - name: two
          image: ko://example.com/app/cmd/reader
          imagePullPolicy: IfNotPresent
        - name: three
          imagePullPolicy: Always
          image: registry.example.com/other:v1
`;

describe.skipIf(classic === undefined || whyNoRegistry() !== undefined)("imagePullPolicy: Always", () => {
  test("is warned of with its place beside a side-loaded image, and nowhere else", async () => {
    await using registry = await startRegistry();
    bench.tree.write({ "config/a.yaml": "kind: List\nitems: []\n", "config/b.yaml": `---\n${DEPLOYMENT}` });
    const args = ["resolve", "-f", "config"];
    const local = await bench.ko([...args, "-L"], here);
    const warnings = (stderr: string): readonly string[] =>
      stderr.split("\n").filter((line) => line.includes("imagePullPolicy"));
    expect(warnings(local.stderr)).toEqual([
      expect.stringMatching(
        /config\/b\.yaml:13:28: "imagePullPolicy: Always" cannot find an image that is in no registry; use IfNotPresent$/,
      ),
    ]);
    expect(local.stdout).toMatch(new RegExp(`image: ko\\.local/example\\.com/app/cmd/plain:${HEX}\\n`));
    const pushed = await bench.ko(args, { ...here, KO_DOCKER_REPO: registry.host });
    expect(warnings(pushed.stderr)).toEqual([]);
  });
});

const cluster = findCounterparts(["etcd", "kube-apiserver", "kubectl"]);

describe.skipIf(classic === undefined || cluster === undefined)("ko apply -L -f config/", () => {
  let server: ApiServer;
  beforeAll(async () => {
    server = stack.use(await startApiServer());
  });

  test("brings the example to the cluster with the image that is in the daemon", async () => {
    using example = makeBench({}, { host: "127.0.0.1:1", cwd: EXAMPLE });
    const env = { ...here, KUBECONFIG: server.kubeconfig };
    const apply = (): Promise<Result> => example.ours(["apply", "-L", "-f", "config/"], { env });
    expect(await apply()).toMatchObject({
      code: 0,
      stdout: "deployment.apps/hello created\nservice/hello created\n",
    });
    const path = "jsonpath={.spec.template.spec.containers[0]['image','imagePullPolicy']}";
    const { stdout } = await server.kubectl(["get", "deployment/hello", "-o", path]);
    const [image = "", policy] = stdout.split(" ");
    expect(image).toMatch(new RegExp(`^ko\\.local/example\\.com/hello:${HEX}$`));
    // A tag that is not "latest": the kubelet takes what is there.
    expect(policy).toBe("IfNotPresent");
    expect(await bench.platformOf(image, here)).toStartWith("linux/");
    expect(await apply()).toMatchObject({
      code: 0,
      stdout: "deployment.apps/hello unchanged\nservice/hello unchanged\n",
    });
  });
});
