import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { countOomKills, type Machine, planJobs, readMachine } from "../lib/build-jobs.ts";
import { type TreeEntry, writeTree } from "./helpers/world-folders.ts";

const GB = 1e9;
/** What the fake trees say is free. */
const FREE = 24_000_000 * 1024;
/** What version 1 says where there is no limit. */
const NO_LIMIT_V1 = "9223372036854771712\n";

/** A machine of 8 processors, 24 GB of its memory free, in the cgroups that `cgroup` lists as `/proc/self/cgroup` does. */
function machineTree(cgroup: string, files: Readonly<Record<string, TreeEntry>> = {}): Record<string, TreeEntry> {
  const tree: Record<string, TreeEntry> = {
    "proc/self/cgroup": cgroup,
    "proc/self/status": "Name:\tbun\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\nMems_allowed:\t1\n",
    "proc/meminfo": "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:   24000000 kB\n",
    "sys/devices/system/cpu/online": "0-7\n",
  };
  for (const [path, entry] of Object.entries(files)) {
    tree[/^(proc|sys)\//.test(path) ? path : `sys/fs/cgroup/${path}`] = entry;
  }
  return tree;
}

function readTree(tree: Readonly<Record<string, TreeEntry>>): Machine {
  using folder = writeTree(tree);
  return readMachine({ cpus: 3, platform: "linux" }, { root: folder.path, totalMemory: 32 * GB });
}

/** What a fresh process with {@link readMachine} says of the real machine, after `before` was run in its shell. */
function readInShell(before: string): Machine {
  const module = join(import.meta.dir, "..", "lib", "build-jobs.ts");
  const script = `const { readMachine } = await import(${JSON.stringify(module)});
console.log(JSON.stringify(readMachine({ cpus: navigator.hardwareConcurrency, platform: process.platform })));`;
  const { stdout, stderr } = Bun.spawnSync(["sh", "-c", `${before} "$0" -e "$1"`, process.execPath, script]);
  if (stderr.length > 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

describe("readMachine()", () => {
  const V2 = { "cgroup.controllers": "cpu memory\n" };

  test.each<[string, string, Record<string, TreeEntry>, Partial<Machine>]>([
    ["no cgroup", "", {}, {}],
    ["no limit, version 2", "0::/a\n", { ...V2, "a/cpu.max": "max 100000\n", "a/memory.max": "max\n" }, {}],
    [
      "no limit, version 1",
      "4:memory:/a\n1:cpu,cpuacct:/a\n",
      { "memory/a/memory.limit_in_bytes": NO_LIMIT_V1, "cpu/a/cpu.cfs_quota_us": "-1\n" },
      {},
    ],
    [
      "the root of a cgroup namespace",
      "0::/\n",
      { ...V2, "cpu.max": "200000 100000\n", "memory.max": "2000000000\n" },
      { cpus: 2, memory: 2 * GB },
    ],
    [
      "a container that sees its outer name",
      "0::/docker/f00\n",
      { ...V2, "cpu.max": "200000 100000\n", "memory.max": "2000000000\n" },
      { cpus: 2, memory: 2 * GB },
    ],
    [
      "limits of the cgroups around, version 2",
      "0::/pods/pod1/main\n",
      {
        ...V2,
        "pods/cpu.max": "600000 100000\n",
        "pods/memory.max": "3000000000\n",
        "pods/pod1/cpu.max": "300000 100000\n",
        "pods/pod1/main/cpu.max": "400000 100000\n",
        "pods/pod1/main/memory.max": "5000000000\n",
        "pods/pod2/cpu.max": "100000 100000\n",
        "pods/pod1/main/inner/memory.max": "1\n",
      },
      { cpus: 3, memory: 3 * GB },
    ],
    [
      "limits of the cgroups around, version 1",
      "7:cpuset:/other\n4:memory:/pods/pod1\n2:cpuacct,cpu:/pods/pod1\n0::/\n",
      {
        "cpu/pods/cpu.cfs_quota_us": "100000\n",
        "cpu/pods/cpu.cfs_period_us": "50000\n",
        "cpu/pods/pod1/cpu.cfs_quota_us": "-1\n",
        "cpu/pods/pod1/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": NO_LIMIT_V1,
        "memory/pods/memory.limit_in_bytes": "4000000000\n",
        "memory/pods/pod1/memory.limit_in_bytes": "3000000000\n",
      },
      { cpus: 2, memory: 3 * GB },
    ],
    [
      "both versions at once",
      "4:memory:/a\n0::/b\n",
      { "memory/a/memory.limit_in_bytes": "3000000000\n", "unified/b/cpu.max": "250000 100000\n" },
      { cpus: 3, memory: 3 * GB },
    ],
    ["memory.high", "0::/a\n", { ...V2, "a/memory.max": "max", "a/memory.high": "1000000000\n" }, { memory: GB }],
    ["a hundredth of a processor", "0::/a\n", { ...V2, "a/cpu.max": "1000 100000\n" }, { cpus: 1 }],
    ["a processor and a half", "0::/a\n", { ...V2, "a/cpu.max": "150000 100000\n" }, { cpus: 2 }],
    [
      "more than there is",
      "0::/a\n",
      { ...V2, "a/cpu.max": "99900000 100000\n", "a/memory.max": "1" + "0".repeat(15) },
      {},
    ],
    ["a colon in a name", "0::/a:b\n", { ...V2, "a:b/memory.max": "1000000000\n" }, { memory: GB }],
    [
      "a cgroup outside of the namespace",
      "0::/../../other\n",
      { ...V2, "memory.max": "1000000000\n", "../../other/memory.max": "1\n" },
      { memory: GB },
    ],
    [
      "files that hold something else",
      "what\n4:memory:/a\n1:cpu:/a\n0::/b\n",
      {
        "memory/a/memory.limit_in_bytes": "",
        "cpu/a/cpu.cfs_quota_us": "100000\n",
        "cpu/a/cpu.cfs_period_us": "\n",
        "unified/b/cpu.max": "0 0\n",
        "unified/b/memory.max": "0\n",
        "unified/b/memory.high": null,
      },
      {},
    ],
    ["an affinity", "", { "proc/self/status": "Cpus_allowed_list:\t1,4-5\n" }, { cpus: 3, processors: 3 }],
    [
      "a mask with processors that are not there",
      "",
      { "proc/self/status": "Cpus_allowed_list:\t2-127\n" },
      { cpus: 6, processors: 6 },
    ],
    ["no file on the affinity", "", { "proc/self/status": "" }, { cpus: 3, processors: 3 }],
    ["no list of processors", "", { "sys/devices/system/cpu/online": "" }, { cpus: 3, processors: 3 }],
    ["an old kernel's meminfo", "", { "proc/meminfo": "MemTotal:       32000000 kB\n" }, { memory: 32 * GB }],
  ])("%s", (_name, cgroup, files, want) => {
    expect(readTree(machineTree(cgroup, files))).toEqual({ cpus: 8, memory: FREE, processors: 8, ...want });
  });

  test("goes by the host where nothing can be read", () => {
    expect(readTree({})).toEqual({ cpus: 3, memory: 32 * GB, processors: 3 });
  });

  test.each(["darwin", "win32"])("looks at no file on %s", (platform) => {
    using tree = writeTree(machineTree("0::/\n", { ...V2, "cpu.max": "100000 100000\n" }));
    const host = { cpus: 10, platform };
    const options = { root: tree.path, totalMemory: 16 * GB };
    expect(readMachine(host, options)).toEqual({ cpus: 10, memory: 16 * GB, processors: 10 });
    expect(readMachine(host, { ...options, totalMemory: 0 }).memory).toBeUndefined();
  });
});

describe.skipIf(process.platform !== "linux")("readMachine() of the real machine", () => {
  test("gives no more than there is", () => {
    const { cpus, memory, processors } = readInShell("exec");
    expect(cpus).toBeGreaterThan(0);
    expect(cpus).toBeLessThanOrEqual(processors);
    expect(memory).toBeGreaterThan(100e6);
    expect(Number.isInteger(memory)).toBe(true);
  });

  test.skipIf(Bun.which("taskset") === null)("knows what taskset leaves", () => {
    const first = /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
    expect(readInShell(`exec taskset -c ${first}`)).toMatchObject({ cpus: 1, processors: 1 });
  });

  const parent = findCpuCgroup();
  test.skipIf(parent === undefined)("knows the share of a real cgroup, and of the one around it", () => {
    const outer = join(parent ?? "", `ko-test-${process.pid}`);
    const inner = join(outer, "inner");
    mkdirSync(inner, { recursive: true });
    try {
      if (existsSync(join(outer, "cpu.max"))) writeFileSync(join(outer, "cpu.max"), "50000 100000");
      else writeFileSync(join(outer, "cpu.cfs_quota_us"), "50000");
      const { processors } = readInShell("exec");
      expect(readInShell(`echo $$ > '${inner}/cgroup.procs'; exec`)).toMatchObject({ cpus: 1, processors });
    } finally {
      rmdirSync(inner);
      rmdirSync(outer);
    }
  });
});

describe("planJobs()", () => {
  const machine = (cpus: number, memory?: number, processors = cpus): Machine => ({ cpus, memory, processors });

  test.each<[string, Parameters<typeof planJobs>[0], ReturnType<typeof planJobs>]>([
    [
      "leaves one build to go",
      { requested: 0, machine: machine(8, 64 * GB), builds: 1 },
      { atOnce: 1, compilers: undefined, total: 8 },
    ],
    [
      "leaves nothing to go that looks at no cgroup",
      { requested: 0, machine: machine(2, 64 * GB, 64), builds: 1 },
      { atOnce: 1, compilers: 2, total: 2 },
    ],
    [
      "divides the processors",
      { requested: 0, machine: machine(8, 64 * GB), builds: 3 },
      { atOnce: 3, compilers: 2, total: 6 },
    ],
    [
      "does not start more builds than processors",
      { requested: 0, machine: machine(2, 64 * GB), builds: 7 },
      { atOnce: 2, compilers: 1, total: 2 },
    ],
    [
      "has one processor",
      { requested: 0, machine: machine(1, 64 * GB), builds: 7 },
      { atOnce: 1, compilers: undefined, total: 1 },
    ],
    ["knows no memory", { requested: 0, machine: machine(8), builds: 2 }, { atOnce: 2, compilers: 4, total: 8 }],
    [
      "has next to no memory",
      { requested: 0, machine: machine(8, 1e6), builds: 3 },
      { atOnce: 1, compilers: 1, total: 1 },
    ],
    [
      "has memory for three linkers",
      { requested: 0, machine: machine(8, 5 * GB), builds: 7 },
      { atOnce: 3, compilers: 1, total: 3 },
    ],
    [
      "fears that each compiler is a linker",
      { requested: 0, machine: machine(8, 5 * GB), builds: 1 },
      { atOnce: 1, compilers: 3, total: 3 },
    ],
    [
      "knows that one program has one linker, at the end",
      { requested: 0, machine: machine(8, 4 * GB), builds: 1, programs: 1 },
      { atOnce: 1, compilers: undefined, total: 8 },
    ],
    [
      "counts compilers too",
      { requested: 0, machine: machine(8, 2 * GB), builds: 1, programs: 1 },
      { atOnce: 1, compilers: 4, total: 4 },
    ],
    [
      "has two programs: one at its linker, compilers for the other",
      { requested: 0, machine: machine(8, 4 * GB), builds: 1, programs: 2 },
      { atOnce: 1, compilers: 5, total: 5 },
    ],
    ["obeys -j", { requested: 3, machine: machine(8, 64 * GB), builds: 1 }, { atOnce: 1, compilers: 3, total: 3 }],
    [
      "obeys a -j that go would choose",
      { requested: 8, machine: machine(8, 64 * GB), builds: 1 },
      { atOnce: 1, compilers: 8, total: 8 },
    ],
    ["divides -j", { requested: 5, machine: machine(8, 64 * GB), builds: 2 }, { atOnce: 2, compilers: 2, total: 4 }],
    [
      "obeys a -j above processors and memory",
      { requested: 16, machine: machine(2, GB), builds: 4 },
      { atOnce: 4, compilers: 4, total: 16 },
    ],
    [
      "takes no builds for one",
      { requested: 0, machine: machine(4, 64 * GB), builds: 0 },
      { atOnce: 1, compilers: undefined, total: 4 },
    ],
  ])("%s", (_name, options, want) => {
    expect(planJobs(options)).toEqual(want);
  });

  test("stays within the machine, whatever it is, and uses some of it", () => {
    for (const cpus of [1, 2, 3, 5, 8, 64]) {
      for (const memory of [undefined, 0.3 * GB, 2 * GB, 7 * GB, 100 * GB]) {
        for (const builds of [1, 2, 3, 9, 100]) {
          for (const programs of [1, 2, 8, Infinity]) {
            const { atOnce, compilers, total } = planJobs({
              requested: 0,
              machine: machine(cpus, memory),
              builds,
              programs,
            });
            expect(total).toBe(atOnce * (compilers ?? cpus));
            expect(total).toBeGreaterThan(0);
            expect(total).toBeLessThanOrEqual(cpus);
            expect(atOnce).toBeLessThanOrEqual(builds);
            const linkers = atOnce * Math.min(compilers ?? cpus, programs);
            if (total > 1) expect(linkers * 1.6 * GB).toBeLessThanOrEqual(memory ?? Infinity);
          }
        }
      }
    }
  });
});

describe("countOomKills()", () => {
  test.each<[string, Record<string, TreeEntry>, number | undefined]>([
    [
      "our cgroup's, version 2",
      machineTree("0::/a\n", { "cgroup.controllers": "", "a/memory.events": "oom 9\noom_kill 3\noom_group_kill 8\n" }),
      3,
    ],
    [
      "our cgroup's, version 1",
      machineTree("4:memory:/a\n0::/\n", {
        "memory/a/memory.oom_control": "under_oom 0\noom_kill 2\n",
        "memory/memory.oom_control": "oom_kill 7\n",
      }),
      2,
    ],
    ["the machine's", machineTree("0::/\n", { "proc/vmstat": "oom_kill_x 1\noom_kill 5\n" }), 5],
    ["nobody's", {}, undefined],
  ])("gives %s", (_name, files, want) => {
    using tree = writeTree(files);
    expect(countOomKills(tree.path)).toBe(want);
  });
});

/**
 * Our own cgroup, if it can be given children with a share of the processors. Elsewhere says why not: the caller skips.
 * One that is not at the top belongs to whoever started us.
 */
function findCpuCgroup(): string | undefined {
  let where = "/sys/fs/cgroup";
  try {
    const [, names, path] =
      /^\d+:((?:.*,)?cpu(?:,.*)?|):(\/.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8")) ?? [];
    if (names !== "") where += "/cpu";
    const probe = join(where, `ko-test-probe-${process.pid}`);
    if (path !== "/") throw new Error(`our cgroup is ${path}, not the top`);
    mkdirSync(probe);
    const file = ["cpu.max", "cpu.cfs_quota_us"].find((name) => existsSync(join(probe, name)));
    rmdirSync(probe);
    if (file === undefined) throw new Error("it has no cpu controller for its children");
    return where;
  } catch (error) {
    console.warn(`skipped: the tests of real cgroups need one at ${where} that can be written to: ${String(error)}`);
    return undefined;
  }
}
