/**
 * Replaces every `ko://` string in YAML by the reference of a published image; builds and publishes each program once.
 *
 * All bad references are reported together, with file, line and column, before anything is built. All other bytes and the
 * order of documents stay.
 */
import { Pace } from "./async.ts";
import type { Records } from "./cache.ts";
import { KoError, KoErrors, messageOf, ProgramError, showInvisible, throwAll } from "./errors.ts";
import type { FoundPrograms, Program } from "./go-programs.ts";
import type { Placement, PodsOf } from "./kubectl-nodes.ts";
import type { Log } from "./log.ts";
import type { Choice, Pipeline, PublishedProgram } from "./pipeline.ts";
import type { Input } from "./yaml-inputs.ts";
import { findAlwaysPulled, findSlips } from "./yaml-images.ts";
import { findMovable, fragmentOf, nameOf, textFor, whyBadFragment } from "./yaml-fragments.ts";
import { filterDocuments } from "./yaml-objects.ts";
import { findReferences, replaceReferences, type YamlReference } from "./yaml-references.ts";
import { addBroken, joinDocuments, splitStream, type YamlDocument } from "./yaml.ts";

export interface ResolveOptions {
  readonly log: Log;
  /** `--selector`; empty keeps every document. */
  readonly selector: string;
  /** False leaves a `ko://` string that names no main package as it is, with a warning. */
  readonly strict: boolean;
  /** A cache of the references of documents. */
  readonly records: Records | undefined;
  /** For the commands of `--debug`: arguments of kubectl, of `placeArguments()`. @default none */
  readonly place?: readonly string[] | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called only if there is a reference. */
  readonly openPipeline: () => Promise<Pipeline>;
}

/** A document with its `ko://` strings. */
export interface Referring {
  readonly document: YamlDocument;
  readonly references: readonly YamlReference[];
}

/** One place of a `ko://` value in the input. */
export interface Occurrence {
  readonly file: string;
  readonly reference: YamlReference;
  /** The position in the input: a later occurrence has a higher number. */
  readonly order: number;
}

/** A bad document or reference, and its place in the order of the input. */
export interface Problem {
  readonly order: number;
  readonly error: KoError;
}

/** A reference that names no program. */
export interface BadReference extends Problem {
  readonly file: string;
  readonly reference: YamlReference;
}

/** A line about references that the input probably lacks. */
export interface Missing {
  /** "slip": an image that looks like a mistyped `ko://` reference. "nothing": there is no reference at all. */
  readonly kind: "slip" | "nothing";
  readonly line: string;
}

/** The warning for an `imagePullPolicy` beside an image that only a daemon or a cluster has: Kubernetes cannot pull it. */
export const ALWAYS_PULLED = '"imagePullPolicy: Always" cannot find an image that is in no registry; use IfNotPresent';

/** The documents of all inputs, not resolved yet. */
export interface Reading {
  /** In input order. */
  readonly referring: readonly Referring[];
  /** By `ko://` value, in input order. */
  readonly occurrences: ReadonlyMap<string, readonly Occurrence[]>;
  /** Documents that cannot be read. */
  readonly problems: readonly Problem[];
}

/**
 * Returns the text of all documents that the selector selects, with image references.
 *
 * @param inputs in the order of the output
 * @throws {KoErrors} With every bad document and reference, before anything is built. If `strict` is false, a bad
 *   reference is a warning instead.
 * @throws {KoError} If the only bad document is not YAML, or a program cannot be built or published.
 */
export async function resolveInputs(inputs: readonly Input[], options: ResolveOptions): Promise<string> {
  const reading = await readReferences(inputs, options);
  for (const { line } of await findMissing(reading, options)) options.log.warn(line);
  const { occurrences, referring } = reading;
  if (occurrences.size === 0) {
    throwProblems(reading);
    return joinDocuments(referring.map(({ document }) => document));
  }
  await using pipeline = await options.openPipeline();
  const images = await publishReferences(reading, { ...options, pipeline, values: [...occurrences.keys()] });
  if (pipeline.sideLoads) await warnOfPulls(referring, options);
  await logDebugged(referring, { ...options, images });
  return joinDocuments(referring.map((each) => putReferences(each, (value) => textOf(value, images))));
}

