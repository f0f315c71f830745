/**
 * What Go reads of a git repository beside `git status`: the time and the tags of the commit, and of those before it
 * (https://go.dev/src/cmd/go/internal/vcs/vcs.go, https://go.dev/src/cmd/go/internal/modfetch/codehost/git.go).
 *
 * Rules: docs/rules.md F2. The history of a commit is found by walking it. That is done again only if something changed that git reads for it:
 * objects, refs, settings, git itself.
 */
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { keyOf } from "./cache.ts";
import { look, readEntries, realPath } from "./file.ts";
import { fileMarkOf, markOf, Window } from "./fingerprint.ts";
import { readGitFolders, type ReadGitOptions } from "./git.ts";

/** What Go reads of a repository, and what git reads for that. Plain data for the cache. */
export interface GitStamp {
  /** Equal if Go reads the same. */
  readonly text: string;
  /** Absolute: files of settings, existing or not. */
  readonly settings: readonly string[];
  /** Equal if git reads the same; undefined if it changed just now, or cannot be told. */
  readonly mark?: string | undefined;
}

/** Variables that let git read another repository or other objects than those that are marked. */
const FOREIGN = [
  "GIT_DIR GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES".split(" "),
  "GIT_GRAFT_FILE GIT_SHALLOW_FILE GIT_NAMESPACE GIT_REF_STORAGE".split(" "),
].flat();

/** The most repositories that borrow objects from each other. */
const MOST_ALTERNATES = 10;

/** Why ko cannot tell what git reads of a repository; undefined if it can. */
export function whyNoStamp(env: Readonly<Record<string, string>>): string | undefined {
  const name = FOREIGN.find((each) => env[each]);
  return name === undefined ? undefined : `${name} is set`;
}

/** Reads what Go reads of a repository, by the same commands. */
export async function readStamp(
  root: string,
  options: ReadGitOptions & { readonly startedAt: number },
): Promise<GitStamp> {
  const ask = (...args: readonly string[]): Promise<string> => askGit(args, { ...options, root });
  const [commit, refs, format, module, listed] = await Promise.all([
    ask("-c", "log.showsignature=false", "log", "--no-decorate", "-n1", "--format=format:%H %ct %D", "HEAD", "--"),
    ask("for-each-ref", "--format=%(refname)", "--merged=HEAD"),
    ask("config", "extensions.objectformat"),
    ask("cat-file", "-e", "HEAD:go.mod"),
    ask("config", "--list", "--show-origin", "-z"),
  ]);
  // Of the names of a commit, Go reads tags only; the branches move without a change of the stamp.
  const tags = Array.from(commit.matchAll(/ tag: ([^\s,]+)/g), ([, tag = ""]) => tag).sort((a, b) => (a < b ? -1 : 1));
  const merged = refs.split("\n").filter((line) => line.startsWith("refs/tags/") || line.startsWith("!"));
  const text = keyOf([commit.split(" ", 2), tags, merged, format, module]);
  const settings = settingsFiles(listed, { ...options, root });
  return { text, settings, mark: markRepository(root, { ...options, settings }) };
}

/** Marks everything that git reads for {@link readStamp}; undefined if some of it changed just now. */
export function markRepository(
  root: string,
  options: ReadGitOptions & { readonly settings: readonly string[]; readonly startedAt: number },
): string | undefined {
  const { env, host, settings, startedAt } = options;
  const folders = readGitFolders(root);
  if (folders === undefined) return undefined;
  const { own, shared } = folders;
  const git = host.findProgram("git") ?? "";
  const files = ["packed-refs", join("reftable", "tables.list"), "shallow", join("info", "grafts")];
  const objects = join(shared, "objects");
  const paths = [
    // Settings may depend on the branch.
    ...[realPath(git) ?? "", join(root, ".git"), join(own, "HEAD"), join(own, "commondir"), ...settings],
    ...files.map((name) => join(shared, name)),
    ...findObjects(objects),
    ...findFolders(join(shared, "refs")),
  ];
  const window = new Window(startedAt, host.now().getTime());
  const marks: number[] = [];
  for (const path of paths) {
    const found = look(path);
    // These change with each file that git locks, such as by the maintenance that a commit starts in the background. What
    // counts of them is in the paths.
    const isLocked = (path === join(root, ".git") || path === objects) && found?.isDirectory() === true;
    if (found !== undefined && !isLocked && window.judge(found) !== "settled") return undefined;
    marks.push(isLocked ? fileMarkOf(found) : markOf(found));
  }
  return keyOf([git, env["PATH"], paths, marks]);
}

