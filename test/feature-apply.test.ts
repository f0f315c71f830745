/**
 * `ko apply`, `create` and `delete` against a real API server, registry and kubectl.
 *
 * Interruptions are in feature-interrupt.test.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, HELLO, mainGo } from "./helpers/go.ts";
import { pull } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";

const programs = findCounterparts(["docker-registry", "etcd", "kube-apiserver", "kubectl"]);

const EXAMPLE = join(import.meta.dir, "..", "examples", "hello");

/** A Deployment of one program, as short as the API server takes it. */
function deployment(name: string, image: string): string {
  const template = `{metadata: {labels: {app: ${name}}}, spec: {containers: [{name: c, image: "${image}"}]}}`;
  return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}, labels: {app: ${name}}}
spec: {selector: {matchLabels: {app: ${name}}}, template: ${template}}
`;
}

function configMap(name: string, more = ""): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}${more}}\ndata: {a: b}\n`;
}

describe.skipIf(programs === undefined)("on a real API server", () => {
  let registry: TestRegistry;
  let server: ApiServer;
  let bench: Bench;

  beforeAll(async () => {
    [registry, server] = await Promise.all([startRegistry(), startApiServer()]);
    bench = makeBench(HELLO, { host: registry.host });
  });

  afterAll(async () => {
    bench?.[Symbol.dispose]();
    await server?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  /** What `kubectl get` prints of objects in the form given; their absence is an error. */
  async function get(objects: readonly string[], form: string): Promise<string> {
    const { code, stdout, stderr } = await server.kubectl(["get", ...objects, `--output=${form}`]);
    if (code !== 0) throw new Error(stderr);
    return stdout;
  }

  const cluster = (): Record<string, string> => ({ KUBECONFIG: server.kubeconfig });

  describe("ko apply", () => {
    test("brings the example, changes nothing the second time, and ko delete takes it away", async () => {
      using example = makeBench({}, { host: registry.host, cwd: EXAMPLE });
      const objects = ["deployment/hello", "service/hello"];
      const versions = "jsonpath={.items[*].metadata.resourceVersion}";

      const first = await example.ours(["apply", "-f", "config/"], { env: cluster() });
      expect({ code: first.code, stdout: first.stdout }).toEqual({
        code: 0,
        stdout: "deployment.apps/hello created\nservice/hello created\n",
      });
      const image = await get(["deployment/hello"], "jsonpath={.spec.template.spec.containers[0].image}");
      expect(image).toMatch(new RegExp(`^${example.repository}/hello-[0-9a-f]{32}@sha256:[0-9a-f]{64}$`));
      // Reads every part of the image and checks the digests.
      expect((await pull(image)).digest).toBe(image.replace(/^.*@/, ""));

      const before = await get(objects, versions);
      const second = await example.ours(["apply", "-f", "config/"], { env: cluster() });
      expect({ code: second.code, stdout: second.stdout }).toEqual({
        code: 0,
        stdout: "deployment.apps/hello unchanged\nservice/hello unchanged\n",
      });
      expect(await get(objects, versions)).toBe(before);
      const { stdout } = await example.ours(["resolve", "-f", "config/"]);
      expect(stdout).toContain(`image: ${image}\n`);
      expect(await server.kubectl(["diff", "-f", "-"], { stdin: stdout })).toEqual({
        code: 0,
        stdout: "",
        stderr: "",
      });

      expect(await example.ours(["delete", "-f", "config/"], { env: cluster() })).toEqual({
        code: 0,
        stdout: 'deployment.apps "hello" deleted\nservice "hello" deleted\n',
        stderr: "",
      });
      expect(await get(["deployments,services", "-l", "app=hello"], "name")).toBe("");
    });

    test.each<[string, (kubeconfig: string, namespace: string) => readonly string[]]>([
      ["directly", (file, name) => ["-n", name, "--context", "test", "--kubeconfig", file]],
      [
        "directly, with equals signs",
        (file, name) => [`--namespace=${name}`, "--context=test", `--kubeconfig=${file}`],
      ],
      ["after --", (file, name) => ["--", "-n", name, "--context", "test", "--kubeconfig", file]],
      ["on both sides", (file, name) => ["--kubeconfig", file, "--", `--namespace=${name}`]],
      [
        "directly, with groups and a boolean",
        (file, name) => [
          ...["--namespace", name, "--kubeconfig", file, "--insecure-skip-tls-verify=false"],
          ...["--as", "jane", "--as-group=system:masters", "--as-group", "two", "--request-timeout=30s"],
        ],
      ],
    ])("kubectl's flags work %s", async (what, flags) => {
      const namespace = `flags-${what.replaceAll(/[^a-z]+/g, "-").replace(/-$/, "")}`;
      await server.kubectl(["create", "namespace", namespace]);
      const args = ["apply", "-f", "-", ...flags(server.kubeconfig, namespace)];
      expect(await bench.ours(args, { stdin: configMap("flags") })).toEqual({
        code: 0,
        stdout: "configmap/flags created\n",
        stderr: "Warning: no ko:// reference in <stdin>: nothing is built\n",
      });
      expect(await get(["configmap/flags", "-n", namespace], "name")).toBe("configmap/flags\n");
    });

    test("no kubeconfig is needed where flags say all", async () => {
      const { url, token } = server;
      const args = ["apply", "-f", "-", "-s", url, "--token", token, "--insecure-skip-tls-verify"];
      expect(await bench.ours(args, { stdin: configMap("no-kubeconfig") })).toMatchObject({
        code: 0,
        stdout: "configmap/no-kubeconfig created\n",
      });
    });

    test("flags of kubectl apply itself stand after --", async () => {
      const args = ["apply", "-f", "-", "--", "--server-side", "--dry-run=server"];
      expect(await bench.ours(args, { stdin: configMap("dry"), env: cluster() })).toMatchObject({
        code: 0,
        stdout: "configmap/dry serverside-applied (server dry run)\n",
      });
      expect((await server.kubectl(["get", "configmap/dry"])).code).toBe(1);
    });

    test("-l selects before anything is built", async () => {
      using two = makeBench(
        {
          "go.mod": goMod("example.com/two"),
          "cmd/good/main.go": mainGo(),
          "cmd/broken/main.go": "package main\n\nfunc main() { undefined() }\n",
          "config/a.yaml": `${deployment("broken", "ko://example.com/two/cmd/broken")}---\n${deployment("good", "ko://example.com/two/cmd/good")}`,
        },
        { host: registry.host },
      );
      expect(await two.ours(["apply", "-f", "config", "-l", "app=good"], { env: cluster() })).toMatchObject({
        code: 0,
        stdout: "deployment.apps/good created\n",
      });
      expect((await server.kubectl(["get", "deployment/broken"])).stderr).toContain("NotFound");
    });

    test("a refusal of the server is shown as kubectl prints it, with its exit code", async () => {
      const yaml = deployment("refused", "ko://example.com/hello").replace(
        "matchLabels: {app: refused",
        "matchLabels: {app: other",
      );
      const refused = await bench.ours(["apply", "-f", "-"], { stdin: yaml, env: cluster() });
      expect(refused).toMatchObject({ code: 1, stdout: "" });
      expect(refused.stderr.split("\n").filter((line) => line.includes("refused"))).toEqual([
        expect.stringContaining('The Deployment "refused" is invalid: spec.template.metadata.labels: Invalid value'),
      ]);
      expect(refused.stderr).not.toMatch(/^Error:|internal:|^ +at /m);
    });

    test("a document that kubectl cannot read is its to refuse; those before it are applied", async () => {
      const stdin = `${configMap("before-nonsense")}---\nnonsense: true\n`;
      const result = await bench.ours(["apply", "-f", "-"], { stdin, env: cluster() });
      expect(result).toEqual({
        code: 1,
        stdout: "configmap/before-nonsense created\n",
        stderr: expect.stringMatching(
          /^error: error when retrieving current configuration|^error: .*(kind|apiVersion)/m,
        ),
      });
    });

    test("documents arrive in the order of the input", async () => {
      bench.tree.write({
        "order/a-namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: order}\n",
        "order/b.yml": `${configMap("z", ", namespace: order")}---\n${configMap("a", ", namespace: order")}`,
        "order/c.json": JSON.stringify({
          ...{ apiVersion: "v1", kind: "ConfigMap" },
          ...{ metadata: { name: "m", namespace: "order" }, data: { image: "ko://example.com/hello" } },
        }),
      });
      expect(await bench.ours(["apply", "-f", "order"], { env: cluster() })).toMatchObject({
        code: 0,
        stdout: "namespace/order created\nconfigmap/z created\nconfigmap/a created\nconfigmap/m created\n",
      });
      expect(await get(["configmap/m", "-n", "order"], "jsonpath={.data.image}")).toStartWith(`${bench.repository}/`);
    });
  });

  describe("ko create", () => {
    test("creates missing objects, and fails as kubectl does for existing ones", async () => {
      bench.tree.write({ "job/deployment.yaml": deployment("made", "ko://example.com/hello") });
      const args = ["create", "-q", "-f", "job/deployment.yaml"];
      expect(await bench.ours(args, { env: cluster() })).toEqual({
        code: 0,
        stdout: "deployment.apps/made created\n",
        stderr: "",
      });
      expect(await bench.ours(args, { env: cluster() })).toEqual({
        code: 1,
        stdout: "",
        stderr:
          'Error from server (AlreadyExists): error when creating "STDIN": deployments.apps "made" already exists\n',
      });
    });
  });

  describe("ko delete", () => {
    test("needs neither Go nor a registry, and hands every word to kubectl", async () => {
      bench.tree.write({ "gone/deployment.yaml": deployment("gone", "ko://example.com/no/such/program") });
      await server.kubectl(["create", "-f", bench.tree.at("gone/deployment.yaml")]);
      const calls = bench.goCalls().length;
      const env = { ...cluster(), KO_DOCKER_REPO: "" };
      expect(await bench.ours(["delete", "-f", "gone", "--wait=false", "--output=name"], { env })).toEqual({
        code: 0,
        stdout: "deployment.apps/gone\n",
        stderr: "",
      });
      const again = await bench.ours(["delete", "-f", "gone"], { env });
      expect({ ...again, stderr: again.stderr.split("\n").length }).toEqual({ code: 1, stdout: "", stderr: 2 });
      expect(again.stderr).toStartWith("Error from server (NotFound)");
      expect(await bench.ours(["delete", "-f", "gone", "--ignore-not-found"], { env })).toMatchObject({ code: 0 });
      expect(bench.goCalls()).toHaveLength(calls);
    });
  });
});
