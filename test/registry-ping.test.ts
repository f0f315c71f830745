/** Cached endpoints: they save `GET /v2/`, and cost nothing but time when they are wrong. Challenges are parsed here too. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { keyOf, type Records } from "../lib/cache.ts";
import { DEADLINES } from "../lib/http-transfer.ts";
import { Http } from "../lib/http.ts";
import { isObject } from "../lib/json.ts";
import { silentLog } from "../lib/log.ts";
import { ApiProbe, type Endpoint, findUsable, isSameEndpoint, parseChallenges } from "../lib/registry-ping.ts";
import { Secrets } from "../lib/url.ts";
import { type Failure, failureOf } from "./helpers/failures.ts";
import { bigBlob, makeClient, makeManifest, SHORT, textBlob, user } from "./helpers/registry-client.ts";
import { type Demand, FaultProxy, registrySuite } from "./helpers/registry-fault-proxy.ts";
import { findFreePort, startRegistry } from "./helpers/registry.ts";
import { makeCacheBox } from "./helpers/world-cache.ts";

const account = { username: "joe", password: "s3cret-pass" };

const { missing, proxy, repository, server, testNumber } = registrySuite();

/** Cache records in a Map, as JSON. */
class TestRecords implements Records {
  readonly calls: string[] = [];
  readonly #texts = new Map<string, string>();

  /** @param known by host; an endpoint is dated now */
  constructor(known: Readonly<Record<string, unknown>> = {}) {
    for (const [host, value] of Object.entries(known)) {
      const record = isObject(value) ? { learned: Date.now(), ...value } : value;
      this.#texts.set(`host-${keyOf(host)}`, JSON.stringify(record));
    }
  }

  /** All records, without the dates that they must have. */
  get all(): readonly unknown[] {
    return [...this.#texts.values()].map((text) => {
      const value: unknown = JSON.parse(text);
      if (!isObject(value)) return value;
      const { learned, ...rest } = value;
      expect(typeof learned).toBe("number");
      return rest;
    });
  }

  read(kind: string, key: string): unknown {
    this.calls.push("read");
    const text = this.#texts.get(`${kind}-${key}`);
    return text === undefined ? undefined : JSON.parse(text);
  }

  write(kind: string, key: string, value: unknown): void {
    this.calls.push("write");
    this.#texts.set(`${kind}-${key}`, JSON.stringify(value));
  }

  remove(kind: string, key: string): void {
    this.calls.push("remove");
    this.#texts.delete(`${kind}-${key}`);
  }
}

interface Run {
  /** `HEAD http 404` for each request, as the log shows it. */
  readonly asked: readonly string[];
  readonly failure: Failure | undefined;
}

/** One run that looks for one manifest. */
async function look(
  records: Records | undefined,
  options: { readonly host?: string; readonly insecure?: boolean; readonly read?: boolean } = {},
): Promise<Run> {
  const { host = repository.host, insecure = false, read = false } = options;
  await using client = makeClient({
    records,
    keychain: user,
    insecureHosts: insecure ? [host] : [],
    deadlines: { ...SHORT, ping: 5000 },
  });
  const target = { ...repository, host };
  const work = read ? client.registry.getManifest(target, "v1") : client.registry.findManifest(target, "v1");
  const failure = await work.then(
    () => undefined,
    () => failureOf(work),
  );
  const asked = client.said.flatMap((line) => {
    const match = /^(GET|HEAD) (https?):\/\/[^/]*(\/v2\/|\/token)?\S*: (\d+)/.exec(line);
    return match === null ? [] : [`${match[1]} ${match[2]} ${match[4]}`];
  });
  return { asked, failure };
}

const kinds: readonly [string, Demand | undefined, readonly string[]][] = [
  ["an open registry", undefined, ["HEAD 404"]],
  ["a registry with passwords", { kind: "basic", ...account }, ["HEAD 404"]],
  ["a registry with tokens", { kind: "bearer", credential: account }, ["GET 200", "HEAD 404"]],
  [
    "a registry that asks only where it matters",
    { kind: "bearer", credential: account, openPing: true },
    ["HEAD 401", "GET 200", "HEAD 404"],
  ],
];

