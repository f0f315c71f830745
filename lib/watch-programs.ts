/**
 * What `--watch` does in each round: build and publish the programs that are affected, and hand on what has changed.
 *
 * Everything else stays what the last rounds made it: references, and what was printed or given to kubectl. A round that
 * changes no reference hands nothing on.
 */
import type { BuildOptions } from "./cli-options.ts";
import type { Config } from "./config.ts";
import { CommandError, messageOf, UsageError } from "./errors.ts";
import { choosePrograms, type Program } from "./go-programs.ts";
import type { Host } from "./host.ts";
import { openSession, type PublishedProgram, type Session } from "./pipeline.ts";
import { listsWholeRun, planDestination } from "./publish-destination.ts";
import {
  publishReferences,
  putReferences,
  type Reading,
  readReferences,
  throwProblems,
  warnOfPulls,
} from "./resolve.ts";
import { joinPlaces, type Places } from "./watch-places.ts";
import { planArguments, planConfig, planInputs, planKodata, planPatterns, planProgram } from "./watch-plan.ts";
import { formatCount } from "./watch-screen.ts";
import { Hopeless, type Round, type WatchJob } from "./watch.ts";
import { type Input, type InputRequest, isUrl, readInputs } from "./yaml-inputs.ts";
import { findObjects } from "./yaml-objects.ts";
import { renderDocument, type YamlDocument } from "./yaml.ts";

export interface JobOptions {
  /** The flags, checked. */
  readonly build: BuildOptions;
  readonly loadConfig: (host: Host) => Promise<Config>;
}

export interface BuildJobOptions extends JobOptions {
  readonly args: readonly string[];
}

export interface YamlJobOptions extends JobOptions {
  readonly request: InputRequest;
  readonly selector: string;
  readonly strict: boolean;
  /** What becomes of documents. What is "printed" leaves nothing behind in a cluster. */
  readonly verb: "printed" | "applied" | "created";
  /** Gets the documents that changed; whether they were taken is known when it ends. */
  readonly handOver: (documents: readonly YamlDocument[], round: Round) => Promise<void>;
}

/** The programs that are published again and again, and what is watched of them. */
class Programs {
  readonly #options: JobOptions;
  readonly #published = new Map<string, PublishedProgram>();
  /** What is watched of each program: what it is compiled from, what stands for the list that this comes from, kodata. */
  readonly #places = new Map<
    string,
    { readonly sources: Places; readonly list: string | undefined; readonly kodata: Places }
  >();
  /** It was not known last which programs the arguments name. */
  #isSearching = false;

  constructor(options: JobOptions) {
    this.#options = options;
  }

  /** Files list all images of a run: then all programs are published in each round. */
  get isWhole(): boolean {
    const { files, imageRefs } = this.#options.build.publish;
    return imageRefs !== undefined || files.some(listsWholeRun);
  }

  has(importPath: string): boolean {
    return this.#published.has(importPath);
  }

  /**
   * Opens a session, publishes through it, and finds out what is to be watched from now on, also if that fails.
   *
   * @param options.args what names all programs
   * @param options.mayLeave arguments that name no program are left as they are
   * @param options.isWhole all arguments are looked at, not only those whose programs are affected
   * @param options.publish gets the session; tells `found` which programs there are, and returns what was published
   * @param options.handOn hands on what was published, before what is to be watched is asked for
   */
  async run(
    round: Round,
    options: {
      readonly args: readonly string[];
      readonly mayLeave?: boolean;
      readonly isWhole: boolean;
      readonly publish: (
        session: Session,
        found: (all: readonly Program[]) => void,
      ) => Promise<readonly PublishedProgram[]>;
      readonly handOn: (session: Session) => Promise<void>;
    },
  ): Promise<void> {
    let all: readonly Program[] = [];
    let lists: ReadonlyMap<string, string | undefined> = new Map();
    let early: Promise<void> | undefined;
    round.mayPass(true);
    const session = await this.#open(round);
    try {
      round.mayPass(false);
      const publishing = options.publish(session, (found) => {
        all = found;
        // A change while they are compiled is noticed as soon as it is known what that is.
        if (session.dependencies().length > 0) early = this.#plan(round, { ...options, session, all });
        early?.catch(() => {});
        // They can be built, as far as can be told without building: what fails then is not in these files.
        round.mayPass(true);
      });
      const published = await publishing.catch((error: unknown) => {
        // Of the compiler, they are.
        if (error instanceof CommandError) round.mayPass(false);
        throw error;
      });
      lists = new Map(published.map(({ listDigest, program }) => [program.importPath, listDigest]));
      round.commit();
      this.#note(round, published);
      await options.handOn(session);
    } finally {
      try {
        await early;
        lists = await this.#ask(round, { ...options, session, all, lists });
        await this.#plan(round, { ...options, session, all, lists });
      } finally {
        await session[Symbol.asyncDispose]();
      }
    }
  }

