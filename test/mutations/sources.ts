/** Mutations of the sources and embedded files of a module: also of those that go leaves out. */
import { chmodSync, renameSync, statSync, symlinkSync, utimesSync } from "node:fs";
import { goMod, libraryGo, mainGo } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";
import type { MutationGroup, World } from "./world.ts";

const INIT = (text: string): string => `package lib\n\nfunc init() { Text = "${text}" }\n`;

const FILES: Files = {
  "app/go.mod": goMod("example.com/app"),
  "app/cmd/app/main.go": mainGo("main 1", ["example.com/app/lib", "example.com/app/linked"]),
  "app/lib/lib.go": libraryGo("lib"),
  "app/lib/lib_test.go": "package lib\n",
  "app/lib/never.go": `//go:build never\n\n${INIT("never")}`,
  "app/lib/lib_windows.go": INIT("windows"),
  "app/lib/other.go": "package lib\n\nvar Other = 1\n",
  "app/lib/README.md": "# lib\n",
  "app/lib/testdata/lib.go": "package testdata\n",
  "app/linked/linked.go": { link: "../../shared/one.go" },
  "app/unused/unused.go": libraryGo("unused"),
  "shared/one.go": libraryGo("linked"),
  "shared/two.go": libraryGo("linked", "linked 2"),
};

/** Other bytes of the same size at the same time. */
function editSecretly(world: World, path: string): void {
  const { atime, mtime } = statSync(world.at(path));
  world.edit(path, "1", "2");
  utimesSync(world.at(path), atime, mtime);
}

const EMBEDDED: Files = {
  "app/go.mod": goMod("example.com/app"),
  "app/cmd/app/main.go": `package main

import "embed"

//go:embed one.txt data all:every glob/*.txt glob/[ab]
var files embed.FS

//go:embed one.txt
var text string

func main() { println(text, &files) }
`,
  "app/cmd/app/one.txt": "one 1",
  "app/cmd/app/data/a.txt": "a 1",
  "app/cmd/app/data/.hidden": "hidden 1",
  "app/cmd/app/data/deep/b.txt": "b 1",
  "app/cmd/app/every/.hidden": "hidden 1",
  "app/cmd/app/every/a.txt": "a 1",
  "app/cmd/app/glob/x.txt": "x 1",
  "app/cmd/app/glob/x.md": "x 1",
  "app/cmd/app/glob/a": "a 1",
  "app/elsewhere/x.txt": "x 2",
};

