/**
 * The cache of compiled binaries: a record for each program and platform names the inputs that decide its bytes.
 *
 * A record that is proved to hold needs no `go`: its key has the setup (build-inputs.ts), its inputs are files and the git
 * state (fingerprint-inputs.ts, git.ts). A build whose inputs cannot be proved is not recorded.
 */
import { dirname, join } from "node:path";
import { inBackground, once } from "./async.ts";
import { Confirmation, type Taken } from "./build-confirmation.ts";
import { BuildInputs, explainGit, type GitSeen, type ListDigest, type ListedInputs } from "./build-inputs.ts";
import {
  type BuildRecord,
  isBuildRecord,
  type KnownBinary,
  planAgain,
  type UnsharedRecord,
  type WithStart,
} from "./build-record.ts";
import { keptCommit, withoutStamp } from "./build-reuse.ts";
import { joinInputs, SharedInputs, type SharedTable, tableOf } from "./build-shared.ts";
import { type Cache, keyOf } from "./cache.ts";
import type { Reuse } from "./config-cache.ts";
import { isInside } from "./file.ts";
import { addWritten, confirmInputs, refreshInputs, takeInputs } from "./fingerprint-inputs.ts";
import { Prover } from "./fingerprint-prover.ts";
import { Looks, TICK_MS } from "./fingerprint.ts";
import type { GitStamp } from "./git-stamp.ts";
import type { Program } from "./go-programs.ts";
import { type BuildSetup, describeSetup, explainSetup, type Reason } from "./go-setup.ts";
import type { GoOptions, GoPackage, PackageList } from "./go.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";

export interface BuildCacheOptions {
  readonly cache: Cache;
  readonly host: Host;
  readonly log: Log;
  /** Name or path of the go command. */
  readonly go: string;
  /** Whether a binary that an older commit is stamped into counts. @default "commit" */
  readonly reuse?: Reuse;
}

/** The answer to {@link BuildCache.lookup}. */
export type Lookup = Hit | Miss;

/** The cached binary equals the one that a build would make. */
export interface Hit extends KnownBinary {
  readonly kind: "hit";
  readonly listDigest: ListDigest;
  /** The older commit that the binary is stamped with; undefined if a build of now has the same. */
  readonly commit?: string;
}

/** The program has to be compiled. */
export interface Miss {
  readonly kind: "miss";
  readonly program: Program;
  readonly setup: BuildSetup;
  readonly why: Reason;
  /** The last binary, for go to keep if it is up to date. */
  readonly previous: KnownBinary | undefined;
  /** The last record, and when it was looked up: its list may still hold. */
  readonly last: { readonly record: BuildRecord; readonly startedAt: number } | undefined;
}

/** The version of the shape of records. */
const FORMAT = 6;

/** Looks binaries up and records new ones, for one run. */
export class BuildCache {
  readonly inputs: BuildInputs;
  /** Files that this run has looked at. */
  readonly prover: Prover = new Prover();
  readonly #options: BuildCacheOptions;
  readonly #lookups = new Map<string, Promise<Lookup>>();
  readonly #shared: SharedInputs;
  readonly #began: { readonly clock: number; readonly steady: number };

  constructor(options: BuildCacheOptions) {
    this.#options = options;
    const { host } = options;
    this.inputs = new BuildInputs(options);
    this.#shared = new SharedInputs(options.cache);
    this.#began = { clock: host.now().getTime(), steady: host.monotonic() };
  }

  /**
   * Whether the clock was put back since the run began. Then file times do not tell which files changed meanwhile, and
   * nothing can be recorded.
   */
  isClockPutBack(): boolean {
    const { host } = this.#options;
    const steady = host.monotonic() - this.#began.steady;
    // A clock that is only slowed down cannot overtake anything.
    return host.now().getTime() - this.#began.clock < steady - TICK_MS - steady / 1000;
  }

