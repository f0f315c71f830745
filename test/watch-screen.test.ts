import { describe, expect, test } from "bun:test";
import { CommandError, KoError, KoErrors } from "../lib/errors.ts";
import type { Event } from "../lib/events.ts";
import {
  formatCause,
  formatFailure,
  formatPrograms,
  formatTime,
  formatTimes,
  type LiveRound,
  shortDigest,
  WatchScreen,
} from "../lib/watch-screen.ts";
import { hostAt, openScreen as openTerminal } from "./helpers/world-host.ts";

const digest = (character: string): string => `r.example/x/web@sha256:${character.repeat(64)}`;

describe("formatCause()", () => {
  test.each<[readonly string[], string]>([
    [["/w/pkg/web/handler.go"], "pkg/web/handler.go"],
    [["/w/a.go", "/w/b.go", "/w/c.go"], "a.go, b.go, c.go"],
    [["/w/a.go", "/w/b.go", "/w/c.go", "/w/d.go"], "a.go and 3 more"],
    [["/w"], "."],
    [["/elsewhere/x.go"], "/elsewhere/x.go"],
    [["/w/a\u001b[31m.go"], "a\\x1b[31m.go"],
    [["/w/gone.html", "/w/b.go"], "gone.html removed, b.go"],
  ])("shows %j as %s", (paths, shown) => {
    expect(formatCause(paths, { cwd: "/w", isThere: (path) => !path.includes("gone") })).toBe(shown);
  });
});

describe("formatPrograms()", () => {
  test("shows digests before and after, in columns", () => {
    const changes = [
      { importPath: "example.com/web", before: digest("a"), after: digest("b") },
      { importPath: "example.com/worker", before: undefined, after: digest("c") },
      { importPath: "example.com/x", before: digest("d"), after: digest("d") },
    ];
    expect(formatPrograms(changes)).toBe(
      [
        "  example.com/web     aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "  example.com/worker  cccccccccccc",
        "  example.com/x       dddddddddddd, the same as before",
        "",
      ].join("\n"),
    );
  });
});

describe("shortDigest()", () => {
  test.each([
    [digest("a"), "a".repeat(12)],
    [`ko.local/example.com/x:${"b".repeat(64)}`, "b".repeat(12)],
    ["r.example:5000/x:v1", "v1"],
    ["r.example:5000/x", "r.example:5000/x"],
  ])("of %s is %s", (reference, short) => {
    expect(shortDigest(reference)).toBe(short);
  });
});

describe("formatTimes()", () => {
  test("shows the whole, and the stages that took a moment", () => {
    const stages = [
      ["check", 2],
      ["compile", 310.4],
      ["upload", 80],
    ] as const;
    expect(formatTimes({ took: 618, stages })).toBe("0.62 s: compile 0.31 s, upload 0.08 s");
    expect(formatTimes({ took: 3, stages: [] })).toBe("0.00 s");
  });
});

describe("formatTime()", () => {
  test("shows the clock on the wall", () => {
    expect(formatTime(new Date(2026, 0, 2, 3, 4, 5))).toBe("03:04:05");
  });
});

describe("formatFailure()", () => {
  const compile = (stderr: string): CommandError =>
    new CommandError(`Cannot build "example.com/app" for linux/amd64: go build failed (exit code 1)\n${stderr}`, {
      ...{ argv: ["go"], code: 1, stderr },
    });

  test.each<[string, unknown, readonly string[]]>([
    [
      "a compile error, in one piece",
      compile("# example.com/app/pkg\npkg/a.go:3:1: undefined: x\n\thave (int)"),
      [
        'Error: Cannot build "example.com/app" for linux/amd64: go build failed (exit code 1)',
        "pkg/a.go:3:1: undefined: x",
        "\thave (int)",
      ],
    ],
    [
      "two packages",
      compile("# a\n./a.go:1:2: x\n# b\nb/b.go:3: y"),
      [expect.stringContaining("Error: Cannot build"), "./a.go:1:2: x", "b/b.go:3: y"],
    ],
    [
      "a hint",
      new KoError("config/a.yaml:3:5: ko://x: no package", { hint: "Run: go get x" }),
      ["Error: config/a.yaml:3:5: ko://x: no package", "  Run: go get x"],
    ],
    [
      "several errors",
      new KoErrors([new KoError("a.yaml:1:1: x"), new KoError("b.yaml:2:2: y")]),
      ["Error: a.yaml:1:1: x", "Error: b.yaml:2:2: y"],
    ],
    [
      "no place",
      new KoError("Cannot reach r.example:5000: it is away"),
      ["Error: Cannot reach r.example:5000: it is away"],
    ],
  ])("%s", (_what, error, lines) => {
    expect(formatFailure(error).trimEnd().split("\n")).toEqual([...lines]);
  });
});

