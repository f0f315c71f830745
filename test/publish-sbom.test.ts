/** SBOMs against the real docker-registry, with a recording proxy between them; and in folders. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { describeError, KoError, messageOf, UsageError } from "../lib/errors.ts";
import type { Built } from "../lib/image.ts";
import { silentLog } from "../lib/log.ts";
import {
  findSbomRepository,
  prepareSbomDir,
  type PushedSbom,
  pushSbom,
  sbomPublisher,
  sbomTag,
  writeSbom,
} from "../lib/publish-sbom.ts";
import type { Digest } from "../lib/oci.ts";
import { type PushTarget, pushContent, registryPublisher } from "../lib/publish.ts";
import { formatRepository, type Repository } from "../lib/reference.ts";
import { makeSbomImage, makeSboms, type Sbom } from "../lib/sbom.ts";
import { noTiming } from "../lib/timing.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { NEW, randomImage, randomIndex } from "./helpers/images.ts";
import { makeClient, readAll, type TestClient } from "./helpers/registry-client.ts";
import { FaultProxy, type Rule } from "./helpers/registry-fault-proxy.ts";
import { startRegistry, type TestRegistry, whyNoRegistry } from "./helpers/registry.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

const PROGRAM = {
  goVersion: "go1.26.8",
  path: "example.com/app",
  main: { path: "example.com/app", version: "v1.2.3" },
  deps: [],
  settings: [],
};
const REFUSAL: Rule["fault"] = {
  kind: "answer",
  status: 400,
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ errors: [{ code: "MANIFEST_INVALID", message: "the media type is unknown here" }] }),
};

interface Described {
  readonly built: Built;
  readonly sboms: readonly Sbom[];
}

async function describedImage(koVersion = "1"): Promise<Described> {
  const built = await randomImage();
  const platform = { os: "linux", architecture: "amd64" };
  return { built, sboms: makeSboms(built, { contents: [{ platform, programs: [PROGRAM] }], koVersion }) };
}

async function describedIndex(): Promise<Described> {
  const built = await randomIndex();
  const platforms = built.index.manifests.flatMap(({ platform }) => (platform === undefined ? [] : [platform]));
  const contents = platforms.map((platform) => ({ platform, programs: [PROGRAM] }));
  return { built, sboms: makeSboms(built, { contents, koVersion: "1" }) };
}

describe.skipIf(whyNoRegistry() !== undefined)("pushSbom()", () => {
  let server: TestRegistry;
  let proxy: FaultProxy;
  let repository: Repository;
  let count = 0;

  beforeAll(async () => {
    server = await startRegistry();
    proxy = await FaultProxy.start(server.host);
  });

  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  beforeEach(() => {
    proxy.reset();
    repository = { host: proxy.host, path: `test/app${++count}` };
  });

  interface PushOptions {
    readonly where?: Repository;
    readonly known?: Digest | undefined;
    readonly make?: () => Promise<readonly Sbom[]>;
  }
  const push = ({ built, sboms }: Described, client: TestClient, options: PushOptions = {}): Promise<PushedSbom> => {
    const say = (message: string): void => void client.said.push(message);
    const { known, where = repository } = options;
    const ask = async (): Promise<Digest | undefined> =>
      (await client.registry.findManifest(where, sbomTag(built.descriptor.digest), { push: true }))?.digest;
    return pushSbom(built, {
      registry: client.registry,
      repository: where,
      reference: `${formatRepository(repository)}@sha256:1`,
      log: { info: say, warn: say, debug: () => {} },
      make: options.make ?? (async () => sboms),
      earlier: known && { digest: known, current: ask() },
    });
  };
  /** The requests that write, or ask for a manifest; each tag by its number in `sboms`. */
  const requests = (sboms: readonly Sbom[]): readonly string[] =>
    proxy.log
      .filter((line) => !line.startsWith("GET /v2/ "))
      .map((line) =>
        sboms.reduce(
          (text, { subject }, i) => text.replace(sbomTag(subject), `SBOM${i}`),
          line.replace(/\/v2\/test\/app\d+/, ""),
        ),
      );
  /** Checks that cosign would find each document. */
  const expectPushed = async (sboms: readonly Sbom[], where = repository): Promise<void> => {
    await using client = makeClient();
    for (const { document, subject } of sboms) {
      const image = makeSbomImage(document);
      const found = await client.registry.getManifest(where, sbomTag(subject));
      expect(found).toEqual({ bytes: image.bytes, descriptor: image.descriptor });
      for (const descriptor of image.manifest.layers) {
        expect(await readAll(client.registry.openBlob(where, descriptor))).toEqual(document);
      }
      expect(await readAll(client.registry.openBlob(where, image.manifest.config))).toEqual(image.configBytes);
    }
  };

  test("pushes the SBOM of an image; the second time one HEAD request is all", async () => {
    const image = await describedImage();
    const references = image.sboms.map(({ subject }) => `${formatRepository(repository)}:${sbomTag(subject)}`);
    const logs = [];
    for (const _ of [1, 2]) {
      await using client = makeClient();
      proxy.reset();
      const [digest] = image.sboms.map(({ document }) => makeSbomImage(document).descriptor.digest);
      expect(await push(image, client)).toEqual({ references, digest: digest ?? "sha256:" });
      expect(client.said.filter((line) => line.startsWith("Published"))).toEqual(
        references.map((reference) => `Published SBOM ${reference}`),
      );
      logs.push(requests(image.sboms));
    }
    const [first = [], second] = logs;
    expect(first.filter((line) => line.startsWith("PUT /manifests"))).toEqual(["PUT /manifests/SBOM0 201"]);
    expect(second).toEqual(["HEAD /manifests/SBOM0 200"]);
    await expectPushed(image.sboms);
  });

  test("pushes those of an index's images before that of the index; the second time one HEAD request is all", async () => {
    const index = await describedIndex();
    await using client = makeClient();
    const { references } = await push(index, client);
    expect(references).toEqual(index.sboms.map(({ subject }) => `${formatRepository(repository)}:${sbomTag(subject)}`));
    const puts = requests(index.sboms).filter((line) => line.startsWith("PUT /manifests"));
    expect(puts.slice(0, 2).sort()).toEqual(["PUT /manifests/SBOM0 201", "PUT /manifests/SBOM1 201"]);
    expect(puts[2]).toBe("PUT /manifests/SBOM2 201");
    proxy.reset();
    await push(index, client);
    expect(requests(index.sboms)).toEqual(["HEAD /manifests/SBOM2 200"]);
    await expectPushed(index.sboms);
  });

  test("makes no document if the registry has the SBOM that is known, and makes it if that is gone", async () => {
    const index = await describedIndex();
    await using client = makeClient();
    const first = await push(index, client);
    proxy.reset();
    const make = async (): Promise<readonly Sbom[]> => {
      throw new KoError("the program is gone");
    };
    expect(await push(index, client, { known: first.digest, make })).toEqual(first);
    expect(requests(index.sboms)).toEqual(["HEAD /manifests/SBOM2 200"]);
    repository = { ...repository, path: `${repository.path}/empty` };
    const error = await rejectionOf(push(index, client, { known: first.digest, make }));
    expect(messageOf(error)).toEndWith("the image is published, its SBOM is not");
    expect(error instanceof KoError && messageOf(error.cause)).toBe("the program is gone");
  });

  test("a changed SBOM takes the place of the old one", async () => {
    const [old, changed] = [await describedImage("1"), await describedImage("2")];
    let known: Digest | undefined;
    for (const image of [old, changed]) {
      await using client = makeClient();
      known = (await push(image, client)).digest;
    }
    await expectPushed(changed.sboms);
    expect(known).toBe(changed.sboms.map(({ document }) => makeSbomImage(document).descriptor.digest)[0] ?? "sha256:");
  });

  test("a run that was cut off is completed by the next one", async () => {
    const index = await describedIndex();
    await using client = makeClient();
    const [, refused] = index.sboms.map(({ subject }) => sbomTag(subject));
    proxy.reset([{ method: "PUT", path: new RegExp(`/${refused}$`), fault: REFUSAL }]);
    expect(await rejectionOf(push(index, client))).toBeInstanceOf(KoError);
    // The other platform's may still be on its way.
    await client.registry[Symbol.asyncDispose]();
    await using next = makeClient();
    proxy.reset();
    await push(index, next);
    const puts = requests(index.sboms).filter((line) => line.startsWith("PUT /manifests"));
    expect(puts).toContain("PUT /manifests/SBOM1 201");
    expect(puts.at(-1)).toBe("PUT /manifests/SBOM2 201");
    await expectPushed(index.sboms);
  });

  test("a refusal says that the image is there, and names --sbom=none", async () => {
    await using client = makeClient();
    const image = await describedImage();
    const { built } = image;
    await pushContent(client.registry, { repository, built });
    await client.registry.pushManifest(repository, "latest", built);
    proxy.reset([{ method: "PUT", path: /\.sbom$/, fault: REFUSAL }]);
    const error = await rejectionOf(push(image, client));
    if (!(error instanceof KoError)) throw error;
    const name = `${formatRepository(repository)}@sha256:1`;
    expect({ message: error.message, hint: error.hint, exitCode: error.exitCode }).toEqual({
      message: `Cannot publish the SBOM of ${name}: the image is published, its SBOM is not`,
      hint: "Use --sbom=none to publish images without an SBOM.",
      exitCode: 1,
    });
    expect(messageOf(error.cause)).toContain("MANIFEST_INVALID: the media type is unknown here");
    expect(client.said.filter((line) => line.startsWith("Published"))).toEqual([]);
    expect((await client.registry.findManifest(repository, "latest"))?.digest).toBe(built.descriptor.digest);
  });

  test("an interrupted push ends with the interruption, not with a refusal", async () => {
    const stop = new AbortController();
    await using client = makeClient({ signal: stop.signal });
    const reason = new Error("interrupted");
    stop.abort(reason);
    expect(await rejectionOf(push(await describedImage(), client))).toBe(reason);
  });

  test("goes to the repository of COSIGN_REPOSITORY", async () => {
    await using client = makeClient();
    const { built, sboms } = await describedImage();
    const where = findSbomRepository({ COSIGN_REPOSITORY: `${proxy.host}/other/place` });
    if (where === undefined) throw new Error("no repository");
    const { references } = await push({ built, sboms }, client, { where });
    expect(references).toEqual(sboms.map(({ subject }) => `${proxy.host}/other/place:${sbomTag(subject)}`));
    expect(proxy.seen.map(({ path }) => path).filter((path) => path.includes(repository.path))).toEqual([]);
    await expectPushed(sboms, where);
  });
});

