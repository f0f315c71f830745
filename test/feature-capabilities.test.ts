/**
 * `linux_capabilities` on their way to a file: the record in the layer is byte for byte the original's, and real readers of
 * each destination give the file its attribute.
 */
import { dlopen } from "bun:ffi";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { findCounterparts } from "./helpers/counterparts.ts";
import { viaSocket } from "./helpers/daemon-bench.ts";
import {
  type DaemonKind,
  SNAPSHOTTER,
  startContainerd,
  tryStartDaemon,
  whyNoContainerd,
  writeDocker,
} from "./helpers/daemon.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { pull, pullLayer, splitReference } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import type { Tree } from "./helpers/world-folders.ts";
import { output } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "ko", "skopeo", "umoci"]);
const canLoad = Bun.which("docker") !== null && process.getuid?.() === 0;
/** Milliseconds: daemons start, and go builds. */
const PATIENCE = 120_000;

/** `net_bind_service=ep`, as the kernel keeps it. */
const ATTRIBUTE = "0100000200040000000000000000000000000000";
const CONFIG = "builds:\n- main: ./cmd/web\n  linux_capabilities: [net_bind_service=ep]\n";
const FILES = { "go.mod": goMod("example.com/app"), "cmd/web/main.go": mainGo(), "cmd/plain/main.go": mainGo() };

const libc = canLoad
  ? dlopen("libc.so.6", { getxattr: { args: ["buffer", "buffer", "buffer", "usize"], returns: "i64" } })
  : undefined;

/** The attribute `security.capability` of a file, as the kernel has it; undefined if it has none. */
function readAttribute(path: string): string | undefined {
  const value = Buffer.alloc(64);
  const [file, name] = [path, "security.capability"].map((text) => Buffer.from(`${text}\0`));
  if (libc === undefined || file === undefined || name === undefined) throw new Error("no libc");
  const length = Number(libc.symbols.getxattr(file, name, value, value.byteLength));
  return length < 0 ? undefined : value.toString("hex", 0, length);
}

/** The attribute of `ko-app/web` in the tar of a layer or of a file system. */
function readRecord(tar: Uint8Array): string | undefined {
  const bytes = Buffer.from(tar);
  const key = "SCHILY.xattr.security.capability=";
  const at = bytes.indexOf(key);
  return at < 0 ? undefined : bytes.toString("hex", at + key.length, at + key.length + 20);
}

let registry: TestRegistry;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  if (programs !== undefined) registry = stack.use(await startRegistry());
});

afterAll(() => stack.disposeAsync());

function open(base = "ko.builtin/static"): Bench {
  return makeBench(FILES, { host: registry.host, config: `defaultBaseImage: ${base}\n${CONFIG}` });
}

async function run(bench: Bench, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const { code, stderr, stdout } = await bench.ours(["build", "-B", "./cmd/web", "--sbom=none", ...args], { env });
  if (code !== 0) throw new Error(stderr);
  return stdout.trim();
}

/** Unpacks an image of a layout as umoci does for a container, and reads the file's attribute. */
async function unpack(layout: string, work: Tree): Promise<string | undefined> {
  const bundle = work.at(`bundle-${crypto.randomUUID()}`);
  await output(["umoci", "unpack", "--image", layout, bundle], { cwd: work.path, env: process.env });
  return readAttribute(`${bundle}/rootfs/ko-app/web`);
}

