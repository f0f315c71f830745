/**
 * For which platform `ko build -L` builds, and what it builds on: the daemon's own platform, of an index the one that
 * fits, and images that an earlier `ko build -L` made.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  type DockerBench,
  type Environment,
  makeDockerBench,
  startDockerProxy,
  viaSocket,
} from "./helpers/daemon-bench.ts";
import { type DaemonKind, type TestDaemon, tryStartDaemon } from "./helpers/daemon.ts";
import { pull } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry, whyNoRegistry } from "./helpers/registry.ts";

const HEX = "[0-9a-f]{64}";

const stack = new AsyncDisposableStack();
afterAll(() => stack.disposeAsync());
const daemons = new Map<DaemonKind, TestDaemon>();
if (Bun.which("docker") === null) {
  if (process.env["CI"]) throw new Error("docker is not installed");
  console.warn("skipped: docker is not installed");
} else {
  for (const kind of ["classic", "containerd"] as const) {
    const daemon = await tryStartDaemon(kind);
    if (daemon !== undefined) daemons.set(kind, stack.use(daemon));
  }
}
const classic = daemons.get("classic");
const socket = classic?.socket ?? "";
const here: Environment = viaSocket(socket);

let bench: DockerBench;
beforeAll(() => {
  bench = stack.use(makeDockerBench());
});

describe.skipIf(classic === undefined)("platforms of ko build -L", () => {
  test("of several, only the daemon's own is compiled and loaded, with a notice", async () => {
    const before = bench.goCalls().length;
    const { stdout, stderr } = await bench.ko(
      ["build", "-L", "--platform=linux/arm64,linux/amd64,linux/s390x", "./cmd/plain"],
      here,
    );
    const own = process.arch === "x64" ? "amd64" : process.arch;
    expect(stderr).toContain(
      `example.com/app/cmd/plain: of 3 platforms only linux/${own}, which the local target runs, is built\n`,
    );
    expect(await bench.platformOf(stdout.trim(), here)).toBe(`linux/${own}`);
    expect(
      bench
        .goCalls()
        .slice(before)
        .filter((word) => word === "build"),
    ).toHaveLength(1);
  });

  test("beside an archive of all of them the daemon gets its own", async () => {
    const file = bench.work.at("all.tar");
    const { stdout, stderr } = await bench.ko(
      ["build", "-L", "--oci-archive", file, "--platform=linux/arm64,linux/amd64", "./cmd/plain"],
      here,
    );
    expect(stderr).toMatch(/of 2 platforms only linux\/\w+ is loaded\n/);
    expect(stdout).toMatch(new RegExp(`^ko\\.local/example\\.com/app/cmd/plain:${HEX}\\n$`));
    expect(await bench.docker(["run", "--rm", "--network=none", stdout.trim()], here)).toBe("");
    const index = await new Bun.Archive(await Bun.file(file).bytes()).files("index.json");
    expect(await index.get("index.json")?.text()).toContain("application/vnd.oci.image.index.v1+json");
  });

  test.each([
    ["for the daemon alone", []],
    ["beside an archive", ["--oci-archive=several.tar"]],
  ])("several without the daemon's own are refused before anything is built: %s", async (_what, more) => {
    const before = bench.goCalls().length;
    const { code, stdout, stderr } = await bench.ours(
      ["build", "-q", "-L", ...more, "--platform=linux/s390x,linux/ppc64le", "./cmd/plain"],
      { env: here },
    );
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(
      /^Error: Cannot load example\.com\/app\/cmd\/plain: it is for linux\/ppc64le, linux\/s390x, the local target runs linux\/\w+\n {2}Add linux\/\w+ to --platform, or name one platform\.\n$/,
    );
    expect(bench.goCalls().slice(before)).not.toContain("build");
  });

  test("one that was asked for is loaded, whatever the daemon's own is", async () => {
    const { stdout } = await bench.ko(["build", "-L", "--platform=linux/s390x", "./cmd/plain"], here);
    expect(await bench.platformOf(stdout.trim(), here)).toBe("linux/s390x");
  });

  test("when nothing is said, it is the daemon's own", async () => {
    await using proxy = await startDockerProxy(socket);
    // The same daemon on another machine, as far as it says.
    proxy.changeVersion = (version) => version.replaceAll(/"Arch":"\w+"/g, '"Arch":"arm64"');
    const { stdout } = await bench.ko(["build", "-L", "./cmd/plain"], viaSocket(proxy.socket));
    expect(await bench.platformOf(stdout.trim(), here)).toBe("linux/arm64");
  });

  test("--tarball with two is refused before anything is built", async () => {
    const before = bench.goCalls().length;
    const args = ["build", "-q", "-L", "--tarball=x.tar", "--platform=linux/amd64,linux/arm64", "./cmd/plain"];
    expect(await bench.ours(args, { env: here })).toEqual({
      code: 2,
      stdout: "",
      stderr:
        "Error: Cannot write --tarball: example.com/app/cmd/plain has 2 platforms, a tarball holds one\n" +
        "  Use --oci-archive FILE, or --platform with one platform.\n",
    });
    expect(bench.goCalls().slice(before)).not.toContain("build");
  });
});

describe.skipIf(classic === undefined || whyNoRegistry() !== undefined)("a base that ko build -L made", () => {
  let registry: TestRegistry;
  beforeAll(async () => {
    registry = stack.use(await startRegistry());
  });

  test.each(["classic", "containerd"] as const)("is built on, for the daemon and for a registry: %s", async (kind) => {
    const daemon = daemons.get(kind);
    if (daemon === undefined) return;
    const env = viaSocket(daemon.socket);
    const base = (await bench.ko(["build", "-L", "-t", "base", "./cmd/reader"], env)).stdout.trim();
    const tagged = "ko.local/example.com/app/cmd/reader:base";
    const under = await bench.layersOf(base, env);
    for (const name of [base, tagged]) {
      const { stdout } = await bench.ko(["build", "-L", "./cmd/plain"], { ...env, KO_DEFAULTBASEIMAGE: name });
      const layers = await bench.layersOf(stdout.trim(), env);
      expect(layers.slice(0, under.length)).toEqual([...under]);
      // kodata and program.
      expect(layers).toHaveLength(under.length + 2);
      // What the base brings is there, and so is what was put on it.
      expect(await bench.runOutside(stdout.trim(), "/ko-app/reader", env)).toBe("it says hello\n");
      expect(await bench.runOutside(stdout.trim(), "/ko-app/plain", env)).toBe("");
    }
    const repository = `${registry.host}/on-${kind}`;
    const { stdout } = await bench.ko(["build", "./cmd/plain"], {
      ...env,
      KO_DEFAULTBASEIMAGE: base,
      KO_DOCKER_REPO: repository,
    });
    const pulled = await pull(stdout.trim());
    if (pulled.kind !== "image") throw new Error("an index");
    expect(pulled.layers.slice(0, under.length).map(({ diffId }) => diffId)).toEqual([...under]);
    // A classic store gives Docker's types.
    const types = pulled.text.match(/(?<="application\/)[^"]*(?:layer|diff)[^"]*(?=")/g) ?? [];
    expect(types.map((type) => type.replace(/^.*\.tar\W/, "tar "))).toEqual(pulled.layers.map(() => "tar gzip"));
  });

  test("that the daemon does not have is refused before anything is built", async () => {
    const before = bench.goCalls().length;
    const name = "ko.local/no/such:v1";
    const { code, stdout, stderr } = await bench.ours(["build", "-L", "./cmd/plain"], {
      env: { ...here, KO_DEFAULTBASEIMAGE: name },
    });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toStartWith(`Error: Cannot use base "${name}": the Docker daemon at "unix://`);
    expect(bench.goCalls().slice(before)).not.toContain("build");
  });
});
