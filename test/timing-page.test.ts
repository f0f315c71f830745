import { describe, expect, test } from "bun:test";
import { printable } from "../lib/errors.ts";
import { formatPage, type PageFacts } from "../lib/timing-page.ts";
import type { Span, TimedProgram, TimingRecord } from "../lib/timing-spans.ts";

const FACTS: PageFacts = {
  command: "ko build --jobs=2 ./cmd/...",
  version: "0.1.0",
  machine: "linux/x64, 2 CPUs",
  cwd: "/home/me/app",
  endedAt: new Date("2026-03-04T05:06:07.890Z"),
  error: undefined,
};

const WEB = "example.com/app/cmd/web";
const WORKER = "example.com/app/cmd/worker";

/** Two programs, of which one is rebuilt and the other is not. */
const RUN: TimingRecord = {
  programs: [program(WEB, { file: "/home/me/app/pkg/handler.go", reason: "changed" }), program(WORKER)],
  spans: [
    { stage: "start", what: "", start: 0, end: 40 },
    { stage: "list", what: "./cmd/...", start: 40, end: 340 },
    { stage: "check", what: `${WORKER} linux/amd64`, importPaths: [WORKER], start: 340, end: 342 },
    { stage: "compile", what: WEB, importPaths: [WEB], start: 342, end: 2000 },
    { stage: "layer", what: `${WEB} linux/amd64`, importPaths: [WEB], start: 1900, end: 2200 },
    { stage: "upload", what: "a layer", image: image(WEB), start: 1910, end: undefined },
  ],
  total: 2400,
};

function image(importPath: string): string {
  return `registry.example/${importPath}`;
}

function program(importPath: string, why?: { readonly file?: string; readonly reason: string }): TimedProgram {
  const content = { mediaType: "m", digest: "sha256:1", size: 1 };
  const built = { platform: "linux/amd64", manifest: content, config: "sha256:2", layers: [] };
  const images = [why === undefined ? built : { ...built, why }];
  return { importPath, image: image(importPath), result: { images, wasThere: why === undefined } };
}

/** The text of a page without markup, a line for each row of the timeline and each row of a table. */
function textOf(page: string): readonly string[] {
  const [, body = ""] = /<body>([^]*)<\/body>/.exec(page) ?? [];
  return body
    .replaceAll(/<\/div>\n<div class="track"[^>]*>|<\/t[dh]>|<small[^>]*>/g, " | ")
    .replaceAll(/<a [^>]*aria-label="([^"]*)"[^>]*>.*?<\/a>/g, "[$1]")
    .replaceAll(/<[^>]*>/g, "")
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

