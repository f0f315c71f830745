import { describe, expect, test } from "bun:test";
import { UsageError } from "../lib/errors.ts";
import { buildArguments } from "../lib/go-setup.ts";

describe("buildArguments()", () => {
  test.each([
    [{ flags: [], ldflags: [] }, ["-trimpath"]],
    [{ flags: ["-v"], ldflags: ["-s", "-w"] }, ["-v", "-trimpath", "-ldflags=-s -w"]],
    [{ flags: ["-v"], ldflags: [], trimpath: false }, ["-v"]],
    [
      { flags: ["-v"], ldflags: ["-s"], disableOptimizations: true },
      ["-v", "-trimpath", "-gcflags", "all=-N -l", "-ldflags=-s"],
    ],
  ])("case %#", (options, want) => {
    expect(buildArguments(options)).toEqual(want);
  });

  test("refuses -toolexec", () => {
    expect(() => buildArguments({ flags: ["-v", "-toolexec=x"], ldflags: [] })).toThrow(UsageError);
  });
});
