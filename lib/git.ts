/**
 * The state of a work tree: as the Go tool stamps it into a binary (`-buildvcs`), and as templates read it (`.Git`).
 *
 * The folders of a repository: git-folder.ts. Version control systems other than git are recognized, and left to the Go tool.
 */
import { join } from "node:path";
import { CommandError, printable } from "./errors.ts";
import { ancestors, look, readEntries } from "./file.ts";
import type { InputPlan } from "./fingerprint-inputs.ts";
import { readCommonFolder, readGitFile } from "./git-folder.ts";
import type { Host } from "./host.ts";
import type { GitInfo } from "./template-data.ts";

/** A work tree. "other": of a version control system that ko does not know. */
export type WorkTree =
  | { readonly kind: "none" }
  /** @property root absolute */
  | { readonly kind: "git"; readonly root: string }
  | { readonly kind: "other"; readonly name: string };

export interface ReadGitOptions {
  readonly host: Host;
  /** The environment of git. */
  readonly env: Readonly<Record<string, string>>;
}

export interface ReadGitInfoOptions extends ReadGitOptions {
  /** The fields to read; others may be missing. @default "all" */
  readonly fields?: ReadonlySet<string> | "all";
}

/** The values of `.Git`, and the reasons why some of them are not those of a clean, tagged commit. */
export interface GitReport {
  readonly info: Partial<GitInfo>;
  readonly warnings: readonly string[];
}

/** The files and folders that mark a work tree of a version control system, whose state Go stamps into binaries. */
export const VCS_MARKS = [".git", ".hg", ".svn", ".bzr", ".fslckout", "_FOSSIL_"] as const;

