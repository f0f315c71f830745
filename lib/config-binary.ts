/**
 * Reads `binary` of an entry of `builds`: the absolute path of the program in its image, with `/` on all systems.
 *
 * The folders above it get entries in the program's layer (docs/rules.md D2.11), so folders in which that would break the
 * base are refused.
 */
import { posix } from "node:path";
import { type ConfigValue, nameWord, type Setting } from "./config-file.ts";
import type { KeyNotes } from "./config-keys.ts";
import { UsageError } from "./errors.ts";
import { debuggerPath, KODATA_PATH } from "./image-config.ts";

/** Folders that hold no program, and why. */
const REFUSED: readonly (readonly [folder: string, why: string])[] = [
  ...["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"].map((folder): readonly [string, string] => {
    return [folder, `${folder} is a symlink in many bases, and a folder would take its place`];
  }),
  [KODATA_PATH, `${KODATA_PATH} holds kodata`],
  ["/var/run", "/var/run is a symlink in many bases"],
  ...["/dev", "/proc", "/run", "/sys", "/tmp"].map((folder): readonly [string, string] => {
    return [folder, `containers mount ${folder} anew`];
  }),
  ...["/home", "/root"].map((folder): readonly [string, string] => {
    return [folder, "the folders of a program are read-only, and users write there"];
  }),
];

/** Folders of nearly every base, which a program cannot replace. */
const FOLDERS: ReadonlySet<string> = new Set(
  "/boot /etc /ko-app /media /mnt /opt /srv /usr /usr/bin /usr/lib /usr/local /usr/local/bin /usr/sbin /usr/share /var".split(
    " ",
  ),
);

/**
 * Reads the path. A name without a slash, as GoReleaser has it, is a warning: the original ignores it.
 *
 * @param setting `binary of builds[0]`
 * @throws {UsageError} If no program can be there.
 */
export function readBinary(value: ConfigValue, setting: string, notes: KeyNotes): Setting<string> | undefined {
  const word = value.textOrNumber(setting);
  const { value: path, where } = word;
  if (!/[/\\]/.test(path)) {
    const is = "it is the path of the program in the image";
    const name = path === "" || path.includes("{") ? "NAME" : path;
    notes.warnings.push(`${where}: binary "${path}" has no effect; ${is}, such as /ko-app/${name}`);
    return undefined;
  }
  const why = whyNoPath(path);
  if (why === undefined) return { value: path, where };
  const name = posix.basename(path.replaceAll("\\", "/")).replace(/[^\w.-]/g, "") || "app";
  throw new UsageError(`Cannot use ${nameWord(word)}: ${why}`, { hint: `Type: binary: /usr/local/bin/${name}` });
}

function whyNoPath(path: string): string | undefined {
  if (path.includes("{{")) return `"${path}" is a template, wanted a path`;
  if (!path.startsWith("/")) return `"${path}" is relative, wanted an absolute path`;
  if (path.includes("\\")) return `"${path}" has a backslash, wanted / on all systems`;
  if (/\p{Cc}/u.test(path)) return `${JSON.stringify(path)} has a control character`;
  const parts = path.slice(1).split("/");
  if (parts.includes("..")) return `"${path}" has "..", wanted a path without`;
  if (parts.includes("") || parts.includes(".")) return `"${path}" is not clean, wanted "${clean(path)}"`;
  if (["linux", "windows"].some((os) => path === debuggerPath(os))) return `--debug puts Delve at "${path}"`;
  const refused = REFUSED.find(([folder]) => path === folder || path.startsWith(`${folder}/`));
  if (refused !== undefined) return `"${path}" cannot hold a program: ${refused[1]}`;
  return FOLDERS.has(path) ? `"${path}" is a folder, wanted the path of a file` : undefined;
}

function clean(path: string): string {
  return posix.normalize(path).replace(/(?<=.)\/$/, "");
}
