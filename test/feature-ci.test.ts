import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { endTree, findDescendants, isRunning } from "../.ci/processes.ts";
import {
  addCounts,
  chooseFiles,
  countTests,
  defaultJobs,
  describeResult,
  planFiles,
  runFiles,
  type FileResult,
  SERIAL,
  shortenOutput,
} from "../.ci/test-files.ts";
import { makeFolder, writeTree } from "./helpers/world-folders.ts";
import { start, waitUntil } from "./helpers/world-programs.ts";

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

describe("addCounts()", () => {
  test("adds the counts of all files", () => {
    const counts = [
      { passed: 3, failed: 0, skipped: 1 },
      { passed: 0, failed: 2, skipped: 0 },
    ];
    expect(addCounts(counts)).toEqual({ passed: 3, failed: 2, skipped: 1 });
  });

  test("no file is a failure", () => {
    expect(addCounts([])).toEqual({ passed: 0, failed: 1, skipped: 0 });
  });
});

describe("chooseFiles()", () => {
  const all = ["test/oci.test.ts", "test/oci.platform.test.ts", "test/yaml.test.ts"];

  test.each([
    ["no word: all", [], all],
    ["a path", ["test/oci.test.ts"], ["test/oci.test.ts"]],
    ["a path as shells complete it", ["./test/yaml.test.ts"], ["test/yaml.test.ts"]],
    ["a part of the name", ["oci"], ["test/oci.test.ts", "test/oci.platform.test.ts"]],
    ["two words", ["platform", "yaml"], ["test/oci.platform.test.ts", "test/yaml.test.ts"]],
    ["a word that is in none", ["nothing"], []],
  ])("%s", (_what, words, wanted) => {
    expect(chooseFiles(all, words)).toEqual(wanted);
  });
});

describe("planFiles()", () => {
  test("the longest first, unknown ones among them, serial ones in the end", () => {
    const times = { "test/a.test.ts": 0.5, "test/b.test.ts": 99, "test/c.test.ts": 30, "test/gone.test.ts": 500 };
    const files = ["test/a.test.ts", "test/b.test.ts", "test/c.test.ts", "test/new.test.ts"];
    expect(planFiles(files, times, { "test/b.test.ts": "measures" })).toEqual({
      parallel: ["test/c.test.ts", "test/new.test.ts", "test/a.test.ts"],
      alone: ["test/b.test.ts"],
    });
  });

  test("without times in the order of the names", () => {
    expect(planFiles(["b", "c", "a"], {}, {})).toEqual({ parallel: ["a", "b", "c"], alone: [] });
  });

  test.each(Object.entries(SERIAL))("%s is a file", (file) => {
    expect(existsSync(join(import.meta.dir, "..", file))).toBe(true);
  });
});

describe("defaultJobs()", () => {
  test.each([
    ["3", 3],
    ["1", 1],
  ])("KO_TEST_JOBS=%s", (value, jobs) => {
    expect(defaultJobs({ KO_TEST_JOBS: value })).toBe(jobs);
  });

  test.each(["", "0", "-1", "many", undefined])("KO_TEST_JOBS=%p leaves it to the machine", (value) => {
    expect(defaultJobs({ KO_TEST_JOBS: value })).toBeGreaterThan(1);
  });
});

describe("shortenOutput()", () => {
  const banner = "bun test v1.4.5 (a7733435c)\n\ntest/x.test.ts:\n";
  const end = (pass: number, fail: number): string =>
    `\n ${pass} pass\n ${fail} fail\n 9 expect() calls\nRan 9 tests across 1 file. [5.00ms]\n`;

  test("leaves nothing of a file that passed", () => {
    expect(shortenOutput(`${banner}(pass) a > b [0.03ms]\n(skip) c\n(todo) d\n${end(1, 0)}`)).toBe("");
  });

  test("leaves nothing of skipped tests that are named in the end, and of names of several lines", () => {
    const tests = "(pass) a\r\nb [0.03ms]\n(skip) c\n";
    expect(shortenOutput(`${banner}${tests}\n1 tests skipped:\n(skip) c\n\n${end(1, 0)}`)).toBe("");
  });

  test("leaves what the tests print", () => {
    expect(shortenOutput(`${banner}skipped: no docker\n(pass) a [1ms]\nhello\n(pass) b\n${end(2, 0)}`)).toBe(
      "skipped: no docker\nhello",
    );
  });

  test("leaves the errors of failed tests, once", () => {
    const error =
      "error: expect(received).toBe(expected)\n\nExpected: 2\n\n      at x.test.ts:4:29\n(fail) c [5.19ms]\n";
    expect(
      shortenOutput(`${banner}(pass) a\n${error}(pass) d\n\n1 tests failed:\n(fail) c [5.19ms]\n${end(2, 1)}`),
    ).toBe(error.trim());
  });

  test("leaves all that a crash says", () => {
    expect(shortenOutput(`${banner}(pass) a\npanic: it broke\n`)).toBe("panic: it broke");
  });
});

