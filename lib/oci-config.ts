/**
 * The OCI image configuration as plain data: https://github.com/opencontainers/image-spec/blob/main/config.md
 *
 * It is written byte for byte as go-containerregistry writes it, so that equal content has equal digests.
 */
import { KoError } from "./errors.ts";
import {
  encodeGoJson,
  goTime,
  isObject,
  keep,
  object,
  parseObject,
  pickStringList,
  pickStringMap,
  pickStrings,
  quoteJson,
  readFlag,
  readNumber,
  readStrings,
} from "./json.ts";
import { type Digest, isDigest } from "./oci.ts";

export interface History {
  readonly author?: string;
  /** RFC 3339. If absent, the year 1 is written. */
  readonly created?: string;
  readonly created_by?: string;
  readonly comment?: string;
  readonly empty_layer?: boolean;
}

/** The `config` field of an image configuration: how a container is started. */
export interface ContainerConfig {
  readonly AttachStderr?: boolean;
  readonly AttachStdin?: boolean;
  readonly AttachStdout?: boolean;
  readonly Cmd?: readonly string[];
  readonly Healthcheck?: Readonly<Record<string, unknown>>;
  readonly Domainname?: string;
  readonly Entrypoint?: readonly string[];
  readonly Env?: readonly string[];
  readonly Hostname?: string;
  readonly Image?: string;
  readonly Labels?: Readonly<Record<string, string>>;
  readonly OnBuild?: readonly string[];
  readonly OpenStdin?: boolean;
  readonly StdinOnce?: boolean;
  readonly Tty?: boolean;
  readonly User?: string;
  readonly Volumes?: Readonly<Record<string, unknown>>;
  readonly WorkingDir?: string;
  readonly ExposedPorts?: Readonly<Record<string, unknown>>;
  readonly ArgsEscaped?: boolean;
  readonly NetworkDisabled?: boolean;
  readonly MacAddress?: string;
  readonly StopSignal?: string;
  readonly Shell?: readonly string[];
}

export interface ImageConfig {
  readonly architecture: string;
  readonly author?: string;
  readonly container?: string;
  /** RFC 3339. If absent, the year 1 is written. */
  readonly created?: string;
  readonly docker_version?: string;
  readonly history?: readonly History[];
  readonly os: string;
  readonly rootfs: { readonly type: string; readonly diff_ids: readonly Digest[] };
  readonly config: ContainerConfig;
  readonly "os.version"?: string;
  readonly variant?: string;
  readonly "os.features"?: readonly string[];
}

/**
 * Reads an image configuration. Drops fields that go-containerregistry does not know, as the original ko does.
 *
 * @param what names the image in errors
 * @throws {KoError} If a field has the wrong type.
 */
export function readConfig(bytes: Uint8Array, what: string): ImageConfig {
  const value = parseObject(bytes, what);
  const rootfs = value["rootfs"] ?? {};
  if (!isObject(rootfs)) throw new KoError(`Cannot read ${what}: rootfs is not an object`);
  const diffIds = readStrings(rootfs["diff_ids"] ?? [], `diff_ids of ${what}`).map((id) => {
    if (!isDigest(id)) throw new KoError(`Cannot read ${what}: the diffID ${quoteJson(id)} is not a sha256 digest`);
    return id;
  });
  const history = value["history"] ?? undefined;
  if (history !== undefined && !Array.isArray(history)) throw new KoError(`Cannot read ${what}: history is not a list`);
  const config = value["config"] ?? {};
  if (!isObject(config)) throw new KoError(`Cannot read ${what}: config is not an object`);
  checkTime(value["created"], what);
  return {
    architecture: "",
    os: "",
    ...pickStrings(
      value,
      ["architecture", "author", "container", "created", "docker_version", "os", "os.version", "variant"],
      what,
    ),
    ...pickStringList(value, "os.features", what),
    ...(history === undefined ? {} : { history: history.map((entry) => readHistory(entry, what)) }),
    rootfs: { type: "", ...pickStrings(rootfs, ["type"], `rootfs of ${what}`), diff_ids: diffIds },
    config: readContainerConfig(config, what),
  };
}

function readHistory(entry: unknown, what: string): History {
  if (!isObject(entry)) throw new KoError(`Cannot read ${what}: a history entry is not an object`);
  checkTime(entry["created"], `a history entry of ${what}`);
  return {
    ...pickStrings(entry, ["author", "created", "created_by", "comment"], what),
    ...readFlag(entry, "empty_layer", `a history entry of ${what}`),
  };
}

