/** Uploads when something breaks: a fault proxy before the real docker-registry. */
import { describe, expect, test } from "bun:test";
import { type Failure, failureOf } from "./helpers/failures.ts";
import { bigBlob, makeClient, SHORT, textBlob, user } from "./helpers/registry-client.ts";
import { type Fault, registrySuite, type Rule } from "./helpers/registry-fault-proxy.ts";

const { missing, other, proxy, repository, server, testNumber } = registrySuite();

const error = (code: string): string => JSON.stringify({ errors: [{ code, message: "said the proxy" }] });
const answer = (status: number, code?: string, headers?: Record<string, string>): Fault => ({
  kind: "answer",
  status,
  ...(code === undefined ? {} : { body: error(code) }),
  ...(headers === undefined ? {} : { headers }),
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

const whole = ["HEAD 404", "POST 202", "PUT 201"];

describe.skipIf(missing)("pushBlob() does again what may be done again", () => {
  const size = 150_000;
  test.each<[string, Rule[], string[]]>([
    ["a HEAD that fails", [on("HEAD", answer(503), [1])], ["HEAD 503", ...whole]],
    ["a HEAD whose connection is reset", [on("HEAD", { kind: "reset" }, [1])], ["HEAD -", ...whole]],
    ["too many requests", [on("HEAD", answer(429, "TOOMANYREQUESTS"), [1, 2])], ["HEAD 429", "HEAD 429", ...whole]],
    ["a POST that fails", [on("POST", answer(500, "UNKNOWN"), [1])], ["HEAD 404", "POST 500", ...whole]],
    ["a PUT that fails", [on("PUT", answer(502), [1])], ["HEAD 404", "POST 202", "PUT 502", ...whole]],
    [
      "a PUT refused early by a code",
      [on("PUT", answer(400, "UNAVAILABLE"), [1])],
      ["HEAD 404", "POST 202", "PUT 400", ...whole],
    ],
    [
      "a PUT whose connection is reset",
      [on("PUT", { kind: "reset" }, [1])],
      ["HEAD 404", "POST 202", "PUT -", "DELETE 204", ...whole],
    ],
    [
      "a PUT that stalls",
      [on("PUT", { kind: "hang" }, [1])],
      ["HEAD 404", "POST 202", "PUT -", "DELETE 204", ...whole],
    ],
    [
      "a lost session",
      [on("PUT", answer(404, "BLOB_UPLOAD_UNKNOWN"), [1])],
      ["HEAD 404", "POST 202", "PUT 404", ...whole],
    ],
    [
      "a broken session",
      [on("PUT", answer(404, "BLOB_UPLOAD_INVALID"), [1])],
      ["HEAD 404", "POST 202", "PUT 404", ...whole],
    ],
    [
      "bytes that got lost on the way",
      [on("PUT", answer(400, "DIGEST_INVALID"), [1])],
      ["HEAD 404", "POST 202", "PUT 400", ...whole],
    ],
    ["a range that nobody asked for", [on("PUT", answer(416), [1])], ["HEAD 404", "POST 202", "PUT 416", ...whole]],
    [
      "a HEAD that tells another length",
      [on("HEAD", { kind: "alter", status: 200, headers: { "content-length": "7" } }, [1])],
      ["HEAD 200", "POST 202", "PUT 201"],
    ],
    [
      "204 at the end is a success",
      [
        on("PUT", {
          kind: "alter",
          status: 204,
          headers: { "content-length": undefined },
          body: () => new Uint8Array(0),
        }),
      ],
      ["HEAD 404", "POST 202", "PUT 204"],
    ],
  ])("%s", async (_, rules, wanted) => {
    proxy.reset(rules);
    await using client = makeClient({ deadlines: SHORT });
    const blob = bigBlob(size, testNumber());
    const result = await client.registry.pushBlob(repository, blob);
    await client[Symbol.asyncDispose]();
    const url = `http://${server.host}/v2/${repository.path}/blobs/${blob.descriptor.digest}`;
    const { status } = await fetch(url, { method: "HEAD" });
    // When the DELETE of a broken session arrives is left to chance.
    const sort = (lines: readonly string[]): readonly string[] =>
      [...lines].sort((a, b) => Number(a.startsWith("DELETE")) - Number(b.startsWith("DELETE")));
    expect({ result, status, steps: sort(steps()) }).toEqual({ result: "uploaded", status: 200, steps: sort(wanted) });
  });

  test("an answer that is lost does not mean that nothing was done", async () => {
    proxy.reset([on("PUT", { kind: "reset", after: "registry" }, [1])]);
    await using client = makeClient();
    const blob = bigBlob(size, 99);
    expect(await client.registry.pushBlob(repository, blob)).toBe("uploaded");
    expect(steps().filter((step) => !step.startsWith("DELETE"))).toEqual(["HEAD 404", "POST 202", "PUT -", "HEAD 200"]);
  });

  test("waits as long as the registry asks", async () => {
    proxy.reset([
      on("POST", answer(429, "TOOMANYREQUESTS", { "retry-after": "17" }), [1]),
      on("POST", answer(503, undefined, { "retry-after": "9999" }), [1]),
    ]);
    await using client = makeClient();
    await client.registry.pushBlob(repository, textBlob("patience"));
    expect(client.waits).toEqual([17_000, 60_000]);
    expect(client.said.filter((line) => line.startsWith("Trying again"))).toEqual([
      expect.stringMatching(
        /^Trying again in 17\.0 s \(attempt 2\): Cannot start the upload of blob .* answered 429 \(TOOMANYREQUESTS: said the proxy\)$/,
      ),
      expect.stringMatching(/^Trying again in 60\.0 s \(attempt 3\): .* answered 503$/),
    ]);
  });

  test("attempts do not multiply", async () => {
    proxy.reset([on("POST", answer(503)), on("PUT", answer(503))]);
    await using client = makeClient();
    const { message } = await failureOf(client.registry.pushBlob(repository, textBlob("never")));
    expect(message).toEndWith("answered 503 (after 5 attempts)");
    expect(steps()).toEqual([
      "HEAD 404",
      ...Array.from({ length: 9 }, (_, i) => (i % 2 === 0 ? "POST 503" : "HEAD 404")),
    ]);
  });

  test.each([
    ["for another digest", `sha256:${"0".repeat(64)}`],
    ["for the digest of nothing", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ["for no digest at all", "sha256:"],
  ])("an answer %s is a failure", async (_, digest) => {
    proxy.reset([on("PUT", { kind: "alter", headers: { "docker-content-digest": digest } })]);
    await using client = makeClient();
    const failure = await failureOf(client.registry.pushBlob(repository, bigBlob(size, testNumber())));
    expect(failure.message).toEndWith("answered 201, but for another digest");
    expect(steps().filter((step) => !step.startsWith("DELETE"))).toEqual(whole);
  });

  test("a token that may not look whether a failed upload has arrived", async () => {
    proxy.reset([on("PUT", answer(502), [1]), on("HEAD", answer(403, "DENIED"), [2])]);
    await using client = makeClient();
    expect(await client.registry.pushBlob(repository, bigBlob(size, testNumber()))).toBe("uploaded");
    expect(steps()).toEqual(["HEAD 404", "POST 202", "PUT 502", "HEAD 403", "POST 202", "PUT 201"]);
  });

  test.each<[string, Fault, readonly number[]]>([
    ["a firewall limits the rate with 403", answer(403, "TOOMANYREQUESTS", { "retry-after": "7" }), [7000]],
    ["it says no time", answer(403, "TOOMANYREQUESTS"), [500]],
  ])("waits where %s", async (_, fault, waits) => {
    proxy.reset([on("POST", fault, [1])]);
    await using client = makeClient();
    expect(await client.registry.pushBlob(repository, textBlob(`wait ${testNumber()}`))).toBe("uploaded");
    expect(client.waits).toEqual(waits);
  });

  test("does not wait after a 403 with another code beside it", async () => {
    const errors = ["TOOMANYREQUESTS", "DENIED"].map((code) => ({ code, message: "no" }));
    proxy.reset([on("POST", { kind: "answer", status: 403, body: JSON.stringify({ errors }) })]);
    await using client = makeClient();
    await failureOf(client.registry.pushBlob(repository, textBlob(`no ${testNumber()}`)));
    expect(client.waits).toEqual([]);
  });

  test("a registry that never answers a whole blob has one time for its silence", async () => {
    proxy.reset([on("PUT", { kind: "hang" })]);
    await using client = makeClient({ deadlines: { ...SHORT, commit: 900, silence: 1500 } });
    const { message } = await failureOf(client.registry.pushBlob(repository, bigBlob(size, testNumber())));
    expect(message).toMatch(/no answer to the complete body for 0\.\d+ s, 1\.\d+ s in all$/);
    expect(steps().filter((step) => step === "PUT -").length).toBe(2);
  });

  test.each([["POST"], ["HEAD"]])("a registry that never answers %s has one time for all requests", async (method) => {
    proxy.reset([on(method, { kind: "hang" })]);
    await using client = makeClient({ deadlines: { ...SHORT, firstByte: 800, silence: 1200 } });
    const started = performance.now();
    const blobs = [1, 2, 3].map((seed) => bigBlob(size, testNumber() * 10 + seed));
    const messages = await Promise.all(
      blobs.map(async (blob) => (await failureOf(client.registry.pushBlob(repository, blob))).message),
    );
    for (const message of messages) expect(message).toMatch(/\d s in all$/);
    // The three count once; by themselves they would take 1.6 s each in two attempts.
    expect(performance.now() - started).toBeGreaterThan(1100);
  });

  test("a source that fails is asked once", async () => {
    await using client = makeClient();
    const blob = bigBlob(size, 7);
    let opened = 0;
    const open = async function* (): AsyncGenerator<Uint8Array> {
      opened++;
      yield blob.bytes.slice(0, 1000);
      throw new Error("the disk is gone");
    };
    const { message } = await failureOf(client.registry.pushBlob(repository, { descriptor: blob.descriptor, open }));
    expect({ message, opened }).toEqual({ message: `Cannot read blob ${blob.descriptor.digest}`, opened: 1 });
  });

  test("a blob that failed may be pushed again", async () => {
    await using client = makeClient();
    const blob = textBlob("second time");
    proxy.reset([on("POST", answer(400, "UNSUPPORTED"), [1])]);
    await failureOf(client.registry.pushBlob(repository, blob));
    expect(await client.registry.pushBlob(repository, blob)).toBe("uploaded");
  });
});

describe.skipIf(missing)("pushBlob() is refused", () => {
  const denied =
    'Create the repository "$R" if it does not exist, or log in as a user who may push: ko login $H -u USER --password-stdin';
  test.each<[string, Rule[], string[], Partial<Failure>]>([
    [
      "without a login",
      [on("POST", answer(401, "UNAUTHORIZED"))],
      ["HEAD 404", "POST 401"],
      { status: 401, codes: ["UNAUTHORIZED"], hint: "Log in: ko login $H -u USER --password-stdin" },
    ],
    [
      "by a HEAD, which cannot say why",
      [on("HEAD", answer(403)), on("POST", answer(403, "DENIED"))],
      ["HEAD 403", "POST 403"],
      { status: 403, codes: ["DENIED"], hint: "Log in: ko login $H -u USER --password-stdin" },
    ],
    [
      "for a repository that nobody made",
      [on("POST", answer(404, "NAME_UNKNOWN"))],
      ["HEAD 404", "POST 404"],
      { status: 404, hint: 'Create the repository "$R" at $H first, or check KO_DOCKER_REPO.' },
    ],
    ["by a policy", [on("POST", answer(405, "UNSUPPORTED"))], ["HEAD 404", "POST 405"], { status: 405 }],
  ])("%s", async (_, rules, wanted, failure) => {
    proxy.reset(rules);
    await using client = makeClient();
    const got = await failureOf(client.registry.pushBlob(repository, textBlob(`refused ${testNumber()}`)));
    const hint = failure.hint?.replace("$R", repository.path).replace("$H", repository.host);
    expect({ steps: steps(), got: { ...got, message: "" } }).toMatchObject({
      steps: wanted,
      got: { ...failure, ...(hint === undefined ? {} : { hint }) },
    });
  });

  test("with a login that is not enough", async () => {
    proxy.reset([on("POST", answer(403, "DENIED"))]);
    proxy.demand = { kind: "basic", username: "joe", password: "s3cret-pass" };
    await using client = makeClient({ keychain: user });
    const { hint, message } = await failureOf(client.registry.pushBlob(repository, textBlob("mine")));
    proxy.demand = undefined;
    expect(message).toEndWith("answered 403 (DENIED: said the proxy), with the credential from the test");
    expect(hint).toBe(denied.replace("$R", repository.path).replace("$H", repository.host));
  });

  test.each([
    [413, "too large", "PATCH"],
    [405, undefined, "PATCH"],
    [501, undefined, "PATCH"],
  ])("in one PUT with %d, so it goes in a PATCH, this and the next", async (status, body) => {
    proxy.reset([{ method: "PUT", path: /./, fault: { kind: "answer", status, body: body ?? "" }, only: [1] }]);
    await using client = makeClient();
    const [one, two] = [bigBlob(150_000, status), bigBlob(150_000, status + 1)];
    expect(await client.registry.pushBlob(repository, one)).toBe("uploaded");
    expect(await client.registry.pushBlob(repository, two)).toBe("uploaded");
    const patches = proxy.seen.filter(({ method }) => method === "PATCH");
    expect({
      steps: steps(),
      patches: patches.map(({ headers, size }) => [size, headers["content-length"], headers["content-range"]]),
    }).toEqual({
      steps: [
        "HEAD 404",
        "POST 202",
        `PUT ${status}`,
        "HEAD 404",
        "POST 202",
        "PATCH 202",
        "PUT 201",
        "HEAD 404",
        "POST 202",
        "PATCH 202",
        "PUT 201",
      ],
      patches: [
        [150_000, "150000", undefined],
        [150_000, "150000", undefined],
      ],
    });
  });
});

describe.skipIf(missing)("mounts", () => {
  const refusals: [string, Fault][] = [
    ["401", answer(401, "UNAUTHORIZED")],
    ["403", answer(403, "DENIED")],
    ["404", answer(404, "NAME_UNKNOWN")],
    ["500", answer(500)],
    ["a reset", { kind: "reset" }],
    ["201 without the blob", { kind: "answer", status: 201 }],
  ];
  test.each(refusals)("that end with %s become uploads at once", async (_, fault) => {
    proxy.reset([{ method: "POST", path: /mount=/, fault }]);
    await using client = makeClient();
    const result = await client.registry.pushBlob(
      repository,
      textBlob(`mount ${testNumber()}`, { host: repository.host, path: "base" }),
    );
    expect({ result, waits: client.waits, last: steps().slice(-2) }).toEqual({
      result: "uploaded",
      waits: [],
      last: ["POST 202", "PUT 201"],
    });
  });
});

describe.skipIf(missing)("upload Locations", () => {
  const blob = (): ReturnType<typeof bigBlob> => bigBlob(70_000, 1000 + testNumber());
  const location = (value: string | undefined): Rule[] => [
    on("POST", { kind: "alter", headers: { location: value } }, [1]),
  ];

  test("without one there is no upload", async () => {
    proxy.reset(location(undefined));
    await using client = makeClient();
    const { message } = await failureOf(client.registry.pushBlob(repository, blob()));
    expect(message).toEndWith("/blobs/uploads/ answered 202 without a Location");
  });

  test.each([
    ["$SCHEME://169.254.169.254/upload", "169.254.169.254 is a link-local address"],
    ["//10.0.0.1/upload", "10.0.0.1 is a private address"],
    ["file:///etc/passwd", "file: is not supported"],
    ["http://[", "it is not a URL"],
  ])("%s is refused", async (value, why) => {
    proxy.reset(location(value.replace("$SCHEME", "http")));
    await using client = makeClient();
    const { message } = await failureOf(client.registry.pushBlob(repository, blob()));
    expect(message).toEndWith(`the location that ${repository.host} names is refused: ${why}`);
  });

  test("their query is kept as it is", async () => {
    const state = "_state=a%2Fb%3D%3D&x=1+2&y";
    proxy.reset([
      ...location(`/v2/${repository.path}/blobs/uploads/some?${state}`),
      { method: "PUT", fault: { kind: "answer", status: 201, late: true } },
    ]);
    await using client = makeClient();
    const one = blob();
    await client.registry.pushBlob(repository, one);
    expect(proxy.seen.at(-1)?.path).toBe(
      `/v2/${repository.path}/blobs/uploads/some?${state}&digest=${encodeURIComponent(one.descriptor.digest)}`,
    );
  });

  test("on another host they get the content, but not our name", async () => {
    proxy.demand = { kind: "basic", username: "joe", password: "s3cret-pass" };
    proxy.reset([
      on("POST", { kind: "answer", status: 202, headers: { location: `http://${other.host}/store?sig=1` } }),
    ]);
    other.reset([{ method: "PUT", fault: { kind: "answer", status: 201, late: true } }]);
    await using client = makeClient({ keychain: user });
    await client.registry.pushBlob(repository, blob());
    proxy.demand = undefined;
    expect({
      asked: proxy.seen
        .filter(({ method }) => method === "POST")
        .map(({ headers }) => headers["authorization"] !== undefined),
      stored: other.seen.map(({ headers, method, size }) => [method, size, headers["authorization"]]),
    }).toEqual({ asked: [true], stored: [["PUT", 70_000, undefined]] });
  });

  test("a redirected PUT is sent again as a whole", async () => {
    proxy.reset([
      on("PUT", { kind: "answer", status: 307, headers: { location: `http://${other.host}/store?sig=1` } }),
    ]);
    other.reset([{ method: "PUT", fault: { kind: "answer", status: 201, late: true } }]);
    await using client = makeClient();
    expect(await client.registry.pushBlob(repository, blob())).toBe("uploaded");
    expect(other.seen.map(({ method, size }) => [method, size])).toEqual([["PUT", 70_000]]);
  });

  test("a redirect that would drop the content is refused", async () => {
    proxy.reset([on("PUT", { kind: "answer", status: 302, headers: { location: `http://${other.host}/store` } })]);
    await using client = makeClient();
    const { message } = await failureOf(client.registry.pushBlob(repository, blob()));
    expect(message).toEndWith("answered 302: this redirect would drop the request body");
    expect(other.seen).toEqual([]);
  });
});
