/** `--platform=cluster` with Node objects in a real API server, the real kubectl, a registry and Go. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ApiServer, startApiServer, type TestNode } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { pull, pushIndex } from "./helpers/registry-images.ts";
import { findFreePort, startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import type { Result } from "./helpers/world-programs.ts";
import { outcomeOf, startWatching } from "./helpers/world-watch.ts";

const programs = findCounterparts(["docker-registry", "etcd", "kube-apiserver", "kubectl"]);

const CONTROL_PLANE = "node-role.kubernetes.io/control-plane:NoSchedule";
const ARM: TestNode = { platform: "linux/arm64" };
const AMD: TestNode = { platform: "linux/amd64" };

/** A Deployment of the program; `pod` are fields of the Pod's specification. */
function deployment(name = "web", { kind = "Deployment", pod = {} }: { kind?: string; pod?: object } = {}): string {
  const labels = { app: name };
  return JSON.stringify({
    apiVersion: "apps/v1",
    kind,
    metadata: { name },
    spec: {
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: { containers: [{ name: "c", image: "ko://example.com/app" }], ...pod },
      },
    },
  });
}

/** One YAML stream of several objects. */
function list(...objects: readonly string[]): string {
  return `{"apiVersion": "v1", "kind": "List", "items": [${objects.join(", ")}]}`;
}

function requires(...terms: readonly (readonly [key: string, operator: string, ...values: string[]])[]): object {
  const nodeSelectorTerms = terms.map(([key, operator, ...values]) => {
    return { matchExpressions: [{ key, operator, ...(values.length === 0 ? {} : { values }) }] };
  });
  return {
    affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms } } },
  };
}

