/**
 * The entries of ko's two layers: the files of a program's kodata folder, and the binary (docs/rules.md D2).
 *
 * Names, order and modes are those of the original, so that the diffIDs are too. Where symlinks may lead: kodata-links.ts.
 */
import { lstatSync, readdirSync, realpathSync, type Stats } from "node:fs";
import { join } from "node:path";
import { KoError, messageOf } from "./errors.ts";
import { isInside, realPath } from "./file.ts";
import { compareBytes } from "./json.ts";
import { findLinkRules, findLinkTarget, isHiddenFolder, type LinkRules } from "./kodata-links.ts";
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
  /** Gets the errors of entries, which are left out then. @default the first one is thrown */
  readonly problems?: KodataProblem[];
}

/** An entry of a kodata folder that cannot be packed. */
export interface KodataProblem {
  /** Absolute. */
  readonly path: string;
  readonly error: KoError;
}

export interface BinaryOptions {
  /** The compiled program. */
  readonly path: string;
  /** The absolute path in the image, with `/` on all systems. */
  readonly name: string;
  /** GOOS. */
  readonly os: string;
  /** Bytes. */
  readonly size: number;
  /** The attribute `security.capability`. @default none */
  readonly capabilities?: Uint8Array | undefined;
}

/** The mode of all entries: readable and executable by all, as in the original. */
const MODE = 0o555;

/** Group and owner BUILTIN\Users, as a security descriptor: Windows runs no file without an owner. */
const WINDOWS_OWNER: Readonly<Record<string, string>> = {
  "MSWINDOWS.rawsd": "AQAAgBQAAAAkAAAAAAAAAAAAAAABAgAAAAAABSAAAAAhAgAAAQIAAAAAAAUgAAAAIQIAAA==",
};

/** The extended attribute of a file with capabilities, as Go's archive/tar writes it. */
const CAPABILITY_RECORD = "SCHILY.xattr.security.capability";

/** How often symlinks may lead to one folder: links in linked folders double it at each level. */
const MAX_VISITS = 1000;
/** Entries that symlinks may add to a layer. */
const MAX_LINKED = 1_000_000;
/** How many symlinks may lead to folders within linked folders. */
const MAX_CHAIN = 100;

const RUN_AGAIN = "Run ko again when nothing writes to the folder.";

/**
 * The entries of the layer below `/var/run/ko`: each folder before its entries, which are sorted by bytes.
 *
 * Symlinks are followed. One that leads nowhere is left out with a warning (the original fails), and so are all of them
 * for Windows (as in the original). If `kodata` itself is a symlink, the layer is empty, with a warning (the original
 * has no warning). The tree is walked while the entries are taken.
 *
 * @throws {KoError} (from the iteration) If an entry cannot be read, is neither file nor folder nor symlink, or is a
 * symlink that leads out of the allowed root, to a secret of a repository, or to a folder that contains it; if symlinks
 * repeat one folder very often.
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
  const linked = { entries: 0, visits: new Map<string, number>() };
  yield* walk({ directory: kodata, name: roots.at(-1) ?? "", chain: [] }, { ...options, rules, linked });
}

/**
 * The entries of the binary's layer: the folders above it, such as `ko-app`, then `/ko-app/<name>`. That folders have no
 * first slash is the original's.
 *
 * The time is always 1970, even if SOURCE_DATE_EPOCH is set (docs/rules.md D2.2).
 */
export function binaryEntries(options: BinaryOptions): readonly TarEntry[] {
  const { capabilities, path, name, os, size } = options;
  const [, ...parts] = name.split("/").slice(0, -1);
  const folders = parts.map((_, i) => parts.slice(0, i + 1).join("/"));
  const roots = os === "windows" ? ["Hives", "Files", ...folders.map((folder) => `Files/${folder}`)] : folders;
  const file = os === "windows" ? `Files${name}` : name;
  const entry = fileEntry({ name: file, path, size }, { os, mtime: 0 });
  const isCapable = os === "linux" && capabilities !== undefined;
  return [
    ...roots.map((root) => folderEntry(root, 0)),
    isCapable ? { ...entry, pax: { [CAPABILITY_RECORD]: capabilities } } : entry,
  ];
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
  /** What symlinks have led to: entries in all, and how often each folder. */
  readonly linked: { entries: number; readonly visits: Map<string, number> };
}

