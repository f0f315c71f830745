/** Blobs that are sent while they are made: a fault proxy before the real docker-registry. */
import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { KoError } from "../lib/errors.ts";
import type { Blob, BlobStream } from "../lib/image.ts";

import { failureOf, rejectionOf } from "./helpers/failures.ts";
import { bigBlob, makeClient, SHORT, textBlob, user } from "./helpers/registry-client.ts";
import { type Fault, registrySuite, type Rule } from "./helpers/registry-fault-proxy.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const SIZE = 1_000_000;
const FIRST_HALF = 500_000;

const { missing, proxy, repository, server, testNumber } = registrySuite();

interface TestStream extends BlobStream {
  readonly blob: ReturnType<typeof bigBlob>;
  /** Makes the second half, or fails instead. */
  finish(failure?: Error): void;
  /** Whether the stream was told to end, or left. */
  readonly left: boolean;
}

/** Half of a blob; the other half comes when the test says so. */
function grow(options: { readonly size?: number; readonly streamed?: Blob } = {}): TestStream {
  const blob = bigBlob(options.size ?? SIZE, testNumber());
  const streamed = options.streamed ?? blob;
  const made = Promise.withResolvers<Blob>();
  made.promise.catch(() => undefined);
  let left = false;
  return {
    blob,
    done: made.promise,
    finish: (failure) => (failure === undefined ? made.resolve(blob) : made.reject(failure)),
    get left() {
      return left;
    },
    read: async function* (signal) {
      signal.addEventListener("abort", () => (left = true));
      let size = 0;
      for await (const chunk of streamed.open(signal)) {
        if (size >= FIRST_HALF) await made.promise;
        size += chunk.byteLength;
        yield chunk;
      }
    },
  };
}

const answer = (status: number, code?: string): Fault => ({
  kind: "answer",
  status,
  ...(code === undefined ? {} : { body: JSON.stringify({ errors: [{ code, message: "said the proxy" }] }) }),
});
const on = (method: string, fault: Fault, only?: readonly number[]): Rule => ({
  method,
  path: /\/blobs\//,
  fault,
  ...(only === undefined ? {} : { only }),
});

/** `PUT 503` for each request about blobs. */
const steps = (): readonly string[] =>
  proxy.seen.filter(({ path }) => path.includes("/blobs/")).map(({ method, status }) => `${method} ${status ?? "-"}`);

/** As {@link steps}, without what only asks or takes back. */
const writes = (): readonly string[] => steps().filter((step) => /^(?:POST|PATCH|PUT)/.test(step));

/** Until the first half is on its way. */
const halfway = (): Promise<void> =>
  waitUntil(() => proxy.seen.some(({ method, size }) => method === "PATCH" && size > 200_000));

/** What the registry holds: "right", "nothing", or something that must not be; and uploads that nobody took back. */
async function held(
  blob: Blob & { readonly bytes: Uint8Array },
): Promise<{ blob: string; uploads: readonly string[] }> {
  const url = `http://${server.host}/v2/${repository.path}/blobs/${blob.descriptor.digest}`;
  const response = await fetch(url);
  const bytes = await response.bytes();
  const right = response.status === 200 && Buffer.compare(bytes, blob.bytes) === 0;
  const folder = join(server.data, "docker/registry/v2/repositories", repository.path, "_uploads");
  const files = await readdir(folder, { recursive: true }).catch(() => []);
  // docker-registry leaves a `hashstates` behind where it has deleted an upload.
  const uploads = files.filter((file) => /\/(?:data|startedat)$/.test(file));
  return { blob: right ? "right" : response.status === 404 ? "nothing" : `${response.status}`, uploads };
}

