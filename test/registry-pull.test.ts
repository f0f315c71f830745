/** Reading when something breaks or lies: a fault proxy before the real docker-registry. */
import { beforeAll, describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { type Descriptor, describe as describeBytes, MEDIA_TYPES } from "../lib/oci.ts";
import type { Repository } from "../lib/reference.ts";
import { failureOf, rejectionOf } from "./helpers/failures.ts";
import {
  bigBlob,
  makeClient,
  makeManifest,
  readAll,
  SHORT,
  type TestManifest,
  textBlob,
  user,
} from "./helpers/registry-client.ts";
import { type Fault, registrySuite, type Rule } from "./helpers/registry-fault-proxy.ts";

const { missing, other, proxy } = registrySuite();
const layer = bigBlob(400_000, 5);
const manifest: TestManifest = makeManifest([layer]);
const path = "test/down";
let repository: Repository;

beforeAll(async () => {
  if (missing) return;
  repository = { host: proxy.host, path };
  await using client = makeClient();
  await Promise.all([layer, manifest.config].map((blob) => client.registry.pushBlob(repository, blob)));
  await client.registry.pushManifest(repository, "v1", manifest);
});

const get = (fault: Fault, only?: readonly number[]): Rule => ({
  method: "GET",
  path: /\/(?:blobs|manifests)\//,
  fault,
  ...(only === undefined ? {} : { only }),
});

const ranges = (): readonly (string | undefined)[] =>
  proxy.seen.filter(({ path: asked }) => asked.includes("/blobs/")).map(({ headers }) => headers["range"]);

/**
 * Ranges with the wanted start in place of one that is a little before it: a busy machine may lose bytes that arrived
 * before their connection broke. None begins before the range that was asked for last.
 */
function roundUp(asked: readonly (string | undefined)[], wanted: readonly (string | undefined)[]): unknown {
  const startOf = (range: string | undefined): number => Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  return asked.map((range, i) => {
    const isBetween = startOf(range) > startOf(asked[i - 1]) && startOf(range) <= startOf(wanted[i]);
    return isBetween ? wanted[i] : range;
  });
}

describe.skipIf(missing)("openBlob()", () => {
  test.each<[string, Rule[], (string | undefined)[]]>([
    ["nothing breaks", [], [undefined]],
    ["an answer is 503", [get({ kind: "answer", status: 503 }, [1])], [undefined, undefined]],
    ["the connection is reset at once", [get({ kind: "reset" }, [1])], [undefined, undefined]],
    ["the body is cut", [get({ kind: "cut", bytes: 100_000 }, [1])], [undefined, "bytes=100000-"]],
    [
      "it is cut again and again",
      [get({ kind: "cut", bytes: 70_000 }, [1, 2, 3, 4, 5])],
      [undefined, ...[70, 140, 210, 280, 350].map((n) => `bytes=${n}000-`)],
    ],
    ["the body stalls", [get({ kind: "cut", bytes: 100_000, hang: true }, [1])], [undefined, "bytes=100000-"]],
    [
      "the registry gives the whole instead of the rest",
      [get({ kind: "cut", bytes: 100_000 }, [1]), get({ kind: "answer", status: 200, body: layer.bytes }, [1])],
      [undefined, "bytes=100000-"],
    ],
    [
      "the registry refuses to give a part",
      [get({ kind: "cut", bytes: 100_000 }, [1]), get({ kind: "answer", status: 416 }, [1])],
      [undefined, "bytes=100000-", undefined],
    ],
    [
      "the registry gives another part",
      [
        get({ kind: "cut", bytes: 100_000 }, [1]),
        get({ kind: "alter", headers: { "content-range": "bytes 5-9/400000" } }, [1]),
      ],
      [undefined, "bytes=100000-", undefined],
    ],
    [
      "the length that is announced is wrong once",
      [get({ kind: "alter", body: (bytes) => bytes.slice(0, 10) }, [1])],
      [undefined, undefined],
    ],
  ])("gives all bytes once when %s", async (_, rules, wanted) => {
    proxy.reset(rules);
    await using client = makeClient({ deadlines: SHORT });
    const bytes = await readAll(client.registry.openBlob(repository, layer.descriptor));
    expect({ same: Buffer.from(bytes).equals(layer.bytes), ranges: roundUp(ranges(), wanted) }).toEqual({
      same: true,
      ranges: wanted,
    });
  });

  test.each<[string, Fault, string]>([
    [
      "other bytes",
      { kind: "alter", body: (bytes) => bytes.map((byte) => byte ^ 1) },
      "its 400000 bytes have digest sha256:",
    ],
    [
      "unpacked bytes",
      { kind: "alter", headers: { "content-encoding": "gzip" }, body: (bytes) => gzipSync(bytes) },
      "wanted 400000",
    ],
  ])("refuses %s", async (_, fault, why) => {
    proxy.reset([get(fault)]);
    await using client = makeClient();
    const { message } = await failureOf(readAll(client.registry.openBlob(repository, layer.descriptor)));
    expect(message).toContain(why);
  });

  test("does not touch bytes that are called gzip", async () => {
    proxy.reset([get({ kind: "alter", headers: { "content-encoding": "gzip" } })]);
    await using client = makeClient();
    expect(Buffer.from(await readAll(client.registry.openBlob(repository, layer.descriptor))).equals(layer.bytes)).toBe(
      true,
    );
  });

  test("gives up in the end", async () => {
    proxy.reset([get({ kind: "reset" })]);
    await using client = makeClient();
    const { message } = await failureOf(readAll(client.registry.openBlob(repository, layer.descriptor)));
    expect({
      end: message.slice(message.indexOf(": GET")).replace(/http:\S+/, "URL"),
      waits: client.waits,
    }).toEqual({
      end: ": GET URL the connection failed (ECONNRESET) (after 5 attempts)",
      waits: [500, 1000, 2000, 4000],
    });
  });

  test.each<[string, Fault, string]>([
    ["the first byte never comes", { kind: "hang" }, "no answer"],
    ["each attempt brings some bytes, then nothing", { kind: "cut", bytes: 70_000, hang: true }, "no byte came"],
    ["each attempt brings few bytes, then nothing", { kind: "cut", bytes: 1, hang: true }, "no byte came"],
  ])("gives up on silence that lasts, in all attempts together: %s", async (_, fault, missingPart) => {
    proxy.reset([get(fault)]);
    await using client = makeClient({ deadlines: { ...SHORT, firstByte: 300, stall: 300, silence: 500 } });
    const started = performance.now();
    const { message } = await failureOf(readAll(client.registry.openBlob(repository, layer.descriptor)));
    const took = performance.now() - started;
    expect(message).toContain(missingPart);
    expect(message).toContain("in all");
    expect(took).toBeGreaterThan(450);
    expect(took).toBeLessThan(1500);
  });

  test("has no limit for a transfer that moves", async () => {
    // Each piece takes most of what the host may be silent in all.
    const pieces = 6;
    const size = Math.ceil(layer.bytes.byteLength / pieces);
    const slow = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: ({ url }) => {
        if (url.endsWith("/v2/")) return new Response();
        const body = async function* (): AsyncGenerator<Uint8Array> {
          for (let at = 0; at < layer.bytes.byteLength; at += size) {
            await Bun.sleep(100);
            yield layer.bytes.slice(at, at + size);
          }
        };
        return new Response(body());
      },
    });
    await using client = makeClient({ deadlines: { ...SHORT, firstByte: 1000, stall: 1000, silence: 250 } });
    const from = { host: `127.0.0.1:${slow.port}`, path };
    const bytes = await readAll(client.registry.openBlob(from, layer.descriptor));
    await slow.stop(true);
    expect(Buffer.from(bytes).equals(layer.bytes)).toBe(true);
  });

  test("closes the connection when the reader stops", async () => {
    await using client = makeClient();
    for await (const chunk of client.registry.openBlob(repository, layer.descriptor)) {
      expect(chunk.byteLength).toBeGreaterThan(0);
      break;
    }
    expect(await client.registry.hasBlob(repository, layer.descriptor)).toBe(true);
  });

  test("ends with the caller's reason", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    proxy.reset([get({ kind: "cut", bytes: 1000, hang: true })]);
    await using client = makeClient();
    const stream = client.registry.openBlob(repository, layer.descriptor, controller.signal);
    const work = (async () => {
      for await (const _ of stream) controller.abort(reason);
    })();
    expect(await rejectionOf(work)).toBe(reason);
  });

  test("uses the data of the descriptor, if its digest matches", async () => {
    await using client = makeClient();
    const { bytes, descriptor } = textBlob("inline");
    const data = Buffer.from(bytes).toString("base64");
    expect(await readAll(client.registry.openBlob(repository, { ...descriptor, data }))).toEqual(bytes);
    expect(proxy.seen).toEqual([]);
    const { status } = await failureOf(readAll(client.registry.openBlob(repository, { ...descriptor, data: "AAAA" })));
    expect(status).toBe(404);
  });

  test("takes a foreign layer from where its manifest says, without a name", async () => {
    proxy.demand = { kind: "basic", username: "joe", password: "s3cret-pass" };
    const foreign = textBlob("windows layer");
    other.reset([{ path: /^\/store/, fault: { kind: "answer", status: 200, body: foreign.bytes } }]);
    await using client = makeClient({ keychain: user });
    const descriptor: Descriptor = {
      ...foreign.descriptor,
      urls: ["http://169.254.169.254/x", `http://${other.host}/store`],
    };
    expect(await readAll(client.registry.openBlob(repository, descriptor))).toEqual(foreign.bytes);
    expect(other.seen.map(({ headers }) => headers["authorization"])).toEqual([undefined]);
  });
});

