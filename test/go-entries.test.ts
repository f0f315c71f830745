import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type BuildEntry, NO_WORDS } from "../lib/config-builds.ts";
import type { Word } from "../lib/config-file.ts";
import { describeError } from "../lib/errors.ts";
import { parseArgument } from "../lib/go-arguments.ts";
import { BuildEntries } from "../lib/go-entries.ts";
import { goMod, libraryGo, mainGo } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree;

beforeEach(() => {
  tree = writeTree({
    "app/go.mod": goMod("example.com/app"),
    "app/cmd/web/main.go": mainGo(),
    "app/cmd/api/main.go": `// Copyright\n\n/* package other */\n//go:build linux\n\n${mainGo()}`,
    "app/cmd/mixed/a.go": "package mixed\n",
    "app/cmd/mixed/generate.go": "//go:build ignore\n\npackage main\n",
    "app/cmd/tests/a_test.go": "package main\n",
    "app/lib/lib.go": libraryGo("lib"),
    "app/tool/go.mod": goMod("example.com/tool/v2"),
    "app/tool/cmd/x/main.go": mainGo(),
    "other/go.mod": goMod("example.com/other"),
    "other/cmd/y/main.go": mainGo(),
    "loose/main.go": mainGo(),
  });
});

afterEach(() => tree[Symbol.dispose]());

interface Lines {
  readonly dir?: string;
  readonly main?: string;
  readonly flags?: readonly string[];
}

function entry({ dir, main, flags }: Lines, i = 0): BuildEntry {
  const word = (value: string | undefined, key: string): Word | undefined =>
    value === undefined
      ? undefined
      : { value, setting: `${key} of builds[${i}]`, where: `.ko.yaml:${i}:${key.length}` };
  return {
    ...NO_WORDS,
    name: `builds[${i}]`,
    where: `.ko.yaml:${i}:1`,
    dir: word(dir, "dir"),
    main: word(main, "main"),
    flags: flags?.flatMap((flag) => word(flag, "flags") ?? []),
    capabilities: undefined,
  };
}

function place(...lines: readonly Lines[]): BuildEntries {
  return BuildEntries.place(
    lines.map((each, i) => entry(each, i)),
    tree.at("app"),
  );
}

/** Settings of the environment alone. */
function settings(env: Readonly<Record<string, string>> = {}): Parameters<BuildEntries["warnings"]>[1] {
  return (_dir, own) => ({ get: (name) => new Map(Object.entries({ ...env, ...own })).get(name) ?? "" });
}

