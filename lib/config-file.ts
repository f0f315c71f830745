/**
 * Finds `.ko.yaml`, and reads its values with their lines and columns for messages.
 *
 * The file is found as by the original's library, https://github.com/spf13/viper; anchors, aliases and merge keys work.
 * The meaning of the values is decided in config.ts and config-builds.ts.
 */
import { readFile, stat } from "node:fs/promises";
import { extname, join, relative, resolve } from "node:path";
import type { Alias, LineCounter, Node, Pair, Scalar } from "yaml";
import { markScalar } from "./config-marks.ts";
import { isMissing, UsageError } from "./errors.ts";
import { ancestors, isInside, look } from "./file.ts";
import type { Mark } from "./template-lex.ts";
import { resolveAliases } from "./yaml.ts";

/** A value and its origin: `.ko.yaml:3:19` or `KO_DEFAULTBASEIMAGE`. */
export interface Setting<T> {
  readonly value: T;
  readonly where: string;
}

/** A text that may be a template, or a word of a list of them. */
export interface Word extends Setting<string> {
  /** The setting in messages: `ldflags of builds[0]`, `--ldflags`. */
  readonly setting: string;
  /** The file in messages; undefined for a flag or a variable. */
  readonly file?: string | undefined;
  /** The place in the file by offset: a mark for each part that the file has in one piece. */
  readonly marks?: readonly Mark[] | undefined;
}

export interface FindConfigOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Absolute. */
  readonly cwd: string;
}

export interface ConfigFile {
  /** The absolute path of the file. */
  readonly source: string;
  readonly root: ConfigValue;
}

/** A key and its value. */
export interface ConfigEntry {
  readonly key: string;
  readonly where: string;
  readonly value: ConfigValue;
}

/** The value of `KO_CONFIG_PATH` and `--config` that finds the nearest file. */
export const AUTO = "auto";
export const CONFIG_FILE_NAMES = [".ko.yaml", ".ko.yml", ".ko.json"] as const;
/** Extensions of formats that viper reads and ko does not. */
const OTHER_FORMATS = ["toml", "properties", "props", "prop", "hcl", "tfvars", "dotenv", "env", "ini"] as const;
/** Ten times the longest that is known; the yaml package takes half a second for it. */
const MAX_BYTES = 256 * 1024;
/** The most maps that one map may merge, directly or not: merges can repeat each other endlessly. */
const MAX_MERGES = 100;

/**
 * Finds the configuration file of a run.
 *
 * `KO_CONFIG_PATH` names it or its folder; else it is `.ko.yaml`, `.ko.yml` or `.ko.json` in the working directory. With
 * {@link AUTO} it is the nearest one, from there up to the root of the work tree.
 *
 * @returns an absolute path, or undefined if there is no file
 * @throws {UsageError} If `KO_CONFIG_PATH` does not exist, there are several files, or the only one has another format.
 */
export async function findConfigFile(options: FindConfigOptions): Promise<string | undefined> {
  const override = options.env["KO_CONFIG_PATH"];
  if (override === undefined || override === "") return findIn(options.cwd);
  if (override === AUTO) return findUp(options.cwd);
  const path = resolve(options.cwd, override);
  const fail = (why: string): UsageError =>
    new UsageError(`Cannot use KO_CONFIG_PATH="${override}": ${why}, wanted a file or a directory with a .ko.yaml`);
  const kind = await kindOf(path);
  if (kind === "missing") throw fail("it does not exist");
  if (kind === "other") throw fail("it is neither a file nor a directory");
  if (kind === "folder") {
    const found = await findIn(path);
    if (found === undefined) throw fail("there is no .ko.yaml in it");
    return found;
  }
  if (OTHER_FORMATS.some((format) => extname(path) === `.${format}`)) throw fail(`${extname(path)} is not supported`);
  return path;
}

/** Finds the nearest configuration file above a folder, as {@link AUTO} does. @param cwd absolute */
export function findAbove(cwd: string): string | undefined {
  const [, ...above] = searchedFolders(cwd);
  for (const folder of above) {
    const names = CONFIG_FILE_NAMES.filter((name) => look(join(folder, name))?.isFile() === true);
    if (names[0] !== undefined) return join(folder, names[0]);
  }
  return undefined;
}

/** The folders that {@link AUTO} searches, the nearest first: up to the root of the git work tree, else the first alone. */
export function searchedFolders(cwd: string): readonly string[] {
  const all = ancestors(cwd);
  const root = all.findIndex((folder) => look(join(folder, ".git")) !== undefined);
  return root < 0 ? [cwd] : all.slice(0, root + 1);
}

/**
 * Reads a configuration file.
 *
 * @param source an absolute path
 * @param cwd messages show a file below it as a relative path
 * @throws {UsageError} If the file is not one document of YAML; with line and column.
 */