describe.skipIf(missing)("redirects of a GET", () => {
  const redirect = (location: string): Rule => get({ kind: "answer", status: 307, headers: { location } });

  test("are followed without the registry's credential", async () => {
    proxy.demand = { kind: "basic", username: "joe", password: "s3cret-pass" };
    proxy.reset([redirect(`http://${other.host}/v2/${path}/blobs/${layer.descriptor.digest}?sig=s3cret-sig`)]);
    await using client = makeClient({ keychain: user });
    const bytes = await readAll(client.registry.openBlob(repository, layer.descriptor));
    expect({
      same: Buffer.from(bytes).equals(layer.bytes),
      there: other.seen.map(({ headers }) => headers["authorization"]),
      said: client.said.join("\n").includes("s3cret-sig"),
    }).toEqual({ same: true, there: [undefined], said: false });
  });

  test("end after five", async () => {
    proxy.reset([redirect("$HOST/again".replace("$HOST", `http://${proxy.host}/v2/x/blobs`))]);
    await using client = makeClient();
    const { message } = await failureOf(readAll(client.registry.openBlob(repository, layer.descriptor)));
    expect(message).toEndWith("answered 307: more than 5 redirects");
    expect(ranges().length).toBe(6);
  });

  test("to where only this machine may look are refused", async () => {
    proxy.reset([redirect("http://169.254.169.254/latest/meta-data/")]);
    await using client = makeClient();
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith(" names is refused: 169.254.169.254 is a link-local address");
  });

  test("a host that is led to and asks who we are hears nothing", async () => {
    proxy.demand = { kind: "basic", username: "joe", password: "s3cret-pass" };
    other.demand = { kind: "basic", username: "joe", password: "s3cret-pass" };
    proxy.reset([redirect(`http://${other.host}/v2/${path}/manifests/v1`)]);
    await using client = makeClient({ keychain: user });
    const { status } = await failureOf(client.registry.getManifest(repository, "v1"));
    const heard = other.seen.map(({ headers }) => headers["authorization"]);
    other.demand = undefined;
    expect({ status, heard }).toEqual({ status: 401, heard: [undefined] });
  });

  test("nor does its token server", async () => {
    other.demand = { kind: "bearer" };
    proxy.demand = { kind: "basic", username: "joe", password: "s3cret-pass" };
    proxy.reset([redirect(`http://${other.host}/v2/${path}/manifests/v1`)]);
    await using client = makeClient({ keychain: user });
    const { descriptor } = await client.registry.getManifest(repository, "v1");
    const heard = other.seen.map(({ headers, path: asked }) => [asked.replace(/\?.*/, ""), headers["authorization"]]);
    other.demand = undefined;
    expect({ digest: descriptor.digest, heard }).toEqual({
      digest: manifest.descriptor.digest,
      heard: [
        [`/v2/${path}/manifests/v1`, undefined],
        ["/token", undefined],
        [`/v2/${path}/manifests/v1`, "Bearer token-1"],
      ],
    });
  });
});

