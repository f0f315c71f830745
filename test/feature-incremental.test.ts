/**
 * A second build with the same cache: what it prints is what a build from nothing prints, whatever happened in between;
 * and where nothing happened that decides, no go is started.
 *
 * The situations are tables. `feature-incremental-race.test.ts` has what happens while a build runs, `feature-incremental-cache.test.ts`
 * what happens to the cache, `feature-incremental-random.test.ts` everything in any order.
 */
import { afterEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { goMod, libraryGo, mainGo } from "./helpers/go.ts";
import {
  MODULES,
  openScene,
  type Outcome,
  remove,
  type Scene,
  type SceneOptions,
  SETTLED_MS,
} from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";
import { commitTree, output } from "./helpers/world-programs.ts";

interface Situation extends SceneOptions {
  /** In plain words; the test's name. */
  readonly name: string;
  /** Beside {@link MODULES}. */
  readonly files?: Files;
  /** Before the first build. */
  readonly before?: (scene: Scene) => unknown;
  readonly change: (scene: Scene) => unknown;
  /** Whether the next build has to ask go. @default true */
  readonly go?: boolean;
  /** What the next build makes, for the test to be about something. "failure": it fails. */
  readonly image: "same" | "other" | "any" | "failure";
  /** False where the files just changed cannot be proved in the run after that either. @default true */
  readonly proved?: boolean;
}

const APP = ["build", "-q", "--push=false", "-B"];

/** Writes other bytes of the same length, and puts the time of modification back. */
function editSecretly(path: string): void {
  const { atime, mtime } = statSync(path);
  const text = readFileSync(path, "utf8");
  writeFileSync(path, text.replace("1", "2"));
  utimesSync(path, atime, mtime);
}

function append(path: string, text: string): void {
  writeFileSync(path, readFileSync(path, "utf8") + text);
}

const SOURCES: readonly Situation[] = [
  { name: "nothing", change: () => {}, go: false, image: "same" },
  {
    name: "a source is touched",
    change: ({ tree }) => utimesSync(tree.at("app/lib/lib.go"), new Date(), new Date()),
    image: "same",
  },
  {
    name: "a source gets a time in the future",
    change: ({ tree }) => utimesSync(tree.at("app/lib/lib.go"), new Date("2100-01-01"), new Date("2100-01-01")),
    image: "same",
  },
  { name: "a source's mode", change: ({ tree }) => chmodSync(tree.at("app/lib/lib.go"), 0o600), image: "same" },
  {
    name: "a generator writes a source as it was",
    change: ({ tree }) => {
      unlinkSync(tree.at("app/lib/lib.go"));
      tree.write({ "app/lib/lib.go": libraryGo("lib", "lib 1") });
    },
    image: "same",
  },
  {
    name: "the program's source is edited",
    change: ({ tree }) => tree.write({ "app/cmd/app/main.go": mainGo() }),
    image: "other",
  },
  {
    name: "a package's source is edited",
    change: ({ tree }) => tree.write({ "app/lib/lib.go": libraryGo("lib", "2") }),
    image: "other",
  },
  {
    name: "a source is edited: same size, mtime put back",
    change: ({ tree }) => editSecretly(tree.at("app/lib/lib.go")),
    image: "other",
  },
  {
    name: "a source is replaced by one of the same size and mtime",
    change: ({ tree }) => {
      const { atime, mtime } = statSync(tree.at("app/lib/lib.go"));
      tree.write({ "app/lib/new": libraryGo("lib", "lib 2") });
      utimesSync(tree.at("app/lib/new"), atime, mtime);
      renameSync(tree.at("app/lib/new"), tree.at("app/lib/lib.go"));
    },
    image: "other",
  },
  {
    name: "a source is added",
    change: ({ tree }) => tree.write({ "app/lib/more.go": 'package lib\n\nfunc init() { Text = "more" }\n' }),
    image: "other",
  },
  {
    name: "a source is added that its name excludes",
    change: ({ tree }) => tree.write({ "app/lib/lib_windows.go": 'package lib\n\nfunc init() { Text = "w" }\n' }),
    image: "same",
  },
  {
    name: "a source is added that a constraint excludes",
    change: ({ tree }) => tree.write({ "app/lib/more.go": "//go:build ignore\n\npackage main\n" }),
    image: "same",
  },
  {
    name: "an excluded source joins",
    change: ({ tree }) =>
      tree.write({ "app/lib/never.go": '//go:build linux\n\npackage lib\n\nfunc init() { Text = "!" }\n' }),
    image: "other",
  },
  {
    name: "a source is removed",
    files: { "app/lib/more.go": 'package lib\n\nfunc init() { Text = "more" }\n' },
    change: ({ tree }) => remove(tree, "app/lib/more.go"),
    image: "other",
  },
  {
    name: "a source is renamed",
    change: ({ tree }) => renameSync(tree.at("app/lib/lib.go"), tree.at("app/lib/lib_amd64.go")),
    image: "any",
  },
  {
    name: "a source is renamed so that its name excludes it",
    change: ({ tree }) => renameSync(tree.at("app/lib/lib.go"), tree.at("app/lib/lib_arm64.go")),
    image: "failure",
  },
  {
    name: "an assembler file is added",
    change: ({ tree }) => tree.write({ "app/lib/lib.s": "TEXT ·nothing(SB), 4, $0-0\n\tRET\n" }),
    image: "any",
  },
  {
    name: "a test, a README, a hidden and a scratch file are added",
    change: ({ tree }) =>
      tree.write({
        "app/lib/lib_test.go": "package lib\n",
        "app/lib/README.md": "# lib\n",
        "app/lib/.lib.go": "no Go",
        "app/lib/_lib.go": "no Go",
        "app/cmd/app/notes.txt": "",
      }),
    go: false,
    image: "same",
  },
  {
    name: "tests are edited below their headers, and one is removed",
    files: {
      "app/lib/lib_test.go": "package lib\n",
      "app/lib/tagged_test.go": "//go:build integration\n\npackage lib_test\n\nfunc x() {}\n",
      "app/lib/gone_test.go": "package lib\n",
    },
    change: ({ tree }) => {
      append(tree.at("app/lib/lib_test.go"), "\nfunc broken {\n");
      append(tree.at("app/lib/tagged_test.go"), "\nfunc y() {}\n");
      remove(tree, "app/lib/gone_test.go");
    },
    go: false,
    image: "same",
  },
  ...(
    [
      ["a test has no package clause any more", "app/lib/lib_test.go", "pakcage lib\n"],
      ["a test is of another package", "app/lib/lib_test.go", "package other\n"],
      ["a test's constraint is broken", "app/lib/lib_test.go", "//go:build (((\n\npackage lib\n"],
      ["a test without a package clause is added", "app/lib/new_test.go", ""],
      ["a test with cgo is added beside the program", "app/cmd/app/new_test.go", 'package main\n\nimport "C"\n'],
      ["a test of a replaced module leads nowhere", "dep/new_test.go", { link: "nowhere" }],
    ] as const
  ).map(([name, path, text]): Situation => ({
    name,
    files: { "app/lib/lib_test.go": "package lib\n" },
    change: ({ tree }) => tree.write({ [path]: text }),
    image: "failure",
  })),
  {
    name: "a package that takes no part is edited",
    change: ({ tree }) => tree.write({ "app/other/other.go": "package other\n" }),
    go: false,
    image: "same",
  },
  {
    name: "another program, in a folder above, is edited",
    files: { "app/main.go": mainGo(), "app/cmd/main.go": mainGo() },
    change: ({ tree }) => tree.write({ "app/main.go": "package main\n", "app/cmd/main.go": "package main\n" }),
    go: false,
    image: "same",
  },
  {
    name: "a source no longer compiles",
    change: ({ tree }) => tree.write({ "app/lib/lib.go": "package lib\n\nvar Text = x\n" }),
    image: "failure",
  },
  {
    name: "the program is no program any more",
    change: ({ tree }) => tree.write({ "app/cmd/app/main.go": "package app\n" }),
    image: "failure",
  },
  { name: "the program's folder has gone", change: ({ tree }) => remove(tree, "app/cmd/app"), image: "failure" },
  {
    name: "a package moves to another folder of the same import path",
    files: { "app/cmd/app/main.go": mainGo("main 1", ["example.com/app/lib"]) },
    change: ({ tree }) => {
      tree.write({ "lib/go.mod": goMod("example.com/app/lib"), "lib/lib.go": libraryGo("lib", "elsewhere") });
      remove(tree, "app/lib");
      append(tree.at("app/go.mod"), "\nrequire example.com/app/lib v0.0.0\n\nreplace example.com/app/lib => ../lib\n");
    },
    image: "other",
  },
  {
    name: "a profile for the compiler appears",
    change: ({ tree }) => tree.write({ "app/cmd/app/default.pgo": "no profile" }),
    image: "failure",
  },
  {
    name: "an empty profile for the compiler appears",
    change: ({ tree }) => tree.write({ "app/cmd/app/default.pgo": "" }),
    image: "any",
  },
];

const LINKS: readonly Situation[] = [
  {
    name: "the target of a linked source is edited",
    files: {
      "app/lib/linked.go": { link: "../../shared/a.go" },
      "shared/a.go": shared("a"),
      "shared/b.go": shared("b"),
    },
    change: ({ tree }) => tree.write({ "shared/a.go": shared("c") }),
    image: "other",
  },
  {
    name: "a linked source is led to another file",
    files: {
      "app/lib/linked.go": { link: "../../shared/a.go" },
      "shared/a.go": shared("a"),
      "shared/b.go": shared("b"),
    },
    change: ({ tree }) => {
      unlinkSync(tree.at("app/lib/linked.go"));
      symlinkSync("../../shared/b.go", tree.at("app/lib/linked.go"));
    },
    image: "other",
  },
  {
    name: "a source becomes a link to what it was",
    change: ({ tree }) => {
      renameSync(tree.at("app/lib/lib.go"), tree.at("lib.go"));
      symlinkSync("../../lib.go", tree.at("app/lib/lib.go"));
    },
    image: "same",
  },
  {
    name: "a linked module is led to another one",
    files: {
      "app/go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ../current\n",
      }),
      current: { link: "dep" },
      "dep2/go.mod": goMod("example.com/dep"),
      "dep2/dep.go": libraryGo("dep", "dep 2"),
    },
    change: ({ tree }) => {
      unlinkSync(tree.at("current"));
      symlinkSync("dep2", tree.at("current"));
    },
    image: "other",
  },
];

