import { describe, expect, test } from "bun:test";
import type { Event } from "../lib/events.ts";
import { formatDuration, renderBlock, shortNames } from "../lib/progress-block.ts";
import type { Digest } from "../lib/oci.ts";
import { Progress } from "../lib/progress.ts";

describe("shortNames()", () => {
  const TABLE: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ["the last element", ["example.com/app/cmd/web", "example.com/app/cmd/worker"], ["web", "worker"]],
    ["as many as tell them apart", ["example.com/a/web", "example.com/b/web"], ["a/web", "b/web"]],
    ["one that is the end of another", ["example.com/a", "x/example.com/a"], ["example.com/a", "x/example.com/a"]],
    ["no slash", ["hello"], ["hello"]],
    ["none", [], []],
  ];
  test.each(TABLE)("%s", (_, paths, names) => {
    expect([...shortNames(paths).values()]).toEqual([...names]);
  });
});

describe("formatDuration()", () => {
  test.each([
    [0, "0.0 s"],
    [940, "0.9 s"],
    [9949, "9.9 s"],
    [9950, "10 s"],
    [59_400, "59 s"],
    [59_600, "1 min 0 s"],
    [200_000, "3 min 20 s"],
  ])("%d ms are %s", (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

const NAMES = [
  "activator",
  "autoscaler",
  "autoscaler-hpa",
  "controller",
  "queue",
  "webhook",
  "cleanup",
  "migrate",
  "upload",
];

/** Nine programs, each in another state, after 12.3 seconds. */
function nine(): Progress {
  const progress = new Progress();
  const add = (event: Event, now = 0): void => progress.add(event, now);
  for (const name of NAMES) {
    const platforms = name === "queue" ? ["linux/amd64", "linux/arm64", "linux/s390x"] : ["linux/amd64"];
    add({ type: "program", importPath: `example.com/cmd/${name}`, image: `r/${name}`, platforms, tags: [], base: "b" });
  }
  const subject = (name: string): { text: string; importPaths: string[] } => ({
    text: name,
    importPaths: [`example.com/cmd/${name}`],
  });
  const begin = (id: number, stage: "compile" | "upload" | "layer" | "check", name: string, now: number): void =>
    add({ type: "stage", state: "begin", stage, id, subject: subject(name) }, now);
  const end = (id: number, stage: "compile" | "upload", name: string, now: number): void =>
    add({ type: "stage", state: "end", stage, id, subject: subject(name) }, now);
  begin(1, "compile", "activator", 300);
  begin(2, "compile", "queue", 300);
  end(2, "compile", "queue", 8000);
  begin(3, "compile", "queue", 8000);
  begin(4, "compile", "controller", 300);
  end(4, "compile", "controller", 9000);
  begin(5, "upload", "controller", 9100);
  const sent = { type: "transfer", id: 1, direction: "upload", host: "127.0.0.1:5000", image: "r/controller" } as const;
  add({ ...sent, bytes: 1_000_000, total: 7_400_000, state: "moving" }, 10_300);
  add({ ...sent, bytes: 3_100_000, total: 7_400_000, state: "moving" }, 11_300);
  begin(6, "layer", "webhook", 5000);
  const digest: Digest = `sha256:${"332a585b7d0e".padEnd(64, "0")}`;
  const descriptor = { mediaType: "m", digest, size: 1 };
  for (const name of ["autoscaler", "cleanup"]) {
    begin(7, "check", name, 200);
    add(
      {
        type: "result",
        importPath: `example.com/cmd/${name}`,
        reference: "r",
        descriptor,
        images: [],
        wasThere: name === "cleanup",
      },
      280,
    );
  }
  add({ type: "stage", state: "begin", stage: "list", id: 9, subject: { text: "linux/amd64" } }, 11_000);
  return progress;
}

describe("renderBlock()", () => {
  test("80 columns, 24 rows", () => {
    expect(renderBlock(nine(), { columns: 80, rows: 24, now: 12_300, startedAt: 0 })).toEqual([
      "activator       compiling, 12 s",
      "autoscaler      332a585b7d0e  published, 0.1 s",
      "autoscaler-hpa  waiting",
      "controller      uploading 3.1 MB of 7.4 MB, 2.1 MB/s, 2.0 s left, 12 s",
      "queue           compiling 2 of 3, 12 s",
      "webhook         packing, 7.3 s",
      "cleanup         332a585b7d0e  unchanged, 0.1 s",
      "migrate         waiting",
      "upload          waiting",
      "12 s, 2 of 9 done, listing packages linux/amd64",
    ]);
  });

  test("40 columns, 6 rows: programs at work first, and no line is wider than the terminal", () => {
    const lines = renderBlock(nine(), { columns: 40, rows: 6, now: 12_300, startedAt: 0 });
    expect(lines).toEqual([
      "activator   compiling, 12 s",
      "controller  uploading 3.1 MB of 7.4 MB…",
      "queue       compiling 2 of 3, 12 s",
      "webhook     packing, 7.3 s",
      "12 s, 2 of 9 done, 5 not shown, listin…",
    ]);
  });

  test.each([
    [1, 1],
    [2, 1],
    [80, 1],
    [10, 3],
  ])("%d columns, %d rows fit", (columns, rows) => {
    const lines = renderBlock(nine(), { columns, rows, now: 1, startedAt: 0 });
    expect(lines.length).toBeLessThanOrEqual(Math.max(1, rows - 1));
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(Math.max(10, columns - 1));
  });

  test("before the programs are known it says what the run does", () => {
    const progress = new Progress();
    progress.add({ type: "stage", state: "begin", stage: "list", id: 1, subject: { text: "./..." } }, 0);
    expect(renderBlock(progress, { columns: 80, rows: 24, now: 2100, startedAt: 0 })).toEqual([
      "2.1 s, listing packages ./...",
    ]);
    progress.add({ type: "info", message: "go: downloading example.com/x v1.2.3" }, 0);
    expect(renderBlock(progress, { columns: 80, rows: 24, now: 2100, startedAt: 0 })).toEqual([
      "2.1 s, go: downloading example.com/x v1.2.3",
    ]);
  });
});
