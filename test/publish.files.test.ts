/**
 * `--tarball`, `--oci-archive` and `--oci-layout-path` of one run, read by docker, skopeo and umoci, beside the
 * original's tarball: one image ID everywhere.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { dirname } from "node:path";
import { findCounterparts } from "./helpers/counterparts.ts";
import { type TestDaemon, tryStartDaemon } from "./helpers/daemon.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Base, pushBases } from "./helpers/oracle-bases.ts";
import { digestOf } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { output } from "./helpers/world-programs.ts";

const FILES = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo(),
  "cmd/web/kodata/page": "hello\n",
  "cmd/job/main.go": mainGo("job"),
};

const programs = findCounterparts(["ko", "docker-registry", "skopeo", "umoci"]);

describe.skipIf(programs === undefined)("the files of one ko build", () => {
  const { ko, skopeo, umoci } = programs ?? { ko: "", skopeo: "", umoci: "" };
  const stack = new AsyncDisposableStack();
  let registry: TestRegistry;
  let base: Base;
  let bench: Bench;
  let daemon: TestDaemon | undefined;

  beforeAll(async () => {
    registry = stack.use(await startRegistry());
    base = (await pushBases(registry.host)).oci;
    bench = stack.use(makeBench(FILES, { host: registry.host, config: `defaultBaseImage: ${base.reference}\n` }));
    const files = ["--tarball=a.tar", "--oci-archive=oci.tar", "--oci-layout-path=layout"];
    const args = ["build", "-B", "--push=false", "-t", "v1,v2", ...files, "./cmd/web", "./cmd/job"];
    const { code, stderr } = await bench.ours(args, { env: { KO_DOCKER_REPO: "example.com/team" } });
    if (code !== 0) throw new Error(stderr);
    daemon = Bun.which("docker") === null ? undefined : await tryStartDaemon("classic");
    if (daemon !== undefined) stack.use(daemon);
  });
  afterAll(() => stack.disposeAsync());

  function run(...argv: readonly string[]): Promise<string> {
    return output(argv, { cwd: bench.tree.path, env: { ...process.env, TMPDIR: dirname(bench.work.at("x")) } });
  }

  /** The image ID: the digest of the configuration. */
  async function idOf(source: string): Promise<string> {
    return digestOf(new TextEncoder().encode(await run(skopeo, "inspect", "--config", "--raw", source)));
  }

  test.each(["web", "job"])("skopeo finds one image of %s in all of them, under both tags", async (name) => {
    const full = `example.com/team/${name}`;
    const ids = await Promise.all(
      ["v1", "v2"].flatMap((tag) => [
        idOf(`docker-archive:a.tar:${full}:${tag}`),
        idOf(`oci-archive:a.tar:${full}:${tag}`),
        idOf(`docker-archive:oci.tar:${full}:${tag}`),
        idOf(`oci-archive:oci.tar:${full}:${tag}`),
        idOf(`oci:layout:${full}:${tag}`),
      ]),
    );
    expect(new Set(ids).size).toBe(1);
  });

  test.each(["web", "job"])("docker has the same image of %s from each of them, and it runs", async (name) => {
    if (daemon === undefined) return;
    const docker = ["docker", "-H", `unix://${daemon.socket}`];
    const full = `example.com/team/${name}:v2`;
    const wanted = await idOf(`oci:layout:${full}`);
    for (const load of [
      [...docker, "load", "--input", "a.tar"],
      [...docker, "load", "--input", "oci.tar"],
      [skopeo, "copy", "--dest-daemon-host", `unix://${daemon.socket}`, `oci:layout:${full}`, `docker-daemon:${full}`],
    ]) {
      await run(...load);
      expect(await run(...docker, "image", "inspect", "--format={{.Id}}", full)).toBe(`${wanted}\n`);
      await run(...docker, "image", "rm", "--force", wanted);
    }
    await run(...docker, "load", "--input", "a.tar");
    const child = Bun.spawn([...docker, "run", "--rm", "--network=none", "--workdir=/", full], { stderr: "pipe" });
    expect([await child.stderr.text(), await child.exited]).toEqual([name === "web" ? "hello\n" : "job\n", 0]);
  });

  test("umoci unpacks the layout, and the archive as tar unpacks it, to the same files", async () => {
    bench.tree.write({ unpacked: null });
    await run("tar", "xf", "oci.tar", "-C", "unpacked");
    for (const layout of ["layout", "unpacked"]) {
      const bundle = `bundle-${layout}`;
      await run(umoci, "unpack", "--rootless", "--image", `${layout}:example.com/team/web:v1`, bundle);
      expect(await Bun.file(bench.tree.at(`${bundle}/rootfs/var/run/ko/page`)).text()).toBe("hello\n");
      expect(await Bun.file(bench.tree.at(`${bundle}/rootfs/ko-app/web`)).exists()).toBe(true);
    }
  });

  test("the original's tarball of the same program has the same image ID", async () => {
    const args = ["build", "--sbom=none", "-B", "--push=false", "--tarball=theirs.tar", "./cmd/web"];
    const { code, stderr } = await bench.original(ko, args, { env: { KO_DOCKER_REPO: "example.com/team" } });
    if (code !== 0) throw new Error(stderr);
    const full = "example.com/team/web";
    expect(await idOf(`docker-archive:a.tar:${full}:v1`)).toBe(await idOf(`docker-archive:theirs.tar:${full}:latest`));
  });

  test("no KO_DOCKER_REPO is needed; a name that is empty then is wrong usage", async () => {
    for (const flag of ["--tarball=none.tar", "--oci-archive=none.tar", "--oci-layout-path=none"]) {
      const args = ["build", "-q", "-B", flag, "./cmd/web"];
      const env = { KO_DOCKER_REPO: "" };
      const { code, stdout, stderr } = await bench.ours(args, { env });
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout).toMatch(/^(?:web|none)@sha256:\w{64}\n$/);
      const bare = await bench.ours(args.with(2, "--bare"), { env });
      expect({ code: bare.code, stdout: bare.stdout }).toEqual({ code: 2, stdout: "" });
      expect(bare.stderr).toStartWith('Error: Cannot name the image of example.com/app/cmd/web "": it is empty\n');
    }
  });
});