function shared(text: string): string {
  return `package lib\n\nfunc init() { Text = "${text}" }\n`;
}

const MODULE_FILES: readonly Situation[] = [
  {
    name: "the go line of go.mod",
    change: ({ tree }) => tree.write({ "app/go.mod": textOf(tree.at("app/go.mod")).replace("go 1.21", "go 1.25") }),
    image: "other",
  },
  {
    name: "the module's name",
    change: ({ tree }) => {
      for (const file of ["app/go.mod", "app/cmd/app/main.go"]) {
        tree.write({ [file]: textOf(tree.at(file)).replaceAll("example.com/app", "example.org/app") });
      }
    },
    image: "other",
  },
  {
    name: "a godebug line",
    change: ({ tree }) => append(tree.at("app/go.mod"), "\ngodebug panicnil=1\n"),
    image: "other",
  },
  {
    name: "a replaced module is edited",
    change: ({ tree }) => tree.write({ "dep/dep.go": libraryGo("dep", "dep 2") }),
    image: "other",
  },
  {
    name: "the go.mod of a replaced module",
    files: {
      "app/go.mod": textsOf(MODULES, "app/go.mod").replace("go 1.21", "go 1.22"),
      "dep/go.mod": goMod("example.com/dep", { go: "1.22" }),
      "dep/dep.go": 'package dep\n\nvar Text = "dep 1"\n\nfunc F() { for range 3 {} }\n',
    },
    change: ({ tree }) => tree.write({ "dep/go.mod": goMod("example.com/dep", { go: "1.20" }) }),
    image: "failure",
  },
  {
    name: "another replacement",
    files: { "dep2/go.mod": goMod("example.com/dep"), "dep2/dep.go": libraryGo("dep", "dep 2") },
    change: ({ tree }) => tree.write({ "app/go.mod": textOf(tree.at("app/go.mod")).replace("../dep", "../dep2") }),
    image: "other",
  },
  {
    name: "a replacement in a folder with a blank in its name is edited",
    files: {
      "app/go.mod": goMod("example.com/app", {
        more: '\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => "../my dep"\n',
      }),
      "my dep/go.mod": goMod("example.com/dep"),
      "my dep/dep.go": libraryGo("dep", "dep 1"),
    },
    change: ({ tree }) => tree.write({ "my dep/dep.go": libraryGo("dep", "dep 2") }),
    image: "other",
  },
  {
    name: "a module that only chooses versions, in a folder with a blank in its name",
    files: {
      // Of an old go line, so that the whole graph is read.
      "app/go.mod": goMod("example.com/app", {
        more: '\nrequire (\n\texample.com/dep v0.0.0\n\texample.com/idle v0.0.0\n)\n\nreplace example.com/dep => ../dep\n\nreplace example.com/idle => "../idle one"\n',
      }).replace("go 1.21", "go 1.16"),
      "dep/go.mod": goMod("example.com/dep", { go: "1.16" }),
      "idle one/go.mod": goMod("example.com/idle", { go: "1.16" }),
    },
    change: ({ tree }) => tree.write({ "idle one/go.mod": "module example.com/other\n" }),
    image: "any",
  },
  {
    name: "a go.sum appears",
    change: ({ tree }) =>
      tree.write({ "app/go.sum": "example.com/x v1.0.0 h1:2TyLO6wl/o3Hh3cAqK2IGTyyIpwnNFcvYGWCQXA0wqc=\n" }),
    image: "same",
  },
  { name: "a broken go.sum appears", change: ({ tree }) => tree.write({ "app/go.sum": "nonsense\n" }), image: "any" },
  {
    name: "a go.work above",
    files: { "dep2/go.mod": goMod("example.com/dep"), "dep2/dep.go": libraryGo("dep", "dep 2") },
    change: ({ tree }) => tree.write({ "go.work": "go 1.21\n\nuse ./app\n\nreplace example.com/dep => ./dep2\n" }),
    image: "other",
  },
  {
    name: "a module of a workspace is edited",
    files: { "go.work": "go 1.21\n\nuse (\n\t./app\n\t./dep\n)\n" },
    change: ({ tree }) => tree.write({ "dep/dep.go": libraryGo("dep", "dep 2") }),
    image: "other",
  },
  {
    name: "the workspace goes",
    files: {
      "go.work": "go 1.21\n\nuse ./app\n\nreplace example.com/dep => ./dep2\n",
      "dep2/go.mod": goMod("example.com/dep"),
      "dep2/dep.go": libraryGo("dep", "dep 2"),
    },
    change: ({ tree }) => remove(tree, "go.work"),
    image: "other",
  },
  {
    name: "GOWORK=off",
    files: {
      "go.work": "go 1.21\n\nuse ./app\n\nreplace example.com/dep => ./dep2\n",
      "dep2/go.mod": goMod("example.com/dep"),
      "dep2/dep.go": libraryGo("dep", "dep 2"),
    },
    change: ({ env }) => void (env["GOWORK"] = "off"),
    image: "other",
  },
  {
    name: "a workspace of another place",
    files: {
      "places/go.work": "go 1.21\n\nuse ../app\n",
      "dep2/go.mod": goMod("example.com/dep"),
      "dep2/dep.go": libraryGo("dep", "dep 2"),
    },
    before: ({ env, tree }) => void (env["GOWORK"] = tree.at("places/go.work")),
    change: ({ tree }) => append(tree.at("places/go.work"), "\nreplace example.com/dep => ../dep2\n"),
    image: "other",
  },
  {
    name: "a go.mod in the folder of a package",
    change: ({ tree }) => tree.write({ "app/lib/go.mod": "module x\n" }),
    image: "failure",
  },
  {
    name: "a go.mod in a folder above a package",
    files: {
      "app/cmd/app/main.go": mainGo("main 1", ["example.com/app/lib/deep"]),
      "app/lib/deep/deep.go": "package deep\n\nvar Text = 1\n",
    },
    change: ({ tree }) => tree.write({ "app/lib/go.mod": "module x\n" }),
    image: "failure",
  },
  {
    name: "a go.mod above the program",
    change: ({ tree }) => tree.write({ "app/cmd/go.mod": "module x\n" }),
    image: "failure",
  },
  ...(["replaced", "vendored", "excluded"] as const).map((how): Situation => ({
    name: `a folder of the module provides a package of another, which is ${how}`,
    files: {
      "app/go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/app/api v0.0.0\n\nreplace example.com/app/api => ../api\n",
      }),
      "app/cmd/app/main.go": mainGo("main 1", ["example.com/app/api"]),
      ...(how === "excluded" ? { "app/api/go.mod": goMod("example.com/app/api"), "app/api/never.txt": "" } : {}),
      "api/go.mod": goMod("example.com/app/api"),
      "api/api.go": libraryGo("api"),
    },
    before: ({ tree }) => (how === "vendored" ? vendor(tree.at("app")) : undefined),
    // Go does not ask whether constraints leave the file out.
    change: ({ tree }) => {
      tree.write({ "app/api/never.go": "//go:build never\n\npackage api\n" });
      if (how === "excluded") remove(tree, "app/api/go.mod");
    },
    image: "failure",
  })),
  {
    name: "two replaced modules provide a package",
    files: {
      "app/go.mod": goMod("example.com/app", {
        more: "\nrequire (\n\texample.com/dep v0.0.0\n\texample.com/dep/deep v0.0.0\n)\n\nreplace (\n\texample.com/dep => ../dep\n\texample.com/dep/deep => ../other\n)\n",
      }),
      "app/cmd/app/main.go": mainGo("main 1", ["example.com/dep", "example.com/dep/deep/down"]),
      "other/go.mod": goMod("example.com/dep/deep"),
      "other/down/down.go": libraryGo("down"),
    },
    change: ({ tree }) => tree.write({ "dep/deep/down/down.go": libraryGo("down") }),
    image: "failure",
  },
  ...(
    [
      ["a vendored package is edited", "any.go", 'package dep\n\nfunc init() { Text = "vendored" }\n', "other"],
      ["modules.txt is no longer right", "../../modules.txt", "# example.com/else v0.0.0\n", "failure"],
    ] as const
  ).map(([name, file, text, image]): Situation => ({
    name,
    before: ({ tree }) => vendor(tree.at("app")),
    change: ({ tree }) => writeFileSync(join(tree.at("app/vendor/example.com/dep"), file), text),
    image,
  })),
  {
    name: "a vendor folder appears",
    change: async ({ tree }) => {
      await vendor(tree.at("app"));
      tree.write({ "app/vendor/example.com/dep/dep.go": libraryGo("dep", "vendored") });
    },
    image: "other",
  },
  {
    name: "an empty vendor folder appears",
    change: ({ tree }) => tree.write({ "app/vendor": null }),
    image: "failure",
  },
];

