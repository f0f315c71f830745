/**
 * Fields of JSON documents from outside, read strictly: a value of the wrong type is an error that names the document.
 */
import { KoError } from "./errors.ts";
import { isObject, quoteJson } from "./gojson.ts";

export function parseObject(bytes: Uint8Array, what: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8").decode(bytes));
  } catch (cause) {
    throw new KoError(`Cannot read ${what}: it is no JSON`, { cause });
  }
  if (!isObject(value)) throw new KoError(`Cannot read ${what}: it is no JSON object`);
  return value;
}

export function readNumber(value: unknown, what: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value)) return value;
  throw new KoError(`Cannot read ${what}: ${quoteJson(value)} is no whole number`);
}

export function readStrings(value: unknown, what: string): readonly string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw new KoError(`Cannot read ${what}: it is no list of strings`);
}

export function readFlag<K extends string>(
  value: Readonly<Record<string, unknown>>,
  key: K,
  what: string,
): { [P in K]?: true } {
  const result: { [P in K]?: true } = {};
  const flag = value[key] ?? false;
  if (typeof flag !== "boolean") throw new KoError(`Cannot read ${key} of ${what}: ${quoteJson(flag)} is no boolean`);
  if (flag) result[key] = true;
  return result;
}

export function pickStringList<K extends string>(
  value: Readonly<Record<string, unknown>>,
  key: K,
  what: string,
): { [P in K]?: readonly string[] } {
  const result: { [P in K]?: readonly string[] } = {};
  const list = value[key] ?? undefined;
  if (list !== undefined) result[key] = readStrings(list, `${key} of ${what}`);
  return result;
}

export function pickStrings<K extends string>(
  value: Readonly<Record<string, unknown>>,
  keys: readonly K[],
  what: string,
): { [P in K]?: string } {
  const result: { [P in K]?: string } = {};
  for (const key of keys) {
    const item = value[key];
    if (item === undefined || item === null) continue;
    if (typeof item !== "string") throw new KoError(`Cannot read ${key} of ${what}: ${quoteJson(item)} is no string`);
    result[key] = item;
  }
  return result;
}

export function pickStringMap<K extends string>(
  value: Readonly<Record<string, unknown>>,
  key: K,
  what: string,
): { [P in K]?: Readonly<Record<string, string>> } {
  const result: { [P in K]?: Readonly<Record<string, string>> } = {};
  const map = value[key];
  if (map === undefined || map === null) return result;
  if (!isStringMap(map)) throw new KoError(`Cannot read ${key} of ${what}: it is no map of strings`);
  result[key] = map;
  return result;
}

function isStringMap(value: unknown): value is Readonly<Record<string, string>> {
  return isObject(value) && Object.values(value).every((item) => typeof item === "string");
}
