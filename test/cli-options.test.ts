import { describe, expect, test } from "bun:test";
import { parseCommandLine } from "../lib/cli-parse.ts";
import { UsageError } from "../lib/errors.ts";
import { type BuildOptions, readBuildOptions } from "../lib/cli-options.ts";
import type { Word } from "../lib/config-file.ts";
import type { PublishFlags } from "../lib/publish-destination.ts";

function read(...flags: readonly string[]): BuildOptions {
  const invocation = parseCommandLine(["build", ...flags]);
  if (invocation.command !== "build") throw new TypeError(`not a build: ${flags.join(" ")}`);
  return readBuildOptions(invocation.flags, invocation.given);
}

const word = (flag: string, value: string): Word => ({ value, where: flag, setting: flag });

const PUBLISH: PublishFlags = {
  naming: undefined,
  tags: { names: ["latest"], only: false },
  files: [],
  imageRefs: undefined,
  also: [],
  push: undefined,
  local: false,
  insecureRegistry: false,
  compression: undefined,
  sbom: { dir: undefined, isExplicit: false },
};

const DEFAULTS: Omit<BuildOptions, "publish"> = {
  platforms: [],
  jobs: 0,
  reuse: undefined,
  disableOptimizations: false,
  debug: undefined,
  ldflags: undefined,
  labels: new Map(),
  annotations: new Map(),
  user: undefined,
  image: {},
  explain: false,
  timing: undefined,
  warnings: [],
};

