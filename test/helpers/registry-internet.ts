/**
 * A small internet behind an http proxy: any host over https, with certificates of an authority of its own.
 *
 * The client sees real TLS to the real names. Requests go to handlers by host; registries are a real docker-registry.
 */
import type { Socket } from "bun";
import { join } from "node:path";
import { type Folder, makeFolder } from "./folder.ts";

export interface Visit {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
  readonly body: string;
}

export type Site = (visit: Visit, request: Request) => Response | Promise<Response>;

export interface Internet extends AsyncDisposable {
  /** For `HTTPS_PROXY`. */
  readonly proxy: string;
  /** Path of the authority's certificate, for `SSL_CERT_FILE`. */
  readonly authority: string;
  /** `METHOD https://host/path` of each request. */
  readonly visits: Visit[];
}

/** Makes the hosts of `sites` reachable. */
export async function makeInternet(sites: Readonly<Record<string, Site>>): Promise<Internet> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await makeFolder());
  await makeAuthority(folder, Object.keys(sites));
  const visits: Visit[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    tls: { cert: Bun.file(join(folder.path, "site.pem")), key: Bun.file(join(folder.path, "site.key")) },
    maxRequestBodySize: 1e9,
    fetch: async (request) => {
      const url = new URL(request.url);
      const real = new URL(`https://${request.headers.get("host")}${url.pathname}${url.search}`);
      const isText = !/octet-stream|tar|json$/.test(request.headers.get("content-type") ?? "");
      const body = isText || real.hostname.startsWith("api.") ? await request.clone().text() : "";
      const visit = { method: request.method, url: real, headers: request.headers, body };
      visits.push(visit);
      const site = sites[real.hostname];
      return site === undefined ? new Response("", { status: 502 }) : site(visit, request);
    },
  });
  stack.defer(() => server.stop(true));
  const port = server.port ?? 0;
  const proxy = startProxy(port);
  stack.defer(() => proxy.stop(true));
  const closing = stack.move();
  return {
    proxy: `http://127.0.0.1:${proxy.port}`,
    authority: join(folder.path, "authority.pem"),
    visits,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  };
}

/** Passes a request on to a registry that speaks http. */
export async function passTo(host: string, { method, url, headers }: Visit, request: Request): Promise<Response> {
  const sent = new Headers(headers);
  for (const name of ["authorization", "host", "connection", "content-length"]) sent.delete(name);
  const bytes = method === "GET" || method === "HEAD" ? undefined : await request.arrayBuffer();
  const response = await fetch(`http://${host}${url.pathname}${url.search}`, {
    method,
    headers: sent,
    redirect: "manual",
    ...(bytes === undefined ? {} : { body: bytes }),
  });
  const out = new Headers(response.headers);
  const location = out.get("location");
  if (location !== null) out.set("location", location.replace(/^http:\/\/[^/]+/, `https://${url.host}`));
  return new Response(method === "HEAD" ? null : await response.arrayBuffer(), {
    status: response.status,
    headers: out,
  });
}

interface Tunnel {
  target: Socket | undefined;
  readonly waiting: Uint8Array[];
}

/** A proxy that leads every CONNECT to one port. */
function startProxy(port: number): Bun.TCPSocketListener<Tunnel> {
  return Bun.listen<Tunnel>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: (socket) => {
        socket.data = { target: undefined, waiting: [] };
      },
      data: async (socket, chunk) => {
        const { data } = socket;
        if (data.target !== undefined) {
          data.target.write(chunk);
          return;
        }
        if (data.waiting.length > 0) {
          data.waiting.push(chunk);
          return;
        }
        data.waiting.push(new Uint8Array(0));
        data.target = await Bun.connect({
          hostname: "127.0.0.1",
          port,
          socket: {
            data: (_, answer) => void socket.write(answer),
            close: () => void socket.end(),
            error: () => void socket.end(),
          },
        });
        socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
        for (const early of data.waiting) data.target.write(early);
      },
      close: (socket) => void socket.data.target?.end(),
      error: (socket) => void socket.data.target?.end(),
    },
  });
}

async function makeAuthority({ path }: Folder, hosts: readonly string[]): Promise<void> {
  const at = (name: string): string => join(path, name);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await openssl([
    "req",
    "-x509",
    ...key,
    "-days",
    "2",
    "-subj",
    "/CN=ko test authority",
    "-keyout",
    at("authority.key"),
    "-out",
    at("authority.pem"),
  ]);
  await openssl(["req", ...key, "-subj", "/CN=ko test", "-keyout", at("site.key"), "-out", at("site.csr")]);
  await Bun.write(at("names"), `subjectAltName=${hosts.map((host) => `DNS:${host}`).join(",")}\n`);
  await openssl([
    "x509",
    "-req",
    "-in",
    at("site.csr"),
    "-CA",
    at("authority.pem"),
    "-CAkey",
    at("authority.key"),
    "-CAcreateserial",
    "-days",
    "2",
    "-extfile",
    at("names"),
    "-out",
    at("site.pem"),
  ]);
}

async function openssl(args: readonly string[]): Promise<void> {
  const child = Bun.spawn(["openssl", ...args], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const text = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`openssl failed: ${text}`);
}
