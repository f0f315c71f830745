import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { walkFailure, walkKodata } from "./helpers/world-folders.ts";

/** Without links in its path. */
let folder: string;

beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "ko-links-test-")));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("findLinkTarget() and git", () => {
  /** A repository with a commit, `kodata/HEAD` and `kodata/refs` linked to `.git` as ko's documentation says. */
  function repository(): string {
    const repo = join(folder, "main");
    const data = join(repo, "cmd/app/kodata");
    mkdirSync(data, { recursive: true });
    git(repo, ["init", "-q", "-b", "main"]);
    symlinkSync("../../../.git/HEAD", join(data, "HEAD"));
    symlinkSync("../../../.git/refs", join(data, "refs"));
    git(repo, ["add", "."]);
    git(repo, ["commit", "-q", "-m", "first"]);
    return repo;
  }

  test("takes HEAD and refs from a .git folder", () => {
    const repo = repository();
    const { contents, warnings } = walkKodata(join(repo, "cmd/app/kodata"));
    expect(contents).toMatchObject({
      HEAD: "ref: refs/heads/main\n",
      "refs/heads/main": git(repo, ["rev-parse", "HEAD"]),
    });
    expect(warnings).toEqual([]);
  });

  test("takes a linked work tree's own HEAD and the shared refs", () => {
    const repo = repository();
    git(repo, ["worktree", "add", "-q", "-b", "other", "../linked"]);
    const linked = join(folder, "linked");
    git(linked, ["commit", "-q", "--allow-empty", "-m", "second"]);
    const data = join(linked, "cmd/app/kodata");
    symlinkSync("../../../.git/packed-refs", join(data, "packed-refs"));
    symlinkSync("../../../.git/logs/HEAD", join(data, "log"));
    const { contents, warnings } = walkKodata(data);
    expect(contents).toMatchObject({
      HEAD: "ref: refs/heads/other\n",
      "refs/heads/main": git(repo, ["rev-parse", "HEAD"]),
      "refs/heads/other": git(linked, ["rev-parse", "HEAD"]),
      log: readFileSync(git(linked, ["rev-parse", "--git-path", "logs/HEAD"]).trim(), "utf8"),
    });
    // There is none: nothing has been packed yet.
    expect(warnings).toEqual([`The symlink "${data}/packed-refs" is left out: its target does not exist.`]);
  });

  test("takes a submodule's HEAD and refs", () => {
    const repo = repository();
    const around = join(folder, "around");
    mkdirSync(around);
    git(around, ["init", "-q", "-b", "trunk"]);
    git(around, ["-c", "protocol.file.allow=always", "submodule", "add", "-q", repo, "sub"]);
    const sub = join(around, "sub");
    const { contents, warnings } = walkKodata(join(sub, "cmd/app/kodata"));
    expect(contents).toMatchObject({
      HEAD: "ref: refs/heads/main\n",
      "refs/heads/main": git(sub, ["rev-parse", "HEAD"]),
    });
    expect(warnings).toEqual([]);
  });

  test("allows no other way to that folder", async () => {
    const repo = repository();
    git(repo, ["worktree", "add", "-q", "-b", "other", "../linked"]);
    const data = join(folder, "linked/cmd/app/kodata");
    symlinkSync(join(repo, ".git/config"), join(data, "direct"));
    expect((await walkFailure(data)).message).toContain(
      `it leads to "${repo}/.git/config", wanted a path inside "${folder}/linked"`,
    );
  });

  test("leaves out what .git/… cannot mean", () => {
    const repo = repository();
    git(repo, ["worktree", "add", "-q", "-b", "other", "../linked"]);
    writeFileSync(join(folder, "secret"), "s");
    symlinkSync(join(folder, "secret"), join(repo, ".git/refs/escape"));
    const data = join(folder, "linked/cmd/app/kodata");
    for (const name of ["HEAD", "refs"]) rmSync(join(data, name));
    symlinkSync("../../../.git/../../secret", join(data, "a-dots"));
    symlinkSync("../../../.git/refs/escape", join(data, "b-escape"));
    symlinkSync("../../../.git/nothing", join(data, "c-nothing"));
    expect(walkKodata(data)).toEqual({
      contents: {},
      warnings: ["a-dots", "b-escape", "c-nothing"].map(
        (name) => `The symlink "${data}/${name}" is left out: its target does not exist.`,
      ),
    });
  });

  test("does not believe a .git file that names a folder which is no repository", () => {
    const data = join(folder, "repo/kodata");
    mkdirSync(data, { recursive: true });
    mkdirSync(join(folder, "ssh"));
    for (const name of ["id", "HEAD"]) writeFileSync(join(folder, "ssh", name), "secret");
    writeFileSync(join(folder, "repo/.git"), "gitdir: ../ssh\n");
    symlinkSync("../.git/id", join(data, "id"));
    expect(walkKodata(data)).toEqual({
      contents: {},
      warnings: [`The symlink "${data}/id" is left out: its target does not exist.`],
    });
  });
});

/** Runs git without the user's settings; gives what it prints. */
function git(cwd: string, args: readonly string[]): string {
  const who = { GIT_AUTHOR_NAME: "a", GIT_AUTHOR_EMAIL: "a@b", GIT_COMMITTER_NAME: "a", GIT_COMMITTER_EMAIL: "a@b" };
  const env = { PATH: process.env["PATH"], HOME: folder, GIT_CONFIG_NOSYSTEM: "1", ...who };
  const { exitCode, stdout, stderr } = Bun.spawnSync(["git", ...args], { cwd, env });
  if (exitCode !== 0) throw new Error(`git ${args.join(" ")}: ${stderr.toString()}`);
  return stdout.toString();
}