  /** Forgets programs that nothing names any more. */
  keepOnly(importPaths: ReadonlySet<string>): void {
    for (const map of [this.#published, this.#places]) {
      for (const importPath of map.keys()) if (!importPaths.has(importPath)) map.delete(importPath);
    }
  }

  async #open({ cache, host, log, timing }: Round): Promise<Session> {
    const { build, loadConfig } = this.#options;
    try {
      cache.get();
      await planDestination(build.publish, { dockerRepo: host.env["KO_DOCKER_REPO"] || undefined, cwd: host.cwd });
    } catch (error) {
      throw error instanceof UsageError ? new Hopeless(error) : error;
    }
    return openSession({ cache, host, log, timing, config: await loadConfig(host), build });
  }

  #note(round: Round, published: readonly PublishedProgram[]): void {
    const changes = published.map(({ program: { importPath }, reference }) => {
      return { importPath, before: this.#published.get(importPath)?.reference, after: reference };
    });
    for (const each of published) this.#published.set(each.program.importPath, each);
    if (changes.length > 0) round.tellPrograms(changes);
  }

  /** Asks go about what was proved unchanged, if that is not what is watched. @returns what still stands for lists */
  async #ask(
    { host, log }: Round,
    {
      all,
      isWhole,
      lists,
      mayLeave = false,
      session,
    }: {
      readonly session: Session;
      readonly isWhole: boolean;
      readonly mayLeave?: boolean;
      readonly all: readonly Program[];
      readonly lists: ReadonlyMap<string, string | undefined>;
    },
  ): Promise<ReadonlyMap<string, string | undefined>> {
    if (host.signal.aborted) return lists;
    const isUnknown = ({ importPath }: Program): boolean => {
      const known = this.#places.get(importPath);
      // Of a failure go has told already, if it could tell anything new.
      if (known === undefined || !lists.has(importPath)) return known === undefined;
      return lists.get(importPath) === undefined || lists.get(importPath) !== known.list;
    };
    const unknown = all.filter(isUnknown);
    const told = session.dependencies().length;
    let asked: ReadonlyMap<string, string> = new Map();
    // What is no program yet could become one.
    const isOpen = all.length === 0 || (isWhole && mayLeave && told === 0);
    if (unknown.length === 0 && !isOpen) return lists;
    try {
      asked = await session.askDependencies(isOpen ? [] : unknown);
    } catch (error) {
      host.signal.throwIfAborted();
      log.debug(`What to watch is not known: ${messageOf(error)}`);
    }
    // Something may have changed since it was built: that is another list then.
    const late = new Set(
      session
        .dependencies()
        .slice(told)
        .flatMap((list) => list.map(({ importPath }) => importPath)),
    );
    return new Map([...lists].filter(([path, list]) => !late.has(path) || asked.get(path) === list));
  }

  async #plan(
    round: Round,
    options: {
      readonly args: readonly string[];
      readonly mayLeave?: boolean;
      readonly session: Session;
      readonly all: readonly Program[];
      readonly isWhole: boolean;
      readonly lists?: ReadonlyMap<string, string | undefined>;
    },
  ): Promise<void> {
    const { all, args, isWhole, lists, mayLeave = false, session } = options;
    const { host } = round;
    if (host.signal.aborted) return;
    const packages = session.dependencies();
    const listed = new Set(packages.flatMap((list) => list.map(({ importPath }) => importPath)));
    for (const program of all) {
      const { dir, importPath } = program;
      const known = listed.has(importPath)
        ? { sources: planProgram(program, packages, host), list: lists?.get(importPath) }
        : this.#places.get(importPath);
      if (known !== undefined) this.#places.set(importPath, { ...known, kodata: planKodata(dir, host) });
    }
    const programs = new Map(
      Array.from(this.#places, ([importPath, { kodata, sources }]) => [importPath, joinPlaces([sources, kodata])]),
    );
    if (all.length === 0) {
      this.#isSearching = true;
      await round.watch({ programs, args: planArguments(args, packages, host) });
    } else if (isWhole || (this.#isSearching && !mayLeave)) {
      this.#isSearching = false;
      await round.watch({ programs, args: mayLeave ? planArguments(args, packages, host) : planPatterns(args, host) });
    } else await round.watch({ programs });
  }
}

/** `ko build --watch`: prints the references that changed. */
export class BuildJob implements WatchJob {
  readonly #options: BuildJobOptions;
  readonly #programs: Programs;
  /** References as they were printed last. */
  readonly #printed = new Map<string, string>();

  constructor(options: BuildJobOptions) {
    this.#options = options;
    this.#programs = new Programs(options);
  }

  async run(round: Round): Promise<void> {
    const { args } = this.#options;
    const { due, host } = round;
    await round.watch({ config: planConfig(host), ...(due.everything ? { args: planArguments(args, [], host) } : {}) });
    let published: readonly PublishedProgram[] = [];
    const isDue = ({ importPath }: Program): boolean =>
      due.everything || this.#programs.isWhole || due.programs.has(importPath) || !this.#programs.has(importPath);
    return this.#programs.run(round, {
      args,
      isWhole: due.everything || due.args,
      publish: async (session, found) => {
        ({ published } = await session.publish(args, (list) => {
          const all = choosePrograms(list);
          found(all);
          this.#programs.keepOnly(new Set(all.map(({ importPath }) => importPath)));
          return { programs: all.filter(isDue) };
        }));
        return published;
      },
      handOn: async () => {
        const changed = published.filter(
          ({ program, reference }) => this.#printed.get(program.importPath) !== reference,
        );
        if (changed.length > 0) await round.patientHost.out(changed.map(({ reference }) => `${reference}\n`).join(""));
        for (const { program, reference } of changed) this.#printed.set(program.importPath, reference);
        if (changed.length > 0) round.end(`printed ${formatCount(changed.length, "reference")}`);
        else round.end(published.length > 0 ? "nothing new" : "");
      },
    });
  }
}