describe("sbomPublisher()", () => {
  test("a program that cannot be read ends no push of an image; its error comes at the end", async () => {
    using tree = writeTree({ text: "text" });
    const built = await randomImage();
    const host = hostAt(tree.path);
    const pushed: string[] = [];
    const registry: PushTarget = {
      findManifest: async () => undefined,
      pushBlob: async () => "present",
      streamBlob: async () => "present",
      pushManifest: async (_repository, tag) => void pushed.push(tag),
    };
    const context = { host, log: silentLog, timing: noTiming, signal: host.signal, cache: undefined };
    const tags = { names: ["latest"], only: false };
    const images = registryPublisher({ tags, registry: Promise.resolve(registry), log: silentLog, timing: noTiming });
    const publisher = sbomPublisher(images, {
      ...{ context, koVersion: "1", registry: Promise.resolve(registry) },
      plan: { registry: true, dir: undefined, layout: undefined },
    });
    const sink = publisher.open("r.example/app");
    const contents = [{ platform: { os: "linux", architecture: "amd64" }, files: [tree.at("text")] }];
    const { reference } = await sink.publish(built, { ...NEW, contents });
    expect(describeError(await rejectionOf(publisher.finish()))).toBe(
      [
        `Error: Cannot publish the SBOM of ${reference}: the image is published, its SBOM is not`,
        `: Cannot read the build information of "${tree.at("text")}": it is not an ELF, PE or 64-bit Mach-O file\n`,
        "  Use --sbom=none to publish images without an SBOM.",
      ].join(""),
    );
    expect(pushed).toEqual(["latest"]);
  });
});

