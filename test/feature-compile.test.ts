import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cp, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { digestOf } from "../lib/oci.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Folder, makeFolder } from "./helpers/world-folders.ts";

const source = dirname(import.meta.dir);
/** What compiling needs of the repository; no `.git`, so that every copy is the same source. */
const SOURCES: readonly string[] = [
  "ko.ts",
  "lib",
  "docs/schemas",
  ".ci",
  "package.json",
  "tsconfig.json",
  "bunfig.toml",
];

/** Milliseconds; a compile takes one second, on a busy machine several. */
const PATIENCE = 60_000;

let folder: Folder;
let ko: string;

beforeAll(async () => {
  folder = await makeFolder();
  ko = join(folder.path, "ko");
  run([process.execPath, "--no-env-file", join(source, ".ci", "build.ts"), "--outfile", ko], folder.path);
}, PATIENCE);

afterAll(() => folder[Symbol.asyncDispose]());

interface Result {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

function tryRun(argv: readonly string[], cwd: string): Result {
  const env = { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "" };
  const { exitCode, stdout, stderr } = Bun.spawnSync([...argv], { cwd, env, stdin: "ignore" });
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

function run(argv: readonly string[], cwd: string): string {
  const { exitCode, stdout, stderr } = tryRun(argv, cwd);
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: exit code ${exitCode}\n${stdout}${stderr}`);
  return stdout;
}

/** A folder that does harm to whoever takes it for a Bun project. */
async function makeHostileFolder(path: string): Promise<void> {
  const trap = `require("node:fs").writeFileSync(${JSON.stringify(join(path, "TRAPPED"))}, "");`;
  await mkdir(join(path, "node_modules", "yaml"), { recursive: true });
  const files: Readonly<Record<string, string>> = {
    ".env": "KO_DOCKER_REPO=trapped.example.com/env\nGOFLAGS=-trapped\n",
    ".env.local": "KO_DOCKER_REPO=trapped.example.com/local\n",
    ".env.production": "KO_DOCKER_REPO=trapped.example.com/production\n",
    "bunfig.toml": 'preload = ["./trap.js"]\n[run]\npreload = ["./trap.js"]\n',
    "package.json": "{ broken",
    "tsconfig.json": '{ "compilerOptions": { "paths": { "*": ["./trap.js"] } } }',
    "trap.js": trap,
    "node_modules/yaml/index.js": trap,
    "node_modules/yaml/package.json": '{"name":"yaml","main":"index.js"}',
    ".ko.yaml": "defaultBaseImage: ko.builtin/static\n",
    "go.mod": goMod("example.com/app"),
    "main.go": mainGo(),
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(path, name), text);
}

describe("the executable", () => {
  test(
    "says which commit or release it is",
    async () => {
      expect(run([ko, "version"], folder.path)).toBe(run([process.execPath, join(source, "ko.ts"), "version"], source));
    },
    PATIENCE,
  );

  test(
    "is the same, byte for byte, when it is compiled again in another folder",
    async () => {
      const folders = [join(folder.path, "one"), join(folder.path, "somewhere", "deeper", "two")];
      const digests: string[] = [];
      for (const [i, path] of folders.entries()) {
        for (const name of SOURCES) await cp(join(source, name), join(path, name), { recursive: true });
        for (const name of await dependencies()) {
          await cp(join(source, "node_modules", name), join(path, "node_modules", name), { recursive: true });
        }
        // The first from its own folder, the second from elsewhere.
        run([process.execPath, "--no-env-file", join(path, ".ci", "build.ts")], i === 0 ? path : "/");
        digests.push(digestOf(await readFile(join(path, "ko"))));
        expect(run([join(path, "ko"), "version"], "/")).toBe(`${await packageVersion()}\n`);
      }
      expect(digests[1]).toBe(digests[0] ?? "");
    },
    PATIENCE,
  );

  test(
    "makes the same ko.builtin/static as ko from source does",
    async () => {
      const path = join(folder.path, "builtin");
      await makeHostileFolder(path);
      const layout1 = join(folder.path, "layout1");
      const layout2 = join(folder.path, "layout2");
      const build = (layout: string): readonly string[] => ["build", "-B", "--push=false", "--oci-layout-path", layout];
      run([ko, ...build(layout1)], path);
      // Bun itself would fall into the traps: it runs elsewhere.
      run(
        [process.execPath, "--no-env-file", join(source, "ko.ts"), ...build(layout2), path],
        await emptyFolder("elsewhere", "defaultBaseImage: ko.builtin/static\n"),
      );
      expect(await readFile(join(layout1, "index.json"), "utf8")).toBe(
        await readFile(join(layout2, "index.json"), "utf8"),
      );
    },
    PATIENCE,
  );

  test(
    "reads nothing that Bun would read in the folder that it runs in",
    async () => {
      const hostile = join(folder.path, "hostile");
      await makeHostileFolder(hostile);
      const before = (await readdir(hostile)).sort();
      // The repository of .env would be pushed to; without it there is none.
      const { exitCode, stdout, stderr } = tryRun([ko, "build", "."], hostile);
      expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
      expect(stderr).toContain("KO_DOCKER_REPO");
      expect(stderr).not.toContain("trapped");
      expect(run([ko, "version"], hostile)).toBe(run([ko, "version"], folder.path));
      // With a configuration file, so that a module is loaded at run time.
      run([ko, "build", "--push=false", "--oci-layout-path", join(folder.path, "hostile-layout")], hostile);
      expect((await readdir(hostile)).sort()).toEqual(before);
      // The traps work: Bun itself falls into them.
      const control = join(folder.path, "control");
      await makeHostileFolder(control);
      for (const name of ["package.json", "tsconfig.json"]) await writeFile(join(control, name), "{}");
      await writeFile(join(control, "print.js"), "console.log(process.env.KO_DOCKER_REPO)");
      expect(run([process.execPath, "print.js"], control)).toBe("trapped.example.com/local\n");
      expect(await readdir(control)).toContain("TRAPPED");
    },
    PATIENCE,
  );

  test(
    "asks the kernel for no file of that folder",
    async () => {
      const strace = Bun.which("strace");
      if (strace === null) {
        if (process.env["CI"]) throw new Error("strace is missing");
        console.warn("skipped: strace is missing");
        return;
      }
      const hostile = join(folder.path, "traced");
      await makeHostileFolder(hostile);
      const log = join(folder.path, "strace.log");
      run([strace, "-f", "-y", "-e", "trace=%file,read,getdents64", "-o", log, ko, "version"], hostile);
      const lines = (await readFile(log, "utf8")).split("\n");
      // The program itself must be in the log, or nothing was traced.
      expect(lines.some((line) => line.includes("execve(") && line.includes(ko))).toBe(true);
      const names = /\.env|bunfig|package\.json|tsconfig|jsconfig|node_modules|trap\.js/;
      expect(lines.filter((line) => names.test(line))).toEqual([]);
    },
    PATIENCE,
  );

  test(
    "can be replaced while it runs, and leaves nothing else behind",
    async () => {
      const path = await emptyFolder("replaced");
      const outfile = join(path, "ko");
      await symlink(ko, outfile);
      run([process.execPath, "--no-env-file", join(source, ".ci", "build.ts"), "--outfile", outfile], "/");
      expect(await readdir(path)).toEqual(["ko"]);
      expect(digestOf(await readFile(outfile))).toBe(digestOf(await readFile(ko)));
    },
    PATIENCE,
  );
});

async function emptyFolder(name: string, config?: string): Promise<string> {
  const path = join(folder.path, name);
  await mkdir(path);
  if (config !== undefined) await writeFile(join(path, ".ko.yaml"), config);
  return path;
}

async function packageVersion(): Promise<string> {
  const { default: pkg } = await import("../package.json", { with: { type: "json" } });
  return pkg.version;
}

/** Folders of node_modules that run-time dependencies need: all but the tools, which are large. */
async function dependencies(): Promise<readonly string[]> {
  const names = await readdir(join(source, "node_modules"));
  return names.filter((name) => !/^(?:\.|@|bun$|bun-types$|oxlint|undici-types$)/.test(name));
}
