/**
 * A host for tests of the Go tool: the real world, but for the folder and the environment, and with ears.
 *
 * Nothing comes from the network: `GOPROXY=off`. Go's build cache is the user's.
 */
import type { GoPackage } from "../../lib/go.ts";
import { choosePrograms, findPrograms, type FindProgramsOptions, type Program } from "../../lib/go-programs.ts";
import { createHost, type Host } from "../../lib/host.ts";
import type { Log } from "../../lib/log.ts";

export interface GoWorld {
  readonly host: Host;
  readonly log: Log;
  readonly go: string;
  /** What was written to stderr past the log. */
  readonly written: string[];
  /** What the log was told at level info. */
  readonly told: string[];
}

/** Made once: it listens to signals. */
const real: Host = createHost();

/** The `go` of this machine, run in `cwd`; `env` is added to a bare environment. */
export function goWorld(cwd: string, env: Readonly<Record<string, string>> = {}): GoWorld {
  const written: string[] = [];
  const told: string[] = [];
  const kept = ["PATH", "HOME", "TMPDIR", "GOCACHE", "GOMODCACHE", "GOPATH"].flatMap((key) => {
    const value = real.env[key];
    return value === undefined ? [] : [[key, value] as const];
  });
  const defaults = { GOPROXY: "off", GOTOOLCHAIN: "local", GOENV: "off", GOFLAGS: "-buildvcs=false" };
  return {
    host: {
      ...real,
      cwd,
      env: { ...Object.fromEntries(kept), ...defaults, ...env },
      err: (text) => void written.push(text),
    },
    log: { info: (message) => void told.push(message), warn: () => {}, debug: () => {} },
    go: "go",
    written,
    told,
  };
}

/** The files of a Go program that prints `text`. */
export function mainGo(text = "hello"): string {
  return `package main\n\nfunc main() { println(${JSON.stringify(text)}) }\n`;
}

/** A `go.mod`. */
export function goMod(path: string, more = ""): string {
  return `module ${path}\n\ngo 1.24\n${more}`;
}

/** A stand-in for `go` that writes down what it is asked, a line for each process, and then asks the real one. */
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
