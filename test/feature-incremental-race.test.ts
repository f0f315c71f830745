/**
 * What is edited while a build runs: whatever that build makes of it, the next one is right.
 *
 * A script stands in for the user, between the calls of go or while one of them waits.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, renameSync } from "node:fs";
import { goMod, libraryGo } from "./helpers/go.ts";
import { MODULES, type Moment, openScene, type Scene, type SceneOptions, SETTLED_MS } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";

interface Race extends SceneOptions {
  /** In plain words; the test's name. */
  readonly name: string;
  /** Beside {@link MODULES}. */
  readonly files?: Files;
  /** What happens, in the tree. */
  readonly script: string;
  /** What happens before the next run. */
  readonly after?: (scene: Scene) => unknown;
}

const edit = (text: string): string => `printf '${libraryGo("lib", text).replaceAll("\n", "\\n")}' > app/lib/lib.go`;

const RACES: readonly Race[] = [
  { name: "a source is edited", script: edit("lib 2") },
  {
    name: "a source is edited: same size, mtime put back",
    script: `touch -r app/lib/lib.go stamp; ${edit("lib 2")}; touch -r stamp app/lib/lib.go`,
  },
  {
    name: "a source is replaced by one that was there long before",
    files: { "spare.go": libraryGo("lib", "spare") },
    script: "mv spare.go app/lib/lib.go",
  },
  {
    name: "a link is led to a source that was there long before",
    files: { "app/lib/lib.go": { link: "../../a.go" }, "a.go": libraryGo("lib", "a"), "b.go": libraryGo("lib", "b") },
    script: "ln -sfn ../../b.go app/lib/lib.go",
  },
  {
    name: "a linked module is led to one that was there long before",
    files: {
      "app/go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ../current\n",
      }),
      current: { link: "dep" },
      "dep2/go.mod": goMod("example.com/dep"),
      "dep2/dep.go": libraryGo("dep", "dep 2"),
    },
    script: "ln -sfn dep2 current",
  },
  {
    name: "a folder takes the place of another",
    files: { "spare/lib.go": libraryGo("lib", "spare"), "spare/never.go": "//go:build never\n\npackage lib\n" },
    script: "mv app/lib old && mv spare app/lib",
  },
  {
    name: "a folder above takes the place of another",
    files: {
      "spare/dep/go.mod": goMod("example.com/dep"),
      "spare/dep/dep.go": libraryGo("dep", "spare"),
      "up/dep/go.mod": goMod("example.com/dep"),
      "up/dep/dep.go": libraryGo("dep", "up"),
      "app/go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ../up/dep\n",
      }),
    },
    script: "mv up old && mv spare up",
  },
  { name: "a source is added", script: `printf 'package lib\\n\\nfunc init() { Text = "more" }\\n' > app/lib/more.go` },
  {
    name: "a source goes",
    files: { "app/lib/more.go": 'package lib\n\nfunc init() { Text = "more" }\n' },
    script: "rm app/lib/more.go",
  },
  {
    name: "a source comes and goes",
    files: { "app/lib/more.go": 'package lib\n\nfunc init() { Text = "more" }\n' },
    script: "mv app/lib/more.go more.go",
    after: ({ tree }) => renameSync(tree.at("more.go"), tree.at("app/lib/more.go")),
  },
  { name: "go.mod is edited", script: "sed -i 's/go 1.21/go 1.25/' app/go.mod" },
  {
    name: "a workspace appears",
    files: { "dep2/go.mod": goMod("example.com/dep"), "dep2/dep.go": libraryGo("dep", "dep 2") },
    script: "printf 'go 1.21\\n\\nuse ./app\\n\\nreplace example.com/dep => ./dep2\\n' > go.work",
  },
  { name: "a file of kodata is edited", script: "echo bye > app/cmd/app/kodata/hello.txt" },
  {
    name: "a commit",
    git: true,
    script: "cd app && git -c user.name=t -c user.email=t commit -q --allow-empty -m two",
  },
  { name: "a tag", git: true, script: "cd app && git tag v1.2.3" },
  { name: "an unrelated file makes the work tree dirty", git: true, script: "echo > app/notes" },
  {
    name: "an embedded file is edited",
    files: embedded(),
    script: "echo 2 > app/cmd/app/static/a.txt",
  },
  { name: "an embedded file is added", files: embedded(), script: "echo 2 > app/cmd/app/static/b.txt" },
  { name: "an embedded file goes", files: embedded(), script: "rm app/cmd/app/static/c.txt" },
  { name: "the go command is replaced", script: `cp -P "$KO_GO_PATH" go && mv go "$KO_GO_PATH"` },
  {
    name: "the go command becomes another",
    script: `printf '#!/bin/sh\\nexport GOAMD64=v3\\nexec %s "$@"\\n' "$(readlink "$KO_GO_PATH")" > go && chmod +x go && mv go "$KO_GO_PATH"`,
  },
];

function embedded(): Files {
  return {
    "app/cmd/app/main.go":
      'package main\n\nimport "embed"\n\n//go:embed static\nvar files embed.FS\n\nfunc main() { println(&files) }\n',
    "app/cmd/app/static/a.txt": "a",
    "app/cmd/app/static/c.txt": "c",
  };
}

