import { describe, expect, test } from "bun:test";
import { LineSplitter, type LogLine, readLogLine, SeenLines, withoutEscapes } from "../lib/follow-lines.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function read(...chunks: readonly (string | Uint8Array)[]): readonly (string | undefined)[] {
  const splitter = new LineSplitter();
  const all = chunks.flatMap((chunk) => splitter.push(typeof chunk === "string" ? bytes(chunk) : chunk));
  return all.map((line) => readLogLine(line)?.text);
}

describe("LineSplitter", () => {
  const T = "2024-01-02T03:04:05.123456789Z";

  test.each<[string, readonly (string | Uint8Array)[], readonly (string | undefined)[]]>([
    ["two lines in one chunk", [`${T} a\n${T} b\n`], ["a", "b"]],
    ["a line in three chunks", [T.slice(0, 10), `${T.slice(10)} a`, "b\n"], ["ab"]],
    ["no line without its end", [`${T} a\n${T} b`], ["a"]],
    ["an empty line, and one that ends in a carriage return", [`${T} \n${T} a\r\n`], ["", "a"]],
    ["a time with an offset, and one without a fraction", ["2024-01-02T03:04:05+01:00 a\n"], ["a"]],
    ["text without a time", ["unable to retrieve container logs for containerd://x\n"], [undefined]],
    ["a long line", [`${T} ${"x".repeat(100_000)}`, `y\n${T} b\n`], [`${"x".repeat(16_384)}…`, "b"]],
    ["a line of the greatest length", [`${T} ${"x".repeat(16_384)}\n`], ["x".repeat(16_384)]],
    ["a line cut within a character", [`${T} x${"é".repeat(9000)}\n`], [`x${"é".repeat(8191)}…`]],
    ["bytes that are no text", [bytes(`${T} `), new Uint8Array([0xff, 0x61, 10])], ["\ufffda"]],
  ])("%s", (_, chunks, wanted) => {
    expect(read(...chunks)).toEqual([...wanted]);
  });

  test("keeps no more of an endless line than is shown", () => {
    const splitter = new LineSplitter();
    const chunk = new Uint8Array(1024 * 1024).fill(0x78);
    for (let i = 0; i < 100; i++) expect(splitter.push(chunk)).toEqual([]);
    expect(splitter.rest()?.bytes.length).toBeLessThan(17_000);
  });

  test("reads times to the nanosecond", () => {
    const at = (time: string): bigint | undefined => readLogLine({ bytes: bytes(`${time} x`), isCut: false })?.at;
    expect(at("1970-01-01T00:00:01.000000002Z")).toBe(1_000_000_002n);
    expect(at("1970-01-01T01:00:01.5+01:00")).toBe(1_500_000_000n);
    expect(at("1970-13-01T00:00:00Z")).toBeUndefined();
  });
});

describe("SeenLines", () => {
  const line = (at: number, text: string): LogLine => {
    return { at: BigInt(at), text, key: Bun.hash(`${at} ${text}`) };
  };

  /** Reads a log in pieces, each from the second of `since` on; returns the lines that are new. */
  function follow(log: readonly LogLine[], cuts: readonly number[]): readonly string[] {
    const seen = new SeenLines();
    const shown: string[] = [];
    for (const end of [...cuts, log.length]) {
      const from = seen.since === undefined ? 0n : BigInt(Date.parse(seen.since)) * 1_000_000n;
      const replay = seen.replay();
      for (const each of log.slice(0, end).filter(({ at }) => at >= from)) {
        if (replay.has(each)) continue;
        seen.add(each);
        shown.push(each.text);
      }
    }
    return shown;
  }

  test("knows lines that share a time and a text", () => {
    const log = [line(5, "a"), line(5, "a"), line(5, "a"), line(5, "b")];
    expect(follow(log, [1, 1, 2, 3])).toEqual(["a", "a", "a", "b"]);
  });

  test("takes a line whose time is before that of one that was seen", () => {
    const log = [line(2_000_000_005, "a"), line(1_999_999_999, "late"), line(2_000_000_006, "b")];
    expect(follow(log, [1, 2])).toEqual(["a", "late", "b"]);
  });

  test("begins a second before the last line", () => {
    const seen = new SeenLines();
    expect(seen.since).toBeUndefined();
    seen.add(line(1_700_000_005_900_000_000, "a"));
    expect(seen.since).toBe("2023-11-14T22:13:24Z");
  });

  test("shows each line of random logs once, whatever their times and wherever they are cut", () => {
    for (let seed = 1; seed <= 60; seed++) {
      let state = seed;
      const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
      let now = 10_000_000_000;
      const step = [0, 3, 1000, 400_000_000][seed % 4] ?? 0;
      // As many lines as are told apart by their text may have one time.
      const log = Array.from({ length: 200 + random(step === 0 ? 3800 : 9000) }, () => {
        now += random(step + 1);
        // Two streams: the one is a little late.
        return line(random(10) === 0 ? now - random(50) : now, `${random(3)}`);
      });
      const cuts = Array.from({ length: random(12) }, () => random(log.length)).sort((a, b) => a - b);
      expect(follow(log, cuts).join()).toBe(log.map(({ text }) => text).join());
    }
  });
});

describe("withoutEscapes()", () => {
  test.each([
    ["\u001b[1;31mred\u001b[0m", "red"],
    ["\u001b]8;;http://x\u001b\\link\u001b]8;;\u0007", "link"],
    ["\u001bPq#0\u001b\\x", "x"],
    ["\u001b(B\u001b7\u001bcx", "x"],
    ["\u001b[", "\u001b["],
    ["plain", "plain"],
  ])("%j", (text, wanted) => {
    expect(withoutEscapes(text)).toBe(wanted);
  });

  test("takes no longer for text that is made for it", () => {
    const before = performance.now();
    for (const part of ["\u001b", "\u001b[", "\u001b]x", "\u001b[1;"]) withoutEscapes(part.repeat(20_000));
    withoutEscapes(`\u001b]${"x".repeat(200_000)}`);
    expect(performance.now() - before).toBeLessThan(1000);
  });
});
