import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ClusterKind, clusterPlatform, type ContainerCluster, findCluster, runInNode } from "../lib/cluster.ts";
import { KoError, messageOf } from "../lib/errors.ts";
import { type Log, silentLog } from "../lib/log.ts";
import type { Platform } from "../lib/oci.ts";
import { type TestDaemon, tryStartDaemon } from "./helpers/daemon.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { type TreeEntry, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { output } from "./helpers/world-programs.ts";

/** A line of `docker ps --format '{{json .}}'`, as Docker 28 writes it. */
function dockerLine(name: string, labels: string, status = "Up 3 minutes"): string {
  return JSON.stringify({
    Command: '"/usr/local/bin/entr…"',
    CreatedAt: "2026-11-20 10:00:00 +0000 UTC",
    ID: "0123456789ab",
    Image: "kindest/node:v1.34.0",
    Labels: labels,
    LocalVolumes: "1",
    Mounts: "/lib/modules,8d1…",
    Names: name,
    Networks: "kind",
    Platform: null,
    Ports: "127.0.0.1:40000->6443/tcp",
    RunningFor: "3 minutes ago",
    Size: "0B",
    State: status.startsWith("Up") ? "running" : "exited",
    Status: status,
  });
}

function kindNode(name: string, { cluster = "kind", role = "worker", status = "Up 3 minutes" } = {}): string {
  return dockerLine(name, `io.x-k8s.kind.cluster=${cluster},io.x-k8s.kind.role=${role}`, status);
}

function k3dNode(name: string, { cluster = "dev", role = "agent", status = "Up 3 minutes" } = {}): string {
  return dockerLine(name, `app=k3d,k3d.cluster=${cluster},k3d.role=${role},k3d.server.api.host=0.0.0.0`, status);
}

/** The list of `podman ps --format '{{json .}}'`, as podman 4.3 writes it. */
function podmanList(...names: readonly string[]): string {
  return JSON.stringify(
    names.map((name) => ({
      AutoRemove: false,
      Exited: false,
      Labels: { "io.x-k8s.kind.cluster": "kind", "io.x-k8s.kind.role": "worker" },
      Names: [name],
      State: "running",
      Status: "Up 2 minutes ago",
    })),
    undefined,
    2,
  );
}

/** Programs on PATH, each with the output of its `ps`; one that fails has its stderr. */
type Programs = Readonly<Record<string, string | { readonly fails: string }>>;

interface Outcome extends Partial<ContainerCluster> {
  readonly error?: string;
  readonly hint?: string | undefined;
  readonly warnings?: readonly string[];
}

async function find(
  kind: ClusterKind,
  programs: Programs,
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const files: Record<string, TreeEntry> = { bin: null };
  for (const [name, answer] of Object.entries(programs)) {
    const text = typeof answer === "string" ? `cat <<'END'\n${answer}\nEND` : `echo '${answer.fails}' >&2; exit 1`;
    files[`bin/${name}`] = { executable: `#!/bin/sh\nPATH=/usr/bin:/bin\n[ "$1 $2" = "ps -a" ] || exit 98\n${text}\n` };
  }
  using tree = writeTree(files);
  const warnings: string[] = [];
  const log: Log = { info: () => {}, warn: (message) => void warnings.push(message), debug: () => {} };
  const host = hostAt(tree.path, { env: { PATH: tree.at("bin"), ...env } });
  const said = (): Outcome => (warnings.length === 0 ? {} : { warnings });
  try {
    const cluster = await findCluster(kind, { host, log, signal: host.signal });
    if (cluster.kind === "minikube") throw new Error("a minikube profile");
    return { ...cluster, ...said() };
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    return { error: error.message, hint: error.hint, ...said() };
  }
}

