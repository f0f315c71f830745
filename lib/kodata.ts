/**
 * What ko's two layers hold: the files of a program's kodata folder, and the program itself (rules.md D2).
 *
 * Names, order and modes are those of the original, so that the diffIDs are too. Contents are not read here: tar.ts
 * reads them when they are packed. kodata.ts says where links may lead.
 *
 * Where a symbolic link in kodata leads, and whether it may lead there (spec/demand.md row 1 and gotcha 7).
 *
 * A link must end inside `KO_DATA_PATH_ALLOWED_ROOT`, if that is a folder above kodata; else inside the git work tree
 * around kodata; else inside kodata: so no file of the building machine gets into an image unseen. The one exception
 * is `.git/…` where `.git` is a file, as in linked work trees and submodules: what git means by it is taken
 * (https://git-scm.com/docs/gitrepository-layout), though it lies elsewhere.
 *
 * It reads links and git's pointer files, no content.
 */
import { existsSync, lstatSync, readdirSync, readlinkSync, realpathSync, type Stats, statSync } from "node:fs";
import { dirname, isAbsolute, join, parse, resolve, sep } from "node:path";
import { codeOf, KoError, messageOf } from "./errors.ts";
import { isInside, realPath } from "./file.ts";
import { readCommonFolder, readGitFile } from "./git.ts";
import type { Log } from "./log.ts";
import type { TarEntry } from "./tar.ts";

export interface KodataOptions {
  /** Absolute path of `kodata` beside the program's sources; it need not exist. */
  readonly directory: string;
  /** As Go names it. `windows` has other roots and PAX records, and its links are left out. */
  readonly os: string;
  /** Of all entries; seconds since 1970. */
  readonly mtime: number;
  /** The value of `KO_DATA_PATH_ALLOWED_ROOT`, if it has one. */
  readonly allowedRoot: string | undefined;
  /** Told of links that are left out. */
  readonly log: Log;
}

export interface BinaryOptions {
  /** The compiled program. */
  readonly path: string;
  /** Of the program in the image, without a folder. */
  readonly name: string;
  /** As Go names it. */
  readonly os: string;
  /** Bytes of the compiled program. */
  readonly size: number;
}

/** All files and folders in ko's layers: readable and executable by all, whatever they are on the building machine. */
const MODE = 0o555;

/** Windows does not run a file without an owner: group and owner BUILTIN\Users, as a security descriptor. */
const WINDOWS_OWNER: Readonly<Record<string, string>> = {
  "MSWINDOWS.rawsd": "AQAAgBQAAAAkAAAAAAAAAAAAAAABAgAAAAAABSAAAAAhAgAAAQIAAAAAAAUgAAAAIQIAAA==",
};

/**
 * The layer below `/var/run/ko`: folders first named, then what is in them, sorted by bytes.
 *
 * Links are followed, to files and to folders; one that leads nowhere is left out with a warning (the original fails),
 * and so are all of them for Windows (as in the original). `kodata` itself being a link packs nothing, with a warning:
 * the original packs nothing too, silently. The tree is walked while the entries are taken.
 *
 * @throws {KoError} (from the iteration) If something cannot be read, is neither file nor folder nor link, or a link
 * leads where it may not or to a folder that it lies in, for then there would be no end.
 */
export function* kodataEntries(options: KodataOptions): Generator<TarEntry, void, void> {
  const { directory, os, mtime, allowedRoot, log } = options;
  const roots =
    os === "windows"
      ? ["Hives", "Files", "Files/var", "Files/var/run", "Files/var/run/ko"]
      : ["/var", "/var/run", "/var/run/ko"];
  for (const name of roots) yield folderEntry(name, mtime);
  const info = reading(directory, () => lstatSync(directory, { throwIfNoEntry: false }));
  if (info === undefined) return;
  if (!info.isDirectory()) {
    const what = info.isSymbolicLink() ? "a link" : "no folder";
    log.warn(`Nothing of "${directory}" is packed: it is ${what}. Make it a folder, with links in it if need be.`);
    return;
  }
  const kodata = reading(directory, () => realpathSync(directory));
  const rules = findLinkRules(kodata, allowedRoot);
  yield* walk({ directory: kodata, name: roots.at(-1) ?? "", chain: [] }, { ...options, rules });
}

/**
 * The layer of the program: `ko-app`, then `/ko-app/<name>`; the missing first slash is the original's.
 *
 * The time is 1970 always, also if SOURCE_DATE_EPOCH is set (rules.md D2.2).
 */
export function binaryEntries(options: BinaryOptions): readonly TarEntry[] {
  const { path, name, os, size } = options;
  const roots = os === "windows" ? ["Hives", "Files", "Files/ko-app"] : ["ko-app"];
  const file = os === "windows" ? `Files/ko-app/${name}` : `/ko-app/${name}`;
  return [...roots.map((root) => folderEntry(root, 0)), fileEntry({ name: file, path, size }, { os, mtime: 0 })];
}

interface Place {
  /** Real path. */
  readonly directory: string;
  /** In the image. */
  readonly name: string;
  /** Real paths of the folders of the links that led here, the first one first. */
  readonly chain: readonly string[];
}

interface WalkOptions extends KodataOptions {
  readonly rules: LinkRules;
}

