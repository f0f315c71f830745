/**
 * How a build that fails half-way ends: one message, nothing after it, nothing left behind. Several layers are in the
 * making then, and each of them fails in its own time. The registry and Go are real.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, HELLO } from "./helpers/go.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { makeBench } from "./helpers/world-bench.ts";
import { ourCommand, waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry"]);

describe.skipIf(programs === undefined || process.platform !== "linux")("a build that fails", () => {
  let registry: TestRegistry;

  beforeAll(async () => {
    registry = await startRegistry();
  });

  afterAll(() => registry?.[Symbol.asyncDispose]());

  test("a kodata that cannot be packed is told once, and the other layers' failures are not", async () => {
    using bench = makeBench(HELLO, { host: registry.host });
    bench.tree.write({ kodata: null });
    bench.work.write({ tmp: null });
    expect(Bun.spawnSync(["mkfifo", bench.tree.at("kodata/pipe")]).exitCode).toBe(0);
    const result = await bench.ours(["build", "-q", "--platform=linux/amd64,linux/arm64"], {
      env: { TMPDIR: bench.work.at("tmp") },
    });
    expect(result).toEqual({
      code: 1,
      stdout: "",
      stderr: 'Error: Cannot pack "kodata/pipe": it is a fifo, wanted a file or a folder\n',
    });
    expect(readdirSync(bench.work.at("tmp"))).toEqual([]);
  });

  test("a full standard output is told once", async () => {
    using bench = makeBench(HELLO, { host: registry.host });
    const child = Bun.spawn([...ourCommand(), "build", "-q"], {
      cwd: bench.tree.path,
      env: { ...bench.env },
      stdin: "ignore",
      stdout: Bun.file("/dev/full"),
      stderr: "pipe",
    });
    const [code, stderr] = await Promise.all([child.exited, child.stderr.text()]);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: "Error: Cannot write to standard output: ENOSPC: no space left on device, write\n",
    });
  });

  test("a relative TMPDIR is the one below the working directory, for programs of nested modules too", async () => {
    using bench = makeBench(
      {
        ...HELLO,
        "nested/go.mod": goMod("example.com/hello/nested"),
        "nested/main.go": "package main\n\nfunc main() {}\n",
      },
      { host: registry.host },
    );
    bench.tree.write({ tmp: null });
    const result = await bench.ours(["build", "-q", "--push=false", ".", "./nested"], { env: { TMPDIR: "tmp" } });
    expect(result).toEqual({ code: 0, stdout: expect.stringMatching(/^\S+\n\S+\n$/), stderr: "" });
    expect(readdirSync(bench.tree.at("tmp"))).toEqual([]);
  });

  test("Ctrl-C in the middle of a real go build leaves nothing of go's behind", async () => {
    using bench = makeBench(HELLO, { host: registry.host });
    bench.work.write({ tmp: null });
    // An empty cache: go compiles the standard library, for many seconds.
    const env = { TMPDIR: bench.work.at("tmp"), GOCACHE: bench.work.at("go-cache") };
    const work = bench.work.at("cache/v1/work");
    const running = bench.start(["build"], { env });
    const compiles = (): boolean =>
      existsSync(work) && readdirSync(work, { recursive: true }).some((name) => /go-build\d+\/b\d+/.test(String(name)));
    await waitUntil(compiles, running);
    process.kill(running.pid, "SIGTERM");
    expect(await running.result).toMatchObject({ code: 143, stdout: "" });
    expect([...readdirSync(bench.work.at("tmp")), ...readdirSync(work)]).toEqual([]);
  });

  test("a default base that cannot be reached names the one that needs no network", async () => {
    using bench = makeBench(HELLO, { host: registry.host, config: "" });
    // A proxy that nobody listens at is a network that does not work, on every machine.
    const result = await bench.ours(["build", "-q"], {
      env: { HTTPS_PROXY: "http://127.0.0.1:1", NO_PROXY: "127.0.0.1" },
    });
    expect(result).toEqual({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(
        /^Error: Cannot read manifest "gcr\.io\/distroless\/static:nonroot": [^\n]+\n {2}[^\n]+export KO_DEFAULTBASEIMAGE=ko\.builtin\/static\n$/,
      ),
    });
  });
});
