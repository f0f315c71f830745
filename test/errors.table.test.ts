/**
 * The table of every error that a user can see: `test/errors.table.txt`, found by a scan of the sources.
 *
 * A new or changed text shows in the diff of a commit. `UPDATE=1` writes the table.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
const TABLE = join(import.meta.dir, "errors.table.txt");

/** An error as a module constructs it. A placeholder stands for each value: `Cannot read "{path}"`. */
interface Row {
  readonly module: string;
  /** The module and the place in it. */
  readonly site: string;
  readonly name: string;
  readonly text: string;
  /** Empty if there is none. */
  readonly hint: string;
}

/** A rule for texts or hints, the values that break it, and values that may, each with its reason. */
interface Rule {
  readonly of: "text" | "hint";
  readonly breaks: (value: string) => boolean;
  readonly exempt?: Readonly<Record<string, string>>;
}

/** The first words of hints. */
const VERBS = new Set(
  `Add Build Check Choose Copy Correct Did Download Fetch For If Install Keep Leave Log Make Name Pass Put Remove Replace
  Run Set Split Start Take Type Use Wait Write`.split(/\s+/),
);

/** A hint in words. Others are a command to type. */
function isSentence(hint: string): boolean {
  return /^[A-Z"-]/.test(hint) || /^[^{].*\.$/.test(hint);
}

const PART = "it ends the sentence of another error";
const PROGRAM = "it begins with the name of a program";
const STREAM = "there is one";

const PARTS: Readonly<Record<string, string>> = {
  "it does not name its base, with the annotations org.opencontainers.image.base.name and .digest": PART,
  "it ends after {this.size} bytes, in the middle of its data": PART,
  "it ends in its header": PART,
  "it has {count} sections: it is damaged": PART,
  "it has {size} bytes, wanted at most {MAX_BYTES}": PART,
  "it is a program for MS-DOS": PART,
  "it is an index without images": PART,
  "it is not a Go program": PART,
  "it is not a file": PART,
  "it is not an ELF file, only programs for Linux and other systems with ELF can be measured": PART,
  "it is not an ELF, PE or 64-bit Mach-O file": PART,
  "it says that {length} bytes belong together: it is damaged": PART,
  "it was compiled by a Go before 1.18, which writes another format": PART,
  "it was not made by ko, or another program has changed it": PART,
  "its base {name} is named by its digest, so no tag says which is the newest": PART,
  "its base {name} is that of another version of ko": PART,
  "its build information is damaged": PART,
  "its configuration and manifest are not those that ko makes on the base that it names": PART,
  "its first layers are not those of the base that it names": PART,
  "its index is not the one that ko makes of its images": PART,
  "its layer {layer.descriptor.digest} does not have {printable(wanted)}": PART,
  "its load commands are damaged": PART,
  "its names are damaged": PART,
  "its old base cannot be read, and only that tells which settings are the image's own": PART,
  "its program for {formatPlatform(platform)} needs the loader {printable(loader)}, which base {base.text} does not have":
    PART,
  "its section headers are damaged": PART,
  "its table of sections is damaged": PART,
  "one of its images names a base that is not in the base of the index": PART,
  "the new base {next.text} lacks {formatPlatform(platform)}: it has {…}": PART,
};

const RULES: Readonly<Record<string, Rule>> = {
  "a text begins with a capital letter": {
    of: "text",
    breaks: (text) => /^[^A-Z{]/.test(text),
    exempt: {
      ...PARTS,
      "kubectl cannot be used: {…}": PROGRAM,
      "kubectl {command} failed with exit code {code}": PROGRAM,
      "the check has ended": "it ends work that is no longer waited for",
    },
  },
  "a text has no full stop at its end": { of: "text", breaks: (text) => text.endsWith(".") },
  "a text says on what: it has a value, a quoted noun, a flag or a variable": {
    of: "text",
    breaks: (text) => !/[{"]|--?[a-z]|\b[A-Z]+_[A-Z_]+\b/.test(text),
    exempt: {
      ...Object.fromEntries(Object.entries(PARTS).filter(([text]) => !/[{]|-bit/.test(text))),
      "Cannot end an upload: no answer": "it ends a request that is no longer waited for",
      "Cannot find kubectl: it is not on PATH": PROGRAM,
      "Cannot read standard input": STREAM,
      "Cannot find the file for credentials: HOME is not set": "the variable is HOME",
      "Cannot read the output of go list: it is not JSON": STREAM,
      "Cannot read the output of go list: it is not a JSON object": STREAM,
      "Cannot use a cached program: its content was changed": "the build begins again without the cache",
      "Cannot write to standard output": STREAM,
      "the check has ended": "it ends work that is no longer waited for",
    },
  },
  "a text has no word of a log": {
    of: "text",
    breaks: (text) => /failed to|could not|unable to|error:|invalid/i.test(text),
  },
  "a text has single spaces": { of: "text", breaks: (text) => /\S {2,}\S|^ | $/.test(text) },
  "a text has at most 160 characters of its own": {
    of: "text",
    breaks: (text) => text.replaceAll(/\{[^}]*\}/g, "").length > 160,
  },
  "a hint says what to do in its first word": {
    of: "hint",
    breaks: (hint) => isSentence(hint) && !VERBS.has(/^\w+/.exec(hint)?.[0] ?? ""),
  },
  "a hint ends with a full stop, or with something to type": {
    of: "hint",
    breaks: (hint) => isSentence(hint) && !/[.?}]$|(?:: | as in )[^A-Z].*$|: [A-Z]+=/.test(hint),
  },
  "a hint has no full stop behind a command": {
    of: "hint",
    breaks: (hint) => /: (?:ko (?:build|login|run)|go|git|docker|export|unset|kubectl|minikube) [^,;]*\.$/.test(hint),
  },
};

describe("alternatives()", () => {
  const source = `const why = "no disk";\nconst many = 'x' + y;\n`;
  test.each<[string, string, readonly string[]]>([
    ["a string", `"Cannot do it"`, ["Cannot do it"]],
    ["escapes", String.raw`"a \"b\"\nc"`, ['a "b"\\nc']],
    ["a template", '`Cannot read "${path}": ${why}`', ['Cannot read "{path}": {why}']],
    ["a template in a template", '`a ${b ? `c ${d}` : "}"} e`', ["a {…} e"]],
    ["pieces", "`a ${b} ` + 'c'", ["a {b} c"]],
    ["a choice", `isOne ? "one" : "two"`, ["one", "two"]],
    ["a choice in a choice", `a ? "one" : b ? "two" : c.join("?")`, ["one", "two", "{…}"]],
    ["a choice in parentheses among pieces", `"a " + (b ? "c" : "d")`, ["a c", "a d"]],
    ["an optional chain, which is no choice", `a?.b ?? c`, ["{a?.b ?? c}"]],
    ["a constant", "why", ["no disk"]],
    ["a constant of pieces", "many", ["x{y}"]],
    ["a value of unknown origin", "message", ["{message}"]],
  ])("reads %s", (_what, expression, expected) => {
    expect(alternatives(expression, { source, at: source.length })).toEqual(expected);
  });
});

describe("findErrors()", () => {
  test("reads texts and hints, and nothing in comments, strings and regular expressions", () => {
    const source = `
// throw new KoError("a comment");
/* new KoError("another") */
const s = 'new KoError("text")' + /new KoError\\("["'/]/.source;
throw new KoError(\`Cannot \${verb("x", ")")} it\`, { cause, hint: "Stop." });
throw new UsageError("Wrong", options);
const hint = isHelpful ? "Type this." : undefined;
throw new RegistryError(message, { hint, status });
throw new TypeError("a bug");
class BaseError extends KoError { constructor(m: string) { super(m, {}); } }`;
    expect(findErrors("x.ts", source).map(({ hint, name, text }) => [name, text, hint])).toEqual([
      ["KoError", "Cannot {…} it", "Stop."],
      ["UsageError", "Wrong", ""],
      ["RegistryError", "{message}", "Type this."],
    ]);
  });
});

const NAMES = new Set(["KoError"]);
const sources = readSources();
for (let before = 0; before < NAMES.size;) {
  before = NAMES.size;
  for (const source of sources.values()) {
    for (const [, name = "", parent = ""] of source.matchAll(/class (\w+) extends (\w+)/g)) {
      if (NAMES.has(parent)) NAMES.add(name);
    }
  }
}
const rows = [...sources].flatMap(([module, source]) => findErrors(module, source));

describe("errors.table.txt", () => {
  test("has every error that the sources construct", () => {
    const constructed = new RegExp(`\\bnew (?:${[...NAMES].join("|")})\\(`, "g");
    const code = [...sources.values()].join("\n").replaceAll(/^\s*(?:\*|\/\/).*/gm, "");
    const sites = [...code.matchAll(constructed)].filter(([site]) => site !== "new KoErrors(");
    expect(new Set(rows.map(({ site }) => site)).size).toBe(sites.length);
  });

  test("is up to date (UPDATE=1 writes it)", () => {
    const table = formatTable(rows);
    if (process.env["UPDATE"] === "1") writeFileSync(TABLE, table);
    expect(readFileSync(TABLE, "utf8")).toBe(table);
  });

  test.each(Object.entries(RULES))("%s", (_name, { breaks, exempt = {}, of }) => {
    const values = new Set(rows.map((row) => row[of]).filter((value) => value !== ""));
    expect([...values].filter(breaks).sort()).toEqual(Object.keys(exempt).sort());
  });
});

function readSources(): ReadonlyMap<string, string> {
  const names = readdirSync(join(ROOT, "lib")).filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"));
  return new Map(names.sort().map((name) => [name, readFileSync(join(ROOT, "lib", name), "utf8")]));
}

function formatTable(all: readonly Row[]): string {
  const modules = new Map<string, Set<string>>();
  for (const { hint, module, text } of all) {
    const entry = `  ${text}\n${hint === "" ? "" : `      ${hint}\n`}`;
    modules.set(module, (modules.get(module) ?? new Set()).add(entry));
  }
  return Array.from(modules, ([module, entries]) => `${module}\n${[...entries].sort().join("")}`).join("\n");
}

function findErrors(module: string, source: string): readonly Row[] {
  const found: Row[] = [];
  walk(source, (at) => {
    const [, name = ""] = /^new (\w+)\(/.exec(source.slice(at, at + 60)) ?? [];
    if (!NAMES.has(name) || name === "KoErrors" || /[\w.]/.test(source[at - 1] ?? "")) return;
    const words = splitAt(source.slice(at + `new ${name}(`.length), ",");
    const scope = { source, at };
    const hints = hintsOf(words[1] ?? "", scope);
    for (const text of alternatives(words[0] ?? "", scope)) {
      for (const hint of hints) found.push({ module, site: `${module}:${at}`, name, text, hint });
    }
  });
  return found;
}

interface Scope {
  readonly source: string;
  readonly at: number;
}

function hintsOf(options: string, scope: Scope): readonly string[] {
  const inner = options.trim();
  if (!inner.startsWith("{")) return [""];
  for (const property of splitAt(inner.slice(1), ",")) {
    const [, value] = /^\s*hint\s*(?::([^]*))?$/.exec(stripComments(property)) ?? [];
    if (/^\s*hint\b/.test(stripComments(property)))
      return alternatives(value ?? "hint", scope).filter((text) => text !== "{undefined}");
  }
  return [""];
}

/** Returns the texts that an expression may have. */
function alternatives(expression: string, scope: Scope): readonly string[] {
  const text = stripComments(expression)
    .trim()
    .replace(/ as const$/, "");
  const choice = splitAt(text, "?");
  if (choice.length > 1) {
    const rest = text.slice((choice[0] ?? "").length + 1);
    const [yes = ""] = splitAt(rest, ":");
    return [...alternatives(yes, scope), ...alternatives(rest.slice(yes.length + 1), scope)];
  }
  const pieces = splitAt(text, "+");
  if (pieces.length > 1) {
    let all: readonly string[] = [""];
    for (const piece of pieces) {
      const next = alternatives(piece, scope);
      all = all.flatMap((begin) => next.map((end) => begin + end));
    }
    return all;
  }
  if (text.startsWith("(") && text.endsWith(")")) return alternatives(text.slice(1, -1), scope);
  if (/^["']/.test(text)) return [text.slice(1, -1).replaceAll(/\\(["'`\\])/g, "$1")];
  if (text.startsWith("`")) return [templateText(text.slice(1, -1))];
  if (/^\w+$/.test(text)) {
    const declared = [...scope.source.matchAll(new RegExp(`\\bconst ${text}(?:: [\\w<>\\[\\] |]+)? =\\s`, "g"))];
    const last = declared.findLast(({ index }) => index < scope.at) ?? declared[0];
    if (last !== undefined) {
      const [value = ""] = splitAt(scope.source.slice(last.index + last[0].length), ";");
      if (/["'`]/.test(value) && /^\s*(?:["'`]|[\w.!()=[\] ]+\?[^.?])/.test(value))
        return alternatives(value, { source: scope.source, at: last.index });
    }
  }
  return [placeholder(text)];
}

function placeholder(expression: string): string {
  const name = expression.replaceAll(/\s+/g, " ").trim();
  return /^[\w.?()[\]]{1,60}$/.test(name) || (/^[^`]{1,40}$/.test(name) && !name.includes('"')) ? `{${name}}` : "{…}";
}

function templateText(inner: string): string {
  let text = "";
  for (let at = 0; at < inner.length;) {
    if (inner[at] === "\\" && /[`$\\]/.test(inner[at + 1] ?? "")) {
      text += inner[at + 1];
      at += 2;
    } else if (inner.startsWith("${", at)) {
      const [expression = ""] = splitAt(inner.slice(at + 2), "");
      text += placeholder(expression);
      at += expression.length + 3;
    } else text += inner[at++];
  }
  return text.replaceAll("\n", "\\n");
}

function stripComments(code: string): string {
  return code.replaceAll(/^\s*\/\/.*\n/gm, "");
}

/** Calls a function with each place of code: none in comments, strings, and regular expressions. */
function walk(source: string, visit: (at: number) => void): void {
  for (let at = 0; at < source.length;) {
    const end = endOfToken(source, at);
    if (end === at) visit(at++);
    else at = end;
  }
}

/** Splits code at each separator outside of brackets, up to the bracket that closes what is around it. */
function splitAt(code: string, separator: "," | "?" | ":" | "+" | ";" | ""): readonly string[] {
  const parts: string[] = [];
  let depth = 0;
  let begin = 0;
  let at = 0;
  while (at < code.length) {
    const end = endOfToken(code, at);
    if (end > at) {
      at = end;
      continue;
    }
    const character = code[at] ?? "";
    if ("([{".includes(character)) depth++;
    else if (")]}".includes(character)) {
      if (depth === 0) break;
      depth--;
    } else if (depth === 0 && character === separator && !/^\?[?.]/.test(code.slice(at))) {
      parts.push(code.slice(begin, at));
      begin = at + 1;
    } else if (code.startsWith("??", at)) at++;
    at++;
  }
  return [...parts, code.slice(begin, at)];
}

/** Returns the end of the comment, string, template or regular expression at a place; the place itself if there is none. */
function endOfToken(code: string, at: number): number {
  const rest = /^(?:\/\/.*|\/\*[^]*?\*\/|"(?:\\[^]|[^"\\])*"|'(?:\\[^]|[^'\\])*')/.exec(code.slice(at, at + 5000))?.[0];
  if (rest !== undefined) return at + rest.length;
  if (code[at] === "`") return endOfTemplate(code, at);
  if (code[at] !== "/" || !/(?:[(,=:[!&|?{};+>]|\breturn|^)\s*$/.test(code.slice(Math.max(0, at - 20), at))) return at;
  const expression = /^\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/.exec(code.slice(at, at + 2000))?.[0] ?? "";
  return at + expression.length;
}

function endOfTemplate(code: string, begin: number): number {
  let at = begin + 1;
  while (at < code.length && code[at] !== "`") {
    if (code[at] === "\\") at += 2;
    else if (code.startsWith("${", at)) at += (splitAt(code.slice(at + 2), "")[0]?.length ?? 0) + 3;
    else at++;
  }
  return at + 1;
}
