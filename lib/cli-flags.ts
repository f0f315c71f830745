/**
 * Parses command line flags as Go's pflag does (https://github.com/spf13/pflag), and formats them for `--help`.
 *
 * Differences from pflag: `-n=` is an empty value (pflag: "="), numbers are decimal, a line end in a list is an error (pflag
 * drops the rest), and empty words and list items count for nothing. The tables of ko's own flags are in cli-flag-groups.ts.
 */
import { findNearest, UsageError } from "./errors.ts";

interface FlagBase {
  /** One or two sentences for `--help`. */
  readonly help: string;
  /** One letter. */
  readonly short?: string;
  /** The name of the value in `--help`. @default by kind: `TEXT`, `N`, `LIST` */
  readonly placeholder?: string;
  /** Values that shell completion offers; the parser accepts others too. */
  readonly values?: readonly string[];
  /** The kind of thing that the value names, for shell completion. */
  readonly completes?: "file" | "directory" | "package";
}

export interface BoolFlag extends FlagBase {
  readonly kind: "bool";
  readonly default: boolean;
}

export interface TextFlag extends FlagBase {
  readonly kind: "text";
  /** Empty means: not given. */
  readonly default: string;
}

/** A whole decimal number. */
export interface IntFlag extends FlagBase {
  readonly kind: "int";
  readonly default: number;
  readonly min?: number;
}

/**
 * Repeatable and comma-separated: each value is one CSV record, whose empty fields count for nothing. The first use replaces
 * the default.
 */
export interface ListFlag extends FlagBase {
  readonly kind: "list";
  readonly default: readonly string[];
  /** False keeps commas and quotes as part of the value; repeats still make a list. @default true */
  readonly commas?: boolean;
}

/**
 * A flag whose value is optional and follows `=`: `--timing`, `--timing=FILE` (pflag's NoOptDefVal).
 *
 * As for other flags, an empty value means "not given"; `=true` and `=false` mean the same as for a bool flag.
 */
export interface OptionalFlag extends FlagBase {
  readonly kind: "optional";
  readonly default: false;
}

export type Flag = BoolFlag | TextFlag | IntFlag | ListFlag | OptionalFlag;

/** Flags by long name, without dashes, in the order of `--help`. */
export type FlagTable = Readonly<Record<string, Flag>>;

export type FlagValue = boolean | string | number | readonly string[];

interface ValueOfKind {
  readonly bool: boolean;
  readonly text: string;
  readonly int: number;
  readonly list: readonly string[];
  /** True: given alone. False: not given. */
  readonly optional: boolean | string;
}

/** The values of a table's flags by long name: `values["tag-only"]` is a boolean. */
export type FlagValues<T extends FlagTable> = { readonly [N in keyof T]: ValueOfKind[T[N]["kind"]] };

export interface ParsedFlags<T extends FlagTable> {
  readonly values: FlagValues<T>;
  /** Long names of the flags that the user wrote. */
  readonly given: ReadonlySet<string>;
  readonly positionals: readonly string[];
  /** The words after `--`. */
  readonly afterDashes: readonly string[];
  /** True if `-h` or `--help` was given; the values may then be incomplete. */
  readonly help: boolean;
}

export interface ParseFlagsOptions {
  /** The command in messages: `ko build`. */
  readonly command: string;
  /** False ends the flags at the first word: that word and all later ones are positionals. @default true */
  readonly interspersed?: boolean;
}

const HELP_FLAG: BoolFlag = { kind: "bool", default: false, short: "h", help: "Show help." };

const PLACEHOLDERS = { bool: "", text: "TEXT", int: "N", list: "LIST", optional: "TEXT" } as const;

/** With fewer columns the right one of two would be too narrow: it begins on a line of its own. */
const WIDE_ENOUGH = 60;

