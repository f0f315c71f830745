/** Parity cases: `builds:`, the default words and `--ldflags`. Every `go build` is compared too. */
import { goMod } from "../helpers/go.ts";
import type { Case } from "../helpers/oracle.ts";
import type { Files } from "../helpers/world-folders.ts";

/** A program whose parts show what it was built with. */
function program(name: string): string {
  return `package main\n\nvar version = "none"\nvar mode = "none"\n\nfunc main() { println("${name}", version, mode) }\n`;
}

const SPECIAL = '//go:build special\n\npackage main\n\nfunc init() { mode = "special" }\n';

/** Two programs of a module, and a third one of a module inside of its folder. */
export const APP: Files = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": program("web"),
  "cmd/web/special.go": SPECIAL,
  "cmd/api/main.go": program("api"),
  "cmd/api/kodata/f": "data\n",
  "lib/lib.go": "package lib\n",
  "tool/go.mod": goMod("example.com/tool"),
  "tool/cmd/x/main.go": program("x"),
};

interface Lines extends Omit<Case, "name" | "builds" | "files"> {
  readonly files?: Files;
}

/** A case with lines of `.ko.yaml`; it builds ./cmd/web. */
function configured(name: string, builds: string, more: Lines = {}): Case {
  return { name, files: APP, args: ["./cmd/web"], goBuilds: true, builds, ...more };
}

/** A case with one entry, for ./cmd/web, whose lines follow `main`. */
function entry(name: string, lines: string, more: Lines = {}): Case {
  const indented = lines.trimEnd().replaceAll("\n", "\n  ");
  return configured(name, `builds:\n- id: web\n  main: ./cmd/web\n  ${indented}\n`, more);
}

const WORDS: readonly Case[] = [
  entry("ldflags: two items", "ldflags:\n- -s\n- -w"),
  entry("ldflags: two words in one item", "ldflags: ['-s -w']"),
  entry("ldflags: a string", "ldflags: -s -w -X main.version=1"),
  entry("ldflags: a literal block", "ldflags:\n- |\n  -s\n  -w\n  -X main.version=2"),
  entry("ldflags: a folded block", "ldflags: >-\n  -s\n  -X main.version=3"),
  entry("ldflags: quotes round a word", `ldflags: ["-X 'main.version=a b'"]`),
  entry("ldflags: double quotes round a word", `ldflags:\n- -X "main.version=a b"`),
  entry("ldflags: -X=", "ldflags: ['-X=main.version=q']"),
  entry("ldflags: a value with an equals sign and a comma", "ldflags: ['-X main.version=a=b,c']"),
  entry("ldflags: -extldflags in double quotes", `ldflags:\n- -s -w\n- -extldflags "-static"`),
  entry("ldflags: -extldflags in single quotes", "ldflags:\n- -w\n- -extldflags '-static'"),
  entry("ldflags: an empty build id", "ldflags: [-buildid=, -s]"),
  entry("ldflags: a build id of two quotes", `ldflags: ["-buildid=''"]`),
  entry("ldflags: an empty text switches the default off", "ldflags: ''\n", { env: { KO_DEFAULTLDFLAGS: "-s" } }),
  entry("ldflags: a list of an empty text", "ldflags: ['']"),
  entry("ldflags: an empty list means the default", "ldflags: []", { env: { KO_DEFAULTLDFLAGS: "-s" } }),
  entry("flags: -tags and its value as two items", "flags: [-tags, special]"),
  entry("flags: -tags= as one item", "flags: [-tags=special]"),
  entry("flags: two --tags, the last of which counts", "flags: [--tags, none, --tags, special]"),
  entry("flags: a string", "flags: -tags special  -v"),
  entry("flags: a number", "flags: [-p, 1, -v]"),
  entry("flags: -trimpath, once more", "flags: [-trimpath]"),
  entry("flags: -trimpath=false loses", "flags: [-trimpath=false]"),
  entry("flags: -mod=readonly, -a", "flags: [-mod=readonly, -a]"),
  entry("flags: -buildvcs=false in a repository", "flags: [-buildvcs=false]", { commit: true, env: { GOFLAGS: "" } }),
  entry("flags: the repository without it", "flags: [-v]", { commit: true, env: { GOFLAGS: "" } }),
  entry("flags: -ldflags among them", "flags: [-ldflags=-X=main.version=flags]"),
  entry("flags: -ldflags among them, and ldflags", "flags: ['-ldflags=-X=main.version=flags']\nldflags: [-s]"),
  entry("flags: -gcflags, overridden by --disable-optimizations", "flags: [-gcflags=all=-N]", {
    args: ["./cmd/web", "--disable-optimizations"],
  }),
  entry("flags: an empty list means the default", "flags: []", { env: { KO_DEFAULTFLAGS: "-tags=special" } }),
  entry("flags: an empty string means the default", "flags: ''", { env: { KO_DEFAULTFLAGS: "-tags=special" } }),
  entry("flags: -mod=vendor", "flags: [-mod=vendor]", {
    files: {
      "go.mod": goMod("example.com/app", { more: "\nrequire example.com/dep v1.0.0\n" }),
      "cmd/web/main.go": 'package main\n\nimport "example.com/dep"\n\nfunc main() { println(dep.Text) }\n',
      "vendor/modules.txt": "# example.com/dep v1.0.0\n## explicit; go 1.21\nexample.com/dep\n",
      "vendor/example.com/dep/dep.go": 'package dep\n\nvar Text = "vendored"\n',
    },
  }),
];