/** The values outside of a work tree and before the first commit. */
const NO_COMMIT: GitInfo = {
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

/** The tag of a repository without one. */
const NO_TAG = "v0.0.0";

/** Changed files that a warning lists. */
const MAX_CHANGES = 10;

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
export async function readGitState(root: string, { host, env }: ReadGitOptions): Promise<string> {
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

/**
 * Reads `.Git` of templates as the original does, by the same git commands. Those that the fields need run at once.
 *
 * Without git, a work tree or a commit all texts are empty: that is a warning, not an error.
 *
 * @param dir absolute
 */
export async function readGitInfo(dir: string, options: ReadGitInfoOptions): Promise<GitReport> {
  const { fields = "all" } = options;
  const wants = (...names: readonly (keyof GitInfo)[]): boolean =>
    fields === "all" || names.some((name) => fields.has(name));
  const ask = (...args: readonly string[]): Promise<GitAnswer> => askGit(args, { ...options, dir });
  const [head, commit, status, tag] = await Promise.all([
    ask("rev-parse", "--is-inside-work-tree", "--is-shallow-repository", "--abbrev-ref", "HEAD"),
    wants("ShortCommit", "FullCommit", "CommitDate", "CommitTimestamp")
      ? ask("show", "--no-patch", "--format=%h%n%H%n%ct", "HEAD")
      : undefined,
    wants("IsDirty", "IsClean", "TreeState") ? ask("status", "--porcelain") : undefined,
    wants("Tag") ? ask("describe", "--tags", "--abbrev=0", "HEAD") : undefined,
  ]);
  const [isInside, isShallow, branch = ""] = head.lines;
  const [short = "", full = "", seconds = ""] = commit?.lines ?? [];
  const date = commit === undefined ? "" : formatSeconds(seconds);
  if (isInside !== "true" || !head.isOk || date === undefined) {
    return { info: NO_COMMIT, warnings: [`templates have no .Git in "${dir}": ${explainNoCommit(head, commit)}`] };
  }
  const info: { -readonly [K in keyof GitInfo]?: GitInfo[K] } = { Branch: withoutQuotes(branch) };
  const warnings: string[] = [];
  if (commit !== undefined) {
    info.ShortCommit = short;
    info.FullCommit = full;
    info.CommitDate = date;
    info.CommitTimestamp = Number(seconds);
  }
  if (tag !== undefined) {
    info.Tag = tag.isOk ? withoutQuotes(tag.lines[0] ?? "").trim() : NO_TAG;
    const fetch = isShallow === "true" ? "; the clone is shallow, so type: git fetch --tags --unshallow" : "";
    if (!tag.isOk) warnings.push(`.Git.Tag is ${NO_TAG} in "${dir}": no tag leads to this commit${fetch}`);
  }
  if (status !== undefined) {
    const changes = status.lines.filter((line) => line.trim() !== "");
    const isDirty = changes.length > 0 || !status.isOk;
    if (isDirty) warnings.push(describeChanges(dir, changes));
    info.IsDirty = isDirty;
    info.IsClean = !isDirty;
    info.TreeState = isDirty ? "dirty" : "clean";
  }
  return { info, warnings };
}

/**
 * Explains why Go cannot stamp a work tree: asks git as Go does, whose message go does not show.
 *
 * @returns the first line of git's message, and its command that makes it trust the repository, if it offers one;
 *   undefined if git has nothing to say
 */
export async function explainNoStamp(
  root: string,
  options: ReadGitOptions,
): Promise<{ readonly why: string; readonly trust: string | undefined } | undefined> {
  for (const args of [
    ["status", "--porcelain"],
    ["log", "-1", "--format=%H:%ct"],
  ]) {
    const { isOk, stderr } = await askGit(args, { ...options, dir: root });
    if (isOk) continue;
    const why =
      stderr
        .trim()
        .split("\n", 1)[0]
        ?.replace(/^(?:fatal|error): /, "") || `git ${args[0]} failed`;
    return { why: printable(why), trust: findTrust(stderr) };
  }
  return undefined;
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

/** The files and folders that change with each commit, branch and tag of a work tree. */
export function listRefs(root: string): { readonly files: readonly string[]; readonly folders: readonly string[] } {
  const { own, shared } = readGitFolders(root) ?? {};
  if (own === undefined || shared === undefined) return { files: [], folders: [] };
  const folders = ["heads", "tags"].map((name) => join(shared, "refs", name));
  for (const folder of folders) {
    for (const entry of readEntries(folder)) if (entry.isDirectory()) folders.push(join(folder, entry.name));
  }
  return { files: [join(own, "HEAD"), join(shared, "packed-refs")], folders };
}

/** The git folder of the work tree `root` alone, and that which it shares with others; undefined if they cannot be found. */
export function readGitFolders(root: string): { readonly own: string; readonly shared: string } | undefined {
  const own = ownFolder(root);
  const shared = sharedFolder(root);
  return own === undefined || shared === undefined ? undefined : { own, shared };
}

/** The git folder of the work tree `root` alone; undefined if it cannot be found, as git cannot then either. */
function ownFolder(root: string): string | undefined {
  const path = join(root, ".git");
  try {
    return look(path)?.isDirectory() === true ? path : readGitFile(path);
  } catch {
    return undefined;
  }
}

/** The git folder that the work tree `root` shares with others; undefined if it cannot be found. */
function sharedFolder(root: string): string | undefined {
  const own = ownFolder(root);
  try {
    return own === undefined ? undefined : readCommonFolder(own);
  } catch {
    return undefined;
  }
}

/**
 * The files that git ignores, of those given. None if git fails: it is asked for a message only.
 *
 * @param paths absolute, in the work tree `root`
 */
export async function listIgnored(
  root: string,
  paths: readonly string[],
  { host, env }: ReadGitOptions,
): Promise<readonly string[]> {
  const answer = await host
    .run(["git", "check-ignore", "-z", "--stdin"], {
      cwd: root,
      env: { ...env, GIT_OPTIONAL_LOCKS: "0", LC_ALL: "C" },
      stdin: new TextEncoder().encode(paths.map((path) => `${path}\0`).join("")),
      anyExitCode: true,
    })
    .catch((error: unknown) => {
      host.signal.throwIfAborted();
      if (error instanceof CommandError) return undefined;
      throw error;
    });
  return new TextDecoder()
    .decode(answer?.stdout)
    .split("\0")
    .filter((path) => path !== "");
}

interface GitAnswer {
  /** True for the exit code 0. */
  readonly isOk: boolean;
  /** The lines of stdout. */
  readonly lines: readonly string[];
  readonly stderr: string;
}

async function askGit(
  args: readonly string[],
  { dir, host, env }: ReadGitOptions & { readonly dir: string },
): Promise<GitAnswer> {
  try {
    const { code, stdout, stderr } = await host.run(["git", "-c", "log.showSignature=false", ...args], {
      cwd: dir,
      env: { ...env, GIT_OPTIONAL_LOCKS: "0", LC_ALL: "C" },
      anyExitCode: true,
    });
    return { isOk: code === 0, lines: new TextDecoder().decode(stdout).split("\n"), stderr };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return { isOk: false, lines: [], stderr: error.message };
  }
}

function explainNoCommit({ isOk, lines, stderr }: GitAnswer, commit: GitAnswer | undefined): string {
  const trust = findTrust(stderr);
  if (trust !== undefined) return `another user owns the repository; to trust it, type: ${trust}`;
  const isInside = lines[0] === "true";
  if (!isInside && (isOk || stderr.includes("not a git repository"))) return "it is not in a git work tree";
  if (isInside && stderr.includes("ambiguous argument 'HEAD'")) return "there is no commit yet";
  return (stderr || commit?.stderr || "git failed").trim().split("\n", 1)[0] ?? "";
}

/** Finds git's offer in its refusal of a repository of another user. */
function findTrust(stderr: string): string | undefined {
  return /^\s*(git config --global --add safe\.directory .+)$/m.exec(stderr)?.[1];
}

/** The original drops single quotes from branches and tags, and scripts may count on it. */
function withoutQuotes(name: string): string {
  return name.replaceAll("'", "");
}

function describeChanges(dir: string, changes: readonly string[]): string {
  const more = changes.length > MAX_CHANGES ? [`… and ${changes.length - MAX_CHANGES} more`] : [];
  const listed = [...changes.slice(0, MAX_CHANGES), ...more].map((line) => `\n  ${line}`);
  return `the git work tree of "${dir}" has changes, so .Git.IsDirty is true${listed.length > 0 ? `:${listed.join("")}` : ""}`;
}

/** Formats seconds since 1970 as RFC 3339 in UTC; undefined if they are not a time. */
function formatSeconds(seconds: string): string | undefined {
  const date = new Date(Number(seconds) * 1000);
  return Number.isNaN(date.getTime()) || seconds === "" ? undefined : date.toISOString().replace(".000Z", "Z");
}
