import { describe, expect, test } from "bun:test";
import type { Event, StageEvent, TransferEvent } from "../lib/events.ts";
import { Progress } from "../lib/progress.ts";
import type { Stage } from "../lib/events.ts";

const WEB = "example.com/app/cmd/web";
const IMAGE = "registry.example.com/web";

function program(importPath = WEB, image = IMAGE): Event {
  return { type: "program", importPath, image, platforms: ["linux/amd64"], tags: [], base: "ko.builtin/static" };
}

function stage(
  state: StageEvent["state"],
  id: number,
  name: Stage,
  subject: Partial<StageEvent["subject"]> = {},
): Event {
  return { type: "stage", state, stage: name, id, subject: { text: "text", ...subject } };
}

function transfer(id: number, bytes: number, more: Partial<TransferEvent> = {}): Event {
  return { type: "transfer", id, direction: "upload", host: "h", image: IMAGE, bytes, state: "moving", ...more };
}

/** The progress after events, each 100 ms after the one before. */
function after(...events: readonly Event[]): Progress {
  const progress = new Progress();
  for (const [i, event] of events.entries()) progress.add(event, i * 100);
  return progress;
}

describe("Progress", () => {
  test("keeps the programs in the order of the plan, each once", () => {
    const { rows } = after(program(), program("example.com/b", "i/b"), program());
    expect(rows.map(({ importPath }) => importPath)).toEqual([WEB, "example.com/b"]);
  });

  test("a stage belongs to the programs that it names, by import path or image, else to the run", () => {
    const both = { importPaths: [WEB, "example.com/b", "example.com/unknown"] };
    const progress = after(
      program(),
      program("example.com/b", "i/b"),
      stage("begin", 1, "compile", both),
      stage("begin", 2, "upload", { image: IMAGE }),
      stage("begin", 3, "list"),
      stage("end", 1, "compile", both),
    );
    expect(progress.rows.map(({ stages }) => stages.map(({ stage: name, since }) => [name, since]))).toEqual([
      [["upload", 300]],
      [],
    ]);
    expect(progress.rows.map(({ compiled, since }) => [compiled, since])).toEqual([
      [1, 200],
      [1, 200],
    ]);
    expect(progress.stages.map(({ stage: name }) => name)).toEqual(["list"]);
  });

  test("adds up the transfers of an image; the total is known when all sizes are", () => {
    const begun = [program(), transfer(1, 10), transfer(2, 5, { total: 50 })];
    expect(after(...begun).rows[0]?.transfer).toMatchObject({ bytes: 15, total: undefined, host: "h" });
    const done = after(...begun, transfer(1, 30, { total: 30, state: "done" }));
    expect(done.rows[0]?.transfer).toMatchObject({ bytes: 35, total: 80 });
  });

  test("a retry counts from zero again", () => {
    const { rows } = after(program(), transfer(1, 40, { total: 50 }), transfer(1, 10, { total: 50 }));
    expect(rows[0]?.transfer).toEqual({ bytes: 10, total: 50, rate: undefined, host: "h" });
  });

  test("measures the rate over the last three seconds", () => {
    const progress = new Progress();
    progress.add(program(), 0);
    for (let second = 0; second <= 10; second++) progress.add(transfer(1, second ** 2 * 1000), second * 1000);
    expect(progress.rows[0]?.transfer.rate).toBe((100 - 49) * (1000 / 3));
  });

  test("a note lasts until the next stage begins", () => {
    const note: Event = { type: "info", message: "go: downloading example.com/x" };
    expect(after(note).note).toBe("go: downloading example.com/x");
    expect(after(note, stage("begin", 1, "list")).note).toBe("");
  });

  test("a result has the time since the program's first stage", () => {
    const descriptor = { mediaType: "m", digest: `sha256:${"0".repeat(64)}`, size: 1 } as const;
    const more = { descriptor, images: [], wasThere: false };
    const result: Event = { type: "result", importPath: WEB, reference: "r", ...more };
    const { rows } = after(program(), stage("begin", 1, "check", { importPaths: [WEB] }), result);
    expect(rows[0]?.result).toEqual({ reference: "r", digest: descriptor.digest, wasThere: false, took: 100 });
  });
});
