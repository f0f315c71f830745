import { describe, expect, test } from "bun:test";
import { messageOf, UsageError } from "../lib/errors.ts";
import { choosePlatforms } from "../lib/cli-options.ts";
import { createPlatformMatcher, formatPlatform, parsePlatform, type Platform } from "../lib/oci.ts";
import { failureOf, rejectionOf } from "./helpers/failures.ts";

describe("parsePlatform()", () => {
  test.each<[string, Platform]>([
    ["linux", { os: "linux", architecture: "" }],
    ["linux/amd64", { os: "linux", architecture: "amd64" }],
    [" linux/amd64 ", { os: "linux", architecture: "amd64" }],
    ["linux/arm/v7", { os: "linux", architecture: "arm", variant: "v7" }],
    ["windows/amd64:10.0.20348", { os: "windows", architecture: "amd64", "os.version": "10.0.20348" }],
    ["windows:10.0.20348.1", { os: "windows", architecture: "", "os.version": "10.0.20348.1" }],
  ])("reads %j", (text, platform) => {
    expect(parsePlatform(text)).toEqual(platform);
  });

  test.each([
    ["", "it is empty"],
    ["linux/", "a part of it is empty"],
    ["/amd64", "a part of it is empty"],
    ["linux//v7", "a part of it is empty"],
    ["windows/amd64:", "a part of it is empty"],
    ["linux/arm/v7/x", "it has more than two slashes"],
    ["windows/amd64:10:20", "it has more than one colon"],
    ["linux/amd64,linux/arm64", "is in no platform's name"],
    ["linux amd64", '" " is in no platform\'s name'],
  ])("refuses %j", (text, why) => {
    expect(() => parsePlatform(text)).toThrow(why);
  });
});

describe("parsePlatform() of other names", () => {
  test.each([
    ["linux/x86_64", "linux/amd64"],
    ["linux/x64", "linux/amd64"],
    ["linux/aarch64", "linux/arm64"],
    ["linux/aarch64/v8", "linux/arm64/v8"],
    ["linux/armhf", "linux/arm/v7"],
    ["linux/armv6l", "linux/arm/v6"],
    ["linux/i686", "linux/386"],
    ["linux/ppc64el", "linux/ppc64le"],
    ["Linux/AMD64", "linux/amd64"],
    ["aarch64", "linux/arm64"],
    ["amd64", "linux/amd64"],
    ["macos/arm64", "darwin/arm64"],
    ["windows/x86_64:10.0.20348", "windows/amd64:10.0.20348"],
  ])("%s: did you mean %s?", async (text, meant) => {
    const failure = await failureOf(() => parsePlatform(text));
    expect(failure).toEqual({
      message: `Cannot read "${text}" as a platform: that is not Go's name of it`,
      hint: `Did you mean "${meant}"?`,
    });
    expect(parsePlatform(meant).os).toBe(meant.split("/")[0] ?? "");
  });

  test.each(["plan9/386", "wasip1/wasm", "linux/loong64", "linux/unheard", "unknown/unknown"])(
    "%s is taken",
    (text) => {
      expect(formatPlatform(parsePlatform(text))).toBe(text);
    },
  );
});

describe("createPlatformMatcher()", () => {
  const amd64: Platform = { os: "linux", architecture: "amd64" };
  const arm64v8: Platform = { os: "linux", architecture: "arm64", variant: "v8" };
  const windows = (version: string): Platform => ({ os: "windows", architecture: "amd64", "os.version": version });
  const build = windows("10.0.17763.1234");

  test.each<[string, readonly string[], Platform | undefined, boolean]>([
    ["all takes an entry without platform", ["all"], undefined, true],
    ["a platform does not", ["linux/amd64"], undefined, false],
    ["all takes anything", ["all"], build, true],
    ["all leaves attestations out", ["all"], { os: "unknown", architecture: "unknown" }, false],
    ["an unknown architecture is enough for that", ["all"], { os: "linux", architecture: "unknown" }, false],
    ["an equal one", ["linux/amd64"], amd64, true],
    ["the operating system alone", ["linux"], arm64v8, true],
    ["another operating system", ["linux"], build, false],
    ["another architecture", ["linux/arm64"], amd64, false],
    ["no variant asked for", ["linux/arm64"], arm64v8, true],
    ["the variant asked for", ["linux/arm64/v8"], arm64v8, true],
    ["another variant", ["linux/arm64/v9"], arm64v8, false],
    ["a variant where there is none", ["linux/amd64/v2"], amd64, false],
    ["one of several", ["linux/s390x", "linux/amd64"], amd64, true],
    ["none of several", ["linux/amd64", "linux/arm64/v9"], arm64v8, false],
    ["nothing asked for", [], amd64, false],
    ["no Windows version asked for", ["windows/amd64"], build, true],
    ["the whole Windows version", ["windows/amd64:10.0.17763.1234"], build, true],
    ["X.Y.Z takes every build of it", ["windows/amd64:10.0.17763"], build, true],
    ["X.Y.Z takes itself", ["windows/amd64:10.0.17763"], windows("10.0.17763"), true],
    ["another X.Y.Z", ["windows/amd64:10.0.20348"], build, false],
    ["X.Y.Z is no prefix of digits", ["windows/amd64:10.0.1776"], build, false],
    ["X is too short", ["windows/amd64:10"], build, false],
    ["X.Y is too short", ["windows/amd64:10.0"], build, false],
    ["X.Y.Z.B asked for, X.Y.Z there", ["windows/amd64:10.0.17763.1234"], windows("10.0.17763"), false],
    ["more parts than four", ["windows/amd64:10.0.17763"], windows("10.0.17763.1.2"), false],
    ["a version asked for, none there", ["windows/amd64:10.0.17763"], { os: "windows", architecture: "amd64" }, false],
    ["only Windows is taken by prefix", ["linux/amd64:1.2.3"], { ...amd64, "os.version": "1.2.3.4" }, false],
    ["any system by the whole version", ["linux/amd64:1.2.3"], { ...amd64, "os.version": "1.2.3" }, true],
  ])("%s: %j and %j", (_, platforms, platform, matches) => {
    expect(createPlatformMatcher(platforms)(platform)).toBe(matches);
  });

  test("refuses a malformed platform before it looks at entries", () => {
    expect(() => createPlatformMatcher(["linux/a/b/c"])).toThrow("more than two slashes");
  });
});