describe.skipIf(missing)("with a record of an earlier run", () => {
  test.each(kinds)("%s is not asked how it is reached", async (_, demand, wanted) => {
    proxy.demand = demand;
    const records = new TestRecords();
    await look(records);
    proxy.reset();
    await look(records);
    const asked = proxy.seen.map(({ method, status }) => `${method} ${status}`);
    expect({ asked, calls: records.calls }).toEqual({ asked: [...wanted], calls: ["read", "write", "read"] });
  });

  test("nothing secret is kept", async () => {
    proxy.demand = { kind: "bearer", credential: account, prefix: "canary", refreshToken: "canary-refresh" };
    const records = new TestRecords();
    await look(records);
    expect(records.all).toEqual([
      {
        base: `http://${proxy.host}/`,
        challenge: {
          scheme: "bearer",
          parameters: { realm: `http://${proxy.host}/token`, service: 'test, "registry"' },
        },
      },
    ]);
  });

  test("a push is as ever", async () => {
    const records = new TestRecords();
    await look(records);
    proxy.demand = { kind: "bearer", credential: account };
    await using client = makeClient({ records, keychain: user });
    const layer = bigBlob(100_000, testNumber());
    const manifest = makeManifest([layer]);
    await Promise.all([layer, manifest.config].map((blob) => client.registry.pushBlob(repository, blob)));
    await client.registry.pushManifest(repository, "v1", manifest);
    expect(proxy.seen.filter(({ path }) => path === "/v2/").length).toBe(1);
  });
});

describe.skipIf(missing)("a registry that has changed", () => {
  test.each([
    ["from http to https", false],
    ["from https to http", true],
  ])("moved %s on the same port", async (_, fromTls) => {
    const port = await findFreePort();
    const host = `127.0.0.1:${port}`;
    const records = new TestRecords();
    const old = await startRegistry({ tls: fromTls, port });
    await look(records, { host, insecure: true });
    const before = records.all;
    await old[Symbol.asyncDispose]();
    await using _now = await startRegistry({ tls: !fromTls, port });
    const { asked, failure } = await look(records, { host, insecure: true });
    const schemes = fromTls ? ["https", "http"] : ["http", "https"];
    expect({ before, now: records.all, failure }).toEqual({
      before: [{ base: `${schemes[0]}://${host}/` }],
      now: [{ base: `${schemes[1]}://${host}/` }],
      failure: undefined,
    });
    // Where both schemes are tried, which answers first is left to chance.
    expect(asked).toContain(`GET ${schemes[1]} 200`);
    expect(asked.at(-1)).toBe(`HEAD ${schemes[1]} 404`);
    expect((await look(records, { host, insecure: true })).asked).toEqual([`HEAD ${schemes[1]} 404`]);
  });

  test("pushes go on too, and the registry is asked once", async () => {
    const records = new TestRecords({ [proxy.host]: { base: `https://${proxy.host}/` } });
    await using client = makeClient({ records });
    const blobs = [1, 2, 3, 4].map((i) => bigBlob(100_000, 1000 * testNumber() + i));
    const results = await Promise.all(blobs.map((blob) => client.registry.pushBlob(repository, blob)));
    expect({ results, pings: proxy.seen.filter(({ path }) => path === "/v2/").length }).toEqual({
      results: ["uploaded", "uploaded", "uploaded", "uploaded"],
      pings: 1,
    });
  });

  test.each(
    kinds.flatMap(([was, before], i) =>
      kinds.filter((_, j) => j !== i).map(([now, after]) => [was, now, before, after] as const),
    ),
  )("was %s, is %s", async (_was, _now, before, after) => {
    proxy.demand = before;
    const records = new TestRecords();
    await look(records);
    proxy.demand = after;
    for (let run = 0; run < 2; run++) expect((await look(records)).failure).toBeUndefined();
    // A registry that wants less than before still gets the old authorization.
    proxy.reset();
    await look(records);
    expect(proxy.seen.length).toBeLessThanOrEqual(3);
    expect(proxy.seen.map(({ path }) => path)).not.toContain("/v2/");
  });

  test.each(["http://127.0.0.1:1/token", "$HOST/gone", "https://169.254.169.254/token"])(
    "had its token server at %s",
    async (realm) => {
      const challenge = { scheme: "bearer", parameters: { realm: realm.replace("$HOST", `http://${proxy.host}`) } };
      const records = new TestRecords({ [proxy.host]: { base: `http://${proxy.host}/`, challenge } });
      proxy.demand = { kind: "bearer", credential: account };
      expect((await look(records)).failure).toBeUndefined();
      expect(records.calls).toEqual(["read", "remove", "write"]);
      expect(JSON.stringify(records.all)).toContain("/token");
    },
  );

  test("a remembered token server of another party does not get the credential", async () => {
    await using other = await FaultProxy.start(server.host);
    other.demand = { kind: "bearer", credential: account };
    const realm = `http://localhost:${other.host.split(":")[1]}/token`;
    const challenge = { scheme: "bearer", parameters: { realm } };
    proxy.demand = { kind: "bearer", credential: account };
    const { failure } = await look(new TestRecords({ [proxy.host]: { base: `http://${proxy.host}/`, challenge } }));
    expect({ failure, sent: other.seen.map(({ headers }) => headers["authorization"]) }).toEqual({
      failure: undefined,
      sent: [undefined],
    });
  });
});