describe.skipIf(missing)("streamBlob()", () => {
  test("sends what is made while it is made", async () => {
    await using client = makeClient();
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    await halfway();
    const early = steps();
    stream.finish();
    const patch = proxy.seen.find(({ method }) => method === "PATCH");
    expect({ early, result: await work, steps: steps().toSorted(), held: await held(stream.blob) }).toEqual({
      early: ["POST 202", "PATCH -"],
      result: "uploaded",
      steps: ["HEAD 404", "PATCH 202", "POST 202", "PUT 201"],
      held: { blob: "right", uploads: [] },
    });
    expect([
      patch?.size,
      patch?.headers["transfer-encoding"],
      patch?.headers["content-length"],
      patch?.headers["content-range"],
    ]).toEqual([SIZE, "chunked", undefined, undefined]);
  });

  test("a push of the same blob finds it on its way, or there", async () => {
    await using client = makeClient();
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    const pushed = stream.done.then((blob) => client.registry.pushBlob(repository, blob));
    await halfway();
    stream.finish();
    const results = [...(await Promise.all([work, pushed])), await client.registry.pushBlob(repository, stream.blob)];
    expect({ results, steps: steps().toSorted() }).toEqual({
      results: ["uploaded", "uploaded", "uploaded"],
      steps: ["HEAD 404", "PATCH 202", "POST 202", "PUT 201"],
    });
  });

  test("a push that began before is waited for", async () => {
    await using client = makeClient();
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    await halfway();
    const pushed = client.registry.pushBlob(repository, stream.blob);
    stream.finish();
    const results = await Promise.all([work, pushed]);
    await client[Symbol.asyncDispose]();
    expect({ results, puts: steps().filter((step) => step.startsWith("PUT")), held: await held(stream.blob) }).toEqual({
      results: ["uploaded", "uploaded"],
      puts: ["PUT 201"],
      held: { blob: "right", uploads: [] },
    });
  });

  test("two that become the same are one", async () => {
    await using client = makeClient();
    const both = [grow(), grow()];
    const work = both.map((stream) => client.registry.streamBlob(repository, stream));
    await waitUntil(() => proxy.seen.filter(({ method, size }) => method === "PATCH" && size > 200_000).length === 2);
    for (const stream of both) stream.finish();
    const results = await Promise.all(work);
    await client[Symbol.asyncDispose]();
    expect({ results, puts: steps().filter((step) => step.startsWith("PUT")) }).toEqual({
      results: ["uploaded", "uploaded"],
      puts: ["PUT 201"],
    });
    expect(await held(both[0]?.blob ?? textBlob(""))).toEqual({ blob: "right", uploads: [] });
  });

  test("gives up what the registry has already", async () => {
    await using client = makeClient();
    const stream = grow();
    {
      await using other = makeClient();
      await other.registry.pushBlob(repository, stream.blob);
    }
    proxy.reset();
    const work = client.registry.streamBlob(repository, stream);
    await halfway();
    stream.finish();
    const result = await work;
    await client[Symbol.asyncDispose]();
    expect({ result, steps: steps().toSorted(), left: stream.left, held: await held(stream.blob) }).toEqual({
      result: "present",
      steps: ["DELETE 204", "HEAD 200", "PATCH 202", "POST 202"],
      left: true,
      held: { blob: "right", uploads: [] },
    });
  });

  test("what is small goes as a whole", async () => {
    await using client = makeClient();
    const stream = grow({ size: 200_000 });
    stream.finish();
    expect(await client.registry.streamBlob(repository, stream)).toBe("uploaded");
    expect(steps()).toEqual(["HEAD 404", "POST 202", "PUT 201"]);
  });

  test("a foreign layer is not sent", async () => {
    await using client = makeClient();
    const stream = grow();
    const mediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    const done = stream.done.then((blob) => ({ ...blob, descriptor: { ...blob.descriptor, mediaType } }));
    const work = client.registry.streamBlob(repository, { ...stream, done });
    stream.finish();
    expect(await work).toBe("present");
    await client[Symbol.asyncDispose]();
    expect(await held(stream.blob)).toEqual({ blob: "nothing", uploads: [] });
  });

  test("a slow source is no stall", async () => {
    await using client = makeClient({ deadlines: { ...SHORT, stall: 100 } });
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    await halfway();
    await Bun.sleep(400);
    stream.finish();
    expect({ result: await work, steps: steps().toSorted() }).toEqual({
      result: "uploaded",
      steps: ["HEAD 404", "PATCH 202", "POST 202", "PUT 201"],
    });
  });

  test("takes its turn; what is complete by then is pushed as ever", async () => {
    await using client = makeClient({ uploads: 1 });
    const [first, second] = [grow(), { ...grow({ size: SIZE - 1 }), blob: bigBlob(SIZE - 1, testNumber()) }];
    const works = [first, second].map((stream) => client.registry.streamBlob(repository, stream));
    await halfway();
    second.finish();
    await waitUntil(() => steps().includes("HEAD 404"));
    const early = steps();
    first.finish();
    expect({ early, results: await Promise.all(works) }).toEqual({
      early: ["POST 202", "PATCH -", "HEAD 404"],
      results: ["uploaded", "uploaded"],
    });
    expect(steps().filter((step) => !step.startsWith("HEAD"))).toEqual([
      "POST 202",
      "PATCH 202",
      "PUT 201",
      "POST 202",
      "PUT 201",
    ]);
  });

  test("the bytes that its source gives stay its source's", async () => {
    await using client = makeClient();
    const stream = grow();
    const copy = stream.blob.bytes.slice();
    const read = async function* (): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < SIZE; at += 100_000) yield stream.blob.bytes.subarray(at, at + 100_000);
    };
    const work = client.registry.streamBlob(repository, { read, done: stream.done });
    await halfway();
    stream.finish();
    await work;
    expect(Buffer.compare(stream.blob.bytes, copy)).toBe(0);
    expect(await held(stream.blob)).toEqual({ blob: "right", uploads: [] });
  });

  test("with a token for it", async () => {
    proxy.demand = { kind: "bearer", credential: { username: "joe", password: "s3cret-pass" } };
    await using client = makeClient({ keychain: user });
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    await halfway();
    stream.finish();
    expect({ result: await work, steps: steps().toSorted() }).toEqual({
      result: "uploaded",
      steps: ["HEAD 404", "PATCH 202", "POST 202", "PUT 201"],
    });
  });

  test("refuses a repository name that registries do not take", async () => {
    await using client = makeClient();
    const stream = grow();
    const work = client.registry.streamBlob({ ...repository, path: "a..b" }, stream);
    stream.finish(new Error("not told twice"));
    expect((await failureOf(work)).message).toStartWith(`Cannot push to "${repository.host}/a..b"`);
    expect(proxy.seen).toEqual([]);
  });
});

