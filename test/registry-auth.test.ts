/** Who we are and how we say so: a proxy that demands authentication before the real docker-registry. */
import { describe, expect, test } from "bun:test";
import type { Credential } from "../lib/registry-credential.ts";
import { failureOf } from "./helpers/failures.ts";
import {
  fixedKeychain,
  makeClient,
  makeManifest,
  noCredentials,
  SHORT,
  textBlob,
  user,
} from "./helpers/registry-client.ts";
import {
  type BearerDemand,
  type Demand,
  FaultProxy,
  registrySuite,
  type Rule,
} from "./helpers/registry-fault-proxy.ts";

const account = { username: "joe", password: "s3cret-pass" };

const { missing, proxy, repository, server, testNumber } = registrySuite();

const tokens = (): readonly string[] =>
  proxy.seen
    .filter(({ path }) => path.startsWith("/token"))
    .map(({ method, path, text }) => {
      const form = new URLSearchParams(method === "POST" ? text : path.replace(/^[^?]*\??/, ""));
      return `${method} ${form.getAll("scope").join(" & ").replaceAll(repository.path, "$R")}`;
    });

const push = async (keychain = user): Promise<void> => {
  await using client = makeClient({ keychain });
  const layer = textBlob(`layer of ${testNumber()}`);
  const manifest = makeManifest([layer]);
  await Promise.all([layer, manifest.config].map((blob) => client.registry.pushBlob(repository, blob)));
  await client.registry.pushManifest(repository, "v1", manifest);
};

