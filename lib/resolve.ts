/**
 * From YAML files to YAML with image references: finds every `ko://` string, builds and publishes each program once, puts
 * the references in.
 *
 * Every bad reference is told of, with file, line and column, before anything is built. Nothing but the references'
 * bytes changes; documents keep their input order.
 */
import type { Records } from "./cache.ts";
import { KoError, KoErrors, messageOf } from "./errors.ts";
import type { FoundPrograms, Program } from "./go-programs.ts";
import type { Log } from "./log.ts";
import type { Choice, Pipeline, PublishedProgram } from "./pipeline.ts";
import type { Input } from "./yaml-inputs.ts";
import { filterDocuments, findAlwaysPulled } from "./yaml-objects.ts";
import { findReferences, replaceReferences, type YamlReference } from "./yaml-references.ts";
import { parseSelector } from "./yaml-selector.ts";
import { joinDocuments, splitDocuments, type YamlDocument } from "./yaml.ts";

export interface ResolveOptions {
  readonly log: Log;
  /** `--selector`; empty keeps every document. */
  readonly selector: string;
  /** False leaves a reference that is no main package as it is, with a warning. */
  readonly strict: boolean;
  /** A cache of the references of documents. */
  readonly records: Records | undefined;
  /** Called only if there is a reference. */
  readonly openPipeline: () => Promise<Pipeline>;
}

/** A document and its `ko://` strings. */
export interface Referring {
  readonly document: YamlDocument;
  readonly references: readonly YamlReference[];
}

interface Place {
  readonly file: string;
  readonly reference: YamlReference;
  /** Rises through the input. */
  readonly order: number;
}

/** What is wrong with the input, and where in its order. */
interface Problem {
  readonly order: number;
  readonly error: KoError;
}

/** The documents of some input, not resolved yet. */
export interface Reading {
  /** In input order. */
  readonly referring: readonly Referring[];
  /** By `ko://` value: where it stands. */
  readonly places: ReadonlyMap<string, readonly Place[]>;
  /** Documents that cannot be read. */
  readonly problems: readonly Problem[];
}

/**
 * @param inputs in the order in which their documents come out
 * @returns the text of all documents that are kept
 * @throws {KoErrors} With every bad reference, before anything is built.
 * @throws {KoError} If a document that holds a reference is no YAML, or a program cannot be built or published.
 */
export async function resolveInputs(inputs: readonly Input[], options: ResolveOptions): Promise<string> {
  const reading = await readReferences(inputs, options);
  const { places, referring } = reading;
  if (places.size === 0) {
    throwProblems(reading);
    return joinDocuments(referring.map(({ document }) => document));
  }
  await using pipeline = await options.openPipeline();
  const images = await publishReferences(reading, { ...options, pipeline, values: [...places.keys()] });
  if (pipeline.sideLoads) await warnOfPulls(referring, options.log);
  return joinDocuments(referring.map((each) => putReferences(each, (value) => images.get(value)?.reference)));
}

/**
 * Splits inputs into documents and finds their references; what is wrong with a document is kept for later, so that it
 * can be told of together with bad references.
 *
 * @throws {KoError} If a file is no text, or the selector cannot be applied.
 */
export async function readReferences(
  inputs: readonly Input[],
  { records, selector }: Pick<ResolveOptions, "records" | "selector">,
): Promise<Reading> {
  const documents = inputs.flatMap(({ name, bytes }) => splitDocuments(bytes, name));
  const kept = selector === "" ? documents : await filterDocuments(documents, parseSelector(selector));
  const referring: Referring[] = [];
  const problems: Problem[] = [];
  const places = new Map<string, Place[]>();
  let order = 0;
  for (const document of kept) {
    try {
      const references = await findReferences(document, records);
      referring.push({ document, references });
      for (const reference of references) {
        const place = { file: document.file, reference, order: order++ };
        const known = places.get(reference.value);
        if (known === undefined) places.set(reference.value, [place]);
        else known.push(place);
      }
    } catch (error) {
      // One broken document must not hide the next one's mistakes.
      if (!(error instanceof KoError)) throw error;
      const errors = error instanceof KoErrors ? error.errors : [error];
      problems.push(...errors.map((each) => ({ order: order++, error: each })));
      referring.push({ document, references: [] });
    }
  }
  return { referring, places, problems };
}

