import { describe, expect, test } from "bun:test";
import type { Event } from "../lib/events.ts";
import { TerminalProgress } from "../lib/progress-terminal.ts";
import { openScreen, type Screen } from "./helpers/world-host.ts";

interface World {
  readonly progress: TerminalProgress;
  readonly screen: Screen;
  /** Lets time pass, and draws. Milliseconds. */
  readonly pass: (milliseconds: number) => Promise<void>;
  readonly resize: (columns: number, rows: number) => void;
  /** Waits until the terminal shows everything that was written. */
  readonly shown: () => Promise<readonly string[]>;
}

async function open(columns = 80, rows = 24): Promise<World> {
  const screen = await openScreen(columns, rows);
  let [now, draw, writes] = [0, (): void => {}, Promise.resolve()];
  const host = {
    env: { NO_COLOR: "1" },
    stderrIsTerminal: true,
    stderrColumns: columns,
    stderrRows: rows,
    monotonic: () => now,
    err: (text: string) => void (writes = writes.then(() => screen.write(text))),
  };
  const every = (_: number, redraw: () => void): (() => void) => {
    draw = redraw;
    return () => void (draw = () => {});
  };
  const progress = new TerminalProgress({ host, every });
  return {
    progress,
    screen,
    pass: async (milliseconds) => {
      now += milliseconds;
      draw();
      await writes;
    },
    resize: (width, height) => {
      [host.stderrColumns, host.stderrRows] = [width, height];
      screen.resize(width, height);
    },
    shown: async () => {
      await writes;
      return screen.history();
    },
  };
}

function program(name: string): Event {
  return {
    type: "program",
    importPath: `example.com/${name}`,
    image: `r/${name}`,
    platforms: ["linux/amd64"],
    tags: [],
    base: "b",
  };
}

function compiling(id: number, ...names: readonly string[]): Event {
  const importPaths = names.map((name) => `example.com/${name}`);
  return { type: "stage", state: "begin", stage: "compile", id, subject: { text: "", importPaths } };
}

function result(name: string): Event {
  const descriptor = { mediaType: "m", digest: `sha256:${"c6".repeat(32)}`, size: 1 } as const;
  return { type: "result", importPath: `example.com/${name}`, reference: "r", descriptor, images: [], wasThere: true };
}

const DONE = "c6c6c6c6c6c6  unchanged";

describe("TerminalProgress", () => {
  test("a run of less than 150 ms shows no block", async () => {
    const { pass, progress, shown } = await open();
    progress.add(program("web"));
    await pass(140);
    expect(await shown()).toEqual([]);
    progress.add(result("web"));
    progress.end();
    expect(await shown()).toEqual([`web  ${DONE}, 0.0 s`]);
  });

  test("lines go above the block, and the block is removed at the end", async () => {
    const { pass, progress, shown } = await open();
    progress.write("Warning: one\n");
    for (const name of ["web", "worker"]) progress.add(program(name));
    progress.add(compiling(1, "web"));
    await pass(1000);
    expect(await shown()).toEqual([
      "Warning: one",
      "web     compiling, 1.0 s",
      "worker  waiting",
      "1.0 s, 0 of 2 done",
    ]);
    progress.write("Warning: two\n");
    expect(await shown()).toEqual([
      "Warning: one",
      "Warning: two",
      "web     compiling, 1.0 s",
      "worker  waiting",
      "1.0 s, 0 of 2 done",
    ]);
    progress.end();
    expect(await shown()).toEqual(["Warning: one", "Warning: two"]);
  });

  test("finish() waits for all programs; then a line for each of them and a summary stay", async () => {
    const { pass, progress, shown } = await open();
    for (const name of ["web", "worker"]) progress.add(program(name));
    progress.add(result("worker"));
    progress.finish();
    await pass(1000);
    expect(await shown()).toEqual(["web     waiting", `worker  ${DONE}, 0.0 s`, "1.0 s, 1 of 2 done"]);
    progress.add(result("web"));
    progress.finish();
    await pass(1000);
    progress.end();
    const after = [`web     ${DONE}, 0.0 s`, `worker  ${DONE}, 0.0 s`, "2 programs, 2 unchanged, 1.0 s"];
    expect(await shown()).toEqual(after);
    expect(progress.isOver).toBe(true);
  });

  test("after a failure the published programs stay", async () => {
    const { pass, progress, shown } = await open();
    for (const name of ["web", "worker"]) progress.add(program(name));
    progress.add(result("worker"));
    await pass(1000);
    progress.end();
    expect(await shown()).toEqual([`worker  ${DONE}, 0.0 s`]);
  });

  test("a block as high as the terminal does not scroll it", async () => {
    const { pass, progress, screen, shown } = await open(40, 5);
    for (let i = 0; i < 9; i++) progress.add(program(`program${i}`));
    progress.add(compiling(1, "program7"));
    for (let i = 0; i < 20; i++) await pass(100);
    expect(await shown()).toEqual([
      "program0  waiting",
      "program1  waiting",
      "program7  compiling, 2.0 s",
      "2.0 s, 0 of 9 done, 6 not shown",
    ]);
    expect(screen.lines()).toEqual(screen.history());
  });

  test.each([
    ["narrower", 30, 10],
    ["wider", 120, 40],
  ])("a terminal that becomes %s keeps one block", async (_, columns, rows) => {
    const { pass, progress, resize, shown } = await open(60, 20);
    progress.write("a line that stays\n");
    progress.add(program("a-program-with-a-long-name"));
    progress.add(compiling(1, "a-program-with-a-long-name"));
    await pass(1000);
    resize(columns, rows);
    await pass(1000);
    const lines = await shown();
    expect(lines.filter((line) => line.includes("0 of 1 done"))).toEqual(["2.0 s, 0 of 1 done"]);
    expect(lines.filter((line) => line.includes("stays"))).toEqual(["a line that stays"]);
  });

  test("draws nothing while another program writes", async () => {
    const { pass, progress, shown } = await open();
    progress.add(program("web"));
    await pass(1000);
    const resume = progress.pause();
    await pass(1000);
    expect(await shown()).toEqual([]);
    resume();
    await pass(1000);
    expect(await shown()).toEqual(["web  waiting", "3.0 s, 0 of 1 done"]);
  });
});
