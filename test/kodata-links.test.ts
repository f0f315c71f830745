import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { kodataEntries } from "../lib/kodata.ts";
import { logIgnored } from "../lib/kodata-links.ts";
import { type Log, silentLog } from "../lib/log.ts";
import { kodataOptions, walkFailure, walkKodata } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

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
    const { contents, warnings } = walkKodata(data);
    expect(contents).toMatchObject({
      HEAD: "ref: refs/heads/other\n",
      "refs/heads/main": git(repo, ["rev-parse", "HEAD"]),
      "refs/heads/other": git(linked, ["rev-parse", "HEAD"]),
    });
    // There is none: nothing has been packed yet.
    expect(warnings).toEqual([`The symlink "${data}/packed-refs" is left out: its target does not exist.`]);
    git(linked, ["pack-refs", "--all"]);
    expect(walkKodata(data).contents["packed-refs"]).toContain("refs/heads/other");
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

  test("leaves out what is not there yet", () => {
    const repo = repository();
    git(repo, ["worktree", "add", "-q", "-b", "other", "../linked"]);
    for (const tree of [repo, join(folder, "linked")]) {
      const data = join(tree, "cmd/app/kodata");
      for (const name of ["HEAD", "refs"]) rmSync(join(data, name));
      symlinkSync("../../../.git/refs/nothing", join(data, "nothing"));
      expect(walkKodata(data)).toEqual({
        contents: {},
        warnings: [`The symlink "${data}/nothing" is left out: its target does not exist.`],
      });
    }
  });
});

const SECRET = "AUTHORIZATION: basic c2VjcmV0";

describe("findLinkTarget() refuses", () => {
  /** Work trees whose repository holds a secret in its configuration, with an empty `kodata`. */
  const trees: Readonly<Record<string, () => string>> = {
    "a work tree": () => start("main"),
    "a linked work tree": () => {
      git(start("main"), ["worktree", "add", "-q", "-b", "other", "../linked"]);
      return join(folder, "linked");
    },
    "a submodule": () => {
      const around = start("around");
      git(around, ["-c", "protocol.file.allow=always", "submodule", "add", "-q", start("main"), "sub"]);
      git(join(around, "sub"), ["config", "http.extraheader", SECRET]);
      return join(around, "sub");
    },
    "a submodule with its work tree in config.worktree": () => {
      const sub = trees["a submodule"]?.() ?? "";
      git(sub, ["config", "extensions.worktreeConfig", "true"]);
      git(sub, ["config", "--worktree", "core.worktree", git(sub, ["config", "core.worktree"]).trim()]);
      git(sub, ["config", "--unset", "core.worktree"]);
      return sub;
    },
    "a linked work tree of a submodule": () => {
      git(trees["a submodule"]?.() ?? "", ["worktree", "add", "-q", "-b", "other", "../../linked"]);
      return join(folder, "linked");
    },
  };
  const ways: Readonly<Record<string, string>> = {
    "its configuration": "../.git/config",
    "its configuration by another way": "../.git/./refs/../config",
    "a log": "../.git/logs/HEAD",
    "the reference logs": "../.git/logs",
    "its index": "../.git/index",
    "its objects": "../.git/objects",
    hooks: "../.git/hooks",
    "the last message": "../.git/COMMIT_EDITMSG",
    itself: "../.git",
  };

  test.each(Object.keys(trees))("all but HEAD, refs and packed-refs in %s", async (name) => {
    const tree = trees[name]?.() ?? "";
    const data = join(tree, "kodata");
    const link = join(data, "x");
    for (const way of Object.values(ways)) {
      symlinkSync(way, link);
      const failure = await walkFailure(data);
      expect(failure.message).toStartWith(`Cannot pack the symlink "${link}": it leads to "`);
      expect(failure.message).toContain(" in the git repository ");
      expect(failure.hint).toContain("Of a repository, only .git/HEAD, .git/refs and .git/packed-refs");
      expect(await walkFailure(data, { allowedRoot: "/" })).toEqual(failure);
      rmSync(link);
    }
    for (const file of ["HEAD", "refs"]) symlinkSync(`../.git/${file}`, join(data, file));
    const { contents, warnings } = walkKodata(data);
    expect({ HEAD: contents["HEAD"], warnings }).toEqual({ HEAD: head(tree), warnings: [] });
    expect(Object.keys(contents)).toContain("refs/heads/main");
    expect(Object.values(contents).join("")).not.toContain(SECRET);
  });
});