describe("readBuildOptions()", () => {
  test.each<[readonly string[], Partial<PublishFlags>, Partial<BuildOptions>?]>([
    [[], {}],
    [["-P"], { naming: "preserve" }],
    [["-B"], { naming: "base" }],
    [["--bare"], { naming: "bare" }],
    [["-L"], { local: true }],
    [
      ["--oci-archive=-", "--tarball", "a.tar", "--oci-layout-path=l/"],
      {
        files: [
          { kind: "layout", path: "l/" },
          { kind: "tarball", file: "a.tar" },
          { kind: "oci-archive", file: "-" },
        ],
      },
    ],
    [["--tarball=", "--oci-archive=", "--oci-layout-path="], { files: [] }],
    [["--push"], { push: true }],
    [["--push=false"], { push: false }],
    [["-t", "a,b", "-t", "a,c"], { tags: { names: ["a", "b", "c"], only: false } }],
    [["--tags=", "--push=false"], { tags: { names: [], only: false }, push: false }],
    [["--tag-only", "-t", "v1"], { tags: { names: ["v1"], only: true } }],
    [["--tag-only", "-t", "v1,v1"], { tags: { names: ["v1"], only: true } }],
    // Nothing is pushed: the original prints the first tag, whatever it is.
    [["--tag-only", "--push=false"], { tags: { names: ["latest"], only: true }, push: false }],
    [["--tag-only", "--push=false", "-t", "a,b"], { tags: { names: ["a", "b"], only: true }, push: false }],
    [["--tags="], { tags: { names: [], only: false } }],
    [["-t", "a,", "-t", ","], { tags: { names: ["a"], only: false } }],
    [["--platform=", "--image-label=", "--image-annotation=,", "--compression=", "--sbom="], {}],
    [["--platform=linux/amd64,,"], {}, { platforms: ["linux/amd64"] }],
    [
      ["--image-label=a=1,,b=2,"],
      {},
      {
        labels: new Map([
          ["a", "1"],
          ["b", "2"],
        ]),
      },
    ],
    [["--platform=linux/amd64,linux/arm64"], {}, { platforms: ["linux/amd64", "linux/arm64"] }],
    [["--platform", "all"], {}, { platforms: ["all"] }],
    [
      ["--image-label", "a=1,b=x=y", "--image-label=c="],
      {},
      {
        labels: new Map([
          ["a", "1"],
          ["b", "x=y"],
          ["c", ""],
        ]),
      },
    ],
    [["--image-label", '"a=1,2"', "--image-label", "a=3"], {}, { labels: new Map([["a", "3"]]) }],
    [["--image-annotation", '"a=1,2"'], {}, { annotations: new Map([["a", "1,2"]]) }],
    [
      ["--image-refs", "r", "--oci-layout-path", "l", "--insecure-registry", "-j3", "--disable-optimizations"],
      { imageRefs: "r", files: [{ kind: "layout", path: "l" }], insecureRegistry: true },
      { jobs: 3, disableOptimizations: true },
    ],
    [["--debug"], {}, { debug: { isContinuing: false, port: undefined } }],
    [["--debug", "--debug-continue"], {}, { debug: { isContinuing: true, port: undefined } }],
    [["--debug", "--debug-port=40000"], {}, { debug: { isContinuing: false, port: 40000 } }],
    [["--debug-port", "1", "--debug"], {}, { debug: { isContinuing: false, port: 1 } }],
    [["--debug=false"], {}],
    [["--debug-continue=false"], {}],
    [["--image-user", "1000:1000"], {}, { user: "1000:1000" }],
    [
      ["--image-port=80,53/udp", "--image-port=81", "--image-cmd=a,b", "--image-workdir=/x/"],
      {},
      {
        image: {
          ports: ["80/tcp", "53/udp", "81/tcp"].map((value) => word("--image-port", value)),
          cmd: [word("--image-cmd", "a,b")],
          workdir: [word("--image-workdir", "/x")],
        },
      },
    ],
    [["--image-env=A={{.Git.Tag}}"], {}, { image: { env: [{ ...word("--image-env", "{{.Git.Tag}}"), key: "A" }] } }],
    [["--image-cmd=", "--image-volume=", "--image-stop-signal="], {}, { image: { cmd: [], volumes: [] } }],
    [["--compression=gzip"], { compression: { kind: "gzip", level: 1 } }],
    [["--compression=gzip:1"], { compression: { kind: "gzip", level: 1 } }],
    [["--compression", "gzip:9"], { compression: { kind: "gzip", level: 9 } }],
    [["--compression=zstd"], { compression: { kind: "zstd" } }],
    [["--compression=none"], { compression: { kind: "none" } }],
    [["--image-refs=", "--image-user="], {}],
    [["--sbom=spdx"], { sbom: { dir: undefined, isExplicit: true } }],
    [["--sbom-dir=out/"], { sbom: { dir: "out/", isExplicit: false } }],
    [["--sbom-dir="], {}],
    [["--sbom=none"], { sbom: undefined }],
    [["--sbom", "none", "--sbom-dir="], { sbom: undefined }],
    [
      ["--sbom=none", "--sbom-dir=out"],
      { sbom: undefined },
      { warnings: ["--sbom-dir has no effect: --sbom=none takes precedence"] },
    ],
    [["--explain"], {}, { explain: true }],
    [["--timing"], {}, { timing: "table" }],
    [["--timing=true"], {}, { timing: "table" }],
    [["--timing=a.json"], {}, { timing: { file: "a.json", format: "trace" } }],
    [["--timing=out/A.HTML"], {}, { timing: { file: "out/A.HTML", format: "page" } }],
    [["--timing=html"], {}, { timing: { file: "html", format: "trace" } }],
    // The last one counts; an empty value is none, and false is no file name.
    [["--timing=a.json", "--timing"], {}, { timing: "table" }],
    [["--timing", "--timing="], {}],
    [["--timing=false"], {}],
    [
      ["-B", "--bare"],
      { naming: "base" },
      { warnings: ["--bare has no effect: --base-import-paths takes precedence"] },
    ],
    [
      ["-P", "-B"],
      { naming: "preserve" },
      { warnings: ["--base-import-paths has no effect: --preserve-import-paths takes precedence"] },
    ],
  ])("reads %j", (flags, publish, options = {}) => {
    expect(read(...flags)).toEqual({ ...DEFAULTS, ...options, publish: { ...PUBLISH, ...publish } });
  });

  test.each<[readonly string[], string]>([
    [["-t", "a b"], 'Cannot use --tags="a b": the tag "a b" is invalid'],
    [["-t", "-x"], "begins with a letter"],
    [["--tag-only"], 'Cannot use --tag-only: the tag is "latest"'],
    [["--debug-continue"], "Cannot use --debug-continue: it is for a debugger, and --debug is not set"],
    [["--debug-port=40000"], "Cannot use --debug-port: it is for a debugger, and --debug is not set"],
    [["--debug=false", "--debug-port=1"], "Cannot use --debug-port: it is for a debugger"],
    [["--debug", "--debug-port=65536"], 'Cannot use --debug-port="65536": wanted 1 to 65535'],
    [["--debug", "--debug-port=0"], "--debug-port"],
    [["--tag-only", "-t", "a,b"], "Cannot use --tag-only: there are 2 tags, wanted exactly one"],
    [["--tag-only", "-t=", "--push=false"], "Cannot use --tag-only: there are 0 tags, wanted exactly one"],
    [["--platform=all,linux/amd64"], '"all" stands beside others, wanted alone'],
    [["--platform=linux/a/b/c"], "Cannot use --platform"],
    [["--image-label", "a=1,b"], 'Cannot use --image-label="b": there is no "=", wanted KEY=VALUE'],
    [["--image-port=0"], 'Cannot use --image-port: "0" is not a port, wanted 1 to 65535'],
    [["--image-env=KO_DATA_PATH=/x"], "Cannot use --image-env: KO_DATA_PATH is set by ko, which puts kodata there"],
    [["--image-stop-signal=INT"], 'Cannot use --image-stop-signal: "INT" is not a signal, the nearest is "SIGINT"'],
    [["--image-label", "=b"], 'Cannot use --image-label="=b": the key is empty, wanted KEY=VALUE'],
    [["--compression=gzip:10"], 'Cannot use --compression="gzip:10": the level is "10", wanted 1 (fast) to 9 (small)'],
    [["--compression=gzip:0"], 'the level is "0", wanted 1 (fast) to 9 (small)'],
    [["--compression=gzip:"], 'the level is "", wanted 1 (fast) to 9 (small)'],
    [["--compression=gzip:1:2"], 'the level is "1:2", wanted 1 (fast) to 9 (small)'],
    [["--compression=zstd:3"], 'Cannot use --compression="zstd:3": zstd has no level, only gzip has'],
    [["--compression=none:"], "none has no level, only gzip has"],
    [
      ["--compression=gizp:9"],
      'Cannot use --compression="gizp:9": wanted gzip, gzip:1 to gzip:9, zstd or none, the nearest is "gzip"',
    ],
    [["--compression=estargz"], 'Cannot use --compression="estargz": wanted gzip, gzip:1 to gzip:9, zstd or none'],
    [["--image-annotation", "b"], 'Cannot use --image-annotation="b": there is no "="'],
    [["--timing=-"], 'Cannot use --timing="-": stdout is for the results, a file is wanted'],
  ])("refuses %j", (flags, message) => {
    expect(() => read(...flags)).toThrow(UsageError);
    expect(() => read(...flags)).toThrow(message);
  });
});

