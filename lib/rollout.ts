/**
 * Waits until what was applied runs, and says why it does not.
 *
 * The objects of this run are asked for again and again until each is ready, failed, or the time is over. A cause that no
 * time mends ends the wait for its object at once. What a status means: rollout-state.ts and rollout-pods.ts.
 */
import { setTimeout } from "node:timers/promises";
import { ClusterError, KoError, KoErrors, messageOf, printable } from "./errors.ts";
import type { Host } from "./host.ts";
import { fieldAt, listAt, textAt } from "./json.ts";
import { runKubectl } from "./kubectl.ts";
import type { Log } from "./log.ts";
import type { Answer, ClusterApi } from "./rollout-api.ts";
import { explainVerdict, type Verdict } from "./rollout-explain.ts";
import { type Applied, resourceOf } from "./rollout-objects.ts";
import { type Cause, causesOf } from "./rollout-pods.ts";
import { findRevision } from "./rollout-revision.ts";
import { type Progress, progressOf } from "./rollout-state.ts";

/** Lines of a terminal that are rewritten in place: one for each object that does not run yet. */
export interface WaitLines {
  /** Shows why an object does not run yet. The text replaces the last one of this object. */
  show(name: string, text: string): void;
  remove(name: string): void;
}

export interface WaitOptions {
  readonly host: Host;
  readonly log: Log;
  readonly api: ClusterApi;
  /** The flags of kubectl that say where the cluster is and who asks. */
  readonly flags: readonly string[];
  /** Of objects that name none. */
  readonly namespace: string;
  /** Milliseconds for all objects together. */
  readonly limit: number;
  /** "started": of a Pod, until its program has been started. @default "ready" */
  readonly until?: "ready" | "started";
  /** Shows on a terminal why objects do not run yet. @default a line in the log for each new reason */
  readonly screen?: WaitLines | undefined;
  /** Milliseconds in which a wait whose cause is not known is not told. @default 0 */
  readonly quiet?: number;
}

/** Milliseconds between two looks at an object: a verdict comes at most two of them after its evidence. */
const POLL_MS = 500;
/** A workload of a thousand Pods has the same cause in each. */
const MAX_PODS = 5;
/** Events that say why a workload gets no Pods. */
const NO_PODS = /^FailedCreate$/;

/**
 * Waits for objects.
 *
 * @throws {ClusterError} If one will not run, or does not in time.
 * @throws {KoErrors} If several do not.
 */
export async function waitForRollout(applied: readonly Applied[], options: WaitOptions): Promise<void> {
  const started = options.host.monotonic();
  const waits = applied.map((each) => new Rollout(each, { ...options, started }).wait());
  const failures = (await Promise.all(waits)).filter((failure) => failure !== undefined);
  const [first, second] = failures;
  if (first !== undefined) throw second === undefined ? first : new KoErrors(failures);
}

/** The rollout of one object. */
class Rollout {
  readonly #applied: Applied;
  readonly #options: WaitOptions & { readonly started: number };
  readonly #namespace: string;
  readonly #name: string;
  #said = "";

  constructor(applied: Applied, options: WaitOptions & { readonly started: number }) {
    this.#applied = applied;
    this.#options = options;
    this.#namespace = applied.namespace ?? options.namespace;
    this.#name = resourceOf(applied);
  }