describe("findLinkTarget() and repositories in unusual places", () => {
  const refusal = (data: string): Promise<string> => walkFailure(data).then(({ message }) => message);

  test("refuses a chain of symlinks to a secret", async () => {
    const data = join(start("main"), "kodata");
    symlinkSync("../.git", join(folder, "main/alias"));
    symlinkSync("../.git", join(folder, "main/sub"));
    rmSync(join(folder, "main/alias"));
    symlinkSync(".git", join(folder, "main/alias"));
    symlinkSync("alias/config", join(folder, "main/settings"));
    symlinkSync("../settings", join(data, "x"));
    expect(await refusal(data)).toContain(`it leads to "${folder}/main/.git/config"`);
  });

  test("refuses references that are symlinks to a secret, and those that leave the repository", async () => {
    const tree = start("main");
    const data = join(tree, "kodata");
    symlinkSync("../../config", join(tree, ".git/refs/heads/evil"));
    symlinkSync("../.git/refs", join(data, "refs"));
    expect(await refusal(data)).toContain(`it leads to "${tree}/.git/config"`);
    rmSync(join(tree, ".git/refs/heads/evil"));
    symlinkSync("/etc/passwd", join(tree, ".git/refs/heads/evil"));
    expect(await refusal(data)).toContain('it leads to "/etc/passwd", wanted a path inside');
    symlinkSync("../.git/refs/heads/../../config", join(data, "a"));
    expect(await refusal(data)).toContain(`it leads to "${tree}/.git/config"`);
  });

  test("takes a HEAD that is a symlink to a reference, as old versions of git made it", () => {
    const tree = start("main");
    rmSync(join(tree, ".git/HEAD"));
    symlinkSync("refs/heads/main", join(tree, ".git/HEAD"));
    symlinkSync("../.git/HEAD", join(tree, "kodata/HEAD"));
    expect(walkKodata(join(tree, "kodata")).contents).toEqual({ HEAD: git(tree, ["rev-parse", "HEAD"]) });
  });

  test("refuses a repository inside the work tree, and leaves it out of a folder", async () => {
    const data = join(start("main"), "kodata");
    start("main/tools");
    symlinkSync("../tools", join(data, "tools"));
    const { contents, warnings } = walkKodata(data);
    expect(Object.keys(contents).filter((name) => name.includes("git"))).toEqual([]);
    expect(warnings).toEqual([
      `The folder "${folder}/main/tools/.git" is left out: a git repository may hold secrets such as tokens.`,
    ]);
    symlinkSync("../tools/.git/HEAD", join(data, "x"));
    expect(await refusal(data)).toContain(`in another git repository, "${folder}/main/tools/.git"`);
  });

  test("refuses a bare repository, and leaves it out of a folder that is linked", async () => {
    const data = join(start("main"), "kodata");
    mkdirSync(join(folder, "main/mirrors"));
    git(folder, ["clone", "-q", "--bare", "main", "main/mirrors/x.git"]);
    symlinkSync("../mirrors", join(data, "mirrors"));
    expect(walkKodata(data)).toEqual({
      contents: { mirrors: "" },
      warnings: [
        `The folder "${folder}/main/mirrors/x.git" is left out: a git repository may hold secrets such as tokens.`,
      ],
    });
    symlinkSync("../mirrors/x.git/config", join(data, "x"));
    expect(await refusal(data)).toContain(`in another git repository, "${folder}/main/mirrors/x.git"`);
  });

  test("packs a bare repository that lies in kodata, and links inside it, but no work tree's", () => {
    const data = join(start("main"), "kodata");
    git(folder, ["clone", "-q", "--bare", "main", "main/kodata/x.git"]);
    start("main/kodata/clone");
    symlinkSync("x.git/HEAD", join(data, "HEAD"));
    const { contents, warnings } = walkKodata(data);
    expect(contents).toMatchObject({ HEAD: "ref: refs/heads/main\n", "x.git/HEAD": "ref: refs/heads/main\n" });
    expect(warnings).toEqual([
      `The folder "${data}/clone/.git" is left out: a git repository may hold secrets such as tokens.`,
    ]);
  });

  test.each([".GIT", ".Git", ".g\u200cit"])("refuses %s, which some file systems take for .git", async (name) => {
    const tree = join(folder, "plain");
    mkdirSync(join(tree, "kodata"), { recursive: true });
    mkdirSync(join(tree, name));
    mkdirSync(join(tree, ".git"));
    writeFileSync(join(tree, name, "config"), SECRET);
    symlinkSync(`../${name}/config`, join(tree, "kodata/x"));
    expect(await refusal(join(tree, "kodata"))).toContain(" in the git repository ");
  });

  const pointers: Readonly<Record<string, (tree: string, other: string) => void>> = {
    "the repository of another work tree": (tree, other) =>
      writeFileSync(join(tree, ".git"), `gitdir: ${other}/.git\n`),
    "a linked work tree of another one": (tree, other) => {
      git(other, ["worktree", "add", "-q", "../third"]);
      writeFileSync(join(tree, ".git"), `gitdir: ${other}/.git/worktrees/third\n`);
    },
    "a folder whose shared folder is another repository": (tree, other) => {
      mkdirSync(join(tree, "evil"));
      writeFileSync(join(tree, "evil/HEAD"), "ref: refs/heads/main\n");
      writeFileSync(join(tree, "evil/commondir"), `${other}/.git\n`);
      writeFileSync(join(tree, "evil/gitdir"), `${tree}/.git\n`);
      writeFileSync(join(tree, "evil/config"), `[core]\nworktree = ${tree}\n`);
      writeFileSync(join(tree, ".git"), "gitdir: evil\n");
    },
    "a submodule of another work tree": (tree, other) => {
      git(other, ["-c", "protocol.file.allow=always", "submodule", "add", "-q", start("dep"), "sub"]);
      writeFileSync(join(tree, ".git"), `gitdir: ${other}/.git/modules/sub\n`);
    },
    "a folder that is no repository": (tree, other) => {
      mkdirSync(join(other, "ssh"));
      for (const name of ["id", "HEAD"]) writeFileSync(join(other, "ssh", name), "secret");
      writeFileSync(join(tree, ".git"), `gitdir: ${other}/ssh\n`);
    },
    "nothing that is there": (tree) => writeFileSync(join(tree, ".git"), "gitdir: /nowhere\n"),
  };
  test.each(Object.keys(pointers))("does not believe a .git file that names %s", async (name) => {
    const other = start("other");
    const tree = join(folder, "tree");
    mkdirSync(join(tree, "kodata"), { recursive: true });
    pointers[name]?.(tree, other);
    for (const file of ["HEAD", "refs", "packed-refs"]) {
      symlinkSync(`../.git/${file}`, join(tree, "kodata", file));
      expect(await walkFailure(join(tree, "kodata"))).toEqual({
        message: `Cannot pack the symlink "${tree}/kodata/${file}": "${tree}/.git" names a git repository that does not name "${tree}" as its work tree`,
        hint: `For a linked work tree that was moved, type: git worktree repair; else: git config core.worktree ${tree}`,
      });
      rmSync(join(tree, "kodata", file));
    }
  });

  test("believes a separate git directory that names its work tree, as the error says to type", async () => {
    const tree = start("main");
    git(tree, ["init", "-q", "--separate-git-dir", join(folder, "apart")]);
    symlinkSync("../.git/HEAD", join(tree, "kodata/HEAD"));
    expect(await refusal(join(tree, "kodata"))).toContain("does not name");
    git(tree, ["config", "core.worktree", tree]);
    expect(walkKodata(join(tree, "kodata")).contents).toEqual({ HEAD: head(tree) });
  });

  test("does not believe a .git folder whose work tree is another one, nor one that is a symlink", async () => {
    const tree = start("main");
    const other = start("other");
    symlinkSync("../.git/HEAD", join(tree, "kodata/HEAD"));
    git(tree, ["config", "core.worktree", other]);
    expect(await refusal(join(tree, "kodata"))).toContain(" in the git repository ");
    rmSync(join(tree, ".git"), { recursive: true });
    start("main/sub");
    symlinkSync("sub/.git", join(tree, ".git"));
    expect(await refusal(join(tree, "kodata"))).toContain(" in another git repository, ");
  });

  test("takes no work tree around the module cache", async () => {
    const tree = start("main");
    const dir = join(tree, ".go/pkg/mod/example.com/dep@v1.2.3/cmd/x");
    mkdirSync(join(dir, "kodata"), { recursive: true });
    symlinkSync(join(tree, "kodata"), join(dir, "kodata/x"));
    expect(await refusal(join(dir, "kodata"))).toEndWith(`wanted a path inside "${dir}/kodata"`);
  });
});

