/** The platforms of a run: the same for all programs, or with `--platform=cluster` of each those of the nodes that run it. */
import type { BuildRequest, Plan } from "./build.ts";
import type { RunContext } from "./cache.ts";
import { type BuildOptions, choosePlatforms, CLUSTER_IGNORED, firstPlatform } from "./cli-options.ts";
import type { ClusterNodes } from "./kubectl-cluster.ts";
import type { PodsOf } from "./kubectl-nodes.ts";
import type { RunWarnings } from "./log.ts";
import { CLUSTER_PLATFORMS, type Platform } from "./oci.ts";

export interface RunPlatformsOptions {
  readonly build: Pick<BuildOptions, "platforms">;
  readonly context: RunContext;
  /** `defaultPlatforms` of the configuration. */
  readonly defaults: readonly string[];
  /** The platform of the local target, if images are loaded into one. */
  readonly local: (() => Promise<string>) | undefined;
  /** The nodes of kubectl's cluster, if the command ends in kubectl. */
  readonly nodes: ClusterNodes | undefined;
  readonly warnings: RunWarnings;
}

interface ChosenOptions extends RunPlatformsOptions {
  /** The platforms if nodes tell none; undefined if nodes are not asked. */
  readonly ordinary: readonly string[] | undefined;
}

/** The platforms that were chosen for a run. */
export class RunPlatforms {
  /** Of all programs; empty if each has its own. */
  readonly specs: readonly string[];
  /** The platform that arguments are listed for. */
  readonly first: Platform | undefined;
  readonly #options: ChosenOptions;

  private constructor(specs: readonly string[], options: ChosenOptions) {
    this.specs = specs;
    this.first = firstPlatform(specs);
    this.#options = options;
  }

  /** Chooses, and starts to ask for the nodes if they decide. @throws {UsageError} As {@link choosePlatforms}. */
  static async choose(options: RunPlatformsOptions): Promise<RunPlatforms> {
    const { build, context, defaults, local, nodes } = options;
    const { host, log } = context;
    const fallback = { env: host.env, ...(local === undefined ? {} : { fallback: local }) };
    const mayBeCluster = nodes !== undefined;
    const chosen = await choosePlatforms(build.platforms, { ...fallback, defaults, mayBeCluster });
    if (chosen.withoutCluster) log.debug(CLUSTER_IGNORED);
    if (!chosen.platforms.includes(CLUSTER_PLATFORMS)) {
      return new RunPlatforms(chosen.platforms, { ...options, ordinary: undefined });
    }
    const { platforms: ordinary } = await choosePlatforms([], { ...fallback, defaults: [] });
    // The daemon or the nodes of a local target have been asked already.
    if (local !== undefined) return new RunPlatforms(ordinary, { ...options, nodes: undefined, ordinary: undefined });
    nodes?.begin();
    return new RunPlatforms([], { ...options, ordinary });
  }

  /**
   * Gives each program the platforms that the nodes of its Pods run, as far as its base has them.
   *
   * @param findPods is called if nodes decide
   * @throws {KoError} If the cluster does not answer, or a base has none of the platforms.
   */
  async fit(
    requests: readonly BuildRequest[],
    findPods: (() => Promise<PodsOf>) | undefined,
  ): Promise<readonly BuildRequest[]> {
    const { context, nodes, ordinary, warnings } = this.#options;
    if (nodes === undefined || ordinary === undefined) return requests;
    const { fitToNodes } = await import("./pipeline-nodes.ts");
    return fitToNodes(requests, { context, findPods, nodes, ordinary, warnings });
  }

  /** Lets the cluster be looked at for programs that no node runs, unless nodes have decided. */
  announce(plans: readonly Plan[]): void {
    const { local, nodes, ordinary } = this.#options;
    if (nodes === undefined || ordinary !== undefined) return;
    const programs = plans.map(({ program: { importPath }, targets }) => {
      return { importPath, platforms: targets.map(({ platform }) => platform) };
    });
    nodes.announce({ programs, localPlatform: local });
  }
}