describe("findCluster()", () => {
  const kind = [kindNode("kind-worker"), kindNode("kind-control-plane", { role: "control-plane" })].join("\n");
  const found: ContainerCluster = {
    kind: "kind",
    name: "kind",
    program: "docker",
    nodes: ["kind-control-plane", "kind-worker"],
  };

  test.each<readonly [string, Programs, Readonly<Record<string, string>>, Outcome]>([
    ["all nodes, sorted", { docker: kind }, {}, found],
    [
      "no load balancer",
      { docker: `${kind}\n${kindNode("kind-external-load-balancer", { role: "external-load-balancer" })}` },
      {},
      found,
    ],
    [
      "no nodes of other clusters",
      { docker: `${kindNode("other-worker", { cluster: "other", status: "Exited (1)" })}\n${kind}` },
      {},
      found,
    ],
    [
      "the cluster that is named",
      { docker: `${kind}\n${kindNode("dev-control-plane", { cluster: "dev", role: "control-plane" })}` },
      { KIND_CLUSTER_NAME: "dev" },
      { ...found, name: "dev", nodes: ["dev-control-plane"] },
    ],
    ["nodes of podman", { podman: podmanList("a", "b") }, {}, { ...found, program: "podman", nodes: ["a", "b"] }],
    ["nodes of podman that is called docker", { docker: podmanList("a") }, {}, { ...found, nodes: ["a"] }],
    ["nodes of nerdctl", { nerdctl: kind }, {}, { ...found, program: "nerdctl" }],
    ["docker's nodes before podman's", { docker: kind, podman: podmanList("a") }, {}, found],
    [
      "podman's nodes if docker has none",
      { docker: "", podman: podmanList("a") },
      {},
      { ...found, program: "podman", nodes: ["a"] },
    ],
    [
      "podman's nodes if docker does not answer",
      { docker: { fails: "Cannot connect to the Docker daemon" }, podman: podmanList("a") },
      {},
      { ...found, program: "podman", nodes: ["a"] },
    ],
    [
      "nodes of the program in KIND_EXPERIMENTAL_PROVIDER",
      { docker: kind, podman: podmanList("a") },
      { KIND_EXPERIMENTAL_PROVIDER: "podman" },
      { ...found, program: "podman", nodes: ["a"] },
    ],
    [
      "nodes of every program if KIND_EXPERIMENTAL_PROVIDER is not known",
      { docker: kind },
      { KIND_EXPERIMENTAL_PROVIDER: "lxc" },
      {
        ...found,
        warnings: [
          'KIND_EXPERIMENTAL_PROVIDER="lxc" is ignored, as kind does: wanted one of docker, nerdctl, finch, nerdctl.lima, podman',
        ],
      },
    ],
  ])("finds %s", async (_what, programs, env, outcome) => {
    expect(await find("kind", programs, env)).toEqual(outcome);
  });

  test.each<readonly [string, Programs, Readonly<Record<string, string>>, Outcome]>([
    [
      "no cluster",
      { docker: "" },
      {},
      { error: "Cannot find a kind cluster: there is none", hint: "kind create cluster" },
    ],
    [
      "only a cluster of another name",
      { docker: kindNode("x", { cluster: "dev" }) },
      {},
      { error: 'Cannot find a node of the kind cluster "kind": there is "dev"', hint: "export KIND_CLUSTER_NAME=dev" },
    ],
    [
      "a name that no cluster has",
      { docker: `${kindNode("x", { cluster: "dev" })}\n${kind}` },
      { KIND_CLUSTER_NAME: "prod" },
      { error: 'Cannot find a node of the kind cluster "prod": there is "dev", "kind"', hint: "kind get clusters" },
    ],
    [
      "a node that is stopped",
      { docker: `${kindNode("kind-worker2", { status: "Exited (137) 2 hours ago" })}\n${kind}` },
      {},
      {
        error:
          'Cannot load into the kind cluster "kind": its node "kind-worker2" is not running (Exited (137) 2 hours ago)',
        hint: "docker start kind-worker2",
      },
    ],
    [
      "a node that is paused",
      { docker: kindNode("kind-worker", { status: "Up 2 hours (Paused)" }) },
      {},
      {
        error: 'Cannot load into the kind cluster "kind": its node "kind-worker" is not running (Up 2 hours (Paused))',
        hint: "docker unpause kind-worker",
      },
    ],
    [
      "nothing that runs containers",
      {},
      {},
      {
        error: "Cannot look for the nodes of kind: there is no docker, nerdctl, finch, podman on PATH",
        hint: "Install docker, or add its directory to PATH.",
      },
    ],
    [
      "a daemon that does not run",
      { docker: { fails: "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?" } },
      {},
      {
        error:
          "Cannot look for the nodes of kind: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
        hint: undefined,
      },
    ],
    [
      "an answer that is no list",
      { docker: "NAMES\nkind" },
      {},
      { error: expect.stringContaining('Cannot read the output of "docker ps": '), hint: undefined },
    ],
    ...["-kind", "$(id)", "a b", "kind;id", "..", "kind\n"].map(
      (name) =>
        [
          `KIND_CLUSTER_NAME=${JSON.stringify(name)}`,
          { docker: kind },
          { KIND_CLUSTER_NAME: name },
          {
            error: `Cannot use "${name}" of KIND_CLUSTER_NAME as the name of a cluster: wanted letters, digits and ._-, a letter or a digit first`,
            hint: undefined,
          },
        ] as const,
    ),
    ...["--privileged=false", "a$(id)", "a node"].map(
      (name) =>
        [
          `a container named ${name}`,
          { docker: kindNode(name) },
          {},
          { error: expect.stringMatching(/^Cannot look for .* is not a container with a name$/), hint: undefined },
        ] as const,
    ),
    [
      "to say which strange name to type",
      { docker: kindNode("a", { cluster: "$(id)" }) },
      {},
      {
        error: 'Cannot find a node of the kind cluster "kind": there is "$(id)"',
        hint: "kind get clusters",
      },
    ],
  ])("refuses %s", async (_what, programs, env, outcome) => {
    expect(await find("kind", programs, env)).toEqual(outcome);
  });

  const k3d = [
    k3dNode("k3d-dev-server-0", { role: "server" }),
    k3dNode("k3d-dev-agent-0"),
    k3dNode("k3d-dev-serverlb", { role: "loadbalancer" }),
    k3dNode("k3d-dev-tools", { role: "noRole", status: "Exited (0) 1 hour ago" }),
  ].join("\n");
  const two = `${k3d}\n${k3dNode("k3d-prod-server-0", { cluster: "prod", role: "server" })}`;

  test.each<readonly [string, Programs, Readonly<Record<string, string>>, Outcome]>([
    [
      "servers and agents of the only cluster",
      { docker: k3d },
      {},
      { kind: "k3d", name: "dev", program: "docker", nodes: ["k3d-dev-agent-0", "k3d-dev-server-0"] },
    ],
    [
      "those of the one that is named",
      { docker: two },
      { K3D_CLUSTER: "prod" },
      { kind: "k3d", name: "prod", program: "docker", nodes: ["k3d-prod-server-0"] },
    ],
    [
      "none among several",
      { docker: two },
      {},
      { error: 'Cannot choose a k3d cluster: there are "dev", "prod"', hint: "export K3D_CLUSTER=dev" },
    ],
    ["none", { docker: "" }, {}, { error: "Cannot find a k3d cluster: there is none", hint: "k3d cluster create" }],
    [
      "no cluster whose name a shell would read",
      { docker: k3dNode("k3d-a", { cluster: "`id`", role: "server" }) },
      {},
      {
        error:
          'Cannot use "`id`" of the label k3d.cluster as the name of a cluster: wanted letters, digits and ._-, a letter or a digit first',
        hint: undefined,
      },
    ],
  ])("finds in k3d %s", async (_what, programs, env, outcome) => {
    expect(await find("k3d", programs, env)).toEqual(outcome);
  });
});

