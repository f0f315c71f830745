/**
 * The folders that runs have in the cache for themselves, and how those are told that a killed run has left behind.
 *
 * On Linux the name says which process the folder belongs to: which kernel and container it runs in, its number, and when
 * it was started, so that a number that is used again does no harm. Elsewhere, and of processes that cannot be seen from
 * here, only age tells.
 */
import { readFileSync, readlinkSync } from "node:fs";

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