describe.skipIf(missing)("a failure is the same as without a record", () => {
  const compare = async (prepare: () => void, options: Parameters<typeof look>[1] = {}): Promise<Run> => {
    const records = new TestRecords();
    await look(records, options);
    prepare();
    const plain = await look(undefined, options);
    proxy.reset(proxy.rules);
    const { asked, failure } = await look(records, options);
    expect(failure).toBeDefined();
    expect({ failure }).toEqual({ failure: plain.failure });
    return { asked, failure };
  };

  test("no such tag", async () => {
    await compare(() => undefined, { read: true });
  });

  test("a refused login", async () => {
    proxy.demand = { kind: "bearer", credential: account };
    await compare(() => (proxy.demand = { kind: "bearer", credential: { username: "joe", password: "another" } }));
  });

  test("a registry that wants a password and gets a wrong one", async () => {
    await compare(() => (proxy.demand = { kind: "basic", username: "joe", password: "another" }));
  });

  test("a registry that only says 500", async () => {
    await compare(() => proxy.reset([{ fault: { kind: "answer", status: 500 } }]));
  });

  test("something else that answers there", async () => {
    await compare(() => proxy.reset([{ fault: { kind: "answer", status: 404, body: "<title>Welcome</title>" } }]), {
      read: true,
    });
  });

  test("connections that are reset", async () => {
    await compare(() => proxy.reset([{ fault: { kind: "reset" } }]));
  });

  test("nothing listens", async () => {
    const gone = await startRegistry();
    const records = new TestRecords();
    await look(records, { host: gone.host });
    await gone[Symbol.asyncDispose]();
    const { failure } = await look(records, { host: gone.host });
    expect({ failure, all: records.all }).toEqual({
      failure: (await look(undefined, { host: gone.host })).failure,
      all: [],
    });
  });
});

describe.skipIf(missing)("a record that is wrong", () => {
  test.each<[string, (host: string) => unknown]>([
    ["another host", () => ({ base: "http://127.0.0.1:1/" })],
    ["another host in front", (host) => ({ base: `http://${host}.evil.example/` })],
    ["garbage", () => "\u0000"],
    ["a path", (host) => ({ base: `http://${host}/elsewhere/` })],
    ["an unknown scheme", (host) => ({ base: `http://${host}/`, challenge: { scheme: "x", parameters: {} } })],
  ])("holds %s", async (_, recordOf) => {
    const records = new TestRecords({ [proxy.host]: recordOf(proxy.host) });
    expect(await look(records)).toEqual({ asked: ["GET http 200", "HEAD http 404"], failure: undefined });
    expect(records.all).toEqual([{ base: `http://${proxy.host}/` }]);
  });

  // 0.0.0.0 leads to this machine, but is not one of the hosts that may use plain http.
  test("plain http is for hosts that permit it now", async () => {
    const host = `0.0.0.0:${proxy.host.split(":")[1]}`;
    const records = new TestRecords({ [host]: { base: `http://${host}/` } });
    const { failure } = await look(records, { host });
    expect({ failure, seen: proxy.seen }).toEqual({ failure: (await look(undefined, { host })).failure, seen: [] });
    expect((await look(records, { host, insecure: true })).asked).toEqual(["HEAD http 404"]);
  });

  test("plain http is not kept where https may come at another port", async () => {
    const records = new TestRecords({ localhost: { base: "http://localhost/" } });
    await using client = makeClient({ records, deadlines: SHORT });
    await client.registry.findManifest({ host: "localhost", path: "app" }, "v1").catch(() => undefined);
    const urls = client.said.flatMap((line) => /https?:\/\/localhost\S*/.exec(line)?.[0] ?? []);
    expect(new Set(urls)).toEqual(new Set(["https://localhost/v2/:", "http://localhost/v2/:"]));
  });

  test("without one, nothing is kept", async () => {
    await using client = makeClient();
    expect(await client.registry.pushBlob(repository, textBlob(`plain ${testNumber()}`))).toBe("uploaded");
    expect(proxy.seen[0]?.path).toBe("/v2/");
  });
});

