/**
 * The real programs that the tests run beside ours: kubectl, Debian's docker-registry, skopeo, umoci and chromium, and Go
 * programs: the original ko, crane and a current Docker engine (Debian's has no containerd store) at the versions that
 * `test/counterparts.json` pins, etcd and the programs of Kubernetes as the module in `test/tools` pins them; and Knative Serving.
 *
 * Go programs stay in a cache folder between runs. What a binary is, its own build info says (`go version -m`): a
 * stamp beside it could lie. `.ci/setup.ts` calls {@link installGoPrograms}; tests only look.
 */
import { existsSync, readFileSync } from "node:fs";
import { cp, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { commitTree, output } from "./world-programs.ts";
import pins from "../counterparts.json" with { type: "json" };

/** A program that `go install` makes of a module. */
export type GoProgram = "ko" | "crane" | "dockerd";

/** A program of the module in `test/tools`: the Go package of each is in {@link CLUSTER_PACKAGES}. */
export type ClusterProgram = keyof typeof CLUSTER_PACKAGES;

/** A program that the machine's packages bring. */
export type PackagedProgram = "docker-registry" | "skopeo" | "umoci" | "zstd" | "kubectl" | "chromium";

export type Counterpart = GoProgram | ClusterProgram | PackagedProgram;

/** The module that is the real input of `feature-knative.test.ts`, as `module@version`. */
export const KNATIVE: string = `${pins.knative.module}@${pins.knative.version}`;

/** The original, as `module@version`. */
export const ORIGINAL: string = `${pins.ko.package}@${pins.ko.version}`;

const GO_PROGRAMS: Readonly<Record<GoProgram, { readonly package: string; readonly module: string; version: string }>> =
  {
    ko: { ...pins.ko, module: pins.ko.package },
    crane: pins.crane,
    dockerd: pins.dockerd,
  };

const CLUSTER_PACKAGES = {
  etcd: "go.etcd.io/etcd/server/v3",
  "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
  "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
  "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
  kubelet: "k8s.io/kubernetes/cmd/kubelet",
} as const;

const TOOLS = join(import.meta.dir, "..", "tools");

/** Absolute path of the folder that keeps built programs and slow results between runs: `$KO_TEST_CACHE`, else under HOME. */
export function cacheFolder(): string {
  return process.env["KO_TEST_CACHE"] || join(homedir(), ".cache", "ko-test");
}

/** The absolute path of `name` at the pinned version, or undefined. */
export function findCounterpart(name: Counterpart): string | undefined {
  const path = join(cacheFolder(), "bin", name);
  if (isGoProgram(name)) return existsSync(path) && isPinned(name, path) ? path : undefined;
  if (isClusterProgram(name)) return existsSync(path) && isOfTools(name, path) ? path : undefined;
  return Bun.which(name) ?? undefined;
}

/**
 * The absolute paths of all `names`, or undefined after saying on stderr which are missing: the caller then skips.
 *
 * @throws {Error} If one is missing and `CI` is set: there a skip would hide that nothing was compared.
 */
export function findCounterparts<N extends Counterpart>(names: readonly N[]): Readonly<Record<N, string>> | undefined {
  const found: Partial<Record<N, string>> = {};
  for (const name of names) {
    const path = findCounterpart(name);
    if (path !== undefined) found[name] = path;
  }
  if (hasAll(found, names)) return found;
  const missing = names.filter((name) => found[name] === undefined).join(", ");
  const message = `the tests need ${missing}: run "bash .ci/run", or "bun .ci/setup.ts" for the Go programs (kubectl: https://kubernetes.io/docs/tasks/tools/)`;
  if (process.env["CI"]) throw new Error(message);
  console.warn(`skipped: ${message}`);
  return undefined;
}

/** Builds the Go programs that are not in the cache folder yet; a minute to five each, the cluster's ten. */
export async function installGoPrograms(): Promise<void> {
  const bin = join(cacheFolder(), "bin");
  await mkdir(bin, { recursive: true });
  for (const name of Object.keys(GO_PROGRAMS).filter(isGoProgram)) {
    if (findCounterpart(name) !== undefined) continue;
    const { package: path, version } = GO_PROGRAMS[name];
    console.error(`go install ${path}@${version}`);
    // The Docker engine needs no C but for one file system.
    const flags = name === "dockerd" ? ["-p", "2", "-tags", "exclude_graphdriver_btrfs"] : [];
    const env = { ...process.env, GOBIN: bin, ...(name === "dockerd" ? { CGO_ENABLED: "0" } : {}) };
    const argv = ["go", "install", ...flags, `${path}@${version}`];
    const { exitCode } = Bun.spawnSync(argv, { env, stdio: ["ignore", 2, 2] });
    if (exitCode !== 0) throw new Error(`go install ${path}@${version} failed with exit code ${exitCode}`);
  }
}

/** What an API server needs, and what a node needs beside it. */
export const CLUSTER_PROGRAMS = {
  server: ["etcd", "kube-apiserver"],
  node: ["kube-controller-manager", "kube-scheduler", "kubelet"],
} as const;

/**
 * Builds programs of a cluster as `test/tools` pins them, unless all are there. With cold caches the server's need 500 MB
 * of modules and eight minutes of CPU, the node's three minutes more.
 */
export async function installClusterPrograms(names: readonly ClusterProgram[]): Promise<void> {
  if (names.every((name) => findCounterpart(name) !== undefined)) return;
  const bin = join(cacheFolder(), "bin");
  await mkdir(bin, { recursive: true });
  const making = await mkdtemp(join(bin, "making-"));
  try {
    const version = /^\tk8s\.io\/kubernetes (v(\d+)\.(\d+)\S*)/m.exec(readFileSync(join(TOOLS, "go.mod"), "utf8"));
    if (version === null) throw new Error("test/tools/go.mod does not require k8s.io/kubernetes");
    const [, git = "", major = "", minor = ""] = version;
    console.error(`building ${names.join(", ")} (Kubernetes ${git}): minutes on a new machine`);
    const set = Object.entries({ gitVersion: git, gitMajor: major, gitMinor: minor }).map(([name, value]) => {
      return `-X k8s.io/component-base/version.${name}=${value}`;
    });
    // Two compilers at once stay below 4 GB of memory.
    const flags = ["-p", "2", "-trimpath", "-ldflags", ["-s", "-w", ...set].join(" ")];
    const argv = ["go", "build", ...flags, "-o", `${making}/`, ...names.map((name) => CLUSTER_PACKAGES[name])];
    const env = { ...process.env, CGO_ENABLED: "0", GOWORK: "off", GOFLAGS: "-mod=readonly" };
    const { exitCode } = Bun.spawnSync(argv, { cwd: TOOLS, env, stdio: ["ignore", 2, 2] });
    if (exitCode !== 0) throw new Error(`${argv.join(" ")} failed with exit code ${exitCode}`);
    // The package of etcd is not called as the program.
    for (const name of names) await rename(join(making, name === "etcd" ? "server" : name), join(bin, name));
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  const missing = names.filter((name) => findCounterpart(name) === undefined);
  if (missing.length > 0) throw new Error(`${missing.join(" and ")} as built are not what test/tools/go.sum says`);
}

/** The folder of the knative module in the Go module cache, downloaded if need be; undefined when it cannot be had. */
export function findKnativeModule(): string | undefined {
  const { exitCode, stdout } = Bun.spawnSync(["go", "mod", "download", "-json", KNATIVE], {
    env: { ...process.env, GOFLAGS: "-mod=mod" },
    cwd: "/",
    stdio: ["ignore", "pipe", 2],
  });
  if (exitCode !== 0) return undefined;
  const answer: unknown = JSON.parse(stdout.toString());
  const folder = typeof answer === "object" && answer !== null && "Dir" in answer ? answer.Dir : undefined;
  return typeof folder === "string" ? folder : undefined;
}

/** The module as a repository with one commit, made once and kept; its absolute path. */
export async function prepareKnative(): Promise<string> {
  const kept = join(cacheFolder(), KNATIVE.replaceAll(/[/@]/g, "-"));
  if (existsSync(kept)) return kept;
  const module = findKnativeModule();
  if (module === undefined) throw new Error(`${KNATIVE} cannot be downloaded`);
  const making = `${kept}.${process.pid}`;
  await rm(making, { recursive: true, force: true });
  await mkdir(dirname(making), { recursive: true });
  await cp(module, making, { recursive: true });
  // The module cache is read-only.
  await output(["chmod", "-R", "u+w", making], { cwd: "/", env: process.env });
  await commitTree(making);
  await rename(making, kept);
  return kept;
}

/** The import paths after `ko://` in the YAML of `config/`, each once, sorted. */
export async function findKnativePrograms(tree: string): Promise<readonly string[]> {
  const found = new Set<string>();
  for await (const path of new Bun.Glob("**/*.yaml").scan({ cwd: join(tree, "config"), absolute: true })) {
    for (const [, program] of (await Bun.file(path).text()).matchAll(/ko:\/\/([^"\s]+)/g)) {
      if (program !== undefined) found.add(program);
    }
  }
  return [...found].sort();
}

function hasAll<N extends string>(found: Partial<Record<N, string>>, names: readonly N[]): found is Record<N, string> {
  return names.every((name) => found[name] !== undefined);
}

function isClusterProgram(name: string): name is ClusterProgram {
  return Object.hasOwn(CLUSTER_PACKAGES, name);
}

function isGoProgram(name: string): name is GoProgram {
  return Object.hasOwn(GO_PROGRAMS, name);
}

function isPinned(name: GoProgram, path: string): boolean {
  const { module, version } = GO_PROGRAMS[name];
  return buildInfo(path).includes(`\tmod\t${module}\t${version}\t`);
}

/** Whether a binary is made of the very modules that `test/tools/go.sum` names: a changed pin makes it a stranger. */
function isOfTools(name: ClusterProgram, path: string): boolean {
  const info = buildInfo(path);
  const sums = new Set(readFileSync(join(TOOLS, "go.sum"), "utf8").split("\n"));
  const modules = [...info.matchAll(/^\t(?:mod|dep|=>)\t(\S+)\t(\S+)\t(h1:\S+)$/gm)].map((found) => found.slice(1));
  return info.includes(`\tpath\t${CLUSTER_PACKAGES[name]}\n`) && modules.every((words) => sums.has(words.join(" ")));
}

/** What `go version -m` tells of a binary; nothing if it is none. */
function buildInfo(path: string): string {
  return Bun.spawnSync(["go", "version", "-m", path], { stdio: ["ignore", "pipe", "ignore"] }).stdout.toString();
}
