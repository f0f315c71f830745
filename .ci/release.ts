/**
 * Compiles the executables of a release into dist/, with SHA256SUMS, manual pages and completion scripts.
 *
 * Each executable begins with the Bun runtime of its system, an npm package whose digest stands here. For x64 it is the
 * runtime that needs no AVX2.
 *
 * usage: bun .ci/release.ts [--dist FOLDER] [NAME]...
 */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { SHELLS } from "../lib/cli-commands.ts";
import { completionScript } from "../lib/cli-completion.ts";
import { KoError } from "../lib/errors.ts";
import type { Host } from "../lib/host.ts";
import { findSourceVersion } from "../lib/version.ts";
import pkg from "../package.json" with { type: "json" };
import { compile, runScript, type Target } from "./build.ts";
import { writeManPages } from "./man.ts";

/** One executable of a release. */
export interface Executable {
  /** Its file name. */
  readonly name: string;
  readonly target: Target;
  /** The npm package of the runtime, without `@oven/bun-`, in the version of Bun that package.json names. */
  readonly runtime: string;
  /** The digest of that package's archive, as `npm view @oven/bun-RUNTIME@VERSION dist.integrity` prints it. */
  readonly integrity: string;
}

/** The version of Bun that the digests are of. */
export const RUNTIME_VERSION = "1.4.5";

export const EXECUTABLES: readonly Executable[] = [
  {
    name: "ko-linux-x64",
    target: "bun-linux-x64-baseline",
    runtime: "linux-x64-baseline",
    integrity: "sha512-s8yMwYcFnnrA178gji0gZbkE2WVDej/Ti1x770oPfihxyRxSMNhGhiAQNXV53aDeraZxksdvKV/RAdQBCd0qPA==",
  },
  {
    name: "ko-linux-arm64",
    target: "bun-linux-arm64",
    runtime: "linux-aarch64",
    integrity: "sha512-4BXmsSKnjOrlGWqZV4x/oWa7AVoR+B6lCXddMzOAXBIm3t50eslg9wb66gmtW1AamEQ1l1CDvmmruysEhqOWMg==",
  },
  {
    name: "ko-linux-x64-musl",
    target: "bun-linux-x64-baseline-musl",
    runtime: "linux-x64-musl-baseline",
    integrity: "sha512-cWJhU8h0+MiUgpSt99sQhjxLIIosKEcKYdtKddohokUvAuN6jKOy7g7+QDTZTXtwHxz93wL3BX+L6wXVPDUH3A==",
  },
  {
    name: "ko-linux-arm64-musl",
    target: "bun-linux-arm64-musl",
    runtime: "linux-aarch64-musl",
    integrity: "sha512-XCNc+WvvMAdNNb+OWTogpy+N9wm62fkVeEVLb6how0RZhW5LPi6c7BlkeVCuWps7XjEl2saFpHFa20/1E+PAHg==",
  },
  {
    name: "ko-darwin-x64",
    target: "bun-darwin-x64-baseline",
    runtime: "darwin-x64-baseline",
    integrity: "sha512-zqfLA5A4B+hYMh5WYzYSot3uZ06FzhdP0OEwQisEzdirYtXGj5cQFlfy31BGfNsAsk1Gd/w/OxJ/jqqJ3cMclw==",
  },
  {
    name: "ko-darwin-arm64",
    target: "bun-darwin-arm64",
    runtime: "darwin-aarch64",
    integrity: "sha512-4MIFXHmctH2EhAxLXm2/qxNtv17dFtLJylvaOCsrgq6KSqHTs6eW5YSrJjRbJxYUJaR901fsN8JfZOa+CsWpWQ==",
  },
  {
    name: "ko-windows-x64.exe",
    target: "bun-windows-x64-baseline",
    runtime: "windows-x64-baseline",
    integrity: "sha512-/U3Dc74uGqE6EUqef7mPtg9KwJs7iJH4JHRMfIZIn18MrJh6Xz4gVvWDXRvzCL2j8wPlTnJVyrO4n7Qq4uM7TQ==",
  },
];

/** The files in which shells look for completions of `ko`. */
const COMPLETION_FILES = { bash: "ko.bash", zsh: "_ko", fish: "ko.fish", powershell: "ko.ps1" } as const;

