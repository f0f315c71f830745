/**
 * The characters and scalars of YAML, for yaml-scan.ts: where they end in a text, without their values.
 *
 * https://yaml.org/spec/1.2.2/#chapter-5-character-productions, chapters 7 and 8 for the scalars. A function that meets
 * an error, or a form that is rare, says that it does not know.
 */

/** A block scalar. Offsets are UTF-16 units of the text. */
export interface ScannedBlock {
  readonly style: "block";
  /** The offset of `|` or `>`. */
  readonly start: number;
  /** The end of the indicators, without the comment behind them. */
  readonly headerEnd: number;
  readonly bodyStart: number;
  readonly end: number;
}

export const TAB = 9;
const LF = 10;
const CR = 13;
const SPACE = 32;
export const QUOTE = 34;
export const HASH = 35;
export const AMPERSAND = 38;
export const APOSTROPHE = 39;
export const STAR = 42;
export const COMMA = 44;
const DASH = 45;
const DOT = 46;
export const COLON = 58;
export const GREATER = 62;
const QUESTION = 63;
export const OPEN_LIST = 91;
const BACKSLASH = 92;
const SMALL_K = 107;
export const CLOSE_LIST = 93;
export const OPEN_MAP = 123;
export const PIPE = 124;
export const CLOSE_MAP = 125;

/** Characters that cannot begin a plain scalar. */
const INDICATORS: ReadonlySet<number> = new Set(Array.from(",[]{}#&*!|>'\"%@`", (each) => each.charCodeAt(0)));
/** The escapes of double quotes that have no digits. */
const ESCAPES: ReadonlySet<number> = new Set(Array.from('0abtnvfre "/\\N_LP\t', (each) => each.charCodeAt(0)));
const HEX = { x: /[\da-fA-F]{2}/y, u: /[\da-fA-F]{4}/y };

/** `ko://` at the start of double quotes: characters may be escaped, and lines continued between them. */
const ESCAPED_REFERENCE = new RegExp(
  Array.from("ko://", (character) => {
    const hex = character
      .charCodeAt(0)
      .toString(16)
      .replace(/[a-f]/, (digit) => `[${digit}${digit.toUpperCase()}]`);
    return `(?:\\\\\\r?\\n[ \\t]*)*(?:\\\\?${character}|\\\\(?:x|u00|U000000)${hex})`;
  }).join(""),
  "y",
);

const NAME = /[\w.-]+/y;
const END_MARKER = /\.\.\.(?=[ \t\r\n]|$)/y;
const MARKER = /(?:---|\.\.\.)(?=[ \t\r\n]|$)/y;
/** `|` or `>`, its indicators, and the rest of the line. */
const HEADER = /[|>](?:[-+]?([1-9])?|([1-9])[-+])(?=[ \t\r\n]|$)[ \t]*(?:(?<=[ \t])#[^\n]*?)?(?:\r?\n|$)/y;

export function isBlank(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code === SPACE || code === TAB || code === LF || code === CR || Number.isNaN(code);
}

/** Reports whether the line, or the text, ends here. */
export function isLineEnd(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code === LF || code === CR || Number.isNaN(code);
}

/** Reports whether there is a sign that ends a plain scalar within a flow collection. */
export function isFlowSign(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code === COMMA || code === OPEN_LIST || code === CLOSE_LIST || code === OPEN_MAP || code === CLOSE_MAP;
}

export function isColon(text: string, at: number): boolean {
  return text.charCodeAt(at) === COLON && isBlank(text, at + 1);
}

export function isDash(text: string, at: number): boolean {
  return text.charCodeAt(at) === DASH && isBlank(text, at + 1);
}

export function isEndMarker(text: string, at: number): boolean {
  END_MARKER.lastIndex = at;
  return text.charCodeAt(at) === DOT && END_MARKER.test(text);
}

/** The first character that is not a space. */
export function skipSpaces(text: string, from: number): number {
  let at = from;
  while (text.charCodeAt(at) === SPACE) at++;
  return at;
}

/** The first character that is neither a space nor a tab. */
export function skipBlanks(text: string, from: number): number {
  let at = from;
  for (let code = text.charCodeAt(at); code === SPACE || code === TAB; code = text.charCodeAt(at)) at++;
  return at;
}

/** The start of the next line, or the end of the text. */
export function nextLine(text: string, from: number): number {
  const newline = text.indexOf("\n", from);
  return newline < 0 ? text.length : newline + 1;
}

/** The name of an anchor or alias; undefined if it has other characters than those that people use. */
export function readName(text: string, at: number): string | undefined {
  NAME.lastIndex = at;
  return NAME.exec(text)?.[0];
}

/** Reports whether a line begins with `---` or `...`, which no quoted scalar or flow collection can hold. */
export function isMarker(text: string, lineStart: number): boolean {
  MARKER.lastIndex = lineStart;
  return MARKER.test(text);
}

/** Reports whether the value of the scalar that begins here can begin with `ko://`. */
export function mayBeReference(text: string, start: number): boolean {
  const code = text.charCodeAt(start);
  if (code !== QUOTE) return text.startsWith("ko://", code === APOSTROPHE ? start + 1 : start);
  const first = text.charCodeAt(start + 1);
  if (first !== SMALL_K && first !== BACKSLASH) return false;
  ESCAPED_REFERENCE.lastIndex = start + 1;
  return ESCAPED_REFERENCE.test(text);
}

/** The end of a plain scalar's first line; -1 if no plain scalar begins here. */
export function endOfPlain(text: string, start: number, isFlow: boolean): number {
  const code = text.charCodeAt(start);
  if (INDICATORS.has(code)) return -1;
  const isOdd = code === DASH || code === QUESTION || code === COLON;
  if (isOdd && (isBlank(text, start + 1) || (isFlow && isFlowSign(text, start + 1)))) return -1;
  return endOfWords(text, start, isFlow);
}

/** The end of a line of a plain scalar, without the blanks behind it. */
export function endOfWords(text: string, start: number, isFlow: boolean): number {
  let end = start;
  for (let at = start; ; at++) {
    const code = text.charCodeAt(at);
    if (code === SPACE || code === TAB) continue;
    if (code === LF || code === CR || Number.isNaN(code)) return end;
    if (code === COLON && (isBlank(text, at + 1) || (isFlow && isFlowSign(text, at + 1)))) return end;
    if (code === HASH && at > end) return end;
    if (isFlow && isFlowSign(text, at)) return end;
    end = at + 1;
  }
}

/**
 * The end of a quoted scalar; -1 if it is not known. As for Go's parsers, which kubectl has, its lines need no indentation.
 */
export function endOfQuoted(text: string, start: number): number {
  const quote = text.charCodeAt(start);
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) {
      if (quote === QUOTE || text.charCodeAt(at + 1) !== APOSTROPHE) return at + 1;
      at++;
    } else if (code === LF) {
      if (isMarker(text, at + 1)) return -1;
    } else if (code === BACKSLASH && quote === QUOTE) {
      const length = lengthOfEscape(text, at + 1);
      if (length === undefined) return -1;
      at += length;
    }
  }
  return -1;
}

