import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { appendOutputs, appendSummary, formatAnnotation, formatOutputs, formatSummary } from "../lib/events-github.ts";
import type { ErrorEvent, Event } from "../lib/events.ts";
import { failureOf } from "./helpers/failures.ts";
import { programOf, resultOf } from "./helpers/images.ts";
import { writeTree } from "./helpers/world-folders.ts";

const PLACE = { cwd: "/ws/app", env: { GITHUB_WORKSPACE: "/ws" }, platform: "linux" };

/** The outputs as the runner reads them. */
function readOutputs(text: string): Readonly<Record<string, string>> {
  const outputs: Record<string, string> = {};
  const lines = text.split("\n");
  for (let line = lines.shift(); line !== undefined && line !== ""; line = lines.shift()) {
    const [, name = "", delimiter = ""] = /^(\w+)<<(\S+)$/.exec(line) ?? [];
    const end = lines.indexOf(delimiter);
    outputs[name] = lines
      .splice(0, end + 1)
      .slice(0, -1)
      .join("\n");
  }
  return outputs;
}

/** The cells of each row of a table, as they are shown. */
function readTable(markdown: string): readonly (readonly string[])[] {
  return markdown
    .split("\n")
    .filter((line) => line.startsWith("| ") && !line.startsWith("| :"))
    .slice(1)
    .map((line) =>
      line
        .slice(2, -2)
        .split(" | ")
        .map((cell) =>
          cell.replaceAll(/<\/?code>/g, "").replaceAll(/&#(\d+);/g, (_, number) => String.fromCharCode(Number(number))),
        ),
    );
}

describe("formatAnnotation()", () => {
  const error: ErrorEvent = { type: "error", code: "compile", message: "undefined: x", file: "main.go", line: 3 };

  test.each<[string, Event, string | undefined]>([
    ["an error", { ...error, column: 15 }, "::error file=app/main.go,line=3,col=15::undefined: x"],
    ["without a column", error, "::error file=app/main.go,line=3::undefined: x"],
    ["column 0", { ...error, column: 0 }, "::error file=app/main.go,line=3::undefined: x"],
    [
      "a warning",
      { type: "warning", message: "m", file: ".ko.yaml", line: 1 },
      "::warning file=app/.ko.yaml,line=1::m",
    ],
    ["a hint", { ...error, hint: "Type y" }, "::error file=app/main.go,line=3::undefined: x%0AType y"],
    ["beside the working directory", { ...error, file: "../b.go" }, "::error file=b.go,line=3::undefined: x"],
    ["outside of the workspace", { ...error, file: "/tmp/b.go" }, "::error file=/tmp/b.go,line=3::undefined: x"],
    [
      "characters of the command",
      { ...error, message: "100%\r\n::add-mask::y", file: "a:b,c%.go" },
      "::error file=app/a%3Ab%2Cc%25.go,line=3::100%25%0D%0A::add-mask::y",
    ],
    ["no place", { type: "error", code: "failure", message: "m" }, undefined],
    ["a line for people", { type: "info", message: "m", file: "a", line: 1 }, undefined],
  ])("%s", (_name, event, expected) => {
    expect(formatAnnotation(event, PLACE)).toBe(expected);
  });

  test("without a workspace, and on Windows", () => {
    expect(formatAnnotation(error, { ...PLACE, env: {} })).toContain("file=main.go,");
    const event = { ...error, file: "cmd\\main.go" };
    expect(formatAnnotation(event, { ...PLACE, env: {}, platform: "win32" })).toContain("file=cmd/main.go,");
  });
});

describe("formatOutputs()", () => {
  test.each([0, 1, 3])("of %d programs", (count) => {
    const programs = Array.from({ length: count }, (_, i) => ({ result: resultOf(`example.com/cmd/p${i}`) }));
    const { digest, image, images } = readOutputs(formatOutputs(programs));
    const references = programs.map(({ result }) => result.reference);
    expect([image, JSON.parse(images ?? "")]).toEqual([references[0] ?? "", references]);
    expect(digest).toBe(programs[0]?.result.descriptor.digest ?? "");
  });

  test("no value ends its own delimiter", () => {
    const result = { ...resultOf("example.com/a"), reference: "x\nko_1\nPATH<<y\nz\ny" };
    expect(readOutputs(formatOutputs([{ result }]))).toMatchObject({ image: result.reference });
  });

  test("are appended", async () => {
    using tree = writeTree({ out: "before=1\n" });
    const place = { ...PLACE, env: { GITHUB_OUTPUT: tree.at("out") } };
    await appendOutputs([], place);
    expect(readFileSync(tree.at("out"), "utf8")).toStartWith("before=1\nimage<<");
    mkdirSync(tree.at("folder"));
    const failure = await failureOf(() => appendOutputs([], { ...place, env: { GITHUB_OUTPUT: tree.at("folder") } }));
    expect(failure.message).toContain("Cannot write GITHUB_OUTPUT");
  });
});

describe("formatSummary()", () => {
  const empty = { errors: [], programs: [] };
  const room = 1024 * 1024;
  const format = (errors: readonly ErrorEvent[]): string =>
    formatSummary({ ...empty, errors }, { command: "build", room });

  test("has a row for each program", () => {
    const programs = [programOf("example.com/a"), programOf("example.com/b", { isPublished: false })];
    const [digest, reference] = [programs[0]?.result?.descriptor.digest, programs[0]?.result?.reference ?? ""];
    expect(readTable(formatSummary({ ...empty, programs }, { command: "build", room }))).toEqual([
      ["example.com/a", reference.replace(/@.*/, ""), digest ?? "", "3.0 MB", "main.go changed", "1.5"],
      ["example.com/b", "r.example/b", "", "", "not published", ""],
    ]);
  });

  test("text is no Markdown and no HTML", () => {
    const program = programOf("example.com/a");
    const importPath = "a|b`c*d_e[f](g)<script>&amp;$h$\n| x |";
    const text = formatSummary(
      { ...empty, programs: [{ ...program, program: { ...program.program, importPath } }] },
      {
        command: "build",
        room,
      },
    );
    expect(readTable(text)[0]?.[0]).toBe(importPath.replace("\n", " "));
    expect(text).not.toMatch(/<script|\*d_e|\]\(/);
  });

  test("shows errors as they are, in a block that they cannot end", () => {
    const errors: readonly ErrorEvent[] = [
      { type: "error", code: "compile", message: "undefined: x", file: "main.go", line: 3, column: 15 },
      { type: "error", code: "command", message: "Cannot build", details: "````\n<b>", hint: "Type y" },
    ];
    expect(format(errors)).toContain(
      "\n`````text\nmain.go:3:15: undefined: x\nCannot build\n````\n<b>\nType y\n`````\n",
    );
  });

  test("a place that the message names is not said twice", () => {
    const message = "a.yaml:1:8: ko://x: no such package";
    expect(format([{ type: "error", code: "reference", message, file: "a.yaml", line: 1, column: 8 }])).toContain(
      `\n${message}\n`,
    );
  });

  test.each([6000, 20_000, 100_000])("fits into %d bytes, and counts the programs that do not", (most) => {
    const programs = Array.from({ length: 1000 }, (_, i) => programOf(`example.com/cmd/program-${i}`));
    const text = formatSummary({ errors: [], programs }, { command: "build", room: most });
    expect(Buffer.byteLength(text) <= most).toBe(true);
    const shown = readTable(text).length;
    expect(shown).toBeGreaterThan(most / 1000);
    expect(text.includes(`\nand ${1000 - shown} more\n`)).toBe(true);
  });

  test("other steps' text in the same file counts", async () => {
    using tree = writeTree({ full: "x".repeat(room - 100), half: "before\n" });
    const write = (name: string): Promise<void> =>
      appendSummary(empty, { command: "resolve", host: { ...PLACE, env: { GITHUB_STEP_SUMMARY: tree.at(name) } } });
    await write("full");
    await write("half");
    expect(readFileSync(tree.at("full"), "utf8").length).toBe(room - 100);
    expect(readFileSync(tree.at("half"), "utf8")).toBe("before\n### ko resolve\n\nThere was nothing to build.\n\n");
    await appendSummary(empty, { command: "resolve", host: { ...PLACE, env: {} } });
  });
});
