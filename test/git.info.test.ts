import { describe, expect, test } from "bun:test";
import { chownSync, realpathSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { readGitInfo } from "../lib/git.ts";
import type { Host } from "../lib/host.ts";
import type { GitInfo } from "../lib/template-data.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

const DATE = "2024-03-01T11:30:00+01:00";

/** Without the settings of this machine, such as safe.directory. */
const env: Readonly<Record<string, string>> = {
  PATH: process.env["PATH"] ?? "",
  HOME: "/nonexistent",
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_AUTHOR_NAME: "t",
  GIT_AUTHOR_EMAIL: "t@example.com",
  GIT_COMMITTER_NAME: "t",
  GIT_COMMITTER_EMAIL: "t@example.com",
  GIT_AUTHOR_DATE: "2020-01-01T00:00:00Z",
  GIT_COMMITTER_DATE: DATE,
};

const EMPTY: GitInfo = {
  Branch: "",
  Tag: "",
  ShortCommit: "",
  FullCommit: "",
  CommitDate: "0001-01-01T00:00:00Z",
  CommitTimestamp: -62135596800,
  IsDirty: false,
  IsClean: true,
  TreeState: "clean",
};

interface Scene {
  readonly tree: Tree;
  /** Runs git in the folder `main` of the tree, or another one. `%` stands for the tree. */
  readonly git: (args: string, dir?: string) => void;
  readonly commit: (dir?: string) => void;
}

/** A tree with an empty repository on the branch `main`, in the folder `main`. */
function makeScene(): Scene & Disposable {
  const tree = writeTree({ "main/a.txt": "a" });
  const git = (args: string, dir = "main"): void => {
    const argv = [
      "git",
      "-c",
      "protocol.file.allow=always",
      ...args.split(" ").map((word) => word.replaceAll("%", tree.path)),
    ];
    const { exitCode, stderr } = Bun.spawnSync(argv, { cwd: tree.at(dir), env: { ...env } });
    if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${stderr.toString()}`);
  };
  const commit = (dir?: string): void => {
    git("add -A", dir);
    git("commit -q --allow-empty -m one", dir);
  };
  git("init -q -b main");
  return { tree, git, commit, [Symbol.dispose]: () => tree[Symbol.dispose]() };
}

/** The values as the original reads them, by its seven commands (pkg/internal/git of ko v0.19.1). */
function original(dir: string): GitInfo {
  const run = (...args: readonly string[]): { readonly isOk: boolean; readonly text: string } => {
    const { exitCode, stdout } = Bun.spawnSync(["git", "-c", "log.showSignature=false", ...args], {
      cwd: dir,
      env: { ...env },
    });
    return { isOk: exitCode === 0, text: exitCode === 0 ? stdout.toString() : "" };
  };
  const clean = (text: string): string => (text.split("\n")[0] ?? "").replaceAll("'", "");
  if (run("rev-parse", "--is-inside-work-tree").text.trim() !== "true") return EMPTY;
  const branch = run("rev-parse", "--abbrev-ref", "HEAD", "--quiet");
  const [short, full, date] = ["%h", "%H", "'%ct'"].map((format) =>
    run("show", `--format=${format}`, "HEAD", "--quiet"),
  );
  if (!branch.isOk || short?.isOk !== true || full?.isOk !== true || date?.isOk !== true) return EMPTY;
  const status = run("status", "--porcelain");
  const isDirty = !status.isOk || status.text.trim() !== "";
  const tag = run("describe", "--tags", "--abbrev=0", "HEAD");
  const seconds = Number(clean(date.text));
  return {
    Branch: clean(branch.text),
    Tag: tag.isOk ? clean(tag.text).trim() : "v0.0.0",
    ShortCommit: clean(short.text),
    FullCommit: clean(full.text),
    CommitDate: new Date(seconds * 1000).toISOString().replace(".000", ""),
    CommitTimestamp: seconds,
    IsDirty: isDirty,
    IsClean: !isDirty,
    TreeState: isDirty ? "dirty" : "clean",
  };
}

interface Case {
  readonly name: string;
  readonly make: (scene: Scene) => void;
  /** Where git runs. @default "main" */
  readonly dir?: string;
  /** The values of the golden table, as far as they do not depend on hashes. */
  readonly info: Partial<GitInfo>;
  readonly warnings?: readonly RegExp[];
}

const NO_TAG = /^\.Git\.Tag is v0\.0\.0 in ".*": no tag leads to this commit$/;

const CASES: readonly Case[] = [
  {
    name: "a tagged commit",
    make: ({ git, commit }) => (commit(), git("tag v1.0.0")),
    info: {
      Branch: "main",
      Tag: "v1.0.0",
      CommitDate: "2024-03-01T10:30:00Z",
      CommitTimestamp: 1709289000,
      IsDirty: false,
      IsClean: true,
      TreeState: "clean",
    },
  },
  {
    name: "no repository",
    make: ({ tree }) => tree.write({ "other/a": "" }),
    dir: "other",
    info: EMPTY,
    warnings: [/^templates have no \.Git in ".*\/other": it is not in a git work tree$/],
  },
  {
    name: "no commit",
    make: () => {},
    info: EMPTY,
    warnings: [/^templates have no \.Git in ".*\/main": there is no commit yet$/],
  },
  { name: "no tag", make: ({ commit }) => commit(), info: { Tag: "v0.0.0", Branch: "main" }, warnings: [NO_TAG] },
  {
    name: "a tag of an older commit",
    make: ({ git, commit }) => (commit(), git("tag v1.0.0"), commit()),
    info: { Tag: "v1.0.0" },
  },
  {
    name: "a tag of a branch that was merged, and one that was not",
    make: ({ git, commit }) => {
      commit();
      for (const branch of ["merged", "open"]) {
        git(`checkout -q -b ${branch} main`);
        commit();
        git(`tag ${branch}-1`);
      }
      git("checkout -q main");
      git("merge -q --no-ff -m merge merged");
    },
    info: { Tag: "merged-1" },
  },
  {
    name: "an annotated and a plain tag of one commit",
    make: ({ git, commit }) => (commit(), git("tag plain"), git("tag -a -m x annotated"), git("tag zzz")),
    info: { Tag: "annotated" },
  },
  {
    name: "slashes and quotes in names",
    make: ({ git, commit }) => (commit(), git("checkout -q -b feat/it's"), git("tag rel/it's-1")),
    info: { Branch: "feat/its", Tag: "rel/its-1" },
  },
  {
    name: "a tag with the name of the branch",
    make: ({ git, commit }) => (commit(), git("tag main")),
    info: { Branch: "heads/main", Tag: "main" },
  },
  {
    name: "a detached HEAD",
    make: ({ git, commit }) => (commit(), git("tag v1"), git("checkout -q --detach")),
    info: { Branch: "HEAD", Tag: "v1" },
  },
  {
    name: "another length of short hashes",
    make: ({ git, commit }) => (commit(), git("tag v1"), git("config core.abbrev 11")),
    info: { Tag: "v1" },
  },
  {
    name: "signatures and a format in the configuration",
    make: ({ git, commit }) => {
      commit();
      git("tag v1");
      git("config log.showSignature true");
      git("config format.pretty fuller");
      git("config status.short false");
    },
    info: { Tag: "v1", IsDirty: false },
  },
  {
    name: "a changed file",
    make: ({ tree, git, commit }) => (commit(), git("tag v1"), tree.write({ "main/a.txt": "b" })),
    info: { IsDirty: true, IsClean: false, TreeState: "dirty" },
    warnings: [/^the git work tree of ".*" has changes, so \.Git\.IsDirty is true:\n {3}M a\.txt$/],
  },
  {
    name: "a staged file, and an untracked one",
    make: ({ tree, git, commit }) => (
      commit(),
      git("tag v1"),
      tree.write({ "main/b": "", "main/c": "" }),
      git("add b")
    ),
    info: { TreeState: "dirty" },
    warnings: [/:\n {2}A {2}b\n {2}\?\? c$/],
  },
  {
    name: "an ignored file",
    make: ({ tree, git, commit }) => {
      tree.write({ "main/.gitignore": "*.log\n" });
      commit();
      git("tag v1");
      tree.write({ "main/x.log": "" });
    },
    info: { TreeState: "clean" },
  },
  {
    name: "many changes, without a tag",
    make: ({ tree, commit }) => {
      commit();
      tree.write(Object.fromEntries(Array.from({ length: 14 }, (_, i) => [`main/f${i}`, ""])));
    },
    info: { Tag: "v0.0.0", TreeState: "dirty" },
    warnings: [NO_TAG, /(\n {2}\?\? f\d+){10}\n {2}… and 4 more$/],
  },
  {
    name: "a broken index",
    make: ({ tree, git, commit }) => (commit(), git("tag v1"), tree.write({ "main/.git/index": "nonsense" })),
    info: { Tag: "v1", TreeState: "dirty" },
    warnings: [/has changes, so \.Git\.IsDirty is true$/],
  },
  {
    name: "a subfolder",
    make: ({ tree, git, commit }) => (tree.write({ "main/sub/x": "" }), commit(), git("tag v1")),
    dir: "main/sub",
    info: { Branch: "main", Tag: "v1", TreeState: "clean" },
  },
  {
    name: "a linked work tree",
    make: ({ git, commit }) => (commit(), git("tag v1"), git("worktree add -q ../linked -b other")),
    dir: "linked",
    info: { Branch: "other", Tag: "v1" },
  },
  {
    name: "a submodule",
    make: ({ tree, git, commit }) => {
      commit();
      git("tag v1");
      tree.write({ "outer/x": "" });
      git("init -q -b trunk", "outer");
      git("submodule --quiet add ../main inner", "outer");
      git("checkout -q -b subbranch", "outer/inner");
    },
    dir: "outer/inner",
    info: { Branch: "subbranch", Tag: "v1" },
  },
  {
    name: "a shallow clone with its tag",
    make: ({ git, commit }) => (commit(), commit(), git("tag v1"), git("clone -q --depth=1 file://%/main ../shallow")),
    dir: "shallow",
    info: { Branch: "main", Tag: "v1" },
  },
  {
    name: "a shallow clone without the tag",
    make: ({ git, commit }) => (commit(), git("tag v1"), commit(), git("clone -q --depth=1 file://%/main ../shallow")),
    dir: "shallow",
    info: { Tag: "v0.0.0" },
    warnings: [/no tag leads to this commit; the clone is shallow, so type: git fetch --tags --unshallow$/],
  },
  {
    name: "a bare repository",
    make: ({ git, commit }) => (commit(), git("clone -q --bare %/main ../bare")),
    dir: "bare",
    info: EMPTY,
    warnings: [/it is not in a git work tree$/],
  },
  {
    name: "the git folder",
    make: ({ commit }) => commit(),
    dir: "main/.git",
    info: EMPTY,
    warnings: [/it is not in a git work tree$/],
  },
  {
    name: "a broken repository",
    make: ({ tree }) => tree.write({ "main/.git/HEAD": "nonsense" }),
    info: EMPTY,
    warnings: [/^templates have no \.Git in /],
  },
  {
    name: "a branch that does not exist any more",
    make: ({ tree, commit }) => (commit(), tree.write({ "main/.git/HEAD": "ref: refs/heads/gone\n" })),
    info: EMPTY,
    warnings: [/there is no commit yet$/],
  },
];

describe("readGitInfo()", () => {
  const read = (dir: string, more: Partial<Parameters<typeof readGitInfo>[1]> = {}): ReturnType<typeof readGitInfo> =>
    readGitInfo(dir, { host: hostAt(dir), env, ...more });

  test.each(CASES.map((one) => [one.name, one] as const))("%s, as in the original", async (_name, one) => {
    using scene = makeScene();
    one.make(scene);
    const dir = scene.tree.at(one.dir ?? "main");
    const { info, warnings } = await read(dir);
    expect(info).toEqual(original(dir));
    expect(info).toMatchObject(one.info);
    const wanted = one.warnings ?? [];
    expect({ warnings, count: warnings.length }).toMatchObject({ count: wanted.length });
    for (const [i, pattern] of wanted.entries()) expect(warnings[i]).toMatch(pattern);
  });

  test.skipIf(process.getuid?.() !== 0)("another owner, as in the original", async () => {
    using scene = makeScene();
    scene.commit();
    const dir = scene.tree.at("main");
    for (const path of [dir, join(dir, ".git")]) chownSync(path, 12345, 12345);
    const { info, warnings } = await read(dir);
    expect([info, original(dir)]).toEqual([EMPTY, EMPTY]);
    const trust = `git config --global --add safe.directory ${realpathSync(dir)}`;
    const why = `another user owns the repository; to trust it, type: ${trust}`;
    expect(warnings).toEqual([`templates have no .Git in "${dir}": ${why}`]);
  });

  test("without git", async () => {
    using scene = makeScene();
    const dir = scene.tree.at("main");
    const { info, warnings } = await read(dir, { env: { ...env, PATH: dir } });
    expect(info).toEqual(EMPTY);
    expect(warnings).toEqual([
      `templates have no .Git in "${dir}": Cannot run git: it is not installed, or not on PATH`,
    ]);
  });

  test.each<[string, readonly string[]]>([
    ["Branch", ["rev-parse"]],
    ["Tag", ["describe", "rev-parse"]],
    ["ShortCommit FullCommit CommitDate CommitTimestamp", ["rev-parse", "show"]],
    ["IsDirty IsClean TreeState", ["rev-parse", "status"]],
    ["Tag FullCommit", ["describe", "rev-parse", "show"]],
  ])("starts no git that %s does not need", async (names, commands) => {
    using scene = makeScene();
    scene.commit();
    scene.git("tag v1");
    const dir = scene.tree.at("main");
    const started: string[] = [];
    const host: Host = hostAt(dir);
    const listening: Host = {
      ...host,
      run: (argv, options) => {
        started.push(argv[3] ?? "");
        return host.run(argv, options);
      },
    };
    const { info } = await read(dir, { host: listening, fields: new Set(names.split(" ")) });
    expect(started.sort()).toEqual([...commands]);
    const all = Object.entries(original(dir)).filter(([name]) => name in info);
    expect(info).toEqual(Object.fromEntries(all));
    for (const name of names.split(" ")) expect(Object.keys(info)).toContain(name);
  });

  test("writes nothing into the repository", async () => {
    using scene = makeScene();
    scene.commit();
    const dir = scene.tree.at("main");
    const inode = (): number => statSync(join(dir, ".git", "index")).ino;
    const before = inode();
    // Git would refresh the index, because the file's time changed.
    utimesSync(join(dir, "a.txt"), 1, 1);
    await read(dir);
    expect(inode()).toBe(before);
  });
});