async function vendor(app: string): Promise<void> {
  await output(["go", "mod", "vendor"], { cwd: app, env: { ...process.env, GOFLAGS: "-mod=mod", GOPROXY: "off" } });
}

function textsOf(files: Files, path: string): string {
  const text = files[path];
  if (typeof text !== "string") throw new RangeError(`no text in ${path}`);
  return text;
}

function textOf(path: string): string {
  return readFileSync(path, "utf8");
}

const SETTINGS: readonly Situation[] = [
  {
    name: "a tag in GOFLAGS",
    files: { "app/lib/never.go": '//go:build special\n\npackage lib\n\nfunc init() { Text = "special" }\n' },
    change: ({ env }) => void (env["GOFLAGS"] = "-tags=special"),
    image: "other",
  },
  { name: "CGO_ENABLED", change: ({ env }) => void (env["CGO_ENABLED"] = "1"), image: "other" },
  { name: "GOAMD64", change: ({ env }) => void (env["GOAMD64"] = "v2"), image: "other" },
  { name: "GOEXPERIMENT", change: ({ env }) => void (env["GOEXPERIMENT"] = "nogreenteagc"), image: "any" },
  { name: "GODEBUG, which decides nothing yet may", change: ({ env }) => void (env["GODEBUG"] = "x=1"), image: "any" },
  {
    name: "what decides nothing",
    change: ({ env }) => Object.assign(env, { LANG: "C", GOMAXPROCS: "1", GOGC: "200", SOME: "thing" }),
    go: false,
    image: "same",
  },
  {
    name: "a setting of go env -w",
    before: ({ env, work }) => {
      work.write({ goenv: "GOFLAGS=-tags=special\n" });
      env["GOENV"] = work.at("goenv");
    },
    files: { "app/lib/never.go": '//go:build special\n\npackage lib\n\nfunc init() { Text = "special" }\n' },
    change: ({ work }) => work.write({ goenv: "GOPROXY=off\n" }),
    image: "other",
  },
  {
    name: "the first setting of go env -w",
    files: { "app/lib/never.go": '//go:build special\n\npackage lib\n\nfunc init() { Text = "special" }\n' },
    before: ({ env, work }) => void (env["GOENV"] = work.at("goenv")),
    change: ({ work }) => work.write({ goenv: "GOFLAGS=-tags=special\n" }),
    image: "other",
  },
  {
    name: "--disable-optimizations",
    change: (scene) => void (scene.args = [...APP, "--disable-optimizations", "./cmd/app"]),
    image: "other",
  },
  {
    name: "flags there and back",
    before: async (scene) => {
      await Bun.sleep(SETTLED_MS);
      await scene.run({ args: [...APP, "--disable-optimizations", "./cmd/app"] });
    },
    change: async (scene) => {
      const there = await scene.run({ args: [...APP, "--disable-optimizations", "./cmd/app"] });
      expect(there.go).toEqual([]);
    },
    go: false,
    image: "same",
  },
  {
    name: "another platform",
    change: (scene) => void (scene.args = [...APP, "--platform=linux/arm64", "./cmd/app"]),
    image: "other",
  },
  {
    name: "another base",
    change: ({ work }) => work.write({ "config/.ko.yaml": "defaultBaseImage: ko.builtin/static\n" }),
    go: false,
    image: "other",
  },
  {
    name: "SOURCE_DATE_EPOCH",
    change: ({ env }) => void (env["SOURCE_DATE_EPOCH"] = "1000"),
    go: false,
    image: "other",
  },
  {
    name: "KO_DATA_DATE_EPOCH",
    change: ({ env }) => void (env["KO_DATA_DATE_EPOCH"] = "1000"),
    go: false,
    image: "other",
  },
  ...[1, 9].map((level): Situation => ({
    name: `--compression=gzip:${level}`,
    change: (scene) => void (scene.args = [...APP, `--compression=gzip:${level}`, "./cmd/app"]),
    go: false,
    image: level === 1 ? "same" : "other",
  })),
  {
    name: "--compression=none",
    change: (scene) => void (scene.args = [...APP, "--compression=none", "./cmd/app"]),
    go: false,
    image: "other",
  },
];

