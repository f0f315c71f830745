/**
 * A Go module with YAML in it, and ko run there as a user would: ours or the original, with a `go` that notes what it is
 * asked, and a `kubectl` that is the real one or a script.
 */
import { existsSync, readFileSync } from "node:fs";
import { QUICK_GO } from "./go.ts";
import { cleanEnvironment, ourCommand } from "./oracle.ts";
import { type Result, type Running, start } from "./programs.ts";
import { type Files, type Tree, writeTree } from "./tree.ts";

export interface Bench extends Disposable {
  /** The module; ko's working directory. */
  readonly tree: Tree;
  /** For everything else; nothing of it is in the module. */
  readonly work: Tree;
  /** Where its images go: a repository of its own, so that nothing is there already. */
  readonly repository: string;
  /** What ko is run with, before a call's own. */
  readonly env: Readonly<Record<string, string>>;
  /** Runs ours to its end. */
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
  /** Builds as the user's go does, instead of quickly (QUICK_GO). @default false */
  readonly plainGo?: boolean;
}

export interface KoOptions {
  /** Absolute. @default the bench's */
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
}

/** Makes a bench with `files` as the module. */
export function makeBench(files: Files, options: BenchOptions): Bench {
  const { host, config = "defaultBaseImage: ko.builtin/static\n" } = options;
  const tree = writeTree(files);
  const work = writeTree({ docker: null, "config/.ko.yaml": config });
  const calls = work.at("go-calls");
  const quick = options.plainGo === true ? "" : QUICK_GO;
  work.write({ "bin/go": { executable: `#!/bin/sh\necho "$1" >> '${calls}'\n${quick}exec '${realGo()}' "$@"\n` } });
  const repository = `${host}/team-${crypto.randomUUID()}`;
  const env: Record<string, string> = {
    ...cleanEnvironment(work.path),
    KO_DOCKER_REPO: repository,
    KO_GO_PATH: work.at("bin/go"),
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
    ours: (args, more = {}) => begin([...ourCommand(), ...args], more, false).result,
    original: (ko, args, more = {}) => begin([ko, ...args], more, false).result,
    start: (args, more = {}) => begin([...ourCommand(), ...args], more, true),
    goCalls: () => (existsSync(calls) ? readFileSync(calls, "utf8").trimEnd().split("\n") : []),
    stubKubectl: (script) => {
      work.write({ "stubs/kubectl": { executable: `#!/bin/sh\n${script}\n` } });
      return { PATH: `${work.at("stubs")}:${env["PATH"] ?? ""}` };
    },
    [Symbol.dispose]: () => {
      tree[Symbol.dispose]();
      work[Symbol.dispose]();
    },
  };
}

function realGo(): string {
  const path = Bun.which("go");
  if (path === null) throw new Error("there is no go on PATH");
  return path;
}
