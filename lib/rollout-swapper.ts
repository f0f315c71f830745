/** The rounds of `ko apply -W --swap`: which are swaps, and the ordinary apply at the end of the watch. */
import { setTimeout } from "node:timers/promises";
import { KoError, messageOf } from "./errors.ts";
import { type Host, withSignal } from "./host.ts";
import { runKubectl } from "./kubectl.ts";
import type { Context } from "./kubectl-cluster.ts";
import { formatCount, type Log } from "./log.ts";
import { type Applied, appliedOf, readObjects, resourceOf } from "./rollout-objects.ts";
import type { WatchedCluster } from "./rollout-proxy.ts";
import {
  countPods,
  describeSwap,
  swapImages,
  type SwapOptions,
  type SwappedContainer,
  waitForSwap,
} from "./rollout-swap.ts";
import { findSwaps, type Swap } from "./rollout-swap-plan.ts";
import { SwapRecord } from "./rollout-swap-record.ts";
import { formatFailure } from "./watch-screen.ts";
import type { DocumentChange, HandOver } from "./watch-yaml.ts";
import type { RoundContext } from "./watch.ts";
import { joinDocuments, renderDocument, type YamlDocument } from "./yaml.ts";

export interface SwapperOptions {
  readonly host: Host;
  readonly log: Log;
  /** Arguments of kubectl behind `apply -f -`. They name the context: another current context changes nothing. */
  readonly words: readonly string[];
  readonly context: Context;
  /** Of the same words. */
  readonly cluster: WatchedCluster;
  /** The ordinary apply of a round. */
  readonly feed: HandOver;
}

/** A workload whose Pods have another image than the workload itself. */
interface Held {
  readonly swap: Swap;
  readonly document: YamlDocument;
}

/** Milliseconds between two looks for Pods that were made meanwhile, with the image of their workload. */
const KEEP_MS = 1000;
/** Milliseconds for a new program to be ready. */
const READY_MS = 120_000;
/** Milliseconds for the last apply. */
const LAST_MS = 30_000;

/** Hands over the documents of each round. Its disposal applies all documents that were only swapped. */
export class Swapper implements AsyncDisposable {
  readonly #options: SwapperOptions;
  readonly #record: SwapRecord;
  readonly #closing = new AbortController();
  readonly #namespace: string;
  /** By object. */
  readonly #held = new Map<string, Held>();
  /** Ends the report on the rollout of the last round. */
  #ending = new AbortController();
  #telling: Promise<void> = Promise.resolve();
  #keeping: Promise<void> | undefined;

  constructor(options: SwapperOptions) {
    this.#options = options;
    this.#record = new SwapRecord(options.host, options.context.server);
    this.#namespace = options.context.namespace ?? "default";
  }

  /** Swaps the documents of which only images have changed, and applies the others. @returns a summary of the swaps */
  async handOver(changes: readonly DocumentChange[], context: RoundContext): Promise<string | undefined> {
    this.#ending.abort();
    this.#ending = new AbortController();
    const rest: DocumentChange[] = [];
    let pods = 0;
    for (const change of changes) {
      const count = await this.#trySwap(change, context);
      if (count === undefined) rest.push(change);
      else pods += count;
    }
    if (rest.length === 0) return pods === 0 ? "nothing new" : `swapped the program in ${formatCount(pods, "Pod")}`;
    await this.#options.feed(rest, context);
    for (const { document } of rest) await this.#release(document);
    return pods === 0 ? undefined : `applied ${rest.length}, swapped ${formatCount(pods, "Pod")}`;
  }

