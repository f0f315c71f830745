/**
 * A node for the API server of the tests: the real controllers, scheduler, kubelet and containerd, so that Pods run on
 * this machine. Needs root. Pods get addresses of a bridge that this machine reaches. There is no cluster DNS and no
 * kube-proxy: the addresses of Services do not work.
 */
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fieldAt, listAt, textAt } from "../../lib/json.ts";
import { type ApiServer, startApiServer } from "../helpers/cluster.ts";
import { findCounterparts } from "../helpers/counterparts.ts";
import { unmountBelow } from "../helpers/daemon.ts";
import { goMod } from "../helpers/go.ts";
import { makeFolder, stateFolder, writeTree } from "../helpers/world-folders.ts";
import { ourCommand, output, waitUntil } from "../helpers/world-programs.ts";

export interface Node extends AsyncDisposable {
  readonly server: ApiServer;
  /** Runs `ctr` in the namespace of Kubernetes. @throws {Error} If it fails. */
  ctr(...args: readonly string[]): Promise<string>;
}

/** Kernel settings that kubelet changes for the whole machine. */
const KERNEL = ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"].map((name) => `/proc/sys/${name}`);
const CGROUPS = "/sys/fs/cgroup";
/** Folders of the machine that kubelet and the network plugins use under any flags. */
const SHARED = ["/var/lib/kubelet/device-plugins", "/var/log/containers", "/var/lib/cni/networks"];
/** Milliseconds for a daemon to end. */
const END_MS = 10_000;

const PAUSE = `package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGINT, syscall.SIGTERM)
	<-ending
}
`;

/** Starts the cluster and waits until its node takes Pods. @throws {Error} If a program is missing or fails. */
export async function startNode(): Promise<Node> {
  const names = ["kube-controller-manager", "kube-scheduler", "kubelet"] as const;
  const programs = findCounterparts(names);
  if (programs === undefined) throw new Error("no kubelet");
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startApiServer());
  const { path: folder } = stack.use(await makeFolder(stateFolder()));
  stack.defer(() => unmountBelow(folder));
  const at = (name: string): string => join(folder, name);
  const network = makeNetwork();
  stack.defer(() => removeNetwork(network, folder));
  stack.defer(keepKernel());
  const start = (name: string, argv: readonly string[]): Bun.Subprocess => startDaemon(name, { argv, folder, stack });

  writeContainerdFiles(folder, network);
  const ctr = (...args: readonly string[]): Promise<string> =>
    output(["ctr", "-a", at("containerd.sock"), "-n", "k8s.io", ...args], { cwd: folder, env: process.env });
  start("containerd", ["containerd", "--config", at("containerd.toml")]);
  await waitUntil(() => ctr("version").then(isTrue, isFalse));
  stack.defer(() => endContainers(ctr));
  await importPause(ctr);

  const common = ["--kubeconfig", server.kubeconfig];
  const pki = join(server.folder, "pki");
  const alone = ["--secure-port", "0", "--leader-elect=false"];
  start("controllers", [
    programs["kube-controller-manager"],
    ...[...common, ...alone, "--service-account-private-key-file", join(pki, "sa.key")],
    ...["--root-ca-file", join(pki, "apiserver.crt")],
  ]);
  start("scheduler", [programs["kube-scheduler"], ...common, ...alone]);
  writeFileSync(at("kubelet.json"), JSON.stringify(kubeletSettings(folder, network)));
  start("kubelet", [
    programs.kubelet,
    ...["--config", at("kubelet.json"), ...common, "--root-dir", at("kubelet"), "--cert-dir", at("kubelet/pki")],
    // Named so that the API server finds it on loopback, which is no address that a node may have.
    ...["--hostname-override", "localhost", "--node-ip", network.address],
  ]);
  await waitUntil(async () => (await isReady(server)) && (await hasAccount(server)));
  const closing = stack.move();
  return { server, ctr, [Symbol.asyncDispose]: () => closing.disposeAsync() };
}

interface DaemonOptions {
  readonly argv: readonly string[];
  readonly folder: string;
  readonly stack: AsyncDisposableStack;
}

/** Starts a program that the stack ends. It writes to `NAME.log` in the folder. */
function startDaemon(name: string, { argv, folder, stack }: DaemonOptions): Bun.Subprocess {
  const log = openSync(join(folder, `${name}.log`), "w");
  const child = Bun.spawn([...argv], { cwd: folder, stdio: ["ignore", log, log] });
  closeSync(log);
  stack.defer(async () => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), END_MS);
    await child.exited;
    clearTimeout(timer);
  });
  return child;
}

/** A bridge of its own, whose address is the node's. */
interface Network {
  /** Of the bridge and of the folder of cgroups. */
  readonly name: string;
  /** `10.201.7.` */
  readonly prefix: string;
  /** `10.201.7.1` */
  readonly address: string;
}

function makeNetwork(): Network {
  for (let part = process.pid % 250; ; part = (part + 1) % 250) {
    const name = `ko-test-${part}`;
    const made = Bun.spawnSync(["ip", "link", "add", name, "type", "bridge"], { stdio: ["ignore", "ignore", "pipe"] });
    if (made.exitCode !== 0 && /exists/.test(made.stderr.toString())) continue;
    const prefix = `10.201.${part}.`;
    const address = `${prefix}1`;
    run(["ip", "address", "add", `${address}/24`, "dev", name]);
    run(["ip", "link", "set", name, "up"]);
    // Of its own, as kubelet ends the Pods that it finds in its group and does not know.
    for (const controller of controllers()) mkdirSync(join(controller, name), { recursive: true });
    return { name, prefix, address };
  }
}

