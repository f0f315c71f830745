/**
 * The loop of `--watch` alone, with a job, a watcher and a clock that the test moves: when a round begins, ends, is
 * superseded or repeated, and its output. Nothing sleeps.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { inBackground } from "../lib/async.ts";
import { KoError, RegistryError, UsageError } from "../lib/errors.ts";
import type { Host } from "../lib/host.ts";
import { NOWHERE, type WatchPlan } from "../lib/watch-places.ts";
import { type Due, FatalError, type RoundContext, watchAndRun, type WatchJob } from "../lib/watch.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { waitUntil } from "./helpers/world-programs.ts";
import { dueFor, EVERYTHING, fakeHost, FakeWatcher } from "./helpers/world-watch.ts";

/** Two programs, each of one file. */
const PLAN: Partial<WatchPlan> = {
  programs: new Map([
    ["a", { ...NOWHERE, files: ["/w/a.go"] }],
    ["b", { ...NOWHERE, files: ["/w/b.go"] }],
  ]),
  config: { ...NOWHERE, files: ["/w/.ko.yaml"] },
};

const AWAY = new RegistryError("the registry is away", { method: "GET", url: "https://r.example/v2/", retry: "often" });
const BROKEN = new KoError("a.go does not compile");

/** A phase of the job, or a pause of the loop, that goes on until the test ends it. */
interface Step<D> {
  readonly data: D;
  readonly end: (result?: string) => void;
  readonly fail: (error: unknown) => void;
}

/** Steps in the order in which they begin. */
class Steps<D> {
  readonly #begun: Step<D>[] = [];
  readonly #awaited: ((step: Step<D>) => void)[] = [];

  /** Begins a step. @returns the promise that the test settles; an aborted signal rejects it */
  begin(data: D, signal?: AbortSignal): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    const step = { data, end: (result = "") => resolve(result), fail: reject };
    const awaited = this.#awaited.shift();
    if (awaited === undefined) this.#begun.push(step);
    else awaited(step);
    return promise;
  }

  /** The next step that begins. */
  async next(): Promise<Step<D>> {
    return this.#begun.shift() ?? new Promise((resolve) => this.#awaited.push(resolve));
  }
}

class Rounds implements AsyncDisposable {
  readonly fake: ReturnType<typeof fakeHost>;
  readonly builds = new Steps<{ readonly due: Due; readonly context: RoundContext }>();
  readonly deliveries = new Steps<{ readonly result: string; readonly context: RoundContext }>();
  readonly pauses = new Steps<{ readonly ms: number; readonly signal: AbortSignal }>();
  /** The results that the job was asked for places with. */
  readonly asked: (string | undefined)[] = [];
  readonly ended: Promise<never>;
  #watcher: FakeWatcher | undefined;

