/**
 * Parity cases: `.ko.yaml` in the shapes that public repositories have, keys that nobody reads included. Names and
 * values are made up.
 */
import { goMod } from "../helpers/go.ts";
import type { Case } from "../helpers/oracle.ts";
import type { Files } from "../helpers/world-folders.ts";

const main = (name: string): string =>
  `package main\n\nvar version, commit, date = "none", "none", "none"\n\nfunc main() { println("${name}", version, commit, date) }\n`;

const NAMES = ["server", "worker", "migrate", "cli"];

/** One module with a program in its root and some below cmd/. */
const APP: Files = {
  "go.mod": goMod("example.com/app"),
  "main.go": main("root"),
  "pkg/info/info.go": "package info\n\nvar Version, Hash, Mode string\n",
  ...Object.fromEntries(NAMES.map((name) => [`cmd/${name}/main.go`, main(name)])),
};

/** A repository with a module in each folder. */
const MONOREPO: Files = Object.fromEntries(
  ["watcher", "labeler", "monitors/health"].flatMap((dir) => [
    [`${dir}/go.mod`, goMod(`example.com/mono/${dir}`)],
    [`${dir}/main.go`, main(dir)],
    [`${dir}/cmd/agent/main.go`, main(`${dir} agent`)],
  ]),
);

function shape(name: string, builds: string, more: Omit<Case, "name" | "builds"> = {}): Case {
  return { name: `in the wild: ${name}`, files: APP, goBuilds: true, builds, ...more };
}

const IF_SET = `'{{ if index .Env "LD_FLAGS" }}{{ .Env.LD_FLAGS }}{{ end }}'`;
const OPTIONAL = ["server", "worker", "cli"]
  .map((name) => `- id: ${name}\n  main: ./cmd/${name}\n  ldflags:\n  - ${IF_SET}\n\n`)
  .join("");

