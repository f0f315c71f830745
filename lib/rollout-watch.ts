/** `ko apply -W`: how the rollout goes on after a round. It never fails the watch. */
import { inBackground, until } from "./async.ts";
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

/** Milliseconds of a rollout of which only its causes are told: most end sooner. */
const QUIET_MS = 5000;

/** Follows the rollout of the last round. */
export class RolloutTeller implements AsyncDisposable {
  readonly #options: RolloutTellerOptions;
  /** Ends kubectl proxy, which outlives the rounds. */
  readonly #closing = new AbortController();
  #api: Promise<ClusterApi> | undefined;
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
      const api = await until(this.#openApi(host, { flags, log }), host.signal);
      await waitForRollout(applied, { host, log: told, api, flags, namespace, limit, quiet: QUIET_MS });
      this.#failure = "";
    } catch (error) {
      if (host.signal.aborted) return;
      if (!(error instanceof KoError)) throw error;
      const failure = formatFailure(error);
      // A cluster that cannot be asked is told once.
      if (failure !== this.#failure) host.err(failure);
      this.#failure = failure;
    }
  }

  /** Starts kubectl proxy, unless it runs. */
  async #openApi(
    host: Host,
    { flags, log }: { readonly flags: readonly string[]; readonly log: Log },
  ): Promise<ClusterApi> {
    const running = await this.#api?.catch(() => {});
    if (running !== undefined && !running.isEnded) return running;
    await running?.[Symbol.asyncDispose]();
    const lasting = withSignal(host, AbortSignal.any([this.#options.host.signal, this.#closing.signal]));
    return (this.#api = inBackground(ClusterApi.open({ host: lasting, log, flags })));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#last;
    this.#closing.abort();
    await this.#api?.then(
      (api) => api[Symbol.asyncDispose](),
      () => {},
    );
  }
}