export const SOURCES: readonly MutationGroup[] = [
  {
    name: "sources",
    files: FILES,
    mutations: [
      {
        name: "the program is edited",
        change: (w) => w.edit("app/cmd/app/main.go", "main 1", "main 2"),
        makes: "another",
      },
      { name: "a package is edited", change: (w) => w.edit("app/lib/lib.go", "lib 1", "lib 2"), makes: "another" },
      { name: "a package is edited in secret", change: (w) => editSecretly(w, "app/lib/lib.go"), makes: "another" },
      {
        name: "a source is replaced by a file of its size and time",
        change: (w) => {
          const { atime, mtime } = statSync(w.at("app/lib/lib.go"));
          w.write({ "app/lib/new": libraryGo("lib", "lib 2") });
          utimesSync(w.at("app/lib/new"), atime, mtime);
          renameSync(w.at("app/lib/new"), w.at("app/lib/lib.go"));
        },
        makes: "another",
      },
      {
        name: "a source is touched",
        change: (w) => utimesSync(w.at("app/lib/lib.go"), new Date(), new Date()),
        makes: "the same",
      },
      {
        name: "a source becomes executable",
        change: (w) => chmodSync(w.at("app/lib/lib.go"), 0o755),
        makes: "the same",
      },
      { name: "a comment", change: (w) => w.append("app/lib/lib.go", "// more\n"), makes: "the same" },
      {
        name: "a source gets line ends of Windows",
        change: (w) => w.edit("app/lib/lib.go", "\n\n", "\r\n\r\n"),
        makes: "the same",
      },
      { name: "a source is emptied", change: (w) => w.write({ "app/lib/other.go": "" }), makes: "an error" },
      {
        name: "a source no longer compiles",
        change: (w) => w.append("app/lib/lib.go", "var X = y\n"),
        makes: "an error",
      },
      { name: "a source no longer parses", change: (w) => w.append("app/lib/lib.go", "}\n"), makes: "an error" },
      { name: "a source is added", change: (w) => w.write({ "app/lib/more.go": INIT("more") }), makes: "another" },
      {
        name: "a source is added to the program",
        change: (w) => w.write({ "app/cmd/app/more.go": 'package main\n\nfunc init() { print("x") }\n' }),
        makes: "another",
      },
      {
        name: "a source of another package is added",
        change: (w) => w.write({ "app/lib/more.go": "package other\n" }),
        makes: "an error",
      },
      {
        name: "a source is added for Linux",
        change: (w) => w.write({ "app/lib/more_linux.go": INIT("linux") }),
        makes: "another",
      },
      {
        name: "a source is added for Linux on arm64",
        change: (w) => w.write({ "app/lib/more_linux_arm64.go": INIT("arm") }),
        makes: "the same",
      },
      {
        name: "a source is added with a tag of the architecture's level",
        change: (w) => w.write({ "app/lib/more.go": `//go:build amd64.v1\n\n${INIT("v1")}` }),
        makes: "another",
      },
      {
        name: "a source is added with a tag of the Go version",
        change: (w) => w.write({ "app/lib/more.go": `//go:build go1.21\n\n${INIT("go")}` }),
        makes: "another",
      },
      { name: "a source is removed", change: (w) => w.remove("app/lib/other.go"), makes: "another" },
      {
        name: "all sources of a package are removed",
        change: (w) => w.remove("app/lib/lib.go", "app/lib/other.go"),
        makes: "an error",
      },
      {
        name: "a source is renamed",
        change: (w) => renameSync(w.at("app/lib/lib.go"), w.at("app/lib/z.go")),
        makes: "another",
      },
      {
        name: "a source gets the name of a test",
        change: (w) => renameSync(w.at("app/lib/lib.go"), w.at("app/lib/z_test.go")),
        makes: "an error",
      },
      {
        name: "a source gets a hidden name",
        change: (w) => renameSync(w.at("app/lib/other.go"), w.at("app/lib/_other.go")),
        makes: "another",
      },
      {
        name: "an excluded source joins",
        change: (w) => w.edit("app/lib/never.go", "build never", "build !never"),
        makes: "another",
      },
      {
        name: "an excluded source is edited",
        change: (w) => w.append("app/lib/never.go", "// more\n"),
        makes: "the same",
      },
      {
        name: "an excluded source no longer parses",
        change: (w) => w.append("app/lib/never.go", "}\n"),
        makes: "the same",
      },
      {
        name: "the constraint of an excluded source is broken",
        change: (w) => w.edit("app/lib/never.go", "never", "never ("),
        makes: "an error",
      },
      { name: "an excluded source is removed", change: (w) => w.remove("app/lib/never.go"), makes: "the same" },
      {
        name: "a source for Windows is edited",
        change: (w) => w.append("app/lib/lib_windows.go", "// more\n"),
        makes: "the same",
      },
      {
        name: "a source for Windows becomes one for Linux",
        change: (w) => renameSync(w.at("app/lib/lib_windows.go"), w.at("app/lib/lib_linux.go")),
        makes: "another",
      },
      { name: "a test is edited", change: (w) => w.append("app/lib/lib_test.go", "// more\n"), makes: "the same" },
      {
        name: "a test is added",
        change: (w) => w.write({ "app/lib/more_test.go": "package lib_test\n" }),
        makes: "the same",
      },
      { name: "a test is removed", change: (w) => w.remove("app/lib/lib_test.go"), makes: "the same" },
      { name: "a README is edited", change: (w) => w.append("app/lib/README.md", "more\n"), makes: "the same" },
      { name: "test data are edited", change: (w) => w.append("app/lib/testdata/lib.go", "more\n"), makes: "the same" },
      {
        name: "an unused package is edited",
        change: (w) => w.append("app/unused/unused.go", "}\n"),
        makes: "the same",
      },
      {
        name: "an unused package is imported",
        change: (w) => w.edit("app/lib/other.go", "\n\n", '\n\nimport _ "example.com/app/unused"\n\n'),
        makes: "another",
      },
      {
        name: "a package of Go's own is imported",
        change: (w) =>
          w.edit(
            "app/lib/other.go",
            "var Other = 1",
            'import "unicode/utf8"\n\nvar Other = utf8.RuneLen(rune(len(Text)))',
          ),
        makes: "another",
      },
      {
        name: "a package that does not exist is imported",
        change: (w) => w.edit("app/lib/other.go", "\n\n", '\n\nimport _ "example.com/app/none"\n\n'),
        makes: "an error",
      },
      {
        name: "a second package imports a used one",
        change: (w) => w.edit("app/lib/other.go", "\n\n", '\n\nimport _ "example.com/app/linked"\n\n'),
        makes: "another",
      },
      {
        name: "C is imported",
        change: (w) => w.edit("app/lib/other.go", "\n\n", '\n\nimport "C"\n\n'),
        makes: "another",
      },
      {
        name: "the program is no program any more",
        change: (w) => w.edit("app/cmd/app/main.go", "package main", "package app"),
        makes: "an error",
      },
      {
        name: "a go:debug line",
        change: (w) => w.edit("app/cmd/app/main.go", "package main", "//go:debug panicnil=1\npackage main"),
        makes: "another",
      },
      {
        name: "a broken go:debug line",
        change: (w) => w.edit("app/cmd/app/main.go", "package main", "//go:debug none=1\npackage main"),
        makes: "an error",
      },
      {
        name: "an assembler file is added",
        change: (w) => w.write({ "app/lib/lib.s": "TEXT ·nothing(SB), 4, $0-0\n\tRET\n" }),
        makes: "another",
      },
      { name: "a C file is added", change: (w) => w.write({ "app/lib/lib.c": "int x;\n" }), makes: "the same" },
      { name: "a header is added", change: (w) => w.write({ "app/lib/lib.h": "int x;\n" }), makes: "the same" },
      {
        name: "an object file is added",
        change: (w) => w.write({ "app/lib/lib_windows.syso": "x" }),
        makes: "the same",
      },
      {
        name: "an empty profile is added",
        change: (w) => w.write({ "app/cmd/app/default.pgo": "" }),
        makes: "another",
      },
      {
        name: "a broken profile is added",
        change: (w) => w.write({ "app/cmd/app/default.pgo": "x" }),
        makes: "an error",
      },
      {
        name: "a profile is added to a package",
        change: (w) => w.write({ "app/lib/default.pgo": "x" }),
        makes: "the same",
      },
      {
        name: "the target of a linked source is edited",
        change: (w) => w.edit("shared/one.go", "linked 1", "linked 3"),
        makes: "another",
      },
      {
        name: "a linked source is led elsewhere",
        change: (w) => w.write({ "app/linked/linked.go": { link: "../../shared/two.go" } }),
        makes: "another",
      },
      {
        name: "a linked source leads nowhere",
        change: (w) => w.write({ "app/linked/linked.go": { link: "../../shared/none.go" } }),
        makes: "an error",
      },
      {
        name: "a linked source becomes a file",
        change: (w) => w.write({ "app/linked/linked.go": w.read("shared/one.go") }),
        makes: "the same",
      },
      {
        name: "a source becomes a folder",
        change: (w) => {
          w.remove("app/lib/other.go");
          w.write({ "app/lib/other.go/x": "" });
        },
        makes: "another",
      },
      {
        name: "a package's folder becomes a link",
        change: (w) => {
          renameSync(w.at("app/lib"), w.at("lib"));
          symlinkSync("../lib", w.at("app/lib"));
        },
        makes: "the same",
      },
      {
        name: "a package's folder moves away",
        change: (w) => renameSync(w.at("app/lib"), w.at("app/gone")),
        makes: "an error",
      },
      {
        name: "a package's folder is replaced",
        change: (w) => {
          renameSync(w.at("app/lib"), w.at("app/gone"));
          w.write({ "app/lib/lib.go": libraryGo("lib", "lib 9") });
        },
        makes: "another",
      },
      {
        name: "a go.mod in a package's folder",
        change: (w) => w.write({ "app/lib/go.mod": goMod("example.com/app/lib") }),
        makes: "an error",
      },
      {
        name: "a go.mod in the program's folder",
        change: (w) => w.write({ "app/cmd/app/go.mod": goMod("example.com/other") }),
        makes: "an error",
      },
      {
        name: "a go.mod in a folder above the program",
        change: (w) => w.write({ "app/cmd/go.mod": goMod("example.com/other") }),
        makes: "an error",
      },
      {
        name: "a go.mod above the module",
        change: (w) => w.write({ "go.mod": goMod("example.com/above") }),
        makes: "the same",
      },
    ],
  },
  {
    name: "embedded files",
    files: EMBEDDED,
    mutations: [
      { name: "a file is edited", change: (w) => w.edit("app/cmd/app/one.txt", "1", "2"), makes: "another" },
      { name: "a file is edited in secret", change: (w) => editSecretly(w, "app/cmd/app/one.txt"), makes: "another" },
      {
        name: "a file of a folder is edited",
        change: (w) => w.edit("app/cmd/app/data/deep/b.txt", "1", "2"),
        makes: "another",
      },
      {
        name: "a file is added to a folder",
        change: (w) => w.write({ "app/cmd/app/data/deep/c.txt": "" }),
        makes: "another",
      },
      {
        name: "a hidden file of a folder is edited",
        change: (w) => w.edit("app/cmd/app/data/.hidden", "1", "2"),
        makes: "the same",
      },
      {
        name: "a hidden file is added to a folder",
        change: (w) => w.write({ "app/cmd/app/data/.more": "" }),
        makes: "the same",
      },
      {
        name: "a hidden file is added below all:",
        change: (w) => w.write({ "app/cmd/app/every/.more": "" }),
        makes: "another",
      },
      {
        name: "a hidden file below all: is edited",
        change: (w) => w.edit("app/cmd/app/every/.hidden", "1", "2"),
        makes: "another",
      },
      {
        name: "an empty folder is added",
        change: (w) => w.write({ "app/cmd/app/data/empty": null }),
        makes: "the same",
      },
      {
        name: "a file is added that a glob matches",
        change: (w) => w.write({ "app/cmd/app/glob/y.txt": "" }),
        makes: "another",
      },
      {
        name: "a file is added that no glob matches",
        change: (w) => w.write({ "app/cmd/app/glob/y.md": "" }),
        makes: "the same",
      },
      {
        name: "a file is added that a class matches",
        change: (w) => w.write({ "app/cmd/app/glob/b": "" }),
        makes: "another",
      },
      {
        name: "a folder is added that a class matches",
        change: (w) => w.write({ "app/cmd/app/glob/b/c": "" }),
        makes: "another",
      },
      { name: "the only match of a glob goes", change: (w) => w.remove("app/cmd/app/glob/x.txt"), makes: "an error" },
      { name: "a file goes", change: (w) => w.remove("app/cmd/app/one.txt"), makes: "an error" },
      {
        name: "a file is renamed",
        change: (w) => renameSync(w.at("app/cmd/app/data/a.txt"), w.at("app/cmd/app/data/z.txt")),
        makes: "another",
      },
      {
        name: "a file becomes a link",
        change: (w) => w.write({ "app/cmd/app/one.txt": { link: "data/a.txt" } }),
        makes: "an error",
      },
      {
        name: "a file becomes a folder",
        change: (w) => {
          w.remove("app/cmd/app/one.txt");
          w.write({ "app/cmd/app/one.txt/a": "" });
        },
        makes: "another",
      },
      {
        name: "the patterns change",
        change: (w) => w.edit("app/cmd/app/main.go", "one.txt data", "one.txt data/a.txt"),
        makes: "another",
      },
      { name: "a file elsewhere is edited", change: (w) => w.edit("app/elsewhere/x.txt", "2", "3"), makes: "the same" },
    ],
  },
];
