/**
 * A Go module with YAML in it, and ko run there. A bench runs ko as a user would, ours or the original, with a `go` that logs
 * its calls and a `kubectl` that is the real one or a script. A scene runs ko in this process again and again, with a cache and
 * with none, which says what is right; its `go` runs scripts of a test before or after a call.
 */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Host } from "../../lib/host.ts";
import { buildSpy, goMod, libraryGo, mainGo } from "./go.ts";
import { type Files, type Tree, writeTree } from "./world-folders.ts";
import { realHost, runKoHere } from "./world-host.ts";
import {
  checkRecord,
  cleanEnvironment,
  commitTree,
  ourCommand,
  output,
  recorded,
  type Result,
  type Running,
  start,
} from "./world-programs.ts";

export interface Bench extends Disposable {
  /** The module; ko's working directory. */
  readonly tree: Tree;
  /** For everything else; nothing of it is in the module. */
  readonly work: Tree;
  /** Where its images go: a repository of its own, so that nothing is there already. */
  readonly repository: string;
  /** What ko is run with, before a call's own. */
  readonly env: Readonly<Record<string, string>>;
  /** Runs ours to its end. Of a command that builds, the events and the metadata are validated. */
  ours(args: readonly string[], options?: KoOptions): Promise<Result>;
  /** Runs the original to its end. */
  original(ko: string, args: readonly string[], options?: KoOptions): Promise<Result>;
  /** Starts ours, as the leader of a process group. */
  start(args: readonly string[], options?: KoOptions): Running;
  /** The first word of each call of `go` so far: `list`, `build`, `env`. */
  goCalls(): readonly string[];
  /** Puts a script `kubectl` in front of the real one; the returned variables make ko find it. */
  stubKubectl(script: string): Readonly<Record<string, string>>;
}

export interface BenchOptions {
  /** The registry, `127.0.0.1:PORT`. */
  readonly host: string;
  /** Text of `.ko.yaml`. @default the built-in base */
  readonly config?: string;
  /** The working directory, instead of a tree of its own. */
  readonly cwd?: string;
  /** Builds as the user's go does, instead of quickly. @default false */
  readonly plainGo?: boolean;
}

export interface KoOptions {
  /** Absolute. @default the bench's */
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
}

/** A moment of a call of go. */
export type Moment = `${"before" | "after"}-${"list" | "build"}`;

export interface Outcome {
  readonly code: number;
  /** What it printed: names and digests, a line each. */
  readonly images: string;
  readonly stderr: string;
  /** The first word of each call of go. */
  readonly go: readonly string[];
}

export interface RunOptions {
  /** What follows `ko`. @default the scene's */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Replaces parts of the outside. */
  readonly host?: Partial<Host>;
}

export interface SceneOptions {
  /** Below the tree. @default "app" */
  readonly cwd?: string;
  /** What follows `ko`. @default a build of ./cmd/app that is not pushed */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Makes the folder "app" a git repository with one commit. @default false */
  readonly git?: boolean;
}

export interface Scene extends Disposable {
  /** The sources. */
  readonly tree: Tree;
  /** Everything else; nothing of it is in the sources. */
  readonly work: Tree;
  /** Absolute; what ko keeps is in its folder `v1`. */
  readonly cache: string;
  /** For what follows; a test may change it. */
  readonly env: Record<string, string>;
  /** What follows `ko`; a test may change it. */
  args: readonly string[];
  /** Runs ko with the cache. */
  run(options?: RunOptions): Promise<Outcome>;
  /** Runs ko with no cache at all. */
  reference(options?: RunOptions): Promise<Outcome>;
  /** Lets a shell script run once, in the tree, at a moment of the next call. */
  at(moment: Moment, script: string): void;
  /** Runs git in the folder "app". */
  readonly git: (...args: readonly string[]) => Promise<string>;
}

/** Two modules beside each other: one with programs, one that it gets by a replacement. */
export const MODULES: Files = {
  "app/go.mod": goMod("example.com/app", {
    more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ../dep\n",
  }),
  "app/cmd/app/main.go": mainGo("main 1", ["example.com/app/lib", "example.com/dep"]),
  "app/cmd/app/kodata/hello.txt": "hello",
  "app/lib/lib.go": libraryGo("lib"),
  "app/lib/never.go": '//go:build never\n\npackage lib\n\nfunc init() { Text = "never 1" }\n',
  "app/other/other.go": libraryGo("other", "other"),
  "dep/go.mod": goMod("example.com/dep"),
  "dep/dep.go": libraryGo("dep"),
};

/** Milliseconds in which a file settles: later changes then have other times. Tests of what happens earlier do not wait. */
export const SETTLED_MS = 30;

const IDENTITY = Object.fromEntries(
  ["AUTHOR", "COMMITTER"].flatMap((who) => [
    [`GIT_${who}_NAME`, "t"],
    [`GIT_${who}_EMAIL`, "t@example.com"],
  ]),
);