describe.skipIf(missing)("a push", () => {
  const identity: Credential = { kind: "identity", token: "refresh-1" };
  test.each<[string, Demand, Credential | undefined, string[]]>([
    ["with Basic", { kind: "basic", ...account }, { kind: "basic", ...account }, []],
    [
      "with a token",
      { kind: "bearer", credential: account },
      { kind: "basic", ...account },
      ["GET repository:$R:push,pull"],
    ],
    ["with an anonymous token", { kind: "bearer" }, undefined, ["GET repository:$R:push,pull"]],
    [
      "to a registry that asks only where it matters",
      { kind: "bearer", credential: account, openPing: true },
      { kind: "basic", ...account },
      ["GET repository:$R:push,pull"],
    ],
    [
      "to a registry that prefers something else",
      { kind: "bearer", credential: account, before: "Negotiate, " },
      { kind: "basic", ...account },
      ["GET repository:$R:push,pull"],
    ],
    [
      "to a server that hears only the last scope",
      { kind: "bearer", credential: account, lastScopeOnly: true },
      { kind: "basic", ...account },
      ["GET repository:$R:push,pull"],
    ],
    [
      "with an identity token",
      { kind: "bearer", credential: { refreshToken: "refresh-1" } },
      identity,
      ["POST repository:$R:push,pull"],
    ],
    [
      "with an identity token at a server that has no POST",
      { kind: "bearer", credential: { refreshToken: "refresh-1" }, postStatus: 404 },
      identity,
      ["POST repository:$R:push,pull", "GET repository:$R:push,pull"],
    ],
  ])("%s", async (_, demand, credential, wanted) => {
    proxy.demand = demand;
    await push(credential === undefined ? noCredentials : fixedKeychain(credential));
    expect(tokens()).toEqual(wanted);
  });

  test("asks the token server as its protocol says", async () => {
    proxy.demand = { kind: "bearer", credential: account, realm: `http://${proxy.host}/token?own=a%2Fb&x` };
    await push();
    const asked = proxy.seen.find(({ path }) => path.startsWith("/token"));
    expect(asked?.path).toBe(
      `/token?own=a%2Fb&x&service=${encodeURIComponent('test, "registry"')}&scope=${encodeURIComponent(`repository:${repository.path}:push,pull`)}`,
    );
    expect(asked?.headers["authorization"]).toBe(`Basic ${Buffer.from("joe:s3cret-pass").toString("base64")}`);
  });

  describe("a token server whose answer is final", () => {
    const refused = JSON.stringify({ errors: [{ code: "DENIED", message: "no" }] });
    const rule = (method: string, status: number): Rule => ({
      method,
      path: /^\/odd/,
      fault: { kind: "answer", status, body: refused },
    });
    const token: Rule = {
      method: "GET",
      path: /^\/odd/,
      fault: { kind: "answer", status: 200, body: '{"token":"abc"}' },
    };
    const asked = (): readonly string[] => proxy.log.filter((line) => line.includes("/odd"));
    const start = (rules: readonly Rule[]): void => {
      proxy.demand = { kind: "bearer", realm: `http://${proxy.host}/odd` };
      proxy.reset(rules);
    };

    test.each([400, 401, 404, 405, 501])("is asked with GET after a POST that was answered %i", async (status) => {
      start([rule("POST", status), token]);
      await using client = makeClient({ keychain: fixedKeychain(identity) });
      await failureOf(client.registry.getManifest(repository, "v1"));
      expect(asked().slice(0, 2)).toEqual([`POST /odd ${status}`, "GET /odd 200"]);
    });

    test.each([
      [404, 403],
      [405, 401],
      [401, 403],
      [404, 404],
    ])("is asked once in a run: POST %i, GET %i", async (post, get) => {
      start([rule("POST", post), rule("GET", get)]);
      await using client = makeClient({ keychain: fixedKeychain(identity) });
      const { registry } = client;
      const manifest = makeManifest([]);
      const works = [
        () => registry.findManifest(repository, "v1", { push: true }),
        () => registry.pushBlob(repository, textBlob("x")),
        () => registry.pushBlob(repository, textBlob("y")),
        () => registry.pushManifest(repository, "v1", manifest),
      ];
      const failures: string[] = [];
      for (const work of works) failures.push((await failureOf(work)).message);
      expect(asked()).toEqual([`POST /odd ${post}`, `GET /odd ${get}`]);
      // Each names its own task.
      expect(failures[3]).toMatch(
        /^Cannot (?:push manifest|check whether the registry has) .*: get a token for .* answered 4\d\d \(DENIED\)/,
      );
      expect(failures[1]).toMatch(/^Cannot (?:start the upload of|look for) blob /);
      expect(client.waits).toEqual([]);
    });

    test("and so is a registry that refuses a ping", async () => {
      proxy.reset([{ path: /^\/v2\/$/, fault: { kind: "answer", status: 403, body: refused } }]);
      await using client = makeClient();
      const failures = [await failureOf(client.registry.getManifest(repository, "v1"))];
      failures.push(await failureOf(client.registry.findManifest(repository, "v2")));
      expect(proxy.log).toEqual(["GET /v2/ 403"]);
      expect(failures.map(({ message }) => message.replace(/: ask.*$/, ""))).toEqual([
        `Cannot read manifest "${repository.host}/${repository.path}:v1"`,
        `Cannot check whether the registry has "${repository.host}/${repository.path}:v2"`,
      ]);
    });
  });

  test("posts an identity token as its protocol says", async () => {
    proxy.demand = { kind: "bearer", credential: { refreshToken: "refresh-1" } };
    await push(fixedKeychain(identity));
    const asked = proxy.seen.find(({ path }) => path.startsWith("/token"));
    expect(Object.fromEntries(new URLSearchParams(asked?.text))).toEqual({
      grant_type: "refresh_token",
      refresh_token: "refresh-1",
      client_id: "ko",
      service: 'test, "registry"',
      scope: `repository:${repository.path}:push,pull`,
    });
    expect(asked?.headers["authorization"]).toBeUndefined();
  });

  test("sends a registry token as it is", async () => {
    proxy.demand = { kind: "bearer" };
    await using client = makeClient({ keychain: fixedKeychain({ kind: "bearer", token: "as-it-is" }) });
    await failureOf(client.registry.pushBlob(repository, textBlob("x")));
    expect(tokens()).toEqual([]);
    expect(proxy.seen.at(-1)?.headers["authorization"]).toBe("Bearer as-it-is");
  });

  test("gets a new token when the old one is refused, with the body from its start", async () => {
    proxy.demand = { kind: "bearer", credential: account, uses: 2 };
    await using client = makeClient({ keychain: user });
    const blob = textBlob("x".repeat(100_000));
    expect(await client.registry.pushBlob(repository, blob)).toBe("uploaded");
    const puts = proxy.seen.filter(({ method }) => method === "PUT").map(({ status }) => status);
    expect({ puts, waits: client.waits }).toEqual({ puts: [401, 201], waits: [] });
  });

  test("uses a token until it is old, and then a new one", async () => {
    proxy.demand = { kind: "bearer", expiresIn: 300 };
    let now = 0;
    const clock = { now: () => now, sleep: async () => {}, random: () => 0 };
    await using client = makeClient({ clock });
    const counts: number[] = [];
    for (const at of [0, 239_000, 241_000]) {
      now = at;
      await client.registry.hasBlob(repository, textBlob("x").descriptor);
      counts.push(tokens().length);
    }
    expect(counts).toEqual([1, 1, 2]);
  });

  test("goes on with the refresh token that came with a token", async () => {
    proxy.demand = { kind: "bearer", refreshToken: "refresh-2", uses: 1 };
    await using client = makeClient({ keychain: user });
    await client.registry.hasBlob(repository, textBlob("x").descriptor);
    await client.registry.hasBlob(repository, textBlob("x").descriptor);
    expect(tokens()).toEqual(["GET repository:$R:pull", "POST repository:$R:pull"]);
  });

  test.each<[string, Partial<BearerDemand>]>([
    ["all servers", {}],
    ["a server that gives tokens for one scope only", { oneScopeOnly: true }],
    ["a server that hears only the last scope", { lastScopeOnly: true }],
  ])("mounts with a token of its own, and pushes with the other: %s", async (_, more) => {
    proxy.demand = { kind: "bearer", credential: account, ...more };
    await using client = makeClient({ keychain: user });
    const blob = textBlob(`mounted ${testNumber()}`);
    const base = { ...repository, path: `${repository.path}/base` };
    await client.registry.pushBlob(base, blob);
    proxy.reset();
    const result = await client.registry.pushBlob(repository, { ...blob, source: base });
    expect({ result, tokens: tokens() }).toEqual({
      result: Object.keys(more).length === 0 ? "mounted" : "uploaded",
      tokens: expect.arrayContaining([
        "GET repository:$R:push,pull",
        "GET repository:$R:push,pull & repository:$R/base:pull",
      ]),
    });
    expect(client.waits).toEqual([]);
  });
});

