/**
 * `ko apply` and `create` when something ends early: no kubectl, a kubectl that dies, a failing build, Ctrl-C at any
 * moment. kubectl is a script here, so that its behaviour can be chosen; the registry and Go are real.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { symlink } from "node:fs/promises";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, HELLO } from "./helpers/go.ts";
import { registrySuite, type Seen } from "./helpers/registry-fault-proxy.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { type Running, survivorsWith, waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry"]);

const YAML = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {image: ko://example.com/hello}\n";

/** Marks all processes of a run; each has one of its own. */
const MARK = "KO_TEST_MARK";

describe.skipIf(programs === undefined)("when something ends early", () => {
  const { proxy } = registrySuite();
  let bench: Bench;

  function openBench(files = HELLO): Bench {
    bench = makeBench(files, { host: proxy.host });
    bench.tree.write({ "a.yaml": YAML });
    bench.work.write({ tmp: null });
    return bench;
  }

  /** What the script `kubectl` noted in a file, or undefined. */
  function noted(name: string): string | undefined {
    return existsSync(bench.work.at(name)) ? readFileSync(bench.work.at(name), "utf8") : undefined;
  }

  test.each([["apply"], ["create"]])("ko %s without kubectl fails before anything is built", async (command) => {
    using _bench = openBench();
    bench.work.write({ path: null });
    await symlink(Bun.which("go") ?? "", bench.work.at("path/go"));
    expect(await bench.ours([command, "-f", "a.yaml"], { env: { PATH: bench.work.at("path") } })).toEqual({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^Error: Cannot find kubectl: it is not on PATH\n {2}\S.*\n$/),
    });
    expect({ go: bench.goCalls(), registry: proxy.log }).toEqual({ go: [], registry: [] });
  });

  test.each([
    ["small", ""],
    ["larger than any pipe", `---\napiVersion: v1\nkind: ConfigMap\ndata: {a: "${"x".repeat(1_000_000)}"}\n`],
  ])("a kubectl that ends without reading: its message and code, input %s", async (_size, more) => {
    using _bench = openBench();
    const env = bench.stubKubectl("echo 'error: no such cluster' >&2; exit 3");
    bench.tree.write({ "b.yaml": more });
    expect(await bench.ours(["apply", "-q", "-f", "a.yaml,b.yaml"], { env })).toEqual({
      code: 3,
      stdout: "",
      stderr: "error: no such cluster\n",
    });
  });

  test("a kubectl that a signal ended is told of", async () => {
    using _bench = openBench();
    const env = bench.stubKubectl("kill -KILL $$");
    expect(await bench.ours(["apply", "-q", "-f", "a.yaml"], { env })).toEqual({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^Error: Cannot run \S+\/kubectl: ended by SIGKILL\n$/),
    });
  });

  test("nothing reaches kubectl when a program does not compile", async () => {
    using _bench = openBench({
      "go.mod": goMod("example.com/hello"),
      "main.go": "package main\n\nfunc main() { x() }\n",
    });
    const env = bench.stubKubectl(`: > '${bench.work.at("started")}'; cat`);
    const result = await bench.ours(["apply", "-f", "a.yaml"], { env });
    expect(result).toMatchObject({ code: 1, stdout: "" });
    expect(result.stderr).toContain("main.go:3:15: undefined: x");
    expect(noted("started")).toBeUndefined();
  });

  test("kubectl gets one complete input, its words one by one", async () => {
    using _bench = openBench();
    const file = (name: string): string => `'${bench.work.at(name)}'`;
    const env = bench.stubKubectl(`printf '%s\\n' "$@" >> ${file("argv")}; cat > ${file("stdin")}; echo out; exit 7`);
    const flags = ["--as-group", "a", "--as=j d", "--as-group=b,c", "--insecure-skip-tls-verify", "-n", "x"];
    expect(await bench.ours(["apply", "-q", "-f", "a.yaml", ...flags, "--", "--prune", "-l", "a=b"], { env })).toEqual({
      code: 7,
      stdout: "out\n",
      stderr: "",
    });
    expect(noted("argv")?.trimEnd().split("\n")).toEqual([
      ...["apply", "-f", "-", "--as=j d", "--as-group=a", "--as-group=b,c"],
      ...["--insecure-skip-tls-verify=true", "--namespace=x", "--prune", "-l", "a=b"],
    ]);
    expect(noted("stdin")?.replace(/@sha256:[0-9a-f]{64}/, "@DIGEST")).toBe(
      YAML.replace("ko://example.com/hello", `${bench.repository}/hello-124ec4359fcc3b362d8aa16b0f28dd36@DIGEST`),
    );
  });

  describe.each([
    ["SIGINT" as const, 130],
    ["SIGTERM" as const, 143],
  ])("%s", (signal, code) => {
    describe.each([
      ["ko alone", false],
      ["ko and all it started, as a terminal does", true],
    ])("to %s", (_who, group) => {
      function interrupt({ pid }: Running): void {
        process.kill(group ? -pid : pid, signal);
      }

      async function expectQuietEnd(running: Running, mark: string): Promise<void> {
        expect(await running.result).toEqual({
          code,
          stdout: "",
          stderr: expect.stringMatching(new RegExp(`(^|\\n)Error: interrupted by ${signal}\\n$`)),
        });
        expect(await survivorsWith(MARK, mark)).toEqual([]);
        expect(readdirSync(bench.work.at("tmp"))).toEqual([]);
      }

      const environment = (mark: string): Record<string, string> => ({ [MARK]: mark, TMPDIR: bench.work.at("tmp") });

      test("in the middle of the build", async () => {
        using _bench = openBench();
        const mark = crypto.randomUUID();
        const building = bench.work.at("building");
        bench.work.write({
          "slow/go": {
            executable: `#!/bin/sh\n[ "$1" = build ] || exec '${bench.env["KO_GO_PATH"]}' "$@"\n: > '${building}'\nsleep 300 &\nwait\n`,
          },
        });
        const env = {
          ...environment(mark),
          ...bench.stubKubectl(`: > '${bench.work.at("started")}'; cat > /dev/null`),
          KO_GO_PATH: bench.work.at("slow/go"),
        };
        const running = bench.start(["apply", "-f", "a.yaml"], { env });
        await waitUntil(() => existsSync(building), running);
        interrupt(running);
        await expectQuietEnd(running, mark);
        expect(noted("started")).toBeUndefined();
        // Layers that need no compiler may be on their way; nothing that names them is.
        expect(proxy.seen.filter(isManifestPut)).toEqual([]);
      });

      test("in the middle of a push", async () => {
        using _bench = openBench();
        const mark = crypto.randomUUID();
        proxy.rules = [{ method: "PUT", path: /\/manifests\//, fault: { kind: "hang" } }];
        const env = {
          ...environment(mark),
          ...bench.stubKubectl(`: > '${bench.work.at("started")}'; cat > /dev/null`),
        };
        const running = bench.start(["apply", "-f", "a.yaml"], { env });
        await waitUntil(() => proxy.seen.some(isManifestPut), running);
        interrupt(running);
        await expectQuietEnd(running, mark);
        expect(noted("started")).toBeUndefined();
      });

      test("in the middle of kubectl", async () => {
        using _bench = openBench();
        const mark = crypto.randomUUID();
        const started = bench.work.at("started");
        const env = { ...environment(mark), ...bench.stubKubectl(`: > '${started}'; exec sleep 300`) };
        const running = bench.start(["apply", "-f", "a.yaml"], { env });
        await waitUntil(() => existsSync(started), running);
        interrupt(running);
        await expectQuietEnd(running, mark);
      });
    });
  });
});

function isManifestPut({ method, path }: Seen): boolean {
  return method === "PUT" && path.includes("/manifests/");
}
