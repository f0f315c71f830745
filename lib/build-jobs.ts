/**
 * How many `go build` and compilers may run at once, from the processors and the memory of this machine.
 *
 * Both are bounded by the cgroups of the process, in both versions: https://docs.kernel.org/admin-guide/cgroup-v2.html
 * and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
 */
import { existsSync, readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";

/** The resources of this machine that a run may use. */
export interface Machine {
  /** Processors, bounded by cgroup quotas; at least 1. */
  readonly cpus: number;
  /** Bytes that new processes may take; undefined if unknown. */
  readonly memory: number | undefined;
  /** Processors without regard to cgroup quotas: Go before 1.25 ignores quotas and runs this many compilers. */
  readonly processors: number;
}

/** The part of a `Host` that describes the machine. */
export interface MachineHost {
  /** Processors, bounded by the CPU affinity. */
  readonly cpus: number;
  /** Node's name: `linux`, `darwin`, `win32`. */
  readonly platform: string;
}

export interface ReadMachineOptions {
  /** The folder of `proc` and `sys`. @default "/" */
  readonly root?: string;
  /** Bytes. @default the memory that the operating system reports */
  readonly totalMemory?: number;
}

export interface PlanJobsOptions {
  /** The value of `-j`: how many compilers and linkers may run at once. 0 means as many as the machine has room for. */
  readonly requested: number;
  readonly machine: Machine;
  /** How many `go build` are to run: one for each platform and module. */
  readonly builds: number;
  /** The most programs of one `go build`, and so its most linkers at once. @default Infinity */
  readonly programs?: number;
}

export interface JobPlan {
  /** How many `go build` may run at once. */
  readonly atOnce: number;
  /** The `-p` of each `go build`; undefined where it is the default of `go`, which the user's GOFLAGS may change. */
  readonly compilers: number | undefined;
  /** The most compilers and linkers at once. */
  readonly total: number;
}

/** Bytes that the linker takes for a binary of 100 MB: 1.2 to 1.6 GB were measured. */
const LINKER_MEMORY = 1.6e9;

/** Bytes that a compiler takes for a large package: `k8s.io/api/core/v1` takes 490 MB, few take above 150 MB. */
const COMPILER_MEMORY = 0.5e9;

/**
 * Reads the processors and the memory of this machine, and the limits of the process's cgroups, up to the root.
 *
 * Memory is the kernel's estimate for new processes (`MemAvailable`), so that no other process is killed for ours. Of a
 * cgroup it is the limit, since most of its usage is page cache, which the kernel can drop. `memory.high` counts too:
 * above it processes are throttled. A share of a processor counts as a whole one, as in Go. Unreadable files are no
 * limits.
 */
export function readMachine(host: MachineHost, options: ReadMachineOptions = {}): Machine {
  const { root = "/", totalMemory = totalmem() } = options;
  if (host.platform !== "linux") {
    return { cpus: host.cpus, memory: totalMemory > 0 ? totalMemory : undefined, processors: host.cpus };
  }
  const processors = countProcessors(root) ?? host.cpus;
  const { unified, cpu, memory: memoryFolders } = findCgroups(root);
  const quotas = [
    ...unified.map((folder) => {
      const [, quota = "", period = ""] = /^(\d+) (\d+)$/.exec(readText(folder, "cpu.max")) ?? [];
      return toLimit(quota) / Number(period);
    }),
    ...cpu.map((folder) => {
      const quota = toLimit(readText(folder, "cpu.cfs_quota_us"));
      return quota === Infinity ? quota : quota / Number(readText(folder, "cpu.cfs_period_us"));
    }),
  ];
  const limits = [
    ...unified.flatMap((folder) => [readText(folder, "memory.max"), readText(folder, "memory.high")]),
    ...memoryFolders.map((folder) => readText(folder, "memory.limit_in_bytes")),
  ].map(toLimit);
  const available = /^MemAvailable: +(\d+) kB$/m.exec(readText(root, "proc/meminfo"))?.[1];
  const memory = Math.min(available === undefined ? toLimit(totalMemory) : Number(available) * 1024, ...limits);
  return {
    cpus: Math.min(processors, ...quotas.map((quota) => (quota > 0 ? Math.ceil(quota) : Infinity))),
    memory: Number.isFinite(memory) ? memory : undefined,
    processors,
  };
}

/**
 * Divides the processors, or the value of `-j`, among several `go build`: `atOnce` × `compilers` stays within them.
 *
 * Builds at once come first, compilers of each second: after an edit a build is mostly its linker, which is one
 * process, and packages wait for each other. Each build may be at its linker, so there is memory for as many linkers;
 * the rest is for compilers. A value of `-j` is never lowered. A single build on the whole machine gets no `-p`,
 * because `go` has the same default and knows GOMAXPROCS and GOFLAGS.
 */
export function planJobs({ requested, machine, builds, programs = Infinity }: PlanJobsOptions): JobPlan {
  const memory = requested > 0 ? Infinity : (machine.memory ?? Infinity);
  const jobs = requested > 0 ? requested : machine.cpus;
  const atOnce = Math.max(1, Math.min(builds, jobs, Math.floor(memory / LINKER_MEMORY)));
  let each = Math.floor(jobs / atOnce);
  while (each > 1 && atOnce * memoryOfBuild(each, programs) > memory) each--;
  const isChoiceOfGo = requested === 0 && atOnce === 1 && each === machine.processors;
  return { atOnce, compilers: isChoiceOfGo ? undefined : each, total: atOnce * each };
}

/**
 * Reads how many processes the kernel has killed for lack of memory: in our cgroup, or else on the whole machine.
 *
 * The kernel counts before it kills.
 *
 * @param root the folder of `proc` and `sys`
 * @returns undefined where the kernel does not count
 */
export function countOomKills(root = "/"): number | undefined {
  const { unified, memory } = findCgroups(root);
  const places = [
    ...unified.map((folder) => [folder, "memory.events"] as const),
    ...memory.map((folder) => [folder, "memory.oom_control"] as const),
  ];
  for (const [folder, file] of places) {
    const count = findOomKills(readText(folder, file));
    if (count !== undefined) return count;
  }
  return findOomKills(readText(root, "proc/vmstat"));
}

/** Peak bytes of a `go build`: the linkers of all programs but one, with compilers for that one; or linkers only. */
function memoryOfBuild(compilers: number, programs: number): number {
  const linkers = Math.min(compilers, programs - 1);
  const mixed = linkers * LINKER_MEMORY + (compilers - linkers) * COMPILER_MEMORY;
  return Math.max(mixed, Math.min(compilers, programs) * LINKER_MEMORY);
}

/** Folders of cgroups, inner before outer. */
interface Cgroups {
  /** Version 2. */
  readonly unified: readonly string[];
  /** Version 1. */
  readonly cpu: readonly string[];
  readonly memory: readonly string[];
}

/**
 * Finds the cgroups of the process, and those around them.
 *
 * A container may see the name that its cgroup has outside. That folder does not exist inside: the root is the
 * container's own.
 */
function findCgroups(root: string): Cgroups {
  const top = join(root, "sys/fs/cgroup");
  const found = { unified: [] as string[], cpu: [] as string[], memory: [] as string[] };
  for (const [, names = "", path = ""] of readText(root, "proc/self/cgroup").matchAll(/^\d+:([^:]*):(\/.*)$/gm)) {
    if (names === "") {
      const mount = existsSync(join(top, "cgroup.controllers")) ? top : join(top, "unified");
      found.unified.push(...foldersUpFrom(mount, path));
    }
    const controllers = names.split(",");
    if (controllers.includes("cpu")) found.cpu.push(...foldersUpFrom(join(top, "cpu"), path));
    if (controllers.includes("memory")) found.memory.push(...foldersUpFrom(join(top, "memory"), path));
  }
  return found;
}

function foldersUpFrom(mount: string, path: string): readonly string[] {
  const names = path.split("/").filter((name) => name !== "");
  // The kernel shows a cgroup outside our namespace as "/../other".
  if (names.includes("..")) return [mount];
  return Array.from({ length: names.length + 1 }, (_, i) => join(mount, ...names.slice(0, names.length - i)));
}

/** Counts the processors that are allowed and online: the mask of a virtual machine may name more than it has. */
function countProcessors(root: string): number | undefined {
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readText(root, "proc/self/status"))?.[1];
  const online = parseProcessors(readText(root, "sys/devices/system/cpu/online"));
  return parseProcessors(allowed ?? "").intersection(online).size || undefined;
}

/** Parses a CPU list of the kernel, such as `0-3,8`. */
function parseProcessors(list: string): ReadonlySet<number> {
  const found = new Set<number>();
  for (const [, first, last = first] of list.matchAll(/(\d+)(?:-(\d+))?/g)) {
    for (let at = Number(first); at <= Number(last); at++) found.add(at);
  }
  return found;
}

function findOomKills(text: string): number | undefined {
  const count = /^oom_kill (\d+)$/m.exec(text)?.[1];
  return count === undefined ? undefined : Number(count);
}

/** Parses a limit; anything but a positive number, such as "max" or -1, is Infinity. */
function toLimit(text: string | number): number {
  const limit = /^\d+$/.test(String(text)) ? Number(text) : 0;
  return limit > 0 ? limit : Infinity;
}

/** Reads a file without surrounding white space; "" if that fails. */
function readText(folder: string, file: string): string {
  try {
    return readFileSync(join(folder, file), "utf8").trim();
  } catch {
    return "";
  }
}
