/**
 * Where a symbolic link in kodata leads, and whether it may lead there (spec/demand.md row 1 and gotcha 7).
 *
 * A link must end inside `KO_DATA_PATH_ALLOWED_ROOT`, if that is a folder above kodata; else inside the git work tree
 * around kodata; else inside kodata: so no file of the building machine gets into an image unseen. The one exception
 * is `.git/…` where `.git` is a file, as in linked work trees and submodules: what git means by it is taken
 * (https://git-scm.com/docs/gitrepository-layout), though it lies elsewhere.
 *
 * It reads links and git's pointer files, no content.
 */
import { type Stats, existsSync, lstatSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { dirname, isAbsolute, join, parse, relative, resolve, sep } from "node:path";
import { KoError, messageOf } from "./errors.ts";
import { readCommonFolder, readGitFile } from "./gitfolder.ts";

/** What links of one kodata folder may lead to. */
export interface LinkRules {
  /** Real path of the kodata folder. */
  readonly kodata: string;
  /** Real path of the folder that links may not leave. */
  readonly root: string;
  /** `KO_DATA_PATH_ALLOWED_ROOT`, where it is set but counts for nothing, being no folder above kodata. */
  readonly ignoredRoot: string | undefined;
}

/** The file or folder at a link's end. */
export interface LinkTarget {
  /** Real path. */
  readonly path: string;
  readonly info: Stats;
}

/** As many links in a row as Linux follows. */
const MAX_HOPS = 40;

/**
 * @param kodata real path of the folder
 * @param allowedRoot the value of `KO_DATA_PATH_ALLOWED_ROOT`, if it has one
 */
export function findLinkRules(kodata: string, allowedRoot: string | undefined): LinkRules {
  if (allowedRoot !== undefined) {
    const root = findRealPath(resolve(allowedRoot));
    if (root !== undefined && isInside(root, kodata)) return { kodata, root, ignoredRoot: undefined };
  }
  let root = kodata;
  for (let at = dirname(kodata); ; at = dirname(at)) {
    if (existsSync(join(at, ".git"))) root = at;
    if (root !== kodata || at === dirname(at)) break;
  }
  return { kodata, root, ignoredRoot: allowedRoot };
}

/**
 * Follows `link` to its end, or gives undefined if there is nothing.
 *
 * @throws {KoError} If it leads where it may not, or links lead to each other in a circle.
 */
export function findLinkTarget(link: string, rules: LinkRules): LinkTarget | undefined {
  let path: string;
  try {
    path = realpathSync(link);
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "ENOENT" || code === "ENOTDIR") {
      const target = followGitFile(link, rules);
      return target === undefined ? undefined : { path: target, info: statSync(target) };
    }
    const why = code === "ELOOP" ? "the links lead to each other in a circle" : messageOf(cause);
    throw new KoError(`Cannot follow the link "${link}": ${why}`, {
      cause,
      hint: "Remove the link, or let it lead to a file or a folder.",
    });
  }
  if (!isInside(rules.root, path)) throw outside(link, { path, rules });
  return { path, info: statSync(path) };
}

/** Whether `path` is `folder` or below it; both absolute, without links. */
export function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

function outside(link: string, options: { readonly path: string; readonly rules: LinkRules }): KoError {
  const { path, rules } = options;
  let common = dirname(rules.kodata);
  while (!isInside(common, path) && common !== dirname(common)) common = dirname(common);
  const ignored =
    rules.ignoredRoot === undefined
      ? ""
      : ` (KO_DATA_PATH_ALLOWED_ROOT is "${rules.ignoredRoot}", which is no folder above kodata)`;
  return new KoError(
    `Cannot pack the link "${link}": it leads to "${path}", wanted a place inside "${rules.root}"${ignored}`,
    { hint: `To permit it, set KO_DATA_PATH_ALLOWED_ROOT=${common}, a folder that holds both; else copy the file.` },
  );
}

/**
 * Follows a link whose target the kernel does not find, part by part, in case its way leads through a `.git` file
 * within the rules' root. Gives the real path, or undefined if there is nothing, or git would not look there.
 */
function followGitFile(link: string, rules: LinkRules): string | undefined {
  const split = (path: string): string[] => path.split(sep === "/" ? "/" : /[\\/]/);
  let at = parse(link).root;
  let parts = split(link.slice(at.length));
  for (let hops = 0; ;) {
    const part = parts.shift();
    if (part === undefined) return undefined;
    if (part === "" || part === ".") continue;
    const next = part === ".." ? dirname(at) : join(at, part);
    const info = lstatSync(next, { throwIfNoEntry: false });
    if (info === undefined) return undefined;
    if (info.isSymbolicLink()) {
      if (++hops > MAX_HOPS) return undefined;
      const text = readlinkSync(next);
      if (isAbsolute(text)) at = parse(text).root;
      parts = [...split(text.slice(isAbsolute(text) ? at.length : 0)), ...parts];
      continue;
    }
    const rest = parts.filter((name) => name !== "" && name !== ".");
    if (info.isFile() && rest.length > 0) {
      return part === ".git" && isInside(rules.root, next) ? findInGitFolder(next, rest) : undefined;
    }
    at = next;
  }
}

/** What `.git/<rest>` is for git, where `file` is a `.git` file: `gitdir: ` and a path. */
function findInGitFolder(file: string, rest: readonly string[]): string | undefined {
  if (rest.includes("..")) return undefined;
  const named = readGitFile(file);
  const own = named === undefined ? undefined : findRealPath(named);
  if (own === undefined) return undefined;
  const shared = findRealPath(readCommonFolder(own));
  // A `.git` file that came with a download could point at any folder: only a repository will do.
  if (shared === undefined || !existsSync(join(own, "HEAD"))) return undefined;
  if (!["HEAD", "objects", "refs"].every((name) => existsSync(join(shared, name)))) return undefined;
  const target = findRealPath(join(isShared(rest) ? shared : own, ...rest));
  return target !== undefined && (isInside(own, target) || isInside(shared, target)) ? target : undefined;
}

/** Whether all work trees of a repository share `.git/<rest>` (gitrepository-layout, "$GIT_COMMON_DIR"). */
function isShared([first = "", second = ""]: readonly string[]): boolean {
  if (first === "refs") return second !== "bisect" && second !== "worktree" && second !== "rewritten";
  if (first === "logs") return second !== "HEAD";
  const names = "branches common config description hooks info modules objects packed-refs remotes shallow worktrees";
  return names.split(" ").includes(first);
}

function findRealPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