export const CONFIGURATION_CASES: readonly Case[] = [
  shape("ldflags of a variable that may be missing", `builds:\n${OPTIONAL}`, {
    args: ["./cmd/server", "./cmd/worker", "./cmd/cli"],
  }),
  shape("ldflags of a variable that is there", `builds:\n${OPTIONAL}`, {
    args: ["./cmd/server", "./cmd/cli"],
    env: { LD_FLAGS: "-s -w -X main.version=v1.2.3 -X 'main.commit=abc def'" },
  }),
  shape(
    "tags of variables, static linking, LDFLAGS",
    'builds:\n- id: server\n  dir: .\n  main: ./cmd/server\n  env:\n  - CGO_ENABLED=0\n  flags:\n  - -trimpath\n  - -tags\n  - "{{ .Env.GIT_HASH }}"\n  - -tags\n  - "{{ .Env.GIT_VERSION }}"\n  ldflags:\n  - -extldflags "-static"\n  - "{{ .Env.LDFLAGS }}"\n',
    { args: ["./cmd/server"], env: { GIT_HASH: "0a1b2c3", GIT_VERSION: "v2.0.0", LDFLAGS: "-X main.version=v2.0.0" } },
  ),
  shape(
    "an entry without main, with a comment",
    'builds:\n- id: app\n  dir: .  # default is .\n  flags:\n  - -trimpath\n  - -mod=readonly\n  ldflags:\n  - -s -w\n  - -extldflags "-static"\n  - -X main.version={{.Env.VERSION}}\n',
    { env: { VERSION: "2.1.7" } },
  ),
  shape(
    "a monorepo, with settings at the top that ko does not have",
    '# .ko.yaml (repo root)\nplatforms: [linux/amd64]\n\nldflags:\n  - "-s -w"\n  - "-X main.version={{.Env.VERSION}}"\n\nenv: [CGO_ENABLED=0]\n\nbuilds:\n\n  - id: watcher\n    dir: watcher\n    main: .\n\n  - id: labeler\n    baseImage: alpine:latest\n    dir: labeler\n    env: [GOAMD64=v2]\n    main: .\n    \n  - id: health\n    dir: monitors/health\n    main: cmd/agent\n\nlabels:\n  org.opencontainers.image.title: "mono"\n',
    {
      files: MONOREPO,
      args: ["example.com/mono/watcher", "example.com/mono/labeler", "example.com/mono/monitors/health/cmd/agent"],
    },
  ),
  shape("platforms under another name", "buildPlatforms:\n  - linux/arm64", { args: ["./cmd/cli"] }),
  {
    ...shape("a marker at the start, a folder with a slash, quotes in a variable", "", { args: ["./cmd/server"] }),
    config: (bases) =>
      `---\nbuilds:\n  - id: validator\n    dir: ./cmd/server/\n    main: .\n    env:\n      - GOPRIVATE="example.com/private"\n    flags:\n      - "--buildvcs=false"\ndefaultBaseImage: ${bases.oci.reference}\n`,
  },
  shape(
    "private modules, two platforms",
    'builds:\n  - id: server\n    main: ./cmd/server\n    env:\n      - "GOPRIVATE=go.example.com/*,github.com/Example/*"\n    ldflags:\n      - "-s -w"\n      - \'-extldflags "-static"\'\ndefaultPlatforms:\n  - linux/amd64\n  - linux/arm64\n',
    { base: "index", args: ["./cmd/server"] },
  ),
  shape(
    "many -X of variables with blanks inside the braces",
    'builds:\n- id: app\n  dir: .\n  main: .\n  ldflags:\n  - -s -w\n  - -extldflags "-static"\n  - -X example.com/app/pkg/info.Version={{ .Env.APP_VERSION }}\n  - -X example.com/app/pkg/info.Hash={{ .Env.APP_HASH }}\n  - -X main.date={{ .Env.APP_DATE }}\n  - -X example.com/app/pkg/info.Mode={{ .Env.APP_MODE }}\n',
    { env: { APP_VERSION: "1", APP_HASH: "abc", APP_DATE: "2024-01-02", APP_MODE: "production" } },
  ),
  shape(
    "a key of a fork, -a, netgo, single quotes",
    "defaultAppDirectory: /usr/local/bin # not an option of ko\nbuilds:\n- id: release\n  main: ./cmd/cli\n  flags:\n  - -a\n  - -tags\n  - netgo\n  ldflags:\n  - -X main.version={{.Env.VERSION}}\n  - -w\n  - -extldflags '-static'\n",
    { args: ["./cmd/cli"], env: { VERSION: "2.9.0" } },
  ),
  {
    ...shape("a base of its own for a program", "", { args: ["./cmd/server"], base: "rich" }),
    config: (bases) =>
      `baseImageOverrides:\n  example.com/app/cmd/server: ${bases.rich.reference}\nbuilds:\n  - id: svc\n    main: ./cmd/server/\n    flags:\n      - -trimpath\n      - -mod=readonly\n    env:\n      - CGO_ENABLED=0\n      - GOAMD64=v3\ndefaultBaseImage: ${bases.oci.reference}\n`,
  },
  shape(
    "only an id, env, flags and ldflags",
    "# used by CI only\n# TODO: see the tracker\n\nbuilds:\n  - id: binary\n    env:\n      - CGO_ENABLED=0\n    flags:\n      - -trimpath\n    ldflags:\n      - -s -w\n      - -X example.com/app/pkg/info.Version=edge\n      - -X main.commit={{ .Env.COMMIT_HASH }}\n",
    { env: { COMMIT_HASH: "deadbeef" } },
  ),
  shape(
    "two programs of a vendored module",
    ["server", "worker"]
      .map((name, i) => {
        const more = i === 0 ? "      - -X main.version={{ .Env.KO_BUILD_VERSION }}\n" : "";
        return `  - id: ${name}\n    main: ./cmd/${name}\n    env:\n      - CGO_ENABLED=0\n    flags:\n      - -trimpath\n      - -mod=vendor\n    ldflags:\n      - -s -w\n${more}`;
      })
      .reduce((text, each) => text + each, "defaultPlatforms:\n  - linux/amd64\nbuilds:\n"),
    {
      files: { ...APP, "vendor/modules.txt": "" },
      args: ["./cmd/server", "./cmd/worker"],
      env: { KO_BUILD_VERSION: "v7" },
    },
  ),
  shape("main: ./", "builds:\n  - id: exporter\n    main: ./\n    env:\n      - CGO_ENABLED=0\n      - GOAMD64=v3\n"),
  shape(
    "-s and -w as two items",
    "builds:\n  - id: server\n    main: ./cmd/server\n    env:\n      - CGO_ENABLED=0\n    ldflags:\n      - -s\n      - -w\n",
    { args: ["./cmd/server"] },
  ),
  shape(
    "entries that change nothing, and a registry that ko does not read",
    `defaultPlatforms:\n  - linux/amd64\n\n# baseImageOverrides:\n#   example.com/app/cmd/worker: example.com/base\n\ndefaultRegistry: example.com/mono\n\nbuilds:\n${NAMES.map((name) => `  - id: ${name}\n    main: ./cmd/${name}\n`).join("")}`,
    { args: ["./cmd/server", "./cmd/migrate"] },
  ),
  shape(
    "in GoReleaser's way",
    "builds:\n  - id: cli\n    main: ./cmd/cli\n    binary: cli\n    env:\n      - CGO_ENABLED=0\n    goos:\n      - linux\n      - darwin\n    goarch: [amd64, arm64]\n    ignore:\n      - goos: darwin\n        goarch: arm64\n    mod_timestamp: '{{ .CommitTimestamp }}'\n    hooks:\n      pre: make generate\n    gcflags:\n      - all=-l\n    asmflags:\n      - all=-trimpath=/\n    tags: [netgo]\n    flags:\n      - -trimpath\n    ldflags:\n      - -s -w -X main.version={{.Env.VERSION}}\n",
    { args: ["./cmd/cli"], env: { VERSION: "v0.1.0" } },
  ),
  shape(
    "version, commit and date of git",
    "builds:\n  - id: server\n    main: ./cmd/server\n    ldflags:\n      - -X main.version={{.Git.Tag}}\n      - -X main.commit={{.Git.ShortCommit}}\n      - -X main.date={{.Git.CommitDate}}\n",
    { args: ["./cmd/server"], commit: true, tag: "v3.1.4" },
  ),
  shape(
    "the time of the build",
    "builds:\n- id: cli\n  main: ./cmd/cli\n  ldflags:\n  - -s -w -X main.version={{.Env.VERSION}} -X main.commit={{.Git.FullCommit}} -X main.date={{.Date}}\n",
    { args: ["./cmd/cli"], commit: true, env: { VERSION: "v1", SOURCE_DATE_EPOCH: "1709289000" } },
  ),
  shape(
    "a block scalar round one template",
    "builds:\n- id: server\n  main: ./cmd/server\n  ldflags:\n  - |\n    {{ .Env.LDFLAGS }}\n- id: cli\n  main: ./cmd/cli\n  ldflags:\n  - >-\n    -s -w\n    -X main.version={{ .Env.VERSION }}\n",
    { args: ["./cmd/server", "./cmd/cli"], env: { VERSION: "1", LDFLAGS: "-w -X main.version=2" } },
  ),
  shape("main.go of a folder", "builds:\n- id: server\n  dir: cmd/server\n  main: main.go\n  ldflags: [-w]\n", {
    args: ["./cmd/server"],
  }),
  shape("flow style", "{builds: [{id: cli, main: ./cmd/cli, env: [CGO_ENABLED=0], ldflags: ['-s -w']}]}\n", {
    args: ["./cmd/cli"],
    config: (bases) =>
      `{defaultBaseImage: "${bases.oci.reference}", builds: [{id: cli, main: ./cmd/cli, env: [CGO_ENABLED=0], ldflags: ['-s -w']}]}\n`,
  }),
  shape(
    "a base entry that others merge",
    "builds:\n  - &base\n    id: server\n    main: ./cmd/server\n    env: [CGO_ENABLED=0]\n    flags: [-trimpath]\n    ldflags:\n      - -s -w\n      - -X main.version={{.Env.VERSION}}\n  - <<: *base\n    id: worker\n    main: ./cmd/worker\n  - <<: *base\n    id: migrate\n    main: ./cmd/migrate\n    ldflags: [-s]\n",
    { args: ["./cmd/server", "./cmd/worker", "./cmd/migrate"], env: { VERSION: "v5" } },
  ),
  shape(
    "defaults for all, an entry for one",
    "defaultEnv:\n- CGO_ENABLED=0\n- GOAMD64=v2\ndefaultFlags:\n- -v\ndefaultLdflags:\n- -s\n- -w\n- -X main.version={{.Env.VERSION}}\nbuilds:\n- id: migrate\n  dir: .\n  main: ./cmd/migrate\n  flags:\n  - -v\n  - -tags\n  - migrations\n",
    { args: ["./cmd/server", "./cmd/migrate"], env: { VERSION: "v6" } },
  ),
  shape(
    "a configuration inside of the configuration",
    "ko:\n  builds:\n  - id: server\n    main: ./cmd/server\n    ldflags: [-s]\n  defaultBaseImage: alpine\n",
    { args: ["./cmd/server"] },
  ),
  shape(
    "the platform in env",
    "builds:\n- id: server\n  main: ./cmd/server\n  env:\n  - CGO_ENABLED=0\n  - GOOS=linux\n  - GOARCH=amd64\n  ldflags: [-X=main.version=a]\n",
    { args: ["./cmd/server", "--platform=linux/amd64"] },
  ),
  shape(
    "keys for the image that ko does not have",
    "defaultLabels:\n  org.opencontainers.image.source: https://example.com\nimageName: app\nports: [8080]\nbuilds:\n- id: server\n  main: ./cmd/server\n  outputImage: app\n  sbom: none\n  env: [GIN_MODE=release]\n",
    { args: ["./cmd/server"] },
  ),
  shape(
    "one entry twice",
    "builds:\n- id: cli\n  main: ./cmd/cli\n  ldflags: [-s]\n- id: cli\n  main: cmd/cli\n  ldflags: [-s]\n",
    {
      args: ["./cmd/cli"],
    },
  ),
  shape(
    "a debug build beside, an empty build id",
    "builds:\n- id: server\n  main: ./cmd/server\n  ldflags: ['-buildid=', '-s', '-w', '-X main.version={{.Env.VERSION}}']\n  env: [CGO_ENABLED=0, GOOS=linux]\n- id: worker\n  main: ./cmd/worker\n  flags: ['-gcflags=all=-N -l']\n",
    { args: ["./cmd/server", "./cmd/worker"], env: { VERSION: "v8" } },
  ),
  shape("an empty list of entries, and a comment", "builds: []\n# builds:\n# - id: x\n", { args: ["./cmd/cli"] }),
];