describe("formatPage()", () => {
  test("has the facts, a row for each stage of the run and each program, and all spans as a table", () => {
    const lines = textOf(formatPage(RUN, FACTS));
    expect(lines.slice(0, 3)).toEqual([
      "ko build --jobs=2 ./cmd/...",
      "2.40 s · 2 programs · ko 0.1.0 · linux/x64, 2 CPUs · 2026-03-04 05:06:07 UTC",
      "The run waited for compile and link 1.56 s (65 %), upload 0.49 s (20 %), list 0.30 s (13 %), start 40 ms (2 %).",
    ]);
    const rows = lines.slice(lines.indexOf("Run"), lines.indexOf("Stages"));
    expect(rows).toEqual([
      "Run",
      `the run waited for | [start: 40 ms from 0.0 ms][list: 0.30 s from 40 ms, ./cmd/...][check: 2.0 ms from 0.34 s, ${WORKER} linux/amd64]` +
        `[compile and link: 1.56 s from 0.34 s, ${WEB}][layer: 10 ms from 1.90 s, ${WEB} linux/amd64][upload: 0.49 s from 1.91 s, a layer]`,
      "start | [start: 40 ms from 0.0 ms]",
      "list | [list: 0.30 s from 40 ms, ./cmd/...]",
      "Programs",
      `web | rebuilt, pkg/handler.go changed | [compile and link: 1.66 s from 0.34 s, ${WEB}]` +
        `[layer: 0.30 s from 1.90 s, ${WEB} linux/amd64][upload: 0.49 s from 1.91 s, a layer]`,
      `worker | unchanged | [check: 2.0 ms from 0.34 s, ${WORKER} linux/amd64]`,
    ]);
    expect(lines.slice(lines.indexOf("All spans") + 2)).toEqual([
      "0.000 s | 0.040 s | start | run |  |",
      "0.040 s | 0.300 s | list | run | ./cmd/... |",
      `0.340 s | 0.002 s | check | ${WORKER} | ${WORKER} linux/amd64 |`,
      `0.342 s | 1.658 s | compile and link | ${WEB} | ${WEB} |`,
      `1.900 s | 0.300 s | layer | ${WEB} | ${WEB} linux/amd64 |`,
      `1.910 s | 0.490 s, had not ended | upload | ${WEB} | a layer |`,
    ]);
  });

  test("is the same for the same run, and needs nothing but itself", () => {
    const page = formatPage(RUN, FACTS);
    expect(formatPage(RUN, FACTS)).toBe(page);
    expect(page.match(/https?:|\/\/\w|@import|url\(|<(?:script|link|img|iframe|object|base)\b|\bsrc=|\bon\w+=/gi)).toBe(
      null,
    );
    expect(page).toContain(
      `content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"`,
    );
    expect(new Set(Array.from(page.matchAll(/ href="([^"]*)"/g), ([, href = ""]) => href.replace(/\d+/, "N")))).toEqual(
      new Set(["#sN"]),
    );
  });

  test.each([
    ["a tag", "</script><script>alert(1)</script>"],
    ["the end of an attribute", `" onmouseover="alert(1)" x="`],
    ["the end of an attribute, single quotes", "' onfocus='alert(1)' autofocus='"],
    ["an entity", "&lt;b&gt; &amp; &#x3c;img src=x onerror=alert(1)&#x3e;"],
    ["a comment and the end of the style", "<!-- </style> --> ]]>"],
    ["control characters", "a\u0000b\u001b[31m\u202e"],
  ])("shows %s in every place as text", (_name, hostile) => {
    const pageWith = (text: string): string => {
      const importPath = `example.com/${text}/cmd`;
      const span = { stage: "layer", what: text, start: 1, end: 90 } as const;
      const record: TimingRecord = {
        programs: [program(importPath, { file: text, reason: text })],
        spans: [{ ...span, importPaths: [importPath] }, span],
        total: 100,
      };
      // The words of the command are separate elements.
      const command = `ko build ${text.replaceAll(" ", "_")}`;
      return formatPage(record, { ...FACTS, command, version: text, machine: text, error: text });
    };
    const page = pageWith(hostile);
    // The tags and their attributes are those of a page with a harmless text.
    const tags = (text: string): readonly string[] =>
      Array.from(text.matchAll(/<\/?[a-z!][^>]*>/gi), ([tag]) => tag.replaceAll(/"[^"<>]*"/g, '""'));
    expect(tags(page)).toEqual([...tags(pageWith("x"))]);
    expect(page).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/);
    const [, failure = ""] = /<pre class="failure">([^]*?)<\/pre>/.exec(page) ?? [];
    const names = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&" };
    const decoded = failure.replace(/&(?:lt|gt|quot|#39|amp);/g, (entity) => {
      return Object.entries(names).find(([name]) => name === entity)?.[1] ?? "";
    });
    expect(decoded).toBe(printable(hostile));
  });

  test("keeps every bar inside of the run", () => {
    let seed = 7;
    const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
    const spans = Array.from({ length: 300 }, (_, i): Span => {
      const start = random(100_000) / 7;
      const end = i % 11 === 0 ? undefined : start + random(10_000) / 3;
      return { stage: "layer", what: `${i}`, importPaths: [i % 2 === 0 ? WEB : WORKER], start, end };
    });
    const total = Math.max(...spans.map(({ end = 0, start }) => Math.max(start, end)));
    const page = formatPage({ ...RUN, spans, total }, FACTS);
    const bars = [...page.matchAll(/style="left:min\(([\d.]+)%,100% - 2px\);width:([\d.]+)%/g)];
    expect(bars.length).toBeGreaterThan(spans.length);
    expect(bars.filter(([, left, width]) => Number(left) + Number(width) > 100.002)).toEqual([]);
  });

  test("shortens a commit, and no release", () => {
    const commit = "0123456789abcdef0123456789abcdef01234567-dirty";
    expect(formatPage(RUN, { ...FACTS, version: commit })).toContain(" · ko 0123456789ab-dirty · ");
    expect(formatPage(RUN, { ...FACTS, version: "unknown" })).toContain(" · ko unknown · ");
  });

  test("shows the failure, and programs that were not published", () => {
    const record = { ...RUN, programs: RUN.programs.map((each) => ({ ...each, result: undefined })) };
    const error = "Error: Cannot build <x>\n  ./main.go:3:15: undefined: x";
    const page = formatPage(record, { ...FACTS, error });
    expect(page).toContain(`<pre class="failure">Error: Cannot build &lt;x&gt;\n  ./main.go:3:15: undefined: x</pre>`);
    expect(textOf(page).filter((line) => line.includes("not published"))).toHaveLength(2);
  });

  test.each([
    [0, ["0.000 s"]],
    [7, ["0.000 s", "0.001 s", "0.002 s", "0.003 s", "0.004 s", "0.005 s", "0.006 s"]],
    [990, ["0.0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s"]],
    [8100, ["0 s", "2 s", "4 s", "6 s"]],
    [600_000, ["0 s", "100 s", "200 s", "300 s", "400 s", "500 s"]],
  ])("has an axis with round times for %d ms", (total, ticks) => {
    const page = formatPage({ programs: [], spans: [], total }, FACTS);
    expect(Array.from(page.matchAll(/<span style="left:[\d.]+%">([^<]*)</g), ([, tick]) => tick)).toEqual(ticks);
  });
});