const EMBED = (pattern: string): string =>
  `package main\n\nimport "embed"\n\n//go:embed ${pattern}\nvar files embed.FS\n\nfunc main() { f, _ := files.Open("x"); println(f) }\n`;

const embedding = (item: {
  name: string;
  pattern: string;
  change: (app: string) => void;
  image: Situation["image"];
  go?: boolean;
}): Situation => ({
  name: `${item.name} (//go:embed ${item.pattern})`,
  files: {
    "app/cmd/app/main.go": EMBED(item.pattern),
    "app/cmd/app/static/a.txt": "a 1",
    "app/cmd/app/static/empty": null,
    "app/cmd/app/static/sub/b.txt": "b 1",
  },
  change: ({ tree }) => item.change(tree.at("app/cmd/app")),
  image: item.image,
  ...(item.go === undefined ? {} : { go: item.go }),
});

const EMBEDS: readonly Situation[] = [
  embedding({
    name: "a file is edited",
    pattern: "static",
    change: (app) => writeFileSync(`${app}/static/a.txt`, "a 2"),
    image: "other",
  }),
  embedding({
    name: "a file is edited secretly",
    pattern: "static",
    change: (app) => editSecretly(`${app}/static/sub/b.txt`),
    image: "other",
  }),
  embedding({
    name: "a file is added",
    pattern: "static",
    change: (app) => writeFileSync(`${app}/static/new`, ""),
    image: "other",
  }),
  embedding({
    name: "a file is added",
    pattern: "stat*/*.txt static/sub/*",
    change: (app) => writeFileSync(`${app}/static/sub/new`, ""),
    image: "other",
  }),
  embedding({
    name: "a file is added",
    pattern: "static/[a-z].tx?",
    change: (app) => writeFileSync(`${app}/static/c.txt`, ""),
    image: "other",
  }),
  embedding({
    name: "a file is added deeper",
    pattern: "stat*",
    change: (app) => writeFileSync(`${app}/static/sub/new`, ""),
    image: "other",
  }),
  embedding({
    name: "a file is added in an empty folder",
    pattern: "static",
    change: (app) => writeFileSync(`${app}/static/empty/x`, ""),
    image: "other",
  }),
  embedding({
    name: "a folder with a file is added",
    pattern: "static",
    change: (app) => {
      mkdirSync(`${app}/static/more/deep`, { recursive: true });
      writeFileSync(`${app}/static/more/deep/x`, "");
    },
    image: "other",
  }),
  embedding({
    name: "a file is removed",
    pattern: "static",
    change: (app) => unlinkSync(`${app}/static/a.txt`),
    image: "other",
  }),
  embedding({
    name: "a hidden file is added",
    pattern: "static",
    change: (app) => writeFileSync(`${app}/static/.x`, ""),
    image: "same",
  }),
  embedding({
    name: "a hidden file is added",
    pattern: "all:static",
    change: (app) => writeFileSync(`${app}/static/.x`, ""),
    image: "other",
  }),
  embedding({
    name: "a go.mod is added",
    pattern: "static",
    change: (app) => writeFileSync(`${app}/static/sub/go.mod`, "module x\n"),
    image: "other",
  }),
  embedding({
    name: "a file is added elsewhere",
    pattern: "static/a.txt",
    change: (app) => writeFileSync(`${app}/static/c.txt`, ""),
    image: "same",
    go: false,
  }),
  embedding({
    name: "its folder becomes a module",
    pattern: "static/sub/b.txt",
    change: (app) => writeFileSync(`${app}/static/sub/go.mod`, "module x\n"),
    image: "failure",
  }),
  embedding({
    name: "a folder above its own becomes a module",
    pattern: "static/sub/*.txt",
    change: (app) => writeFileSync(`${app}/static/go.mod`, "module x\n"),
    image: "failure",
  }),
  ...["static/sub/b.txt", "static/sub", "static/*/b.txt"].map((pattern) =>
    embedding({
      name: "a folder above becomes a link",
      pattern,
      change: (app) => {
        renameSync(`${app}/static`, `${app}/moved`);
        symlinkSync("moved", `${app}/static`);
      },
      image: "failure",
    }),
  ),
  embedding({
    name: "a file becomes a link",
    pattern: "static",
    change: (app) => {
      renameSync(`${app}/static/a.txt`, `${app}/a.txt`);
      symlinkSync("../a.txt", `${app}/static/a.txt`);
    },
    image: "other",
  }),
  {
    ...embedding({
      name: "a link becomes a file",
      pattern: "static",
      change: (app) => {
        unlinkSync(`${app}/static/link`);
        writeFileSync(`${app}/static/link`, "a 1");
      },
      image: "other",
    }),
    before: ({ tree }) => tree.write({ "app/cmd/app/static/link": { link: "a.txt" } }),
  },
  {
    ...embedding({
      name: "a file is added in one of several folders",
      pattern: "static/*/b.txt",
      change: (app) => writeFileSync(`${app}/static/other/b.txt`, "b 2"),
      image: "other",
    }),
    before: ({ tree }) => tree.write({ "app/cmd/app/static/other": null }),
  },
  embedding({
    name: "the only match goes",
    pattern: "static/*.txt",
    change: (app) => unlinkSync(`${app}/static/a.txt`),
    image: "failure",
  }),
  embedding({
    name: "a folder takes the place of a file",
    pattern: "static/a.txt",
    change: (app) => {
      unlinkSync(`${app}/static/a.txt`);
      mkdirSync(`${app}/static/a.txt`);
      writeFileSync(`${app}/static/a.txt/x`, "");
    },
    image: "other",
  }),
];

