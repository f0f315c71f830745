/**
 * The version of ko: that of the release, or the commit that it was built from.
 *
 * The compiler (.ci/build.ts) sets both. If ko runs from its sources, git is asked.
 */
import { realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";

/** Set at compile time; empty if the build is not a release. */
declare const KO_VERSION: string;
/** Set at compile time: the commit hash, with `-dirty` if the sources differ from it; empty without git. */
declare const KO_COMMIT: string;

export interface SourceVersion {
  /** `0.1.0`, if the sources are exactly those of a release. */
  readonly version: string | undefined;
  /** 40 hex digits, and `-dirty` if the sources differ from that commit. */
  readonly commit: string | undefined;
}

/** Returns the output of `ko version`: `0.1.0`, a commit hash (with `-dirty` if the sources differ), or `unknown`. */
export async function koVersion(host: Host): Promise<string> {
  if (typeof KO_VERSION === "string" && typeof KO_COMMIT === "string") return KO_VERSION || KO_COMMIT || "unknown";
  const { version, commit } = await findSourceVersion(host, dirname(import.meta.dir));
  return version ?? commit ?? "unknown";
}

/**
 * Asks git for the version of a source folder. Without git, as in a release's archive, it is that of `package.json`.
 *
 * @param folder absolute: the folder of package.json
 */
export async function findSourceVersion(host: Host, folder: string): Promise<SourceVersion> {
  const git = (...args: readonly string[]): Promise<string | undefined> => askGit(host, folder, args);
  const root = await git("rev-parse", "--show-toplevel");
  const inGit = root !== undefined && (await realpath(root)) === (await realpath(folder));
  const release = await readPackageVersion(folder);
  if (!inGit) {
    // With `.git`, git is missing or refuses the folder, so the version is unknown. Without, this is a release's archive.
    const hasGit = await stat(join(folder, ".git")).catch(() => undefined);
    return { version: hasGit === undefined ? release : undefined, commit: undefined };
  }
  const head = await git("rev-parse", "--verify", "HEAD");
  if (head === undefined) return { version: undefined, commit: undefined };
  if ((await git("--no-optional-locks", "status", "--porcelain")) !== "") {
    return { version: undefined, commit: `${head}-dirty` };
  }
  const tags = (await git("tag", "--points-at", "HEAD"))?.split("\n") ?? [];
  return { version: release !== undefined && tags.includes(`v${release}`) ? release : undefined, commit: head };
}

/** Runs git and returns its output without the line end; undefined if it fails. */
async function askGit(host: Host, folder: string, args: readonly string[]): Promise<string | undefined> {
  // A hook or a rebase sets GIT_DIR and the like, which would lead git to another folder.
  const env = Object.fromEntries(Object.entries(host.env).filter(([name]) => !name.startsWith("GIT_")));
  try {
    const { stdout } = await host.run(["git", ...args], { cwd: folder, env });
    return new TextDecoder().decode(stdout).trim();
  } catch (error) {
    if (error instanceof KoError && !host.signal.aborted) return undefined;
    throw error;
  }
}

async function readPackageVersion(folder: string): Promise<string | undefined> {
  try {
    const value: unknown = await Bun.file(join(folder, "package.json")).json();
    return isObject(value) && typeof value["version"] === "string" ? value["version"] : undefined;
  } catch {
    return undefined;
  }
}
