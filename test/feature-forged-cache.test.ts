/**
 * Records in the cache that were forged: content is shipped only if it unpacks to the tar that the image names.
 *
 * A user who may write to the cache could also forge all records of a program consistently: docs/security.md.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { Cache } from "../lib/cache.ts";
import { isObject } from "../lib/json.ts";
import { silentLog } from "../lib/log.ts";
import { type Digest, digestOf, hexOf, isDigest } from "../lib/oci.ts";
import { startRegistry, type TestRegistry, whyNoRegistry } from "./helpers/registry.ts";
import { makeScene, MODULES, type Outcome, type Scene, SETTLED_MS } from "./helpers/world-bench.ts";
import { hostAt } from "./helpers/world-host.ts";

/** What is done to the layers of the cache. */
interface Forgery {
  /** The forged content. */
  readonly blobs: ReadonlyMap<Digest, Uint8Array>;
}

let scene: Scene;
let registry: TestRegistry | undefined;
/** The digest of the image. */
let right: string;
let count = 0;

beforeAll(async () => {
  registry = whyNoRegistry() === undefined ? await startRegistry() : undefined;
  scene = makeScene(MODULES);
  scene.work.write({ "config/.ko.yaml": "defaultBaseImage: ko.builtin/static\n" });
  await Bun.sleep(SETTLED_MS);
  right = digestIn(await build(["--push=false"]));
  cpSync(scene.cache, scene.work.at("whole"), { recursive: true, preserveTimestamps: true });
});
afterAll(async () => {
  scene[Symbol.dispose]();
  await registry?.[Symbol.asyncDispose]();
});
beforeEach(() => {
  rmSync(scene.cache, { recursive: true });
  cpSync(scene.work.at("whole"), scene.cache, { recursive: true, preserveTimestamps: true });
});

