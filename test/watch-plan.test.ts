import { describe, expect, test } from "bun:test";
import type { GoModule, GoPackage } from "../lib/go.ts";
import type { Program } from "../lib/go-programs.ts";
import { planArguments, planConfig, planInputs, planKodata, planPatterns, planProgram } from "../lib/watch-plan.ts";
import type { Places } from "../lib/watch-places.ts";
import { goMod } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

function goPackage(part: Partial<GoPackage> & Pick<GoPackage, "importPath" | "dir">): GoPackage {
  return {
    ...{ name: "", standard: false, module: undefined, depOnly: true, match: [], problem: undefined },
    ...{ dependencyProblems: [], goFiles: [], cgoFiles: [], ignoredGoFiles: [], ignoredOtherFiles: [] },
    ...{ otherFiles: [], embedFiles: [], embedPatterns: [], imports: [] },
    ...part,
  };
}

/** Places with paths below the tree only, as short lines. */
function show(tree: Tree, { embeds, files, folders }: Places): readonly string[] {
  const shorten = (path: string): string => (path === tree.path ? "." : path.slice(tree.path.length + 1));
  const lines = [
    ...files.filter((path) => path.startsWith(tree.path)).map(shorten),
    ...folders.map(({ dir, kind }) => `${shorten(dir)}/ ${kind}`),
    ...embeds.map(({ dir, pattern }) => `${shorten(dir)}/ embeds ${pattern}`),
  ];
  return [...new Set(lines)].sort();
}

describe("planProgram()", () => {
  test("takes packages of all modules that can change, and nothing of those that cannot", () => {
    using tree = writeTree({
      "app/go.mod": goMod("example.com/app", { more: "\nreplace example.com/near => ../near\n" }),
      "app/cmd/x/main.go": "",
      "app/cmd/x/kodata/a.txt": "",
      "app/pkg/p.go": "",
      "app/pkg/static/a.css": "",
      "near/go.mod": goMod("example.com/near"),
      "near/n.go": "",
      "cache/far@v1.0.0/f.go": "",
      "go/src/fmt/print.go": "",
    });
    const main: GoModule = {
      ...{ path: "example.com/app", version: undefined, dir: tree.at("app"), main: true },
      ...{ goMod: tree.at("app/go.mod"), local: false },
    };
    const near = {
      ...main,
      path: "example.com/near",
      dir: tree.at("near"),
      main: false,
      goMod: tree.at("near/go.mod"),
      local: true,
    };
    const far = { ...main, path: "example.com/far", version: "v1.0.0", dir: tree.at("cache/far@v1.0.0"), main: false };
    const program: Program = {
      ...{ importPath: "example.com/app/cmd/x", dir: tree.at("app/cmd/x"), module: main },
      ...{ workDir: tree.at("app"), text: "./cmd/x" },
    };
    const imports = [
      "fmt",
      "example.com/app/pkg",
      "example.com/near",
      "example.com/far",
      "example.com/app/missing",
      "C",
    ];
    const packages = [
      goPackage({ importPath: "fmt", dir: tree.at("go/src/fmt"), standard: true }),
      goPackage({ importPath: "example.com/far", dir: tree.at("cache/far@v1.0.0"), module: far }),
      goPackage({ importPath: "example.com/near", dir: tree.at("near"), module: near }),
      goPackage({
        ...{ importPath: "example.com/app/pkg", dir: tree.at("app/pkg"), module: main },
        ...{ embedPatterns: ["static", "*.tmpl"], embedFiles: ["static/a.css"] },
      }),
      goPackage({ importPath: "example.com/app/missing", dir: "" }),
      goPackage({ importPath: "example.com/app/unused", dir: tree.at("app/unused"), module: main }),
      goPackage({ importPath: program.importPath, dir: program.dir, module: main, imports }),
    ];
    expect(show(tree, planProgram(program, [packages], { cwd: tree.at("app"), env: {}, platform: "linux" }))).toEqual(
      [
        // Files that choose modules, and paths where a new go.mod would take a package out of its module.
        ...["app/cmd/go.mod", "app/cmd/x/go.mod", "app/go.mod", "app/go.sum", "app/pkg/go.mod"],
        ...["app/vendor", "app/vendor/modules.txt", "near/go.mod", "near/go.sum"],
        ...["near/vendor", "near/vendor/modules.txt"],
        ...["app/cmd/go.work", "app/cmd/x/go.work", "app/go.work"],
        ...["app/cmd/x/ sources", "app/pkg/ sources", "near/ sources", "app/missing/ sources"],
        ...["app/pkg/ embed", "app/pkg/ embeds *.tmpl", "app/pkg/ embeds static"],
        ...["app/pkg/static", "app/pkg/static/ embed"],
      ].sort(),
    );
  });
});

test("planProgram() takes go's settings file, and the workspace that it names", () => {
  using tree = writeTree({
    "app/go.mod": goMod("example.com/app"),
    "app/main.go": "",
    "settings/env": "",
    "else/team.work": "",
  });
  tree.write({ "settings/env": `GOWORK=${tree.at("else/team.work")}\n` });
  const dir = tree.at("app");
  const module: GoModule = {
    ...{ path: "example.com/app", version: undefined, dir, main: true, local: false, goMod: tree.at("app/go.mod") },
  };
  const program: Program = { importPath: "example.com/app", dir, module, workDir: dir, text: "." };
  const packages = [goPackage({ importPath: "example.com/app", dir, module })];
  const plan = (env: Readonly<Record<string, string>>): readonly string[] =>
    show(tree, planProgram(program, [packages], { cwd: dir, env, platform: "linux" }));
  const named = ["settings/env", "else/team.work"];
  expect(plan({ GOENV: tree.at("settings/env") })).toEqual(expect.arrayContaining(named));
  expect(plan({ GOENV: "off" }).filter((line) => named.includes(line))).toEqual([]);
});