describe.skipIf(missing)("streamBlob() pushes the whole blob where streaming fails:", () => {
  const whole = ["POST 202", "PUT 201"];
  test.each<[string, Rule[], readonly string[]]>([
    ["a POST that is refused once", [on("POST", answer(503), [1])], whole],
    ["a connection that is cut in the middle", [on("PATCH", { kind: "reset", after: 300_000 })], whole],
    ["a connection that is cut at the start", [on("PATCH", { kind: "reset" })], whole],
    ["an answer that is lost", [on("PATCH", { kind: "reset", after: "registry" })], whole],
    ["a PATCH that fails", [on("PATCH", answer(500))], whole],
    ["a PATCH that is not known", [on("PATCH", answer(405, "UNSUPPORTED"))], whole],
    ["a PATCH that wants to know the length", [on("PATCH", answer(411))], whole],
    [
      "a PATCH that wants to know who it is",
      [on("PATCH", { kind: "answer", status: 401, headers: { "www-authenticate": "Basic" } }, [1])],
      whole,
    ],
    [
      "a PATCH that is sent elsewhere",
      [on("PATCH", { kind: "answer", status: 307, headers: { location: "/elsewhere" } })],
      whole,
    ],
    ["a PATCH that is answered too early", [on("PATCH", answer(202))], whole],
    ["a PATCH that stalls", [on("PATCH", { kind: "hang" })], whole],
    ["a PUT that fails", [on("PUT", answer(502), [1])], whole],
    // fetch itself tries again what has no body, on another connection of its pool.
    ["a PUT whose connection is reset", [on("PUT", { kind: "reset" }, [1])], ["PUT 201"]],
    ["a PUT that is not liked", [on("PUT", answer(404), [1])], whole],
    ["bytes that got lost on the way", [on("PUT", answer(400, "DIGEST_INVALID"), [1])], whole],
    ["a HEAD that fails", [on("HEAD", answer(503), [1])], ["POST 202", "PATCH 202", "PUT 201"]],
    [
      "a Location that leads nowhere",
      [on("POST", { kind: "alter", headers: { location: "http://10.0.0.1/" } }, [1])],
      whole,
    ],
  ])("%s", async (_, rules, wanted) => {
    proxy.reset(rules);
    await using client = makeClient({ keychain: user, deadlines: SHORT });
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    // Until it has failed, or will only at its end.
    const hangs = rules.some(({ fault }) => fault.kind === "hang");
    const sent = (): boolean =>
      proxy.seen.some(({ method, size }) => method === "PATCH" && size > (hangs ? -1 : 400_000));
    await waitUntil(() => stream.left || sent());
    stream.finish();
    const result = await work;
    await client[Symbol.asyncDispose]();
    const { blob, uploads } = await held(stream.blob);
    expect({ result, last: writes().slice(-wanted.length), blob }).toEqual({
      result: "uploaded",
      last: [...wanted],
      blob: "right",
    });
    // docker-registry keeps an upload that has more bytes than its Location says, and one whose Location got lost.
    const isLost = rules.some(({ fault }) => fault.kind === "alter" || (fault.kind === "reset" && fault.after));
    if (!isLost) expect(uploads).toEqual([]);
    // Nobody is told of what did not matter.
    expect(client.said.filter((line) => line.startsWith("Trying again"))).toEqual([]);
  });

  test("bytes that are not what they became, and no more streams then", async () => {
    await using client = makeClient();
    const stream = grow({ streamed: bigBlob(SIZE, 4711) });
    const work = client.registry.streamBlob(repository, stream);
    await halfway();
    stream.finish();
    expect(await work).toBe("uploaded");
    const more = textBlob("more".repeat(100_000));
    const next = client.registry.streamBlob(repository, { read: () => more.open(), done: Promise.resolve(more) });
    expect(await next).toBe("uploaded");
    await client[Symbol.asyncDispose]();
    expect(writes()).toEqual(["POST 202", "PATCH 202", "POST 202", "PUT 201", "POST 202", "PUT 201"]);
    expect(await held(stream.blob)).toEqual({ blob: "right", uploads: [] });
  });

  test("a PATCH that is refused is not tried with the next blob", async () => {
    proxy.reset([on("PATCH", answer(405))]);
    await using client = makeClient();
    for (const size of [SIZE, SIZE + 1]) {
      const stream = grow({ size });
      const work = client.registry.streamBlob(repository, stream);
      if (size === SIZE) await waitUntil(() => stream.left);
      stream.finish();
      expect(await work).toBe("uploaded");
    }
    expect(writes()).toEqual(["POST 202", "PATCH 405", "POST 202", "PUT 201", "POST 202", "PUT 201"]);
  });
});