describe("a cached layer whose content is another tar", () => {
  const places: Readonly<Record<string, (folder: string) => readonly string[]>> = {
    "an OCI layout": (folder) => ["--push=false", "--oci-layout-path", folder],
    "a tarball": (folder) => ["--push=false", "--tarball", `${folder}.tar`],
    "an archive": (folder) => ["--push=false", "--oci-archive", `${folder}.tar`],
  };
  test.each(Object.keys(places))("is not written into %s", async (name) => {
    const { blobs } = forge((tar) => tar);
    const folder = scene.work.at(`out-${++count}`);
    const args = places[name]?.(folder) ?? [];
    await expectRight(await build(args));
    for (const digest of blobs.keys()) expect(findText(folder, hexOf(digest))).toBe(false);
    // The forged records and their content are gone.
    expect(await build(args)).toMatchObject({ code: 0, stderr: "", go: [] });
  });

  test("is not sent to standard output, of which nothing can be taken back", async () => {
    const file = scene.work.at(`out-${++count}.tar`);
    await build(["--push=false", "--tarball", file]);
    const wanted = digestOf(readFileSync(file));
    forge((tar) => tar);
    const chunks: Uint8Array[] = [];
    const out = async (data: string | Uint8Array): Promise<void> => void chunks.push(new Uint8Array(Buffer.from(data)));
    const outcome = await scene.run({
      args: ["build", "-q", "-B", "--push=false", "--tarball", "-", "./cmd/app"],
      host: { out },
    });
    expect(outcome.code).toBe(0);
    expect(outcome.stderr).toContain("starting again without the cache");
    expect(digestOf(Buffer.concat(chunks))).toBe(wanted);
  });

  test("is not named by a layout that has it already", async () => {
    const { blobs } = forge((tar) => tar);
    const folder = scene.work.at(`out-${++count}`);
    for (const [digest, bytes] of blobs) write(join(folder, "blobs/sha256", hexOf(digest)), bytes);
    write(join(folder, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    write(join(folder, "index.json"), '{"schemaVersion":2,"manifests":[]}');
    await expectRight(await build(["--push=false", "--oci-layout-path", folder]));
  });

  test.skipIf(whyNoRegistry() !== undefined)("is not pushed", async () => {
    const { blobs } = forge((tar) => tar);
    await expectRight(await push(`new-${++count}`));
    for (const digest of blobs.keys()) expect(await hasBlob(`new-${count}/app`, digest)).toBe(false);
  });

  test.skipIf(whyNoRegistry() !== undefined)("is not named in a registry that has it already", async () => {
    const { blobs } = forge((tar) => tar);
    const name = `old-${++count}`;
    for (const [digest, bytes] of blobs) await upload(`${name}/app`, digest, bytes);
    await expectRight(await push(name));
    const answer = await fetch(`http://${registry?.host}/v2/${name}/app/manifests/${right}`, {
      headers: { accept: "application/vnd.oci.image.manifest.v1+json" },
    });
    const text = await answer.text();
    for (const digest of blobs.keys()) expect(text).not.toContain(digest);
  });

  test.skipIf(whyNoRegistry() !== undefined)(
    "costs nothing where the registry has the whole image, and none is proved again",
    async () => {
      const name = `same-${++count}`;
      await push(name);
      expect(await push(name, ["-t", "other"])).toMatchObject({ code: 0, stderr: "", go: [] });
    },
  );
});

test("a record of ko.builtin/static counts only if it is the constant of the program", async () => {
  // A forgery that is whole: content, tar and record fit together.
  forge((_tar, evil) => evil);
  const outcome = await build(["--push=false"]);
  const own = await build(["--push=false"], { KO_DEFAULTBASEIMAGE: "ko.builtin/static", KOCACHE: "off" });
  expect(digestIn(own)).toBe(right);
  const folder = scene.work.at(`out-${++count}`);
  await build(["--push=false", "--oci-layout-path", folder]);
  expect(findText(folder, "nonroot:x:00000")).toBe(false);
  expect(outcome.code).toBe(0);
});

/** Replaces each layer in the cache by one with other bytes. @param say which tar the record claims */
function forge(say: (tar: Digest, evil: Digest) => Digest): Forgery {
  const host = hostAt(scene.work.path, { env: { KOCACHE: scene.cache } });
  const cache = Cache.open(host, silentLog);
  if (cache === undefined) throw new Error("no cache");
  const blobs = new Map<Digest, Uint8Array>();
  for (const name of readdirSync(join(cache.folder, "records"))) {
    const key = /^layer-([0-9a-f]+)\.json$/.exec(name)?.[1];
    const record = key === undefined ? undefined : cache.read("layer", key);
    if (key === undefined || !isObject(record) || !isObject(record["kept"]) || !isObject(record["tar"])) continue;
    const digest = String(record["kept"]["digest"]);
    const diffId = String(record["tar"]["diffId"]);
    if (!isDigest(digest) || !isDigest(diffId)) throw new Error("no digest");
    const tar = gunzipSync(readFileSync(cache.path(digest)));
    const text = tar.toString("latin1").replaceAll("nonroot:x:65532", "nonroot:x:00000").replaceAll("hello", "he11o");
    const evil = Buffer.from(text === tar.toString("latin1") ? `${text.slice(0, -1)}x` : text, "latin1");
    const packed = Bun.gzipSync(evil);
    const kept = { digest: digestOf(packed), size: packed.byteLength };
    cache.keepBytes(packed, kept.digest);
    cache.write("layer", key, { tar: { diffId: say(diffId, digestOf(evil)), size: evil.byteLength }, kept });
    blobs.set(kept.digest, packed);
  }
  // The program and the base; the kodata layer is recorded when its files are some seconds old.
  expect(blobs.size).toBeGreaterThanOrEqual(2);
  return { blobs };
}

function build(more: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Outcome> {
  return scene.run({ args: ["build", "-q", "-B", ...more, "./cmd/app"], env });
}

function push(name: string, more: readonly string[] = []): Promise<Outcome> {
  return build(["--sbom=none", ...more], { KO_DOCKER_REPO: `${registry?.host}/${name}` });
}

async function expectRight(outcome: Outcome): Promise<void> {
  expect({ code: outcome.code, digest: digestIn(outcome), stderr: outcome.stderr }).toEqual({
    code: 0,
    digest: right,
    stderr: expect.stringMatching(
      /^Warning: Cannot use the cached layer sha256:[0-9a-f]{64}: its content was changed; starting again without the cache\n$/,
    ),
  });
}

function digestIn({ images }: Outcome): string {
  return /sha256:[0-9a-f]{64}/.exec(images)?.[0] ?? images;
}

function write(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

/** Whether a text is in a file or folder, or in what a layer in it unpacks to. */
function findText(path: string, text: string): boolean {
  for (const file of [path, `${path}.tar`].filter((each) => existsSync(each))) {
    const found = Bun.spawnSync(["grep", "-rqa", text, file]).exitCode === 0;
    const unpacked = Bun.spawnSync([
      "sh",
      "-c",
      'find "$1" -type f | while read f; do zcat "$f" 2>/dev/null; done | grep -qa "$2"',
      "sh",
      file,
      text,
    ]);
    if (found || unpacked.exitCode === 0) return true;
  }
  return false;
}

async function hasBlob(repository: string, digest: Digest): Promise<boolean> {
  const { status } = await fetch(`http://${registry?.host}/v2/${repository}/blobs/${digest}`, { method: "HEAD" });
  return status === 200;
}

async function upload(repository: string, digest: Digest, bytes: Uint8Array): Promise<void> {
  const begun = await fetch(`http://${registry?.host}/v2/${repository}/blobs/uploads/`, { method: "POST" });
  const location = new URL(begun.headers.get("location") ?? "", begun.url);
  location.searchParams.set("digest", digest);
  const { status } = await fetch(location, { method: "PUT", body: new Uint8Array(bytes) });
  expect(status).toBe(201);
}
