import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { cp, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { EXECUTABLES, fetchRuntime, RUNTIME_VERSION } from "../.ci/release.ts";
import lock from "../package-lock.json" with { type: "json" };
import pkg from "../package.json" with { type: "json" };
import { cacheFolder } from "./helpers/counterparts.ts";
import { failureOf } from "./helpers/failures.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Folder, makeFolder, type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt, runKoHere } from "./helpers/world-host.ts";
import { type Result, runToEnd } from "./helpers/world-programs.ts";

/** Milliseconds: four runtimes are fetched, and qemu is slow. */
const PATIENCE = 600_000;

const ARM64_LIBRARIES = "/usr/aarch64-linux-gnu/lib";
const X64_LIBRARIES = "/usr/lib/x86_64-linux-gnu";
const MUSL_ARM64 = join(cacheFolder(), "musl-arm64");

/** What runs the executables here, by Debian package. */
const NEEDS = {
  binutils: "/usr/bin/as",
  "binutils-aarch64-linux-gnu": "/usr/bin/aarch64-linux-gnu-as",
  "libstdc++6": join(X64_LIBRARIES, "libstdc++.so.6"),
  "libstdc++6-arm64-cross": join(ARM64_LIBRARIES, "libstdc++.so.6"),
  musl: "/lib/ld-musl-x86_64.so.1",
  "musl:arm64": MUSL_ARM64,
  "qemu-user": "/usr/bin/qemu-aarch64",
} as const;

/** A CPU of 2008: with SSE 4.2, without AVX. */
const OLD_CPU = ["qemu-x86_64", "-cpu", "Nehalem"];

/** How an executable is run here: the words before it, and the variables that it needs. */
interface Machine {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

const missing = findMissing();
const isRunnable = process.platform === "linux" && process.arch === "x64" && missing.length === 0;
if (!isRunnable && process.env["CI"]) throw new Error(`the tests need ${missing.join(", ")}: run "bash .ci/run"`);
if (!isRunnable) console.warn(`skipped: executables of other systems (needs ${missing.join(", ") || "Linux on x64"})`);

let folder: Folder;
let dist: string;

beforeAll(async () => {
  folder = await makeFolder();
  dist = join(folder.path, "dist");
  if (!isRunnable) return;
  const script = join(dirname(import.meta.dir), ".ci", "release.ts");
  const names = EXECUTABLES.map(({ name }) => name).filter((name) => name.startsWith("ko-linux-"));
  await run([process.execPath, "--no-env-file", script, "--dist", dist, ...names]);
}, PATIENCE);

afterAll(() => folder[Symbol.asyncDispose]());

function findMissing(): readonly string[] {
  return Object.entries(NEEDS).flatMap(([name, path]) => (existsSync(path) ? [] : [name]));
}

async function run(argv: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const { code, stdout, stderr } = await runToEnd(argv, { cwd: folder.path, env: { ...process.env, ...env } });
  if (code !== 0) throw new Error(`${argv.join(" ")}: exit code ${code}\n${stdout}${stderr}`);
  return stdout;
}

/**
 * Makes the C++ library of musl systems, which Debian does not have: Debian's own, and a library with the symbols that it
 * wants of glibc. None of them does anything for ko.
 *
 * @returns the variables that let musl's loader find it
 */
async function makeMuslLibraries(arch: "x64" | "arm64"): Promise<Readonly<Record<string, string>>> {
  const path = join(folder.path, `musl-${arch}`);
  const from = arch === "x64" ? X64_LIBRARIES : ARM64_LIBRARIES;
  for (const name of ["libstdc++.so.6", "libgcc_s.so.1"])
    await cp(join(from, name), join(path, name), { dereference: true });
  const functions = ["arc4random", "__strftime_l", "__cxa_thread_atexit_impl", "__cpu_indicator_init", "__getauxval"];
  const data = ["__libc_single_threaded", "__cpu_model"];
  const answer = (value: number): string => (arch === "x64" ? `mov $${value}, %eax\nret` : `mov w0, #${value}\nret`);
  const define = (name: string, body: string, type: string): string =>
    `.globl ${name}\n.type ${name}, %${type}\n${name}:\n${body}\n.size ${name}, . - ${name}\n`;
  const lines = [
    ".text",
    ...functions.map((name) => define(name, answer(0), "function")),
    // "Not found": the search of the library itself follows.
    define("_dl_find_object", answer(-1), "function"),
    ".bss",
    ...data.map((name) => define(name, ".skip 16", "object")),
  ];
  await writeFile(join(path, "glibc.s"), `${lines.join("\n")}\n`);
  const tool = (name: string): string => (arch === "x64" ? name : `aarch64-linux-gnu-${name}`);
  await run([tool("as"), "-o", join(path, "glibc.o"), join(path, "glibc.s")]);
  // Under the name of glibc's loader, which Debian's library wants beside libc.
  const loader = join(path, arch === "x64" ? "ld-linux-x86-64.so.2" : "ld-linux-aarch64.so.1");
  await run([tool("ld"), "-shared", "-o", loader, join(path, "glibc.o")]);
  return { LD_LIBRARY_PATH: path, LD_PRELOAD: loader };
}

async function makeMuslMachine(arch: "x64" | "arm64"): Promise<Machine> {
  const env = await makeMuslLibraries(arch);
  if (arch === "x64") return { argv: [], env };
  // For the program that qemu runs, not for qemu.
  const options = Object.entries(env).flatMap(([name, value]) => ["-E", `${name}=${value}`]);
  return { argv: ["qemu-aarch64", "-L", MUSL_ARM64, ...options], env: {} };
}

const MACHINES: Readonly<Record<string, () => Machine | Promise<Machine>>> = {
  "ko-linux-x64": () => ({ argv: OLD_CPU, env: {} }),
  "ko-linux-arm64": () => ({ argv: ["qemu-aarch64", "-L", dirname(ARM64_LIBRARIES)], env: {} }),
  "ko-linux-x64-musl": () => makeMuslMachine("x64"),
  "ko-linux-arm64-musl": () => makeMuslMachine("arm64"),
};

describe("the runtimes of a release", () => {
  test("are of the Bun that compiles", () => {
    expect(RUNTIME_VERSION).toBe(pkg.devDependencies.bun);
  });

  test("have the digests of package-lock.json, as far as these are in it", () => {
    const packages = new Map(
      Object.entries(lock.packages).map(([path, value]) => [path, "integrity" in value ? value.integrity : undefined]),
    );
    const known = EXECUTABLES.flatMap(({ runtime, integrity }) => {
      const locked = packages.get(`node_modules/@oven/bun-${runtime}`);
      return locked === undefined ? [] : [[runtime, integrity === locked]];
    });
    expect(known).toEqual([
      ["linux-aarch64", true],
      ["linux-aarch64-musl", true],
      ["darwin-aarch64", true],
    ]);
  });

  test("are for every CPU where they are for x64", () => {
    const x64 = EXECUTABLES.filter(({ runtime }) => runtime.includes("x64"));
    expect(x64.map(({ target, runtime }) => [target.includes("baseline"), runtime.includes("baseline")])).toEqual(
      x64.map(() => [true, true]),
    );
  });

  test("are refused with another digest", async () => {
    using tree = writeTree({});
    const name = `oven-bun-linux-x64-${RUNTIME_VERSION}.tgz`;
    const host = hostAt(tree.path, {
      run: async () => {
        await writeFile(tree.at(name), "forged");
        return { code: 0, stdout: new Uint8Array(), stderr: "" };
      },
    });
    const work = fetchRuntime(host, { runtime: "linux-x64", integrity: "sha512-AA==" }, tree.path);
    expect((await failureOf(work)).message).toMatch(
      /^Cannot use @oven\/bun-linux-x64@[\d.]+: its digest is sha512-\S+, want sha512-AA==$/,
    );
  });
});

describe.skipIf(!isRunnable)("the executables of a release", () => {
  let tree: Tree;
  let wanted: Result;
  const settings = { KO_DEFAULTBASEIMAGE: "ko.builtin/static", KOCACHE: "off", GOFLAGS: "-buildvcs=false" };
  const build = (layout: string): readonly string[] => [
    "build",
    "-B",
    "--push=false",
    "--oci-layout-path",
    layout,
    ".",
  ];

  beforeAll(async () => {
    tree = writeTree({ "go.mod": goMod("example.com/app"), "main.go": mainGo() });
    const env = Object.fromEntries(Object.entries(process.env).map(([name, value]) => [name, value ?? ""]));
    wanted = await runKoHere(build("wanted"), { cwd: tree.path, env: { ...env, ...settings } });
  }, PATIENCE);

  afterAll(() => tree[Symbol.dispose]());

  test.each(Object.entries(MACHINES))(
    "%s runs, and makes the image that ko from source makes",
    async (name, makeMachine) => {
      expect(wanted.code).toBe(0);
      const { argv, env } = await makeMachine();
      const made = await runToEnd([...argv, join(dist, name), ...build(name)], {
        cwd: tree.path,
        env: { ...process.env, ...settings, ...env },
      });
      expect(made).toMatchObject({ code: 0, stdout: wanted.stdout.replace("wanted", name) });
      expect(await readFile(tree.at(`${name}/index.json`), "utf8")).toBe(
        await readFile(tree.at("wanted/index.json"), "utf8"),
      );
    },
    PATIENCE,
  );

  test("run on a CPU that has no AVX2", async () => {
    const source = join(folder.path, "avx2.s");
    const program = join(folder.path, "avx2");
    // Adds with AVX2, then exits with 0.
    await writeFile(
      source,
      ".globl _start\n_start:\nvpaddd %ymm0, %ymm0, %ymm0\nmov $60, %eax\nxor %edi, %edi\nsyscall\n",
    );
    await run(["as", "-o", `${program}.o`, source]);
    await run(["ld", "-o", program, `${program}.o`]);
    const options = { cwd: folder.path, env: process.env };
    const codes = [["qemu-x86_64", "-cpu", "max"], OLD_CPU].map(
      async (argv) => (await runToEnd([...argv, program], options)).code,
    );
    // 132: SIGILL.
    expect(await Promise.all(codes)).toEqual([0, 132]);
  });

  test("have the digests of SHA256SUMS", async () => {
    const { code, stdout } = await runToEnd(["sha256sum", "-c", "SHA256SUMS"], { cwd: dist, env: process.env });
    expect(code).toBe(0);
    expect(stdout.trim().split("\n").toSorted()).toEqual(
      Object.keys(MACHINES)
        .map((name) => `${name}: OK`)
        .toSorted(),
    );
  });
});
