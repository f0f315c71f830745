/**
 * `ko build --compression` with a real registry, a real daemon and strangers' readers: crane, skopeo, umoci, docker, gzip
 * and zstd. Whatever the compression, it is the same image: one configuration, one list of diffIDs.
 *
 * What the flag's words mean is in `cli-options.test.ts`, where it has no effect in `publish-destination.test.ts`.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { dirname } from "node:path";
import { findCounterparts } from "./helpers/counterparts.ts";
import { viaSocket } from "./helpers/daemon-bench.ts";
import { type TestDaemon, tryStartDaemon } from "./helpers/daemon.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Bases, pushBases } from "./helpers/oracle-bases.ts";
import { digestOf, pull, type PulledImage, pullLayer, readList, splitReference } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { output } from "./helpers/world-programs.ts";

const KINDS = ["gzip", "gzip:9", "zstd", "none"] as const;
type Kind = (typeof KINDS)[number];

const OCI = "application/vnd.oci.image.layer.v1.tar";
const DOCKER = "application/vnd.docker.image.rootfs.diff.tar";
const TYPES: Readonly<Record<Kind, string>> = {
  gzip: `${OCI}+gzip`,
  "gzip:9": `${OCI}+gzip`,
  zstd: `${OCI}+zstd`,
  none: OCI,
};

const FILES = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo(),
  // Over 4 MiB, so that workers take part.
  "cmd/web/kodata/page": Array.from({ length: 400_000 }, (_, i) => `line ${Math.imul(i, 2_654_435_761) >>> 8}\n`).join(
    "",
  ),
};

const programs = findCounterparts(["crane", "docker-registry", "skopeo", "umoci", "zstd"]);

describe.skipIf(programs === undefined)("ko build --compression", () => {
  const { crane, skopeo, umoci } = programs ?? { crane: "", skopeo: "", umoci: "" };
  const stack = new AsyncDisposableStack();
  let registry: TestRegistry;
  let bases: Bases;
  let bench: Bench;
  /** Docker 20.10, and a current one. */
  let daemon: TestDaemon | undefined;
  let current: TestDaemon | undefined;
  const pushed = new Map<string, string>();

  beforeAll(async () => {
    registry = stack.use(await startRegistry());
    bases = await pushBases(registry.host);
    bench = stack.use(makeBench(FILES, { host: registry.host }));
    if (Bun.which("docker") !== null) {
      [daemon, current] = await Promise.all([tryStartDaemon("classic"), tryStartDaemon("graph")]);
      for (const one of [daemon, current]) if (one !== undefined) stack.use(one);
    }
    for (const kind of KINDS) pushed.set(kind, await push(kind, "oci"));
  }, 120_000);
  afterAll(() => stack.disposeAsync());

  /** Pushes to a repository of its own. @returns the reference */
  async function push(kind: Kind | undefined, base: "oci" | "docker"): Promise<string> {
    const flags = kind === undefined ? [] : [`--compression=${kind}`];
    const { code, stdout, stderr } = await bench.ours(["build", "--bare", ...flags, "./cmd/web"], {
      env: { KO_DOCKER_REPO: repository(), KO_DEFAULTBASEIMAGE: bases[base].reference },
    });
    if (code !== 0) throw new Error(stderr);
    return stdout.trim();
  }

  function repository(): string {
    return `${registry.host}/app-${crypto.randomUUID()}`;
  }

  function run(...argv: readonly string[]): Promise<string> {
    return output(argv, { cwd: bench.tree.path, env: { ...process.env, TMPDIR: dirname(bench.work.at("x")) } });
  }

  async function imageOf(reference: string | undefined): Promise<PulledImage> {
    const image = await pull(reference ?? "");
    if (image.kind === "index") throw new Error(`${reference} is an index`);
    return image;
  }

  function imageAs(kind: Kind): Promise<PulledImage> {
    return imageOf(pushed.get(kind));
  }

  /** crane takes every layer for gzip when it validates content, and says so of the base's `plain-tar` too. */
  async function validate(reference: string, kind: Kind): Promise<void> {
    const depth = kind === "zstd" || kind === "none" ? ["--fast"] : [];
    await run(crane, "validate", "--insecure", ...depth, "--remote", reference);
    const archive = bench.work.at("exported.tar");
    await run(crane, "export", "--insecure", reference, archive);
    expect(await run("tar", "tf", archive)).toContain("\n/ko-app/web\n");
  }

  function layerTypes({ text }: PulledImage): readonly unknown[] {
    return readList(JSON.parse(text)["layers"]).map((layer) => layer["mediaType"]);
  }

  test.each(KINDS)("%s: layers of their type, that hold what their diffIDs say; crane finds no fault", async (kind) => {
    const reference = pushed.get(kind) ?? "";
    const image = await imageAs(kind);
    expect(layerTypes(image)).toEqual([TYPES.gzip, TYPES[kind], TYPES[kind]]);
    for (const { digest, diffId } of image.layers) {
      expect(digestOf(await pullLayer(splitReference(reference), digest))).toBe(diffId);
    }
    await validate(reference, kind);
  });

  test("is the same image each time: equal configurations, so equal diffIDs", async () => {
    const texts = await Promise.all(KINDS.map(async (kind) => (await imageAs(kind)).configText));
    expect(new Set(texts).size).toBe(1);
    const digests = await Promise.all(KINDS.map(async (kind) => (await imageAs(kind)).digest));
    expect(new Set(digests).size).toBe(KINDS.length);
  });

  test("takes less room the more it is asked to", async () => {
    const size = async (kind: Kind): Promise<number> => {
      return (await imageAs(kind)).layers.reduce((sum, layer) => sum + layer.size, 0);
    };
    const sizes = {
      fast: await size("gzip"),
      small: await size("gzip:9"),
      zstd: await size("zstd"),
      none: await size("none"),
    };
    expect(sizes.small).toBeLessThan(sizes.fast);
    expect(sizes.zstd).toBeLessThan(sizes.fast);
    expect(sizes.fast).toBeLessThan(sizes.none);
  });

  test.each(KINDS)("%s: the same bytes the second time", async (kind) => {
    expect((await imageOf(await push(kind, "oci"))).digest).toBe((await imageAs(kind)).digest);
  });

  test("is gzip:1 without the flag", async () => {
    expect((await imageOf(await push(undefined, "oci"))).digest).toBe((await imageAs("gzip")).digest);
  });

  test.each(KINDS)("%s: skopeo and umoci unpack it", async (kind) => {
    const name = kind.replace(":", "");
    // umoci 0.4 knows no zstd: skopeo makes gzip of it on the way.
    const format = kind === "zstd" ? ["--dest-compress-format=gzip", "--dest-compress"] : [];
    const from = `docker://${pushed.get(kind)}`;
    await run(skopeo, "copy", "--src-tls-verify=false", ...format, from, `oci:copy-${name}:v1`);
    await run(umoci, "unpack", "--rootless", "--image", `copy-${name}:v1`, `bundle-${name}`);
    const page = await Bun.file(bench.tree.at(`bundle-${name}/rootfs/var/run/ko/page`)).text();
    expect(page).toBe(FILES["cmd/web/kodata/page"]);
    expect(await Bun.file(bench.tree.at(`bundle-${name}/rootfs/ko-app/web`)).exists()).toBe(true);
  });

  test.each(KINDS)("%s: skopeo and docker read the files", async (kind) => {
    const name = `files-${kind.replace(":", "")}`;
    const files = [`--tarball=${name}.tar`, `--oci-archive=${name}.oci.tar`, `--oci-layout-path=${name}`];
    const args = ["build", "-B", "--push=false", `--compression=${kind}`, ...files, "./cmd/web"];
    const full = "example.com/team/web:latest";
    const env = { KO_DOCKER_REPO: "example.com/team", KO_DEFAULTBASEIMAGE: bases.oci.reference };
    const { code, stderr } = await bench.ours(args, { env });
    expect({ code, warns: stderr.includes("Warning: Docker before 23 cannot load") }).toEqual({
      code: 0,
      warns: kind === "zstd",
    });
    const { configText } = await imageAs(kind);
    for (const source of [
      `docker-archive:${name}.tar:${full}`,
      `oci-archive:${name}.oci.tar:${full}`,
      `oci:${name}:${full}`,
    ]) {
      expect(await run(skopeo, "inspect", "--config", "--raw", source)).toBe(configText);
    }
    const id = digestOf(new TextEncoder().encode(configText));
    for (const one of [daemon, current]) {
      if (one === undefined) continue;
      const docker = ["docker", "-H", `unix://${one.socket}`];
      const version = Number.parseInt(await run(...docker, "version", "--format={{.Server.Version}}"), 10);
      for (const file of [`${name}.tar`, `${name}.oci.tar`]) {
        const load = run(...docker, "load", "--input", file);
        if (kind === "zstd" && version < 23) {
          expect(String(await rejectionOf(load))).toContain("invalid tar header");
          continue;
        }
        await load;
        expect(await run(...docker, "image", "inspect", "--format={{.Id}}", full)).toBe(`${id}\n`);
        await run(...docker, "image", "rm", "--force", id);
      }
    }
  });

  test("has no effect on what a daemon gets, and says so", async () => {
    if (daemon === undefined) return;
    const env = { ...viaSocket(daemon.socket), KO_DEFAULTBASEIMAGE: "ko.builtin/static" };
    const warning = "Warning: --compression has no effect: local daemons and clusters take plain layers\n";
    const runs = [];
    for (const flags of [[], ["--compression=none"], ["--compression=zstd"]]) {
      const { code, stdout, stderr } = await bench.ours(["build", "-L", ...flags, "./cmd/web"], { env });
      runs.push({ code, stdout, warns: stderr.includes(warning) });
    }
    const [{ stdout } = { stdout: "" }] = runs;
    expect(runs).toEqual([false, false, true].map((warns) => ({ code: 0, stdout, warns })));
    expect(stdout).toStartWith("ko.local/example.com/app/cmd/web:");
  });

  describe("on a base with Docker media types", () => {
    test.each<[Kind, string]>([
      ["gzip", `${DOCKER}.gzip`],
      ["none", DOCKER],
    ])("%s stays in the family", async (kind, type) => {
      const reference = await push(kind, "docker");
      expect(layerTypes(await imageOf(reference))).toEqual([`${DOCKER}.gzip`, type, type]);
      await validate(reference, kind);
    });

    test.each(["docker", "list"] as const)("zstd is refused before anything is compiled: %s", async (name) => {
      const { reference, digest } = bases[name];
      const before = bench.goCalls().length;
      const { code, stdout, stderr } = await bench.ours(["build", "-q", "--compression=zstd", "./cmd/web"], {
        env: { KO_DOCKER_REPO: repository(), KO_DEFAULTBASEIMAGE: reference },
      });
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
      expect(stderr).toBe(
        `Error: Cannot use --compression=zstd on base "${reference}@${digest}": it has Docker media types, OCI ones are wanted\n` +
          "  Use --compression=gzip, or another base: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.\n",
      );
      expect(bench.goCalls().slice(before)).not.toContain("build");
    });
  });
});