const ENVIRONMENT: readonly Case[] = [
  entry("env: CGO_ENABLED=0", "env: [CGO_ENABLED=0]"),
  entry("env: GOAMD64=v3", "env:\n- CGO_ENABLED=0\n- GOAMD64=v3"),
  entry("env: quotes are part of a value", `env: ['GOPRIVATE="a.example.com"', GIN_MODE=release]`),
  entry("env: the last of two equal names counts", "env: [GOAMD64=v2, GOAMD64=v3]"),
  entry("env: GOFLAGS with a build tag", "env: ['GOFLAGS=-buildvcs=false -tags=special']"),
  entry("env: GOFLAGS, and flags", "env: [GOFLAGS=-tags=special]\nflags: [-buildvcs=false]"),
  entry("env: the platform itself", "env: [GOOS=linux, GOARCH=amd64]"),
  entry("env: a string is one variable", "env: NAME=1 B=2"),
  entry("env: an empty list means the default", "env: []", { env: { KO_DEFAULTENV: "GOAMD64=v3" } }),
  entry("env: beats the process's", "env: [GOAMD64=v3]", { env: { GOAMD64: "v2" } }),
  configured("defaultEnv: for a program without an entry", "defaultEnv: [GOAMD64=v3]\n"),
  configured("defaultEnv: a string is split", "defaultEnv: GOAMD64=v3 NAME=1\n"),
  entry("defaultEnv: env replaces all of it", "env: [NAME=1]\ndefaultEnv: [GOAMD64=v3]\n".replace("\ndefault", "\n#"), {
    env: { KO_DEFAULTENV: "GOAMD64=v3" },
  }),
];

const DEFAULTS: readonly Case[] = [
  configured("defaultFlags: a list", "defaultFlags: [-tags, special, -v]\n"),
  configured("defaultFlags: a string is split", "defaultFlags: -tags special\n"),
  configured("defaultLdflags: a list", "defaultLdflags: ['-s -w', -X main.version=1]\n"),
  configured("defaultLdflags: a string is split and joined", "defaultLdflags: '-s   -w'\n"),
  configured(
    "default words, and an entry with its own",
    [
      "defaultFlags: [-v]\ndefaultLdflags: [-s]\ndefaultEnv: [GOAMD64=v2]\n",
      "builds:\n- main: ./cmd/web\n  flags: [-tags=special]\n  ldflags: [-w]\n  env: [GOAMD64=v3]\n",
    ].join(""),
  ),
  configured("KO_DEFAULTFLAGS beats defaultFlags", "defaultFlags: [-v]\n", {
    env: { KO_DEFAULTFLAGS: "-tags special" },
  }),
  configured("KO_DEFAULTLDFLAGS beats defaultLdflags", "defaultLdflags: [-s]\n", {
    env: { KO_DEFAULTLDFLAGS: "-w -X  main.version=env" },
  }),
  configured("KO_DEFAULTENV beats defaultEnv", "defaultEnv: [GOAMD64=v2]\n", {
    env: { KO_DEFAULTENV: "GOAMD64=v3 A=b" },
  }),
  entry("KO_DEFAULT… does not beat an entry", "flags: [-tags=special]\nldflags: [-w]", {
    env: { KO_DEFAULTFLAGS: "-v", KO_DEFAULTLDFLAGS: "-s" },
  }),
  configured("a variable of blanks drops the default", "defaultFlags: [-tags=special]\ndefaultLdflags: [-s]\n", {
    env: { KO_DEFAULTFLAGS: " ", KO_DEFAULTLDFLAGS: " " },
  }),
];

