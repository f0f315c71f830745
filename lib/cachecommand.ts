/**
 * `ko cache`: where the cache is and how much is in it, and `ko cache clean`. Neither makes it, nor needs it to be usable.
 */
import { lstatSync, statSync } from "node:fs";
import { join } from "node:path";
import { defaultCacheLimit, findCacheFolder, GENERATION, readCacheLimit } from "./cachefolder.ts";
import { cleanCache, measureCache, surveyCache } from "./cachesweep.ts";
import { findNearest, KoError, KoErrors, messageOf, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";

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