/** The last is where most can go wrong: what is looked at afterwards is not what was compiled. */
const MOMENTS: readonly (readonly [what: string, moment: Moment, wait: string, races: readonly Race[]])[] = [
  ["before go build reads it", "before-build", "", RACES.slice(0, 2)],
  ["after go build", "after-build", "", RACES.slice(0, 2)],
  ["after go list, while the program is compiled", "after-list", "sleep 0.3; ", RACES.slice(0, 2)],
  ["after it was compiled, before go list", "before-list", "sleep 1; ", RACES],
];

let scene: Scene | undefined;

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

describe.each(MOMENTS)("%s", (_what, moment, wait, races) => {
  test.each(races.map((race) => [race.name, race] as const))("%s", async (_name, race) => {
    scene = await openScene({ ...MODULES, ...race.files }, race);
    await Bun.sleep(SETTLED_MS);
    // The first run lists before it compiles; the second, of an edited program, does both at once.
    const first = await scene.run();
    if (first.code !== 0) throw new Error(first.stderr);
    scene.tree.write({ "app/cmd/app/extra.go": "package main\n" });
    await Bun.sleep(SETTLED_MS);
    scene.at(moment, wait + race.script);
    await scene.run();
    await race.after?.(scene);
    await Bun.sleep(SETTLED_MS);
    const [next, right] = await Promise.all([scene.run(), scene.reference()]);
    expect([next.code, next.images]).toEqual([right.code, right.images]);
  });
});

describe("after all was looked at, before it is compiled, where go need not list", () => {
  test.each(RACES.map((race) => [race.name, race] as const))("%s", async (_name, race) => {
    scene = await openScene({ ...MODULES, ...race.files, "app/cmd/app/more.go": "package main\n" }, race);
    await Bun.sleep(SETTLED_MS);
    const first = await scene.run();
    if (first.code !== 0) throw new Error(first.stderr);
    scene.tree.write({ "app/cmd/app/more.go": "package main\n\nfunc init() {}\n" });
    await Bun.sleep(SETTLED_MS);
    scene.at("before-build", `sleep 1; ${race.script}`);
    // That it does not list is shown in build-binaries.test.ts; here only the image counts.
    await scene.run();
    await race.after?.(scene);
    await Bun.sleep(SETTLED_MS);
    const [next, right] = await Promise.all([scene.run(), scene.reference()]);
    expect([next.code, next.images]).toEqual([right.code, right.images]);
  });
});

describe.each([
  ["where go lists", "app/cmd/app/extra.go", "package main\n"],
  ["where go need not list", "app/cmd/app/more.go", "package main\n\nfunc init() {}\n"],
])("there and back while a program is compiled, %s", (_what, edited, content) => {
  test.each<[string, Files, string, string]>([
    ["a source", {}, "echo 'package lib; func init() { Text = `more` }' > app/lib/more.go", "rm app/lib/more.go"],
    [
      "a folder",
      { "spare/lib.go": libraryGo("lib", "spare"), "spare/never.go": "//go:build never\n\npackage lib\n" },
      "mv app/lib old; mv spare app/lib",
      "mv app/lib spare; mv old app/lib",
    ],
    [
      "a link",
      { "app/lib/lib.go": { link: "../../a.go" }, "a.go": libraryGo("lib", "a"), "b.go": libraryGo("lib", "b") },
      "ln -sfn ../../b.go app/lib/lib.go",
      "ln -sfn ../../a.go app/lib/lib.go",
    ],
    ["an embedded file", embedded(), "echo > app/cmd/app/static/new", "rm app/cmd/app/static/new"],
  ])("%s", async (_name, files, there, back) => {
    scene = await openScene({ ...MODULES, ...files, "app/cmd/app/more.go": "package main\n" });
    await Bun.sleep(SETTLED_MS);
    await scene.run();
    scene.tree.write({ [edited]: content });
    await Bun.sleep(SETTLED_MS);
    // When go list has told all, and what it told of has been looked at.
    scene.at("before-build", `sleep 1; ${there}`);
    scene.at("after-build", back);
    await scene.run();
    await Bun.sleep(SETTLED_MS);
    const [next, right] = await Promise.all([scene.run(), scene.reference()]);
    expect([next.code, next.images]).toEqual([right.code, right.images]);
  });
});

describe("a clock that is put while a program is compiled", () => {
  test.each([
    ["back", 3600, 0],
    ["back a little", 1, 0],
    ["forward", 0, 3600],
    ["from the past", -3600, 0],
  ])("%s", async (_what, before, after) => {
    scene = await openScene(MODULES);
    await Bun.sleep(SETTLED_MS);
    await scene.run();
    scene.tree.write({ "app/cmd/app/extra.go": "package main\n" });
    await Bun.sleep(SETTLED_MS);
    const put = scene.work.at("put");
    const now = (): Date => new Date(Date.now() + (existsSync(put) ? after : before) * 1000);
    scene.at("before-build", `echo > '${put}'`);
    scene.at("before-list", `sleep 1; ${edit("lib 2")}`);
    await scene.run({ host: { now } });
    await Bun.sleep(SETTLED_MS);
    const [next, right] = await Promise.all([scene.run(), scene.reference()]);
    expect([next.code, next.images]).toEqual([right.code, right.images]);
  });
});
