/** The client against the real docker-registry, with a recording proxy between them; nothing breaks here. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { dirname, join } from "node:path";
import { describe as describeBytes, MEDIA_TYPES } from "../lib/oci.ts";
import { failureOf, rejectionOf } from "./helpers/failures.ts";
import { bigBlob, makeClient, makeManifest, readAll, SHORT, textBlob } from "./helpers/registry-client.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";

const { missing, proxy, repository } = registrySuite();

const at = (text: string): string => text.replaceAll("$R", `/v2/${repository.path}`);
/** A session is gone when the DELETE took it, or when the registry saw first that the connection broke. */
const gone = (line: string | undefined): string | undefined => line?.replace(/^(DELETE .*) (?:204|404)$/, "$1 gone");
const digits = (digest: string): string => digest.slice(7, 11);

describe.skipIf(missing)("Registry", () => {
  test("pushes blobs and a manifest in few requests, and reads them back", async () => {
    await using client = makeClient();
    const layer = textBlob("layer");
    const manifest = makeManifest([layer]);
    const results = [
      await client.registry.pushBlob(repository, layer),
      await client.registry.pushBlob(repository, manifest.config),
    ];
    await client.registry.pushManifest(repository, "v1", manifest);
    const [l, c, m] = [layer, manifest.config, manifest].map(({ descriptor }) => digits(descriptor.digest));
    expect({ results, log: proxy.log }).toEqual({
      results: ["uploaded", "uploaded"],
      log: [
        "GET /v2/ 200",
        `HEAD $R/blobs/${l} 404`,
        "POST $R/blobs/uploads/ 202",
        "PUT $R/blobs/uploads/UUID 201",
        `HEAD $R/blobs/${c} 404`,
        "POST $R/blobs/uploads/ 202",
        "PUT $R/blobs/uploads/UUID 201",
        "HEAD $R/manifests/v1 404",
        "PUT $R/manifests/v1 201",
        `HEAD $R/manifests/${m} 200`,
      ].map(at),
    });
    const { bytes, descriptor } = manifest;
    expect(await client.registry.getManifest(repository, "v1")).toEqual({ bytes, descriptor });
    expect(await client.registry.getManifest(repository, descriptor.digest, { expected: descriptor })).toEqual({
      bytes,
      descriptor,
    });
    expect(await client.registry.findManifest(repository, "v1")).toEqual(descriptor);
    expect(await readAll(client.registry.openBlob(repository, layer.descriptor))).toEqual(layer.bytes);
  });

  test("a second run of the same push uploads nothing", async () => {
    const layer = bigBlob(300_000);
    const manifest = makeManifest([layer]);
    const push = async (): Promise<readonly string[]> => {
      await using client = makeClient();
      const results = await Promise.all(
        [layer, manifest.config].map((blob) => client.registry.pushBlob(repository, blob)),
      );
      for (const tag of ["v1", "latest"]) await client.registry.pushManifest(repository, tag, manifest);
      return results;
    };
    const first = await push();
    proxy.reset();
    const second = await push();
    expect({ first, second, writes: proxy.seen.filter(({ method }) => method !== "GET" && method !== "HEAD") }).toEqual(
      {
        first: ["uploaded", "uploaded"],
        second: ["present", "present"],
        writes: [],
      },
    );
  });

  test("a tag moves", async () => {
    await using client = makeClient();
    const [one, two] = [makeManifest([]), makeManifest([textBlob("x")])];
    await client.registry.pushBlob(repository, one.config);
    await client.registry.pushBlob(repository, textBlob("x"));
    await client.registry.pushManifest(repository, "v1", one);
    await client.registry.pushManifest(repository, "v1", two);
    expect((await client.registry.findManifest(repository, "v1"))?.digest).toBe(two.descriptor.digest);
    expect((await client.registry.findManifest(repository, one.descriptor.digest))?.digest).toBe(one.descriptor.digest);
  });

  test("an index goes after its manifests", async () => {
    await using client = makeClient();
    const manifest = makeManifest([]);
    const value = { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: [manifest.descriptor] };
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    const index = { descriptor: describeBytes(MEDIA_TYPES.ociIndex, bytes), bytes };
    const early = await failureOf(client.registry.pushManifest(repository, "v1", index));
    expect({ status: early.status, codes: early.codes }).toEqual({ status: 400, codes: ["MANIFEST_BLOB_UNKNOWN"] });
    await client.registry.pushBlob(repository, manifest.config);
    await client.registry.pushManifest(repository, manifest.descriptor.digest, manifest);
    await client.registry.pushManifest(repository, "v1", index);
    expect(await client.registry.getManifest(repository, "v1")).toEqual(index);
  });

  test("Docker's media types stay Docker's", async () => {
    await using client = makeClient();
    const manifest = makeManifest([], MEDIA_TYPES.dockerManifest);
    await client.registry.pushBlob(repository, manifest.config);
    await client.registry.pushManifest(repository, "v1", manifest);
    expect((await client.registry.getManifest(repository, "v1")).descriptor).toEqual(manifest.descriptor);
  });

  test("mounts what another repository of the same registry has", async () => {
    await using client = makeClient();
    const blob = textBlob("to be mounted");
    await client.registry.pushBlob(repository, blob);
    const target = { ...repository, path: `${repository.path}/copy` };
    proxy.reset();
    const result = await client.registry.pushBlob(target, { ...blob, source: repository });
    const id = digits(blob.descriptor.digest);
    expect({ result, log: proxy.log, query: proxy.seen[1]?.path.replace(/^.*\?/, "") }).toEqual({
      result: "mounted",
      log: [`HEAD $R/copy/blobs/${id} 404`, "POST $R/copy/blobs/uploads/ 201", `HEAD $R/copy/blobs/${id} 200`].map(at),
      query: `mount=${encodeURIComponent(blob.descriptor.digest)}&from=${encodeURIComponent(repository.path)}`,
    });
  });

  test("a mount that the registry cannot do becomes an upload in the session it opened", async () => {
    await using client = makeClient();
    const blob = textBlob("not there", { host: repository.host, path: "nobody/has/it" });
    const result = await client.registry.pushBlob(repository, blob);
    expect({ result, log: proxy.log.slice(2) }).toEqual({
      result: "uploaded",
      log: ["POST $R/blobs/uploads/ 202", "PUT $R/blobs/uploads/UUID 201"].map(at),
    });
  });

  test("never tells a registry about another one", async () => {
    await using client = makeClient();
    await client.registry.pushBlob(repository, textBlob("from afar", { host: "secret.example", path: "base" }));
    expect(proxy.seen.filter(({ path }) => path.includes("mount") || path.includes("secret"))).toEqual([]);
  });

  test("the same blob is pushed once, however many ask", async () => {
    await using client = makeClient();
    const blob = bigBlob(200_000);
    const results = await Promise.all([1, 2, 3, 4].map(() => client.registry.pushBlob(repository, blob)));
    expect({ results, posts: proxy.log.filter((line) => line.startsWith("POST")).length }).toEqual({
      results: ["uploaded", "uploaded", "uploaded", "uploaded"],
      posts: 1,
    });
  });

  test("the empty blob is a blob", async () => {
    await using client = makeClient();
    const blob = textBlob("");
    expect(await client.registry.pushBlob(repository, blob)).toBe("uploaded");
    expect(await readAll(client.registry.openBlob(repository, blob.descriptor))).toEqual(new Uint8Array(0));
  });

  test("foreign layers are not pushed", async () => {
    await using client = makeClient();
    const blob = textBlob("windows");
    const mediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    const result = await client.registry.pushBlob(repository, {
      ...blob,
      descriptor: { ...blob.descriptor, mediaType },
    });
    expect({ result, log: proxy.log }).toEqual({ result: "present", log: [] });
  });

  test("uploads at most as many at once as it should", async () => {
    await using client = makeClient({ uploads: 2 });
    let running = 0;
    let most = 0;
    const blobs = Array.from({ length: 8 }, (_, i) => bigBlob(100_000, i + 10));
    const counted = blobs.map((blob) => ({
      ...blob,
      open: async function* (signal?: AbortSignal) {
        most = Math.max(most, ++running);
        // Long enough for all the others to begin as well, if they were let.
        for (let i = 0; i < 3; i++) await (await fetch(`http://${repository.host}/v2/`)).text();
        yield* blob.open(signal);
        running--;
      },
    }));
    await Promise.all(counted.map((blob) => client.registry.pushBlob(repository, blob)));
    expect(most).toBe(2);
  });

  test("sends who it is, what it accepts, and the length of a body", async () => {
    await using client = makeClient();
    await client.registry.pushBlob(repository, bigBlob(100_000));
    await client.registry.findManifest(repository, "v1");
    const put = proxy.seen.find(({ method }) => method === "PUT");
    const head = proxy.seen.at(-1);
    expect({
      agents: new Set(proxy.seen.map(({ headers }) => headers["user-agent"])),
      put: [put?.headers["content-type"], put?.headers["content-length"], put?.headers["transfer-encoding"], put?.size],
      accept: head?.headers["accept"],
      encoding: head?.headers["accept-encoding"],
    }).toEqual({
      agents: new Set(["ko/test"]),
      put: ["application/octet-stream", "100000", undefined, 100_000],
      accept: [MEDIA_TYPES.dockerManifest, MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerList, MEDIA_TYPES.ociIndex].join(
        ", ",
      ),
      encoding: "identity",
    });
  });

  test("what is not there is not there", async () => {
    await using client = makeClient();
    const { descriptor } = textBlob("nowhere");
    expect(await client.registry.findManifest(repository, "v1")).toBeUndefined();
    expect(await client.registry.hasBlob(repository, descriptor)).toBe(false);
    const name = `${repository.host}/${repository.path}`;
    expect(await failureOf(client.registry.getManifest(repository, "v1"))).toEqual({
      message: `Cannot read manifest "${name}:v1": GET http://${repository.host}${at("$R")}/manifests/v1 answered 404 (MANIFEST_UNKNOWN: manifest unknown), without a credential: there is none for ${repository.host}`,
      hint: "Check the name and the tag of the image.",
      status: 404,
      codes: ["MANIFEST_UNKNOWN"],
    });
    const blob = await failureOf(readAll(client.registry.openBlob(repository, descriptor)));
    expect({ status: blob.status, codes: blob.codes }).toEqual({ status: 404, codes: ["BLOB_UNKNOWN"] });
  });

  test("refuses a repository name that registries do not take, before asking one", async () => {
    await using client = makeClient();
    const { message } = await failureOf(client.registry.pushBlob({ ...repository, path: "a..b" }, textBlob("x")));
    expect(message).toStartWith(`Cannot push to "${repository.host}/a..b": "a..b": each part begins`);
    expect(proxy.log).toEqual([]);
  });

  test("wrong bytes never become a blob", async () => {
    await using client = makeClient();
    const wanted = bigBlob(200_000, 1);
    const { message } = await failureOf(
      client.registry.pushBlob(repository, { ...bigBlob(200_000, 2), descriptor: wanted.descriptor }),
    );
    expect(message).toStartWith(`Cannot trust blob ${wanted.descriptor.digest}: its 200000 bytes have digest sha256:`);
    expect(await client.registry.hasBlob(repository, wanted.descriptor)).toBe(false);
    await client[Symbol.asyncDispose]();
    // The upload was given up, not finished, and its source was asked only once.
    expect(
      proxy.log.filter((line) => /^(?:POST|PUT|DELETE)/.test(line)).map((line) => gone(line.replace(/\/.*\//, ""))),
    ).toEqual(["POST  202", "PUT UUID -", "DELETE UUID gone"]);
  });

  test("the end of the run ends an upload and takes it back", async () => {
    const controller = new AbortController();
    await using client = makeClient({ signal: controller.signal });
    const blob = bigBlob(400_000);
    const reason = new Error("interrupted");
    let closed = false;
    const work = client.registry.pushBlob(repository, {
      ...blob,
      open: async function* () {
        try {
          yield blob.bytes.slice(0, 65536);
          controller.abort(reason);
          yield blob.bytes.slice(65536);
        } finally {
          closed = true;
        }
      },
    });
    expect(await rejectionOf(work)).toBe(reason);
    await client[Symbol.asyncDispose]();
    expect({ closed, last: gone(proxy.log.at(-1)) }).toEqual({
      closed: true,
      last: at("DELETE $R/blobs/uploads/UUID gone"),
    });
  });
});

describe.skipIf(missing)("Registry over TLS", () => {
  let secure: TestRegistry;
  beforeAll(async () => {
    secure = await startRegistry({ tls: true });
  });
  afterAll(() => secure?.[Symbol.asyncDispose]());

  test("a certificate that nobody vouches for is refused, on loopback too", async () => {
    await using client = makeClient({ deadlines: { ...SHORT, ping: 5000 } });
    const failure = await failureOf(client.registry.getManifest({ host: secure.host, path: "app" }, "v1"));
    expect(failure).toEqual({
      message: `Cannot read manifest "${secure.host}/app:v1": GET https://${secure.host}/v2/: its certificate is not trusted (DEPTH_ZERO_SELF_SIGNED_CERT)`,
      hint: `Set SSL_CERT_FILE to the CA's PEM file, or ca of ${secure.host} in registries of .ko.yaml. --insecure-registry checks nothing.`,
      status: undefined,
      codes: [],
    });
  });

  test("a host that the user named may have any certificate", async () => {
    await using client = makeClient({ insecureHosts: [secure.host] });
    expect(await client.registry.pushBlob({ host: secure.host, path: "app" }, bigBlob(100_000))).toBe("uploaded");
  });

  test("that is meant for this host and port only", async () => {
    await using client = makeClient({
      insecureHosts: ["127.0.0.1", "127.0.0.1:1"],
      deadlines: { ...SHORT, ping: 5000 },
    });
    const { message } = await failureOf(client.registry.findManifest({ host: secure.host, path: "app" }, "v1"));
    expect(message).toContain("its certificate is not trusted");
  });

  test("a CA in SSL_CERT_FILE is trusted", async () => {
    const script = `
      import { makeClient, textBlob } from ${JSON.stringify(join(import.meta.dir, "helpers/registry-client.ts"))};
      await using client = makeClient();
      console.log(await client.registry.pushBlob({ host: process.argv[1], path: "ca" }, textBlob("x")));`;
    const child = Bun.spawn([process.execPath, "--no-env-file", "-e", script, secure.host], {
      cwd: dirname(import.meta.dir),
      env: { SSL_CERT_FILE: secure.certificate ?? "", PATH: "/usr/bin:/bin" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    await child.exited;
    expect({ out, err }).toEqual({ out: "uploaded\n", err: "" });
  });
});
