import { describe, expect, test } from "bun:test";
import { type ConfigEntry, ConfigValue } from "../lib/config-file.ts";
import { checkKeys, KeyNotes } from "../lib/config-keys.ts";
import { describeError } from "../lib/errors.ts";

const TOP = ["defaultBaseImage", "defaultEnv", "defaultFlags", "defaultLdflags", "builds"] as const;
const ENTRY = ["id", "dir", "main", "env", "flags", "ldflags", "linux_capabilities"] as const;

const entriesOf = (...keys: readonly string[]): readonly ConfigEntry[] =>
  keys.map((key, i) => ({ key, where: `f:${i + 1}:1`, value: ConfigValue.nothing }));

/** The known keys that were found, warnings, and the text of all mistakes. */
async function check(section: "ko" | "builds", keys: readonly string[]) {
  const notes = new KeyNotes();
  const found = checkKeys<string>(entriesOf(...keys), { known: section === "ko" ? TOP : ENTRY, section, notes });
  const mistakes = await Promise.resolve()
    .then(() => notes.throwMistakes())
    .then(() => "", describeError);
  return { found: [...found.keys()], warnings: notes.warnings, mistakes };
}

describe("checkKeys()", () => {
  test.each<["ko" | "builds", string, string]>([
    ["ko", "defaultBaseImage", "defaultBaseImage"],
    ["ko", "DEFAULTBASEIMAGE", "defaultBaseImage"],
    ["ko", "Builds", "builds"],
    ["builds", "LINUX_Capabilities", "linux_capabilities"],
    ["builds", "Main", "main"],
  ])("of %s: takes %s for %s", async (section, key, name) => {
    expect(await check(section, [key])).toEqual({ found: [name], warnings: [], mistakes: "" });
  });

  test.each<["ko" | "builds", string, string, string]>([
    ["ko", "build", "a setting of ko", "builds"],
    ["ko", "default_env", "a setting of ko", "defaultEnv"],
    ["ko", "default-ldflags", "a setting of ko", "defaultLdflags"],
    ["ko", "defaultFlag", "a setting of ko", "defaultFlags"],
    ["ko", "defaultBaseimages", "a setting of ko", "defaultBaseImage"],
    ["ko", "defualtEnv", "a setting of ko", "defaultEnv"],
    ["builds", "linuxCapabilities", "a key of builds", "linux_capabilities"],
    ["builds", "linux-capabilites", "a key of builds", "linux_capabilities"],
    ["builds", "flag", "a key of builds", "flags"],
    ["builds", "ldflgas", "a key of builds", "ldflags"],
    ["builds", "dirs", "a key of builds", "dir"],
  ])("of %s: %s is a slip, an error with the right name", async (section, key, what, nearest) => {
    expect(await check(section, [key])).toEqual({
      found: [],
      warnings: [],
      mistakes: `Error: Cannot use f:1:1: "${key}" is not ${what}, the nearest is "${nearest}"`,
    });
  });

  test.each<["ko" | "builds", string, string]>([
    ["ko", "ports", "it is not a setting of ko; use ports of image"],
    ["ko", "platforms", "it is not a setting of ko; use defaultPlatforms"],
    ["ko", "Ldflags", "it is not a setting of ko; use defaultLdflags, or ldflags of an entry of builds"],
    ["ko", "labels", "it is not a setting of ko; use labels of image"],
    ["builds", "gcflags", "it is not a key of builds; use a word -gcflags=… of flags"],
    ["builds", "GOOS", "it is not a key of builds"],
    ["builds", "outputImage", "it is not a key of builds"],
  ])("of %s: %s is a warning", async (section, key, why) => {
    const warnings = [`f:1:1: "${key}" has no effect, ${why}`];
    expect(await check(section, [key])).toEqual({ found: [], warnings, mistakes: "" });
  });

  test("leaves keys that begin with x- alone", async () => {
    expect(await check("ko", ["x-flags", "X-Build"])).toEqual({ found: [], warnings: [], mistakes: "" });
  });

  test("collects all mistakes: each second spelling of a key with both places", async () => {
    const { found, mistakes } = await check("builds", ["main", "flgas", "Main", "MAIN"]);
    expect(found).toEqual(["main"]);
    expect(mistakes.split("\n")).toEqual([
      'Error: Cannot use f:2:1: "flgas" is not a key of builds, the nearest is "flags"',
      'Error: Cannot read f:3:1: "main" is already set at f:1:1',
      'Error: Cannot read f:4:1: "main" is already set at f:3:1',
    ]);
  });
});

describe("KeyNotes", () => {
  test("passes on failures that are not mistakes of the user", () => {
    const work = (): void => {
      throw new RangeError("broken");
    };
    expect(() => new KeyNotes().collect(work)).toThrow(RangeError);
  });
});
