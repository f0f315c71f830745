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
