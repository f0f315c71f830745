import { describe, expect, test } from "bun:test";
import { type AddOptions, Findings, formatJson, formatLines } from "../lib/check-findings.ts";
import { KoError, KoErrors, UsageError } from "../lib/errors.ts";

describe("Findings", () => {
  test.each<[string, Error, string]>([
    [
      "a place in quotes",
      new KoError('Cannot read "a.yaml:3:4" as YAML: bad'),
      "a.yaml:3:4: error: it is not YAML: bad",
    ],
    [
      "a file with blanks",
      new KoError('Cannot read "/work/a b.yaml:3" as YAML: x'),
      "a b.yaml:3: error: it is not YAML: x",
    ],
    ["stdin", new KoError('Cannot read "<stdin>:1:2" as YAML: x'), "<stdin>:1:2: error: it is not YAML: x"],
    ["a setting", new UsageError("Cannot use .ko.yaml:3:4: no"), ".ko.yaml:3:4: error: no"],
    [
      "a setting with a name",
      new UsageError("Cannot use ldflags of builds[0] at .ko.yaml:3:4: no", { hint: "Fix it." }),
      ".ko.yaml:3:4: error: ldflags of builds[0]: no. Fix it.",
    ],
    [
      "a place within",
      new KoError("Cannot build x: cmd/a.go:3:4: no"),
      "cmd/a.go:3:4: error: Cannot build x: cmd/a.go:3:4: no",
    ],
    [
      "no place",
      new KoError("Cannot run go", { cause: new KoError("gone", { hint: "Install it" }) }),
      "error: Cannot run go: gone. Install it",
    ],
    [
      "several lines",
      new KoError('Cannot build "a":\n  one\n  two', { hint: "Run: x" }),
      'error: Cannot build "a": one; two. Run: x',
    ],
    ["control characters", new KoError("a \u001b[31m b"), "error: a \\x1b[31m b"],
  ])("shows %s", (_name, error, line) => {
    const findings = new Findings("/work");
    findings.addError(error, { rule: "config" });
    expect(formatLines(findings.sorted())).toBe(`${line}\n`);
  });

  test("sorts by file, line and column, and has equal ones once", () => {
    const findings = new Findings("/work");
    const add = (place: AddOptions["place"]): void => findings.add("x", { rule: "yaml", severity: "warning", place });
    add({ file: "b", line: 2, column: 1 });
    add({ file: "b", line: 10, column: 1 });
    add({ file: "b", line: 2, column: 10 });
    add({ file: "b", line: 2, column: 10 });
    add({ file: "a" });
    findings.add("y", { rule: "program" });
    expect(formatLines(findings.sorted())).toBe(
      "error: y\na: warning: x\nb:2:1: warning: x\nb:2:10: warning: x\nb:10:1: warning: x\n",
    );
  });

  test("takes each of several errors, and throws a bug on", async () => {
    const findings = new Findings("/work");
    const both = new KoErrors([new KoError("one"), new KoError("two")]);
    expect(await findings.collect("config", () => Promise.reject(both))).toBeUndefined();
    expect(await findings.collect("config", () => 1)).toBe(1);
    expect(findings.sorted().map(({ message }) => message)).toEqual(["one", "two"]);
    expect(findings.collect("config", () => Promise.reject(new RangeError("bug")))).rejects.toThrow("bug");
  });
});

describe("formatJson()", () => {
  test("counts, and leaves out places that are not known", () => {
    const findings = new Findings("/work");
    findings.add("x", { rule: "program", hint: "Do it" });
    findings.add("a.yaml:1:2: y", { rule: "slip", severity: "warning" });
    expect(JSON.parse(formatJson(findings.sorted()))).toEqual({
      version: 1,
      errors: 1,
      warnings: 1,
      findings: [
        { severity: "error", rule: "program", message: "x", hint: "Do it" },
        { severity: "warning", rule: "slip", file: "a.yaml", line: 1, column: 2, message: "y" },
      ],
    });
  });
});