describe("findSbomRepository()", () => {
  test.each<[string | undefined, Repository | undefined]>([
    [undefined, undefined],
    ["", undefined],
    ["ghcr.io/me/sboms", { host: "ghcr.io", path: "me/sboms" }],
    ["sboms", { host: "index.docker.io", path: "library/sboms" }],
  ])("%p", (value, expected) => {
    expect(findSbomRepository(value === undefined ? {} : { COSIGN_REPOSITORY: value })).toEqual(expected);
  });

  test.each(["ghcr.io/me/sboms:v1", "ghcr.io/Me", "https://ghcr.io/me"])("%s is refused", (value) => {
    expect(() => findSbomRepository({ COSIGN_REPOSITORY: value })).toThrow(UsageError);
    expect(() => findSbomRepository({ COSIGN_REPOSITORY: value })).toThrow(`Cannot use COSIGN_REPOSITORY "${value}"`);
  });
});

describe("writeSbom()", () => {
  const write = async (dir: string, cwd: string, sboms: readonly Sbom[]): Promise<readonly string[]> => {
    const said: string[] = [];
    const say = (message: string): void => void said.push(message);
    await writeSbom(dir, sboms, { importPath: "example.com/cmd/web", cwd, log: { info: say, warn: say, debug: say } });
    return said;
  };

  test("writes a file for each image and for the index, and makes the folders", async () => {
    using tree = writeTree({});
    const { sboms } = await describedIndex();
    expect(await write("./out/sboms/", tree.path, sboms)).toEqual([
      "Writing SBOM to out/sboms/web-linux-amd64.spdx.json",
      "Writing SBOM to out/sboms/web-linux-arm64-v8.spdx.json",
      "Writing SBOM to out/sboms/web-index.spdx.json",
    ]);
    const names = ["web-index.spdx.json", "web-linux-amd64.spdx.json", "web-linux-arm64-v8.spdx.json"];
    expect(readdirSync(tree.at("out/sboms")).sort()).toEqual(names);
    expect(statSync(tree.at("out/sboms/web-index.spdx.json")).mode & 0o777).toBe(0o644);
    for (const { document, name } of sboms) {
      expect(readFileSync(tree.at(`out/sboms/web-${name}.spdx.json`)).equals(document)).toBe(true);
    }
  });

  test("writes over an older file in one step", async () => {
    using tree = writeTree({ "out/web-linux-amd64.spdx.json": "old" });
    const before = statSync(tree.at("out/web-linux-amd64.spdx.json")).ino;
    const sboms = (await describedImage()).sboms;
    await write(tree.at("out"), "/", sboms);
    expect(readdirSync(tree.at("out"))).toEqual(["web-linux-amd64.spdx.json"]);
    expect(statSync(tree.at("out/web-linux-amd64.spdx.json")).ino).not.toBe(before);
  });

  test.each(["/dev/null", "/dev/null/x"])("names the flag when the folder cannot be made: %s", async (dir) => {
    const error = await rejectionOf(write(dir, "/", (await describedImage()).sboms));
    expect(error).toBeInstanceOf(KoError);
    expect(messageOf(error)).toBe(`Cannot write to --sbom-dir "${dir}"`);
  });
});