function* walk(place: Place, options: WalkOptions): Generator<TarEntry, void, void> {
  const { directory, chain } = place;
  for (const file of sortByBytes(reading(directory, () => readdirSync(directory)))) {
    const name = `${place.name}/${file}`;
    const path = join(directory, file);
    const info = reading(path, () => lstatSync(path));
    if (info.isSymbolicLink()) yield* followLink({ path, name, place }, options);
    else yield* pack({ path, name, info, chain }, options);
  }
}

interface LinkPlace {
  /** Of the link. */
  readonly path: string;
  readonly name: string;
  /** The folder that it is in. */
  readonly place: Place;
}

function* followLink({ path, name, place }: LinkPlace, options: WalkOptions): Generator<TarEntry, void, void> {
  const { log, os, rules } = options;
  if (os === "windows") {
    log.warn(`The link "${path}" is left out: images for Windows get no links from kodata.`);
    return;
  }
  const target = reading(path, () => findLinkTarget(path, rules));
  if (target === undefined) {
    log.warn(`The link "${path}" is left out: there is nothing at its end.`);
    return;
  }
  const chain = [...place.chain, place.directory];
  if (chain.some((folder) => isInside(folder, target.path))) {
    throw new KoError(`Cannot pack the link "${path}": it leads to "${target.path}", which holds it: there is no end`, {
      hint: "Let it lead to a folder that does not hold the link.",
    });
  }
  yield* pack({ ...target, name, chain }, options);
}

interface Found {
  /** Real path. */
  readonly path: string;
  readonly name: string;
  readonly info: Stats;
  readonly chain: readonly string[];
}

function* pack({ path, name, info, chain }: Found, options: WalkOptions): Generator<TarEntry, void, void> {
  if (info.isDirectory()) {
    yield folderEntry(name, options.mtime);
    yield* walk({ directory: path, name, chain }, options);
  } else if (info.isFile()) yield fileEntry({ name, path, size: info.size }, options);
  else throw new KoError(`Cannot pack "${path}": it is a ${kindOf(info)}, wanted a file or a folder`);
}

function folderEntry(name: string, mtime: number): TarEntry {
  return { name, type: "directory", mode: MODE, mtime, size: 0 };
}

interface FileContent {
  readonly name: string;
  readonly path: string;
  readonly size: number;
}

function fileEntry(file: FileContent, { os, mtime }: { readonly os: string; readonly mtime: number }): TarEntry {
  const { name, path, size } = file;
  const pax = os === "windows" ? { pax: WINDOWS_OWNER } : {};
  return { name, type: "file", mode: MODE, mtime, size, ...pax, content: { path } };
}

function kindOf(info: Stats): string {
  if (info.isFIFO()) return "fifo";
  if (info.isSocket()) return "socket";
  return "device";
}

/** JavaScript sorts by UTF-16 units, which differs from Go's order for characters beyond U+FFFF only. */
function sortByBytes(names: string[]): readonly string[] {
  if (!names.some((name) => /[\ud800-\udfff]/.test(name))) return names.sort();
  return names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

function reading<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof KoError) throw cause;
    const why = path.includes("\ufffd") ? "its name is no valid UTF-8, which ko needs" : messageOf(cause);
    throw new KoError(`Cannot read "${path}": ${why}`, { cause });
  }
}

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
    const root = realPath(resolve(allowedRoot));
    if (root !== undefined && isInside(kodata, root)) return { kodata, root, ignoredRoot: undefined };
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
  if (!isInside(path, rules.root)) throw outside(link, { path, rules });
  return { path, info: statSync(path) };
}

function outside(link: string, options: { readonly path: string; readonly rules: LinkRules }): KoError {
  const { path, rules } = options;
  let common = dirname(rules.kodata);
  while (!isInside(path, common) && common !== dirname(common)) common = dirname(common);
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
      return part === ".git" && isInside(next, rules.root) ? findInGitFolder(next, rest) : undefined;
    }
    at = next;
  }
}

/** What `.git/<rest>` is for git, where `file` is a `.git` file: `gitdir: ` and a path. */
function findInGitFolder(file: string, rest: readonly string[]): string | undefined {
  if (rest.includes("..")) return undefined;
  const named = readGitFile(file);
  const own = named === undefined ? undefined : realPath(named);
  if (own === undefined) return undefined;
  const shared = realPath(readCommonFolder(own));
  // A `.git` file that came with a download could point at any folder: only a repository will do.
  if (shared === undefined || !existsSync(join(own, "HEAD"))) return undefined;
  if (!["HEAD", "objects", "refs"].every((name) => existsSync(join(shared, name)))) return undefined;
  const target = realPath(join(isShared(rest) ? shared : own, ...rest));
  return target !== undefined && (isInside(target, own) || isInside(target, shared)) ? target : undefined;
}

/** Whether all work trees of a repository share `.git/<rest>` (gitrepository-layout, "$GIT_COMMON_DIR"). */
function isShared([first = "", second = ""]: readonly string[]): boolean {
  if (first === "refs") return second !== "bisect" && second !== "worktree" && second !== "rewritten";
  if (first === "logs") return second !== "HEAD";
  const names = "branches common config description hooks info modules objects packed-refs remotes shallow worktrees";
  return names.split(" ").includes(first);
}
