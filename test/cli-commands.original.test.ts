/** The help of each command of the original: ours has every flag of it, with the same letter and a value where it has one. */
import { describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { runKoHere } from "./helpers/world-host.ts";
import { output } from "./helpers/world-programs.ts";

const programs = findCounterparts(["ko"]);

const COMMANDS = [
  ...["build", "publish", "resolve", "apply", "create", "delete", "run", "login", "version", "completion", "help"],
  ...["auth", "auth get", "auth login", "auth logout", "auth token"],
];

/** Flags by long name: the letter, and whether a value follows. */
function readFlags(help: string): Readonly<Record<string, string>> {
  const lines = help.matchAll(/^(?: {2}-(\w), | {6})--([\w-]+)(?: (\S+))?/gm);
  return Object.fromEntries(
    Array.from(lines, ([, short = "", name = "", value = ""]) => {
      // The columns of a flag without a value are two or more blanks apart.
      return [name, `${short} ${/^(?:strings|string|int|[A-Z[][A-Z:[\]=|]*)$/.test(value) ? "VALUE" : ""}`.trim()];
    }),
  );
}

describe("readFlags()", () => {
  test("reads both forms of help", () => {
    const original = "  -B, --base-import-paths   Whether\n      --bare      KO\n  -j, --jobs int   The\n";
    const ours =
      "  -B, --base-import-paths\n      --bare  Name\n  -j, --jobs N    Maximum\n      --timing[=FILE]  Print\n";
    const flags = { "base-import-paths": "B", bare: "", jobs: "j VALUE" };
    expect([readFlags(original), readFlags(ours)]).toEqual([flags, { ...flags, timing: "" }]);
  });
});

describe.skipIf(programs === undefined)("the help of the original", () => {
  test.each(COMMANDS)("ko %s -h: ours has each of its flags", async (command) => {
    const words = [...command.split(" "), "-h"];
    const theirs = readFlags(await output([programs?.ko ?? "", ...words], { cwd: "/", env: process.env }));
    expect(theirs).toMatchObject({ help: "h", verbose: "v" });
    const { code, stdout } = await runKoHere(words, { cwd: "/", env: {} });
    const ours = readFlags(stdout);
    expect([code, Object.fromEntries(Object.keys(theirs).map((name) => [name, ours[name]]))]).toEqual([0, theirs]);
  });

  test("ko -h: ours has each of its commands", async () => {
    const help = await output([programs?.ko ?? "", "-h"], { cwd: "/", env: process.env });
    const names = Array.from(help.matchAll(/^ {2}([a-z]+) {2,}/gm), ([, name = ""]) => name);
    expect(names).toContain("login");
    const { stdout } = await runKoHere(["-h"], { cwd: "/", env: {} });
    expect(names.filter((name) => !new RegExp(`^  ${name}[ ,]`, "m").test(stdout))).toEqual([]);
  });
});
