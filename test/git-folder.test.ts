import { describe, expect, test } from "bun:test";
import { readCommonFolder, readGitFile } from "../lib/git-folder.ts";
import { writeTree } from "./helpers/world-folders.ts";

const NAMED: readonly (readonly [string, string, string | undefined])[] = [
  ["a path from here", "gitdir: ../main/.git/worktrees/x\n", "main/.git/worktrees/x"],
  ["with the line end of Windows", "gitdir: ../main/.git\r\n", "main/.git"],
  ["without a line end", "gitdir: ../main/.git", "main/.git"],
  ["nothing", "gitdir: ", undefined],
  ["something else", "hello\n", undefined],
];

describe("readGitFile()", () => {
  test.each(NAMED)("%s", (_name, text, want) => {
    using tree = writeTree({ "tree/.git": text });
    expect(readGitFile(tree.at("tree/.git"))).toBe(want === undefined ? undefined : tree.at(want));
  });

  test("takes a whole path as it is, and fails without a file", () => {
    using tree = writeTree({ "tree/.git": "gitdir: /elsewhere/.git\n" });
    expect(readGitFile(tree.at("tree/.git"))).toBe("/elsewhere/.git");
    expect(() => readGitFile(tree.at("tree/none"))).toThrow("ENOENT");
  });
});

describe("readCommonFolder()", () => {
  test("is what a linked work tree names, else the folder itself", () => {
    using tree = writeTree({
      "main/.git/worktrees/x/commondir": "../..\n",
      "alone/.git/HEAD": "ref: refs/heads/main\n",
    });
    expect(readCommonFolder(tree.at("main/.git/worktrees/x"))).toBe(tree.at("main/.git"));
    expect(readCommonFolder(tree.at("alone/.git"))).toBe(tree.at("alone/.git"));
  });
});
