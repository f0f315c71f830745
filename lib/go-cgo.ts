/**
 * Explains failures of `go build` that have to do with cgo: which package needs it, and what to type.
 *
 * The words are those of go, gcc, clang, GNU ld, lld and pkg-config.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CommandError, printable } from "./errors.ts";
import { cgoHint, findCgoFiles } from "./go-problems.ts";
import { goMessages, type GoPackage } from "./go.ts";
import { formatPlatform, type Platform } from "./oci.ts";

export interface ExplainCgoOptions {
  /** The output of `go list -deps`; empty if it is not known. */
  readonly packages: readonly GoPackage[];
  readonly platform: Platform;
}

/** A kind of failure, and the package that it comes from, as far as the message names one. */
interface Failure {
  readonly pattern: RegExp;
  /** @param name the first group of the pattern */
  readonly hint: (name: string, options: ExplainCgoOptions) => Promise<string> | string;
}

const UNDEFINED = "undefined: ";

/** Debian's name of the package with the files of a library for a compiler. */
const debian = (library: string): string => `such as Debian's lib${library.toLowerCase()}-dev`;

const FAILURES: readonly Failure[] = [
  {
    pattern: /C(?:\+\+)? compiler "([^"]+)" not found/,
    hint: (compiler, { packages, platform }) => {
      const users = findUsers(packages);
      const own = users.find(({ standard }) => !standard);
      const install = `Install a C compiler for ${formatPlatform(platform)}, or set CC to one: ${compiler} is not there`;
      if (own !== undefined) return `${install}, and ${own.importPath} needs cgo.`;
      return users.length === 0
        ? `${install}. Or compile without cgo: CGO_ENABLED=0`
        : `Set CGO_ENABLED=0: only packages of Go itself use cgo (${users.map(({ importPath }) => importPath).join(", ")}).`;
    },
  },
  {
    pattern: /(?:cannot find|unable to find library|library not found for) -l:?([\w.+-]+)/,
    hint: async (library, { packages, platform }) =>
      `Install the library ${library} for ${formatPlatform(platform)}, ${debian(library)}, or name its folder: CGO_LDFLAGS=-L/FOLDER${await wanted(packages, new RegExp(`-l:?${escapeText(library)}\\b`))}`,
  },
  {
    pattern: /fatal error: '?([\w./+-]+\.(?:h|hpp|hh|hxx))'?(?:: No such file| file not found)/,
    hint: (header, { platform }) =>
      `Install the library of ${header} for ${formatPlatform(platform)}, ${debian(header.replace(/^.*\//, "").replace(/\..*/, ""))}, or name its folder: CGO_CFLAGS=-I/FOLDER`,
  },
  {
    pattern: /Package '?([\w.+-]+)'?,? (?:was not found in the pkg-config search path|not found)/,
    hint: async (name, { packages, platform }) =>
      `Install the library ${name} for ${formatPlatform(platform)}, ${debian(name.replace(/^lib/, ""))}, or name the folder of ${name}.pc: PKG_CONFIG_PATH=/FOLDER${await wanted(packages, new RegExp(`pkg-config:.*\\b${escapeText(name)}\\b`))}`,
  },
  {
    pattern: /(pkg-config): exec: |exec: "(?:\S*\/)?pkg-config": /,
    hint: async (_name, { packages }) =>
      `Install pkg-config, or set PKG_CONFIG to it${await wanted(packages, /#cgo.*pkg-config:/)}`,
  },
  {
    // An assembler or a compiler for another processor.
    pattern:
      /(?:no such instruction|unknown (?:target|architecture)|unrecognized command[- ]line option '?-m|unsupported option '-m|incompatible with .* output|file in wrong format|unrecognized instruction mnemonic)()/,
    hint: (_name, { platform }) =>
      `Set CC to a C compiler for ${formatPlatform(platform)}: the one that ran makes programs for another platform.`,
  },
  {
    pattern: /undefined reference to [`']([^'`]+)'|undefined symbol: (\S+)/,
    hint: (symbol, { packages }) => {
      const own = findUsers(packages).find(({ standard }) => !standard);
      const where = own === undefined ? "the package that uses cgo" : own.importPath;
      return `Name the library that has ${symbol === "" ? "the symbol" : printable(symbol, 100)}: CGO_LDFLAGS=-lNAME, or #cgo LDFLAGS in ${where}`;
    },
  },
];

/** Whether a failed build may have to do with cgo: see {@link explainCgo}. */
export function concernsCgo(error: unknown): error is CommandError {
  if (!(error instanceof CommandError) || error.hint !== undefined) return false;
  const said = goMessages(error.stderr);
  return said.includes(UNDEFINED) || FAILURES.some(({ pattern }) => pattern.test(said));
}

/** Adds a hint to a failure for which {@link concernsCgo} is true, if cgo is the reason. */
export async function explainCgo(error: CommandError, options: ExplainCgoOptions): Promise<CommandError> {
  const said = goMessages(error.stderr);
  const hint = (await explainUndefined(said, options)) ?? (await explainTools(said, options));
  if (hint === undefined) return error;
  const { argv, code, message, signal, stderr } = error;
  return new CommandError(message, { argv, code, signal, stderr, hint, kind: "cgo" });
}

/** "undefined: …", if a file that needs cgo was left out of a package that the message names. */
async function explainUndefined(said: string, { packages, platform }: ExplainCgoOptions): Promise<string | undefined> {
  if (!said.includes(UNDEFINED)) return undefined;
  for (const each of packages) {
    const isNamed = said.includes(`# ${each.importPath}\n`) || said.includes(`undefined: ${each.name}.`);
    if (!isNamed || each.standard || each.ignoredGoFiles.length === 0) continue;
    const [file] = await findCgoFiles(each);
    if (file === undefined) continue;
    const path = printable(join(each.dir, file));
    return `${path} was left out: it needs cgo (import "C"). ${cgoHint(formatPlatform(platform))}`;
  }
  return undefined;
}

async function explainTools(said: string, options: ExplainCgoOptions): Promise<string | undefined> {
  for (const { hint, pattern } of FAILURES) {
    const found = pattern.exec(said);
    if (found !== null) return hint(found[1] ?? found[2] ?? "", options);
  }
  return undefined;
}

/** The packages that use cgo: those of Go itself last. */
export function findUsers(packages: readonly GoPackage[]): readonly GoPackage[] {
  // The package runtime/cgo is in every program with cgo.
  const users = packages.filter(({ cgoFiles, importPath }) => cgoFiles.length > 0 && importPath !== "runtime/cgo");
  return users.toSorted((a, b) => Number(a.standard) - Number(b.standard));
}

/** The file whose `#cgo` line has a word, as the end of a hint; empty if there is none. */
async function wanted(packages: readonly GoPackage[], word: RegExp): Promise<string> {
  for (const { cgoFiles, dir, importPath, standard } of packages) {
    if (standard) continue;
    for (const name of cgoFiles) {
      const text = await readFile(join(dir, name), "utf8").catch(() => "");
      if (text.split("\n").some((line) => line.includes("#cgo") && word.test(line)))
        return ` (${name} of ${importPath} wants it)`;
    }
  }
  return "";
}

function escapeText(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
