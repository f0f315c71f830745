/**
 * `ko run` with the real kubectl on a real API server, which has no node: Pods are accepted and wait. The end
 * of a Pod is in kubectl.test.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { pull } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "etcd", "kube-apiserver", "kubectl"]);

const FILES = {
  "go.mod": goMod("example.com/app"),
  "cmd/one/main.go": mainGo(),
  "cmd/two/main.go": mainGo(),
  "lib/lib.go": "package lib\n",
};

describe.skipIf(programs === undefined)("ko run", () => {
  let registry: TestRegistry;
  let server: ApiServer;
  let bench: Bench;

  beforeAll(async () => {
    [registry, server] = await Promise.all([startRegistry(), startApiServer()]);
    bench = makeBench(FILES, { host: registry.host });
    // In a whole cluster a controller creates it; without it Pods are refused.
    await server.kubectl(["create", "serviceaccount", "default"]);
  });

  afterAll(async () => {
    bench?.[Symbol.dispose]();
    await server?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  const cluster = (): Record<string, string> => ({ KUBECONFIG: server.kubeconfig });

  test("creates a Pod of the image, with the words after -- as kubectl takes them", async () => {
    const args = ["run", "-q", "./cmd/one", "-n", "default", "--", "--attach=false", "--rm=false", "--env=A=b", "-o"];
    const words = ["yaml", "--", "--flag", "two words"];
    const { code, stdout, stderr } = await bench.ours([...args, ...words], { env: cluster() });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const pod: unknown = parse(stdout);
    expect(pod).toMatchObject({
      kind: "Pod",
      metadata: { namespace: "default" },
      spec: {
        restartPolicy: "Never",
        containers: [{ env: [{ name: "A", value: "b" }], args: ["--flag", "two words"] }],
      },
    });
    const image = /image: (\S+)/.exec(stdout)?.[1] ?? "";
    expect(image).toMatch(new RegExp(`^${bench.repository}/one-[0-9a-f]{32}@sha256:[0-9a-f]{64}$`));
    expect((await pull(image)).digest).toBe(image.replace(/^.*@/, ""));
  });

  test("a dry run with the real kubectl", async () => {
    const args = ["run", "-q", "./cmd/one", "--", "--dry-run=client", "-o", "yaml"];
    // As with the original: kubectl cannot attach to a Pod that it does not create.
    const attached = await bench.ours(args, { env: cluster() });
    expect({ code: attached.code, stdout: attached.stdout }).toEqual({ code: 1, stdout: "" });
    expect(attached.stderr).toStartWith("error: --dry-run=[server|client] can't be used with attached containers");
    expect(attached.stderr).not.toContain("Error:");
    const dry = await bench.ours([...args, "--attach=false", "--rm=false"], { env: cluster() });
    expect({ code: dry.code, stderr: dry.stderr }).toEqual({ code: 0, stderr: "" });
    expect(parse(dry.stdout)).toMatchObject({ kind: "Pod", spec: { restartPolicy: "Never" } });
    expect(dry.stdout).toContain(`image: ${bench.repository}/one-`);
  });

  test("Ctrl-C takes the Pod away", async () => {
    const running = bench.start(["run", "./cmd/two"], { env: cluster() });
    const two = async (): Promise<string> => {
      const { stdout } = await server.kubectl(["get", "pods", "-o", "name"]);
      return stdout.split("\n").find((line) => line.startsWith("pod/two-")) ?? "";
    };
    await waitUntil(async () => (await two()) !== "", running);
    process.kill(running.pid, "SIGINT");
    const { code, stderr } = await running.result;
    expect(code).toBe(130);
    expect(stderr).toContain("Error: interrupted by SIGINT\n");
    expect(await two()).toBe("");
  });

  test.each<[string, readonly string[], RegExp]>([
    ["no program", [], /^Error: Cannot run "ko run" without IMPORTPATH: /],
    ["two programs", ["./cmd/one", "./cmd/two"], /^Error: Cannot use "\.\/cmd\/two": /],
    ["a pattern of two", ["./cmd/..."], /^Error: Cannot run "\.\/cmd\/\.\.\.": it names 2 programs, one is wanted\n/],
  ])("%s: wrong usage", async (_what, words, message) => {
    const calls = bench.goCalls().filter((call) => call === "build").length;
    const { code, stdout, stderr } = await bench.ours(["run", ...words], { env: cluster() });
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(message);
    expect(bench.goCalls().filter((call) => call === "build")).toHaveLength(calls);
  });

  test("a kubectl of one's own gets the words one by one, and its exit code is ko's", async () => {
    const file = bench.work.at("argv");
    const env = bench.stubKubectl(`printf '%s\\n' "$@" > '${file}'; cat; exit 42`);
    const args = ["run", "-q", "./cmd/one", "--context=c", "--", "--env", "A=b c", "--", "-x"];
    expect(await bench.ours(args, { env, stdin: "typed" })).toEqual({ code: 42, stdout: "typed", stderr: "" });
    const words = readFileSync(file, "utf8").trimEnd().split("\n");
    expect(words.map((word) => word.replace(/^one-[0-9a-z]+$/, "POD").replace(/=127.*$/, "=IMAGE"))).toEqual([
      ...["run", "POD", "--image=IMAGE", "--attach", "--rm", "--restart=Never", "--log-flush-frequency=1s"],
      ...["--context=c", "--env", "A=b c", "--", "-x"],
    ]);
  });

  test("a Pod that cannot start ends the run with the reason, and is removed", async () => {
    const list = async (): Promise<string> => (await server.kubectl(["get", "pods", "--output=name"])).stdout;
    const running = bench.start(["run", "./cmd/two"], { env: cluster() });
    await waitUntil(async () => (await list()).includes("pod/two-"), running);
    const name = /pod\/two-\S+/.exec(await list())?.[0] ?? "";
    const waiting = { reason: "CreateContainerConfigError", message: 'secret "db" not found' };
    const container = {
      name: name.slice(4),
      image: "i",
      imageID: "",
      ready: false,
      restartCount: 0,
      state: { waiting },
    };
    const patch = JSON.stringify({ status: { containerStatuses: [container] } });
    const { code: patched } = await server.kubectl([
      "patch",
      name,
      "--subresource=status",
      "--type=merge",
      "-p",
      patch,
    ]);
    expect(patched).toBe(0);
    const { code, stderr } = await running.result;
    expect(code).toBe(1);
    expect(stderr).toContain(
      `Error: ${name} does not run: container ${name.slice(4)} cannot be made: secret "db" not found\n`,
    );
    await waitUntil(async () => !(await list()).includes(name));
  });
});
