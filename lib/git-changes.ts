/**
 * The paths of a git work tree that differ from a revision: changed, added, removed, and those that git does not track.
 */
import { lstatSync } from "node:fs";
import { join } from "node:path";
import { CommandError, KoError, printable, UsageError } from "./errors.ts";
import type { Host } from "./host.ts";

/** The differences of a work tree from a revision. */
export interface TreeChanges {
  /** Absolute, without symlinks. */
  readonly root: string;
  /** As given. */
  readonly revision: string;
  readonly paths: readonly ChangedPath[];
}

export interface ChangedPath {
  /** Absolute. */
  readonly path: string;
  /** A folder is a submodule, or holds nothing that git tracks. */
  readonly is: "file" | "folder" | "gone";
}

/**
 * Compares the work tree around the working directory with a revision, as it is: with changes that are not committed, and
 * with all files that git does not track, also the ignored ones.
 *
 * A renamed file is two paths. A submodule is one path, if its commit or its content differs.
 *
 * @throws {UsageError} If there is no git work tree.
 * @throws {KoError} If the repository does not have the revision.
 */
export async function readChanges(revision: string, host: Host): Promise<TreeChanges> {
  const { root, isShallow } = await findTree(host);
  const git = async (
    command: string,
    ...args: readonly string[]
  ): Promise<{ readonly code: number; readonly text: string }> => {
    const env = { ...host.env, GIT_OPTIONAL_LOCKS: "0", LC_ALL: "C" };
    const { code, stderr, stdout } = await host.run(["git", command, ...args], { cwd: root, env, anyExitCode: true });
    const text = new TextDecoder().decode(stdout);
    if (code !== 0 && command !== "rev-parse") {
      throw new KoError(
        `Cannot compare with --changed-since "${revision}": git ${command}: ${printable(stderr.trim())}`,
      );
    }
    return { code, text };
  };
  // Git would take it for a flag.
  const found = revision.startsWith("-")
    ? undefined
    : await git("rev-parse", "--verify", "--quiet", `${revision}^{commit}`);
  const commit = found?.text.trim();
  if (found?.code !== 0 || commit === undefined || commit === "") throw noRevision(revision, { isShallow });
  const [changed, untracked] = await Promise.all([
    git("diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--ignore-submodules=none", commit, "--"),
    git("ls-files", "-z", "--others", "--directory", "--no-empty-directory"),
  ]);
  const names = new Set([changed, untracked].flatMap(({ text }) => text.split("\0").filter(Boolean)));
  const paths = Array.from(names, (name): ChangedPath => {
    const path = join(root, name.replace(/\/$/, ""));
    return { path, is: kindOf(path) };
  });
  return { root, revision, paths: paths.sort((a, b) => (a.path < b.path ? -1 : 1)) };
}

async function findTree(host: Host): Promise<{ readonly root: string; readonly isShallow: boolean }> {
  const argv = ["git", "rev-parse", "--show-toplevel", "--is-shallow-repository"] as const;
  const env = { ...host.env, LC_ALL: "C" };
  let why: string;
  try {
    const { code, stderr, stdout } = await host.run(argv, { cwd: host.cwd, env, anyExitCode: true });
    const [root = "", shallow] = new TextDecoder().decode(stdout).split("\n");
    if (code === 0 && root !== "") return { root, isShallow: shallow === "true" };
    why = printable(stderr.trim().split("\n")[0] ?? "", 300);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    why = error.message;
  }
  throw new UsageError(`Cannot use --changed-since in "${host.cwd}": it needs a git work tree: ${why}`, {
    hint: "Leave it out: an unchanged program is not compiled anyway.",
  });
}

function noRevision(revision: string, { isShallow }: { readonly isShallow: boolean }): KoError {
  const shown = printable(revision, 200);
  if (!isShallow) {
    return new KoError(`Cannot find --changed-since "${shown}": the repository has no such commit`, {
      hint: "Fetch it first: git fetch origin",
    });
  }
  return new KoError(`Cannot find --changed-since "${shown}": the clone is shallow, and does not have that commit`, {
    hint: "Fetch the history: git fetch --unshallow. For actions/checkout of GitHub, set fetch-depth: 0.",
  });
}

function kindOf(path: string): ChangedPath["is"] {
  try {
    return lstatSync(path).isDirectory() ? "folder" : "file";
  } catch {
    return "gone";
  }
}
