import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import type { Settings } from "../lib/settings.ts";
import { goMod, mainGo, readGoBuilds, recordingGo } from "./helpers/go.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { commitTree } from "./helpers/world-programs.ts";
import { BUILD_CASES } from "./parity/builds.ts";

const schema: object = JSON.parse(readFileSync(`${import.meta.dir}/../docs/schemas/config.v1.json`, "utf8"));
const fits = new Ajv2020({ strict: false }).compile(schema);

const TWO = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo("web"),
  "cmd/api/main.go": mainGo("api"),
};

async function settingsOf(bench: Bench, args: readonly string[], env: Record<string, string> = {}): Promise<Settings> {
  const { code, stdout, stderr } = await bench.ours(["config", "--json", ...args], { env });
  if (code !== 0) throw new Error(stderr);
  const settings: Settings = JSON.parse(stdout);
  expect([fits(settings), fits.errors]).toEqual([true, null]);
  return settings;
}

/** The words that no template or variable of the environment hides. */
const SHOWN = BUILD_CASES.filter(({ base, env, name }) => {
  return (
    base === undefined &&
    !/Env\.(?:VERSION|TAG|HASH|LDFLAGS)|GOARCH-|templates: a default/.test(name) &&
    (env === undefined || !name.startsWith("templates"))
  );
});
/** One in so many cases is built. */
const STEP = process.env["CI"] ? 4 : 7;

describe("ko config says what go build gets:", () => {
  test.each(SHOWN.filter((_, i) => i % STEP === 0).map((each) => [each.name, each] as const))("%s", async (_, item) => {
    const { args = ["."], builds = "", commit, env, files = {}, tag } = item;
    using bench = makeBench(files, { host: "127.0.0.1:1", config: `defaultBaseImage: ko.builtin/static\n${builds}` });
    if (commit === true) await commitTree(bench.tree.path, tag);
    const variables = {
      ...(typeof env === "object" ? env : {}),
      KO_GO_PATH: recordingGo(bench.work, "spy"),
      KO_CONFIG_PATH: bench.work.at("config"),
      KOCACHE: "off",
    };
    const built = await bench.ours(["build", "--push=false", ...args], { env: variables });
    expect([built.code, built.stderr]).toEqual([0, expect.anything()]);
    const calls = readGoBuilds(bench.work, "spy").map((line): [string, readonly string[], readonly string[]] =>
      JSON.parse(line),
    );
    const { programs } = await settingsOf(bench, args, variables);
    expect(programs.map(({ importPath }) => importPath).sort()).toEqual(calls.map(([program]) => program).sort());
    for (const [importPath, words, given] of calls) {
      const [build] = programs.find((program) => program.importPath === importPath)?.builds ?? [];
      expect(["build", ...(build?.args ?? [])]).toEqual([...words]);
      const shown = build?.env.filter(({ value }) => value !== null) ?? [];
      expect(shown.map(({ name, value }) => `${name}=${value}`).filter((line) => !given.includes(line))).toEqual([]);
      expect(build?.env.filter(({ name }) => !given.some((line) => line.startsWith(`${name}=`)))).toEqual([]);
    }
  });
});

