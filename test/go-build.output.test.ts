import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, linkSync, renameSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type GoBuildEvent, OutputWatch } from "../lib/go-build.ts";
import { settingsOf } from "../lib/go.ts";
import type { Program } from "../lib/go-programs.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { waitUntil } from "./helpers/world-programs.ts";

let tree: Tree;
let seen: GoBuildEvent[];

beforeEach(() => {
  tree = writeTree({ out: null, tmp: null });
  seen = [];
});

afterEach(() => tree[Symbol.dispose]());

const programOf = (name: string): Program => ({
  importPath: `example.com/${name}`,
  dir: "/",
  workDir: "/",
  module: undefined,
  text: name,
});

function watch(names: readonly string[], options: { env?: Record<string, string>; kept?: string } = {}): OutputWatch {
  const { env = {}, kept } = options;
  for (const name of kept === undefined ? [] : names) linkSync(kept ?? "", tree.at(`out/${name}`));
  const round = { outDir: tree.at("out"), programs: new Map(names.map((name) => [name, programOf(name)])) };
  const host = hostAt(tree.path);
  const settings = settingsOf({ host, go: "go", cwd: tree.path, env: { GOENV: "off", ...env } });
  return new OutputWatch(round, {
    host,
    isMoved: settings.get("GOTMPDIR") === "",
    push: (event) => void seen.push(event),
  });
}

/** As go does it: complete when it appears. */
function link(name: string, text = "binary"): void {
  writeFileSync(tree.at(`tmp/${name}`), text);
  renameSync(tree.at(`tmp/${name}`), tree.at(`out/${name}`));
}

const of = (name: string, isNew = true): GoBuildEvent => ({
  kind: "built",
  program: programOf(name),
  path: tree.at(`out/${name}`),
  isNew,
});

describe("OutputWatch", () => {
  test("tells of a binary while others are still linked, once", async () => {
    const outputs = watch(["a", "b"]);
    link("a");
    await waitUntil(() => seen.length > 0);
    expect(seen).toEqual([of("a")]);
    link("b");
    outputs.finish();
    expect(seen).toEqual([of("a"), of("b")]);
  });

  test("knows which binary go left as it was, whatever its times are", () => {
    tree.write({ kept: "binary" });
    const outputs = watch(["a"], { kept: tree.at("kept") });
    utimesSync(tree.at("out/a"), 5, 5);
    outputs.finish();
    expect(seen).toEqual([of("a", false)]);
  });

  test("knows which binary took the place of the one that was there", () => {
    tree.write({ kept: "binary" });
    const outputs = watch(["a"], { kept: tree.at("kept") });
    link("a", "binary");
    outputs.finish();
    expect(seen).toEqual([of("a")]);
  });

  test("does not mind that a binary's times change once it has been seen", async () => {
    const outputs = watch(["a"]);
    link("a");
    await waitUntil(() => seen.length > 0);
    utimesSync(tree.at("out/a"), 5, 5);
    outputs.finish();
    expect(seen).toEqual([of("a")]);
  });

  test.each<[string, () => void, string]>([
    ["a binary is missing", () => {}, "there is no file"],
    ["something is in its place", () => tree.write({ "out/a": null }), "there is no file"],
  ])("fails if %s", (_name, work, why) => {
    const outputs = watch(["a"]);
    work();
    expect(() => outputs.finish()).toThrow(`Cannot build "example.com/a": go build ended well, but ${why}`);
  });

  test("fails if another file has taken the place of one that was seen", async () => {
    const outputs = watch(["a"]);
    link("a");
    await waitUntil(() => seen.length > 0);
    link("a", "other binary");
    expect(() => outputs.finish()).toThrow("something else wrote to");
  });

  test.each<[string, () => Record<string, string>]>([
    ["GOTMPDIR is set", () => ({ GOTMPDIR: tree.at("tmp") })],
    [
      "GOTMPDIR is set for good",
      () => {
        tree.write({ goenv: `GOTMPDIR=${tree.at("tmp")}\n` });
        return { GOENV: tree.at("goenv") };
      },
    ],
    [
      "the folder has the setgid bit",
      () => {
        chmodSync(tree.at("out"), 0o2755);
        return {};
      },
    ],
  ])("waits for the end where go copies: %s", async (_name, env) => {
    const outputs = watch(["a"], { env: env() });
    writeFileSync(join(tree.at("out"), "a"), "half");
    await Bun.sleep(50);
    expect(seen).toEqual([]);
    outputs.finish();
    expect(seen).toEqual([of("a")]);
  });
});