describe("BuildEntries", () => {
  test.each<[Lines, string | undefined, string | undefined, string]>([
    [{ main: "./cmd/web" }, "app/cmd/web", "example.com/app/cmd/web", "app"],
    [{ main: "cmd/web" }, "app/cmd/web", "example.com/app/cmd/web", "app"],
    [{ main: "/cmd/web/" }, "app/cmd/web", "example.com/app/cmd/web", "app"],
    [{ main: "cmd/web/main.go" }, "app/cmd/web", "example.com/app/cmd/web", "app"],
    [{ main: "../app/cmd/web" }, "app/cmd/web", "example.com/app/cmd/web", "app"],
    [{ dir: "cmd/web" }, "app/cmd/web", "example.com/app/cmd/web", "app/cmd/web"],
    [{ dir: "./cmd", main: "./web" }, "app/cmd/web", "example.com/app/cmd/web", "app/cmd"],
    [{ dir: "cmd/web", main: "main.go" }, "app/cmd/web", "example.com/app/cmd/web", "app/cmd/web"],
    [{}, "app", "example.com/app", "app"],
    [{ dir: "tool", main: "./cmd/x" }, "app/tool/cmd/x", "example.com/tool/v2/cmd/x", "app/tool"],
    [{ main: "tool/cmd/x" }, "app/tool/cmd/x", "example.com/tool/v2/cmd/x", "app"],
    [{ dir: "../other", main: "cmd/y" }, "other/cmd/y", "example.com/other/cmd/y", "other"],
    [{ main: "example.com/app/cmd/web" }, "app/cmd/web", "example.com/app/cmd/web", "app"],
    [{ dir: "tool", main: "example.com/tool/v2/cmd/x" }, "app/tool/cmd/x", "example.com/tool/v2/cmd/x", "app/tool"],
    [{ main: "example.org/else/cmd/z" }, undefined, "example.org/else/cmd/z", "app"],
    [{ dir: "../loose" }, "loose", undefined, "loose"],
  ])("places %j", (lines, folder, importPath, dir) => {
    const [placed] = place(lines).all;
    expect(placed).toMatchObject({ dir: tree.at(dir) });
    expect([placed?.folder, placed?.importPath]).toEqual([
      folder === undefined ? undefined : tree.at(folder),
      importPath,
    ]);
  });

  test.each<[readonly Lines[], string]>([
    [
      [{ main: "cmd/wb" }],
      "Cannot use main of builds[0] at .ko.yaml:0:4: builds[0] is for ./cmd/wb, which does not exist, the nearest is ./cmd/web",
    ],
    [
      [{ dir: "tol", main: "x" }],
      "Cannot use dir of builds[0] at .ko.yaml:0:3: builds[0] is for ./tol, which does not exist, the nearest is ./tool",
    ],
    [
      [{ dir: "cmd/web/main.go" }],
      "Cannot use dir of builds[0] at .ko.yaml:0:3: builds[0] is for ./cmd/web/main.go, which does not exist",
    ],
    [[{ main: "./..." }], "builds[0] is for ./..., which does not exist"],
    [[{ main: "example.com/app/cmd/wb" }], "which does not exist"],
    [[{ main: "/etc/nothing/here" }], "builds[0] is for ./etc/nothing/here, which does not exist"],
    [[{ main: "cmd/wb" }, { dir: "tol" }], "builds[1] is for ./tol, which does not exist"],
    [
      [{ main: "cmd/web" }, { dir: "cmd/web" }],
      "Cannot use .ko.yaml:1:1: builds[1] is for ./cmd/web, as is builds[0] at .ko.yaml:0:1\n  Keep one of them.",
    ],
    [
      [{ main: "cmd/web" }, { main: "example.com/app/cmd/web", flags: ["-v"] }],
      "builds[1] is for ./cmd/web, as is builds[0]",
    ],
    [
      [{ main: "example.org/z/z" }, { main: "example.org/z/z/", flags: ["-v"] }],
      "builds[1] is for example.org/z/z, as is builds[0]",
    ],
  ])("refuses %j", (lines, message) => {
    let said = "no error";
    try {
      place(...lines);
    } catch (error) {
      said = describeError(error);
    }
    expect(said).toContain(message);
  });

  test("finds the entry of a program by its folder, else by its import path", () => {
    const entries = place({ main: "cmd/web" }, { main: "example.org/z/z" });
    const find = (dir: string, importPath: string): string | undefined => entries.find({ dir, importPath })?.entry.name;
    expect(find(tree.at("app/cmd/web"), "any")).toBe("builds[0]");
    expect(find("/elsewhere", "example.com/app/cmd/web")).toBe("builds[0]");
    expect(find("/elsewhere", "example.org/z/z")).toBe("builds[1]");
    expect(find(tree.at("app/cmd/api"), "example.com/app/cmd/api")).toBeUndefined();
    expect(find(tree.at("app"), "example.com/app/CMD/web")).toBeUndefined();
  });

  test("tells copies of a module apart by their folders", () => {
    using copies = writeTree({
      "a/go.mod": goMod("example.com/same"),
      "a/main.go": mainGo(),
      "b/go.mod": goMod("example.com/same"),
      "b/main.go": mainGo(),
    });
    const entries = BuildEntries.place([entry({ dir: "a" }, 0), entry({ dir: "b", flags: ["-v"] }, 1)], copies.path);
    const find = (dir: string): string | undefined => entries.find({ dir, importPath: "example.com/same" })?.entry.name;
    expect([find(copies.at("a")), find(copies.at("b")), find("/other")]).toEqual(["builds[0]", "builds[1]", undefined]);
  });

  test.each<[string, readonly string[]]>([
    ["./cmd/web", ["builds[0]"]],
    ["cmd/web", []],
    ["example.com/app/cmd/web", ["builds[0]"]],
    ["ko://example.com/app/cmd/web", ["builds[0]"]],
    ["./...", ["builds[0]", "builds[1]", "builds[2]"]],
    ["./cmd/...", ["builds[0]", "builds[1]"]],
    ["./cmd/w...", ["builds[0]"]],
    ["./.../api", ["builds[1]"]],
    ["./cmd/web/...", ["builds[0]"]],
    ["example.com/app/...", ["builds[0]", "builds[1]"]],
    ["example.com/.../x", ["builds[2]"]],
    ["all", ["builds[0]", "builds[1]", "builds[2]"]],
    ["std", []],
  ])("finds the entries for %s", (text, names) => {
    const entries = place({ main: "cmd/web" }, { main: "cmd/api" }, { dir: "tool", main: "cmd/x" });
    const argument = parseArgument(text, tree.at("app"));
    const found = [entries.findFor(argument), ...entries.findBelow(argument)];
    expect(found.flatMap((placed) => placed?.entry.name ?? [])).toEqual([...names]);
  });

  test("warns of entries that are for no program", () => {
    const entries = place(
      { main: "lib" },
      { main: "cmd/tests" },
      { main: "cmd" },
      { main: "cmd/api" },
      { main: "cmd/mixed" },
      { main: "example.org/z/z" },
      { main: "cmd/web" },
    );
    const program = { dir: tree.at("app/lib"), importPath: "example.com/app/lib" };
    expect(entries.warnings([], settings())).toEqual([
      ".ko.yaml:0:1: builds[0] is for no program: ./lib is package lib, wanted package main",
      ".ko.yaml:1:1: builds[1] is for no program: ./cmd/tests has no Go files",
      ".ko.yaml:2:1: builds[2] is for no program: ./cmd has no Go files",
      ".ko.yaml:5:1: builds[5] is for no program: example.org/z/z is of no module that ./go.mod requires",
    ]);
    expect(entries.warnings([program], settings())).toHaveLength(3);
  });

  test("warns of entries in no module, and of import paths that go.mod does not know", () => {
    tree.write({
      "app/go.mod": goMod("example.com/app", {
        more: '\nrequire (\n\texample.org/dep v1.0.0\n\t"example.org/two/v2" v2.0.0\n)\n',
      }),
    });
    const entries = place(
      { dir: "../loose" },
      { main: "example.org/else/cmd/z" },
      { main: "example.org/dep/cmd/z" },
      { main: "example.org/two/v2/z" },
      { main: "example.org/depth/cmd/z" },
      { dir: "tool", main: "example.org/dep/cmd/y" },
    ).warnings([], settings());
    expect(entries).toEqual([
      ".ko.yaml:0:1: builds[0] is for no program: ../loose is in no Go module",
      ".ko.yaml:1:1: builds[1] is for no program: example.org/else/cmd/z is of no module that ./go.mod requires",
      ".ko.yaml:4:1: builds[4] is for no program: example.org/depth/cmd/z is of no module that ./go.mod requires",
      ".ko.yaml:5:1: builds[5] is for no program: example.org/dep/cmd/y is of no module that ./tool/go.mod requires",
    ]);
  });

  test("knows programs without modules, and leaves import paths of a workspace to go", () => {
    const entries = place({ dir: "../loose" }, { main: "example.org/else/cmd/z" });
    expect(entries.warnings([], settings({ GO111MODULE: "off" }))).toEqual([]);
    expect(entries.warnings([], settings({ GOWORK: tree.at("go.work") }))).toHaveLength(1);
    const off: Word = { value: "GO111MODULE=off", setting: "env", where: "here" };
    const [own] = place({ dir: "../loose" }).all;
    if (own === undefined) throw new Error("no entry");
    expect(BuildEntries.place([{ ...own.entry, env: [off] }], tree.at("app")).warnings([], settings())).toEqual([]);
  });

  test("takes two entries that say the same for one", () => {
    const entries = place({ main: "cmd/web", flags: ["-v"] }, { main: "./cmd/web/", flags: ["-v"] });
    expect(entries.warnings([], settings())).toEqual([
      ".ko.yaml:1:1: builds[1] is for ./cmd/web, as is builds[0] at .ko.yaml:0:1; they say the same",
    ]);
  });
});
