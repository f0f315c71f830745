import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { DockerEngine } from "../lib/docker.ts";
import { socketEndpoint } from "../lib/docker-host.ts";
import { loadImage } from "../lib/publish-local.ts";
import { describeError, KoError } from "../lib/errors.ts";
import type { Image, Layer } from "../lib/image.ts";
import { silentLog } from "../lib/log.ts";
import { type Digest, digestOf, hexOf, verified } from "../lib/oci.ts";
import { packTar, type TarEntry } from "../lib/tar.ts";
import { startDockerProxy } from "./helpers/daemon-bench.ts";
import { type DaemonKind, type TestDaemon, tryStartDaemon } from "./helpers/daemon.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { makeImage, makeLayer, randomBytes, randomImage } from "./helpers/images.ts";
import { makeFolder } from "./helpers/world-folders.ts";

const stack = new AsyncDisposableStack();
afterAll(() => stack.disposeAsync());
const daemons = new Map<DaemonKind, TestDaemon>();
for (const kind of ["classic", "graph", "containerd", "podman"] as const) {
  const daemon = await tryStartDaemon(kind);
  if (daemon !== undefined) daemons.set(kind, stack.use(daemon));
}
const signal = new AbortController().signal;

function openEngine(socket: string, run: AbortSignal = signal): Promise<DockerEngine> {
  return DockerEngine.open(socketEndpoint(socket, { source: "the test" }), { log: silentLog, signal: run });
}

/** An uncompressed layer, as a build makes it for a daemon. */
async function plainLayer(entries: readonly TarEntry[]): Promise<Layer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of packTar(entries, { signal })) chunks.push(chunk);
  const tar = new Uint8Array(Buffer.concat(chunks));
  const digest = digestOf(tar);
  const descriptor = { mediaType: "application/vnd.oci.image.layer.v1.tar", size: tar.byteLength, digest };
  const open = async function* (): AsyncGenerator<Uint8Array, void, void> {
    for (let at = 0; at < tar.byteLength; at += 65536) yield tar.subarray(at, at + 65536);
  };
  return { descriptor, diffId: digest, open: () => verified(open(), descriptor, "a layer") };
}

interface AppOptions {
  readonly seed: string;
  /** What the program's layer holds; other text, other layer. */
  readonly program: string;
  readonly size?: number;
}

/** A gzip base layer, and uncompressed layers of data and program. */
async function makeApp({ seed, program, size = 5000 }: AppOptions): Promise<Image> {
  const file = (name: string, content: Uint8Array): TarEntry[] => [
    { name, type: "file", mode: 0o755, mtime: 0, size: content.byteLength, content },
  ];
  const layers = [
    await makeLayer(file("base", randomBytes(`${seed} base`, 200_000))),
    await plainLayer(file("data", randomBytes(`${seed} data`, 3000))),
    await plainLayer(file("program", randomBytes(`${seed} ${program}`, size))),
  ];
  const config = {
    architecture: "amd64",
    os: "linux",
    created: "2020-01-02T03:04:05Z",
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
    config: { Entrypoint: ["/program"] },
  };
  return makeImage({ config, layers, format: "oci", annotations: {} });
}

function contentName(name: string, image: Image): string {
  return `${name}:${hexOf(image.descriptor.digest)}`;
}

/** What the tar of a load holds, by layer of the image: true where its bytes were sent. */
function layersIn(files: Readonly<Record<string, number>>, image: Image): readonly boolean[] {
  return image.layers.map(({ descriptor }) => `blobs/sha256/${hexOf(descriptor.digest)}` in files);
}

