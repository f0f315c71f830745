/**
 * What earlier runs compiled: a record for each program and platform, with the inputs that decide the bytes, and the
 * proof that they still are what they were. Then no `go` is needed.
 *
 * The key of a record holds what is known at once: import path, platform, flags, the variables of the environment that
 * decide. The rest are files and folders (go-sources.ts, fingerprint.ts) and what git says (git.ts). What cannot be proved
 * is not recorded.
 */
import { realpathSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { once } from "./async.ts";
import { type Cache, type Kept, keyOf } from "./cache.ts";
import { isInside } from "./file.ts";
import {
  confirmInputs,
  type Draft,
  type InputPlan,
  type Inputs,
  Prover,
  refreshInputs,
  takeInputs,
} from "./fingerprint-inputs.ts";
import { Looks, TICK_MS } from "./fingerprint.ts";
import { findWorkTree, planTags, readGitState } from "./git.ts";
import type { Program } from "./go-programs.ts";
import { findGoroot, planSources, type SourcesOptions, type Unprovable } from "./go-sources.ts";
import { type GoPackage, readVariable, runGo, settingsFile, splitQuoted } from "./go.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";

export interface BuildMemoryOptions {
  readonly cache: Cache;
  readonly host: Host;
  readonly log: Log;
  /** Name or path of the go command. */
  readonly go: string;
}

/** How a program is compiled: the words and variables that go gets. */
export interface BuildSetup {
  /** The whole environment of go. */
  readonly env: Readonly<Record<string, string>>;
  /** Words of `go build`, without packages, output and `-p`. */
  readonly args: readonly string[];
}

/** A binary that was compiled before. */
export interface KnownBinary {
  /** Named by the digest of the layer's tar, which the binary decides. */
  readonly binary: Kept;
  /** Bytes of that tar. */
  readonly tarSize: number;
}

/** Why something is built anew: the first input that changed. */
export interface Reason {
  /** Absolute; undefined if it is no file. */
  readonly file?: string | undefined;
  /** What is with that file (`changed`), or all that is to say. */
  readonly reason: string;
}

/** What is known of a program: its binary, or why it has to be compiled. */
export type Recalled =
  | ({ readonly state: "proved"; readonly list: string } & KnownBinary)
  | {
      readonly state: "unknown";
      readonly why: Reason;
      /** The last binary, for go to find out whether it is still right; it is what it was when it was kept. */
      readonly last: KnownBinary | undefined;
      /** Finds out what go listed for it, if go would list the same again; undefined without a record. */
      readonly listed: (() => Promise<Listed | undefined>) | undefined;
    };

/** What go told, and how the program is compiled. */
interface ToldOptions {
  /** All that `go list -deps` told. */
  readonly packages: readonly GoPackage[];
  readonly setup: BuildSetup;
}

/** What go listed of a program in an earlier run, and would list again. */
export interface Listed {
  /** Equal for equal lists, as far as those are of what may change: Go's own packages count for nothing. */
  readonly list: string;
  /** What a look at its inputs begins with. */
  readonly plan: InputPlan;
  /** Milliseconds since 1970: before it was found out that the list holds. */
  readonly startedAt: number;
  readonly git: BuildRecord["git"];
  readonly goroot: string | undefined;
  readonly standard: string;
}

interface BuildRecord extends KnownBinary {
  /** As in {@link Listed}. */
  readonly list: string;
  /** The folder of Go's own packages. */
  readonly standard: string;
  /** Without the folders in `shared`. */
  readonly inputs: Inputs;
  /** Key of the record with the folders of Go's own packages: most of all, and the same for many programs. */
  readonly shared: string;
  readonly git: { readonly root: string; readonly state: string } | undefined;
  /** Only where another program chooses the Go version. */
  readonly goroot: string | undefined;
}

/** Of records; another one for another shape. */
const FORMAT = 3;
/** Variables that say where things are kept, shown or fetched from, and decide nothing. Some hold secrets. */
const IDLE: ReadonlySet<string> = new Set(
  "GOCACHE GOCACHEPROG GOTMPDIR GOMAXPROCS GOGC GOMEMLIMIT GOTRACEBACK GOPROXY GOAUTH GONETRC GOVCS".split(" "),
);
const DECIDING =
  /^(?:GO|CGO_|GIT_|CC$|CXX$|FC$|AR$|PKG_CONFIG|HOME$|XDG_CONFIG_HOME$|APPDATA$|USERPROFILE$|(?:ASDF|MISE|GOENV|RTX)_)/i;
/** Flags of go build that bring files of their own, or do not build. */
const FOREIGN = /^--?(?:modfile|overlay|pgo|compiler|C|n|a|cover\w*|pkgdir|toolexec|linkshared)(?:=|$)/;

/** Proves and remembers, for one run. */
export class BuildMemory {
  readonly #options: BuildMemoryOptions;
  readonly #prover = new Prover();
  /** What git said before anything was compiled, by the root of the work tree. */
  readonly #states = new Map<string, Promise<string>>();
  readonly #goroots = new Map<string, Promise<string>>();
  readonly #recalled = new Map<string, Promise<Recalled>>();
  /** Folders of Go's own packages, by the keys of their records. */
  readonly #shared = new Map<string, Inputs["folders"] | undefined>();
  readonly #go: string | undefined;
  readonly #began: { readonly clock: number; readonly steady: number };

  constructor(options: BuildMemoryOptions) {
    this.#options = options;
    const { go, host } = options;
    this.#go = /[/\\]/.test(go) ? resolve(host.cwd, go) : host.findProgram(go);
    this.#began = { clock: host.now().getTime(), steady: host.monotonic() };
  }

  /** What is proved of files in this run. */
  get prover(): Prover {
    return this.#prover;
  }

  /**
   * Whether the clock was put back since the run began: then times of change do not tell what happened meanwhile, and
   * nothing can be remembered.
   */
  isClockPutBack(): boolean {
    const { host } = this.#options;
    const steady = host.monotonic() - this.#began.steady;
    // A clock that is only slowed down cannot overtake anything.
    return host.now().getTime() - this.#began.clock < steady - TICK_MS - steady / 1000;
  }

  /**
   * Asks git what Go will stamp into programs of `dir`, if it is not asked yet. What it says counts only if it says so
   * before go is started, and again when go is done.
   */
  async askGit(dir: string, setup: BuildSetup): Promise<void> {
    if (!this.#stamps(setup)) return;
    const tree = findWorkTree(dir);
    if (tree.kind === "git") await this.#stateBefore(tree.root, setup.env);
  }

  /** Where the files are that choose modules and toolchain; undefined without a go command. */
  sourcesOptions(env: Readonly<Record<string, string>>): SourcesOptions | undefined {
    if (this.#go === undefined) return undefined;
    const settings = settingsFile(env, this.#options.host.platform);
    return { go: this.#go, settings, gowork: env["GOWORK"] || undefined };
  }

  /** What decides, of an environment and the go command, as a value to compare. */
  describe(env: Readonly<Record<string, string>>): unknown {
    return [this.#go, describeSetup({ env, args: [] })];
  }

  /** Looks a program up, and proves that what is known of it still holds. Done once: asked again, it says the same. */
  recall(program: Program, setup: BuildSetup): Promise<Recalled> {
    const key = this.#key(program, setup);
    return once(this.#recalled, key, () => this.#recall(program, { key, setup }));
  }

  async #recall(
    program: Program,
    { key, setup }: { readonly key: string; readonly setup: BuildSetup },
  ): Promise<Recalled> {
    const { cache, host } = this.#options;
    const startedAt = host.now().getTime();
    const nothing = { state: "unknown", last: undefined, listed: undefined } as const;
    const record = readRecord(cache.read("build", key));
    if (record === undefined) return { ...nothing, why: this.#whyUnknown(program, setup) };
    const { binary, list, tarSize } = record;
    const last = cache.has(binary) ? { binary, tarSize } : undefined;
    const shared = this.#readShared(record.shared);
    if (shared === undefined) return { ...nothing, why: { reason: "its record is damaged" }, last };
    const inputs = { ...record.inputs, folders: [...record.inputs.folders, ...shared] };
    const whole = { ...record, inputs };
    const why = await this.#findDifference(whole, { program, setup });
    if (why !== undefined || last === undefined) {
      this.#prover.noteNames(inputs);
      const listed = async (): Promise<Listed | undefined> =>
        (await this.#listsTheSame(whole, { program, setup })) ? planAgain(whole, startedAt) : undefined;
      return { state: "unknown", why: why ?? { reason: "the kept binary is not what it was" }, last, listed };
    }
    const better = refreshInputs(record.inputs, host.now().getTime());
    if (better !== undefined) cache.write("build", key, { ...record, inputs: better });
    return { state: "proved", binary, tarSize, list };
  }

  /** Whether go would list the same as when the record was made: what it reads of each file is what it was. */
  async #listsTheSame(
    { goroot, inputs }: BuildRecord,
    { program, setup }: { readonly program: Program; readonly setup: BuildSetup },
  ): Promise<boolean> {
    if (this.#prover.findChange(inputs, new Set()) !== undefined) return false;
    return goroot === undefined || (await this.#gorootOf(program, setup)) === goroot;
  }

  #readShared(key: string): Inputs["folders"] | undefined {
    if (!this.#shared.has(key)) {
      const value = this.#options.cache.read("shared", key);
      this.#shared.set(key, isFolders(value) ? value : undefined);
    }
    return this.#shared.get(key);
  }

  /** Keeps the folders of Go's own packages under their own key. */
  #writeShared(folders: Inputs["folders"]): string {
    const key = keyOf([FORMAT, folders]);
    if (this.#shared.get(key) === undefined) this.#options.cache.write("shared", key, folders);
    this.#shared.set(key, folders);
    return key;
  }

  /**
   * Looks at a program's inputs, after go has listed them: to be confirmed when it is compiled.
   *
   * @param options.startedAt milliseconds since 1970, before go was started for the first time
   */
  async draft(
    program: Program,
    options: ToldOptions & { readonly startedAt: number; readonly looks: Looks },
  ): Promise<BuildDraft | undefined> {
    const { looks, setup, startedAt } = options;
    const told = this.isClockPutBack() ? { why: "the clock was put back" } : this.#read(program, options);
    if (!("why" in told)) return this.#take(program, { looks, setup, listed: { ...told, startedAt } });
    this.#options.log.debug(`${program.importPath} is not remembered: ${told.why}`);
    return undefined;
  }

  /** What stands for the list that go told of a program: see {@link Listed}. Undefined if that could not be remembered. */
  listOf(program: Program, told: ToldOptions): string | undefined {
    const found = this.#read(program, told);
    return "why" in found ? undefined : found.list;
  }

  #read(program: Program, { packages, setup }: ToldOptions): Omit<Listed, "startedAt"> | Unprovable {
    const sources = this.sourcesOptions(setup.env);
    if (sources === undefined) return { why: "there is no go command" };
    const foreign = this.#flags(setup).find((word) => FOREIGN.test(word));
    if (foreign !== undefined) return { why: `${foreign} is set` };
    const plan = planSources(program, packages, sources);
    if ("why" in plan) return plan;
    const stamped = isStamped(program) && this.#stamps(setup);
    const tree = stamped ? findWorkTree(program.dir) : { kind: "none" as const };
    if (tree.kind === "git" && setup.env["GIT_DIR"]) return { why: "GIT_DIR is set" };
    if (tree.kind === "other") return { why: `ko does not know what ${tree.name} is stamped with` };
    const tags: InputPlan = tree.kind === "git" ? planTags(tree.root) : { folders: [], files: [] };
    const goroot = findGoroot(packages) ?? "";
    const standard = join(goroot, "src");
    const whole = { folders: [...plan.folders, ...tags.folders], files: [...plan.files, ...tags.files] };
    const isOwn = (path: string): boolean => !isInside(path, standard);
    const folders = whole.folders.filter(({ dir }) => isOwn(dir));
    const dirs = new Set(folders.map(({ dir }) => dir));
    const patterns = packages.filter(({ dir, embedPatterns }) => embedPatterns.length > 0 && dirs.has(dir));
    return {
      list: keyOf([
        folders.map(({ dir, kind, seen }) => [dir, kind, seen]),
        whole.files.filter(isOwn),
        patterns.map(({ dir, embedPatterns }) => [dir, embedPatterns]),
      ]),
      plan: whole,
      git: tree.kind === "git" ? { root: tree.root, state: "" } : undefined,
      goroot: isShim(sources.go) ? goroot : undefined,
      standard,
    };
  }

  /** The same where go need not be asked. */
  async draftAgain(
    program: Program,
    options: { readonly listed: Listed; readonly setup: BuildSetup; readonly looks: Looks },
  ): Promise<BuildDraft | undefined> {
    if (!this.isClockPutBack()) return this.#take(program, options);
    this.#options.log.debug(`${program.importPath} is not remembered: the clock was put back`);
    return undefined;
  }

  async #take(
    program: Program,
    options: { readonly listed: Listed; readonly setup: BuildSetup; readonly looks: Looks },
  ): Promise<BuildDraft | undefined> {
    const { host, log } = this.#options;
    const { listed, looks, setup } = options;
    const { git, goroot, list, plan, standard, startedAt } = listed;
    const draft = takeInputs(plan, { startedAt, now: host.now().getTime(), before: this.#prover, looks });
    if ("path" in draft) {
      log.debug(`${program.importPath} is not remembered: ${draft.path} ${draft.what} just now`);
      return undefined;
    }
    const state = git === undefined ? undefined : await this.#stateBefore(git.root, setup.env);
    const stamped = git === undefined || state === undefined ? undefined : { root: git.root, state };
    return { draft, git: stamped, goroot, list, standard };
  }

  /** Keeps what was compiled, if its inputs have not changed meanwhile. */
  async remember(
    program: Program,
    made: KnownBinary & {
      readonly setup: BuildSetup;
      readonly draft: BuildDraft;
      readonly confirmation: Confirmation;
    },
  ): Promise<void> {
    const { cache, host, log } = this.#options;
    const { binary, confirmation, draft, setup, tarSize } = made;
    const { looks, prover } = confirmation;
    const inputs = confirmInputs(draft.draft, { now: host.now().getTime(), prover, looks });
    const no = (why: string): void => log.debug(`${program.importPath} is not remembered: ${why}`);
    if ("path" in inputs) return no(`${inputs.path} ${inputs.what} while it was compiled`);
    if (this.isClockPutBack()) return no("the clock was put back");
    const { git, goroot, list, standard } = draft;
    if (git !== undefined && (await confirmation.git(git.root, setup.env)) !== git.state) {
      return no("the work tree changed while it was compiled");
    }
    const isStandard = ({ dir }: Inputs["folders"][number]): boolean => dir.startsWith(`${standard}/`);
    const shared = this.#writeShared(inputs.folders.filter(isStandard));
    const own = { ...inputs, folders: inputs.folders.filter((folder) => !isStandard(folder)) };
    const record: BuildRecord = { binary, tarSize, list, inputs: own, shared, git, goroot, standard };
    cache.write("build", this.#key(program, setup), record);
    cache.write("setup", this.#placeKey(program, setup), describeSetup(setup));
  }

  /** All flags that go build gets, those of GOFLAGS first, wherever that is set. */
  #flags({ args, env }: BuildSetup): readonly string[] {
    return [...splitQuoted(readVariable("GOFLAGS", env, this.#options.host.platform)), ...args];
  }

  /** Whether Go stamps what git says into programs. */
  #stamps(setup: BuildSetup): boolean {
    const last = this.#flags(setup).findLast((word) => /^--?buildvcs(?:=|$)/.test(word));
    return last === undefined || !/=(?:false|f|0)$/i.test(last);
  }

  async #findDifference(
    record: BuildRecord,
    { program, setup }: { readonly program: Program; readonly setup: BuildSetup },
  ): Promise<Reason | undefined> {
    const { git, goroot, inputs } = record;
    // Asked for before files are looked at, which keeps the processor busy.
    const state = git === undefined ? undefined : this.#stateBefore(git.root, setup.env);
    const change = this.#prover.findChange(inputs);
    if (change !== undefined) return { file: change.path, reason: change.what };
    if (git !== undefined && (await state) !== git.state) return explainGit(git.state, (await state) ?? "");
    if (goroot !== undefined && (await this.#gorootOf(program, setup)) !== goroot) {
      return { reason: "another version of Go is chosen" };
    }
    return undefined;
  }

  #stateBefore(root: string, env: Readonly<Record<string, string>>): Promise<string> {
    return once(this.#states, root, () => readGitState(root, { host: this.#options.host, env }));
  }

  #gorootOf({ workDir }: Program, { env }: BuildSetup): Promise<string> {
    return once(this.#goroots, workDir, () =>
      runGo(["env", "GOROOT"], { ...this.#options, env, cwd: workDir }).then(
        ({ stdout }) => new TextDecoder().decode(stdout).trim(),
        () => "",
      ),
    );
  }

  /** Why there is no record: what is set otherwise, if there is one of another environment. */
  #whyUnknown(program: Program, setup: BuildSetup): Reason {
    const last = this.#options.cache.read("setup", this.#placeKey(program, setup));
    if (!isObject(last)) return { reason: "first build here" };
    const now = describeSetup(setup);
    for (const name of new Set([...Object.keys(now), ...Object.keys(last)])) {
      if (last[name] === now[name]) continue;
      return { reason: last[name] === undefined ? `${name} is set now` : `${name} changed` };
    }
    return { reason: "nothing is known of the last build" };
  }

  #key(program: Program, setup: BuildSetup): string {
    return keyOf([FORMAT, program.importPath, program.workDir, program.dir, this.#go, describeSetup(setup)]);
  }

  #placeKey(program: Program, { env }: BuildSetup): string {
    return keyOf([program.importPath, program.workDir, env["GOOS"], env["GOARCH"], env["GOARM"], env["GOAMD64"]]);
  }
}

/** What is looked at when the compiler has ended: once for all programs that it made. */
export class Confirmation {
  readonly prover: Prover = new Prover();
  readonly looks: Looks = new Looks();
  readonly #host: Host;
  readonly #states = new Map<string, Promise<string>>();

  constructor(host: Host) {
    this.#host = host;
  }

  /** Looks at what may change soon, and asks git. */
  begin(drafts: Iterable<BuildDraft>, env: Readonly<Record<string, string>>): void {
    for (const { draft, git } of drafts) {
      this.prover.noteFolders(draft.inputs);
      // Whoever remembers hears of it.
      if (git !== undefined) this.git(git.root, env).catch(() => {});
    }
  }

  /** What git says now. */
  git(root: string, env: Readonly<Record<string, string>>): Promise<string> {
    return once(this.#states, root, () => readGitState(root, { host: this.#host, env }));
  }
}

/** What {@link BuildMemory.draft} found. */
export interface BuildDraft {
  readonly draft: Draft;
  readonly git: BuildRecord["git"];
  readonly goroot: string | undefined;
  /** As in {@link Listed}. */
  readonly list: string;
  /** The folder of Go's own packages, absolute. */
  readonly standard: string;
}

/** The same look once more: at what `inputs` were taken from. */
function planAgain({ git, goroot, inputs, list, standard }: BuildRecord, startedAt: number): Listed {
  const folders = inputs.folders.map(({ dir, headers, kind, names }) => {
    return { dir, kind, headers, names, seen: kind === "sources" ? names : undefined };
  });
  return { list, plan: { folders, files: inputs.files.map(([path]) => path) }, startedAt, git, goroot, standard };
}

/** The variables and words that decide, each under its name; no value is kept as it is, for it could be a secret. */
function describeSetup({ args, env }: BuildSetup): Readonly<Record<string, string>> {
  const found: Record<string, string> = { "the flags of go build": keyOf(args) };
  for (const name of Object.keys(env).sort()) {
    if (DECIDING.test(name) && !IDLE.has(name)) found[name] = keyOf(env[name]);
  }
  return found;
}

/** Go stamps programs of the modules that are worked on, not those of dependencies. */
function isStamped({ module }: Program): boolean {
  return module !== undefined && (module.main || module.version === undefined || module.local);
}

/** A script of a version manager, which chooses by files that only it knows. */
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

function explainGit(before: string, after: string): Reason {
  const [oldCommit, oldState] = before.split(" ");
  const [newCommit, newState] = after.split(" ");
  if (oldCommit !== newCommit) return { reason: "the git commit, which Go stamps into the program, is another" };
  if (oldState === newState) return { reason: "what git says of the work tree changed" };
  const now = newState === "changed" ? "is no longer clean" : "is clean now";
  return { reason: `the git work tree ${now}, which Go stamps into the program` };
}

/** Records are ours and carry their own digest: what is looked at here is only whether this version wrote them. */
function readRecord(value: unknown): BuildRecord | undefined {
  return isBuildRecord(value) ? value : undefined;
}

function isBuildRecord(value: unknown): value is BuildRecord {
  return isObject(value) && isObject(value["binary"]) && isObject(value["inputs"]) && "shared" in value;
}

function isFolders(value: unknown): value is Inputs["folders"] {
  return Array.isArray(value);
}
