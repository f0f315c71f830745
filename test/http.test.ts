/** One exchange at a time: proxies, names, ports, the talk about them. */
import { describe, expect, test } from "bun:test";
import { createServer } from "node:http";
import { type Clock, systemClock } from "../lib/async.ts";
import type { HttpOptions } from "../lib/http.ts";
import { Secrets } from "../lib/url.ts";
import { failureOf } from "./helpers/failures.ts";
import { makeClient, SHORT, textBlob } from "./helpers/registry-client.ts";
import { FaultProxy } from "./helpers/registry-fault-proxy.ts";
import { findFreePort } from "./helpers/registry.ts";

const look = async (
  host: string,
  options: Parameters<typeof makeClient>[0] = {},
): Promise<{ message: string; hint: string | undefined; waits: number }> => {
  await using client = makeClient({ deadlines: SHORT, ...options });
  const { hint, message } = await failureOf(client.registry.findManifest({ host, path: "app" }, "v1"));
  return { message: message.slice(message.indexOf(": GET") + 2), hint, waits: client.waits.length };
};

/** A proxy that records and refuses all requests. */
async function startRefusingProxy(status = 403): Promise<{ url: string; asked: string[] } & AsyncDisposable> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(status).end();
  });
  server.on("connect", (request, socket) => {
    asked.push(`${request.method} ${request.url}`);
    socket.end(`HTTP/1.1 ${status} No\r\n\r\n`);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return {
    url: `http://127.0.0.1:${port}`,
    asked,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe("a host that cannot be reached", () => {
  test("a port where nothing listens", async () => {
    const host = `127.0.0.1:${await findFreePort()}`;
    expect(await look(host)).toEqual({
      message: `GET http://${host}/v2/: nothing listens there (ECONNREFUSED) (after 11 attempts)`,
      hint: `Is ${host} running? Start it, or correct its name.`,
      // It may be starting.
      waits: 10,
    });
  });

  test("an unknown name", async () => {
    expect(await look("registry.invalid")).toEqual({
      message: "GET https://registry.invalid/v2/: the host name is not known (ENOTFOUND)",
      hint: "Check the name of the registry.",
      waits: 0,
    });
  });

  test("a server that speaks something else", async () => {
    await using server = {
      listener: Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: { open: (socket) => void socket.end("SSH-2.0-x\r\n"), data() {} },
      }),
      async [Symbol.asyncDispose]() {
        this.listener.stop(true);
      },
    };
    const { message } = await look(`127.0.0.1:${server.listener.port}`);
    expect(message).toStartWith(`GET http://127.0.0.1:${server.listener.port}/v2/: `);
  });
});

describe("plain http", () => {
  test("is not spoken to a host that is not this machine", async () => {
    // 0.0.0.0 reaches the server below, but is no loopback address.
    await using server = await FaultProxy.start("127.0.0.1:1");
    const port = server.host.split(":")[1];
    const { hint, message } = await look(`0.0.0.0:${port}`);
    expect({ hint, message, seen: server.seen }).toEqual({
      message: `GET https://0.0.0.0:${port}/v2/: it does not speak TLS on this port (EPROTO)`,
      hint: "For a plain HTTP registry: --insecure-registry",
      seen: [],
    });
  });

  test("is spoken where the user said so", async () => {
    await using server = await FaultProxy.start("127.0.0.1:1");
    server.reset([{ fault: { kind: "answer", status: 200 } }]);
    const host = `0.0.0.0:${server.host.split(":")[1]}`;
    await using client = makeClient({ insecureHosts: [host], deadlines: SHORT });
    expect(await client.registry.hasBlob({ host, path: "app" }, textBlob("").descriptor)).toBe(true);
  });
});

describe("proxies", () => {
  test("are used by https, and named when they refuse", async () => {
    await using proxy = await startRefusingProxy();
    const { hint, message } = await look("registry.invalid", {
      env: { HTTPS_PROXY: proxy.url.replace("//", "//joe:s3cret@") },
    });
    expect({ asked: proxy.asked, hint, message: message.replace(/\(.*\)/, "(CODE)") }).toEqual({
      asked: ["CONNECT registry.invalid:443"],
      hint: "Check HTTPS_PROXY and NO_PROXY.",
      message: `GET https://registry.invalid/v2/: the proxy ${proxy.url.slice(7)} refused the connection (CODE)`,
    });
  });

  test.each([
    [
      "a kind that we cannot use",
      "socks4://127.0.0.1:1",
      "the proxy 127.0.0.1:1 cannot be used (UnsupportedProxyProtocol)",
    ],
    ["none", "http://[", "the proxy cannot be used (ERR_INVALID_ARG_VALUE)"],
  ])("that are %s are named", async (_, proxy, end) => {
    expect((await look("registry.invalid", { env: { HTTPS_PROXY: proxy } })).message).toEndWith(end);
  });

  test.each([
    ["https", "", "wants a user and a password", "HTTPS_PROXY"],
    ["https", "joe:s3cret@", "refuses the user and password of its URL", "HTTPS_PROXY"],
    ["http", "", "wants a user and a password", "HTTP_PROXY"],
    ["http", "joe:s3cret@", "refuses the user and password of its URL", "HTTP_PROXY"],
  ])("that want a password say so: %s, %s", async (scheme, login, why, variable) => {
    await using proxy = await startRefusingProxy(407);
    const found = await look("registry.invalid", {
      env: { [variable]: proxy.url.replace("//", `//${login}`) },
      insecureHosts: scheme === "http" ? ["registry.invalid"] : [],
    });
    expect({ ...found, message: found.message.slice(found.message.indexOf("the proxy")) }).toEqual({
      message: `the proxy ${proxy.url.slice(7)} ${why} (407)`,
      hint: `Set ${variable}=http://USER:PASSWORD@HOST:PORT`,
      waits: 0,
    });
  });

  test("are not used by this machine for itself", async () => {
    await using proxy = await startRefusingProxy();
    await using server = await FaultProxy.start("127.0.0.1:1");
    server.reset([{ fault: { kind: "answer", status: 200 } }]);
    await using client = makeClient({ env: { HTTP_PROXY: proxy.url, HTTPS_PROXY: proxy.url } });
    await client.registry.hasBlob({ host: server.host, path: "app" }, textBlob("").descriptor);
    expect({ asked: proxy.asked, seen: server.log.length }).toEqual({ asked: [], seen: 2 });
  });
});

/** A registry whose connections answer once and close without a word at the next request. */
function startSilentCloser(): { host: string; seen: string[] } & Disposable {
  const seen: string[] = [];
  const spent = new WeakSet<object>();
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, bytes) {
        const [method = ""] = new TextDecoder().decode(bytes).split(" ");
        if (!/^[A-Z]{3,6}$/.test(method)) return;
        if (spent.has(socket)) {
          seen.push(`${method} -`);
          socket.terminate();
          return;
        }
        spent.add(socket);
        const status =
          method === "HEAD" ? 404 : method === "POST" || method === "PATCH" ? 202 : method === "PUT" ? 201 : 200;
        seen.push(`${method} ${status}`);
        const location = method === "POST" ? "Location: /v2/app/blobs/uploads/1\r\n" : "";
        socket.write(`HTTP/1.1 ${status} X\r\n${location}Content-Length: 0\r\n\r\n`);
      },
    },
  });
  return { host: `127.0.0.1:${listener.port}`, seen, [Symbol.dispose]: () => listener.stop(true) };
}

