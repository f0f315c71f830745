/**
 * What is in the cache's folder, and its removal: all of it, or what is too much.
 *
 * Only what has one of our names in one of our folders is counted and removed, of every generation; links are not
 * followed. Any of it may go at any time: runs that use it meanwhile make it again.
 */
import { lstatSync, readdirSync, rmdirSync, rmSync, type Stats, unlinkSync } from "node:fs";
import { join } from "node:path";
import { CACHE_FOLDERS, type CacheFolder, IGNORE_FILE, isGeneration, judgeName } from "./cachefolder.ts";
import { messageOf } from "./errors.ts";
import { isObject } from "./gojson.ts";
import { isLeftBehind, isRunFolder } from "./runfolder.ts";

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
