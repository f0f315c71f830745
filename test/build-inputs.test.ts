import { describe, expect, test } from "bun:test";
import { type Explanation, formatExplanations } from "../lib/build-inputs.ts";

const WEB = { importPath: "example.com/app/cmd/web", platform: "linux/amd64" } as const;

describe("formatExplanations()", () => {
  test.each<[string, Explanation, string]>([
    ["what was reused", { ...WEB, state: "reused" }, "reused, nothing changed"],
    ["a reason without a file", { ...WEB, state: "rebuilt", reason: "first build here" }, "rebuilt, first build here"],
    [
      "a file in the working directory",
      { ...WEB, state: "rebuilt", file: "/src/app/pkg/web/handler.go", reason: "changed" },
      "rebuilt, pkg/web/handler.go changed",
    ],
    [
      "a file beside it",
      { ...WEB, state: "rebuilt", file: "/src/lib/x.go", reason: "is new" },
      "rebuilt, ../lib/x.go is new",
    ],
    [
      "a file that is far away",
      { ...WEB, state: "rebuilt", file: "/go/x.go", reason: "is gone" },
      "rebuilt, /go/x.go is gone",
    ],
    [
      "the directory itself",
      { ...WEB, state: "rebuilt", file: "/src/app", reason: "changed" },
      "rebuilt, /src/app changed",
    ],
    [
      "a name that would end the line or do harm",
      { ...WEB, state: "rebuilt", file: "/src/app/a\n\u001b[2Jb.go", reason: "changed" },
      "rebuilt, a \\x1b[2Jb.go changed",
    ],
  ])("tells of %s", (_, explanation, told) => {
    expect(formatExplanations([explanation], "/src/app")).toBe(`example.com/app/cmd/web (linux/amd64): ${told}\n`);
  });

  test("keeps the order of the images", () => {
    const arm = { ...WEB, platform: "linux/arm/v7" };
    const job = { ...WEB, importPath: "example.com/app/cmd/job" };
    const explanations: readonly Explanation[] = [
      { ...WEB, state: "reused" },
      { ...arm, state: "rebuilt", reason: "the base image changed" },
      { ...job, state: "reused" },
    ];
    expect(formatExplanations(explanations, "/").trimEnd().split("\n")).toEqual([
      "example.com/app/cmd/web (linux/amd64): reused, nothing changed",
      "example.com/app/cmd/web (linux/arm/v7): rebuilt, the base image changed",
      "example.com/app/cmd/job (linux/amd64): reused, nothing changed",
    ]);
  });
});
