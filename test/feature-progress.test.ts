/**
 * What a person sees on a real terminal: the program runs on a pseudo-terminal, and its output goes through an emulator.
 */
import { describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { openScreen, type Screen } from "./helpers/world-host.ts";
import { ourCommand, waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry"]);

const TWO = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo("web"),
  "cmd/worker/main.go": mainGo("worker"),
};

interface Session {
  readonly screen: Screen;
  /** Everything that ko wrote. */
  raw(): string;
  press(keys: string): void;
  readonly code: Promise<number>;
}

async function startOnTerminal(
  bench: Bench,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Session> {
  const screen = await openScreen(80, 24);
  let raw = "";
  let writes = Promise.resolve();
  const decoder = new TextDecoder();
  const child = Bun.spawn([...ourCommand(), ...args], {
    cwd: bench.tree.path,
    env: { ...bench.env, TERM: "xterm-256color", ...env },
    terminal: {
      cols: 80,
      rows: 24,
      data: (_, data) => {
        raw += decoder.decode(data, { stream: true });
        const copy = data.slice();
        writes = writes.then(() => screen.write(copy));
      },
    },
  });
  const end = async (): Promise<number> => {
    const code = await child.exited;
    child.terminal?.close();
    await writes;
    return code;
  };
  return { screen, raw: () => raw, press: (keys) => child.terminal?.write(keys), code: end() };
}

/** The lines of a screen, without digests and times. */
function plain(lines: readonly string[]): readonly string[] {
  return lines.map((line) =>
    line
      .replace(/\b[0-9a-f]{64}\b/g, "DIGEST")
      .replace(/\b[0-9a-f]{12}\b/g, "SHORT")
      .replace(/sent [\d.]+ [kM]?B/, "sent SIZE")
      .replace(/[\d.]+ s$/, "TIME"),
  );
}

describe.skipIf(programs === undefined)("on a terminal", () => {
  const { proxy } = registrySuite();

  test("a first build leaves a line for each program and a summary; an unchanged one says so", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    const args = ["build", "-B", "--sbom=none", "./cmd/web", "./cmd/worker"];
    const first = await startOnTerminal(bench, args);
    expect(await first.code).toBe(0);
    const references = ["web", "worker"].map((name) => `REPOSITORY/${name}@sha256:DIGEST`);
    // The terminal wraps the references.
    const text = (session: Session): string =>
      plain(
        session.screen
          .history()
          .join("\n")
          .replaceAll(/(?<=.{80})\n/g, "")
          .replaceAll(bench.repository, "REPOSITORY")
          .split("\n"),
      ).join("\n");
    expect(text(first)).toBe(
      [
        "web     SHORT  built, sent SIZE, TIME",
        "worker  SHORT  built, sent SIZE, TIME",
        "2 programs, sent SIZE, TIME",
        ...references,
      ].join("\n"),
    );
    expect(first.raw()).toContain("compiling");
    const second = await startOnTerminal(bench, args);
    expect(await second.code).toBe(0);
    expect(text(second)).toBe(
      [
        "web     SHORT  unchanged, TIME",
        "worker  SHORT  unchanged, TIME",
        "2 programs, 2 unchanged, TIME",
        ...references,
      ].join("\n"),
    );
  });

  test("a program that does not compile leaves go's message and the error, and no block", async () => {
    using bench = makeBench(
      { ...TWO, "cmd/web/main.go": "package main\n\nfunc main() { x() }\n" },
      { host: proxy.host },
    );
    const session = await startOnTerminal(bench, ["build", "./cmd/web"]);
    expect(await session.code).toBe(1);
    const lines = session.screen.history();
    expect(lines.join("\n")).toContain("cmd/web/main.go:3:15: undefined: x");
    expect(lines.filter((line) => /compiling|done,|waiting/.test(line))).toEqual([]);
  });

  const [RED, YELLOW, GREEN, CYAN] = [31, 33, 32, 36].map((code) => `\u001b[${code}m`);

  test.each<[string, Readonly<Record<string, string>>, boolean]>([
    ["colours", {}, true],
    ["no colours with NO_COLOR", { NO_COLOR: "1" }, false],
  ])("errors, warnings, hints and results have %s", async (_what, env, isColoured) => {
    using bench = makeBench(
      { ...TWO, ".ko.yaml": "ports: 1\n" },
      {
        host: proxy.host,
      },
    );
    const built = await startOnTerminal(bench, ["build", "--sbom=none", "./cmd/web"], {
      KO_CONFIG_PATH: bench.tree.path,
      KO_DEFAULTBASEIMAGE: "ko.builtin/static",
      ...env,
    });
    expect(await built.code).toBe(0);
    const refused = await startOnTerminal(bench, ["build", "./cmd/wbe"], env);
    expect(await refused.code).toBe(1);
    const raw = built.raw() + refused.raw();
    expect(
      [`${YELLOW}Warning:`, `${GREEN}built`, `${RED}Error:`, `${CYAN}  Did you mean`].filter((text) =>
        raw.includes(text),
      ),
    ).toHaveLength(isColoured ? 4 : 0);
    expect(/\u001b\[\d+m/.test(raw)).toBe(isColoured);
  });

  test("Ctrl-C in the middle removes the block", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    bench.work.write({
      "bin/go": { executable: '#!/bin/sh\ncase "$1" in build) exec sleep 300;; *) exec go "$@";; esac\n' },
    });
    const session = await startOnTerminal(bench, ["build", "./cmd/web"]);
    await waitUntil(() => session.raw().includes("compiling"));
    session.press("\u0003");
    expect(await session.code).toBe(130);
    expect(session.screen.history().filter((line) => !line.startsWith("^C"))).toEqual(["Error: interrupted by SIGINT"]);
  });

  test.each<[string, Readonly<Record<string, string>>]>([
    ["a dumb terminal", { TERM: "dumb" }],
    ["CI", { CI: "true" }],
  ])("%s gets lines without escape sequences", async (_, env) => {
    using bench = makeBench(TWO, { host: proxy.host });
    const session = await startOnTerminal(bench, ["build", "--sbom=none", "./cmd/web"], env);
    expect(await session.code).toBe(0);
    expect(session.raw()).not.toContain("\u001b");
    expect(session.raw()).toContain("Building example.com/app/cmd/web for linux/amd64");
  });

  test("a pipe gets lines without escape sequences", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    const { code, stderr } = await bench.ours(["build", "--sbom=none", "./cmd/web"]);
    expect([code, stderr.includes("\u001b"), stderr.includes("Published ")]).toEqual([0, false, true]);
  });
});