  /** @param page the file of `--timing`; none if undefined */
  constructor(changes: Partial<Host> = {}, page?: string) {
    this.fake = fakeHost(changes);
    const job: WatchJob<string> = {
      build: (due, context) => this.builds.begin({ due, context }, context.host.signal),
      deliver: (result, context) => this.deliveries.begin({ result, context }),
      places: async (result) => {
        this.asked.push(result);
        return PLAN;
      },
    };
    this.ended = inBackground(
      watchAndRun(job, {
        host: this.fake.host,
        level: "normal",
        progress: "auto",
        timing: page === undefined ? undefined : { file: page, format: "page" },
        command: "ko build -W",
        clock: { sleep: async (ms, signal) => void (await this.pauses.begin({ ms, signal }, signal)) },
        openWatcher: (options) => (this.#watcher = new FakeWatcher(options)),
      }),
    );
  }

  get watcher(): FakeWatcher {
    if (this.#watcher === undefined) throw new Error("the loop has no watcher yet");
    return this.#watcher;
  }

  /** Runs the next round to its end. */
  async run(options: { readonly result?: string; readonly summary?: string; readonly fails?: unknown } = {}): Promise<{
    readonly due: Due;
    readonly context: RoundContext;
  }> {
    const build = await this.builds.next();
    if (options.fails === undefined) {
      build.end(options.result ?? "built");
      (await this.deliveries.next()).end(options.summary ?? "printed 1 document");
    } else build.fail(options.fails);
    await turn();
    return build.data;
  }

  /** All that was printed, without times. The files of these tests do not exist. */
  printed(): string {
    return this.fake
      .stderr()
      .replaceAll(/^(TIME|\d\d:\d\d:\d\d) .* removed.*$/gm, (line) => line.replaceAll(" removed", ""))
      .replaceAll(/^\d\d:\d\d:\d\d /gm, "TIME ")
      .replaceAll(/\d+\.\d\d s/g, "N s");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.fake.interrupt(new Error("the test is over"));
    await this.ended.catch(() => {});
    expect(this.watcher.isClosed).toBe(true);
  }
}

/** Lets everything happen that waits for nothing. */
async function turn(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}

describe("watchAndRun()", () => {
  test("begins with everything, and then with the programs that a change affects", async () => {
    await using rounds = new Rounds();
    expect((await rounds.run()).due).toEqual(EVERYTHING);
    rounds.watcher.change("/w/a.go");
    rounds.watcher.change("/w/unknown.go");
    expect((await rounds.run()).due).toEqual(dueFor("a"));
    expect(rounds.asked).toEqual(["built", "built"]);
    rounds.watcher.change("/w/.ko.yaml");
    expect((await rounds.run()).due).toEqual({ ...EVERYTHING, config: true });
    expect(rounds.printed()).toBe(
      [
        "TIME start\n  printed 1 document, N s\n",
        "watching 0 packages, 0 files\n",
        "TIME a.go\n  printed 1 document, N s\n",
        "TIME .ko.yaml\n  printed 1 document, N s\n",
      ].join(""),
    );
  });

  test("a change ends a build; the next round is about both, and nothing is said of the first", async () => {
    await using rounds = new Rounds();
    await rounds.run();
    rounds.watcher.change("/w/a.go");
    const first = await rounds.builds.next();
    rounds.watcher.change("/w/b.go");
    expect(first.data.context.host.signal.aborted).toBe(true);
    const second = await rounds.run();
    expect({ due: second.due, isRetry: second.context.isRetry }).toEqual({ due: dueFor("a", "b"), isRetry: false });
    // The places are not asked for after a round that was ended.
    expect(rounds.asked).toHaveLength(2);
    expect(rounds.printed()).toEndWith("files\nTIME a.go, b.go\n  printed 1 document, N s\n");
  });

  test("a build that ends in spite of a change is not delivered", async () => {
    await using rounds = new Rounds();
    await rounds.run();
    rounds.watcher.change("/w/a.go");
    const first = await rounds.builds.next();
    first.end("old");
    rounds.watcher.change("/w/a.go");
    (await rounds.builds.next()).end("new");
    const delivery = await rounds.deliveries.next();
    expect(delivery.data.result).toBe("new");
    delivery.end();
  });

  test("places that a build watches end it when they change", async () => {
    await using rounds = new Rounds();
    const first = await rounds.builds.next();
    await first.data.context.watch({ yaml: { ...NOWHERE, files: ["/w/in.yaml"] } });
    expect(rounds.watcher.folders).toEqual(["/w"]);
    rounds.watcher.change("/w/in.yaml");
    expect((await rounds.run()).due).toEqual({ ...EVERYTHING, yaml: true });
  });

  test("a change does not end a delivery: the next round follows", async () => {
    await using rounds = new Rounds();
    await rounds.run();
    rounds.watcher.change("/w/a.go");
    (await rounds.builds.next()).end("one");
    const delivery = await rounds.deliveries.next();
    rounds.watcher.change("/w/b.go");
    await turn();
    expect(delivery.data.context.host.signal.aborted).toBe(false);
    delivery.end("applied 1 document");
    expect((await rounds.run()).due).toEqual(dueFor("b"));
    expect(rounds.asked).toEqual(["built", "one", "built"]);
  });

  test("a transient failure is repeated after 1, 2, 5, 10, 30, 30 s, and shown once", async () => {
    await using rounds = new Rounds();
    const pauses: number[] = [];
    await rounds.run({ fails: AWAY });
    for (let i = 0; i < 6; i++) {
      const pause = await rounds.pauses.next();
      pauses.push(pause.data.ms);
      pause.end();
      const { due, context } = await rounds.run({ fails: AWAY });
      expect({ due, isRetry: context.isRetry }).toEqual({ due: EVERYTHING, isRetry: true });
    }
    expect(pauses).toEqual([1000, 2000, 5000, 10_000, 30_000, 30_000]);
    (await rounds.pauses.next()).end();
    await rounds.run();
    expect(rounds.printed()).toBe(
      [
        "TIME start\nError: the registry is away\n  failed, N s; ko tries again\n",
        "watching 0 packages, 0 files\n",
        "TIME start, retry 7\n  printed 1 document, N s\n",
      ].join(""),
    );
    // After a success the pauses begin anew.
    rounds.watcher.change("/w/a.go");
    await rounds.run({ fails: AWAY });
    expect((await rounds.pauses.next()).data.ms).toBe(1000);
  });

  test("each round writes the page of its times anew, a failed one with its error, a superseded one does not", async () => {
    using tree = writeTree({});
    const page = tree.at("t.html");
    const read = (): string => (existsSync(page) ? readFileSync(page, "utf8") : "");
    await using rounds = new Rounds({}, page);
    await rounds.run();
    await waitUntil(() => read().includes("ko build -W"));
    expect(read()).not.toContain("<pre");
    rounds.watcher.change("/w/a.go");
    await rounds.run({ fails: BROKEN });
    const failure = '<pre class="failure">Error: a.go does not compile</pre>';
    await waitUntil(() => read().includes(failure));
    rounds.watcher.change("/w/a.go");
    await rounds.builds.next();
    rounds.watcher.change("/w/a.go");
    const build = await rounds.builds.next();
    expect(read()).toContain(failure);
    build.end();
    (await rounds.deliveries.next()).end();
    await waitUntil(() => !read().includes(failure));
    expect(rounds.printed()).toContain("Error: a.go does not compile");
  });

  test("a retry that fails in another way is shown", async () => {
    await using rounds = new Rounds();
    await rounds.run({ fails: AWAY });
    (await rounds.pauses.next()).end();
    await rounds.run({ fails: new KoError("the disk is full", { transient: true }) });
    expect(rounds.printed()).toEndWith("TIME start, retry 1\nError: the disk is full\n  failed, N s; ko tries again\n");
  });

  test("a change before a retry begins a round of its own", async () => {
    await using rounds = new Rounds();
    await rounds.run({ fails: AWAY });
    const pause = await rounds.pauses.next();
    rounds.watcher.change("/w/a.go");
    const { due, context } = await rounds.run({ fails: AWAY });
    expect({ due, isRetry: context.isRetry }).toEqual({ due: { ...dueFor("a"), everything: true }, isRetry: false });
    expect(pause.data.signal.aborted).toBe(true);
    expect((await rounds.pauses.next()).data.ms).toBe(1000);
  });

  test("a lasting failure waits for a change, and its work stays due", async () => {
    await using rounds = new Rounds();
    await rounds.run();
    rounds.watcher.change("/w/a.go");
    await rounds.run({ fails: BROKEN });
    expect(rounds.asked).toEqual(["built", undefined]);
    rounds.watcher.change("/w/b.go");
    expect((await rounds.run({ fails: BROKEN })).due).toEqual(dueFor("a", "b"));
    rounds.watcher.change("/w/b.go");
    expect((await rounds.run()).due).toEqual(dueFor("a", "b"));
    expect(rounds.printed()).toEndWith(
      [
        "TIME a.go\nError: a.go does not compile\n  failed, N s\n",
        "TIME b.go\nError: a.go does not compile\n  failed, N s\n",
        "TIME b.go\n  printed 1 document, N s\n",
      ].join(""),
    );
  });

  test("a failed delivery is repeated if that can help, and the places of its result are watched", async () => {
    await using rounds = new Rounds();
    (await rounds.builds.next()).end("one");
    (await rounds.deliveries.next()).fail(new KoError("kubectl failed", { transient: true }));
    (await rounds.pauses.next()).end();
    expect((await rounds.builds.next()).data.due).toEqual(EVERYTHING);
    expect(rounds.asked).toEqual(["one"]);
  });

  test("a round shows programs and notes as they come, and nothing if there was nothing to do", async () => {
    await using rounds = new Rounds();
    const reference = (digit: string): string => `r.example/a@sha256:${digit.repeat(64)}`;
    const first = await rounds.builds.next();
    first.data.context.showPrograms([{ importPath: "a", before: undefined, after: reference("1") }]);
    first.end();
    (await rounds.deliveries.next()).end();
    await turn();
    rounds.watcher.change("/w/a.go");
    await rounds.run({ summary: "" });
    // Unknown names in a folder: such a change is shown only if it has an effect.
    rounds.watcher.change("/w", "names");
    rounds.watcher.change("/w/b.go");
    const last = await rounds.builds.next();
    last.data.context.showNote("an object is gone");
    last.data.context.showPrograms([{ importPath: "a", before: reference("1"), after: reference("2") }]);
    last.end();
    (await rounds.deliveries.next()).end("nothing new");
    await turn();
    expect(rounds.printed()).toBe(
      [
        "TIME start\n  a  111111111111\n  nothing new, N s\n",
        "watching 0 packages, 0 files\n",
        "TIME b.go\n  an object is gone\n  a  111111111111 -> 222222222222\n  nothing new, N s\n",
      ].join(""),
    );
  });

  test("resources of a round are closed before the next one, however it ended", async () => {
    await using rounds = new Rounds();
    const closed: string[] = [];
    const open = ({ context }: { readonly context: RoundContext }, name: string): void =>
      context.resources.defer(() => void closed.push(`${name} after ${rounds.asked.length} plans`));
    const failing = await rounds.builds.next();
    open(failing.data, "failing");
    failing.fail(BROKEN);
    await turn();
    rounds.watcher.change("/w/a.go");
    const superseded = await rounds.builds.next();
    open(superseded.data, "superseded");
    rounds.watcher.change("/w/a.go");
    const done = await rounds.builds.next();
    open(done.data, "done");
    done.end();
    (await rounds.deliveries.next()).end();
    await turn();
    expect(closed).toEqual(["failing after 1 plans", "superseded after 1 plans", "done after 2 plans"]);
  });

  test.each<[string, (rounds: Rounds) => Promise<unknown>]>([
    ["a build", async (rounds) => rounds.builds.next()],
    ["the wait for a change", async (rounds) => rounds.run()],
    [
      "the wait for a retry",
      async (rounds) => {
        await rounds.run({ fails: AWAY });
        await rounds.pauses.next();
      },
    ],
  ])("an interruption ends it during %s", async (_, until) => {
    await using rounds = new Rounds();
    await until(rounds);
    const reason = new Error("interrupted");
    rounds.fake.interrupt(reason);
    expect(await rejectionOf(rounds.ended)).toBe(reason);
  });

  test("a failure that no change can repair ends it with its cause", async () => {
    await using rounds = new Rounds();
    const cause = new UsageError("there is no registry to push to");
    (await rounds.builds.next()).fail(new FatalError(cause));
    expect(await rejectionOf(rounds.ended)).toBe(cause);
  });

  test("a reader of stdout that is gone ends it", async () => {
    const cause = new KoError("Cannot write to standard output");
    await using rounds = new Rounds({ out: () => Promise.reject(cause) });
    const build = await rounds.builds.next();
    build.end();
    const delivery = await rounds.deliveries.next();
    delivery.data.context.host.out("x").catch(delivery.fail);
    expect(await rejectionOf(rounds.ended)).toBe(cause);
  });
});