/**
 * Splits inputs into documents and finds their `ko://` strings. A file or document that is not YAML becomes a problem of
 * the reading, so that it is reported together with bad references.
 *
 * @throws {KoError} If the selector cannot be applied, or very many documents are broken.
 */
export async function readReferences(
  inputs: readonly Input[],
  { records, selector, signal }: Pick<ResolveOptions, "records" | "selector" | "signal">,
): Promise<Reading> {
  const referring: Referring[] = [];
  const problems: Problem[] = [];
  const occurrences = new Map<string, Occurrence[]>();
  const broken: KoError[] = [];
  const pace = new Pace(signal);
  let order = 0;
  const note = (error: unknown): void => {
    signal?.throwIfAborted();
    if (!(error instanceof KoError)) throw error;
    const errors = error instanceof KoErrors ? error.errors : [error];
    for (const each of errors) {
      addBroken(broken, each);
      problems.push({ order: order++, error: each });
    }
  };
  const documents: YamlDocument[] = [];
  for (const { name, bytes } of inputs) {
    try {
      for (const document of await splitStream({ bytes, file: name }, pace)) documents.push(document);
    } catch (error) {
      note(error);
    }
  }
  const kept = selector === "" ? documents : await filterDocuments(documents, { selector, signal });
  for (const document of kept) {
    try {
      if (pace.isDue) await pace.turn();
      const references = await findReferences(document, { records, signal, pace });
      referring.push({ document, references });
      for (const reference of references) {
        const occurrence = { file: document.file, reference, order: order++ };
        const known = occurrences.get(reference.value);
        if (known === undefined) occurrences.set(reference.value, [occurrence]);
        else known.push(occurrence);
      }
    } catch (error) {
      // All broken documents are reported, not only the first.
      note(error);
      referring.push({ document, references: [] });
    }
  }
  return { referring, occurrences, problems };
}

/** Finds programs that the user probably wanted to be built: mistyped references, or YAML without any. */
export async function findMissing(
  { occurrences, problems, referring }: Reading,
  { selector, signal }: Pick<ResolveOptions, "selector" | "signal">,
): Promise<readonly Missing[]> {
  const missing: Missing[] = [];
  for (const { document } of referring) {
    const slips = await findSlips(document, signal).catch((error: unknown) => {
      signal?.throwIfAborted();
      // Not valid YAML: a problem of the reading.
      if (error instanceof KoError) return [];
      throw error;
    });
    for (const { column, line, meant, value } of slips) {
      const text = `${JSON.stringify(value)} is no image name, it looks like ${meant}`;
      missing.push({ kind: "slip", line: `${document.file}:${line}:${column}: ${text}` });
    }
  }
  if (missing.length > 0 || occurrences.size > 0 || problems.length > 0) return missing;
  const [file, another] = new Set(referring.map(({ document }) => document.file));
  const place = another === undefined && file !== undefined ? file : "the YAML";
  const selected = selector === "" ? "" : ", as far as -l selects it";
  return [{ kind: "nothing", line: `no ko:// reference in ${place}${selected}: nothing is built` }];
}

/** @throws {KoError} If a document could not be read. */
export function throwProblems({ problems }: Pick<Reading, "problems">): void {
  throwAll(inOrder(problems).map(({ error }) => error));
}

/** Returns a document with image references; a `ko://` value without one stays. */
export function putReferences(
  { document, references }: Referring,
  referenceOf: (value: string) => string | undefined,
): YamlDocument {
  return references.length === 0 ? document : replaceReferences(document, references, referenceOf);
}

/** The text that stands for a `ko://` value; undefined if it is left as it is. @throws {KoError} If it has no such part. */
export function textOf(value: string, images: ReadonlyMap<string, PublishedProgram>): string | undefined {
  const published = images.get(value);
  return published === undefined ? undefined : textFor(value, published);
}