describe("ko config names origins", () => {
  const CONFIG = `defaultBaseImage: alpine
baseImageOverrides:
  example.com/app/cmd/api: scratch
defaultPlatforms: [linux/arm64]
defaultLdflags: -s -w
builds:
- id: web
  main: ./cmd/web
  env: [A=1, TOKEN=t0p]
  ldflags: [-X main.a=1]
  linux_capabilities: net_raw=ep
`;

  test("of the file, by line and column", async () => {
    using bench = makeBench(TWO, { host: "127.0.0.1:1", config: CONFIG });
    const at = bench.work.at("config/.ko.yaml");
    const { programs, defaults, entries, file } = await settingsOf(bench, ["./cmd/api", "./cmd/web"]);
    expect(file).toEqual({ value: at, from: "KO_CONFIG_PATH" });
    expect(programs.map(({ base, entry, platforms }) => ({ base, entry, platforms }))).toEqual([
      {
        base: { value: "scratch", from: `${at}:3:28` },
        entry: null,
        platforms: { value: ["linux/arm64"], from: `${at}:4:1` },
      },
      {
        base: { value: "alpine", from: `${at}:1:19` },
        entry: { value: 'builds[0] ("web")', from: `${at}:7:3` },
        platforms: { value: ["linux/arm64"], from: `${at}:4:1` },
      },
    ]);
    const [api, web] = programs.map(({ builds: [build] }) => build);
    expect(api?.ldflags).toEqual([
      { value: "-s", from: `${at}:5:17`, hidden: false },
      { value: "-w", from: `${at}:5:20`, hidden: false },
    ]);
    expect(web?.env.slice(3)).toEqual([
      { name: "A", value: "1", from: `${at}:9:9` },
      { name: "TOKEN", value: null, from: `${at}:9:14` },
    ]);
    expect(web?.capabilities).toEqual({ value: "net_raw=ep", from: `${at}:11:3` });
    expect(defaults.builds[0]?.args).toEqual(["-trimpath", "-ldflags=-s -w"]);
    expect(entries).toEqual([{ value: 'builds[0] ("web")', program: "./cmd/web", from: `${at}:7:3` }]);
  });

  test.each<[string, readonly string[], Record<string, string>, object]>([
    [
      "flags",
      [
        "-t",
        "v1,v2",
        "-B",
        "--platform=linux/amd64",
        "--ldflags=-w",
        "--sbom=none",
        "--image-user=7",
        "--compression=zstd",
      ],
      {},
      {
        tags: { value: ["v1", "v2"], from: "--tags" },
        sbom: { value: "none", from: "--sbom" },
        user: { value: "7", from: "--image-user" },
        compression: { value: "zstd", from: "--compression" },
        programs: [
          {
            image: { value: "example.com/team/web", from: "KO_DOCKER_REPO, --base-import-paths" },
            platforms: { value: ["linux/amd64"], from: "--platform" },
            builds: [{ ldflags: [{ value: "-w", from: "--ldflags", hidden: false }] }],
          },
        ],
      },
    ],
    [
      "variables",
      [],
      { KO_DEFAULTBASEIMAGE: "scratch", KO_DEFAULTPLATFORMS: "linux/s390x", SOURCE_DATE_EPOCH: "7" },
      {
        created: { value: 7, from: "SOURCE_DATE_EPOCH" },
        destinations: [{ value: "registry example.com", from: "KO_DOCKER_REPO" }],
        programs: [
          {
            base: { value: "scratch", from: "KO_DEFAULTBASEIMAGE" },
            platforms: { value: ["linux/s390x"], from: "KO_DEFAULTPLATFORMS" },
          },
        ],
      },
    ],
    [
      "the local daemon, which is not asked",
      ["-L", "--debug"],
      { DOCKER_HOST: "tcp://127.0.0.1:1", KO_CONFIG_PATH: "" },
      {
        destinations: [{ value: "local Docker or podman daemon", from: "--local" }],
        debugger: { value: "Delve on port 40000", from: "--debug" },
        programs: [
          {
            image: { value: "ko.local/example.com/app/cmd/web", from: "--local" },
            platforms: { value: [], from: "the local daemon" },
            builds: [{ isExample: true, args: ["-trimpath", "-gcflags", "all=-N -l"] }],
          },
        ],
      },
    ],
    [
      "no repository at all",
      [],
      { KO_DOCKER_REPO: "", KO_CONFIG_PATH: "" },
      {
        destinations: [{ value: "none", from: "KO_DOCKER_REPO is not set" }],
        programs: [{ base: { value: "gcr.io/distroless/static:nonroot", from: "default" } }],
      },
    ],
  ])("of %s", async (_, flags, env, wanted) => {
    using bench = makeBench(TWO, { host: "127.0.0.1:1", config: CONFIG });
    const settings = await settingsOf(bench, ["./cmd/web", ...flags], { KO_DOCKER_REPO: "example.com/team", ...env });
    expect(settings).toMatchObject(wanted);
  });

  test("of the image, each value by its place, without secrets and without what a flag replaces", async () => {
    const image =
      "image:\n  env: {A: b, API_TOKEN: t0p, E: '{{.Env.CANARY}}'}\n  labels: {a: b, c: d}\n  user: 7\n  ports: [80]\n";
    const entry = "builds:\n- main: ./cmd/web\n  binary: /opt/web\n  image: {env: [A=c]}\n";
    using bench = makeBench(TWO, { host: "127.0.0.1:1", config: image + entry });
    const at = bench.work.at("config/.ko.yaml");
    const args = ["./cmd/web", "--image-label=a=x", "--image-user=8", "--image-port=81/udp"];
    const { programs } = await settingsOf(bench, args, { CANARY: "canary" });
    const [build] = programs.flatMap(({ builds }) => builds);
    expect(build?.binary).toEqual({ value: "/opt/web", from: `${at}:8:11` });
    expect(build?.image).toEqual([
      { key: "env", value: "A=c", from: `${at}:9:17`, hidden: false },
      { key: "env", value: "API_TOKEN=***", from: `${at}:2:26`, hidden: true },
      { key: "env", value: "E={{.Env.CANARY}}", from: `${at}:2:34`, hidden: true },
      { key: "ports", value: "81/udp", from: "--image-port", hidden: false },
      { key: "labels", value: "c=d", from: `${at}:3:21`, hidden: false },
    ]);
  });

  test("reads no value of the environment, and downloads nothing", async () => {
    using bench = makeBench(
      {
        ...TWO,
        "go.mod": goMod("example.com/app", { more: "\nrequire example.com/absent v1.0.0\n" }),
        "cmd/web/main.go": mainGo("web", ["example.com/absent"]),
      },
      {
        host: "127.0.0.1:1",
        config:
          "defaultFlags: [-tags=a, '-gcflags={{.Env.CANARY}}']\ndefaultLdflags: ['-X main.a={{.GoEnv.GOPRIVATE}}']\n",
      },
    );
    const env = { CANARY: "canary-1", GOPRIVATE: "canary-2", KO_DEFAULTENV: "OWN=canary-3", GOAMD64: "v2" };
    for (const args of [["./cmd/web"], ["--json", "./cmd/web"], []]) {
      const { code, stdout, stderr } = await bench.ours(["config", ...args], { env });
      expect([code, stderr]).toEqual([0, ""]);
      expect(stdout).not.toContain("canary");
      expect(stdout).toContain("{{.Env.CANARY}}");
      expect(stdout).toContain("{{.GoEnv.GOPRIVATE}}");
    }
  });

  test.each<[string, readonly string[], string]>([
    ["a folder that is not there", ["./cmd/nope"], 'Cannot build "./cmd/nope": there is no folder'],
    ["a flag without effect", ["--jobs=2"], 'Cannot use --jobs: "ko config" has no such flag'],
    ["a platform that is none", ["--platform=linux/a/b/c"], "Cannot use --platform"],
    ["a tag that is none", ["-t", "a b"], "Cannot use --tags"],
  ])("and refuses %s as a build does", async (_, args, message) => {
    using bench = makeBench(TWO, { host: "127.0.0.1:1" });
    const { code, stdout, stderr } = await bench.ours(["config", ...args]);
    expect([code === 0, stdout]).toEqual([false, ""]);
    expect(stderr).toContain(message);
  });
});
