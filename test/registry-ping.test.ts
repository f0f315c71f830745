/** What an earlier run learned of a registry: it saves the first question, and costs nothing but time when it is wrong. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { type HostMemory, readRememberedHost, type RememberedHost } from "../lib/registry-ping.ts";
import type { Repository } from "../lib/reference.ts";
import { bigBlob, type Failure, failureOf, makeClient, makeManifest, SHORT, textBlob, user } from "./helpers/client.ts";
import { type Demand, FaultProxy } from "./helpers/faultproxy.ts";
import { findFreePort, startRegistry, type TestRegistry, whyNoRegistry } from "./helpers/registry.ts";

const missing = whyNoRegistry() !== undefined;
const account = { username: "joe", password: "s3cret-pass" };
let server: TestRegistry;
let proxy: FaultProxy;
let count = 0;
let repository: Repository;

beforeAll(async () => {
  if (missing) return;
  server = await startRegistry();
  proxy = await FaultProxy.start(server.host);
});

afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

beforeEach(() => {
  proxy?.reset();
  if (proxy !== undefined) proxy.demand = undefined;
  repository = { host: proxy?.host ?? "", path: `test/ping${++count}` };
});

/** Keeps JSON, as a file would. */
class TestMemory implements HostMemory {
  readonly texts = new Map<string, string>();
  readonly calls: string[] = [];

  constructor(known: Readonly<Record<string, unknown>> = {}) {
    for (const [host, what] of Object.entries(known)) this.texts.set(host, JSON.stringify(what));
  }

  async recall(host: string): Promise<RememberedHost | undefined> {
    this.calls.push("recall");
    const text = this.texts.get(host);
    return text === undefined ? undefined : readRememberedHost(JSON.parse(text));
  }

  remember(host: string, what: RememberedHost): void {
    this.calls.push("remember");
    this.texts.set(host, JSON.stringify(what));
  }

  forget(host: string): void {
    this.calls.push("forget");
    this.texts.delete(host);
  }
}

interface Run {
  /** `HEAD http 404` for each request, as the log tells it. */
  readonly asked: readonly string[];
  readonly failure: Failure | undefined;
}

