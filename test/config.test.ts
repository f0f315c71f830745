import { describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type BaseName, type Config, baseFor, loadConfig, originOfBase, parseBase } from "../lib/config.ts";
import { KoError, KoErrors, UsageError, describeError } from "../lib/errors.ts";
import { writeTree } from "./helpers/world-folders.ts";

type Env = Readonly<Record<string, string>>;
type Files = Readonly<Record<string, string>>;

/** The origins have a test of their own. */
type Settings = Omit<Config, "origins">;

const DEFAULTS: Settings = {
  defaultBaseImage: "gcr.io/distroless/static:nonroot",
  baseImageOverrides: new Map(),
  defaultPlatforms: [],
  builds: [],
  defaults: { env: undefined, flags: undefined, ldflags: undefined },
  image: {},
  registries: new Map(),
  cache: { reuse: undefined },
  places: {},
  profiles: [],
  sourceDateEpoch: undefined,
  koDataDateEpoch: undefined,
  dockerRepo: undefined,
  goPath: "go",
  source: undefined,
  warnings: [],
};

/** Loads the configuration in a new folder with these files; `DIR` in results and messages stands for it. */
async function load(files: Files, env: Env = {}): Promise<Settings | string> {
  const dir = await mkdtemp(join(tmpdir(), "ko-config-"));
  try {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(dirname(join(dir, name)), { recursive: true });
      await writeFile(join(dir, name), text);
    }
    const { origins: _, ...config } = await loadConfig({ env, cwd: dir });
    const source = config.source?.replace(dir, "DIR");
    return { ...config, source };
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof KoErrors)) throw error;
    return describeError(error).replaceAll(dir, "DIR");
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** The same with a `.ko.yaml` only. */
function loadText(text: string, env: Env = {}): Promise<Settings | string> {
  return load({ ".ko.yaml": text }, env);
}