/** @throws {KoError} If a document could not be read. */
export function throwProblems({ problems }: Pick<Reading, "problems">): void {
  throwAll(problems);
}

/** A document with image references in it; a value that has none stays. */
export function putReferences(
  { document, references }: Referring,
  referenceOf: (value: string) => string | undefined,
): YamlDocument {
  return references.length === 0 ? document : replaceReferences(document, references, referenceOf);
}

/** What was side-loaded cannot be pulled: says so where a manifest asks for that. */
export async function warnOfPulls(referring: readonly Referring[], log: Log): Promise<void> {
  for (const { document, references } of referring) {
    if (references.length === 0) continue;
    for (const { line, column } of await findAlwaysPulled(document)) {
      log.warn(
        `${document.file}:${line}:${column}: imagePullPolicy: Always does not find an image that is in no registry; use IfNotPresent`,
      );
    }
  }
}

export interface PublishReferencesOptions extends Pick<ResolveOptions, "strict"> {
  readonly pipeline: Pick<Pipeline, "publish">;
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
  { places, problems }: Reading,
  { pipeline, strict, values }: PublishReferencesOptions,
): Promise<ReadonlyMap<string, PublishedProgram>> {
  const args = values.filter((value) => whyBadReference(value) === undefined);
  const { choice, published } = await pipeline.publish(args, ({ results }) => {
    const found = new Map(args.map((value, i) => [value, results[i]]));
    return matchPrograms(found, {
      strict,
      problems,
      places: new Map(values.map((value) => [value, places.get(value) ?? []])),
    });
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

interface MatchProgramsOptions extends Pick<ResolveOptions, "strict">, Pick<Reading, "places" | "problems"> {}

interface Matched extends Choice {
  /** By `ko://` value; without `strict` a bad value is missing. */
  readonly programOf: ReadonlyMap<string, Program>;
}

/** Matches `ko://` values with the programs that were found. @throws {KoError} With every bad document and reference. */
function matchPrograms(
  found: ReadonlyMap<string, FoundPrograms["results"][number] | undefined>,
  { places, strict, problems }: MatchProgramsOptions,
): Matched {
  const programOf = new Map<string, Program>();
  const bad: Problem[] = [];
  for (const [value, placesOfValue] of places) {
    const result = found.get(value);
    const [program, another] = Array.isArray(result) ? result : [];
    const why =
      whyBadReference(value) ?? (result instanceof KoError ? result : another && "it stands for several programs");
    if (why === undefined && program !== undefined) {
      programOf.set(value, program);
      continue;
    }
    for (const { file, reference, order } of placesOfValue) {
      const place = `${file}:${reference.line}:${reference.column}`;
      bad.push({ order, error: badReference(place, value, why ?? "it is no program") });
    }
  }
  throwAll(strict ? [...problems, ...bad] : problems);
  return {
    programOf,
    programs: [...new Map(Array.from(programOf.values(), (each) => [each.importPath, each])).values()],
    warnings: inOrder(bad).map(({ error }) => `${error.message}; it is left as it is`),
  };
}

/** Why a value cannot be a reference whatever packages there are, or undefined. */
function whyBadReference(value: string): string | undefined {
  if (/\s/.test(value)) return "an import path holds no blanks";
  if (value.includes("...")) return "it is a pattern, one program is wanted";
  return undefined;
}

function badReference(place: string, value: string, why: string | KoError): KoError {
  const text = typeof why === "string" ? why : messageOf(why).replace(`Cannot build "${value}": `, "");
  return new KoError(`${place}: ${value}: ${text}`, { hint: typeof why === "string" ? undefined : why.hint });
}

function throwAll(problems: readonly Problem[]): void {
  const errors = inOrder(problems).map(({ error }) => error);
  const [only, another] = errors;
  if (another !== undefined) throw new KoErrors(errors);
  if (only !== undefined) throw only;
}

function inOrder(problems: readonly Problem[]): readonly Problem[] {
  return problems.toSorted((a, b) => a.order - b.order);
}