describe.each(["classic", "graph", "containerd", "podman"] as const)("loadImage() into a real daemon: %s", (kind) => {
  const daemon = daemons.get(kind);
  const socket = daemon?.socket ?? "";
  const store = kind === "graph" ? "classic" : kind;
  const itsId = (image: Image): Digest =>
    kind === "containerd" ? image.descriptor.digest : image.manifest.config.digest;

  test.skipIf(daemon === undefined)("loads under all names, then only tags", async () => {
    await using proxy = await startDockerProxy(socket);
    await using engine = await openEngine(proxy.socket);
    const image = await makeApp({ seed: "names", program: "1" });
    const content = contentName("ko.local/example.com/names", image);
    const names = [content, "ko.local/example.com/names:latest", "index.docker.io/library/names:v1"];
    expect(await engine.storeKind()).toBe(store);
    expect(await loadImage(engine, image, names, { log: silentLog, signal })).toBe("loaded");
    for (const name of [...names.slice(0, 2), "docker.io/library/names:v1"]) {
      expect(await engine.inspectImage(name)).toEqual({
        id: itsId(image),
        diffIds: image.layers.map(({ diffId }) => diffId),
        isComplete: true,
      });
    }
    proxy.seen.length = 0;
    const again = [content, "ko.local/example.com/names:other"];
    expect(await loadImage(engine, image, again, { log: silentLog, signal })).toBe("present");
    expect((await engine.inspectImage("ko.local/example.com/names:other"))?.id).toBe(itsId(image));
    expect(proxy.seen.filter(({ bytes }) => bytes > 0)).toEqual([]);
    expect(await loadImage(engine, image, ["ko.local/names:new"], { log: silentLog, signal })).toBe(
      store === "containerd" ? "loaded" : "tagged",
    );
    expect((await engine.inspectImage("ko.local/names:new"))?.id).toBe(itsId(image));
  });

  test.skipIf(daemon === undefined)("after an edit sends what the store needs, and no more", async () => {
    await using proxy = await startDockerProxy(socket);
    await using engine = await openEngine(proxy.socket);
    const first = await makeApp({ seed: "edit", program: "1" });
    const second = await makeApp({ seed: "edit", program: "2" });
    const load = (image: Image): Promise<unknown> =>
      loadImage(engine, image, [contentName("ko.local/edit", image), "ko.local/edit:latest"], {
        log: silentLog,
        signal,
      });
    await load(first);
    await load(second);
    const sent = proxy.seen.filter(({ path }) => path === "/images/load");
    expect(sent.map(({ files }, i) => layersIn(files, i === 0 ? first : second))).toEqual([
      [true, true, true],
      store === "classic" ? [false, false, true] : [true, true, true],
    ]);
    expect((await engine.inspectImage("ko.local/edit:latest"))?.id).toBe(itsId(second));
  });

  test.skipIf(daemon === undefined)("names nothing when a layer is not what it says", async () => {
    await using engine = await openEngine(socket);
    const image = await randomImage({ seed: `wrong-${kind}` });
    const [, ...rest] = image.layers;
    // Right in size and digest for our reader, but not the tar that the configuration names.
    const [other] = (await randomImage({ seed: `other-${kind}` })).layers;
    if (other === undefined) throw new Error("an image without layers");
    const wrong = makeImage({ config: image.config, layers: [other, ...rest], format: "oci", annotations: {} });
    const name = contentName("ko.local/wrong", wrong);
    const error = await rejectionOf(
      loadImage(engine, wrong, [name, "ko.local/wrong:latest"], { log: silentLog, signal }),
    );
    expect(error).toBeInstanceOf(KoError);
    // podman takes it, and has other layers then than its configuration says.
    const start = kind === "podman" ? "Error: Cannot trust the Docker daemon" : `Error: Cannot load "${name}" into`;
    expect(describeError(error)).toStartWith(start);
    for (const one of [name, "ko.local/wrong:latest"]) expect(await engine.inspectImage(one)).toBeUndefined();
  });

  test.skipIf(daemon === undefined)("names nothing when a layer cannot be read to its end", async () => {
    await using engine = await openEngine(socket);
    const image = await randomImage({ seed: `cut-${kind}` });
    const [first, ...rest] = image.layers;
    if (first === undefined) throw new Error("an image without layers");
    const open = async function* (): AsyncGenerator<Uint8Array, void, void> {
      yield new Uint8Array(1000);
      throw new KoError("Cannot read the layer: the disk is gone");
    };
    const cut: Image = { ...image, layers: [{ ...first, open: () => open() }, ...rest] };
    const name = contentName("ko.local/cut", image);
    const error = await rejectionOf(loadImage(engine, cut, [name], { log: silentLog, signal }));
    expect(describeError(error)).toContain("Cannot read the layer: the disk is gone");
    expect(await engine.inspectImage(name)).toBeUndefined();
  });

  test.skipIf(daemon === undefined)("ends at once when the run is interrupted in the middle", async () => {
    await using proxy = await startDockerProxy(socket);
    const run = new AbortController();
    const reason = new Error("interrupted");
    await using engine = await openEngine(proxy.socket, run.signal);
    const image = await makeApp({ seed: `stop-${kind}`, program: "1", size: 8_000_000 });
    const name = contentName("ko.local/stop", image);
    proxy.onBody = () => run.abort(reason);
    const error = await rejectionOf(loadImage(engine, image, [name], { log: silentLog, signal: run.signal }));
    expect(error).toBe(reason);
    await using other = await openEngine(socket);
    expect(await other.inspectImage(name)).toBeUndefined();
  });
});