describe("loadConfig()", () => {
  test("needs no file", async () => {
    expect(await load({})).toEqual(DEFAULTS);
    expect(await load({ "ko.yaml": "nonsense: 1", ".kokoyaml": "" })).toEqual(DEFAULTS);
  });

  test.each<[string, string, Partial<Config>]>([
    ["an empty file", "", {}],
    ["a file of comments", "# nothing\n---\n", {}],
    ["blank lines, with tabs", "\n\t\n  \n", {}],
    ["markers alone", "---\n---\n", {}],
    ["a file that ends in markers", "defaultBaseImage: alpine\n---\n# end\n---\n", { defaultBaseImage: "alpine" }],
    ["an end marker", "---\ndefaultBaseImage: alpine\n...\n", { defaultBaseImage: "alpine" }],
    ["a byte order mark and CRLF", "\uFEFF# x\r\ndefaultBaseImage: alpine\r\n---\r\n", { defaultBaseImage: "alpine" }],
    [
      "tabs behind values",
      "defaultBaseImage:\talpine\t# x\ndefaultPlatforms: [\tall\t]\n",
      { defaultBaseImage: "alpine", defaultPlatforms: ["all"] },
    ],
    ["a key twice where ko does not look", "x-a: {b: 1, b: 2}\n", {}],
    ["a default base", "defaultBaseImage: alpine:3", { defaultBaseImage: "alpine:3" }],
    ["keys in any case", "DEFAULTbaseimage: alpine", { defaultBaseImage: "alpine" }],
    ["quotes and a byte order mark", "\uFEFF\"defaultBaseImage\": 'alpine'", { defaultBaseImage: "alpine" }],
    [
      "overrides, with keys lower-cased and without ko://",
      "baseImageOverrides:\n  github.com/Foo/cmd: alpine\n  ko://b.io/c: scratch\n",
      {
        baseImageOverrides: new Map([
          ["github.com/foo/cmd", "alpine"],
          ["b.io/c", "scratch"],
        ]),
      },
    ],
    ["overrides without any", "baseImageOverrides:\ndefaultPlatforms: ~\ndefaultBaseImage: null", {}],
    [
      "a list of platforms",
      "defaultPlatforms: [linux/amd64, linux/arm/v7]",
      { defaultPlatforms: ["linux/amd64", "linux/arm/v7"] },
    ],
    [
      "platforms with commas and blanks",
      "defaultPlatforms: linux/amd64,linux/arm64 linux/s390x",
      {
        defaultPlatforms: ["linux/amd64", "linux/arm64", "linux/s390x"],
      },
    ],
    ["all platforms", "defaultPlatforms: all", { defaultPlatforms: ["all"] }],
    [
      "anchors",
      "baseImageOverrides:\n  a.io/a: &x alpine\n  a.io/b: *x\n",
      {
        baseImageOverrides: new Map([
          ["a.io/a", "alpine"],
          ["a.io/b", "alpine"],
        ]),
      },
    ],
    [
      "every form of a base",
      "baseImageOverrides: {a: ko.builtin/static, b: scratch, c: 'oci:dir:v1', d: oci:/d}",
      {
        baseImageOverrides: new Map([
          ["a", "ko.builtin/static"],
          ["b", "scratch"],
          ["c", "oci:dir:v1"],
          ["d", "oci:/d"],
        ]),
      },
    ],
    ["keys without a value", "builds: []\ndefaultEnv:\ndefaultFlags: []\n", {}],
    ["a file that ends in ---", "defaultBaseImage: alpine\n---\n", { defaultBaseImage: "alpine" }],
    [
      "a file that ends in a comment",
      "---\ndefaultBaseImage: alpine\n---\n# end\n...\n",
      { defaultBaseImage: "alpine" },
    ],
    [
      "a merge key",
      "x-base: &base {defaultBaseImage: alpine, defaultPlatforms: all}\n<<: *base\ndefaultPlatforms: linux\n",
      { defaultBaseImage: "alpine", defaultPlatforms: ["linux"] },
    ],
    [
      "several merge keys, the first of which counts",
      "x-a: &a {defaultBaseImage: a.io/a}\nx-b: &b {defaultBaseImage: b.io/b, defaultPlatforms: all}\n<<: [*a, *b]\n",
      { defaultBaseImage: "a.io/a", defaultPlatforms: ["all"] },
    ],
    [
      "keys that ko does not know",
      "x-anything: 1\nX-More: 2\nports: [80]\nlabels: {a: b}\nldflags: [-s]\nko:\n  builds: []\n",
      {
        warnings: [
          '.ko.yaml:3:1: "ports" has no effect, it is not a setting of ko; use ports of image',
          '.ko.yaml:4:1: "labels" has no effect, it is not a setting of ko; use labels of image',
          '.ko.yaml:5:1: "ldflags" has no effect, it is not a setting of ko; use defaultLdflags, or ldflags of an entry of builds',
          '.ko.yaml:6:1: "ko" has no effect, it is not a setting of ko',
        ],
      },
    ],
  ])("reads %s", async (_, text, config) => {
    expect(await loadText(text)).toEqual({ ...DEFAULTS, source: "DIR/.ko.yaml", ...config });
  });

  test.each<[string, Files, Env, string | undefined]>([
    [".ko.yml", { ".ko.yml": "" }, {}, "DIR/.ko.yml"],
    [
      ".ko.json, with tabs",
      { ".ko.json": '{\n\t"defaultBaseImage": "gcr.io\\/distroless\\/static:nonroot"\n}\n' },
      {},
      "DIR/.ko.json",
    ],
    [
      "a folder in KO_CONFIG_PATH",
      { "conf/.ko.yaml": "", ".ko.yaml": "defaultBaseImag: 1" },
      { KO_CONFIG_PATH: "conf" },
      "DIR/conf/.ko.yaml",
    ],
    ["a file in KO_CONFIG_PATH", { "conf/some": "" }, { KO_CONFIG_PATH: "./conf/some" }, "DIR/conf/some"],
    ["no file of a parent folder", { "sub/x": "" }, {}, undefined],
    ["an empty KO_CONFIG_PATH as none", { ".ko.yaml": "" }, { KO_CONFIG_PATH: "" }, "DIR/.ko.yaml"],
  ])("finds %s", async (_, files, env, source) => {
    expect(await load(files, env)).toEqual({ ...DEFAULTS, source });
  });

  describe("profiles", () => {
    const yaml =
      "repo: registry.lan/team\nnaming: bare\ndefaultFlags: [-v]\nprofiles:\n  dev: {repo: kind.local, defaultFlags: [-race]}\n  release: {sbom: none}\n";

    test.each<[string, Env, readonly (string | undefined)[]]>([
      ["none", {}, ["registry.lan/team", "bare", undefined, "-v"]],
      ["one", { KO_PROFILE: "dev" }, ["kind.local", "bare", undefined, "-race"]],
      ["another", { KO_PROFILE: "release" }, ["registry.lan/team", "bare", "none", "-v"]],
      ["the variable before both", { KO_PROFILE: "dev", KO_DOCKER_REPO: "me" }, ["me", "bare", undefined, "-race"]],
    ])("%s", async (_, env, wanted) => {
      using tree = writeTree({ ".ko.yaml": yaml });
      const { defaults, dockerRepo, places, profiles } = await loadConfig({ env, cwd: tree.path });
      const flags = defaults.flags?.map(({ value }) => value).join(" ");
      const found: readonly (string | undefined)[] = [dockerRepo, places.naming?.value, places.sbom?.value, flags];
      expect(found).toEqual(wanted);
      expect(profiles).toEqual(["dev", "release"]);
    });

    test.each<[string, Env, string]>([
      [yaml, { KO_PROFILE: "prod" }, 'Cannot use profile "prod": the file has dev, release'],
      ["", { KO_PROFILE: "dev" }, 'Cannot use profile "dev": the file has no profiles'],
      [
        "profiles: {a: {nameing: bare}}\n",
        {},
        '.ko.yaml:1:16: "nameing" is not a setting of ko, the nearest is "naming"',
      ],
      ["profiles: {a: {naming: base}}\n", { KO_PROFILE: "a" }, '.ko.yaml:1:24: naming: "base" is not a choice'],
      [
        "repo: https://r.io/x\n",
        {},
        'Cannot use .ko.yaml:1:7: repo="https://r.io/x": it is a URL, leave out "https://"',
      ],
      ["profiles: 7\n", {}, "profiles is a number, wanted a map"],
    ])("refuses %j with %j", async (text, env, message) => {
      expect(await load({ ".ko.yaml": text }, env)).toContain(message);
    });

    test("wants a file", async () => {
      expect(await load({}, { KO_PROFILE: "dev" })).toContain('Cannot use profile "dev": there is no .ko.yaml');
    });
  });

  describe("in a subfolder", () => {
    const files = {
      ".ko.yaml": "defaultBaseImage: ubuntu\n",
      "repo/.git/HEAD": "",
      "repo/.ko.yaml":
        "defaultBaseImage: oci:layout:v1\nbaseImageOverrides: {a.io/b: 'oci:/abs', a.io/c: alpine}\nbuilds:\n- main: ./cmd/web\n- dir: tools\n  main: ./cmd/x\n",
      "repo/a/.ko.yml": "defaultBaseImage: alpine\n",
      "repo/a/b/x": "",
      "repo/deep/er/x": "",
      "other/x": "",
    };

    test.each<[string, Env, string | undefined, readonly string[]]>([
      ["repo/a/b", { KO_CONFIG_PATH: "auto" }, "repo/a/.ko.yml", []],
      ["repo/deep/er", { KO_CONFIG_PATH: "auto" }, "repo/.ko.yaml", []],
      ["repo", { KO_CONFIG_PATH: "auto" }, "repo/.ko.yaml", []],
      ["other", { KO_CONFIG_PATH: "auto" }, undefined, []],
      [
        "repo/deep/er",
        {},
        undefined,
        ["../../.ko.yaml is not read, as it is above the working directory: --config=auto reads it"],
      ],
      ["repo/a", {}, "repo/a/.ko.yml", []],
      ["other", {}, undefined, []],
    ])("%s with %j reads %j", async (cwd, env, wanted, told) => {
      using tree = writeTree(files);
      const { source, warnings } = await loadConfig({ env, cwd: tree.at(cwd) });
      expect([source, warnings]).toEqual([wanted === undefined ? undefined : tree.at(wanted), told]);
    });

    test("paths in a file that was searched for are relative to its folder", async () => {
      using tree = writeTree(files);
      const config = await loadConfig({ env: { KO_CONFIG_PATH: "auto" }, cwd: tree.at("repo/deep/er") });
      expect(config.builds.map(({ dir, main }) => [dir?.value, main?.value])).toEqual([
        ["../..", "./cmd/web"],
        ["../../tools", "./cmd/x"],
      ]);
      expect([config.defaultBaseImage, ...config.baseImageOverrides.values()]).toEqual([
        "oci:../../layout:v1",
        "oci:/abs",
        "alpine",
      ]);
      const here = await loadConfig({ env: { KO_CONFIG_PATH: "auto" }, cwd: tree.at("repo") });
      expect(here.builds.map(({ dir }) => dir?.value)).toEqual([undefined, "tools"]);
    });
  });

  test.each<[Files, Env, string]>([
    [{}, { KO_CONFIG_PATH: "none" }, 'Cannot use KO_CONFIG_PATH="none": it does not exist'],
    [{ "conf/x": "" }, { KO_CONFIG_PATH: "conf" }, 'Cannot use KO_CONFIG_PATH="conf": there is no .ko.yaml in it'],
    [{}, { KO_CONFIG_PATH: "/dev/null" }, "it is neither a file nor a directory"],
    [{ "a.toml": "" }, { KO_CONFIG_PATH: "a.toml" }, ".toml is not supported"],
    [{ ".ko.toml": "" }, {}, 'Cannot read "DIR/.ko.toml": ko reads only YAML and JSON'],
    [{ ".ko.json": "{}", ".ko.yaml": "" }, {}, 'Cannot choose between "DIR/.ko.yaml" and "DIR/.ko.json"'],
    [{ ".ko.yaml/x": "" }, {}, 'Cannot read "DIR/.ko.yaml": it is not a file'],
    [{ ".ko.yaml": `# ${"x".repeat(1024 * 1024)}` }, {}, "it has 1048578 bytes"],
    [
      { "sub/.ko.yaml": "build: 1" },
      { KO_CONFIG_PATH: "sub" },
      'Cannot use sub/.ko.yaml:1:1: "build" is not a setting',
    ],
  ])("refuses %j with %j", async (files, env, message) => {
    expect(await load(files, env)).toContain(message);
  });

  test.each<[string, string]>([
    [
      "# a\ndefaultBaseImag: x",
      '.ko.yaml:2:1: "defaultBaseImag" is not a setting of ko, the nearest is "defaultBaseImage"',
    ],
    [
      "default_base_image: x",
      '.ko.yaml:1:1: "default_base_image" is not a setting of ko, the nearest is "defaultBaseImage"',
    ],
    ["baseImageOverride: {}", '"baseImageOverride" is not a setting of ko, the nearest is "baseImageOverrides"'],
    ["defaultldflag: -s", '.ko.yaml:1:1: "defaultldflag" is not a setting of ko, the nearest is "defaultLdflags"'],
    ["build:\n- id: x", '.ko.yaml:1:1: "build" is not a setting of ko, the nearest is "builds"'],
    [
      "build: 1\ndefaultBaseImag: x\ndefaultPlatforms: 5",
      'Error: Cannot use .ko.yaml:1:1: "build" is not a setting of ko, the nearest is "builds"\n' +
        'Error: Cannot use .ko.yaml:2:1: "defaultBaseImag" is not a setting of ko, the nearest is "defaultBaseImage"\n' +
        "Error: Cannot read .ko.yaml:3:19: defaultPlatforms is a number, wanted a list of strings",
    ],
    ["defaultBaseImage: *none", '.ko.yaml:1:19: no anchor "&none" ends before it'],
    ["<<: [1]", '.ko.yaml:1:1: "<<" merges maps, wanted one or a list of them'],
    ["x-a: &a\n  <<: *a\n<<: *a", '.ko.yaml:2:7: no anchor "&a" ends before it'],
    ["defaultBaseImage: 5", ".ko.yaml:1:19: defaultBaseImage is a number, wanted a string"],
    ["defaultBaseImage: [a]", ".ko.yaml:1:19: defaultBaseImage is a list, wanted a string"],
    ["defaultBaseImage: ''", ".ko.yaml:1:19: defaultBaseImage is not an image name"],
    [
      "defaultBaseImage: gcr.io/Web",
      '.ko.yaml:1:19: defaultBaseImage is not an image name: Cannot read "gcr.io/Web" as an image name',
    ],
    ["baseImageOverrides:\n  a.io/b:\n", '.ko.yaml:2:3: baseImageOverrides["a.io/b"] has no value'],
    ["baseImageOverrides:\n  a.io/b: x y\n", '.ko.yaml:2:11: baseImageOverrides["a.io/b"] is not an image name'],
    [
      "baseImageOverrides: {./cmd/web: x}",
      '.ko.yaml:1:33: "./cmd/web" in baseImageOverrides is a path, wanted an import path',
    ],
    ["baseImageOverrides: {ko://./cmd: x}", '"ko://./cmd" in baseImageOverrides is a path, wanted an import path'],
    ["baseImageOverrides: a=b", ".ko.yaml:1:21: baseImageOverrides is a string, wanted a map"],
    ["baseImageOverrides: {a: [x]}", '.ko.yaml:1:25: baseImageOverrides["a"] is a list, wanted a string'],
    ["baseImageOverrides: {a: x, A: y}", '.ko.yaml:1:31: baseImageOverrides already has "x" for "A"'],
    ["defaultPlatforms: {a: b}", ".ko.yaml:1:19: defaultPlatforms is a map, wanted a list of strings"],
    ["defaultBaseImage: true", ".ko.yaml:1:19: defaultBaseImage is a boolean, wanted a string"],
    ["defaultPlatforms: [~]", ".ko.yaml:1:20: an item of defaultPlatforms is empty, wanted a string"],
    ["defaultPlatforms: [1]", ".ko.yaml:1:20: an item of defaultPlatforms is a number, wanted a string"],
    ["defaultPlatforms: [all, linux]", '.ko.yaml:1:1: defaultPlatforms "all,linux": "all" stands beside others'],
    [
      "defaultPlatforms:\n- linux/amd64,linux/arm64",
      '.ko.yaml:1:1: defaultPlatforms: Cannot read "linux/amd64,linux/arm64"',
    ],
    ["defaultBaseImage: a\ndefaultBaseImage: b", '.ko.yaml:2:1: "defaultBaseImage" is already set at .ko.yaml:1:1'],
    ["x-a: 1\n<<: *none", '.ko.yaml:2:5: no anchor "&none"'],
    [`x-a: ${"[".repeat(100_000)}`, ".ko.yaml:1:"],
    ["a: 1\n".repeat(60_000), "it has 300000 bytes, wanted at most 262144"],
    [
      Array.from({ length: 20_000 }, (_, i) => `x-${i}: 1\n`).join("") + "x-0: 2",
      '.ko.yaml:20001:1: "x-0" is already set at .ko.yaml:1:1',
    ],
    [`x-a: &a [${"a, ".repeat(100)}]\nx-b: [${"*a, ".repeat(40_000)}]\nbuilds: *b\n`, '.ko.yaml:3:9: no anchor "&b"'],
    ["defaultFlags:\n\t- -v", ".ko.yaml:2:1"],
    ["defaultFlags: '-v", ".ko.yaml:1:18"],
    ["defaultBaseImage: a\nDefaultBaseImage: b", '.ko.yaml:2:1: "defaultBaseImage" is already set at .ko.yaml:1:1'],
    ["defaultBaseImage: a\n---\ndefaultBaseImage: b", ".ko.yaml:2:1: a second document begins"],
    ["- a", ".ko.yaml:1:1: the file is a list, wanted a map"],
    ["just text", ".ko.yaml:1:1: the file is a string, wanted a map"],
    ["5: x", ".ko.yaml:1:1: this key is not a string"],
    ["a: [", ".ko.yaml:1:5"],
  ])("refuses the file %j", async (text, message) => {
    expect(await loadText(text)).toContain(message);
  });

  const FILE = `
defaultBaseImage: file.io/base
baseImageOverrides: {a.io/a: file.io/a, a.io/b: file.io/b}
defaultPlatforms: [linux/s390x]
`;

  test.each<[Env, Partial<Config>]>([
    [{ KO_DEFAULTBASEIMAGE: "env.io/base" }, { defaultBaseImage: "env.io/base" }],
    [{ KO_BASEIMAGEOVERRIDES: '{"A.io/A": "env.io/a"}' }, { baseImageOverrides: new Map([["a.io/a", "env.io/a"]]) }],
    [{ KO_DEFAULTPLATFORMS: "linux/amd64 linux/arm64" }, { defaultPlatforms: ["linux/amd64", "linux/arm64"] }],
    [{ KO_DEFAULTPLATFORMS: "linux/amd64,linux/arm64" }, { defaultPlatforms: ["linux/amd64", "linux/arm64"] }],
    [{ KO_DEFAULTPLATFORMS: "all" }, { defaultPlatforms: ["all"] }],
    [{ KO_DEFAULTBASEIMAGE: "", KO_BASEIMAGEOVERRIDES: "", KO_DEFAULTPLATFORMS: "" }, {}],
    [
      { SOURCE_DATE_EPOCH: "1700000000", KO_DATA_DATE_EPOCH: "0" },
      { sourceDateEpoch: 1700000000, koDataDateEpoch: 0 },
    ],
    [{ SOURCE_DATE_EPOCH: "", KO_DATA_DATE_EPOCH: "" }, {}],
    [{ KO_DOCKER_REPO: "gcr.io/me" }, { dockerRepo: "gcr.io/me" }],
    [{ KO_DOCKER_REPO: "" }, {}],
    [{ KO_GO_PATH: "/opt/go/bin/go" }, { goPath: "/opt/go/bin/go" }],
  ])("lets %j beat the file", async (env, config) => {
    expect(await loadText(FILE, env)).toEqual({
      ...DEFAULTS,
      source: "DIR/.ko.yaml",
      defaultBaseImage: "file.io/base",
      baseImageOverrides: new Map([
        ["a.io/a", "file.io/a"],
        ["a.io/b", "file.io/b"],
      ]),
      defaultPlatforms: ["linux/s390x"],
      ...config,
    });
  });

  test.each<[Env, string]>([
    [{ SOURCE_DATE_EPOCH: "yesterday" }, 'Cannot use SOURCE_DATE_EPOCH="yesterday": wanted whole seconds since 1970'],
    [{ KO_DATA_DATE_EPOCH: "1.5" }, 'Cannot use KO_DATA_DATE_EPOCH="1.5"'],
    [{ SOURCE_DATE_EPOCH: "-1" }, 'Cannot use SOURCE_DATE_EPOCH="-1"'],
    [{ SOURCE_DATE_EPOCH: "253402300800" }, 'Cannot use SOURCE_DATE_EPOCH="253402300800"'],
    [{ KO_BASEIMAGEOVERRIDES: "a=b" }, "Cannot use KO_BASEIMAGEOVERRIDES: it is not JSON, wanted a JSON object"],
    [{ KO_BASEIMAGEOVERRIDES: "[]" }, "Cannot use KO_BASEIMAGEOVERRIDES: it is not a JSON object"],
    [{ KO_BASEIMAGEOVERRIDES: '{"a": 1}' }, 'Cannot use KO_BASEIMAGEOVERRIDES: the value of "a" is not a string'],
    [
      { KO_BASEIMAGEOVERRIDES: '{"a": "B/C"}' },
      'Cannot use KO_BASEIMAGEOVERRIDES: baseImageOverrides["a"] is not an image',
    ],
    [{ KO_DEFAULTBASEIMAGE: "x y" }, "Cannot use KO_DEFAULTBASEIMAGE: defaultBaseImage is not an image name"],
    [{ KO_DEFAULTPLATFORMS: "all,linux" }, 'Cannot use KO_DEFAULTPLATFORMS: defaultPlatforms "all,linux"'],
    [{ KO_BUILDS: "[]" }, "Cannot use KO_BUILDS: builds can be set in .ko.yaml only\n  Type: unset KO_BUILDS"],
    [{ KO_DEFAULTENV: "A=1 TOKEN" }, 'Cannot use KO_DEFAULTENV: there is no "=", wanted NAME=VALUE'],
  ])("refuses %j", async (env, message) => {
    expect(await load({}, env)).toContain(`Error: ${message}`);
  });

  test("gives a value that cannot be changed", async () => {
    expect(Object.isFrozen(await loadConfig({ env: {}, cwd: "/" }))).toBe(true);
  });
});

