/** Programs that are linked dynamically, on bases with and without the loader that they need. */
import { describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { makeImage, makeLayer, randomImage } from "./helpers/images.ts";
import { readObject } from "./helpers/registry-images.ts";
import { startRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import type { Image } from "../lib/image.ts";
import { writeToLayout } from "../lib/layout.ts";
import { MEDIA_TYPES } from "../lib/oci.ts";

const CGO = '\n// #include <stdlib.h>\nimport "C"\n\n';

const FILES = {
  "go.mod": goMod("example.com/app"),
  "cmd/plain/main.go": mainGo(),
  "cmd/db/main.go": 'package main\n\nimport "example.com/app/sqlite"\n\nfunc main() { println(sqlite.Abs(-1)) }\n',
  "sqlite/sqlite.go": `package sqlite\n${CGO}func Abs(n int) int { return int(C.abs(C.int(n))) }\n`,
  "cmd/dial/main.go": 'package main\n\nimport "net"\n\nfunc main() { net.LookupHost("a") }\n',
};

const canRun = findCounterparts(["docker-registry"]) !== undefined && Bun.which("gcc") !== null;

/** The names of the repositories that got a manifest. */
async function publishedIn({ repository }: Bench): Promise<readonly string[]> {
  const [host = "", ...rest] = repository.split("/");
  const ask = async (path: string): Promise<Readonly<Record<string, unknown>>> =>
    readObject(await (await fetch(`http://${host}/v2/${path}`)).json());
  const { repositories } = await ask("_catalog");
  const found: string[] = [];
  for (const name of Array.isArray(repositories) ? repositories.map(String) : []) {
    if (!name.startsWith(rest.join("/"))) continue;
    const { tags } = await ask(`${name}/tags/list`);
    if (Array.isArray(tags)) found.push(name);
  }
  return found;
}

/** A base with one file. */
async function baseWith(file: string): Promise<Image> {
  const { config } = await randomImage();
  const content = new Uint8Array(1);
  const layer = await makeLayer([{ name: file, type: "file", mode: 0o755, mtime: 0, size: 1, content }]);
  const rootfs = { type: "layers", diff_ids: [layer.diffId] };
  return makeImage({ config: { ...config, rootfs }, layers: [layer], format: "oci", annotations: {} });
}

/** Writes an OCI layout whose name says that it is static. @returns the name of the base */
async function writeBase({ work }: Bench, built: Image): Promise<string> {
  const path = work.at("static");
  await writeToLayout(path, [{ built, name: "latest" }], { signal: new AbortController().signal });
  return `oci:${path}`;
}

describe.skipIf(!canRun)("#693: a program with cgo on a base without its loader", () => {
  const REFUSED =
    /^Error: Cannot put "example\.com\/app\/cmd\/db" for linux\/\w+ on base "[^"]+": the program needs the loader (\/lib\S+), because of cgo in example\.com\/app\/sqlite, and the base does not have it$/m;
  const env = { CGO_ENABLED: "1", GOARCH: process.arch === "arm64" ? "arm64" : "amd64", GOOS: "linux" };

  test("is refused before a manifest is pushed, also those of other programs, and by the cache again", async () => {
    await using registry = await startRegistry();
    using bench = makeBench(FILES, { host: registry.host });
    for (const args of [["build"], ["build"], ["build", "--push=false"]]) {
      const { code, stderr, stdout } = await bench.ours([...args, "./cmd/plain", "./cmd/db"], { env });
      expect(stderr).toMatch(REFUSED);
      expect(stderr).toMatch(
        /Use a base with glibc, such as gcr\.io\/distroless\/base, or compile with CGO_ENABLED=0, if example\.com\/app\/sqlite can do without cgo\.$/m,
      );
      expect({ code, stdout, published: await publishedIn(bench) }).toEqual({ code: 1, stdout: "", published: [] });
    }
    // The remedies.
    const linked = await bench.ours(["build", "--ldflags=-linkmode=external -extldflags=-static", "./cmd/db"], { env });
    expect({ code: linked.code, stderr: linked.stderr }).toMatchObject({ code: 0 });
    const { stderr } = await bench.ours(["build", "./cmd/db"], { env });
    const loader = REFUSED.exec(stderr)?.[1] ?? "";
    const base = await writeBase(bench, await baseWith(loader.slice(1)));
    const based = await bench.ours(["build", "./cmd/db"], { env: { ...env, KO_DEFAULTBASEIMAGE: base } });
    expect(based.stderr).not.toContain("Error");
    expect(based.code).toBe(0);
  }, 180_000);

  test("names the packages of Go itself if the program's own packages do without cgo", async () => {
    await using registry = await startRegistry();
    using bench = makeBench(FILES, { host: registry.host });
    const { code, stderr } = await bench.ours(["build", "./cmd/dial"], { env });
    expect(code).toBe(1);
    expect(stderr).toMatch(/because of cgo in net, and the base does not have it\n.*or compile with CGO_ENABLED=0\.$/m);
    const pure = await bench.ours(["build", "./cmd/dial"]);
    expect(pure.code).toBe(0);
  }, 180_000);

  test("Alpine has the loader of musl only", async () => {
    await using registry = await startRegistry();
    using bench = makeBench(FILES, { host: registry.host });
    const base = await writeBase(bench, await baseWith("lib/ld-musl-x86_64.so.1"));
    const { code, stderr } = await bench.ours(["build", "./cmd/db"], { env: { ...env, KO_DEFAULTBASEIMAGE: base } });
    expect(code).toBe(1);
    expect(stderr).toMatch(REFUSED);
  }, 180_000);

  test("-buildmode=pie needs the loader without cgo, too", async () => {
    await using registry = await startRegistry();
    using bench = makeBench(FILES, { host: registry.host });
    const { code, stderr } = await bench.ours(["build", "./cmd/plain"], { env: { GOFLAGS: "-buildmode=pie" } });
    expect(code).toBe(1);
    expect(stderr).toMatch(/the program needs the loader \/lib\S+, and the base does not have it$/m);
    expect(stderr).toContain("or compile without -buildmode=pie.");
  }, 180_000);

  test("a base that cannot be looked at is a warning, if its name says that it is static", async () => {
    await using registry = await startRegistry();
    using bench = makeBench(FILES, { host: registry.host });
    const small = await makeLayer([]);
    const layer = {
      ...small,
      descriptor: { ...small.descriptor, mediaType: MEDIA_TYPES.ociLayer.replace("layer.", "layer.nondistributable.") },
    };
    const { config } = await randomImage();
    const rootfs = { type: "layers", diff_ids: [layer.diffId] };
    const built = makeImage({ config: { ...config, rootfs }, layers: [layer], format: "oci", annotations: {} });
    const { code, stderr } = await bench.ours(["build", "--push=false", "./cmd/db"], {
      env: { ...env, KO_DEFAULTBASEIMAGE: await writeBase(bench, built) },
    });
    expect(stderr).toMatch(
      /^Warning: example\.com\/app\/cmd\/db will not start: it needs \/lib\S+, which oci:\S+\/static probably does not have\./m,
    );
    expect(code).toBe(0);
  }, 180_000);
});
