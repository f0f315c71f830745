import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { KoError, messageOf, UsageError } from "../lib/errors.ts";
import { createTiming, noTiming, type Recorder, type Timing, withTiming } from "../lib/timing.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

interface Event {
  readonly name: string;
  readonly cat?: string;
  readonly ph: string;
  readonly ts: number;
  readonly dur: number;
  readonly tid: number;
  readonly args: Readonly<Record<string, unknown>>;
}

/** A recorder whose clock stands at 40 ms, and moves when it is told. */
function recorderAt40(): { readonly recorder: Recorder; readonly at: (ms: number) => void } {
  let now = 40;
  return { recorder: createTiming(() => now), at: (ms) => void (now = ms) };
}

/** List alone, then two compilations and a base at once, one layer that never ends, and a pause in between. */
function recordRun(): Recorder {
  const { recorder, at } = recorderAt40();
  const endList = recorder.start("list", "./...");
  at(340);
  endList();
  const endAmd = recorder.start("compile", "linux/amd64");
  const endBase = recorder.start("base", "cgr.dev/chainguard/static");
  at(540);
  endBase();
  const endArm = recorder.start("compile", "linux/arm64");
  at(1040);
  endAmd();
  at(2040);
  endArm();
  at(2140);
  recorder.start("layer", "linux/arm64");
  at(2640);
  // An end that was told already is not moved.
  endList();
  return recorder;
}

function eventsOf(recorder: Recorder): readonly Event[] {
  const { traceEvents }: { readonly traceEvents: readonly Event[] } = JSON.parse(recorder.formatTrace());
  return traceEvents;
}

function lanesOf(recorder: Recorder): readonly unknown[] {
  return eventsOf(recorder)
    .filter(({ name }) => name === "thread_name")
    .map(({ args }) => args["name"]);
}