describe.skipIf(missing)("getManifest()", () => {
  const zero = `sha256:${"0".repeat(64)}` as const;
  test.each<[string, Fault, string]>([
    [
      "a digest that is not the content's",
      { kind: "alter", headers: { "docker-content-digest": zero } },
      "the registry says that its digest is not",
    ],
    [
      "another Content-Type",
      { kind: "alter", headers: { "content-type": MEDIA_TYPES.ociIndex } },
      "its mediaType is not the Content-Type of the response",
    ],
    ["HTML", { kind: "answer", status: 200, body: "<html>welcome to the hotel</html>" }, "it is not JSON"],
    ["an old schema", { kind: "answer", status: 200, body: '{"schemaVersion":1}' }, "it is a schema 1 manifest"],
    [
      "something else",
      { kind: "answer", status: 200, body: "{}" },
      "it is neither an image manifest nor an image index",
    ],
    [
      "more than a manifest can be",
      { kind: "answer", status: 200, body: new Uint8Array(8 * 1024 * 1024 + 1) },
      "it is longer than 8388608 bytes",
    ],
  ])("refuses %s", async (_, fault, why) => {
    proxy.reset([get(fault)]);
    await using client = makeClient();
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toContain(why);
  });

  test("refuses content other than the digest asked for", async () => {
    proxy.reset([
      get({
        kind: "answer",
        status: 200,
        headers: { "content-type": MEDIA_TYPES.ociManifest },
        body: makeManifest([]).bytes,
      }),
    ]);
    await using client = makeClient();
    const { message } = await failureOf(client.registry.getManifest(repository, manifest.descriptor.digest));
    expect(message).toContain(
      `have digest ${makeManifest([]).descriptor.digest}, wanted ${manifest.descriptor.digest}`,
    );
  });

  test.each<[string, Partial<Descriptor>, string]>([
    ["size", { size: 1 }, "its index says 1"],
    ["media type", { mediaType: MEDIA_TYPES.dockerManifest }, `its index says ${MEDIA_TYPES.dockerManifest}`],
    ["digest", { digest: zero }, `wanted ${zero}`],
  ])("refuses another %s than the index said", async (_, part, why) => {
    await using client = makeClient();
    const expected = { ...manifest.descriptor, ...part };
    const { message } = await failureOf(client.registry.getManifest(repository, "v1", { expected }));
    expect(message).toContain(why);
  });

  test.each<[string, Fault]>([
    ["cut", { kind: "cut", bytes: 100 }],
    ["shortened", { kind: "alter", body: (bytes) => bytes.slice(0, 100) }],
    ["reset", { kind: "reset" }],
    ["hanging", { kind: "hang" }],
    ["busy", { kind: "answer", status: 503 }],
  ])("reads again a body that came %s", async (_, fault) => {
    proxy.reset([get(fault, [1])]);
    await using client = makeClient({ deadlines: SHORT });
    const { bytes } = await client.registry.getManifest(repository, manifest.descriptor.digest);
    expect(bytes).toEqual(manifest.bytes);
  });

  test("understands a Content-Type with parameters", async () => {
    proxy.reset([
      get({ kind: "alter", headers: { "content-type": `${MEDIA_TYPES.ociManifest.toUpperCase()}; charset=utf-8` } }),
    ]);
    await using client = makeClient();
    expect((await client.registry.getManifest(repository, "v1")).descriptor).toEqual(manifest.descriptor);
  });

  const generic = [
    "text/plain",
    "application/json",
    "application/octet-stream",
    "text/plain; charset=utf-8",
    "binary/x",
  ];
  test.each([...generic, undefined])("believes the document where Content-Type is %s", async (type) => {
    const rule = get({ kind: "alter", headers: { "content-type": type } });
    proxy.reset([rule, { ...rule, method: "HEAD" }]);
    await using client = makeClient();
    expect((await client.registry.getManifest(repository, "v1")).descriptor).toEqual(manifest.descriptor);
    expect(await client.registry.findManifest(repository, "v1")).toEqual(manifest.descriptor);
  });

  const of = (type: string): Descriptor => ({ ...layer.descriptor, mediaType: type });
  const inner = { mediaType: MEDIA_TYPES.dockerManifest, digest: layer.descriptor.digest, size: 7 };
  test.each<[string, object, string | undefined]>([
    ["an OCI image", { config: of(MEDIA_TYPES.ociConfig), layers: [] }, MEDIA_TYPES.ociManifest],
    ["a Docker image", { config: of(MEDIA_TYPES.dockerConfig), layers: [] }, MEDIA_TYPES.dockerManifest],
    ["an OCI index", { manifests: [{ ...inner, mediaType: MEDIA_TYPES.ociManifest }] }, MEDIA_TYPES.ociIndex],
    ["a Docker list", { manifests: [inner] }, MEDIA_TYPES.dockerList],
    ["an empty index", { manifests: [] }, MEDIA_TYPES.ociIndex],
    ["both at once", { manifests: [], config: of(MEDIA_TYPES.ociConfig), layers: [] }, undefined],
    ["an image without layers", { config: of(MEDIA_TYPES.ociConfig) }, undefined],
    ["any other JSON", { hello: "world" }, undefined],
    ["an obsolete one", { schemaVersion: 1, fsLayers: [] }, undefined],
  ])("tells the type of %s without any by its fields", async (_, fields, wanted) => {
    const bytes = new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, ...fields }));
    proxy.reset([get({ kind: "answer", status: 200, headers: { "content-type": "text/plain" }, body: bytes })]);
    await using client = makeClient();
    const work = client.registry.getManifest(repository, "v1");
    if (wanted !== undefined) expect((await work).descriptor).toEqual(describeBytes(wanted, bytes));
    else expect((await failureOf(work)).message).toMatch(/neither an image manifest nor an image index|schema 1/);
  });

  test("believes Content-Type where the document is silent", async () => {
    const bytes = new TextEncoder().encode(
      new TextDecoder().decode(manifest.bytes).replace(/"mediaType":"[^"]*manifest[^"]*",/, ""),
    );
    proxy.reset([
      get({ kind: "answer", status: 200, headers: { "content-type": MEDIA_TYPES.dockerManifest }, body: bytes }),
    ]);
    await using client = makeClient();
    expect((await client.registry.getManifest(repository, "v1")).descriptor).toEqual(
      describeBytes(MEDIA_TYPES.dockerManifest, bytes),
    );
  });
});

