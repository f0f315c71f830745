/**
 * What this machine lets us use, and how many `go build` and compilers at once that makes.
 *
 * Processors and memory are bounded by the cgroups that we are in, of both versions
 * (https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html). What
 * `-j` says is read elsewhere; nothing is started here.
 */
import { existsSync, readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";

/** What a run may use of this machine. */
export interface Machine {
  /** How many processors we get, at least 1. */
  readonly cpus: number;
  /** Bytes that new programs may take, or undefined if nothing tells. */
  readonly memory: number | undefined;
  /**
   * How many processors we may run on, whatever share of their time the cgroups give us: a Go before 1.25 looks at no
   * cgroup, and runs as many compilers.
   */
  readonly processors: number;
}

/** What a `Host` says of the machine. */
export interface MachineHost {
  /** Bounded by the affinity. */
  readonly cpus: number;
  /** As Node names it: `linux`, `darwin`, `win32`. */
  readonly platform: string;
}

export interface ReadMachineOptions {
  /** The folder of `proc` and `sys`. @default "/" */
  readonly root?: string;
  /** Bytes. @default what the operating system says */
  readonly totalMemory?: number;
}

export interface PlanJobsOptions {
  /** What `-j` says: how many compilers and linkers may run at once; 0 leaves it to the machine. */
  readonly requested: number;
  readonly machine: Machine;
  /** How many `go build` are wanted: one for each platform and module. */
  readonly builds: number;
  /** The most programs that one of them makes: so many linkers may run at once in it. @default no end of them */
  readonly programs?: number;
}

export interface JobPlan {
  /** How many `go build` may run at once. */
  readonly atOnce: number;
  /** What each of them gets as `-p`; undefined where go's own choice is that number, and the user's GOFLAGS may differ. */
  readonly compilers: number | undefined;
  /** How many compilers and linkers that makes at once, at most. */
  readonly total: number;
}

/** Bytes that the linker takes for a program of 100 MB: spec/speed.md has 1.2 to 1.6 GB. */
const LINKER_MEMORY = 1.6e9;

/** Bytes that a compiler takes for the largest of packages: `k8s.io/api/core/v1` is at 490 MB, few are above 150. */
const COMPILER_MEMORY = 0.5e9;

/**
 * Looks at the processors and the memory of this machine, and at the limits of each cgroup that we are in, up to the top.
 *
 * Memory is what the kernel holds to be free for new programs (`MemAvailable`), not what is built in: whoever else is at
 * work here is not to be killed for us either. Of a cgroup it is the limit: what is used below it is mostly files that
 * the kernel would drop. `memory.high` counts too: beyond it a program hardly gets on. A share of a processor counts as a
 * whole one, as Go has it. Files that cannot be read, or that hold something else, limit nothing.
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
 * Divides the machine, or what `-j` says, among the `go build` that are wanted: `atOnce` × `compilers` stays within it.
 *
 * Builds at once come first, compilers of each second: after an edit most of a build is its linker, which is one process,
 * and many a package waits for another. Each build that runs may be at its linker, so the memory has room for as many
 * linkers; what it has room for besides goes to compilers. What `-j` asks for is never lowered: whoever says it knows
 * what the programs take. For one build with the whole machine go chooses itself: it knows GOMAXPROCS and GOFLAGS.
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
 * How many processes the kernel has killed for want of memory: in our cgroup, or in the whole machine if only that is
 * counted. It counts before it kills. Undefined where there is no such count.
 *
 * @param root the folder of `proc` and `sys`
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

/** Bytes at the worst moment: all programs but one at their linkers, compilers at work for that one; or linkers only. */
function memoryOfBuild(compilers: number, programs: number): number {
  const linkers = Math.min(compilers, programs - 1);
  const mixed = linkers * LINKER_MEMORY + (compilers - linkers) * COMPILER_MEMORY;
  return Math.max(mixed, Math.min(compilers, programs) * LINKER_MEMORY);
}

/** Folders, inner before outer. */
interface Cgroups {
  /** Of version 2. */
  readonly unified: readonly string[];
  /** Of version 1, for processors and for memory. */
  readonly cpu: readonly string[];
  readonly memory: readonly string[];
}

/**
 * The cgroups that we are in, and those around them.
 *
 * Where a container sees the outer name of its cgroup, that folder is not there: the one at the top is its own.
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
  // A cgroup outside of our namespace is shown as "/../other".
  if (names.includes("..")) return [mount];
  return Array.from({ length: names.length + 1 }, (_, i) => join(mount, ...names.slice(0, names.length - i)));
}

/** Those that we may run on and that are there: a virtual machine's mask may hold many that never come. */
function countProcessors(root: string): number | undefined {
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readText(root, "proc/self/status"))?.[1];
  const online = parseProcessors(readText(root, "sys/devices/system/cpu/online"));
  return parseProcessors(allowed ?? "").intersection(online).size || undefined;
}

/** A list of the kernel's, such as `0-3,8`. */
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

/** "max", -1, nothing and the like are no limit. */
function toLimit(text: string | number): number {
  const limit = /^\d+$/.test(String(text)) ? Number(text) : 0;
  return limit > 0 ? limit : Infinity;
}

/** Without white space around it; "" if it cannot be read. */
function readText(folder: string, file: string): string {
  try {
    return readFileSync(join(folder, file), "utf8").trim();
  } catch {
    return "";
  }
}
