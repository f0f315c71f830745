/**
 * A bench (world-bench.ts) beside a container daemon: ko that loads, the docker program that looks at the images, and a Unix
 * socket in front of the daemon that counts requests and lists the files of archives.
 */
import { createServer, type IncomingMessage, request as startRequest, type ServerResponse } from "node:http";
import { join } from "node:path";
import { text as readText } from "node:stream/consumers";
import { extract } from "tar-stream";
import { goMod, mainGo } from "./go.ts";
import { type Bench, makeBench } from "./world-bench.ts";
import { type Files, makeFolder } from "./world-folders.ts";
import { output, type Result } from "./world-programs.ts";

/** Variables on top of the bench's. */
export type Environment = Readonly<Record<string, string>>;

export interface DockerBench extends Bench {
  /** Runs ours, which must succeed. */
  ko(args: readonly string[], env: Environment, cwd?: string): Promise<Result>;
  /** Runs the docker program, which must succeed, and gives what it printed. */
  docker(args: readonly string[], env: Environment): Promise<string>;
  /** Runs the program `path` of an image, on the image's kodata, outside of a container. */
  runOutside(reference: string, path: string, env: Environment): Promise<string>;
  /** `linux/amd64` */
  platformOf(reference: string, env: Environment): Promise<string>;
  /** The diffIDs of an image. */
  layersOf(reference: string, env: Environment): Promise<readonly string[]>;
}

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

/** Prints a file of its kodata. */
const READER = `package main

import "os"

func main() {
	data, err := os.ReadFile(os.Getenv("KO_DATA_PATH") + "/greeting")
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("it says " + string(data))
}
`;

/** `cmd/reader` prints `it says hello` from its kodata, `cmd/plain` has none. */
export const LOCAL_FILES: Files = {
  "go.mod": goMod("example.com/app"),
  "cmd/reader/main.go": READER,
  "cmd/reader/kodata/greeting": "hello\n",
  "cmd/plain/main.go": mainGo(),
};

/** No registry is wanted; a request to one fails. */
const NOWHERE = "127.0.0.1:1";

/** The daemon behind a socket, and no KO_DOCKER_REPO: as somebody with a minikube has it. */
export function viaSocket(socket: string): Environment {
  return { DOCKER_HOST: `unix://${socket}`, KO_DOCKER_REPO: "" };
}

/** Makes a bench with {@link LOCAL_FILES}, or with nothing in the working directory `cwd`. */
export function makeDockerBench(cwd?: string): DockerBench {
  const bench = cwd === undefined ? makeBench(LOCAL_FILES, { host: NOWHERE }) : makeBench({}, { host: NOWHERE, cwd });
  const docker = (args: readonly string[], env: Environment): Promise<string> =>
    output(["docker", ...args], { cwd: "/", env: { ...bench.env, ...env } });
  return {
    ...bench,
    ko: async (args, env, where) => {
      const result = await bench.ours(args, { env, ...(where === undefined ? {} : { cwd: where }) });
      if (result.code !== 0) throw new Error(`ko ${args.join(" ")} exited with ${result.code}: ${result.stderr}`);
      return result;
    },
    docker,
    runOutside: async (reference, path, env) => {
      await using folder = await makeFolder();
      const program = join(folder.path, "program");
      const data = join(folder.path, "data");
      const container = (await docker(["create", "--network=none", reference], env)).trim();
      try {
        await docker(["cp", `${container}:${path}`, program], env);
        await docker(["cp", `${container}:/var/run/ko`, data], env);
      } finally {
        await docker(["rm", container], env);
      }
      return await output([program], { cwd: "/", env: { KO_DATA_PATH: data } });
    },
    platformOf: async (reference, env) =>
      (await docker(["image", "inspect", "--format={{.Os}}/{{.Architecture}}", reference], env)).trim(),
    layersOf: async (reference, env) => {
      const text = await docker(["image", "inspect", "--format={{json .RootFS.Layers}}", reference], env);
      const list: unknown = JSON.parse(text);
      return Array.isArray(list) ? list.map(String) : [];
    },
  };
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