const LDFLAGS: readonly Case[] = [
  configured("--ldflags: a text", "", { args: ["./cmd/web", "--ldflags=-s -w -X main.version=1"] }),
  configured("--ldflags: twice", "", { args: ["./cmd/web", "--ldflags=-s", "--ldflags", "-X main.version=1"] }),
  configured("--ldflags: a comma before a dash", "", { args: ["./cmd/web", "--ldflags=-s,-w,-X main.version=1"] }),
  configured("--ldflags: quotes round a field with a comma", "", {
    args: ["./cmd/web", '--ldflags="-X main.version=a,b",-w'],
  }),
  entry("--ldflags: replaces those of the file", "ldflags: [-w]\nflags: [-tags=special]", {
    args: ["./cmd/web", "--ldflags=-X main.version=flag"],
  }),
  entry("--ldflags: a blank switches those of the file off", "ldflags: [-w]", { args: ["./cmd/web", "--ldflags= "] }),
  entry("--ldflags: a template", "env: [WHO=me]", { args: ["./cmd/web", "--ldflags=-X main.version={{.Env.WHO}}"] }),
];

/** Spellings of one program: the dir, main and argument of each. */
const SPELLINGS: readonly (readonly [dir: string | undefined, main: string | undefined])[] = [
  [undefined, "cmd/web"],
  [undefined, "./cmd/web/"],
  [undefined, "./cmd/web/main.go"],
  [undefined, "cmd/web/special.go"],
  [undefined, "/cmd/web"],
  ["cmd/web", undefined],
  ["./cmd/web/", "."],
  ["cmd", "./web"],
  ["cmd/web", "main.go"],
];

const PLACES: readonly Case[] = [
  ...SPELLINGS.map(([dir, main]): Case => {
    const lines = [...(dir === undefined ? [] : [`dir: ${dir}`]), ...(main === undefined ? [] : [`main: ${main}`])];
    const builds = `builds:\n- ${[...lines, "ldflags: -X main.version=here"].join("\n  ")}\n`;
    return configured(`an entry with ${lines.join(" and ")}`, builds);
  }),
  configured("an entry for a program of a nested module", "builds:\n- dir: tool\n  main: ./cmd/x\n  ldflags: -s\n", {
    args: ["./tool/cmd/x"],
    ours: [{ args: ["./tool/cmd/x"] }, { args: ["example.com/tool/cmd/x"] }, { args: ["ko://example.com/tool/cmd/x"] }],
  }),
  configured(
    "an entry for a program of a nested module, by import path",
    "builds:\n- dir: ./tool\n  main: cmd/x\n  flags: [-v]\n",
    {
      args: ["example.com/tool/cmd/x"],
    },
  ),
  configured("an entry for a program of another module of go.work", "builds:\n- main: ./tool/cmd/x\n  ldflags: -s\n", {
    files: { ...APP, "go.work": "go 1.21\n\nuse (\n\t.\n\t./tool\n)\n" },
    args: ["./tool/cmd/x"],
  }),
  configured(
    "an entry for the program of a replaced module",
    "builds:\n- dir: third/dep\n  main: ./cmd/it\n  ldflags: -s\n",
    {
      files: {
        "go.mod": goMod("example.com/app", {
          more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ./third/dep\n",
        }),
        "main.go": program("app"),
        "third/dep/go.mod": goMod("example.com/dep"),
        "third/dep/cmd/it/main.go": program("it"),
      },
      args: ["example.com/dep/cmd/it"],
    },
  ),
  configured("the program in the working directory", "builds:\n- id: root\n  ldflags: [-s]\n", {
    files: { "go.mod": goMod("example.com/root"), "main.go": program("root") },
    args: ["."],
  }),
  configured(
    "two entries, two programs",
    "builds:\n- main: ./cmd/web\n  ldflags: -X main.version=web\n- main: ./cmd/api\n  env: [GOAMD64=v3]\n  ldflags: -X main.version=api\n",
    { args: ["./cmd/api", "./cmd/web"] },
  ),
  configured("two programs, one with an entry", "builds:\n- main: ./cmd/web\n  flags: [-tags=special]\n", {
    args: ["./cmd/api", "./cmd/web"],
  }),
  configured(
    "an entry that no argument asks for is not looked at",
    "builds:\n- main: ./cmd/api\n  ldflags: '{{ .Nope'\n- main: ./cmd/web\n  ldflags: -s\n",
  ),
  configured("one entry without a list", "builds:\n  main: ./cmd/web\n  ldflags: -s\n"),
  configured("keys in other cases", "Builds:\n- MAIN: ./cmd/web\n  LdFlags: -s\n  ID: x\n"),
  configured(
    "anchors and merge keys",
    "builds:\n- &base\n  id: web\n  main: ./cmd/web\n  env: [GOAMD64=v3]\n  ldflags: &common [-s, -w]\n- <<: *base\n  id: api\n  main: ./cmd/api\n  flags: [-v]\ndefaultLdflags: *common\n",
    { args: ["./cmd/api", "./cmd/web"] },
  ),
  configured("a file that ends in ---", "builds:\n- main: ./cmd/web\n  ldflags: -s\n---\n"),
  entry("keys of GoReleaser", "binary: app\ngoos: [linux]\ngcflags: [-N]\nhooks: {pre: x}\nldflags: -s"),
  entry("an index for two platforms", "ldflags: ['-X main.version={{.Env.GOARCH}}-{{.GoEnv.GOARCH}}']", {
    base: "index",
    args: ["./cmd/web", "--platform=linux/amd64,linux/arm64"],
  }),
];

