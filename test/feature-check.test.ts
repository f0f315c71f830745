/**
 * `ko check` on set-ups with one mistake each: the line that a person needs is there, and nothing else claims to be wrong.
 * Nothing is written, and no request leaves.
 */
import { describe, expect, test } from "bun:test";
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { parse } from "yaml";
import type { Finding } from "../lib/check-findings.ts";
import { Interrupted } from "../lib/host.ts";
import { goMod, libraryGo, mainGo } from "./helpers/go.ts";
import { type Files, type Tree, writeTree } from "./helpers/world-folders.ts";
import { SETTLED_MS } from "./helpers/world-bench.ts";
import { realHost, runKoHere } from "./helpers/world-host.ts";
import { cleanEnvironment, type Result, runToEnd, waitUntil } from "./helpers/world-programs.ts";

const ROOT = join(import.meta.dir, "..");

const WEB = "ko://example.com/app/cmd/web";

/** A module without a mistake. */
const SOUND: Files = {
  "go.mod": goMod("example.com/app"),
  "lib/lib.go": libraryGo("lib"),
  "cmd/web/main.go": mainGo("web", ["example.com/app/lib"]),
  "cmd/web/kodata/index.html": "hello",
  "cmd/web/kodata/link.html": { link: "index.html" },
  "cmd/worker/main.go": mainGo("worker"),
  ".ko.yaml": `defaultBaseImage: ko.builtin/static
baseImageOverrides:
  example.com/app/cmd/Worker: scratch
builds:
- id: web
  main: ./cmd/web
  ldflags: ["-X main.home={{.Env.HOME}}"]
`,
  "config/web.yaml": pod(`image: ${WEB}`),
  "config/worker.yaml": pod("image: ko://example.com/app/cmd/worker\n    command: [/ko-app/worker, -v]"),
};

/** Text of a Pod with one container, whose lines begin at line 5, column 5. */
function pod(container: string): string {
  return `apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - ${container}\n`;
}

function config(more: string): string {
  return `defaultBaseImage: ko.builtin/static\n${more}`;
}

const CGO = 'package main\n\nimport "C"\n\nfunc init() {}\n';

interface Case {
  /** In place of those of the sound module. */
  readonly files: Files;
  /** There are no others. @default false */
  readonly isWhole?: boolean;
  /** @default -f config */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  /** All that it prints. */
  readonly line: string;
}

