/**
 * The values of a template and their text: `print`, `printf` and `%v` as Go's package fmt has them.
 *
 * A text is kept as its UTF-8 bytes, one per character (Latin-1), so that lengths, slices and order are those of Go.
 * Rules: https://pkg.go.dev/fmt#hdr-Printing. Verbs and flags that no known configuration uses are refused.
 */

/** A value. A `string` is bytes, a `number` is a float64, undefined is Go's nil. */
export type Value = string | boolean | number | Int | GoMap | undefined;

/** An integer. "int" is the type of a constant, "int64" that of a time, "uint8" that of a byte. */
export interface Int {
  readonly type: "int" | "int64" | "uint8";
  readonly value: bigint;
}

/** A map from texts to values. */
export interface GoMap {
  /** Go's type, such as `map[string]string`. */
  readonly type: string;
  /** The place in the data: empty for the whole, `Env`, `GoEnv` or `Git`. */
  readonly name: string;
  readonly size: number;
  has(key: string): boolean;
  /** Returns the zero value of the map's elements for a key that is missing. */
  get(key: string): Value;
  /** Returns all entries, sorted by key. */
  entries(): readonly (readonly [string, Value])[];
  /** Returns the name that a missing key may be a slip of. */
  nearest(key: string): string | undefined;
}

/** A mistake in a template, before its place is known. */
export class TemplateProblem extends Error {
  override readonly name: string = "TemplateProblem";
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

/** A verb of `printf` with its flags. */
interface Directive {
  readonly verb: string;
  readonly minus: boolean;
  readonly plus: boolean;
  readonly sharp: boolean;
  readonly space: boolean;
  readonly zero: boolean;
  readonly width: number;
  readonly precision: number | undefined;
  /** `%#v`: values as in Go's source. */
  readonly source: boolean;
}

/** The digits of a positive number: 0.DIGITS times ten to the power of `point`. */
interface Decimal {
  readonly digits: string;
  readonly point: number;
}

const VERBS = "sqvdxXtcfge%";
const MAX_WIDTH = 1000;

const PLAIN: Directive = {
  verb: "v",
  minus: false,
  plus: false,
  sharp: false,
  space: false,
  zero: false,
  width: 0,
  precision: undefined,
  source: false,
};

/** A character in UTF-8, or a byte that is part of none. */
const RUNE =
  /[\0-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|\xed[\x80-\x9f][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}|[^]/g;

const ESCAPES: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
};

/** Encodes a text as bytes. */
export function encodeText(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

/** Decodes bytes. @throws {TemplateProblem} If they are not UTF-8. */
export function decodeText(bytes: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.from(bytes, "latin1"));
  } catch {
    throw new TemplateProblem("the result is not UTF-8: it has half a character, or an escape such as \\xff");
  }
}

/** Returns the name of a value's type in Go. */
export function typeOf(value: Value): string {
  if (value === undefined) return "nil";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number") return "float64";
  return typeof value === "string" ? "string" : value.type;
}

/** Formats values as `print` does: a blank stands between two of them if neither is a text. */
export function print(values: readonly Value[]): string {
  let text = "";
  for (const [i, value] of values.entries()) {
    if (i > 0 && typeof value !== "string" && typeof values[i - 1] !== "string") text += " ";
    text += format(value, PLAIN);
  }
  return text;
}

/** Formats values as `println` does. */
export function println(values: readonly Value[]): string {
  return `${values.map((value) => format(value, PLAIN)).join(" ")}\n`;
}

/**
 * Formats values as `printf` does. Missing and surplus values, and those of another type, become `%!d(MISSING)` and the
 * like, as in Go.
 *
 * @throws {TemplateProblem} As {@link parseFormat} does.
 */