describe.skipIf(missing)("the first question", () => {
  test.each<[string, number, string]>([
    ["500", 500, "answered 500 (after 5 attempts)"],
    ["404", 404, "answered 404, without a credential: none was asked for"],
  ])("answered with %s ends it", async (_, status, end) => {
    proxy.reset([{ path: /^\/v2\/$/, fault: { kind: "answer", status } }]);
    await using client = makeClient();
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith(end);
  });

  test("is asked once, however many begin at once", async () => {
    await using client = makeClient();
    await Promise.all(["a", "b", "c"].map((tag) => client.registry.findManifest(repository, tag)));
    expect(proxy.seen.filter(({ path }) => path === "/v2/").length).toBe(1);
  });

  test("is asked again after it failed", async () => {
    proxy.reset([{ path: /^\/v2\/$/, fault: { kind: "answer", status: 503 }, only: [1] }]);
    await using client = makeClient();
    expect(await client.registry.findManifest(repository, "a")).toBeUndefined();
  });

  test("has a deadline of its own", async () => {
    proxy.reset([{ path: /^\/v2\/$/, fault: { kind: "hang" } }]);
    await using client = makeClient({ deadlines: { ...SHORT, firstByte: 60_000 } });
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith("/v2/: no answer for 1 s (after 2 attempts)");
  });
});

const DAY_MS = 24 * 3600 * 1000;
const HOST = "registry.example";
const TOKEN = { scheme: "bearer", parameters: { realm: "https://auth.example/token?x=1", service: "registry" } };
const OPEN: Endpoint = { base: new URL(`https://${HOST}/`), challenge: undefined };

/** The endpoint by the records alone: the probe cannot ask the registry. */
async function recall(host: string, records: Records, now: () => number = Date.now): Promise<Endpoint | undefined> {
  return offlineProbe(host, records, now)
    .find("test")
    .catch(() => undefined);
}

function offlineProbe(host: string, records: Records, now: () => number = Date.now): ApiProbe {
  const signal = AbortSignal.abort();
  const clock = { now, sleep: async () => {}, random: () => 0 };
  const rest = { userAgent: "ko/test", env: {}, insecureHosts: [], secrets: new Secrets(), deadlines: DEADLINES };
  return new ApiProbe({ http: new Http({ log: silentLog, signal, clock, ...rest }), host, signal, records });
}

/** An endpoint in the form of its record. */
function asRecord(endpoint: Endpoint | undefined): unknown {
  return endpoint === undefined ? undefined : JSON.parse(JSON.stringify(endpoint));
}