describe("findCluster() with a real docker", () => {
  let daemon: TestDaemon | undefined;
  beforeAll(async () => {
    daemon = Bun.which("docker") === null ? undefined : await tryStartDaemon("classic");
  }, 90_000);
  afterAll(async () => daemon?.[Symbol.asyncDispose]());

  test("reads its list of containers", async () => {
    if (daemon === undefined) return;
    using tree = writeTree({});
    const env = { ...process.env, DOCKER_HOST: `unix://${daemon.socket}` };
    const docker = (...args: readonly string[]): Promise<string> =>
      output(["docker", ...args], { cwd: tree.path, env });
    await output(["tar", "cf", tree.at("empty.tar"), "-T", "/dev/null"], { cwd: tree.path, env });
    await docker("import", tree.at("empty.tar"), "empty:1");
    const labels = { "io.x-k8s.kind.cluster": "dev", "io.x-k8s.kind.role": "worker", other: "a=b,c" };
    const flags = Object.entries(labels).flatMap(([key, value]) => ["--label", `${key}=${value}`]);
    await docker("create", "--name", "dev-worker", "--network=none", ...flags, "empty:1", "/program");
    const host = hostAt(tree.path, { env: { ...env, KIND_CLUSTER_NAME: "dev", KIND_EXPERIMENTAL_PROVIDER: "docker" } });
    const finding = findCluster("kind", { host, log: silentLog, signal: host.signal });
    expect(messageOf(await rejectionOf(finding))).toBe(
      'Cannot load into the kind cluster "dev": its node "dev-worker" is not running (Created)',
    );
  }, 60_000);
});

