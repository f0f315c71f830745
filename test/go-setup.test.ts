import { describe, expect, test } from "bun:test";
import { NO_WORDS } from "../lib/config-builds.ts";
import type { Word } from "../lib/config-file.ts";
import { UsageError } from "../lib/errors.ts";
import { type BuildSetup, BuildSetups, buildArguments, compileKey, listArguments, listKey } from "../lib/go-setup.ts";
import { parsePlatform, type Platform } from "../lib/oci.ts";
import { goMod, goWorld, mainGo, openSetups } from "./helpers/go.ts";
import { writeTree } from "./helpers/world-folders.ts";

describe("buildArguments()", () => {
  test.each([
    [{ flags: [], ldflags: [] }, ["-trimpath"]],
    [{ flags: ["-v"], ldflags: ["-s", "-w"] }, ["-v", "-trimpath", "-ldflags=-s -w"]],
    [{ flags: ["-v"], ldflags: [], trimpath: false }, ["-v"]],
    [
      { flags: ["-v"], ldflags: ["-s"], disableOptimizations: true },
      ["-v", "-trimpath", "-gcflags", "all=-N -l", "-ldflags=-s"],
    ],
  ])("case %#", (options, want) => {
    expect(buildArguments(options)).toEqual(want);
  });

  test("refuses -toolexec", () => {
    expect(() => buildArguments({ flags: ["-v", "-toolexec=x"], ldflags: [] })).toThrow(UsageError);
  });
});

describe("listArguments()", () => {
  test.each<[readonly string[], readonly string[]]>([
    [["-v", "-trimpath", "-ldflags=-s"], []],
    [
      ["-tags", "a b", "--tags=c", "-trimpath"],
      ["-tags", "a b", "--tags=c"],
    ],
    [
      ["-mod=vendor", "-modfile", "x.mod", "-overlay=o.json"],
      ["-mod=vendor", "-modfile", "x.mod", "-overlay=o.json"],
    ],
    [
      ["-race", "-msan=true", "-a"],
      ["-race", "-msan=true"],
    ],
  ])("of %j", (args, want) => {
    expect(listArguments({ args })).toEqual([...want]);
  });
});

describe("listKey() and compileKey()", () => {
  test("tell only setups apart that go cannot have together", () => {
    const plain: BuildSetup = { env: { A: "1", B: "2" }, args: ["-trimpath"] };
    const sorted: BuildSetup = { env: { B: "2", A: "1" }, args: ["-trimpath"], workDir: "/x" };
    const linked: BuildSetup = { env: plain.env, args: ["-trimpath", "-ldflags=-s"] };
    const tagged: BuildSetup = { env: plain.env, args: ["-tags=a", "-trimpath"] };
    const other: BuildSetup = { env: { A: "1" }, args: ["-trimpath"] };
    expect([sorted, linked, tagged, other].map((setup) => listKey(setup) === listKey(plain))).toEqual([
      true,
      true,
      false,
      false,
    ]);
    expect([sorted, linked, tagged, other].map((setup) => compileKey(setup) === compileKey(plain))).toEqual([
      true,
      false,
      false,
      false,
    ]);
  });
});

describe("BuildSetups", () => {
  const word = (value: string): Word => ({ value, setting: "x", where: "x" });

  test.each<[string, string | undefined, readonly string[], string]>([
    ["the working directory", undefined, [], ""],
    ["that of the module, for a folder of it", "cmd", ["-v", "-tags=x", "-mod=readonly"], ""],
    ["the entry's, for a flag with a path", "cmd", ["-modfile=x.mod"], "cmd"],
    ["the entry's, for an overlay as two words", "cmd", ["-overlay", "x.json"], "cmd"],
    ["that of the module, for plain ldflags", "cmd", ["-ldflags=-s -w -X a.b=/c -extldflags '-static' -buildid="], ""],
    ["the entry's, for a library path of the linker", "cmd", ["-ldflags=-L lib"], "cmd"],
    ["the entry's, for flags of the C linker with a path", "cmd", ["-ldflags=-extldflags '-L./lib'"], "cmd"],
    ["that of a nested module, for its folder", "tool/cmd", [], "tool"],
  ])("choose %s", async (_name, dir, flags, want) => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "cmd/web/main.go": mainGo(),
      "tool/go.mod": goMod("example.com/tool"),
      "tool/cmd/web/main.go": mainGo(),
    });
    const entry = {
      name: "builds[0]",
      where: "x",
      dir: dir === undefined ? undefined : word(dir),
      main: word(dir === undefined ? "cmd/web" : "web"),
      env: undefined,
      flags: flags.map(word),
      ldflags: undefined,
      capabilities: undefined,
    };
    const setups = openSetups(goWorld(tree.path), { builds: [entry] });
    expect((await setups.for(setups.entries.all[0], undefined)).workDir).toBe(tree.at(want));
  });

  test("leave a program to its own module if the entry's folder cannot see it", async () => {
    using tree = writeTree({ "go.mod": goMod("a"), "tool/go.mod": goMod("b"), "tool/main.go": mainGo() });
    const entry = {
      name: "",
      where: "",
      dir: undefined,
      main: word("tool"),
      env: undefined,
      flags: undefined,
      ldflags: undefined,
      capabilities: undefined,
    };
    const setups = openSetups(goWorld(tree.path), { builds: [entry] });
    expect((await setups.for(setups.entries.all[0], undefined)).workDir).toBeUndefined();
    const workspace = openSetups(goWorld(tree.path, { GOWORK: tree.at("go.work") }), { builds: [entry] });
    expect((await workspace.for(workspace.entries.all[0], undefined)).workDir).toBe(tree.path);
  });

  test("of a debugged platform have symbols and no optimizations, and tell it once", async () => {
    using tree = writeTree({ "go.mod": goMod("a"), "main.go": mainGo() });
    const world = goWorld(tree.path, { GOFLAGS: "-ldflags=-w" });
    const isDebugged = ({ architecture }: Platform): boolean => architecture === "amd64";
    const config = { builds: [], defaults: NO_WORDS, sourceDateEpoch: undefined };
    const setups = new BuildSetups({ ...world, config, isDebugged });
    const [amd64, arm] = [parsePlatform("linux/amd64"), parsePlatform("linux/arm/v7")];
    const program = { importPath: "a", dir: tree.path };
    expect(await setups.of(program, arm)).toMatchObject({ args: ["-trimpath"], isDebugged: false });
    expect(setups.flagWarnings).toEqual([]);
    const args = ["-trimpath", "-gcflags", "all=-N -l", "-ldflags="];
    expect(await setups.of(program, amd64)).toMatchObject({ args, isDebugged: true });
    const both = new BuildSetups({ ...world, config, isDebugged, disableOptimizations: true });
    expect((await both.of(program, arm)).args).toEqual(["-trimpath", "-gcflags", "all=-N -l"]);
    expect(setups.flagWarnings).toEqual([
      "--debug leaves -s and -w out of ldflags: without symbols no breakpoint works",
    ]);
  });
});