const CAPABILITIES: readonly Case[] = [
  entry("linux_capabilities: a name", "linux_capabilities: [net_bind_service]"),
  entry("linux_capabilities: effective", "linux_capabilities: net_raw,net_admin=eip\nldflags: -s"),
  entry("linux_capabilities: all, one taken away", "linux_capabilities: [all=ep, chown-ep]"),
  entry("linux_capabilities: a number", "linux_capabilities: [CAP_NET_RAW, 40]"),
  entry("linux_capabilities: none in the end", "linux_capabilities: [net_raw=e]"),
  entry("linux_capabilities: on two platforms", "linux_capabilities: net_bind_service=p", {
    base: "index",
    args: ["./cmd/web", "--platform=linux/amd64,linux/arm64"],
  }),
  entry("linux_capabilities: not for Windows", "linux_capabilities: net_bind_service=p", {
    base: "windows",
    args: ["./cmd/web", "--platform=windows/amd64"],
  }),
];

const version = (template: string): string => `ldflags:\n- '-X "main.version=${template}"'`;

const TEMPLATES: readonly Case[] = [
  entry("templates: a variable", version("{{.Env.VERSION}}"), { env: { VERSION: "v1.2.3" } }),
  entry("templates: a variable of env", `env: [VERSION=mine]\n${version("{{ .Env.VERSION }}")}`, {
    env: { VERSION: "v1" },
  }),
  entry("templates: LDFLAGS that is not set", "ldflags: ['{{ .Env.LDFLAGS }}', -s]"),
  entry("templates: LDFLAGS that is", "ldflags: ['{{ .Env.LDFLAGS }}']", { env: { LDFLAGS: "-s -X main.version=1" } }),
  entry("templates: in flags", "flags: [-tags, '{{.Env.TAG}}']", { env: { TAG: "special" } }),
  entry("templates: an if", `ldflags:\n- '{{ if index .Env "LD_FLAGS" }}{{ .Env.LD_FLAGS }}{{ end }}'\n- -w`),
  entry("templates: a default", version("{{ or (index .Env `NOPE`) `dev` }}")),
  entry("templates: printf and slice", version("{{ printf `%s-%d` (slice .Env.HASH 0 7) 7 }}"), {
    env: { HASH: "0123456789" },
  }),
  entry("templates: .Date and .Timestamp of SOURCE_DATE_EPOCH", version("{{.Date}}/{{.Timestamp}}"), {
    env: { SOURCE_DATE_EPOCH: "1700000000" },
  }),
  entry("templates: .GoEnv", version("{{.GoEnv.GOOS}}-{{.GoEnv.CGO_ENABLED}}-{{.GoEnv.GOVERSION}}")),
  entry(
    "templates: .Git of a tagged commit",
    version(
      "{{.Git.Tag}} {{.Git.FullCommit}} {{.Git.ShortCommit}} {{.Git.Branch}} {{.Git.CommitDate}} {{.Git.CommitTimestamp}}",
    ),
    { commit: true, tag: "v1.0.0" },
  ),
  entry("templates: .Git without a tag", version("{{.Git.Tag}} {{.Git.IsDirty}} {{.Git.IsClean}} {{.Git.TreeState}}"), {
    commit: true,
  }),
  entry(
    "templates: .Git outside of a repository",
    version("{{.Git.Tag}}|{{.Git.FullCommit}}|{{.Git.CommitDate}}|{{.Git.TreeState}}"),
  ),
  configured(
    "templates: in defaultLdflags and KO_DEFAULTFLAGS",
    "defaultLdflags:\n- -X main.version={{ .Env.VERSION }}\n",
    {
      env: { VERSION: "v2", KO_DEFAULTFLAGS: "-tags={{.Env.VERSION}}" },
    },
  ),
];

export const BUILD_CASES: readonly Case[] = [
  ...WORDS,
  ...ENVIRONMENT,
  ...DEFAULTS,
  ...LDFLAGS,
  ...PLACES,
  ...CAPABILITIES,
  ...TEMPLATES,
];
