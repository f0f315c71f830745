/**
 * The tokens of a template, its literals, and its errors with their place in the configuration file.
 *
 * Follows Go's text/template/parse (lex.go) and strconv. Syntax: https://pkg.go.dev/text/template.
 */
import { KoError, UsageError } from "./errors.ts";
import { encodeText, type Int } from "./template-format.ts";

/** Says that the characters from `offset` on stand in the file at `line` and `column`, both from 1. */
export type Mark = readonly [offset: number, line: number, column: number];

/** The origin of a template's text. */
export interface TemplatePlace {
  /** The setting in messages: `ldflags of builds[0]`, `--ldflags`. */
  readonly setting: string;
  /** The file in messages; undefined for a flag or a variable. */
  readonly file?: string | undefined;
  /**
   * Where the text stands in the file, by offset: one mark for a text on one line, else one for each place where line or
   * column jumps, such as the lines of a block scalar and the escapes of a quoted one.
   *
   * @default none: messages have no line
   */
  readonly marks?: readonly Mark[];
}

export interface TemplateSource {
  readonly text: string;
  readonly place: TemplatePlace;
}

/** A mistake at an offset of a template. */
export interface Mistake {
  readonly offset: number;
  readonly why: string;
  readonly hint?: string | undefined;
}

export interface Token {
  readonly kind:
    | "text"
    | "open"
    | "close"
    | "space"
    | "keyword"
    | "word"
    | "field"
    | "variable"
    | "dot"
    | "string"
    | "number"
    | "bool"
    | "="
    | ":="
    | "|"
    | "("
    | ")"
    | "char";
  /** As written, but a text is without the white space that is trimmed. */
  readonly text: string;
  readonly offset: number;
}

const MAX_TEXT = 64 * 1024;

const KEYWORDS: ReadonlySet<string> = new Set(
  "block break continue define else end if range nil template with".split(" "),
);

const BLANKS = " \t\r\n";

/** The tokens inside of an action, except blanks; each begins where the last one ended. */
const PATTERNS: readonly (readonly [Token["kind"], RegExp])[] = [
  ["string", /"(?:[^"\\\n]|\\[^\n])*"|`[^`]*`/uy],
  ["number", /'(?:[^'\\\n]|\\[^\n])*'/uy],
  ["variable", /\$[\p{L}\p{Nd}_]*/uy],
  ["field", /\.(?!\d)[\p{L}\p{Nd}_]*/uy],
  ["number", /[+-]?0(?:[xX][\da-fA-F_]*(?:\.[\da-fA-F_]*)?(?:[pP][+-]?[\d_]*)?|[oO][0-7_]*|[bB][01_]*)i?/y],
  ["number", /(?=[+\-.\d])[+-]?[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?[\d_]*)?i?/y],
  ["word", /[\p{L}\p{Nd}_]+/uy],
  [":=", /:=/y],
  ["=", /=/y],
  ["|", /\|/y],
  ["(", /\(/y],
  [")", /\)/y],
  ["char", /[!-~]/y],
];

const UNCLOSED: Readonly<Record<string, string>> = {
  '"': "a quoted text does not end on its line",
  "`": "a text in backquotes does not end",
  "'": "a character does not end on its line",
  ":": 'wanted ":="',
};

const ALPHANUMERIC = /[\p{L}\p{Nd}_]/uy;
const TERMINATOR = /[ \t\r\n.,|:)(]|\}\}|$/y;

