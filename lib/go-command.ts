/**
 * Which go a go command runs: the one of its own installation, or one that it chooses by files that only it knows, as
 * version managers, wrappers and `GOTOOLCHAIN` (https://go.dev/doc/toolchain) do.
 *
 * Rules: docs/rules.md F1.3. A command that chooses is asked with `go env` in each run, and its answer is compared. A script may answer differently
 * to `go build`, so nothing that it compiles is recorded.
 */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { keyOf } from "./cache.ts";
import { realPath } from "./file.ts";
import type { GoSettings } from "./go-env.ts";
import { goPath, type RunGoOptions, runGo } from "./go.ts";
import type { Host } from "./host.ts";
import { parseObject } from "./json.ts";

/** - "plain": `bin/go` of an installation
 * - "chooser": another program
 * - "script": it can tell `go build` from other calls
 */
export type GoKind = "plain" | "chooser" | "script";

/** The output of `go env`. */
export interface GoAnswer {
  /** Equal for equal answers. */
  readonly digest: string;
  readonly values: Readonly<Record<string, string>>;
}

/** Variables that say which go runs, and how it compiles. None of them costs `go env` time. */
const ASKED = [
  "GOROOT GOVERSION GOTOOLCHAIN GOFLAGS GOEXPERIMENT GOENV GOWORK GOMOD GO111MODULE GOPATH GOMODCACHE GODEBUG".split(
    " ",
  ),
  "GOOS GOARCH GO386 GOAMD64 GOARM GOARM64 GOMIPS GOMIPS64 GOPPC64 GORISCV64 GOWASM GOFIPS140 CGO_ENABLED".split(" "),
  "GOPRIVATE GONOPROXY GONOSUMDB GOSUMDB GOINSECURE GO_EXTLINK_ENABLED".split(" "),
].flat();

const PLAIN_WORD = String.raw`(?:[\w@%+=:,./-]+|'[^'\n]*'|"[^"$\`\\\n]*")`;
/** A script that is another name of a program, as those of asdf are: constant variables, then the program with all words. */
const ALIAS = new RegExp(
  String.raw`^#![^\n]*\n(?:[ \t]*(?:#[^\n]*|set -[a-z]+|export \w+=${PLAIN_WORD})?[ \t]*\n)*` +
    String.raw`exec (${PLAIN_WORD})(?: exec "?go"?)? "\$@"[ \t]*\n*$`,
);

/** A longer script is no other name of a program. */
const MOST_CHARACTERS = 4096;

/**
 * Tells what a go command is, without starting it.
 *
 * @param options.settings those that it would have if it were "plain"
 */
export function kindOfGo(
  go: string,
  { host, settings: { goroot } }: { readonly host: Host; readonly settings: Pick<GoSettings, "goroot"> },
): GoKind {
  if (isScript(go)) return isAlias(go, host) ? "chooser" : "script";
  return goroot !== undefined && isGoOf(go, goroot) ? "plain" : "chooser";
}

/** Reports whether a go command is that of an installation. */
export function isGoOf(go: string, goroot: string): boolean {
  const path = realPath(go);
  return path !== undefined && ["go", "go.exe"].some((name) => realPath(join(goroot, "bin", name)) === path);
}

/** Reports whether go may run another version of itself. */
export function maySwitch(settings: Pick<GoSettings, "get">): boolean {
  return !["", "local"].includes(settings.get("GOTOOLCHAIN"));
}

/**
 * Reads which installation and settings go has in a folder.
 *
 * @throws {KoError} If `go env` fails, or its output is not JSON.
 */
export async function readGoAnswer(options: RunGoOptions): Promise<GoAnswer> {
  const { stdout } = await runGo(["env", "-json", ...ASKED], options);
  const value = parseObject(stdout, "the output of go env");
  const values: Record<string, string> = {};
  for (const name of ASKED) {
    const item = value[name];
    if (typeof item === "string") values[name] = item;
  }
  return { digest: keyOf([goPath(options), values]), values };
}

/** Asks go which installation and settings it has in a folder; undefined if it fails. */
export async function askGo(options: RunGoOptions): Promise<GoAnswer | undefined> {
  try {
    return await readGoAnswer(options);
  } catch {
    options.host.signal.throwIfAborted();
    return undefined;
  }
}

function isScript(go: string): boolean {
  if (/\.(?:bat|cmd|ps1)$/i.test(go)) return true;
  let file: number | undefined;
  try {
    file = openSync(go, "r");
    const start = Buffer.alloc(2);
    return readSync(file, start, 0, 2, 0) === 2 && start.toString("latin1") === "#!";
  } catch {
    return false;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function isAlias(go: string, host: Host): boolean {
  let text: string;
  try {
    text = readFileSync(go, "utf8");
  } catch {
    return false;
  }
  const word = text.length < MOST_CHARACTERS ? ALIAS.exec(text)?.[1]?.replaceAll(/^["']|["']$/g, "") : undefined;
  const program = word === undefined || isAbsolute(word) ? word : host.findProgram(word);
  return program !== undefined && !isScript(program);
}
