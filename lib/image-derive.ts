/**
 * The settings that an image was made with, read from the image and its base. They are right if {@link assembleImage} makes
 * the same bytes of them: everything else is refused.
 *
 * A setting that is equal to that of the base cannot be told from none: it counts as the base's.
 */
import { KoError } from "./errors.ts";
import {
  type ContainerSettings,
  DEBUG_PORT,
  debuggerPath,
  type DebugSettings,
  KODATA_VARIABLE,
} from "./image-config.ts";
import { assembleImage, type AssembleImageOptions, type Image, type ImageDebugger, type Layer } from "./image.ts";
import type { ContainerConfig, History } from "./oci-config.ts";

/** What an image was made of. */
export type Derived = Omit<AssembleImageOptions, "debugger"> & { readonly debugger: ImageDebugger | undefined };

/** The layers of an image that hold programs. */
export type ProgramLayers = Pick<Derived, "os" | "program" | "programPath"> & {
  readonly debugger: Pick<ImageDebugger, "layer"> | undefined;
};

const NOT_OURS = "it was not made by ko, or another program has changed it";
const ZERO_TIME = /^0001-01-01T00:00:00(?:\.0+)?Z$/;

/**
 * Returns the settings that make an image of its base.
 *
 * @throws {KoError} If they do not make the same bytes.
 */
export function deriveSettings(image: Image, base: Image): Derived {
  const count = base.layers.length;
  const isOn = base.layers.every(({ descriptor, diffId }, i) => {
    const layer = image.layers[i];
    return layer?.diffId === diffId && layer.descriptor.digest === descriptor.digest;
  });
  if (!isOn) throw new KoError("its first layers are not those of the base that it names");
  const [kodata, program, delve, ...more] = image.layers.slice(count);
  const [kodataHistory, history] = image.config.history?.slice(base.config.history?.length ?? 0) ?? [];
  if (kodata === undefined || program === undefined || more.length > 0) throw new KoError(NOT_OURS);
  const importPath = /^ko build ko:\/\/(\S+)$/.exec(history?.created_by ?? "")?.[1];
  const programPath = /^go build output, at (\/.+)$/.exec(history?.comment ?? "")?.[1];
  if (importPath === undefined || programPath === undefined) throw new KoError(NOT_OURS);
  const { os } = image.config;
  const { container, debugger: debug } = readContainer(image, { base, programPath, delve });
  const before = base.manifest.annotations ?? {};
  const options: Derived = {
    importPath,
    os,
    programPath,
    kodata,
    program,
    debugger: debug,
    container,
    annotations: Object.fromEntries(
      Object.entries(image.manifest.annotations ?? {}).filter(([key, value]) => before[key] !== value),
    ),
    created: secondsOf(history),
    kodataCreated: secondsOf(kodataHistory),
  };
  if (assembleImage(base, options).descriptor.digest === image.descriptor.digest) return options;
  throw new KoError("its configuration and manifest are not those that ko makes on the base that it names");
}

interface ReadContainerOptions {
  readonly base: Image;
  readonly programPath: string;
  readonly delve: Layer | undefined;
}

function readContainer(
  { config: { config: now, os } }: Image,
  { base, delve, programPath }: ReadContainerOptions,
): { readonly container: ContainerSettings; readonly debugger: ImageDebugger | undefined } {
  const { config: before } = base.config;
  const entrypoint = now.Entrypoint ?? [];
  const words = delve === undefined ? 1 : entrypoint.indexOf("--") + 2;
  const changed = (key: "User" | "WorkingDir" | "StopSignal"): string | undefined =>
    now[key] === before[key] ? undefined : now[key];
  const ports = keysOf(now.ExposedPorts, before.ExposedPorts);
  const labels = Object.entries(now.Labels ?? {}).filter(([key, value]) => before.Labels?.[key] !== value);
  return {
    container: {
      env: readVariables(now, { before, folder: folderOf(programPath, os) }),
      labels: new Map(labels),
      ports,
      volumes: keysOf(now.Volumes, before.Volumes),
      entrypointArgs: entrypoint.slice(words),
      cmd: now.Cmd ?? [],
      workdir: changed("WorkingDir"),
      user: changed("User"),
      stopSignal: changed("StopSignal"),
    },
    debugger: delve && { layer: delve, ...readDebug(entrypoint, now) },
  };
}

