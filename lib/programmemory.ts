/**
 * What earlier runs found arguments to name: then `go list` is not needed to know which programs are meant.
 *
 * For an import path or a folder it is proved where modules lie and that the folder is there; whether its sources still
 * make a program is found out by whoever needs to compile it. A pattern such as `./...` is proved with all it can match.
 */
import { isAbsolute, resolve } from "node:path";
import type { BuildMemory } from "./buildmemory.ts";
import { type Cache, keyOf } from "./cache.ts";
import { KoError } from "./errors.ts";
import { type Inputs, Looks, refreshInputs, takeInputs } from "./fingerprint.ts";
import { type FoundPrograms, PATTERN_WORDS, type Program } from "./goprograms.ts";
import { planPattern, planPlaces } from "./gosources.ts";
import { isObject } from "./gojson.ts";
import type { Host } from "./host.ts";

export interface ProgramMemoryOptions {
  readonly cache: Cache;
  readonly memory: BuildMemory;
  readonly host: Host;
  /** The environment that go gets for the platform that packages are looked at for. */
  readonly env: Readonly<Record<string, string>>;
}

interface ProgramRecord {
  readonly programs: readonly Program[];
  readonly inputs: Inputs;
}

/** The programs that all of the arguments name, or undefined if that is not known of each of them. */
export function recallPrograms(args: readonly string[], options: ProgramMemoryOptions): FoundPrograms | undefined {
  const { cache, host, memory } = options;
  const results: (readonly Program[])[] = [];
  for (const text of args) {
    const key = keyFor(text, options);
    const record = cache.read("programs", key);
    if (!isProgramRecord(record) || memory.prover.findChange(record.inputs) !== undefined) return undefined;
    const better = refreshInputs(record.inputs, host.now().getTime());
    if (better !== undefined) cache.write("programs", key, { ...record, inputs: better });
    results.push(record.programs);
  }
  return { results, packages: new Map() };
}

/** @param startedAt milliseconds since 1970, before go was started */
export function rememberPrograms(
  args: readonly string[],
  found: FoundPrograms,
  options: ProgramMemoryOptions & { readonly startedAt: number },
): void {
  const { cache, env, host, memory, startedAt } = options;
  const sources = memory.sourcesOptions(env);
  if (sources === undefined || memory.isClockPutBack()) return;
  const now = host.now().getTime();
  const packages = [...found.packages.values()].flat();
  const named = packages.filter(({ depOnly, standard }) => !depOnly && !standard);
  const looks = new Looks();
  for (const [i, text] of args.entries()) {
    const programs = found.results[i];
    if (programs === undefined || programs instanceof KoError || !isRememberable(text)) continue;
    const root = patternRoot(text, host.cwd);
    if (root === undefined && text.includes("...")) continue;
    const plan =
      root === undefined
        ? planPlaces(programs, packages, sources)
        : planPattern(programs, named, { ...sources, root, packages });
    const draft = takeInputs(plan, { startedAt, now, before: memory.prover, looks });
    if ("path" in draft) continue;
    const record: ProgramRecord = { programs, inputs: draft.inputs };
    cache.write("programs", keyFor(text, options), record);
  }
}

/** Forgets what was assumed of arguments and turned out to be otherwise. */
export function forgetPrograms(args: readonly string[], options: ProgramMemoryOptions): void {
  for (const text of args) options.cache.remove("programs", keyFor(text, options));
}

/** A file is looked at for what is in it, and words such as `all` mean what go likes. */
function isRememberable(text: string): boolean {
  return !text.endsWith(".go") && !PATTERN_WORDS.has(withoutScheme(text));
}

/** The folder that a pattern of paths is about. */
function patternRoot(text: string, cwd: string): string | undefined {
  const name = withoutScheme(text);
  const at = name.indexOf("...");
  if (at < 0 || !(/^\.{1,2}\//.test(name) || isAbsolute(name))) return undefined;
  return resolve(cwd, name.slice(0, name.lastIndexOf("/", at) + 1));
}

function keyFor(text: string, { env, host, memory }: ProgramMemoryOptions): string {
  return keyOf([1, host.cwd, text, memory.describe(env)]);
}

function withoutScheme(text: string): string {
  return text.replace(/^ko:\/\//, "");
}

function isProgramRecord(value: unknown): value is ProgramRecord {
  return isObject(value) && Array.isArray(value["programs"]) && isObject(value["inputs"]);
}
