/** Checks YAML documents: references, near misses of them, pull policies and commands of containers. */
import { posix } from "node:path";
import type { CheckedSettings } from "./check-config.ts";
import type { Findings, FindingPlace } from "./check-findings.ts";
import { baseFor, DEFAULT_BASE_IMAGE, parseBase } from "./config.ts";
import { CommandError, KoError, KoErrors } from "./errors.ts";
import type { FoundPrograms, Program } from "./go-programs.ts";
import type { Host } from "./host.ts";
import { debuggerPath } from "./image-config.ts";
import { programPathOf } from "./image.ts";
import { nameOf } from "./yaml-fragments.ts";
import { ALWAYS_PULLED, findMissing, judgeReferences, type Reading } from "./resolve.ts";
import { findImages, type ImageField } from "./yaml-images.ts";

export interface CheckReferencesOptions {
  readonly findings: Findings;
  /** The messages of errors that are findings of their own, such as those of `.ko.yaml`. */
  readonly reported: ReadonlySet<string>;
}

export interface CheckedReferences {
  /** By `ko://` value. */
  readonly programOf: ReadonlyMap<string, Program>;
  /** The first reference of each program, by import path. */
  readonly places: ReadonlyMap<string, FindingPlace>;
}

export interface CheckDocumentsOptions {
  readonly findings: Findings;
  readonly host: Host;
  /** `-l` */
  readonly selector: string;
  /** Undefined if a setting is wrong. */
  readonly settings: CheckedSettings | undefined;
  readonly programOf: CheckedReferences["programOf"];
}

/** Folders of the image that hold files of kodata. */
const KODATA = /^\/(?:var\/)?run\/ko\//;

/** Reports each reference that names no program. @param found as {@link judgeReferences} takes it */
export function checkReferences(
  found: ReadonlyMap<string, FoundPrograms["results"][number] | undefined>,
  { occurrences }: Reading,
  { findings, reported }: CheckReferencesOptions,
): CheckedReferences {
  const isReported = (error: KoError): boolean => error instanceof CommandError || reported.has(error.message);
  const results = new Map<string, FoundPrograms["results"][number] | undefined>();
  for (const [value, result] of found) {
    const errors = result instanceof KoErrors ? result.errors : result instanceof KoError ? [result] : [];
    const own = errors.filter((error) => !isReported(error));
    const [first, another] = own;
    results.set(value, errors.length === 0 ? result : another === undefined ? first : new KoErrors(own));
  }
  const wanted = new Map(
    [...occurrences].filter(([value]) => {
      const name = nameOf(value);
      return !found.has(name) || results.get(name) !== undefined;
    }),
  );
  const { bad, programOf } = judgeReferences(results, wanted);
  for (const { error, file, reference } of bad) {
    const { column, line } = reference;
    const prefix = `${file}:${line}:${column}: `;
    const own = new KoError(error.message.slice(prefix.length), { hint: error.hint, cause: error.cause });
    findings.addError(own, { rule: "reference", place: { file: findings.show(file), line, column } });
  }
  const places = new Map<string, FindingPlace>();
  for (const [value, program] of programOf) {
    const [first] = occurrences.get(value) ?? [];
    if (first === undefined || places.has(program.importPath)) continue;
    const { line, column } = first.reference;
    places.set(program.importPath, { file: findings.show(first.file), line, column });
  }
  return { programOf, places };
}

/** Checks the images of all documents. */
export async function checkDocuments(reading: Reading, options: CheckDocumentsOptions): Promise<void> {
  const { findings, host, selector, settings } = options;
  const { signal } = host;
  for (const { error } of reading.problems) findings.addError(error, { rule: "yaml" });
  for (const { kind, line } of await findMissing(reading, { selector, signal })) {
    if (kind === "slip") findings.add(line, { rule: "slip" });
    else findings.add(line, { rule: "no-reference", severity: "warning" });
  }
  if (settings === undefined) return;
  for (const { document, references } of reading.referring) {
    if (references.length === 0 || !/imagePullPolicy|command/.test(document.text)) continue;
    for (const image of await findImages(document, signal)) {
      const at = (place: NonNullable<ImageField["command"]>): FindingPlace => {
        return { file: findings.show(document.file), line: place.line, column: place.column };
      };
      const { command, pullPolicy, value } = image;
      if (settings.isLocal && value.startsWith("ko://") && pullPolicy?.value === "Always") {
        findings.add(ALWAYS_PULLED, { rule: "pull-policy", place: at(pullPolicy) });
      }
      const program = options.programOf.get(value.trimEnd());
      if (command === undefined || program === undefined || image.hasMounts) continue;
      checkCommand(command.value, { program, settings, host, findings, place: at(command) });
    }
  }
}

interface CheckCommandOptions {
  readonly program: Program;
  readonly settings: CheckedSettings;
  readonly host: Host;
  readonly findings: Findings;
  readonly place: FindingPlace;
}

/** Reports a command that cannot be in the image of a program. Only two kinds of bases are known to have no programs. */
function checkCommand(word: string, { findings, host, place, program, settings }: CheckCommandOptions): void {
  const { config, platform } = settings;
  const os = platform?.os ?? "linux";
  // The kubelet replaces variables.
  if (os !== "linux" || word === "" || word.includes("$(")) return;
  const text = baseFor(config, program.importPath);
  const isEmpty = parseBase(text, host.cwd).kind === "builtin" || parseBase(text, host.cwd).kind === "scratch";
  const own = programPathOf(program.importPath, settings.setups.entries.find(program)?.entry.binary?.value);
  const path = posix.normalize(word);
  if (path === own || path === debuggerPath(os) || KODATA.test(path)) return;
  const isApp = path.startsWith("/ko-app/");
  const isName = !word.includes("/");
  if (!isApp && !(isEmpty && (path.startsWith("/") || isName))) return;
  if (isName && word === posix.basename(own)) return;
  // A base that ko made itself, of another program, has a file there too.
  const severity = isEmpty || text === DEFAULT_BASE_IMAGE ? "error" : "warning";
  const what = isName ? "no such program" : "no such file";
  findings.add(`the image of ${program.importPath} has ${what} as ${JSON.stringify(word)}: it has ${own}`, {
    rule: "command",
    severity,
    place,
    hint: isEmpty && !isApp ? `The base ${text} holds no programs.` : `Leave command out, or use ${own}.`,
  });
}