describe("logIgnored()", () => {
  test("names ignored files that symlinks lead to, in one line, and only with -v", async () => {
    const tree = start("main");
    const data = join(tree, "kodata");
    writeFileSync(join(tree, ".gitignore"), "/dist\n/kodata/own\n");
    mkdirSync(join(tree, "dist"));
    for (const name of ["a", "b", "c", "d"]) writeFileSync(join(tree, "dist", name), "");
    writeFileSync(join(tree, "tracked"), "");
    writeFileSync(join(data, "own"), "");
    git(tree, ["add", "tracked"]);
    symlinkSync("../dist", join(data, "web"));
    symlinkSync("../tracked", join(data, "tracked"));
    const said = async (isVerbose: boolean): Promise<readonly string[]> => {
      const lines: string[] = [];
      const log: Log = { ...silentLog, debug: (line) => void lines.push(line), isVerbose };
      const host = hostAt(tree, { env: { PATH: process.env["PATH"] ?? "" } });
      await logIgnored([...kodataEntries(kodataOptions(data, {}))], { directory: data, host, log });
      return lines;
    };
    expect(await said(false)).toEqual([]);
    const shown = ["a", "b", "c"].map((name) => `"${tree}/dist/${name}"`).join(", ");
    expect(await said(true)).toEqual([`Symlinks of "${data}" lead to files that git ignores: ${shown}, 1 more`]);
  });
});