describe("a server that closes connections after each answer", () => {
  const steps = (seen: readonly string[]): readonly string[] => seen.filter((step) => !step.startsWith("GET"));

  test("costs no attempt, whatever is sent", async () => {
    using server = startSilentCloser();
    await using client = makeClient({ deadlines: SHORT });
    const { registry } = client;
    const repository = { host: server.host, path: "app" };
    for (let i = 0; i < 8; i++) expect(await registry.pushBlob(repository, textBlob(`blob ${i}`))).toBe("uploaded");
    // Only a body that is not in memory is sent by the ordinary way of retries, once in a run.
    expect(client.waits.length).toBeLessThanOrEqual(1);
    expect(steps(server.seen).filter((step) => step === "PUT 201").length).toBe(8);
  });

  test("is asked again for a short body too: a form of a token, a manifest", async () => {
    using server = startSilentCloser();
    const { Http } = await import("../lib/http.ts");
    await using stack = new AsyncDisposableStack();
    const http = stack.use(new Http({ ...plainHttp() }));
    const url = new URL(`http://${server.host}/token`);
    const statuses: number[] = [];
    for (const method of ["GET", "POST", "GET", "PATCH", "GET", "PUT", "GET", "DELETE"]) {
      const body = method === "GET" || method === "DELETE" ? {} : { body: new TextEncoder().encode("a=b") };
      const response = await http.send({ method, url, action: "test", ...body });
      await response.discard();
      statuses.push(response.status);
    }
    expect(statuses).toEqual([200, 202, 200, 202, 200, 201, 200, 200]);
  });

  test("that closes new ones as well is a failure", async () => {
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: (socket) => socket.terminate() },
    });
    const { message, waits } = await look(`127.0.0.1:${listener.port}`);
    listener.stop(true);
    expect({ message: message.replace(/^.*v2\/: /, ""), waits }).toEqual({
      message: "the connection failed (ECONNRESET) (after 5 attempts)",
      waits: 4,
    });
  });
});

