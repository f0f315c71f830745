/** The kodata layer of a program: its files, and those of the source tree that symlinks lead to. */
import { join } from "node:path";
import { Pace } from "./async.ts";
import type { RunContext } from "./cache.ts";
import { isInside, realPath } from "./file.ts";
import { findWorkTree, readGitFolders } from "./git.ts";
import type { Layer } from "./image.ts";
import { kodataEntries } from "./kodata.ts";
import { logIgnored } from "./kodata-links.ts";
import type { LayerSink, LayerStore } from "./layer-cache.ts";
import type { TarEntry } from "./tar.ts";

export interface MakeKodataOptions {
  readonly context: RunContext;
  readonly layers: LayerStore;
  readonly sink: LayerSink;
  /** GOOS: there is one layer for Windows, one for the other systems. */
  readonly os: string;
  /** `KO_DATA_DATE_EPOCH`. */
  readonly created: number | undefined;
  /**
   * Whether the image of an older commit is kept. Then files of `.git` are those of that commit, too. Undefined asks for the
   * files of now.
   */
  readonly isKept: Promise<boolean> | undefined;
}

/** Makes the kodata layer of a program, or takes it from the cache. @throws {KoError} If a file cannot be packed. */
export async function makeKodata(
  { dir, importPath }: { readonly dir: string; readonly importPath: string },
  { context, created, isKept, layers, os, sink }: MakeKodataOptions,
): Promise<Layer> {
  const { host, log } = context;
  const kind = os === "windows" ? "windows kodata" : "kodata";
  const directory = join(dir, "kodata");
  const list = async (): Promise<readonly TarEntry[]> => {
    const allowedRoot = host.env["KO_DATA_PATH_ALLOWED_ROOT"] || undefined;
    // Listed once, so that its warnings are logged once.
    const listed: TarEntry[] = [];
    const pace = new Pace(host.signal);
    for (const entry of kodataEntries({ directory, os, mtime: created ?? 0, allowedRoot, log })) {
      listed.push(entry);
      if (pace.isDue) await pace.turn();
    }
    await logIgnored(listed, { directory, host, log });
    return listed;
  };
  const older = isKept === undefined ? undefined : { isKept, isStamp: stampTest(dir) };
  const { layer } = await layers.kodata(`${importPath} ${kind}`, list, { sink, older });
  return layer;
}

/** Tells the entries that name the commit, as `kodata/HEAD` does, a symlink to `.git/HEAD`. */
function stampTest(dir: string): (entry: TarEntry) => boolean {
  const tree = findWorkTree(dir);
  const { own, shared } = (tree.kind === "git" ? readGitFolders(tree.root) : undefined) ?? {};
  const places = [own, shared].flatMap((place) => (place === undefined ? [] : (realPath(place) ?? [])));
  return ({ content }) => {
    if (content === undefined || !("path" in content) || places.length === 0) return false;
    const path = realPath(content.path);
    return path !== undefined && places.some((place) => isInside(path, place));
  };
}