/** What was handed over of a file. */
interface Handed {
  readonly bytes: Uint8Array;
  readonly documents: readonly { readonly source: YamlDocument; readonly text: string }[];
}

/** `ko resolve`, `apply` and `create` with `--watch`. */
export class YamlJob implements WatchJob {
  readonly #options: YamlJobOptions;
  readonly #programs: Programs;
  readonly #kept = new Map<string, Uint8Array>();
  readonly #images = new Map<string, PublishedProgram>();
  /** Values that were looked at, also those that are left as they are. */
  #values: ReadonlySet<string> = new Set();
  /** Undefined after a failure to read. */
  #inputs: readonly Input[] | undefined;
  #reading: Reading | undefined;
  readonly #handed = new Map<string, Handed>();

  constructor(options: YamlJobOptions) {
    this.#options = options;
    this.#programs = new Programs(options);
  }

  async run(round: Round): Promise<void> {
    const { strict } = this.#options;
    const { due, host, log } = round;
    await round.watch({ config: planConfig(host), yaml: planInputs(this.#options.request, host) });
    const reading = await this.#read(round);
    const values = [...reading.places.keys()];
    const isNew = values.some((value) => !this.#values.has(value));
    // Names are checked against each other: with a new one, all of them.
    const isWhole = due.everything || due.args || isNew || this.#programs.isWhole;
    const wanted = values.filter((value) => {
      const importPath = this.#images.get(value)?.program.importPath;
      return isWhole || (importPath !== undefined && due.programs.has(importPath));
    });
    if (wanted.length === 0) {
      throwProblems(reading);
      round.commit();
      this.#forget(values);
      return this.#handOver(reading, round);
    }
    return this.#programs.run(round, {
      args: values,
      mayLeave: !strict,
      isWhole,
      publish: async (session, found) => {
        const publishing: Pick<Session, "publish"> = {
          publish: (args, choose) =>
            session.publish(args, (list) => {
              const choice = choose(list);
              found(choice.programs);
              return choice;
            }),
        };
        const images = await publishReferences(reading, { session: publishing, strict, values: wanted });
        for (const [value, published] of images) this.#images.set(value, published);
        this.#values = new Set(values);
        return [...new Map(Array.from(images.values(), (each) => [each.program.importPath, each])).values()];
      },
      handOn: async (session) => {
        if (session.sideLoads) await warnOfPulls(reading.referring, log);
        this.#forget(values);
        return this.#handOver(reading, round);
      },
    });
  }

  async #read(round: Round): Promise<Reading> {
    const { request, selector } = this.#options;
    const { cache, due, host, log, timing } = round;
    if (this.#reading !== undefined && !due.everything && !due.yaml) return this.#reading;
    this.#reading = undefined;
    // What is not on this machine may come back by itself.
    round.mayPass(request.kustomize !== undefined || request.files.some(isUrl));
    const inputs = await timing.time("read", request.files.join(" "), () =>
      readInputs(request, { host, log, signal: host.signal, kept: this.#kept }),
    );
    const reading = await readReferences(inputs, { selector, records: cache.get() });
    round.mayPass(false);
    this.#inputs = inputs;
    if (reading.problems.length > 0) return reading;
    await this.#tellRemoved(reading, round);
    return (this.#reading = reading);
  }

  /** Hands over the documents of files that changed, and those whose references did. */
  async #handOver(reading: Reading, round: Round): Promise<void> {
    const inputs = new Map((this.#inputs ?? []).map(({ name, bytes }) => [nameFile(name), bytes]));
    const byFile = Map.groupBy(reading.referring, ({ document }) => document.file);
    const changed: YamlDocument[] = [];
    const handed = new Map<string, Handed>();
    for (const [file, referring] of byFile) {
      const bytes = inputs.get(file) ?? new Uint8Array();
      const before = this.#handed.get(file);
      const isSame = before !== undefined && Buffer.compare(before.bytes, bytes) === 0;
      const documents = referring.map((each, i) => {
        const document = putReferences(each, (value) => this.#images.get(value)?.reference);
        const text = renderDocument(document);
        if (!isSame || before.documents[i]?.text !== text) changed.push(document);
        return { source: each.document, text };
      });
      handed.set(file, { bytes, documents });
    }
    const { handOver, verb } = this.#options;
    if (changed.length > 0) await handOver(changed, round);
    this.#setHanded(handed);
    round.end(changed.length > 0 ? `${verb} ${formatCount(changed.length, "document")}` : "nothing new");
  }

  #setHanded(handed: ReadonlyMap<string, Handed>): void {
    this.#handed.clear();
    for (const [file, each] of handed) this.#handed.set(file, each);
  }

  /** Documents that were handed over and are no more. */
  async #tellRemoved({ referring }: Reading, round: Round): Promise<void> {
    if (this.#options.verb === "printed") return;
    const texts = new Set(referring.map(({ document }) => `${document.file}\n${document.text}`));
    const gone = [...this.#handed].flatMap(([file, { documents }]) =>
      documents.map(({ source }) => source).filter(({ text }) => !texts.has(`${file}\n${text}`)),
    );
    if (gone.length === 0) return;
    const known = new Set(
      [...this.#handed].flatMap(([file, { documents }]) => documents.map(({ source }) => `${file}\n${source.text}`)),
    );
    const added = referring.filter(({ document }) => !known.has(`${document.file}\n${document.text}`));
    const there = new Set((await Promise.all(added.map(({ document }) => findObjects(document)))).flat());
    for (const document of gone) {
      for (const object of await findObjects(document)) {
        if (!there.has(object)) round.tell(`${object} is no longer in ${document.file}: it is left in the cluster`);
      }
    }
    // Told once, whatever becomes of this round.
    const left = new Set(gone);
    for (const [file, { documents }] of this.#handed) {
      const kept = documents.filter(({ source }) => !left.has(source));
      if (kept.length < documents.length) this.#handed.set(file, { bytes: new Uint8Array(), documents: kept });
    }
  }

  #forget(values: readonly string[]): void {
    const named = new Set(values);
    for (const value of this.#images.keys()) if (!named.has(value)) this.#images.delete(value);
    this.#values = named;
    this.#programs.keepOnly(new Set(Array.from(this.#images.values(), ({ program }) => program.importPath)));
  }
}

/** As documents name their file. */
function nameFile(name: string): string {
  return name === "-" ? "<stdin>" : name;
}