describe.skipIf(programs === undefined)("--platform=cluster", () => {
  let registry: TestRegistry;
  let server: ApiServer;
  let bench: Bench;
  let base: string;

  beforeAll(async () => {
    [registry, server] = await Promise.all([startRegistry(), startApiServer({ authorization: "RBAC" })]);
    // A user of kubectl who has no rights beyond a namespace.
    for (const role of ["edit", "view"]) {
      const words = [`jane-${role}`, `--clusterrole=system:aggregate-to-${role}`, "--user=jane"];
      await server.kubectl(["create", "rolebinding", ...words]);
    }
    const entries = [
      { os: "linux", architecture: "amd64" },
      { os: "linux", architecture: "arm", variant: "v6" },
      { os: "linux", architecture: "arm", variant: "v7" },
      { os: "linux", architecture: "arm64", variant: "v8" },
      { os: "windows", architecture: "amd64", "os.version": "10.0.20348.3207" },
    ].map((platform) => ({ platform, image: { config: platform } }));
    await pushIndex(registry.host, { name: "base", spec: { entries } });
    base = `${registry.host}/bases/base:v1`;
    bench = makeBench(
      { "go.mod": goMod("example.com/app"), "main.go": mainGo() },
      { host: registry.host, config: `defaultBaseImage: ${base}\n` },
    );
  });

  afterAll(async () => {
    bench?.[Symbol.dispose]();
    await server?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  const cluster = (): Record<string, string> => ({ KUBECONFIG: server.kubeconfig });

  /** Resolves YAML as apply does, without a change of the cluster. */
  function apply(yaml: string, more: readonly string[] = ["--platform=cluster"]): Promise<Result> {
    const args = ["apply", "-q", "-f", "-", ...more, "--", "--dry-run=client", "-o", "json"];
    return bench.ours(args, { stdin: yaml, env: cluster() });
  }

  /** The platforms of the image in what kubectl printed: one alone, or those of an index. */
  async function platformsOf(stdout: string): Promise<string> {
    const reference = /"image": "([^"]+)"/.exec(stdout)?.[1] ?? "";
    const pulled = await pull(reference);
    const show = (configText: string): string => {
      const { architecture, os, variant }: Record<string, string> = JSON.parse(configText);
      return [os, architecture, variant].filter(Boolean).join("/");
    };
    if (pulled.kind === "image") return show(pulled.configText);
    return `index of ${pulled.children.map(({ configText }) => show(configText)).join(" ")}`;
  }

  describe("follows the nodes", () => {
    const none =
      "Warning: Context test has no node yet that fits: building for linux/amd64, the default. If that is wrong, name the platform: --platform=linux/arm64\n";
    const lacks = (platform: string): string =>
      `Warning: example.com/app is not built for ${platform}: base "$BASE" lacks it, but nodes of context test run it. A Pod on one of them will not start\n`;

    test.each<[string, readonly TestNode[], string, string?]>([
      ["one platform is a plain image", [ARM, ARM, ARM], "linux/arm64/v8"],
      ["two are an index of just those", [AMD, ARM], "index of linux/amd64 linux/arm64/v8"],
      ["a cordoned node does not count", [AMD, { ...ARM, isCordoned: true }], "linux/amd64"],
      ["a control plane does not count", [{ ...AMD, taints: [CONTROL_PLANE] }, ARM], "linux/arm64/v8"],
      ["unless there is nothing else", [{ ...ARM, taints: [CONTROL_PLANE] }], "linux/arm64/v8"],
      [
        "a virtual kubelet does not count",
        [
          ARM,
          { ...AMD, labels: { type: "virtual-kubelet" }, taints: ["virtual-kubelet.io/provider=azure:NoSchedule"] },
        ],
        "linux/arm64/v8",
      ],
      [
        "nodes with taints for other Pods do not count",
        [AMD, { ...ARM, taints: ["kubernetes.io/arch=arm64:NoSchedule"] }, { ...ARM, taints: ["pool=gpu:NoExecute"] }],
        "linux/amd64",
      ],
      [
        "a node that is about to start counts",
        [AMD, { ...ARM, taints: ["node.cilium.io/agent-not-ready:NoSchedule"] }],
        "index of linux/amd64 linux/arm64/v8",
      ],
      ["arm takes the variants of the base", [{ platform: "linux/arm" }], "index of linux/arm/v6 linux/arm/v7"],
      ["Windows nodes beside Linux ones", [AMD, { platform: "windows/amd64" }], "index of linux/amd64 windows/amd64"],
      [
        "an architecture that the base lacks",
        [ARM, { platform: "linux/s390x" }],
        "linux/arm64/v8",
        lacks("linux/s390x"),
      ],
      [
        "an architecture that is not Go's",
        [ARM, { platform: "linux/wasm32-wasi" }, { platform: "linux/x86_64" }],
        "linux/arm64/v8",
      ],
      ["no node at all", [], "linux/amd64", none],
    ])("%s: %j", async (_, nodes, want, warning = "") => {
      await server.setNodes(nodes);
      const { code, stderr, stdout } = await apply(deployment());
      expect({ code, stderr: stderr.replace(/"[^"]*\/bases\/base[^"]*"/, '"$BASE"') }).toEqual({
        code: 0,
        stderr: warning,
      });
      expect(await platformsOf(stdout)).toBe(want);
    });

    test("a base that has none of them is an error before the compiler starts", async () => {
      await server.setNodes([{ platform: "linux/s390x" }, { platform: "linux/ppc64le" }]);
      const { code, stderr, stdout } = await apply(deployment());
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
      expect(stderr.replace(/"[^"]*\/bases\/base[^"]*"/, '"$BASE"')).toBe(
        `Error: Cannot build example.com/app for the nodes of context test: its Pods run on linux/ppc64le, linux/s390x, base "$BASE" has linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8, windows/amd64:10.0.20348.3207
  Use a base with one of them: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.
`,
      );
    });
  });

  describe("of amd64, arm64 and tainted Windows nodes, takes those that the Pods can be scheduled on", () => {
    beforeAll(() => server.setNodes([AMD, ARM, { platform: "windows/amd64", taints: ["os=windows:NoSchedule"] }]));

    const both = "index of linux/amd64 linux/arm64/v8";
    const on = (architecture: string): object => ({ nodeSelector: { "kubernetes.io/arch": architecture } });
    const tolerations = [{ key: "os", operator: "Exists" }];

    test.each<[string, string, string]>([
      ["a node selector", deployment("a", { pod: on("arm64") }), "linux/arm64/v8"],
      [
        "the label's old name",
        deployment("a", { pod: { nodeSelector: { "beta.kubernetes.io/arch": "arm64" } } }),
        "linux/arm64/v8",
      ],
      ["a selector of something else", deployment("a", { pod: { nodeSelector: { pool: "small" } } }), both],
      [
        "affinity: one of",
        deployment("a", { pod: requires(["kubernetes.io/arch", "In", "arm64", "s390x"]) }),
        "linux/arm64/v8",
      ],
      [
        "affinity: none of",
        deployment("a", { pod: requires(["kubernetes.io/arch", "NotIn", "arm64"]) }),
        "linux/amd64",
      ],
      [
        "affinity: one term or the other",
        deployment("a", { pod: requires(["kubernetes.io/arch", "In", "arm64"], ["pool", "Exists"]) }),
        both,
      ],
      ["a toleration", deployment("a", { pod: { tolerations } }), "index of linux/amd64 linux/arm64/v8 windows/amd64"],
      [
        "a toleration and a system",
        deployment("a", { pod: { tolerations, nodeSelector: { "kubernetes.io/os": "windows" } } }),
        "windows/amd64",
      ],
      ["the name of a node", deployment("a", { pod: { nodeName: "linux-arm64-1" } }), "linux/arm64/v8"],
      ["a node that is still to come", deployment("a", { pod: on("arm") }), "index of linux/arm/v6 linux/arm/v7"],
      [
        "two that agree",
        list(deployment("a", { pod: on("arm64") }), deployment("b", { pod: on("arm64") })),
        "linux/arm64/v8",
      ],
      ["two that do not", list(deployment("a", { pod: on("arm64") }), deployment("b")), both],
      [
        "a CronJob",
        JSON.stringify({
          apiVersion: "batch/v1",
          kind: "CronJob",
          metadata: { name: "c" },
          spec: {
            schedule: "0 0 * * *",
            jobTemplate: {
              spec: {
                template: {
                  spec: {
                    ...on("arm64"),
                    restartPolicy: "Never",
                    containers: [{ name: "c", image: "ko://example.com/app" }],
                  },
                },
              },
            },
          },
        }),
        "linux/arm64/v8",
      ],
      [
        "a program that is named outside of a Pod, too",
        list(
          deployment("a", { pod: on("arm64") }),
          JSON.stringify({
            apiVersion: "v1",
            kind: "ConfigMap",
            metadata: { name: "c" },
            data: { image: "ko://example.com/app" },
          }),
        ),
        // It may have any tolerations.
        "index of linux/amd64 linux/arm64/v8 windows/amd64",
      ],
    ])("%s", async (_, yaml, want) => {
      const { code, stderr, stdout } = await apply(yaml);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(await platformsOf(stdout)).toBe(want);
    });

    test("a DaemonSet runs on cordoned nodes, too", async () => {
      await server.setNodes([AMD, { ...ARM, isCordoned: true }]);
      const { stdout } = await apply(deployment("d", { kind: "DaemonSet" }));
      expect(await platformsOf(stdout)).toBe(both);
    });
  });

  describe("of a user who may not list nodes", () => {
    const jane = ["--platform=cluster", "--as=jane"];

    beforeAll(() => server.setNodes([ARM]));

    test("builds for the default platform and says so, but for selectors", async () => {
      const { code, stderr, stdout } = await apply(deployment(), jane);
      expect({ code, stderr }).toEqual({
        code: 0,
        stderr:
          "Warning: Context test does not let this user list its nodes: building for linux/amd64, the default. If that is wrong, name the platform: --platform=linux/arm64\n",
      });
      expect(await platformsOf(stdout)).toBe("linux/amd64");
      const selected = await apply(deployment("a", { pod: { nodeSelector: { "kubernetes.io/arch": "arm64" } } }), jane);
      expect({ code: selected.code, stderr: selected.stderr }).toEqual({ code: 0, stderr: "" });
      expect(await platformsOf(selected.stdout)).toBe("linux/arm64/v8");
    });

    test("an API server that does not answer is an error: another image could be needed", async () => {
      const url = `http://127.0.0.1:${await findFreePort()}`;
      const { code, stderr } = await apply(deployment(), ["--platform=cluster", "-s", url]);
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: `Error: Cannot ask the cluster of context test what its nodes run: The connection to the server ${url.slice(7)} was refused - did you specify the right host or port?
  Start the cluster, or choose another: kubectl config use-context NAME
  Or name the platforms, as in --platform=linux/amd64
`,
      });
    });
  });

  test("is a setting of .ko.yaml, which ko build passes over", async () => {
    await server.setNodes([ARM]);
    bench.work.write({ "cluster/.ko.yaml": `defaultBaseImage: ${base}\ndefaultPlatforms: [cluster]\n` });
    const env = { ...cluster(), KO_CONFIG_PATH: bench.work.at("cluster") };
    const args = ["create", "-q", "-f", "-", "--", "--dry-run=client", "-o", "json"];
    const created = await bench.ours(args, { stdin: deployment(), env });
    expect(await platformsOf(created.stdout)).toBe("linux/arm64/v8");
    const ignored = "defaultPlatforms: cluster counts for ko apply, create and run only";
    for (const command of [
      ["build", "-v"],
      ["check", "-v"],
      ["config", "-v"],
    ]) {
      const { code, stderr } = await bench.ours([...command, "."], { env });
      expect({ code, lines: stderr.split("\n").filter((line) => line === ignored) }).toEqual({
        code: 0,
        lines: [ignored],
      });
    }
    const { stdout } = await bench.ours(["build", "-q", "."], { env });
    expect(await platformsOf(`"image": "${stdout.trim()}"`)).toBe("linux/amd64");
    const shown = (await bench.ours(["config", "."], { env })).stdout.replaceAll(/ +/g, " ");
    expect(shown).toContain(`platforms linux/amd64 # default; ${ignored}\n`);
  });

  test.each([
    ["build", ["."]],
    ["resolve", ["-f", "-"]],
    ["check", []],
    ["config", ["."]],
  ])("is refused by ko %s", async (command, args) => {
    const { code, stderr, stdout } = await bench.ours([command, "--platform=cluster", ...args], {
      stdin: deployment(),
    });
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(
      'Cannot use --platform "cluster" here: it is for ko apply, create and run, other output must not depend on a context of kubectl',
    );
  });

  test("ko run takes it", async () => {
    await server.setNodes([ARM, { ...AMD, taints: ["pool=gpu:NoSchedule"] }]);
    const words = ["--", "--attach=false", "--rm=false", "--dry-run=client", "-o", "json"];
    const { stdout } = await bench.ours(["run", "-q", ".", "--platform=cluster", ...words], { env: cluster() });
    expect(await platformsOf(stdout)).toBe("linux/arm64/v8");
  });

  test("-W takes it, and asks once", async () => {
    await server.setNodes([ARM]);
    using watched = makeBench(
      { "go.mod": goMod("example.com/app"), "main.go": mainGo("1"), "web.yaml": deployment("watched") },
      { host: registry.host, config: `defaultBaseImage: ${base}\n` },
    );
    await using watching = startWatching(watched, ["apply", "-W", "-f", "web.yaml", "--platform=cluster"], {
      env: cluster(),
    });
    expect(outcomeOf(await watching.round())).toBe("applied 1 document");
    await server.setNodes([AMD]);
    watched.tree.write({ "main.go": mainGo("2") });
    expect(outcomeOf(await watching.round())).toBe("applied 1 document");
    const { stdout } = await server.kubectl(["get", "deployment/watched", "-o", "json"]);
    expect(await platformsOf(stdout)).toBe("linux/arm64/v8");
  });
});
