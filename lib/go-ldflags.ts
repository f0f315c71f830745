/**
 * The text of `-ldflags`: which words of it are flags of Go's linker, and which are their values.
 *
 * https://pkg.go.dev/cmd/link
 */
import { splitQuoted } from "./go.ts";

/** Words of `go build` that decide the flags of the linker. */
export interface LinkerWords {
  /** Flags of `go build`, one word each. */
  readonly flags: readonly string[];
  /** Parts of the text of `-ldflags`, joined by blanks. If there are any, they replace that of `flags` and GOFLAGS. */
  readonly ldflags: readonly string[];
}

/** Flags of the linker that take no further word. All others take the next word, unless they have a value after "=". */
const SWITCHES: ReadonlySet<string> = new Set(
  (
    "V a asan aslr bindnow c checklinkname compressdwarf d debugnosplit dumpdep e f g h linkshared msan n pruneweakmap " +
    "race s v w"
  ).split(" "),
);

/** The flags that leave symbols and debug information out. */
const STRIPPING = /^--?[sw](?:=(?:1|t|T|true|TRUE|True))?$/;

/**
 * Takes the flags out that leave symbols out of a program: no breakpoint works without them.
 *
 * @param goflags the words of GOFLAGS
 * @returns undefined if there are none
 */
export function keepSymbols({ flags, ldflags }: LinkerWords, goflags: readonly string[]): LinkerWords | undefined {
  if (ldflags.length > 0) {
    const text = ldflags.join(" ");
    const kept = withoutStripping(text);
    return kept === text ? undefined : { flags, ldflags: [kept] };
  }
  // Without a text of ko's own, those of `flags` count, and those of GOFLAGS only if `flags` have none.
  if (findLdflags(flags).length > 0) {
    const kept = replaceLdflags(flags);
    return kept.every((word, i) => word === flags[i]) ? undefined : { flags: kept, ldflags };
  }
  const text = findLdflags(goflags).at(-1);
  const kept = text === undefined ? undefined : withoutStripping(text);
  return kept === undefined || kept === text ? undefined : { flags, ldflags: [kept] };
}

/** Reports whether a text has more than well-known flags without paths: such a flag may name a file. */
export function hasLinkerPaths(text: string): boolean {
  const words = splitQuoted(text);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? "";
    if (/^--?(?:s|w|X=.*|buildid=.*|(?:linkmode|extldflags)=[^/\\]*)$/s.test(word)) continue;
    const next = words[++i] ?? "";
    if (/^--?(?:X|buildid)$/.test(word) || (/^--?(?:linkmode|extldflags)$/.test(word) && !/[/\\]/.test(next))) continue;
    return true;
  }
  return false;
}

/** A text without {@link STRIPPING} flags. All other words stay as they are written. */
function withoutStripping(text: string): string {
  // `-ldflags=PATTERN=TEXT` is for the packages that the pattern matches.
  const [, pattern = "", rest = ""] = /^(\s*[^\s-][^=]*=)?(.*)$/s.exec(text) ?? [];
  let kept = "";
  let isValue = false;
  for (const { 0: whole, 1: blanks = "", 2: written = "" } of rest.matchAll(/(\s*)('[^']*'|"[^"]*"|\S+)/g)) {
    const word = splitQuoted(written)[0] ?? "";
    const isFlag: boolean = !isValue && word.startsWith("-");
    isValue = isFlag && !word.includes("=") && !SWITCHES.has(word.replace(/^--?/, ""));
    if (isFlag && STRIPPING.test(word)) continue;
    kept += kept === "" ? whole.slice(blanks.length) : whole;
  }
  // Blanks decide no bytes of the program, but they are recorded in it.
  return kept === rest.trim() ? text : `${pattern}${kept}`;
}

/** The values of `-ldflags` among flags of `go build`, in their order. */
function findLdflags(flags: readonly string[]): readonly string[] {
  return flags.flatMap((word, i) => {
    if (/^--?ldflags$/.test(word)) return [flags[i + 1] ?? ""];
    return /^--?ldflags=/.test(word) ? [word.slice(word.indexOf("=") + 1)] : [];
  });
}

function replaceLdflags(flags: readonly string[]): readonly string[] {
  return flags.map((word, i) => {
    if (/^--?ldflags$/.test(flags[i - 1] ?? "")) return withoutStripping(word);
    const [, name, text = ""] = /^(--?ldflags=)(.*)$/s.exec(word) ?? [];
    return name === undefined ? word : `${name}${withoutStripping(text)}`;
  });
}
