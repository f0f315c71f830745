/**
 * The configuration of an image that ko makes: that of the base, with the program as entrypoint and the user's settings
 * (docs/rules.md D3).
 *
 * https://github.com/opencontainers/image-spec/blob/main/config.md
 */
import { goTime } from "./json.ts";
import type { ContainerConfig, History, ImageConfig } from "./oci-config.ts";
import type { Digest } from "./oci.ts";

/** How containers of an image are started, as the user wants it. */
export interface ContainerSettings {
  /** Variables: each replaces that of the base. */
  readonly env: ReadonlyMap<string, string>;
  /** Labels: each replaces that of the base. */
  readonly labels: ReadonlyMap<string, string>;
  /** `80/tcp`; added to those of the base. */
  readonly ports: readonly string[];
  /** Absolute paths with `/`, or of Windows; added to those of the base. */
  readonly volumes: readonly string[];
  /** Words between the program and the arguments. */
  readonly entrypointArgs: readonly string[];
  /** The arguments, if none are given. */
  readonly cmd: readonly string[];
  /** An absolute path as in `volumes`; undefined keeps the base's. */
  readonly workdir: string | undefined;
  /** Undefined keeps the base's. */
  readonly user: string | undefined;
  /** Undefined keeps the base's. */
  readonly stopSignal: string | undefined;
}

/** `--debug`: how Delve starts a program. */
export interface DebugSettings {
  /** The program runs at once. Otherwise it waits for a client, as in the original. */
  readonly isContinuing: boolean;
  /** The TCP port that Delve listens to, and that the configuration names. @default {@link DEBUG_PORT}, not named there */
  readonly port: number | undefined;
}

export interface MakeConfigOptions {
  readonly importPath: string;
  /** `windows` has other paths than all other systems. */
  readonly os: string;
  /** The absolute path of the program, with `/` on all systems. */
  readonly programPath: string;
  /** Delve, which starts the program. @default the program starts itself */
  readonly debugger?: DebugSettings | undefined;
  readonly container: ContainerSettings;
  /** Those of kodata, of the program, and of Delve. */
  readonly diffIds: readonly Digest[];
  /** Seconds since 1970, for the image and the history entry of the program; undefined keeps the base's date. */
  readonly created: number | undefined;
  /** Seconds since 1970, for the history entry of the kodata layer. */
  readonly kodataCreated: number | undefined;
}

/** Containers are started as the base says. */
export const NO_CONTAINER_SETTINGS: ContainerSettings = {
  env: new Map(),
  labels: new Map(),
  ports: [],
  volumes: [],
  entrypointArgs: [],
  cmd: [],
  workdir: undefined,
  user: undefined,
  stopSignal: undefined,
};

/** The variable that names the folder of kodata in a container. */
export const KODATA_VARIABLE = "KO_DATA_PATH";

/** The folder of kodata in an image. */
export const KODATA_PATH = "/var/run/ko";

/** The port that Delve listens to, as in the original. */
export const DEBUG_PORT = 40000;

const AUTHOR = "github.com/ko-build/ko";

/** Returns the configuration of an image on a base. */
export function makeConfig(base: ImageConfig, options: MakeConfigOptions): ImageConfig {
  const { created, debugger: delve, diffIds, os, programPath } = options;
  const history = (when: number | undefined, comment: string): History => ({
    author: "ko",
    created: timeOf(when),
    created_by: `ko build ko://${options.importPath}`,
    comment,
  });
  return {
    ...base,
    author: AUTHOR,
    ...(created === undefined ? {} : { created: timeOf(created) }),
    history: [
      ...(base.history ?? []),
      history(options.kodataCreated, `kodata contents, at $${KODATA_VARIABLE}`),
      history(created, `go build output, at ${programPath}`),
      ...(delve === undefined ? [] : [history(created, `Delve debugger, at ${debuggerPath(os)}`)]),
    ],
    rootfs: { type: base.rootfs.type, diff_ids: [...base.rootfs.diff_ids, ...diffIds] },
    config: makeContainerConfig(base.config, options),
  };
}

