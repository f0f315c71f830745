/** Ends a process and its descendants, each by its own pid. */
import { existsSync, readdirSync, readFileSync } from "node:fs";

/** A running process. */
export interface Running {
  readonly pid: number;
  readonly parent: number;
  /** Its start, in ticks since the start of the machine. It tells a process from a later one with the same pid. */
  readonly started: string;
}

/** Milliseconds between SIGTERM and SIGKILL. */
const END_MS = 3000;

/** The descendants of a process, without itself. */
export function findDescendants(pid: number, all: readonly Running[]): readonly Running[] {
  const children = all.filter(({ parent }) => parent === pid);
  return children.flatMap((child) => [child, ...findDescendants(child.pid, all)]);
}

/** Whether a process runs. A zombie does not. */
export function isRunning(pid: number): boolean {
  return listProcesses().some((one) => one.pid === pid);
}

/**
 * Ends a process and its descendants with SIGTERM, and after three seconds with SIGKILL. Processes that they start in the
 * meantime are ended, too.
 */
export async function endTree(pid: number): Promise<void> {
  const own = listProcesses().find((one) => one.pid === pid);
  if (own === undefined) return send(pid, "SIGTERM");
  const known = new Map([[pid, own]]);
  const signalled = new Set<number>();
  const deadline = performance.now() + END_MS;
  for (;;) {
    const all = listProcesses();
    for (const { pid: root } of [...known.values()]) {
      for (const one of findDescendants(root, all)) if (!known.has(one.pid)) known.set(one.pid, one);
    }
    const left = [...known.values()].filter(({ pid: id, started }) =>
      all.some((one) => one.pid === id && one.started === started),
    );
    if (left.length === 0) return;
    const isLate = performance.now() > deadline;
    for (const one of left) {
      if (isLate) send(one.pid, "SIGKILL");
      else if (!signalled.has(one.pid)) send(one.pid, "SIGTERM");
      signalled.add(one.pid);
    }
    await Bun.sleep(20);
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // The process has ended in the meantime.
  }
}

/** Lists the running processes of /proc. */
function listProcesses(): readonly Running[] {
  // Systems without /proc: only the process itself is ended.
  if (!existsSync("/proc")) return [];
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, "utf8");
        // The name of the program is in brackets, and can contain brackets and spaces.
        const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        const [state = "Z", parent = "0"] = fields;
        return state === "Z" ? [] : [{ pid: Number(name), parent: Number(parent), started: fields[19] ?? "" }];
      } catch {
        return [];
      }
    });
}
