/**
 * What the shell offers when Tab is pressed, from the flag tables: behind the hidden command `ko __complete WORD...`.
 *
 * Every candidate is a whole word, the last of the command line with its end added. The scripts that ask are in
 * shells.ts. It never fails and never uses the network: what cannot be told at once is not offered.
 */
import { readdir, stat } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { type Command, type CommandName, allCommands, GLOBAL_FLAGS } from "./commandtables.ts";
import { type Flag, type FlagTable, helpFlag, takesWord } from "./flags.ts";
import type { Host } from "./host.ts";

export interface Candidate {
  /** The whole word. One that ends in `=`, `,` or `/` may go on: no blank follows it. */
  readonly value: string;
  readonly description?: string;
}

export interface Completion {
  readonly candidates: readonly Candidate[];
  /** The candidates are paths: the shell quotes what needs it. */
  readonly paths: boolean;
}

/** The Go tool must have answered by then, in milliseconds. */
const GO_MS = 2000;

const NOTHING: Completion = { candidates: [], paths: false };

/**
 * The ways to end the last of `words`.
 *
 * @param words what follows `ko` on the command line up to the cursor; the last may be empty
 */
export async function complete(words: readonly string[], host: Host): Promise<Completion> {
  const last = words.at(-1) ?? "";
  const place = findPlace(words.slice(0, -1));
  const completion = await completeAt(place, { last, host });
  return {
    paths: completion.paths,
    candidates: completion.candidates.filter(({ value }) => value.startsWith(last) && !/[\t\r\n]/.test(value)),
  };
}

/** What `ko __complete` prints: a candidate per line, `VALUE<TAB>DESCRIPTION`, then `:paths` or `:words`. */
export function formatCompletion({ candidates, paths }: Completion): string {
  const lines = candidates.map(({ value, description }) => [value, description].filter(Boolean).join("\t"));
  return [...lines, paths ? ":paths" : ":words", ""].join("\n");
}

/** Where on the command line the last word is. */
interface Place {
  readonly command: readonly [CommandName, Command] | undefined;
  /** The first word is no command. */
  readonly unknown: boolean;
  /** The flag whose value is wanted. */
  readonly flag: Flag | undefined;
  /** Words of the command so far. */
  readonly count: number;
  readonly afterDashes: boolean;
  readonly given: ReadonlySet<string>;
}

/** Walks over the finished words as the parser would, but takes no offence. */
function findPlace(words: readonly string[]): Place {
  const everyFlag: FlagTable = Object.assign(helpFlag(), ...allCommands().map(([, { flags }]) => flags));
  let command: Place["command"];
  let flag: Flag | undefined;
  let count = 0;
  const given = new Set<string>();
  for (const word of words) {
    const table = command === undefined ? everyFlag : tableOf(command[1]);
    if (flag !== undefined) {
      flag = undefined;
      continue;
    }
    if (command?.[1].raw === true) {
      // Another program's flags; one is worth knowing.
      if (word === "-f" || word === "--filename") flag = everyFlag["filename"];
    } else if (word === "--") return { command, unknown: false, flag, count, afterDashes: true, given };
    else if (word.startsWith("--")) {
      const name = word.slice(2).split("=", 1)[0] ?? "";
      const found = Object.hasOwn(table, name) ? table[name] : undefined;
      given.add(name);
      if (found !== undefined && takesWord(found) && !word.includes("=")) flag = found;
    } else if (word.startsWith("-") && word !== "-") flag = waitingShort(word.slice(1), table);
    else if (command === undefined) {
      command = allCommands().find(([name, { aliases }]) => name === word || aliases.includes(word));
      if (command === undefined) return { command, unknown: true, flag, count, afterDashes: false, given };
    } else count++;
  }
  return { command, unknown: false, flag, count, afterDashes: false, given };
}

/** The flag of bundled shorts that wants the next word as its value. */
function waitingShort(letters: string, table: FlagTable): Flag | undefined {
  for (let at = 0; at < letters.length; at++) {
    const flag = Object.values(table).find(({ short }) => short === letters[at]);
    if (flag === undefined || letters[at + 1] === "=") return undefined;
    if (takesWord(flag)) return at === letters.length - 1 ? flag : undefined;
  }
  return undefined;
}

function tableOf(command: Command): FlagTable {
  return { ...command.flags, ...helpFlag() };
}

interface Asked {
  readonly last: string;
  readonly host: Host;
}

async function completeAt(place: Place, asked: Asked): Promise<Completion> {
  const { command, flag, afterDashes } = place;
  const { last } = asked;
  if (flag !== undefined) return completeValue(flag, { ...asked, before: "" });
  if (afterDashes) {
    if (command?.[1].completes !== "package" || command[1].afterDashes === "other") return NOTHING;
    return completePackages(last, asked);
  }
  if (command?.[1].raw === true) return last.startsWith("-") ? NOTHING : completePaths(asked);
  if (last.startsWith("-") && last !== "-" && last.includes("=")) {
    const equals = last.indexOf("=") + 1;
    const name = last.slice(0, equals - 1).replace(/^--?/, "");
    const table = command === undefined ? { ...GLOBAL_FLAGS } : tableOf(command[1]);
    const found = Object.entries(table).find(([long, { short }]) => (last.startsWith("--") ? long : short) === name);
    return found === undefined ? NOTHING : completeValue(found[1], { ...asked, before: last.slice(0, equals) });
  }
  if (place.unknown) return NOTHING;
  if (last.startsWith("-")) return asWords(completeFlags(place));
  if (command === undefined) return asWords(completeCommands(last));
  const { completes, maxWords = Infinity } = command[1];
  if (completes === undefined || place.count >= maxWords) return NOTHING;
  if (completes === "package") return completePackages(last, asked);
  if (completes === "command") return asWords(completeCommands(last));
  return asWords(completes.map((value) => ({ value })));
}

