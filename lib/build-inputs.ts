/**
 * The inputs of a build: the environment, the flags, the files and the git state that decide the bytes of a binary.
 *
 * Files come from `go list` (go-sources.ts), the state of the work tree from git.ts. This module only says which inputs
 * count; it does not look at them.
 */
import { delimiter, isAbsolute, join, relative } from "node:path";
import { once } from "./async.ts";
import { keyOf } from "./cache.ts";
import { printable } from "./errors.ts";
import { isInside } from "./file.ts";
import type { InputPlan, WrittenFiles } from "./fingerprint-inputs.ts";
import { isTargetName, type Target } from "./fingerprint.ts";
import { type GitStamp, markRepository, readStamp, whyNoStamp } from "./git-stamp.ts";
import { findWorkTree, planTags, readGitState } from "./git.ts";
import { askGo, type GoAnswer, isGoOf, kindOfGo, maySwitch } from "./go-command.ts";
import type { GoSettings } from "./go-env.ts";
import type { Program } from "./go-programs.ts";
import { type BuildSetup, describeSetup, type Reason, sortByName } from "./go-setup.ts";
import { downloadCache, downloadFolder } from "./go-sources-modules.ts";
import { findGoroot, planSources, type SourcesOptions, type Unprovable } from "./go-sources.ts";
import { type GoOptions, goPath, type GoPackage, settingsOf, splitQuoted } from "./go.ts";

/** 40 hex digits that are equal for equal output of `go list`. Go's own packages do not count. */
export type ListDigest = string;

/** All inputs of one program, as `go list` named them. */
export interface ListedInputs {
  readonly digest: ListDigest;
  readonly plan: InputPlan;
  /** Root of the work tree whose state Go stamps; undefined if Go stamps none. */
  readonly gitRoot: string | undefined;
  /** The answer of a go command that chooses which go runs; undefined if files tell that. */
  readonly answer: string | undefined;
  /** Absolute folders: that of Go's own packages, and the module cache. */
  readonly common: readonly string[];
}

/** What Go stamps of a git repository. */
export interface GitSeen {
  /** Of the work tree. */
  readonly root: string;
  /** As {@link readGitState} returns it. */
  readonly state: string;
  readonly stamp: GitStamp;
}

/** See {@link findForeignFlag}. */
const FOREIGN = /^--?(?:modfile|overlay|pgo|compiler|C|n|a|cover\w*|pkgdir|toolexec|linkshared)(?:=|$)/;

/** The inputs that all builds of a run share: the go command, its settings, its version, the git state. */
export class BuildInputs {
  /** Absolute path of the go command; undefined if there is none. */
  readonly go: string | undefined;
  readonly #options: GoOptions;
  /** The git state before the first build, by the root of the work tree and the variables of git. */
  readonly #states = new Map<string, Promise<string>>();
  readonly #stamps = new Map<string, Promise<GitStamp>>();
  readonly #marks = new Map<string, string | undefined>();
  /** Milliseconds since 1970. */
  readonly #startedAt: number;
  /** By the folder and the environment that go runs in. */
  readonly #answers = new Map<string, Promise<GoAnswer | undefined>>();

  constructor(options: GoOptions) {
    this.go = goPath(options);
    this.#options = options;
    this.#startedAt = options.host.now().getTime();
  }

  /** The files that choose modules and toolchain; undefined without a go command. */
  sourcesOptions(env: Readonly<Record<string, string>>, answer?: GoAnswer): SourcesOptions | undefined {
    if (this.go === undefined) return undefined;
    const settings = this.#settings(env);
    const gowork = answer === undefined ? settings.get("GOWORK") : answer.values["GOWORK"];
    return { go: this.go, settings: settings.files, gowork: gowork || undefined };
  }