/** Warns of manifests that pull always: an image that is in no registry cannot be pulled. */
export async function warnOfPulls(
  referring: readonly Referring[],
  { log, signal }: Pick<ResolveOptions, "log" | "signal">,
): Promise<void> {
  for (const { document, references } of referring) {
    if (references.length === 0) continue;
    for (const { line, column } of await findAlwaysPulled(document, signal)) {
      log.warn(`${document.file}:${line}:${column}: ${ALWAYS_PULLED}`);
    }
  }
}

/** Tells how to connect a debugger, if a program is built for one. */
export async function logDebugged(
  referring: readonly Referring[],
  options: Pick<ResolveOptions, "place"> & {
    readonly images: ReadonlyMap<string, PublishedProgram>;
    readonly log: Pick<Log, "info">;
  },
): Promise<void> {
  if (!options.images.values().some(({ debug }) => debug !== undefined)) return;
  const { logWorkloads } = await import("./resolve-debug.ts");
  await logWorkloads(referring, options);
}

export interface PublishReferencesOptions extends Pick<ResolveOptions, "strict"> {
  readonly pipeline: Pick<Pipeline, "publish" | "sideLoads">;
  /** The `ko://` values to publish, each once. */
  readonly values: readonly string[];
}

/**
 * Builds and publishes the programs that values name.
 *
 * @returns the published program of each `ko://` value; without `strict` a bad value is missing, with a warning
 * @throws {KoError} If a document could not be read, a reference is bad, or a program cannot be built or published.
 */
export async function publishReferences(
  { occurrences, problems: unread, referring }: Reading,
  { pipeline, strict, values }: PublishReferencesOptions,
): Promise<ReadonlyMap<string, PublishedProgram>> {
  const args = selectNames(values);
  const problems = [...unread, ...(pipeline.sideLoads ? findDigests(occurrences) : [])];
  const { choice, published } = await pipeline.publish(args, ({ results }) => {
    const found = new Map(args.map((value, i) => [value, results[i]]));
    const matched = matchPrograms(found, {
      strict,
      problems,
      occurrences: new Map(values.map((value) => [value, occurrences.get(value) ?? []])),
    });
    const warnings = [...(matched.warnings ?? []), ...(pipeline.sideLoads ? [] : warnOfTags(values))];
    return { ...matched, warnings, findPods: () => findPodsOf(referring, matched) };
  });
  const byPath = new Map(published.map((each) => [each.program.importPath, each]));
  return new Map(
    Array.from(choice.programOf, ([value, { importPath }]) => {
      const found = byPath.get(importPath);
      if (found === undefined) throw new RangeError(`no reference for ${importPath}`);
      return [value, found];
    }),
  );
}

export interface Judged {
  /** By `ko://` value; a bad value is missing. */
  readonly programOf: ReadonlyMap<string, Program>;
  readonly bad: readonly BadReference[];
}

/** Returns the names in values that can name a program, each once, regardless of the existing packages. */
export function selectNames(values: Iterable<string>): readonly string[] {
  return [...new Set([...values].filter((value) => whyBadReference(value) === undefined).map(nameOf))];
}

/** The places that ask for a digest of images that have none, before anything is built. */
function findDigests(occurrences: Reading["occurrences"]): readonly Problem[] {
  return Array.from(occurrences)
    .filter(([value]) => fragmentOf(value) === "digest")
    .flatMap(([value, places]) =>
      places.map(({ file, order, reference: { column, line } }) => ({
        order,
        error: new KoError(`${file}:${line}:${column}: ${value}: an image of a local daemon or cluster has no digest`, {
          hint: "Use #tag: there it is made of the content.",
        }),
      })),
    );
}

function warnOfTags(values: readonly string[]): readonly string[] {
  const [value] = findMovable(values);
  if (value === undefined) return [];
  return [`${value} can move to another image: use ${nameOf(value)}#digest beside it, or the whole reference`];
}

interface MatchProgramsOptions extends Pick<ResolveOptions, "strict">, Pick<Reading, "occurrences" | "problems"> {}

