/** Templates in the words of a run: what go and git are asked, how often, and what the results depend on. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { Word } from "../lib/config-file.ts";
import { describeError } from "../lib/errors.ts";
import { type FolderWords, TemplateRenderer } from "../lib/go-templates.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { goWorld } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { commitTree } from "./helpers/world-programs.ts";

let tree: Tree;

beforeEach(async () => {
  tree = writeTree({ "repo/a.txt": "a", "plain/a.txt": "a", calls: "" });
  for (const name of ["git", "go"]) {
    const real = Bun.which(name) ?? name;
    tree.write({
      [`bin/${name}`]: { executable: `#!/bin/sh\necho "${name} $*" >> '${tree.at("calls")}'\nexec '${real}' "$@"\n` },
    });
  }
  await commitTree(tree.at("repo"), "v1.2.3");
});

afterEach(() => tree[Symbol.dispose]());

const word = (value: string): Word => ({ value, setting: "ldflags", where: ".ko.yaml:1:1" });

interface Options {
  readonly epoch?: number;
  readonly all?: readonly FolderWords[];
}

function open({ all, epoch }: Options = {}): TemplateRenderer {
  const world = goWorld(tree.at("repo"), { PATH: `${tree.at("bin")}:${process.env["PATH"]}` });
  const words = ["{{.Git.Tag}}", "{{.Git.ShortCommit}}"].map(word);
  const folders = ["repo", "plain"].map((name) => ({ dir: tree.at(name), words }));
  return new TemplateRenderer({ ...world, epoch, all: all ?? folders });
}

/** The programs that ran. */
const calls = (program: string): readonly string[] =>
  readFileSync(tree.at("calls"), "utf8")
    .split("\n")
    .filter((line) => line.startsWith(`${program} `));

const at = (name: string, env: Readonly<Record<string, string>> = {}) => ({ dir: tree.at(name), env });

describe("TemplateRenderer", () => {
  test("passes words without actions on, and starts nothing", async () => {
    const words = ["-s", "-X a.b={ {}", "}}"];
    expect(await open().render(words.map(word), at("repo"))).toEqual({
      texts: words,
      reads: words.map(() => []),
      hasTime: false,
      git: undefined,
    });
    expect([calls("git"), calls("go")]).toEqual([[], []]);
  });

  test("renders each word by itself, with the environment of go build", async () => {
    const words = ["-tags={{.Env.A}}", "{{ $x := .Env.A }}{{$x}}-{{.Env.LDFLAGS}}"].map(word);
    const { texts } = await open().render(words, at("repo", { A: "x y", LDFLAGS: "" }));
    expect(texts).toEqual(["-tags=x y", "x y-"]);
    expect([calls("git"), calls("go")]).toEqual([[], []]);
    const [error] = [await rejectionOf(open().render([word("{{ $x := 1 }}"), word("{{$x}}")], at("repo")))];
    expect(describeError(error)).toContain("$x");
  });

  test("asks git once for each folder, whatever words and platforms there are", async () => {
    const renderer = open();
    const words = ["{{.Git.Tag}}", "{{.Git.ShortCommit}}"].map(word);
    const [a, b, plain] = await Promise.all([
      renderer.render(words, at("repo", { GOARCH: "amd64" })),
      renderer.render(words.toReversed(), at("repo", { GOARCH: "arm64" })),
      renderer.render(words, at("plain")),
    ]);
    const git = { dir: tree.at("repo"), hasChanges: false };
    expect([a?.texts[0], a?.git, a?.texts.toReversed()]).toEqual(["v1.2.3", git, [...(b?.texts ?? [])]]);
    expect([plain?.texts, plain?.git]).toEqual([["", ""], { dir: tree.at("plain"), hasChanges: false }]);
    const asked = calls("git").length;
    await renderer.render(words, at("repo"));
    expect(calls("git")).toHaveLength(asked);
    expect(renderer.warnings.join("\n")).toContain("git");
  });

  test("reads only the fields that some word of the folder names", async () => {
    await open({ all: [{ dir: tree.at("repo"), words: [word("{{.Git.FullCommit}}")] }] }).render(
      [word("{{.Git.FullCommit}}")],
      at("repo"),
    );
    expect(calls("git").filter((line) => / (?:status|describe) /.test(line))).toEqual([]);
  });

  test.each(["IsDirty", "IsClean", "TreeState"])("knows that .Git.%s depends on changes", async (field) => {
    const words = [word("{{.Git.Tag}}"), word(`{{.Git.${field}}}`)];
    const { git } = await open({ all: [{ dir: tree.at("repo"), words }] }).render(words, at("repo"));
    expect(git).toEqual({ dir: tree.at("repo"), hasChanges: true });
  });

  test("asks go env once, in the working directory", async () => {
    const renderer = open();
    const words = [word("{{.GoEnv.GOVERSION}}")];
    const [a, b] = await Promise.all([renderer.render(words, at("repo")), renderer.render(words, at("plain"))]);
    expect([a?.texts, a?.git]).toEqual([b?.texts ?? [], undefined]);
    expect(a?.texts[0]).toStartWith("go1.");
    expect(calls("go")).toHaveLength(1);
  });

  test("has one time for a run, and warns once for each word; SOURCE_DATE_EPOCH sets it", async () => {
    const words = [word("{{.Date}}"), word("{{.Timestamp}}")];
    const renderer = open();
    const [a, b] = [await renderer.render(words, at("repo")), await renderer.render(words, at("repo"))];
    expect([a.hasTime, b.texts]).toEqual([true, [...a.texts]]);
    expect(Date.parse(a.texts[0] ?? "") / 1000).toBe(Number(a.texts[1]));
    expect(renderer.warnings).toEqual([expect.stringContaining("uses the time of the build")]);
    const fixed = open({ epoch: 1_700_000_000 });
    expect(await fixed.render(words, at("repo"))).toEqual({
      texts: ["2023-11-14T22:13:20Z", "1700000000"],
      reads: [["Date"], ["Timestamp"]],
      hasTime: false,
      git: undefined,
    });
    expect(fixed.warnings).toEqual([]);
  });

  test("depends on what a template reads, not on what it could read", async () => {
    const words = [word("{{ if .Env.CI }}{{.Date}}{{.Git.Tag}}{{ else }}dev{{ end }}")];
    const { git, hasTime, texts } = await open().render(words, at("repo", { CI: "" }));
    expect([texts, git, hasTime]).toEqual([["dev"], undefined, false]);
  });

  test("reports all failures, not only the first", async () => {
    const words = ["{{.Env.NOPE}}", "fine", "{{ if }}", "{{.Gut}}"].map(word);
    const said = describeError(await rejectionOf(open().render(words, at("repo"))));
    expect(said.match(/^Error: Cannot use ldflags/gm)).toHaveLength(3);
  });

  test("warns of replaced words that are no templates, and evaluates none of them", async () => {
    const renderer = open();
    await renderer.warnOfMistakes(["{{.Gut}}", "{{.Git.Tag}}", "{{.Env.NOPE}}", "-s"].map(word));
    expect(renderer.warnings).toEqual([expect.stringMatching(/\{\{\.Gut\}\}.*; --ldflags replaces it$/)]);
    expect(calls("git")).toEqual([]);
  });
});