function asWords(candidates: readonly Candidate[]): Completion {
  return { candidates, paths: false };
}

function completeCommands(last: string): readonly Candidate[] {
  return allCommands().flatMap(([name, { aliases, summary }]) => {
    // An alias is offered to who has begun it only.
    const shown = last === "" ? [name] : [name, ...aliases];
    return shown.map((value) => ({ value, description: summary }));
  });
}

function completeFlags({ command, given }: Place): readonly Candidate[] {
  const table = command === undefined ? { ...GLOBAL_FLAGS, ...helpFlag() } : tableOf(command[1]);
  return Object.entries(table)
    .filter(([name, { kind }]) => kind === "list" || !given.has(name))
    .flatMap(([name, flag]) => {
      const description = flag.help.replace(/(?<=[a-z)])[.:] .*$/s, ".");
      // A flag that is on is there to be turned off.
      const value = flag.kind === "bool" && flag.default ? `--${name}=false` : `--${name}`;
      const values = flag.kind === "optional" ? [value, `${value}=`] : [value];
      return values.map((each) => ({ value: each, description }));
    });
}

interface AskedValue extends Asked {
  /** What stands before the value in the last word: `--name=`. */
  readonly before: string;
}

async function completeValue(flag: Flag, { last, host, before }: AskedValue): Promise<Completion> {
  // Of a list, the last item is ended.
  const items = flag.kind === "list" && flag.commas !== false ? last.slice(before.length).split(",") : [];
  const done = items.slice(0, -1);
  const head = before + done.map((item) => `${item},`).join("");
  if (flag.kind === "bool") return asWords(["true", "false"].map((value) => ({ value: head + value })));
  if (flag.values !== undefined) {
    const open = flag.values.filter((value) => !done.includes(value));
    return asWords(open.map((value) => ({ value: head + value })));
  }
  if (flag.completes === "package") return completePackages(last, { host, before: head });
  if (flag.completes === undefined) return NOTHING;
  return completePaths({ last, host, before: head, foldersOnly: flag.completes === "directory" });
}

interface AskedPaths extends Asked {
  readonly before?: string;
  readonly foldersOnly?: boolean;
}

/** Files and folders; folders with a slash at the end. */
async function completePaths({ last, host, before = "", foldersOnly }: AskedPaths): Promise<Completion> {
  const typed = last.slice(before.length);
  const slash = typed.lastIndexOf("/") + 1;
  const [folder, start] = [typed.slice(0, slash), typed.slice(slash)];
  const home = host.env["HOME"] ?? "";
  const path = resolve(host.cwd, folder.startsWith("~/") ? join(home, folder.slice(2)) : folder);
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  const candidates: Candidate[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (!entry.name.startsWith(start) || (entry.name.startsWith(".") && start === "")) continue;
    const linked = entry.isSymbolicLink() ? await stat(join(path, entry.name)).catch(() => undefined) : entry;
    const isFolder = linked?.isDirectory() === true;
    if (isFolder || foldersOnly !== true) {
      candidates.push({ value: `${before}${folder}${entry.name}${isFolder ? "/" : ""}` });
    }
  }
  return { candidates, paths: true };
}

interface AskedPackages {
  readonly host: Host;
  readonly before?: string;
}

/** Main packages: by relative path, as long as nothing else is typed, and by import path, `ko://` in front or not. */
async function completePackages(last: string, { host, before = "" }: AskedPackages): Promise<Completion> {
  const typed = last.slice(before.length);
  if (/^(\.\.(\/|$)|\/|~)/.test(typed)) return completePaths({ last, host, before, foldersOnly: true });
  const scheme = typed.startsWith("ko://") ? "ko://" : "";
  const byPath = typed === "" || typed.startsWith(".");
  const folder = byPath ? host.cwd : await moduleFolder(host);
  const format = '{{if eq .Name "main"}}{{.ImportPath}}\t{{.Dir}}{{end}}';
  const listed = await askGo(["list", "-e", "-find", "-f", format, "./..."], { host, cwd: folder });
  const candidates = listed.split("\n").flatMap((line): readonly Candidate[] => {
    const [importPath = "", dir = ""] = line.split("\t");
    if (importPath === "") return [];
    const path = relative(host.cwd, dir);
    if (byPath) return [{ value: before + (path === "" ? "." : `./${path}`), description: importPath }];
    return [{ value: before + scheme + importPath, description: path === "" ? "." : path }];
  });
  const rest = byPath || scheme !== "" || !"ko://".startsWith(typed) ? [] : [{ value: `${before}ko://` }];
  return asWords([...candidates, ...rest]);
}

async function moduleFolder(host: Host): Promise<string> {
  const file = (await askGo(["env", "GOMOD"], { host, cwd: host.cwd })).trim();
  return file.startsWith("/") && file !== "/dev/null" ? dirname(file) : host.cwd;
}

/** What go prints, or nothing if it fails. */
async function askGo(
  args: readonly string[],
  { host, cwd }: { readonly host: Host; readonly cwd: string },
): Promise<string> {
  // Programs are built for linux if nothing else is said; and nobody waits for a download at a Tab.
  const env = { GOOS: "linux", ...host.env, GOPROXY: "off" };
  const answer = await host
    .run([host.env["KO_GO_PATH"] || "go", ...args], { cwd, env, timeout: GO_MS, maxBytes: 1 << 20 })
    .catch(() => undefined);
  return new TextDecoder().decode(answer?.stdout);
}