export async function readConfigFile(source: string, cwd: string): Promise<ConfigFile> {
  const shown = isInside(source, cwd) ? relative(cwd, source) : source;
  const text = await readText(source, shown);
  const yaml = await import("yaml");
  const lines = new yaml.LineCounter();
  const documents = yaml.parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
  const [document, ...others] = Array.isArray(documents) ? documents : [];
  if (document === undefined) return { source, root: ConfigValue.nothing };
  const file = { targets: resolveAliases(yaml, document), shown, lines, yaml, text };
  const [error] = document.errors;
  if (error !== undefined) throw new UsageError(`Cannot read ${at(error.pos[0], file)}: ${error.message}`);
  // A file may end in `---`.
  const second = others.find(({ contents, errors }) => errors.length > 0 || !isNull(contents, yaml));
  if (second !== undefined) {
    const where = at(second.range[0], file);
    throw new UsageError(`Cannot read ${where}: a second document begins, wanted one`);
  }
  return { source, root: new ConfigValue(document.contents, file) };
}

/** Splits a text at commas and blanks. */
export function splitList(text: string): readonly string[] {
  return text.split(/[\s,]+/).filter((item) => item !== "");
}

/** The setting of a word and its place, for messages. */
export function nameWord({ setting, where }: Word): string {
  return setting === where ? setting : `${setting} at ${where}`;
}

/** The part of a word from `start` up to `end`. */
export function sliceWord(word: Word, start: number, end: number): Word {
  const { marks = [] } = word;
  const value = word.value.slice(start, end);
  const first = marks.findLast(([offset]) => offset <= start);
  if (first === undefined || word.file === undefined) return { ...word, value };
  const [offset, line, column] = first;
  const moved: readonly Mark[] = [
    [0, line, column + start - offset],
    ...marks.filter(([from]) => from > start && from < end).map(([from, l, c]): Mark => [from - start, l, c]),
  ];
  return { ...word, value, marks: moved, where: `${word.file}:${line}:${column + start - offset}` };
}

interface ParsedFile {
  readonly yaml: typeof import("yaml");
  /** By alias. */
  readonly targets: ReadonlyMap<Alias, Node | undefined>;
  readonly lines: LineCounter;
  readonly text: string;
  /** The path in messages. */
  readonly shown: string;
}

/** A value of a file, aliases resolved. */
export class ConfigValue {
  /** The value of an empty file. */
  static readonly nothing: ConfigValue = new ConfigValue(null, undefined);
  readonly #node: Node | null;
  readonly #file: ParsedFile | undefined;
  /** The place of the alias, where the value is one. */
  readonly #named: Node | null;

  constructor(node: Node | null, file: ParsedFile | undefined) {
    this.#named = node;
    this.#file = file;
    this.#node = file === undefined ? null : resolveAlias(node, file);
  }

  /** `.ko.yaml:3:19` */
  get where(): string {
    return this.#file === undefined ? "" : at(startOf(this.#named), this.#file);
  }

  get isNull(): boolean {
    return this.#file === undefined || isNull(this.#node, this.#file.yaml);
  }

  /** Returns the entries of a map, merged ones last; null has none. @throws {UsageError} If the value is not a map. */
  entries(setting: string): readonly ConfigEntry[] {
    if (this.isNull) return [];
    const found = this.#entries();
    if (found === undefined) throw this.wrongType(setting, "a map");
    return found;
  }