describe.skipIf(missing)("findManifest()", () => {
  const head = (fault: Fault): Rule => ({ method: "HEAD", path: /\/manifests\//, fault });
  test.each<[string, Rule[], boolean]>([
    ["403 is as good as nothing there", [head({ kind: "answer", status: 403 })], false],
    ["no digest: it is read", [head({ kind: "alter", headers: { "docker-content-digest": undefined } })], true],
    ["no length: it is read", [head({ kind: "alter", headers: { "content-length": undefined } })], true],
    ["a HEAD that is not supported: it is read", [head({ kind: "answer", status: 405 })], true],
  ])("%s", async (_, rules, found) => {
    proxy.reset(rules);
    await using client = makeClient();
    expect(await client.registry.findManifest(repository, "v1")).toEqual(found ? manifest.descriptor : undefined);
  });

  test("quotes the reason of the registry, which a HEAD does not have", async () => {
    proxy.reset([
      {
        path: /\/manifests\//,
        fault: { kind: "answer", status: 500, body: '{"errors":[{"code":"UNKNOWN","message":"disk full"}]}' },
      },
    ]);
    await using client = makeClient();
    const { codes, message } = await failureOf(client.registry.findManifest(repository, "v1"));
    expect({ codes, end: message.slice(message.indexOf("answered")) }).toEqual({
      codes: ["UNKNOWN"],
      end: "answered 500 (UNKNOWN: disk full)",
    });
  });
});

describe.skipIf(missing)("pushManifest()", () => {
  const put = (fault: Fault, only?: readonly number[]): Rule => ({
    method: "PUT",
    path: /\/manifests\//,
    fault,
    ...(only === undefined ? {} : { only }),
  });
  const zero = `sha256:${"0".repeat(64)}`;

  test("is repeated when the connection breaks or the registry is busy", async () => {
    proxy.reset([put({ kind: "answer", status: 503 }, [1]), put({ kind: "reset" }, [1])]);
    await using client = makeClient();
    await client.registry.pushManifest(repository, "again", manifest);
    expect((await client.registry.findManifest(repository, "again"))?.digest).toBe(manifest.descriptor.digest);
  });

  test.each<[string, Rule, string]>([
    [
      "says that it stored something else",
      put({ kind: "alter", headers: { "docker-content-digest": zero } }),
      `but it stored ${zero}`,
    ],
    ["takes it and does not have it", put({ kind: "answer", status: 201 }), "it took manifest"],
  ])("fails when the registry %s", async (_, rule, why) => {
    proxy.reset([
      rule,
      {
        method: "HEAD",
        path: new RegExp(`/manifests/${manifest.descriptor.digest}`),
        fault: { kind: "answer", status: 404 },
      },
    ]);
    await using client = makeClient();
    const { message } = await failureOf(client.registry.pushManifest(repository, `t${why.length}`, manifest));
    expect(message).toContain(why);
  });

  const looks = (status: number, headers?: Record<string, string>): Rule[] =>
    ["HEAD", "GET"].map((method) => {
      const fault = { kind: "answer", status, body: '{"errors":[{"code":"DENIED"}]}' } as const;
      return { method, path: /\/manifests\//, fault: headers === undefined ? fault : { ...fault, headers } };
    });
  const scope = { "www-authenticate": 'Bearer realm="http://$HOST/token",error="insufficient_scope"' };
  test.each<[string, Rule[]]>([
    ["403", looks(403)],
    ["401, for want of a scope", looks(401, scope)],
    ["403 before the push, 500 after it", [...looks(403).map((rule) => ({ ...rule, only: [1] })), ...looks(500)]],
    [
      "403, and its PUT says no digest",
      [put({ kind: "alter", headers: { "docker-content-digest": undefined } }), ...looks(403)],
    ],
  ])("has succeeded where a look is answered with %s", async (_, rules) => {
    proxy.demand = { kind: "bearer" };
    proxy.reset(rules);
    await using client = makeClient({ keychain: user });
    await client.registry.pushManifest(repository, "unseen", manifest);
    proxy.reset();
    expect((await client.registry.findManifest(repository, "unseen"))?.digest).toBe(manifest.descriptor.digest);
  });

  test("fails where a look is answered with 403, but the PUT with another digest", async () => {
    proxy.reset([put({ kind: "alter", headers: { "docker-content-digest": zero } }), ...looks(403)]);
    await using client = makeClient();
    const { message } = await failureOf(client.registry.pushManifest(repository, "unseen", manifest));
    expect(message).toContain(`but it stored ${zero}`);
  });

  test("waits for a registry that needs a moment", async () => {
    const rule: Rule = {
      method: "HEAD",
      path: /\/manifests\/sha256/,
      fault: { kind: "answer", status: 404 },
      only: [1, 2],
    };
    proxy.reset([rule]);
    await using client = makeClient();
    await client.registry.pushManifest(repository, "moment", manifest);
    expect(client.waits).toEqual([1000, 2000]);
  });

  test.each<[string, number, string, string | undefined]>([
    [
      "an immutable tag",
      412,
      "PRECONDITION",
      "The registry does not allow moving this tag: choose another one with -t.",
    ],
    [
      "an immutable tag elsewhere",
      400,
      "TAG_INVALID",
      "The registry does not allow moving this tag: choose another one with -t.",
    ],
    ["an invalid manifest", 400, "MANIFEST_INVALID", undefined],
  ])("does not try %s again", async (_, status, code, hint) => {
    proxy.reset([put({ kind: "answer", status, body: JSON.stringify({ errors: [{ code, message: "no" }] }) })]);
    await using client = makeClient();
    const failure = await failureOf(client.registry.pushManifest(repository, "fixed", manifest));
    const puts = proxy.seen.filter(({ method }) => method === "PUT").length;
    expect({ ...failure, message: "", puts }).toEqual({ message: "", hint, status, codes: [code], puts: 1 });
  });

  test("refuses more than registries take", async () => {
    await using client = makeClient();
    const bytes = new Uint8Array(4 * 1024 * 1024 + 1);
    const big = { descriptor: describeBytes(MEDIA_TYPES.ociManifest, bytes), bytes };
    expect((await failureOf(client.registry.pushManifest(repository, "big", big))).message).toContain(
      "registries take at most 4194304",
    );
  });
});

describe.skipIf(missing)("refusals", () => {
  const body = (text: string | Uint8Array, headers: Record<string, string> = {}): Rule =>
    get({ kind: "answer", status: 418, headers, body: text });
  test.each<[string, Rule, string]>([
    ["garbage", body(new Uint8Array([0xff, 0, 0x1b, 0x5b, 0x32, 0x4a])), "answered 418 (\ufffd\\x00\\x1b[2J)"],
    [
      "a page",
      body("<html><head><title>Bad\u001b[2J Gateway</title></head><body>x</body></html>", {
        "content-type": "text/html",
      }),
      "answered 418 (Bad\\x1b[2J Gateway)",
    ],
    ["nothing", body(""), "answered 418"],
    ["a novel", body("x".repeat(10_000_000)), "answered 418 (its error body is longer than 64 KiB)"],
    ["many lines", body("a\nb\nc\nd\ne"), "answered 418 (a; b; c)"],
    [
      "odd errors",
      body('{"errors":[{"code":"bad code\\n","message":7},null,{"code":"DENIED","message":"no"}]}'),
      "answered 418 (DENIED: no)",
    ],
  ])("keep the status when the body is %s", async (_, rule, end) => {
    proxy.reset([rule]);
    await using client = makeClient();
    const { message, status } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect({ end: message.slice(message.indexOf("answered")), status }).toEqual({ end, status: 418 });
  });
});