const KODATA: readonly Situation[] = [
  {
    name: "a file is edited",
    change: ({ tree }) => tree.write({ "app/cmd/app/kodata/hello.txt": "bye" }),
    go: false,
    image: "other",
  },
  {
    name: "a file is edited: same size, mtime put back",
    files: { "app/cmd/app/kodata/hello.txt": "hello 1" },
    change: ({ tree }) => editSecretly(tree.at("app/cmd/app/kodata/hello.txt")),
    go: false,
    image: "other",
  },
  {
    name: "a file is added",
    change: ({ tree }) => tree.write({ "app/cmd/app/kodata/new": "" }),
    go: false,
    image: "other",
  },
  {
    name: "a folder is added",
    change: ({ tree }) => tree.write({ "app/cmd/app/kodata/new": null }),
    go: false,
    image: "other",
  },
  {
    name: "a file is removed",
    change: ({ tree }) => remove(tree, "app/cmd/app/kodata/hello.txt"),
    go: false,
    image: "other",
  },
  {
    name: "a file is touched",
    change: ({ tree }) => utimesSync(tree.at("app/cmd/app/kodata/hello.txt"), 1, 1),
    go: false,
    image: "same",
  },
  { name: "all of it goes", change: ({ tree }) => remove(tree, "app/cmd/app/kodata"), go: false, image: "other" },
  {
    name: "a link is led to another file",
    files: { "app/cmd/app/kodata/link": { link: "../a.txt" }, "app/cmd/app/a.txt": "a", "app/cmd/app/b.txt": "b" },
    git: true,
    change: ({ tree }) => {
      unlinkSync(tree.at("app/cmd/app/kodata/link"));
      symlinkSync("../b.txt", tree.at("app/cmd/app/kodata/link"));
    },
    env: { GOFLAGS: "-buildvcs=false" },
    go: false,
    image: "other",
  },
  {
    name: "a link's target is edited",
    files: { "app/cmd/app/kodata/link": { link: "../../../data" }, "app/data/a": "a" },
    git: true,
    change: ({ tree }) => tree.write({ "app/data/a": "b" }),
    env: { GOFLAGS: "-buildvcs=false" },
    go: false,
    image: "other",
  },
  {
    name: "the commit that a link leads to",
    files: { "app/cmd/app/kodata/HEAD": { link: "../../../.git/HEAD" } },
    git: true,
    change: ({ git }) => git("checkout", "-q", "-b", "other"),
    go: false,
    image: "other",
  },
];

/** Changes a tag, and lets Go forget which version it took a commit for: it asks git once, and then never again. */
async function tag({ git, work }: Scene, ...args: readonly string[]): Promise<void> {
  await git("tag", ...args);
  remove(work, "modules/cache/download");
}

