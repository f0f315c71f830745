import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, symlinkSync } from "node:fs";
import { openEventLog } from "../lib/events-file.ts";
import type { TransferEvent } from "../lib/events.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { makeFolder } from "./helpers/world-folders.ts";
import { fakeHost } from "./helpers/world-watch.ts";

const TIME = { version: 1, time: expect.stringMatching(/^2024-01-01T00:00:0\d\.\d{3}Z$/) };

function moving(bytes: number, more: Partial<TransferEvent> = {}): TransferEvent {
  return { type: "transfer", id: 1, direction: "upload", host: "h", image: "r/web", bytes, state: "moving", ...more };
}

function parse(text: string): readonly unknown[] {
  return text
    .trimEnd()
    .split("\n")
    .map((line): unknown => JSON.parse(line));
}

describe("openEventLog()", () => {
  test("writes each event at once, and replaces the file of an earlier run", async () => {
    await using folder = await makeFolder();
    const { host } = fakeHost({ cwd: folder.path });
    const path = `${folder.path}/events.jsonl`;
    await Bun.write(path, "old\n");
    using log = await openEventLog("events.jsonl", host);
    expect(readFileSync(path, "utf8")).toBe("");
    log.add({ type: "info", message: "one\ntwo" });
    expect(parse(readFileSync(path, "utf8"))).toEqual([{ ...TIME, type: "info", message: "one\ntwo" }]);
  });

  test("writes to stderr for -", async () => {
    const { host, stderr } = fakeHost();
    using log = await openEventLog("-", host);
    log.add({ type: "warning", message: "w" });
    expect(parse(stderr())).toEqual([{ ...TIME, type: "warning", message: "w" }]);
  });

  test("writes at most one event a second of a transfer that moves, and always its end", async () => {
    let now = 0;
    const { host, stderr } = fakeHost({ monotonic: () => now });
    using log = await openEventLog("-", host);
    for (let bytes = 0; bytes < 100; bytes++) {
      now += 25;
      log.add(moving(bytes));
      log.add(moving(bytes, { id: 2, image: "r/worker" }));
    }
    log.add(moving(100, { state: "done" }));
    const events = parse(stderr());
    expect(events.filter((event) => JSON.stringify(event).includes('"r/web"'))).toMatchObject([
      { bytes: 0 },
      { bytes: 40 },
      { bytes: 80 },
      { bytes: 100, state: "done" },
    ]);
    expect(events).toHaveLength(7);
  });

  test.each([
    ["a folder", ".", /Cannot write --events ".*": it is a folder/],
    ["a folder that does not exist", "no/events", /the folder .*no does not exist/],
  ])("refuses %s", async (_, target, message) => {
    await using folder = await makeFolder();
    const { host } = fakeHost({ cwd: folder.path });
    expect(String(await rejectionOf(openEventLog(target, host)))).toMatch(message);
  });

  test.skipIf(!existsSync("/dev/full"))("a full disk ends the log with a warning, not the run", async () => {
    await using folder = await makeFolder();
    symlinkSync("/dev/full", `${folder.path}/full`);
    const { host, stderr } = fakeHost({ cwd: folder.path });
    using log = await openEventLog("full", host);
    log.add({ type: "info", message: "one" });
    log.add({ type: "info", message: "two" });
    expect(stderr()).toMatch(/^Warning: Cannot write --events: .*ENOSPC.*\n$/);
  });
});
