/**
 * `ko apply --wait` and `ko create --wait` against a real API server. Its controllers and its kubelet are the test: they
 * write the statuses that the real ones write, and serve the logs.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { isObject } from "../lib/json.ts";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { makeCertificates } from "./helpers/daemon.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { makeFolder, type Folder } from "./helpers/world-folders.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["etcd", "kube-apiserver", "kubectl", "docker-registry"]);

const PANIC = `starting
panic: runtime error: index out of range [1] with length 0

goroutine 1 [running]:
example.com/web/page.Show(...)
\texample.com/web/page/page.go:4
main.main()
\texample.com/web/main.go:9 +0x1d
runtime.main()
\truntime/proc.go:283 +0x28b
exit status 2
`;

/** A generation that is not behind that of an object, which each change raises. */
const SEEN = 1000;

interface Meta {
  readonly uid: string;
  readonly name: string;
}

interface Stored {
  readonly metadata: Meta;
}

function isStored(value: unknown): value is Stored {
  return isObject(value) && isObject(value["metadata"]) && typeof value["metadata"]["name"] === "string";
}

describe.skipIf(programs === undefined)("the wait for a rollout", () => {
  let server: ApiServer;
  let bench: Bench;
  let folder: Folder;
  let kubelet: Bun.Server<undefined>;
  /** What the containers of a Pod printed, by the Pod's name. */
  const logs = new Map<string, string>();
  let count = 0;

  beforeAll(async () => {
    [server, folder] = await Promise.all([startApiServer(), makeFolder()]);
    const { server: certificates } = await makeCertificates(folder.path);
    const read = (name: string): string => readFileSync(join(certificates, name), "utf8");
    kubelet = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      tls: { cert: read("cert.pem"), key: read("key.pem") },
      fetch: (request) => {
        const [, , , pod = ""] = new URL(request.url).pathname.split("/");
        return new Response(logs.get(pod) ?? "");
      },
    });
    // Pods want one, and no controller makes it.
    await api("POST", "/api/v1/namespaces/default/serviceaccounts", { metadata: { name: "default" } });
    await api("POST", "/api/v1/nodes", { apiVersion: "v1", kind: "Node", metadata: { name: "arm" } });
    await status("/api/v1/nodes/arm", {
      addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
      daemonEndpoints: { kubeletEndpoint: { Port: kubelet.port } },
      nodeInfo: {
        ...{
          architecture: "arm64",
          operatingSystem: "linux",
          bootID: "",
          containerRuntimeVersion: "",
          kernelVersion: "",
        },
        ...{ kubeProxyVersion: "", kubeletVersion: "", machineID: "", osImage: "", systemUUID: "" },
      },
    });
    bench = makeBench(
      {
        "go.mod": goMod("example.com/web"),
        "main.go": mainGo(),
        "page/page.go": "package page\n\n\n\nfunc Show() {}\n",
      },
      { host: "127.0.0.1:1" },
    );
  });

  afterAll(async () => {
    bench?.[Symbol.dispose]();
    await kubelet?.stop(true);
    await folder?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  async function api(method: string, path: string, body?: unknown): Promise<Stored> {
    const stored = await server.request(method, path, body);
    if (!isStored(stored)) throw new Error(`${path}: ${JSON.stringify(stored)}`);
    return stored;
  }

  const status = (path: string, fields: object): Promise<Stored> => api("PATCH", `${path}/status`, { status: fields });

  /** Waits until an object is there. */
  async function find(path: string): Promise<Stored> {
    let found: Stored | undefined;
    await waitUntil(async () => {
      found = await api("GET", path).catch(() => undefined);
      return found !== undefined;
    });
    if (found === undefined) throw new Error(path);
    return found;
  }

  const owner = (kind: string, { name, uid }: Meta): object => ({
    apiVersion: "apps/v1",
    kind,
    name,
    uid,
    controller: true,
  });

  /** Makes the ReplicaSet and one Pod of a Deployment, as the controllers do. @returns the Pod's path */
  async function roll(name: string, podStatus: object, more: object = {}): Promise<string> {
    const path = `/apis/apps/v1/namespaces/default/deployments/${name}`;
    const { metadata } = await find(path);
    await api("PATCH", path, { metadata: { annotations: { "deployment.kubernetes.io/revision": "1" } } });
    const template = { metadata: { labels: { app: name } }, spec: { containers: [{ name: "c", image: "i" }] } };
    const set = await api("POST", "/apis/apps/v1/namespaces/default/replicasets", {
      metadata: {
        name: `${name}-1`,
        labels: { app: name },
        annotations: { "deployment.kubernetes.io/revision": "1" },
        ownerReferences: [owner("Deployment", metadata)],
      },
      spec: { selector: { matchLabels: { app: name } }, template },
    });
    await api("POST", "/api/v1/namespaces/default/pods", {
      metadata: { name: `${name}-1-p`, labels: { app: name }, ownerReferences: [owner("ReplicaSet", set.metadata)] },
      spec: {
        nodeName: "arm",
        containers: [{ name: "c", image: "registry/i:v1", resources: { limits: { memory: "32Mi" } } }],
        ...more,
      },
    });
    await status(path, { observedGeneration: SEEN, replicas: 1, updatedReplicas: 1 });
    const pod = `/api/v1/namespaces/default/pods/${name}-1-p`;
    await status(pod, podStatus);
    return pod;
  }

  const ready = (name: string): Promise<Stored> =>
    status(`/apis/apps/v1/namespaces/default/deployments/${name}`, {
      ...{ observedGeneration: SEEN, replicas: 1, updatedReplicas: 1, readyReplicas: 1, availableReplicas: 1 },
    });

  async function event(pod: string, reason: string, message: string): Promise<void> {
    const { metadata } = await api("GET", pod);
    await api("POST", "/api/v1/namespaces/default/events", {
      metadata: { name: `${metadata.name}-${count++}` },
      involvedObject: { apiVersion: "v1", kind: "Pod", name: metadata.name, namespace: "default", uid: metadata.uid },
      reason,
      message,
      lastTimestamp: new Date().toISOString(),
    });
  }

  function deployment(name: string): string {
    const template = `{metadata: {labels: {app: ${name}}}, spec: {containers: [{name: c, image: i}]}}`;
    return `apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: ${name}}\nspec: {selector: {matchLabels: {app: ${name}}}, template: ${template}}\n`;
  }

  const container = (state: object, more: object = {}): object => ({
    containerStatuses: [{ name: "c", image: "i", imageID: "", ready: false, restartCount: 0, state, ...more }],
  });

  async function apply(
    yaml: string,
    args: readonly string[] = ["--wait"],
    meanwhile: () => Promise<unknown> = async () => {},
  ) {
    const env = { KUBECONFIG: server.kubeconfig };
    const running = bench.ours(["apply", "-f", "-", ...args], { env, stdin: yaml });
    await meanwhile();
    return running;
  }

  const lastLine = (text: string): string => text.trimEnd().split("\n").at(-1) ?? "";

  test("a Deployment that becomes ready", async () => {
    const { code, stderr, stdout } = await apply(deployment("good"), ["--wait=60s"], async () => {
      await roll("good", container({ waiting: { reason: "ContainerCreating" } }));
      await ready("good");
    });
    expect({ code, stdout }).toEqual({ code: 0, stdout: "deployment.apps/good created\n" });
    expect(stderr).toMatch(/^deployment\/good is ready after [\d.]+s$/m);
  });

  test("a terminal has one line for each object, which goes when it is ready", async () => {
    const running = bench.start(["apply", "-f", "-", "--wait=60s", "--progress=tty"], {
      env: { KUBECONFIG: server.kubeconfig },
      stdin: deployment("shown"),
    });
    await roll("shown", container({ waiting: { reason: "ContainerCreating" } }));
    await waitUntil(() => running.stderr().includes("has 0 of 1 replicas ready"), running);
    await ready("shown");
    const { code, stderr } = await running.result;
    expect(code).toBe(0);
    // Rewritten in place: a return, and the rest of the screen erased.
    expect(stderr).toMatch(/deployment\/shown has 0 of 1 replicas ready, \d\.\d s\r\u001b\[J/);
    expect(stderr).toMatch(/\r\u001b\[Jdeployment\/shown is ready after [\d.]+s\n$/);
  });

  const waiting = (reason: string, message: string, more: object = {}): object =>
    container({ waiting: { reason, message } }, more);
  const ended = (terminated: object): object =>
    waiting("CrashLoopBackOff", "back-off 10s restarting failed container", {
      restartCount: 1,
      lastState: { terminated: { exitCode: 0, startedAt: null, finishedAt: null, ...terminated } },
    });

  test.each<[string, object, string | undefined, string]>([
    [
      "an image that does not exist",
      waiting(
        "ErrImagePull",
        'rpc error: code = NotFound desc = failed to pull and unpack image "registry/i:v1": not found',
      ),
      undefined,
      `Error: deployment/$N does not run: the image registry/i:v1 cannot be pulled: failed to pull and unpack image "registry/i:v1": not found (Pod $N-1-p)
  kubectl describe pod/$N-1-p`,
    ],
    [
      "a secret that does not exist",
      waiting("CreateContainerConfigError", 'secret "db" not found'),
      undefined,
      `Error: deployment/$N does not run: container c cannot be made: secret "db" not found (Pod $N-1-p)
  kubectl describe pod/$N-1-p`,
    ],
    [
      "a command that is not in the image",
      waiting(
        "RunContainerError",
        'failed to create containerd task: runc create failed: exec: "/x": stat /x: no such file or directory',
      ),
      undefined,
      `Error: deployment/$N does not run: container c cannot be started: exec: "/x": stat /x: no such file or directory (Pod $N-1-p)
  kubectl describe pod/$N-1-p`,
    ],
    [
      "a program that panics",
      ended({ exitCode: 2, reason: "Error" }),
      PANIC,
      `Error: deployment/$N does not run: container c ends with exit code 2, again and again (Pod $N-1-p): panic: runtime error: index out of range [1] with length 0 at page/page.go:4
  | starting
  | panic: runtime error: index out of range [1] with length 0
  | goroutine 1 [running]:
  | example.com/web/page.Show(...)
  |     example.com/web/page/page.go:4
  | main.main()
  |     example.com/web/main.go:9 +0x1d
  | runtime.main()
  |     runtime/proc.go:283 +0x28b
  | exit status 2
  → page/page.go:4
  → main.go:9
  kubectl logs pod/$N-1-p -c c`,
    ],
    [
      "a program that needs more memory than it may have",
      ended({ exitCode: 137, reason: "OOMKilled" }),
      "working\n",
      `Error: deployment/$N does not run: container c was killed because it needs more memory than its limit of 32Mi, again and again (Pod $N-1-p)
  | working
  kubectl logs pod/$N-1-p -c c`,
    ],
    [
      "a program for another processor",
      ended({ exitCode: 255, reason: "Error" }),
      "exec /ko-app/web: exec format error\n",
      `Error: deployment/$N does not run: container c ends with exit code 255, again and again (Pod $N-1-p). The program is for another processor: node arm is linux/arm64
  | exec /ko-app/web: exec format error
  Build for the platform of the nodes: --platform=linux/arm64`,
    ],
    [
      "a program for another processor, at its first end",
      container({ terminated: { exitCode: 1, reason: "Error", startedAt: null, finishedAt: null } }),
      "exec /ko-app/web: exec format error\n",
      `Error: deployment/$N does not run: container c ends with exit code 1 (Pod $N-1-p). The program is for another processor: node arm is linux/arm64
  | exec /ko-app/web: exec format error
  Build for the platform of the nodes: --platform=linux/arm64`,
    ],
    [
      "a program that has ended twice, and runs again",
      container(
        { running: { startedAt: null } },
        {
          restartCount: 2,
          lastState: { terminated: { exitCode: 3, reason: "Error", startedAt: null, finishedAt: null } },
        },
      ),
      "no database\n",
      `Error: deployment/$N does not run: container c ends with exit code 3, again and again (Pod $N-1-p)
  | no database
  kubectl logs pod/$N-1-p -c c`,
    ],
    [
      "a program that ends well, and should not",
      ended({ exitCode: 0, reason: "Completed" }),
      "\u001b[31mdone\u0007\n",
      `Error: deployment/$N does not run: container c ends with exit code 0, again and again (Pod $N-1-p)
  | \\x1b[31mdone\\x07
  kubectl logs pod/$N-1-p -c c`,
    ],
  ])("%s: the wait ends with the reason", async (_, podStatus, log, wanted) => {
    const name = `bad${count++}`;
    if (log !== undefined) logs.set(`${name}-1-p`, log);
    const { code, stderr, stdout } = await apply(deployment(name), ["--wait"], () => roll(name, podStatus));
    expect({ code, stdout }).toEqual({ code: 1, stdout: `deployment.apps/${name} created\n` });
    expect(stderr.slice(stderr.indexOf("Error:")).trimEnd()).toBe(wanted.replaceAll("$N", name));
  });

  test("what may still come is shown, and is the reason when the time is over", async () => {
    const { code, stderr } = await apply(deployment("slow"), ["--wait=4s"], async () => {
      const pod = await roll("slow", {
        conditions: [
          { type: "PodScheduled", status: "False", reason: "Unschedulable", message: "0/1 nodes are available" },
        ],
      });
      await event(pod, "FailedScheduling", "0/1 nodes are available");
    });
    expect(code).toBe(1);
    expect(stderr).toContain("deployment/slow has 0 of 1 replicas ready: no node takes it: 0/1 nodes are available\n");
    expect(stderr).toContain(
      "Error: deployment/slow has 0 of 1 replicas ready after 4.0s: no node takes it: 0/1 nodes are available (Pod slow-1-p)\n",
    );
  });

  test("a probe that fails is shown, and waited for", async () => {
    const env = { KUBECONFIG: server.kubeconfig };
    const running = bench.start(["apply", "-f", "-", "--wait=60s"], { env, stdin: deployment("probed") });
    const pod = await roll("probed", container({ running: { startedAt: null } }));
    await event(pod, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500");
    const line =
      "deployment/probed has 0 of 1 replicas ready: container c is not ready: Readiness probe failed: HTTP probe failed with statuscode: 500\n";
    await waitUntil(() => running.stderr().includes(line), running);
    await ready("probed");
    const { code, stderr } = await running.result;
    expect(code).toBe(0);
    expect(stderr).toMatch(/^deployment\/probed is ready after [\d.]+s$/m);
  });

  test("a watch tells how each rollout goes on, and goes on itself", async () => {
    bench.tree.write({ "live.yaml": deployment("live") });
    const env = { KUBECONFIG: server.kubeconfig, TMPDIR: bench.work.at("") };
    const running = bench.start(["apply", "-f", "live.yaml", "-W"], { env });
    const says = (text: string): Promise<void> => waitUntil(() => running.stderr().includes(text), running);
    const pod = await roll("live", waiting("CreateContainerConfigError", 'secret "db" not found'));
    await says(
      'Error: deployment/live does not run: container c cannot be made: secret "db" not found (Pod live-1-p)\n',
    );
    await status(pod, container({ running: { startedAt: null } }));
    await ready("live");
    bench.tree.write({
      "live.yaml": deployment("live").replace("metadata: {name: live}", "metadata: {name: live, labels: {a: b}}"),
    });
    await says("  deployment/live is ready after ");
    process.kill(running.pid, "SIGINT");
    const { code, stderr } = await running.result;
    expect(code).toBe(130);
    expect(stderr.match(/^ {2}applied 1 document/gm)).toHaveLength(2);
    expect(readdirSync(bench.work.at("")).filter((name) => name.startsWith("ko-api-"))).toEqual([]);
  });

  test("a watch on a terminal has a line for each object that does not run yet, which goes", async () => {
    bench.tree.write({ "shown.yaml": deployment("seen") });
    const env = { KUBECONFIG: server.kubeconfig };
    const running = bench.start(["apply", "-f", "shown.yaml", "-W", "--progress=tty"], { env });
    const says = (text: string): Promise<void> => waitUntil(() => running.stderr().includes(text), running);
    await roll("seen", container({ waiting: { reason: "ContainerCreating" } }));
    // Two lines, rewritten in place: of the object, and of the watch.
    await says("\u001b[Jdeployment/seen has 0 of 1 replicas ready\r\nwatching ");
    await ready("seen");
    await says("\r\u001b[1A\u001b[Jwatching ");
    await says("\r\u001b[J  deployment/seen is ready after ");
    process.kill(running.pid, "SIGINT");
    const { code, stderr } = await running.result;
    expect(code).toBe(130);
    const last = stderr.slice(stderr.indexOf("deployment/seen is ready after"));
    expect(last).not.toContain("deployment/seen has");
  });

  test("a watch with --wait=false tells nothing of rollouts", async () => {
    bench.tree.write({ "silent.yaml": deployment("silent") });
    const env = { KUBECONFIG: server.kubeconfig, TMPDIR: bench.work.at("") };
    const running = bench.start(["apply", "-f", "silent.yaml", "-W", "--wait=false"], { env });
    await roll("silent", {});
    await waitUntil(() => running.stderr().includes("watching"), running);
    await ready("silent");
    bench.tree.write({ "silent.yaml": `# changed\n${deployment("silent")}` });
    await waitUntil(() => (running.stderr().match(/^ {2}applied 1 document/gm) ?? []).length === 2, running);
    process.kill(running.pid, "SIGINT");
    const { stderr } = await running.result;
    expect(stderr).not.toContain("deployment/silent");
  });

  test("several failures are several errors; a Job fails by its own condition, and a Pod by its phase", async () => {
    const yaml = `apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec: {restartPolicy: Never, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
`;
    const { code, stderr } = await apply(yaml, ["--wait"], async () => {
      await find("/apis/batch/v1/namespaces/default/jobs/job");
      await find("/api/v1/namespaces/default/pods/pod");
      await status("/apis/batch/v1/namespaces/default/jobs/job", {
        startTime: new Date().toISOString(),
        conditions: [
          {
            type: "FailureTarget",
            status: "True",
            reason: "BackoffLimitExceeded",
            message: "Job has reached the specified backoff limit",
          },
          {
            type: "Failed",
            status: "True",
            reason: "BackoffLimitExceeded",
            message: "Job has reached the specified backoff limit",
          },
        ],
      });
      await status("/api/v1/namespaces/default/pods/pod", {
        phase: "Failed",
        reason: "Evicted",
        message: "The node was low on memory",
      });
    });
    expect(code).toBe(1);
    expect(stderr).toContain("Error: job/job failed: Job has reached the specified backoff limit\n");
    expect(stderr).toContain("Error: pod/pod failed: The node was low on memory\n");
  });

  test("YAML without a workload, and a dry run, have nothing to wait for", async () => {
    const map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n";
    const first = await apply(map);
    expect([first.code, lastLine(first.stderr)]).toEqual([0, "Nothing to wait for: no object is a workload"]);
    const trial = await apply(deployment("trial"), ["--wait", "--", "--dry-run=server"]);
    expect([trial.code, lastLine(trial.stderr)]).toEqual([0, "Nothing to wait for: --dry-run changes nothing"]);
  });

  test("kubectl's own failure is the exit code, and nothing is waited for", async () => {
    const { code, stderr } = await apply("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: broken}\nspec: {}\n");
    expect(code).toBe(1);
    expect(stderr).toContain("spec.selector: Required value");
    expect(stderr).not.toContain("deployment/broken");
  });

  test.each(["soon", "0s", "5", "-1s", "1d"])("--wait=%s is wrong usage", async (time) => {
    const { code, stderr } = await apply(deployment("x"), [`--wait=${time}`]);
    expect(code).toBe(2);
    expect(stderr).toBe(
      `Error: Cannot use --wait="${time}": it is not a time\n  Write it as in --wait=90s or --wait=2m.\n`,
    );
  });
});
