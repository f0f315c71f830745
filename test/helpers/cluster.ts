/**
 * Kubernetes for tests. A real API server over a real etcd, on free loopback ports, its state in a throw-away folder, stores,
 * checks, defaults and refuses as any cluster does, but nothing runs what it stores: no controllers (a deleted namespace never
 * ends, nothing fills `status`), no kubelet.
 *
 * Where Pods must run at once, the little of the API that `kubectl run --attach --rm` needs is served from memory. Attaching is
 * refused there, so that kubectl reads the log.
 */
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { findCounterparts } from "./counterparts.ts";
import { findFreePort } from "./registry.ts";
import { makeFolder, stateFolder } from "./world-folders.ts";
import { type Result, runToEnd, waitForServer } from "./world-programs.ts";

export interface ApiServer extends AsyncDisposable {
  /** `https://127.0.0.1:PORT` */
  readonly url: string;
  /** The bearer token of `admin`, who may do everything. */
  readonly token: string;
  /** Absolute path of its state: etcd, logs, and `pki` with the keys of service accounts and the certificate. */
  readonly folder: string;
  /** Absolute path of a kubeconfig whose only context, `test`, is this server's, as `admin`. */
  readonly kubeconfig: string;
  /** Replaces the nodes of the cluster. Nothing runs on them. */
  setNodes(nodes: readonly TestNode[]): Promise<void>;
  /** Sends a request as `admin`; a PATCH is a merge patch. @throws {Error} If the server refuses it. */
  request(method: string, path: string, body?: unknown): Promise<unknown>;
  /** Runs the machine's kubectl on this server to its end, whatever its exit code. */
  kubectl(args: readonly string[], options?: KubectlOptions): Promise<Result>;
}

export interface ApiServerOptions {
  /** With RBAC, only `admin` may do anything at first; `--as` makes kubectl another user. @default "AlwaysAllow" */
  readonly authorization?: "AlwaysAllow" | "RBAC";
}

/** A node as a kubelet registers it. */
export interface TestNode {
  /** `linux/amd64` */
  readonly platform: string;
  /** @default that of the platform, and its place in the list */
  readonly name?: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** `key[=value]:effect` */
  readonly taints?: readonly string[];
  readonly isCordoned?: boolean;
}

export interface KubectlOptions {
  /** @default nothing */
  readonly stdin?: string;
}

/**
 * The little of the Kubernetes API that `kubectl run --attach --rm` needs, in memory: the counterpart is the real
 * kubectl, this stands in for a cluster whose Pods run at once. Attaching is refused, so that kubectl reads the log.
 */

export interface KubeApi extends AsyncDisposable {
  /** For `--server`. */
  readonly url: string;
  /** Every request but discovery, as `METHOD /path`. */
  readonly requests: readonly string[];
  /** What was sent to make a Pod. */
  readonly created: readonly Pod[];
  /** Settles when the first Pod is made. */
  readonly made: Promise<void>;
  /** Names of the Pods that are there. */
  pods(): readonly string[];
}

export interface KubeApiOptions {
  /** What the containers print. */
  readonly log: string;
  /** The containers' exit code; undefined never starts them. */
  readonly exitCode: number | undefined;
}

export interface Pod {
  readonly metadata: { readonly name: string; readonly [key: string]: unknown };
  readonly spec: Readonly<Record<string, unknown>>;
}

const TOKEN = "test-token";

/** How often ports are looked for, as another program may take one between the look and the start. */
const ATTEMPTS = 3;

const VERBS = ["create", "delete", "get", "list", "watch"];

const DISCOVERY: Readonly<Record<string, unknown>> = {
  "/api": { kind: "APIVersions", versions: ["v1"] },
  "/apis": { kind: "APIGroupList", apiVersion: "v1", groups: [] },
  "/api/v1": {
    kind: "APIResourceList",
    groupVersion: "v1",
    resources: [{ name: "pods", singularName: "pod", namespaced: true, kind: "Pod", verbs: VERBS }],
  },
};

/** Starts etcd and the API server and waits until they serve. @throws {Error} If a program is missing or fails. */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(options);
    } catch (error) {
      if (attempt === ATTEMPTS || !(error instanceof Error && /address already in use/.test(error.message)))
        throw error;
    }
  }
}

