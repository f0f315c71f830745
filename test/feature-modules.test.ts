/**
 * Programs of several modules without a go.work, in one run. A run with the cache is compared with one without: an image of
 * the wrong module, or of an old one, shows.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { goMod, libraryGo, mainGo } from "./helpers/go.ts";
import { openScene, type Outcome, remove, type Scene, SETTLED_MS } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";

const moduleFiles = (dir: string, path: string): Files => ({
  [`${dir}/go.mod`]: goMod(path),
  [`${dir}/cmd/x/main.go`]: mainGo(path, [`${path}/lib`]),
  [`${dir}/lib/lib.go`]: libraryGo("lib", `${path} 1`),
});

const FILES: Files = {
  ...moduleFiles("a", "example.com/a"),
  ...moduleFiles("b", "example.com/b"),
  "config/all.yaml": "image: ko://example.com/a/cmd/x\n---\nimage: ko://example.com/b/cmd/x\n",
};

const BUILD = ["build", "-q", "--push=false", "-P", "--sbom=none"];
const DIRECTORIES = [...BUILD, "./a/cmd/x", "./b/cmd/x"];
const PATHS = [...BUILD, "example.com/a/cmd/x", "example.com/b/cmd/x"];
const YAML = ["resolve", "-q", "--push=false", "-P", "--sbom=none", "-f", "config"];

let scene: Scene | undefined;

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

/** A work tree of git with these files. */
async function open(
  files: Files,
  { args = PATHS, cwd = "." }: { args?: readonly string[]; cwd?: string } = {},
): Promise<Scene> {
  const inside = Object.fromEntries(Object.entries(files).map(([path, entry]) => [`app/${path}`, entry]));
  const options = { args, cwd: `app/${cwd}`, env: { GOFLAGS: "-buildvcs=false" }, git: true };
  return (scene = await openScene(inside, options));
}

/** Runs with the cache, and asserts that a run without it gives the same. */
async function same(of: Scene): Promise<Outcome> {
  const outcome = await of.run();
  const wanted = await of.reference();
  expect({ code: outcome.code, images: outcome.images }).toEqual({ code: wanted.code, images: wanted.images });
  return outcome;
}

const ROOT = { "go.mod": goMod("example.com/root"), "main.go": mainGo("root") };

describe("#148, #129: programs of several modules, without a go.work", () => {
  test.each<[string, Files, readonly string[], string]>([
    ["by folder", {}, DIRECTORIES, "."],
    ["by import path", {}, PATHS, "."],
    ["in YAML", {}, YAML, "."],
    ["by folder, below a module", ROOT, DIRECTORIES, "."],
    ["by import path, below a module", ROOT, PATHS, "."],
    ["in YAML, below a module", ROOT, YAML, "."],
    ["by import path, in one of them", {}, PATHS, "a"],
    ["by import path, in a folder beside them", {}, PATHS, "config"],
  ])(
    "%s",
    async (_name, more, args, cwd) => {
      const of = await open({ ...FILES, ...more }, { args, cwd });
      const first = await same(of);
      expect(first.code).toBe(0);
      expect(first.images).toMatch(
        /example\.com\/team\/example\.com\/a\/cmd\/x\S*@sha256:\w+\n(?:---\n)?.*\/b\/cmd\/x\S*@sha256:/,
      );
      // A change of one module changes one image.
      await Bun.sleep(SETTLED_MS);
      of.tree.write({ "app/b/lib/lib.go": libraryGo("lib", "example.com/b 2") });
      const second = await same(of);
      const [a, b] = first.images.split("\n").filter((line) => line.includes("@"));
      expect(second.images).toContain(a ?? "?");
      expect(second.images).not.toContain(b ?? "?");
      expect(second.go.filter((word) => word === "build").length).toBe(1);
    },
    60_000,
  );

  test("a change of where a module is never leaves an image of the old one", async () => {
    const of = await open(FILES);
    await same(of);
    for (const change of [
      // A module inside of another takes over.
      () => of.tree.write({ "app/b/cmd/go.mod": goMod("example.com/b/cmd"), "app/b/cmd/x/main.go": mainGo("nested") }),
      () => remove(of.tree, "app/b/cmd/go.mod"),
      // The module moves.
      () => (of.tree.write(moduleFiles("app/moved", "example.com/b")), remove(of.tree, "app/b")),
      // The root becomes a module that gets it by a replacement.
      () =>
        of.tree.write({
          ...moduleFiles("app/other", "example.com/b"),
          "app/go.mod": goMod("example.com/root", {
            more: "\nrequire example.com/b v0.0.0\n\nreplace example.com/b => ./other\n",
          }),
          "app/other/lib/lib.go": libraryGo("lib", "other"),
          "app/main.go": 'package main\n\nimport _ "example.com/b/lib"\n\nfunc main() {}\n',
        }),
      () => remove(of.tree, "app/go.mod", "app/main.go", "app/other"),
      () => of.tree.write({ "app/go.work": "go 1.21\n\nuse (\n\t./a\n\t./moved\n)\n" }),
    ]) {
      await Bun.sleep(SETTLED_MS);
      change();
      expect((await same(of)).code).toBe(0);
    }
  }, 120_000);

  test("two folders with the same module are an error that names both, also when the cache knows one", async () => {
    const of = await open(FILES);
    expect((await same(of)).code).toBe(0);
    await Bun.sleep(SETTLED_MS);
    of.tree.write(moduleFiles("app/copy", "example.com/b"));
    const { code, images, stderr } = await same(of);
    expect({ code, images }).toEqual({ code: 1, images: "" });
    expect(stderr).toBe(
      'Error: Cannot build "example.com/b/cmd/x": several modules have it, in ./b/cmd/x and ./copy/cmd/x\n  Name one by its folder: ./b/cmd/x\n',
    );
    const named = await of.run({ args: DIRECTORIES });
    expect(named.code).toBe(0);
    // A copy without the program does not count.
    remove(of.tree, "app/copy/cmd");
    expect((await same(of)).code).toBe(0);
  }, 60_000);

  test("modules below the working directory win over others", async () => {
    const of = await open(
      { ...FILES, ...moduleFiles("work/copy", "example.com/b") },
      { args: [...BUILD, "example.com/b/cmd/x"], cwd: "work" },
    );
    of.tree.write({ "app/work/copy/lib/lib.go": libraryGo("lib", "the copy") });
    const near = await same(of);
    expect(near.code).toBe(0);
    const named = await of.run({ args: [...BUILD, "./copy/cmd/x"] });
    expect(near.images).toBe(named.images);
  }, 60_000);

  test("the module of a program is the one that has its folder, not only the longest path", async () => {
    const nested = { "b/tools/go.mod": goMod("example.com/b/cmd"), "b/tools/y/main.go": mainGo() };
    const of = await open({ ...FILES, ...nested });
    expect((await same(of)).code).toBe(0);
  }, 60_000);

  test("looks for modules only if the main module does not have an import path", async () => {
    const of = await open({ ...FILES, ...ROOT }, { args: [...BUILD, "example.com/root"] });
    const first = await of.run();
    expect(first.code).toBe(0);
    expect(first.go).toEqual(["list", "build"]);
    expect((await of.run()).go).toEqual([]);
  }, 60_000);
});
