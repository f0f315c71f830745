/** A bench (workbench.ts) beside a container daemon: ko that loads, and the docker program that looks at what came. */
import { makeFolder } from "./folder.ts";
import { goMod, mainGo } from "./go.ts";
import { join } from "node:path";
import { output } from "./oracle.ts";
import type { Result } from "./programs.ts";
import type { Files } from "./tree.ts";
import { type Bench, makeBench } from "./workbench.ts";

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

/** No registry is wanted; a request to one fails. */
const NOWHERE = "127.0.0.1:1";
