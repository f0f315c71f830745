/** A Unix socket in front of a container daemon: it counts what is sent, and lists what is in the archives. */
import { createServer, type IncomingMessage, request as startRequest, type ServerResponse } from "node:http";
import { join } from "node:path";
import { text as readText } from "node:stream/consumers";
import { extract } from "tar-stream";
import { makeFolder } from "./folder.ts";

export interface SeenRequest {
  readonly method: string;
  /** Without version and query. */
  readonly path: string;
  /** Bytes of its body. */
  readonly bytes: number;
  /** The files of a tar in the body: name to bytes. */
  readonly files: Readonly<Record<string, number>>;
}

export interface DockerProxy extends AsyncDisposable {
  readonly socket: string;
  readonly seen: SeenRequest[];
  /** Called when the first bytes of a body come. */
  onBody: ((request: IncomingMessage) => void) | undefined;
  /** What `GET /version` answers instead of the daemon's own JSON. */
  changeVersion: ((version: string) => string) | undefined;
}

/** @param upstream the daemon's socket */
export async function startDockerProxy(upstream: string): Promise<DockerProxy> {
  const folder = await makeFolder();
  const socket = join(folder.path, "proxy.sock");
  const seen: SeenRequest[] = [];
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { method = "", url = "" } = request;
    response.on("error", () => {});
    const tar = extract();
    const files: Record<string, number> = {};
    tar.on("entry", (header, stream, next) => {
      files[header.name] = header.size;
      stream.on("end", next);
      stream.resume();
    });
    tar.on("error", () => {});
    let bytes = 0;
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const out = startRequest(
        { socketPath: upstream, method, path: url, headers: request.headers, agent: false },
        resolve,
      );
      out.on("error", reject);
      request.on("aborted", () => out.destroy());
      request.on("data", (chunk: Uint8Array) => {
        if (bytes === 0) proxy.onBody?.(request);
        bytes += chunk.byteLength;
        tar.write(chunk);
      });
      request.pipe(out);
    });
    tar.end(null);
    const path = url.replace(/^\/v[\d.]+/, "").replace(/\?.*$/, "");
    seen.push({ method, path, bytes, files });
    if (path === "/version" && proxy.changeVersion !== undefined) {
      response.end(proxy.changeVersion(await readText(answer)));
      return;
    }
    response.writeHead(answer.statusCode ?? 500, answer.headers);
    answer.pipe(response);
  };
  const server = createServer((request, response) => {
    handle(request, response).catch(() => request.socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const proxy: DockerProxy = {
    socket,
    seen,
    onBody: undefined,
    changeVersion: undefined,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await folder[Symbol.asyncDispose]();
    },
  };
  return proxy;
}
