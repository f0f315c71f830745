/** Mutations of the files that settings of go come from: that of `go env -w`, and `go.env` of the Go installation. */
import { goMod, libraryGo, mainGo } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";
import { findGoroot, linkGoroot } from "./toolchain.ts";
import type { Mutation, MutationGroup, World } from "./world.ts";

const APP: Files = {
  "app/go.mod": goMod("example.com/app"),
  "app/cmd/app/main.go": "package main\n\nfunc main() { println(V) }\n",
  "app/cmd/app/a.go": '//go:build !x && !y\n\npackage main\n\nconst V = "a"\n',
  "app/cmd/app/b.go": '//go:build x\n\npackage main\n\nconst V = "b"\n',
  "app/cmd/app/c.go": '//go:build y\n\npackage main\n\nconst V = "c"\n',
  "app/cmd/app/level.go": "//go:build amd64.v3\n\npackage main\n\nfunc init() { print(3) }\n",
  "other/main.go": '//go:build !x && !y\n\npackage main\n\nconst V = "other"\n',
  "other/go.mod": goMod("example.com/app", { go: "1.20" }),
  "other/profile": "",
  "other/overlay.json": "{}",
  "home/.config/go/env": "GOPRIVATE=example.com\n",
};

const ENV = "home/.config/go/env";
const set =
  (line: string): Mutation["change"] =>
  (w: World) =>
    w.append(ENV, `${line}\n`);
const overlay = (w: World): Files => ({
  "other/overlay.json": JSON.stringify({ Replace: { [w.at("app/cmd/app/a.go")]: w.at("other/main.go") } }),
});

const WORKSPACE: Files = {
  "app/go.mod": goMod("example.com/app", { more: "\nrequire example.com/lib v0.0.0\n" }),
  "app/cmd/app/main.go": mainGo("main 1", ["example.com/lib"]),
  "lib1/go.mod": goMod("example.com/lib"),
  "lib1/lib.go": libraryGo("lib"),
  "lib2/go.mod": goMod("example.com/lib"),
  "lib2/lib.go": libraryGo("lib", "lib 2"),
  "ws/go.work": "go 1.21\n\nuse (\n\t../app\n\t../lib1\n)\n",
};