describe("clusterPlatform()", () => {
  /** Asks the first of two nodes, in which `uname -m` prints `machine`. */
  async function platformOf(machine: string): Promise<Platform> {
    const script = `#!/bin/sh\n[ "$*" = "exec --privileged one uname -m" ] && echo '${machine}'\n`;
    using tree = writeTree({ "bin/podman": { executable: script } });
    const host = hostAt(tree.path, { env: { PATH: `${tree.at("bin")}:${process.env["PATH"] ?? ""}` } });
    const cluster = { kind: "kind", name: "kind", program: "podman", nodes: ["one", "two"] } as const;
    return await clusterPlatform(cluster, { host, log: silentLog, signal: host.signal });
  }

  test.each([
    ["x86_64", { os: "linux", architecture: "amd64" }],
    ["aarch64", { os: "linux", architecture: "arm64" }],
    ["armv7l", { os: "linux", architecture: "arm", variant: "v7" }],
    ["s390x", { os: "linux", architecture: "s390x" }],
  ])("knows %s", async (machine, platform) => {
    expect(await platformOf(machine)).toEqual(platform);
  });

  test.each(["sparc64", "", "constructor"])("refuses %p", async (machine) => {
    expect(messageOf(await rejectionOf(platformOf(machine)))).toContain(`its machine is "${machine}"`);
  });
});

describe("runInNode()", () => {
  test("keeps stdin closed unless there is something to read", async () => {
    using tree = writeTree({ "bin/docker": { executable: `#!/bin/sh\necho "$*"; cat\n` } });
    const host = hostAt(tree.path, { env: { PATH: `${tree.at("bin")}:${process.env["PATH"] ?? ""}` } });
    const cluster = { kind: "kind", name: "kind", program: "docker", nodes: ["one"] } as const;
    const options = { host, log: silentLog, signal: host.signal };
    const stdin = new Blob(["text"]).stream();
    const text = async (more: object): Promise<string> =>
      new TextDecoder().decode((await runInNode(cluster, "one", ["cat"], { ...options, ...more })).stdout);
    expect(await text({})).toBe("exec --privileged one cat\n");
    expect(await text({ stdin })).toBe("exec --privileged -i one cat\ntext");
  });
});
