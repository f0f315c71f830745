/** The programs of `ko build`: those of its arguments, or all of a repository, or those of them that changed since a revision. */
import { argsOf, type Of } from "./cli-building.ts";
import type { Config } from "./config.ts";
import { KoError, UsageError } from "./errors.ts";
import type { TreeChanges } from "./git-changes.ts";
import type { FoundPrograms, Program } from "./go-programs.ts";
import type { Host } from "./host.ts";
import type { Log } from "./log.ts";
import type { Choice, Pipeline } from "./pipeline.ts";

/** The arguments of a build, and the programs of them to build. */
export interface Chooser {
  readonly args: readonly string[];
  readonly choose: (
    found: FoundPrograms,
    pipeline: Pick<Pipeline, "dependencies" | "listDependencies">,
  ) => Promise<Choice>;
}

/**
 * Reads what changed, and finds the arguments.
 *
 * @throws {KoError} If the repository does not have the revision, or there is no git.
 */
export async function openChooser(
  invocation: Of<"build">,
  { config, host, log }: { readonly config: Config; readonly host: Host; readonly log: Log },
): Promise<Chooser> {
  const { flags } = invocation;
  const since = flags["changed-since"];
  const changes = since === "" ? undefined : await (await import("./git-changes.ts")).readChanges(since, host);
  const all = flags.all ? await allOf(config, host) : undefined;
  const args = all === undefined ? argsOf(invocation) : [...all.patterns, ...all.entries];
  const said = new Set<string>();
  return {
    args,
    choose: async (found, pipeline) => {
      const { choosePrograms, NoProgramError } = await import("./go-programs.ts");
      const named = found.results.filter((result, i) => {
        return !(result instanceof NoProgramError && i < (all?.patterns.length ?? 0));
      });
      const programs = choosePrograms({ results: named });
      if (all !== undefined && programs.length === 0) {
        throw new KoError(`Cannot build --all: no module at or below "${host.cwd}" has a main package`);
      }
      if (changes === undefined) return { programs };
      await pipeline.listDependencies(programs);
      const packages = [...pipeline.dependencies(), ...found.listings.map((listing) => listing.packages)];
      const { findChanged } = await import("./changes.ts");
      const reasons = findChanged(programs, { changes, config, host, packages });
      for (const line of describe(programs, reasons, changes)) {
        if (!said.has(line)) log.info(line);
        said.add(line);
      }
      return { programs: programs.filter(({ importPath }) => reasons.has(importPath)) };
    },
  };
}

async function allOf(config: Config, host: Host): Promise<{ patterns: readonly string[]; entries: readonly string[] }> {
  const [{ findAllArguments }, { settingsOf }] = await Promise.all([import("./go-programs-all.ts"), import("./go.ts")]);
  const settings = settingsOf({ cwd: host.cwd, env: host.env, go: config.goPath, host });
  const all = await findAllArguments(host.cwd, { builds: config.builds, settings });
  if (all.patterns.length + all.entries.length > 0) return all;
  throw new UsageError(`Cannot build --all: there is no Go module at or below "${host.cwd}"`, {
    hint: "Run ko where the go.mod file is, or make one: go mod init",
  });
}

/** A line for each program that changed, and one for all others. */
function describe(
  programs: readonly Program[],
  reasons: ReadonlyMap<string, string>,
  { revision }: TreeChanges,
): readonly string[] {
  const lines = Array.from(reasons, ([importPath, why]) => `${importPath} differs from ${revision}: ${why}`);
  const same = programs.length - reasons.size;
  if (same === 0) return lines;
  return [...lines, same === 1 ? `1 program is as in ${revision}` : `${same} programs are as in ${revision}`];
}
