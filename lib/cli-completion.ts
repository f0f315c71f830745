/**
 * Shell completion: the scripts of `ko completion`, and the hidden command `ko __complete WORD...` that they call with
 * the command line up to the cursor.
 *
 * Completing never fails and never uses the network: candidates that would take too long are left out.
 */
import { readdir, stat } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { allCommands, type Command, type CommandName, type Shell, SHELLS } from "./cli-commands.ts";
import { GLOBAL_FLAGS } from "./cli-flag-groups.ts";
import { type Flag, type FlagTable, helpFlag, takesWord } from "./cli-flags.ts";
import { findNearest, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";

export interface Candidate {
  /** The whole completed word. The shell adds no blank after one that ends in `=`, `,` or `/`. */
  readonly value: string;
  readonly description?: string;
}

export interface Completion {
  readonly candidates: readonly Candidate[];
  /** True if the candidates are paths, which the shell quotes. */
  readonly paths: boolean;
}

/** The timeout of a `go` command, in milliseconds. */
const GO_MS = 2000;

const NOTHING: Completion = { candidates: [], paths: false };

/**
 * Finds the candidates for the last of `words`.
 *
 * @param words the words after `ko` on the command line, up to the cursor; the last may be empty
 */
export async function complete(words: readonly string[], host: Host): Promise<Completion> {
  const last = words.at(-1) ?? "";
  const cursor = findCursor(words.slice(0, -1));
  const completion = await completeAt(cursor, { last, host });
  return {
    paths: completion.paths,
    candidates: completion.candidates.filter(({ value }) => value.startsWith(last) && !/[\t\r\n]/.test(value)),
  };
}

/** Formats the output of `ko __complete`: `VALUE<TAB>DESCRIPTION` lines, then `:paths` or `:words`. */
export function formatCompletion({ candidates, paths }: Completion): string {
  const lines = candidates.map(({ value, description }) => [value, description].filter(Boolean).join("\t"));
  return [...lines, paths ? ":paths" : ":words", ""].join("\n");
}

/**
 * Returns the completion script for a shell, by default bash.
 *
 * @throws {UsageError} If the shell is not supported.
 */
export function completionScript(shell = "bash"): string {
  if (isShell(shell)) return SCRIPTS[shell];
  const nearest = findNearest(shell, SHELLS);
  const near = nearest === undefined ? "" : `, the nearest is ${nearest}`;
  throw new UsageError(`Cannot print a completion script for "${shell}": the shell is not supported${near}`, {
    hint: `Name one of ${SHELLS.join(", ")}.`,
  });
}

/** The position of the last word on the command line. */
interface Cursor {
  readonly command: readonly [CommandName, Command] | undefined;
  /** True if the first word is not a command. */
  readonly unknown: boolean;
  /** The flag whose value the last word is. */
  readonly flag: Flag | undefined;
  /** The number of arguments before the last word. */
  readonly count: number;
  readonly afterDashes: boolean;
  /** The long names of the flags before the last word. */
  readonly given: ReadonlySet<string>;
}

/** Reads the words before the last one as the parser does, but ignores errors. */
function findCursor(words: readonly string[]): Cursor {
  const everyFlag: FlagTable = Object.assign(helpFlag(), ...allCommands().map(([, { flags }]) => flags));
  let command: Cursor["command"];
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
      // Flags of kubectl; -f takes a file there, too.
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

/** Returns the flag of bundled shorts that takes the next word as its value. */
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

interface WordRequest {
  /** The word to complete. */
  readonly last: string;
  readonly host: Host;
}

async function completeAt(cursor: Cursor, request: WordRequest): Promise<Completion> {
  const { command, flag, afterDashes } = cursor;
  const { last } = request;
  if (flag !== undefined) return completeValue(flag, { ...request, before: "" });
  if (afterDashes) {
    if (command?.[1].completes !== "package" || command[1].afterDashes === "other") return NOTHING;
    return completePackages(last, request);
  }
  if (command?.[1].raw === true) return last.startsWith("-") ? NOTHING : completePaths(request);
  if (last.startsWith("-") && last !== "-" && last.includes("=")) {
    const equals = last.indexOf("=") + 1;
    const name = last.slice(0, equals - 1).replace(/^--?/, "");
    const table = command === undefined ? { ...GLOBAL_FLAGS } : tableOf(command[1]);
    const found = Object.entries(table).find(([long, { short }]) => (last.startsWith("--") ? long : short) === name);
    return found === undefined ? NOTHING : completeValue(found[1], { ...request, before: last.slice(0, equals) });
  }
  if (cursor.unknown) return NOTHING;
  if (last.startsWith("-")) return asWords(completeFlags(cursor));
  if (command === undefined) return asWords(completeCommands(last));
  const { completes, maxWords = Infinity } = command[1];
  if (completes === undefined || cursor.count >= maxWords) return NOTHING;
  if (completes === "package") {
    const { candidates, paths } = await completePackages(last, request);
    const isSchema = command[0] === "config" && cursor.count === 0;
    const schema = { value: "schema", description: "The JSON Schema of .ko.yaml." };
    return { candidates: isSchema ? [...candidates, schema] : candidates, paths };
  }
  if (completes === "command") {
    const topic = { value: "environment", description: "All environment variables." };
    return asWords([...completeCommands(last), topic]);
  }
  return asWords(completes.map((value) => ({ value })));
}

function asWords(candidates: readonly Candidate[]): Completion {
  return { candidates, paths: false };
}

function completeCommands(last: string): readonly Candidate[] {
  return allCommands().flatMap(([name, { aliases, summary }]) => {
    // Aliases are completed, but not listed.
    const shown = last === "" ? [name] : [name, ...aliases];
    return shown.map((value) => ({ value, description: summary }));
  });
}

function completeFlags({ command, given }: Cursor): readonly Candidate[] {
  const table = command === undefined ? { ...GLOBAL_FLAGS, ...helpFlag() } : tableOf(command[1]);
  return Object.entries(table)
    .filter(([name, { kind }]) => kind === "list" || !given.has(name))
    .flatMap(([name, flag]) => {
      const description = flag.help.replace(/(?<=[a-z)])[.:] .*$/s, ".");
      // The only use of a flag that is on by default is to turn it off.
      const value = flag.kind === "bool" && flag.default ? `--${name}=false` : `--${name}`;
      const values = flag.kind === "optional" ? [value, `${value}=`] : [value];
      return values.map((each) => ({ value: each, description }));
    });
}

interface ValueRequest extends WordRequest {
  /** The part of the last word before the value: `--name=`. */
  readonly before: string;
}

async function completeValue(flag: Flag, { last, host, before }: ValueRequest): Promise<Completion> {
  // The last item of a list is completed.
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

interface PathRequest extends WordRequest {
  readonly before?: string;
  readonly foldersOnly?: boolean;
}

/** Completes files and folders; folders end in a slash. */
async function completePaths({ last, host, before = "", foldersOnly }: PathRequest): Promise<Completion> {
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

interface PackageRequest {
  readonly host: Host;
  readonly before?: string;
}

/** Completes main packages: by relative path if the word is empty or begins with a dot, else by import path. */
async function completePackages(last: string, { host, before = "" }: PackageRequest): Promise<Completion> {
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

/** Returns the stdout of `go`, empty if it fails. */
async function askGo(
  args: readonly string[],
  { host, cwd }: { readonly host: Host; readonly cwd: string },
): Promise<string> {
  // Linux is the default platform of a build. Without a proxy, go does not download modules.
  const env = { GOOS: "linux", ...host.env, GOPROXY: "off" };
  const answer = await host
    .run([host.env["KO_GO_PATH"] || "go", ...args], { cwd, env, timeout: GO_MS, maxBytes: 1 << 20 })
    .catch(() => undefined);
  return new TextDecoder().decode(answer?.stdout);
}

function isShell(word: string): word is Shell {
  return Object.hasOwn(SCRIPTS, word);
}

// For bash 3.2 (macOS) too, so without mapfile, and with compopt only if it exists. Readline splits words at "=" and ":":
// the script joins them again, and strips the part before the last separator from the candidates.
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
  # The words are as typed: remove quotes.
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

// Windows PowerShell drops empty arguments unless they are quoted.
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
    # Without a result, PowerShell would offer files.
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
