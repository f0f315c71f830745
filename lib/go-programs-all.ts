/** The arguments that stand for all programs: patterns for modules, and the entries of `builds`. */
import { join } from "node:path";
import type { BuildEntry } from "./config-builds.ts";
import { isInside } from "./file.ts";
import { showPath } from "./go-arguments.ts";
import { BuildEntries } from "./go-entries.ts";
import type { GoSettings } from "./go-env.ts";
import { localFolders } from "./go-sources-modules.ts";
import { findModulesBelow, findSurroundings } from "./go-modules.ts";

export interface AllArguments {
  /** A module may have no program. */
  readonly patterns: readonly string[];
  /** The program of each entry of `builds`. */
  readonly entries: readonly string[];
}

/**
 * Finds the modules at and below a folder, and the programs of entries wherever they are.
 *
 * @param options.settings those of go in the folder
 * @throws {UsageError | KoErrors} As {@link BuildEntries.place}.
 */
export async function findAllArguments(
  cwd: string,
  { builds, settings }: { readonly builds: readonly BuildEntry[]; readonly settings: Pick<GoSettings, "get"> },
): Promise<AllArguments> {
  const { moduleDir, modules, workspace } = findSurroundings(cwd, settings);
  const below = modules ? await findModulesBelow(cwd, moduleDir) : [];
  // Go refuses packages of modules that are not in its workspace.
  const used = workspace === undefined || !modules ? undefined : usedBy(workspace);
  const isUsed = (dir: string): boolean => used === undefined || used.has(dir);
  const dirs = new Set(below.map(({ dir }) => dir).filter((dir) => isInside(dir, cwd) && isUsed(dir)));
  // The folder is in a module, or go works without modules.
  if (!modules || (moduleDir !== undefined && isUsed(moduleDir))) dirs.add(cwd);
  const places = BuildEntries.place(builds, cwd).all;
  return {
    patterns: Array.from(dirs, (dir) => `${showPath(dir, cwd)}/...`).sort(),
    entries: places.flatMap(({ folder, importPath }) =>
      folder === undefined ? (importPath ?? []) : showPath(folder, cwd),
    ),
  };
}

/** The folders of the modules that a workspace uses. @param workspace its folder, or its file */
function usedBy(workspace: string): ReadonlySet<string> {
  const file = workspace.endsWith(".work") ? workspace : join(workspace, "go.work");
  // A path stands on the lines of replacements only.
  return new Set(localFolders(file).flatMap(({ dir, path }) => (path === undefined ? [dir] : [])));
}
