/**
 * The inputs of a build: the environment, the flags, the files and the git state that decide the bytes of a binary.
 *
 * Files come from `go list` (go-sources.ts), the state of the work tree from git.ts. This module only says which inputs
 * count; it does not look at them.
 */
import { realpathSync } from "node:fs";
import { basename, isAbsolute, join, relative, resolve } from "node:path";
import { once } from "./async.ts";
import { keyOf } from "./cache.ts";
import { printable } from "./errors.ts";
import { isInside } from "./file.ts";
import type { InputPlan } from "./fingerprint-inputs.ts";
import { findWorkTree, planTags, readGitState } from "./git.ts";
import type { Program } from "./go-programs.ts";
import { type BuildSetup, describeSetup, type Reason, sortByName } from "./go-setup.ts";
import { findGoroot, planSources, type SourcesOptions, type Unprovable } from "./go-sources.ts";
import { type GoOptions, type GoPackage, readVariable, runGo, settingsFile, splitQuoted } from "./go.ts";

/** 40 hex digits that are equal for equal output of `go list`. Go's own packages do not count. */
export type ListDigest = string;

/** All inputs of one program, as `go list` named them. */
export interface ListedInputs {
  readonly digest: ListDigest;
  readonly plan: InputPlan;
  /** Root of the work tree whose state Go stamps; undefined if Go stamps none. */
  readonly gitRoot: string | undefined;
  /** Only where a version manager chooses the Go version. */
  readonly goroot: string | undefined;
  /** Absolute folder of Go's own packages. */
  readonly standard: string;
}

/** Flags of go build that read files which ko does not track, or that build nothing. */
const FOREIGN = /^--?(?:modfile|overlay|pgo|compiler|C|n|a|cover\w*|pkgdir|toolexec|linkshared)(?:=|$)/;

/** The inputs that all builds of a run share: the go command, its settings, its version, the git state. */
export class BuildInputs {
  /** Absolute path of the go command; undefined if there is none. */
  readonly go: string | undefined;
  readonly #options: GoOptions;
  /** The git state before the first build, by the root of the work tree and the variables of git. */
  readonly #states = new Map<string, Promise<string>>();
  /** By the folder and the environment that go runs in. */
  readonly #goroots = new Map<string, Promise<string>>();

  constructor(options: GoOptions) {
    const { go, host } = options;
    this.go = /[/\\]/.test(go) ? resolve(host.cwd, go) : host.findProgram(go);
    this.#options = options;
  }

