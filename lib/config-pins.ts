/**
 * Writes digests of base images into the text of `.ko.yaml`. Only the names of the images change, and the result is read again
 * before it is written.
 */
import { chmod, readFile, stat } from "node:fs/promises";
import type { Document, LineCounter } from "yaml";
import { KoError } from "./errors.ts";
import { writeOutputFile } from "./file.ts";
import { resolveAliases, type Yaml, type YamlEdit } from "./yaml.ts";

/** A new name for a base image that a value of the file has. */
export interface Pin {
  /** The place of the value, `.ko.yaml:3:19`; undefined adds the value as `defaultBaseImage`. */
  readonly where: string | undefined;
  readonly from: string;
  readonly to: string;
}

const MARK = "\uFEFF";
const KEY = "defaultBaseImage";

/**
 * Writes pins into a file.
 *
 * @param path absolute; the file is made if it does not exist
 * @throws {KoError} If a value cannot be changed alone, or the file cannot be read or written: then it stays as it is.
 */
export async function writePins(path: string, pins: readonly Pin[]): Promise<void> {
  const before = await readText(path);
  const after = await pinText(before ?? "", pins);
  if (after === undefined) {
    const lines = pins.map(({ from, to, where }) =>
      where === undefined ? `${KEY}: ${to}` : `${to} for ${from} at ${where}`,
    );
    throw new KoError(`Cannot write the digests of bases into "${path}": other values in it would change, too`, {
      hint: `Write them by hand: ${lines.join(", ")}`,
    });
  }
  if ((await readText(path)) !== before) {
    throw new KoError(`Cannot write "${path}": another program changed it meanwhile`, { hint: "Type: ko base update" });
  }
  const mode = before === undefined ? undefined : (await stat(path)).mode;
  await writeOutputFile(path, after, "the configuration");
  if (mode !== undefined) await chmod(path, mode);
}

/** Returns the text with other names of base images; undefined if they cannot be changed without a change of others. */
export async function pinText(text: string, pins: readonly Pin[]): Promise<string | undefined> {
  const yaml = await import("yaml");
  const start = text.startsWith(MARK) ? MARK.length : 0;
  const body = text.slice(start);
  const added = pins.filter(({ where }) => where === undefined).map((pin) => addition(yaml, body, pin));
  const splices = [...replacements(yaml, body, pins), ...added];
  const changed = splices
    .toSorted((a, b) => b.start - a.start)
    .reduce((whole, splice) => whole.slice(0, splice.start) + splice.text + whole.slice(splice.end), body);
  if (!isOnlyPinned(yaml, { before: body, after: changed }, pins)) return undefined;
  return text.slice(0, start) + changed;
}

/** Replaces the values at their places. An alias of a value that is replaced itself stays. */
function replacements(yaml: Yaml, text: string, pins: readonly Pin[]): readonly YamlEdit[] {
  const lines = new yaml.LineCounter();
  const document = parse(yaml, text, lines);
  if (document === undefined) return [];
  const named = new Map(pins.map((pin) => [offsetOf(pin, lines.lineStarts), pin.to]));
  const targets = resolveAliases(yaml, document);
  const splices: YamlEdit[] = [];
  yaml.visit(document, {
    Value: (_key, node) => {
      const [start = -1, end = -1] = node.range ?? [];
      const to = named.get(start);
      if (to !== undefined && yaml.isScalar(node))
        splices.push({ start, end, text: writeLike(text.slice(start, end), to) });
    },
    Alias: (_key, node) => {
      const [start = -1, end = -1] = node.range ?? [];
      const to = named.get(start);
      if (to === undefined || named.get(targets.get(node)?.range?.[0] ?? -1) === to) return;
      splices.push({ start, end, text: to });
    },
  });
  return splices;
}

function offsetOf({ where = "" }: Pin, lineStarts: readonly number[]): number {
  const [, line, column] = /:(\d+):(\d+)$/.exec(where) ?? [];
  return (lineStarts[Number(line) - 1] ?? Number.NaN) + Number(column) - 1;
}

/** Writes a name as the old one was written: in its quotes, or plain. */
function writeLike(old: string, name: string): string {
  if (/^[|>]/.test(old)) return `${name}\n`;
  const [quote = ""] = /^["']/.exec(old) ?? [];
  return `${quote}${name}${quote}`;
}

/** Adds the value after the last one, so that comments stay with the keys below them. */
function addition(yaml: Yaml, text: string, { to }: Pin): YamlEdit {
  const contents = parse(yaml, text)?.contents;
  const newline = text.includes("\r\n") ? "\r\n" : "\n";
  if (yaml.isMap(contents) && contents.flow === true) {
    const start = (contents.range?.[0] ?? 0) + 1;
    return { start, end: start, text: `"${KEY}": "${to}"${contents.items.length > 0 ? ", " : ""}` };
  }
  const [, last = 0] = yaml.isMap(contents) ? (contents.range ?? []) : [0, text.length];
  // The rest of the line may be a comment.
  const lineEnd = text.slice(0, last).endsWith("\n") ? last : text.indexOf("\n", last) + 1 || text.length;
  const isOpen = lineEnd > 0 && !text.slice(0, lineEnd).endsWith("\n");
  return { start: lineEnd, end: lineEnd, text: `${isOpen ? newline : ""}${KEY}: ${to}${newline}` };
}

/** Whether nothing differs but the pinned names. */
function isOnlyPinned(
  yaml: Yaml,
  { after, before }: { readonly after: string; readonly before: string },
  pins: readonly Pin[],
): boolean {
  const [old, changed] = [before, after].map((text) => {
    const document = parse(yaml, text);
    return document !== undefined && document.errors.length > 0 ? undefined : JSON.stringify(document?.toJS() ?? {});
  });
  if (old === undefined || changed === undefined) return false;
  const added = pins.find(({ where }) => where === undefined);
  const wanted = new Map(pins.map(({ from, to }) => [from, to]));
  const missing = new Set(pins.map(({ to }) => to));
  const isSame = (a: unknown, b: unknown): boolean => {
    if (typeof b === "string") missing.delete(b);
    if (a === b) return true;
    if (typeof a === "string") return wanted.get(a) === b;
    if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
    const [keys, others] = [Object.entries(a), new Map(Object.entries(b))];
    return keys.length === others.size && keys.every(([key, value]) => isSame(value, others.get(key)));
  };
  const value: unknown = JSON.parse(old);
  const whole = added === undefined ? value : { ...Object(value), [KEY]: added.to };
  return isSame(whole, JSON.parse(changed)) && missing.size === 0;
}

/** The first document, as config-file.ts reads it; a file may end in `---`. */
function parse(yaml: Yaml, text: string, lineCounter: LineCounter = new yaml.LineCounter()): Document | undefined {
  const documents = yaml.parseAllDocuments(text, { lineCounter, prettyErrors: false, uniqueKeys: false, merge: true });
  return Array.isArray(documents) ? documents[0] : undefined;
}

/** Undefined if there is no such file. */
async function readText(path: string): Promise<string | undefined> {
  if (!(await Bun.file(path).exists())) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await readFile(path));
  } catch (cause) {
    throw new KoError(`Cannot read "${path}"`, { cause });
  }
}
