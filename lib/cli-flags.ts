/**
 * Command line flags as tables: parsing as Go's pflag parses, and the `--help` text.
 *
 * Rules of https://github.com/spf13/pflag: `--name=value`, `--name value`, `-n value`, `-nvalue`, `-n=value`, bundled
 * shorts (`-Rf x`), flags after words, `--` ends the flags, a lone `-` is a word, a bool flag takes a value only after
 * `=`, and so does a flag whose value is optional (pflag's NoOptDefVal). Three differences: `-n=` is empty (pflag: "="), numbers are decimal, and a line end in a list is an error
 * (pflag drops what follows it). Knows no command by name: the tables are in cli-parse.ts.
 */
import { findNearest, UsageError } from "./errors.ts";

interface FlagBase {
  /** What it does, in one or two sentences; shown by `--help`. */
  readonly help: string;
  /** One letter. */
  readonly short?: string;
  /** What stands for the value in `--help`. @default by kind: `TEXT`, `N`, `LIST` */
  readonly placeholder?: string;
  /** What the value can be, for shell completion; the parser takes others too. */
  readonly values?: readonly string[];
  /** What the value names, for shell completion. */
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

/** Repeatable and comma-separated: each value is one CSV record. The first use replaces the default. */
export interface ListFlag extends FlagBase {
  readonly kind: "list";
  readonly default: readonly string[];
  /** False takes each value as it is, commas and quotes too; repeats still make a list. @default true */
  readonly commas?: boolean;
}

/**
 * A flag that means something alone, and something else with a value, which stands after `=`: `--timing`,
 * `--timing=FILE`. As for other flags, an empty value means "not given"; `=true` and `=false` are what they are for a
 * bool flag, and no values.
 */
export interface OptionalFlag extends FlagBase {
  readonly kind: "optional";
  readonly default: false;
}

export type Flag = BoolFlag | TextFlag | IntFlag | ListFlag | OptionalFlag;

/** Flags by their long names, without dashes, in the order of `--help`. */
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
  /** What follows `--`. */
  readonly afterDashes: readonly string[];
  /** `-h` or `--help` was there; the values may then be incomplete. */
  readonly help: boolean;
}

export interface ParseFlagsOptions {
  /** Who is called, for messages: `ko build`. */
  readonly command: string;
  /** False ends the flags at the first word; it and all that follows are positionals. @default true */
  readonly interspersed?: boolean;
}

const HELP_FLAG: BoolFlag = { kind: "bool", default: false, short: "h", help: "Show this help." };

const PLACEHOLDERS = { bool: "", text: "TEXT", int: "N", list: "LIST", optional: "TEXT" } as const;

/** Columns of `--help`. */
const WIDTH = 92;

/**
 * Reads the words of a command line.
 *
 * `--help` wins over any mistake beside it. A message names a flag, never the value of an unknown one: that could be a
 * secret.
 *
 * @throws {UsageError} If a flag is unknown, lacks its value, or cannot have that value.
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

/** Whether there is a value of the right kind for every flag. */
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
 * One CSV record as Go's encoding/csv reads it: `a,b`, `"a,b",c`, `"say ""x"""`. Empty text is no field at all.
 *
 * @returns the fields, or why it is no record
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
        return { why: 'a value that begins with a quote (") ends with one, before a comma or the end' };
      fields.push((match[1] ?? "").replaceAll('""', '"'));
      at = quoted.lastIndex;
      continue;
    }
    const comma = text.indexOf(",", at);
    const end = comma < 0 ? text.length : comma;
    const field = text.slice(at, end);
    if (field.includes('"')) return { why: 'a quote (") inside a value wants quotes around the value: "say ""so"""' };
    // Go stops reading here without a word, and the rest is lost.
    if (/[\r\n]/.test(field)) return { why: "a line end inside a value wants quotes around the value" };
    fields.push(field);
    at = end;
  }
  return fields;
}

/** Whether a flag without `=` takes the next word as its value. */
export function takesWord({ kind }: Flag): boolean {
  return kind !== "bool" && kind !== "optional";
}

/** The flags as two columns, for `--help`. */
export function formatFlags(table: FlagTable): string {
  const rows = Object.entries(table).map(([name, flag]) => [formatFlagName(name, flag), describeFlag(flag)] as const);
  return formatColumns(rows, { indent: 2, gap: 2, maxLeft: 32 });
}

