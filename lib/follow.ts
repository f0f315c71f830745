/** `ko apply -W --logs`: the logs of the programs that a watch applied, with their names before each line. */
import { inBackground, systemClock } from "./async.ts";
import { KoError, messageOf } from "./errors.ts";
import { ContainerLog, type ContainerPlace, GONE, type LogSink, stateOf } from "./follow-container.ts";
import { LogNames } from "./follow-names.ts";
import { watchPods } from "./follow-pods.ts";
import { LogPrinter } from "./follow-printer.ts";
import { findTargets, type FollowTarget, isOf } from "./follow-targets.ts";
import { type Host, withSignal } from "./host.ts";
import { listAt, textAt } from "./json.ts";
import { type Style, styleOf } from "./log-style.ts";
import { type Log, silentLog } from "./log.ts";
import type { ClusterApi } from "./rollout-api.ts";
import type { WatchedCluster } from "./rollout-proxy.ts";

export interface LogFollowerOptions {
  readonly host: Host;
  readonly cluster: WatchedCluster;
}

/** What a round has applied. */
export interface FollowedRound {
  /** The YAML. */
  readonly text: string;
  /** The output of kubectl. */
  readonly said: string;
  readonly log: Log;
  /** Writes lines of programs to the screen of the watch. Settles when they are taken. */
  readonly showLogs: (text: string) => Promise<void>;
}

/** Objects whose Pods are watched at once, the newest ones. */
const MAX_OBJECTS = 50;
/** Containers that are followed at once: each has a connection, and ko's own requests need some, too. */
const MAX_CONTAINERS = 100;
/** Milliseconds before kubectl proxy is started again. */
const RESTART_MS = 2000;

/** Follows logs in the background until it is closed. It never fails the watch. */
export class LogFollower implements AsyncDisposable {
  readonly #options: LogFollowerOptions;
  readonly #closing = new AbortController();
  readonly #signal: AbortSignal;
  readonly #names = new LogNames();
  readonly #startedAt: number;
  /** The start of the watch in milliseconds since 1970, as the cluster counts them. */
  #start: number | undefined;
  readonly #style: Style;
  /** By the namespace and the query: ends the watch of an object's Pods. The oldest first. */
  readonly #watched = new Map<string, AbortController>();
  /** By namespace, Pod and container. */
  readonly #containers = new Map<string, ContainerLog>();
  /** The uid of the Pod, of containers whose logs are complete. */
  readonly #complete = new Map<string, string>();
  readonly #works = new Set<Promise<void>>();
  readonly #warned = new Set<string>();
  #printer: LogPrinter | undefined;
  #log: Log = silentLog;

  constructor(options: LogFollowerOptions) {
    this.#options = options;
    this.#signal = AbortSignal.any([options.host.signal, this.#closing.signal]);
    this.#startedAt = options.host.monotonic();
    this.#style = styleOf(options.host);
  }

  /** Learns which program an image has. */
  know(reference: string, importPath: string): void {
    this.#names.know(reference, importPath);
  }

  /** Follows the programs of a round, beside those of the rounds before. */
  follow({ log, said, showLogs, text }: FollowedRound): void {
    this.#log = log;
    this.#printer ??= new LogPrinter({ show: showLogs, signal: this.#signal });
    this.#spawn(this.#add(text, said));
  }