  /** Returns the items of a list; undefined if the value is not a list. */
  items(): readonly ConfigValue[] | undefined {
    const file = this.#file;
    if (file === undefined || !file.yaml.isSeq<Node | null>(this.#node)) return undefined;
    // An item without a value has no place of its own.
    return this.#node.items.map((item) => new ConfigValue(item ?? this.#node, file));
  }

  get isMap(): boolean {
    return this.#file?.yaml.isMap(this.#node) === true;
  }

  get isText(): boolean {
    return typeof this.#scalar?.value === "string";
  }

  /** @throws {UsageError} If the value is not `true` or `false`. */
  flag(setting: string): boolean {
    const value: unknown = this.#scalar?.value;
    if (typeof value === "boolean") return value;
    throw this.wrongType(setting, "true or false");
  }

  /** @throws {UsageError} If the value is not a string. */
  text(setting: string): Word {
    const scalar = this.#scalar;
    const file = this.#file;
    if (file !== undefined && isTextScalar(scalar)) {
      const { shown, text, lines } = file;
      return {
        value: scalar.value,
        where: this.where,
        setting,
        file: shown,
        marks: markScalar(scalar, { text, lines }),
      };
    }
    throw this.wrongType(setting, "a string");
  }

  /** The same, and numbers count as strings, as Go writes them. */
  textOrNumber(setting: string): Word {
    const scalar = this.#scalar;
    if (scalar === undefined || (typeof scalar.value !== "number" && typeof scalar.value !== "bigint")) {
      return this.text(setting);
    }
    const { source = "" } = scalar;
    const value = /^-?\d+$/.test(source) ? source : String(scalar.value);
    return { value, where: this.where, setting, file: this.#file?.shown };
  }

  wrongType(setting: string, wanted: string): UsageError {
    const type = typeof this.#scalar?.value;
    const is = this.isMap ? "a map" : this.items() !== undefined ? "a list" : this.isNull ? "empty" : `a ${type}`;
    const hint = type === "boolean" && wanted.includes("string") ? "Put it in quotes." : undefined;
    return new UsageError(`Cannot read ${this.where}: ${setting} is ${is}, wanted ${wanted}`, { hint });
  }

  get #scalar(): Scalar | undefined {
    return this.#file?.yaml.isScalar(this.#node) === true ? this.#node : undefined;
  }

  #entries(merges: { count: number } = { count: 0 }): readonly ConfigEntry[] | undefined {
    const file = this.#file;
    if (file === undefined || !file.yaml.isMap<Node, Node | null>(this.#node)) return undefined;
    const own: ConfigEntry[] = [];
    const merged: ConfigEntry[] = [];
    const places = new Map<string, string>();
    for (const pair of this.#node.items) {
      const entry = readPair(pair, file);
      if (entry.key === "<<" && file.yaml.isScalar(pair.key) && pair.key.type === "PLAIN") {
        merged.push(...this.#merge(entry, merges));
        continue;
      }
      const before = places.get(entry.key);
      if (before !== undefined) {
        throw new UsageError(`Cannot read ${entry.where}: "${entry.key}" is already set at ${before}`);
      }
      places.set(entry.key, entry.where);
      own.push(entry);
    }
    const known = new Set(places.keys());
    for (const entry of merged) {
      if (known.has(entry.key)) continue;
      known.add(entry.key);
      own.push(entry);
    }
    return own;
  }

  #merge({ value, where }: ConfigEntry, merges: { count: number }): readonly ConfigEntry[] {
    return (value.items() ?? [value]).flatMap((each) => {
      merges.count++;
      const found = merges.count > MAX_MERGES ? undefined : each.#entries(merges);
      if (found !== undefined) return found;
      throw new UsageError(`Cannot read ${where}: "<<" merges maps, wanted one or a list of them`);
    });
  }
}

function isTextScalar(scalar: Scalar | undefined): scalar is Scalar<string> {
  return typeof scalar?.value === "string";
}

function readPair({ key, value }: Pair<Node, Node | null>, file: ParsedFile): ConfigEntry {
  const where = at(startOf(key), file);
  if (!file.yaml.isScalar(key) || typeof key.value !== "string") {
    throw new UsageError(`Cannot read ${where}: this key is not a string`);
  }
  return { key: key.value, where, value: new ConfigValue(value, file) };
}

function resolveAlias(node: Node | null, file: ParsedFile): Node | null {
  if (!file.yaml.isAlias(node)) return node;
  const alias: Alias = node;
  const found = file.targets.get(alias);
  if (found !== undefined) return found;
  throw new UsageError(`Cannot read ${at(startOf(node), file)}: no anchor "&${alias.source}" ends before it`);
}

async function findUp(cwd: string): Promise<string | undefined> {
  for (const folder of searchedFolders(cwd)) {
    const found = await findIn(folder);
    if (found !== undefined) return found;
  }
  return undefined;
}

async function findIn(folder: string): Promise<string | undefined> {
  const found: string[] = [];
  for (const name of CONFIG_FILE_NAMES) {
    const path = join(folder, name);
    const kind = await kindOf(path);
    if (kind === "missing") continue;
    if (kind !== "file") throw new UsageError(`Cannot read "${path}": it is not a file`);
    found.push(path);
  }
  const [path, second] = found;
  if (second !== undefined) {
    throw new UsageError(`Cannot choose between "${path}" and "${second}": wanted one configuration file`);
  }
  if (path !== undefined) return path;
  for (const format of OTHER_FORMATS) {
    const other = join(folder, `.ko.${format}`);
    if ((await kindOf(other)) !== "file") continue;
    throw new UsageError(`Cannot read "${other}": ko reads only YAML and JSON, wanted .ko.yaml`);
  }
  return undefined;
}

async function kindOf(path: string): Promise<"file" | "folder" | "other" | "missing"> {
  try {
    const found = await stat(path);
    return found.isFile() ? "file" : found.isDirectory() ? "folder" : "other";
  } catch (cause) {
    if (isMissing(cause)) return "missing";
    throw new UsageError(`Cannot read "${path}"`, { cause });
  }
}

async function readText(path: string, shown: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > MAX_BYTES) throw new UsageError(`it has ${size} bytes, wanted at most ${MAX_BYTES}`);
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(path));
  } catch (cause) {
    throw new UsageError(`Cannot read "${shown}"`, { cause });
  }
}

function isNull(node: Node | null, yaml: ParsedFile["yaml"]): boolean {
  return node === null || (yaml.isScalar(node) && node.value === null);
}

function startOf(node: Node | null): number {
  return node?.range?.[0] ?? 0;
}

/** Formats a position as editors and terminals understand it: `.ko.yaml:3:19`. */
function at(offset: number, { lines, shown }: Pick<ParsedFile, "lines" | "shown">): string {
  const { line, col } = lines.linePos(offset);
  return `${shown}:${line}:${col}`;
}
