/**
 * minikube: the Docker daemon of a profile, or images through `minikube image load` where there is no daemon to use.
 *
 * Loading into the daemon is docker.ts's work: it gets the environment that points there (rules.md C1.7, C3.8).
 */
import { join } from "node:path";
import { type ArchiveItem, containerdName, packArchive } from "./archive.ts";
import { lastWords, machinePlatform } from "./cluster.ts";
import { CommandError, KoError } from "./errors.ts";
import { writeArchiveFile } from "./file.ts";
import type { Host, RunResult } from "./host.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";
import type { Platform } from "./oci.ts";

export interface MinikubeOptions {
  readonly host: Host;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** How images get into a profile. */
export type Minikube =
  | {
      readonly way: "docker";
      readonly profile: string;
      /** The host's environment, but `DOCKER_HOST` and its kin point to the profile's daemon. */
      readonly env: Readonly<Record<string, string>>;
    }
  | { readonly way: "images"; readonly profile: string };

/** What `minikube docker-env` sets, and what would lead elsewhere. */
const DOCKER_VARIABLES: readonly string[] = [
  "DOCKER_HOST",
  "DOCKER_TLS",
  "DOCKER_TLS_VERIFY",
  "DOCKER_CERT_PATH",
  "DOCKER_CONTEXT",
];
/** Why `docker-env` refuses a profile that runs: its runtime is not docker, it has several nodes, it is no machine. */
const NO_DAEMON = /MK_USAGE|ENV_MULTINODE_CONFLICT|ENV_DRIVER_CONFLICT|only compatible|incompatible|does not support/;

/**
 * Finds the profile that `MINIKUBE_PROFILE` or minikube's own configuration names, else `minikube`.
 *
 * @throws {KoError} If minikube is not there, or the profile does not run: with what minikube says.
 */
export async function findMinikube(options: MinikubeOptions): Promise<Minikube> {
  const { env } = options.host;
  const home = minikubeHome(env);
  const profile = env["MINIKUBE_PROFILE"] || (await findChosenProfile(home)) || "minikube";
  // Asked of newer minikubes with containerd, docker-env starts services in the node and adds keys to the SSH agent.
  if (!(await mayHaveDaemon(join(home, "profiles", profile, "config.json")))) return { way: "images", profile };
  let answer: RunResult;
  try {
    answer = await runMinikube(profile, ["docker-env", "--shell", "bash"], options);
  } catch (error) {
    if (error instanceof CommandError && NO_DAEMON.test(error.stderr)) return { way: "images", profile };
    throw cannotUse(profile, error);
  }
  const given = readExports(new TextDecoder().decode(answer.stdout));
  const daemon = given.get("DOCKER_HOST");
  if (daemon === undefined) {
    throw new KoError(`Cannot use the minikube profile "${profile}": "minikube docker-env" names no DOCKER_HOST`);
  }
  if (daemon.startsWith("ssh://")) return { way: "images", profile };
  const kept = Object.entries(env).filter(([name]) => !DOCKER_VARIABLES.includes(name));
  return { way: "docker", profile, env: Object.fromEntries([...kept, ...given]) };
}

function minikubeHome(env: Host["env"]): string {
  const home = env["MINIKUBE_HOME"];
  if (home === undefined || home === "") return join(env["HOME"] || env["USERPROFILE"] || "/", ".minikube");
  return /(?:^|[\\/])\.minikube[\\/]?$/.test(home) ? home : join(home, ".minikube");
}

/** What `minikube profile NAME` has chosen. */
async function findChosenProfile(home: string): Promise<string | undefined> {
  const profile = (await readJson(join(home, "config", "config.json")))["profile"];
  return typeof profile === "string" ? profile : undefined;
}

/** False if minikube's own file says that the profile is none that `docker-env` is for. */
async function mayHaveDaemon(file: string): Promise<boolean> {
  const { KubernetesConfig, Nodes } = await readJson(file);
  const runtime = isObject(KubernetesConfig) ? KubernetesConfig["ContainerRuntime"] : undefined;
  if (Array.isArray(Nodes) && Nodes.length > 1) return false;
  return runtime === undefined || runtime === "" || runtime === "docker";
}

/** Nothing if it cannot be read: minikube itself will say what is wrong. */
async function readJson(file: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    const value: unknown = await Bun.file(file).json();
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

/** `export NAME="value"` of {@link DOCKER_VARIABLES}. */
function readExports(script: string): ReadonlyMap<string, string> {
  const found = script.matchAll(/^export ([A-Z_]+)="([^"]*)"\r?$/gm);
  return new Map(
    Array.from(found, ([, name = "", value = ""]) => [name, value] as const).filter(([name]) => {
      return DOCKER_VARIABLES.includes(name);
    }),
  );
}

/** The platform of the profile's node. @throws {KoError} If it cannot be asked. */
export async function minikubePlatform(profile: string, options: MinikubeOptions): Promise<Platform> {
  try {
    const { stdout } = await runMinikube(profile, ["ssh", "--", "uname", "-m"], options);
    return machinePlatform(new TextDecoder().decode(stdout).trim());
  } catch (error) {
    throw cannotUse(profile, error);
  }
}

/**
 * Loads images into all nodes of a profile, and checks that minikube lists them. What is listed is not loaded again.
 *
 * The first name of an item is its own (`minikube.local/web:<digest>`); the others are moved to it when it is in place.
 *
 * @throws {KoError} If they cannot be loaded: with what minikube says. A first name that was new is gone then.
 */
export async function loadIntoMinikube(
  profile: string,
  items: readonly ArchiveItem[],
  options: MinikubeOptions,
): Promise<void> {
  try {
    const before = await listImages(profile, options);
    const own = items.flatMap(({ image, names: [first] }) => (first === undefined ? [] : [{ image, names: [first] }]));
    const missing = own.filter(({ names }) => !names.map(containerdName).some((name) => before.has(name)));
    if (missing.length > 0) await loadArchive(profile, missing, options);
    for (const { names } of items) {
      const [first = "", ...others] = names.map(containerdName);
      for (const name of others) await runMinikube(profile, ["image", "tag", first, name], options);
    }
    const after = await listImages(profile, options);
    const lost = items.flatMap(({ names }) => names.map(containerdName)).find((name) => !after.has(name));
    if (lost === undefined) return;
    throw new KoError(`Cannot load images into the minikube profile "${profile}": "${lost}" is missing after loading`, {
      hint: `minikube -p ${profile} logs`,
    });
  } catch (error) {
    throw cannotUse(profile, error);
  }
}

async function listImages(profile: string, options: MinikubeOptions): Promise<ReadonlySet<string>> {
  const { stdout } = await runMinikube(profile, ["image", "ls"], options);
  return new Set(
    new TextDecoder()
      .decode(stdout)
      .split("\n")
      .map((line) => line.trim()),
  );
}

/** minikube takes archives as files only; it copies them into the nodes. */
async function loadArchive(profile: string, items: readonly ArchiveItem[], options: MinikubeOptions): Promise<void> {
  const { host, signal, log } = options;
  await using folder = await host.tempFolder("ko-minikube");
  const file = join(folder.path, "images.tar");
  await writeArchiveFile(file, packArchive(items, { signal }), { host, signal });
  try {
    await runMinikube(profile, ["image", "load", "--daemon=false", file], options);
  } catch (error) {
    const names = items.flatMap((item) => item.names.map(containerdName));
    // Also when we are told to end: hence a signal of its own.
    const quiet = { ...options, signal: new AbortController().signal };
    await runMinikube(profile, ["image", "rm", ...names], quiet).catch((cause: unknown) => {
      log.debug(`Cannot remove ${names.join(", ")} from minikube: ${lastWords(cause)}`);
    });
    throw error;
  }
}

function runMinikube(profile: string, args: readonly string[], options: MinikubeOptions): Promise<RunResult> {
  const { host, signal } = options;
  return host.run(["minikube", "-p", profile, ...args], { signal });
}

/** minikube's last line is advice where to write a bug report: the line with the reason is the one that counts. */
function cannotUse(profile: string, error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  const lines = error.stderr.split("\n").filter((line) => line.trim() !== "");
  const exiting = lines.find((line) => line.includes("Exiting due to")) ?? lines[0];
  const why = exiting === undefined ? lastWords(error) : exiting.replace(/^[^A-Za-z]*/, "").trim();
  return new KoError(`Cannot use the minikube profile "${profile}": ${why}`, {
    cause: error,
    hint: error.code === undefined || error.stderr === "" ? undefined : `minikube -p ${profile} status`,
  });
}