/** Returns the path of Delve in an image, with `/` on all systems. */
export function debuggerPath(os: string): string {
  return os === "windows" ? "/ko-app/dlv.exe" : "/ko-app/dlv";
}

function makeContainerConfig(base: ContainerConfig, options: MakeConfigOptions): ContainerConfig {
  const { container, debugger: delve, os, programPath } = options;
  const { Cmd: _, ...kept } = base;
  const program = locate(programPath, os);
  const start = delve === undefined ? [program] : [locate(debuggerPath(os), os), ...debuggerArguments(delve), program];
  const ports = [...container.ports, ...(delve?.port === undefined ? [] : [`${delve.port}/tcp`])];
  const volumes = container.volumes.map((path) => locate(path, os));
  const { cmd, stopSignal, user, workdir } = container;
  return {
    ...kept,
    ...(ports.length === 0 ? {} : { ExposedPorts: addToSet(base.ExposedPorts, ports) }),
    ...(volumes.length === 0 ? {} : { Volumes: addToSet(base.Volumes, volumes) }),
    Entrypoint: [...start, ...container.entrypointArgs],
    ...(cmd.length === 0 ? {} : { Cmd: cmd }),
    Env: [
      ...addToPath(setVariables(base.Env ?? [], container.env), locate(folderOf(programPath), os)),
      `${KODATA_VARIABLE}=${locate(KODATA_PATH, os)}`,
    ],
    Labels: { ...base.Labels, ...Object.fromEntries(container.labels) },
    ...(user === undefined || user === "" ? {} : { User: user }),
    ...(workdir === undefined ? {} : { WorkingDir: locate(workdir, os) }),
    ...(stopSignal === undefined ? {} : { StopSignal: stopSignal }),
  };
}

/** The words between Delve and the program, in the order of the original. Delve passes all words after the program on. */
function debuggerArguments({ isContinuing, port = DEBUG_PORT }: DebugSettings): readonly string[] {
  return [
    "exec",
    ...(isContinuing ? ["--continue"] : []),
    `--listen=:${port}`,
    "--headless",
    "--log",
    "--accept-multiclient",
    "--api-version=2",
    "--",
  ];
}

/** A path as the system of the image writes it. */
function locate(path: string, os: string): string {
  return os === "windows" && path.startsWith("/") ? `C:${path.replaceAll("/", "\\")}` : path;
}

function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

/** Puts variables into the places of those that they replace, and new ones at the end. */
function setVariables(env: readonly string[], variables: ReadonlyMap<string, string>): readonly string[] {
  if (variables.size === 0) return env;
  const todo = new Map(variables);
  const kept = env.flatMap((entry) => {
    const name = entry.replace(/=.*/s, "");
    const value = todo.get(name);
    if (value === undefined) return variables.has(name) ? [] : [entry];
    todo.delete(name);
    return [`${name}=${value}`];
  });
  return [...kept, ...Array.from(todo, ([name, value]) => `${name}=${value}`)];
}

/**
 * Appends `folder` to the first PATH, or adds a PATH at the end. The original, too, separates by `:` on Windows, and
 * appends `/ko-app` to a PATH that has it.
 */
function addToPath(env: readonly string[], folder: string): readonly string[] {
  const at = env.findIndex((entry) => entry.startsWith("PATH="));
  if (at < 0) return [...env, `PATH=${folder}`];
  const entry = env[at] ?? "";
  const isThere = folder !== "/ko-app" && entry.slice("PATH=".length).split(":").includes(folder);
  return isThere ? env : env.with(at, `${entry}:${folder}`);
}

function addToSet(
  before: Readonly<Record<string, unknown>> | undefined,
  keys: readonly string[],
): Readonly<Record<string, unknown>> {
  return { ...before, ...Object.fromEntries(keys.map((key) => [key, {}])) };
}

function timeOf(seconds: number | undefined): string {
  return goTime(seconds === undefined ? undefined : new Date(seconds * 1000).toISOString());
}