  /** @returns why it does not run */
  async wait(): Promise<ClusterError | undefined> {
    const { api, host, limit, quiet = 0, started, until } = this.#options;
    let last: Cause | undefined;
    let path: string | undefined;
    for (;;) {
      const answer = await this.#ask(async (): Promise<Answer> => {
        path ??= await api.pathOf(this.#applied, this.#namespace);
        return path === undefined ? { kind: "missing" } : api.get(path);
      });
      if (answer?.kind === "forbidden") return this.#askKubectl(answer.message);
      // kubectl makes it, and may have removed it again.
      const isOwn = until === "started";
      if (answer?.kind === "missing" && !isOwn) return this.#failure({ text: "is not in the cluster" });
      const isLate = host.monotonic() - started > limit;
      if (answer?.kind === "object") {
        if (isOwn && hasStarted(answer.value)) return undefined;
        const progress = progressOf(this.#applied, answer.value);
        if (progress.state === "ready" || progress.state === "over") return this.#finish(progress);
        const causes = (await this.#ask(() => this.#causesOf(answer.value))) ?? [];
        const hopeless = causes.find((cause) => cause.hopeless);
        last = causes[0];
        if (hopeless !== undefined) return this.#failure({ text: "does not run", cause: hopeless });
        if (progress.state === "failed") return this.#failure({ text: progress.text, cause: last });
        if (isLate) return this.#failure({ text: `${progress.text} after ${seconds(limit)}`, cause: last });
        const isQuiet = last === undefined && host.monotonic() - started < quiet;
        if (!isQuiet) this.#say(last === undefined ? progress.text : `${progress.text}: ${last.text}`);
      } else if (isLate) return this.#failure({ text: "is not known to run: the API server does not answer" });
      await setTimeout(POLL_MS, undefined, { signal: host.signal });
    }
  }

  /** Asks the API; undefined if it does not answer, which may pass. */
  async #ask<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.#options.host.signal.throwIfAborted();
      if (!(error instanceof KoError)) throw error;
      this.#say(`is not known to run: ${messageOf(error)}`);
      return undefined;
    }
  }

  #say(text: string): void {
    if (text === this.#said) return;
    this.#said = text;
    const { log, screen } = this.#options;
    if (screen === undefined) log.info(`${this.#name} ${printable(text, 600)}`);
    else screen.show(this.#name, text);
  }

  #finish({ state, text }: Progress): undefined {
    const { host, log, screen, started } = this.#options;
    screen?.remove(this.#name);
    const after = state === "ready" ? ` after ${seconds(host.monotonic() - started)}` : "";
    log.info(`${this.#name} ${printable(text, 600)}${after}`);
  }

  /** The causes in the newest Pods, the hopeless ones first; or why there are no Pods. */
  async #causesOf(object: unknown): Promise<readonly Cause[]> {
    const { api } = this.#options;
    const { owner, pods } = await findRevision(api, this.#applied, { namespace: this.#namespace, object });
    const unready = pods.filter((pod) => textAt(pod, "status", "phase") !== "Succeeded").slice(0, MAX_PODS);
    const found = await Promise.all(
      unready.map(async (pod) => causesOf(pod, await this.#eventsOf(textAt(pod, "metadata", "uid")))),
    );
    const causes = await Promise.all(found.flat().map((cause) => this.#readForeign(cause)));
    if (pods.length > 0 || owner === undefined) {
      // A Job starts another Pod, and decides itself when it has tried often enough.
      const retries = this.#applied.kind === "Job";
      const all = causes.map((cause) => (retries && cause.log !== undefined ? { ...cause, hopeless: false } : cause));
      return all.toSorted((a, b) => Number(b.hopeless) - Number(a.hopeless));
    }
    const events = await api.eventsOf(textAt(owner, "metadata", "uid"), this.#namespace);
    const refused = events.findLast((event) => NO_PODS.test(textAt(event, "reason")));
    if (refused === undefined) return [];
    return [{ text: `it gets no Pods: ${textAt(refused, "message")}`, hopeless: true, pod: "" }];
  }

  /** A program for another processor will not start the second time, either: its log says so after the first. */
  async #readForeign(cause: Cause): Promise<Cause> {
    if (cause.hopeless || cause.node === undefined || cause.log === undefined) return cause;
    const log = await this.#options.api.readLog({ namespace: this.#namespace, name: cause.pod }, cause.log);
    return /exec format error/.test(log ?? "") ? { ...cause, hopeless: true } : cause;
  }

  async #eventsOf(uid: string): Promise<readonly unknown[]> {
    return uid === "" ? [] : this.#options.api.eventsOf(uid, this.#namespace);
  }

  #failure(verdict: Verdict): Promise<ClusterError> {
    const { api, host, screen } = this.#options;
    screen?.remove(this.#name);
    return explainVerdict(verdict, { api, applied: this.#applied, host, namespace: this.#namespace });
  }

  /** What kubectl can tell a user who may not read the object. */
  async #askKubectl(why: string): Promise<ClusterError | undefined> {
    const { flags, host, limit, log } = this.#options;
    const hasStatus = this.#applied.apiVersion.startsWith("apps/");
    const then = hasStatus ? "kubectl rollout status says what it can" : "it may run or not";
    log.warn(`ko cannot look at ${this.#name}: ${why}: ${then}`);
    if (!hasStatus) return undefined;
    const time = `--timeout=${Math.ceil(limit / 1000)}s`;
    const args = ["rollout", "status", this.#name, time, ...flags, `--namespace=${this.#namespace}`];
    const code = await runKubectl(host, args, { log, onOutput: (chunk) => host.err(new TextDecoder().decode(chunk)) });
    if (code === 0) return undefined;
    return new ClusterError(`${this.#name} does not run, as kubectl says`, { hint: `kubectl describe ${this.#name}` });
  }
}

/** Whether a program of a Pod runs, or has run. */
function hasStarted(pod: unknown): boolean {
  return listAt(pod, "status", "containerStatuses").some((status) => {
    return fieldAt(status, "state", "running") !== undefined || fieldAt(status, "state", "terminated") !== undefined;
  });
}

/** `2m0s` would be exact, `2 s` and `1.5 s` are what people read. */
function seconds(ms: number): string {
  return ms >= 10_000 ? `${Math.round(ms / 1000)}s` : `${(ms / 1000).toFixed(1)}s`;
}
