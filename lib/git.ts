/**
 * What a version control system says of a work tree, as far as the Go tool stamps it into a program: the commit, whether
 * anything is changed, the tags that make a version of it.
 *
 * https://pkg.go.dev/cmd/go#hdr-Compile_packages_and_dependencies (`-buildvcs`)
 *
 * Where git keeps what belongs to a work tree: its own folder, and the one that all work trees of a repository share.
 *
 * https://git-scm.com/docs/gitrepository-layout
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { look, readEntries } from "./file.ts";
import type { InputPlan } from "./fingerprint-inputs.ts";
import { ancestors, VCS_MARKS } from "./go-sources.ts";
import type { Host } from "./host.ts";

/** A work tree, or none, or one that only the Go tool can tell of. */
export type WorkTree =
  | { readonly kind: "none" }
  /** @property root absolute */
  | { readonly kind: "git"; readonly root: string }
  | { readonly kind: "other"; readonly name: string };

/** The work tree around a folder. */
export function findWorkTree(dir: string): WorkTree {
  for (const root of ancestors(dir)) {
    const mark = VCS_MARKS.find((name) => look(join(root, name)) !== undefined);
    if (mark === ".git") return { kind: "git", root };
    if (mark !== undefined) return { kind: "other", name: mark };
  }
  return { kind: "none" };
}

/**
 * The state of a git work tree as one word to compare: the commit, and whether `git status` tells of anything.
 *
 * Asks `git status` once, which writes nothing. A git that fails or is not there has a state of its own.
 *
 * @param options.env of the Go tool, which runs git itself
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

/** The files and folders in which git keeps what makes versions: tags, the ends of a shallow history, settings. */
export function planTags(root: string): InputPlan {
  const shared = sharedFolder(root);
  if (shared === undefined) return { folders: [], files: [] };
  const names = ["packed-refs", "shallow", "config", join("reftable", "tables.list"), join("info", "grafts")];
  const tags = join(shared, "refs", "tags");
  const folders = [tags];
  const files = [...names.map((name) => join(shared, name)), tags];
  // Names of tags may hold slashes. A tag that is moved is another file, or is written anew.
  for (let at = 0; at < folders.length; at++) {
    for (const entry of readEntries(folders[at] ?? "")) {
      (entry.isDirectory() ? folders : files).push(join(folders[at] ?? "", entry.name));
    }
  }
  const exists = (dir: string): boolean => look(dir)?.isDirectory() === true;
  return { folders: folders.filter(exists).map((dir) => ({ dir, kind: "entries" })), files };
}

/** The folder that all work trees share, of the one in `root`; undefined if that cannot be told: then git cannot tell either. */
function sharedFolder(root: string): string | undefined {
  const path = join(root, ".git");
  try {
    const own = look(path)?.isDirectory() === true ? path : readGitFile(path);
    return own === undefined ? undefined : readCommonFolder(own);
  } catch {
    return undefined;
  }
}

/**
 * The folder that a `.git` file names, as linked work trees and submodules have one; undefined if it names none.
 *
 * @throws if the file cannot be read
 */
export function readGitFile(file: string): string | undefined {
  const pointer = /^gitdir: (.+?)[\r\n]*$/.exec(readFileSync(file, "utf8"))?.[1];
  return pointer === undefined ? undefined : resolve(dirname(file), pointer);
}

/**
 * What all work trees share, of a work tree's own folder; that folder itself, if there is one work tree only.
 *
 * @throws if the file that names it cannot be read
 */
export function readCommonFolder(own: string): string {
  const file = join(own, "commondir");
  return existsSync(file) ? resolve(own, readFileSync(file, "utf8").trim()) : own;
}
