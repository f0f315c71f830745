/**
 * Which words and values of a program's settings `ko config` may show: nothing of the environment, no secret.
 */
import type { Word } from "./config-file.ts";
import type { RenderedWord } from "./go-setup.ts";
import type { Place } from "./publish-destination.ts";
import { splitHost } from "./reference.ts";
import { Secrets } from "./url.ts";

/** A word of `go build`. */
export interface ShownWord {
  /** Expanded; as it is written if the expanded word must not be shown. */
  readonly value: string;
  readonly from: string;
  /** True if go gets another word. */
  readonly hidden: boolean;
}

/** A variable of go. */
export interface ShownVariable {
  readonly name: string;
  /** Null if it is not shown. */
  readonly value: string | null;
  readonly from: string;
}

const SECRET =
  /token|secret|passw|passphrase|credential|auth(?!or)|(?:api|access|private|signing|encryption)_?key|(?:^|_)(?:key|pat|pwd|dsn)$/i;
/** The name before an equals sign: `-X main.apiToken=…` gives a secret to a variable of the program. */
const NAME = /[\w./-]+=/g;

/** Settings of go that describe it, and hold nothing that a user typed. */
const PLAIN_GO_SETTINGS: ReadonlySet<string> = new Set(
  "GOARCH GOARM GOARM64 GOAMD64 GO386 GOEXE GOHOSTARCH GOHOSTOS GOOS GOVERSION CGO_ENABLED".split(" "),
);
/** Variables that ko sets for each platform, whatever the environment says. */
const KO_VARIABLES: ReadonlySet<string> = new Set(["GOOS", "GOARCH"]);

const secrets = new Secrets();

/** Reports whether the name of a variable says that its value is a secret. */
export function isSecretName(name: string): boolean {
  return SECRET.test(name);
}

/** The text without passwords in URLs, and without values of names that look secret. */
export function hideSecrets(text: string): string {
  let shown = "";
  let at = 0;
  for (const { 0: found, index } of text.matchAll(NAME)) {
    const name = found.slice(0, -1).replace(/^.*[./]/, "");
    if (index < at || !isSecretName(name)) continue;
    const start = index + found.length;
    shown += `${text.slice(at, start)}***`;
    at = endOfValue(text, start);
  }
  return secrets.hide(shown + text.slice(at));
}

/** The end of a value: that of its quotes, or of those round it and its name, else the next blank. */
function endOfValue(text: string, start: number): number {
  const open = ["'", '"'].find((quote) => text.slice(0, start).split(quote).length % 2 === 0);
  const [quote, from] = open === undefined ? [text.charAt(start), start + 1] : [open, start];
  const isQuoted = quote === "'" || quote === '"';
  const end = isQuoted ? text.indexOf(quote, from) : text.slice(start).search(/\s/) + start;
  return end < start ? text.length : isQuoted && open === undefined ? end + 1 : end;
}

/**
 * Shows a word.
 *
 * @param env the words of `.ko.yaml` for the environment: templates may show these
 */
export function showWord({ reads, text, word }: RenderedWord, env: readonly Word[]): ShownWord {
  const own = new Set(env.filter(isOfFile).map(({ value }) => nameOf(value)));
  const isPlain = reads.every((read) => mayShow(read, own));
  const value = hideSecrets(isPlain ? text : word.value);
  return { value, from: word.where, hidden: value !== text };
}

/** Shows a `NAME=VALUE` word of the configuration. The value of one that a variable of ko holds is not shown. */
export function showVariable(word: Word): ShownVariable {
  const name = nameOf(word.value);
  const value = word.value.slice(name.length + 1);
  return { name, value: isOfFile(word) && !isSecretName(name) ? hideSecrets(value) : null, from: word.where };
}

function mayShow(read: string, own: ReadonlySet<string>): boolean {
  const [root = "", name = ""] = read.split(/\.(.*)/s);
  if (root === "GoEnv") return PLAIN_GO_SETTINGS.has(name) || (own.has(name) && !isSecretName(name));
  if (root !== "Env") return true;
  return KO_VARIABLES.has(name) || (own.has(name) && !isSecretName(name));
}

function isOfFile({ file }: Word): boolean {
  return file !== undefined;
}

function nameOf(text: string): string {
  return text.slice(0, text.indexOf("="));
}

/** A place that images go to, in words. */
export function describePlace(place: Place, repository: string): string {
  switch (place.kind) {
    case "registry":
      return `registry ${splitHost(`${repository}/x`).host ?? "docker.io"}`;
    case "layout":
      return `OCI layout ${place.path}`;
    case "oci-archive":
      return `OCI archive ${place.file === "-" ? "on stdout" : place.file}`;
    case "tarball":
      return `tarball ${place.file === "-" ? "on stdout" : place.file}`;
    case "daemon":
      return "local Docker or podman daemon";
    default:
      return `${place.kind} cluster`;
  }
}
