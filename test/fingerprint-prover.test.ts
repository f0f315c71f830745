import { afterEach, describe, expect, test } from "bun:test";
import { chmodSync, renameSync, unlinkSync, utimesSync, writeFileSync } from "node:fs";
import { type Draft, type InputPlan, takeInputs } from "../lib/fingerprint-inputs.ts";
import { type Change, type Inputs, Prover } from "../lib/fingerprint-prover.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

let tree: Tree = writeTree({});

afterEach(() => tree[Symbol.dispose]());

/** An hour from now: everything has settled. */
const LATER = (): number => Date.now() + 3_600_000;
/** A moment from now: files just written are racy. */
const SOON = (): number => Date.now() + 500;

function take(plan: Partial<InputPlan>, now: number = LATER(), before?: Prover): Draft | Change {
  const whole = { folders: [], files: [], ...plan };
  return takeInputs(whole, { startedAt: now, now, ...(before === undefined ? {} : { before }) });
}

function inputsOf(draft: Draft | Change): Inputs {
  if (!("inputs" in draft)) throw new Error(`${draft.path} ${draft.what}`);
  return draft.inputs;
}

const lib = (kind: "sources" | "tree" | "entries" = "sources"): Partial<InputPlan> => ({
  folders: [{ dir: tree.at("lib"), kind }],
});

describe("Prover#findChange()", () => {
  const changes: readonly (readonly [string, () => unknown, Change["what"] | undefined, string])[] = [
    ["nothing", () => {}, undefined, ""],
    ["a file is written", () => writeFileSync(tree.at("lib/a.go"), "b"), "changed", "lib/a.go"],
    ["a file's mode", () => chmodSync(tree.at("lib/a.go"), 0o700), "changed", "lib/a.go"],
    ["a file's time", () => utimesSync(tree.at("lib/a.go"), 1, 1), "changed", "lib/a.go"],
    ["a source is added", () => writeFileSync(tree.at("lib/b.go"), ""), "added", "lib/b.go"],
    ["a source goes", () => unlinkSync(tree.at("lib/a.go")), "removed", "lib/a.go"],
    ["another file is added", () => writeFileSync(tree.at("lib/x.txt"), ""), undefined, ""],
    ["the folder goes", () => renameSync(tree.at("lib"), tree.at("lib2")), "removed", "lib"],
    ["a file appears that was not there", () => writeFileSync(tree.at("go.work"), ""), "added", "go.work"],
    [
      "a folder in the place of a file",
      () => {
        unlinkSync(tree.at("go.mod"));
        tree.write({ "go.mod/x": "" });
      },
      "changed",
      "go.mod",
    ],
  ];
  test.each(changes)("%s", (_name, change, what, path) => {
    tree = writeTree({ "lib/a.go": "a", "go.mod": "" });
    const inputs = inputsOf(take({ ...lib(), files: [tree.at("go.mod"), tree.at("go.work")] }));
    change();
    expect(new Prover().findChange(inputs)).toEqual(what === undefined ? undefined : { path: tree.at(path), what });
  });

  test.each([
    ["entries", "x.txt", true],
    ["entries", "sub/x", true],
    ["tree", "x.txt", false],
    ["tree", "x.go", true],
    ["tree", "sub/x", true],
    ["tree", "_sub/x", false],
    ["tree", "testdata/x", false],
  ] as const)("of %s, that %s is added counts: %p", (kind, name, counts) => {
    tree = writeTree({ "lib/a.go": "a" });
    const inputs = inputsOf(take(lib(kind)));
    tree.write({ [`lib/${name}`]: "" });
    expect(new Prover().findChange(inputs) !== undefined).toBe(counts);
  });

  test("compares racy files by their content", () => {
    tree = writeTree({ "lib/a.go": "a" });
    const inputs = inputsOf(take(lib(), SOON()));
    expect(inputs.racy.map(([path]) => path)).toEqual([tree.at("lib/a.go")]);
    expect(new Prover().findChange(inputs)).toBeUndefined();
    const lied = { ...inputs, racy: [[tree.at("lib/a.go"), "0"]] as const };
    expect(new Prover().findChange(lied)).toEqual({ path: tree.at("lib/a.go"), what: "changed" });
  });

  test("looks once at files that several records share", () => {
    tree = writeTree({ "lib/a.go": "a" });
    const inputs = inputsOf(take(lib()));
    const prover = new Prover();
    expect(prover.findChange(inputs)).toBeUndefined();
    writeFileSync(tree.at("lib/a.go"), "b");
    expect(prover.findChange(inputs)).toBeUndefined();
    expect(new Prover().findChange(inputs)).toBeDefined();
  });
});

describe("Prover#findChange() and headers", () => {
  const source = (imported: string, text: string): string =>
    `package lib\n\nimport "${imported}"\n\nfunc F() { ${text} }\n`;

  test.each<[string, string, boolean]>([
    ["a change below the header", source("fmt", "other()"), true],
    ["another import", source("os", "f()"), false],
    ["a syntax error", "package", false],
  ])("%s", (_name, text, alike) => {
    tree = writeTree({ "lib/a.go": source("fmt", "f()") });
    const path = tree.at("lib/a.go");
    const inputs = inputsOf(take({ folders: [{ dir: tree.at("lib"), kind: "sources", headers: "read" }] }));
    writeFileSync(path, text);
    const same = new Set<string>();
    expect({ change: new Prover().findChange(inputs, same), same: [...same] }).toEqual({
      change: alike ? undefined : { path, what: "changed" },
      same: alike ? [path] : [],
    });
    expect(new Prover().findChange(inputs)).toEqual({ path, what: "changed" });
  });

  test("are taken over from a record of the same names only", () => {
    tree = writeTree({ "lib/a.go": "package lib\n" });
    const dir = tree.at("lib");
    const headersOf = (names: readonly string[]): readonly string[] | undefined =>
      inputsOf(take({ folders: [{ dir, kind: "sources", names, headers: ["h"] }] })).folders[0]?.headers;
    expect([headersOf(["a.go"]), headersOf(["b.go"])]).toEqual([["h"], undefined]);
  });
});