describe.skipIf(missing)("a refused login", () => {
  test("is named where Basic is refused", async () => {
    proxy.demand = { kind: "basic", username: "joe", password: "another" };
    await using client = makeClient({ keychain: user });
    expect(await failureOf(client.registry.getManifest(repository, "v1"))).toEqual({
      message:
        `Cannot read manifest "${repository.host}/${repository.path}:v1": GET http://${repository.host}/v2/${repository.path}/manifests/v1 ` +
        "answered 401 (UNAUTHORIZED: authentication required), with the credential from the test",
      hint: `Log in: ko login ${repository.host} -u USER --password-stdin`,
      status: 401,
      codes: ["UNAUTHORIZED"],
    });
    expect(proxy.seen.length).toBe(2);
  });

  test("is named where the token server refuses it, without the secrets in its text", async () => {
    proxy.demand = { kind: "bearer", credential: { username: "joe", password: "another" } };
    await using client = makeClient({ keychain: user });
    const { hint, message, status } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect({ hint, status }).toEqual({
      hint: `Log in: ko login ${repository.host} -u USER --password-stdin`,
      status: 401,
    });
    expect(message).toContain("get a token for");
    // The text of the body echoes what was sent.
    expect(message).toEndWith(" answered 401 (UNAUTHORIZED), with the credential from the test");
  });

  test("has a reason when there is no credential", async () => {
    proxy.demand = { kind: "basic", ...account };
    await using client = makeClient({
      keychain: { ...noCredentials, explain: () => ["docker-credential-x is not on PATH"] },
    });
    const { hint, message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith(", without a credential: docker-credential-x is not on PATH");
    expect(hint).toBe(`Log in: ko login ${repository.host} -u USER --password-stdin`);
  });

  test("has a reason when the credential is of the wrong kind", async () => {
    proxy.demand = { kind: "basic", ...account };
    await using client = makeClient({ keychain: fixedKeychain({ kind: "identity", token: "refresh-1" }) });
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith("the one from the test is a token, but the registry wants a username and a password");
  });

  test("is no question for a scheme that we do not know", async () => {
    proxy.reset([
      { path: /^\/v2\/$/, fault: { kind: "answer", status: 401, headers: { "www-authenticate": "Negotiate, NTLM" } } },
    ]);
    await using client = makeClient({ keychain: user });
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith(
      `${repository.host} wants authentication by negotiate, ntlm, ko supports Basic and Bearer`,
    );
  });
});

describe.skipIf(missing)("a token server", () => {
  const ask = async (
    demand: Partial<BearerDemand>,
    env: Record<string, string> = {},
  ): Promise<{ message: string; said: string }> => {
    proxy.demand = { kind: "bearer", credential: account, ...demand };
    await using client = makeClient({ keychain: user, env, deadlines: SHORT });
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    return { message, said: client.said.join("\n") };
  };

  test.each([
    ["ftp://127.0.0.1/token", "ftp://127.0.0.1 is not an https URL"],
    ["not a URL", "its realm is not a URL"],
    ["http://127.0.0.1:1/token", "127.0.0.1:1 is a loopback address other than the registry's own"],
    ["http://169.254.169.254/token", "169.254.169.254 is a link-local address other than the registry's own"],
    ["https://[::ffff:10.0.0.1]/token", "[::ffff:a00:1] is a private address other than the registry's own"],
    ["https://100.100.100.200/token", "100.100.100.200 is a metadata address other than the registry's own"],
  ])("at %s is not asked", async (realm, why) => {
    const { message } = await ask({ realm });
    expect(message).toEndWith(`the token server that ${repository.host} names is refused: ${why}`);
  });

  test("of another party does not get the credential", async () => {
    await using other = await FaultProxy.start(server.host);
    other.demand = { kind: "bearer", credential: account };
    const port = other.host.split(":")[1];
    const { message } = await ask({ realm: `http://localhost:${port}/token` });
    expect(other.seen.map(({ headers, path }) => [path.replace(/\?.*/, ""), headers["authorization"]])).toEqual([
      ["/token", undefined],
    ]);
    expect(message).toContain(
      `without a credential: there is one from the test, but the token server localhost:${port} is under another domain than ${repository.host}, so it was not sent there`,
    );
  });

  test("of another party gets it where the user says so", async () => {
    await using other = await FaultProxy.start(server.host);
    other.demand = { kind: "bearer", credential: account };
    const host = `localhost:${other.host.split(":")[1]}`;
    await ask({ realm: `http://${host}/token` }, { KO_TOKEN_HOSTS: `x=y,${repository.host}=${host}` });
    expect(other.seen[0]?.headers["authorization"]).toBe(`Basic ${Buffer.from("joe:s3cret-pass").toString("base64")}`);
  });

  test("that redirects elsewhere does not take the credential along", async () => {
    await using other = await FaultProxy.start(server.host);
    const realm = `http://${proxy.host}/elsewhere`;
    proxy.reset([
      {
        path: /^\/elsewhere/,
        fault: {
          kind: "answer",
          status: 307,
          headers: { location: `http://localhost:${other.host.split(":")[1]}/token` },
        },
      },
    ]);
    await ask({ realm });
    expect(proxy.seen.find(({ path }) => path.startsWith("/elsewhere"))?.headers["authorization"]).toBeDefined();
    expect(other.seen.map(({ headers }) => headers["authorization"])).toEqual([undefined]);
  });

  test("that redirects in circles is left", async () => {
    proxy.reset([
      { path: /^\/elsewhere/, fault: { kind: "answer", status: 307, headers: { location: "/elsewhere" } } },
    ]);
    const { message } = await ask({ realm: `http://${proxy.host}/elsewhere` });
    expect(message).toEndWith(`${proxy.host} redirects in circles, or away from https`);
  });

  test.each<[string, string | Uint8Array, string]>([
    ["no JSON", "s3cret-canary", "not in JSON"],
    ["no token", '{"x":"s3cret-canary"}', "without a token"],
    ["too much", new Uint8Array(65 * 1024), "with more than 64 KiB"],
    ["a malformed token", '{"token":"s3cret-canary\\r\\nX-Evil: 1"}', "with a token that is not valid in a header"],
  ])("that answers %s is not quoted", async (_, body, why) => {
    proxy.reset([{ path: /^\/odd/, fault: { kind: "answer", status: 200, body } }]);
    const { message, said } = await ask({ realm: `http://${proxy.host}/odd` });
    expect(message).toEndWith(`the token server ${proxy.host} answered 200, but ${why} (after 2 attempts)`);
    expect(message + said).not.toContain("s3cret-canary");
  });

  test.each<[string, number, string | Uint8Array, string]>([
    ["a token with 500", 500, '{"token":"s3cret-canary"}', "500"],
    ["plain text with 503", 503, "the token is s3cret-canary", "503"],
    ["a page with 500", 500, "<title>s3cret-canary</title>", "500"],
    ["a page with 403", 403, "<title>s3cret-canary</title>", "403, with the credential from the test"],
    [
      "a code and a text with 401",
      401,
      '{"errors":[{"code":"UNAUTHORIZED","message":"s3cret-canary"}]}',
      "401 (UNAUTHORIZED), with the credential from the test",
    ],
    ["a token as a code", 400, '{"errors":[{"code":"S3CRET_CANARY","message":"s3cret-canary"}]}', "400"],
    ["an error of OAuth", 400, '{"error":"invalid_grant","error_description":"s3cret-canary"}', "400 (invalid_grant)"],
    ["a token as an error of OAuth", 400, '{"error":"s3cret-canary"}', "400"],
    ["a refresh token with 201", 201, '{"refresh_token":"s3cret-canary"}', "201"],
    ["broken JSON with 502", 502, '{"access_token":"s3cret-canary', "502"],
    ["too much with 500", 500, `s3cret-canary${"x".repeat(65 * 1024)}`, "500"],
  ])("that refuses with %s is not quoted", async (_, status, body, end) => {
    proxy.reset([{ path: /^\/odd/, fault: { kind: "answer", status, body } }]);
    const { message, said } = await ask({ realm: `http://${proxy.host}/odd` });
    expect(message.replace(/ \(after \d attempts\)$/, "")).toEndWith(` answered ${end}`);
    expect(`${message}${said}`.toLowerCase()).not.toMatch(/s3cret.canary/);
  });

  test.each([
    ["refuses", { status: 403, body: "s3cret-canary" }],
    ["answers without a token", { status: 200, body: "s3cret-canary" }],
    ["redirects away from https", { status: 307, headers: { location: "ftp://127.0.0.1/s3cret-canary" } }],
    ["redirects in circles", { status: 307, headers: { location: "/session/s3cret-canary?s3cret-canary" } }],
  ])("whose redirect %s does not show where it led", async (_, answer) => {
    const location = `/session/s3cret-canary?state=s3cret-canary`;
    proxy.reset([
      { path: /^\/session/, fault: { kind: "answer", ...answer } },
      { path: /^\/odd/, fault: { kind: "answer", status: 302, headers: { location } } },
    ]);
    const { message, said } = await ask({ realm: `http://${proxy.host}/odd` });
    expect(message).toContain(proxy.host);
    expect(message + said).not.toContain("s3cret-canary");
  });

  test("that gets an identity token does not have it quoted, nor the form around it", async () => {
    proxy.reset([
      {
        method: "POST",
        path: /^\/odd/,
        fault: { kind: "answer", status: 403, body: "bad form: grant_type=refresh_token&refresh_token=s3cret-canary" },
      },
    ]);
    proxy.demand = { kind: "bearer", credential: account, realm: `http://${proxy.host}/odd` };
    const keychain = fixedKeychain({ kind: "identity", token: "refresh-1" });
    await using client = makeClient({ keychain, deadlines: SHORT });
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith(" answered 403, with the credential from the test");
    expect(client.said.join("\n")).not.toContain("grant_type");
  });

  test("that hangs does not hang us", async () => {
    proxy.reset([{ path: /^\/odd/, fault: { kind: "hang" } }]);
    const { message } = await ask({ realm: `http://${proxy.host}/odd` });
    expect(message).toEndWith(
      "/odd?service=test%2C%20%22registry%22&scope=" +
        encodeURIComponent(`repository:${repository.path}:pull`) +
        ": no answer for 1 s (after 2 attempts)",
    );
  });

  test("that is busy is asked again", async () => {
    proxy.demand = { kind: "bearer", realm: `http://${proxy.host}/busy` };
    proxy.reset([
      { path: /^\/busy/, fault: { kind: "answer", status: 503 }, only: [1] },
      { path: /^\/busy/, fault: { kind: "answer", status: 200, body: '{"access_token":"a","token":"b"}' } },
    ]);
    await using client = makeClient();
    await failureOf(client.registry.getManifest(repository, "v1"));
    // A server that is starting gets two thirds of the time at least.
    expect(client.waits.map(Math.round)).toEqual([833]);
    // access_token counts, token is for old clients.
    const sent = proxy.seen
      .filter(({ path }) => path.includes("/manifests/"))
      .map(({ headers }) => headers["authorization"]);
    expect(sent).toEqual(["Bearer a"]);
  });
});
