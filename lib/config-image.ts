/**
 * Reads `image:` of `.ko.yaml` and the `--image-…` flags: how containers of an image are started. A value without a template
 * is checked here, one with a template when it is rendered (docs/rules.md D3.7).
 *
 * https://github.com/opencontainers/image-spec/blob/main/config.md#properties
 */
import { posix } from "node:path";
import { type ConfigValue, nameWord, sliceWord, type Word } from "./config-file.ts";
import { checkKeys, type KeyNotes } from "./config-keys.ts";
import { findNearest, UsageError } from "./errors.ts";
import { KODATA_VARIABLE } from "./image-config.ts";

/** The settings of an image, in the order of the documentation. */
export const IMAGE_KEYS = [
  "env",
  "workdir",
  "user",
  "ports",
  "volumes",
  "cmd",
  "labels",
  "annotations",
  "stopSignal",
  "entrypointArgs",
] as const;

export type ImageKey = (typeof IMAGE_KEYS)[number];

/** A value of a setting, which may be a template. */
export interface ImageWord extends Word {
  /** The key of a pair, as in labels: never a template. */
  readonly key?: string;
}

/** The values of each setting: one for a text, none for an empty list. A setting that is not given has no property. */
export type ImageWords = Readonly<Partial<Record<ImageKey, readonly ImageWord[]>>>;

export interface ReadImageOptions {
  /** In messages: `image`, `image of builds[0]`. */
  readonly name: string;
  /** Gets the mistakes. */
  readonly notes: KeyNotes;
}

/** The shapes of values: `KEY: VALUE`, a text, a list, or a list that may be one text. */
const SHAPES: Readonly<Record<ImageKey, "pairs" | "text" | "list" | "set">> = {
  env: "pairs",
  workdir: "text",
  user: "text",
  ports: "set",
  volumes: "set",
  cmd: "list",
  labels: "pairs",
  annotations: "pairs",
  stopSignal: "text",
  entrypointArgs: "list",
};

const MAX_PORT = 65_535;
const PROTOCOLS = ["tcp", "udp", "sctp"] as const;

/** Signals of Linux, which are those of Docker; SIGRTMIN and SIGRTMAX may have an offset. */
const SIGNALS: readonly string[] = [
  "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT RTMAX RTMIN SEGV STKFLT STOP SYS TERM",
  "TRAP TSTP TTIN TTOU UNUSED URG USR1 USR2 VTALRM WINCH XCPU XFSZ",
].flatMap((line) => line.split(" ").map((name) => `SIG${name}`));
const MAX_SIGNAL = 64;

/** Reads the value of `image`. */
export function readImage(value: ConfigValue, { name, notes }: ReadImageOptions): ImageWords {
  if (!value.isNull && !value.isMap) {
    throw value.wrongType(name, `a map of ${IMAGE_KEYS.slice(0, -1).join(", ")} and ${IMAGE_KEYS.at(-1)}`);
  }
  const entries = checkKeys(value.entries(name), { known: IMAGE_KEYS, section: "image", notes });
  const found: Partial<Record<ImageKey, readonly ImageWord[]>> = {};
  for (const [key, entry] of entries) {
    if (entry.value.isNull) continue;
    const words = notes.collect(() => readWords(entry.value, { key, name: `${key} of ${name}`, notes }));
    if (words !== undefined) found[key] = words;
  }
  return found;
}

/**
 * Reads the values of a flag that stands for a setting.
 *
 * @param flag `--image-env`
 * @param texts one for each use of the flag; a single empty one means none
 * @throws {UsageError} If a value is malformed.
 */
export function readImageFlag(key: ImageKey, flag: string, texts: readonly string[]): readonly ImageWord[] {
  if (texts.length === 1 && texts[0] === "") return [];
  const words = texts.map((value): ImageWord => ({ value, where: flag, setting: flag }));
  if (SHAPES[key] !== "pairs") return words.map((word) => checkPlain(key, word));
  // Of equal keys the last one counts, as with --image-label.
  const pairs = words.map((word) => checkPlain(key, splitPair(word)));
  return [...new Map(pairs.map((pair) => [pair.key, pair])).values()];
}

/**
 * Checks a value that is rendered.
 *
 * @returns the value as the configuration of an image has it: `80/tcp` for `80`
 * @throws {UsageError} If the setting cannot have it.
 */
export function checkImageValue(key: ImageKey, text: string, word: ImageWord): string {
  const fail = (why: string): UsageError => new UsageError(`Cannot use ${nameWord(word)}: ${why}`);
  // The value of a variable may be a secret, so no message has it.
  if (text.includes("\0")) throw fail("it contains a NUL");
  switch (key) {
    case "ports":
      return checkPort(text, fail);
    case "volumes":
    case "workdir":
      return checkPath(text, fail);
    case "stopSignal":
      return checkSignal(text, fail);
    case "user":
      if (/^[^\s:]+(?::[^\s:]+)?$/.test(text)) return text;
      throw fail(`"${text}" is not a user, wanted USER or USER:GROUP, names or numbers`);
    default:
      return text;
  }
}

interface ReadWordsOptions {
  readonly key: ImageKey;
  /** In messages: `ports of image`. */
  readonly name: string;
  readonly notes: KeyNotes;
}