const CASES: Readonly<Record<string, Case>> = {
  "a misspelled reference": {
    files: { "config/web.yaml": pod("image: ko://example.com/app/cmd/wbe") },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd/wbe: no required module provides package example.com/app/cmd/wbe. Did you mean "example.com/app/cmd/web"?`,
  },
  "a reference to a library": {
    files: { "config/web.yaml": pod("image: ko://example.com/app/lib") },
    line: `config/web.yaml:5:12: error: ko://example.com/app/lib: it is a library (package lib), wanted package main`,
  },
  "a reference to a folder without Go": {
    files: { "config/web.yaml": pod("image: ko://example.com/app/cmd") },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd: no required module provides package example.com/app/cmd. Run: go get example.com/app/cmd`,
  },
  "a reference to several programs": {
    files: { "config/web.yaml": pod("image: ko://example.com/app/cmd/...") },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd/...: it is a pattern, one program is wanted`,
  },
  "a blank in a reference": {
    files: { "config/web.yaml": pod("image: ko://example.com/app /cmd/web") },
    line: `config/web.yaml:5:12: error: ko://example.com/app /cmd/web: an import path has no white space`,
  },
  "a reference that is as long as a text": {
    files: { "config/web.yaml": pod(`image: ko://${"x".repeat(20_000)}`) },
    line: `config/web.yaml:5:12: error: ko://${"x".repeat(95)}…: it is too long for an import path`,
  },
  "another case in a reference": {
    files: { "config/web.yaml": pod("image: ko://example.com/app/cmd/Web") },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd/Web: no required module provides package example.com/app/cmd/Web. Did you mean "example.com/app/cmd/web"?`,
  },
  "a reference to another module": {
    files: { "config/web.yaml": pod("image: ko://example.org/other/cmd/web") },
    line: `config/web.yaml:5:12: error: ko://example.org/other/cmd/web: no required module provides package example.org/other/cmd/web. Did you mean "example.com/app/cmd/web"?`,
  },
  "a program with a syntax error": {
    files: { "cmd/web/main.go": 'package main\n\nimport "fmt\n' },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd/web: cmd/web/main.go:3:8: string literal not terminated`,
  },
  "a program with an import that is missing": {
    files: { "cmd/web/main.go": mainGo("web", ["example.com/app/lbi"]) },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd/web: cmd/web/main.go:3:8: module example.com/app has no package example.com/app/lbi`,
  },
  "a program with an import of a module that is not required": {
    files: { "cmd/web/main.go": mainGo("web", ["example.org/other/lib"]) },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd/web: cmd/web/main.go:3:8: no required module provides package example.org/other/lib. Run: go get example.org/other/lib`,
  },
  "a module that is not downloaded": {
    files: {
      "go.mod": goMod("example.com/app", { more: "\nrequire example.org/other v1.0.0\n" }),
      "go.sum": `example.org/other v1.0.0 h1:${"A".repeat(43)}=\nexample.org/other v1.0.0/go.mod h1:${"A".repeat(43)}=\n`,
      "cmd/web/main.go": mainGo("web", ["example.org/other/lib"]),
    },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd/web: cmd/web/main.go:3:8: module lookup disabled by GOPROXY=off. Download modules first, as ko check does not: go mod download`,
  },
  "an upper-case scheme": {
    files: { "config/web.yaml": pod("image: KO://example.com/app/cmd/web") },
    line: `config/web.yaml:5:12: error: "KO://example.com/app/cmd/web" is no image name, it looks like ko://example.com/app/cmd/web`,
  },
  "a scheme with one slash": {
    files: { "config/web.yaml": pod("image: ko:/example.com/app/cmd/web") },
    line: `config/web.yaml:5:12: error: "ko:/example.com/app/cmd/web" is no image name, it looks like ko://example.com/app/cmd/web`,
  },
  "a blank before the scheme": {
    files: { "config/web.yaml": pod(`image: " ${WEB}"`) },
    line: `config/web.yaml:5:12: error: " ko://example.com/app/cmd/web" is no image name, it looks like ko://example.com/app/cmd/web`,
  },
  "YAML without a reference": {
    files: {},
    args: ["-f", "-"],
    stdin: pod("image: nginx"),
    line: `warning: no ko:// reference in <stdin>: nothing is built`,
  },
  "YAML that is broken": {
    files: { "config/web.yaml": "a: [b\nc: d\n" },
    line: `config/web.yaml:2:1: error: it is not YAML: Flow sequence in block collection must be sufficiently indented and end with a ]`,
  },
  "YAML with an alias of nothing": {
    files: { "config/web.yaml": pod(`image: ${WEB}\n    env: *env`) },
    line: `config/web.yaml:6:10: error: it is not YAML: the alias *env has no anchor &env that ends before it`,
  },
  "a file of another format": {
    files: { "config/logo.yaml": new Uint8Array([1, 2, 0, 255]) },
    line: `config/logo.yaml:1: error: it is not YAML: the line is not valid UTF-8, wanted text in UTF-8. Name only YAML and JSON files: -f reads a named file whatever its extension.`,
  },
  "a file that does not exist": {
    files: {},
    args: ["-f", "config/wbe.yaml"],
    line: `error: Cannot read "config/wbe.yaml": there is no such file. Did you mean -f "config/web.yaml"?`,
  },
  "a folder without YAML": {
    files: {},
    args: ["-f", "lib"],
    line: `error: Cannot find YAML in "lib": there is no .yaml, .yml or .json file. Add -R to read subdirectories too.`,
  },
  "a kodata link that leads out": {
    files: { "cmd/web/kodata/passwd": { link: "/etc/passwd" } },
    line: `cmd/web/kodata/passwd: error: it leads to "/etc/passwd", wanted a path inside "TREE/cmd/web/kodata". Set KO_DATA_PATH_ALLOWED_ROOT=/, a folder that contains both, or copy the file.`,
  },
  "a kodata link to the settings of git": {
    files: {
      ".git/config": "[core]\n",
      ".git/HEAD": "ref: refs/heads/main\n",
      ".git/objects/x": "",
      ".git/refs/x": "",
      "cmd/web/kodata/x": { link: "../../../.git/config" },
    },
    line: `cmd/web/kodata/x: error: it leads to "TREE/.git/config" in the git repository "TREE/.git", which may hold secrets such as tokens. Copy the file. Of a repository, only .git/HEAD, .git/refs and .git/packed-refs around kodata may be linked.`,
  },
  "a kodata link to nothing": {
    files: { "cmd/web/kodata/style.css": { link: "../dist/style.css" } },
    line: `cmd/web/kodata/style.css: warning: it is left out: its target does not exist.`,
  },
  "a kodata link in a circle": {
    files: { "cmd/web/kodata/a": { link: "a" } },
    line: `cmd/web/kodata/a: error: the symlinks form a circle. Remove the symlink, or make it lead to a file or a folder.`,
  },
  "a kodata link to its own folder": {
    files: { "cmd/web/kodata/again": { link: "." } },
    line: `cmd/web/kodata/again: error: it leads to "TREE/cmd/web/kodata", which contains the symlink. Make it lead to a folder that does not contain the symlink.`,
  },
  "kodata that is a link": {
    files: { "cmd/worker/kodata": { link: "../web/kodata" } },
    line: `cmd/worker/kodata: warning: nothing of it is packed: it is a symlink. Make it a folder; symlinks may be in it.`,
  },
  ".ko.yaml that is no YAML": {
    files: { ".ko.yaml": "defaultBaseImage: [\n" },
    args: [],
    line: `.ko.yaml:2:1: error: Flow sequence in block collection must be sufficiently indented and end with a ]`,
  },
  "a misspelled setting": {
    files: { ".ko.yaml": "defaultBaseImages: ko.builtin/static\n" },
    args: [],
    line: `.ko.yaml:1:1: error: "defaultBaseImages" is not a setting of ko, the nearest is "defaultBaseImage"`,
  },
  "a setting that ko does not have": {
    files: { ".ko.yaml": config("registry: example.com\n") },
    args: [],
    line: `.ko.yaml:2:1: warning: "registry" has no effect, it is not a setting of ko`,
  },
  "a setting of another type": {
    files: { ".ko.yaml": config("defaultPlatforms: {a: b}\n") },
    args: [],
    line: `.ko.yaml:2:19: error: defaultPlatforms is a map, wanted a list of strings`,
  },
  "a platform that does not exist": {
    files: { ".ko.yaml": config("defaultPlatforms: [linux/]\n") },
    args: [],
    line: `.ko.yaml:2:1: error: defaultPlatforms: Cannot read "linux/" as a platform: a part of it is empty, wanted OS[/ARCHITECTURE[/VARIANT]]. Type "go tool dist list" to see what Go can build for.`,
  },
  "a base that is no image": {
    files: { ".ko.yaml": config("baseImageOverrides: {example.com/app/cmd/web: 'A B'}\n") },
    args: [],
    line: `.ko.yaml:2:47: error: baseImageOverrides["example.com/app/cmd/web"] is not an image name: Cannot read "A B" as a base image: wanted an image name`,
  },
  "an override for no program": {
    files: { ".ko.yaml": config("baseImageOverrides:\n  example.com/app/cmd/wbe: scratch\n") },
    args: [],
    line: `.ko.yaml:3:3: warning: baseImageOverrides["example.com/app/cmd/wbe"] is for no program: there is no main package of that name, the nearest is "example.com/app/cmd/web"`,
  },
  "an override for another module": {
    files: { ".ko.yaml": config("baseImageOverrides:\n  example.org/cmd/web: scratch\n") },
    args: [],
    line: `.ko.yaml:3:3: warning: baseImageOverrides["example.org/cmd/web"] is for no program: it is of no module that go.mod requires`,
  },
  "an override in the environment for no program": {
    files: {},
    env: { KO_BASEIMAGEOVERRIDES: '{"example.com/app/lib": "scratch"}' },
    args: [],
    line: `warning: baseImageOverrides["example.com/app/lib"] of KO_BASEIMAGEOVERRIDES is for no program: there is no main package of that name, the nearest is "example.com/app/cmd/web"`,
  },
  "an entry for a folder that does not exist": {
    files: { ".ko.yaml": config("builds:\n- main: ./cmd/wbe\n") },
    args: [],
    line: `.ko.yaml:3:9: error: main of builds[0]: builds[0] is for ./cmd/wbe, which does not exist, the nearest is ./cmd/web. Correct the entry: ko checks all entries of builds, also those that this run does not use.`,
  },
  "an entry for a library": {
    files: { ".ko.yaml": config("builds:\n- main: ./lib\n") },
    args: [],
    line: `.ko.yaml:3:3: warning: builds[0] is for no program: ./lib is package lib, wanted package main`,
  },
  "two entries for one program": {
    files: { ".ko.yaml": config("builds:\n- main: ./cmd/web\n- dir: cmd/web\n  ldflags: [-s]\n") },
    args: [],
    line: `.ko.yaml:4:3: error: builds[1] is for ./cmd/web, as is builds[0] at .ko.yaml:3:3. Keep one of them.`,
  },
  "a template that is not closed": {
    files: { ".ko.yaml": config('builds:\n- main: ./cmd/web\n  ldflags: ["-X main.v={{.Env.HOME"]\n') },
    line: `.ko.yaml:4:24: error: ldflags of builds[0]: {{.Env.HOME: the action is not closed, wanted }}`,
  },
  "a template with a variable that is not set": {
    files: { ".ko.yaml": config('builds:\n- main: ./cmd/web\n  flags: ["-tags={{.Env.KO_TAGS}}"]\n') },
    line: `.ko.yaml:4:24: error: flags of builds[0]: {{.Env.KO_TAGS}}: the environment variable "KO_TAGS" is not set. Give it a default: {{ or (index .Env "KO_TAGS") "dev" }}`,
  },
  "a default template with a variable that is not set": {
    files: { ".ko.yaml": config("defaultLdflags: -X main.v={{.Env.VERSION}}\n") },
    line: `.ko.yaml:2:33: error: defaultLdflags: {{.Env.VERSION}}: the environment variable "VERSION" is not set. Give it a default: {{ or (index .Env "VERSION") "dev" }}`,
  },
  "a template that reads git where there is none": {
    files: { ".ko.yaml": config('builds:\n- main: ./cmd/web\n  ldflags: ["-X main.v={{.Git.Tag}}"]\n') },
    line: `warning: templates have no .Git in "TREE": it is not in a git work tree`,
  },
  "a flag that runs other programs": {
    files: { ".ko.yaml": config("builds:\n- main: ./cmd/web\n  flags: [-toolexec=x]\n") },
    line: `.ko.yaml:4:11: error: -toolexec in flags of builds[0]: it runs any program in place of the Go compiler. Take -toolexec out.`,
  },
  "a variable against the platform": {
    files: { ".ko.yaml": config("builds:\n- main: ./cmd/web\n  env: [GOOS=darwin]\n") },
    args: ["--platform=linux/arm64"],
    line: `.ko.yaml:4:9: error: env of builds[0]: it sets GOOS=darwin, but the image is for linux/arm64. Remove it: ko sets GOOS for each platform.`,
  },
  "Always beside -L": {
    files: { "config/web.yaml": pod(`image: ${WEB}\n    imagePullPolicy: Always`) },
    args: ["-L", "-f", "config"],
    line: `config/web.yaml:6:22: error: "imagePullPolicy: Always" cannot find an image that is in no registry; use IfNotPresent`,
  },
  "Always beside kind.local": {
    files: { "config/web.yaml": pod(`image: ${WEB}\n    imagePullPolicy: Always`) },
    env: { KO_DOCKER_REPO: "kind.local" },
    line: `config/web.yaml:6:22: error: "imagePullPolicy: Always" cannot find an image that is in no registry; use IfNotPresent`,
  },
  "a misspelled command": {
    files: { "config/web.yaml": pod(`image: ${WEB}\n    command: [/ko-app/wbe]`) },
    line: `config/web.yaml:6:15: error: the image of example.com/app/cmd/web has no such file as "/ko-app/wbe": it has /ko-app/web. Leave command out, or use /ko-app/web.`,
  },
  "a shell that the base lacks": {
    files: { "config/web.yaml": pod(`image: ${WEB}\n    command: [/bin/sh, -c, x]`) },
    line: `config/web.yaml:6:15: error: the image of example.com/app/cmd/web has no such file as "/bin/sh": it has /ko-app/web. The base ko.builtin/static holds no programs.`,
  },
  "a name that the base lacks": {
    files: { "config/web.yaml": pod(`image: ${WEB}\n    command:\n    - wbe`) },
    line: `config/web.yaml:7:7: error: the image of example.com/app/cmd/web has no such program as "wbe": it has /ko-app/web. The base ko.builtin/static holds no programs.`,
  },
  "a misspelled command on a base that may have it": {
    files: {
      ".ko.yaml": "defaultBaseImage: example.com/base\n",
      "config/web.yaml": pod(`image: ${WEB}\n    command: [/ko-app/wbe]`),
    },
    line: `config/web.yaml:6:15: warning: the image of example.com/app/cmd/web has no such file as "/ko-app/wbe": it has /ko-app/web. Leave command out, or use /ko-app/web.`,
  },
  "a program of cgo only": {
    files: { "cmd/web/main.go": 'package main\n\nimport "C"\n\nfunc main() {}\n' },
    line: `config/web.yaml:5:12: error: ko://example.com/app/cmd/web: main.go needs cgo (import "C"), and CGO_ENABLED=0. Set CGO_ENABLED=1 and CC to a C compiler for linux/amd64, and use a base image with its C library.`,
  },
  "a file that CGO_ENABLED=0 leaves out": {
    files: { "cmd/web/sqlite.go": CGO },
    line: `cmd/web/sqlite.go:3:1: warning: sqlite.go needs cgo (import "C"): CGO_ENABLED=0 leaves it out of example.com/app/cmd/web. Set CGO_ENABLED=1 and CC to a C compiler for linux/amd64, and use a base image with its C library.`,
  },
  "cgo without a C compiler": {
    files: { "cmd/web/sqlite.go": CGO },
    env: { CGO_ENABLED: "1", CC: "no-such-cc" },
    line: `config/web.yaml:5:12: error: Cannot build example.com/app/cmd/web: it uses cgo, and the C compiler "no-such-cc" is not there. Set CGO_ENABLED=1 and CC to a C compiler for linux/amd64, and use a base image with its C library.`,
  },
  "two programs with one name": {
    files: { "tools/web/main.go": mainGo() },
    args: ["-B"],
    line: `error: Cannot publish example.com/app/cmd/web and example.com/app/tools/web: both would be named "registry.example.com/team/web". Leave out -B (names get a hash of the import path), or use -P (names keep the import path).`,
  },
  "two programs whose paths differ by case": {
    files: { "cmd/Web/main.go": mainGo() },
    args: ["./cmd/web", "./cmd/Web"],
    line: `error: Cannot build "./cmd/Web": case-insensitive import collision: "example.com/app/cmd/Web" and "example.com/app/cmd/web"`,
  },
  "a program whose name no registry takes": {
    files: { "cmd/a+b/main.go": mainGo() },
    args: ["-P"],
    line: `error: Cannot name the image of example.com/app/cmd/a+b "registry.example.com/team/example.com/app/cmd/a+b": "team/example.com/app/cmd/a+b" may hold lower-case letters, digits, ".", "_", "-" and "/". Use --bare to name the image yourself.`,
  },
  "a URL as KO_DOCKER_REPO": {
    files: {},
    env: { KO_DOCKER_REPO: "https://example.com/team" },
    line: `error: Cannot use KO_DOCKER_REPO="https://example.com/team": it is a URL, leave out "https://". export KO_DOCKER_REPO=example.com/team`,
  },
  "two choices of the platform": {
    files: { ".ko.yaml": config("defaultPlatforms: [linux/amd64]\n") },
    env: { GOOS: "linux" },
    line: `error: Cannot use defaultPlatforms "linux/amd64": the environment says GOOS="linux" too, one of them is wanted. Type "unset GOOS GOARCH GOARM", or leave defaultPlatforms out.`,
  },
  "a program for the compiler in GOFLAGS": {
    files: {},
    env: { GOFLAGS: "-toolexec=x" },
    line: `error: Cannot use -toolexec in the environment variable GOFLAGS: it runs any program in place of the Go compiler. Take -toolexec out.`,
  },
  "a go command that does not exist": {
    files: {},
    env: { KO_GO_PATH: "/no/such/go" },
    line: `error: Cannot run /no/such/go: it is not installed, or not on PATH. Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.`,
  },
  "a go.mod that is broken": {
    files: { "go.mod": "module example.com/app\n\nrequrie x v1\n" },
    line: `go.mod:3: error: Cannot read the Go packages of "TREE": errors parsing go.mod: go.mod:3: unknown directive: requrie`,
  },
  "a go.mod for a newer Go": {
    files: { "go.mod": goMod("example.com/app", { go: "1.99" }) },
    line: `error: Cannot read the Go packages of "TREE": go.mod requires go >= 1.99 (running go 1.26.8; GOTOOLCHAIN=local). Let go fetch that version: GOTOOLCHAIN=auto`,
  },
  "a folder that does not exist": {
    files: {},
    args: ["./cmd/wbe"],
    line: `error: Cannot build "./cmd/wbe": there is no folder cmd/wbe. Did you mean "./cmd/web"?`,
  },
  "a folder without a module": {
    files: { "main.go": mainGo() },
    isWhole: true,
    args: [],
    line: `error: Cannot build "./...": pattern ./...: directory prefix . does not contain main module or its selected dependencies`,
  },
};

