/**
 * Where the symlinks of a kodata folder may lead: inside the git work tree around it, or inside
 * `KO_DATA_PATH_ALLOWED_ROOT`, so that no other file of the build machine gets into an image.
 *
 * A repository holds secrets too, such as the token in `.git/config` of a CI checkout: of the repository of that work tree
 * only `HEAD`, `refs` and `packed-refs` may be reached, of others nothing. Rules: docs/rules.md D2.8, D2.10.
 *
 * https://git-scm.com/docs/gitrepository-layout
 */
import { lstatSync, readlinkSync, realpathSync, type Stats } from "node:fs";
import { basename, dirname, isAbsolute, join, parse, resolve, sep } from "node:path";
import { codeOf, isMissing, KoError, messageOf } from "./errors.ts";
import { isBelow, isInside, lookAtLink, realPath } from "./file.ts";
import { findRepository, isRepository, type Repository } from "./git-folder.ts";
import { listIgnored } from "./git.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import type { TarEntry } from "./tar.ts";

/** Where the symlinks of a kodata folder may lead. */
export interface LinkRules {
  /** Real path of the kodata folder. */
  readonly kodata: string;
  /** Real path of the folder that symlinks may not leave. */
  readonly root: string;
  /** The value of `KO_DATA_PATH_ALLOWED_ROOT` if it is ignored, because it is not a folder above kodata. */
  readonly ignoredRoot: string | undefined;
  /** The work tree around kodata, as far as it is one of git. */
  readonly tree: string | undefined;
  /** The repository of that work tree; undefined if its `.git` is not sure to belong to it. */
  readonly repository: Repository | undefined;
}

/** The file or folder at the end of a symlink. */
export interface LinkTarget {
  /** Real path. */
  readonly path: string;
  readonly info: Stats;
}

/** Files that a line of the log lists. */
const MAX_LISTED = 3;
/** The most symlinks in a row that Linux follows. */
const MAX_HOPS = 40;

/** The folder of a module's version in the module cache, which is read-only and has no work tree of its own. */
const MODULE_VERSION = /@v\d/;

/**
 * Finds where the symlinks of a kodata folder may lead: inside `allowedRoot` if that is above kodata, else inside the
 * git work tree around kodata, else inside kodata.
 *
 * @param kodata real path of the folder
 * @param allowedRoot the value of `KO_DATA_PATH_ALLOWED_ROOT`, if it is set
 */
export function findLinkRules(kodata: string, allowedRoot: string | undefined): LinkRules {
  const tree = findTree(kodata);
  const around = { kodata, tree, repository: tree === undefined ? undefined : findRepository(tree) };
  if (allowedRoot !== undefined) {
    const root = realPath(resolve(allowedRoot));
    if (root !== undefined && isInside(kodata, root)) return { ...around, root, ignoredRoot: undefined };
  }
  return { ...around, root: tree ?? kodata, ignoredRoot: allowedRoot };
}

/**
 * Follows a symlink to its end; undefined if that does not exist.
 *
 * The way may lead through `.git` where that is a file, as in linked work trees and submodules: then the end is the
 * file that git means, though it lies outside the allowed root.
 *
 * @throws {KoError} If the symlink leads out of the allowed root or to a secret of a repository, or symlinks form a circle.
 */
export function findLinkTarget(link: string, rules: LinkRules): LinkTarget | undefined {
  let path: string;
  try {
    path = realpathSync(link);
  } catch (cause) {
    if (isMissing(cause)) return followGitFile(link, rules);
    const why = codeOf(cause) === "ELOOP" ? "the symlinks form a circle" : messageOf(cause);
    throw new KoError(`Cannot follow the symlink "${link}": ${why}`, {
      cause,
      hint: "Remove the symlink, or make it lead to a file or a folder.",
    });
  }
  if (!isInside(path, rules.root)) throw outside(link, { path, rules });
  checkRepositories(link, { path, rules });
  // Not followed: a symlink that takes the place of the file now is none that was checked.
  return { path, info: lstatSync(path) };
}

/** Whether a folder is left out of a folder that is packed: the repository of a work tree that lies there. */
export function isHiddenFolder(path: string, { isLinked }: { readonly isLinked: boolean }): boolean {
  // A bare repository in kodata itself is content; one that a symlink leads to may be anything.
  return isGitName(basename(path)) || (isLinked && isRepository(path));
}

/** Says with `-v` which files that git ignores are packed because symlinks lead to them, such as the output of a bundler. */
export async function logIgnored(
  entries: readonly TarEntry[],
  { directory, host, log }: { readonly directory: string; readonly host: Host; readonly log: Log },
): Promise<void> {
  const kodata = log.isVerbose === true ? realPath(directory) : undefined;
  const tree = kodata === undefined ? undefined : findTree(kodata);
  if (kodata === undefined || tree === undefined) return;
  const linked = entries.flatMap(({ content }) => {
    const path = content !== undefined && "path" in content ? content.path : undefined;
    return path !== undefined && isInside(path, tree) && !isInside(path, kodata) ? [path] : [];
  });
  const ignored = linked.length === 0 ? [] : await listIgnored(tree, linked, { host, env: host.env });
  if (ignored.length === 0) return;
  const shown = ignored.slice(0, MAX_LISTED).map((path) => `"${path}"`);
  const more = ignored.length > MAX_LISTED ? [`${ignored.length - MAX_LISTED} more`] : [];
  log.debug(`Symlinks of "${directory}" lead to files that git ignores: ${[...shown, ...more].join(", ")}`);
}

