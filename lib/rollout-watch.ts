/** `ko apply -W --wait`: how the rollout goes on after a round. It never fails the watch. */
import { KoError } from "./errors.ts";
import { type Host, withSignal } from "./host.ts";
import { clusterArguments } from "./kubectl.ts";
import { readContext } from "./kubectl-cluster.ts";
import type { Log } from "./log.ts";
import { ClusterApi } from "./rollout-api.ts";
import { findApplied } from "./rollout-objects.ts";
import { waitForRollout } from "./rollout.ts";
import { formatFailure } from "./watch-screen.ts";

export interface RolloutTellerOptions {
  readonly host: Host;
  /** Arguments of kubectl, of which those count that say where the cluster is and who asks. */
  readonly words: readonly string[];
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
}

/** Follows the rollout of the last round. */
export class RolloutTeller implements AsyncDisposable {
  readonly #options: RolloutTellerOptions;
  #api: ClusterApi | undefined;
  #ending = new AbortController();
  #last: Promise<void> = Promise.resolve();

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

  async #tell({ host: screen, log, text }: AppliedRound, signal: AbortSignal): Promise<void> {
    const { host: outer, limit, words } = this.#options;
    if (signal.aborted) return;
    const host = withSignal(screen, AbortSignal.any([outer.signal, signal]));
    const told: Log = { ...log, info: (line) => host.err(`  ${line}\n`) };
    try {
      const applied = (await findApplied(text)).filter(({ name }) => name !== "");
      if (applied.length === 0) return;
      const flags = clusterArguments(words);
      const { namespace = "default" } = await readContext(host, flags);
      if (this.#api?.isEnded === true) await this.#close();
      // It outlives the round: the next one asks it again.
      this.#api ??= await ClusterApi.open({ host: withSignal(host, outer.signal), log, flags });
      const api = this.#api;
      await waitForRollout(applied, { host, log: told, api, flags, namespace, limit });
    } catch (error) {
      if (host.signal.aborted) return;
      if (!(error instanceof KoError)) throw error;
      host.err(formatFailure(error));
    }
  }

  async #close(): Promise<void> {
    await this.#api?.[Symbol.asyncDispose]();
    this.#api = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#last;
    await this.#close();
  }
}