/** Makes a repository with a commit, a secret in its configuration and an empty folder `kodata`. */
function start(name: string): string {
  const tree = join(folder, name);
  mkdirSync(join(tree, "kodata"), { recursive: true });
  writeFileSync(join(tree, "kodata/.keep"), "");
  git(tree, ["init", "-q", "-b", "main"]);
  git(tree, ["config", "http.extraheader", SECRET]);
  git(tree, ["add", "."]);
  git(tree, ["commit", "-q", "-m", "first"]);
  rmSync(join(tree, "kodata/.keep"));
  return tree;
}

/** The file HEAD of a work tree. */
function head(tree: string): string {
  return readFileSync(git(tree, ["rev-parse", "--path-format=absolute", "--git-path", "HEAD"]).trim(), "utf8");
}

/** Runs git without the user's settings; gives what it prints. */
function git(cwd: string, args: readonly string[]): string {
  const who = { GIT_AUTHOR_NAME: "a", GIT_AUTHOR_EMAIL: "a@b", GIT_COMMITTER_NAME: "a", GIT_COMMITTER_EMAIL: "a@b" };
  const env = { PATH: process.env["PATH"], HOME: folder, GIT_CONFIG_NOSYSTEM: "1", ...who };
  const { exitCode, stdout, stderr } = Bun.spawnSync(["git", ...args], { cwd, env });
  if (exitCode !== 0) throw new Error(`git ${args.join(" ")}: ${stderr.toString()}`);
  return stdout.toString();
}
