/**
 * What is in the cache's folder, and its removal: all of it, or what is too much.
 *
 * Only what has one of our names in one of our folders is counted and removed, of every generation; links are not
 * followed. Any of it may go at any time: runs that use it meanwhile make it again.
 *
 * `ko cache`: where the cache is and how much is in it, and `ko cache clean`. Neither makes it, nor needs it to be usable.
 */
import { lstatSync, readdirSync, rmdirSync, rmSync, type Stats, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import {
  CACHE_FOLDERS,
  type CacheFolder,
  defaultCacheLimit,
  findCacheFolder,
  GENERATION,
  IGNORE_FILE,
  isGeneration,
  isLeftBehind,
  isRunFolder,
  judgeName,
  readCacheLimit,
} from "./cache-folder.ts";
import { findNearest, KoError, KoErrors, messageOf, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";
import type { Log } from "./log.ts";

/** A file of ours. */
export interface CacheFile {
  /** Absolute. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Milliseconds since 1970: when it was used last. */
  readonly used: number;
  /** Names the file where it has several names: they are counted once. */
  readonly file: string;
}

/** The folder of a run, at work or killed. */
export interface RunFolder {
  /** Absolute. */
  readonly path: string;
  readonly isLeftBehind: boolean;
}

export interface CacheSurvey {
  readonly entries: readonly CacheFile[];
  /** Being written, or left behind by a killed run. */
  readonly temporaries: readonly CacheFile[];
  readonly runs: readonly RunFolder[];
}

/** Time as `host.now()` gives it. */
export interface SweepOptions {
  /** Milliseconds since 1970. */
  readonly now: number;
}

export interface CleanResult {
  /** Bytes that were removed. */
  readonly size: number;
  /** How many entries were removed. */
  readonly entries: number;
  /** How many runs are at work: their folders stay. */
  readonly running: number;
  /** What could not be removed. */
  readonly failures: readonly { readonly path: string; readonly why: string }[];
}

/** Milliseconds after which nobody is writing any more what has no name of its own yet. */
const TEMPORARY_AGE_MS = 3600 * 1000;
/** What is removed goes down to this part of the limit, so that not every run has to remove something. */
const LOW_WATER = 0.9;

/** What of ours is below `place`; nothing if there is no such folder. */
export function surveyCache(place: string, { now }: SweepOptions): CacheSurvey {
  const entries: CacheFile[] = [];
  const temporaries: CacheFile[] = [];
  const runs: RunFolder[] = [];
  for (const generation of findGenerations(place)) {
    for (const folder of ["records", "content"] as const) {
      for (const name of namesIn(join(generation, folder))) {
        const kind = judgeName(folder, name);
        const path = join(generation, folder, name);
        const found = kind === undefined ? undefined : look(path);
        if (found === undefined || !found.isFile()) continue;
        (kind === "entry" ? entries : temporaries).push(describeFile(path, found, folder));
      }
    }
    runs.push(...findRuns(generation, now));
  }
  return { entries, temporaries, runs };
}

/** All bytes of ours, the folders of runs too; a file with several names counts once. */
export function measureCache({ entries, runs, temporaries }: CacheSurvey): number {
  const sizes = new Map<string, number>();
  for (const { file, size } of [...entries, ...temporaries, ...runs.flatMap(({ path }) => filesBelow(path))]) {
    sizes.set(file, size);
  }
  return sum([...sizes.values()]);
}

/** Removes the folders that killed runs left behind. */
export function sweepRuns(place: string, { now }: SweepOptions): void {
  for (const run of findGenerations(place).flatMap((generation) => findRuns(generation, now))) {
    if (run.isLeftBehind) attempt(() => rmSync(run.path, { recursive: true, force: true }));
  }
}

/**
 * Keeps the bound: removes what was not used for longest, until the rest is small enough, and what was never completed.
 * What cannot be removed stays.
 *
 * @param options.limit bytes
 */
export function trimCache(place: string, { limit, now }: SweepOptions & { readonly limit: number }): void {
  const { entries, temporaries } = surveyCache(place, { now });
  let size = sum([...entries, ...temporaries].map((file) => file.size));
  const remove = (file: CacheFile): void => {
    if (attempt(() => unlinkSync(file.path)) === undefined) size -= file.size;
  };
  for (const file of temporaries) if (now - file.used > TEMPORARY_AGE_MS) remove(file);
  if (size <= limit) return;
  // What is larger than all that may be kept must not push everything else out first.
  const rank = (file: CacheFile): number => (file.size > limit ? 0 : file.used);
  for (const file of entries.toSorted((a, b) => rank(a) - rank(b))) {
    if (size <= limit * LOW_WATER) return;
    remove(file);
  }
}

/** Removes everything of ours but the folders of runs that are at work. What is somebody else's stays, and so do its folders. */
export function cleanCache(place: string, { now }: SweepOptions): CleanResult {
  const survey = surveyCache(place, { now });
  const failures: { path: string; why: string }[] = [];
  const remove = (path: string, work: () => void): boolean => {
    const error = attempt(work);
    if (error !== undefined) failures.push({ path, why: messageOf(error) });
    return error === undefined;
  };
  let [entries, size] = [0, 0];
  for (const file of survey.temporaries) if (remove(file.path, () => unlinkSync(file.path))) size += file.size;
  for (const file of survey.entries) {
    if (!remove(file.path, () => unlinkSync(file.path))) continue;
    size += file.size;
    entries++;
  }
  const ended = survey.runs.filter((run) => run.isLeftBehind);
  for (const { path } of ended) {
    const bytes = sum(filesBelow(path).map((file) => file.size));
    if (remove(path, () => rmSync(path, { recursive: true, force: true }))) size += bytes;
  }
  for (const generation of findGenerations(place)) {
    for (const folder of CACHE_FOLDERS) {
      if (isFolder(join(generation, folder))) attempt(() => rmdirSync(join(generation, folder)));
    }
    // Alone, it may go.
    if (namesIn(generation).every((name) => name === IGNORE_FILE))
      attempt(() => unlinkSync(join(generation, IGNORE_FILE)));
    attempt(() => rmdirSync(generation));
  }
  return { size, entries, running: survey.runs.length - ended.length, failures };
}

function findRuns(generation: string, now: number): readonly RunFolder[] {
  return namesIn(join(generation, "work")).flatMap((name) => {
    const path = join(generation, "work", name);
    const found = isRunFolder(name) ? look(path) : undefined;
    if (found === undefined || !found.isDirectory()) return [];
    return [{ path, isLeftBehind: isLeftBehind(name, { changed: found.mtimeMs, now }) }];
  });
}

function findGenerations(place: string): readonly string[] {
  return namesIn(place, { follow: true })
    .filter(isGeneration)
    .map((name) => join(place, name))
    .filter(isFolder);
}

function describeFile(path: string, found: Stats, folder: CacheFolder): CacheFile {
  const { atimeMs, dev, ino, mtimeMs, size } = found;
  // All content has one modification time: see cache.ts.
  return { path, size, used: folder === "content" ? atimeMs : Math.max(atimeMs, mtimeMs), file: `${dev} ${ino}` };
}

function filesBelow(folder: string): readonly CacheFile[] {
  return namesIn(folder).flatMap((name): readonly CacheFile[] => {
    const path = join(folder, name);
    const found = look(path);
    if (found?.isDirectory() === true) return filesBelow(path);
    return found?.isFile() === true ? [describeFile(path, found, "work")] : [];
  });
}

/** The names in a folder; none if it is no folder, or a link to one. */
function namesIn(folder: string, { follow = false }: { readonly follow?: boolean } = {}): readonly string[] {
  try {
    return follow || isFolder(folder) ? readdirSync(folder) : [];
  } catch {
    return [];
  }
}

function isFolder(path: string): boolean {
  return look(path)?.isDirectory() === true;
}

function look(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** What `work` throws; that something is gone already is as good. */
function attempt(work: () => void): unknown {
  try {
    work();
    return undefined;
  } catch (error) {
    return isObject(error) && error["code"] === "ENOENT" ? undefined : error;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

export interface CacheCommandOptions {
  readonly host: Host;
  readonly log: Log;
}

/** The words that may follow `ko cache`. */
const WORDS = ["clean"];
/** The most failures that are listed. */
const MAX_LISTED = 5;

/**
 * Does what the words after `ko cache` ask for.
 *
 * @returns what goes to stdout
 * @throws {UsageError} If a word is none of the command's.
 * @throws {KoError} If the cache is no folder, or something in it cannot be removed.
 */
export function runCacheCommand(words: readonly string[], options: CacheCommandOptions): string {
  const [word] = words;
  if (word === undefined) return showCache(options);
  if (word === "clean") {
    cleanAll(options);
    return "";
  }
  const nearest = findNearest(word, WORDS);
  const near = nearest === undefined ? "" : `, the nearest is "${nearest}"`;
  throw new UsageError(`Cannot run "ko cache ${word}": "ko cache" has no such word${near}`, {
    hint: `Type "ko cache" to see what is kept, "ko cache clean" to remove it.`,
  });
}

/** A line each: the second word is for scripts, what stands after "#" for people. */
function showCache({ host }: CacheCommandOptions): string {
  const limit = readCacheLimit(host.env);
  const place = findPlace(host);
  if (place === undefined) return `place: off # ${explainOff(host)}\n`;
  const survey = surveyCache(place, { now: host.now().getTime() });
  const bytes = (size: number): string => `${size} # ${formatBytes(size)}`;
  return [
    `place: ${place}${isThere(place) ? "" : " # nothing there yet"}`,
    `size: ${bytes(measureCache(survey))}`,
    `limit: ${bytes(limit ?? defaultCacheLimit(place))}`,
    `entries: ${survey.entries.length}`,
    "",
  ].join("\n");
}

function cleanAll({ host, log }: CacheCommandOptions): void {
  const place = findPlace(host);
  if (place === undefined) return log.info(`Nothing to remove: the cache is off, ${explainOff(host)}`);
  const { entries, failures, running, size } = cleanCache(place, { now: host.now().getTime() });
  if (size > 0) log.info(`Removed ${formatBytes(size)} in ${count(entries, "entry", "entries")} from "${place}"`);
  else if (failures.length === 0) log.info(`Nothing to remove: there is nothing of ko's in "${place}"`);
  if (running > 0) log.info(`The folders of ${count(running, "run", "runs")} at work stay until they end`);
  if (failures.length === 0) return;
  const listed = failures.slice(0, MAX_LISTED).map(({ path, why }) => new KoError(`Cannot remove "${path}": ${why}`));
  const more = failures.length - listed.length;
  throw new KoErrors(more === 0 ? listed : [...listed, new KoError(`Cannot remove ${more} more`)]);
}

function findPlace(host: Host): string | undefined {
  const place = findCacheFolder(host);
  if (place === undefined) return undefined;
  let why = "it is no folder";
  try {
    if (statSync(place, { throwIfNoEntry: false })?.isDirectory() !== false) return place;
  } catch (error) {
    why = messageOf(error);
  }
  throw new KoError(`Cannot use "${place}" as the cache: ${why}`, { hint: "Set KOCACHE to a folder, or to off." });
}

function isThere(place: string): boolean {
  return lstatSync(join(place, GENERATION), { throwIfNoEntry: false })?.isDirectory() === true;
}

function explainOff({ env }: Host): string {
  return env["KOCACHE"] === "off" ? "KOCACHE=off" : "KOCACHE is not set, and there is no folder for caches";
}

function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}

/** `1.3 GB`: three digits at most, rounded. */
function formatBytes(size: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let [value, unit] = [size, 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${Number(value.toFixed(digits))} ${units[unit]}`;
}
