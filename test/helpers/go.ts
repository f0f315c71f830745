/** Go modules and programs for tests, and the Go tool of this machine without the network. */
import { choosePrograms, findPrograms, type FindProgramsOptions, type Program } from "../../lib/go-programs.ts";
import type { GoPackage } from "../../lib/go.ts";
import type { Host } from "../../lib/host.ts";
import type { Log } from "../../lib/log.ts";
import type { Files } from "./world-folders.ts";
import { hostAt } from "./world-host.ts";

export interface GoModOptions {
  /** The Go version that it asks for. @default "1.21" */
  readonly go?: string;
  /** Further lines. */
  readonly more?: string;
}

/** A `go.mod`. */
export function goMod(path: string, { go = "1.21", more = "" }: GoModOptions = {}): string {
  return `module ${path}\n\ngo ${go}\n${more}`;
}

/**
 * A Go program that prints `text` and the `Text` of the packages that it imports. Without imports it needs nothing but
 * the runtime, and compiles in a moment for any platform.
 */
export function mainGo(text = "hello", imports: readonly string[] = []): string {
  const lines = imports.map((path) => `import "${path}"\n`).join("");
  const texts = imports.map((path) => `, ${path.replace(/^.*\//, "")}.Text`).join("");
  return `package main\n\n${lines === "" ? "" : `${lines}\n`}func main() { println(${JSON.stringify(text)}${texts}) }\n`;
}

/** A Go package whose `Text` is `text`. */
export function libraryGo(name: string, text = `${name} 1`): string {
  return `package ${name}\n\nvar Text = ${JSON.stringify(text)}\n`;
}

/** One program in the root of its module. */
export const HELLO: Files = { "go.mod": goMod("example.com/hello"), "main.go": mainGo() };

/**
 * Lines of a shell script that stands for `go`: they make the calls of go quicker that follow them.
 *
 * Small programs are built without debug information, which takes a third of the time of a build, and none of the tools
 * lives long enough to need its garbage collected. A later `-ldflags` of the call itself wins.
 */
export const QUICK_GO = `if [ "$1" = build ]; then shift; set -- build -ldflags=-w "$@"; fi
export GOGC=off
`;

export interface GoWorld {
  readonly host: Host;
  readonly log: Log;
  readonly go: string;
  /** What was written to stderr past the log. */
  readonly written: string[];
  /** Lines of the log at level info. */
  readonly told: string[];
}

/**
 * The `go` of this machine, run in `cwd`. Nothing comes from the network; Go's build cache is the user's.
 *
 * @param env on top of a bare environment
 */
export function goWorld(cwd: string, env: Readonly<Record<string, string>> = {}): GoWorld {
  const written: string[] = [];
  const told: string[] = [];
  const kept = ["PATH", "HOME", "TMPDIR", "GOCACHE", "GOMODCACHE", "GOPATH"].flatMap((key) => {
    const value = process.env[key];
    return value === undefined ? [] : [[key, value] as const];
  });
  const defaults = { GOPROXY: "off", GOTOOLCHAIN: "local", GOENV: "off", GOFLAGS: "-buildvcs=false" };
  return {
    host: hostAt(cwd, {
      env: { ...Object.fromEntries(kept), ...defaults, ...env },
      err: (text) => void written.push(text),
    }),
    log: { info: (message) => void told.push(message), warn: () => {}, debug: () => {} },
    go: "go",
    written,
    told,
  };
}

/** A stand-in for `go` that logs the first argument of each call, and then runs the real one. */
export function countingGo(logFile: string): { readonly executable: string } {
  return { executable: `#!/bin/sh\necho "$1" >> '${logFile}'\nexec go "$@"\n` };
}

/** The programs that arguments name, and all packages that take part; fails as a command does. */
export async function listPrograms(
  args: readonly string[],
  options: FindProgramsOptions,
): Promise<{ readonly programs: readonly Program[]; readonly packages: ReadonlyMap<string, readonly GoPackage[]> }> {
  const found = await findPrograms(args, options);
  return { programs: choosePrograms(found), packages: found.packages };
}