function readDebug(entrypoint: readonly string[], { ExposedPorts: exposed = {} }: ContainerConfig): DebugSettings {
  const listen = entrypoint.find((word) => word.startsWith("--listen=:")) ?? "";
  const port = Number(listen.slice("--listen=:".length));
  const isDefault = port === DEBUG_PORT && exposed[`${port}/tcp`] === undefined;
  return { isContinuing: entrypoint[2] === "--continue", port: isDefault ? undefined : port };
}

/** The variables that are new or differ from those of the base, without what ko adds. */
function readVariables(
  now: ContainerConfig,
  { before, folder }: { readonly before: ContainerConfig; readonly folder: string },
): ReadonlyMap<string, string> {
  const old = new Set(before.Env);
  const isOldPath = before.Env?.some((entry) => entry.startsWith("PATH=")) === true;
  const variables = new Map<string, string>();
  let isFirstPath = true;
  for (const entry of now.Env ?? []) {
    const name = entry.replace(/=.*/s, "");
    let value = entry.slice(name.length + 1);
    if (name === KODATA_VARIABLE && entry === now.Env?.at(-1)) continue;
    if (name === "PATH" && isFirstPath) {
      isFirstPath = false;
      if (!isOldPath && value === folder) continue;
      if (!old.has(entry) && value.endsWith(`:${folder}`)) value = value.slice(0, -folder.length - 1);
    }
    if (!old.has(`${name}=${value}`)) variables.set(name, value);
  }
  return variables;
}

function folderOf(programPath: string, os: string): string {
  const folder = programPath.slice(0, programPath.lastIndexOf("/")) || "/";
  return os === "windows" ? `C:${folder.replaceAll("/", "\\")}` : folder;
}

function keysOf(
  now: Readonly<Record<string, unknown>> = {},
  before: Readonly<Record<string, unknown>> = {},
): readonly string[] {
  return Object.keys(now).filter((key) => !Object.hasOwn(before, key));
}

/** Undefined for the year 1, which stands for no time. */
function secondsOf(entry: History | undefined): number | undefined {
  const { created } = entry ?? {};
  return created === undefined || ZERO_TIME.test(created) ? undefined : Math.floor(Date.parse(created) / 1000);
}

/** The folder names of a program and its Delve in an image, without the slash at the start. */
export function filesOf({ debugger: delve, os, programPath }: ProgramLayers): readonly string[] {
  return [programPath, ...(delve === undefined ? [] : [debuggerPath(os)])].map((path) => path.slice(1));
}

/**
 * Splits an image of ko into the layers of its base, and its own.
 *
 * @throws {KoError} If it was not made by ko.
 */
export function splitLayers(image: Image): ProgramLayers & { readonly base: readonly Layer[]; readonly kodata: Layer } {
  const history = image.config.history ?? [];
  const isDebug = history.at(-1)?.comment?.startsWith("Delve debugger, at ") === true;
  const own = isDebug ? 3 : 2;
  const programPath = /^go build output, at (\/.+)$/.exec(history.at(isDebug ? -2 : -1)?.comment ?? "")?.[1];
  const [kodata, program, delve] = image.layers.slice(-own);
  if (programPath === undefined || kodata === undefined || program === undefined) throw new KoError(NOT_OURS);
  const base = image.layers.slice(0, -own);
  const { os } = image.config;
  return { base, kodata, program, programPath, os, debugger: delve && { layer: delve } };
}
