/**
 * Shows, evicts and removes the content of the cache: `ko cache`, `ko cache clean`, and the clean-up after each run.
 *
 * Only files with ko's names in ko's folders are counted and removed, in all generations; symlinks are not followed.
 * Runs that lose a file to a parallel clean-up make it again.
 */
import { readdirSync, rmdirSync, rmSync, type Stats, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import {
  CACHE_FOLDERS,
  type CacheFolder,
  classifyName,
  defaultCacheLimit,
  findCacheFolder,
  GENERATION,
  IGNORE_FILE,
  isGeneration,
  isLeftBehind,
  isRunFolder,
  readCacheLimit,
} from "./cache-folder.ts";
import { codeOf, findNearest, KoError, KoErrors, messageOf, UsageError } from "./errors.ts";
import { lookAtLink } from "./file.ts";
import type { Host } from "./host.ts";
import { formatSize, type Log } from "./log.ts";

export interface CacheCommandOptions {
  readonly host: Host;
  readonly log: Log;
}

/** A point in time, as `host.now()` gives it. */
export interface SweepOptions {
  /** Milliseconds since 1970. */
  readonly now: number;
}

export interface CacheSurvey {
  readonly entries: readonly CacheFile[];
  /** Files that a run is writing, or that a killed run left behind. */
  readonly temporaries: readonly CacheFile[];
  readonly runs: readonly RunFolder[];
}

/** A file of the cache. */
export interface CacheFile {
  /** Absolute. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** The last use, in milliseconds since 1970. */
  readonly used: number;
  /** Device and inode: links to the same file are counted once. */
  readonly file: string;
}

/** The work folder of a run. */
export interface RunFolder {
  /** Absolute. */
  readonly path: string;
  /** True if the run was killed. */
  readonly isLeftBehind: boolean;
}

/** The words that may follow `ko cache`. */
const WORDS = ["clean"];
/** The most failures that are listed. */
const MAX_LISTED = 5;
/** Milliseconds after which an incomplete file is left over. */
const TEMPORARY_AGE_MS = 3600 * 1000;
/** The part of the limit that eviction goes down to, so that not every run has to evict. */
const LOW_WATER = 0.9;

/**
 * Runs `ko cache` or `ko cache clean`. Neither creates the cache, nor needs it to be usable.
 *
 * @param words the arguments after `ko cache`
 * @returns the text for stdout
 * @throws {UsageError} If a word is unknown.
 * @throws {KoError} If the cache is not a folder, or a file in it cannot be removed.
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
  throw new UsageError(`Cannot run "ko cache ${word}": "ko cache" has no such command${near}`, {
    hint: `Type "ko cache" to see the cache's size, "ko cache clean" to empty it.`,
  });
}

/** Removes the work folders of killed runs. */
export function sweepRuns(place: string, { now }: SweepOptions): void {
  for (const run of findGenerations(place).flatMap((generation) => findRuns(generation, now))) {
    if (run.isLeftBehind) attempt(() => rmSync(run.path, { recursive: true, force: true }));
  }
}

/**
 * Evicts the least recently used records and blobs while the cache exceeds its limit; a blob larger than the limit goes
 * first. Removes incomplete files of killed runs. Files that cannot be removed stay.
 *
 * @param options.limit the limit in bytes
 */
export function trimCache(place: string, { limit, now }: SweepOptions & { readonly limit: number }): void {
  const { entries, temporaries } = surveyCache(place, { now });
  let size = sum([...entries, ...temporaries].map((file) => file.size));
  const remove = (file: CacheFile): void => {
    if (attempt(() => unlinkSync(file.path)) === undefined) size -= file.size;
  };
  for (const file of temporaries) if (now - file.used > TEMPORARY_AGE_MS) remove(file);
  if (size <= limit) return;
  // An entry larger than the limit goes first: evicting all others for it would not help.
  const rank = (file: CacheFile): number => (file.size > limit ? 0 : file.used);
  for (const file of entries.toSorted((a, b) => rank(a) - rank(b))) {
    if (size <= limit * LOW_WATER) return;
    remove(file);
  }
}

/** Finds ko's files and folders in the cache at `place`, which need not exist. */
export function surveyCache(place: string, { now }: SweepOptions): CacheSurvey {
  const entries: CacheFile[] = [];
  const temporaries: CacheFile[] = [];
  const runs: RunFolder[] = [];
  for (const generation of findGenerations(place)) {
    for (const folder of ["records", "content"] as const) {
      for (const name of namesIn(join(generation, folder))) {
        const kind = classifyName(folder, name);
        const path = join(generation, folder, name);
        const found = kind === undefined ? undefined : lookAtLink(path);
        if (found === undefined || !found.isFile()) continue;
        (kind === "entry" ? entries : temporaries).push(describeFile(path, found, folder));
      }
    }
    runs.push(...findRuns(generation, now));
  }
  return { entries, temporaries, runs };
}

/** One fact per line: scripts read the second word, people the text after "#". */
function showCache({ host }: CacheCommandOptions): string {
  const limit = readCacheLimit(host.env);
  const place = findPlace(host);
  if (place === undefined) return `place: off # ${explainOff(host)}\n`;
  const survey = surveyCache(place, { now: host.now().getTime() });
  const bytes = (size: number): string => `${size} # ${formatSize(size)}`;
  return [
    `place: ${place}${isFolder(join(place, GENERATION)) ? "" : " # not created yet"}`,
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
  if (size > 0) log.info(`Removed ${formatSize(size)} in ${count(entries, "entry", "entries")} from "${place}"`);
  else if (failures.length === 0) log.info(`Nothing to remove: "${place}" holds no files of ko`);
  if (running > 0) log.info(`Folders of active runs stay until the runs end: ${running}`);
  if (failures.length === 0) return;
  const listed = failures.slice(0, MAX_LISTED).map(({ path, why }) => new KoError(`Cannot remove "${path}": ${why}`));
  const more = failures.length - listed.length;
  throw new KoErrors(
    more === 0 ? listed : [...listed, new KoError(`Cannot remove ${count(more, "more file", "more files")}`)],
  );
}

interface CleanResult {
  /** Removed bytes. */
  readonly size: number;
  /** How many entries were removed. */
  readonly entries: number;
  /** How many runs are active: their folders stay. */
  readonly running: number;
  /** The files and folders that could not be removed. */
  readonly failures: readonly { readonly path: string; readonly why: string }[];
}

/** Removes the cache but for the work folders of active runs. Foreign files stay, and so do the folders around them. */
function cleanCache(place: string, { now }: SweepOptions): CleanResult {
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
    if (namesIn(generation).every((name) => name === IGNORE_FILE)) {
      attempt(() => unlinkSync(join(generation, IGNORE_FILE)));
    }
    attempt(() => rmdirSync(generation));
  }
  return { size, entries, running: survey.runs.length - ended.length, failures };
}

/** The bytes of all files, those in work folders too; a file with several links counts once. */
export function measureCache({ entries, runs, temporaries }: CacheSurvey): number {
  const sizes = new Map<string, number>();
  for (const { file, size } of [...entries, ...temporaries, ...runs.flatMap(({ path }) => filesBelow(path))]) {
    sizes.set(file, size);
  }
  return sum([...sizes.values()]);
}

function findRuns(generation: string, now: number): readonly RunFolder[] {
  return namesIn(join(generation, "work")).flatMap((name) => {
    const path = join(generation, "work", name);
    const found = isRunFolder(name) ? lookAtLink(path) : undefined;
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
  // All blobs have the same modification time: see cache.ts.
  return { path, size, used: folder === "content" ? atimeMs : Math.max(atimeMs, mtimeMs), file: `${dev} ${ino}` };
}

function filesBelow(folder: string): readonly CacheFile[] {
  return namesIn(folder).flatMap((name): readonly CacheFile[] => {
    const path = join(folder, name);
    const found = lookAtLink(path);
    if (found?.isDirectory() === true) return filesBelow(path);
    return found?.isFile() === true ? [describeFile(path, found, "work")] : [];
  });
}

/** The names in a folder; none if it is not a folder, or is a symlink to one and `follow` is false. */
function namesIn(folder: string, { follow = false }: { readonly follow?: boolean } = {}): readonly string[] {
  try {
    return follow || isFolder(folder) ? readdirSync(folder) : [];
  } catch {
    return [];
  }
}

function isFolder(path: string): boolean {
  return lookAtLink(path)?.isDirectory() === true;
}

/** The error that `work` throws; none if the file is already gone. */
function attempt(work: () => void): unknown {
  try {
    work();
    return undefined;
  } catch (error) {
    return codeOf(error) === "ENOENT" ? undefined : error;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function findPlace(host: Host): string | undefined {
  const place = findCacheFolder(host);
  if (place === undefined) return undefined;
  let why = "it is not a folder";
  try {
    if (statSync(place, { throwIfNoEntry: false })?.isDirectory() !== false) return place;
  } catch (error) {
    why = messageOf(error);
  }
  throw new KoError(`Cannot use "${place}" as the cache: ${why}`, { hint: "Set KOCACHE to a folder, or to off." });
}

function explainOff({ env }: Host): string {
  return env["KOCACHE"] === "off" ? "KOCACHE=off" : "KOCACHE is not set, and there is no folder for caches";
}

function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}
