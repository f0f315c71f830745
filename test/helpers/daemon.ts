/**
 * Container daemons that belong to a test: Debian's `dockerd` (classic store), a current one (containerd store, pinned in
 * `test/counterparts.json`), podman's service, and containerd as it runs in the node of a kind cluster. Each has its own
 * folders, and is gone at the end.
 *
 * They need root. Where one cannot start, that is said and the caller skips; in CI it is a failure.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { chmod, mkdir, readdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { findCounterpart } from "./counterparts.ts";
import { findFreePort } from "./registry.ts";
import { makeFolder, stateFolder, type Tree } from "./world-folders.ts";
import { type Result, runToEnd, waitForServer, waitUntil } from "./world-programs.ts";

/** `graph` is the current engine with the classic store. */
export type DaemonKind = "classic" | "graph" | "containerd" | "podman";

export interface TestDaemon extends AsyncDisposable {
  /** Path of its Unix socket. */
  readonly socket: string;
  /** `tcp://127.0.0.1:PORT`, if it was asked to listen there. */
  readonly tcp: string | undefined;
  readonly pid: number;
  /** What it wrote so far. */
  log(): string;
}

/** PEM files made by openssl. */
export interface TestCertificates {
  /** A folder with `ca.pem`, `cert.pem` and `key.pem`, as `DOCKER_CERT_PATH` wants them. */
  readonly client: string;
  /** The daemon's side: `ca.pem`, `cert.pem`, `key.pem` for 127.0.0.1. */
  readonly server: string;
  /** A client folder whose authority is nobody's. */
  readonly stranger: string;
}

export interface StartDaemonOptions {
  /** Listens on a port of loopback too, for clients of this authority. Not for podman. */
  readonly tls?: TestCertificates;
  /** Megabytes of the disk that its store is on. @default the machine's disk */
  readonly diskMegabytes?: number;
}

export interface TestContainerd extends AsyncDisposable {
  /** Absolute path of the folder with `config.toml` and `socket`. */
  readonly folder: string;
  /** Runs `ctr` in the namespace of Kubernetes. @throws {Error} If it fails. */
  ctr(...args: readonly string[]): Promise<string>;
}

/** Milliseconds for a daemon to end. */
const END_MS = 20_000;

const CURVE = ["-pkeyopt", "ec_paramgen_curve:P-256"];

/** The snapshotter that the configuration names for Kubernetes: not `ctr`'s own, and one that works everywhere. */
export const SNAPSHOTTER = "native";

/** Starts a daemon, or says why it cannot be and gives undefined. @throws {Error} In CI instead of that. */
export async function tryStartDaemon(
  kind: DaemonKind,
  options: StartDaemonOptions = {},
): Promise<TestDaemon | undefined> {
  let why: string;
  try {
    const program = findProgram(kind);
    if (program !== undefined && process.getuid?.() === 0) return await start(kind, { ...options, program });
    why = program === undefined ? "it is not installed" : "it needs root";
  } catch (error) {
    why = String(error);
  }
  const message = `no ${kind} container daemon: ${why}`;
  if (process.env["CI"]) throw new Error(message);
  console.warn(`skipped: ${message}`);
  return undefined;
}

/** Unmounts all that is mounted below a folder. */
export function unmountBelow(folder: string): void {
  // Only Linux has it, where the daemons are.
  if (!existsSync("/proc/self/mounts")) return;
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((path) => path.startsWith(`${folder}/`));
  for (const path of mounts.reverse()) Bun.spawnSync(["umount", "-l", path]);
}