interface Matched extends Choice {
  /** By `ko://` value; without `strict` a bad value is missing. */
  readonly programOf: ReadonlyMap<string, Program>;
}

/** Finds the Pods of each program, in all documents. */
async function findPodsOf(referring: readonly Referring[], { programOf }: Pick<Matched, "programOf">): Promise<PodsOf> {
  const { findPods } = await import("./yaml-workloads.ts");
  const pods = new Map<string, Placement[]>();
  const add = (value: string, pod: Placement): void => {
    const importPath = programOf.get(value)?.importPath;
    if (importPath !== undefined) pods.set(importPath, [...(pods.get(importPath) ?? []), pod]);
  };
  for (const { document, references } of referring) {
    if (references.length === 0) continue;
    const templates = await findPods(document);
    for (const pod of templates) for (const value of pod.values) add(value, pod);
    const known = new Set(templates.flatMap(({ values }) => [...values]));
    for (const { value } of references) if (!known.has(value)) add(value, { spec: undefined, isDaemon: false });
  }
  return pods;
}

/** Returns the program of each `ko://` value. @throws {KoError} With every bad document and reference. */
function matchPrograms(
  found: ReadonlyMap<string, FoundPrograms["results"][number] | undefined>,
  { occurrences, strict, problems }: MatchProgramsOptions,
): Matched {
  const { bad, programOf } = judgeReferences(found, occurrences);
  throwAll(inOrder(strict ? [...problems, ...bad] : problems).map(({ error }) => error));
  return {
    programOf,
    programs: [...new Map(Array.from(programOf.values(), (each) => [each.importPath, each])).values()],
    warnings: inOrder(bad).map(({ error }) => `${error.message}; it is left as it is`),
  };
}

/**
 * Finds the program of each `ko://` value, and the places of those that name none.
 *
 * @param found the programs or the error of each name that {@link selectNames} selects
 */
export function judgeReferences(
  found: ReadonlyMap<string, FoundPrograms["results"][number] | undefined>,
  occurrences: Reading["occurrences"],
): Judged {
  const programOf = new Map<string, Program>();
  const bad: BadReference[] = [];
  for (const [value, places] of occurrences) {
    const result = found.get(nameOf(value));
    const [program, another] = Array.isArray(result) ? result : [];
    const why =
      whyBadReference(value) ?? (result instanceof KoError ? result : another && "it stands for several programs");
    if (why === undefined && program !== undefined) {
      programOf.set(value, program);
      continue;
    }
    for (const { file, reference, order } of places) {
      const place = `${file}:${reference.line}:${reference.column}`;
      bad.push({ order, file, reference, error: badReference(place, value, why ?? "it is not a program") });
    }
  }
  return { programOf, bad };
}

/** Returns why a value cannot name a program, regardless of the existing packages; undefined if it can. */
function whyBadReference(value: string): string | undefined {
  // The value of a very long scalar ends so.
  if (value.endsWith("…")) return "it is too long for an import path";
  if (/[\s\u0085]/.test(value)) return "an import path has no white space";
  if (value.includes("...")) return "it is a pattern, one program is wanted";
  return whyBadFragment(value);
}

function badReference(place: string, value: string, why: string | KoError): KoError {
  const text = typeof why === "string" ? why : withoutAction(messageOf(why), value);
  return new ProgramError(`${place}: ${showInvisible(`${value}: ${text}`)}`, {
    ...(typeof why === "string" || why.kind === "failure" ? {} : { kind: why.kind }),
    hint: typeof why === "string" ? undefined : why.hint,
  });
}

/** Leaves out that a value cannot be built, on which platform or not. */
function withoutAction(message: string, value: string): string {
  const action = `Cannot build "${value}"`;
  return message.startsWith(action) ? message.slice(action.length).replace(/^(?: for \S+)?: /, "") : message;
}

function inOrder(problems: readonly Problem[]): readonly Problem[] {
  return problems.toSorted((a, b) => a.order - b.order);
}