describe.skipIf(programs === undefined)("linux_capabilities", () => {
  test(
    "are in the layer as the original writes them: every byte of the tar",
    async () => {
      using bench = open();
      const base = await run(bench, ["-t", "base"]);
      using other = open(base.replace(/@.*/, ""));
      const layer = async (reference: string): Promise<Buffer> => {
        const image = await pull(reference);
        const digest = image.kind === "image" ? (image.layers.at(-1)?.digest ?? "") : "";
        return Buffer.from(await pullLayer(splitReference(reference), digest));
      };
      const { code, stderr, stdout } = await other.original(programs?.ko ?? "", [
        ...["build", "-B", "--sbom=none", "-t", "theirs", "./cmd/web"],
      ]);
      if (code !== 0) throw new Error(stderr);
      const [theirs, ours] = [await layer(stdout.trim()), await layer(await run(other, ["-t", "ours"]))];
      expect(Buffer.compare(ours, theirs)).toBe(0);
      // The header of the record, the record, and the program.
      expect(theirs.toString("latin1", 512, 512 + 36)).toStartWith("/ko-app/PaxHeaders.0/web\0");
      expect(theirs.toString("latin1", 1024, 1024 + 36)).toBe("57 SCHILY.xattr.security.capability=");
      expect(readRecord(theirs)).toBe(ATTRIBUTE);
    },
    PATIENCE,
  );

  test(
    "are the file's in an image that skopeo copies and umoci unpacks: from a registry, a layout and an archive",
    async () => {
      using bench = open();
      const pushed = await run(bench, ["--oci-layout-path=layout", "--tarball=web.tar", "--oci-archive=web.oci.tar"]);
      const plain = await bench.ours(["build", "-B", "./cmd/plain", "--push=false", "--oci-layout-path=plain"]);
      expect(plain.code).toBe(0);
      const copies = {
        registry: ["--src-tls-verify=false", `docker://${pushed}`],
        layout: [`oci:${bench.tree.at("layout")}:${pushed.replace(/@.*/, ":latest")}`],
        tarball: [`docker-archive:${bench.tree.at("web.tar")}`],
        archive: [`oci-archive:${bench.tree.at("web.oci.tar")}`],
      };
      const found: Record<string, string | undefined> = {};
      for (const [name, source] of Object.entries(copies)) {
        const argv = ["skopeo", "copy", "--insecure-policy", ...source, `oci:${bench.work.at(name)}:x`];
        await output(argv, { cwd: bench.work.path, env: process.env });
        found[name] = await unpack(`${bench.work.at(name)}:x`, bench.work);
      }
      expect(found).toEqual({ registry: ATTRIBUTE, layout: ATTRIBUTE, tarball: ATTRIBUTE, archive: ATTRIBUTE });
    },
    PATIENCE,
  );

  test.skipIf(!canLoad).each<DaemonKind>(["classic", "containerd", "podman"])(
    "are in a container of the daemon %s: by -L and by docker load",
    async (kind) => {
      await using daemon = await tryStartDaemon(kind);
      if (daemon === undefined) return;
      using bench = open();
      const env = { ...bench.env, ...viaSocket(daemon.socket) };
      const docker = (...args: readonly string[]): Promise<string> =>
        output(["docker", ...args], { cwd: bench.work.path, env });
      const exported = async (reference: string): Promise<string | undefined> => {
        const container = (await docker("create", "--network=none", reference)).trim();
        await docker("export", "-o", bench.work.at("root.tar"), container);
        await docker("rm", container);
        return readRecord(await Bun.file(bench.work.at("root.tar")).bytes());
      };
      const direct = await exported(await run(bench, ["-L"], viaSocket(daemon.socket)));
      const name = await run(bench, ["-t", "tar", "--push=false", "--tarball=web.tar"]);
      await docker("load", "-i", bench.tree.at("web.tar"));
      expect([direct, await exported(name.replace(/@.*/, ""))]).toEqual([ATTRIBUTE, ATTRIBUTE]);
    },
    PATIENCE,
  );

  test.skipIf(whyNoContainerd() !== undefined)(
    "are the file's in the containerd of a node",
    async () => {
      using bench = open();
      await using node = await startContainerd();
      await writeDocker(bench.work, { "kind-control-plane": node });
      const labels = "io.x-k8s.kind.cluster=kind,io.x-k8s.kind.role=control-plane";
      const line = { Names: "kind-control-plane", Labels: labels, State: "running", Status: "Up 3 minutes" };
      bench.work.write({ ps: `${JSON.stringify(line)}\n` });
      const env = { KO_DOCKER_REPO: "kind.local", PATH: `${bench.work.at("bin")}:${process.env["PATH"]}` };
      const reference = await run(bench, [], env);
      const mount = bench.work.at("mount");
      mkdirSync(mount);
      await node.ctr("images", "mount", "--snapshotter", SNAPSHOTTER, reference, mount);
      try {
        expect(readAttribute(`${mount}/ko-app/web`)).toBe(ATTRIBUTE);
      } finally {
        await node.ctr("images", "unmount", "--rm", mount);
      }
    },
    PATIENCE,
  );
});
