/** `ko build --all` and `--changed-since REV`, with real git repositories. */
import { afterEach, describe, expect, test } from "bun:test";
import { readFileSync, renameSync, symlinkSync } from "node:fs";
import { goMod, libraryGo, mainGo } from "./helpers/go.ts";
import { openScene, type Outcome, remove, type Scene } from "./helpers/world-bench.ts";
import { type Files, makeFolder, writeTree } from "./helpers/world-folders.ts";
import { output } from "./helpers/world-programs.ts";

const WITH_EMBED = `package main

import "embed"

//go:embed static/*.txt
var files embed.FS

func main() { files.ReadDir(".") }
`;

/** Three programs of one module, one of another, and a module without any. */
const FILES: Files = {
  "go.mod": goMod("example.com/app"),
  "cmd/api/main.go": mainGo("api", ["example.com/app/lib"]),
  "cmd/api/README.md": "about api\n",
  "cmd/api/kodata/page.html": "page\n",
  "cmd/web/main.go": WITH_EMBED,
  "cmd/web/static/page.txt": "page\n",
  "cmd/web/web_test.go": "package main\n",
  "cmd/job/main.go": mainGo("job", ["example.com/app/deep"]),
  "lib/lib.go": libraryGo("lib"),
  "deep/deep.go": libraryGo("deep"),
  "deep/deep_windows.go": 'package deep\n\nimport _ "example.com/app/win"\n',
  "win/win.go": "package win\n",
  "tools/go.mod": goMod("example.com/tools"),
  "tools/go.sum": "",
  "tools/cmd/gen/main.go": mainGo("gen"),
  "docs/go.mod": goMod("example.com/docs"),
  "docs/docs.go": "package docs\n",
  ".gitignore": "*.gen.go\n/out/\n",
};

const BUILD = ["build", "--push=false", "-P", "--sbom=none"];
const [API, WEB, JOB, GEN] = ["app/cmd/api", "app/cmd/web", "app/cmd/job", "tools/cmd/gen"] as const;
const ALL = [API, JOB, WEB, GEN];

let scene: Scene | undefined;

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

async function open(files: Files = FILES, args: readonly string[] = ["--all", "--changed-since=HEAD"]): Promise<Scene> {
  const inside = Object.fromEntries(Object.entries(files).map(([path, entry]) => [`app/${path}`, entry]));
  scene = await openScene(inside, { args: [...BUILD, ...args], git: true, env: { GOFLAGS: "-buildvcs=false" } });
  return scene;
}

/** The programs that a run printed, without the host. */
function programsOf({ images }: Outcome): readonly string[] {
  return images
    .split("\n")
    .filter(Boolean)
    .map((line) => /^example\.com\/team\/example\.com\/(.*?)(?::|@)/.exec(line)?.[1] ?? line);
}

/** Runs, with the cache and without it. */
async function built(of: Scene): Promise<readonly string[]> {
  const [cached, fresh] = [await of.run(), await of.reference()];
  expect({ code: cached.code, stderr: cached.code === 0 ? "" : cached.stderr }).toEqual({ code: 0, stderr: "" });
  expect(cached.images).toBe(fresh.images);
  return programsOf(cached);
}

