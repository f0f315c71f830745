/**
 * Finds and reads `.ko.yaml`, with the line and column of each value for messages.
 *
 * The file is found as by the original's library, https://github.com/spf13/viper, and top-level keys are
 * case-insensitive. Values are checked by type only: config.ts does the rest.
 */
import { readFile, stat } from "node:fs/promises";
import { extname, join, relative, resolve } from "node:path";
import type { Document, LineCounter, Node, Pair } from "yaml";
import { findNearest, isMissing, UsageError } from "./errors.ts";
import { isInside } from "./file.ts";

/** A value and its origin: `.ko.yaml:3:19` or `KO_DEFAULTBASEIMAGE`. */
export interface Setting<T> {
  readonly value: T;
  readonly where: string;
}

export interface FileSettings {
  /** The absolute path of the file. */
  readonly source: string;
  readonly defaultBaseImage?: Setting<string>;
  /** Pairs of an import path, as written, and a base image. */
  readonly baseImageOverrides?: readonly Setting<readonly [string, string]>[];
  readonly defaultPlatforms?: Setting<readonly string[]>;
}

export interface FindConfigOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Absolute. */
  readonly cwd: string;
}

export const CONFIG_FILE_NAMES = [".ko.yaml", ".ko.yml", ".ko.json"] as const;
/** Extensions of formats that viper reads and ko does not. */
const OTHER_FORMATS = ["toml", "properties", "props", "prop", "hcl", "tfvars", "dotenv", "env", "ini"] as const;
const MAX_BYTES = 1024 * 1024;

const KEYS = ["defaultBaseImage", "baseImageOverrides", "defaultPlatforms"] as const;
/** Keys of the original that ko does not support yet. */
const LATER_KEYS = ["builds", "defaultEnv", "defaultFlags", "defaultLdflags"] as const;

/**
 * Finds the configuration file of a run.
 *
 * `KO_CONFIG_PATH` names it or its folder; else it is `.ko.yaml`, `.ko.yml` or `.ko.json` in the working directory. Parent
 * folders are not searched.
 *
 * @returns an absolute path, or undefined if there is no file
 * @throws {UsageError} If `KO_CONFIG_PATH` does not exist, there are several files, or the only one has another format.
 */
