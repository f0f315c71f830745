/**
 * The job of `resolve`, `apply` and `create` with `--watch`: a round hands over the documents that changed, to stdout as
 * one endless YAML stream or to a kubectl of their own.
 */
import { formatCount } from "./log.ts";
import { ClusterError, KoError, messageOf } from "./errors.ts";
import type { LogFollower } from "./follow.ts";
import type { Host } from "./host.ts";
import { findKubectl, runKubectl } from "./kubectl.ts";
import { type Log, RunWarnings } from "./log.ts";
import type { PublishedProgram } from "./pipeline.ts";
import { undoKilledSwaps } from "./rollout-swap-undo.ts";
import type { RolloutTeller } from "./rollout-watch.ts";
import {
  findMissing,
  logDebugged,
  publishReferences,
  textOf,
  putReferences,
  type Reading,
  readReferences,
  throwProblems,
  warnOfPulls,
} from "./resolve.ts";
import { redactIfUrl } from "./url.ts";
import type { WatchPlan } from "./watch-places.ts";
import { planConfig, planInputs } from "./watch-plan.ts";
import { type JobOptions, notesOf, WatchedPrograms } from "./watch-programs.ts";
import type { Due, RoundContext, WatchJob } from "./watch.ts";
import { nameOf } from "./yaml-fragments.ts";
import { type Input, type InputRequest, readInputs } from "./yaml-inputs.ts";
import { findObjects } from "./yaml-objects.ts";
import { joinDocuments, renderDocument, type YamlDocument } from "./yaml.ts";

export interface YamlJobOptions extends JobOptions {
  readonly request: InputRequest;
  readonly selector: string;
  readonly strict: boolean;
  /** As in `ResolveOptions`. @default none */
  readonly place?: readonly string[] | undefined;
  /** For the summary of a round. "printed" documents leave nothing behind in a cluster. */
  readonly verb: "printed" | "applied" | "created";
  readonly handOver: HandOver;
  /** Learns the images. @default none */
  readonly logs?: Pick<LogFollower, "know"> | undefined;
}

/** A document to hand over. */
export interface DocumentChange {
  /** With image references. */
  readonly document: YamlDocument;
  /** Its text when it was handed over last; undefined for a document that is new, or whose file has changed. */
  readonly before: string | undefined;
}

/**
 * Hands over the documents that changed.
 *
 * @returns a summary of the round; undefined for the usual one
 * @throws If the receiver does not take them.
 */
export type HandOver = (changes: readonly DocumentChange[], context: RoundContext) => Promise<string | undefined>;

export interface FeederOptions {
  readonly command: "apply" | "create";
  /** Arguments of kubectl behind `apply -f -`. */
  readonly words: readonly string[];
  readonly log: Log;
  /** Tells how the rollout goes on. @default none */
  readonly teller?: Pick<RolloutTeller, "follow"> | undefined;
  /** Shows the logs of the programs. @default none */
  readonly logs?: Pick<LogFollower, "follow"> | undefined;
}

/** The result of a build: the documents and the programs published for them in this round. */
interface YamlResult {
  readonly reading: Reading;
  readonly published: readonly PublishedProgram[];
  /** The images are in a daemon or a cluster's nodes only. */
  readonly sideLoads: boolean;
}

/** The documents of one file as last handed over. */
interface Handed {
  readonly bytes: Uint8Array;
  readonly documents: readonly { readonly source: YamlDocument; readonly text: string }[];
}

/** `ko resolve`, `apply` and `create` with `--watch`. */
export class YamlJob implements WatchJob<YamlResult> {
  readonly #options: YamlJobOptions;
  readonly #programs: WatchedPrograms;
  /** Inputs that can be read only once, such as stdin. */
  readonly #kept = new Map<string, Uint8Array>();
  /** The published program of each `ko://` value. */
  readonly #images = new Map<string, PublishedProgram>();
  /** All `ko://` values of the last build, also those that name no program. */
  #values: ReadonlySet<string> = new Set();
  #inputs: readonly Input[] = [];
  /** Undefined if the files must be read again. */
  #reading: Reading | undefined;
  /** Lines about missing references that the last reading showed. */
  #missing: readonly string[] = [];
  /** The import paths of the programs whose commands for a debugger were shown: they stay the same. */
  readonly #attachable = new Set<string>();
  /** By file. */
  readonly #handed = new Map<string, Handed>();

  constructor(options: YamlJobOptions) {
    this.#options = options;
    this.#programs = new WatchedPrograms(options);
  }

