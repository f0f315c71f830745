/**
 * Where the cache is, how large it may get, and which names below that folder are ours: the folder may hold what is
 * somebody else's.
 *
 * `v1/records/KIND-KEY.json`, `v1/content/HEX`, `v1/work/run-…`; a name with `.UUID.tmp` at its end is not complete yet.
 *
 * The folders that runs have in the cache for themselves, and how those are told that a killed run has left behind.
 *
 * On Linux the name says which process the folder belongs to: which kernel and container it runs in, its number, and when
 * it was started, so that a number that is used again does no harm. Elsewhere, and of processes that cannot be seen from
 * here, only age tells.
 */
import {
  accessSync,
  chmodSync,
  constants,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";

/** The folder of this version of ko's entries; another way to keep them gets another number. */
export const GENERATION = "v1";

/** The folders in a generation. */
export const CACHE_FOLDERS = ["records", "content", "work"] as const;

export type CacheFolder = (typeof CACHE_FOLDERS)[number];

const TEMPORARY = String.raw`(?<tmp>\.[0-9a-f-]{36}\.tmp)?$`;
const NAMES: Readonly<Record<Exclude<CacheFolder, "work">, RegExp>> = {
  records: new RegExp(String.raw`^[a-z]+-[0-9a-f]{40,128}\.json${TEMPORARY}`),
  content: new RegExp(`^[0-9a-f]{64,128}${TEMPORARY}`),
};
const GENERATIONS = /^v[0-9]{1,4}$/;

/** How often folders are made anew that `ko cache clean` removes at the same time. */
const MAX_ATTEMPTS = 10;

const DEFAULT_LIMIT = 10 * 1000 ** 3;
/** The part of the disk that the cache may take. */
const DISK_SHARE = 0.1;

/** Whether a name is that of a generation, ours or another version's. */
export function isGeneration(name: string): boolean {
  return GENERATIONS.test(name);
}

/** What a name is in `records` or `content`; undefined if it is not ours. */
export function judgeName(folder: Exclude<CacheFolder, "work">, name: string): "entry" | "temporary" | undefined {
  const match = NAMES[folder].exec(name);
  if (match === null) return undefined;
  return match.groups?.["tmp"] === undefined ? "entry" : "temporary";
}

/**
 * `KOCACHE`, else `ko` in the user's folder for caches: `$XDG_CACHE_HOME` or `~/.cache`, on macOS `~/Library/Caches`, on
 * Windows `%LOCALAPPDATA%`.
 *
 * @returns an absolute path; undefined if there is no cache: `KOCACHE=off`, or none of these is set
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
 * @throws {UsageError} If it is no size such as `10GB`, `1.5 GiB` or `1000000`.
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

/** The limit in bytes if none is given: 10 GB, or a tenth of the disk that `folder` is on or will be on. */
export function defaultCacheLimit(folder: string): number {
  try {
    const { blocks, bsize } = statfsSync(folder);
    return Math.min(DEFAULT_LIMIT, Math.floor(blocks * bsize * DISK_SHARE));
  } catch {
    const parent = dirname(folder);
    return parent === folder ? DEFAULT_LIMIT : defaultCacheLimit(parent);
  }
}

/** Tells git that nothing in a generation's folder is of the work tree around it. */
export const IGNORE_FILE = ".gitignore";

/**
 * Makes the folders of a generation, readable by their owner only.
 *
 * @throws {Error} If that fails, the folder is a link or somebody else's, or it cannot be written to.
 */
export function prepareGeneration(folder: string, host: Pick<Host, "userId">): void {
  for (let attempt = 1; ; attempt++) {
    try {
      makeFolders(folder, host);
      return;
    } catch (error) {
      if (!isObject(error) || error["code"] !== "ENOENT" || attempt === MAX_ATTEMPTS) throw error;
    }
  }
}

function makeFolders(folder: string, { userId }: Pick<Host, "userId">): void {
  const isNew = mkdirSync(folder, { recursive: true, mode: 0o700 }) !== undefined;
  // In a work tree, where some CI systems want it: what is kept must not make the tree a changed one.
  if (isNew) writeFileSync(join(folder, IGNORE_FILE), "*\n", { mode: 0o600 });
  const found = lstatSync(folder);
  if (!found.isDirectory()) throw new Error(`"${folder}" is a link`);
  if (userId !== undefined) {
    if (found.uid !== userId) throw new Error(`"${folder}" belongs to another user`);
    if ((found.mode & 0o077) !== 0) chmodSync(folder, 0o700);
  }
  for (const name of CACHE_FOLDERS) {
    mkdirSync(join(folder, name), { recursive: true, mode: 0o700 });
    accessSync(join(folder, name), constants.W_OK | constants.X_OK);
  }
}

/** Milliseconds after which a folder of which nothing else is known belongs to nobody any more. */
const RUN_AGE_MS = 24 * 3600 * 1000;
const NAME = /^run-(?:(?<scope>[0-9a-f]{16})-(?<pid>\d+)-(?<start>\d+)-)?[0-9A-Za-z]+$/;

/** What the name of this run's folder begins with; a dash and some characters that nobody else has follow. */
export function runPrefix(): string {
  const [scope, pid] = [findScope(), readlink("/proc/self")];
  const start = pid === undefined ? undefined : startOf(pid);
  return scope === undefined || start === undefined ? "run" : `run-${scope}-${pid}-${start}`;
}

/** Whether a name is that of a run's folder. */
export function isRunFolder(name: string): boolean {
  return NAME.test(name);
}

/**
 * Whether nobody uses a run's folder any more.
 *
 * @param options.changed its modification time, as `now` in milliseconds since 1970
 */
export function isLeftBehind(
  name: string,
  { changed, now }: { readonly changed: number; readonly now: number },
): boolean {
  const { scope, pid = "", start } = NAME.exec(name)?.groups ?? {};
  if (scope !== undefined && scope === findScope()) return startOf(pid) !== start;
  return now - changed > RUN_AGE_MS;
}

/** Stands for the kernel that runs, and the container, in which a process number means one process. */
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

/** When a process was started, in the kernel's ticks; undefined if there is none. */
function startOf(pid: string): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field, the program's name, may hold anything; starttime is the 22nd.
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