/** Makes a bench with `files` as the module. */
export function makeBench(files: Files, options: BenchOptions): Bench {
  const { host, config = "defaultBaseImage: ko.builtin/static\n" } = options;
  const tree = writeTree(files);
  const work = writeTree({ docker: null, record: null, "config/.ko.yaml": config });
  const calls = work.at("go-calls");
  const spy = { TEST_GO: realGo(), TEST_GO_CALLS: calls, TEST_GO_QUICK: options.plainGo === true ? "" : "1" };
  const repository = `${host}/team-${crypto.randomUUID()}`;
  const env: Record<string, string> = {
    ...cleanEnvironment(work.path),
    KO_DOCKER_REPO: repository,
    ...spy,
    KO_GO_PATH: buildSpy(),
    KOCACHE: work.at("cache"),
    // No test may reach a cluster of whoever runs it.
    KUBECONFIG: work.at("no-kubeconfig"),
    KUBECACHEDIR: work.at("kubectl-cache"),
  };
  const home = options.cwd ?? tree.path;
  const begin = (argv: readonly string[], { cwd = home, env: more, stdin }: KoOptions, ownGroup: boolean): Running =>
    start(argv, { cwd, env: { ...env, ...more }, ownGroup, ...(stdin === undefined ? {} : { stdin }) });
  return {
    tree,
    work,
    repository,
    env,
    ours: async (args, more = {}) => {
      const record = work.at("record");
      const result = await begin([...ourCommand(), ...recorded(args, record)], more, false).result;
      await checkRecord(record, result);
      return result;
    },
    original: (ko, args, more = {}) => begin([ko, ...args], more, false).result,
    start: (args, more = {}) => begin([...ourCommand(), ...args], more, true),
    goCalls: () => (existsSync(calls) ? readFileSync(calls, "utf8").trimEnd().split("\n") : []),
    stubKubectl: (script) => {
      // The look at the cluster beside a build, and at a rollout after it, is no concern of the script.
      const look =
        'case "$1-$2" in config-view | get-namespace | get-nodes) exit 0 ;; proxy-*) exec sleep 3600 ;; esac';
      work.write({ "stubs/kubectl": { executable: `#!/bin/sh\n${look}\n${script}\n` } });
      return { PATH: `${work.at("stubs")}:${env["PATH"] ?? ""}` };
    },
    [Symbol.dispose]: () => {
      tree[Symbol.dispose]();
      work[Symbol.dispose]();
    },
  };
}

export function makeScene(files: Files, options: SceneOptions = {}): Scene {
  const tree = writeTree(files);
  const work = writeTree({ docker: null, at: null, "config/.ko.yaml": "defaultBaseImage: scratch\n" });
  work.write({ "bin/go": { link: realGo() } });
  const { GOFLAGS: _, ...clean } = cleanEnvironment(work.path);
  const env: Record<string, string> = {
    ...clean,
    TREE: tree.path,
    GOENV: "off",
    GOPROXY: "off",
    GOTOOLCHAIN: "local",
    // Go keeps in it which version a commit has: another test's commit may be the same.
    GOMODCACHE: work.at("modules"),
    KO_GO_PATH: work.at("bin/go"),
    KO_DOCKER_REPO: "example.com/team",
    KOCACHE: work.at("cache"),
    ...options.env,
  };
  const cwd = tree.at(options.cwd ?? "app");
  const scene: Scene = {
    tree,
    work,
    cache: work.at("cache"),
    env,
    args: options.args ?? ["build", "-q", "--push=false", "-B", "./cmd/app"],
    run: async ({ args = scene.args, env: more, host } = {}) => {
      const whole = { ...env, ...more };
      const go: string[] = [];
      const run = hookGo(go, { cwd, env: whole, folder: work.at("at") });
      const { code, stdout, stderr } = await runKoHere(args, { cwd, env: whole, host: { run, ...host } });
      return { code, images: stdout, stderr, go };
    },
    reference: (more = {}) => scene.run({ ...more, env: { ...more.env, KOCACHE: "off" } }),
    at: (moment, script) => writeFileSync(work.at(`at/${moment}`), script),
    git: (...args) => output(["git", ...args], { cwd: tree.at("app"), env: { ...process.env, ...IDENTITY } }),
    [Symbol.dispose]: () => {
      tree[Symbol.dispose]();
      work[Symbol.dispose]();
    },
  };
  return scene;
}

/** The same with a first commit, if that is wanted. */
export async function openScene(files: Files, options: SceneOptions = {}): Promise<Scene> {
  const scene = makeScene(files, options);
  if (options.git === true) await commitTree(scene.tree.at("app"));
  return scene;
}

/** Removes files or folders of a tree. */
export function remove(tree: Tree, ...paths: readonly string[]): void {
  for (const path of paths) rmSync(tree.at(path), { recursive: true });
}

/** Runs programs. Of go it notes the first word, makes it quicker, and lets the scripts of a test run before and after. */
function hookGo(
  calls: string[],
  { cwd, env, folder }: { readonly cwd: string; readonly env: Record<string, string>; readonly folder: string },
): Host["run"] {
  const base: Host["run"] = (argv, options = {}) =>
    realHost.run(argv, { cwd, env, signal: realHost.signal, ...options });
  const at = async (moment: string): Promise<void> => {
    const script = join(folder, moment);
    if (!existsSync(script)) return;
    renameSync(script, `${script}.now`);
    await base(["sh", "-c", `. '${script}.now'`], { cwd: env["TREE"] ?? "", anyExitCode: true });
  };
  return async (argv, options = {}) => {
    const [program, word = "", ...rest] = argv;
    if (program !== env["KO_GO_PATH"]) return base(argv, options);
    calls.push(word);
    await at(`before-${word}`);
    const made = { ...env, ...options.env };
    // A Delve that was compiled before stands for the one of `go install`.
    if (word === "install" && env["TEST_DELVE"]) {
      const name = made["GOOS"] === "windows" ? "dlv.exe" : "dlv";
      const bin = join(made["GOPATH"] ?? "", "bin");
      return base(["sh", "-c", `mkdir -p '${bin}' && cp '${env["TEST_DELVE"]}' '${bin}/${name}'`]);
    }
    const words = word === "build" ? [word, "-ldflags=-w", ...rest] : argv.slice(1);
    try {
      return await base([program, ...words], { ...options, env: { ...made, GOGC: "off" } });
    } finally {
      await at(`after-${word}`);
    }
  };
}

function realGo(): string {
  const path = Bun.which("go");
  if (path === null) throw new Error("there is no go on PATH");
  return path;
}
