/**
 * Leads the requests of `fetch`, which knows HTTP proxies only, through a SOCKS5 proxy: an HTTP proxy on loopback that
 * takes requests with a password of its own and opens each connection at the SOCKS5 proxy.
 *
 * Host names are resolved by the SOCKS5 proxy, as in Go. Rules: docs/rules.md A11.9.
 *
 * https://www.rfc-editor.org/rfc/rfc1928 https://www.rfc-editor.org/rfc/rfc1929
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, connect, isIP, type Server, type Socket } from "node:net";
import { codeOf, KoError, messageOf } from "./errors.ts";
import { redactUrl } from "./url.ts";

/** Where a connection leads. */
interface Target {
  readonly host: string;
  readonly port: number;
}

const DEFAULT_PORT = 1080;
const VERSION = 5;
const MAX_HEAD_BYTES = 64 * 1024;
/** By the code of the proxy's reply. */
const REPLIES: Readonly<Record<number, string>> = {
  1: "it failed",
  2: "its rules do not allow this connection",
  3: "the network cannot be reached",
  4: "the host cannot be reached, or its name is not known",
  5: "nothing listens there",
  6: "the connection took too long",
  7: "it does not support this command",
  8: "it does not support this kind of address",
};

/** One local HTTP proxy in front of one SOCKS5 proxy. */
export class SocksBridge implements Disposable {
  /** For the option `proxy` of `fetch`. It holds the password. */
  readonly url: string;
  readonly #proxy: URL;
  readonly #server: Server;
  readonly #authorization: string;
  readonly #sockets = new Set<Socket>();
  /** Why the last connection to `host:port` failed. */
  readonly #failures = new Map<string, string>();