  /** @returns the number of Pods that get a new image; undefined if the document must be applied */
  async #trySwap({ before, document }: DocumentChange, context: RoundContext): Promise<number | undefined> {
    if (before === undefined) return undefined;
    const swaps = await findSwaps(before, renderDocument(document));
    if (swaps === undefined || swaps.length === 0) return undefined;
    const done: { readonly swap: Swap; readonly swapped: readonly SwappedContainer[] }[] = [];
    context.showCause();
    try {
      const options = await this.#swapOptions();
      for (const swap of swaps) {
        const { applied } = swap;
        this.#record.add({ applied, namespace: applied.namespace ?? this.#namespace });
        const swapped = await swapImages(swap, options);
        if (swapped === undefined) return undefined;
        this.#held.set(resourceKey(applied), { swap: this.#join(swap), document });
        done.push({ swap, swapped });
      }
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      this.#options.host.signal.throwIfAborted();
      this.#options.log.warn(`Cannot swap, ko applies instead: ${messageOf(error)}`);
      return undefined;
    }
    for (const { swap, swapped } of done) this.#tell(swap.applied, swapped, context);
    this.#keeping ??= this.#keep();
    return done.reduce((sum, { swapped }) => sum + countPods(swapped), 0);
  }

  async #swapOptions(): Promise<SwapOptions> {
    const { cluster, log } = this.#options;
    return { api: await cluster.openApi(log), namespace: this.#namespace };
  }

  /** All images that the Pods of a workload should have: a round names those that it changes. */
  #join({ applied, images }: Swap): Swap {
    const before = this.#held.get(resourceKey(applied))?.swap.images ?? new Map<string, string>();
    return { applied, images: new Map([...before, ...images]) };
  }

  /** Tells in the background when the new program runs. */
  #tell(applied: Applied, swapped: readonly SwappedContainer[], { host: screen }: RoundContext): void {
    const { signal } = this.#ending;
    const host = withSignal(screen, AbortSignal.any([this.#options.host.signal, this.#closing.signal, signal]));
    const started = host.monotonic();
    const tell = async (): Promise<void> => {
      try {
        await waitForSwap(applied, { ...(await this.#swapOptions()), host, swapped, limit: READY_MS });
        const took = ((host.monotonic() - started) / 1000).toFixed(1);
        host.err(`  ${describeSwap(applied, swapped)} after ${took}s\n`);
      } catch (error) {
        if (host.signal.aborted) return;
        if (!(error instanceof KoError)) throw error;
        host.err(formatFailure(error));
      }
    };
    this.#telling = Promise.all([this.#telling, tell()]).then(() => {});
  }

  /** Gives Pods that are made meanwhile the image of the last round. */
  async #keep(): Promise<void> {
    const signal = AbortSignal.any([this.#options.host.signal, this.#closing.signal]);
    while (!signal.aborted) {
      await setTimeout(KEEP_MS, undefined, { signal }).catch(() => {});
      for (const { swap } of this.#held.values()) {
        if (signal.aborted) return;
        try {
          await swapImages(swap, await this.#swapOptions());
        } catch (error) {
          // The API server may be away for a while.
          if (!(error instanceof KoError) && !signal.aborted) throw error;
        }
      }
    }
  }

  /** The objects of a document have been applied. */
  async #release(document: YamlDocument): Promise<void> {
    for (const object of await readObjects(renderDocument(document))) this.#held.delete(resourceKey(appliedOf(object)));
  }

  /** Applies the documents that were only swapped. A second Ctrl-C ends that. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([this.#telling, this.#keeping]);
    const documents = [...new Set(Array.from(this.#held.values(), ({ document }) => document))];
    if (documents.length === 0 || (await this.#applyLast(documents))) this.#record[Symbol.dispose]();
  }

  /** @returns whether kubectl has applied them */
  async #applyLast(documents: readonly YamlDocument[]): Promise<boolean> {
    const { log, words } = this.#options;
    const host = withSignal(this.#options.host, AbortSignal.timeout(LAST_MS));
    log.info("applying the documents whose programs were swapped");
    const stdin = new TextEncoder().encode(joinDocuments(documents));
    const code = await runKubectl(host, ["apply", "-f", "-", ...words], { log, stdin });
    if (code !== 0) log.warn("kubectl apply failed: Pods keep the program of the last swap until the next ko apply");
    return code === 0;
  }
}

function resourceKey(applied: Applied): string {
  return `${applied.namespace ?? ""} ${resourceOf(applied)}`;
}