const ESCAPE = /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-3][0-7]{2})|([abfnrtv\\"']))|([^\\\n])/uy;
const ESCAPED: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** Makes the error of a template that is not valid. */
export function syntaxError(source: TemplateSource, mistake: Mistake): UsageError {
  return new UsageError(describe(source, mistake), { hint: mistake.hint });
}

/** Makes the error of a template that is valid, and cannot be rendered. */
export function renderError(source: TemplateSource, mistake: Mistake): KoError {
  return new KoError(describe(source, mistake), { hint: mistake.hint });
}

/**
 * Splits a template into tokens.
 *
 * @throws {UsageError} If an action, comment, text or number is malformed, or the template is too large.
 */
export function tokenize(source: TemplateSource): readonly Token[] {
  return new Lexer(source).run();
}

/** Reads a quoted text as bytes. Returns undefined if it is not valid. */
export function unquote(quoted: string): string | undefined {
  const inner = quoted.slice(1, -1);
  if (quoted.startsWith("`")) return encodeText(inner.replaceAll("\r", ""));
  let bytes = "";
  ESCAPE.lastIndex = 0;
  while (ESCAPE.lastIndex < inner.length) {
    const rune = nextRune(inner, '"');
    if (rune === undefined) return undefined;
    bytes += rune.isByte ? String.fromCharCode(rune.code) : encodeText(String.fromCodePoint(rune.code));
  }
  return bytes;
}

/**
 * Reads a constant number or character, as Go's parser and its `idealConstant` do. Returns undefined if it is not valid
 * or does not fit: an integer in 64 bits, a fraction in a float64.
 */
export function readNumber(text: string): Int | number | undefined {
  if (text.startsWith("'")) return readCharacter(text.slice(1, -1));
  const isHex = /^[+-]?0[xX]/.test(text);
  const misplaced = isHex ? /(?<![\da-fA-FxX])_|_(?![\da-fA-F])/ : /(?<![\dbBoO])_|_(?!\d)/;
  if (misplaced.test(text)) return undefined;
  const plain = text.replaceAll("_", "");
  const [, sign, digits] = /^([+-]?)(0[xX][\da-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9]\d*)$/.exec(plain) ?? [];
  if (digits !== undefined) {
    const size = BigInt(/^0\d/.test(digits) ? `0o${digits}` : digits);
    const value = sign === "-" ? -size : size;
    if (BigInt.asIntN(64, value) !== value) return undefined;
    // Go looks for an "e" to tell fractions apart, and takes -0x1e for one; without a sign it does not.
    return sign !== "" && isHex && /e/i.test(digits) ? Number(value) : { type: "int", value };
  }
  const value = isHex ? readHexFraction(plain) : /[.e]/i.test(plain) ? readFraction(plain) : undefined;
  return value !== undefined && Number.isFinite(value) ? value : undefined;
}

class Lexer {
  readonly #source: TemplateSource;
  readonly #text: string;
  readonly #tokens: Token[] = [];
  #at = 0;

  constructor(source: TemplateSource) {
    this.#source = source;
    this.#text = source.text;
  }

  run(): readonly Token[] {
    const text = this.#text;
    if (text.length > MAX_TEXT) {
      throw this.#error(0, `the template has ${text.length} characters, wanted at most ${MAX_TEXT}`);
    }
    while (this.#at < text.length) {
      const open = text.indexOf("{{", this.#at);
      const isTrimmed = open >= 0 && text[open + 2] === "-" && isBlank(text[open + 3]);
      this.#addText(open < 0 ? text.length : open, isTrimmed);
      if (open < 0) break;
      this.#at = open + (isTrimmed ? 4 : 2);
      if (text.startsWith("/*", this.#at)) this.#skipComment();
      else this.#readAction(open);
    }
    return this.#tokens;
  }

  #addText(end: number, isTrimmed: boolean): void {
    let stop = end;
    while (isTrimmed && stop > this.#at && isBlank(this.#text[stop - 1])) stop--;
    if (stop > this.#at) this.#add("text", this.#text.slice(this.#at, stop));
  }

  #skipComment(): void {
    const start = this.#at;
    const end = this.#text.indexOf("*/", start + 2);
    if (end < 0) throw this.#error(start, "the comment does not end, wanted */}}");
    this.#at = end + 2;
    if (!this.#skipClose()) throw this.#error(start, "the action must end behind the comment, wanted */}}");
  }

  #readAction(open: number): void {
    const text = this.#text;
    this.#tokens.push({ kind: "open", text: "{{", offset: open });
    const parentheses: number[] = [];
    while (this.#at < text.length) {
      const start = this.#at;
      if (this.#skipClose()) {
        const unclosed = parentheses.at(-1);
        if (unclosed !== undefined) throw this.#error(unclosed, 'this "(" is not closed');
        this.#tokens.push({ kind: "close", text: "}}", offset: start });
        return;
      }
      if (isBlank(text[start])) {
        let end = start;
        while (isBlank(text[end])) end++;
        // The last blank belongs to a delimiter that trims.
        if (text.startsWith("-}}", end)) end--;
        this.#add("space", text.slice(start, end));
        continue;
      }
      const { kind } = this.#readToken();
      if (kind === "(") parentheses.push(start);
      if (kind === ")" && parentheses.pop() === undefined) throw this.#error(start, 'this ")" has no "("');
    }
    throw this.#error(open, "the action is not closed, wanted }}");
  }

  /** Skips the delimiter that closes an action, and the blanks that it trims. Returns false if it is not here. */
  #skipClose(): boolean {
    const text = this.#text;
    if (text.startsWith("}}", this.#at)) {
      this.#at += 2;
      return true;
    }
    if (!isBlank(text[this.#at]) || !text.startsWith("-}}", this.#at + 1)) return false;
    this.#at += 4;
    while (isBlank(text[this.#at])) this.#at++;
    return true;
  }

  #readToken(): Token {
    const offset = this.#at;
    for (const [kind, pattern] of PATTERNS) {
      const found = this.#match(pattern, offset);
      if (found === undefined) continue;
      if (kind === "char" && UNCLOSED[found] !== undefined) break;
      if (kind === "number") this.#checkNumber(found);
      if (kind === "field" || kind === "variable" || kind === "word") this.#checkTerminator(found);
      if (kind === "field" && found === ".") return this.#add("dot", found);
      if (kind === "word" && KEYWORDS.has(found)) return this.#add("keyword", found);
      return this.#add(kind === "word" && /^(?:true|false)$/.test(found) ? "bool" : kind, found);
    }
    const character = String.fromCodePoint(this.#text.codePointAt(offset) ?? 0);
    throw this.#error(offset, UNCLOSED[character] ?? `${show(character)} cannot stand in an action`);
  }

  #checkNumber(found: string): void {
    if (found.startsWith("'")) return;
    const end = this.#at + found.length;
    const next = this.#text[end] ?? "";
    if (found.endsWith("i")) throw this.#error(this.#at, "complex numbers are not supported");
    if (next === "+" || next === "-") throw this.#error(end, `there is no arithmetic, wanted a blank before "${next}"`);
    if (this.#match(ALPHANUMERIC, end) !== undefined) throw this.#error(this.#at, `"${found}${next}" is not a number`);
  }

  #checkTerminator(found: string): void {
    const end = this.#at + found.length;
    if (this.#match(TERMINATOR, end) !== undefined) return;
    const character = String.fromCodePoint(this.#text.codePointAt(end) ?? 0);
    const map = /\.(?:Env|GoEnv)$/.exec(this.#text.slice(0, this.#at))?.[0];
    const name = /^[^\s{}|()"]+/.exec(this.#text.slice(this.#at + 1))?.[0] ?? "NAME";
    const why = `${show(character)} cannot stand behind "${found}", wanted a blank`;
    const hint = map === undefined ? undefined : `Type: index ${map} "${name}"`;
    throw syntaxError(this.#source, { offset: end, why, hint });
  }

  #match(pattern: RegExp, offset: number): string | undefined {
    pattern.lastIndex = offset;
    return pattern.exec(this.#text)?.[0];
  }

  #add(kind: Token["kind"], text: string): Token {
    const token = { kind, text, offset: this.#at };
    this.#tokens.push(token);
    this.#at += text.length;
    return token;
  }

  #error(offset: number, why: string): UsageError {
    return syntaxError(this.#source, { offset, why });
  }
}

function describe({ text, place }: TemplateSource, { offset, why }: Mistake): string {
  const [from = 0, line, column = 1] = place.marks?.findLast(([start]) => start <= offset) ?? place.marks?.[0] ?? [];
  const position = line === undefined ? "" : `:${line}:${column + Math.max(0, offset - from)}`;
  const where = place.file === undefined ? "" : ` at ${place.file}${position}`;
  const open = text.lastIndexOf("{{", offset);
  if (open < 0) return `Cannot use ${place.setting}${where}: ${why}`;
  const close = text.indexOf("}}", open);
  const action = text.slice(open, close < 0 ? text.length : close + 2).replace(/\s+/g, " ");
  return `Cannot use ${place.setting}${where}: ${action.length > 80 ? `${action.slice(0, 80)}…` : action}: ${why}`;
}

function isBlank(character: string | undefined): boolean {
  return character !== undefined && BLANKS.includes(character);
}

function show(character: string): string {
  const code = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return /^[!-~]$/.test(character) ? `"${character}"` : `the character U+${code}`;
}

function readCharacter(inner: string): Int | undefined {
  ESCAPE.lastIndex = 0;
  const rune = nextRune(inner, "'");
  return rune === undefined || ESCAPE.lastIndex < inner.length ? undefined : { type: "int", value: BigInt(rune.code) };
}

/** Reads the character at `ESCAPE.lastIndex`, and moves that behind it. */
function nextRune(inner: string, mark: string): { readonly code: number; readonly isByte: boolean } | undefined {
  const match = ESCAPE.exec(inner);
  if (match === null) return undefined;
  const [, byte, short, long, octal, letter, plain] = match;
  if (plain !== undefined) return plain === mark ? undefined : { code: plain.codePointAt(0) ?? 0, isByte: false };
  if (letter !== undefined) {
    if ("'\"".includes(letter) && letter !== mark) return undefined;
    return { code: (ESCAPED[letter] ?? letter).charCodeAt(0), isByte: false };
  }
  if (byte !== undefined) return { code: Number.parseInt(byte, 16), isByte: true };
  if (octal !== undefined) return { code: Number.parseInt(octal, 8), isByte: true };
  const code = Number.parseInt(short ?? long ?? "", 16);
  return code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? undefined : { code, isByte: false };
}

function readFraction(text: string): number | undefined {
  return /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(text) ? Number(text) : undefined;
}

function readHexFraction(text: string): number | undefined {
  const match = /^([+-]?)0[xX]([\da-fA-F]*)\.?([\da-fA-F]*)[pP]([+-]?\d+)$/.exec(text);
  const [, sign, whole = "", rest = "", exponent] = match ?? [];
  if (whole + rest === "") return undefined;
  const value = Number(BigInt(`0x${whole}${rest}`)) * 2 ** (Number(exponent) - 4 * rest.length);
  return sign === "-" ? -value : value;
}