  async #add(text: string, said: string): Promise<void> {
    const targets = await findTargets(text, said);
    if (targets.length === 0) return;
    const { cluster, host } = this.#options;
    const usual = await cluster.namespace(withSignal(host, this.#signal));
    for (const target of targets) {
      const namespace = target.namespace ?? usual;
      const key = JSON.stringify([namespace, target.query, target.resource]);
      if (this.#watched.has(key)) continue;
      const ending = new AbortController();
      this.#watched.set(key, ending);
      this.#spawn(this.#watch(target, { namespace, ending: ending.signal }));
      // A watch of `ko create` makes Jobs with new names.
      const [oldest] = this.#watched;
      if (this.#watched.size <= MAX_OBJECTS || oldest === undefined) continue;
      this.#watched.delete(oldest[0]);
      oldest[1].abort(new Error("newer objects"));
    }
  }

  async #watch(
    target: FollowTarget,
    { ending, namespace }: { readonly ending: AbortSignal; readonly namespace: string },
  ): Promise<void> {
    const { query } = target;
    const signal = AbortSignal.any([this.#signal, ending]);
    /** The keys of the containers that are followed, by Pod. */
    const pods = new Map<string, Set<string>>();
    try {
      for await (const event of watchPods({ openApi: () => this.#openApi(), namespace, query, signal })) {
        if (event.kind === "forbidden") this.#warn("pods", `Cannot show logs: ${event.message}`);
        else if (event.kind === "time") this.#setStart(event.now);
        else if (event.kind === "gone") {
          this.#forget(pods.get(event.name));
          pods.delete(event.name);
        } else if (isOf(target, event.pod)) {
          const pod = textAt(event.pod, "metadata", "name");
          const keys = pods.get(pod) ?? new Set();
          pods.set(pod, keys);
          for (const container of this.#programsOf(event.pod)) {
            keys.add(keyOf({ namespace, pod, container }));
            this.#note({ target, namespace, container, pod: event.pod });
          }
        }
      }
    } catch (error) {
      if (!ending.aborted) throw error;
      for (const keys of pods.values()) this.#forget(keys);
    }
  }

  /** The Pod of these containers is gone. */
  #forget(keys: Iterable<string> = []): void {
    for (const key of keys) {
      this.#containers.get(key)?.update(GONE);
      this.#complete.delete(key);
    }
  }

  /** The names of the containers of a Pod whose images ko built. */
  #programsOf(pod: unknown): readonly string[] {
    const all = [...listAt(pod, "spec", "initContainers"), ...listAt(pod, "spec", "containers")];
    return all.filter((each) => this.#names.isKnown(textAt(each, "image"))).map((each) => textAt(each, "name"));
  }

  /** Follows a container, or tells its follower that the Pod has changed. */
  #note({ container, namespace, pod, target }: FoundContainer): void {
    const place = { namespace, pod: textAt(pod, "metadata", "name"), container };
    const key = keyOf(place);
    const state = stateOf(pod, container);
    const running = this.#containers.get(key);
    if (running !== undefined) return running.update(state);
    const uid = textAt(pod, "metadata", "uid");
    if (this.#complete.get(key) === uid) return;
    if (this.#containers.size >= MAX_CONTAINERS) {
      this.#warn("many", `ko shows the logs of ${MAX_CONTAINERS} containers, and not those of others`);
      return;
    }
    const source = this.#names.add({ pod, container, resource: target.resource, name: target.name });
    const log = new ContainerLog(state, {
      openApi: () => this.#openApi(),
      place,
      since: this.#sinceFor(pod),
      sink: this.#sinkFor(() => source.label()),
      signal: this.#signal,
    });
    this.#containers.set(key, log);
    this.#spawn(
      log.run().finally(() => {
        this.#containers.delete(key);
        if (log.isComplete) this.#complete.set(key, uid);
        source[Symbol.dispose]();
      }),
    );
  }

  /** Of a Pod that is older than the watch, only new lines are shown: it may have written for days. */
  #sinceFor(pod: unknown): string | undefined {
    const start = this.#start;
    if (start === undefined || Date.parse(textAt(pod, "metadata", "creationTimestamp")) >= start) return undefined;
    return new Date(start).toISOString().replace(/\.\d+Z$/, "Z");
  }

  /** Learns by the clock of the cluster when the watch began. */
  #setStart(now: number): void {
    if (Number.isNaN(now)) return;
    const since = now - (this.#options.host.monotonic() - this.#startedAt);
    this.#start ??= Math.floor(since / 1000) * 1000;
  }

  #sinkFor(label: () => { readonly text: string; readonly colour: number }): LogSink {
    return {
      write: async (lines) => {
        const { colour, text } = label();
        await this.#printer?.write(this.#style.name(`${text} │`, colour) + " ", lines);
      },
      complain: (why) => this.#log.warn(`Cannot read the log of ${label().text}: ${why}`),
      forbid: (why) => this.#warn("logs", `Cannot show logs: ${why}`),
    };
  }

  async #openApi(): Promise<ClusterApi> {
    try {
      return await this.#options.cluster.openApi(this.#log);
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#warn("api", `Cannot show logs: ${messageOf(error)}`);
      await systemClock.sleep(RESTART_MS, this.#signal);
      throw error;
    }
  }

  /** One sentence for each cause, however many Pods it is for. */
  #warn(cause: string, text: string): void {
    if (!this.#warned.has(cause)) this.#log.warn(text);
    this.#warned.add(cause);
  }

  /** Does work in the background, until the end of the watch. */
  #spawn(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => {
        if (this.#signal.aborted) return;
        if (!(error instanceof KoError)) throw error;
        this.#log.warn(`Cannot show logs: ${error.message}`);
      })
      // A broken invariant stays, and is thrown at the end.
      .then(() => void this.#works.delete(done));
    this.#works.add(inBackground(done));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error("the watch is over"));
    await Promise.all(this.#works);
  }
}

interface FoundContainer {
  readonly target: FollowTarget;
  readonly namespace: string;
  readonly container: string;
  readonly pod: unknown;
}

function keyOf({ container, namespace, pod }: ContainerPlace): string {
  return JSON.stringify([namespace, pod, container]);
}
