import { describe, expect, test } from "bun:test";
import { formatCommandLine } from "../lib/cli-command-line.ts";
import { parseCommandLine } from "../lib/cli-parse.ts";

describe("formatCommandLine()", () => {
  test.each<[string, readonly string[], string]>([
    ["words and switches", ["build", "-B", "./a", "./b..."], "ko build --base-import-paths ./a ./b..."],
    ["a switch turned off", ["build", "--push=false", "."], "ko build --push=false ."],
    ["numbers and lists", ["build", "-j", "3", "-t", "a,b"], "ko build --jobs=3 --tags=a --tags=b"],
    ["a word with a blank", ["resolve", "-f", "my dir/it's"], String.raw`ko resolve '--filename=my dir/it'\''s'`],
    ["a file for the times", ["build", "--timing=t.html"], "ko build --timing=t.html"],
    [
      "a URL with a password",
      ["apply", "-f", "https://me:pw@h.example/a?sig=s"],
      "ko apply '--filename=https://h.example/a?sig=REDACTED'",
    ],
    ["ldflags", ["build", "--ldflags=-X main.key=s3cret"], "ko build --ldflags=…"],
    ["labels", ["build", "--image-label=token=s3cret"], "ko build --image-label=…"],
    ["annotations", ["build", "--image-annotation=token=s3cret"], "ko build --image-annotation=…"],
    ["words of kubectl", ["apply", "-f", "c", "--", "--token=s3cret"], "ko apply --filename=c -- …"],
    ["a URL as a word", ["build", "https://me:pw@h.example/x"], "ko build https://h.example/x"],
  ])("%s", (_name, argv, expected) => {
    const invocation = parseCommandLine(argv);
    switch (invocation.command) {
      case "build":
      case "resolve":
      case "apply":
        expect(formatCommandLine(invocation)).toBe(expected);
        break;
      default:
        throw new Error(`"ko ${invocation.command}" builds nothing`);
    }
  });
});
