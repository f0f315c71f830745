/**
 * The order of steps of the building commands: flags are checked before ko reads an input, looks for a program, or asks a
 * registry.
 */
import { describe, expect, test } from "bun:test";
import type { Host } from "../lib/host.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { runKoHere } from "./helpers/world-host.ts";
import type { Result } from "./helpers/world-programs.ts";

const PLAIN = "a: b # no reference\n";
/** The warning about it. */
const NOTHING = "Warning: no ko:// reference in <stdin>: nothing is built\n";

/** Each building command with all the words that it needs; none of the YAML has a reference. */
const COMMANDS: readonly (readonly [string, ...string[]])[] = [
  ["build", "./cmd/app"],
  ["resolve", "-f", "-"],
  ["apply", "-f", "-"],
  ["create", "-f", "-"],
  ["run", "./cmd/app"],
];

const BAD_FLAGS: readonly (readonly [flag: string, message: string])[] = [
  ["--compression=bogus", 'Cannot use --compression="bogus": wanted gzip, gzip:1 to gzip:9, zstd or none'],
  ["--compression=gzip:0", 'Cannot use --compression="gzip:0": the level is "0", wanted 1 (fast) to 9 (small)'],
  ["--tags=a b", 'Cannot use --tags="a b": '],
  ["--tag-only", 'Cannot use --tag-only: the tag is "latest", wanted one that stays with its image'],
  ["--platform=linux/", "Cannot use --platform"],
  ["--image-label=x", 'Cannot use --image-label="x": there is no "=", wanted KEY=VALUE'],
  ["--image-annotation==x", 'Cannot use --image-annotation="=x": the key is empty, wanted KEY=VALUE'],
  ["--timing=-", 'Cannot use --timing="-": stdout is for the results, a file is wanted'],
];

const ARCHIVES: readonly (readonly [flag: string, message: string])[] = [
  ["--tarball=-", "Cannot write an archive to stdout"],
  ["--oci-archive=-", "Cannot write an archive to stdout"],
];

const BAD_YAML_FLAGS: readonly (readonly [flag: string, message: string])[] = [
  ...ARCHIVES,
  ["--selector=a=b=c", 'Cannot read the selector "a=b=c" at character 4'],
];

/** Runs ko where nothing can be read, run or found, so that each attempt shows. */
async function run(
  args: readonly string[],
  changes: Partial<Host> = {},
): Promise<Result & { readonly used: string[] }> {
  using tree = writeTree({});
  const used: string[] = [];
  const use = (what: string): never => {
    used.push(what);
    throw new Error(`${what} must not be used`);
  };
  const host: Partial<Host> = {
    readStdin: async () => use("stdin"),
    run: async ([program]) => use(program),
    findProgram: (name) => use(name),
    ...changes,
  };
  const result = await runKoHere(args, { cwd: tree.path, env: { KOCACHE: "off" }, host });
  return { ...result, used };
}

describe.each(COMMANDS)("ko %s", (...words) => {
  const [command] = words;
  const isYaml = words.includes("-f");

  const more = isYaml ? BAD_YAML_FLAGS : command === "run" ? ARCHIVES : [];

  test.each([...BAD_FLAGS, ...more])("refuses %s before anything else", async (flag, message) => {
    const watching = command === "run" ? [] : [[...words, "-W", flag]];
    for (const args of [[...words, flag], ...watching]) {
      expect(await run(args)).toEqual({ code: 2, stdout: "", stderr: expect.stringContaining(message), used: [] });
    }
  });
});

describe("ko resolve", () => {
  const stdin: Partial<Host> = { readStdin: async () => new TextEncoder().encode(PLAIN) };

  test("needs no destination for YAML without a reference", async () => {
    expect(await run(["resolve", "-f", "-"], stdin)).toEqual({ code: 0, stdout: PLAIN, stderr: NOTHING, used: [] });
  });

  test.each<[string, readonly string[]]>([
    ["before the command", ["", "resolve", "-f", "-"]],
    ["between flags", ["resolve", "", "-f", "-", ""]],
    ["behind --", ["resolve", "-f", "-", "--", ""]],
    ["as values", ["resolve", "-f", "", "-k", "", "-l", "", "--platform", "", "-f", "-"]],
    ["as items", ["resolve", "-f", ",-,", "--tags=,", "--image-label=,,"]],
  ])("takes empty words for nothing: %s", async (_where, args) => {
    expect(await run(args, stdin)).toEqual({ code: 0, stdout: PLAIN, stderr: NOTHING, used: [] });
  });

  test("takes an empty -f alone for none", async () => {
    expect(await run(["resolve", "-f", ""])).toMatchObject({ code: 2, stderr: expect.stringContaining("neither -f") });
  });

  test.each<[readonly string[], string]>([
    [["apply", "-f", "-", "-l", "app=nothing"], "No object in - has the labels app=nothing"],
    [["create", "-f", "-", "-l", "app"], "No object in - has the labels app"],
  ])("%j: says that no object is selected, and runs no kubectl", async (args, message) => {
    const text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
    const host = { readStdin: async () => new TextEncoder().encode(text), findProgram: () => "/bin/kubectl" };
    const stderr = expect.stringMatching(
      new RegExp(`^Warning: no ko:// reference.*\nError: ${RegExp.escape(message)}\n$`),
    );
    expect(await run(args, host)).toEqual({ code: 1, stdout: "", stderr, used: [] });
  });

  test.each(["config/", "web.yaml", "web.json"])("delete %s: says how a file is named", async (name) => {
    expect(await run(["delete", name])).toEqual({
      ...{ code: 2, stdout: "", used: [] },
      stderr: `Error: Cannot delete "${name}": that is not the name of an object\n  If it names YAML: ko delete -f ${name}\n`,
    });
  });

  test("wants a destination for a reference", async () => {
    const text = "a: ko://example.com/app\n";
    const more = { readStdin: async () => new TextEncoder().encode(text) };
    expect(await run(["resolve", "-f", "-"], more)).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringContaining("Cannot publish: KO_DOCKER_REPO is not set"),
    });
  });
});
