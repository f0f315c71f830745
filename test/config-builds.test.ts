import { describe, expect, test } from "bun:test";
import { type BuildEntry, splitWords } from "../lib/config-builds.ts";
import type { Word } from "../lib/config-file.ts";
import { type Config, loadConfig } from "../lib/config.ts";
import { describeError, KoError } from "../lib/errors.ts";
import { writeTree } from "./helpers/world-folders.ts";

type Env = Readonly<Record<string, string>>;

async function load(text: string, env: Env = {}): Promise<Config> {
  using tree = writeTree({ ".ko.yaml": text });
  return await loadConfig({ env, cwd: tree.path });
}

async function failure(text: string, env: Env = {}): Promise<string> {
  try {
    await load(text, env);
    return "no error";
  } catch (error) {
    if (!(error instanceof KoError)) throw error;
    return describeError(error);
  }
}

/** Words by text; undefined where the default counts. */
function texts(words: readonly Word[] | undefined): readonly string[] | undefined {
  return words?.map(({ value }) => value);
}

async function entryOf(text: string): Promise<BuildEntry> {
  const [entry] = (await load(text)).builds;
  if (entry === undefined) throw new Error("no entry");
  return entry;
}

const word = (value: string): Word => ({ value, where: "here", setting: "flags" });

describe("builds:", () => {
  test("keeps the place of every value", async () => {
    const { builds } = await load(
      "builds:\n- id: web\n  dir: ./web\n  main: main.go\n  env: [A=1, B=2]\n  flags:\n  - -tags\n  - 'x'\n  ldflags: -s -w\n- {}\n",
    );
    expect(builds.map(({ name, where }) => [name, where])).toEqual([
      ['builds[0] ("web")', ".ko.yaml:2:3"],
      ["builds[1]", ".ko.yaml:10:3"],
    ]);
    const [first] = builds;
    const shown = [first?.dir, first?.main, ...(first?.env ?? []), ...(first?.flags ?? []), ...(first?.ldflags ?? [])];
    expect(shown.map((each) => `${each?.where} ${each?.setting}: ${each?.value}`)).toEqual([
      ".ko.yaml:3:8 dir of builds[0]: ./web",
      ".ko.yaml:4:9 main of builds[0]: main.go",
      ".ko.yaml:5:9 env of builds[0]: A=1",
      ".ko.yaml:5:14 env of builds[0]: B=2",
      ".ko.yaml:7:5 flags of builds[0]: -tags",
      ".ko.yaml:8:5 flags of builds[0]: x",
      ".ko.yaml:9:12 ldflags of builds[0]: -s -w",
    ]);
  });

  test.each<[string, string, { env?: string[]; flags?: string[]; ldflags?: string[] }]>([
    [
      "lists as they stand",
      "flags: ['-c d', -e]\nldflags: [-s, -w]\nenv: ['A=b c']",
      { flags: ["-c d", "-e"], ldflags: ["-s", "-w"], env: ["A=b c"] },
    ],
    [
      "a string of flags, split at white space",
      'flags: "-c \'d e\' \\"f g\\""',
      { flags: ["-c", "'d", "e'", '"f', 'g"'] },
    ],
    [
      "tabs, NBSP and U+3000 as white space",
      'flags: "-a\\t-b\\u00a0-c\\u3000-d\\u0085-e"',
      { flags: ["-a", "-b", "-c", "-d", "-e"] },
    ],
    [
      "a template in a string of flags as one word",
      "flags: -tags {{ .Env.A }} -v",
      { flags: ["-tags", "{{ .Env.A }}", "-v"] },
    ],
    [
      "a string of ldflags as one text",
      "ldflags: -s -w  -X a.b={{ .Env.X }}",
      { ldflags: ["-s -w  -X a.b={{ .Env.X }}"] },
    ],
    ["a literal block of ldflags", "ldflags: |\n  -s\n  -w\n", { ldflags: ["-s\n-w\n"] }],
    ["a folded block of ldflags", "ldflags:\n- >-\n  -s\n  -w\n", { ldflags: ["-s -w"] }],
    ["a string of env as one variable", "env: A=1 B=2", { env: ["A=1 B=2"] }],
    ["an empty value and an empty name", "env: [A=, =A]", { env: ["A=", "=A"] }],
    ["numbers as words", "flags: [-p, 4, 0x10, 1.5, -3]", { flags: ["-p", "4", "16", "1.5", "-3"] }],
    ["an empty list as the default", "flags: []\nldflags: []\nenv: []", {}],
    ["nothing as the default", "flags:\nldflags: ~\nenv: null\nid:\ndir:\nmain:", {}],
    ["an empty string of flags as the default", "flags: ''", {}],
    ["an empty text of ldflags as one empty text", "ldflags: ''", { ldflags: [""] }],
    ["a list of one empty text", "ldflags: ['']\nflags: ['']", { ldflags: [""], flags: [] }],
    ["empty words of flags not at all", "flags: [-v, '', -x]", { flags: ["-v", "-x"] }],
    ["keys in any case", "Flags: [-v]\nLDFLAGS: [-s]\nEnv: [A=1]", { flags: ["-v"], ldflags: ["-s"], env: ["A=1"] }],
  ])("reads %s", async (_, text, want) => {
    const entry = await entryOf(`builds:\n- ${text.replaceAll("\n", "\n  ")}\n`);
    const { env, flags, ldflags } = entry;
    expect({ env: texts(env), flags: texts(flags), ldflags: texts(ldflags) }).toEqual({
      env: undefined,
      flags: undefined,
      ldflags: undefined,
      ...want,
    });
  });

  test.each([
    ["nothing", "builds:", 0],
    ["an empty list", "builds: []", 0],
    ["one map", "builds: {main: ./cmd/web}", 1],
    ["a list", "builds:\n- main: a\n- main: b\n", 2],
    ["a list in JSON's form", '{"builds": [{"main": "a"}]}', 1],
  ])("takes %s", async (_, text, count) => {
    expect((await load(text)).builds).toHaveLength(count);
  });

  test("merges anchors into items", async () => {
    const { builds } = await load(
      `
builds:
- &base
  id: one
  main: ./cmd/one
  env: [A=1]
  flags: [-v]
- <<: *base
  main: ./cmd/two
- <<: [{flags: [-x]}, *base]
  ID: three
  main: ./cmd/three
x-words: &words [-s, -w]
defaultLdflags: *words
`.replace("  ID: three", "  id: three"),
    );
    expect(builds.map((each) => [each.name, each.main?.value, texts(each.env), texts(each.flags)])).toEqual([
      ['builds[0] ("one")', "./cmd/one", ["A=1"], ["-v"]],
      ['builds[1] ("one")', "./cmd/two", ["A=1"], ["-v"]],
      ['builds[2] ("three")', "./cmd/three", ["A=1"], ["-x"]],
    ]);
  });

  test("warns of keys that mean something elsewhere, all in one go", async () => {
    const keys =
      "goos: [linux]\n  binary: x\n  gcflags: [-N]\n  asmflags: x\n  tags: [a]\n  hooks: {pre: x}\n  mod_timestamp: x\n  outputImage: x\n  baseImage: y\n  sbom: z\n  x-mine: 1";
    const { warnings } = await load(`builds:\n- ${keys}\nports: [1]\n`);
    expect(warnings).toEqual([
      '.ko.yaml:13:1: "ports" has no effect, it is not a setting of ko; use ports of image',
      '.ko.yaml:2:3: "goos" has no effect, it is not a key of builds',
      '.ko.yaml:4:3: "gcflags" has no effect, it is not a key of builds; use a word -gcflags=… of flags',
      '.ko.yaml:5:3: "asmflags" has no effect, it is not a key of builds',
      '.ko.yaml:6:3: "tags" has no effect, it is not a key of builds; use a word -tags=… of flags',
      '.ko.yaml:7:3: "hooks" has no effect, it is not a key of builds',
      '.ko.yaml:8:3: "mod_timestamp" has no effect, it is not a key of builds',
      '.ko.yaml:9:3: "outputImage" has no effect, it is not a key of builds',
      '.ko.yaml:10:3: "baseImage" has no effect, it is not a key of builds; use baseImageOverrides',
      '.ko.yaml:11:3: "sbom" has no effect, it is not a key of builds',
      '.ko.yaml:3:11: binary "x" has no effect; it is the path of the program in the image, such as /ko-app/x',
    ]);
  });

  test.each<[string, string]>([
    ["builds: ''", "Cannot read .ko.yaml:1:9: builds[0] is a string, wanted a map"],
    ["builds: 5", ".ko.yaml:1:9: builds[0] is a number, wanted a map"],
    ["builds:\n- a\n", ".ko.yaml:2:3: builds[0] is a string, wanted a map"],
    ["builds:\n- main: a\n-\n", ": builds[1] is empty, wanted a map"],
    ["builds:\n- flags: {a: b}", ".ko.yaml:2:10: flags of builds[0] is a map, wanted a list of strings"],
    ["builds:\n- flags: [{a: b}]", ".ko.yaml:2:11: an item of flags of builds[0] is a map, wanted a string"],
    [
      "builds:\n- flags: [true]",
      ".ko.yaml:2:11: an item of flags of builds[0] is a boolean, wanted a string\n  Put it in quotes.",
    ],
    ["builds:\n- ldflags: [~]", ": an item of ldflags of builds[0] is empty, wanted a string"],
    ["builds:\n- env: {A: b}", ".ko.yaml:2:8: env of builds[0] is a map, wanted a list of strings"],
    ["builds:\n- env: ''", 'Cannot use env of builds[0] at .ko.yaml:2:8: there is no "=", wanted NAME=VALUE'],
    [
      "builds:\n- env:\n  - A=1\n  - s3cret",
      'Cannot use env of builds[0] at .ko.yaml:4:5: there is no "=", wanted NAME=VALUE',
    ],
    ["builds:\n- main: [a]", ".ko.yaml:2:9: main of builds[0] is a list, wanted a string"],
    ["builds:\n- dir: true", ".ko.yaml:2:8: dir of builds[0] is a boolean, wanted a string"],
    [
      "builds:\n- linuxCapabilities: []",
      '.ko.yaml:2:3: "linuxCapabilities" is not a key of builds, the nearest is "linux_capabilities"',
    ],
    ["builds:\n- ldflag: -s", '.ko.yaml:2:3: "ldflag" is not a key of builds, the nearest is "ldflags"'],
    ["builds:\n- flag: [-s]", 'the nearest is "flags"'],
    ["builds:\n- flgas: [-s]", 'the nearest is "flags"'],
    ["builds:\n- mian: a", 'the nearest is "main"'],
    ["builds:\n- envs: [A=b]", 'the nearest is "env"'],
    ["builds:\n- ld-flags: -s", 'the nearest is "ldflags"'],
    ["builds:\n- main: a\n  Main: b", '.ko.yaml:3:3: "main" is already set at .ko.yaml:2:3'],
    [
      "builds:\n- linux_capabilities: [bogus]",
      'Cannot use linux_capabilities of builds[0] at .ko.yaml:2:24: "bogus": "bogus" is no capability',
    ],
    [
      "builds:\n- flags: [true]\n  ldflag: -s\n- env: [A]\n",
      'Error: Cannot use .ko.yaml:3:3: "ldflag" is not a key of builds, the nearest is "ldflags"\n' +
        "Error: Cannot read .ko.yaml:2:11: an item of flags of builds[0] is a boolean, wanted a string\n  Put it in quotes.\n" +
        'Error: Cannot use env of builds[1] at .ko.yaml:4:9: there is no "=", wanted NAME=VALUE',
    ],
  ])("refuses %j", async (text, message) => {
    const said = await failure(text);
    expect(said).toContain(message);
    expect(said).not.toContain("s3cret");
  });
});

