import { describe, expect, test } from "bun:test";
import { countTests } from "../.ci/test.ts";

describe("countTests()", () => {
  const report = (attributes: string): string =>
    `<?xml version="1.0"?>\n<testsuites name="bun test" ${attributes} time="1">\n<testsuite tests="99" failures="99">`;

  test.each([
    ["all passed", report('tests="3" assertions="9" failures="0" skipped="0"'), 0, [3, 0, 0]],
    ["some skipped", report('tests="3" assertions="1" failures="0" skipped="2"'), 0, [1, 0, 2]],
    ["some failed", report('tests="5" assertions="9" failures="2" skipped="1"'), 1, [2, 2, 1]],
    ["a file that does not load", report('tests="3" assertions="9" failures="0" skipped="0"'), 1, [3, 1, 0]],
    ["no test at all", report('tests="0" assertions="0" failures="0" skipped="0"'), 0, [0, 1, 0]],
    ["nothing but skipped tests", report('tests="2" assertions="0" failures="0" skipped="2"'), 0, [0, 1, 2]],
    ["no report", "", 1, [0, 1, 0]],
  ] as const)("%s", (_what, text, exitCode, [passed, failed, skipped]) => {
    expect(countTests(text, exitCode)).toEqual({ passed, failed, skipped });
  });
});
