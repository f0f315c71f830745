/**
 * Which ko this is: the release's version, or the commit that it was made of.
 *
 * The compiler (.ci/build.ts) puts both in; when ko runs from its source, git is asked.
 */
import { realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { KoError } from "./errors.ts";
import type { Host } from "./host.ts";
import { isObject } from "./json.ts";

/** Set at compile time; empty in a build that is no release. */
declare const KO_VERSION: string;
/** Set at compile time: commit hash, with `-dirty` if the sources differ from it; empty where there is no git. */
declare const KO_COMMIT: string;

export interface SourceVersion {
  /** `0.1.0`, if the sources are exactly a release's. */
  readonly version: string | undefined;
  /** 40 hex digits, and `-dirty` if something differs from that commit. */
  readonly commit: string | undefined;
}

/** What `ko version` prints: `0.1.0`, or a commit hash, with `-dirty` if the sources differ from it, or `unknown`. */
export async function koVersion(host: Host): Promise<string> {
  if (typeof KO_VERSION === "string" && typeof KO_COMMIT === "string") return KO_VERSION || KO_COMMIT || "unknown";
  const { version, commit } = await findSourceVersion(host, dirname(import.meta.dir));
  return version ?? commit ?? "unknown";
}

/**
 * What git says of a source folder. Sources without git (a release's archive) are the version of their `package.json`.
 *
 * @param folder absolute, the one with package.json
 */
export async function findSourceVersion(host: Host, folder: string): Promise<SourceVersion> {
  const git = (...args: readonly string[]): Promise<string | undefined> => askGit(host, folder, args);
  const root = await git("rev-parse", "--show-toplevel");
  const inGit = root !== undefined && (await realpath(root)) === (await realpath(folder));
  const release = await readPackageVersion(folder);
  if (!inGit) {
    // Where git is broken or refuses the folder, nothing is known; where there is none, it is a release's archive.
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

/** git's answer without the line end, undefined if it gives none. */
async function askGit(host: Host, folder: string, args: readonly string[]): Promise<string | undefined> {
  // A hook or a rebase sets GIT_DIR and the like; the question is about this folder.
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