/**
 * Finds the end of a block scalar from its header.
 *
 * @returns the scalar, whose end excludes empty lines behind its content unless it keeps them, and the line behind it;
 * undefined if it is not known
 */
export function scanBlock(
  text: string,
  start: number,
  outer: number,
): { readonly scalar: ScannedBlock; readonly indent: number; readonly next: number } | undefined {
  HEADER.lastIndex = start;
  const [header, first, second] = HEADER.exec(text) ?? [];
  const digit = first ?? second;
  if (header === undefined || (digit !== undefined && outer < 0)) return undefined;
  const bodyStart = start + header.length;
  const indent = digit === undefined ? findBlockIndent(text, bodyStart, outer) : outer + Number(digit);
  if (indent === undefined) return undefined;
  const pad = " ".repeat(indent);
  let end = bodyStart;
  let at = bodyStart;
  for (let next = at; at < text.length; at = next) {
    next = nextLine(text, at);
    const behind = skipSpaces(text, text.startsWith(pad, at) ? at + indent : at);
    const isEmpty = isLineEnd(text, behind);
    if (behind - at > indent || (behind - at === indent && !isEmpty)) {
      if (indent === 0 && isEndMarker(text, at)) break;
      end = next;
    } else if (!isEmpty) {
      if (behind - at > outer || text.charCodeAt(behind) === TAB) return undefined;
      break;
    }
  }
  const indicators = /^[|>][-+\d]*/.exec(header)?.[0] ?? "";
  const headerEnd = start + indicators.length;
  if (indicators.includes("+")) end = at;
  return { scalar: { style: "block", start, headerEnd, bodyStart, end }, indent, next: at };
}

/** The indentation of the first line with text, or of one that would be deep enough; undefined if it is not known. */
function findBlockIndent(text: string, bodyStart: number, outer: number): number | undefined {
  let deepest = 0;
  for (let at = bodyStart; at < text.length; at = nextLine(text, at)) {
    const behind = skipSpaces(text, at);
    const indent = behind - at;
    if (isLineEnd(text, behind)) deepest = Math.max(deepest, indent);
    else if (indent <= outer) return outer + 1;
    else return text.charCodeAt(behind) === TAB || deepest > indent ? undefined : indent;
  }
  return deepest > outer + 1 ? undefined : outer + 1;
}

/** The length of an escape behind its backslash; undefined if it is not known. The line end of an escaped line counts 0. */
function lengthOfEscape(text: string, at: number): number | undefined {
  const code = text.charCodeAt(at);
  if (code === LF || code === CR) return 0;
  if (ESCAPES.has(code)) return 1;
  const letter = text.charAt(at);
  if (letter !== "x" && letter !== "u") return undefined;
  const digits = HEX[letter];
  digits.lastIndex = at + 1;
  return digits.test(text) ? digits.lastIndex - at : undefined;
}
