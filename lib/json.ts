/**
 * JSON and times exactly as Go writes them, since these bytes decide digests; and strict reads of JSON fields.
 *
 * Writing follows encoding/json for structs with `omitempty`, and time.RFC3339Nano.
 */
import { KoError } from "./errors.ts";

/** RFC 3339, and two forms that Go accepts too: an hour of one digit, a fraction after a comma. */
const TIME = /^(\d{4}-\d\d-\d\d)T(\d\d?)(:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/;

const [QUOTE, OPEN_LIST, BACKSLASH, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [34, 91, 92, 93, 123, 125];

/** The most levels of collections: the limit of Go's encoding/json. */
const MAX_DEPTH = 10_000;

/** A value that is written even if it is empty: a field without `omitempty` in Go. */
class Keep {
  readonly value: unknown;
  constructor(value: unknown) {
    this.value = value;
  }
}

/** Wraps a value of {@link object} that is written even if it is empty. */
export function keep(value: unknown): Keep {
  return new Keep(value);
}

/** Makes a JSON object with this key order. Empty values are left out, unless {@link keep} wraps them. */
export function object(fields: readonly (readonly [string, unknown])[]): Map<string, unknown> {
  const result = new Map<string, unknown>();
  for (const [key, value] of fields) {
    if (value instanceof Keep) result.set(key, value.value);
    else if (!isEmpty(value)) result.set(key, value);
  }
  return result;
}

/**
 * Encodes a value as Go's encoding/json does: no blanks, no final line end, `<`, `>`, `&`, U+2028 and U+2029 escaped.
 *
 * A `Map` keeps its order, like a Go struct. The keys of a plain object are sorted by bytes, like those of a Go map.
 */
export function encodeGoJson(value: unknown): Uint8Array {
  return new TextEncoder().encode(goJson(value));
}

/**
 * Encodes a value as Go's `json.Encoder` does with an indent of two blanks: with a final line end, and the same
 * characters escaped as {@link encodeGoJson} does.
 *
 * The keys of an object keep their order, like those of a Go struct. Undefined fields are left out.
 *
 * @param value plain data without empty objects and `Map`s
 */
export function encodeIndentedGoJson(value: unknown): Uint8Array {
  let text = JSON.stringify(value, undefined, 2);
  // Half of a surrogate pair: rare, and a function for each value is slow.
  if (/\\ud[89a-f]/.test(text)) {
    text = JSON.stringify(value, (_key, item) => (typeof item === "string" ? item.toWellFormed() : item), 2);
  }
  return new TextEncoder().encode(`${escapeForHtml(text)}\n`);
}

/** Compares two strings as Go does: by UTF-8 bytes, not by UTF-16 units. */
export function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/**
 * Formats a time as Go does after it has parsed it (RFC3339Nano): up to nine digits of the fraction, without trailing
 * zeros, and with the offset. A missing time is Go's zero time, in the year 1.
 *
 * @throws {KoError} If `text` is not RFC 3339, or is not in the calendar. Leap seconds are refused, as in Go.
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

/** Reports whether a value is a JSON object. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Formats a value as JSON for an error message, cut to 100 characters. */
export function quoteJson(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

/** The value at a path of fields; undefined if it is not there. */
export function fieldAt(value: unknown, ...keys: readonly string[]): unknown {
  let found = value;
  for (const key of keys) found = isObject(found) ? found[key] : undefined;
  return found;
}

/** The text at a path; empty if there is none. */
export function textAt(value: unknown, ...keys: readonly string[]): string {
  const found = fieldAt(value, ...keys);
  return typeof found === "string" ? found : "";
}

/** The number at a path; undefined if there is none. */
export function numberAt(value: unknown, ...keys: readonly string[]): number | undefined {
  const found = fieldAt(value, ...keys);
  return typeof found === "number" ? found : undefined;
}

/** The list at a path; empty if there is none. */
export function listAt(value: unknown, ...keys: readonly string[]): readonly unknown[] {
  const found = fieldAt(value, ...keys);
  return Array.isArray(found) ? found : [];
}

/**
 * Parses JSON; undefined if the text is not JSON, or nested too deeply. The error of JSON.parse() is dropped: it may quote
 * secrets.
 */
export function parseJson(text: string): unknown {
  if (isTooDeep(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Reports whether JSON is nested more deeply than Go reads: JSON.parse() takes 100 bytes of memory for each bracket. */
export function isTooDeep(text: string): boolean {
  if (text.length <= MAX_DEPTH) return false;
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      at++;
      while (at < text.length && text.charCodeAt(at) !== QUOTE) at += text.charCodeAt(at) === BACKSLASH ? 2 : 1;
    } else if (code === OPEN_LIST || code === OPEN_OBJECT) {
      if (++depth > MAX_DEPTH) return true;
    } else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth--;
  }
  return false;
}

/**
 * Parses a JSON object.
 *
 * @param what the document's name in an error
 * @throws {KoError} If the bytes are not a JSON object, or nested too deeply.
 */
export function parseObject(bytes: Uint8Array, what: string): Readonly<Record<string, unknown>> {
  const text = new TextDecoder("utf-8").decode(bytes);
  if (isTooDeep(text)) throw new KoError(`Cannot read ${what}: it is nested more than ${MAX_DEPTH} levels deep`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KoError(`Cannot read ${what}: it is not JSON`, { cause });
  }
  if (!isObject(value)) throw new KoError(`Cannot read ${what}: it is not a JSON object`);
  return value;
}

/** Reads a whole number. @throws {KoError} If the value is not one. */
export function readNumber(value: unknown, what: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value)) return value;
  throw new KoError(`Cannot read ${what}: ${quoteJson(value)} is not a whole number`);
}

/** Reads a list of strings. @throws {KoError} If the value is not one. */
export function readStrings(value: unknown, what: string): readonly string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw new KoError(`Cannot read ${what}: it is not a list of strings`);
}

/** Picks a boolean field, only if it is true. @throws {KoError} If it is not a boolean. */
export function readFlag<K extends string>(
  value: Readonly<Record<string, unknown>>,
  key: K,
  what: string,
): { [P in K]?: true } {
  const result: { [P in K]?: true } = {};
  const flag = value[key] ?? false;
  if (typeof flag !== "boolean")
    throw new KoError(`Cannot read ${key} of ${what}: ${quoteJson(flag)} is not a boolean`);
  if (flag) result[key] = true;
  return result;
}

/** Picks a list of strings, if the field is present. @throws {KoError} If it is not one. */
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

/** Picks the string fields that are present. @throws {KoError} If one is not a string. */
export function pickStrings<K extends string>(
  value: Readonly<Record<string, unknown>>,
  keys: readonly K[],
  what: string,
): { [P in K]?: string } {
  const result: { [P in K]?: string } = {};
  for (const key of keys) {
    const item = value[key];
    if (item === undefined || item === null) continue;
    if (typeof item !== "string")
      throw new KoError(`Cannot read ${key} of ${what}: ${quoteJson(item)} is not a string`);
    result[key] = item;
  }
  return result;
}

/** Picks a map of strings, if the field is present. @throws {KoError} If it is not one. */
export function pickStringMap<K extends string>(
  value: Readonly<Record<string, unknown>>,
  key: K,
  what: string,
): { [P in K]?: Readonly<Record<string, string>> } {
  const result: { [P in K]?: Readonly<Record<string, string>> } = {};
  const map = value[key];
  if (map === undefined || map === null) return result;
  if (!isStringMap(map)) throw new KoError(`Cannot read ${key} of ${what}: it is not a map of strings`);
  result[key] = map;
  return result;
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === "" || value === false || value === 0) return true;
  if (Array.isArray(value)) return value.length === 0;
  if (value instanceof Map) return value.size === 0;
  return isObject(value) && Object.keys(value).length === 0;
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
  return escapeForHtml(JSON.stringify(text.toWellFormed()));
}

/** Escapes the characters of JSON that Go escapes, so that it can stand in HTML and JavaScript. */
function escapeForHtml(json: string): string {
  return json.replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** @param seconds `2006-01-02T15:04:05` */
function isInCalendar(seconds: string): boolean {
  const date = new Date(`${seconds}Z`);
  // The 30th of February becomes the 1st of March, 24:00 the next day.
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(seconds);
}

function isStringMap(value: unknown): value is Readonly<Record<string, string>> {
  return isObject(value) && Object.values(value).every((item) => typeof item === "string");
}
