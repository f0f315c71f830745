/**
 * `.ko.yaml`: where it is, and what it says, each value with its place for messages.
 *
 * Found as the viper library finds it for the original: `$KO_CONFIG_PATH` (a file, or a folder with a `.ko.yaml`),
 * else `.ko.yaml`, `.ko.yml` or `.ko.json` in the working directory; no parent folders. The case of top-level keys
 * does not count. Whether a value makes sense is checked in config.ts.
 */
import { readFile, stat } from "node:fs/promises";
import { extname, join, relative, resolve } from "node:path";
import type { Document, LineCounter, Node, Pair } from "yaml";
import { findNearest, UsageError } from "./errors.ts";

/** A value and who says so: `.ko.yaml:3:19` or `KO_DEFAULTBASEIMAGE`. */
export interface Setting<T> {
  readonly value: T;
  readonly where: string;
}

export interface FileSettings {
  /** The file, absolute. */
  readonly source: string;
  readonly defaultBaseImage?: Setting<string>;
  /** Import path, as written, and base image. */
  readonly baseImageOverrides?: readonly Setting<readonly [string, string]>[];
  readonly defaultPlatforms?: Setting<readonly string[]>;
}

export interface FindConfigOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Absolute. */
  readonly cwd: string;
}

const FILE_NAMES = [".ko.yaml", ".ko.yml", ".ko.json"] as const;
/** What viper reads and ko does not, by extension. */
const OTHER_FORMATS = ["toml", "properties", "props", "prop", "hcl", "tfvars", "dotenv", "env", "ini"] as const;
const MAX_BYTES = 1024 * 1024;

const KEYS = ["defaultBaseImage", "baseImageOverrides", "defaultPlatforms"] as const;
/** Keys of the original that a later version brings. */
const LATER_KEYS = ["builds", "defaultEnv", "defaultFlags", "defaultLdflags"] as const;

/**
 * The configuration file of a run, absolute, or undefined if there is none.
 *
 * @throws {UsageError} If `KO_CONFIG_PATH` names nothing, there are two files, or only one in another format.
 */
export async function findConfigFile(options: FindConfigOptions): Promise<string | undefined> {
  const override = options.env["KO_CONFIG_PATH"];
  if (override === undefined || override === "") return findIn(options.cwd);
  const path = resolve(options.cwd, override);
  const fail = (why: string): UsageError =>
    new UsageError(`Cannot use KO_CONFIG_PATH="${override}": ${why}, wanted a file or a folder with a .ko.yaml`);
  const kind = await kindOf(path);
  if (kind === "missing") throw fail("it does not exist");
  if (kind === "other") throw fail("it is neither a file nor a folder");
  if (kind === "folder") {
    const found = await findIn(path);
    if (found === undefined) throw fail("there is no .ko.yaml in it");
    return found;
  }
  if (OTHER_FORMATS.some((format) => extname(path) === `.${format}`)) throw fail(`${extname(path)} is not supported`);
  return path;
}

/**
 * Reads a configuration file.
 *
 * @param source absolute
 * @param cwd for messages: a file below it is shown relative to it
 * @throws {UsageError} If it is no YAML, or has an unknown key or a value of another type; with file, line and column.
 */
export async function readConfigFile(source: string, cwd: string): Promise<FileSettings> {
  const inside = relative(cwd, source);
  const shown = inside.startsWith("..") ? source : inside;
  const text = await readText(source, shown);
  const yaml = await import("yaml");
  const lines = new yaml.LineCounter();
  const document = yaml.parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const place = { document, shown, lines, yaml };
  const [error] = document.errors;
  if (error !== undefined) {
    const why = error.code === "MULTIPLE_DOCS" ? "a second document begins, one is wanted" : error.message;
    throw new UsageError(`Cannot read ${at(error.pos[0], place)}: ${why}`);
  }
  const settings: Mutable<FileSettings> = { source };
  const seen = new Map<string, string>();
  for (const { key, where, value } of entries(document.contents, { ...place, what: "the file" })) {
    if (isLater(key) && saysNothing(value, place)) continue;
    const name = keyNamed(key, where);
    const before = seen.get(name);
    if (before !== undefined) throw new UsageError(`Cannot read ${where}: "${name}" is set at ${before} already`);
    seen.set(name, where);
    const read: ReadOptions = { ...place, what: name };
    if (value === null) continue;
    if (name === "defaultBaseImage") settings.defaultBaseImage = readString(value, read);
    else if (name === "baseImageOverrides") settings.baseImageOverrides = readOverrides(value, read);
    else settings.defaultPlatforms = { value: readList(value, read), where };
  }
  return settings;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The file that is being read. */
interface Place {
  readonly yaml: typeof import("yaml");
  readonly document: Document.Parsed;
  readonly lines: LineCounter;
  /** Its name in messages. */
  readonly shown: string;
}

interface ReadOptions extends Place {
  /** What the value is of, in messages. */
  readonly what: string;
}

interface Entry {
  readonly key: string;
  readonly where: string;
  /** Null where there is no value, or YAML's null. */
  readonly value: Node | null;
}

/** The key as it is spelled in the documentation. */
function keyNamed(key: string, where: string): (typeof KEYS)[number] {
  const same = (known: string): boolean => known.toLowerCase() === key.toLowerCase();
  const found = KEYS.find(same);
  if (found !== undefined) return found;
  if (isLater(key)) {
    throw new UsageError(`Cannot use ${where}: "${key}" is not supported yet`, {
      hint: "This version of ko would have to ignore it. Remove it to build without it.",
    });
  }
  const nearest = findNearest(key, [...KEYS, ...LATER_KEYS]);
  const wanted = nearest === undefined ? `wanted one of ${KEYS.join(", ")}` : `the nearest is "${nearest}"`;
  throw new UsageError(`Cannot use ${where}: "${key}" is no setting of ko, ${wanted}`);
}

function isLater(key: string): boolean {
  return LATER_KEYS.some((known) => known.toLowerCase() === key.toLowerCase());
}

async function findIn(folder: string): Promise<string | undefined> {
  const found: string[] = [];
  for (const name of FILE_NAMES) {
    const path = join(folder, name);
    const kind = await kindOf(path);
    if (kind === "missing") continue;
    if (kind !== "file") throw new UsageError(`Cannot read "${path}": it is no file`);
    found.push(path);
  }
  const [path, second] = found;
  if (second !== undefined) {
    throw new UsageError(`Cannot choose between "${path}" and "${second}": one configuration file is wanted`);
  }
  if (path !== undefined) return path;
  for (const format of OTHER_FORMATS) {
    const other = join(folder, `.ko.${format}`);
    if ((await kindOf(other)) !== "file") continue;
    throw new UsageError(`Cannot read "${other}": ko reads YAML and JSON only, wanted .ko.yaml`);
  }
  return undefined;
}

async function kindOf(path: string): Promise<"file" | "folder" | "other" | "missing"> {
  try {
    const found = await stat(path);
    return found.isFile() ? "file" : found.isDirectory() ? "folder" : "other";
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && (cause.code === "ENOENT" || cause.code === "ENOTDIR")) {
      return "missing";
    }
    throw new UsageError(`Cannot read "${path}"`, { cause });
  }
}

