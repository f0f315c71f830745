import { describe, expect, test } from "bun:test";
import { createLog, formatSize, type Log, type LogLevel, silentLog } from "../lib/log.ts";

function sayAll(log: Log): void {
  log.info("info");
  log.warn("warn");
  log.debug("debug");
}

describe("createLog()", () => {
  test.each<[LogLevel, readonly string[]]>([
    ["quiet", ["Warning: warn\n"]],
    ["normal", ["info\n", "Warning: warn\n"]],
    ["verbose", ["info\n", "Warning: warn\n", "debug\n"]],
  ])("says at %s level what belongs to it, a line each", (level, expected) => {
    const written: string[] = [];
    sayAll(createLog(level, (text) => void written.push(text)));
    expect(written).toEqual([...expected]);
  });

  test("makes escape sequences visible", () => {
    const written: string[] = [];
    createLog("normal", (text) => void written.push(text)).warn("\u001b[31mred\u0007\0");
    expect(written).toEqual(["Warning: \\x1b[31mred\\x07\\x00\n"]);
  });

  test("cuts a message of more than 64 KiB", () => {
    const written: string[] = [];
    createLog("normal", (text) => void written.push(text)).info("x".repeat(100_000));
    expect(written.map((text) => text.length)).toEqual([64 * 1024 + 2]);
  });
});

describe("silentLog", () => {
  test("returns nothing and throws nothing", () => {
    expect(() => sayAll(silentLog)).not.toThrow();
  });
});

describe("formatSize()", () => {
  test.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.0 kB"],
    [9949, "9.9 kB"],
    [12_345, "12 kB"],
    [999_499, "999 kB"],
    [999_500, "1.0 MB"],
    [7_400_000, "7.4 MB"],
    [1_250_000_000, "1.3 GB"],
  ])("%d bytes are %s", (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });
});