describe.skipIf(!daemons.has("classic"))("loadImage() into a classic store", () => {
  const socket = daemons.get("classic")?.socket ?? "";

  test("sends a layer that is known only on top of other layers", async () => {
    await using proxy = await startDockerProxy(socket);
    await using engine = await openEngine(proxy.socket);
    const [a, b] = (await randomImage({ seed: "order", layers: 2 })).layers;
    if (a === undefined || b === undefined) throw new Error("too few layers");
    const make = (layers: readonly Layer[]): Image =>
      makeImage({
        config: {
          architecture: "amd64",
          os: "linux",
          rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
          config: { Labels: { order: layers.map(({ diffId }) => diffId).join() } },
        },
        layers,
        format: "docker",
        annotations: {},
      });
    for (const [image, sent] of [
      [make([a, b]), [true, true]],
      [make([b, a]), [true, true]],
      // The second "a" is on top of what is not there yet: its file, the same as the first's, is needed.
      [make([a, b, a]), [true, false, true]],
    ] as const) {
      proxy.seen.length = 0;
      await loadImage(engine, image, [contentName("ko.local/order", image)], { log: silentLog, signal });
      const [load] = proxy.seen.filter(({ path }) => path === "/images/load");
      expect(load === undefined ? undefined : layersIn(load.files, image)).toEqual([...sent]);
    }
  });

  test("sends all layers once more when those it left out are gone meanwhile", async () => {
    await using proxy = await startDockerProxy(socket);
    await using engine = await openEngine(proxy.socket);
    const first = await makeApp({ seed: "gone", program: "1" });
    const second = await makeApp({ seed: "gone", program: "2" });
    const name = contentName("ko.local/gone", first);
    await loadImage(engine, first, [name], { log: silentLog, signal });
    // Its layers are looked up, then it is removed before the load arrives.
    const removing: DockerEngine = new Proxy(engine, {
      get(target, key) {
        const value: unknown = Reflect.get(target, key, target);
        if (typeof value !== "function") return value;
        return async (...args: unknown[]): Promise<unknown> => {
          if (key === "loadArchive") await engine.removeTag(name);
          const result: unknown = await Reflect.apply(value, target, args);
          return result;
        };
      },
    });
    proxy.seen.length = 0;
    const names = [contentName("ko.local/gone", second)];
    expect(await loadImage(removing, second, names, { log: silentLog, signal })).toBe("loaded");
    const loads = proxy.seen.filter(({ path }) => path === "/images/load");
    expect(loads.map(({ files }) => layersIn(files, second))).toEqual([
      [false, false, true],
      [true, true, true],
    ]);
  });

  test("what it loads runs, with its data, in docker run", async () => {
    await using folder = await makeFolder();
    const source = `package main
import "os"
func main() {
	data, _ := os.ReadFile(os.Getenv("KO_DATA_PATH") + "/greeting")
	os.Stdout.Write(append([]byte("it says "), data...))
}
`;
    await Bun.write(join(folder.path, "main.go"), source);
    const build = Bun.spawnSync(["go", "build", "-o", "hello", "main.go"], {
      cwd: folder.path,
      env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "", GO111MODULE: "off" },
    });
    expect(build.stderr.toString()).toBe("");
    const program = await Bun.file(join(folder.path, "hello")).bytes();
    const greeting = new TextEncoder().encode("hello\n");
    const layers = [
      await plainLayer([
        { name: "data/greeting", type: "file", mode: 0o644, mtime: 0, size: greeting.byteLength, content: greeting },
      ]),
      await plainLayer([
        { name: "app", type: "file", mode: 0o755, mtime: 0, size: program.byteLength, content: program },
      ]),
    ];
    const config = {
      architecture: process.arch === "x64" ? "amd64" : process.arch,
      os: "linux",
      rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
      config: { Entrypoint: ["/app"], Env: ["KO_DATA_PATH=/data"] },
    };
    const image = makeImage({ config, layers, format: "oci", annotations: {} });
    await using engine = await openEngine(socket);
    const name = contentName("ko.local/runs", image);
    await loadImage(engine, image, [name], { log: silentLog, signal });
    const argv = ["docker", "-H", `unix://${socket}`, "run", "--rm", "--network=none", name];
    const run = Bun.spawnSync(argv, { env: { PATH: process.env["PATH"] ?? "", HOME: folder.path } });
    expect([run.exitCode, run.stdout.toString(), run.stderr.toString()]).toEqual([0, "it says hello\n", ""]);
  });
});
