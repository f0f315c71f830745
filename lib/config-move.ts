/**
 * Paths of a configuration file that was searched for (`--config=auto`) are relative to its folder: here they become relative
 * to the working directory, as those of any other file are.
 */
import { join } from "node:path";
import type { BuildEntry } from "./config-builds.ts";
import type { Setting } from "./config-file.ts";

/** The way from the working directory to the folder of a configuration file. */
export interface Move {
  readonly from: string;
}

export function moveEntry(entry: BuildEntry, { from }: Move): BuildEntry {
  const { dir, name, where } = entry;
  const moved = join(from, (dir?.value ?? "").replace(/^\/+/, "") || ".");
  return { ...entry, dir: { where, setting: `dir of ${name}`, ...dir, value: moved } };
}

/** An OCI layout with a relative path is moved; all other bases are names. */
export function moveBase<T extends Setting<string> | undefined>(base: T, move: Move | undefined): T {
  if (base === undefined || move === undefined) return base;
  return { ...base, value: moveLayout(base.value, move) };
}

export function moveOverrides(
  overrides: readonly Setting<readonly [string, string]>[],
  move: Move | undefined,
): typeof overrides {
  if (move === undefined) return overrides;
  return overrides.map(({ value: [importPath, base], where }) => ({
    value: [importPath, moveLayout(base, move)],
    where,
  }));
}

function moveLayout(base: string, { from }: Move): string {
  return base.replace(/^oci:(?!\/|[A-Za-z]:[\\/])/, `oci:${from}/`);
}
