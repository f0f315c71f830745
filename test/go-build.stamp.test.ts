import { describe, expect, test } from "bun:test";
import { chownSync, mkdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { goBuild, planGoBuild } from "../lib/go-build.ts";
import { buildEnvironment } from "../lib/go.ts";
import { type Failure, failuresOf } from "./helpers/failures.ts";
import { goMod, goWorld, listPrograms, mainGo } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

const LINUX = { os: "linux", architecture: "amd64" };

/** Git without the settings of this machine, such as safe.directory. */
const GIT = {
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_AUTHOR_NAME: "t",
  GIT_AUTHOR_EMAIL: "t@example.com",
  GIT_COMMITTER_NAME: "t",
  GIT_COMMITTER_EMAIL: "t@example.com",
};

const MODULE = { "main/go.mod": goMod("example.com/app"), "main/main.go": mainGo() };

const FAILED =
  'Cannot build "example.com/app" for linux/amd64: go build failed (exit code 1)\nerror obtaining VCS status: exit status 128';

function git(cwd: string, ...args: readonly string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["git", ...args], { cwd, env: { ...process.env, ...GIT } });
  if (exitCode !== 0) throw new Error(stderr.toString());
}

/** A module in `main`, committed. */
function makeCheckout(): Tree {
  const tree = writeTree(MODULE);
  const dir = tree.at("main");
  git(dir, "init", "-q");
  git(dir, "add", ".");
  git(dir, "commit", "-q", "-m", "x");
  return tree;
}

/** Builds the module in the folder, with stamping on, which must fail. */
async function failBuild(dir: string, env: Readonly<Record<string, string>> = {}): Promise<Failure | undefined> {
  const world = goWorld(dir, { ...GIT, GOFLAGS: "", ...env });
  const { programs } = await listPrograms(["."], { ...world, platform: LINUX });
  const outDir = join(dir, "..", "out");
  const plan = planGoBuild(programs, { platform: LINUX, env: buildEnvironment(LINUX, world.host.env), outDir });
  const [failure] = await failuresOf(Array.fromAsync(goBuild(plan, { ...world, args: [] })));
  return failure;
}

describe("a work tree whose commit Go cannot stamp", () => {
  test.skipIf(process.getuid?.() !== 0)("of another user: git's reason, and two ways out", async () => {
    using tree = makeCheckout();
    const dir = tree.at("main");
    for (const path of [dir, join(dir, ".git")]) chownSync(path, 12345, 12345);
    const root = realpathSync(dir);
    const trust = `git config --global --add safe.directory ${root}`;
    expect(await failBuild(dir)).toEqual({
      message: `${FAILED}\ngit: detected dubious ownership in repository at '${root}'`,
      hint: `${trust}\nOr build without the commit: export GOFLAGS=-buildvcs=false`,
    });
    expect((await failBuild(dir, { GOFLAGS: "-trimpath" }))?.hint).toBe(
      `${trust}\nOr build without the commit: export GOFLAGS="$GOFLAGS -buildvcs=false"`,
    );
  });

  test.each<readonly [string, (dir: string) => void, string | RegExp]>([
    ["a broken HEAD", (dir) => writeFileSync(join(dir, ".git", "HEAD"), "nothing\n"), /not a git repository/],
    [
      "a damaged index",
      (dir) => writeFileSync(join(dir, ".git", "index"), "nothing at all, too short to be an index"),
      /bad signature|index file/,
    ],
    [
      "settings that do not parse",
      (dir) => writeFileSync(join(dir, ".git", "config"), "[core\n"),
      /bad config line 1 in file/,
    ],
    [
      "a commit that is missing",
      (dir) => {
        rmSync(join(dir, ".git", "objects"), { recursive: true });
        mkdirSync(join(dir, ".git", "objects"));
      },
      /bad object HEAD|object/,
    ],
  ])("%s: git's reason, and how to build all the same", async (_what, breakIt, why) => {
    using tree = makeCheckout();
    breakIt(tree.at("main"));
    const failure = await failBuild(tree.at("main"));
    expect(failure?.message).toStartWith(`${FAILED}\ngit: `);
    expect(failure?.message.slice(FAILED.length)).toMatch(why);
    expect(failure?.hint).toBe("Build without the commit: export GOFLAGS=-buildvcs=false");
  });

  test("of another system than git: Go's message, and how to build all the same", async () => {
    const hg = { executable: "#!/bin/sh\nexit 255\n" };
    using tree = writeTree({ ...MODULE, "main/.hg": null, "bin/hg": hg });
    const failure = await failBuild(tree.at("main"), { PATH: `${tree.at("bin")}:${process.env["PATH"]}` });
    expect(failure).toEqual({
      message: FAILED.replace("128", "255"),
      hint: "Build without the commit: export GOFLAGS=-buildvcs=false",
    });
  });
});

describe("a machine without a place for Go's build cache", () => {
  test("gets a command that names one", async () => {
    using tree = writeTree(MODULE);
    const failure = await failBuild(tree.at("main"), { HOME: "", GOCACHE: "", GOPATH: "/nonexistent" });
    expect(failure?.message).toContain("build cache is required");
    expect(failure?.hint).toBe("export GOCACHE=$(mktemp -d)");
  });
});