describe("describeResult()", () => {
  const result = { file: "test/x.test.ts", seconds: 1.25, cpuSeconds: 0.5, output: "" };

  test.each<[string, Pick<FileResult, "passed" | "failed" | "skipped">]>([
    ["test/x.test.ts: 3 passed (1.3 s, CPU 0.5 s)", { passed: 3, failed: 0, skipped: 0 }],
    ["test/x.test.ts: 3 passed, 1 FAILED, 2 skipped (1.3 s, CPU 0.5 s)", { passed: 3, failed: 1, skipped: 2 }],
  ])("%s", (line, counts) => {
    expect(describeResult({ ...result, ...counts })).toBe(line);
  });
});

describe("runFiles()", () => {
  const PASSING = 'import { test } from "bun:test";\ntest("one", () => {});\ntest.skip("two", () => {});\n';
  const FILES = {
    "test/passes.test.ts": PASSING,
    "test/fails.test.ts": 'import { expect, test } from "bun:test";\ntest("three", () => expect(1).toBe(2));\n',
    "test/crashes.test.ts":
      'import { test } from "bun:test";\ntest("four", () => process.kill(process.pid, "SIGKILL"));\n',
    "test/breaks.test.ts": 'throw new Error("it does not load");\n',
    "test/environment.test.ts":
      'import { expect, test } from "bun:test";\ntest("five", () => expect(process.env["TEST_WORD"]).toBe("x"));\n',
  };

  test("counts each file; one that crashes or does not load is a failure", async () => {
    using tree = writeTree(FILES);
    await using folder = await makeFolder();
    const ended: string[] = [];
    const results = await runFiles(Object.keys(FILES), {
      root: tree.path,
      folder: folder.path,
      jobs: 2,
      times: {},
      env: { TEST_WORD: "x" },
      signal: new AbortController().signal,
      onEnd: ({ file }) => void ended.push(file),
    });
    expect(
      results.map(({ file, passed, failed, skipped }) => `${file} ${passed} ${failed} ${skipped}`).toSorted(),
    ).toEqual([
      "test/breaks.test.ts 0 1 0",
      "test/crashes.test.ts 0 1 0",
      "test/environment.test.ts 1 0 0",
      "test/fails.test.ts 0 1 0",
      "test/passes.test.ts 1 0 1",
    ]);
    expect(ended.toSorted()).toEqual(Object.keys(FILES).toSorted());
    expect(results.find(({ file }) => file.includes("fails"))?.output).toContain("(fail) three");
  });

  test("ends early with all that the files started", async () => {
    await using folder = await makeFolder();
    using tree = writeTree({
      "test/waits.test.ts": `import { test } from "bun:test";
test("waits", async () => {
  const child = Bun.spawn(["sleep", "300"], { detached: true });
  await Bun.write(${JSON.stringify(join(folder.path, "pid"))}, String(child.pid));
  await child.exited;
}, 300_000);
`,
    });
    const ending = new AbortController();
    const running = runFiles(["test/waits.test.ts"], {
      ...{ root: tree.path, folder: folder.path, jobs: 1, times: {}, env: {} },
      signal: ending.signal,
      onEnd: () => {},
    });
    const file = join(folder.path, "pid");
    await waitUntil(() => existsSync(file) && readFileSync(file, "utf8") !== "");
    const pid = Number(readFileSync(file, "utf8"));
    ending.abort("SIGINT");
    expect(await running).toEqual([]);
    expect(isRunning(pid)).toBe(false);
  });
});

describe("findDescendants()", () => {
  test("finds children and theirs", () => {
    const all = [
      [2, 1],
      [3, 2],
      [4, 3],
      [5, 2],
      [6, 1],
    ].map(([pid = 0, parent = 0]) => ({ pid, parent, started: "1" }));
    expect(findDescendants(2, all).map(({ pid }) => pid)).toEqual([3, 4, 5]);
  });
});

describe("endTree()", () => {
  test("ends what does not want to end, and what has a group of its own", async () => {
    const script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done'; sleep 300";
    const running = start(["sh", "-c", script], { cwd: "/", env: process.env, ownGroup: true });
    await waitUntil(() => running.stdout() !== "", running);
    const below = Number(running.stdout());
    await endTree(running.pid);
    expect((await running.result).code).toBe(137);
    expect(isRunning(below)).toBe(false);
  });
});
