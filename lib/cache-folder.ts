/**
 * The cache on disk: where it is, how large it may get, which names in it are ko's, which folders killed runs left.
 *
 * Files are `v1/records/KIND-KEY.json` and `v1/content/HEX`, with `.UUID.tmp` appended while they are incomplete; each
 * run has a folder `v1/work/run-…`. Other files may share the folder: only files with these names are ever removed.
 */
import {
  accessSync,
  chmodSync,
  constants,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  type Stats,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { codeOf, messageOf, UsageError } from "./errors.ts";
import { look, lookAtLink } from "./file.ts";
import type { Host } from "./host.ts";

export type CacheFolder = (typeof CACHE_FOLDERS)[number];

/** The folder of the present format; another format gets another number. */
export const GENERATION = "v1";

/** The folders in a generation. */
export const CACHE_FOLDERS = ["records", "content", "work"] as const;

/** Makes git ignore a generation's folder, which may be in a work tree. */
export const IGNORE_FILE = ".gitignore";

const TEMPORARY = String.raw`(?<tmp>\.[0-9a-f-]{36}\.tmp)?$`;
const NAMES: Readonly<Record<Exclude<CacheFolder, "work">, RegExp>> = {
  records: new RegExp(String.raw`^[a-z]+-[0-9a-f]{40,128}\.json${TEMPORARY}`),
  content: new RegExp(`^[0-9a-f]{64,128}${TEMPORARY}`),
};
const GENERATIONS = /^v[0-9]{1,4}$/;
const RUN_NAME = /^run-(?:(?<scope>[0-9a-f]{16})-(?<pid>\d+)-(?<start>\d+)-)?[0-9A-Za-z]+$/;

/** How often the folders are made again while a parallel `ko cache clean` removes them. */
const MAX_ATTEMPTS = 10;
/** Milliseconds after which a run's folder is left over, if its process cannot be seen. */
const RUN_AGE_MS = 24 * 3600 * 1000;

const DEFAULT_LIMIT = 10 * 1000 ** 3;
/** The part of the disk that the cache may take. */
const DISK_SHARE = 0.1;

/** Whether a name is that of a generation's folder, of any version of ko. */
export function isGeneration(name: string): boolean {
  return GENERATIONS.test(name);
}

/** Tells entries in `records` or `content` from incomplete files by their name; undefined if the name is not ko's. */
export function classifyName(folder: Exclude<CacheFolder, "work">, name: string): "entry" | "temporary" | undefined {
  const match = NAMES[folder].exec(name);
  if (match === null) return undefined;
  return match.groups?.["tmp"] === undefined ? "entry" : "temporary";
}

/**
 * `KOCACHE`, else `ko` in the user's folder for caches: `$XDG_CACHE_HOME` or `~/.cache`, on macOS `~/Library/Caches`,
 * on Windows `%LOCALAPPDATA%`.
 *
 * @returns an absolute path; undefined if the cache is off: `KOCACHE=off`, or none of these variables is set
 */
export function findCacheFolder({ env, platform, cwd }: Pick<Host, "env" | "platform" | "cwd">): string | undefined {
  const given = env["KOCACHE"] ?? "";
  if (given === "off") return undefined;
  if (given !== "") return isAbsolute(given) ? given : join(cwd, given);
  const below = (name: string, ...rest: readonly string[]): string | undefined => {
    const folder = env[name] ?? "";
    return isAbsolute(folder) ? join(folder, ...rest, "ko") : undefined;
  };
  if (platform === "win32") return below("LOCALAPPDATA");
  if (platform === "darwin") return below("HOME", "Library", "Caches");
  return below("XDG_CACHE_HOME") ?? below("HOME", ".cache");
}

/**
 * `KO_CACHE_MAX` in bytes; undefined if it is not set.
 *
 * @throws {UsageError} If the value is not a size such as `10GB`, `1.5 GiB` or `1000000`.
 */
export function readCacheLimit(env: Host["env"]): number | undefined {
  const text = env["KO_CACHE_MAX"]?.trim() ?? "";
  if (text === "") return undefined;
  const match = /^(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?$/i.exec(text);
  const [, number = "", unit = "", binary = ""] = match ?? [];
  const bytes = Math.floor(
    Number(number) * (binary === "" ? 1000 : 1024) ** (1 + "kmgt".indexOf(unit.toLowerCase() || "-")),
  );
  if (match !== null && Number.isSafeInteger(bytes)) return bytes;
  throw new UsageError(`Cannot use KO_CACHE_MAX="${text}": a size such as 10GB, 500MiB or 0 is wanted`, {
    hint: "export KO_CACHE_MAX=10GB",
  });
}

/** The default limit in bytes: 10 GB, or a tenth of the disk of `folder`, which need not exist yet. */
export function defaultCacheLimit(folder: string): number {
  try {
    const { blocks, bsize } = statfsSync(folder);
    return Math.min(DEFAULT_LIMIT, Math.floor(blocks * bsize * DISK_SHARE));
  } catch {
    const parent = dirname(folder);
    return parent === folder ? DEFAULT_LIMIT : defaultCacheLimit(parent);
  }
}

/**
 * Makes the folders of a generation, readable by their owner only.
 *
 * @throws {Error} If a folder cannot be made, cannot be written to, is a symlink, belongs to another user, or others may
 * write to it and so into images; or if the folder around them belongs to another user, or others may write to it.
 */
export function prepareGeneration(folder: string, host: Pick<Host, "userId">): void {
  for (let attempt = 1; ; attempt++) {
    try {
      makeFolders(folder, host);
      return;
    } catch (error) {
      if (codeOf(error) !== "ENOENT" || attempt === MAX_ATTEMPTS) throw error;
    }
  }
}

/**
 * Tells why the folders of a generation could not be made or used, without making them: as {@link prepareGeneration}
 * would fail.
 *
 * @returns undefined if nothing speaks against it
 */
export function whyUnusable(folder: string, host: Pick<Host, "userId">): string | undefined {
  try {
    checkFolders(folder, host);
    for (const path of [folder, ...CACHE_FOLDERS.map((name) => join(folder, name))]) {
      const found = lookAtLink(path);
      if (found !== undefined) checkFolder(path, found, host);
    }
    let nearest = folder;
    while (look(nearest) === undefined && lookAtLink(nearest) === undefined) nearest = dirname(nearest);
    if (look(nearest)?.isDirectory() !== true) return `"${nearest}" is not a folder`;
    accessSync(nearest, constants.W_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/**
 * The beginning of this run's folder name; a dash and random characters follow.
 *
 * On Linux it identifies the process by kernel, container, process number and start time, so that a process with the
 * same number is not mistaken for it.
 */
export function runPrefix(): string {
  const [scope, pid] = [findScope(), readlink("/proc/self")];
  const start = pid === undefined ? undefined : startOf(pid);
  return scope === undefined || start === undefined ? "run" : `run-${scope}-${pid}-${start}`;
}

/** Whether a name is that of a run's folder. */
export function isRunFolder(name: string): boolean {
  return RUN_NAME.test(name);
}

/**
 * Whether the process of a run's folder has ended. Where the process cannot be seen, by the folder's age.
 *
 * @param options.changed the folder's modification time; as `now`, in milliseconds since 1970
 */
export function isLeftBehind(
  name: string,
  { changed, now }: { readonly changed: number; readonly now: number },
): boolean {
  const { scope, pid = "", start } = RUN_NAME.exec(name)?.groups ?? {};
  if (scope !== undefined && scope === findScope()) return startOf(pid) !== start;
  return now - changed > RUN_AGE_MS;
}

function makeFolders(folder: string, host: Pick<Host, "userId">): void {
  checkFolders(folder, host);
  const isNew = mkdirSync(folder, { recursive: true, mode: 0o700 }) !== undefined;
  // Some CI systems keep caches in the work tree, which must not count as modified.
  if (isNew) writeFileSync(join(folder, IGNORE_FILE), "*\n", { mode: 0o600 });
  closeFolder(folder, host);
  for (const name of CACHE_FOLDERS) {
    const path = join(folder, name);
    mkdirSync(path, { recursive: true, mode: 0o700 });
    closeFolder(path, host);
    accessSync(path, constants.W_OK | constants.X_OK);
  }
}

/**
 * Checks a generation, and makes nothing: no place is used that others can write to.
 *
 * @throws {Error} If it belongs to another user, or others may write to it.
 */
export function checkFolders(folder: string, host: Pick<Host, "userId">): void {
  const place = dirname(folder);
  checkOwner(place, host);
  checkWriters([place, folder, ...CACHE_FOLDERS.map((name) => join(folder, name))], host);
}

/** The place may be a symlink of the user; neither it nor the folder behind it may be that of another user but root. */
function checkOwner(place: string, { userId }: Pick<Host, "userId">): void {
  if (userId === undefined) return;
  for (const found of [lookAtLink(place), look(place)]) {
    if (found !== undefined && found.uid !== userId && found.uid !== 0) throw belongs(place);
  }
}

/** @param folders the place first: others can replace nothing of ours in one that is sticky, as `/tmp` is */
function checkWriters(folders: readonly string[], { userId }: Pick<Host, "userId">): void {
  const isOpen = (path: string, i: number): boolean => {
    const { mode = 0 } = look(path) ?? {};
    return (mode & 0o022) !== 0 && !(i === 0 && (mode & 0o1000) !== 0);
  };
  const open = userId === undefined ? [] : folders.filter(isOpen);
  if (open.length === 0) return;
  const quoted = open.map((path) => `'${path.replaceAll("'", String.raw`'\''`)}'`).join(" ");
  throw new Error(
    `other users may write to it. If they have not done so, type: chmod go-w ${quoted} (or remove it: ko cache clean)`,
  );
}

/** Checks a folder that ko has made, and closes it to readers. */
function closeFolder(path: string, host: Pick<Host, "userId">): void {
  const found = lstatSync(path);
  checkFolder(path, found, host);
  if (host.userId !== undefined && (found.mode & 0o077) !== 0) chmodSync(path, 0o700);
}

function checkFolder(path: string, found: Stats, { userId }: Pick<Host, "userId">): void {
  if (!found.isDirectory()) throw new Error(`"${path}" is ${found.isSymbolicLink() ? "a symlink" : "not a folder"}`);
  if (userId !== undefined && found.uid !== userId) throw belongs(path);
}

function belongs(path: string): Error {
  return new Error(`"${path}" belongs to another user`);
}

/** Identifies the running kernel and the PID namespace, in which a process number is unique. */
function findScope(): string | undefined {
  const container = readlink("/proc/self/ns/pid");
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8");
    if (container === undefined) return undefined;
    return new Bun.CryptoHasher("sha256").update(`${boot} ${container}`).digest("hex").slice(0, 16);
  } catch {
    return undefined;
  }
}

/** The start time of a process in ticks of the kernel; undefined if there is no such process. */
function startOf(pid: string): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field, the program's name in parentheses, may hold any character; starttime is the 22nd.
    return text.slice(text.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

function readlink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