const GIT: readonly Situation[] = [
  { name: "nothing", change: () => {}, go: false, image: "same" },
  { name: "an unrelated file makes it dirty", change: ({ tree }) => tree.write({ "app/notes": "" }), image: "other" },
  {
    name: "a file of no matter is edited",
    files: { "app/notes": "" },
    change: ({ tree }) => tree.write({ "app/notes": "x" }),
    image: "other",
  },
  {
    name: "a second file when it was dirty already",
    before: ({ tree }) => tree.write({ "app/notes": "" }),
    change: ({ tree }) => tree.write({ "app/more": "" }),
    go: false,
    image: "same",
  },
  {
    name: "it gets clean",
    before: ({ tree }) => tree.write({ "app/notes": "" }),
    change: ({ tree }) => remove(tree, "app/notes"),
    image: "other",
  },
  {
    name: "an ignored file",
    files: { "app/.gitignore": "ignored\n" },
    change: ({ tree }) => tree.write({ "app/ignored": "" }),
    go: false,
    image: "same",
  },
  {
    name: "what is ignored",
    files: { "app/.gitignore": "ignored\n", "app/notes": "" },
    before: ({ tree }) => tree.write({ "app/ignored": "" }),
    change: ({ tree }) => tree.write({ "app/.git/info/exclude": "", "app/.gitignore": "" }),
    image: "other",
  },
  { name: "a commit", change: ({ git }) => git("commit", "-q", "--allow-empty", "-m", "two"), image: "other" },
  {
    name: "a commit of what was dirty",
    before: ({ tree }) => tree.write({ "app/notes": "" }),
    change: async ({ git }) => {
      await git("add", "-A");
      await git("commit", "-q", "-m", "two");
    },
    image: "other",
  },
  {
    name: "an amended commit",
    change: ({ git }) => git("commit", "-q", "--amend", "--allow-empty", "--reset-author", "-m", "two"),
    image: "other",
  },
  { name: "a tag", change: (scene) => tag(scene, "v1.2.3"), image: "other" },
  { name: "an annotated tag", change: (scene) => tag(scene, "-a", "-m", "x", "v1.2.3"), image: "other" },
  {
    name: "a tag goes",
    before: ({ git }) => git("tag", "v1.2.3"),
    change: (scene) => tag(scene, "-d", "v1.2.3"),
    image: "other",
  },
  {
    name: "a packed tag goes",
    before: async ({ git }) => {
      await git("tag", "v1.2.3");
      await git("pack-refs", "--all");
    },
    change: (scene) => tag(scene, "-d", "v1.2.3"),
    image: "other",
  },
  {
    name: "a tag moves",
    before: async ({ git }) => {
      await git("tag", "v1.2.3");
      await git("commit", "-q", "--allow-empty", "-m", "two");
    },
    change: (scene) => tag(scene, "-f", "v1.2.3"),
    image: "other",
  },
  {
    name: "a tag in a folder of its own, for a module below",
    files: { "app/sub/go.mod": goMod("example.com/app/sub"), "app/sub/main.go": mainGo() },
    args: [...APP, "./sub"],
    before: ({ git }) => git("tag", "sub/v1.0.0"),
    change: (scene) => tag(scene, "sub/v1.0.1"),
    image: "other",
  },
  { name: "refs are packed", change: ({ git }) => git("gc", "-q"), image: "same" },
  {
    name: "another branch and back",
    before: async ({ git, tree }) => {
      await git("checkout", "-q", "-b", "other");
      tree.write({ "app/lib/lib.go": libraryGo("lib", "other") });
      await git("commit", "-q", "-am", "other");
      await git("checkout", "-q", "main");
    },
    change: async ({ git }) => {
      await git("checkout", "-q", "other");
      await git("checkout", "-q", "main");
    },
    image: "same",
  },
  {
    name: "another branch, built, and back",
    before: async ({ git, tree }) => {
      await git("checkout", "-q", "-b", "other");
      tree.write({ "app/lib/lib.go": libraryGo("lib", "other") });
      await git("commit", "-q", "-am", "other");
      await git("checkout", "-q", "main");
    },
    change: async (scene) => {
      await scene.git("checkout", "-q", "other");
      expect((await scene.run()).images).toBe((await scene.reference()).images);
      await scene.git("checkout", "-q", "main");
    },
    image: "same",
  },
  {
    name: "another name of the same commit",
    change: ({ git }) => git("checkout", "-q", "-b", "other"),
    go: false,
    image: "same",
  },
  { name: "the branch is left", change: ({ git }) => git("checkout", "-q", "--detach"), go: false, image: "same" },
  { name: "the repository goes", change: ({ tree }) => remove(tree, "app/.git"), image: "other" },
  { name: "a repository appears below", change: ({ tree }) => commitTree(tree.at("app/cmd/app")), image: "any" },
  {
    name: "a setting of git that hides what is dirty",
    before: ({ tree }) => tree.write({ "app/notes": "" }),
    change: ({ git }) => git("config", "status.showUntrackedFiles", "no"),
    image: "other",
  },
  {
    name: "-buildvcs=false, and a commit",
    env: { GOFLAGS: "-buildvcs=false" },
    change: ({ git }) => git("commit", "-q", "--allow-empty", "-m", "two"),
    go: false,
    image: "same",
  },
  {
    name: "a file that is to come to the same as the index says, once it is clean",
    change: async ({ git, tree }) => {
      tree.write({ "app/lib/lib.go": libraryGo("lib", "other") });
      await git("checkout", "-q", "lib/lib.go");
    },
    image: "same",
  },
];