  /** The files that choose modules and toolchain; undefined without a go command. */
  sourcesOptions(env: Readonly<Record<string, string>>): SourcesOptions | undefined {
    if (this.go === undefined) return undefined;
    const settings = settingsFile(env, this.#options.host.platform);
    return { go: this.go, settings, gowork: env["GOWORK"] || undefined };
  }

  /** The go command and the deciding part of an environment, as a value to compare. */
  describe(env: Readonly<Record<string, string>>): unknown {
    return [this.go, describeSetup({ env, args: [] })];
  }

  /**
   * Reads the git state that Go will stamp into programs of `dir`, once per run. A state counts only if it is the same
   * before go is started and after go has ended.
   */
  async readGit(dir: string, setup: BuildSetup): Promise<void> {
    if (!this.#stampsGit(setup)) return;
    const tree = findWorkTree(dir);
    if (tree.kind === "git") await this.gitState(tree.root, setup.env);
  }

  /** The state of a work tree before the first build of this run. */
  gitState(root: string, env: Readonly<Record<string, string>>): Promise<string> {
    const key = keyOf([root, sortByName(env).filter(([name]) => name.startsWith("GIT_"))]);
    return once(this.#states, key, () => readGitState(root, { host: this.#options.host, env }));
  }

  /** The GOROOT that go chooses for a program; empty if go fails. */
  goroot({ workDir }: Program, setup: BuildSetup): Promise<string> {
    const { env } = setup;
    return once(this.#goroots, keyOf([workDir, describeSetup({ env, args: [] })]), () =>
      runGo(["env", "GOROOT"], { ...this.#options, env, cwd: workDir }).then(
        ({ stdout }) => new TextDecoder().decode(stdout).trim(),
        () => "",
      ),
    );
  }

  /**
   * The inputs of a program, from the output of `go list -deps`.
   *
   * @returns or why nothing can be proved from files: then the build is not recorded
   */
  listInputs(
    program: Program,
    { packages, setup }: { readonly packages: readonly GoPackage[]; readonly setup: BuildSetup },
  ): ListedInputs | Unprovable {
    const sources = this.sourcesOptions(setup.env);
    if (sources === undefined) return { why: "there is no go command" };
    const foreign = this.#flags(setup).find((word) => FOREIGN.test(word));
    if (foreign !== undefined) return { why: `${foreign} is set` };
    if (sources.settings !== undefined && !isAbsolute(sources.settings)) return { why: "GOENV is not absolute" };
    const plan = planSources(program, packages, sources);
    if ("why" in plan) return plan;
    const isStamped = isStampable(program) && this.#stampsGit(setup);
    const tree = isStamped ? findWorkTree(program.dir) : { kind: "none" as const };
    if (tree.kind === "git" && setup.env["GIT_DIR"]) return { why: "GIT_DIR is set" };
    if (tree.kind === "other") return { why: `ko does not know what ${tree.name} is stamped with` };
    const tags: InputPlan = tree.kind === "git" ? planTags(tree.root) : { folders: [], files: [] };
    const goroot = findGoroot(packages) ?? "";
    const standard = join(goroot, "src");
    const whole = { folders: [...plan.folders, ...tags.folders], files: [...plan.files, ...tags.files] };
    return {
      digest: digestList(whole, { packages, standard }),
      plan: whole,
      gitRoot: tree.kind === "git" ? tree.root : undefined,
      goroot: isShim(sources.go) ? goroot : undefined,
      standard,
    };
  }

  /** Whether Go stamps the state of the work tree into programs. */
  #stampsGit(setup: BuildSetup): boolean {
    const last = this.#flags(setup).findLast((word) => /^--?buildvcs(?:=|$)/.test(word));
    return last === undefined || !/=(?:false|f|0)$/i.test(last);
  }

  /** All flags of go build: those of GOFLAGS first, from the environment or from `go env -w`. */
  #flags({ args, env }: BuildSetup): readonly string[] {
    return [...splitQuoted(readVariable("GOFLAGS", env, this.#options.host.platform)), ...args];
  }
}

/** The change of the git state between two builds, as a reason. */
export function explainGit(before: string, after: string): Reason {
  const [oldCommit, oldState] = before.split(" ");
  const [newCommit, newState] = after.split(" ");
  if (oldCommit !== newCommit) return { reason: "the git commit, which Go stamps into the program, is another" };
  if (oldState === newState) return { reason: "the git state of the work tree changed" };
  const now = newState === "changed" ? "is no longer clean" : "is clean now";
  return { reason: `the git work tree ${now}, which Go stamps into the program` };
}

function digestList(
  { files, folders }: InputPlan,
  { packages, standard }: { readonly packages: readonly GoPackage[]; readonly standard: string },
): ListDigest {
  const isOwn = (path: string): boolean => !isInside(path, standard);
  const own = folders.filter(({ dir }) => isOwn(dir));
  const dirs = new Set(own.map(({ dir }) => dir));
  const patterns = packages.filter(({ dir, embedPatterns }) => embedPatterns.length > 0 && dirs.has(dir));
  return keyOf([
    own.map(({ dir, kind, seen }) => [dir, kind, seen]),
    files.filter(isOwn),
    patterns.map(({ dir, embedPatterns }) => [dir, embedPatterns]),
  ]);
}

/** One image of one platform. */
export type Explanation = {
  readonly importPath: string;
  /** `linux/arm/v7` */
  readonly platform: string;
} & ({ readonly state: "reused" } | ({ readonly state: "rebuilt" } & Reason));

/**
 * Lines without line ends, in the order of the images.
 *
 * @param cwd absolute; a file is shown relative to it where that is shorter
 */
export function formatExplanations(explanations: readonly Explanation[], cwd: string): readonly string[] {
  return explanations.map((explanation) => {
    const { importPath, platform } = explanation;
    const line = `${importPath} (${platform}): ${describe(explanation, cwd)}`;
    // A file name may hold anything.
    return printable(line.replaceAll(/[\t\r\n]/g, " "));
  });
}

function describe(explanation: Explanation, cwd: string): string {
  if (explanation.state === "reused") return "reused, nothing changed";
  const { file, reason } = explanation;
  return `rebuilt, ${file === undefined ? "" : `${shorten(file, cwd)} `}${reason}`;
}

function shorten(file: string, cwd: string): string {
  const near = relative(cwd, file);
  return near !== "" && near.length < file.length ? near : file;
}

/** Go stamps programs of main modules and local replacements, not those of dependencies. */
function isStampable({ module }: Program): boolean {
  return module !== undefined && (module.main || module.version === undefined || module.local);
}

/** Whether a go command is the script of a version manager, which chooses Go by files that only it knows. */
function isShim(go: string): boolean {
  if (go.includes("/shims/")) return true;
  try {
    return (
      !/^go(?:\.exe|[\d.]*)?$/.test(basename(realpathSync(go))) && /(?:asdf|mise|rtx|goenv)/.test(realpathSync(go))
    );
  } catch {
    return false;
  }
}
