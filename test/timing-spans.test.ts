import { describe, expect, test } from "bun:test";
import {
  chooseLanes,
  createProgramFinder,
  findCriticalPath,
  type Span,
  type TimedProgram,
} from "../lib/timing-spans.ts";

const PROGRAMS: readonly TimedProgram[] = ["web", "worker"].map((name) => ({
  importPath: `example.com/${name}`,
  image: `registry.example/${name}`,
  result: undefined,
}));

function span(text: string, start: number, end: number | undefined): Span {
  const [stage = "", name] = text.split(" ");
  const importPaths = name === undefined ? undefined : [`example.com/${name}`];
  switch (stage) {
    case "list":
    case "compile":
    case "layer":
    case "check":
    case "write":
      return { stage, what: name ?? "", importPaths, start, end };
    case "upload":
    case "manifest":
      return { stage, what: name ?? "", image: `registry.example/${name}`, start, end };
    default:
      throw new Error(`no stage ${stage}`);
  }
}

describe("findCriticalPath()", () => {
  test.each<[string, number, readonly [string, number, number | undefined][], readonly string[]]>([
    ["one span", 10, [["list", 0, 10]], ["0-10 list"]],
    [
      "spans after each other, with pauses",
      10,
      [
        ["list", 1, 3],
        ["compile web", 4, 8],
      ],
      ["0-1 -", "1-3 list", "3-4 -", "4-8 compile web", "8-10 -"],
    ],
    [
      "the longer of two at once",
      100,
      [
        ["compile web", 0, 40],
        ["compile worker", 0, 90],
        ["manifest worker", 90, 100],
      ],
      ["0-90 compile worker", "90-100 manifest worker"],
    ],
    [
      "an upload while the layer is made, while the other program is compiled",
      130,
      [
        ["compile web", 0, 90],
        ["compile worker", 0, 50],
        ["layer worker", 50, 110],
        ["upload worker", 60, 120],
        ["manifest worker", 120, 130],
      ],
      ["0-50 compile worker", "50-60 layer worker", "60-120 upload worker", "120-130 manifest worker"],
    ],
    [
      "a manifest that waits for the compiler of the other program",
      110,
      [
        ["compile worker", 0, 20],
        ["upload worker", 20, 30],
        ["compile web", 0, 100],
        ["manifest worker", 100, 110],
      ],
      ["0-100 compile web", "100-110 manifest worker"],
    ],
    [
      "of two that began at once, the one that ended last",
      50,
      [
        ["check web", 0, 10],
        ["check worker", 0, 10],
        ["compile web", 10, 30],
        ["compile worker", 10.001, 50],
      ],
      ["0-10 check worker", "10-10.001 -", "10.001-50 compile worker"],
    ],
    ["one that has not ended", 20, [["compile web", 5, undefined]], ["0-5 -", "5-20 compile web"]],
    ["no span", 7, [], ["0-7 -"]],
  ])("%s", (_name, total, spans, expected) => {
    const record = { spans: spans.map((each) => span(...each)), programs: PROGRAMS, total };
    const pieces = findCriticalPath(record);
    const name = ({ stage, what }: Span): string => `${stage} ${what}`.trim();
    expect(
      pieces.map((piece) => `${piece.start}-${piece.end} ${piece.span === undefined ? "-" : name(piece.span)}`),
    ).toEqual([...expected]);
  });

  test("covers the whole run without gaps, whatever the spans are", () => {
    const stages = ["list", "compile web", "compile worker", "layer web", "upload worker"];
    let seed = 1;
    const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
    for (let run = 0; run < 200; run++) {
      const spans = Array.from({ length: random(12) }, () => {
        const start = random(100);
        return span(stages[random(stages.length)] ?? "list", start, random(5) === 0 ? undefined : start + random(60));
      });
      const total = 160;
      const pieces = findCriticalPath({ spans, programs: PROGRAMS, total });
      expect(pieces.map(({ start }) => start)).toEqual([0, ...pieces.slice(0, -1).map(({ end }) => end)]);
      expect(pieces.at(-1)?.end).toBe(total);
      for (const { end, span: each, start } of pieces) {
        expect(start).toBeLessThan(end);
        if (each !== undefined) expect(each.start <= start && end <= (each.end ?? total)).toBe(true);
      }
    }
  });
});

describe("createProgramFinder()", () => {
  test("finds programs by import path and by image, and none of others", () => {
    const find = createProgramFinder(PROGRAMS);
    expect(find(span("layer web", 0, 1))).toEqual(["example.com/web"]);
    expect(find(span("upload worker", 0, 1))).toEqual(["example.com/worker"]);
    expect(find(span("layer static", 0, 1))).toEqual([]);
    expect(find(span("upload other", 0, 1))).toEqual([]);
    expect(find(span("list", 0, 1))).toEqual([]);
  });
});

describe("chooseLanes()", () => {
  test("puts spans that meet into one lane, and spans that overlap into several", () => {
    const spans = [
      span("layer web", 0, 10),
      span("layer web", 5, 20),
      span("layer web", 10, 30),
      span("layer web", 20, undefined),
    ];
    expect([...chooseLanes(spans, 40).values()]).toEqual([0, 1, 0, 1]);
  });
});