describe("#643: ko build --all", () => {
  test("builds every main package of the modules below, and the entries of builds", async () => {
    const of = await open(FILES, ["--all"]);
    expect(await built(of)).toEqual(ALL);
    // A program that is excluded without its tags.
    of.tree.write({ "app/cmd/tagged/main.go": `//go:build special\n\n${mainGo()}` });
    expect(await built(of)).toEqual(ALL);
    of.work.write({
      "config/.ko.yaml": "defaultBaseImage: scratch\nbuilds:\n- main: ./cmd/tagged\n  flags: [-tags=special]\n",
    });
    expect((await built(of)).toSorted()).toEqual([...ALL, "app/cmd/tagged"].toSorted());
  }, 60_000);

  test("in a folder of a module: what is below it", async () => {
    const args = [...BUILD, "--all"];
    scene = await openScene(
      { "app/cmd/x/main.go": mainGo(), "app/other/main.go": mainGo(), "app/go.mod": goMod("example.com/app") },
      { cwd: "app/cmd", args },
    );
    expect(programsOf(await scene.run())).toEqual(["app/cmd/x"]);
  }, 60_000);

  test.each<[string, Files, readonly string[], string]>([
    ["no module", { "x.txt": "" }, ["--all"], "Cannot build --all: there is no Go module at or below"],
    ["no program", { "go.mod": goMod("a.b/c"), "c.go": "package c\n" }, ["--all"], "has a main package"],
    ["an argument", FILES, ["--all", "./cmd/web"], 'Cannot use --all with "./cmd/web": it stands for all programs'],
    ["a watch", FILES, ["--all", "-W"], "Cannot use --all with --watch"],
    ["a watch of changes", FILES, ["--changed-since=HEAD", "-W"], "Cannot use --changed-since with --watch"],
    ["an empty revision", FILES, ["--changed-since="], 'Cannot use --changed-since "": wanted a git revision'],
    [
      "two folders with one module",
      { ...FILES, "copy/go.mod": goMod("example.com/tools"), "copy/cmd/gen/main.go": mainGo() },
      ["--all"],
      "two modules have one path",
    ],
    ["a broken program", { ...FILES, "cmd/api/main.go": "package main\n\nfunc main() {\n" }, ["--all"], "main.go"],
  ])(
    "refuses %s",
    async (_name, files, args, message) => {
      const { code, images, stderr } = await (await open(files, args)).run();
      expect(code).not.toBe(0);
      expect(images).toBe("");
      expect(stderr).toContain(message);
    },
    60_000,
  );
});

