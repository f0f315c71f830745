import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, symlinkSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { parse } from "yaml";
import { loadConfig } from "../lib/config.ts";
import { formatConfig } from "../lib/settings-init.ts";
import { formatSchema } from "../lib/settings-schema.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { runKoHere } from "./helpers/world-host.ts";

const FILES = {
  "go.mod": goMod("example.com/app"),
  "main.go": mainGo("root"),
  "cmd/web/main.go": mainGo("web"),
  "tools/web/main.go": mainGo("another web"),
  "cmd/true/main.go": mainGo("true"),
  "lib/lib.go": "package lib\n",
};

const NO_FILE = { KO_CONFIG_PATH: "" };

function open(files: Record<string, string> = {}): Bench {
  return makeBench({ ...FILES, ...files }, { host: "127.0.0.1:1" });
}

/** Runs `ko init` with a terminal, on which a person types an answer. */
function answer(bench: Bench, line: string | undefined): ReturnType<typeof runKoHere> {
  const host = { stdinIsTerminal: true, stderrIsTerminal: true, readLine: () => Promise.resolve(line) };
  return runKoHere(["init"], { cwd: bench.tree.path, env: { ...bench.env, ...NO_FILE }, host });
}

describe("ko init", () => {
  test("writes a file that loads, has the schema, and changes no byte of an image", async () => {
    using bench = open();
    const env = { ...NO_FILE, KOCACHE: "off", KO_DEFAULTBASEIMAGE: "ko.builtin/static" };
    const build = ["build", "-q", "--push=false", "-P", "./..."];
    const before = await bench.ours(build, { env });
    const { code, stdout, stderr } = await bench.ours(["init", "--yes"], { env: NO_FILE });
    expect([code, stdout, stderr]).toEqual([0, "", "Wrote .ko.yaml and .ko.schema.json\n"]);
    const after = await bench.ours(build, { env });
    expect([after.code, after.stdout, after.stderr]).toEqual([0, before.stdout, before.stderr]);
    expect(before.stdout.split("\n")).toHaveLength(5);
    const text = readFileSync(bench.tree.at(".ko.yaml"), "utf8");
    expect(text).toStartWith("# yaml-language-server: $schema=.ko.schema.json\n");
    const schema = readFileSync(bench.tree.at(".ko.schema.json"), "utf8");
    expect(schema).toBe(formatSchema());
    const fits = new Ajv2020({ strict: false }).compile(JSON.parse(schema));
    expect([fits(parse(text)), fits.errors]).toEqual([true, null]);
    const { builds, warnings } = await loadConfig({ env: {}, cwd: bench.tree.path });
    expect([builds.map(({ name }) => name), warnings]).toEqual([
      ['builds[0] ("app")', 'builds[1] ("true")', 'builds[2] ("cmd/web")', 'builds[3] ("tools/web")'],
      [],
    ]);
  });

  test("writes a file whose comments are valid settings", async () => {
    using bench = open();
    await bench.ours(["init", "-y"], { env: NO_FILE });
    const text = readFileSync(bench.tree.at(".ko.yaml"), "utf8");
    const settings = text.replace(/^( *)# (?=\w+: |baseImage| +example)/gm, "$1");
    bench.tree.write({ ".ko.yaml": settings });
    const { baseImageOverrides, builds, defaultPlatforms } = await loadConfig({ env: {}, cwd: bench.tree.path });
    expect([baseImageOverrides.size, defaultPlatforms.length, builds[0]?.ldflags?.length]).toEqual([1, 2, 3]);
  });

  test.each<[string | undefined, boolean]>([
    ["", true],
    ["y", true],
    ["Yes ", true],
    ["n", false],
    ["what?", false],
    [undefined, false],
  ])("asks on a terminal: %j writes: %p", async (line, isWritten) => {
    using bench = open();
    const { code, stderr } = await answer(bench, line);
    expect([code, existsSync(bench.tree.at(".ko.yaml")), existsSync(bench.tree.at(".ko.schema.json"))]).toEqual([
      0,
      isWritten,
      isWritten,
    ]);
    expect(stderr).toContain("main: ./cmd/web\n");
    expect(stderr).toContain("Write this to .ko.yaml, and its schema to .ko.schema.json? [Y/n]");
    expect(stderr).toEndWith(isWritten ? "Wrote .ko.yaml and .ko.schema.json\n" : "Nothing was written.\n");
  });

  test.each<[string, Record<string, string>, Record<string, string>, readonly string[], string]>([
    [
      "without a terminal",
      {},
      {},
      [],
      "Cannot ask whether to write .ko.yaml: there is no terminal\n  Type: ko init --yes",
    ],
    [
      "over a file",
      { ".ko.yaml": "# mine\n" },
      {},
      ["--yes"],
      "Cannot write .ko.yaml: .ko.yaml exists, and ko init overwrites nothing",
    ],
    [
      "beside another",
      { ".ko.yml": "# mine\n" },
      {},
      ["-y"],
      "Cannot write .ko.yaml: .ko.yml exists, and ko init overwrites nothing",
    ],
    [
      "that ko would not read",
      {},
      { KO_CONFIG_PATH: "x" },
      ["-y"],
      'ko reads KO_CONFIG_PATH="x" instead\n  Type: unset',
    ],
    ["with arguments", {}, {}, ["./cmd/web"], '"ko init" takes no arguments'],
    [
      "for a module without programs",
      {
        "main.go": "package lib\n",
        "cmd/web/main.go": "package lib\n",
        "tools/web/main.go": "package lib\n",
        "cmd/true/main.go": "package lib\n",
      },
      {},
      ["-y"],
      'Cannot build "./..."',
    ],
  ])("does not write %s", async (_, files, env, args, message) => {
    using bench = open(files);
    const { code, stderr } = await bench.ours(["init", ...args], { env: { ...NO_FILE, ...env } });
    expect(code).not.toBe(0);
    expect(stderr).toContain(message);
    expect(existsSync(bench.tree.at(".ko.schema.json"))).toBe(false);
    const text = files[".ko.yaml"];
    if (text !== undefined) expect(readFileSync(bench.tree.at(".ko.yaml"), "utf8")).toBe(text);
  });

  test("follows no link, and leaves nothing behind", async () => {
    using bench = open();
    symlinkSync(bench.work.at("elsewhere"), bench.tree.at(".ko.yaml"));
    const { code, stderr } = await bench.ours(["init", "-y"], { env: NO_FILE });
    expect([code, stderr]).toEqual([2, expect.stringContaining("overwrites nothing")]);
    expect([existsSync(bench.work.at("elsewhere")), existsSync(bench.tree.at(".ko.schema.json"))]).toEqual([
      false,
      false,
    ]);
  });

  test("keeps a schema that is there", async () => {
    using bench = open({ ".ko.schema.json": "{}\n" });
    const { stderr } = await bench.ours(["init", "-y"], { env: NO_FILE });
    expect(stderr).toBe("Wrote .ko.yaml; .ko.schema.json was there\n");
    expect(readFileSync(bench.tree.at(".ko.schema.json"), "utf8")).toBe("{}\n");
  });
});

describe("formatConfig()", () => {
  test.each([
    ["example.com/app/v2", "/w", "app", "."],
    ["example.com/app/cmd/007", "/w/cmd/007", '"007"', "./cmd/007"],
    ["example.com/app/cmd/on", "/w/cmd/on", '"on"', "./cmd/on"],
    ["example.com/app/a b", "/w/a b", '"a b"', '"./a b"'],
  ])("quotes names that are no plain text: %s", (importPath, dir, id, main) => {
    const program = { importPath, dir, module: undefined, workDir: "/w", text: "" };
    expect(formatConfig([program], "/w")).toContain(`  - id: ${id}\n    main: ${main}\n`);
  });
});
