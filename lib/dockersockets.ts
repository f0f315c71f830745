/**
 * The sockets of container daemons that nobody named: Docker, Docker Desktop, Colima, OrbStack, Rancher Desktop,
 * rootless Docker and podman each have a place of their own (wire.md C1.4).
 */
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Host } from "./host.ts";

export interface SocketSearch {
  /** The first that takes a connection; if none does, the first that is there but forbidden to us. */
  readonly path: string | undefined;
  /** What was looked at before that, each with what became of it. */
  readonly tried: readonly string[];
}

/** Milliseconds for a local socket to take a connection. */
const PROBE_MS = 2000;

/** Where a daemon of the whole machine listens. */
export function systemSockets(platform: string): readonly string[] {
  if (platform === "win32") return ["\\\\.\\pipe\\docker_engine", "\\\\.\\pipe\\podman-machine-default"];
  return ["/var/run/docker.sock", "/run/podman/podman.sock"];
}

/**
 * Tries the first of `system`, the user's own, then the rest of `system`.
 *
 * @param system see {@link systemSockets}
 */
export async function searchSockets(
  host: Pick<Host, "env" | "platform">,
  system: readonly string[],
): Promise<SocketSearch> {
  const paths = [...system.slice(0, 1), ...(await userSockets(host)), ...system.slice(1)];
  const tried: string[] = [];
  let forbidden: string | undefined;
  for (const path of new Set(paths)) {
    const state = await probe(path, host.platform);
    if (state === "listens") return { path, tried };
    if (state === "permission denied") forbidden ??= path;
    tried.push(`"${path}" (${state})`);
  }
  return { path: forbidden, tried };
}

async function userSockets({ env, platform }: Pick<Host, "env" | "platform">): Promise<readonly string[]> {
  const home = env["HOME"] ?? "";
  if (home === "" || platform === "win32") return [];
  const runtime = env["XDG_RUNTIME_DIR"] ?? "";
  const config = env["XDG_CONFIG_HOME"] || join(home, ".config");
  const colima = [env["COLIMA_HOME"] ?? "", join(home, ".colima"), join(config, "colima")];
  const profiles = await Promise.all(colima.filter((folder) => folder !== "").map(colimaSockets));
  const own = [
    join(home, ".docker", "run", "docker.sock"),
    join(home, ".docker", "desktop", "docker.sock"),
    ...profiles.flat(),
    join(home, ".orbstack", "run", "docker.sock"),
    join(home, ".rd", "docker.sock"),
  ];
  const rootless = runtime === "" ? [] : [join(runtime, "docker.sock")];
  const podman = runtime === "" ? [] : [join(runtime, "podman", "podman.sock")];
  if (platform === "darwin") {
    const temporary = env["TMPDIR"] ?? "";
    if (temporary !== "") podman.push(join(temporary, "podman", "podman-machine-default-api.sock"));
    podman.push(join(home, ".local", "share", "containers", "podman", "machine", "podman.sock"));
  }
  return [...rootless, ...own, ...podman];
}

/** The default profile's first, then the others'. */
async function colimaSockets(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder).catch(() => []);
  const others = names.filter((name) => !/^[._]|^default$/.test(name)).sort();
  const sockets = others.map((name) => join(folder, name, "docker.sock")).filter((path) => existsSync(path));
  return [join(folder, "default", "docker.sock"), ...sockets];
}

/** A socket file may be there although nobody listens any more. */
async function probe(path: string, platform: string): Promise<string> {
  if (!existsSync(path)) return "not there";
  if (platform === "win32") return "listens";
  const deadline = Promise.withResolvers<string>();
  const timer = setTimeout(() => deadline.resolve("no answer"), PROBE_MS);
  const connecting = Bun.connect({ unix: path, socket: { data() {} } }).then(
    (socket) => {
      socket.end();
      return "listens";
    },
    (error: unknown) => {
      const code = error instanceof Error && "code" in error ? error.code : "";
      return code === "EACCES" || code === "EPERM" ? "permission denied" : "nothing listens";
    },
  );
  try {
    return await Promise.race([connecting, deadline.promise]);
  } finally {
    clearTimeout(timer);
  }
}
