import { afterEach, describe, expect, test } from "bun:test";
import { relative } from "node:path";
import { findWorkTree, planTags, readGitState } from "../lib/git.ts";
import { type Files, type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { commitTree, output } from "./helpers/world-programs.ts";

let tree: Tree;

afterEach(() => tree[Symbol.dispose]());

describe("findWorkTree()", () => {
  test.each<[string, Files, string, ReturnType<typeof findWorkTree>["kind"]]>([
    ["none", { "a/b": null }, "a/b", "none"],
    ["git, above", { ".git": null, "a/b": null }, "a/b", "git"],
    ["a file that leads to git", { "a/.git": "gitdir: elsewhere\n" }, "a", "git"],
    ["another, nearer", { ".git": null, "a/.svn": null }, "a", "other"],
    ["fossil", { ".fslckout": "" }, "", "other"],
  ])("%s", (_name, files, dir, kind) => {
    tree = writeTree(files);
    expect(findWorkTree(tree.at(dir)).kind).toBe(kind);
  });
});

describe("readGitState()", () => {
  const state = (env: Readonly<Record<string, string>> = {}): Promise<string> => {
    const host = hostAt(tree.path);
    return readGitState(tree.path, { host, env: { ...host.env, ...env } });
  };

  test("is the commit, and whether anything is changed", async () => {
    tree = writeTree({ a: "a" });
    await commitTree(tree.path);
    const commit = (await output(["git", "rev-parse", "HEAD"], { cwd: tree.path, env: process.env })).trim();
    expect(await state()).toBe(`${commit} clean`);
    tree.write({ b: "" });
    expect(await state()).toBe(`${commit} changed`);
  });

  test("is something before the first commit, with a broken repository, and without git", async () => {
    tree = writeTree({ a: "a" });
    await output(["git", "init", "-q"], { cwd: tree.path, env: process.env });
    expect(await state()).toBe("(initial) changed");
    expect(await state({ PATH: tree.path })).toBe("no git");
    tree[Symbol.dispose]();
    tree = writeTree({ ".git": "nonsense" });
    expect(await state()).toMatch(/^git ended with \d+$/);
  });
});

test("planTags() names what makes versions, of a linked work tree too", async () => {
  tree = writeTree({ "main/a": "a" });
  const git = (...args: readonly string[]): Promise<string> =>
    output(["git", ...args], { cwd: tree.at("main"), env: process.env });
  await commitTree(tree.at("main"));
  await git("tag", "v1.0.0");
  await git("tag", "sub/v1.0.0");
  await git("worktree", "add", "-q", "../linked", "-b", "other");
  for (const root of ["main", "linked"]) {
    const { files, folders } = planTags(tree.at(root));
    const names = [...files, ...folders.map(({ dir }) => dir)].map((path) => relative(tree.at("main/.git"), path));
    expect(names).toContain("refs/tags/v1.0.0");
    expect(names).toContain("refs/tags/sub");
    expect(names).toContain("refs/tags/sub/v1.0.0");
    expect(names).toContain("packed-refs");
    expect(names).toContain("shallow");
  }
});