async function readText(path: string, shown: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > MAX_BYTES) throw new UsageError(`it has ${size} bytes, at most ${MAX_BYTES} are wanted`);
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(path));
  } catch (cause) {
    throw new UsageError(`Cannot read "${shown}"`, { cause });
  }
}

function readString(node: Node, options: ReadOptions): Setting<string> {
  const { yaml, document } = options;
  const found = yaml.isAlias(node) ? node.resolve(document) : node;
  if (yaml.isScalar(found) && typeof found.value === "string") {
    return { value: found.value, where: at(startOf(node), options) };
  }
  throw wrongType(node, { ...options, wanted: "a string" });
}

/** A list of strings, or one string with commas or blanks between (viper splits at blanks). */
function readList(node: Node, options: ReadOptions): readonly string[] {
  const { yaml, document } = options;
  const found = yaml.isAlias(node) ? node.resolve(document) : node;
  if (yaml.isSeq<Node | null>(found)) {
    return found.items.map(
      (item) => readString(item ?? found, { ...options, what: `an item of ${options.what}` }).value,
    );
  }
  if (yaml.isScalar(found) && typeof found.value === "string") return splitList(found.value);
  throw wrongType(node, { ...options, wanted: "a list of strings" });
}

/** The items of a text with commas or blanks between. */
export function splitList(text: string): readonly string[] {
  return text.split(/[\s,]+/).filter((item) => item !== "");
}

function readOverrides(node: Node, options: ReadOptions): readonly Setting<readonly [string, string]>[] {
  return entries(node, options).map(({ key, where, value }) => {
    const what = `${options.what}["${key}"]`;
    if (value === null) throw new UsageError(`Cannot use ${where}: ${what} has no value, wanted a base image`);
    const image = readString(value, { ...options, what });
    return { value: [key, image.value], where: image.where };
  });
}

/** The entries of a map; nothing at all is an empty one. */
function entries(node: Node | null, options: ReadOptions): readonly Entry[] {
  const { yaml, document } = options;
  const found = yaml.isAlias(node) ? node.resolve(document) : node;
  if (node === null || found === undefined || isNull(found, options)) return [];
  if (!yaml.isMap<Node, Node | null>(found)) throw wrongType(node, { ...options, wanted: "a map" });
  return found.items.map((pair: Pair<Node, Node | null>) => {
    const where = at(startOf(pair.key), options);
    if (!yaml.isScalar(pair.key) || typeof pair.key.value !== "string") {
      throw new UsageError(`Cannot read ${where}: this key is no string`);
    }
    return { key: pair.key.value, where, value: isNull(pair.value, options) ? null : pair.value };
  });
}

/** Null or an empty list. */
function saysNothing(node: Node | null, place: Place): boolean {
  return isNull(node, place) || (place.yaml.isSeq(node) && node.items.length === 0);
}

function isNull(node: Node | null, { yaml }: Place): boolean {
  return node === null || (yaml.isScalar(node) && node.value === null);
}

function wrongType(node: Node, options: ReadOptions & { readonly wanted: string }): UsageError {
  const { yaml, document, what, wanted } = options;
  const found = yaml.isAlias(node) ? node.resolve(document) : node;
  const scalar = yaml.isScalar(found) && found.value !== null ? `a ${typeof found.value}` : "empty";
  const is = yaml.isMap(found) ? "a map" : yaml.isSeq(found) ? "a list" : scalar;
  return new UsageError(`Cannot read ${at(startOf(node), options)}: ${what} is ${is}, wanted ${wanted}`);
}

function startOf(node: Node): number {
  return node.range?.[0] ?? 0;
}

/** `.ko.yaml:3:19`, as editors and terminals understand it. */
function at(offset: number, place: Place): string {
  const { line, col } = place.lines.linePos(offset);
  return `${place.shown}:${line}:${col}`;
}
