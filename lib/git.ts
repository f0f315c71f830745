/**
 * The state of a work tree as far as the Go tool stamps it into a binary (`-buildvcs`): commit, changes, tags.
 *
 * Also reads the `.git` files of linked work trees and submodules (https://git-scm.com/docs/gitrepository-layout).
 * Version control systems other than git are recognized, and left to the Go tool.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { look, readEntries } from "./file.ts";
import type { InputPlan } from "./fingerprint-inputs.ts";
import { ancestors, VCS_MARKS } from "./go-sources.ts";
import type { Host } from "./host.ts";

/** A work tree. "other": of a version control system that ko does not know. */
export type WorkTree =
  | { readonly kind: "none" }
  /** @property root absolute */
  | { readonly kind: "git"; readonly root: string }
  | { readonly kind: "other"; readonly name: string };

/** Finds the work tree around a folder. */
export function findWorkTree(dir: string): WorkTree {
  for (const root of ancestors(dir)) {
    const mark = VCS_MARKS.find((name) => look(join(root, name)) !== undefined);
    if (mark === ".git") return { kind: "git", root };
    if (mark !== undefined) return { kind: "other", name: mark };
  }
  return { kind: "none" };
}

/**
 * Reads the state of a git work tree, as a text to compare: the commit, and whether `git status` lists a change.
 *
 * Runs `git status` once, without writes to the repository. A failing or missing git is a state too.
 *
 * @param options.env the environment of the Go tool, which runs git too
 */
export async function readGitState(
  root: string,
  { host, env }: { readonly host: Host; readonly env: Readonly<Record<string, string>> },
): Promise<string> {
  try {
    const { code, stdout } = await host.run(["git", "status", "--porcelain=v2", "--branch"], {
      cwd: root,
      env: { ...env, GIT_OPTIONAL_LOCKS: "0", LC_ALL: "C" },
      anyExitCode: true,
    });
    if (code !== 0) return `git ended with ${code}`;
    const lines = new TextDecoder().decode(stdout).split("\n").filter(Boolean);
    const commit = lines.find((line) => line.startsWith("# branch.oid "))?.slice("# branch.oid ".length) ?? "";
    return `${commit} ${lines.some((line) => !line.startsWith("#")) ? "changed" : "clean"}`;
  } catch {
    host.signal.throwIfAborted();
    return "no git";
  }
}

/** The files and folders that decide the version of a commit: tags, the ends of a shallow history, settings. */
export function planTags(root: string): InputPlan {
  const shared = sharedFolder(root);
  if (shared === undefined) return { folders: [], files: [] };
  const names = ["packed-refs", "shallow", "config", join("reftable", "tables.list"), join("info", "grafts")];
  const tags = join(shared, "refs", "tags");
  const folders = [tags];
  const files = [...names.map((name) => join(shared, name)), tags];
  // A tag's name may hold slashes, so tags lie in subfolders. Moving a tag writes its file.
  for (let at = 0; at < folders.length; at++) {
    for (const entry of readEntries(folders[at] ?? "")) {
      (entry.isDirectory() ? folders : files).push(join(folders[at] ?? "", entry.name));
    }
  }
  const exists = (dir: string): boolean => look(dir)?.isDirectory() === true;
  return { folders: folders.filter(exists).map((dir) => ({ dir, kind: "entries" })), files };
}

/**
 * Reads the folder that a `.git` file of a linked work tree or submodule names; undefined if it names none.
 *
 * @throws If the file cannot be read.
 */
export function readGitFile(file: string): string | undefined {
  const pointer = /^gitdir: (.+?)[\r\n]*$/.exec(readFileSync(file, "utf8"))?.[1];
  return pointer === undefined ? undefined : resolve(dirname(file), pointer);
}

/**
 * Reads which folder all work trees of a repository share (`$GIT_COMMON_DIR`).
 *
 * @param own the work tree's own git folder; it is the shared one, too, where there are no linked work trees
 * @throws If the file that names the shared folder cannot be read.
 */
export function readCommonFolder(own: string): string {
  const file = join(own, "commondir");
  return existsSync(file) ? resolve(own, readFileSync(file, "utf8").trim()) : own;
}

/** The shared git folder of the work tree `root`; undefined if it cannot be found, as git cannot then either. */
function sharedFolder(root: string): string | undefined {
  const path = join(root, ".git");
  try {
    const own = look(path)?.isDirectory() === true ? path : readGitFile(path);
    return own === undefined ? undefined : readCommonFolder(own);
  } catch {
    return undefined;
  }
}