export const SETTINGS: readonly MutationGroup[] = [
  {
    name: "the settings file of go env -w",
    files: APP,
    mutations: [
      { name: "it sets a tag", change: set("GOFLAGS=-tags=x"), makes: "another" },
      { name: "it sets a tag twice", change: set("GOFLAGS=-tags=x\nGOFLAGS=-tags=y"), makes: "another" },
      { name: "it sets a tag and unsets it", change: set("GOFLAGS=-tags=x\nGOFLAGS="), makes: "the same" },
      { name: "it sets a tag in a comment", change: set("#GOFLAGS=-tags=x"), makes: "the same" },
      { name: "it sets a tag after a blank", change: set(" GOFLAGS=-tags=x"), makes: "the same" },
      { name: "it sets a tag under a name in small letters", change: set("goflags=-tags=x"), makes: "the same" },
      { name: "it sets a tag with a line end of Windows", change: set("GOFLAGS=-tags=x\r"), makes: "any" },
      { name: "it sets a broken flag", change: set("GOFLAGS=x"), makes: "an error" },
      { name: "it sets an unknown variable", change: set("XYZ=1"), makes: "the same" },
      { name: "it sets -ldflags, which ko's replace", change: set("GOFLAGS=-ldflags=-X=main.V=1"), makes: "the same" },
      { name: "it sets -gcflags", change: set("GOFLAGS=-gcflags=-N"), makes: "another" },
      {
        name: "it sets -overlay",
        change: (w) => {
          w.write(overlay(w));
          w.append(ENV, `GOFLAGS=-overlay=${w.at("other/overlay.json")}\n`);
        },
        makes: "another",
      },
      {
        name: "it sets -modfile",
        change: (w) => w.append(ENV, `GOFLAGS=-modfile=${w.at("other/go.mod")}\n`),
        makes: "another",
      },
      {
        name: "it sets -pgo",
        change: (w) => w.append(ENV, `GOFLAGS=-pgo=${w.at("other/profile")}\n`),
        makes: "another",
      },
      { name: "it sets -toolexec", change: set("GOFLAGS=-toolexec=env"), makes: "an error" },
      { name: "it sets the level of the architecture", change: set("GOAMD64=v3"), makes: "another" },
      { name: "it sets a broken level", change: set("GOAMD64=v9"), makes: "any" },
      { name: "it sets CGO_ENABLED, which ko sets itself", change: set("CGO_ENABLED=1"), makes: "the same" },
      { name: "it sets GOOS, which ko sets itself", change: set("GOOS=windows"), makes: "the same" },
      { name: "it sets an experiment", change: set("GOEXPERIMENT=x"), makes: "an error" },
      { name: "it turns modules off", change: set("GO111MODULE=off"), makes: "another" },
      { name: "it sets a workspace that does not exist", change: set("GOWORK=/none/go.work"), makes: "an error" },
      { name: "it turns workspaces off", change: set("GOWORK=off"), makes: "the same" },
      { name: "it sets GOROOT", change: set("GOROOT=/none"), makes: "an error" },
      { name: "it sets GOPATH", change: set("GOPATH=/none"), makes: "the same" },
      { name: "it sets GOTOOLCHAIN", change: set("GOTOOLCHAIN=go1.99.0"), makes: "the same" },
      { name: "it sets GOENV, which does not count", change: set("GOENV=/none"), makes: "the same" },
      { name: "it sets GODEBUG, which does not count", change: set("GODEBUG=gotypesalias=0"), makes: "the same" },
      { name: "it goes", change: (w) => w.remove(ENV), makes: "the same" },
      {
        name: "it becomes a folder",
        change: (w) => {
          w.remove(ENV);
          w.write({ [`${ENV}/x`]: "" });
        },
        makes: "the same",
      },
      {
        name: "GOENV names another",
        change: (w) => {
          w.write({ "other/env": "GOFLAGS=-tags=x\n" });
          w.env["GOENV"] = w.at("other/env");
        },
        makes: "another",
      },
      { name: "GOENV is off", change: (w) => void (w.env["GOENV"] = "off"), makes: "the same" },
      {
        name: "XDG_CONFIG_HOME leads to another",
        change: (w) => {
          w.write({ "other/go/env": "GOFLAGS=-tags=x\n" });
          w.env["XDG_CONFIG_HOME"] = w.at("other");
        },
        makes: "another",
      },
      {
        name: "HOME leads to another",
        change: (w) => {
          w.write({ "other/.config/go/env": "GOFLAGS=-tags=x\n" });
          w.env["HOME"] = w.at("other");
        },
        makes: "another",
      },
      {
        name: "the environment wins over it",
        change: (w) => {
          w.append(ENV, "GOFLAGS=-tags=x\n");
          w.env["GOFLAGS"] = "-tags=y";
        },
        makes: "another",
      },
    ],
  },
  {
    name: "a workspace that the settings file of go env -w names",
    files: WORKSPACE,
    prepare: (w) => w.write({ [ENV]: `GOWORK=${w.at("none")}\nGOWORK=${w.at("ws/go.work")}\n` }),
    mutations: [
      {
        name: "it uses another module",
        change: (w) => w.edit("ws/go.work", "../lib1", "../lib2"),
        makes: "another",
      },
      {
        name: "the module that it uses is edited",
        change: (w) => w.edit("lib1/lib.go", "lib 1", "lib 3"),
        makes: "another",
      },
      {
        name: "it replaces a module",
        change: (w) => w.append("ws/go.work", "replace example.com/x => ../lib2\n"),
        makes: "the same",
      },
      { name: "it is broken", change: (w) => w.append("ws/go.work", "x\n"), makes: "an error" },
      { name: "it goes", change: (w) => w.remove("ws/go.work"), makes: "an error" },
      { name: "its sums are broken", change: (w) => w.write({ "ws/go.work.sum": "x\n" }), makes: "any" },
      { name: "another line names another", change: set("GOWORK=/none/go.work"), makes: "an error" },
      {
        name: "a nearer workspace, which does not count",
        change: (w) => w.write({ "go.work": "x\n" }),
        makes: "the same",
      },
      { name: "the environment turns it off", change: (w) => void (w.env["GOWORK"] = "off"), makes: "an error" },
    ],
  },
  {
    name: "go.env of the Go installation names a workspace",
    files: WORKSPACE,
    env: (w) => ({ GOROOT: w.at("goroot"), PATH: `${w.at("goroot/bin")}:${w.env["PATH"]}` }),
    prepare: (w) => {
      linkGoroot(w);
      w.append("goroot/go.env", `GOWORK=${w.at("ws/go.work")}\n`);
    },
    mutations: [
      {
        name: "it uses another module",
        change: (w) => w.edit("ws/go.work", "../lib1", "../lib2"),
        makes: "another",
      },
      {
        name: "the settings file of go env -w names another",
        change: (w) => {
          w.write({ "ws2/go.work": "go 1.21\n\nuse (\n\t../app\n\t../lib2\n)\n" });
          w.write({ [ENV]: `GOWORK=${w.at("ws2/go.work")}\n` });
        },
        makes: "another",
      },
      {
        name: "the settings file of go env -w unsets it",
        change: (w) => w.write({ [ENV]: "GOWORK=\n" }),
        makes: "an error",
      },
      {
        name: "the settings file of go env -w names another installation",
        change: (w) => w.write({ [ENV]: `GOROOT=${findGoroot()}\n` }),
        makes: "an error",
      },
    ],
  },
  ...["overlay", "modfile", "pgo"].map((flag): MutationGroup => ({
    name: `go.env of the Go installation sets -${flag}`,
    files: { ...APP, "other/main.go": 'package main\n\nconst V = "other 1"\n' },
    env: (w) => ({ GOROOT: w.at("goroot"), PATH: `${w.at("goroot/bin")}:${w.env["PATH"]}` }),
    prepare: (w) => {
      linkGoroot(w);
      w.write(overlay(w));
      const file = { overlay: "other/overlay.json", modfile: "other/go.mod", pgo: "other/profile" }[flag] ?? "";
      w.append("goroot/go.env", `GOFLAGS=-${flag}=${w.at(file)}\nGOFLAGS=-tags=none\n`);
    },
    asks: ["list", "build"],
    mutations: [
      {
        name: "the overlaid source is edited",
        change: (w) => w.edit("other/main.go", "other 1", "other 2"),
        makes: flag === "overlay" ? "another" : "the same",
      },
      {
        name: "the file of modules is edited",
        change: (w) => w.edit("other/go.mod", "1.20", "1.19"),
        makes: flag === "modfile" ? "another" : "the same",
      },
      {
        name: "the profile is broken",
        change: (w) => w.write({ "other/profile": "x" }),
        makes: flag === "pgo" ? "an error" : "the same",
      },
    ],
  })),
];