/** Compiles executables into `dist`, and writes their SHA256SUMS, manual pages and completion scripts. */
async function release(
  host: Host,
  executables: readonly Executable[],
  { folder, dist }: { readonly folder: string; readonly dist: string },
): Promise<void> {
  const source = await findSourceVersion(host, folder);
  await writeDocuments(host, { folder, dist });
  const sums: string[] = [];
  for (const { name, target, runtime, integrity } of executables) {
    const outfile = join(dist, name);
    await using temporary = await host.tempFolder("release-");
    const runtimePath = await fetchRuntime(host, { runtime, integrity }, temporary.path);
    await compile({ folder, outfile, target, runtime: runtimePath, source });
    sums.push(`${await hashFile(outfile, "sha256", "hex")}  ${name}\n`);
    const version = source.version ?? source.commit ?? "unknown version";
    host.err(`Compiled ${outfile} (${version}, ${(Bun.file(outfile).size / 1e6).toFixed(1)} MB)\n`);
  }
  await Bun.write(join(dist, "SHA256SUMS"), sums.join(""));
}

/** Writes `man/man1/*.1`, for a directory of MANPATH, and `completions/`. */
export async function writeDocuments(
  host: Host,
  { dist, folder }: { readonly folder: string; readonly dist: string },
): Promise<void> {
  const { stdout } = await host.run(["git", "log", "-1", "--format=%ct"], { cwd: folder, anyExitCode: true });
  const seconds = Number(host.env["SOURCE_DATE_EPOCH"] || new TextDecoder().decode(stdout));
  const pages = join(dist, "man", "man1");
  await mkdir(pages, { recursive: true });
  for (const [file, text] of writeManPages({ date: new Date(seconds * 1000) }))
    await writeFile(join(pages, file), text);
  const completions = join(dist, "completions");
  await mkdir(completions, { recursive: true });
  for (const shell of SHELLS) await writeFile(join(completions, COMPLETION_FILES[shell]), completionScript(shell));
}

/**
 * Fetches the runtime with npm, which knows the user's mirror and proxy, and keeps it in its own cache.
 *
 * @param into a folder for the runtime
 * @returns the path of the runtime
 * @throws {KoError} If npm cannot fetch the package, or its digest is another one.
 */
export async function fetchRuntime(
  host: Host,
  { runtime, integrity }: Pick<Executable, "runtime" | "integrity">,
  into: string,
): Promise<string> {
  const name = `@oven/bun-${runtime}@${RUNTIME_VERSION}`;
  if (pkg.devDependencies.bun !== RUNTIME_VERSION) {
    throw new KoError(
      `Cannot compile a release: package.json wants Bun ${pkg.devDependencies.bun}, the digests are of ${RUNTIME_VERSION}`,
      { hint: `Update the digests in .ci/release.ts: npm view @oven/bun-${runtime} dist.integrity` },
    );
  }
  await host.run(["npm", "pack", "--silent", "--prefer-offline", name], { cwd: into });
  const archive = join(into, `oven-bun-${runtime}-${RUNTIME_VERSION}.tgz`);
  const found = `sha512-${await hashFile(archive, "sha512", "base64")}`;
  if (found !== integrity) throw new KoError(`Cannot use ${name}: its digest is ${found}, want ${integrity}`);
  await host.run(["tar", "-xzf", archive, "-C", into]);
  return join(into, "package", "bin", runtime.startsWith("windows") ? "bun.exe" : "bun");
}

async function hashFile(path: string, algorithm: "sha256" | "sha512", encoding: "hex" | "base64"): Promise<string> {
  const hash = new Bun.CryptoHasher(algorithm);
  for await (const chunk of Bun.file(path).stream()) hash.update(chunk);
  return hash.digest(encoding);
}

async function main(host: Host): Promise<void> {
  const { values, positionals: names } = parseArgs({
    args: Bun.argv.slice(2),
    options: { dist: { type: "string" } },
    allowPositionals: true,
  });
  const known = EXECUTABLES.map(({ name }) => name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new KoError(`Cannot compile "${unknown}": a release has ${known.join(", ")}`);
  const folder = dirname(import.meta.dir);
  const chosen = EXECUTABLES.filter(({ name }) => names.length === 0 || names.includes(name));
  // A relative path is seen from where the command was typed.
  await release(host, chosen, { folder, dist: resolve(host.cwd, values.dist ?? join(folder, "dist")) });
}

if (import.meta.main) await runScript(main);
