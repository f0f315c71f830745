import { describe, expect, test } from "bun:test";
import { formatDotenv, whyTooLarge } from "../lib/events-dotenv.ts";
import { resultOf } from "./helpers/images.ts";

/** The rules of GitLab for each line: a name of letters, digits and underscores, a value without blanks and quotes. */
const LINE = /^[A-Za-z_][A-Za-z0-9_]*=[^\s'"]*$/;

describe("formatDotenv()", () => {
  test.each([0, 1, 2, 20])("%d programs: GitLab reads each line", (count) => {
    const programs = Array.from({ length: count }, (_, i) => ({ result: resultOf(`example.com/cmd/p${i}`) }));
    const text = formatDotenv(programs);
    const lines = text.split("\n");
    expect(lines.pop()).toBe("");
    expect(lines.filter((line) => !LINE.test(line))).toEqual([]);
    const [first] = programs;
    expect(lines).toEqual([
      `KO_IMAGE=${first?.result.reference ?? ""}`,
      `KO_DIGEST=${first?.result.descriptor.digest ?? ""}`,
      `KO_IMAGES=${programs.map(({ result }) => result.reference).join(",")}`,
    ]);
  });

  test("a program that was not published is left out", () => {
    const result = resultOf("example.com/cmd/b");
    expect(formatDotenv([{ result: undefined }, { result }])).toContain(`KO_IMAGE=${result.reference}\n`);
  });
});

describe("whyTooLarge()", () => {
  test("says how large a file is that GitLab refuses", () => {
    expect(whyTooLarge("x".repeat(5120))).toBeUndefined();
    expect(whyTooLarge("ü".repeat(2561))).toMatch(/5122 bytes: 5120 are possible/);
  });
});
