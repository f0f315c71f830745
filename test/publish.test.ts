import { beforeEach, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { isLocal, type Place, type TagRule } from "../lib/publish-destination.ts";
import { messageOf } from "../lib/errors.ts";
import type { BlobStream, Built, ImageSink, Layer, Published } from "../lib/image.ts";
import { hexOf } from "../lib/oci.ts";
import { silentLog } from "../lib/log.ts";
import { Resources } from "../lib/pipeline-resources.ts";
import { type LocalPlace, localPublisher } from "../lib/publish-local.ts";
import {
  formatTags,
  type Publisher,
  type PushTarget,
  registryPublisher,
  teePublisher,
  writeImageRefs,
} from "../lib/publish.ts";
import { noTiming } from "../lib/timing.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { NEW, randomImage, randomIndex, REUSED } from "./helpers/images.ts";
import { makeClient, type TestClient } from "./helpers/registry-client.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { whyNoRegistry } from "./helpers/registry.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const PUBLISHED: readonly Published[] = [
  { reference: "r/a@sha256:1", all: ["r/a@sha256:1"] },
  { reference: "r/b@sha256:2", all: ["r/b@sha256:2", "r/b@sha256:3"] },
];
const TEXT = "r/a@sha256:1\nr/b@sha256:2\nr/b@sha256:3\n";

describe("writeImageRefs()", () => {
  test("writes a line for each image, and no other file", async () => {
    using tree = writeTree({});
    await writeImageRefs(tree.at("refs"), PUBLISHED);
    expect(readdirSync(tree.path)).toEqual(["refs"]);
    expect(readFileSync(tree.at("refs"), "utf8")).toBe(TEXT);
  });

  test("names the flag when it fails", async () => {
    using tree = writeTree({ dir: null });
    const error = await rejectionOf(writeImageRefs(tree.at("dir"), PUBLISHED));
    expect(messageOf(error)).toBe(`Cannot write --image-refs "${tree.at("dir")}"`);
  });
});

const NAME = "r.example/me/app";
const LATEST: TagRule = { names: ["latest"], only: false };

/** Publishes one image to one place, or to none; the daemon and the registry have it already. */
async function publish(built: Built, place: Place | undefined, tags: TagRule, cwd = "/"): Promise<Published> {
  const { descriptor } = built;
  if (place?.kind === "registry") {
    const pushed: PushTarget = {
      findManifest: async () => descriptor,
      pushBlob: async () => "present",
      streamBlob: async () => "present",
      pushManifest: async () => {},
    };
    const registry = Promise.resolve(pushed);
    return registryPublisher({ tags, registry, log: silentLog, timing: noTiming }).open(NAME).publish(built, REUSED);
  }
  if (place !== undefined && isLocal(place)) {
    const found: LocalPlace = {
      platform: async () => ({ os: "linux", architecture: "amd64" }),
      load: async () => "present",
      [Symbol.asyncDispose]: async () => {},
    };
    return localPublisher({ timing: noTiming, tags, place: Promise.resolve(found), log: silentLog })
      .open(NAME)
      .publish(built, REUSED);
  }
  const host = hostAt(cwd);
  const context = { host, log: silentLog, timing: noTiming, signal: host.signal, cache: undefined };
  await using resources = new Resources({ context, insecureHosts: [], registries: new Map(), compress: true });
  const places = place === undefined ? [] : [place];
  const publisher = await resources.publisher({ repository: "", also: [], places, sbom: undefined, tags });
  return await publisher.open(NAME).publish(built, REUSED);
}

describe("formatTags()", () => {
  test.each([
    ["NAME@DIGEST", [], ""],
    ["NAME@DIGEST", ["latest"], ""],
    ["NAME:v1@DIGEST", ["v1"], ""],
    ["NAME:v1", ["v1"], ""],
    ["NAME:0f3c", ["dev"], " (dev)"],
    ["NAME@DIGEST", ["v1", "latest"], " (v1, latest)"],
  ])("of %s with the tags %j is %j", (reference, names, wanted) => {
    expect(formatTags(reference, names)).toBe(wanted);
  });
});

describe("the reference of an image", () => {
  const NOWHERE = undefined;
  const REGISTRY: Place = { kind: "registry" };
  const ARCHIVES: readonly Place[] = [
    { kind: "tarball", file: "/dev/null" },
    { kind: "oci-archive", file: "/dev/null" },
  ];
  const LOCAL: readonly Place[] = (["daemon", "kind", "k3d", "minikube"] as const).map((kind) => ({ kind }));

  test.each<[string, readonly (Place | undefined)[], readonly (readonly [tags: string, reference: string])[]]>([
    [
      "a registry shows the only tag, if it is not latest",
      [REGISTRY],
      [
        ["", "NAME@DIGEST"],
        ["latest", "NAME@DIGEST"],
        ["v1", "NAME:v1@DIGEST"],
        ["v1,v2", "NAME@DIGEST"],
        ["latest,v1", "NAME@DIGEST"],
        ["v1,latest", "NAME@DIGEST"],
        ["v1 only", "NAME:v1"],
      ],
    ],
    [
      "so does an archive, also where nothing is pushed",
      ARCHIVES,
      [
        ["", "NAME@DIGEST"],
        ["latest", "NAME@DIGEST"],
        ["v1", "NAME:v1@DIGEST"],
        ["v1,v2", "NAME@DIGEST"],
        ["latest,v1", "NAME@DIGEST"],
        ["v1 only", "NAME:v1"],
        ["latest only", "NAME"],
        ["v1,v2 only", "NAME"],
      ],
    ],
    [
      "without a place, the first tag is shown",
      [NOWHERE],
      [
        ["", "NAME@DIGEST"],
        ["latest", "NAME:latest@DIGEST"],
        ["v1", "NAME:v1@DIGEST"],
        ["v1,v2", "NAME:v1@DIGEST"],
        ["latest,v1", "NAME:latest@DIGEST"],
        ["v1 only", "NAME:v1"],
        ["latest only", "NAME:latest"],
        ["v1,v2 only", "NAME:v1"],
      ],
    ],
    [
      "a local target shows the content's tag, or the first tag",
      LOCAL,
      [
        ["", "NAME:HEX"],
        ["latest", "NAME:HEX"],
        ["v1", "NAME:HEX"],
        ["v1,v2", "NAME:HEX"],
        ["v1 only", "NAME:v1"],
        ["latest only", "NAME:latest"],
        ["v1,v2 only", "NAME:v1"],
      ],
    ],
    [
      "a layout shows its folder and the digest",
      [{ kind: "layout", path: "out//" }],
      ["", "latest", "v1", "v1,v2", "v1 only", "latest only", "v1,v2 only"].map(
        (tags) => [tags, "out@DIGEST"] as const,
      ),
    ],
  ])("%s", async (_, places, rows) => {
    using tree = writeTree({});
    const image = await randomImage();
    const { digest } = image.descriptor;
    for (const place of places) {
      const got: string[][] = [];
      for (const [text] of rows) {
        const [list = "", only] = text.split(" ");
        const tags = { names: list === "" ? [] : list.split(","), only: only !== undefined };
        const { reference, all } = await publish(image, place, tags, tree.path);
        expect(all).toEqual([reference]);
        got.push([text, reference]);
      }
      const wanted = rows.map(([text, reference]) => [
        text,
        reference.replace("NAME", NAME).replace("DIGEST", digest).replace("HEX", hexOf(digest)),
      ]);
      expect(got).toEqual(wanted);
    }
  });

  test.each<[Place | undefined, string]>([
    [undefined, NAME],
    [REGISTRY, NAME],
    [{ kind: "oci-archive", file: "/dev/null" }, NAME],
    [{ kind: "layout", path: "layout" }, "layout"],
    [{ kind: "layout", path: "layout/" }, "layout"],
    [{ kind: "layout", path: "./layout//" }, "./layout"],
  ])("lists an index and its images by digest: %j", async (place, shown) => {
    using tree = writeTree({});
    const index = await randomIndex();
    const { all } = await publish(index, place, LATEST, tree.path);
    expect(all).toEqual([index, ...index.children].map((item) => `${shown}@${item.descriptor.digest}`));
    if (place?.kind === "layout") expect(statSync(tree.at("layout/index.json")).isFile()).toBe(true);
  });
});

describe("teePublisher()", () => {
  const REFERENCE: Published = { reference: "x", all: ["x"] };
  const NO_LAYER: BlobStream = { read: async function* () {}, done: new Promise(() => {}) };

  /** Two places that write their calls to `calls`; the one named in `broken` cannot publish. */
  function twoPlaces(calls: string[], broken?: string): Publisher {
    const place = (id: string): Publisher => ({
      open: (name) => {
        calls.push(`${id} open ${name}`);
        return {
          addLayer: (_, { changed }) => void calls.push(`${id} layer ${changed}`),
          publish: async (_, { reused }) => {
            calls.push(`${id} publish ${reused}`);
            if (id === broken) throw new Error(`${id} is full`);
            return { reference: `${id}/${name}`, all: [] };
          },
        };
      },
      finish: async () => void calls.push(`${id} finish`),
    });
    return teePublisher([place("a"), place("b")]);
  }

  test("does everything in each place, in their order, and returns the last place's reference", async () => {
    const calls: string[] = [];
    const publisher = twoPlaces(calls);
    const sink = publisher.open("app");
    sink.addLayer(NO_LAYER, { changed: true });
    const published = await sink.publish(await randomImage(), NEW);
    await publisher.finish();
    expect({ published, calls }).toEqual({
      published: { reference: "b/app", all: [] },
      calls: [
        "a open app",
        "b open app",
        "a layer true",
        "b layer true",
        "a publish false",
        "b publish false",
        "a finish",
        "b finish",
      ],
    });
  });

  test("publishes nowhere else after a failure", async () => {
    const calls: string[] = [];
    const sink = twoPlaces(calls, "a").open("app");
    const error = await rejectionOf(sink.publish(await randomImage(), REUSED));
    expect({ error, calls }).toEqual({
      error: new Error("a is full"),
      calls: ["a open app", "b open app", "a publish true"],
    });
  });

  test("is the same as its only place", async () => {
    const only: Publisher = {
      open: () => ({ addLayer: () => {}, publish: async () => REFERENCE }),
      finish: async () => {},
    };
    expect(
      await teePublisher([only])
        .open("x")
        .publish(await randomImage(), NEW),
    ).toBe(REFERENCE);
  });
});

describe.skipIf(whyNoRegistry() !== undefined)("registryPublisher()", () => {
  const { proxy, repository } = registrySuite();
  let name = "";

  beforeEach(() => {
    name = `${repository.host}/${repository.path}`;
  });

  function openSink({ registry }: TestClient, names: readonly string[] = ["latest"]): ImageSink {
    const options = { registry: Promise.resolve(registry), log: silentLog, timing: noTiming };
    return registryPublisher({ ...options, tags: { names, only: false } }).open(name);
  }

  /** Publishes with a client of its own, so that the client of the test knows nothing of it. */
  async function publishBefore(image: Built): Promise<void> {
    await using client = makeClient();
    await openSink(client).publish(image, NEW);
    proxy.reset();
  }

  /** The requests but the ping, without the repository: `PUT manifests/latest 201`. */
  const requests = (): readonly string[] =>
    proxy.log.filter((line) => !line.includes(" /v2/ ")).map((line) => line.replace(/ \/v2\/test\/app\d+\//, " "));
  const waitFor = (request: RegExp): Promise<void> => waitUntil(() => requests().some((line) => request.test(line)));
  const digits = ({ descriptor }: Pick<Built, "descriptor">): string => descriptor.digest.slice(7, 11);

  /** A layer that is being made: ends when `end()` is called. */
  function makeStream(layer: Layer): { readonly stream: BlobStream<Layer>; readonly end: (failure?: Error) => void } {
    const done = Promise.withResolvers<Layer>();
    const stream: BlobStream<Layer> = {
      read: async function* (signal) {
        yield* layer.open(signal);
        await done.promise.catch(() => {});
      },
      done: done.promise,
    };
    return { stream, end: (failure) => (failure === undefined ? done.resolve(layer) : done.reject(failure)) };
  }

  /** Large enough that it is worth an upload before it is complete. */
  const largeImage = (seed: string): ReturnType<typeof randomImage> =>
    randomImage({ seed, fileSize: 600_000, layers: 1 });
  const onlyLayer = async (seed: string): Promise<Layer> => {
    const [layer] = (await largeImage(seed)).layers;
    if (layer === undefined) throw new Error("no layer");
    return layer;
  };

  test("asks for the manifest when the sink is opened, and sends nothing for a reused image that is there", async () => {
    const image = await randomImage();
    await publishBefore(image);
    await using client = makeClient();
    const sink = openSink(client);
    await waitFor(/ 200$/);
    const { reference } = await sink.publish(image, REUSED);
    expect({ reference, requests: requests() }).toEqual({
      reference: `${name}@${image.descriptor.digest}`,
      requests: ["HEAD manifests/latest 200"],
    });
  });

  test("asks again for an image that was built: the first answer may be outdated", async () => {
    const image = await randomImage();
    await publishBefore(image);
    await using client = makeClient();
    const sink = openSink(client);
    await waitFor(/ 200$/);
    await sink.publish(image, NEW);
    expect(requests()).toEqual(["HEAD manifests/latest 200", "HEAD manifests/latest 200"]);
  });

  test("stores blobs, then the manifests of an index, then the index under its tags", async () => {
    const index = await randomIndex();
    await using client = makeClient();
    await openSink(client, ["v1", "v2"]).publish(index, NEW);
    const puts = requests().filter((line) => line.startsWith("PUT"));
    const blobs = index.children.length * 3;
    expect(puts.slice(0, blobs)).toEqual(Array.from({ length: blobs }, () => "PUT blobs/uploads/UUID 201"));
    const children = index.children.map((child) => `PUT manifests/${digits(child)} 201`);
    expect(puts.slice(blobs, -2).toSorted()).toEqual(children.toSorted());
    expect(puts.slice(-2)).toEqual(["PUT manifests/v1 201", "PUT manifests/v2 201"]);
  });

  test("pushes by digest alone without a tag, and nothing that is there", async () => {
    const image = await largeImage("untagged");
    const index = await randomIndex();
    await using client = makeClient();
    expect((await openSink(client, []).publish(index, NEW)).reference).toBe(`${name}@${index.descriptor.digest}`);
    const puts = requests().filter((line) => line.startsWith("PUT manifests"));
    expect(puts.at(-1)).toBe(`PUT manifests/${digits(index)} 201`);
    expect(puts).toHaveLength(index.children.length + 1);
    await openSink(client, []).publish(image, NEW);
    await using later = makeClient();
    proxy.reset();
    const sink = openSink(later, []);
    const { stream, end } = makeStream(await onlyLayer("untagged"));
    sink.addLayer(stream, { changed: false });
    end();
    await sink.publish(image, REUSED);
    expect(requests().filter((line) => !line.startsWith("HEAD"))).toEqual([]);
  });

  test.each<[string, { readonly existing: boolean; readonly changed: boolean; readonly early: boolean }]>([
    ["sends a layer while it is made, where there is no image", { existing: false, changed: false, early: true }],
    ["sends a layer that changed while it is made", { existing: true, changed: true, early: true }],
    ["waits for the digest of a layer that may be there", { existing: true, changed: false, early: false }],
  ])("%s", async (_, { existing, changed, early }) => {
    const old = await largeImage("old");
    if (existing) await publishBefore(old);
    await using client = makeClient();
    const sink = openSink(client);
    const { stream, end } = makeStream(await onlyLayer(early ? "new" : "old"));
    sink.addLayer(stream, { changed });
    await waitFor(early ? /^PATCH/ : /^HEAD manifests/);
    end();
    await sink.publish(early ? await largeImage("new") : old, NEW);
    expect(requests().filter((line) => line.startsWith("PATCH"))).toEqual(
      early ? ["PATCH blobs/uploads/UUID 202"] : [],
    );
  });

  test("cancels the upload of a layer that fails, without a rejection", async () => {
    await using client = makeClient();
    const sink = openSink(client);
    const { stream, end } = makeStream(await onlyLayer("fails"));
    sink.addLayer(stream, { changed: false });
    await waitFor(/^PATCH/);
    end(new Error("the disk is full"));
    await waitFor(/^DELETE/);
    expect(requests().filter((line) => line.startsWith("PUT"))).toEqual([]);
  });

  test("sends a layer again in publish() if its first upload fails", async () => {
    proxy.reset([{ method: "PATCH", path: /\/blobs\//, fault: { kind: "answer", status: 500 } }]);
    await using client = makeClient();
    const sink = openSink(client);
    const { stream, end } = makeStream(await onlyLayer("again"));
    sink.addLayer(stream, { changed: false });
    await waitFor(/^PATCH/);
    end();
    await sink.publish(await largeImage("again"), NEW);
    expect(requests()).toContain("PUT manifests/latest 201");
  });

  test("refuses a name that cannot be pushed to in publish(), and not before", async () => {
    await using client = makeClient();
    name = `${proxy.host}/a..b`;
    const sink = openSink(client);
    sink.addLayer(makeStream(await onlyLayer("unnamed")).stream, { changed: true });
    const error = await rejectionOf(sink.publish(await randomImage(), NEW));
    expect(messageOf(error)).toStartWith(`Cannot push to "${proxy.host}/a..b"`);
  });
});
