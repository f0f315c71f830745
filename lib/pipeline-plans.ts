/**
 * Checks and adapts the plans of a run to its places, and to `--debug`, before anything is built.
 */
import type { Plan } from "./build.ts";
import type { RunContext } from "./cache.ts";
import type { BuildOptions } from "./cli-options.ts";
import { baseFor, type Config } from "./config.ts";
import type { Reuse } from "./config-cache.ts";
import { UsageError } from "./errors.ts";
import { formatCount, type Log } from "./log.ts";
import { createPlatformMatcher, formatPlatform } from "./oci.ts";
import { platformOf } from "./pipeline-resources.ts";
import type { Destination } from "./publish-destination.ts";
import type { LocalPlace } from "./publish-local.ts";

/** `docker load` reads one platform: an index is refused before anything is built. */
export function checkTarball(plans: readonly Plan[], { places }: Destination): void {
  const several = plans.find(({ targets }) => targets.length > 1);
  if (several === undefined || !places.some(({ kind }) => kind === "tarball")) return;
  throw new UsageError(
    `Cannot write --tarball: ${several.program.importPath} has ${several.targets.length} platforms, a tarball holds one`,
    { hint: "Use --oci-archive FILE, or --platform with one platform." },
  );
}

/**
 * Drops the platforms that a local target cannot run, unless another place gets the images of all platforms.
 *
 * @throws {UsageError} If a program has several platforms, and the target can run none of them.
 */
export async function fitPlans(
  plans: readonly Plan[],
  options: { readonly log: Log; readonly all: boolean; readonly place: Promise<LocalPlace> },
): Promise<readonly Plan[]> {
  if (plans.every(({ targets }) => targets.length === 1)) return plans;
  const own = await platformOf(options.place);
  const matches = createPlatformMatcher([own]);
  return plans.map((plan) => {
    if (plan.targets.length === 1) return plan;
    const { importPath } = plan.program;
    const [fitting] = plan.targets.filter((target) => matches(target.platform));
    if (fitting === undefined) {
      const has = plan.targets.map(({ platform }) => formatPlatform(platform)).join(", ");
      throw new UsageError(`Cannot load ${importPath}: it is for ${has}, the local target runs ${own}`, {
        hint: `Add ${own} to --platform, or name one platform.`,
      });
    }
    if (options.all) return plan;
    options.log.warn(
      `${importPath}: of ${plan.targets.length} platforms only ${own}, which the local target runs, is built`,
    );
    return { ...plan, targets: [fitting] };
  });
}

/**
 * Checks that each program can be debugged on one of its platforms at least.
 *
 * @returns notices about the platforms that Delve does not run on
 * @throws {UsageError} If Delve runs on none of a program's.
 */
export async function checkDebugged(plans: readonly Plan[]): Promise<readonly string[]> {
  const { isDebuggable, listDebuggable } = await import("./go-delve.ts");
  return plans.flatMap(({ program: { importPath }, targets }) => {
    const others = targets.filter(({ platform }) => !isDebuggable(platform));
    const names = others.map(({ platform }) => formatPlatform(platform)).join(", ");
    if (others.length === targets.length) {
      throw new UsageError(
        `Cannot use --debug for ${importPath}: it is built for ${names}, Delve runs on ${listDebuggable()}`,
        { hint: "Name one of them, as in --platform=linux/amd64, or leave --debug out." },
      );
    }
    const what = `${importPath}: the image for ${names} is built without a debugger, and optimized as usual`;
    return others.length === 0 ? [] : [`${what}: Delve does not run there`];
  });
}

/**
 * Returns the lines that tell which base and which entry of `builds` hold for which programs: one for each base or entry,
 * and none for each program, so that many programs on one base are one line.
 */
export function describeChoices(
  plans: readonly { readonly importPath: string; readonly base: string; readonly entry?: string | undefined }[],
): readonly string[] {
  const users = new Map<string, string[]>();
  for (const { base, entry, importPath } of plans) {
    for (const what of [...(entry === undefined ? [] : [entry]), `base ${base}`]) {
      users.set(what, [...(users.get(what) ?? []), importPath]);
    }
  }
  return Array.from(users, ([what, paths]) => {
    const isForAll = paths.length === plans.length && paths.length > 1;
    return `Using ${what} for ${isForAll ? formatCount(paths.length, "program") : paths.join(", ")}`;
  });
}

/** Tells of bases that are not pinned, if the images are pushed: other images are no releases. */
export async function adviseToPin(
  plans: readonly Plan[],
  options: { readonly config: Config; readonly context: RunContext; readonly destination: Destination },
): Promise<void> {
  const { config, context, destination } = options;
  const tags = destination.tags.names;
  if (tags.length === 0 || !destination.places.some(({ kind }) => kind === "registry")) return;
  const { noticeUnpinned } = await import("./base-notice.ts");
  const { cache, host, log } = context;
  const bases = plans.map(({ program }) => baseFor(config, program.importPath));
  const notice = noticeUnpinned({ bases, tags, cache, now: host.now(), cwd: host.cwd });
  if (notice !== undefined) log.info(notice);
}

/** Which images of earlier runs count: the flag's, else that of the configuration. */
export function reuseOf({ build, config }: { readonly build: BuildOptions; readonly config: Config }): Reuse {
  return build.reuse ?? config.cache.reuse?.value ?? "commit";
}
