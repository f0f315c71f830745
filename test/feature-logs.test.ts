/**
 * `ko apply -W --logs` against a real API server and the real kubectl. The kubelet is the test: it serves logs as the real one
 * does, from the second of `sinceTime` on, of the current instance and of the one before.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { LogFollower } from "../lib/follow.ts";
import { isObject } from "../lib/json.ts";
import { silentLog } from "../lib/log.ts";
import { WatchedCluster } from "../lib/rollout-proxy.ts";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { makeCertificates } from "./helpers/daemon.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { startRegistry } from "./helpers/registry.ts";
import { makeBench } from "./helpers/world-bench.ts";
import { makeFolder, type Folder } from "./helpers/world-folders.ts";
import { hostAt, realHost } from "./helpers/world-host.ts";
import { survivorsWith, waitUntil } from "./helpers/world-programs.ts";
import { startWatching } from "./helpers/world-watch.ts";

const programs = findCounterparts(["etcd", "kube-apiserver", "kubectl", "docker-registry"]);

/** One run of a container. */
interface Instance {
  /** With their times. */
  readonly lines: { readonly at: bigint; readonly text: string }[];
  /** Text without a line end, behind the lines. */
  rest: string;
  isOver: boolean;
}

/** A log that is being followed. */
interface Connection {
  readonly wake: () => void;
  readonly endInLine: () => void;
}

/** A container on the kubelet: the current instance is the last one, and the node keeps the one before it. */
class Container {
  readonly instances: Instance[] = [];
  readonly connections = new Set<Connection>();
  requests = 0;
  /** Nanoseconds. */
  #now = BigInt(Date.now()) * 1_000_000n;

  start(): void {
    for (const instance of this.instances) instance.isOver = true;
    this.instances.push({ lines: [], rest: "", isOver: false });
    this.#wake();
  }

  /** @param step nanoseconds between two lines; 0 gives all the same time */
  print(texts: readonly string[], step = 100_000n): void {
    const instance = this.instances.at(-1);
    for (const text of texts) instance?.lines.push({ at: (this.#now += step), text });
    this.#wake();
  }

  end(rest = ""): void {
    const instance = this.instances.at(-1);
    if (instance !== undefined) Object.assign(instance, { rest, isOver: true });
    this.#wake();
  }

  /** Ends the answers within a line, as a kubelet does that is stopped. */
  endInLine(): void {
    for (const { endInLine } of this.connections) endInLine();
  }

  #wake(): void {
    for (const { wake } of this.connections) wake();
  }

  serve(query: URLSearchParams): Response {
    this.requests += 1;
    const instance = this.instances.at(query.get("previous") === "true" ? -2 : -1);
    const [none] = this.instances;
    if (
      instance === undefined ||
      (query.get("previous") === "true" && this.instances.length < 2) ||
      none === undefined
    ) {
      return new Response("no such container", { status: 400 });
    }
    const since = query.get("sinceTime");
    // To the second, as the API server hands it on.
    const from = since === null ? 0n : BigInt(Math.floor(Date.parse(since) / 1000)) * 1_000_000_000n;
    const encoder = new TextEncoder();
    const at = (time: bigint): string =>
      `${new Date(Number(time / 1_000_000n)).toISOString().slice(0, 19)}.${String(time % 1_000_000_000n).padStart(9, "0")}Z`;
    let next = 0;
    let connection: Connection | undefined;
    const close = (): void => {
      if (connection !== undefined) this.connections.delete(connection);
    };
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        const send = (): void => {
          const lines = instance.lines.slice(next);
          next = instance.lines.length;
          const text = lines.flatMap((line) => (line.at < from ? [] : [`${at(line.at)} ${line.text}\n`])).join("");
          const isOver = instance.isOver || query.get("follow") !== "true";
          const rest = isOver && instance.rest !== "" ? `${at(this.#now + 1n)} ${instance.rest}` : "";
          if (text + rest !== "") controller.enqueue(encoder.encode(text + rest));
          if (!isOver) return;
          close();
          controller.close();
        };
        connection = {
          wake: send,
          endInLine: () => {
            close();
            controller.enqueue(encoder.encode(`${at(this.#now + 1n)} ha`));
            controller.close();
          },
        };
        this.connections.add(connection);
        send();
      },
      cancel: close,
    });
    return new Response(body);
  }
}

interface Stored {
  readonly metadata: { readonly uid: string; readonly name: string };
}

function isStored(value: unknown): value is Stored {
  return isObject(value) && isObject(value["metadata"]) && typeof value["metadata"]["name"] === "string";
}

