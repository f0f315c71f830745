/**
 * The entries of ko's two layers: the files of a program's kodata folder, and the binary (docs/rules.md D2).
 *
 * Names, order and modes are those of the original, so that the diffIDs are too. A symlink in kodata must end inside
 * `KO_DATA_PATH_ALLOWED_ROOT` or the git work tree, so that no other file of the build machine gets into an image.
 */
import { existsSync, lstatSync, readdirSync, readlinkSync, realpathSync, type Stats, statSync } from "node:fs";
import { dirname, isAbsolute, join, parse, resolve, sep } from "node:path";
import { codeOf, isMissing, KoError, messageOf } from "./errors.ts";
import { isInside, realPath } from "./file.ts";
import { readCommonFolder, readGitFile } from "./git.ts";
import { compareBytes } from "./json.ts";
import type { Log } from "./log.ts";
import type { TarEntry } from "./tar.ts";

export interface KodataOptions {
  /** Absolute: `kodata` beside the program's sources. It need not exist. */
  readonly directory: string;
  /** GOOS. `windows` has other roots and PAX records, and no symlinks. */
  readonly os: string;
  /** The time of all entries, in seconds since 1970. */
  readonly mtime: number;
  /** The value of `KO_DATA_PATH_ALLOWED_ROOT`, if it is set. */
  readonly allowedRoot: string | undefined;
  /** Gets a warning for each symlink that is left out. */
  readonly log: Log;
}

export interface BinaryOptions {
  /** The compiled program. */
  readonly path: string;
  /** The file name in the image. */
  readonly name: string;
  /** GOOS. */
  readonly os: string;
  /** Bytes. */
  readonly size: number;
  /** The attribute `security.capability`. @default none */
  readonly capabilities?: Uint8Array | undefined;
}

/** Where the symlinks of a kodata folder may lead. */
export interface LinkRules {
  /** Real path of the kodata folder. */
  readonly kodata: string;
  /** Real path of the folder that symlinks may not leave. */
  readonly root: string;
  /** The value of `KO_DATA_PATH_ALLOWED_ROOT` if it is ignored, because it is not a folder above kodata. */
  readonly ignoredRoot: string | undefined;
}

/** The file or folder at the end of a symlink. */
export interface LinkTarget {
  /** Real path. */
  readonly path: string;
  readonly info: Stats;
}

/** The mode of all entries: readable and executable by all, as in the original. */
const MODE = 0o555;

/** Group and owner BUILTIN\Users, as a security descriptor: Windows runs no file without an owner. */
const WINDOWS_OWNER: Readonly<Record<string, string>> = {
  "MSWINDOWS.rawsd": "AQAAgBQAAAAkAAAAAAAAAAAAAAABAgAAAAAABSAAAAAhAgAAAQIAAAAAAAUgAAAAIQIAAA==",
};

/** The extended attribute of a file with capabilities, as Go's archive/tar writes it. */
const CAPABILITY_RECORD = "SCHILY.xattr.security.capability";

/** The most symlinks in a row that Linux follows. */
const MAX_HOPS = 40;

/**
 * The entries of the layer below `/var/run/ko`: each folder before its entries, which are sorted by bytes.
 *
 * Symlinks are followed. One that leads nowhere is left out with a warning (the original fails), and so are all of them
 * for Windows (as in the original). If `kodata` itself is a symlink, the layer is empty, with a warning (the original
 * has no warning). The tree is walked while the entries are taken.
 *
 * @throws {KoError} (from the iteration) If an entry cannot be read, is neither file nor folder nor symlink, or is a
 * symlink that leads out of the allowed root or to a folder that contains it.
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
    const kind = info.isSymbolicLink() ? "a symlink" : "not a folder";
    log.warn(`Nothing of "${directory}" is packed: it is ${kind}. Make it a folder; symlinks may be in it.`);
    return;
  }
  const kodata = reading(directory, () => realpathSync(directory));
  const rules = findLinkRules(kodata, allowedRoot);
  yield* walk({ directory: kodata, name: roots.at(-1) ?? "", chain: [] }, { ...options, rules });
}

/**
 * The entries of the binary's layer: `ko-app`, then `/ko-app/<name>`. The missing first slash is the original's.
 *
 * The time is always 1970, even if SOURCE_DATE_EPOCH is set (docs/rules.md D2.2).
 */
export function binaryEntries(options: BinaryOptions): readonly TarEntry[] {
  const { capabilities, path, name, os, size } = options;
  const roots = os === "windows" ? ["Hives", "Files", "Files/ko-app"] : ["ko-app"];
  const file = os === "windows" ? `Files/ko-app/${name}` : `/ko-app/${name}`;
  const entry = fileEntry({ name: file, path, size }, { os, mtime: 0 });
  const isCapable = os === "linux" && capabilities !== undefined;
  return [
    ...roots.map((root) => folderEntry(root, 0)),
    isCapable ? { ...entry, pax: { [CAPABILITY_RECORD]: capabilities } } : entry,
  ];
}

/**
 * Finds where the symlinks of a kodata folder may lead: inside `allowedRoot` if that is above kodata, else inside the
 * git work tree around kodata, else inside kodata.
 *
 * @param kodata real path of the folder
 * @param allowedRoot the value of `KO_DATA_PATH_ALLOWED_ROOT`, if it is set
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
 * Follows a symlink to its end; undefined if that does not exist.
 *
 * The way may lead through `.git` where that is a file, as in linked work trees and submodules: then the end is the
 * file that git means (https://git-scm.com/docs/gitrepository-layout), though it lies outside the allowed root.
 *
 * @throws {KoError} If the symlink leads out of the allowed root, or symlinks form a circle.
 */