describe("WatchScreen", () => {
  function open(
    isTerminal: boolean,
    level: "quiet" | "normal" | "verbose" = "normal",
  ): { screen: WatchScreen; written: string[] } {
    const written: string[] = [];
    const host = hostAt("/w", {
      env: { NO_COLOR: "1" },
      stderrIsTerminal: isTerminal,
      stderrColumns: isTerminal ? 20 : undefined,
      err: (text) => void written.push(text),
      out: async (data) => void written.push(`out:${String(data)}`),
    });
    return { screen: new WatchScreen({ host, level, progress: "auto" }), written };
  }

  test("on a terminal the status line makes way for lines, and comes back", async () => {
    const { screen, written } = open(true);
    screen.status("watching 3 packages, 7 files");
    screen.say("block\n");
    await screen.host.out("data\n");
    screen.status("short");
    screen.hide();
    const clear = "\r\u001b[J";
    expect(written).toEqual([
      "watching 3 package…",
      clear,
      "block\n",
      "watching 3 package…",
      clear,
      "out:data\n",
      "short",
      clear,
    ]);
  });

  test("objects that do not run yet have a line each above the status line, so far as there is room", async () => {
    const terminal = await openTerminal(40, 6);
    let writes = Promise.resolve();
    const host = hostAt("/w", {
      ...{ env: { NO_COLOR: "1" }, stderrIsTerminal: true, stderrColumns: 40, stderrRows: 6 },
      err: (text) => void (writes = writes.then(() => terminal.write(text))),
    });
    const screen = new WatchScreen({ host, level: "normal", progress: "auto" });
    const lines = async (): Promise<readonly string[]> => {
      await writes;
      return terminal.lines();
    };
    screen.status("watching");
    screen.waits?.show("deployment/a", "has 0 of 1 replicas ready:\n\u001b[31mnot ready");
    expect(await lines()).toEqual(["deployment/a has 0 of 1 replicas ready…", "watching"]);
    screen.waits?.show("deployment/a", "waits");
    screen.waits?.show("deployment/b", "waits");
    screen.say("a line that stays\n");
    expect(await lines()).toEqual(["a line that stays", "deployment/a waits", "deployment/b waits", "watching"]);
    screen.waits?.show("deployment/c", "waits");
    expect((await lines()).slice(1)).toEqual(["deployment/a waits", "and 2 more do not run yet", "watching"]);
    for (const name of ["a", "b", "c"]) screen.waits?.remove(`deployment/${name}`);
    expect(await lines()).toEqual(["a line that stays", "watching"]);
    expect(open(false).screen.waits).toBeUndefined();
    expect(open(true, "quiet").screen.waits).toBeUndefined();
  });

  test("without a terminal there are lines only, and no escape sequence", () => {
    const { screen, written } = open(false);
    screen.status("watching");
    screen.log.info("Building x");
    screen.say("block\n");
    screen.log.warn("once");
    screen.log.warn("once");
    screen.fail(new KoError("broken"));
    expect(written).toEqual(["block\n", "Warning: once\n", "Error: broken\n"]);
  });

  test("-q leaves warnings and errors, -v tells all", () => {
    const quiet = open(true, "quiet");
    quiet.screen.status("watching");
    quiet.screen.say("block\n");
    quiet.screen.fail(new KoError("broken"));
    expect(quiet.written).toEqual(["Error: broken\n"]);
    const verbose = open(false, "verbose");
    verbose.screen.log.info("Building x");
    verbose.screen.log.debug("go list");
    expect(verbose.written).toEqual(["Building x\n", "go list\n"]);
  });

  describe("a round on a terminal", () => {
    async function openRound(): Promise<{
      readonly screen: WatchScreen;
      readonly round: LiveRound;
      /** Lets time pass, and draws. Milliseconds. */
      readonly pass: (milliseconds: number) => void;
      readonly shown: () => Promise<readonly string[]>;
    }> {
      const terminal = await openTerminal(60, 10);
      let [now, draw, writes] = [0, (): void => {}, Promise.resolve()];
      const host = hostAt("/w", {
        ...{ env: {}, stderrIsTerminal: true, stderrColumns: 60, stderrRows: 10, monotonic: () => now },
        err: (text) => void (writes = writes.then(() => terminal.write(text))),
        out: async (data) => void (writes = writes.then(() => terminal.write(String(data)))),
      });
      const every = (_: number, redraw: () => void): (() => void) => {
        draw = redraw;
        return () => void (draw = () => {});
      };
      const screen = new WatchScreen({ host, level: "normal", progress: "auto", every });
      screen.status("watching 3 packages");
      return {
        screen,
        round: screen.openRound("pkg/a.go"),
        pass: (milliseconds) => {
          now += milliseconds;
          draw();
        },
        shown: async () => {
          await writes;
          return terminal.history();
        },
      };
    }

    const subject = { text: "linux/amd64", importPaths: ["example.com/web"] };
    const compiling: Event = { type: "stage", state: "begin", stage: "compile", id: 1, subject };

    test("lines of programs stay above it, and above the status line, and are never behind another line", async () => {
      const { pass, round, screen, shown } = await openRound();
      await screen.logs("web │ one\n");
      expect(await shown()).toEqual(["web │ one", "watching 3 packages"]);
      round.add(compiling);
      pass(200);
      await screen.logs("web │ two\nweb │ three\n");
      expect(await shown()).toEqual([
        "web │ one",
        "web │ two",
        "web │ three",
        "pkg/a.go: 0.2 s, compiling linux/amd64",
      ]);
      await screen.host.out("half a line");
      await screen.logs("web │ four\n");
      expect((await shown()).slice(3)).toEqual([
        ...["half a line", "web │ four"],
        "pkg/a.go: 0.2 s, compiling linux/amd64",
      ]);
      round[Symbol.dispose]();
    });

    test("shows its programs below what stays, and then the status line again", async () => {
      const { pass, round, screen, shown } = await openRound();
      round.add({
        ...{ type: "program", importPath: "example.com/web", image: "r/web", tags: [], base: "b" },
        platforms: ["linux/amd64"],
      });
      round.add(compiling);
      pass(100);
      expect(await shown()).toEqual(["watching 3 packages"]);
      pass(100);
      expect(await shown()).toEqual(["web  compiling, 0.2 s", "pkg/a.go: 0.2 s, 0 of 1 done"]);
      screen.log.info("go: downloading example.com/x");
      screen.say("a line\n");
      pass(100);
      expect(await shown()).toEqual([
        ...["a line", "web  compiling, 0.3 s"],
        "pkg/a.go: 0.3 s, 0 of 1 done, go: downloading example.com/x",
      ]);
      await screen.host.out("no line end");
      pass(100);
      expect(await shown()).toEqual(["a line", "no line end"]);
      await screen.host.out("\n");
      pass(100);
      expect(await shown()).toEqual([
        "a line",
        "no line end",
        "web  compiling, 0.5 s",
        expect.stringContaining("pkg/a.go"),
      ]);
      // The loop sets the status line before the round is closed.
      screen.status("watching 4 packages");
      round[Symbol.dispose]();
      expect(await shown()).toEqual(["a line", "no line end", "watching 4 packages"]);
    });
  });

  test.each<[string, "auto" | "plain" | "none", Record<string, string>, readonly string[]]>([
    ["plain", "plain", {}, ["a line\n"]],
    ["none", "none", {}, []],
    ["a dumb terminal", "auto", { TERM: "dumb" }, ["a line\n"]],
    ["CI", "auto", { CI: "true" }, ["a line\n"]],
  ])("--progress: %s has neither block nor status line", (_what, progress, env, wanted) => {
    const written: string[] = [];
    const host = hostAt("/w", { env, stderrIsTerminal: true, err: (text) => void written.push(text) });
    const screen = new WatchScreen({ host, level: "normal", progress });
    using _round = screen.openRound("start");
    screen.status("watching");
    screen.say("a line\n");
    expect(written).toEqual([...wanted]);
  });
});