function plainHttp(): HttpOptions {
  const log = { info() {}, warn() {}, debug() {} };
  const rest = { userAgent: "ko/test", env: {}, insecureHosts: [], secrets: new Secrets(), deadlines: SHORT };
  return { ...rest, log, signal: new AbortController().signal, clock: systemClock };
}

describe("a registry of this machine that is starting", () => {
  /** Listens on `port` and answers everything with `status` once, then with 200. */
  const start = (port: number, status = 200): Disposable => {
    let asked = 0;
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port,
      fetch: () => new Response(null, { status: asked++ === 0 ? status : 200 }),
    });
    return { [Symbol.dispose]: () => void server.stop(true) };
  };

  test.each([
    ["refuses connections", 3, 200],
    ["refuses connections for 9 s", 9, 200],
    ["refuses connections, then answers 503", 1, 503],
  ])("%s", async (_, refusals, status) => {
    const port = await findFreePort();
    const waits: number[] = [];
    await using stack = new AsyncDisposableStack();
    const clock: Clock = {
      now: () => Date.now(),
      random: () => 0,
      sleep: async (ms) => {
        if (ms === 300) return;
        waits.push(ms);
        if (waits.length === refusals) stack.use(start(port, status));
      },
    };
    await using client = makeClient({ clock });
    expect(await client.registry.hasBlob({ host: `127.0.0.1:${port}`, path: "app" }, textBlob("").descriptor)).toBe(
      true,
    );
    expect(waits.slice(0, refusals)).toEqual(Array.from({ length: refusals }, () => 1000));
  });

  test("gets 10 s while it answers 503", async () => {
    await using server = await FaultProxy.start("127.0.0.1:1");
    server.reset([{ fault: { kind: "answer", status: 503 } }]);
    const waits: number[] = [];
    const clock: Clock = { now: () => Date.now(), random: () => 0, sleep: async (ms) => void waits.push(ms) };
    await using client = makeClient({ clock });
    await failureOf(client.registry.findManifest({ host: server.host, path: "app" }, "v1"));
    expect(waits.filter((ms) => ms !== 300).reduce((sum, ms) => sum + ms, 0)).toBeGreaterThanOrEqual(9999);
  });
});

describe("the client", () => {
  test("sends no credential unencrypted through a proxy", async () => {
    const heard: string[] = [];
    const server = createServer((request, response) => {
      heard.push(String(request.headers["authorization"]));
      response.writeHead(401, { "www-authenticate": "Basic" }).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" ? address?.port : undefined;
    await using client = makeClient({
      env: { HTTP_PROXY: `http://127.0.0.1:${port}` },
      insecureHosts: ["registry.invalid"],
      deadlines: SHORT,
      keychain: {
        find: async () => ({
          credential: { kind: "basic", username: "joe", password: "s3cret-pass" },
          source: "the test",
        }),
      },
    });
    const { message } = await failureOf(client.registry.getManifest({ host: "registry.invalid", path: "app" }, "v1"));
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    expect(message).toEndWith("without a credential: the one from the test was not sent unencrypted through a proxy");
    expect(new Set(heard)).toEqual(new Set(["undefined"]));
  });

  test("lets the process end", async () => {
    await using server = await FaultProxy.start("127.0.0.1:1");
    server.reset([{ fault: { kind: "answer", status: 200 } }]);
    const script = `
      import { makeClient, textBlob } from ${JSON.stringify(`${import.meta.dir}/helpers/registry-client.ts`)};
      await using client = makeClient({ clock: undefined });
      console.log(await client.registry.hasBlob({ host: process.argv[1], path: "app" }, textBlob("").descriptor));`;
    const started = performance.now();
    const child = Bun.spawn([process.execPath, "--no-env-file", "-e", script, server.host], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      env: {},
    });
    const out = await new Response(child.stdout).text();
    expect({ code: await child.exited, out, err: await new Response(child.stderr).text() }).toEqual({
      code: 0,
      out: "true\n",
      err: "",
    });
    // A guard that is left armed would hold it for 60 s.
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});