/**
 * Parses the words of a command line.
 *
 * Accepts `--name=value`, `--name value`, `-n value`, `-nvalue`, `-n=value`, bundled shorts (`-Rf x`) and flags after
 * words. `--` ends the flags, and a lone `-` is a word. Errors never quote the value of an unknown flag: it may be a
 * secret. `--help` takes precedence over errors in other flags.
 *
 * @throws {UsageError} If a flag is unknown, has no value, or has an invalid value.
 */
export function parseFlags<T extends FlagTable>(
  table: T,
  argv: readonly string[],
  options: ParseFlagsOptions,
): ParsedFlags<T> {
  const flags: FlagTable = { help: HELP_FLAG, ...table };
  const values = new Map<string, FlagValue>(Object.entries(flags).map(([name, flag]) => [name, flag.default]));
  const given = new Set<string>();
  let positionals: readonly string[] = [];
  let afterDashes: readonly string[] = [];
  let mistake: UsageError | undefined;
  let next = 0;
  const take = (): string | undefined => argv[next++];
  const set = (name: string, text: string): void => {
    const flag = flags[name];
    if (flag === undefined) return;
    const value = readValue(flag, text, { shown: `--${name}`, before: given.has(name) ? values.get(name) : undefined });
    values.set(name, value);
    given.add(name);
  };
  const reader: Reader = { flags, command: options.command, take, set };
  for (let word = take(); word !== undefined; word = take()) {
    if (word === "--") {
      afterDashes = argv.slice(next);
      break;
    }
    // A variable of the shell that is empty, in quotes: `ko apply "$FLAGS" -f -`.
    if (word === "") continue;
    if (word === "-" || !word.startsWith("-")) {
      positionals = [...positionals, word];
      if (options.interspersed ?? true) continue;
      positionals = argv.slice(next - 1);
      break;
    }
    try {
      if (word.startsWith("--")) readLong(word, reader);
      else readShorts(word, reader);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      mistake ??= error;
    }
  }
  const help = values.get("help") === true;
  if (mistake !== undefined && !help) throw mistake;
  if (!("help" in table)) for (const place of [values, given]) place.delete("help");
  const record = Object.fromEntries(values);
  if (!fitsTable(table, record)) throw new TypeError(`a value does not fit the flags of "${options.command}"`);
  return { values: record, given, positionals, afterDashes, help };
}

/** Reports whether every flag of the table has a value of its kind. */
export function fitsTable<T extends FlagTable>(
  table: T,
  values: Readonly<Record<string, FlagValue>>,
): values is FlagValues<T> {
  return Object.entries(table).every(([name, flag]) => {
    const value = values[name];
    if (flag.kind === "list") return Array.isArray(value);
    if (flag.kind === "optional") return typeof value === "boolean" || typeof value === "string";
    return typeof value === { bool: "boolean", text: "string", int: "number" }[flag.kind];
  });
}

/**
 * Parses one CSV record as Go's encoding/csv does: `a,b`, `"a,b",c`, `"say ""x"""`. An empty text has no fields.
 *
 * @returns the fields, or the reason why the text is not a record
 */
export function readCsv(text: string): readonly string[] | { readonly why: string } {
  const fields: string[] = [];
  if (text === "") return fields;
  for (let at = 0; at <= text.length; at++) {
    if (text[at] === '"') {
      const quoted = /"((?:[^"]|"")*)"(?=,|$)/y;
      quoted.lastIndex = at;
      const match = quoted.exec(text);
      if (match === null)
        return { why: 'a value that begins with a quote (") must end with one, before a comma or the end' };
      fields.push((match[1] ?? "").replaceAll('""', '"'));
      at = quoted.lastIndex;
      continue;
    }
    const comma = text.indexOf(",", at);
    const end = comma < 0 ? text.length : comma;
    const field = text.slice(at, end);
    if (field.includes('"')) return { why: 'a quote (") inside a value needs quotes around the value: "say ""so"""' };
    // Go silently drops the rest of the text here.
    if (/[\r\n]/.test(field)) return { why: "a line end inside a value needs quotes around the value" };
    fields.push(field);
    at = end;
  }
  return fields;
}