const environment: Record<string, string> = {
  ...cleanEnvironment("/nonexistent"),
  KOCACHE: "off",
  GOTOOLCHAIN: "local",
};
delete environment["KO_CONFIG_PATH"];

/** Runs `ko check` in a folder. */
async function check(tree: Tree, { args, env, stdin }: Partial<Case>): Promise<Result> {
  return runKoHere(["check", ...(args ?? ["-f", "config"])], {
    cwd: tree.path,
    env: { ...environment, KO_DOCKER_REPO: "registry.example.com/team", ...env },
    host: { readStdin: async () => new TextEncoder().encode(stdin ?? "") },
  });
}

describe("ko check", () => {
  test.each(Object.entries(CASES))("tells of %s, and of nothing else", async (_name, item) => {
    using tree = writeTree(item.isWhole === true ? item.files : { ...SOUND, ...item.files });
    const { code, stdout } = await check(tree, item);
    const line = item.line.replaceAll("TREE", tree.path);
    expect({ stdout, code }).toEqual({ stdout: `${line}\n`, code: /^(?:\S+ )?warning: /.test(line) ? 0 : 1 });
  });

  test.each<[string, Partial<Case>, Files]>([
    ["YAML and its programs", {}, {}],
    ["YAML and its programs, for a local target", { args: ["-L", "-f", "config"] }, {}],
    ["all programs", { args: [] }, {}],
    ["one program for another platform", { args: ["--platform=linux/arm64", "./cmd/web"] }, {}],
    ["names that keep the import path", { args: ["-P", "./..."] }, {}],
    [
      "commands that the image may have",
      {},
      {
        "config/web.yaml": [
          pod(`image: ${WEB}\n    command: [web, -v]`),
          pod(`image: ${WEB}\n    command: [/ko-app/../ko-app/web]`),
          pod(`image: ${WEB}\n    command: [/bin/tool]\n    volumeMounts: [{name: tools, mountPath: /bin}]`),
          pod(`image: ${WEB}\n    command: [$(TOOL)]`),
          pod(`image: ${WEB}\n    command: [./run]`),
          pod(`image: ${WEB}\n    command: [/var/run/ko/run.sh]`),
          pod("image: nginx\n    command: [/bin/sh]\n    imagePullPolicy: Always"),
        ].join("---\n"),
      },
    ],
    [
      "a shell on a base that may have it",
      {},
      {
        ".ko.yaml": "defaultBaseImage: alpine\n",
        "config/web.yaml": pod(`image: ${WEB}\n    command: [/bin/sh, -c, web]`),
      },
    ],
    [
      "cgo files with another for CGO_ENABLED=0",
      {},
      {
        "cmd/web/native.go": CGO,
        "cmd/web/pure.go": "//go:build !cgo\n\npackage main\n",
      },
    ],
    [
      "cgo files of another system",
      {},
      { "cmd/web/native_windows.go": CGO, "cmd/web/mac.go": `//go:build darwin\n\n${CGO}` },
    ],
    [
      "overrides and entries for programs of modules below, and of required ones",
      {},
      {
        "tools/go.mod": goMod("example.com/app/tools"),
        "tools/gen/main.go": mainGo(),
        "go.mod": goMod("example.com/app", { more: "\n// require example.org/other v1.0.0\n" }),
        ".ko.yaml": config(
          "baseImageOverrides:\n  example.com/app/tools/gen: scratch\n  example.org/other/cmd/x: scratch\n",
        ),
      },
    ],
    ["an override in a file that is for other modules, too", { env: { KO_CONFIG_PATH: "../shared.yaml" } }, {}],
  ])("has nothing to say about %s", async (_name, item, files) => {
    using tree = writeTree(SOUND);
    tree.write(files);
    using elsewhere = writeTree({ "shared.yaml": "baseImageOverrides:\n  example.org/a/b: scratch\n" });
    const env = item.env?.["KO_CONFIG_PATH"] === undefined ? {} : { KO_CONFIG_PATH: elsewhere.at("shared.yaml") };
    expect(await check(tree, { ...item, env })).toEqual({
      code: 0,
      stdout: "",
      stderr: expect.stringMatching(/^Checked .*: 0 errors, 0 warnings\n$/),
    });
  });

  test("tells of all mistakes at once, sorted by place, as lines and as JSON", async () => {
    using tree = writeTree({
      ...SOUND,
      "cmd/web/kodata/a": { link: "/etc/passwd" },
      "cmd/web/kodata/b": { link: "/etc/group" },
      "config/web.yaml": `${pod(`image: ${WEB}\n    imagePullPolicy: Always`)}---\n${pod("image: ko://example.com/app/lib")}---\na: [\n`,
      "config/a b.yaml": "{",
      ".ko.yaml": config("builds:\n- main: ./cmd/web\n  ldflags: ['{{.Env.NOPE}}']\n- main: ./lib\n"),
    });
    const { code, stdout, stderr } = await check(tree, { args: ["-L", "-f", "config", "./cmd/nope"] });
    expect({ code, places: stdout.match(/^(?:.*?\d: |\S*: )?(?:error|warning)(?=: )/gm) }).toEqual({
      code: 1,
      places: [
        "error",
        ".ko.yaml:4:20: error",
        ".ko.yaml:5:3: warning",
        "cmd/web/kodata/a: error",
        "cmd/web/kodata/b: error",
        "config/a b.yaml:1:2: error",
        "config/web.yaml:6:22: error",
        "config/web.yaml:12:12: error",
        "config/web.yaml:15:1: error",
      ],
    });
    expect(stderr).toEndWith(": 8 errors, 1 warning\n");
    const json = await check(tree, { args: ["-L", "-q", "--json", "-f", "config", "./cmd/nope"] });
    expect({ code: json.code, stderr: json.stderr }).toEqual({ code: 1, stderr: "" });
    const value: { readonly findings: readonly Finding[] } = JSON.parse(json.stdout);
    const schema: object = JSON.parse(readFileSync(join(ROOT, "docs/schemas/check.v1.json"), "utf8"));
    const validate = new Ajv2020({ allErrors: true, strictTypes: false }).compile(schema);
    expect([validate(value), validate.errors]).toEqual([true, null]);
    expect(value).toMatchObject({ version: 1, errors: 8, warnings: 1 });
    const lines = value.findings.map(({ column, file, hint, line, message, severity }) => {
      const place = [file, line, column].filter((part) => part !== undefined).join(":");
      return `${place === "" ? "" : `${place}: `}${severity}: ${message}${hint === undefined ? "" : `. ${hint}`}\n`;
    });
    expect(lines.join("")).toBe(stdout);
  });

  test("ends with the signal, and no finding, if it is interrupted", async () => {
    using tree = writeTree(SOUND);
    const controller = new AbortController();
    const result = await runKoHere(["check"], {
      cwd: tree.path,
      env: environment,
      host: {
        signal: controller.signal,
        run: async () => {
          controller.abort(new Interrupted("SIGINT"));
          throw controller.signal.reason;
        },
      },
    });
    expect(result).toEqual({ code: 130, stdout: "", stderr: "Error: interrupted by SIGINT\n" });
  });

  test("refuses a URL, a bad platform and a bad selector", async () => {
    using tree = writeTree(SOUND);
    for (const args of [["-f", "https://example.com/a.yaml"], ["--platform=linux/"], ["-f", "config", "-l", "a=b=c"]]) {
      expect(await check(tree, { args })).toMatchObject({ code: 2, stdout: "" });
    }
  });

  test("sends no request, and lets go send none", async () => {
    let requests = 0;
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => {
        requests++;
        return new Response("no", { status: 404 });
      },
    });
    const host = `127.0.0.1:${server.port}`;
    using tree = writeTree({
      ...SOUND,
      "go.mod": goMod("example.com/app", { more: "\nrequire example.org/other v1.0.0\n" }),
      "cmd/web/main.go": mainGo("web", ["example.org/other/lib"]),
      ".ko.yaml": `defaultBaseImage: ${host}/base\n`,
    });
    const proxy = { GOPROXY: `http://${host}`, GOSUMDB: "off", GOFLAGS: "-mod=mod", GOMODCACHE: tree.at("modules") };
    const env = { KO_DOCKER_REPO: `${host}/team`, GOPRIVATE: "example.org", GONOPROXY: "none", ...proxy };
    const { code, stdout } = await check(tree, { env });
    expect({ code, requests }).toEqual({ code: 1, requests: 0 });
    expect(stdout).toContain("Download modules first, as ko check does not: go mod download");
    // The same without ko's care asks the server.
    await runToEnd(["go", "list", "-deps", "./cmd/web"], { cwd: tree.path, env: { ...environment, ...env } });
    expect(requests).toBeGreaterThan(0);
  });

  test("writes nothing: neither in the tree nor in the cache, which it reads", async () => {
    using tree = writeTree({ ...SOUND, "config/odd.yaml": "? a\n: !!str b\n" });
    using work = writeTree({});
    const env = { KOCACHE: work.at("cache"), TMPDIR: tree.at("config") };
    const calls: string[] = [];
    const run = (args: readonly string[]): Promise<Result> =>
      runKoHere(args, {
        cwd: tree.path,
        env: { ...environment, KO_DOCKER_REPO: "registry.example.com/team", ...env },
        host: {
          run: ([program, ...words], options) => {
            calls.push(words[0] ?? "");
            const all = { ...environment, ...env, ...options?.env };
            return realHost.run([program, ...words], { cwd: tree.path, ...options, env: all });
          },
        },
      });
    const before = snapshot(tree.path);
    const cold = await run(["check", "-f", "config"]);
    expect({ ...cold, after: snapshot(tree.path), cache: readdirSync(work.path) }).toEqual({
      code: 0,
      stdout: "",
      stderr: "Checked 3 documents and 2 programs: 0 errors, 0 warnings\n",
      after: before,
      cache: [],
    });
    expect(calls).toContain("list");
    // Records are made of files that are a moment old.
    await waitUntil(() => Date.now() - lstatSync(tree.at("config/odd.yaml")).mtimeMs > SETTLED_MS);
    const built = await run(["resolve", "--push=false", "-f", "config"]);
    expect(built.code).toBe(0);
    const [sources, cache] = [snapshot(tree.path), snapshot(work.path)];
    calls.length = 0;
    const warm = await run(["check", "-f", "config"]);
    expect(warm).toEqual(cold);
    expect(calls).not.toContain("list");
    expect(snapshot(tree.path)).toEqual(sources);
    expect(snapshot(work.path)).toEqual(cache);
    // A record that still names the program is no proof.
    tree.write({ "cmd/web/main.go": libraryGo("web") });
    const changed = await run(["check", "-f", "config"]);
    expect(changed.stdout).toContain(
      `config/web.yaml:5:12: error: ${WEB}: it is a library (package web), wanted package main\n`,
    );
    expect(snapshot(work.path)).toEqual(cache);
  });
});

