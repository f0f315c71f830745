/**
 * What the shell offers when Tab is pressed, from the flag tables: behind the hidden command `ko __complete WORD...`.
 *
 * Every candidate is a whole word, the last of the command line with its end added. The scripts that ask are in
 * cli-completion.ts. It never fails and never uses the network: what cannot be told at once is not offered.
 *
 * The scripts that `ko completion` prints. Each hands the command line up to the cursor to `ko __complete`, which knows
 * all (cli-completion.ts), and shows what it answers.
 *
 * They need no other completion library, and may be read twice.
 */
import { readdir, stat } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { allCommands, type Command, type CommandName, GLOBAL_FLAGS, type Shell, SHELLS } from "./cli-commands.ts";
import { type Flag, type FlagTable, helpFlag, takesWord } from "./cli-flags.ts";
import { findNearest, UsageError } from "./errors.ts";
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

/**
 * The script for a shell, bash if none is named.
 *
 * @throws {UsageError} If there is none for it.
 */
export function completionScript(shell = "bash"): string {
  if (isShell(shell)) return SCRIPTS[shell];
  const nearest = findNearest(shell, SHELLS);
  const near = nearest === undefined ? "" : `, the nearest is ${nearest}`;
  throw new UsageError(`Cannot print a completion script for "${shell}": ko has none for it${near}`, {
    hint: `Name one of ${SHELLS.join(", ")}.`,
  });
}

function isShell(word: string): word is Shell {
  return Object.hasOwn(SCRIPTS, word);
}

// Bash 3.2 (macOS) too: no mapfile, no compopt. Readline cuts words at "=" and ":", so they are put together again
// first, and what stands before the cut is taken off the answers.
const BASH = `# bash completion for ko: source <(ko completion bash)

_ko() {
  local words word joined line paths open cut i
  words=()
  joined=
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ \${#words[@]} -gt 0 && ( $joined == yes || $word == [=:]* ) ]]; then
      words[\${#words[@]} - 1]+=$word
    else
      words+=("$word")
    fi
    joined=
    [[ $word == *[=:] && \${words[\${#words[@]} - 1]} == *[=:] ]] && joined=yes
  done
  # The words are as typed: quotes go.
  for ((i = 0; i < \${#words[@]}; i++)); do
    word=\${words[i]}
    [[ $word == \\~/* ]] || word=\${word//\\\\/}
    word=\${word//\\"/}
    words[i]=\${word//\\'/}
  done
  word=
  [[ \${#words[@]} -gt 0 ]] && word=\${words[\${#words[@]} - 1]}
  cut=
  [[ $word == *[=:]* ]] && cut=\${word%"\${word##*[=:]}"}
  COMPREPLY=()
  paths=
  open=yes
  while IFS= read -r line; do
    case $line in
      :paths) paths=yes ;;
      :*) ;;
      *)
        line=\${line%%$'\\t'*}
        COMPREPLY+=("\${line#"$cut"}")
        [[ $line == *[=,/] ]] || open=
        ;;
    esac
  done < <("\${COMP_WORDS[0]/#\\~\\//$HOME/}" __complete "\${words[@]}" 2>/dev/null)
  if type compopt >/dev/null 2>&1; then
    [[ $paths ]] && compopt -o filenames 2>/dev/null
    [[ $open ]] && compopt -o nospace 2>/dev/null
  fi
  return 0
}

complete -F _ko ko
`;

const ZSH = `#compdef ko
# zsh completion for ko: source <(ko completion zsh)

_ko() {
  local line tab=$'\\t'
  local -a done open shownDone shownOpen
  for line in "\${(@f)$("\${(Q)words[1]/#\\~\\//$HOME/}" __complete "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)}"; do
    [[ -z $line || $line == :* ]] && continue
    local value=\${line%%$tab*}
    local shown=$value
    [[ $line == *$tab* ]] && shown="$value  -- \${line#*$tab}"
    if [[ $value == *[=,/] ]]; then
      open+=("$value")
      shownOpen+=("$shown")
    else
      done+=("$value")
      shownDone+=("$shown")
    fi
  done
  (( $#done )) && compadd -l -d shownDone -- "\${done[@]}"
  (( $#open )) && compadd -l -S '' -d shownOpen -- "\${open[@]}"
  (( $#done + $#open ))
}

if [[ $funcstack[1] == _ko ]]; then
  _ko "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
  compdef _ko ko
fi
`;

const FISH = `# fish completion for ko: ko completion fish > ~/.config/fish/completions/ko.fish

function __ko_complete
    set -l words (commandline -opc)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -e words[1]
    for line in ($program __complete $words (commandline -ct | string collect -a | string unescape) 2>/dev/null)
        string match -q ':*' -- $line; or printf '%s\\n' $line
    end
end

complete -c ko -e
complete -c ko -f -a '(__ko_complete)'
`;

// Windows PowerShell drops empty arguments: they are quoted for it.
const POWERSHELL = `# PowerShell completion for ko: ko completion powershell | Out-String | Invoke-Expression

Register-ArgumentCompleter -Native -CommandName ko -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Where-Object { $_.Extent.StartOffset -lt $cursorPosition } | ForEach-Object {
        $text = $_.Extent.Text
        $length = [Math]::Min($text.Length, $cursorPosition - $_.Extent.StartOffset)
        $text.Substring(0, $length).Trim('"', "'")
    })
    $program = $words[0]
    $rest = @($words | Select-Object -Skip 1)
    if ($wordToComplete -eq '') {
        $empty = if ($PSVersionTable.PSVersion -lt [version]'7.3') { '""' } else { '' }
        $rest += $empty
    }
    $lines = @(& $program __complete @rest 2>$null | Where-Object { $_ -and -not $_.StartsWith(':') })
    # Nothing at all would make PowerShell offer files.
    if ($lines.Count -eq 0) { return '' }
    foreach ($line in $lines) {
        $value, $about = $line -split "\`t", 2
        if (-not $about) { $about = $value }
        $typed = if ($value -match '[\\s''"\`$(){};,|&]') { "'" + $value.Replace("'", "''") + "'" } else { $value }
        if ($value -notmatch '[=,/]$') { $typed += ' ' }
        [System.Management.Automation.CompletionResult]::new($typed, $value, 'ParameterValue', $about)
    }
}
`;

const SCRIPTS: Readonly<Record<Shell, string>> = { bash: BASH, zsh: ZSH, fish: FISH, powershell: POWERSHELL };