describe("#643: ko build --changed-since", () => {
  test.each<[string, (of: Scene) => unknown, readonly string[]]>([
    ["nothing", () => {}, []],
    ["a package that one imports", (of) => of.tree.write({ "app/lib/lib.go": libraryGo("lib", "2") }), [API]],
    ["the program itself", (of) => of.tree.write({ "app/cmd/job/main.go": mainGo("2") }), [JOB]],
    ["an embedded file", (of) => of.tree.write({ "app/cmd/web/static/page.txt": "2\n" }), [WEB]],
    ["a file that is not embedded", (of) => of.tree.write({ "app/cmd/web/static/other.md": "2\n" }), []],
    ["a new file to embed", (of) => of.tree.write({ "app/cmd/web/static/other.txt": "2\n" }), [WEB]],
    ["a file of kodata", (of) => of.tree.write({ "app/cmd/api/kodata/page.html": "2\n" }), [API]],
    ["a new file of kodata", (of) => of.tree.write({ "app/cmd/api/kodata/sub/x~": "2\n" }), [API]],
    ["a new kodata", (of) => of.tree.write({ "app/cmd/job/kodata/x": "2\n" }), [JOB]],
    ["kodata is gone", (of) => remove(of.tree, "app/cmd/api/kodata"), [API]],
    ["a page beside a program", (of) => of.tree.write({ "app/cmd/api/README.md": "2\n" }), []],
    ["a test", (of) => of.tree.write({ "app/cmd/web/web_test.go": "package main\n\n// 2\n" }), []],
    [
      "go.sum of one module",
      (of) => of.tree.write({ "app/tools/go.sum": "example.com/x v1.0.0/go.mod h1:x=\n" }),
      [GEN],
    ],
    [
      "go.mod of one module",
      (of) => of.tree.write({ "app/tools/go.mod": goMod("example.com/tools", { go: "1.22" }) }),
      [GEN],
    ],
    [
      "go.mod of the other",
      (of) => of.tree.write({ "app/go.mod": goMod("example.com/app", { go: "1.22" }) }),
      [API, JOB, WEB],
    ],
    ["a new go.work", (of) => of.tree.write({ "app/go.work": "go 1.21\n\nuse (\n\t.\n\t./tools\n)\n" }), ALL],
    ["a renamed file", (of) => renameSync(of.tree.at("app/lib/lib.go"), of.tree.at("app/lib/other.go")), [API]],
    [
      "a removed file",
      (of) => (remove(of.tree, "app/deep/deep_windows.go"), of.tree.write({ "app/unrelated.txt": "x" })),
      [JOB],
    ],
    ["a new file that git does not know", (of) => of.tree.write({ "app/deep/new.go": "package deep\n" }), [JOB]],
    ["a new file that git ignores", (of) => of.tree.write({ "app/deep/x.gen.go": "package deep\n" }), [JOB]],
    [
      "a new package in a folder of its own",
      (of) => of.tree.write({ "app/cmd/new/main.go": mainGo() }),
      ["app/cmd/new"],
    ],
    ["a package of another platform only", (of) => of.tree.write({ "app/win/win.go": "package win\n\n// 2\n" }), [JOB]],
    ["a profile", (of) => of.tree.write({ "app/cmd/job/default.pgo": "" }), [JOB]],
    [
      "a change that is committed",
      async (of) => {
        await of.git("tag", "before");
        of.tree.write({ "app/lib/lib.go": libraryGo("lib", "2") });
        await of.git("commit", "-qam", "2");
        of.args = [...BUILD, "--all", "--changed-since=before"];
      },
      [API],
    ],
    [
      "a change that is staged",
      async (of) => {
        of.tree.write({ "app/lib/lib.go": libraryGo("lib", "2") });
        await of.git("add", ".");
      },
      [API],
    ],
    [
      "a change that was taken back",
      async (of) => {
        of.tree.write({ "app/lib/lib.go": libraryGo("lib", "2") });
        await of.git("commit", "-qam", "2");
        of.tree.write({ "app/lib/lib.go": libraryGo("lib") });
        of.args = [...BUILD, "--all", "--changed-since=HEAD~1"];
      },
      [],
    ],
    [
      "the names of a symlink's target",
      async (of) => {
        of.tree.write({ "app/shared/s.go": "package deep\n" });
        symlinkSync("../shared/s.go", of.tree.at("app/deep/s.go"));
        await of.git("add", ".");
        await of.git("commit", "-qm", "2");
        of.tree.write({ "app/shared/s.go": "package deep\n\n// 2\n" });
      },
      [JOB],
    ],
    [
      "a target of a symlink in kodata",
      async (of) => {
        symlinkSync("../../../docs/docs.go", of.tree.at("app/cmd/api/kodata/linked"));
        await of.git("add", ".");
        await of.git("commit", "-qm", "2");
        of.tree.write({ "app/docs/docs.go": "package docs\n\n// 2\n" });
      },
      [API],
    ],
    [
      "kodata that holds the commit",
      async (of) => {
        symlinkSync("../../../.git/HEAD", of.tree.at("app/cmd/api/kodata/HEAD"));
        await of.git("add", ".");
        await of.git("commit", "-qm", "2");
      },
      [API],
    ],
    [
      "a flag that reads other files",
      (of) => {
        of.tree.write({ "overlay.json": '{"Replace":{}}' });
        of.env["GOFLAGS"] = `-buildvcs=false -overlay=${of.tree.at("overlay.json")}`;
      },
      ALL,
    ],
    [
      "the diff settings of a user",
      async (of) => {
        await of.git("config", "diff.renames", "copies");
        await of.git("config", "diff.noprefix", "true");
        await of.git("config", "diff.relative", "true");
        renameSync(of.tree.at("app/lib/lib.go"), of.tree.at("app/lib/other.go"));
      },
      [API],
    ],
    ["a name that git quotes", (of) => of.tree.write({ 'app/cmd/api/kodata/\u00e9 "x"': "2\n" }), [API]],
  ])(
    "%s",
    async (_name, change, wanted) => {
      const of = await open();
      await change(of);
      expect((await built(of)).toSorted()).toEqual(wanted.toSorted());
    },
    60_000,
  );

  test("the configuration changes all programs, and the lines say why", async () => {
    const of = await open({ ...FILES, ".ko.yaml": "defaultBaseImage: scratch\n" });
    delete of.env["KO_CONFIG_PATH"];
    expect(await built(of)).toEqual([]);
    expect((await of.run()).stderr).toBe("4 programs are as in HEAD\n");
    of.tree.write({ "app/.ko.yaml": "defaultBaseImage: scratch\nimage: {env: {A: b}}\n" });
    expect(await built(of)).toEqual(ALL);
    await of.git("commit", "-qam", "2");
    of.tree.write({ "app/lib/lib.go": libraryGo("lib", "2") });
    const { stderr } = await of.run();
    expect(stderr).toContain(`example.com/${API} differs from HEAD: lib/lib.go\n3 programs are as in HEAD\n`);
  }, 60_000);

  test("only the programs of the arguments count, and an empty list of references is written", async () => {
    const of = await open(FILES, ["--changed-since=HEAD", "--image-refs=refs.txt", "./cmd/web", "./cmd/api"]);
    of.tree.write({ "app/refs.txt": "old\n", "app/deep/deep.go": libraryGo("deep", "2") });
    const { code, images } = await of.run();
    expect({ code, images }).toEqual({ code: 0, images: "" });
    expect(readFileSync(of.tree.at("app/refs.txt"), "utf8")).toBe("");
  }, 60_000);

  test.each([["nosuch"], ["HEAD~5"], ["--all"], ["0000000000000000000000000000000000000000"]])(
    "refuses the revision %s, which the repository does not have",
    async (revision) => {
      const of = await open(FILES, ["--all", `--changed-since=${revision}`]);
      const { code, go, images, stderr } = await of.run();
      expect({ code, images, go }).toEqual({ code: 1, images: "", go: [] });
      expect(stderr).toBe(
        `Error: Cannot find --changed-since "${revision}": the repository has no such commit\n  Fetch it first: git fetch origin\n`,
      );
    },
    60_000,
  );

  test("says how to get a revision that a shallow clone does not have", async () => {
    const of = await open();
    await of.git("commit", "-q", "--allow-empty", "-m", "2");
    await using clones = await makeFolder();
    await output(["git", "clone", "-q", "--depth=1", `file://${of.tree.at("app")}`, "clone"], {
      cwd: clones.path,
      env: process.env,
    });
    const env = { ...of.env, GIT_DIR: `${clones.path}/clone/.git`, GIT_WORK_TREE: of.tree.at("app") };
    const { code, stderr } = await of.run({ args: [...BUILD, "--all", "--changed-since=HEAD~1"], env });
    expect(code).toBe(1);
    expect(stderr).toBe(
      'Error: Cannot find --changed-since "HEAD~1": the clone is shallow, and does not have that commit\n  Fetch the history: git fetch --unshallow. For actions/checkout of GitHub, set fetch-depth: 0.\n',
    );
  }, 60_000);

  test("needs a git work tree", async () => {
    using tree = writeTree({ "app/go.mod": goMod("example.com/app"), "app/main.go": mainGo() });
    const of = await openScene(
      { "app/go.mod": goMod("example.com/app"), "app/main.go": mainGo() },
      { args: [...BUILD, "--changed-since=HEAD"] },
    );
    scene = of;
    const { code, stderr } = await of.run({ env: { GIT_CEILING_DIRECTORIES: tree.path } });
    expect(code).toBe(2);
    expect(stderr).toContain("it needs a git work tree: fatal: not a git repository");
  }, 60_000);

  test("a submodule counts if its commit or its content differs", async () => {
    await using other = await makeFolder();
    const git = (...args: readonly string[]): Promise<string> =>
      output(["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always", ...args], {
        cwd: other.path,
        env: process.env,
      });
    await Bun.write(`${other.path}/go.mod`, goMod("example.com/sub"));
    await Bun.write(`${other.path}/sub.go`, libraryGo("sub"));
    await git("init", "-q");
    await git("add", ".");
    await git("commit", "-qm", "1");
    const of = await open({
      ...FILES,
      "go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/sub v0.0.0\n\nreplace example.com/sub => ./sub\n",
      }),
      "cmd/job/main.go": mainGo("job", ["example.com/sub"]),
    });
    await of.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other.path, "sub");
    await of.git("commit", "-qm", "sub");
    expect(await built(of)).toEqual([]);
    of.tree.write({ "app/sub/sub.go": libraryGo("sub", "2") });
    expect(await built(of)).toEqual([API, JOB, WEB]);
    await output(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "2"], {
      cwd: of.tree.at("app/sub"),
      env: process.env,
    });
    expect(await built(of)).toEqual([API, JOB, WEB]);
  }, 60_000);
});
