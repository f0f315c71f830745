/**
 * Where the characters of a YAML value stand in the file, for messages about a part of the value.
 *
 * Styles: https://yaml.org/spec/1.2.2/#chapter-7-flow-style-productions, chapter 8 for block scalars.
 */
import type { LineCounter, Scalar } from "yaml";
import type { Mark } from "./template-lex.ts";

/** Escapes of double-quoted values that stand for another character than the one behind the backslash. */
const ESCAPES: Readonly<Record<string, string>> = {
  "0": "\0",
  a: "\x07",
  b: "\b",
  t: "\t",
  n: "\n",
  v: "\v",
  f: "\f",
  r: "\r",
  e: "\x1b",
  N: "\x85",
  _: "\xa0",
  L: "\u2028",
  P: "\u2029",
};

const ESCAPE = /\\(?:x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|\r\n|[^])/y;

export interface MarkScalarOptions {
  /** The text of the file. */
  readonly text: string;
  /** The lines of `text`. */
  readonly lines: LineCounter;
}

/**
 * Finds where each part of a value stands in the file.
 *
 * Only characters that are not white space are matched, because folding and indentation change white space; a blank
 * counts to the character before it.
 *
 * @param scalar a text that was parsed from the file
 */
export function markScalar(
  { value, range, type }: Scalar<string>,
  { text, lines }: MarkScalarOptions,
): readonly Mark[] {
  const [start = 0, end = 0] = range ?? [];
  const marks: Mark[] = [];
  let at = type?.startsWith("BLOCK") === true ? text.indexOf("\n", start) + 1 : start;
  if (type?.startsWith("QUOTE") === true) at++;
  for (let offset = 0; offset < value.length && at < end;) {
    const source = type === "QUOTE_DOUBLE" ? readEscape(text, at) : (text[at] ?? "");
    const character = source.length > 1 ? unescape(source) : source;
    if (isWhite(value[offset])) {
      offset++;
    } else if (isWhite(character)) {
      at += source.length;
    } else {
      const { line, col } = lines.linePos(at);
      const [from = 0, lastLine, column = 0] = marks.at(-1) ?? [];
      if (line !== lastLine || col !== column + offset - from) marks.push([offset, line, col]);
      offset += character.length;
      at += type === "QUOTE_SINGLE" && source === "'" ? 2 : source.length;
    }
  }
  return marks;
}

function readEscape(text: string, at: number): string {
  ESCAPE.lastIndex = at;
  return ESCAPE.exec(text)?.[0] ?? text[at] ?? "";
}

function unescape(escape: string): string {
  const digits = /^\\[xuU](.+)$/.exec(escape)?.[1];
  if (digits !== undefined) return String.fromCodePoint(Number.parseInt(digits, 16));
  const character = escape.slice(1);
  return ESCAPES[character] ?? character;
}

/** The empty text is that of an escaped line end. */
function isWhite(character: string | undefined): boolean {
  return character === undefined || /^\s*$/.test(character);
}
