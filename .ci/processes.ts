/** Ends processes with all that they started, each by its own number. */
import { existsSync, readdirSync, readFileSync } from "node:fs";

/** A process that runs. */
export interface Running {
  readonly pid: number;
  readonly parent: number;
  /** When it started, in ticks since the start of the machine: with it, a number that is used again is another process. */
  readonly started: string;
}

/** Milliseconds for a process to end by itself. */
const END_MS = 3000;

/** Processes below `pid`, in the order of the list, without itself. */
export function findDescendants(pid: number, all: readonly Running[]): readonly Running[] {
  const children = all.filter(({ parent }) => parent === pid);
  return children.flatMap((child) => [child, ...findDescendants(child.pid, all)]);
}

/** Whether a process runs: one that has ended and waits to be reaped does not. */
export function isRunning(pid: number): boolean {
  return listProcesses().some((one) => one.pid === pid);
}

/**
 * Ends a process and all below it: with SIGTERM, and with SIGKILL what is left after three seconds.
 *
 * Processes that one of them starts meanwhile are ended as well.
 */
export async function endTree(pid: number): Promise<void> {
  const own = listProcesses().find((one) => one.pid === pid);
  if (own === undefined) return send(pid, "SIGTERM");
  const known = new Map([[pid, own]]);
  const told = new Set<number>();
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
      else if (!told.has(one.pid)) send(one.pid, "SIGTERM");
      told.add(one.pid);
    }
    await Bun.sleep(20);
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended meanwhile.
  }
}

/** All processes that run, as /proc lists them. */
function listProcesses(): readonly Running[] {
  // Only Linux has it: elsewhere a process ends without those below it.
  if (!existsSync("/proc")) return [];
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, "utf8");
        // The program's name is in brackets, and may hold brackets and spaces.
        const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        const [state = "Z", parent = "0"] = fields;
        return state === "Z" ? [] : [{ pid: Number(name), parent: Number(parent), started: fields[19] ?? "" }];
      } catch {
        return [];
      }
    });
}
