/**
 * Where git keeps what belongs to a work tree: its own folder, and the one that all work trees of a repository share.
 *
 * https://git-scm.com/docs/gitrepository-layout
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

/**
 * The folder that a `.git` file names, as linked work trees and submodules have one; undefined if it names none.
 *
 * @throws if the file cannot be read
 */
export function readGitFile(file: string): string | undefined {
  const pointer = /^gitdir: (.+?)[\r\n]*$/.exec(readFileSync(file, "utf8"))?.[1];
  return pointer === undefined ? undefined : resolve(dirname(file), pointer);
}

/**
 * What all work trees share, of a work tree's own folder; that folder itself, if there is one work tree only.
 *
 * @throws if the file that names it cannot be read
 */
export function readCommonFolder(own: string): string {
  const file = join(own, "commondir");
  return existsSync(file) ? resolve(own, readFileSync(file, "utf8").trim()) : own;
}