describe("the origins of settings", () => {
  test("are places in the file, or variables", async () => {
    using tree = writeTree({
      ".ko.yaml": "defaultBaseImage: alpine\nbaseImageOverrides:\n  a.io/A: scratch\ndefaultPlatforms: all\n",
    });
    const config = await loadConfig({ env: {}, cwd: tree.path });
    expect(config.origins).toEqual({
      defaultBaseImage: ".ko.yaml:1:19",
      baseImageOverrides: new Map([["a.io/a", ".ko.yaml:3:11"]]),
      defaultPlatforms: ".ko.yaml:4:1",
    });
    expect(["ko://a.io/A", "a.io/b"].map((path) => originOfBase(config, path))).toEqual([
      ".ko.yaml:3:11",
      ".ko.yaml:1:19",
    ]);
    const env = {
      KO_DEFAULTBASEIMAGE: "x",
      KO_BASEIMAGEOVERRIDES: '{"a.io/a": "y"}',
      KO_DEFAULTPLATFORMS: "linux",
    };
    expect((await loadConfig({ env, cwd: tree.path })).origins).toEqual({
      defaultBaseImage: "KO_DEFAULTBASEIMAGE",
      baseImageOverrides: new Map([["a.io/a", "KO_BASEIMAGEOVERRIDES"]]),
      defaultPlatforms: "KO_DEFAULTPLATFORMS",
    });
  });
});

