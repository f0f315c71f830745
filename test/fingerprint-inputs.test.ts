import { afterEach, describe, expect, test } from "bun:test";
import { statSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { confirmInputs, type Draft, type InputPlan, refreshInputs, takeInputs } from "../lib/fingerprint-inputs.ts";
import { type Change, type Inputs, Prover } from "../lib/fingerprint-prover.ts";
import { Looks } from "../lib/fingerprint.ts";
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

describe("takeInputs()", () => {
  test("does not take inputs that may have changed meanwhile", () => {
    tree = writeTree({ "lib/a.go": "a" });
    expect(take(lib(), statSync(tree.at("lib/a.go")).ctimeMs)).toEqual({ path: tree.at("lib"), what: "changed" });
  });

  test("takes a folder that changes all the time, if its names were known before", () => {
    tree = writeTree({ "lib/a.go": "a" });
    const before = new Prover();
    before.noteNames(inputsOf(take(lib())));
    const startedAt = statSync(tree.at("lib/a.go")).ctimeMs + 100;
    while (Date.now() <= startedAt + 20) Bun.sleepSync(5);
    tree.write({ "lib/x.txt": "" });
    const draft = take(lib(), startedAt, before);
    expect(inputsOf(draft).folders[0]?.names).toEqual(["a.go"]);
    // But not for ever: a source may have come and gone.
    if ("inputs" in draft) {
      tree.write({ "lib/b.go": "" });
      unlinkSync(tree.at("lib/b.go"));
      expect(confirmInputs(draft, { now: LATER(), prover: new Prover(), looks: new Looks() })).toEqual({
        path: tree.at("lib"),
        what: "changed",
      });
    }
  });

  test("does not take a link that was led elsewhere, whatever its target's age", () => {
    tree = writeTree({
      "lib/a.go": { link: "../x.go" },
      "x.go": "",
      "y.go": "",
      current: { link: "v1" },
      "v1/a.go": "",
      "v2/a.go": "",
    });
    const startedAt = Date.now() + 50;
    while (Date.now() <= startedAt + 20) Bun.sleepSync(5);
    unlinkSync(tree.at("lib/a.go"));
    unlinkSync(tree.at("current"));
    symlinkSync("../y.go", tree.at("lib/a.go"));
    symlinkSync("v2", tree.at("current"));
    const plan = { folders: [], files: [tree.at("lib/a.go")] };
    expect(takeInputs(plan, { startedAt, now: Date.now() })).toEqual({ path: tree.at("lib/a.go"), what: "changed" });
    const folder = { folders: [{ dir: tree.at("current"), kind: "sources" as const }], files: [] };
    expect(takeInputs(folder, { startedAt, now: Date.now() })).toEqual({ path: tree.at("current"), what: "changed" });
  });

  test("does not take files that Go has not seen, or broken symlinks", () => {
    tree = writeTree({ "lib/a.go": "a", "broken/a.go": { link: "nowhere" } });
    const folder = { dir: tree.at("lib"), kind: "sources" as const };
    expect(take({ folders: [{ ...folder, seen: ["a.go", "b.go"] }] })).toEqual({
      path: tree.at("lib"),
      what: "changed",
    });
    expect(take({ folders: [{ ...folder, seen: [] }] })).toEqual({ path: tree.at("lib"), what: "changed" });
    expect("inputs" in take({ folders: [{ ...folder, seen: ["a.go", "a_test.go"] }] })).toBe(true);
    expect(take({ folders: [{ dir: tree.at("broken"), kind: "sources" }] })).toEqual({
      path: tree.at("broken/a.go"),
      what: "removed",
    });
  });
});

describe("refreshInputs()", () => {
  test("has better marks when time has gone by, and the same proof", () => {
    tree = writeTree({ "lib/a.go": "a" });
    const inputs = inputsOf(take(lib(), SOON()));
    const better = refreshInputs(inputs, LATER());
    expect(better?.racy).toEqual([]);
    expect(better === undefined ? "nothing" : new Prover().findChange(better)).toBeUndefined();
    expect(better === undefined ? "nothing" : refreshInputs(better, LATER())).toBeUndefined();
  });

  test("gives nothing if something changed meanwhile", () => {
    tree = writeTree({ "lib/a.go": "a" });
    const inputs = inputsOf(take(lib(), SOON()));
    writeFileSync(tree.at("lib/a.go"), "b");
    expect(refreshInputs(inputs, LATER())).toBeUndefined();
  });
});
