/** Requests through a SOCKS5 proxy: names, logins, refusals, bodies, and nothing that goes around it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, createServer, type Socket } from "node:net";
import { SocksBridge } from "../lib/http-socks.ts";
import { failureOf } from "./helpers/failures.ts";
import { bigBlob, makeClient, makeManifest, readAll, SHORT } from "./helpers/registry-client.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { findFreePort } from "./helpers/registry.ts";
import { waitUntil } from "./helpers/world-programs.ts";

interface SocksServer extends AsyncDisposable {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  /** `name:port` of each request, as it was asked; `user:password` before it if there was a login. */
  readonly asked: readonly string[];
  readonly open: number;
}

interface SocksOptions {
  readonly login?: string;
  /** Answers every request with this code. */
  readonly reply?: number;
  /** Where every connection leads: `host:port`. */
  readonly to?: string;
}

/** A SOCKS5 proxy by RFC 1928. */
async function startSocks({ login, reply = 0, to = "127.0.0.1:1" }: SocksOptions = {}): Promise<SocksServer> {
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const serve = async (socket: Socket): Promise<void> => {
    const buffered: number[] = [];
    let wake = (): void => {};
    const collect = (chunk: Uint8Array): void => {
      buffered.push(...chunk);
      wake();
    };
    socket.on("data", collect);
    const take = async (size: number): Promise<number[]> => {
      while (buffered.length < size) await new Promise<void>((resolve) => (wake = resolve));
      return buffered.splice(0, size);
    };
    const [, count = 0] = await take(2);
    const methods = await take(count);
    const method = login === undefined ? 0 : methods.includes(2) ? 2 : 255;
    socket.write(new Uint8Array([5, method]));
    let user = "";
    if (method === 2) {
      const [, length = 0] = await take(2);
      const name = Buffer.from(await take(length)).toString();
      user = `${name}:${Buffer.from(await take((await take(1))[0] ?? 0)).toString()}`;
      socket.write(new Uint8Array([1, user === login ? 0 : 1]));
    }
    const [, , , kind] = await take(4);
    const [size = 0] = kind === 3 ? await take(1) : [kind === 1 ? 4 : 16];
    const bytes = Buffer.from(await take(size));
    const name = kind === 3 ? bytes.toString() : kind === 1 ? bytes.join(".") : bytes.toString("hex");
    const [high = 0, low = 0] = await take(2);
    asked.push(`${user === "" ? "" : `${user}@`}${name}:${high * 256 + low}`);
    socket.off("data", collect);
    if (reply !== 0) return void socket.end(new Uint8Array([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]));
    const [host = "", port] = to.split(":");
    const upstream = connect({ host, port: Number(port) }, () => {
      socket.write(new Uint8Array([5, 0, 0, 3, 1, 120, 0, 0]));
      socket.pipe(upstream);
      upstream.pipe(socket);
    });
    for (const each of [socket, upstream]) each.on("error", () => each.destroy());
    socket.on("close", () => upstream.destroy());
    upstream.on("close", () => socket.destroy());
  };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    void serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the SOCKS5 proxy does not listen");
  return {
    host: `127.0.0.1:${address.port}`,
    asked,
    get open() {
      return sockets.size;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const { missing, proxy, server } = registrySuite();
const path = "test/socks";
const http = "registry.test:5000";

describe.skipIf(missing)("a registry behind a SOCKS5 proxy", () => {
  test.each([
    ["socks5", ""],
    ["socks5h", ""],
    ["SOCKS5", "joe:s3cret%20pass@"],
  ])("%s://%s: is pushed to and pulled from over http", async (scheme, login) => {
    await using socks = await startSocks({ to: proxy.host, ...(login === "" ? {} : { login: "joe:s3cret pass" }) });
    await using client = makeClient({
      env: { HTTP_PROXY: `${scheme}://${login}${socks.host}`, HTTPS_PROXY: `${scheme}://${login}${socks.host}` },
      insecureHosts: [http],
    });
    const repository = { host: http, path };
    const layer = bigBlob(3_000_000, login.length + scheme.length);
    const manifest = makeManifest([layer]);
    for (const blob of [layer, manifest.config]) await client.registry.pushBlob(repository, blob);
    await client.registry.pushManifest(repository, "v1", manifest);
    const read = await readAll(client.registry.openBlob(repository, layer.descriptor));
    expect(Buffer.from(read).equals(layer.bytes)).toBe(true);
    expect((await client.registry.getManifest(repository, "v1")).descriptor).toEqual(manifest.descriptor);
    // The proxy resolves the name.
    expect(new Set(socks.asked)).toEqual(new Set([`${login === "" ? "" : "joe:s3cret pass@"}registry.test:5000`]));
    const sent = proxy.seen.flatMap(({ headers }) => Object.keys(headers));
    expect(sent.filter((name) => name.startsWith("proxy-"))).toEqual([]);
    expect(client.said.join("\n")).not.toContain("s3cret");
  });

  test("ends its connections with the client", async () => {
    await using socks = await startSocks({ to: proxy.host });
    const client = makeClient({ env: { HTTP_PROXY: `socks5://${socks.host}` }, insecureHosts: [http] });
    await client.registry.findManifest({ host: http, path }, "v1");
    await client[Symbol.asyncDispose]();
    await waitUntil(() => socks.open === 0);
  });

  test("is not reached without it, and this machine is reached directly", async () => {
    await using socks = await startSocks({ to: "127.0.0.1:1" });
    const env = { HTTP_PROXY: `socks5://${socks.host}`, HTTPS_PROXY: `socks5://${socks.host}` };
    await using client = makeClient({ env });
    await client.registry.findManifest({ host: server.host, path }, "none");
    expect(socks.asked).toEqual([]);
  });
});

describe("over https", () => {
  let tls: ReturnType<typeof Bun.serve>;
  const heard: string[] = [];
  beforeAll(async () => {
    const { makeAuthority } = await import("./helpers/registry.ts");
    const { makeFolder } = await import("./helpers/world-folders.ts");
    await using folder = await makeFolder();
    const authority = await makeAuthority(folder.path);
    tls = Bun.serve({
      port: 0,
      tls: authority.server,
      fetch: async (request) => {
        heard.push(`${request.method} ${request.headers.get("host")} ${(await request.bytes()).byteLength}`);
        return new Response(null, { status: 404 });
      },
    });
  });
  afterAll(async () => tls.stop(true));

  test.each([
    ["registry.test", "registry.test:443"],
    ["registry.test:8443", "registry.test:8443"],
    ["192.0.2.7", "192.0.2.7:443"],
    ["[2001:db8::1:2]:8443", "20010db8000000000000000000010002:8443"],
  ])("%s", async (host, asked) => {
    await using socks = await startSocks({ to: `127.0.0.1:${tls.port}` });
    heard.length = 0;
    // The name is not in the certificate; plain http is tried too, which must not go around the proxy.
    const env = { HTTPS_PROXY: `socks5://${socks.host}`, HTTP_PROXY: `socks5://${socks.host}` };
    await using client = makeClient({ env, insecureHosts: [host] });
    await failureOf(client.registry.findManifest({ host, path }, "v1"));
    expect(socks.asked).toContain(asked);
    expect(heard[0]).toBe(`GET ${host} 0`);
  });
});

describe("a SOCKS5 proxy that", () => {
  const look = async (env: Readonly<Record<string, string>>): Promise<string> => {
    await using client = makeClient({ env, deadlines: SHORT });
    const { message } = await failureOf(client.registry.findManifest({ host: "registry.test", path }, "v1"));
    return message.slice(message.indexOf("the proxy"));
  };
  const twice = "(after 2 attempts)";

  test.each<[string, SocksOptions, string, string]>([
    ["refuses by its rules", { reply: 2 }, "", "its rules do not allow this connection"],
    ["does not know the name", { reply: 4 }, "", "the host cannot be reached, or its name is not known"],
    ["finds a closed port", { reply: 5 }, "", "nothing listens there"],
    ["has a reply of its own", { reply: 200 }, "", "it answered 200"],
    ["wants a login", { login: "a:b" }, "", "it wants a user and a password: socks5://USER:PASSWORD@HOST"],
    ["refuses a login", { login: "a:b" }, "joe:s3cret@", "it refuses the user and password of its URL"],
  ])("%s is named with the reason", async (_, options, login, why) => {
    await using socks = await startSocks(options);
    const said = await look({ HTTPS_PROXY: `socks5://${login}${socks.host}` });
    expect(said).toBe(`the proxy ${socks.host} cannot connect: ${why} ${twice}`);
  });

  test("is not there is named", async () => {
    const host = `127.0.0.1:${await findFreePort()}`;
    const why = "it cannot be reached (ECONNREFUSED)";
    expect(await look({ HTTPS_PROXY: `socks5://${host}` })).toBe(`the proxy ${host} cannot connect: ${why} ${twice}`);
  });

  test("speaks something else is named", async () => {
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { open: (socket) => void socket.end("SSH-2.0-x\r\n"), data() {} },
    });
    const host = `127.0.0.1:${listener.port}`;
    const said = await look({ HTTPS_PROXY: `socks5://${host}` });
    listener.stop(true);
    expect(said).toBe(`the proxy ${host} cannot connect: it does not speak SOCKS5 ${twice}`);
  });

  test("says nothing ends with the deadline", async () => {
    const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    await using client = makeClient({ env: { HTTPS_PROXY: `socks5://127.0.0.1:${listener.port}` }, deadlines: SHORT });
    const { message } = await failureOf(client.registry.findManifest({ host: "registry.test", path }, "v1"));
    listener.stop(true);
    expect(message).toEndWith(`/v2/: no answer for 1 s ${twice}`);
  });

  test("has no host is named", async () => {
    await using client = makeClient({ env: { HTTPS_PROXY: "socks5://" } });
    const { message } = await failureOf(client.registry.findManifest({ host: "registry.test", path }, "v1"));
    expect(message).toBe('Cannot use the SOCKS5 proxy "socks5://": it has no host');
  });
});

describe("the bridge", () => {
  test.each([
    ["no password", ""],
    ["a wrong password", `Proxy-Authorization: Basic ${btoa("ko:guess")}\r\n`],
  ])("refuses other users of this machine: %s", async (_, header) => {
    await using socks = await startSocks();
    using bridge = await SocksBridge.open(`socks5://${socks.host}`);
    const socket = connect({ host: "127.0.0.1", port: Number(new URL(bridge.url).port) });
    socket.write(`CONNECT registry.test:443 HTTP/1.1\r\n${header}\r\n`);
    const answer = await new Promise<string>((resolve) => socket.once("data", (chunk) => resolve(String(chunk))));
    socket.destroy();
    expect({ asked: socks.asked, answer: answer.split("\r\n")[0] }).toEqual({
      asked: [],
      answer: "HTTP/1.1 502 Bad Gateway",
    });
  });
});