describe("prepareSbomDir()", () => {
  test("makes the folder", async () => {
    using tree = writeTree({});
    await prepareSbomDir("a/b", { cwd: tree.path, importPaths: ["example.com/a", "example.com/b", "example.com/a"] });
    expect(readdirSync(tree.at("a"))).toEqual(["b"]);
  });

  test.each<[string, string, readonly string[], string]>([
    ["a device", "/dev/null", [], `Cannot write to --sbom-dir "/dev/null"`],
    [
      "two programs with one last element",
      "out",
      ["example.com/x/web", "example.com/y/web"],
      `Cannot write the SBOMs of example.com/x/web and example.com/y/web to --sbom-dir "out": both files begin with "web"`,
    ],
  ])("%s is refused", async (_name, dir, importPaths, message) => {
    using tree = writeTree({});
    const error = await rejectionOf(prepareSbomDir(dir, { cwd: tree.path, importPaths }));
    expect(error).toBeInstanceOf(UsageError);
    expect(messageOf(error)).toBe(message);
    expect(readdirSync(tree.path)).toEqual([]);
  });
});

test("sbomTag() is the tag in which cosign looks", () => {
  expect(sbomTag(`sha256:${"0f".repeat(32)}`)).toBe(`sha256-${"0f".repeat(32)}.sbom`);
});