function removeNetwork({ name }: Network, folder: string): void {
  run(["ip", "link", "delete", name]);
  for (const controller of controllers()) removeGroups(join(controller, name));
  for (const shared of SHARED) {
    for (const entry of existsSync(shared) ? readdirSync(shared) : []) {
      const path = join(shared, entry);
      if (entry === name || entry === "kubelet.sock" || isLinkInto(path, folder)) {
        rmSync(path, { recursive: true, force: true });
      }
    }
  }
}

function isLinkInto(path: string, folder: string): boolean {
  const read = Bun.spawnSync(["readlink", path], { stdio: ["ignore", "pipe", "ignore"] });
  return read.stdout.toString().startsWith(`${folder}/`);
}

/** The folders of the first version's controllers, or that of the second version. */
function controllers(): readonly string[] {
  if (existsSync(join(CGROUPS, "cgroup.controllers"))) return [CGROUPS];
  return readdirSync(CGROUPS, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(CGROUPS, name));
}

/** Files in these folders cannot be removed, only the folders. */
function removeGroups(folder: string): void {
  if (!existsSync(folder)) return;
  Bun.spawnSync(["find", folder, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], { stdio: ["ignore", 1, 2] });
}

/** @returns puts the settings back */
function keepKernel(): () => void {
  const before = KERNEL.map((path) => [path, readFileSync(path, "utf8")] as const);
  return () => {
    for (const [path, value] of before) writeFileSync(path, value);
  };
}

function writeContainerdFiles(folder: string, { name, prefix }: Network): void {
  const at = (path: string): string => join(folder, path);
  const plugin = `plugins."io.containerd.grpc.v1.cri"`;
  writeFileSync(
    at("containerd.toml"),
    `version = 2
root = "${at("root")}"
state = "${at("state")}"
[grpc]
  address = "${at("containerd.sock")}"
[${plugin}]
  sandbox_image = "localhost/pause:1"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
[${plugin}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "${at("cni")}"
[${plugin}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[${plugin}.containerd.runtimes.runc.options]
  SystemdCgroup = false
`,
  );
  mkdirSync(at("cni"));
  const ipam = { type: "host-local", ranges: [[{ subnet: `${prefix}0/24`, rangeStart: `${prefix}10` }]] };
  const bridge = { type: "bridge", bridge: name, isGateway: true, ipam };
  writeFileSync(at("cni/test.conflist"), JSON.stringify({ cniVersion: "0.4.0", name, plugins: [bridge] }));
}

function kubeletSettings(folder: string, { name }: Network): object {
  const none = "0%";
  return {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    address: "127.0.0.1",
    port: 20_000 + (process.pid % 10_000),
    healthzPort: 0,
    readOnlyPort: 0,
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    cgroupDriver: "cgroupfs",
    cgroupRoot: `/${name}`,
    failCgroupV1: false,
    failSwapOn: false,
    podLogsDir: join(folder, "pods"),
    containerRuntimeEndpoint: `unix://${join(folder, "containerd.sock")}`,
    // A full disk of the machine must not end Pods.
    evictionHard: {
      "memory.available": none,
      "nodefs.available": none,
      "nodefs.inodesFree": none,
      "imagefs.available": none,
      "imagefs.inodesFree": none,
    },
    imageGCHighThresholdPercent: 100,
    resolvConf: "",
  };
}

/** The image whose process holds the namespaces of a Pod: made by the program under test, as nothing can be pulled. */
async function importPause(ctr: Node["ctr"]): Promise<void> {
  using tree = writeTree({ "go.mod": goMod("example.com/pause"), "main.go": PAUSE });
  const archive = tree.at("pause.tar");
  const flags = ["--push=false", "--tarball", archive, "-B", "-t", "1"];
  const env = { ...process.env, KO_DOCKER_REPO: "localhost", KO_DEFAULTBASEIMAGE: "ko.builtin/static" };
  await output([...ourCommand(), "build", ...flags, "."], { cwd: tree.path, env });
  await ctr("images", "import", archive);
}

async function endContainers(ctr: Node["ctr"]): Promise<void> {
  const names = (text: string): readonly string[] => text.split("\n").filter((name) => name !== "");
  for (const task of names(await ctr("tasks", "ls", "-q"))) await ctr("tasks", "rm", "-f", task).catch(isFalse);
  for (const container of names(await ctr("containers", "ls", "-q"))) {
    await ctr("containers", "rm", container).catch(isFalse);
  }
}

async function isReady(server: ApiServer): Promise<boolean> {
  const { code, stdout } = await server.kubectl(["get", "node", "localhost", "-o", "json"]);
  if (code !== 0) return false;
  const conditions = listAt(JSON.parse(stdout), "status", "conditions");
  return conditions.some((each) => textAt(each, "type") === "Ready" && fieldAt(each, "status") === "True");
}

/** Pods want an account, which a controller makes. */
async function hasAccount(server: ApiServer): Promise<boolean> {
  return (await server.kubectl(["get", "serviceaccount", "default"])).code === 0;
}

function run(argv: readonly string[]): void {
  const { exitCode, stderr } = Bun.spawnSync([...argv], { stdio: ["ignore", "ignore", "pipe"] });
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${stderr.toString()}`);
}

function isTrue(): boolean {
  return true;
}

function isFalse(): boolean {
  return false;
}
