/** The look at kubectl's cluster that goes on beside a build: kubectl is the real one, and so is the API server. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { describeError } from "../lib/errors.ts";
import { ClusterNodes, lookForCluster, type PlannedBuilds, whileLooking } from "../lib/kubectl-cluster.ts";
import { parsePlatform } from "../lib/oci.ts";
import { type ApiServer, startApiServer, type TestNode } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { findFreePort, startRegistry } from "./helpers/registry.ts";
import { makeBench } from "./helpers/world-bench.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["etcd", "kube-apiserver", "kubectl", "docker-registry"]);

const CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {image: ko://example.com/web}\n";

describe.skipIf(programs === undefined)("the cluster of kubectl", () => {
  let server: ApiServer;
  let tree: Tree;
  let closed: string;

  beforeAll(async () => {
    server = await startApiServer({ authorization: "RBAC" });
    closed = `127.0.0.1:${await findFreePort()}`;
    const user = (name: string, settings: object): object => ({ name, user: settings });
    const context = (name: string, fields: object): object => ({ name, context: { user: "admin", ...fields } });
    tree = writeTree({
      kubeconfig: JSON.stringify({
        apiVersion: "v1",
        kind: "Config",
        clusters: [
          { name: "live", cluster: { server: server.url, "insecure-skip-tls-verify": true } },
          { name: "away", cluster: { server: `http://${closed}` } },
          { name: "no-ca", cluster: { server: server.url, "certificate-authority": "/none/ca.crt" } },
        ],
        users: [
          user("admin", { token: server.token }),
          user("stranger", { token: "other" }),
          user("exec", {
            exec: { apiVersion: "client.authentication.k8s.io/v1", command: "none", interactiveMode: "IfAvailable" },
          }),
        ],
        contexts: [
          context("live", { cluster: "live" }),
          context("named", { cluster: "live", namespace: "kube-system" }),
          context("missing-namespace", { cluster: "live", namespace: "webb" }),
          context("minikube", { cluster: "away" }),
          context("no-ca", { cluster: "no-ca" }),
          context("stranger", { cluster: "live", user: "stranger" }),
          context("exec", { cluster: "away", user: "exec" }),
        ],
        "current-context": "live",
      }),
      damaged: "contexts: [",
      empty: "",
      cache: null,
    });
  });

  afterAll(async () => {
    tree?.[Symbol.dispose]();
    await server?.[Symbol.asyncDispose]();
  });

  /** What the look says: the error, and the warnings. */
  async function look(words: readonly string[], planned?: PlannedBuilds): Promise<readonly string[]> {
    const said: string[] = [];
    const log = { info: () => {}, debug: () => {}, warn: (text: string) => void said.push(`Warning: ${text}`) };
    const host = hostAt(tree.path, {
      env: {
        PATH: process.env["PATH"] ?? "",
        KUBECONFIG: tree.at("kubeconfig"),
        KUBECACHEDIR: tree.at("cache"),
      },
    });
    const nodes = planned === undefined ? undefined : new ClusterNodes(host, { log, words });
    if (planned !== undefined) nodes?.announce(planned);
    const error = await lookForCluster(host, { log, words, patience: 0, ...(nodes === undefined ? {} : { nodes }) });
    const lines = [...said, ...(error === undefined ? [] : [describeError(error)])];
    return lines.map((line) => line.replaceAll(tree.path, "$DIR").replaceAll(closed, "$CLOSED"));
  }

  test.each<[readonly string[], string]>([
    [[], "the current context"],
    [["--context=named"], "a context with a namespace"],
    [["--context", "missing-namespace", "-n", "default"], "a flag that names another namespace"],
    [["--context", "missing-namespace", "-ndefault"], "the same in one word"],
    [["--context=missing-namespace", "--namespace", "default"], "the long flag"],
    [["--server-side", "--context=live", "--", "web"], "arguments that do not matter"],
    [["--context=exec"], "a context whose login may ask a person"],
  ])("%p: nothing is said (%s)", async (words) => {
    expect(await look(words)).toEqual([]);
  });

  test.each<[readonly string[], string]>([
    [
      ["--context=staging"],
      `Error: The kubeconfig has no context "staging": it has exec, live, minikube, missing-namespace, named, no-ca, stranger
  Pass one of them: --context NAME`,
    ],
    [
      ["--context", "x y", "--kubeconfig=empty"],
      'Error: The kubeconfig has no context "x y"\n  Make one: kubectl config set-context NAME, or set KUBECONFIG to another file.',
    ],
    [
      ["--kubeconfig", "damaged"],
      `Error: kubectl cannot be used: error loading config file "damaged": yaml: line 1: did not find expected node content
  Correct that file or flag, or set KUBECONFIG to another file.`,
    ],
    [
      ["--context=no-ca"],
      `Error: kubectl cannot be used: unable to read certificate-authority /none/ca.crt for no-ca due to open /none/ca.crt: no such file or directory
  Correct that file or flag, or set KUBECONFIG to another file.`,
    ],
    [
      ["--cluster=none"],
      `Error: kubectl cannot be used: no server found for cluster "none"
  Correct that file or flag, or set KUBECONFIG to another file.`,
    ],
    [
      ["--request-timeout=soon"],
      `Error: kubectl cannot be used: Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding time unit (e.g. 1s | 2m | 3h)
  Correct that file or flag, or set KUBECONFIG to another file.`,
    ],
  ])("%p cannot succeed", async (words, wanted) => {
    expect(await look(words)).toEqual([wanted]);
  });

  test.each<[readonly string[], string]>([
    [
      ["--context=missing-namespace"],
      'Warning: The cluster of context missing-namespace has no namespace "webb" yet: kubectl create namespace webb',
    ],
    [["-n", "prd"], 'Warning: The cluster of context live has no namespace "prd" yet: kubectl create namespace prd'],
    [
      ["--context=minikube"],
      "Warning: The cluster of context minikube does not answer yet: The connection to the server $CLOSED was refused. Type: minikube start",
    ],
    [
      ["--context=stranger"],
      "Warning: The cluster of context stranger refuses the credentials of the kubeconfig. Get the kubeconfig of that cluster anew, or choose another: kubectl config use-context NAME",
    ],
  ])("%p may be mended in time", async (words, wanted) => {
    expect(await look(words)).toEqual([wanted]);
  });

  /** Programs for platforms, one each. */
  function plan(platforms: readonly string[], local?: string): PlannedBuilds {
    const built = platforms.map((each, i) => ({
      importPath: `example.com/${"abc".charAt(i)}`,
      platforms: each.split(" ").map(parsePlatform),
    }));
    return { programs: built, ...(local === undefined ? {} : { localPlatform: async () => local }) };
  }

  const arm: TestNode = { platform: "linux/arm64" };

  test.each<[string, readonly TestNode[], readonly string[], PlannedBuilds, readonly string[]]>([
    ["the nodes run it", [arm], [], plan(["linux/arm64"]), []],
    ["one of several platforms fits", [arm], [], plan(["linux/amd64 linux/arm64"]), []],
    ["there is no node yet", [], [], plan(["linux/amd64"]), []],
    ["the user may not list nodes", [arm], ["--as=jane", "-n", "default"], plan(["linux/amd64"]), []],
    [
      "no node runs it",
      [arm, arm],
      [],
      plan(["linux/amd64"]),
      ["no node of context live runs linux/amd64 (they run linux/arm64): use --platform=cluster"],
    ],
    [
      "no node runs either, a cordoned one neither",
      [{ ...arm, isCordoned: true }, { platform: "linux/s390x" }],
      ["--context=named"],
      plan(["linux/amd64", "linux/386 windows/amd64"]),
      [
        "no node of context named runs linux/386 or linux/amd64 or windows/amd64 (they run linux/arm64, linux/s390x): use --platform=cluster",
      ],
    ],
    [
      "no node runs one of the programs",
      [arm],
      [],
      plan(["linux/arm64", "linux/amd64", "linux/arm/v7"]),
      ["example.com/b: no node of context live runs linux/amd64 (they run linux/arm64): use --platform=cluster"],
    ],
    [
      "images are loaded: the nodes are not asked",
      [arm],
      [],
      plan(["linux/s390x"], "linux/amd64"),
      ["the target of local images runs linux/amd64, not linux/s390x: use --platform=cluster"],
    ],
  ])("warns of programs that nothing runs: %s", async (_, nodes, words, planned, want) => {
    await server.setNodes(nodes);
    expect(await look(words, planned)).toEqual(want.map((line) => `Warning: ${line}`));
  });

  test("ko apply warns while go compiles", async () => {
    await using registry = await startRegistry();
    await server.setNodes([arm]);
    using bench = makeBench(
      { "go.mod": goMod("example.com/web"), "main.go": mainGo(), "web.yaml": CONFIG_MAP },
      { host: registry.host },
    );
    // The build takes until the warning is there: two requests of kubectl after its patience.
    bench.work.write({
      "slow/go": {
        executable: `#!/bin/sh\ncase "$1" in build) for i in $(seq 600); do grep -q "no node" ${bench.work.at("said")} && break; sleep 0.1; done ;; esac\nexec go "$@"\n`,
      },
      said: "",
    });
    const env = { KUBECONFIG: tree.at("kubeconfig"), KO_GO_PATH: bench.work.at("slow/go") };
    const running = bench.start(["apply", "-f", "web.yaml", "--", "--dry-run=client"], { env });
    const warning = (): string => /Warning: no node .*/.exec(running.stderr())?.[0] ?? "";
    await waitUntil(() => warning() !== "", running);
    bench.work.write({ said: warning() });
    const { code, stdout } = await running.result;
    expect({ code, stdout, said: warning() }).toEqual({
      code: 0,
      stdout: "configmap/a created (dry run)\n",
      said: "Warning: no node of context live runs linux/amd64 (they run linux/arm64): use --platform=cluster",
    });
  });

  test("work that has ended ends the look", async () => {
    const host = hostAt(tree.path, { env: { PATH: tree.path } });
    const log = { info: () => {}, debug: () => {}, warn: () => {} };
    expect(await whileLooking(host, { log, words: [] }, async () => "done")).toBe("done");
    const failure = new Error("of the work");
    expect(await rejectionOf(whileLooking(host, { log, words: [] }, () => Promise.reject(failure)))).toBe(failure);
  });

  test.each([
    ["apply", ["-f", "web.yaml"]],
    ["create", ["-f", "web.yaml", "-W"]],
    ["apply", ["-f", "web.yaml", "-W"]],
    ["run", ["."]],
  ])("ko %s %p ends while go compiles if there is no such context", async (command, args) => {
    const file = "web.yaml";
    using bench = makeBench(
      { "go.mod": goMod("example.com/web"), "main.go": mainGo(), [file]: "image: ko://example.com/web\n" },
      { host: closed },
    );
    // A go that compiles for ever.
    bench.work.write({
      "slow/go": { executable: '#!/bin/sh\ncase "$1" in build) exec tail -f /dev/null ;; esac\nexec go "$@"\n' },
    });
    const env = { KUBECONFIG: tree.at("kubeconfig"), KO_GO_PATH: bench.work.at("slow/go") };
    const { code, stderr, stdout } = await bench.ours([command, "--context=staging", ...args], { env });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain('Error: The kubeconfig has no context "staging": it has exec, live, ');
  });
});