export async function findConfigFile(options: FindConfigOptions): Promise<string | undefined> {
  const override = options.env["KO_CONFIG_PATH"];
  if (override === undefined || override === "") return findIn(options.cwd);
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

/**
 * Reads a configuration file.
 *
 * @param source an absolute path
 * @param cwd messages show a file below it as a relative path
 * @throws {UsageError} If the file is not YAML, or has an unknown key or a value of the wrong type; with line and column.
 */
export async function readConfigFile(source: string, cwd: string): Promise<FileSettings> {
  const shown = isInside(source, cwd) ? relative(cwd, source) : source;
  const text = await readText(source, shown);
  const yaml = await import("yaml");
  const lines = new yaml.LineCounter();
  const document = yaml.parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const file = { document, shown, lines, yaml };
  const [error] = document.errors;
  if (error !== undefined) {
    const why = error.code === "MULTIPLE_DOCS" ? "a second document begins, wanted one" : error.message;
    throw new UsageError(`Cannot read ${at(error.pos[0], file)}: ${why}`);
  }
  const settings: Mutable<FileSettings> = { source };
  const seen = new Map<string, string>();
  for (const { key, where, value } of entries(document.contents, { ...file, what: "the file" })) {
    if (isLater(key) && isEmpty(value, file)) continue;
    const name = keyNamed(key, where);
    const before = seen.get(name);
    if (before !== undefined) throw new UsageError(`Cannot read ${where}: "${name}" is already set at ${before}`);
    seen.set(name, where);
    const read: ReadOptions = { ...file, what: name };
    if (value === null) continue;
    if (name === "defaultBaseImage") settings.defaultBaseImage = readString(value, read);
    else if (name === "baseImageOverrides") settings.baseImageOverrides = readOverrides(value, read);
    else settings.defaultPlatforms = { value: readList(value, read), where };
  }
  return settings;
}

/** Splits a text at commas and blanks. */
export function splitList(text: string): readonly string[] {
  return text.split(/[\s,]+/).filter((item) => item !== "");
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

interface ParsedFile {
  readonly yaml: typeof import("yaml");
  readonly document: Document.Parsed;
  readonly lines: LineCounter;
  /** The path in messages. */
  readonly shown: string;
}

interface ReadOptions extends ParsedFile {
  /** The setting in messages. */
  readonly what: string;
}

interface Entry {
  readonly key: string;
  readonly where: string;
  /** Null if there is no value, or YAML's null. */
  readonly value: Node | null;
}

/** Returns the key as the documentation spells it. */
function keyNamed(key: string, where: string): (typeof KEYS)[number] {
  const same = (known: string): boolean => known.toLowerCase() === key.toLowerCase();
  const found = KEYS.find(same);
  if (found !== undefined) return found;
  if (isLater(key)) {
    throw new UsageError(`Cannot use ${where}: "${key}" is not supported yet`, {
      hint: "Remove it to build without it.",
    });
  }
  const nearest = findNearest(key, [...KEYS, ...LATER_KEYS]);
  const wanted = nearest === undefined ? `wanted one of ${KEYS.join(", ")}` : `the nearest is "${nearest}"`;
  throw new UsageError(`Cannot use ${where}: "${key}" is not a setting of ko, ${wanted}`);
}

function isLater(key: string): boolean {
  return LATER_KEYS.some((known) => known.toLowerCase() === key.toLowerCase());
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

function readString(node: Node, options: ReadOptions): Setting<string> {
  const { yaml, document } = options;
  const found = yaml.isAlias(node) ? node.resolve(document) : node;
  if (yaml.isScalar(found) && typeof found.value === "string") {
    return { value: found.value, where: at(startOf(node), options) };
  }
  throw wrongType(node, { ...options, wanted: "a string" });
}

/** Reads a list of strings, or one string with commas or blanks between the items (viper splits at blanks). */
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

function readOverrides(node: Node, options: ReadOptions): readonly Setting<readonly [string, string]>[] {
  return entries(node, options).map(({ key, where, value }) => {
    const what = `${options.what}["${key}"]`;
    if (value === null) throw new UsageError(`Cannot use ${where}: ${what} has no value, wanted a base image`);
    const image = readString(value, { ...options, what });
    return { value: [key, image.value], where: image.where };
  });
}

/** Returns the entries of a map; a missing value and null have none. */
function entries(node: Node | null, options: ReadOptions): readonly Entry[] {
  const { yaml, document } = options;
  const found = yaml.isAlias(node) ? node.resolve(document) : node;
  if (node === null || found === undefined || isNull(found, options)) return [];
  if (!yaml.isMap<Node, Node | null>(found)) throw wrongType(node, { ...options, wanted: "a map" });
  return found.items.map((pair: Pair<Node, Node | null>) => {
    const where = at(startOf(pair.key), options);
    if (!yaml.isScalar(pair.key) || typeof pair.key.value !== "string") {
      throw new UsageError(`Cannot read ${where}: this key is not a string`);
    }
    return { key: pair.key.value, where, value: isNull(pair.value, options) ? null : pair.value };
  });
}

/** Reports whether a node is null or an empty list. */
function isEmpty(node: Node | null, file: ParsedFile): boolean {
  return isNull(node, file) || (file.yaml.isSeq(node) && node.items.length === 0);
}

function isNull(node: Node | null, { yaml }: ParsedFile): boolean {
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

/** Formats a position as editors and terminals understand it: `.ko.yaml:3:19`. */
function at(offset: number, { lines, shown }: ParsedFile): string {
  const { line, col } = lines.linePos(offset);
  return `${shown}:${line}:${col}`;
}