describe.skipIf(missing)("streamBlob() fails as its content does:", () => {
  const failure = new KoError("Cannot compress: the disk is full");

  test("while it is sent", async () => {
    await using client = makeClient();
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    await halfway();
    stream.finish(failure);
    expect(await rejectionOf(work)).toBe(failure);
    await client[Symbol.asyncDispose]();
    expect({ steps: steps(), held: await held(stream.blob) }).toEqual({
      steps: ["POST 202", "PATCH 202", "DELETE 204"],
      held: { blob: "nothing", uploads: [] },
    });
  });

  test("before it is sent", async () => {
    await using client = makeClient();
    const stream = grow();
    stream.finish(failure);
    expect(await rejectionOf(client.registry.streamBlob(repository, stream))).toBe(failure);
    await client[Symbol.asyncDispose]();
    expect(await held(stream.blob)).toEqual({ blob: "nothing", uploads: [] });
  });

  test("and may be tried again", async () => {
    await using client = makeClient();
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    stream.finish(failure);
    await rejectionOf(work);
    expect(await client.registry.pushBlob(repository, stream.blob)).toBe("uploaded");
  });

  test("a stream that fails alone does not matter", async () => {
    await using client = makeClient();
    const stream = grow();
    const { blob, done } = stream;
    const read = async function* (): AsyncGenerator<Uint8Array> {
      yield blob.bytes.slice(0, FIRST_HALF);
      throw new Error("the file is gone");
    };
    const work = client.registry.streamBlob(repository, { read, done });
    await waitUntil(() => steps().includes("PATCH 202"));
    stream.finish();
    expect(await work).toBe("uploaded");
    await client[Symbol.asyncDispose]();
    expect(await held(blob)).toEqual({ blob: "right", uploads: [] });
  });
});

