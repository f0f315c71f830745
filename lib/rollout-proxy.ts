/** One `kubectl proxy` for a whole watch: started when it is first needed, and again if it has ended. */
import { inBackground } from "./async.ts";
import { type Host, withSignal } from "./host.ts";
import { clusterArguments } from "./kubectl.ts";
import { readContext } from "./kubectl-cluster.ts";
import type { Log } from "./log.ts";
import { ClusterApi } from "./rollout-api.ts";

export interface WatchedClusterOptions {
  readonly host: Host;
  /** Arguments of kubectl, of which those count that say where the cluster is and who asks. */
  readonly words: readonly string[];
}

/** The cluster that a watch applies to. */
export class WatchedCluster implements AsyncDisposable {
  /** The flags of kubectl that say where the cluster is and who asks. */
  readonly flags: readonly string[];
  readonly #host: Host;
  /** Ends kubectl proxy, which outlives the rounds. */
  readonly #closing = new AbortController();
  #api: Promise<ClusterApi> | undefined;
  #namespace: string | undefined;

  constructor({ host, words }: WatchedClusterOptions) {
    this.flags = clusterArguments(words);
    this.#host = withSignal(host, AbortSignal.any([host.signal, this.#closing.signal]));
  }

  /** Starts kubectl proxy, unless it runs. @throws {KoError} If kubectl cannot serve the API. */
  openApi(log: Log): Promise<ClusterApi> {
    const before = this.#api;
    this.#api = inBackground(this.#openAfter(before, log));
    return this.#api;
  }

  /** The namespace of objects that name none. Read once: kubectl proxy stays with the first context, too. */
  async namespace(host: Host): Promise<string> {
    if (this.#namespace !== undefined) return this.#namespace;
    const { complaint, namespace = "default" } = await readContext(host, this.flags);
    if (complaint === "") this.#namespace = namespace;
    return namespace;
  }

  async #openAfter(before: Promise<ClusterApi> | undefined, log: Log): Promise<ClusterApi> {
    const running = await before?.catch(() => {});
    if (running !== undefined && !running.isEnded) return running;
    await running?.[Symbol.asyncDispose]();
    return ClusterApi.open({ host: this.#host, log, flags: this.flags });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    const api = await this.#api?.catch(() => {});
    await api?.[Symbol.asyncDispose]();
  }
}
