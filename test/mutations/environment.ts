/** Mutations of the environment that go, git and ko run in. */
import { goMod } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";
import type { Mutation, MutationGroup } from "./world.ts";

const APP: Files = {
  "app/go.mod": goMod("example.com/app"),
  "app/cmd/app/main.go": "package main\n\nvar V string\n\nfunc main() { println(V) }\n",
  "app/cmd/app/x.go": '//go:build x\n\npackage main\n\nfunc init() { V = "x" }\n',
  "app/cmd/app/level.go": "//go:build amd64.v3\n\npackage main\n\nfunc init() { print(3) }\n",
  "other/go.mod": goMod("example.com/app", { go: "1.20" }),
};

const set =
  (name: string, value: string): Mutation["change"] =>
  (w) =>
    void (w.env[name] = value);

export const ENVIRONMENT: readonly MutationGroup[] = [
  {
    name: "the environment",
    files: APP,
    mutations: [
      { name: "a tag in GOFLAGS", change: set("GOFLAGS", "-tags=x"), makes: "another" },
      { name: "a broken GOFLAGS", change: set("GOFLAGS", "x"), makes: "an error" },
      {
        name: "-trimpath=false in GOFLAGS, which ko's flags replace",
        change: set("GOFLAGS", "-trimpath=false"),
        makes: "the same",
      },
      { name: "-race in GOFLAGS", change: set("GOFLAGS", "-race"), makes: "an error" },
      { name: "-mod=vendor in GOFLAGS", change: set("GOFLAGS", "-mod=vendor"), makes: "the same" },
      { name: "-C in GOFLAGS", change: set("GOFLAGS", "-C=.."), makes: "an error" },
      { name: "GOAMD64", change: set("GOAMD64", "v3"), makes: "another" },
      { name: "GOARCH, which ko sets itself", change: set("GOARCH", "arm64"), makes: "the same" },
      { name: "GOOS, which ko sets itself", change: set("GOOS", "windows"), makes: "the same" },
      { name: "GOEXPERIMENT", change: set("GOEXPERIMENT", "x"), makes: "an error" },
      { name: "GO111MODULE=off", change: set("GO111MODULE", "off"), makes: "another" },
      { name: "GO111MODULE=auto", change: set("GO111MODULE", "auto"), makes: "the same" },
      { name: "GOFIPS140", change: set("GOFIPS140", "none"), makes: "an error" },
      { name: "GODEBUG", change: set("GODEBUG", "panicnil=1"), makes: "the same" },
      { name: "GOTOOLCHAIN", change: set("GOTOOLCHAIN", "go1.99.0"), makes: "an error" },
      { name: "GOTOOLCHAIN=path", change: set("GOTOOLCHAIN", "path"), makes: "the same" },
      { name: "GOWORK", change: set("GOWORK", "/none/go.work"), makes: "an error" },
      { name: "GOPATH", change: (w) => void (w.env["GOPATH"] = w.at("gopath")), makes: "the same" },
      { name: "GOPATH is the module", change: (w) => void (w.env["GOPATH"] = w.at("app")), makes: "the same" },
      { name: "GOPATH is relative", change: set("GOPATH", "x"), makes: "an error" },
      { name: "GOMODCACHE", change: (w) => void (w.env["GOMODCACHE"] = w.at("other")), makes: "the same" },
      { name: "GOPROXY", change: set("GOPROXY", "off"), makes: "the same" },
      { name: "GOSUMDB", change: set("GOSUMDB", "sum.golang.org"), makes: "the same" },
      { name: "GOFLAGS is empty", change: set("GOFLAGS", ""), makes: "the same" },
      { name: "CC", change: set("CC", "none"), makes: "the same" },
      { name: "an unknown variable", change: set("XYZ", "1"), makes: "the same" },
      { name: "PATH has a folder more", change: (w) => void (w.env["PATH"] += ":/none"), makes: "the same" },
      { name: "PATH has no go", change: set("PATH", "/usr/bin:/bin"), makes: "an error" },
      {
        name: "HOME goes",
        change: (w) => {
          delete w.env["HOME"];
          w.env["GOPATH"] = w.at("gopath");
        },
        makes: "the same",
      },
      { name: "SOURCE_DATE_EPOCH", change: set("SOURCE_DATE_EPOCH", "1"), makes: "another" },
      { name: "KO_DATA_DATE_EPOCH", change: set("KO_DATA_DATE_EPOCH", "1"), makes: "another" },
      { name: "KO_DEFAULTPLATFORMS", change: set("KO_DEFAULTPLATFORMS", "linux/arm64"), makes: "another" },
      {
        name: "KO_CONFIG_PATH",
        change: (w) => {
          w.write({ "other/.ko.yaml": "defaultBaseImage: scratch\n" });
          w.env["KO_CONFIG_PATH"] = w.at("other");
        },
        makes: "another",
      },
      { name: "KO_DEFAULTBASEIMAGE", change: set("KO_DEFAULTBASEIMAGE", "ko.builtin/static"), makes: "another" },
      { name: "--platform", change: (w) => void (w.args = ["--platform=linux/arm64", ...w.args]), makes: "another" },
      {
        name: "--disable-optimizations",
        change: (w) => void (w.args = ["--disable-optimizations", ...w.args]),
        makes: "another",
      },
      {
        name: "--ldflags",
        change: (w) => void (w.args = ["--ldflags=-s -w -X main.V=1", ...w.args]),
        makes: "another",
      },
      { name: "--compression", change: (w) => void (w.args = ["--compression=none", ...w.args]), makes: "another" },
      {
        name: "image in .ko.yaml",
        change: (w) => {
          w.write({ "other/.ko.yaml": "defaultBaseImage: scratch\ndefaultLdflags: [-s, -w]\nimage: {env: {A: b}}\n" });
          w.env["KO_CONFIG_PATH"] = w.at("other");
        },
        makes: "another",
      },
      {
        name: "binary in .ko.yaml",
        change: (w) => {
          const entry = "builds: [{main: ./cmd/app, binary: /manager}]\n";
          w.write({ "other/.ko.yaml": `defaultBaseImage: scratch\ndefaultLdflags: [-s, -w]\n${entry}` });
          w.env["KO_CONFIG_PATH"] = w.at("other");
        },
        makes: "another",
      },
      { name: "--image-env", change: (w) => void (w.args = ["--image-env=A=b", ...w.args]), makes: "another" },
      { name: "--image-label", change: (w) => void (w.args = ["--image-label=a=b", ...w.args]), makes: "another" },
    ],
  },
];