/** The flag that every command has. */
export function helpFlag(): FlagTable {
  return { help: HELP_FLAG };
}

/** `-t, --tags LIST`, `--timing[=FILE]` */
export function formatFlagName(name: string, flag: Flag): string {
  const placeholder = flag.placeholder ?? PLACEHOLDERS[flag.kind];
  const short = flag.short === undefined ? "    " : `-${flag.short}, `;
  if (flag.kind === "optional") return `${short}--${name}[=${placeholder}]`;
  return `${short}--${name}${placeholder === "" ? "" : ` ${placeholder}`}`;
}

/** The default as one would type it, or undefined where it means "not given". */
export function formatDefault(flag: Flag): string | undefined {
  const text = Array.isArray(flag.default) ? flag.default.join(",") : String(flag.default);
  return text === "" || text === "false" || text === "0" ? undefined : text;
}

export interface FormatColumnsOptions {
  readonly indent: number;
  readonly gap: number;
  /** A left cell that is wider stands on a line of its own. */
  readonly maxLeft: number;
}

/** Rows of two cells, the right ones wrapped and under each other. */
export function formatColumns(rows: readonly (readonly [string, string])[], options: FormatColumnsOptions): string {
  const left = Math.max(0, ...rows.map(([cell]) => cell.length).filter((width) => width <= options.maxLeft));
  const margin = options.indent + left + options.gap;
  return rows
    .map(([cell, text]) => {
      const lines = wrapText(text, WIDTH - margin).map((line) => " ".repeat(margin) + line);
      const head = " ".repeat(options.indent) + cell;
      if (cell.length > options.maxLeft) return [head, ...lines].join("\n");
      return [head.padEnd(margin) + (lines[0] ?? "").trimStart(), ...lines.slice(1)].join("\n").trimEnd();
    })
    .join("\n");
}

/** Paragraphs of plain text, wrapped for `--help`; a line that begins with two blanks is kept as it is. */
export function wrapParagraphs(text: string): string {
  return text
    .split("\n")
    .map((line) => (line.startsWith("  ") ? line : wrapText(line, WIDTH).join("\n")))
    .join("\n");
}

interface Reader {
  readonly flags: FlagTable;
  readonly command: string;
  /** The next word of the command line, consumed. */
  take(): string | undefined;
  set(name: string, text: string): void;
}

function readLong(word: string, reader: Reader): void {
  const equals = word.indexOf("=");
  const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
  if (name === "" || name.startsWith("-")) {
    throw new UsageError(`Cannot read "${equals < 0 ? word : word.slice(0, equals)}": it is no flag, wanted --NAME`);
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
  readonly shown: string;
  /** What an earlier use gave. */
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
    throw fail("true or false is wanted");
  }
  if (flag.kind === "int") {
    const value = Number(text);
    if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(value)) throw fail("a whole number is wanted");
    if (flag.min !== undefined && value < flag.min) throw fail(`a number from ${flag.min} on is wanted`);
    return value;
  }
  const fields = flag.commas === false ? [text] : readCsv(text);
  if ("why" in fields) throw fail(fields.why);
  return Array.isArray(options.before) ? [...options.before, ...fields] : fields;
}

function needsValue(shown: string, flag: Flag): never {
  const example = flag.placeholder ?? PLACEHOLDERS[flag.kind];
  throw new UsageError(`Cannot use ${shown}: it has no value, wanted ${shown} ${example}`);
}

function unknownFlag(name: string, reader: Reader): UsageError {
  const nearest = findNearest(name, Object.keys(reader.flags));
  const near = nearest === undefined ? "" : `, the nearest is --${nearest}`;
  return new UsageError(`Cannot use --${name}: "${reader.command}" has no such flag${near}`, {
    hint: `Type "${reader.command} --help" to see the flags.`,
  });
}

function unknownShort(letter: string, options: { readonly word: string; readonly reader: Reader }): UsageError {
  const { reader } = options;
  const shorts = Object.values(reader.flags).flatMap((flag) => flag.short ?? []);
  const near = shorts.find((short) => short.toLowerCase() === letter.toLowerCase());
  // `-push=false` is how Go's own tools spell flags.
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
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
