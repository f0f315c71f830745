import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { type Pin, pinText, writePins } from "../lib/config-pins.ts";
import { KoError } from "../lib/errors.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { writeTree } from "./helpers/world-folders.ts";

const FROM = "r.example/base:v1";
const TO = `r.example/base:v1@sha256:${"a".repeat(64)}`;

/** A pin of the value at a line and a column. */
function at(line: number, column: number, from: string = FROM): Pin {
  return { where: `.ko.yaml:${line}:${column}`, from, to: TO };
}

const ADDED: Pin = { where: undefined, from: FROM, to: TO };

describe("pinText()", () => {
  test.each<[what: string, before: string, pins: readonly Pin[], after: string]>([
    ["a plain value", `defaultBaseImage: ${FROM}\n`, [at(1, 19)], `defaultBaseImage: ${TO}\n`],
    [
      "comments, odd blanks and the order of keys",
      `# top\n\nx-a:   1   # one\ndefaultBaseImage:   ${FROM}   # why\n\n# end\nbuilds:  [ ]`,
      [at(4, 21)],
      `# top\n\nx-a:   1   # one\ndefaultBaseImage:   ${TO}   # why\n\n# end\nbuilds:  [ ]`,
    ],
    ["single quotes", `defaultBaseImage: '${FROM}'\n`, [at(1, 19)], `defaultBaseImage: '${TO}'\n`],
    ["JSON", `{"defaultBaseImage": "${FROM}", "x-a": [1]}`, [at(1, 22)], `{"defaultBaseImage": "${TO}", "x-a": [1]}`],
    ["a flow map", `{defaultBaseImage: ${FROM}, x-a: 1}\n`, [at(1, 20)], `{defaultBaseImage: ${TO}, x-a: 1}\n`],
    ["a block scalar", `defaultBaseImage: >-\n  ${FROM}\nx-a: 1\n`, [at(1, 19)], `defaultBaseImage: ${TO}\nx-a: 1\n`],
    ["a byte order mark", `\uFEFFdefaultBaseImage: ${FROM}\n`, [at(1, 19)], `\uFEFFdefaultBaseImage: ${TO}\n`],
    [
      "line ends of Windows",
      `x-a: 1\r\ndefaultBaseImage: ${FROM}\r\n`,
      [at(2, 19)],
      `x-a: 1\r\ndefaultBaseImage: ${TO}\r\n`,
    ],
    [
      "another digest",
      `defaultBaseImage: r.example/base:v1@sha256:b\n`,
      [at(1, 19, "r.example/base:v1@sha256:b")],
      `defaultBaseImage: ${TO}\n`,
    ],
    [
      "several values",
      `defaultBaseImage: ${FROM}\nbaseImageOverrides:\n  example.com/a: ${FROM}\n  example.com/b: "${FROM}"\n`,
      [at(1, 19), at(3, 18), at(4, 18)],
      `defaultBaseImage: ${TO}\nbaseImageOverrides:\n  example.com/a: ${TO}\n  example.com/b: "${TO}"\n`,
    ],
    [
      "an anchor, and an alias that follows it",
      `defaultBaseImage: &base ${FROM}\nbaseImageOverrides: {example.com/a: *base}\n`,
      [at(1, 25), at(2, 37)],
      `defaultBaseImage: &base ${TO}\nbaseImageOverrides: {example.com/a: *base}\n`,
    ],
    [
      "an alias of a value that is not a base",
      `x-base: &base ${FROM}\ndefaultBaseImage: *base\n`,
      [at(2, 19)],
      `x-base: &base ${FROM}\ndefaultBaseImage: ${TO}\n`,
    ],
    ["no file yet", "", [ADDED], `defaultBaseImage: ${TO}\n`],
    ["comments alone", "# nothing yet\n", [ADDED], `# nothing yet\ndefaultBaseImage: ${TO}\n`],
    [
      "a file without the key",
      "# top\nbuilds: []\n# end\n",
      [ADDED],
      `# top\nbuilds: []\ndefaultBaseImage: ${TO}\n# end\n`,
    ],
    ["no line end at the end", "builds:\n- id: a # b", [ADDED], `builds:\n- id: a # b\ndefaultBaseImage: ${TO}\n`],
    ["the end of a document", "builds: []\n---\n", [ADDED], `builds: []\ndefaultBaseImage: ${TO}\n---\n`],
    [
      "a comment behind the last value",
      "builds: [] # none\n\n# end\n",
      [ADDED],
      `builds: [] # none\ndefaultBaseImage: ${TO}\n\n# end\n`,
    ],
    ["JSON without the key", '{\n  "builds": []\n}\n', [ADDED], `{"defaultBaseImage": "${TO}", \n  "builds": []\n}\n`],
    ["an empty flow map", "{}\n", [ADDED], `{"defaultBaseImage": "${TO}"}\n`],
  ])("keeps everything else: %s", async (_what, before, pins, after) => {
    expect(await pinText(before, pins)).toBe(after);
  });

  test.each<[what: string, before: string, pins: readonly Pin[]]>([
    ["the value is not at its place any more", `\ndefaultBaseImage: ${FROM}\n`, [at(1, 19)]],
    ["the key would be set twice", `builds: []\n...\n---\nx-a: 1\n`, [at(9, 9)]],
    [
      "another value hangs on the anchor",
      `defaultBaseImage: &b ${FROM}\nx-a: {a: *b, b: [*b, x]}\nx-c: !!int *b\n`,
      [at(1, 22)],
    ],
    ["the file is a list", "- a\n", [ADDED]],
  ])("changes nothing if %s", async (_what, before, pins) => {
    expect(await pinText(before, pins)).toBeUndefined();
  });
});

describe("writePins()", () => {
  test("keeps the mode of the file and a symlink to it", async () => {
    using tree = writeTree({ "real.yaml": `defaultBaseImage: ${FROM}\n` });
    chmodSync(tree.at("real.yaml"), 0o600);
    symlinkSync("real.yaml", tree.at(".ko.yaml"));
    await writePins(tree.at(".ko.yaml"), [at(1, 19)]);
    expect(readFileSync(tree.at("real.yaml"), "utf8")).toBe(`defaultBaseImage: ${TO}\n`);
    expect(statSync(tree.at("real.yaml")).mode & 0o777).toBe(0o600);
  });

  test("makes a file that does not exist", async () => {
    using tree = writeTree({});
    await writePins(tree.at(".ko.yaml"), [ADDED]);
    expect(readFileSync(tree.at(".ko.yaml"), "utf8")).toBe(`defaultBaseImage: ${TO}\n`);
  });

  test("refuses with the lines to write by hand, and leaves no file behind", async () => {
    using tree = writeTree({});
    const error = await rejectionOf(writePins(tree.at(".ko.yaml"), [at(1, 19)]));
    expect(error).toBeInstanceOf(KoError);
    expect(error).toMatchObject({ hint: `Write them by hand: ${TO} for ${FROM} at .ko.yaml:1:19` });
    expect(existsSync(tree.at(".ko.yaml"))).toBe(false);
  });
});