  private constructor(proxy: URL, { server, secret }: { readonly server: Server; readonly secret: string }) {
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("the bridge does not listen");
    this.url = `http://ko:${secret}@127.0.0.1:${address.port}`;
    this.#proxy = proxy;
    this.#server = server;
    this.#authorization = `Basic ${Buffer.from(`ko:${secret}`).toString("base64")}`;
    server.on("connection", (socket) => void this.#serve(this.#watch(socket)));
  }

  /** @throws {KoError} If `proxy` is not a URL with a host. */
  static async open(proxy: string): Promise<SocksBridge> {
    const url = URL.canParse(proxy) ? new URL(proxy) : undefined;
    if (url === undefined || url.hostname === "") {
      throw new KoError(`Cannot use the SOCKS5 proxy "${redactUrl(proxy)}": it has no host`, {
        hint: "Type: export HTTPS_PROXY=socks5://HOST:1080",
      });
    }
    const server = createServer({ pauseOnConnect: true });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new SocksBridge(url, { server, secret: randomBytes(16).toString("hex") });
  }

  /** Why the proxy did not connect to the host of `url`; undefined if it did. */
  failure(url: URL): string | undefined {
    return this.#failures.get(nameOf(targetOf(url)));
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #watch(socket: Socket): Socket {
    this.#sockets.add(socket);
    // An error is followed by "close".
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    return socket;
  }

  async #serve(client: Socket): Promise<void> {
    try {
      const request = parseHead(await readHead(client));
      // Other users of this machine reach the port too.
      if (request?.authorization !== this.#authorization) throw new Error("this request is not ours");
      const upstream = await this.#dial(request.target, client);
      if (request.head === undefined) client.write("HTTP/1.1 200 OK\r\n\r\n");
      else upstream.write(request.head);
      client.pipe(upstream);
      upstream.pipe(client);
      client.on("close", () => upstream.destroy());
      upstream.on("close", () => client.destroy());
    } catch {
      client.end("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
  }

  /** Opens a connection to `target` through the proxy. */
  async #dial(target: Target, client: Socket): Promise<Socket> {
    const name = nameOf(target);
    this.#failures.delete(name);
    const host = this.#proxy.hostname.replace(/^\[|\]$/g, "");
    const upstream = this.#watch(connect({ host, port: Number(this.#proxy.port || DEFAULT_PORT) }));
    const leave = (): void => void upstream.destroy();
    client.once("close", leave);
    try {
      await once(upstream, "connect").catch((error: unknown) => {
        throw new Error(`it cannot be reached (${codeOf(error) ?? messageOf(error)})`);
      });
      await handshake(upstream, {
        target,
        username: decode(this.#proxy.username),
        password: decode(this.#proxy.password),
      });
      return upstream;
    } catch (error) {
      upstream.destroy();
      this.#failures.set(name, messageOf(error));
      throw error;
    } finally {
      client.off("close", leave);
    }
  }
}

interface BridgeRequest {
  readonly target: Target;
  /** The value of `Proxy-Authorization`. */
  readonly authorization: string | undefined;
  /** The head for the target's server; undefined for CONNECT. */
  readonly head: Uint8Array | undefined;
}

/** Undefined if the head is not that of a request to a proxy. */
function parseHead(head: Uint8Array): BridgeRequest | undefined {
  const [line = "", ...lines] = Buffer.from(head).toString("latin1").split("\r\n");
  const [method = "", where = "", version = ""] = line.split(" ");
  // One request a connection: the next one may be for another server.
  const isOurs = (header: string): boolean => /^(?:proxy-|connection:|keep-alive:)/i.test(header);
  const authorization = lines
    .map((header) => /^proxy-authorization:\s*(.*)$/i.exec(header)?.[1])
    .find((value) => value !== undefined);
  const text = method === "CONNECT" ? `http://${where}` : where;
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  if (method === "CONNECT") return { target: targetOf(url), authorization, head: undefined };
  const rest = lines.filter((header) => !isOurs(header));
  const first = `${method} ${url.pathname}${url.search} ${version}`;
  return {
    target: targetOf(url),
    authorization,
    head: Buffer.from([first, "connection: close", ...rest].join("\r\n"), "latin1"),
  };
}

function targetOf({ hostname, port, protocol }: URL): Target {
  return { host: hostname.replace(/^\[|\]$/g, ""), port: Number(port || (protocol === "https:" ? 443 : 80)) };
}

function nameOf({ host, port }: Target): string {
  return `${host}:${port}`;
}

/** Agrees with the proxy on an authentication, and asks it to connect. @throws {Error} If it refuses. */
async function handshake(
  socket: Socket,
  options: { readonly target: Target; readonly username: string; readonly password: string },
): Promise<void> {
  const { password, target, username } = options;
  const hasLogin = username !== "";
  socket.write(new Uint8Array(hasLogin ? [VERSION, 2, 0, 2] : [VERSION, 1, 0]));
  const [version, method] = await readExactly(socket, 2);
  if (version !== VERSION) throw new Error("it does not speak SOCKS5");
  if (method === 2 && hasLogin) {
    const [user, pass] = [Buffer.from(username), Buffer.from(password)];
    socket.write(Buffer.concat([Buffer.from([1, user.length]), user, Buffer.from([pass.length]), pass]));
    const [, status] = await readExactly(socket, 2);
    if (status !== 0) throw new Error("it refuses the user and password of its URL");
  } else if (method !== 0) {
    throw new Error(
      hasLogin ? "it accepts no password" : "it wants a user and a password: socks5://USER:PASSWORD@HOST",
    );
  }
  socket.write(Buffer.concat([Buffer.from([VERSION, 1, 0]), encodeHost(target.host), encodePort(target.port)]));
  const [, reply = 1, , kind] = await readExactly(socket, 4);
  if (reply !== 0) throw new Error(REPLIES[reply] ?? `it answered ${reply}`);
  const [named = 0] = kind === 3 ? await readExactly(socket, 1) : [];
  // The address that the proxy connects from, and its port: of no use.
  await readExactly(socket, (kind === 1 ? 4 : kind === 4 ? 16 : named) + 2);
}

function encodeHost(host: string): Uint8Array {
  switch (isIP(host)) {
    case 4:
      return Buffer.from([1, ...host.split(".").map(Number)]);
    case 6:
      return Buffer.concat([Buffer.from([4]), encodeIpv6(host)]);
    default: {
      const name = Buffer.from(host);
      if (name.length > 255) throw new Error("the host name is longer than 255 bytes");
      return Buffer.concat([Buffer.from([3, name.length]), name]);
    }
  }
}

/** `URL` has normalised the address: it has no dotted part. */
function encodeIpv6(host: string): Uint8Array {
  const [before = "", after] = host.split("::");
  const groups = (text: string): readonly string[] => text.split(":").filter((group) => group !== "");
  const [left, right] = [groups(before), groups(after ?? "")];
  const all = [...left, ...Array.from({ length: 8 - left.length - right.length }, () => "0"), ...right];
  return Buffer.from(all.map((group) => group.padStart(4, "0")).join(""), "hex");
}

function encodePort(port: number): Uint8Array {
  return Buffer.from([port >> 8, port & 255]);
}

/** Reads up to the end of a request's head. What follows it stays in the socket. */
async function readHead(socket: Socket): Promise<Uint8Array> {
  let head = Buffer.alloc(0);
  for (;;) {
    const chunk = await readSome(socket, undefined);
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf("\r\n\r\n");
    if (end >= 0) {
      const rest = head.subarray(end + 4);
      if (rest.length > 0) socket.unshift(rest);
      return head.subarray(0, end + 4);
    }
    if (head.length > MAX_HEAD_BYTES) throw new Error("the head is too long");
  }
}

async function readExactly(socket: Socket, size: number): Promise<Uint8Array> {
  return size === 0 ? Buffer.alloc(0) : readSome(socket, size);
}

/** Waits for `size` bytes, or for any if it is undefined. @throws {Error} If the connection ends before. */
async function readSome(socket: Socket, size: number | undefined): Promise<Buffer<ArrayBuffer>> {
  for (;;) {
    const chunk: unknown = size === undefined ? socket.read() : socket.read(size);
    if (Buffer.isBuffer(chunk) && (size === undefined || chunk.length === size)) return Buffer.from(chunk);
    if (socket.readableEnded || socket.destroyed) throw new Error("it closed the connection");
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        for (const event of ["readable", "end", "close"]) socket.off(event, wake);
        resolve();
      };
      for (const event of ["readable", "end", "close"]) socket.once(event, wake);
    });
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