describe.skipIf(missing)("the end of the run ends a stream and takes it back", () => {
  test.each(["by its signal", "by its disposal"])("%s", async (how) => {
    const controller = new AbortController();
    await using client = makeClient({ signal: controller.signal });
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    const failed = rejectionOf(work);
    await halfway();
    const reason = new Error("interrupted");
    if (how === "by its signal") {
      controller.abort(reason);
      expect(await failed).toBe(reason);
    }
    await client[Symbol.asyncDispose]();
    expect(await failed).toBeInstanceOf(Error);
    expect({ steps: steps(), left: stream.left, held: await held(stream.blob) }).toEqual({
      steps: ["POST 202", "PATCH 202", "DELETE 204"],
      left: true,
      held: { blob: "nothing", uploads: [] },
    });
  });

  test("also where the registry does not answer", async () => {
    proxy.reset([on("PATCH", { kind: "hang" }), on("DELETE", { kind: "hang" })]);
    const controller = new AbortController();
    await using client = makeClient({ signal: controller.signal });
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    await waitUntil(() => steps().includes("PATCH -"));
    const started = performance.now();
    const reason = new Error("interrupted");
    controller.abort(reason);
    expect(await rejectionOf(work)).toBe(reason);
    expect(performance.now() - started).toBeLessThan(500);
    await client[Symbol.asyncDispose]();
    expect(performance.now() - started).toBeLessThan(4000);
  });

  test("also while its last bytes are on their way", async () => {
    proxy.reset([on("PUT", { kind: "hang" })]);
    const controller = new AbortController();
    await using client = makeClient({ signal: controller.signal });
    const stream = grow();
    const work = client.registry.streamBlob(repository, stream);
    stream.finish();
    await waitUntil(() => steps().includes("PUT -"));
    const reason = new Error("interrupted");
    controller.abort(reason);
    expect(await rejectionOf(work)).toBe(reason);
    await client[Symbol.asyncDispose]();
    expect(await held(stream.blob)).toEqual({ blob: "nothing", uploads: [] });
  });
});

test.skipIf(missing)("a stream that is answered with another digest is a failure", async () => {
  const headers = { "docker-content-digest": `sha256:${"0".repeat(64)}` };
  proxy.reset([on("PUT", { kind: "alter", headers })]);
  await using client = makeClient();
  const stream = grow();
  const work = client.registry.streamBlob(repository, stream);
  stream.finish();
  expect((await failureOf(work)).message).toEndWith("answered 201, but for another digest");
});

test.skipIf(missing)("what a registry does not take is not made", async () => {
  proxy.reset([on("PATCH", { kind: "hang" })]);
  await using client = makeClient({ deadlines: SHORT });
  const piece = new Uint8Array(1024 * 1024);
  let made = 0;
  const read = async function* (): AsyncGenerator<Uint8Array> {
    for (; made < 256; made++) yield piece;
  };
  const done = Promise.withResolvers<Blob>();
  const work = client.registry.streamBlob(repository, { read, done: done.promise });
  await waitUntil(() => client.said.some((line) => line.includes("no byte was taken for 1 s")));
  done.reject(new KoError("enough"));
  expect(await failureOf(work)).toMatchObject({ message: "enough" });
  // What the kernel and fetch hold.
  expect(made).toBeLessThan(32);
});