/** Makes an authority, a server's and a client's certificate, and an authority that signed neither. */
export async function makeCertificates(folder: string): Promise<TestCertificates> {
  const [server, client, stranger] = ["server", "client", "stranger"].map((name) => join(folder, name));
  if (server === undefined || client === undefined || stranger === undefined) throw new Error("unreachable");
  for (const path of [server, client, stranger]) await mkdir(path, { recursive: true });
  for (const path of [server, stranger]) {
    const names = ["-subj", "/CN=ko test authority", "-keyout", join(path, "ca-key.pem"), "-out", join(path, "ca.pem")];
    await openssl(["req", "-x509", "-newkey", "ec", ...CURVE, "-nodes", "-days", "2", ...names]);
  }
  await Bun.write(join(client, "ca.pem"), Bun.file(join(server, "ca.pem")));
  await sign(server, server, "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n");
  await sign(client, server, "extendedKeyUsage=clientAuth\n");
  await sign(stranger, stranger, "extendedKeyUsage=clientAuth\n");
  return { server, client, stranger };
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
  const isUp = async (): Promise<boolean> => (await run(["version"])).code === 0;
  await waitForServer([child], { isUp, log: () => readFileSync(log, "utf8") });
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

function findProgram(kind: DaemonKind): string | undefined {
  if (kind === "containerd" || kind === "graph") return findCounterpart("dockerd");
  const name = kind === "podman" ? "podman" : "dockerd";
  return Bun.which(name) ?? Bun.which(name, { PATH: "/usr/sbin" }) ?? undefined;
}

async function start(
  kind: DaemonKind,
  options: StartDaemonOptions & { readonly program: string },
): Promise<TestDaemon> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await makeFolder(stateFolder()));
  // Released before the folder goes: what is mounted cannot be removed.
  stack.defer(() => unmountBelow(folder.path));
  const at = (name: string): string => join(folder.path, name);
  const socket = at("docker.sock");
  const tcp = options.tls === undefined ? undefined : `tcp://127.0.0.1:${await findFreePort()}`;
  const argv = kind === "podman" ? podmanFlags(at, socket) : dockerFlags(at, socket);
  if (options.tls !== undefined && tcp !== undefined) argv.push(...tlsFlags(options.tls.server, tcp));
  if (options.diskMegabytes !== undefined) mountDisk(at("data"), options.diskMegabytes);
  const features = { "containerd-snapshotter": kind === "containerd" };
  await Bun.write(at("config.json"), JSON.stringify(kind === "classic" ? {} : { features }));
  const file = at("log");
  const child = Bun.spawn([options.program, ...argv], {
    cwd: folder.path,
    env: { PATH: process.env["PATH"] ?? "", HOME: folder.path, TMPDIR: folder.path },
    stdin: "ignore",
    stdout: Bun.file(file),
    stderr: Bun.file(`${file}.err`),
  });
  const log = (): string =>
    [file, `${file}.err`].map((path) => (existsSync(path) ? readFileSync(path, "utf8") : "")).join("");
  stack.defer(async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), END_MS);
    await child.exited;
    clearTimeout(timer);
    // Its own containerd outlives a dockerd that was killed.
    await endPidFiles(at("exec"));
  });
  const isUp = (): Promise<boolean> =>
    fetch("http://docker/_ping", { unix: socket, keepalive: false }).then(
      ({ ok }) => ok,
      () => false,
    );
  await waitForServer([child], { isUp, log });
  const closing = stack.move();
  return { socket, tcp, pid: child.pid, log, [Symbol.asyncDispose]: () => closing.disposeAsync() };
}

type At = (name: string) => string;

function podmanFlags(at: At, socket: string): string[] {
  const store = ["--root", at("data"), "--runroot", at("run"), "--storage-driver", "vfs"];
  const service = ["system", "service", "--time", "0", `unix://${socket}`];
  return [...store, "--cgroup-manager", "cgroupfs", "--events-backend", "none", ...service];
}

function dockerFlags(at: At, socket: string): string[] {
  const folders = ["--data-root", at("data"), "--exec-root", at("exec"), "--pidfile", at("pid")];
  const network = ["--bridge=none", "--iptables=false", "--ip6tables=false"];
  return [...folders, "--config-file", at("config.json"), ...network, "-H", `unix://${socket}`];
}

function tlsFlags(folder: string, tcp: string): readonly string[] {
  const file = (name: string): string => join(folder, name);
  const files = ["--tlscacert", file("ca.pem"), "--tlscert", file("cert.pem"), "--tlskey", file("key.pem")];
  return ["--tlsverify", ...files, "-H", tcp];
}

async function endPidFiles(folder: string): Promise<void> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  for (const name of names.filter((path) => path.endsWith("containerd.pid"))) {
    const pid = Number(await Bun.file(join(folder, name)).text());
    // The number may be another's by now.
    if (pid <= 1 || !readCommand(pid).includes(folder)) continue;
    process.kill(pid, "SIGKILL");
    await waitUntil(() => !readCommand(pid).includes(folder));
  }
}

function readCommand(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

function mountDisk(path: string, megabytes: number): void {
  mkdirSync(path);
  const { exitCode, stderr } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${megabytes}m`, "none", path]);
  if (exitCode !== 0) throw new Error(`cannot mount a disk: ${stderr.toString()}`);
}

async function sign(folder: string, authority: string, extensions: string): Promise<void> {
  const at = (name: string): string => join(folder, name);
  await Bun.write(at("extensions"), extensions);
  const request = ["-subj", "/CN=ko test", "-keyout", at("key.pem"), "-out", at("request")];
  await openssl(["req", "-newkey", "ec", ...CURVE, "-nodes", ...request]);
  const by = ["-CA", join(authority, "ca.pem"), "-CAkey", join(authority, "ca-key.pem"), "-CAcreateserial"];
  await openssl([
    "x509",
    "-req",
    "-days",
    "2",
    ...by,
    "-in",
    at("request"),
    "-extfile",
    at("extensions"),
    "-out",
    at("cert.pem"),
  ]);
  await chmod(at("key.pem"), 0o600);
}

async function openssl(argv: readonly string[]): Promise<void> {
  const child = Bun.spawn(["openssl", ...argv], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const text = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`openssl ${argv[0]} failed: ${text}`);
}