/** The output of git; a failure begins with "!". */
async function askGit(
  args: readonly string[],
  { env, host, root }: ReadGitOptions & { readonly root: string },
): Promise<string> {
  try {
    const { code, stdout } = await host.run(["git", ...args], {
      cwd: root,
      env: { ...env, GIT_OPTIONAL_LOCKS: "0", LC_ALL: "C" },
      anyExitCode: true,
    });
    return `${code === 0 ? "" : `!${code} `}${new TextDecoder().decode(stdout)}`;
  } catch {
    host.signal.throwIfAborted();
    return "!";
  }
}

/**
 * The files that git reads settings from: those in which it found one, those that they include, and those that it would
 * read if they existed.
 *
 * https://git-scm.com/docs/git-config#FILES
 */
function settingsFiles(listed: string, { env, root }: ReadGitOptions & { readonly root: string }): readonly string[] {
  const home = env["HOME"] ?? "";
  const folders = readGitFolders(root);
  const found = new Set<string>(
    env["GIT_CONFIG_SYSTEM"]
      ? [env["GIT_CONFIG_SYSTEM"]]
      : ["/etc/gitconfig", "/usr/local/etc/gitconfig", "/opt/homebrew/etc/gitconfig"],
  );
  if (env["GIT_CONFIG_GLOBAL"]) found.add(env["GIT_CONFIG_GLOBAL"]);
  else {
    found.add(join(home, ".gitconfig"));
    found.add(join(env["XDG_CONFIG_HOME"] || join(home, ".config"), "git", "config"));
  }
  if (folders !== undefined) {
    found.add(join(folders.shared, "config"));
    found.add(join(folders.own, "config.worktree"));
  }
  // Pairs: the origin, then the setting with its value in the next line.
  const parts = listed.split("\0");
  for (let i = 0; i + 1 < parts.length; i += 2) {
    const file = /^file:(.*)$/s.exec(parts[i] ?? "")?.[1];
    if (file === undefined) continue;
    const path = resolve(root, file);
    found.add(path);
    const included = /^include(?:if\..*)?\.path\n(.*)$/s.exec(parts[i + 1] ?? "")?.[1];
    if (included !== undefined) found.add(resolve(dirname(path), included.replace(/^~(?=\/)/, home)));
  }
  return [...found];
}

/** The folders that hold objects, also those of repositories that objects are borrowed from. */
function findObjects(first: string): readonly string[] {
  const found: string[] = [];
  const roots = [first];
  for (let at = 0; at < roots.length && at < MOST_ALTERNATES; at++) {
    const root = roots[at] ?? "";
    found.push(root);
    // Folders of two digits, "pack" and "info"; the times of a folder tell of objects that came or went.
    for (const entry of readEntries(root)) if (entry.isDirectory()) found.push(join(root, entry.name));
    for (const line of readText(join(root, "info", "alternates")).split("\n")) {
      if (line !== "" && !line.startsWith("#")) roots.push(resolve(root, line));
    }
  }
  return found;
}

/** A folder and all below it. */
function findFolders(first: string): readonly string[] {
  const found = [first];
  for (let at = 0; at < found.length; at++) {
    const dir = found[at] ?? "";
    for (const entry of readEntries(dir)) if (entry.isDirectory()) found.push(join(dir, entry.name));
  }
  return found;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
