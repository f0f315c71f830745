import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { renameSync } from "node:fs";
import { type GitStamp, markRepository, readStamp, whyNoStamp } from "../lib/git-stamp.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { commitTree, output } from "./helpers/world-programs.ts";

let tree: Tree;
let env: Record<string, string>;

beforeEach(async () => {
  tree = writeTree({ "app/go.mod": "module example.com/app\n", "home/.gitconfig": "", "home/included": "" });
  env = { PATH: process.env["PATH"] ?? "", HOME: tree.at("home"), GIT_CONFIG_SYSTEM: tree.at("system") };
  await commitTree(tree.at("app"), "v1.0.0");
});

afterEach(() => tree[Symbol.dispose]());

/** A moment at which everything that there is now has settled. */
const later = (): number => Date.now() + 60_000;

const host = (): ReturnType<typeof hostAt> => hostAt(tree.at("app"), { env, now: () => new Date(later()) });

const read = (): Promise<GitStamp> => readStamp(tree.at("app"), { host: host(), env, startedAt: later() });

function mark(settings: readonly string[]): string | undefined {
  return markRepository(tree.at("app"), { host: host(), env, settings, startedAt: later() });
}

const git = (...args: readonly string[]): Promise<string> => {
  const identity = {
    GIT_AUTHOR_NAME: "t",
    GIT_AUTHOR_EMAIL: "t@x",
    GIT_COMMITTER_NAME: "t",
    GIT_COMMITTER_EMAIL: "t@x",
  };
  return output(["git", ...args], { cwd: tree.at("app"), env: { ...env, ...identity } });
};

type Seen = "nothing" | "another mark" | "another stamp";

describe("a stamp and its mark", () => {
  test.each<[string, () => unknown, Seen]>([
    ["nothing changes", () => {}, "nothing"],
    ["a source", () => tree.write({ "app/go.mod": "module example.com/other\n" }), "nothing"],
    ["the index", () => git("update-index", "--refresh"), "nothing"],
    ["a commit", () => git("commit", "-q", "--allow-empty", "-m", "two"), "another stamp"],
    ["a tag", () => git("tag", "v1.1.0"), "another stamp"],
    [
      "a tag elsewhere",
      async () => git("tag", "x", (await git("commit-tree", "-m", "x", "HEAD^{tree}")).trim()),
      "another mark",
    ],
    ["a branch", () => git("branch", "x"), "another mark"],
    ["a new object", () => git("commit-tree", "-m", "x", "HEAD^{tree}"), "another mark"],
    ["packed refs", () => git("pack-refs", "--all"), "another mark"],
    ["a setting of the repository", () => git("config", "user.name", "x"), "another mark"],
    ["a setting of the user", () => tree.write({ "home/.gitconfig": "[user]\n\tname = x\n" }), "another mark"],
    [
      "a setting of the user, in the other file",
      () => tree.write({ "home/.config/git/config": "[user]\n\tname = x\n" }),
      "another mark",
    ],
    ["a setting of the system", () => tree.write({ system: "[user]\n\tname = x\n" }), "another mark"],
    [
      "another kind of hashes",
      () => tree.write({ "home/.gitconfig": "[extensions]\n\tobjectFormat = sha256\n" }),
      "another stamp",
    ],
    ["another branch of the same commit", () => git("checkout", "-q", "-b", "x"), "another mark"],
    [
      "a replacement of the commit",
      async () => git("replace", "HEAD", (await git("commit-tree", "-m", "x", "HEAD^{tree}")).trim()),
      "another stamp",
    ],
    [
      "a replacement, and replacements are off",
      async () => {
        await git("replace", "HEAD", (await git("commit-tree", "-m", "x", "HEAD^{tree}")).trim());
        tree.write({ "home/.gitconfig": "[core]\n\tuseReplaceRefs = false\n" });
      },
      "another mark",
    ],
    ["a graft", () => tree.write({ "app/.git/info/grafts": "" }), "another mark"],
    [
      "a shallow history",
      async () => tree.write({ "app/.git/shallow": await git("rev-parse", "HEAD") }),
      "another mark",
    ],
    ["the objects go", () => renameSync(tree.at("app/.git/objects"), tree.at("app/.git/x")), "another stamp"],
    ["another git", () => tree.write({ "bin/git": { executable: "#!/bin/sh\nexit 1\n" } }), "another stamp"],
  ])("%s: %s", async (_name, change, want) => {
    env["PATH"] = `${tree.at("bin")}:${env["PATH"]}`;
    const before = await read();
    expect(before.mark).toBe(mark(before.settings));
    await change();
    const after = await read();
    const seen: Seen =
      before.text !== after.text ? "another stamp" : before.mark === mark(before.settings) ? "nothing" : "another mark";
    expect(seen).toBe(want);
    // What Go reads is another only where the mark is.
    if (seen === "another stamp") expect(mark(before.settings)).not.toBe(before.mark);
  });

  test("an included file", async () => {
    tree.write({ "home/.gitconfig": '[include]\n\tpath = included\n[includeIf "gitdir:/"]\n\tpath = ~/none\n' });
    const before = await read();
    expect(before.settings).toEqual(expect.arrayContaining([tree.at("home/included"), tree.at("home/none")]));
    tree.write({ "home/none": "[user]\n\tname = x\n" });
    expect(mark(before.settings)).not.toBe(before.mark);
  });

  test("of what changed just now there is no mark", async () => {
    const stamp = await readStamp(tree.at("app"), {
      host: hostAt(tree.at("app"), { env }),
      env,
      startedAt: Date.now(),
    });
    expect(stamp.mark).toBeUndefined();
  });
});

describe("whyNoStamp()", () => {
  test.each([
    [{}, undefined],
    [{ GIT_AUTHOR_NAME: "x", GIT_OBJECT_DIRECTORY: "" }, undefined],
    [{ GIT_DIR: "x" }, "GIT_DIR is set"],
    [{ GIT_OBJECT_DIRECTORY: "x" }, "GIT_OBJECT_DIRECTORY is set"],
  ])("%o: %p", (variables, want) => {
    expect(whyNoStamp(variables)).toBe(want);
  });
});
