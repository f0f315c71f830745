import { describe, expect, test } from "bun:test";
import type { Host } from "../lib/host.ts";
import type { LogLevel, ProgressMode } from "../lib/log.ts";
import { openReport } from "../lib/progress-report.ts";
import { noTiming } from "../lib/timing.ts";
import { fakeHost } from "./helpers/world-watch.ts";

interface World {
  readonly host: Host;
  readonly written: string[];
}

function makeWorld(changes: Partial<Host> = {}): World {
  const written: string[] = [];
  const { host } = fakeHost({
    stderrIsTerminal: true,
    err: (text) => void written.push(text),
    out: async (data) => void written.push(`stdout: ${String(data)}`),
    run: async ([program]) => {
      written.push(`run: ${program}\n`);
      return { code: 0, stdout: new Uint8Array(), stderr: "" };
    },
    ...changes,
  });
  return { host, written };
}

function withoutColour(text: string): string {
  return text.replaceAll(/\u001b\[\d+m/g, "");
}

describe("openReport()", () => {
  const TABLE: readonly (readonly [string, Partial<Host>, ProgressMode, LogLevel, readonly string[]])[] = [
    ["a block on a terminal", {}, "auto", "normal", ["Warning: w\n"]],
    ["lines elsewhere", { stderrIsTerminal: false }, "auto", "normal", ["i\n", "Warning: w\n"]],
    ["lines on a dumb terminal", { env: { TERM: "dumb" } }, "auto", "normal", ["i\n", "Warning: w\n"]],
    ["lines in CI", { env: { CI: "true" } }, "auto", "normal", ["i\n", "Warning: w\n"]],
    ["a block if CI is off", { env: { CI: "false" } }, "auto", "normal", ["Warning: w\n"]],
    ["a block where it is asked for", { stderrIsTerminal: false }, "tty", "normal", ["Warning: w\n"]],
    ["lines where they are asked for", {}, "plain", "normal", ["i\n", "Warning: w\n"]],
    ["warnings only", {}, "none", "normal", ["Warning: w\n"]],
    ["lines with -v", {}, "tty", "verbose", ["i\n", "d\n", "Warning: w\n"]],
    ["warnings only with -q", {}, "tty", "quiet", ["Warning: w\n"]],
  ];
  test.each(TABLE)("%s", async (_, changes, progress, level, lines) => {
    const { host, written } = makeWorld(changes);
    {
      using report = await openReport(host, { level, progress });
      report.log.info("i");
      report.log.debug("d");
      report.log.warn("w");
    }
    // The block's end writes an empty text.
    expect(written.map(withoutColour).filter((text) => text !== "")).toEqual([...lines]);
  });

  test("the lines that stay are written before results, and before a program that shares the terminal", async () => {
    const { host, written } = makeWorld();
    using report = await openReport(host, { level: "normal", progress: "tty" });
    const timing = report.timing(noTiming);
    const about = { importPath: "example.com/web", image: "r/web" };
    timing.report({ type: "program", ...about, platforms: ["linux/amd64"], tags: [], base: "b" });
    await report.host.run(["git"]);
    const descriptor = { mediaType: "m", digest: `sha256:${"0".repeat(64)}`, size: 1 } as const;
    const { importPath } = about;
    timing.report({ type: "result", importPath, reference: "r", descriptor, images: [], wasThere: true });
    await report.host.run(["kubectl"], { stdout: "inherit" });
    await report.host.out("r\n");
    report.log.info("after");
    expect(written.map(withoutColour)).toEqual([
      "run: git\n",
      "web  000000000000  unchanged, 0.0 s\n",
      "run: kubectl\n",
      "stdout: r\n",
      "after\n",
    ]);
  });

  test("messages from outside cannot move the cursor", async () => {
    const { host, written } = makeWorld();
    using report = await openReport(host, { level: "normal", progress: "tty" });
    report.log.warn("\u001b[2J");
    expect(written.map(withoutColour)).toEqual(["Warning: \\x1b[2J\n"]);
  });
});