const REFERENCE = "registry/web@sha256:1";

function deployment(name: string, image = REFERENCE): string {
  const template = `{metadata: {labels: {app: ${name}}}, spec: {containers: [{name: c, image: "${image}"}]}}`;
  return `apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: ${name}}\nspec: {selector: {matchLabels: {app: ${name}}}, template: ${template}}\n`;
}

describe.skipIf(programs === undefined)("the logs of a watch", () => {
  let server: ApiServer;
  let folder: Folder;
  let kubelet: Bun.Server<undefined>;
  /** Between the API server and the kubelet. */
  let wire: Server;
  const sockets = new Set<Socket>();
  const containers = new Map<string, Container>();
  const followers = new AsyncDisposableStack();
  let names = 0;

  beforeAll(async () => {
    [server, folder] = await Promise.all([startApiServer({ authorization: "RBAC" }), makeFolder()]);
    const { server: certificates } = await makeCertificates(folder.path);
    const read = (name: string): string => readFileSync(join(certificates, name), "utf8");
    kubelet = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      tls: { cert: read("cert.pem"), key: read("key.pem") },
      fetch: (request) => {
        const { pathname, searchParams } = new URL(request.url);
        const container = containers.get(pathname.split("/").slice(3).join("/"));
        return container?.serve(searchParams) ?? new Response("no such Pod", { status: 404 });
      },
    });
    wire = createServer((socket) => {
      const onward = connect(kubelet.port ?? 0, "127.0.0.1");
      for (const each of [socket, onward]) {
        sockets.add(each);
        each.on("error", () => {});
        each.on("close", () => sockets.delete(each));
      }
      socket.pipe(onward).pipe(socket);
    });
    await new Promise<void>((resolve) => wire.listen(0, "127.0.0.1", resolve));
    const address = wire.address();
    const port = typeof address === "object" ? address?.port : undefined;
    await api("POST", "/api/v1/namespaces/default/serviceaccounts", { metadata: { name: "default" } });
    await server.setNodes([{ platform: "linux/amd64", name: "node" }]);
    await api("PATCH", "/api/v1/nodes/node/status", {
      status: {
        addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
        daemonEndpoints: { kubeletEndpoint: { Port: port } },
      },
    });
  });

  afterEach(async () => {
    for (const container of containers.values()) container.end();
  });

  afterAll(async () => {
    await followers.disposeAsync();
    wire?.close();
    cut();
    await kubelet?.stop(true);
    await folder?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  /** Cuts all connections to the kubelet. */
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };

  async function api(method: string, path: string, body?: unknown): Promise<Stored> {
    const stored = await server.request(method, path, body);
    if (!isStored(stored)) throw new Error(`${path}: ${JSON.stringify(stored)}`);
    return stored;
  }

  const podPath = (pod: string): string => `/api/v1/namespaces/default/pods/${pod}`;

  const status = (pod: string, state: object, more: object = {}): Promise<Stored> => {
    const containerStatuses = [
      { name: "c", image: "i", imageID: "", ready: true, restartCount: 0, containerID: "x://0", state, ...more },
    ];
    return api("PATCH", `${podPath(pod)}/status`, { status: { phase: "Running", containerStatuses } });
  };

  const RUNNING = { running: { startedAt: null } };

  /** Makes a Pod with one container, which runs. */
  async function run(pod: string, app: string, image = REFERENCE, owners: readonly object[] = []): Promise<Container> {
    const container = new Container();
    container.start();
    containers.set(`${pod}/c`, container);
    await api("POST", "/api/v1/namespaces/default/pods", {
      metadata: { name: pod, labels: { app, "pod-template-hash": "1" }, ownerReferences: owners },
      spec: { nodeName: "node", terminationGracePeriodSeconds: 0, containers: [{ name: "c", image }] },
    });
    await status(pod, RUNNING);
    return container;
  }

  interface Following {
    /** What was printed, line by line. */
    readonly lines: string[];
    readonly warnings: string[];
    readonly follow: (text: string) => void;
  }

  function follow(yaml: string, words: readonly string[] = []): Following {
    const host = hostAt(folder.path, { env: { ...realHost.env, KUBECONFIG: server.kubeconfig } });
    const cluster = followers.use(new WatchedCluster({ host, words }));
    const follower = followers.use(new LogFollower({ host, cluster }));
    const [lines, warnings]: [string[], string[]] = [[], []];
    follower.know(REFERENCE, "example.com/cmd/web");
    const log = { ...silentLog, warn: (line: string) => void warnings.push(line) };
    const showLogs = async (text: string): Promise<void> => {
      for (const line of text.replace(/\n$/, "").split("\n")) lines.push(line);
    };
    const more = (text: string): void => follower.follow({ text, said: "", log, showLogs });
    more(yaml);
    return { lines, warnings, follow: more };
  }

  const numbered = (from: number, count: number): readonly string[] =>
    Array.from({ length: count }, (_, i) => `line ${from + i}`);
  const printed = (count: number): readonly string[] => numbered(0, count).map((line) => `web │ ${line}`);

  /** Waits for so many lines, and compares all of them. */
  async function expectLines({ lines }: Following, wanted: readonly string[]): Promise<void> {
    await waitUntil(() => lines.length >= wanted.length);
    expect(lines).toEqual([...wanted]);
  }

  test("100 cut connections: each line once, in order", async () => {
    const name = `cut${names++}`;
    const following = follow(deployment(name));
    const container = await run(`${name}-a`, name);
    let count = 0;
    for (let i = 0; i < 100; i++) {
      await waitUntil(() => container.connections.size > 0);
      container.print(numbered(count, 20), i % 3 === 0 ? 0n : 300_000_000n / 20n);
      if (i % 2 === 0) cut();
      else container.endInLine();
      container.print(numbered(count + 20, 5));
      count += 25;
    }
    await expectLines(following, printed(count));
  });

  test("50 restarts, with cuts and late statuses: each line once, in order", async () => {
    const name = `restart${names++}`;
    const following = follow(deployment(name));
    const container = await run(`${name}-a`, name);
    let count = 0;
    const print = (more: number): void => {
      container.print(numbered(count, more));
      count += more;
    };
    for (let i = 1; i <= 50; i++) {
      print(5);
      if (i % 2 === 0) cut();
      print(3);
      // The last words have no line end.
      container.end(`line ${count}`);
      count += 1;
      container.start();
      if (i % 3 > 0) print(2);
      const lastState = { terminated: { exitCode: 1, containerID: `x://${i - 1}`, startedAt: null, finishedAt: null } };
      await status(`${name}-a`, RUNNING, { restartCount: i, containerID: `x://${i}`, lastState });
      await waitUntil(() => following.lines.length >= count);
    }
    await expectLines(following, printed(count));
  });

  test("10,000 lines per second for 5 s, with a cut in each: each line once, in order", async () => {
    const name = `quick${names++}`;
    const following = follow(deployment(name));
    const container = await run(`${name}-a`, name);
    let count = 0;
    const started = performance.now();
    await waitUntil(() => {
      const due = Math.min(50_000, Math.floor((performance.now() - started) * 10));
      const before = Math.floor(count / 10_000);
      container.print(numbered(count, due - count));
      count = due;
      if (Math.floor(count / 10_000) > before) cut();
      return count === 50_000;
    });
    await expectLines(following, printed(count));
  });

  test("the last lines of an old Pod, and numbers for several replicas", async () => {
    const name = `roll${names++}`;
    const following = follow(deployment(name));
    const old = await run(`${name}-a`, name);
    old.print(["starting"]);
    await waitUntil(() => following.lines.length === 1);
    const second = await run(`${name}-b`, name);
    second.print(["hello"]);
    await waitUntil(() => following.lines.length === 2);
    await api("DELETE", podPath(`${name}-a`));
    old.print(["stopping"]);
    old.end("stopped");
    await expectLines(following, ["web │ starting", "web/2 │ hello", "web/1 │ stopping", "web/1 │ stopped"]);
  });

  test("a Pod that takes the place of another with the same name, and a log that is rotated", async () => {
    const name = `place${names++}`;
    const following = follow(deployment(name));
    const first = await run(`${name}-0`, name);
    first.print(["one", "two"]);
    await waitUntil(() => following.lines.length === 2);
    await api("DELETE", podPath(`${name}-0`));
    first.print(["last"]);
    first.end();
    const second = await run(`${name}-0`, name);
    second.print(["one", "two"]);
    await waitUntil(() => following.lines.length === 5);
    // The node keeps the newest lines only.
    second.instances.at(-1)?.lines.splice(0, 1);
    cut();
    second.print(["three"]);
    const wanted = ["one", "two", "last", "one", "two", "three"];
    await expectLines(
      following,
      wanted.map((line) => `web │ ${line}`),
    );
  });

  test("Jobs one after the other, more than are watched at once: each line once, also when a Pod changes later", async () => {
    const name = `jobs${names++}`;
    const following = follow("");
    const wanted: string[] = [];
    for (let i = 0; i < 55; i++) {
      const pod = `${name}-${i}`;
      const container = await run(pod, name);
      container.print([`${i} starts`]);
      container.end(`${i} ends`);
      wanted.push(`web │ ${i} starts`, `web │ ${i} ends`);
      following.follow(`{apiVersion: v1, kind: Pod, metadata: {name: ${pod}}}`);
      const terminated = { exitCode: 0, startedAt: null, finishedAt: null };
      await api("PATCH", `${podPath(pod)}/status`, { status: { phase: "Succeeded" } });
      await status(pod, { terminated });
      await api("PATCH", `${podPath(pod)}/status`, { status: { phase: "Succeeded" } });
      await waitUntil(() => following.lines.length >= wanted.length);
      await api("PATCH", podPath(pod), { metadata: { labels: { later: "yes" } } });
    }
    // Two that overlap have the names of their objects.
    const texts = (lines: readonly string[]): readonly string[] => lines.map((line) => line.replace(/^.* │ /, ""));
    expect(texts(following.lines)).toEqual(texts(wanted));
  });

  test("kubectl proxy that is ended is started again, and each line comes once", async () => {
    const name = `proxy${names++}`;
    const following = follow(deployment(name));
    const container = await run(`${name}-a`, name);
    for (let i = 0; i < 3; i++) {
      container.print(numbered(i * 10, 10));
      await waitUntil(() => following.lines.length === i * 10 + 10);
      const pattern = "proxy --unix-socket=";
      const found = Bun.spawnSync(["pgrep", "-P", String(process.pid), "-f", pattern])
        .stdout.toString()
        .trim();
      for (const pid of found.split("\n")) process.kill(Number(pid), "SIGKILL");
    }
    await run(`${name}-b`, `${name}-foreign`);
    container.print(numbered(30, 1));
    await expectLines(following, printed(31));
  });

  test("control characters, escapes, long lines and bytes that are no text are harmless", async () => {
    const name = `odd${names++}`;
    const following = follow(deployment(name));
    const container = await run(`${name}-a`, name);
    container.print([
      "\u001b[31mred\u001b[0m \u001b]0;title\u0007done\u001b[2J",
      "a\tb\u0007\r",
      "\u001b]52;c;unended",
      "\u202eturned",
      "x".repeat(20_000),
      "",
      "é".repeat(10_000),
    ]);
    await expectLines(following, [
      "web │ red done",
      "web │ a\tb\\x07",
      "web │ \\x1b]52;c;unended",
      "web │ U+202Eturned",
      `web │ ${"x".repeat(16 * 1024)}…`,
      "web │ ",
      `web │ ${"é".repeat(8 * 1024)}…`,
    ]);
  });

  test("of a Pod that is older than the watch, its new lines; of images that are not of ko, none", async () => {
    const name = `old${names++}`;
    const foreign = await run(`${name}-foreign`, name, "other/image");
    foreign.print(["foreign"]);
    const pod = await run(`${name}-a`, name, "registry/web@sha256:old");
    const made = Date.now();
    const day = 86_400_000_000_000n;
    pod.print(["yesterday"], -day);
    // The API server gives times to the second.
    await waitUntil(() => Date.now() - made > 2000);
    const following = follow(deployment(name));
    pod.print(["new"], day + 2_500_000_000n);
    await expectLines(following, ["web │ new"]);
    expect(foreign.requests).toBe(0);
  });

  test("without the right to read logs, or Pods, it is one sentence", async () => {
    const name = `forbidden${names++}`;
    const rule = { apiGroups: [""], resources: ["pods"], verbs: ["list", "watch"] };
    await api("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", { metadata: { name: "see" }, rules: [rule] });
    await api("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
      metadata: { name: "see" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "see" },
      subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "sees" }],
    });
    await run(`${name}-a`, name);
    await run(`${name}-b`, name);
    const sees = follow(deployment(name), ["--as=sees"]);
    const blind = follow(`${deployment(name)}---\n${deployment("more")}`, ["--as=blind"]);
    await waitUntil(() => sees.warnings.length > 0 && blind.warnings.length > 0);
    expect(sees.warnings).toEqual([
      expect.stringMatching(/^Cannot show logs: pods "\S+" is forbidden: User "sees" cannot get resource "pods\/log"/),
    ]);
    expect(blind.warnings).toEqual([
      expect.stringMatching(/^Cannot show logs: pods is forbidden: User "blind" cannot list resource "pods"/),
    ]);
  });

  test("ko apply -W --logs: lines of rounds and of programs, none of them in the events, and an end at once", async () => {
    await using registry = await startRegistry();
    using bench = makeBench(
      {
        "go.mod": goMod("example.com/web"),
        "main.go": mainGo(),
        "web.yaml": deployment("whole", "ko://example.com/web"),
      },
      { host: registry.host },
    );
    const work = bench.work.at("");
    await using watching = startWatching(
      bench,
      ["apply", "-W", "--logs", "-q", "-f", "web.yaml", "--events", join(work, "events.json")],
      { env: { KUBECONFIG: server.kubeconfig, TMPDIR: work } },
    );
    const { running } = watching;
    await waitUntil(() => existsSync(join(work, "events.json")) && running.stdout().includes("created"), running);
    const { stdout } = await server.kubectl(["get", "deployment/whole", "-o=jsonpath={..image}"]);
    const container = await run("whole-a", "whole", stdout.trim());
    container.print(["hello", "\u001b[1mbold"]);
    await watching.said(/^web │ hello\nweb │ bold\n/m);
    const before = performance.now();
    const { code } = await watching.end("SIGINT");
    expect(code).toBe(130);
    expect(performance.now() - before).toBeLessThan(1500);
    expect(readFileSync(join(work, "events.json"), "utf8")).not.toContain("hello");
    expect(readdirSync(work).filter((name) => name.startsWith("ko-api-"))).toEqual([]);
    expect(await survivorsWith("TMPDIR", work)).toEqual([]);
  });

  test("ko apply -W --logs --swap: the last lines of each old program and all of the new one, once, in order", async () => {
    await using registry = await startRegistry();
    const name = `swap${names++}`;
    const pod = `${name}-a`;
    const yaml = deployment(name, "ko://example.com/web").replace("kind: Deployment", "kind: DaemonSet");
    using bench = makeBench(
      { "go.mod": goMod("example.com/web"), "main.go": mainGo("0"), "web.yaml": yaml },
      { host: registry.host },
    );
    await using watching = startWatching(bench, ["apply", "-W", "--logs", "--swap", "-f", "web.yaml"], {
      env: { KUBECONFIG: server.kubeconfig },
    });
    await watching.round();
    const imageOf = async (resource: string): Promise<string> =>
      (await server.kubectl(["get", resource, "-o=jsonpath={..containers[0].image}"])).stdout.trim();
    const { metadata } = await api("GET", `/apis/apps/v1/namespaces/default/daemonsets/${name}`);
    const owner = { apiVersion: "apps/v1", kind: "DaemonSet", name, uid: metadata.uid, controller: true };
    const container = await run(pod, name, await imageOf(`daemonset/${name}`), [owner]);
    let count = 0;
    const print = (): void => {
      container.print(numbered(count, 20));
      count += 20;
    };
    print();
    await watching.said(/^web │ line 19$/m);
    for (let round = 1; round <= 5; round++) {
      const before = await imageOf(`pod/${pod}`);
      bench.tree.write({ "main.go": mainGo(`${round}`) });
      await watching.said(/swapped the program in 1 Pod/);
      expect(await imageOf(`pod/${pod}`)).not.toBe(before);
      // As kubelet does it: the old program has its last words, and the new one writes before the status tells of it.
      print();
      container.end();
      container.start();
      print();
      await status(pod, RUNNING, { restartCount: round, containerID: `x://${round}` });
      await watching.said(/: new program in 1 Pod after/);
    }
    await waitUntil(() => watching.running.stderr().includes(`web │ line ${count - 1}\n`), watching.running);
    const { code, stderr } = await watching.end("SIGINT");
    expect(code).toBe(130);
    expect([...(stderr.match(/^web │ .*$/gm) ?? [])]).toEqual([...printed(count)]);
    expect(stderr).not.toContain("Cannot");
  });

  test.each([
    [["apply", "--logs", "-f", "x.yaml"], 'Cannot use --logs without --watch: "ko apply" ends when kubectl has ended'],
    [
      ["create", "--logs", "-f", "x.yaml"],
      'Cannot use --logs without --watch: "ko create" ends when kubectl has ended',
    ],
    [["resolve", "-W", "--logs", "-f", "x.yaml"], 'Cannot use --logs: "ko resolve" has no such flag'],
    [
      ["apply", "-W", "--logs", "-f", "x.yaml", "--", "--dry-run=server"],
      "Cannot use --logs with --dry-run: nothing is started",
    ],
  ])("ko %p is wrong usage", async (args, message) => {
    using bench = makeBench({ "go.mod": goMod("example.com/web") }, { host: "127.0.0.1:1" });
    const { code, stderr } = await bench.ours(args, { env: { KUBECONFIG: server.kubeconfig } });
    expect(code).toBe(2);
    expect(stderr).toContain(`Error: ${message}\n`);
  });
});