/** The work tree around kodata: the nearest folder above with a `.git`, but none around the module cache. */
function findTree(kodata: string): string | undefined {
  for (let at = dirname(kodata); ; at = dirname(at)) {
    if (lookAtLink(join(at, ".git")) !== undefined) return at;
    if (at === dirname(at) || MODULE_VERSION.test(basename(at))) return undefined;
  }
}

interface Way {
  /** The end of the symlink, real. */
  readonly path: string;
  readonly rules: LinkRules;
}

/** Refuses a way into a repository, but for what its own work tree may show. */
function checkRepositories(link: string, { path, rules }: Way): void {
  const { kodata, repository, root } = rules;
  for (let at = path; isBelow(at, root) && !isInside(kodata, at); at = dirname(at)) {
    const isContent = isInside(at, kodata) && !isGitName(basename(at));
    if (isContent || !(isGitName(basename(at)) || isRepository(at))) continue;
    if (repository !== undefined && isShown(path, repository)) continue;
    throw secret(link, { path, repository: at, rules });
  }
}

/** Git refuses these names in commits, because file systems that ignore case take them for `.git`. */
function isGitName(name: string): boolean {
  // HFS+ ignores some characters (https://nvd.nist.gov/vuln/detail/CVE-2014-9390).
  return name.replace(/[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]/g, "").toLowerCase() === ".git";
}

/** Whether a path is `HEAD`, `packed-refs`, `refs` or in `refs`, of the work tree's own repository. */
function isShown(path: string, { own, shared }: Repository): boolean {
  if (path === join(own, "HEAD") || path === join(shared, "packed-refs")) return true;
  return [own, shared].some((folder) => isInside(path, join(folder, "refs")));
}

function outside(link: string, { path, rules }: Way): KoError {
  let common = dirname(rules.kodata);
  while (!isInside(path, common) && common !== dirname(common)) common = dirname(common);
  const ignored =
    rules.ignoredRoot === undefined
      ? ""
      : ` (KO_DATA_PATH_ALLOWED_ROOT is "${rules.ignoredRoot}", which is not a folder above kodata)`;
  return new KoError(
    `Cannot pack the symlink "${link}": it leads to "${path}", wanted a path inside "${rules.root}"${ignored}`,
    { hint: `Set KO_DATA_PATH_ALLOWED_ROOT=${common}, a folder that contains both, or copy the file.` },
  );
}

function secret(link: string, { path, repository, rules }: Way & { readonly repository: string }): KoError {
  const isOwn = rules.tree !== undefined && dirname(repository) === rules.tree && isGitName(basename(repository));
  const what = isOwn ? `the git repository "${repository}"` : `another git repository, "${repository}"`;
  return new KoError(
    `Cannot pack the symlink "${link}": it leads to "${path}" in ${what}, which may hold secrets such as tokens`,
    {
      hint: `Copy the file. Of a repository, only .git/HEAD, .git/refs and .git/packed-refs around kodata may be linked.`,
    },
  );
}

/**
 * Follows a symlink that the kernel cannot, part by part, in case its way leads through the `.git` file of the work tree.
 *
 * @returns undefined if the end does not exist
 * @throws {KoError} If the end is none that the work tree may show.
 */
function followGitFile(link: string, rules: LinkRules): LinkTarget | undefined {
  const split = (path: string): string[] => path.split(sep === "/" ? "/" : /[\\/]/);
  let at = parse(link).root;
  let parts = split(link.slice(at.length));
  for (let hops = 0; ;) {
    const part = parts.shift();
    if (part === undefined) return undefined;
    if (part === "" || part === ".") continue;
    const next = part === ".." ? dirname(at) : join(at, part);
    const info = lookAtLink(next);
    if (info === undefined) return undefined;
    if (info.isSymbolicLink()) {
      if (++hops > MAX_HOPS) return undefined;
      const text = readlinkSync(next);
      if (isAbsolute(text)) at = parse(text).root;
      parts = [...split(text.slice(isAbsolute(text) ? at.length : 0)), ...parts];
      continue;
    }
    const rest = parts.filter((name) => name !== "" && name !== ".");
    if (info.isFile() && rest.length > 0) return isGitName(part) ? findBehind(next, { link, rest, rules }) : undefined;
    at = next;
  }
}

interface GitWay {
  readonly link: string;
  /** The parts of the path after the `.git` file. */
  readonly rest: readonly string[];
  readonly rules: LinkRules;
}

/** The file that git reads as `.git/<rest>`, where `.git` is a file. */
function findBehind(file: string, { link, rest, rules }: GitWay): LinkTarget | undefined {
  const { repository, tree } = rules;
  const named = [file, ...rest].join("/");
  const refuse = (): KoError => secret(link, { path: named, repository: file, rules });
  if (!isInside(file, rules.root)) throw outside(link, { path: named, rules });
  if (tree === undefined || file !== join(tree, ".git") || rest.includes("..")) throw refuse();
  if (repository === undefined) {
    throw new KoError(
      `Cannot pack the symlink "${link}": "${file}" names a git repository that does not name "${tree}" as its work tree`,
      {
        hint: `For a linked work tree that was moved, type: git worktree repair; else: git config core.worktree ${tree}`,
      },
    );
  }
  const [first = "", second = ""] = rest;
  // Each linked work tree has its own HEAD and some refs (gitrepository-layout, "$GIT_COMMON_DIR").
  const isOwn = first === "HEAD" || (first === "refs" && /^(?:bisect|worktree|rewritten)$/.test(second));
  const path = join(isOwn ? repository.own : repository.shared, ...rest);
  if (!isShown(path, repository)) throw refuse();
  const real = realPath(path);
  if (real === undefined) return undefined;
  if (!isShown(real, repository)) throw refuse();
  return { path: real, info: lstatSync(real) };
}
