/**
 * Reads `builds:` and the `default…` keys of `.ko.yaml`: how programs are compiled.
 *
 * Strings are split as the original does, except that `{{ … }}` stays whole. Which entry is for which program is decided
 * in go-entries.ts; templates are rendered in go-setup.ts.
 */
import { readBinary } from "./config-binary.ts";
import { type Capabilities, readCapabilities } from "./config-capabilities.ts";
import { type ConfigValue, nameWord, type Setting, sliceWord, type Word } from "./config-file.ts";
import { type ImageWords, readImage } from "./config-image.ts";
import { checkKeys, type KeyNotes } from "./config-keys.ts";
import { UsageError } from "./errors.ts";

/** The words that go gets. Undefined leaves a setting to the default. */
export interface BuildWords {
  /** `NAME=VALUE` */
  readonly env: readonly Word[] | undefined;
  /** A word of `go build` each. */
  readonly flags: readonly Word[] | undefined;
  /** Joined by blanks. */
  readonly ldflags: readonly Word[] | undefined;
}

/** An entry of `builds:`. */
export interface BuildEntry extends BuildWords {
  /** `builds[0]`, or `builds[0] ("web")` */
  readonly name: string;
  readonly where: string;
  /** Relative to the working directory. @default . */
  readonly dir: Word | undefined;
  /** The folder of a program, or a file in it, relative to `dir`; or an import path. @default . */
  readonly main: Word | undefined;
  readonly capabilities: Capabilities | undefined;
  /** Where the key of `capabilities` stands. */
  readonly capabilitiesAt?: string | undefined;
  /** The absolute path of the program in its image. @default in /ko-app */
  readonly binary?: Setting<string> | undefined;
  /** The settings of its image. @default those of all programs */
  readonly image?: ImageWords | undefined;
}

export const NO_WORDS: BuildWords = { env: undefined, flags: undefined, ldflags: undefined };

/** The keys of an entry. */
export const ENTRY_KEYS = [
  "id",
  "dir",
  "main",
  "env",
  "flags",
  "ldflags",
  "linux_capabilities",
  "binary",
  "image",
] as const;

/** White space of Go's `unicode.IsSpace`. */
const BLANK = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/**
 * Reads `builds:`; one map counts as a list of one.
 *
 * @param notes gets the mistakes and warnings of all entries
 */
export function readBuilds(value: ConfigValue, notes: KeyNotes): readonly BuildEntry[] {
  if (value.isNull) return [];
  const items = value.items() ?? [value];
  return items.flatMap((item, i) => notes.collect(() => readEntry(item, { index: i, notes })) ?? []);
}

/** Reads `defaultEnv`, `defaultFlags` and `defaultLdflags`: a list, or a string that is split at blanks. */
export function readDefault(value: ConfigValue, setting: keyof BuildWords, name: string): readonly Word[] | undefined {
  if (value.isNull) return undefined;
  const listed = value.items()?.map((item) => item.textOrNumber(`an item of ${name}`));
  if (listed === undefined && !value.isText) throw value.wrongType(name, "a list of strings");
  const words = listed?.map((word) => ({ ...word, setting: name })) ?? splitWords(value.text(name));
  return checkWords(words, setting);
}

/** Reads the text of `KO_DEFAULTENV` and its like. Blanks alone mean "none". */
export function readDefaultVariable(text: string, setting: keyof BuildWords, name: string): readonly Word[] {
  const words = splitWords({ value: text, where: name, setting: name });
  return checkWords(words, setting) ?? [];
}

/** Splits a text at white space, but not inside of `{{ … }}`. */
export function splitWords(word: Word): readonly Word[] {
  const { value } = word;
  const words: Word[] = [];
  let start: number | undefined;
  for (let at = 0; at <= value.length; at++) {
    if (at === value.length || BLANK.test(value.charAt(at))) {
      if (start !== undefined) words.push(sliceWord(word, start, at));
      start = undefined;
      continue;
    }
    start ??= at;
    if (value.startsWith("{{", at)) at = endOfAction(value, at) - 1;
  }
  return words;
}

/** The end of an action that begins at `start`; the end of the text if it is not closed. */
export function endOfAction(text: string, start: number): number {
  const part = /}}|"(?:\\[^]|[^"\\\n])*"|`[^`]*`|'(?:\\[^]|[^'\\\n])*'|\/\*[^]*?\*\//g;
  part.lastIndex = start + 2;
  for (let match = part.exec(text); match !== null; match = part.exec(text)) {
    if (match[0] === "}}") return part.lastIndex;
  }
  return text.length;
}

function readEntry(
  item: ConfigValue,
  { index, notes }: { readonly index: number; readonly notes: KeyNotes },
): BuildEntry {
  const plain = `builds[${index}]`;
  if (!item.isMap) throw item.wrongType(plain, "a map");
  const entries = checkKeys(item.entries(plain), { known: ENTRY_KEYS, section: "builds", notes });
  const read = <T>(
    key: (typeof ENTRY_KEYS)[number],
    work: (value: ConfigValue, setting: string) => T,
  ): T | undefined => {
    const entry = entries.get(key);
    if (entry === undefined || entry.value.isNull) return undefined;
    return notes.collect(() => work(entry.value, `${key} of ${plain}`));
  };
  const text = (value: ConfigValue, setting: string): Word | undefined => {
    const word = value.textOrNumber(setting);
    return word.value === "" ? undefined : word;
  };
  const id = read("id", text)?.value;
  return {
    name: id === undefined ? plain : `${plain} ("${id}")`,
    where: item.where,
    dir: read("dir", text),
    main: read("main", text),
    env: read("env", (value, setting) => checkWords(readTexts(value, setting), "env")),
    flags: read("flags", (value, setting) => {
      return checkWords(value.isText ? splitWords(value.text(setting)) : readTexts(value, setting), "flags");
    }),
    ldflags: read("ldflags", (value, setting) => checkWords(readTexts(value, setting), "ldflags")),
    capabilities: read("linux_capabilities", (value, setting) => {
      return readCapabilities(value.isText ? splitWords(value.text(setting)) : readTexts(value, setting));
    }),
    capabilitiesAt: entries.get("linux_capabilities")?.where,
    binary: read("binary", (value, setting) => readBinary(value, setting, notes)),
    image: read("image", (value, name) => readImage(value, { name, notes })),
  };
}

/** Reads a list, or one text. */
function readTexts(value: ConfigValue, setting: string): readonly Word[] {
  const items = value.items();
  if (items === undefined && !value.isText) throw value.wrongType(setting, "a list of strings");
  return items?.map((item) => ({ ...item.textOrNumber(`an item of ${setting}`), setting })) ?? [value.text(setting)];
}

/** @returns undefined for no words: then the default counts, as in the original */
function checkWords(words: readonly Word[], setting: keyof BuildWords): readonly Word[] | undefined {
  if (words.length === 0) return undefined;
  if (setting === "env") for (const word of words) checkVariable(word);
  // The original passes an empty word on, and go refuses it.
  return setting === "flags" ? words.filter(({ value }) => value !== "") : words;
}

/** The value may be a secret, so no message has it. */
function checkVariable(word: Word): void {
  const { value } = word;
  if (!value.includes("=")) {
    throw new UsageError(`Cannot use ${nameWord(word)}: there is no "=", wanted NAME=VALUE`);
  }
  if (value.includes("\0")) throw new UsageError(`Cannot use ${nameWord(word)}: it contains a NUL`);
}