  /** Why nothing that the go command compiles can be recorded; undefined if it can. */
  whyUnknown(setup: BuildSetup): string | undefined {
    const { host } = this.#options;
    if (this.go === undefined) return "there is no go command";
    if (kindOfGo(this.go, { host, settings: this.#settings(setup.env) }) === "script") {
      return `the go command ${this.go} is a script, which may choose another go each time; KO_GO_PATH can name that go`;
    }
    return this.#whyForeign(setup);
  }

  /** Reports whether packages were listed by the go command itself, not by another go that it chose. */
  isOwnGo(packages: readonly GoPackage[], { env }: BuildSetup): boolean {
    const goroot = findGoroot(packages);
    if (this.go === undefined || goroot === undefined) return false;
    return isGoOf(this.go, goroot) && goroot === this.#settings(env).goroot;
  }

  /**
   * Asks a go command that chooses which go runs, once per run; undefined if files tell which one runs.
   *
   * As the state of git, an answer counts only if it is the same before go is started and after go has ended.
   */
  async readAnswer(workDir: string, setup: BuildSetup): Promise<GoAnswer | undefined> {
    const { env } = setup;
    const settings = this.#settings(env);
    if (this.go === undefined || this.whyUnknown(setup) !== undefined) return undefined;
    const isChooser = kindOfGo(this.go, { host: this.#options.host, settings }) === "chooser";
    return isChooser || maySwitch(settings) ? this.answer(workDir, env) : undefined;
  }

  /** The answer of go in a folder; undefined if it fails. */
  answer(workDir: string, env: Readonly<Record<string, string>>): Promise<GoAnswer | undefined> {
    const key = keyOf([workDir, describeSetup({ env, args: [] })]);
    return once(this.#answers, key, () => askGo({ ...this.#options, env, cwd: workDir }));
  }

  /** The go command and the deciding part of an environment, as a value to compare. */
  describe(env: Readonly<Record<string, string>>): unknown {
    return [this.go, describeSetup({ env, args: [] })];
  }

  /**
   * Reads the git state that Go will stamp into programs of `dir`, once per run. A state counts only if it is the same
   * before go is started and after go has ended.
   */
  async readGit(dir: string, setup: BuildSetup, known?: GitStamp): Promise<void> {
    if (!this.#stampsGit(setup)) return;
    const tree = findWorkTree(dir);
    if (tree.kind !== "git") return;
    const { env } = setup;
    const stamp = known === undefined ? this.gitStamp(tree.root, env) : this.sameStamp(tree.root, { env, known });
    await Promise.all([this.gitState(tree.root, env), stamp]);
  }

  /** The state of a work tree before the first build of this run. */
  gitState(root: string, env: Readonly<Record<string, string>>): Promise<string> {
    return once(this.#states, gitKey(root, env), () => readGitState(root, { host: this.#options.host, env }));
  }

  /** The state and the stamp of a repository before the first build of this run. @param known the stamp of the last run */
  async seeGit(root: string, { env }: BuildSetup, known?: GitStamp): Promise<GitSeen> {
    const state = await this.gitState(root, env);
    const same = known && (await this.sameStamp(root, { env, known }));
    return { root, state, stamp: same ?? (await this.gitStamp(root, env)) };
  }

  /**
   * What Go reads of a repository beside that state.
   *
   * @param options.known that of an earlier run
   * @returns `known`, or a new one that is equal to it; undefined if Go reads something else now
   */
  async sameStamp(
    root: string,
    { env, known }: { readonly env: Readonly<Record<string, string>>; readonly known: GitStamp },
  ): Promise<GitStamp | undefined> {
    if (known.mark !== undefined && known.mark === this.#mark(root, { env, settings: known.settings })) return known;
    const now = await this.gitStamp(root, env);
    return now.text === known.text ? now : undefined;
  }

  /** What Go reads of a repository beside its state, before the first build of this run. */
  gitStamp(root: string, env: Readonly<Record<string, string>>): Promise<GitStamp> {
    const options = { host: this.#options.host, env, startedAt: this.#startedAt };
    return once(this.#stamps, gitKey(root, env), () => readStamp(root, options));
  }

  #mark(
    root: string,
    { env, settings }: { readonly env: Readonly<Record<string, string>>; readonly settings: readonly string[] },
  ): string | undefined {
    const key = keyOf([gitKey(root, env), settings]);
    if (!this.#marks.has(key)) {
      const options = { host: this.#options.host, env, settings, startedAt: this.#startedAt };
      this.#marks.set(key, markRepository(root, options));
    }
    return this.#marks.get(key);
  }

  /**
   * The inputs of a program, from the output of `go list -deps`.
   *
   * @returns or why nothing can be proved from files: then the build is not recorded
   */
  listInputs(
    program: Program,
    {
      answer,
      packages,
      setup,
    }: {
      readonly packages: readonly GoPackage[];
      readonly setup: BuildSetup;
      readonly answer?: GoAnswer | undefined;
    },
  ): ListedInputs | Unprovable {
    const { env } = setup;
    const sources = this.sourcesOptions(env, answer);
    if (sources === undefined) return { why: "there is no go command" };
    const why = this.#whyForeign(setup, answer);
    if (why !== undefined) return { why };
    if (env["GOENV"] && env["GOENV"] !== "off" && !isAbsolute(env["GOENV"])) return { why: "GOENV is not absolute" };
    const plan = planSources(program, packages, { ...sources, target: this.#target(setup, answer) });
    if ("why" in plan) return plan;
    const isStamped = isStampable(program) && this.#stampsGit(setup, answer);
    const tree = isStamped ? findWorkTree(program.dir) : { kind: "none" as const };
    const whyNot = tree.kind === "git" ? whyNoStamp(env) : undefined;
    if (whyNot !== undefined) return { why: whyNot };
    if (tree.kind === "other") return { why: `ko does not know what ${tree.name} is stamped with` };
    const tags: InputPlan = tree.kind === "git" ? planTags(tree.root) : { folders: [], files: [] };
    const goroot = findGoroot(packages) ?? "";
    const isOwn = this.isOwnGo(packages, setup);
    if (!isOwn && answer === undefined) return { why: `${sources.go} does not say why it runs the go of ${goroot}` };
    const standard = join(goroot, "src");
    const whole = { folders: [...plan.folders, ...tags.folders], files: [...plan.files, ...tags.files] };
    const caches = new Set(packages.flatMap(({ module }) => downloadCache(module) ?? []));
    return {
      digest: digestList(whole, { packages, standard }),
      plan: whole,
      gitRoot: tree.kind === "git" ? tree.root : undefined,
      answer: isOwn ? undefined : answer?.digest,
      common: [standard, ...caches],
    };
  }

  /** Whether Go stamps the state of the work tree into programs. */
  #stampsGit(setup: BuildSetup, answer?: GoAnswer): boolean {
    const last = this.#flags(setup, answer).findLast((word) => /^--?buildvcs(?:=|$)/.test(word));
    return last === undefined || !/=(?:false|f|0)$/i.test(last);
  }

  #whyForeign(setup: BuildSetup, answer?: GoAnswer): string | undefined {
    const foreign = findForeignFlag(this.#flags(setup, answer));
    return foreign === undefined ? undefined : `${foreign} is set, and ko does not know which files that reads`;
  }

  /**
   * Where Go takes the version of a program's commit from if it has no proxy (docs/rules.md F1.9): it does not ask git
   * again for a commit that is there. Go writes the files itself, so they count when it has ended. Undefined if Go has a proxy.
   */
  versionFiles({ module }: Program, { env }: BuildSetup, { state }: GitSeen): WrittenFiles | undefined {
    const settings = this.#settings(env);
    const path = settings.get("GOPATH").split(delimiter)[0] || join(env["HOME"] ?? "", "go");
    const cache = settings.get("GOMODCACHE") || join(path, "pkg", "mod");
    if (settings.get("GOPROXY") !== "off" || module === undefined) return undefined;
    return { dir: downloadFolder(cache, module.path), end: `-${state.slice(0, 12)}.info` };
  }

  /** The platform, unless a tag may let files in that their names exclude. */
  #target(setup: BuildSetup, answer?: GoAnswer): Target | undefined {
    const { GOARCH: arch = "", GOOS: os = "" } = setup.env;
    const words = this.#flags(setup, answer).flatMap((word) => word.split(/[^\w.]+/));
    const isTagged = words.includes("tags") && words.some(isTargetName);
    // Go takes files for linux, darwin and solaris for these systems, too.
    return isTagged || /^(?:android|illumos|ios)?$/.test(os) || arch === "" ? undefined : { arch, os };
  }

  /** All flags of go build: those of GOFLAGS first. */
  #flags({ args, env }: BuildSetup, answer?: GoAnswer): readonly string[] {
    return [...splitQuoted(answer?.values["GOFLAGS"] ?? this.#settings(env).get("GOFLAGS")), ...args];
  }

  #settings(env: Readonly<Record<string, string>>): GoSettings {
    return settingsOf({ ...this.#options, cwd: this.#options.host.cwd, env });
  }
}

/** A flag of go build that reads files which ko does not track, or that builds nothing. */
export function findForeignFlag(words: readonly string[]): string | undefined {
  return words.find((word) => FOREIGN.test(word));
}

function gitKey(root: string, env: Readonly<Record<string, string>>): string {
  const own = Object.entries(env).filter(([name]) => name.startsWith("GIT_"));
  return keyOf([root, env["HOME"], sortByName(Object.fromEntries(own))]);
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
} & ({ readonly state: "reused"; readonly commit?: string | undefined } | ({ readonly state: "rebuilt" } & Reason));

/**
 * A line for each image, in their order.
 *
 * @param cwd absolute; a file is shown relative to it where that is shorter
 */
export function formatExplanations(explanations: readonly Explanation[], cwd: string): string {
  const lines = explanations.map((explanation) => {
    const { importPath, platform } = explanation;
    const line = `${importPath} (${platform}): ${describe(explanation, cwd)}`;
    // A file name may hold anything.
    return `${printable(line.replaceAll(/[\t\r\n]/g, " "))}\n`;
  });
  return lines.join("");
}

function describe(explanation: Explanation, cwd: string): string {
  if (explanation.state === "reused") {
    const { commit } = explanation;
    return commit === undefined
      ? "reused, nothing changed"
      : `kept, built at ${commit.slice(0, 7)}; nothing changed since`;
  }
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