const TOOLS: readonly Situation[] = [
  {
    name: "the go command is replaced by the same",
    change: ({ work }) => {
      cpSync(work.at("bin/go"), work.at("bin/new"));
      renameSync(work.at("bin/new"), work.at("bin/go"));
    },
    image: "same",
    // It is a link: its end is the same file.
    go: false,
  },
  {
    name: "the go command is another",
    change: ({ work }) => {
      const go = readlinkSync(work.at("bin/go"));
      unlinkSync(work.at("bin/go"));
      work.write({ "bin/go": { executable: `#!/bin/sh\nexport GOAMD64=v3\nexec '${go}' "$@"\n` } });
    },
    image: "other",
    // A script that is another name of go is asked in each run.
    proved: false,
  },
  {
    name: "a source of Go's own is edited",
    before: farmGoroot,
    change: ({ work }) => {
      const file = work.at("goroot/src/unicode/utf8/utf8.go");
      append(file, '\nfunc init() { println("edited") }\n');
    },
    files: {
      "app/cmd/app/main.go": 'package main\n\nimport "unicode/utf8"\n\nfunc main() { println(utf8.RuneLen(0)) }\n',
    },
    image: "other",
  },
  {
    name: "a source is added to a package of Go's own",
    before: farmGoroot,
    change: ({ work }) =>
      work.write({ "goroot/src/unicode/utf8/more.go": 'package utf8\n\nfunc init() { println("added") }\n' }),
    files: {
      "app/cmd/app/main.go": 'package main\n\nimport "unicode/utf8"\n\nfunc main() { println(utf8.RuneLen(0)) }\n',
    },
    image: "other",
  },
  {
    name: "Go is replaced by the same version of itself",
    before: farmGoroot,
    change: ({ work }) => {
      cpSync(work.at("goroot/VERSION"), work.at("goroot/new"));
      renameSync(work.at("goroot/new"), work.at("goroot/VERSION"));
    },
    image: "same",
  },
];

/** A GOROOT of links, but for what a test wants to change. */
async function farmGoroot({ env, work }: Scene): Promise<void> {
  const real = (await output(["go", "env", "GOROOT"], { cwd: "/", env: process.env })).trim();
  const farm = work.at("goroot");
  const link = (path: string, except: readonly string[]): void => {
    mkdirSync(join(farm, path), { recursive: true });
    for (const name of readdirSync(join(real, path))) {
      if (!except.includes(name)) symlinkSync(join(real, path, name), join(farm, path, name));
    }
  };
  link("", ["VERSION", "src"]);
  link("src", ["unicode"]);
  link("src/unicode", ["utf8"]);
  cpSync(join(real, "VERSION"), join(farm, "VERSION"));
  cpSync(join(real, "src/unicode/utf8"), join(farm, "src/unicode/utf8"), { recursive: true });
  env["GOROOT"] = farm;
}

const ARGUMENTS: readonly Situation[] = [
  {
    name: "two platforms, and a source that only one of them reads",
    files: { "app/lib/lib_arm64.go": 'package lib\n\nfunc init() { Text = "arm 1" }\n' },
    args: [...APP, "--platform=linux/amd64,linux/arm64", "./cmd/app"],
    change: ({ tree }) => tree.write({ "app/lib/lib_arm64.go": 'package lib\n\nfunc init() { Text = "arm 2" }\n' }),
    image: "other",
  },
  {
    name: "two platforms, and a package that only one of them imports",
    files: {
      "app/lib/lib_arm64.go": 'package lib\n\nimport "example.com/app/other"\n\nfunc init() { Text = other.Text }\n',
    },
    args: [...APP, "--platform=linux/amd64,linux/arm64", "./cmd/app"],
    change: ({ tree }) => tree.write({ "app/other/other.go": libraryGo("other", "2") }),
    image: "other",
  },
  {
    name: "a pattern, and a program is added",
    args: [...APP, "./..."],
    change: ({ tree }) => tree.write({ "app/cmd/more/main.go": mainGo() }),
    image: "other",
  },
  {
    name: "a pattern, and a program is added in a folder that was there",
    files: { "app/cmd/more": null },
    args: [...APP, "./cmd/..."],
    change: ({ tree }) => tree.write({ "app/cmd/more/main.go": mainGo() }),
    image: "other",
  },
  {
    name: "a pattern, and a package becomes a program",
    args: [...APP, "./..."],
    change: ({ tree }) => tree.write({ "app/other/other.go": mainGo() }),
    image: "other",
  },
  {
    name: "a pattern, and a program goes",
    files: { "app/cmd/more/main.go": mainGo() },
    args: [...APP, "./..."],
    change: ({ tree }) => remove(tree, "app/cmd/more"),
    image: "other",
  },
  {
    name: "a pattern, and a folder becomes a module of its own",
    files: { "app/cmd/more/main.go": mainGo() },
    args: [...APP, "./..."],
    change: ({ tree }) => tree.write({ "app/cmd/more/go.mod": goMod("example.com/more") }),
    image: "other",
  },
  ...(
    [
      ["a constraint goes", "cmd/more/main.go", `//go:build ignore\n\n${mainGo()}`, "cmd/more/main.go"],
      ["a name no longer excludes it", "cmd/more/main_windows.go", mainGo(), "cmd/more/main_linux.go"],
      ["its folder had tests only", "cmd/more/main_test.go", mainGo(), "cmd/more/main.go"],
      ["its folder was hidden", "cmd/_more/main.go", mainGo(), "cmd/more/main.go"],
      ["it was test data", "cmd/testdata/main.go", mainGo(), "cmd/more/main.go"],
      ["it was a scratch file", "cmd/more/_main.go", mainGo(), "cmd/more/main.go"],
    ] as const
  ).map(([why, from, text, to]): Situation => ({
    name: `a pattern, and a program appears: ${why}`,
    files: { [`app/${from}`]: text },
    args: [...APP, "./..."],
    change: ({ tree }) => {
      remove(tree, `app/${from}`);
      tree.write({ [`app/${to}`]: mainGo() });
    },
    image: "other",
  })),
  {
    name: "a pattern, and a module inside is one no longer",
    files: { "app/cmd/more/go.mod": goMod("example.com/more"), "app/cmd/more/main.go": mainGo() },
    args: [...APP, "./..."],
    change: ({ tree }) => remove(tree, "app/cmd/more/go.mod"),
    image: "other",
  },
  {
    name: "a pattern, and a linked folder becomes a folder",
    files: { "app/cmd/more": { link: "../../more" }, "more/main.go": mainGo() },
    args: [...APP, "./..."],
    change: ({ tree }) => {
      unlinkSync(tree.at("app/cmd/more"));
      renameSync(tree.at("more"), tree.at("app/cmd/more"));
    },
    image: "other",
  },
  {
    name: "a pattern, and go.mod ignores a folder no longer",
    files: { "app/cmd/more/main.go": mainGo() },
    args: [...APP, "./..."],
    before: ({ tree }) => append(tree.at("app/go.mod"), "\nignore ./cmd/more\n"),
    change: ({ tree }) =>
      writeFileSync(tree.at("app/go.mod"), textOf(tree.at("app/go.mod")).replace("ignore ./cmd/more\n", "")),
    image: "other",
  },
  {
    name: "a pattern, and a test is broken in a folder with tests only",
    files: { "app/cmd/more/main_test.go": "package main\n" },
    args: [...APP, "./..."],
    change: ({ tree }) => tree.write({ "app/cmd/more/main_test.go": "pakcage main\n" }),
    image: "failure",
  },
  {
    name: "a pattern, and a test beside a program",
    args: [...APP, "./..."],
    change: ({ tree }) => tree.write({ "app/cmd/app/main_test.go": "package main\n" }),
    go: false,
    image: "same",
  },
  {
    name: "a pattern, and files that are no sources",
    args: [...APP, "./..."],
    change: ({ tree }) => tree.write({ "app/cmd/app/notes": "", "app/README.md": "", "app/docs/a.txt": "" }),
    image: "same",
  },
  {
    name: "a pattern, and files that are no sources in folders that were there",
    args: [...APP, "./..."],
    change: ({ tree }) => tree.write({ "app/cmd/app/notes": "", "app/README.md": "", "app/release.yaml": "" }),
    go: false,
    image: "same",
  },
  {
    name: "an import path",
    args: [...APP, "example.com/app/cmd/app"],
    change: ({ tree }) => tree.write({ "app/lib/lib.go": libraryGo("lib", "2") }),
    image: "other",
  },
  {
    name: "a program of a replaced module",
    files: { "dep/cmd/far/main.go": mainGo() },
    args: [...APP, "example.com/dep/cmd/far"],
    change: ({ tree }) => tree.write({ "dep/cmd/far/main.go": mainGo("bye") }),
    image: "other",
  },
  {
    name: "programs of two modules, one of them edited",
    files: { "app/sub/go.mod": goMod("example.com/sub"), "app/sub/main.go": mainGo() },
    args: [...APP, "./cmd/app", "./sub"],
    change: ({ tree }) => tree.write({ "app/sub/main.go": mainGo("bye") }),
    image: "other",
  },
  {
    name: "two programs, one of them edited",
    files: { "app/cmd/more/main.go": mainGo() },
    args: [...APP, "./cmd/app", "./cmd/more"],
    change: ({ tree }) => tree.write({ "app/cmd/more/main.go": mainGo("bye") }),
    image: "other",
  },
  {
    name: "ko resolve, whose output is moved into the module",
    files: { "app/in.yaml": "image: ko://example.com/app/cmd/app\n" },
    args: ["resolve", "-q", "--push=false", "-f", "in.yaml"],
    before: ({ tree }) => tree.write({ "app/release.yaml.tmp": "" }),
    change: ({ tree }) => {
      renameSync(tree.at("app/release.yaml.tmp"), tree.at("app/release.yaml"));
      tree.write({ "app/release.yaml.tmp": "" });
    },
    go: false,
    image: "same",
  },
  {
    name: "ko resolve, whose output is moved into the work tree",
    files: { "app/in.yaml": "image: ko://example.com/app/cmd/app\n" },
    git: true,
    args: ["resolve", "-q", "--push=false", "-f", "in.yaml"],
    before: ({ tree }) => tree.write({ "app/release.yaml.tmp": "" }),
    change: ({ tree }) => {
      renameSync(tree.at("app/release.yaml.tmp"), tree.at("app/release.yaml"));
      tree.write({ "app/release.yaml.tmp": "" });
    },
    go: false,
    image: "same",
  },
];