/** Reports whether a flag without `=` takes the next word as its value. */
export function takesWord({ kind }: Flag): boolean {
  return kind !== "bool" && kind !== "optional";
}

/** Formats flags as two columns, for `--help`. @param width columns of the terminal */
export function formatFlags(table: FlagTable, width: number): string {
  const rows = Object.entries(table).map(([name, flag]) => [formatFlagName(name, flag), describeFlag(flag)] as const);
  return formatColumns(rows, { indent: 2, gap: 2, maxLeft: 28, width });
}

/** The table of `--help`, the flag that every command has. */
export function helpFlag(): FlagTable {
  return { help: HELP_FLAG };
}

/** Formats a flag as `-t, --tags LIST` or `    --timing[=FILE]`. */
export function formatFlagName(name: string, flag: Flag): string {
  const placeholder = flag.placeholder ?? PLACEHOLDERS[flag.kind];
  const short = flag.short === undefined ? "    " : `-${flag.short}, `;
  if (flag.kind === "optional") return `${short}--${name}[=${placeholder}]`;
  return `${short}--${name}${placeholder === "" ? "" : ` ${placeholder}`}`;
}

/** Formats the default as a user would type it; undefined if the default means "not given". */
export function formatDefault(flag: Flag): string | undefined {
  const text = Array.isArray(flag.default) ? flag.default.join(",") : String(flag.default);
  return text === "" || text === "false" || text === "0" ? undefined : text;
}

export interface FormatColumnsOptions {
  readonly indent: number;
  readonly gap: number;
  /** A wider left cell gets a line of its own. */
  readonly maxLeft: number;
  /** Columns of the terminal. */
  readonly width: number;
}

/** Formats rows of two cells as columns; the right column is wrapped. */
export function formatColumns(rows: readonly (readonly [string, string])[], options: FormatColumnsOptions): string {
  const { indent, width } = options;
  const isWide = width >= WIDE_ENOUGH;
  const maxLeft = isWide ? options.maxLeft : 0;
  const left = Math.max(0, ...rows.map(([cell]) => cell.length).filter((length) => length <= maxLeft));
  const margin = isWide ? indent + left + options.gap : 2 * indent + options.gap;
  return rows
    .map(([cell, text]) => {
      const lines = wrapText(text, width - margin).map((line) => " ".repeat(margin) + line);
      // Only a list of names is that long.
      const names = cell.length > width - indent ? wrapText(cell, width - indent) : [cell];
      const head = names.map((line) => " ".repeat(indent) + line).join("\n");
      if (cell.length > maxLeft) return [head, ...lines].join("\n");
      return [head.padEnd(margin) + (lines[0] ?? "").trimStart(), ...lines.slice(1)].join("\n").trimEnd();
    })
    .join("\n");
}

/** Wraps paragraphs for `--help`; a line that begins with two blanks is not wrapped. */
export function wrapParagraphs(text: string, width: number): string {
  return text
    .split("\n")
    .map((line) => (line.startsWith("  ") ? line : wrapText(line, width).join("\n")))
    .join("\n");
}

interface Reader {
  readonly flags: FlagTable;
  readonly command: string;
  /** Consumes the next word of the command line. */
  take(): string | undefined;
  set(name: string, text: string): void;
}

function readLong(word: string, reader: Reader): void {
  const equals = word.indexOf("=");
  const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
  if (name === "" || name.startsWith("-")) {
    throw new UsageError(`Cannot read "${equals < 0 ? word : word.slice(0, equals)}": it is not a flag, wanted --NAME`);
  }
  const flag = Object.hasOwn(reader.flags, name) ? reader.flags[name] : undefined;
  if (flag === undefined) throw unknownFlag(name, reader);
  if (equals >= 0) reader.set(name, word.slice(equals + 1));
  else if (!takesWord(flag)) reader.set(name, "true");
  else reader.set(name, reader.take() ?? needsValue(`--${name}`, flag));
}