function* walk(folder: KodataFolder, options: WalkOptions): Generator<TarEntry, void, void> {
  const { directory, chain } = folder;
  const found = sortByBytes(reading(directory, () => readdirSync(directory))).map((file) => {
    const path = join(directory, file);
    return { path, name: `${folder.name}/${file}`, info: reading(path, () => lstatSync(path)) };
  });
  // If a symlink took the place of the folder meanwhile, these files are others than those that may be packed.
  if (realPath(directory) !== directory) {
    throw new KoError(`Cannot pack "${directory}": it was replaced while it was read`, { hint: RUN_AGAIN });
  }
  for (const { path, name, info } of found) {
    try {
      if (info.isSymbolicLink()) yield* followLink({ path, name, folder }, options);
      else yield* pack({ path, name, info, chain }, options);
    } catch (error) {
      if (options.problems === undefined || !(error instanceof KoError)) throw error;
      options.problems.push({ path, error });
    }
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
  if (target.info.isDirectory()) countVisit(target.path, { path, chain, visits: options.linked.visits });
  yield* pack({ ...target, name, chain }, options);
}

interface Visit {
  /** The symlink. */
  readonly path: string;
  readonly chain: readonly string[];
  readonly visits: Map<string, number>;
}

/** @throws {KoError} If symlinks lead to a folder too often, or from folder to folder too far. */
function countVisit(folder: string, { path, chain, visits }: Visit): void {
  const count = (visits.get(folder) ?? 0) + 1;
  visits.set(folder, count);
  if (count <= MAX_VISITS && chain.length <= MAX_CHAIN) return;
  const why =
    count > MAX_VISITS
      ? `symlinks lead to "${folder}" more than ${MAX_VISITS} times`
      : `it lies behind ${MAX_CHAIN} others, each in the folder that the one before leads to`;
  throw new KoError(`Cannot pack the symlink "${path}": ${why}`, { hint: "Remove symlinks from the linked folders." });
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
  if (chain.length > 0 && ++options.linked.entries > MAX_LINKED) {
    throw new KoError(`Cannot pack "${path}": symlinks lead to more than ${MAX_LINKED} files and folders`);
  }
  if (info.isDirectory()) {
    if (isHiddenFolder(path, { isLinked: chain.length > 0 })) {
      options.log.warn(`The folder "${path}" is left out: a git repository may hold secrets such as tokens.`);
      return;
    }
    yield folderEntry(name, options.mtime);
    yield* walk({ directory: path, name, chain }, options);
  } else if (info.isFile()) yield fileEntry({ name, path, size: info.size, found: info }, options);
  else throw new KoError(`Cannot pack "${path}": it is a ${kindOf(info)}, wanted a file or a folder`);
}

function folderEntry(name: string, mtime: number): TarEntry {
  return { name, type: "directory", mode: MODE, mtime, size: 0 };
}

interface FileContent {
  readonly name: string;
  readonly path: string;
  readonly size: number;
  /** The file that was found there, if another one must not take its place. */
  readonly found?: Pick<Stats, "dev" | "ino">;
}

function fileEntry(file: FileContent, { os, mtime }: { readonly os: string; readonly mtime: number }): TarEntry {
  const { found, name, path, size } = file;
  const pax = os === "windows" ? { pax: WINDOWS_OWNER } : {};
  const content = found === undefined ? { path } : { path, found: { dev: found.dev, ino: found.ino } };
  return { name, type: "file", mode: MODE, mtime, size, ...pax, content };
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
