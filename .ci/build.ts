/**
 * Compiles ko: `./ko` for this machine. The executables of a release are made by .ci/release.ts.
 *
 * Same commit, same Bun: same bytes, wherever the folder is. What the executable must not do in the folder that it runs
 * in (load .env, bunfig.toml, tsconfig.json, package.json) is switched off here; test/feature-compile.test.ts shows it.
 *
 * usage: bun .ci/build.ts [--outfile FILE]
 */
import { mkdtemp, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { describeError, exitCodeOf } from "../lib/errors.ts";
import { createHost, type Host } from "../lib/host.ts";
import { findSourceVersion, type SourceVersion } from "../lib/version.ts";

/** A system, as Bun names it. */
export type Target = Bun.Build.CompileTarget;

export interface CompileOptions {
  /** Folder with ko.ts, absolute. */
  readonly folder: string;
  /** Absolute. */
  readonly outfile: string;
  /** @default this machine */
  readonly target?: Target | undefined;
  /** The path of the target's Bun. @default the Bun that runs */
  readonly runtime?: string | undefined;
  readonly source: SourceVersion;
}

const ENTRIES = ["ko.ts", "lib/compress.worker.ts", "lib/yaml.worker.ts"];

/**
 * Compiles one executable.
 *
 * @throws {Error} If the sources do not compile, or the runtime of the target cannot be had.
 */
export async function compile({ folder, outfile, target, runtime, source }: CompileOptions): Promise<void> {
  // The bytes hold the paths of the sources, as seen from the working directory.
  process.chdir(folder);
  // Made elsewhere and renamed: a half-written executable is never there, and one that runs just now can be replaced.
  // The name is always the same, because it is in the bytes.
  const temporary = await mkdtemp(join(dirname(outfile), ".compile-"));
  try {
    const result = await Bun.build({
      entrypoints: ENTRIES.map((entry) => join(folder, entry)),
      root: folder,
      format: "esm",
      // Modules that a command does not use are not loaded; bytecode halves the time of those that are.
      splitting: true,
      bytecode: true,
      // In the executable, so that the stack of a bug report names source lines.
      sourcemap: "linked",
      // Class names stay: they are the names of errors.
      minify: { whitespace: true, syntax: true, identifiers: false },
      define: { KO_VERSION: JSON.stringify(source.version ?? ""), KO_COMMIT: JSON.stringify(source.commit ?? "") },
      compile: {
        ...(target === undefined ? {} : { target }),
        ...(runtime === undefined ? {} : { executablePath: runtime }),
        outfile: join(temporary, "ko"),
        autoloadDotenv: false,
        autoloadBunfig: false,
        autoloadTsconfig: false,
        autoloadPackageJson: false,
      },
    });
    const made = result.outputs.find(({ kind }) => kind === "entry-point");
    if (made === undefined) throw new Error(`no output for ${outfile}`);
    await rename(made.path, outfile);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/**
 * Compiles ko for this machine, in the folder of its sources unless `outfile` says otherwise.
 *
 * @returns the absolute path of the executable
 */
export async function compileHere(host: Host, folder: string, outfile?: string): Promise<string> {
  const source = await findSourceVersion(host, folder);
  const file = resolve(folder, outfile ?? (host.platform === "win32" ? "ko.exe" : "ko"));
  await compile({ folder, outfile: file, source });
  host.err(`Compiled ${file} (${show(source)})\n`);
  return file;
}

function show({ version, commit }: SourceVersion): string {
  return version ?? commit ?? "unknown version";
}

async function main(host: Host): Promise<void> {
  const { values } = parseArgs({
    args: Bun.argv.slice(2),
    options: { outfile: { type: "string" } },
  });
  const folder = dirname(import.meta.dir);
  // A relative path is seen from where the command was typed.
  await compileHere(host, folder, values.outfile === undefined ? undefined : resolve(host.cwd, values.outfile));
}

/** Runs the main function of a script, prints its error, and sets the exit code. */
export async function runScript(run: (host: Host) => Promise<void>): Promise<void> {
  const host = createHost();
  try {
    await run(host);
  } catch (error) {
    host.err(
      error instanceof AggregateError ? `${error.errors.map(String).join("\n")}\n` : `${describeError(error)}\n`,
    );
    process.exitCode = exitCodeOf(error);
  }
}

if (import.meta.main) await runScript(main);
