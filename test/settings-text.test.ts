import { describe, expect, test } from "bun:test";
import { goMod, mainGo } from "./helpers/go.ts";
import { makeBench } from "./helpers/world-bench.ts";

const FILES = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo("web"),
  "cmd/api/main.go": mainGo("api"),
};

const CONFIG = `baseImageOverrides:
  example.com/app/cmd/api: scratch
defaultLdflags: -s -w
builds:
- id: web
  main: ./cmd/web
  env: [A=1, TOKEN=t0p]
  ldflags: ["-X 'main.a=b c'", '{{.Env.HOME}}']
  linux_capabilities: [net_raw]
`;

async function show(...args: readonly string[]): Promise<string> {
  using bench = makeBench(FILES, { host: "127.0.0.1:1", config: CONFIG });
  const env = { KO_DOCKER_REPO: "example.com/team", KO_GO_PATH: "go", GOFLAGS: "" };
  const { code, stdout, stderr } = await bench.ours(["config", ...args], { env });
  expect([code, stderr]).toEqual([0, ""]);
  return stdout.replaceAll(bench.work.at("config/"), "");
}

describe("ko config", () => {
  test("prints the settings of a program, each with its origin", async () => {
    expect(await show("-B", "-t", "v1", "./cmd/web")).toBe(`example.com/app/cmd/web
  image         example.com/team/web              # KO_DOCKER_REPO, --base-import-paths
  tags          v1                                # --tags
  destination   registry example.com              # KO_DOCKER_REPO
  sbom          spdx, beside the image            # default
  compression   gzip:1                            # default
  reuse         commit                            # default
  go            go                                # KO_GO_PATH
  builds        builds[0] ("web")                 # .ko.yaml:5:3
  base          gcr.io/distroless/static:nonroot  # default
  platforms     linux/amd64                       # default
  env           CGO_ENABLED=0                     # ko
                GOOS=linux                        # ko
                GOARCH=amd64                      # ko
                A=1                               # .ko.yaml:7:9
                TOKEN (not shown)                 # .ko.yaml:7:14
  ldflags       "-X 'main.a=b c'"                 # .ko.yaml:8:13
                '{{.Env.HOME}}'                   # .ko.yaml:8:32, not shown as it is used
  capabilities  net_raw=p                         # .ko.yaml:9:3
  go build      (not shown: a word is hidden)
`);
  });

  test("prints those of all programs without an argument", async () => {
    expect(await show("--push=false", "--platform=linux/amd64,linux/arm64")).toBe(`Settings of all programs
  file         .ko.yaml  # KO_CONFIG_PATH
  tags         latest                               # default
  destination  none                                 # --push=false
  sbom         none                                 # no destination takes one
  compression  gzip:1                               # default
  reuse        commit                               # default
  go           go                                   # KO_GO_PATH
  base         gcr.io/distroless/static:nonroot     # default
               scratch for example.com/app/cmd/api  # .ko.yaml:2:28
  platforms    linux/amd64, linux/arm64             # --platform
  env          CGO_ENABLED=0                        # ko
  ldflags      -s                                   # .ko.yaml:3:17
               -w                                   # .ko.yaml:3:20
  go build     -trimpath '-ldflags=-s -w'
  builds       builds[0] ("web"): ./cmd/web         # .ko.yaml:5:3
`);
  });

  test("tells platforms apart that are not compiled alike", async () => {
    const shown = await show("--ldflags=-X main.a={{.Env.GOARCH}}", "--platform=linux/amd64,linux/arm64", "./cmd/api");
    const lines = shown.split("\n").filter((line) => line.includes("go build"));
    expect(lines.map((line) => line.trim().replace(/ {2,}/, "  "))).toEqual([
      "go build (linux/amd64)  -trimpath '-ldflags=-X main.a=amd64'",
      "go build (linux/arm64)  -trimpath '-ldflags=-X main.a=arm64'",
    ]);
  });

  test("prints the schema", async () => {
    expect(JSON.parse(await show("schema"))).toMatchObject({ title: ".ko.yaml, the configuration of ko" });
  });
});
