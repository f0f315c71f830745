/**
 * JSON and times as Go writes them: the bytes that decide a digest.
 *
 * Go's encoding/json on structs with `omitempty`, and time.RFC3339Nano. Reading is plain `JSON.parse`.
 *
 * Fields of JSON documents from outside, read strictly: a value of the wrong type is an error that names the document.
 */
import { KoError } from "./errors.ts";

/** RFC 3339, with what Go takes besides: an hour of one digit, a fraction behind a comma. */
const TIME = /^(\d{4}-\d\d-\d\d)T(\d\d?)(:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/;

/** A value that is written even when it is empty (Go: a field without `omitempty`). */
class Keep {
  readonly value: unknown;
  constructor(value: unknown) {
    this.value = value;
  }
}

/** Wraps a value of {@link object} that is written even when it is empty. */
export function keep(value: unknown): Keep {
  return new Keep(value);
}

/** A JSON object with this key order; empty values are left out unless {@link keep} wraps them. */
export function object(fields: readonly (readonly [string, unknown])[]): Map<string, unknown> {
  const result = new Map<string, unknown>();
  for (const [key, value] of fields) {
    if (value instanceof Keep) result.set(key, value.value);
    else if (!isEmpty(value)) result.set(key, value);
  }
  return result;
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === "" || value === false || value === 0) return true;
  if (Array.isArray(value)) return value.length === 0;
  if (value instanceof Map) return value.size === 0;
  return isObject(value) && Object.keys(value).length === 0;
}

/**
 * JSON as Go's encoding/json writes it: no blanks, no final line end, `<`, `>`, `&`, U+2028 and U+2029 escaped.
 *
 * A `Map` keeps its order (a Go struct); a plain object gets its keys sorted by bytes (a Go map).
 */
export function encodeGoJson(value: unknown): Uint8Array {
  return new TextEncoder().encode(goJson(value));
}

function goJson(value: unknown): string {
  if (typeof value === "string") return goString(value);
  if (Array.isArray(value)) return `[${value.map(goJson).join(",")}]`;
  if (value instanceof Map) {
    return `{${Array.from(value, ([key, item]) => `${goString(String(key))}:${goJson(item)}`).join(",")}}`;
  }
  if (isObject(value)) {
    const keys = Object.keys(value).sort(compareBytes);
    return `{${keys.map((key) => `${goString(key)}:${goJson(value[key])}`).join(",")}}`;
  }
  return JSON.stringify(value ?? null);
}

function goString(text: string): string {
  return JSON.stringify(text.toWellFormed()).replace(/[<>&\u2028\u2029]/g, (c) => {
    return `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** Compares as Go does: by UTF-8 bytes, not by UTF-16 units. */
export function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/**
 * A time as Go prints it after reading it (RFC3339Nano): trailing zeros of the fraction cut, the offset kept, up to
 * nine digits. Absent means Go's zero time, the year 1.
 *
 * @throws {KoError} If `text` is not RFC 3339, or a time that no calendar has (leap seconds too, as in Go).
 */
export function goTime(text: string | undefined): string {
  if (text === undefined || text === "") return "0001-01-01T00:00:00Z";
  const match = TIME.exec(text);
  const [, date = "", hour = "", minutes = "", digits = "", offset = ""] = match ?? [];
  const seconds = `${date}T${hour.padStart(2, "0")}${minutes}`;
  if (match === null || !isInCalendar(seconds)) {
    throw new KoError(`Cannot read ${quoteJson(text)} as a time: RFC 3339 is wanted`);
  }
  const fraction = digits.slice(0, 9).replace(/0+$/, "");
  const zone = offset === "+00:00" || offset === "-00:00" ? "Z" : offset;
  return `${seconds}${fraction === "" ? "" : `.${fraction}`}${zone}`;
}

/** @param seconds `2006-01-02T15:04:05` */
function isInCalendar(seconds: string): boolean {
  const date = new Date(`${seconds}Z`);
  // The 30th of February becomes the 1st of March, 24:00 the next day.
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(seconds);
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value as JSON for an error message, cut to a readable length. */
export function quoteJson(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

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