describe("--ldflags", () => {
  test.each<[readonly string[], readonly string[] | undefined]>([
    [[], undefined],
    [["--ldflags=-s -w"], ["-s -w"]],
    [
      ["--ldflags", "-s", "--ldflags=-w"],
      ["-s", "-w"],
    ],
    [["--ldflags=-s,-w,-X a.b=c"], ["-s", "-w", "-X a.b=c"]],
    [["--ldflags=-X a.b=c,d,-w"], ["-X a.b=c,d", "-w"]],
    [["--ldflags=-X a.b=1, 2"], ["-X a.b=1, 2"]],
    [['--ldflags="-X a.b=c,-d",-w'], ["-X a.b=c,-d", "-w"]],
    [['--ldflags="-X ""a.b=c d"""'], ['-X "a.b=c d"']],
    [['--ldflags=-X "a.b=c d"'], ['-X "a.b=c d"']],
    [["--ldflags=-X a.b={{ printf `%s,-x` .Env.A }},-w"], ["-X a.b={{ printf `%s,-x` .Env.A }}", "-w"]],
    [["--ldflags="], [""]],
    [["--ldflags= "], [" "]],
  ])("reads %j", (flags, want) => {
    const words = read(...flags).ldflags;
    expect(words?.map(({ value }) => value)).toEqual(want === undefined ? undefined : [...want]);
    for (const { setting, where } of words ?? []) expect([setting, where]).toEqual(["--ldflags", "--ldflags"]);
  });
});