export function findLinkTarget(link: string, rules: LinkRules): LinkTarget | undefined {
  let path: string;
  try {
    path = realpathSync(link);
  } catch (cause) {
    if (isMissing(cause)) {
      const target = followGitFile(link, rules);
      return target === undefined ? undefined : { path: target, info: statSync(target) };
    }
    const why = codeOf(cause) === "ELOOP" ? "the symlinks form a circle" : messageOf(cause);
    throw new KoError(`Cannot follow the symlink "${link}": ${why}`, {
      cause,
      hint: "Remove the symlink, or make it lead to a file or a folder.",
    });
  }
  if (!isInside(path, rules.root)) throw outside(link, { path, rules });
  return { path, info: statSync(path) };
}

interface KodataFolder {
  /** Real path. */
  readonly directory: string;
  /** Path in the image. */
  readonly name: string;
  /** Real paths of the folders of the symlinks that led here, outermost first. */
  readonly chain: readonly string[];
}

interface WalkOptions extends KodataOptions {
  readonly rules: LinkRules;
}

function* walk(folder: KodataFolder, options: WalkOptions): Generator<TarEntry, void, void> {
  const { directory, chain } = folder;
  for (const file of sortByBytes(reading(directory, () => readdirSync(directory)))) {
    const name = `${folder.name}/${file}`;
    const path = join(directory, file);
    const info = reading(path, () => lstatSync(path));
    if (info.isSymbolicLink()) yield* followLink({ path, name, folder }, options);
    else yield* pack({ path, name, info, chain }, options);
  }
}

interface KodataLink {
  readonly path: string;
  /** Path in the image. */
  readonly name: string;
  /** The folder of the symlink. */
  readonly folder: KodataFolder;
}

function* followLink({ path, name, folder }: KodataLink, options: WalkOptions): Generator<TarEntry, void, void> {
  const { log, os, rules } = options;
  if (os === "windows") {
    log.warn(`The symlink "${path}" is left out: images for Windows get no symlinks from kodata.`);
    return;
  }
  const target = reading(path, () => findLinkTarget(path, rules));
  if (target === undefined) {
    log.warn(`The symlink "${path}" is left out: its target does not exist.`);
    return;
  }
  const chain = [...folder.chain, folder.directory];
  if (chain.some((each) => isInside(each, target.path))) {
    throw new KoError(`Cannot pack the symlink "${path}": it leads to "${target.path}", which contains the symlink`, {
      hint: "Make it lead to a folder that does not contain the symlink.",
    });
  }
  yield* pack({ ...target, name, chain }, options);
}

interface KodataItem {
  /** Real path. */
  readonly path: string;
  /** Path in the image. */
  readonly name: string;
  readonly info: Stats;
  readonly chain: readonly string[];
}

function* pack({ path, name, info, chain }: KodataItem, options: WalkOptions): Generator<TarEntry, void, void> {
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

/** Sorts as Go does. The order of UTF-16 units, which `sort()` has, differs for characters beyond U+FFFF only. */
function sortByBytes(names: string[]): readonly string[] {
  if (!names.some((name) => /[\ud800-\udfff]/.test(name))) return names.sort();
  return names.sort(compareBytes);
}

function reading<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof KoError) throw cause;
    const why = path.includes("\ufffd") ? "its name is not valid UTF-8" : messageOf(cause);
    throw new KoError(`Cannot read "${path}": ${why}`, { cause });
  }
}

function outside(link: string, options: { readonly path: string; readonly rules: LinkRules }): KoError {
  const { path, rules } = options;
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

/**
 * Follows a symlink that the kernel cannot, part by part, in case its way leads through a `.git` file inside the root.
 *
 * @returns the real path; undefined if it does not exist, or git would not look there
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

/** The file that git reads as `.git/<rest>`, if `file` is a `.git` file (`gitdir: ` and a path). */
function findInGitFolder(file: string, rest: readonly string[]): string | undefined {
  if (rest.includes("..")) return undefined;
  const named = readGitFile(file);
  const own = named === undefined ? undefined : realPath(named);
  if (own === undefined) return undefined;
  const shared = realPath(readCommonFolder(own));
  // A `.git` file of a download could name any folder, so that folder must be a repository.
  if (shared === undefined || !existsSync(join(own, "HEAD"))) return undefined;
  if (!["HEAD", "objects", "refs"].every((name) => existsSync(join(shared, name)))) return undefined;
  const target = realPath(join(isShared(rest) ? shared : own, ...rest));
  return target !== undefined && (isInside(target, own) || isInside(target, shared)) ? target : undefined;
}

/** Reports whether all work trees of a repository share `.git/<rest>` (gitrepository-layout, "$GIT_COMMON_DIR"). */
function isShared([first = "", second = ""]: readonly string[]): boolean {
  if (first === "refs") return second !== "bisect" && second !== "worktree" && second !== "rewritten";
  if (first === "logs") return second !== "HEAD";
  const names = "branches common config description hooks info modules objects packed-refs remotes shallow worktrees";
  return names.split(" ").includes(first);
}
