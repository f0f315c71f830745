/**
 * `npm start`: compiles ./ko, lets it do its main job on examples/hello without registry, Docker or cluster, checks
 * the image that it made, and prints the next commands.
 */
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import { describeError, exitCodeOf, KoError } from "../lib/errors.ts";
import { createHost, type Host } from "../lib/host.ts";
import type { ImageSource } from "../lib/image.ts";
import { openLayout } from "../lib/layout.ts";
import { readConfig } from "../lib/oci-config.ts";
import { type Descriptor, readDocument, readManifest } from "../lib/oci.ts";
import { compileHere } from "./build.ts";

const LAYOUT = "dist/hello";
const NAME = "hello:latest";

async function main(host: Host): Promise<void> {
  const folder = dirname(import.meta.dir);
  const ko = await compileHere(host, folder);
  const platform = `linux/${host.arch === "arm64" ? "arm64" : "amd64"}`;
  const layout = join(folder, LAYOUT);
  await rm(layout, { recursive: true, force: true });
  host.err(`Building examples/hello for ${platform} on ko.builtin/static\n`);
  const { stdout } = await host.run(
    [ko, "build", "-B", "--platform", platform, "--push=false", "--oci-layout-path", LAYOUT, "./examples/hello"],
    { cwd: folder, env: { ...plainEnvironment(host.env), KO_DEFAULTBASEIMAGE: "ko.builtin/static" }, stderr: "tee" },
  );
  const reference = new TextDecoder().decode(stdout).trim();
  const checked = await checkImage(openLayout(layout), { reference, platform });
  await host.out(`${describeNext({ reference, checked })}\n`);
}

/** The environment without settings of ko and Go, so that this build is the same everywhere. */
function plainEnvironment(env: Readonly<Record<string, string>>): Record<string, string> {
  const own = /^(?:KO_(?!GO_PATH$).*|KOCACHE|GOOS|GOARCH|GOARM|GOAMD64|SOURCE_DATE_EPOCH)$/;
  return Object.fromEntries(Object.entries(env).filter(([name]) => !own.test(name)));
}

interface Checked {
  /** Of the compressed layers. */
  readonly sizeBytes: number;
  readonly layers: number;
  readonly entrypoint: string;
}

/**
 * Reads the image again from disk: every size and digest, compressed and not, and the program where it is started.
 *
 * @throws {KoError} If anything is not as the image says.
 */
async function checkImage(
  source: ImageSource,
  { reference, platform }: { readonly reference: string; readonly platform: string },
): Promise<Checked> {
  const fail = (why: string): KoError => new KoError(`Cannot trust the image that was built: ${why}`);
  const { descriptor, bytes } = await source.getManifest(NAME);
  if (reference !== `${LAYOUT}@${descriptor.digest}`) throw fail(`${reference} is not ${descriptor.digest}`);
  const manifest = readManifest(bytes, "the manifest");
  const config = readConfig(
    await readDocument(source.openBlob(manifest.config), manifest.config, "the configuration"),
    "the configuration",
  );
  if (`${config.os}/${config.architecture}` !== platform) throw fail(`it is for ${config.os}/${config.architecture}`);
  const names = new Set<string>();
  for (const [i, layer] of manifest.layers.entries()) {
    const diffId = await readTar(source, layer, (name) => names.add(name));
    if (diffId !== config.rootfs.diff_ids[i]) throw fail(`layer ${i} holds ${diffId}`);
  }
  const [entrypoint = ""] = config.config.Entrypoint ?? [];
  for (const name of [entrypoint, "/var/run/ko/index.html", "/etc/ssl/certs/ca-certificates.crt"]) {
    if (!names.has(name)) throw fail(`"${name}" is in none of its layers`);
  }
  const sizeBytes = manifest.layers.reduce((sum, { size }) => sum + size, 0);
  return { sizeBytes, layers: manifest.layers.length, entrypoint };
}

/** The diffID of a gzip layer; `see` gets each name, with a slash in front. */
async function readTar(source: ImageSource, layer: Descriptor, see: (name: string) => void): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256");
  const tar = extract();
  tar.on("entry", (header, stream, next) => {
    see(`/${header.name.replace(/^\/|\/$/g, "")}`);
    stream.on("end", () => next());
    stream.resume();
  });
  const done = new Promise<void>((resolve, reject) => tar.on("finish", () => resolve()).on("error", reject));
  const gunzip = createGunzip();
  const feeding = (async () => {
    for await (const chunk of source.openBlob(layer)) {
      if (!gunzip.write(chunk)) await new Promise<void>((resolve) => void gunzip.once("drain", resolve));
    }
    gunzip.end();
  })();
  for await (const chunk of gunzip) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError("gunzip gave no bytes");
    hash.update(chunk);
    if (!tar.write(chunk)) await new Promise<void>((resolve) => void tar.once("drain", resolve));
  }
  await feeding;
  tar.end(undefined);
  await done;
  return `sha256:${hash.digest("hex")}`;
}

function describeNext({ reference, checked }: { readonly reference: string; readonly checked: Checked }): string {
  const { sizeBytes, layers, entrypoint } = checked;
  return `
Built ${reference}
Checked: ${layers} layers, ${(sizeBytes / 1e6).toFixed(1)} MB, every digest; it starts ${entrypoint}.

What to type next:
  push it    KO_DOCKER_REPO=registry.example.com/you ./ko build ./examples/hello
  load it    docker run --rm -p 8080:8080 "$(KO_DEFAULTBASEIMAGE=ko.builtin/static ./ko build -L ./examples/hello)"
  apply it   cd examples/hello && KO_DOCKER_REPO=registry.example.com/you ../../ko apply -f config/
  ask it     ./ko help build`;
}

if (import.meta.main) {
  const host = createHost();
  try {
    await main(host);
  } catch (error) {
    host.err(`${describeError(error)}\n`);
    process.exitCode = exitCodeOf(error);
  }
}