function readShorts(word: string, reader: Reader): void {
  for (let at = 1; at < word.length; at++) {
    const letter = word.charAt(at);
    const found = Object.entries(reader.flags).find(([, flag]) => flag.short === letter);
    if (found === undefined) throw unknownShort(letter, { word, reader });
    const [name, flag] = found;
    const rest = word.slice(at + 1);
    if (rest.startsWith("=")) return reader.set(name, rest.slice(1));
    if (takesWord(flag)) {
      return reader.set(name, rest !== "" ? rest : (reader.take() ?? needsValue(`-${letter}`, flag)));
    }
    reader.set(name, "true");
  }
}

interface ReadValueOptions {
  /** The flag in messages: `--tags`. */
  readonly shown: string;
  /** The value of earlier uses of the flag. */
  readonly before: FlagValue | undefined;
}

function readValue(flag: Flag, text: string, options: ReadValueOptions): FlagValue {
  const fail = (why: string): UsageError => new UsageError(`Cannot use ${options.shown}="${text}": ${why}`);
  if (flag.kind === "text") return text;
  if (flag.kind === "optional") {
    if (text === "" || text === "false") return false;
    return text === "true" ? true : text;
  }
  if (flag.kind === "bool") {
    // Go's strconv.ParseBool
    if (/^(?:1|t|T|true|TRUE|True)$/.test(text)) return true;
    if (/^(?:0|f|F|false|FALSE|False)$/.test(text)) return false;
    throw fail("wanted true or false");
  }
  if (flag.kind === "int") {
    const value = Number(text);
    if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(value)) throw fail("wanted a whole number");
    if (flag.min !== undefined && value < flag.min) throw fail(`wanted a number of at least ${flag.min}`);
    return value;
  }
  const read = flag.commas === false ? [text] : readCsv(text);
  if ("why" in read) throw fail(read.why);
  const fields = flag.commas === false ? read : read.filter((field) => field !== "");
  return Array.isArray(options.before) ? [...options.before, ...fields] : fields;
}

function needsValue(shown: string, flag: Flag): never {
  const example = flag.placeholder ?? PLACEHOLDERS[flag.kind];
  throw new UsageError(`Cannot use ${shown}: it has no value, wanted ${shown} ${example}`);
}

function unknownFlag(name: string, reader: Reader): UsageError {
  const nearest = findNearest(name, Object.keys(reader.flags));
  const near = nearest === undefined ? "" : `, the nearest is --${nearest}`;
  const passes = /^ko (?:apply|create|run)$/.test(reader.command) && nearest === undefined;
  return new UsageError(`Cannot use --${name}: "${reader.command}" has no such flag${near}`, {
    hint: passes
      ? `Put kubectl's flags after --: ${reader.command} … -- --${name}`
      : `Type "${reader.command} --help" to see the flags.`,
  });
}

function unknownShort(letter: string, options: { readonly word: string; readonly reader: Reader }): UsageError {
  const { reader } = options;
  const shorts = Object.values(reader.flags).flatMap((flag) => flag.short ?? []);
  const near = shorts.find((short) => short.toLowerCase() === letter.toLowerCase());
  // Go's own tools spell flags with one dash: `-push=false`.
  const long = options.word.slice(1).replace(/=.*$/s, "");
  const nearest = Object.hasOwn(reader.flags, long) ? `--${long}` : near === undefined ? undefined : `-${near}`;
  const asked = nearest === undefined ? "" : `, the nearest is ${nearest}`;
  return new UsageError(`Cannot use -${letter}: "${reader.command}" has no such flag${asked}`, {
    hint: `Type "${reader.command} --help" to see the flags.`,
  });
}

function describeFlag(flag: Flag): string {
  const value = formatDefault(flag);
  return value === undefined ? flag.help : `${flag.help} (default: ${value})`;
}

function wrapText(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = "";
  // "(default: x)" stays on one line, if one is wide enough.
  const words = text.split(/(?<!\(default:) /).flatMap((word) => (word.length > width ? word.split(" ") : word));
  for (const word of words) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
