/** One exchange at a time: proxies, names, ports, the talk about them. */
import { describe, expect, test } from "bun:test";
import { createServer } from "node:http";
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
async function startRefusingProxy(): Promise<{ url: string; asked: string[] } & AsyncDisposable> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(403).end();
  });
  server.on("connect", (request, socket) => {
    asked.push(`${request.method} ${request.url}`);
    socket.end("HTTP/1.1 403 Forbidden\r\n\r\n");
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
      message: `GET http://${host}/v2/: nothing listens there (ECONNREFUSED) (after 2 attempts)`,
      hint: undefined,
      waits: 1,
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
      hint: "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
      message: `GET https://registry.invalid/v2/: the proxy ${proxy.url.slice(7)} cannot be used (CODE)`,
    });
  });

  test.each([
    [
      "a kind that we cannot use",
      "socks5://127.0.0.1:1",
      "the proxy 127.0.0.1:1 cannot be used (UnsupportedProxyProtocol)",
    ],
    ["none", "http://[", "the proxy cannot be used (ERR_INVALID_ARG_VALUE)"],
  ])("that are %s are named", async (_, proxy, end) => {
    expect((await look("registry.invalid", { env: { HTTPS_PROXY: proxy } })).message).toEndWith(end);
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
