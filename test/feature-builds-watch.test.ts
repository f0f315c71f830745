/** `ko build -W` with `builds:`: an edited entry, tags, commits, changes and a warning, each on the real file system. */
import { describe, expect, test } from "bun:test";
import { goMod } from "./helpers/go.ts";
import { makeBench } from "./helpers/world-bench.ts";
import { commitTree, output } from "./helpers/world-programs.ts";
import { startWatching } from "./helpers/world-watch.ts";

const program = (name: string): string =>
  `package main\n\nvar version = "none"\n\nfunc main() { println("${name}", version) }\n`;

function configOf(one: string, two: string, more = ""): string {
  return `defaultBaseImage: scratch\nports: [80]\n${more}builds:\n- main: ./cmd/one\n  ldflags: -X main.version=${one}\n- main: ./cmd/two\n  ldflags: -X main.version=${two}\n- main: ./lib\n- main: ./cmd/three\n  ldflags: -X main.version={{.Git.TreeState}}\n`;
}

const NO_ENTRY = ": builds[2] is for no program: ./lib is package lib, wanted package main";

describe("ko build -W", () => {
  test("rebuilds the program of an edited entry, those whose templates read a new tag, commit or change, and repeats no warning", async () => {
    using bench = makeBench(
      {
        "go.mod": goMod("example.com/app"),
        "cmd/one/main.go": program("one"),
        "cmd/two/main.go": program("two"),
        "cmd/three/main.go": program("three"),
        ".gitignore": "go-calls\n",
        "lib/lib.go": "package lib\n",
      },
      { host: "registry.example.com", config: configOf("1", "{{.Git.Tag}}-{{.Git.FullCommit}}") },
    );
    await commitTree(bench.tree.path);
    const builds = (): number => bench.goCalls().filter((name) => name === "build").length;
    const names = (printed: string): readonly string[] =>
      Array.from(printed.matchAll(/\/(one|two|three):/g), ([, name = ""]) => name);
    const env = { GOFLAGS: "-buildvcs=false" };
    const args = ["build", "-W", "-B", "--push=false", "./cmd/one", "./cmd/two", "./cmd/three"];
    await using watching = startWatching(bench, args, { env });

    const first = await watching.round();
    expect(first).toContain('"ports" has no effect');
    expect(first).toContain(NO_ENTRY);
    expect([names(watching.printed()), builds()]).toEqual([["one", "two", "three"], 3]);

    await watching.said(/watching /);
    bench.work.write({ "config/.ko.yaml": configOf("2", "{{.Git.Tag}}-{{.Git.FullCommit}}") });
    const edited = await watching.round();
    expect([names(watching.printed()), builds()]).toEqual([["one"], 4]);
    expect(edited).not.toContain("Warning");

    const git = (...words: readonly string[]): Promise<string> =>
      output(["git", "-c", "user.name=t", "-c", "user.email=t@example.com", ...words], {
        cwd: bench.tree.path,
        env: process.env,
      });
    await git("tag", "v1.0.0");
    await watching.round();
    expect([names(watching.printed()), builds()]).toEqual([["two"], 5]);

    await git("commit", "-q", "--allow-empty", "-m", "two");
    await watching.round();
    expect([names(watching.printed()), builds()]).toEqual([["two"], 6]);

    // The work tree is clean no more: that is in another program.
    bench.tree.write({ "cmd/one/main.go": program("changed") });
    await watching.round();
    expect([names(watching.printed()).toSorted(), builds()]).toEqual([["one", "three"], 8]);
    bench.tree.write({ "cmd/one/main.go": program("one") });
    await watching.round();
    expect(names(watching.printed()).toSorted()).toEqual(["one", "three"]);
    const last = builds();

    bench.work.write({ "config/.ko.yaml": configOf("2", "{{.Git.Tag}}-{{.Git.FullCommit}}", "labels: {}\n") });
    const warned = await watching.said(/Warning: .*\n/);
    expect(warned).toContain('"labels" has no effect');
    expect(warned).not.toContain("ports");
    await watching.end();
    expect(builds()).toBe(last);
  }, 120_000);
});
