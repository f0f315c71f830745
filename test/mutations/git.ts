/** Mutations of what git says of a work tree, which Go stamps into programs. */
import { chmodSync, readdirSync, renameSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { goMod, mainGo } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";
import type { MutationGroup, World } from "./world.ts";

const FILES: Files = {
  "app/go.mod": goMod("example.com/app"),
  "app/cmd/app/main.go": mainGo(),
  "app/.gitignore": "ignored\n",
  "app/docs/notes": "notes\n",
  "home/.config/git/ignore": "",
  "etc/gitconfig": "[core]\n\tx = y\n",
};

/** A repository of two commits with a tag. */
async function commit(world: World): Promise<void> {
  await world.git("init", "-q", "-b", "main");
  await world.git("add", "-A");
  await world.git("commit", "-q", "-m", "one");
  await world.git("tag", "v0.1.0");
  await world.git("commit", "-q", "--allow-empty", "-m", "two");
}

const SETTING = (name: string, value: string): string => {
  const [section = "", key = ""] = name.split(".");
  return `[${section}]\n\t${key} = ${value}\n`;
};

/** Every object of the repository, as a path. */
function objects(world: World): readonly string[] {
  const root = world.at("app/.git/objects");
  return readdirSync(root)
    .filter((name) => name.length === 2)
    .flatMap((name) => readdirSync(join(root, name)).map((each) => join(root, name, each)));
}

async function removeObject(world: World, name: string): Promise<void> {
  const hash = (await world.git("rev-parse", name)).trim();
  const path = objects(world).find((each) => each.endsWith(`${hash.slice(0, 2)}/${hash.slice(2)}`)) ?? "";
  renameSync(path, `${path}.x`);
}

/** Another commit of another day in the place of one. */
async function replace(world: World, name: string, place = "refs/replace/"): Promise<void> {
  const replaced = (await world.git("rev-parse", name)).trim();
  const other = (await world.git("commit-tree", "-m", "other", `${name}^{tree}`)).trim();
  const text = await world.git("cat-file", "commit", other);
  world.write({ "commit.txt": text.replaceAll(/> \d+ /g, "> 1500000000 ") });
  const dated = (await world.git("hash-object", "-t", "commit", "-w", world.at("commit.txt"))).trim();
  await world.git("update-ref", `${place}${replaced}`, dated);
}

export const GIT: readonly MutationGroup[] = [
  {
    name: "a git repository",
    files: FILES,
    prepare: commit,
    mutations: [
      { name: "a commit", change: (w) => w.git("commit", "-q", "--allow-empty", "-m", "three"), makes: "another" },
      {
        name: "an amended commit",
        change: (w) => w.git("commit", "-q", "--amend", "--allow-empty", "-m", "three"),
        makes: "another",
      },
      { name: "the commit before", change: (w) => w.git("reset", "-q", "--hard", "HEAD^"), makes: "any" },
      {
        name: "another branch of the same commit",
        change: (w) => w.git("checkout", "-q", "-b", "x"),
        makes: "any",
      },
      { name: "the branch is left", change: (w) => w.git("checkout", "-q", "--detach"), makes: "any" },
      { name: "a branch without commits", change: (w) => w.git("checkout", "-q", "--orphan", "x"), makes: "any" },
      { name: "a tag", change: (w) => w.git("tag", "v1.0.0"), makes: "another" },
      { name: "an annotated tag", change: (w) => w.git("tag", "-a", "-m", "x", "v1.0.0"), makes: "another" },
      { name: "a tag that is no version", change: (w) => w.git("tag", "x"), makes: "any" },
      { name: "a tag for a folder", change: (w) => w.git("tag", "cmd/v1.0.0"), makes: "any" },
      { name: "the tag goes", change: (w) => w.git("tag", "-d", "v0.1.0"), makes: "another" },
      { name: "the tag moves", change: (w) => w.git("tag", "-f", "v0.1.0"), makes: "any" },
      { name: "refs are packed", change: (w) => w.git("pack-refs", "--all"), makes: "the same" },
      { name: "objects are packed", change: (w) => w.git("gc", "-q"), makes: "any" },
      {
        name: "a packed tag goes",
        change: async (w) => {
          await w.git("pack-refs", "--all");
          w.edit("app/.git/packed-refs", "refs/tags/v0.1.0", "refs/tags/x");
        },
        makes: "any",
      },
      { name: "an unknown file", change: (w) => w.write({ "app/new": "" }), makes: "another" },
      { name: "an ignored file", change: (w) => w.write({ "app/ignored": "" }), makes: "the same" },
      {
        name: "an unknown file that info/exclude names",
        change: (w) => w.write({ "app/new": "", "app/.git/info/exclude": "new\n" }),
        makes: "any",
      },
      {
        name: "an unknown file that the user's ignore file names",
        change: (w) => w.write({ "app/new": "", "home/.config/git/ignore": "new\n" }),
        makes: "any",
      },
      {
        name: "an unknown file that core.excludesFile names",
        change: (w) =>
          w.write({ "app/new": "", "home/x": "new\n", "home/.gitconfig": SETTING("core.excludesFile", "~/x") }),
        makes: "any",
      },
      {
        name: "an unknown file that is not shown",
        change: (w) => w.write({ "app/new": "", "home/.gitconfig": SETTING("status.showUntrackedFiles", "no") }),
        makes: "any",
      },
      { name: ".gitignore is edited", change: (w) => w.append("app/.gitignore", "more\n"), makes: "any" },
      { name: "a file is edited", change: (w) => w.append("app/docs/notes", "more\n"), makes: "another" },
      {
        name: "a file is edited and added",
        change: async (w) => {
          w.append("app/docs/notes", "more\n");
          await w.git("add", "-A");
        },
        makes: "any",
      },
      {
        name: "a file is edited that is assumed unchanged",
        change: async (w) => {
          await w.git("update-index", "--assume-unchanged", "docs/notes");
          w.append("app/docs/notes", "more\n");
        },
        makes: "any",
      },
      {
        name: "a file is removed that the work tree skips",
        change: async (w) => {
          await w.git("update-index", "--skip-worktree", "docs/notes");
          w.remove("app/docs/notes");
        },
        makes: "any",
      },
      { name: "a file is removed", change: (w) => w.remove("app/docs/notes"), makes: "another" },
      { name: "a file becomes executable", change: (w) => chmodSync(w.at("app/docs/notes"), 0o755), makes: "any" },
      {
        name: "a file becomes executable, and core.fileMode is off",
        change: async (w) => {
          chmodSync(w.at("app/docs/notes"), 0o755);
          await w.git("config", "core.fileMode", "false");
        },
        makes: "any",
      },
      {
        name: "a file is touched",
        change: (w) => utimesSync(w.at("app/docs/notes"), new Date(), new Date()),
        makes: "any",
      },
      {
        name: "a file gets line ends of Windows",
        change: (w) => w.write({ "app/docs/notes": "notes\r\n" }),
        makes: "any",
      },
      {
        name: "a file gets line ends of Windows, and core.autocrlf is on",
        change: (w) => w.write({ "app/docs/notes": "notes\r\n", "home/.gitconfig": SETTING("core.autocrlf", "true") }),
        makes: "any",
      },
      {
        name: "attributes",
        change: (w) => w.write({ "app/.git/info/attributes": "docs/notes text eol=crlf\n" }),
        makes: "any",
      },
      { name: "the index goes", change: (w) => w.remove("app/.git/index"), makes: "any" },
      { name: "the index is broken", change: (w) => w.write({ "app/.git/index": "x" }), makes: "any" },
      { name: "the repository goes", change: (w) => w.remove("app/.git"), makes: "another" },
      { name: "HEAD is broken", change: (w) => w.write({ "app/.git/HEAD": "x\n" }), makes: "any" },
      { name: "the configuration is broken", change: (w) => w.append("app/.git/config", "[\n"), makes: "any" },
      {
        name: "the user's configuration is broken",
        change: (w) => w.write({ "home/.gitconfig": "[\n" }),
        makes: "any",
      },
      {
        name: "the user's configuration has a name",
        change: (w) => w.write({ "home/.gitconfig": SETTING("user.name", "x") }),
        makes: "any",
      },
      { name: "a remote", change: (w) => w.git("remote", "add", "x", "https://example.com/x"), makes: "any" },
      {
        name: "a stash",
        change: async (w) => {
          w.append("app/docs/notes", "more\n");
          await w.git("stash", "-q");
        },
        makes: "any",
      },
      { name: "an unborn repository below", change: (w) => w.git("init", "-q", "cmd/app"), makes: "any" },
      {
        name: "a repository below",
        change: async (w) => {
          await w.git("init", "-q", "docs");
        },
        makes: "any",
      },
      { name: "another version control system below", change: (w) => w.write({ "app/cmd/.hg/x": "" }), makes: "any" },
      { name: "another version control system above", change: (w) => w.write({ ".hg/x": "" }), makes: "any" },
      {
        name: "a shallow repository",
        change: async (w) => w.write({ "app/.git/shallow": `${(await w.git("rev-parse", "HEAD")).trim()}\n` }),
        makes: "any",
      },
      { name: "the tagged commit goes", change: (w) => removeObject(w, "HEAD^"), makes: "any" },
      { name: "the last commit goes", change: (w) => removeObject(w, "HEAD"), makes: "any" },
      { name: "the tree of the last commit goes", change: (w) => removeObject(w, "HEAD^{tree}"), makes: "any" },
      { name: "the go.mod of the last commit goes", change: (w) => removeObject(w, "HEAD:go.mod"), makes: "any" },
      {
        name: "the tagged commit goes, whose tag is no version",
        change: async (w) => {
          await w.git("tag", "x", "HEAD^");
          await removeObject(w, "HEAD^");
        },
        makes: "any",
      },
      {
        name: "a branch of a commit that does not exist",
        change: (w) => w.write({ "app/.git/refs/heads/x": `${"1".repeat(40)}\n` }),
        makes: "any",
      },
      { name: "the last commit is replaced", change: (w) => replace(w, "HEAD"), makes: "any" },
      { name: "the tagged commit is replaced", change: (w) => replace(w, "HEAD^"), makes: "any" },
      {
        name: "the last commit is replaced, and replacements are off",
        change: async (w) => {
          await replace(w, "HEAD");
          w.write({ "home/.gitconfig": SETTING("core.useReplaceRefs", "false") });
        },
        makes: "any",
      },
      {
        name: "the last commit is replaced, and the environment turns replacements off",
        change: async (w) => {
          await replace(w, "HEAD");
          w.env["GIT_NO_REPLACE_OBJECTS"] = "1";
        },
        makes: "any",
      },
      {
        name: "replacements of another place",
        change: async (w) => {
          await replace(w, "HEAD", "refs/other/");
          w.env["GIT_REPLACE_REF_BASE"] = "refs/other/";
        },
        makes: "any",
      },
      {
        name: "a graft",
        change: async (w) => w.write({ "app/.git/info/grafts": `${(await w.git("rev-parse", "HEAD")).trim()}\n` }),
        makes: "any",
      },
      {
        name: "the user's configuration hides tags",
        change: (w) => w.write({ "home/.gitconfig": SETTING("log.excludeDecoration", "refs/tags/*") }),
        makes: "any",
      },
      {
        name: "the user's configuration hides tags of a tagged commit",
        change: async (w) => {
          await w.git("tag", "v0.2.0");
          w.write({ "home/.gitconfig": SETTING("log.excludeDecoration", "refs/tags/*") });
        },
        makes: "any",
      },
      {
        name: "the user's configuration names another kind of hashes",
        change: (w) => w.write({ "home/.gitconfig": SETTING("extensions.objectFormat", "sha256") }),
        makes: "any",
      },
      {
        name: "objects come that nothing names",
        change: (w) => w.git("hash-object", "-w", "docs/notes", "go.mod"),
        makes: "any",
      },
      { name: "a branch elsewhere", change: (w) => w.git("branch", "x", "HEAD^"), makes: "any" },
      {
        name: "GIT_OBJECT_DIRECTORY",
        change: (w) => void (w.env["GIT_OBJECT_DIRECTORY"] = w.at("none")),
        makes: "any",
      },
      {
        name: "GIT_DIR",
        change: (w) => {
          renameSync(w.at("app/.git"), w.at("repository"));
          w.write({ "app/.git": null });
          w.env["GIT_DIR"] = w.at("repository");
          w.env["GIT_WORK_TREE"] = w.at("app");
        },
        makes: "any",
      },
      {
        name: ".git becomes a file",
        change: (w) => {
          renameSync(w.at("app/.git"), w.at("repository"));
          w.write({ "app/.git": `gitdir: ${w.at("repository")}\n` });
        },
        makes: "any",
      },
      { name: "-buildvcs=false", change: (w) => void (w.env["GOFLAGS"] = "-buildvcs=false"), makes: "another" },
      { name: "-buildvcs=true", change: (w) => void (w.env["GOFLAGS"] = "-buildvcs=true"), makes: "any" },
      {
        name: "there is no git",
        change: (w) => void (w.env["PATH"] = w.env["PATH"]?.replace(":/usr/bin:/bin", "") ?? ""),
        makes: "any",
      },
      {
        name: "another program git",
        change: (w) => w.write({ "bin/git": { executable: "#!/bin/sh\nexit 1\n" } }),
        makes: "any",
      },
      {
        name: "GIT_CONFIG_COUNT",
        change: (w) => {
          Object.assign(w.env, { GIT_CONFIG_COUNT: "1", GIT_CONFIG_KEY_0: "core.bare", GIT_CONFIG_VALUE_0: "true" });
        },
        makes: "any",
      },
      {
        name: "the owner of the repository is not to be trusted",
        change: (w) => void (w.env["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"),
        makes: "any",
      },
    ],
  },
  {
    name: "a git repository whose last commit is replaced",
    files: { ...FILES, "home/included": "", "home/.gitconfig": "[include]\n\tpath = included\n" },
    prepare: async (w) => {
      await commit(w);
      await replace(w, "HEAD");
      await w.git("config", "extensions.worktreeConfig", "true");
    },
    mutations: [
      {
        name: "the user's configuration turns replacements off",
        change: (w) => w.append("home/.gitconfig", SETTING("core.useReplaceRefs", "false")),
        makes: "another",
      },
      {
        name: "the system's configuration turns replacements off",
        change: (w) => w.append("etc/gitconfig", SETTING("core.useReplaceRefs", "false")),
        makes: "another",
      },
      {
        name: "an included file turns replacements off",
        change: (w) => w.append("home/included", SETTING("core.useReplaceRefs", "false")),
        makes: "another",
      },
      {
        name: "the work tree's configuration turns replacements off",
        change: (w) => w.write({ "app/.git/config.worktree": SETTING("core.useReplaceRefs", "false") }),
        makes: "another",
      },
      {
        name: "the environment turns replacements off",
        change: (w) => void (w.env["GIT_NO_REPLACE_OBJECTS"] = "1"),
        makes: "another",
      },
      { name: "the replacement goes", change: (w) => w.remove("app/.git/refs/replace"), makes: "another" },
      { name: "the replacement is packed", change: (w) => w.git("pack-refs", "--all"), makes: "the same" },
    ],
  },
  {
    name: "a packed git repository",
    files: FILES,
    prepare: async (w) => {
      await commit(w);
      await w.git("gc", "-q");
    },
    mutations: [
      {
        name: "the pack goes",
        change: (w) => renameSync(w.at("app/.git/objects/pack"), w.at("app/.git/objects/x")),
        makes: "an error",
      },
      {
        name: "the pack is repeated",
        change: (w) => w.git("repack", "-q", "-a", "-d", "-f"),
        makes: "the same",
      },
      {
        name: "the objects are borrowed",
        change: (w) => {
          renameSync(w.at("app/.git/objects"), w.at("objects"));
          w.write({ "app/.git/objects/info/alternates": `${w.at("objects")}\n` });
        },
        makes: "the same",
      },
      { name: "the graph of commits goes", change: (w) => w.remove("app/.git/objects/info"), makes: "the same" },
      { name: "a tag", change: (w) => w.git("tag", "v1.0.0"), makes: "another" },
      {
        name: "a tag written by hand",
        change: async (w) => w.write({ "app/.git/refs/tags/v1.0.0": await w.git("rev-parse", "HEAD") }),
        makes: "another",
      },
    ],
  },
  {
    name: "a linked work tree",
    files: { ...FILES, "main/x": "" },
    prepare: async (w) => {
      await commit(w);
      await w.git("worktree", "add", "-q", w.at("linked"));
      renameSync(w.at("app"), w.at("first"));
      renameSync(w.at("linked"), w.at("app"));
      w.write({ "first/.git/worktrees/linked/gitdir": `${w.at("app/.git")}\n` });
      w.write({ "app/.git": `gitdir: ${w.at("first/.git/worktrees/linked")}\n` });
    },
    mutations: [
      { name: "a commit", change: (w) => w.git("commit", "-q", "--allow-empty", "-m", "three"), makes: "any" },
      { name: "a tag", change: (w) => w.git("tag", "v1.0.0"), makes: "any" },
      { name: "an unknown file", change: (w) => w.write({ "app/new": "" }), makes: "any" },
      {
        name: "a commit of the first work tree",
        change: (w) => w.git("-C", w.at("first"), "commit", "-q", "--allow-empty", "-m", "x"),
        makes: "the same",
      },
      { name: "it leads nowhere", change: (w) => w.write({ "app/.git": "gitdir: /none\n" }), makes: "any" },
      { name: "the repository goes", change: (w) => w.remove("first"), makes: "any" },
    ],
  },
  {
    name: "a submodule",
    files: { ...FILES, "top/go.mod": goMod("example.com/top") },
    prepare: async (w) => {
      await commit(w);
      w.write({ "home/.gitconfig": '[protocol "file"]\n\tallow = always\n' });
      await w.git("clone", "-q", "--bare", w.at("app"), w.at("bare"));
      w.write({ "app/docs/go.mod": goMod("example.com/docs") });
      await w.git("submodule", "--quiet", "add", w.at("bare"), "sub");
      await w.git("add", "-A");
      await w.git("commit", "-q", "-m", "sub");
    },
    mutations: [
      {
        name: "a file of the submodule is edited",
        change: (w) => w.append("app/sub/docs/notes", "more\n"),
        makes: "another",
      },
      { name: "an unknown file of the submodule", change: (w) => w.write({ "app/sub/new": "" }), makes: "another" },
      {
        name: "an unknown file of a submodule that is ignored",
        change: (w) => {
          w.write({ "app/sub/new": "" });
          w.append("home/.gitconfig", SETTING("diff.ignoreSubmodules", "all"));
        },
        makes: "the same",
      },
      {
        name: "another commit of the submodule",
        change: (w) => w.git("-C", w.at("app/sub"), "checkout", "-q", "HEAD^"),
        makes: "another",
      },
    ],
  },
];