  /** Looks a program up, and proves that its record still holds. A second call returns the same promise. */
  lookup(program: Program, setup: BuildSetup): Promise<Lookup> {
    const key = this.#key(program, setup);
    return once(this.#lookups, key, () => this.#lookup(program, { key, setup }));
  }

  /** Begins to record programs that go compiles together; reads the git state. */
  async record(misses: readonly Miss[]): Promise<Recording> {
    const known = misses.map(async ({ last, program, setup }) => {
      const git = this.inputs.readGit(program.dir, setup, last?.record.git?.stamp);
      await Promise.all([git, this.inputs.readAnswer(program.workDir, setup)]);
    });
    await Promise.all(known);
    return new Recording(misses, { builds: this, go: this.#options, host: this.#options.host, log: this.#options.log });
  }

  /** The digest of the list of a program's packages; undefined if its build could not be recorded. */
  async listDigest(
    program: Program,
    { packages, setup }: { readonly packages: readonly GoPackage[]; readonly setup: BuildSetup },
  ): Promise<ListDigest | undefined> {
    const answer = await this.inputs.readAnswer(program.workDir, setup);
    const found = this.inputs.listInputs(program, { packages, setup, answer });
    return "why" in found ? undefined : found.digest;
  }

  /** The inputs of the last build, if `go list` would print the same as then. */
  async relist({ last, program, setup }: Miss): Promise<(ListedInputs & WithStart) | undefined> {
    if (last === undefined || this.prover.findChange(last.record.inputs, new Set()) !== undefined) return undefined;
    if (!(await this.#isAnswered(last.record, { program, setup }))) return undefined;
    const { git } = last.record;
    return planAgain(last.record, {
      startedAt: last.startedAt,
      written: git && this.inputs.versionFiles(program, setup, git)?.dir,
    });
  }

  /**
   * Writes the record of a binary.
   *
   * @param options.together the shared inputs of all programs that were compiled together
   */
  write(
    program: Program,
    { record, setup, together }: { record: UnsharedRecord; setup: BuildSetup; together: () => SharedTable },
  ): void {
    const { cache } = this.#options;
    const { inputs, shared } = this.#shared.write(record, together);
    cache.write("build", this.#key(program, setup), { ...record, inputs, shared } satisfies BuildRecord);
    cache.write("setup", this.#placeKey(program, setup), describeSetup(setup));
  }

  async #lookup(
    program: Program,
    { key, setup }: { readonly key: string; readonly setup: BuildSetup },
  ): Promise<Lookup> {
    const { cache, host } = this.#options;
    const startedAt = host.now().getTime();
    const nothing = { kind: "miss", program, setup, previous: undefined, last: undefined } as const;
    if (setup.unrepeatable !== undefined) return { ...nothing, why: { reason: setup.unrepeatable } };
    const record = cache.read("build", key);
    if (!isBuildRecord(record)) return { ...nothing, why: this.#whyNoRecord(program, setup) };
    const { binary, list, tarSize } = record;
    const previous = cache.has(binary) ? { binary, tarSize } : undefined;
    const shared = this.#shared.read(record.shared);
    if (shared === undefined) return { ...nothing, why: { reason: "its record is damaged" }, previous };
    const inputs = joinInputs(record.inputs, shared);
    const whole = { ...record, inputs };
    let why = await this.#findDifference(whole, { program, setup });
    if (why !== undefined && this.#options.reuse === "code" && whole.git !== undefined) {
      const kept = await this.#findKept(whole, { git: whole.git, program, setup });
      if (typeof kept === "string" && previous !== undefined) {
        return { kind: "hit", ...previous, listDigest: list, commit: kept };
      }
      if (typeof kept === "object") why = kept;
    }
    if (why !== undefined || previous === undefined) {
      this.prover.noteNames(inputs);
      const reason = why ?? { reason: "the cached binary was removed or changed" };
      const kept = this.#areToolsChanged(whole) ? undefined : previous;
      return { kind: "miss", program, setup, why: reason, previous: kept, last: { record: whole, startedAt } };
    }
    const now = host.now().getTime();
    const better = { inputs: refreshInputs(record.inputs, now), shared: this.#shared.refresh(record.shared, now) };
    const stamp = record.git && (await this.#sameStamp(record.git, setup));
    const git = record.git && stamp && { ...record.git, stamp };
    const isSame = better.inputs === undefined && better.shared === undefined;
    if (!isSame || git?.stamp.mark !== record.git?.stamp.mark) {
      const { inputs: own = record.inputs, shared: part = record.shared } = better;
      cache.write("build", key, { ...record, inputs: own, shared: part, git });
    }
    return { kind: "hit", binary, tarSize, listDigest: list };
  }

  /** Whether a tool is another: go would keep a binary that it linked, because its build id says only which version it has. */
  #areToolsChanged({ common: [standard = ""], inputs }: BuildRecord): boolean {
    const tools = join(dirname(standard), "pkg");
    const files = inputs.files.filter(([path]) => isInside(path, tools));
    return this.prover.findChange({ files, folders: [], racy: [] }) !== undefined;
  }

  async #findDifference(
    record: BuildRecord,
    { program, setup }: { readonly program: Program; readonly setup: BuildSetup },
  ): Promise<Reason | undefined> {
    const { git, inputs } = record;
    // Git is asked before files are looked at, which keeps the processor busy.
    const state = git === undefined ? undefined : this.inputs.gitState(git.root, setup.env);
    const change = this.prover.findChange(inputs);
    if (change !== undefined) return { file: change.path, reason: change.what };
    if (git !== undefined && (await state) !== git.state) return explainGit(git.state, (await state) ?? "");
    if (git !== undefined && (await this.#sameStamp(git, setup)) === undefined) {
      return { reason: "the history or the tags of the git repository changed, from which Go makes a version" };
    }
    if (!(await this.#isAnswered(record, { program, setup }))) return { reason: "the go command chooses another Go" };
    return undefined;
  }

  /** The commit of a binary that is kept by `reuse: code`, or the input that has changed; undefined if it is another Go. */
  async #findKept(
    record: BuildRecord,
    { git, program, setup }: { readonly git: GitSeen; readonly program: Program; readonly setup: BuildSetup },
  ): Promise<string | Reason | undefined> {
    const written = this.inputs.versionFiles(program, setup, git)?.dir;
    const change = this.prover.findChange(withoutStamp(record.inputs, git, written));
    if (change !== undefined) return { file: change.path, reason: change.what };
    if (!(await this.#isAnswered(record, { program, setup }))) return undefined;
    return keptCommit(git, await this.inputs.gitState(git.root, setup.env));
  }

  #sameStamp({ root, stamp }: GitSeen, { env }: BuildSetup): Promise<GitStamp | undefined> {
    return this.inputs.sameStamp(root, { env, known: stamp });
  }

  async #isAnswered(
    { answer }: BuildRecord,
    { program, setup }: { readonly program: Program; readonly setup: BuildSetup },
  ): Promise<boolean> {
    if (answer === undefined) return true;
    return (await this.inputs.answer(program.workDir, setup.env))?.digest === answer;
  }

  /** Why there is no record: the setting that differs, if there is a record of another environment. */
  #whyNoRecord(program: Program, setup: BuildSetup): Reason {
    const why = this.inputs.whyUnknown(setup);
    if (why !== undefined) return { reason: why };
    const last = this.#options.cache.read("setup", this.#placeKey(program, setup));
    if (!isObject(last)) return { reason: "first build here" };
    return explainSetup(last, setup) ?? { reason: "the last build was not recorded" };
  }

  #key(program: Program, setup: BuildSetup): string {
    return keyOf([FORMAT, program.importPath, program.workDir, program.dir, this.inputs.go, describeSetup(setup)]);
  }

  #placeKey(program: Program, { env }: BuildSetup): string {
    return keyOf([program.importPath, program.workDir, env["GOOS"], env["GOARCH"], env["GOARM"], env["GOAMD64"]]);
  }
}

interface RecordingOptions {
  readonly builds: BuildCache;
  readonly go: GoOptions;
  readonly host: Host;
  readonly log: Log;
}

/**
 * Records the programs that one `go build` compiles: {@link BuildCache.record} before go is started, then `take()` while
 * go works, `confirm()` after go has ended well, and `commit()` for each binary when its tar is known.
 */
export class Recording {
  readonly #misses: readonly Miss[];
  readonly #options: RecordingOptions;
  readonly #taken = Promise.withResolvers<ReadonlyMap<Program, Taken>>();
  #together: SharedTable | undefined;
  /** Undefined if go failed. */
  readonly #confirmed = Promise.withResolvers<Confirmation | undefined>();

  constructor(misses: readonly Miss[], options: RecordingOptions) {
    this.#misses = misses;
    this.#options = options;
    void inBackground(this.#taken.promise);
  }

  /**
   * Looks at the inputs of all programs.
   *
   * Uses the lists of the last builds if `go list` would print the same again, else those that `list` returns.
   *
   * @returns the answer of `list` that is not a list, or undefined
   * @throws the failure of `list`
   */
  async take<T>(list: () => Promise<PackageList | T>): Promise<T | undefined> {
    try {
      const known = await this.#relistAll();
      const answer = known === undefined ? await list() : undefined;
      if (known !== undefined) this.#taken.resolve(await this.#takeAgain(known));
      else if (isPackageList(answer)) this.#taken.resolve(await this.#takeListed(answer));
      else this.#taken.resolve(new Map());
      return isPackageList(answer) ? undefined : answer;
    } catch (error) {
      this.#taken.reject(error);
      throw error;
    }
  }

  /** The digest of the list of a program's packages; undefined if that is not known. */
  async listDigest(program: Program): Promise<ListDigest | undefined> {
    const taken = await this.#taken.promise.catch(() => undefined);
    return taken?.get(program)?.list;
  }

  /** Go has ended well: looks again at the inputs that may change soon, and at git. */
  confirm(): void {
    const confirmation = new Confirmation(this.#options.go);
    void inBackground(this.#taken.promise.then((taken) => confirmation.begin(taken)));
    this.#confirmed.resolve(confirmation);
  }

  /** Go has failed: nothing is recorded. */
  cancel(): void {
    this.#confirmed.resolve(undefined);
  }

  /** Records a binary, if its inputs have not changed since go was started. Never throws. */
  async commit(program: Program, made: KnownBinary): Promise<void> {
    try {
      const confirmation = await this.#confirmed.promise;
      const taken = (await this.#taken.promise).get(program);
      if (confirmation === undefined || taken === undefined) return;
      const why = await this.#commit(program, { confirmation, made, taken });
      if (why !== undefined) this.#debug(program, why);
    } catch {
      // The failure of `list` is thrown by take().
    }
  }

  /** @returns why the binary was not recorded */
  async #commit(
    program: Program,
    options: { readonly confirmation: Confirmation; readonly made: KnownBinary; readonly taken: Taken },
  ): Promise<string | undefined> {
    const { builds, host } = this.#options;
    const { confirmation, made, taken } = options;
    const { answer, common, draft, git, list, setup } = taken;
    const { looks, prover } = confirmation;
    if (setup.unrepeatable !== undefined) return setup.unrepeatable;
    const inputs = confirmInputs(draft, { now: host.now().getTime(), prover, looks });
    if ("path" in inputs) return `${inputs.path} ${inputs.what} while it was compiled`;
    if (builds.isClockPutBack()) return "the clock was put back";
    if (git !== undefined && !(await confirmation.isSameGit(git, setup))) {
      return "the work tree changed while it was compiled";
    }
    if (answer !== undefined && (await confirmation.answer(program, setup)) !== answer) {
      return "the go command chose another Go meanwhile";
    }
    const written = git && builds.inputs.versionFiles(program, setup, git);
    const whole = written === undefined ? inputs : addWritten(inputs, written);
    const { binary, tarSize } = made;
    const all = [...(await this.#taken.promise).values()];
    const together = (): SharedTable =>
      (this.#together ??= tableOf(all.map((each) => ({ common: each.common, inputs: each.draft.inputs }))));
    builds.write(program, {
      setup,
      together,
      record: { binary, tarSize, list, inputs: whole, git, answer, common },
    });
    return undefined;
  }

  /** The lists of the last builds; undefined unless all of them hold. */
  async #relistAll(): Promise<ReadonlyMap<Program, ListedInputs & WithStart> | undefined> {
    const { builds } = this.#options;
    if (this.#misses.some(({ last }) => last === undefined)) return undefined;
    const lists = new Map<Program, ListedInputs & WithStart>();
    for (const miss of this.#misses) {
      const listed = await builds.relist(miss);
      if (listed === undefined) return undefined;
      lists.set(miss.program, listed);
    }
    return lists;
  }

  async #takeAgain(lists: ReadonlyMap<Program, ListedInputs & WithStart>): Promise<ReadonlyMap<Program, Taken>> {
    const taken = new Map<Program, Taken>();
    const looks = new Looks();
    for (const miss of this.#misses) {
      const listed = lists.get(miss.program);
      const found = listed && (await this.#take(miss, { listed, looks }));
      if (found !== undefined) taken.set(miss.program, found);
    }
    return taken;
  }

  async #takeListed({ packages, startedAt }: PackageList): Promise<ReadonlyMap<Program, Taken>> {
    const { builds } = this.#options;
    const taken = new Map<Program, Taken>();
    const looks = new Looks();
    for (const miss of this.#misses) {
      const { program, setup } = miss;
      const answer = await builds.inputs.readAnswer(program.workDir, setup);
      const told = { packages: packages.get(program.workDir) ?? [], setup, answer };
      const why = builds.inputs.whyUnknown(setup);
      const listed = why === undefined ? builds.inputs.listInputs(program, told) : { why };
      if ("why" in listed) {
        this.#debug(program, listed.why);
        continue;
      }
      const found = await this.#take(miss, { listed: { ...listed, startedAt }, looks });
      if (found !== undefined) taken.set(program, found);
    }
    // The output of `go list` is many times as large as the part that is kept, and the compiler takes its time.
    Bun.gc(true);
    return taken;
  }

  async #take(
    { last, program, setup }: Miss,
    { listed, looks }: { readonly listed: ListedInputs & WithStart; readonly looks: Looks },
  ): Promise<Taken | undefined> {
    const { builds, host } = this.#options;
    const known = last?.record.git?.stamp;
    const { answer, common, digest, gitRoot, plan, startedAt } = listed;
    if (builds.isClockPutBack()) {
      this.#debug(program, "the clock was put back");
      return undefined;
    }
    const draft = takeInputs(plan, { startedAt, now: host.now().getTime(), before: builds.prover, looks });
    if ("path" in draft) {
      this.#debug(program, `${draft.path} ${draft.what} just now`);
      return undefined;
    }
    const git = gitRoot === undefined ? undefined : await builds.inputs.seeGit(gitRoot, setup, known);
    return { answer, common, draft, git, list: digest, setup };
  }

  #debug({ importPath }: Program, why: string): void {
    this.#options.log.debug(`${importPath} is not recorded: ${why}`);
  }
}

function isPackageList(value: unknown): value is PackageList {
  return isObject(value) && value["packages"] instanceof Map;
}
