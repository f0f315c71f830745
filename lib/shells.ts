/**
 * The scripts that `ko completion` prints. Each hands the command line up to the cursor to `ko __complete`, which knows
 * all (completion.ts), and shows what it answers.
 *
 * They need no other completion library, and may be read twice.
 */
import { type Shell, SHELLS } from "./commandtables.ts";
import { UsageError, findNearest } from "./errors.ts";

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
