/**
 * `ko apply -W --swap` against a real API server: which documents and which contexts it takes, and which objects it changes.
 * The Pods are the test's; test/cluster/swap.test.ts runs real ones.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import type { Context } from "../lib/kubectl-cluster.ts";
import { fieldAt, listAt, parseJson, textAt } from "../lib/json.ts";
import { checkSwapContext, findSwaps } from "../lib/rollout-swap-plan.ts";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { failureOf } from "./helpers/failures.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { waitUntil } from "./helpers/world-programs.ts";
import { startWatching, type Watching } from "./helpers/world-watch.ts";

const programs = findCounterparts(["docker-registry", "etcd", "kube-apiserver", "kubectl"]);

function deployment(
  image: string,
  more: { readonly kind?: string; readonly init?: string; readonly env?: string } = {},
): string {
  const { env = "a", init = "i:1", kind = "Deployment" } = more;
  return `apiVersion: apps/v1
kind: ${kind}
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers: [{name: i, image: "${init}"}]
      containers:
        - {name: web, image: "${image}", env: [{name: A, value: "${env}"}]}
        - {name: other, image: "redis:7"}
`;
}

const JOB =
  "apiVersion: batch/v1\nkind: Job\nmetadata: {name: job}\nspec: {template: {spec: {containers: [{name: c, image: i:1}]}}}\n";

describe("findSwaps()", () => {
  const list = (yaml: string): string =>
    `apiVersion: v1\nkind: List\nitems:\n  - ${yaml.trimEnd().replaceAll("\n", "\n    ")}\n`;

  test.each([
    ["an image", deployment("r:1"), deployment("r:2"), [["Deployment", "web", "r:2"]]],
    [
      "an image of a StatefulSet",
      deployment("r:1", { kind: "StatefulSet" }),
      deployment("r:2", { kind: "StatefulSet" }),
      [["StatefulSet", "web", "r:2"]],
    ],
    ["an image in a list", list(deployment("r:1")), list(deployment("r:2")), [["Deployment", "web", "r:2"]]],
    ["a comment only", deployment("r:1"), `# more\n${deployment("r:1")}`, []],
    ["an image and a variable", deployment("r:1"), deployment("r:2", { env: "b" }), undefined],
    ["the image of an init container", deployment("r:1"), deployment("r:1", { init: "i:2" }), undefined],
    ["a Job", JOB, JOB.replace("i:1", "i:2"), undefined],
    ["a name", deployment("r:1"), deployment("r:2").replace("{name: web}", "{name: web2}"), undefined],
    ["a kind", deployment("r:1"), deployment("r:2", { kind: "DaemonSet" }), undefined],
    ["a second document", deployment("r:1"), `${deployment("r:2")}---\n${JOB}`, undefined],
    [
      "a ConfigMap with a reference",
      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {i: r:1}\n",
      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {i: r:2}\n",
      undefined,
    ],
  ])("%s", async (_, before, after, wanted) => {
    const found = await findSwaps(before, after);
    expect(found?.map(({ applied, images }) => [applied.kind, ...[...images].flat()])).toEqual(wanted);
  });
});

describe("checkSwapContext()", () => {
  const context = (name: string, server: string): Context => ({
    ...{ name, server, namespace: undefined, asksPerson: false, complaint: "" },
  });

  test.each(["kind-dev", "k3d-a", "minikube", "docker-desktop", "colima", "colima-x", "orbstack", "rancher-desktop"])(
    "takes %s",
    (name) => {
      expect(() => checkSwapContext(context(name, "https://192.168.49.2:8443"), "")).not.toThrow();
    },
  );

  test.each(["https://127.0.0.1:6443", "https://localhost:6443", "https://[::1]:6443"])(
    "takes a server at %s",
    (server) => {
      expect(() => checkSwapContext(context("mine", server), "")).not.toThrow();
    },
  );

  test.each([
    [
      "prod",
      "https://10.0.0.1:6443",
      "",
      "Cannot use --swap with context prod: its cluster is not on this machine",
      "If that is the cluster you mean: --swap-context=prod",
    ],
    [
      "kindly",
      "https://127.0.0.1.example.com",
      "",
      "Cannot use --swap with context kindly: its cluster is not on this machine",
      "If that is the cluster you mean: --swap-context=kindly",
    ],
    [
      "",
      "",
      "",
      "Cannot use --swap with the current context: its cluster is not on this machine",
      "Choose a context: --context NAME",
    ],
    [
      "kind-dev",
      "https://127.0.0.1:1",
      "prod",
      "Cannot use --swap-context=prod: kubectl uses context kind-dev",
      "If that is the cluster you mean: --swap-context=kind-dev",
    ],
  ])("refuses %s at %s, named %j", async (name, server, named, message, hint) => {
    const failure = await failureOf(async () => checkSwapContext(context(name, server), named));
    expect(failure).toMatchObject({ message, hint });
  });

  test("takes another one that is named", () => {
    expect(() => checkSwapContext(context("prod", "https://10.0.0.1:6443"), "prod")).not.toThrow();
  });
});

describe.skipIf(programs === undefined)("ko apply -W --swap", () => {
  let server: ApiServer;
  let registry: TestRegistry;
  let bench: Bench;
  let env: Record<string, string>;

  beforeAll(async () => {
    [server, registry] = await Promise.all([startApiServer(), startRegistry()]);
    bench = makeBench(
      { "go.mod": goMod("example.com/web"), "main.go": mainGo("1"), "web.yaml": deployment("ko://example.com/web") },
      { host: registry.host },
    );
    env = { KUBECONFIG: server.kubeconfig };
    await server.kubectl(["create", "serviceaccount", "default"]);
  });

  afterAll(async () => {
    bench?.[Symbol.dispose]();
    await registry?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  async function get(kind: string, name: string): Promise<unknown> {
    return parseJson((await server.kubectl(["get", kind, name, "-o", "json"])).stdout);
  }

  /** The image of the container "web". */
  function imageOf(object: unknown): string {
    const containers = [
      ...listAt(object, "spec", "template", "spec", "containers"),
      ...listAt(object, "spec", "containers"),
    ];
    return textAt(
      containers.find((each) => textAt(each, "name") === "web"),
      "image",
    );
  }

  /** Makes the ReplicaSet of the Deployment, and a Pod, as the controllers do. */
  async function roll(pod: string): Promise<void> {
    const create = async (object: object): Promise<unknown> => {
      const { code, stderr, stdout } = await server.kubectl(["create", "-o", "json", "-f", "-"], {
        stdin: JSON.stringify(object),
      });
      if (code !== 0) throw new Error(stderr);
      return parseJson(stdout);
    };
    const owner = (object: unknown): object => ({
      apiVersion: "apps/v1",
      kind: textAt(object, "kind"),
      name: textAt(object, "metadata", "name"),
      uid: textAt(object, "metadata", "uid"),
      controller: true,
    });
    await server.kubectl(["annotate", "deployment/web", "deployment.kubernetes.io/revision=1"]);
    const parent = await get("deployment", "web");
    const labels = { app: "web" };
    const annotations = { "deployment.kubernetes.io/revision": "1" };
    const template = fieldAt(parent, "spec", "template");
    const existing = await server.kubectl(["get", "rs", "web-1", "-o", "json"]);
    const set =
      existing.code === 0
        ? parseJson(existing.stdout)
        : await create({
            apiVersion: "apps/v1",
            kind: "ReplicaSet",
            metadata: { name: "web-1", labels, annotations, ownerReferences: [owner(parent)] },
            spec: { selector: { matchLabels: labels }, template },
          });
    await create({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: pod, labels, ownerReferences: [owner(set)] },
      spec: fieldAt(template, "spec"),
    });
  }

  const start = (...more: readonly string[]): Watching =>
    startWatching(bench, ["apply", "-W", "--swap", "-f", "web.yaml", ...more], { env });

  async function save(text: string, watching: Watching): Promise<void> {
    bench.tree.write({ "main.go": mainGo(text) });
    await watching.said(/swapped the program in \d Pods?/);
  }

  test("an edit changes the Pods and not the Deployment; the end applies it; a kill is mended by the next apply", async () => {
    const watching = start();
    await watching.round();
    await roll("web-a");
    const first = imageOf(await get("deployment", "web"));
    expect(imageOf(await get("pod", "web-a"))).toBe(first);

    await save("2", watching);
    const second = imageOf(await get("pod", "web-a"));
    expect(second).not.toBe(first);
    expect(imageOf(await get("deployment", "web"))).toBe(first);

    // A Pod that is made meanwhile has the image of the Deployment.
    await roll("web-b");
    await waitUntil(async () => imageOf(await get("pod", "web-b")) === second, watching.running);

    const { code, stdout } = await watching.end("SIGINT");
    expect(code).toBe(130);
    expect(stdout).toEndWith("deployment.apps/web configured\n");
    expect(imageOf(await get("deployment", "web"))).toBe(second);
    expect(readdirSync(`${bench.env["KOCACHE"]}/swaps`)).toEqual([]);

    const killed = start();
    await killed.round();
    await save("3", killed);
    await killed.end("SIGKILL");
    expect(imageOf(await get("pod", "web-a"))).not.toBe(second);
    expect(readdirSync(`${bench.env["KOCACHE"]}/swaps`)).toHaveLength(1);
    bench.tree.write({ "main.go": mainGo("2") });
    const { stderr } = await bench.ours(["apply", "-f", "web.yaml"], { env });
    expect(stderr).toContain("deployment/web: 2 Pods had the program of a swap that was killed\n");
    for (const pod of ["web-a", "web-b"]) expect(imageOf(await get("pod", pod))).toBe(second);
    expect(readdirSync(`${bench.env["KOCACHE"]}/swaps`)).toEqual([]);
  });

  test("an edit of the YAML is applied, with what was swapped", async () => {
    const watching = start();
    await watching.round();
    await save("4", watching);
    const swapped = imageOf(await get("pod", "web-a"));
    bench.tree.write({ "web.yaml": deployment("ko://example.com/web", { env: "b" }) });
    await watching.said(/applied 1 document/);
    expect(imageOf(await get("deployment", "web"))).toBe(swapped);
    const { stdout } = await watching.end("SIGINT");
    // Nothing is left to apply.
    expect(stdout.match(/^deployment\.apps\/web /gm)).toHaveLength(2);
  });

  test("a user who may not change Pods gets a rollout", async () => {
    bench.tree.write({ "web.yaml": deployment("ko://example.com/web"), "main.go": mainGo("5") });
    await using rules = await startApiServer({ authorization: "RBAC" });
    const resources = "--resource=deployments.apps,replicasets.apps,pods,events";
    await rules.kubectl(["create", "clusterrole", "dev", "--verb=get,list", resources]);
    await rules.kubectl(["create", "clusterrole", "apply", "--verb=create,patch", "--resource=deployments.apps"]);
    for (const role of ["dev", "apply"]) {
      await rules.kubectl(["create", "clusterrolebinding", role, `--clusterrole=${role}`, "--user=dev"]);
    }
    const watching = startWatching(bench, ["apply", "-W", "--swap", "-f", "web.yaml", "--as=dev"], {
      env: { KUBECONFIG: rules.kubeconfig },
    });
    await watching.round();
    bench.tree.write({ "main.go": mainGo("6") });
    expect(await watching.round()).toContain("applied 1 document");
    await watching.end("SIGINT");
  });

  test.each([
    [["--swap"], "Cannot use --swap without --watch: it replaces the program again and again"],
    [["-W", "--swap-context=a"], "Cannot use --swap-context without --swap"],
    [["-W", "--swap", "--swap-context=prod"], "Cannot use --swap-context=prod: kubectl uses context test"],
  ])("%j is refused before anything is built", async (flags, message) => {
    const { code, stderr } = await bench.ours(["apply", ...flags, "-f", "web.yaml"], { env });
    expect([code, stderr]).toEqual([2, expect.stringContaining(`Error: ${message}\n`)]);
    expect(stderr).not.toContain("Building");
  });

  test("`ko create` has no --swap", async () => {
    const { code, stderr } = await bench.ours(["create", "-W", "--swap", "-f", "web.yaml"], { env });
    expect([code, stderr]).toEqual([2, expect.stringContaining("--swap")]);
    expect(existsSync(bench.tree.at("web.yaml"))).toBe(true);
  });
});
