/** The manual pages and completion scripts of a release: mandoc finds no fault in them, and `man` shows them. */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { writeManPages } from "../.ci/man.ts";
import { writeDocuments } from "../.ci/release.ts";
import { allCommands, SHELLS } from "../lib/cli-commands.ts";
import { ALL_VARIABLES } from "../lib/cli-environment.ts";
import { completionScript } from "../lib/cli-completion.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt, realHost } from "./helpers/world-host.ts";
import { runToEnd } from "./helpers/world-programs.ts";

const hasMandoc = Bun.which("mandoc") !== null;
if (!hasMandoc && process.env["CI"]) throw new Error('the tests need mandoc: run "bash .ci/run"');
if (!hasMandoc) console.warn("skipped: manual pages (needs mandoc)");

const DATE = { date: new Date("2026-11-30T12:00:00Z") };

async function writeAll(tree: Tree, seconds: string): Promise<void> {
  const env = { ...realHost.env, SOURCE_DATE_EPOCH: seconds };
  await writeDocuments(hostAt(tree.path, { env }), { folder: tree.path, dist: tree.at("dist") });
}

async function render(tree: Tree, page: string): Promise<string> {
  const { stdout } = await runToEnd(["mandoc", "-T", "utf8", tree.at(`dist/man/man1/${page}`)], {
    cwd: tree.path,
    env: { ...process.env },
  });
  return stdout.replace(/.\x08/g, "").replace(/\s+/g, " ");
}

describe("a release", () => {
  test("has a page for each command, the overview and the variables, and a script for each shell", async () => {
    using tree = writeTree({});
    await writeAll(tree, "1796040000");
    const pages = ["ko.1", "ko-environment.1", ...allCommands().map(([name]) => `ko-${name}.1`)].sort();
    expect(readdirSync(tree.at("dist/man/man1")).sort()).toEqual(pages);
    expect(readdirSync(tree.at("dist/completions")).sort()).toEqual(["_ko", "ko.bash", "ko.fish", "ko.ps1"]);
    const scripts = ["ko.bash", "_ko", "ko.fish", "ko.ps1"].map((name) =>
      readFileSync(tree.at(`dist/completions/${name}`), "utf8"),
    );
    expect(scripts).toEqual(SHELLS.map((shell) => completionScript(shell)));
  });

  test("has the date of the commit in its pages, so that two releases of one commit are equal", () => {
    expect(writeManPages(DATE)).toEqual(writeManPages(DATE));
    expect(writeManPages(DATE)[0]?.[1]).toStartWith(".Dd November 30, 2026\n.Dt KO 1\n");
  });
});

describe.skipIf(!hasMandoc)("the manual pages", () => {
  test("have no fault", async () => {
    using tree = writeTree({});
    await writeAll(tree, "1796040000");
    const pages = readdirSync(tree.at("dist/man/man1")).map((name) => tree.at(`dist/man/man1/${name}`));
    const { stdout } = await runToEnd(["mandoc", "-T", "lint", ...pages], { cwd: tree.path, env: { ...process.env } });
    // Manuals that are not installed on this machine.
    expect(stdout.split("\n").filter((line) => line !== "" && !line.includes("referenced manual not found"))).toEqual(
      [],
    );
  });

  test("say all that --help says", async () => {
    using tree = writeTree({});
    await writeAll(tree, "1796040000");
    for (const [name, { about, examples, flags, summary }] of allCommands()) {
      const shown = await render(tree, `ko-${name}.1`);
      const flagNames = Object.entries(flags).flatMap(([flag, { short }]) => [
        `--${flag}`,
        ...(short === undefined ? [] : [`-${short}`]),
      ]);
      const typed = examples.flatMap(([, lines]) => lines.split("\n"));
      const texts = [
        summary.slice(0, -1),
        about,
        ...typed,
        ...flagNames,
        ...Object.values(flags).map(({ help }) => help),
      ];
      const missing = texts.filter((text) => !shown.includes(text.replace(/\s+/g, " ")));
      expect([name, missing]).toEqual([name, []]);
    }
    const variables = await render(tree, "ko-environment.1");
    const names = ALL_VARIABLES.flatMap(([, all]) => Object.keys(all).flatMap((each) => each.split(", ")));
    expect(names.filter((each) => !variables.includes(each))).toEqual([]);
  });

  test("are found by man", async () => {
    if (!existsSync("/usr/bin/man")) return;
    using tree = writeTree({});
    await writeAll(tree, "1796040000");
    const env = { PATH: process.env["PATH"] ?? "", MANPATH: tree.at("dist/man"), MANPAGER: "cat", LC_ALL: "C" };
    const { stdout } = await runToEnd(["man", "ko-build"], { cwd: tree.path, env });
    expect(stdout.replace(/.\x08/g, "")).toContain("KO-BUILD(1)");
  });
});
