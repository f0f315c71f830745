import { describe, expect, test } from "bun:test";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createHost, type Host } from "../lib/host.ts";
import { findSourceVersion, koVersion, type SourceVersion } from "../lib/version.ts";
import { makeFolder } from "./helpers/world-folders.ts";

const host: Host = createHost();

/** Runs git in `folder`, with fixed people and dates and without the machine's configuration. */
function git(folder: string, ...args: readonly string[]): string {
  const who = { NAME: "t", EMAIL: "t@example.com", DATE: "2020-01-01T00:00:00Z" };
  const env: Record<string, string> = { PATH: host.env["PATH"] ?? "", GIT_CONFIG_GLOBAL: "/dev/null", HOME: folder };
  for (const [key, value] of Object.entries(who)) {
    env[`GIT_AUTHOR_${key}`] = value;
    env[`GIT_COMMITTER_${key}`] = value;
  }
  const { exitCode, stdout, stderr } = Bun.spawnSync(["git", ...args], { cwd: folder, env });
  if (exitCode !== 0) throw new Error(`git ${args.join(" ")}: ${stderr.toString()}`);
  return stdout.toString().trim();
}

async function makeSource(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "package.json"), '{"name":"ko","version":"1.2.3"}');
  await writeFile(join(folder, ".gitignore"), "/ko\n");
  git(folder, "init", "--quiet");
  git(folder, "add", ".");
  git(folder, "commit", "--quiet", "--message", "first");
  return git(folder, "rev-parse", "HEAD");
}

describe("findSourceVersion()", () => {
  test.each<readonly [string, (folder: string) => unknown, (commit: string) => SourceVersion]>([
    ["the commit of an unreleased source", () => {}, (commit) => ({ version: undefined, commit })],
    [
      "the release of a tagged source, whatever other tags there are",
      (folder) => ["a", "v1.2.3", "z"].forEach((tag) => git(folder, "tag", tag)),
      (commit) => ({ version: "1.2.3", commit }),
    ],
    [
      "the commit where the tag is another release's",
      (folder) => git(folder, "tag", "v1.2.30"),
      (commit) => ({ version: undefined, commit }),
    ],
    [
      "the commit, dirty, of a tagged source that was changed",
      async (folder) => {
        git(folder, "tag", "v1.2.3");
        await writeFile(join(folder, "package.json"), '{"version":"1.2.3"}');
      },
      (commit) => ({ version: undefined, commit: `${commit}-dirty` }),
    ],
    [
      "the commit, dirty, of a source with a new file",
      (folder) => writeFile(join(folder, "new.ts"), ""),
      (commit) => ({ version: undefined, commit: `${commit}-dirty` }),
    ],
    [
      "the commit where only an ignored file is new",
      (folder) => writeFile(join(folder, "ko"), ""),
      (commit) => ({ version: undefined, commit }),
    ],
    [
      "the release of a source without git",
      (folder) => rm(join(folder, ".git"), { recursive: true }),
      () => ({ version: "1.2.3", commit: undefined }),
    ],
    [
      "nothing of a source whose git is broken",
      (folder) => writeFile(join(folder, ".git", "HEAD"), "broken"),
      () => ({ version: undefined, commit: undefined }),
    ],
  ])("finds %s", async (_, change, expected) => {
    await using folder = await makeFolder();
    const commit = await makeSource(folder.path);
    await change(folder.path);
    expect(await findSourceVersion(host, folder.path)).toEqual(expected(commit));
  });

  test("takes a release's archive inside of another repository for what it is", async () => {
    await using folder = await makeFolder();
    await makeSource(folder.path);
    const inner = join(folder.path, "vendor", "ko");
    await mkdir(inner, { recursive: true });
    await writeFile(join(inner, "package.json"), '{"version":"2.0.0"}');
    expect(await findSourceVersion(host, inner)).toEqual({ version: "2.0.0", commit: undefined });
  });

  test("works in a worktree, and is not misled by git's own variables", async () => {
    await using folder = await makeFolder();
    const source = join(folder.path, "source");
    const commit = await makeSource(source);
    const tree = join(folder.path, "tree");
    git(source, "worktree", "add", "--quiet", tree);
    const misled = { ...host, env: { ...host.env, GIT_DIR: "/nowhere", GIT_WORK_TREE: "/" } };
    expect(await findSourceVersion(misled, tree)).toEqual({ version: undefined, commit });
  });

  test("without git on the machine, knows a release's archive and does not guess about a checkout", async () => {
    await using folder = await makeFolder();
    await makeSource(folder.path);
    const bare: Host = { ...host, run: (argv, options) => host.run(argv[0] === "git" ? ["/none/git"] : argv, options) };
    expect(await findSourceVersion(bare, folder.path)).toEqual({ version: undefined, commit: undefined });
    await rm(join(folder.path, ".git"), { recursive: true });
    expect(await findSourceVersion(bare, folder.path)).toEqual({ version: "1.2.3", commit: undefined });
  });
});

describe("koVersion()", () => {
  test("from source, is what git says of the source folder", async () => {
    const { version, commit } = await findSourceVersion(host, dirname(import.meta.dir));
    expect(await koVersion(host)).toBe(version ?? commit ?? "unknown");
  });
});