/** Checks a date when it is read: an error of {@link encodeConfig} could not name the document. */
function checkTime(value: unknown, what: string): void {
  if (typeof value !== "string") return;
  try {
    goTime(value);
  } catch (cause) {
    throw new KoError(`Cannot read created of ${what}`, { cause });
  }
}

type ContainerKind = "flag" | "text" | "list" | "labels" | "set" | "healthcheck";

const CONTAINER_FIELDS: readonly (readonly [keyof ContainerConfig, ContainerKind])[] = [
  ["AttachStderr", "flag"],
  ["AttachStdin", "flag"],
  ["AttachStdout", "flag"],
  ["Cmd", "list"],
  ["Healthcheck", "healthcheck"],
  ["Domainname", "text"],
  ["Entrypoint", "list"],
  ["Env", "list"],
  ["Hostname", "text"],
  ["Image", "text"],
  ["Labels", "labels"],
  ["OnBuild", "list"],
  ["OpenStdin", "flag"],
  ["StdinOnce", "flag"],
  ["Tty", "flag"],
  ["User", "text"],
  ["Volumes", "set"],
  ["WorkingDir", "text"],
  ["ExposedPorts", "set"],
  ["ArgsEscaped", "flag"],
  ["NetworkDisabled", "flag"],
  ["MacAddress", "text"],
  ["StopSignal", "text"],
  ["Shell", "list"],
];

function readContainerConfig(config: Readonly<Record<string, unknown>>, what: string): ContainerConfig {
  const result: Record<string, unknown> = {};
  for (const [key, kind] of CONTAINER_FIELDS) {
    const value = config[key];
    if (value === undefined || value === null) continue;
    const at = `${key} of ${what}`;
    if (kind === "list") result[key] = readStrings(value, at);
    else if (kind === "labels") Object.assign(result, pickStringMap(config, key, what));
    else if (kind === "set") result[key] = readSet(value, at);
    else if (kind === "healthcheck") result[key] = readHealthcheck(value, at);
    else if (typeof value !== (kind === "flag" ? "boolean" : "string")) {
      throw new KoError(`Cannot read ${at}: ${quoteJson(value)} has the wrong type`);
    } else result[key] = value;
  }
  return result;
}

/** Reads an object used as a set of keys. Go writes each value as `{}`. */
function readSet(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (isObject(value) && Object.values(value).every((item) => item === null || isObject(item))) {
    return Object.fromEntries(Object.keys(value).map((key) => [key, {}]));
  }
  throw new KoError(`Cannot read ${what}: ${quoteJson(value)} has the wrong type`);
}

function readHealthcheck(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (!isObject(value)) throw new KoError(`Cannot read ${what}: ${quoteJson(value)} has the wrong type`);
  const numbers = ["Interval", "Timeout", "StartPeriod", "Retries"].map((key): [string, number] => {
    const number = readNumber(value[key] ?? 0, `${key} of ${what}`);
    return [key, number];
  });
  return { ...pickStringList(value, "Test", what), ...Object.fromEntries(numbers) };
}

/** Encodes a configuration as go-containerregistry does: empty fields are left out. */
export function encodeConfig(image: ImageConfig): Uint8Array {
  const { rootfs, config } = image;
  const container: [string, unknown][] = CONTAINER_FIELDS.map(([key]) => {
    const value = config[key];
    // In Go the healthcheck is a pointer: `omitempty` writes an empty one.
    return [key, key === "Healthcheck" && isObject(value) ? keep(orderHealthcheck(value)) : value];
  });
  return encodeGoJson(
    object([
      ["architecture", keep(image.architecture)],
      ["author", image.author],
      ["container", image.container],
      ["created", keep(goTime(image.created))],
      ["docker_version", image.docker_version],
      [
        "history",
        image.history?.map((entry) =>
          object([
            ["author", entry.author],
            ["created", keep(goTime(entry.created))],
            ["created_by", entry.created_by],
            ["comment", entry.comment],
            ["empty_layer", entry.empty_layer],
          ]),
        ),
      ],
      ["os", keep(image.os)],
      [
        "rootfs",
        keep(
          new Map<string, unknown>([
            ["type", rootfs.type],
            ["diff_ids", rootfs.diff_ids],
          ]),
        ),
      ],
      ["config", keep(object(container))],
      ["os.version", image["os.version"]],
      ["variant", image.variant],
      ["os.features", image["os.features"]],
    ]),
  );
}

function orderHealthcheck(value: Readonly<Record<string, unknown>>): Map<string, unknown> {
  return object(["Test", "Interval", "Timeout", "StartPeriod", "Retries"].map((key) => [key, value[key]]));
}