describe(".pre-commit-hooks.yaml", () => {
  test("runs a command line that ko takes, for files that it is about", async () => {
    const hooks: readonly Readonly<Record<string, string>>[] = parse(
      readFileSync(join(ROOT, ".pre-commit-hooks.yaml"), "utf8"),
    );
    expect(hooks).toMatchObject([{ id: "ko-check", language: "system", pass_filenames: false }]);
    const [program, ...args] = hooks[0]?.["entry"]?.split(" ") ?? [];
    expect(program).toBe("ko");
    using tree = writeTree(SOUND);
    const env = { ...environment, KO_DOCKER_REPO: "" };
    expect(await runKoHere([...args, "-f", "config"], { cwd: tree.path, env })).toMatchObject({ code: 0, stdout: "" });
    const files = new RegExp(hooks[0]?.["files"] ?? "^$");
    const names = [
      ".ko.yaml",
      "config/web.yml",
      "a.json",
      "cmd/main.go",
      "go.mod",
      "x/go.work",
      "cmd/web/kodata/a.png",
    ];
    expect([...names, "README.md", "a.go.txt"].filter((name) => files.test(name))).toEqual(names);
  });
});

/** All below a folder: its kind, times, and content. */
function snapshot(folder: string): Readonly<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    const info = lstatSync(join(folder, name));
    const content = info.isFile() ? readFileSync(join(folder, name), "base64") : "";
    found[name] = `${info.mode} ${info.mtimeMs} ${info.ctimeMs} ${content}`;
  }
  return found;
}