describe("a record", () => {
  test.each<[string, string, unknown]>([
    ["an open registry", HOST, { base: `https://${HOST}/` }],
    ["one that speaks http", "127.0.0.1:5000", { base: "http://127.0.0.1:5000/" }],
    ["one at an IPv6 address", "[::1]:5000", { base: "http://[::1]:5000/" }],
    ["one that wants a token", HOST, { base: `https://${HOST}/`, challenge: TOKEN }],
    ["one that wants a password", HOST, { base: `https://${HOST}/`, challenge: { scheme: "basic", parameters: {} } }],
  ])("of %s is read", async (_, host, value) => {
    expect(asRecord(await recall(host, new TestRecords({ [host]: value })))).toEqual(value);
  });

  test("gives no more than is needed", async () => {
    const parameters = { ...TOKEN.parameters, scope: "repository:a:pull", token: "x" };
    const records = new TestRecords({
      [HOST]: { base: `https://${HOST}/`, challenge: { ...TOKEN, extra: 1, parameters }, token: "x" },
    });
    expect(asRecord(await recall(HOST, records))).toEqual({ base: `https://${HOST}/`, challenge: TOKEN });
  });

  const base = `https://${HOST}/`;
  const tokenAt = (realm: unknown): unknown => ({ base, challenge: { scheme: "bearer", parameters: { realm } } });
  test.each<[string, unknown]>([
    ["null", null],
    ["a list", []],
    ["a text", base],
    ["no base", {}],
    ["no date", { base, learned: undefined }],
    ["a date that is no number", { base, learned: "1" }],
    ["a base that is no text", { base: 1 }],
    ["a base that is no URL", { base: "https://[/" }],
    ["a base with a path", { base: `${base}v2/` }],
    ["a base without its end", { base: base.slice(0, -1) }],
    ["a base with a user", { base: `https://joe@${HOST}/` }],
    ["a base with a query", { base: `${base}?x=/` }],
    ["a base of another scheme", { base: "file:///" }],
    ["a base with a line end", { base: `https://${HOST}\n/` }],
    ["a base of another host", { base: `https://${"a".repeat(5000)}/` }],
    ["a challenge that is null", { base, challenge: null }],
    ["a challenge without parameters", { base, challenge: { scheme: "basic" } }],
    ["an unknown scheme", { base, challenge: { scheme: "negotiate", parameters: {} } }],
    ["a scheme in capitals", { base, challenge: { ...TOKEN, scheme: "Bearer" } }],
    ["parameters that are no texts", tokenAt(1)],
    ["a token without a server", { base, challenge: { scheme: "bearer", parameters: {} } }],
    ["a server with a password", tokenAt("https://joe:pass@b/token")],
    [
      "a service with a line end",
      { base, challenge: { scheme: "bearer", parameters: { realm: "https://b/", service: "x\r\ny" } } },
    ],
  ])("with %s counts as none", async (_, value) => {
    expect(await recall(HOST, new TestRecords({ [HOST]: value }))).toBeUndefined();
  });

  test("is corrected, without the parameters of one request", () => {
    const records = new TestRecords();
    const moved = { ...TOKEN, parameters: { realm: "https://other.example/" } };
    const parameters = { ...TOKEN.parameters, scope: "repository:secret/app:pull", error: "invalid_token" };
    const probe = offlineProbe(HOST, records);
    probe.correct(OPEN, TOKEN);
    probe.correct({ ...OPEN, challenge: TOKEN }, { ...TOKEN, parameters });
    expect(records.all).toEqual([]);
    probe.correct({ ...OPEN, challenge: moved }, { ...TOKEN, parameters });
    expect(records.all).toEqual([{ base, challenge: TOKEN }]);
    probe.correct({ ...OPEN, challenge: moved }, { scheme: "basic", parameters: { realm: "x" } });
    expect(records.all).toEqual([{ base, challenge: { scheme: "basic", parameters: {} } }]);
  });

  test.each([undefined, "", "no URL", "https://joe:pass@auth.example/token", `https://b/${"x".repeat(5000)}`])(
    "is not written for the realm %p",
    (realm) => {
      const records = new TestRecords();
      const now = { scheme: "bearer", parameters: realm === undefined ? {} : { realm } };
      offlineProbe(HOST, records).correct({ ...OPEN, challenge: TOKEN }, now);
      expect(records.all).toEqual([]);
    },
  );

  test("is compared by base, scheme, realm and service", () => {
    const { parameters } = TOKEN;
    const of = (challenge: Endpoint["challenge"]): Endpoint => ({ ...OPEN, challenge });
    const scoped = of({ ...TOKEN, parameters: { ...parameters, scope: "x" } });
    const moved = of({ ...TOKEN, parameters: { ...parameters, realm: "https://other.example/" } });
    const basic = of({ scheme: "basic", parameters: { realm: "a" } });
    expect(isSameEndpoint(OPEN, of(undefined))).toBe(true);
    expect(isSameEndpoint(OPEN, { ...OPEN, base: new URL("https://a/") })).toBe(false);
    expect(isSameEndpoint(of(TOKEN), OPEN)).toBe(false);
    expect(isSameEndpoint(of(TOKEN), scoped)).toBe(true);
    expect(isSameEndpoint(of(TOKEN), moved)).toBe(false);
    expect(isSameEndpoint(of(TOKEN), basic)).toBe(false);
    expect(isSameEndpoint(basic, of({ scheme: "basic", parameters: {} }))).toBe(true);
  });
});

