/** `ko apply -W`: how the rollout goes on after a round. It never fails the watch. */
import { until } from "./async.ts";
import { KoError } from "./errors.ts";
import { type Host, withSignal } from "./host.ts";
import type { Log } from "./log.ts";
import { type Applied, findApplied, resourceOf } from "./rollout-objects.ts";
import type { WatchedCluster } from "./rollout-proxy.ts";
import { type WaitLines, waitForRollout } from "./rollout.ts";
import { formatFailure } from "./watch-screen.ts";

export interface RolloutTellerOptions {
  readonly host: Host;
  readonly cluster: WatchedCluster;
  /** Milliseconds for one rollout. */
  readonly limit: number;
}

/** What a round has applied. */
export interface AppliedRound {
  /** The YAML. */
  readonly text: string;
  /** Writes lines to the screen of the watch. */
  readonly host: Host;
  readonly log: Log;
  /** Shows what does not run yet. @default lines that stay */
  readonly waits?: WaitLines | undefined;
}

/** Milliseconds in which ko prints, in lines that stay, only the causes of a rollout that waits: most rollouts end sooner. */
const QUIET_MS = 5000;

/** Follows the rollout of the last round. */
export class RolloutTeller implements AsyncDisposable {
  readonly #options: RolloutTellerOptions;
  #ending = new AbortController();
  #last: Promise<void> = Promise.resolve();
  #failure = "";

  constructor(options: RolloutTellerOptions) {
    this.#options = options;
  }

  /** Tells of a round in the background. The round before is told of no more. */
  follow(round: AppliedRound): void {
    this.#ending.abort();
    this.#ending = new AbortController();
    const { signal } = this.#ending;
    const before = this.#last;
    this.#last = before.then(() => this.#tell(round, signal));
  }

  async #tell({ host: screen, log, text, waits }: AppliedRound, signal: AbortSignal): Promise<void> {
    const { cluster, host: outer, limit } = this.#options;
    if (signal.aborted) return;
    const host = withSignal(screen, AbortSignal.any([outer.signal, signal]));
    const told: Log = { ...log, info: (line) => host.err(`  ${line}\n`) };
    let applied: readonly Applied[] = [];
    try {
      applied = (await findApplied(text)).filter(({ name }) => name !== "");
      if (applied.length === 0) return;
      const namespace = await cluster.namespace(host);
      const api = await until(cluster.openApi(log), host.signal);
      const { flags } = cluster;
      await waitForRollout(applied, {
        host,
        log: told,
        api,
        flags,
        namespace,
        limit,
        screen: waits,
        quiet: waits === undefined ? QUIET_MS : 0,
      });
      this.#failure = "";
    } catch (error) {
      if (host.signal.aborted) return;
      if (!(error instanceof KoError)) throw error;
      const failure = formatFailure(error);
      // The same failure, such as a cluster that does not answer, is printed once.
      if (failure !== this.#failure) host.err(failure);
      this.#failure = failure;
    } finally {
      for (const each of applied) waits?.remove(resourceOf(each));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#last;
  }
}