describe("planArguments()", () => {
  test("takes the surroundings of arguments if go lists nothing", () => {
    using tree = writeTree({ "go.mod": "module broken (" });
    const places = planArguments(["./cmd/x", "ko://example.com/y", "./z/..."], [], {
      cwd: tree.path,
      env: {},
      platform: "linux",
    });
    expect(show(tree, places)).toEqual(
      expect.arrayContaining(["go.mod", "go.sum", "go.work", "cmd/x/ sources", "z/ sources", "cmd/x/go.mod"]),
    );
  });
});

describe("planPatterns()", () => {
  test("takes the folders that go walks", () => {
    using tree = writeTree({
      "go.mod": "",
      "a/b/x.go": "",
      ...{ "vendor/v/x.go": "", "testdata/x.go": "", "_old/x.go": "", ".git/HEAD": "", "nested/go.mod": "" },
    });
    const options = { cwd: tree.path, env: {}, platform: "linux" };
    expect(show(tree, planPatterns(["./..."], options))).toEqual([
      "./ source tree",
      "a/ source tree",
      "a/b/ source tree",
    ]);
    expect(show(tree, planPatterns(["./a/...", "./x"], options))).toEqual(["a/ source tree", "a/b/ source tree"]);
    expect(show(tree, planPatterns(["./a", "example.com/..."], options))).toEqual([]);
  });
});

describe("planKodata()", () => {
  test("follows symlinks as far as they may lead, and watches missing paths", () => {
    using tree = writeTree({
      ".git/HEAD": "",
      "cmd/kodata/a.txt": "",
      "cmd/kodata/deep/b.txt": "",
      "cmd/kodata/HEAD": { link: "../../.git/HEAD" },
      "cmd/kodata/data": { link: "../../data" },
      "cmd/kodata/loop": { link: ".." },
      "cmd/kodata/out": { link: "/etc" },
      "cmd/kodata/nowhere": { link: "nowhere at all" },
      "data/c/d.txt": "",
    });
    expect(show(tree, planKodata(tree.at("cmd"), { env: {} }))).toEqual([
      ".git/HEAD",
      "cmd/ all",
      "cmd/kodata",
      "cmd/kodata/ all",
      "cmd/kodata/deep/ all",
      "data/ all",
      "data/c/ all",
    ]);
    expect(show(tree, planKodata(tree.at("data"), { env: {} }))).toEqual(["data/kodata"]);
  });
});

describe("planInputs()", () => {
  test("takes files, folders, subfolders with -R, and targets of symlinks", () => {
    using tree = writeTree({
      "a.yml": "",
      "config/x.yaml": "",
      "config/sub/y.yaml": "",
      "config/.hidden/z.yaml": "",
      "linked.yaml": { link: "other/real.yaml" },
      "other/real.yaml": "",
    });
    const options = { cwd: tree.path, env: {}, platform: "linux" };
    const request = {
      files: ["a.yml", "config", "linked.yaml", "missing.yaml", "-", "https://x.example/y.yaml"],
      kustomize: undefined,
    };
    const files = ["a.yml", "config", "linked.yaml", "missing.yaml", "other/real.yaml"];
    expect(show(tree, planInputs({ ...request, recursive: false }, options))).toEqual(
      [...files, "config/ yaml"].sort(),
    );
    expect(show(tree, planInputs({ ...request, recursive: true }, options))).toEqual(
      [...files, "config/ yaml tree", "config/sub/ yaml tree"].sort(),
    );
  });

  test("takes a kustomization and the files that it names", () => {
    using tree = writeTree({
      "over/kustomization.yaml":
        "resources: [../base, https://x.example/z]\npatches:\n- path: ../patch.yaml\n- path: own.yaml\n",
      "over/own.yaml": "",
      "base/kustomization.yml": "resources:\n  - deployment.yaml\n",
      "base/deployment.yaml": "",
      "patch.yaml": "",
      "unused/x.yaml": "",
    });
    const request = { files: [], recursive: false, kustomize: "over" };
    expect(show(tree, planInputs(request, { cwd: tree.path }))).toEqual(["base/ all", "over/ all", "patch.yaml"]);
  });
});

describe("planConfig()", () => {
  test("takes the file, or where it could appear", () => {
    using tree = writeTree({ "else/.ko.yaml": "" });
    const here = (env: Readonly<Record<string, string>>): readonly string[] =>
      show(tree, planConfig({ cwd: tree.path, env }));
    expect(here({})).toEqual([".ko.json", ".ko.yaml", ".ko.yml"]);
    expect(here({ KO_CONFIG_PATH: "else" })).toEqual(["else/.ko.json", "else/.ko.yaml", "else/.ko.yml"]);
    expect(here({ KO_CONFIG_PATH: "else/.ko.yaml" })).toEqual(["else/.ko.yaml"]);
    expect(here({ KO_CONFIG_PATH: "nowhere.yaml" })).toEqual(["nowhere.yaml"]);
  });
});
