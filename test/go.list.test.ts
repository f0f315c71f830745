import { describe, expect, test } from "bun:test";
import { buildEnvironment, findMains, listPackages, parsePackages } from "../lib/go.ts";
import { failuresOf } from "./helpers/failures.ts";
import { goMod, goWorld, mainGo } from "./helpers/go.ts";
import { writeTree } from "./helpers/world-folders.ts";

const LINUX = { os: "linux", architecture: "amd64" };

describe("listPackages()", () => {
  test("tells of programs and what they depend on, in one list", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/dep v1.2.3\n\nreplace example.com/dep => ./dep\n",
      }),
      "cmd/a/main.go": `package main\n\nimport (\n\t_ "embed"\n\n\t"example.com/dep"\n)\n\n//go:embed static/*.txt\nvar text string\n\nfunc main() { dep.Do(text) }\n`,
      "cmd/a/main_windows.go": "package main\n",
      "cmd/a/static/hi.txt": "hi",
      "dep/go.mod": goMod("example.com/dep"),
      "dep/dep.go": "package dep\n\nfunc Do(string)\n",
      "dep/dep_amd64.s": "\n",
    });
    const world = goWorld(tree.path);
    const env = buildEnvironment(LINUX, world.host.env);
    const packages = await listPackages(["./cmd/a"], { ...world, cwd: tree.path, env });
    const module = { path: "example.com/app", version: undefined, main: true, local: false };
    const replaced = { path: "example.com/dep", version: "v1.2.3", main: false, local: true };
    const common = { name: "main", standard: false, depOnly: false, problem: undefined, dependencyProblems: [] };
    expect(packages.filter((each) => !each.standard)).toEqual([
      {
        ...common,
        name: "dep",
        importPath: "example.com/dep",
        dir: tree.at("dep"),
        module: { ...replaced, dir: tree.at("dep"), goMod: tree.at("dep/go.mod") },
        depOnly: true,
        match: [],
        goFiles: ["dep.go"],
        cgoFiles: [],
        ignoredOtherFiles: [],
        imports: [],
        ignoredGoFiles: [],
        otherFiles: ["dep_amd64.s"],
        embedFiles: [],
        embedPatterns: [],
      },
      {
        ...common,
        importPath: "example.com/app/cmd/a",
        dir: tree.at("cmd/a"),
        module: { ...module, dir: tree.path, goMod: tree.at("go.mod") },
        match: ["./cmd/a"],
        goFiles: ["main.go"],
        cgoFiles: [],
        ignoredOtherFiles: [],
        imports: ["embed", "example.com/dep"],
        ignoredGoFiles: ["main_windows.go"],
        otherFiles: [],
        embedFiles: ["static/hi.txt"],
        embedPatterns: ["static/*.txt"],
      },
    ]);
    expect(packages.find((each) => each.importPath === "embed")).toMatchObject({ standard: true, depOnly: true });
  });

  test.each([
    [
      "a go.mod that wants a newer go",
      { "go.mod": goMod("a", { go: "1.999" }) },
      {},
      /: go\.mod requires go >= 1\.999 \(running go .*; GOTOOLCHAIN=local\)$/,
      "Let go fetch that version: GOTOOLCHAIN=auto",
    ],
    [
      "a broken go.mod",
      { "go.mod": "module a\nfoo\n" },
      {},
      /: errors parsing go\.mod:\ngo\.mod:2: unknown directive: foo$/,
      undefined,
    ],
    [
      "a folder without module",
      {},
      {},
      /: go\.mod file not found in /,
      "Run ko where the go.mod file is, or make one: go mod init",
    ],
    [
      "GOFLAGS that go does not know",
      { "go.mod": goMod("a") },
      { GOFLAGS: "-xyz" },
      /: parsing \$GOFLAGS: unknown flag -xyz$/,
      undefined,
    ],
    [
      "a vendor folder that is out of step",
      { "go.mod": goMod("a", { more: "\nrequire example.com/b v1.0.0\n" }), "vendor/modules.txt": "" },
      {},
      /: inconsistent vendoring in /,
      undefined,
    ],
  ])("keeps go's words for %s", async (_name, files, env, message, hint) => {
    using tree = writeTree({ "main.go": mainGo(), ...files });
    const world = goWorld(tree.path, env);
    const listing = listPackages(["."], { ...world, cwd: tree.path, env: buildEnvironment(LINUX, world.host.env) });
    const [failure] = await failuresOf(listing, tree.path);
    expect(failure?.message).toMatch(message);
    expect(failure?.message).toStartWith('Cannot read the Go packages of "$DIR": ');
    expect(failure?.hint).toBe(hint);
  });
});

describe("findMains()", () => {
  test("finds the programs and nothing else", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "cmd/a/main.go": mainGo(),
      "cmd/b/main.go": mainGo(),
      "lib/lib.go": "package lib\n",
    });
    const world = goWorld(tree.path);
    const env = buildEnvironment(LINUX, world.host.env);
    expect(await findMains("./...", { ...world, cwd: tree.path, env })).toEqual([
      { importPath: "example.com/app/cmd/a", dir: tree.at("cmd/a") },
      { importPath: "example.com/app/cmd/b", dir: tree.at("cmd/b") },
    ]);
  });
});

describe("parsePackages()", () => {
  const parse = (text: string): readonly string[] =>
    parsePackages(new TextEncoder().encode(text)).map((each) => each.importPath);

  test.each([
    ["", []],
    ['{\n\t"ImportPath": "a"\n}\n', ["a"]],
    ['{\n\t"ImportPath": "a",\n\t"Module": {\n\t\t"Path": "m"\n\t}\n}\n{\n\t"ImportPath": "b"\n}\n', ["a", "b"]],
    ['{\n\t"ImportPath": "a"\n}', ["a"]],
  ])("case %#", (text, want) => {
    expect(parse(text)).toEqual(want);
  });

  test.each(["hello\n", "{\n", '[\n"a"\n]\n', '{\n\t"Dir": 1\n}\n', '{\n\t"Match": [1]\n}\n'])("refuses %j", (text) => {
    expect(() => parse(text)).toThrow(/^Cannot read .*the output of go list: it is not /);
  });
});
