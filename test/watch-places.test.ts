import { describe, expect, test } from "bun:test";
import {
  type Affected,
  NOTHING_TO_WATCH,
  NOWHERE,
  type PathChange,
  type Places,
  WatchSet,
} from "../lib/watch-places.ts";

const APP: Places = {
  files: ["/m/go.mod", "/m/cmd/app/kodata"],
  folders: [
    { dir: "/m/cmd/app", kind: "sources" },
    { dir: "/m/pkg/web", kind: "sources" },
    { dir: "/m/pkg/web/static", kind: "embed" },
    { dir: "/m/missing/deep", kind: "sources" },
  ],
  embeds: [
    { dir: "/m/pkg/web", pattern: "static/*" },
    { dir: "/m/pkg/web", pattern: "all:assets" },
    { dir: "/m/pkg/web", pattern: "*.tmpl" },
    { dir: "/m/pkg/web", pattern: "t/*/x.txt" },
  ],
};

const TOOL: Places = {
  files: ["/m/go.mod", "/else/HEAD"],
  folders: [
    { dir: "/m/cmd/tool", kind: "sources" },
    { dir: "/m/pkg/web", kind: "sources" },
    { dir: "/m/cmd/tool/kodata", kind: "all" },
  ],
  embeds: [],
};

const set = new WatchSet({
  programs: new Map([
    ["app", APP],
    ["tool", TOOL],
  ]),
  args: { ...NOWHERE, folders: [{ dir: "/m/walked", kind: "source tree" }] },
  yaml: {
    ...NOWHERE,
    files: ["/m/single"],
    folders: [
      { dir: "/m/config", kind: "yaml" },
      { dir: "/m/deep", kind: "yaml tree" },
    ],
  },
  config: { ...NOWHERE, files: ["/m/.ko.yaml"] },
});

/** What is affected, in a few words. */
function show({ args, config, programs, yaml }: Affected): string {
  const others = Object.entries({ args, yaml, config }).filter(([, is]) => is);
  return [...programs, ...others.map(([name]) => name)].join(" ");
}

describe("WatchSet", () => {
  test.each<[string, PathChange["is"], string]>([
    // Sources of a package, in each program that uses it.
    ["/m/cmd/app/main.go", "file", "app"],
    ["/m/pkg/web/handler.go", "file", "app tool"],
    ["/m/pkg/web/handler.go", "gone", "app tool"],
    ["/m/pkg/web/asm_amd64.s", "file", "app tool"],
    ["/m/pkg/web/c.h", "file", "app tool"],
    ["/m/pkg/web/go.mod", "file", "app tool"],
    ["/m/go.mod", "gone", "app tool"],
    // Tests, documents, files of editors, hidden files, files that go ignores.
    ["/m/pkg/web/handler_test.go", "file", ""],
    ["/m/pkg/web/README.md", "file", ""],
    ["/m/pkg/web/handler.go~", "file", ""],
    ["/m/pkg/web/.handler.go.swp", "file", ""],
    ["/m/pkg/web/.#handler.go", "file", ""],
    ["/m/pkg/web/#handler.go#", "file", ""],
    ["/m/pkg/web/_old.go", "file", ""],
    ["/m/pkg/web/4913", "file", ""],
    ["/m/pkg/web/web", "file", ""],
    // A package without importers, and a folder below a used one.
    ["/m/pkg/other/other.go", "file", ""],
    ["/m/pkg/web/inner/inner.go", "file", ""],
    ["/m/pkg/web/inner", "folder", ""],
    // Folders that are watched, or above those, that appear or disappear.
    ["/m/pkg/web", "gone", "app tool"],
    ["/m/pkg", "folder", "app tool"],
    ["/m/cmd", "gone", "app tool"],
    ["/m/missing", "folder", "app"],
    ["/m/missing/deep", "folder", "app"],
    ["/m/pkg/web", "names", "app tool"],
    ["/m/pkg", "names", ""],
    // Embedded: as the patterns say.
    ["/m/pkg/web/static/a.css", "file", "app"],
    ["/m/pkg/web/static/deep/b.css", "file", "app"],
    ["/m/pkg/web/static/deep/.hidden", "file", ""],
    ["/m/pkg/web/static/a.css~", "file", ""],
    ["/m/pkg/web/assets/.hidden", "file", "app"],
    ["/m/pkg/web/page.tmpl", "file", "app"],
    ["/m/pkg/web/page.txt", "file", ""],
    ["/m/pkg/web/t/a/x.txt", "file", "app"],
    ["/m/pkg/web/t/a/y.txt", "file", ""],
    ["/m/pkg/web/t/a", "folder", "app"],
    ["/m/pkg/web/t/a", "file", ""],
    // kodata: everything but the files of editors.
    ["/m/cmd/tool/kodata/x_test.go", "file", "tool"],
    ["/m/cmd/tool/kodata/.hidden", "file", "tool"],
    ["/m/cmd/tool/kodata/a.txt~", "file", ""],
    ["/m/cmd/tool/kodata/.a.txt.swp", "file", ""],
    ["/m/cmd/app/kodata", "folder", "app"],
    ["/else/HEAD", "file", "tool"],
    ["/else/config", "file", ""],
    // YAML and configuration.
    ["/m/config/a.yaml", "file", "yaml"],
    ["/m/config/a.yml", "gone", "yaml"],
    ["/m/config/a.json", "file", "yaml"],
    ["/m/config/.a.yaml", "file", ""],
    ["/m/config/a.yaml~", "file", ""],
    ["/m/config/a.txt", "file", ""],
    ["/m/config/sub", "folder", ""],
    ["/m/deep/sub", "folder", "yaml"],
    ["/m/deep/.git", "folder", ""],
    ["/m/single", "file", "yaml"],
    ["/m/.ko.yaml", "file", "config"],
    // Packages that a pattern may match later.
    ["/m/walked/new", "folder", "args"],
    ["/m/walked/x.go", "file", "args"],
    ["/m/walked/.git", "folder", ""],
    ["/m", "gone", "app tool args yaml config"],
  ])("%s (%s) affects: %s", (path, is, affected) => {
    expect(show(set.affectedBy({ path, is }))).toBe(affected);
    // A path is checked before its state is known.
    if (affected !== "") expect(set.mayAffect(path)).toBe(true);
  });

  test("names the folders to watch, each without those below", () => {
    const folders = ["/else", "/m", "/m/cmd/app", "/m/cmd/tool", "/m/cmd/tool/kodata", "/m/config", "/m/deep"];
    const more = ["/m/missing/deep", "/m/pkg/web", "/m/pkg/web/static", "/m/walked"];
    expect([...set.folders].sort()).toEqual([...folders, ...more]);
    expect(set.packages).toBe(4);
  });

  test("has nothing to say of nothing", () => {
    const nothing = new WatchSet(NOTHING_TO_WATCH);
    expect(nothing.folders.size).toBe(0);
    expect(nothing.mayAffect("/m/go.mod")).toBe(false);
  });
});