describe("a record in the cache", () => {
  /** Stores the endpoint of a registry that wants a token. */
  const store = (records: Records, host: string, now?: () => number): void => {
    offlineProbe(host, records, now).correct(
      { base: new URL(`https://${host}/`), challenge: { scheme: "basic", parameters: {} } },
      TOKEN,
    );
  };
  const stored = (host: string): unknown => ({ base: `https://${host}/`, challenge: TOKEN });

  test("is read by a later run, each host its own", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    store(cache, "a.example");
    store(cache, "b.example:5000");
    await using later = box.open();
    const hosts = ["a.example", "b.example:5000", "b.example"];
    expect((await Promise.all(hosts.map((host) => recall(host, later)))).map(asRecord)).toEqual([
      stored("a.example"),
      stored("b.example:5000"),
      undefined,
    ]);
  });

  test("is removed as soon as a request failed with it", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    store(cache, HOST);
    const probe = offlineProbe(HOST, cache);
    await probe.replace(await probe.find("test"), "test").catch(() => undefined);
    expect(await recall(HOST, cache)).toBeUndefined();
  });

  test("is stale after seven days, however often it was read, and if it is from the future", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const start = Date.now();
    const at = (days: number) => (): number => start + days * DAY_MS;
    store(cache, HOST, at(0));
    expect(asRecord(await recall(HOST, cache, at(6)))).toEqual(stored(HOST));
    expect(await recall(HOST, cache, at(8))).toBeUndefined();
    store(cache, HOST, at(8));
    expect(await recall(HOST, cache, at(7))).toBeUndefined();
  });

  test.each<[string, (file: string) => void]>([
    ["damaged", (file) => writeFileSync(file, readFileSync(file, "utf8").replace("auth", "evil"))],
    ["empty", (file) => writeFileSync(file, "")],
    ["removed", (file) => rmSync(file)],
  ])("counts as none when it is %s", async (_, harm) => {
    using box = makeCacheBox();
    await using cache = box.open();
    store(cache, HOST);
    const folder = join(cache.folder, "records");
    for (const name of readdirSync(folder)) harm(join(folder, name));
    expect(await recall(HOST, cache)).toBeUndefined();
  });

  test("fails nothing when the cache cannot be written to", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    rmSync(box.place, { recursive: true });
    writeFileSync(box.place, "");
    store(cache, HOST);
    expect(await recall(HOST, cache)).toBeUndefined();
  });
});

const bearerOf = (parameters: Record<string, string>): unknown => ({ scheme: "bearer", parameters });

describe("parseChallenges()", () => {
  test.each<[string, string, unknown]>([
    ["nothing", "", []],
    ["a scheme alone", "Basic", [{ scheme: "basic", parameters: {} }]],
    ["quoted values", 'Basic realm="x"', [{ scheme: "basic", parameters: { realm: "x" } }]],
    ["bare values and other case", "BEARER Realm=https://a/b", [bearerOf({ realm: "https://a/b" })]],
    [
      "commas and quotes inside of quotes",
      'Bearer realm="https://a/t",service="a, \\"b\\"",scope="repository:x:pull,push"',
      [bearerOf({ realm: "https://a/t", service: 'a, "b"', scope: "repository:x:pull,push" })],
    ],
    [
      "several challenges in one header",
      'Negotiate, Bearer realm="r",service="s", Basic realm="b"',
      [
        { scheme: "negotiate", parameters: {} },
        bearerOf({ realm: "r", service: "s" }),
        { scheme: "basic", parameters: { realm: "b" } },
      ],
    ],
    [
      "an opaque value",
      'Negotiate YII=, Bearer realm="r"',
      [{ scheme: "negotiate", parameters: {} }, bearerOf({ realm: "r" })],
    ],
    ["blanks around signs", 'Bearer realm = "r" ,  service = s', [bearerOf({ realm: "r", service: "s" })]],
    ["the first of two equal parameters", 'Bearer realm="a",realm="b"', [bearerOf({ realm: "a" })]],
    ["an open quote", 'Bearer realm="a', [bearerOf({ realm: "a" })]],
    ["garbage before it", '\u0001;"" Bearer realm="a"', [bearerOf({ realm: "a" })]],
    [
      "names that objects have",
      "Bearer __proto__=x,constructor=y",
      [bearerOf(JSON.parse('{"__proto__":"x","constructor":"y"}'))],
    ],
  ])("reads %s", (_, header, wanted) => {
    expect(JSON.stringify(parseChallenges(header))).toBe(JSON.stringify(wanted));
  });
});

describe("findUsable()", () => {
  test.each([
    ['Negotiate, Bearer realm="r", Basic', "bearer"],
    ['Basic realm="b", Bearer realm="r"', "basic"],
    ["Digest realm=x", undefined],
  ])("of %s picks %s", (header, scheme) => {
    expect(findUsable(parseChallenges(header))?.scheme).toBe(scheme);
  });
});