/** One run that looks for one manifest. */
async function look(
  memory: HostMemory | undefined,
  options: { readonly host?: string; readonly insecure?: boolean; readonly read?: boolean } = {},
): Promise<Run> {
  const { host = repository.host, insecure = false, read = false } = options;
  await using client = makeClient({
    memory,
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

describe.skipIf(missing)("with what an earlier run learned", () => {
  test.each(kinds)("%s is not asked how it is reached", async (_, demand, wanted) => {
    proxy.demand = demand;
    const memory = new TestMemory();
    await look(memory);
    proxy.reset();
    await look(memory);
    const asked = proxy.seen.map(({ method, status }) => `${method} ${status}`);
    expect({ asked, calls: memory.calls }).toEqual({ asked: [...wanted], calls: ["recall", "remember", "recall"] });
  });

  test("nothing secret is kept", async () => {
    proxy.demand = { kind: "bearer", credential: account, prefix: "canary", refreshToken: "canary-refresh" };
    const memory = new TestMemory();
    await look(memory);
    expect(Object.fromEntries(memory.texts)).toEqual({
      [proxy.host]: JSON.stringify({
        base: `http://${proxy.host}/`,
        challenge: {
          scheme: "bearer",
          parameters: { realm: `http://${proxy.host}/token`, service: 'test, "registry"' },
        },
      }),
    });
  });

  test("a push is as ever", async () => {
    const memory = new TestMemory();
    await look(memory);
    proxy.demand = { kind: "bearer", credential: account };
    await using client = makeClient({ memory, keychain: user });
    const layer = bigBlob(100_000, count);
    const manifest = makeManifest([layer]);
    await Promise.all([layer, manifest.config].map((blob) => client.registry.pushBlob(repository, blob)));
    await client.registry.pushManifest(repository, "v1", manifest);
    expect(proxy.seen.filter(({ path }) => path === "/v2/").length).toBe(1);
  });
});

describe.skipIf(missing)("a registry that is not what it was", () => {
  test.each([
    ["from http to https", false],
    ["from https to http", true],
  ])("moved %s on the same port", async (_, fromTls) => {
    const port = await findFreePort();
    const host = `127.0.0.1:${port}`;
    const memory = new TestMemory();
    const old = await startRegistry({ tls: fromTls, port });
    await look(memory, { host, insecure: true });
    const before = memory.texts.get(host);
    await old[Symbol.asyncDispose]();
    await using _now = await startRegistry({ tls: !fromTls, port });
    const { asked, failure } = await look(memory, { host, insecure: true });
    const schemes = fromTls ? ["https", "http"] : ["http", "https"];
    expect({ before, now: memory.texts.get(host), failure }).toEqual({
      before: JSON.stringify({ base: `${schemes[0]}://${host}/` }),
      now: JSON.stringify({ base: `${schemes[1]}://${host}/` }),
      failure: undefined,
    });
    // Where both schemes are tried, which answers first is left to chance.
    expect(asked).toContain(`GET ${schemes[1]} 200`);
    expect(asked.at(-1)).toBe(`HEAD ${schemes[1]} 404`);
    expect((await look(memory, { host, insecure: true })).asked).toEqual([`HEAD ${schemes[1]} 404`]);
  });

  test("pushes go on too, and the registry is asked once", async () => {
    const memory = new TestMemory({ [proxy.host]: { base: `https://${proxy.host}/` } });
    await using client = makeClient({ memory });
    const blobs = [1, 2, 3, 4].map((i) => bigBlob(100_000, 1000 * count + i));
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
    const memory = new TestMemory();
    await look(memory);
    proxy.demand = after;
    for (let run = 0; run < 2; run++) expect((await look(memory)).failure).toBeUndefined();
    // A registry that asks for less than it did is told more than it must know; that is how it stays.
    proxy.reset();
    await look(memory);
    expect(proxy.seen.length).toBeLessThanOrEqual(3);
    expect(proxy.seen.map(({ path }) => path)).not.toContain("/v2/");
  });

  test.each(["http://127.0.0.1:1/token", "$HOST/gone", "https://169.254.169.254/token"])(
    "had its token server at %s",
    async (realm) => {
      const challenge = { scheme: "bearer", parameters: { realm: realm.replace("$HOST", `http://${proxy.host}`) } };
      const memory = new TestMemory({ [proxy.host]: { base: `http://${proxy.host}/`, challenge } });
      proxy.demand = { kind: "bearer", credential: account };
      expect((await look(memory)).failure).toBeUndefined();
      expect(memory.calls).toEqual(["recall", "forget", "remember"]);
      expect(memory.texts.get(proxy.host)).toContain("/token");
    },
  );

  test("a remembered token server of another party does not get the credential", async () => {
    await using other = await FaultProxy.start(server.host);
    other.demand = { kind: "bearer", credential: account };
    const realm = `http://localhost:${other.host.split(":")[1]}/token`;
    const challenge = { scheme: "bearer", parameters: { realm } };
    proxy.demand = { kind: "bearer", credential: account };
    const { failure } = await look(new TestMemory({ [proxy.host]: { base: `http://${proxy.host}/`, challenge } }));
    expect({ failure, sent: other.seen.map(({ headers }) => headers["authorization"]) }).toEqual({
      failure: undefined,
      sent: [undefined],
    });
  });
});

describe.skipIf(missing)("a failure is the same as without a memory", () => {
  const compare = async (prepare: () => void, options: Parameters<typeof look>[1] = {}): Promise<Run> => {
    const memory = new TestMemory();
    await look(memory, options);
    prepare();
    const plain = await look(undefined, options);
    proxy.reset(proxy.rules);
    const { asked, failure } = await look(memory, options);
    expect(failure).toBeDefined();
    expect({ failure }).toEqual({ failure: plain.failure });
    return { asked, failure };
  };

  test("no such tag", async () => {
    await compare(() => undefined, { read: true });
  });

  test("a login that is not good", async () => {
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

  test("nobody there", async () => {
    const gone = await startRegistry();
    const memory = new TestMemory();
    await look(memory, { host: gone.host });
    await gone[Symbol.asyncDispose]();
    const { failure } = await look(memory, { host: gone.host });
    expect({ failure, known: memory.texts.size }).toEqual({
      failure: (await look(undefined, { host: gone.host })).failure,
      known: 0,
    });
  });
});

describe.skipIf(missing)("a memory that is not to be believed", () => {
  test.each<[string, (host: string) => unknown]>([
    ["another host", () => ({ base: "http://127.0.0.1:1/" })],
    ["another host in front", (host) => ({ base: `http://${host}.evil.example/` })],
    ["garbage", () => "\u0000"],
    ["a path", (host) => ({ base: `http://${host}/elsewhere/` })],
    ["an unknown scheme", (host) => ({ base: `http://${host}/`, challenge: { scheme: "x", parameters: {} } })],
  ])("holds %s", async (_, what) => {
    const memory = new TestMemory({ [proxy.host]: what(proxy.host) });
    expect(await look(memory)).toEqual({ asked: ["GET http 200", "HEAD http 404"], failure: undefined });
    expect(memory.texts.get(proxy.host)).toBe(JSON.stringify({ base: `http://${proxy.host}/` }));
  });

  test.each<[string, () => Promise<undefined>]>([
    ["rejects", () => Promise.reject(new Error("the disk is gone"))],
    [
      "throws",
      () => {
        throw new Error("the disk is gone");
      },
    ],
  ])("%s", async (_, recall) => {
    const memory: HostMemory = { recall, remember: () => undefined, forget: () => undefined };
    expect((await look(memory)).failure).toBeUndefined();
  });

  // 0.0.0.0 leads to this machine, but is none of the names that may be spoken to in clear.
  test("plain http is for hosts that permit it now", async () => {
    const host = `0.0.0.0:${proxy.host.split(":")[1]}`;
    const memory = new TestMemory({ [host]: { base: `http://${host}/` } });
    const { failure } = await look(memory, { host });
    expect({ failure, seen: proxy.seen }).toEqual({ failure: (await look(undefined, { host })).failure, seen: [] });
    expect((await look(memory, { host, insecure: true })).asked).toEqual(["HEAD http 404"]);
  });

  test("plain http is not kept where https may come at another port", async () => {
    const memory = new TestMemory({ localhost: { base: "http://localhost/" } });
    await using client = makeClient({ memory, deadlines: SHORT });
    await client.registry.findManifest({ host: "localhost", path: "app" }, "v1").catch(() => undefined);
    const urls = client.said.flatMap((line) => /https?:\/\/localhost\S*/.exec(line)?.[0] ?? []);
    expect(new Set(urls)).toEqual(new Set(["https://localhost/v2/:", "http://localhost/v2/:"]));
  });

  test("without one, nothing is kept", async () => {
    await using client = makeClient();
    expect(await client.registry.pushBlob(repository, textBlob(`plain ${count}`))).toBe("uploaded");
    expect(proxy.seen[0]?.path).toBe("/v2/");
  });
});