describe("baseFor()", () => {
  const origins = { defaultBaseImage: undefined, baseImageOverrides: new Map(), defaultPlatforms: undefined };
  const config: Config = { ...DEFAULTS, origins, baseImageOverrides: new Map([["github.com/foo/cmd", "alpine"]]) };

  test.each([
    ["github.com/foo/cmd", "alpine"],
    ["github.com/Foo/CMD", "alpine"],
    ["ko://github.com/Foo/cmd", "alpine"],
    ["github.com/foo/cmd/x", DEFAULTS.defaultBaseImage],
    ["github.com/foo", DEFAULTS.defaultBaseImage],
  ])("of %s is %s", (importPath, base) => {
    expect(baseFor(config, importPath)).toBe(base);
  });
});

describe("parseBase()", () => {
  const registry = (host: string, path: string, tag: string | undefined): BaseName => {
    return { kind: "registry", reference: { host, path, tag, digest: undefined } };
  };

  test.each<[string, BaseName]>([
    ["scratch", { kind: "scratch" }],
    ["ko.builtin/static", { kind: "builtin" }],
    ["alpine", registry("index.docker.io", "library/alpine", "latest")],
    ["localhost:5000/a/b:v1", registry("localhost:5000", "a/b", "v1")],
    ["scratch:v1", registry("index.docker.io", "library/scratch", "v1")],
    ["ko.local/a", registry("ko.local", "a", "latest")],
    ["oci:dir", { kind: "layout", path: "/work/dir", tag: undefined }],
    ["oci:./a/dir:v1.2", { kind: "layout", path: "/work/a/dir", tag: "v1.2" }],
    ["oci:/abs/dir", { kind: "layout", path: "/abs/dir", tag: undefined }],
    ["oci:/dir:host:5000/x:v1", { kind: "layout", path: "/dir", tag: "host:5000/x:v1" }],
    ["oci:..", { kind: "layout", path: "/", tag: undefined }],
  ])("reads %s", (text, base) => {
    expect(parseBase(text, "/work")).toEqual(base);
  });

  test.each([
    "",
    " ",
    "oci:",
    "oci:dir:",
    "oci::tag",
    "ko.builtin",
    "ko.builtin/other",
    "ko.builtin/static:v1",
    "a b",
    "Upper/Case",
    "a@sha256:1",
  ])("refuses %j", (text) => {
    expect(() => parseBase(text, "/work")).toThrow(KoError);
  });
});