const TABLES: readonly (readonly [what: string, table: readonly Situation[], options: SceneOptions])[] = [
  ["a source", SOURCES, {}],
  ["a link", LINKS, {}],
  ["a module", MODULE_FILES, {}],
  ["a setting", SETTINGS, {}],
  ["an embedded file", EMBEDS, {}],
  ["kodata", KODATA, {}],
  ["git", GIT, { git: true }],
  ["a tool", TOOLS, {}],
  ["arguments", ARGUMENTS, {}],
];

let scene: Scene | undefined;

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

for (const [what, table, options] of TABLES) {
  describe(`after a change: ${what}`, () => {
    test.each(table.map((situation) => [situation.name, situation] as const))("%s", async (_name, situation) => {
      scene = await openScene({ ...MODULES, ...situation.files }, { ...options, ...situation });
      await check(scene, situation);
    });
  });
}

async function check(at: Scene, { before, change, image, go = true, proved = true }: Situation): Promise<void> {
  await before?.(at);
  await Bun.sleep(SETTLED_MS);
  const first = await at.run();
  if (first.code !== 0) throw new Error(first.stderr);
  const again = await at.run();
  expect(again).toEqual({ ...first, go: [], stderr: again.stderr });
  await change(at);
  await Bun.sleep(SETTLED_MS);
  // In a repository one after the other: git writes its index again, and what changes during a build is not recorded.
  const inGit = existsSync(at.tree.at("app/.git"));
  const running = at.run();
  if (inGit) await running;
  const [changed, right] = await Promise.all([running, at.reference()]);
  expect(resultOf(changed)).toEqual(resultOf(right));
  const { code, images } = changed;
  expect({
    image: code === 0 ? (images === first.images ? "same" : "other") : "failure",
    go: changed.go.length > 0,
  }).toEqual({
    image: image === "any" ? expect.any(String) : image,
    go,
  });
  if (code !== 0 || !proved) return;
  // What was found out is known from then on.
  expect({ ...(await at.run()), stderr: "" }).toEqual({ ...changed, go: [], stderr: "" });
}

function resultOf({ code, images }: Outcome): Pick<Outcome, "code" | "images"> {
  return { code, images };
}

test("a tree is built in the tick in which it was edited", async () => {
  scene = await openScene(MODULES);
  const texts = ["lib 1", "lib 2", "lib 3"];
  const images = new Map<string, string>();
  for (const text of texts) {
    scene.tree.write({ "app/lib/lib.go": libraryGo("lib", text) });
    images.set(text, (await scene.reference()).images);
  }
  expect(new Set(images.values()).size).toBe(3);
  for (const text of [...texts, ...texts, ...texts]) {
    writeFileSync(scene.tree.at("app/lib/lib.go"), libraryGo("lib", text));
    expect((await scene.run()).images).toBe(images.get(text) ?? "");
  }
  expect(existsSync(scene.cache)).toBe(true);
});