function readWords(value: ConfigValue, { key, name, notes }: ReadWordsOptions): readonly ImageWord[] {
  const shape = SHAPES[key];
  if (shape === "text") return [checkPlain(key, value.textOrNumber(name))];
  if (shape === "pairs") return readPairs(value, { key, name, notes });
  const items = value.items() ?? (shape === "set" && !value.isMap ? [value] : undefined);
  if (items === undefined) throw value.wrongType(name, "a list of strings");
  return items.flatMap((item) => {
    return notes.collect(() => checkPlain(key, nameItem(item.textOrNumber(`an item of ${name}`), name))) ?? [];
  });
}

/** Reads a map, or a list of `KEY=VALUE`. */
function readPairs(value: ConfigValue, { key, name, notes }: ReadWordsOptions): readonly ImageWord[] {
  const items = value.items();
  if (items === undefined && !value.isMap) throw value.wrongType(name, "a map of strings, or a list of KEY=VALUE");
  const words: readonly (() => ImageWord)[] =
    items?.map((item) => () => splitPair(nameItem(item.textOrNumber(`an item of ${name}`), name))) ??
    value.entries(name).map((entry) => () => {
      const word = entry.value.textOrNumber(`"${entry.key}" in ${name}`);
      return { ...nameItem(word, name), key: entry.key };
    });
  const found = new Map<string, ImageWord>();
  for (const read of words) {
    notes.collect(() => {
      const word = checkPlain(key, read());
      const before = found.get(word.key ?? "");
      if (before !== undefined) {
        throw new UsageError(`Cannot use ${nameWord(word)}: "${word.key}" is already set at ${before.where}`);
      }
      found.set(word.key ?? "", word);
    });
  }
  return [...found.values()];
}

function nameItem(word: Word, setting: string): Word {
  return { ...word, setting };
}

function splitPair(word: Word): ImageWord {
  const equals = word.value.indexOf("=");
  if (equals < 0) throw new UsageError(`Cannot use ${nameWord(word)}: there is no "=", wanted KEY=VALUE`);
  return { ...sliceWord(word, equals + 1, word.value.length), where: word.where, key: word.value.slice(0, equals) };
}

/** Checks the key of a pair, and a value that is no template. */
function checkPlain(setting: ImageKey, word: ImageWord): ImageWord {
  const { key, value } = word;
  const fail = (why: string): UsageError => new UsageError(`Cannot use ${nameWord(word)}: ${why}`);
  if (key !== undefined) {
    if (key === "") throw fail("the key is empty, wanted KEY=VALUE");
    if (key.includes("{{")) throw fail(`the key "${key}" is a template, wanted one in the value only`);
    if (setting === "env" && /[=\s\0]/.test(key)) throw fail(`"${key}" is not the name of a variable`);
    if (setting === "env" && key === KODATA_VARIABLE) {
      throw fail(`${KODATA_VARIABLE} is set by ko, which puts kodata there`);
    }
  }
  return value.includes("{{") ? word : { ...word, value: checkImageValue(setting, value, word) };
}

type Fail = (why: string) => UsageError;

function checkPort(text: string, fail: Fail): string {
  const [number = "", protocol = "tcp", ...more] = text.split("/");
  const wanted = "wanted a port such as 8080, 8080/tcp or 53/udp";
  if (!/^\d{1,5}$/.test(number) || more.length > 0) throw fail(`"${text}" is not a port, ${wanted}`);
  if (Number(number) < 1 || Number(number) > MAX_PORT) throw fail(`"${text}" is not a port, wanted 1 to ${MAX_PORT}`);
  if (PROTOCOLS.some((each) => each === protocol)) return `${Number(number)}/${protocol}`;
  const nearest = findNearest(protocol.toLowerCase(), PROTOCOLS);
  throw fail(
    `"${protocol}" is not a protocol${nearest === undefined ? `, ${wanted}` : `, the nearest is "${nearest}"`}`,
  );
}

function checkPath(text: string, fail: Fail): string {
  const isWindows = /^[A-Za-z]:[\\/]/.test(text);
  if (!isWindows && !text.startsWith("/")) throw fail(`"${text}" is not an absolute path, wanted one such as /data`);
  if (text.split(/[\\/]/).includes("..")) throw fail(`"${text}" has "..", wanted a path without`);
  // Line ends and other characters that no terminal shows.
  if (/\p{Cc}/u.test(text)) throw fail(`${JSON.stringify(text)} has a control character, wanted a path`);
  return isWindows ? text : posix.normalize(text).replace(/(?<=.)\/$/, "");
}

function checkSignal(text: string, fail: Fail): string {
  if (/^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= MAX_SIGNAL) return text;
  if (SIGNALS.includes(text.replace(/^(SIGRTMIN\+|SIGRTMAX-)\d{1,2}$/, (found) => found.slice(0, 8)))) return text;
  const upper = text.toUpperCase();
  const nearest = findNearest(upper.startsWith("SIG") ? upper : `SIG${upper}`, SIGNALS);
  const wanted = nearest === undefined ? "wanted one such as SIGTERM or SIGINT" : `the nearest is "${nearest}"`;
  throw fail(`"${text}" is not a signal, ${wanted}`);
}
