import { describe, expect, test } from "bun:test";
import { createLog } from "../lib/log.ts";
import { RolloutScreen } from "../lib/rollout-screen.ts";
import { openScreen } from "./helpers/world-host.ts";

interface World {
  readonly live: RolloutScreen;
  /** Lets time pass, draws, and returns what the terminal shows. */
  readonly pass: (milliseconds: number) => Promise<readonly string[]>;
}

async function open(columns = 80, rows = 24): Promise<World> {
  const screen = await openScreen(columns, rows);
  let [now, draw, writes] = [0, (): void => {}, Promise.resolve()];
  const err = (text: string): void => void (writes = writes.then(() => screen.write(text)));
  const host = { err, monotonic: () => now, stderrColumns: columns, stderrRows: rows };
  const every = (_: number, redraw: () => void): (() => void) => {
    draw = redraw;
    return () => void (draw = () => {});
  };
  const live = new RolloutScreen({ host, log: createLog("normal", err), every });
  return {
    live,
    pass: async (milliseconds) => {
      now += milliseconds;
      draw();
      await writes;
      return screen.lines();
    },
  };
}

describe("RolloutScreen", () => {
  test("has one line for each object, with the time, and lines that stay above them", async () => {
    const { live, pass } = await open();
    live.show("deployment/web", "has 0 of 1 replicas ready");
    live.show("deployment/worker", "has 0 of 2 replicas ready");
    expect(await pass(1500)).toEqual([
      "deployment/web has 0 of 1 replicas ready, 1.5 s",
      "deployment/worker has 0 of 2 replicas ready, 1.5 s",
    ]);
    live.show("deployment/web", "has 0 of 1 replicas ready: container web is not ready");
    live.remove("deployment/worker");
    live.log.info("deployment/worker is ready after 2.0s");
    expect(await pass(500)).toEqual([
      "deployment/worker is ready after 2.0s",
      "deployment/web has 0 of 1 replicas ready: container web is not ready, 2.0 s",
    ]);
    live[Symbol.dispose]();
    expect(await pass(100)).toEqual(["deployment/worker is ready after 2.0s"]);
  });

  test("cuts long lines, counts those that have no place, and shows no control characters", async () => {
    const { live, pass } = await open(30, 5);
    for (let i = 1; i <= 6; i++) live.show(`pod/p${i}`, "waits\u001b[2J for\nsomething that takes very long");
    const shown = await pass(100);
    expect(shown).toEqual(["pod/p1 waits\\x1b[2J f…, 0.1 s", "pod/p2 waits\\x1b[2J f…, 0.1 s", "and 4 more, 0.1 s"]);
    for (const line of shown) expect(line.length).toBeLessThan(30 + 1);
  });
});
