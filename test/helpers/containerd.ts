/**
 * Debian's containerd, as it runs in the node of a kind cluster: with its Kubernetes part, over a throw-away folder.
 *
 * {@link writeDocker} makes the `docker` that runs programs "in the node": a script that hands them to that containerd.
 */
import { mkdirSync } from "node:fs";
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { makeFolder, stateFolder } from "./folder.ts";
import { type Result, runToEnd } from "./programs.ts";
import type { Tree } from "./tree.ts";

export interface TestContainerd extends AsyncDisposable {
  /** Absolute path of the folder with `config.toml` and `socket`. */
  readonly folder: string;
  /** Runs `ctr` in the namespace of Kubernetes. @throws {Error} If it fails. */
  ctr(...args: readonly string[]): Promise<string>;
}

/** Why there can be no containerd here, or undefined; in CI that is an error instead. */
export function whyNoContainerd(): string | undefined {
  const missing = ["containerd", "ctr"].filter((name) => Bun.which(name) === null);
  const message =
    missing.length > 0
      ? `${missing.join(" and ")} is not installed (apt-get install containerd)`
      : process.getuid?.() === 0
        ? undefined
        : "containerd needs root";
  if (message === undefined) return undefined;
  if (process.env["CI"]) throw new Error(message);
  console.warn(`skipped: ${message}`);
  return message;
}

/** The snapshotter that the configuration names for Kubernetes: not `ctr`'s own, and one that works everywhere. */
export const SNAPSHOTTER = "native";

/** Starts it and waits until it answers. */
export async function startContainerd(): Promise<TestContainerd> {
  await using stack = new AsyncDisposableStack();
  const { path: folder } = stack.use(await makeFolder(stateFolder()));
  const config = join(folder, "config.toml");
  const socket = join(folder, "socket");
  const log = join(folder, "log");
  await Bun.write(
    config,
    `version = 2
root = "${folder}/root"
state = "${folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "${socket}"
[ttrpc]
  address = "${socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${SNAPSHOTTER}"
`,
  );
  const child = Bun.spawn(["containerd", "-c", config], { stdin: "ignore", stdout: "ignore", stderr: Bun.file(log) });
  stack.defer(async () => {
    child.kill();
    const hurry = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await child.exited;
    clearTimeout(hurry);
  });
  const run = (args: readonly string[]): Promise<Result> =>
    runToEnd(["ctr", "--address", socket, "--namespace=k8s.io", ...args], { cwd: folder, env: process.env });
  for (let tries = 0; (await run(["version"])).code !== 0; tries++) {
    if (child.exitCode !== null || tries > 400) {
      throw new Error(`containerd did not start: ${await Bun.file(log).text()}`);
    }
    await Bun.sleep(10);
  }
  const closing = stack.move();
  return {
    folder,
    ctr: async (...args) => {
      const { code, stdout, stderr } = await run(args);
      if (code !== 0) throw new Error(`ctr ${args.join(" ")} exited with ${code}: ${stderr}`);
      return stdout;
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  };
}

/**
 * Writes `bin/docker` into `tree`: `docker ps` prints the file `ps`, `docker exec NODE …` runs the program against the
 * containerd of that node. Each call is a line of the file `calls`; what came through stdin is kept in `NODE.tar`.
 *
 * Faults: `NODE.lie` is listed as content that the node has, `NODE.fail` is what an import says before it fails.
 */
export async function writeDocker(tree: Tree, nodes: Readonly<Record<string, TestContainerd>>): Promise<void> {
  mkdirSync(tree.at("nodes"));
  for (const [name, { folder }] of Object.entries(nodes)) await symlink(folder, tree.at(`nodes/${name}`));
  tree.write({
    calls: "",
    "bin/docker": {
      executable: `#!/bin/bash
set -o pipefail
cd '${tree.path}' || exit 99
echo "$*" >> calls
if [ "$1" = ps ]; then exec cat ps; fi
shift
stdin=/dev/null
while [[ $1 == -* ]]; do
  if [ "$1" = -i ]; then stdin=/dev/stdin; fi
  shift
done
node=$1
shift
if [ ! -e "nodes/$node" ]; then
  echo "Error response from daemon: No such container: $node" >&2
  exit 1
fi
case $1 in
  ctr) shift; set -- ctr --address "nodes/$node/socket" "$@" ;;
  containerd) shift; set -- containerd -c "nodes/$node/config.toml" "$@" ;;
esac
case "$*" in
  *"content ls -q") if [ -e "$node.lie" ]; then cat "$node.lie"; fi ;;
  *"images import"*) if [ -e "$node.fail" ]; then cat "$node.fail" >&2; exit 1; fi ;;
esac
if [ $stdin = /dev/stdin ]; then tee "$node.tar" | "$@"; else exec "$@" < /dev/null; fi
`,
    },
  });
}