export function printf(text: string, values: readonly Value[]): string {
  let result = "";
  let used = 0;
  for (const piece of parseFormat(text)) {
    if (typeof piece === "string") result += piece;
    else if (used >= values.length) result += `%!${piece.verb}(MISSING)`;
    else result += format(values[used++], piece);
  }
  const surplus = values.slice(used).map((value) => (value === undefined ? "<nil>" : withType(value, PLAIN)));
  return surplus.length === 0 ? result : `${result}%!(EXTRA ${surplus.join(", ")})`;
}

/**
 * Parses a format into texts and verbs.
 *
 * @throws {TemplateProblem} If it has a verb, flag or width that is not supported.
 */
export function parseFormat(text: string): readonly (string | Directive)[] {
  return Array.from(text.matchAll(/[^%]+|%([-+# 0]*)(\d*)(?:\.(\d*))?([^]?)/g), (match) => {
    const [piece, flags, width = "", precision, verb = ""] = match;
    if (flags === undefined) return piece;
    if (verb === "" || !VERBS.includes(verb)) {
      const shown = `${piece.slice(0, piece.length - verb.length)}${/[ -~]/.test(verb) ? verb : ""}`;
      throw new TemplateProblem(`printf has no verb "${shown}", wanted one of ${VERBS.split("").join(" ")}`);
    }
    for (const size of [width, precision ?? ""]) {
      if (size.length > 4 || Number(size) > MAX_WIDTH) {
        throw new TemplateProblem(`the width in "${piece.slice(0, 20)}" is too large, wanted at most ${MAX_WIDTH}`);
      }
    }
    if (verb === "%") return "%";
    // `%+v` and `%#v` mean something else than the flags + and # of other verbs.
    const isPlain = verb === "v";
    return {
      verb,
      minus: flags.includes("-"),
      plus: flags.includes("+") && !isPlain,
      sharp: flags.includes("#") && !isPlain,
      space: flags.includes(" "),
      zero: flags.includes("0"),
      width: Number(width),
      precision: precision === undefined ? undefined : Number(precision),
      source: flags.includes("#") && isPlain,
    };
  });
}

function format(value: Value, how: Directive): string {
  if (value === undefined) return how.verb === "v" ? pad("<nil>", how) : `%!${how.verb}(<nil>)`;
  if (typeof value === "string") return formatText(value, how) ?? badVerb(value, how);
  if (typeof value === "boolean") return "tv".includes(how.verb) ? pad(String(value), how) : badVerb(value, how);
  if (typeof value === "number") return formatFloat(value, how) ?? badVerb(value, how);
  if ("value" in value) return formatInt(value, how) ?? badVerb(value, how);
  const items = value.entries().map(([key, item]) => `${format(key, how)}:${format(item, how)}`);
  return how.source ? `${value.type}{${items.join(", ")}}` : `map[${items.join(" ")}]`;
}

function badVerb(value: NonNullable<Value>, how: Directive): string {
  return `%!${how.verb}(${withType(value, { ...how, verb: "v" })})`;
}

function withType(value: NonNullable<Value>, how: Directive): string {
  return `${typeOf(value)}=${format(value, how)}`;
}

function formatText(bytes: string, how: Directive): string | undefined {
  if (how.verb === "x" || how.verb === "X") return pad(hexBytes(bytes, how), how);
  const text = how.precision === undefined ? bytes : runesOf(bytes).slice(0, how.precision).join("");
  if (how.verb === "q" || how.source) {
    return pad(how.sharp && canBackquote(text) ? `\`${text}\`` : quote(text, { mark: '"', ascii: how.plus }), how);
  }
  return "sv".includes(how.verb) ? pad(text, how) : undefined;
}

function hexBytes(bytes: string, how: Directive): string {
  const upper = how.verb === "X";
  const taken = bytes.slice(0, how.precision);
  const pairs = Array.from(taken, (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0"));
  const digits = how.space ? pairs.join(how.sharp ? " 0x" : " ") : pairs.join("");
  const text = how.sharp && pairs.length > 0 ? `0x${digits}` : digits;
  return upper ? text.toUpperCase() : text;
}

function formatInt({ type, value }: Int, how: Directive): string | undefined {
  switch (how.verb) {
    case "v":
      return digitsOf(value, how.source && type === "uint8" ? { ...how, verb: "x", sharp: true } : how);
    case "d":
    case "x":
    case "X":
      return digitsOf(value, how);
    case "c":
      return pad(encodeText(runeOf(value)), how);
    case "q":
      return pad(quote(encodeText(runeOf(value)), { mark: "'", ascii: how.plus }), how);
    default:
      return undefined;
  }
}

function digitsOf(value: bigint, how: Directive): string {
  const { precision, width } = how;
  const sign = value < 0n ? "-" : how.plus ? "+" : how.space ? " " : "";
  if (precision === 0 && value === 0n) return " ".repeat(width);
  const hex = how.verb === "x" || how.verb === "X";
  let digits = (value < 0n ? -value : value).toString(hex ? 16 : 10);
  if (precision !== undefined) digits = digits.padStart(precision, "0");
  else if (how.zero && !how.minus) digits = digits.padStart(width - sign.length, "0");
  if (hex && how.sharp) digits = `0x${digits}`;
  return pad(sign + (how.verb === "X" ? digits.toUpperCase() : digits), { ...how, zero: false });
}

/** Returns the character of a code point, U+FFFD if there is none. */
function runeOf(code: bigint): string {
  if (code < 0n || code > 0x10ffffn) return "\ufffd";
  return String.fromCodePoint(Number(code)).toWellFormed();
}

function formatFloat(value: number, how: Directive): string | undefined {
  const { verb, width } = how;
  if (verb === "x" || verb === "X") throw new TemplateProblem(`printf has no "%${verb}" for fractions`);
  if (!"vfge".includes(verb)) return undefined;
  const precision = how.precision ?? (verb === "f" || verb === "e" ? 6 : -1);
  const negative = value < 0 || Object.is(value, -0);
  const plain = floatDigits(Math.abs(value), verb, precision);
  const digits = how.sharp
    ? withPoint(plain, verb === "g" || verb === "v" ? (precision < 0 ? 6 : precision) : 0)
    : plain;
  const sign = negative ? "-" : how.plus ? "+" : how.space ? " " : "";
  if (sign !== "" && how.zero && !how.minus) return sign + digits.padStart(width - 1, "0");
  return pad(sign + digits, how);
}

/** @param precision -1 for the fewest digits that stand for this number */
function floatDigits(value: number, verb: string, precision: number): string {
  const shortest = precision < 0;
  if (verb === "f") return fixed(rounded(exactDecimal(value), { after: precision }), precision);
  if (verb === "e") return scientific(rounded(exactDecimal(value), { digits: precision + 1 }), precision);
  const decimal = shortest ? shortestDecimal(value) : rounded(exactDecimal(value), { digits: precision || 1 });
  const count = decimal.digits.length;
  const wanted = shortest ? count : precision || 1;
  // An exponent is written if it is below -4, or not below the number of digits.
  const limit = shortest ? 6 : wanted > count && count >= decimal.point ? count : wanted;
  const exponent = decimal.point - 1;
  if (exponent < -4 || exponent >= limit) return scientific(decimal, Math.min(wanted, count) - 1);
  return fixed(decimal, Math.max((wanted > decimal.point ? count : wanted) - decimal.point, 0));
}

function fixed({ digits, point }: Decimal, after: number): string {
  const whole = point > 0 ? digits.slice(0, point).padEnd(point, "0") : "0";
  if (after <= 0) return whole;
  const fraction = point >= 0 ? digits.slice(point) : "0".repeat(Math.min(-point, after)) + digits;
  return `${whole}.${fraction.slice(0, after).padEnd(after, "0")}`;
}

function scientific({ digits, point }: Decimal, after: number): string {
  const exponent = digits === "" ? 0 : point - 1;
  const fraction = after > 0 ? `.${digits.slice(1, after + 1).padEnd(after, "0")}` : "";
  const sign = exponent < 0 ? "-" : "+";
  return `${digits.charAt(0) || "0"}${fraction}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

/** Adds the decimal point, and zeros up to `count` significant digits. */
function withPoint(text: string, count: number): string {
  const [mantissa = "", tail = ""] = text.split(/(?=e)/);
  const significant = mantissa.replace(/^[0.]+|\./g, "").length + (mantissa === "0" ? 1 : 0);
  const zeros = "0".repeat(Math.max(0, count - significant));
  return `${mantissa}${mantissa.includes(".") ? "" : "."}${zeros}${tail}`;
}

function shortestDecimal(value: number): Decimal {
  const [mantissa = "", exponent = "0"] = value.toExponential().split("e");
  return trimmed(mantissa.replace(".", ""), Number(exponent) + 1);
}

/** Returns all decimal digits of a float64: toFixed() and toPrecision() round ties up, Go rounds them to even. */
function exactDecimal(value: number): Decimal {
  let whole = value;
  let halvings = 0;
  for (; !Number.isInteger(whole); halvings++) whole *= 2;
  // A value divided by two n times is the value times five to the power of n, divided by ten n times.
  const digits = (BigInt(whole) * 5n ** BigInt(halvings)).toString();
  return trimmed(digits, digits.length - halvings);
}

function trimmed(digits: string, point: number): Decimal {
  const kept = digits.replace(/^0+/, "");
  const end = kept.replace(/0+$/, "");
  return { digits: end, point: end === "" ? 0 : point - (digits.length - kept.length) };
}

/** Rounds to a number of digits, or of digits after the decimal point; a tie goes to the even digit. */
function rounded({ digits, point }: Decimal, to: { readonly digits: number } | { readonly after: number }): Decimal {
  const count = "digits" in to ? to.digits : point + to.after;
  if (count >= digits.length) return { digits, point };
  if (count < 0) return { digits: "", point: 0 };
  const rest = digits.slice(count);
  const isOdd = count > 0 && Number(digits[count - 1]) % 2 === 1;
  const isUp = rest === "5" ? isOdd : rest >= "5";
  const kept = digits.slice(0, count);
  if (!isUp) return trimmed(kept, point);
  const next = (BigInt(kept || "0") + 1n).toString().padStart(count, "0");
  return trimmed(next, point + next.length - count);
}

function pad(text: string, { width, minus, zero }: Directive): string {
  if (width === 0) return text;
  const missing = Math.max(0, width - runesOf(text).length);
  if (minus) return text + " ".repeat(missing);
  return (zero ? "0" : " ").repeat(missing) + text;
}

function runesOf(bytes: string): readonly string[] {
  return bytes.match(RUNE) ?? [];
}

/** Quotes a text as strconv.Quote does. */
function quote(bytes: string, { mark, ascii }: { readonly mark: string; readonly ascii: boolean }): string {
  const parts = runesOf(bytes).map((rune) => {
    if (rune === mark || rune === "\\") return `\\${rune}`;
    if (rune.length === 1 && rune >= "\x80") return `\\x${rune.charCodeAt(0).toString(16)}`;
    const text = decodeText(rune);
    if (ascii ? /^[ -~]$/.test(text) : /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u.test(text)) return rune;
    const escape = ESCAPES[text];
    if (escape !== undefined) return escape;
    const code = (text.codePointAt(0) ?? 0).toString(16);
    if (text < " " || text === "\x7f") return `\\x${code.padStart(2, "0")}`;
    return code.length > 4 ? `\\U${code.padStart(8, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
  return mark + parts.join("") + mark;
}

/** Reports whether a text can be written between backquotes, as strconv.CanBackquote does. */
function canBackquote(bytes: string): boolean {
  return runesOf(bytes).every((rune) => {
    if (rune.length === 1) return rune === "\t" || (rune >= " " && rune < "\x7f" && rune !== "`");
    return rune !== "\xef\xbb\xbf";
  });
}