/** Starts it on a free port of loopback. */
export function startKubeApi(options: KubeApiOptions): KubeApi {
  const pods = new Map<string, Pod>();
  const requests: string[] = [];
  const created: Pod[] = [];
  const made = Promise.withResolvers<void>();
  const show = (pod: Pod, namespace: string): object => {
    const terminated = { exitCode: options.exitCode, reason: "Done" };
    const status =
      options.exitCode === undefined
        ? { phase: "Pending" }
        : {
            phase: options.exitCode === 0 ? "Succeeded" : "Failed",
            containerStatuses: [{ name: pod.metadata.name, state: { terminated } }],
          };
    const metadata = { ...pod.metadata, namespace, uid: "1", resourceVersion: "1" };
    return { kind: "Pod", apiVersion: "v1", ...pod, metadata, status };
  };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    fetch: async (request) => {
      const url = new URL(request.url);
      const known = DISCOVERY[url.pathname];
      if (known !== undefined) return Response.json(known);
      requests.push(`${request.method} ${url.pathname}`);
      const [, namespace = "", name = "", sub = ""] =
        /^\/api\/v1\/namespaces\/([^/]+)\/pods(?:\/([^/]+))?(?:\/(\w+))?$/.exec(url.pathname) ?? [];
      if (namespace === "") return failure(404, "NotFound");
      if (request.method === "POST" && name === "") {
        const pod = readPod(await request.json());
        created.push(pod);
        made.resolve();
        if (pods.has(pod.metadata.name)) return failure(409, "AlreadyExists");
        pods.set(pod.metadata.name, pod);
        return Response.json(show(pod, namespace), { status: 201 });
      }
      const wanted = name || (url.searchParams.get("fieldSelector") ?? "").replace("metadata.name=", "");
      const pod = pods.get(wanted);
      if (url.searchParams.get("watch") !== null) {
        const events = pod === undefined ? [] : [{ type: "ADDED", object: show(pod, namespace) }];
        return watch(events, request.signal);
      }
      if (name === "") {
        const items = pod === undefined ? [] : [show(pod, namespace)];
        return Response.json({ kind: "PodList", apiVersion: "v1", metadata: { resourceVersion: "1" }, items });
      }
      if (pod === undefined) return failure(404, "NotFound");
      if (sub === "log") return new Response(options.log, { headers: { "content-type": "text/plain" } });
      if (sub !== "") return failure(400, "BadRequest");
      if (request.method === "DELETE") pods.delete(name);
      return Response.json(show(pod, namespace));
    },
  });
  return {
    url: server.url.origin,
    requests,
    created,
    made: made.promise,
    pods: () => [...pods.keys()],
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

async function startOnce({ authorization = "AlwaysAllow" }: ApiServerOptions): Promise<ApiServer> {
  const programs = findCounterparts(["etcd", "kube-apiserver", "kubectl"]);
  if (programs === undefined) throw new Error("no API server");
  await using stack = new AsyncDisposableStack();
  const { path: folder } = stack.use(await makeFolder(stateFolder()));
  const pki = join(folder, "pki");
  await mkdir(pki);
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  await Bun.write(join(pki, "sa.key"), privateKey.export({ type: "pkcs8", format: "pem" }));
  await Bun.write(join(pki, "tokens.csv"), `${TOKEN},admin,admin,system:masters\n`);
  const store = `http://127.0.0.1:${await findFreePort()}`;
  const port = await findFreePort();
  const server = `https://127.0.0.1:${port}`;

  const start = (argv: readonly string[], name: string): Bun.Subprocess => {
    const child = Bun.spawn([...argv], {
      cwd: folder,
      stdin: "ignore",
      stdout: "ignore",
      stderr: Bun.file(join(folder, `${name}.log`)),
    });
    stack.defer(async () => {
      // Its state is thrown away: no need to let it save anything.
      child.kill("SIGKILL");
      await child.exited;
    });
    return child;
  };
  const children = [
    start(
      [
        programs.etcd,
        ...["--data-dir", join(folder, "etcd"), "--log-level", "warn", "--unsafe-no-fsync"],
        ...["--heartbeat-interval", "20", "--election-timeout", "200"],
        ...["--listen-client-urls", store, "--advertise-client-urls", store],
        ...["--listen-peer-urls", "http://127.0.0.1:0"],
      ],
      "etcd",
    ),
    start(
      [
        programs["kube-apiserver"],
        ...["--etcd-servers", store, "--bind-address", "127.0.0.1", "--secure-port", String(port)],
        // It writes a certificate for 127.0.0.1 there; endpoints on loopback are refused, hence no reconciler.
        ...["--cert-dir", pki, "--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none"],
        ...["--service-cluster-ip-range", "10.0.0.0/24"],
        ...["--token-auth-file", join(pki, "tokens.csv"), "--authorization-mode", authorization],
        ...["--service-account-issuer", "https://kubernetes.default.svc"],
        ...["--service-account-key-file", join(pki, "sa.key")],
        ...["--service-account-signing-key-file", join(pki, "sa.key")],
        ...["--enable-priority-and-fairness=false", "--profiling=false"],
        // A kubelet of a test listens on loopback only, which is no address that a node may have.
        ...["--kubelet-preferred-address-types", "Hostname,InternalIP"],
        // With the cache, a CRD that is deleted soon after it was made may take five minutes: "storage is (re)initializing".
        "--watch-cache=false",
      ],
      "kube-apiserver",
    ),
  ];
  // Ready, and past its own start: it makes the namespace "default" a moment later.
  for (const path of ["/readyz", "/api/v1/namespaces/default"]) {
    await waitForServer(children, {
      isUp: () => answers(`${server}${path}`),
      log: () => tails(folder, ["etcd", "kube-apiserver"]),
    });
  }
  const kubeconfig = join(folder, "kubeconfig");
  await Bun.write(kubeconfig, JSON.stringify(makeKubeconfig(server, join(pki, "apiserver.crt"))));
  const cache = join(folder, "cache");
  const closing = stack.move();
  const kubectl: ApiServer["kubectl"] = (args, { stdin } = {}) =>
    runToEnd([programs.kubectl, `--kubeconfig=${kubeconfig}`, `--cache-dir=${cache}`, ...args], {
      cwd: folder,
      env: process.env,
      ...(stdin === undefined ? {} : { stdin }),
    });
  return {
    url: server,
    token: TOKEN,
    folder,
    kubeconfig,
    kubectl,
    request: async (method, path, body) => {
      const response = await fetch(`${server}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${TOKEN}`,
          "content-type": method === "PATCH" ? "application/merge-patch+json" : "application/json",
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        tls: { rejectUnauthorized: false },
        keepalive: false,
      });
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
      return response.json();
    },
    setNodes: async (nodes) => {
      await kubectl(["delete", "nodes", "--all"]);
      if (nodes.length === 0) return;
      const items = nodes.map(makeNode);
      const { code, stderr } = await kubectl(["create", "-f", "-"], {
        stdin: JSON.stringify({ apiVersion: "v1", kind: "List", items }),
      });
      if (code !== 0) throw new Error(stderr);
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  };
}

function makeNode({ isCordoned, labels, name, platform, taints = [] }: TestNode, at: number): object {
  const [os = "", architecture = ""] = platform.split("/");
  const none = ["bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion"];
  const empty = [...none, "machineID", "osImage", "systemUUID"].map((key) => [key, ""]);
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: {
      name: name ?? `${os}-${architecture.replaceAll("_", "-")}-${at}`,
      labels: { "kubernetes.io/os": os, "kubernetes.io/arch": architecture, ...labels },
    },
    spec: {
      unschedulable: isCordoned === true,
      taints: taints.map((taint) => {
        const [, key, value = "", effect] = /^([^=:]+)(?:=(.*))?:(\w+)$/.exec(taint) ?? [];
        return { key, value, effect };
      }),
    },
    status: { nodeInfo: { ...Object.fromEntries(empty), operatingSystem: os, architecture } },
  };
}