describe("defaultEnv, defaultFlags, defaultLdflags", () => {
  test.each<[string, Env, { env?: string[]; flags?: string[]; ldflags?: string[] }]>([
    [
      "defaultEnv: [A=1, 'B=2 3']\ndefaultFlags: ['-a b']\ndefaultLdflags: ['-s  -w']",
      {},
      { env: ["A=1", "B=2 3"], flags: ["-a b"], ldflags: ["-s  -w"] },
    ],
    [
      "defaultEnv: A=1 B=2\ndefaultFlags: -tags {{ .Env.A }}\ndefaultLdflags: 'a  b'",
      {},
      { env: ["A=1", "B=2"], flags: ["-tags", "{{ .Env.A }}"], ldflags: ["a", "b"] },
    ],
    ["defaultEnv:\ndefaultFlags: []\ndefaultLdflags: ''", {}, {}],
    ["defaultFlags: [-p, 4]", {}, { flags: ["-p", "4"] }],
    [
      "",
      { KO_DEFAULTENV: "A=1 B=2", KO_DEFAULTFLAGS: "-a,b -c", KO_DEFAULTLDFLAGS: " -s   -X a.b={{ .Env.V }}" },
      { env: ["A=1", "B=2"], flags: ["-a,b", "-c"], ldflags: ["-s", "-X", "a.b={{ .Env.V }}"] },
    ],
    [
      "defaultFlags: [-v]\ndefaultEnv: [A=1]",
      { KO_DEFAULTFLAGS: "-x", KO_DEFAULTENV: "" },
      { flags: ["-x"], env: ["A=1"] },
    ],
    [
      "defaultFlags: [-v]\ndefaultEnv: [A=1]\ndefaultLdflags: [-s]",
      { KO_DEFAULTFLAGS: " ", KO_DEFAULTENV: "\t", KO_DEFAULTLDFLAGS: " " },
      { flags: [], env: [], ldflags: [] },
    ],
    ["defaultFlags: [-v]", { KO_defaultFlags: "-x" }, { flags: ["-v"] }],
  ])("reads %j with %j", async (text, env, want) => {
    const { defaults } = await load(text, env);
    expect({ env: texts(defaults.env), flags: texts(defaults.flags), ldflags: texts(defaults.ldflags) }).toEqual({
      env: undefined,
      flags: undefined,
      ldflags: undefined,
      ...want,
    });
  });

  test.each<[string, string]>([
    ["defaultFlags: {a: b}", ".ko.yaml:1:15: defaultFlags is a map, wanted a list of strings"],
    ["defaultEnv: 5", ".ko.yaml:1:13: defaultEnv is a number, wanted a list of strings"],
    ["defaultEnv: [A]", 'Cannot use defaultEnv at .ko.yaml:1:14: there is no "="'],
    ["defaultEnv: A=1 B", 'Cannot use defaultEnv at .ko.yaml:1:17: there is no "="'],
    ["defaultLdflags: [yes, false]", ".ko.yaml:1:23: an item of defaultLdflags is a boolean"],
  ])("refuses %j", async (text, message) => {
    expect(await failure(text)).toContain(message);
  });
});

