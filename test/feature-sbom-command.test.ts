/**
 * SBOMs from the command line, against a real registry with a recording proxy before it: which requests a run makes for
 * them, where else they go, and that they are never in the way of an image.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MEDIA_TYPES } from "../lib/oci.ts";
import { makeSbomImage, SPDX_MEDIA_TYPE } from "../lib/sbom.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { FaultProxy, type Rule } from "./helpers/registry-fault-proxy.ts";
import { isObject, pull, pullTags, readList } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { findSpdxProblems } from "./helpers/sbom.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";

const programs = findCounterparts(["docker-registry"]);

const FILES: Files = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo(),
  "cmd/worker/main.go": mainGo(),
  "other/web/main.go": mainGo(),
  "web.yaml": "image: ko://example.com/app/cmd/web\n",
};
const WEB = ["build", "-B", "./cmd/web"];
const PLATFORMS = "--platform=linux/amd64,linux/arm64";
const REFUSED: Rule = {
  method: "PUT",
  path: /\/manifests\/.*\.sbom$/,
  fault: { kind: "answer", status: 400, body: '{"errors":[{"code":"MANIFEST_INVALID","message":"unknown here"}]}' },
};
describe.skipIf(programs === undefined)("SBOMs", () => {
  let registry: TestRegistry;
  let proxy: FaultProxy;

  beforeAll(async () => {
    registry = await startRegistry();
    proxy = await FaultProxy.start(registry.host);
  });

  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  beforeEach(() => proxy.reset());

  const open = (): Bench => makeBench(FILES, { host: proxy.host });

  /** Runs ko, and returns the reference that it prints. */
  async function build(bench: Bench, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    proxy.reset();
    const { code, stderr, stdout } = await bench.ours(args, { env });
    if (code !== 0) throw new Error(stderr);
    return { reference: stdout.trim(), stderr };
  }

  /** The requests about SBOMs and all that write, in a repository. */
  const requests = (): readonly string[] =>
    proxy.seen
      .filter(({ method, path }) => path.includes(".sbom") || (method !== "GET" && method !== "HEAD"))
      .map(({ method, path }) => `${method} ${path.replace(/^\/v2\/team-[^/]+\//, "").replace(/sha256-.*/, "SBOM")}`);

  const tagsOf = async (bench: Bench, name = "web"): Promise<readonly string[]> =>
    Object.keys(await pullTags({ host: registry.host, path: `${bench.repository.replace(/^.*\//, "")}/${name}` }));

  const tagOf = (reference: string): string => `${reference.replace(/^.*@sha256:/, "sha256-")}.sbom`;

  test("go beside each image; an unchanged run asks once, and a run without the cache pushes nothing either", async () => {
    using bench = open();
    const { reference, stderr } = await build(bench, WEB);
    const sbom = `${bench.repository}/web:${tagOf(reference)}`;
    expect(stderr.split("\n").filter((line) => line.startsWith("Published"))).toEqual([
      `Published ${reference}`,
      `Published SBOM ${sbom}`,
    ]);
    const first = requests();
    expect(first.filter((line) => line.includes("/manifests/"))).toEqual([
      "PUT web/manifests/latest",
      "HEAD web/manifests/SBOM",
      "HEAD web/manifests/SBOM",
      "PUT web/manifests/SBOM",
    ]);
    expect(await tagsOf(bench)).toEqual(["latest", tagOf(reference)]);
    const pulled = await pull(sbom);
    expect(pulled.kind === "image" && pulled.text).toContain(`"layers":[{"mediaType":"${SPDX_MEDIA_TYPE}"`);
    for (const env of [{}, {}, { KOCACHE: "off" }]) {
      expect((await build(bench, WEB, env)).reference).toBe(reference);
      expect(requests()).toEqual(["HEAD web/manifests/SBOM"]);
    }
  });

  test("of an index: one for each image and one for the index; an unchanged run asks once", async () => {
    using bench = open();
    const { reference } = await build(bench, [...WEB, PLATFORMS]);
    const images = await pull(reference);
    const digests = images.kind === "index" ? [images, ...images.children].map(({ digest }) => digest) : [];
    expect(await tagsOf(bench)).toEqual(["latest", ...digests.map((digest) => tagOf(`@${digest}`)).sort()]);
    expect(digests).toHaveLength(3);
    await build(bench, [...WEB, PLATFORMS]);
    expect(requests()).toEqual(["HEAD web/manifests/SBOM"]);
  });

  test("an unchanged run asks for the tags of image and SBOM at the same time", async () => {
    // Holds back the answer for the image until the SBOM is asked for.
    let asked: PromiseWithResolvers<void> | undefined;
    using gate = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch: async (request) => {
        const { pathname, search } = new URL(request.url);
        if (pathname.endsWith(".sbom")) asked?.resolve();
        else if (pathname.includes("/manifests/")) await asked?.promise;
        return fetch(`http://${registry.host}${pathname}${search}`, request);
      },
    });
    using bench = makeBench(FILES, { host: `127.0.0.1:${gate.port}` });
    const { reference } = await build(bench, [...WEB, "--sbom=none"]);
    await build(bench, WEB);
    asked = Promise.withResolvers();
    expect((await build(bench, WEB)).reference).toBe(reference);
  });

  test("ko resolve pushes them too, and neither its YAML nor --image-refs names them", async () => {
    using bench = open();
    const { reference } = await build(bench, ["resolve", "-B", "-f", "web.yaml", "--image-refs=refs"]);
    const image = reference.replace("image: ", "");
    expect(readFileSync(bench.tree.at("refs"), "utf8")).toBe(`${image}\n`);
    expect(await tagsOf(bench)).toEqual(["latest", tagOf(image)]);
  });

  test("--sbom=none pushes nothing and asks nothing; a later run adds the SBOM to the reused image", async () => {
    using bench = open();
    const { reference } = await build(bench, [...WEB, "--sbom=none"]);
    expect(requests().filter((line) => line.includes("SBOM"))).toEqual([]);
    expect(await tagsOf(bench)).toEqual(["latest"]);
    await build(bench, WEB);
    expect(requests().filter((line) => line.includes("/manifests/"))).toEqual([
      "HEAD web/manifests/SBOM",
      "HEAD web/manifests/SBOM",
      "PUT web/manifests/SBOM",
    ]);
    expect(await tagsOf(bench)).toEqual(["latest", tagOf(reference)]);
  });

  test("an SBOM that was removed, or is another's, is pushed again", async () => {
    using bench = open();
    const { reference } = await build(bench, WEB);
    const path = `${bench.repository.replace(/^.*\//, "")}/web`;
    const url = `http://${registry.host}/v2/${path}/manifests`;
    const { [tagOf(reference)]: digest = "" } = await pullTags({ host: registry.host, path });
    expect((await fetch(`${url}/${digest}`, { method: "DELETE" })).status).toBe(202);
    await build(bench, WEB);
    expect(requests().at(-1)).toBe("PUT web/manifests/SBOM");
    const other = makeSbomImage(Buffer.from("{}"));
    proxy.reset([
      {
        method: "HEAD",
        path: /\.sbom$/,
        fault: {
          kind: "answer",
          status: 200,
          headers: {
            "content-type": MEDIA_TYPES.ociManifest,
            "content-length": String(other.bytes.byteLength),
            "docker-content-digest": other.descriptor.digest,
          },
        },
      },
    ]);
    expect((await bench.ours(WEB)).code).toBe(0);
    expect(requests().at(-1)).toBe("PUT web/manifests/SBOM");
    expect((await pullTags({ host: registry.host, path }))[tagOf(reference)]).toBe(digest);
  });

  test("a refused SBOM: the images are there, nothing is printed, and the error names --sbom=none", async () => {
    using bench = open();
    proxy.reset([{ ...REFUSED, path: /\/web\/manifests\/.*\.sbom$/ }]);
    const { code, stderr, stdout } = await bench.ours([...WEB, "./cmd/worker", "--image-refs=refs"]);
    expect({ code, stdout, refs: existsSync(bench.tree.at("refs")) }).toEqual({ code: 1, stdout: "", refs: false });
    const [published = ""] = stderr.split("\n").filter((line) => line.startsWith("Published") && line.includes("/web"));
    const reference = published.replace("Published ", "");
    const [error = "", ...hints] = stderr.slice(stderr.indexOf("Error: ")).trimEnd().split("\n");
    expect(error).toStartWith(
      `Error: Cannot publish the SBOM of ${reference}: the image is published, its SBOM is not: `,
    );
    expect(error).toContain("MANIFEST_INVALID: unknown here");
    expect(hints).toEqual(["  Use --sbom=none to publish images without an SBOM."]);
    expect(await tagsOf(bench)).toEqual(["latest"]);
    expect(await tagsOf(bench, "worker")).toHaveLength(2);
    expect((await build(bench, [...WEB, "--sbom=none"])).reference).toBe(reference);
  });

  test("two refused SBOMs are two errors", async () => {
    using bench = open();
    proxy.reset([REFUSED]);
    const { code, stderr } = await bench.ours([...WEB, "./cmd/worker"]);
    expect(code).toBe(1);
    expect(stderr.match(/^Error: Cannot publish the SBOM of \S+\/(web|worker)@/gm)).toHaveLength(2);
  });

  test("COSIGN_REPOSITORY gets them instead; a bad one is refused before anything is built", async () => {
    using bench = open();
    const shared = `${bench.repository}/sboms`;
    const { reference } = await build(bench, WEB, { COSIGN_REPOSITORY: shared });
    expect(await tagsOf(bench)).toEqual(["latest"]);
    expect(await tagsOf(bench, "sboms")).toEqual([tagOf(reference)]);
    const { code, stderr } = await bench.ours([...WEB, "./cmd/worker"], { env: { COSIGN_REPOSITORY: "a:b:c" } });
    expect([code, stderr]).toEqual([2, expect.stringContaining('Error: Cannot use COSIGN_REPOSITORY "a:b:c"')]);
    expect(bench.goCalls().filter((call) => call === "build")).toHaveLength(1);
  });

  test.each<readonly [string, readonly string[]]>([
    ["a push", []],
    ["--push=false", ["--push=false"]],
    ["--tarball", ["--push=false", "--tarball=web.tar"]],
    ["--oci-layout-path", ["--push=false", "--oci-layout-path=layout"]],
  ])("--sbom-dir gets the files with %s", async (name, args) => {
    using bench = open();
    const platforms = name === "--tarball" ? [] : [PLATFORMS];
    const files = ["web-index", "web-linux-amd64", "web-linux-arm64-v8"].map((file) => `${file}.spdx.json`);
    const expected = files.slice(...(name === "--tarball" ? [1, 2] : [0]));
    for (const _ of ["new", "unchanged"]) {
      const { stderr } = await build(bench, [...WEB, ...args, ...platforms, "--sbom-dir=out/sboms"]);
      expect(readdirSync(bench.tree.at("out/sboms")).sort()).toEqual(expected);
      const said = stderr.split("\n").filter((line) => line.startsWith("Writing"));
      expect(said.sort()).toEqual(expected.map((file) => `Writing SBOM to out/sboms/${file}`));
    }
    for (const file of expected) {
      expect(findSpdxProblems(readFileSync(bench.tree.at(`out/sboms/${file}`)))).toEqual([]);
    }
    expect(requests().filter((line) => line.includes("SBOM"))).toEqual(
      name === "a push" ? ["HEAD web/manifests/SBOM"] : [],
    );
  });

  test("--sbom-dir has the bytes that are pushed, and has them if publishing fails", async () => {
    using bench = open();
    proxy.reset([{ method: "PUT", path: /\/manifests\/latest$/, fault: { kind: "answer", status: 403 } }]);
    expect((await bench.ours([...WEB, "--sbom-dir=out"])).code).toBe(1);
    const document = readFileSync(bench.tree.at("out/web-linux-amd64.spdx.json"), "utf8");
    const { reference } = await build(bench, WEB);
    const pushed = await pull(`${bench.repository}/web:${tagOf(reference)}`);
    expect(pushed.kind === "image" && pushed.text).toBe(
      new TextDecoder().decode(makeSbomImage(Buffer.from(document)).bytes),
    );
  });

  test("--sbom-dir of two programs whose files have one name is refused before anything is built", async () => {
    using bench = open();
    const { code, stderr } = await bench.ours(["build", "./cmd/web", "./other/web", "--sbom-dir=out"]);
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining("Cannot write the SBOMs of example.com/app/cmd/web and example.com/app/other/web"),
    ]);
    expect(bench.goCalls()).not.toContain("build");
  });

  test("--sbom-dir that cannot be made is refused before anything is built; with --sbom=none it has no effect", async () => {
    using bench = open();
    const args = [...WEB, "--sbom-dir=go.mod/x"];
    const { code, stderr } = await bench.ours(args);
    expect([code, stderr]).toEqual([2, expect.stringContaining('Cannot write to --sbom-dir "go.mod/x"')]);
    expect(bench.goCalls()).not.toContain("build");
    expect((await build(bench, [...args, "--sbom=none"])).stderr).toContain(
      "Warning: --sbom-dir has no effect: --sbom=none takes precedence",
    );
  });

  test("a layout gets them with --sbom=spdx, under the tags that they have in a registry", async () => {
    using bench = open();
    const layout = [...WEB, PLATFORMS, "--push=false", "--oci-layout-path=layout"];
    const names = (): readonly unknown[] => {
      const index: unknown = JSON.parse(readFileSync(bench.tree.at("layout/index.json"), "utf8"));
      return readList(isObject(index) ? index["manifests"] : []).map(({ annotations }) =>
        isObject(annotations) ? annotations["org.opencontainers.image.ref.name"] : undefined,
      );
    };
    const { reference } = await build(bench, layout);
    expect(names()).toEqual([`${bench.repository}/web:latest`]);
    for (const _ of ["added", "replaced"]) {
      await build(bench, [...layout, "--sbom=spdx", "--sbom-dir=out"]);
      expect(names()).toHaveLength(4);
    }
    expect(names().at(-1)).toBe(`${bench.repository}/web:${tagOf(reference)}`);
    const blobs = readdirSync(bench.tree.at("layout/blobs/sha256"));
    for (const file of readdirSync(bench.tree.at("out"))) {
      const image = makeSbomImage(readFileSync(bench.tree.at(`out/${file}`)));
      for (const { digest } of [image.descriptor, image.manifest.config, ...image.manifest.layers]) {
        expect(blobs).toContain(digest.replace("sha256:", ""));
      }
    }
  });

  test("no program is read unless an SBOM is made; a damaged one is compiled again", async () => {
    using bench = open();
    const { reference } = await build(bench, [...WEB, "--sbom=none"]);
    const content = bench.work.at("cache/v1/content");
    const [program = ""] = readdirSync(content)
      .map((name) => join(content, name))
      .filter((path) => readFileSync(path).subarray(0, 4).toString("latin1") === "\x7fELF");
    const { atime, mtime, size } = statSync(program);
    writeFileSync(program, Buffer.alloc(size));
    utimesSync(program, atime, mtime);
    for (const args of [["--push=false"], ["--push=false", "--oci-layout-path=layout"], ["--sbom=none"]]) {
      expect((await build(bench, [...WEB, ...args])).stderr).not.toContain("Warning");
    }
    const again = await build(bench, WEB);
    expect(again.stderr).toMatch(
      /^Warning: Cannot read the build information of .*; starting again without the cache$/m,
    );
    expect(again.reference).toBe(reference);
    expect(await tagsOf(bench)).toEqual(["latest", tagOf(reference)]);
  });

  test("another kind of SBOM is wrong usage that names both", async () => {
    using bench = open();
    for (const kind of ["cyclonedx", "NONE"]) {
      const { code, stderr } = await bench.ours([...WEB, `--sbom=${kind}`]);
      expect([code, stderr]).toEqual([2, expect.stringContaining(`Cannot use --sbom="${kind}": wanted spdx or none`)]);
    }
    expect(bench.goCalls()).toEqual([]);
  });
});