async function answers(url: string): Promise<boolean> {
  return fetch(url, {
    headers: { authorization: `Bearer ${TOKEN}` },
    tls: { rejectUnauthorized: false },
    keepalive: false,
  }).then(
    ({ ok }) => ok,
    () => false,
  );
}

function tails(folder: string, names: readonly string[]): string {
  return names.map((name) => `${name}: ${readFileSync(join(folder, `${name}.log`), "utf8").slice(-1900)}`).join("\n");
}

/** JSON is YAML. */
function makeKubeconfig(server: string, authority: string): object {
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster: { server, "certificate-authority": authority } }],
    users: [{ name: "admin", user: { token: TOKEN } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "admin" } }],
    "current-context": "test",
  };
}

/** Says what there is, then nothing more until the client goes. */
function watch(events: readonly object[], gone: AbortSignal): Response {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      for (const event of events) controller.enqueue(new TextEncoder().encode(`${JSON.stringify(event)}\n`));
      gone.addEventListener("abort", () => controller.close(), { once: true });
    },
  });
  return new Response(body, { headers: { "content-type": "application/json" } });
}

function failure(code: number, reason: string): Response {
  const body = { kind: "Status", apiVersion: "v1", status: "Failure", message: reason, reason, code };
  return Response.json(body, { status: code });
}

function readPod(value: unknown): Pod {
  if (!isPod(value)) throw new TypeError("no Pod was sent");
  return value;
}

function isPod(value: unknown): value is Pod {
  return (
    typeof value === "object" &&
    value !== null &&
    "spec" in value &&
    "metadata" in value &&
    typeof value.metadata === "object" &&
    value.metadata !== null &&
    "name" in value.metadata
  );
}
