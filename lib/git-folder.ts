/**
 * The folders of a repository, found without git: that of a work tree, also of linked ones and submodules.
 *
 * https://git-scm.com/docs/gitrepository-layout
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { look, lookAtLink, realPath } from "./file.ts";

/** The repository of a work tree. Both paths are real, and the same unless the work tree is a linked one. */
export interface Repository {
  /** The folder of this work tree alone. */
  readonly own: string;
  /** The folder that all work trees of the repository share (`$GIT_COMMON_DIR`). */
  readonly shared: string;
}

/**
 * Finds the repository of a work tree that is sure to belong to it.
 *
 * A `.git` file may name any folder, so the repository itself must name the work tree: by the file `gitdir` of a linked
 * work tree, by `core.worktree` of a submodule.
 *
 * @param tree real path
 * @returns undefined if there is none, or it belongs to another work tree
 */
export function findRepository(tree: string): Repository | undefined {
  const path = join(tree, ".git");
  try {
    const info = lookAtLink(path);
    if (info?.isDirectory() === true) {
      const named = readWorkTree(path);
      return named === undefined || named === tree ? { own: path, shared: path } : undefined;
    }
    const pointer = info?.isFile() === true ? readGitFile(path) : undefined;
    const own = pointer === undefined ? undefined : realPath(pointer);
    if (own === undefined || look(join(own, "HEAD")) === undefined) return undefined;
    const shared = realPath(readCommonFolder(own));
    if (shared === undefined || !isRepository(shared)) return undefined;
    const isTheirs =
      own === shared
        ? readWorkTree(own) === tree
        : dirname(own) === join(shared, "worktrees") &&
          realPath(resolve(own, readFileSync(join(own, "gitdir"), "utf8").trim())) === path;
    return isTheirs ? { own, shared } : undefined;
  } catch {
    // A file that cannot be read proves nothing.
    return undefined;
  }
}

/** Whether a folder is a repository, by the test of git itself; those of linked work trees are none alone. */
export function isRepository(folder: string): boolean {
  return (
    lookAtLink(join(folder, "HEAD")) !== undefined &&
    ["objects", "refs"].every((name) => existsSync(join(folder, name)))
  );
}

/**
 * Reads the folder that a `.git` file of a linked work tree or submodule names; undefined if it names none.
 *
 * @throws If the file cannot be read.
 */
export function readGitFile(file: string): string | undefined {
  const pointer = /^gitdir: (.+?)[\r\n]*$/.exec(readFileSync(file, "utf8"))?.[1];
  return pointer === undefined ? undefined : resolve(dirname(file), pointer);
}

/**
 * Reads which folder all work trees of a repository share (`$GIT_COMMON_DIR`).
 *
 * @param own the work tree's own git folder; it is the shared one, too, where there are no linked work trees
 * @throws If the file that names the shared folder cannot be read.
 */
export function readCommonFolder(own: string): string {
  const file = join(own, "commondir");
  return existsSync(file) ? resolve(own, readFileSync(file, "utf8").trim()) : own;
}

/** The work tree that `core.worktree` of a repository names, as a real path; undefined if it is not set. */
function readWorkTree(folder: string): string | undefined {
  let found: string | undefined;
  for (const name of ["config", "config.worktree"]) {
    const file = join(folder, name);
    if (existsSync(file)) found = readCoreWorkTree(readFileSync(file, "utf8")) ?? found;
  }
  return found === undefined ? undefined : (realPath(resolve(folder, found)) ?? "");
}

/** The last value of `core.worktree` in a configuration file (https://git-scm.com/docs/git-config#_syntax). */
function readCoreWorkTree(text: string): string | undefined {
  let isCore = false;
  let found: string | undefined;
  for (const line of text.split("\n")) {
    const section = /^\s*\[\s*([^\]"\s]+)\s*("[^\]]*")?\s*\]/.exec(line);
    if (section !== null) isCore = section[1]?.toLowerCase() === "core" && section[2] === undefined;
    const value = isCore ? /^\s*(?:\[[^\]]*\])?\s*worktree\s*=\s*(.*?)\s*$/i.exec(line)?.[1] : undefined;
    if (value !== undefined) found = value.replace(/^"(.*)"$/, "$1").replace(/\\(["\\])/g, "$1");
  }
  return found;
}