describe("Recorder.formatTable()", () => {
  test("has a row for each stage and a last line for the run", () => {
    expect(recordRun().formatTable()).toBe(
      [
        "stage                busy    alone      sum  count  slowest",
        "start             0.040 s  0.040 s  0.040 s      1",
        "list              0.300 s  0.300 s  0.300 s      1  ./...",
        "compile and link  1.700 s  1.500 s  2.200 s      2  1.500 s  linux/arm64",
        "base              0.200 s  0.000 s  0.200 s      1  cgr.dev/chainguard/static",
        "layer             0.500 s  0.500 s  0.500 s      1  linux/arm64",
        "total             2.640 s  0.100 s unaccounted, 0.200 s in several at once",
        "",
      ].join("\n"),
    );
  });

  test("tells of a run that did nothing", () => {
    const { recorder, at } = recorderAt40();
    at(50);
    expect(recorder.formatTable()).toBe(
      [
        "stage     busy    alone      sum  count  slowest",
        "start  0.040 s  0.040 s  0.040 s      1",
        "total  0.050 s  0.010 s unaccounted, 0.000 s in several at once",
        "",
      ].join("\n"),
    );
  });

  test("counts the alone times, what is shared and what is nobody's to the whole", () => {
    const { recorder, at } = recorderAt40();
    const ends: (() => void)[] = [];
    // A third of them ends at each step: a tangle of all stages.
    for (let i = 0; i < 60; i++) {
      at(50 + i * 7);
      ends.push(recorder.start((["upload", "layer", "manifest"] as const)[i % 3] ?? "load", `${i}`));
      if (i % 2 === 0) ends.splice((i * 5) % ends.length, 1)[0]?.();
      if (i === 40) for (const end of ends.splice(0)) end();
    }
    at(600);
    const numbers = recorder
      .formatTable()
      .matchAll(/^(?:\w+ +[\d.]+ s +|total +[\d.]+ s  )([\d.]+) s(?:.*, ([\d.]+))?/gm);
    const parts = Array.from(numbers, ([, first, second = "0"]) => Number(first) + Number(second));
    expect(parts).toHaveLength(5);
    expect(parts.reduce((a, b) => a + b)).toBeCloseTo(0.6, 5);
  });

  test("keeps to its lines whatever the names are", () => {
    const { recorder } = recorderAt40();
    recorder.start("upload", `a\nb\u001b[31m${"x".repeat(200)}`)();
    const [, , line = ""] = recorder.formatTable().split("\n");
    expect(line).toBe(`upload  0.000 s  0.000 s  0.000 s      1  ${`a b\\x1b[31m${"x".repeat(60)}`.slice(0, 60)}…`);
  });
});

describe("Recorder.stageTimes()", () => {
  test("tells how long each stage was busy, two at once counted once", () => {
    expect(recordRun().stageTimes()).toEqual([
      ["list", 300],
      ["compile", 1700],
      ["base", 200],
      ["layer", 500],
    ]);
    expect(createTiming(() => 7).stageTimes()).toEqual([]);
  });
});

describe("Recorder.formatTrace()", () => {
  test("is Chrome's trace format, in microseconds", () => {
    const { recorder, at } = recorderAt40();
    const end = recorder.start("upload", "sha256:1");
    at(41.5);
    end();
    const lane = (tid: number, name: string): readonly object[] => [
      { name: "thread_name", ph: "M", pid: 1, tid, args: { name } },
      { name: "thread_sort_index", ph: "M", pid: 1, tid, args: { sort_index: tid } },
    ];
    expect(JSON.parse(recorder.formatTrace())).toEqual({
      displayTimeUnit: "ms",
      traceEvents: [
        { name: "process_name", ph: "M", pid: 1, tid: 0, args: { name: "ko" } },
        ...lane(1, "start"),
        ...lane(2, "upload"),
        { name: "start", cat: "start", ph: "X", ts: 0, dur: 40_000, pid: 1, tid: 1, args: {} },
        { name: "sha256:1", cat: "upload", ph: "X", ts: 40_000, dur: 1500, pid: 1, tid: 2, args: {} },
      ],
    });
  });

  test("gives spans that overlap lanes of their own, and uses a lane again when it is free", () => {
    const { recorder, at } = recorderAt40();
    const endA = recorder.start("upload", "a");
    at(50);
    const endB = recorder.start("upload", "b");
    at(60);
    endA();
    recorder.start("upload", "c")();
    const endD = recorder.start("upload", "d");
    at(70);
    endB();
    endD();
    recorder.start("manifest", "e")();
    expect(lanesOf(recorder)).toEqual(["start", "upload", "upload 2", "manifest"]);
    const placed = eventsOf(recorder).flatMap(({ name, ph, tid }) => (ph === "X" ? [[name, tid]] : []));
    expect(placed).toEqual([
      ["start", 1],
      ["a", 2],
      ["b", 3],
      ["c", 2],
      ["d", 2],
      ["e", 4],
    ]);
  });

  test("ends at the end what is under way then", () => {
    const { recorder, at } = recorderAt40();
    recorder.start("kubectl", "apply");
    at(45);
    expect(eventsOf(recorder).at(-1)).toMatchObject({ ts: 40_000, dur: 5000, args: { unfinished: true } });
    at(46);
    expect(eventsOf(recorder).at(-1)).toMatchObject({ ts: 40_000, dur: 6000 });
  });

  test("makes control characters visible", () => {
    const { recorder } = recorderAt40();
    recorder.start("compile", "a\u001b\nb");
    expect(eventsOf(recorder).at(-1)?.name).toBe("a\\x1b b");
  });
});

describe("Timing.time()", () => {
  test("gives what the work gives, and notes how long it took", async () => {
    const { recorder, at } = recorderAt40();
    const answer = recorder.time("list", ".", async () => {
      await Promise.resolve();
      at(50);
      return 7;
    });
    expect(await answer).toBe(7);
    at(60);
    expect(eventsOf(recorder).at(-1)).toMatchObject({ name: ".", cat: "list", ts: 40_000, dur: 10_000, args: {} });
  });

  test("notes work that fails too", async () => {
    const { recorder, at } = recorderAt40();
    const work = recorder.time("list", ".", async () => {
      at(50);
      throw new KoError("no");
    });
    expect(messageOf(await rejectionOf(work))).toBe("no");
    at(60);
    expect(eventsOf(recorder).at(-1)).toMatchObject({ dur: 10_000 });
  });
});

describe("noTiming", () => {
  test("does the work, and nothing else", async () => {
    noTiming.start("list", ".")();
    expect(await noTiming.time("list", ".", async () => 7)).toBe(7);
  });
});

describe("withTiming()", () => {
  const work = async (timing: Timing): Promise<number> => timing.time("list", "./...", async () => 7);

  test("does only the work if nobody asks", async () => {
    const told: string[] = [];
    const host = hostAt("/", { err: (text) => void told.push(text) });
    const given: Timing[] = [];
    await withTiming(async (timing) => void given.push(timing), { to: undefined, command: "", host });
    expect([given, told]).toEqual([[noTiming], []]);
  });

  test("shows the table on stderr, the runtime's start-up in it", async () => {
    const told: string[] = [];
    const host = hostAt("/", { err: (text) => void told.push(text) });
    expect(await withTiming(work, { to: "table", command: "", host })).toBe(7);
    const [head = "", start = "", list = "", whole = ""] = told.join("").split("\n");
    expect([head, start, list, whole]).toEqual([
      expect.stringMatching(/^stage +busy/),
      expect.stringMatching(/^start +\d+\.\d{3} s/),
      expect.stringMatching(/^list .* {2}\.\/\.\.\.$/),
      expect.stringMatching(/^total /),
    ]);
  });

  test("writes the trace to a file in the working directory", async () => {
    using tree = writeTree({});
    const told: string[] = [];
    const host = hostAt(tree.path, { err: (text) => void told.push(text) });
    expect(await withTiming(work, { to: { file: "t.json", format: "trace" }, command: "", host })).toBe(7);
    const { traceEvents }: { readonly traceEvents: readonly Event[] } = await Bun.file(tree.at("t.json")).json();
    expect(traceEvents.filter(({ ph }) => ph === "X").map(({ name }) => name)).toEqual(["start", "./..."]);
    expect([readdirSync(tree.path), told]).toEqual([["t.json"], []]);
  });

  test.each([
    ["a run", undefined],
    ["a run that fails", new KoError('Cannot build "<x>"', { hint: "Mend it." })],
  ])("writes a page of %s to a file named .html", async (_name, error) => {
    using tree = writeTree({});
    const host = hostAt(tree.path, { err: () => {} });
    const publish = async (timing: Timing): Promise<void> => {
      const about = { importPath: "example.com/cmd/web", image: "registry.example/web" };
      timing.report({ type: "program", ...about, tags: [], platforms: ["linux/amd64"], base: "scratch" });
      await timing.time("manifest", { text: "a tag", image: about.image }, async () => {});
      if (error !== undefined) throw error;
    };
    const to = { file: "t.html", format: "page" } as const;
    const done = withTiming(publish, { to, command: "ko build --timing=t.html", host });
    expect(await done.catch((failure: unknown) => failure)).toBe(error);
    const page = await Bun.file(tree.at("t.html")).text();
    expect(page).toContain("<title>ko build --timing=t.html: ");
    expect(page).toContain('<div class="name" title="example.com/cmd/web"><span>web</span>');
    expect(page).toMatch(/<a class="bar manifest[^>]*aria-label="manifest: [^"]*, a tag"/);
    const failure = '<pre class="failure">Error: Cannot build &quot;&lt;x&gt;&quot;\n  Mend it.</pre>';
    expect(page.includes(failure)).toBe(error !== undefined);
    expect(page.includes('class="failure"')).toBe(error !== undefined);
    expect(readdirSync(tree.path)).toEqual(["t.html"]);
  });

  test("writes a page after Ctrl-C, with the signal as the reason", async () => {
    using tree = writeTree({});
    const reason = new KoError("interrupted by SIGINT");
    const host = hostAt(tree.path, { err: () => {}, signal: AbortSignal.abort(reason) });
    const to = { file: "t.html", format: "page" } as const;
    const killed = withTiming(() => Promise.reject(new KoError("go was killed")), { to, command: "ko build", host });
    expect(messageOf(await rejectionOf(killed))).toBe("go was killed");
    expect(await Bun.file(tree.at("t.html")).text()).toContain(
      '<pre class="failure">Error: interrupted by SIGINT</pre>',
    );
  });

  test("refuses a file that cannot be written before any work", async () => {
    using tree = writeTree({});
    let worked = false;
    const refused = withTiming(async () => void (worked = true), {
      to: { file: "nowhere/t.json", format: "trace" },
      command: "",
      host: hostAt(tree.path),
    });
    expect(await rejectionOf(refused)).toEqual(
      new UsageError(
        `Cannot write --timing "${tree.at("nowhere/t.json")}": the folder ${tree.at("nowhere")} does not exist`,
      ),
    );
    expect(worked).toBe(false);
  });

  test("fails if the file cannot be written after all", async () => {
    using tree = writeTree({});
    const spoiled = withTiming(async () => tree.write({ "t.json/x": "" }), {
      to: { file: "t.json", format: "trace" },
      command: "",
      host: hostAt(tree.path),
    });
    expect(messageOf(await rejectionOf(spoiled))).toBe(`Cannot write --timing "${tree.at("t.json")}"`);
  });

  test("tells of work that fails too, and keeps its failure", async () => {
    using tree = writeTree({});
    const fail = async (): Promise<void> => {
      throw new KoError("no");
    };
    const told: string[] = [];
    const host = hostAt(tree.path, { err: (text) => void told.push(text) });
    expect(messageOf(await rejectionOf(withTiming(fail, { to: "table", command: "", host })))).toBe("no");
    expect(told.join("")).toContain("unaccounted");
    const spoil = async (): Promise<void> => {
      tree.write({ "t.json/x": "" });
      await fail();
    };
    expect(
      messageOf(await rejectionOf(withTiming(spoil, { to: { file: "t.json", format: "trace" }, command: "", host }))),
    ).toBe("no");
  });
});