describe("choosePlatforms()", () => {
  test.each<[string, readonly string[], readonly string[], Record<string, string>, readonly string[]]>([
    ["the flag first", ["linux/arm64"], ["linux/s390x"], {}, ["linux/arm64"]],
    ["then the configuration", [], ["linux/s390x", "linux/amd64"], {}, ["linux/s390x", "linux/amd64"]],
    ["then GOOS and GOARCH", [], [], { GOOS: "windows", GOARCH: "arm64" }, ["windows/arm64"]],
    ["GOARM is the variant of arm", [], [], { GOOS: "linux", GOARCH: "arm", GOARM: "6" }, ["linux/arm/v6"]],
    ["GOARM without its float mode", [], [], { GOOS: "linux", GOARCH: "arm", GOARM: "7,softfloat" }, ["linux/arm/v7"]],
    ["GOARM says nothing of arm64", [], [], { GOOS: "linux", GOARCH: "arm64", GOARM: "7" }, ["linux/arm64"]],
    ["GOOS alone is not enough", [], [], { GOOS: "windows" }, ["linux/amd64"]],
    ["GOARCH alone is not enough", [], [], { GOARCH: "arm", GOARM: "7" }, ["linux/amd64"]],
    ["linux/amd64 at last", [], [], {}, ["linux/amd64"]],
    ["an empty variable is not set", ["all"], [], { GOOS: "", GOARCH: "" }, ["all"]],
  ])("takes %s", async (_, requested, defaults, env, platforms) => {
    const { platforms: found, source } = await choosePlatforms(requested, { defaults, env });
    expect(found).toEqual(platforms);
    const isNamed = env["GOOS"] && env["GOARCH"] ? "GOOS and GOARCH" : undefined;
    expect(source).toBe(requested.length > 0 ? "--platform" : defaults.length > 0 ? "defaultPlatforms" : isNamed);
    const fallback = (): Promise<string> => Promise.resolve("linux/riscv64");
    const own =
      env["GOOS"] && env["GOARCH"]
        ? platforms
        : platforms.map((each) =>
            each === "linux/amd64" && requested.length + defaults.length === 0 ? "linux/riscv64" : each,
          );
    expect((await choosePlatforms(requested, { defaults, env, fallback })).platforms).toEqual(own);
  });

  test("takes cluster for commands that end in kubectl, and passes it over in the configuration of others", async () => {
    const choose = (
      requested: readonly string[],
      defaults: readonly string[],
      mayBeCluster: boolean,
    ): Promise<object> => choosePlatforms(requested, { defaults, env: {}, mayBeCluster });
    const chosen = { platforms: ["cluster"], withoutCluster: false };
    expect(await choose(["cluster"], ["linux/arm64"], true)).toEqual({ ...chosen, source: "--platform" });
    expect(await choose([], ["cluster"], true)).toEqual({ ...chosen, source: "defaultPlatforms" });
    const passedOver = { platforms: ["linux/amd64"], source: undefined, withoutCluster: true };
    expect(await choose([], ["cluster"], false)).toEqual(passedOver);
  });

  test.each<[readonly string[], readonly string[], Record<string, string>, string]>([
    [
      ["linux/arm64"],
      [],
      { GOARCH: "amd64" },
      'Cannot use --platform "linux/arm64": the environment says GOARCH="amd64"',
    ],
    [[], ["linux"], { GOARM: "7" }, 'Cannot use defaultPlatforms "linux": the environment says GOARM="7"'],
    [["all", "linux"], [], {}, 'Cannot use --platform "all,linux": "all" stands beside others, wanted alone'],
    [[], ["linux", "all"], {}, 'Cannot use defaultPlatforms "linux,all": "all" stands beside others, wanted alone'],
    [
      ["linux", "cluster"],
      [],
      {},
      'Cannot use --platform "linux,cluster": "cluster" stands beside others, wanted alone',
    ],
    [["cluster"], [], {}, 'Cannot use --platform "cluster" here: it is for ko apply, create and run'],
    [[""], [], {}, "Cannot use --platform"],
    [[], [], { GOOS: "linux/x", GOARCH: "a/b" }, "Cannot use GOOS, GOARCH and GOARM"],
  ])("refuses %j, %j with %j", async (requested, defaults, env, message) => {
    const error = await rejectionOf(choosePlatforms(requested, { defaults, env }));
    expect(error).toBeInstanceOf(UsageError);
    expect(messageOf(error)).toContain(message);
  });
});