describe("marks", () => {
  test.each<[string, string, string]>([
    ["a plain scalar", "defaultLdflags: -X a={{.Env.B}}", "a={{.Env.B}} 1:20"],
    ["a quoted scalar", 'defaultLdflags: ["-X a={{.Env.B}}"]', "-X a={{.Env.B}} 1:19"],
    ["escapes", 'defaultLdflags: ["-X \\"a={{.Env.B}}\\""]', '-X "a={{.Env.B}}" 1:19 1:24'],
    ["a literal block", "defaultLdflags:\n- |\n  -X\n    a={{.Env.B}}\n  -s\n", "-X\n  a={{.Env.B}}\n-s\n 3:3 4:5 5:3"],
    ["a folded block", "defaultLdflags:\n- >\n  -X\n  a={{.Env.B}}\n", "-X a={{.Env.B}}\n 3:3 4:3"],
    ["a plain scalar of several lines", "defaultLdflags:\n- -X\n  a={{.Env.B}}\n", "-X a={{.Env.B}} 2:3 3:3"],
    ["an alias", "x-a: &a -X a={{.Env.B}}\ndefaultLdflags: [*a]\n", "-X a={{.Env.B}} 1:9"],
  ])("find %s", async (_, text, want) => {
    const found = (await load(text)).defaults.ldflags?.at(-1);
    expect(`${found?.value} ${found?.marks?.map(([, line, column]) => `${line}:${column}`).join(" ")}`).toBe(want);
  });
});

describe("splitWords()", () => {
  test.each<[string, readonly string[]]>([
    ["", []],
    ["  \n", []],
    [" a  b ", ["a", "b"]],
    ["a={{ b c }}d e", ["a={{ b c }}d", "e"]],
    ['{{ "}} x" }} y', ['{{ "}} x" }}', "y"]],
    ["{{/* }} x */}} y", ["{{/* }} x */}}", "y"]],
    ["{{ `}} x` }}{{ '}' }} y", ["{{ `}} x` }}{{ '}' }}", "y"]],
    ["a {{ b c", ["a", "{{ b c"]],
    ["\ufeffa b", ["\ufeffa", "b"]],
  ])("splits %j", (text, want) => {
    expect(splitWords(word(text)).map(({ value }) => value)).toEqual([...want]);
  });
});
