/** The platforms of `--platform=cluster`: those of the nodes that the Pods of a program can be scheduled on. */
import { inBackground, until } from "./async.ts";
import { type Base, platformsIn } from "./base.ts";
import type { BuildRequest } from "./build.ts";
import type { RunContext } from "./cache.ts";
import { BaseError } from "./errors.ts";
import type { ClusterNodes } from "./kubectl-cluster.ts";
import {
  ANYWHERE,
  type ClusterNode,
  listPlatforms,
  type Placement,
  platformsFor,
  type PodsOf,
} from "./kubectl-nodes.ts";
import type { RunWarnings } from "./log.ts";
import { createPlatformMatcher } from "./oci.ts";

export interface FitOptions {
  readonly context: Pick<RunContext, "log" | "signal" | "timing">;
  /** @default all programs run in a Pod that demands nothing */
  readonly findPods: (() => Promise<PodsOf>) | undefined;
  readonly nodes: Pick<ClusterNodes, "list" | "name">;
  /** The platforms if neither nodes nor Pods tell one. */
  readonly ordinary: readonly string[];
  readonly warnings: Pick<RunWarnings, "warn">;
}

/**
 * Gives each program the platforms that the nodes of its Pods run, as far as its base has them.
 *
 * @throws {KoError} If the cluster does not answer, or a base has none of the platforms.
 */
export async function fitToNodes(
  requests: readonly BuildRequest[],
  options: FitOptions,
): Promise<readonly BuildRequest[]> {
  const { context, findPods, nodes, ordinary, warnings } = options;
  const { log, signal, timing } = context;
  for (const { base } of requests) void inBackground(base);
  const [answer, podsOf] = await Promise.all([
    timing.time("kubectl", "get nodes", () => until(nodes.list(), signal)),
    findPods?.(),
  ]);
  const list = "unknown" in answer ? [] : answer.nodes;
  if (log.isVerbose === true) log.debug(`Nodes of ${await nodes.name()}: ${describeNodes(list)}`);
  return Promise.all(
    requests.map(async (request) => {
      const { importPath } = request.program;
      const pods = podsOf?.get(importPath) ?? [ANYWHERE];
      const { guessed, specs } = choose(list, { pods, ordinary });
      if (guessed) warnings.warn([await describeGuess(options, "unknown" in answer ? answer.unknown : undefined)]);
      return { ...request, platforms: await restrict(specs, { ...options, base: await request.base, importPath }) };
    }),
  );
}

/** The platforms of a program, and whether the ordinary ones are among them because nothing is known for a Pod. */
function choose(
  list: readonly ClusterNode[],
  { ordinary, pods }: { readonly ordinary: readonly string[]; readonly pods: readonly Placement[] },
): { readonly specs: readonly string[]; readonly guessed: boolean } {
  const all = pods.map((pod) => platformsFor(list, pod));
  const specs = new Set(all.flatMap((found) => (found.length > 0 ? found : ordinary)));
  return { specs: [...specs].sort(), guessed: all.some((found) => found.length === 0) };
}

/** Leaves out the platforms that a base does not have. @throws {BaseError} If none is left. */
async function restrict(
  specs: readonly string[],
  { base, context, importPath, nodes, warnings }: FitOptions & { readonly base: Base; readonly importPath: string },
): Promise<readonly string[]> {
  const { found, has } = await platformsIn(base, specs, createPlatformMatcher);
  if (found.length === specs.length) return found;
  const where = `nodes of ${await nodes.name()}`;
  if (found.length === 0) {
    const why = `its Pods run on ${specs.join(", ")}, base "${base.text}" has ${has.join(", ") || "no platform"}`;
    throw new BaseError(`Cannot build ${importPath} for the ${where}: ${why}`, {
      hint: "Use a base with one of them: defaultBaseImage in .ko.yaml, KO_DEFAULTBASEIMAGE.",
      transient: true,
    });
  }
  const lacking = specs.filter((spec) => !found.includes(spec));
  // Nodes of another system take few Pods by chance: clusters have taints or selectors for them, and few bases have both.
  const near = lacking.filter((spec) => found.some((other) => systemOf(other) === systemOf(spec)));
  const missing = `${importPath} is not built for ${(near.length > 0 ? near : lacking).join(", ")}`;
  const why = `base "${base.text}" lacks it, but ${where} run it`;
  if (near.length > 0) warnings.warn([`${missing}: ${why}. A Pod on one of them will not start`]);
  else context.log.debug(`${missing}: ${why}`);
  return found;
}

async function describeGuess({ nodes, ordinary }: FitOptions, unknown: string | undefined): Promise<string> {
  const name = await nodes.name();
  const why = unknown ?? "has no node yet that fits";
  const cure = "If that is wrong, name the platform: --platform=linux/arm64";
  return `${name.charAt(0).toUpperCase()}${name.slice(1)} ${why}: building for ${ordinary.join(", ")}, the default. ${cure}`;
}

/** Such as `linux/amd64 (3), linux/arm64 (1)`. */
function describeNodes(nodes: readonly ClusterNode[]): string {
  const groups = Map.groupBy(nodes, (node) => listPlatforms([node]).join(""));
  return (
    Array.from(groups, ([spec, { length }]) => `${spec} (${length})`)
      .sort()
      .join(", ") || "none"
  );
}

function systemOf(spec: string): string {
  return spec.split("/", 1)[0] ?? "";
}