  async build(due: Due, context: RoundContext): Promise<YamlResult> {
    const { request, strict } = this.#options;
    const { host } = context;
    await context.watch({ config: planConfig(host), yaml: planInputs(request, host) });
    const reading = await this.#read(due, context);
    const values = [...reading.occurrences.keys()];
    const isNew = values.some((value) => !this.#values.has(value));
    // A new value may collide with the image name of an old one: all are checked together.
    const isWhole = due.everything || due.args || isNew || this.#programs.isWhole;
    const wanted = values.filter((value) => {
      const importPath = this.#images.get(value)?.program.importPath;
      return isWhole || (importPath !== undefined && due.programs.has(importPath));
    });
    if (wanted.length === 0) {
      throwProblems(reading);
      return { reading, published: [], sideLoads: false };
    }
    const pipeline = await this.#programs.open(context, {
      args: [...new Set(values.map(nameOf))],
      isWhole,
      mayLeave: !strict,
    });
    const images = await publishReferences(reading, { pipeline, strict, values: wanted });
    for (const [value, published] of images) this.#images.set(value, published);
    this.#values = new Set(values);
    const published = new Map(Array.from(images.values(), (each) => [each.program.importPath, each]));
    return { reading, published: [...published.values()], sideLoads: pipeline.sideLoads };
  }

  async deliver({ reading, published, sideLoads }: YamlResult, context: RoundContext): Promise<string> {
    context.showPrograms(this.#programs.note(published));
    if (sideLoads) await warnOfPulls(reading.referring, { log: context.log, signal: context.host.signal });
    const isNew = ({ program: { importPath } }: PublishedProgram): boolean =>
      published.some((each) => each.program.importPath === importPath) && !this.#attachable.has(importPath);
    const images = new Map([...this.#images].filter(([, each]) => isNew(each)));
    await logDebugged(reading.referring, { images, log: notesOf(context), place: this.#options.place });
    for (const { program } of images.values()) this.#attachable.add(program.importPath);
    this.#keepOnly([...reading.occurrences.keys()]);
    for (const { program, reference } of this.#images.values()) this.#options.logs?.know(reference, program.importPath);
    return this.#handOver(reading, context);
  }

  places(result: YamlResult | undefined, context: RoundContext): Promise<Partial<WatchPlan>> {
    return this.#programs.places(result?.published, context);
  }

  async #read(due: Due, context: RoundContext): Promise<Reading> {
    const { request, selector } = this.#options;
    const { cache, host, log, timing } = context;
    if (this.#reading !== undefined && !due.everything && !due.yaml) return this.#reading;
    this.#reading = undefined;
    const inputs = await timing.time("read", request.files.map(redactIfUrl).join(" "), () =>
      readInputs(request, { host, log, signal: host.signal, kept: this.#kept }),
    );
    const reading = await readReferences(inputs, { selector, records: cache.get(), signal: host.signal });
    this.#inputs = inputs;
    const warnings = new RunWarnings(log, this.#missing);
    const missing = await findMissing(reading, { selector, signal: host.signal });
    warnings.warn(missing.map(({ line }) => line));
    this.#missing = warnings.lines;
    if (reading.problems.length > 0) return reading;
    await this.#noteRemoved(reading, context);
    return (this.#reading = reading);
  }

  /** Hands over the documents of changed files, and the documents with changed references. @returns the summary */
  async #handOver(reading: Reading, context: RoundContext): Promise<string> {
    const inputs = new Map(this.#inputs.map(({ name, bytes }) => [nameFile(name), bytes]));
    const changed: DocumentChange[] = [];
    const handed = new Map<string, Handed>();
    for (const [file, referring] of Map.groupBy(reading.referring, ({ document }) => document.file)) {
      const bytes = inputs.get(file) ?? new Uint8Array();
      const before = this.#handed.get(file);
      const isSame = before !== undefined && Buffer.compare(before.bytes, bytes) === 0;
      const documents = referring.map((each, i) => {
        const document = putReferences(each, (value) => textOf(value, this.#images));
        const text = renderDocument(document);
        const last = isSame ? before.documents[i]?.text : undefined;
        if (last !== text) changed.push({ document, before: last });
        return { source: each.document, text };
      });
      handed.set(file, { bytes, documents });
    }
    const { handOver, verb } = this.#options;
    const summary = changed.length > 0 ? await handOver(changed, context) : "nothing new";
    this.#handed.clear();
    for (const [file, each] of handed) this.#handed.set(file, each);
    return summary ?? `${verb} ${formatCount(changed.length, "document")}`;
  }

  /** Shows which objects stay in the cluster although their documents are gone from the input. */
  async #noteRemoved({ referring }: Reading, context: RoundContext): Promise<void> {
    if (this.#options.verb === "printed") return;
    const texts = new Set(referring.map(({ document }) => keyOf(document)));
    const known = [...this.#handed.values()].flatMap(({ documents }) => documents.map(({ source }) => source));
    const gone = new Set(known.filter((document) => !texts.has(keyOf(document))));
    if (gone.size === 0) return;
    const knownTexts = new Set(known.map(keyOf));
    const added = referring.filter(({ document }) => !knownTexts.has(keyOf(document)));
    const { signal } = context.host;
    const present = new Set<string>();
    for (const { document } of added) for (const object of await findObjects(document, signal)) present.add(object);
    for (const document of gone) {
      for (const object of await findObjects(document, signal)) {
        if (present.has(object)) continue;
        context.showNote(`${object} is no longer in ${document.file}: it is left in the cluster`);
      }
    }
    // Shown once, even if this round fails.
    for (const [file, { documents }] of this.#handed) {
      const kept = documents.filter(({ source }) => !gone.has(source));
      if (kept.length < documents.length) this.#handed.set(file, { bytes: new Uint8Array(), documents: kept });
    }
  }

  /** Forgets the images of all `ko://` values but these. */
  #keepOnly(values: readonly string[]): void {
    const kept = new Set(values);
    for (const value of this.#images.keys()) if (!kept.has(value)) this.#images.delete(value);
    this.#values = kept;
    this.#programs.keepOnly(Array.from(this.#images.values(), ({ program }) => program.importPath));
  }
}

/**
 * Prints the documents of each round with a `---` line behind them, which tells a reader of the stream that the documents
 * are complete. The output of all rounds together is one YAML stream at any time.
 */
export function createPrinter(): HandOver {
  let isFirst = true;
  return async (changes, { host }) => {
    const documents = changes.map(({ document }) => document);
    const text = formatRound(documents, isFirst);
    isFirst = false;
    await host.out(text);
    return undefined;
  };
}

/** Returns the text of one round. It follows the `---` line of the round before, unless it is the first. */
export function formatRound(documents: readonly YamlDocument[], isFirst: boolean): string {
  const joined = joinDocuments(documents);
  const [first] = documents;
  const complete = `${joined}${joined.endsWith("\n") ? "" : "\n"}---\n`;
  if (isFirst || first === undefined) return complete;
  // Directives such as %YAML must follow the end of a document.
  if (first.directives) return `...\n${complete}`;
  // The round before has printed the first `---` line.
  return first.marker === 0 ? complete.replace(/^---[ \t]*\r?\n/, "") : complete;
}

/**
 * Runs one kubectl for each round. Its output is shown as it comes; in a retry only if it differs from the last output.
 *
 * @throws {KoError} If kubectl is not on PATH.
 */
export function createFeeder(host: Host, options: FeederOptions): HandOver {
  findKubectl(host);
  const { command, log, logs, teller, words } = options;
  const args = [command, "-f", "-", ...words];
  // To create objects again fails for those that exist by now.
  const transient = command === "apply";
  let lastErrors = "";
  let isFirst = true;
  return async (changes, context) => {
    const { isRetry, timing } = context;
    const yaml = joinDocuments(changes.map(({ document }) => document));
    const stdin = new TextEncoder().encode(yaml);
    const held: (string | Uint8Array)[] = [];
    let errors = "";
    let said = "";
    if (!isRetry) context.showCause();
    const run = (): Promise<number> =>
      runKubectl(context.host, args, {
        log,
        stdin,
        onOutput: (chunk) => {
          if (said.length < MAX_SAID) said += new TextDecoder().decode(chunk);
          return isRetry ? held.push(chunk) : context.host.out(chunk);
        },
        onError: (text) => {
          errors += text;
          if (isRetry) held.push(text);
          else context.host.err(text);
        },
      });
    let code: number | undefined;
    try {
      code = await timing.time("kubectl", command, run);
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      throw new KoError(messageOf(error), { cause: error, transient });
    } finally {
      if (code === 0 || errors !== lastErrors) {
        if (held.length > 0) context.showCause();
        for (const each of held) {
          if (typeof each === "string") context.host.err(each);
          else await context.host.out(each);
        }
      }
      lastErrors = errors;
    }
    if (code !== 0) {
      const isTransient = transient && !HOPELESS.test(errors);
      throw new ClusterError(`kubectl ${command} failed with exit code ${code}`, { transient: isTransient });
    }
    if (isFirst) await undoKilledSwaps(context.host, { log: context.log, words });
    isFirst = false;
    teller?.follow({ text: yaml, host: context.host, log: context.log, waits: context.waits });
    logs?.follow({ text: yaml, said, log: context.log, showLogs: context.showLogs });
    return undefined;
  };
}

/** Characters of kubectl's output that are searched for names: lines of some ten thousand objects. */
const MAX_SAID = 4 * 1024 * 1024;

/** Complaints of kubectl that hold until a file or a flag changes: the same objects are not applied again. */
const HOPELESS =
  /^(?:[Ee]rror: (?:unknown (?:shorthand )?flag|invalid argument |context "|error validating |error parsing )|Error in configuration|The \S+ "[^"]*" is invalid)/m;

/** Two documents with the same key are the same document of the same file. */
function keyOf({ file, text }: YamlDocument): string {
  return `${file}\n${text}`;
}

/** Returns the name that documents of an input have as their file. */
function nameFile(name: string): string {
  return name === "-" ? "<stdin>" : name;
}
